"""Random problems for the certificates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import pyhess as ph
from pyhess.certify.reference_arithmetic import Doubles, using

ACTIVATIONS = ("tanh", "sigmoid", "softplus", "gelu", "identity")


@pytest.fixture
def long_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow check in long doubles where Arb is installed, too; Arb has tests of its own."""
    monkeypatch.setattr("pyhess.certify.reference_plan.find_spec", lambda _name: None)


@pytest.fixture
def doubles() -> Iterator[None]:
    """The slow check in doubles."""
    with using(Doubles()), np.errstate(all="ignore"):
        yield


@pytest.fixture
def few_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less cutting of balls: worse bounds, as valid, and faster tests."""
    monkeypatch.setattr("pyhess.certify.portfolio._MAX_CELLS", 9)


def small_objective(
    seed: int, count: int, widths: list[int], loss: str = "squared_error", activation: str = "tanh", **options: Any
) -> ph.Objective:
    """A network on so many standard normal data, with normal targets or random labels."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, widths[0]))
    y: Any = rng.standard_normal((count, widths[-1])) if loss == "squared_error" else rng.integers(0, max(2, widths[-1]), count)
    return ph.Objective(ph.MLP(widths, activation, **options), ph.Dataset(x, y), loss=loss)


def trained(obj: ph.Objective, rng: np.random.Generator) -> Any:
    """Where L-BFGS ends from random weights."""
    start = 0.5 * rng.standard_normal(obj.num_params)
    options = {"maxiter": 300}
    return minimize(lambda t: (obj.value(t), obj.gradient(t)), start, jac=True, method="L-BFGS-B", options=options).x


def trained_problem(seed: int, widths: list[int]) -> tuple[ph.Objective, Any]:
    """Twenty data of a single unit with noise, and weights trained on them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20, widths[0]))
    obj = ph.Objective(ph.MLP(widths), ph.Dataset(x, np.tanh(x @ rng.standard_normal(widths[0])) + 0.1 * rng.standard_normal(20)))
    return obj, trained(obj, rng)


def random_objective(rng: np.random.Generator, *, relu: bool = False, depth: int | None = None) -> ph.Objective:
    """A random small network, data set and loss; every option of the three appears."""
    hidden = int(rng.integers(1, 4)) if depth is None else depth
    loss = str(rng.choice(["squared_error", "cross_entropy", "logistic"]))
    outputs = {"logistic": 1, "cross_entropy": int(rng.integers(2, 4))}.get(loss, int(rng.integers(1, 4)))
    widths = [int(rng.integers(1, 4)), *(int(rng.integers(1, 5)) for _ in range(hidden)), outputs]
    names = ("relu", *ACTIVATIONS) if relu else ACTIVATIONS
    activations = [str(rng.choice(names)) for _ in range(hidden)]
    if relu:
        activations[int(rng.integers(0, hidden))] = "relu"
    net = ph.MLP(
        widths,
        activations,
        beta=float(rng.choice([0.5, 1.0, 4.0])),
        bias=bool(rng.integers(0, 2)),
        parametrization=str(rng.choice(["standard", "ntk"])),
    )
    samples = int(rng.integers(1, 12))
    x = rng.standard_normal((samples, widths[0])) * float(rng.choice([0.1, 1.0, 3.0]))
    y: Any
    if loss == "squared_error":
        y = rng.standard_normal((samples, outputs)) * float(rng.choice([0.1, 1.0, 10.0]))
    elif loss == "logistic":
        y = rng.integers(0, 2, samples)
    elif rng.random() < 0.5:
        y = rng.integers(0, outputs, samples)
    else:
        y = rng.dirichlet(np.ones(outputs), samples)
    weights = rng.random(samples) + 0.01 if rng.random() < 0.3 else None
    return ph.Objective(net, ph.Dataset(x, y, weights), loss=loss)


def random_region(rng: np.random.Generator, size: int) -> ph.Box | ph.Ball:
    """A box or a ball, centred at the origin or not, from tiny to large."""
    radius = float(10.0 ** rng.uniform(-3, 0.3))
    center = rng.standard_normal(size) * float(rng.choice([0.0, 0.3, 1.0]))
    if rng.random() < 0.5:
        return ph.Box.around(center, radius * rng.uniform(0.3, 1.0, size))
    return ph.Ball(center, radius)


def form_sizes(net: ph.MLP, v: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What the moment bound's forms of the datum x multiply: |V^1| |(x, 1)|, |V^2|, |c^2|, …, |(V^D, c^D)|."""
    sizes = []
    for layer, ((weight, bias), scale) in enumerate(zip(net.layer_slices, net.layer_scales, strict=True)):
        parts = [v[weight], v[bias] if bias is not None else np.zeros(0)]
        if bias is None or layer in (0, net.num_layers - 1):
            parts = [np.concatenate(parts)]
        sizes += [scale * float(np.linalg.norm(part)) for part in parts]
    sizes[0] *= float(np.linalg.norm(np.append(x, 1.0 if net.bias else 0.0)))
    return np.array(sizes)
