"""The third order of a one-hidden-layer network's Hessian, and the product that bounds it, for checking certificates.

With the tensors of `reference_one_layer_forms` the terms of the third order are, summed over units x and y, data and outputs,

    S3^x U0^y + S2^x U1^y + S1^x U2^y + 2 Z1^x Z2^y,    r0 U3^x,    κ delta_c U2^x,

so that at most two units occur among the five indices. T is their mean over orders of delta's three indices and of v's two: for
x != y, with delta's indices to the left and v's to the right of the bar, and E, even, the mean over v's two,

    (xxx|yy)  S3^x E U0^y,    (xxy|yy)  S2^x E U1^y / 3,    (xyy|yy)  S1^x E U2^y / n,    (xxy|xy)  Z2^x Z1^y / 3,
    (cxx|xx)  κ E U2^x / n,

and none else but those of one unit alone. Any orders will do, as only the sum with delta x delta x delta x v x v counts. With all
three n is 3. With n = 2 the index k of M's rows is in y in the third of these, and in x in the last. Then the columns (l, m, b)
of one unit have rows (k, a) of that unit or of another, none of two, those of two units have rows of these two, and those of a
unit and a bias have rows of the unit. M M' is summed over the columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations
from time import monotonic

import numpy as np
import numpy.typing as npt

from .reference_changes import DOUBLE, Changes, Numbers
from .reference_cubic_matrix import LOST, CubicTerm, bounded_by
from .reference_hessian import Problem
from .reference_one_layer import OneLayer, Rows, summed
from .reference_unit_groups import Groups, Node

FloatArray = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
#: Seconds per datum and unit, per number of the local tensors, and per product of doubles and of long doubles, for estimates.
_UNIT_SECONDS, _STEP_SECONDS, _PRODUCT_SECONDS, _LONG_SECONDS = 7e-4, 3e-9, 4e-11, 1.2e-9
#: Nodes of rows of M, and the numbers (rows, columns) of each.
Part = tuple[list[Node], list[FloatArray]]


def tensor_numbers(problem: Problem) -> float:
    """Numbers of a `ThirdOrder`."""
    units, width, size = _measures(problem)
    return 3.0 * units**2 * width**5 + size * units * width**4


def one_layer_seconds(problem: Problem) -> float:
    """Time, roughly, that the forms and the product take."""
    (units, width, size), rows = _measures(problem), float(len(problem.x) * problem.widths[2])
    steps = _UNIT_SECONDS + _STEP_SECONDS * (6.0 * width**4 + 30.0 * width**3) + 3.0 * _LONG_SECONDS * size * width**2
    sums = 5.0 * units**2 * width**5 + 2.0 * size * units * width**4
    pairs = 20.5 * units * (units - 1.0) * width**7 + units**3 * width**7
    return rows * (units * steps + _PRODUCT_SECONDS * sums) + _PRODUCT_SECONDS * pairs


def _measures(problem: Problem) -> tuple[float, float, float]:
    inputs, units, outputs = problem.widths
    return float(units), float(inputs + int(problem.bias) + outputs), float(problem.num_params)


class ThirdOrder:
    """The terms' sums, in doubles.

    ``three`` (x, k, l, m, y, a, b), ``two`` (x, k, l, y, m, a, b), ``one`` (k of all, y, l, m, a, b) of S3 U0, S2 U1 and S1 U2;
    ``mixed`` (y, m, b, x, k, l, a) of Z1^y Z2^x; ``alone`` (x, k, l, m, a, b) of r0 U3. U is even. Where the terms are
    ``averaged``, n is 3, else 2.
    """

    def __init__(self, problem: Problem, averaged: bool = True) -> None:
        self.groups, self._averaged = Groups.of(problem), averaged
        (units, width), self.size = self.groups.units.shape, self.groups.size
        self.units, h, d = units, (units,), (width,)
        self.three = np.zeros(h + 3 * d + h + 2 * d)
        self.two, self.mixed = (np.zeros(h + 2 * d + h + 3 * d) for _ in range(2))
        self.one = np.zeros((self.size, *h, *4 * d))
        self.alone = np.zeros(h + 5 * d)

    def add(self, layer: OneLayer, rows: Rows) -> None:
        """Some data."""
        units, mass = range(self.units), rows.mass
        bends = np.stack([_even(rows.full_bend(unit, 0)) for unit in units], axis=1)
        slopes = np.stack([rows.slope(unit, 1) for unit in units], axis=1) * rows.kept[:, None, None, None]
        parts = [np.stack([rows.residual_part(unit, order) for unit in units], axis=1) for order in (2, 3)]
        for part in parts:
            part *= mass.reshape(-1, *(1,) * (part.ndim - 1))
        self.three += summed(parts[1], bends)
        r1 = mass[:, None] * rows.residual_slope()
        for unit in units:
            self.two[:, :, :, unit] += summed(parts[0], _even(rows.full_bend(unit, 1)))
            self.one[:, unit] += summed(r1, _even(rows.full_bend(unit, 2)))
            self.mixed[:, :, :, unit] += summed(slopes, rows.slope(unit, 2))
            for of_delta, of_v in rows.bend(unit, 3):
                self.alone[unit] += summed((mass * rows.residual)[:, None, None, None] * of_delta, _even(of_v))

    def own(self, x: int) -> FloatArray:
        """T_klm,ab of one unit."""
        at = self.groups.units[x]
        total = self.three[x, :, :, :, x] + self.two[x, :, :, x] + self.one[at, x] + self.alone[x]
        # (m, b, k, l, a), twice, and once each way.
        both = self.mixed[x, :, :, x].transpose(2, 3, 0, 4, 1)
        total = total + both + both.swapaxes(3, 4)
        found = sum((total.transpose(*order, 3, 4) for order in permutations(range(3))), np.zeros_like(total)) / 6.0
        return np.asarray(found)

    def parts(self) -> Iterator[Part]:
        """All columns of M, some at a time; those with l and m exchanged are there once, as long as both together."""
        for x in range(self.units):
            yield from self.of_one(x)
        for x, y in combinations(range(self.units), 2):
            yield from self.of_two(x, y)

    def of_one(self, x: int) -> Iterator[Part]:
        """The columns (l, m, b) of the unit x alone, and with a bias."""
        nodes, blocks = [(x, x)], [_folded(self.own(x).transpose(0, 3, 1, 2, 4))]
        for y in range(self.units):
            if y != x:
                # (k, a, l, m, b) of (kxx|ax).
                nodes.append((y, y))
                blocks.append(_folded(self.mixed[y, :, :, x] / 3.0))
        if self._averaged:
            # (k, l, m, a, b) of (kxx|xx).
            for y, places in enumerate(self.groups.all):
                if y != x:
                    nodes.append((y, x))
                    blocks.append(_folded(self.one[places, x].transpose(0, 3, 1, 2, 4) / 3.0))
        yield nodes, blocks
        if len(self.groups.biases):
            here = self.one[self.groups.biases, x] * self._once  # (l, k, m, a, b)
            yield [(x, x)], [_flat(here.transpose(1, 3, 0, 2, 4))]

    def of_two(self, x: int, y: int) -> Iterator[Part]:
        """The columns of both units."""
        for one, other in ((x, y), (y, x)):
            yield self._twice_first(one, other)
            yield self._first_and_second(one, other)

    @property
    def _once(self) -> float:
        """The part with l in a unit, or of a bias, and all else in another, times the length of it and that of m."""
        return float(np.sqrt(2.0)) / (3.0 if self._averaged else 2.0)

    def _twice_first(self, x: int, y: int) -> Part:
        """The columns with l and m of the unit x and b of y."""
        three = self.three[x, :, :, :, y].transpose(0, 3, 1, 2, 4)  # (k, l, m, a, b)
        two = self.two[x, :, :, y].transpose(2, 3, 0, 1, 4) / 3.0  # (l, m, k, a, b)
        mixed = self.mixed[y, :, :, x].transpose(0, 4, 2, 3, 1) / 3.0  # (k, b, l, m, a)
        return [(x, y), (y, y), (y, x)], [_folded(three), _folded(two), _folded(mixed)]

    def _first_and_second(self, x: int, y: int) -> Part:
        """The columns with l of the unit x, m of y and b of x."""
        third = np.sqrt(2.0) / 3.0
        found = (
            third * self.mixed[y, :, :, x].transpose(2, 1, 3, 0, 4),  # (m, a, k, l, b)
            third * self.mixed[x, :, :, y].transpose(2, 4, 0, 3, 1),  # (l, b, k, m, a)
            self._once * self.one[self.groups.units[y], x].transpose(1, 3, 2, 0, 4),  # (m, k, l, a, b)
            third * self.two[y, :, :, x].transpose(0, 3, 2, 1, 4),  # (k, m, l, a, b)
        )
        return [(x, y), (y, y), (x, x), (y, x)], [_flat(part) for part in found]


def _even(x: Numbers) -> Numbers:
    """The mean over the orders of the last two indices."""
    return 0.5 * (x + x.swapaxes(-1, -2))


def _flat(x: FloatArray) -> FloatArray:
    """The matrix of rows (k, a), columns (l, m, b)."""
    return np.ascontiguousarray(x).reshape(x.shape[0] * x.shape[1], -1)


def _folded(x: FloatArray) -> FloatArray:
    """The same for l and m of one unit, in which x (k, a, l, m, b) is symmetric, with l <= m alone, of the same length."""
    low, high = np.triu_indices(x.shape[2])
    return _flat(x[:, :, low, high] * np.where(low < high, np.sqrt(2.0), 1.0)[:, None])


class Gram:
    """M M', or some rows and columns of it, summed in doubles."""

    def __init__(self, matrix: FloatArray) -> None:
        self.matrix, self._columns, self._count = matrix, 0, 0

    def add(self, there: Places, rows: FloatArray) -> None:
        """Some columns of M, of which only these rows are not zero."""
        self.matrix[np.ix_(there, there)] += rows @ rows.T
        self._columns, self._count = max(self._columns, rows.shape[1]), self._count + 1

    def add_part(self, there: Places, other: Gram, rows: Places) -> None:
        """Some rows and columns of another one."""
        self.matrix[np.ix_(there, there)] += other.matrix[np.ix_(rows, rows)]
        self._columns, self._count = max(self._columns, other._columns), self._count + other._count + 1

    def term(self, changes: Changes, tau: float, room: FloatArray | None = None) -> CubicTerm:
        """What they bound."""
        # Every entry is at most the product of its rows' lengths, and so are the sums of absolute values.
        rounding = float(DOUBLE) * (self._columns + self._count + 64)
        lengths = np.sqrt(np.diag(self.matrix).astype(np.longdouble) * (1.0 + 2.0 * rounding) + LOST)
        return bounded_by(self.matrix, lengths, rounding, changes, tau, room)


def one_layer_term(third: ThirdOrder, changes: Changes, tau: float, deadline: float) -> CubicTerm | None:
    """`cubic_term` of these, for changes without an axis; None if the deadline passes.

    M M' is written where the whole matrix is to be.
    """
    size = third.size
    room = np.zeros((size + size * size,) * 2)
    found = Gram(room[size:, size:])
    for nodes, blocks in third.parts():
        if monotonic() > deadline:
            return None
        found.add(np.concatenate([third.groups.rows(node) for node in nodes]), np.concatenate(blocks))
    return found.term(changes, tau, room)
