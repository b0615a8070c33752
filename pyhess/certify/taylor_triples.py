"""Symmetric tensors of the third order by their entries k <= l <= m."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .._jit import serial

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
def _add(first: Any, at_first: Any, second: Any, at_second: Any, k: Any, l: Any, m: Any, total: Any) -> None:  # noqa: E741
    for e in range(total.shape[0]):
        p, q, out = first[at_first[e]], second[at_second[e]], total[e]
        for c in range(k.size):
            out[c] += p[k[c]] * q[l[c], m[c]] + p[l[c]] * q[k[c], m[c]] + p[m[c]] * q[k[c], l[c]]


def add_spread(first: FloatArray, second: FloatArray, total: FloatArray) -> None:
    """Add the third derivatives of (first . delta) (delta' second delta / 2), for arrays (…, P), (…, P, P) and (…, C).

    The axes before are broadcast; ``total`` is contiguous and has them all.
    """
    if not (first.any() and second.any()):
        return
    size, shape = first.shape[-1], total.shape[:-1]
    at = triples(size)

    def places(x: FloatArray, axes: int) -> IntArray:
        given = x.shape[: x.ndim - axes]
        return np.broadcast_to(np.arange(int(np.prod(given))).reshape(given), shape).ravel()

    first_rows, second_rows = np.ascontiguousarray(first).reshape(-1, size), np.ascontiguousarray(second).reshape(-1, size, size)
    flat = total.reshape(-1, len(at))
    _add(first_rows, places(first, 1), second_rows, places(second, 2), at.k, at.l, at.m, flat)


def add_with(parameter: int, second: FloatArray, total: FloatArray) -> None:
    """Add the third derivatives of delta_p (delta' second delta / 2), for arrays (…, P, P) and (…, C)."""
    at = triples(second.shape[-1])
    for own, a, b in ((at.k, at.l, at.m), (at.l, at.k, at.m), (at.m, at.k, at.l)):
        where = np.flatnonzero(own == parameter)
        total[..., where] += second[..., a[where], b[where]]
