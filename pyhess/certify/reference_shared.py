"""The last hidden layer's units with one radius between them, derived anew for checking certificates.

One output and the squared error, in a ball. With r = c - y + sum_j v_j phi(s_j), d_j the change of v_j, e_j that of the weights
and the bias that enter unit j, sum d_j² <= rho_v² and sum e_j² <= rho_w², and F = sum_j F_j >= 0: for any m > 0, from
x <= e^(x - 1),

    |r|^p F <= exp(p m_r |r| + m_f F - p - 1) / (m_r^p m_f),
    p m_r |r| + m_f F <= p m_r sign(r) (c - y) + m_v rho_v² + m_w rho_w² + sum_j T_j,
    T_j = sup (p m_r sign(r) v_j phi(s_j) + m_f F_j - m_v d_j² - m_w e_j²),

and p² m_r²/(4 m_v) more if c's change shares rho_v. F_j is (v_j phi'_j)², (-sign(r) v_j phi''_j)_+ w_j² or (phi'_j w_j)², with
w_j at most row_j + e_j. T_j is bounded piece by piece of s_j, as s_j can be d away from what the layers below make of it only if
e_j >= d / sup |(a, 1)|, and for both signs of v_j. Multipliers are guessed in floating point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .reference_interval import Range, Wide, down, exp, up, wide, zeros

FloatArray = npt.NDArray[np.float64]

#: Pieces of a row's change, first steps of the search for multipliers, and how later ones shrink.
_ROWS, _FAR, _SHRINK = 6, 40, 0.9 ** np.arange(32)
_LEAST = 1e-90
_THIN = 1e-4


@dataclass(frozen=True)
class Rows:
    """What enters the units of n data: row norms at the centre, times the slopes below over the largest (n, m), the radius (n,)
    and sup |(a, 1)| (n,), s at the centre and how far the layers below move it (n, m).
    """

    rows: Wide
    rho: Wide
    entering: Wide
    at: Range
    move: Wide


@dataclass(frozen=True)
class _Case:
    """One kind of sum and sign of r; choices (n, m, q) of the signs of v_j and pieces of s_j."""

    kind: str
    power: int
    base: Wide  # (n,) of sign(r) (c - y)
    v: Wide  # the centre of |v_j| with that sign
    end: Wide  # (n, m, 1) of |v_j|
    rows: Wide  # (n, m, 1)
    rho_v: Wide  # (n,)
    rho_w: Wide
    bias: bool
    c: Wide  # sup phi(s) sign(r v)
    g: Wide
    least: Wide  # of e_j; no network where it is above rho_w
    there: npt.NDArray[np.bool_]


def shared_bounds(
    below: Rows, s: Range, v: Range, constant: Range, rho: Wide, bias: bool, phi: tuple[Range, Range, Range]
) -> list[Wide]:
    """Bounds (n,) of |r| |v phi'|, sum (-r v phi'')_+ w² and |r| |phi' w|; s and phi, phi', phi'' there (pieces, n, m)."""
    n, m = below.rows.shape
    away = np.maximum(np.maximum(down(s.lo - below.at.hi), down(below.at.lo - s.hi)), wide(0.0))
    gap = np.maximum(down(away - below.move), wide(0.0))
    least = np.maximum((Range(gap) / Range(np.maximum(below.entering, wide(1e-300)))[:, None]).lo, wide(0.0))
    centre = np.broadcast_to(0.5 * (v.lo + v.hi), (n, m))
    blur = Range(np.maximum(up(v.hi - 0.5 * (v.lo + v.hi)), up(0.5 * (v.lo + v.hi) - v.lo))).square().sum(1).root().hi
    thin = wide(_THIN)
    rho_v = up(np.maximum(up(rho + blur), up(thin * np.abs(centre).max(axis=1))) + 1e-30)
    rho_w = up(np.maximum(below.rho, up(thin * below.rows.max(axis=1))) + 1e-30)
    found = []
    for kind in ("turned", "bent", "steep"):
        sides = [
            _bound(_case(kind, sign, (centre, rho_v, rho_w), below.rows, constant, bias, phi, least)) for sign in (1.0, -1.0)
        ]
        top = np.maximum(sides[0], sides[1])
        found.append(top if kind == "bent" else Range(top).root().hi)
    return found


