"""The threshold along radii: closed forms, monotone ends, witnesses handed on in both directions, interruption."""

from __future__ import annotations

import json
import math
import os
import signal
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.errors import InputError, InputTypeError, NumericalError
from pyhess.threshold import Status

radius_module = import_module("pyhess.threshold.radius")

FOUR_X = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 1.0]])
FOUR_Y = np.array([1.0, -1.0, 0.5, 2.0])


def linear(x: Any, y: Any, *widths: int) -> ph.Objective:
    return ph.Objective(ph.MLP(widths, "identity", bias=False), ph.Dataset(np.asarray(x), np.asarray(y)))


def assert_sound(path: ph.RadiusPath, obj: ph.Objective) -> None:
    """What holds of every path with penalty |theta|²."""
    for low, high in ((path.lam_lower, path.lam_upper), (-path.psi_upper, -path.psi_lower)):
        assert (low <= high).all()
        assert (low[1:] >= low[:-1]).all() and (high[1:] >= high[:-1]).all()
    assert len(path.results) == path.radii.size
    for i, result in enumerate(path.results):
        assert result.lam_lower == path.lam_lower[i]
        if result.witness is not None:
            assert result.witness.check() and result.psi_upper == result.witness.eigval
        if result.kink is not None:
            assert result.kink.verify(obj, path.results[i].witness.region)  # type: ignore[union-attr]
    content = json.loads(json.dumps(path.to_dict(), allow_nan=False))
    assert content["kind"] == "radius_path" and len(content["results"]) == path.radii.size
    assert len(str(path).splitlines()) == path.radii.size + 3


@pytest.mark.parametrize(("x", "y"), [(1.0, 1.0), (0.7, -0.4)])
@pytest.mark.parametrize("shape", ["ball", "box"])
def test_one_datum_follows_its_closed_form(x: float, y: float, shape: str) -> None:
    radii = np.array([0.5, 2.0, 8.0, 16.0])
    obj = linear([[x]], [y], 1, 1, 1)
    path = ph.radius_path(obj, radii, shape, rng=7, starts=20)
    exact = ((x * radii) ** 2 * (0.5 if shape == "ball" else 1.0) + abs(x * y)) / 2.0
    assert path.lam_lower == pytest.approx(exact, rel=1e-9)
    assert (path.lam_lower <= exact * (1.0 + 1e-12)).all() and (exact <= path.lam_upper).all()
    # No bound on theta, no finite threshold: it grows like the square of the radius.
    assert path.exponents() == pytest.approx(np.diff(np.log(exact)) / np.diff(np.log(radii)), abs=1e-6)
    assert 1.9 < path.exponents()[-1] < 2.0
    assert_sound(path, obj)


def test_four_data_follow_their_closed_form(largest_norm: Any) -> None:
    s, c = FOUR_X.T @ FOUR_X / 4.0, FOUR_X.T @ FOUR_Y / 4.0
    obj = linear(FOUR_X, FOUR_Y, 2, 3, 1)
    path = ph.radius_path(obj, [1.0, 1.5, 3.0], "ball", rng=7, starts=20)
    exact = np.array([largest_norm(s, -c, r**2 / 2.0) / 2.0 for r in path.radii])
    assert exact == pytest.approx([0.4431449420, 0.9090546193, 3.4382529294], abs=1e-10)
    assert path.lam_lower == pytest.approx(exact, rel=1e-9)
    assert (path.lam_lower <= exact * (1.0 + 1e-12)).all() and (exact <= path.lam_upper).all()
    assert_sound(path, obj)


@pytest.mark.parametrize("shape", ["ball", "box"])
def test_around_a_point(problem: Any, shape: str) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    theta0 = obj.net.init(rng=8)
    path = ph.radius_path(obj, [1e-4, 0.1, 0.5], shape, center=theta0, rng=7, starts=8)
    assert_sound(path, obj)
    # Down to a point: the smallest eigenvalue there.
    at_center = float(np.linalg.eigvalsh(obj.hessian(theta0).to_dense())[0])
    assert path.psi_upper[0] == pytest.approx(at_center, abs=0.01)
    for radius, result in zip(path.radii, path.results, strict=True):
        assert result.witness is not None
        offset = result.witness.theta - theta0
        size = np.abs(offset).max() if shape == "box" else np.linalg.norm(offset)
        assert size <= radius * (1.0 + 1e-12)


