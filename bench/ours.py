"""pyhess through the functions that peers have."""

from __future__ import annotations

import numpy as np

import pyhess as ph

from .cases import Problem
from .experiment import Contender
from .peers import Product

NAME = "pyhess"


def objective(problem: Problem, dtype: str | None = None) -> ph.Objective:
    """The objective of a problem."""
    case = problem.case
    net = ph.MLP(list(case.widths), activation=case.activation)
    return ph.Objective(net, ph.Dataset(problem.X, problem.y), loss=case.loss, dtype=dtype or problem.dtype)


def prepare(problem: Problem) -> list[Product]:
    """The product of a linearization that is kept, and linearization and product together."""
    obj = objective(problem)
    H = obj.hessian(problem.theta)
    return [
        Product("pyhess", True, np.ascontiguousarray, lambda v: H @ v, np.asarray),
        Product(
            "pyhess, from scratch",
            False,
            np.ascontiguousarray,
            lambda v: obj.hvp(problem.theta, v),
            np.asarray,
            flops=problem.case.scratch_flops,
        ),
    ]


def prepare_batch(problem: Problem) -> list[Product]:
    """The products of linearizations that are kept, and linearizations and products together."""
    obj = objective(problem)
    kept = obj.linearize_batch(problem.thetas)
    return [
        Product("pyhess", True, np.ascontiguousarray, kept.hvp, np.asarray),
        Product(
            "pyhess, from scratch",
            False,
            np.ascontiguousarray,
            lambda v: obj.hvp_batch(problem.thetas, v),
            np.asarray,
            flops=problem.case.batch * problem.case.scratch_flops,
        ),
    ]


def yardsticks(problem: Problem) -> list[Contender]:
    """Other work of our own that the product is put beside."""
    obj, case = objective(problem), problem.case
    theta, v = problem.theta, problem.vector
    return [
        Contender("pyhess gradient", "ruler", lambda: obj.gradient(theta), flops=case.gradient_flops),
        Contender("pyhess curvature jet", "ruler", lambda: obj.curvature(theta, v), flops=case.jet_flops),
    ]
