"""Upper ends for penalties with unequal weights: valid on samples, tight where that is known, and never overflowing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import certify, strength_bound
from pyhess.certify.strength import _is_enough, _smallest_strength

NONE = np.zeros(1, dtype=np.int32)


def objective(widths: list[int], activation: str, loss: str, **net: Any) -> ph.Objective:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((8, widths[0]))
    y = rng.integers(0, widths[-1], 8) if loss == "cross_entropy" else rng.standard_normal((8, widths[-1]))
    return ph.Objective(ph.MLP(widths, activation, **net), ph.Dataset(x, y), loss=loss)


def penalties(obj: ph.Objective) -> list[ph.Penalty]:
    w = np.exp(np.random.default_rng(7).uniform(-1.5, 1.5, obj.num_params))
    return [ph.WeightedL2(w), ph.GeometricL2().bind(obj)]


@pytest.mark.parametrize(
    ("widths", "activation", "loss", "net"),
    [
        ([2, 3, 1], "tanh", "squared_error", {}),
        ([2, 3, 2, 2], "softplus", "cross_entropy", {"parametrization": "ntk"}),
        ([1, 2, 1], "gelu", "squared_error", {"bias": False}),
    ],
)
@pytest.mark.parametrize("region", [ph.Box(-0.4, 0.3), ph.Ball(0.05, 0.7), ph.Box(-0.02, 0.01)])
def test_bounds_hold_everywhere(widths: list[int], activation: str, loss: str, net: Any, region: ph.Region) -> None:
    """H + diag c(lam_upper) has no negative eigenvalue at many points, vertices of the box among them."""
    obj = objective(widths, activation, loss, **net)
    bound = region.bind(obj)
    thetas = [*bound.sample(150, rng=11)]
    if isinstance(bound, ph.Box):
        bits = np.random.default_rng(13).random((150, obj.num_params)) < 0.5
        thetas += [*np.where(bits, bound.low, bound.high)]
    psi_lower = certify(obj, region).psi_lower
    for penalty in penalties(obj):
        upper = strength_bound(obj, bound, penalty, psi_lower)
        assert upper.lam_upper <= penalty.sufficient(-psi_lower) < math.inf
        c = penalty.curvature(upper.lam_upper, obj)
        for theta in thetas:
            values = np.linalg.eigvalsh(obj.hessian(theta).to_dense() + np.diag(c))
            assert values[0] >= -1e-12 * values[-1]


def test_matrices_beat_the_bound_of_psi_alone() -> None:
    obj = objective([2, 3, 1], "tanh", "squared_error")
    region = ph.Box(-0.5, 0.5).bind(obj)
    psi_lower = certify(obj, region, "moment").psi_lower
    for penalty in penalties(obj):
        upper = strength_bound(obj, region, penalty, psi_lower)
        assert upper.lam_upper - 1.0 < 0.8 * (penalty.sufficient(-psi_lower) - 1.0)
        assert "M" in upper.statement


def test_bounds_become_exact_on_small_regions() -> None:
    obj = objective([2, 3, 1], "tanh", "squared_error")
    theta = np.random.default_rng(17).standard_normal(obj.num_params)
    for penalty in penalties(obj):
        t = ph.lambda_threshold(obj, ph.Box.around(theta, 1e-6), penalty, rng=7, starts=8)
        assert t.lam_lower > 0.0 and t.ratio < 1.001


def test_free_biases_get_an_upper_end_where_they_are_definite() -> None:
    fit = np.array([1.2, 0.3, 0.9, -0.2])
    x = np.linspace(-1.5, 1.5, 7)[:, None]
    y = fit[2] * np.tanh(fit[0] * x[:, 0] + fit[1]) + fit[3] + 0.2 * np.cos(5.0 * x[:, 0])
    obj = ph.Objective(ph.MLP([1, 1, 1]), ph.Dataset(x, y))
    penalty = ph.L2(penalize="weights")
    for radius in (1e-3, 3e-3):
        t = ph.lambda_threshold(obj, ph.Box.around(fit, radius), penalty, rng=7, certificate="moment")
        assert t.psi_lower < 0.0  # the bound of psi alone would say nothing
        assert 0.0 <= t.lam_lower <= t.lam_upper < math.inf
        assert "Hessian at the centre" in str(t).replace("\n                ", " ")
    wide = ph.lambda_threshold(obj, ph.Box.around(fit, 0.5), penalty, rng=7)
    assert math.isinf(wide.lam_upper)


def test_smallest_strength_of_known_matrices() -> None:
    rng = np.random.default_rng(19)
    root = rng.standard_normal((6, 6))
    matrix = 0.5 * (root + root.T)
    w = rng.uniform(0.2, 3.0, 6)
    scale = 1.0 / np.sqrt(w)
    exact = -0.5 * float(np.linalg.eigvalsh(scale[:, None] * matrix * scale)[0])
    found = _smallest_strength(matrix, ph.WeightedL2(w), math.inf, NONE)
    assert exact <= found <= exact * (1.0 + 1e-6)
    assert _smallest_strength(matrix, ph.WeightedL2(w), 0.5 * exact, NONE) == math.inf
    assert _smallest_strength(root @ root.T, ph.WeightedL2(w), math.inf, NONE) == 0.0
    # -h at the place k: (h/2)^(1/k)
    for k, h in ((1, 0.5), (3, 60.0), (6, 1e-4)):
        m = np.zeros((6, 6))
        m[k - 1, k - 1] = -h
        value = _smallest_strength(m, ph.GeometricL2().bind(6), math.inf, NONE)
        assert (h / 2) ** (1 / k) <= value <= (h / 2) ** (1 / k) * (1.0 + 1e-6)
    assert _smallest_strength(np.full((6, 6), np.nan), ph.GeometricL2().bind(6), math.inf, NONE) == math.inf


def test_800_powers_of_three() -> None:
    """-6 at the first place takes lam = 3, whose 800th power is no number."""
    m = np.zeros((800, 800))
    m[0, 0] = -6.0
    m[799, 799] = -1e200
    with np.errstate(over="raise", invalid="raise"):
        penalty = ph.GeometricL2().bind(800)
        assert not _is_enough(m, penalty, 3.0 * (1.0 - 1e-9), proved=False)
        assert _is_enough(m, penalty, 3.0 * (1.0 + 1e-9), proved=True)


def test_plain_penalties_need_no_matrix() -> None:
    obj = objective([2, 3, 1], "tanh", "squared_error")
    region = ph.Box(-0.3, 0.3).bind(obj)
    for penalty in (ph.L2(), ph.ShiftedL2(0.3)):
        bound = strength_bound(obj, region, penalty, -3.0)
        assert bound.lam_upper == 1.5 and bound.statement == ""


def test_a_cancelled_bound_is_the_one_from_psi() -> None:
    obj = objective([2, 3, 1], "tanh", "squared_error")
    penalty = ph.WeightedL2(np.linspace(0.5, 2.0, 13))
    stopped = strength_bound(obj, ph.Box(-0.3, 0.3).bind(obj), penalty, -3.0, cancel=np.ones(1, dtype=np.int32))
    assert stopped.lam_upper == pytest.approx(3.0, rel=1e-12)
