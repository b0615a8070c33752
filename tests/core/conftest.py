"""Automatic differentiation in JAX as the oracle of every product: shares nothing with the package but the documented layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyhess as ph

Products = dict[str, Any]

#: The padded oracle's sizes: layers, units per layer, data per call.
LAYERS, UNITS, ROWS = 5, 8, 128


class JaxOracle:
    """Value, gradient, Hv, Gauss-Newton product, q = v'Hv and its gradient, all by automatic differentiation in float64."""

    def __init__(self) -> None:
        import jax

        jax.config.update("jax_enable_x64", True)
        jnp = jax.numpy
        self.jax, self.jnp = jax, jnp
        self.phi: dict[str, Callable[[Any, Any], Any]] = {
            "identity": lambda s, beta: s,
            "tanh": lambda s, beta: jnp.tanh(s),
            "relu": lambda s, beta: jax.nn.relu(s),
            "softplus": lambda s, beta: jax.nn.softplus(beta * s) / beta,
            "sigmoid": lambda s, beta: jax.nn.sigmoid(s),
            "gelu": lambda s, beta: jax.nn.gelu(s, approximate=False),
        }
        # mask is zero, or minus a huge number for an output that does not exist
        self.losses: dict[str, Callable[[Any, Any, Any], Any]] = {
            "squared_error": lambda f, y, mask: 0.5 * jnp.sum((f - y) ** 2, axis=1),
            "cross_entropy": lambda f, y, mask: -jnp.sum(y * jax.nn.log_softmax(f + mask, axis=1), axis=1),
            "logistic": lambda f, y, mask: jax.nn.softplus(f[:, 0]) - y[:, 0] * f[:, 0],
        }
        self._padded = jax.jit(self._padded_products)

    def products(self, obj: ph.Objective, theta: Any, v: Any) -> Products:
        """For a network of any size; compiled for it."""
        net = obj.net

        def everything(theta: Any, v: Any, x: Any, y: Any, w: Any) -> Products:
            def model(t: Any) -> Any:
                a = x
                for layer, (weight, bias) in enumerate(net.layer_slices):
                    fan_in, fan_out = net.widths[layer : layer + 2]
                    s = a @ t[weight].reshape(fan_out, fan_in).T
                    s = s if bias is None else s + t[bias]
                    s = s / np.sqrt(fan_in) if net.parametrization == "ntk" else s
                    last = layer + 1 == net.num_layers
                    a = s if last else self.phi[net.activations[layer]](s, net.betas[layer])
                return a

            return self._derivatives(model, lambda f: w @ self.losses[obj.loss](f, y, 0.0), theta, v)

        arguments = (theta, v, obj.data.X, obj.targets, obj.data.normalized_weights)
        # compiling takes most of the time: leave out what only makes the result faster
        compiled = self.jax.jit(everything).lower(*arguments).compile(compiler_options={"xla_backend_optimization_level": 0})
        return {name: np.asarray(value) for name, value in compiled(*arguments).items()}

    def small_products(self, obj: ph.Objective, theta: Any, v: Any) -> Products:
        """For networks of at most LAYERS layers of at most UNITS units: all of them share one compiled function.

        The network is embedded in a larger one: missing units have zero weights, missing layers are identities in front. Sums
        over data are taken slice by slice.
        """
        net = obj.net
        size = LAYERS * UNITS * (UNITS + 1)
        zero, one = size, size + 1  # places of the constants in the extended theta
        weights, biases = np.full((LAYERS, UNITS, UNITS), zero), np.full((LAYERS, UNITS), zero)
        code, beta, scale = np.zeros(LAYERS, dtype=int), np.ones(LAYERS), np.ones(LAYERS)
        front = LAYERS - net.num_layers
        weights[:front, np.arange(UNITS), np.arange(UNITS)] = one
        for layer, (weight, bias) in enumerate(net.layer_slices):
            fan_in, fan_out = net.widths[layer : layer + 2]
            at = front + layer
            weights[at, :fan_out, :fan_in] = np.arange(weight.start, weight.stop).reshape(fan_out, fan_in)
            if bias is not None:
                biases[at, :fan_out] = np.arange(bias.start, bias.stop)
            if net.parametrization == "ntk":
                scale[at] = 1.0 / np.sqrt(fan_in)
            if layer + 1 < net.num_layers:
                code[at], beta[at] = list(self.phi).index(net.activations[layer]), net.betas[layer]
        mask = np.where(np.arange(UNITS) < net.widths[-1], 0.0, -1e30)
        structure = (weights, biases, code, beta, scale, list(self.losses).index(obj.loss), mask)

        def pad(array: Any, *shape: int) -> Any:
            out = np.zeros(shape)
            out[tuple(slice(n) for n in array.shape)] = array
            return out

        total: Products = {}
        for start in range(0, obj.data.num_samples, ROWS):
            rows = slice(start, start + ROWS)
            x, y = pad(obj.data.X[rows], ROWS, UNITS), pad(obj.targets[rows], ROWS, UNITS)
            w = pad(obj.data.normalized_weights[rows], ROWS)
            for name, value in self._padded(pad(theta, size), pad(v, size), *structure, x, y, w).items():
                total[name] = total.get(name, 0.0) + np.asarray(value)
        return {name: value[: net.num_params] if value.ndim else value for name, value in total.items()}

    def _padded_products(
        self, theta: Any, v: Any, weights: Any, biases: Any, code: Any, beta: Any, scale: Any, loss: Any, mask: Any,
        x: Any, y: Any, w: Any,
    ) -> Products:  # fmt: skip
        def model(t: Any) -> Any:
            extended, a = self.jnp.concatenate([t, self.jnp.array([0.0, 1.0])]), x
            for layer in range(LAYERS):
                s = (a @ extended[weights[layer]].T + extended[biases[layer]]) * scale[layer]
                last = layer + 1 == LAYERS
                a = s if last else self.jax.lax.switch(code[layer], tuple(self.phi.values()), s, beta[layer])
            return a

        def loss_of(f: Any) -> Any:
            return w @ self.jax.lax.switch(loss, tuple(self.losses.values()), f, y, mask)

        return self._derivatives(model, loss_of, theta, v)

    def _derivatives(self, model: Callable[[Any], Any], loss_of: Callable[[Any], Any], theta: Any, v: Any) -> Products:
        jax = self.jax

        def objective(t: Any) -> Any:
            return loss_of(model(t))

        def quadratic_form(t: Any) -> Any:
            hv = jax.jvp(jax.grad(objective), (t,), (v,))[1]
            return v @ hv, hv

        value, gradient = jax.value_and_grad(objective)(theta)
        (q, hvp), q_gradient = jax.value_and_grad(quadratic_form, has_aux=True)(theta)
        outputs, pull_back = jax.vjp(model, theta)
        tangent = jax.jvp(model, (theta,), (v,))[1]
        curved = jax.jvp(jax.grad(loss_of), (outputs,), (tangent,))[1]
        (ggn,) = pull_back(curved)
        return {"value": value, "gradient": gradient, "hvp": hvp, "ggn": ggn, "q": q, "q_gradient": q_gradient}


