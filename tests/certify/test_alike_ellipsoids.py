"""Ellipsoids for hidden units that are all alike: the independent proof of them against samples and networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_unit_alike import Around, Outputs
from pyhess.certify.reference_unit_ball import BallRest
from pyhess.certify.reference_unit_block import UnitProblem
from pyhess.certify.reference_unit_change import _highest, on_boxes
from pyhess.certify.reference_unit_joint import MORE, Ellipsoid, ellipsoid
from pyhess.certify.reference_unit_rest import Units
from pyhess.certify.unit_cover import AlikeSets

from .alike_cases import CASES, fit, fitted, in_disc, others, outputs, proof_of, reach, slopes, without_own

Array = Any


@pytest.mark.parametrize("activation", CASES)
@pytest.mark.usefixtures("doubles")
def test_sets_that_hold_are_proved_and_smaller_ones_refuted(activation: str) -> None:
    obj, ball, sets = fitted(activation)
    assert len(proof_of(obj, ball, replace(sets, scales=1.03 * sets.scales)).found) == 2
    for k in range(2):
        wrong = sets.those(np.arange(2) == k)
        smaller = proof_of(obj, ball, replace(wrong, scales=0.97 * wrong.scales))
        assert smaller.broken and not smaller.found


@pytest.mark.usefixtures("doubles")
def test_every_unit_has_its_part_of_the_bias() -> None:
    """A matrix and a g for which most is needed where the output bias alone changes."""
    obj, ball, _ = fitted("tanh")
    room, floor, matrix = ball.radius, 0.05, 0.1 * np.eye(5) + 0.5
    part = 1.0 / np.sqrt(3.0)
    needed = part * np.linalg.norm(matrix.sum(axis=1)) / (2.0 * np.sqrt(floor))
    sets = AlikeSets(np.array([room]), np.array([floor]), matrix[None], np.array([1.01 * needed]))
    assert len(proof_of(obj, ball, sets).found) == 1
    assert proof_of(obj, ball, replace(sets, scales=0.98 * sets.scales)).broken
    (change, around), box = claimed(obj, ball), np.array([[[-0.02, -0.01], [0.01, 0.02]]])
    for share in (0.98, 1.01):
        assert on_boxes(change, around(matrix, share * needed, floor, room), box)[0].all() == (share > 1.0)


@pytest.mark.usefixtures("doubles")
def test_the_inverse_is_off_by_no_more_than_the_farthest_sum_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    obj, ball, sets = fitted("tanh")
    given: list[tuple[float, float]] = []

    def noted(matrix: Array, t: float, reach: Range) -> Ellipsoid | None:
        given.append((t, float(reach.hi)))
        return ellipsoid(matrix, t, reach)

    monkeypatch.setattr("pyhess.certify.reference_unit_alike.ellipsoid", noted)
    proof_of(obj, ball, replace(sets, scales=1.03 * sets.scales))
    farthest = sets.rooms**2 + (obj.net.widths[1] - 1) * sets.floors
    assert given == [(pytest.approx(1.03 * MORE), pytest.approx(x)) for x in farthest]
    # A matrix that is nearly singular: vectors with A f = t x e are x C e up to what is said to be missing.
    rng = np.random.default_rng(577)
    left, right = (np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(2))
    matrix = (left * 10.0 ** np.arange(0.0, -9.0, -1.5)) @ right
    found = ellipsoid(matrix, 1.5, Range(wide(2.0)))
    assert found is not None
    exact, off = found.columns.hi.astype(np.longdouble) * 2.0, found.missing.astype(np.longdouble)
    for e in left.T:
        # the largest f in the direction of an axis, refined until A f = 3 e
        f = 3.0 * np.linalg.solve(matrix, e).astype(np.longdouble)
        for _ in range(5):
            f += np.linalg.solve(matrix, (3.0 * e - matrix.astype(np.longdouble) @ f).astype(float))
        assert (np.abs(f - exact @ e) <= off).all()
    assert np.abs(f - exact @ e).max() > 1e-12


@pytest.mark.usefixtures("doubles")
def test_what_is_beyond_the_room_does_not_count() -> None:
    """With a large g the most is needed at the edge of |x| <= room, and more beyond; y and c are as large as they like."""
    obj, ball, _ = fitted("gelu")
    room, floor = 0.6 * ball.radius, 3.0 * ball.radius**2
    sets = AlikeSets(np.array([room]), np.array([floor]), fit(obj, ball, room, floor)[None], np.array([1.02]))
    assert len(proof_of(obj, ball, sets).found) == 1
    assert proof_of(obj, ball, replace(sets, rooms=1.2 * sets.rooms)).broken


def claimed(obj: ph.Objective, ball: Any) -> tuple[Outputs, Callable[[Array, float, float, float], Around]]:
    """A unit's outputs, and what is claimed of them, for the slow proof."""
    full = Problem.of(obj)
    units = Units.of(full, wide(ball.center), wide(ball.center))
    part = full.scale[1] / Range(wide(float(len(units.kinds) - 1))).root() if obj.net.bias else Range(wide(0.0))
    return Outputs(UnitProblem.of(full), (full.scale[0], full.scale[1]), units.u[0][0]), partial(Around, bias=part)


