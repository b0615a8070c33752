"""Known thresholds: closed forms, tanh networks small enough to scan, real data against the best values known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import pyhess as ph

#: psi of the problems in conftest to ten digits, as a table that does not share the code of their closed forms.
PSI = {
    "B1 x=1.0": -2.125,
    "B1 x=0.7": -1.26,
    "B2 x=1.0": -2.69,
    "B2 x=0.7": -1.1081,
    "B3 x=1.0": -0.7549149869,
    "B3 x=2.0": -1.4621171573,
    "B4 x=1.0": -0.8442241599,
    "B4 x=2.0": -1.9341472104,
    "C1 R=1.5": -1.8181092385,
    "C1 R=1.0": -0.8862898841,
    "C1 R=3.0": -6.8765058589,
    "C2": -1.4265890263,
    "C3": -3.5352768053,
    "C4": -0.8112278473,
    "C5": -1.7179040639,
    "C6": -2.2077217702,
}


def test_closed_forms_are_attained_by_the_search(two_parameter_problems: Any, deep_linear_problems: Any) -> None:
    cases = [*two_parameter_problems, *deep_linear_problems]
    assert {case.name for case in cases} == set(PSI)
    for case in cases:
        assert case.psi == pytest.approx(PSI[case.name], abs=5.1e-11), case.name
        t = ph.lambda_threshold(case.obj, case.region, rng=17, certificate=None)
        assert t.lam_lower == pytest.approx(-case.psi / 2.0, rel=1e-9), case.name
        assert t.lam_lower <= -case.psi / 2.0 * (1.0 + 1e-12), case.name


def test_any_width_of_a_linear_network_has_the_same_threshold(deep_linear_problems: Any) -> None:
    case = next(case for case in deep_linear_problems if case.name == "C1 R=1.5")
    for width in (2, 3, 8):
        obj = ph.Objective(ph.MLP([2, width, 1], "identity", bias=False), case.obj.data)
        assert ph.search(obj, case.region, rng=17, starts=20).lam_lower == pytest.approx(-case.psi / 2.0, rel=1e-9)


def test_linear_regression_needs_no_penalty(deep_linear_problems: Any) -> None:
    data = deep_linear_problems[0].obj.data
    assert np.linalg.eigvalsh(data.X.T @ data.X / 4.0)[0] == pytest.approx(0.75, abs=1e-15)
    for region in (ph.Box(-1.0, 1.0), ph.Ball(radius=3.0)):
        t = ph.lambda_threshold(ph.Objective(ph.MLP([2, 1], bias=False), data), region, rng=7)
        assert t.psi_upper == pytest.approx(0.75, rel=1e-12) and (t.lam_lower, t.lam_upper) == (0.0, 0.0)


# One unit, one datum x = 1, squared error: L = (w tanh(u) - y)^2 / 2. Found once by branch and bound, to 1e-6.
TINY = [
    (1.0, ph.Box(-1.0, 1.0), -1.7574765358),
    (0.0, ph.Box(-2.0, 2.0), -1.9031347009),
    (1.0, ph.Box(-2.0, 2.0), -3.3628356771),
    (-0.5, ph.Box([-3.0, -1.0], [3.0, 1.0]), -1.2004066757),
    (1.0, ph.Ball(radius=1.0), -1.5543852370),
    (1.0, ph.Ball(radius=2.0), -3.0296227667),
]


def smallest_eigenvalue(u: np.ndarray, w: np.ndarray, y: float) -> np.ndarray:
    """Of the two-by-two Hessian, written out by hand."""
    a = np.tanh(u)
    slope = 1.0 - a * a
    residual = w * a - y
    uu = (w * slope) ** 2 - residual * w * 2.0 * a * slope
    ww = a * a
    uw = w * a * slope + residual * slope
    return (uu + ww) / 2.0 - np.hypot((uu - ww) / 2.0, uw)


def scanned(region: ph.Box | ph.Ball, y: float) -> float:
    """The smallest value over the region: a fine grid, then a polish from its best point."""
    half = np.full(2, float(region.radius)) if isinstance(region, ph.Ball) else np.broadcast_to(region.high, 2)
    u, w = np.meshgrid(*(np.linspace(-r, r, 801) for r in half))
    inside = u**2 + w**2 <= half[0] ** 2 if isinstance(region, ph.Ball) else np.ones(u.shape, bool)
    values = np.where(inside, smallest_eigenvalue(u, w, y), np.inf)
    best = np.unravel_index(values.argmin(), values.shape)
    if isinstance(region, ph.Ball):  # the optimum is on the circle or inside: polish both ways
        start = np.arctan2(w[best], u[best])
        angle = start + np.linspace(-0.02, 0.02, 40_001)
        return min(values[best], smallest_eigenvalue(half[0] * np.cos(angle), half[0] * np.sin(angle), y).min())
    bounds = [(-r, r) for r in half]
    found = minimize(lambda x: smallest_eigenvalue(x[:1], x[1:], y)[0], [u[best], w[best]], bounds=bounds, tol=1e-14)
    return min(values[best], found.fun)


@pytest.mark.parametrize(("y", "region", "psi"), TINY, ids=str)
def test_one_tanh_unit(y: float, region: ph.Box | ph.Ball, psi: float) -> None:
    obj = ph.Objective(ph.MLP([1, 1, 1], "tanh", bias=False), ph.Dataset(np.ones((1, 1)), np.full(1, y)))
    assert scanned(region, y) == pytest.approx(psi, rel=1e-6)
    t = ph.lambda_threshold(obj, region, rng=7)
    assert t.lam_lower == pytest.approx(-psi / 2.0, rel=1e-9)
    assert t.lam_lower <= -psi / 2.0 * (1.0 + 1e-9) and -psi / 2.0 <= t.lam_upper


# Found by long searches; what uniform samples find is a tenth of it, or less.
@pytest.mark.parametrize(
    ("data", "widths", "radius", "psi"),
    [
        ("diabetes", [10, 8, 1], 1.0, -26.2702),
        ("diabetes", [10, 8, 8, 1], 1.0, -1229.9376),
        ("diabetes", [10, 64, 1], 1.0, -211.2872),
        ("digits", [64, 16, 10], 0.5, -1.2333),
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
    t = ph.lambda_threshold(obj, ph.Box(-radius, radius), rng=7, certificate="moment")
    assert t.psi_upper <= psi * (1.0 - 1e-3)
    assert t.lam_lower <= t.lam_upper < np.inf
    assert t.witness is not None and t.witness.check()
