"""Cubic polynomials in the change of the parameters, with a bound of what they leave out, over a ball.

For theta = c + delta, |delta| <= R, a form stands for a function q with

    |q(theta) - (q_0 + q_1 . delta + delta' q_2 delta / 2 + q_3[delta, delta, delta] / 6)| <= rest,

with symmetric tensors q_k. The rest takes all terms of higher orders, bounded by the lengths of the factors, and all roundings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model import MLP
from .intervals import ROOT_TINY, TINY, Interval, down, gamma, up
from .taylor_nodes import cubic_polynomial
from .taylor_triples import add_with, lengths, products, triples

FloatArray = npt.NDArray[np.float64]

#: The highest power of the change that is kept.
ORDER = 3
_ROOM = 1.0 + gamma(64)


@dataclass(frozen=True, eq=False)
class Forms:
    """An array of forms, for changes of length at most ``ball``.

    ``coefficients``: q_0 (…), q_1 (…, P), q_2 (…, P, P) and q_3 (…, C), its entries k <= l <= m (`Triples`); ``rest`` (…).
    """

    coefficients: tuple[FloatArray, ...]
    rest: FloatArray
    ball: float

    @staticmethod
    def constant(value: FloatArray, size: int, ball: float) -> Forms:
        """Numbers that do not depend on the parameters."""
        shapes = ((size,), (size, size), (len(triples(size)),))
        return Forms((value, *(np.zeros((*value.shape, *shape)) for shape in shapes)), np.zeros(value.shape), ball)

    @property
    def value(self) -> FloatArray:
        """At the centre."""
        return self.coefficients[0]

    @property
    def first(self) -> FloatArray:
        """Derivatives at the centre."""
        return self.coefficients[1]

    @property
    def second(self) -> FloatArray:
        """Second derivatives at the centre."""
        return self.coefficients[2]

    @property
    def third(self) -> FloatArray:
        """Third derivatives at the centre."""
        return self.coefficients[3]

    @cached_property
    def terms(self) -> list[FloatArray]:
        """Largest absolute values of the terms of every order, at least."""
        curved = 0.5 * self.ball**2 * _spectral(self.second)
        cubic = self.ball**3 / 6.0 * lengths(self.third, triples(self.first.shape[-1]).roots)
        return [np.abs(self.value), self.ball * _length(self.first, 1), curved, cubic]

    @cached_property
    def graded(self) -> list[FloatArray]:
        """``terms``, and the rest."""
        return [*self.terms, self.rest]

    @cached_property
    def change(self) -> FloatArray:
        """Largest change."""
        return _total(self.graded[1:])

    @cached_property
    def magnitude(self) -> FloatArray:
        """Largest absolute value."""
        return _total(self.graded)

    @cached_property
    def sizes(self) -> FloatArray:
        """What rounding errors are relative to: those of q_2, entry by entry, keep its Frobenius norm only."""
        return _total([*self.graded, 0.5 * self.ball**2 * _length(self.second, 2)])

    @property
    def range(self) -> Interval:
        """What the function may be."""
        return Interval(down(self.value - self.change), up(self.value + self.change))

    def __getitem__(self, where: Any) -> Forms:
        return Forms(tuple(x[where] for x in self.coefficients), self.rest[where], self.ball)

    def __add__(self, other: Forms) -> Forms:
        rest = (self.rest + other.rest + gamma(8) * (self.sizes + other.sizes)) * _ROOM + TINY
        return Forms(tuple(x + y for x, y in zip(self.coefficients, other.coefficients, strict=True)), rest, self.ball)

    def __sub__(self, other: Forms) -> Forms:
        return self + Forms(tuple(-x for x in other.coefficients), other.rest, other.ball)

    def sum(self, axis: int) -> Forms:
        """Sums over an axis of the array."""
        count = self.value.shape[axis]
        rest = (self.rest + gamma(count + 8) * self.sizes).sum(axis=axis) * (1.0 + gamma(count + 64)) + TINY
        return Forms(tuple(x.sum(axis=axis) for x in self.coefficients), rest, self.ball)

    def widened(self, by: FloatArray) -> Forms:
        """The function with an error of at most ``by`` >= 0 (…) added."""
        return Forms(self.coefficients, up(self.rest + by * _ROOM), self.ball)

    def minus(self, numbers: FloatArray) -> Forms:
        """The function less numbers (…)."""
        value = self.value - numbers
        return Forms((value, *self.coefficients[1:]), up(self.rest + gamma(2) * np.abs(value) + TINY), self.ball)

    def lowered(self) -> Forms:
        """The polynomial less the rest, as a function: it is nowhere above this one, and has no rest but for rounding."""
        return Forms(self.coefficients, np.zeros_like(self.rest), self.ball).minus(self.rest)

    def scaled(self, numbers: FloatArray) -> Forms:
        """The function times numbers (…) that are known up to sixty roundings, as the data's weights over their sum are."""
        size = np.abs(numbers)
        rest = (size * self.rest + gamma(64) * size * self.sizes) * _ROOM + TINY
        return Forms(tuple(times(numbers, x) for x in self.coefficients), rest, self.ball)

    def __mul__(self, other: Forms) -> Forms:
        coefficients = _product(self.coefficients, other.coefficients)
        return Forms(coefficients, rest_of_products(self, other, np.multiply, 1), self.ball)

    def composed(self, name: str, beta: float, order: int) -> Forms:
        """Phi^(order) of the function, order 0, 1 or 2, by a cubic polynomial in the function's change."""
        slopes, error = cubic_polynomial(name, beta, order, self.value, self.change)
        zero = np.zeros_like(self.value)
        change: tuple[FloatArray, ...] = (zero, *self.coefficients[1:])
        graded = [zero, *self.graded[1:]]
        power, sizes = change, graded
        found = [slopes[0], *(np.zeros_like(x) for x in change[1:])]
        rest, rounding = error, np.abs(slopes[0])
        for k in range(1, ORDER + 1):
            if k > 1:
                power, sizes = _product(power, change), _graded_product(sizes, graded)
            for at in range(k, ORDER + 1):
                found[at] += times(slopes[k], power[at])
            rest = rest + np.abs(slopes[k]) * sizes[-1]
            rounding = rounding + np.abs(slopes[k]) * self.sizes**k
        return Forms(tuple(found), (rest + gamma(32) * rounding) * _ROOM + TINY, self.ball)


