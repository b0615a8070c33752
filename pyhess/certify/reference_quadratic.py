"""Functions on a ball as quadratic polynomials in the parameters' change, with a bound of the rest, for checking certificates.

For |delta| <= R a `Poly` stands for a function q with

    |q(c + delta) - (q0 + q1 . delta + delta'q2 delta / 2)| <= rest.

The coefficients are long doubles, taken as they stand. What a step rounds has, entry by entry, at most UNIT times their number
times the sizes of the terms, so it goes to the rest as that many times the products of ``coarse`` sizes: those take the Frobenius
norm of q2, as the errors of its entries do not keep its spectral norm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .reference_interval import TINY, UNIT, Range, Wide, middle_and_radius, up, zeros

#: Some derivatives over a range, from the first of the given orders on.
Derivatives = Callable[[Sequence[int], Range], list[Range]]

#: Unit roundoff of double.
_DOUBLE = 2.0**-53


def grown(x: Wide, count: int = 0) -> Wide:
    """At least what a number was rounded from that is made of numbers >= 0 by sums of ``count`` terms and some more steps."""
    return up(x * (1.0 + UNIT * (count + 64)) + TINY)


def _euclidean(x: Wide) -> Wide:
    return grown(np.sqrt((x * x).sum(axis=-1)), x.shape[-1])


def spectral(q: Wide, frobenius: Wide) -> Wide:
    """Spectral norms of matrices (…, P, P) with the given Frobenius norms, rounded up: |Q|⁴ <= |Q'Q Q'Q|_F, in doubles."""
    found, some = frobenius.copy(), frobenius > 0.0
    if not some.any():
        return found
    size = q.shape[-1]
    norm = frobenius[some]
    unit = (q[some] / norm[:, None, None]).astype(np.float64)
    gram = np.swapaxes(unit, 1, 2) @ unit
    square = (gram @ gram).reshape(len(gram), -1)
    # All norms are at most one: rounding Q changes Q'Q by 2 _DOUBLE, the product by P _DOUBLE, and both the square twice.
    fourth = _euclidean(square.astype(np.longdouble)) + np.longdouble(_DOUBLE) * (3 * size + 16)
    found[some] = np.minimum(norm, grown(norm * np.sqrt(np.sqrt(fourth))))
    return found


@dataclass(frozen=True, eq=False)
class Poly:
    """An array of functions: ``value`` and ``rest`` (…), ``first`` (…, P), ``second`` (…, P, P)."""

    value: Wide
    first: Wide
    second: Wide
    rest: Wide
    ball: Wide

    @staticmethod
    def constant(value: Wide, size: int, ball: Wide) -> Poly:
        """Numbers."""
        return Poly(value, zeros((*value.shape, size)), zeros((*value.shape, size, size)), zeros(value.shape), ball)

    @cached_property
    def one(self) -> Wide:
        """Largest |q1 . delta|."""
        return grown(self.ball * _euclidean(self.first))

    @cached_property
    def _frobenius(self) -> Wide:
        return _euclidean(self.second.reshape(*self.value.shape, -1))

    @cached_property
    def two(self) -> Wide:
        """Largest |delta'q2 delta / 2|."""
        return grown(0.5 * self.ball * self.ball * spectral(self.second, self._frobenius))

    @property
    def left_out(self) -> Wide:
        """Largest change beyond the first order."""
        return grown(self.two + self.rest)

    @cached_property
    def known(self) -> Wide:
        """Largest size of the polynomial."""
        return grown(np.abs(self.value) + self.one + self.two)

    @property
    def change(self) -> Wide:
        """Largest change."""
        return grown(self.one + self.left_out)

    @cached_property
    def coarse(self) -> Wide:
        """What rounding errors are relative to."""
        return grown(np.abs(self.value) + self.one + 0.5 * self.ball * self.ball * self._frobenius + self.rest)

    @property
    def range(self) -> Range:
        """What the functions may be."""
        return Range.about(self.value, self.change)

    def __getitem__(self, where: Any) -> Poly:
        return Poly(self.value[where], self.first[where], self.second[where], self.rest[where], self.ball)

    def __sub__(self, other: Poly) -> Poly:
        p, q = self, other
        rest = grown(p.rest + q.rest + 4.0 * UNIT * (p.coarse + q.coarse))
        return Poly(p.value - q.value, p.first - q.first, p.second - q.second, rest, p.ball)

    def sum(self, axis: int) -> Poly:
        """Sums over an axis of the array."""
        count = self.value.shape[axis]
        rest = grown((self.rest + UNIT * (count + 4) * self.coarse).sum(axis=axis), count)
        return Poly(self.value.sum(axis=axis), self.first.sum(axis=axis), self.second.sum(axis=axis), rest, self.ball)

    def minus(self, numbers: Wide) -> Poly:
        """Q less numbers."""
        value = self.value - numbers
        return Poly(value, self.first, self.second, grown(self.rest + 2.0 * UNIT * np.abs(value)), self.ball)

    def times(self, numbers: Range) -> Poly:
        """Q times numbers that are known well."""
        x, blur = middle_and_radius(numbers)
        size = np.abs(x)
        rest = up(size + blur) * self.rest + up(blur + 4.0 * UNIT * size) * self.coarse
        return Poly(x * self.value, x[..., None] * self.first, x[..., None, None] * self.second, grown(rest), self.ball)

    def __mul__(self, other: Poly) -> Poly:
        p, q = self, other
        p0, q0 = p.value[..., None], q.value[..., None]
        crossed = p.first[..., :, None] * q.first[..., None, :]
        second = p0[..., None] * q.second + q0[..., None] * p.second + (crossed + np.swapaxes(crossed, -1, -2))
        first = p0 * q.first + q0 * p.first
        rest = grown(rest_of_products(p, q, np.multiply) + 16.0 * UNIT * p.coarse * q.coarse)
        return Poly(p.value * q.value, first, second, rest, p.ball)

    def composed(self, derivatives: Derivatives, order: int) -> Poly:
        """Phi^(order) of q: with the change d, phi + phi' d + phi'' d²/2, and phi''' d³/6 at a point between.

        Of d² the square of q1 . delta stays; what is left of it is at most b (2 |q1 . delta| + b) for what d has beyond, b.
        """
        found = derivatives((order, order + 1, order + 2), Range(self.value))
        (f0, e0), (f1, e1), (f2, e2) = (middle_and_radius(f) for f in found)
        third = derivatives((order + 3,), self.range)[0].size()
        s1, s2, beyond, move = np.abs(f1), np.abs(f2), self.left_out, self.change
        rest = s1 * self.rest + 0.5 * s2 * beyond * (2.0 * self.one + beyond) + third * move * move * move / 6.0
        rest = rest + e0 + e1 * move + 0.5 * e2 * move * move
        rest = rest + 16.0 * UNIT * (s1 * self.coarse + s2 * self.coarse * self.coarse)
        squares = self.first[..., :, None] * self.first[..., None, :]
        second = f1[..., None, None] * self.second + f2[..., None, None] * squares
        return Poly(f0, f1[..., None] * self.first, second, grown(rest), self.ball)


