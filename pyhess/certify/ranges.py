"""Ranges of an activation and its first three derivatives over intervals.

Every derivative is monotone between its critical points, so its range over an interval is spanned by the values at the two ends
and the extreme values at critical points inside. Values carry a stated error; critical points count as inside when they are
within 1e-6 of the interval, which costs nothing and covers the rounding of their positions.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .intervals import TINY, Interval, gamma

FloatArray = npt.NDArray[np.float64]

#: Relative error assumed of an expression of a few operations on library functions that are accurate to 4 ulp.
_RELATIVE = 2.0**-46
#: GELU: scipy's erfc and the cancellation in phi' = Phi + s n, relative to the sum of the absolute terms.
_GELU = 2.0**-40
_NEAR = 1e-6

_SQRT3 = math.sqrt(3.0)
_TANH_CRITICAL = math.atanh(1.0 / _SQRT3)
_TANH_THIRD = math.atanh(math.sqrt(2.0 / 3.0))
_SIGMOID_CRITICAL = math.log(2.0 + _SQRT3)
_GELU_THIRD = [sign * math.sqrt((7.0 + side * math.sqrt(33.0)) / 2.0) for sign in (-1.0, 1.0) for side in (-1.0, 1.0)]


def _gelu_third(s: float) -> float:
    return math.exp(-0.5 * s * s) / math.sqrt(2.0 * math.pi) * s * (s * s - 4.0)


# (position, extreme value) of the critical points of phi, phi', phi'' and phi'''; for softplus in units of z = beta s.
_CRITICAL: dict[str, tuple[list[tuple[float, float]], ...]] = {
    "tanh": (
        [],
        [(0.0, 1.0)],
        [(-_TANH_CRITICAL, 4.0 / (3.0 * _SQRT3)), (_TANH_CRITICAL, -4.0 / (3.0 * _SQRT3))],
        [(0.0, -2.0), (-_TANH_THIRD, 2.0 / 3.0), (_TANH_THIRD, 2.0 / 3.0)],
    ),
    "sigmoid": (
        [],
        [(0.0, 0.25)],
        [(-_SIGMOID_CRITICAL, 1.0 / (6.0 * _SQRT3)), (_SIGMOID_CRITICAL, -1.0 / (6.0 * _SQRT3))],
        [(0.0, -0.125), (-2.0 * _TANH_THIRD, 1.0 / 24.0), (2.0 * _TANH_THIRD, 1.0 / 24.0)],
    ),
    "softplus": (
        [],
        [],
        [(0.0, 0.25)],
        [(-_SIGMOID_CRITICAL, 1.0 / (6.0 * _SQRT3)), (_SIGMOID_CRITICAL, -1.0 / (6.0 * _SQRT3))],
    ),
    "gelu": (
        [(-0.7517915246935645, -0.16997120747990369)],
        [(-math.sqrt(2.0), -0.12890414518515475), (math.sqrt(2.0), 1.1289041451851550)],
        [(-2.0, -0.10798193302637613), (0.0, 0.7978845608028654), (2.0, -0.10798193302637613)],
        [(s, _gelu_third(s)) for s in _GELU_THIRD],
    ),
    "identity": ([], [], [], []),
}


def _tanh(s: FloatArray, order: int) -> tuple[FloatArray, FloatArray]:
    e = np.exp(-2.0 * np.abs(s))
    slope = 4.0 * e / (1.0 + e) ** 2
    if order == 3:
        square = np.tanh(s) ** 2
        return slope * (6.0 * square - 2.0), slope * (6.0 * square + 2.0) * _RELATIVE
    value = (np.tanh(s), slope, -2.0 * np.tanh(s) * slope)[order]
    return value, np.abs(value) * _RELATIVE


def _sigmoid(s: FloatArray, order: int) -> tuple[FloatArray, FloatArray]:
    e = np.exp(-np.abs(s))
    slope = e / (1.0 + e) ** 2
    if order == 3:
        return slope * (1.0 - 6.0 * slope), slope * (1.0 + 6.0 * slope) * _RELATIVE
    value = (np.where(s < 0.0, e, 1.0) / (1.0 + e), slope, -slope * np.tanh(0.5 * s))[order]
    return value, np.abs(value) * _RELATIVE


def _softplus(z: FloatArray, order: int) -> tuple[FloatArray, FloatArray]:
    """In units of z = beta s; the rounding of z itself is relative in e^z by |z| u, and e^z underflows past 745."""
    e = np.exp(-np.abs(z))
    slope = e / (1.0 + e) ** 2
    value = (np.logaddexp(0.0, z), np.where(z < 0.0, e, 1.0) / (1.0 + e), slope, -slope * np.tanh(0.5 * z))[order]
    return value, np.abs(value) * _RELATIVE * (1.0 + np.minimum(np.abs(z), 800.0))


def _gelu(s: FloatArray, order: int) -> tuple[FloatArray, FloatArray]:
    from scipy.special import erfc

    c = np.clip(s, -40.0, 40.0)  # beyond, every derivative is constant far below the error allowed for
    cdf = 0.5 * erfc(-c / math.sqrt(2.0))
    pdf = np.exp(-0.5 * c * c) / math.sqrt(2.0 * math.pi)
    # The relative error of erfc(x) and exp(-x^2) at a rounded x grows like x^2.
    error = _GELU * (1.0 + c * c)
    if order == 0:
        return s * cdf, np.abs(s) * cdf * error + 1e-290 * (1.0 + np.abs(s))
    if order == 1:
        return cdf + c * pdf, (cdf + np.abs(c) * pdf) * error + 1e-290
    if order == 2:
        return pdf * (2.0 - c * c), pdf * (2.0 + c * c) * error + 1e-290
    return pdf * c * (c * c - 4.0), pdf * np.abs(c) * (c * c + 4.0) * error + 1e-290


def _identity(s: FloatArray, order: int) -> tuple[FloatArray, FloatArray]:
    return (s, np.ones_like(s), np.zeros_like(s), np.zeros_like(s))[order], np.zeros_like(s)


_VALUES = {"tanh": _tanh, "sigmoid": _sigmoid, "softplus": _softplus, "gelu": _gelu, "identity": _identity}


def growth(name: str, beta: float) -> tuple[float, float]:
    """(|phi(0)|, sup |phi'|), rounded up: |phi(s)| <= |phi(0)| + sup |phi'| |s|."""
    at_zero = {"sigmoid": 0.5, "softplus": 0.6931471805599454 / beta}.get(name, 0.0)
    return at_zero * (1.0 + gamma(8)), {"sigmoid": 0.25, "gelu": 1.128904145185156}.get(name, 1.0)


def derivative_range(name: str, beta: float, order: int, s: Interval) -> Interval:
    """Enclosure of phi (order 0), phi', phi'' or phi''' (3) over s; ReLU's phi' is 0, 1 or [0, 1], the others 0 off the kink."""
    if name == "relu":
        if order == 0:
            return Interval(np.maximum(s.lo, 0.0), np.maximum(s.hi, 0.0))
        if order == 1:
            return Interval((s.lo > 0.0).astype(np.float64), (s.hi >= 0.0).astype(np.float64))
        return Interval.point(np.zeros_like(s.lo))
    z = s.scaled(beta) if name == "softplus" else s
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        (low, low_error), (high, high_error) = _VALUES[name](z.lo, order), _VALUES[name](z.hi, order)
        lo = np.minimum(low - low_error, high - high_error)
        hi = np.maximum(low + low_error, high + high_error)
    for position, extreme in _CRITICAL[name][order]:
        inside = (z.lo <= position + _NEAR) & (z.hi >= position - _NEAR)
        margin = abs(extreme) * _RELATIVE
        lo = np.where(inside, np.minimum(lo, extreme - margin), lo)
        hi = np.where(inside, np.maximum(hi, extreme + margin), hi)
    if name != "identity":
        lo, hi = lo - TINY, hi + TINY
    if name == "softplus":
        # phi(s) = softplus(z)/beta, phi' = sigmoid(z), phi'' = beta sigmoid'(z), phi''' = beta² sigmoid''(z)
        scaled = Interval(lo, hi).scaled((1.0 / beta, 1.0, beta, beta * beta)[order])
        return Interval(scaled.lo - np.abs(scaled.lo) * _RELATIVE, scaled.hi + np.abs(scaled.hi) * _RELATIVE)
    return Interval(lo, hi)
