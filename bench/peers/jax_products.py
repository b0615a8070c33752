"""JAX, compiled: jvp of grad, linearize of grad, and both over a batch of parameter vectors by vmap and by map."""

from __future__ import annotations

from typing import Any

import jax

from ..cases import Problem
from . import Product, _jax

NAME, DISTRIBUTION = "jax", "jax"


def prepare(problem: Problem) -> list[Product]:
    """The jvp of grad; linearize with its residuals as arguments, and compiled into the product."""
    X, y = _jax.data(problem)
    L = _jax.loss(problem.case.activation, problem.case.loss)

    def gradient(theta: Any) -> Any:
        return jax.grad(L)(theta, X, y)

    @jax.jit
    def product(theta: Any, v: Any, X: Any, y: Any) -> Any:
        return jax.jvp(lambda point: jax.grad(L)(point, X, y), (theta,), (v,))[1]

    theta = _jax.arrays(problem.theta, problem)
    linear = jax.linearize(gradient, theta)[1]
    apply, closed = jax.jit(lambda function, v: function(v)), jax.jit(linear)
    return [
        _product("jax jvp-of-grad", False, lambda v: product(theta, v, X, y), problem, (product, (theta, X, y))),
        _product("jax.linearize", True, lambda v: apply(linear, v), problem, (apply, (linear,))),
        _product("jax.linearize, closed over", True, closed, problem),
    ]


def prepare_batch(problem: Problem) -> list[Product]:
    """The vmap of jvp of grad, vmap of linearize, and lax.map of jvp of grad."""
    X, y = _jax.data(problem)
    L = _jax.loss(problem.case.activation, problem.case.loss)

    def one(theta: Any, v: Any, X: Any, y: Any) -> Any:
        return jax.jvp(lambda point: jax.grad(L)(point, X, y), (theta,), (v,))[1]

    thetas = _jax.arrays(problem.thetas, problem)
    mapped = jax.jit(jax.vmap(one, in_axes=(0, 0, None, None)))
    looped = jax.jit(lambda thetas, vs, X, y: jax.lax.map(lambda pair: one(*pair, X, y), (thetas, vs)))
    linear = jax.linearize(jax.vmap(lambda theta: jax.grad(L)(theta, X, y)), thetas)[1]
    apply = jax.jit(lambda function, v: function(v))
    return [
        _product("jax vmap jvp-of-grad", False, lambda v: mapped(thetas, v, X, y), problem),
        _product("jax map jvp-of-grad", False, lambda v: looped(thetas, v, X, y), problem),
        _product("jax vmap linearize", True, lambda v: apply(linear, v), problem),
    ]


def _product(who: str, cached: bool, multiply: Any, problem: Problem, function: Any = None) -> Product:
    def load(v: Any) -> Any:
        return _jax.arrays(v, problem)

    return Product(who, cached, load, lambda v: jax.block_until_ready(multiply(v)), _jax.flatten, function)