def rest_of_products(p: Poly, q: Poly, total: Callable[[Wide, Wide], Wide]) -> Wide:
    """What sums of products leave out but for rounding, when ``total`` sums the products of their sizes.

    The rests with everything, and the polynomials' products of the third and fourth order.
    """
    rest = total(p.known, q.rest) + total(p.rest, grown(q.known + q.rest))
    found: Wide = rest + total(p.one, q.two) + total(p.two, grown(q.one + q.two))
    return found


def weighted(matrix: Wide, places: npt.NDArray[np.int64], below: Poly) -> Poly:
    """The sums over k of (M_jk + delta_p) q_k with p = places_jk, for q (n, in, …) and M (out, in).

    Each change is a parameter of its own, so those of a row are together no longer than the ball's radius.
    """
    outputs, inputs = matrix.shape
    n, _, *more = below.value.shape
    size = below.first.shape[-1]
    value, first, second = (zeros((n, outputs, *more, *(size,) * order)) for order in range(3))
    for j, k in np.ndindex(outputs, inputs):
        m, p = matrix[j, k], int(places[j, k])
        value[:, j] += m * below.value[:, k]
        first[:, j] += m * below.first[:, k]
        first[:, j, ..., p] += below.value[:, k]
        second[:, j] += m * below.second[:, k]
        second[:, j, ..., p, :] += below.first[:, k]
        second[:, j, ..., :, p] += below.first[:, k]

    def bound(fixed: Wide, moving: Wide) -> Wide:
        found: Wide = np.stack([below.ball * _euclidean(np.moveaxis(moving, 1, -1))] * outputs, axis=1)
        for j, k in np.ndindex(outputs, inputs):
            found[:, j] += np.abs(matrix[j, k]) * fixed[:, k]
        return found

    rest = bound(below.rest, below.left_out) + UNIT * (2 * inputs + 16) * bound(below.coarse, 3.0 * below.coarse)
    return Poly(value, first, second, grown(rest, inputs), below.ball)
