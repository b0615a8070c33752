"""What one hidden unit's change of weights adds to one output, over boxes; for checking certificates.

A change d = (x, y) of a unit's parameters changes the outputs by f(d) = (v0 + kv y) phi(s0 + ku z.x) - v0 phi(s0), an entry per
datum. That |A f|² + (s w.f)² <= p |d|² + q is shown on boxes by Taylor's theorem, the constant, linear and quadratic terms of
both sides each as a whole, so that they cancel where an ellipsoid touches; boxes are cut until it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .reference_interval import Range, Wide, dot, down, length, matmul, middle_and_radius, up, wide
from .reference_unit_block import UnitProblem, stacked

FloatArray = npt.NDArray[np.float64]

_HALF, _TWO, _THIRD = (Range(wide(1.0)) / Range(wide(k)) for k in (2.0, 0.5, 3.0))
#: Boxes that one proof may take, and numbers of one batch.
_MOST, _NUMBERS = 400_000, 400_000


@dataclass(frozen=True)
class Local:
    """Of boxes (B, P): middles and halves; A f at the middles, a bound of its error, w.f, and a bound of how far that moves."""

    middle: FloatArray
    half: FloatArray
    at: Range  # (B, n)
    rounding: Range  # (B,)
    extra: Range  # (B,)
    moved: Wide  # (B,)


@dataclass(frozen=True)
class Side:
    """Over boxes (B,): |A f|² + (scale w.f)² <= pull |d|² + rest is enough."""

    pull: Range
    rest: Range
    scale: Range


class Claim(Protocol):
    """What is to be shown for |d| <= room."""

    matrix: FloatArray  # A
    room: float
    row: Range  # w (n,)

    def side(self, here: Local) -> Side:
        """What has to be shown on boxes."""

    def contrary(self, here: Local) -> npt.NDArray[np.bool_]:
        """Where it does not hold at a middle."""


def holds(change: Change, claim: Claim, deadline: float) -> bool | None:
    """Whether it is proved; None if there is a point where it does not hold."""
    size = change.size
    work = [np.stack([np.full((1, size), -claim.room), np.full((1, size), claim.room)], axis=1)]
    batch = max(16, _NUMBERS // (size * size * len(change.inputs)))
    count = 0
    while work:
        if monotonic() > deadline or count > _MOST:
            return False
        boxes = work.pop()
        count += len(boxes)
        proved, violated, side = on_boxes(change, claim, boxes)
        if violated:
            return None
        boxes, side = boxes[~proved], side[~proved]
        if not len(boxes):
            continue
        rows = np.arange(len(side))
        middle = 0.5 * (boxes[rows, 0, side] + boxes[rows, 1, side])
        below, above = boxes.copy(), boxes.copy()
        below[rows, 1, side] = above[rows, 0, side] = middle
        both = np.concatenate([below, above])
        work += [both[begin : begin + batch] for begin in range(0, len(both), batch)]
    return True


class Change:
    """The change f over boxes: coefficients of its Taylor polynomial at their middles, and a bound of the rest."""

    def __init__(self, one: UnitProblem, scale: tuple[Range, Range], u: Range, v: Range) -> None:
        self._one, (self._ku, self._kv) = one, scale
        self._u, self._v = u, v
        self._z = Range(one.z)
        self.inputs = one.z.astype(np.float64)
        self.size = one.dim + 1
        #: How far each parameter moves f, roughly.
        self.reach = np.append(np.abs(self.inputs).mean(axis=0), 0.1)
        self._at = one.phi(0, dot(self._z, u[None], 1))[None]

    @property
    def places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The pairs of parameters whose second derivatives are not zero, each once."""
        dim = self._one.dim
        first, last = np.triu_indices(dim)
        return np.concatenate([first, np.arange(dim)]), np.concatenate([last, np.full(dim, dim)])

    def pieces(self, centre: FloatArray, half: Wide) -> tuple[Range, Range, Range, Wide]:
        """F (B, n), its slopes (B, P, n) and second derivatives (B, S, n) at `places`, and the rest (B, n)."""
        one, dim, ku, kv = self._one, self._one.dim, self._ku, self._kv
        x, y = Range(wide(centre[:, :dim])), Range(wide(centre[:, dim:]))
        s = dot(self._u[None, None] + ku * x[:, None], self._z[None], 2)
        turn = dot(ku * Range(half[:, None, :dim]), Range(np.abs(one.z))[None], 2).hi
        a = [one.phi(order, s) for order in range(3)]
        over = Range(down(s.lo - turn), up(s.hi + turn))
        bent, third = (Range(one.phi(order, over).size()) for order in (2, 3))
        v, step = self._v + kv * y, Range((kv * Range(half[:, dim:])).hi)
        value = v * a[0] - self._v * self._at
        flat = v * a[1] * ku
        slopes = [flat * self._z[None, :, d] for d in range(dim)] + [a[0] * kv]
        bend, mixed = v * a[2] * ku.square(), a[1] * (ku * kv)
        second = [bend * self._z[None, :, d] * self._z[None, :, e] for d in range(dim) for e in range(d, dim)]
        second += [mixed * self._z[None, :, d] for d in range(dim)]
        way = Range(turn)
        whole = Range(up(v.size() + step.hi))
        rest = whole * third * way.square() * way * _HALF * _THIRD + step * bent * way.square() * _HALF
        return value, stacked(slopes, 1), stacked(second, 1), rest.hi


