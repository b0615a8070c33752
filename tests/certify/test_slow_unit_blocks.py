"""The independent check of certificates by units, whose whole matrix is made without what is zero in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import prove
from pyhess.certify.reference_changes import Changes
from pyhess.certify.reference_cubic_matrix import whole_matrix
from pyhess.certify.reference_cubic_ways import ways
from pyhess.certify.reference_definite import Arrow, not_negative
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import UNIT, wide
from pyhess.certify.reference_one_layer_arrow import arrow_matrix, in_blocks
from pyhess.certify.reference_one_layer_rests import UnitRests
from pyhess.certify.reference_one_layer_third import Gram, ThirdOrder, one_layer_term
from pyhess.certify.reference_unit_groups import Groups
from pyhess.certify.slab_multipliers import Slab
from pyhess.certify.taylor_multipliers import TaylorMultipliers

from .slow_one_layer_cases import TAU, by_units, cubic_part, polynomial, problem
from .slow_taylor_cases import Array, Case, only

pytestmark = pytest.mark.usefixtures("long_doubles")

CASES: list[Case] = [
    ([2, 3, 1], ["tanh"], "squared_error", "standard", True),
    ([3, 4, 1], ["gelu"], "squared_error", "ntk", False),
    ([2, 3, 2], ["sigmoid"], "squared_error", "standard", True),
    ([1, 1, 2], ["softplus"], "squared_error", "ntk", True),
]
RADIUS = 0.1


def _multipliers(obj: ph.Objective, rng: np.random.Generator, lam: float = 1.0, turned: float = 0.1) -> TaylorMultipliers:
    """Some with all that they may have for the matrix to be in blocks."""
    size, count, holder = obj.num_params, obj.data.num_samples, Groups.of(Problem.of(obj)).holder
    k, a, b = holder[:, None, None], holder[:, None], holder
    root = np.where(a == b, rng.standard_normal((size, size)), 0.0)
    turn = np.where((k != a) & (k != b) & (a != b), 0.0, rng.standard_normal((size,) * 3))
    return TaylorMultipliers(
        lam * (np.eye(size) + 0.1 * root @ root.T / size), turned * turn, 0.2, TAU, rng.uniform(0.5, 2.0, size),
        np.zeros((count, obj.net.widths[1])), np.ones(count), True,
    )  # fmt: skip


def _slab(multipliers: TaylorMultipliers) -> Slab:
    return Slab(-1.0, 1.0, np.zeros((0, 0)), 1.0, multipliers)


class _Matrices:
    """Both ways to make the matrix of a problem."""

    def __init__(self, obj: ph.Objective, rng: np.random.Generator, multipliers: TaylorMultipliers) -> None:
        form, self._slab = Problem.of(obj), _slab(multipliers)
        shared = UnitRests(form, multipliers.share, wide(multipliers.weights))
        self.centre = 0.7 * rng.standard_normal(obj.num_params)
        self._forms = by_units(obj, self.centre, RADIUS, shared=shared, averaged=False)
        self.groups, self._changes = self._forms[2].groups, Changes.ball(RADIUS)

    def arrow(self, claim: float) -> Arrow:
        found = arrow_matrix(*self._forms, self._changes, RADIUS, claim, self._slab, np.inf)
        assert found is not None
        return found

    def dense(self, claim: float) -> tuple[Array, Array]:
        *forms, third = self._forms
        tau = self._slab.taylor.tau
        assert tau is not None
        term = one_layer_term(third, self._changes, tau, np.inf)
        return whole_matrix(*forms, term, self._changes, RADIUS, claim, self._slab)

    def spread(self, arrow: Arrow) -> tuple[Array, Array, Array]:
        """All entries of the arrow, its rows' errors, and where the entries are."""
        size, groups = self.groups.size, range(len(self.groups.all))
        core = np.concatenate([np.arange(size), *(size + self.groups.rows((g, g)) for g in groups)])
        found, there, error = np.zeros((size + size**2,) * 2), np.zeros((size + size**2,) * 2, bool), np.zeros(size + size**2)
        found[np.ix_(core, core)], there[np.ix_(core, core)], error[core] = arrow.core, True, arrow.error
        for (g, h), leaf in zip(combinations(groups, 2), arrow.leaves, strict=True):
            rows = size + np.concatenate([self.groups.rows((g, h)), self.groups.rows((h, g))])
            columns = np.concatenate([rows, core[leaf.at]])
            found[np.ix_(rows, columns)], there[np.ix_(rows, columns)], error[rows] = leaf.rows, True, leaf.error
            found[np.ix_(columns, rows)], there[np.ix_(columns, rows)] = leaf.rows.T, True
        return found, error, there


