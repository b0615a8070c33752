"""The loss and the containers that all JAX peers share. JAX uses as many threads as the process has processors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..cases import Array, Problem, split

jax.config.update("jax_enable_x64", True)

_ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


def data(problem: Problem) -> tuple[Any, Any]:
    """Inputs and targets; labels as rows of a unit matrix, which differentiates faster than an index."""
    y = problem.y
    if problem.case.loss == "cross_entropy":
        y = np.eye(problem.case.widths[-1], dtype=problem.dtype)[y]
    return jnp.asarray(problem.X), jnp.asarray(y)


def arrays(flat: Array, problem: Problem) -> list[Any]:
    """Flat (..., P) as a list of (W, b)."""
    return [(jnp.asarray(weight), jnp.asarray(bias)) for weight, bias in split(flat, problem.case.widths)]


def flatten(parts: Any) -> Array:
    """The inverse of ``arrays``."""
    lead = parts[0][1].shape[:-1]
    return np.concatenate([np.asarray(part).reshape(*lead, -1) for pair in parts for part in pair], axis=-1)


def loss(activation: str, kind: str) -> Any:
    """L(parameters, X, y)."""
    act = _ACTIVATIONS[activation]

    def value(parameters: Any, X: Any, y: Any) -> Any:
        a = X
        for weight, bias in parameters[:-1]:
            a = act(a @ weight.T + bias)
        outputs = a @ parameters[-1][0].T + parameters[-1][1]
        if kind == "squared_error":
            return 0.5 * jnp.mean(jnp.sum((outputs - y) ** 2, axis=1))
        return jnp.mean(jax.nn.logsumexp(outputs, axis=1) - jnp.sum(y * outputs, axis=1))

    return value
