"""The third order of a one-hidden-layer network's Hessian, and the product that bounds it, for checking certificates.

With the tensors of `reference_one_layer_forms` the terms of the third order are, summed over units x and y, data and outputs,

    S3^x U0^y + S2^x U1^y + S1^x U2^y + 2 Z1^x Z2^y,    r0 U3^x,    κ delta_c U2^x,

so that at most two units occur among the five indices. T is their mean over all orders of delta's three indices and of v's two:
for x != y, with delta's indices to the left and v's to the right of the bar, and E, even, the mean over v's two,

    (xxx|yy)  S3^x E U0^y,    (xxy|yy)  S2^x E U1^y / 3,    (xyy|yy)  S1^x E U2^y / 3,    (xxy|xy)  Z2^x Z1^y / 3,
    (cxx|xx)  κ E U2^x / 3,

and none else but those of one unit alone. M M' is summed over the columns (l, m, b), with no more than two units in them, either.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from time import monotonic

import numpy as np
import numpy.typing as npt

from .reference_changes import DOUBLE, Changes, Numbers
from .reference_cubic_matrix import LOST, CubicTerm, bounded_by
from .reference_hessian import Problem
from .reference_one_layer import OneLayer, Rows, summed

FloatArray = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
#: Seconds per datum and unit, per number of the local tensors, and per product of doubles and of long doubles, for estimates.
_UNIT_SECONDS, _STEP_SECONDS, _PRODUCT_SECONDS, _LONG_SECONDS = 7e-4, 3e-9, 4e-11, 1.2e-9
#: Rows of M, their places among all P², and the numbers (rows, columns).
Part = tuple[list[Places], list[FloatArray]]


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
    ``mixed`` (y, m, b, x, k, l, a) of Z1^y Z2^x; ``alone`` (x, k, l, m, a, b) of r0 U3. U is even.
    """

    def __init__(self, problem: Problem) -> None:
        units, width, size = (int(x) for x in _measures(problem))
        self.units, self.size, h, d = units, size, (units,), (width,)
        self.three = np.zeros(h + 3 * d + h + 2 * d)
        self.two, self.mixed = (np.zeros(h + 2 * d + h + 3 * d) for _ in range(2))
        self.one = np.zeros((self.size, *h, *4 * d))
        self.alone = np.zeros(h + 5 * d)
        self.places, self.biases = np.zeros((0, 0), dtype=np.int64), np.zeros(0, dtype=np.int64)

    def add(self, layer: OneLayer, rows: Rows) -> None:
        """Some data."""
        self.places, self.biases = layer.places, layer.biases
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
        at = self.places[x]
        total = self.three[x, :, :, :, x] + self.two[x, :, :, x] + self.one[at, x] + self.alone[x]
        # (m, b, k, l, a), twice, and once each way.
        both = self.mixed[x, :, :, x].transpose(2, 3, 0, 4, 1)
        total = total + both + both.swapaxes(3, 4)
        found = sum((total.transpose(*order, 3, 4) for order in permutations(range(3))), np.zeros_like(total)) / 6.0
        return np.asarray(found)

    def parts(self) -> Iterator[Part]:
        """All columns of M, some at a time; those with l and m exchanged are there once, as long as both together."""
        for x in range(self.units):
            yield self._of_one(x)
            if len(self.biases):
                here = self.one[self.biases, x] / 3.0  # (l, k, m, a, b)
                yield [self._rows(x, x)], [_flat(np.sqrt(2.0) * here.transpose(1, 3, 0, 2, 4))]
        for x in range(self.units):
            for y in range(self.units):
                if x != y:
                    yield self._twice_first(x, y)
                    yield self._first_and_second(x, y)

    def _rows(self, x: int, y: int) -> Places:
        """The rows (k, a) of two units."""
        found: Places = (self.places[x][:, None] * self.size + self.places[y]).ravel()
        return found

    def _of_one(self, x: int) -> Part:
        """The columns (l, m, b) of the unit x."""
        places, blocks = [self._rows(x, x)], [_folded(self.own(x).transpose(0, 3, 1, 2, 4))]
        for y in range(self.units):
            if y == x:
                continue
            # (k, a, l, m, b) of (kxx|ax); (k, l, m, a, b) of (kxx|xx).
            places += [self._rows(y, y), self._rows(y, x)]
            blocks.append(_folded(self.mixed[y, :, :, x] / 3.0))
            blocks.append(_folded(self.one[self.places[y], x].transpose(0, 3, 1, 2, 4) / 3.0))
        for bias in self.biases:
            places.append(bias * self.size + self.places[x])
            blocks.append(_folded(self.one[[bias], x].transpose(0, 3, 1, 2, 4) / 3.0))
        return places, blocks

    def _twice_first(self, x: int, y: int) -> Part:
        """The columns with l and m of the unit x and b of y."""
        places = [self._rows(x, y), self._rows(y, y), self._rows(y, x)]
        three = self.three[x, :, :, :, y].transpose(0, 3, 1, 2, 4)  # (k, l, m, a, b)
        two = self.two[x, :, :, y].transpose(2, 3, 0, 1, 4) / 3.0  # (l, m, k, a, b)
        mixed = self.mixed[y, :, :, x].transpose(0, 4, 2, 3, 1) / 3.0  # (k, b, l, m, a)
        return places, [_folded(three), _folded(two), _folded(mixed)]

    def _first_and_second(self, x: int, y: int) -> Part:
        """The columns with l of the unit x, m of y and b of x."""
        places = [self._rows(x, y), self._rows(y, y), self._rows(x, x), self._rows(y, x)]
        found = (
            self.mixed[y, :, :, x].transpose(2, 1, 3, 0, 4),  # (m, a, k, l, b)
            self.mixed[x, :, :, y].transpose(2, 4, 0, 3, 1),  # (l, b, k, m, a)
            self.one[self.places[y], x].transpose(1, 3, 2, 0, 4),  # (m, k, l, a, b)
            self.two[y, :, :, x].transpose(0, 3, 2, 1, 4),  # (k, m, l, a, b)
        )
        return places, [_flat(np.sqrt(2.0) / 3.0 * part) for part in found]


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


def one_layer_term(third: ThirdOrder, changes: Changes, tau: float, deadline: float) -> CubicTerm | None:
    """`cubic_term` of these, for changes without an axis; None if the deadline passes.

    M M' is written where the whole matrix is to be.
    """
    size = third.size
    room = np.zeros((size + size * size,) * 2)
    total, columns, count = room[size:, size:], 0, 0
    for places, blocks in third.parts():
        if monotonic() > deadline:
            return None
        rows, there = np.concatenate(blocks), np.concatenate(places)
        total[np.ix_(there, there)] += rows @ rows.T
        columns, count = max(columns, rows.shape[1]), count + 1
    # Every entry is at most the product of its rows' lengths, and so are the sums of absolute values.
    rounding = float(DOUBLE) * (columns + count + 64)
    lengths = np.sqrt(np.diag(total).astype(np.longdouble) * (1.0 + 2.0 * rounding) + LOST)
    return bounded_by(total, lengths, rounding, changes, tau, room)
