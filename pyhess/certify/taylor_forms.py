"""Polynomials in the change of the parameters, with a bound of what they leave out, over a ball or a slab of one.

For theta = c + delta, delta in some room, a form of the third order stands for a function q with

    |q(theta) - (q_0 + q_1 . delta + delta' q_2 delta / 2 + q_3[delta, delta, delta] / 6)| <= rest,

with symmetric tensors q_k; one of the second order has no q_3. The rest takes all terms of higher orders, bounded by what the
factors are at most, and all roundings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model import MLP
from .intervals import TINY, Interval, down, gamma, up
from .taylor_nodes import polynomial
from .taylor_room import Room, length
from .taylor_triples import add_with, higher_products, lengths, triples

FloatArray = npt.NDArray[np.float64]

_ROOM = 1.0 + gamma(64)


@dataclass(frozen=True, eq=False)
class Forms:
    """An array of forms, for changes in a room.

    ``coefficients``: q_0 (…), q_1 (…, P), q_2 (…, P, P) and, up to the third order, q_3 (…, C), its entries k <= l <= m
    (`Triples`); ``rest`` (…).
    """

    coefficients: tuple[FloatArray, ...]
    rest: FloatArray
    room: Room

    @staticmethod
    def constant(value: FloatArray, size: int, room: Room, order: int) -> Forms:
        """Numbers that do not depend on the parameters, as forms of the second or third order."""
        shapes = ((size,), (size, size), *([(len(triples(size)),)] if order == 3 else []))
        return Forms((value, *(np.zeros((*value.shape, *shape)) for shape in shapes)), np.zeros(value.shape), room)

    @property
    def order(self) -> int:
        """The highest power of the change that is kept."""
        return len(self.coefficients) - 1

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
    def lengths(self) -> list[FloatArray]:
        """Euclidean lengths of the derivatives of every order."""
        found = [np.abs(self.value), length(self.first, 1), length(self.second, 2)]
        return [*found, lengths(self.third, triples(self.first.shape[-1]).roots)] if self.order == 3 else found

    @cached_property
    def terms(self) -> list[FloatArray]:
        """Largest absolute values of the terms of every order, at least."""
        room, sizes = self.room, self.lengths
        found = [sizes[0], room.first(self.first, sizes[1]), room.second(self.second, sizes[2]) / 2.0]
        return [*found, room.third(self.third, sizes[3]) / 6.0] if self.order == 3 else found

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
        """What rounding errors, which have any direction, are relative to: those of q_2 keep its Frobenius norm only."""
        factors = (1.0, self.room.reach, self.room.reach**2, self.room.reach**3 / 6.0)
        return _total([*(factor * size for factor, size in zip(factors, self.lengths, strict=False)), self.rest])

    @property
    def range(self) -> Interval:
        """What the function may be."""
        return Interval(down(self.value - self.change), up(self.value + self.change))

    def __getitem__(self, where: Any) -> Forms:
        return Forms(tuple(x[where] for x in self.coefficients), self.rest[where], self.room)

    def __add__(self, other: Forms) -> Forms:
        rest = (self.rest + other.rest + gamma(8) * (self.sizes + other.sizes)) * _ROOM + TINY
        return Forms(tuple(x + y for x, y in zip(self.coefficients, other.coefficients, strict=True)), rest, self.room)

    def __sub__(self, other: Forms) -> Forms:
        return self + Forms(tuple(-x for x in other.coefficients), other.rest, other.room)

    def sum(self, axis: int) -> Forms:
        """Sums over an axis of the array."""
        count = self.value.shape[axis]
        rest = (self.rest + gamma(count + 8) * self.sizes).sum(axis=axis) * (1.0 + gamma(count + 64)) + TINY
        return Forms(tuple(x.sum(axis=axis) for x in self.coefficients), rest, self.room)

    def widened(self, by: FloatArray) -> Forms:
        """The function with an error of at most ``by`` >= 0 (…) added."""
        return Forms(self.coefficients, up(self.rest + by * _ROOM), self.room)

    def minus(self, numbers: FloatArray) -> Forms:
        """The function less numbers (…)."""
        value = self.value - numbers
        return Forms((value, *self.coefficients[1:]), up(self.rest + gamma(2) * np.abs(value) + TINY), self.room)

    def lowered(self) -> Forms:
        """The polynomial less the rest, as a function: it is nowhere above this one, and has no rest but for rounding."""
        return Forms(self.coefficients, np.zeros_like(self.rest), self.room).minus(self.rest)

    def scaled(self, numbers: FloatArray) -> Forms:
        """The function times numbers (…) that are known up to sixty roundings, as the data's weights over their sum are."""
        size = np.abs(numbers)
        rest = (size * self.rest + gamma(64) * size * self.sizes) * _ROOM + TINY
        return Forms(tuple(times(numbers, x) for x in self.coefficients), rest, self.room)

    def __mul__(self, other: Forms) -> Forms:
        coefficients = _product(self.coefficients, other.coefficients)
        return Forms(coefficients, rest_of_products(self, other, np.multiply, 1), self.room)

    def composed(self, name: str, beta: float, order: int) -> Forms:
        """Phi^(order) of the function, order 0, 1 or 2, by a polynomial in the function's change."""
        slopes, error = polynomial(name, beta, order, self.value, self.change, self.order)
        zero = np.zeros_like(self.value)
        change: tuple[FloatArray, ...] = (zero, *self.coefficients[1:])
        graded = [zero, *self.graded[1:]]
        power, sizes = change, graded
        found = [slopes[0], *(np.zeros_like(x) for x in change[1:])]
        rest, rounding = error, np.abs(slopes[0])
        for k in range(1, self.order + 1):
            if k > 1:
                power, sizes = _product(power, change), _graded_product(sizes, graded)
            for at in range(k, self.order + 1):
                found[at] += times(slopes[k], power[at])
            rest = rest + np.abs(slopes[k]) * sizes[-1]
            rounding = rounding + np.abs(slopes[k]) * self.sizes**k
        return Forms(tuple(found), (rest + gamma(32) * rounding) * _ROOM + TINY, self.room)


