"""PyHessian: its product with the graph of the gradient kept. Its eigenvalues are largest in magnitude only."""

from __future__ import annotations

import warnings
from typing import Any

from pyhessian import hessian
from pyhessian.utils import hessian_vector_product

from ..cases import Problem
from . import Product, _torch

NAME, DISTRIBUTION = "PyHessian", "pyhessian"


def prepare(problem: Problem) -> list[Product]:
    """Its product for a single batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about backward(create_graph=True), which is how it works
        state = hessian(_torch.module(problem), _torch.loss_module(problem), data=_torch.data(problem), cuda=False)

    def load(v: Any) -> Any:
        return _torch.tensors(v, problem)

    return [Product("PyHessian", True, load, lambda v: hessian_vector_product(state.gradsH, state.params, v), _torch.flatten)]
