"""Ellipsoids for hidden units that are all alike: the independent proof against samples and networks, and files with them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import scipy.special

import pyhess as ph
from pyhess.certify import Certificate, certify, load_certificate
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_unit_alike import AlikeProof, _Alike
from pyhess.certify.reference_unit_ball import BallRest
from pyhess.certify.reference_unit_block import UnitProblem
from pyhess.certify.reference_unit_change import Change, _highest, on_boxes
from pyhess.certify.reference_unit_joint import MORE, Ellipsoid, ellipsoid
from pyhess.certify.reference_unit_rest import Units
from pyhess.certify.reference_units import _joint, prove_units
from pyhess.certify.unit_cover import AlikeSets, JointSets
from pyhess.certify.units import unit_bound
from pyhess.errors import FileError
from pyhess.threshold import verify_file

from .conftest import small_objective

Array = Any

PHI: dict[str, Any] = {
    "tanh": np.tanh,
    "sigmoid": scipy.special.expit,
    "softplus": lambda s: np.logaddexp(0.0, s),
    "gelu": lambda s: s * scipy.special.ndtr(s),
}
#: Widths, options, whether the centre is zero, and the room.
CASES: dict[str, tuple[list[int], dict[str, Any], bool, float]] = {
    "tanh": ([1, 4, 1], {}, True, 0.9),
    "sigmoid": ([1, 3, 1], {"parametrization": "ntk"}, False, 1.4),
    "softplus": ([1, 6, 1], {}, False, 0.7),
    "gelu": ([1, 3, 1], {"bias": False}, False, 1.0),
}


def alike(activation: str) -> tuple[ph.Objective, Any]:
    """A network on five data, and a ball about weights that are the same for all hidden units."""
    widths, options, at_zero, radius = CASES[activation]
    obj = small_objective(523, 5, widths, "squared_error", activation, **options)
    rng, centre = np.random.default_rng(541), np.zeros(obj.num_params)
    if not at_zero:
        for layer in obj.net.unpack(centre):
            layer[0][...] = 0.6 * rng.standard_normal()
            if layer[1] is not None:
                layer[1][...] = 0.6 * rng.standard_normal()
    return obj, ph.Ball(centre, radius).bind(obj)


def added(obj: ph.Objective, centre: Array, steps: Array) -> Array:
    """F (B, n) for steps (B, D + 1 + 1) of a unit's parameters and, where there are biases, its part of the output bias's."""
    (w, b), (a, _) = obj.net.unpack(centre)
    hidden, last = obj.net.layer_scales
    x = obj.data.X if b is None else np.hstack([obj.data.X, np.ones((len(obj.data.X), 1))])
    u, phi, size = w[0] if b is None else np.r_[w[0], b[0]], PHI[obj.net.activations[0]], x.shape[1]
    after = (a[0, 0] + steps[:, size : size + 1]) * phi(hidden * ((u + steps[:, :size]) @ x.T))
    own = last * (after - a[0, 0] * phi(hidden * (x @ u)))
    return own if b is None else own + last / np.sqrt(len(w) - 1) * steps[:, -1:]


def in_ball(rng: np.random.Generator, count: int, size: int, radius: float) -> Array:
    steps = rng.standard_normal((count, size))
    return steps * (radius * rng.random((count, 1)) ** 0.2 / np.linalg.norm(steps, axis=1, keepdims=True))


def climbed(reach: Callable[[Array], Array], steps: Array, room: float, rng: np.random.Generator) -> Array:
    """Steps that reach farther, by a random walk uphill in the ball."""
    best = reach(steps)
    for k in range(80):
        moved = steps + rng.standard_normal(steps.shape) * (0.3 * room * 0.5 ** (k / 10.0))
        moved *= np.minimum(1.0, room / np.linalg.norm(moved, axis=1, keepdims=True))
        value = reach(moved)
        steps, best = np.where((value > best)[:, None], moved, steps), np.maximum(value, best)
    return steps


def fit(obj: ph.Objective, ball: Any, room: float, floor: float) -> Array:
    """A matrix for which samples need t = 1, nearly: samples made white."""
    rng = np.random.default_rng(547)
    size = obj.net.widths[0] + 1 + 2 * int(obj.net.bias)
    steps, matrix = in_ball(rng, 3000, size, room), np.eye(obj.data.num_samples)

    def reach(steps: Array) -> Array:
        return np.linalg.norm(added(obj, ball.center, steps) @ matrix.T, axis=1) / ((steps**2).sum(axis=1) + floor)

    for _ in range(4):
        x = added(obj, ball.center, steps) / ((steps**2).sum(axis=1, keepdims=True) + floor)
        axes, turn = np.linalg.eigh(x.T @ x)
        matrix = (turn / np.sqrt(np.maximum(axes, 1e-3 * axes[-1]))).T
        farthest = steps[np.argsort(-reach(steps))[:300]]
        steps = np.concatenate([steps, climbed(reach, farthest, room, rng)])
    return matrix / reach(steps).max()


@cache
def fitted(activation: str) -> tuple[ph.Objective, Any, AlikeSets]:
    """Sets for two rooms that hold for a t of 1.03."""
    obj, ball = alike(activation)
    rooms, floors = np.array([1.0, 0.5]) * ball.radius, np.array([0.01, 0.02]) * ball.radius**2
    matrices = [fit(obj, ball, room, floor) for room, floor in zip(rooms, floors, strict=True)]
    return obj, ball, AlikeSets(rooms, floors, np.stack(matrices), np.ones(2))


def proof_of(obj: ph.Objective, ball: Any, sets: AlikeSets) -> AlikeProof:
    full, centre = Problem.of(obj), wide(ball.center)
    return AlikeProof(UnitProblem.of(full), full, Units.of(full, centre, centre), sets, monotonic() + 60.0)


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
    for middle in in_ball(rng, 40, change.size, 0.98 * room):
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
    for middle in in_ball(rng, 15, change.size, 0.9 * room):
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
        for _ in range(6):
            w = rng.standard_normal(obj.data.num_samples)
            width = np.linalg.norm(w @ found.columns.hi[0, :, 0].astype(float))
            assert width == pytest.approx(
                MORE * t * (rho**2 + many * floor) * np.linalg.norm(np.linalg.inv(matrix).T @ w), rel=1e-9
            )
            step = rng.standard_normal(obj.num_params)
            for _ in range(12):
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


@pytest.mark.usefixtures("doubles")
def test_cells_are_tested_with_the_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were sets a tenth as large true, fewer cells would do; they are not, and that is said."""
    obj, ball, sets = fitted("sigmoid")
    problem, small = Problem.of(obj), replace(sets, scales=0.1 * sets.scales)
    bound = unit_bound(obj, ball, max_cells=5000, ellipsoids=False)
    assert bound is not None
    claim = 1.05 * bound.psi_lower

    def counted(sets: AlikeSets | None) -> int:
        found = prove_units(problem, ball, claim, None, monotonic() + 60.0, sets)
        assert found.proved, found.detail
        return int(found.detail.split()[0])

    refused = prove_units(problem, ball, claim, None, monotonic() + 60.0, small)
    assert refused.broken and "ellipsoid" in refused.detail
    plain = counted(None)
    monkeypatch.setattr("pyhess.certify.reference_unit_alike.holds", lambda *_: True)
    assert counted(small) < 0.7 * plain
    # Not about such problems: a unit that is not like the others, matrices for other data.
    theta = ball.center.copy()
    theta[0] += 1e-3
    other, fewer = ph.Ball(theta, ball.radius).bind(obj), replace(small, matrices=small.matrices[:, 1:, 1:])
    for region, given, known in ((ball, small, True), (other, small, False), (ball, fewer, False)):
        proof = _joint(problem, UnitProblem.of(problem), region, given, monotonic() + 60.0)
        assert isinstance(proof, AlikeProof) if known else proof is None


