"""Ellipsoids around what the other units add: networks in the ball lie in them, the independent proof takes no smaller ones."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import scipy.special

import pyhess as ph
from pyhess.certify import Certificate, certify, load_certificate, units
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_unit_ball import BallRest
from pyhess.certify.reference_unit_block import UnitProblem
from pyhess.certify.reference_unit_change import Change as SlowChange
from pyhess.certify.reference_unit_change import on_boxes
from pyhess.certify.reference_unit_joint import MORE, JointProof, _Linear
from pyhess.certify.reference_unit_rest import Units
from pyhess.certify.unit_cover import JointSets
from pyhess.certify.unit_joint import find_joint
from pyhess.certify.unit_joint_proof import Change, _bounds
from pyhess.certify.unit_rest import describe
from pyhess.certify.unit_rooms import Rooms, _model
from pyhess.certify.units import unit_bound
from pyhess.errors import FileError
from pyhess.threshold import verify_file

from .conftest import small_objective
from .test_units import lowest_found

Array = Any

problem = partial(small_objective, 419, 4)
PHI: dict[str, Any] = {
    "tanh": np.tanh,
    "sigmoid": scipy.special.expit,
    "softplus": lambda s: np.logaddexp(0.0, s),
    "gelu": lambda s: s * scipy.special.ndtr(s),
}
CASES = {
    "tanh": ({}, 0.7),
    "softplus": ({"parametrization": "ntk"}, 0.8),
    "gelu": ({"bias": False}, 1.5),
}


@cache
def found(activation: str) -> tuple[Any, Any, JointSets]:
    options, radius = CASES[activation]
    obj = problem([1, 3, 1], "squared_error", activation, **options)
    centre = np.random.default_rng(421).standard_normal(obj.num_params)
    ball = ph.Ball(centre, radius).bind(obj)
    return obj, ball, find_joint(obj, describe(obj, ball), lambda: False)


def changes(obj: ph.Objective, centre: Array, unit: int, steps: Array) -> Array:
    """What steps (B, D + 1) of a unit's parameters change the outputs by (B, n)."""
    (w, b), (a, _) = obj.net.unpack(centre)
    hidden, last = obj.net.layer_scales
    x = obj.data.X if b is None else np.hstack([obj.data.X, np.ones((len(obj.data.X), 1))])
    u = w[unit] if b is None else np.r_[w[unit], b[unit]]
    phi = PHI[obj.net.activations[0]]
    before = a[0, unit] * phi(hidden * (x @ u))
    after = (a[0, unit] + steps[:, -1:]) * phi(hidden * ((u + steps[:, :-1]) @ x.T))
    return last * (after - before)


@pytest.mark.parametrize("activation", CASES)
def test_changes_of_a_unit_lie_in_its_ellipsoid(activation: str) -> None:
    rng = np.random.default_rng(431)
    obj, ball, sets = found(activation)
    assert len(sets.rooms) >= 4 and sets.rooms[0] == ball.radius
    size = obj.net.widths[0] + int(obj.net.bias) + 1
    for room, floor, matrices, scales in zip(sets.rooms, sets.floors, sets.matrices, sets.scales, strict=True):
        for unit in range(3):
            steps = rng.standard_normal((4000, size))
            steps *= (room * rng.random((4000, 1)) ** 0.3) / np.linalg.norm(steps, axis=1, keepdims=True)
            reach = ((changes(obj, ball.center, unit, steps) @ matrices[unit].T) ** 2).sum(axis=1)
            allowed = scales[unit] ** 2 * ((steps**2).sum(axis=1) + floor)
            assert (reach <= allowed).all()
            # not much larger than needed
            assert (reach / allowed).max() > 0.7


def boxes_of(rng: np.random.Generator, count: int, size: int) -> tuple[Array, Array, Array]:
    """Middles, halves (count, size) and points (count, 300, size) of boxes, corners among them."""
    middle, half = rng.standard_normal((count, size)), 10.0 ** rng.uniform(-2.0, 0.0, (count, size))
    inside = rng.uniform(-1.0, 1.0, (count, 300, size))
    inside[:, :100] = np.sign(inside[:, :100])
    return middle, half, middle[:, None] + inside * half[:, None]


