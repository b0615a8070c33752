"""Ellipsoids around what the other hidden units and the output bias add to one output on a ball: alike units that have no output
weights at the centre.

With h = kv phi(s0 + ku z.x) the others add sum_m y_m h(x_m) + kv C 1 for changes (x_m, y_m) of their parameters and C of the
bias, with squares that sum to rho² at most. Each of the M may take 1/M of the bias's change. With |A (y h + kv c/sqrt(M) 1)| <=
t (|x|² + y² + c² + g), c = C/sqrt(M), for one A (`unit_joint_proof`)

    |A (sum_m y_m h(x_m) + kv C 1)| <= t (rho² + M g).

The right side is linear in the squares, as the tangent at rho²/M of what any concave function of them allows, so that with the
best g nothing is lost where all units do the same, which is about where they do most. A is found by floating point, as in
`unit_joint`: given x the worst (y, c) is that of the largest eigenvalue of the Gram matrix of A h and kv/sqrt(M) A 1.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from ..regions import Ball, Region
from .intervals import UNIT
from .unit_cover import AlikeSets
from .unit_directions import Directions
from .unit_joint import BEYOND, SINGULAR, drawn
from .unit_joint_proof import Outputs, enlarged, largest_root
from .unit_models import Units

FloatArray = npt.NDArray[np.float64]

#: Inputs with the constant one that it is tried for.
_MAX_DIM = 3
#: Ratio of the ends of a range of the room, the number of the last one, and the share of the rooms asked for that it serves.
RATIO, _LAST_RANGE, _ASKED = 0.93, 20, 0.02
#: Share of all directions next to the worst ones.
_GENERAL = 0.3
#: Growth of the number of cells after which a range is fitted again; g as a share of an end's square over M.
_AGAIN, _FLOOR = 6, 0.5
#: Rounds of a fit, its steps in one of them, and samples that are added to the next: the first, and those farthest outside.
_ROUNDS, _FIT, _STARTS, _ADDED = 25, 400, 1000, 150
#: The fit ends once no change reaches farther than this, a round's at twice as much; least weight of a direction.
_CLOSE, _LEAST_DIRECTION = 1.004, 1e-4
#: Changes of directions' ascents that are used; how many changes ascend, and their steps.
_REACHED, _CLIMBERS, _CLIMBS = 2000, 100, 15


def alike(obj: Objective, units: Units, region: Region) -> bool:
    """Whether these sets are for a region's units."""
    weights, _ = obj.net.layer_slices[1]
    few = units.z.shape[1] <= _MAX_DIM and len(units.types) == 1
    return few and isinstance(region, Ball) and not np.array(region.center)[weights].any()


@dataclass(frozen=True)
class Worst:
    """The cells with the worst bounds, after so many."""

    units: FloatArray  # (B, D + 1) parameters in the middle
    mixtures: FloatArray  # (B, D + 1, D + 1) the Z of the bounds
    rooms: FloatArray  # (B,)
    evaluated: int


