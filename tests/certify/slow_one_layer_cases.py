"""Problems with one hidden layer for the independent check of the Taylor bound unit by unit, and its polynomials written out."""

from __future__ import annotations

import numpy as np

import pyhess as ph
from pyhess.certify.reference_changes import Changes
from pyhess.certify.reference_cubic_matrix import CubicTerm
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import wide
from pyhess.certify.reference_one_layer_forms import BlockForm, one_layer_forms
from pyhess.certify.reference_one_layer_rests import UnitRests
from pyhess.certify.reference_one_layer_third import ThirdOrder, one_layer_term

from .slow_taylor_cases import Array, Case, symmetric

TAU = 0.3
CASES: list[Case] = [
    ([2, 2, 1], ["tanh"], "squared_error", "standard", True),
    ([2, 3, 2], ["gelu"], "squared_error", "ntk", False),
    ([1, 2, 2], ["sigmoid"], "squared_error", "ntk", True),
    ([3, 1, 2], ["softplus"], "squared_error", "standard", True),
    ([1, 4, 1], ["tanh"], "squared_error", "standard", False),
]


def problem(case: Case, count: int = 5) -> ph.Objective:
    widths, names, loss, parametrization, bias = case
    rng = np.random.default_rng(2381)
    data = ph.Dataset(
        rng.standard_normal((count, widths[0])), rng.standard_normal((count, widths[-1])), rng.uniform(0.5, 2.0, count)
    )
    return ph.Objective(ph.MLP(widths, names, beta=1.7, bias=bias, parametrization=parametrization), data, loss=loss)


def by_units(
    obj: ph.Objective,
    centre: Array,
    radius: float,
    lowered: Array | None = None,
    kept: Array | None = None,
    shared: UnitRests | None = None,
    averaged: bool = True,
) -> tuple[BlockForm, BlockForm, ThirdOrder]:
    form, count = Problem.of(obj), obj.data.num_samples
    third = ThirdOrder(form, averaged)
    numbers = wide(np.zeros((count, obj.net.widths[1])) if lowered is None else lowered)
    parts = wide(np.ones(count) if kept is None else kept)
    found = one_layer_forms(form, wide(centre), Changes.ball(radius), numbers, parts, np.inf, third.add, shared)
    assert found is not None
    return *found, third


def cubic_part(third: ThirdOrder, radius: float, tau: float = TAU) -> CubicTerm:
    found = one_layer_term(third, Changes.ball(radius), tau, np.inf)
    assert found is not None
    return found


def tails(form: BlockForm) -> Array:
    """The symmetric part, as a matrix of P² rows."""
    return np.concatenate([form.tail_rows(k) for k in range(len(form.head))])


def polynomial(form: BlockForm, delta: Array, third: ThirdOrder | None = None) -> Array:
    size = len(delta)
    quadratic = np.einsum("k,kalb,l->ab", delta, tails(form).reshape((size,) * 4), delta)
    found = symmetric(form.head + 2.0 * np.tensordot(delta, form.half, (0, 0)) + quadratic)
    if third is not None:
        at = third.groups.units
        own = delta[at]
        for x, i in enumerate(at):
            into = np.ix_(i, i)
            found[into] += np.einsum("klmab,k,l,m->ab", third.alone[x], own[x], own[x], own[x], optimize=True)
            found[into] += np.einsum("xklmab,xk,xl,xm->ab", third.three[:, :, :, :, x], own, own, own, optimize=True)
            found[into] += np.einsum("xklmab,xk,xl,m->ab", third.two[:, :, :, x], own, own, own[x], optimize=True)
            found[into] += np.einsum("klmab,k,l,m->ab", third.one[:, x], delta, own[x], own[x], optimize=True)
            for y, j in enumerate(at):
                both = np.einsum("mbkla,m,k,l->ba", third.mixed[y, :, :, x], own[y], own[x], own[x], optimize=True)
                found[np.ix_(j, i)] += both
                found[np.ix_(i, j)] += both.T
    return found.astype(np.float64)


def on_the_rim(rng: np.random.Generator, size: int, radius: float, count: int) -> Array:
    """Some are of few parameters."""
    found = rng.standard_normal((count, size)) * (rng.random((count, size)) < rng.choice([0.3, 1.0], (count, 1)))
    found[np.arange(count), rng.integers(0, size, count)] += 1.0
    return radius * found / np.linalg.norm(found, axis=1)[:, None]
