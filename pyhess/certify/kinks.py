"""Whether the kinks of a ReLU network can harm convexity on a region: sign bounds, no search.

At a kink s^l_ij = 0 of one unit and datum the slope of the loss jumps by dL/da^l_ij |sdot| along any direction. The loss cannot
lose convexity there if the pre-activation keeps its sign or stays zero on the whole region, or if the cotangent is known to be
>= 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data import Dataset, resolve_targets
from ..model import MLP
from ..regions import Ball, Box, Region
from .moment import data_blocks
from .propagate import Cell, Propagation, propagate, whole_cell

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_MONOTONE = ("relu", "tanh", "sigmoid", "softplus", "identity")
_ZERO_AT_ZERO = ("relu", "tanh", "gelu", "identity")


def relu_kink_status(net: MLP, data: Dataset, loss: str, region: Region) -> tuple[str, int]:
    """What interval propagation proves about the ReLU kinks on a region.

    Parameters
    ----------
    net : MLP
        The network.
    data : Dataset
        Inputs, targets and weights; data of weight zero do not count.
    loss : str
        Name of the loss.
    region : Region
        Bound to the network. Other regions than boxes and balls are judged by those that contain them.

    Returns
    -------
    verdict : str
        ``"no_relu"``; ``"kink_free"``: every pre-activation keeps its sign, or is zero throughout;
        ``"convex_kinks"``: wherever one may vanish, the slope jumps upwards; ``"possible"``: a concave kink could not be
        excluded.
    open_kinks : int
        Number of pairs (datum, unit) that are not excluded; -1 where they were not counted.
    """
    if "relu" not in net.activations:
        return "no_relu", 0
    if not isinstance(region, Box | Ball):
        verdicts = [relu_kink_status(net, data, loss, enclosure) for enclosure in region.enclosures()]
        order = ("kink_free", "convex_kinks", "possible")
        return min(verdicts, key=lambda verdict: (order.index(verdict[0]), verdict[1]), default=("possible", -1))
    cell: Cell = whole_cell(net, region)
    convex, concave = 0, 0
    for x, y, w in data_blocks(cell, data, resolve_targets(data, loss, net.widths[-1])):
        bounds = propagate(cell, x, y, loss)
        upwards = _never_negative(cell, bounds)
        silent = np.zeros(len(x), dtype=bool)
        for layer, name in enumerate(net.activations):
            # Without biases nothing comes of nothing: such pre-activations are zero on the whole region and have no kink.
            entering = bounds.entering[layer]
            silent &= layer > 0 and net.activations[layer - 1] in _ZERO_AT_ZERO
            silent |= ~((entering.lo != 0.0) | (entering.hi != 0.0)).any(axis=1)
            if name != "relu":
                continue
            crossing = (bounds.s[layer].lo <= 0.0) & (bounds.s[layer].hi >= 0.0) & (w > 0.0)[:, None]
            if not net.bias:
                crossing &= ~silent[:, None]
            convex += int(np.count_nonzero(crossing & upwards[layer]))
            concave += int(np.count_nonzero(crossing & ~upwards[layer]))
    if concave:
        return "possible", concave
    return ("convex_kinks" if convex else "kink_free"), 0


def _never_negative(cell: Cell, bounds: Propagation) -> list[BoolArray]:
    """Whether dL/da >= 0 on the whole cell, for every hidden layer (n, out).

    Below the last ReLU layer a gate may be shut and dL/da zero, which intervals rounded outwards cannot tell from negative. So
    signs are carried down as well: dL/da_j is a sum over k of W_kj dL/ds_k, and where phi' >= 0 dL/ds_k has the sign of dL/da_k.
    """
    found: list[BoolArray] = []
    plus, minus = bounds.delta[-1].lo >= 0.0, bounds.delta[-1].hi <= 0.0
    for layer in range(len(bounds.bar) - 1, -1, -1):
        block = cell.blocks[layer + 1]
        positive, negative = block.weight.lo >= block.rho, block.weight.hi <= -block.rho
        # A term counts twice where one of its factors is zero: then both signs hold.
        up_terms, down_terms = (
            _count(first, positive) + _count(second, negative) - _count(first & second, positive & negative)
            for first, second in ((plus, minus), (minus, plus))
        )
        terms = block.weight.lo.shape[0]
        rises = (up_terms == terms) | (bounds.bar[layer].lo >= 0.0)
        falls = (down_terms == terms) | (bounds.bar[layer].hi <= 0.0)
        found.insert(0, rises)
        if cell.net.activations[layer] in _MONOTONE:
            plus, minus = rises, falls
        else:
            plus, minus = bounds.delta[layer].lo >= 0.0, bounds.delta[layer].hi <= 0.0
    return found


def _count(rows: BoolArray, columns: BoolArray) -> FloatArray:
    """How many k have both rows[i, k] and columns[k, j]."""
    return np.asarray(rows.astype(np.float64) @ columns.astype(np.float64))
