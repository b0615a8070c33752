"""What activations can do over all data together: one change of the weights moves them all.

With a^c the activations at the middle of the cell, d_l the distance of (W^l, b^l) from there and x~ = (x, 1), by the mean value
theorem

    a^l_ik - a^c_ik = g_ik (v_k . (a^{l-1}_i, 1) + W^l_ck . (a^{l-1}_i - a^c_i)),    g_ik in the range of phi' over s^l_ik,

with |(v_k)_k| <= d_l, and one v_k for all data. So weighted sums of squares are bounded by second moments: with G_i the largest
|g_ik|, q_i = kap_i G_i² and E_l(kap)² a bound of sum_i kap_i |a^l_i - a^c_i|²,

    E_1(kap) = d_1 eigval_max(sum_i q_i x~_i x~_i')^(1/2),    E_l(kap) = d_l (sum_i q_i + Z_{l-1}(q)²)^(1/2) + |W^l_c| E_{l-1}(q),
    Z_l(kap) = (sum_i kap_i |a^c_i|²)^(1/2) + E_l(kap) >= (sum_i kap_i |a^l_i|²)^(1/2),

where suprema of every datum would have the trace of the matrix (and without sum_i q_i if there are no biases).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .intervals import Interval, gamma, matmul, norms
from .propagate import Cell, Propagation, joined
from .ranges import derivative_range
from .spectral import norm_bounds

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Middles:
    """Of the hidden layers: a^c (..., n, m), distances d (..., 1), Frobenius and spectral norms of W at the middle, G."""

    activations: list[Interval]
    distance: list[FloatArray]
    size: list[FloatArray]
    spectral: list[FloatArray]
    steepest: list[FloatArray]


def middles(cell: Cell, bounds: Propagation, x: FloatArray) -> Middles:
    """The middle of a cell, for the data x (n, d)."""
    net, room = cell.net, 1.0 + gamma(4)
    a = Interval.point(x)
    found = Middles([], [], [], [], [slope.magnitude.max(axis=-1) for slope in bounds.slope])
    for layer, block in enumerate(cell.blocks[:-1]):
        weight, bias = Interval.point(block.weight.middle), Interval.point(block.bias.middle)
        s = matmul(a, weight.T) + bias[..., None, :]
        a = derivative_range(net.activations[layer], net.betas[layer], 0, s)
        found.activations.append(a)
        found.distance.append((frobenius(joined(block.weight.radius, block.bias.radius)) + block.rho) * room)
        found.size.append(frobenius(weight.lo))
        found.spectral.append(norm_bounds(weight.lo)[..., None])
    return found


def frobenius(matrix: FloatArray) -> FloatArray:
    """Frobenius norms (..., 1), rounded up."""
    return norms(matrix.reshape(*matrix.shape[:-2], 1, -1))
