"""The Rayleigh quotient of the Hessian and its gradients in PyTorch: three reverse passes.

Forward passes inside a reverse one would be an alternative, but their levels are global to the process: one thread at a time.
"""

from __future__ import annotations

from typing import Any

import torch

from ..cases import Array, Problem
from . import _torch

NAME, DISTRIBUTION = "torch quotient", "torch"


def prepare_quotient(problem: Problem) -> Any:
    """``f(theta, v) -> (v'Hv, its gradient in theta, its gradient in v)``, from any thread."""
    L = _torch.loss_function(problem)

    def parts(theta: Array, v: Array) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        return [part.requires_grad_() for part in _torch.tensors(theta.copy(), problem)], _torch.tensors(v.copy(), problem)

    def reverse(theta: Array, v: Array) -> tuple[float, Array, Array]:
        point, along = parts(theta, v)
        gradient = torch.autograd.grad(L(point), point, create_graph=True)
        slope = sum(torch.sum(g * u) for g, u in zip(gradient, along, strict=True))
        hv = torch.autograd.grad(slope, point, create_graph=True)
        value = sum(torch.sum(h * u) for h, u in zip(hv, along, strict=True))
        by_theta = torch.autograd.grad(value, point)
        return float(value.detach()), _torch.flatten(by_theta), 2.0 * _torch.flatten(hv)

    return reverse
