"""Enclosures of whole matrices: the residual part R of the Hessian and the Gauss–Newton matrix G over a cell.

Everything is built from the Jacobians S^l = ds^l/dtheta (n, m_l, P) by interval matrix products,

    R = mean_i [ sum_{l<D} sum_j bar^l_j phi''(s^l_j) S^l_j S^l_j'
                 + sum_{l>=2} (delta^l_j phi'(s^{l-1}_k) S^{l-1}_k in the row of W^l_jk, and transposed) ]
    G = mean_i S^D' A S^D,

so the entries are proved whatever the sizes; no eigenvalue is involved yet. Memory O(P²), time O(N m P²).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data import Dataset
from ..model import MLP
from .intervals import Interval, down, gamma, matmul, up
from .propagate import Cell, Propagation, parameter_scales, propagate, softmax_range
from .ranges import derivative_range

FloatArray = npt.NDArray[np.float64]

#: Numbers in one block's largest array, a Jacobian times the activation's slope, and its rows at most.
_BLOCK_NUMBERS, _BLOCK_ROWS = 2**22, 8192


def dense_cost(cell: Cell, num_samples: int) -> float:
    """Multiplications of `dense_enclosures`, roughly."""
    return dense_work(cell.net, num_samples)


def dense_work(net: MLP, num_samples: int) -> float:
    """The same of a network, over any cell."""
    return float(num_samples) * sum(net.widths[1:]) * float(net.num_params) ** 2


def dense_enclosures(
    cell: Cell, data: Dataset, targets: FloatArray, loss: str, cancelled: npt.NDArray[np.int32], *, gauss: bool = True
) -> tuple[Interval, Interval] | None:
    """(R, G) over the cell, both (P, P) and with respect to theta; None if cancelled. G is zero if not asked for."""
    net = cell.net
    size = net.num_params
    residual, products = _zeros(size), _zeros(size)
    rows = min(_BLOCK_ROWS, max(1, _BLOCK_NUMBERS // (max(net.widths[1:]) * size)))
    weights = data.normalized_weights
    for begin in range(0, data.num_samples, rows):
        if cancelled[0]:
            return None
        part = slice(begin, begin + rows)
        mass = Interval(weights[part] * (1.0 - gamma(4)), weights[part] * (1.0 + gamma(4)))[:, None]
        bounds = propagate(cell, data.X[part], targets[part], loss)
        for layer, jacobian in enumerate(jacobians(cell, bounds)):
            if cancelled[0]:
                return None
            if layer < net.num_layers - 1:
                residual = residual + _weighted_gram(jacobian, mass * bounds.curved[layer])
                residual = residual + _mixed(cell, bounds, layer, jacobian, mass)
            elif gauss:
                products = products + _gauss_newton(jacobian, bounds.s[layer], targets[part], loss, mass)
    return _to_theta(cell, residual), _to_theta(cell, products)


def _zeros(size: int) -> Interval:
    return Interval.point(np.zeros((size, size)))


def jacobians(cell: Cell, bounds: Propagation) -> list[Interval]:
    """S^l (n, m_l, P) for every layer, with respect to the effective parameters κ_l W^l, κ_l b^l."""
    net = cell.net
    found: list[Interval] = []
    for layer, (weight, bias) in enumerate(net.layer_slices):
        entering = bounds.entering[layer]
        rows, fan_in = entering.lo.shape
        units = net.widths[layer + 1]
        lo, hi = np.zeros((rows, units, net.num_params)), np.zeros((rows, units, net.num_params))
        if layer > 0:
            upstream = bounds.slope[layer - 1][:, :, None] * found[-1]
            end = weight.start  # later parameters do not enter yet
            weights = cell.blocks[layer].weight
            if cell.blocks[layer].rho > 0.0:
                weights = weights.widened(np.full_like(weights.lo, cell.blocks[layer].rho))
            product = matmul(weights, upstream[:, :, :end])
            lo[:, :, :end], hi[:, :, :end] = product.lo, product.hi
        for unit in range(units):
            own = slice(weight.start + unit * fan_in, weight.start + (unit + 1) * fan_in)
            lo[:, unit, own], hi[:, unit, own] = entering.lo, entering.hi
            if bias is not None:
                lo[:, unit, bias.start + unit] = hi[:, unit, bias.start + unit] = 1.0
        found.append(Interval(lo, hi))
    return found


def _weighted_gram(jacobian: Interval, weight: Interval) -> Interval:
    """sum_ij weight_ij S_ij S_ij' for S (n, m, P) and weight (n, m)."""
    flat = jacobian.reshape(-1, jacobian.lo.shape[2])
    return matmul((weight.reshape(-1, 1) * flat).T, flat)


def _mixed(cell: Cell, bounds: Propagation, layer: int, jacobian: Interval, mass: Interval) -> Interval:
    """The terms delta^{l+1}_j dadot^l_k, in the rows of W^{l+1}, and their transpose."""
    net = cell.net
    weight = net.layer_slices[layer + 1][0]
    end = net.layer_slices[layer + 1][0].start
    tangent = (bounds.slope[layer][:, :, None] * jacobian)[:, :, :end]
    delta = (mass * bounds.delta[layer + 1]).T
    block = matmul(delta, tangent.reshape(tangent.lo.shape[0], -1)).reshape(-1, end)
    lo, hi = np.zeros((net.num_params,) * 2), np.zeros((net.num_params,) * 2)
    lo[weight, :end], hi[weight, :end] = block.lo, block.hi
    lo[:end, weight], hi[:end, weight] = block.lo.T, block.hi.T
    return Interval(lo, hi)


def _gauss_newton(jacobian: Interval, f: Interval, targets: FloatArray, loss: str, mass: Interval) -> Interval:
    rows, outputs = f.lo.shape
    if loss == "squared_error":
        return _weighted_gram(jacobian, mass * Interval.point(np.ones((rows, outputs))))
    if loss == "logistic":
        return _weighted_gram(jacobian, mass * derivative_range("sigmoid", 1.0, 1, f))
    p = softmax_range(f)
    total = targets.sum(axis=1, keepdims=True)
    mass = mass * Interval(total * (1.0 - gamma(outputs + 4)), total * (1.0 + gamma(outputs + 4)))
    # A = diag(p) - pp', so S'AS = sum_k p_k S_k S_k' - (sum_k p_k S_k)(...)'
    mean = matmul(p[:, None, :], jacobian)  # (n, 1, P)
    return _weighted_gram(jacobian, mass * p) - _weighted_gram(mean, mass)


def _to_theta(cell: Cell, matrix: Interval) -> Interval:
    """From effective parameters to theta: row and column i times the scale κ of i's layer."""
    factor = parameter_scales(cell.net)
    if (factor == 1.0).all():
        return matrix
    # Two ulp for the rounding of κ itself.
    both = Interval(down(down(np.outer(factor, factor) * (1.0 - gamma(4)))), up(up(np.outer(factor, factor) * (1.0 + gamma(4)))))
    return both * matrix
