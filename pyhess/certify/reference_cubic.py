"""Functions as cubic or quadratic polynomials in the parameters' change, with a bound of the rest, for checking certificates.

For delta among some `Changes` a `Poly` stands for a function q with

    |q(c + delta) - (q0 + q1 . delta + delta'q2 delta / 2 + q3[delta, delta, delta] / 6)| <= rest.

Polynomials of the second order have no numbers for q3, and their rest takes what is of the third order and above.

The coefficients are long doubles, those of the polynomials' own order, which are most, doubles, taken as they stand. What a step
rounds has, entry by entry, at most UNIT times their number times the sizes of the terms, so it goes to the rest as that many
times the products of ``coarse`` sizes: those take the Frobenius norm of q2, as the errors of its entries do not keep its spectral
norm. For the polynomials' own order the terms are the products' parts of that order (`highest`), with doubles' rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .reference_changes import DOUBLE, LEAST, SHORTEST, Changes, Numbers, euclidean, frobenius, grown, tensor_norm
from .reference_interval import UNIT, Range, Wide, middle_and_radius, up, wide, zeros
from .reference_nodes import Derivatives, expanded
from .reference_triples import FloatArray, crossed, steps, tensor_count, triples


def doubles(x: Numbers) -> FloatArray:
    """Rounded."""
    return x.astype(np.float64, copy=False)


def zero_matrices(shape: tuple[int, ...], size: int, order: int) -> Numbers:
    """Of the second order, in the numbers that polynomials of an order have there."""
    return np.zeros((*shape, size, size), dtype=np.float64 if order == 2 else np.longdouble)


@dataclass(frozen=True, eq=False)
class Poly:
    """An array of functions: ``value``, ``rest`` (…), ``first`` (…, P), ``second`` (…, P, P), ``third`` (C, …) as `Triples`.

    Those of the second order have C = 0.
    """

    value: Wide
    first: Wide
    second: Numbers
    third: FloatArray
    rest: Wide
    changes: Changes

    @staticmethod
    def constant(value: Wide, size: int, changes: Changes, order: int) -> Poly:
        """Numbers, as polynomials of that order."""
        third = np.zeros((tensor_count(size, order), *value.shape))
        second = zero_matrices(value.shape, size, order)
        return Poly(value, zeros((*value.shape, size)), second, third, zeros(value.shape), changes)

    @property
    def size(self) -> int:
        """P."""
        return int(self.first.shape[-1])

    @property
    def order(self) -> int:
        """That of the polynomials."""
        return 3 if len(self.third) else 2

    @cached_property
    def _norms(self) -> tuple[Wide, Wide, Wide]:
        third = tensor_norm(self.third, triples(self.size)) if self.order == 3 else zeros(self.value.shape)
        return euclidean(self.first) + SHORTEST, frobenius(self.second), third

    @cached_property
    def one(self) -> Wide:
        """Largest |q1 . delta|."""
        return self.changes.first(self.first, self._norms[0])

    @cached_property
    def two(self) -> Wide:
        """Largest |delta'q2 delta / 2|."""
        return self.changes.second(self.second, self._norms[1])

    @cached_property
    def three(self) -> Wide:
        """Largest |q3[delta, delta, delta] / 6|."""
        return self.changes.third(self.third, self._norms[2]) if self.order == 3 else zeros(self.value.shape)

    @cached_property
    def rough(self) -> tuple[Wide, Wide, Wide]:
        """No less than these, from the lengths of the coefficients, which rounding errors are relative to."""
        r, (first, second, third) = self.changes.reach, self._norms
        return grown(r * first), grown(0.5 * r * r * (second + SHORTEST)), grown(r * r * r * third / 6.0)

    @property
    def left_out(self) -> Wide:
        """Largest change beyond the second order."""
        return grown(self.three + self.rest)

    @property
    def top(self) -> Wide:
        """Largest change of the polynomial's own order and beyond, which is left out of products with a change."""
        return self.left_out if self.order == 3 else grown(self.two + self.rest)

    @cached_property
    def known(self) -> Wide:
        """Largest size of the polynomial."""
        return grown(np.abs(self.value) + self.one + self.two + self.three)

    @property
    def change(self) -> Wide:
        """Largest change."""
        return grown(self.one + self.two + self.left_out)

    @cached_property
    def coarse(self) -> Wide:
        """What rounding errors are relative to."""
        first, second, third = self.rough
        return grown(np.abs(self.value) + first + second + third + self.rest)

    @property
    def range(self) -> Range:
        """What the functions may be."""
        return Range.about(self.value, self.change)

    @cached_property
    def in_doubles(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """The coefficients (…), (P, …), (P, P, …) and (C, …)."""
        first, second = np.moveaxis(doubles(self.first), -1, 0), np.moveaxis(doubles(self.second), (-2, -1), (0, 1))
        return doubles(self.value), np.ascontiguousarray(first), np.ascontiguousarray(second), self.third

    def rounded(self, count: int, size: Wide) -> Wide:
        """What ``count`` roundings in the polynomial's own order are, for terms that are together of at most that size."""
        return DOUBLE * count * (size + LEAST * self.changes.reach**self.order)

    @property
    def own(self) -> Wide:
        """No less than the largest size of the terms of the polynomial's own order."""
        return self.rough[self.order - 1]

    def _matched(self, x: Wide) -> Numbers:
        """In the numbers of the second order."""
        return x.astype(self.second.dtype, copy=False)

    def __getitem__(self, where: Any) -> Poly:
        of_third = (slice(None), *(where if isinstance(where, tuple) else (where,)))
        return Poly(
            self.value[where], self.first[where], self.second[where], self.third[of_third], self.rest[where], self.changes
        )

    def __add__(self, other: Poly) -> Poly:
        p, q = self, other
        rest = grown(p.rest + q.rest + 4.0 * UNIT * (p.coarse + q.coarse) + self.rounded(4, p.own + q.own))
        return Poly(p.value + q.value, p.first + q.first, p.second + q.second, p.third + q.third, rest, p.changes)

    def __neg__(self) -> Poly:
        return Poly(-self.value, -self.first, -self.second, -self.third, self.rest, self.changes)

    def __sub__(self, other: Poly) -> Poly:
        return self + -other

    def sum(self, axis: int) -> Poly:
        """Sums over an axis of the array."""
        count = self.value.shape[axis]
        rest = (self.rest + UNIT * (count + 4) * self.coarse + self.rounded(count + 4, self.own)).sum(axis=axis)
        value, first, second = (x.sum(axis=axis) for x in (self.value, self.first, self.second))
        return Poly(value, first, second, self.third.sum(axis=axis + 1), grown(rest, count), self.changes)

    def minus(self, numbers: Wide) -> Poly:
        """Q less numbers."""
        value = self.value - numbers
        rest = grown(self.rest + 2.0 * UNIT * np.abs(value))
        return Poly(value, self.first, self.second, self.third, rest, self.changes)

    def lowered(self, numbers: Wide) -> Poly:
        """Less numbers, as a lower end: what the numbers do not cover of the rest is the rest of the function there."""
        beyond = grown(np.maximum(self.rest - numbers, wide(0.0)) + UNIT * self.rest)
        bare = Poly(
            self.value, self.first, self.second, self.third, np.where(self.rest > numbers, beyond, wide(0.0)), self.changes
        )
        return bare.minus(numbers)

    def times(self, numbers: Range) -> Poly:
        """Q times numbers that are known well."""
        x, blur = middle_and_radius(numbers)
        size = np.abs(x)
        rest = up(size + blur) * self.rest + up(blur + 4.0 * UNIT * size) * self.coarse
        rest = rest + self.rounded(4, grown(size) * self.own)
        value, first, second = x * self.value, x[..., None] * self.first, self._matched(x)[..., None, None] * self.second
        return Poly(value, first, second, doubles(x) * self.third, grown(rest), self.changes)

    def __mul__(self, other: Poly) -> Poly:
        p, q = self, other
        p0, q0 = p.value[..., None], q.value[..., None]
        left, right = (p._matched(x) for x in (p.first, q.first))
        outer = left[..., :, None] * right[..., None, :]
        second = p._matched(p0)[..., None] * q.second
        second += p._matched(q0)[..., None] * p.second
        second += outer
        second += np.swapaxes(outer, -1, -2)
        first = p0 * q.first + q0 * p.first
        rest = rest_of_products(p, q, np.multiply) + 16.0 * UNIT * p.coarse * q.coarse
        rest = grown(rest + self.rounded(16, highest(p, q, np.multiply)))
        return Poly(p.value * q.value, first, second, _third_of_product(p, q), rest, p.changes)

    def composed(self, derivatives: Derivatives, order: int) -> Poly:
        """Phi^(order) of q: with the change d, f0 + f1 d + f2 d²/2 (+ f3 d³/6) as `expanded` gives them.

        With d1 = q1 . delta, d2 = delta'q2 delta / 2, b what d has beyond d1 and t its `top`, d1² (+ 2 d1 d2) stays of d² and
        d1³ of d³; what is left of them is at most 2 |d1| t + b² and (|d1| + b)³ - |d1|³.
        """
        one, b, move, degree = self.one, grown(self.two + self.left_out), self.change, self.order
        found, off = expanded(derivatives, order, self.value, move, self.range, degree)
        (f0, e0), (f1, e1), (f2, e2) = found[:3]
        s1, s2, square = grown(np.abs(f1)), grown(np.abs(f2)), move * move
        rest = s1 * self.rest + 0.5 * s2 * (2.0 * one * self.top + b * b) + off
        rest = rest + e0 + e1 * move + 0.5 * e2 * square + 16.0 * UNIT * (s1 * self.coarse + s2 * self.coarse * self.coarse)
        once, twice, slope = (self._matched(x) for x in (f1, f2, self.first))
        second = once[..., None, None] * self.second
        second += twice[..., None, None] * (slope[..., :, None] * slope[..., None, :])
        third, (first, rough, cube) = self.third, self.rough
        if degree == 3:
            f3, e3 = found[3]
            s3 = grown(np.abs(f3))
            rest = rest + s3 * b * (3.0 * one * (one + b) + b * b) / 6.0 + e3 * move * square / 6.0
            rest = rest + self.rounded(16, s1 * cube + s2 * first * rough + s3 * first * first * first / 6.0)
            third = self._third_of_composed(doubles(f1), doubles(f2), doubles(f3))
        else:
            rest = rest + self.rounded(16, s1 * rough + 0.5 * s2 * first * first)
        return Poly(f0, f1[..., None] * self.first, second, third, grown(rest), self.changes)

    def _third_of_composed(self, f1: FloatArray, f2: FloatArray, f3: FloatArray) -> FloatArray:
        at, (_, one, two, three) = triples(self.size), self.in_doubles
        found = np.empty_like(three)
        for part in steps(len(found), f1.size):
            into = found[part]
            np.multiply(f1, three[part], out=into)
            into += f2 * crossed(one, two, at, part)
            into += f3 * (one[at.k[part]] * one[at.l[part]] * one[at.m[part]])
        return found


def _third_of_product(p: Poly, q: Poly) -> FloatArray:
    shape = np.broadcast_shapes(p.value.shape, q.value.shape)
    found = np.empty((len(p.third), *shape))
    if p.order == 2:
        return found
    at, (p0, p1, p2, p3), (q0, q1, q2, q3) = triples(p.size), p.in_doubles, q.in_doubles
    for part in steps(len(found), int(np.prod(shape))):
        into = found[part]
        np.multiply(p0, q3[part], out=into)
        into += q0 * p3[part]
        into += crossed(p1, q2, at, part)
        into += crossed(q1, p2, at, part)
    return found


def rest_of_products(p: Poly, q: Poly, total: Callable[[Wide, Wide], Wide]) -> Wide:
    """What sums of products leave out but for rounding, when ``total`` sums the products of their sizes.

    The rests with everything, and the polynomials' products of higher orders than their own.
    """
    rest = total(p.known, q.rest) + total(p.rest, grown(q.known + q.rest))
    if p.order == 2:
        both: Wide = rest + total(p.one, q.two) + total(p.two, grown(q.one + q.two))
        return both
    rest = rest + total(p.one, q.three)
    found: Wide = rest + total(p.two, grown(q.two + q.three)) + total(p.three, grown(q.one + q.two + q.three))
    return found


def highest(p: Poly, q: Poly, total: Callable[[Wide, Wide], Wide]) -> Wide:
    """Sizes of the terms of the polynomials' own order in sums of products, as they are rounded."""
    left, right = ((grown(np.abs(x.value)), *x.rough) for x in (p, q))
    found = total(left[0], right[p.order])
    for order in range(1, p.order + 1):
        found = found + total(left[order], right[p.order - order])
    return grown(found)


def weighted(matrix: Wide, places: npt.NDArray[np.int64], below: Poly) -> Poly:
    """The sums over k of (M_jk + delta_p) q_k with p = places_jk, for q (n, in, …) and M (out, in).

    Each change is a parameter of its own, so those of a row are together no longer than all of the change.
    """
    outputs, inputs = matrix.shape
    n, _, *more = below.value.shape
    size = below.size
    value, first = (zeros((n, outputs, *more, *(size,) * order)) for order in range(2))
    second = zero_matrices(value.shape, size, below.order)
    numbers, slopes = matrix.astype(second.dtype), below.first.astype(second.dtype, copy=False)
    third = np.zeros((len(below.third), n, outputs, *more))
    if below.order == 3:
        _weighted_third(third, matrix, places, below)
    for j, k in np.ndindex(outputs, inputs):
        m, p = matrix[j, k], int(places[j, k])
        value[:, j] += m * below.value[:, k]
        first[:, j] += m * below.first[:, k]
        first[:, j, ..., p] += below.value[:, k]
        second[:, j] += numbers[j, k] * below.second[:, k]
        second[:, j, ..., p, :] += slopes[:, k]
        second[:, j, ..., :, p] += slopes[:, k]

    def bound(fixed: Wide, moving: Wide) -> Wide:
        found: Wide = np.stack([below.changes.reach * euclidean(np.moveaxis(moving, 1, -1))] * outputs, axis=1)
        for j, k in np.ndindex(outputs, inputs):
            found[:, j] += np.abs(matrix[j, k]) * fixed[:, k]
        return found

    rest = bound(below.rest, below.top) + UNIT * (2 * inputs + 16) * bound(below.coarse, 3.0 * below.coarse)
    rest = rest + below.rounded(2 * inputs + 16, bound(below.own, below.rough[below.order - 2]))
    return Poly(value, first, second, third, grown(rest, inputs), below.changes)


def _weighted_third(third: FloatArray, matrix: Wide, places: npt.NDArray[np.int64], below: Poly) -> None:
    _, n, outputs, *more = third.shape
    inputs, at = matrix.shape[1], triples(below.size)
    third += (doubles(matrix) @ below.third.reshape(len(third) * n, inputs, -1)).reshape(third.shape)
    pairs = below.in_doubles[2][at.pairs]
    for j, k in np.ndindex(outputs, inputs):
        p = int(places[j, k])
        occurs = at.occurs[p].reshape(-1, 1, *(1,) * len(more))
        third[at.extended[p], :, j] += occurs * pairs[:, :, k]
