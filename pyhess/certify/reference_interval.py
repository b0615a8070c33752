"""Interval arithmetic of its own for checking certificates, and elementary functions built on it alone.

Numbers are those of `reference_arithmetic`: NumPy's long doubles (80-bit where the machine has them, else double) moved outwards
by one unit of the last place after every operation, or Arb's. For long doubles exp, log(1 + e^x) and the normal distribution are
summed here from their series with bounds of what is left out, so that nothing is assumed but that +, -, *, / and sqrt are
rounded to nearest. Nothing is shared with the code that finds the certificates.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .reference_arithmetic import Wide as Wide
from .reference_arithmetic import arithmetic

#: The unit of long doubles.
UNIT = np.finfo(np.longdouble).eps
#: Bound of the error of a sum or product that underflows.
TINY = 1e-300
_EXP_TERMS, _LOG_TERMS, _NORMAL_TERMS = 24, 26, 300
_MOST = 11000.0
#: Beyond this the normal distribution is within pdf(9.5)/9.5 of 0 or 1.
_NORMAL_END = 9.5


def wide(x: Any) -> Wide:
    """The numbers in the arithmetic in use, exactly."""
    return arithmetic().array(x)


def zeros(shape: int | tuple[int, ...]) -> Wide:
    """An array of zeros."""
    return wide(np.zeros(shape))


def up(x: Any) -> Wide:
    """A number that is at least what x was rounded from."""
    return arithmetic().up(x)


def down(x: Any) -> Wide:
    """A number that is at most what x was rounded from."""
    return arithmetic().down(x)


class Range:
    """Arrays of numbers known to lie between ``lo`` and ``hi``; a NaN stands for no knowledge, and fails every test."""

    __slots__ = ("hi", "lo")

    def __init__(self, lo: Any, hi: Any = None) -> None:
        self.lo: Wide = wide(lo)
        self.hi: Wide = self.lo if hi is None else wide(hi)

    @staticmethod
    def about(x: Any, by: Any) -> Range:
        """X ± by."""
        return Range(down(wide(x) - by), up(wide(x) + by))

    def __getitem__(self, where: Any) -> Range:
        return Range(self.lo[where], self.hi[where])

    def _and(self, other: Range) -> tuple[Wide, Wide, Wide, Wide]:
        return *arithmetic().ends(self.lo, self.hi), *arithmetic().ends(other.lo, other.hi)

    def __add__(self, other: Range) -> Range:
        a, b, c, d = self._and(other)
        return Range(down(a + c), up(b + d))

    def __sub__(self, other: Range) -> Range:
        a, b, c, d = self._and(other)
        return Range(down(a - d), up(b - c))

    def __neg__(self) -> Range:
        return Range(-self.hi, -self.lo)

    def __mul__(self, other: Range) -> Range:
        p, q, r, s = self._and(other)
        a, b, c, d = p * r, p * s, q * r, q * s
        return Range(down(np.minimum(np.minimum(a, b), np.minimum(c, d))), up(np.maximum(np.maximum(a, b), np.maximum(c, d))))

    def __truediv__(self, other: Range) -> Range:
        """Quotient by positive numbers; no knowledge where they may not be positive."""
        _, _, lo, hi = self._and(other)
        positive = lo > 0.0
        inverse = Range(np.where(positive, down(1.0 / hi), np.nan), np.where(positive, up(1.0 / lo), np.nan))
        return self * inverse

    def square(self) -> Range:
        """x²."""
        low, high = np.abs(self.lo), np.abs(self.hi)
        spans = (self.lo <= 0.0) & (self.hi >= 0.0)
        least = np.where(spans, 0.0 * low, np.minimum(low, high))
        return Range(np.maximum(down(least * least), wide(0.0)), up(np.maximum(low, high) ** 2))

    def root(self) -> Range:
        """Square root; the numbers are not negative."""
        return Range(np.maximum(down(np.sqrt(np.maximum(self.lo, 0.0))), wide(0.0)), up(np.sqrt(np.maximum(self.hi, 0.0))))

    def sum(self, axis: int) -> Range:
        """The sum along an axis, in whatever order NumPy adds."""
        count = self.lo.shape[axis]
        lo, hi = self.lo.sum(axis=axis), self.hi.sum(axis=axis)
        if count == 1:
            return Range(lo, hi)
        room = arithmetic().unit * count * (1.0 + 1e-9)
        slack_lo = up(up(np.abs(self.lo).sum(axis=axis) * (1.0 + room)) * room)
        slack_hi = up(up(np.abs(self.hi).sum(axis=axis) * (1.0 + room)) * room)
        return Range(down(lo - slack_lo), up(hi + slack_hi))

    def size(self) -> Wide:
        """Max |x|."""
        return np.maximum(np.abs(self.lo), np.abs(self.hi))

    def hull(self, other: Range, where: Any = True) -> Range:
        """The smallest range around both, where asked for."""
        return Range(
            np.where(where, np.minimum(self.lo, other.lo), self.lo), np.where(where, np.maximum(self.hi, other.hi), self.hi)
        )

    def within(self, limit: Wide) -> Range:
        """The part with |x| <= limit."""
        return Range(np.maximum(self.lo, -limit), np.minimum(self.hi, limit))

    def reshape(self, *shape: int) -> Range:
        """The same entries in another shape."""
        return Range(self.lo.reshape(shape), self.hi.reshape(shape))


def dot(a: Range, b: Range, axis: int) -> Range:
    """The sum along an axis of a b, from middles and radii: for many numbers that are known well."""
    (x, dx), (y, dy) = middle_and_radius(a), middle_and_radius(b)
    count = max(a.lo.shape[axis], b.lo.shape[axis])
    size = (np.abs(x) * np.abs(y)).sum(axis=axis)
    blur = (np.abs(x) * dy + dx * (np.abs(y) + dy)).sum(axis=axis)
    room = arithmetic().unit * (count + 8)
    return Range.about((x * y).sum(axis=axis), up(up(size * room) + up(blur * (1.0 + room))) + TINY)


def matmul(a: Range, b: Range) -> Range:
    """A B for (stacks of) matrices (n, k) and (k, m), from middles and radii."""
    (x, dx), (y, dy) = middle_and_radius(a), middle_and_radius(b)
    product, room = arithmetic().matmul, arithmetic().unit * (a.lo.shape[-1] + 8)
    # Radii below TINY are as good as none, but products of numbers next to zero take much longer on some processors.
    dx, dy = np.maximum(dx, TINY), np.maximum(dy, TINY)
    blur = product(np.abs(x), up(dy + room * np.abs(y))) + product(dx, up(np.abs(y) + dy))
    return Range.about(product(x, y), up(blur * (1.0 + room)) + TINY)


def middle_and_radius(x: Range) -> tuple[Wide, Wide]:
    """Numbers and bounds of the distance from them."""
    middle = arithmetic().point(0.5 * (x.lo + x.hi))
    return middle, np.maximum(up(x.hi - middle), up(middle - x.lo))


def length(size: Wide) -> Wide:
    """Upper bound of the Euclidean norm along the last axis of numbers >= 0."""
    return Range(size).square().sum(-1).root().hi


def _exp_at(x: Wide) -> Range:
    """Exp at points: Taylor's series at x/2^k, |x/2^k| <= 1/2, squared k times."""
    clipped = np.clip(x, -_MOST, _MOST)
    with np.errstate(divide="ignore"):
        halvings = np.maximum(np.ceil(np.log2(np.abs(clipped))) + 1.0, 0.0)
    halvings = np.where(np.isfinite(halvings), halvings, 0.0).astype(np.int64)
    small = np.ldexp(clipped, -halvings)
    total = np.ones_like(clipped)
    for order in range(_EXP_TERMS, 0, -1):
        total = 1.0 + small * total / order
    # Step k rounds twice a number below |small|/k times the sum so far, and once the sum; that counts with |small|^(k-1)/(k-1)!
    # in the end. For |small| <= 1/2 this is less than 4.2 half UNITs. What the series leaves out is below
    # e^(1/2) (1/2)^25 / 25! < 1e-32.
    value = Range.about(total, 2.25 * arithmetic().unit)
    for step in range(int(halvings.max(initial=0))):
        squared, more = value.square(), halvings > step
        value = Range(np.where(more, squared.lo, value.lo), np.where(more, squared.hi, value.hi))
    lo = np.where(x < -_MOST, 0.0, np.maximum(value.lo, 0.0))
    return Range(np.where(np.isnan(x), np.nan, lo), np.where(x > _MOST, np.inf, value.hi))


