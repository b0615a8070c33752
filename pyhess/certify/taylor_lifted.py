"""The quadratic form in z = (v, delta x v / R) that is below v'H(theta)v on a ball, for any multipliers (see `taylor`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigvalsh
from scipy.sparse.linalg import ArpackError, eigsh

from .intervals import TINY, UNIT, gamma
from .taylor_hessian import Expansion

FloatArray = npt.NDArray[np.float64]

#: What eigenvalues that only choices depend on are off by.
_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class State:
    """What is chosen: Lam = factor factor' + floor, A, eta, tau and w. The floor alone makes the tail positive semi-definite."""

    factor: FloatArray
    floor: FloatArray
    turned: FloatArray
    share: float
    tau: float
    weights: FloatArray

    @property
    def lam(self) -> FloatArray:
        """Lam, and a little for the rounding of the floor."""
        lam = self.factor @ self.factor.T + self.floor
        lam = 0.5 * (lam + lam.T)
        lam[np.diag_indices(len(lam))] += 1e-9 * float(np.trace(lam)) / len(lam)
        return lam


class Lifted:
    """The quadratic form in z, for any choice."""

    def __init__(self, found: Expansion, ball: float) -> None:
        self.residual, self.squares, self.ball = found.residual, found.squares, ball
        self.lowered = found.lowered
        self.size = self.residual.head.shape[0]
        self.gram = found.cubic @ found.cubic.T
        self._tails = [_square(part.tail) for part in (self.residual, self.squares)]
        self.cubic_size = float(np.linalg.norm(found.cubic))
        self.cubic_terms = found.cubic.shape[1]

    def first_tau(self) -> float:
        """What makes both parts of the cubic term equal in size, for the largest singular value of M."""
        largest = float(np.sqrt(max(0.0, extreme(self.gram, "LA"))))
        least = 1e-15 * float(np.abs(self.residual.head + self.squares.head).sum()) / self.ball**3
        return self.ball / max(largest, least, 1e-250)

    def head(self, state: State) -> FloatArray:
        """``head`` less diag(q) and what tau takes."""
        head = self.polynomial(state)
        head[np.diag_indices(self.size)] -= self.change(state)
        return head

    def polynomial(self, state: State) -> FloatArray:
        """``head`` less what tau takes."""
        head = self.residual.head + (1.0 - state.share) * self.squares.head
        head = 0.5 * (head + head.T)
        head[np.diag_indices(self.size)] -= self.cubic(state)
        return head

    def cubic(self, state: State) -> float:
        """R⁴/(2 tau)."""
        return 0.5 * self.ball**4 / state.tau

    def rest(self, share: float) -> FloatArray:
        """Entries of what is left out."""
        return self.residual.rest + (1.0 / share) * (1.0 + 4.0 * UNIT) * self.squares.rest

    def change(self, state: State) -> FloatArray:
        """The diagonal q."""
        weights = state.weights
        applied = ((self.rest(state.share) @ weights) / weights) * (1.0 + gamma(self.size + 16)) + TINY
        return np.asarray(applied)

    def half(self, share: float) -> FloatArray:
        """``half``, times R."""
        return self.ball * (self.residual.half + (1.0 - share) * self.squares.half)

    def tail(self, state: State) -> FloatArray:
        """R² times ``tail`` - tau M M'/2 as a matrix (P², P²)."""
        residual, squares = self._tails
        tail = (1.0 - state.share) * squares
        tail += residual
        tail -= (0.5 * state.tau) * self.gram
        tail *= self.ball**2
        return tail

    def rounding(self, state: State) -> FloatArray:
        """Entries of the sizes that `head`, `half` and `tail` were rounded relative to."""
        total: FloatArray = np.zeros((self.size, self.size))
        for part in (self.residual, self.squares):
            first = np.sqrt((part.half**2).sum(axis=0))
            second = np.sqrt((part.tail**2).sum(axis=(0, 2)))
            total += np.abs(part.head) + self.ball * (first + first.T) + self.ball**2 * second
        total = total + total.T  # as the parts are made symmetric
        total[np.diag_indices(self.size)] += self.cubic(state)
        return total * (1.0 + gamma(self.size**2 + 32)) + TINY

    def cubic_rounding(self, state: State) -> float:
        """What the rounding of tau R² M M'/2 is at most, as the part of z beyond v is no longer than v."""
        return (
            0.5
            * state.tau
            * self.ball**2
            * self.cubic_size**2
            * gamma(self.cubic_terms + 16)
            * (1.0 + gamma(self.cubic_terms + 16))
        )


def extreme(matrix: FloatArray, which: str) -> float:
    """The smallest ("SA") or largest ("LA") eigenvalue, within a ten-thousandth."""
    start = np.random.default_rng(7).standard_normal(len(matrix))
    try:
        return float(eigsh(matrix, k=1, which=which, v0=start, tol=_TOLERANCE, return_eigenvectors=False)[0])
    except ArpackError:
        return float(eigvalsh(matrix)[0 if which == "SA" else -1])


def _square(tail: FloatArray) -> FloatArray:
    size = tail.shape[0]
    matrix = tail.reshape(size * size, size * size)
    return 0.5 * (matrix + matrix.T)
