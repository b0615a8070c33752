"""Whether a hidden unit's block has no eigenvalue below a number, over cells of a ball, relaxed in all changes together.

The block is a polynomial in the changes of the unit's weights on the cell and of all others in what the ball leaves to them
(`reference_unit_relaxed_cells`, `reference_unit_relaxed_others`), and a rest. That the polynomial is nowhere below the number is
shown by one matrix that has no negative eigenvalue (`reference_unit_relaxed_forms`). All in doubles, with bounds of what is
rounded.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import numpy.typing as npt

from ..regions import Ball
from .reference_arithmetic import Doubles, using
from .reference_hessian import Problem
from .reference_unit_groups import Groups
from .reference_unit_relaxed_cells import CellPoints, Rests
from .reference_unit_relaxed_choice import Least, Mixture, lowest
from .reference_unit_relaxed_forms import Bounded, Forms, Room
from .reference_unit_relaxed_others import FloatArray, IntArray, Numbers, Others

Flags = npt.NDArray[np.bool_]

_SMOOTH = ("tanh", "sigmoid", "softplus", "gelu", "identity")
#: Cells are tried where such a share of those like them is proved, and some always; widths and levels that are told apart.
_PAYS, _SOME, _PART, _KINDS = 0.2, 16, 0.03, (40, 8)
#: The others are expanded for changes of so much of the radius, to powers.
_LEVEL, _LEVELS = 0.85, 30
#: Steps of the mixture, those after which cells are given up whose bound has not come nearer to the claim by such a share.
_STEPS, _TRIED, _NEARER = 10, 3, 0.15
#: Numbers that the tables of one level and the matrices of one batch may take, and sizes beyond which nothing is tried.
_TABLES, _NUMBERS, _SIZES = 20_000_000, 150_000, 1e12
#: Relative room for a few roundings.
_ROOM = 1e-14


class UnitRelaxed:
    """One unit of a ball, and the others about the centre."""

    def __init__(self, problem: Problem, region: Ball, unit: int) -> None:
        with using(Doubles()), np.errstate(all="ignore"):
            self.numbers = Numbers.of(problem)
        groups = Groups.of(problem)
        self._centre, self._radius = region.center.astype(np.float64), float(region.radius)
        self._groups, self._unit = groups, unit
        self._own = self._centre[groups.units[unit]]
        self.size = len(self._own)
        self._scale = np.append(np.full(self.size - 1, self.numbers.k1), self.numbers.k2)
        self._most = self._radius * (1.0 + _ROOM) * _LEVEL ** np.arange(_LEVELS)
        self._counts = np.zeros((3, _KINDS[0] * _KINDS[1]))  # of cells seen, tried and proved, by kind
        self._kept: dict[int, Others] = {}
        largest = max(float(np.abs(x).max(initial=0.0)) for x in (self.numbers.x, self.numbers.y, self._centre))
        small = (self.numbers.size > 0.0) & (self.numbers.size < 1e-30)
        self._usable = self.numbers.sure and largest <= _SIZES and 1e-30 <= self._radius <= _SIZES and not small.any()

    @staticmethod
    def of(problem: Problem, region: Ball, unit: int) -> UnitRelaxed | None:
        """None where there is no such bound."""
        inputs, units, outputs = problem.widths
        size = inputs + int(problem.bias) + 1
        cubes = units * size * (size + 1) * (size + 2) // 6
        if problem.loss != "squared_error" or outputs != 1 or problem.activations[0] not in _SMOOTH:
            return None
        if len(problem.x) * cubes * size**2 > _TABLES:
            return None
        found = UnitRelaxed(problem, region, unit)
        return found if found._usable else None

    def promising(self, cells: FloatArray) -> Flags:
        """Which cells (B, 2, D) are likely enough to be proved, as others as wide and with as much room were."""
        kind = self._kinds(cells)
        seen, tried, proved = (counts[kind] for counts in self._counts)
        np.add.at(self._counts[0], kind, 1.0)
        return np.asarray((proved >= _PAYS * tried) | (tried < _SOME + _PART * seen))

    def _kinds(self, cells: FloatArray) -> IntArray:
        """Numbers of kinds: every half of the largest width, with every other of the first levels."""
        t, h = self._parameters(cells)
        width = np.clip(np.floor(np.log2(self._radius / h.max(axis=1))), 0, _KINDS[0] - 1)
        level = np.minimum(self._level(self._left(t, h)) // 2, _KINDS[1] - 1)
        return np.asarray(width * _KINDS[1] + level, dtype=np.int64)

    def _level(self, rho: FloatArray) -> IntArray:
        return np.asarray(np.clip(np.searchsorted(-self._most, -rho, side="right") - 1, 0, _LEVELS - 1))

    def test(self, cells: FloatArray, claim: float) -> Flags:
        """On which cells (B, 2, D) of the unit's effective weights it is proved."""
        proved = np.zeros(len(cells), dtype=np.bool_)
        with using(Doubles()), np.errstate(all="ignore"):
            t, h = self._parameters(cells)
            level = self._level(self._left(t, h))
            batch = max(1, _NUMBERS // (len(self._groups.units) * self.size**4))
            for number in np.unique(level):
                rows = np.flatnonzero(level == number)
                for begin in range(0, len(rows), batch):
                    some = rows[begin : begin + batch]
                    # Guesses may be no numbers.
                    with suppress(np.linalg.LinAlgError):
                        proved[some] = self._test(t[some], h[some], self._others(int(number)), claim)
        kinds = self._kinds(cells)
        np.add.at(self._counts[1], kinds, 1.0)
        np.add.at(self._counts[2], kinds[proved], 1.0)
        return proved

    def _parameters(self, cells: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Middles, as they stand, and half widths of parameters' cells that contain these."""
        low, high = cells[:, 0] / self._scale, cells[:, 1] / self._scale
        t = 0.5 * (low + high)
        # The NTK's scales, and quotients by them, are rounded.
        off = np.where(self._scale == 1.0, 0.0, 0.25 * self.numbers.eta) * np.maximum(np.abs(low), np.abs(high))
        half = np.maximum(high - t, t - low) + off
        return t, half * (1.0 + _ROOM)

    def _left(self, t: FloatArray, h: FloatArray) -> FloatArray:
        """What is left to the others (B,), rounded up."""
        nearest = np.maximum(np.abs(t - self._own) * (1.0 - _ROOM) - h, 0.0)
        square = self._radius**2 * (1.0 + _ROOM) - (nearest * nearest).sum(axis=1) * (1.0 - _ROOM)
        found: FloatArray = np.minimum(np.sqrt(np.maximum(square, 0.0)) * (1.0 + _ROOM), self._most[0])
        return found

    def _others(self, level: int) -> Others:
        if level not in self._kept:
            self._kept[level] = Others(self.numbers, self._centre, self._groups, self._unit, float(self._most[level]))
        return self._kept[level]

    def _room(self, t: FloatArray, h: FloatArray, rho: FloatArray, others: Others) -> Room:
        # A power of two, so that nothing is rounded.
        unit = float(2.0 ** np.round(np.log2(self._radius)))
        q, h, most = (t - self._own) / unit, h / unit, others.rho / unit
        far, radius = (q * q).sum(axis=1), (self._radius / unit) ** 2
        # Rounding q moves |q + h e| by no more than UNIT |q|.
        square = radius - far + _ROOM * (radius + far)
        blur = 2.0 * (radius + far + (h * h).sum(axis=1) + most**2)
        return Room(q, h, most, square, rho / others.rho * (1.0 + _ROOM), blur)

    def _test(self, t: FloatArray, h: FloatArray, others: Others, claim: float) -> Flags:
        points = CellPoints(self.numbers, t, h)
        rho = self._left(t, h)
        expanded = points.expanded(others)
        rests = points.rests(others, rho, expanded.r0)
        usable = np.isfinite(rests.blur) & np.isfinite(rests.a).all(axis=1) & np.isfinite(rests.b).all(axis=1)
        usable &= (np.abs(t) + h).max(axis=1) <= _SIZES
        if not usable.all():
            if usable.any():
                usable[usable] = self._test(t[usable], h[usable], others, claim)
            return np.asarray(usable)
        forms, room = Forms(points, others, expanded), self._room(t, h, rho, others)
        return self._search(forms, room, rests, claim)

    def _search(self, forms: Forms, room: Room, rests: Rests, claim: float) -> Flags:
        mixture = Mixture(forms, room)
        value = np.full(forms.count, -np.inf)
        proved, open_ = np.zeros(forms.count, dtype=np.bool_), np.ones(forms.count, dtype=np.bool_)
        for step in range(_STEPS):
            multipliers = mixture.multipliers()
            bounded = Bounded(forms, room, multipliers, mixture.taken(rests), rests.blur)
            learnt: list[Least] = []
            moved: list[int] = []
            for cell in map(int, np.flatnonzero(open_)):
                least = lowest(bounded, forms, cell)
                if least is None:
                    mixture.repair(cell)
                    continue
                if least.value >= claim and bounded.arrow(cell, claim).not_negative(self.size, self._longest):
                    proved[cell], open_[cell] = True, False
                open_[cell] &= step < _TRIED or least.value - value[cell] > _NEARER * (claim - value[cell])
                value[cell] = max(value[cell], least.value)
                moved.append(cell)
                learnt.append(least)
            if not open_.any():
                break
            if moved:
                mixture.learn(np.array(moved), learnt, multipliers.ball)
        return proved

    @property
    def _longest(self) -> float:
        """No e x p and delta x p is longer, for |p| = 1."""
        return float(np.sqrt(self.size + 1.0)) * (1.0 + 1e-12)
