"""The third-order terms of the Hessian's Taylor polynomial, as a matrix between delta x v and delta x delta x v.

sum T_klmab delta_k delta_l delta_m v_a v_b = z2' M z3, with T averaged over all orders of k, l and m and both of a and b, which
keeps the sum; z3 = (delta_l delta_l v_b, sqrt(2) delta_l delta_m v_b for l < m), as long as delta x delta x v.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .taylor_forms import Forms
from .taylor_triples import triples

FloatArray = npt.NDArray[np.float64]

#: Numbers of the factors at once.
_CHUNK = 2**22


class Term(Protocol):
    """Products of forms whose cubic terms are wanted, as sums of products of factors."""

    #: Numbers of the factors for one k, l, m.
    each: int

    def add(self, part: slice, into: FloatArray) -> None:
        """Add six times T_klmab for some k <= l <= m, (c, a, b), but for averaging over a and b."""


class Gram:
    """The sum over the first axis of p_a q_b, for forms (n, P)."""

    def __init__(self, p: Forms, q: Forms) -> None:
        self.p, self.q = _Factors(p), _Factors(q)
        self.each = 8 * (self.p.size + self.q.size)

    def add(self, part: slice, into: FloatArray) -> None:
        """p0 q3 + p3 q0 and all ways to share out k, l and m between p1 and q2 or p2 and q1."""
        pairs = zip(self.p.orders(part), self.q.opposite(part), strict=True)
        kept = [(left, right) for left, right in pairs if left is not None and right is not None]
        if kept:
            left, right = (np.concatenate(side, axis=1) for side in zip(*kept, strict=True))
            into += np.matmul(left.swapaxes(1, 2), right)


class Squares:
    """The sum over the first axis of 2 (d1 . v)(d2 . v), with weights that are part of ``first`` (n, P, P)."""

    def __init__(self, first: FloatArray, second: FloatArray) -> None:
        self._first = np.ascontiguousarray(first.transpose(2, 0, 1))
        self._second = np.ascontiguousarray(second.transpose(2, 3, 0, 1))
        self.each = 6 * self._first[0].size

    def add(self, part: slice, into: FloatArray) -> None:
        """All ways to share out k, l and m."""
        at, first, second = triples(len(self._first)), self._first, self._second
        k, l, m = at.k[part], at.l[part], at.m[part]  # noqa: E741 - as in the formulas
        left = np.concatenate((first[k], first[l], first[m]), axis=1)
        right = np.concatenate((second[l, m], second[k, m], second[k, l]), axis=1)
        into += 2.0 * np.matmul(left.swapaxes(1, 2), right)


class Mixed:
    """Twice the sum over the data of p_j q_ib in the row of W_ji, for forms p (n, J) and q (n, I, P)."""

    def __init__(self, p: Forms, q: Forms, rows: slice) -> None:
        n, fan_in, size = q.value.shape
        flat = Forms(tuple(x.reshape(n, fan_in * size, *x.shape[3:]) for x in q.coefficients), q.rest.reshape(n, -1), q.room)
        self._gram, self._rows = Gram(p, flat), rows
        self._shape = (p.value.shape[1] * fan_in, size)
        self.each = self._gram.each + self._shape[0] * size

    def add(self, part: slice, into: FloatArray) -> None:
        """The same as for `Gram`, in the rows."""
        units = self._gram.p.shape[1]
        found = np.zeros((len(into), units, self._gram.q.shape[1]))
        self._gram.add(part, found)
        into[:, self._rows] += 2.0 * found.reshape(len(into), *self._shape)


class _Factors:
    """The coefficients of forms (n, A), with the orders' axes first."""

    def __init__(self, p: Forms) -> None:
        self.value = p.value
        self.first = np.ascontiguousarray(np.moveaxis(p.first, -1, 0))
        self.second = np.ascontiguousarray(np.moveaxis(p.second, (-2, -1), (0, 1)))
        self.third = p.third  # (n, A, C): its parts are turned one by one
        self.size = p.value.size
        self.shape = p.value.shape
        self._there = [bool(x.any()) for x in (p.value, p.first, p.second, p.third)]

    def _of(self, order: int, part: slice) -> Iterator[FloatArray | None]:
        at = triples(len(self.first))
        k, l, m = at.k[part], at.l[part], at.m[part]  # noqa: E741 - as in the formulas
        if not self._there[order]:
            yield from (None,) * (1 if order in (0, 3) else 3)
        elif order == 0:
            yield np.broadcast_to(self.value, (len(k), *self.shape))
        elif order == 1:
            yield from (self.first[k], self.first[l], self.first[m])
        elif order == 2:
            yield from (self.second[l, m], self.second[k, m], self.second[k, l])
        else:
            yield np.ascontiguousarray(np.moveaxis(self.third[..., part], -1, 0))

    def orders(self, part: slice) -> list[FloatArray | None]:
        """Orders 0, 1 (of k, l, m), 2 (of the two others) and 3, each (c, n, A); None where all are zero."""
        return [x for order in range(4) for x in self._of(order, part)]

    def opposite(self, part: slice) -> list[FloatArray | None]:
        """What each of another form's has to be multiplied by."""
        return [x for order in (3, 2, 1, 0) for x in self._of(order, part)]


class CubicForm:
    """T for k <= l <= m, (C, P, P), before the averaging over a and b."""

    def __init__(self, size: int) -> None:
        self._total = np.zeros((len(triples(size)), size, size))

    def add(self, terms: list[Term]) -> None:
        """Add the third-order terms of some products."""
        for term in terms:
            step = max(1, _CHUNK // (term.each + self._total[0].size))
            for begin in range(0, len(self._total), step):
                part = slice(begin, begin + step)
                term.add(part, self._total[part])

    def matrix(self) -> FloatArray:
        """M (P², P P (P + 1) / 2), with the index (k, a) of delta x v first."""
        size = self._total.shape[1]
        even = self._total + self._total.swapaxes(1, 2)
        low, high = np.triu_indices(size)
        scale = np.where(low == high, 1.0, np.sqrt(2.0)) / 12.0
        found = np.empty((size, size, size, low.size))
        for k, place in enumerate(triples(size).place):
            np.multiply(even[place[low, high]].transpose(1, 2, 0), scale, out=found[k])
        return found.reshape(size * size, -1)
