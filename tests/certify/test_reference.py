"""The arithmetic and the formulas of the independent check, against mathematics that is known otherwise."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.special

import pyhess as ph
from pyhess.certify import reference_interval as exact
from pyhess.certify.reference_cover import Target, is_covered
from pyhess.certify.reference_hessian import Problem, box_cells, enclosures
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_jets import derivatives
from pyhess.certify.reference_ranges import activation
from pyhess.certify.reference_tests import not_below, positive_pivots

from .conftest import random_objective

FUNCTIONS = [
    (exact.exp, np.exp),
    (exact.tanh, np.tanh),
    (exact.logistic, scipy.special.expit),
    (exact.softplus, lambda x: np.logaddexp(0.0, x)),
    (exact.normal, scipy.special.ndtr),
]


@pytest.mark.parametrize(("ours", "theirs"), FUNCTIONS)
def test_functions_enclose_and_are_sharp(ours: Any, theirs: Any) -> None:
    x = np.concatenate([np.linspace(-30.0, 30.0, 401), [0.0, 1e-12, -1e-12, 1e-300]])
    found, value = ours(Range(wide(x))), theirs(x)
    assert (found.lo <= value + 1e-14 * np.abs(value)).all() and (found.hi >= value - 1e-14 * np.abs(value)).all()
    assert (found.hi - found.lo <= 1e-15 * np.maximum(np.abs(value), 0.1)).all()


def test_identities_beyond_double_precision() -> None:
    x = wide(np.linspace(-7.0, 7.0, 57))
    one = exact.exp(Range(x)) * exact.exp(Range(-x))
    assert (one.lo <= 1.0).all() and (one.hi >= 1.0).all() and (one.hi - one.lo < 1e-15).all()
    doubled, tanh = exact.tanh(Range(2.0 * x)), exact.tanh(Range(x))
    formula = Range(wide(2.0)) * tanh / (Range(wide(1.0)) + tanh.square())
    assert (doubled.lo <= formula.hi).all() and (formula.lo <= doubled.hi).all()
    step = exact.softplus(Range(x)) - exact.softplus(Range(-x))
    assert (step.lo <= x).all() and (x <= step.hi).all()


def test_products_of_ranges_hold_exact_products() -> None:
    rng = np.random.default_rng(1117)
    a, b = rng.standard_normal((2, 3, 5)), rng.standard_normal((5, 4))
    da, db = 10.0 ** rng.uniform(-18, 0, a.shape), 10.0 ** rng.uniform(-18, 0, b.shape)
    a[0, 0], da[0, 0] = 0.0, 0.0
    found = exact.matmul(Range(wide(a - da), wide(a + da)), Range(wide(b - db), wide(b + db)))
    for _ in range(10):
        x, y = (np.where(rng.random(c.shape) < 0.5, c - d, c + d) for c, d in ((a, da), (b, db)))
        for s, i, j in np.ndindex(2, 3, 4):
            product = sum(Fraction(float(x[s, i, k])) * Fraction(float(y[k, j])) for k in range(5))
            low, high = found.lo[s, i, j], found.hi[s, i, j]
            assert Fraction(*low.as_integer_ratio()) <= product <= Fraction(*high.as_integer_ratio())


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "gelu", "identity"])
def test_ranges_hold_the_derivatives_and_their_extremes(name: str) -> None:
    rng = np.random.default_rng(269)
    ends = np.sort(rng.normal(0.0, 2.0, (60, 2)), axis=1)
    for order in range(4):
        found = activation(name, 1.7, order, Range(wide(ends[:, 0]), wide(ends[:, 1])))
        inside = ends[:, :1] + np.linspace(0.0, 1.0, 201) * (ends[:, 1:] - ends[:, :1])
        inside = np.clip(inside, ends[:, :1], ends[:, 1:])
        values = activation(name, 1.7, order, Range(wide(inside)))
        assert (values.hi >= found.lo[:, None]).all() and (values.lo <= found.hi[:, None]).all()
        assert (found.hi - values.hi.max(axis=1) < 1e-2).all() and (values.lo.min(axis=1) - found.lo < 1e-2).all()
        if order:
            h = 1e-5
            x = inside[:, 100]
            below, above = (activation(name, 1.7, order - 1, Range(wide(x + d))).lo.astype(float) for d in (-h, h))
            assert activation(name, 1.7, order, Range(wide(x))).lo.astype(float) == pytest.approx(
                (above - below) / (2 * h), abs=1e-7
            )


def test_hessians_at_points_and_boxes() -> None:
    rng = np.random.default_rng(271)
    for _ in range(6):
        obj = random_objective(rng)
        problem = Problem.of(obj)
        centre = rng.standard_normal(obj.num_params)
        point = wide(centre)[None]
        _, whole = enclosures(problem, box_cells(problem, point, point), gauss=True)
        dense = obj.hessian(centre).to_dense()
        assert whole is not None
        assert np.abs(whole.lo[0].astype(float) - dense).max() <= 1e-11 * (1.0 + np.abs(dense).max())
        wider = 10.0 ** rng.uniform(-3, 0)
        _, whole = enclosures(problem, box_cells(problem, point - wider, point + wider), gauss=True)
        assert whole is not None
        for _ in range(5):
            dense = obj.hessian(centre + wider * rng.uniform(-1, 1, centre.size)).to_dense()
            room = 1e-11 * (1.0 + np.abs(dense).max())
            assert (whole.lo[0] <= dense + room).all() and (dense - room <= whole.hi[0]).all()


@pytest.mark.parametrize("loss", ["squared_error", "logistic", "cross_entropy"])
def test_third_derivatives_are_the_slopes_of_the_second(loss: str) -> None:
    rng = np.random.default_rng(277)
    outputs = 2 if loss == "cross_entropy" else 1
    y: Any = rng.standard_normal(4) if loss == "squared_error" else rng.integers(0, 2, 4)
    obj = ph.Objective(
        ph.MLP([1, 1, outputs], "gelu", parametrization="ntk"), ph.Dataset(rng.standard_normal((4, 1)), y), loss=loss
    )
    theta, h = rng.standard_normal(obj.num_params), 1e-5
    second, third = derivatives(Problem.of(obj), wide(theta)[None], wide(theta)[None], (2, 3))
    assert second.lo[0].astype(float) == pytest.approx(obj.hessian(theta).to_dense(), abs=1e-14)
    for k, unit in enumerate(np.eye(theta.size)):
        slope = (obj.hessian(theta + h * unit).to_dense() - obj.hessian(theta - h * unit).to_dense()) / (2.0 * h)
        assert third.lo[0, k].astype(float) == pytest.approx(slope, abs=1e-8)


def test_eigenvalue_tests_are_neither_false_nor_blind() -> None:
    rng = np.random.default_rng(281)
    for size in (1, 3, 12):
        a = rng.standard_normal((40, size, size))
        a = a + np.swapaxes(a, 1, 2)
        lowest = np.linalg.eigvalsh(a)[:, 0]
        for matrix, value in zip(a, lowest, strict=True):
            point = Range(wide(matrix)[None])
            assert positive_pivots(point, value - 1e-9)[0] and not positive_pivots(point, value + 1e-9)[0]
            assert not_below(point, value - 1e-9)[0] and not not_below(point, value + 1e-9)[0]
            wider = Range(point.lo - 0.01, point.hi + 0.01)
            assert not not_below(wider, value)[0] and not_below(wider, value - 0.0101 * size)[0]


def test_covers_with_and_without_gaps() -> None:
    target = Target(np.zeros(2), np.ones(2))
    # Five boxes like a pinwheel: no cut goes through without cutting one.
    low = np.array([[0.0, 0.0], [0.6, 0.0], [0.4, 0.6], [0.0, 0.4], [0.4, 0.4]])
    high = np.array([[0.6, 0.4], [1.0, 0.6], [1.0, 1.0], [0.4, 1.0], [0.6, 0.6]])
    assert is_covered(low, high, target)
    for gone in range(5):
        keep = np.arange(5) != gone
        assert not is_covered(low[keep], high[keep], target)
    high[1, 1] = np.nextafter(0.6, 0.0)
    assert not is_covered(low, high, target)
