"""One output, squared error: what residuals of opposite signs leave of the mixed terms.

The mixed terms of the residual part are sums over data of r_i times slopes, and the moment bound takes absolute values in them.
Along a path of units from the output down to layer l, one in every layer, let kap_i = r_i phi'(s^{D-1}) ... phi'(s^l), in
[m_i - d_i, m_i + d_i]. Then

    |sum_i w_i kap_i z_i| <= |sum_i w_i m_i z_i| + min(sum_i w_i d_i |z_i|, (sum_i w_i d_i²)^(1/2) |Z|),

|Z| the spectral norm of diag(sqrt w) z, and the middles may cancel. With A_l the largest over the paths for z the activations
entering layer l (x~ for the first), and B_l that for z = 1, the block between V^p and V^l, l < p, is at most A_l times the
product of the Frobenius norms of the layers above l but p, and that between V^p and the biases of layer l has B_l for A_l.

As `middles` has it, A_{l+1} is also at most what it is for a^c, plus E_{l+1} = d_l (A_l² + B_l²)^(1/2) + |W^l_c|_F E_l, E_1 = 0.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .intervals import ROOT_TINY, TINY, Interval, gamma, norms
from .middles import Middles, frobenius
from .parts import Parts, without_one
from .propagate import Cell, Propagation
from .spectral import norm_bound

FloatArray = npt.NDArray[np.float64]

#: Data times paths.
_MOST = 2e5


def signed_applies(cell: Cell, rows: int, loss: str) -> bool:
    """Whether `signed_blocks` knows this network and is cheap."""
    net = cell.net
    if net.num_layers < 3 or net.widths[-1] != 1 or loss != "squared_error":
        return False
    return rows * math.prod(map(float, net.widths[1:-1])) <= _MOST


def signed_blocks(cell: Cell, bounds: Propagation, middle: Middles, x: FloatArray, weights: FloatArray) -> FloatArray:
    """Bounds (..., k, k) of the mixed terms' norms between two of the moment bound's columns, all data at once, or inf."""
    net = cell.net
    layers, parts = net.num_layers, Parts.of(net, apart=True)
    activations, biases = _largest_sums(cell, bounds, middle, x, weights)
    room = 1.0 + gamma(8)
    sizes = [(frobenius(block.weight.middle) + frobenius(block.weight.radius) + block.rho) * room for block in cell.blocks]
    out = np.full((*activations[0].shape[:-1], parts.count, parts.count), np.inf)
    for upper in range(1, layers):
        for lower in range(upper):
            factor = np.ones_like(activations[0])
            for layer in range(lower + 1, layers):
                factor = factor if layer == upper else factor * sizes[layer]
            one, other = parts.weight[upper], parts.weight[lower]
            out[..., one, other] = out[..., other, one] = (factor * activations[lower])[..., 0]
            if net.bias and lower > 0:
                other = parts.bias[lower]
                out[..., one, other] = out[..., other, one] = (factor * biases[lower])[..., 0]
    return out * (1.0 + gamma(2 * layers + 32)) + TINY


def _largest_sums(
    cell: Cell, bounds: Propagation, middle: Middles, x: FloatArray, weights: FloatArray
) -> tuple[list[FloatArray], list[FloatArray]]:
    """A and B (..., 1) of all layers but the last; B is zero where the ones are among the activations, or are not there."""
    net, rows = cell.net, x.shape[0]
    inputs = np.concatenate([x, np.ones((rows, 1))], axis=1) if net.bias else x
    none = np.zeros(rows)
    paths = [bounds.delta[-1]]
    for slope in reversed(bounds.slope):
        pairs = paths[0][..., :, None] * slope[..., None, :]
        paths.insert(0, pairs.reshape(*pairs.lo.shape[:-2], -1))
    activations = [_sums(paths[0], inputs, none, weights, _input_norm(inputs, weights)).max(axis=-1, keepdims=True)]
    biases, moved = [np.zeros_like(activations[0])], np.zeros_like(activations[0])
    for layer in range(1, net.num_layers - 1):
        own = bounds.entering[layer]
        length = without_one(bounds.entering_norm[layer], bias=net.bias)
        spread = np.minimum(norms(own.radius), (norms(own.middle) + length) * (1.0 + gamma(4)))
        still = middle.activations[layer - 1]
        both = np.sqrt(activations[-1] ** 2 + biases[-1] ** 2)
        moved = (middle.distance[layer - 1] * both + middle.size[layer - 1] * moved) * (1.0 + gamma(16))
        found = np.fmin(
            _sums(paths[layer], own.middle, spread, weights),
            _sums(paths[layer], still.middle, norms(still.radius), weights) + moved,
        )
        activations.append(found.max(axis=-1, keepdims=True) * (1.0 + gamma(4)))
        if net.bias:
            found = _sums(paths[layer], np.ones((rows, 1)), none, weights, 1.0 + gamma(rows + 16))
        biases.append(found.max(axis=-1, keepdims=True) if net.bias else biases[0])
    return activations, biases


def _input_norm(inputs: FloatArray, weights: FloatArray) -> float:
    scaled = np.sqrt(weights)[:, None] * inputs
    return norm_bound(scaled) * (1.0 + gamma(16)) + ROOT_TINY


def _sums(
    factor: Interval, vectors: FloatArray, spread: FloatArray, weights: FloatArray, length: float | None = None
) -> FloatArray:
    """Bounds (q,) of |sum_i w_i kap_i z_i| for kap (n, q), |z_i - vectors_i| <= spread_i; ``length`` bounds the vectors' |Z|."""
    rows = weights.size
    middle, radius = factor.middle, factor.radius
    sizes = norms(vectors)
    room = 1.0 + gamma(rows + 64)
    weighted = weights[:, None]
    known = norms(np.swapaxes(weighted * middle, -1, -2) @ vectors)
    rounding = gamma(rows + 64) * _summed(weighted * np.abs(middle), sizes)
    apart = _summed(weighted * radius, sizes)
    if length is not None:
        apart = np.fmin(apart, np.sqrt((weighted * radius**2).sum(axis=-2)) * length + ROOT_TINY)
    moved = _summed(weighted * factor.magnitude, spread)
    found: FloatArray = (known + rounding + apart + moved) * room + rows * TINY
    return np.where(np.isnan(found), np.inf, found)


def _summed(factor: FloatArray, sizes: FloatArray) -> FloatArray:
    """sum_i kap_i z_i (q,) for kap (n, q) and numbers z (n,)."""
    total: FloatArray = (np.swapaxes(factor, -1, -2) @ sizes[..., None])[..., 0]
    return total
