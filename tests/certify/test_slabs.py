"""Slabs of a ball: what terms are at most there, the form in z, and the search for a cover."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from math import inf
from time import monotonic

import numpy as np
import pytest

import pyhess as ph
from pyhess._threads import blas_single_thread
from pyhess.certify import certify, prove
from pyhess.certify.slab_multipliers import SlabMultipliers
from pyhess.certify.slabs import SlabSearch, _direction, _room, slabs_again
from pyhess.certify.subdivision import Limits
from pyhess.certify.taylor import Found, TaylorBound, bound_in, lifted_in, taylor_bound
from pyhess.certify.taylor_forms import Forms
from pyhess.certify.taylor_lifted import _narrowed
from pyhess.certify.taylor_room import Room
from pyhess.certify.taylor_top import State
from pyhess.certify.taylor_triples import triples

from .conftest import small_objective, trained_problem

GO_ON = np.zeros(1, dtype=np.int32)
Array = np.ndarray


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with blas_single_thread():  # as `certify` calls the bound
        yield


def _unit(rng: np.random.Generator, size: int) -> Array:
    d = _direction(np.outer(v := rng.standard_normal(size), v))
    assert d is not None
    return d


def _changes(rng: np.random.Generator, room: Room, count: int) -> Array:
    """Changes at the ends and the rim of the room: s = ±along and |y| = across."""
    d = room.direction
    assert d is not None
    y = rng.standard_normal((count, d.size))
    for _ in range(2):
        y -= np.outer(y @ d, d) / (d @ d)
    y *= room.across / np.linalg.norm(y, axis=1)[:, None]
    return y + room.along * rng.choice([-1.0, 1.0], (count, 1)) * d


def _symmetric(rng: np.random.Generator, count: int, size: int, order: int) -> Array:
    plain = rng.standard_normal((count, *(size,) * order))
    turned = [plain.transpose(0, *(1 + np.array(axes, dtype=int))) for axes in permutations(range(order))]
    return np.mean(turned, axis=0)


def _orders(q: Forms, deltas: Array) -> list[Array]:
    """The terms of every order (count, n) for changes (count, P)."""
    found = [
        np.broadcast_to(q.value, (len(deltas), len(q.value))),
        deltas @ q.first.T,
        np.einsum("nkl,ck,cl->cn", q.second, deltas, deltas) / 2.0,
    ]
    if q.order == 2:
        return found
    cube = q.third[:, triples(deltas.shape[1]).place]
    return [*found, np.einsum("nklm,ck,cl,cm->cn", cube, deltas, deltas, deltas, optimize=True) / 6.0]


@pytest.mark.parametrize("along", [0.3, 0.02, 1e-6])
def test_terms_are_at_most_what_the_room_says_and_not_much_less(along: float) -> None:
    rng = np.random.default_rng(1231)
    size, across = 5, 0.3
    at, d = triples(size), _unit(rng, size)
    room = Room(float(np.hypot(along, across)) * (1.0 + 1e-12), d, along, across)
    tensors = [_symmetric(rng, 40, size, order) for order in range(4)]
    for x, order in zip(tensors[1:], (1, 2, 3), strict=True):  # some along the direction only
        x[:8] = d if order == 1 else np.multiply.outer(d, d) if order == 2 else np.multiply.outer(d, np.multiply.outer(d, d))
    q = Forms((*tensors[:3], tensors[3][:, at.k, at.l, at.m]), np.zeros(40), room)
    exact = [np.abs(x).max(axis=0) for x in _orders(q, _changes(rng, room, 4000))]
    for order, (bound, reached, length) in enumerate(zip(q.terms, exact, q.lengths, strict=True)):
        assert (reached <= bound * (1.0 + 1e-13)).all(), order
        whole = length * room.reach**order / (1.0, 1.0, 2.0, 6.0)[order]
        assert (bound <= 2.0 * whole).all() and (order == 0 or along > 0.2 or bound[8:].mean() < 0.95 * whole[8:].mean())
        # Those along the direction are as small as the slab is thin, but for roundings of the whole.
        assert np.allclose(bound[:8], along**order / (1.0, 1.0, 2.0, 6.0)[order] if order else bound[:8], rtol=1e-9, atol=1e-11)
    assert (q.sizes >= room.reach * q.lengths[1]).all()


@pytest.mark.parametrize("order", [2, 3])
def test_products_and_compositions_of_forms_hold_what_they_must_in_a_slab(order: int) -> None:
    rng = np.random.default_rng(1237)
    size, d = 4, _unit(rng, 4)
    at, room = triples(4), Room(0.31, d, 0.05, 0.3)

    def form() -> Forms:
        third = _symmetric(rng, 7, size, 3)[:, at.k, at.l, at.m]
        coefficients = (*(_symmetric(rng, 7, size, k) for k in range(3)), third)[: order + 1]
        return Forms(coefficients, 0.01 * rng.uniform(size=7), room)

    p, q = form(), form()
    made = {"product": p * q, "composed": p.composed("tanh", 1.0, 1)}
    deltas = _changes(rng, room, 300) * np.where(rng.uniform(size=(300, 1)) < 0.5, 1.0, rng.uniform(size=(300, 1)))
    a, b = (sum(_orders(form, deltas)) + form.rest * rng.choice([-1.0, 1.0], (300, 7)) for form in (p, q))
    for name, exact in (("product", a * b), ("composed", 1.0 / np.cosh(a) ** 2)):
        assert (np.abs(exact - sum(_orders(made[name], deltas))) <= made[name].rest + 1e-13).all(), name
        ball = Forms(p.coefficients, p.rest, Room(room.reach)), Forms(q.coefficients, q.rest, Room(room.reach))
    assert (made["product"].rest < (ball[0] * ball[1]).rest).all()


def _slab(obj: ph.Objective, ball: ph.Ball, d: Array, low: float, high: float, start: Found | None = None) -> Found:
    centre, room = _room(ball, d, low, high)
    state = None if start is None else start.state
    found = bound_in(obj, centre, room, ball.radius, -inf, GO_ON, np.ones(obj.data.num_samples), state)
    assert found is not None
    return found


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize(("loss", "activation"), [("squared_error", "tanh"), ("logistic", "softplus"), ("cross_entropy", "gelu")])
def test_a_slabs_bound_is_below_every_hessian_of_it(
    loss: str, activation: str, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyhess.certify.taylor.polynomial_kind", lambda *_, **__: "second" if order == 2 else "third")
    widths = [1, 2, 1, 3] if loss == "cross_entropy" else [1, 2, 2, 1]
    obj = small_objective(1249, 6, widths, loss, activation)
    rng = np.random.default_rng(1259)
    ball = ph.Ball(0.7 * rng.standard_normal(obj.num_params), 0.1).bind(obj)
    d = _unit(rng, obj.num_params)
    before: Found | None = None
    for low, high in ((-1.0, -0.5), (0.2, 0.3)):
        found = _slab(obj, ball, d, low, high, before)
        before = found
        centre, room = _room(ball, d, low, high)
        thetas = np.concatenate([centre + scale * _changes(rng, room, 60) for scale in (0.999, 0.5)])
        lowest = min(float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]) for theta in thetas)
        scale = float(np.linalg.norm(obj.hessian(centre).to_dense(), 2))
        assert -inf < found.psi_lower <= lowest + 1e-12 * scale
        assert found.psi_lower > lowest - 0.1 * scale


def test_the_form_with_two_multipliers_is_what_it_is_said_to_be() -> None:
    obj, theta = trained_problem(1277, [1, 2, 1])
    rng = np.random.default_rng(1279)
    ball = ph.Ball(theta, 0.2).bind(obj)
    size, radius = obj.num_params, ball.radius
    d = _unit(rng, size)
    centre, room = _room(ball, d, 0.25, 0.5)
    lifted = lifted_in(obj, centre, room, radius, "third", GO_ON, np.ones(20), narrow=0.4)
    wide = lifted_in(obj, centre, room, radius, "third", GO_ON, np.ones(20), narrow=1.0)
    assert lifted is not None and wide is not None and lifted.gram is not None and wide.gram is not None
    # Narrowing both places of delta x delta, and stretching delta by as much, leaves the cubic term as it is.
    onto = np.outer(d, d) / (d @ d)
    stretch = np.eye(size) - onto + onto / 0.4
    longest = max(float(np.linalg.norm(stretch @ delta)) for delta in _changes(rng, room, 50))
    assert longest**2 <= lifted.pair <= longest**2 * (1.0 + 1e-9)
    assert 1.0 < np.linalg.norm(wide.gram) / np.linalg.norm(lifted.gram) < 0.4**-4
    # Both multipliers together take nothing where |y| and |s| are largest.
    lams = np.stack([(x := rng.standard_normal((size, size))) @ x.T for _ in range(2)])
    inside = sum(np.kron(part, lam) for part, lam in zip(lifted.parts, lams, strict=True))
    for delta in _changes(rng, room, 20):
        v = rng.standard_normal(size)
        z = np.outer(delta, v).ravel() / radius
        taken = float(v @ np.tensordot(lifted.most, lams, 1) @ v)
        assert 0.0 <= taken - float(z @ inside @ z) < 1e-9 * taken
        moved = np.outer(0.7 * delta, v).ravel() / radius
        assert float(moved @ inside @ moved) < 0.5 * taken
    # The tail gets the same.
    spread = np.zeros((size**2, size**2))
    lifted.add_spread(lams, spread)
    assert np.allclose(spread, inside, rtol=1e-12)
    # In other units the head takes the sum.
    state = _state(obj, centre, room, radius)
    lifted.residual.tail[np.diag_indices(size**2)] -= 40.0 / lifted.ball**2
    part, tail = lifted.least_multiple(state, lams), lifted.tail(state)
    lifted.add_spread(part * lams / lifted.most[:, None, None], tail)
    lowest = np.linalg.eigvalsh(tail)[0]
    assert part > 0.0 and -1e-9 < lowest < 0.02  # as the floor is a little larger


def _state(obj: ph.Objective, centre: Array, room: Room, radius: float) -> State:
    found = bound_in(obj, centre, room, radius, -inf, GO_ON, np.ones(obj.data.num_samples), None)
    assert found is not None and found.state is not None
    return found.state


def test_the_narrowed_matrix_is_that_of_dense_products() -> None:
    rng = np.random.default_rng(1283)
    size, omega = 4, 0.3
    d = _unit(rng, size)
    full = rng.standard_normal((size**2, size, size, size))  # (k a, b, l, m)
    full = full + full.swapaxes(2, 3)
    low, high = np.triu_indices(size)
    pairs = full[..., low, high] * np.where(low == high, 1.0, np.sqrt(2.0))
    narrow = np.eye(size) - (1.0 - omega) * np.outer(d, d) / (d @ d)
    dense = np.einsum("rblm,lp,mq->rbpq", full, narrow, narrow).reshape(size**2, -1)
    assert np.allclose(_narrowed(pairs.reshape(size**2, -1), d, 1.0 - omega), dense @ dense.T, rtol=1e-11, atol=1e-11)


@pytest.fixture(scope="module")
def cut() -> tuple[ph.Objective, ph.Ball, TaylorBound, SlabSearch]:
    """A ball about trained weights with two hidden layers, cut into slabs."""
    obj, theta = trained_problem(1213, [1, 2, 1, 1])
    ball = ph.Ball(theta, 0.2).bind(obj)
    with blas_single_thread():
        whole = taylor_bound(obj, ball, -inf, GO_ON)
        assert whole is not None
        search = SlabSearch(obj, ball, whole)
        search.run(Limits(GO_ON, max_cells=8))
    return obj, ball, whole, search


def test_slabs_cover_the_ball_and_prove_more(cut: tuple[ph.Objective, ph.Ball, TaylorBound, SlabSearch]) -> None:
    obj, ball, whole, search = cut
    witness = ph.search(obj, ball, rng=1289, starts=8).psi_upper
    assert whole.psi_lower < search.psi_lower <= witness and search.psi_lower > 0.8 * whole.psi_lower
    given = search.multipliers()
    assert given is not None and search.cells == 8
    assert given.slabs[0].low == -1.0 and given.slabs[-1].high == 1.0
    assert all(one.high == other.low for one, other in zip(given.slabs, given.slabs[1:], strict=False))
    d = given.direction
    assert 1.0 <= float(np.longdouble(d) @ np.longdouble(d)) <= 1.0 + 2e-12
    again = slabs_again(obj, ball, given)
    assert abs(again - search.psi_lower) <= 1e-9 * abs(again)
    assert prove(obj, ball, "slabs", search.psi_lower, multipliers=given).proved
    assert not prove(obj, ball, "slabs", 0.99 * search.psi_lower, multipliers=given).proved
    # Points of the ball lie in the room of the slab that their place along d belongs to.
    rng = np.random.default_rng(1291)
    for _ in range(100):
        delta = rng.standard_normal(d.size)
        delta = ball.radius * (delta / np.linalg.norm(delta) + 3.0 * rng.standard_normal() * d)
        delta *= ball.radius / np.linalg.norm(delta)
        place = float(delta @ d / (d @ d)) / ball.radius
        slab = next(one for one in given.slabs if place <= one.high)
        centre, room = _room(ball, d, slab.low, slab.high)
        left = ball.center + delta - centre
        s = float(left @ d / (d @ d))
        assert abs(s) <= room.along and np.linalg.norm(left - s * d) <= room.across and np.linalg.norm(left) <= room.reach


def test_multipliers_of_slabs_are_not_trusted(cut: tuple[ph.Objective, ph.Ball, TaylorBound, SlabSearch]) -> None:
    obj, ball, _, search = cut
    given = search.multipliers()
    assert given is not None
    first, *others = given.slabs
    for wrong in (
        SlabMultipliers(given.direction, given.slabs[1:]),
        SlabMultipliers(given.direction, given.slabs[:-1]),
        SlabMultipliers(given.direction, (given.slabs[0], *given.slabs[2:])),
        SlabMultipliers(0.999 * given.direction, given.slabs),
        SlabMultipliers(1.001 * given.direction, given.slabs),
        SlabMultipliers(given.direction, (replace(first, along=-first.along), *others)),
        SlabMultipliers(given.direction, (replace(first, along=0.0 * first.along), *others)),
    ):
        assert not slabs_again(obj, ball, wrong) >= search.psi_lower
    for changes in ({"share": 1.5}, {"share": 0.0}, {"tau": -first.taylor.tau}, {"weights": -first.taylor.weights}):
        bad = replace(first, taylor=replace(first.taylor, **changes))  # type: ignore[arg-type]
        assert slabs_again(obj, ball, SlabMultipliers(given.direction, (bad, *others))) == -inf
    # Symmetric parts of the A_k, with which v'A v is not zero, do not count.
    skewed = replace(first.taylor, turned=first.taylor.turned + np.eye(len(given.direction)))
    again = slabs_again(obj, ball, SlabMultipliers(given.direction, (replace(first, taylor=skewed), *others)))
    assert abs(again - search.psi_lower) <= 1e-9 * abs(again)


def test_where_time_ends_the_slabs_at_hand_are_kept(cut: tuple[ph.Objective, ph.Ball, TaylorBound, SlabSearch]) -> None:
    obj, ball, whole, _ = cut
    for limits in (
        Limits(np.ones(1, dtype=np.int32)),
        Limits(GO_ON, deadline=monotonic()),
        Limits(GO_ON, goal=10.0 * whole.psi_lower),
    ):
        search = SlabSearch(obj, ball, whole)
        assert search.run(limits) == -inf and search.cells == 0 and search.multipliers() is None
    search = SlabSearch(obj, ball, whole)
    search.run(Limits(GO_ON, max_cells=4))
    four = search.psi_lower
    stop = np.zeros(1, dtype=np.int32)

    def interrupted(_state: dict[str, object]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search.run(Limits(stop), interrupted)
    assert search.psi_lower >= four and search.cells == 6 and stop[0] == 0
    search.run(Limits(stop, deadline=monotonic() + 1e-3))
    assert search.cells == 6 and search.multipliers() is not None and stop[0] == 0


def test_without_one_direction_nothing_is_cut(cut: tuple[ph.Objective, ph.Ball, TaylorBound, SlabSearch]) -> None:
    obj, ball, whole, _ = cut
    for moment in (None, np.eye(obj.num_params), np.full((obj.num_params,) * 2, np.nan)):
        search = SlabSearch(obj, ball, replace(whole, moment=moment))
        assert search.run(Limits(GO_ON)) == -inf and search.cells == 0 and search.multipliers() is None
    # Slabs that are worse than the ball do not count.
    search = SlabSearch(obj, ball, replace(whole, psi_lower=-1e-9))
    assert search.run(Limits(GO_ON, max_cells=4)) == -inf and search.multipliers() is None


@pytest.mark.usefixtures("few_cells")
def test_slabs_by_name_and_where_they_do_not_apply() -> None:
    obj, theta = trained_problem(1213, [1, 2, 1, 1])
    region = ph.Ball(theta, 0.2)
    certificate = certify(obj, region, "slabs")
    assert set(certificate.table) == {"taylor", "slabs"} and certificate.method == "slabs"
    assert certificate.table["slabs"].cells == 8 and "slabs" not in certify(obj, region).table
    assert certificate.psi_lower > certificate.table["taylor"].psi_lower
    witness = ph.search(obj, region, rng=1297, starts=8).psi_upper
    assert certificate.psi_lower <= witness and certificate.verify()
    row = certificate.table["slabs"]
    table = {"slabs": replace(row, psi_lower=0.99 * row.psi_lower)}
    with pytest.raises(ph.NumericalError, match="altered"):
        replace(certificate, psi_lower=0.99 * row.psi_lower, table=table).verify()
    # With a time limit, until a goal that some of the slabs reach.
    goal = 0.5 * (certificate.psi_lower + certificate.table["taylor"].psi_lower)
    timed = certify(obj, region, time_limit=600.0, psi_upper=goal)
    assert timed.method == "slabs" and "cells" not in timed.table and 4 <= timed.table["slabs"].cells <= 8
    assert "slabs" not in certify(obj, region, time_limit=2.0, psi_upper=goal / 60.0).table
    rough = ph.Objective(ph.MLP([1, 2, 1, 1], "relu"), obj.data)
    for problem, where in ((obj, ph.Box(-1.0, 1.0)), (rough, ph.Ball(theta, 0.1))):
        with pytest.raises(ph.InputError, match="it needs a ball, smooth activations"):
            certify(problem, where, "slabs")


@pytest.mark.parametrize(("low", "high"), [(-1.0, -0.5), (-0.5, 0.25), (0.1, 0.7), (-1.0, 1.0)])
def test_the_room_of_a_slab_holds_its_part_of_the_ball(low: float, high: float) -> None:
    rng = np.random.default_rng(2281)
    center = rng.standard_normal(4)
    ball = ph.Ball(center, 0.3)
    d = _direction(np.outer(*(rng.standard_normal(4),) * 2))
    assert d is not None
    centre, room = _room(ball, d, low, high)
    t = np.r_[rng.uniform(low, high, 200), low, high, min(max(0.0, low), high)]
    y = rng.standard_normal((t.size, 4))
    y -= np.outer(y @ d, d) / (d @ d)
    y *= (0.3 * np.sqrt(np.maximum(0.0, 1.0 - t**2 * (d @ d))) / np.linalg.norm(y, axis=1))[:, None]  # up to the sphere
    change = center + 0.3 * np.outer(t, d) + y - centre
    s = change @ d / (d @ d)
    assert (np.abs(s) <= room.along * (1.0 + 1e-12)).all()
    assert (np.linalg.norm(change - np.outer(s, d), axis=1) <= room.across * (1.0 + 1e-12)).all()
    assert (np.linalg.norm(change, axis=1) <= room.reach * (1.0 + 1e-12)).all()
    assert np.abs(s).max() > 0.99 * room.along  # and hardly more
