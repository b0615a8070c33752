"""Ellipsoids for hidden units that are all alike: the independent proof of them against samples and networks."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_unit_alike import _Alike
from pyhess.certify.reference_unit_ball import BallRest
from pyhess.certify.reference_unit_block import UnitProblem
from pyhess.certify.reference_unit_change import Change, _highest, on_boxes
from pyhess.certify.reference_unit_joint import MORE, Ellipsoid, ellipsoid
from pyhess.certify.reference_unit_rest import Units
from pyhess.certify.unit_cover import AlikeSets

from .alike_cases import CASES, PHI, added, fit, fitted, in_ball, proof_of

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
    """With a large g the most is needed at the edge of the room, and more beyond."""
    obj, ball, _ = fitted("gelu")
    room, floor = 0.6 * ball.radius, 3.0 * ball.radius**2
    sets = AlikeSets(np.array([room]), np.array([floor]), fit(obj, ball, room, floor)[None], np.array([1.02]))
    assert len(proof_of(obj, ball, sets).found) == 1
    assert proof_of(obj, ball, replace(sets, rooms=1.2 * sets.rooms)).broken


def part_and_change(obj: ph.Objective, ball: Any) -> tuple[Range, Change]:
    """The bias's kv/sqrt(M) and a unit's change, for the slow proof."""
    full = Problem.of(obj)
    units = Units.of(full, wide(ball.center), wide(ball.center))
    part = full.scale[1] / Range(wide(float(len(units.kinds) - 1))).root() if obj.net.bias else Range(wide(0.0))
    return part, Change(UnitProblem.of(full), (full.scale[0], full.scale[1]), units.u[0][0], units.v[0][0, 0])


def needed(obj: ph.Objective, ball: Any, matrix: Array, room: float, floor: float, points: Array, errors: Array) -> float:
    """The least t that the points (B, D + 1) in the ball need with the worst c and any of the errors (E, n) of the outputs."""
    points = points[(points**2).sum(axis=1) < room**2]

    def reach(points: Array) -> Array:
        values = added(obj, ball.center, points)[:, None] + errors
        return np.linalg.norm(values @ matrix.T, axis=2).max(axis=1) / ((points**2).sum(axis=1) + floor)

    if not obj.net.bias:
        return float(reach(points).max())
    most = np.sqrt(room**2 - (points**2).sum(axis=1, keepdims=True))
    points, c, step = np.repeat(points, 101, axis=0), (most * np.linspace(-1.0, 1.0, 101)).ravel(), np.repeat(most / 50.0, 101)
    for _ in range(3):
        best = np.argsort(-reach(np.column_stack([points, c])))[:10]
        points, step = np.repeat(points[best], 101, axis=0), np.repeat(step[best] / 50.0, 101)
        c = np.repeat(c[best], 101) + np.tile(np.arange(-50, 51), 10) * step
        limit = np.sqrt(room**2 - (points**2).sum(axis=1))
        c = np.clip(c, -limit, limit)
    return float(reach(np.column_stack([points, c])).max())


@pytest.mark.parametrize("activation", CASES)
@pytest.mark.usefixtures("doubles")
def test_boxes_are_proved_where_samples_allow_it_and_nowhere_else(activation: str) -> None:
    """For small boxes the least t that is proved is the one that the worst c needs; for larger ones it is not below."""
    rng = np.random.default_rng(557)
    obj, ball, sets = fitted(activation)
    part, change = part_and_change(obj, ball)
    matrix, room, floor = sets.matrices[1], float(sets.rooms[1]), float(sets.floors[1])
    large = 0
    for middle in in_ball(rng, 30, change.size, 0.98 * room):
        half = room * 10.0 ** rng.uniform(-4.0, -0.7) * rng.uniform(0.3, 1.0, change.size)
        moves = [np.zeros(change.size), *rng.uniform(-1.0, 1.0, (40, change.size))]
        moves += [np.array(corner) for corner in itertools.product([-1.0, 1.0], repeat=change.size)]
        least = needed(obj, ball, matrix, room, floor, middle + half * np.array(moves), np.zeros((1, len(matrix))))
        box = np.stack([middle - half, middle + half])[None]
        factors = 1.0 - 1e-6, 1.0 + 1e-4 + 6.0 * half.sum() / room
        below, above = (_Alike(matrix, factor * least, floor, room, part) for factor in factors)
        proved, _, _ = on_boxes(change, below, box)
        assert not proved.any()
        proved, violated, _ = on_boxes(change, above, box)
        assert proved.all() and not violated
        large += half.max() > 0.03 * room
    assert large > 5


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
    part, change = part_and_change(obj, ball)
    matrix, room, floor = sets.matrices[0], float(sets.rooms[0]), float(sets.floors[0])
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=obj.data.num_samples)))
    for middle in in_ball(rng, 10, change.size, 0.9 * room):
        error = 1e-4 * np.abs(added(obj, ball.center, np.append(middle, 0.0)[None])).max() * rng.random(len(matrix))
        without, least = (needed(obj, ball, matrix, room, floor, middle[None], by) for by in (0.0 * signs, signs * error))
        assert least > (1.0 + 1e-6) * without
        exact = change.pieces
        with monkeypatch.context() as patched:
            patched.setattr(change, "pieces", lambda *given, error=error, exact=exact: (*exact(*given)[:3], wide(error[None])))
            for share, known in ((0.9, False), (2.0, True)):
                claim = _Alike(matrix, without + share * (least - without), floor, room, part)
                assert on_boxes(change, claim, np.stack([middle, middle])[None])[0].all() == known


@pytest.mark.parametrize("activation", CASES)
@pytest.mark.usefixtures("doubles")
def test_what_the_others_add_lies_in_every_model(activation: str) -> None:
    """Support functions against networks that ascend in random directions, and against t (rho² + M g) |C'w|."""
    rng = np.random.default_rng(563)
    obj, ball, sets = fitted(activation)
    sets = replace(sets, scales=1.03 * sets.scales)
    full = Problem.of(obj)
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
            for _ in range(8):
                step = without_own(obj, step)
                step *= rho * (1.0 - 1e-9) / np.linalg.norm(step)
                reached = w @ (others(obj, ball.center + step) - middle)
                assert reached <= width + 1e-9
                closest = max(closest, reached / width)
                step = np.array(
                    [
                        w @ others(obj, ball.center + step + h) - w @ others(obj, ball.center + step - h)
                        for h in 1e-6 * np.eye(step.size)
                    ]
                )
        assert closest > 0.2


def without_own(obj: ph.Objective, step: Array) -> Array:
    """The step with the parameters of unit 1 left alone."""
    layers = [tuple(None if x is None else x.copy() for x in layer) for layer in obj.net.unpack(step)]
    (w, b), (a, c) = layers
    w[1], a[:, 1] = 0.0, 0.0
    if b is not None:
        b[1] = 0.0
    return np.concatenate([x.ravel() for x in (w, b, a, c) if x is not None])


def others(obj: ph.Objective, theta: Array) -> Array:
    """What all units but unit 1 and the output bias add."""
    (w, b), (a, c) = obj.net.unpack(theta)
    hidden, last = obj.net.layer_scales
    kept = np.arange(len(w)) != 1
    s = hidden * (obj.data.X @ w[kept].T + (0.0 if b is None else b[kept]))
    return last * (PHI[obj.net.activations[0]](s) @ a[0, kept] + (0.0 if c is None else c[0]))


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
