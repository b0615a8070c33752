"""The joint search over (theta, v): the lower end of the bracket.

psi = inf over theta in Theta and v != 0 of rho(theta, v) = v'H(theta)v / v'v. Every pair is a valid upper bound of psi, so the
search is free to be greedy: many starts from several families descend jointly in theta and v (descent.hpp), poor ones
are dropped, and at the end Lanczos puts the globally best v under each surviving theta before the last descent. For a penalty
with other weights than ones the same is done in v = S u, see strategies.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import as_rng, positive_int
from ..errors import InputError
from ..kernels import descent
from ..linearization import Linearization
from ..objective import Objective
from ..operators import Hessian
from ..penalties import L2, Penalty, as_penalty
from ..regions import Ball, Box, Ordered, Region, as_region
from ..regions.ordered import permuted, unit_orders
from ..spectrum import eigsh
from .explore import DEEP_LAYERS, evals_per_start
from .first_look import Early, first_look
from .narrow import search_narrow
from .projected import ProjectedRun
from .search_run import FloatArray, NativeRun, Run, evaluation_flops
from .starts import FAMILIES, into_ball, sow
from .steps import Steps, conduct
from .strategies import Found, hunt
from .warm import CheckedPairs, Warm, as_warm, warm_rows

#: Arithmetic the search spends by default, in flops; seconds of two cores.
_BUDGET_FLOPS = 3e11
_MIN_EVALS, _MAX_EVALS = 400, 40_000
_DEEP_SHARE = 2.0  # of both, for deep networks: theirs are the most rugged landscapes
_MIN_STARTS, _MAX_STARTS = 8, 256
#: Lanczos steps for a warm start without a direction.
_FEW_MATVECS, _LANCZOS_SEED = 40, 2718
#: What an evaluation in the Python loop costs on top, in flops that the core could do meanwhile.
_LOOP_FLOPS = 2e7


@dataclass(frozen=True)
class SearchResult:
    """What the joint search found.

    Attributes
    ----------
    psi_upper : float
        The Rayleigh quotient v'H(theta)v / v'v of the pair found: psi <= psi_upper up to the rounding of its evaluation. For
        penalties with weights 1 it is the smallest found.
    theta, v : (P,) arrays
        The pair that asks for the largest penalty strength; ``v`` has length one.
    best_family : str
        The start family that led there.
    families : dict
        Per family the best value and the number of starts.
    num_starts, num_jets, num_matvecs : int
        Starts, evaluations of the curvature jet (each with a linearization), Hessian-vector products of the Lanczos steps.
    seconds : float
        Wall time.
    interrupted : bool
        True if Ctrl-C or the time limit ended the search early.
    penalty : Penalty
        The penalty whose strength was asked for.
    """

    psi_upper: float
    theta: FloatArray
    v: FloatArray
    best_family: str
    families: dict[str, dict[str, float]]
    num_starts: int
    num_jets: int
    num_matvecs: int
    seconds: float
    interrupted: bool
    penalty: Penalty = field(default_factory=L2)

    @property
    def lam_lower(self) -> float:
        """The strength this pair asks for, before a witness subtracts its rounding allowance; max(0, -psi_upper/2) for L2."""
        return self.penalty.strength(self.psi_upper, self.v)


def _effort(obj: Objective, starts: int | None, native: bool) -> int:
    """How many starts; depends on the sizes alone, so that the answer does."""
    if starts is not None:
        return max(2, positive_int("starts", starts))
    per_eval = evaluation_flops(obj) + (0.0 if native else _LOOP_FLOPS)
    evals = float(np.clip(_BUDGET_FLOPS / per_eval, _MIN_EVALS, _MAX_EVALS))
    evals *= _DEEP_SHARE if obj.net.num_layers > DEEP_LAYERS else 1.0
    return int(np.clip(evals / evals_per_start(obj.net.num_layers), _MIN_STARTS, _MAX_STARTS))


def _map_of(frame: Region) -> tuple[int, FloatArray, FloatArray]:
    """(kind, mid, half) of theta = mid + half x for a box or a ball."""
    if isinstance(frame, Box):
        low, high = np.asarray(frame.low, dtype=np.float64), np.asarray(frame.high, dtype=np.float64)
        return descent.BOX, 0.5 * (low + high), 0.5 * (high - low)
    assert isinstance(frame, Ball)
    center = np.array(frame.center, dtype=np.float64)
    return descent.BALL, center, np.full(center.size, float(frame.radius))


def _make_run(
    obj: Objective,
    region: Region,
    penalty: Penalty,
    count: int,
    warm: CheckedPairs,
    early: list[Early],
    rng: np.random.Generator,
    deadline: float | None,
    progress: Callable[[dict[str, Any]], object] | None,
    cancel: npt.NDArray[np.int32],
) -> Run:
    engine = obj.engine.in_float64()
    native = isinstance(region, Box | Ball)
    size = obj.num_params
    frames = [_map_of(frame) for frame in ((region,) if native else region.frames())]
    kind, mid, half = frames[0]
    if not native:
        mid, half = region.interior_point(), np.full(size, float(np.mean([h.mean() for _, _, h in frames])))
    # In front, so that a search cut short has seen them; their noise leaves the stream of the others alone.
    brought: CheckedPairs = [pair for found in early for pair in found.pairs]
    families = [name for found in early for name in found.names]
    first = len(warm) + len(brought)
    room = np.empty((first + count, 2 * size))  # filled in place: memory touched for the first time is slow

    def stopped() -> bool:
        return bool(cancel[0]) or (deadline is not None and monotonic() >= deadline)

    zs, names = sow(obj, count, native and kind == descent.BALL, rng, room[first:], stopped)
    for i, z in enumerate(zs if not native else ()):
        frame_kind, frame_mid, frame_half = frames[i // len(FAMILIES) % len(frames)]
        x = into_ball(obj, z[:size], rng) if frame_kind == descent.BALL else z[:size]
        z[:size] = (region.project(frame_mid + frame_half * x) - mid) / half
    streams = rng.spawn(2)
    room[: len(warm)] = warm_rows(warm, region, mid, half, penalty, streams[1])
    room[len(warm) : first] = warm_rows(brought, region, mid, half, penalty, streams[0])
    names, rows = ["warm"] * len(warm) + families + names, room[: first + len(names)]
    run: Run
    if native:
        run = NativeRun(obj, engine, mid, half, rows, names, deadline, progress, cancel, kind=kind)
        places = slice(len(warm), first)
        if early:  # should the search end before it begins
            run.values[places], run.exact[places] = np.concatenate([found.values for found in early]), False
    else:
        run = ProjectedRun(obj, engine, mid, half, rows, names, deadline, progress, cancel, region=region)
    run.interrupted = zs.shape[0] < count
    return run


def search(
    obj: Objective,
    region: Region,
    *,
    penalty: Penalty | None = None,
    rng: int | np.random.Generator | None = None,
    time_limit: float | None = None,
    starts: int | None = None,
    warm: Warm | None = None,
    progress: Callable[[dict[str, Any]], object] | None = None,
    cancel: npt.NDArray[np.int32] | None = None,
) -> SearchResult:
    """Search for the point and direction that ask for the largest penalty strength.

    For `L2` and `ShiftedL2` that is the smallest eigenvalue of the Hessian over the region, min over (theta, v) of
    v'H(theta)v / v'v; for `WeightedL2` the same of D^(-1/2) H D^(-1/2).

    Parameters
    ----------
    obj : Objective
        The training objective. The search runs in float64 whatever the objective's dtype.
    region : Region
        The convex set Theta. Boxes, balls and symmetric ordered cells are searched in native code on all cores, others one start
        after the other.
    penalty : Penalty, optional
        The penalty whose strength is asked for; `L2` by default.
    rng : int or Generator, optional
        Seed; the same seed gives the same answer for every number of threads (unless a time limit intervenes).
    time_limit : float, optional
        Seconds after which the best so far is returned.
    starts : int, optional
        Number of starts; by default chosen from the cost of an evaluation.
    warm : (theta, v) or sequence of such pairs, optional
        Points (P,) and directions (P,) that take part besides the other starts, as family "warm": projected into the region,
        v of any length, or None for that of a few Lanczos steps at theta. The answer is at least as good as each of them, however
        early the search is ended; with penalties whose weights depend on the strength or vanish, only if it is not.
    progress : callable, optional
        Called with a dict (stage, done, total, psi_upper, seconds) about ten times a second.
    cancel : (1,) int32 array, optional
        Set ``cancel[0] = 1`` from another thread to end the search early.

    Returns
    -------
    SearchResult
        Ctrl-C ends the search early and is not raised: ``interrupted`` says so.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> data = ph.Dataset(np.array([[1.0]]), np.array([1.0]))
    >>> obj = ph.Objective(ph.MLP([1, 1, 1], activation="identity", bias=False), data)
    >>> found = ph.search(obj, ph.Ball(radius=1.5), rng=5)
    >>> round(found.psi_upper, 6)
    -2.125
    >>> larger = ph.search(obj, ph.Ball(radius=2.0), rng=5, starts=2, warm=(found.theta, found.v))
    >>> larger.num_starts, round(larger.psi_upper, 6)
    (3, -3.0)
    """
    return conduct(search_steps(obj, region, penalty, rng, time_limit, starts, warm, progress, cancel))


def search_steps(
    obj: Objective, region: Region, penalty: Penalty | None = None, rng: int | np.random.Generator | None = None,
    time_limit: float | None = None, starts: int | None = None, warm: Warm | None = None,
    progress: Callable[[dict[str, Any]], object] | None = None, cancel: npt.NDArray[np.int32] | None = None,
) -> Steps[SearchResult]:  # fmt: skip
    """`search`, as something that asks for its descents."""
    asked = as_penalty(L2() if penalty is None else penalty).bind(obj)
    bound = as_region(region).bind(obj)
    generator = as_rng(rng)
    pairs = as_warm(warm, obj.num_params)
    if time_limit is not None and not time_limit > 0.0:
        raise InputError(f"time_limit is {time_limit!r}; allowed are positive seconds, or None for no limit.")
    began = monotonic()
    pairs = [(theta, _bend_of(obj, bound.project(theta)) if v is None else v) for theta, v in pairs]
    # Every point of a symmetric base has a twin in the ordered cell, with the same Hessian up to the order of coordinates.
    twins = isinstance(bound, Ordered) and bound.region.is_permutation_symmetric(obj) and asked.is_permutation_symmetric(obj)
    searched = bound.region if isinstance(bound, Ordered) and twins else bound
    native = isinstance(searched, Box | Ball)
    count = _effort(obj, starts, native)
    flag = np.zeros(1, dtype=np.int32) if cancel is None else cancel
    deadline = None if time_limit is None else began + time_limit
    early: list[Early] = []
    if native and not asked.depends_on_strength and not asked.leaves_out(obj.num_params).any():
        progress = None if progress is None else _best_so_far(progress)
        scale, streams = asked.scale(1.0, obj.num_params), generator.spawn(2)
        early = yield from first_look(obj, _map_of(searched), scale, count, streams[1], deadline, progress, flag)
        if not any(found.interrupted for found in early):
            early += yield from search_narrow(obj, searched, scale, count, streams[0], time_limit, progress, flag)
    run = _make_run(obj, searched, asked, count, pairs, early, generator, deadline, progress, flag)
    try:
        run.compile(run.values.size)
    except KeyboardInterrupt:
        run.interrupted = True
    run.interrupted |= any(found.interrupted for found in early)
    found = yield from hunt(run, asked, generator)
    theta, v = searched.project(found.theta), found.v
    if twins:
        orders = unit_orders(obj.net, theta)
        theta, v = permuted(obj.net, theta, orders), permuted(obj.net, v, orders)
    return SearchResult(
        psi_upper=found.quotient,
        theta=theta,
        v=v,
        best_family=found.family,
        families=_families(run, found),
        num_starts=run.values.size - sum(found.values.size for found in early),
        num_jets=int(run.evals.sum()) + sum(found.num_jets for found in early),
        num_matvecs=run.matvecs + sum(found.num_matvecs for found in early),
        seconds=monotonic() - began,
        interrupted=run.interrupted,
        penalty=asked,
    )


def _bend_of(obj: Objective, theta: FloatArray) -> FloatArray | None:
    """A direction in which the loss bends down at theta, by a few Lanczos steps; None if those were interrupted.

    Their start is the same for every theta, so that the random numbers of the other starts do not depend on it.
    """
    hessian = Hessian(Linearization(obj.engine.in_float64(), theta))
    try:
        return eigsh(hessian, rng=_LANCZOS_SEED, tol=1e-3, max_matvecs=_FEW_MATVECS, on_failure="return").eigenvectors[:, 0]
    except KeyboardInterrupt:
        return None


def _best_so_far(progress: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    """Progress of several runs in a row as that of one: the best value and the time of all."""
    best, began = math.inf, perf_counter()

    def tell(counters: dict[str, Any]) -> object:
        nonlocal best
        best = min(best, counters["psi_upper"])
        return progress({**counters, "psi_upper": best, "seconds": perf_counter() - began})

    return tell


def _families(run: Run, found: Found) -> dict[str, dict[str, float]]:
    families = {}
    for name in ("narrow", "warm", *FAMILIES):
        of_family = [found.quotients[i] for i, family in enumerate(run.names) if family == name]
        if of_family:
            families[name] = {"psi_upper": float(min(of_family)), "starts": len(of_family)}
    return families
