"""What the first hidden layer's activations can do over all data together.

With a^c at the middle of the cell, |(V^1, c^1)|_F <= d for the difference to it and x~ = (x, 1),

    a_ik - a^c_ik = g_ik v_k . x~_i,    g_ik in the range of phi' over s_ik,

by the mean value theorem: one direction V^1 for all data. So a weighted sum of squares is bounded by second moments,

    (sum_i kap_i |a_i|²)^(1/2) <= (sum_i kap_i |a^c_i|²)^(1/2) + d eigval_max(sum_i kap_i G_i² x~_i x~_i')^(1/2),

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
class FirstLayer:
    """Activations (..., n, m) at the middle of a cell, how far the block may be from there (..., 1), and sup phi' (..., n)."""

    middle: Interval
    distance: FloatArray
    steepest: FloatArray


def first_layer(cell: Cell, bounds: Propagation, x: FloatArray) -> FirstLayer:
    """The first layer of a network over a cell, for the data x (n, d)."""
    net, block = cell.net, cell.blocks[0]
    weight, bias = Interval.point(block.weight.middle), Interval.point(block.bias.middle)
    middle = derivative_range(net.activations[0], net.betas[0], 0, matmul(Interval.point(x), weight.T) + bias[..., None, :])
    radius = joined(block.weight.radius, block.bias.radius)
    distance = (norms(radius.reshape(*radius.shape[:-2], -1))[..., None] + block.rho) * (1.0 + gamma(4))
    return FirstLayer(middle, distance, bounds.slope[0].magnitude.max(axis=-1))
