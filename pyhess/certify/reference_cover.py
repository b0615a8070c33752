"""Whether boxes cover a region, and whether symmetry allows leaving some out; comparisons only, so nothing is rounded."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..model import MLP

FloatArray = npt.NDArray[np.float64]
Keys = tuple[tuple[int, ...], ...]

#: Activations with phi(-s) = -phi(s).
_ODD = ("tanh", "identity")


@dataclass(frozen=True)
class Target:
    """The box that has to be covered: the region's, or the part of it that holds one network of every orbit."""

    low: FloatArray
    high: FloatArray


def target_of(net: MLP, low: FloatArray, high: FloatArray, keys: Keys) -> Target | str:
    """The part with all keys >= 0 of the box [low, high], or why the symmetry does not hold.

    A key is one parameter per unit of a hidden layer, all of them the weights from those units into one unit above. Flipping
    the sign of a unit's incoming weights, bias and outgoing weights leaves the network as it is if its activation is odd, and so
    does exchanging two units of a layer; both turn the Hessian by an orthogonal matrix. Where the box has the same ranges for all
    units of the layer, symmetric about zero, they lead from the box into itself, and from every network in it to one whose keys
    are >= 0 and fall from unit to unit: layer by layer from the top, as changing a layer moves only the keys below it.
    """
    low, high = low.copy(), high.copy()
    part_low = low.copy()
    taken: set[int] = set()
    for key in keys:
        layer = _layer_of(net, key)
        if layer is None or layer in taken:
            return f"the parameters {list(key)} are not the weights from one hidden layer's units into one unit above"
        taken.add(layer)
        if net.activations[layer] not in _ODD:
            return f"the signs of units cannot be changed: {net.activations[layer]} is not odd"
        fan_in, units = net.widths[layer], net.widths[layer + 1]
        weight, bias = net.layer_slices[layer]
        above, _ = net.layer_slices[layer + 1]
        own = [weight.start + fan_in * np.arange(units) + p for p in range(fan_in)]
        own += [above.start + units * h + np.arange(units) for h in range(net.widths[layer + 2])]
        own += [] if bias is None else [bias.start + np.arange(units)]
        for places in own:
            if not ((low[places] == low[places[0]]).all() and (high[places] == -low[places[0]]).all()):
                return f"the region is not the same for all units of hidden layer {layer + 1} and both their signs"
        part_low[list(key)] = np.maximum(part_low[list(key)], 0.0)
    return Target(part_low, high)


def _layer_of(net: MLP, key: tuple[int, ...]) -> int | None:
    for layer in range(net.num_layers - 1):
        above, _ = net.layer_slices[layer + 1]
        units = net.widths[layer + 1]
        for row in range(net.widths[layer + 2]):
            if key == tuple(above.start + units * row + unit for unit in range(units)):
                return layer
    return None


def without_canonical(keys: Keys, low: FloatArray, high: FloatArray) -> npt.NDArray[np.bool_]:
    """For boxes (M, P): whether the keys rise somewhere all over the box, so that it holds no network of those kept."""
    found = np.zeros(len(low), dtype=np.bool_)
    for key in keys:
        for first, second in pairwise(key):
            found |= high[:, first] < low[:, second]
    return found


def is_covered(low: FloatArray, high: FloatArray, target: Target) -> bool:
    """Whether the boxes [low, high] (M, P) together contain the target.

    The target is cut in two at a face of one of the boxes, one that cuts through no box if there is such a face, until a part
    lies in one of the boxes, or none is left for it.
    """
    work = [(np.arange(len(low)), target.low, target.high)]
    while work:
        chosen, start, end = work.pop()
        meets = ((low[chosen] <= end) & (high[chosen] >= start)).all(axis=1)
        chosen = chosen[meets]
        if ((low[chosen] <= start) & (high[chosen] >= end)).all(axis=1).any():
            continue
        cut = cut_at_a_face(low[chosen], high[chosen], start, end)
        if cut is None:
            return False
        k, value = cut
        below_end, above_start = end.copy(), start.copy()
        below_end[k] = above_start[k] = value
        work.append((chosen[low[chosen, k] < value], start, below_end))
        work.append((chosen[high[chosen, k] > value], above_start, end))
    return True


def cut_at_a_face(low: FloatArray, high: FloatArray, start: FloatArray, end: FloatArray) -> tuple[int, float] | None:
    """A parameter and where to cut it strictly inside [start, end], None if no box has a face there."""
    spare: tuple[int, float] | None = None
    for k in range(low.shape[1]):
        order = np.argsort(low[:, k], kind="stable")
        begins, reach = low[order, k], np.maximum.accumulate(high[order, k])
        clean = np.flatnonzero((reach[:-1] <= begins[1:]) & (begins[1:] > start[k]) & (begins[1:] < end[k]))
        if clean.size:
            return k, float(begins[1:][clean[clean.size // 2]])
        if spare is None:
            faces = np.concatenate([low[:, k], high[:, k]])
            faces = faces[(faces > start[k]) & (faces < end[k])]
            if faces.size:
                spare = k, float(np.sort(faces)[faces.size // 2])
    return spare
