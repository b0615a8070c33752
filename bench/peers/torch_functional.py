"""torch.func: forward over reverse, its linearization, and vmap over parameter vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch.func import grad, jvp, linearize, vmap

from ..cases import Problem
from . import Product, _torch

NAME, DISTRIBUTION = "torch.func", "torch"


def prepare(problem: Problem) -> list[Product]:
    """The jvp of grad, and torch.func.linearize of grad."""
    gradient, theta = grad(_torch.loss_function(problem)), _torch.tensors(problem.theta, problem)
    return _both("torch.func", gradient, theta, problem)


def prepare_batch(problem: Problem) -> list[Product]:
    """The vmap over parameter vectors of both."""
    gradient, thetas = vmap(grad(_torch.loss_function(problem))), _torch.tensors(problem.thetas, problem)
    return _both("torch vmap", gradient, thetas, problem)


def _both(name: str, gradient: Any, theta: Any, problem: Problem) -> list[Product]:
    _, linear = linearize(gradient, theta)

    def load(v: Any) -> Any:
        return _torch.tensors(v, problem)

    def fresh(v: Any) -> Any:
        with torch.no_grad():
            return jvp(gradient, (theta,), (v,))[1]

    return [
        Product(f"{name} jvp-of-grad", False, load, fresh, _torch.flatten),
        Product(f"{name} linearize", True, load, linear, _torch.flatten),
    ]
