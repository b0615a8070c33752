"""PyTorch's linear layers and activations in a row. Nothing is imported: modules are known by their names."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, InputTypeError
from ..model import MLP

FloatArray = npt.NDArray[np.float64]

_ACTIVATIONS = {"Tanh": "tanh", "ReLU": "relu", "Softplus": "softplus", "Sigmoid": "sigmoid", "GELU": "gelu"}
#: What does nothing to a matrix of samples.
_NOTHING = ("Identity", "Flatten")
_ALLOWED = (
    "allowed are torch.nn.Linear and torch.nn.Sequential of Linear, Tanh, ReLU, Softplus, Sigmoid, GELU, Identity and Flatten. "
    "For others make an MLP of the same widths and pass torch.nn.utils.parameters_to_vector(module.parameters())"
)


def from_torch(module: Any) -> tuple[MLP, FloatArray]:
    """Return the network that a ``torch.nn.Sequential`` of linear layers and activations computes, and its parameters.

    Parameters
    ----------
    module : torch.nn.Sequential or torch.nn.Linear
        Linear layers with activations between them; sequences may be nested. Two linear layers in a row have the activation
        ``"identity"`` between them.

    Returns
    -------
    net : MLP
    theta : (P,) float64
        W1, b1, W2, b2, …, the order of ``torch.nn.utils.parameters_to_vector``.

    Raises
    ------
    InputError
        If the modules are no such network: an activation at an end, two of them in a row, biases in some layers alone, sizes
        that do not fit.
    InputTypeError
        If a module is of another kind.

    Notes
    -----
    The loss is not in the module: the squared error of pyhess is ½|f - y|² per datum, ``MSELoss`` is 2/K times its mean. A
    softmax at the end belongs to the loss ``"cross_entropy"``. ``Softplus`` of torch is the identity above its threshold, by
    default 20/beta, where it differs by less than 2.1e-9/beta.

    Examples
    --------
    >>> import pyhess as ph
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))  # doctest: +SKIP
    >>> net, theta = ph.from_torch(model)  # doctest: +SKIP
    """
    layers: list[tuple[FloatArray, FloatArray | None]] = []
    names: list[str] = []
    betas: list[float] = []
    between: tuple[str, float] | None = None
    for part in _in_a_row(module):
        kind = type(part).__name__
        if kind == "Linear":
            if layers:
                name, beta = between or ("identity", 1.0)
                names.append(name)
                betas.append(beta)
            between = None
            layers.append((_array(part.weight), None if part.bias is None else _array(part.bias)))
        elif between is not None or not layers:
            raise InputError(
                f"the module has {kind} where a linear layer has to come; allowed is one activation between two of them."
            )
        else:
            between = _activation(part)
    if not layers:
        raise InputError(f"the module has no linear layer; {_ALLOWED}.")
    if between is not None:
        raise InputError(
            f"the module ends in the activation {between[0]}; allowed are networks that end in a linear layer. Leave it out: "
            "sigmoids at the end belong to the loss 'logistic'."
        )
    biases = [bias is not None for _, bias in layers]
    if len(set(biases)) > 1:
        raise InputError("some of the linear layers have biases and others none; allowed are networks with all or none of them.")
    for number, ((first, _), (second, _)) in enumerate(pairwise(layers), start=1):
        if second.shape[1] != first.shape[0]:
            raise InputError(f"linear layer {number} has {first.shape[0]} outputs and the next {second.shape[1]} inputs.")
    widths = [layers[0][0].shape[1], *(weight.shape[0] for weight, _ in layers)]
    net = MLP(widths, names or "tanh", beta=betas or 1.0, bias=biases[0])
    return net, net.pack(layers)


def _in_a_row(module: Any) -> Iterator[Any]:
    """Linear layers and activations, in order."""
    kind = type(module).__name__
    if type(module).__module__.split(".")[0] != "torch":
        raise InputTypeError(f"module is a {kind}; {_ALLOWED}.")
    if kind == "Sequential":
        for part in module:
            yield from _in_a_row(part)
    elif kind == "Linear" or kind in _ACTIVATIONS:
        yield module
    elif kind in ("Softmax", "LogSoftmax"):
        raise InputTypeError(f"module is a {kind}; leave it out: it belongs to the loss 'cross_entropy'.")
    elif kind not in _NOTHING:
        raise InputTypeError(f"module is a {kind}; {_ALLOWED}.")


def _activation(part: Any) -> tuple[str, float]:
    kind = type(part).__name__
    if kind == "GELU" and part.approximate != "none":
        raise InputError(f"GELU has approximate={part.approximate!r}; allowed is 'none', the exact function.")
    return _ACTIVATIONS[kind], float(part.beta) if kind == "Softplus" else 1.0


def _array(tensor: Any) -> FloatArray:
    return np.array(tensor.detach().cpu().double().numpy())
