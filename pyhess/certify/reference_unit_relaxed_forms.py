"""The matrices of a hidden unit's polynomial over cells, and whether they are positive semi-definite, for checking certificates.

With p a direction, e h the changes of the unit's weights, |e_k| <= 1, delta rho those of all others, lengths in units of about
the radius, and (q + h e)² + (rho delta)² <= R²,

    z = (p, e x p, delta x p),    p'Lam p (R² - |q + h e|² - rho² |delta|²) >= 0,    p'Lam_k p (1 - e_k²) >= 0,

so that z'Qz less these is still a bound. The third order of delta is a sum over units (delta x p)'M (delta x delta x p), which is
at least -tau/2 |M'(delta x p)|² - (room/rho)⁴/(2 tau) |p|², |delta| <= room/rho. The delta of a unit meets p, e x p and itself:
it is a `Leaf`. The sums are rounded by no more than eta of what their terms' sizes make of |p|².

Of the blocks K between delta_l x p and p only p'K p counts in z'Qz: any antisymmetric matrix may be added to them, its transpose
to the mirrored block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .reference_definite import Arrow, Leaf
from .reference_interval import zeros
from .reference_unit_relaxed_cells import CellPoints, Expanded
from .reference_unit_relaxed_others import FloatArray, IntArray, Numbers, Others, triples

#: What is added to a Gram matrix, relative to its factors, so that no rounding makes it indefinite.
_DEFINITE = 1e-13
#: All products of numbers that are too small count with this.
_TINY = 1e-100


@dataclass(frozen=True)
class Multipliers:
    """Lam (B, D, D), Lam_k (B, D, D, D) and tau (B,): positive semi-definite, whatever was rounded.

    And what is added to the blocks between delta_l x p and p (B, L, D, D), antisymmetric.
    """

    ball: FloatArray
    sides: FloatArray
    tau: FloatArray
    turns: FloatArray

    @staticmethod
    def of(ball: FloatArray, sides: FloatArray, tau: FloatArray, turns: FloatArray) -> Multipliers:
        """From factors A of A A', and matrices of which the antisymmetric parts are taken."""
        return Multipliers(_gram(ball), _gram(sides), tau, _antisymmetric(turns))


def _gram(a: FloatArray) -> FloatArray:
    product = a @ np.swapaxes(a, -1, -2)
    size = (a * a).sum(axis=(-2, -1))[..., None, None]
    found: FloatArray = 0.5 * (product + np.swapaxes(product, -1, -2)) + _DEFINITE * size * np.eye(a.shape[-1])
    return found


def _antisymmetric(x: FloatArray) -> FloatArray:
    """To the last bit."""
    found: FloatArray = 0.5 * (x - np.swapaxes(x, -1, -2))
    return found


@dataclass(frozen=True)
class Room:
    """Of cells: q (B, D), their half widths, the others' unit and R² - |q|² rounded up, and what is left to the others over that
    unit; all but the last in units of about the radius. ``blur`` bounds |q + h e|² + R² and the like.
    """

    q: FloatArray
    h: FloatArray
    rho: float
    square: FloatArray
    share: FloatArray
    blur: FloatArray


