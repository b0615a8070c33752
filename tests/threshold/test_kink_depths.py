"""ReLU verdicts at depths one to four, the strength needed at a finite scale, and sharp softplus in place of ReLU."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import relu_kink_status
from pyhess.threshold import Status
from pyhess.threshold.kink_calculus import gate_distance, near_kinks, unit_gradient
from pyhess.threshold.kinks import KinkWitness

SCALES = (1e-2, 1e-3, 1e-4, 1e-5)
BOX = ph.Box(-0.5, 0.5)


def value(obj: ph.Objective, theta: Any) -> np.longdouble:
    """The loss by plain formulas in extended precision: an oracle, and fine enough for second differences."""
    a = obj.data.X.astype(np.longdouble)
    layers = obj.net.unpack(np.zeros(obj.num_params))
    place = 0
    for number, (w, b) in enumerate(layers):
        weights = theta[place : place + w.size].reshape(w.shape)
        place += w.size
        s = a @ weights.T
        if b is not None:
            s = s + theta[place : place + b.size]
            place += b.size
        a = np.maximum(s, 0) if number < len(layers) - 1 else s
    if obj.loss == "squared_error":
        losses = np.sum((a - obj.targets) ** 2, axis=1) / 2
    elif obj.loss == "logistic":
        losses = np.logaddexp(0, a[:, 0]) - obj.targets[:, 0] * a[:, 0]
    else:
        losses = np.logaddexp.reduce(a, axis=1) - np.sum(obj.targets * a, axis=1)
    return losses.mean()


def needed(obj: ph.Objective, theta: np.ndarray, v: np.ndarray, h: float) -> float:
    """The lam at which L + lam |theta|² passes the midpoint test on theta - hv, theta, theta + hv."""
    point, step = theta.astype(np.longdouble), np.longdouble(h) * v.astype(np.longdouble)
    gap = value(obj, point + step) + value(obj, point - step) - 2 * value(obj, point)
    return float(-gap / (2 * step @ step))


def a_problem(problem: Any, depth: int, loss: str, bias: bool) -> ph.Objective:
    return problem([3] + [4] * depth + [1 if loss == "logistic" else 2], "relu", loss, bias=bias)


CASES = [
    (1, "squared_error", True),
    (1, "logistic", False),
    (2, "cross_entropy", True),
    (2, "squared_error", False),
    (3, "logistic", True),
    (3, "cross_entropy", False),
    (4, "squared_error", True),
    (4, "cross_entropy", True),
    (4, "logistic", False),
]


@pytest.mark.parametrize(("depth", "loss", "bias"), CASES)
def test_infinite_with_a_kink_that_differences_confirm(problem: Any, depth: int, loss: str, bias: bool) -> None:
    obj = a_problem(problem, depth, loss, bias)
    t = ph.lambda_threshold(obj, BOX, rng=7, starts=2, certificate=None)
    assert t.status is Status.INFINITE and math.isinf(t.lam_lower) and math.isinf(t.lam_upper)
    assert t.scope == "almost everywhere" and t.kink is not None and t.kink.verify(obj, BOX)
    assert t.psi_upper <= 0.0 and t.witness is not None and t.witness.check()
    assert_strength_at_scales(obj, t.kink)


def assert_strength_at_scales(obj: ph.Objective, kink: KinkWitness) -> None:
    """needed(h) = |jump|/(2h) - c/2 + O(h), with c the mean curvature of the two smooth sides, while no other gate switches."""
    reach = gate_distance(obj, kink.theta, kink.v, near_kinks(obj, kink.theta))
    side = min(1e-7, 0.01 * reach)
    c = np.mean([obj.curvature(kink.theta + sign * side * kink.v, kink.v).q for sign in (1.0, -1.0)])
    clear = [h for h in SCALES if 2.0 * h < reach]
    assert clear, "the kink found is too close to another one for this test"
    for h in clear:
        strength = kink.lambda_at_scale(h)
        assert needed(obj, kink.theta, kink.v, h) == pytest.approx(strength - c / 2.0, rel=1e-6 + 10.0 * h**2 / abs(kink.jump))


def test_the_strength_needed_grows_like_the_reciprocal_of_the_scale() -> None:
    # One hidden layer, datum 2 on the kink of unit 1, crossed along that unit's bias; beta = dL/da.
    rng = np.random.default_rng(31)
    x = rng.standard_normal((6, 2))
    obj = ph.Objective(ph.MLP([2, 3, 1], "relu"), ph.Dataset(x, np.sin(2.0 * x[:, 0])))
    theta = 0.5 * rng.standard_normal(obj.num_params)
    (w, b), (out, c) = obj.net.unpack(theta)
    assert b is not None and c is not None
    b[1] = -w[1] @ x[2]
    residual = np.maximum(w @ x[2] + b, 0.0) @ out[0] + c[0] - obj.targets[2, 0]  # whatever the unit's outgoing weight is
    out[0, 1] = -0.3 * np.sign(residual)
    beta = float(residual * out[0, 1] / 6.0)
    v = np.zeros(obj.num_params)
    v[6 + 1] = 1.0
    kink = KinkWitness(theta, (2,), 0, 1, v, beta, beta)
    assert kink.verify(obj, ph.Box(-3.0, 3.0))
    measured = [needed(obj, theta, v, h) for h in SCALES]
    assert measured == pytest.approx([2.8, 28.0, 283.0, 2830.0], rel=0.02)
    assert measured == pytest.approx([kink.lambda_at_scale(h) for h in SCALES], rel=0.02)
    assert_strength_at_scales(obj, kink)
    # The Hessian next to the kink knows nothing of it.
    near = theta + 1e-3 * rng.standard_normal((50, obj.num_params))
    smallest = min(np.linalg.eigvalsh(obj.hessian(point).to_dense())[0] for point in near)
    assert smallest == pytest.approx(-0.57, abs=0.02)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_a_small_box_with_fixed_gates_is_bracketed(problem: Any, depth: int, loss: str, bias: bool) -> None:
    obj = a_problem(problem, depth, loss, bias)
    rng = np.random.default_rng(11)
    theta = rng.standard_normal(obj.num_params)
    box = ph.Box.around(theta, 1e-4)
    t = ph.lambda_threshold(obj, box, rng=7, starts=4)
    assert t.status in (Status.BRACKETED, Status.EXACT) and t.scope == "global" and t.kink is None
    assert t.stats["relu_kinks"] == "kink_free" and 0.0 < t.lam_lower <= t.lam_upper < math.inf
    assert "keeps its sign on the region" in " ".join(str(t).split())
    # The gates are those of the centre at corners as well, so there is one smooth branch ...
    corners = np.where(rng.random((40, obj.num_params)) < 0.5, box.low, box.high)
    patterns = {tuple(np.concatenate([(s > 0).ravel() for s in gates(obj, point)])) for point in (theta, *corners)}
    assert len(patterns) == 1
    # ... and at lam_upper every midpoint test is passed, which is not so at lam_lower/2 (lam_lower has its own segments).
    for first, second in zip(corners[::2], corners[1::2], strict=True):
        ends = [point.astype(np.longdouble) for point in (first, second)]
        f = [value(obj, p) + t.lam_upper * (p @ p) for p in (ends[0], (ends[0] + ends[1]) / 2, ends[1])]
        assert f[0] + f[2] - 2 * f[1] >= -1e-17
    assert t.witness is not None and t.witness.segment(0.5 * t.lam_lower).violation > 0.0


def gates(obj: ph.Objective, theta: np.ndarray) -> list[np.ndarray]:
    a, found = obj.data.X, []
    for w, b in obj.net.unpack(theta)[:-1]:
        found.append(a @ w.T + (0.0 if b is None else b))
        a = np.maximum(found[-1], 0.0)
    return found


def test_pre_activations_that_stay_zero_are_no_kinks() -> None:
    # Without biases a datum that no unit of a layer passes on is silent in all later layers, for every theta nearby.
    net = ph.MLP([1, 1, 1, 1, 1], "relu", bias=False)
    data = ph.Dataset(np.array([[1.0], [-1.0], [0.0]]), np.array([1.0, 2.0, 3.0]))
    box = ph.Box([0.5, -0.8, 0.5, 0.5], [0.8, 0.5, 0.8, 0.8]).bind(net)
    assert relu_kink_status(net, data, "squared_error", box)[0] == "possible"  # of the datum x = 1 at the second layer
    passed_on = ph.Dataset(np.array([[-1.0], [0.0]]), np.array([2.0, 3.0]))
    assert relu_kink_status(net, passed_on, "squared_error", box) == ("kink_free", 0)
    # Sigmoid and softplus wake it up again: relu(w sigmoid(0)) has its kink at w = 0.
    woken = ph.MLP([1, 1, 1, 1], ["sigmoid", "relu"], bias=False)
    across = ph.Box([0.5, -0.5, 0.5], [0.8, 0.5, 0.8]).bind(woken)
    nothing = ph.Dataset(np.array([[0.0]]), np.array([3.0]))
    assert relu_kink_status(woken, nothing, "squared_error", across)[0] == "possible"
    obj = ph.Objective(woken, nothing)
    assert ph.lambda_threshold(obj, across, rng=7, starts=2, certificate=None).status is Status.INFINITE
    # With biases the pre-activation is the bias.
    biased = ph.MLP([1, 1, 1, 1], "relu")
    low, high = np.array([0.5, -0.2, 0.5, -0.5, 0.5, 0.0]), np.array([0.8, -0.1, 0.8, 0.5, 0.8, 0.1])
    assert relu_kink_status(biased, passed_on, "squared_error", ph.Box(low, high))[0] == "possible"


@pytest.mark.parametrize("activations", ["relu", ["relu", "tanh", "relu"], ["tanh", "relu", "softplus"]])
@pytest.mark.parametrize(("ball", "flip"), [(False, False), (True, True)])
def test_convex_kinks_of_deep_networks_are_finite(activations: Any, ball: bool, flip: bool) -> None:
    # Weights after the first layer and residuals are positive on the whole region, or two signs cancel: kinks bend upwards.
    rng = np.random.default_rng(19)
    data = ph.Dataset(rng.standard_normal((6, 2)), np.full(6, 20.0 if flip else -20.0))
    obj = ph.Objective(ph.MLP([2, 3, 2, 2, 1], activations), data)
    low, high = np.full(obj.num_params, -0.7), np.full(obj.num_params, 0.7)
    for weight, _ in obj.net.layer_slices[1:]:
        low[weight] = 0.05
    if flip:
        out = obj.net.layer_slices[-1][0]
        low[out], high[out] = -high[out], -low[out]
    region: Any = ph.Ball((low + high) / 2.0, 0.32) if ball else ph.Box(low, high)
    assert relu_kink_status(obj.net, obj.data, obj.loss, region.bind(obj)) == ("convex_kinks", 0)
    t = ph.lambda_threshold(obj, region, rng=7, starts=2)
    assert t.kink is None and t.scope == "global" and t.status is Status.BRACKETED and math.isfinite(t.lam_upper)
    assert "bends upwards" in " ".join(str(t).split())
    # Midpoint tests at lam_upper, across kinks.
    points = region.sample(60, obj, rng=23)
    for first, second in zip(points[::2], points[1::2], strict=True):
        f = [obj.value(p) + t.lam_upper * float(p @ p) for p in (first, (first + second) / 2.0, second)]
        assert f[0] + f[2] - 2.0 * f[1] >= -1e-12
    # One weight above a ReLU layer that may have the other sign, and a concave kink cannot be excluded.
    wrong = low.copy()
    wrong[obj.net.layer_slices[2][0].start] = -0.05
    assert relu_kink_status(obj.net, obj.data, obj.loss, ph.Box(wrong, high))[0] == "possible"


def test_undecided_where_neither_is_known() -> None:
    # Duplicates with opposite targets: the kinks cancel, the loss is v² relu(w)²/2 + 1/2, but signs datum by datum cannot tell.
    data = ph.Dataset(np.array([[1.0], [1.0]]), np.array([1.0, -1.0]))
    obj = ph.Objective(ph.MLP([1, 1, 1], "relu", bias=False), data)
    t = ph.lambda_threshold(obj, ph.Box(-1.0, 1.0), rng=7)
    assert t.stats["relu_kinks"] == "possible" and t.kink is None
    assert t.status is Status.UNDECIDED and t.scope == "almost everywhere"
    assert math.isinf(t.lam_upper) and t.ratio == math.inf
    # Smooth pieces: v² w²/2, whose smallest eigenvalue is that of [[v², 2vw], [2vw, w²]], -1 at v = w = 1.
    assert t.lam_lower == pytest.approx(0.5, rel=1e-9)
    content = json.loads(json.dumps(t.to_dict(), allow_nan=False))
    card = " ".join(str(t).split())
    for text in (card, content["psi_meaning"]):
        assert "almost-everywhere Hessian" in text and "necessary, not sufficient" in text
    assert "should it be finite" in card and "none could be excluded" in card
    smooth = ph.Objective(ph.MLP([1, 1, 1], "tanh", bias=False), data)
    assert "necessary" not in ph.lambda_threshold(smooth, ph.Box(-1.0, 1.0), rng=7, starts=2).to_dict()["psi_meaning"]


# --- softplus in place of ReLU ---------------------------------------------------------------------------------------


def softplus(obj: ph.Objective, beta: float) -> ph.Objective:
    return ph.Objective(ph.MLP(obj.net.widths, "softplus", beta=beta, bias=obj.net.bias), obj.data, loss=obj.loss)


@pytest.mark.parametrize(("widths", "bias"), [([3, 4, 1], True), ([3, 4, 1], False), ([2, 3, 3, 1], True)])
def test_psi_of_softplus_falls_in_proportion_to_its_sharpness(problem: Any, widths: list[int], bias: bool) -> None:
    """psi(b) <= v'H_b(theta)v at the kink, and v'H_b(theta)v / b -> jump²/(4 beta): phi''(0) = b/4, |sdot| = |jump/beta|."""
    relu, box = problem(widths, "relu", "squared_error", bias=bias), ph.Box(-0.7, 0.7)
    t = ph.lambda_threshold(relu, box, rng=7, starts=2, certificate=None)
    kink = t.kink
    assert kink is not None
    rate = kink.jump**2 / (4.0 * kink.beta)
    sharp = [1.0, 10.0, 100.0, 300.0, 1000.0]
    psi, certified, warm = [], [], [(kink.theta, kink.v)]
    for beta in sharp:
        obj = softplus(relu, beta)
        found = ph.lambda_threshold(obj, box, rng=7, starts=20, warm=warm)
        assert found.witness is not None
        psi.append(found.psi_upper)
        certified.append(found.psi_lower)
        assert found.psi_upper <= obj.curvature(kink.theta, kink.v).q + 1e-9 * beta
        warm = [(kink.theta, kink.v), (found.witness.theta, found.witness.v)]
    at_kink = softplus(relu, 1e6).curvature(kink.theta, kink.v).q / 1e6
    assert at_kink == pytest.approx(rate, rel=1e-3)
    # psi/b settles at a constant at least as low as one kink alone asks for, and the certificate says that it can fall no faster.
    assert psi[-1] / sharp[-1] <= rate
    assert psi[-1] / sharp[-1] == pytest.approx(psi[-2] / sharp[-2], rel=0.01)
    for values in (psi, certified):
        slope = np.polyfit(np.log(sharp[2:]), np.log(np.negative(values[2:])), 1)[0]
        assert slope == pytest.approx(1.0, abs=0.02)


def test_an_explicit_bound_for_one_hidden_layer(problem: Any) -> None:
    """psi(b) <= b beta_b |x~|²/4 + C for v = x~/|x~| in the unit's own weights, with C free of b.

    The form there is mean_i [r_i v_j phi''(s_ij) + (v_j phi'(s_ij))²] (x~_i . v)². Datum k on the kink has phi'' = b/4; others
    have b/(4 cosh²(b s/2)) <= b exp(-b|s|) <= 1/(e |s|); and phi' <= 1.
    """
    relu, box = problem([3, 4, 1], "relu", "squared_error"), ph.Box(-0.7, 0.7)
    kink = ph.lambda_threshold(relu, box, rng=7, starts=2, certificate=None).kink
    assert kink is not None and len(kink.datum) == 1
    k, j, n = kink.datum[0], kink.unit, relu.data.num_samples
    (w, b), (out, c) = relu.net.unpack(kink.theta)
    assert b is not None and c is not None
    x = np.hstack([relu.data.X, np.ones((n, 1))])
    length = float(np.linalg.norm(x[k]))
    along = (x @ x[k] / length) ** 2
    s = x[:, :-1] @ w[j] + b[j]
    assert abs(s[k]) < 1e-14
    v = np.zeros(relu.num_params)
    unit = relu.net.unpack(v)
    unit[0][0][j], unit[0][1][j] = x[k, :-1] / length, 1.0 / length  # type: ignore[index]
    v = relu.net.pack(unit)
    others = np.arange(n) != k
    for beta in (1.0, 10.0, 100.0, 1000.0):
        obj = softplus(relu, beta)
        hidden = np.logaddexp(0.0, beta * (x[:, :-1] @ w.T + b)) / beta
        residual = hidden @ out[0] + c[0] - obj.targets[:, 0]
        constant = out[0, j] ** 2 * along.mean()
        constant += (np.abs(residual * out[0, j]) * along / (math.e * np.maximum(np.abs(s), 1e-300)))[others].sum() / n
        leading = residual[k] * out[0, j] / n * length**2 / 4.0
        q = obj.curvature(kink.theta, v).q
        assert q <= beta * leading + constant
        assert ph.search(obj, box, rng=7, starts=8, warm=(kink.theta, v)).psi_upper <= beta * leading + constant
    # As b grows beta_b tends to that of the ReLU kink.
    rate = float(unit_gradient(relu, kink.theta, k, 0, j) @ v)
    assert rate == pytest.approx(length, rel=1e-12)
    assert leading == pytest.approx(kink.beta * length**2 / 4.0, rel=0.02)
