"""The independent check of the Taylor bound unit by unit, for one hidden layer, makes what the one for all networks makes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import certify, prove
from pyhess.certify.reference_changes import Changes
from pyhess.certify.reference_cubic_matrix import cubic_term
from pyhess.certify.reference_cubic_ways import MOST_PARAMS, ways
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_one_layer import OneLayer, Sizes
from pyhess.certify.reference_one_layer_forms import one_layer_forms
from pyhess.certify.reference_one_layer_third import ThirdOrder, one_layer_term
from pyhess.certify.reference_ranges import activation
from pyhess.certify.taylor_multipliers import TaylorMultipliers
from pyhess.threshold import verify_file

from .conftest import trained
from .slow_one_layer_cases import CASES, TAU, by_units, cubic_part, on_the_rim, polynomial, problem, tails
from .slow_taylor_cases import Array, Case, forms, only, symmetric

pytestmark = pytest.mark.usefixtures("long_doubles")


@pytest.mark.parametrize("case", CASES)
def test_the_forms_are_those_of_any_network(case: Case) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2383)
    centre = 0.7 * rng.standard_normal(obj.num_params)
    for radius in (1e-9, 0.05, 2.0):
        lowered = 10.0 ** rng.uniform(-6.0, -1.0, (5, obj.net.widths[1]))
        kept = rng.uniform(0.0, 1.0, 5)
        *found, third = by_units(obj, centre, radius, lowered, kept)
        expected = forms(obj, centre, radius, lowered, kept)
        for form, other in zip(found, expected, strict=True):
            for name, given, right in (
                ("head", symmetric(form.head), symmetric(other.head)),
                ("half", form.half, other.half),
                ("tail", tails(form), np.concatenate([other.tail_rows(k) for k in range(obj.num_params)])),
            ):
                allowed = (1e-13 if name == "tail" else 1e-15) * np.abs(right).max()
                assert right.any() and np.abs(given - right).max() <= allowed, (name, radius)
        term, other_term = cubic_part(third, radius), cubic_term(expected[0], Changes.ball(radius), 1.0, TAU, np.inf)
        assert other_term is not None and term.floor == other_term.floor
        off = np.abs(term.squared - other_term.squared)
        assert (off <= 1e-13 * np.abs(other_term.squared).max()).all()
        lengths = np.sqrt(np.diag(term.squared))
        assert (term.blur >= 2.0**-48 * np.outer(lengths, lengths)).all()
        assert term.blur.max() <= 1e-12 * np.abs(term.squared).max()
        # Neither is always the smaller one, as the sizes are bounded in other ways.
        if radius > 1e-6:
            for form, other in zip(found, expected, strict=True):
                assert np.array_equal(*(x.rest > 1e-9 * x.rest.max() for x in (form, other)))
                ratio = float(form.rest.sum() / other.rest.sum())
                assert 0.3 < ratio < 1.5, (radius, ratio)


def _rests(obj: ph.Objective, layer: OneLayer, radius: float, lowered: Array, kept: Array) -> tuple[Array, Array]:
    """Those of the residual part and of the squares, from the formulas, one entry after the other."""
    size, mass = obj.num_params, obj.data.normalized_weights
    whole, squares = np.zeros((size, size)), np.zeros((size, size))
    kappa, weights = float(layer.kappa), np.asarray(layer.weights, dtype=np.float64)
    cube, square = 3.0 * np.sqrt(3.0) / 16.0, 2.0 / (3.0 * np.sqrt(3.0))
    for i, x in enumerate(np.asarray(layer.x, dtype=np.float64)):
        long = float(np.linalg.norm(x))
        f, g, h = (np.abs(series.c[:, i]).astype(np.float64) for series in (layer.value, layer.slope, layer.bend))
        ef, eg, eh = (series.off[i].astype(np.float64) for series in (layer.value, layer.slope, layer.bend))
        rho, beyond = radius * long, np.zeros(len(ef))
        for k, v in enumerate(np.abs(weights)):
            r0 = abs(float(layer.residual[i, k]))
            r1 = radius * np.sqrt(((v * f[1] * long) ** 2 + f[0] ** 2).sum() + kappa**2 * len(layer.biases[:1]))
            bent = v * f[2] * long**2
            r2 = (radius**2 / 2.0 * (bent + np.sqrt(bent**2 + (f[1] * long) ** 2))).max()
            r3 = (v * f[3] * rho**3 + square * f[2] * radius * rho**2).max()
            off = (v * ef).sum() + radius * np.linalg.norm(ef) + cube * radius * rho**3 * f[3].max()
            root = np.zeros(size)
            for j, places in enumerate(layer.places):
                at, end = places[: len(x)], places[len(x) + k]
                a, b = v[j] * h[2, j] * long**2, h[1, j] * long
                moving = (
                    v[j] * h[0, j],
                    radius * np.hypot(v[j] * h[1, j] * long, h[0, j]),
                    radius**2 / 2.0 * (a + np.hypot(a, b)),
                    v[j] * h[3, j] * rho**3 + square * h[2, j] * radius * rho**2,
                    (v[j] + radius) * eh[j] + cube * radius * rho**3 * h[3, j],
                )
                fixed = (*(g[p, j] * rho**p for p in range(4)), eg[j])
                lost = []
                for q0, q1, q2, q3, e in (moving, fixed):
                    beyond_third = r1 * q3 + r2 * (q2 + q3) + r3 * (q1 + q2 + q3)
                    lost.append(mass[i] * (beyond_third + off * (q0 + q1 + q2 + q3 + e) + (r0 + r1 + r2 + r3) * e))
                beyond[j] += lost[0]
                whole[at, end] += lost[1] * np.abs(x)
                whole[end, at] += lost[1] * np.abs(x)
                d3 = v[j] * g[3, j] * rho**3 + square * g[2, j] * radius * rho**2
                root[at] = (d3 + (v[j] + radius) * eg[j] + cube * radius * rho**3 * g[3, j]) * np.abs(x)
                root[end] = f[3, j] * rho**3 + ef[j]
            squares += mass[i] * kept[i] * np.outer(root, root)
        for j, places in enumerate(layer.places):
            at = places[: len(x)]
            whole[np.ix_(at, at)] += max(0.0, beyond[j] - lowered[i, j]) * np.outer(np.abs(x), np.abs(x))
    return whole, squares


@pytest.mark.parametrize("case", CASES)
def test_rests_are_those_of_the_formulas_and_what_is_rounded(case: Case) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2441)
    centre, radius = 0.7 * rng.standard_normal(obj.num_params), 1.0
    layer = OneLayer.of(Problem.of(obj), wide(centre), Changes.ball(radius), slice(0, 5), wide(np.ones(5)))
    kept = rng.uniform(0.1, 1.0, 5)
    whole = _rests(obj, layer, radius, np.zeros((5, obj.net.widths[1])), kept)[0]
    for share in (0.0, 0.7, 3.0):
        lowered = share * 10.0 ** rng.uniform(-2.0, 0.0, (5, obj.net.widths[1])) * whole.max()
        *found, _ = by_units(obj, centre, radius, lowered, kept)
        for form, expected in zip(found, _rests(obj, layer, radius, lowered, kept), strict=True):
            room = 1e-10 * expected.max()
            assert (form.rest >= (1.0 - 1e-13) * expected).all()
            assert (form.rest <= (1.0 + 1e-12) * expected + room).all(), share
    # All but the tail is rounded in long doubles, that and the third order in doubles.
    whole_form, squares, _ = by_units(obj, centre, 1e-9, np.zeros_like(lowered), kept)
    unit = float(np.finfo(np.longdouble).eps)
    assert (whole_form.rest >= 256.0 * unit * np.abs(symmetric(whole_form.head))).all()
    assert (whole_form.rest >= 256.0 * unit * np.abs(squares.head)).all()
    whole_form, squares, _ = by_units(obj, centre, radius, np.zeros_like(lowered), kept)
    size = obj.num_params
    for form in (whole_form, squares):
        tail = np.abs(tails(form)).reshape((size,) * 4).max(axis=(0, 2))
        assert (whole_form.rest >= 2.0**-46 * radius**2 * np.maximum(tail, tail.T) / 2.0).all()


@pytest.mark.parametrize("radius", [0.3, 2.0])
@pytest.mark.parametrize("case", CASES)
def test_rests_hold_in_the_ball(case: Case, radius: float) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2389)
    size, count = obj.num_params, obj.data.num_samples
    centre = 0.7 * rng.standard_normal(size)
    lowered = 10.0 ** rng.uniform(-6.0, 0.0, (count, obj.net.widths[1])) * radius**4
    whole, squares, third = by_units(obj, centre, radius)
    residual, nothing, own_third = by_units(obj, centre, radius, kept=np.zeros(count))
    low, _, low_third = by_units(obj, centre, radius, lowered, np.zeros(count))
    assert not nothing.head.any() and not nothing.rest.max() > 1e-290
    share = 0.0
    for delta in on_the_rim(rng, size, radius, 16):
        hessian, gauss = (x(centre + delta).to_dense() for x in (obj.hessian, obj.gauss_newton))
        remainder = polynomial(residual, delta, own_third)
        off, room = np.abs(hessian - gauss - remainder), 1e-12 * max(1.0, float(np.abs(remainder).max()))
        assert (off <= residual.rest + room).all()
        share = max(share, float((off / (residual.rest + room)).max()))
        for eta in (0.02, 1.0):
            left = gauss - (polynomial(whole, delta, third) - remainder) - (1.0 - eta) * polynomial(squares, delta)
            for v in (*np.linalg.eigh(left)[1].T, *rng.standard_normal((5, size))):
                assert v @ left @ v >= -np.abs(v) @ squares.rest @ np.abs(v) / eta - room * (v @ v)
        # What is taken off, and what the rest still has then.
        left = hessian - gauss - polynomial(low, delta, low_third)
        for v in (*np.linalg.eigh(left)[1].T, *rng.standard_normal((5, size))):
            assert v @ left @ v >= -np.abs(v) @ low.rest @ np.abs(v) - room * (v @ v)
    # Some entry comes so near to what is allowed that a hundredth of it would be too little; not in so large a ball.
    assert share > 0.01 or radius > 1.0, share


@pytest.mark.parametrize("case", CASES)
def test_rests_are_of_the_next_order(case: Case) -> None:
    obj = problem(case)
    centre = 0.7 * np.random.default_rng(2393).standard_normal(obj.num_params)
    wider, narrower = (by_units(obj, centre, radius)[:2] for radius in (0.04, 0.02))
    for form, half, least in zip(wider, narrower, (15.5, 62.0), strict=True):
        ratios = (form.rest / half.rest)[half.rest > 1e-2 * half.rest.max()]
        assert ratios.min() >= least and ratios.max() <= 2.0 * least


def test_products_leave_out_all_beyond_the_third_order() -> None:
    rng = np.random.default_rng(2437)
    p, q = (Sizes(tuple(wide(rng.uniform(0.1, 1.0, (4, 7)))), wide(rng.uniform(0.1, 1.0, 7))) for _ in range(2))
    orders = [sum(p.of[a] * q.of[order - a] for a in range(4) if 0 <= order - a < 4) for order in range(7)]
    everything = (sum(p.of) + p.off) * (sum(q.of) + q.off)
    for given, expected in (
        (p.all * q.all, everything),
        (p.left_out(q), everything - sum(orders[:4])),
        (p.highest(q), orders[2] + orders[3]),
    ):
        assert (given >= expected * (1.0 - 1e-17)).all() and (given <= expected * (1.0 + 1e-15)).all()


def test_sizes_of_one_unit_are_reached_and_those_of_several_hold() -> None:
    rng = np.random.default_rng(2399)
    radius = 0.8
    for case in CASES:
        obj = problem(case, 3)
        centre, form = rng.standard_normal(obj.num_params), Problem.of(obj)
        layer = OneLayer.of(form, wide(centre), Changes.ball(radius), slice(0, 3), wide(np.ones(3)))
        k = len(layer.weights)
        unit = on_the_rim(rng, 2, radius, 4000)
        b, t = unit.T[:, :, None, None]
        c, v = layer.bend.c[:, :, None], layer.weights
        sizes = layer.bend.moving(v, layer.radius, layer.length)
        t = t[..., None] * layer.length[:, None, None]
        b = b[..., None]
        orders = [v * c[0], v * c[1] * t + c[0] * b, v * c[2] * t**2 + c[1] * b * t, v * c[3] * t**3 + c[2] * b * t**2]
        for order, (found, size) in enumerate(zip(orders, sizes.of, strict=True)):
            most = np.abs(found).max(axis=0) if order else np.abs(found)
            assert (most <= size).all() and (most > (0.5 if order == 3 else 0.999) * size).all(), order
        beyond = np.abs(b * c[3] * t**3).max(axis=0) + (np.abs(v) + radius) * layer.bend.off[:, None]
        assert (beyond <= sizes.off).all() and (beyond >= 0.999 * sizes.off).all()
        # The residuals', over all units and the outputs' biases.
        deltas = on_the_rim(rng, obj.num_params, radius, 2000)
        own = deltas[:, layer.places]  # (s, j, D)
        inputs = layer.x.shape[1]
        t = np.einsum("sja,na->snj", own[..., :inputs], layer.x.astype(np.float64))[:, :, None]
        b = own[..., inputs:].swapaxes(1, 2)[:, None]
        c = layer.value.c[:, :, None]
        free = float(layer.kappa) * deltas[:, layer.biases][:, None] if len(layer.biases) else 0.0
        first = (v * c[1] * t + c[0] * b).sum(axis=-1) + free
        for found, size, least in (
            (first, layer.sizes.of[1], 0.5),
            ((v * c[2] * t**2 + c[1] * b * t).sum(axis=-1), layer.sizes.of[2], 0.1),
            ((v * c[3] * t**3 + c[2] * b * t**2).sum(axis=-1), layer.sizes.of[3], 0.05),
            ((b * c[3] * t**3).sum(axis=-1), layer.sizes.off, 0.0),
        ):
            most = np.abs(found).max(axis=0)
            assert (most <= size).all() and (most > least * size).all()
        # The function itself.
        theta = centre + deltas[:50]
        outputs = np.stack([_outputs(obj, point) for point in theta])
        known = (
            layer.residual
            + first[:50]
            + sum((v * c[p] * t[:50] ** p + c[p - 1] * b[:50] * t[:50] ** (p - 1)).sum(axis=-1) for p in (2, 3))
        )
        off = np.abs(outputs - np.asarray(obj.data.y).reshape(3, k) - known)
        assert (off <= layer.sizes.off + 1e-14).all() and off.max() > 0.01 * layer.sizes.off.max()


def _outputs(obj: ph.Objective, theta: Array) -> Array:
    net = obj.net
    (w, b), (v, c) = net.unpack(theta)
    k1, k2 = (1.0 / np.sqrt(width) if net.parametrization == "ntk" else 1.0 for width in net.widths[:2])
    s = k1 * (obj.data.X @ w.T + (0.0 if b is None else b))
    hidden = activation(net.activations[0], net.betas[0], 0, Range(wide(s))).lo.astype(np.float64)
    return k2 * (hidden @ v.T + (0.0 if c is None else c))


def _own_multipliers(obj: ph.Objective, centre: Array, radius: float, share: float) -> tuple[float, TaylorMultipliers]:
    """What some multiples of the identity prove, and these."""
    size, count = obj.num_params, obj.data.num_samples
    whole, squares, third = by_units(obj, centre, radius)
    norm = float(np.linalg.norm(cubic_part(third, radius).squared, 2)) ** 0.5
    tau = radius / max(norm, 1e-12)
    head, half = (getattr(whole, x) + (1.0 - share) * getattr(squares, x) for x in ("head", "half"))
    tail = (tails(whole) + (1.0 - share) * tails(squares)).astype(np.float64)
    flat = radius**2 * (tail - 0.5 * tau * cubic_part(third, radius).squared)
    into = radius * half.reshape(size * size, size).astype(np.float64)
    values, vectors = np.linalg.eigh(flat)
    turned = vectors.T @ into
    top = symmetric(head) - np.diag((whole.rest + squares.rest / share).sum(axis=1).astype(np.float64))
    found = []
    for lam in max(0.0, -values[0]) + np.geomspace(0.1, 10.0, 6) * (float(np.linalg.norm(into, 2)) + 1e-12):
        floor = lam + radius**4 / (2.0 * tau)
        schur = top.astype(np.float64) - floor * np.eye(size) - turned.T @ (turned / (values + lam)[:, None])
        found.append((float(np.linalg.eigvalsh(schur)[0]), lam))
    value, lam = max(found)
    nothing = np.zeros((count, obj.net.widths[1]))
    return value, TaylorMultipliers(lam * np.eye(size), np.zeros((size,) * 3), share, tau, np.ones(size), nothing, np.ones(count))


@pytest.mark.parametrize("case", [*CASES[:3], ([3, 7, 1], ["tanh"], "squared_error", "standard", True)])
def test_what_the_multipliers_give_is_proved_and_no_more(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2411)
    only(monkeypatch, "_unit_by_unit")
    large = obj.num_params > 30
    for radius in (0.05,) if large else (1e-9, 0.05, 0.4):
        ball = ph.Ball(0.7 * rng.standard_normal(obj.num_params), radius).bind(obj)
        value, multipliers = _own_multipliers(obj, ball.center, radius, 0.1 if radius > 1e-6 else 1e-7)
        proof = partial(prove, obj, ball, "taylor", multipliers=multipliers)
        assert proof(value - 1e-9 * abs(value)).proved and not proof(value + 1e-7 * abs(value)).proved
        lowest = min(float(np.linalg.eigvalsh(obj.hessian(x).to_dense())[0]) for x in (ball.center, *ball.sample(20, rng=rng)))
        assert value < lowest and (radius > 1e-6 or value > lowest - 1e-6)


def test_certificates_are_verified_unit_by_unit_and_nothing_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyhess.certify.taylor.polynomial_kind", lambda *_, **__: "third")
    rng = np.random.default_rng(2417)
    x = rng.standard_normal((12, 2))
    data = ph.Dataset(x, np.tanh(x[:, 0] - x[:, 1]) + 0.1 * rng.standard_normal(12))
    obj = ph.Objective(ph.MLP([2, 3, 1]), data)
    certificate = certify(obj, ph.Ball(trained(obj, rng), 0.01), "taylor")
    # The fast code's bounds of what the polynomials leave out may be others, so that only the other way proves all of it.
    assert verify_file(certificate.save(tmp_path / "c.npz"), time_limit=20.0).verdict == "verified"
    row = certificate.table["taylor"]
    assert row.multipliers is not None and not row.multipliers.by_units
    claim, above = (row.psi_lower + part * abs(row.psi_lower) for part in (-1e-4, 0.02))
    lower = replace(certificate, psi_lower=claim, table={"taylor": replace(row, psi_lower=claim)})
    proof = partial(prove, obj, certificate.region, "taylor", above, multipliers=row.multipliers)
    with monkeypatch.context() as patch:
        only(patch, "_unit_by_unit")
        found = verify_file(lower.save(tmp_path / "c.npz"), time_limit=20.0)
        assert found.verdict == "verified" and "of the third order" in found.checks[-1].detail, found.checks
        assert not proof().proved and "is less" in proof().detail
    assert not proof().proved and "is less" in proof().detail


def _no_multipliers(obj: ph.Objective, order: int) -> TaylorMultipliers:
    size, count, hidden = obj.num_params, obj.data.num_samples, sum(obj.net.widths[1:-1])
    tau, nothing = {2: None, 3: 1.0}[order], np.zeros((count, hidden))
    return TaylorMultipliers(np.eye(size), np.zeros((size,) * 3), 0.1, tau, np.ones(size), nothing, np.ones(count))


def test_the_way_is_chosen_by_time_and_memory() -> None:
    def named(widths: list[int], order: int = 3, axis: bool = False, loss: str = "squared_error") -> list[tuple[str, int]]:
        case: Case = (widths, ["tanh"] * (len(widths) - 2), "squared_error", "standard", True)
        obj = problem(case)
        if loss != "squared_error":
            obj = ph.Objective(obj.net, ph.Dataset(obj.data.X, np.array([0, 1, 0, 1, 1])), loss=loss)
        found = ways(Problem.of(obj), axis, _no_multipliers(obj, order))
        assert [way.seconds for way in found] == sorted(way.seconds for way in found)
        return [(getattr(way.proves, "func", way.proves).__name__, way.most) for way in found]

    units, any_network = ("_unit_by_unit", 100), ("_whatever_the_network", MOST_PARAMS[3])
    assert named([3, 6, 1]) == [units, any_network]
    assert named([10, 8, 1]) == [units] and named([10, 9, 1]) == [units]
    assert named([3, 6, 1], axis=True) == [any_network] == named([2, 2, 2, 1])
    assert named([3, 6, 1], loss="logistic") == [any_network]
    assert named([3, 6, 1], order=2) == [("_whatever_the_network", MOST_PARAMS[2])]
    # Two units have too many parameters.
    assert named([45, 2, 1]) == [any_network]
    obj = problem(([10, 9, 1], ["tanh"], "squared_error", "standard", True))
    given = _no_multipliers(obj, 3)
    found = prove(obj, ph.Ball(np.zeros(obj.num_params), 0.1), "taylor", -10.0, multipliers=given)
    assert not found.proved and "and 100 parameters" in found.detail
    late = prove(problem(CASES[0]), ph.Ball(np.zeros(9), 0.1), "taylor", -10.0, time_limit=1e-4)
    assert not late.proved


def test_no_time_is_no_form() -> None:
    obj = problem(CASES[0])
    third, nothing = ThirdOrder(Problem.of(obj)), wide(np.zeros((5, 2)))
    given = Problem.of(obj), wide(np.zeros(9)), Changes.ball(0.1), nothing, wide(np.ones(5))
    assert one_layer_forms(*given, 0.0, third.add) is None
    assert one_layer_forms(*given, np.inf, third.add) is not None
    assert one_layer_term(third, Changes.ball(0.1), 1.0, 0.0) is None


def test_some_data_at_a_time_are_all(monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem(CASES[2])
    centre = np.random.default_rng(2423).standard_normal(obj.num_params)
    *together, third = by_units(obj, centre, 0.2)
    monkeypatch.setattr("pyhess.certify.reference_one_layer_forms._NUMBERS", 1)
    *apart, other = by_units(obj, centre, 0.2)
    for one, two in zip(together, apart, strict=True):
        for x, y in ((one.head, two.head), (one.half, two.half), (tails(one), tails(two)), (one.rest, two.rest)):
            assert np.abs(x - y).max() <= 1e-14 * np.abs(x).max()
    x, y = cubic_part(third, 0.2).squared, cubic_part(other, 0.2).squared
    assert np.abs(x - y).max() <= 1e-14 * np.abs(x).max()
