"""The moment bound: a recursion in the norms of the layers' blocks, with enclosures of everything else.

For a direction v with blocks (V^l, c^l) of sizes t_l the residual part of the Hessian is, per datum,

    v'Rv = sum_{l>=2} 2 delta^l . V^l adot^{l-1} + sum_{l<D} sum_j bar^l_j phi''(s^l_j) (sdot^l_j)^2,

and |sdot^l| <= q_l = |W^l| sup phi' q_{l-1} + |a^{l-1}| |V^l| + |c^l|. The Gauss-Newton part is positive semi-definite and
dropped. Only the negative part of bar phi'' counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np
import numpy.typing as npt

from ..data import Dataset
from .forms import FormSum, HiddenSum, largest
from .intervals import gamma
from .joint import Last, steep_and_curved
from .middles import middles
from .parts import Parts
from .propagate import Cell, Propagation, propagate
from .quadratic import quadratic_bounds, quadratic_knows
from .signed import signed_applies, signed_blocks

FloatArray = npt.NDArray[np.float64]

#: Numbers in one block's widest intermediate array, and its rows at most: between two blocks the work can be cancelled.
_BLOCK_NUMBERS, _BLOCK_ROWS = 2**20, 8192
#: Inputs up to which the second layer's moments are looked at as well: they cost as much as the first layer's.
_MOST_INPUTS = 1024


def data_blocks(cell: Cell, data: Dataset, targets: FloatArray) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
    """(x, y, w) for blocks of rows small enough to keep the intermediate arrays in memory."""
    rows = min(_BLOCK_ROWS, max(16, _BLOCK_NUMBERS // max(cell.net.widths)))
    weights = data.normalized_weights
    for begin in range(0, data.num_samples, rows):
        part = slice(begin, begin + rows)
        yield data.X[part], targets[part], weights[part]


def _steepest(bounds: Propagation, layer: int) -> FloatArray:
    steepest: FloatArray = bounds.slope[layer].magnitude.max(axis=-1)
    return steepest


def _sharpest(bounds: Propagation, layer: int) -> FloatArray:
    sharpest: FloatArray = np.maximum(0.0, -bounds.curved[layer].lo).max(axis=-1)
    return sharpest


def tangent_forms(cell: Cell, bounds: Propagation, parts: Parts) -> list[FloatArray]:
    """P_l (n, columns) with |sdot^l| <= P_l . t; column 0 multiplies y_i instead of t_1."""
    layers = cell.net.num_layers
    forms: list[FloatArray] = []
    for layer in range(layers):
        if layer == 0:
            form = np.zeros((*bounds.delta_norm[0].shape, parts.count))
            form[..., 0] = 1.0
        else:
            steepest = _steepest(bounds, layer - 1)
            form = (cell.blocks[layer].spectral * steepest)[..., None] * forms[-1] + parts.own(bounds, layer)
        forms.append(form * (1.0 + gamma(8)))
    return forms


def residual_forms(cell: Cell, bounds: Propagation, parts: Parts) -> tuple[FloatArray, FloatArray]:
    """(M', M'') (n, columns, columns), for every datum v'Rv >= -t'(M' + M'')t: mixed terms (zero diagonal) and curved ones."""
    layers = cell.net.num_layers
    tangent = tangent_forms(cell, bounds, parts)
    pairs = np.zeros((*tangent[0].shape, parts.count))
    total = np.zeros_like(pairs)
    for layer in range(1, layers):
        mixed = (bounds.delta_norm[layer] * _steepest(bounds, layer - 1))[..., None] * tangent[layer - 1]
        if layer == layers - 1 and bounds.joint is not None:
            mixed = _last_mixed(cell, bounds, bounds.joint, tangent, parts)
        pairs[..., parts.weight[layer], :] += mixed
        pairs[..., :, parts.weight[layer]] += mixed
    for layer in range(layers - 1):
        sharpest = _sharpest(bounds, layer)
        if layer == layers - 2 and layer > 0 and bounds.joint is not None:
            total += _last_curved(cell, bounds, bounds.joint, sharpest, tangent, parts)
        else:
            total += sharpest[..., None, None] * _outer(tangent[layer], tangent[layer])
    total = total * (1.0 + gamma(8 * layers + 32))
    if layers > 2:
        _first_together(cell, bounds, total)
    return pairs * (1.0 + gamma(8 * layers + 32)), total


def _first_together(cell: Cell, bounds: Propagation, total: FloatArray) -> None:
    """Lower the entry of the first layer with itself: its units cannot be steep and curved at once.

    Of that entry, sup_k (-bar_k phi''_k)_+ is the layer's own; the rest is what multiplies |adot|² = sum_k (phi'_k y_k)², times
    sup phi'².
    """
    net = cell.net
    own, steepest = _sharpest(bounds, 0), _steepest(bounds, 0)
    rest = np.maximum(0.0, total[..., 0, 0] - own) * (1.0 + gamma(8))
    # What `bent` bounds multiplies sum_k (phi'_k y_k / g_k)² with the relative slopes g_k that its rows have.
    slopes = steepest[..., None]
    if net.num_layers == 3 and bounds.joint is not None and bounds.joint.relative:
        slopes = bounds.slope[0].magnitude
    # Where the slopes' squares could underflow, the entry stays as it is.
    coefficient = rest[..., None] / np.where(slopes > 1e-100, slopes, np.nan) ** 2 * (1.0 + gamma(8))
    found = steep_and_curved((net.activations[0], net.betas[0]), bounds.s[0], bounds.bar[0], coefficient)
    if found is not None:
        total[..., 0, 0] = np.fmin(total[..., 0, 0], found)


def _outer(a: FloatArray, b: FloatArray) -> FloatArray:
    product: FloatArray = a[..., :, None] * b[..., None, :]
    return product


def _own_and_below(bounds: Propagation, tangent: list[FloatArray], layer: int, parts: Parts) -> tuple[FloatArray, FloatArray]:
    """|V (a, 1)| and the form of |adot| entering the layer: |sdot| <= the first plus |W| times the second."""
    return parts.own(bounds, layer), _steepest(bounds, layer - 1)[..., None] * tangent[layer - 1]


def _last_mixed(cell: Cell, bounds: Propagation, joint: Last, tangent: list[FloatArray], parts: Parts) -> FloatArray:
    """|r| |phi' sdot| in the last hidden layer: sqrt(sum_j (phi'_j |W_j|)^2) for the part W adot of sdot."""
    layer = len(tangent) - 2
    if layer == 0:
        return joint.peak[..., None] * tangent[0]
    own, below = _own_and_below(bounds, tangent, layer, parts)
    through = np.minimum(joint.peak * cell.blocks[layer].spectral, joint.steep)
    return joint.peak[..., None] * own + through[..., None] * below


def _last_curved(
    cell: Cell, bounds: Propagation, joint: Last, sharpest: FloatArray, tangent: list[FloatArray], parts: Parts
) -> FloatArray:
    """sum_j kap_j (V_j . (a, 1) + W_j . adot)^2 with kap_j = (-r v_j phi''_j)_+, the sums over units taken together."""
    layer = len(tangent) - 2
    own, below = _own_and_below(bounds, tangent, layer, parts)
    spectral = cell.blocks[layer].spectral
    through = np.minimum(sharpest * spectral**2, joint.bent)
    # Cauchy-Schwarz in the sum over units for the mixed part.
    mixed = np.sqrt(sharpest * through)[..., None, None] * _outer(own, below)
    form: FloatArray = sharpest[..., None, None] * _outer(own, own) + mixed + np.swapaxes(mixed, -1, -2)
    return form + through[..., None, None] * _outer(below, below)


def moment_bound(cell: Cell, data: Dataset, targets: FloatArray, loss: str, cancelled: npt.NDArray[np.int32]) -> float | None:
    """Lower bound of psi over the cell; None if cancelled."""
    found = moment_bounds(cell, data, targets, loss, cancelled)
    return None if found is None else float(found)


def moment_bounds(
    cell: Cell, data: Dataset, targets: FloatArray, loss: str, cancelled: npt.NDArray[np.int32], *, quadratic: bool = False
) -> FloatArray | None:
    """Lower bounds (...) of psi over every cell of a stack; None if cancelled. With ``quadratic`` also by `quadratic_bounds`."""
    net = cell.net
    parts = Parts.of(net, apart=True)
    pairs, total = (FormSum(parts.count, net.widths[0], net.bias) for _ in range(2))
    deep = net.num_layers > 2
    # The second layer's weights have a column of their own.
    together = deep and net.widths[0] <= _MOST_INPUTS and (parts.weight != parts.bias or not net.bias)
    hidden = range(1, net.num_layers - 1) if together else range(0)
    sharper = [
        [HiddenSum(layer, parts.weight[layer], parts.count, net.widths[0], net.bias) for layer in hidden] for _ in range(2)
    ]
    signed = signed_applies(cell, data.num_samples, loss)
    known = np.full((parts.count, parts.count), np.inf)
    for x, y, w in data_blocks(cell, data, targets):
        if cancelled[0]:
            return None
        bounds = propagate(cell, x, y, loss)
        mixed, curved = residual_forms(cell, bounds, parts)
        pairs.add(mixed, x, w)
        total.add(curved, x, w)
        if deep:
            middle = middles(cell, bounds, x)
            for sums, forms in zip(sharper, (mixed, curved), strict=True):
                for one, layer in zip(sums, hidden, strict=True):
                    one.add(forms, parts.own(bounds, layer)[..., parts.weight[layer]], middle, x, w)
            if signed and x.shape[0] == data.num_samples:
                known = signed_blocks(cell, bounds, middle, x, w)
    scales = parts.spread(np.array(net.layer_scales)) * (1.0 + gamma(4))
    mixed, curved = pairs.form(scales), total.form(scales)
    mixed, curved = (
        reduce(np.fmin, (one.form(scales) for one in sums), form) for form, sums in zip((mixed, curved), sharper, strict=True)
    )
    form = np.fmin(mixed, known * np.outer(scales, scales) * (1.0 + gamma(4))) + curved
    found = -largest(form * (1.0 + gamma(4)))
    if quadratic and quadratic_knows(net, data.num_samples) and x.shape[0] == data.num_samples:
        return quadratic_bounds(cell, bounds, middle, x, w, found)
    return found
