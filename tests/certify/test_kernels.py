"""Compiled enclosures against the Hessians and third derivatives they must contain."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify.boxes import _problem
from pyhess.certify.cell_bounds import largest_eigenvalue, residual_bounds
from pyhess.certify.intervals import Interval
from pyhess.certify.ranges import derivative_range
from pyhess.certify.residual_kernel import enclose
from pyhess.certify.scalar_ranges import CODES, activation_range
from pyhess.certify.taylor_kernel import derivatives, monomials

from .conftest import random_objective


def _effective(problem: Any, low: Any, high: Any) -> tuple[Any, Any]:
    scale = problem[5]
    return scale * low - 1e-15 * abs(scale * low), scale * high + 1e-15 * abs(scale * high)


def test_ranges_of_activations_and_their_derivatives() -> None:
    rng = np.random.default_rng(91)
    for name, code in CODES.items():
        for order in range(3):
            low = rng.standard_normal(300) * 3.0
            high = low + 10.0 ** rng.uniform(-9, 1, 300)
            expected = derivative_range(name, 3.0, order, Interval(low, high))
            for i in range(300):
                found = activation_range(code, 3.0, order, low[i], high[i])
                assert found == pytest.approx((expected.lo[i], expected.hi[i]), rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("order", [3, 4])
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "gelu"])
def test_ranges_of_higher_derivatives_of_activations(name: str, order: int) -> None:
    rng = np.random.default_rng(91)
    for _ in range(60):
        low = float(rng.standard_normal() * 3.0)
        high = low + float(10.0 ** rng.uniform(-9, 1))
        found = activation_range(CODES[name], 3.0, order, low, high)
        s, step = np.linspace(low, high, 4001), 1e-5
        above, below = (derivative_range(name, 3.0, order - 1, Interval.point(s + sign * step)).middle for sign in (1.0, -1.0))
        values = (above - below) / (2.0 * step)
        slack = 1e-7 * 10.0 ** (order - 3)
        assert found[0] <= values.min() + slack and values.max() <= found[1] + slack
        assert found[1] - found[0] <= np.ptp(values) + 1e-3 * (1.0 + np.ptp(values))


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


@pytest.mark.parametrize("degree", [3, 4])
def test_taylor_coefficients_are_enclosed(degree: int) -> None:
    rng = np.random.default_rng(93)
    count = 0
    while count < 25:
        obj = random_objective(rng)
        size = obj.num_params
        if size > 7:
            continue
        count += 1
        problem = _problem(obj)
        table, shift, products = monomials(size, degree)
        center, radius = rng.standard_normal(size), 10.0 ** rng.uniform(-10, 0)
        low, high = center - radius, center + radius
        lo, hi = np.zeros(len(table)), np.zeros(len(table))
        assert derivatives(*problem[:5], *_effective(problem, low, high), *problem[6:], degree, shift, products, lo, hi)
        theta = rng.uniform(low, high)
        exact: list[Any] = [None, obj.gradient(theta), obj.hessian(theta).to_dense(), _differences(obj, theta, 1e-4)]
        if degree == 4:
            step = 1e-3
            ends = [(_differences(obj, theta + e, step), _differences(obj, theta - e, step)) for e in step * np.eye(size)]
            exact.append(np.array([(above - below) / (2 * step) for above, below in ends]))
        largest = 1.0 + sum(np.abs(tensor).max() for tensor in exact[2:])
        for at, unknowns in enumerate(table):
            where = [int(u) for u in unknowns if u >= 0]
            if not where:
                continue
            factor = math.prod(math.factorial(n) for n in Counter(where).values()) * math.prod(problem[5][u] for u in where)
            value = exact[len(where)][tuple(where)] / factor
            slack = {1: 1e-9, 2: 1e-9, 3: 1e-5, 4: 1e-4}[len(where)] * largest
            assert lo[at] - slack <= value <= hi[at] + slack
            if radius < 1e-7:
                assert hi[at] - lo[at] <= 1e-2 * largest


def _differences(obj: ph.Objective, theta: Any, step: float) -> Any:
    """Third derivatives (P, P, P)."""
    ends = [(obj.hessian(theta + e).to_dense(), obj.hessian(theta - e).to_dense()) for e in step * np.eye(len(theta))]
    return np.array([(above - below) / (2 * step) for above, below in ends])


def test_the_largest_eigenvalue_of_comparison_matrices() -> None:
    rng = np.random.default_rng(94)
    for size in (1, 2, 5, 30):
        for density in (0.1, 0.5, 1.0):
            n = rng.random((size, size)) * (rng.random((size, size)) < density) * 10.0 ** rng.uniform(-200, 100)
            n = n + n.T
            n[np.diag_indices(size)] *= np.where(rng.random(size) < 0.5, -1.0, 1.0)
            exact = float(np.linalg.eigvalsh(n)[-1])
            bound = largest_eigenvalue(n, np.ones(size), 12)
            assert exact - 1e-12 * np.abs(n).max() <= bound <= exact + 1e-3 * np.abs(n).max() + 1e-280


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