@pytest.mark.parametrize("activation", CASES)
@pytest.mark.usefixtures("doubles")
def test_bounds_over_boxes_hold(activation: str) -> None:
    """Taylor polynomials and their rests, and what is made of them, against points of the boxes."""
    rng = np.random.default_rng(457)
    obj, ball, sets = found(activation)
    by, unit, t = describe(obj, ball), 1, 0.5
    name = obj.net.activations[0], obj.net.betas[0]
    change = Change(name, by.z, by.u.middle[unit], float(by.v.middle[unit, 0]), (by.scale_u, by.scale_v))
    full, matrix, floor = Problem.of(obj), sets.matrices[0, unit], float(sets.floors[0])
    own = Units.of(full, wide(ball.center), wide(ball.center))
    slow = SlowChange(UnitProblem.of(full), (full.scale[0], full.scale[1]), own.u[0][unit], own.v[0][unit, 0])
    middle, half, points = boxes_of(rng, 250, change.size)
    moved = points - middle[:, None]
    f = changes(obj, ball.center, unit, points.reshape(-1, change.size)).reshape(*points.shape[:2], -1)
    left, right = change.pairs
    twice = moved[..., left] * moved[..., right] * np.where(left == right, 0.5, 1.0)
    exact = slow.pieces(middle, half)
    for value, linear, square, rest in (change.polynomial(middle, half), (*(x.hi for x in exact[:3]), exact[3])):
        taylor = value[:, None] + np.einsum("bkp,bpn->bkn", moved, linear) + np.einsum("bks,bsn->bkn", twice, square)
        assert (np.abs(f - taylor) <= rest[:, None] + 1e-13).all()
        # near what is needed for small boxes
        small = (half < 0.1).all(axis=1)
        assert (np.abs(f - taylor).max(axis=1) > 0.3 * rest)[small].mean() > 0.5
    reach = ((f @ matrix.T) ** 2).sum(axis=2) - t * t * ((points**2).sum(axis=2) + floor)
    worst = _bounds(change, matrix, middle, half, floor, t, None)[0]
    assert (reach.max(axis=1) <= worst).all()
    # For every box the t with which it is proved, by both.
    for scale in (0.6, 0.8, 1.0, 1.3, 2.0):
        above = ((f @ matrix.T) ** 2).sum(axis=2) > scale**2 * ((points**2).sum(axis=2) + floor)
        for room in (100.0, 2.0):
            boxes = np.stack([middle - half, middle + half], axis=1)
            proved, _, _ = on_boxes(slow, _Linear(matrix, scale, Range(wide(floor)), room), boxes)
            inside = (points**2).sum(axis=2) <= room * room
            assert proved.any() and not (proved & (above & inside).any(axis=1)).any()
        quick = _bounds(change, matrix, middle, half, floor, scale, None)[0] <= 0.0
        assert quick.any() and not (quick & above.any(axis=1)).any()


@pytest.mark.parametrize("activation", CASES)
@pytest.mark.usefixtures("doubles")
def test_what_the_others_add_lies_in_both_models(activation: str) -> None:
    """Support functions against networks that ascend in random directions."""
    rng = np.random.default_rng(433)
    obj, ball, sets = found(activation)
    full = Problem.of(obj)
    one, described = UnitProblem.of(full), describe(obj, ball)
    centre = wide(ball.center)
    by_unit = Units.of(full, centre, centre)
    proof = JointProof(one, full, (by_unit.u[0], by_unit.v[0]), sets, monotonic() + 300.0)
    rest = BallRest(full, one, ball, 1, proof)
    assert len(rest.models) == 3 and not proof.broken
    net, others = obj.net, np.array([0, 2])
    own = np.hstack([described.u.middle[1], described.v.middle[1]])
    away = np.zeros(own.size)
    away[0] = described.scale_u
    for k in (0, 2, 4):
        room = sets.rooms[k]
        point, columns, blur = _model(sets, k, room * np.array([1.0, 0.6]), described, others, net.activations[0], net.betas[0])
        # the unit at hand takes what of the radius leaves so much room
        gone = own + away * np.sqrt(ball.radius**2 - (0.999 * room) ** 2)
        slow = rest.ellipsoids(np.stack([gone, gone])[None])
        for _ in range(4):
            w = rng.standard_normal(4)
            parts = [MORE * sets.scales[k, m] * (w @ np.linalg.inv(sets.matrices[k, m])) for m in others]
            parts += [np.array([w.sum() * described.scale_v])] * int(net.bias)
            exact = np.linalg.norm(np.concatenate(parts)) * np.sqrt((0.999 * room) ** 2 + 2 * sets.floors[k])
            width = np.linalg.norm(np.einsum("n,nl->l", w, slow.columns.hi[0, :, 0].astype(float)))
            assert width + np.abs(w) @ slow.slack[0, :, 0].astype(float) >= exact * (1.0 - 1e-9)
            step = rng.standard_normal(obj.num_params)
            for _ in range(5):
                step = without(obj, step, 1)
                theta = ball.center + 0.999 * room * step / np.linalg.norm(step)
                t = w @ added(obj, theta, others)
                high = w @ point.middle + np.abs(w) @ point.radius
                assert t <= high + room * (np.linalg.norm(w @ columns) + np.abs(w) @ blur)
                assert (
                    t <= w @ slow.middle.hi[0, :, 0].astype(float) + width + np.abs(w) @ slow.slack[0, :, 0].astype(float) + 1e-9
                )
                step = np.array(
                    [
                        w @ added(obj, theta + 1e-6 * e, others) - w @ added(obj, theta - 1e-6 * e, others)
                        for e in np.eye(step.size)
                    ]
                )


