"""ReLU kinks: concave ones are found, verified and measurable; convex or absent ones are not claimed."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.errors import InputError
from pyhess.threshold.kink_calculus import near_kinks, one_sided_slopes, unit_gradient
from pyhess.threshold.kink_search import find_kink
from pyhess.threshold.kinks import KinkWitness


def scalar_net(x: Any, y: Any, hidden: int = 1, **net: Any) -> ph.Objective:
    x = np.asarray(x, dtype=float).reshape(-1, 1)
    widths = [1] * (hidden + 1) + [1]
    return ph.Objective(ph.MLP(widths, "relu", bias=False, **net), ph.Dataset(x, np.asarray(y, dtype=float)))


def look(obj: ph.Objective, region: Any, seed: int = 7, **options: Any) -> KinkWitness | None:
    return find_kink(obj, region.bind(obj), rng=np.random.default_rng(seed), **options)


def quotient(obj: ph.Objective, kink: KinkWitness, h: float) -> float:
    values = [obj.value(kink.theta + k * h * kink.v) for k in (-1.0, 0.0, 1.0)]
    return (values[0] + values[2] - 2.0 * values[1]) / h


@pytest.mark.parametrize("region", [ph.Box(-1.0, 1.0), ph.Ball(0.0, 1.0), ph.Box([-0.1, 0.5], [0.1, 1.0])])
def test_half_squared_residual_of_one_relu(region: Any) -> None:
    # f = (v relu(w) - 1)²/2: at w = 0 the slope jumps by -v, whatever the penalty.
    obj = scalar_net([1.0], [1.0])
    kink = look(obj, region)
    assert kink is not None
    assert (kink.datum, kink.layer, kink.unit) == ((0,), 0, 0)
    assert kink.theta[0] == pytest.approx(0.0, abs=1e-15)
    assert kink.jump == pytest.approx(-kink.theta[1], rel=1e-12)
    assert kink.theta[1] > 0.9
    assert kink.verify(obj, region)


def test_a_convex_kink_is_not_claimed() -> None:
    # With v < 0 the residual and the weight have the same sign: the kink at w = 0 bends upwards.
    assert look(scalar_net([1.0], [1.0]), ph.Box([-0.1, -1.0], [0.1, -0.5])) is None


def test_a_kink_outside_the_interior_is_not_claimed() -> None:
    # w = 0 is a face of the box, so no segment of the box crosses the kink.
    assert look(scalar_net([1.0], [1.0]), ph.Box([0.0, 0.5], [1.0, 1.0])) is None
    assert look(scalar_net([1.0], [1.0]), ph.Box([-1e-9, 0.5], [1.0, 1.0])) is not None


def test_data_sharing_the_kink_surface_are_summed() -> None:
    # Duplicates with opposite targets cancel: the loss is v² relu(w)²/2 + 1/2 and has no kink at all.
    assert look(scalar_net([1.0, 1.0], [1.0, -1.0]), ph.Box(-1.0, 1.0)) is None
    # Without biases all scalar inputs vanish together at w = 0; slopes v |x_i| y_i add up, over four data.
    obj = scalar_net([1.0, 1.0, -2.0, 0.0], [1.0, 0.5, 2.0, 9.0])
    kink = look(obj, ph.Box(-1.0, 1.0))
    assert kink is not None
    assert kink.datum == (0, 1, 2)
    assert kink.jump == pytest.approx(-kink.theta[1] * (1.0 + 0.5 + 2.0 * 2.0) / 4.0, rel=1e-12)
    assert kink.verify(obj, ph.Box(-1.0, 1.0))


def test_weights_of_the_data_count() -> None:
    data = ph.Dataset(np.array([[1.0], [1.0]]), np.array([1.0, -1.0]), weights=np.array([3.0, 1.0]))
    obj = ph.Objective(ph.MLP([1, 1, 1], "relu", bias=False), data)
    kink = look(obj, ph.Box(-1.0, 1.0))
    assert kink is not None
    assert kink.jump == pytest.approx(-kink.theta[1] * (3.0 - 1.0) / 4.0, rel=1e-12)
    only_zero_weight = ph.Dataset(np.array([[1.0], [0.0]]), np.array([1.0, 1.0]), weights=np.array([0.0, 1.0]))
    obj = ph.Objective(ph.MLP([1, 1, 1], "relu", bias=False), only_zero_weight)
    assert look(obj, ph.Box(-1.0, 1.0)) is None


def test_dead_inputs_are_no_kinks() -> None:
    # x = 0 without biases: every pre-activation is zero everywhere, and the loss does not depend on theta.
    data = ph.Dataset(np.zeros((3, 2)), np.array([1.0, 2.0, 3.0]))
    obj = ph.Objective(ph.MLP([2, 4, 1], "relu", bias=False), data)
    assert look(obj, ph.Box(-1.0, 1.0)) is None


def test_zeros_that_cascade_through_layers() -> None:
    # relu(w2 relu(w1)) with w2 > 0: the kink of the first layer drags the second one along.
    obj = scalar_net([1.0], [1.0], hidden=2)
    kink = look(obj, ph.Box([-0.1, 0.4, 0.4], [0.1, 0.9, 0.9]))
    assert kink is not None
    assert kink.layer == 0
    assert kink.jump == pytest.approx(-kink.theta[1] * kink.theta[2], rel=1e-12)
    assert kink.verify(obj, ph.Box([-0.1, 0.4, 0.4], [0.1, 0.9, 0.9]))


CASES = [
    ([3, 4, 2], "relu", "squared_error", True, "standard"),
    ([3, 4, 2], "relu", "squared_error", False, "ntk"),
    ([3, 5, 4, 3], "relu", "cross_entropy", True, "standard"),
    ([3, 5, 4, 3], "relu", "cross_entropy", False, "standard"),
    ([3, 4, 4, 4, 1], "relu", "logistic", True, "ntk"),
    ([3, 4, 4, 2], ["tanh", "relu"], "squared_error", True, "standard"),
    ([3, 4, 4, 2], ["relu", "gelu"], "squared_error", False, "standard"),
]


@pytest.mark.parametrize("where", ["box", "ball", "local"])
@pytest.mark.parametrize(("widths", "activation", "loss", "bias", "parametrization"), CASES)
def test_random_networks(
    problem: Any, widths: list[int], activation: Any, loss: str, bias: bool, parametrization: str, where: str
) -> None:
    obj = problem(widths, activation, loss, samples=20, weighted=True, bias=bias, parametrization=parametrization)
    centre = np.random.default_rng(3).standard_normal(obj.num_params)
    region = {"box": ph.Box(-0.5, 0.5), "ball": ph.Ball(0.0, 1.0), "local": ph.Box.around(centre, 0.05)}[where]
    kink = look(obj, region)
    assert kink is not None
    assert obj.net.activations[kink.layer] == "relu"
    assert region.bind(obj).interior_contains(kink.theta)
    assert kink.verify(obj, region)
    assert kink.jump < 0.0 and kink.beta < 0.0
    # The compiled core's values: D(h) = jump + c h, with c as large as the curvature of the smooth part.
    h = 1e-5 if where != "local" else 1e-6
    extrapolated = 2.0 * quotient(obj, kink, h / 2.0) - quotient(obj, kink, h)
    near = min(1.0, abs(kink.jump)) * 0.2
    assert extrapolated == pytest.approx(kink.jump, abs=near) or not _clear(obj, kink, h)


def _clear(obj: ph.Objective, kink: KinkWitness, h: float) -> bool:
    """Whether no other gate switches within h, seen from the activation patterns at both ends."""
    from pyhess.threshold.kink_calculus import gate_distance

    return gate_distance(obj, kink.theta, kink.v, near_kinks(obj, kink.theta)) > 3.0 * h


def test_jump_against_one_sided_differences(problem: Any) -> None:
    obj = problem([3, 5, 4, 2], "relu", "cross_entropy", samples=12)
    kink = look(obj, ph.Box(-0.7, 0.7))
    assert kink is not None
    data = np.arange(12)
    kinks = near_kinks(obj, kink.theta)
    for sign in (1.0, -1.0):
        slopes = one_sided_slopes(obj, kink.theta, sign * kink.v, data, kinks)
        h = 1e-7
        measured = (obj.value(kink.theta + sign * h * kink.v) - obj.value(kink.theta)) / h
        assert float(slopes.mean()) == pytest.approx(measured, abs=1e-5)


def test_unit_gradient_against_differences(problem: Any) -> None:
    from pyhess.threshold.kink_calculus import trace

    obj = problem([3, 5, 4, 2], ["tanh", "softplus"], "squared_error", parametrization="ntk")
    rng = np.random.default_rng(6)
    theta, v = rng.standard_normal((2, obj.num_params))
    for layer, unit in ((0, 3), (1, 2), (2, 1)):
        slope = unit_gradient(obj, theta, 4, layer, unit) @ v
        s = [trace(obj, theta + h * v, np.array([4])).s[layer][0, unit] for h in (-1e-5, 1e-5)]
        assert slope == pytest.approx((s[1] - s[0]) / 2e-5, rel=1e-8)


def test_a_box_without_kinks(problem: Any) -> None:
    obj = problem([2, 5, 4, 1], "relu", "squared_error", samples=8)
    theta = np.random.default_rng(11).standard_normal(obj.num_params)
    assert look(obj, ph.Box.around(theta, 1e-5)) is None


def test_smooth_networks_have_no_kinks(problem: Any) -> None:
    obj = problem([3, 4, 2], "softplus", "squared_error", beta=50.0)
    assert look(obj, ph.Box(-1.0, 1.0)) is None
    assert near_kinks(obj, np.zeros(obj.num_params)) == []


def test_sharp_softplus_approaches_the_jump(problem: Any) -> None:
    # psi of softplus(beta) at the kink behaves like -beta |jump| |sdot| / 4 / |v|² along the kink direction.
    obj = problem([3, 4, 2], "relu", "squared_error")
    kink = look(obj, ph.Box(-0.7, 0.7))
    assert kink is not None
    rate = abs(float(unit_gradient(obj, kink.theta, kink.datum[0], kink.layer, kink.unit) @ kink.v))
    q = []
    for beta in (1e5, 2e5):
        smooth = ph.Objective(ph.MLP([3, 4, 2], "softplus", beta=beta), obj.data)
        q.append(smooth.curvature(kink.theta, kink.v).q)
    assert (q[1] - q[0]) / 1e5 == pytest.approx(kink.jump * rate / 4.0, rel=0.02)


def test_scales_and_segments() -> None:
    obj, region = scalar_net([1.0], [1.0]), ph.Box(-1.0, 1.0)
    kink = look(obj, region)
    assert kink is not None
    for h in (1e-2, 1e-4):
        lam = kink.lambda_at_scale(h)
        assert lam == abs(kink.jump) / (2.0 * h)
        penalised = [
            obj.value(kink.theta + k * h * kink.v) + lam * float(np.sum((kink.theta + k * h * kink.v) ** 2))
            for k in (-1.0, 0.0, 1.0)
        ]
        # At this strength the midpoint test at scale h is decided by the curvature of the smooth part alone.
        assert penalised[0] + penalised[2] - 2.0 * penalised[1] == pytest.approx(0.0, abs=h * h)
    for lam in (0.0, 10.0, 1e5):
        first, second, t, violation = segment = kink.segment(obj, region, lam)
        assert violation > segment.rounding_error
        f = [obj.value(p) + lam * float(p @ p) for p in (first, t * first + (1 - t) * second, second)]
        assert f[1] - t * f[0] - (1 - t) * f[2] == pytest.approx(violation, rel=1e-3)
    for h in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match=r"h is .*; allowed are finite numbers > 0"):
            kink.lambda_at_scale(h)
    with pytest.raises(InputError, match=r"lam is -1.0; a penalty strength must be finite and >= 0"):
        kink.segment(obj, region, -1.0)


def test_forged_kinks_fail_verification() -> None:
    obj, region = scalar_net([1.0], [1.0]), ph.Box(-1.0, 1.0)
    kink = look(obj, region)
    assert kink is not None and kink.verify(obj, region)
    off = kink.theta + np.array([1e-6, 0.0])
    assert not dataclasses.replace(kink, theta=off).verify(obj, region)
    assert not dataclasses.replace(kink, jump=1.5 * kink.jump).verify(obj, region)
    assert not dataclasses.replace(kink, jump=-kink.jump).verify(obj, region)
    assert not dataclasses.replace(kink, v=np.array([0.0, 1.0])).verify(obj, region)
    assert not dataclasses.replace(kink, v=2.0 * kink.v).verify(obj, region)
    assert not dataclasses.replace(kink, datum=(0, 1)).verify(obj, region)
    assert not kink.verify(obj, ph.Box([0.0, -1.0], [1.0, 1.0]))


def test_coinciding_kinks_are_not_claimed(problem: Any) -> None:
    # At theta = 0 every unit is on its kink for every datum: verification must refuse such a point.
    obj = problem([3, 4, 2], "relu", "squared_error")
    v = np.zeros(obj.num_params)
    v[12] = 1.0
    forged = KinkWitness(np.zeros(obj.num_params), tuple(range(9)), 0, 0, v, -0.1, -0.1)
    assert not forged.verify(obj, ph.Box(-1.0, 1.0))


def test_effort_is_bounded_and_cancellable(problem: Any) -> None:
    obj = problem([3, 4, 2], "relu", "squared_error")
    cancelled = np.ones(1, dtype=np.int32)
    assert look(obj, ph.Box(-1.0, 1.0), cancel=cancelled) is None
    assert look(obj, ph.Box(-1.0, 1.0), deadline=-math.inf) is None


def test_given_starts_are_used_first(problem: Any) -> None:
    obj = problem([3, 6, 2], "relu", "squared_error")
    starts = [np.random.default_rng(2).uniform(-1, 1, obj.num_params)]
    with_start = look(obj, ph.Box(-1.0, 1.0), starts=starts)
    without = look(obj, ph.Box(-1.0, 1.0))
    assert with_start is not None and without is not None
    assert with_start.verify(obj, ph.Box(-1.0, 1.0))
    assert not np.array_equal(with_start.theta, without.theta)


def test_same_seed_same_kink(problem: Any) -> None:
    obj = problem([3, 5, 4, 2], "relu", "squared_error")
    one, two = (look(obj, ph.Ball(0.0, 2.0), seed=13) for _ in range(2))
    assert one is not None and two is not None
    assert np.array_equal(one.theta, two.theta) and one.jump == two.jump


def test_dictionary_is_json() -> None:
    kink = look(scalar_net([1.0], [1.0]), ph.Box(-1.0, 1.0))
    assert kink is not None
    content = json.loads(json.dumps(kink.to_dict(), allow_nan=False))
    assert content["datum"] == [0] and content["jump"] == kink.jump


def lowest_beta(obj: ph.Objective, box: ph.Box) -> float:
    """Exact minimum of beta over the concave kinks of a net with one hidden layer and one output, on a box.

    At s_ij = 0 the residual does not depend on unit j, so v_j, the other units' contributions and the output bias all range
    over independent intervals: beta = v_j r_i / N is smallest at a pair of their ends.
    """
    net, x = obj.net, obj.data.X
    (w_low, b_low), (v_low, c_low) = net.unpack(box.low)
    (w_high, b_high), (v_high, c_high) = net.unpack(box.high)
    s_low = np.maximum(x, 0) @ w_low.T + np.minimum(x, 0) @ w_high.T + b_low
    s_high = np.maximum(x, 0) @ w_high.T + np.minimum(x, 0) @ w_low.T + b_high
    ends = [v * np.maximum(s, 0) for v in (v_low[0], v_high[0]) for s in (s_low, s_high)]
    low, high = np.min(ends, axis=0), np.max(ends, axis=0)
    best = 0.0
    for i, j in np.argwhere((s_low < 0) & (s_high > 0)):
        r_low = low[i].sum() - low[i, j] + c_low[0] - obj.targets[i, 0]
        r_high = high[i].sum() - high[i, j] + c_high[0] - obj.targets[i, 0]
        best = min(best, *(v * r for v in (v_low[0, j], v_high[0, j]) for r in (r_low, r_high)))
    return best / len(x)


def test_one_hidden_layer_against_the_exact_decision() -> None:
    rng = np.random.default_rng(77)
    decided = {True: 0, False: 0}
    for _ in range(60):
        units, samples, features = (int(rng.integers(1, top)) for top in (6, 30, 4))
        x, y = rng.standard_normal((samples, features)), rng.standard_normal(samples)
        obj = ph.Objective(ph.MLP([features, units, 1], "relu"), ph.Dataset(x, y * rng.choice([0.1, 1.0, 3.0])))
        box = ph.Box.around(rng.standard_normal(obj.num_params), 10.0 ** rng.uniform(-3.0, -0.3))
        beta = lowest_beta(obj, box)
        kink = look(obj, box)
        assert (kink is not None) == (beta < 0.0)
        assert kink is None or kink.beta >= beta * (1.0 + 1e-9)
        decided[kink is not None] += 1
    assert min(decided.values()) > 10
