"""Forms in pairs of units with dense ones of the same ball, and choices for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from pyhess.certify.taylor_choice import promising
from pyhess.certify.taylor_lifted import Lifted
from pyhess.certify.taylor_multipliers import TaylorMultipliers
from pyhess.certify.taylor_one_layer import UnitExpansion, unit_hessian
from pyhess.certify.taylor_pair_form import PairForm
from pyhess.certify.taylor_pairs import PairSides
from pyhess.certify.taylor_room import Room
from pyhess.certify.taylor_top import State

from .conftest import small_objective

GO_ON = np.zeros(1, dtype=np.int32)
Array = np.ndarray
#: Widths, and what else a network has.
Case: TypeAlias = tuple[list[int], dict[str, Any]]
CASES: list[Case] = [
    ([2, 3, 1], {}),
    ([1, 4, 1], {"bias": False, "parametrization": "ntk"}),
    ([2, 2, 2], {"activation": "gelu"}),
    ([2, 1, 1], {"activation": "softplus"}),
]
RADIUS = 0.1


def expansion(case: Case) -> UnitExpansion:
    widths, options = case
    obj = small_objective(3079, 8, widths, **options)
    centre = 0.7 * np.random.default_rng(3083).standard_normal(obj.num_params)
    found = unit_hessian(obj.net, centre, Room(RADIUS), obj.data, obj.targets, np.ones(8), GO_ON)
    assert found is not None
    return found


def forms_of(case: Case) -> tuple[PairForm, Lifted]:
    found = expansion(case)
    return PairForm(found, Room(RADIUS), RADIUS), Lifted(found.dense(), Room(RADIUS), RADIUS)


def used_numbers(form: PairForm, rng: np.random.Generator) -> Array:
    """Random blocks (G, D, D), with zeros in slots that are not used."""
    used = np.arange(form.nodes.slots).reshape(form.nodes.groups, -1) < form.size
    return rng.standard_normal((*used.shape, form.nodes.one)) * (used[:, :, None] & used[:, None, :])


def random_state(form: PairForm, seed: int = 3089) -> State:
    """A choice with random numbers everywhere, where the tail is positive definite."""
    rng = np.random.default_rng(seed)
    start = promising(form, -np.inf)
    assert start is not None and start.tau is not None
    scale = float(np.abs(start.factors).max())
    factors = start.factors + 0.3 * scale * used_numbers(form, rng)
    half = rng.standard_normal((form.size,) * 3)
    turned = (
        0.2 * scale**2 / form.ball * form.turns.slopes(PairSides.of(form.nodes, half, form.permutation))
    )  # in slots that are used
    weights = np.exp(0.3 * rng.standard_normal(form.size))
    weights = np.bincount(form.groups, weights)[form.groups]
    state = replace(start, factors=factors, turned=turned, weights=weights / weights.max(), share=0.15, tau=0.4 * start.tau)
    return replace(state, floors=(0.1 + form.least_multiple(state, form.identities)) * form.identities)


def dense_choice(form: PairForm, state: State, lams: Array) -> tuple[State, Array]:
    """The same choice for the dense form, made from the multipliers that a certificate keeps."""
    kept = form.multipliers(state, lams, np.ones(8))
    many = replace(state, factors=np.zeros((1, *kept.lam.shape)), floors=kept.lam[None], turned=kept.turned, most=np.ones(1))
    return many, kept.lam[None]


def exact_value(form: Lifted, given: State | TaylorMultipliers, lam: Array) -> float:
    """The smallest eigenvalue of the form's Schur complement, in long doubles but for the last step; -inf where there is none."""
    half = (form.half(given.share) + form.ball * given.turned).reshape(-1, form.size).astype(np.longdouble)
    whole = (form.tail(given) + np.kron(np.eye(form.size), lam)).astype(np.longdouble)
    top = (form.head(given) - lam).astype(np.longdouble)
    rows = np.concatenate([whole, half], axis=1)
    for at in range(len(rows)):  # Gauss: no pivots, as it is positive definite
        if not rows[at, at] > 0.0:
            return -np.inf
        below = rows[at + 1 :]
        below[:, at:] -= np.outer(below[:, at] / rows[at, at], rows[at, at:])
        top -= np.outer(rows[at, len(rows) :], rows[at, len(rows) :]) / rows[at, at]
    return float(np.linalg.eigvalsh((0.5 * (top + top.T)).astype(float))[0])


def is_the_gradient(gradient: Array, value: Callable[[Array], float], z: Array, seed: int) -> None:
    """Assert that it is that of the function at z, by differences along eight directions, which are off by h²."""
    errors = []
    for step in (2e-3, 1e-3):
        slopes = []
        for direction in np.random.default_rng(seed).standard_normal((8, z.size)):
            after, before = (value(z + side * step * direction) for side in (1.0, -1.0))
            slopes.append((after - before) / (2.0 * step) - gradient @ direction)
        errors.append(np.linalg.norm(slopes))
    assert errors[1] < 1e-3 * np.linalg.norm(gradient) and 3.5 < errors[0] / errors[1] < 4.5
