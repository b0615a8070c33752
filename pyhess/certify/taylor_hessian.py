"""The Hessian over a ball, or a slab of one, as a polynomial in the change of the parameters, with what it leaves out.

The residual part is sum_{l<D} sum_j curved^l_j J^l_j J^l_j' + sum_{l>=2} (κ^l delta^l_j da^{l-1}_k in the row of W^l_jk, and
transposed), J^l = ds^l/dtheta, with the cotangents delta, and curved = dL/da phi'', as forms. As the squares (J . v)² are not
negative, curved less its rest takes the place of curved, so that the rest is a part of the constant term, and its squares are
expanded with all else. The Gauss-Newton part keeps its squares, or some of them. For the weighted Jacobians d = d0 + d1 + d2 + e
of the outputs, e their third order and the rest, and any 0 < eta <= 1, as (x + y + e)² = x² + 2 x y + 2 x e + (y + e)²,

    (d . v)² >= (1 - eta) ((d0 + d1) . v)² + 2 (d0 . v) (d2 . v) + 2 (d1 . v) (d2 . v) - (e . v)² / eta.

With polynomials of the second order e is their rest, and of the third term, which is of the third order, no more is kept than
2 (d1 . v) (d2 . v) >= -eta (d1 . v)² - (d2 . v)² / eta.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..data import Dataset
from ..model import MLP
from .intervals import TINY, gamma
from .taylor_cubic import CubicForm, CubicMatrix, add_product
from .taylor_forms import Forms, Layers, rest_of_products, times
from .taylor_losses import loss_forms
from .taylor_rests import UnitPlaces, UnitRests
from .taylor_room import Room
from .taylor_triples import triples

FloatArray = npt.NDArray[np.float64]

#: Numbers in the highest derivatives of one layer's Jacobian, for a block of data.
_BLOCK_NUMBERS = 2**24
#: Products that one datum has in an entry of the third order; all are added up in one sum, which rounds so often.
_CUBIC_TERMS = 8


def dense_polynomial_work(net: MLP, num_samples: int, order: int) -> float:
    """Multiplications of `taylor_hessian`, roughly."""
    return 3.0 * float(num_samples) * sum(net.widths[1:]) * float(net.num_params) ** (2 + order)


@dataclass(eq=False)
class Affine:
    """A matrix that is at least head + sum_k delta_k (half_k + half_k') and terms of the second order, less ``rest``.

    ``head`` and ``rest`` (P, P), ``half`` (P, P, P) with the index of delta first.
    """

    head: FloatArray
    half: FloatArray
    rest: FloatArray

    @staticmethod
    def without(size: int) -> Affine:
        """The zero matrix."""
        return Affine(*(np.zeros((size,) * order) for order in (2, 3, 2)))


@dataclass(eq=False)
class Quadratic(Affine):
    """The same with the second order: the form of ``tail`` (P, P, P, P) in delta x v.

    That is, for every v and every delta of the room,

        v'A(c + delta)v >= v'head v + 2 sum_k delta_k v'half_k v + sum delta_k v_a tail_kalb delta_l v_b - |v|'rest|v|.
    """

    tail: FloatArray

    @staticmethod
    def zero(size: int) -> Quadratic:
        """The zero matrix."""
        return Quadratic(*(np.zeros((size,) * order) for order in (2, 3, 2, 4)))


@dataclass(frozen=True, eq=False)
class Expansion:
    """The Hessian is at least ``residual`` + (1 - eta) ``squares`` + ``cubic``, where eta divides the rest of the squares.

    Without ``cubic`` the tail of the squares has the factor 1 - 2 eta.
    """

    residual: Quadratic
    squares: Quadratic
    #: M of the third-order terms (delta x v)' M (delta x delta x v).
    cubic: CubicMatrix | None
    #: What was taken off curved, of all hidden units in their order (n, H); the data's weights are in it.
    lowered: FloatArray
    #: Squared lengths of what the roots of every datum's squares leave out (n,), with the weights.
    left_out: FloatArray
    #: With one hidden layer, what is left out besides the entries ``rest`` of both parts, and what that is about.
    units: tuple[UnitRests, UnitRests] | None = None
    places: UnitPlaces | None = None


def taylor_hessian(
    net: MLP,
    centre: FloatArray,
    room: Room,
    data: Dataset,
    targets: FloatArray,
    loss: str,
    order: int,
    cancelled: npt.NDArray[np.int32],
    most: float = np.inf,
    kept: FloatArray | None = None,
) -> Expansion | None:
    """The Taylor polynomial about the centre for changes in the room, of the second or third order.

    None if cancelled, or where what is left out has an eigenvalue above ``most``.

    The data's squares count with ``kept`` (n,), zeros and ones: without some of them the Hessian is no larger.
    """
    size = net.num_params
    layers = Layers(net, centre, room, order)
    weights = data.normalized_weights
    highest = len(triples(size)) if order == 3 else size**2
    rows = max(1, _BLOCK_NUMBERS // (max(net.widths[1:]) * size * highest))
    # On balls that are much too large the first datum tells.
    begins = [0, *range(1, data.num_samples, rows)]
    sums = _Sums(layers, loss, 16 * net.num_layers * len(begins))
    for begin, end in pairwise([*begins, data.num_samples]):
        if cancelled[0]:
            return None
        part = slice(begin, end)
        sums.add(data.X[part], targets[part], weights[part], 1.0 if kept is None else kept[part, None])
        gone = sums.residual.rest + sums.taken  # which grows
        if not np.isfinite(gone).all() or float(np.linalg.eigvalsh(gone + gone.T)[-1]) > 2.0 * most:
            return None
    sums.finish()
    for part_sum in (sums.residual, sums.squares):
        part_sum.rest *= 1.0 + gamma(2 * sums.additions + 64)
        part_sum.rest = np.maximum(part_sum.rest, part_sum.rest.T)
    cubic = None if sums.cubic is None else sums.cubic.matrix()
    return Expansion(sums.residual, sums.squares, cubic, np.concatenate(sums.lowered), np.concatenate(sums.left_out))


class _Sums:
    """Sums over blocks of data; every entry takes ``additions`` additions in all, each with its rounding."""

    def __init__(self, layers: Layers, loss: str, additions: int) -> None:
        size = layers.net.num_params
        self.layers, self.loss, self.additions = layers, loss, additions
        self.residual, self.squares = Quadratic.zero(size), Quadratic.zero(size)
        self.cubic = CubicForm(size) if layers.order == 3 else None
        #: Twice the terms v_a v_b delta_k delta_l of the residual part that have both of the last in one factor, at a, b, k, l.
        self.apart = np.zeros((size,) * 4)
        #: Those that have one in each, and those of the squares, at a, k, b, l.
        self.crossed, self.squares_crossed = np.zeros((size,) * 4), np.zeros((size,) * 4)
        #: The squares at the centre of what was taken off curved; that itself, and ``left_out``, block by block.
        self.taken: FloatArray = np.zeros((size, size))
        self.lowered: list[FloatArray] = []
        self.left_out: list[FloatArray] = []

    def add(self, x: FloatArray, y: FloatArray, mass: FloatArray, kept: FloatArray | float) -> None:
        """Add a block of data."""
        layers = self.layers
        net = layers.net
        size, last = net.num_params, net.num_layers - 1
        entering = layers.constant(x)
        pre: list[Forms] = []
        jacobians: list[Forms] = []
        slopes: list[Forms] = []
        tangents: list[Forms] = []  # da/dtheta entering the layers above
        for layer in range(net.num_layers):
            s = layers.plus_bias(layer, layers.through(layer, entering))
            jacobian = (
                layers.through(layer, tangents[-1]) if layer > 0 else layers.constant(np.zeros((x.shape[0], net.widths[1], size)))
            )
            jacobian = layers.own(layer, jacobian, entering)
            pre.append(s)
            jacobians.append(jacobian)
            if layer < last:
                name, beta = net.activations[layer], net.betas[layer]
                slopes.append(s.composed(name, beta, 1))
                tangents.append(slopes[-1][:, :, None] * jacobian)
                entering = s.composed(name, beta, 0)
        gradient, roots, bend = loss_forms(self.loss, pre[-1], jacobians[-1], y)
        weight = mass[:, None] * bend * kept
        self._add_squares(roots, weight)
        delta = gradient.scaled(np.broadcast_to(mass[:, None], y.shape))
        lowered: list[FloatArray] = []
        for layer in range(last, 0, -1):
            # d²s_j / dW_jk dtheta = κ da_k / dtheta.
            scaled = delta.scaled(np.full(delta.value.shape, float(net.layer_scales[layer])))
            self._add_mixed(scaled, tangents[layer - 1], net.layer_slices[layer][0])
            bar = layers.back(layer, delta)
            name, beta = net.activations[layer - 1], net.betas[layer - 1]
            curved = bar * pre[layer - 1].composed(name, beta, 2)
            jacobian = jacobians[layer - 1]
            lowered.insert(0, curved.rest)
            self.taken += np.tensordot(times(curved.rest, jacobian.value), jacobian.value, ((0, 1), (0, 1)))
            self._add_gram(curved.lowered()[:, :, None] * jacobian, jacobian)
            delta = bar * slopes[layer - 1]
        self.lowered.append(np.concatenate(lowered, axis=1))

    def finish(self) -> None:
        """Put the second-order terms together; once."""
        self.residual.tail = 0.5 * self.apart.transpose(2, 0, 3, 1)
        self.residual.tail += self.crossed.transpose(1, 0, 3, 2)
        self.squares.tail = self.squares_crossed.transpose(1, 0, 3, 2)

    def _add_gram(self, left: Forms, right: Forms) -> None:
        """The sum over data and units of left_a right_b, for forms (n, m, P)."""
        p, q, total = _flat(left), _flat(right), self.residual
        count = p.value.shape[0]
        total.head += p.value.T @ q.value
        # half_k,ab with twice its symmetric part the first-order term.
        by_right = np.tensordot(p.value, q.first, (0, 0))  # (a, b, k)
        by_left = np.tensordot(p.first, q.value, (0, 0))  # (a, k, b)
        total.half += 0.5 * (by_right.transpose(2, 0, 1) + by_left.transpose(1, 0, 2))
        add_product(p.value, q.second, self.apart)
        add_product(q.value, p.second, self.apart)
        add_product(p.first, q.first, self.crossed)
        rest = rest_of_products(p, q, lambda x, y: x.T @ y, _CUBIC_TERMS * count + self.additions)
        total.rest += 0.5 * (rest + rest.T) * (1.0 + gamma(4))
        if self.cubic is not None:
            self.cubic.add_gram(p, q)

    def _add_mixed(self, delta: Forms, tangent: Forms, where: slice) -> None:
        """Twice the sum over data of delta_j da_k in the row of W_jk, for delta (n, m) and tangent (n, i, P)."""
        count, units = delta.value.shape
        fan_in, size = tangent.value.shape[1:]
        rows = units * fan_in
        p, q, total = delta, tangent, self.residual
        head = np.tensordot(p.value, q.value, (0, 0))  # (j, i, b)
        total.head[where] += 2.0 * head.reshape(rows, size)
        by_right = np.tensordot(p.value, q.first, (0, 0))  # (j, i, b, k)
        by_left = np.tensordot(p.first, q.value, (0, 0))  # (j, k, i, b)
        first = by_right.transpose(3, 0, 1, 2) + by_left.transpose(1, 0, 2, 3)
        total.half[:, where] += first.reshape(size, rows, size)
        apart, crossed = (x[where].reshape(units, fan_in, size, size, size) for x in (self.apart, self.crossed))
        add_product(2.0 * p.value, q.second, apart)
        for j in range(units):
            add_product(2.0 * q.value, p.second[:, j], apart[j])
            for i in range(fan_in):
                add_product(2.0 * p.first[:, j], q.first[:, i], crossed[j, i])
        rest = rest_of_products(p, q, lambda x, y: np.tensordot(x, y, (0, 0)), _CUBIC_TERMS * count + self.additions).reshape(
            rows, size
        )
        total.rest[where] += rest * (1.0 + gamma(4))
        total.rest[:, where] += rest.T * (1.0 + gamma(4))
        if self.cubic is not None:
            self.cubic.add_mixed(p, q, where)

    def _add_squares(self, outputs: Forms, weight: FloatArray) -> None:
        """The squares of (d0 + d1) . v, and the entries of those of e, for the outputs' derivatives (n, K, P)."""
        flat, residual, squares = _flat(outputs), self.residual, self.squares
        count = flat.value.shape[0]
        mass = weight.ravel()
        root = np.sqrt(mass)
        d0, d1 = times(root, flat.value), times(root, flat.first)
        squares.head += d0.T @ d0
        squares.half += np.tensordot(d1, d0, (0, 0)).transpose(1, 0, 2)
        add_product(d1, d1, self.squares_crossed)
        add_product(times(2.0 * mass, flat.value), flat.second, self.apart)
        # With the cubic terms what is left out begins with them, else what is left out of the products of d1 and d2 is d2.
        parts = [flat.terms[3] + flat.rest] if self.cubic is not None else [flat.terms[2], flat.rest]
        self.left_out.append((weight * sum((part**2).sum(axis=1) for part in parts).reshape(weight.shape)).sum(axis=1))
        for part in parts:
            left_out = root[:, None] * part * (1.0 + gamma(32))
            squares.rest += (left_out.T @ left_out) * (1.0 + gamma(count + 8)) + count * TINY
        # The roundings do not depend on eta, which takes the squares at most once.
        sizes = root[:, None] * flat.sizes * (1.0 + gamma(32))
        residual.rest += gamma(_CUBIC_TERMS * count + self.additions + 64) * (sizes.T @ sizes) + count * TINY
        if self.cubic is not None:
            self.cubic.add_squares(times(mass, flat.first), flat.second)


def _flat(q: Forms) -> Forms:
    """Data and units as one axis."""
    return Forms(tuple(x.reshape(-1, *x.shape[2:]) for x in q.coefficients), q.rest.reshape(-1, q.rest.shape[2]), q.room)
