"""Where negative curvature comes from: identical units switch the Gauss–Newton part off, and dead units bound lam* from below."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, ndtr, softmax

import pyhess as ph

SMOOTH = [("tanh", {}), ("gelu", {}), ("sigmoid", {}), ("softplus", {"beta": 3.0})]


def slopes_at_zero(activation: str) -> tuple[float, float]:
    """phi(0) != 0 and phi'(0)."""
    return {"tanh": (0.0, 1.0), "gelu": (0.0, 0.5), "sigmoid": (0.5, 0.25), "softplus": (np.log(2.0) / 3.0, 0.5)}[activation]


def unit_places(net: ph.MLP, layer: int, unit: int) -> np.ndarray:
    """Places in theta of a hidden unit's weights in, bias and weights out."""
    places = net.unpack(np.arange(net.num_params, dtype=float))
    (w, b), (w_next, _) = places[layer], places[layer + 1]
    parts = [w[unit], *([] if b is None else [b[unit : unit + 1]]), w_next[:, unit]]
    return np.concatenate(parts).astype(int)


def traced(obj: ph.Objective, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs and pre-activations of the last hidden layer, and residuals dl/df, by plain formulas."""
    phi = {
        "tanh": np.tanh,
        "gelu": lambda s: s * ndtr(s),
        "sigmoid": expit,
        "softplus": lambda s: np.logaddexp(0.0, 3.0 * s) / 3.0,
    }
    a, pre, entering = obj.data.X, [], []
    for number, (w, b) in enumerate(obj.net.unpack(theta)):
        entering.append(a)
        pre.append(a @ w.T + (0.0 if b is None else b))
        if number < obj.net.num_layers - 1:
            a = phi[obj.net.activations[number]](pre[-1])
    f = pre[-1]
    predicted = {"squared_error": f, "logistic": expit(f), "cross_entropy": softmax(f, axis=1)}[obj.loss]
    return entering[-2], pre[-2], predicted - obj.targets


@pytest.mark.parametrize(("activation", "options"), SMOOTH, ids=lambda value: str(value))
@pytest.mark.parametrize(
    ("widths", "loss", "parametrization"),
    [
        ([3, 4, 2], "squared_error", "standard"),
        ([3, 4, 3, 2], "cross_entropy", "ntk"),
        ([2, 3, 3, 3, 1], "logistic", "standard"),
    ],
)
def test_the_gauss_newton_part_vanishes_between_identical_units(
    problem: Any, widths: list[int], loss: str, parametrization: str, activation: str, options: Any
) -> None:
    obj = problem(widths, activation, loss, weighted=True, parametrization=parametrization, **options)
    rng = np.random.default_rng(41)
    for layer in range(len(widths) - 2):
        theta = rng.standard_normal(obj.num_params)
        first, second = (unit_places(obj.net, layer, unit) for unit in (0, 2))
        theta[second] = theta[first]
        v = np.zeros(obj.num_params)
        v[first] = rng.standard_normal(first.size)
        v[second] = -v[first]
        size = np.linalg.norm(obj.ggn_vp(theta, np.abs(v)))
        assert size > 1e-3 and np.linalg.norm(obj.ggn_vp(theta, v)) < 1e-13 * size
        # What is left there is indefinite or zero, because its block of the outgoing weights is zero: psi <= 0.
        hessian = obj.hessian(theta).to_dense()
        basis = np.zeros((obj.num_params, first.size))
        basis[first, np.arange(first.size)] = basis[second, np.arange(first.size)] = np.sqrt(0.5)
        basis[second] *= -1.0
        assert np.linalg.eigvalsh(basis.T @ hessian @ basis)[0] <= 1e-14
        assert np.linalg.eigvalsh(hessian)[0] <= 1e-14


def residual_block(obj: ph.Objective, theta: np.ndarray, unit: int) -> np.ndarray:
    """R_j = mean_i [(r_i . v_j) phi''(s_ij) x x', phi'(s_ij) x r_i'; ., 0] of one tanh unit, x with a one appended."""
    _, s, residual = traced(obj, theta)
    mass = obj.data.normalized_weights
    x = np.hstack([obj.data.X, np.ones((len(s), 1))])
    a = np.tanh(s[:, unit])
    out = obj.net.unpack(theta)[1][0][:, unit]
    block = np.zeros((x.shape[1] + out.size,) * 2)
    block[: x.shape[1], : x.shape[1]] = (x.T * (mass * (residual @ out) * -2.0 * a * (1.0 - a * a))) @ x
    cross = (x.T * (mass * (1.0 - a * a))) @ residual
    block[: x.shape[1], x.shape[1] :], block[x.shape[1] :, : x.shape[1]] = cross, cross.T
    return block


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_smallest_eigenvalues_lie_between_one_unit_and_two_identical_ones(problem: Any, loss: str) -> None:
    """min_j eigval_min(R_j) <= eigval_min(H) everywhere, and <= eigval_min(R_1) where units 1 and 2 agree."""
    obj = problem([2, 3, 2], "tanh", loss, weighted=True)
    box = ph.Box(-1.5, 1.5)
    best = ph.search(obj, box, rng=7).psi_upper
    first, second = (unit_places(obj.net, 0, unit) for unit in (0, 1))
    lowest_twin = 0.0
    for theta in box.sample(40, obj, rng=43):
        smallest = np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]
        blocks = [np.linalg.eigvalsh(residual_block(obj, theta, unit))[0] for unit in range(3)]
        assert min(blocks) <= 0.0 and min(blocks) <= smallest + 1e-13
        theta[second] = theta[first]
        smallest = np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]
        twin = np.linalg.eigvalsh(residual_block(obj, theta, 0))[0]
        assert smallest <= twin + 1e-13
        lowest_twin = min(lowest_twin, twin)
    assert best <= lowest_twin < 0.0


