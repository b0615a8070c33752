"""The independent check of certificates by units: what the polynomials leave out, shared between the units."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import eigh

import pyhess as ph
from pyhess.certify import Certificate, prove
from pyhess.certify.reference_changes import Changes
from pyhess.certify.reference_cubic_proof import why_not_proved
from pyhess.certify.reference_cubic_ways import ways
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import wide
from pyhess.certify.reference_one_layer import OneLayer, Series, Sizes
from pyhess.certify.reference_one_layer_rests import UnitRests, others, shared_left_out
from pyhess.certify.slab_multipliers import Slab
from pyhess.certify.taylor_multipliers import TaylorMultipliers
from pyhess.threshold import verify_file

from .conftest import trained, trained_problem
from .slow_one_layer_cases import CASES, by_units, on_the_rim, polynomial, problem
from .slow_taylor_cases import Array, Case, only, symmetric

pytestmark = pytest.mark.usefixtures("long_doubles")


def _layer(obj: ph.Objective, centre: Array, radius: float, kept: Array) -> OneLayer:
    return OneLayer.of(Problem.of(obj), wide(centre), Changes.ball(radius), slice(0, obj.data.num_samples), wide(kept))


def _left_out(r0: float, off: float, free: float, parts: Array, j: int, factor: Array, radius_of: Array) -> float:
    """Of r U_j from the sizes (3, H) of the units' parts of r, and U's orders and rest (5,)."""
    rest = [l for l in range(parts.shape[1]) if l != j]  # noqa: E741 - as in the formulas
    o1 = np.sqrt(sum(parts[0, l] ** 2 for l in rest) + free**2)  # noqa: E741
    o2, o3 = (max((parts[x, l] for l in rest), default=0.0) for x in (1, 2))  # noqa: E741
    u0, u1, u2, u3, eu = factor
    found = 0.0
    for a in range(32):
        s, c = np.sqrt((a + 1) / 32), np.sqrt(1.0 - a / 32)
        r1, r2, r3 = c * o1 + s * parts[0, j], c**2 * o2 + s**2 * parts[1, j], c**3 * o3 + s**3 * parts[2, j]
        found = max(found, r1 * s**3 * u3 + r2 * (s**2 * u2 + s**3 * u3) + r3 * (s * u1 + s**2 * u2 + s**3 * u3))
    return float(found + off * (u0 + u1 + u2 + u3 + eu) + (r0 + radius_of.sum()) * eu)


def _rests(obj: ph.Objective, layer: OneLayer, given: tuple[float, Array, Array, Array], radius: float) -> Array:
    """What is taken off the head for eta, w, the lowered numbers and the kept parts, from the formulas."""
    share, weights, lowered, kept = given
    found = np.zeros((obj.num_params,) * 2)
    kappa, square, cube = float(layer.kappa), 2.0 / (3.0 * np.sqrt(3.0)), 3.0 * np.sqrt(3.0) / 16.0
    free, units = (radius * kappa if len(layer.biases) else 0.0), range(len(layer.places))
    for i, x in enumerate(np.asarray(layer.x, dtype=np.float64)):
        long = float(np.linalg.norm(x))
        rho, mass = radius * long, obj.data.normalized_weights[i]
        f, g, h = (np.abs(series.c[:, i]).astype(np.float64) for series in (layer.value, layer.slope, layer.bend))
        ef, eg, eh = (series.off[i].astype(np.float64) for series in (layer.value, layer.slope, layer.bend))

        def moving(v: float, c: Array, e: float, rho: float = rho, long: float = long) -> Array:
            bent = v * c[2] * long**2
            return np.array([
                v * c[0],
                radius * np.hypot(v * c[1] * long, c[0]),
                radius**2 / 2.0 * (bent + np.hypot(bent, c[1] * long)),
                v * c[3] * rho**3 + square * c[2] * radius * rho**2,
                (v + radius) * e + cube * radius * rho**3 * c[3],
            ])  # fmt: skip

        beyond = -lowered[i]
        for k, v in enumerate(np.abs(np.asarray(layer.weights, dtype=np.float64))):
            parts = np.array([moving(v[j], f[:, j], ef[j])[1:4] for j in units]).T
            whole = np.array([np.sqrt((parts[0] ** 2).sum() + free**2), parts[1].max(), parts[2].max()])
            off = float((v * ef).sum() + radius * np.linalg.norm(ef) + cube * radius * rho**3 * f[3].max())
            lost = partial(_left_out, abs(float(layer.residual[i, k])), off, free, parts, radius_of=whole)
            names = [(j, kind) for j in units for kind in ("sigma", "nu")]
            size, third, rest = {}, {}, {}
            for j, kind in names:
                at, end = layer.places[j, 0], layer.places[j, len(x) + k]
                size[j, kind] = weights[at if kind == "sigma" else end]
                d = moving(v[j], g[:, j], eg[j]) if kind == "sigma" else (0.0, 0.0, 0.0, f[3, j] * rho**3, ef[j])
                third[j, kind], rest[j, kind] = d[3], d[4]
            counted = dict.fromkeys(names, 0.0)
            for p, q in product(names, names):
                e = rest[p] * rest[q] + third[p] * rest[q] + rest[p] * third[q] + (third[p] * third[q] if p[0] == q[0] else 0.0)
                counted[q] += mass * kept[i] / share * e * size[p] / size[q]
            for j in units:
                beyond[j] += mass * lost(j=j, factor=moving(v[j], h[:, j], eh[j]))
                mixed = mass * lost(j=j, factor=np.array([*(g[p, j] * rho**p for p in range(4)), eg[j]]))
                counted[j, "sigma"] += mixed * size[j, "nu"] / size[j, "sigma"]
                counted[j, "nu"] += mixed * size[j, "sigma"] / size[j, "nu"]
                inputs, end = layer.places[j, : len(x)], layer.places[j, len(x) + k]
                found[np.ix_(inputs, inputs)] += counted[j, "sigma"] * np.outer(x, x)
                found[end, end] += counted[j, "nu"]
        for j in units:
            inputs = layer.places[j, : len(x)]
            found[np.ix_(inputs, inputs)] += max(0.0, beyond[j]) * np.outer(x, x)
    return found


@pytest.mark.parametrize("case", CASES)
def test_rests_are_those_of_the_formulas_and_the_others_are_roundings(case: Case) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2447)
    size, radius = obj.num_params, 1.0
    centre, kept = 0.7 * rng.standard_normal(size), rng.uniform(0.1, 1.0, 5)
    layer, nothing = _layer(obj, centre, radius, kept), np.zeros((5, obj.net.widths[1]))
    weights, most = 10.0 ** rng.uniform(-1.0, 1.0, size), 0.0
    for share, part in ((1.0, 0.0), (0.3, 0.7), (0.02, 3.0)):
        lowered = part * most * 10.0 ** rng.uniform(-2.0, 0.0, nothing.shape)
        given = share, weights, lowered, kept
        expected = _rests(obj, layer, given, radius)
        shared = UnitRests(Problem.of(obj), share, wide(weights))
        shared.add(layer, wide(lowered))
        head, sizes = wide(np.zeros((size, size))), wide(np.zeros((size, size)))
        shared.put(layer, head, sizes)
        assert expected.any() and (np.abs(-head - expected) <= 1e-12 * sizes).all()
        assert (np.diag(-head) >= (1.0 - 1e-13) * np.diag(expected)).all() and (sizes >= np.abs(head)).all()
        most = float(sizes.max())
        plain = by_units(obj, centre, radius, lowered, kept)
        found = by_units(obj, centre, radius, lowered, kept, UnitRests(Problem.of(obj), share, wide(weights)))
        for with_rests, without in zip(found[:2], plain[:2], strict=True):
            assert np.array_equal(with_rests.half, without.half)
        assert np.array_equal(found[1].head, plain[1].head) and found[1].rest.max() < 1e-290
        assert (np.abs(plain[0].head - found[0].head - expected) <= 1e-12 * (sizes + np.abs(plain[0].head))).all()
        # What they are rounded by: those of the other bounds but for what is left out, and of these numbers.
        unit = float(np.finfo(np.longdouble).eps)
        assert (found[0].rest >= 500.0 * unit * sizes).all() and (found[0].rest >= 256.0 * unit * np.abs(plain[0].head)).all()
        scale = sizes.max() + np.abs(plain[0].head).max() + plain[0].rest.max() + plain[1].rest.max()
        assert found[0].rest.max() <= 1e-10 * scale


@pytest.mark.parametrize("case", CASES)
def test_products_leave_out_no_more(case: Case) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2459)
    radius, size, used = 0.8, obj.num_params, 0.0
    layer = _layer(obj, 0.7 * rng.standard_normal(size), radius, np.ones(5))
    own = layer.value.moving(layer.weights, layer.radius, layer.length)
    other, inputs, c = others(layer, own), layer.x.shape[1], layer.value.c[:, :, None]
    deltas = on_the_rim(rng, size, radius, 3000)
    deltas[::2, layer.places] *= 10.0 ** rng.uniform(-2.0, 0.0, (1500, len(layer.places), 1))
    deltas *= (radius / np.linalg.norm(deltas, axis=1))[:, None]
    parts = deltas[:, layer.places]
    t = np.einsum("sja,na->snj", parts[..., :inputs], layer.x.astype(np.float64))[:, :, None]
    b = parts[..., inputs:].swapaxes(1, 2)[:, None]

    def moving(series: Series) -> list[Array]:
        c = series.c[:, :, None].astype(np.float64)
        return [layer.weights * c[p] * t**p + c[p - 1] * b * t ** (p - 1) for p in (1, 2, 3)]

    r = [part.sum(axis=-1)[..., None] for part in moving(layer.value)]
    if len(layer.biases):
        r[0] = r[0] + float(layer.kappa) * deltas[:, layer.biases][:, None, :, None]
    whole = replace(layer.sizes, off=0.0 * layer.sizes.off)[..., None]
    c = layer.slope.c[:, :, None].astype(np.float64)
    bend, slope = layer.bend.moving(layer.weights, layer.radius, layer.length), layer.slope.fixed(layer.rho)[:, None]
    for u, sizes in ((moving(layer.bend), bend), ([c[p] * t**p for p in (1, 2, 3)], slope)):
        exact = replace(sizes, off=0.0 * sizes.off)
        found = np.abs(r[0] * u[2] + r[1] * (u[1] + u[2]) + r[2] * (u[0] + u[1] + u[2])).max(axis=0)
        most = shared_left_out(whole, own, other, exact)
        assert (found <= most).all()
        used = max(used, float((found / most).max()))
        # Not more than with one unit's changes and the others' as large as all at once, but for the steps.
        assert (most <= (33.0 / 32.0) ** 3 * whole.left_out(exact)).all()
        if len(layer.places) > 2:
            assert (most <= 0.8 * whole.left_out(exact)).any()
    assert used > 0.2


def test_one_unit_alone_has_all_of_the_radius() -> None:
    rng = np.random.default_rng(2467)
    own, u = (Sizes(tuple(wide(rng.uniform(0.1, 1.0, (4, 7)))), wide(rng.uniform(0.1, 1.0, 7))) for _ in range(2))
    none = Sizes(tuple(wide(np.zeros((4, 7)))), wide(np.zeros(7)))
    assert np.allclose(shared_left_out(own, own, none, u).astype(float), own.left_out(u).astype(float), rtol=1e-15)


@pytest.mark.parametrize("radius", [0.05, 0.3, 4.0])
@pytest.mark.parametrize("case", [*CASES, ([2, 4, 2], ["tanh"], "squared_error", "standard", True)])
def test_no_hessian_of_the_ball_is_below_the_polynomial_less_the_rests(case: Case, radius: float) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2473)
    size, count = obj.num_params, obj.data.num_samples
    centre, used = 0.7 * rng.standard_normal(size), 0.0
    for share in (0.02, 0.4, 1.0):
        weights, kept = 10.0 ** rng.uniform(-1.0, 1.0, size), rng.choice([0.0, 0.5, 1.0], count, p=[0.1, 0.2, 0.7])
        lowered = 10.0 ** rng.uniform(-6.0, 0.0, (count, obj.net.widths[1])) * min(radius, 1.0) ** 4
        shared = UnitRests(Problem.of(obj), share, wide(weights))
        whole, squares, third = by_units(obj, centre, radius, lowered, kept, shared)
        # The same without what is taken off, and some more for directions in which it is nothing.
        bare = symmetric(by_units(obj, centre, radius, np.zeros_like(lowered), kept)[0].head - whole.head).astype(np.float64)
        floor = 1e-8 * np.trace(bare) * np.eye(size)
        for delta in on_the_rim(rng, size, radius, 12) * rng.choice([1.0, 0.6], (12, 1)):
            below = polynomial(whole, delta, third) + (1.0 - share) * polynomial(squares, delta)
            left = obj.hessian(centre + delta).to_dense() - below
            room = 1e-12 * max(1.0, float(np.abs(below).max()))
            for v in (*np.linalg.eigh(left)[1].T, *rng.standard_normal((5, size))):
                assert v @ left @ v >= -room * (v @ v)
            used = max(used, float(eigh(bare - left, bare + floor, eigvals_only=True)[-1]))
    # Some direction needs a good part of it in small balls.
    assert used > 0.01 or radius > 1.0, used


def _by_units(obj: ph.Objective, theta: Array, radius: float) -> Certificate:
    certificate = ph.certify(obj, ph.Ball(theta, radius), "taylor")
    multipliers = certificate.table["taylor"].multipliers
    assert isinstance(multipliers, TaylorMultipliers) and multipliers.by_units
    return certificate


def _two_outputs() -> tuple[ph.Objective, Array]:
    rng = np.random.default_rng(2477)
    x = rng.standard_normal((9, 2))
    y = np.tanh(x @ rng.standard_normal((2, 2))) + 0.1 * rng.standard_normal((9, 2))
    obj = ph.Objective(ph.MLP([2, 3, 2], bias=False), ph.Dataset(x, y))
    return obj, trained(obj, rng)


@pytest.mark.parametrize("widths", [[2, 3, 1], [3, 2, 1], [1, 4, 1], [2, 3, 2]])
def test_certificates_are_proved_as_they_are_and_nothing_above(
    widths: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj, theta = _two_outputs() if widths[-1] == 2 else trained_problem(2503, widths)
    for radius in (0.01, 0.3):
        certificate = _by_units(obj, theta, radius)
        row = certificate.table["taylor"]
        proof = partial(prove, obj, certificate.region, "taylor", multipliers=row.multipliers)
        with monkeypatch.context() as patch:
            only(patch, "_unit_by_unit")
            found = verify_file(certificate.save(tmp_path / "c.npz"), time_limit=20.0)
            assert found.verdict == "verified" and "of the third order" in found.checks[-1].detail, found.checks
            # The bounds are those of the fast code, and nothing but roundings is given away.
            for above in (0.02, 1e-4):
                refused = proof(row.psi_lower + above * abs(row.psi_lower))
                assert not refused.proved and "is less" in refused.detail
        with monkeypatch.context() as patch:
            only(patch, "_whatever_the_network")
            assert not proof(row.psi_lower).proved
        # Without the narrower bounds it is not proved.
        assert isinstance(row.multipliers, TaylorMultipliers)
        assert not proof(row.psi_lower, multipliers=replace(row.multipliers, by_units=False)).proved


@pytest.mark.slow
def test_certificates_of_more_parameters_than_others_may_have() -> None:
    rng = np.random.default_rng(2521)
    x = rng.standard_normal((10, 2))
    obj = ph.Objective(ph.MLP([2, 10, 1]), ph.Dataset(x, np.tanh(x[:, 0] - x[:, 1]) + 0.1 * rng.standard_normal(10)))
    certificate = _by_units(obj, trained(obj, rng), 0.05)
    assert obj.num_params > 40
    row = certificate.table["taylor"]
    proof = partial(prove, obj, certificate.region, "taylor", multipliers=row.multipliers, time_limit=60.0)
    assert proof(row.psi_lower).proved and not proof(row.psi_lower + 0.02 * abs(row.psi_lower)).proved


def test_multipliers_by_units_are_for_one_hidden_layer_in_a_ball() -> None:
    reason = "by units, which are for balls, one hidden layer, squared error, the third order"

    def multipliers(obj: ph.Objective) -> TaylorMultipliers:
        size, hidden = obj.num_params, sum(obj.net.widths[1:-1])
        nothing, kept = np.zeros((obj.data.num_samples, hidden)), np.ones(obj.data.num_samples)
        return TaylorMultipliers(np.eye(size), np.zeros((size,) * 3), 0.1, 1.0, np.ones(size), nothing, kept, by_units=True)

    names = ["tanh", "tanh"]
    one, two = (problem((w, names[: len(w) - 2], "squared_error", "standard", True)) for w in ([2, 2, 1], [2, 2, 1, 1]))
    logistic = ph.Objective(one.net, ph.Dataset(one.data.X, np.array([0, 1, 0, 1, 1])), loss="logistic")
    for obj, change in ((one, {"tau": None}), (two, {}), (logistic, {})):
        given = replace(multipliers(obj), **change)  # type: ignore[arg-type]
        found = prove(obj, ph.Ball(np.zeros(obj.num_params), 0.01), "taylor", -100.0, multipliers=given)
        assert not found.proved and reason in found.detail
    form, size = Problem.of(one), one.num_params
    assert prove(one, ph.Ball(np.zeros(size), 0.01), "taylor", -100.0, multipliers=multipliers(one)).proved
    # Nor in a slab.
    axis = np.zeros(size)
    axis[0] = 1.0
    changes = Changes(wide(0.005), wide(0.01), axis)
    slab = Slab(0.0, 1.0, np.eye(size), 1.0, multipliers(one))
    why = partial(why_not_proved, form, wide(np.zeros(size)), changes, 0.01, -100.0, deadline=np.inf)
    assert reason in str(why(slab)) and why(replace(slab, taylor=replace(slab.taylor, by_units=False))) is None
    assert len(ways(form, False, multipliers(one))) == 2 and not ways(form, True, multipliers(one))


def test_some_data_at_a_time_are_all(monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem(CASES[2])
    rng = np.random.default_rng(2531)
    centre, weights = rng.standard_normal(obj.num_params), wide(rng.uniform(0.5, 2.0, obj.num_params))
    form = Problem.of(obj)
    together = by_units(obj, centre, 0.2, shared=UnitRests(form, 0.1, weights))[0]
    monkeypatch.setattr("pyhess.certify.reference_one_layer_forms._NUMBERS", 1)
    apart = by_units(obj, centre, 0.2, shared=UnitRests(form, 0.1, weights))[0]
    for x, y in ((together.head, apart.head), (together.rest, apart.rest)):
        assert np.abs(x - y).max() <= 1e-14 * np.abs(x).max()
