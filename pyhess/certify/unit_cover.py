"""The cells of a branch and bound over one unit's weights and the ellipsoids they rest on, as a certificate keeps them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class UnitLeaves:
    """Cells that cover what one hidden unit of each kind can be, and what is proved on each.

    Attributes
    ----------
    cells : (C, 2, 2 D + K) array
        Low and high ends of (u, v), and for twins of the further unit's u; effective parameters (NTK scales folded in). D counts
        the inputs and the constant one, where there are biases.
    bound : (C,) array
        No Hessian's block of the unit has an eigenvalue below this on the cell.
    root : (C,) int array
        Row of the arrays that follow.
    unit : (R,) int array
        Hidden unit that the cells are about, and all others with the same ranges.
    twins : (R,) bool array
        Whether the other units are all taken equal, with v at a corner of its range, so that one further unit is left.
    amplitude, offset : (R, K) array
        Of twins: the number of other units times that v, and the output bias.
    """

    cells: FloatArray
    bound: FloatArray
    root: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]
    twins: npt.NDArray[np.bool_]
    amplitude: FloatArray
    offset: FloatArray


@dataclass(frozen=True, eq=False)
class JointSets:
    """For each of K ranges of the room: |A f_m(d)|² <= t² (|d|² + floor) for every hidden unit m and |d| <= room.

    Attributes
    ----------
    rooms, floors : (K,) arrays
        From the largest to the smallest.
    matrices : (K, m, n, n) array
        The A of every hidden unit.
    scales : (K, m) array
        The t.
    """

    rooms: FloatArray
    floors: FloatArray
    matrices: FloatArray
    scales: FloatArray

    def those(self, chosen: npt.NDArray[np.bool_]) -> JointSets:
        """Some of the ranges."""
        return JointSets(self.rooms[chosen], self.floors[chosen], self.matrices[chosen], self.scales[chosen])


@dataclass(frozen=True, eq=False)
class AlikeSets:
    """Hidden units that are all alike, without output weights at the centre: |A F(d, c)| <= t (|d|² + c² + floor) in K ways, for
    changes d = (x, y) with |x| <= room.

    F(d, c) = f(d) + kv c 1/sqrt(M), with M the number of the other units and the output bias's change c sqrt(M) shared out among
    them; without biases F = f.

    Attributes
    ----------
    rooms, floors : (K,) arrays
        From the largest to the smallest.
    matrices : (K, n, n) array
        The A.
    scales : (K,) array
        The t.
    """

    rooms: FloatArray
    floors: FloatArray
    matrices: FloatArray
    scales: FloatArray

    def those(self, chosen: npt.NDArray[np.bool_]) -> AlikeSets:
        """Some of the ways."""
        return AlikeSets(self.rooms[chosen], self.floors[chosen], self.matrices[chosen], self.scales[chosen])

    def joined(self, more: AlikeSets) -> AlikeSets:
        """Both, from the largest room to the smallest."""
        names = ("rooms", "floors", "matrices", "scales")
        order = np.argsort(-np.concatenate([self.rooms, more.rooms]), kind="stable")
        return AlikeSets(*(np.concatenate([getattr(self, name), getattr(more, name)])[order] for name in names))
