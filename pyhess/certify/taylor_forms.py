"""Quadratic polynomials in the change of the parameters, with a bound of what they leave out, over a ball.

For theta = c + delta, |delta| <= R, a form stands for a function q with

    |q(theta) - (value + first . delta + delta' second delta / 2)| <= rest.

The rest takes all terms of the third and higher orders, bounded by the lengths of the factors, and every rounding error.
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

    ``value`` and ``rest`` (…), ``first`` (…, P), ``second`` (…, P, P).
    """

    value: FloatArray
    first: FloatArray
    second: FloatArray
    rest: FloatArray
    ball: float

    @staticmethod
    def constant(value: FloatArray, size: int, ball: float) -> Forms:
        """Numbers that do not depend on the parameters."""
        shape = value.shape
        return Forms(value, np.zeros((*shape, size)), np.zeros((*shape, size, size)), np.zeros(shape), ball)

    @cached_property
    def linear(self) -> FloatArray:
        """Largest |first . delta|."""
        return self.ball * _length(self.first, 1)

    @cached_property
    def curved(self) -> FloatArray:
        """Largest |delta' second delta / 2|."""
        return 0.5 * self.ball**2 * _spectral(self.second)

    @cached_property
    def magnitude(self) -> FloatArray:
        """Largest absolute value."""
        return (np.abs(self.value) + self.linear + self.curved + self.rest) * _ROOM

    @cached_property
    def sizes(self) -> FloatArray:
        """What rounding errors are relative to: those of ``second``, entry by entry, keep its Frobenius norm only."""
        return (np.abs(self.value) + self.linear + 0.5 * self.ball**2 * _length(self.second, 2) + self.rest) * _ROOM

    @property
    def range(self) -> Interval:
        """What the function may be."""
        off = (self.linear + self.curved + self.rest) * _ROOM
        return Interval(down(self.value - off), up(self.value + off))

    def __getitem__(self, where: Any) -> Forms:
        return Forms(self.value[where], self.first[where], self.second[where], self.rest[where], self.ball)

    def __sub__(self, other: Forms) -> Forms:
        rest = (self.rest + other.rest + gamma(8) * (self.sizes + other.sizes)) * _ROOM + TINY
        return Forms(self.value - other.value, self.first - other.first, self.second - other.second, rest, self.ball)

    def sum(self, axis: int) -> Forms:
        """Sums over an axis of the array."""
        count = self.value.shape[axis]
        rest = (self.rest + gamma(count + 8) * self.sizes).sum(axis=axis) * (1.0 + gamma(count + 64)) + TINY
        return Forms(self.value.sum(axis=axis), self.first.sum(axis=axis), self.second.sum(axis=axis), rest, self.ball)

    def widened(self, by: FloatArray) -> Forms:
        """The function with an error of at most ``by`` >= 0 (…) added."""
        return Forms(self.value, self.first, self.second, up(self.rest + by * _ROOM), self.ball)

    def minus(self, numbers: FloatArray) -> Forms:
        """The function less numbers (…)."""
        value = self.value - numbers
        return Forms(value, self.first, self.second, up(self.rest + gamma(2) * np.abs(value) + TINY), self.ball)

    def scaled(self, numbers: FloatArray) -> Forms:
        """The function times numbers (…) that are known up to sixty roundings, as the data's weights over their sum are."""
        size = np.abs(numbers)
        rest = (size * self.rest + gamma(64) * size * self.sizes) * _ROOM + TINY
        return Forms(
            numbers * self.value, numbers[..., None] * self.first, numbers[..., None, None] * self.second, rest, self.ball
        )

    def __mul__(self, other: Forms) -> Forms:
        value = self.value * other.value
        first = self.value[..., None] * other.first + other.value[..., None] * self.first
        outer = self.first[..., :, None] * other.first[..., None, :]
        second = self.value[..., None, None] * other.second + other.value[..., None, None] * self.second
        second = second + outer + np.swapaxes(outer, -1, -2)
        return Forms(value, first, second, rest_of_products(self, other, np.multiply, 1), self.ball)

    def composed(self, name: str, beta: float, order: int) -> Forms:
        """Phi^(order) of the function, order 0, 1 or 2.

        phi(s + d) = phi + phi' d + phi'' d²/2 + phi''' d³/6, the last at a point between.
        """
        (f0, e0), (f1, e1), (f2, e2) = (derivative_points(name, beta, order + k, self.value) for k in range(3))
        linear, beyond = self.linear, (self.curved + self.rest) * _ROOM
        move = (linear + beyond) * _ROOM
        third = derivative_bound(name, beta, order + 3, self.range)
        first = f1[..., None] * self.first
        outer = self.first[..., :, None] * self.first[..., None, :]
        second = f1[..., None, None] * self.second + f2[..., None, None] * outer
        rest = np.abs(f1) * self.rest + 0.5 * np.abs(f2) * (2.0 * linear * beyond + beyond**2) + third * move**3 / 6.0
        rest = rest + e0 + e1 * move + 0.5 * e2 * move**2
        rest = rest + gamma(16) * (np.abs(f0) + np.abs(f1) * self.sizes + np.abs(f2) * self.sizes**2)
        return Forms(f0, first, second, rest * _ROOM + TINY, self.ball)


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


