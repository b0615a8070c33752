"""The matrix that proves the bound by the Hessian's Taylor polynomial, in doubles with bounds of its errors.

`reference_cubic_proof` says what it is. It is written a few rows at a time, as it has (P + P²)² numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .reference_changes import DOUBLE, Changes, Numbers, grown
from .reference_cubic_hessian import Form
from .reference_interval import UNIT, Range, Wide, up, wide, zeros
from .reference_triples import triples
from .slab_multipliers import Slab

FloatArray = npt.NDArray[np.float64]

#: What a product of doubles may lose that is too small for them, times the most there are in a sum.
LOST = 1e-315


class Tops(Protocol):
    """What counts of a `Form` for v alone."""

    head: Wide
    rest: Wide


class Matrices(Tops, Protocol):
    """What counts here of a `Form`."""

    @property
    def half(self) -> Wide:
        """F_kab."""
        ...

    def tail_rows(self, k: int) -> Wide:
        """The rows (k, a) of the symmetric part of F_kalb, a matrix of P² columns (l, b)."""
        ...


@dataclass(frozen=True, eq=False)
class CubicTerm:
    """What the terms of the third order are bounded by: -tau/2 |M^'u|² - floor |v|²."""

    #: M^ M^' (P², P²), and its entries' errors in the products of these lengths (P²,).
    squared: Numbers
    lengths: Wide
    rounding: float
    tau: Wide
    floor: Wide
    #: Where the whole matrix may be written, over M^ M^' in its place.
    room: FloatArray | None = None

    @property
    def blur(self) -> Wide:
        """Bounds of the errors of all entries."""
        return self.blur_of(slice(None))

    def blur_of(self, rows: slice) -> Wide:
        """Those of some rows."""
        return grown(self.rounding * self.lengths[rows, None] * self.lengths) + LOST


def bounded_by(
    squared: Numbers,
    lengths: Wide,
    rounding: float,
    changes: Changes,
    tau: float,
    room: FloatArray | None = None,
    omega: Range | None = None,
) -> CubicTerm:
    """With that M^ M^', and omega² where the changes have an axis."""
    chi = changes.stretched(Range(wide(1.0)) if omega is None else omega)
    return CubicTerm(squared, lengths, rounding, wide(tau), grown(chi * chi / (2.0 * wide(tau))), room)


def cubic_term(form: Form, changes: Changes, narrow: float, tau: float, deadline: float) -> CubicTerm | None:
    """With omega = ``narrow`` where the changes have an axis; None if the deadline passes.

    With t_kl = sum_m T_klm d_m, as (P², P²) of rows (k, a), and t_k = sum_l t_kl d_l, as (P², P), M^ M^' is
    M M' - 2 less t t' + less² t_k t_k', 0 <= less |d|² <= 1.
    """
    third, size, axis = form.third, len(form.head), changes.axis
    less = wide(0.0) if axis is None else (1.0 - wide(narrow) ** 2) / changes.square.hi
    at, total = triples(size), np.zeros((size * size,) * 2)
    once = np.zeros((size, size, size, size))  # (k, a, l, b)
    for l in range(size):  # noqa: E741 - as in the formulas
        if monotonic() > deadline:
            return None
        # The columns with l and m exchanged are the same.
        m = np.arange(l, size)
        part = third[at.place[:, l, m]] * np.where(m > l, np.sqrt(2.0), 1.0)[:, None, None]  # (k, m, a, b)
        rows = np.ascontiguousarray(part.transpose(0, 2, 1, 3)).reshape(size * size, -1)
        total += rows @ rows.T
        if axis is not None:
            once[:, :, l] = np.einsum("m,kmab->kab", axis, third[at.place[:, l]])
    # Every entry is at most the product of its rows' lengths, and so are the sums of absolute values. Those of t and t_k are no
    # longer but for |d|, and count at most twice and once.
    rounding = float(DOUBLE) * (size * size + size + 64)
    lengths = np.sqrt(np.diag(total).astype(np.longdouble) * (1.0 + 2.0 * rounding) + LOST)
    found, omega = total.astype(np.longdouble), Range(wide(1.0))
    if axis is not None:
        twice = np.einsum("l,kalb->kab", axis, once).reshape(size * size, size)
        flat = once.reshape(size * size, -1)
        found = found - 2.0 * less * wide(flat @ flat.T) + less * less * wide(twice @ twice.T)
        rounding *= 4.0
        omega = omega - Range(less) * changes.square
    return bounded_by(found, lengths, rounding, changes, tau, omega=omega)


def from_lower(matrix: FloatArray) -> FloatArray:
    """The symmetric matrix with that lower triangle."""
    lower = np.tril(matrix)
    return lower + np.tril(lower, -1).T


def rounded(exact: Wide, sizes: Wide, roundings: int, blur: Wide | None = None) -> tuple[FloatArray, Wide]:
    """Doubles and what they are off by, for sums of terms that are together of the given sizes, off by ``blur`` before."""
    entries = exact.astype(np.float64)
    off = np.abs(exact - entries) + roundings * UNIT * sizes
    return entries, off if blur is None else off + blur


