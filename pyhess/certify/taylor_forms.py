"""Cubic polynomials in the change of the parameters, with a bound of what they leave out, over a ball.

For theta = c + delta, |delta| <= R, a form stands for a function q with

    |q(theta) - (value + first . delta + delta' second delta / 2 + third[delta, delta, delta] / 6)| <= rest.

The rest takes all terms of the fourth and higher orders, bounded by the lengths of the factors, and every rounding error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..model import MLP
from .higher_ranges import derivative_bound, derivative_points
from .intervals import ROOT_TINY, TINY, Interval, down, gamma, up

FloatArray = npt.NDArray[np.float64]

_ROOM = 1.0 + gamma(64)


@dataclass(frozen=True, eq=False)
class Forms:
    """An array of forms, for changes of length at most ``ball``.

    ``value`` and ``rest`` (…), ``first`` (…, P), ``second`` (…, P, P) and ``third`` (…, P, P, P), these two symmetric.
    """

    value: FloatArray
    first: FloatArray
    second: FloatArray
    third: FloatArray
    rest: FloatArray
    ball: float

    @staticmethod
    def constant(value: FloatArray, size: int, ball: float) -> Forms:
        """Numbers that do not depend on the parameters."""
        first, second, third = (np.zeros((*value.shape, *(size,) * order)) for order in (1, 2, 3))
        return Forms(value, first, second, third, np.zeros(value.shape), ball)

    @property
    def coefficients(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Those of order 0 to 3."""
        return self.value, self.first, self.second, self.third

    @cached_property
    def linear(self) -> FloatArray:
        """Largest |first . delta|."""
        return self.ball * _length(self.first, 1)

    @cached_property
    def curved(self) -> FloatArray:
        """Largest |delta' second delta / 2|."""
        return 0.5 * self.ball**2 * _spectral(self.second)

    @cached_property
    def cubic(self) -> FloatArray:
        """At least the largest |third[delta, delta, delta] / 6|."""
        return self.ball**3 * _length(self.third, 3) / 6.0

    @cached_property
    def beyond(self) -> FloatArray:
        """Largest change but for the first order."""
        return (self.curved + self.cubic + self.rest) * _ROOM

    @cached_property
    def change(self) -> FloatArray:
        """Largest change."""
        return (self.linear + self.beyond) * _ROOM

    @cached_property
    def magnitude(self) -> FloatArray:
        """Largest absolute value."""
        return (np.abs(self.value) + self.change) * _ROOM

    @cached_property
    def sizes(self) -> FloatArray:
        """What rounding errors are relative to: those of ``second``, entry by entry, keep its Frobenius norm only."""
        second = 0.5 * self.ball**2 * _length(self.second, 2)
        return (np.abs(self.value) + self.linear + second + self.cubic + self.rest) * _ROOM

    @property
    def range(self) -> Interval:
        """What the function may be."""
        return Interval(down(self.value - self.change), up(self.value + self.change))

    def __getitem__(self, where: Any) -> Forms:
        return Forms(*(x[where] for x in self.coefficients), self.rest[where], self.ball)

    def __add__(self, other: Forms) -> Forms:
        rest = (self.rest + other.rest + gamma(8) * (self.sizes + other.sizes)) * _ROOM + TINY
        return Forms(*(x + y for x, y in zip(self.coefficients, other.coefficients, strict=True)), rest, self.ball)

    def __sub__(self, other: Forms) -> Forms:
        return self + Forms(*(-x for x in other.coefficients), other.rest, other.ball)

    def sum(self, axis: int) -> Forms:
        """Sums over an axis of the array."""
        count = self.value.shape[axis]
        rest = (self.rest + gamma(count + 8) * self.sizes).sum(axis=axis) * (1.0 + gamma(count + 64)) + TINY
        return Forms(*(x.sum(axis=axis) for x in self.coefficients), rest, self.ball)

    def widened(self, by: FloatArray) -> Forms:
        """The function with an error of at most ``by`` >= 0 (…) added."""
        return Forms(*self.coefficients, up(self.rest + by * _ROOM), self.ball)

    def minus(self, numbers: FloatArray) -> Forms:
        """The function less numbers (…)."""
        value = self.value - numbers
        rest = up(self.rest + gamma(2) * np.abs(value) + TINY)
        return Forms(value, self.first, self.second, self.third, rest, self.ball)

    def scaled(self, numbers: FloatArray) -> Forms:
        """The function times numbers (…) that are known up to sixty roundings, as the data's weights over their sum are."""
        size = np.abs(numbers)
        rest = (size * self.rest + gamma(64) * size * self.sizes) * _ROOM + TINY
        return Forms(*(times(numbers, x, order) for order, x in enumerate(self.coefficients)), rest, self.ball)

    def __mul__(self, other: Forms) -> Forms:
        p, q = self, other
        first = times(p.value, q.first, 1) + times(q.value, p.first, 1)
        second = times(p.value, q.second, 2) + times(q.value, p.second, 2) + paired(p.first, q.first)
        third = times(p.value, q.third, 3) + times(q.value, p.third, 3)
        third += _spread(p.first, q.second)
        third += _spread(q.first, p.second)
        return Forms(p.value * q.value, first, second, third, rest_of_products(p, q, np.multiply, 1), p.ball)

    def composed(self, name: str, beta: float, order: int) -> Forms:
        """Phi^(order) of the function, order 0, 1 or 2: Taylor's formula, with the fourth derivative at a point between."""
        (f0, e0), (f1, e1), (f2, e2), (f3, e3) = (derivative_points(name, beta, order + k, self.value) for k in range(4))
        linear, beyond, move = self.linear, self.beyond, self.change
        later = (self.cubic + self.rest) * _ROOM
        fourth = derivative_bound(name, beta, order + 4, self.range)
        second = times(f1, self.second, 2) + times(0.5 * f2, paired(self.first, self.first), 2)
        third = times(f1, self.third, 3) + times(f2, _spread(self.first, self.second), 3)
        third += times(f3, self.first[..., :, None, None] * self.first[..., None, :, None] * self.first[..., None, None, :], 3)
        # The change is linear + curved + later: its square without linear² and 2 linear curved, its cube without linear³.
        squares = 2.0 * linear * later + beyond**2
        cubes = beyond * (3.0 * linear**2 + 3.0 * linear * beyond + beyond**2)
        rest = np.abs(f1) * self.rest + 0.5 * np.abs(f2) * squares + np.abs(f3) * cubes / 6.0 + fourth * move**4 / 24.0
        rest = rest + e0 + e1 * move + 0.5 * e2 * move**2 + e3 * move**3 / 6.0
        rest = rest + gamma(24) * (np.abs(f0) + np.abs(f1) * self.sizes + np.abs(f2) * self.sizes**2 + np.abs(f3) * self.sizes**3)
        return Forms(f0, times(f1, self.first, 1), second, third, rest * _ROOM + TINY, self.ball)


