"""Third-order polynomials of one hidden layer, unit by unit, against dense ones and against Hessians."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

import pyhess as ph
from pyhess._threads import blas_single_thread
from pyhess.certify.taylor import taylor_bound
from pyhess.certify.taylor_cubic import DenseCubic
from pyhess.certify.taylor_hessian import Expansion, Quadratic, taylor_hessian
from pyhess.certify.taylor_one_layer import has_unit_polynomials, unit_hessian
from pyhess.certify.taylor_rests import Rests, combined
from pyhess.certify.taylor_room import Room
from pyhess.certify.taylor_unit_forms import UnitForms, UnitLayout

GO_ON = np.zeros(1, dtype=np.int32)
Array = np.ndarray
CASES = [
    ([2, 3, 1], "tanh", True, "standard"),
    ([2, 3, 1], "sigmoid", False, "ntk"),
    ([3, 2, 2], "softplus", True, "ntk"),
    ([2, 2, 3], "gelu", False, "standard"),
    ([1, 4, 1], "gelu", True, "ntk"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with blas_single_thread():
        yield


def _problem(
    widths: list[int], name: str, bias: bool, parametrization: str, seed: int = 1409
) -> tuple[ph.Objective, Array, Array]:
    rng = np.random.default_rng(seed)
    net = ph.MLP(widths, name, beta=1.3, bias=bias, parametrization=parametrization)
    data = ph.Dataset(rng.standard_normal((6, widths[0])), rng.standard_normal((6, widths[-1])), rng.uniform(0.3, 2.0, 6))
    return ph.Objective(net, data), rng.standard_normal(net.num_params), (np.arange(6) != 2).astype(float)


def _expansions(obj: ph.Objective, centre: Array, radius: float, kept: Array) -> tuple[Expansion, Expansion]:
    room = Room(radius)
    ours = unit_hessian(obj.net, centre, room, obj.data, obj.targets, kept, GO_ON)
    dense = taylor_hessian(obj.net, centre, room, obj.data, obj.targets, obj.loss, 3, GO_ON, kept=kept)
    assert ours is not None and dense is not None
    return ours.dense(), dense


def _mean(tail: Array) -> Array:
    size = len(tail)
    matrix = tail.reshape(size * size, -1)
    return 0.5 * (matrix + matrix.T)


def _taken(obj: ph.Objective, lowered: Array) -> Array:
    """What ``lowered`` takes off the head."""
    net = obj.net
    (weight, bias), _ = net.layer_slices
    found = np.zeros((net.num_params, net.num_params))
    entering = net.layer_scales[0] * (
        obj.data.X if bias is None else np.concatenate([obj.data.X, np.ones((len(obj.data.X), 1))], 1)
    )
    for j in range(net.widths[1]):
        own = np.arange(weight.start, weight.stop).reshape(net.widths[1], -1)[j]
        own = own if bias is None else np.append(own, bias.start + j)
        found[np.ix_(own, own)] += (entering * lowered[:, j, None]).T @ entering
    return found


def _groups(net: ph.MLP) -> Array:
    """The hidden unit of every parameter; output biases have a group of their own."""
    (weight, bias), (second, _) = net.layer_slices
    inputs, units, outputs = net.widths
    found = np.full(net.num_params, units)
    found[weight] = np.repeat(np.arange(units), inputs)
    if bias is not None:
        found[bias] = np.arange(units)
    found[second] = np.tile(np.arange(units), outputs)
    return found


def _arranged(net: ph.MLP, dense: Expansion) -> Array:
    """M M' for T averaged over all orders, but for terms whose k alone is not where all else is: as l or m in its place."""
    assert isinstance(dense.cubic, DenseCubic)
    size, of = net.num_params, _groups(net)
    whole = np.empty((size,) * 5)  # at (k, a, b, l, m)
    low, high = np.triu_indices(size)
    columns = dense.cubic.matrix.reshape(size, size, size, -1) / np.where(low == high, 1.0, np.sqrt(2.0))
    whole[..., low, high] = whole[..., high, low] = columns
    whole = whole.transpose(0, 3, 4, 1, 2)  # (k, l, m, a, b)
    again = whole.copy()
    for k, l, m, a in product(range(size), repeat=4):  # noqa: E741 - as in the formulas
        at_home = [of[x] == of[a] for x in (k, l, m)]
        if sum(at_home) == 2:
            again[k, l, m, a, of == of[a]] *= 1.5 if at_home[0] else 0.0
    for delta, v in np.random.default_rng(1447).standard_normal((3, 2, size)):
        sums = [np.einsum("klmab,k,l,m,a,b->", x, delta, delta, delta, v, v, optimize=True) for x in (whole, again)]
        assert abs(sums[0] - sums[1]) < 1e-12 * np.abs(whole).sum()
    matrix = again.transpose(0, 3, 1, 2, 4).reshape(size**2, -1)
    return np.asarray(matrix @ matrix.T)