def rest_of_products(p: Forms, q: Forms, times: Callable[[FloatArray, FloatArray], FloatArray], count: int) -> FloatArray:
    """What sums of ``count`` products p q leave out when ``times`` sums the products of sizes in the same way.

    The exact products of the polynomials, less those of up to the second order; the rests with everything; and the roundings.
    """
    p1, p2, p3, p_all = p.linear, p.curved, p.rest, p.magnitude
    q1, q2, q3, q_all = q.linear, q.curved, q.rest, q.magnitude
    rest = times(p_all, q3) + times(p3, q_all) + times(p1, q2) + times(p2, (q1 + q2) * _ROOM)
    rest = rest + gamma(count + 16) * times(p.sizes, q.sizes)
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
        value, first, second = (np.einsum("jk,nk...->nj...", w, x) for x in (below.value, below.first, below.second))
        for unit in range(units):
            own = slice(where.start + unit * fan_in, where.start + (unit + 1) * fan_in)
            first[:, unit, ..., own] += scale * np.moveaxis(below.value, 1, -1)
            mixed = scale * np.moveaxis(below.first, 1, -2)
            second[:, unit, ..., own, :] += mixed
            second[:, unit, ..., :, own] += np.swapaxes(mixed, -1, -2)
        size = np.abs(w)
        rest = np.einsum("jk,nk...->nj...", size, below.rest)
        # The change of a row of W is no longer than the ball's radius.
        rest = rest + scale * self.ball * _length(np.moveaxis(below.curved + below.rest, 1, -1), 1)[:, None]
        sizes = np.einsum("jk,nk...->nj...", size, below.sizes)
        sizes = sizes + 3.0 * scale * self.ball * _length(np.moveaxis(below.sizes, 1, -1), 1)[:, None]
        return Forms(value, first, second, self._rounded(rest, sizes, fan_in), self.ball)

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
        return Forms(s.value + b, first, s.second, rest * _ROOM + TINY, self.ball)

    def back(self, layer: int, above: Forms) -> Forms:
        """W' d for d (n, out)."""
        w, where, _, scale = self._parts(layer)
        units, fan_in = w.shape
        value, first, second = (np.einsum("jk,nj...->nk...", w, x) for x in (above.value, above.first, above.second))
        for k in range(fan_in):
            own = slice(where.start + k, where.start + units * fan_in, fan_in)
            first[:, k, own] += scale * above.value
            second[:, k, own, :] += scale * above.first
            second[:, k, :, own] += scale * np.swapaxes(above.first, 1, 2)
        rest = above.rest @ np.abs(w) + scale * self.ball * _length(above.curved + above.rest, 1)[:, None]
        sizes = above.sizes @ np.abs(w) + 3.0 * scale * self.ball * _length(above.sizes, 1)[:, None]
        return Forms(value, first, second, self._rounded(rest, sizes, units), self.ball)

    def own(self, layer: int, jacobian: Forms, entering: Forms) -> Forms:
        """ds/dtheta (n, out, P) with what the layer's own weights and biases have: the activations, and ones."""
        _, where, bias, scale = self._parts(layer)
        fan_in = entering.value.shape[1]
        room = gamma(8) * scale * entering.sizes
        value, first, second, rest = (x.copy() for x in (jacobian.value, jacobian.first, jacobian.second, jacobian.rest))
        for unit in range(value.shape[1]):
            part = slice(where.start + unit * fan_in, where.start + (unit + 1) * fan_in)
            # These entries were zero, as no weight of this layer comes before.
            value[:, unit, part] = scale * entering.value
            first[:, unit, part] += scale * entering.first
            second[:, unit, part] += scale * entering.second
            rest[:, unit, part] += (scale * entering.rest + room) * _ROOM + TINY
            if bias is not None:
                value[:, unit, bias.start + unit] = scale
                rest[:, unit, bias.start + unit] += gamma(4) * scale
        return Forms(value, first, second, rest, self.ball)

    def _rounded(self, rest: FloatArray, sizes: FloatArray, count: int) -> FloatArray:
        found: FloatArray = (rest + gamma(count + 16) * sizes) * (1.0 + gamma(count + 64)) + (count + 8) * TINY
        return found