def times(numbers: FloatArray, x: FloatArray, order: int) -> FloatArray:
    """Numbers (…) times the coefficients of the given order."""
    found: FloatArray = numbers.reshape(*numbers.shape, *(1,) * order) * x
    return found


def paired(p: FloatArray, q: FloatArray) -> FloatArray:
    """The second derivatives of (p . delta) (q . delta)."""
    outer: FloatArray = p[..., :, None] * q[..., None, :]
    return outer + np.swapaxes(outer, -1, -2)


def _spread(first: FloatArray, second: FloatArray) -> FloatArray:
    """The third derivatives of (first . delta) (delta' second delta / 2)."""
    outer = first[..., :, None, None] * second[..., None, :, :]
    found: FloatArray = outer + np.swapaxes(outer, -3, -2)
    found += np.swapaxes(outer, -3, -1)
    return found


def _length(x: FloatArray, axes: int) -> FloatArray:
    """Euclidean lengths over the last axes, rounded up."""
    flat = x.reshape(*x.shape[: x.ndim - axes], -1)
    count = flat.shape[-1]
    found: FloatArray = np.sqrt(np.einsum("...k,...k->...", flat, flat)) * (1.0 + gamma(count + 16)) + count * ROOT_TINY
    return found


def _spectral(q: FloatArray) -> FloatArray:
    """Spectral norms of the matrices (…, P, P), rounded up: |Q|⁴ = |(Q'Q)²| is at most the Frobenius norm of that."""
    size = q.shape[-1]
    plain = _length(q, 2)
    scale = np.where((plain > 0.0) & np.isfinite(plain), plain, 1.0)
    unit = q / scale[..., None, None]  # of length at most one, so all products are at most one
    gram = np.matmul(np.swapaxes(unit, -1, -2), unit)
    rounding = gamma(4 * size + 32)
    fourth = _length(np.matmul(gram, gram), 2) + rounding
    found: FloatArray = np.minimum(plain, scale * np.sqrt(np.sqrt(fourth)) * (1.0 + gamma(16)))
    return found