def _tensor(third: ThirdOrder, averaged: bool) -> Array:
    """T, from the sums for pairs of units, one term after the other."""
    size, units = third.size, third.groups.units
    rest, alone = np.zeros((size,) * 5), np.zeros((size,) * 5)
    for x, p in enumerate(units):
        rest[np.ix_(p, p, p, p, p)] += third.alone[x]
        own = np.zeros((size, 1, 1, 1, 1), bool)
        own[p] = True
        here = np.zeros((size,) * 5)
        here[np.ix_(np.arange(size), p, p, p, p)] = third.one[:, x]
        rest += np.where(own, here, 0.0)
        alone += np.where(own, 0.0, here)
        for y, q in enumerate(units):
            rest[np.ix_(p, p, p, q, q)] += third.three[x, :, :, :, y]
            rest[np.ix_(p, p, q, q, q)] += third.two[x, :, :, y]
            both = third.mixed[y, :, :, x].transpose(2, 3, 0, 4, 1)  # (k, l, m, a, b)
            rest[np.ix_(p, p, q, p, q)] += both
            rest[np.ix_(p, p, q, q, p)] += both.swapaxes(3, 4)
    if averaged:
        rest, alone = rest + alone, 0.0 * alone
    mean = sum(rest.transpose(*order, 3, 4) for order in permutations(range(3))) / 6.0
    return np.asarray(mean + 0.5 * (alone.transpose(1, 0, 2, 3, 4) + alone.transpose(1, 2, 0, 3, 4)))


@pytest.mark.parametrize("case", CASES)
def test_the_orders_of_delta_are_those_said_and_their_sum_is_the_same(case: Case) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2543)
    size, sums = obj.num_params, []
    centre, deltas = 0.7 * rng.standard_normal(size), rng.standard_normal((3, size))
    for averaged in (False, True):
        *_, third = by_units(obj, centre, RADIUS, averaged=averaged)
        tensor = _tensor(third, averaged)
        assert np.allclose(tensor, tensor.swapaxes(1, 2), rtol=1e-12, atol=1e-15 * np.abs(tensor).max())
        rows = tensor.transpose(0, 3, 1, 2, 4).reshape(size * size, -1)
        expected = rows @ rows.T
        squared = cubic_part(third, RADIUS).squared
        assert expected.any() and np.abs(squared - expected).max() <= 1e-13 * np.abs(expected).max()
        sums.append(np.stack([np.einsum("klmab,k,l,m->ab", tensor, d, d, d, optimize=True) for d in deltas]))
        # Rows of one group are not coupled with those of others in three, nor in two of which it is none.
        holder = third.groups.holder
        for k, a in np.argwhere(holder[:, None] != holder):
            others = [h for h in range(len(third.groups.all)) if h not in (holder[k], holder[a])]
            columns = np.isin(holder, others)
            coupled = squared.reshape((size,) * 4)[k, a]
            assert averaged or not (coupled[columns].any() or coupled[:, columns].any())
    form = by_units(obj, centre, RADIUS)[:2]
    written = [polynomial(form[0], d, third) - polynomial(form[0], d) for d in deltas]
    for found in sums:
        assert np.abs(found - written).max() <= 1e-12 * np.abs(written).max()


