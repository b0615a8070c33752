"""The proof by the form in pairs of units, against that by the dense form and exact values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import eigh

from pyhess._threads import blas_single_thread
from pyhess.certify.taylor_choice import maximised, renewed
from pyhess.certify.taylor_pair_form import PairForm
from pyhess.certify.taylor_pair_proof import proved_by_pairs
from pyhess.certify.taylor_pairs import PairMatrix, PairSides, PairSystem
from pyhess.certify.taylor_proof import proved
from pyhess.certify.taylor_top import State

from .pair_cases import (
    CASES,
    GO_ON,
    RADIUS,
    Case,
    dense_choice,
    exact_value,
    forms_of,
    random_state,
    used_numbers,
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with blas_single_thread():
        yield


@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_proofs_claim_the_same(case: Case) -> None:
    pairs, lifted = forms_of(case)
    for seed in range(3):
        state = random_state(pairs, 3119 + seed)
        if seed == 2:  # near the best
            state = maximised(pairs, renewed(pairs, state, GO_ON), 1, GO_ON)
        lams = state.lams
        kept = pairs.multipliers(state, lams, np.ones(8))
        assert kept.by_units and kept.share == state.share and kept.tau == state.tau and kept.lowered is pairs.lowered
        ours, dense = proved_by_pairs(pairs, state, lams), proved(lifted, kept.lam[None], kept)
        exact = exact_value(lifted, kept, kept.lam)
        assert abs(ours - dense) < 1e-8 * abs(dense)
        assert exact - 1e-8 * abs(exact) < ours < exact and dense < exact


def test_what_is_claimed_is_below_for_whatever_multipliers() -> None:
    rng = np.random.default_rng(3121)
    claims = 0
    cases: list[Case] = [([1, 2, 1], {}), ([1, 3, 1], {"bias": False}), ([1, 1, 2], {})]
    for case in cases:
        pairs, lifted = forms_of(case)
        start = random_state(pairs, 3137)
        for _ in range(12):
            size = 10.0 ** rng.uniform(-3.0, 1.0)
            more = used_numbers(pairs, rng)
            lams = start.lams + size * np.abs(start.lams).max() * more @ more.swapaxes(1, 2)
            state = replace(
                start,
                turned=start.turned * rng.standard_normal(start.turned.shape) * size,
                share=float(rng.uniform(0.01, 1.0)),
                tau=float(pairs.first_tau() * 10.0 ** rng.uniform(-4.0, 1.0)),
                weights=np.exp(size * rng.standard_normal(pairs.size)),
            )
            kept = pairs.multipliers(state, lams, np.ones(8))
            ours, exact = proved_by_pairs(pairs, state, lams), exact_value(lifted, kept, kept.lam)
            claims += ours > -np.inf
            assert ours <= exact - 1e-11 * abs(exact)
            assert ours == -np.inf or ours >= exact - 1e-8 * abs(exact)
    assert claims > 15


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_claimed_without_positive_multipliers(case: Case) -> None:
    pairs, _ = forms_of(case)
    state = random_state(pairs)
    lams = state.lams
    assert proved_by_pairs(pairs, state, lams) > -np.inf
    assert proved_by_pairs(pairs, replace(state, tau=1e12), lams) == -np.inf  # no least
    for number in (np.nan, np.inf):
        assert proved_by_pairs(pairs, state, np.full_like(lams, number)) == -np.inf
    assert proved_by_pairs(pairs, replace(state, turned=np.nan * state.turned), lams) == -np.inf


def test_multipliers_that_just_make_the_tail_positive_prove_no_more_than_there_is() -> None:
    # Then roundings may decide whether there is a least at all; but the rest of z is no longer than v.
    rng = np.random.default_rng(3209)
    pairs, lifted = forms_of(([1, 3, 1], {"bias": False}))
    for _ in range(12):
        start = random_state(pairs, int(rng.integers(10**6)))
        assert start.tau is not None
        state = replace(start, tau=start.tau * 10.0 ** rng.uniform(0.0, 2.0))
        many, lam = dense_choice(pairs, state, start.lams)
        least = eigh(lifted.tail(many), np.kron(np.eye(pairs.size), lam[0]), eigvals_only=True)[0]
        lams = (max(0.0, -float(least)) * (1.0 + 10.0 ** rng.uniform(-15.0, -8.0)) + 1e-12) * start.lams
        kept = pairs.multipliers(state, lams, np.ones(8))
        multiples = np.abs(kept.lam).max() * np.r_[0.0, 10.0 ** np.arange(-17.0, -7.0, 0.25)]
        exact = max(exact_value(lifted, kept, kept.lam + part * np.eye(pairs.size)) for part in multiples)
        assert proved_by_pairs(pairs, state, lams) < exact


def test_multipliers_of_every_group_must_be_positive() -> None:
    pairs, _ = forms_of(CASES[0])
    state = random_state(pairs)
    pairs.tails[0].add_spread(1e5 * pairs.identities)  # which makes up for what is not
    small = 1e-3 * pairs.identities
    assert proved_by_pairs(pairs, state, small) > -np.inf
    for g in range(pairs.nodes.groups):
        wrong = small.copy()
        wrong[g, 1, 1] = -1e-9
        assert proved_by_pairs(pairs, state, wrong) == -np.inf


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_that_was_rounded_is_taken_off(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, lifted = forms_of(case)
    state = random_state(pairs)
    lams = state.lams
    many, lam = dense_choice(pairs, state, lams)
    plain = proved_by_pairs(pairs, state, lams)
    seen: list[tuple[float, float]] = []

    def sizes(_form: PairForm, _state: State, of_lams: float, turned: float) -> float:
        seen.append((of_lams, turned))
        return 1e-3

    monkeypatch.setattr("pyhess.certify.taylor_pair_proof.roundings", sizes)
    np.testing.assert_allclose(plain - proved_by_pairs(pairs, state, lams), 2e-3, rtol=1e-9)  # |z|² is twice |v|²
    np.testing.assert_allclose(seen[0], (np.abs(lams).sum(axis=2).max(), RADIUS * np.linalg.norm(many.turned)), rtol=1e-12)
    # Of the factorisation, too, in which all rows take part; here with units that are much too large.
    monkeypatch.setattr("pyhess.certify.taylor_pair_proof.roundings", lambda *_: 0.0)
    monkeypatch.setattr("pyhess.certify.taylor_pair_proof.gamma", lambda count: 1e-8 * count)
    size = pairs.size
    whole = np.r_[np.diag(lifted.tail(many) + np.kron(np.eye(size), lam[0])), np.diag(lifted.head(many) - lam[0]) - plain]
    slack = 2e-8 * (size + size**2 + 3) * np.abs(whole).sum()
    less = plain - proved_by_pairs(pairs, state, lams) - 3.2e-7 * abs(plain)
    assert less > 2.0 * slack * (1.0 - 1e-6)
    if size == pairs.nodes.slots:
        np.testing.assert_allclose(less, 2.0 * slack, rtol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_factorisation_decides(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, lifted = forms_of(case)
    state = random_state(pairs)
    lams = state.lams
    kept = pairs.multipliers(state, lams, np.ones(8))
    exact = exact_value(lifted, kept, kept.lam)

    class Hopeful(PairSystem):
        """One whose values are too large."""

        def __init__(self, matrix: PairMatrix, sides: PairSides) -> None:
            super().__init__(matrix, sides)
            self.schur = self.schur + surplus * np.eye(len(self.schur))

    monkeypatch.setattr("pyhess.certify.taylor_pair_proof.PairSystem", Hopeful)
    surplus = 1e-7 * abs(exact)
    assert exact - 1e-5 * abs(exact) < proved_by_pairs(pairs, state, lams) < exact
    surplus = 0.1 * abs(exact)
    assert proved_by_pairs(pairs, state, lams) == -np.inf
