"""Thresholds of tanh networks: the smallest by a scan of the whole region, real data against the best values known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

import pyhess as ph

# One unit, one datum, squared error: L = (w tanh(u) - 1)^2 / 2. Found once by branch and bound.
TINY = [(ph.Box(-1.0, 1.0), -1.7574765358), (ph.Box(-2.0, 2.0), -3.3628356771), (ph.Ball(radius=1.0), -1.554385237)]


def smallest_eigenvalue(u: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Of the two-by-two Hessian, written out by hand."""
    a = np.tanh(u)
    slope = 1.0 - a * a
    residual = w * a - 1.0
    uu = (w * slope) ** 2 - residual * w * 2.0 * a * slope
    ww = a * a
    uw = w * a * slope + residual * slope
    return (uu + ww) / 2.0 - np.hypot((uu - ww) / 2.0, uw)


def scanned(region: ph.Box | ph.Ball) -> float:
    """The smallest value over the region: a fine grid, then a polish from its best point."""
    r = float(region.radius) if isinstance(region, ph.Ball) else float(np.max(region.high))
    axis = np.linspace(-r, r, 801)
    u, w = np.meshgrid(axis, axis)
    inside = u**2 + w**2 <= r**2 if isinstance(region, ph.Ball) else np.ones(u.shape, bool)
    values = np.where(inside, smallest_eigenvalue(u, w), np.inf)
    best = np.unravel_index(values.argmin(), values.shape)
    if isinstance(region, ph.Ball):  # the optimum is on the circle or inside: polish both ways
        start = np.arctan2(w[best], u[best])
        angle = start + np.linspace(-0.02, 0.02, 40_001)
        return min(values[best], smallest_eigenvalue(r * np.cos(angle), r * np.sin(angle)).min())
    found = minimize(lambda x: smallest_eigenvalue(x[:1], x[1:])[0], [u[best], w[best]], bounds=[(-r, r)] * 2, tol=1e-14)
    return min(values[best], found.fun)


@pytest.mark.parametrize(("region", "psi"), TINY, ids=str)
def test_one_tanh_unit(region: ph.Box | ph.Ball, psi: float) -> None:
    obj = ph.Objective(ph.MLP([1, 1, 1], "tanh", bias=False), ph.Dataset(np.ones((1, 1)), np.ones(1)))
    assert scanned(region) == pytest.approx(psi, rel=1e-6)
    t = ph.lambda_threshold(obj, region, rng=7)
    assert t.lam_lower == pytest.approx(-psi / 2.0, rel=1e-9)
    assert t.lam_lower <= -psi / 2.0 * (1.0 + 1e-9) and -psi / 2.0 <= t.lam_upper


# Found by long searches; what uniform samples find is a tenth of it, or less.
@pytest.mark.parametrize(
    ("data", "widths", "radius", "psi"),
    [
        ("diabetes", [10, 8, 1], 1.0, -26.2702),
        ("diabetes", [10, 8, 8, 1], 1.0, -628.3685),
        ("diabetes", [10, 64, 1], 1.0, -211.2872),
        ("digits", [64, 16, 10], 0.5, -1.2202),
    ],
)
def test_best_known_values_on_real_data(data: str, widths: list[int], radius: float, psi: float) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    if data == "diabetes":
        raw = datasets.load_diabetes()
        x, y, loss = raw.data / raw.data.std(0), (raw.target - raw.target.mean()) / raw.target.std(), "squared_error"
    else:
        raw = datasets.load_digits()
        x, y, loss = ((raw.data - raw.data.mean(0)) / 16.0)[:500], raw.target[:500], "cross_entropy"
    obj = ph.Objective(ph.MLP(widths, "tanh"), ph.Dataset(x, y), loss=loss)
    t = ph.lambda_threshold(obj, ph.Box(-radius, radius), rng=7)
    assert t.psi_upper <= psi * (1.0 - 1e-3)
    assert t.lam_lower <= t.lam_upper < np.inf
    assert t.witness is not None and t.witness.check()
