"""Branch and bound over the parameters of small networks: to any accuracy for a handful, by the residual part for more."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..model import MLP
from ..objective import Objective
from ..regions import Ball, Box
from .allocation import MAX_BIASES, ball_subdivision
from .cell_bounds import residual_bounds
from .moment import moment_bounds
from .propagate import Cell, box_cells, parameter_scales
from .quadratic import quadratic_knows
from .scalar_ranges import CODES
from .small_boxes import full_bounds
from .subdivision import Cover, Subdivision, covers
from .taylor_kernel import monomials

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LOSSES = {"squared_error": 0, "logistic": 1, "cross_entropy": 2}
_ODD = ("tanh", "identity")

#: Most parameters for bounds of the second and third order over small boxes.
FULL_PARAMS = 6
#: Most parameters, and most multiplications of one enclosure, for branch and bound by the residual part.
BOX_PARAMS, _BOX_COST = 150, 3e7
#: Cells whose moment bounds are computed together, and data times units of them.
_BATCH, _BATCH_NUMBERS = 64, 8000
#: A cell's moment bound takes as long as this many multiplications, and as many again for every datum and unit, fewer where there
#: are no joint bounds; data times parameters up to which cells are looked at.
_MOMENT_WORK, _JOINT_COST, _MOMENT_COST, _MOMENT_MOST = 1e4, 600.0, 150.0, 1e7
#: The same of the quadratic form, for the square of the number of parameters, and for every datum and unit again.
_FORM_WORK, _FORM_COST = 40.0, 0.5


def _problem(obj: Objective) -> tuple[object, ...]:
    """The network and data as the compiled functions take them."""
    net = obj.net
    return (
        np.array(net.widths, dtype=np.int64),
        np.array([CODES[name] for name in net.activations], dtype=np.int64),
        np.array(net.betas, dtype=np.float64),
        np.array([weight.start for weight, _ in net.layer_slices], dtype=np.int64),
        np.array([-1 if bias is None else bias.start for _, bias in net.layer_slices], dtype=np.int64),
        parameter_scales(net),
        np.array(obj.data.X, dtype=np.float64, order="C"),
        np.array(obj.targets, dtype=np.float64, order="C"),
        np.array(obj.data.normalized_weights, dtype=np.float64),
        _LOSSES[obj.loss],
    )


def full_applies(obj: Objective) -> bool:
    """Whether the bounds for small boxes are for this problem: few parameters, smooth."""
    return "full" in boxes_know(obj.net, obj.data.num_samples, ball=True)


def full_subdivision(obj: Objective, region: Box | Ball) -> Subdivision:
    """Branch and bound with bounds of the second and third order, which reach any accuracy."""
    problem = _problem(obj)
    cubic, quartic = (monomials(obj.num_params, degree) for degree in (3, 4))
    box = region if isinstance(region, Box) else region.box_around()
    radius, centre = (
        (float(region.radius), np.array(region.center)) if isinstance(region, Ball) else (0.0, np.zeros(obj.num_params))
    )

    def evaluate(lows: FloatArray, highs: FloatArray, bounds: FloatArray, splits: IntArray) -> None:
        full_bounds(problem, cubic, quartic, radius, centre, lows, highs, bounds, splits)
        coarse = np.empty_like(bounds)
        residual_bounds(problem, lows, highs, coarse)
        np.maximum(bounds, coarse, out=bounds)

    return Subdivision(evaluate, *_without_copies(obj.net, box))


def recheck(obj: Objective, region: Box | Ball, name: str, cover: Cover) -> float:
    """The bound that the boxes of a cover prove, computed afresh; -inf if they do not cover the region, or are not about it."""
    if name == "full":
        search = full_subdivision(obj, region)
    elif name == "cells":
        search = cell_subdivision(obj, region)
    elif isinstance(region, Box):
        search = box_subdivision(obj, region)
    else:
        return -math.inf
    fits = cover.keys == search.keys and cover.low.shape[1] == search.low.size
    if not fits or not covers(cover, search.low, search.high):
        return -math.inf
    bounds = search.evaluated(cover.low, cover.high)
    return float(np.min(bounds))


def boxes_apply(obj: Objective) -> bool:
    """Whether branch and bound by the residual part is within reach."""
    return "boxes" in boxes_know(obj.net, obj.data.num_samples, ball=False)


def boxes_know(net: MLP, num_samples: int, *, ball: bool) -> list[str]:
    """The methods that bound boxes of parameters of such a network."""
    names = ["full"] if net.num_params <= FULL_PARAMS and "relu" not in net.activations else []
    small = net.num_params <= BOX_PARAMS and num_samples * float(net.num_params) ** 2 <= _BOX_COST
    return [*names, "boxes"] if small and not ball else names


def box_subdivision(obj: Objective, region: Box) -> Subdivision:
    """Branch and bound with the comparison matrix of the residual part; one box of every orbit of the network's symmetries."""
    problem = _problem(obj)

    def evaluate(lows: FloatArray, highs: FloatArray, bounds: FloatArray, splits: IntArray) -> None:
        residual_bounds(problem, lows, highs, bounds)
        splits[:] = -1

    return Subdivision(evaluate, *_without_copies(obj.net, region))


