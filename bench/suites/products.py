"""One product H v at one theta: ours, every peer's, and the machine's limits."""

from __future__ import annotations

from collections.abc import Iterator

from .. import ours, peers, roofline
from ..cases import PRODUCTS, Array, Case, Problem, small
from ..experiment import Contender, Experiment
from ..records import Row
from ..runner import Plan, carry_out

SUITE = "products"
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}


def rows(plan: Plan) -> list[Row]:
    """All cases in all dtypes."""
    return carry_out(experiments(plan), plan)


def experiments(plan: Plan, cases: tuple[Case, ...] = PRODUCTS) -> Iterator[Experiment]:
    """One experiment per case and dtype."""
    for case in cases:
        if plan.only not in case.name:
            continue
        for dtype in plan.dtypes:
            problem = Problem(small(case) if plan.smoke else case, dtype, plan.threads)
            yield experiment(problem, plan)


def experiment(problem: Problem, plan: Plan) -> Experiment:
    """Ours, the peers', and unless answers are all that matters the rulers."""
    v = problem.vector
    contenders = [contender(product, "pyhess", v) for product in ours.prepare(problem)]
    contenders += [contender(product, "peer", v) for product in peers.products(plan.peers, "prepare", problem, plan.failed)]
    if not plan.smoke:
        contenders += [
            *ours.yardsticks(problem),
            roofline.gemm_peak(problem.dtype, problem.threads),
            roofline.shape_peak(problem),
        ]
    return Experiment(
        SUITE, problem.case.name, problem.dtype, "product", tuple(contenders), TOLERANCE[problem.dtype], problem.case.flops,
        {"num_params": problem.case.num_params},
    )  # fmt: skip


def contender(product: peers.Product, kind: str, v: Array) -> Contender:
    """A product with the vector already in the library's own container."""
    native, multiply = product.load(v), product.multiply
    return Contender(product.who, kind, lambda: multiply(native), product.unload, product.cached, product.flops)
