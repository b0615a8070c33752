"""The other hidden units near a ball's centre as polynomials in their changes, in doubles, for checking certificates.

With |t| <= w for t = X . (change of a unit's weights), b the change of its V, and everything about the centre,

    phi(s + t) = phi + phi' t + A2 t² + A3 t³ ± eps2 t²,    phi(s + t) = phi + B1 t + B2 t² ± eps1 |t|,

the first times V, the second times b. The squares of the units' changes add up to rho² at most, so that their terms are together

    rho sqrt(sum (V phi' |X|)² + phi² [+ 1]),    rho² max lambda_max[|V A2| |X|², |B1| |X|/2; ., 0],
    rho³ max (|V A3| |X|³ + |B2| |X|² 2/(3 sqrt3)),    rho² max lambda_max[|V| eps2 |X|², eps1 |X|/2; ., 0]

at the most, the 1 for the output's bias, and so are the sums of all terms' absolute values. Where numbers f that are off by e
count as |f| + 4 e / eta in such sums, what the terms are off by is no more than eta of them. The A and B are not off.

A2 + A3 t and B1 + B2 t are straight lines near the quotients h(t) and g(t),

    h(t) = (phi(s + t) - phi - phi' t)/t²,  h(0) = phi''/2,  |h''| <= sup |phi''''|/12,
    g(t) = (phi(s + t) - phi)/t,            g(0) = phi',     |g''| <= sup |phi'''|/3,

parallel to chords of these, in the middle of the distances at t = k w/G, |k| <= G. Between two of those the distance is no more
than sup |h''| (w/G)²/8 above the larger one. Where w is so small that the quotients are not known, the lines are, with [lo, hi]
the range of phi'''' or phi''' over [s - w, s + w],

    A3 = phi'''/6,  A2 ± eps2 = phi''/2 + [min(0, lo), max(0, hi)] w²/24,    B2 = phi''/2,  B1 ± eps1 = phi' + [., .] w²/6.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .reference_hessian import Problem
from .reference_interval import Range, middle_and_radius
from .reference_ranges import activations
from .reference_unit_groups import Groups

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Unit roundoff of doubles, and what roundings may be at most, relative to the sizes of what is rounded.
_UNIT, _SURE = 2.0**-53, 1e-10
#: 2 / (3 sqrt3), rounded up.
_SQUARE = 0.384900179459751
#: Points of the quotients on each side of zero, and the chord's; for t² and t³ there is none better than at sqrt3/2 of w.
_GRID, _CHORD = 16, 14
#: All products of numbers that are too small count with this.
_TINY = 1e-290


@dataclass(frozen=True)
class Series:
    """Derivatives at points: numbers, and bounds of what they are off by."""

    at: list[FloatArray]
    off: list[FloatArray]

    @property
    def sizes(self) -> list[FloatArray]:
        """Bounds of the derivatives."""
        return [np.abs(f) + e for f, e in zip(self.at, self.off, strict=True)]

    def padded(self, eta: float) -> list[FloatArray]:
        """Sizes of which errors are no more than a quarter of eta."""
        return [np.abs(f) + (4.0 / eta) * e for f, e in zip(self.at, self.off, strict=True)]


@dataclass(frozen=True)
class Numbers:
    """A problem with one output in doubles: X = k1 (x, 1), its lengths, k2, the data's shares, and eta, for roundings."""

    name: str
    beta: float
    x: FloatArray  # (n, E)
    size: FloatArray  # (n,)
    k1: float
    k2: float
    bias: bool
    mass: FloatArray
    y: FloatArray
    eta: float

    @staticmethod
    def of(problem: Problem) -> Numbers:
        """The problem's numbers."""
        (k1, off1), (k2, off2) = (_number(kappa) for kappa in problem.scale)
        mass, off = _number(problem.mass)
        x = problem.x.astype(np.float64)
        if problem.bias:
            x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        n, inputs = x.shape
        unsure = float(off1 / k1 + off2 / k2) + float(np.where(mass > 0.0, off / np.where(mass > 0.0, mass, 1.0), 0.0).max())
        eta = 8.0 * (_UNIT * (n + (inputs + 1) ** 3 + 100) + unsure)
        x = float(k1) * x
        size = np.sqrt((x * x).sum(axis=1)) * (1.0 + eta)
        y = problem.y[:, 0].astype(np.float64)
        return Numbers(problem.activations[0], problem.betas[0], x, size, float(k1), float(k2), problem.bias, mass, y, eta)

    @property
    def sure(self) -> bool:
        """Whether roundings are as small as they should be."""
        return self.eta <= _SURE

    def preactivations(self, w: FloatArray) -> tuple[FloatArray, FloatArray]:
        """X . w (…, n) for w (…, E), and what they are off by."""
        return w @ self.x.T, self.eta * (np.abs(w) @ np.abs(self.x).T)

    def at(self, s: FloatArray, off: FloatArray, orders: int) -> Series:
        """The first derivatives at s ± off."""
        found = activations(self.name, self.beta, range(orders), Range.about(s, off))
        middles = [0.5 * (f.lo + f.hi) for f in found]
        errors = [np.maximum(f.hi - m, m - f.lo) * (1.0 + self.eta) for f, m in zip(found, middles, strict=True)]
        return Series([m.astype(np.float64) for m in middles], [e.astype(np.float64) for e in errors])

    def over(self, s: FloatArray, reach: FloatArray, orders: tuple[int, ...]) -> list[Range]:
        """Derivatives over s ± reach."""
        return activations(self.name, self.beta, orders, Range.about(s, reach))