@pytest.mark.parametrize("activation", CASES)
def test_the_model_of_a_range_serves_no_other_rooms(activation: str) -> None:
    rng = np.random.default_rng(461)
    obj, ball, sets = found(activation)
    search = units.UnitSearch(obj, ball, np.zeros(1, dtype=np.int32))
    rooms = Rooms(sets, search.units, search.roots, obj.net.activations[0], obj.net.betas[0], search.new_task)
    count, kept = len(sets.rooms), 2
    size = obj.net.widths[0] + int(obj.net.bias) + 1
    centre, inverse = search.roots.centers[0], search.roots.inverse
    half = ball.radius * 10.0 ** rng.uniform(-2.5, -0.5, (3000, size))
    middle = rng.standard_normal(half.shape)
    middle *= 1.1 * ball.radius * rng.random((3000, 1)) ** 0.3 / np.linalg.norm(middle, axis=1, keepdims=True)
    cells = centre[:size] + np.stack([middle - half, middle + half], axis=1) / inverse
    rows = rooms.rows(cells, np.zeros(3000, dtype=np.int64))
    assert set(rows.tolist()) == {-1, *range(count)}
    nearest = np.clip(0.0, middle - half, middle + half)
    left = np.sqrt(np.maximum(ball.radius**2 - (nearest**2).sum(axis=1), 0.0))
    assert (left[rows >= 0] <= sets.rooms[rows[rows >= 0]] * (1.0 + 1e-8)).all()
    # and at the smallest room it is still |(t A^-1)'w| sqrt(rho² + g) of all units
    others = np.arange(kept)
    for k in range(count):
        least = left[rows == k].min()
        assert least > (0.5 * sets.rooms[k] if k == count - 1 else sets.rooms[k + 1])
        name = obj.net.activations[0], obj.net.betas[0]
        _, columns, blur = _model(sets, k, np.array([sets.rooms[k], least]), search.units, others, *name)
        w = rng.standard_normal((50, obj.data.num_samples))
        parts = [w @ (sets.scales[k, m] * np.linalg.inv(sets.matrices[k, m])) for m in others]
        parts += [w.sum(axis=1, keepdims=True) * search.units.scale_v] * int(obj.net.bias)
        exact = np.linalg.norm(np.hstack(parts), axis=1) * np.sqrt(least**2 + kept * sets.floors[k])
        assert (least * (np.linalg.norm(w @ columns, axis=1) + np.abs(w) @ blur) >= exact * (1.0 - 1e-12)).all()


def without(obj: ph.Objective, step: Array, unit: int) -> Array:
    """The step with the unit's own parameters left alone."""
    (w, b), (a, c) = (tuple(None if x is None else x.copy() for x in layer) for layer in obj.net.unpack(step))
    w[unit], a[:, unit] = 0.0, 0.0
    if b is not None:
        b[unit] = 0.0
    return np.concatenate([x.ravel() for x in (w, b, a, c) if x is not None])


def added(obj: ph.Objective, theta: Array, others: Array) -> Array:
    (w, b), (a, c) = obj.net.unpack(theta)
    hidden, last = obj.net.layer_scales
    s = hidden * (obj.data.X @ w[others].T + (0.0 if b is None else b[others]))
    return last * (PHI[obj.net.activations[0]](s) @ a[0, others] + (0.0 if c is None else c[0]))


@pytest.mark.parametrize("change", ["scale", "matrix", "direction", "room", "floor"])
@pytest.mark.usefixtures("doubles")
def test_the_proof_refuses_what_does_not_hold(change: str) -> None:
    obj, ball, sets = found("tanh")
    full = Problem.of(obj)
    one, centre = UnitProblem.of(full), wide(ball.center)
    by_unit = Units.of(full, centre, centre)

    def proved(sets: JointSets) -> bool:
        proof = JointProof(one, full, (by_unit.u[0], by_unit.v[0]), sets, monotonic() + 60.0)
        return proof.ellipsoid(1, 2) is not None

    assert proved(sets)
    matrices = sets.matrices.copy()
    if change == "matrix":
        matrices[1, 2] *= 1.2
    elif change == "direction":
        matrices[1, 2, 0] *= 1.5
        matrices[1, 2, -1] *= 1.5
    wrong = {
        "scale": replace(sets, scales=sets.scales / 1.2),
        "matrix": replace(sets, matrices=matrices),
        "direction": replace(sets, matrices=matrices),
        "room": replace(sets, rooms=2.0 * sets.rooms),
        "floor": replace(sets, floors=-sets.floors),
    }[change]
    assert not proved(wrong)


