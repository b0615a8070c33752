"""Dense networks: shapes, parameter layout, initialisation."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ._checks import Immutable, as_real, as_rng, choice, positive_float, positive_int, shown
from .errors import InputError, InputTypeError

FloatArray = npt.NDArray[np.float64]
Layer = tuple[FloatArray, FloatArray | None]
T = TypeVar("T")

ACTIVATIONS = ("tanh", "relu", "softplus", "sigmoid", "gelu", "identity")
PARAMETRIZATIONS = ("standard", "ntk")

#: More float64 values than this cannot be addressed.
_MAX_PARAMS = sys.maxsize // 8


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes) and getattr(value, "ndim", 1) > 0


def _per_layer(name: str, value: Any, count: int, check: Callable[[str, Any], T]) -> tuple[T, ...]:
    """Return one checked value for every hidden layer, from one value or a list of them."""
    if not _is_list(value):
        return (check(name, value),) * count
    values = list(value)
    if len(values) != count:
        raise InputError(f"{name} has {len(values)} entries; allowed is one value, or one per hidden layer ({count}).")
    return tuple(check(f"{name}[{i}]", v) for i, v in enumerate(values))


def _activation(name: str, value: Any) -> str:
    return choice(name, value, ACTIVATIONS)


class MLP(Immutable):
    """A dense network s^l = κ_l (W^l a^{l-1} + b^l), a^l = phi_l(s^l), f = s^D.

    Parameters
    ----------
    widths : sequence of int
        [d_in, h_1, …, d_out]; two entries make a linear model.
    activation : str or sequence of str
        ``"tanh"``, ``"relu"``, ``"softplus"``, ``"sigmoid"``, ``"gelu"`` (exact, with erf) or ``"identity"``;
        one for all hidden layers or one for each.
    beta : float or sequence of float
        Sharpness of softplus, phi(s) = log(1 + exp(beta s)) / beta; one for all hidden layers or one for
        each. Other activations have none and keep 1.0.
    bias : bool
        With biases b^l or without.
    parametrization : str
        ``"standard"``: κ_l = 1. ``"ntk"``: κ_l = 1/sqrt(fan-in), applied to the whole pre-activation, bias
        included.

    Attributes
    ----------
    num_params : int
        P, the length of theta.
    activations, betas : tuple
        One entry per hidden layer.
    layer_scales : tuple of float
        κ_l, one per layer.
    layer_slices : tuple of (slice, slice or None)
        Where W^l and b^l lie in theta.

    Raises
    ------
    InputError, InputTypeError
        If the widths are not two or more integers >= 1, a name is unknown, or a list does not have one entry
        per hidden layer.

    Notes
    -----
    Parameters are one flat vector theta (P,) in the order W1, b1, W2, b2, …, every W (out, in) row by row:
    the order of torch's ``parameters_to_vector``. Networks are immutable and hashable, and equal if their
    descriptions are.

    Examples
    --------
    >>> import pyhess as ph
    >>> net = ph.MLP([64, 16, 10], activation="tanh")
    >>> net.num_params
    1210
    >>> [w.shape for w, b in net.unpack(net.init(rng=7))]
    [(16, 64), (10, 16)]
    """

    __slots__ = (
        "activations",
        "betas",
        "bias",
        "layer_scales",
        "layer_slices",
        "num_params",
        "parametrization",
        "widths",
    )

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
        if not _is_list(widths):
            raise InputTypeError(f"widths is {shown(widths)}; pass a list [d_in, h_1, …, d_out] of integers >= 1.")
        sizes = tuple(positive_int(f"widths[{i}]", w) for i, w in enumerate(widths))
        if len(sizes) < 2:
            raise InputError(f"widths is {list(sizes)}; allowed are two or more entries [d_in, h_1, …, d_out].")
        hidden = len(sizes) - 2
        names = _per_layer("activation", activation, hidden, _activation)
        betas = _per_layer("beta", beta, hidden, positive_float)
        if not isinstance(bias, bool | np.bool_):
            raise InputTypeError(f"bias is {shown(bias)}; pass True or False.")
        scheme = choice("parametrization", parametrization, PARAMETRIZATIONS)
        slices: list[tuple[slice, slice | None]] = []
        start = 0
        for fan_in, fan_out in pairwise(sizes):
            weight = slice(start, start + fan_in * fan_out)
            start = weight.stop
            offset = slice(start, start + fan_out) if bias else None
            start += fan_out if bias else 0
            slices.append((weight, offset))
        if start > _MAX_PARAMS:
            raise InputError(f"the network has {start} parameters; allowed are at most {_MAX_PARAMS}. Use smaller widths.")
        self._set(
            widths=sizes,
            activations=names,
            betas=tuple(b if a == "softplus" else 1.0 for a, b in zip(names, betas, strict=True)),
            bias=bool(bias),
            parametrization=scheme,
            layer_scales=tuple(1.0 / math.sqrt(w) if scheme == "ntk" else 1.0 for w in sizes[:-1]),
            layer_slices=tuple(slices),
            num_params=start,
        )

    @property
    def num_layers(self) -> int:
        """D, the number of weight matrices."""
        return len(self.widths) - 1

    @property
    def is_smooth(self) -> bool:
        """True if no hidden layer is ReLU, so that the Hessian exists everywhere."""
        return "relu" not in self.activations

    def init(self, rng: Any = None) -> FloatArray:
        """Draw random parameters: weights N(0, 2/(fan-in + fan-out)), or N(0, 1) for ``"ntk"``; biases zero.

        Parameters
        ----------
        rng : None, int, SeedSequence or Generator
            Source of randomness.

        Returns
        -------
        theta : (P,) float64

        Raises
        ------
        InputError, InputTypeError
            If ``rng`` is of another kind, or a negative seed.
        """
        generator = as_rng(rng)
        theta = np.zeros(self.num_params)
        for (weight, _), (fan_in, fan_out) in zip(self.layer_slices, pairwise(self.widths), strict=True):
            scale = 1.0 if self.parametrization == "ntk" else math.sqrt(2.0 / (fan_in + fan_out))
            theta[weight] = scale * generator.standard_normal(fan_in * fan_out)
        return theta

    def unpack(self, theta: npt.ArrayLike) -> list[Layer]:
        """Split theta into its layers.

        Parameters
        ----------
        theta : (P,) array_like

        Returns
        -------
        list of (W (out, in), b (out,) or None)
            Views where theta is a contiguous float64 array, copies otherwise.

        Raises
        ------
        InputError, InputTypeError
            If theta is not a real vector of length P.
        """
        flat = as_real("theta", theta)
        if flat.shape != (self.num_params,):
            raise InputError(f"theta has shape {flat.shape}; allowed is ({self.num_params},) for {self!r}. Pass the flat vector.")
        return [
            (flat[weight].reshape(fan_out, fan_in), None if bias is None else flat[bias])
            for (weight, bias), (fan_in, fan_out) in zip(self.layer_slices, pairwise(self.widths), strict=True)
        ]

    def pack(self, layers: Sequence[tuple[npt.ArrayLike, npt.ArrayLike | None]]) -> FloatArray:
        """Join layers to theta; the inverse of :meth:`unpack`.

        Parameters
        ----------
        layers : list of (W (out, in), b (out,) or None)

        Returns
        -------
        theta : (P,) float64

        Raises
        ------
        InputError, InputTypeError
            If a layer is missing or an array has the wrong shape.
        """
        if not _is_list(layers):
            raise InputTypeError(f"layers is {shown(layers)}; pass a list of pairs (W, b).")
        given: list[Any] = list(layers)
        if len(given) != self.num_layers:
            raise InputError(f"layers has {len(given)} entries; allowed is one (W, b) per layer, {self.num_layers}.")
        theta = np.empty(self.num_params)
        for number, ((weight, bias), layer) in enumerate(zip(self.layer_slices, given, strict=True), start=1):
            if not isinstance(layer, tuple | list) or len(layer) != 2:
                raise InputTypeError(f"layers[{number - 1}] is {shown(layer)}; pass a pair (W, b), b None without biases.")
            shape = (self.widths[number], self.widths[number - 1])
            theta[weight] = _shaped(f"W{number}", layer[0], shape, "(out, in)").ravel()
            if bias is None and layer[1] is not None:
                raise InputError(f"b{number} was given to a network without biases; pass (W, None).")
            if bias is not None:
                if layer[1] is None:
                    raise InputError(f"b{number} is missing; pass (W, b) with b of shape {shape[:1]}.")
                theta[bias] = _shaped(f"b{number}", layer[1], shape[:1], "(out,)")
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


def _shaped(name: str, value: npt.ArrayLike, shape: tuple[int, ...], meaning: str) -> FloatArray:
    array = as_real(name, value)
    if array.shape != shape:
        advice = " Transpose it." if array.ndim == 2 and array.shape[::-1] == shape else ""
        raise InputError(f"{name} has shape {array.shape}; allowed is {shape} {meaning}.{advice}")
    return array


def _rebuild(widths: Any, activations: Any, betas: Any, bias: bool, parametrization: str) -> MLP:
    return MLP(widths, list(activations), beta=list(betas), bias=bias, parametrization=parametrization)
