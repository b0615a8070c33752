"""Interval arrays whose ends are rounded outwards, so that an enclosure stays one in floating-point arithmetic.

Assumed: IEEE double arithmetic rounding to nearest, and matrix products with the standard inner-product error bound
|fl(x'y) - x'y| <= gamma_k |x|'|y|, which holds for every order of summation (with or without fused multiply-add).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: Unit roundoff of double.
UNIT = 2.0**-53
#: More than the error of any single operation that underflows.
TINY = 1e-300
#: More than the root of what underflows in a sum of squares.
ROOT_TINY = 1e-150
#: Multiplications of a product up to which `sharp_matmul` spends six times as many again on sharper ends.
_SHARP_WORK = 3e8


def gamma(operations: int) -> float:
    """gamma_k = k u / (1 - k u), the relative error of k roundings, itself rounded up."""
    return 1.001 * operations * UNIT / (1.0 - operations * UNIT)


def up(x: FloatArray) -> FloatArray:
    """The next larger number: an upper bound after one rounding."""
    return np.nextafter(x, np.inf)


def down(x: FloatArray) -> FloatArray:
    """The next smaller number: a lower bound after one rounding."""
    return np.nextafter(x, -np.inf)


@dataclass(frozen=True)
class Interval:
    """Elementwise bounds lo <= x <= hi of arrays of one shape."""

    lo: FloatArray
    hi: FloatArray

    @staticmethod
    def point(x: FloatArray) -> Interval:
        """The array itself."""
        return Interval(x, x)

    @property
    def magnitude(self) -> FloatArray:
        """Max |x|."""
        return np.maximum(np.abs(self.lo), np.abs(self.hi))

    @property
    def middle(self) -> FloatArray:
        """A point near the middle (not exact; ``radius`` accounts for that)."""
        return 0.5 * self.lo + 0.5 * self.hi

    @property
    def radius(self) -> FloatArray:
        """Max |x - middle|, rounded up."""
        middle = self.middle
        return up(np.maximum(self.hi - middle, middle - self.lo))

    @property
    def T(self) -> Interval:
        """Transpose, of every matrix of a stack."""
        return Interval(np.swapaxes(self.lo, -1, -2), np.swapaxes(self.hi, -1, -2))

    def __getitem__(self, where: Any) -> Interval:
        return Interval(self.lo[where], self.hi[where])

    def reshape(self, *shape: int) -> Interval:
        """The same entries in another shape."""
        return Interval(self.lo.reshape(shape), self.hi.reshape(shape))

    def __add__(self, other: Interval) -> Interval:
        return Interval(down(self.lo + other.lo), up(self.hi + other.hi))

    def __sub__(self, other: Interval) -> Interval:
        return Interval(down(self.lo - other.hi), up(self.hi - other.lo))

    def __mul__(self, other: Interval) -> Interval:
        products = [a * b for a in (self.lo, self.hi) for b in (other.lo, other.hi)]
        return Interval(down(np.minimum.reduce(products)), up(np.maximum.reduce(products)))

    def widened(self, by: FloatArray) -> Interval:
        """X with an error of at most ``by`` >= 0 added."""
        return Interval(down(self.lo - by), up(self.hi + by))

    def scaled(self, factor: float) -> Interval:
        """Factor x for a factor >= 0."""
        return Interval(down(factor * self.lo), up(factor * self.hi))

    def where(self, condition: npt.NDArray[np.bool_], other: Interval) -> Interval:
        """X where the condition holds, the other elsewhere."""
        return Interval(np.where(condition, self.lo, other.lo), np.where(condition, self.hi, other.hi))

    def distance(self, other: Interval) -> FloatArray:
        """Max |x - y| over x here and y in the other, rounded up."""
        return up(np.maximum(np.maximum(self.hi - other.lo, other.hi - self.lo), 0.0))


def matmul(a: Interval, b: Interval) -> Interval:
    """Enclosure of A B for (stacks of) matrices (n, k) and (k, m), in midpoint–radius form."""
    inner = a.lo.shape[-1]
    mid_a, mid_b, rad_a, rad_b = a.middle, b.middle, _lifted(a.radius), _lifted(b.radius)
    size_a, size_b = np.abs(mid_a), np.abs(mid_b)
    # |AB - mid mid| <= |mid_a| rad_b + rad_a (|mid_b| + rad_b); the product of the middles adds gamma |mid_a| |mid_b|. The
    # bound's own roundings are relative, as all its terms are non-negative.
    error = size_a @ (rad_b + gamma(inner + 2) * size_b)
    if rad_a.any():
        error = error + rad_a @ (size_b + rad_b)
    error = error * (1.0 + gamma(inner + 16)) + inner * TINY
    middle = mid_a @ mid_b
    return Interval(down(middle - error), up(middle + error))


def _lifted(radius: FloatArray) -> FloatArray:
    """At least as large, without numbers whose products underflow: on some processors those take a hundred times as long.

    Every zero that was rounded outwards has a radius of 5e-324, and most entries of a Jacobian are zeros.
    """
    return np.where((radius > 0.0) & (radius < ROOT_TINY), ROOT_TINY, radius)


def sharp_matmul(a: Interval, b: Interval) -> Interval:
    """Enclosure of A B that is also sharp where both factors are wide: entries of A that keep their sign take the exact ends.

    Where a_k in [l, h] keeps its sign, min a_k b_k is attained at an end that the signs of b's ends decide; otherwise
    l max(b_hi, 0) + h min(b_lo, 0) is a lower bound. Costs some ten products of points; not tried where it cannot gain.
    """
    plain = matmul(a, b)
    if a.lo.size * b.lo.shape[-1] > _SHARP_WORK:
        return plain
    signed = (a.lo >= 0.0) | (a.hi <= 0.0)
    gains = _any(a.radius) & _any(b.radius) & _any(b.middle) & _any(signed)
    if not gains.any():
        return plain
    up_or_mixed, down_or_mixed = a.hi > 0.0, a.lo < 0.0
    left = np.concatenate(
        [
            np.where(a.lo >= 0.0, a.lo, 0.0),
            np.where(up_or_mixed, a.hi, 0.0),
            np.where(down_or_mixed, a.lo, 0.0),
            np.where(a.hi <= 0.0, a.hi, 0.0),
        ],
        axis=-1,
    )
    low_up, low_down = np.maximum(b.lo, 0.0), np.minimum(b.lo, 0.0)
    high_up, high_down = np.maximum(b.hi, 0.0), np.minimum(b.hi, 0.0)
    lower = np.concatenate([low_up, low_down, high_up, high_down], axis=-2)
    upper = np.concatenate([high_down, high_up, low_down, low_up], axis=-2)
    inner = left.shape[-1]
    size = np.abs(left)
    rounding = gamma(inner + 2) * (1.0 + gamma(inner + 16))
    lo = left @ lower
    hi = left @ upper
    sharp = Interval(
        np.maximum(plain.lo, down(lo - (rounding * (size @ np.abs(lower)) + inner * TINY))),
        np.minimum(plain.hi, up(hi + (rounding * (size @ np.abs(upper)) + inner * TINY))),
    )
    # What is found for one matrix of a stack does not depend on the others.
    return sharp if gains.all() else sharp.where(gains, plain)


def _any(x: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether a matrix of a stack has an entry other than zero, (..., 1, 1)."""
    return np.asarray(x.any(axis=(-2, -1), keepdims=True))


def norms(x: FloatArray) -> FloatArray:
    """Euclidean norms of the rows, rounded up."""
    length = x.shape[-1]
    largest = np.abs(x).max(axis=-1, initial=0.0)
    scale = np.where((largest > 0.0) & np.isfinite(largest), largest, 1.0)
    bound: FloatArray = scale * np.sqrt(((x / scale[..., None]) ** 2).sum(axis=-1)) * (1.0 + gamma(length + 16)) + length * TINY
    return bound


def within(x: Interval, known: Interval) -> Interval:
    """The intersection with what is known, which is kept where x is not a number."""
    lo, hi = np.maximum(known.lo, x.lo), np.minimum(known.hi, x.hi)
    return Interval(lo, hi).where(lo <= hi, known)
