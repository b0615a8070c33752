"""A network written with JAX, from its definition; JAX must be there."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyhess as ph


def jax_outputs(net: ph.MLP, theta: Any, x: Any) -> Any:
    """f (N, K) of the data x (N, d)."""
    import jax

    jnp = jax.numpy

    def phi(name: str, beta: float, s: Any) -> Any:
        return {
            "tanh": lambda: jnp.tanh(s),
            "relu": lambda: jnp.maximum(s, 0.0),
            "sigmoid": lambda: jax.nn.sigmoid(s),
            "softplus": lambda: jnp.logaddexp(0.0, beta * s) / beta,
            "gelu": lambda: jax.nn.gelu(s, approximate=False),
            "identity": lambda: s,
        }[name]()

    a, start = x, 0
    for layer, (fan_in, fan_out) in enumerate(zip(net.widths[:-1], net.widths[1:], strict=True)):
        s = a @ theta[start : start + fan_in * fan_out].reshape(fan_out, fan_in).T
        start += fan_in * fan_out
        if net.bias:
            s = s + theta[start : start + fan_out]
            start += fan_out
        if net.parametrization == "ntk":
            s = s / np.sqrt(fan_in)
        if layer < net.num_layers - 1:
            a = phi(net.activations[layer], net.betas[layer], s)
    return s
