"""Activations and losses in plain NumPy, with rounding bounds: the witness's own implementation.

Nothing here is shared with the compiled core, so that a witness re-evaluated with these functions
checks the core as well.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

from .roundoff import (
    FUNCTION_ULPS,
    AnyFloatArray,
    Approx,
    FloatArray,
    epsilon,
)

# Suprema of |phi''| used for the second-order part of a propagated error.
_TANH_SECOND = 4.0 / (3.0 * math.sqrt(3.0))
_SIGMOID_SECOND = 1.0 / (6.0 * math.sqrt(3.0))
_DENSITY_SECOND = 0.4
_INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
# Beyond this point the normal distribution function is 0 or 1 to 80-bit precision.
_NORMAL_CUTOFF = 9.5


def apply(activation: str, beta: float, s: Approx) -> Approx:
    """Return phi(s)."""
    if activation == "identity":
        return s
    if activation == "relu":
        return _relu(s)[0]
    if activation == "tanh":
        return _tanh(s)
    if activation == "sigmoid":
        return sigmoid(s)
    if activation == "softplus":
        return _softplus(s.scale(beta)).divide(beta)
    if activation == "gelu":
        return s * _normal_cdf(s)
    raise AssertionError(f"no reference for activation {activation!r}")


def apply_twice_differentiated(activation: str, beta: float, s: Approx) -> tuple[Approx, Approx, Approx | None]:
    """Return phi(s), phi'(s), phi''(s); None stands for phi'' = 0."""
    if activation == "identity":
        return s, Approx.exact(np.ones_like(s.value)), None
    if activation == "relu":
        value, slope = _relu(s)
        return value, slope, None
    if activation == "tanh":
        t = _tanh(s)
        slope = (-(t * t)).shift(1.0)
        return t, slope, (t * slope).scale(-2.0)
    if activation == "sigmoid":
        value = sigmoid(s)
        slope = value * (-value).shift(1.0)
        return value, slope, slope * value.scale(-2.0).shift(1.0)
    if activation == "softplus":
        scaled = s.scale(beta)
        first = sigmoid(scaled)
        return _softplus(scaled).divide(beta), first, (first * (-first).shift(1.0)).scale(beta)
    if activation == "gelu":
        cdf = _normal_cdf(s)
        density = _normal_density(s)
        return s * cdf, cdf + s * density, (-(s * s)).shift(2.0) * density
    raise AssertionError(f"no reference for activation {activation!r}")


def loss_values(loss: str, output: Approx, targets: FloatArray) -> Approx:
    """Return the loss of every datum (n,) from the network outputs (n, K)."""
    y = targets.astype(output.value.dtype)
    if loss == "squared_error":
        residual = output.shift(-y)
        return (residual * residual).row_sums().scale(0.5)
    if loss == "logistic":
        column = Approx(output.value[:, 0], output.error[:, 0])
        return _softplus(column) - column * Approx.exact(y[:, 0])
    shifted, top = _shift_to_maximum(output)
    weights = _exp(shifted).row_sums()
    return _log(weights) + top - (output * Approx.exact(y)).row_sums()


def loss_second_order(loss: str, output: Approx, s1: Approx, s2: Approx, targets: FloatArray) -> Approx:
    """Return ``s1'A s1 + g's2`` per datum, with g and A the gradient and Hessian of the loss at the output."""
    y = targets.astype(output.value.dtype)
    if loss == "squared_error":
        return (s1 * s1).row_sums() + (output.shift(-y) * s2).row_sums()
    if loss == "logistic":
        p = sigmoid(output)
        curvature = p * (-p).shift(1.0)
        return (curvature * s1 * s1).row_sums() + (p.shift(-y) * s2).row_sums()
    p = softmax(output)
    mean = (p * s1).row_sums()
    centred = s1 - Approx(mean.value[:, None], mean.error[:, None])
    # sum p (s1 - mu)^2 with the computed mu; its distance from the true mean enters squared.
    return (p * centred * s1).row_sums() + (p.shift(-y) * s2).row_sums()


def softmax(output: Approx) -> Approx:
    """Return the class probabilities (n, K)."""
    shifted, _ = _shift_to_maximum(output)
    # Moving every output by at most e multiplies each probability by a factor in [exp(-2e), exp(2e)].
    spread = np.expm1(2.0 * shifted.error.max(axis=1, keepdims=True))
    exponentials = np.exp(shifted.value)
    value = exponentials / exponentials.sum(axis=1, keepdims=True)
    relative = spread + (2.0 * FUNCTION_ULPS + value.shape[1] + 2.0) * epsilon(value)
    return Approx(value, value.astype(np.float64) * relative + 1e-300)


def _shift_to_maximum(output: Approx) -> tuple[Approx, Approx]:
    """Subtract an exact number (the largest computed output) from every row."""
    top = output.value.max(axis=1)
    return output.shift(-top[:, None]), Approx.exact(top)


def _relu(s: Approx) -> tuple[Approx, Approx]:
    magnitude = s.magnitude
    surely_off = (s.value < 0) & (magnitude > s.error)
    unsure = magnitude <= s.error
    slope = (s.value > 0).astype(s.value.dtype)
    # An exact zero has no rounding to blame: the gate is taken as 0 there, but it stays unknown.
    value = Approx(np.maximum(s.value, 0), np.where(surely_off, 0.0, s.error))
    return value, Approx(slope, unsure.astype(np.float64))


