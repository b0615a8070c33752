"""matfree: tridiagonalisation with full reorthogonalisation over JAX's products, compiled as one program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matfree import decomp, eig

from ..cases import Array, Problem
from . import Product, _jax

NAME, DISTRIBUTION = "matfree", "matfree"


def solver(problem: Problem, product: Product, start: Array, steps: int) -> Any:
    """``run() -> (eigenvalue, vector)`` after so many steps; it cannot stop by itself."""
    assert product.function is not None
    function, parameters = product.function
    partial = eig.eigh_partial(decomp.tridiag_sym(steps, reortho="full", custom_vjp=False))
    as_jvp = len(parameters) == 3

    @jax.jit
    def solve(start: Any, *parameters: Any) -> Any:
        def multiply(v: Any) -> Any:
            return function(parameters[0], v, *parameters[1:]) if as_jvp else function(parameters[0], v)

        values, vectors = partial(multiply, start)
        lowest = jnp.argmin(values)
        return values[lowest], jax.tree.map(lambda leaf: leaf[lowest], vectors)

    native = _jax.arrays(start.astype(problem.dtype), problem)

    def run() -> tuple[float, Array]:
        value, vector = jax.block_until_ready(solve(native, *parameters))
        return float(value), np.asarray(_jax.flatten(vector), dtype=np.float64)

    return run
