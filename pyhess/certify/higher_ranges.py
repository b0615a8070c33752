"""The fourth derivative of an activation at points, and bounds of the third to the fifth over intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .intervals import TINY, Interval
from .ranges import derivative_range

FloatArray = npt.NDArray[np.float64]

#: The value at points, and what its error is relative to.
_Function = Callable[[FloatArray], tuple[FloatArray, FloatArray]]

#: Relative error allowed for an expression of a few operations on enclosures and library functions.
_RELATIVE = 2.0**-44
#: Critical points count as inside an interval that comes so near.
_NEAR = 1e-6
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
    if order == 3 or name == "identity":
        return derivative_range(name, beta, min(order, 3), s).magnitude
    z = s.scaled(beta) if name == "softplus" else s
    if name == "softplus" and order == 4:
        return beta**3 * derivative_range("sigmoid", 1.0, 3, z).magnitude * (1.0 + _RELATIVE)
    if name == "gelu":
        found, factor = _largest(z, _GELU[order], _GELU_CRITICAL[order]), 1.0
    else:
        # sigmoid(z) = (1 + tanh(z/2)) / 2, and softplus' = sigmoid.
        at = order - (name == "softplus")
        half = name != "tanh"
        found = _largest(z.scaled(0.5) if half else z, _TANH[at], _TANH_CRITICAL[at])
        factor = 0.5 ** (at + 1) if half else 1.0
        factor *= beta ** (order - 1) if name == "softplus" else 1.0
    return factor * found * (1.0 + _RELATIVE) + TINY


def _largest(z: Interval, function: _Function, critical: list[tuple[float, float]]) -> FloatArray:
    """Largest absolute value over z of a function that is monotone between its critical points, which come with its values."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        (low, low_size), (high, high_size) = function(z.lo), function(z.hi)
    found = np.maximum(np.abs(low) + low_size * _RELATIVE, np.abs(high) + high_size * _RELATIVE)
    for position, extreme in critical:
        inside = (z.lo <= position + _NEAR) & (z.hi >= position - _NEAR)
        found = np.where(inside, np.maximum(found, abs(extreme) * (1.0 + _RELATIVE)), found)
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


def _tanh_fifth(s: FloatArray) -> tuple[FloatArray, FloatArray]:
    e = np.exp(-2.0 * np.abs(s))
    slope, square = 4.0 * e / (1.0 + e) ** 2, np.tanh(s) ** 2
    return slope * (16.0 - 120.0 * square * (1.0 - square)), slope * 136.0 * (1.0 + np.minimum(np.abs(s), 800.0))


def _gelu_fifth(s: FloatArray) -> tuple[FloatArray, FloatArray]:
    c = np.clip(s, -_GELU_FAR, _GELU_FAR)
    density, square = np.exp(-0.5 * c * c) / math.sqrt(2.0 * math.pi), c * c
    size = density * np.abs(c) * (square * square + 11.0 * square + 18.0) * (1.0 + square)
    return density * c * (square * square - 11.0 * square + 18.0), size


def _extremes(function: _Function, positions: list[float]) -> list[tuple[float, float]]:
    """Critical points with the values there; the error of a position counts with its square."""
    return [(s, float(function(np.array([s]))[0][0])) for root in positions for s in (root, -root)]


_FOURTH: dict[str, _Function] = {
    "tanh": _tanh_fourth,
    "sigmoid": _sigmoid_fourth,
    "softplus": _softplus_fourth,
    "gelu": _gelu_fourth,
    "identity": _zero,
}
_TANH: dict[int, _Function] = {4: _tanh_fourth, 5: _tanh_fifth}
_GELU: dict[int, _Function] = {4: _gelu_fourth, 5: _gelu_fifth}
# Where the next derivative vanishes: 15 q² - 15 q + 2 and 45 q² - 60 q + 17 in q = tanh², and in q = s² for GELU
# (q - 2) (q - 9) and q³ - 16 q² + 51 q - 18, and at zero.
_TANH_CRITICAL = {
    4: _extremes(_tanh_fourth, [math.atanh(math.sqrt((15.0 + side * math.sqrt(105.0)) / 30.0)) for side in (-1.0, 1.0)]),
    5: _extremes(_tanh_fifth, [0.0, *(math.atanh(math.sqrt((60.0 + side * math.sqrt(540.0)) / 90.0)) for side in (-1.0, 1.0))]),
}
_GELU_CRITICAL = {
    4: _extremes(_gelu_fourth, [0.0, math.sqrt(2.0), 3.0]),
    5: _extremes(_gelu_fifth, [math.sqrt(float(q)) for q in np.roots([1.0, -16.0, 51.0, -18.0])]),
}