@pytest.mark.parametrize("case", CASES)
def test_the_matrix_is_the_whole_one_without_zeros(case: Case) -> None:
    obj = problem(case)
    for tau in (TAU, 1e4):
        rng = np.random.default_rng(2549)
        matrices = _Matrices(obj, rng, replace(_multipliers(obj, rng, turned=1.0), tau=tau))
        given, off, there = matrices.spread(matrices.arrow(-0.3))
        expected, error = matrices.dense(-0.3)
        assert np.array_equal(given, given.T) and not expected[~there].any()
        assert (np.abs(given - expected) <= 2e-15 * np.abs(expected) + 1e-16 * np.abs(expected).max()).all()
        # Less than there, as entries have the lengths of their own pair's rows of M alone.
        assert (off <= 1.1 * error).all() and (off >= 64.0 * UNIT * np.abs(expected).sum(axis=1)).all()
        size = obj.num_params
        squared = np.abs(cubic_part(by_units(obj, matrices.centre, RADIUS, averaged=False)[2], RADIUS).squared)
        assert (off[size:] >= 2.0**-48 * tau * RADIUS**2 * squared.sum(axis=1)).all()


@pytest.mark.parametrize("case", CASES)
def test_errors_of_all_entries_count_in_their_rows(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2551)
    matrices = _Matrices(obj, rng, _multipliers(obj, rng))

    def one(exact: Array, *_: Any) -> tuple[Array, Array]:
        return exact.astype(np.float64), wide(np.ones(exact.shape))

    monkeypatch.setattr("pyhess.certify.reference_one_layer_arrow.rounded", one)
    _, error, there = matrices.spread(matrices.arrow(-0.3))
    assert np.allclose(error, there.sum(axis=1), rtol=1e-12)


def _largest(proves: Callable[[float], bool], low: float, high: float) -> float:
    assert proves(low) and not proves(high)
    for _ in range(44):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if proves(middle) else (low, middle)
    return low


@pytest.mark.parametrize("case", CASES[:3])
def test_the_same_is_proved_by_blocks_and_by_the_whole_matrix(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2557)
    size, multipliers = obj.num_params, _multipliers(obj, rng, lam=3.0)
    matrices = _Matrices(obj, rng, multipliers)
    dense, error = matrices.dense(0.0)
    top, places = np.diag(dense)[:size].copy(), np.arange(size)

    def whole(claim: float) -> bool:
        dense[places, places] = top - claim
        return not_negative(dense, size, error)

    limits = -100.0, float(np.linalg.eigvalsh(obj.hessian(matrices.centre).to_dense())[0])
    blocks = _largest(lambda claim: matrices.arrow(claim).not_negative(size), *limits)
    assert blocks == pytest.approx(_largest(whole, *limits), rel=1e-9)
    only(monkeypatch, "_in_blocks")
    proof = partial(prove, obj, ph.Ball(matrices.centre, RADIUS), "taylor", multipliers=multipliers)
    assert proof(blocks - 1e-9 * abs(blocks)).proved
    above = proof(blocks + 1e-7 * abs(blocks))
    assert not above.proved and "is less" in above.detail
    assert not proof(-1e3, time_limit=1e-4).proved