def _tanh(s: Approx) -> Approx:
    value = np.tanh(s.value)
    slope = (1.0 - np.minimum(np.abs(value), 1.0) ** 2).astype(np.float64)
    return _propagate(value, slope, _TANH_SECOND, s)


def sigmoid(s: Approx) -> Approx:
    """Return the logistic function."""
    tail = np.exp(-np.abs(s.value))
    value = np.where(s.value >= 0, 1 / (1 + tail), tail / (1 + tail))
    slope = (value * (1 - value)).astype(np.float64)
    return _propagate(value, slope, _SIGMOID_SECOND, s)


def _softplus(s: Approx) -> Approx:
    value = np.maximum(s.value, 0) + np.log1p(np.exp(-np.abs(s.value)))
    tail = np.exp(-s.magnitude)
    slope = np.where(s.value >= 0, 1 / (1 + tail), tail / (1 + tail))
    return _propagate(value, slope, 0.25, s)


def _normal_cdf(s: Approx) -> Approx:
    if s.value.dtype == np.float64:
        value, ulps = ndtr(s.value), np.full(s.value.shape, 2.0 * FUNCTION_ULPS)
    else:
        # exp(-s²/2) magnifies the rounding of its argument by s²/2, and the largest terms of the sum are about the
        # (s²/2)-th, with three roundings per term.
        clipped = np.minimum(s.magnitude, _NORMAL_CUTOFF)
        value, ulps = _wide_normal_cdf(s.value), FUNCTION_ULPS + 2.0 * clipped**2
    density = _INV_SQRT_2PI * np.exp(-0.5 * s.magnitude**2)
    spread = density * s.error + 0.125 * s.error**2
    return Approx(value, spread + ulps * epsilon(s.value))


def _wide_normal_cdf(s: AnyFloatArray) -> AnyFloatArray:
    """Normal distribution function in any floating type: Phi(s) = 1/2 + pdf(s) (s + s^3/3 + s^5/15 + …).

    All terms of the series have the sign of s, so nothing cancels before the final addition.
    """
    kind = s.dtype.type
    clipped = np.clip(s, -_NORMAL_CUTOFF, _NORMAL_CUTOFF)
    term = clipped.copy()
    total = clipped.copy()
    for odd in range(3, 600, 2):
        term = term * clipped * clipped / kind(odd)
        total = total + term
        if not np.any(np.abs(term) > np.finfo(s.dtype).eps * np.abs(total)):
            break
    root = np.sqrt(kind(2) * np.arctan(kind(1)) * kind(4))
    result: AnyFloatArray = kind(0.5) + np.exp(-clipped * clipped / kind(2)) / root * total
    return np.clip(result, kind(0), kind(1))


def _normal_density(s: Approx) -> Approx:
    value = _INV_SQRT_2PI * np.exp(-0.5 * s.value**2)
    magnitude = value.astype(np.float64)
    slope = s.magnitude * magnitude
    rounding = (FUNCTION_ULPS + s.magnitude**2 + 2.0) * epsilon(s.value) * magnitude
    return Approx(value, slope * s.error + 0.5 * _DENSITY_SECOND * s.error**2 + rounding)


def _exp(s: Approx) -> Approx:
    value = np.exp(s.value)
    relative = np.expm1(s.error) + FUNCTION_ULPS * epsilon(s.value)
    return Approx(value, value.astype(np.float64) * relative + 1e-300)


def expm1(s: Approx) -> Approx:
    """Return exp(s) - 1, accurate for small s."""
    growth = np.exp(s.magnitude + s.error)
    return _propagate(np.expm1(s.value), growth, float(growth.max(initial=1.0)), s)


def sinh(s: Approx) -> Approx:
    """Return the hyperbolic sine."""
    growth = np.cosh(s.magnitude + s.error)
    return _propagate(np.sinh(s.value), growth, float(growth.max(initial=1.0)), s)


def cosh(s: Approx) -> Approx:
    """Return the hyperbolic cosine."""
    growth = np.cosh(s.magnitude + s.error)
    return _propagate(np.cosh(s.value), growth, float(growth.max(initial=1.0)), s)


def log1p(s: Approx) -> Approx:
    """Return log(1 + s) for arguments above -1, accurate for small ones."""
    slope = 1.0 / (1.0 + np.asarray(s.value - s.error, dtype=np.float64))
    return _propagate(np.log1p(s.value), slope, float(slope.max(initial=1.0)) ** 2, s)


def _log(s: Approx) -> Approx:
    value = np.log(s.value)
    # Used on sums that contain exp(0) = 1, so s >= 1 and the slope is at most 1.
    return _propagate(value, np.ones(value.shape), 1.0, s)


def _propagate(value: AnyFloatArray, slope: FloatArray, second: float, s: Approx) -> Approx:
    """Error of f(s): first and second order of the argument's error, and the function's own rounding.

    ``second`` bounds |f''|. The slope is computed too, hence the relative margin on it.
    """
    eps = epsilon(s.value)
    carried = (np.abs(slope) * (1.0 + 64.0 * eps) + 64.0 * eps) * s.error + 0.5 * second * s.error**2
    return Approx(value, carried + FUNCTION_ULPS * eps * np.abs(value).astype(np.float64) + 1e-300)
