"""Exact values of two-layer linear networks against known values, the search and sampled Hessians."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify.linear_networks import exact_linear

X4 = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 1.0]])
Y4 = np.array([1.0, -1.0, 0.5, 2.0])


def check_against_search_and_samples(obj: ph.Objective, region: ph.Box | ph.Ball, found: Any, rng: np.random.Generator) -> None:
    searched = ph.search(obj, region, rng=5, starts=32).psi_upper
    assert found.psi_lower <= searched + 1e-9 * (1.0 + abs(searched))
    # The lower end of the search is near: a wrong formula would not be met.
    assert searched <= found.psi_upper + 2e-3 * abs(found.psi_upper) + 1e-9
    for theta in region.sample(4, rng=rng):
        assert found.psi_lower <= np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0] + 1e-9


@pytest.mark.parametrize(
    ("width", "bias", "targets", "region", "psi"),
    [
        (2, False, Y4, ph.Ball(radius=1.5), -1.8181092385),
        (5, False, Y4, ph.Ball(radius=1.0), -0.8862898841),
        (3, False, Y4, ph.Ball(radius=3.0), -6.8765058589),
        (3, False, Y4, ph.Box(-0.5, 0.5), -1.4265890263),
        (2, True, Y4, ph.Ball(radius=1.5), -3.5352768053),
        (2, False, np.column_stack([Y4, [0.5, 1.0, -1.0, 0.0]]), ph.Ball(radius=1.6), -2.2077217702),
    ],
)
def test_known_values(width: int, bias: bool, targets: np.ndarray, region: ph.Box | ph.Ball, psi: float) -> None:
    outputs = 1 if targets.ndim == 1 else targets.shape[1]
    obj = ph.Objective(ph.MLP([2, width, outputs], "identity", bias=bias), ph.Dataset(X4, targets))
    found = exact_linear(obj, region)
    assert found is not None
    assert found.psi_lower <= psi + 6e-11 and psi - 6e-11 <= found.psi_upper
    assert found.psi_upper - found.psi_lower <= 1e-6 * abs(psi)


def test_between_the_search_and_every_sample() -> None:
    rng = np.random.default_rng(71)
    for trial in range(12):
        outputs = int(rng.integers(1, 3))
        net = ph.MLP(
            [int(rng.integers(1, 4)), int(rng.integers(2, 4)), outputs], "identity", bias=bool(trial % 2),
            parametrization=str(rng.choice(["standard", "ntk"])),
        )  # fmt: skip
        n = int(rng.integers(1, 8))
        weights = rng.random(n) + 0.1 if trial % 3 == 0 else None
        data = ph.Dataset(rng.standard_normal((n, net.widths[0])), rng.standard_normal((n, outputs)), weights)
        obj = ph.Objective(net, data)
        region: ph.Region
        if trial % 4 < 2:
            region = ph.Ball(radius=float(10.0 ** rng.uniform(-1, 0.5))).bind(obj)
        else:
            low, high = _equal_units(rng, net)
            region = ph.Box(low, high)
        found = exact_linear(obj, region)
        assert found is not None and found.psi_lower <= found.psi_upper
        assert found.psi_upper - found.psi_lower <= 1e-5 * abs(found.psi_lower) + 1e-12
        check_against_search_and_samples(obj, region, found, rng)


def _equal_units(rng: np.random.Generator, net: ph.MLP) -> tuple[np.ndarray, np.ndarray]:
    """A box, not centred, that is the same for all hidden units."""
    ends = []
    for _ in range(2):
        (w, out) = net.widths[:2], net.widths[2]
        u, b, v, c = rng.uniform(-1, 1, w[0]), rng.uniform(-1, 1), rng.uniform(-1, 1, out), rng.uniform(-1, 1, out)
        layers = [
            (np.tile(u, (w[1], 1)), np.full(w[1], b) if net.bias else None),
            (np.tile(v[:, None], w[1]), c if net.bias else None),
        ]
        ends.append(net.pack(layers))
    return np.minimum(*ends), np.maximum(*ends)


@pytest.mark.parametrize(
    ("x", "y", "loss", "region", "psi"),
    [
        (1.0, 1.0, "squared_error", ph.Ball(radius=1.5), -2.125),
        (0.7, -0.4, "squared_error", ph.Ball(radius=2.0), -1.26),
        (1.0, 1.0, "squared_error", ph.Box(-1.3, 1.3), -2.69),
        (0.7, -0.4, "squared_error", ph.Box(-1.3, 1.3), -1.1081),
        (1.0, 1, "logistic", ph.Ball(radius=1.5), -0.7549149869),
        (2.0, 1, "logistic", ph.Ball(radius=1.0), -1.4621171573),
        (1.0, 1, "logistic", ph.Box(-1.3, 1.3), -0.8442241599),
        (2.0, 1, "logistic", ph.Box(-1.3, 1.3), -1.9341472104),
    ],
)
def test_known_values_of_a_single_unit(x: float, y: float, loss: str, region: ph.Box | ph.Ball, psi: float) -> None:
    obj = ph.Objective(ph.MLP([1, 1, 1], "identity", bias=False), ph.Dataset([[x]], [y]), loss=loss)
    found = exact_linear(obj, region)
    assert found is not None
    assert found.psi_lower <= psi + 6e-11 and psi - 6e-11 <= found.psi_upper
    assert found.psi_upper - found.psi_lower <= 1e-12


def test_known_values_of_the_logistic_loss_and_two_classes() -> None:
    logistic = ph.Objective(ph.MLP([2, 3, 1], "identity", bias=False), ph.Dataset(X4, [1, 0, 1, 0]), loss="logistic")
    classes = ph.Objective(ph.MLP([2, 3, 2], "identity", bias=False), ph.Dataset([[1.2, -0.5]], [0]), loss="cross_entropy")
    for obj, region, psi in ((logistic, ph.Ball(radius=2.0), -0.8112278473), (classes, ph.Ball(radius=1.7), -1.7179040639)):
        found = exact_linear(obj, region)
        assert found is not None
        assert found.psi_lower <= psi + 6e-11 and psi - 6e-11 <= found.psi_upper
        assert found.psi_upper - found.psi_lower <= 1e-6 * abs(psi)
        whole = ph.lambda_threshold(obj, region, rng=7)
        assert whole.status == "exact" and whole.certificate is not None and whole.certificate.method == "exact"
        assert "grad F" in whole.certificate.statement


def convex_problem(rng: np.random.Generator, *, box: bool) -> tuple[ph.Objective, ph.Box | ph.Ball]:
    """A linear network with the logistic loss or two classes, soft ones and weights among them."""
    loss = str(rng.choice(["logistic", "cross_entropy"]))
    outputs, n = (1 if loss == "logistic" else 2), int(rng.integers(1, 8))
    net = ph.MLP(
        [int(rng.integers(1, 4)), int(rng.integers(2, 5)), outputs], "identity", bias=bool(rng.integers(0, 2)),
        parametrization=str(rng.choice(["standard", "ntk"])),
    )  # fmt: skip
    x = rng.standard_normal((n, net.widths[0])) * float(rng.choice([0.3, 1.0, 3.0]))
    if rng.random() < 0.2:
        x[:] = x[0]
    y = rng.dirichlet(np.ones(2), n) if outputs == 2 and rng.random() < 0.5 else rng.integers(0, 2, n)
    obj = ph.Objective(net, ph.Dataset(x, y, rng.random(n) + 0.1 if rng.random() < 0.5 else None), loss=loss)
    if not box:
        return obj, ph.Ball(radius=float(10.0 ** rng.uniform(-1, 0.8)))
    high = []
    u, b, v, c = rng.random(net.widths[0]) * 2.0, rng.random(), rng.standard_normal(outputs), rng.standard_normal(outputs)
    for incoming, outgoing, offset in ((u, v - 0.3, c - 0.2), (-u, v - 0.9, c - 0.5)):
        layers = [
            (np.tile(incoming, (net.widths[1], 1)), np.full(net.widths[1], b if incoming is u else -b) if net.bias else None),
            (np.tile(outgoing[:, None], net.widths[1]), offset if net.bias else None),
        ]
        high.append(net.pack(layers))
    return obj, ph.Box(high[1], high[0])


@pytest.mark.parametrize("box", [False, True])
def test_convex_losses_between_the_search_and_every_sample(box: bool) -> None:
    rng = np.random.default_rng(73)
    known = 0
    for _ in range(14):
        obj, region = convex_problem(rng, box=box)
        region = region.bind(obj)
        found = exact_linear(obj, region)
        if found is None:
            continue
        known += 1
        assert found.psi_lower <= found.psi_upper <= 0.0
        assert found.psi_upper - found.psi_lower <= 1e-6 * abs(found.psi_lower) + 1e-11
        check_against_search_and_samples(obj, region, found, rng)
    assert known >= 12


def test_the_largest_gradient_against_a_grid() -> None:
    """Three inputs, logistic: |mean (p - y) x| over fine grids of the sphere and of a box's faces."""
    rng = np.random.default_rng(79)
    x, y = rng.standard_normal((9, 3)) * 2.0, rng.integers(0, 2, 9)
    obj = ph.Objective(ph.MLP([3, 2, 1], "identity", bias=False), ph.Dataset(x, y), loss="logistic")
    heights, angles = np.linspace(-1.0, 1.0, 401), np.linspace(0.0, 2.0 * np.pi, 801)
    around = np.sqrt(1.0 - heights[:, None] ** 2)
    sphere = np.stack(np.broadcast_arrays(around * np.cos(angles), around * np.sin(angles), heights[:, None]), -1).reshape(-1, 3)
    plane = np.stack(np.meshgrid(*[np.linspace(-1.0, 1.0, 301)] * 2), -1).reshape(-1, 2)
    faces = np.concatenate([np.insert(plane, k, side, axis=1) for k in range(3) for side in (-1.0, 1.0)])
    for region, beta in ((ph.Ball(radius=2.5), 0.5 * 2.5**2 * sphere), (ph.Box(-0.7, 0.7), 2.0 * 0.7**2 * faces)):
        found = exact_linear(obj, region)
        assert found is not None
        gradient = (1.0 / (1.0 + np.exp(-(beta @ x.T))) - y) @ x / 9.0
        largest = float(np.sqrt((gradient**2).sum(axis=1)).max())
        assert found.psi_lower <= -largest + 1e-12 and -largest <= found.psi_upper + 1e-3 * largest