def _case(
    kind: str, sign: float, ball: tuple[Wide, Wide, Wide], rows: Wide, constant: Range, bias: bool,
    phi: tuple[Range, Range, Range], least: Wide,
) -> _Case:  # fmt: skip
    centre, rho_v, rho_w = ball
    value, slope, bend = phi
    base = (constant.hi if sign > 0.0 else -constant.lo)[:, 0]
    both = [value.hi, -value.lo]
    sharp = [slope.size()] * 2 if kind != "bent" else [np.maximum(wide(0.0), x) for x in (-bend.lo, bend.hi)]

    def choices(parts: list[Wide]) -> Wide:
        return np.moveaxis(np.concatenate(parts), 0, -1)

    pieces = len(value.lo)
    v = choices([np.broadcast_to(x, (pieces, *centre.shape)) for x in (sign * centre, -sign * centre)])
    kept = _needed(v, choices(both), choices(sharp), choices([least, least]), rho_w)
    end = up(np.abs(centre) + rho_v[:, None])[:, :, None]
    return _Case(kind, 1 if kind == "bent" else 2, base, kept[0], end, rows[:, :, None], rho_v, rho_w, bias, *kept[1:])


def _needed(v: Wide, c: Wide, g: Wide, least: Wide, rho_w: Wide) -> tuple[Wide, Wide, Wide, Wide, npt.NDArray[np.bool_]]:
    """The choices (n, m, q), as many of each, without those that another makes needless; and which of them count."""
    there = np.asarray(least <= rho_w[:, None, None], dtype=np.bool_)
    order = np.arange(v.shape[2])
    for one in order:
        mine = [x[:, :, one : one + 1] for x in (v, c, g, least)]
        other = (v == mine[0]) & (c >= mine[1]) & (g >= mine[2]) & (least <= mine[3]) & there & (order != one)
        there[:, :, one] &= ~other.any(axis=2)
    most = int(there.sum(axis=2).max())
    first = np.argsort(~there, axis=2, kind="stable")[:, :, :most]
    v, c, g, least = (np.take_along_axis(x, first, axis=2) for x in (v, c, g, least))
    return v, c, g, least, np.take_along_axis(there, first, axis=2)


def _bound(case: _Case) -> Wide:
    """Bound (n,) of |r|^p F with the best multipliers that are found."""
    m_r, m_f, m_v, m_w = (Range(wide(x)) for x in _guess(case))
    power = Range(wide(float(case.power)))
    total = power * m_r * Range(case.base) + m_v * Range(case.rho_v).square() + m_w * Range(case.rho_w).square()
    if case.bias:
        total = total + (power * m_r).square() / (Range(wide(4.0)) * m_v)
    a, b, c, d = (x[:, None, None] for x in (m_r * power, m_f, m_v, m_w))
    units = _units(case, a, b, c, d)
    units = np.where(case.there, units, wide(-np.inf)).max(axis=2)
    total = total + Range(units).sum(1)
    divisor = m_r * m_f if case.power == 1 else m_r.square() * m_f
    found = (exp(total - power - Range(wide(1.0))) / divisor).hi
    # Nothing has residuals of this sign where they cannot reach zero.
    reach = Range(case.base) + (Range(np.maximum(case.c.max(axis=2), wide(0.0))) * Range(case.end[:, :, 0])).sum(1)
    reach = reach + Range(case.rho_v) if case.bias else reach
    return np.where(reach.hi <= 0.0, wide(0.0), found)