def _number(x: Range) -> tuple[FloatArray, FloatArray]:
    """In doubles, and what they are off by."""
    middle, radius = middle_and_radius(x)
    found = np.asarray(middle.astype(np.float64))
    return found, np.asarray(radius.astype(np.float64)) * (1.0 + 4.0 * _UNIT) + 4.0 * _UNIT * np.abs(found)


@dataclass(frozen=True)
class Sizes:
    """Bounds (n,) of the others' orders, for changes no longer than one."""

    constant: FloatArray
    first: FloatArray
    second: FloatArray
    third: FloatArray


@dataclass(frozen=True)
class Line:
    """Numbers c + d t that a quotient differs from by no more than ``eps``."""

    level: FloatArray
    slope: FloatArray
    eps: FloatArray

    @staticmethod
    def closer(one: Line, other: Line) -> Line:
        """Entry by entry; the second where the first is no number."""
        better = one.eps < other.eps
        pairs = ((one.level, other.level), (one.slope, other.slope), (one.eps, other.eps))
        return Line(*(np.where(better, x, y) for x, y in pairs))


@dataclass(frozen=True)
class Tables:
    """Coefficients of delta, of delta_l delta_m with l <= m and of delta_l delta_m delta_n with l <= m <= n, unit by unit, for
    changes in units of ``rho``, times the entries of X X' (n, J E²) and of X (n, J E). The output's bias is delta's last.
    """

    first: tuple[FloatArray, FloatArray]
    second: tuple[FloatArray, FloatArray]
    third: tuple[FloatArray, FloatArray]


