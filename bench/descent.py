"""What can be assembled from other tools to look for the smallest eigenvalue over a box, with every core at work.

A hunt runs until a target is reached or time is up, and keeps the history of its best value: (seconds, value) pairs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from .cases import Array

History = list[tuple[float, float]]


class _StopHuntError(Exception):
    """The target is reached or time is up."""


@dataclass
class Hunt:
    """The best value so far, shared by the workers of one search."""

    target: float
    seconds: float
    clock: Callable[[], float] = time.perf_counter
    history: History = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began = self.clock()
        self._lock = threading.Lock()

    def tell(self, value: float) -> None:
        """Report a valid value; raises to end the search when it is good enough or time is up."""
        elapsed = self.clock() - self._began
        with self._lock:
            if elapsed <= self.seconds and (not self.history or value < self.history[-1][1]):
                self.history.append((elapsed, value))
            done = bool(self.history) and self.history[-1][1] <= self.target
        if done or elapsed > self.seconds:
            raise _StopHuntError

    def run(self, work: Callable[[], None], workers: int) -> History:
        """Let so many threads repeat ``work`` until the end."""
        failures: list[BaseException] = []

        def loop() -> None:
            try:
                while True:
                    work()
            except _StopHuntError:
                return
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=loop) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return self.history


def reached(history: History, target: float) -> float | None:
    """Seconds until the target was reached; None if it was not."""
    return next((seconds for seconds, value in history if value <= target), None)


def joint_descent(quotient: Any, starts: Iterator[Array], half_width: float, hunt: Hunt, workers: int) -> History:
    """L-BFGS-B over (theta, v) on v'H(theta)v / v'v with theta in the box, from one start after the other."""
    lock = threading.Lock()

    def objective(z: Array) -> tuple[float, Array]:
        size = z.size // 2
        theta, v = z[:size], z[size:]
        square = float(v @ v)
        value, by_theta, by_v = quotient(theta, v)
        rho = value / square
        hunt.tell(rho)
        return rho, np.concatenate([by_theta / square, (by_v - 2.0 * rho * v) / square])

    def work() -> None:
        with lock:
            z = next(starts)
        size = z.size // 2
        bounds = [(-half_width, half_width)] * size + [(None, None)] * size
        minimize(objective, z, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500})

    return hunt.run(work, workers)


def sampling(product: Any, size: int, half_width: float, hunt: Hunt, workers: int, seed: int) -> History:
    """Uniform points of the box, and ARPACK for the smallest eigenvalue at each; ``product(theta, v)`` = H v."""
    streams = iter(np.random.default_rng(seed).spawn(workers))
    mine = threading.local()

    def work() -> None:
        if not hasattr(mine, "rng"):
            mine.rng = next(streams)
        theta = mine.rng.uniform(-half_width, half_width, size)
        operator = LinearOperator((size, size), matvec=lambda v: product(theta, v.ravel()), dtype=np.float64)
        try:
            value = float(
                eigsh(operator, k=1, which="SA", tol=1e-4, v0=mine.rng.standard_normal(size), return_eigenvectors=False)[0]
            )
        except ArpackNoConvergence:
            return
        hunt.tell(value)

    return hunt.run(work, workers)
