"""Every product against automatic differentiation: 1e-12 in float64 and 5e-6 in float32, norm-wise.

Parameters, vectors, inputs and real targets are numbers that float32 holds exactly, so one reference serves both dtypes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import pyhess as ph

TOLERANCE = {"float64": 1e-12, "float32": 5e-6}
ACTIVATIONS = ("tanh", "relu", "softplus", "sigmoid", "gelu", "identity")
LOSSES = ("squared_error", "cross_entropy", "logistic")


@dataclass(frozen=True)
class Case:
    net: ph.MLP
    data: ph.Dataset
    loss: str
    theta: Any
    v: Any

    def objective(self, dtype: str = "float64") -> ph.Objective:
        return ph.Objective(self.net, self.data, self.loss, dtype)


def single(array: Any) -> Any:
    """The nearest float32 numbers, as float64."""
    return np.asarray(array, dtype=np.float32).astype(np.float64)


def distance_to_kinks(net: ph.MLP, theta: Any, x: Any) -> Any:
    """The smallest |pre-activation| of a ReLU unit, for every datum (N,)."""
    functions: dict[str, Callable[[Any, float], Any]] = {
        "tanh": lambda s, b: np.tanh(s),
        "relu": lambda s, b: np.maximum(s, 0.0),
        "softplus": lambda s, b: np.logaddexp(0.0, b * s) / b,
        "sigmoid": lambda s, b: 1.0 / (1.0 + np.exp(-s)),
        "gelu": lambda s, b: s / (1.0 + np.exp(-1.702 * s)),  # near enough to tell which data to leave out
        "identity": lambda s, b: s,
    }
    a, nearest = x, np.full(len(x), np.inf)
    for layer, (weight, bias) in enumerate(net.unpack(theta)[:-1]):
        s = (a @ weight.T + (0.0 if bias is None else bias)) * net.layer_scales[layer]
        if net.activations[layer] == "relu":
            nearest = np.minimum(nearest, np.abs(s).min(axis=1))
        a = functions[net.activations[layer]](s, net.betas[layer])
    return nearest


def make_case(rng: np.random.Generator, net: ph.MLP, loss: str, n: int, *, rows: bool = False, weighted: bool = False) -> Case:
    outputs = net.widths[-1]
    x = single(rng.standard_normal((n, net.widths[0])))
    if loss == "squared_error":
        y = single(rng.standard_normal((n, outputs)))
    elif loss == "logistic":
        y = rng.integers(0, 2, n)
    else:
        y = rng.dirichlet(np.full(outputs, 0.7), n) if rows else rng.integers(0, outputs, n)
    theta = net.init(rng)
    for _, bias in net.layer_slices:
        if bias is not None:
            theta[bias] = 0.4 * rng.standard_normal(bias.stop - bias.start)
    theta = single(theta)
    w = rng.exponential(size=n) * (rng.random(n) < 0.9) + 1e-3 if weighted else np.ones(n)
    if "relu" in net.activations:
        # On which side of a kink a datum lies must not depend on the last digit of float32.
        away = distance_to_kinks(net, theta, x) > 1e-5
        w = np.where(away, w, 0.0) if away.any() else w
    weights = None if not weighted and w.all() else w
    return Case(net, ph.Dataset(x, y, weights), loss, theta, single(rng.standard_normal(net.num_params)))


#: Widths, activations, beta, loss, data; every loss, every activation, 0 to 4 hidden layers, widths 1 to 300, N 1 to 5,000.
LARGE: dict[str, tuple[list[int], Any, Any, str, int, dict[str, Any]]] = {
    "linear-softmax": ([300, 5], "tanh", 1.0, "cross_entropy", 5000, {}),
    "wide": ([10, 300, 2], "softplus", 3.0, "squared_error", 5000, {"weighted": True}),
    "widest": ([300, 300, 300, 10], "gelu", 1.0, "cross_entropy", 500, {"rows": True}),
    "deepest": ([40, 300, 150, 80, 120, 1], ["tanh", "relu", "sigmoid", "gelu"], 1.0, "logistic", 500, {"weighted": True}),
    "scalar-in": ([1, 300, 1], "tanh", 1.0, "squared_error", 5000, {"bias": False}),
    "two-hidden": ([30, 100, 100, 1], "sigmoid", 1.0, "logistic", 2000, {"ntk": True}),
    "mixed": ([20, 50, 40, 30, 20, 3], ["gelu", "softplus", "relu", "tanh"], [1.0, 0.7, 1.0, 1.0], "squared_error", 3000, {}),
    "bottleneck": ([300, 1, 300], "sigmoid", 1.0, "squared_error", 1000, {}),
    "chain": ([5, 1, 1, 1, 1, 2], ["softplus", "identity", "tanh", "gelu"], 1.7, "cross_entropy", 5000, {"weighted": True}),
    "relu": ([2, 64, 64, 1], "relu", 1.0, "logistic", 4097, {"ntk": True}),
    "linear-deep": ([16, 200, 200, 4], "identity", 1.0, "cross_entropy", 513, {"bias": False}),
    "three-hidden": ([12, 33, 65, 129, 1], ["sigmoid", "gelu", "tanh"], 1.0, "squared_error", 1025, {"weighted": True}),
    "digits-like": ([64, 16, 10], "tanh", 1.0, "cross_entropy", 1797, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_networks_of_every_size(name: str, oracle: Any, errors_against: Callable[..., dict[str, float]]) -> None:
    widths, activation, beta, loss, n, options = LARGE[name]
    rng = np.random.default_rng([5, *map(ord, name)])
    scheme = "ntk" if options.get("ntk") else "standard"
    net = ph.MLP(widths, activation, beta=beta, bias=options.get("bias", True), parametrization=scheme)
    case = make_case(rng, net, loss, n, rows=options.get("rows", False), weighted=options.get("weighted", False))
    want = oracle.products(case.objective(), case.theta, case.v)
    for dtype, tolerance in TOLERANCE.items():
        errors = errors_against(case.objective(dtype), want, case.theta, case.v)
        assert max(errors.values()) <= tolerance, (dtype, errors)


def random_case(rng: np.random.Generator) -> Case:
    """Any network of up to five layers of up to eight units, with any number of data up to 5,000."""
    hidden = int(rng.integers(0, 5))
    loss = str(rng.choice(LOSSES))
    outputs = {"squared_error": rng.integers(1, 9), "cross_entropy": rng.integers(2, 9), "logistic": 1}[loss]
    widths = [*(int(width) for width in rng.integers(1, 9, hidden + 1)), int(outputs)]
    one = bool(rng.integers(2))
    activations = [str(rng.choice(ACTIVATIONS))] * hidden if one else [str(name) for name in rng.choice(ACTIVATIONS, hidden)]
    net = ph.MLP(
        widths,
        activations,
        beta=[float(np.exp(rng.uniform(np.log(0.4), np.log(8.0)))) for _ in range(hidden)],
        bias=bool(rng.integers(2)),
        parametrization=str(rng.choice(["standard", "ntk"])),
    )
    n = int(rng.choice([1, 2, 3, 5, 17, 31, 33, 100, 257, 600, 1025, 5000], p=[0.08] * 4 + [0.1] * 5 + [0.08, 0.06, 0.04]))
    if n >= 600 and rng.integers(2):  # around a boundary between blocks of rows
        block = make_case(rng, net, loss, 5000).objective().engine.problem.block_rows
        n = min(5000, int(rng.integers(1, 4)) * block + int(rng.integers(-1, 2)))
    return make_case(rng, net, loss, n, rows=bool(rng.integers(2)), weighted=bool(rng.integers(2)))


@pytest.mark.parametrize("group", range(6))
def test_random_networks(group: int, oracle: Any, errors_against: Callable[..., dict[str, float]]) -> None:
    for number in range(25):
        case = random_case(np.random.default_rng([2003, group, number]))
        want = oracle.small_products(case.objective(), case.theta, case.v)
        for dtype, tolerance in TOLERANCE.items():
            errors = errors_against(case.objective(dtype), want, case.theta, case.v)
            assert max(errors.values()) <= tolerance, (dtype, number, case.net, case.loss, case.data, errors)


def test_the_oracle_agrees_with_itself(oracle: Any) -> None:
    """The padded network is the same function as the plain one."""
    rng = np.random.default_rng(31)
    net = ph.MLP([3, 5, 8, 2], ["sigmoid", "gelu"], parametrization="ntk")
    case = make_case(rng, net, "cross_entropy", 300, rows=True, weighted=True)
    one = oracle.products(case.objective(), case.theta, case.v)
    two = oracle.small_products(case.objective(), case.theta, case.v)
    for name, value in one.items():
        assert np.linalg.norm(two[name] - value) <= 1e-13 * np.linalg.norm(value), name


def test_the_table_covers_every_kind_of_network() -> None:
    nets = list(LARGE.values())
    names = {name for _, activation, *_ in nets for name in ([activation] if isinstance(activation, str) else activation)}
    assert names == set(ACTIVATIONS)
    assert {loss for *_, loss, _, _ in nets} == set(LOSSES)
    assert {len(widths) - 2 for widths, *_ in nets} == {0, 1, 2, 3, 4}
    assert {min(min(widths) for widths, *_ in nets), max(max(widths) for widths, *_ in nets)} == {1, 300}
