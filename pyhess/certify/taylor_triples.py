"""Symmetric tensors of the third order by their entries k <= l <= m."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .._jit import serial
from .intervals import ROOT_TINY, gamma

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Triples:
    """The entries k <= l <= m of a (P, P, P) tensor.

    Attributes
    ----------
    k, l, m : (C,) arrays
    roots : (C,) array
        Square roots of how many entries of the tensor each stands for.
    place : (P, P, P) array
        Where an entry is kept.
    """

    k: IntArray
    l: IntArray  # noqa: E741 - as in the formulas
    m: IntArray
    roots: FloatArray
    place: IntArray

    def __len__(self) -> int:
        return self.k.size


@lru_cache(maxsize=8)
def triples(size: int) -> Triples:
    """Those for P parameters."""
    grid = np.indices((size,) * 3)
    k, l, m = (axis[(grid[0] <= grid[1]) & (grid[1] <= grid[2])] for axis in grid)  # noqa: E741
    place = np.zeros((size,) * 3, dtype=np.int64)
    count = np.zeros(k.size)
    for a, b, c in ((k, l, m), (k, m, l), (l, k, m), (l, m, k), (m, k, l), (m, l, k)):
        place[a, b, c] = np.arange(k.size)
    np.add.at(count, place.ravel(), 1.0)
    return Triples(k, l, m, np.sqrt(count), place)


@serial
def _multiply_twice(left: Any, right: Any, second: Any) -> None:
    p0, p1, p2, of_p = left
    q0, q1, q2, of_q = right
    size = p1.shape[1]
    for e in range(of_p.size):
        i, j, out = of_p[e], of_q[e], second[e]
        p, q, pp, qq, x, y = p1[i], q1[j], p2[i], q2[j], p0[i], q0[j]
        for k in range(size):
            for l in range(size):  # noqa: E741 - as in the formulas
                out[k, l] = x * qq[k, l] + y * pp[k, l] + p[k] * q[l] + q[k] * p[l]


@serial
def _multiply_thrice(left: Any, right: Any, third: Any) -> None:
    p0, p1, p2, p3, of_p = left
    q0, q1, q2, q3, of_q = right
    for e in range(of_p.size):
        i, j, total = of_p[e], of_q[e], third[e]
        p, q, pp, qq, x, y = p1[i], q1[j], p2[i], q2[j], p0[i], q0[j]
        for c in range(total.size):
            total[c] = x * q3[j, c] + y * p3[i, c]
        if p.any() and qq.any():
            _spread(p, qq, total)
        if q.any() and pp.any():
            _spread(q, pp, total)


@serial
def _spread(first: Any, second: Any, total: Any) -> None:
    """Add the third derivatives of (first . delta) (delta' second delta / 2)."""
    size, c = first.size, 0
    for k in range(size):
        for l in range(k, size):  # noqa: E741 - as in the formulas
            for m in range(l, size):
                total[c] += first[k] * second[l, m] + first[l] * second[k, m] + first[m] * second[k, l]
                c += 1


def higher_products(p: tuple[FloatArray, ...], q: tuple[FloatArray, ...]) -> list[FloatArray]:
    """Second and third derivatives of products, from all derivatives of the factors: (…), (…, P), (…, P, P), (…, C).

    The third ones where the factors have them. The axes before are broadcast.
    """
    shape = np.broadcast_shapes(p[0].shape, q[0].shape)

    def rows(x: tuple[FloatArray, ...]) -> tuple[Any, ...]:
        given, kept = x[0].shape, x[0].ndim
        flat = [np.ascontiguousarray(part).reshape(-1, *part.shape[kept:]) for part in x]
        return (*flat, np.broadcast_to(np.arange(x[0].size).reshape(given), shape).ravel())

    left, right = rows(p), rows(q)
    found = [np.empty((*shape, *x.shape[x.ndim - order :])) for x, order in zip(p[2:], (2, 1), strict=False)]
    second, *third = (x.reshape(-1, *x.shape[len(shape) :]) for x in found)
    _multiply_twice((*left[:3], left[-1]), (*right[:3], right[-1]), second)
    for total in third:
        _multiply_thrice(left, right, total)
    return found


@serial
def _squares(third: Any, roots: Any, out: Any) -> None:
    for e in range(out.size):
        row, whole = third[e], third.shape[1] - third.shape[1] % 4
        s0 = s1 = s2 = s3 = 0.0  # four sums at once, as each addition waits for the one before
        for c in range(0, whole, 4):
            s0 += (roots[c] * row[c]) ** 2
            s1 += (roots[c + 1] * row[c + 1]) ** 2
            s2 += (roots[c + 2] * row[c + 2]) ** 2
            s3 += (roots[c + 3] * row[c + 3]) ** 2
        for c in range(whole, row.size):
            s0 += (roots[c] * row[c]) ** 2
        out[e] = (s0 + s1) + (s2 + s3)


def lengths(third: FloatArray, roots: FloatArray) -> FloatArray:
    """Frobenius norms of tensors (…, C), rounded up."""
    count, squares = roots.size, np.empty(third.shape[:-1])
    _squares(np.ascontiguousarray(third).reshape(-1, count), roots, squares.reshape(-1))
    found: FloatArray = np.sqrt(squares) * (1.0 + gamma(count + 16)) + count * ROOT_TINY
    return found


def add_with(parameter: int, second: FloatArray, total: FloatArray) -> None:
    """Add the third derivatives of delta_p (delta' second delta / 2) for arrays (n, …, P, P), (n, …, C), … one axis or none."""
    if total.ndim == 2:
        second, total = second[:, None], total[:, None]
    _add_with(parameter, second, triples(second.shape[-1]).place[parameter], total)


@serial
def _add_with(parameter: Any, second: Any, place: Any, total: Any) -> None:
    size = place.shape[0]
    for i in range(total.shape[0]):
        for j in range(total.shape[1]):
            q, out = second[i, j], total[i, j]
            if q.any():
                for a in range(size):
                    for b in range(a, size):
                        out[place[a, b]] += q[a, b]
                # Entries with the parameter twice have two ways to share it out.
                for a in range(size):
                    low, high = min(a, parameter), max(a, parameter)
                    out[place[a, parameter]] += q[low, high]
                out[place[parameter, parameter]] += q[parameter, parameter]
