"""The third-order terms of the Hessian's Taylor polynomial, as a matrix between delta x v and delta x delta x v.

sum T_klmab delta_k delta_l delta_m v_a v_b = z2' M z3, with T averaged over all orders of k, l and m and both of a and b, which
keeps the sum; z3 = (delta_l delta_l v_b, sqrt(2) delta_l delta_m v_b for l < m), as long as delta x delta x v. M is made slice by
slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .taylor_forms import Forms

FloatArray = npt.NDArray[np.float64]


class Term(Protocol):
    """Products of forms whose cubic terms are wanted."""

    def add(self, k: int, into: FloatArray) -> None:
        """Add T_klmab for a k, in the order (a, b, l, m), but for averaging over l and m and over a and b."""


@dataclass(frozen=True, eq=False)
class Gram(Term):
    """The sum over the first axis of p_a q_b, for forms (n, P)."""

    p: Forms
    q: Forms

    def add(self, k: int, into: FloatArray) -> None:
        """p0 q3/6 + p1 q2/2 and the same with p and q exchanged, which is the same in a and b."""
        pairs = ((self.p, self.q), (self.q, self.p))
        size = into.shape[0]
        plain = [(p.value, q.third[:, :, k]) for p, q in pairs] + [(p.first[:, :, k], q.second) for p, q in pairs]
        plain = [(left, right) for left, right in plain if left.any() and right.any()]
        if plain:
            left, right = (np.concatenate(part) for part in zip(*plain, strict=True))
            into += _times(left / 6.0, right)
        for p, q in pairs:
            _add_crossed(p.first / 3.0, q.second[:, :, k], size, into)


@dataclass(frozen=True, eq=False)
class Squares(Term):
    """The sum over the first axis of 2 (d1 . v)(d2 . v), for forms d (n, P) and weights that are part of ``first``."""

    first: FloatArray
    second: FloatArray

    def add(self, k: int, into: FloatArray) -> None:
        """p1 q2, with q2 the second derivatives."""
        into += _times(self.first[:, :, k] / 3.0, self.second)
        _add_crossed(2.0 / 3.0 * self.first, self.second[:, :, k], into.shape[0], into)


@dataclass(frozen=True, eq=False)
class Mixed(Term):
    """Twice the sum over the data of p_j q_ib in the row of W_ji, for forms p (n, J) and q (n, I, P)."""

    p: Forms
    q: Forms
    rows: slice

    def add(self, k: int, into: FloatArray) -> None:
        """p0 q3/6 + p3 q0/6 + p1 q2/2 + p2 q1/2, twice."""
        p, q = self.p, self.q
        target = into[self.rows].reshape(p.value.shape[1], *q.value.shape[1:], *into.shape[2:])  # (j, i, b, l, m), a view
        left, right = np.concatenate([p.value, p.first[:, :, k]]), np.concatenate([q.third[:, :, :, k], q.second])
        target += _times(left / 3.0, right)
        left, right = np.concatenate([p.third[:, :, k], p.second]), np.concatenate([q.value, q.first[:, :, :, k]])
        target += _times(left / 3.0, right).transpose(0, 3, 4, 1, 2)
        target += _times(p.first / 1.5, q.second[:, :, :, k]).transpose(0, 2, 3, 1, 4)
        target += _times(p.second[:, :, k] / 1.5, q.first).transpose(0, 2, 3, 1, 4)


def _times(left: FloatArray, right: FloatArray) -> FloatArray:
    """The sums over the first axes of the products of all others."""
    return np.tensordot(left, right, (0, 0))


def _add_crossed(first: FloatArray, slope: FloatArray, size: int, into: FloatArray) -> None:
    """Add the sums of first_al slope_bm to the entries (a, b, l, m)."""
    if first.any() and slope.any():
        into += _times(first, slope).reshape((size,) * 4).transpose(0, 2, 1, 3)


class CubicForm:
    """M, as an array (k, a, b, (l, m) with l <= m)."""

    def __init__(self, size: int) -> None:
        self._low, self._high = np.triu_indices(size)
        self._scale = np.where(self._low == self._high, 0.25, 0.25 * np.sqrt(2.0))
        self._slices = np.zeros((size, size, size, self._low.size))

    def add(self, terms: list[Term]) -> None:
        """Add the third-order terms of some products."""
        for k, total in enumerate(self._slices):
            slab = np.zeros((len(total),) * 4)
            for term in terms:
                term.add(k, slab)
            slab += slab.transpose(1, 0, 2, 3)
            total += (slab[:, :, self._low, self._high] + slab[:, :, self._high, self._low]) * self._scale

    def matrix(self) -> FloatArray:
        """M, with the index (k, a) of delta x v first."""
        size = len(self._slices)
        return self._slices.reshape(size * size, -1)
