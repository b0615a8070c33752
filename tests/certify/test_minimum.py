"""The certified lower bound of the loss's smallest value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import pyhess as ph
from pyhess.certify import certify
from pyhess.certify.minimum import _loss_and_gradient
from pyhess.errors import InputError, InputTypeError

from .conftest import random_objective, random_region


@pytest.mark.usefixtures("few_cells")
def test_ends_hold_and_the_gap_is_within_its_bound() -> None:
    rng = np.random.default_rng(233)
    for _ in range(15):
        obj = random_objective(rng)
        region = random_region(rng, obj.num_params).bind(obj)
        certificate = certify(obj, region, "moment")
        if not np.isfinite(certificate.psi_lower) or certificate.lam_upper > 1e8:
            continue
        found = ph.certify_minimum(obj, region, certificate)
        values = [obj.value(theta) for theta in region.sample(200, rng=rng)]
        assert 0.0 <= found.lower <= min(values) and found.lower <= found.upper
        assert region.contains(found.theta, atol=1e-12)
        assert obj.value(found.theta) <= found.upper * (1.0 + 1e-9) + 1e-12
        reach = region.radius**2 if isinstance(region, ph.Ball) else float((0.25 * (region.high - region.low) ** 2).sum())
        assert found.gap <= certificate.lam_upper * reach * (1.0 + 1e-6) + 1e-6 * (1.0 + found.upper)


def test_a_known_minimum() -> None:
    """1/2 (v w - 1)² over |v|, |w| <= r < 1 is smallest at the corner v = w = r."""
    obj = ph.Objective(ph.MLP([1, 1, 1], "identity", bias=False), ph.Dataset([[1.0]], [1.0]))
    for r in (0.05, 0.3, 0.8):
        found = ph.certify_minimum(obj, ph.Box(-r, r), start=[r, r])
        exact = 0.5 * (r**2 - 1.0) ** 2
        assert found.lower <= exact <= found.upper <= exact * (1.0 + 1e-12)
        assert found.gap <= 2.0 * found.lam * r**2 * 1.0001
    around = ph.certify_minimum(obj, ph.Box.around([1.0, 1.0], 0.01))
    assert around.lower == 0.0 and around.upper < 1e-12


def test_the_upper_end_is_not_a_saddle() -> None:
    """The convexified loss of a tanh network on a box about zero has its minimiser at a constant network."""
    rng = np.random.default_rng(313)
    obj = ph.Objective(ph.MLP([2, 3, 1]), ph.Dataset(rng.standard_normal((9, 2)), rng.standard_normal(9)))
    box = ph.Box(-0.5, 0.5).bind(obj)
    starts, bounds = box.sample(10, rng=rng), [(-0.5, 0.5)] * obj.num_params
    ends = [minimize(obj.value, start, jac=obj.gradient, bounds=bounds).fun for start in starts]
    found = ph.certify_minimum(obj, box)
    assert found.lower <= min(ends) and found.upper <= min(ends) * (1.0 + 1e-6)
    assert found.upper == pytest.approx(obj.value(found.theta), rel=1e-12)
    constant = np.zeros(obj.num_params)
    constant[-1] = np.clip(obj.targets.mean(), -0.5, 0.5)
    assert found.upper < 0.9 * obj.value(constant)


def test_a_convex_loss_has_no_gap() -> None:
    rng = np.random.default_rng(239)
    x, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    obj = ph.Objective(ph.MLP([3, 1]), ph.Dataset(x, y))
    found = ph.certify_minimum(obj, ph.Ball(0.0, 10.0))
    z = np.c_[x, np.ones(20)]
    exact = 0.5 * float(np.linalg.lstsq(z, y, rcond=None)[1][0]) / 20
    assert found.lam == 0.0
    assert found.lower <= exact * (1.0 + 1e-12) and found.upper >= exact * (1.0 - 1e-12)
    assert found.gap < 1e-5 * exact


@pytest.mark.parametrize("loss", ["squared_error", "logistic", "cross_entropy"])
def test_the_enclosures_hold_value_and_gradient(loss: str) -> None:
    rng = np.random.default_rng(241)
    outputs = 3 if loss == "cross_entropy" else 1
    x = rng.standard_normal((9, 2))
    y: Any = rng.standard_normal(9) if loss == "squared_error" else rng.integers(0, max(2, outputs), 9)
    obj = ph.Objective(ph.MLP([2, 3, outputs], "gelu", parametrization="ntk"), ph.Dataset(x, y, rng.uniform(1, 2, 9)), loss=loss)
    theta = rng.standard_normal(obj.num_params)
    value, slope = _loss_and_gradient(obj, theta)
    assert value.lo <= obj.value(theta) <= value.hi and value.hi - value.lo < 1e-10
    gradient = obj.gradient(theta)
    assert (slope.lo <= gradient + 1e-15).all() and (gradient - 1e-15 <= slope.hi).all() and (slope.hi - slope.lo).max() < 1e-10


def test_bad_arguments() -> None:
    obj = ph.Objective(ph.MLP([1, 2, 1], "relu"), ph.Dataset([[1.0]], [1.0]))
    with pytest.raises(InputError, match="ReLU"):
        ph.certify_minimum(obj, ph.Box(-1.0, 1.0))
    smooth = ph.Objective(ph.MLP([1, 2, 1]), obj.data)
    with pytest.raises(InputError, match="another problem"):
        ph.certify_minimum(smooth, ph.Box(-1.0, 1.0), certify(smooth, ph.Box(-2.0, 2.0), "moment"))
    with pytest.raises(InputTypeError, match="certificate is 3; pass what certify returns"):
        ph.certify_minimum(smooth, ph.Box(-1.0, 1.0), 3)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="Box and Ball"):
        ph.certify_minimum(smooth, ph.Intersection([ph.Box(-1.0, 1.0), ph.Ball(0.0, 1.0)]))
    with pytest.raises(InputTypeError, match=r"pyhess\.Objective"):
        ph.certify_minimum(3, ph.Box(-1.0, 1.0))  # type: ignore[arg-type]
