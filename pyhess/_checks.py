"""Validators shared by the public surface: what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InputError, InputTypeError

FloatArray = npt.NDArray[np.float64]


def choice(name: str, value: object, allowed: Iterable[str]) -> str:
    """``value`` if it is one of the allowed strings."""
    options = list(allowed)
    if not isinstance(value, str):
        raise InputTypeError(f"{name} is {value!r}; pass one of the strings {', '.join(options)}.")
    if value not in options:
        close = difflib.get_close_matches(value.lower().replace("-", "_"), options, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InputError(f"{name}={value!r} is not known; allowed: {', '.join(options)}.{hint}")
    return value


def positive_int(name: str, value: Any) -> int:
    """``value`` as an int >= 1; bools and floats are refused."""
    if isinstance(value, bool | np.bool_):
        raise InputTypeError(f"{name} is {value!r}; pass an integer >= 1.")
    try:
        number = operator.index(value)
    except TypeError:
        raise InputTypeError(f"{name} is {value!r} ({type(value).__name__}); pass an integer >= 1.") from None
    if number < 1:
        raise InputError(f"{name} is {number}; allowed are integers >= 1.")
    return number


def positive_float(name: str, value: Any) -> float:
    """``value`` as a finite float > 0."""
    if isinstance(value, bool | np.bool_ | str):
        raise InputTypeError(f"{name} is {value!r}; pass a positive number.")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputTypeError(f"{name} is {value!r} ({type(value).__name__}); pass a positive number.") from None
    if not (np.isfinite(number) and number > 0.0):
        raise InputError(f"{name} is {number}; allowed are finite numbers > 0.")
    return number


def as_real(name: str, value: Any) -> FloatArray:
    """``value`` as a float64 array of any shape; objects, strings and complex numbers are refused."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputTypeError(f"{name} cannot be turned into an array: {error}. Pass a NumPy array or a nested list of numbers.") from None
    if array.dtype.kind not in "fiub":
        raise InputTypeError(f"{name} has dtype {array.dtype}; allowed are real numbers (float64, float32, integers).")
    return np.asarray(array, dtype=np.float64)


def check_finite(name: str, array: FloatArray) -> None:
    """Name the first entry that is NaN or infinite."""
    bad = ~np.isfinite(array)
    if bad.any():
        index = np.unravel_index(int(np.argmax(bad)), array.shape)
        where = ", ".join(str(int(i)) for i in index)
        raise InputError(f"{name}[{where}] is {array[index]}; all entries must be finite. Remove or impute such entries first.")


def as_vector(name: str, value: Any, size: int) -> FloatArray:
    """``value`` as a finite, contiguous float64 vector of the given length."""
    array = as_real(name, value)
    if array.shape != (size,):
        raise InputError(f"{name} has shape {array.shape}; allowed is ({size},).")
    check_finite(name, array)
    return np.ascontiguousarray(array)


def as_matrix(name: str, value: Any) -> FloatArray:
    """``value`` as a finite, contiguous, non-empty float64 matrix."""
    array = as_real(name, value)
    if array.ndim == 1:
        raise InputError(
            f"{name} has shape {array.shape}; allowed is (rows, columns). "
            f"Use {name}.reshape(-1, 1) for one column or {name}.reshape(1, -1) for one row."
        )
    if array.ndim != 2:
        raise InputError(f"{name} has {array.ndim} dimensions; allowed is a matrix (rows, columns).")
    if array.size == 0:
        raise InputError(f"{name} has shape {array.shape} and is empty; at least one row and one column are needed.")
    check_finite(name, array)
    return np.ascontiguousarray(array)


def as_rng(rng: Any = None) -> np.random.Generator:
    """A Generator from None, a non-negative int, a SeedSequence, a BitGenerator or a Generator (SPEC 7)."""
    allowed = "allowed are None, a non-negative integer, a numpy.random.SeedSequence or a numpy.random.Generator"
    if isinstance(rng, np.random.RandomState | bool | str | float):
        raise InputTypeError(f"rng is {rng!r} ({type(rng).__name__}); {allowed}.")
    try:
        return np.random.default_rng(rng)
    except TypeError:
        raise InputTypeError(f"rng is {rng!r} ({type(rng).__name__}); {allowed}.") from None
    except ValueError:
        raise InputError(f"rng is {rng!r}; {allowed}.") from None