def times(numbers: FloatArray, x: FloatArray) -> FloatArray:
    """Numbers (…) times coefficients (…, …)."""
    found: FloatArray = numbers.reshape(*numbers.shape, *(1,) * (x.ndim - numbers.ndim)) * x
    return found


def _total(sizes: list[FloatArray]) -> FloatArray:
    found: FloatArray = reduce(np.add, sizes) * _ROOM
    return found


def _product(p: tuple[FloatArray, ...], q: tuple[FloatArray, ...]) -> tuple[FloatArray, ...]:
    """The product's coefficients."""
    return p[0] * q[0], times(p[0], q[1]) + times(q[0], p[1]), *higher_products(p, q)


def _graded_product(p: list[FloatArray], q: list[FloatArray]) -> list[FloatArray]:
    """Sizes of the terms of a product, by order, those beyond the highest in one."""
    last = len(p) - 1
    found = [np.zeros_like(p[0]) for _ in p]
    for i, x in enumerate(p):
        for j, y in enumerate(q):
            k = min(i + j, last)
            found[k] = (found[k] + x * y) * (1.0 + gamma(8))
    return found


def rest_of_products(p: Forms, q: Forms, product: Callable[[FloatArray, FloatArray], FloatArray], count: int) -> FloatArray:
    """What sums of ``count`` products p q leave out when ``product`` sums the products of sizes in the same way.

    The exact products of the polynomials, less those of the orders that are kept; the rests with everything; and the roundings.
    """
    rest = product(p.magnitude, q.rest) + product(p.rest, q.magnitude)
    for i in range(1, p.order + 1):
        rest = rest + product(p.terms[i], _total(q.terms[p.order + 1 - i :]))
    rest = rest + gamma(count + 32) * product(p.sizes, q.sizes)
    found: FloatArray = rest * (1.0 + gamma(count + 64)) + (count + 8) * TINY
    return found


class Layers:
    """A network's weights about the room's centre c, as they act on forms of one order."""

    def __init__(self, net: MLP, centre: FloatArray, room: Room, order: int) -> None:
        self.net, self.room, self.order = net, room, order
        self._centre = centre

    def constant(self, value: FloatArray) -> Forms:
        """Numbers that do not depend on the parameters."""
        return Forms.constant(value, self.net.num_params, self.room, self.order)

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
        # The change of a row of W is no longer than all of it.
        moving = scale * self.room.reach * length(np.moveaxis(below.terms[-1] + below.rest, 1, -1), 1)
        rest = _weighted(size, below.rest) + moving[:, None]
        coarse = 5.0 * scale * self.room.reach * length(np.moveaxis(below.sizes, 1, -1), 1)
        sizes = _weighted(size, below.sizes) + coarse[:, None]
        return Forms(tuple(found), self._rounded(rest, sizes, fan_in), self.room)

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
        rest = s.rest + gamma(8) * (np.abs(s.value) + np.abs(b) + scale * self.room.reach)
        return Forms((s.value + b, first, *s.coefficients[2:]), rest * _ROOM + TINY, self.room)

    def back(self, layer: int, above: Forms) -> Forms:
        """W' d for d (n, out)."""
        w, where, _, scale = self._parts(layer)
        units, fan_in = w.shape
        found = [_weighted(w.T, x) for x in above.coefficients]
        for k in range(fan_in):
            own = slice(where.start + k, where.start + units * fan_in, fan_in)
            _add_factors([x[:, k] for x in found], own, scale, above)
        rest = above.rest @ np.abs(w) + scale * self.room.reach * length(above.terms[-1] + above.rest, 1)[:, None]
        sizes = above.sizes @ np.abs(w) + 5.0 * scale * self.room.reach * length(above.sizes, 1)[:, None]
        return Forms(tuple(found), self._rounded(rest, sizes, units), self.room)

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
        return Forms(found, rest, self.room)

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
    first, second, *third = coefficients[1:]
    value, once, *twice = (scale * x for x in factors.coefficients[:-1])
    for at, k in enumerate(range(*where.indices(first.shape[-1]))):
        first[..., k] += value[:, at]
        second[..., k, :] += once[:, at]
        second[..., :, k] += once[:, at]
        for q, total in zip(twice, third, strict=True):
            add_with(k, q[:, at], total)
