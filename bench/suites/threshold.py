"""Time until a search has 99 % of the best-known psi, the smallest Hessian eigenvalue over a box.

Ours is ``pyhess.search``. Against it: joint L-BFGS-B on (theta, v) with values and gradients from JAX and from PyTorch in
float64, started where ours starts, on all cores; and uniform sampling with scipy's eigsh, which is given a hundred times our
time. A run of anything that does not get there counts as not reached, and is given at least a hundred times our time too,
up to a limit.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import pyhess as ph
from pyhess.threshold.starts import FAMILIES

from ..cases import Array, Case, Problem
from ..descent import History, Hunt, joint_descent, reached, sampling
from ..experiment import Contender, Experiment, check
from ..records import ForeignShare, Row
from ..runner import Plan
from ..timing import SETTLE_SECONDS

SUITE = "threshold"
_FRACTION = 0.99
_SEEDS = (11, 12, 13, 14, 15, 16, 17)
_PATIENCE = 100.0
_WARM_SECONDS = 0.2  # of every search before it is timed: it compiles, and a processor that rested is slow at first
_LIMITS = {"full": (10.0, 90.0), "short": (5.0, 15.0)}  # seconds that peers have at least and at most


@dataclass(frozen=True)
class Question:
    """A data set, a network and a box [-half_width, half_width]^P, with the smallest eigenvalue known (or below it)."""

    data: str
    rows: int | None
    widths: tuple[int, ...]
    loss: str
    half_width: float
    best_known: float

    @property
    def name(self) -> str:
        """Data, widths and box."""
        return f"{self.data} {'-'.join(map(str, self.widths))} box {self.half_width}"


QUESTIONS = (
    Question("diabetes", None, (10, 8, 1), "squared_error", 1.0, -26.27021),
    Question("diabetes", None, (10, 8, 8, 1), "squared_error", 1.0, -1229.9376),
    Question("diabetes", None, (10, 64, 1), "squared_error", 1.0, -211.28837),
    Question("digits", 500, (64, 16, 10), "cross_entropy", 0.5, -1.23337),
)


@dataclass(frozen=True)
class Given(Problem):
    """A problem whose data come from elsewhere."""

    inputs: Any = None
    targets: Any = None

    @property
    def X(self) -> Array:
        """Inputs (N, d_in)."""
        return self.inputs

    @property
    def y(self) -> Array:
        """Labels or targets."""
        return self.targets


def given(question: Question, threads: int) -> tuple[Given, ph.Objective]:
    """The question as the peers see it and as pyhess does."""
    data = ph.datasets.load(question.data, n=question.rows)
    X = np.ascontiguousarray(data.X)
    y = np.asarray(data.y)
    obj = ph.Objective(ph.MLP(list(question.widths)), data, loss=question.loss)
    targets = y if question.loss == "cross_entropy" else y.reshape(len(y), -1)
    case = Case(question.widths, len(X), "tanh", question.loss)
    return Given(case, "float64", threads, inputs=X, targets=targets), obj


def rows(plan: Plan) -> list[Row]:
    """All questions."""
    found: list[Row] = []
    for question in QUESTIONS[:1] if plan.smoke else QUESTIONS:
        if plan.only in question.name:
            found += _rows(question, plan)
    return found


def _rows(question: Question, plan: Plan) -> list[Row]:
    problem, obj = given(question, plan.threads)
    modules = plan.peers.modules
    quotients = {
        f"{library} joint L-BFGS-B": modules[f"{library}_quotient"].prepare_quotient(problem)
        for library in ("jax", "torch")
        if f"{library}_quotient" in modules
    }
    product = _product(problem, plan)
    agreed = check(_answers(question, problem, obj, quotients, product))
    plan.tell(f"{question.name}: {agreed} answers agree")
    if plan.smoke:
        return []

    target, share = _FRACTION * question.best_known, ForeignShare()
    seeds = _SEEDS if plan.mode == "full" else _SEEDS[:3]
    box = ph.Box(-question.half_width, question.half_width)
    histories: dict[str, list[History]] = {"pyhess": []}
    least, most = _LIMITS[plan.mode]
    for seed in seeds:
        ph.search(obj, box, rng=5, time_limit=_WARM_SECONDS)
        plan.protocol.sleep(SETTLE_SECONDS)
        mine = search(obj, question, seed)
        histories["pyhess"].append(mine)
        limit = min(most, max(least, _PATIENCE * (reached(mine, target) or math.inf)))
        for who, quotient in quotients.items():
            for begin, goal, patience in ((5, -math.inf, _WARM_SECONDS), (seed, target, limit)):
                plan.protocol.sleep(SETTLE_SECONDS)
                hunt = Hunt(goal, patience)
                run = joint_descent(quotient, starts(obj, question, begin), question.half_width, hunt, plan.threads)
            histories.setdefault(who, []).append(run)
        plan.tell(
            f"{question.name}, seed {seed}: "
            + ", ".join(f"{who} {_text(reached(h[-1], target))}" for who, h in histories.items())
        )
    times = [reached(history, target) or math.inf for history in histories["pyhess"]]
    if product is not None:
        limit = min(most, max(least, _PATIENCE * statistics.median(times)))
        hunt = Hunt(target, limit)
        histories["sampling + scipy eigsh"] = [
            sampling(product, obj.num_params, question.half_width, hunt, plan.threads, seeds[0])
        ]
    foreign, load = share.read(), os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return [_row(question, who, runs, target, plan, foreign, load) for who, runs in histories.items()]


def _row(question: Question, who: str, runs: list[History], target: float, plan: Plan, foreign: float, load: float) -> Row:
    times = [reached(run, target) for run in runs]
    done = sorted(seconds for seconds in times if seconds is not None)
    best = min((run[-1][1] for run in runs if run), default=math.inf)
    # The median counts runs that did not get there as longer than any that did.
    median = done[(len(runs) - 1) // 2] if len(done) > (len(runs) - 1) // 2 else None
    return Row(
        SUITE, question.name, "float64", f"{_FRACTION:.0%} of the best-known psi", who, "pyhess" if who == "pyhess" else "peer",
        False, plan.threads, done[0] if done else None, median, (done[-1] - done[0]) / median if median else 0.0,
        len(runs), load=load, foreign=foreign, samples=tuple(done),
        metrics={
            "reached": f"{len(done)}/{len(runs)}", "best": best if math.isfinite(best) else None,
            "of_best_known": best / question.best_known if math.isfinite(best) else None, "best_known": question.best_known,
            "searched": max((run[-1][0] for run in runs if run), default=0.0),
            "history": [[round(seconds, 4), value] for seconds, value in runs[0]][-200:],
        },
    )  # fmt: skip


def search(obj: ph.Objective, question: Question, seed: int) -> History:
    """Our search as (seconds, best so far), through its progress reports."""
    history: History = []
    began = time.perf_counter()

    def progress(state: dict[str, Any]) -> None:
        value = float(state["psi_upper"])
        if math.isfinite(value) and (not history or value < history[-1][1]):
            history.append((time.perf_counter() - began, value))

    result = ph.search(obj, ph.Box(-question.half_width, question.half_width), rng=seed, progress=progress)
    history.append((time.perf_counter() - began, result.psi_upper))
    return history


def starts(obj: ph.Objective, question: Question, seed: int) -> Iterator[Array]:
    """The points (theta, v) at which our search starts for this seed, and then more of the same kinds."""
    rng, families = np.random.default_rng(seed), list(FAMILIES.values())
    number = 0
    while True:
        theta = question.half_width * families[number % len(families)](obj.net, obj, rng)
        v = rng.standard_normal(obj.num_params)
        yield np.concatenate([theta, v / np.linalg.norm(v)])
        number += 1


def _product(problem: Given, plan: Plan) -> Callable[[Array, Array], Array] | None:
    """``product(theta, v)`` of JAX's compiled jvp of grad: theta changes too often for anything that is kept."""
    modules = plan.peers.modules
    if "jax_products" not in modules:
        return None
    fresh = next(product for product in modules["jax_products"].prepare(problem) if product.function and not product.cached)
    assert fresh.function is not None
    function, (_, X, y) = fresh.function
    return lambda theta, v: fresh.unload(function(fresh.load(theta), fresh.load(v), X, y))


def _answers(question: Question, problem: Given, obj: ph.Objective, quotients: dict[str, Any], product: Any) -> Experiment:
    """All that the searches use: quotients with their gradients, and products, at a point of the box."""
    theta, v = np.split(next(starts(obj, question, 3)), 2)
    jet = obj.curvature(theta, v)
    contenders = [Contender("pyhess", "pyhess", lambda: (jet.q, jet.grad, 2.0 * jet.hv), _stacked)]
    contenders += [Contender(who, "peer", lambda f=f: f(theta, v), _stacked) for who, f in quotients.items()]
    if product is not None:
        contenders.append(
            Contender("product", "peer", lambda: product(theta, v), lambda hv: _stacked((float(v @ hv), jet.grad, 2.0 * hv)))
        )
    return Experiment(SUITE, question.name, "float64", "quotient", tuple(contenders), 1e-9)


def _stacked(parts: tuple[float, Array, Array]) -> Array:
    return np.concatenate([[parts[0]], parts[1], parts[2]])


def _text(seconds: float | None) -> str:
    return "not reached" if seconds is None else f"{seconds:.3g} s"
