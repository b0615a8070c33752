"""Searches and brackets over ordered cells, intersections and users' own regions."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import relu_kink_status
from pyhess.threshold import Status


def smallest(obj: ph.Objective, theta: np.ndarray) -> float:
    return float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0])


def clip(theta: np.ndarray) -> np.ndarray:
    return np.clip(theta, -0.7, 0.5)


def product_problem() -> ph.Objective:
    """(v w - 1)²/2 with theta = (w, v)."""
    return ph.Objective(ph.MLP([1, 1, 1], "identity", bias=False), ph.Dataset([[1.0]], [1.0]))


# --- ordered cells -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [ph.Box(-0.7, 0.5), ph.Ball(radius=1.2), ph.Box.scaled(ph.MLP([2, 3, 1]), 1.5)])
def test_a_cell_leaves_psi_unchanged(problem: Any, base: ph.Region) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    whole = ph.lambda_threshold(obj, base, rng=7)
    cell = ph.Ordered(base, obj.net)
    t = ph.lambda_threshold(obj, cell, rng=7)
    assert t.psi_upper == pytest.approx(whole.psi_upper, rel=1e-12) and t.psi_lower == whole.psi_lower
    assert t.witness is not None and t.witness.check() and cell.contains(t.witness.theta)
    assert smallest(obj, t.witness.theta) == pytest.approx(t.psi_upper, rel=1e-9)
    first, second, _, violation = t.witness.segment(0.9 * t.lam_lower)
    assert violation > 0.0 and cell.contains(first) and cell.contains(second)
    assert t.problem["symmetry"] == whole.problem["symmetry"]
    assert "contains the region" in str(t).replace("\n", " ").replace("  ", "")


def test_a_cell_of_two_hidden_layers(problem: Any) -> None:
    obj = problem([2, 3, 3, 1], "softplus", "squared_error")
    cell = ph.Ordered(ph.Box(-0.7, 0.5), obj.net)
    found = ph.search(obj, cell, rng=7)
    assert found.psi_upper == ph.search(obj, cell.region, rng=7).psi_upper
    assert cell.contains(found.theta)
    assert obj.curvature(found.theta, found.v).q == pytest.approx(found.psi_upper, rel=1e-10)


def test_a_cell_with_a_penalty_that_tells_units_apart(problem: Any) -> None:
    """The twin in the cell meets other weights, so the cell itself has to be searched."""
    obj = problem([1, 2, 1], "tanh", "squared_error")
    w = np.array([0.1, 3.0, 1.0, 1.0, 0.1, 3.0, 1.0])  # W1, b1, W2, b2
    cell = ph.Ordered(ph.Box(-1.0, 0.8), obj.net)
    free = ph.search(obj, cell.region, penalty=ph.WeightedL2(w), rng=7, starts=24)
    found = ph.search(obj, cell, penalty=ph.WeightedL2(w), rng=7, starts=24)
    assert cell.contains(found.theta)
    assert 0.0 < found.lam_lower <= free.lam_lower * (1.0 + 1e-9)
    scale = 1.0 / np.sqrt(w)
    values = []
    for theta in cell.sample(2000, rng=11):
        h = obj.hessian(theta).to_dense()
        values.append(-0.5 * np.linalg.eigvalsh(scale[:, None] * h * scale)[0])
    assert found.lam_lower >= max(values)


def test_a_cell_of_a_region_without_symmetry(problem: Any) -> None:
    obj = problem([1, 2, 1], "tanh", "squared_error")
    theta0 = np.array([0.5, -0.4, -0.1, 0.1, 0.6, 0.3, 0.0])
    cell = ph.Ordered(ph.Box.around(theta0, 0.4), obj.net)
    t = ph.lambda_threshold(obj, cell, rng=7, starts=24)
    assert t.witness is not None and t.witness.check() and cell.contains(t.witness.theta)
    assert t.psi_upper <= min(smallest(obj, theta) for theta in cell.sample(500, rng=13))
    assert t.psi_upper >= ph.search(obj, cell.region, rng=7, starts=24).psi_upper - 1e-12


# --- intersections -------------------------------------------------------------------------------------------------------


def test_an_intersection_against_a_grid() -> None:
    obj = product_problem()
    region = ph.Intersection([ph.Box([-0.3, -1.0], [0.9, 0.7]), ph.Ball(radius=1.0)])
    t = ph.lambda_threshold(obj, region, rng=7)
    axis = np.linspace(-1.0, 1.0, 2001)
    w, v = np.meshgrid(axis, axis, indexing="ij")
    inside = (w >= -0.3) & (w <= 0.9) & (v >= -1.0) & (v <= 0.7) & (w**2 + v**2 <= 1.0)
    eigval = 0.5 * (v**2 + w**2) - np.sqrt(0.25 * (v**2 - w**2) ** 2 + (2 * v * w - 1.0) ** 2)
    best = float(eigval[inside].min())
    assert t.psi_upper <= best + 1e-12 and t.psi_upper == pytest.approx(best, abs=5e-3)
    assert t.psi_lower <= t.psi_upper and t.status in (Status.BRACKETED, Status.EXACT)
    assert t.witness is not None and t.witness.check() and region.contains(t.witness.theta)


def test_an_intersection_takes_the_best_certificate_of_its_parts(problem: Any) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    box, ball = ph.Box(-0.3, 0.3), ph.Ball(radius=0.6)
    found = ph.certify(obj, ph.Intersection([box, ball]))
    bounds = [ph.certify(obj, part).psi_lower for part in (box, ball)]
    assert found.psi_lower >= max(bounds)
    assert "contains the region" in found.statement and found.verify()


@pytest.mark.parametrize("parts", [[ph.Box(-0.7, 0.5), ph.Ball(radius=9.0)], [ph.Ball(radius=1.2), ph.Box(-3.0, 3.0)]])
def test_an_intersection_with_a_part_that_does_not_matter(problem: Any, parts: list[ph.Region]) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    both = ph.search(obj, ph.Intersection(parts), rng=7)
    alone = ph.search(obj, parts[0], rng=7)
    assert both.psi_upper == pytest.approx(alone.psi_upper, rel=1e-6)


def test_an_intersection_lies_between_its_parts_and_a_smaller_box(problem: Any) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    region = ph.Intersection([ph.Box(-0.7, 0.5), ph.Ball(radius=1.2)])
    found = ph.search(obj, region, rng=7, starts=40)
    bound = region.bind(obj)
    assert bound.contains(found.theta)
    assert all(found.psi_upper >= ph.search(obj, part, rng=7).psi_upper - 1e-9 for part in region.parts)
    assert found.psi_upper < min(smallest(obj, theta) for theta in bound.sample(1000, rng=17))
    # First-order conditions: no feasible small step lowers the eigenvalue.
    jet = obj.curvature(found.theta, found.v)
    step = 1e-3 / np.abs(jet.grad).max()
    moved = bound.project(found.theta - step * jet.grad) - found.theta
    assert -(jet.grad @ moved) <= 1e-5 * abs(found.psi_upper)


# --- users' regions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["squared_error", "logistic"])
def test_a_box_written_as_a_projection_gives_the_box_psi(problem: Any, loss: str) -> None:
    obj = problem([2, 3, 1], "tanh", loss)
    box = ph.Box(-0.7, 0.5).bind(obj)
    own = ph.Convex(clip, box.interior_point(), 0.6)
    expected = ph.search(obj, box, rng=7)
    found = ph.search(obj, own, rng=7)
    assert found.psi_upper == pytest.approx(expected.psi_upper, rel=1e-6)
    assert own.contains(found.theta)


def test_a_region_without_enclosure_has_no_upper_end(problem: Any) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    box = ph.Box(-0.7, 0.5).bind(obj)
    own = ph.Convex(clip, box.interior_point(), 0.6)
    t = ph.lambda_threshold(obj, own, rng=7, starts=12)
    assert t.status is Status.UNDECIDED and math.isinf(t.lam_upper) and t.psi_lower == -math.inf
    assert t.certificate is not None and t.certificate.method == "none"
    assert t.witness is not None and t.witness.check() and t.lam_lower > 0.0
    assert "enclosure" in str(t) and "no box or ball" in str(t)
    json.dumps(t.to_dict(), allow_nan=False)
    first, second, _, violation = t.witness.segment(0.9 * t.lam_lower)
    assert violation > 0.0 and own.contains(first) and own.contains(second)
    closed = ph.Convex(clip, box.interior_point(), 0.6, enclosure=box)
    bracketed = ph.lambda_threshold(obj, closed, rng=7, starts=12)
    assert bracketed.status is Status.BRACKETED
    assert bracketed.psi_lower == ph.certify(obj, box).psi_lower


def test_other_penalties_on_other_regions(problem: Any) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    box = ph.Box(-0.7, 0.5).bind(obj)
    own = ph.Convex(clip, box.interior_point(), 0.6, enclosure=box)
    w = np.linspace(0.4, 2.0, obj.num_params)
    for penalty, tolerance in ((ph.WeightedL2(w), 1e-6), (ph.GeometricL2(), 1e-5)):
        expected = ph.search(obj, box, penalty=penalty, rng=7)
        found = ph.search(obj, own, penalty=penalty, rng=7, starts=40)
        assert found.lam_lower == pytest.approx(expected.lam_lower, rel=tolerance)


def test_relu_kinks_on_other_regions(problem: Any) -> None:
    obj = problem([3, 4, 1], "relu", "squared_error")
    region = ph.Intersection([ph.Box(-0.5, 0.5), ph.Ball(radius=1.5)])
    t = ph.lambda_threshold(obj, region, rng=7, starts=8)
    assert t.status is Status.INFINITE and t.kink is not None and t.kink.verify(obj, region)
    # A small box keeps every activation pattern, and so does what it is intersected with.
    theta = np.random.default_rng(11).standard_normal(obj.num_params)
    around = ph.Box.around(theta, 1e-4)
    small = ph.Intersection([around, ph.Ball(theta, 5.0)])
    for region, verdict in ((around, "kink_free"), (small, "kink_free"), (ph.Convex(clip, np.full(21, -0.1), 0.6), "possible")):
        assert relu_kink_status(obj.net, obj.data, obj.loss, region.bind(obj))[0] == verdict


def test_a_python_loop_can_be_stopped(problem: Any) -> None:
    obj = problem([20, 40, 30, 5], "tanh", "cross_entropy", samples=300)
    region = ph.Intersection([ph.Box(-0.5, 0.5), ph.Ball(radius=8.0)])
    t = ph.lambda_threshold(obj, region, rng=7, time_limit=1.5)
    assert t.stats["interrupted"] and t.stats["seconds"]["total"] < 15.0
    assert t.witness is not None and t.witness.check()
    seen: list[dict[str, Any]] = []
    ph.search(obj, region, rng=7, time_limit=4.0, progress=seen.append)
    assert seen and {"stage", "done", "total", "psi_upper", "seconds"} <= set(seen[0])


def test_same_seed_same_bits(problem: Any) -> None:
    obj = problem([2, 3, 1], "tanh", "squared_error")
    region = ph.Intersection([ph.Box(-0.3, 0.4), ph.Ball(radius=1.0)])
    one, two = (ph.search(obj, region, rng=19, starts=8) for _ in range(2))
    assert one.psi_upper == two.psi_upper and np.array_equal(one.theta, two.theta)