def times(numbers: FloatArray, x: FloatArray) -> FloatArray:
    """Numbers (…) times coefficients (…, …)."""
    found: FloatArray = numbers.reshape(*numbers.shape, *(1,) * (x.ndim - numbers.ndim)) * x
    return found


def _total(sizes: list[FloatArray]) -> FloatArray:
    found: FloatArray = reduce(np.add, sizes) * _ROOM
    return found


def _product(p: tuple[FloatArray, ...], q: tuple[FloatArray, ...]) -> tuple[FloatArray, ...]:
    """The product's coefficients."""
    return p[0] * q[0], times(p[0], q[1]) + times(q[0], p[1]), *products(p, q)


def _graded_product(p: list[FloatArray], q: list[FloatArray]) -> list[FloatArray]:
    """Sizes of the terms of a product, by order, those beyond the highest in one."""
    last = len(p) - 1
    found = [np.zeros_like(p[0]) for _ in p]
    for i, x in enumerate(p):
        for j, y in enumerate(q):
            k = min(i + j, last)
            found[k] = (found[k] + x * y) * (1.0 + gamma(8))
    return found


def _length(x: FloatArray, axes: int) -> FloatArray:
    """Euclidean lengths over the last axes, rounded up."""
    count = math.prod(x.shape[x.ndim - axes :])
    flat = x.reshape(*x.shape[: x.ndim - axes], count)
    found: FloatArray = np.sqrt(np.einsum("...k,...k->...", flat, flat)) * (1.0 + gamma(count + 16)) + count * ROOT_TINY
    return found


def _spectral(q: FloatArray) -> FloatArray:
    """Spectral norms of the matrices (…, P, P), rounded up: |Q|⁴ = |(Q'Q)²| is at most the Frobenius norm of that."""
    size = q.shape[-1]
    plain = _length(q, 2)
    usual = (plain > 2.0 * size**2 * ROOT_TINY) & np.isfinite(plain)  # many are zero
    scale, found = plain[usual], plain.copy()
    unit = q[usual] / scale[:, None, None]  # of length at most one, so all products are at most one
    gram = np.matmul(unit.swapaxes(-1, -2), unit)
    fourth = _length(np.matmul(gram, gram), 2) + gamma(4 * size + 32)
    found[usual] = np.minimum(scale, scale * np.sqrt(np.sqrt(fourth)) * (1.0 + gamma(16)))
    return found


def rest_of_products(p: Forms, q: Forms, product: Callable[[FloatArray, FloatArray], FloatArray], count: int) -> FloatArray:
    """What sums of ``count`` products p q leave out when ``product`` sums the products of sizes in the same way.

    The exact products of the polynomials, less those of the orders that are kept; the rests with everything; and the roundings.
    """
    rest = product(p.magnitude, q.rest) + product(p.rest, q.magnitude)
    for i in range(1, ORDER + 1):
        rest = rest + product(p.terms[i], _total(q.terms[ORDER + 1 - i :]))
    rest = rest + gamma(count + 32) * product(p.sizes, q.sizes)
    found: FloatArray = rest * (1.0 + gamma(count + 64)) + (count + 8) * TINY
    return found