@pytest.mark.parametrize("case", [*CASES, ([2, 1, 1], "softplus", True, "standard"), ([2, 3, 2], "tanh", True, "standard")])
def test_all_terms_are_those_of_dense_derivatives(case: tuple[list[int], str, bool, str]) -> None:
    obj, centre, kept = _problem(*case)
    ours, dense = _expansions(obj, centre, 0.3, kept)
    for one, other, lowered in ((ours.residual, dense.residual, True), (ours.squares, dense.squares, False)):
        heads = [0.5 * (x.head + x.head.T) for x in (one, other)]
        if lowered:
            heads = [head + _taken(obj, x.lowered) for head, x in zip(heads, (ours, dense), strict=True)]
        scale = np.abs(heads[1]).max()
        np.testing.assert_allclose(*heads, rtol=0, atol=1e-13 * scale)
        np.testing.assert_allclose(one.half, other.half, rtol=0, atol=1e-13 * np.abs(other.half).max())
        np.testing.assert_allclose(_mean(one.tail), _mean(other.tail), rtol=0, atol=1e-13 * np.abs(other.tail).max())
    assert ours.cubic is not None and dense.cubic is not None
    square = _arranged(obj.net, dense)
    np.testing.assert_allclose(ours.cubic.square(), square, rtol=0, atol=1e-13 * np.abs(square).max())
    # Of many units less is left out, but for outputs whose sums may cancel.
    assert (ours.lowered > 0.0).all()
    if obj.net.widths[-1] == 1 < obj.net.widths[1]:
        assert (ours.lowered < dense.lowered).all() and (ours.left_out <= 1.0001 * dense.left_out).all()


def _value(q: Quadratic, delta: Array, v: Array) -> tuple[float, float]:
    first = 2.0 * np.einsum("k,a,kab,b->", delta, v, q.half, v)
    return float(v @ q.head @ v + first), float(np.einsum("k,a,kalb,l,b->", delta, v, q.tail, delta, v, optimize=True))


def _lower(ours: Expansion, dense: Expansion, delta: Array, v: Array, share: float, weights: Array) -> tuple[float, float]:
    """What is proved about v'Hv, and without what is left out; the cubic terms are those of the dense derivatives."""
    assert isinstance(dense.cubic, DenseCubic) and ours.units is not None
    low, high = np.triu_indices(delta.size)
    pairs = delta[low] * delta[high] * np.where(low == high, 1.0, np.sqrt(2.0))
    third = float(np.outer(delta, v).ravel() @ dense.cubic.matrix @ np.outer(v, pairs).ravel())
    residual, squares = (sum(_value(part, delta, v)) for part in (ours.residual, ours.squares))
    parts = [Rests(part.rest, units, ours.places) for part, units in zip((ours.residual, ours.squares), ours.units, strict=True)]
    rest = combined(*parts, share)
    found = residual + (1.0 - share) * squares + third
    return found - float(v @ rest.matrix(weights) @ v) - rest.rounding(weights), found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("radius", [1e-6, 0.05, 0.6, 3.0])
def test_no_hessian_is_below(case: tuple[list[int], str, bool, str], radius: float) -> None:
    obj, centre, _ = _problem(*case)
    ours, dense = _expansions(obj, centre, radius, np.ones(6))
    rng = np.random.default_rng(1423)
    size, scale = obj.num_params, np.linalg.norm(obj.hessian(centre).to_dense(), 2)
    for turn in range(60):
        direction = rng.standard_normal(size)
        if turn % 3 == 0:  # all in few parameters, where what is left out is largest
            direction[rng.random(size) < 0.7] *= 0.01
        delta = radius * direction / np.linalg.norm(direction)
        hessian = obj.hessian(centre + delta).to_dense()
        v = np.linalg.eigh(hessian)[1][:, 0] if turn % 2 else rng.standard_normal(size)
        v /= np.linalg.norm(v)
        exact = float(v @ hessian @ v)
        for share in (0.01, 0.3, 1.0):
            weights = np.exp(rng.standard_normal(size))
            below, _ = _lower(ours, dense, delta, v, share, weights)
            assert below <= exact + 1e-12 * scale, (turn, share, below, exact)


@pytest.mark.parametrize("case", CASES)
def test_what_is_left_out_is_of_the_fourth_order(case: tuple[list[int], str, bool, str]) -> None:
    obj, centre, _ = _problem(*case)
    sums = []
    for radius in (2e-2, 1e-2):
        ours, _ = _expansions(obj, centre, radius, np.ones(6))
        assert ours.units is not None
        residual, squares = ours.units
        sums.append(
            [ours.lowered.sum(), residual.entering.sum(), residual.leaving.sum(), squares.entering.sum(), ours.left_out.sum()]
        )
    ratios = np.array(sums[0]) / np.array(sums[1])
    # The squares have those of the third order.
    np.testing.assert_allclose(ratios, [16.0, 16.0, 16.0, 64.0, 64.0], rtol=0.12)


