"""The bound of small boxes that keeps the eigenvalue's curvature: valid, of third order, and what it makes possible."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import certify
from pyhess.certify.boxes import full_subdivision
from pyhess.certify.curvature import curved_bound
from pyhess.certify.eigen_kernel import eigenvectors, verified

Array = Any


def _symmetric(rng: np.random.Generator, size: int, order: int) -> Array:
    """A tensor that is the same in every order of its indices."""
    tensor = rng.standard_normal((size,) * order)
    orders = list(permutations(range(order)))
    return sum(tensor.transpose(one) for one in orders) / len(orders)


def _hessian(base: Array, slope: Array, bend: Array, delta: Array) -> Array:
    return base + np.tensordot(delta, slope, 1) + 0.5 * np.einsum("k,l,klij->ij", delta, delta, bend)


def _bound(base: Array, slope: Array, bend: Array, wrong: Array, h: Array, offset: Array, ball: float) -> float:
    sizes = np.abs(base) + np.tensordot(h, np.abs(slope), 1) + 0.5 * np.einsum("k,l,klij->ij", h, h, np.abs(bend))
    return float(curved_bound(base, slope, bend, wrong, sizes, h, offset, ball, -1e3))


def _points(rng: np.random.Generator, h: Array, offset: Array, ball: float, count: int) -> Array:
    """Changes in the box, vertices and places on the sphere among them, without those outside the ball."""
    some = np.concatenate([rng.uniform(-h, h, (count, len(h))), h * np.sign(rng.standard_normal((count, len(h))))])
    if ball <= 0.0:
        return some
    places = offset + some
    onto = np.clip(places * (ball / np.linalg.norm(places, axis=1))[:, None] - offset, -h, h)
    some = np.concatenate([some, onto])
    return some[np.linalg.norm(offset + some, axis=1) <= ball]


@pytest.mark.parametrize("kind", ["box", "inside", "edge"])
def test_no_matrix_of_the_model_is_below_the_bound(kind: str) -> None:
    rng = np.random.default_rng(2301)
    nearest = np.inf
    for turn in range(100):
        size = int(rng.integers(2, 7))
        base, slope, bend = (_symmetric(rng, size, order) for order in (2, 3, 4))
        # The smallest eigenvalue is far from the others, or near them.
        base -= float(rng.choice([0.05, 0.5, 2.0 + size])) * np.outer(*[np.linalg.eigh(base)[1][:, 0]] * 2)
        h = 10.0 ** rng.uniform(-4, -1) * rng.uniform(0.3, 1.0, size)
        wrong = np.abs(_symmetric(rng, size, 2)) * (0.0 if turn % 2 else h.max() ** 3)
        offset = rng.standard_normal(size)
        ball = {"box": 0.0, "inside": 10.0 * np.linalg.norm(offset), "edge": float(np.linalg.norm(offset))}[kind]
        if kind == "edge":
            # About half of the eigenvalues fall outwards, where the sphere is what stops them.
            ball += float(rng.uniform(-1.0, 1.0) * h.max())
        found = _bound(base, slope, bend, wrong, h, offset, ball)
        signs = np.sign(_symmetric(rng, size, 2))
        for delta in _points(rng, h, offset, ball, 40):
            worst = float(np.linalg.eigvalsh(_hessian(base, slope, bend, delta) + signs * wrong)[0])
            assert found <= worst
            nearest = min(nearest, worst - found)
    assert nearest < 1e-9


@pytest.mark.parametrize("ball", [False, True])
def test_the_error_is_of_third_order(ball: bool) -> None:
    """At a minimiser inside the box or on the sphere; a bound that leaves out the curvature is off by the square of the width."""
    rng = np.random.default_rng(2302)
    for size in (2, 3, 4):
        base, slope, bend = (_symmetric(rng, size, order) for order in (2, 3, 4))
        base -= (2.0 + size) * np.outer(*[np.linalg.eigh(base)[1][:, 0]] * 2)
        lowest, vectors = np.linalg.eigh(base)
        first = vectors[:, 0]
        offset, radius = np.zeros(size), 0.0
        # No slope, or one outwards, and so much curvature that there is a minimum.
        gradient = np.einsum("kij,i,j->k", slope, first, first)
        if ball:
            offset, radius = -gradient / np.linalg.norm(gradient), 1.0
        else:
            slope = slope - np.multiply.outer(gradient, np.outer(first, first))
        bend = bend + 60.0 * np.multiply.outer(np.eye(size), np.outer(first, first))
        errors = [
            lowest[0] - _bound(base, slope, bend, np.zeros((size, size)), np.full(size, width), offset, radius)
            for width in (4e-3, 2e-3, 1e-3)
        ]
        assert errors[0] > 7.0 * errors[1] and errors[1] > 7.0 * errors[2]
        assert errors[2] > 0.0 or size == 2


def test_eigenvectors_of_small_matrices() -> None:
    rng = np.random.default_rng(2303)
    for size in (1, 2, 4, 6):
        for scale in (1e-150, 1.0, 1e100):
            matrix = scale * _symmetric(rng, size, 2)
            values, turn = np.empty(size), np.empty((size, size))
            eigenvectors(matrix, values, turn)
            assert values[0] == values.min()
            np.testing.assert_allclose(turn.T @ turn, np.eye(size), atol=1e-14)
            np.testing.assert_allclose(turn.T @ matrix @ turn, np.diag(values), atol=1e-13 * scale)
            exact = np.linalg.eigvalsh(matrix)[0]
            found = verified(matrix, np.inf, np.empty((size, size)), np.empty((size, size)))
            assert exact - 1e-11 * scale <= found <= exact


@pytest.mark.parametrize("loss", ["squared_error", "logistic", "cross_entropy"])
def test_no_network_of_a_box_is_below_its_bound(loss: str) -> None:
    rng = np.random.default_rng(2304)
    activations = ("tanh", "sigmoid", "softplus", "gelu", "identity")
    for turn in range(20):
        outputs = 2 if loss == "cross_entropy" else 1
        widths = [[1, 1, outputs], [2, 1, outputs], [1, 1, 1, outputs]][turn % 3]
        net = ph.MLP(widths, activations[turn % 5], bias=turn % 3 == 0 and outputs == 1)
        x, size = rng.standard_normal((5, widths[0])), net.num_params
        y: Any = rng.standard_normal(5) if loss == "squared_error" else rng.integers(0, 2, 5)
        obj = ph.Objective(net, ph.Dataset(x, y), loss=loss)
        ball = turn % 2 == 0
        region = ph.Ball(0.0, 1.5) if ball else ph.Box(-1.5, 1.5)
        search = full_subdivision(obj, region.bind(obj))
        middle = rng.standard_normal((6, size))
        middle *= 1.5 * rng.choice([0.5, 1.0], (6, 1)) / np.linalg.norm(middle, axis=1, keepdims=True)
        half = 10.0 ** rng.uniform(-4, -1, (6, 1)) * rng.uniform(0.2, 1.0, (6, size))
        bounds = search.evaluated(middle - half, middle + half)
        for c, h, bound in zip(middle, half, bounds, strict=True):
            for delta in _points(rng, h, c, 1.5 if ball else 0.0, 10):
                matrix = obj.hessian(c + delta).to_dense()
                assert bound <= np.linalg.eigvalsh(matrix)[0] + 1e-13 * np.abs(matrix).sum()


@pytest.mark.parametrize(
    ("widths", "bias", "act", "loss", "region", "most"),
    [
        ([1, 1, 1], True, "identity", "squared_error", ph.Ball(0.0, 2.0), 2000),
        ([1, 1, 1], True, "softplus", "logistic", ph.Box(-2.0, 2.0), 5000),
        ([1, 1, 2], False, "tanh", "cross_entropy", ph.Ball(0.0, 1.0), 1000),
        ([1, 2, 1], False, "gelu", "squared_error", ph.Ball(0.0, 1.0), 10000),
    ],
)
def test_four_parameters_are_exact(widths: list[int], bias: bool, act: str, loss: str, region: Any, most: int) -> None:
    """Bounds of the second order alone need several times as many boxes."""
    rng = np.random.default_rng(2305)
    x = rng.standard_normal((5, widths[0]))
    y: Any = rng.standard_normal(5) if loss == "squared_error" else rng.integers(0, 2, 5)
    obj = ph.Objective(ph.MLP(widths, act, bias=bias), ph.Dataset(x, y), loss=loss)
    psi_upper = ph.search(obj, region, rng=7).psi_upper
    found = certify(obj, region, "full", psi_upper=psi_upper, time_limit=60.0)
    assert psi_upper - 4.1e-7 * abs(psi_upper) <= found.psi_lower <= psi_upper
    assert found.table["full"].cells <= most
