"""The network, the loss and the containers that all PyTorch peers share."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..cases import Array, Problem, split

_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}
_MODULES = {"tanh": nn.Tanh, "relu": nn.ReLU}


class HalfSquaredError(nn.MSELoss):
    """Mean over the data of half the squared distance; PyTorch's own MSELoss averages over outputs too."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss."""
        return 0.5 * (outputs - targets).square().sum(dim=1).mean()


def loss_module(problem: Problem) -> nn.Module:
    """The loss as a module."""
    return nn.CrossEntropyLoss() if problem.case.loss == "cross_entropy" else HalfSquaredError()


def data(problem: Problem) -> tuple[Tensor, Tensor]:
    """Inputs and targets; also sets PyTorch's threads."""
    torch.set_num_threads(problem.threads)
    return torch.from_numpy(problem.X), torch.from_numpy(problem.y)


def tensors(flat: Array, problem: Problem) -> list[Tensor]:
    """Flat (..., P) as a list of W1, b1, W2, b2 and so on."""
    return [torch.from_numpy(np.ascontiguousarray(part)) for pair in split(flat, problem.case.widths) for part in pair]


def flatten(parts: Any) -> Array:
    """The inverse of ``tensors``."""
    lead = parts[1].shape[:-1]
    return torch.cat([part.detach().reshape(*lead, -1) for part in parts], dim=-1).numpy()


def module(problem: Problem) -> nn.Sequential:
    """The network as a module with its parameters at ``problem.theta``."""
    widths = problem.case.widths
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), _MODULES[problem.case.activation]()]
    net = nn.Sequential(*layers[:-1]).to(getattr(torch, problem.dtype))
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), tensors(problem.theta, problem), strict=True):
            parameter.copy_(value)
    return net


def loss_function(problem: Problem) -> Any:
    """L(parameters) on lists of tensors."""
    X, y = data(problem)
    act, loss = _ACTIVATIONS[problem.case.activation], loss_module(problem)

    def value(parameters: list[Tensor]) -> Tensor:
        a = X
        for i in range(0, len(parameters), 2):
            a = nn.functional.linear(a, parameters[i], parameters[i + 1])
            if i + 2 < len(parameters):
                a = act(a)
        return loss(a, y)

    return value