class _Rounded:
    """A matrix in doubles, and for its rows the sums of what its entries may be off by."""

    def __init__(self, count: int, roundings: int, room: FloatArray | None = None) -> None:
        self.matrix, self.error = np.zeros((count, count)) if room is None else room, zeros(count)
        self._roundings = roundings

    def put(self, rows: slice, columns: slice, exact: Wide, sizes: Wide, blur: Wide | None = None) -> None:
        """A block."""
        self.matrix[rows, columns], off = rounded(exact, sizes, self._roundings, blur)
        self.error[rows] += grown(off.sum(axis=1), exact.shape[1])


def both(x: Wide, y: Wide, factor: Wide) -> tuple[Wide, Wide]:
    """The sum of x and a multiple of y, and its terms' sizes."""
    return x + factor * y, np.abs(x) + abs(factor) * np.abs(y)


def roundings(size: int) -> int:
    """What all entries are rounded by at most, as |d|², which is known to 2 P + 16 roundings, divides twice."""
    return 8 * size + 64


def top_entries(
    whole: Tops, squares: Tops, floor: Wide, changes: Changes, radius: float, claim: float, slab: Slab
) -> tuple[Wide, Wide]:
    """The entries for v less ``floor``, and their terms' sizes."""
    multipliers, area = slab.taylor, wide(radius) * wide(radius)
    share, weights = wide(multipliers.share), wide(multipliers.weights)
    rest = Range(grown(whole.rest + squares.rest / share))
    q = up(((rest * Range(weights[None, :])).sum(1) / Range(weights)).hi + floor)
    (head, sizes), lam = both(whole.head, squares.head, 1.0 - share), wide(from_lower(multipliers.lam))
    less = np.diag(q + wide(claim)) + grown(changes.across**2 / area) * lam
    sizes = 0.5 * (sizes + sizes.T) + np.diag(q + abs(wide(claim))) + grown(changes.across**2 / area) * np.abs(lam)
    if changes.axis is not None:
        outer, along = grown(changes.along**2 / area), wide(from_lower(slab.along))
        less, sizes = less + outer * along, sizes + outer * np.abs(along)
    return 0.5 * (head + head.T) - less, sizes


def whole_matrix(
    whole: Matrices, squares: Matrices, term: CubicTerm | None, changes: Changes, radius: float, claim: float, slab: Slab
) -> tuple[FloatArray, Wide]:
    """The matrix (P + P², P + P²), and bounds of the sums of its rows' errors; without a cubic term in the second order."""
    multipliers, size, ball = slab.taylor, len(whole.head), wide(radius)
    share, area = wide(multipliers.share), ball * ball
    turned = 0.5 * (wide(multipliers.turned) - wide(np.swapaxes(multipliers.turned, 1, 2)))
    # In the second order the squares' tail pays for the terms of the third, too.
    kept, kept_tail = 1.0 - share, 1.0 - share if term else 1.0 - 2.0 * share
    lam, along = wide(from_lower(multipliers.lam)), wide(from_lower(slab.along))
    found = _Rounded(size + size * size, roundings(size), term.room if term else None)
    first, rows, axis, onto = slice(0, size), slice(size, None), changes.axis, zeros((size, size))
    if axis is not None:
        onto = wide(axis)[:, None] * wide(axis) / changes.square.hi
    found.put(first, first, *top_entries(whole, squares, term.floor if term else wide(0.0), changes, radius, claim, slab))
    half, sizes = both(whole.half, squares.half, kept)
    into, sizes = (ball * x.reshape(size * size, size) for x in (half + turned, sizes + np.abs(turned)))
    found.put(rows, first, into, sizes)
    found.put(first, rows, into.T, sizes.T)
    for k in range(size):
        one, other = (form.tail_rows(k) for form in (whole, squares))
        tail, sizes = both(one, other, kept_tail)
        straight = np.zeros(size)
        straight[k] = 1.0
        tail = area * tail + _spread(straight - onto[k], lam)
        sizes = area * sizes + _spread(straight + np.abs(onto[k]), np.abs(lam))
        if axis is not None:
            share_of_axis = onto[k] / changes.square.hi
            tail, sizes = tail + _spread(share_of_axis, along), sizes + _spread(np.abs(share_of_axis), np.abs(along))
        here, blur = slice(size + k * size, size + (k + 1) * size), None
        if term:
            own, bent = slice(k * size, (k + 1) * size), 0.5 * term.tau * area
            squared = wide(term.squared[own])
            tail, sizes = tail - bent * squared, sizes + bent * np.abs(squared)
            blur = bent * term.blur_of(own)
        found.put(here, rows, tail, sizes, blur)
    return found.matrix, grown(found.error)


def _spread(row: Wide, matrix: Wide) -> Wide:
    """The rows of the Kronecker product that are made of a row of the left matrix."""
    found: Wide = (matrix[:, None, :] * row[:, None]).reshape(len(matrix), -1)
    return found
