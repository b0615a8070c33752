"""The quadratic form in z = (v, delta x v / R) that is below v'H(theta)v in a room, for any multipliers (see `taylor`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigvalsh
from scipy.sparse.linalg import ArpackError, eigsh

from .._jit import serial
from .intervals import TINY, gamma
from .taylor_cubic import DenseCubic
from .taylor_hessian import Expansion
from .taylor_multipliers import TaylorMultipliers
from .taylor_rests import Rests, combined
from .taylor_room import Room

FloatArray = npt.NDArray[np.float64]

#: The square of omega relative to the slab's half-width over its radius, at most one.
_NARROW = 3.0
#: What eigenvalues that only choices depend on are off by.
_TOLERANCE = 1e-4
#: The floor is larger than eigenvalues demand, as these are not exact.
_SURPLUS = 1.0002


@dataclass(frozen=True, eq=False)
class State:
    """What is chosen: multipliers factor factor' + floor, A, eta, tau and w; floors alone make the tail positive semi-definite.

    There is one multiplier for a ball and two for a slab, of the part across and that along, in units in which the head takes
    their sum.
    """

    factors: FloatArray
    floors: FloatArray
    turned: FloatArray
    share: float
    tau: float | None
    weights: FloatArray
    #: ``Lifted.most``, which the units depend on.
    most: FloatArray

    @property
    def lams(self) -> FloatArray:
        """The multipliers, and a little for the rounding of the floors."""
        lams = self.factors @ self.factors.transpose(0, 2, 1) + self.floors
        lams = 0.5 * (lams + lams.transpose(0, 2, 1))
        for lam in lams:
            lam[np.diag_indices(len(lam))] += 1e-9 * float(np.trace(lam)) / len(lam)
        return lams


class Lifted:
    """The quadratic form in z, for any choice."""

    def __init__(self, found: Expansion, room: Room, radius: float, narrow: float | None = None) -> None:
        self.ball = radius
        self.lowered, self.left_out = found.lowered, found.left_out
        self.size = found.residual.head.shape[0]
        residual, squares = (None, None) if found.units is None else found.units
        self._rests = Rests(found.residual.rest, residual, found.places), Rests(found.squares.rest, squares, found.places)
        #: One number for all weights that are the same.
        self.groups = np.arange(self.size) if found.places is None else found.places.groups
        self.places = found.places
        self.reach = room.reach
        # What `rounding` needs of the tails, which are large: only their symmetric parts are kept.
        parts = (found.residual, found.squares)
        self._seconds = [np.sqrt(np.einsum("kalb,kalb->ab", part.tail, part.tail)) for part in parts]
        self.residual, self.squares = (replace(part, tail=_square(part.tail)) for part in parts)
        self.cubic_terms = 0 if found.cubic is None else found.cubic.columns
        self.order = 2 if found.cubic is None else 3
        #: Of the squares' tail eta takes so many times itself: without the cubic term it pays for the products of d1 and d2, too.
        self.tail_share = 1.0 if self.order == 3 else 2.0
        identity = np.eye(self.size)
        d = room.direction
        if d is None:
            self.narrow = 1.0
            self.gram = None if found.cubic is None else found.cubic.square()
            self.cubic_size = 0.0 if self.gram is None else float(np.sqrt(np.trace(self.gram))) * (1.0 + gamma(self.cubic_terms))
            #: The length of delta x delta, the columns along d counted with omega.
            self.pair = self.ball**2
            #: delta'P delta / R² is at most so much, for every multiplier's P.
            self.most, self.parts = np.ones(1), identity[None]
            #: From u to delta / R and back, u in the unit ball or the product of two.
            self.stretch = self.shrink = identity
            return
        square = float(d @ d)
        ratios = np.array([room.across, room.along]) / radius
        self.narrow = 1.0 if found.cubic is None else narrow or min(1.0, float(np.sqrt(_NARROW * room.along / room.across)))
        along = np.outer(d, d) / square
        self.gram, self.cubic_size = None, 0.0
        if found.cubic is not None:
            assert isinstance(found.cubic, DenseCubic)
            self.gram = _narrowed(found.cubic.matrix, d, 1.0 - self.narrow)
            self.cubic_size = float(np.linalg.norm(found.cubic.matrix))
        self.cubic_terms += 16 * self.size + 128
        self.pair = (room.across**2 + room.along**2 * square / self.narrow**2) * (1.0 + gamma(self.size + 16))
        self.most, self.parts = ratios**2 * (1.0 + gamma(8)), np.stack([identity - along, along / square])
        self.stretch = ratios[0] * (identity - along) + ratios[1] * along
        self.shrink = (identity - along) / ratios[0] + along / ratios[1]

    def add_spread(self, lams: FloatArray, tail: FloatArray) -> None:
        """Add what the multipliers do to a tail (P², P²): Kronecker products, of which many left factors are zero."""
        size = self.size
        for part, lam in zip(self.parts, lams, strict=True):
            for k, l in zip(*np.nonzero(part), strict=True):  # noqa: E741 - as in the formulas
                tail[k * size : (k + 1) * size, l * size : (l + 1) * size] += part[k, l] * lam

    def least_multiple(self, tail: FloatArray, lams: FloatArray) -> float:
        """The least part of multipliers, positive definite ones, for a positive semi-definite tail; infinite if none is."""
        inverses = []
        for lam in lams:
            if not np.isfinite(lam).all():
                return np.inf
            values, vectors = np.linalg.eigh(lam)
            inverses.append((vectors / np.sqrt(values)) @ vectors.T)
        # The parts are multiples of projections on orthogonal spaces.
        sizes = np.array([np.linalg.norm(part, 2) for part in self.parts])
        roots = self.parts * (np.sqrt(self.most / sizes) / sizes)[:, None, None]

        def turned(x: FloatArray) -> FloatArray:
            cube = x.reshape(self.size, self.size, -1)
            both = zip(roots, inverses, strict=True)
            found = reduce(np.add, (np.tensordot(root, np.tensordot(inverse, cube, (1, 1)), (1, 1)) for root, inverse in both))
            return np.asarray(found.reshape(x.shape))

        scaled = turned(np.ascontiguousarray(turned(tail).T))
        return max(0.0, -extreme(0.5 * (scaled + scaled.T), "SA") * _SURPLUS) if np.isfinite(scaled).all() else np.inf

    def first_tau(self) -> float | None:
        """What makes both parts of the cubic term equal in size, for the largest singular value of M."""
        if self.gram is None:
            return None
        largest = float(np.sqrt(max(0.0, extreme(self.gram, "LA"))))
        least = 1e-15 * float(np.abs(self.residual.head + self.squares.head).sum()) / self.ball**3
        return self.pair / self.ball / max(largest, least, 1e-250)

    def head(self, state: State | TaylorMultipliers) -> FloatArray:
        """``head`` less what the rests and tau take."""
        return self.polynomial(state) - self.rests(state.share).matrix(state.weights)

    def polynomial(self, state: State | TaylorMultipliers) -> FloatArray:
        """``head`` less what tau takes."""
        head = self.residual.head + (1.0 - state.share) * self.squares.head
        head = 0.5 * (head + head.T)
        head[np.diag_indices(self.size)] -= self.cubic(state)
        return head

    def cubic(self, state: State | TaylorMultipliers) -> float:
        """chi² / (2 tau)."""
        return 0.0 if state.tau is None else 0.5 * self.pair**2 / state.tau

    @property
    def squares_rests(self) -> Rests:
        """What the roots of the squares leave out, which 1/eta multiplies."""
        return self._rests[1]

    def rests(self, share: float) -> Rests:
        """What is left out."""
        return combined(*self._rests, share)

    def half(self, share: float) -> FloatArray:
        """``half``, times R."""
        return self.ball * (self.residual.half + (1.0 - share) * self.squares.half)

    def tail(self, state: State | TaylorMultipliers) -> FloatArray:
        """R² times ``tail`` - tau M M'/2 as a matrix (P², P²)."""
        residual, squares = self.residual.tail, self.squares.tail
        tail = (1.0 - self.tail_share * state.share) * squares
        tail += residual
        if self.gram is not None and state.tau is not None:
            tail -= (0.5 * state.tau) * self.gram
        tail *= self.ball**2
        return tail

    def rounding(self, state: State | TaylorMultipliers) -> FloatArray:
        """Entries of the sizes that `head`, `half` and `tail` were rounded relative to."""
        total: FloatArray = np.zeros((self.size, self.size))
        for part, second in zip((self.residual, self.squares), self._seconds, strict=True):
            first = np.sqrt((part.half**2).sum(axis=0))
            total += np.abs(part.head) + self.reach * (first + first.T) + self.reach**2 * second
        total = total + total.T  # as the parts are made symmetric
        total[np.diag_indices(self.size)] += self.cubic(state)
        return total * (1.0 + gamma(self.size**2 + 32)) + TINY

    def cubic_rounding(self, state: State | TaylorMultipliers) -> float:
        """What the rounding of tau R² M M'/2 is at most, for a part of z beyond v that is no longer than v."""
        if state.tau is None:
            return 0.0
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
    """The symmetric part as a matrix; the tail may be lost."""
    size = tail.shape[0]
    matrix = np.ascontiguousarray(tail.reshape(size * size, size * size))
    _symmetrise(matrix)
    return matrix