@pytest.mark.parametrize("activation", CASES)
def test_the_worst_output_weight_and_bias(activation: str) -> None:
    """The closed form that these tests rest on, against a grid of (y, c)."""
    rng = np.random.default_rng(587)
    obj, ball, sets = fitted(activation)
    steps, floor = in_disc(rng, 20, ball.radius), float(sets.floors[0])
    h, squares = outputs(obj, ball.center, steps), (steps**2).sum(axis=1) + floor
    r, angle = np.meshgrid(np.linspace(0.01, 1.5, 300), np.linspace(0.0, np.pi, 181))
    y, c = (r * np.cos(angle)).ravel(), (r * np.sin(angle)).ravel()
    part = obj.net.layer_scales[1] / np.sqrt(obj.net.widths[1] - 1) if obj.net.bias else 0.0
    largest = reach(obj, h, sets.matrices[0], squares)
    for k in range(20):
        size = np.linalg.norm((y[:, None] * h[k] + c[:, None] * part) @ sets.matrices[0].T, axis=1) / (squares[k] + y**2 + c**2)
        assert 0.999 * largest[k] < size.max() <= largest[k] * (1.0 + 1e-12)


@pytest.mark.parametrize("activation", CASES)
@pytest.mark.usefixtures("doubles")
def test_boxes_are_proved_where_samples_allow_it_and_nowhere_else(activation: str) -> None:
    """For small boxes the least t that is proved is the one that the worst y and c need; for larger ones it is not below."""
    rng = np.random.default_rng(557)
    obj, ball, sets = fitted(activation)
    change, around = claimed(obj, ball)
    room, floor = float(sets.rooms[1]), float(sets.floors[1])
    large, with_ones = 0, sets.matrices[1] + 5.0 * np.linalg.norm(sets.matrices[1], 2)
    for number, middle in enumerate(in_disc(rng, 20, 0.98 * room)):
        matrix = with_ones if number % 2 else sets.matrices[1]
        half = room * 10.0 ** rng.uniform(-4.0, -0.7) * rng.uniform(0.3, 1.0, 2)
        moves = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0], *rng.uniform(-1.0, 1.0, (200, 2))])
        points = middle + half * moves
        points = points[(points**2).sum(axis=1) < room**2]
        needed = reach(obj, outputs(obj, ball.center, points), matrix, (points**2).sum(axis=1) + floor).max()
        box = np.stack([middle - half, middle + half])[None]
        factors = 1.0 - 1e-6, 1.0 + 1e-4 + 6.0 * half.sum() / room
        below, above = (around(matrix, factor * needed, floor, room) for factor in factors)
        assert not on_boxes(change, below, box)[0].any()
        proved, violated, _ = on_boxes(change, above, box)
        assert proved.all() and not violated
        large += half.max() > 0.03 * room
    assert large > 3


@pytest.mark.usefixtures("doubles")
def test_the_highest_point_of_a_parabola() -> None:
    rng = np.random.default_rng(571)
    slope, square = np.abs(rng.standard_normal(400)), rng.standard_normal(400)
    slope[:10], square[10:20] = 0.0, 0.0
    x = np.linspace(0.0, 1.0, 2001)
    largest = (slope[:, None] * x + square[:, None] * x * x).max(axis=1)
    found = _highest(slope, square)
    assert (found >= largest).all() and (found <= largest + 1e-6).all()


