"""Compiled enclosures against the Hessians and third derivatives they must contain."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import mpmath
import numpy as np
import pytest

import pyhess as ph
from pyhess.certify.boxes import _problem
from pyhess.certify.cell_bounds import largest_eigenvalue, residual_bounds
from pyhess.certify.residual_kernel import enclose
from pyhess.certify.scalar_ranges import CODES, activation_range
from pyhess.certify.taylor_kernel import derivatives, monomials

from .conftest import random_objective


def _effective(problem: Any, low: Any, high: Any) -> tuple[Any, Any]:
    scale = problem[5]
    return scale * low - 1e-15 * abs(scale * low), scale * high + 1e-15 * abs(scale * high)


def test_ranges_of_activations_and_their_derivatives() -> None:
    forms: dict[str, Any] = {
        "identity": lambda s: s,
        "tanh": mpmath.tanh,
        "sigmoid": lambda s: 1 / (1 + mpmath.exp(-s)),
        "softplus": lambda s: mpmath.log(1 + mpmath.exp(mpmath.mpf(3) * s)) / 3,
        "gelu": lambda s: s * mpmath.ncdf(s),
    }
    rng = np.random.default_rng(91)
    with mpmath.workdps(60):
        for name, form in forms.items():
            for order in range(4):
                for _ in range(12):
                    low = float(rng.normal() * 3)
                    high = low + float(10.0 ** rng.uniform(-9, 1))
                    found = activation_range(CODES[name], 3.0, order, low, high)
                    values = []
                    for s in np.linspace(low, high, 9):
                        # Taylor coefficients by differences of 60 digits: good to some 20.
                        values.append(float(mpmath.diff(form, mpmath.mpf(float(s)), order, h=mpmath.mpf(10) ** -15)))
                    assert found[0] <= min(values) + 1e-13 * (1 + abs(min(values))), (name, order, low, high)
                    assert found[1] >= max(values) - 1e-13 * (1 + abs(max(values))), (name, order, low, high)
                    if high - low < 1e-6:
                        assert found[1] - found[0] < 1e-4
    assert activation_range(CODES["relu"], 1.0, 1, -1.0, 1.0) == (0.0, 1.0)


def test_the_residual_part_is_enclosed() -> None:
    rng = np.random.default_rng(92)
    for turn in range(60):
        obj = random_objective(rng, relu=turn % 4 == 0)
        problem, size = _problem(obj), obj.num_params
        center, radius = rng.standard_normal(size) * float(rng.choice([0.0, 1.0])), 10.0 ** rng.uniform(-12, 0)
        low, high = center - radius, center + radius
        lo, hi = np.zeros((size, size)), np.zeros((size, size))
        ends = _effective(problem, low, high)
        assert enclose(*problem[:5], *ends, *problem[6:], lo, hi)
        scale = np.outer(problem[5], problem[5])
        for _ in range(3):
            theta = np.where(rng.random(size) < 0.5, low, rng.uniform(low, high))
            gauss = obj.gauss_newton(theta).to_dense()
            exact = obj.hessian(theta).to_dense() - gauss
            slack = 1e-10 * (np.abs(exact).max() + np.abs(gauss).max() + 1e-290)
            upper = np.triu(np.ones_like(lo)) > 0
            assert (lo * scale <= exact + slack)[upper].all() and (hi * scale >= exact - slack)[upper].all()


def test_taylor_coefficients_are_enclosed() -> None:
    rng = np.random.default_rng(93)
    count = 0
    while count < 25:
        obj = random_objective(rng)
        size = obj.num_params
        if size > 7:
            continue
        count += 1
        problem = _problem(obj)
        triples, shift, products = monomials(size)
        center, radius = rng.standard_normal(size), 10.0 ** rng.uniform(-10, 0)
        low, high = center - radius, center + radius
        lo, hi = np.zeros(len(triples)), np.zeros(len(triples))
        assert derivatives(*problem[:5], *_effective(problem, low, high), *problem[6:], shift, products, lo, hi)
        theta = rng.uniform(low, high)
        step = 1e-4
        hessian = obj.hessian(theta).to_dense()
        third = np.array(
            [(obj.hessian(theta + e).to_dense() - obj.hessian(theta - e).to_dense()) / (2 * step) for e in step * np.eye(size)]
        )
        exact: list[Any] = [None, obj.gradient(theta), hessian, third]
        for at, triple in enumerate(triples):
            where = [int(u) for u in triple if u >= 0]
            if not where:
                continue
            factor = math.prod(math.factorial(n) for n in Counter(where).values()) * math.prod(problem[5][u] for u in where)
            value = exact[len(where)][tuple(where)] / factor
            slack = (1e-5 if len(where) == 3 else 1e-9) * (1.0 + np.abs(hessian).max() + np.abs(third).max())
            assert lo[at] - slack <= value <= hi[at] + slack
            if radius < 1e-7:
                assert hi[at] - lo[at] <= 1e-2 * (1.0 + np.abs(hessian).max() + np.abs(third).max())


def test_the_largest_eigenvalue_of_comparison_matrices() -> None:
    rng = np.random.default_rng(94)
    for size in (1, 2, 5, 30):
        for density in (0.1, 0.5, 1.0):
            n = rng.random((size, size)) * (rng.random((size, size)) < density) * 10.0 ** rng.uniform(-200, 100)
            n = n + n.T
            n[np.diag_indices(size)] *= np.where(rng.random(size) < 0.5, -1.0, 1.0)
            exact = float(np.linalg.eigvalsh(n)[-1])
            bound = largest_eigenvalue(n, np.ones(size), 12)
            assert exact - 1e-12 * np.abs(n).max() <= bound <= exact + 1e-3 * np.abs(n).max()


def test_boxes_beyond_all_bounds_prove_nothing() -> None:
    obj = ph.Objective(ph.MLP([1, 2, 1], "identity"), ph.Dataset([[1e200]], [1.0]))
    size = obj.num_params
    bounds = np.zeros(1)
    residual_bounds(_problem(obj), np.full((1, size), -1e150), np.full((1, size), 1e150), bounds)
    assert bounds[0] == -np.inf


@pytest.mark.parametrize("radius", [1e-12, 1e3])
def test_extreme_radii(radius: float) -> None:
    rng = np.random.default_rng(95)
    for _ in range(10):
        obj = random_objective(rng)
        size = obj.num_params
        center = rng.standard_normal(size)
        bounds = np.zeros(1)
        residual_bounds(_problem(obj), (center - radius)[None], (center + radius)[None], bounds)
        for _ in range(3):
            theta = center + radius * rng.uniform(-1, 1, size)
            exact = float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0])
            assert bounds[0] <= exact + 1e-10 * (1.0 + abs(exact))