def exp(x: Range) -> Range:
    """e^x."""
    return _rising(x, _exp_at, "exp")


def logistic(x: Range) -> Range:
    """1 / (1 + e^-x), from e^-|x| for accuracy in the tails."""
    return _rising(x, _logistic_at, "logistic")


def _logistic_at(x: Wide) -> Range:
    tail = _exp_at(-np.abs(x))
    below = tail / (Range(wide(1.0)) + tail)
    above = Range(wide(1.0)) / (Range(wide(1.0)) + tail)
    return Range(np.where(x < 0.0, below.lo, above.lo), np.minimum(np.where(x < 0.0, below.hi, above.hi), wide(1.0)))


def tanh(x: Range) -> Range:
    """(1 - e^-2x) / (1 + e^-2x)."""

    def at(x: Wide) -> Range:
        one, tail = Range(wide(1.0)), _exp_at(wide(-2.0 * np.abs(x)))
        value = (one - tail) / (one + tail)
        value = Range(np.maximum(value.lo, 0.0), np.minimum(value.hi, np.minimum(np.abs(x), wide(1.0))))  # tanh x < x
        # For small x: x - x³/3 < tanh x.
        cube = up(up(np.abs(x) * np.abs(x)) * np.abs(x))
        value = Range(np.maximum(value.lo, down(np.abs(x) - up(cube / 3.0))), value.hi)
        return Range(np.where(x < 0.0, -value.hi, value.lo), np.where(x < 0.0, -value.lo, value.hi))

    return _rising(x, at, "tanh")