def rest_of_products(p: Forms, q: Forms, product: Callable[[FloatArray, FloatArray], FloatArray], count: int) -> FloatArray:
    """What sums of ``count`` products p q leave out when ``product`` sums the products of sizes in the same way.

    The exact products of the polynomials, less those of up to the third order; the rests with everything; and the roundings.
    """
    p_late, q_late = (p.curved + p.cubic) * _ROOM, (q.curved + q.cubic) * _ROOM
    rest = product(p.magnitude, q.rest) + product(p.rest, q.magnitude)
    rest = rest + product(p.linear, q.cubic) + product(p.curved, q_late) + product(p.cubic, (q.linear + q_late) * _ROOM)
    rest = rest + gamma(count + 24) * product(p.sizes, q.sizes)
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
        value, first, second, third = (_weighted(w, x) for x in below.coefficients)
        for unit in range(units):
            own = slice(where.start + unit * fan_in, where.start + (unit + 1) * fan_in)
            _add_factors(first[:, unit], second[:, unit], third[:, unit], own, scale, below)
        size = np.abs(w)
        # The change of a row of W is no longer than the ball's radius.
        moving = scale * self.ball * _length(np.moveaxis(below.cubic + below.rest, 1, -1), 1)
        rest = _weighted(size, below.rest) + moving[:, None]
        coarse = 4.0 * scale * self.ball * _length(np.moveaxis(below.sizes, 1, -1), 1)
        sizes = _weighted(size, below.sizes) + coarse[:, None]
        return Forms(value, first, second, third, self._rounded(rest, sizes, fan_in), self.ball)

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
        return Forms(s.value + b, first, s.second, s.third, rest * _ROOM + TINY, self.ball)

    def back(self, layer: int, above: Forms) -> Forms:
        """W' d for d (n, out)."""
        w, where, _, scale = self._parts(layer)
        units, fan_in = w.shape
        value, first, second, third = (_weighted(w.T, x) for x in above.coefficients)
        for k in range(fan_in):
            own = slice(where.start + k, where.start + units * fan_in, fan_in)
            _add_factors(first[:, k], second[:, k], third[:, k], own, scale, above)
        rest = above.rest @ np.abs(w) + scale * self.ball * _length(above.cubic + above.rest, 1)[:, None]
        sizes = above.sizes @ np.abs(w) + 4.0 * scale * self.ball * _length(above.sizes, 1)[:, None]
        return Forms(value, first, second, third, self._rounded(rest, sizes, units), self.ball)

    def own(self, layer: int, jacobian: Forms, entering: Forms) -> Forms:
        """ds/dtheta (n, out, P) with what the layer's own weights and biases have: the activations, and ones."""
        _, where, bias, scale = self._parts(layer)
        fan_in = entering.value.shape[1]
        room = gamma(8) * scale * entering.sizes
        found = [x.copy() for x in jacobian.coefficients]
        rest = jacobian.rest.copy()
        for unit in range(rest.shape[1]):
            part = slice(where.start + unit * fan_in, where.start + (unit + 1) * fan_in)
            # The values were zero there, as no weight of this layer comes before.
            for mine, theirs in zip(found, entering.coefficients, strict=True):
                mine[:, unit, part] += scale * theirs
            rest[:, unit, part] += (scale * entering.rest + room) * _ROOM + TINY
            if bias is not None:
                found[0][:, unit, bias.start + unit] = scale
                rest[:, unit, bias.start + unit] += gamma(4) * scale
        return Forms(*found, rest, self.ball)

    def _rounded(self, rest: FloatArray, sizes: FloatArray, count: int) -> FloatArray:
        found: FloatArray = (rest + gamma(count + 16) * sizes) * (1.0 + gamma(count + 64)) + (count + 8) * TINY
        return found


def _weighted(w: FloatArray, x: FloatArray) -> FloatArray:
    """The sums over k of w_jk x_nk… for x (n, in, …)."""
    n, fan_in = x.shape[:2]
    found: FloatArray = np.matmul(w, x.reshape(n, fan_in, -1))
    return found.reshape(n, w.shape[0], *x.shape[2:])


def _add_factors(first: FloatArray, second: FloatArray, third: FloatArray, where: slice, scale: float, factors: Forms) -> None:
    """Add the derivatives of scale sum_k delta_k f_k, for the parameters ``where`` and factors f (n, k, …)."""
    value, once, twice = (scale * x for x in factors.coefficients[:3])
    for at, k in enumerate(range(*where.indices(first.shape[-1]))):
        first[..., k] += value[:, at]
        second[..., k, :] += once[:, at]
        second[..., :, k] += once[:, at]
        third[..., k, :, :] += twice[:, at]
        third[..., :, k, :] += twice[:, at]
        third[..., :, :, k] += twice[:, at]
