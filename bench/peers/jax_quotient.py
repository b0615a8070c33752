"""The Rayleigh quotient of the Hessian and its gradients in JAX: reverse over forward over forward, compiled."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ..cases import Array, Problem, split
from . import _jax

NAME, DISTRIBUTION = "jax quotient", "jax"


def prepare_quotient(problem: Problem) -> Any:
    """``f(theta, v) -> (v'Hv, its gradient in theta, its gradient in v)`` for arrays (P,)."""
    X, y = _jax.data(problem)
    L, widths = _jax.loss(problem.case.activation, problem.case.loss), problem.case.widths

    def quadratic(theta: Any, v: Any, X: Any, y: Any) -> Any:
        def value(point: Any) -> Any:
            return L(list(split(point, widths)), X, y)

        # The second derivative along a line needs 5 products per layer forwards, and as many again twice backwards.
        return jax.jvp(lambda point: jax.jvp(value, (point,), (v,))[1], (theta,), (v,))[1]

    compiled = jax.jit(jax.value_and_grad(quadratic, argnums=(0, 1)))

    def evaluate(theta: Array, v: Array) -> tuple[float, Array, Array]:
        value, (by_theta, by_v) = compiled(theta, v, X, y)
        return float(value), np.asarray(by_theta), np.asarray(by_v)

    return evaluate
