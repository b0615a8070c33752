"""lambda_threshold: valid brackets, honest statuses, and nothing lost when it is stopped."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.errors import InputError, InputTypeError, NumericalError
from pyhess.threshold import Status, ThresholdResult, bracket, lambda_threshold


class FakeCertificate(SimpleNamespace):
    def to_dict(self) -> dict[str, Any]:
        return {"psi_lower": self.psi_lower}


def certificate_of(psi_lower: float) -> Any:
    class Fake:
        can_refine = out_of_time = False

        def __init__(self, *args: Any) -> None:
            pass

        def roots(self, method: str, time_limit: float | None) -> Any:
            return self

        def certificate(self) -> FakeCertificate:
            return FakeCertificate(psi_lower=psi_lower, method="fake", statement="a fake", exact=False)

    return Fake


def raise_interrupt(*args: Any, **options: Any) -> Any:
    raise KeyboardInterrupt


@pytest.fixture
def small(problem: Any) -> Any:
    return problem([3, 4, 1], "tanh", "squared_error")


BOX = ph.Box(-0.5, 0.5)


def assert_consistent(t: ThresholdResult) -> None:
    """What must hold of every result, whatever its status."""
    assert 0.0 <= t.lam_lower <= t.lam_upper
    assert t.psi_lower <= t.psi_upper
    assert t.status.advice
    content = json.loads(json.dumps(t.to_dict(), allow_nan=False))
    assert content["status"] == t.status == t.status.value
    assert content["lam_upper"] == (t.lam_upper if math.isfinite(t.lam_upper) else None)
    assert len(str(t).splitlines()) > 8
    if t.status is not Status.INFINITE and t.witness is not None:
        assert t.lam_lower == t.witness.lam_lower == max(0.0, -t.psi_upper / 2)


def test_closed_forms_are_bracketed(two_parameter_problems: Any, deep_linear_problems: Any) -> None:
    for case in (*two_parameter_problems, *deep_linear_problems):
        t = lambda_threshold(case.obj, case.region, rng=7)
        exact = -case.psi / 2
        assert_consistent(t)
        assert t.lam_lower <= exact * (1.0 + 1e-12) and exact <= t.lam_upper, case.name
        assert t.lam_lower == pytest.approx(exact, rel=1e-9), case.name
        assert t.status in (Status.BRACKETED, Status.EXACT), case.name
        assert t.scope == "global" and t.kink is None
        assert t.witness is not None and t.witness.check()
        assert t.certificate is not None and t.certificate.psi_lower == t.psi_lower


@pytest.mark.parametrize(
    ("loss", "outputs", "psi"), [("squared_error", 1, 0.75), ("squared_error", 2, 0.75), ("cross_entropy", 2, 0.0)]
)
def test_linear_models_have_threshold_zero(loss: str, outputs: int, psi: float) -> None:
    # The Gram matrix of these four points is diag(3/4, 3/2).
    x = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 1.0]])
    y = np.array([0, 1, 1, 0]) if loss == "cross_entropy" else np.ones((4, outputs))
    obj = ph.Objective(ph.MLP([2, outputs], bias=False), ph.Dataset(x, y), loss=loss)
    t = lambda_threshold(obj, ph.Ball(radius=3.0), rng=7)
    assert_consistent(t)
    assert (t.lam_lower, t.lam_upper, t.status) == (0.0, 0.0, Status.EXACT)
    assert t.psi_upper == pytest.approx(psi, abs=1e-14)
    assert t.psi_lower >= 0.0
    assert "convex on the region as it is" in str(t)


def test_logistic_regression_witness_is_an_eigenpair(problem: Any) -> None:
    obj = problem([3, 1], "tanh", "logistic", weighted=True, parametrization="ntk")
    region = ph.Box(-0.2, 0.9)
    t = lambda_threshold(obj, region, rng=7, certificate=None)
    assert t.status is Status.EXACT and t.lam_upper == 0.0
    assert t.witness is not None
    smallest = np.linalg.eigvalsh(obj.hessian(t.witness.theta).to_dense())[0]
    assert t.psi_upper == pytest.approx(smallest, rel=1e-10)


def test_no_certificate_leaves_the_upper_end_open(small: Any) -> None:
    t = lambda_threshold(small, BOX, rng=7, certificate=None)
    assert_consistent(t)
    assert t.status is Status.UNDECIDED and t.certificate is None
    assert math.isinf(t.lam_upper) and math.isinf(t.psi_lower)
    assert 0.0 < t.lam_lower < math.inf


def test_a_tight_certificate_makes_it_exact(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    psi = lambda_threshold(small, BOX, rng=7, certificate=None).psi_upper
    for excess, status in ((1e-7, Status.EXACT), (1e-5, Status.BRACKETED)):
        monkeypatch.setattr(bracket, "Certification", certificate_of(psi * (1.0 + excess)))
        t = lambda_threshold(small, BOX, rng=7)
        assert_consistent(t)
        assert t.status is status


def test_a_contradiction_is_raised_with_both_numbers(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bracket, "Certification", certificate_of(-1e-3))
    psi = lambda_threshold(small, BOX, rng=7, certificate=None).psi_upper
    assert psi < -1e-3
    with pytest.raises(NumericalError) as caught:
        lambda_threshold(small, BOX, rng=7)
    assert "-0.001" in str(caught.value) and repr(psi)[:8] in str(caught.value)


def test_convex_region_of_a_nonlinear_network() -> None:
    # One datum far from saturation, only positive curvature near this centre: both ends are zero.
    net = ph.MLP([1, 1, 1], activation="identity", bias=False)
    obj = ph.Objective(net, ph.Dataset(np.array([[1.0]]), np.array([0.0])))
    t = lambda_threshold(obj, ph.Box(-1.0, 1.0), rng=7)
    assert_consistent(t)
    assert t.lam_lower == pytest.approx(0.5, rel=1e-9)


# --- ReLU ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy", "logistic"])
def test_relu_with_a_concave_kink_is_infinite(problem: Any, loss: str) -> None:
    widths = [3, 4, 4, 1 if loss == "logistic" else 3]
    obj = problem(widths, "relu", loss)
    t = lambda_threshold(obj, BOX, rng=7)
    assert_consistent(t)
    assert t.status is Status.INFINITE
    assert math.isinf(t.lam_lower) and math.isinf(t.lam_upper)
    assert t.scope == "almost everywhere"
    assert t.kink is not None and t.kink.verify(obj, BOX)
    assert -math.inf < t.psi_lower <= t.psi_upper < 0.0
    assert "necessary, not sufficient" in str(t) and "infinite" in str(t)


def test_relu_in_a_kink_free_box_is_bracketed(problem: Any) -> None:
    obj = problem([2, 5, 1], "relu", "squared_error", samples=8)
    theta = np.random.default_rng(11).standard_normal(obj.num_params)
    region = ph.Box.around(theta, 1e-4)
    t = lambda_threshold(obj, region, rng=7)
    assert_consistent(t)
    assert t.status in (Status.BRACKETED, Status.EXACT)
    assert t.scope == "global" and t.kink is None
    assert t.stats["relu_kinks"] == "kink_free"
    assert t.psi_upper == pytest.approx(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0], abs=0.05)


def test_relu_with_convex_kinks_only_is_bracketed() -> None:
    # Outgoing weights and residuals are positive on the whole box, so every kink bends upwards.
    data = ph.Dataset(np.array([[1.0], [-1.0], [0.5]]), np.full(3, -5.0))
    obj = ph.Objective(ph.MLP([1, 2, 1], "relu"), data)
    low = np.array([-1.0, -1.0, -1.0, -1.0, 0.1, 0.1, -0.5])
    t = lambda_threshold(obj, ph.Box(low, np.ones(7)), rng=7)
    assert_consistent(t)
    assert t.stats["relu_kinks"] == "convex_kinks"
    assert t.scope == "global" and math.isfinite(t.lam_upper)


def test_relu_without_a_verdict_is_undecided() -> None:
    # Duplicates with opposite targets: no kink at all, but sign bounds cannot know that.
    data = ph.Dataset(np.array([[1.0], [1.0]]), np.array([1.0, -1.0]))
    obj = ph.Objective(ph.MLP([1, 1, 1], "relu", bias=False), data)
    t = lambda_threshold(obj, ph.Box(-1.0, 1.0), rng=7)
    assert_consistent(t)
    assert t.status is Status.UNDECIDED and t.scope == "almost everywhere"
    assert math.isinf(t.lam_upper) and math.isfinite(t.lam_lower)
    assert "none could be excluded" in str(t)


def test_softplus_control_of_the_relu_problem(problem: Any) -> None:
    # The smooth neighbour has a finite threshold that grows with its sharpness.
    values = []
    for beta in (2.0, 20.0):
        obj = problem([3, 4, 1], "softplus", "squared_error", beta=beta)
        t = lambda_threshold(obj, BOX, rng=7)
        assert_consistent(t)
        assert t.status is Status.BRACKETED and t.scope == "global"
        values.append(t.lam_lower)
    assert values[1] > 1.5 * values[0]


# --- interruption ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["relu_kink_status", "find_kink", "Certification", "search", "make_witness"])
def test_interrupt_in_any_stage_keeps_what_there_is(problem: Any, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    relu = stage in ("relu_kink_status", "find_kink")
    obj = problem([3, 4, 1], "relu" if relu else "tanh", "squared_error")
    monkeypatch.setattr(bracket, stage, raise_interrupt)
    t = lambda_threshold(obj, BOX, rng=7)
    assert_consistent(t)
    assert t.status is Status.INTERRUPTED and t.stats["interrupted"]
    reached = ["relu_kink_status", "find_kink", "Certification", "search", "make_witness"].index(stage)
    assert (t.certificate is not None) == (reached > 2)
    assert math.isinf(t.lam_upper) == (reached <= 2)
    assert t.witness is None


def test_first_interrupt_during_the_witness_is_made_up_for(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = bracket.make_witness, []

    def once(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(bracket, "make_witness", once)
    t = lambda_threshold(small, BOX, rng=7)
    assert t.status is Status.INTERRUPTED and t.witness is not None
    assert t.lam_lower > 0.0 and math.isfinite(t.lam_upper)


def test_real_ctrl_c(problem: Any) -> None:
    obj = problem([30, 60, 40, 10], "tanh", "cross_entropy", samples=400)
    lambda_threshold(problem([3, 2, 1], "tanh", "squared_error"), BOX, rng=7)  # compile first
    searching = threading.Event()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))

    def progress(event: dict[str, Any]) -> None:
        if event["stage"].startswith("search") and not searching.is_set():
            searching.set()
            timer.start()

    t = lambda_threshold(obj, BOX, rng=7, progress=progress)
    timer.join()
    assert_consistent(t)
    assert t.status is Status.INTERRUPTED
    assert t.witness is not None and t.witness.check()
    assert t.certificate is not None and math.isfinite(t.lam_upper)


def test_time_limit_returns_the_best_so_far(problem: Any) -> None:
    obj = problem([30, 60, 40, 10], "tanh", "cross_entropy", samples=400)
    t = lambda_threshold(obj, BOX, rng=7, time_limit=1.0)
    assert_consistent(t)
    assert t.status is Status.INTERRUPTED
    assert t.witness is not None and t.lam_lower > 0.0


def test_a_kink_found_before_an_interrupt_is_kept(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem([3, 4, 1], "relu", "squared_error")
    real = bracket.find_kink

    def interrupted_after_a_find(*args: Any, on_found: Any, **options: Any) -> Any:
        def found(kink: Any) -> None:
            on_found(kink)
            raise KeyboardInterrupt

        return real(*args, on_found=found, **options)

    monkeypatch.setattr(bracket, "find_kink", interrupted_after_a_find)
    t = lambda_threshold(obj, BOX, rng=7)
    assert_consistent(t)
    assert t.status is Status.INFINITE
    assert t.stats["interrupted"]
    assert t.kink is not None
    assert t.kink.verify(obj, BOX)


def test_an_infinite_verdict_survives_an_interrupt(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem([3, 4, 1], "relu", "squared_error")
    monkeypatch.setattr(bracket, "search", raise_interrupt)
    t = lambda_threshold(obj, BOX, rng=7)
    assert_consistent(t)
    assert t.status is Status.INFINITE and t.stats["interrupted"]


# --- arguments, progress, reproducibility ----------------------------------------------------------------------------


def test_progress_names_every_stage(problem: Any) -> None:
    obj = problem([3, 4, 1], "relu", "squared_error")
    events: list[dict[str, Any]] = []
    lambda_threshold(obj, BOX, rng=7, progress=events.append)
    stages = list(dict.fromkeys(event["stage"].split()[0] for event in events))
    assert stages[:3] == ["kinks", "certificate", "search"] and stages[-1] == "witness"


def test_same_seed_same_result(small: Any) -> None:
    one, two = lambda_threshold(small, BOX, rng=5), lambda_threshold(small, BOX, rng=np.random.default_rng(5))
    assert one.lam_lower == two.lam_lower and one.lam_upper == two.lam_upper
    assert one.stats["seed"] == two.stats["seed"] == 5
    assert one.witness is not None and two.witness is not None
    assert np.array_equal(one.witness.theta, two.witness.theta)


def test_the_seed_is_recorded_when_none_was_given(small: Any) -> None:
    first = lambda_threshold(small, BOX, certificate=None, starts=8)
    assert str(first.stats["seed"]).startswith("entropy ")


def test_single_precision_objectives_get_double_precision_witnesses(problem: Any) -> None:
    double = problem([3, 4, 1], "tanh", "squared_error")
    single = ph.Objective(double.net, double.data, double.loss, dtype="float32")
    results = [lambda_threshold(obj, BOX, rng=7, certificate=None) for obj in (double, single)]
    assert results[0].lam_lower == pytest.approx(results[1].lam_lower, rel=1e-9)
    assert results[1].witness is not None and results[1].witness.allowance < 1e-11


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"obj": 3}, InputTypeError, "Objective"),
        ({"region": [-1, 1]}, InputTypeError, "Box"),
        ({"region": ph.Box(np.zeros(3), np.ones(3))}, InputError, "parameters"),
        ({"penalty": "l2"}, InputTypeError, "L2"),
        ({"time_limit": -1.0}, InputError, "time_limit"),
        ({"time_limit": "soon"}, InputTypeError, "time_limit"),
        ({"certificate": 3}, InputTypeError, "certificate"),
        ({"certificate": "momentum"}, InputError, "momentum"),
        ({"progress": "bar"}, InputTypeError, "progress"),
        ({"rng": "x"}, InputTypeError, "rng"),
        ({"starts": 0}, InputError, "starts"),
    ],
)
def test_bad_arguments(small: Any, change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments = {"obj": small, "region": BOX, "penalty": ph.L2(), "rng": 7, **change}
    with pytest.raises(error, match=text):
        lambda_threshold(arguments.pop("obj"), arguments.pop("region"), arguments.pop("penalty"), **arguments)


def test_a_limit_that_branch_and_bound_uses_up_is_told() -> None:
    rng = np.random.default_rng(1231)
    obj = ph.Objective(ph.MLP([2, 3, 1], "tanh"), ph.Dataset(rng.standard_normal((6, 2)), rng.standard_normal(6)))
    # A search of two starts ends long before its share of the time; the bracket does not close.
    found = ph.lambda_threshold(obj, ph.Box(-0.5, 0.5), rng=1237, starts=2, time_limit=1.5)
    assert found.stats["time_limited"] and not found.stats["interrupted"] and found.status is Status.BRACKETED
    free = ph.lambda_threshold(obj, ph.Box(-0.5, 0.5), rng=1237, starts=2, certificate="moment", time_limit=600.0)
    assert not free.stats["time_limited"] and not free.stats["interrupted"]
    assert not ph.lambda_threshold(obj, ph.Box(-0.5, 0.5), rng=1237, starts=2, certificate="moment").stats["time_limited"]


def test_a_threshold_of_zero_is_known() -> None:
    # No biases and inputs of zero: the outputs are zero whatever theta is. Allowances for underflow remain.
    obj = ph.Objective(ph.MLP([2, 3, 2, 1], bias=False), ph.Dataset(np.zeros((3, 2)), np.ones(3)))
    t = ph.lambda_threshold(obj, ph.Ball(radius=1.0), rng=7, time_limit=20.0)
    assert t.lam_lower == 0.0 <= t.lam_upper < 1e-290 and t.status.name == "EXACT", str(t)
