"""The Rayleigh quotient of the Hessian and its gradients in PyTorch: three reverse passes, or forward ones inside one."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.func import jvp

from ..cases import Array, Problem
from . import _torch

NAME, DISTRIBUTION = "torch quotient", "torch"


def prepare_quotient(problem: Problem) -> Any:
    """``f(theta, v) -> (v'Hv, its gradient in theta, its gradient in v)`` by whichever of the two ways is faster here."""
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

    def forward(theta: Array, v: Array) -> tuple[float, Array, Array]:
        point, along = parts(theta, v)
        for u in along:
            u.requires_grad_()
        value = jvp(lambda p: jvp(L, (p,), (along,))[1], (point,), (along,))[1]
        found = torch.autograd.grad(value, point + along)
        return float(value.detach()), _torch.flatten(found[: len(point)]), _torch.flatten(found[len(point) :])

    def seconds(way: Any) -> float:
        way(problem.theta, problem.vector)
        began = time.perf_counter()
        for _ in range(5):
            way(problem.theta, problem.vector)
        return time.perf_counter() - began

    return min((reverse, forward), key=seconds)
