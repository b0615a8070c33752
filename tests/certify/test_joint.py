"""The residual and the last hidden layer bounded together, against points of the region."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import Certification, joint, portfolio, propagate
from pyhess.certify.intervals import Interval
from pyhess.certify.joint import _product_bound
from pyhess.certify.moment import Parts, moment_bound, residual_forms
from pyhess.certify.propagate import whole_cell
from pyhess.certify.ranges import derivative_range
from pyhess.certify.spectral import eigval_min_bound, norm_bound

from .conftest import ACTIVATIONS, form_sizes, random_region

GO = np.zeros(1, dtype=np.int32)


def random_problem(rng: np.random.Generator) -> ph.Objective:
    """One output and the squared error."""
    hidden = int(rng.integers(1, 4))
    widths = [int(rng.integers(1, 4)), *(int(rng.integers(1, 5)) for _ in range(hidden)), 1]
    net = ph.MLP(
        widths,
        [str(rng.choice([*ACTIVATIONS, "tanh"])) for _ in range(hidden)],
        beta=float(rng.choice([0.5, 2.0])),
        bias=bool(rng.integers(0, 2)),
        parametrization=str(rng.choice(["standard", "ntk"])),
    )
    samples = int(rng.integers(1, 7))
    x = rng.standard_normal((samples, widths[0])) * float(rng.choice([0.3, 1.0, 3.0]))
    return ph.Objective(net, ph.Dataset(x, rng.standard_normal(samples) * float(rng.choice([0.0, 0.3, 3.0]))))


def points_of(region: Any, rng: np.random.Generator, count: int) -> list[Any]:
    """Inside, and on the boundary in random, sparse and corner directions."""
    center = region.center if isinstance(region, ph.Ball) else 0.5 * (region.low + region.high)
    found = list(region.sample(count, rng=rng))
    for _ in range(count):
        step = rng.standard_normal(center.size) * (rng.random(center.size) < rng.choice([0.2, 0.5, 1.0]))
        if rng.random() < 0.5:
            step = np.sign(step)
        found.append(region.project(center + float(rng.choice([1e-2, 1e2, 1e4])) * step))
    return found


def at_point(obj: ph.Objective, theta: Any) -> tuple[Any, ...]:
    """r (n,), v (m,), phi' and phi'' (n, m) of the last hidden layer, and the row norms of the weights below it."""
    net = obj.net
    a, rows, slope, bend, w = obj.data.X, None, None, None, None
    for layer, (weight, bias) in enumerate(net.layer_slices):
        if layer == net.num_layers - 1:
            rows = np.linalg.norm(w, axis=1)
        w = net.layer_scales[layer] * theta[weight].reshape(net.widths[layer + 1], -1)
        s = a @ w.T + (0.0 if bias is None else net.layer_scales[layer] * theta[bias])
        if layer < net.num_layers - 1:
            name, beta = net.activations[layer], net.betas[layer]
            a, slope, bend = (derivative_range(name, beta, order, Interval.point(s)).middle for order in range(3))
    return s[:, 0] - obj.targets[:, 0], w[0], slope, bend, rows


def test_contains_every_point() -> None:
    rng = np.random.default_rng(171)
    sharper = 0
    for _ in range(40):
        obj = random_problem(rng)
        region = random_region(rng, obj.num_params).bind(obj)
        cell = whole_cell(obj.net, region)
        bounds = propagate.propagate(cell, obj.data.X, obj.targets, obj.loss)
        last = bounds.joint
        assert last is not None
        for theta in points_of(region, rng, 15):
            r, v, slope, bend, rows = at_point(obj, theta)
            room = 1e-9 * (1.0 + np.abs(r).max() * (1.0 + np.abs(v).max()))
            turned, bent = r[:, None] * v * slope, r[:, None] * v * bend
            for enclosure, value in ((last.curved, bent), (last.delta, turned)):
                assert (enclosure.lo <= value + room).all() and (value - room <= enclosure.hi).all()
            assert (np.linalg.norm(turned, axis=1) <= last.delta_norm + room).all()
            assert (np.abs(r) * np.abs(slope).max(axis=1) <= last.peak + room).all()
            if not last.relative:  # else see test_shared
                wide = room * (1.0 + (rows**2).sum())
                assert ((np.abs(bent) * rows**2).sum(axis=1) <= last.bent + wide).all()
                assert (np.abs(r) * np.sqrt((slope**2 * rows**2).sum(axis=1)) <= last.steep + wide).all()
        sharper += bool((last.peak < 0.95 * bounds.delta_norm[-1] * bounds.slope[-1].magnitude.max(axis=1)).any())
    assert sharper >= 5


def test_product_bound_against_all_choices() -> None:
    rng = np.random.default_rng(172)
    for _ in range(200):
        pieces, units = int(rng.integers(1, 5)), int(rng.integers(1, 4))
        h, d = rng.random((pieces, 1, units)) * 3.0, rng.random((pieces, 1, units)) ** 2
        base, power = rng.random(1) * float(rng.choice([0.0, 1.0, 10.0])), float(rng.choice([1.0, 2.0]))
        choices = np.stack(np.meshgrid(*[np.arange(pieces)] * units, indexing="ij"), -1).reshape(-1, units)
        units_at = np.arange(units)
        exact = max((base[0] + h[c, 0, units_at].sum()) ** power * d[c, 0, units_at].sum() for c in choices)
        found = float(_product_bound(base, h, d, power)[0])
        apart = (base[0] + h.max(axis=0).sum()) ** power * d.max(axis=0).sum()
        assert exact <= found <= apart * (1.0 + 1e-12) + 1e-200
    # Three units whose h = q and d = (1 - q²)² cannot both be large: close to the joint maximum (2 + 3 q)² 3 (1 - q²)².
    q = np.linspace(0.0, 1.0, 400)
    h, d = (np.repeat(z[:, None, None], 3, axis=2) for z in (q, (1.0 - q**2) ** 2))
    exact = float(((2.0 + 3.0 * q) ** 2 * 3.0 * (1.0 - q**2) ** 2).max())
    assert exact <= float(_product_bound(np.array([2.0]), h, d, 2.0)[0]) <= 1.05 * exact < 0.4 * 25.0 * 3.0
    with np.errstate(over="ignore", invalid="ignore"):
        huge = _product_bound(np.array([1e200]), np.full((2, 1, 2), 1e180), np.full((2, 1, 2), 1e150), 2.0)
    assert huge[0] >= 1e300


