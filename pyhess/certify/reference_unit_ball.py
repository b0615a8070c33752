"""What a ball leaves to the other hidden units and the output bias, derived anew for checking certificates.

A unit at the distance q from its centre leaves rho² = R² - q² to the rest. With effective changes du = ku x, dv = kv y of another
unit and dc = kv t of the output bias, ds = du.z,

    v phi(s) + c = v0 phi(s0) + c0 + (v0 phi'(s0) ds + phi(s0) dv + dc) + v0 phi''(xi)/2 ds² + psi dv ds,

psi = (phi(s) - phi(s0)) / ds. The first-order terms are J delta with |delta| <= rho, and J = C V + (rest) with few columns C.
psi = kappa ± dev for one kappa, and kappa sum dv du' = kappa E with |E| <= ku kv rho²/2; what is left is at most
a |x|² + 2 b |x| |y| <= lambda_max([a, b; b, 0]) (|x|² + |y|²) for every unit.

Where all centres and phi(0) are zero only dc is of first order, and |t|² + 2 |E|/(ku kv) <= rho². With g = |kappa| ku kv the
support function of kappa E and dc together, next to a constant input, is at most that of an ellipsoid with the half-axes
g rho²/2 for the inputs and (g rho² + kv²/g)/2 for the constant, or kv rho where g rho <= kv.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..regions import Ball
from .reference_hessian import Problem
from .reference_interval import Range, Wide, down, length, middle_and_radius, up, wide, zeros
from .reference_unit_alike import AlikeProof, AlikeSet
from .reference_unit_block import Rest, UnitProblem, stacked
from .reference_unit_joint import JointProof
from .reference_unit_rest import Units

FloatArray = npt.NDArray[np.float64]

_HALF, _TWO = Range(wide(0.5)), Range(wide(2.0))
#: Columns of first order, and pieces of the range of ds.
_COLUMNS, _PIECES = 16, 64
#: Activations with phi(0) = 0.
_ZERO = ("identity", "tanh", "gelu")
#: The least room of cells that a set of alike units serves, as a share of its own.
_NEAR = 0.85


@dataclass(frozen=True)
class Model:
    """What the others add, over cells; where ``serves`` is given, over those for which it holds only."""

    rest: Callable[[FloatArray], Rest]
    serves: Callable[[FloatArray], npt.NDArray[np.bool_]] | None = None


@dataclass(frozen=True)
class _Ellipsoid:
    """Columns e x ± (blur x + missing), |e| <= 1, for rho up to the room; x is rho² + floor if ``whole``, or else its root."""

    room: Range
    floor: Range
    columns: Range  # (n, 1, L)
    blur: Wide  # (n, 1)
    missing: Wide  # (n, 1)
    whole: bool

    def over(self, rho: Range) -> tuple[Range, Wide]:
        """Columns (B, n, 1, L) and slack (B, n, 1)."""
        total = rho.square() + self.floor
        x = (total if self.whole else total.root())[:, None, None]
        return self.columns[None] * x[..., None], up((Range(self.blur)[None] * x).hi + self.missing[None])


class BallRest:
    """One unit of a ball and the others."""

    def __init__(self, problem: Problem, one: UnitProblem, region: Ball, unit: int,
                 joint: JointProof | AlikeProof | None = None) -> None:  # fmt: skip
        self._one = one
        units = Units.of(problem, wide(region.center), wide(region.center))
        others = units.others(unit)
        self._radius = wide(region.radius)
        self._square = Range(self._radius).square()
        dim, outputs = one.dim, one.outputs
        self._scale = Range(
            np.concatenate([np.repeat(problem.scale[layer].lo, size) for layer, size in ((0, dim), (1, outputs))]),
            np.concatenate([np.repeat(problem.scale[layer].hi, size) for layer, size in ((0, dim), (1, outputs))]),
        )
        u0, v0 = units.u[0][unit], units.v[0][unit]
        self._centre = Range(np.concatenate([u0.lo, v0.lo]), np.concatenate([u0.hi, v0.hi]))
        self._halved = units.odd and not region.center[_places(problem, unit)].any()
        places = [k for m in others for k in _places(problem, m)]
        zero = bool(others) and not region.center[places].any() and problem.activations[0] in _ZERO
        self._model(problem, (units.u[0][others], units.v[0][others], units.c[0]), zero)
        self._joint = self._ellipsoids(problem, others, joint) if isinstance(joint, JointProof) and others else []
        self._alike = [self._alike_set(found) for found in joint.found] if isinstance(joint, AlikeProof) else []

    @property
    def models(self) -> list[Model]:
        """All that is known of the others."""
        found = [Model(self.ellipsoids, partial(self._fits, max(e.room.lo for e in self._joint)))] if self._joint else []
        found += [Model(partial(self._around, e), partial(self._near, e.room.lo)) for e in self._alike]
        return [*found, Model(self.affine), Model(self.ranges)]

    @property
    def root(self) -> FloatArray:
        """A cell (1, 2, D + K) that contains all that the unit can be; v_1 >= 0 only, where the rest follows by symmetry."""
        reach = (self._scale * self._square.root()).hi
        low, high = _outwards(down(self._centre.lo - reach), up(self._centre.hi + reach))
        if self._halved:
            low[self._one.dim] = 0.0
        return np.stack([low, high])[None]

    def within(self, cells: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """The cells that meet the ball, without what sticks out of it, and which they are."""
        squares = self._distances(cells)
        total = squares.sum(1)
        kept = np.asarray(total.lo <= self._square.hi)
        cells, squares, total = cells[kept], squares[kept], total[kept]
        room = Range(np.maximum((self._square - (total[:, None] - squares)).hi, wide(0.0)))
        reach = (self._scale * room.root()).hi
        low, high = _outwards(down(self._centre.lo - reach), up(self._centre.hi + reach))
        return np.stack([np.maximum(cells[:, 0], low), np.minimum(cells[:, 1], high)], axis=1), kept

    def gained(self, cells: FloatArray) -> FloatArray:
        """The share of the room that a cell at its middle has less than the whole, side by side, roughly."""
        middle = np.repeat(0.5 * (cells[:, :1] + cells[:, 1:]), 2, axis=1)
        square = self._room(cells).square().hi.astype(np.float64)[:, None]
        more = (self._distances(middle).hi - self._distances(cells).lo).astype(np.float64)
        return np.asarray(0.5 * more / (square + 1e-300))

    def _distances(self, cells: FloatArray) -> Range:
        """Squares of the least distances from the centre, in parameters, coordinate by coordinate."""
        ends = wide(cells)
        nearest = np.maximum(np.maximum(down(ends[:, 0] - self._centre.hi), down(self._centre.lo - ends[:, 1])), wide(0.0))
        return (Range(nearest) / self._scale).square()

    def _room(self, cells: FloatArray) -> Range:
        """Rho (B,), rounded up, but to no more than the radius."""
        left = self._square - self._distances(cells).sum(1)
        rho = Range(np.maximum(left.hi, wide(0.0))).root()
        return Range(np.minimum(rho.lo, self._radius), np.minimum(rho.hi, self._radius))

    def _model(self, problem: Problem, centre: tuple[Range, Range, Range], zero: bool) -> None:
        one, (u0, v0, c0) = self._one, centre
        z, (n, dim), outputs, m = Range(one.z), one.z.shape, one.outputs, len(u0.lo)
        ku, kv = problem.scale
        sizes = Range(length(np.abs(one.z)))
        steps = (ku * self._square.root() * sizes).hi
        s0 = (z[:, None, :] * u0[None]).sum(-1)
        s = Range(down(s0.lo - steps[:, None]), up(s0.hi + steps[:, None]))
        at, slope, bend = one.phi(0, s0), one.phi(1, s0), one.phi(2, s).size()
        if zero:
            at, v0 = Range(zeros(at.lo.shape)), Range(zeros(v0.lo.shape))
        self._point = (at[:, :, None] * v0[None]).sum(1) + c0[None] if m else Range(np.zeros((n, outputs))) + c0[None]
        # First order.
        columns: list[Range] = []
        none = Range(zeros((n, m)))
        for d in range(dim):
            turn = slope * z[:, d : d + 1] * ku
            columns.append(stacked([turn * v0[None, :, k] for k in range(outputs)], 1))
        columns += [stacked([at * kv if k == j else none for k in range(outputs)], 1) for j in range(outputs)]
        bias = Range(np.ones((n, 1))) * kv
        last = Range(zeros((n, 1)))
        if problem.bias:
            columns += [stacked([bias if k == j else last for k in range(outputs)], 1) for j in range(outputs)]
        jacobian = Range(np.concatenate([c.lo for c in columns], 2), np.concatenate([c.hi for c in columns], 2))
        self._first, self._blur = _reduced(jacobian)
        rows = Range(length(jacobian.size()))
        # Second order.
        quotient = _quotients(one, s0, steps) if m else Range(zeros((n, 1)))
        kappa, _ = middle_and_radius(Range(quotient.lo.min(), quotient.hi.max()))
        dev = (quotient - Range(kappa)).size()
        factor = (_HALF * ku * kv * sizes)[:, None]
        square = (_HALF * (ku * sizes).square())[:, None]
        bent = [square * Range(bend) * Range(v0[None, :, k].size()) if m else Range(zeros((n, 1))) for k in range(outputs)]
        self._rest = np.stack([_two_by_two(a, Range(dev) * factor).max(axis=1) for a in bent], axis=1)
        whole = np.stack([_two_by_two(a, Range(quotient.size()) * factor).max(axis=1) for a in bent], axis=1)
        share = _HALF * Range(kappa) * ku * kv
        flat = Range(zeros((n, dim)))
        self._second = _each_output([share * z if m else flat for _ in range(outputs)])
        # Ranges: phi as a whole, or both orders.
        values = one.phi(0, s)
        change = (Range((values - at).size())[:, :, None] * Range(v0.size())[None]).sum(1) if m else Range(zeros((n, outputs)))
        largest = (values.square().sum(1) if m else Range(zeros(n))) + Range(wide(1.0 if problem.bias else 0.0))
        self._bounded = (change, (largest.root() * kv)[:, None])
        self._orders = (rows, Range(whole))
        # The origin.
        self._origin = (Range(np.abs(kappa)) * ku * kv, kv) if zero and problem.bias and kappa != 0.0 else None

    def affine(self, cells: FloatArray) -> Rest:
        """Middle, columns in two groups, and slack, with the room that every cell leaves."""
        rho = self._room(cells)
        count, n, outputs = len(cells), *self._point.lo.shape
        square = rho.square()
        second = self._second[None] * square[:, None, None, None]
        slack = (Range(self._rest)[None] * square[:, None, None]).hi
        if self._origin is None:
            first = self._first[None] * rho[:, None, None, None]
            slack = up(slack + (Range(self._blur)[None] * rho[:, None, None]).hi)
            # One symbol alone is in no ball.
            groups = np.repeat([0 if first.lo.shape[3] > 1 else -1, 1], [first.lo.shape[3], second.lo.shape[3]])
        else:
            g, k = self._origin
            axis = Range(longest_axis(g, k, rho))
            inputs = self._one.dim - 1
            kept = [second[..., o * (inputs + 1) : o * (inputs + 1) + inputs] for o in range(outputs)]
            ones = _each_output([Range(np.ones((n, 1)))] * outputs)
            first = ones[None] * axis[:, None, None, None]
            second = Range(np.concatenate([x.lo for x in kept], 3), np.concatenate([x.hi for x in kept], 3))
            groups = np.zeros(first.lo.shape[3] + second.lo.shape[3], dtype=np.int64)
        columns = Range(np.concatenate([first.lo, second.lo], 3), np.concatenate([first.hi, second.hi], 3))
        return Rest(self._repeated(count), columns, slack, groups.astype(np.int64))

    def _ellipsoids(self, problem: Problem, others: list[int], joint: JointProof) -> list[_Ellipsoid]:
        """Of the ranges for which all units have one, the smallest last."""
        n, found = len(self._one.z), []
        for k in np.argsort(-joint.rooms, kind="stable"):
            parts = [joint.ellipsoid(int(k), m) for m in others]
            if any(part is None for part in parts):
                continue
            blocks = [part.columns for part in parts if part is not None]
            if problem.bias:
                blocks.append(Range(np.ones((n, 1))) * problem.scale[1])
            whole = Range(np.concatenate([b.lo for b in blocks], 1), np.concatenate([b.hi for b in blocks], 1))
            columns, blur = _reduced(whole.reshape(n, 1, whole.lo.shape[1]))
            missing = zeros(n)
            for part in parts:
                if part is not None:
                    missing = up(missing + part.missing)
            floor = joint.floor(int(k)) * Range(wide(float(len(others))))
            found.append(_Ellipsoid(Range(wide(joint.rooms[k])), floor, columns, blur, missing[:, None], whole=False))
        return found

    def _alike_set(self, found: AlikeSet) -> _Ellipsoid:
        n = len(self._one.z)
        columns, blur = _reduced(found.around.columns.reshape(n, 1, n))
        return _Ellipsoid(found.room, found.floor, columns, blur, found.around.missing[:, None], whole=True)

    def _fits(self, room: Wide, cells: FloatArray) -> npt.NDArray[np.bool_]:
        return np.asarray(self._room(cells).hi <= room)

    def _near(self, room: Wide, cells: FloatArray) -> npt.NDArray[np.bool_]:
        """Of cells that fit, those for which there will be no smaller set."""
        return self._fits(room, cells) & np.asarray(self._room(cells).hi >= _NEAR * room)

    def _around(self, e: _Ellipsoid, cells: FloatArray) -> Rest:
        """All other units and the output bias in an ellipsoid, over cells that fit it."""
        columns, slack = e.over(self._room(cells))
        return Rest(self._repeated(len(cells)), columns, slack, np.zeros(columns.lo.shape[3], dtype=np.int64))

    def ellipsoids(self, cells: FloatArray) -> Rest:
        """All other units and the output bias in one ellipsoid; no knowledge where the room is too large."""
        rho, one = self._room(cells), self._one
        count, n = len(cells), len(one.z)
        size = max(e.columns.lo.shape[2] for e in self._joint)
        lo, hi = zeros((count, n, 1, size)), zeros((count, n, 1, size))
        slack = wide(np.full((count, n, 1), np.nan))
        for e in self._joint:
            fits = np.flatnonzero(rho.hi <= e.room.lo)
            if not fits.size:
                continue
            columns, slack[fits] = e.over(rho[fits])
            width = columns.lo.shape[3]
            lo[fits], hi[fits] = zeros((fits.size, n, 1, size)), zeros((fits.size, n, 1, size))
            lo[fits, :, :, :width], hi[fits, :, :, :width] = columns.lo, columns.hi
        return Rest(self._repeated(count), Range(lo, hi), slack, np.zeros(size, dtype=np.int64))

    def ranges(self, cells: FloatArray) -> Rest:
        """No columns: ranges for every datum and output."""
        rho = self._room(cells)
        part = rho[:, None, None]
        change, steep = self._bounded
        rows, whole = self._orders
        slack = np.minimum((change[None] + steep[None] * part).hi, (rows[None] * part + whole[None] * part.square()).hi)
        if self._origin is not None:
            # |kappa| dv du.z + dc with the largest quotient of the datum: (g rho² + kv²/g)/2.
            g = _TWO * whole
            positive = g.lo > 0.0
            divisor = Range(np.where(positive, g.lo, 1.0), np.where(positive, g.hi, 1.0))
            both = (whole[None] * part.square() + (_HALF * self._origin[1].square() / divisor)[None]).hi
            slack = np.where(positive[None], np.minimum(slack, both), slack)
        none = Range(zeros((*slack.shape, 0)))
        return Rest(self._repeated(len(cells)), none, slack, np.zeros(0, dtype=np.int64))

    def _repeated(self, count: int) -> Range:
        shape = (count, *self._point.lo.shape)
        return Range(wide(np.broadcast_to(self._point.lo, shape)), wide(np.broadcast_to(self._point.hi, shape)))


def longest_axis(g: Range, k: Range, rho: Range) -> Wide:
    """The half-axis of the constant: with g rho²/2 across, for all |n| = 1 the ellipsoid's support function is at least
    g (rho² - t²)/2 + k t |n_0|, 0 <= t <= rho.
    """
    long, short = _HALF * (g * rho.square() + k.square() / g), k * rho
    return wide(np.where((g * rho).hi <= k.lo, short.hi, long.hi))


def _places(problem: Problem, unit: int) -> list[int]:
    """The parameters of a hidden unit."""
    d, m, outputs = problem.widths
    bias = [problem.bias_at[0] + unit] if problem.bias else []
    return [*(problem.weight_at[0] + d * unit + np.arange(d)), *bias, *(problem.weight_at[1] + m * np.arange(outputs) + unit)]


def _outwards(low: Wide, high: Wide) -> tuple[FloatArray, FloatArray]:
    """Doubles below and above."""
    return np.nextafter(low.astype(np.float64), -np.inf), np.nextafter(high.astype(np.float64), np.inf)


def _two_by_two(a: Range, b: Range) -> Wide:
    """Largest eigenvalue of [a, b; b, 0] for a, b >= 0."""
    half = _HALF * a
    return (half + (half.square() + b.square()).root()).hi


def _each_output(columns: list[Range]) -> Range:
    """Columns (n, L) of every output as (n, K, K L), zero for the others."""
    n, width = columns[0].lo.shape
    lo, hi = (zeros((n, len(columns), len(columns) * width)) for _ in range(2))
    for k, column in enumerate(columns):
        lo[:, k, k * width : (k + 1) * width], hi[:, k, k * width : (k + 1) * width] = column.lo, column.hi
    return Range(lo, hi)


def _reduced(jacobian: Range) -> tuple[Range, Wide]:
    """Few columns C (n, K, L) and a slack (n, K): J delta = C eta ± slack for |delta| <= 1, |eta| <= 1."""
    n, outputs, size = jacobian.lo.shape
    flat = jacobian.reshape(n * outputs, size)
    middle = (0.5 * (flat.lo + flat.hi)).astype(np.float64)
    left, values, right = np.linalg.svd(middle, full_matrices=False)
    count = min(_COLUMNS, int((values > 1e-13 * values[0]).sum())) if values.size and values[0] > 0.0 else 0
    columns, turn = Range(wide(left[:, :count] * values[:count])), Range(wide(right[:count]))
    if not count:
        return Range(zeros((n, outputs, 0))), length(flat.size()).reshape(n, outputs)
    missing = [flat[:, k] - (columns * turn[None, :, k]).sum(1) for k in range(size)]
    slack = length(stacked(missing, 1).size())
    gram = (turn[:, None, :] * turn[None, :, :]).sum(-1) - Range(wide(np.eye(count)))
    grown = up(1.0 + length(gram.size().reshape(1, -1))[0])
    return (columns * Range(grown)).reshape(n, outputs, count), slack.reshape(n, outputs)


def _quotients(one: UnitProblem, s0: Range, steps: Wide) -> Range:
    """Range (n, m) of (phi(s) - phi(s0)) / (s - s0) over |s - s0| <= steps (n,): means of slopes, piece by piece."""
    found: Range | None = None
    at = one.phi(0, s0)
    for sign in (-1.0, 1.0):
        mean: Range | None = None
        ends = [Range(wide(sign * k / _PIECES)) * Range(steps)[:, None] for k in range(_PIECES + 1)]
        for k, (near, far) in enumerate(pairwise(ends)):
            slope = one.phi(1, (s0 + near).hull(s0 + far))
            # Between the mean up to the near end and that with a share of at most 1/(k + 1) of this piece's.
            here = slope if mean is None else mean.hull(mean + (slope - mean) / Range(wide(k + 1.0)))
            found = here if found is None else found.hull(here)
            mixed = here if mean is None else mean + (slope - mean) / Range(wide(k + 1.0))
            rise = (one.phi(0, s0 + far) - at) * Range(wide(sign)) / (Range(wide(sign)) * far)
            known = np.isfinite(rise.lo) & np.isfinite(rise.hi)
            mean = Range(
                np.where(known, np.maximum(mixed.lo, rise.lo), mixed.lo), np.where(known, np.minimum(mixed.hi, rise.hi), mixed.hi)
            )
    assert found is not None
    return found
