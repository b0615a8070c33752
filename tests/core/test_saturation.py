"""Where exponentials under- and overflow: against extended precision, with the conditioning of the problem measured.

Automatic differentiation in float64 is no oracle there: it loses p (1 - p) and the like itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyhess as ph

Wide = np.longdouble

pytestmark = pytest.mark.skipif(np.finfo(Wide).eps > 1e-18, reason="long double is no wider than double on this platform")


def wide(array: Any) -> Any:
    return np.asarray(array, dtype=Wide)


def normal_density(s: Any) -> Any:
    return np.exp(-s * s / 2) / np.sqrt(8 * np.arctan(Wide(1)))


def normal_cdf(s: Any) -> Any:
    """Series in the middle, continued fraction in the lower tail."""
    middle = np.clip(s, -2, 12)
    term, total = middle, middle
    for odd in range(3, 700, 2):
        term = term * middle * middle / odd
        total = total + term
    tail = np.maximum(-s, 2)
    fraction = tail
    for k in range(400, 0, -1):
        fraction = tail + k / fraction
    return np.where(s < -2, normal_density(s) / fraction, np.minimum(0.5 + normal_density(middle) * total, 1))


def sigmoids(z: Any) -> tuple[Any, Any]:
    """sigmoid(z) and sigmoid(-z)."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e), np.where(z >= 0, e, 1) / (1 + e)


