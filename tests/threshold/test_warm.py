"""Warm starts: they take part, at least as well as they came, and leave the other starts alone; duplicated hidden units."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.errors import InputError, InputTypeError
from pyhess.threshold.search_run import NativeRun, Run
from pyhess.threshold.widening import padded

search_module = import_module("pyhess.threshold.search")


def quotient(obj: ph.Objective, theta: np.ndarray, v: np.ndarray) -> float:
    return float(obj.curvature(theta, v).q) / float(v @ v)


def first_starts(
    monkeypatch: pytest.MonkeyPatch, obj: ph.Objective, region: ph.Region, states: list[Any] | None = None, **options: Any
) -> Run:
    """The run of a search as it stood before the first descent; the state of its generator is added to ``states``."""
    runs: list[Run] = []

    def stop_here(run: Run, penalty: ph.Penalty, rng: np.random.Generator) -> None:
        runs.append(run)
        if states is not None:
            states.append(rng.bit_generator.state)
        raise RuntimeError

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(search_module, "hunt", stop_here)
        ph.search(obj, region, rng=7, starts=10, **options)
    return runs[0]


REGIONS = [ph.Box(-0.7, 0.4), ph.Ball(0.1, 1.3), ph.Intersection([ph.Box(-0.7, 0.7), ph.Ball(radius=1.5)])]


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: region.kind)
def test_the_other_starts_stay_as_they_were(problem: Any, region: ph.Region, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem([3, 4, 2], "tanh", "cross_entropy")
    rng = np.random.default_rng(5)
    thetas, v = 2.0 * rng.standard_normal((2, obj.num_params)), rng.standard_normal(obj.num_params)
    states: list[Any] = []
    plain = first_starts(monkeypatch, obj, region, states)
    warm = first_starts(monkeypatch, obj, region, states, warm=[(thetas[0], v), (list(thetas[1]), None)])
    assert states[0] == states[1]
    assert warm.names == ["warm", "warm", *plain.names]
    assert np.array_equal(warm.zs[2:], plain.zs)
    for i, theta in enumerate(thetas):
        assert warm.theta(i) == pytest.approx(region.bind(obj).project(theta), abs=1e-14)
    assert warm.direction(0) == pytest.approx(v / np.linalg.norm(v), abs=1e-14)
    # Without a direction: that of the smallest eigenvalue, whatever the other pairs.
    again = first_starts(monkeypatch, obj, region, warm=[(thetas[0], None), (thetas[1], None)])
    assert np.array_equal(again.zs[1], warm.zs[1])
    for i in range(2):
        point, direction = again.theta(i), again.direction(i)
        lowest = np.linalg.eigvalsh(obj.hessian(point).to_dense())[0]
        assert direction @ obj.hvp(point, direction) == pytest.approx(lowest, rel=0.02)


def test_directions_count_in_the_scale_of_the_penalty(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem([3, 4, 2], "tanh", "cross_entropy")
    weights = 10.0 ** np.random.default_rng(5).uniform(-4.0, 4.0, obj.num_params)
    penalty = ph.WeightedL2(weights)
    theta, v = np.random.default_rng(6).standard_normal((2, obj.num_params))
    run = first_starts(monkeypatch, obj, ph.Ball(radius=1.0), penalty=penalty, warm=(theta, v))
    run.scale = penalty.scale(1.0, obj.num_params)
    assert run.direction(0) == pytest.approx(v / np.linalg.norm(v), rel=1e-12)


@pytest.mark.parametrize(
    ("region", "penalty"),
    [
        *((region, ph.L2()) for region in REGIONS),
        *((region, ph.WeightedL2(np.linspace(0.2, 3.0, 26))) for region in REGIONS),
        *((region, ph.GeometricL2()) for region in REGIONS[:2]),
    ],
    ids=lambda value: value.kind,
)
def test_never_worse_than_a_warm_start(problem: Any, region: ph.Region, penalty: ph.Penalty) -> None:
    obj = problem([3, 4, 2], "tanh", "squared_error")
    best = ph.search(obj, region, penalty=penalty, rng=7, starts=20 if region is not REGIONS[2] else 2)
    again = ph.search(obj, region, penalty=penalty, rng=8, starts=2, warm=(best.theta, 5.0 * best.v))
    assert again.lam_lower >= best.lam_lower * (1.0 - 1e-12)
    assert again.num_starts == 3


def test_warm_starts_come_first_when_time_is_short(problem: Any) -> None:
    rng = np.random.default_rng(37)
    data = ph.Dataset(rng.standard_normal((3000, 40)), rng.integers(0, 5, 3000))
    obj = ph.Objective(ph.MLP([40, 50, 50, 5]), data, loss="cross_entropy")
    box = ph.Box(-0.5, 0.5)
    v = rng.standard_normal(obj.num_params)
    theta = box.sample(1, obj, rng=3)[0]
    found = ph.search(obj, box, rng=41, time_limit=0.3, warm=(theta, v))
    assert found.interrupted
    assert found.psi_upper <= quotient(obj, theta, v) * (1.0 + 1e-12) + 1e-12


def test_a_time_that_is_over_before_it_begins_loses_no_warm_start(problem: Any) -> None:
    obj = problem([3, 4, 2], "tanh", "squared_error")
    box = ph.Box(-0.7, 0.4)
    best = ph.search(obj, box, rng=7, starts=20)
    for penalty in (ph.L2(), ph.WeightedL2(np.linspace(0.2, 3.0, obj.num_params))):
        least = penalty.bind(obj).strength(best.psi_upper, best.v)
        found = ph.search(obj, box, penalty=penalty, rng=8, time_limit=1e-9, warm=(best.theta, best.v))
        assert found.lam_lower >= least * (1.0 - 1e-12)
        t = ph.lambda_threshold(obj, box, penalty, rng=8, time_limit=1e-9, warm=(best.theta, best.v))
        assert t.stats["interrupted"] and t.lam_lower >= least * (1.0 - 1e-9)


def test_biases_left_out_accept_a_direction_within_the_weights(problem: Any) -> None:
    obj = problem([3, 4, 1], "tanh", "squared_error")
    penalty = ph.L2(penalize="weights").bind(obj)
    v = np.where(penalty.leaves_out(obj.num_params), 0.0, 1.0)
    for region in REGIONS:
        found = ph.search(obj, region, penalty=penalty, rng=7, starts=4, warm=(np.zeros(obj.num_params), v))
        assert np.isfinite(found.psi_upper)


def test_lambda_threshold_passes_them_on(problem: Any) -> None:
    obj = problem([3, 4, 2], "tanh", "squared_error")
    box = ph.Box(-0.7, 0.4)
    best = ph.search(obj, box, rng=7, starts=20)
    t = ph.lambda_threshold(obj, box, rng=8, starts=2, certificate=None, warm=[(best.theta, best.v)])
    assert t.stats["num_starts"] == 3
    assert t.lam_lower == pytest.approx(best.lam_lower, rel=1e-9)
    relu = problem([3, 4, 2], "relu", "squared_error")
    theta = np.random.default_rng(2).uniform(-1, 1, relu.num_params)
    kinks = [
        ph.lambda_threshold(relu, ph.Box(-1.0, 1.0), rng=7, starts=2, certificate=None, warm=warm).kink
        for warm in (None, (theta, None))
    ]
    assert kinks[0] is not None and kinks[1] is not None
    assert not np.array_equal(kinks[0].theta, kinks[1].theta)


@pytest.mark.parametrize(
    ("warm", "error", "text"),
    [
        (3.0, InputTypeError, "one pair"),
        (np.zeros(26), InputTypeError, "one pair"),
        ([np.zeros(26)], InputTypeError, r"warm\[0\]"),
        ((np.zeros(25), None), InputError, r"\(25,\)"),
        ([(np.zeros(26), np.ones(26)), (np.zeros(26), np.ones(3))], InputError, r"warm\[1\]: v"),
        ((np.full(26, np.nan), None), InputError, "nan"),
        ((np.zeros(26), np.zeros(26)), InputError, "zero vector"),
    ],
)
def test_bad_pairs_are_named(problem: Any, warm: Any, error: type[Exception], text: str) -> None:
    obj = problem([3, 4, 2], "tanh", "squared_error")
    for call in (ph.search, ph.lambda_threshold):
        with pytest.raises(error, match=text):
            call(obj, ph.Box(-1.0, 1.0), rng=7, warm=warm)


# --- duplicated units ------------------------------------------------------------------------------------------------

WIDTHS = [([3, 4, 2], [3, 9, 2]), ([3, 2, 3, 1], [3, 6, 7, 1]), ([2, 1, 1, 1, 2], [2, 5, 4, 3, 2])]


@pytest.mark.parametrize("parametrization", ["standard", "ntk"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("small", "large"), WIDTHS)
def test_duplicated_units_compute_the_same(problem: Any, small: Any, large: Any, bias: bool, parametrization: str) -> None:
    narrow = problem(small, "gelu", "squared_error", bias=bias, parametrization=parametrization)
    wide = problem(large, "gelu", "squared_error", bias=bias, parametrization=parametrization)
    assert narrow.data == wide.data
    rng = np.random.default_rng(17)
    theta, v = rng.standard_normal((2, narrow.num_params))
    theta_wide, v_wide = ph.widen(narrow.net, wide.net, theta, v)
    assert v_wide is not None and theta_wide.shape == (wide.num_params,)
    # f(T theta + t T v) = f(theta + t v) for all t: value, slope and curvature along v are the same, up to rounding.
    for t in (0.0, 0.3, -2.0):
        assert wide.value(theta_wide + t * v_wide) == pytest.approx(narrow.value(theta + t * v), rel=1e-14)
    assert wide.gradient(theta_wide) @ v_wide == pytest.approx(narrow.gradient(theta) @ v, rel=1e-12)
    scale = np.linalg.norm(narrow.hvp(theta, v)) * np.linalg.norm(v)
    assert wide.curvature(theta_wide, v_wide).q == pytest.approx(narrow.curvature(theta, v).q, abs=1e-13 * scale)
    assert wide.ggn_vp(theta_wide, v_wide) @ v_wide == pytest.approx(narrow.ggn_vp(theta, v) @ v, rel=1e-12)
    alone, none = ph.widen(narrow.net, wide.net, theta)
    assert none is None and np.array_equal(alone, theta_wide)


def test_entries_of_duplicated_units() -> None:
    small, large = ph.MLP([2, 2, 1], parametrization="ntk"), ph.MLP([2, 5, 1], parametrization="ntk")
    theta = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    (w1, b1), (w2, b2) = large.unpack(ph.widen(small, large, theta)[0])
    assert w1.tolist() == [[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]
    assert b1 is not None and b1.tolist() == [5.0, 6.0, 5.0, 6.0, 5.0]
    factor = np.sqrt(5.0 / 2.0)  # kappa = 1/sqrt(2) against 1/sqrt(5); three copies of the first unit, two of the second
    assert w2[0] == pytest.approx(factor * np.array([7.0 / 3.0, 4.0, 7.0 / 3.0, 4.0, 7.0 / 3.0]), rel=1e-15)
    assert b2 is not None and b2 == pytest.approx(9.0 * factor, rel=1e-15)


@pytest.mark.parametrize("parametrization", ["standard", "ntk"])
@pytest.mark.parametrize(("small", "large"), WIDTHS)
def test_units_at_zero_compute_the_same(problem: Any, small: Any, large: Any, parametrization: str) -> None:
    narrow = problem(small, "softplus", "squared_error", parametrization=parametrization)
    wide = problem(large, "softplus", "squared_error", parametrization=parametrization)
    theta, v = np.random.default_rng(19).standard_normal((2, narrow.num_params))
    theta_wide, v_wide = (padded(narrow.net, wide.net, vector) for vector in (theta, v))
    for t in (0.0, -1.5):
        assert wide.value(theta_wide + t * v_wide) == pytest.approx(narrow.value(theta + t * v), rel=1e-13)
    scale = np.linalg.norm(narrow.hvp(theta, v)) * np.linalg.norm(v)
    assert wide.curvature(theta_wide, v_wide).q == pytest.approx(narrow.curvature(theta, v).q, abs=1e-13 * scale)
    if parametrization == "standard":  # lengths, and so quotients, balls and boxes are the narrow network's
        assert np.sort(theta_wide[theta_wide != 0.0]) == pytest.approx(np.sort(theta), rel=1e-15)
        assert quotient(wide, theta_wide, v_wide) == pytest.approx(quotient(narrow, theta, v), rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("parametrization", ["standard", "ntk"])
def test_a_widened_pair_is_a_usable_start(problem: Any, parametrization: str) -> None:
    narrow = problem([3, 2, 2, 1], "tanh", "squared_error", parametrization=parametrization)
    wide = problem([3, 5, 6, 1], "tanh", "squared_error", parametrization=parametrization)
    box = ph.Box(-1.0, 1.0)
    found = ph.search(narrow, box, rng=7, starts=20)
    theta, v = ph.widen(narrow.net, wide.net, found.theta, found.v)
    assert v is not None
    if parametrization == "standard":
        assert box.contains(theta)
    clipped = box.bind(wide).project(theta)
    at_start = quotient(wide, clipped, v)
    assert at_start < 0.0
    started = ph.search(wide, box, rng=7, starts=2, warm=(theta, v))
    assert box.contains(started.theta)
    assert started.psi_upper < min(at_start, found.psi_upper)  # a wider network bends more than the narrow one does anywhere


@pytest.mark.parametrize(
    ("small", "large", "error", "text"),
    [
        (ph.MLP([3, 4, 2]), [3, 4, 2], InputTypeError, "net_large"),
        (ph.MLP([3, 4, 2]), ph.MLP([3, 3, 2]), InputError, "at least as wide"),
        (ph.MLP([3, 4, 2]), ph.MLP([4, 4, 2]), InputError, "inputs"),
        (ph.MLP([3, 4, 2]), ph.MLP([3, 4, 4, 2]), InputError, "num_layers"),
        (ph.MLP([3, 4, 2]), ph.MLP([3, 4, 2], bias=False), InputError, "bias"),
        (ph.MLP([3, 4, 2]), ph.MLP([3, 4, 2], "gelu"), InputError, "activations"),
    ],
)
def test_networks_that_do_not_fit(small: Any, large: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ph.widen(small, large, np.zeros(small.num_params))


def test_native_runs_are_what_these_tests_look_at(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem([3, 4, 2], "tanh", "squared_error")
    assert isinstance(first_starts(monkeypatch, obj, REGIONS[0]), NativeRun)
    assert not isinstance(first_starts(monkeypatch, obj, REGIONS[2]), NativeRun)
