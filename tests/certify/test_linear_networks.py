"""Exact values of two-layer linear networks against known values, the search and sampled Hessians."""

from __future__ import annotations

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify.linear_networks import exact_linear

X4 = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 1.0]])
Y4 = np.array([1.0, -1.0, 0.5, 2.0])


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
        searched = ph.search(obj, region, rng=5, starts=32).psi_upper
        assert found.psi_lower <= searched + 1e-9 * (1.0 + abs(searched))
        # The lower end of the search is near: a wrong formula would not be met.
        assert searched <= found.psi_upper + 2e-3 * abs(found.psi_upper) + 1e-9
        for theta in region.sample(4, rng=rng):
            assert found.psi_lower <= np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0] + 1e-9


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


def test_other_problems_are_left_alone() -> None:
    data = ph.Dataset(X4, Y4)
    labels = ph.Dataset(X4, np.array([0, 1, 1, 0]))
    ball = ph.Ball(radius=1.0)
    assert exact_linear(ph.Objective(ph.MLP([2, 1, 1], "identity"), data), ball) is None  # one unit: no twin
    assert exact_linear(ph.Objective(ph.MLP([2, 3, 1], "tanh"), data), ball) is None
    assert exact_linear(ph.Objective(ph.MLP([2, 3, 3, 1], "identity"), data), ball) is None
    assert exact_linear(ph.Objective(ph.MLP([2, 3, 1], "identity"), labels, loss="logistic"), ball) is None
    obj = ph.Objective(ph.MLP([2, 2, 1], "identity", bias=False), data)
    assert exact_linear(obj, ph.Ball(np.full(6, 0.1), 1.0)) is None
    assert exact_linear(obj, ph.Box(-np.ones(6), np.array([1.0, 1.0, 1.0, 2.0, 1.0, 1.0]))) is None
