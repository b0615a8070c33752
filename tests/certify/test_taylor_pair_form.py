"""The form in pairs of units, and looking for its multipliers, against the dense form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import block_diag

from pyhess._threads import blas_single_thread
from pyhess.certify.taylor_choice import _Exactly
from pyhess.certify.taylor_pair_choice import ByPairs
from pyhess.certify.taylor_pair_form import PairForm
from pyhess.certify.taylor_proof import roundings
from pyhess.certify.taylor_rests import Rests
from pyhess.certify.taylor_room import Room

from .pair_cases import (
    CASES,
    RADIUS,
    Case,
    dense_choice,
    expansion,
    forms_of,
    is_the_gradient,
    random_state,
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with blas_single_thread():
        yield


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_dense_form(case: Case) -> None:
    pairs, lifted = forms_of(case)
    state, order = random_state(pairs), pairs.permutation
    lams = state.lams
    many, lam = dense_choice(pairs, state, lams)
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


def test_what_is_left_out_and_the_cubic_term_take_from_the_head() -> None:
    for case in CASES:
        found = expansion(case)
        form = PairForm(found, Room(RADIUS), RADIUS)
        state = random_state(form)
        one, other = (
            Rests(part.rest, units, found.places).matrix(state.weights)
            for part, units in zip((found.residual, found.squares), found.units, strict=True)
        )
        assert state.tau is not None and one.any() and other.any()
        exact = found.residual.head + (1.0 - state.share) * found.squares.head
        exact = 0.5 * (exact + exact.T) - RADIUS**4 / (2.0 * state.tau) * np.eye(form.size) - one - other / state.share
        np.testing.assert_allclose(form.head(state), exact, rtol=0, atol=1e-14 * np.abs(exact).max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_its_sizes_are_those_of_the_dense_form(case: Case) -> None:
    pairs, lifted = forms_of(case)
    assert pairs.finite and pairs.order == lifted.order == 3 and pairs.pair == lifted.pair
    state = random_state(pairs)
    many, _ = dense_choice(pairs, state, state.lams)
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


@pytest.mark.parametrize("case", CASES, ids=str)
def test_multiples_are_as_large_as_they_must_be(case: Case) -> None:
    pairs, lifted = forms_of(case)
    state = replace(random_state(pairs), tau=50.0 * pairs.first_tau())
    lams = state.lams
    many, lam = dense_choice(pairs, state, lams)
    part = pairs.least_multiple(state, lams)
    assert part > 0.0
    np.testing.assert_allclose(part, lifted.least_multiple(many, lam), rtol=1e-3)
    values = [np.linalg.eigvalsh(lifted.tail(many) + np.kron(np.eye(pairs.size), x * part * lam[0]))[0] for x in (1.0, 0.999)]
    assert values[1] < 0.0 < values[0]
    assert pairs.least_multiple(replace(state, tau=1e-12 * state.tau), 1e9 * lams) < 1e-6
    assert pairs.least_multiple(state, np.full_like(lams, np.inf)) == np.inf


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_what_dense_ones_and_differences_say(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, lifted = forms_of(case)
    form = ByPairs(pairs, random_state(pairs))
    first = form.first()
    np.testing.assert_allclose(form.split(first).factors, form.start.factors, rtol=1e-14)
    np.testing.assert_allclose(form.split(first).turned, form.start.turned, rtol=1e-14)
    np.testing.assert_allclose(form.split(first).weights, form.start.weights, rtol=1e-13)
    smoothing = 0.1 * abs(form.value(first, 1.0)[0])
    # The same choice for the dense form.
    state = form.split(first)
    many, _ = dense_choice(pairs, state, state.factors @ state.factors.swapaxes(1, 2) + state.floors)
    back = np.argsort(pairs.permutation)
    parts = [block_diag(*x)[: pairs.size, : pairs.size][np.ix_(back, back)] for x in (state.factors, state.floors)]
    dense = _Exactly(lifted, replace(many, factors=parts[0][None], floors=parts[1][None]))
    np.testing.assert_allclose(form.value(first, smoothing)[0], dense.value(dense.first(), smoothing)[0], rtol=1e-7)
    z = first + 0.05 * np.random.default_rng(3163).standard_normal(first.size)
    value, rough = form.value(z, smoothing)
    monkeypatch.setattr("pyhess.certify.taylor_pair_choice._LIGHT", 0.0)
    gradient = form.value(z, smoothing)[1]
    assert np.linalg.norm(rough - gradient) < 1e-2 * np.linalg.norm(gradient)
    is_the_gradient(gradient, lambda at: form.value(at, smoothing)[0], z, 3167)
    # Where there is no least, line searches get a number beyond all others.
    z[-1] = first[-1] + 200.0
    outside, flat = form.value(z, smoothing)
    assert outside == form.beyond >= 10.0 * abs(value) and not flat.any()