def activation(name: str, beta: float, s: Any) -> tuple[Any, Any, Any, Any]:
    """phi, phi', phi'', phi'''."""
    one, zero = np.ones_like(s), np.zeros_like(s)
    if name == "identity":
        return s, one, zero, zero
    if name == "relu":
        return np.maximum(s, 0), np.where(s > 0, one, zero), zero, zero
    if name == "gelu":
        cdf, density = normal_cdf(s), normal_density(s)
        return s * cdf, cdf + s * density, density * (2 - s * s), density * s * (s * s - 4)
    if name == "tanh":
        p, q = sigmoids(2 * s)
        d = 4 * p * q
        return p - q, d, -2 * (p - q) * d, -2 * d * (1 - 3 * (p - q) ** 2)
    z = wide(beta) * s if name == "softplus" else s
    p, q = sigmoids(z)
    if name == "sigmoid":
        return p, p * q, p * q * (q - p), p * q * (1 - 6 * p * q)
    softplus = (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / wide(beta)
    return softplus, p, wide(beta) * p * q, wide(beta) ** 2 * p * q * (q - p)


class OutputLoss:
    """The losses (N,), g = dl/df (N, K), and A u and T[u, u] for u (N, K)."""

    def __init__(self, loss: str, f: Any, y: Any) -> None:
        self.loss = loss
        if loss == "squared_error":
            self.g, self.values = f - y, ((f - y) ** 2).sum(axis=1) / 2
        elif loss == "logistic":
            self.p, self.q = sigmoids(f)
            self.g = (1 - y) * self.p - y * self.q
            self.values = (np.maximum(f, 0) + np.log1p(np.exp(-np.abs(f))) - y * f)[:, 0]
        else:
            # from the largest output, whose residual is taken as what is left of the others
            self.rows, self.top = np.arange(len(f)), f.argmax(axis=1)
            shifted = f - f[self.rows, self.top][:, None]
            others = np.exp(shifted)
            others[self.rows, self.top] = 0
            rest = others.sum(axis=1, keepdims=True)
            self.p = np.exp(shifted) / (1 + rest)
            self.g = self.p - y
            self.g[self.rows, self.top] = (1 - y[self.rows, self.top]) - (rest / (1 + rest))[:, 0]
            self.values = -np.where(y != 0, y * (shifted - np.log1p(rest)), 0).sum(axis=1)

    def centred(self, u: Any) -> Any:
        u = u - u[self.rows, self.top][:, None]
        return u - (self.p * u).sum(axis=1, keepdims=True)

    def curvature(self, u: Any) -> Any:
        if self.loss == "squared_error":
            return u
        return self.p * self.q * u if self.loss == "logistic" else self.p * self.centred(u)

    def third(self, u: Any) -> Any:
        if self.loss == "squared_error":
            return np.zeros_like(u)
        if self.loss == "logistic":
            return self.p * self.q * (self.q - self.p) * u * u
        square = self.centred(u) ** 2
        return self.p * (square - (self.p * square).sum(axis=1, keepdims=True))


def reference(obj: ph.Objective, theta: Any, v: Any, x: Any) -> dict[str, Any]:
    """All products in long double: second-order forward jet, then one reverse pass."""
    net, y, w = obj.net, wide(obj.targets), wide(obj.data.normalized_weights)[:, None]
    layers, inputs, units = [], [(x, np.zeros_like(x), np.zeros_like(x))], []
    for layer, (weight, bias) in enumerate(net.layer_slices):
        fan_in, fan_out = net.widths[layer : layer + 2]
        scale = 1 / np.sqrt(Wide(fan_in)) if net.parametrization == "ntk" else Wide(1)
        matrix, direction = theta[weight].reshape(fan_out, fan_in), v[weight].reshape(fan_out, fan_in)
        b, c = (0, 0) if bias is None else (theta[bias], v[bias])
        a, a1, a2 = inputs[-1]
        s, s1, s2 = (
            scale * (a @ matrix.T + b),
            scale * (a1 @ matrix.T + a @ direction.T + c),
            scale * (a2 @ matrix.T + 2 * (a1 @ direction.T)),
        )
        layers.append((weight, bias, scale, matrix, direction))
        if layer + 1 < net.num_layers:
            phi, d1, d2, d3 = activation(net.activations[layer], net.betas[layer], s)
            inputs.append((phi, d1 * s1, d1 * s2 + d2 * s1 * s1))
            units.append((d1, d2, d3, s1, s2))
    loss = OutputLoss(obj.loss, s, y)
    out: dict[str, Any] = {name: np.zeros(net.num_params, dtype=Wide) for name in ("gradient", "hvp", "ggn", "q_gradient")}
    out["value"] = (w[:, 0] * loss.values).sum()
    y2, y1, y0, g = w * loss.g, 2 * w * loss.curvature(s1), w * (loss.third(s1) + loss.curvature(s2)), w * loss.curvature(s1)
    for (weight, bias, scale, matrix, direction), (a, a1, a2) in zip(reversed(layers), reversed(inputs), strict=True):
        parts = {
            "gradient": y2.T @ a,
            "hvp": y1.T @ a / 2 + y2.T @ a1,
            "ggn": g.T @ a,
            "q_gradient": y0.T @ a + y1.T @ a1 + y2.T @ a2,
        }
        sums = {"gradient": y2, "hvp": y1 / 2, "ggn": g, "q_gradient": y0}
        for name, part in parts.items():
            out[name][weight] = (scale * part).ravel()
            if bias is not None:
                out[name][bias] = scale * sums[name].sum(axis=0)
        if units:
            d1, d2, d3, s1, s2 = units.pop()
            b2, b1 = scale * (y2 @ matrix), scale * (y1 @ matrix + 2 * (y2 @ direction))
            b0 = scale * (y0 @ matrix + y1 @ direction)
            g = d1 * (scale * (g @ matrix))
            y2, y1 = d1 * b2, d1 * b1 + 2 * d2 * s1 * b2
            y0 = d1 * b0 + d2 * s1 * b1 + (d2 * s2 + d3 * s1 * s1) * b2
    out["q"] = v @ out["hvp"]
    return {**out, "jet_hvp": out["hvp"]}


def norm(array: Any) -> float:
    return float(np.linalg.norm(np.asarray(array, dtype=np.float64)))


def check(obj: ph.Objective, theta: Any, v: Any, products_of: Any, rng: Any, loose: dict[str, float] | None = None) -> None:
    """Within 1e-13 of the exact products, or within what a change of theta, v and x by two last digits does to them."""
    want = reference(obj, wide(theta), wide(v), wide(obj.data.X))
    moved = dict.fromkeys(want, 0.0)
    for _ in range(3):
        near = [wide(a) * (1 + 2.0**-52 * rng.uniform(-2, 2, np.shape(a))) for a in (theta, v, obj.data.X)]
        for name, value in reference(obj, *near).items():
            moved[name] = max(moved[name], norm(value - want[name]))
    for name, value in products_of(obj, theta, v).items():
        scale = norm(v) * norm(want["hvp"]) if name == "q" else norm(want[name])
        allowed = (loose or {}).get(name, 1e-13) * scale + 10.0 * moved[name]
        assert norm(value - want[name]) <= allowed, (name, norm(value - want[name]) / scale, obj)


def problem(rng: Any, names: list[str], weight: float, beta: Any = 1.0) -> tuple[ph.Objective, Any]:
    """A network whose weights are ``weight`` times their usual size, with few data."""
    hidden = int(rng.integers(1, 5))
    loss = str(rng.choice(["squared_error", "cross_entropy", "logistic"]))
    widths = [int(width) for width in rng.integers(1, 8, hidden + 2)]
    widths[-1] = {"squared_error": widths[-1], "cross_entropy": max(2, widths[-1]), "logistic": 1}[loss]
    net = ph.MLP(
        widths,
        [str(name) for name in rng.choice(names, hidden)],
        beta=[float(sharpness) for sharpness in rng.choice(np.atleast_1d(beta), hidden)],
        bias=bool(rng.integers(2)),
        parametrization=str(rng.choice(["standard", "ntk"])),
    )
    n, outputs = int(rng.choice([1, 4, 30])), net.widths[-1]
    targets = {
        "squared_error": rng.standard_normal((n, outputs)),
        "cross_entropy": rng.integers(0, outputs, n),
        "logistic": rng.integers(0, 2, n),
    }
    data = ph.Dataset(rng.standard_normal((n, net.widths[0])), targets[loss])
    theta = weight * net.init(rng)
    for _, bias in net.layer_slices:
        if bias is not None:
            theta[bias] = 2.0 * rng.standard_normal(bias.stop - bias.start)
    return ph.Objective(net, data, loss), theta


@pytest.mark.parametrize("number", range(40))
def test_large_weights(number: int, products_of: Any) -> None:
    rng = np.random.default_rng([19, number])
    obj, theta = problem(rng, ["softplus", "gelu", "relu", "identity"], rng.uniform(5, 10), beta=[1.0, 3.0])
    check(obj, theta, rng.standard_normal(obj.num_params), products_of, rng)


@pytest.mark.parametrize("number", range(20))
def test_extreme_softplus(number: int, products_of: Any) -> None:
    rng = np.random.default_rng([23, number])
    obj, theta = problem(rng, ["softplus"], rng.choice([1.0, 4.0]), beta=[0.01, 0.1, 50.0, 500.0])
    check(obj, theta, rng.standard_normal(obj.num_params), products_of, rng)


@pytest.mark.parametrize("number", range(20))
def test_lower_tail_of_gelu(number: int, products_of: Any) -> None:
    rng = np.random.default_rng([29, number])
    obj, theta = problem(rng, ["gelu"], 1.0)
    for _, bias in obj.net.layer_slices[:-1]:
        if bias is not None:
            theta[bias] = -rng.uniform(2, 30)
    check(obj, theta, rng.standard_normal(obj.num_params), products_of, rng)


@pytest.mark.parametrize("number", range(40))
def test_saturated_tanh_and_sigmoid(number: int, products_of: Any) -> None:
    """Their slopes are computed from the activation, so they are exact to eps against 1, not against themselves.

    That is invisible in the gradient, costs the Hessian product a digit or two where every unit is saturated, and the third
    derivative, which then vanishes, more.
    """
    rng = np.random.default_rng([37, number])
    obj, theta = problem(rng, ["tanh", "sigmoid"], rng.uniform(3, 8))
    loose = {"hvp": 1e-11, "jet_hvp": 1e-11, "q": 1e-11, "q_gradient": 1e-8}
    check(obj, theta, rng.standard_normal(obj.num_params), products_of, rng, loose)


@pytest.mark.parametrize("loss", ["logistic", "cross_entropy"])
@pytest.mark.parametrize("output", [-2000.0, -745.5, -700.0, -40.0, 0.0, 40.0, 700.0, 745.5, 2000.0])
@pytest.mark.parametrize("label", [0, 1])
def test_sure_networks(loss: str, output: float, label: int) -> None:
    """A constant network with a huge output, right or wrong: l = log(1 + e^-m) and dl/dm = -1 / (1 + e^m) for the margin m."""
    net = ph.MLP([1, 1 if loss == "logistic" else 2])
    theta = np.array([0.0, output]) if loss == "logistic" else np.array([0.0, 0.0, 0.0, output])
    obj = ph.Objective(net, ph.Dataset([[0.0]], [label]), loss)
    margin = wide(output if label else -output)
    e, slope = np.exp(-np.abs(margin)), sigmoids(-margin)[0]
    loss_value = np.maximum(-margin, 0) + np.log1p(e)
    for dtype, tolerance in (("float64", 1e-15), ("float32", 1e-7)):
        obj = ph.Objective(net, ph.Dataset([[0.0]], [label]), loss, dtype)
        assert obj.value(theta) == pytest.approx(float(loss_value), rel=tolerance, abs=0.0)
        gradient = -float(slope) * (1.0 if label else -1.0)
        floor = 1e-300 if dtype == "float64" else 1e-37  # smaller numbers have lost digits
        assert obj.gradient(theta)[-1] == pytest.approx(gradient, rel=tolerance, abs=floor)
        direction = np.zeros(obj.num_params)
        direction[-1] = 1.0
        curvature = float(e / (1 + e) ** 2)
        assert obj.hvp(theta, direction)[-1] == pytest.approx(curvature, rel=4 * tolerance, abs=floor)
