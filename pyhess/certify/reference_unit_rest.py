"""What the other hidden units and the output bias add to the outputs, derived anew for checking certificates.

Twins: for the squared error on a box, the other units alike, v'Rv is linear in what each of them adds for a fixed direction of
the block, and minimal with v at a corner of its range, c at one too, and all u equal. One further unit u' remains.

Box: v phi(s) = v0 (phi(s0) + g (s - s0) ± …) + dv (phi(s0) + kappa (s - s0) ± …), g the slope at the datum, kappa one slope for
all data, so that the products dv du of all units make one symbol for every input and output. Or plain intervals.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .reference_hessian import Problem
from .reference_interval import Range, Wide, dot, length, middle_and_radius, up, wide, zeros
from .reference_unit_block import Rest, UnitProblem, centred, one_sided, stacked

_HALF = Range(wide(0.5))
#: Symbols of a box's model; smaller ones join the slack.
_SYMBOLS = 24
#: Slopes tried for a unit, and pieces of its range on each of which the slope's error is bounded.
_SLOPES, _PIECES = 21, 64


@dataclass(frozen=True)
class Units:
    """Effective weights of the hidden units over a box of parameters: ends of u (m, D), v (m, K) and the output biases c (K,).

    Every end is a range, as wide as the NTK scale is rounded; ``kinds`` gives units with the same ends the same number.
    """

    u: tuple[Range, Range]
    v: tuple[Range, Range]
    c: tuple[Range, Range]
    kinds: list[int]
    odd: bool

    @staticmethod
    def of(problem: Problem, low: Wide, high: Wide) -> Units:
        """Of the box [low, high] (P,)."""
        m, outputs, dim = problem.widths[1], problem.widths[2], problem.widths[0]
        places_u = problem.weight_at[0] + np.arange(m * dim).reshape(m, dim)
        places_c = problem.bias_at[1] + np.arange(outputs)
        if problem.bias:
            places_u = np.concatenate([places_u, problem.bias_at[0] + np.arange(m)[:, None]], axis=1)
        places_v = problem.weight_at[1] + np.arange(m * outputs).reshape(outputs, m).T
        ends = [tuple(_scaled(Range(end[places]), problem.scale[layer]) for end in (low, high))
                for layer, places in enumerate((places_u, places_v))]  # fmt: skip
        c = [_scaled(Range(end[places_c]), problem.scale[1]) if problem.bias else Range(zeros(outputs)) for end in (low, high)]
        rows = [tuple(float(x[p]) for p in (*places_u[j], *places_v[j]) for x in (low, high)) for j in range(m)]
        return Units(
            (ends[0][0], ends[0][1]),
            (ends[1][0], ends[1][1]),
            (c[0], c[1]),
            [rows.index(row) for row in rows],
            problem.activations[0] in ("tanh", "identity"),
        )

    def others(self, unit: int) -> list[int]:
        """All units but one."""
        return [m for m in range(len(self.kinds)) if m != unit]

    def own(self, unit: int) -> tuple[Wide, Wide]:
        """Ends (D + K,) of a unit's (u, v); v_1 >= 0 only, where the rest follows from (u, v) -> (-u, -v)."""
        low = np.concatenate([self.u[0].lo[unit], self.v[0].lo[unit]])
        high = np.concatenate([self.u[1].hi[unit], self.v[1].hi[unit]])
        if self.odd and bool((low == -high).all()):
            low[self.u[0].lo.shape[1]] = 0.0
        return low, high

    def twin_choices(self, unit: int) -> list[tuple[Range, Range]] | None:
        """((number of others) v, c), (K,) each, for all corners; None if the others are not alike, or there are none."""
        others = self.others(unit)
        if not others or len({self.kinds[m] for m in others}) > 1:
            return None
        first, many = others[0], Range(wide(float(len(others))))
        low_v, high_v = self.v[0][first], self.v[1][first]
        mirrored = self.odd and bool((self.u[0].lo[first] == -self.u[1].hi[first]).all())
        corners: list[Range] = []
        for v in _corners(low_v, high_v):
            if not (mirrored and any((v.lo == -w.hi).all() and (v.hi == -w.lo).all() for w in corners)):
                corners.append(v)
        return [(v * many, c) for v in corners for c in _corners(*self.c)]


def _scaled(x: Range, scale: Range) -> Range:
    return x if scale.lo == scale.hi == 1.0 else x * scale


