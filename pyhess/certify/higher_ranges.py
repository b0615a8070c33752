"""Derivatives of activations at points up to the fifth order, and bounds of the fourth to the sixth over intervals.

The k-th derivative of tanh is (1 - t²) Q_k(t), t = tanh(s), with Q_1 = 1 and Q_{k+1} = (1 - t²) Q_k' - 2t Q_k; that of GELU is,
from the second on, n(s) P_k(s), n the normal density, with P_2 = 2 - s² and P_{k+1} = P_k' - s P_k. Between the zeros of the next
polynomial they are monotone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial import Polynomial

from .intervals import TINY, Interval
from .ranges import derivative_range

FloatArray = npt.NDArray[np.float64]

#: Relative error allowed for an expression of a few operations on enclosures and library functions.
_RELATIVE = 2.0**-44
#: Critical points count as inside an interval that comes so near.
_NEAR = 1e-6
#: Beyond this GELU's derivatives from the third on are below 1e-300.
_GELU_FAR = 40.0
_HIGHEST = 6


@dataclass(frozen=True)
class _Derivative:
    """A polynomial in s or tanh(s) times (1 - tanh²) or the normal density, with its critical points and the values there."""

    polynomial: Polynomial
    of_tanh: bool
    critical: list[tuple[float, float]]

    def __call__(self, s: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values, and what their errors are relative to."""
        if self.of_tanh:
            e = np.exp(-2.0 * np.abs(s))
            factor, at, blur = 4.0 * e / (1.0 + e) ** 2, np.tanh(s), 1.0 + np.minimum(np.abs(s), 800.0)
        else:
            at = np.clip(s, -_GELU_FAR, _GELU_FAR)
            factor, blur = np.exp(-0.5 * at * at) / math.sqrt(2.0 * math.pi), 1.0 + at * at
        size = Polynomial(np.abs(self.polynomial.coef))(np.abs(at))
        return factor * self.polynomial(at), factor * size * blur


def _derivatives(first: Polynomial, order: int, of_tanh: bool) -> dict[int, _Derivative]:
    """Those of the orders 3 to 6, from the polynomial of the given order."""
    found = {order: first}
    slope = Polynomial([1.0, 0.0, -1.0]) if of_tanh else Polynomial([1.0])
    turn = Polynomial([0.0, 2.0 if of_tanh else 1.0])
    for k in range(order, _HIGHEST + 1):
        found[k + 1] = slope * found[k].deriv() - turn * found[k]
    made = {}
    for k in range(3, _HIGHEST + 1):
        roots = found[k + 1].roots()
        real = roots.real[np.abs(roots.imag) < 1e-9]
        places = np.arctanh(real[np.abs(real) < 1.0]) if of_tanh else real
        values = _Derivative(found[k], of_tanh, [])(places)[0]
        # The error of a position counts with its square.
        made[k] = _Derivative(found[k], of_tanh, list(zip(places.tolist(), values.tolist(), strict=True)))
    return made


_TANH = _derivatives(Polynomial([1.0]), 1, of_tanh=True)
_GELU = _derivatives(Polynomial([2.0, 0.0, -1.0]), 2, of_tanh=False)


def _scaled(name: str, beta: float, order: int) -> tuple[_Derivative, float, float]:
    """(f, inner, outer): the derivative is outer f(inner s)."""
    if name == "gelu":
        return _GELU[order], 1.0, 1.0
    if name == "tanh":
        return _TANH[order], 1.0, 1.0
    # sigmoid(z) = (1 + tanh(z/2)) / 2, and softplus' = sigmoid(beta s).
    if name == "sigmoid":
        return _TANH[order], 0.5, 0.5 ** (order + 1)
    return _TANH[order - 1], 0.5 * beta, 0.5**order * beta ** (order - 1)


def derivative_points(name: str, beta: float, order: int, s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Phi^(order) at the points s, for orders up to 5, and a bound of its error."""
    if order <= 3 or name == "identity":
        found = derivative_range(name, beta, min(order, 3), Interval.point(s))
        return found.middle, found.radius
    function, inner, outer = _scaled(name, beta, order)
    value, size = function(inner * s)
    return outer * value, outer * size * _RELATIVE + TINY


def derivative_bound(name: str, beta: float, order: int, s: Interval) -> FloatArray:
    """Upper bound of |phi^(order)| over s, for orders 4 to 6."""
    if name == "identity":
        return np.zeros_like(s.lo)
    function, inner, outer = _scaled(name, beta, order)
    z = s.scaled(inner)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        (low, low_size), (high, high_size) = function(z.lo), function(z.hi)
    found = np.maximum(np.abs(low) + low_size * _RELATIVE, np.abs(high) + high_size * _RELATIVE)
    for position, extreme in function.critical:
        inside = (z.lo <= position + _NEAR) & (z.hi >= position - _NEAR)
        found = np.where(inside, np.maximum(found, abs(extreme) * (1.0 + _RELATIVE)), found)
    return outer * found * (1.0 + _RELATIVE) + TINY
