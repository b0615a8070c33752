"""The factors of the Hessian of one hidden layer as polynomials in the change of every unit's parameters.

With t = X_i . delta_w for the weights and the bias w of unit j, X_i = κ₁ (x_i, 1), and b = delta V_kj, activations are cubic
polynomials in t, and κ₂ (V + b) times them is one in t and b. What is left out is bounded unit by unit: as the squares of the
units' parts R_j of the radius add up to R² at most, sums of |b||t|³, of |t|³ and of |b| t² over units are no larger than one's,
and where a unit has much of the radius the others have little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..model import MLP
from .intervals import ROOT_TINY, TINY, gamma
from .taylor_nodes import polynomial
from .taylor_pairs import Nodes

FloatArray = npt.NDArray[np.float64]

#: Largest |b| |t|³ and |b| t² on the unit disc, rounded up.
_CUBED, _SQUARED = 3.0 * math.sqrt(3.0) / 16.0 * (1.0 + 1e-15), 2.0 / (3.0 * math.sqrt(3.0)) * (1.0 + 1e-15)
#: Parts that a unit may have of the radius, with bounds for each.
_SHARES = 32
_ROOM = 1.0 + gamma(64)


class UnitLayout:
    """The parameters unit by unit: (w_j, b_j, V_kj for all k) for every j, and then the output biases."""

    def __init__(self, net: MLP) -> None:
        (first, bias), (second, output) = net.layer_slices
        inputs, self.units, self.outputs = net.widths
        parts = [np.arange(first.start, first.stop).reshape(self.units, inputs)]
        if bias is not None:
            parts.append(np.arange(bias.start, bias.stop)[:, None])
        self.entering = inputs + len(parts) - 1
        parts.append(np.arange(second.start, second.stop).reshape(self.outputs, self.units).T)
        blocks = np.concatenate(parts, axis=1)
        self.one = blocks.shape[1]
        self.biases = 0 if output is None else self.outputs
        order = blocks.ravel() if output is None else np.concatenate([blocks.ravel(), np.arange(output.start, output.stop)])
        self.size = order.size
        #: The parameters in that order.
        self.order = order

    @property
    def nodes(self) -> Nodes:
        """The groups: the units, and the output biases."""
        return Nodes(self.units + int(self.biases > 0), self.one, self.size)

    def unit(self, j: int) -> npt.NDArray[np.int64]:
        """A unit's parameters."""
        return self.order[j * self.one : (j + 1) * self.one]


@dataclass(frozen=True, eq=False)
class Scalars:
    """Polynomials (n, H) in t: coefficients of t⁰ to t³, and what they leave out for |t| <= R |X|."""

    of: list[FloatArray]
    rest: FloatArray

    def repeated(self, outputs: int) -> Scalars:
        """For every output."""
        return Scalars([np.repeat(x, outputs, axis=0) for x in self.of], np.repeat(self.rest, outputs, axis=0))


@dataclass(frozen=True, eq=False)
class Sizes:
    """Bounds of a form's terms by order, and of what it leaves out; and of the sum of its coefficients' absolute terms."""

    terms: list[FloatArray]
    rest: FloatArray
    rough: FloatArray

    @staticmethod
    def of(terms: list[FloatArray], rest: FloatArray, rough: FloatArray) -> Sizes:
        """With what the coefficients were rounded by in the rest, and what squares lost that were too small."""
        return Sizes([x * _ROOM + ROOT_TINY for x in terms], (rest + gamma(64) * rough) * _ROOM + TINY, rough * _ROOM + TINY)


