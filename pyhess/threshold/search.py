"""The joint search over (theta, v): the lower end of the bracket.

psi = inf over theta in Theta and v != 0 of rho(theta, v) = v'H(theta)v / v'v. Every pair is a valid upper bound of psi, so the
search is free to be greedy: many starts from several families descend jointly in theta and v (descent.hpp), poor ones
are dropped, and at the end Lanczos puts the globally best v under each surviving theta before the last descent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import as_rng, positive_int
from .._native import raise_for_status, run_interruptible
from .._threads import PARALLEL_LOCK, blas_single_thread, num_workers
from ..errors import InputError
from ..kernels import descent
from ..linearization import Engine, Linearization, capi
from ..objective import Objective
from ..operators import Hessian
from ..penalties import L2, as_penalty
from ..regions import Ball, Box, Region, as_region
from ..spectrum import eigsh
from .starts import FAMILIES, changed

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Arithmetic the search spends by default, in flops; about a minute of two cores at the most, seconds for small networks.
_BUDGET_FLOPS = 1e12
_MIN_EVALS, _MAX_EVALS = 400, 40_000
_MIN_STARTS, _MAX_STARTS = 8, 256
_MEMORY_BYTES = 2**30  # of all workers' BFGS pairs together

#: (fraction of the starts that go on, evaluations each may use, relative gain per step below which a start has stalled)
_STAGES = ((1.0, 60, 1e-4), (0.25, 200, 1e-6))
#: The best distinct points so far are changed at random and descend again, in place of starts that were given up.
_HOPS, _HOP_FRACTION, _HOP_PARENTS, _HOP_EVALS, _HOP_TOL = 6, 0.125, 0.03125, 200, 1e-6
_FINAL_FRACTION, _FINAL_EVALS, _FINAL_TOL = 0.03125, 800, 1e-12
_ROUNDS = 3  # of Lanczos for v and renewed descent
#: Values closer than this, relatively, count as the same optimum.
_SAME = 1e-4


@dataclass(frozen=True)
class SearchResult:
    """What the joint search found.

    Attributes
    ----------
    psi_upper : float
        The smallest Rayleigh quotient v'H(theta)v / v'v found: psi <= psi_upper up to the rounding of its evaluation.
    theta, v : (P,) arrays
        The pair; ``v`` has length one.
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

    @property
    def lam_lower(self) -> float:
        """max(0, -psi_upper / 2), before the rounding allowance that a witness subtracts."""
        return max(0.0, -0.5 * self.psi_upper)