class Forms:
    """The matrices of a few cells, without multipliers and rests.

    The core's rows are p and the e x p, k before p; leaves' rows are delta x p, the columns of ``cross`` the core's.
    """

    def __init__(self, points: CellPoints, others: Others, found: Expanded) -> None:
        numbers = points.numbers
        self.numbers, self.size = numbers, points.h.shape[1]
        self.count = len(points.h)
        core = self._own(found)
        self.core, self.linear = core, core[:, : self.size, self.size :]
        self._delta(others, found)

    def _own(self, found: Expanded) -> FloatArray:
        numbers, size, count = self.numbers, self.size, self.count
        (a0, a1, a2), (b0, b1, b2), (g1, g2), r0 = found.a, found.b, found.g, found.r0
        low, high = np.triu_indices(size)
        r = r0[..., None]

        def coefficients(c0: FloatArray, c1: FloatArray, c2: FloatArray) -> FloatArray:
            one = 0.5 * (r * c1 + g1 * c0[..., None])
            two = r * c2 + 0.5 * (g1[..., low] * c1[..., high] + g1[..., high] * c1[..., low]) + g2 * c0[..., None]
            return np.concatenate([(r0 * c0)[..., None], one, two], axis=2)

        rows = _matrices(numbers, coefficients(a0, a1, a2), coefficients(b0, b1, b2))
        core = np.zeros((count, 1 + size, size, 1 + size, size))
        core[:, 0, :, 0] = rows[:, 0]
        for k in range(size):
            core[:, 0, :, 1 + k] = core[:, 1 + k, :, 0] = rows[:, 1 + k]
        for place, (one, other) in enumerate(zip(low, high, strict=True), 1 + size):
            core[:, 1 + one, :, 1 + other] = core[:, 1 + other, :, 1 + one] = rows[:, place]
        return core.reshape(count, size * (1 + size), size * (1 + size))

    def _delta(self, others: Others, found: Expanded) -> None:
        numbers, size, count, units = self.numbers, self.size, self.count, others.units
        tables, mass = others.tables, numbers.mass[:, None]
        n = len(mass)
        # In the rows' order: p, then the e.
        a = np.concatenate([found.a[0][..., None], found.a[1]], axis=2)
        b = np.concatenate([found.b[0][..., None], found.b[1]], axis=2)
        a, b = ((mass * c).transpose(0, 2, 1).reshape(-1, n) for c in (a, b))
        cross = 0.5 * self._summed(tables.first, a, b)
        symbols = cross.shape[1]
        # Cells, delta, p, (1, e) and p.
        cross = cross.reshape(count, 1 + size, symbols, size, size).transpose(0, 2, 3, 1, 4)
        cross = np.ascontiguousarray(cross).reshape(count, symbols * size, (1 + size) * size)
        inner = units * size * size
        self.cross = cross[:, :inner].reshape(count, units, size * size, (1 + size) * size)
        self.bias = cross[:, inner:] if numbers.bias else None
        a0, b0 = (numbers.mass * c[0] for c in (found.a, found.b))
        pairs, place = _pairs(size)
        second = self._summed(tables.second, a0, b0).reshape(count, units, len(pairs), size, size)
        leaf = second[:, :, place].transpose(0, 1, 2, 4, 3, 5)
        self.leaf = np.ascontiguousarray(leaf).reshape(count, units, size * size, size * size)
        self._third = self._summed(tables.third, a0, b0)
        self._units = units

    def _summed(self, table: tuple[FloatArray, FloatArray], a: FloatArray, b: FloatArray) -> FloatArray:
        inputs, size = self.size - 1, self.size
        squares, lines = table
        top, side = a @ squares, b @ lines
        found = np.zeros((len(a), lines.shape[1] // inputs, size, size))
        found[..., :inputs, :inputs] = top.reshape(*found.shape[:2], inputs, inputs)
        found[..., :inputs, inputs] = found[..., inputs, :inputs] = side.reshape(*found.shape[:2], inputs)
        return found

    @cached_property
    def cubic(self) -> FloatArray:
        """M (B, units, D², D (D + 1)/2 D): the pairs of delta times the roots of how often they occur."""
        size = self.size
        l, m, k = triples(size)  # noqa: E741 - as in the formulas
        number = np.zeros((size,) * 3, dtype=np.int64)
        for x, y, z in ((l, m, k), (l, k, m), (m, l, k), (m, k, l), (k, l, m), (k, m, l)):
            number[x, y, z] = np.arange(len(l))
        low, high = np.triu_indices(size)
        root = np.where(low == high, 1.0, np.sqrt(2.0))[:, None, None]
        third = self._third.reshape(self.count, self._units, len(l), size, size)
        rows = (third[:, :, number[:, low, high]] * root).transpose(0, 1, 2, 4, 3, 5)
        return rows.reshape(self.count, self._units, size * size, len(low) * size)

    @cached_property
    def third(self) -> tuple[FloatArray, FloatArray]:
        """M M' (B, units, D², D²), and the largest |M|² of a unit (B,)."""
        rows = self.cubic
        return rows @ np.swapaxes(rows, 2, 3), (rows * rows).sum(axis=(2, 3)).max(axis=1, initial=0.0)

    def slopes(self) -> FloatArray:
        """The matrices of delta_l p p' (B, L, D, D), halved."""
        size = self.size
        found = self.cross.reshape(self.count, self._units * size, size, (1 + size) * size)[..., :size]
        if self.bias is None:
            return found
        return np.concatenate([found, self.bias[:, None, :, :size]], axis=1)


class Bounded:
    """`Forms` with multipliers, room and what is subtracted from |p|² and p."""

    def __init__(self, forms: Forms, room: Room, multipliers: Multipliers, taken: FloatArray, blur: FloatArray) -> None:
        size, eta, lam = forms.size, forms.numbers.eta, multipliers.ball
        self._forms, self._places = forms, np.arange(size * (1 + size))
        gram, largest = forms.third
        cubic = room.share**4 / (2.0 * multipliers.tau)
        total = _norm(lam) * room.blur + 2.0 * _norm(multipliers.sides).sum(axis=1)
        total += 0.5 * multipliers.tau * largest + cubic + np.trace(np.abs(taken), axis1=1, axis2=2)
        # Adding what is antisymmetric rounds the blocks.
        total += (_norm(forms.slopes()) + _norm(multipliers.turns)).sum(axis=1)
        self.blur = blur + 2.0 * eta * total + _TINY
        core = forms.core.reshape(-1, 1 + size, size, 1 + size, size).copy()
        core[:, 0, :, 0] -= room.square[:, None, None] * lam + multipliers.sides.sum(axis=1) + taken
        core[:, 0, :, 0] -= (cubic + self.blur)[:, None, None] * np.eye(size)
        turn = room.q * room.h
        for k in range(size):
            extra = turn[:, k, None, None] * lam
            core[:, 0, :, 1 + k] += extra
            core[:, 1 + k, :, 0] += extra
            core[:, 1 + k, :, 1 + k] += (room.h[:, k] ** 2)[:, None, None] * lam + multipliers.sides[:, k]
        self.core = core.reshape(forms.core.shape)
        own = np.zeros((forms.count, size, size, size, size))
        for k in range(size):
            own[:, k, :, k] = room.rho**2 * lam
        self.own = own.reshape(forms.count, 1, size * size, size * size)
        self.leaf = forms.leaf + self.own - 0.5 * multipliers.tau[:, None, None, None] * gram
        self.last = room.rho**2 * lam
        inner = multipliers.turns[:, : forms.cross.shape[1] * size]
        self.cross, self.bias = forms.cross.copy(), None if forms.bias is None else forms.bias.copy()
        self.cross[..., :size] += inner.reshape(forms.count, -1, size * size, size)
        if self.bias is not None:
            self.bias[..., :size] += multipliers.turns[:, -1]

    def arrow(self, cell: int, claim: float) -> Arrow:
        """The matrix of one cell, from p's part the claim taken off."""
        forms, none = self._forms, zeros
        core = self.core[cell].copy()
        places = np.arange(forms.size)
        core[places, places] -= claim
        core[places, places] -= 2.0 * forms.numbers.eta * abs(claim)
        rows = np.concatenate([self.leaf[cell], self.cross[cell]], axis=2)
        leaves = [Leaf(part, self._places, none(len(part))) for part in rows]
        if self.bias is not None:
            part = np.concatenate([self.last[cell], self.bias[cell]], axis=1)
            leaves.append(Leaf(part, self._places, none(len(part))))
        return Arrow(core, leaves, none(len(core)))


def _matrices(numbers: Numbers, a: FloatArray, b: FloatArray) -> FloatArray:
    """Means of a X X' in p_w and b X between p_w and nu, for (B, n, J)."""
    x, (count, n, kinds) = numbers.x, a.shape
    inputs = x.shape[1]
    weight = numbers.mass[:, None]
    found = np.zeros((count, kinds, inputs + 1, inputs + 1))
    squares = (x[:, :, None] * x[:, None, :]).reshape(n, -1)
    top, side = (np.swapaxes(weight * c, 1, 2) for c in (a, b))
    found[..., :inputs, :inputs] = (top @ squares).reshape(count, kinds, inputs, inputs)
    found[..., :inputs, inputs] = found[..., inputs, :inputs] = side @ x
    return found


def _pairs(size: int) -> tuple[IntArray, IntArray]:
    """All k <= l, and the numbers of all pairs among them."""
    pairs = np.stack(np.triu_indices(size), axis=1)
    place = np.zeros((size, size), dtype=np.int64)
    for number, (k, l) in enumerate(pairs):  # noqa: E741 - as in the formulas
        place[k, l] = place[l, k] = number
    return pairs, place


def _norm(x: FloatArray) -> FloatArray:
    found: FloatArray = np.sqrt((x * x).sum(axis=(-2, -1)))
    return found
