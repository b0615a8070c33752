"""Matrices and right sides in pairs of units, elimination, and the matrices of the second order, against dense ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

import pyhess as ph
from pyhess._threads import blas_single_thread
from pyhess.certify.taylor_pair_form import PairTurns
from pyhess.certify.taylor_pairs import Eliminated, Nodes, PairMatrix, PairSides, PairSystem
from pyhess.certify.taylor_unit_forms import UnitLayout
from pyhess.certify.taylor_unit_tails import UnitTails

Array = np.ndarray
#: Networks with and without biases, with one unit, and with two outputs, whose biases use two slots of five.
CASES = [([2, 3, 1], True), ([1, 4, 1], False), ([2, 3, 2], True), ([2, 1, 1], True)]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with blas_single_thread():
        yield


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def layout(request: pytest.FixtureRequest) -> UnitLayout:
    """Where the parameters of a network are."""
    widths, bias = request.param
    return UnitLayout(ph.MLP(widths, bias=bias))


def _slots(nodes: Nodes, g: int) -> Array:
    return np.arange(g * nodes.one, (g + 1) * nodes.one)


def _leaf(nodes: Nodes, g: int, h: int) -> tuple[int, int]:
    """Which leaf the node (g, h) is in, counted anew, and its place there: that with the larger unit first comes first."""
    leaves = [(g, h) for g in range(nodes.groups) for h in range(g)]
    return leaves.index((max(g, h), min(g, h))), 0 if g > h else 1


def _padded(matrix: PairMatrix) -> Array:
    """All entries (slots, slots, slots, slots), node by node."""
    nodes, one = matrix.nodes, matrix.nodes.one
    found = np.zeros((nodes.slots,) * 4)
    leaves, crossed = (x.reshape(-1, 2, one, one, 2, one, one) for x in (matrix.leaves, matrix.crossed))
    for g, h, e, f in product(range(nodes.groups), repeat=4):
        at = np.ix_(*(_slots(nodes, x) for x in (g, h, e, f)))
        if g == h and e == f:
            found[at] = matrix.core[g, :, e].reshape((one,) * 4)
        elif g != h and {g, h} == {e, f}:
            leaf, row = _leaf(nodes, g, h)
            found[at] = leaves[leaf, row, :, :, _leaf(nodes, e, f)[1]]
        elif g != h and e == f and e in (g, h):
            leaf, row = _leaf(nodes, g, h)
            found[at] = crossed[leaf, row, :, :, 0 if e == max(g, h) else 1]
        elif g == h and e != f and g in (e, f):
            leaf, row = _leaf(nodes, e, f)
            found[at] = crossed[leaf, row, :, :, 0 if g == max(e, f) else 1].transpose(2, 3, 0, 1)
    return found


def _stacked(nodes: Nodes, x: Array) -> Array:
    """Rows (slots, slots, …) in the order of the core's nodes and the leaves'."""
    pairs = [(g, h) for g in range(nodes.groups) for h in range(g)]
    order = [(g, g) for g in range(nodes.groups)] + [node for g, h in pairs for node in ((g, h), (h, g))]
    return np.concatenate([x[np.ix_(_slots(nodes, g), _slots(nodes, h))].reshape(nodes.rows, *x.shape[2:]) for g, h in order])


def _split(nodes: Nodes, x: Array) -> tuple[Array, Array]:
    inner = nodes.groups * nodes.rows
    return x[:inner].reshape(nodes.groups, nodes.rows, -1), x[inner:].reshape(len(nodes.pairs), 2 * nodes.rows, -1)


def _random(nodes: Nodes, rng: np.random.Generator) -> PairMatrix:
    """A symmetric matrix."""
    found = PairMatrix.zero(nodes)
    for part in found.parts:
        part += rng.standard_normal(part.shape)
    return found.symmetrised()


def _sides(layout: UnitLayout, rng: np.random.Generator) -> tuple[PairSides, Array]:
    """Right sides, and the array (P, P, P) that they are made from, in the network's order."""
    half = rng.standard_normal((layout.size,) * 3)
    return PairSides.of(layout.nodes, half, layout.order), half


def _kept(layout: UnitLayout) -> Array:
    """Which entries (k, a, b) right sides have, in the network's order."""
    group = np.empty(layout.size, dtype=int)
    group[layout.order] = np.arange(layout.size) // layout.one
    k, a, b = group[:, None, None], group[None, :, None], group[None, None, :]
    return np.asarray((k == a) | (b == k) | (b == a))