@dataclass(frozen=True, eq=False)
class Shared:
    """A sum of forms over the units, seen by each of them (rows, H): the terms of all others, and its own.

    ``whole`` has the sizes of the sum (rows, 1).
    """

    others: list[FloatArray]
    own: list[FloatArray]
    whole: Sizes

    def times(self, unit: Sizes) -> FloatArray:
        """What products with forms of the units leave out beyond the third order.

        Where the unit has the part s of the radius, the others together have c, s² + c² <= 1: their terms of order x are at most
        c^x of the largest, and those of the unit s^x. s² is between two of some numbers, c² less than one less the smaller.
        """
        q1, q2, q3 = unit.terms[1:]
        found = np.zeros_like(q1)
        for at in range(_SHARES):
            s, c = math.sqrt((at + 1) / _SHARES), math.sqrt(1.0 - at / _SHARES)
            r1, r2, r3 = (c**x * p + s**x * q for x, p, q in zip((1, 2, 3), self.others, self.own, strict=True))
            u1, u2, u3 = s * q1, s**2 * q2, s**3 * q3
            found = np.maximum(found, r1 * u3 + r2 * (u2 + u3) + r3 * (u1 + u2 + u3))
        p, q = self.whole, unit
        found = found + p.rest * (sum(q.terms) + q.rest) + sum(p.terms) * q.rest
        return np.asarray(found * _ROOM + TINY)


