"""The form in pairs of units: what it is, its proof, and looking for its multipliers, against the dense form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.linalg import block_diag

from pyhess._threads import blas_single_thread
from pyhess.certify.taylor_choice import _Exactly, maximised, promising, renewed
from pyhess.certify.taylor_lifted import Lifted
from pyhess.certify.taylor_multipliers import TaylorMultipliers
from pyhess.certify.taylor_one_layer import unit_hessian
from pyhess.certify.taylor_pair_choice import ByPairs
from pyhess.certify.taylor_pair_form import PairForm
from pyhess.certify.taylor_pair_proof import proved_by_pairs
from pyhess.certify.taylor_pairs import PairSides
from pyhess.certify.taylor_proof import proved, roundings
from pyhess.certify.taylor_room import Room
from pyhess.certify.taylor_top import State

from .conftest import small_objective

GO_ON = np.zeros(1, dtype=np.int32)
Array = np.ndarray
CASES: list[tuple[list[int], dict[str, Any]]] = [
    ([2, 3, 1], {}),
    ([1, 4, 1], {"bias": False, "parametrization": "ntk"}),
    ([2, 2, 2], {"activation": "gelu"}),
    ([2, 1, 1], {"activation": "softplus"}),
]
RADIUS = 0.1


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with blas_single_thread():
        yield


def _forms(widths: list[int], options: dict[str, Any], radius: float = RADIUS) -> tuple[PairForm, Lifted]:
    obj = small_objective(3079, 8, widths, **options)
    centre = 0.7 * np.random.default_rng(3083).standard_normal(obj.num_params)
    room = Room(radius)
    found = unit_hessian(obj.net, centre, room, obj.data, obj.targets, np.ones(8), GO_ON)
    assert found is not None
    return PairForm(found, room, radius), Lifted(found.dense(), room, radius)


@pytest.fixture(params=CASES, ids=lambda case: str(case[0]))
def forms(request: pytest.FixtureRequest) -> tuple[PairForm, Lifted]:
    """Both forms of a ball."""
    return _forms(*request.param)


def _numbers(form: PairForm, rng: np.random.Generator) -> Array:
    """Random blocks (G, D, D), with zeros in slots that are not used."""
    used = np.arange(form.nodes.slots).reshape(form.nodes.groups, -1) < form.size
    return rng.standard_normal((*used.shape, form.nodes.one)) * (used[:, :, None] & used[:, None, :])


def _state(form: PairForm, seed: int = 3089) -> State:
    """A choice with random numbers everywhere, where the tail is positive definite."""
    rng = np.random.default_rng(seed)
    start = promising(form, -np.inf)
    assert start is not None and start.tau is not None
    scale = float(np.abs(start.factors).max())
    factors = start.factors + 0.3 * scale * _numbers(form, rng)
    half = rng.standard_normal((form.size,) * 3)
    turned = (
        0.2 * scale**2 / form.ball * form.turns.slopes(PairSides.of(form.nodes, half, form.permutation))
    )  # in slots that are used
    weights = np.exp(0.3 * rng.standard_normal(form.size))
    weights = np.bincount(form.groups, weights)[form.groups]
    state = replace(start, factors=factors, turned=turned, weights=weights / weights.max(), share=0.15, tau=0.4 * start.tau)
    return replace(state, floors=(0.1 + form.least_multiple(state, form.identities)) * form.identities)


def _dense(form: PairForm, state: State, lams: Array) -> tuple[State, Array]:
    """The same choice for the dense form, made from the multipliers that a certificate keeps."""
    kept = form.multipliers(state, lams, np.ones(8))
    many = replace(state, factors=np.zeros((1, *kept.lam.shape)), floors=kept.lam[None], turned=kept.turned, most=np.ones(1))
    return many, kept.lam[None]


def _exact(form: Lifted, given: State | TaylorMultipliers, lam: Array) -> float:
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


def test_it_is_the_dense_form(forms: tuple[PairForm, Lifted]) -> None:
    pairs, lifted = forms
    state, order = _state(pairs), pairs.permutation
    lams = state.lams
    many, lam = _dense(pairs, state, lams)
    blocks = block_diag(*lams)[: pairs.size, : pairs.size]
    np.testing.assert_array_equal(lam[0][np.ix_(order, order)], blocks)
    np.testing.assert_array_equal(many.turned, -many.turned.transpose(0, 2, 1))
    np.testing.assert_allclose(pairs.head(state), lifted.head(many), rtol=1e-13)
    np.testing.assert_allclose(pairs.in_groups(pairs.head(state)), lifted.head(many)[np.ix_(order, order)], rtol=1e-13)
    # No entry of the right sides, the tail and M M' is lost.
    half = lifted.half(state.share) + RADIUS * many.turned
    np.testing.assert_allclose(pairs.sides(state).dense(order), half, rtol=0, atol=1e-14 * np.abs(half).max())
    tail, own = lifted.tail(many), pairs.tail(state).dense(order)
    np.testing.assert_allclose(own, tail, rtol=0, atol=1e-14 * np.abs(tail).max())
    assert lifted.gram is not None
    np.testing.assert_allclose(pairs.gram.dense(order), lifted.gram, rtol=0, atol=1e-14 * np.abs(lifted.gram).max())
    # What it is at the least.
    one, other = pairs.least(state, lams), lifted.least(many, lam)
    assert one is not None and other is not None and one.rest is None
    scale = np.abs(other.schur).max()
    np.testing.assert_allclose(one.schur, other.schur[np.ix_(order, order)], rtol=0, atol=1e-11 * scale)
    for v in np.random.default_rng(3109).standard_normal((3, pairs.size)):
        np.testing.assert_allclose(one.turning(v[order]), other.turning(v), rtol=1e-9)
    # Without enough of the multipliers there is none.
    assert pairs.least(replace(state, tau=1e12), lams) is None and lifted.least(replace(many, tau=1e12), lam) is None


def test_its_sizes_are_those_of_the_dense_form(forms: tuple[PairForm, Lifted]) -> None:
    pairs, lifted = forms
    assert pairs.finite and pairs.order == lifted.order == 3 and pairs.pair == lifted.pair
    state = _state(pairs)
    many, _ = _dense(pairs, state, state.lams)
    for share in (0.2, 0.9):
        np.testing.assert_allclose(pairs.half_size(share), lifted.half_size(share), rtol=1e-10)
    tau = lifted.first_tau()
    assert tau is not None
    np.testing.assert_allclose(pairs.first_tau(), tau, rtol=2e-4)
    assert lifted.cubic_terms == pairs.cubic_terms
    np.testing.assert_allclose(pairs.cubic_size, lifted.cubic_size, rtol=1e-14)
    np.testing.assert_allclose(pairs.cubic_rounding(state), lifted.cubic_rounding(many), rtol=1e-13)
    # Those of the tail are of absolute terms.
    one, other = pairs.rounding(state), lifted.rounding(many)
    assert (one >= other * (1.0 - 1e-14)).all() and (one <= 3.0 * other).all()
    assert 0.0 < roundings(lifted, many, 1.0, 2.0) <= roundings(pairs, state, 1.0, 2.0) * (1.0 + 1e-12)


def test_multiples_are_as_large_as_they_must_be(forms: tuple[PairForm, Lifted]) -> None:
    pairs, lifted = forms
    state = replace(_state(pairs), tau=50.0 * pairs.first_tau())
    lams = state.lams
    many, lam = _dense(pairs, state, lams)
    part = pairs.least_multiple(state, lams)
    assert part > 0.0
    np.testing.assert_allclose(part, lifted.least_multiple(many, lam), rtol=1e-3)
    values = [np.linalg.eigvalsh(lifted.tail(many) + np.kron(np.eye(pairs.size), x * part * lam[0]))[0] for x in (1.0, 0.999)]
    assert values[1] < 0.0 < values[0]
    assert pairs.least_multiple(replace(state, tau=1e-12 * state.tau), 1e9 * lams) < 1e-6
    assert pairs.least_multiple(state, np.full_like(lams, np.inf)) == np.inf


def test_both_proofs_claim_the_same(forms: tuple[PairForm, Lifted]) -> None:
    pairs, lifted = forms
    for seed in range(3):
        state = _state(pairs, 3119 + seed)
        if seed == 2:  # near the best
            state = maximised(pairs, renewed(pairs, state, GO_ON), 1, GO_ON)
        lams = state.lams
        kept = pairs.multipliers(state, lams, np.ones(8))
        assert kept.by_units and kept.share == state.share and kept.tau == state.tau and kept.lowered is pairs.lowered
        ours, dense = proved_by_pairs(pairs, state, lams), proved(lifted, kept.lam[None], kept)
        exact = _exact(lifted, kept, kept.lam)
        assert abs(ours - dense) < 1e-8 * abs(dense)
        assert exact - 1e-8 * abs(exact) < ours < exact and dense < exact


def test_what_is_claimed_is_below_for_whatever_multipliers() -> None:
    rng = np.random.default_rng(3121)
    claims = 0
    for widths, options in (([1, 2, 1], {}), ([1, 3, 1], {"bias": False}), ([1, 1, 2], {})):
        pairs, lifted = _forms(widths, options)
        start = _state(pairs, 3137)
        for _ in range(12):
            size = 10.0 ** rng.uniform(-3.0, 1.0)
            more = _numbers(pairs, rng)
            lams = start.lams + size * np.abs(start.lams).max() * more @ more.swapaxes(1, 2)
            state = replace(
                start,
                turned=start.turned * rng.standard_normal(start.turned.shape) * size,
                share=float(rng.uniform(0.01, 1.0)),
                tau=float(pairs.first_tau() * 10.0 ** rng.uniform(-4.0, 1.0)),
                weights=np.exp(size * rng.standard_normal(pairs.size)),
            )
            kept = pairs.multipliers(state, lams, np.ones(8))
            ours, exact = proved_by_pairs(pairs, state, lams), _exact(lifted, kept, kept.lam)
            claims += ours > -np.inf
            assert ours <= exact - 1e-11 * abs(exact)
            assert ours == -np.inf or ours >= exact - 1e-8 * abs(exact)
    assert claims > 15


def test_nothing_is_claimed_without_positive_multipliers(forms: tuple[PairForm, Lifted]) -> None:
    pairs, _ = forms
    state = _state(pairs)
    lams = state.lams
    assert proved_by_pairs(pairs, state, lams) > -np.inf
    for g in range(pairs.nodes.groups):
        wrong = lams.copy()
        wrong[g, 0, 0] = -1e-12  # the tail may make up for it, the head may not
        assert proved_by_pairs(pairs, state, wrong) == -np.inf
    assert proved_by_pairs(pairs, replace(state, tau=1e12), lams) == -np.inf  # no least
    for number in (np.nan, np.inf):
        assert proved_by_pairs(pairs, state, np.full_like(lams, number)) == -np.inf
    assert proved_by_pairs(pairs, replace(state, turned=np.nan * state.turned), lams) == -np.inf


def test_values_and_gradients_are_what_dense_ones_and_differences_say(forms: tuple[PairForm, Lifted]) -> None:
    pairs, lifted = forms
    form = ByPairs(pairs, _state(pairs))
    first = form.first()
    np.testing.assert_allclose(form.split(first).factors, form.start.factors, rtol=1e-14)
    np.testing.assert_allclose(form.split(first).turned, form.start.turned, rtol=1e-14)
    np.testing.assert_allclose(form.split(first).weights, form.start.weights, rtol=1e-13)
    smoothing = 0.1 * abs(form.value(first, 1.0)[0])
    # The same choice for the dense form.
    state = form.split(first)
    many, _ = _dense(pairs, state, state.factors @ state.factors.swapaxes(1, 2) + state.floors)
    back = np.argsort(pairs.permutation)
    parts = [block_diag(*x)[: pairs.size, : pairs.size][np.ix_(back, back)] for x in (state.factors, state.floors)]
    dense = _Exactly(lifted, replace(many, factors=parts[0][None], floors=parts[1][None]))
    np.testing.assert_allclose(form.value(first, smoothing)[0], dense.value(dense.first(), smoothing)[0], rtol=1e-7)
    z = first + 0.05 * np.random.default_rng(3163).standard_normal(first.size)
    value, gradient = form.value(z, smoothing)
    errors = []
    for step in (2e-3, 1e-3):
        slopes = []
        for direction in np.random.default_rng(3167).standard_normal((8, z.size)):
            after, before = (form.value(z + side * step * direction, smoothing)[0] for side in (1.0, -1.0))
            slopes.append((after - before) / (2.0 * step) - gradient @ direction)
        errors.append(np.linalg.norm(slopes))
    assert errors[1] < 1e-3 * np.linalg.norm(gradient) and 3.5 < errors[0] / errors[1] < 4.5
    # Where there is no least, line searches get a number beyond all others.
    z[-1] = first[-1] + 200.0
    outside, flat = form.value(z, smoothing)
    assert outside == form.beyond >= 10.0 * abs(value) and not flat.any()