def _in_network(layout: UnitLayout, x: Array) -> Array:
    """An array of slots in the network's order of the parameters."""
    back = np.argsort(layout.order)
    return x[np.ix_(*[back] * x.ndim)]


def test_matrices_are_what_their_blocks_say(layout: UnitLayout) -> None:
    nodes, rng = layout.nodes, np.random.default_rng(3001)
    one, other = _random(nodes, rng), _random(nodes, rng)
    dense, more = _padded(one), _padded(other)
    flat = dense.reshape(nodes.slots**2, -1)
    np.testing.assert_array_equal(flat, flat.T)
    np.testing.assert_array_equal(one.dense(layout.order), _in_network(layout, dense).reshape(layout.size**2, -1))
    np.testing.assert_array_equal(_padded(one.scaled(0.7)), 0.7 * dense)
    added = one.scaled(1.0)
    added.add(-1.3, other)
    np.testing.assert_allclose(_padded(added), dense - 1.3 * more, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(one.trace, np.abs(np.diag(flat)).sum(), rtol=1e-13)
    x = rng.standard_normal((nodes.slots, nodes.slots, 3))
    products = _stacked(nodes, (flat @ x.reshape(nodes.slots**2, -1)).reshape(x.shape))
    stacked = _stacked(nodes, x)
    for column, vector in zip(products.T, stacked.T, strict=True):
        np.testing.assert_allclose(one.times(np.ascontiguousarray(vector)), column, rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.form(*_split(nodes, stacked)), float((stacked * products).sum()), rtol=1e-11, atol=1e-11)
    skewed = PairMatrix(nodes, *(part + rng.standard_normal(part.shape) for part in one.parts))
    mean = skewed.symmetrised()
    np.testing.assert_allclose(mean.core, 0.5 * (skewed.core + skewed.core.transpose(2, 3, 0, 1)), rtol=1e-14)
    np.testing.assert_allclose(mean.leaves, 0.5 * (skewed.leaves + skewed.leaves.swapaxes(1, 2)), rtol=1e-14)
    np.testing.assert_array_equal(mean.crossed, skewed.crossed)


def test_blocks_are_added_half_each_way(layout: UnitLayout) -> None:
    nodes, rng = layout.nodes, np.random.default_rng(3011)
    found, exact = PairMatrix.zero(nodes), np.zeros((nodes.slots,) * 4)
    for g, h in product(range(nodes.groups), repeat=2):
        columns = [(e, e) for e in range(nodes.groups) if g == h or e in (g, h)]
        for e, f in columns + [(g, h)] * (g != h):
            block = rng.standard_normal((nodes.rows, nodes.rows))
            found.add_node((g, h), (e, f), block)
            at = [_slots(nodes, x) for x in (g, h, e, f)]
            exact[np.ix_(*at)] += 0.5 * block.reshape((nodes.one,) * 4)
            exact[np.ix_(*at[2:], *at[:2])] += 0.5 * block.T.reshape((nodes.one,) * 4)
    np.testing.assert_allclose(_padded(found), exact, rtol=1e-13, atol=1e-14)


def test_multipliers_are_spread_over_all_k(layout: UnitLayout) -> None:
    nodes, rng = layout.nodes, np.random.default_rng(3019)
    found = _random(nodes, rng)
    before = _padded(found)
    lams = rng.standard_normal((nodes.groups, nodes.one, nodes.one))
    lams = lams + lams.swapaxes(1, 2)
    whole = np.zeros((nodes.slots,) * 2)
    for g in range(nodes.groups):
        whole[np.ix_(_slots(nodes, g), _slots(nodes, g))] = lams[g]
    found.add_spread(lams)
    added = (_padded(found) - before).reshape(nodes.slots**2, -1)
    np.testing.assert_allclose(added, np.kron(np.eye(nodes.slots), whole), rtol=0, atol=1e-13)


def test_right_sides_keep_what_meets_their_nodes(layout: UnitLayout) -> None:
    nodes, rng = layout.nodes, np.random.default_rng(3023)
    (one, half), (other, more) = _sides(layout, rng), _sides(layout, rng)
    half, more = half * _kept(layout), more * _kept(layout)
    np.testing.assert_array_equal(one.dense(layout.order), half)
    np.testing.assert_allclose(one.plus(-0.3, other).dense(layout.order), half - 0.3 * more, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(one.dot(other), float((half * more).sum()), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(one.length, np.linalg.norm(half), rtol=1e-14)
    flat = half.reshape(-1, layout.size)
    np.testing.assert_allclose(_in_network(layout, one.square()), flat.T @ flat, rtol=0, atol=1e-12)
    # A leaf has the rows of the node with the larger unit first, and that unit's columns.
    back = np.argsort(layout.order)
    for at, (g, h) in enumerate(nodes.pairs):
        k, a, b = (rng.choice(_slots(nodes, x)[_slots(nodes, x) < nodes.size], 20) for x in (g, h, h))
        place = k % nodes.one * nodes.one + a % nodes.one
        np.testing.assert_array_equal(
            one.leaves[at, place, nodes.one + b % nodes.one], half[np.ix_(*[back.argsort()] * 3)][k, a, b]
        )


def test_turns_are_antisymmetric_and_all_that_keep_the_pairs(layout: UnitLayout) -> None:
    nodes, rng = layout.nodes, np.random.default_rng(3037)
    turns = PairTurns(nodes)
    full = Nodes(nodes.groups, nodes.one, nodes.slots)
    turned = rng.standard_normal(turns.count)
    found = turns.sides(turned)
    dense = PairSides(full, found.core, found.leaves).dense(np.arange(full.slots))
    np.testing.assert_array_equal(dense, -dense.swapaxes(1, 2))
    np.testing.assert_array_equal(turns.sides(turned).dense(layout.order), _in_network(layout, dense))
    group = np.arange(full.slots) // nodes.one
    k, a, b = group[:, None, None], group[None, :, None], group[None, None, :]
    np.testing.assert_array_equal(dense != 0.0, ((a == b) | (a == k) | (b == k)) & ~np.eye(full.slots, dtype=bool))
    np.testing.assert_allclose(turns.sides(-2.0 * turned).core, -2.0 * found.core)
    # Every number has two places, up to the sign, or none.
    by = PairSides(nodes, rng.standard_normal(found.core.shape), rng.standard_normal(found.leaves.shape))
    np.testing.assert_allclose(turns.slopes(by) @ turned, found.dot(by), rtol=1e-11, atol=1e-11)
    again = turns.slopes(found)
    np.testing.assert_allclose(again[again != 0.0], 2.0 * turned[again != 0.0], rtol=1e-14)
    assert 2 * np.count_nonzero(again) == np.count_nonzero(dense)


def _positive(layout: UnitLayout, rng: np.random.Generator) -> tuple[PairMatrix, PairSides, Array, Array]:
    """A positive definite matrix with right sides, and both dense, with all slots."""
    nodes = layout.nodes
    matrix, sides = _random(nodes, rng), _sides(layout, rng)[0]
    least = float(np.linalg.eigvalsh(_padded(matrix).reshape(nodes.slots**2, -1))[0])
    matrix.add_spread(np.stack([(1.0 - least) * np.eye(nodes.one)] * nodes.groups))
    full = Nodes(nodes.groups, nodes.one, nodes.slots)
    right = PairSides(full, sides.core, sides.leaves).dense(np.arange(nodes.slots))
    return matrix, sides, _padded(matrix).reshape(nodes.slots**2, -1), right.reshape(nodes.slots**2, -1)


def test_systems_are_solved_as_dense_ones(layout: UnitLayout) -> None:
    nodes, rng = layout.nodes, np.random.default_rng(3041)
    matrix, sides, dense, right = _positive(layout, rng)
    rest = np.linalg.solve(dense, right)
    system = PairSystem(matrix, sides)
    assert not system.failed
    np.testing.assert_allclose(system.schur, -(right.T @ rest)[: nodes.size, : nodes.size], rtol=0, atol=1e-11)
    np.testing.assert_array_equal(system.schur, system.schur.T)
    v = rng.standard_normal((nodes.slots, 3))
    v[nodes.size :] = 0.0
    moved = _stacked(nodes, (rest @ v).reshape(nodes.slots, nodes.slots, -1))
    for part, exact in zip(system.rest(v), _split(nodes, moved), strict=True):
        np.testing.assert_allclose(part, exact, rtol=0, atol=1e-11)
    # With a form in v, and without the leaves.
    top = rng.standard_normal((nodes.slots,) * 2)
    top = top + top.T
    order = _stacked(nodes, np.arange(nodes.slots**2).reshape(nodes.slots, -1)).astype(int)
    inner = nodes.groups * nodes.rows
    whole = np.block([[dense[np.ix_(order, order)], right[order]], [right[order].T, top]])
    core = np.r_[:inner, nodes.slots**2 : len(whole)]
    leaves = np.arange(inner, nodes.slots**2)
    left = whole[np.ix_(core, core)] - whole[np.ix_(core, leaves)] @ np.linalg.solve(
        whole[np.ix_(leaves, leaves)], whole[np.ix_(leaves, core)]
    )
    eliminated = Eliminated(matrix, sides, top)
    assert not eliminated.failed
    np.testing.assert_allclose(eliminated.whole, left, rtol=0, atol=1e-11)


def test_what_is_not_positive_definite_fails(layout: UnitLayout) -> None:
    nodes, rng = layout.nodes, np.random.default_rng(3049)
    matrix, sides, dense, _ = _positive(layout, rng)
    least = float(np.linalg.eigvalsh(dense)[0])
    for factor, failed in ((0.999, False), (1.001, True)):
        less = matrix.scaled(1.0)
        less.add_spread(np.stack([-factor * least * np.eye(nodes.one)] * nodes.groups))
        assert PairSystem(less, sides).failed == failed
    for at in range(len(nodes.pairs)):
        spoilt = matrix.scaled(1.0)
        spoilt.leaves[at, 3, 3] = -1e-3
        assert Eliminated(spoilt, sides).failed and PairSystem(spoilt, sides).failed
    spoilt = matrix.scaled(1.0)
    spoilt.core[1, 2, 1, 2] = -1e-3
    assert not Eliminated(spoilt, sides).failed and PairSystem(spoilt, sides).failed


def _tails(layout: UnitLayout, rng: np.random.Generator) -> UnitTails:
    found = UnitTails(layout)
    for x in (found.slopes, found.own, found.apart, found.roots, found.squares):
        x[:] = rng.standard_normal(x.shape)
    return found


def _dense_tails(layout: UnitLayout, tails: UnitTails) -> tuple[Array, Array]:
    """The sums over all indices of the terms' coefficients at (k, a, l, b), with the mean of both orders of (k, a) and (l, b)."""
    size, units = layout.size, layout.units
    found, squares = np.zeros((size,) * 4), np.zeros((size,) * 4)
    everything, places = np.arange(size), np.arange(layout.one)
    for j in range(units):
        own = j * layout.one + places
        found[np.ix_(own, own, own, own)] += tails.own[j].transpose(0, 2, 1, 3)
        found[np.ix_(everything, own, own, own)] += tails.slopes[:, j].transpose(0, 2, 1, 3)
        found[np.ix_(own, everything, own, own)] += tails.roots[:, j].transpose(1, 0, 2, 3)
        for m in range(units):
            other = m * layout.one + places
            found[np.ix_(other, own, other, own)] += tails.apart[m, :, :, j].transpose(0, 2, 1, 3)
            squares[np.ix_(own, own, other, other)] += tails.squares[j, :, :, m]
    return 0.5 * (found + found.transpose(2, 3, 0, 1)), 0.5 * (squares + squares.transpose(2, 3, 0, 1))


def test_tails_are_sums_of_their_terms(layout: UnitLayout) -> None:
    tails = _tails(layout, np.random.default_rng(3061))
    for matrix, exact in zip(tails.matrices(), _dense_tails(layout, tails), strict=True):
        dense = matrix.dense(layout.order).reshape((layout.size,) * 4)
        np.testing.assert_allclose(dense, _in_network(layout, exact), rtol=0, atol=1e-13)
        # Nothing is where slots are not used.
        assert np.isclose(np.abs(_padded(matrix)).sum(), np.abs(dense).sum(), rtol=1e-12)


def test_sizes_of_tails_are_those_of_sums_of_absolute_terms(layout: UnitLayout) -> None:
    tails = _tails(layout, np.random.default_rng(3067))
    for x in (tails.slopes, tails.own, tails.apart, tails.roots, tails.squares):
        np.abs(x, out=x)
    for size, dense in zip(tails.sizes(), _dense_tails(layout, tails), strict=True):
        lengths = np.sqrt(np.einsum("kalb,kalb->ab", dense, dense))
        mean = 0.5 * (size + size.T)[np.ix_(layout.order, layout.order)]
        assert (lengths <= mean * (1.0 + 1e-14)).all() and (mean <= 3.0 * lengths).all()