@pytest.mark.parametrize("ball", [False, True])
def test_certificates_of_deep_networks_hold_at_the_worst_points_known(ball: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portfolio, "_MAX_CELLS", 9)
    rng = np.random.default_rng(173)
    for _ in range(5):
        obj = random_problem(rng)
        center = rng.standard_normal(obj.num_params) * float(rng.choice([0.0, 0.7]))
        radius = float(rng.choice([0.1, 0.5, 1.5]))
        region = ph.Ball(center, radius) if ball else ph.Box.around(center, radius)
        found = ph.search(obj, region, rng=7, starts=4).psi_upper
        certificate = Certification(obj, region.bind(obj)).roots().certificate()
        assert certificate.psi_lower <= found + 1e-9 * abs(found)


def test_tighter_than_the_products_of_suprema(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(174)
    x = rng.standard_normal((10, 2))
    obj = ph.Objective(ph.MLP([2, 3, 3, 1], "tanh"), ph.Dataset(x, np.sin(x[:, 0])))
    for region, gain in ((ph.Box(-1.0, 1.0), 0.85), (ph.Ball(radius=1.5), 0.93)):
        cell = whole_cell(obj.net, region.bind(obj))
        sharp = moment_bound(cell, obj.data, obj.targets, obj.loss, GO)
        with monkeypatch.context() as patch:
            patch.setattr(joint, "_UNITS", 0)
            plain = moment_bound(cell, obj.data, obj.targets, obj.loss, GO)
        assert sharp is not None and plain is not None
        assert gain * plain <= sharp < 0.0


def test_forms_hold_for_every_direction() -> None:
    rng = np.random.default_rng(175)
    for _ in range(25):
        obj = random_problem(rng)
        region = random_region(rng, obj.num_params).bind(obj)
        cell = whole_cell(obj.net, region)
        along = propagate.propagate(cell, obj.data.X, obj.targets, obj.loss)
        forms = sum(residual_forms(cell, along, Parts.of(obj.net, apart=True)))
        data = ph.Dataset(obj.data.X[:1], obj.targets[:1])
        single = ph.Objective(obj.net, data)
        for theta in points_of(region, rng, 4):
            residual = single.hessian(theta).to_dense() - single.gauss_newton(theta).to_dense()
            v = np.linalg.eigh(residual)[1][:, 0]
            t = form_sizes(obj.net, v, obj.data.X[0])
            low = float(v @ residual @ v)
            assert low >= -float(t @ forms[0] @ t) - 1e-9 * (1.0 + np.abs(residual).max())


def test_sizes_of_weights_and_biases_apart_are_tighter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(181)
    together = Parts.of
    for widths in ([2, 3, 3, 2], [2, 3, 3, 3, 1]):
        obj = ph.Objective(ph.MLP(widths), ph.Dataset(rng.standard_normal((10, 2)), rng.standard_normal((10, widths[-1]))))
        cell = whole_cell(obj.net, ph.Ball(radius=1.0).bind(obj))
        sharp = moment_bound(cell, obj.data, obj.targets, obj.loss, GO)
        with monkeypatch.context() as patch:
            patch.setattr(Parts, "of", lambda net, *, apart: together(net, apart=False))
            plain = moment_bound(cell, obj.data, obj.targets, obj.loss, GO)
        assert sharp is not None and plain is not None
        assert 0.98 * plain < sharp < 0.0


def test_first_layer_steep_and_curved_against_a_grid() -> None:
    rng = np.random.default_rng(177)
    for name in ACTIVATIONS:
        s, bar, steep = rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), rng.random(4)
        room = rng.random((4, 3))
        found = joint.steep_and_curved((name, 2.0), Interval(s, s + room), Interval(bar - 0.1, bar + 0.1), steep[:, None])
        assert found is not None
        largest = np.zeros(4)
        for share in np.linspace(0.0, 1.0, 301):
            slope, bend = (derivative_range(name, 2.0, order, Interval.point(s + share * room)).middle for order in (1, 2))
            sharp = np.maximum(-(bar - 0.1) * bend, np.maximum(-(bar + 0.1) * bend, 0.0))
            largest = np.maximum(largest, (steep[:, None] * slope**2 + sharp).max(axis=1))
        assert (largest <= found + 1e-12).all() and (found <= 1.2 * largest + 1e-12).all()


def test_large_matrices_are_bounded_by_few_products() -> None:
    rng = np.random.default_rng(176)
    a = rng.standard_normal((300, 400))
    exact = float(np.linalg.svd(a, compute_uv=False)[0])
    assert exact <= norm_bound(a) <= exact * (1.0 + 1e-6)
    symmetric = a @ a.T - 100.0 * np.eye(300)
    lowest = float(np.linalg.eigvalsh(symmetric)[0])
    assert lowest - 1e-5 * abs(lowest) <= eigval_min_bound(symmetric) <= lowest
    assert eigval_min_bound(np.zeros((300, 300))) <= 0.0
    assert eigval_min_bound(np.eye(300)) == pytest.approx(1.0, rel=1e-6)
