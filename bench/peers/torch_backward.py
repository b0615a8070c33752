"""PyTorch's double backward pass: the graph of the gradient built anew for each product, and retained."""

from __future__ import annotations

from typing import Any

import torch

from ..cases import Problem
from . import Product, _torch

NAME, DISTRIBUTION = "torch backward", "torch"


def prepare(problem: Problem) -> list[Product]:
    """Double backward from scratch, and with the graph of the gradient retained."""
    L = _torch.loss_function(problem)
    theta = [part.clone().requires_grad_() for part in _torch.tensors(problem.theta, problem)]
    gradient = torch.autograd.grad(L(theta), theta, create_graph=True)

    def retained(v: Any) -> Any:
        return torch.autograd.grad(gradient, theta, v, retain_graph=True)

    def fresh(v: Any) -> Any:
        return torch.autograd.grad(torch.autograd.grad(L(theta), theta, create_graph=True), theta, v)

    def load(v: Any) -> Any:
        return _torch.tensors(v, problem)

    return [
        Product("torch retained graph", True, load, retained, _torch.flatten),
        Product("torch double backward", False, load, fresh, _torch.flatten),
    ]
