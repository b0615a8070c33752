"""Quantiles of groups and power laws, against NumPy and SciPy one by one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import linregress, t

from pyhess.sweep.report.cells import combine
from pyhess.sweep.report.fits import group_quantiles, power_fit

SHARES = (0.5, 0.25, 0.75, 0.0, 1.0, 0.9)


def test_quantiles_are_those_of_each_group() -> None:
    rng = np.random.default_rng(20291)
    values, groups = rng.standard_normal(500), rng.integers(0, 60, 500)
    values[rng.random(500) < 0.1] = np.nan
    found = group_quantiles(values, groups, 63, SHARES)
    for group in range(63):
        mine = values[(groups == group) & ~np.isnan(values)]
        if mine.size:
            np.testing.assert_allclose(found[group], np.quantile(mine, SHARES), rtol=1e-13)
        else:
            assert np.isnan(found[group]).all()


def test_infinite_values_are_the_largest_and_never_make_nan() -> None:
    inf = np.inf
    found = group_quantiles(np.array([1.0, inf, 2.0, inf, inf, inf]), np.array([0, 0, 0, 1, 1, 2]), 3, (0.25, 0.5, 0.75, 1.0))
    np.testing.assert_array_equal(found, [[1.5, 2.0, inf, inf], [inf] * 4, [inf] * 4])
    assert group_quantiles(np.empty(0), np.empty(0, dtype=np.int64), 2, (0.5,)).shape == (2, 1)


def test_power_fit_is_linear_regression_of_logarithms() -> None:
    rng = np.random.default_rng(20292)
    x = 2.0 ** np.arange(1, 9)
    y = 3.0 * x**0.7 * rng.lognormal(0.0, 0.2, x.size)
    fit, expected = power_fit(x, y), linregress(np.log(x), np.log(y))
    assert fit is not None
    wide = t.ppf(0.975, x.size - 2) * expected.stderr
    np.testing.assert_allclose((fit.exponent, fit.low, fit.high), expected.slope + np.array([0.0, -wide, wide]), rtol=1e-10)
    np.testing.assert_allclose((fit.prefactor, fit.r_squared), (np.exp(expected.intercept), expected.rvalue**2), rtol=1e-10)
    np.testing.assert_allclose(fit.at(x), np.exp(expected.intercept + expected.slope * np.log(x)), rtol=1e-10)


def test_the_interval_holds_the_exponent_as_often_as_it_says() -> None:
    rng = np.random.default_rng(20293)
    x, held = 2.0 ** np.arange(1, 8), 0
    for _ in range(2000):
        fit = power_fit(x, x**0.5 * rng.lognormal(0.0, 0.1, x.size))
        assert fit is not None
        held += fit.low <= 0.5 <= fit.high
    assert abs(held / 2000 - 0.95) < 0.02


@pytest.mark.parametrize(
    ("x", "y"), [([1.0], [1.0]), ([2.0, 2.0], [1.0, 3.0]), ([1.0, 2.0], [0.0, 1.0]), ([1.0, 2.0], [np.inf, np.nan]), ([], [])]
)
def test_no_fit_through_fewer_than_two_points(x: list[float], y: list[float]) -> None:
    assert power_fit(x, y) is None


def test_two_points_have_no_interval() -> None:
    fit = power_fit([1.0, 4.0, 8.0], [1.0, 2.0, 0.0])
    assert fit is not None and fit.points == 2 and np.isnan(fit.low) and fit.exponent == pytest.approx(0.5)


def test_combinations_are_numbered_in_order() -> None:
    rng = np.random.default_rng(20294)
    codes = [rng.integers(0, k, 200) for k in (3, 7, 4)]
    combined, count = combine(codes, 200)
    expected, inverse = np.unique(np.stack(codes), axis=1, return_inverse=True)
    assert count == expected.shape[1]
    np.testing.assert_array_equal(combined, inverse)
    assert combine([], 3)[1] == 1 and combine([], 0)[1] == 0
