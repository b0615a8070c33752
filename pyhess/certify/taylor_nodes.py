"""Derivatives of activations near points as cubic polynomials, with a bound of the error.

About s, |d| <= w, phi^(order)(s + d) is close to the polynomial that has the same values at the four Chebyshev nodes of [-w, w],
which is off by at most sup |phi^(order+4)| w⁴ / (8 · 24), an eighth of what Taylor's is. Where w is small Taylor's has fewer
roundings.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .higher_ranges import derivative_bound, derivative_points
from .intervals import UNIT, Interval, gamma
from .ranges import derivative_range

FloatArray = npt.NDArray[np.float64]

#: Changes from which on the nodes serve.
_WIDE = 1e-3
_OUTER, _INNER = math.cos(math.pi / 8.0), math.cos(3.0 * math.pi / 8.0)


def polynomial(
    name: str, beta: float, order: int, s: FloatArray, w: FloatArray, degree: int
) -> tuple[list[FloatArray], FloatArray]:
    """(c_0, …) and an error e: |phi^(order)(s + d) - sum_k c_k d^k| <= e for |d| <= w, order 0, 1 or 2, degree 2 or 3."""
    (*lower, cubic), error = _cubic_polynomial(name, beta, order, s, w)
    if degree == 3:
        return [*lower, cubic], error
    # |d³ - 3 w² d/4| <= w³/4.
    error = (error + 0.25 * np.abs(cubic) * w**3 + gamma(8) * (np.abs(lower[1]) + np.abs(cubic) * w**2) * w) * (1.0 + gamma(16))
    return [lower[0], lower[1] + 0.75 * w**2 * cubic, lower[2]], error


def _cubic_polynomial(name: str, beta: float, order: int, s: FloatArray, w: FloatArray) -> tuple[list[FloatArray], FloatArray]:
    """The same for degree 3."""
    around = Interval(s - w - 4.0 * UNIT * np.abs(s), s + w + 4.0 * UNIT * np.abs(s))
    fourth = derivative_bound(name, beta, order + 4, around) * w**4 / 24.0
    coefficients, error = _by_derivatives(name, beta, order, s, w)
    error = error + fourth
    if (w > _WIDE).any():
        width = np.maximum(w, _WIDE)
        others, rounding = _by_values(name, beta, order, s, width, derivative_range(name, beta, order + 1, around).magnitude)
        wide = w > _WIDE
        coefficients = [np.where(wide, x, y) for x, y in zip(others, coefficients, strict=True)]
        error = np.where(wide, 0.125 * fourth * (1.0 + gamma(64)) + rounding, error)
    return coefficients, error * (1.0 + gamma(32))


def _by_derivatives(name: str, beta: float, order: int, s: FloatArray, w: FloatArray) -> tuple[list[FloatArray], FloatArray]:
    """Taylor's polynomial, and what its coefficients are off by."""
    found, error = [], np.zeros_like(s)
    for k in range(4):
        slope, off = derivative_points(name, beta, order + k, s)
        found.append(slope / math.factorial(k))
        error = error + (off + 2.0 * UNIT * np.abs(slope)) * w**k
    return found, error


def _by_values(
    name: str, beta: float, order: int, s: FloatArray, w: FloatArray, slope: FloatArray
) -> tuple[list[FloatArray], FloatArray]:
    """The polynomial through the values at the nodes, and what their errors and roundings make: twice the largest.

    That is more than the nodes' Lebesgue constant, 1.85. ``slope`` bounds the derivative.
    """
    even, odd, error, largest = [], [], np.zeros_like(s), np.zeros_like(s)
    for node in (_OUTER, _INNER):
        x = node * w
        (above, above_off), (below, below_off) = (derivative_points(name, beta, order, s + side * x) for side in (1.0, -1.0))
        even.append(0.5 * (above + below))
        odd.append(0.5 * (above - below) / x)
        error = np.maximum(error, np.maximum(above_off, below_off))
        largest = np.maximum(largest, np.maximum(np.abs(above), np.abs(below)))
    outer, inner = (_OUTER * w) ** 2, (_INNER * w) ** 2
    second, third = (even[0] - even[1]) / (outer - inner), (odd[0] - odd[1]) / (outer - inner)
    # The points s + x are rounded.
    error = 2.0 * (error + 2.0 * UNIT * slope * (np.abs(s) + w)) + gamma(128) * largest
    return [even[0] - second * outer, odd[0] - third * outer, second, third], error
