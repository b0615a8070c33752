"""Ellipsoids around what hidden units that are all alike add to one output, proved anew for checking certificates.

The units' output weights are zero at the centre. Each of the M others takes c = C/sqrt(M) of the output bias's change C, so that
a change (x, y) of its parameters with its c adds F = y h(x) + kv c 1/sqrt(M), h = kv phi(s0 + ku z.x). A file holds A, t, g and r
for which |A F| <= t (|x|² + y² + c² + g) for |x| <= r and any y and c is shown here. Then all units and the bias together add
sum F = (A^-1) t (rho² + M g) e with |e| <= 1, where sum |x|² + y² + C² <= rho² <= r².

With a = kv A 1/sqrt(M) and w = A'a it is enough that, for some lam > 0 and L = 4 t² (|x|² + g) >= lam + |a|² on a box of x,

    |A h|² + (w.h)²/lam <= L:

then [L - |A h|², -w.h; -w.h, L - |a|²] is positive semi-definite, so |y A h + c a|² <= (y² + c²) L <= t² (y² + c² + |x|² + g)².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .reference_hessian import Problem
from .reference_interval import Range, Wide, down, matmul, wide, zeros
from .reference_unit_block import UnitProblem
from .reference_unit_change import Change, Local, Side, holds
from .reference_unit_joint import MORE, Ellipsoid, ellipsoid
from .reference_unit_rest import Units
from .unit_cover import AlikeSets

FloatArray = npt.NDArray[np.float64]

_ONE, _FOUR = Range(wide(1.0)), Range(wide(4.0))


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
        outputs = Outputs(one, (problem.scale[0], problem.scale[1]), units.u[0][0])
        for room, floor, matrix, scale in zip(sets.rooms, sets.floors, sets.matrices, sets.scales, strict=True):
            claim = Around(matrix, MORE * float(scale), float(floor), float(room), bias)
            proved = holds(outputs, claim, deadline)
            if proved is None:
                self.broken = True
                return
            total = many * Range(wide(floor))
            reach = Range(wide(room)).square() + total
            around = ellipsoid(matrix, claim.t, reach) if proved else None
            if around is not None:
                self.found.append(AlikeSet(Range(wide(room)), total, around))


class Outputs(Change):
    """The function h of x over boxes."""

    def __init__(self, one: UnitProblem, scale: tuple[Range, Range], u: Range) -> None:
        super().__init__(one, scale, u, Range(wide(0.0)))
        self.size = one.dim
        self.reach = np.abs(self.inputs).mean(axis=0)

    @property
    def places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """All pairs, each once."""
        first, last = np.triu_indices(self.size)
        return first, last

    def pieces(self, centre: FloatArray, half: Wide) -> tuple[Range, Range, Range, Wide]:
        """Those of y h at y = 1, without what is due to y."""
        ones, none = np.ones((len(centre), 1)), zeros((len(centre), 1))
        value, slopes, second, rest = super().pieces(np.hstack([centre, ones]), wide(np.hstack([half, none])))
        return value, slopes[:, :-1], second[:, : len(self.places[0])], rest


class Around:
    """|y A h + c a| <= t (|x|² + y² + c² + floor) for |x| <= room; ``bias`` is kv/sqrt(M), or zero."""

    def __init__(self, matrix: FloatArray, t: float, floor: float, room: float, bias: Range) -> None:
        self.matrix, self.t, self.room, self._floor = matrix, t, room, Range(wide(floor))
        a = Range(wide(matrix))
        self._along = matmul(a, Range(wide(np.ones((len(matrix), 1)))))[:, 0] * bias
        self.row = matmul(self._along.reshape(1, -1), a)[0]
        self._length = self._along.square().sum(0)
        self._four = _FOUR * Range(wide(t)).square()

    def side(self, here: Local) -> Side:
        """With the largest lam of each box."""
        nearest = np.maximum(down(wide(np.abs(here.middle)) - wide(here.half)), wide(0.0))
        least = self._four * (Range(nearest).square().sum(1) + self._floor)
        lam = down(least.lo - self._length.hi)
        scale = (_ONE / Range(np.where(lam > 0.0, lam, wide(1.0))).root()).hi
        none = Range(zeros(len(here.middle)))
        return Side(none + self._four, none + self._four * self._floor, Range(np.where(lam > 0.0, scale, wide(np.inf))))

    def contrary(self, here: Local) -> npt.NDArray[np.bool_]:
        """Where it is too large at a middle inside, for the y and c that make the most of it."""
        first, last = (here.at.square().sum(1).hi.astype(np.float64), float(self._length.hi))
        turn = 0.5 * np.arctan2(2.0 * here.extra.lo.astype(np.float64), first - last)
        y, c = Range(wide(np.cos(turn))), Range(wide(np.sin(turn)))
        reach = (here.at * y[:, None] + self._along * c[:, None]).square().sum(1).root() - here.rounding
        square = Range(wide(here.middle)).square().sum(1)
        allowed = (self._four * (square + self._floor)).root() * (y.square() + c.square()).root()
        inside = np.asarray(square.hi < Range(wide(self.room)).square().lo)
        return inside & np.asarray(reach.lo > allowed.hi)
