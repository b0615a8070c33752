"""The Hessian's Taylor polynomial over a ball with what it leaves out, and the bound that rests on it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess._threads import blas_single_thread
from pyhess.certify import certify, prove
from pyhess.certify.boxes import full_subdivision
from pyhess.certify.higher_ranges import derivative_bound, derivative_points
from pyhess.certify.intervals import Interval
from pyhess.certify.subdivision import Limits
from pyhess.certify.taylor import taylor_bound
from pyhess.certify.taylor_cubic import DenseCubic
from pyhess.certify.taylor_forms import Forms
from pyhess.certify.taylor_hessian import Expansion, Quadratic, taylor_hessian
from pyhess.certify.taylor_kinds import polynomial_kind, slabs_know, taylor_knows
from pyhess.certify.taylor_nodes import polynomial
from pyhess.certify.taylor_room import Room
from pyhess.certify.taylor_triples import triples

from .conftest import trained, trained_problem

GO_ON = np.zeros(1, dtype=np.int32)
CASES = [
    ([2, 3, 1], ["tanh"], "squared_error", "standard"),
    ([2, 2, 2, 2], ["gelu", "softplus"], "squared_error", "ntk"),
    ([2, 2, 2, 1], ["sigmoid", "tanh"], "logistic", "ntk"),
    ([1, 2, 1, 1], ["tanh", "identity"], "logistic", "standard"),
    ([1, 1, 2, 1, 1], ["softplus", "gelu", "sigmoid"], "squared_error", "standard"),
    ([2, 2, 3], ["tanh"], "cross_entropy", "standard"),
    ([1, 2, 2, 2], ["gelu", "sigmoid"], "cross_entropy", "ntk"),
]
BETA = 1.7


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with blas_single_thread():  # as `certify` calls the bound
        yield


def _problem(widths: list[int], names: list[str], loss: str, parametrization: str) -> ph.Objective:
    rng = np.random.default_rng(1103)
    targets = {
        "squared_error": rng.standard_normal((5, widths[-1])),
        "logistic": rng.integers(0, 2, 5),
        "cross_entropy": rng.dirichlet(np.ones(widths[-1]), 5) if widths[0] == 1 else rng.integers(0, widths[-1], 5),
    }
    y = targets[loss]
    data = ph.Dataset(rng.standard_normal((5, widths[0])), y, rng.uniform(0.5, 2.0, 5))
    net = ph.MLP(widths, names, beta=BETA, bias=widths[0] == 2, parametrization=parametrization)
    return ph.Objective(net, data, loss=loss)


def _about(ball: ph.Ball) -> tuple[np.ndarray, Room]:
    return np.array(ball.center), Room(ball.radius)


def _expansion(obj: ph.Objective, region: ph.Ball, order: int = 3) -> Expansion:
    found = taylor_hessian(obj.net, *_about(region), obj.data, obj.targets, obj.loss, order, GO_ON)
    assert found is not None and (found.cubic is None) == (order == 2)
    return found


def _value(q: Quadratic, delta: np.ndarray, v: np.ndarray, factor: float = 1.0, tail: float = 1.0) -> float:
    first = 2.0 * np.einsum("k,a,kab,b->", delta, v, q.half, v)
    second = np.einsum("k,a,kalb,l,b->", delta, v, q.tail, delta, v, optimize=True)
    return float(factor * (v @ q.head @ v + first) + tail * second)


def _cubic(found: Expansion, delta: np.ndarray, v: np.ndarray) -> float:
    if found.cubic is None:
        return 0.0
    low, high = np.triu_indices(delta.size)
    pairs = delta[low] * delta[high] * np.where(low == high, 1.0, np.sqrt(2.0))
    assert abs(np.linalg.norm(pairs) - np.linalg.norm(delta) ** 2) <= 1e-14
    assert isinstance(found.cubic, DenseCubic)
    return float(np.outer(delta, v).ravel() @ found.cubic.matrix @ np.outer(v, pairs).ravel())


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "gelu", "identity"])
def test_higher_derivatives_are_the_slopes_of_those_below(name: str) -> None:
    rng = np.random.default_rng(1109)
    s = np.concatenate([3.0 * rng.standard_normal(200), [0.0, 12.0, -30.0]])
    step = 1e-5

    def slopes(order: int, at: np.ndarray) -> np.ndarray:
        after, before = (derivative_points(name, BETA, order, at + side * step)[0] for side in (1.0, -1.0))
        return (after - before) / (2.0 * step)

    for order in range(1, 6):
        value, error = derivative_points(name, BETA, order, s)
        assert np.abs(value - slopes(order - 1, s)).max() < 2e-6 and error.max() < 1e-8
    width = np.exp(rng.uniform(-6.0, 1.0, s.size))
    inside = s + width * np.linspace(-1.0, 1.0, 201)[:, None]
    for order in (4, 5, 6):
        bound = derivative_bound(name, BETA, order, Interval(s - width, s + width))
        assert (np.abs(slopes(order - 1, inside)).max(axis=0) <= bound + 2e-6).all()
        near = derivative_bound(name, BETA, order, Interval.point(s))
        assert (near <= 1.001 * np.abs(slopes(order - 1, s)) + 2e-6).all()


@pytest.mark.parametrize("degree", [2, 3])
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "gelu", "identity"])
def test_polynomials_of_activations_are_off_by_at_most_what_they_say(name: str, degree: int) -> None:
    rng = np.random.default_rng(1115)
    s, w = 2.0 * rng.standard_normal(300), 10.0 ** rng.uniform(-9.0, 0.7, 300)
    for order in range(3):
        coefficients, error = polynomial(name, BETA, order, s, w, degree)
        steps = w * np.linspace(-1.0, 1.0, 101)[:, None]
        exact, rounding = derivative_points(name, BETA, order, s + steps)
        ours = sum(c * steps**k for k, c in enumerate(coefficients))
        off = np.abs(exact - ours).max(axis=0)
        assert (off <= error + rounding.max(axis=0)).all()
        # They are hardly better than they say; Taylor's would be off four or eight times as much.
        assert name == "identity" or np.median((off / error)[w > 0.01]) > 0.4


@pytest.mark.parametrize("order", [2, 3])
def test_products_and_compositions_of_forms_hold_what_they_must(order: int) -> None:
    rng = np.random.default_rng(1117)
    size, ball = 4, 0.3

    def symmetric(rank: int) -> np.ndarray:
        plain = rng.standard_normal((7, *(size,) * rank))
        turned = [plain.transpose(0, *(1 + np.array(axes, dtype=int))) for axes in permutations(range(rank))]
        return np.mean(turned, axis=0)

    entries = triples(size)

    def form() -> Forms:
        third = [symmetric(3)[:, entries.k, entries.l, entries.m]] if order == 3 else []
        return Forms((*(symmetric(k) for k in range(3)), *third), 0.01 * rng.uniform(size=7), Room(ball))

    p, q = form(), form()
    made = {"product": p * q, "composed": p.composed("tanh", 1.0, 1)}
    for _ in range(200):
        delta = rng.standard_normal(size)
        delta *= ball * rng.uniform() ** 0.2 / np.linalg.norm(delta)

        def at(form: Forms, delta: np.ndarray = delta) -> np.ndarray:
            third = form.third[:, entries.place] @ delta @ delta @ delta / 6 if order == 3 else 0.0
            return np.asarray(form.value + form.first @ delta + form.second @ delta @ delta / 2 + third)

        a, b = (at(form) + form.rest * rng.choice([-1.0, 1.0], 7) for form in (p, q))
        for name, exact in (("product", a * b), ("composed", 1.0 / np.cosh(a) ** 2)):
            assert (np.abs(exact - at(made[name])) <= made[name].rest + 1e-13).all(), name
            low = made[name].lowered()
            assert (at(low) - low.rest <= exact + 1e-13).all() and (low.rest < 1e-14).all()


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_polynomial_is_below_the_hessian_on_the_ball(case: Any, order: int) -> None:
    obj = _problem(*case)
    size = obj.num_params
    rng = np.random.default_rng(1123)
    centre = 0.7 * rng.standard_normal(size)
    rests = []
    for radius in (0.02, 0.01):
        found = _expansion(obj, ph.Ball(centre, radius).bind(obj), order)
        residual, squares, share = found.residual, found.squares, 0.3
        bent = 1.0 - (share if order == 3 else 2.0 * share)
        # The residual part's rest is of the fourth order, that of the squares of the sixth; or of the third and the fourth.
        rests.append((np.linalg.norm(residual.rest), np.linalg.norm(squares.rest)))
        for turn in range(60):
            delta, v = rng.standard_normal((2, size))
            delta *= radius * (1.0 if turn % 2 else rng.uniform()) / np.linalg.norm(delta)
            v /= np.linalg.norm(v)
            exact = float(v @ obj.hessian(centre + delta).to_dense() @ v)
            lower = _value(residual, delta, v) + _value(squares, delta, v, 1.0 - share, bent) + _cubic(found, delta, v)
            size_v = np.abs(v)
            lower -= size_v @ residual.rest @ size_v + size_v @ squares.rest @ size_v / share
            assert lower <= exact + 1e-12
    (r1, g1), (r2, g2) = rests
    least, squared = (15.0, 60.0) if order == 3 else (7.5, 15.0)
    assert least < r1 / r2 < 1.6 * least and (g1 == 0.0 or squared < g1 / g2 < 1.85 * squared)


# The logistic loss's squares are taken with the least bend of the ball, not with that at the point.
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("case", [case for case in CASES if case[2] != "logistic"])
def test_the_polynomial_is_taylors_where_the_outputs_do_not_move(case: Any, order: int) -> None:
    # What is left out of the squares is then of the fourth order, too, or of the third.
    obj = _problem(*case)
    rng = np.random.default_rng(1127)
    size = obj.num_params
    few = ph.Objective(obj.net, ph.Dataset(obj.data.X[:1], obj.data.y[:1]), loss=obj.loss)
    centre, delta = 0.7 * rng.standard_normal((2, size))
    values, vectors = np.linalg.eigh(few.gauss_newton(centre).to_dense())
    null = vectors[:, values < 1e-12 * values[-1]]
    v = null @ rng.standard_normal(null.shape[1])
    v /= np.linalg.norm(v)
    found = _expansion(few, ph.Ball(centre, 1e-5).bind(few), order)  # so small that activations are Taylor's, too
    errors = []
    for step in (0.04, 0.02):
        moved = step * delta / np.linalg.norm(delta)
        exact = float(v @ few.hessian(centre + moved).to_dense() @ v)
        ours = _value(found.residual, moved, v) + _value(found.squares, moved, v) + _cubic(found, moved, v)
        errors.append(abs(exact - ours))
    least = 10.0 if order == 3 else 5.0
    assert errors[1] < 1e-12 or least < errors[0] / errors[1] < 2.6 * least, errors


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_bound_is_below_every_hessian_of_the_ball(case: Any, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyhess.certify.taylor.polynomial_kind", lambda *_, **__: "second" if order == 2 else "third")
    obj = _problem(*case)
    rng = np.random.default_rng(1129)
    for radius in (1e-9, 1e-3, 0.1):
        region = ph.Ball(0.7 * rng.standard_normal(obj.num_params), radius).bind(obj)
        found = taylor_bound(obj, region, -np.inf, GO_ON)
        assert found is not None
        lowest = ph.search(obj, region, rng=1151, starts=4).psi_upper
        for _ in range(20):
            direction = rng.standard_normal(obj.num_params)
            theta = region.center + radius * direction / np.linalg.norm(direction)
            lowest = min(lowest, float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]))
        scale = np.linalg.norm(obj.hessian(region.center).to_dense(), 2)
        assert found.psi_lower <= lowest + 1e-12 * scale
        if radius < 1e-2:  # what the polynomial leaves out hardly counts yet
            assert found.psi_lower >= lowest - 0.02 * abs(lowest) - radius * 0.1 * scale


def test_what_branch_and_bound_proves_exactly_is_nearly_reached_on_small_balls() -> None:
    rng = np.random.default_rng(1153)
    obj = ph.Objective(ph.MLP([1, 2, 1], bias=False), ph.Dataset(rng.standard_normal((6, 1)), rng.standard_normal(6)))
    for turn in range(2):
        region = ph.Ball(rng.standard_normal(4), 0.02).bind(obj)
        exact = full_subdivision(obj, region).run(Limits(GO_ON, max_cells=800))
        found = taylor_bound(obj, region, -np.inf, GO_ON)
        witness = ph.search(obj, region, rng=1163, starts=8).psi_upper
        assert found is not None
        assert found.psi_lower <= witness and found.psi_lower >= exact - 0.02 * abs(exact), (turn, found.psi_lower, exact)


def test_what_is_taken_off_the_curvature_costs_less_than_its_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    obj, theta = trained_problem(1213, [1, 2, 2, 1])
    region = ph.Ball(theta, 0.15).bind(obj)
    ours = taylor_bound(obj, region, -np.inf, GO_ON)
    assert ours is not None and ours.multipliers is not None
    assert ours.multipliers.lowered.shape == (obj.data.num_samples, 4) and (ours.multipliers.lowered >= 0.0).all()
    # It counts among what makes a ball hopeless.
    rest = float(np.linalg.eigvalsh(_expansion(obj, region).residual.rest)[-1])
    assert taylor_hessian(obj.net, *_about(region), obj.data, obj.targets, obj.loss, 3, GO_ON, 1.01 * rest) is None
    monkeypatch.setattr(Forms, "lowered", lambda form: form)
    plain = taylor_bound(obj, region, -np.inf, GO_ON)
    assert plain is not None and plain.psi_lower < 1.1 * ours.psi_lower < 0.0


def test_outlying_data_are_left_out_where_that_is_better() -> None:
    rng = np.random.default_rng(1223)
    x = rng.standard_normal((12, 1))
    x[3] = 6.0
    obj = ph.Objective(ph.MLP([1, 2, 1]), ph.Dataset(x, np.tanh(x[:, 0]) + 0.1 * rng.standard_normal(12)))
    theta = trained(obj, rng)
    for radius in (1e-3, 0.15):
        region = ph.Ball(theta, radius).bind(obj)
        found = taylor_bound(obj, region, -np.inf, GO_ON)
        assert found is not None and found.multipliers is not None
        kept = found.multipliers.kept
        assert set(kept) <= {0.0, 1.0} and (radius > 0.1) == (kept[3] == 0.0), (radius, kept)
        assert found.psi_lower <= ph.search(obj, region, rng=1229, starts=8).psi_upper
        assert prove(obj, region, "taylor", found.psi_lower, multipliers=found.multipliers).proved
    none = taylor_hessian(obj.net, *_about(region), obj.data, obj.targets, obj.loss, 3, GO_ON, kept=np.zeros(12))
    assert none is not None and not none.squares.head.any() and not none.left_out.any()


def test_around_trained_weights_it_is_the_best_bound() -> None:
    for seed, widths in ((1217, [2, 2, 1]), (1181, [1, 2, 2, 1])):
        obj, theta = trained_problem(seed, widths)
        region = ph.Ball(theta, 0.03)
        witness = ph.search(obj, region, rng=1187, starts=8).psi_upper
        certificate = certify(obj, region)
        assert certificate.method == "taylor"
        assert witness < 0.0 and 1.2 * witness < certificate.psi_lower <= witness
        assert certificate.verify()


def test_wide_balls_are_given_up_early_and_the_rest_can_be_cancelled() -> None:
    obj, theta = trained_problem(1193, [2, 3, 1])
    found = taylor_bound(obj, ph.Ball(theta, 1.0).bind(obj), -1.0, GO_ON)
    assert found is not None and found.psi_lower == -np.inf and found.multipliers is None
    assert taylor_bound(obj, ph.Ball(theta, 0.1).bind(obj), -np.inf, np.ones(1, dtype=np.int32)) is None


def test_it_says_where_it_does_not_apply() -> None:
    obj, theta = trained_problem(1201, [2, 2, 1])
    with pytest.raises(ph.InputError, match="it needs a ball"):
        certify(obj, ph.Box(-1.0, 1.0), "taylor")
    rough = ph.Objective(ph.MLP([2, 2, 1], "relu"), obj.data)
    with pytest.raises(ph.InputError, match="smooth activations"):
        certify(rough, ph.Ball(theta, 0.1), "taylor")
    assert "taylor" not in certify(rough, ph.Ball(theta, 0.1)).table
    for loss in ("squared_error", "cross_entropy"):
        assert taylor_knows(ph.MLP([2, 2, 3]), loss, 10) and taylor_knows(ph.MLP([4, 8, 1]), loss, 10)
    kinds = [polynomial_kind(ph.MLP([2, 4, 4, 1]), "squared_error", count) for count in (100, 200)]
    assert kinds == ["third", "second"]  # too many for dense derivatives of the third order
    kinds = [polynomial_kind(ph.MLP([4, 8, 1]), loss, 10) for loss in ("squared_error", "logistic")]
    assert kinds == ["units", "second"] and polynomial_kind(ph.MLP([4, 8, 1]), "squared_error", 10, whole=False) == "second"
    assert polynomial_kind(ph.MLP([20, 3, 1]), "squared_error", 10) == "second"  # too many numbers in one unit
    assert slabs_know(ph.MLP([3, 4, 1]), "squared_error", 10) and not slabs_know(ph.MLP([4, 8, 1]), "squared_error", 10)
    kinds = [polynomial_kind(ph.MLP([4, units, 1]), "squared_error", 10) for units in (11, 12)]
    assert kinds == ["units", "pairs"]  # 67 and 73 parameters
    wide = ph.MLP([4, 54, 1])
    assert taylor_knows(ph.MLP([4, 53, 1]), "squared_error", 10) and not taylor_knows(wide, "squared_error", 10)
    data = ph.Dataset(np.ones((3, 4)), np.zeros(3))
    assert "taylor" not in certify(ph.Objective(wide, data), ph.Ball(0.0, 1e-3)).table
