"""The Hessian over a ball as a cubic or quadratic polynomial in the parameters' change, for checking certificates.

With the layers' weights and biases in one matrix M and the entering numbers x = (a, 1),

    s = κ M x,    J = ds/dtheta = κ (W T + own: x_k at M_jk),    T = phi' J,    bar = κ W'd,    d = bar phi'  (dl/df on top),
    H = mean [ J_D' l'' J_D + sum_l sum_j bar_j phi'' J_j J_j' + sum_l sum_jk κ d_j (e_jk T_k' + T_k e_jk') ],

with all of s, J, T, bar and d as `Poly`s. The outputs' squares are kept apart, because of what is left out of their roots: for
the outputs' derivatives d = d0 + d1 + d2 + e, e of the third order and above, and any 0 < eta <= 1,

    (d . v)² >= (1 - eta) ((d0 + d1) . v)² + 2 (d0 . v) (d2 . v) + 2 (d1 . v) (d2 . v) - (1/eta) (e . v)²,

as (x + y + e)² >= x² + 2xy + 2xe and 2xe >= -eta x² - e²/eta. What has no eta goes to the residual part. In the second order
2 (d1 . v) (d2 . v) is of too high an order, but at least -eta (d1 . v)² - (d2 . v)²/eta.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from time import monotonic

import numpy as np
import numpy.typing as npt

from .reference_changes import DOUBLE, LEAST, Changes, Numbers, grown
from .reference_cubic import Poly, doubles, highest, rest_of_products, weighted, zero_matrices
from .reference_cubic_losses import loss_polynomials
from .reference_hessian import Problem
from .reference_interval import UNIT, Wide, down, wide, zeros
from .reference_nodes import Derivatives
from .reference_ranges import activations
from .reference_triples import FloatArray, Triples, steps, tensor_count, triples

#: Numbers in the highest derivatives of one layer's J at once.
_NUMBERS = 2**22
#: Seconds per number of an array in one step, long doubles counted twice, per product of matrices' entries, and per unit of a
#: datum, for estimates.
_STEP_SECONDS, _PRODUCT_SECONDS, _UNIT_SECONDS = 3e-9, 5e-10, 5e-4
#: In the second order, per number of an array in all steps, per product, and per number added to a matrix.
_ENTRY_SECONDS, _SUM_SECONDS, _ADD_SECONDS = 2.5e-8, 2.2e-10, 6e-9


def cubic_hessian_seconds(problem: Problem, order: int) -> float:
    """Time that `cubic_hessian` takes, roughly, with polynomials of an order."""
    return _cubic_seconds(problem) if order == 3 else _quadratic_seconds(problem)


def _cubic_seconds(problem: Problem) -> float:
    size, total = float(problem.num_params), 0.0
    count = tensor_count(problem.num_params, 3)
    for layer, units in enumerate(problem.widths[1:]):
        fan_in, end, below = problem.widths[layer], float(_end(problem, layer)), float(_end(problem, layer - 1)) if layer else 0.0
        hidden = layer < problem.layers - 1
        single = units * end * (count * (fan_in + 24.0) + size**2 * (8.0 * fan_in + 40.0))
        sums = units * (end**4 + end**2 * size**2 + end**3 * size) if hidden else end**2 * size**2
        products = 8.0 * units * count * (end**2 + fan_in * below)
        total += _STEP_SECONDS * (single + 2.0 * sums) + _PRODUCT_SECONDS * products + _UNIT_SECONDS * units
    return total * len(problem.x)


def _quadratic_seconds(problem: Problem) -> float:
    area, total, data = float(problem.num_params) ** 2, 0.0, len(problem.x)
    blocks = np.ceil(data / _data_at_once(problem, 2))
    for layer, units in enumerate(problem.widths[1:]):
        fan_in, end, below = problem.widths[layer], float(_end(problem, layer)), float(_end(problem, layer - 1)) if layer else 0.0
        # The squares of a hidden unit's J, or of an output's roots; and what stands in the rows of the layer's weights.
        pairs = 3.0 * end**2 if layer < problem.layers - 1 else 2.0 * end**2
        crossed = 3.0 * fan_in * below
        total += data * units * (_ENTRY_SECONDS * end * area + _SUM_SECONDS * area * (pairs + crossed) + _UNIT_SECONDS)
        total += blocks * _ADD_SECONDS * area * (pairs + units * crossed)
    return float(total)


@dataclass(eq=False)
class Form:
    """A symmetric A that is not below a cubic polynomial less a rest.

        v'Av >= v'head v + 2 sum delta_k v'half_k v + sum delta_k v_a tail_kalb delta_l v_b
                + sum delta_k delta_l delta_m v'T_klm v - |v|'rest|v|,

    with T_klm in ``third`` for k <= l <= m, none of them in the second order, where ``tail`` is of doubles. The order of factors
    matters, as multipliers are for ``half`` as it stands: in a product p_a q_b of two forms the head is p0_a q0_b, half_kab =
    (p1_ak q0_b + p0_a q1_bk) / 2, tail_kalb = (p2_akl q0_b + p0_a q2_bkl) / 2 + p1_ak q1_bl, and T the mean over all orders of k,
    l and m, and of a and b, of p0_a q3_b / 6 + p1_a q2_b / 2 + p2_a q1_b / 2 + p3_a q0_b / 6.
    """

    head: Wide
    half: Wide
    tail: Numbers
    third: FloatArray
    rest: Wide
    #: What the sums' rounding errors are relative to, and those in doubles.
    coarse: Wide
    blur: Wide

    @staticmethod
    def zero(size: int, count: int, order: int) -> Form:
        """The zero matrix, with so many of T's matrices, for polynomials of an order."""
        head, half, rest, coarse, blur = (zeros((size,) * axes) for axes in (2, 3, 2, 2, 2))
        tail = zero_matrices((size, size), size, order)
        return Form(head, half, tail, np.zeros((count, size, size)), rest, coarse, blur)

    def add(self, rows: slice, p: Poly, q: Poly, axes: int, factor: float) -> None:
        """The sum over the first axes of factor p_a q_b, for q (…, b) or, in the rows (j, k), of factor p_j q_kb, q (…, k, b)."""

        def total(x: Wide, y: Wide) -> Wide:
            found, more = _sum(x, y, axes), x.ndim - axes
            if q.value.ndim == axes + 1:
                return found
            found = np.moveaxis(found, more, 1)
            return found.reshape(-1, *found.shape[2:])

        # The derivatives of q vanish for later parameters.
        b = slice(q.value.shape[-1])
        q1, half = q.first[..., b], 0.5 * factor
        self.head[rows, b] += factor * total(p.value, q.value)
        self.half[b, rows, b] += half * total(p.value, q1).transpose(2, 0, 1)
        self.half[:, rows, b] += half * total(p.first, q.value).transpose(1, 0, 2)
        p0, p1, p2, q0, q1, q2 = self._as_tail(p.value, p.first, p.second, q.value, q1, q.second[..., b, b])
        self.tail[b, rows, b, b] += half * total(p0, q2).transpose(2, 0, 3, 1)
        self.tail[:, rows, :, b] += half * total(p2, q0).transpose(1, 0, 2, 3)
        self.tail[:, rows, b, b] += factor * total(p1, q1).transpose(1, 0, 3, 2)
        self.rest[rows, b] += factor * rest_of_products(p, q, total)
        self.coarse[rows, b] += factor * total(p.coarse, q.coarse)
        self.blur[rows, b] += factor * highest(p, q, total)
        if p.order == 2:
            return
        into = self.third[:, rows, b]
        one, other, at = _Flat.of(p, axes), _Flat.of(q, axes), triples(p.size)
        for part in steps(len(into), 8 * (one.value.size + other.value.size)):
            left, right = one.gathered(at, part), other.gathered(at, part)[:, ::-1]
            left, right = (x.reshape(len(x), -1, x.shape[-1]) for x in (left, right))
            into[part] += (factor / 6.0) * (left.swapaxes(1, 2) @ right).reshape(into[part].shape)

    def _as_tail(self, *arrays: Numbers) -> list[Numbers]:
        """In the numbers of the tail."""
        return [x.astype(self.tail.dtype, copy=False) for x in arrays]

    def add_mixed(self, p: Poly, mass: Wide) -> None:
        """2 (d0 . v) (d2 . v) (+ 2 (d1 . v) (d2 . v)), summed with the masses, for the outputs' derivatives (n, K, P)."""
        d0, d2 = self._as_tail(mass[..., None] * p.value, p.second)
        self.tail += _sum(d0, d2, 2).transpose(2, 0, 3, 1)
        size = np.abs(p.value) if p.order == 2 else p.rough[0]
        self.blur += 2.0 * _sum(grown(grown(mass)[..., None] * size), p.rough[1], 2)
        if p.order == 2:
            return
        flat, at = _Flat.of(p, 2), triples(p.size)
        weighted = doubles(mass).reshape(-1, 1) * flat.first
        for part in steps(len(self.third), 6 * flat.value.size):
            k, l, m = at.k[part], at.l[part], at.m[part]  # noqa: E741 - as in the formulas
            left = np.concatenate((weighted[k], weighted[l], weighted[m]), axis=1)
            right = np.concatenate((flat.second[l, m], flat.second[k, m], flat.second[k, l]), axis=1)
            self.third[part] += left.swapaxes(1, 2) @ right / 3.0

    def add_outer(self, p: Poly, mass: Wide) -> None:
        """((d0 + d1) . v)² with the masses; as the rest (e . v)², and in the second order (d2 . v)²."""
        m, sizes = mass[..., None], grown(np.abs(p.value) + p.rough[0] + p.rough[1])
        d0, d1 = m * p.value, m[..., None] * p.first
        self.head += _sum(d0, p.value, 2)
        self.half += _sum(d1, p.value, 2).transpose(1, 0, 2)
        left, right = self._as_tail(d1, p.first)
        self.tail += _sum(left, right, 2).transpose(1, 0, 3, 2)
        for size in (p.left_out,) if p.order == 3 else (p.left_out, p.two):
            self.rest += _sum(grown(m * size), size, 2)
        self.coarse += _sum(m * sizes, sizes, 2)
        if p.order == 2:
            self.blur += _sum(grown(m * p.rough[0]), p.rough[0], 2)

    def close(self, count: int, reach: Wide) -> None:
        """End of ``count`` additions: what they rounded goes to the rest, which becomes symmetric."""
        rest: Wide = grown(self.rest, count) + UNIT * (2 * count + 256) * grown(self.coarse, count)
        # Every addition is of eight terms: one for q3 and p3 each, and three for either product of lower orders. In the second
        # order it is of three, and what is lost where numbers are too small for doubles has reach², not reach³.
        rest = grown(rest + DOUBLE * (12 * count + 256) * (grown(self.blur, count) + LEAST * reach * reach * (1.0 + reach)))
        self.rest = grown(wide(0.5) * (rest + rest.T))
        for part in steps(len(self.third), self.rest.size):
            self.third[part] = 0.5 * (self.third[part] + self.third[part].swapaxes(1, 2))

    def tail_rows(self, k: int) -> Wide:
        """The rows (k, a) of the symmetric part of F_kalb, a matrix of P² columns (l, b)."""
        size = len(self.tail)
        found: Wide = 0.5 * (self.tail[k].astype(np.longdouble) + self.tail[:, :, k].transpose(2, 0, 1)).reshape(size, -1)
        return found


