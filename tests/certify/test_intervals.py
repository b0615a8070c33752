"""Intervals, ranges and spectral bounds: enclosures of exact values, tight up to rounding."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from pyhess.certify.intervals import Interval, matmul, norms, sharp_matmul, up
from pyhess.certify.ranges import derivative_range
from pyhess.certify.spectral import eigval_max_bound, eigval_min_bound, norm_bound

NAMES = ("tanh", "sigmoid", "softplus", "gelu", "identity", "relu")


def random_interval(rng: np.random.Generator, shape: tuple[int, ...], spread: float = 1.0) -> Interval:
    lo = spread * rng.standard_normal(shape)
    return Interval(lo, lo + spread * np.abs(rng.standard_normal(shape)) * rng.integers(0, 2, shape))


def inside(rng: np.random.Generator, x: Interval) -> Any:
    """A point of the interval, often an end."""
    t = rng.choice([0.0, 1.0, 0.37], x.lo.shape)
    return np.clip(x.lo + t * (x.hi - x.lo), x.lo, x.hi)


def test_operations_enclose_exact_results() -> None:
    rng = np.random.default_rng(81)
    for _ in range(200):
        spread = 10.0 ** rng.uniform(-150, 100)
        a, b = random_interval(rng, (3,), spread), random_interval(rng, (3,), spread)
        x, y = inside(rng, a), inside(rng, b)
        for result, exact in (
            (a + b, [Fraction(p) + Fraction(q) for p, q in zip(x, y, strict=True)]),
            (a - b, [Fraction(p) - Fraction(q) for p, q in zip(x, y, strict=True)]),
            (a * b, [Fraction(p) * Fraction(q) for p, q in zip(x, y, strict=True)]),
        ):
            for lo, value, hi in zip(result.lo, exact, result.hi, strict=True):
                assert Fraction(lo) <= value <= Fraction(hi)


def test_products_of_matrices_enclose_exact_results() -> None:
    rng = np.random.default_rng(82)
    for _ in range(60):
        n, k, m = (int(rng.integers(1, 7)) for _ in range(3))
        spread = 10.0 ** rng.uniform(-20, 20)
        a, b = random_interval(rng, (n, k), spread), random_interval(rng, (k, m), 1.0 / spread)
        x, y = inside(rng, a), inside(rng, b)
        result = matmul(a, b)
        for i in range(n):
            for j in range(m):
                exact = sum((Fraction(x[i, t]) * Fraction(y[t, j]) for t in range(k)), Fraction(0))
                assert Fraction(result.lo[i, j]) <= exact <= Fraction(result.hi[i, j])


def test_sharp_products_enclose_and_are_exact_for_one_sign() -> None:
    rng = np.random.default_rng(90)
    gains = 0
    for _ in range(60):
        n, k, m = (int(rng.integers(1, 6)) for _ in range(3))
        a, b = random_interval(rng, (n, k)), random_interval(rng, (k, m))
        if rng.random() < 0.5:
            a = Interval(np.abs(a.lo), np.abs(a.lo) + np.abs(a.hi))
        plain, sharp = matmul(a, b), sharp_matmul(a, b)
        x, y = inside(rng, a), inside(rng, b)
        assert (sharp.lo >= plain.lo).all() and (sharp.hi <= plain.hi).all()
        for i in range(n):
            for j in range(m):
                exact = sum((Fraction(x[i, t]) * Fraction(y[t, j]) for t in range(k)), Fraction(0))
                assert Fraction(sharp.lo[i, j]) <= exact <= Fraction(sharp.hi[i, j])
        products = [p[:, :, None] * q[None, :, :] for p in (a.lo, a.hi) for q in (b.lo, b.hi)]
        lowest, highest = np.min(products, axis=0).sum(axis=1), np.max(products, axis=0).sum(axis=1)
        if ((a.lo >= 0) | (a.hi <= 0)).all() and a.radius.any() and b.radius.any():
            assert np.allclose(sharp.lo, lowest, rtol=1e-13, atol=1e-13)
            assert np.allclose(sharp.hi, highest, rtol=1e-13, atol=1e-13)
            gains += bool((sharp.lo > plain.lo + 1e-9).any())
    assert gains > 5


def test_a_product_of_points_is_tight() -> None:
    rng = np.random.default_rng(83)
    x, y = rng.standard_normal((20, 300)), rng.standard_normal((300, 7))
    result = matmul(Interval.point(x), Interval.point(y))
    assert (result.hi - result.lo).max() < 1e-10


def test_stacks_of_matrices() -> None:
    rng = np.random.default_rng(84)
    a, b = random_interval(rng, (4, 3)), random_interval(rng, (6, 3, 5))
    whole = matmul(a, b)
    for i in range(6):
        part = matmul(a, b[i])
        assert np.allclose(whole.lo[i], part.lo) and np.allclose(whole.hi[i], part.hi)


def test_norms_are_rounded_up() -> None:
    rng = np.random.default_rng(85)
    for spread in (1e-200, 1.0, 1e200):
        x = spread * rng.standard_normal((50, 9))
        for row, bound in zip(x, norms(x), strict=True):
            square = sum((Fraction(v) ** 2 for v in row), Fraction(0))
            assert Fraction(float(bound)) ** 2 >= square
            assert Fraction(float(bound)) ** 2 <= square * (1 + Fraction(1, 10**12))


def derivative(name: str, beta: float, order: int, s: Any) -> Any:
    """phi or one of its first three derivatives in extended precision, from textbook formulas."""
    s = np.asarray(s, dtype=np.longdouble)
    one = np.longdouble(1.0)
    if name == "identity":
        return (s, one + 0 * s, 0 * s, 0 * s)[order]
    if name == "relu":
        return (np.maximum(s, 0), (s > 0).astype(np.longdouble), 0 * s, 0 * s)[order]
    if name == "tanh":
        t, c = np.tanh(s), np.cosh(np.clip(s, -5000, 5000))
        return (t, one / c**2, -2 * t / c**2, (4 * t * t - 2 / c**2) / c**2)[order]
    if name == "sigmoid":
        p, q = one / (one + np.exp(-s)), one / (one + np.exp(s))
        return (p, p * q, -p * q * np.tanh(s / 2), p * q * (p * p - 4 * p * q + q * q))[order]
    if name == "softplus":
        z = beta * s
        p, q = one / (one + np.exp(-z)), one / (one + np.exp(z))
        return (np.logaddexp(0 * z, z) / beta, p, beta * p * q, -(beta**2) * p * q * np.tanh(z / 2))[order]
    import math

    cdf = np.array([math.erfc(-float(v) / math.sqrt(2.0)) / 2 for v in np.ravel(s)]).reshape(s.shape)
    pdf = np.exp(-s * s / 2) / np.sqrt(2 * np.longdouble(np.pi))
    return (s * cdf, cdf + s * pdf, pdf * (2 - s * s), pdf * (s**3 - 4 * s))[order]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_ranges_enclose_and_are_attained(name: str, order: int) -> None:
    rng = np.random.default_rng(86 + order)
    beta = 3.5 if name == "softplus" else 1.0
    for spread in (1e-8, 0.1, 1.0, 5.0, 60.0):
        lo = spread * rng.standard_normal(120)
        hi = lo + spread * np.abs(rng.standard_normal(120))
        found = derivative_range(name, beta, order, Interval(lo, hi))
        grid = lo + np.linspace(0.0, 1.0, 801)[:, None] * (hi - lo)
        values = derivative(name, beta, order, np.clip(grid, lo, hi))
        slack = 4e-16 * np.minimum(1.0, np.abs(grid) + 1.0) if name == "gelu" else 0.0  # the reference's own cdf is in double
        assert (values >= found.lo - slack).all() and (values <= found.hi + slack).all()
        if spread > 1.0:
            continue  # the grid is too coarse to say how tight the range is
        size = np.abs(values).max(axis=0) + 1e-30
        assert (values.min(axis=0) - found.lo <= 2e-3 * size + 1e-12).all()
        assert (found.hi - values.max(axis=0) <= 2e-3 * size + 1e-12).all() or (name, order) == ("relu", 1)


def test_saturated_slopes_keep_their_relative_accuracy() -> None:
    s = Interval(np.array([18.0, -30.0]), np.array([18.0, -30.0]))
    for name in ("tanh", "sigmoid"):
        slope = derivative_range(name, 1.0, 1, s)
        exact = derivative(name, 1.0, 1, s.lo)
        assert (slope.lo > 0.99 * exact).all() and (slope.hi < 1.01 * exact).all()


def test_eigenvalue_bounds_are_rigorous_and_close() -> None:
    rng = np.random.default_rng(88)
    for _ in range(60):
        size = int(rng.integers(1, 40))
        q, _ = np.linalg.qr(rng.standard_normal((size, size)))
        values = np.sort(rng.standard_normal(size) * 10.0 ** rng.uniform(-8, 8, size))
        a = (q * values) @ q.T
        a = 0.5 * (a + a.T)
        wide = np.linalg.eigvalsh(a)
        low, high = eigval_min_bound(a), eigval_max_bound(a)
        scale = np.abs(values).max()
        assert low <= wide[0] + 1e-15 * scale and high >= wide[-1] - 1e-15 * scale
        assert wide[0] - low < 1e-11 * scale and high - wide[-1] < 1e-11 * scale


def test_exactly_known_eigenvalues_are_not_passed() -> None:
    # Integer matrices with a known spectrum: the bounds may not be on the wrong side by a single bit.
    for size in (2, 5, 30):
        ones = np.ones((size, size))
        assert eigval_max_bound(ones) >= size and eigval_min_bound(ones) <= 0.0
        assert norm_bound(ones) >= size
        assert eigval_min_bound(-ones) <= -size


def test_norm_bound() -> None:
    rng = np.random.default_rng(89)
    for _ in range(60):
        shape = (int(rng.integers(1, 20)), int(rng.integers(1, 20)))
        a = rng.standard_normal(shape) * 10.0 ** rng.uniform(-200, 200)
        exact = np.linalg.norm(a / np.abs(a).max(), 2) * np.abs(a).max()
        assert exact * (1 - 1e-15) <= norm_bound(a) <= exact * (1 + 1e-6)
    assert norm_bound(np.zeros((3, 2))) == 0.0


def test_what_is_not_finite_bounds_nothing() -> None:
    bad = np.array([[1.0, np.inf], [np.nan, 2.0]])
    assert norm_bound(bad) == np.inf
    assert eigval_min_bound(bad) == -np.inf and eigval_max_bound(bad) == np.inf


def test_zeros_that_were_rounded_outwards_do_not_underflow_in_products() -> None:
    rng = np.random.default_rng(31)
    zeros, x = up(np.zeros((4, 6))), rng.standard_normal((6, 5))
    product = matmul(Interval(-zeros, zeros), Interval.point(x))
    assert (product.hi >= 5e-324 * np.abs(x).sum(axis=0)).all() and (product.lo <= -5e-324 * np.abs(x).sum(axis=0)).all()
    assert (product.radius > np.finfo(np.float64).tiny).all() and product.radius.max() < 1e-140
