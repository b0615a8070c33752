"""The Hessian of a network with one hidden layer as a cubic polynomial, without what is zero in it, for checking certificates.

The forms are those of `reference_cubic_hessian`, in the same order of factors. With the unit's `Rows`: S1, S2 and S3 its part of
the residual's orders, U0 to U3 its (V + b) phi'' σ² + 2 phi' nu σ, Z0 to Z2 its part of df . v, and r0, r1 and d0 of all units,

    head = r0 U0 - lowered X X',   half = (r1 U0 + r0 U1) / 2,   tail = sum S2 U0 + r1 U1 + r0 U2 + 2 d0 Z2,
    squares: d0 d0', Z1 d0' and sum Z1 Z1',

with the masses and summed over the data and outputs. A unit's factor bar phi'' of σ² is off by no more than the sum over the
outputs; what ``lowered`` has beyond that is lost. The third order is left to `reference_one_layer_third`, and where a certificate
is by units, all but roundings of the rests to `reference_one_layer_rests`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic

import numpy as np
import numpy.typing as npt

from .reference_block_form import BlockForm
from .reference_changes import DOUBLE, LEAST, Changes, grown
from .reference_hessian import Problem
from .reference_interval import UNIT, Wide, wide, zeros
from .reference_one_layer import OneLayer, Rows, Sizes, summed
from .reference_one_layer_rests import UnitRests, beyond
from .reference_unit_groups import Groups

FloatArray = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

#: Numbers of the local tensors of some data at once.
_NUMBERS = 2**23


def data_at_once(problem: Problem) -> int:
    """Data that the tensors are made for together."""
    _, units, outputs = problem.widths
    width = problem.num_params // units
    return max(1, _NUMBERS // (outputs * (units * width**3 + width**4)))


def one_layer_forms(
    problem: Problem,
    centre: Wide,
    changes: Changes,
    lowered: Wide,
    kept: Wide,
    deadline: float,
    also: Callable[[OneLayer, Rows], None],
    shared: UnitRests | None = None,
) -> tuple[BlockForm, BlockForm] | None:
    """(R, G) as `cubic_hessian` has them, but for the third order; None if the deadline passes.

    ``also`` is shown all data, some at a time. With ``shared`` what the polynomials leave out is taken off the head.
    """
    size = problem.num_params
    groups = Groups.of(problem)
    whole, squares, sums = BlockForm(groups), BlockForm(groups), _Tail(groups)
    coarse, blur, unsure, step = zeros((size, size)), zeros((size, size)), wide(0.0), data_at_once(problem)
    for begin in range(0, len(problem.x), step):
        if monotonic() > deadline:
            return None
        some = slice(begin, begin + step)
        layer = OneLayer.of(problem, centre, changes, some, kept[some])
        _add_matrices(layer, layer.rows(np.longdouble), lowered[some], whole, squares)
        _add_roundings(layer, lowered[some], coarse, blur)
        if shared is None:
            _add_rests(layer, lowered[some], whole.rest, squares.rest)
        else:
            shared.add(layer, lowered[some])
        unsure = np.maximum(unsure, layer.unsure)
        rows = layer.rows(np.float64)
        sums.add(rows)
        also(layer, rows)
    sums.put(whole, squares)
    if shared is not None:
        shared.put(layer, whole.head, coarse)
    # Sums over data and outputs, of what is made of some 64 numbers and factors.
    count, reach = len(problem.x) * problem.widths[2], changes.reach
    rest = grown(whole.rest, count) + (UNIT * (2 * count + 512) + unsure) * grown(coarse, count)
    rest = rest + DOUBLE * (2 * count + 512) * (grown(blur, count) + LEAST * reach * reach * (1.0 + reach))
    whole.rest, squares.rest = grown(0.5 * (rest + rest.T)), grown((1.0 + unsure) * squares.rest, count)
    return whole, squares


def _add_matrices(layer: OneLayer, rows: Rows, lowered: Wide, whole: BlockForm, squares: BlockForm) -> None:
    """The head and the half."""
    r0, r1, d0 = rows.residual, rows.residual_slope(), rows.root()
    kept = rows.kept[:, None] * d0
    squares.head += summed(kept, d0)
    for unit, places in enumerate(layer.places):
        block, inputs = np.ix_(places, places), places[: layer.x.shape[1]]
        for of_delta, of_v in rows.bend(unit, 0):
            numbers = (rows.mass * of_delta)[:, None, None] * of_v
            whole.head[block] += np.tensordot(r0, numbers, (0, 0))
            whole.bent[unit] += 0.5 * summed(r1, numbers)
        for of_delta, of_v in rows.bend(unit, 1):
            whole.bent[unit, places] += 0.5 * summed((rows.mass * r0)[:, None] * of_delta, of_v)
        whole.head[np.ix_(inputs, inputs)] -= summed(lowered[:, unit, None] * layer.x, layer.x)
        squares.root[unit] += summed(rows.slope(unit, 1), kept)


def _add_rests(layer: OneLayer, lowered: Wide, whole: Wide, squares: Wide) -> None:
    """What the polynomials leave out, entry by entry."""
    r, mass, x = layer.sizes, layer.mass[:, None], np.abs(layer.x)
    bend, slope = _factors(layer)
    for unit, (inputs, ends) in enumerate(_inputs_and_ends(layer)):
        off = grown((mass * r.left_out(bend[..., unit])).sum(axis=1), len(ends))
        # Only what the numbers taken off do not cover.
        whole[np.ix_(inputs, inputs)] += summed(beyond(off, lowered[:, unit])[:, None] * x, x)
        _add_both(whole, inputs, ends, summed(x, mass * r.left_out(slope[:, unit, None])))
    for *_, off in _root_sizes(layer):
        squares += summed(layer.kept[:, None] * off, off)


def _add_roundings(layer: OneLayer, lowered: Wide, coarse: Wide, blur: Wide) -> None:
    """What the polynomials are rounded relative to."""
    r, mass, x = layer.sizes, layer.mass[:, None], np.abs(layer.x)
    bend, slope = _factors(layer)
    for unit, (inputs, ends) in enumerate(_inputs_and_ends(layer)):
        curved, mixed, square = bend[..., unit], slope[:, unit, None], np.ix_(inputs, inputs)
        coarse[square] += summed((np.abs(lowered[:, unit]) + (mass * r.all * curved.all).sum(axis=1))[:, None] * x, x)
        blur[square] += summed((mass * r.highest(curved)).sum(axis=1)[:, None] * x, x)
        _add_both(coarse, inputs, ends, summed(x, mass * r.all * mixed.all))
        _add_both(blur, inputs, ends, summed(x, mass * r.highest(mixed)))
    for one, two, three, off in _root_sizes(layer):
        kept = layer.kept[:, None]
        known = one + two + three
        coarse += summed(kept * (known + off), known + off)
        blur += summed(kept * two, two)
        for p, q in ((one, three), (two, three)):
            both = summed(kept * p, q)
            blur += both + both.T


def _factors(layer: OneLayer) -> tuple[Sizes, Sizes]:
    """Of the residuals, in σ² (n, K, H) and in 2 nu σ (n, H)."""
    return layer.bend.moving(layer.weights, layer.radius, layer.length), layer.slope.fixed(layer.rho)


def _inputs_and_ends(layer: OneLayer) -> list[tuple[Places, Places]]:
    """Every unit's parameters that come in with X, and those in the outputs."""
    width = layer.x.shape[1]
    return [(places[:width], places[width:]) for places in layer.places]


