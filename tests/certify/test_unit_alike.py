"""Ellipsoids for hidden units that are all alike: those found hold for networks in the ball, are not much too large, and pay."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import certify, units
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import wide
from pyhess.certify.reference_unit_alike import Outputs as SlowOutputs
from pyhess.certify.reference_unit_block import UnitProblem
from pyhess.certify.reference_unit_rest import Units as SlowUnits
from pyhess.certify.unit_alike import AlikeFit, Worst, _reach
from pyhess.certify.unit_alike import alike as all_alike
from pyhess.certify.unit_cover import AlikeSets
from pyhess.certify.unit_joint_proof import Outputs, _bounds, _most, enlarged
from pyhess.certify.unit_rest import describe
from pyhess.certify.unit_rooms import _PARTS, Rooms, _model
from pyhess.certify.units import unit_bound
from pyhess.threshold import verify_file

from .alike_cases import CASES, alike, disc, in_disc, others, outputs, reach, slopes, without_own
from .conftest import small_objective
from .test_units import lowest_found

Array = Any


@cache
def found(activation: str) -> tuple[ph.Objective, Any, AlikeSets]:
    """Sets for the largest rooms and one of half the ball's."""
    rng = np.random.default_rng(593)
    obj, ball = alike(activation)
    described = describe(obj, ball)
    centre = np.append(described.u.middle[0], 0.0)
    rooms = np.repeat(np.array([0.99, 0.9, 0.5]), 20) * ball.radius
    parts = rng.standard_normal((60, 3, 3))
    worst = Worst(centre + 0.3 * rng.standard_normal((60, 3)), parts @ parts.transpose(0, 2, 1), rooms, 100)
    return obj, ball, AlikeFit(obj, described).adapted(worst, lambda: False)


@pytest.mark.parametrize("activation", CASES)
def test_changes_of_a_unit_and_the_bias_lie_in_every_set(activation: str) -> None:
    obj, ball, sets = found(activation)
    assert sets.rooms == pytest.approx(ball.radius * 0.93 ** np.array([0.0, 1.0, 9.0]))
    for room, floor, matrix, t in zip(sets.rooms, sets.floors, sets.matrices, sets.scales, strict=True):
        steps = disc(room)
        share = reach(obj, outputs(obj, ball.center, steps), matrix, (steps**2).sum(axis=1) + floor) / t
        assert 0.95 < share.max() <= 1.0


