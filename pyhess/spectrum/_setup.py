"""Arguments, sizes and working memory shared by ``eigsh`` and ``eigsh_batch``."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, log, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from .._checks import choice, positive_float, positive_int
from .._native import address, compiling
from ..errors import InputError, MemoryLimitError
from ..kernels import run as codes
from ..kernels.lanczos import attach

AnyArray = npt.NDArray[Any]

WHICH = {"SA": codes.SA, "LA": codes.LA, "LM": codes.LM, "BE": codes.BE}
ON_FAILURE = ("raise", "return", "warn")

#: Basis vectors kept before a thick restart, as long as their number does not make the restart itself slow.
_BASIS = 300
_SMALL_BASIS = 40
#: Arithmetic that one restart may take, in flops: a second at the most, because it cannot be interrupted.
_RESTART_FLOPS = 3e9
#: Probability that a block of the search for copies is ended although a better pair is left.
_MISS = 1e-8


@dataclass(frozen=True)
class Request:
    """The checked arguments of one call."""

    size: int
    k: int
    which: int
    tol: float
    max_matvecs: int
    p: float
    max_bytes: int
    on_failure: str

    @classmethod
    def check(cls, size: int, k: Any, which: Any, tol: Any, max_matvecs: Any, p: Any, max_bytes: Any, on_failure: Any) -> Request:
        """Every argument checked against the size P of the matrix."""
        k = positive_int("k", k)
        if k > size:
            raise InputError(f"k is {k}; the matrix has only {size} eigenvalues. Use k <= {size}.")
        p = positive_float("p", p)
        if p >= 1.0:
            raise InputError(f"p is {p}; allowed are probabilities 0 < p < 1.")
        products = 5000 + 100 * k if max_matvecs is None else positive_int("max_matvecs", max_matvecs)
        return cls(
            size,
            k,
            WHICH[choice("which", which, WHICH)],
            positive_float("tol", tol),
            products,
            p,
            positive_int("max_bytes", max_bytes),
            choice("on_failure", on_failure, ON_FAILURE),
        )

    def capacity(self, itemsize: int, workers: int) -> int:
        """How many basis vectors each worker gets.

        The whole space if it is small, else what a thick restart makes worth while and ``max_bytes`` allows.
        """
        size, k = self.size, self.k
        least = min(size, 2 * k + 8)
        wished = min(_BASIS, max(_SMALL_BASIS, isqrt(int(1.5 * _RESTART_FLOPS / size))))
        wished = min(size, max(wished, 3 * k + 20))
        vector = size * itemsize
        other = vector * k + 3 * 8 * size
        fits = int(self.max_bytes / workers - other) // vector
        if fits < least:
            needed = workers * (other + least * vector)
            raise MemoryLimitError(
                f"{k} eigenpairs of a {size} x {size} matrix need {least} basis vectors for each of {workers} workers, "
                f"{needed / 2**30:.2f} GiB; allowed are {self.max_bytes / 2**30:.2f} GiB. Raise max_bytes to {needed} or more, "
                "ask for fewer pairs, use fewer threads or dtype='float32'."
            )
        return min(fits, wished)


class Runs:
    """The memory of S runs on some workers: arrays with a leading axis samples or workers, and the records that point there.

    ``state`` (S, 1), ``vectors`` (S, k, P), ``values`` and ``residuals`` (S, k) belong to the samples; ``basis``
    (workers, m, P), ``product`` (workers, P) and the scratch arrays to the workers, as do the records ``run`` (workers, 1).
    """

    def __init__(self, samples: int, workers: int, size: int, capacity: int, k: int, dtype: npt.DTypeLike) -> None:
        blocks, width = -(-size // codes.BLOCK), max(2, capacity) + 2
        turned = capacity if capacity == size and k > 1 else max(k + 3, capacity // 3)
        try:
            self.state = np.zeros((samples, 1), dtype=codes.STATE)
            self.vectors = np.zeros((samples, k, size), dtype=dtype)
            self.values = np.zeros((samples, k))
            self.residuals = np.zeros((samples, k))
            self.basis = np.empty((workers, capacity, size), dtype=dtype)
            self.product = np.zeros((workers, size), dtype=dtype)
            self._scratch = {
                "alpha": np.zeros((workers, capacity)),
                "beta": np.zeros((workers, capacity)),
                "known": np.zeros((workers, capacity)),
                "remainder": np.empty((workers, size)),
                "partial": np.empty((workers, blocks, width)),
                "sums": np.empty((workers, width)),
                "small": np.zeros((workers, 4, width)),
                "weights": np.empty((workers, capacity, turned)),
            }
        except MemoryError as error:
            gib = (workers * capacity + samples * k) * size * np.dtype(dtype).itemsize / 2**30
            raise MemoryLimitError(
                f"{gib:.1f} GiB for the basis and the eigenvectors cannot be had; lower max_bytes, ask for fewer pairs or "
                "samples, or use dtype='float32'."
            ) from error
        self.run = np.zeros((workers, 1), dtype=codes.RUN)
        record = self.run[:, 0]
        record["size"], record["capacity"], record["blocks"] = size, capacity, blocks
        record["width"], record["turned"] = width, turned
        for name, array in {**self._scratch, "basis": self.basis, "product": self.product}.items():
            record[name] = [address(row) for row in array]
        for name in ("state", "vectors", "values", "residuals"):
            record[name] = address(getattr(self, name)[0])

    def compile(self, spread: bool) -> Any:
        """Attach the compiled code for one core, or for all on each vector, and return the step."""
        with compiling():
            return attach(self.run, self.basis.dtype, spread)


def make_runs(
    request: Request, seeds: npt.NDArray[np.int64], workers: int, dtype: npt.DTypeLike, noise: float, checks: int
) -> Runs:
    """One run per seed, at its beginning.

    ``noise`` is the relative rounding level of the products, ``checks`` the number of final products per vector.
    """
    size, k = request.size, request.k
    if request.max_matvecs <= checks * k:
        raise InputError(
            f"max_matvecs is {request.max_matvecs}; {k} pairs need {checks * k} products for the final check alone. "
            f"Use max_matvecs > {checks * k}."
        )
    runs = Runs(seeds.size, workers, size, request.capacity(np.dtype(dtype).itemsize, workers), k, dtype)
    state = runs.state
    state["phase"], state["status"] = codes.START, codes.RUNNING
    state["wanted"], state["which"] = k, request.which
    state["seed"] = seeds[:, None]
    state["max_matvecs"] = request.max_matvecs - checks * k
    state["step"] = -1
    state["sigma"] = 1.0
    state["tol"] = request.tol
    # Errors of the vectors that were found first leak into the residuals of the others.
    state["stop"] = request.tol / (1.0 + sqrt(k - 1.0))
    state["noise"] = noise
    state["log_start"] = _log_inverse_overlap(size, request.p)
    state["log_copy"] = _log_inverse_overlap(size, _MISS)
    state["probable"] = np.nan
    return runs


def for_check(runs: Runs, workers: int) -> Runs:
    """Runs in float64 that start with the vectors found and end after the products that check them."""
    samples, k, size = runs.vectors.shape
    checked = Runs(samples, workers, size, 1, k, np.float64)
    checked.vectors[:] = runs.vectors
    checked.state[:] = runs.state
    state = checked.state
    usable = (state["found"] > 0) & (state["status"] != codes.MAX_ITERATIONS)
    state["status"] = np.where(usable, codes.RUNNING, state["status"])
    state["phase"], state["check"], state["step"] = codes.CHECK, 0, 0
    state["retries"] = codes.MAX_RETRIES
    return checked


def draw_seed(rng: np.random.Generator) -> int:
    """The seed of one run's random vectors."""
    return int(rng.integers(2**63))


def _log_inverse_overlap(size: int, p: float) -> float:
    """log(1/delta), where a random unit vector's overlap with a fixed one is below delta with probability p."""
    if size == 1:
        return 0.0
    return -0.5 * log(float(betaincinv(0.5, 0.5 * (size - 1), p)))
