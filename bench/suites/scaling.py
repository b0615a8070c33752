"""How the cost of a product grows: with width, data, depth, batch and threads. Ours, and the best kind of cached peer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numba
import numpy as np
from scipy import stats

from .. import ours, peers
from ..cases import Case, Problem, small
from ..experiment import Contender, Experiment
from ..records import Row
from ..runner import Plan, carry_out
from .products import TOLERANCE, contender

SUITE = "scaling"
_PEER = "jax.linearize"
_BATCH_PEER = "jax vmap linearize"

#: Axis: (values, the case for a value, the exponent that arithmetic alone would give).
_Axis = tuple[tuple[int, ...], Callable[[int], Case], float]


def _axes(mode: str) -> dict[str, _Axis]:
    long = mode == "full"
    widths = (32, 64, 128, 256, 512, 1024, 2048) if long else (64, 128, 256, 512)
    samples = (128, 256, 512, 1024, 2048, 4096, 8192) if long else (256, 512, 1024, 2048)
    depths = (2, 3, 4, 6, 8) if long else (2, 4, 8)
    batches = (1, 4, 16, 64, 256) if long else (2, 8, 32)
    return {
        "width": (widths, lambda w: Case((w, w, w, 10), 512), 2.0),
        "N": (samples, lambda n: Case((128, 128, 128, 10), n), 1.0),
        "depth": (depths, lambda d: Case((128,) * (d + 1) + (10,), 512), 1.0),
        "S": (batches, lambda s: Case((16, 16, 4), 256, batch=s), 1.0),
    }


def rows(plan: Plan) -> list[Row]:
    """All axes in float64, and threads."""
    found: list[Row] = []
    for axis, (values, make, expected) in _axes(plan.mode).items():
        if plan.only not in axis:
            continue
        points = carry_out(_experiments(axis, values[:2] if plan.smoke else values, make, plan), plan)
        found += _fitted(points, axis, expected)
    if plan.only in "threads":
        found += _threads(plan)
    return found


def _experiments(axis: str, values: tuple[int, ...], make: Callable[[int], Case], plan: Plan) -> Iterator[Experiment]:
    for value in values:
        case = make(value)
        if plan.smoke:
            case = replace(case, widths=(5, 4, 3), samples=9, batch=min(case.batch, 2))
        problem = Problem(case, "float64", plan.threads)
        batched = axis == "S"
        kind, v = ("prepare_batch", problem.vectors) if batched else ("prepare", problem.vector)
        wanted = _BATCH_PEER if batched else _PEER
        contenders = [contender(getattr(ours, kind)(problem)[0], "pyhess", v)]
        if "jax_products" in plan.peers.modules:
            jax = peers.Peers({"jax_products": plan.peers.modules["jax_products"]}, {})
            found = peers.products(jax, kind, problem, plan.failed)
            contenders += [contender(product, "peer", v) for product in found if product.who == wanted]
        yield Experiment(
            SUITE, case.name, "float64", f"cost against {axis}", tuple(contenders), TOLERANCE["float64"],
            case.batch * case.flops, {"axis": axis, "at": value},
        )  # fmt: skip


def _fitted(points: list[Row], axis: str, expected: float) -> list[Row]:
    """The rows with the exponent of time against the axis, its 95 % interval and what arithmetic alone would give."""
    fits: dict[str, dict[str, float]] = {}
    for who in {row.who for row in points}:
        mine = [row for row in points if row.who == who]
        fit = exponent([float(row.metrics["at"]) for row in mine], [float(row.minimum or math.nan) for row in mine])
        fits[who] = {"exponent": fit[0], "exponent_error": fit[1], "arithmetic": expected}
    return [replace(row, metrics={**row.metrics, **fits[row.who]}) for row in points]


def exponent(x: list[float], y: list[float]) -> tuple[float, float]:
    """(p, half width of its 95 % interval) of the best fit y = c x^p."""
    fit = stats.linregress(np.log(x), np.log(y))
    if len(x) < 3:
        return float(fit.slope), 0.0
    return float(fit.slope), float(fit.stderr * stats.t.ppf(0.975, len(x) - 2))


def _threads(plan: Plan) -> list[Row]:
    """Ours alone with 1, 2, … threads: other libraries choose theirs once, when they are loaded."""
    case = Case((128, 128, 128, 10), 2048)
    problem = Problem(small(case) if plan.smoke else case, "float64", plan.threads)
    product = ours.prepare(problem)[0]
    native = product.load(problem.vector)

    def limited(count: int) -> Callable[[], object]:
        def run() -> object:
            before = numba.get_num_threads()
            numba.set_num_threads(count)
            try:
                return product.multiply(native)
            finally:
                numba.set_num_threads(before)

        return run

    counts = sorted({1, 2, plan.threads, *(2**i for i in range(1, plan.threads.bit_length()))} & set(range(1, plan.threads + 1)))
    contenders = tuple(Contender(f"pyhess, {count} threads", "pyhess", limited(count), product.unload, True) for count in counts)
    # The same bits for every number of threads.
    return carry_out(
        [Experiment(SUITE, case.name, "float64", "cost against threads", contenders, 0.0, case.flops, {"axis": "threads"})], plan
    )
