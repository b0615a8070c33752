"""Slopes of finite differences, and identities that hold exactly: symmetries of the network, homogeneity, definiteness."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import pyhess as ph

SMOOTH = ("tanh", "softplus", "sigmoid", "gelu")
LOSSES = ("squared_error", "cross_entropy", "logistic")


def make(
    widths: list[int], activation: Any, loss: str, seed: int, *, n: int = 40, dtype: str = "float64", **options: Any
) -> tuple[ph.Objective, Any, Any]:
    """An objective with weighted data, a point and a direction."""
    rng = np.random.default_rng([seed, n, *widths])
    widths = [*widths[:-1], 1] if loss == "logistic" else widths
    net = ph.MLP(widths, activation, **options)
    x = rng.standard_normal((n, widths[0]))
    targets = {
        "squared_error": rng.standard_normal((n, widths[-1])),
        "cross_entropy": rng.dirichlet(np.ones(widths[-1]), n),
        "logistic": rng.integers(0, 2, n),
    }
    obj = ph.Objective(net, ph.Dataset(x, targets[loss], rng.random(n) + 0.1), loss, dtype)
    theta = net.init(rng) + 0.3 * rng.standard_normal(net.num_params)
    return obj, theta, rng.standard_normal(net.num_params)


def close(got: Any, want: Any, scale: float | None = None, tolerance: float = 1e-12) -> bool:
    scale = float(np.linalg.norm(want)) if scale is None else scale
    return bool(np.linalg.norm(np.asarray(got) - np.asarray(want)) <= tolerance * scale)


# ---- finite differences: the error of a central difference falls as h² -------------------------------------------------


def slopes(difference: Callable[[float], Any], exact: Any, h: float) -> list[float]:
    """Observed orders of the error of ``difference(h)`` over three halvings of h."""
    errors = [float(np.linalg.norm(difference(h / 2**k) - exact)) for k in range(4)]
    return [float(np.log2(coarse / fine)) for coarse, fine in pairwise(errors)]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", [*SMOOTH, ["gelu", "tanh", "softplus"], "identity"], ids=str)
def test_central_differences(activation: Any, loss: str) -> None:
    obj, theta, v = make([3, 5, 4, 6, 2], activation, loss, 11)
    v /= np.linalg.norm(v)
    jet = obj.curvature(theta, v)
    direction = np.random.default_rng(12).standard_normal(theta.size)
    direction /= np.linalg.norm(direction)
    h = 0.02

    def value_difference(h: float) -> Any:
        return (obj.value(theta + h * v) - obj.value(theta - h * v)) / (2.0 * h)

    def gradient_difference(h: float) -> Any:
        return (obj.gradient(theta + h * v) - obj.gradient(theta - h * v)) / (2.0 * h)

    def q_difference(h: float) -> Any:
        return (obj.curvature(theta + h * direction, v).q - obj.curvature(theta - h * direction, v).q) / (2.0 * h)

    for difference, exact in (
        (value_difference, obj.gradient(theta) @ v),
        (gradient_difference, obj.hvp(theta, v)),
        (gradient_difference, jet.hv),
        (q_difference, jet.grad @ direction),
    ):
        assert np.allclose(slopes(difference, exact, h), 2.0, atol=0.2)


def test_central_differences_between_kinks() -> None:
    """Along a line that crosses no kink a ReLU network is a polynomial, and with squared errors q is one of degree two."""
    h = 1e-3
    for loss in LOSSES:
        obj, theta, v = make([3, 4, 2], "relu", loss, 13, n=6)
        jet = obj.curvature(theta, v)

        def gradient_difference(h: float, obj: ph.Objective = obj, theta: Any = theta, v: Any = v) -> Any:
            return (obj.gradient(theta + h * v) - obj.gradient(theta - h * v)) / (2.0 * h)

        assert np.allclose(slopes(gradient_difference, jet.hv, h), 2.0, atol=0.2), loss

        def q_difference(h: float, obj: ph.Objective = obj, theta: Any = theta, v: Any = v) -> Any:
            return (obj.curvature(theta + h * v, v).q - obj.curvature(theta - h * v, v).q) / (2.0 * h)

        if loss == "squared_error":
            assert q_difference(h) == pytest.approx(jet.grad @ v, rel=1e-9)
        else:
            assert np.allclose(slopes(q_difference, jet.grad @ v, 8 * h), 2.0, atol=0.2), loss


# ---- algebra of the products -------------------------------------------------------------------------------------------

NETS = [
    ([4, 3], "tanh", {}),
    ([3, 6, 2], "relu", {"bias": False}),
    ([3, 5, 4, 2], ["sigmoid", "gelu"], {"parametrization": "ntk"}),
    ([2, 4, 4, 4, 3], ["softplus", "relu", "tanh"], {"beta": 2.5}),
    ([3, 4, 3, 4, 3, 2], "tanh", {"bias": False}),
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("widths", "activation", "options"), NETS, ids=str)
def test_products_are_symmetric_and_linear(widths: list[int], activation: Any, options: dict[str, Any], loss: str) -> None:
    obj, theta, v = make(widths, activation, loss, 17, **options)
    u = np.random.default_rng(18).standard_normal(theta.size)
    for product in (obj.hvp, obj.ggn_vp):
        mu, mv = product(theta, u), product(theta, v)
        scale = np.linalg.norm(u) * np.linalg.norm(mv) + np.linalg.norm(v) * np.linalg.norm(mu)
        assert abs(u @ mv - v @ mu) <= 1e-14 * scale
        assert close(product(theta, 2.0 * u - 3.0 * v), 2.0 * mu - 3.0 * mv, np.linalg.norm(mu) + np.linalg.norm(mv), 1e-14)
        assert not product(theta, np.zeros_like(v)).any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("widths", "activation", "options"), NETS, ids=str)
def test_jet_is_the_third_derivative(widths: list[int], activation: Any, options: dict[str, Any], loss: str) -> None:
    """T(v, v) = dq/dtheta comes from a symmetric trilinear form; q = v'Hv and Hv agree with the product."""
    obj, theta, v = make(widths, activation, loss, 19, **options)
    rng = np.random.default_rng(20)
    u, w = rng.standard_normal((2, theta.size))
    jet = obj.curvature(theta, v)
    along = np.linalg.norm(v) * np.linalg.norm(jet.hv)
    assert close(jet.hv, obj.hvp(theta, v), tolerance=1e-14)
    assert close(jet.q, v @ jet.hv, along, 1e-14)
    scaled = obj.curvature(theta, -3.0 * v)
    assert close(scaled.q, 9.0 * jet.q, along, 1e-13)
    assert close(scaled.grad, 9.0 * jet.grad, tolerance=1e-13)
    assert close(scaled.grad @ (-3.0 * v), -27.0 * (jet.grad @ v), np.linalg.norm(jet.grad) * np.linalg.norm(v), 1e-12)

    def form(a: Any, b: Any) -> Any:  # by polarisation
        return 0.25 * (obj.curvature(theta, a + b).grad - obj.curvature(theta, a - b).grad)

    scale = np.linalg.norm(u) * np.linalg.norm(w) * np.linalg.norm(jet.grad) / np.linalg.norm(v)
    assert abs(form(u, v) @ w - form(w, v) @ u) <= 1e-12 * scale
    assert abs(form(u, v) @ w - form(u, w) @ v) <= 1e-12 * scale


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("widths", "activation", "options"), NETS, ids=str)
def test_gauss_newton_is_positive_semidefinite(widths: list[int], activation: Any, options: dict[str, Any], loss: str) -> None:
    obj, theta, _ = make(widths, activation, loss, 23, n=7, **options)
    dense = obj.gauss_newton(theta).to_dense()
    eigvals = np.linalg.eigvalsh(dense)
    assert eigvals[0] >= -1e-14 * eigvals[-1]
    rank = 7 * (obj.net.widths[-1] - (loss == "cross_entropy"))  # data times independent outputs
    assert np.sum(eigvals > 1e-12 * eigvals[-1]) <= rank