@dataclass(frozen=True, eq=False)
class _Flat:
    """The coefficients of a `Poly` in doubles, with the axes of a sum as one (S), and the others (A).

    ``value`` (S, A), ``first`` (P, S, A), ``second`` (P, P, S, A), ``third`` (C, S, A).
    """

    value: FloatArray
    first: FloatArray
    second: FloatArray
    third: FloatArray

    @staticmethod
    def of(p: Poly, axes: int) -> _Flat:
        """For sums over the first axes."""
        value, first, second, third = p.in_doubles
        last = (int(np.prod(value.shape[:axes])), int(np.prod(value.shape[axes:])))
        return _Flat(value.reshape(last), *(x.reshape(*x.shape[: x.ndim - value.ndim], *last) for x in (first, second, third)))

    def gathered(self, at: Triples, part: slice) -> FloatArray:
        """One below the other (…, 8 S, A): q3, q2 for l m, k m and k l, q1 for m, l and k, q0.

        With those of another form in the opposite order they are the factors of a product's third order, times six.
        """
        k, l, m = at.k[part], at.l[part], at.m[part]  # noqa: E741 - as in the formulas
        first, second, value = self.first, self.second, np.broadcast_to(self.value, (len(k), *self.value.shape))
        parts = (self.third[part], second[l, m], second[k, m], second[k, l], first[m], first[l], first[k], value)
        return np.stack(parts, axis=1)


