"""Ellipsoids around what other hidden units add to one output, proved anew for checking certificates.

A change d = (x, y) of a unit's parameters changes the outputs by f(d) = (v0 + kv y) phi(s0 + ku z.x) - v0 phi(s0), an entry per
datum. A file holds matrices A and numbers t, g and r for which |A f(d)|² <= t² (|d|² + g) for |d| <= r is shown here, by Taylor's
theorem on boxes that are cut until it is. With C near A^-1 then f = t C e sqrt(|d|² + g) - (C A - I) f with |e| <= 1, and for
several units and the output bias c, in any direction w,

    sum_m |t_m C_m'w| sqrt(|d_m|² + g) + |kv w.1| |c| <= |(t_1 C_1, …, kv 1)'w| sqrt(rho² + m g),   sum |d_m|² + c² <= rho².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .reference_hessian import Problem
from .reference_interval import Range, Wide, length, matmul, wide, zeros
from .reference_unit_block import UnitProblem
from .reference_unit_change import Change, Local, Side, holds
from .unit_cover import AlikeSets, JointSets

FloatArray = npt.NDArray[np.float64]

_ONE = Range(wide(1.0))
#: What is proved instead of t, in units of it.
MORE = 1.005
#: Seconds that a datum of a box takes, roughly.
_BOX_SECONDS = 6e-5


def ellipsoid_seconds(sets: JointSets | AlikeSets, dim: int) -> float:
    """Time that their proofs take in long doubles, roughly."""
    boxes = 4.0 * 8.0 ** (dim + 1 if isinstance(sets, JointSets) else dim)
    return float(sets.scales.size * sets.matrices.shape[-1]) * boxes * _BOX_SECONDS


@dataclass(frozen=True)
class Ellipsoid:
    """C (n, n) as in f = x C e ± missing, |e| <= 1."""

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
        matrix, t = self._sets.matrices[k, unit], MORE * float(self._sets.scales[k, unit])
        u, v = self._units[0][unit], self._units[1][unit, 0]
        own = np.concatenate([u.lo, u.hi, v.lo[None], v.hi[None]]).astype(np.float64)
        key = k, np.concatenate([own, matrix.ravel(), [t]]).tobytes()
        if key not in self._known:
            claim = _Linear(matrix, t, self.floor(k), float(self._sets.rooms[k]))
            found = holds(Change(self._one, self._scale, u, v), claim, self._deadline)
            self.broken |= found is None
            self._known[key] = bool(found)
        reach = (Range(wide(self._sets.rooms[k])).square() + self.floor(k)).root()
        return ellipsoid(matrix, t, reach) if self._known[key] else None


class _Linear:
    """|A f|² <= t² (|d|² + floor) for |d| <= room."""

    def __init__(self, matrix: FloatArray, t: float, floor: Range, room: float) -> None:
        self.matrix, self.room = matrix, room
        self.row = Range(zeros(len(matrix)))
        self._square, self._floor = Range(wide(t)).square(), floor

    def side(self, here: Local) -> Side:
        """The same on all boxes, and no further row."""
        none = Range(zeros(len(here.middle)))
        return Side(none + self._square, none + self._square * self._floor, none)

    def contrary(self, here: Local) -> npt.NDArray[np.bool_]:
        """Where |A f| is too large at a middle inside the ball."""
        square = Range(wide(here.middle)).square().sum(1)
        size = here.at.square().sum(1).root()
        least = Range(np.maximum((size - here.rounding).lo, wide(0.0)))
        return np.asarray(square.hi < Range(wide(self.room)).square().lo) & np.asarray(
            least.square().lo > (self._square * (square + self._floor)).hi
        )


def ellipsoid(matrix: FloatArray, t: float, reach: Range) -> Ellipsoid | None:
    """Of vectors f with |A f| <= t x for some x up to the reach."""
    n = len(matrix)
    try:
        inverse = Range(wide(np.linalg.inv(matrix)))
    except np.linalg.LinAlgError:
        return None
    defect = matmul(inverse, Range(wide(matrix))) - Range(wide(np.eye(n)))
    off, size = (Range(length(x.size().reshape(1, -1))[0]) for x in (defect, inverse))
    if not (off.hi < 0.5 and t > 0.0):
        return None
    most = Range(wide(t)) * reach * size / (_ONE - off)
    return Ellipsoid(inverse * Range(wide(t)), (Range(length(defect.size())) * most).hi)