@pytest.mark.parametrize("activation", CASES)
def test_what_the_others_add_lies_in_every_set(activation: str) -> None:
    """Support functions against networks that ascend in directions of the data."""
    rng = np.random.default_rng(599)
    obj, ball, sets = found(activation)
    many, closest = obj.net.widths[1] - 1, 0.0
    for room, floor, matrix, t in zip(sets.rooms, sets.floors, sets.matrices, sets.scales, strict=True):
        for rho in (room, 0.6 * room):
            for _ in range(3):
                w = rng.standard_normal(obj.data.num_samples)
                width = t * (rho**2 + many * floor) * np.linalg.norm(np.linalg.solve(matrix.T, w))
                step = rng.standard_normal(obj.num_params)
                for _ in range(8):
                    step = without_own(obj, step)
                    step *= rho / np.linalg.norm(step)
                    reached = w @ (others(obj, ball.center + step) - others(obj, ball.center))
                    assert reached <= width * (1.0 + 1e-12)
                    closest = max(closest, reached / width)
                    step = slopes(obj, ball.center + step, w)
    assert closest > 0.5


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_sets_hold_whatever_is_fitted(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices that need a t of 1.1, where the output bias changes alone and at the edge of the room."""
    obj, ball, sets = found(activation)
    room, steps = ball.radius, disc(ball.radius)
    h, squares = outputs(obj, ball.center, steps), (steps**2).sum(axis=1) + sets.floors[0]
    matrix = 0.1 * np.eye(5) + (0.5 if activation == "tanh" else np.diag(10.0 * (np.arange(5) == h[0].argmin())))
    needed = reach(obj, h, matrix, squares)
    assert np.linalg.norm(steps[needed.argmax()]) == pytest.approx(0.0 if activation == "tanh" else room)
    monkeypatch.setattr(AlikeFit, "_fit", lambda *_: 1.1 / needed.max() * matrix)
    worst = Worst(np.zeros((1, 3)), np.eye(3)[None], np.array([room]), 100)
    with np.errstate(all="ignore"):
        again = AlikeFit(obj, describe(obj, ball)).adapted(worst, lambda: False)
    assert again.floors == sets.floors[:1] and 1.1 <= again.scales[0] < 1.15


@pytest.mark.parametrize(("activation", "better"), [("tanh", True), ("sigmoid", False)])
def test_much_later_half_a_range_has_a_set_of_its_own(activation: str, better: bool) -> None:
    """Where it reaches less far along the cells' directions than that of the whole range; the next range has one anyway."""
    obj, ball = alike(activation)
    described = describe(obj, ball)
    vector = np.random.default_rng(607).standard_normal(3)
    there, mixtures = np.append(described.u.middle[0], 0.3)[None], np.outer(vector, vector)[None]
    fit = AlikeFit(obj, described)

    def adapted(share: float, evaluated: int) -> AlikeSets:
        return fit.adapted(Worst(there, mixtures, np.array([share * ball.radius]), evaluated), lambda: False)

    whole = adapted(0.94, 1000)
    assert whole.rooms == pytest.approx([ball.radius])
    assert adapted(0.94, 5999) is whole
    both = adapted(0.94, 6000)
    assert (both is not whole) == better
    if better:
        assert both.rooms == pytest.approx([ball.radius, ball.radius * 0.93**0.5])
        special = fit._directions.near(there, mixtures)
        first, second = (_reach(both.those(np.array(part) == 1), special, both.rooms[1], fit.others) for part in ([1, 0], [0, 1]))
        assert second < first
    assert adapted(0.9, 6000).rooms[-1] == pytest.approx(0.93 * ball.radius)


def outputs_of(obj: ph.Objective, ball: Any) -> tuple[Outputs, float]:
    by = describe(obj, ball)
    activation = obj.net.activations[0], obj.net.betas[0]
    part = by.scale_v / float(np.sqrt(obj.net.widths[1] - 1)) if obj.net.bias else 0.0
    return Outputs(activation, by.z, by.u.middle[0], (by.scale_u, by.scale_v)), part


@pytest.fixture
def quiet() -> Iterator[None]:
    """Where the output bias alone takes all that is allowed there are no numbers, and no proof."""
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("activation", CASES)
@pytest.mark.usefixtures("quiet")
def test_a_proof_leaves_nothing_out(activation: str) -> None:
    """The t that is proved for matrices that need more than one: that of the points, at the edge of the room for a large g, and
    where the output bias changes alone.
    """
    obj, ball, sets = found(activation)
    by, part = outputs_of(obj, ball)
    room = ball.radius
    steps = disc(room)
    h, square = outputs(obj, ball.center, steps), (steps**2).sum(axis=1)
    ones = sets.matrices[0] + 5.0 * np.linalg.norm(sets.matrices[0], 2)
    at = []
    for matrix, floor in ((sets.matrices[0], 20.0 * room**2), (sets.matrices[0], 0.3 * room**2), (ones, 0.03 * room**2)):
        needed = reach(obj, h, matrix, square + floor)
        t = enlarged(by, 1.1 / needed.max() * matrix, room, floor, lambda: False, part)
        assert t is not None and 1.1 <= t < 1.15
        at.append(square[needed.argmax()])
    assert at[0] == pytest.approx(room**2)
    if activation == "tanh":
        assert at[2] == 0.0


@pytest.mark.parametrize("activation", CASES)
@pytest.mark.usefixtures("quiet")
def test_bounds_over_boxes_hold(activation: str) -> None:
    """They are above P at points of boxes, and show the claim from just above the t that the points need."""
    rng = np.random.default_rng(601)
    obj, ball, _ = found(activation)
    by, part = outputs_of(obj, ball)
    proved = 0
    for floor in 10.0 ** rng.uniform(-3.0, 0.0, 12):
        matrix = rng.standard_normal((5, 5)) @ np.diag(10.0 ** rng.uniform(-1.0, 1.0, 5))
        image = part * matrix.sum(axis=1)
        for middle in in_disc(rng, 3, 1.5):
            half = 10.0 ** rng.uniform(-4.0, 0.0) * rng.uniform(0.3, 1.0, 2)
            moves = np.array([[0.0, 0.0], *itertools.product([-1.0, 1.0], repeat=2), *rng.uniform(-1.0, 1.0, (100, 2))])
            points = middle + half * moves
            h, squares = outputs(obj, ball.center, points), (points**2).sum(axis=1) + floor
            each = reach(obj, h, matrix, squares)
            least = each.max()
            for factor in (0.7, 0.95, 1.0 - 1e-7, 1.0 + 1e-4, 1.1, 1.5, 3.0):
                t = factor * least
                worst, needed, _ = _bounds(by, matrix, middle[None], half[None], floor, t, part)
                assert factor > 1.0 or not worst[0] <= 0.0
                assert needed[0] == pytest.approx(each[0], rel=1e-9)
                lam = 4.0 * t * t * squares - image @ image
                mapped = h @ matrix.T
                p = (mapped**2).sum(axis=1) - 4.0 * t * t * squares
                if part:
                    p = (p + (mapped @ image) ** 2 / lam)[lam > 0.0]
                assert not (p > worst[0]).any()
                proved += worst[0] <= 0.0
            near = 1e-5 * half / half.max()
            assert _bounds(by, matrix, middle[None], near[None], floor, (1.0 + 1e-3) * each[0], part)[0][0] <= 0.0
    assert proved > 36


@pytest.mark.parametrize("activation", CASES)
@pytest.mark.usefixtures("doubles")
def test_polynomials_of_the_outputs(activation: str) -> None:
    """Those of the search and of the independent check with their rests, against points of boxes."""
    rng = np.random.default_rng(647)
    obj, ball, _ = found(activation)
    quick, _ = outputs_of(obj, ball)
    full, centre = Problem.of(obj), wide(ball.center)
    slow = SlowOutputs(UnitProblem.of(full), (full.scale[0], full.scale[1]), SlowUnits.of(full, centre, centre).u[0][0])
    middle, half = in_disc(rng, 60, 1.5), 10.0 ** rng.uniform(-2.0, 0.0, (60, 2))
    moved = np.concatenate([rng.uniform(-1.0, 1.0, (60, 200, 2)), np.sign(rng.uniform(-1.0, 1.0, (60, 40, 2)))], axis=1)
    moved *= half[:, None]
    h = outputs(obj, ball.center, (middle[:, None] + moved).reshape(-1, 2)).reshape(60, 240, 5)
    twice = np.stack([0.5 * moved[..., 0] ** 2, moved[..., 0] * moved[..., 1], 0.5 * moved[..., 1] ** 2], axis=-1)
    assert [x.tolist() for x in quick.pairs] == [x.tolist() for x in slow.places] == [[0, 0, 1], [0, 1, 1]]
    exact = slow.pieces(middle, half)
    for value, linear, square, rest in (quick.polynomial(middle, half), (*(x.hi for x in exact[:3]), exact[3])):
        off = np.abs(h - value[:, None] - np.einsum("bkp,bpn->bkn", moved, linear) - np.einsum("bks,bsn->bkn", twice, square))
        assert (off <= rest[:, None] + 1e-14).all()
        assert (off.max(axis=1) > 0.3 * rest).mean() > 0.3


@pytest.mark.parametrize("activation", CASES)
@pytest.mark.usefixtures("quiet")
def test_what_the_polynomials_leave_out_counts(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as an error of any signs in the outputs would need, at points."""
    rng = np.random.default_rng(607)
    obj, ball, sets = found(activation)
    by, part = outputs_of(obj, ball)
    matrix, floor, exact = sets.matrices[0], float(sets.floors[0]), by.polynomial
    signs, none = np.array(list(itertools.product([-1.0, 1.0], repeat=5))), np.full((1, 2), 1e-300)
    for middle in in_disc(rng, 10, ball.radius):
        h, squares = outputs(obj, ball.center, middle[None]), float(middle @ middle) + floor
        error = 1e-6 * np.abs(h).max() * rng.random(5)
        without, least = (reach(obj, h + by_sign, matrix, squares).max() for by_sign in (0.0, signs * error))
        assert least > without
        with monkeypatch.context() as patched:
            patched.setattr(by, "polynomial", lambda *given, error=error: (*exact(*given)[:3], error[None]))
            for share, known in ((0.9, False), (2.0, True)):
                t = without + share * (least - without)
                assert (_bounds(by, matrix, middle[None], none, floor, t, part)[0][0] <= 0.0) == known


def test_the_most_of_a_quadratic_form_on_a_box() -> None:
    rng = np.random.default_rng(613)
    for size in (1, 2, 3):
        slope, bend = rng.standard_normal((200, size)), rng.standard_normal((200, size, size))
        bend = bend + bend.transpose(0, 2, 1) - 2.0 * rng.random((200, 1, 1)) * np.eye(size)
        half = 10.0 ** rng.uniform(-1.0, 1.0, (200, size))
        moves = rng.uniform(-1.0, 1.0, (2000, size))
        moves[:500] = np.sign(moves[:500])
        h = moves * half[:, None]
        value = np.einsum("bp,bkp->bk", slope, h) + np.einsum("bkp,bpq,bkq->bk", h, bend, h)
        most, size_of = _most(slope, bend, half).sum(axis=1), (np.abs(value)).max(axis=1)
        assert (value.max(axis=1) <= most + 1e-12 * size_of).all()
        if size == 1:
            assert (most - value.max(axis=1) < 1e-2 * size_of).all()


@pytest.mark.parametrize("activation", CASES)
def test_cells_with_sets_are_never_above_a_block_of_a_network(activation: str) -> None:
    """Small cells against the smallest eigenvalue of the unit's block, for networks that descend with the unit fixed."""
    rng = np.random.default_rng(617)
    obj, ball, sets = found(activation)
    stop = np.zeros(1, dtype=np.int32)
    search = units.UnitSearch(obj, ball, stop)
    rooms = Rooms(sets, search.units, search.roots, activation, obj.net.betas[0], search.new_task)
    (w, b), (a, _) = (tuple(x if x is None else x.copy() for x in layer) for layer in obj.net.unpack(np.arange(obj.num_params)))
    own = np.r_[w[1], *([] if b is None else [b[1]]), a[:, 1]].astype(int)
    ratios, seen = [], set()
    for share in (0.95, 0.9, 0.5, 0.95, 0.9, 0.5):
        rho, step = share * ball.radius, rng.standard_normal(3)
        step *= np.sqrt(ball.radius**2 - rho**2) / np.linalg.norm(step)
        theta = ball.center.copy()
        theta[own] += step
        point = theta[own] / search.roots.inverse
        cells = np.zeros((1, 2, 5))
        cells[0, :, :3] = point - 1e-6, point + 1e-6
        index, none = np.zeros(1, dtype=np.int64), np.full(1, -np.inf)
        seen.add(int(rooms.rows(cells, index)[0]) // _PARTS)
        bound = rooms.bound(cells, index, none, stop, search.task).bounds[0]
        low = descended(obj, ball, theta, own, rho * (1.0 - 1e-5), rng)
        assert bound <= low
        ratios.append(low / bound)
    assert seen == {0, 1, 2} and max(ratios) > 0.55


def descended(obj: ph.Objective, ball: Any, theta: Array, own: Array, rho: float, rng: np.random.Generator) -> float:
    """The smallest eigenvalue of the residual part in a unit's parameters, the others within the distance rho."""
    free = np.setdiff1d(np.arange(theta.size), own)

    def value(step: Array) -> float:
        moved = theta.copy()
        moved[free] += rho * step / np.linalg.norm(step)
        part = obj.hessian(moved).to_dense() - obj.gauss_newton(moved).to_dense()
        return float(np.linalg.eigvalsh(part[np.ix_(own, own)])[0])

    step = rng.standard_normal(free.size)
    for _ in range(12):
        step /= np.linalg.norm(step)
        slope = np.array([value(step + h) - value(step - h) for h in 1e-5 * np.eye(free.size)])
        step = -slope / (np.linalg.norm(slope) + 1e-300) + 0.3 * step
    return value(step)


@pytest.mark.parametrize("activation", CASES)
def test_the_model_of_a_range_serves_no_other_rooms(activation: str) -> None:
    """Where it serves it is at least t (rho² + M g) |A'^-1 w|, about the output bias at the centre, for large g, too."""
    rng = np.random.default_rng(643)
    obj, ball, sets = found(activation)
    sets = replace(sets, floors=np.array([1.0, 5.0, 1.0]) * sets.floors)
    search = units.UnitSearch(obj, ball, np.zeros(1, dtype=np.int32))
    rooms = Rooms(sets, search.units, search.roots, activation, obj.net.betas[0], search.new_task)
    half = ball.radius * 10.0 ** rng.uniform(-2.5, -0.5, (3000, 3))
    middle = rng.standard_normal((3000, 3))
    middle *= 1.1 * ball.radius * rng.random((3000, 1)) ** 0.3 / np.linalg.norm(middle, axis=1, keepdims=True)
    cells = np.stack([middle - half, middle + half], axis=1) / search.roots.inverse + search.roots.centers[0]
    rows = rooms.rows(cells, np.zeros(3000, dtype=np.int64))
    assert set(rows.tolist()) == {-1, *range(3 * _PARTS)}
    nearest = np.clip(0.0, middle - half, middle + half)
    left = np.sqrt(np.maximum(ball.radius**2 - (nearest**2).sum(axis=1), 0.0))
    count, w = obj.net.widths[1], rng.standard_normal((50, 5))
    for row in range(3 * _PARTS):
        k, part = divmod(row, _PARTS)
        room, mine = sets.rooms[k], left[rows == row]
        ends = room * 0.93 ** (np.array([part, part + 1]) / _PARTS)
        assert ends[1] * (1.0 - 1e-8) <= mine.min() and mine.max() <= ends[0] * (1.0 + 1e-8)
        ends = np.array([mine.max(), mine.min()])
        point, columns, blur = _model(sets, k, ends, search.units, np.arange(1, count), activation, obj.net.betas[0])
        centre = others(obj, ball.center)
        assert (point.lo <= centre).all() and (centre <= point.hi).all()
        extent = sets.scales[k] * np.linalg.norm(np.linalg.solve(sets.matrices[k].T, w.T), axis=0)
        for rho in np.linspace(mine.min(), mine.max(), 20):
            width = rho * (np.linalg.norm(w @ columns, axis=1) + np.abs(w) @ blur)
            assert (width >= extent * (rho**2 + (count - 1) * sets.floors[k])).all()
        inverse = np.linalg.inv(sets.matrices[k]).astype(np.longdouble)
        off = inverse @ sets.matrices[k].astype(np.longdouble) - np.eye(5)
        missed = np.linalg.norm(off @ inverse, axis=1) * sets.scales[k] * (room**2 + (count - 1) * sets.floors[k])
        assert off.any() and (point.radius >= missed).all()


def test_sets_are_for_alike_units_without_output_weights() -> None:
    obj, ball = alike("softplus")
    for places, known in ((slice(0), True), (slice(1), False), (slice(-3, -1), False), (slice(-7, -1), False)):
        theta = ball.center.copy()
        theta[places] += 1e-6
        near = ph.Ball(theta, ball.radius).bind(obj)
        assert all_alike(obj, describe(obj, near), near) == known
    for parametrization, inputs in (("standard", 3), ("ntk", 1)):
        other = small_objective(641, 6, [inputs, 3, 1], "squared_error", parametrization=parametrization)
        region = ph.Ball(radius=1.0).bind(other)
        assert all_alike(other, describe(other, region), region) == (inputs < 3)


@pytest.mark.parametrize("loss", ["squared_error", "logistic"])
def test_bounds_are_tighter_and_below_what_a_descent_finds(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_JOINT_AFTER", 500)
    obj = small_objective(619, 6, [1, 3, 1], loss)
    ball = ph.Ball(radius=2.0).bind(obj)
    with_sets, without = (unit_bound(obj, ball, max_cells=3000, ellipsoids=given) for given in (True, False))
    assert with_sets is not None and without is not None
    assert isinstance(with_sets.cover.joint, AlikeSets) and without.cover.joint is None
    assert with_sets.psi_lower > 0.99 * without.psi_lower > without.psi_lower
    assert with_sets.psi_lower <= lowest_found(obj, ball, np.random.default_rng(631), starts=4)


@pytest.mark.usefixtures("long_doubles")
def test_a_certificate_of_a_large_ball_is_proved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyhess.certify.reference_plan._LONG_SHARE", 0.0)
    monkeypatch.setattr(units, "_JOINT_AFTER", 100)
    obj = small_objective(641, 4, [1, 3, 1])
    ball = ph.Ball(radius=2.0).bind(obj)
    bound = unit_bound(obj, ball, max_cells=500)
    assert bound is not None and isinstance(bound.cover.joint, AlikeSets)
    certificate = certify(obj, ball, "moment")
    row = replace(
        certificate.table["moment"], psi_lower=bound.psi_lower, cells=bound.cells, leaves=bound.cover.leaves(obj, ball),
        multipliers=bound.cover.joint,
    )  # fmt: skip
    certificate = replace(certificate, method="units", psi_lower=bound.psi_lower, table={"units": row})
    checked = verify_file(certificate.save(tmp_path / "c.npz"), time_limit=300.0)
    assert checked.verdict == "verified" and "cells of one unit" in checked.checks[-1].detail, checked.checks