def test_neighbours_help_in_both_directions(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem([3, 6, 6, 1], "tanh", "squared_error")
    radii = [0.6, 0.8, 1.0, 1.2]
    alone = [ph.lambda_threshold(obj, ph.Box(-r, r), rng=5, starts=2, certificate=None).lam_lower for r in radii]
    path = ph.radius_path(obj, radii, rng=5, starts=2, certificate=None)
    assert_sound(path, obj)
    assert (path.lam_lower > np.array(alone) * (1.0 + 1e-6)).sum() >= 1
    # With poor searches everywhere but at the largest radius, what is found there comes down to the others.
    good = ph.search(obj, ph.Box(-1.2, 1.2), rng=7, starts=60)
    real, seen = radius_module.lambda_threshold, []

    def helped_at_the_end(*arguments: Any, **options: Any) -> Any:
        seen.append(options["warm"])
        warm = [(good.theta, good.v)] if len(seen) % len(radii) == 0 else []
        return real(*arguments, **{**options, "warm": warm})

    monkeypatch.setattr(radius_module, "lambda_threshold", helped_at_the_end)
    both = ph.radius_path(obj, radii, rng=6, starts=2, certificate=None)
    monkeypatch.setattr(radius_module._Path, "downwards", lambda self: None)
    up_alone = ph.radius_path(obj, radii, rng=6, starts=2, certificate=None)
    for found in (both, up_alone):
        assert_sound(found, obj)
    assert [len(pairs) for pairs in seen] == [0, 2, 2, 2] * 2
    for i, pairs in enumerate(seen[:4]):
        if pairs:  # the witness from below as it is, and scaled
            assert np.abs(pairs[0][0]).max() <= radii[i - 1] and np.array_equal(pairs[0][1], pairs[1][1])
            assert pairs[1][0] == pytest.approx(pairs[0][0] * radii[i] / radii[i - 1], rel=1e-14)
    gains = both.lam_lower / up_alone.lam_lower
    assert (gains >= 1.0).all() and gains[-1] == 1.0 and (gains[:-1] > 1.01).any()
    helped = [result.stats["best_family"] == "neighbouring radius" for result in both.results]
    assert helped == list(gains > 1.0)


def test_what_was_found_is_kept_where_a_larger_search_falls_behind(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    real = radius_module.lambda_threshold

    def forgetful(obj: Any, region: Any, *arguments: Any, **options: Any) -> Any:
        result = real(obj, region, *arguments, **options)
        if options["warm"]:  # a poor witness at every radius but the first
            poor = radius_module.make_witness(obj, region.bind(obj), np.full(obj.num_params, 0.01), result.witness.v)
            changes = {"witness": poor, "psi_upper": poor.eigval, "lam_lower": poor.lam_lower}
            result = radius_module.replace(result, **changes)
        return result

    monkeypatch.setattr(radius_module, "lambda_threshold", forgetful)
    monkeypatch.setattr(radius_module._Path, "downwards", lambda self: None)
    path = ph.radius_path(obj, [0.5, 1.0, 2.0], rng=7, starts=4)
    assert_sound(path, obj)
    assert np.ptp(path.lam_lower) == 0.0 and path.lam_lower[0] > 0.0
    assert all(np.array_equal(r.witness.theta, path.results[0].witness.theta) for r in path.results)  # type: ignore[union-attr]


def test_certificates_hold_on_smaller_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    obj = linear([[1.0]], [1.0], 1, 1, 1)
    real = radius_module.lambda_threshold
    for excess, contradiction in ((1.5, False), (0.1, True)):

        def lopsided(*arguments: Any, excess: float = excess, **options: Any) -> Any:
            result = real(*arguments, **options)
            if options["warm"]:  # better than that of the smaller region, or too good to be true
                lam = excess * result.lam_upper
                return radius_module.replace(result, lam_upper=lam, psi_lower=-2.0 * lam)
            return radius_module.replace(result, lam_upper=10.0 * result.lam_upper, psi_lower=10.0 * result.psi_lower)

        monkeypatch.setattr(radius_module, "lambda_threshold", lopsided)
        if contradiction:
            with pytest.raises(NumericalError, match=r"radius .*0\.7"):
                ph.radius_path(obj, [0.7, 0.75], rng=7, starts=4)
        else:
            path = ph.radius_path(obj, [0.7, 0.75], rng=7, starts=4)
            assert path.lam_upper[0] == path.lam_upper[1] and path.psi_lower[0] == path.psi_lower[1]
            assert path.results[0].lam_upper > path.lam_upper[0]


def test_relu_stays_infinite_once_it_is(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem([2, 4, 1], "relu", "squared_error", samples=8)
    theta0 = np.random.default_rng(11).standard_normal(obj.num_params)
    path = ph.radius_path(obj, [1e-4, 0.5, 1.0], center=theta0, rng=7, starts=4)
    assert_sound(path, obj)
    assert [result.status is Status.INFINITE for result in path.results] == [False, True, True]
    assert math.isfinite(path.lam_upper[0]) and np.isinf(path.lam_upper[1:]).all()
    assert np.isnan(path.exponents()).all() and "infinite" in str(path)
    # The kink of a smaller region is one of the larger.
    real = radius_module.lambda_threshold

    def blind(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options)
        if len(options["warm"]) != 3:
            return result
        poor = {"kink": None, "lam_lower": 0.0, "lam_upper": math.inf, "status": Status.UNDECIDED}
        return radius_module.replace(result, **poor)

    monkeypatch.setattr(radius_module, "lambda_threshold", blind)
    again = ph.radius_path(obj, [1e-4, 0.5, 1.0], center=theta0, rng=7, starts=4)
    assert_sound(again, obj)
    assert again.results[2].status is Status.INFINITE
    assert np.array_equal(again.results[2].kink.theta, again.results[1].kink.theta)  # type: ignore[union-attr]


def test_other_penalties(problem: Any) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    for penalty in (ph.WeightedL2(np.linspace(0.5, 2.0, obj.num_params)), ph.GeometricL2(), ph.L2(penalize="weights")):
        path = ph.radius_path(obj, [0.5, 1.0], penalty=penalty, rng=7, starts=4)
        assert path.lam_lower[0] <= path.lam_lower[1] and (path.lam_lower <= path.lam_upper).all()
        assert penalty.formula.split()[0] in str(path)


def test_linear_models_need_no_penalty() -> None:
    path = ph.radius_path(linear(FOUR_X, FOUR_Y, 2, 1), [1.0, 10.0], "ball", rng=7)
    assert (path.lam_lower == 0.0).all() and (path.lam_upper == 0.0).all() and np.isnan(path.exponents()).all()
    assert path.psi_upper == pytest.approx([0.75, 0.75], rel=1e-12)


def test_same_seed_same_path(problem: Any) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    one, two = (ph.radius_path(obj, [0.5, 1.0], rng=13, starts=4) for _ in range(2))
    assert np.array_equal(one.lam_lower, two.lam_lower) and np.array_equal(one.lam_upper, two.lam_upper)


def slow_problem() -> ph.Objective:
    rng = np.random.default_rng(37)
    data = ph.Dataset(rng.standard_normal((200, 40)), rng.integers(0, 5, 200))
    return ph.Objective(ph.MLP([40, 30, 30, 5]), data, loss="cross_entropy")


def test_time_limit_shares_the_time() -> None:
    seen: list[dict[str, Any]] = []
    path = ph.radius_path(slow_problem(), [0.2, 0.4, 0.8], rng=7, time_limit=1.5, certificate=None, progress=seen.append)
    assert path.interrupted and path.seconds < 12.0
    assert 1 <= path.radii.size <= 3 and path.lam_lower[-1] > 0.0
    assert {"stage", "radius", "radii_done", "radii_total"} <= set(seen[0])
    assert "(interrupted)" in str(path)


def test_witnesses_come_down_without_any_time_left(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    real, calls = radius_module.lambda_threshold, []

    def late(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        result = real(*arguments, **{**options, "time_limit": None})
        if len(calls) == 1:  # the first radius was cut short before anything was evaluated
            result = radius_module.replace(result, witness=None, psi_upper=math.inf, lam_lower=0.0)
        return result

    monkeypatch.setattr(radius_module, "lambda_threshold", late)
    monkeypatch.setattr(radius_module._Path, "_left", 0.0)
    monkeypatch.setattr(radius_module, "_UP_SHARE", 2.0)
    path = ph.radius_path(obj, [0.5, 1.0], rng=7, starts=4, time_limit=1e-3, certificate=None)
    assert path.interrupted and path.results[0].lam_lower > 0.0
    assert_sound(path, obj)


def test_ctrl_c_returns_the_part_done() -> None:
    sent: list[str] = []

    def interrupt_the_second_search(state: dict[str, Any]) -> None:
        if state["radii_done"] == 1 and "done" in state and not sent:
            sent.append(state["stage"])
            os.kill(os.getpid(), signal.SIGINT)

    path = ph.radius_path(
        slow_problem(), [0.2, 0.4, 0.8], rng=7, starts=4, certificate=None, progress=interrupt_the_second_search
    )
    assert sent and path.interrupted and path.radii.tolist() == [0.2, 0.4]
    assert path.lam_lower[0] > 0.0 and path.lam_lower[1] >= path.lam_lower[0]
    assert path.results[1].stats["interrupted"] and not path.results[0].stats["interrupted"]


def test_an_interrupt_between_two_radii_keeps_the_first(problem: Any) -> None:
    def interrupt(state: dict[str, Any]) -> None:
        if state["radii_done"] == 1:
            raise KeyboardInterrupt

    path = ph.radius_path(problem([2, 3, 1], "tanh", "squared_error"), [0.5, 1.0], rng=7, starts=4, progress=interrupt)
    assert path.interrupted and path.lam_lower[0] > 0.0
    empty = ph.radius_path(
        problem([2, 3, 1], "tanh", "squared_error"), [0.5], rng=7, starts=4, progress=lambda state: interrupt({"radii_done": 1})
    )
    assert empty.interrupted and (empty.lam_lower == 0.0).all() and str(empty)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"radii": []}, InputError, r"shape \(0,\)"),
        ({"radii": 1.0}, InputError, r"shape \(\)"),
        ({"radii": [1.0, 1.0]}, InputError, r"radii\[1\] = 1.0 does not exceed"),
        ({"radii": [2.0, 1.0]}, InputError, "sort"),
        ({"radii": [0.0, 1.0]}, InputError, r"radii\[0\]"),
        ({"radii": [1.0, math.inf]}, InputError, r"radii\[1\]"),
        ({"radii": "1"}, InputTypeError, "radii"),
        ({"shape": "cube"}, InputError, "box, ball"),
        ({"center": np.zeros(3)}, InputError, "center"),
        ({"center": math.nan}, InputError, "center"),
        ({"time_limit": 0.0}, InputError, "time_limit"),
        ({"starts": 0}, InputError, "starts"),
        ({"certificate": 3}, InputTypeError, "certificate"),
        ({"progress": 3}, InputTypeError, "progress"),
        ({"penalty": 3}, InputTypeError, "penalty"),
        ({"obj": 3}, InputTypeError, "obj"),
    ],
)
def test_bad_arguments(problem: Any, change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments = {"obj": problem([2, 3, 1], "tanh", "squared_error"), "radii": [0.5, 1.0], "rng": 7, **change}
    with pytest.raises(error, match=text):
        ph.radius_path(**arguments)