@pytest.mark.parametrize("loss", LOSSES)
def test_a_linear_model_has_only_the_gauss_newton_part(loss: str) -> None:
    obj, theta, v = make([6, 4], "tanh", loss, 29)
    assert close(obj.hvp(theta, v), obj.ggn_vp(theta, v), tolerance=1e-14)
    if loss == "squared_error":
        x = np.hstack([obj.data.X, np.ones((obj.data.num_samples, 1))])
        gram = x.T @ (obj.data.normalized_weights[:, None] * x)
        weight, bias = obj.net.unpack(v)[0]
        product = np.hstack([weight, bias[:, None]]) @ gram
        assert close(obj.hvp(theta, v), np.concatenate([product[:, :-1].ravel(), product[:, -1]]), tolerance=1e-13)
        assert close(obj.curvature(theta, v).grad, 0.0 * theta, 1.0, 1e-14)


# ---- symmetries --------------------------------------------------------------------------------------------------------


def hidden_unit(net: ph.MLP, layer: int, unit: int) -> tuple[Any, Any]:
    """Where the incoming weights (with the bias) and the outgoing weights of a hidden unit lie in theta."""
    places = net.unpack(np.arange(net.num_params, dtype=np.float64))
    weight, bias = places[layer]
    incoming = weight[unit] if bias is None else np.append(weight[unit], bias[unit])
    return incoming.astype(int), places[layer + 1][0][:, unit].astype(int)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["relu", "identity"])
