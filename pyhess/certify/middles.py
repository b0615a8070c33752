"""What activations can do over all data together: one change of the weights moves them all.

With a^c the activations at the middle of the cell, d_l the distance of (W^l, b^l) from there and x~ = (x, 1), by the mean value
theorem

    a^1_ik - a^c_ik = g_ik v_k . x~_i,    g_ik in the range of phi' over s^1_ik,    |(v_k)_k| <= d_1,

with one v_k for all data. So a weighted sum of squares is bounded by second moments,

    (sum_i kap_i |a_i|²)^(1/2) <= (sum_i kap_i |a^c_i|²)^(1/2) + d_1 eigval_max(sum_i kap_i G_i² x~_i x~_i')^(1/2),

G_i = max_k |g_ik|, where suprema of every datum would have the trace of the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .intervals import Interval, gamma, matmul, norms
from .propagate import Cell, Propagation, joined
from .ranges import derivative_range

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Middles:
    """Of the hidden layers l = 1 …: activations a^c (..., n, m), distances d_l (..., 1) and norms |W^l_c|_F (..., 1).

    ``steepest`` is G (..., n) of the first.
    """

    activations: list[Interval]
    distance: list[FloatArray]
    size: list[FloatArray]
    steepest: FloatArray


def middles(cell: Cell, bounds: Propagation, x: FloatArray) -> Middles:
    """The middle of a cell, for the data x (n, d)."""
    net, room = cell.net, 1.0 + gamma(4)
    a = Interval.point(x)
    found = Middles([], [], [], bounds.slope[0].magnitude.max(axis=-1))
    for layer, block in enumerate(cell.blocks[:-1]):
        weight, bias = Interval.point(block.weight.middle), Interval.point(block.bias.middle)
        s = matmul(a, weight.T) + bias[..., None, :]
        a = derivative_range(net.activations[layer], net.betas[layer], 0, s)
        found.activations.append(a)
        found.distance.append((frobenius(joined(block.weight.radius, block.bias.radius)) + block.rho) * room)
        found.size.append(frobenius(weight.lo))
    return found


def frobenius(matrix: FloatArray) -> FloatArray:
    """Frobenius norms (..., 1), rounded up."""
    return norms(matrix.reshape(*matrix.shape[:-2], 1, -1))
