"""Two hidden layers, one output, squared error: what residuals of opposite signs leave of the mixed terms.

The mixed terms of the residual part are sums over data of r_i times slopes, and the moment bound takes absolute values in them.
With kap_i = r_i phi'(s²_ij) phi'(s¹_ik) in [m_i - d_i, m_i + d_i],

    |sum_i w_i kap_i x_i| <= |sum_i w_i m_i x_i| + min(sum_i w_i d_i |x_i|, (sum_i w_i d_i²)^(1/2) |X|),

|X| the spectral norm of diag(sqrt w) (x, 1), and the middles may cancel. With u the largest over the units j, k and W², v the
layers' weights, the blocks between the first layer and the others are at most |v| u (second) and |W²|_F u (third); those between
the third and the second's weights or biases are the largest |sum_i w_i r_i phi'(s²_ij) a_i| or |sum_i w_i r_i phi'(s²_ij)|. As
a_i - a^c_i is phi' times V^1 x~_i in `first_layer`, the former is at most |sum_i w_i r_i phi'(s²_ij) a^c_i| + d u.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .first_layer import FirstLayer
from .intervals import ROOT_TINY, TINY, Interval, gamma, norms
from .propagate import Cell, Propagation
from .spectral import norm_bound

FloatArray = npt.NDArray[np.float64]

#: Data times pairs of units.
_MOST = 2e5


def signed_applies(cell: Cell, rows: int, loss: str) -> bool:
    """Whether `signed_blocks` knows this network and is cheap."""
    net = cell.net
    if net.num_layers != 3 or net.widths[-1] != 1 or loss != "squared_error":
        return False
    return rows * float(net.widths[1] * net.widths[2]) <= _MOST


def signed_blocks(cell: Cell, bounds: Propagation, first: FirstLayer, x: FloatArray, weights: FloatArray) -> FloatArray:
    """Bounds (..., k, k) of the mixed terms' norms between two of the moment bound's columns, all data at once; inf is unknown.

    The columns are the first layer, the second's weights, its biases if there are any, and the third.
    """
    net = cell.net
    rows = x.shape[0]
    inputs = np.concatenate([x, np.ones((rows, 1))], axis=1) if net.bias else x
    second = bounds.delta[2] * bounds.slope[1]  # r phi'(s²): (..., n, m2)
    pairs = second[..., :, None] * bounds.slope[0][..., None, :]
    length = _input_norm(inputs, weights)
    u = _sums(pairs.reshape(*pairs.lo.shape[:-2], -1), inputs, np.zeros(rows), weights, length).max(axis=-1, keepdims=True)
    own = bounds.entering[1]
    middle = own.middle
    length_a = without_one(bounds.entering_norm[1], bias=net.bias)
    spread = np.minimum(norms(own.radius), (norms(middle) + length_a) * (1.0 + gamma(4)))
    between = _sums(second, middle, spread, weights, np.inf)
    still = first.middle
    between = np.fmin(between, _sums(second, still.middle, norms(still.radius), weights, np.inf) + first.distance * u)
    inner = cell.blocks[1]
    size = (_frobenius(inner.weight.middle) + _frobenius(inner.weight.radius) + inner.rho) * (1.0 + gamma(8))
    last = 3 if net.bias else 2
    out = np.full((*u.shape[:-1], last + 1, last + 1), np.inf)
    out[..., 0, 1] = out[..., 1, 0] = (cell.blocks[2].spectral * u)[..., 0]
    out[..., 0, last] = out[..., last, 0] = (size * u)[..., 0]
    out[..., 1, last] = out[..., last, 1] = between.max(axis=-1)
    if net.bias:
        ones = _sums(second, np.ones((rows, 1)), np.zeros(rows), weights, 1.0 + gamma(rows + 16))
        out[..., 2, last] = out[..., last, 2] = ones.max(axis=-1)
    return out * (1.0 + gamma(32)) + TINY


def without_one(values: FloatArray, *, bias: bool) -> FloatArray:
    """|a| from |(a, 1)|."""
    if not bias:
        return values
    length: FloatArray = np.sqrt(np.maximum(0.0, (values - 1.0) * (values + 1.0))) * (1.0 + gamma(8)) + ROOT_TINY
    return length


def _frobenius(matrix: FloatArray) -> FloatArray:
    return norms(matrix.reshape(*matrix.shape[:-2], 1, -1))


def _input_norm(inputs: FloatArray, weights: FloatArray) -> float:
    scaled = np.sqrt(weights)[:, None] * inputs
    return norm_bound(scaled) * (1.0 + gamma(16)) + ROOT_TINY


def _sums(factor: Interval, vectors: FloatArray, spread: FloatArray, weights: FloatArray, length: float) -> FloatArray:
    """Bounds (q,) of |sum_i w_i kap_i z_i| for kap (n, q), |z_i - vectors_i| <= spread_i, and a bound ``length`` of |vectors|."""
    rows = weights.size
    middle, radius = factor.middle, factor.radius
    sizes = norms(vectors)
    room = 1.0 + gamma(rows + 64)
    weighted = weights[:, None]
    known = norms(np.swapaxes(weighted * middle, -1, -2) @ vectors)
    rounding = gamma(rows + 64) * _summed(weighted * np.abs(middle), sizes)
    apart = _summed(weighted * radius, sizes)
    together = np.sqrt((weighted * radius**2).sum(axis=-2)) * length + ROOT_TINY
    moved = _summed(weighted * factor.magnitude, spread)
    found: FloatArray = (known + rounding + np.fmin(apart, together) + moved) * room + rows * TINY
    return np.where(np.isnan(found), np.inf, found)


def _summed(factor: FloatArray, sizes: FloatArray) -> FloatArray:
    """sum_i kap_i z_i (q,) for kap (n, q) and numbers z (n,)."""
    total: FloatArray = (np.swapaxes(factor, -1, -2) @ sizes[..., None])[..., 0]
    return total
