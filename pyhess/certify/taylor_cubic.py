"""The third-order terms of the Hessian's Taylor polynomial, as a matrix between delta x v and delta x delta x v.

sum T_klmab delta_k delta_l delta_m v_a v_b = z2' M z3, with T averaged over all orders of k, l and m and both of a and b, which
keeps the sum; z3 = (delta_l delta_l v_b, sqrt(2) delta_l delta_m v_b for l < m), as long as delta x delta x v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dgemm

from .._jit import serial
from .taylor_forms import Forms
from .taylor_triples import triples

FloatArray = npt.NDArray[np.float64]

#: Numbers of factors that are kept, so that they are multiplied together.
_KEPT = 2**23


class CubicMatrix(Protocol):
    """M, as far as bounds need it."""

    @property
    def columns(self) -> int:
        """At least as many as the entries of M M' sum over."""

    def square(self) -> FloatArray:
        """M M' (P², P²)."""


@dataclass(frozen=True, eq=False)
class DenseCubic:
    """M (P², P P (P + 1) / 2) as a whole."""

    matrix: FloatArray

    @property
    def columns(self) -> int:
        """As many as the entries of M M' sum over."""
        return int(self.matrix.shape[1])

    def square(self) -> FloatArray:
        """M M' (P², P²)."""
        return np.asarray(self.matrix @ self.matrix.T)


class CubicForm:
    """Sums of products of forms, six times T but for averaging: the places of a and b may be exchanged.

    ``_whole`` (P, P, C), at a, b and k <= l <= m, is what has k, l and m in one factor. ``_shared`` (P, P, P, Q), at a, k, b and
    l <= m, is to be added for all three ways to take one index as k: what has one in the factor of a and two in that of b.
    """

    def __init__(self, size: int) -> None:
        self._low, self._high = np.triu_indices(size)
        self._whole = np.zeros((size, size, len(triples(size))))
        self._shared = np.zeros((size, size, size, self._low.size))
        #: Factors of parts of ``_shared``, by where those begin and what the left ones hold.
        self._kept: dict[tuple[int, ...], tuple[FloatArray, list[tuple[FloatArray, FloatArray]]]] = {}
        self._numbers = 0

    def add_gram(self, p: Forms, q: Forms) -> None:
        """The sum over the first axis of p_a q_b, for forms (n, P)."""
        add_product(p.value, q.third, self._whole)
        add_product(q.value, p.third, self._whole)
        self._keep(p.first, self._pairs(q), self._shared)
        self._keep(q.first, self._pairs(p), self._shared)

    def add_squares(self, first: FloatArray, second: FloatArray) -> None:
        """The sum over the first axis of 2 (d1 . v)(d2 . v), with weights that are part of ``first`` (n, P, P)."""
        self._keep(2.0 * first, second[..., self._low, self._high], self._shared)

    def add_mixed(self, p: Forms, q: Forms, rows: slice) -> None:
        """Twice the sum over the data of p_j q_ib in the row of W_ji, for forms p (n, J) and q (n, I, P)."""
        units, fan_in = p.value.shape[1], q.value.shape[1]
        whole = self._whole[rows].reshape(units, fan_in, *self._whole.shape[1:])
        shared = self._shared[rows].reshape(units, fan_in, *self._shared.shape[1:])
        p1, p2, q2 = 2.0 * p.first, 2.0 * self._pairs(p), self._pairs(q)
        q1 = q.first.swapaxes(2, 3)
        add_product(2.0 * p.value, q.third, whole)
        for j in range(units):
            add_product(2.0 * q.value, p.third[:, j], whole[j])
            self._keep(q1, p2[:, j], shared[j])
            for i in range(fan_in):
                self._keep(p1[:, j], q2[:, i], shared[j, i])

    def _pairs(self, q: Forms) -> FloatArray:
        """Second derivatives for l <= m."""
        return q.second[..., self._low, self._high]

    def _keep(self, left: FloatArray, right: FloatArray, total: FloatArray) -> None:
        """Add their product to a part of ``_shared``, later: it is large, and few rows would take as long as many."""
        if left.any() and right.any():
            key = (total.ctypes.data, *left.shape[1:])
            self._kept.setdefault(key, (total, []))[1].append((left, right))
            self._numbers += left.size + right.size
        if self._numbers > _KEPT:
            self._multiply()

    def _multiply(self) -> None:
        for total, pairs in self._kept.values():
            left, right = (np.concatenate(side) for side in zip(*pairs, strict=True))
            add_product(left, right, total)
        self._kept, self._numbers = {}, 0

    def matrix(self) -> DenseCubic:
        """M (P², P P (P + 1) / 2), with the index (k, a) of delta x v first. The sums are lost."""
        size = len(self._whole)
        self._multiply()
        _share_out(self._shared, self._whole)
        _symmetrise(self._whole)
        _spread(self._whole, triples(size).place, np.where(self._low == self._high, 1.0, np.sqrt(2.0)) / 12.0, self._shared)
        return DenseCubic(self._shared.reshape(size * size, -1))


def add_product(left: FloatArray, right: FloatArray, total: FloatArray) -> None:
    """Add sum_n left_n right_n to a contiguous array, for left (n, …) and right (n, …)."""
    if left.any() and right.any():
        rows, columns = left.reshape(len(left), -1), right.reshape(len(right), -1)
        into = total.reshape(rows.shape[1], columns.shape[1])
        dgemm(1.0, columns.T, rows.T, beta=1.0, c=into.T, trans_b=True, overwrite_c=True)


@serial
def _share_out(shared: Any, total: Any) -> None:
    """Add what has k, l or m apart from the two others."""
    size = shared.shape[0]
    for a in range(size):
        for b in range(size):
            out, c = total[a, b], 0
            for k in range(size):
                of_k = k * size - k * (k + 1) // 2  # (k, m) has the place of_k + m among the pairs
                for l in range(k, size):  # noqa: E741 - as in the formulas
                    of_l = l * size - l * (l + 1) // 2
                    for m in range(l, size):
                        out[c] += shared[a, k, b, of_l + m] + shared[a, l, b, of_k + m] + shared[a, m, b, of_k + l]
                        c += 1


@serial
def _symmetrise(total: Any) -> None:
    """Add what has a and b exchanged."""
    size, count = total.shape[0], total.shape[2]
    for a in range(size):
        for b in range(a + 1):
            for c in range(count):
                both = total[a, b, c] + total[b, a, c]
                total[a, b, c] = both
                total[b, a, c] = both


@serial
def _spread(total: Any, place: Any, scale: Any, out: Any) -> None:
    """All k and l <= m from those with k <= l <= m."""
    size = total.shape[0]
    for k in range(size):
        for a in range(size):
            for b in range(size):
                at = 0
                for l in range(size):  # noqa: E741 - as in the formulas
                    for m in range(l, size):
                        out[k, a, b, at] = total[a, b, place[k, l, m]] * scale[at]
                        at += 1