def certificate_with(obj: ph.Objective, ball: Any, sets: AlikeSets | JointSets) -> Certificate:
    """The moment bound's number as a claim of the cells of one unit's weights."""
    certificate = certify(obj, ball, "moment")
    row = replace(certificate.table["moment"], multipliers=sets)
    return replace(certificate, method="units", table={"units": row})


@pytest.mark.usefixtures("long_doubles")
def test_files_with_such_sets_are_proved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyhess.certify.reference_plan._LONG_SHARE", 0.0)
    obj, ball, sets = fitted("tanh")
    sets = replace(sets, scales=1.03 * sets.scales)
    path = certificate_with(obj, ball, sets).save(tmp_path / "c.npz")
    again = load_certificate(path).table["units"].multipliers
    assert isinstance(again, AlikeSets)
    for name, value in vars(sets).items():
        assert np.array_equal(getattr(again, name), value)
    checked = verify_file(path, time_limit=120.0)
    assert checked.verdict == "verified" and "53-bit" in checked.checks[-1].detail, checked.checks
    false = certificate_with(obj, ball, replace(sets, scales=0.9 * sets.scales))
    refused = verify_file(false.save(tmp_path / "false.npz"), time_limit=60.0)
    assert refused.verdict == "refuted" and "ellipsoid" in refused.checks[-1].detail
    for wrong in (
        replace(sets, scales=-sets.scales), replace(sets, floors=sets.floors[:1]), replace(sets, matrices=sets.matrices[:, 1:]),
        replace(sets, matrices=np.nan * sets.matrices), replace(sets, scales=np.ones((2, 4))),
    ):  # fmt: skip
        with pytest.raises(FileError, match=r"positive ones but for the matrices, of which there is one for all hidden units"):
            load_certificate(certificate_with(obj, ball, wrong).save(tmp_path / "wrong.npz"))


def test_files_of_the_layout_before_have_a_matrix_for_every_unit(tmp_path: Path) -> None:
    obj, ball, sets = fitted("tanh")
    joint = JointSets(sets.rooms, sets.floors, np.repeat(sets.matrices[:, None], 4, axis=1), np.ones((2, 4)))
    path = certificate_with(obj, ball, joint).save(tmp_path / "c.npz")
    with np.load(path) as content:
        arrays = dict(content)
    described = json.loads(str(arrays["description"])) | {"schema_version": 4}
    np.savez(path, **{**arrays, "description": np.array(json.dumps(described))})
    again = load_certificate(path).table["units"].multipliers
    assert isinstance(again, JointSets) and np.array_equal(again.matrices, joint.matrices)
    wrong = replace(joint, matrices=joint.matrices[:, 1:])
    with pytest.raises(FileError, match="one for each hidden unit"):
        load_certificate(certificate_with(obj, ball, wrong).save(tmp_path / "wrong.npz"))
