"""Ellipsoids around what other hidden units add to one output, proved anew for checking certificates.

A change d = (x, y) of a unit's parameters changes the outputs by f(d) = (v0 + kv y) phi(s0 + ku z.x) - v0 phi(s0), an entry per
datum. A file holds matrices A and numbers t, g and r for which |A f(d)|² <= t² (|d|² + g) for |d| <= r is shown here, by Taylor's
theorem on boxes that are cut until it is. With C near A^-1 then f = t C e sqrt(|d|² + g) - (C A - I) f with |e| <= 1, and for
several units and the output bias c, in any direction w,

    sum_m |t_m C_m'w| sqrt(|d_m|² + g) + |kv w.1| |c| <= |(t_1 C_1, …, kv 1)'w| sqrt(rho² + m g),   sum |d_m|² + c² <= rho².
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

import numpy as np
import numpy.typing as npt

from .reference_hessian import Problem
from .reference_interval import Range, Wide, dot, down, length, matmul, middle_and_radius, up, wide
from .reference_unit_block import UnitProblem, stacked
from .unit_cover import JointSets

FloatArray = npt.NDArray[np.float64]

_HALF, _TWO, _THIRD, _ONE = (Range(wide(1.0)) / Range(wide(k)) for k in (2.0, 0.5, 3.0, 1.0))
#: What is proved instead of t, in units of it.
_MORE = 1.005
#: Seconds that a datum of a box takes, roughly.
_BOX_SECONDS = 6e-5
#: Boxes that one proof may take, and numbers of one batch.
_MOST, _NUMBERS = 400_000, 400_000


def ellipsoid_seconds(sets: JointSets, dim: int) -> float:
    """Time that their proofs take in long doubles, roughly."""
    ranges, units, n = sets.matrices.shape[:3]
    return float(ranges * units * n) * 4.0 * 8.0 ** (dim + 1) * _BOX_SECONDS


@dataclass(frozen=True)
class Ellipsoid:
    """C (n, n) as in f = C e sqrt(|d|² + g) ± missing."""

    columns: Range
    missing: Wide


class JointProof:
    """Ellipsoids of all hidden units, proved when they are asked for."""

    def __init__(self, one: UnitProblem, problem: Problem, units: tuple[Range, Range], sets: JointSets, deadline: float) -> None:
        self._one, self._units, self._sets, self._deadline = one, units, sets, deadline
        self._scale = problem.scale[0], problem.scale[1]
        self._known: dict[tuple[int, bytes], bool] = {}
        self.broken = False

    @property
    def rooms(self) -> FloatArray:
        """How large the changes may be, range by range."""
        return self._sets.rooms

    def floor(self, k: int) -> Range:
        """The g of a range."""
        return Range(wide(self._sets.floors[k]))

    def ellipsoid(self, k: int, unit: int) -> Ellipsoid | None:
        """That of a unit, if it is proved."""
        # a little more than the file says takes far fewer boxes
        matrix, t = self._sets.matrices[k, unit], _MORE * float(self._sets.scales[k, unit])
        u, v = self._units[0][unit], self._units[1][unit, 0]
        own = np.concatenate([u.lo, u.hi, v.lo[None], v.hi[None]]).astype(np.float64)
        key = k, np.concatenate([own, matrix.ravel(), [t]]).tobytes()
        if key not in self._known:
            self._known[key] = self._holds(k, matrix, t, u, v)
        return _ellipsoid(matrix, t, self._sets.rooms[k], self.floor(k)) if self._known[key] else None

    def _holds(self, k: int, matrix: FloatArray, t: float, u: Range, v: Range) -> bool:
        size = self._one.dim + 1
        room = float(self._sets.rooms[k])
        work = [np.stack([np.full((1, size), -room), np.full((1, size), room)], axis=1)]
        change = _Change(self._one, self._scale, u, v)
        batch = max(16, _NUMBERS // (size * size * len(self._one.z)))
        tested = 0
        while work:
            if monotonic() > self._deadline or tested > _MOST:
                return False
            boxes = work.pop()
            tested += len(boxes)
            proved, violated, side = _tested(change, matrix, t, self.floor(k), room, boxes)
            if violated:
                self.broken = True
                return False
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


def _ellipsoid(matrix: FloatArray, t: float, room: float, floor: Range) -> Ellipsoid | None:
    n = len(matrix)
    try:
        inverse = Range(wide(np.linalg.inv(matrix)))
    except np.linalg.LinAlgError:
        return None
    defect = matmul(inverse, Range(wide(matrix))) - Range(wide(np.eye(n)))
    off, size = (Range(length(x.size().reshape(1, -1))[0]) for x in (defect, inverse))
    if not off.hi < 0.5:
        return None
    reach = (Range(wide(room)).square() + floor).root()
    most = Range(wide(t)) * reach * size / (_ONE - off)
    return Ellipsoid(inverse * Range(wide(t)), (Range(length(defect.size())) * most).hi)


class _Change:
    """F over boxes: coefficients of its Taylor polynomial at their middles, and a bound of the rest."""

    def __init__(self, one: UnitProblem, scale: tuple[Range, Range], u: Range, v: Range) -> None:
        self._one, (self._ku, self._kv) = one, scale
        self._u, self._v = u, v
        self._z = Range(one.z)
        self.inputs = one.z.astype(np.float64)
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


def _tested(change: _Change, matrix: FloatArray, t: float, floor: Range, room: float, boxes: FloatArray
            ) -> tuple[npt.NDArray[np.bool_], bool, npt.NDArray[np.int64]]:  # fmt: skip
    """Which boxes (B, 2, P) have |A f|² <= t² (|d|² + floor), whether a point inside shows the contrary, and where to cut."""
    low, high = boxes[:, 0], boxes[:, 1]
    centre = 0.5 * (low + high)
    half = np.maximum(up(wide(high) - wide(centre)), up(wide(centre) - wide(low)))
    nearest = np.maximum(np.maximum(low, -high), 0.0)
    outside = np.asarray(Range(wide(nearest)).square().sum(1).lo > Range(wide(room)).square().hi)
    value, slope, second, rest = change.pieces(centre, half)
    size, n = slope.lo.shape[1:]
    left, right = change.places
    h = Range(half)
    pairs = h[:, left] * h[:, right] * Range(wide(np.where(left == right, 1.0, 2.0)))
    # What the middles leave out joins the rest.
    (m0, r0), (m1, r1), (m2, r2) = (middle_and_radius(x) for x in (value, slope, second))
    rest = up(rest + up(r0 + (Range(r1) * h[..., None]).sum(1).hi))
    rest = up(rest + (Range(r2) * pairs[..., None]).sum(1).hi)
    turned = Range(wide(matrix.T))
    q0 = matmul(Range(m0), turned)
    q1 = matmul(Range(m1).reshape(-1, n), turned).reshape(len(boxes), size, n)
    q2 = matmul(Range(m2).reshape(-1, n), turned).reshape(len(boxes), left.size, n)
    e = Range(length(matmul(Range(rest), Range(wide(np.abs(matrix.T)))).hi))
    square_t = Range(wide(t)).square()
    middle = Range(wide(centre))
    base = q0.square().sum(1) - square_t * (middle.square().sum(1) + floor)
    along = Range((dot(q0[:, None], q1, 2) - square_t * middle).size()) * h * _TWO
    bends = dot(q1[:, left], q1[:, right], 2) + dot(q0[:, None], q2, 2)
    alone = left == right
    grown = np.where(alone, np.maximum((bends - square_t).hi, wide(0.0)), bends.size())
    # The last parameter alone has no second derivative.
    last_one = Range(np.maximum((dot(q1[:, -1], q1[:, -1], 1) - square_t).hi, wide(0.0))) * h[:, -1].square()
    across = (Range(grown) * pairs).sum(1) + last_one
    first = (Range(length(q1.size())) * h).sum(1)
    lengths = Range(length(q2.size())) * pairs
    curved = lengths.sum(1) * _HALF
    more = curved * (first * _TWO + curved) + e * ((first + curved) * _TWO + e)
    sharp = dot(Range(matmul(q0, Range(wide(matrix))).size()), Range(rest), 1).hi
    plain = (Range(length(q0.size())) * e).hi
    last = more + _TWO * Range(np.minimum(sharp, plain))
    worst = (base + along.sum(1) + across + last).hi
    # A violation at a middle inside the ball, with what the middles of f leave out.
    inside = np.asarray(middle.square().sum(1).hi < Range(wide(room)).square().lo)
    rounding = Range(length(matmul(Range(r0), Range(wide(np.abs(matrix.T)))).hi))
    contrary = (base - rounding * (_TWO * Range(length(q0.size())) + rounding)).lo
    violated = bool((inside & np.asarray(contrary > 0.0)).any())
    proved = outside | np.asarray(worst <= 0.0)
    shares = along.hi.astype(np.float64)
    shares[:, -1] += last_one.hi.astype(np.float64)
    kinks = (Range(grown) * pairs + lengths * (first * _TWO + curved)[:, None]).hi.astype(np.float64)
    for k, (p, q) in enumerate(zip(left, right, strict=True)):
        shares[:, p] += kinks[:, k]
        shares[:, q] += kinks[:, k]
    reach = np.append(np.abs(change.inputs).mean(axis=0), 0.1) * half.astype(np.float64)
    shares += reach / reach.sum(axis=1, keepdims=True) * last.hi.astype(np.float64)[:, None]
    return proved, violated, np.nan_to_num(shares, nan=1e300, posinf=1e300).argmax(axis=1)
