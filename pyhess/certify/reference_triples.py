"""Symmetric tensors of the third order in doubles, one number for k <= l <= m, for checking certificates.

A tensor's axis comes first, the axes of an array of tensors follow. The numbers are ordered by the largest index, then the next,
so those of the first parameters alone come first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

#: Numbers that one step of a sum over tensors works on, which fit into a cache.
_STEP = 2**16


@dataclass(frozen=True, eq=False)
class Triples:
    """Where the numbers stand: those of k <= l <= m, and of pairs l <= m."""

    #: (C,) each.
    k: Places
    l: Places  # noqa: E741 - as in the formulas
    m: Places
    #: How many entries of a tensor a number stands for.
    copies: FloatArray
    #: Which number is the entry k, l, m.
    place: Places
    #: l and m of the pairs.
    pairs: tuple[Places, Places]
    #: For every k and pair: the number, and how often k is among k, l, m.
    extended: Places
    occurs: FloatArray


@lru_cache(maxsize=8)
def triples(size: int) -> Triples:
    """For so many parameters."""
    m, l, k = np.indices((size,) * 3).reshape(3, -1)  # noqa: E741
    kept = (k <= l) & (l <= m)
    k, l, m = k[kept], l[kept], m[kept]  # noqa: E741
    place = np.empty((size,) * 3, dtype=np.int64)
    for a, b, c in permutations((k, l, m)):
        place[a, b, c] = np.arange(len(k))
    copies = np.bincount(place.ravel()).astype(np.float64)
    high, low = np.indices((size, size)).reshape(2, -1)
    low, high = low[low <= high], high[low <= high]
    own = np.arange(size)[:, None]
    occurs = 1.0 + (low == own) + (high == own)
    return Triples(k, l, m, copies, place, (low, high), place[own, low, high], occurs)


def tensor_count(size: int, order: int) -> int:
    """The numbers of the third order that polynomials of an order have, none in the second."""
    return size * (size + 1) * (size + 2) // 6 if order == 3 else 0


def steps(count: int, each: int) -> Iterator[slice]:
    """Parts of ``count`` tensors' numbers, with ``each`` numbers to every one of them."""
    rows = max(1, _STEP // max(1, each))
    return (slice(begin, begin + rows) for begin in range(0, count, rows))


def crossed(one: FloatArray, two: FloatArray, at: Triples, part: slice) -> FloatArray:
    """a_k B_lm + a_l B_km + a_m B_kl for vectors a (P, …) and symmetric matrices B (P, P, …)."""
    k, l, m = at.k[part], at.l[part], at.m[part]  # noqa: E741
    found = one[k] * two[l, m]
    found += one[l] * two[k, m]
    found += one[m] * two[k, l]
    return found


def lengths(third: FloatArray, at: Triples) -> FloatArray:
    """Euclidean lengths of tensors (C, …), rounded in sums of squares."""
    count, *shape = third.shape
    flat, total = third.reshape(count, -1), np.zeros(third[0].size)
    for part in steps(count, flat.shape[1]):
        total += at.copies[part] @ (flat[part] * flat[part])
    found: FloatArray = np.sqrt(total).reshape(shape)
    return found
