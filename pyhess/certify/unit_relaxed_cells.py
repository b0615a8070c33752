"""Narrow cells of a ball bounded by the relaxation of `unit_relaxed`, where their coarser bounds do not do and it pays."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from .intervals import UNIT, gamma
from .unit_expansion import expanded
from .unit_models import Units
from .unit_others import OtherUnits
from .unit_relaxed import Situation, relaxed_bounds
from .unit_rest import Roots
from .unit_rooms import rooms_left

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Half widths of the weights and of the output weight, as shares of the radius, up to which the relaxation may serve.
_NARROW = 0.13, 0.26
#: Cells of one width that are tried before anything is known of it, the share of them that must gain, and that of the others that
#: are tried all the same; older cells count half after so many; and widths that are told apart.
_TRIED, _GAINING, _SOME, _MEMORY, _HALVINGS = 32, 0.5, 0.05, 512, 12
#: The others' polynomials are made for rooms whose ratio is this; and cells at once.
_LEVEL, _BATCH = 0.92, 512
#: Least share of the radius that is taken to be left.
_LEAST = 1e-9
#: Most parameters of a unit, as the core has them, and multiplications for a cell: rounds are not to hold up a time limit.
_MAX_PARAMS, _MAX_WORK = 8, 2e6


def relaxation_applies(obj: Objective, units: Units) -> bool:
    """One output, squared error, a ball, few parameters of a unit, few units and data."""
    n, inputs = units.z.shape
    size = inputs + 1
    triples, forms = size * (size + 1) * (size + 2) / 6.0, inputs * (inputs + 3) / 2.0
    work = len(units.u.lo) * (triples * n * forms + float(size) ** 6)
    if size > _MAX_PARAMS or work > _MAX_WORK:
        return False
    return units.room > 0.0 and units.v.lo.shape[1] == 1 and obj.loss == "squared_error"


class RelaxedCells:
    """The relaxation's bounds of cells."""

    def __init__(self, obj: Objective, units: Units, roots: Roots) -> None:
        self._obj, self._units, self._roots = obj, units, roots
        self._tried, self._gained = (np.zeros(_HALVINGS, dtype=np.int64) for _ in range(2))
        self._others: dict[tuple[int, int], OtherUnits] = {}

    @property
    def pays(self) -> bool:
        """Whether most cells gained by it so far."""
        tried = int(self._tried.sum())
        return tried >= _TRIED and int(self._gained.sum()) >= _GAINING * tried

    def worth(self, cells: FloatArray) -> npt.NDArray[np.bool_]:
        """The cells it may pay for: narrow ones, as far as those of their width gained; some of a width that is new."""
        widths = self._widths(cells)
        found = widths >= 0
        for width in np.unique(widths[found]):
            tried, members = self._tried[width], np.flatnonzero(widths == width)
            if tried < _TRIED:
                found[members[_TRIED - tried :]] = False
            elif self._gained[width] < _GAINING * tried:
                found[members[math.ceil(_SOME * len(members)) :]] = False
        return np.asarray(found)

    def learn(self, cells: FloatArray, gained: npt.NDArray[np.bool_]) -> None:
        """Remember which cells gained."""
        widths = self._widths(cells)
        np.add.at(self._tried, widths, 1)
        np.add.at(self._gained, widths[gained], 1)
        old = self._tried > _MEMORY
        self._tried[old] //= 2
        self._gained[old] //= 2

    def _widths(self, cells: FloatArray) -> IntArray:
        """How often the widest cells that are narrow would have to be halved, at most; -1 for wider ones."""
        size = self._roots.inverse.size
        half = 0.5 * (cells[:, 1, :size] - cells[:, 0, :size]) * self._roots.inverse / self._units.room
        most = np.array([_NARROW[0]] * (size - 1) + [_NARROW[1]])
        halved = np.floor(np.log2(np.maximum(most / np.maximum(half, 1e-300), 2.0**-8))).min(axis=1)
        return np.asarray(np.clip(halved, -1, _HALVINGS - 1).astype(np.int64))

    def bounds(self, cells: FloatArray, index: IntArray, target: float, stop: npt.NDArray[np.int32]) -> FloatArray:
        """Bounds of cells (C, 2, …) that are in the ball; -inf where there is none, or ``stop`` was set before."""
        roots, room = self._roots, self._units.room
        size = roots.inverse.size
        cells = np.ascontiguousarray(cells[:, :, :size])
        left = rooms_left(cells, roots.centers[index], roots.inverse, roots.squared_radius)
        rooms = np.clip(left, _LEAST * room, room * (1.0 + gamma(16)))
        levels = np.floor(np.log(np.maximum(rooms, 1e-3 * room) / room) / np.log(_LEVEL)).astype(np.int64)
        found = np.full(len(cells), -np.inf)
        with np.errstate(all="ignore"):  # numbers that overflow prove nothing
            for key in np.unique(np.stack([index, levels], axis=1), axis=0):
                places = np.flatnonzero((index == key[0]) & (levels == key[1]))
                for begin in range(0, len(places), _BATCH):
                    if stop[0]:
                        return found
                    part = places[begin : begin + _BATCH]
                    found[part] = self._bound(cells[part], int(key[0]), int(key[1]), rooms[part], target, stop)
        return found

    def _bound(
        self, cells: FloatArray, root: int, level: int, rooms: FloatArray, target: float, stop: npt.NDArray[np.int32]
    ) -> FloatArray:
        roots, units, obj = self._roots, self._units, self._obj
        others = self._others.get((root, level))
        if others is None:
            largest = float(units.room) * _LEVEL**level * (1.0 + 1e-12)
            others = self._others[root, level] = OtherUnits(obj, units, int(units.types[roots.types[root]][0]), largest)
        inverse = roots.inverse
        middle, h = 0.5 * (cells[:, 0] + cells[:, 1]), 0.5 * (cells[:, 1] - cells[:, 0]) * inverse * (1.0 + 8.0 * UNIT)
        q = (middle - roots.centers[root]) * inverse
        off = 16.0 * UNIT * (np.abs(cells).max(axis=1) + np.abs(roots.centers[root])) * inverse
        square, length = rooms**2, (q * q).sum(axis=1)
        error = gamma(64) * (roots.squared_radius + length) + (8.0 * off * (np.abs(q) + h + off)).sum(axis=1)
        left = (roots.squared_radius - length + error) / square
        left += gamma(16) * np.abs(left)
        where = Situation(h, rooms, left, q * h / square[:, None], h * h / square[:, None])
        activation = obj.net.activations[0], obj.net.betas[0]
        weights = np.asarray(obj.data.normalized_weights, dtype=np.float64)
        form = expanded(activation, units, (weights, obj.targets[:, 0]), cells, others, rooms)
        x = units.scale_u * units.z
        return relaxed_bounds(form, where, others, x, weights, units.scale_v, target, stop)
