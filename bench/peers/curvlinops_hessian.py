"""curvlinops: HessianLinearOperator, one batch, without its determinism check."""

from __future__ import annotations

from typing import Any

from curvlinops import HessianLinearOperator

from ..cases import Problem
from . import Product, _torch

NAME, DISTRIBUTION = "curvlinops", "curvlinops-for-pytorch"


def prepare(problem: Problem) -> list[Product]:
    """Its product, on lists of tensors, which spares it the splitting."""
    net = _torch.module(problem)
    operator = HessianLinearOperator(
        net, _torch.loss_module(problem), list(net.parameters()), [_torch.data(problem)], check_deterministic=False
    )

    def load(v: Any) -> Any:
        return _torch.tensors(v, problem)

    return [Product("curvlinops", False, load, lambda v: operator @ v, _torch.flatten)]
