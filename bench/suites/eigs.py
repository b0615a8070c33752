"""The smallest eigenvalue from a random start, to a residual of 1e-6 |H|.

Peers get the fastest product of any peer, the tolerance in the form each of them knows, and, where a method cannot stop by
itself, the smallest number of steps that suffices, found beforehand: each is at its best, or better.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import pyhess as ph

from .. import ours, peers, roofline
from ..cases import LANCZOS, PRODUCTS, Array, Problem, small
from ..experiment import Contender, Experiment
from ..records import Row
from ..runner import Plan, carry_out

SUITE = "eigs"
_TOLERANCE = 1e-6  # of the residual, relative to |H|
_SEED = 3407
_STEPS = 90


def rows(plan: Plan) -> list[Row]:
    """All cases in float64, and the published comparison."""
    found = carry_out(experiments(plan), plan)
    if plan.only not in LANCZOS.name:
        return found
    case = small(LANCZOS) if plan.smoke else LANCZOS
    return found + carry_out([lanczos_steps(Problem(case, "float32", plan.threads))], plan)


def experiments(plan: Plan) -> Iterator[Experiment]:
    """One experiment per case."""
    for case in PRODUCTS:
        if plan.only in case.name:
            yield _experiment(Problem(small(case) if plan.smoke else case, "float64", plan.threads), plan)


def _experiment(problem: Problem, plan: Plan) -> Experiment:
    H = ours.objective(problem).hessian(problem.theta)
    pair = ph.eigsh(H, tol=_TOLERANCE, rng=_SEED)
    value, norm = float(pair.eigenvalues[0]), float(pair.norm_estimate)
    found = peers.products(plan.peers, "prepare", problem, plan.failed)
    start = np.random.default_rng(_SEED).standard_normal(problem.case.num_params)
    contenders = [Contender("pyhess", "pyhess", lambda: ph.eigsh(H, tol=_TOLERANCE, rng=_SEED), lambda r: r.eigenvalues)]
    modules = plan.peers.modules
    if found and "scipy_eigsh" in modules:
        best = _fastest(found, problem.vector)
        for basis in (None, 40):
            run = modules["scipy_eigsh"].solver(best, start, _TOLERANCE * norm / abs(value), basis)
            contenders.append(_contender(f"scipy eigsh{'' if basis is None else f' ncv={basis}'} over {best.who}", run))
        if "primme_eigsh" in modules:
            run = modules["primme_eigsh"].solver(best, start, _TOLERANCE)
            contenders.append(_contender(f"PRIMME over {best.who}", run))
    if "scipy_eigsh" in modules:
        run = modules["scipy_eigsh"].solver(lambda v: H @ v, start, _TOLERANCE * norm / abs(value))
        contenders.append(_contender("scipy eigsh over pyhess", run, "ruler"))
    contenders += _fixed_steps(problem, plan, H, found, start, pair)
    notes = {"num_params": problem.case.num_params, "matvecs": int(pair.num_matvecs)}
    # An eigenvalue with residual r is accurate to r^2 over its gap; 1e-6 of |H| is far more than any contender needs.
    tolerance = _TOLERANCE * norm / abs(value)
    return Experiment(SUITE, problem.case.name, problem.dtype, "eigval_min", tuple(contenders), tolerance, None, notes)


def _fixed_steps(
    problem: Problem, plan: Plan, H: Any, found: list[peers.Product], start: Array, pair: Any
) -> Iterator[Contender]:
    """Lanczos of matfree and hessian-eigenthings with as many steps as they need, looked for near ours."""

    def sufficient(run: Any) -> bool:
        rho, v = run()
        v = v / np.linalg.norm(v)
        return bool(np.linalg.norm(H @ v - rho * v) <= _TOLERANCE * float(pair.norm_estimate))

    modules, most, near = plan.peers.modules, problem.case.num_params, int(pair.num_matvecs)
    traced = [product for product in found if product.function is not None]
    if "matfree_lanczos" in modules and traced:
        best = _fastest(traced, problem.vector)
        make = modules["matfree_lanczos"].solver
        steps = _fewest(lambda count: sufficient(make(problem, best, start, count)), near, most)
        yield _contender(f"matfree, {steps} steps over {best.who}", make(problem, best, start, steps))
    if "eigenthings" in modules:
        make = modules["eigenthings"].prepare_eigen
        steps = _fewest(lambda count: sufficient(make(problem, count, _SEED)), near, most)
        yield _contender(f"hessian-eigenthings, {steps} steps", make(problem, steps, _SEED))


def _contender(who: str, run: Any, kind: str = "peer") -> Contender:
    return Contender(who, kind, run, lambda pair: np.array([pair[0]]))


def _fastest(products: list[peers.Product], v: Array) -> peers.Product:
    """The product that is fastest with conversions from and to NumPy, as a solver needs it."""

    def seconds(product: peers.Product) -> float:
        product(v), product(v)
        best = float("inf")
        for _ in range(5):
            began = time.perf_counter()
            product(v)
            best = min(best, time.perf_counter() - began)
        return best

    return min(products, key=seconds)


def _fewest(suffices: Any, near: int, most: int) -> int:
    """A number of steps that suffices, within an eighth of the smallest or one more; ``near`` is where to look first."""
    low, high = 0, min(near, most)
    while not suffices(high):
        if high == most:
            raise RuntimeError(f"{most} steps do not suffice")
        low, high = high, min(high + max(1, high // 8), most)
    while low == 0 and high > 1 and suffices(fewer := high - max(1, high // 8)):
        high = fewer
    return high


def lanczos_steps(problem: Problem) -> Experiment:
    """A fixed number of Lanczos steps with full reorthogonalisation: a tolerance that float32 products cannot meet."""
    H = ours.objective(problem).hessian(problem.theta)
    steps = min(_STEPS, problem.case.num_params - 2)

    def run() -> Any:
        result = ph.eigsh(H, tol=1e-15, max_matvecs=steps + 2, rng=_SEED, on_failure="return")
        assert problem.case.num_params < 1000 or result.num_matvecs >= steps, f"only {result.num_matvecs} products"
        return result

    flops = steps * problem.case.flops
    return Experiment(
        SUITE, problem.case.name, problem.dtype, f"{_STEPS} Lanczos steps",
        (
            Contender("pyhess", "pyhess", run, lambda result: result.eigenvalues),
            roofline.gemm_peak(problem.dtype, problem.threads),
        ), 1.0, flops,
        {"num_params": problem.case.num_params},
    )  # fmt: skip
