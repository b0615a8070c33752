"""How the Taylor polynomials of the Hessian are made when a certificate is checked: whatever the network, or unit by unit.

Both make the same polynomials, but bounds of what these leave out that are neither always larger; a certificate may be made with
either. The first holds tensors of P⁵ / 6 numbers, and the second, for one hidden layer with squared error, those of two units.
Certificates by units are made with narrower bounds, which only the second has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from .reference_changes import Changes
from .reference_cubic_hessian import cubic_hessian, cubic_hessian_seconds
from .reference_cubic_matrix import CubicTerm, Matrices, cubic_term
from .reference_hessian import Problem
from .reference_interval import Wide, wide
from .reference_one_layer_forms import one_layer_forms
from .reference_one_layer_rests import UnitRests
from .reference_one_layer_third import ThirdOrder, one_layer_seconds, one_layer_term, tensor_numbers
from .slab_multipliers import Slab

#: (R, G) and the bound of the terms of the third order, or why there are none.
Found: TypeAlias = tuple[Matrices, Matrices, CubicTerm | None] | str

#: Parameters whose coefficients fit into memory, by the polynomials' order: P⁵ / 6 and P⁴, with a matrix of P² rows.
MOST_PARAMS = {2: 72, 3: 40}
#: Unit by unit: those whose matrix fits into memory, and numbers of the units' tensors.
_MOST_BY_UNITS, _MOST_NUMBERS = 100, 3e8
#: Seconds per product of T with itself, per number of the whole matrix, and per product of its factorisation, for estimates.
_PRODUCT_SECONDS, _NUMBER_SECONDS, _FACTOR_SECONDS = 1e-10, 1.5e-7, 5e-11


@dataclass(frozen=True)
class Way:
    """One of them, the time that it takes, roughly, and for how many parameters it is."""

    seconds: float
    most: int
    make: Callable[[Problem, Wide, Changes, Slab, float], Found]


def cubic_seconds(problem: Problem, order: int) -> float:
    """Time of a check, roughly, with polynomials of an order, whatever the network."""
    size = float(problem.num_params)
    products = size**7 / 4.0 if order == 3 else 0.0
    return cubic_hessian_seconds(problem, order) + _PRODUCT_SECONDS * products + _matrix_seconds(size)


def _matrix_seconds(size: float) -> float:
    rows = size + size**2
    return _NUMBER_SECONDS * rows**2 + _FACTOR_SECONDS * rows**3 / 3.0


def ways(problem: Problem, order: int, axis: bool, by_units: bool = False) -> list[Way]:
    """Those for polynomials of an order, in changes with an axis or without, the quickest first; perhaps none by units."""
    found = []
    if not by_units:
        found.append(Way(cubic_seconds(problem, order), MOST_PARAMS[order], partial(_whatever_the_network, order=order)))
    may_be = problem.layers == 2 and problem.loss == "squared_error" and order == 3 and not axis
    if may_be and tensor_numbers(problem) <= _MOST_NUMBERS:
        seconds = one_layer_seconds(problem) + _matrix_seconds(float(problem.num_params))
        found.append(Way(seconds, _MOST_BY_UNITS, _unit_by_unit))
    fitting = [way for way in found if problem.num_params <= way.most]
    return sorted(fitting or found[-1:], key=lambda way: way.seconds)


def _whatever_the_network(
    problem: Problem, centre: Wide, changes: Changes, slab: Slab, deadline: float, *, order: int
) -> Found:  # fmt: skip
    multipliers = slab.taylor
    lowered, kept = wide(multipliers.lowered), wide(multipliers.kept)
    found = cubic_hessian(problem, centre, changes, lowered, kept, order, deadline)
    if found is None:
        return "time ran out before the Taylor polynomial was enclosed"
    if multipliers.tau is None:
        return *found, None
    term = cubic_term(found[0], changes, slab.narrow, multipliers.tau, deadline)
    return "time ran out before the cubic term was bounded" if term is None else (*found, term)


def _unit_by_unit(problem: Problem, centre: Wide, changes: Changes, slab: Slab, deadline: float) -> Found:
    multipliers, third = slab.taylor, ThirdOrder(problem)
    assert multipliers.tau is not None
    lowered, kept = wide(multipliers.lowered), wide(multipliers.kept)
    shared = UnitRests(problem, multipliers.share, wide(multipliers.weights)) if multipliers.by_units else None
    found = one_layer_forms(problem, centre, changes, lowered, kept, deadline, third.add, shared)
    if found is None:
        return "time ran out before the Taylor polynomial was enclosed"
    term = one_layer_term(third, changes, multipliers.tau, deadline)
    return "time ran out before the cubic term was bounded" if term is None else (*found, term)
