"""Enclosure of the loss's third derivatives in the parameters over a cell.

With Jacobians J^l = ds^l/dtheta, second derivatives K^l = d²s^l/dtheta² and the cotangents bar^l = dL/da^l, delta^l = dL/ds^l,

    d³L = mean_i [ sum_{l<D} sum_j bar^l_j (phi''' J_j J_j J_j + phi'' <K_j J_j>)
                 + sum_{l>=2} sum_jk delta^l_j <(d²a^{l-1}_k) e^l_jk> + sum_k (l'' <K^D_k J^D_k> + l''' J^D_k J^D_k J^D_k) ],

e^l_jk the derivative of the weight W^l_jk, d²a = phi'' J J' + phi' K, and <K J>_abc = K_ab J_c + K_ac J_b + K_bc J_a. The loss is
the squared error, or the logistic loss with its one output.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data import Dataset
from ..model import MLP
from .dense import jacobians
from .intervals import Interval, gamma, matmul
from .propagate import Cell, Propagation, parameter_scales, propagate
from .ranges import derivative_range

FloatArray = npt.NDArray[np.float64]

#: Numbers in one block's largest array: second derivatives of a layer.
_BLOCK_NUMBERS = 2**20


def third_work(net: MLP, num_samples: int) -> float:
    """Multiplications of `third_derivatives`, roughly."""
    return 9.0 * num_samples * sum(net.widths[1:]) * float(net.num_params) ** 3


def third_derivatives(
    cell: Cell, data: Dataset, targets: FloatArray, loss: str, cancelled: npt.NDArray[np.int32]
) -> Interval | None:
    """d³L over the cell (P, P, P), with respect to theta; None if cancelled."""
    net = cell.net
    size = net.num_params
    total = Interval.point(np.zeros((size,) * 3))
    rows = max(1, _BLOCK_NUMBERS // (max(net.widths[1:]) * size**2))
    weights = data.normalized_weights
    for begin in range(0, data.num_samples, rows):
        if cancelled[0]:
            return None
        part = slice(begin, begin + rows)
        mass = Interval(weights[part] * (1.0 - gamma(4)), weights[part] * (1.0 + gamma(4)))[:, None]
        total = total + _block(cell, propagate(cell, data.X[part], targets[part], loss), mass, loss)
    return _to_theta(cell, total)


def _block(cell: Cell, bounds: Propagation, mass: Interval, loss: str) -> Interval:
    net = cell.net
    size = net.num_params
    total = Interval.point(np.zeros((size,) * 3))
    second: Interval | None = None  # d²a entering the layer (n, m, P, P)
    tangent: Interval | None = None  # da entering it
    for layer, jacobian in enumerate(jacobians(cell, bounds)):
        rows, units = jacobian.lo.shape[:2]
        bent = Interval.point(np.zeros((rows, units, size, size)))
        if second is not None and tangent is not None:
            bent = _second(cell, layer, second, tangent)
            mixed = matmul((mass * bounds.delta[layer]).T, second.reshape(rows, -1))
            total = total + _placed(cell, layer, mixed.reshape(-1, size, size))
        outer = jacobian[:, :, :, None] * jacobian[:, :, None, :]
        if layer < net.num_layers - 1:
            name, beta, s = net.activations[layer], net.betas[layer], bounds.s[layer]
            first = derivative_range(name, beta, 2, s)
            cubic, mixed_weight = mass * bounds.bar[layer] * derivative_range(name, beta, 3, s), mass * bounds.curved[layer]
            second = first[:, :, None, None] * outer + bounds.slope[layer][:, :, None, None] * bent
            tangent = bounds.slope[layer][:, :, None] * jacobian
        elif loss == "squared_error":
            cubic, mixed_weight = Interval.point(np.zeros((rows, units))), mass * Interval.point(np.ones((rows, units)))
        else:
            cubic, mixed_weight = (mass * derivative_range("sigmoid", 1.0, order, bounds.s[layer]) for order in (2, 1))
        flat = jacobian.reshape(-1, size)
        weighted = mixed_weight[:, :, None, None] * bent
        total = total + _symmetrised(matmul(weighted.reshape(-1, size * size).T, flat).reshape(size, size, size))
        weighted = cubic[:, :, None, None] * outer
        total = total + matmul(weighted.reshape(-1, size * size).T, flat).reshape(size, size, size)
    return total


def _second(cell: Cell, layer: int, below: Interval, tangent: Interval) -> Interval:
    """K (n, m, P, P) of the layer, from d²a and da that enter it."""
    net = cell.net
    size = net.num_params
    rows, fan_in = below.lo.shape[:2]
    units = net.widths[layer + 1]
    weights = cell.blocks[layer].weight
    if cell.blocks[layer].rho > 0.0:
        weights = weights.widened(np.full_like(weights.lo, cell.blocks[layer].rho))
    through = matmul(weights, below.reshape(rows, fan_in, -1)).reshape(rows, units, size, size)
    lo, hi = np.zeros(through.lo.shape), np.zeros(through.lo.shape)
    start = net.layer_slices[layer][0].start
    for unit in range(units):
        # The derivative of W_jk with that of a_k; a does not depend on this layer's weights, so nothing is added twice.
        own = slice(start + unit * fan_in, start + (unit + 1) * fan_in)
        for end, part in ((lo, tangent.lo), (hi, tangent.hi)):
            end[:, unit, own, :] += part
            end[:, unit, :, own] += part.transpose(0, 2, 1)
    return through + Interval(lo, hi)


def _placed(cell: Cell, layer: int, mixed: Interval) -> Interval:
    """sum_jk <(mixed_jk) e_jk> for mixed (m_l m_{l-1}, P, P), symmetric, in the order of the layer's weights."""
    size = cell.net.num_params
    lo, hi = np.zeros((size,) * 3), np.zeros((size,) * 3)
    where = cell.net.layer_slices[layer][0]
    lo[:, :, where], hi[:, :, where] = mixed.lo.transpose(1, 2, 0), mixed.hi.transpose(1, 2, 0)
    return _symmetrised(Interval(lo, hi))


def _symmetrised(q: Interval) -> Interval:
    """q_abc + q_acb + q_bca."""
    turned = [Interval(q.lo.transpose(order), q.hi.transpose(order)) for order in ((0, 2, 1), (2, 0, 1))]
    return q + turned[0] + turned[1]


def _to_theta(cell: Cell, tensor: Interval) -> Interval:
    """From effective parameters to theta."""
    factor = parameter_scales(cell.net)
    if (factor == 1.0).all():
        return tensor
    product = factor[:, None, None] * factor[None, :, None] * factor[None, None, :]
    return Interval(product * (1.0 - gamma(16)), product * (1.0 + gamma(16))) * tensor
