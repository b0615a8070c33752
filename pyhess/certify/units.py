"""One hidden layer: a lower bound of psi by branch and bound over the weights of a single unit.

Without the positive semi-definite Gauss–Newton part the Hessian is block diagonal over the hidden units, so that

    psi >= min over units j of min over theta of eigval_min(R_j(theta)),

and R_j depends on the other units through the residuals alone. Cells of unit j's weights (u, v) are bounded one by one
(`unit_cells`), whatever the other units do (`unit_rest`), and narrow ones by a relaxation, too, where that pays
(`unit_relaxed_cells`). The cell with the worst bound is cut in two, until the bound is good enough or time is up. Every state is
a cover of the region, so its worst bound is always valid. Units with the same ranges are looked at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from .._threads import blas_single_thread
from ..linearization import network_arguments
from ..model import MLP
from ..objective import Objective
from ..regions import Ball, Box, Region
from .intervals import gamma, norms
from .subdivision import Progress
from .unit_alike import AlikeFit, Worst, alike
from .unit_cells import ACTIVATIONS, TWINS, UnitCells
from .unit_cover import AlikeSets, JointSets, UnitLeaves
from .unit_joint import find_joint, joint_applies
from .unit_relaxed_cells import RelaxedCells, relaxation_applies
from .unit_rest import Roots, describe, find_roots
from .unit_rooms import Rooms, rooms_left

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Cells per round: this share of the open ones, between these limits.
_SHARE, _MIN_ROUND, _MAX_ROUND = 0.25, 64, 4096
#: The same share where relaxed bounds pay, how much of what a cell misses of the aim such a bound must bring, and how many cells
#: it counts as, as it takes so much longer.
_RELAXED_SHARE, _GAIN, _RELAXED_CELLS = 0.05, 0.2, 6
#: One cell of so many is bounded with both models of the other units, not only with that of the cell it was cut from.
_BOTH = 3
#: Relative distance to a witness's value at which the search ends, unless another one is asked for.
_RTOL = 1e-4
#: The search ends where four times as many cells has improved the bound by less than this.
_WORTHWHILE = 1e-4
#: Cells after which ellipsoids are fitted to what the other units add, and the worst of them that judge these.
_JOINT_AFTER, _JUDGES = 12_000, 400
#: Growth of the number of cells after which that is looked at again.
_AGAIN = 1.6
#: Seconds that have to be left for that, and the share of them that it may take.
_JOINT_SECONDS, _JOINT_SHARE = 6.0, 0.35
#: Multiplications per cell, symbols and (D + K)² that the whole search may not exceed.
_MAX_SIZE = 32


@dataclass(frozen=True, eq=False)
class UnitCover:
    """Cells that cover what one unit of each type can be, and what proves the bound on each.

    Attributes
    ----------
    cells : (C, 2, dims) array
        Low and high ends of (u, v), then, for twins, of the further unit u'; effective parameters (NTK scales folded in).
    roots : (C,) int array
        Row of the models in ``starts`` that holds on the cell.
    bounds : (C,) array
        Proved lower bounds of the unit's block on the cell.
    models : (C,) int array
        0: twins or affine model of the other units, 1: their range.
    weights : (C, D + K, D + K) array
        The Z (lower triangle) that majorants and split weights tau were made for.
    starts : Roots
        The starting cells and the models of the other units.
    joint : JointSets, AlikeSets or None
        Ellipsoids around what the other units add, if they were used.
    """

    cells: FloatArray
    roots: IntArray
    bounds: FloatArray
    models: IntArray
    weights: FloatArray
    starts: Roots
    joint: JointSets | AlikeSets | None

    def leaves(self, obj: Objective, region: Box | Ball) -> UnitLeaves:
        """What a certificate keeps of it."""
        types = describe(obj, region).types
        models: dict[str, npt.NDArray[Any]] = self.starts.rest
        unit = np.array([types[t][0] for t in self.starts.types], dtype=np.int64)
        return UnitLeaves(
            self.cells, self.bounds, self.roots, unit, models["kinds"] == TWINS, models["amplitude"], models["offset"]
        )


@dataclass(frozen=True, eq=False)
class UnitBound:
    """A lower bound of psi: ``finished`` if it reached the asked accuracy, ``cells`` evaluated, ``cover`` proves it."""

    psi_lower: float
    cells: int
    finished: bool
    seconds: float
    cover: UnitCover


def unit_bound_applies(obj: Objective, region: Region) -> bool:
    """Whether `unit_bound` knows this case: one smooth hidden layer, a box or a ball, not too many inputs and outputs."""
    return isinstance(region, Box | Ball) and units_know(obj.net)


def units_know(net: MLP) -> bool:
    """The same, for any box or ball."""
    if net.num_layers != 2 or net.activations[0] not in ACTIVATIONS:
        return False
    return net.widths[0] + int(net.bias) + net.widths[2] <= _MAX_SIZE


def unit_work(net: MLP, num_samples: int) -> float:
    """Multiplications for one cell, roughly."""
    return 30.0 * num_samples * float(net.widths[0] + net.widths[2] + net.bias) ** 2 + 1e4


def unit_bound(
    obj: Objective,
    region: Region,
    *,
    psi_upper: float | None = None,
    rtol: float = _RTOL,
    deadline: float | None = None,
    max_cells: int = 200_000,
    stop: npt.NDArray[np.int32] | None = None,
    ellipsoids: bool = True,
    progress: Progress | None = None,
) -> UnitBound | None:
    """Bound psi from below by branch and bound over one unit's weights; None where `unit_bound_applies` does not.

    Parameters
    ----------
    obj : Objective
    region : Region
        Bound to the network.
    psi_upper : float, optional
        A witness's value: the search ends where the bound is within ``rtol`` of it.
    rtol : float
        Relative accuracy asked for.
    deadline : float, optional
        Reading of `time.monotonic` at which to end.
    max_cells : int
        Cells to evaluate at most.
    stop : (1,) int32 array, optional
        Set ``stop[0] = 1`` from another thread to end early.
    ellipsoids : bool
        Whether ellipsoids may be looked for.
    progress : callable, optional
        Called after every round with a dict (psi_lower, gap, cells); the gap is relative to ``psi_upper``, NaN without one.
    """
    if not unit_bound_applies(obj, region):
        return None
    assert isinstance(region, Box | Ball)
    flag = np.zeros(1, dtype=np.int32) if stop is None else stop
    with blas_single_thread(), np.errstate(over="ignore", under="ignore", invalid="ignore"):
        search = UnitSearch(obj, region, flag, ellipsoids=ellipsoids)
        search.run(psi_upper, math.inf if deadline is None else deadline, max_cells, progress, rtol)
    return search.result()


@dataclass(frozen=True, eq=False)
class _Leaves:
    """Cells that cover the region, with what is known of each; replaced as one, so that an interrupt leaves a cover.

    ``relaxed`` says of which the relaxation was tried.
    """

    cells: FloatArray
    index: IntArray
    bounds: FloatArray
    splits: IntArray
    models: IntArray
    directions: FloatArray
    relaxed: npt.NDArray[np.bool_]

    def without(self, places: IntArray) -> _Leaves:
        kept = np.ones(len(self.bounds), dtype=bool)
        kept[places] = False
        return self.of(kept)

    def of(self, chosen: npt.NDArray[Any]) -> _Leaves:
        return _Leaves(*(x[chosen] for x in vars(self).values()))

    def and_these(self, others: _Leaves) -> _Leaves:
        return _Leaves(*(np.concatenate(pair) for pair in zip(vars(self).values(), vars(others).values(), strict=True)))


class UnitSearch:
    """The branch and bound of `unit_bound`, whose result may be asked for at any time."""

    def __init__(self, obj: Objective, region: Box | Ball, stop: npt.NDArray[np.int32], *, ellipsoids: bool = True) -> None:
        self.began = monotonic()
        self.stop = stop
        self.obj = obj
        self.units = units = describe(obj, region)
        self.roots = find_roots(obj, units)
        net = obj.net
        codes = network_arguments(net, obj.loss)

        def task(models: dict[str, npt.NDArray[Any]]) -> UnitCells:
            return UnitCells(numbers, arrays | models)

        numbers: dict[str, Any] = {
            "outputs": net.widths[2],
            "activation": codes["activations"][0],
            "loss": codes["loss"],
            "beta": net.betas[0],
            "scale_u": units.scale_u,
            "scale_v": units.scale_v,
            "squared_radius": self.roots.squared_radius,
        }
        arrays: dict[str, npt.NDArray[Any]] = {
            "z": units.z,
            "norms": norms(units.z) * (1.0 + gamma(8)),
            "weights": obj.data.normalized_weights,
            "targets": obj.targets,
            "mass": obj.targets.sum(axis=1),
            "inverse": self.roots.inverse,
        }
        self.new_task = task
        self.task = task({"centers": self.roots.centers, **self.roots.rest})
        self.rooms: Rooms | None = None
        self.fit: AlikeFit | None = None
        self.joined = _JOINT_AFTER / _AGAIN
        self.joint_left: float | None = None
        self.joint_due = ellipsoids and joint_applies(obj, units)
        self.alike = alike(obj, units, region)
        self.relaxation = RelaxedCells(obj, units, self.roots) if relaxation_applies(obj, units) else None
        count = len(self.roots.types)
        self.leaves = self._evaluated(self.roots.cells.copy(), np.arange(count), np.full(count, -np.inf))
        self.evaluated = count
        self.finished = False

    def _evaluated(self, cells: FloatArray, index: IntArray, parents: FloatArray, models: IntArray | None = None) -> _Leaves:
        if self.rooms is not None:
            found = self.rooms.bound(cells, index, parents, self.stop, self.task, models)
        else:
            found = self.task.bound(cells, index, parents, self.stop, models)
        return _Leaves(cells, index, *found, np.zeros(len(cells), dtype=bool))

    def _join(self, deadline: float) -> None:
        """Fit ellipsoids to what the other units add, and see where they serve."""
        self.joined, began = self.evaluated, monotonic()
        if deadline - began < _JOINT_SECONDS:
            return
        if self.joint_left is None:
            self.joint_left = _JOINT_SHARE * (deadline - began)
        end = began + self.joint_left

        def cancelled() -> bool:
            return bool(self.stop[0]) or monotonic() > end

        worst = self.leaves.of(np.argsort(self.leaves.bounds, kind="stable")[:_JUDGES])
        sets: JointSets | AlikeSets | None = None if self.rooms is None else self.rooms.sets
        if self.alike:
            self.fit = AlikeFit(self.obj, self.units) if self.fit is None else self.fit
            sets = self.fit.adapted(self._worst(worst), cancelled)
        elif sets is None:
            sets = find_joint(self.obj, self.units, cancelled)
        self.joint_left -= monotonic() - began
        self.joint_due = self.joint_left > 0.0
        if not len(sets.rooms):
            return
        if self.rooms is None or sets is not self.rooms.sets:
            net = self.obj.net
            self.rooms = Rooms(sets, self.units, self.roots, net.activations[0], net.betas[0], self.new_task)
        self.rooms.choose(worst.cells, worst.index, self.stop, self.task)

    def _worst(self, leaves: _Leaves) -> Worst:
        cells, index, size = leaves.cells, leaves.index, self.roots.inverse.size
        rooms = rooms_left(cells, self.roots.centers[index], self.roots.inverse, self.roots.squared_radius)
        lower = np.tril(leaves.directions)
        mixtures = lower + np.tril(lower, -1).transpose(0, 2, 1)
        return Worst(0.5 * (cells[:, 0, :size] + cells[:, 1, :size]), mixtures, rooms, self.evaluated)

    def run(self, witness: float | None, deadline: float, max_cells: int, progress: Progress | None, rtol: float = _RTOL) -> None:
        """Cut the worst cells until the bound is within ``rtol`` of the witness's value, or there is no more time or gain."""
        target = 0.0 if witness is None else min(witness - rtol * abs(witness), 0.0)
        checkpoint, reference = 50_000 + 4 * len(self.leaves.bounds), -math.inf
        while True:
            lowest = self.psi_lower
            if progress is not None:
                gap = math.nan if witness is None or witness == 0.0 else (witness - lowest) / abs(witness)
                progress({"psi_lower": lowest, "gap": gap, "cells": float(self.evaluated)})
            bounds = self.leaves.bounds
            if lowest >= target:
                self.finished = True
                return
            places = np.flatnonzero((bounds < target) & (self.leaves.splits >= 0))
            exhausted = not len(places) or lowest < bounds[places].min()
            if exhausted or self.stop[0] or monotonic() >= deadline or self.evaluated >= max_cells:
                return
            if self.evaluated >= checkpoint:
                if lowest - reference <= _WORTHWHILE * abs(lowest):
                    return
                checkpoint, reference = 4 * self.evaluated, lowest
            if self.joint_due and self.evaluated >= _AGAIN * self.joined and not (self.relaxation and self.relaxation.pays):
                self._join(deadline)
            chosen = self._chosen(places, max_cells)
            if self.relaxation is not None:
                chosen = self._relaxed(self.relaxation, chosen, target)
            self._cut(chosen)

    def _chosen(self, places: IntArray, max_cells: int) -> IntArray:
        """The worst cells, the next to be cut."""
        share = _SHARE if self.relaxation is None or not self.relaxation.pays else _RELAXED_SHARE
        count = int(np.clip(share * len(places), _MIN_ROUND, _MAX_ROUND))
        count = max(1, min(count, len(places), (max_cells - self.evaluated + 1) // 2))
        return np.asarray(places[np.argsort(self.leaves.bounds[places], kind="stable")[:count]])

    def _relaxed(self, relaxation: RelaxedCells, chosen: IntArray, target: float) -> IntArray:
        """Bound those of these cells anew that it may pay for; which of them are to be cut all the same."""
        leaves = self.leaves
        fresh = chosen[~leaves.relaxed[chosen]]
        tried = fresh[relaxation.worth(leaves.cells[fresh])]
        if not tried.size:
            return chosen
        bounds, relaxed = leaves.bounds.copy(), leaves.relaxed.copy()
        before = bounds[tried]
        found = relaxation.bounds(leaves.cells[tried], leaves.index[tried], target, self.stop)
        self.evaluated += _RELAXED_CELLS * len(tried)
        relaxation.learn(leaves.cells[tried], found >= before + _GAIN * (target - before))
        bounds[tried], relaxed[tried] = np.maximum(before, found), True
        self.leaves = replace(leaves, bounds=bounds, relaxed=relaxed)
        # The others are no worse than the best of the chosen ones was.
        return np.asarray(chosen[bounds[chosen] <= leaves.bounds[chosen[-1]]])

    def _cut(self, chosen: IntArray) -> None:
        leaves, count = self.leaves, len(chosen)
        parts = np.repeat(leaves.cells[chosen], 2, axis=0)
        rows, sides = np.arange(2 * count), np.repeat(leaves.splits[chosen], 2)
        middle = 0.5 * (parts[rows, 0, sides] + parts[rows, 1, sides])
        parts[rows[0::2], 1, sides[0::2]] = middle[0::2]
        parts[rows[1::2], 0, sides[1::2]] = middle[1::2]
        # What was the better model for a cell mostly is for its parts.
        models = np.repeat(leaves.models[chosen], 2)
        models[::_BOTH] = -1
        found = self._evaluated(parts, np.repeat(leaves.index[chosen], 2), np.repeat(leaves.bounds[chosen], 2), models)
        self.evaluated += 2 * count
        # Cells outside the ball have infinite bounds.
        self.leaves = leaves.without(chosen).and_these(found.of(found.bounds < math.inf))

    @property
    def psi_lower(self) -> float:
        """The worst bound; zero is an eigenvalue of the residual part, so no more can be proved this way."""
        return min(0.0, float(self.leaves.bounds.min(initial=0.0)))

    def result(self) -> UnitBound:
        """What is proved so far."""
        sets, leaves = None, self.leaves
        if self.rooms is not None:
            used = self.rooms.used(leaves.cells, leaves.index)
            sets = self.rooms.sets.those(used) if used.any() else None
        cover = UnitCover(leaves.cells, leaves.index, leaves.bounds, leaves.models, leaves.directions, self.roots, sets)
        return UnitBound(self.psi_lower, self.evaluated, self.finished, monotonic() - self.began, cover)