def test_products_leave_out_no_less_than_they_may() -> None:
    # One datum, two units: r Q beyond the third order, where delta is shared out in any way.
    obj, centre, _ = _problem([1, 2, 1], "tanh", False, "standard", 1427)
    one = ph.Objective(obj.net, ph.Dataset(obj.data.X[:1], obj.data.y[:1]))
    layout = UnitLayout(one.net)
    radius = 0.5
    local = UnitForms(one.net, layout, centre, radius, one.data.X, one.targets)
    taken = local.r.times(local.q)[0]
    x, (v, f, h) = local.x[0, 0], (local.v[0], [c[0] for c in local.f.of], [c[0] for c in local.h.of])
    largest = np.zeros(2)
    angles = np.linspace(0.0, np.pi, 13)
    for a, b, c in product(angles, angles, np.linspace(0.0, 2.0 * np.pi, 25)):
        w = np.cos(a), np.sin(a) * np.cos(b)
        delta = radius * np.array([w[0], w[1], np.sin(a) * np.sin(b) * np.cos(c), np.sin(a) * np.sin(b) * np.sin(c)])
        t, moved = x * delta[:2], delta[2:]
        orders = [v * f[1] * t + moved * f[0], v * f[2] * t**2 + moved * f[1] * t, v * f[3] * t**3 + moved * f[2] * t**2]
        r1, r2, r3 = (order.sum() for order in orders)
        q1, q2, q3 = v * h[1] * t + moved * h[0], v * h[2] * t**2 + moved * h[1] * t, v * h[3] * t**3 + moved * h[2] * t**2
        largest = np.maximum(largest, np.abs(r1 * q3 + r2 * (q2 + q3) + r3 * (q1 + q2 + q3)))
    assert (largest <= taken).all() and (taken[:1] < 5.0 * largest[:1]).all(), (largest, taken)


def test_squares_of_different_units_share_the_radius() -> None:
    rng = np.random.default_rng(1429)
    # sum_j s_j³ |x_j| for sum s_j² = 1 is at most the largest |x_j|.
    x = np.abs(rng.standard_normal((2000, 4)))
    s = rng.standard_normal((2000, 4))
    s = np.abs(s) / np.linalg.norm(s, axis=1, keepdims=True)
    assert ((s**3 * x).sum(axis=1) <= x.max(axis=1)).all()
    assert ((s**3 * x).sum(axis=1) ** 2 <= (x**2).sum(axis=1)).all()


@pytest.mark.parametrize("case", CASES)
def test_the_bound_is_below_every_hessian_of_the_ball(case: tuple[list[int], str, bool, str]) -> None:
    obj, centre, _ = _problem(*case)
    rng = np.random.default_rng(1433)
    for radius in (1e-8, 1e-3, 0.1):
        region = ph.Ball(centre, radius).bind(obj)
        found = taylor_bound(obj, region, -np.inf, GO_ON)
        assert found is not None and found.multipliers is not None and found.multipliers.by_units
        lowest = ph.search(obj, region, rng=1439, starts=4).psi_upper
        for _ in range(20):
            direction = rng.standard_normal(obj.num_params)
            theta = centre + radius * direction / np.linalg.norm(direction)
            lowest = min(lowest, float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]))
        scale = np.linalg.norm(obj.hessian(centre).to_dense(), 2)
        assert found.psi_lower <= lowest + 1e-12 * scale
        if radius < 1e-2:
            assert found.psi_lower >= lowest - 0.005 * abs(lowest) - 1e-3 * radius * scale


def test_whom_they_are_for() -> None:
    assert has_unit_polynomials(ph.MLP([2, 3, 1]), "squared_error")
    assert not has_unit_polynomials(ph.MLP([2, 3, 1]), "logistic")
    assert not has_unit_polynomials(ph.MLP([2, 3, 3, 1]), "squared_error")
    assert not has_unit_polynomials(ph.MLP([12, 3, 1]), "squared_error")  # tensors of two units are too large
    obj, centre, kept = _problem(*CASES[0])
    stopped = np.ones(1, dtype=np.int32)
    assert unit_hessian(obj.net, centre, Room(0.1), obj.data, obj.targets, kept, stopped) is None


def test_many_data_are_added_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    obj, centre, kept = _problem(*CASES[2])
    whole, _ = _expansions(obj, centre, 0.2, kept)
    monkeypatch.setattr("pyhess.certify.taylor_one_layer._BLOCK_NUMBERS", 2 * 2 * 6**4 * 2)  # two data
    parts, _ = _expansions(obj, centre, 0.2, kept)
    assert parts.lowered.shape == (6, 2)
    np.testing.assert_allclose(parts.lowered, whole.lowered, rtol=1e-12)
    np.testing.assert_allclose(parts.residual.tail, whole.residual.tail, rtol=0, atol=1e-14)
    assert parts.cubic is not None and whole.cubic is not None
    np.testing.assert_allclose(parts.cubic.square(), whole.cubic.square(), rtol=0, atol=1e-14)
