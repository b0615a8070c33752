"""Problems whose threshold is known in closed form, and fakes of the parts next door."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyhess as ph

FOUR_X = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 1.0]])
FOUR_Y = np.array([1.0, -1.0, 0.5, 2.0])


@dataclass(frozen=True)
class Exact:
    """A problem and its psi = inf of the smallest Hessian eigenvalue."""

    name: str
    obj: ph.Objective
    region: ph.Box | ph.Ball
    psi: float


def linear_net(*widths: int, bias: bool = False) -> ph.MLP:
    return ph.MLP(list(widths), activation="identity", bias=bias)


def single(x: float, y: float, loss: str = "squared_error") -> ph.Objective:
    return ph.Objective(linear_net(1, 1, 1), ph.Dataset(np.array([[x]]), np.array([y])), loss=loss)


def sigmoid(s: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-s))


def maximum(function: Callable[[float], float], start: float, stop: float, points: int = 121) -> float:
    """Largest value on an interval: a grid, then a golden-section search around the best grid point."""
    grid = np.linspace(start, stop, points)
    best = grid[int(np.argmax([function(t) for t in grid]))]
    low, high = best - (grid[1] - grid[0]), best + (grid[1] - grid[0])
    shrink = (math.sqrt(5.0) - 1.0) / 2.0
    for _ in range(45):
        left, right = high - shrink * (high - low), low + shrink * (high - low)
        low, high = (low, right) if function(left) > function(right) else (left, high)
    return function(0.5 * (low + high))


def maximum_over_circle(function: Callable[[float], float]) -> float:
    """Largest value over angles."""
    return maximum(function, 0.0, 2.0 * math.pi)


def norm_over_ball(a: Any, d: Any, radius: float) -> float:
    """max |a b + d| over |b| <= radius: (mu - a'a) b = a'd with mu above the spectrum and |b| = radius."""
    values, vectors = np.linalg.eigh(a.T @ a)
    g = vectors.T @ (a.T @ d)
    low, high = values[-1], values[-1] + float(np.linalg.norm(g)) / radius
    for _ in range(200):
        mu = 0.5 * (low + high)
        low, high = (mu, high) if np.linalg.norm(g / (mu - values)) > radius else (low, mu)
    return float(np.linalg.norm(a @ (vectors @ (g / (high - values))) + d))


def unit(angle: float) -> Any:
    return np.array([math.cos(angle), math.sin(angle)])


def two_parameter_cases() -> list[Exact]:
    """v w x with one datum: psi attained where w = -+v, with the eigenvector (1, +-1)/sqrt 2."""
    cases = []
    for x, y, radius in ((1.0, 1.0, 1.5), (0.7, -0.4, 2.0)):
        psi = -(x**2 * radius**2 / 2 + abs(x * y))
        cases.append(Exact(f"B1 x={x}", single(x, y), ph.Ball(0.0, radius), psi))
    for x, y in ((1.0, 1.0), (0.7, -0.4)):
        cases.append(Exact(f"B2 x={x}", single(x, y), ph.Box(-1.3, 1.3), -(x**2 * 1.3**2 + abs(x * y))))
    for x, radius in ((1.0, 1.5), (2.0, 1.0)):
        psi = -x * sigmoid(x * radius**2 / 2)
        cases.append(Exact(f"B3 x={x}", single(x, 1.0, "logistic"), ph.Ball(0.0, radius), psi))
    for x in (1.0, 2.0):
        psi = -x * sigmoid(x * 1.3**2)
        cases.append(Exact(f"B4 x={x}", single(x, 1.0, "logistic"), ph.Box(-1.3, 1.3), psi))
    return cases


def deep_linear_cases() -> list[Exact]:
    """Two-layer linear nets: psi = -max |gradient of the linear model's loss| over the maps that the region reaches."""
    n = len(FOUR_Y)
    s, c = FOUR_X.T @ FOUR_X / n, FOUR_X.T @ FOUR_Y / n
    data = ph.Dataset(FOUR_X, FOUR_Y)
    cases = []
    for hidden, radius in ((2, 1.5), (5, 1.0), (3, 3.0)):
        psi = -norm_over_ball(s, -c, radius**2 / 2)
        cases.append(Exact(f"C1 R={radius}", ph.Objective(linear_net(2, hidden, 1), data), ph.Ball(0.0, radius), psi))
    psi = -max(np.linalg.norm(s @ np.array([a, b]) - c) for a in (-0.75, 0.75) for b in (-0.75, 0.75))
    cases.append(Exact("C2", ph.Objective(linear_net(2, 3, 1), data), ph.Box(-0.5, 0.5), float(psi)))

    with_one = np.hstack([FOUR_X, np.ones((n, 1))])
    moments, mean, right = with_one.T @ with_one / n, with_one.mean(axis=0), with_one.T @ FOUR_Y / n

    def with_output_bias(offset: float) -> float:
        return norm_over_ball(moments, offset * mean - right, (1.5**2 - offset**2) / 2)

    psi = -maximum(with_output_bias, -1.4, 1.4, 15)
    cases.append(Exact("C3", ph.Objective(linear_net(2, 3, 1, bias=True), data), ph.Ball(0.0, 1.5), float(psi)))

    labels = np.array([1, 0, 1, 0])
    psi = -maximum_over_circle(lambda t: float(np.linalg.norm(FOUR_X.T @ (sigmoid(2.0 * (FOUR_X @ unit(t))) - labels)) / n))
    logistic = ph.Objective(linear_net(2, 3, 1), ph.Dataset(FOUR_X, labels), loss="logistic")
    cases.append(Exact("C4", logistic, ph.Ball(0.0, 2.0), psi))

    x = np.array([[1.2, -0.5]])
    norm = float(np.linalg.norm(x))
    psi = -math.sqrt(2.0) * norm * sigmoid(norm * 1.7**2 / math.sqrt(2.0))
    softmax = ph.Objective(linear_net(2, 4, 2), ph.Dataset(x, np.array([1])), loss="cross_entropy")
    cases.append(Exact("C5", softmax, ph.Ball(0.0, 1.7), psi))

    targets = np.column_stack([FOUR_Y, [0.5, 1.0, -1.0, 0.0]])
    corner = targets.T @ FOUR_X / n

    def rank_one(left: float) -> float:
        return maximum_over_circle(lambda t: float(np.linalg.norm(1.6**2 / 2 * np.outer(unit(left), s @ unit(t)) - corner, 2)))

    psi = -maximum(rank_one, 0.0, math.pi, 15)
    two_outputs = ph.Objective(linear_net(2, 4, 2), ph.Dataset(FOUR_X, targets))
    cases.append(Exact("C6", two_outputs, ph.Ball(0.0, 1.6), float(psi)))
    return cases


@pytest.fixture(scope="session")
def two_parameter_problems() -> list[Exact]:
    return two_parameter_cases()


@pytest.fixture(scope="session")
def deep_linear_problems() -> list[Exact]:
    return deep_linear_cases()


def make_objective(
    widths: list[int],
    activation: Any,
    loss: str,
    *,
    samples: int = 9,
    seed: int = 23,
    weighted: bool = False,
    scale: float = 1.0,
    **net: Any,
) -> ph.Objective:
    """A small random problem."""
    rng = np.random.default_rng(seed)
    x = scale * rng.standard_normal((samples, widths[0]))
    if loss == "squared_error":
        y = rng.standard_normal((samples, widths[-1]))
    elif loss == "logistic":
        y = rng.integers(0, 2, samples)
    else:
        y = rng.integers(0, widths[-1], samples)
    weights = rng.random(samples) if weighted else None
    return ph.Objective(ph.MLP(widths, activation, **net), ph.Dataset(x, y, weights), loss=loss)


@pytest.fixture(scope="session")
def problem() -> Callable[..., ph.Objective]:
    """The factory of small random problems."""
    return make_objective


def rewrite(path: Path, target: Path | None = None, **edits: Any) -> Path:
    """Rewrite a file with other entries: arrays by name, description entries by dotted name; plain NumPy, not pyhess."""
    with np.load(path) as content:
        arrays = dict(content)
    described = json.loads(str(arrays.pop("description")))
    for dotted, value in edits.items():
        name = dotted.replace("__", ".")
        if name in arrays and isinstance(value, np.ndarray):
            arrays[name] = value
            continue
        *parents, last = name.split(".")
        place = described
        for parent in parents:
            place = place[parent]
        place[last] = value
    target = path if target is None else target
    np.savez(target, description=np.array(json.dumps(described)), **arrays)
    return target


@pytest.fixture(scope="session")
def altered() -> Callable[..., Path]:
    """What rewrites a result file with other entries."""
    return rewrite


@pytest.fixture(scope="session")
def largest_norm() -> Callable[..., float]:
    """max |a b + d| over |b| <= radius."""
    return norm_over_ball
