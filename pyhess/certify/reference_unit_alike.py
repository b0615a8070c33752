"""Ellipsoids around what hidden units that are all alike add to one output, proved anew for checking certificates.

Each of the M other units takes c = C/sqrt(M) of the output bias's change C, and a unit's change d with its c adds
F = f(d) + kv c 1/sqrt(M). A file holds A, t, g and r for which |A F| <= t (|d|² + c² + g) for |d|² + c² <= r² is shown here. Then
all units and the bias together add sum F = (A^-1) t (rho² + M g) e with |e| <= 1, where sum |d|² + C² <= rho² <= r².

With R = |d|² + c², a = kv A 1/sqrt(M), w = A'a and any number Y > 0

    (R + g)² >= 2 Y (R + g) - k (2 Y - k),      k = Y, or the lesser r² + g as long as R <= r²;
    |A f + c a|² <= |A f|² + |a|² c² + lam c² + (w.f)²/lam      for any lam > 0,

so with lam = 2 t² Y - |a|² it is enough that |A f|² + (w.f)²/lam <= 2 t² Y (|d|² + g) - t² k (2 Y - k): boxes of d alone are cut,
with a Y of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .reference_hessian import Problem
from .reference_interval import Range, matmul, wide
from .reference_unit_block import UnitProblem
from .reference_unit_change import Change, Local, Side, holds
from .reference_unit_joint import MORE, Ellipsoid, ellipsoid
from .reference_unit_rest import Units
from .unit_cover import AlikeSets

FloatArray = npt.NDArray[np.float64]

_ONE, _TWO = Range(wide(1.0)), Range(wide(2.0))
#: Steps of the search for c, and its largest share of what a ball leaves at a point, for the point to be inside.
_STEPS, _INSIDE = 60, 1.0 - 1e-9
#: The least square of the room for c, as a share of all, and what keeps lam from zero.
_LEAST, _BEYOND = 1e-6, 1.0 + 1e-9

#: Share of the square of what w.f moves over a box that its Y reckons with.
_OF_MOVED = 0.1


@dataclass(frozen=True)
class AlikeSet:
    """All that others add is x C e ± missing with x = rho² + floor, |e| <= 1, for rho up to the room."""

    room: Range
    floor: Range
    around: Ellipsoid


class AlikeProof:
    """The sets around what all hidden units but one and the output bias add, each proved once."""

    def __init__(self, one: UnitProblem, problem: Problem, units: Units, sets: AlikeSets, deadline: float) -> None:
        self.broken = False
        self.found: list[AlikeSet] = []
        many = Range(wide(float(len(units.kinds) - 1)))
        bias = problem.scale[1] / many.root() if problem.bias else Range(wide(0.0))
        change = Change(one, (problem.scale[0], problem.scale[1]), units.u[0][0], units.v[0][0, 0])
        for room, floor, matrix, scale in zip(sets.rooms, sets.floors, sets.matrices, sets.scales, strict=True):
            claim = _Alike(matrix, MORE * float(scale), float(floor), float(room), bias)
            proved = holds(change, claim, deadline)
            if proved is None:
                self.broken = True
                return
            total = many * Range(wide(floor))
            reach = Range(wide(room)).square() + total
            around = ellipsoid(matrix, claim.t, reach) if proved else None
            if around is not None:
                self.found.append(AlikeSet(Range(wide(room)), total, around))


class _Alike:
    """|A f + kv c A 1/sqrt(M)| <= t (|d|² + c² + floor) for |d|² + c² <= room²; ``bias`` is kv/sqrt(M), or zero."""

    def __init__(self, matrix: FloatArray, t: float, floor: float, room: float, bias: Range) -> None:
        self.matrix, self.t, self.room, self._floor = matrix, t, room, floor
        a = Range(wide(matrix))
        self._along = matmul(a, Range(wide(np.ones((len(matrix), 1)))))[:, 0] * bias
        self.row = matmul(self._along.reshape(1, -1), a)[0]
        self._length = self._along.square().sum(0)
        self._square, self._limit = Range(wide(t)).square(), Range(wide(room)).square()

    def side(self, here: Local) -> Side:
        """With the Y of each box that seems to prove the most."""
        at, moved = (x.astype(np.float64) for x in (here.extra.size(), here.moved))
        b, t2 = np.sqrt(at**2 + _OF_MOVED * moved**2), self.t**2
        # boxes that have much to spare are largest for the R at their near end
        nearer = np.maximum(self._squares(here) - (np.abs(here.middle) * here.half).sum(axis=1), 0.0)
        square = nearer + self._floor
        c = np.minimum(self._shift(b, square), np.sqrt(np.maximum(self._left(here), _LEAST * self.room**2)))
        along = np.divide(b, c, out=np.zeros_like(b), where=c > 0.0) + float(self._length.hi)
        y = _BEYOND * np.maximum(square + c * c, along / (2.0 * t2))
        end = np.nextafter(float((self._limit + Range(wide(self._floor))).hi), np.inf)
        large, kept = Range(wide(y)), Range(wide(np.minimum(y, end)))
        pull = _TWO * self._square * large
        rest = pull * Range(wide(self._floor)) - self._square * kept * (_TWO * large - kept)
        return Side(pull, rest, _ONE / (pull - self._length).root())

    def contrary(self, here: Local) -> npt.NDArray[np.bool_]:
        """Where it is too large at a middle with the c that makes the most of it, both inside the ball."""
        b = here.extra.lo.astype(np.float64)
        most = _INSIDE * np.sqrt(np.maximum(self._left(here), 0.0))
        c = Range(wide(np.sign(b) * np.minimum(self._shift(np.abs(b), self._squares(here) + self._floor), most)))
        square = Range(wide(here.middle)).square().sum(1) + c.square()
        size = (here.at + c[:, None] * self._along).square().sum(1).root() - here.rounding
        allowed = Range(wide(self.t)) * (square + Range(wide(self._floor)))
        return np.asarray(square.hi < self._limit.lo) & np.asarray(size.lo > allowed.hi)

    def _squares(self, here: Local) -> FloatArray:
        return np.asarray((here.middle**2).sum(axis=1))

    def _left(self, here: Local) -> FloatArray:
        return self.room**2 - self._squares(here)

    def _shift(self, b: FloatArray, square: FloatArray) -> FloatArray:
        """The c >= 0 at which 2 b c + (|a|² - 2 t² square) c² - t² c⁴ is largest, roughly."""
        t2 = self.t**2
        excess = float(self._length.hi) - 2.0 * t2 * square
        low, high = np.zeros_like(b), np.maximum(np.cbrt(b / t2), np.sqrt(np.maximum(excess, 0.0) / t2))
        for _ in range(_STEPS):
            c = 0.5 * (low + high)
            rising = (2.0 * t2 * c * c - excess) * c < b
            low, high = np.where(rising, c, low), np.where(rising, high, c)
        return high
