"""Ordered cells, intersections, scaled boxes and users' own regions: geometry, sampling and what they refuse."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize, nnls

import pyhess as ph
from pyhess.errors import InputError, InputTypeError
from pyhess.regions._dykstra import dykstra, isotonic, nearest_in_box_and_ball

NET = ph.MLP([2, 3, 2])  # P = 17; b1 = theta[6:9]
B1 = slice(6, 9)


def half_space(theta: np.ndarray) -> np.ndarray:
    """The points with theta_0 + theta_1 <= 1."""
    excess = max(0.0, float(theta[0] + theta[1]) - 1.0)
    theta[:2] -= 0.5 * excess
    return theta


def unit_cube(theta: np.ndarray) -> np.ndarray:
    return np.clip(theta, -1.0, 1.0)


def regions() -> list[ph.Region]:
    rng = np.random.default_rng(3)
    return [
        ph.Ordered(ph.Box(-0.7, 0.4), NET),
        ph.Ordered(ph.Ball(0.1, 1.3), NET),
        ph.Ordered(ph.Box.around(np.linspace(-0.5, 0.5, 17), rng.uniform(0.2, 0.6, 17)), NET),
        ph.Ordered(ph.Ball(np.linspace(-0.5, 0.5, 17), 0.8), NET),
        ph.Intersection([ph.Box(-0.5, 0.5), ph.Ball(radius=1.2)]).bind(17),
        ph.Intersection([ph.Box(-0.5, 0.5), ph.Ball(0.3, 0.9), ph.Ball(-0.1, 1.1)]).bind(17),
        ph.Intersection([ph.Ordered(ph.Box(-0.7, 0.4), NET), ph.Ball(0.1, 1.0)]),
        ph.Convex(half_space, np.zeros(17), 1.0),
    ]


REGIONS = pytest.mark.parametrize("region", regions(), ids=repr)


# --- projections ---------------------------------------------------------------------------------------------------------


@REGIONS
def test_projection_is_the_nearest_point(region: ph.Region) -> None:
    rng = np.random.default_rng(5)
    others = region.sample(12, rng=rng)
    for scale in (0.1, 1.0, 30.0):
        theta = scale * rng.standard_normal(17)
        point = region.project(theta)
        assert region.contains(point)
        np.testing.assert_allclose(region.project(point), point, rtol=1e-15 if isinstance(region, ph.Convex) else 0.0, atol=0.0)
        # A point of a convex set is nearest iff no other point of the set lies on theta's side of it.
        assert ((others - point) @ (theta - point)).max() <= 1e-9 * (1.0 + theta @ theta)
        if region.contains(theta):
            np.testing.assert_allclose(point, theta, rtol=1e-15)


def by_programming(theta: np.ndarray, bounds: Any, constraints: list[Any], start: np.ndarray) -> np.ndarray:
    found = minimize(
        lambda x: 0.5 * float((x - theta) @ (x - theta)),
        start,
        jac=lambda x: x - theta,
        bounds=bounds,
        constraints=constraints,
        method="SLSQP",
        options={"ftol": 1e-11, "maxiter": 500},
    )
    assert found.success, found.message
    return np.asarray(found.x)


def in_polyhedron(theta: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The nearest point with A x >= b: Lawson & Hanson's reduction to non-negative least squares."""
    e = np.vstack([a.T, (b - a @ theta)[None, :]])
    u, _ = nnls(e, np.append(np.zeros(theta.size), 1.0))
    r = e @ u - np.append(np.zeros(theta.size), 1.0)
    return np.asarray(theta - r[:-1] / r[-1])


def in_ball(center: np.ndarray, radius: float) -> dict[str, Any]:
    return {
        "type": "ineq",
        "fun": lambda x: radius**2 - float((x - center) @ (x - center)),
        "jac": lambda x: -2.0 * (x - center),
    }