@serial
def _symmetrise(matrix: Any) -> None:
    size, step = matrix.shape[0], 64  # blocks, as columns are far apart
    for first in range(0, size, step):
        for second in range(0, first + step, step):
            for i in range(first, min(first + step, size)):
                for j in range(second, min(second + step, i)):
                    mean = 0.5 * (matrix[i, j] + matrix[j, i])
                    matrix[i, j] = mean
                    matrix[j, i] = mean


def _narrowed(cubic: FloatArray, d: FloatArray, less: float) -> FloatArray:
    """M M' for M (P², P P (P + 1) / 2) with I - ``less`` K, K = d d'/|d|², on both indices of delta x delta.

    (I - less K) M (I - less K) = M - less (d p' + p d')/|d|² + less² (p . d) d d'/|d|⁴ with p = M d.
    """
    size = d.size
    low, high = np.triu_indices(size)
    counts = np.where(low == high, 1.0, np.sqrt(2.0))
    pairs = np.arange(low.size)
    onto, back = np.zeros((low.size, size)), np.zeros((size, low.size))
    onto[pairs, low] = d[high] / counts
    onto[pairs, high] = d[low] / counts  # where both are the same, once
    np.add.at(back, (low, pairs), d[high] * counts)
    np.add.at(back, (high, pairs), d[low] * counts)
    part = less / float(d @ d)
    back = part * back - np.outer(part**2 * d, d[low] * d[high] * counts)
    blocks = cubic.reshape(len(cubic), size, low.size)
    found = np.zeros((len(cubic), len(cubic)))
    for at in range(size):
        block = blocks[:, at] - (blocks[:, at] @ onto) @ back
        found += block @ block.T
    return found