class UnitForms:
    """The polynomials of a block of data, one row for every datum and output.

    A polynomial in t and b of one output is a sum of products of X, which is t's gradient, and e, which is that of b.
    """

    def __init__(self, net: MLP, layout: UnitLayout, centre: FloatArray, radius: float, x: FloatArray, y: FloatArray) -> None:
        (first, bias), (second, output) = net.layer_slices
        inner, outer = (float(scale) for scale in net.layer_scales)
        outputs, units, count = layout.outputs, layout.units, len(x)
        entering = inner * x if bias is None else inner * np.concatenate([x, np.ones((count, 1))], axis=1)
        weights = centre[first].reshape(units, -1)
        weights = weights if bias is None else np.concatenate([weights, centre[bias][:, None]], axis=1)
        s = entering @ weights.T
        length = np.sqrt((entering**2).sum(axis=1, keepdims=True)) * (1.0 + gamma(layout.entering + 64)) + ROOT_TINY
        # The entries of X, s and t are rounded.
        off = gamma(layout.entering + 16) * (np.abs(entering) @ np.abs(weights).T + radius * length) + TINY
        width = radius * length * _ROOM + off

        def scalars(order: int) -> Scalars:
            of, error = polynomial(net.activations[0], net.betas[0], order, s, width, 3)
            slope = np.abs(of[1]) + width * (2.0 * np.abs(of[2]) + 3.0 * width * np.abs(of[3]))
            return Scalars(of, (error + off * slope) * _ROOM).repeated(outputs)

        f, g, h = (scalars(order) for order in range(3))
        v = np.tile(centre[second].reshape(outputs, units), (count, 1))
        level = np.zeros(outputs) if output is None else outer * centre[output]
        long = np.repeat(length, outputs, axis=0)
        rho = radius * long * _ROOM
        self.radius, self.outer = radius, outer
        self.f, self.g, self.h, self.v = f, g, h, v
        self.x = np.zeros((count * outputs, layout.one))
        self.x[:, : layout.entering] = np.repeat(entering, outputs, axis=0)
        self.e = np.zeros((count * outputs, layout.one))
        self.e[:, layout.entering :] = np.tile(np.eye(outputs), (count, 1))
        self.residual = outer * (v * f.of[0]).sum(axis=1) + np.tile(level, count) - y.ravel()
        size = np.abs(v)
        reach = size + radius

        def powers(of: list[FloatArray]) -> FloatArray:
            return np.abs(of[0]) + rho * (np.abs(of[1]) + rho * (np.abs(of[2]) + rho * np.abs(of[3])))

        def of_unit(p: Scalars) -> Sizes:
            """Of κ (V + b) p."""
            terms = [size * np.abs(p.of[0]), *self._terms(p.of, long, rho)]
            rest = reach * p.rest + _CUBED * radius * rho**3 * np.abs(p.of[3])
            return Sizes.of([outer * x for x in terms], outer * rest, outer * (reach * powers(p.of) + rest))

        #: Q, G, and what J's factor of X is.
        self.q, self.d = of_unit(h), of_unit(g)
        self.slope = Sizes.of(
            [outer * np.abs(x) * rho**power for power, x in enumerate(g.of)], outer * g.rest, outer * (powers(g.of) + g.rest)
        )
        self.value_rough = outer * (powers(f.of) + f.rest) * _ROOM
        #: J's terms of the third order, and what it leaves out, as the factor of X and of e; the coefficients are rounded.
        self.bent = self.d.terms[3], outer * rho**3 * np.abs(f.of[3]) * _ROOM
        self.gone = self.d.rest, (outer * f.rest + gamma(64) * self.value_rough) * _ROOM + TINY
        own = [outer * x * _ROOM + ROOT_TINY for x in self._terms(f.of, long, rho)]
        squares = own[0] ** 2
        shift = float(layout.biases > 0) * outer * radius
        total = (squares.sum(axis=1, keepdims=True) + shift**2) * (1.0 + gamma(units + 16))
        left = np.sqrt(np.maximum(total - squares * (1.0 - gamma(4)), 0.0)) * _ROOM + units * ROOT_TINY
        others = [left, *(_largest_of_others(x) for x in own[1:])]
        rest = (size * f.rest).sum(axis=1) + radius * (np.sqrt((f.rest**2).sum(axis=1)) + units * ROOT_TINY)
        rest = rest + _CUBED * radius * rho[:, 0] ** 3 * np.abs(f.of[3]).max(axis=1)
        rough = outer * ((reach * powers(f.of)).sum(axis=1) + rest) + np.tile(np.abs(level), count) + shift + np.abs(y.ravel())
        rough = rough * (1.0 + gamma(units + 64))
        terms = [
            np.abs(self.residual)[:, None],
            np.sqrt(total) + units * ROOT_TINY,
            *(x.max(axis=1, keepdims=True) for x in own[1:]),
        ]
        rest = outer * rest * (1.0 + gamma(units + 16)) + gamma(units + 64) * rough
        self.r = Shared(others, own, Sizes.of(terms, rest[:, None], rough[:, None]))

    def _terms(self, of: list[FloatArray], long: FloatArray, rho: FloatArray) -> list[FloatArray]:
        """Largest V p_1 t + b p_0, V p_2 t² + p_1 b t and V p_3 t³ + p_2 b t², by their absolute values."""
        radius, v = self.radius, self.v
        twice = np.abs(v * of[2]) * long**2
        return [
            radius * np.hypot(v * of[1] * long, of[0]),
            0.5 * radius**2 * (twice + np.hypot(twice, of[1] * long)) * _ROOM,
            np.abs(v * of[3]) * rho**3 + _SQUARED * radius * rho**2 * np.abs(of[2]),
        ]

    def along(self, numbers: FloatArray, *vectors: FloatArray) -> FloatArray:
        """The products numbers_rj u_a v_b … (rows, H, D, D, …)."""
        found, letters = numbers[..., None] * vectors[0][:, None], "abcdf"
        for at in range(1, len(vectors)):
            known = letters[:at]
            found = np.einsum(f"rj{known},r{letters[at]}->rj{known}{letters[at]}", found, vectors[at])
        return found

    def forms(self, of: list[FloatArray]) -> list[FloatArray]:
        """The tensors of orders 1 to 3 of κ (V + b) p: (rows, H, D), symmetric (rows, H, D, D), and (rows, H, D, D, D)."""
        x, e, v = self.x, self.e, self.outer * self.v
        p0, p1, p2 = (self.outer * p for p in of[:3])
        second = self.along(v * of[2], x, x)
        mixed = self.along(0.5 * p1, x, e)
        third = self.along(v * of[3], x, x, x)
        bent = self.along(p2 / 3.0, x, x, e)
        second += mixed + mixed.swapaxes(2, 3)
        third += bent + bent.swapaxes(3, 4) + bent.swapaxes(2, 4)
        return [self.along(v * of[1], x) + self.along(p0, e), second, third]


def _largest_of_others(x: FloatArray) -> FloatArray:
    """The largest of a row's other numbers, at least zero."""
    found = np.zeros_like(x)
    if x.shape[1] > 1:
        where = np.argmax(x, axis=1)
        second = np.partition(x, -2, axis=1)[:, -2]
        found[:] = x.max(axis=1, keepdims=True)
        found[np.arange(len(x)), where] = second
    return found
