"""Arguments, sizes and working memory shared by ``eigsh`` and ``eigsh_batch``."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, log, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from .._checks import choice, positive_float, positive_int
from ..errors import InputError, MemoryLimitError
from ..kernels import ritz
from ..kernels.lanczos import BLOCK

AnyArray = npt.NDArray[Any]

WHICH = {"SA": ritz.SA, "LA": ritz.LA, "LM": ritz.LM, "BE": ritz.BE}
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


def make_runs(
    request: Request, seeds: npt.NDArray[np.int64], workers: int, dtype: npt.DTypeLike, noise: float, checks: int
) -> ritz.Run:
    """Arrays of len(seeds) runs at their beginning; the fields have a leading axis samples or workers.

    ``noise`` is the relative rounding level of the products, ``checks`` the number of final products per vector.
    """
    size, k = request.size, request.k
    if request.max_matvecs <= checks * k:
        raise InputError(
            f"max_matvecs is {request.max_matvecs}; {k} pairs need {checks * k} products for the final check alone. "
            f"Use max_matvecs > {checks * k}."
        )
    samples, item = seeds.size, np.dtype(dtype).itemsize
    run = allocate(samples, workers, size, request.capacity(item, workers), k, dtype)
    state = run.state
    state["phase"], state["status"] = ritz.START, ritz.RUNNING
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
    return run


def allocate(samples: int, workers: int, size: int, capacity: int, k: int, dtype: npt.DTypeLike) -> ritz.Run:
    """The arrays, of which only those that are read before they are written have been set."""
    blocks = -(-size // BLOCK)
    width = max(2, capacity)
    try:
        return ritz.Run(
            state=np.zeros((samples, 1), dtype=ritz.STATE),
            basis=np.empty((workers, capacity, size), dtype=dtype),
            alpha=np.zeros((workers, capacity)),
            beta=np.zeros((workers, capacity)),
            known=np.zeros((workers, capacity)),
            vectors=np.zeros((samples, k, size), dtype=dtype),
            values=np.zeros((samples, k)),
            residuals=np.zeros((samples, k)),
            remainder=np.empty((workers, size)),
            partial=np.empty((workers, blocks, width + 2)),
            coefficients=np.empty((workers, width + 2)),
            small=np.zeros((workers, 4, width)),
            last=np.empty((workers, capacity, 1)),
        )
    except MemoryError as error:
        gib = (workers * capacity + samples * k) * size * np.dtype(dtype).itemsize / 2**30
        raise MemoryLimitError(
            f"{gib:.1f} GiB for the basis and the eigenvectors cannot be had; lower max_bytes, ask for fewer pairs or samples, "
            "or use dtype='float32'."
        ) from error


def first(run: ritz.Run) -> ritz.Run:
    """The only run of one sample and one worker, without the leading axes; the arrays are shared."""
    return ritz.Run(*(field[0] for field in run))


def for_check(run: ritz.Run, workers: int) -> ritz.Run:
    """Runs in float64 that start with the vectors found and end after the products that check them."""
    samples, k, size = run.vectors.shape
    checked = allocate(samples, workers, size, 1, k, np.float64)
    checked.vectors[:] = run.vectors
    checked.state[:] = run.state
    state = checked.state
    usable = state["found"] > 0
    state["phase"], state["check"], state["step"] = ritz.CHECK, 0, 0
    state["status"] = np.where(usable & (state["status"] != ritz.MAX_ITERATIONS), ritz.RUNNING, state["status"])
    state["retries"] = ritz.MAX_RETRIES
    return checked


def draw_seed(rng: np.random.Generator) -> int:
    """The seed of one run's random vectors."""
    return int(rng.integers(2**63))


def _log_inverse_overlap(size: int, p: float) -> float:
    """log(1/delta), where a random unit vector's overlap with a fixed one is below delta with probability p."""
    if size == 1:
        return 0.0
    return -0.5 * log(float(betaincinv(0.5, 0.5 * (size - 1), p)))