def _sum(p: Numbers, q: Numbers, axes: int) -> Numbers:
    """The sum over the first axes of the products of all others."""
    count = int(np.prod(p.shape[:axes]))
    left = np.ascontiguousarray(p.reshape(count, -1).T)
    right = np.ascontiguousarray(q.reshape(count, -1).T)  # sums run along contiguous numbers
    found: Numbers = (left @ right.T).reshape(*p.shape[axes:], *q.shape[axes:])
    return found


def cubic_hessian(
    problem: Problem, centre: Wide, changes: Changes, lowered: Wide, kept: Wide, order: int, deadline: float
) -> tuple[Form, Form] | None:
    """(R, G): all but the outputs' squares, and those, by polynomials of an order; None if the deadline passes.

    Any numbers ``lowered`` (n, H) are taken off the factors bar phi'' of the squares (J_j . v)² of the hidden units:
    only what a rest has beyond its number stays with the factor, as it has to hold from below alone. Of the outputs'
    squares the parts ``kept`` (n,), from 0 to 1, count.
    With what has no eta already in R, the squares are at least (1 - eta) G less 1/eta times G's ``rest``, for any 0 < eta <= 1;
    in the second order with 1 - 2 eta for G's ``tail``.
    """
    size = problem.num_params
    whole, squares = Form.zero(size, tensor_count(size, order), order), Form.zero(size, 0, order)
    rows = _data_at_once(problem, order)
    for begin in range(0, len(problem.x), rows):
        if monotonic() > deadline:
            return None
        _add_data(problem, centre, changes, slice(begin, begin + rows), lowered, kept, order, whole, squares)
    additions = len(problem.x) * sum(problem.widths[1:])
    # Without the 1/eta that the squares' rest has.
    whole.coarse, squares.coarse = whole.coarse + squares.coarse, np.zeros_like(squares.coarse)
    whole.blur, squares.blur = whole.blur + squares.blur, np.zeros_like(squares.blur)
    whole.close(additions, changes.reach)
    squares.close(additions, changes.reach)
    return whole, squares


