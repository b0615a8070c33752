"""The starts of one search, and how some of them are improved: in native code for boxes and balls.

A start is a row z = (x, u): theta = mid + half x, v = S u, and its value is rho = v'H(theta)v / u'u.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator

from .._native import address, compiling
from .._threads import PARALLEL_LOCK, num_workers
from ..kernels import descent
from ..linearization import Engine, Linearization
from ..objective import Objective
from ..operators import Hessian
from ..spectrum import eigsh
from .jobs import Job, Part
from .starts import changed

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Products of fewer flops are explored in float64: there the rest of an evaluation takes as long.
_SINGLE_FLOPS = 2e5

#: Starts that hops set out from, at most: with more, too few hops set out from the best.
_MOST_PARENTS = 4
#: Which of the kernels, for one thread and for several, have been called in this process.
_compiled: set[bool] = set()
#: Values closer than this, relatively, count as the same optimum.
_SAME = 1e-4


def evaluation_flops(obj: Objective) -> float:
    """What an evaluation of the descent takes, in flops of matrix products."""
    return 2.6 * obj.engine.hvp_flops + 100.0 * obj.data.num_samples * sum(obj.net.widths) + 200.0 * obj.num_params + 2e5


@dataclass(frozen=True)
class Effort:
    """What one descent may do: evaluations, the relative gain below which a step is a stall, first steps of other kinds.

    ``single``: in float32 where the core can; values are then good for comparisons alone.
    """

    evals: int
    tol: float
    vertex_steps: int = 0
    flips: int = 0
    single: bool = False


@dataclass
class Run(ABC):
    """The state of one search."""

    obj: Objective
    engine: Engine
    mid: FloatArray
    half: FloatArray
    zs: FloatArray  # (S, 2P): x and u
    names: list[str]  # the start families
    deadline: float | None
    progress: Callable[[dict[str, Any]], object] | None
    cancel: npt.NDArray[np.int32]
    scale: FloatArray | None = None  # the diagonal of S, None for the identity
    values: FloatArray = field(init=False)  # (S,)
    evals: IntArray = field(init=False)  # (S,)
    began: float = field(default_factory=perf_counter)
    interrupted: bool = False
    matvecs: int = 0

    exact: npt.NDArray[np.bool_] = field(init=False)  # (S,) whether the value was evaluated in float64

    def __post_init__(self) -> None:
        self.values = np.full(self.zs.shape[0], np.inf)
        self.evals = np.zeros(self.zs.shape[0], dtype=np.int64)
        self.exact = np.ones(self.zs.shape[0], dtype=bool)

    @property
    def size(self) -> int:
        """P."""
        return self.mid.size

    @abstractmethod
    def compile(self, num_tasks: int) -> None:
        """Prepare in this thread, where Ctrl-C reaches the compiler."""

    @abstractmethod
    def descend(self, tasks: IntArray, effort: Effort, stage: str) -> None:
        """Improve the starts named by ``tasks``, watching for Ctrl-C and the deadline."""

    def settle(self, start: int) -> None:
        """Evaluate a start in float64 where that has not been done; short, and done also when the time is up."""
        if self.exact[start]:
            return
        self.exact[start] = True
        if not np.isfinite(self.values[start]):
            return
        u = self.zs[start, self.size :]
        v = u if self.scale is None else self.scale * u
        jet = Linearization(self.engine, self.theta(start)).jet(v)
        self.values[start] = jet.q / float(u @ u)

    def look_at_warm(self) -> None:
        """Evaluate the starts that a caller brought, so that the answer is as good as they are whenever the search ends."""
        for start, name in enumerate(self.names):
            if name == "warm":
                self.values[start], self.exact[start] = 0.0, False
                self.settle(start)

    def stopped(self) -> bool:
        """Whether the search was ended early, or its time is up."""
        return self.interrupted or bool(self.cancel[0]) or (self.deadline is not None and monotonic() >= self.deadline)

    def report(self, stage: str, done: int, total: int) -> None:
        """Tell how far a stage has come."""
        if self.progress is not None:
            best = float(self.values.min())
            seconds = perf_counter() - self.began
            self.progress({"stage": f"search {stage}", "done": done, "total": total, "psi_upper": best, "seconds": seconds})

    def rescale(self, scale: FloatArray | None) -> None:
        """Go over to another S; the points theta and directions v stay, as far as S reaches them. Values are forgotten."""
        us = self.zs[:, self.size :]
        if self.scale is not None:
            us *= self.scale
        if scale is not None:
            reached = scale > 0.0
            with np.errstate(over="ignore", under="ignore"):
                us[:, reached] /= scale[reached]
            us[:, ~reached] = 0.0
        # A direction may lie where the new S does not reach, or its u beyond the range of numbers.
        largest = np.abs(us).max(axis=1)
        lost = ~((largest > 0.0) & (largest < np.inf))
        us[lost] = 1.0 if scale is None else (scale > 0.0).astype(np.float64)
        us /= np.abs(us).max(axis=1)[:, None]
        us /= np.linalg.norm(us, axis=1)[:, None]
        self.scale = scale
        self.values[:] = np.inf

    def lowest(self) -> int:
        """The start with the smallest value, evaluated in float64; the first one if the search ended before any was evaluated."""
        if self.stopped() and not np.isfinite(self.values).any():
            self.values[0], self.exact[0] = 0.0, False
        while not self.exact[best := int(np.argmin(self.values))]:
            self.settle(best)
        return best

    def random_direction(self, rng: np.random.Generator) -> FloatArray:
        """A random u (P,) of length sqrt(P), zero where S is."""
        u = rng.standard_normal(self.size)
        if self.scale is not None:
            u[self.scale == 0.0] = 0.0
        return u

    def theta(self, start: int) -> FloatArray:
        """The point (P,) of a start."""
        point: FloatArray = self.mid + self.half * self.zs[start, : self.size]
        return point

    def direction(self, start: int) -> FloatArray:
        """The direction v (P,) of a start, at length one."""
        u = self.zs[start, self.size :]
        v = u if self.scale is None else self.scale * u
        if self.scale is not None:
            v = v / np.abs(v).max()
        unit: FloatArray = v / np.linalg.norm(v)
        return unit

    def quotient(self, start: int) -> float:
        """V'Hv / v'v of a start."""
        if self.scale is None:
            return float(self.values[start])
        u = self.zs[start, self.size :]
        return float(self.values[start]) * float(u @ u) / float(np.sum((self.scale * u) ** 2))

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

    def hop(self, rng: np.random.Generator, explored: int, slots: int) -> IntArray:
        """Replace the worst of the first ``explored`` starts by changed copies of the best ones, and say which."""
        parents = self.distinct(min(max(2, slots // 4), _MOST_PARENTS))
        worst = np.argsort(self.values[:explored], kind="stable")[::-1][:slots]
        kept = set(parents.tolist())
        worst = np.array([slot for slot in worst if slot not in kept], dtype=np.int64)
        if self.interrupted or parents.size == 0 or worst.size == 0:
            return np.zeros(0, dtype=np.int64)
        size = self.size
        for i, slot in enumerate(worst):
            parent = int(parents[i % parents.size])
            u = self.zs[parent, size:] / np.linalg.norm(self.zs[parent, size:])
            self.zs[slot, :size] = changed(self.obj.net, self.zs[parent, :size], rng)
            self.zs[slot, size:] = u + 0.3 * self.random_direction(rng) / np.sqrt(size)
            self.values[slot] = np.inf
            self.names[slot] = self.names[parent]
        return worst

    def best_direction(self, start: int, rng: np.random.Generator) -> None:
        """Put the eigenvector of the smallest eigenvalue of SHS under theta where it improves on u."""
        if self.stopped():
            return
        try:
            hessian = Hessian(Linearization(self.engine, self.theta(start)))
            operator: LinearOperator = hessian
            # A start close to u converges fast; the random part finds what u does not see.
            u0 = self.zs[start, self.size :] / np.linalg.norm(self.zs[start, self.size :])
            noise = self.random_direction(rng)
            reached: Any = slice(None)
            if self.scale is not None:
                reached = np.flatnonzero(self.scale)
                operator = scaled(hessian, self.scale[reached], reached)
            mixed = u0 + noise / np.linalg.norm(noise)
            u0 = (mixed if mixed[reached].any() else noise)[reached]  # opposite in one dimension
            pair = eigsh(operator, v0=u0, rng=rng, tol=1e-9, on_failure="return")
        except KeyboardInterrupt:
            self.interrupted = True
            return
        value = float(pair.eigenvalues[0])
        if value < self.values[start]:
            self.values[start], self.exact[start] = value, True
            self.zs[start, self.size :] = 0.0
            self.zs[start, self.size :][reached] = pair.eigenvectors[:, 0]
        self.matvecs += int(pair.num_matvecs)


def scaled(hessian: Hessian, scale: FloatArray, reached: IntArray) -> LinearOperator:
    """The symmetric operator S H S on the coordinates that S reaches; H in float64."""
    wide, product = np.zeros((2, hessian.shape[0]))

    def multiply(u: FloatArray) -> FloatArray:
        wide[reached] = scale * u.reshape(-1)
        hessian._matvec_into(wide, product)
        result: FloatArray = scale * product[reached]
        return result

    return LinearOperator((reached.size, reached.size), matvec=multiply, rmatvec=multiply, dtype=np.float64)


@dataclass
class NativeRun(Run):
    """A search over a box or a ball: one start is one task of the C core, on all cores."""

    kind: int = descent.BOX

    def compile(self, num_tasks: int) -> None:
        workers = num_workers(num_tasks)
        if (workers > 1) in _compiled:
            return
        with compiling(), PARALLEL_LOCK:
            Job([], workers).run(np.zeros(1, dtype=np.int32))
        _compiled.add(workers > 1)

    def part(self, tasks: IntArray, effort: Effort) -> Part:
        """The tasks for the core; the starts will have values of that kind."""
        single = effort.single and self.engine.hvp_flops > _SINGLE_FLOPS
        engine = self.obj.engine.in_float32() if single else self.engine
        self.exact[tasks] = not single
        records = np.zeros(tasks.size, dtype=descent.TASK)
        records["max_evals"], records["tol"] = effort.evals, effort.tol
        # Every other start, so that neither kind of first step decides alone.
        records["vertex_steps"][1::2], records["flips"] = effort.vertex_steps, effort.flips
        records["reach"], records["problem"] = self.kind, engine.problem.address
        records["mid"], records["half"] = address(self.mid), address(self.half)
        records["scale"] = 0 if self.scale is None else address(self.scale)
        for name, array in (("z", self.zs), ("value", self.values), ("evals", self.evals)):
            records[name] = address(array) + tasks * array.strides[0]
        return Part(engine, self.size, records, evaluation_flops(self.obj) * effort.evals * tasks.size)

    def descend(self, tasks: IntArray, effort: Effort, stage: str) -> None:
        if self.interrupted or tasks.size == 0:
            return
        job = Job([self.part(tasks, effort)], num_workers(tasks.size))

        def tick() -> None:
            self.report(stage, max(0, min(int(job.counter[0]), tasks.size) - job.workers), int(tasks.size))

        try:
            job.carry_out(self.cancel, self.deadline, tick)
        except KeyboardInterrupt:
            self.interrupted = True
        if self.deadline is not None and monotonic() >= self.deadline:
            self.cancel[0] = 1
        self.interrupted |= bool(self.cancel[0])
