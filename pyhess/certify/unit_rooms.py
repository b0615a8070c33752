"""Cells bounded with the ellipsoids of `unit_joint` or `unit_alike` where the room left to the other units allows it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .intervals import TINY, UNIT, Interval, gamma, matmul, norms
from .ranges import derivative_range
from .unit_alike import RATIO
from .unit_ball import reduced
from .unit_cells import CellBounds, UnitCells
from .unit_cover import AlikeSets, JointSets
from .unit_joint import BEYOND
from .unit_models import Units, pre_activations
from .unit_rest import Roots

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: The smallest room that the last range serves, as a share of its end.
_LAST = 0.5
#: Cells belong to a range or part whose ends their room is beyond by no more than this share.
_MARGIN = 1e-9
#: Models have t a little larger than proved, as the independent check does not prove the least one.
_SPARE = 1.006
#: Parts of a range of alike units' sets with a model each, as rho² + M g is a part's factor times rho at its ends only.
_PARTS = 4
#: Size of the parts of cells on which models are compared.
_JUDGED = 0.1


class Rooms:
    """Bounds of cells by ellipsoids: one model per root and range of the room, or part of a range."""

    def __init__(
        self, sets: JointSets | AlikeSets, units: Units, roots: Roots, name: str, beta: float, task: Callable[..., UnitCells]
    ) -> None:
        self._centers, self._inverse, self._square = roots.centers, roots.inverse, roots.squared_radius
        self.sets, self._rooms = sets, sets.rooms
        if isinstance(sets, AlikeSets):
            # not every range has a set
            self._ends = sets.rooms[:, None] * RATIO ** (np.arange(_PARTS + 1) / _PARTS)
        else:
            self._ends = np.stack([sets.rooms, np.append(sets.rooms[1:], _LAST * sets.rooms[-1])], axis=1)
        self._parts = self._ends.shape[1] - 1
        count, n = len(roots.types), len(units.z)
        rows = []
        for t in roots.types:
            others = np.delete(np.arange(len(units.u.lo)), int(units.types[t][0]))
            rows += [
                _model(sets, k, self._ends[k, part : part + 2], units, others, name, beta)
                for k in range(len(sets.rooms))
                for part in range(self._parts)
            ]
        size = max(columns.shape[1] for _, columns, _ in rows)
        generators, middle, slack = np.zeros((len(rows), n, 1, size)), np.zeros((len(rows), n, 1)), np.zeros((3, len(rows), n, 1))
        for row, (point, columns, rest) in enumerate(rows):
            generators[row, :, 0, : columns.shape[1]] = columns
            middle[row, :, 0], slack[0, row, :, 0], slack[1, row, :, 0] = point.middle, point.radius, rest
        kept = np.repeat(np.arange(count), len(sets.rooms) * self._parts)
        rest_of = roots.rest
        self._task = task(
            {
                "kinds": rest_of["kinds"][kept],
                "amplitude": rest_of["amplitude"][kept],
                "offset": rest_of["offset"][kept],
                "middle": middle,
                "generators": generators,
                "slack": slack,
                "ranges": rest_of["ranges"][:, kept],
                "powers": np.ones(size, dtype=np.int64),
                "groups": np.zeros(size, dtype=np.int64),
                "centers": roots.centers[kept],
            }
        )
        self._useful = np.ones(len(rows), dtype=np.bool_)

    def used(self, cells: FloatArray, index: IntArray) -> npt.NDArray[np.bool_]:
        """The ranges that some cell's model is about."""
        rows = self.rows(cells, index)
        rows = rows[(rows >= 0) & self._useful[rows]]
        return np.bincount(rows // self._parts % len(self._rooms), minlength=len(self._rooms)) > 0

    def rows(self, cells: FloatArray, index: IntArray) -> IntArray:
        """The model for each cell, or -1."""
        room = rooms_left(cells, self._centers[index], self._inverse, self._square)
        # ends from the largest to the smallest: the last one that is not below
        k = (self._rooms[None] * (1.0 + _MARGIN) >= room[:, None]).sum(axis=1) - 1
        ends = self._ends[k] * (1.0 + _MARGIN)
        part = (ends[:, 1:-1] >= room[:, None]).sum(axis=1)
        fits = (k >= 0) & (room > ends[:, -1]) & (room > 0.0)
        return np.where(fits, (index * len(self._rooms) + k) * self._parts + part, -1)

    def choose(self, cells: FloatArray, index: IntArray, stop: npt.NDArray[np.int32], plain: UnitCells) -> None:
        """Give up, for now, models that are no better than the plain ones in the middle of the cells, where these are cut to."""
        middle, half = 0.5 * (cells[:, 0] + cells[:, 1]), 0.5 * _JUDGED * (cells[:, 1] - cells[:, 0])
        cells = np.stack([middle - half, middle + half], axis=1)
        rows = self.rows(cells, index)
        there = np.flatnonzero(rows >= 0)
        none = np.full(there.size, -np.inf)
        mine = self._task.bound(cells[there].copy(), rows[there], none, stop)
        before = plain.bound(cells[there].copy(), index[there], none, stop)
        gain = np.nan_to_num(mine.bounds - before.bounds, nan=0.0, posinf=0.0, neginf=-1e300)
        for row in np.unique(rows[there]):
            self._useful[row] = gain[rows[there] == row].sum() >= 0.0

    def bound(self, cells: FloatArray, index: IntArray, parents: FloatArray, stop: npt.NDArray[np.int32], plain: UnitCells,
              models: IntArray | None = None) -> CellBounds:  # fmt: skip
        """As `UnitCells.bound`, with ``plain`` for the cells without a model."""
        rows = self.rows(cells, index)
        mine = (rows >= 0) & self._useful[rows]
        if not mine.any():
            return plain.bound(cells, index, parents, stop, models)
        parts = []
        # What was best without an ellipsoid need not be with one.
        for chosen, task, row, asked in ((mine, self._task, rows, None), (~mine, plain, index, models)):
            own = np.ascontiguousarray(cells[chosen])
            parts.append(task.bound(own, row[chosen], parents[chosen], stop, None if asked is None else asked[chosen]))
            cells[chosen] = own
        order = np.argsort(np.concatenate([np.flatnonzero(mine), np.flatnonzero(~mine)]))
        return CellBounds(*(np.concatenate(pair)[order] for pair in zip(*parts, strict=True)))


def rooms_left(cells: FloatArray, centers: FloatArray, inverse: FloatArray, square: float) -> FloatArray:
    """What cells (C, 2, …) leave of the radius of a ball about ``centers`` (C, D + K), 0 outside."""
    size = inverse.size
    gap = np.maximum(np.maximum(cells[:, 0, :size] - centers, centers - cells[:, 1, :size]), 0.0) * inverse
    left = square * (1.0 + 1e-13) - (gap * gap).sum(axis=1) * (1.0 - 1e-13)
    found: FloatArray = np.sqrt(np.maximum(left, 0.0)) * (1.0 + 1e-12)
    return found


def _model(sets: JointSets | AlikeSets, k: int, ends: FloatArray, units: Units, others: IntArray, name: str, beta: float
           ) -> tuple[Interval, FloatArray, FloatArray]:  # fmt: skip
    """Centre with what is not of first order (n,), columns (n, L) and slack (n,) to be multiplied by a room between the ends."""
    n, room = len(units.z), float(sets.rooms[k]) * BEYOND
    most, least = float(ends[0]) * BEYOND, float(ends[1]) * (1.0 - _MARGIN)
    s0, error, _ = pre_activations(units, others, np.zeros((n, others.size)))
    at = derivative_range(name, beta, 0, Interval(s0 - error, s0 + error))
    point = (matmul(at, Interval(units.v.lo[others], units.v.hi[others])) + units.c)[:, 0]
    floor = sets.floors[k] * others.size
    if isinstance(sets, AlikeSets):
        # rho² + M g <= factor rho for rho from least to most, as it is convex in rho
        factor = max(most + floor / most, least + floor / least)
        scale = float(sets.scales[k]) * _SPARE
        inverse, missing = _inverse(sets.matrices[k], scale * (room * room + floor))
        blocks = [scale * inverse]
    else:
        # sqrt(rho² + M g) <= factor rho for rho >= least
        factor = float(np.sqrt(1.0 + floor / (least * least)))
        blocks, missing = [], np.zeros(n)
        for m in others:
            scale = float(sets.scales[k, m]) * _SPARE
            inverse, more = _inverse(sets.matrices[k, m], scale * float(np.sqrt(room * room + floor)))
            missing += more
            blocks.append(scale * inverse)
        if units.bias:
            blocks.append(np.full((n, 1), units.scale_v))
    factor *= 1.0 + gamma(16)
    stacked = np.hstack(blocks)
    few, rest = reduced(stacked)
    rest = (rest + 16.0 * UNIT * norms(stacked)) * (1.0 + gamma(8))
    columns: FloatArray = few * factor
    rest = rest * factor * (1.0 + gamma(8)) + 4.0 * UNIT * np.abs(columns).sum(axis=1)
    spread = point.radius + missing * (1.0 + gamma(others.size + 8)) + TINY
    middle = point.middle
    return Interval(middle - spread, middle + spread), columns, rest


def _inverse(matrix: FloatArray, reach: float) -> tuple[FloatArray, FloatArray]:
    """C near A^-1, and what C A f misses of f where |A f| <= reach."""
    n = len(matrix)
    inverse = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    # f = C A f - (C A - I) f, and |f| is at most |C| |A f| / (1 - |C A - I|).
    defect = np.abs(inverse @ matrix - np.eye(n)) + gamma(n + 4) * (np.abs(inverse) @ np.abs(matrix) + np.eye(n))
    off = float(np.sqrt((defect**2).sum())) * (1.0 + gamma(n * n + 8))
    size = float(np.sqrt((inverse**2).sum())) * (1.0 + gamma(n * n + 8))
    length = reach * (1.0 + gamma(16)) * size / (1.0 - off) if off < 0.5 else np.inf
    return inverse, norms(defect) * length * (1.0 + gamma(8))