def _units(case: _Case, a: Range, b: Range, c: Range, d: Range) -> Wide:
    """Bounds (n, m, q) of a c_j x + b F_j - c (x - v)² - d e² over 0 <= x <= end and least <= e <= rho_w."""
    high, g = Range(case.c), Range(case.g)
    least, rho = Range(case.least), Range(case.rho_w[:, None, None])
    at, end, row = Range(case.v), Range(case.end), Range(case.rows)
    if case.kind == "turned":
        lead = b * g.square() - c
        found = _parabola(a * high + (c + c) * at, lead, Range(zeros(())), end)
        return (Range(found) - c * at.square() - d * least.square()).hi
    if case.kind == "steep":
        curve = b * g.square()
        more = Range(_parabola((curve + curve) * row, curve - d, least, rho)) + curve * row.square()
        return (Range(_Lines(c, at, end).top(a * high)) + more).hi
    line = _Lines(c, at, end)
    best = None
    weight = b * g
    low, left = least, line.top(a * high + weight * (row + least).square())
    for piece in range(1, _ROWS + 1):
        share = wide(piece / _ROWS)
        upper = Range(case.least + (case.rho_w[:, None, None] - case.least) * share) if piece < _ROWS else rho
        upper = Range(np.maximum(upper.lo, low.lo))
        right = line.top(a * high + weight * (row + upper).square())
        # A convex function of e is below its chord from low to upper.
        width = upper - low
        flat = width.lo <= 0.0
        rise = (Range(right) - Range(left)) / Range(np.where(flat, wide(1.0), width.lo), np.where(flat, wide(1.0), width.hi))
        chord = (Range(left) + Range(_Lines(d, -low, Range(np.maximum(width.hi, wide(0.0)))).top(rise))).hi
        found = np.where(flat, (Range(np.maximum(left, right)) - d * low.square()).hi, chord)
        best = found if best is None else np.maximum(best, found)
        low, left = upper, right
    assert best is not None
    return best


class _Lines:
    """Upper bounds of slope x - cost (x - at)² over 0 <= x <= end, for cost > 0 and many slopes."""

    def __init__(self, cost: Range, at: Range, end: Range) -> None:
        self._at, self._end = at, end
        left, double = end - at, cost + cost
        self._first, self._last = cost * at.square(), cost * left.square()
        self._fall, self._rise = double * at, double * left
        self._quarter = Range(wide(1.0)) / (double + double)

    def top(self, slope: Range) -> Wide:
        """The largest value for these slopes."""
        free = (slope * self._at + slope.square() * self._quarter).hi
        last = (slope * self._end - self._last).hi
        rising, falling = (slope - self._rise).lo >= 0.0, (slope + self._fall).hi <= 0.0
        return np.where(rising, last, np.where(falling, (-self._first).hi, free))


def _parabola(slope: Range, lead: Range, start: Range, end: Range) -> Wide:
    """Upper bound of slope x + lead x² over 0 <= start <= x <= end."""
    convex = Range(np.maximum(lead.hi, wide(0.0)))
    first, last = (slope * start + lead * start.square()).hi, (slope * end + lead * end.square()).hi
    ends = np.maximum((slope * start + convex * start.square()).hi, (slope * end + convex * end.square()).hi)
    concave = lead.hi < 0.0
    steep = Range(np.where(concave, -lead.hi, wide(1.0)), np.where(concave, -lead.lo, wide(1.0)))
    free = (slope.square() / (Range(wide(4.0)) * steep)).hi
    rising = (slope + (lead + lead) * end).lo >= 0.0
    falling = (slope + (lead + lead) * start).hi <= 0.0
    return np.where(concave, np.where(rising, last, np.where(falling, first, free)), ends)


def _guess(case: _Case) -> list[FloatArray]:
    """Multipliers (n,) about where the bound is least: its logarithm is convex in theirs."""
    search = _Search(case)
    best, found = np.full(len(case.base), np.inf), np.tile(np.array([0.2, 0.4, -0.7, -0.7])[:, None], (1, len(case.base)))
    for steps in (0.5 / (1.0 + 0.15 * np.arange(_FAR)), 0.1 * _SHRINK, 0.02 * _SHRINK):
        z = found
        for step in steps:
            value, slope = search.at(z)
            better = value < best
            best, found = np.where(better, value, best), np.where(better, z, found)
            z = z - step * slope / np.maximum(1.0, np.sqrt((slope**2).sum(axis=0)))
    return list(search.multipliers(found))