def _data_at_once(problem: Problem, order: int) -> int:
    size = problem.num_params
    heaviest = max(units * _end(problem, layer) for layer, units in enumerate(problem.widths[1:]))
    return max(1, _NUMBERS // (heaviest * (tensor_count(size, 3) if order == 3 else size * size)))


def _add_data(
    problem: Problem, centre: Wide, changes: Changes, some: slice, lowered: Wide, kept: Wide, order: int, whole: Form,
    squares: Form,
) -> None:  # fmt: skip
    size, last = problem.num_params, problem.layers - 1
    x, y, mass = problem.x[some], problem.y[some], problem.mass[some]
    ones = wide(np.ones((len(x), 1)))
    pre: list[Poly] = []
    jacobians: list[Poly] = []
    tangents: list[Poly] = []
    entering = Poly.constant(x, size, changes, order)
    for layer in range(problem.layers):
        matrix, places = _matrix(problem, centre, layer)
        full = _joined(entering, Poly.constant(ones, size, changes, order)) if problem.bias else entering
        s = _scaled(problem, layer, weighted(matrix, places, full))
        jacobian = _own(problem, layer, places, full, tangents[-1] if tangents else None, matrix)
        pre.append(s)
        jacobians.append(jacobian)
        if layer < last:
            phi = _phi(problem, layer)
            tangents.append(s.composed(phi, 1)[:, :, None] * jacobian)
            entering = s.composed(phi, 0)
    gradient, roots, bend = loss_polynomials(problem, pre[-1], jacobians[-1], y)
    weights = down(kept[some, None] * np.maximum(down(mass.lo[:, None] * bend), wide(0.0)))
    weights = np.maximum(weights, wide(0.0))
    squares.add_outer(roots, weights)
    whole.add_mixed(roots, weights)
    delta = gradient.times(mass[:, None])
    for layer in range(last, 0, -1):
        fan_in = problem.widths[layer]
        matrix, places = _matrix(problem, centre, layer)
        scaled = _scaled(problem, layer, delta)
        rows = slice(problem.weight_at[layer], problem.bias_at[layer])
        whole.add(rows, scaled, tangents[layer - 1], 1, 2.0)
        bar = weighted(matrix[:, :fan_in].T, places[:, :fan_in].T, scaled)
        phi, jacobian = _phi(problem, layer - 1), jacobians[layer - 1]
        end = sum(problem.widths[1 : layer + 1])
        below = (bar * pre[layer - 1].composed(phi, 2)).lowered(lowered[some, end - fan_in : end])
        whole.add(slice(jacobian.value.shape[2]), below[:, :, None] * jacobian, jacobian, 2, 1.0)
        delta = bar * pre[layer - 1].composed(phi, 1)


def _end(problem: Problem, layer: int) -> int:
    """Parameters of the layer and those before."""
    return problem.bias_at[layer] + (problem.widths[layer + 1] if problem.bias else 0)


def _phi(problem: Problem, layer: int) -> Derivatives:
    return partial(activations, problem.activations[layer], problem.betas[layer])


def _matrix(problem: Problem, theta: Wide, layer: int) -> tuple[Wide, npt.NDArray[np.int64]]:
    """M (out, in + 1), or (out, in) without biases, and the parameters that its entries are."""
    fan_in, fan_out = problem.widths[layer], problem.widths[layer + 1]
    places = problem.weight_at[layer] + np.arange(fan_in * fan_out).reshape(fan_out, fan_in)
    if problem.bias:
        places = np.concatenate([places, problem.bias_at[layer] + np.arange(fan_out)[:, None]], axis=1)
    return theta[places], places


def _joined(p: Poly, q: Poly) -> Poly:
    value, first, second, rest = (
        np.concatenate(pair, axis=1) for pair in ((p.value, q.value), (p.first, q.first), (p.second, q.second), (p.rest, q.rest))
    )
    return Poly(value, first, second, np.concatenate((p.third, q.third), axis=2), rest, p.changes)


def _scaled(problem: Problem, layer: int, p: Poly) -> Poly:
    kappa = problem.scale[layer]
    return p if kappa.lo == 1.0 == kappa.hi else p.times(kappa)


def _own(problem: Problem, layer: int, places: npt.NDArray[np.int64], entering: Poly, tangent: Poly | None, matrix: Wide) -> Poly:
    """J (n, out, end) for the parameters up to the layer's."""
    n, units, size, end = len(entering.value), problem.widths[layer + 1], problem.num_params, _end(problem, layer)
    value, first, rest = (zeros((n, units, end, *more)) for more in ((), (size,), ()))
    second = zero_matrices(value.shape, size, entering.order)
    third = np.zeros((len(entering.third), n, units, end))
    if tangent is not None:
        fan_in = problem.widths[layer]
        through = weighted(matrix[:, :fan_in], places[:, :fan_in], tangent)
        below = through.value.shape[2]
        value[:, :, :below], first[:, :, :below], second[:, :, :below] = through.value, through.first, through.second
        third[..., :below], rest[:, :, :below] = through.third, through.rest
    for j, k in np.ndindex(*places.shape):
        p = places[j, k]
        value[:, j, p], first[:, j, p], second[:, j, p] = entering.value[:, k], entering.first[:, k], entering.second[:, k]
        third[:, :, j, p], rest[:, j, p] = entering.third[:, :, k], entering.rest[:, k]
    return _scaled(problem, layer, Poly(value, first, second, third, rest, entering.changes))