@pytest.mark.parametrize(("activation", "options"), SMOOTH, ids=lambda value: str(value))
@pytest.mark.parametrize(
    ("widths", "loss"), [([3, 4, 2], "squared_error"), ([3, 4, 1], "logistic"), ([3, 3, 4, 2], "cross_entropy")]
)
def test_dead_units_bound_the_threshold(problem: Any, widths: list[int], loss: str, activation: str, options: Any) -> None:
    """A unit with weights zero in and out, or two where phi(0) != 0: lam* >= |phi'(0)| norm2(mean_i a_i r_i')/2.

    The inputs a_i of the last hidden layer, with the one of its bias; in the first layer these are the data.
    """
    obj = problem(widths, activation, loss, weighted=True, **options)
    at_zero, slope = slopes_at_zero(activation)
    layer, box = len(widths) - 3, ph.Box(-1.0, 1.0)
    theta = box.sample(1, obj, rng=47)[0]
    dead = [unit_places(obj.net, layer, unit) for unit in (0, 1)]
    for places in dead if at_zero else dead[:1]:
        theta[places] = 0.0
    entering, _, residual = traced(obj, theta)
    entering = np.hstack([entering, np.ones((len(residual), 1))])
    bound = -slope * np.linalg.norm((entering.T * obj.data.normalized_weights) @ residual, 2)
    hessian = obj.hessian(theta).to_dense()
    assert bound < -0.01
    if at_zero:
        basis = np.zeros((obj.num_params, dead[0].size))
        basis[dead[0], np.arange(dead[0].size)], basis[dead[1], np.arange(dead[0].size)] = np.sqrt(0.5), -np.sqrt(0.5)
        seen = np.linalg.eigvalsh(basis.T @ hessian @ basis)[0]
    else:
        seen = np.linalg.eigvalsh(hessian[np.ix_(dead[0], dead[0])])[0]
    assert seen == pytest.approx(bound, rel=1e-12)  # attained within the dead unit's own coordinates
    assert np.linalg.eigvalsh(hessian)[0] <= bound + 1e-14
    assert ph.search(obj, box, rng=7, starts=8).lam_lower >= -bound / 2.0


def test_the_mean_residual_bounds_deep_networks(problem: Any) -> None:
    """At theta = 0 the pair (last weight, last hidden bias) alone asks for lam* >= |phi'(0)| |mean r_i|/2."""
    for activation, slope in (("tanh", 1.0), ("gelu", 0.5)):
        obj = problem([3, 4, 4, 4, 1], activation, "squared_error")
        mean = abs(float(obj.targets.mean()))
        hessian = obj.hessian(np.zeros(obj.num_params)).to_dense()
        bias = obj.net.layer_slices[2][1]
        assert bias is not None
        pair = [bias.start, obj.net.layer_slices[3][0].start]
        assert np.linalg.eigvalsh(hessian[np.ix_(pair, pair)])[0] == pytest.approx(-slope * mean, rel=1e-12)
        assert ph.search(obj, ph.Ball(radius=0.3), rng=7, starts=8).lam_lower >= slope * mean / 2.0