class _Search:
    """A case in floating point."""

    def __init__(self, case: _Case) -> None:
        def plain(x: Wide) -> FloatArray:
            return np.asarray(x, dtype=np.float64)

        self._kind, self._power, self._bias = case.kind, float(case.power), case.bias
        self._base, self._rho_v, self._rho_w = plain(case.base), plain(case.rho_v), plain(case.rho_w)
        self._v, self._c, self._g, self._least = (plain(x) for x in (case.v, case.c, case.g, case.least))
        self._end, self._rows = plain(case.end), plain(case.rows)
        self._there = case.there
        top, size = (x.max(axis=2, keepdims=True) for x in (self._c, self._g))
        reach = self._base + (np.maximum(top, 0.0) * self._end).sum(axis=(1, 2)) + (self._rho_v if case.bias else 0.0)
        w = self._rows + self._rho_w[:, None, None]
        factor = {"turned": (size * self._end) ** 2, "bent": size * self._end * w**2, "steep": (size * w) ** 2}[case.kind]
        self._scale = np.stack(
            [
                np.maximum(reach, np.maximum(1e-9 * np.abs(self._base), _LEAST)),
                np.maximum(factor.sum(axis=(1, 2)), _LEAST),
                self._rho_v * self._end.max(axis=(1, 2)),
                self._rho_w * (1.0 + self._rho_w),
            ]
        )
        # Where r needs much of the radius to have its sign at all, the radius counts more.
        self._scale[2] *= self._scale[0] / (self._scale[0] + np.maximum(0.0, -self._base))  # fmt: skip

    def multipliers(self, z: FloatArray) -> FloatArray:
        """(4, n) from the logarithms of their products with the scales."""
        found: FloatArray = np.exp(z) / self._scale
        return found

    def at(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The logarithm of the bound (n,) and its slopes (4, n)."""
        m = self.multipliers(z)
        power, m_r, m_f, m_v, m_w = self._power, *(x[:, None, None] for x in m)
        x, e, part = self._choose(power * m_r, m_f, m_v, m_w)
        value = power * m_r * self._c * x + m_f * part - m_v * (x - self._v) ** 2 - m_w * e**2
        chosen = np.where(self._there, value, -np.inf).argmax(axis=2)[:, :, None]
        value, r, part, far, away = (
            np.take_along_axis(q, chosen, axis=2).sum(axis=(1, 2)) for q in (value, self._c * x, part, (x - self._v) ** 2, e**2)
        )
        own = 0.5 * power * m[0] / m[2] if self._bias else np.zeros_like(value)
        total = power * m[0] * self._base + m[2] * (own**2 + self._rho_v**2) + m[3] * self._rho_w**2 + value
        slope = np.stack([
            power * (m[0] * (self._base + own + r) - 1.0), m[1] * part - 1.0,
            m[2] * (self._rho_v**2 - own**2 - far), m[3] * (self._rho_w**2 - away),
        ])  # fmt: skip
        return total - power * np.log(m[0]) - np.log(m[1]), slope

    def _choose(self, a: FloatArray, b: FloatArray, c: FloatArray, d: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Every choice's x, e and F_j about where they are best."""
        g, rho = self._g, self._rho_w[:, None, None]
        zero = np.zeros_like(self._v)
        if self._kind == "turned":
            x = _best(a * self._c + 2.0 * c * self._v, b * g**2 - c, zero, self._end)
            return x, self._least, (x * g) ** 2
        if self._kind == "steep":
            x = np.clip(self._v + 0.5 * a * self._c / c, 0.0, self._end)
            e = _best(2.0 * b * g**2 * self._rows, b * g**2 - d, self._least, rho)
            return x, e, (g * (self._rows + e)) ** 2
        best, x_best, e_best = np.full_like(self._v, -np.inf), zero, zero
        for share in np.linspace(0.0, 1.0, _ROWS + 1):
            e = self._least + (np.maximum(rho, self._least) - self._least) * share
            slope = a * self._c + b * g * (self._rows + e) ** 2
            x = np.clip(self._v + 0.5 * slope / c, 0.0, self._end)
            value = slope * x - c * (x - self._v) ** 2 - d * e**2
            more = value > best
            best, x_best, e_best = np.where(more, value, best), np.where(more, x, x_best), np.where(more, e, e_best)
        return x_best, e_best, x_best * g * (self._rows + e_best) ** 2


def _best(slope: FloatArray, lead: FloatArray, start: FloatArray, end: FloatArray) -> FloatArray:
    """Where slope x + lead x² is largest on [start, end]."""
    inside = np.clip(-0.5 * slope / np.where(lead < 0.0, lead, -1.0), start, np.maximum(start, end))
    last = (slope + lead * end) * end >= (slope + lead * start) * start
    return np.where(lead < 0.0, inside, np.where(last, end, start))