def _add_both(into: Wide, inputs: Places, ends: Places, part: Wide) -> None:
    into[np.ix_(inputs, ends)] += part
    into[np.ix_(ends, inputs)] += part.T


def _root_sizes(layer: OneLayer) -> Iterator[list[Wide]]:
    """For every output the sizes (n, P) of df's orders 0, 1 and 2, and of what is beyond."""
    slope, value = layer.slope.moving(layer.weights, layer.radius, layer.length), layer.value.fixed(layer.rho)
    x = np.abs(layer.x)[:, None]
    for output in range(len(layer.weights)):
        found = []
        pairs = [*zip(slope.of[:3], value.of[:3], strict=True), (slope.of[3] + slope.off, value.of[3] + value.off)]
        for order, (of_hidden, of_end) in enumerate(pairs):
            size = zeros((len(x), layer.num_params))
            size[:, layer.places[:, : x.shape[2]]] = of_hidden[:, output, :, None] * x
            size[:, layer.places[:, x.shape[2] + output]] = of_end
            if len(layer.biases) and order == 0:
                size[:, layer.biases[output]] = layer.kappa
            found.append(grown(size))
        yield found


class _Tail:
    """The tail's sums, in doubles."""

    def __init__(self, groups: Groups) -> None:
        (units, width), size = groups.units.shape, groups.size
        shape = (width,) * 2
        #: S2 U0 and Z1 Z1' of two units, r1 U1 and d0 Z2 of all parameters and a unit, r0 U2.
        self._pairs, self._squares = (np.zeros((units, *shape, units, *shape)) for _ in range(2))
        self._slopes, self._roots = (np.zeros((size, units, width, *shape)) for _ in range(2))
        self._own = np.zeros((units, *shape, *shape))

    def add(self, rows: Rows) -> None:
        """Some data."""
        units, mass, kept = range(rows.units), rows.mass, rows.kept
        bends = np.stack([rows.full_bend(unit, 0) for unit in units], axis=1)
        slopes = np.stack([rows.slope(unit, 1) for unit in units], axis=1)
        parts = np.stack([rows.residual_part(unit, 2) for unit in units], axis=1)
        self._pairs += summed(mass[:, None, None, None] * parts, bends)
        self._squares += summed(kept[:, None, None, None] * slopes, slopes)
        r1, d0 = mass[:, None] * rows.residual_slope(), (2.0 * kept)[:, None] * rows.root()
        for unit in units:
            self._slopes[:, unit] += summed(r1, rows.full_bend(unit, 1))
            self._roots[:, unit] += summed(d0, rows.slope(unit, 2))
            for of_delta, of_v in rows.bend(unit, 2):
                self._own[unit] += summed((mass * rows.residual)[:, None, None] * of_delta, of_v)

    def put(self, whole: BlockForm, squares: BlockForm) -> None:
        """The blocks, k, a, l and b in this order."""
        units = range(len(self._own))
        for x in units:
            for y in units:
                # (k, l) of one and (a, b) of the other unit; (k, a) and (l, b).
                whole.add_tail((x, y), (x, y), self._pairs[x, :, :, y].transpose(0, 2, 1, 3))
                squares.add_tail((x, x), (y, y), self._squares[x, :, :, y])
            for group, places in enumerate(whole.groups.all):
                whole.add_tail((group, x), (x, x), self._slopes[places, x].transpose(0, 2, 1, 3))
                whole.add_tail((x, group), (x, x), self._roots[places, x].transpose(1, 0, 2, 3))
            whole.add_tail((x, x), (x, x), self._own[x].transpose(0, 2, 1, 3))