@pytest.mark.parametrize("scheme", ["standard", "ntk"])
def test_rescaling_a_relu_unit(activation: str, loss: str, scheme: str) -> None:
    """L does not change along theta -> exp(tD) theta, D = +1 on a unit's incoming and -1 on its outgoing weights.

    So g'D theta = 0, and after one more derivative H D theta = -D g; the output does not change either, so G D theta = 0.
    """
    obj, theta, _ = make([3, 5, 4, 2], activation, loss, 31, parametrization=scheme)
    gradient = obj.gradient(theta)
    for layer, unit in ((0, 0), (0, 3), (1, 2)):
        incoming, outgoing = hidden_unit(obj.net, layer, unit)
        d = np.zeros_like(theta)
        d[incoming], d[outgoing] = 1.0, -1.0
        null = d * theta
        scale = np.linalg.norm(null) * np.linalg.norm(gradient)
        assert abs(gradient @ null) <= 1e-14 * scale
        size = np.linalg.norm(null) * abs(np.linalg.eigvalsh(obj.hessian(theta).to_dense())).max()
        assert close(obj.hvp(theta, null), -d * gradient, size, 1e-14)
        assert close(obj.ggn_vp(theta, null), 0.0 * theta, size, 1e-14)
        assert close(obj.curvature(theta, null).q, -(d * d * theta) @ gradient, size * np.linalg.norm(null), 1e-14)
        moved = np.exp(0.7 * d) * theta
        assert obj.value(moved) == pytest.approx(obj.value(theta), rel=1e-14)


@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_homogeneous_networks(activation: str) -> None:
    """Without biases and targets L is homogeneous of degree 2D: Euler's identities for the first three derivatives."""
    obj, theta, _ = make([3, 5, 4, 2], activation, "squared_error", 37, bias=False)
    obj = ph.Objective(obj.net, ph.Dataset(obj.data.X, np.zeros((40, 2))))
    degree = 2 * obj.net.num_layers
    gradient, jet = obj.gradient(theta), obj.curvature(theta, theta)
    assert theta @ gradient == pytest.approx(degree * obj.value(theta), rel=1e-13)
    assert close(jet.hv, (degree - 1) * gradient, tolerance=1e-13)
    assert jet.q == pytest.approx(degree * (degree - 1) * obj.value(theta), rel=1e-13)
    assert close(jet.grad, (degree - 1) * (degree - 2) * gradient, tolerance=1e-13)
    # f is homogeneous of degree D, so J theta = D f and, as A = I and g = f, G theta = D dL/dtheta
    assert close(obj.ggn_vp(theta, theta), obj.net.num_layers * gradient, tolerance=1e-13)


@pytest.mark.parametrize("hidden", [0, 2])
def test_shifting_all_outputs_of_a_softmax(hidden: int) -> None:
    """The same number added to every output changes nothing, to any order: null vectors of H, G and the jet."""
    obj, theta, v = make([4, *[5] * hidden, 3], "tanh", "cross_entropy", 41)
    weight, bias = obj.net.layer_slices[-1]
    norm = np.linalg.norm(obj.hessian(theta).to_dense(), 2)
    shift = np.zeros_like(theta)
    shift[bias] = 1.0
    row = np.random.default_rng(43).standard_normal(obj.net.widths[-2])
    tilt = np.zeros_like(theta)
    tilt[weight] = np.tile(row, 3)
    for null in (shift, tilt, shift - 2.0 * tilt):
        size = np.linalg.norm(null)
        assert close(obj.gradient(theta) @ null, 0.0, size, 1e-15)
        assert close(obj.ggn_vp(theta, null), 0.0 * theta, norm * size, 1e-15)
        assert close(obj.curvature(theta, null).grad, 0.0 * theta, norm * size**2, 1e-14)
    assert close(obj.hvp(theta, shift), 0.0 * theta, norm * np.linalg.norm(shift), 1e-15)
    assert close(obj.curvature(theta, v).grad @ shift, 0.0, norm * np.linalg.norm(v) ** 2, 1e-14)


def equivariant(obj: ph.Objective, theta: Any, v: Any, move: Callable[[Any], Any]) -> None:
    """L(P theta) = L(theta), so every derivative moves with theta, and the spectrum stays."""
    assert obj.value(move(theta)) == pytest.approx(obj.value(theta), rel=1e-14)
    assert close(obj.gradient(move(theta)), move(obj.gradient(theta)), tolerance=1e-13)
    assert close(obj.hvp(move(theta), move(v)), move(obj.hvp(theta, v)), tolerance=1e-13)
    assert close(obj.ggn_vp(move(theta), move(v)), move(obj.ggn_vp(theta, v)), tolerance=1e-13)
    here, there = obj.curvature(theta, v), obj.curvature(move(theta), move(v))
    assert close(there.q, here.q, np.linalg.norm(v) * np.linalg.norm(here.hv), 1e-13)
    assert close(there.grad, move(here.grad), tolerance=1e-13)
    eigvals = [np.linalg.eigvalsh(obj.hessian(point).to_dense()) for point in (theta, move(theta))]
    assert close(eigvals[1], eigvals[0], tolerance=1e-13)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["gelu", "relu", ["sigmoid", "softplus"]], ids=str)
