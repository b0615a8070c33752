"""Arrays that carry a bound of their own rounding error.

Every operation computes its result in the floating type of its operands and adds up how far that
result can be from the one in real numbers: the errors of the operands passed through the operation,
plus a few units of the last place for the operation itself. The machine epsilon is used where half of
it would do; the spare factor two absorbs the rounding of the error terms themselves, which are
computed in float64 without further care.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
AnyFloatArray = npt.NDArray[np.floating[Any]]

#: Relative error, in units of epsilon, granted to one call of an elementary function (tanh, exp, log1p, erf).
#: NumPy's vectorised versions promise 4 units of the last place.
FUNCTION_ULPS = 8.0
#: Absolute error that covers gradual underflow in any product or sum formed here.
UNDERFLOW = 1e-300


def epsilon(value: AnyFloatArray) -> float:
    """Machine epsilon (twice the unit roundoff) of the array's floating type."""
    return float(np.finfo(value.dtype).eps)


@dataclass(frozen=True, slots=True, eq=False)
class Approx:
    """Numbers known up to an error: ``|value - exact| <= error`` entry by entry."""

    value: AnyFloatArray
    error: FloatArray

    @classmethod
    def exact(cls, value: AnyFloatArray) -> Approx:
        """Wrap numbers that carry no error."""
        return cls(value, np.zeros(value.shape))

    @property
    def magnitude(self) -> FloatArray:
        """|value| in float64."""
        return np.abs(self.value).astype(np.float64)

    def __neg__(self) -> Approx:
        return Approx(-self.value, self.error)

    def __add__(self, other: Approx) -> Approx:
        value = self.value + other.value
        return Approx(value, self.error + other.error + _rounding(value))

    def __sub__(self, other: Approx) -> Approx:
        return self + (-other)

    def __mul__(self, other: Approx) -> Approx:
        value = self.value * other.value
        error = self.magnitude * other.error + other.magnitude * self.error + self.error * other.error + _rounding(value)
        return Approx(value, error)

    def scale(self, factor: float) -> Approx:
        """Multiply by an exact number."""
        value = self.value * factor
        return Approx(value, abs(factor) * self.error + _rounding(value))

    def divide(self, divisor: float) -> Approx:
        """Divide by an exact number."""
        value = self.value / divisor
        return Approx(value, self.error / abs(divisor) + _rounding(value))

    def shift(self, offset: AnyFloatArray | float) -> Approx:
        """Add exact numbers."""
        value = self.value + offset
        return Approx(value, self.error + _rounding(value))

    def row_sums(self) -> Approx:
        """Sum over the last axis, in any order of summation."""
        terms = self.value.shape[-1]
        error = self.error.sum(axis=-1) + terms * epsilon(self.value) * self.magnitude.sum(axis=-1)
        return Approx(self.value.sum(axis=-1), error + UNDERFLOW)


def _rounding(value: AnyFloatArray) -> FloatArray:
    return epsilon(value) * np.abs(value).astype(np.float64) + UNDERFLOW


def join(parts: list[Approx]) -> Approx:
    """Concatenate along the first axis."""
    return Approx(np.concatenate([p.value for p in parts]), np.concatenate([p.error for p in parts]))


def affine(inputs: list[tuple[Approx, AnyFloatArray]], bias: AnyFloatArray | None, factor: np.floating[Any]) -> Approx:
    """Return ``factor * (sum_k a_k W_k' + bias)`` for pairs ``(a_k (n, in), W_k (out, in))`` with exact W and bias.

    ``factor`` is a layer scale 1/sqrt(fan-in) computed in the floating type of the operands, so known up to one epsilon.
    """
    first = inputs[0][0].value
    eps = epsilon(first)
    size = (first.shape[0], inputs[0][1].shape[0])
    value: AnyFloatArray = np.zeros(size, dtype=first.dtype)
    magnitude = np.zeros(size)
    carried = np.zeros(size)
    terms = 0
    for approx, weights in inputs:
        absolute = np.abs(weights).astype(np.float64).T
        value = value + approx.value @ weights.T
        magnitude += approx.magnitude @ absolute
        if approx.error.any():
            carried += approx.error @ absolute
        terms += weights.shape[1] + 1
    if bias is not None:
        value = value + bias
        magnitude += np.abs(bias).astype(np.float64)
        terms += 1
    error = float(factor) * (carried + (terms + 3) * eps * magnitude + terms * UNDERFLOW)
    return Approx(value * factor, error)


def weighted_mean(terms: Approx, weights: FloatArray | None) -> tuple[Any, float]:
    """Return ``sum w_i x_i / sum w_i`` over a vector and a bound of its error."""
    exact = np.ones(terms.value.shape) if weights is None else weights
    weight = exact.astype(terms.value.dtype)
    total = pairwise_sum(weight)
    mean = pairwise_sum(weight * terms.value) / total
    divisor = float(total)
    eps = epsilon(terms.value)
    depth = 2.0 * np.ceil(np.log2(terms.value.size + 1)) + 4.0
    magnitude = float(exact @ terms.magnitude) / divisor
    error = float(exact @ terms.error) / divisor + depth * eps * magnitude + UNDERFLOW
    return mean, float(error)


def pairwise_sum(values: AnyFloatArray) -> Any:
    """Sum by repeated halving: at most ceil(log2 n) roundings touch any term."""
    while values.size > 1:
        if values.size % 2:
            values = np.append(values, values.dtype.type(0))
        values = values[0::2] + values[1::2]
    return values[0]