class Others:
    """All units but one, for changes no longer than ``rho``."""

    def __init__(self, numbers: Numbers, centre: FloatArray, groups: Groups, unit: int, rho: float) -> None:
        self.rho, self._numbers = rho, numbers
        eta, k2, x, size = numbers.eta, numbers.k2, numbers.x, numbers.size
        own = np.array([k for k in range(len(groups.units)) if k != unit], dtype=np.int64)
        parameters = centre[groups.units[own]].reshape(-1, x.shape[1] + 1)
        self.units = len(parameters)
        v = parameters[:, -1:]
        s, off = numbers.preactivations(parameters[:, :-1])
        reach = rho * size * (1.0 + eta) + off
        series = numbers.at(s, off, 4)
        bend, slope = quotients(numbers, s, off, reach, series)
        bias = centre[groups.biases] if numbers.bias else np.zeros(0)
        self.constant = k2 * ((v * series.at[0]).sum(axis=0) + bias.sum()) - numbers.y
        self.fine, self.padded = (self._sizes(f, v, bend, slope, bias) for f in (series.sizes, series.padded(eta)))
        self.rest = k2 * _largest(_two_by_two(np.abs(v) * bend.eps * size**2, slope.eps * size / 2.0))
        self.v, self.series, self.bend, self.slope = v, series, bend, slope

    def _sizes(self, f: list[FloatArray], v: FloatArray, bend: Line, slope: Line, bias: FloatArray) -> Sizes:
        numbers, size, v = self._numbers, self._numbers.size, np.abs(v)
        k2, one = numbers.k2, float(numbers.bias)
        constant = k2 * ((v * f[0]).sum(axis=0) + np.abs(bias).sum()) + np.abs(numbers.y)
        first = k2 * np.sqrt(((v * f[1] * size) ** 2 + f[0] ** 2).sum(axis=0) + one)
        second = k2 * _largest(_two_by_two(v * np.abs(bend.level) * size**2, np.abs(slope.level) * size / 2.0))
        third = k2 * _largest(v * np.abs(bend.slope) * size**3 + np.abs(slope.slope) * size**2 * _SQUARE)
        return Sizes(constant, first, second, third)

    @cached_property
    def tables(self) -> Tables:
        """The polynomials themselves."""
        numbers, rho, series = self._numbers, self.rho, self.series
        x, k2 = numbers.x, numbers.k2
        n, inputs = x.shape
        size = inputs + 1
        v, f0, f1 = (f[:, :, None] for f in (self.v, series.at[0], series.at[1]))
        a2, a3, b1, b2 = (f[:, :, None] for f in (self.bend.level, self.bend.slope, self.slope.level, self.slope.slope))
        xs = x[None]
        first = np.concatenate([v * f1 * xs, f0], axis=2).transpose(1, 0, 2).reshape(n, -1)
        if numbers.bias:
            first = np.concatenate([first, np.ones((n, 1))], axis=1)
        low, high = np.triu_indices(size)
        extended = np.concatenate([x, np.zeros((n, 1))], axis=1)
        both = np.where(high == inputs, x[:, np.minimum(low, inputs - 1)] * (low < inputs), 0.0)
        flat = extended[:, low] * extended[:, high]
        second = v * a2 * flat[None] + b1 * (0.5 * both)[None]
        l, m, k = triples(size)  # noqa: E741 - as in the formulas
        # b t² is spread evenly over the three places that b may have.
        spread = np.where((k == inputs) & (m < inputs), x[:, np.minimum(l, inputs - 1)] * x[:, np.minimum(m, inputs - 1)], 0.0)
        cube = extended[:, l] * extended[:, m] * extended[:, k]
        third = v * a3 * cube[None] + (b2 / 3.0) * spread[None]
        return Tables(
            self._outer(k2 * rho * first),
            self._outer(k2 * rho**2 * second.transpose(1, 0, 2).reshape(n, -1)),
            self._outer(k2 * rho**3 * third.transpose(1, 0, 2).reshape(n, -1)),
        )

    def _outer(self, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        x = self._numbers.x
        n, inputs = x.shape
        line = c[:, :, None] * x[:, None]
        return (line[..., None] * x[:, None, None]).reshape(n, c.shape[1] * inputs**2), line.reshape(n, c.shape[1] * inputs)


def quotients(numbers: Numbers, s: FloatArray, off: FloatArray, reach: FloatArray, series: Series) -> tuple[Line, Line]:
    """Lines near h and g, for |t| <= reach at s ± off."""
    eta = numbers.eta
    third, fourth = numbers.over(s, reach + off, (3, 4))
    square = reach * reach * (1.0 + eta)
    a2, eps2 = _middle(0.5 * series.at[2], 0.5 * series.off[2], fourth, square / 24.0, eta)
    b1, eps1 = _middle(series.at[1], series.off[1], third, square / 6.0, eta)
    # What the slopes are off by, their rounding included.
    eps2 = (eps2 + reach * (series.off[3] / 6.0 + eta * np.abs(series.at[3]))) * (1.0 + eta)
    eps1 = (eps1 + reach * (series.off[2] / 2.0 + eta * np.abs(series.at[2]))) * (1.0 + eta)
    near = Line(a2, series.at[3] / 6.0, eps2), Line(b1, series.at[2] / 2.0, eps1)
    places = np.arange(-_GRID, _GRID + 1)
    t = reach * (places / _GRID)[:, None, None]
    at = numbers.at(s + t, off + eta * (np.abs(s) + np.abs(t)), 1)
    (f0, f1, f2, _), (e0, e1, e2, _) = series.at, series.off
    zero = (places == 0)[:, None, None]
    by = np.where(zero, 1.0, t)
    rise, blur = at.at[0] - f0, at.off[0] + e0 + eta * (np.abs(at.at[0]) + np.abs(f0)) + _TINY
    g, g_off = np.where(zero, f1, rise / by), np.where(zero, e1, blur / np.abs(by))
    bent, blur = rise - f1 * t, blur + (e1 + eta * np.abs(f1)) * np.abs(t)
    h, h_off = np.where(zero, 0.5 * f2, bent / by**2), np.where(zero, 0.5 * e2, blur / by**2)
    step = square * (1.0 / (8.0 * _GRID**2))
    # Quotients may be of nothing.
    far2 = _line(t, h, h_off, step * (fourth.size().astype(np.float64) / 12.0), eta)
    far1 = _line(t, g, g_off, step * (third.size().astype(np.float64) / 3.0), eta)
    return Line.closer(far2, near[0]), Line.closer(far1, near[1])


def _line(t: FloatArray, f: FloatArray, off: FloatArray, between: FloatArray, eta: float) -> Line:
    """Near numbers f ± off at t, and what is between these."""
    low, high = _GRID - _CHORD, _GRID + _CHORD
    slope = (f[high] - f[low]) / (t[high] - t[low])
    distance = f - slope * t
    level = 0.5 * (distance.min(axis=0) + distance.max(axis=0))
    sizes = np.abs(f) + np.abs(slope * t) + np.abs(level)
    eps = (np.abs(distance - level) + off + eta * sizes).max(axis=0) + between
    return Line(level, slope, eps * (1.0 + eta) + _TINY)


def triples(size: int) -> tuple[IntArray, IntArray, IntArray]:
    """All l <= m <= k below a size, in the order of their numbers."""
    found = [(a, b, c) for a in range(size) for b in range(a, size) for c in range(b, size)]
    l, m, k = np.array(found, dtype=np.int64).T  # noqa: E741 - as in the formulas
    return l, m, k


def _middle(f: FloatArray, off: FloatArray, x: Range, factor: FloatArray, eta: float) -> tuple[FloatArray, FloatArray]:
    """A number, and a bound of its distance from f ± off + [min(0, lo), max(0, hi)] factor."""
    low, high = np.minimum(x.lo, 0.0).astype(np.float64) * factor, np.maximum(x.hi, 0.0).astype(np.float64) * factor
    middle = f + 0.5 * (low + high)
    return middle, 0.5 * (high - low) + off + eta * (np.abs(f) + high - low)


def _two_by_two(a: FloatArray, b: FloatArray) -> FloatArray:
    """Largest eigenvalue of [a, b; b, 0] for a, b >= 0."""
    found: FloatArray = 0.5 * a + np.sqrt(0.25 * a * a + b * b)
    return found


def _largest(x: FloatArray) -> FloatArray:
    found: FloatArray = x.max(axis=0, initial=0.0)
    return found