@pytest.mark.parametrize("seed", range(2, 14))
def test_projections_agree_with_a_solver(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = 5
    theta, low = rng.normal(scale=2.0, size=size), rng.uniform(-1.0, -0.3, size)
    high = low + rng.uniform(0.5, 1.5, size)
    box = ph.Box(low, high)
    start = 0.5 * (low + high)
    first, second = ph.Ball(start + 0.1 * rng.standard_normal(size), 0.6), ph.Ball(start, 0.55)
    balls = [in_ball(ball.center, ball.radius) for ball in (first, second)]
    expected = by_programming(theta, list(zip(low, high, strict=True)), balls[:1], start)
    np.testing.assert_allclose(ph.Intersection([box, first]).project(theta), expected, atol=2e-6)
    direct = nearest_in_box_and_ball(theta, box.low, box.high, first.center, first.radius)
    np.testing.assert_allclose(dykstra([box.project, first.project], theta, 1e-15), direct, atol=1e-9)
    expected = by_programming(theta, list(zip(low, high, strict=True)), balls, start)
    np.testing.assert_allclose(ph.Intersection([box, first, second]).project(theta), expected, atol=2e-6)


@pytest.mark.parametrize("seed", range(2, 8))
def test_ordered_projections_agree_with_a_solver(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = ph.MLP([1, 3, 1])  # P = 10, b1 = theta[3:6]
    middle, half = rng.uniform(-0.3, 0.3, 10), rng.uniform(0.5, 1.0, 10)
    middle[3:6] = np.sort(middle[3:6])
    for base in (ph.Box(middle - half, middle + half), ph.Ball(middle, 0.8)):
        theta = rng.normal(scale=1.5, size=10)
        cell = ph.Ordered(base, net)
        if isinstance(base, ph.Box):
            order = np.eye(10)[4:6] - np.eye(10)[3:5]
            a = np.vstack([np.eye(10), -np.eye(10), order])
            expected = in_polyhedron(theta, a, np.concatenate([base.low, -base.high, np.zeros(2)]))
            np.testing.assert_allclose(cell.project(theta), expected, atol=1e-9)
        else:
            # With a multiplier for the ball the point is the nearest in the cone to one on the way from theta to the centre.
            order = np.eye(10)[4:6] - np.eye(10)[3:5]

            def on_the_way(t: float, theta: np.ndarray = theta, base: ph.Ball = base, order: np.ndarray = order) -> np.ndarray:
                return in_polyhedron(theta + t * (base.center - theta), order, np.zeros(2))

            def beyond(t: float, base: ph.Ball = base) -> float:
                return float(np.linalg.norm(on_the_way(t) - base.center)) - base.radius

            expected = on_the_way(brentq(beyond, 0.0, 1.0, xtol=1e-14))
            np.testing.assert_allclose(cell.project(theta), expected, atol=1e-8)


def test_isotonic_regression_written_out() -> None:
    np.testing.assert_array_equal(isotonic(np.array([3.0, 1.0, 2.0])), [2.0, 2.0, 2.0])
    np.testing.assert_array_equal(isotonic(np.array([1.0, 4.0, 2.0, 5.0])), [1.0, 3.0, 3.0, 5.0])
    np.testing.assert_array_equal(isotonic(np.array([1.0, 2.0])), [1.0, 2.0])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(2, 10**6))
def test_box_and_ball_at_once(size: int, seed: int) -> None:
    """Optimality: theta - x lies in the cone of outward normals of the active constraints."""
    rng = np.random.default_rng(seed)
    center = rng.standard_normal(size)
    low = center - rng.uniform(-0.1, 1.0, size)
    high = low + rng.uniform(0.3, 2.0, size)
    radius = float(np.linalg.norm(np.clip(center, low, high) - center)) + rng.uniform(0.01, 1.5)
    theta = rng.standard_normal(size) * 10.0 ** rng.uniform(-1, 2)
    x = nearest_in_box_and_ball(theta, low, high, center, radius)
    assert (x >= low).all() and (x <= high).all() and np.linalg.norm(x - center) <= radius
    free = (x > low) & (x < high)
    push, out = (theta - x)[free], (x - center)[free]
    mu = float(push @ out) / float(out @ out) if out.any() else 0.0
    assert mu >= -1e-8
    np.testing.assert_allclose(push, mu * out, atol=1e-9 * (1.0 + np.abs(theta).max()))
    rest = theta - x - mu * (x - center)
    tolerance = 1e-8 * (1.0 + np.abs(theta).max())
    assert (rest[x >= high] >= -tolerance).all() and (rest[x <= low] <= tolerance).all()


# --- membership, sampling, symmetry --------------------------------------------------------------------------------------


@REGIONS
def test_interior_points_and_samples_lie_inside(region: ph.Region) -> None:
    assert region.interior_contains(region.interior_point())
    thetas = region.sample(8, rng=7)
    assert thetas.shape == (8, 17)
    assert all(region.contains(theta) for theta in thetas)
    np.testing.assert_array_equal(thetas, region.sample(8, rng=7))
    assert np.ptp(thetas, axis=0).min() > 0.0


def test_samples_of_a_cell_are_uniform() -> None:
    net = ph.MLP([1, 2, 1])  # b1 = theta[2:4]
    thetas = ph.Ordered(ph.Box(0.0, 1.0), net).sample(4000, rng=11)
    assert (thetas[:, 2] <= thetas[:, 3]).all()
    # The order statistics of two uniform numbers have means 1/3 and 2/3.
    np.testing.assert_allclose(thetas[:, 2:4].mean(axis=0), [1 / 3, 2 / 3], atol=0.02)
    assert abs(thetas[:, 0].mean() - 0.5) < 0.02


def test_walks_are_about_uniform() -> None:
    """The triangle b_1 <= b_2 of a box that is not symmetric, drawn by walks: compared with rejection."""
    net = ph.MLP([1, 2, 1])
    high = np.ones(7)
    high[3] = 1.5
    base = ph.Box(np.zeros(7), high)
    drawn = ph.Ordered(base, net).sample(800, rng=13)
    uniform = base.sample(20_000, rng=17)
    kept = uniform[uniform[:, 2] <= uniform[:, 3]]
    np.testing.assert_allclose(drawn.mean(axis=0), kept.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(drawn.std(axis=0), kept.std(axis=0), atol=0.05)


def test_membership_in_a_cell() -> None:
    cell = ph.Ordered(ph.Box(-1.0, 1.0), NET)
    theta = np.zeros(17)
    assert cell.contains(theta) and not cell.interior_contains(theta)
    theta[B1] = [-0.1, 0.0, 0.1]
    assert cell.interior_contains(theta)
    theta[B1] = [-0.1, 0.1, 0.0]
    assert not cell.contains(theta)
    assert cell.contains(theta, atol=0.1)


def test_sorting_keeps_the_function() -> None:
    net = ph.MLP([2, 4, 3, 1])
    rng = np.random.default_rng(19)
    obj = ph.Objective(net, ph.Dataset(rng.standard_normal((6, 2)), rng.standard_normal(6)))
    cell = ph.Ordered(ph.Box(-3.0, 3.0), net)
    theta = rng.uniform(-1.0, 1.0, net.num_params)
    ordered = cell.sort(theta)
    assert not cell.contains(theta) and cell.contains(ordered)
    assert obj.value(ordered) == pytest.approx(obj.value(theta), rel=1e-14)


def test_scaled_boxes() -> None:
    box = ph.Box.scaled(ph.MLP([4, 9, 1]), 3.0)
    np.testing.assert_array_equal(box.high, [1.5] * 45 + [1.0] * 10)
    np.testing.assert_array_equal(box.low, -box.high)
    assert ph.Box.scaled(ph.MLP([4, 9, 1])).high[0] == 0.5
    for bad in (0.0, -1.0, math.inf):
        with pytest.raises(InputError, match="c is"):
            ph.Box.scaled(NET, bad)


def test_symmetries() -> None:
    one_unit = ph.MLP([2, 1, 1])
    for region, permutation, sign in (
        (ph.Ordered(ph.Box(-1.0, 1.0), NET), False, False),
        (ph.Intersection([ph.Box(-1.0, 1.0), ph.Ball(radius=2.0)]), True, True),
        (ph.Intersection([ph.Box(-1.0, 1.0), ph.Ball(0.1, radius=2.0)]), True, False),
        (ph.Intersection([ph.Box(-1.0, 1.0), ph.Ordered(ph.Box(-1.0, 1.0), NET)]), False, False),
        (ph.Convex(unit_cube, np.zeros(17), 1.0), False, False),
    ):
        assert region.is_permutation_symmetric(NET) is permutation, region
        assert region.is_sign_symmetric(NET) is sign, region
    assert ph.Ordered(ph.Box(-1.0, 1.0), one_unit).is_permutation_symmetric(one_unit)
    assert ph.Ordered(ph.Box(-1.0, 1.0), one_unit).is_sign_symmetric(one_unit)


def test_enclosures_contain_the_region() -> None:
    for region in regions():
        enclosures = region.enclosures()
        assert all(e.contains(theta) for e in enclosures for theta in region.sample(6, rng=23))
    both = ph.Intersection([ph.Box(-1.0, 1.0), ph.Ball(radius=0.5)]).bind(17).enclosures()
    boxes = [e for e in both if isinstance(e, ph.Box)]
    assert len(both) == 2 and boxes[0].high.max() == pytest.approx(0.5) and boxes[0].high.min() >= 0.5
    assert ph.Convex(unit_cube, np.zeros(3), 1.0).enclosures() == ()


# --- values --------------------------------------------------------------------------------------------------------------


@REGIONS
def test_regions_are_values(region: ph.Region) -> None:
    for other in (pickle.loads(pickle.dumps(region)), copy.copy(region), copy.deepcopy(region)):
        assert other == region and hash(other) == hash(region) and repr(other) == repr(region)
    content = json.loads(json.dumps(region.to_dict(), allow_nan=False))
    assert content["kind"] == region.kind
    assert region.bind(NET) is region
    assert sum(region == other for other in regions()) == 1
    with pytest.raises(AttributeError, match="immutable"):
        region.kind = "x"


def test_intersections_are_flat_and_bound_together() -> None:
    inner = ph.Intersection([ph.Box(-1.0, 1.0), ph.Ball(radius=2.0)])
    assert inner.size is None
    outer = ph.Intersection([inner, ph.Ball(np.zeros(17), 1.5)])
    assert outer.size == 17 and len(outer.parts) == 3
    assert inner.bind(NET).size == 17
    assert inner.sample(3, NET, rng=5).shape == (3, 17)


# --- bad input -----------------------------------------------------------------------------------------------------------


def shrink(theta: np.ndarray) -> np.ndarray:
    return 0.5 * theta


def onto_annulus(theta: np.ndarray) -> np.ndarray:
    norm = float(np.linalg.norm(theta))
    return theta / norm if norm > 0.0 and norm != 1.0 and abs(norm - 1.0) > 1e-12 else theta


def clip_twice_as_far(theta: np.ndarray) -> np.ndarray:
    """Idempotent, not non-expansive: outside the cube the corner nearest in sign."""
    return theta if np.abs(theta).max() <= 1.0 else np.where(theta > 0, 1.0, -1.0)


def oblique(theta: np.ndarray) -> np.ndarray:
    """Onto theta_0 <= 1, along another direction: idempotent and hardly expanding, but not the nearest point."""
    moved = theta.copy()
    excess = max(0.0, theta[0] - 1.0)
    moved[0] -= excess
    moved[1] -= 0.5 * excess
    return moved


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: ph.Convex(shrink, np.zeros(3), 1.0), InputError, "not idempotent"),
        (lambda: ph.Convex(clip_twice_as_far, np.zeros(3), 1.0), InputError, "not non-expansive"),
        (lambda: ph.Convex(oblique, np.zeros(3), 1.0), InputError, "not (non-expansive|return the nearest)"),
        (lambda: ph.Convex(onto_annulus, np.zeros(3), 1.0), InputError, "non-expansive|interior"),
        (lambda: ph.Convex(unit_cube, np.ones(3), 1.0), InputError, "center does not lie in the interior"),
        (lambda: ph.Convex(unit_cube, np.zeros(3), 0.0), InputError, "size is 0.0"),
        (lambda: ph.Convex(unit_cube, np.zeros((3, 1)), 1.0), InputError, "center has shape"),
        (lambda: ph.Convex(unit_cube, [0.0, math.nan], 1.0), InputError, r"center\[1\] is nan"),
        (lambda: ph.Convex(lambda t: t[:2], np.zeros(3), 1.0), InputError, "result of project has shape"),
        (lambda: ph.Convex(lambda t: t * math.nan, np.zeros(3), 1.0), InputError, r"result of project\[0\] is nan"),
        (lambda: ph.Convex("x", np.zeros(3), 1.0), InputTypeError, "project is 'x'"),
        (lambda: ph.Convex(unit_cube, np.zeros(3), 1.0, enclosure=3), InputTypeError, "enclosure is 3"),
        (
            lambda: ph.Convex(unit_cube, np.zeros(3), 1.0, enclosure=ph.Ball(radius=1.0)),
            InputError,
            "does not contain the set",
        ),
        (lambda: ph.Intersection([]), InputError, "parts is empty"),
        (lambda: ph.Intersection(ph.Box(-1, 1)), InputTypeError, "pass a list of regions"),
        (lambda: ph.Intersection([ph.Box(-1, 1), 3]), InputTypeError, r"parts\[1\] is 3"),
        (lambda: ph.Intersection([ph.Box(-np.ones(2), 1), ph.Box(-np.ones(3), 1)]), InputError, r"\[2, 3\] coordinates"),
        (lambda: ph.Intersection([ph.Box(-1, 1), ph.Box(2, 3)]), InputError, "no common interior: in every coordinate"),
        (lambda: ph.Intersection([ph.Box(-np.ones(2), 1), ph.Ball(5.0, 1.0)]), InputError, "no common interior"),
        (lambda: ph.Intersection([ph.Box(-1, 1), ph.Ball(2.0, 1.0)]), InputError, "no common interior"),
        (lambda: ph.Ordered(ph.Box(-1, 1), ph.MLP([2, 3, 1], bias=False)), InputError, "no biases"),
        (lambda: ph.Ordered(ph.Box(-1, 1), 17), InputTypeError, "net is 17"),
        (lambda: ph.Ordered([ph.Box(-1, 1)], NET), InputTypeError, "allowed are Box and Ball"),
        (lambda: ph.Ordered(ph.Box.around(np.linspace(1, 0, 17), 0.01), NET), InputError, "increasing order"),
        (lambda: ph.Ordered(ph.Ball(np.linspace(1, 0, 17), 0.01), NET), InputError, "increasing order"),
        (lambda: ph.Ordered(ph.Box(-1, 1), NET).bind(18), InputError, "17 coordinates but 18"),
        (lambda: ph.Ordered(ph.Box(-1, 1), NET).bind(ph.MLP([4, 2, 2], bias=True)), InputError, "make one for that network"),
    ],
)
def test_bad_input(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()