@dataclass
class _Run:
    """The state of one search: the starts, and how to improve some of them."""

    obj: Objective
    engine: Engine
    kind: int
    mid: FloatArray
    half: FloatArray
    zs: FloatArray  # (S, 2P): x and v
    values: FloatArray  # (S,)
    evals: IntArray  # (S,)
    deadline: float | None
    progress: Callable[[dict[str, Any]], object] | None
    cancel: npt.NDArray[np.int32]
    began: float = field(default_factory=perf_counter)
    interrupted: bool = False

    def _kernel(self, workers: int, max_evals: int, tol: float) -> Callable[[IntArray, IntArray], object]:
        """The compiled descent of so many workers, with its memory, as a function of the tasks and their counter."""
        engine, size = self.engine, self.mid.size
        memory = int(np.clip(_MEMORY_BYTES // (workers * 4 * size * 8), 3, 10))
        scratch = np.zeros((workers, descent.scratch_size(size, memory)))
        states = engine.rows(workers, int(engine.problem.state_size))
        vts = engine.rows(workers, int(engine.problem.transposed_size))
        work = engine.work(workers)

        def kernel(tasks: IntArray, counter: IntArray) -> None:
            status = descent.descend[workers > 1](
                capi, engine.problem.address, self.kind, self.mid, self.half, tasks, self.zs, self.values, self.evals, max_evals,
                tol, memory, scratch, states, vts, work, counter, self.cancel,
            )  # fmt: skip
            raise_for_status(status, "search")

        return kernel

    def compile(self, num_tasks: int) -> None:
        """Have the descent compiled in this thread, where Ctrl-C reaches the compiler: a call without tasks."""
        kernel = self._kernel(num_workers(num_tasks), 1, 1.0)
        with PARALLEL_LOCK:
            kernel(np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64))

    def descend(self, tasks: IntArray, max_evals: int, tol: float, stage: str) -> None:
        """Improve the starts named by ``tasks``, all cores at work, watching for Ctrl-C and the deadline."""
        if self.interrupted:
            return
        counter = np.zeros(1, dtype=np.int64)
        workers = num_workers(tasks.size)
        kernel = self._kernel(workers, max_evals, tol)

        def call() -> None:
            with blas_single_thread(), PARALLEL_LOCK:
                kernel(tasks, counter)

        def tick() -> None:
            if self.progress is not None:
                done = max(0, min(int(counter[0]), tasks.size) - workers)
                self.progress(
                    {
                        "stage": stage,
                        "done": done,
                        "total": int(tasks.size),
                        "psi_upper": float(self.values.min()),
                        "seconds": perf_counter() - self.began,
                    }
                )

        try:
            outcome = run_interruptible(call, self.cancel, deadline=self.deadline, on_tick=tick)
        except KeyboardInterrupt:
            outcome = "interrupted"
        self.interrupted = outcome != "done" or bool(self.cancel[0])

    def distinct(self, count: int) -> IntArray:
        """The best starts, best first, without those that reached the same value as a better one."""
        chosen: list[int] = []
        for start in np.argsort(self.values, kind="stable"):
            value = self.values[start]
            if len(chosen) == count or not np.isfinite(value):
                break
            if not chosen or value > self.values[chosen[-1]] + _SAME * abs(value):
                chosen.append(int(start))
        return np.array(chosen, dtype=np.int64)

    def hop(self, names: list[str], rng: np.random.Generator, stage: str) -> None:
        """Replace the worst starts by changed copies of the best ones and let those descend."""
        count = self.values.size
        parents = self.distinct(int(np.ceil(_HOP_PARENTS * count)) + 1)
        slots = np.argsort(self.values, kind="stable")[::-1][: int(np.ceil(_HOP_FRACTION * count))]
        slots = slots[~np.isin(slots, parents)]
        if self.interrupted or parents.size == 0 or slots.size == 0:
            return
        size = self.mid.size
        for i, slot in enumerate(slots):
            parent = int(parents[i % parents.size])
            v = self.zs[parent, size:] / np.linalg.norm(self.zs[parent, size:])
            self.zs[slot, :size] = changed(self.obj.net, self.zs[parent, :size], rng)
            self.zs[slot, size:] = v + 0.3 * rng.standard_normal(size) / np.sqrt(size)
            self.values[slot] = np.inf
            names[slot] = names[parent]
        self.descend(slots, _HOP_EVALS, _HOP_TOL, stage)

    def theta(self, start: int) -> FloatArray:
        size = self.mid.size
        point: FloatArray = self.mid + self.half * self.zs[start, :size]
        return point

    def best_direction(self, start: int, rng: np.random.Generator) -> int:
        """Put the eigenvector of the smallest eigenvalue under theta where it improves on v; returns the products used."""
        size = self.mid.size
        remaining = None if self.deadline is None else self.deadline - monotonic()
        if self.interrupted or (remaining is not None and remaining <= 0.0):
            return 0
        try:
            operator = Hessian(Linearization(self.engine, self.theta(start)))
            # A start close to v converges fast; the random part finds what v does not see.
            v0 = self.zs[start, size:] / np.linalg.norm(self.zs[start, size:])
            noise = rng.standard_normal(size)
            pair = eigsh(operator, v0=v0 + noise / np.linalg.norm(noise), rng=rng, tol=1e-9, on_failure="return")
        except KeyboardInterrupt:
            self.interrupted = True
            return 0
        value = float(pair.eigenvalues[0])
        if value < self.values[start]:
            self.values[start] = value
            self.zs[start, size:] = pair.eigenvectors[:, 0]
        return int(pair.num_matvecs)


def _region_map(region: Region) -> tuple[int, FloatArray, FloatArray]:
    """(kind, mid, half) of theta = mid + half * x."""
    if isinstance(region, Box):
        low, high = np.asarray(region.low, dtype=np.float64), np.asarray(region.high, dtype=np.float64)
        return descent.BOX, 0.5 * (low + high), 0.5 * (high - low)
    if isinstance(region, Ball):
        center = np.array(region.center, dtype=np.float64)  # writable, as a box gives it: one compiled signature
        return descent.BALL, center, np.full(center.size, float(region.radius))
    raise InputError(f"the search knows Box and Ball, not {type(region).__name__}.")


def _into_ball(obj: Objective, z: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A point of the unit ball with z's signs: the budget is shared out among layers, and sometimes among few units."""
    x = z.copy()
    for weight, bias in obj.net.layer_slices:
        factor = np.exp(rng.standard_normal())
        x[weight] *= factor
        if bias is not None:
            x[bias] *= factor * rng.uniform()
    if rng.random() < 0.5:
        x *= rng.random(x.size) < rng.uniform(0.1, 1.0)
    norm = float(np.linalg.norm(x))
    if norm == 0.0:
        x[:] = z
        norm = float(np.linalg.norm(x))
    scaled: FloatArray = x / max(norm, 1e-300) * (1.0 if rng.random() < 0.7 else rng.uniform())
    return scaled


def _effort(obj: Objective, engine: Engine, starts: int | None) -> int:
    """How many starts; depends on the sizes alone, so that the answer does."""
    if starts is not None:
        return max(2, positive_int("starts", starts))
    per_eval = 2.6 * engine.hvp_flops + 100.0 * obj.data.num_samples * sum(obj.net.widths) + 200.0 * obj.num_params + 2e5
    evals = float(np.clip(_BUDGET_FLOPS / per_eval, _MIN_EVALS, _MAX_EVALS))
    per_start = sum(fraction * count for fraction, count, _ in _STAGES)
    per_start += _HOPS * _HOP_FRACTION * _HOP_EVALS + _FINAL_FRACTION * _FINAL_EVALS
    return int(np.clip(evals / per_start, _MIN_STARTS, _MAX_STARTS))


def search(
    obj: Objective,
    region: Region,
    *,
    penalty: L2 | None = None,
    rng: int | np.random.Generator | None = None,
    time_limit: float | None = None,
    starts: int | None = None,
    progress: Callable[[dict[str, Any]], object] | None = None,
    cancel: npt.NDArray[np.int32] | None = None,
) -> SearchResult:
    """Search for the smallest eigenvalue of the Hessian over a region: min over (theta, v) of v'H(theta)v / v'v.

    Parameters
    ----------
    obj : Objective
        The training objective. The search runs in float64 whatever the objective's dtype.
    region : Box or Ball
        The convex set Theta.
    penalty : L2, optional
        The penalty whose strength is asked for; the search itself does not depend on it.
    rng : int or Generator, optional
        Seed; the same seed gives the same answer for every number of threads (unless a time limit intervenes).
    time_limit : float, optional
        Seconds after which the best so far is returned.
    starts : int, optional
        Number of starts; by default chosen from the cost of an evaluation.
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
    >>> round(ph.search(obj, ph.Ball(radius=1.5), rng=5).psi_upper, 6)
    -2.125
    """
    as_penalty(L2() if penalty is None else penalty)
    bound = as_region(region).bind(obj)
    kind, mid, half = _region_map(bound)
    generator = as_rng(rng)
    if time_limit is not None and not time_limit > 0.0:
        raise InputError(f"time_limit is {time_limit!r}; allowed are positive seconds, or None for no limit.")
    engine = obj.engine
    if obj.dtype != "float64":
        engine = Engine(obj.net, obj.loss, obj.data.X, obj.targets, obj.data.normalized_weights, "float64")

    count, size = _effort(obj, engine, starts), obj.num_params
    zs = np.empty((count, 2 * size))
    names = [list(FAMILIES)[i % len(FAMILIES)] for i in range(count)]
    for z, name in zip(zs, names, strict=True):
        x = FAMILIES[name](obj.net, obj, generator)
        z[:size] = _into_ball(obj, x, generator) if kind == descent.BALL else x
        v = generator.standard_normal(size)
        z[size:] = v / np.linalg.norm(v)
    run = _Run(
        obj, engine, kind, mid, half, zs, np.full(count, np.inf), np.zeros(count, dtype=np.int64),
        None if time_limit is None else monotonic() + time_limit, progress,
        np.zeros(1, dtype=np.int32) if cancel is None else cancel,
    )  # fmt: skip

    try:
        run.compile(count)
    except KeyboardInterrupt:
        run.interrupted = True
    tasks = np.arange(count)
    for number, (fraction, max_evals, tol) in enumerate(_STAGES, start=1):
        tasks = np.argsort(run.values, kind="stable")[: int(np.ceil(fraction * count))]
        run.descend(tasks, max_evals, tol, f"search {number}/{len(_STAGES)}")
    for number in range(1, _HOPS + 1):
        run.hop(names, generator, f"hop {number}/{_HOPS}")
    tasks = run.distinct(int(np.ceil(_FINAL_FRACTION * count)) + 1)
    run.descend(tasks, _FINAL_EVALS, _FINAL_TOL, "polish")
    matvecs = 0
    for number in range(1, _ROUNDS + 1):
        before = run.values[tasks].copy()
        for start in tasks:
            matvecs += run.best_direction(int(start), generator)
        run.descend(tasks, _FINAL_EVALS, _FINAL_TOL, f"polish {number}/{_ROUNDS}")
        # Only starts that still move, or that are about to be the answer, are worth another round.
        moving = run.values[tasks] < before - 1e-9 * np.abs(before)
        tasks = tasks[moving]
        if run.interrupted or tasks.size == 0:
            break

    best = int(np.argmin(run.values))
    v = zs[best, size:] / np.linalg.norm(zs[best, size:])
    families = {}
    for name in FAMILIES:
        of_family = [run.values[i] for i in range(count) if names[i] == name]
        if of_family:
            families[name] = {"psi_upper": float(min(of_family)), "starts": len(of_family)}
    return SearchResult(
        psi_upper=float(run.values[best]),
        theta=bound.project(run.theta(best)),
        v=v,
        best_family=names[best],
        families=families,
        num_starts=count,
        num_jets=int(run.evals.sum()),
        num_matvecs=matvecs,
        seconds=perf_counter() - run.began,
        interrupted=run.interrupted,
    )
