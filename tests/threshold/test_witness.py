"""Witnesses: valid upper bounds of an eigenvalue, and the segments that prove non-convexity."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.errors import InputError, NumericalError
from pyhess.threshold.differences import midpoint_gap
from pyhess.threshold.geometry import centred_pair, settle, surely_inside
from pyhess.threshold.segment import find_segment, gap_of_values
from pyhess.threshold.witness import Witness, make_witness


def minimiser(case: Any) -> tuple[np.ndarray, np.ndarray]:
    """Where psi is attained in the two-parameter problems: w = -+v as large as possible."""
    x, y = float(case.obj.data.X[0, 0]), float(case.obj.targets[0, 0])
    size = 1.3 if isinstance(case.region, ph.Box) else case.region.radius / math.sqrt(2.0)
    sign = math.copysign(1.0, x * y) if case.obj.loss == "squared_error" else 1.0
    return np.array([size, -sign * size]), np.array([1.0, sign])


def at_minimiser(case: Any) -> Witness:
    theta, v = minimiser(case)
    return make_witness(case.obj, case.region.bind(case.obj), theta, v)


def penalised(obj: ph.Objective, lam: float) -> Any:
    return lambda theta: obj.value(theta) + lam * float(theta @ theta)


def test_closed_forms_are_attained(two_parameter_problems: Any) -> None:
    for case in two_parameter_problems:
        witness = at_minimiser(case)
        assert witness.eigval == pytest.approx(case.psi, rel=1e-13), case.name
        assert witness.eigval >= case.psi - 1e-15, case.name
        assert witness.lam_lower == -0.5 * witness.eigval
        assert witness.check()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99, 0.999, 0.9999, 1.0 - 1e-6, 1.0 - 1e-9])
def test_segments_break_convexity(two_parameter_problems: Any, share: float) -> None:
    for case in two_parameter_problems:
        witness = at_minimiser(case)
        lam = share * witness.lam_lower
        first, second, t, violation = segment = witness.segment(lam)
        f = penalised(case.obj, lam)
        direct = f(t * first + (1 - t) * second) - t * f(first) - (1 - t) * f(second)
        assert violation > segment.rounding_error > 0.0, case.name
        assert direct == pytest.approx(violation, rel=1e-6, abs=2e-15), case.name
        region = case.region.bind(case.obj)
        assert region.contains(first) and region.contains(second), case.name


@pytest.mark.parametrize(
    ("widths", "activation", "loss"),
    [
        ([3, 6, 1], "tanh", "squared_error"),
        ([3, 5, 4, 3], "softplus", "cross_entropy"),
        ([3, 6, 1], "gelu", "logistic"),
        ([3, 5, 4, 2], "relu", "squared_error"),
    ],
)
@pytest.mark.parametrize("kind", ["box", "ball"])
def test_segments_of_random_problems(problem: Any, widths: list[int], activation: str, loss: str, kind: str) -> None:
    obj = problem(widths, activation, loss, weighted=True)
    region = (ph.Box(-0.8, 0.8) if kind == "box" else ph.Ball(0.1, 2.0)).bind(obj)
    rng = np.random.default_rng(41)
    theta = region.project(4.0 * rng.standard_normal(obj.num_params))
    values, vectors = np.linalg.eigh(obj.hessian(theta).to_dense())
    witness = make_witness(obj, region, theta, vectors[:, 0])
    assert values[0] < 0.0
    assert witness.eigval == pytest.approx(values[0], rel=1e-9)
    assert witness.check()
    for share in (0.0, 0.5, 0.97):
        lam = share * witness.lam_lower
        first, second, t, violation = segment = witness.segment(lam)
        f = penalised(obj, lam)
        direct = f(t * first + (1 - t) * second) - t * f(first) - (1 - t) * f(second)
        assert violation > segment.rounding_error
        assert direct == pytest.approx(violation, rel=1e-4, abs=1e-14)
        assert surely_inside(region, first) and surely_inside(region, second)


def test_no_segment_at_or_above_the_lower_end(two_parameter_problems: Any) -> None:
    witness = at_minimiser(two_parameter_problems[0])
    for lam in (witness.lam_lower, 2.0 * witness.lam_lower, -0.1, math.nan, math.inf):
        with pytest.raises(InputError, match="lam_lower" if math.isfinite(lam) else r"lam is (nan|inf)"):
            witness.segment(lam)


def test_unresolvable_segment_is_admitted(two_parameter_problems: Any) -> None:
    corner = next(case for case in two_parameter_problems if case.name.startswith("B2"))
    witness = at_minimiser(corner)
    with pytest.raises(NumericalError, match="too close"):
        witness.segment(math.nextafter(witness.lam_lower, 0.0))


@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus", "sigmoid", "gelu", "identity"])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy", "logistic"])
def test_differences_agree_with_values_in_wider_arithmetic(problem: Any, activation: str, loss: str) -> None:
    widths = [3, 5, 4, 1 if loss == "logistic" else 3]
    beta = 3.0 if activation == "softplus" else 1.0
    obj = problem(widths, activation, loss, weighted=True, beta=beta, parametrization="ntk")
    rng = np.random.default_rng(43)
    compared = 0
    for exponent in (-1.0, -2.0, -3.0, -4.0, -7.0):
        m = rng.uniform(-1.0, 1.0, obj.num_params)
        step = 10.0**exponent * rng.standard_normal(obj.num_params)
        pair = centred_pair(ph.Box(-2.0, 2.0).bind(obj), m, step)
        assert pair is not None
        accurate = midpoint_gap(obj, pair[0], pair[1])
        if accurate is None:
            assert exponent > -2.0
            continue
        wide, error = gap_of_values(obj, pair[0], pair[1], np.longdouble)
        assert abs(accurate[0] - wide) <= accurate[1] + error
        assert accurate[1] < 1e-11 * float(pair[1] @ pair[1]) or activation == "relu"
        compared += 1
    assert compared >= 3


def test_segment_would_not_be_found_above_the_threshold(two_parameter_problems: Any) -> None:
    # The closed form says the penalised objective is convex there, so the finder must come back empty-handed.
    for case in two_parameter_problems:
        theta, v = minimiser(case)
        region = case.region.bind(case.obj)
        assert find_segment(case.obj, region, settle(region, theta), v, -0.5 * case.psi * 1.0001) is None


def test_a_convex_point_has_a_positive_eigval_and_no_segment(problem: Any) -> None:
    obj = problem([2, 1], "tanh", "squared_error")
    region = ph.Box(-1.0, 1.0).bind(obj)
    witness = make_witness(obj, region, np.zeros(obj.num_params), np.ones(obj.num_params))
    assert witness.eigval > 0.0 and witness.lam_lower == 0.0
    with pytest.raises(InputError, match="lam_lower"):
        witness.segment(0.0)


def test_points_outside_are_projected(problem: Any) -> None:
    obj = problem([3, 4, 2], "tanh", "squared_error")
    v = np.ones(obj.num_params)
    outside = 50.0 * np.random.default_rng(3).standard_normal(obj.num_params)
    for region in (ph.Box(-0.3, 0.7).bind(obj), ph.Ball(0.2, 1.7).bind(obj)):
        witness = make_witness(obj, region, outside, v)
        assert surely_inside(region, witness.theta)
        np.testing.assert_allclose(witness.theta, region.project(outside), atol=1e-13)
        assert np.linalg.norm(witness.v) == pytest.approx(1.0, abs=1e-15)


def test_direction_length_does_not_matter(problem: Any) -> None:
    obj = problem([3, 4, 2], "tanh", "cross_entropy")
    region = ph.Box(-1.0, 1.0).bind(obj)
    rng = np.random.default_rng(8)
    theta, v = rng.uniform(-1, 1, (2, obj.num_params))
    values = [make_witness(obj, region, theta, scale * v).eigval for scale in (1e-200, 1e-8, 1.0, 1e200)]
    np.testing.assert_allclose(values, values[0], rtol=1e-13)


def test_bad_input_is_named(problem: Any) -> None:
    obj = problem([3, 4, 2], "tanh", "squared_error")
    region = ph.Box(-1.0, 1.0).bind(obj)
    theta = np.zeros(obj.num_params)
    with pytest.raises(InputError, match="zero vector"):
        make_witness(obj, region, theta, theta)
    with pytest.raises(InputError, match="v"):
        make_witness(obj, region, theta, np.ones(3))
    with pytest.raises(InputError, match="theta"):
        make_witness(obj, region, np.full(obj.num_params, np.nan), np.ones(obj.num_params))


def test_relu_point_on_a_kink_is_moved_off_it() -> None:
    # At w = 0 the gate is undecided; on the side w > 0 the Hessian of (v w - 1)²/2 is [[v², 2vw-1], [2vw-1, w²]].
    net = ph.MLP([1, 1, 1], "relu", bias=False)
    obj = ph.Objective(net, ph.Dataset(np.array([[1.0]]), np.array([1.0])))
    region = ph.Box(-1.0, 1.0).bind(obj)
    witness = make_witness(obj, region, np.zeros(2), np.array([1.0, 1.0]))
    assert 0.0 < witness.theta[0] < 1e-3
    assert witness.eigval == pytest.approx(-1.0, abs=1e-3)
    assert witness.allowance < 1e-10


def test_a_forged_witness_is_rejected(two_parameter_problems: Any) -> None:
    witness = at_minimiser(two_parameter_problems[2])
    with pytest.raises(NumericalError, match="as recorded"):
        dataclasses.replace(witness, eigval=witness.eigval - 1e-6).check()
    with pytest.raises(NumericalError, match="does not lie"):
        dataclasses.replace(witness, theta=1.001 * witness.theta).check()
    with pytest.raises(NumericalError, match="length"):
        dataclasses.replace(witness, v=2.0 * witness.v).check()


def test_dictionary_is_json(two_parameter_problems: Any) -> None:
    witness = at_minimiser(two_parameter_problems[0])
    content = json.loads(json.dumps(witness.to_dict(), allow_nan=False))
    assert content["theta"] == witness.theta.tolist()
    assert content["lam_lower"] == witness.lam_lower


@pytest.mark.parametrize("region", [ph.Box(-0.7, 0.4), ph.Ball(0.3, 1.1), ph.Box(np.arange(5.0), np.arange(5.0) + 1e-3)])
def test_centred_pairs_are_exact_and_inside(region: Any) -> None:
    region = region.bind(5)
    rng = np.random.default_rng(19)
    fitted = 0
    for _ in range(200):
        theta = region.project(region.interior_point() + 3.0 * rng.standard_normal(5))
        step = 10.0 ** rng.uniform(-9, 0) * rng.standard_normal(5)
        pair = centred_pair(region, theta, step)
        if pair is None:
            continue
        fitted += 1
        m, d, first, second = pair
        assert np.array_equal(0.5 * first + 0.5 * second, m)
        assert np.array_equal(second - m, d) and np.array_equal(m - first, d)
        assert region.contains(first) and region.contains(second)
        np.testing.assert_allclose(d, step, rtol=0, atol=1e-14)
    assert fitted > 50


def test_a_step_longer_than_the_region_does_not_fit() -> None:
    for region in (ph.Box(-1.0, 1.0).bind(3), ph.Ball(0.0, 1.0).bind(3)):
        assert centred_pair(region, np.zeros(3), np.array([1.5, 0.0, 0.0])) is None
