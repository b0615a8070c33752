"""How the Taylor polynomials of the Hessian are made when a certificate is checked: whatever the network, or unit by unit.

Both make the same polynomials, but bounds of what these leave out that are neither always larger; a certificate may be made with
either. The first holds tensors of P⁵ / 6 numbers, and the second, for one hidden layer with squared error, those of two units.
Certificates by units are made with narrower bounds, which only the second has, and those of older files with the terms of the
third order averaged. The matrix that proves them is made without what is zero in it where the multipliers leave enough zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .reference_block_form import BlockForm
from .reference_changes import Changes
from .reference_cubic_hessian import cubic_hessian, cubic_hessian_seconds
from .reference_cubic_matrix import CubicTerm, Matrices, cubic_term, whole_matrix
from .reference_definite import not_negative
from .reference_hessian import Problem
from .reference_interval import Range, Wide, wide
from .reference_one_layer_arrow import arrow_matrix, in_blocks
from .reference_one_layer_forms import one_layer_forms
from .reference_one_layer_rests import UnitRests
from .reference_one_layer_third import ThirdOrder, one_layer_seconds, one_layer_term, tensor_numbers
from .reference_unit_groups import Groups
from .slab_multipliers import Slab
from .taylor_multipliers import TaylorMultipliers

_NO_POLYNOMIAL = "time ran out before the Taylor polynomial was enclosed"
_NO_TERM = "time ran out before the cubic term was bounded"
#: Parameters whose coefficients fit into memory, by the polynomials' order: P⁵ / 6 and P⁴, with a matrix of P² rows.
MOST_PARAMS = {2: 72, 3: 40}
#: Unit by unit: those whose matrix fits into memory, those where it does without what is zero, and numbers of the units' tensors.
_MOST_BY_UNITS, _MOST_IN_BLOCKS, _MOST_NUMBERS = 100, 320, 3e8
#: Seconds per product of T with itself, per number of the whole matrix, and per product of its factorisation, for estimates.
_PRODUCT_SECONDS, _NUMBER_SECONDS, _FACTOR_SECONDS = 1e-10, 1.5e-7, 5e-11
#: Seconds per pair of units.
_LEAF_SECONDS = 3e-3


@dataclass(frozen=True, eq=False)
class Question:
    """Whether no Hessian at centre + changes has an eigenvalue below the claim, with multipliers for the radius."""

    problem: Problem
    centre: Wide
    changes: Changes
    radius: float
    claim: float
    slab: Slab
    deadline: float

    @property
    def longest(self) -> Wide:
        """The longest change, in radii."""
        return (Range(self.changes.reach) / Range(wide(self.radius))).hi


@dataclass(frozen=True)
class Way:
    """One of them, the time that it takes, roughly, for how many parameters it is, and what it says; a text of what is late."""

    seconds: float
    most: int
    proves: Callable[[Question], bool | str]


def cubic_seconds(problem: Problem, order: int) -> float:
    """Time of a check, roughly, with polynomials of an order, whatever the network."""
    size = float(problem.num_params)
    products = size**7 / 4.0 if order == 3 else 0.0
    return cubic_hessian_seconds(problem, order) + _PRODUCT_SECONDS * products + _matrix_seconds(size)


def _matrix_seconds(size: float) -> float:
    rows = size + size**2
    return _NUMBER_SECONDS * rows**2 + _FACTOR_SECONDS * rows**3 / 3.0


def _arrow_seconds(problem: Problem) -> float:
    groups = Groups.of(problem)
    width, others, units = groups.units.shape[1], len(groups.biases), len(groups.units)
    found = 0.0
    for leaves, end in ((units * (units - 1) / 2.0, width), (units, others)):
        rows, columns = 2.0 * width * end, float(width + end + width**2 + end**2)
        products = rows**3 / 3.0 + rows**2 * columns + rows * columns**2
        found += leaves * (_LEAF_SECONDS + _NUMBER_SECONDS * rows * (rows + columns) + _FACTOR_SECONDS * products)
    core = float(groups.size + units * width**2 + others**2)
    return found + _NUMBER_SECONDS * core**2 + _FACTOR_SECONDS * core**3 / 3.0


def ways(problem: Problem, axis: bool, multipliers: TaylorMultipliers) -> list[Way]:
    """Those for multipliers, in changes with an axis or without, the quickest first; perhaps none by units.

    By units that comes first which files are written for now.
    """
    order, size = multipliers.order, float(problem.num_params)
    may_be = problem.layers == 2 and problem.loss == "squared_error" and order == 3 and not axis
    found, made = list[Way](), one_layer_seconds(problem) if may_be else 0.0
    if may_be and tensor_numbers(problem) <= _MOST_NUMBERS:
        dense = partial(Way, made + _matrix_seconds(size), _MOST_BY_UNITS)
        if multipliers.by_units and in_blocks(Groups.of(problem), multipliers):
            found.append(Way(made + _arrow_seconds(problem), _MOST_IN_BLOCKS, _in_blocks))
        elif multipliers.by_units:
            found.append(dense(partial(_unit_by_unit, averaged=False)))
        found.append(dense(partial(_unit_by_unit, averaged=True)))
    if not multipliers.by_units:
        found.append(Way(cubic_seconds(problem, order), MOST_PARAMS[order], _whatever_the_network))
        found.sort(key=lambda way: way.seconds)
    fitting = [way for way in found if problem.num_params <= way.most]
    return fitting or sorted(found, key=lambda way: way.most)[-1:]


def _whatever_the_network(question: Question) -> bool | str:
    changes, slab, deadline = question.changes, question.slab, question.deadline
    multipliers, term = slab.taylor, None
    lowered, kept = wide(multipliers.lowered), wide(multipliers.kept)
    found = cubic_hessian(question.problem, question.centre, changes, lowered, kept, multipliers.order, deadline)
    if found is None:
        return _NO_POLYNOMIAL
    if multipliers.tau is not None:
        term = cubic_term(found[0], changes, slab.narrow, multipliers.tau, deadline)
        if term is None:
            return _NO_TERM
    return _proved(*found, term, question)


def _unit_by_unit(question: Question, *, averaged: bool) -> bool | str:
    found, tau = _forms(question, averaged), question.slab.taylor.tau
    if found is None:
        return _NO_POLYNOMIAL
    assert tau is not None
    whole, squares, third = found
    term = one_layer_term(third, question.changes, tau, question.deadline)
    return _NO_TERM if term is None else _proved(whole, squares, term, question)


def _in_blocks(question: Question) -> bool | str:
    found = _forms(question, averaged=False)
    if found is None:
        return _NO_POLYNOMIAL
    whole, squares, third = found
    given = question.changes, question.radius, question.claim, question.slab, question.deadline
    matrix = arrow_matrix(whole, squares, third, *given)
    return _NO_TERM if matrix is None else matrix.not_negative(question.problem.num_params, question.longest)


def _forms(question: Question, averaged: bool) -> tuple[BlockForm, BlockForm, ThirdOrder] | None:
    problem, multipliers = question.problem, question.slab.taylor
    lowered, kept, third = wide(multipliers.lowered), wide(multipliers.kept), ThirdOrder(problem, averaged)
    shared = UnitRests(problem, multipliers.share, wide(multipliers.weights)) if multipliers.by_units else None
    given = problem, question.centre, question.changes, lowered, kept, question.deadline
    found = one_layer_forms(*given, third.add, shared)
    return None if found is None else (*found, third)


def _proved(whole: Matrices, squares: Matrices, term: CubicTerm | None, question: Question) -> bool:
    given = question.changes, question.radius, question.claim, question.slab
    matrix, error = whole_matrix(whole, squares, term, *given)
    return not_negative(matrix, question.problem.num_params, error, question.longest)