def on_boxes(change: Change, claim: Claim, boxes: FloatArray
             ) -> tuple[npt.NDArray[np.bool_], bool, npt.NDArray[np.int64]]:  # fmt: skip
    """For which boxes (B, 2, P) the claim is shown, whether a point inside shows the contrary, and where to cut."""
    low, high = boxes[:, 0], boxes[:, 1]
    centre = 0.5 * (low + high)
    half = np.maximum(up(wide(high) - wide(centre)), up(wide(centre) - wide(low)))
    nearest = np.maximum(np.maximum(low, -high), 0.0)
    outside = np.asarray(Range(wide(nearest)).square().sum(1).lo > Range(wide(claim.room)).square().hi)
    value, slope, second, rest = change.pieces(centre, half)
    size, n = slope.lo.shape[1:]
    left, right = change.places
    h = Range(half)
    pairs = h[:, left] * h[:, right] * Range(wide(np.where(left == right, 1.0, 2.0)))
    # What the middles leave out joins the rest.
    (m0, r0), (m1, r1), (m2, r2) = (middle_and_radius(x) for x in (value, slope, second))
    rest = up(rest + up(r0 + (Range(r1) * h[..., None]).sum(1).hi))
    rest = up(rest + (Range(r2) * pairs[..., None]).sum(1).hi)
    # A f with w.f as its last entry.
    turn = np.concatenate([wide(claim.matrix), claim.row.lo[None]]), np.concatenate([wide(claim.matrix), claim.row.hi[None]])
    rows = Range(wide(turn[0]), wide(turn[1]))
    turned, sizes = Range(rows.lo.T, rows.hi.T), Range(rows.size().T)
    q0 = matmul(Range(m0), turned)
    q1 = matmul(Range(m1).reshape(-1, n), turned).reshape(len(boxes), size, n + 1)
    q2 = matmul(Range(m2).reshape(-1, n), turned).reshape(len(boxes), left.size, n + 1)
    blur = Range(matmul(Range(rest), sizes).hi)
    rounding = Range(length(matmul(Range(r0), sizes).hi[:, :-1]))
    moved = (Range(q1.size()[..., -1]) * h).sum(1) + (Range(q2.size()[..., -1]) * pairs).sum(1) * _HALF + blur[:, -1]
    here = Local(centre, half.astype(np.float64), q0[:, :-1], rounding, q0[:, -1], moved.hi)
    side = claim.side(here)
    q0, q1, q2, blur = (_with_last(q, side.scale) for q in (q0, q1, q2, blur))
    e = Range(length(blur.hi))
    middle, pull = Range(wide(centre)), side.pull[:, None]
    base = q0.square().sum(1) - side.pull * middle.square().sum(1) - side.rest
    along = Range((dot(q0[:, None], q1, 2) - pull * middle).size()) * h * _TWO
    bends = dot(q1[:, left], q1[:, right], 2) + dot(q0[:, None], q2, 2)
    same = left == right
    squares = bends[:, same]
    if squares.lo.shape[1] < size:  # the last parameter alone has no second derivative
        own = dot(q1[:, -1], q1[:, -1], 1).reshape(-1, 1)
        squares = Range(np.concatenate([squares.lo, own.lo], 1), np.concatenate([squares.hi, own.hi], 1))
    squares = squares - pull
    alone = _highest(along.hi, (squares * h.square()).hi)
    grown = Range(np.where(same, wide(0.0), bends.size())) * pairs
    first = (Range(length(q1.size())) * h).sum(1)
    lengths = Range(length(q2.size())) * pairs
    curved = lengths.sum(1) * _HALF
    more = curved * (first * _TWO + curved) + e * ((first + curved) * _TWO + e)
    sharp = dot(Range(matmul(_with_last(q0, side.scale), rows).size()), Range(rest), 1).hi
    plain = (Range(length(q0.size())) * e).hi
    last = more + _TWO * Range(np.minimum(sharp, plain))
    worst = (base + Range(alone).sum(1) + grown.sum(1) + last).hi
    proved = outside | np.asarray(worst <= 0.0)
    shares = alone.astype(np.float64)
    kinks = (grown + lengths * (first * _TWO + curved)[:, None]).hi.astype(np.float64)
    for k, (p, q) in enumerate(zip(left, right, strict=True)):
        shares[:, p] += kinks[:, k]
        shares[:, q] += kinks[:, k]
    reach = change.reach * half.astype(np.float64)
    shares += reach / reach.sum(axis=1, keepdims=True) * last.hi.astype(np.float64)[:, None]
    return proved, bool(claim.contrary(here).any()), np.nan_to_num(shares, nan=1e300, posinf=1e300).argmax(axis=1)


def _highest(slope: Wide, square: Wide) -> Wide:
    """Upper bound of slope x + square x² for 0 <= x <= 1, slope >= 0."""
    end = slope >= -2.0 * square
    inside = Range(slope).square() / Range(np.where(end, wide(1.0), -4.0 * square))
    return wide(np.where(end, up(slope + square), inside.hi))


def _with_last(q: Range, scale: Range) -> Range:
    """Entries (B, ..., n + 1) with the last one times the scale (B,)."""
    last = q[..., -1] * (scale if q.lo.ndim == 2 else scale[:, None])
    lo, hi = q.lo.copy(), q.hi.copy()
    lo[..., -1], hi[..., -1] = last.lo, last.hi
    return Range(lo, hi)