def softplus(x: Range) -> Range:
    """log(1 + e^x) = max(x, 0) + 2 artanh(t / (2 + t)) with t = e^-|x|."""

    def at(x: Wide) -> Range:
        tail = _exp_at(-np.abs(x))
        u = tail / (Range(wide(2.0)) + tail)  # at most 1/3
        square = u.square()
        total = Range(np.zeros_like(x))
        for k in range(_LOG_TERMS, -1, -1):
            total = Range(wide(1.0)) / Range(wide(2 * k + 1)) + square * total
        # What is left out is positive and below u (1/9)^27 / 55 · 9/8.
        total = Range(total.lo, up(total.hi + 1e-25))
        return Range(np.maximum(x, 0.0)) + Range(wide(2.0)) * u * total

    return _rising(x, at, "softplus")


_INV_SQRT_2PI = Range.about(wide("0.398942280401432677939946059934381868476"), 1e-19)


def normal_density(x: Range) -> Range:
    """e^(-x²/2) / sqrt(2 pi)."""
    return _INV_SQRT_2PI * exp(Range(wide(-0.5)) * x.square())


def normal(x: Range) -> Range:
    """The normal distribution: 1/2 + pdf(x) (x + x³/3 + x⁵/15 + …), all terms of one sign."""

    def at(x: Wide) -> Range:
        size = Range(np.minimum(np.abs(x), wide(_NORMAL_END)))
        square = size.square()
        term = total = size
        for k in range(1, _NORMAL_TERMS):
            term = term * square / Range(wide(2 * k + 1))
            total = total + term
            # The next terms more than halve, and together are less than this one.
            if (square.hi < k + 1.5).all() and (term.hi <= 1e-25 * total.lo + 1e-300).all():
                break
        total = Range(total.lo, up(total.hi + term.hi))
        upper = Range(wide(0.5)) + normal_density(size) * total
        upper = Range(upper.lo, np.where(np.abs(x) > _NORMAL_END, 1.0, np.minimum(upper.hi, wide(1.0))))
        lower = Range(wide(1.0)) - upper
        return Range(np.where(x < 0.0, np.maximum(lower.lo, 0.0), upper.lo), np.where(x < 0.0, lower.hi, upper.hi))

    return _rising(x, at, "normal")


def _rising(x: Range, at: Any, name: str) -> Range:
    """The range of an increasing function from its enclosures at points."""
    own = arithmetic().function(name)
    if own is not None:
        return Range(down(own(x.lo)), up(own(x.hi)))
    low = at(x.lo)
    return low if x.lo is x.hi else Range(low.lo, at(x.hi).hi)