def _corners(low: Range, high: Range) -> list[Range]:
    ends = [[low[k]] if low.lo[k] == high.lo[k] and low.hi[k] == high.hi[k] else [low[k], high[k]] for k in range(low.lo.size)]
    return [stacked(list(choice), 0) for choice in itertools.product(*ends)]


def twin_rest(problem: UnitProblem, low: Wide, high: Wide, amplitude: Range, offset: Range) -> Rest:
    """A v phi(u'.z) + c for u' in cells [low, high] (B, D), amplitudes and offsets (B, K)."""
    centre, half = middle_and_radius(Range(low, high))
    inputs = Range(problem.z)[None]
    s0 = dot(Range(centre)[:, None, :], inputs, 2)
    ds = dot(Range(half)[:, None, :], Range(np.abs(problem.z))[None], 2).hi
    s = s0 + centred(ds)
    shift, rest = middle_and_radius(one_sided(_HALF * Range(ds).square() * problem.phi(2, s)))
    plain_middle, plain = middle_and_radius(problem.phi(0, s))
    taylor = rest < plain
    at = problem.phi(0, s0) + Range(shift)
    value = Range(np.where(taylor, at.lo, plain_middle), np.where(taylor, at.hi, plain_middle))
    slope = problem.phi(1, s0) * Range(np.where(taylor, wide(1.0), wide(0.0)))
    a = amplitude[:, None, :]
    step = (slope[:, :, None] * Range(half)[:, None, :]) * inputs
    columns = step[:, :, None, :] * a[:, :, :, None]
    slack = up(a.size() * np.where(taylor, rest, plain)[:, :, None])
    groups = np.full(problem.dim, -1)
    return Rest(value[:, :, None] * a + offset[:, None, :], columns, slack, groups)


def range_rest(problem: UnitProblem, units: Units, unit: int) -> Rest:
    """The other units' ranges over the box (B = 1)."""
    others = units.others(unit)
    u, v = (Range(low.lo[others], high.hi[others]) for low, high in (units.u, units.v))
    s = (Range(problem.z)[:, None, :] * u[None]).sum(-1)
    total = (problem.phi(0, s)[:, :, None] * v[None]).sum(1) + Range(units.c[0].lo, units.c[1].hi)[None]
    value, slack = middle_and_radius(total)
    count = (1, *value.shape)
    return Rest(Range(value.reshape(count)), Range(zeros((*count, 0))), slack.reshape(count), np.zeros(0, dtype=np.int64))


def _centre(units: Units, others: list[int]) -> tuple[tuple[Wide, Wide], tuple[Wide, Wide]]:
    """Middles and half widths of (u, v)."""
    u = middle_and_radius(Range(units.u[0].lo[others], units.u[1].hi[others]))
    v = middle_and_radius(Range(units.v[0].lo[others], units.v[1].hi[others]))
    return (u[0], v[0]), (u[1], v[1])


def box_rest(problem: UnitProblem, units: Units, unit: int) -> Rest:
    """The other units' affine model over the box (B = 1)."""
    others = units.others(unit)
    (u0, v0), (hu, hv) = _centre(units, others)
    z, (n, dim), outputs, m = Range(problem.z), problem.z.shape, problem.outputs, len(others)
    c0, hc = middle_and_radius(Range(units.c[0].lo, units.c[1].hi))
    s0 = (z[:, None, :] * Range(u0)[None]).sum(-1)  # (n, m)
    ds = (Range(np.abs(problem.z))[:, None, :] * Range(hu)[None]).sum(-1).hi
    s = s0 + centred(ds)
    at, slope = problem.phi(0, s0), problem.phi(1, s0)
    shift, own_rest = middle_and_radius(one_sided(_HALF * Range(ds).square() * problem.phi(2, s)))
    kappa, common, common_rest = _common_slopes(problem, s0, s, at, slope, Range(shift), own_rest, ds)
    # Middles and columns (n, K) with what they are not known to.
    value = ((at + Range(shift))[:, :, None] * Range(v0)[None]).sum(1) + Range(c0)[None]
    slack = (Range(own_rest)[:, :, None] * Range(np.abs(v0))[None] + Range(common_rest)[:, :, None] * Range(hv)[None]).sum(1).hi
    columns: list[Range] = []
    none = Range(zeros(n))

    def one_output(k: int, column: Range) -> Range:
        return stacked([column if j == k else none for j in range(outputs)], -1)

    for k in range(outputs):
        products = (Range(kappa)[:, None] * Range(hv)[:, k, None] * Range(hu)).sum(0)  # (D,)
        columns += [one_output(k, z[:, d] * products[d]) for d in range(dim)]
        columns.append(one_output(k, Range(np.broadcast_to(hc[k], n))))
    for j in range(m):
        for d in range(dim):
            step = slope[:, j] * z[:, d] * Range(hu[j, d])
            columns.append(step[:, None] * Range(v0[j])[None])
        columns += [one_output(k, common[:, j] * Range(hv[j, k])) for k in range(outputs)]
    kept, more = _merged(columns, (n, outputs))
    slack = up(slack + more)
    groups = np.full(len(kept), -1)
    stack = stacked(kept, -1) if kept else Range(zeros((n, outputs, 0)))
    return Rest(value[None], stack[None], slack[None], groups)


