"""The quadratic form in z = (v, delta x v / R) that is below v'H(theta)v in a room, for any multipliers (see `taylor`)."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from .._jit import serial
from .intervals import gamma
from .taylor_cubic import DenseCubic
from .taylor_extreme import SURPLUS, extreme
from .taylor_hessian import Expansion
from .taylor_multipliers import TaylorMultipliers
from .taylor_room import Room
from .taylor_systems import solution
from .taylor_top import Least, State, Top

FloatArray = npt.NDArray[np.float64]

#: The square of omega relative to the slab's half-width over its radius, at most one.
_NARROW = 3.0


class Lifted(Top):
    """The quadratic form in z, for any choice."""

    def __init__(self, found: Expansion, room: Room, radius: float, narrow: float | None = None) -> None:
        parts = (found.residual, found.squares)
        seconds = [np.sqrt(np.einsum("kalb,kalb->ab", part.tail, part.tail)) for part in parts]
        super().__init__(parts, found.units, found.places, radius, room.reach, (seconds[0], seconds[1]))
        self.lowered, self.left_out = found.lowered, found.left_out
        # The tails are large: only their symmetric parts are kept.
        self.residual, self.squares = (replace(part, tail=_square(part.tail)) for part in parts)
        self.affine = (self.residual, self.squares)
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

    @property
    def finite(self) -> bool:
        """Whether no number overflowed."""
        parts = [x for part in (self.residual, self.squares) for x in (part.head, part.half, part.tail, part.rest)]
        return all(np.isfinite(x).all() for x in parts) and (self.gram is None or bool(np.isfinite(self.gram).all()))

    @property
    def identities(self) -> FloatArray:
        """Multipliers to begin with."""
        return np.stack([np.eye(self.size)] * len(self.most))

    @property
    def unturned(self) -> FloatArray:
        """A_k = 0."""
        return np.zeros((self.size,) * 3)

    def half_size(self, share: float) -> float:
        """The spectral norm of R (half + …), as (P², P)."""
        half = np.tensordot(self.stretch, self.half(share), 1)
        return float(np.linalg.norm(half.reshape(self.size**2, self.size), 2))

    def least(self, state: State, lams: FloatArray) -> Least | None:
        """The form's least over the rest of z; None where there is none."""
        size = self.size
        halves = (self.half(state.share) + self.ball * state.turned).reshape(size * size, size)
        tail = self.tail(state)
        self.add_spread(lams / self.most[:, None, None], tail)
        rest = solution(tail, halves)
        if rest is None:
            return None
        schur = self.head(state) - lams.sum(axis=0) - halves.T @ rest
        if not np.isfinite(schur).all():
            return None

        def turning(v: FloatArray) -> float:
            moved = rest @ v
            return 0.0 if self.gram is None else float(moved @ self.gram @ moved)

        return Least(0.5 * (schur + schur.T), turning, rest)

    def least_multiple(self, state: State, lams: FloatArray) -> float:
        """The least part of multipliers, positive definite ones, for a positive semi-definite tail; infinite if none is."""
        tail, inverses = self.tail(state), []
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
        return max(0.0, -extreme(0.5 * (scaled + scaled.T), "SA") * SURPLUS) if np.isfinite(scaled).all() else np.inf

    def first_tau(self) -> float | None:
        """What makes both parts of the cubic term equal in size, for the largest singular value of M."""
        if self.gram is None:
            return None
        return self.tau_for(float(np.sqrt(max(0.0, extreme(self.gram, "LA")))))

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

    def multipliers(self, state: State, lams: FloatArray, kept: FloatArray) -> TaylorMultipliers:
        """As a certificate keeps them."""
        return TaylorMultipliers(
            lams[0], state.turned, state.share, state.tau, state.weights, self.lowered, kept, by_units=self.places is not None
        )


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
