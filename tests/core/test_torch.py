"""PyTorch as a second opinion, where it is installed: layout, value, gradient, Hessian product."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import pyhess as ph

torch = pytest.importorskip("torch")

CASES = [
    ([4, 6, 5, 3], "Tanh", "tanh", "cross_entropy"),
    ([3, 7, 2], "GELU", "gelu", "squared_error"),
    ([5, 4, 4, 1], "Sigmoid", "sigmoid", "logistic"),
    ([5, 8, 1], "ReLU", "relu", "logistic"),
]


@pytest.mark.parametrize(("widths", "module", "activation", "loss"), CASES)
def test_products(widths: list[int], module: str, activation: str, loss: str) -> None:
    rng = np.random.default_rng([83, *widths])
    layers: list[Any] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [torch.nn.Linear(fan_in, fan_out), getattr(torch.nn, module)()]
    model = torch.nn.Sequential(*layers[:-1]).double()
    theta = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    net, ours = ph.from_torch(model)
    assert net == ph.MLP(widths, activation=activation) and np.array_equal(ours, theta.numpy())
    x = torch.tensor(rng.standard_normal((30, widths[0])))
    y: Any = {
        "cross_entropy": lambda: torch.tensor(rng.integers(0, widths[-1], 30)),
        "squared_error": lambda: torch.tensor(rng.standard_normal((30, widths[-1]))),
        "logistic": lambda: torch.tensor(rng.integers(0, 2, 30)),
    }[loss]()

    def objective(flat: Any) -> Any:
        parameters, start = {}, 0
        for name, parameter in model.named_parameters():
            parameters[name] = flat[start : start + parameter.numel()].reshape(parameter.shape)
            start += parameter.numel()
        f = torch.func.functional_call(model, parameters, (x,))
        if loss == "cross_entropy":
            return torch.nn.functional.cross_entropy(f, y)
        if loss == "logistic":
            return torch.nn.functional.binary_cross_entropy_with_logits(f[:, 0], y.double())
        return 0.5 * ((f - y) ** 2).sum(1).mean()

    v = torch.tensor(rng.standard_normal(theta.numel()))
    obj = ph.Objective(ph.MLP(widths, activation), ph.Dataset(x.numpy(), y.numpy()), loss)
    theta.requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective(theta), theta, create_graph=True)
    (hvp,) = torch.autograd.grad(gradient @ v, theta)
    point, direction = theta.detach().numpy(), v.numpy()
    assert obj.value(point) == pytest.approx(objective(theta).item(), rel=1e-12)
    for got, want in ((obj.gradient(point), gradient.detach().numpy()), (obj.hvp(point, direction), hvp.numpy())):
        assert np.linalg.norm(got - want) <= 1e-12 * np.linalg.norm(want)
