"""torch.compile of forward over reverse and of its linearization; plain double backward it cannot compile."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.func import grad, jvp, linearize

from ..cases import Problem
from . import Product, _torch

NAME, DISTRIBUTION = "torch.compile", "torch"


def prepare(problem: Problem) -> list[Product]:
    """Compiled jvp of grad, and the compiled linear map."""
    gradient, theta = grad(_torch.loss_function(problem)), _torch.tensors(problem.theta, problem)
    torch.compiler.reset()
    linear = torch.compile(linearize(gradient, theta)[1])
    product = torch.compile(lambda point, v: jvp(gradient, (point,), (v,))[1])

    def load(v: Any) -> Any:
        return _torch.tensors(v, problem)

    def fresh(v: Any) -> Any:
        with torch.no_grad():
            return product(theta, v)

    def cached(v: Any) -> Any:
        with torch.no_grad():
            return linear(v)

    start = load(problem.vector)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fresh(start), cached(start)  # compiles; a failure here names the peer as failed
    return [
        Product("torch.compile jvp-of-grad", False, load, fresh, _torch.flatten),
        Product("torch.compile linearize", True, load, cached, _torch.flatten),
    ]