def test_saturated_and_tiny_problems_of_the_logistic_loss() -> None:
    net = ph.MLP([2, 2, 1], "identity")
    for scale, radius in ((1e-310, 1.0), (1e-8, 1e-12), (1.0, 1e-12), (1.0, 40.0), (1e8, 1.0)):
        obj = ph.Objective(net, ph.Dataset(X4 * scale, [1, 0, 1, 0]), loss="logistic")
        found = exact_linear(obj, ph.Ball(radius=radius))
        if found is None:
            continue
        for theta in ph.Ball(radius=radius).bind(obj).sample(20, rng=3):
            assert found.psi_lower <= np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0] + 1e-13 * max(1.0, scale**2)


def test_other_problems_are_left_alone() -> None:
    data = ph.Dataset(X4, Y4)
    classes = ph.Dataset(X4, np.array([0, 1, 2, 0]))
    ball = ph.Ball(radius=1.0)
    assert exact_linear(ph.Objective(ph.MLP([2, 1, 1], "identity"), data), ball) is None  # one unit: no twin
    assert exact_linear(ph.Objective(ph.MLP([2, 3, 1], "tanh"), data), ball) is None
    assert exact_linear(ph.Objective(ph.MLP([2, 3, 3, 1], "identity"), data), ball) is None
    assert exact_linear(ph.Objective(ph.MLP([2, 3, 3], "identity"), classes, loss="cross_entropy"), ball) is None
    labels = ph.Objective(ph.MLP([2, 2, 1], "identity", bias=False), ph.Dataset(X4, [0, 1, 1, 0]), loss="logistic")
    assert exact_linear(labels, ph.Ball(np.full(6, 0.1), 1.0)) is None
    assert exact_linear(labels, ph.Box(-0.5, 1.0)) is None  # what v w reaches is not convex
    assert exact_linear(labels, ph.Box(-np.ones(6), np.array([1.0, 1.0, 1.0, 2.0, 1.0, 1.0]))) is None
    obj = ph.Objective(ph.MLP([2, 2, 1], "identity", bias=False), data)
    assert exact_linear(obj, ph.Ball(np.full(6, 0.1), 1.0)) is None
    assert exact_linear(obj, ph.Box(-np.ones(6), np.array([1.0, 1.0, 1.0, 2.0, 1.0, 1.0]))) is None