def test_what_is_coupled_otherwise_is_proved_by_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem(CASES[2])
    rng = np.random.default_rng(2579)
    size, given = obj.num_params, _multipliers(obj, rng)
    groups = Groups.of(Problem.of(obj))
    (first, second, third), biases = groups.units[:, 0], groups.biases

    def named(multipliers: TaylorMultipliers, obj: ph.Objective = obj) -> list[Any]:
        found = ways(Problem.of(obj), False, multipliers)
        return [(way.proves.__name__, way.most) if not isinstance(way.proves, partial) else way.proves.keywords for way in found]

    old = {"averaged": True}
    assert in_blocks(groups, given) and named(given) == [("_in_blocks", 320), old]
    assert named(replace(given, by_units=False))[0] == old
    # Anything that is not zero.
    for k, a, b in ((first, second, third), (biases[0], first, second), (first, biases[1], third)):
        turned = given.turned.copy()
        turned[k, a, b] = 1e-300
        assert named(replace(given, turned=turned)) == [{"averaged": False}, old]
    for a, b in ((second, first), (biases[1], first)):
        lam = given.lam.copy()
        lam[a, b] = 1e-300
        assert named(replace(given, lam=lam)) == [{"averaged": False}, old]
        proof = partial(prove, obj, ph.Ball(np.zeros(size), 0.01), "taylor", -100.0)
        assert proof(multipliers=replace(given, lam=lam)).proved
        # Of the other triangle nothing counts.
        assert named(replace(given, lam=lam.T)) == [("_in_blocks", 320), old]
    # What is in two groups.
    turned = given.turned.copy()
    turned[first, second, first] = turned[first, first, biases[0]] = turned[biases[0], biases[1], third] = 1.0
    assert in_blocks(groups, replace(given, turned=turned))
    # Too many parameters.
    large = problem(([2, 81, 1], ["tanh"], "squared_error", "standard", True), 1)
    nothing = np.broadcast_to(0.0, (325,) * 3)
    assert named(replace(given, lam=np.eye(325), turned=nothing), large) == [("_in_blocks", 320)]
    # Certificates of older files.
    monkeypatch.setattr("pyhess.certify.reference_cubic_ways._in_blocks", lambda _question: False)
    assert proof(multipliers=given).proved
    monkeypatch.setattr("pyhess.certify.reference_cubic_ways._MOST_BY_UNITS", 1)
    assert not proof(multipliers=given).proved


def test_networks_of_more_parameters_than_the_whole_matrix_is_for() -> None:
    obj = problem(([1, 34, 1], ["tanh"], "squared_error", "standard", True))
    rng = np.random.default_rng(2591)
    size = obj.num_params
    given = replace(_multipliers(obj, rng), lam=3.0 * np.eye(size), turned=np.zeros((size,) * 3))
    centre = 0.2 * rng.standard_normal(size)
    lowest = float(np.linalg.eigvalsh(obj.hessian(centre).to_dense())[0])
    proof = partial(prove, obj, ph.Ball(centre, 0.01), "taylor", multipliers=given)
    assert size > 100 and proof(lowest - 10.0).proved and not proof(lowest + 1e-9).proved


def test_products_of_some_columns_are_summed_with_their_roundings() -> None:
    rng = np.random.default_rng(2621)
    rows, found = rng.standard_normal((3, 11)), Gram(np.zeros((4, 4)))
    at, part = np.array([3, 0, 1]), Gram(np.zeros((3, 3)))
    part.add(np.array([1, 2, 0]), rows)
    part.add(np.array([2]), rows[:1, :2])
    found.add(np.array([0, 3]), rows[:2, :5])
    found.add_part(at, part, np.array([1, 2, 0]))
    expected = np.zeros((4, 4))
    expected[np.ix_(at, at)] = rows @ rows.T
    expected[0, 0] += rows[0, :2] @ rows[0, :2]
    expected[np.ix_([0, 3], [0, 3])] += rows[:2, :5] @ rows[:2, :5].T
    term = found.term(Changes.ball(RADIUS), TAU)
    assert np.allclose(term.squared, expected, rtol=1e-13, atol=1e-13) and term.rounding >= (11 + 4 + 64) * 2.0**-53
    assert (term.lengths >= np.sqrt(np.diag(expected)) * (1.0 - 1e-15)).all()
    assert term.floor >= RADIUS**4 / (2.0 * TAU) * (1.0 - 1e-15)


def test_no_time_is_no_matrix() -> None:
    obj = problem(CASES[0])
    rng = np.random.default_rng(2617)
    *forms, third = by_units(obj, np.zeros(obj.num_params), RADIUS, averaged=False)
    given = Changes.ball(RADIUS), RADIUS, -1.0, _slab(_multipliers(obj, rng))
    assert arrow_matrix(*forms, third, *given, 0.0) is None
