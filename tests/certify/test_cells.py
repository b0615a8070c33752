"""Branch and bound with the moment bound: cells of balls, mixed terms with signs, certificates that are computed again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

import pyhess as ph
from pyhess.certify import moment, portfolio, schedule
from pyhess.certify.boxes import cell_subdivision
from pyhess.certify.forms import HiddenSum
from pyhess.certify.intervals import Interval
from pyhess.certify.middles import middles
from pyhess.certify.moment import moment_bound, moment_bounds
from pyhess.certify.parts import without_one
from pyhess.certify.propagate import BallCells, box_cell, box_cells, propagate, whole_cell
from pyhess.certify.signed import signed_blocks


def _problem(seed: int, widths: list[int], activation: str = "tanh") -> ph.Objective:
    rng = np.random.default_rng(seed)
    data = ph.Dataset(rng.standard_normal((6, widths[0])), rng.standard_normal((6, widths[-1])))
    return ph.Objective(ph.MLP(widths, activation, parametrization="ntk"), data)


@pytest.mark.parametrize(
    ("widths", "activation"), [([2, 2, 2, 1], "tanh"), ([1, 3, 2, 2], "gelu"), ([2, 2, 2, 2, 1], "softplus")]
)
def test_a_cell_of_a_ball_is_below_every_hessian_whose_shares_and_offsets_are_in_it(widths: list[int], activation: str) -> None:
    obj = _problem(919, widths, activation)
    rng = np.random.default_rng(929)
    net, size = obj.net, obj.num_params
    outputs, layers = widths[-1], net.num_layers
    for turn in range(25):
        region = ph.Ball(rng.standard_normal(size) * 0.6 * (turn % 2), float(rng.choice([0.05, 0.5, 1.5]))).bind(obj)
        search = cell_subdivision(obj, region)
        offset = rng.standard_normal(size)
        parts = [slice(w.start, w.stop if b is None else b.stop) for w, b in net.layer_slices]
        for part in parts:
            offset[part] *= rng.random() ** 2
        offset *= rng.random() ** 0.1 / np.linalg.norm(offset)
        bias = net.layer_slices[-1][1]
        assert bias is not None
        shares = [float(np.sum(offset[part] ** 2)) for part in parts]
        shares[-1] -= float(np.sum(offset[bias] ** 2))
        point = np.concatenate([offset[bias], shares])
        low = np.maximum(point - rng.random(point.size) * 0.2, [-1.0] * outputs + [0.0] * layers)
        high = np.minimum(point + rng.random(point.size) * 0.2, 1.0)
        if turn % 5 == 0:
            low[:outputs], high[:outputs] = -1.0, 1.0
        lowest = np.linalg.eigvalsh(obj.hessian(region.center + region.radius * offset).to_dense())[0]
        assert search.evaluated(low[None], high[None])[0] <= lowest


def test_signed_blocks_are_above_the_mixed_terms_anywhere_in_the_cell() -> None:
    rng = np.random.default_rng(937)
    for turn in range(12):
        data = ph.Dataset(rng.standard_normal((5, 2)), rng.standard_normal(5))
        obj = ph.Objective(ph.MLP([2, 3, 2, 1], ["tanh", "gelu"], bias=turn % 4 != 0), data)
        net, x, y = obj.net, data.X, obj.targets
        middle = rng.standard_normal(net.num_params) * 0.7
        radius = 0.4 if turn % 3 else 0.004  # where it is small, the bounds are nearly reached
        if turn % 2:
            region: ph.Ball | ph.Box = ph.Ball(middle, radius).bind(obj)
            cell = BallCells(net, region)(np.full(3, radius))
        else:
            region = ph.Box(middle - radius / 2, middle + radius / 2).bind(obj)
            cell = box_cell(net, region)
        bounds = propagate(cell, x, y, "squared_error")
        bound = signed_blocks(cell, bounds, middles(cell, bounds, x), x, data.normalized_weights)
        for theta in region.sample(8, rng=rng):
            exact = _mixed_norms(obj, theta)
            assert (exact <= bound + 1e-12).all(), (turn, exact, bound)


def test_signed_blocks_of_deep_networks_are_above_the_residual_part_where_nothing_is_curved() -> None:
    rng = np.random.default_rng(997)
    for turn in range(8):
        obj = flat_network(rng, turn)
        net, radius = obj.net, 0.3 if turn < 6 else 1e-5
        middle = rng.standard_normal(net.num_params) * 0.7
        ball, box = ph.Ball(middle, radius).bind(obj), ph.Box(middle - radius / 4, middle + radius / 4).bind(obj)
        for region, cell in ((ball, BallCells(net, ball)(np.full(4, radius))), (box, box_cell(net, box))):
            bounds = propagate(cell, obj.data.X, obj.targets, "squared_error")
            bound = signed_blocks(cell, bounds, middles(cell, bounds, obj.data.X), obj.data.X, obj.data.normalized_weights)
            for theta in region.sample(6, rng=rng):
                exact = mixed_blocks(obj, theta)
                assert (exact <= bound + 1e-9).all()
                if turn >= 6:  # one unit a layer, nearly a point: only Frobenius norms of blocks with biases are more
                    assert exact[0, -1] >= 0.99 * bound[0, -1]


def flat_network(rng: np.random.Generator, turn: int) -> ph.Objective:
    """Three hidden layers of ReLU and identity units: the residual part has mixed terms alone."""
    widths = [2, 3, 2, 2, 1] if turn < 6 else [2, 1, 1, 1, 1]
    activations = [["relu", "identity", "relu"], ["identity"] * 3][turn // 2 % 2 if turn < 6 else 1]
    net = ph.MLP(widths, activations, bias=turn % 2 == 0, parametrization=["standard", "ntk"][turn % 3 % 2])
    return ph.Objective(net, ph.Dataset(rng.standard_normal((5, 2)), rng.standard_normal(5)))


def mixed_blocks(obj: ph.Objective, theta: np.ndarray) -> np.ndarray:
    """Norms of the blocks of R between two of the parts: first layer, weights and biases of the next ones, last weights."""
    net = obj.net
    r = obj.hessian(theta).to_dense() - obj.gauss_newton(theta).to_dense()
    scales, places = [], []
    for layer, (weight, bias) in enumerate(net.layer_slices):
        for part in [weight] if bias is None or layer == net.num_layers - 1 else [weight, bias]:
            if layer == 0 and places:
                places[0] = np.r_[places[0], part]
                continue
            places.append(np.r_[part])
            scales.append(net.layer_scales[layer])
    found = np.array([[np.linalg.norm(r[np.ix_(one, other)], 2) for other in places] for one in places])
    return np.asarray(found / np.outer(scales, scales))


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_a_hidden_layers_entries_are_above_their_means_anywhere_in_the_cell(layer: int, bias: bool) -> None:
    rng = np.random.default_rng(977)
    for turn in range(8):
        obj, radius = network_of_one_unit_or_more(rng, turn, bias)
        net, x, weights = obj.net, obj.data.X, obj.data.normalized_weights
        middle, kap = rng.standard_normal(net.num_params) * 0.7, rng.random(7)
        ball, box = ph.Ball(middle, radius).bind(obj), ph.Box(middle - radius / 2, middle + radius / 2).bind(obj)
        for region, cell in ((ball, BallCells(net, ball)(np.full(4, radius))), (box, box_cell(net, box))):
            bounds = propagate(cell, x, obj.targets, "squared_error")
            sizes = without_one(bounds.entering_norm[layer], bias=bias)
            forms = column_of_forms(kap, sizes, 3, 1)
            sums = HiddenSum(layer, 1, 3, 2, bias)
            for half in (slice(0, 4), slice(4, 7)):
                part = propagate(cell, x[half], obj.targets[half], "squared_error")
                sums.add(forms[half], sizes[half], middles(cell, part, x[half]), x[half], weights[half])
            bound = sums.form(np.ones(3))
            for theta in region.sample(8, rng=rng):
                exact = hidden_means(obj, theta, layer, weights * kap, rng)
                assert (exact <= bound[1] * (1.0 + 1e-12)).all()
                if turn < 3:  # one unit on a small region: nothing is lost
                    assert exact[1] >= 0.99 * bound[1, 1]


def test_data_that_reach_no_unit_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moment, "signed_applies", lambda *_: False)  # their residuals count in sums with signs
    rng = np.random.default_rng(1009)
    x, y = rng.standard_normal((6, 2)), rng.standard_normal(6)
    net = ph.MLP([2, 3, 2, 1], "relu", bias=False)
    go_on = np.zeros(1, dtype=np.int32)
    region = ph.Ball(radius=1.0)
    found = []
    for count in (6, 8):  # the last two are zero inputs
        data = ph.Dataset(np.concatenate([x, np.zeros((2, 2))])[:count], np.concatenate([y, [0.3, -0.2]])[:count])
        obj = ph.Objective(net, data)
        bound = moment_bound(whole_cell(net, region.bind(obj)), obj.data, obj.targets, obj.loss, go_on)
        assert bound is not None
        found.append(count * bound)
    assert found[1] == pytest.approx(found[0], rel=1e-10)


def network_of_one_unit_or_more(rng: np.random.Generator, turn: int, bias: bool) -> tuple[ph.Objective, float]:
    """A network of three hidden layers on seven data with weights, and the radius of a region."""
    name, scaling = ["tanh", "gelu", "softplus"][turn % 3], ["standard", "ntk"][turn % 2]
    units = [1, 1] if turn < 3 else [3, 2]
    net = ph.MLP([2, *units, 2, 1], name, bias=bias, parametrization=scaling)
    data = ph.Dataset(rng.standard_normal((7, 2)) * 1.5, rng.standard_normal(7), rng.dirichlet(np.ones(7)))
    return ph.Objective(net, data), 1e-4 if turn < 3 else 0.5


def column_of_forms(kap: np.ndarray, sizes: np.ndarray, count: int, column: int) -> np.ndarray:
    """Forms with kap_i |a_i| |V¹ (x_i, 1)|, kap_i |a_i|² and kap_i |a_i| in a column; the last of them in place ``count`` - 1."""
    forms = np.zeros((kap.size, count, count))
    for place in (0, count - 1):
        forms[:, place, column] = forms[:, column, place] = kap * sizes
    forms[:, column, column] = kap * sizes**2
    return forms


def hidden_means(obj: ph.Objective, theta: np.ndarray, layer: int, kap: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """sum_i kap_i |V a_i| |U (x_i, 1)|, sum_i kap_i |V a_i|² and sum_i kap_i |V a_i| for unit U, V that make them large."""
    net, x = obj.net, obj.data.X
    a = x
    for below in range(layer):
        weight, bias = net.layer_slices[below]
        w = theta[weight].reshape(net.widths[below + 1], -1)
        s = net.layer_scales[below] * (a @ w.T + (theta[bias] if bias is not None else 0.0))
        a = {"tanh": np.tanh, "softplus": lambda z: np.logaddexp(0.0, z)}.get(net.activations[0], lambda z: z * ndtr(z))(s)
    inputs = np.concatenate([x, np.ones((len(x), 1))], axis=1) if net.bias else x
    values, vectors = np.linalg.eigh((a * kap[:, None]).T @ a)
    tried = [vectors[:, -1:].T, *(v / np.linalg.norm(v) for v in rng.standard_normal((4, 2, a.shape[1])))]
    found = np.array([0.0, values[-1], 0.0])
    for v in tried:
        z = kap * np.linalg.norm(a @ v.T, axis=1)
        u = np.linalg.eigh((inputs * z[:, None]).T @ inputs)[1][:, -1]
        found = np.maximum(found, [z @ np.abs(inputs @ u), 0.0, z.sum()])
    return found


def test_cells_of_a_stack_have_the_bounds_that_each_has() -> None:
    go_on = np.zeros(1, dtype=np.int32)
    rng = np.random.default_rng(983)
    for widths, activation in (([2, 3, 2, 1], "tanh"), ([1, 2, 2, 2, 2], "relu"), ([2, 2, 2, 1], "sigmoid")):
        obj = _problem(991, widths, activation)
        net, layers = obj.net, len(widths) - 1
        middle = rng.standard_normal(obj.num_params) * 0.4
        radii, biases = rng.random((5, layers)), rng.standard_normal((5, widths[-1]))
        radii[3] = 1e-9
        radii[4] = 1e150  # one cell whose numbers overflow
        make = BallCells(net, ph.Ball(middle, 1.0).bind(obj))
        ends = Interval(biases, biases + rng.random(biases.shape))
        low = middle - rng.random((5, obj.num_params))
        high = low + rng.random((5, 1))
        stacks = [make(radii), make(radii, ends), box_cells(net, low, high)]
        for kind, stack in enumerate(stacks):
            with np.errstate(all="ignore"):
                together = moment_bounds(stack, obj.data, obj.targets, obj.loss, go_on)
                for at in range(5):
                    one = [make(radii[at]), make(radii[at], ends[at]), box_cells(net, low[at], high[at])][kind]
                    alone = moment_bound(one, obj.data, obj.targets, obj.loss, go_on)
                    assert together is not None and alone == pytest.approx(together[at], rel=1e-13)
            assert np.isfinite(together[:3]).all()


def _mixed_norms(obj: ph.Objective, theta: np.ndarray) -> np.ndarray:
    """Norms of the blocks of sum_i w_i r_i 2 (V³ adot² + v phi'(s²) V² adot¹) between two layers, the second's biases apart."""
    net, x = obj.net, obj.data.X
    parameters = []
    for (weight, bias), fan_out in zip(net.layer_slices, net.widths[1:], strict=True):
        w = theta[weight].reshape(fan_out, -1)
        parameters.append((w, np.zeros(fan_out) if bias is None else theta[bias]))
    (w1, b1), (w2, b2), (w3, b3) = parameters
    s1 = x @ w1.T + b1
    a1, slope1 = np.tanh(s1), 1.0 - np.tanh(s1) ** 2
    s2 = a1 @ w2.T + b2
    from scipy.stats import norm

    a2, slope2 = s2 * norm.cdf(s2), norm.cdf(s2) + s2 * norm.pdf(s2)
    r = (a2 @ w3.T + b3 - obj.targets)[:, 0] * obj.data.normalized_weights
    one = np.ones((len(x), 1)) if net.bias else np.zeros((len(x), 0))
    inputs = np.concatenate([x, one], axis=1)
    u = np.einsum("i,ij,ik,ip->jkp", r, slope2, slope1, inputs)
    first_second = np.zeros((2, 3, 3, inputs.shape[1]))
    for k in range(3):
        first_second[:, k, k] = w3[0][:, None] * u[:, k]
    last = 2 + net.bias
    found = np.zeros((last + 1, last + 1))
    found[0, 1] = found[1, 0] = np.linalg.norm(first_second.reshape(6, -1), 2)
    found[0, last] = found[last, 0] = np.linalg.norm((w2[:, :, None] * u).reshape(2, -1), 2)
    for place, factor in enumerate([a1, one][: last - 1], 1):
        second_third = np.zeros((2, 2, factor.shape[1]))
        second_third[[0, 1], [0, 1]] = np.einsum("i,ij,iq->jq", r, slope2, factor)
        found[place, last] = found[last, place] = np.linalg.norm(second_third.reshape(2, -1), 2)
    return found


@pytest.mark.parametrize("region", [ph.Ball(radius=1.0), ph.Box(-0.7, 0.7)])
def test_cells_improve_on_the_root_and_are_computed_again(region: ph.Ball | ph.Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_WORK", 4e7)
    monkeypatch.setattr(portfolio, "_MAX_CELLS", 1)
    obj = _problem(941, [1, 2, 1, 1])
    root = ph.certify(obj, region, "moment").psi_lower
    certificate = ph.certify(obj, region, "cells")
    assert certificate.method == "cells"
    assert certificate.psi_lower > 0.98 * root
    assert certificate.verify()
    found = ph.search(obj, region, rng=947, starts=2, time_limit=1.0)
    assert certificate.psi_lower <= np.linalg.eigvalsh(obj.hessian(found.theta).to_dense())[0]


def test_offsets_outside_the_ball_are_left_out() -> None:
    obj = _problem(953, [2, 2, 2, 1])
    search = cell_subdivision(obj, ph.Ball(radius=1.0).bind(obj))
    low, high = np.array([0.9, 0.0, 0.3, 0.0]), np.array([1.0, 0.1, 0.4, 0.1])
    assert search.evaluated(low[None], high[None])[0] == np.inf


def test_a_ball_shares_its_radius_among_the_units_of_a_layer() -> None:
    """Pre-activations of the second layer: all its inputs cannot be off by the whole radius."""
    obj = _problem(967, [2, 8, 3, 1])
    region = ph.Ball(np.random.default_rng(971).standard_normal(obj.num_params), 0.3).bind(obj)
    cell = BallCells(obj.net, region)(np.array([0.3, 0.0, 0.0]))
    bounds = propagate(cell, obj.data.X, obj.targets, "squared_error")
    entering = bounds.entering[1]
    weight = cell.blocks[1].weight.magnitude
    by_intervals = entering.radius @ weight.T
    assert (bounds.s[1].radius < 0.7 * by_intervals).all()
    assert isinstance(entering, Interval)