@pytest.fixture(scope="session")
def oracle() -> JaxOracle:
    return JaxOracle()


def all_products(obj: ph.Objective, theta: Any, v: Any) -> Products:
    jet = obj.curvature(theta, v)
    return {
        "value": obj.value(theta),
        "gradient": obj.gradient(theta),
        "hvp": obj.hvp(theta, v),
        "ggn": obj.ggn_vp(theta, v),
        "q": jet.q,
        "jet_hvp": jet.hv,
        "q_gradient": jet.grad,
    }


def relative_errors(obj: ph.Objective, want: Products, theta: Any, v: Any) -> dict[str, float]:
    """|got - want| / |want| in the 2-norm; q, which may vanish by cancellation, is measured against |v| |Hv|."""
    got, want = all_products(obj, theta, v), {**want, "jet_hvp": want["hvp"]}
    scales = {name: float(np.linalg.norm(value)) for name, value in want.items()}
    scales["q"] = float(np.linalg.norm(v) * np.linalg.norm(want["hvp"]))
    errors = {}
    for name, value in got.items():
        error = float(np.linalg.norm(value - want[name]))
        errors[name] = 0.0 if error == 0.0 else error / scales[name] if scales[name] > 0.0 else float("inf")
    return errors


@pytest.fixture(scope="session")
def errors_against() -> Callable[..., dict[str, float]]:
    return relative_errors


@pytest.fixture(scope="session")
def products_of() -> Callable[..., Products]:
    return all_products