def by_units(obj: ph.Objective, ball: Any, cells: int, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    monkeypatch.setattr(units, "_JOINT_AFTER", 64)
    found = unit_bound(obj, ball, max_cells=cells)
    assert found is not None and found.cover.joint is not None
    certificate = certify(obj, ball, "moment")
    row = replace(
        certificate.table["moment"], psi_lower=found.psi_lower, cells=found.cells, leaves=found.cover.leaves(obj, ball),
        multipliers=found.cover.joint,
    )  # fmt: skip
    return replace(certificate, method="units", psi_lower=found.psi_lower, table={"units": row})


@pytest.mark.parametrize(("loss", "activation"), [("squared_error", "tanh"), ("logistic", "sigmoid"), ("squared_error", "gelu")])
def test_bounds_by_ellipsoids_are_never_above_what_a_descent_finds(
    loss: str, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(439)
    monkeypatch.setattr(units, "_JOINT_AFTER", 64)
    obj = problem([1, 3, 1], loss, activation)
    ball = ph.Ball(rng.standard_normal(obj.num_params), 0.8).bind(obj)
    bound = unit_bound(obj, ball, max_cells=4000)
    assert bound is not None and bound.cover.joint is not None
    assert bound.psi_lower <= lowest_found(obj, ball, rng, starts=4) + 1e-12


def test_without_numbers_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data at zero without biases, and far out: no ellipsoid, and no error."""
    monkeypatch.setattr(units, "_JOINT_AFTER", 16)
    rng = np.random.default_rng(449)
    for x, options in ((np.zeros((4, 1)), {"bias": False}), (1e150 * np.ones((4, 1)), {})):
        obj = ph.Objective(ph.MLP([1, 3, 1], **options), ph.Dataset(x, rng.standard_normal(4)))
        bound = unit_bound(obj, ph.Ball(rng.standard_normal(obj.num_params), 0.8).bind(obj), max_cells=60)
        assert bound is not None and bound.psi_lower <= 0.0


@pytest.mark.usefixtures("long_doubles")
def test_files_with_ellipsoids_are_proved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyhess.certify.reference_plan._LONG_SHARE", 0.0)
    obj = problem([1, 3, 1], bias=False)
    ball = ph.Ball(np.random.default_rng(421).standard_normal(obj.num_params), 0.9).bind(obj)
    certificate = by_units(obj, ball, 600, monkeypatch)
    checked = verify_file(certificate.save(tmp_path / "c.npz"), time_limit=600.0)
    assert checked.verdict == "verified" and "53-bit" in checked.checks[-1].detail, checked.checks
    # An ellipsoid that is too small is noticed.
    row = certificate.table["units"]
    sets = row.multipliers
    assert isinstance(sets, JointSets)
    row = replace(row, multipliers=replace(sets, scales=0.8 * sets.scales))
    false = replace(certificate, table={"units": row})
    refused = verify_file(false.save(tmp_path / "false.npz"), time_limit=60.0)
    assert refused.verdict == "refuted" and "ellipsoid" in refused.checks[-1].detail
    for wrong in (replace(sets, rooms=-sets.rooms), replace(sets, matrices=sets.matrices[:, :, 1:])):
        damaged = replace(certificate, table={"units": replace(row, multipliers=wrong)})
        with pytest.raises(FileError, match="positive ones but for the matrices"):
            load_certificate(damaged.save(tmp_path / "damaged.npz"))


def test_ellipsoids_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(443)
    x = rng.standard_normal((8, 1))
    obj = ph.Objective(ph.MLP([1, 4, 1]), ph.Dataset(x, rng.standard_normal(8)))
    ball = ph.Ball(0.7 * rng.standard_normal(obj.num_params), 1.0).bind(obj)
    bounds = []
    for after in (10**9, 500):
        monkeypatch.setattr(units, "_JOINT_AFTER", after)
        bound = unit_bound(obj, ball, max_cells=15_000)
        assert bound is not None
        bounds.append(bound.psi_lower)
    assert bounds[1] > 0.95 * bounds[0] > bounds[0]


def test_ranges_are_given_up_where_the_largest_have_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    obj, ball, sets = found("tanh")
    assert len(sets.rooms) > 2
    rooms: list[float] = []

    def unproved(change: Any, matrix: Any, room: float, *others: Any) -> None:
        rooms.append(room)

    monkeypatch.setattr("pyhess.certify.unit_joint.enlarged", unproved)
    assert not len(find_joint(obj, describe(obj, ball), lambda: False).rooms)
    assert len(rooms) == 2 and rooms[1] < rooms[0]
