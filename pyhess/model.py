"""Dense networks: shapes, parameter layout, initialisation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import as_real, as_rng, choice, positive_float, positive_int
from .errors import InputError, InputTypeError

FloatArray = npt.NDArray[np.float64]
Layer = tuple[FloatArray, FloatArray | None]

ACTIVATIONS = ("tanh", "relu", "softplus", "sigmoid", "gelu", "identity")
PARAMETRIZATIONS = ("standard", "ntk")


def _per_layer(name: str, value: Any, count: int) -> list[Any]:
    """One value for every hidden layer, from one value or a list of them."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value] * count
    values = list(value)
    if len(values) != count:
        raise InputError(f"{name} has {len(values)} entries; allowed is one value, or one per hidden layer ({count}).")
    return values


class MLP:
    """A dense network s^l = κ_l (W^l a^{l-1} + b^l), a^l = phi_l(s^l), f = s^D.

    Parameters
    ----------
    widths : sequence of int
        [d_in, h_1, …, d_out]; two entries make a linear model.
    activation : str or sequence of str
        ``"tanh"``, ``"relu"``, ``"softplus"``, ``"sigmoid"``, ``"gelu"`` (exact, with erf) or ``"identity"``; one for all
        hidden layers or one for each.
    beta : float or sequence of float
        Sharpness of softplus, phi(s) = log(1 + exp(beta s)) / beta.
    bias : bool
        With biases b^l or without.
    parametrization : str
        ``"standard"``: κ_l = 1. ``"ntk"``: κ_l = 1/sqrt(fan-in), applied to the whole pre-activation, bias included.

    Notes
    -----
    Parameters are one flat vector theta (P,) in the order W1, b1, W2, b2, …, every W (out, in) row by row: the order of
    torch's ``parameters_to_vector``.

    Examples
    --------
    >>> import pyhess as ph
    >>> net = ph.MLP([64, 16, 10], activation="tanh")
    >>> net.num_params
    1210
    >>> [w.shape for w, b in net.unpack(net.init(rng=7))]
    [(16, 64), (10, 16)]
    """

    __slots__ = ("activations", "betas", "bias", "layer_scales", "layer_slices", "num_params", "parametrization", "widths")

    widths: tuple[int, ...]
    activations: tuple[str, ...]
    betas: tuple[float, ...]
    bias: bool
    parametrization: str
    layer_scales: tuple[float, ...]
    layer_slices: tuple[tuple[slice, slice | None], ...]
    num_params: int

    def __init__(
        self,
        widths: Sequence[int],
        activation: str | Sequence[str] = "tanh",
        *,
        beta: float | Sequence[float] = 1.0,
        bias: bool = True,
        parametrization: str = "standard",
    ) -> None:
        if isinstance(widths, str) or not isinstance(widths, Iterable):
            raise InputTypeError(f"widths is {widths!r}; pass a list [d_in, h_1, …, d_out] of integers.")
        sizes = tuple(positive_int(f"widths[{i}]", w) for i, w in enumerate(widths))
        if len(sizes) < 2:
            raise InputError(f"widths is {list(sizes)}; at least two entries [d_in, d_out] are needed.")
        hidden = len(sizes) - 2
        names = tuple(choice("activation", a, ACTIVATIONS) for a in _per_layer("activation", activation, hidden))
        if hidden == 0 and isinstance(activation, str):
            choice("activation", activation, ACTIVATIONS)
        given = [positive_float("beta", b) for b in _per_layer("beta", beta, hidden)]
        if not isinstance(bias, bool | np.bool_):
            raise InputTypeError(f"bias is {bias!r}; pass True or False.")
        choice("parametrization", parametrization, PARAMETRIZATIONS)
        slices: list[tuple[slice, slice | None]] = []
        start = 0
        for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
            weight = slice(start, start + fan_in * fan_out)
            start = weight.stop
            offset = slice(start, start + fan_out) if bias else None
            start += fan_out if bias else 0
            slices.append((weight, offset))
        values = {
            "widths": sizes,
            "activations": names,
            "betas": tuple(b if a == "softplus" else 1.0 for a, b in zip(names, given, strict=True)),
            "bias": bool(bias),
            "parametrization": parametrization,
            "layer_scales": tuple(1.0 / math.sqrt(w) if parametrization == "ntk" else 1.0 for w in sizes[:-1]),
            "layer_slices": tuple(slices),
            "num_params": start,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"MLP is immutable; make a new one instead of setting {name}.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"MLP is immutable; {name} cannot be deleted.")

    @property
    def num_layers(self) -> int:
        """D, the number of weight matrices."""
        return len(self.widths) - 1

    @property
    def is_smooth(self) -> bool:
        """True if no hidden layer is ReLU, so that the Hessian exists everywhere."""
        return "relu" not in self.activations

    def init(self, rng: Any = None) -> FloatArray:
        """Random theta (P,): weights normal with variance 2/(fan-in + fan-out), or 1 for ``"ntk"``; biases zero."""
        generator = as_rng(rng)
        theta = np.zeros(self.num_params)
        for (weight, _), fan_in, fan_out in zip(self.layer_slices, self.widths[:-1], self.widths[1:], strict=True):
            scale = 1.0 if self.parametrization == "ntk" else math.sqrt(2.0 / (fan_in + fan_out))
            theta[weight] = scale * generator.standard_normal(fan_in * fan_out)
        return theta

    def unpack(self, theta: npt.ArrayLike) -> list[Layer]:
        """[(W (out, in), b (out,) or None), …] of theta (P,); views where theta is a contiguous float64 array."""
        flat = as_real("theta", theta)
        if flat.shape != (self.num_params,):
            raise InputError(f"theta has shape {flat.shape}; allowed is ({self.num_params},).")
        return [
            (flat[weight].reshape(fan_out, fan_in), None if bias is None else flat[bias])
            for (weight, bias), fan_in, fan_out in zip(self.layer_slices, self.widths[:-1], self.widths[1:], strict=True)
        ]

    def pack(self, layers: Sequence[tuple[npt.ArrayLike, npt.ArrayLike | None]]) -> FloatArray:
        """theta (P,) from [(W, b), …]; the inverse of :meth:`unpack`."""
        if len(layers) != self.num_layers:
            raise InputError(f"layers has {len(layers)} entries; allowed is one (W, b) per layer, {self.num_layers}.")
        theta = np.empty(self.num_params)
        for number, ((weight, bias), given) in enumerate(zip(self.layer_slices, layers, strict=True), start=1):
            shape = (self.widths[number], self.widths[number - 1])
            w = as_real(f"W{number}", given[0])
            if w.shape != shape:
                raise InputError(f"W{number} has shape {w.shape}; allowed is {shape} (out, in).")
            theta[weight] = w.ravel()
            if bias is None:
                if given[1] is not None:
                    raise InputError(f"b{number} was given to a network without biases; pass (W, None).")
                continue
            if given[1] is None:
                raise InputError(f"b{number} is missing; pass (W, b) with b of shape {shape[:1]}.")
            b = as_real(f"b{number}", given[1])
            if b.shape != shape[:1]:
                raise InputError(f"b{number} has shape {b.shape}; allowed is {shape[:1]}.")
            theta[bias] = b
        return theta

    def _key(self) -> tuple[Any, ...]:
        return self.widths, self.activations, self.betas, self.bias, self.parametrization

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MLP) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._key()

    def __repr__(self) -> str:
        parts = [str(list(self.widths))]
        if self.activations:
            names = self.activations[0] if len(set(self.activations)) == 1 else list(self.activations)
            parts.append(f"activation={names!r}")
        if any(b != 1.0 for b in self.betas):
            parts.append(f"beta={self.betas[0] if len(set(self.betas)) == 1 else list(self.betas)!r}")
        if not self.bias:
            parts.append("bias=False")
        if self.parametrization != "standard":
            parts.append(f"parametrization={self.parametrization!r}")
        return f"MLP({', '.join(parts)})"


def _rebuild(widths: Any, activations: Any, betas: Any, bias: bool, parametrization: str) -> MLP:
    return MLP(widths, list(activations), beta=list(betas), bias=bias, parametrization=parametrization)
