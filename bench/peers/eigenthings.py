"""hessian-eigenthings: its exact product and its Lanczos method."""

from __future__ import annotations

from typing import Any

import torch
from hessian_eigenthings.algorithms.lanczos import lanczos
from hessian_eigenthings.operators.hessian import HessianOperator

from ..cases import Array, Problem
from . import Product, _torch

NAME, DISTRIBUTION = "hessian-eigenthings", "hessian-eigenthings"


def _operator(problem: Problem) -> Any:
    loss = _torch.loss_module(problem)
    return HessianOperator(_torch.module(problem), [_torch.data(problem)], lambda net, batch: loss(net(batch[0]), batch[1]))


def prepare(problem: Problem) -> list[Product]:
    """Its product on flat vectors."""
    operator = _operator(problem)
    return [Product("hessian-eigenthings", False, torch.from_numpy, lambda v: operator.matvec(v), lambda hv: hv.detach().numpy())]


def prepare_eigen(problem: Problem, steps: int, seed: int) -> Any:
    """``run() -> (eigenvalue, vector)`` by its Lanczos method with so many steps; it cannot stop by itself."""
    operator = _operator(problem)

    def run() -> tuple[float, Array]:
        result = lanczos(operator, k=1, max_iter=steps, reorthogonalize=True, which="SA", seed=seed)
        return float(result.eigenvalues[0]), result.eigenvectors[0].numpy()

    return run