@pytest.mark.parametrize("activation", CASES)
@pytest.mark.usefixtures("doubles")
def test_what_the_polynomials_leave_out_counts(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as an error of any signs in the outputs would need, at points."""
    rng = np.random.default_rng(569)
    obj, ball, sets = fitted(activation)
    change, around = claimed(obj, ball)
    matrix, room, floor = sets.matrices[0], float(sets.rooms[0]), float(sets.floors[0])
    signs, exact = np.array(list(itertools.product([-1.0, 1.0], repeat=obj.data.num_samples))), change.pieces
    for middle in in_disc(rng, 10, 0.9 * room):
        h, squares = outputs(obj, ball.center, middle[None]), float(middle @ middle) + floor
        error = 1e-4 * np.abs(h).max() * rng.random(len(matrix))
        without, least = (reach(obj, h + by, matrix, squares).max() for by in (0.0, signs * error))
        assert least > without
        with monkeypatch.context() as patched:
            patched.setattr(change, "pieces", lambda *given, error=error: (*exact(*given)[:3], wide(error[None])))
            for share, known in ((0.9, False), (2.0, True)):
                claim = around(matrix, without + share * (least - without), floor, room)
                assert on_boxes(change, claim, np.stack([middle, middle])[None])[0].all() == known


@pytest.mark.parametrize("activation", CASES)
@pytest.mark.usefixtures("doubles")
def test_what_the_others_add_lies_in_every_model(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Support functions against networks that ascend in random directions, and against t (rho² + M g) |C'w|."""
    rng = np.random.default_rng(563)
    obj, ball, sets = fitted(activation)
    sets = replace(sets, scales=1.03 * sets.scales)
    full = Problem.of(obj)
    monkeypatch.setattr("pyhess.certify.reference_unit_ball._PIECES", 4)  # of what is known without sets
    rest = BallRest(full, UnitProblem.of(full), ball, 1, proof_of(obj, ball, sets))
    own, many = rest.root.mean(axis=1)[0], obj.net.widths[1] - 1
    if CASES[activation][2]:
        own[-1] = 0.0  # the root is half of what the unit can be
    assert len(rest.models) == 4
    for model, room, floor, matrix, t in zip(rest.models, sets.rooms, sets.floors, sets.matrices, sets.scales, strict=False):
        rho = 0.9 * room
        away = np.zeros(own.size)
        away[0] = obj.net.layer_scales[0] * np.sqrt(ball.radius**2 - rho**2)
        cell = np.stack([own + away, own + away])[None]
        assert model.serves is not None and model.serves(cell).all()
        nearer = np.stack([own, own])[None]
        assert bool(model.serves(nearer).all()) == (room == ball.radius)
        found = model.rest(cell)
        middle, slack = found.middle.hi[0, :, 0].astype(float), found.slack[0, :, 0].astype(float)
        assert (slack < 1e-9).all() and (found.groups == 0).all()
        # What the inverse in floating point is off, for the farthest vectors of the ellipsoid.
        inverse = np.linalg.inv(matrix).astype(np.longdouble)
        off = inverse @ matrix.astype(np.longdouble) - np.eye(len(matrix))
        assert off.any() and (slack >= t * (rho**2 + many * floor) * np.linalg.norm(off @ inverse, axis=1)).all()
        closest = 0.0
        for _ in range(4):
            w = rng.standard_normal(obj.data.num_samples)
            width = np.linalg.norm(w @ found.columns.hi[0, :, 0].astype(float))
            assert width == pytest.approx(
                MORE * t * (rho**2 + many * floor) * np.linalg.norm(np.linalg.inv(matrix).T @ w), rel=1e-9
            )
            step = rng.standard_normal(obj.num_params)
            for _ in range(5):
                step = without_own(obj, step)
                step *= rho * (1.0 - 1e-9) / np.linalg.norm(step)
                reached = w @ (others(obj, ball.center + step) - middle)
                assert reached <= width + 1e-9
                closest = max(closest, reached / width)
                step = slopes(obj, ball.center + step, w)
        assert closest > 0.2


@pytest.mark.parametrize("change", ["matrix", "direction", "floor", "no floor", "negative"])
@pytest.mark.usefixtures("doubles")
def test_the_proof_refuses_what_does_not_hold(change: str) -> None:
    obj, ball, sets = fitted("sigmoid")
    sets = replace(sets, scales=1.03 * sets.scales).those(np.array([False, True]))
    turned = sets.matrices.copy()
    turned[0, [0, -1]] *= 1.3
    wrong = {
        "matrix": replace(sets, matrices=1.1 * sets.matrices),
        "direction": replace(sets, matrices=turned),
        "floor": replace(sets, floors=0.8 * sets.floors),
        "no floor": replace(sets, floors=0.0 * sets.floors),
        "negative": replace(sets, scales=-sets.scales),
    }[change]
    assert len(proof_of(obj, ball, sets).found) == 1
    assert not proof_of(obj, ball, wrong).found


@pytest.mark.parametrize("arithmetic", ["long doubles", "Arb"])
def test_other_arithmetics(arithmetic: str) -> None:
    obj, ball, sets = fitted("gelu")
    sets = sets.those(np.array([False, True]))
    if arithmetic == "Arb":
        in_balls = pytest.importorskip("pyhess.certify.reference_arb", exc_type=ImportError).in_balls
    else:
        in_balls = nullcontext
    with in_balls(), np.errstate(all="ignore"):
        assert len(proof_of(obj, ball, replace(sets, scales=1.1 * sets.scales)).found) == 1
        assert proof_of(obj, ball, replace(sets, scales=0.97 * sets.scales)).broken