class AlikeFit:
    """Sets for one problem; ``others`` hidden units next to the one at hand."""

    def __init__(self, obj: Objective, units: Units) -> None:
        self.others = len(units.u.lo) - 1
        self._room = units.room
        activation = obj.net.activations[0], obj.net.betas[0]
        self._outputs = Outputs(activation, units.z, units.u.middle[0], (units.scale_u, units.scale_v))
        # rounded up: a larger factor stands for a smaller c
        self._bias = units.scale_v / float(np.sqrt(self.others)) * (1.0 + 8.0 * UNIT) if units.bias else 0.0
        self._rng = np.random.default_rng(487)
        self._directions = Directions(obj, units, self._rng)
        n = self._outputs.num_data
        self._fitted_at: dict[int, int] = {}
        self._sets = AlikeSets(np.zeros(0), np.zeros(0), np.zeros((0, n, n)), np.zeros(0))

    def adapted(self, worst: Worst, cancelled: Callable[[], bool]) -> AlikeSets:
        """Sets for the ranges of the room that the worst cells leave, and those found before, until ``cancelled`` says to end.

        Much later a range has one again, if that is better, and its lower half one of its own.
        """
        steps = np.log(np.clip(worst.rooms, 1e-300, self._room) / self._room) / np.log(RATIO)
        halves = np.floor(2.0 * steps + 1e-6).astype(int)
        whole = halves - halves % 2
        places = np.where(np.isin(whole, list(self._fitted_at)), halves, whole)
        numbers, counts = np.unique(places, return_counts=True)
        for number in (int(number) for number in numbers[np.argsort(-counts, kind="stable")]):
            mine = places == number
            before = self._fitted_at.get(number, self._fitted_at.get(number - number % 2, 0))
            due = worst.evaluated >= _AGAIN * before
            if number <= 2 * _LAST_RANGE and due and mine.mean() >= _ASKED and not cancelled():
                special = self._directions.near(worst.units[mine], worst.mixtures[mine])
                # else nothing is added, or numbers are out of range
                with suppress(np.linalg.LinAlgError):
                    self._add(self._room * RATIO ** (0.5 * number), special, cancelled)
                if not cancelled():
                    self._fitted_at[number] = worst.evaluated
        return self._sets

    def _add(self, room: float, special: FloatArray, cancelled: Callable[[], bool]) -> None:
        """A set for rooms up to this one, if there it reaches less far along the special directions than the one there is."""
        floor = _FLOOR * room * room / self.others
        matrix = self._fit(room, floor, special, cancelled)
        growth = None if matrix is None else enlarged(self._outputs, matrix, room * BEYOND, floor, cancelled, self._bias)
        if matrix is None or growth is None:
            return
        new = AlikeSets(np.array([room]), np.array([floor]), matrix[None], np.array([growth]))
        serving = np.flatnonzero(self._sets.rooms >= room)[-1:]  # the smallest of those; it may end above
        if serving.size and RATIO * self._sets.rooms[serving[0]] < room * (1.0 - 1e-6):
            old = self._sets.those(np.isin(np.arange(len(self._sets.rooms)), serving))
            if _reach(old, special, room, self.others) <= _reach(new, special, room, self.others):
                return
        self._sets = self._sets.those(self._sets.rooms != room).joined(new)

    def _fit(self, room: float, floor: float, special: FloatArray, cancelled: Callable[[], bool]) -> FloatArray | None:
        """A, or None where it is cancelled."""
        moment, reached, _ = self._directions.at(room)
        moment = special + _GENERAL * moment / (np.trace(moment) + 1e-300)
        own = reached[:, :, :-1].reshape(-1, self._outputs.size)
        own = own[self._rng.permutation(len(own))[:_REACHED]]
        x = np.concatenate([drawn(self._rng, room, self._outputs.size), own])
        first, turn = x[self._rng.permutation(len(x))[:_STARTS]], self._rng.uniform(0.0, np.pi, _STARTS)
        samples = self._points(first, np.cos(turn[: len(first)]), np.sin(turn[: len(first)]), floor)
        for _ in range(_ROUNDS):
            if cancelled():
                return None
            matrix = _fitted(samples, moment)
            x = np.concatenate([x, self._climbed(x, matrix, room, floor)])
            reach, cos, sin = self._worst(x, matrix, floor)
            outside = np.argsort(-reach, kind="stable")[:_ADDED]
            if reach[outside[0]] <= _CLOSE:
                break
            samples = np.concatenate([samples, self._points(x[outside], cos[outside], sin[outside], floor)])
        return matrix

    def _points(self, x: FloatArray, cos: FloatArray, sin: FloatArray, floor: float) -> FloatArray:
        """(y h + k c 1) / (|x|² + y² + c² + g) for y² + c² = |x|² + g, where it is largest: cos, sin are those of (y, c)."""
        long = 2.0 * np.sqrt((x * x).sum(axis=1) + floor)[:, None]
        found: FloatArray = (cos[:, None] * self._outputs.values(x) + self._bias * sin[:, None]) / long
        return found

    def _worst(self, x: FloatArray, matrix: FloatArray, floor: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The largest |A p| of the points p at every x, with cos and sin."""
        a_h = self._outputs.values(x) @ matrix.T
        image = self._bias * matrix.sum(axis=1)
        first, second, mixed = (a_h**2).sum(axis=1), float((image**2).sum()), a_h @ image
        turn = 0.5 * np.arctan2(2.0 * mixed, first - second)
        largest = largest_root(first, second, mixed)
        return np.sqrt(largest / ((x * x).sum(axis=1) + floor)) / 2.0, np.cos(turn), np.sin(turn)

    def _climbed(self, x: FloatArray, matrix: FloatArray, room: float, floor: float) -> FloatArray:
        """Changes near those that reach farthest, which reach farther."""
        value, cos, sin = self._worst(x, matrix, floor)
        best = np.argsort(-value, kind="stable")[:_CLIMBERS]
        x, value, cos, sin = x[best], value[best], cos[best], sin[best]
        step = np.full((len(x), 1), 0.1)
        for _ in range(_CLIMBS):
            h, slope, _, _ = self._outputs.polynomial(x, np.zeros(x.shape))
            turned = ((cos[:, None] * h + self._bias * sin[:, None]) @ matrix.T) @ matrix
            ascent = cos[:, None] * np.einsum("bn,bpn->bp", turned, slope) - 4.0 * (value**2)[:, None] * x
            ascent /= np.linalg.norm(ascent, axis=1, keepdims=True) + 1e-300
            moved = x + step * (np.linalg.norm(x, axis=1, keepdims=True) + 0.1 * room) * ascent
            moved *= np.minimum(1.0, room / (np.linalg.norm(moved, axis=1, keepdims=True) + 1e-300))
            higher, new_cos, new_sin = self._worst(moved, matrix, floor)
            better = higher > value
            x, value = np.where(better[:, None], moved, x), np.where(better, higher, value)
            cos, sin = np.where(better, new_cos, cos), np.where(better, new_sin, sin)
            step = np.where(better[:, None], step * 1.3, step * 0.4)
        return x


def _reach(sets: AlikeSets, moment: FloatArray, room: float, others: int) -> float:
    """How far a set's ellipsoid for a room reaches along directions, in the mean of squares."""
    inverse = np.linalg.inv(sets.matrices[0])
    square = float(np.einsum("ij,ik,jk->", moment, inverse, inverse))
    return float(np.sqrt(square) * sets.scales[0] * (room**2 + others * sets.floors[0]))


def _fitted(x: FloatArray, moment: FloatArray) -> FloatArray:
    """A with |A x| <= 1 for the samples x, tr(W (A'A)^-1) small: A'A = W^1/2 (W^1/2 M W^1/2)^-1/2 W^1/2, and M mixes the samples
    that touch.
    """
    if not (np.isfinite(x).all() and np.isfinite(moment).all() and x.any() and moment.any()):
        raise np.linalg.LinAlgError
    weights, turn = np.linalg.eigh(moment)
    root = (turn * np.sqrt(np.maximum(weights, _LEAST_DIRECTION * weights[-1]))) @ turn.T
    y, share = x @ root, np.full(len(x), 1.0 / len(x))
    matrix: FloatArray = np.eye(x.shape[1])
    for _ in range(_FIT):
        axes, vectors = np.linalg.eigh((y * share[:, None]).T @ y)
        part = vectors / np.maximum(axes, 1e-14 * axes[-1]) ** 0.25
        matrix = part.T @ root
        distance = ((y @ part) ** 2).sum(axis=1)
        mean = float(distance @ share)
        if distance.max() <= (2.0 * _CLOSE - 1.0) ** 2 * mean:
            break
        share *= np.sqrt(distance / mean)
        share /= share.sum()
    matrix /= float(np.linalg.norm(x @ matrix.T, axis=1).max())
    if not (np.isfinite(matrix).all() and np.linalg.cond(matrix) < SINGULAR):
        raise np.linalg.LinAlgError
    return matrix
