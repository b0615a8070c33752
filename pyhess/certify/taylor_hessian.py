"""The Hessian over a ball as a quadratic polynomial in the change of the parameters, with what it leaves out.

The residual part is sum_{l<D} sum_j curved^l_j J^l_j J^l_j' + sum_{l>=2} (κ^l delta^l_j da^{l-1}_k in the row of W^l_jk, and
transposed), J^l = ds^l/dtheta, with the cotangents delta, and curved = dL/da phi'', as forms; the Gauss-Newton part keeps its
squares. For d = dl/df-weighted Jacobians d0 + d1 + e of the outputs, e the curved term and the rest, and any 0 < eta <= 1,

    (d . v)² >= (1 - eta) ((d0 + d1) . v)² - (1/eta - 1) (e . v)².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data import Dataset
from ..model import MLP
from ..regions import Ball
from .intervals import TINY, gamma
from .taylor_forms import Forms, Layers, rest_of_products
from .taylor_losses import loss_forms

FloatArray = npt.NDArray[np.float64]

#: Numbers in the second derivatives of one layer's Jacobian, for a block of data.
_BLOCK_NUMBERS = 2**20


def taylor_work(net: MLP, num_samples: int) -> float:
    """Multiplications of `taylor_hessian`, roughly."""
    units = sum(net.widths[1:])
    return float(num_samples) * units * float(net.num_params) ** 3 * (20.0 + 3.0 * net.num_params)


@dataclass(eq=False)
class Quadratic:
    """A matrix that is at least head + sum_k delta_k (half_k + half_k') + the form of ``tail`` in delta x v, less ``rest``.

    That is, for every v and |delta| <= R,

        v'A(c + delta)v >= v'head v + 2 sum_k delta_k v'half_k v + sum delta_k v_a tail_kalb delta_l v_b - |v|'rest|v|.

    ``head`` and ``rest`` (P, P), ``half`` (P, P, P) with the index of delta first, ``tail`` (P, P, P, P).
    """

    head: FloatArray
    half: FloatArray
    tail: FloatArray
    rest: FloatArray

    @staticmethod
    def zero(size: int) -> Quadratic:
        """The zero matrix."""
        return Quadratic(*(np.zeros((size,) * order) for order in (2, 3, 4, 2)))


def taylor_hessian(
    net: MLP, region: Ball, data: Dataset, targets: FloatArray, loss: str, cancelled: npt.NDArray[np.int32]
) -> tuple[Quadratic, Quadratic] | None:
    """(R, G): the residual part, and the Gauss-Newton part with (1 - eta) and (1/eta - 1) left out; None if cancelled."""
    size = net.num_params
    ball = float(region.radius) * (1.0 + gamma(4))
    layers = Layers(net, np.array(region.center), ball)
    residual, gauss = Quadratic.zero(size), Quadratic.zero(size)
    weights = data.normalized_weights
    rows = max(1, _BLOCK_NUMBERS // (max(net.widths[1:]) * size**3))
    additions = 4 * net.num_layers * -(-data.num_samples // rows)
    for begin in range(0, data.num_samples, rows):
        if cancelled[0]:
            return None
        part = slice(begin, begin + rows)
        _add_block(layers, data.X[part], targets[part], weights[part], loss, (residual, gauss), additions)
    for part_sum in (residual, gauss):
        part_sum.rest *= 1.0 + gamma(2 * additions + 64)
        part_sum.rest = np.maximum(part_sum.rest, part_sum.rest.T)
    return residual, gauss


def _add_block(
    layers: Layers,
    x: FloatArray,
    y: FloatArray,
    mass: FloatArray,
    loss: str,
    sums: tuple[Quadratic, Quadratic],
    additions: int,
) -> None:
    """Add a block of data; every entry of the sums takes ``additions`` additions in all, each with its rounding."""
    net, ball = layers.net, layers.ball
    size, last = net.num_params, net.num_layers - 1
    entering = Forms.constant(x, size, ball)
    pre: list[Forms] = []
    jacobians: list[Forms] = []
    slopes: list[Forms] = []
    tangents: list[Forms] = []  # da/dtheta entering the layers above
    for layer in range(net.num_layers):
        s = layers.plus_bias(layer, layers.through(layer, entering))
        jacobian = (
            layers.through(layer, tangents[-1])
            if layer > 0
            else Forms.constant(np.zeros((x.shape[0], net.widths[1], size)), size, ball)
        )
        jacobian = layers.own(layer, jacobian, entering)
        pre.append(s)
        jacobians.append(jacobian)
        if layer < last:
            name, beta = net.activations[layer], net.betas[layer]
            slopes.append(s.composed(name, beta, 1))
            tangents.append(slopes[-1][:, :, None] * jacobian)
            entering = s.composed(name, beta, 0)
    gradient, roots, bend = loss_forms(loss, pre[-1], jacobians[-1], y)
    _add_squares(sums, roots, mass[:, None] * bend, additions)
    delta = gradient.scaled(np.broadcast_to(mass[:, None], y.shape))
    for layer in range(last, 0, -1):
        # d²s_j / dW_jk dtheta = κ da_k / dtheta.
        scale = np.full(delta.value.shape, float(net.layer_scales[layer]))
        _add_mixed(sums[0], delta.scaled(scale), tangents[layer - 1], net.layer_slices[layer][0], additions)
        bar = layers.back(layer, delta)
        name, beta = net.activations[layer - 1], net.betas[layer - 1]
        curved = bar * pre[layer - 1].composed(name, beta, 2)
        _add_gram(sums[0], curved[:, :, None] * jacobians[layer - 1], jacobians[layer - 1], additions)
        delta = bar * slopes[layer - 1]


def _flat(q: Forms) -> Forms:
    """Data and units as one axis."""
    value = q.value.reshape(-1, q.value.shape[-1])
    size = q.first.shape[-1]
    width = value.shape[1]
    return Forms(
        value, q.first.reshape(-1, width, size), q.second.reshape(-1, width, size, size), q.rest.reshape(-1, width), q.ball
    )


def _add_gram(total: Quadratic, left: Forms, right: Forms, additions: int) -> None:
    """The sum over data and units of left_a right_b, for forms (n, m, P)."""
    p, q = _flat(left), _flat(right)
    count = p.value.shape[0]
    total.head += p.value.T @ q.value
    # half_k,ab with twice its symmetric part the first-order term.
    by_right = np.tensordot(p.value, q.first, (0, 0))  # (a, b, k)
    by_left = np.tensordot(p.first, q.value, (0, 0))  # (a, k, b)
    total.half += 0.5 * (by_right.transpose(2, 0, 1) + by_left.transpose(1, 0, 2))
    seconds = np.tensordot(p.value, q.second, (0, 0))  # (a, b, k, l)
    others = np.tensordot(p.second, q.value, (0, 0))  # (a, k, l, b)
    total.tail += 0.5 * (seconds.transpose(2, 0, 3, 1) + others.transpose(1, 0, 2, 3))
    total.tail += np.tensordot(p.first, q.first, (0, 0)).transpose(1, 0, 3, 2)  # (a, k, b, l)
    rest = rest_of_products(p, q, lambda x, y: x.T @ y, count + additions)
    total.rest += 0.5 * (rest + rest.T) * (1.0 + gamma(4))


def _add_mixed(total: Quadratic, delta: Forms, tangent: Forms, where: slice, additions: int) -> None:
    """Twice the sum over data of delta_j da_k in the row of W_jk, for delta (n, m) and tangent (n, i, P)."""
    count, units = delta.value.shape
    fan_in, size = tangent.value.shape[1:]
    rows = units * fan_in
    p, q = delta, tangent
    head = np.tensordot(p.value, q.value, (0, 0))  # (j, i, b)
    total.head[where] += 2.0 * head.reshape(rows, size)
    by_right = np.tensordot(p.value, q.first, (0, 0))  # (j, i, b, k)
    by_left = np.tensordot(p.first, q.value, (0, 0))  # (j, k, i, b)
    first = by_right.transpose(3, 0, 1, 2) + by_left.transpose(1, 0, 2, 3)
    total.half[:, where] += first.reshape(size, rows, size)
    seconds = np.tensordot(p.value, q.second, (0, 0))  # (j, i, b, k, l)
    others = np.tensordot(p.second, q.value, (0, 0))  # (j, k, l, i, b)
    crossed = np.tensordot(p.first, q.first, (0, 0))  # (j, k, i, b, l)
    second = seconds.transpose(3, 0, 1, 4, 2) + others.transpose(1, 0, 3, 2, 4) + 2.0 * crossed.transpose(1, 0, 2, 4, 3)
    total.tail[:, where] += second.reshape(size, rows, size, size)
    rest = rest_of_products(p, q, lambda x, y: np.tensordot(x, y, (0, 0)), count + additions).reshape(rows, size)
    total.rest[where] += rest * (1.0 + gamma(4))
    total.rest[:, where] += rest.T * (1.0 + gamma(4))


def _add_squares(sums: tuple[Quadratic, Quadratic], outputs: Forms, weight: FloatArray, additions: int) -> None:
    """The squares of (d0 + d1) . v, and the entries of those of e, for the outputs' derivatives (n, K, P)."""
    residual, gauss = sums
    flat = _flat(outputs)
    count = flat.value.shape[0]
    root = np.sqrt(weight.ravel())
    d0, d1 = root[:, None] * flat.value, root[:, None, None] * flat.first
    gauss.head += d0.T @ d0
    gauss.half += np.tensordot(d1, d0, (0, 0)).transpose(1, 0, 2)
    gauss.tail += np.tensordot(d1, d1, (0, 0)).transpose(1, 0, 3, 2)
    left_out = root[:, None] * (flat.curved + flat.rest) * (1.0 + gamma(32))
    gauss.rest += (left_out.T @ left_out) * (1.0 + gamma(count + 8)) + count * TINY
    # The roundings do not depend on eta, which takes the squares at most once.
    sizes = root[:, None] * (np.abs(flat.value) + flat.linear) * (1.0 + gamma(32))
    residual.rest += gamma(count + additions + 64) * (sizes.T @ sizes) + count * TINY