def test_permuting_hidden_units(activation: Any, loss: str) -> None:
    obj, theta, v = make([3, 5, 4, 2], activation, loss, 47, beta=1.3)
    rng = np.random.default_rng(48)
    first, second = rng.permutation(5), rng.permutation(4)

    def move(flat: Any) -> Any:
        (w1, b1), (w2, b2), (w3, b3) = obj.net.unpack(flat)
        return obj.net.pack([(w1[first], b1[first]), (w2[second][:, first], b2[second]), (w3[:, second], b3)])

    equivariant(obj, theta, v, move)


@pytest.mark.parametrize("loss", LOSSES)
def test_flipping_signs_of_tanh_units(loss: str) -> None:
    obj, theta, v = make([3, 5, 4, 2], "tanh", loss, 53)
    rng = np.random.default_rng(54)
    first, second = rng.choice([-1.0, 1.0], 5), rng.choice([-1.0, 1.0], 4)

    def move(flat: Any) -> Any:
        (w1, b1), (w2, b2), (w3, b3) = obj.net.unpack(flat)
        return obj.net.pack([(first[:, None] * w1, first * b1), (second[:, None] * w2 * first, second * b2), (w3 * second, b3)])

    equivariant(obj, theta, v, move)


def test_twin_units_see_no_gauss_newton_part() -> None:
    """Two identical units: G vanishes on what takes from one and gives to the other."""
    obj, theta, _ = make([3, 4, 2], "tanh", "cross_entropy", 59)
    (in1, out1), (in2, out2) = hidden_unit(obj.net, 0, 1), hidden_unit(obj.net, 0, 2)
    theta[in2], theta[out2] = theta[in1], theta[out1]
    rng = np.random.default_rng(60)
    direction = np.zeros_like(theta)
    direction[in1], direction[out1] = rng.standard_normal(in1.size), rng.standard_normal(out1.size)
    direction[in2], direction[out2] = -direction[in1], -direction[out1]
    product = obj.hvp(theta, direction)
    assert close(obj.ggn_vp(theta, direction), 0.0 * theta, np.linalg.norm(direction), 1e-15)
    assert np.linalg.norm(product) > 1e-3


def test_the_ntk_parametrisation_is_a_rescaling() -> None:
    """L_ntk(theta) = L(s theta) with s = 1/sqrt(fan-in) of each parameter's layer."""
    obj, theta, v = make([3, 5, 4, 2], ["gelu", "tanh"], "cross_entropy", 61, parametrization="ntk")
    standard = ph.Objective(ph.MLP([3, 5, 4, 2], ["gelu", "tanh"]), obj.data, "cross_entropy")
    s = np.concatenate([np.full((fan_in + 1) * fan_out, fan_in**-0.5) for fan_in, fan_out in ((3, 5), (5, 4), (4, 2))])
    assert obj.value(theta) == pytest.approx(standard.value(s * theta), rel=1e-14)
    assert close(obj.gradient(theta), s * standard.gradient(s * theta), tolerance=1e-13)
    assert close(obj.hvp(theta, v), s * standard.hvp(s * theta, s * v), tolerance=1e-13)
    assert close(obj.curvature(theta, v).grad, s * standard.curvature(s * theta, s * v).grad, tolerance=1e-13)


def test_softplus_tends_to_relu_and_equals_a_rescaled_softplus() -> None:
    """softplus_b(s) = softplus_1(b s) / b: a factor b on the way in and 1/b on the way out."""
    sharp, theta, v = make([3, 5, 2], "softplus", "squared_error", 67, beta=4.0)
    plain = ph.Objective(ph.MLP([3, 5, 2], "softplus"), sharp.data)
    s = np.concatenate([np.full(20, 4.0), np.full(10, 0.25), np.ones(2)])
    assert sharp.value(theta) == pytest.approx(plain.value(s * theta), rel=1e-14)
    assert close(sharp.hvp(theta, v), s * plain.hvp(s * theta, s * v), tolerance=1e-13)
    assert close(sharp.curvature(theta, v).grad, s * plain.curvature(s * theta, s * v).grad, tolerance=1e-13)
    relu = ph.Objective(ph.MLP([3, 5, 2], "relu"), sharp.data)
    gaps = [
        abs(ph.Objective(ph.MLP([3, 5, 2], "softplus", beta=beta), sharp.data).value(theta) - relu.value(theta))
        for beta in (1e2, 1e4, 1e6)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-6