class Layers:
    """A network's weights about the centre c of a ball, as they act on forms. ``scales`` holds the layers' factors κ."""

    def __init__(self, net: MLP, centre: FloatArray, ball: float) -> None:
        self.net, self.ball = net, ball
        self._centre = centre

    def _parts(self, layer: int) -> tuple[FloatArray, slice, slice | None, float]:
        weight, bias = self.net.layer_slices[layer]
        scale = float(self.net.layer_scales[layer])
        shape = (self.net.widths[layer + 1], self.net.widths[layer])
        return scale * self._centre[weight].reshape(shape), weight, bias, scale

    def through(self, layer: int, below: Forms) -> Forms:
        """W a for a (n, in, …)."""
        w, where, _, scale = self._parts(layer)
        units, fan_in = w.shape
        found = [_weighted(w, x) for x in below.coefficients]
        for unit in range(units):
            own = slice(where.start + unit * fan_in, where.start + (unit + 1) * fan_in)
            _add_factors([x[:, unit] for x in found], own, scale, below)
        size = np.abs(w)
        # The change of a row of W is no longer than the ball's radius.
        moving = scale * self.ball * _length(np.moveaxis(below.terms[-1] + below.rest, 1, -1), 1)
        rest = _weighted(size, below.rest) + moving[:, None]
        coarse = 5.0 * scale * self.ball * _length(np.moveaxis(below.sizes, 1, -1), 1)
        sizes = _weighted(size, below.sizes) + coarse[:, None]
        return Forms(tuple(found), self._rounded(rest, sizes, fan_in), self.ball)

    def plus_bias(self, layer: int, s: Forms) -> Forms:
        """S + b (n, out)."""
        _, bias = self.net.layer_slices[layer]
        if bias is None:
            return s
        scale = float(self.net.layer_scales[layer])
        b = scale * self._centre[bias]
        units = np.arange(b.size)
        first = s.first.copy()
        first[:, units, bias.start + units] += scale
        rest = s.rest + gamma(8) * (np.abs(s.value) + np.abs(b) + scale * self.ball)
        return Forms((s.value + b, first, *s.coefficients[2:]), rest * _ROOM + TINY, self.ball)

    def back(self, layer: int, above: Forms) -> Forms:
        """W' d for d (n, out)."""
        w, where, _, scale = self._parts(layer)
        units, fan_in = w.shape
        found = [_weighted(w.T, x) for x in above.coefficients]
        for k in range(fan_in):
            own = slice(where.start + k, where.start + units * fan_in, fan_in)
            _add_factors([x[:, k] for x in found], own, scale, above)
        rest = above.rest @ np.abs(w) + scale * self.ball * _length(above.terms[-1] + above.rest, 1)[:, None]
        sizes = above.sizes @ np.abs(w) + 5.0 * scale * self.ball * _length(above.sizes, 1)[:, None]
        return Forms(tuple(found), self._rounded(rest, sizes, units), self.ball)

    def own(self, layer: int, jacobian: Forms, entering: Forms) -> Forms:
        """ds/dtheta (n, out, P) with what the layer's own weights and biases have: the activations, and ones.

        The numbers of ``jacobian`` are changed in place.
        """
        _, where, bias, scale = self._parts(layer)
        fan_in = entering.value.shape[1]
        room = gamma(8) * scale * entering.sizes
        found = jacobian.coefficients
        rest = jacobian.rest.copy()
        for unit in range(rest.shape[1]):
            part = slice(where.start + unit * fan_in, where.start + (unit + 1) * fan_in)
            # The values were zero there, as no weight of this layer comes before.
            for mine, theirs in zip(found, entering.coefficients, strict=True):
                if theirs.any():
                    mine[:, unit, part] += scale * theirs
            rest[:, unit, part] += (scale * entering.rest + room) * _ROOM + TINY
            if bias is not None:
                found[0][:, unit, bias.start + unit] = scale
                rest[:, unit, bias.start + unit] += gamma(4) * scale
        return Forms(found, rest, self.ball)

    def _rounded(self, rest: FloatArray, sizes: FloatArray, count: int) -> FloatArray:
        found: FloatArray = (rest + gamma(count + 16) * sizes) * (1.0 + gamma(count + 64)) + (count + 8) * TINY
        return found


def _weighted(w: FloatArray, x: FloatArray) -> FloatArray:
    """The sums over k of w_jk x_nk… for x (n, in, …)."""
    n, fan_in = x.shape[:2]
    found: FloatArray = np.matmul(w, x.reshape(n, fan_in, -1))
    return found.reshape(n, w.shape[0], *x.shape[2:])


def _add_factors(coefficients: list[FloatArray], where: slice, scale: float, factors: Forms) -> None:
    """Add the derivatives of scale sum_k delta_k f_k, for the parameters ``where`` and factors f (n, k, …)."""
    _, first, second, third = coefficients
    value, once, twice = (scale * x for x in factors.coefficients[:ORDER])
    for at, k in enumerate(range(*where.indices(first.shape[-1]))):
        first[..., k] += value[:, at]
        second[..., k, :] += once[:, at]
        second[..., :, k] += once[:, at]
        add_with(k, twice[:, at], third)