def _common_slopes(problem: UnitProblem, s0: Range, s: Range, at: Range, slope: Range, shift: Range, own_rest: Wide, ds: Wide
                   ) -> tuple[Wide, Range, Wide]:  # fmt: skip
    """Kappa (m,) with phi(s) in common + kappa (s - s0) ± rest over the data (n, m)."""
    slopes = problem.phi(1, s)
    lowest, highest = slopes.lo.min(axis=0), slopes.hi.max(axis=0)
    candidates = [lowest + (highest - lowest) * (step / (_SLOPES - 1)) for step in range(_SLOPES)]
    candidates.append((0.5 * (slope.lo + slope.hi)).mean(axis=0))
    ends = [s.lo + (s.hi - s.lo) * (step / _PIECES) for step in range(_PIECES)] + [s.hi]
    pieces = [Range(np.minimum(a, b), np.maximum(a, b)) for a, b in pairwise(ends)]
    values = [problem.phi(0, Range(end)) for end in ends]
    # Between its ends a function is within width²/8 sup |phi''| of the chord.
    bent = [(Range(up(p.hi - p.lo)).square() * problem.phi(2, p) * Range(wide(0.125))).size() for p in pieces]
    best: tuple[Wide, Range, Wide] | None = None
    for kappa in candidates:
        line = Range(kappa)[None]
        apart = [value - line * (Range(end) - s0) for value, end in zip(values, ends, strict=True)]
        parts = [a.hull(b) + centred(bend) for (a, b), bend in zip(pairwise(apart), bent, strict=True)]
        middle, rest = middle_and_radius(reduce(Range.hull, parts))
        # From the slope at the datum.
        other = up(own_rest + ((line - slope) * Range(ds)).size())
        near = other < rest
        start = at + shift
        common = Range(np.where(near, start.lo, middle), np.where(near, start.hi, middle))
        rest = np.where(near, other, rest)
        if best is None:
            best = (np.broadcast_to(kappa, lowest.shape).copy(), common, rest)
            continue
        better = rest.sum(axis=0) < best[2].sum(axis=0)
        best = (
            np.where(better, kappa, best[0]),
            Range(np.where(better, common.lo, best[1].lo), np.where(better, common.hi, best[1].hi)),
            np.where(better, rest, best[2]),
        )
    assert best is not None
    return best


def _merged(columns: list[Range], shape: tuple[int, int]) -> tuple[list[Range], Wide]:
    """Few columns: parallel ones added up, small ones and what is not known moved to the slack."""
    slack = zeros(shape)
    kept: list[Wide] = []
    rough: list[npt.NDArray[np.float64]] = [(0.5 * (c.lo + c.hi)).astype(np.float64) for c in columns]
    for place in sorted(range(len(columns)), key=lambda k: -float(np.abs(rough[k]).max(initial=0.0))):
        column = rough[place]
        largest = float(np.abs(column).max(initial=0.0))
        if largest == 0.0 and not columns[place].size().any():
            continue
        where = np.unravel_index(int(np.abs(column).argmax()), column.shape)
        for i, other in enumerate(kept):
            if other[where] == 0.0:
                continue
            factor = column[where] / float(other[where])
            left = columns[place] - Range(wide(factor)) * Range(other)
            if (left.size() <= 1e-13 * largest).all():
                kept[i], radius = middle_and_radius(Range(other) * Range(wide(1.0 + abs(factor))))
                slack = up(up(slack + left.size()) + radius)
                break
        else:
            own, radius = middle_and_radius(columns[place])
            slack = up(slack + radius)
            kept.append(own)
    kept.sort(key=lambda c: -float(length(np.abs(c).reshape(-1))))
    for small in kept[_SYMBOLS:]:
        slack = up(slack + np.abs(small))
    return [Range(large) for large in kept[:_SYMBOLS]], slack
