"""Loss and second directional derivative of a network, straight from the formulas, with rounding bounds.

For pre-activations ``s = k (W a + b)`` and a direction with blocks (V, c) the first and second
derivatives along the direction are (``a1 = a2 = 0`` at the input)

    s1 = k (W a1 + V a + c),      s2 = k (W a2 + 2 V a1),
    a1 = phi'(s) s1,              a2 = phi'(s) s2 + phi''(s) s1^2,

and ``q = v'Hv = mean_i [ s1'A s1 + g's2 ]`` at the output, where g and A are the gradient and the
Hessian of the loss. The data are walked in blocks; every number carries a bound of its rounding error
(`pyhess.threshold.roundoff`), so ``q + q_error`` is an upper bound of the exact quadratic form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._threads import blas_single_thread
from . import reference_functions as functions
from .roundoff import AnyFloatArray, Approx, FloatArray, affine, join, weighted_mean

if TYPE_CHECKING:
    from ..model import MLP
    from ..objective import Objective

#: Numbers per array of one data block; a few dozen such arrays are alive at a time.
BLOCK_ELEMENTS = 1 << 17

FloatType = type[np.float64] | type[np.longdouble]


class QuadraticForm(NamedTuple):
    """``q = v'H(theta)v`` with ``|q - exact| <= q_error``."""

    q: float
    q_error: float


def quadratic_form(obj: Objective, theta: FloatArray, v: FloatArray) -> QuadraticForm:
    """Return ``v'H(theta)v`` and a bound of its rounding error, computed in float64.

    Parameters
    ----------
    obj : Objective
        The objective; only its network, data, targets and loss are used, never its compiled products.
    theta, v : (P,) array
        The point and the direction.

    Returns
    -------
    QuadraticForm
    """
    # One BLAS thread: the order of summation, and so every bit of the result, does not depend on the machine's threads.
    with blas_single_thread():
        parts = [_second_order(obj, theta, v, rows) for rows in data_blocks(obj)]
    q, error = weighted_mean(join(parts), obj.data.weights)
    return QuadraticForm(float(q), error)


def _second_order(obj: Objective, theta: FloatArray, v: FloatArray, rows: slice) -> Approx:
    """Return ``s1'A s1 + g's2`` for every datum of a block."""
    layers, directions = split(obj.net, theta), split(obj.net, v)
    a, a1, a2 = Approx.exact(obj.data.X[rows]), None, None
    for index, ((w, b), (dw, db), factor) in enumerate(zip(layers, directions, layer_factors(obj.net, np.float64), strict=True)):
        s = affine([(a, w)], b, factor)
        s1 = affine([(a, dw)] if a1 is None else [(a, dw), (a1, w)], db, factor)
        pairs: list[tuple[Approx, AnyFloatArray]] = [] if a1 is None else [(a1, 2.0 * dw)]
        pairs += [] if a2 is None else [(a2, w)]
        s2 = affine(pairs, None, factor) if pairs else Approx.exact(np.zeros_like(s.value))
        if index + 1 < len(layers):
            activation, beta = obj.net.activations[index], obj.net.betas[index]
            a, slope, bend = functions.apply_twice_differentiated(activation, beta, s)
            a1 = slope * s1
            a2 = slope * s2
            if bend is not None:
                a2 = a2 + bend * (s1 * s1)
    return functions.loss_second_order(obj.loss, s, s1, s2, obj.targets[rows])


def sample_losses(obj: Objective, theta: FloatArray, dtype: FloatType = np.float64) -> Approx:
    """Return the loss of every datum (N,) at theta, computed in ``dtype``, with rounding bounds."""
    layers = split(obj.net, theta.astype(dtype))
    parts = []
    with blas_single_thread():
        for rows in data_blocks(obj):
            s = network_output(obj.net, layers, obj.data.X[rows].astype(dtype))
            parts.append(functions.loss_values(obj.loss, s, obj.targets[rows]))
    return join(parts)


def network_output(net: MLP, layers: list[tuple[AnyFloatArray, AnyFloatArray | None]], x: AnyFloatArray) -> Approx:
    """Return f(x) (n, K) for rows x (n, d)."""
    a = Approx.exact(x)
    for index, ((w, b), factor) in enumerate(zip(layers, layer_factors(net, x.dtype.type), strict=True)):
        a = affine([(a, w)], b, factor)
        if index + 1 < len(layers):
            a = functions.apply(net.activations[index], net.betas[index], a)
    return a


def split(net: MLP, theta: AnyFloatArray) -> list[tuple[AnyFloatArray, AnyFloatArray | None]]:
    """Cut a flat vector of any floating type into weight matrices (out, in) and biases (out,)."""
    layers = []
    for (weights, bias), fan_in, fan_out in zip(net.layer_slices, net.widths[:-1], net.widths[1:], strict=True):
        layers.append((theta[weights].reshape(fan_out, fan_in), None if bias is None else theta[bias]))
    return layers


def layer_factors(net: MLP, dtype: type[np.floating[Any]]) -> list[np.floating[Any]]:
    """1/sqrt(fan-in) of every layer in the given floating type, or ones in the standard parametrisation."""
    if net.parametrization == "ntk":
        return [dtype(1) / np.sqrt(dtype(fan_in)) for fan_in in net.widths[:-1]]
    return [dtype(1)] * net.num_layers


def data_blocks(obj: Objective) -> Iterator[slice]:
    """Row ranges that keep one array of activations within `BLOCK_ELEMENTS` numbers."""
    size = max(1, BLOCK_ELEMENTS // max(obj.net.widths))
    for start in range(0, obj.data.num_samples, size):
        yield slice(start, min(start + size, obj.data.num_samples))