def cells_apply(obj: Objective, region: Box | Ball) -> bool:
    """Whether branch and bound with the moment bound is worth trying: several hidden layers, few parameters or a ball."""
    return cells_know(obj.net, obj.data.num_samples, ball=isinstance(region, Ball))


def cells_know(net: MLP, num_samples: int, *, ball: bool) -> bool:
    """The same from sizes alone."""
    if net.num_layers < 3 or num_samples * float(net.num_params) > _MOMENT_MOST:
        return False
    return net.widths[-1] <= MAX_BIASES if ball else net.num_params <= BOX_PARAMS


def cell_subdivision(obj: Objective, region: Box | Ball) -> Subdivision:
    """Branch and bound with the moment bound: over the parameters, or over a ball's shares and output biases."""
    go_on = np.zeros(1, dtype=np.int32)
    batch = int(np.clip(_BATCH_NUMBERS // (obj.data.num_samples * max(obj.net.widths)), 1, _BATCH))

    def bounds_of(cells: Cell) -> FloatArray:
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            found = moment_bounds(cells, obj.data, obj.targets, obj.loss, go_on, quadratic=True)
        assert found is not None  # nobody cancels it
        return found

    if isinstance(region, Ball):
        return ball_subdivision(bounds_of, obj, region, batch)

    def evaluate(lows: FloatArray, highs: FloatArray, bounds: FloatArray, splits: IntArray) -> None:
        splits[:] = -1
        for begin in range(0, len(lows), batch):
            some = slice(begin, begin + batch)
            bounds[some] = bounds_of(box_cells(obj.net, lows[some], highs[some]))

    return Subdivision(evaluate, *_without_copies(obj.net, region), piece=batch)


def _without_copies(net: MLP, box: Box) -> tuple[FloatArray, FloatArray, tuple[tuple[int, ...], ...]]:
    """(low, high, keys) of the part of the box with all keys >= 0."""
    low, high = np.array(box.low), np.array(box.high)
    keys = symmetry_keys(net, low, high)
    for layer in keys:
        low[list(layer)] = np.maximum(low[list(layer)], 0.0)
    return low, high, keys


def symmetry_keys(net: MLP, low: FloatArray, high: FloatArray) -> tuple[tuple[int, ...], ...]:
    """One parameter for every unit of the hidden layers whose units may be put in any order, and flipped, inside the box.

    For an odd activation the sign of a unit's incoming weights, bias and outgoing weights can be changed, so the first outgoing
    weights
    may be taken as >= 0 and falling, wherever the box is the same for all units of the layer and symmetric about zero.
    """
    found = []
    for layer, name in enumerate(net.activations):
        units = net.widths[layer + 1]
        (weight, bias), (above, _) = net.layer_slices[layer], net.layer_slices[layer + 1]
        sides = []
        for end in (low, high):
            rows, columns = end[weight].reshape(units, -1), end[above].reshape(-1, units).T
            parts = [rows, columns] if bias is None else [rows, columns, end[bias][:, None]]
            sides.append(np.concatenate(parts, axis=1))
        if name in _ODD and (sides[0] == -sides[1]).all() and (sides[0] == sides[0][0]).all():
            found.append(tuple(range(above.start, above.start + units)))
    return tuple(found)


def cell_costs(obj: Objective) -> dict[str, float]:
    """Multiplications for one box by each method, roughly."""
    return box_work(obj.net, obj.data.num_samples)


def box_work(net: MLP, samples: int) -> dict[str, float]:
    """The same, from sizes alone."""
    size, units = net.num_params, sum(net.widths[1:])
    form = (_FORM_WORK + _FORM_COST * samples * net.widths[-2]) * float(size) ** 2 if quadratic_knows(net, samples) else 0.0
    vertices = 2.0 ** min(size, 64) * (1.0 + size / 2.0)  # of few parameters or of no use
    return {
        "boxes": samples * float(size) ** 2 + 4.0 * float(size) ** 3,
        "cells": _MOMENT_WORK + (_JOINT_COST if net.widths[-1] == 1 else _MOMENT_COST) * samples * units + form,
        "full": samples * units * (float(size) + 1.0) ** 3 + vertices * float(size) ** 3,
    }
