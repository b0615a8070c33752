"""The fourth derivative of an activation at points, and bounds of the third to the fifth over intervals."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .intervals import TINY, Interval, gamma
from .ranges import derivative_range

FloatArray = npt.NDArray[np.float64]

#: Relative error allowed for an expression of a few operations on enclosures and library functions.
_RELATIVE = 2.0**-44
#: Beyond this GELU's derivatives from the third on are below 1e-300.
_GELU_FAR = 40.0


def derivative_points(name: str, beta: float, order: int, s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Phi^(order) at the points s, for orders up to 4, and a bound of its error."""
    if order <= 3:
        found = derivative_range(name, beta, order, Interval.point(s))
        return found.middle, found.radius
    value, size = _FOURTH[name](_unit(name, beta, s))
    factor = beta**3 if name == "softplus" else 1.0
    return factor * value, factor * size * _RELATIVE + TINY


def derivative_bound(name: str, beta: float, order: int, s: Interval) -> FloatArray:
    """Upper bound of |phi^(order)| over s, for orders 3 to 5."""
    if order == 3:
        return derivative_range(name, beta, 3, s).magnitude
    z = s.scaled(beta) if name == "softplus" else s
    factor = beta ** (order - 1) if name == "softplus" else 1.0
    found: FloatArray = factor * _BOUNDS[name](z, order) * (1.0 + _RELATIVE) + TINY
    return found


def _unit(name: str, beta: float, s: FloatArray) -> FloatArray:
    return beta * s if name == "softplus" else s


def _tanh_fourth(s: FloatArray) -> tuple[FloatArray, FloatArray]:
    e = np.exp(-2.0 * np.abs(s))
    slope, t = 4.0 * e / (1.0 + e) ** 2, np.tanh(s)
    return slope * t * (16.0 - 24.0 * t * t), slope * 40.0 * (1.0 + np.minimum(np.abs(s), 800.0))


def _sigmoid_fourth(s: FloatArray) -> tuple[FloatArray, FloatArray]:
    value, size = _tanh_fourth(0.5 * s)
    return value / 32.0, size / 32.0


def _softplus_fourth(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    e = np.exp(-np.abs(z))
    slope = e / (1.0 + e) ** 2  # sigmoid'
    return slope * (1.0 - 6.0 * slope), slope * 7.0 * (1.0 + np.minimum(np.abs(z), 800.0))


def _gelu_fourth(s: FloatArray) -> tuple[FloatArray, FloatArray]:
    c = np.clip(s, -_GELU_FAR, _GELU_FAR)
    density, square = np.exp(-0.5 * c * c) / math.sqrt(2.0 * math.pi), c * c
    return density * (-square * square + 7.0 * square - 4.0), density * (square * square + 7.0 * square + 4.0) * (1.0 + square)


def _zero(s: FloatArray) -> tuple[FloatArray, FloatArray]:
    return np.zeros_like(s), np.zeros_like(s)


_FOURTH = {
    "tanh": _tanh_fourth,
    "sigmoid": _sigmoid_fourth,
    "softplus": _softplus_fourth,
    "gelu": _gelu_fourth,
    "identity": _zero,
}


def _smallest(z: Interval) -> FloatArray:
    """Min |z| over the interval."""
    return np.where((z.lo > 0.0) | (z.hi < 0.0), np.minimum(np.abs(z.lo), np.abs(z.hi)), 0.0)


def _tanh_bound(z: Interval, order: int) -> FloatArray:
    """|phi''''| <= phi' |t| max |16 - 24 t²| and |phi'''''| <= phi' max |16 - 120 t² + 120 t⁴|, t² between its ends."""
    near, far = _smallest(z), z.magnitude
    e = np.exp(-2.0 * near)
    slope = 4.0 * e / (1.0 + e) ** 2 * (1.0 + 2.0 * np.minimum(near, 800.0) * gamma(4))
    low, high = np.tanh(near) ** 2, np.minimum(1.0, np.tanh(far) ** 2 * (1.0 + _RELATIVE))
    if order == 4:
        return slope * np.sqrt(high) * (np.maximum(np.abs(16.0 - 24.0 * low), np.abs(16.0 - 24.0 * high)) + 1e-10)
    ends = [np.abs(16.0 - 120.0 * q * (1.0 - q)) for q in (low, high)]
    inside = np.where((low <= 0.5) & (high >= 0.5), 14.0, 0.0)  # the parabola's lowest point
    return slope * (np.maximum(np.maximum(*ends), inside) + 1e-10)


def _sigmoid_bound(z: Interval, order: int) -> FloatArray:
    return _tanh_bound(z.scaled(0.5), order) / 2.0 ** (order + 1)


def _softplus_bound(z: Interval, order: int) -> FloatArray:
    """Phi'''' = sigmoid''' and phi''''' = sigmoid'''' in units of z."""
    return derivative_range("sigmoid", 1.0, 3, z).magnitude if order == 4 else _sigmoid_bound(z, 4)


def _gelu_bound(z: Interval, order: int) -> FloatArray:
    """The density times the polynomial's absolute terms, whichever of that and the largest value anywhere is smaller."""
    near, far = np.minimum(_smallest(z), _GELU_FAR), np.minimum(z.magnitude, _GELU_FAR)
    density = np.exp(-0.5 * near * near) / math.sqrt(2.0 * math.pi) * (1.0 + _RELATIVE * (1.0 + near * near))
    if order == 4:
        return np.minimum(density * (far**4 + 7.0 * far**2 + 4.0), 1.5958)
    return np.minimum(density * far * (far**4 + 11.0 * far**2 + 18.0), 2.8426)


def _nothing(z: Interval, _: int) -> FloatArray:
    return np.zeros_like(z.lo)


_BOUNDS = {
    "tanh": _tanh_bound,
    "sigmoid": _sigmoid_bound,
    "softplus": _softplus_bound,
    "gelu": _gelu_bound,
    "identity": _nothing,
}
