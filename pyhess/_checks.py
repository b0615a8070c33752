"""Validators shared by the public surface: what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
import operator
import reprlib
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from .errors import InputError, InputTypeError

FloatArray = npt.NDArray[np.float64]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class Immutable:
    """Base of objects whose attributes are set once, by ``_set`` in the constructor."""

    __slots__ = ()

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        kind = type(self).__name__
        raise AttributeError(f"{kind} is immutable; make a new {kind} instead of setting {name}.")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable; {name} cannot be deleted.")


def shown(value: object) -> str:
    """Return ``repr(value)`` cut to a length fit for a message."""
    return _SHORT.repr(value)


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a read-only, C-contiguous copy."""
    out = np.array(array, order="C", copy=True)
    out.flags.writeable = False
    return out


def choice(name: str, value: object, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is one of the allowed strings."""
    options = list(allowed)
    if not isinstance(value, str):
        raise InputTypeError(f"{name} is {shown(value)}; pass one of the strings {', '.join(options)}.")
    if value not in options:
        close = difflib.get_close_matches(value.lower().replace("-", "_"), options, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InputError(f"{name}={shown(value)} is not known; allowed: {', '.join(options)}.{hint}")
    return value


def described_kind(what: str, maker: str, content: Any, kinds: Iterable[str]) -> str:
    """Return the kind that a dictionary of ``maker`` names, one of ``kinds``."""
    if not isinstance(content, dict):
        raise InputTypeError(f"the {what} is {shown(content)}; allowed is a dictionary as {maker} gives it.")
    return choice(f"the {what}'s kind", content.get("kind"), kinds)


def exact_keys(name: str, content: Any, allowed: Iterable[str]) -> dict[str, Any]:
    """Return ``content`` if it is a mapping with these keys, all of them and no others."""
    keys = list(allowed)
    listed = ", ".join(keys)
    if not isinstance(content, dict):
        raise InputTypeError(f"{name} is {shown(content)}; allowed is a mapping with the keys {listed}.")
    missing = [key for key in keys if key not in content]
    unknown = [key for key in content if key not in keys]
    if missing:
        raise InputError(f"{name} lacks {', '.join(missing)}; allowed are exactly the keys {listed}.")
    if unknown:
        raise InputError(f"{name} has the unknown {', '.join(map(str, unknown))}; allowed are exactly the keys {listed}.")
    return content


def positive_int(name: str, value: Any) -> int:
    """Return ``value`` as an int >= 1; bools and floats are refused."""
    if isinstance(value, bool | np.bool_):
        raise InputTypeError(f"{name} is {value!r}; pass an integer >= 1.")
    try:
        number = operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise InputTypeError(f"{name} is {shown(value)} ({kind}); pass an integer >= 1.") from None
    if number < 1:
        raise InputError(f"{name} is {number}; allowed are integers >= 1.")
    return number


def positive_float(name: str, value: Any) -> float:
    """Return ``value`` as a finite float > 0; bools and strings are refused."""
    kind = type(value).__name__
    is_array = isinstance(value, np.ndarray) and value.ndim > 0
    if is_array or isinstance(value, bool | np.bool_ | str | bytes):
        raise InputTypeError(f"{name} is {shown(value)} ({kind}); pass a positive number.")
    try:
        number = float(value)
    except OverflowError:
        raise InputError(f"{name} is beyond the range of float64; allowed are finite numbers > 0.") from None
    except (TypeError, ValueError):
        raise InputTypeError(f"{name} is {shown(value)} ({kind}); pass a positive number.") from None
    if not (np.isfinite(number) and number > 0.0):
        raise InputError(f"{name} is {number}; allowed are finite numbers > 0.")
    return number


def finite_float(name: str, value: Any) -> float:
    """Return ``value`` as a finite float; bools, strings and arrays are refused."""
    kind = type(value).__name__
    is_array = isinstance(value, np.ndarray) and value.ndim > 0
    try:
        if is_array or isinstance(value, bool | np.bool_ | str | bytes):
            raise TypeError
        number = float(value)
    except OverflowError:
        number = np.inf
    except (TypeError, ValueError):
        raise InputTypeError(f"{name} is {shown(value)} ({kind}); pass a finite number.") from None
    if not np.isfinite(number):
        raise InputError(f"{name} is {number}; allowed are finite numbers.")
    return number


def as_flag(cancel: Any) -> npt.NDArray[np.int32]:
    """Return a flag that other threads may raise: ``cancel``, or a new one for None."""
    if cancel is None:
        return np.zeros(1, dtype=np.int32)
    if not (isinstance(cancel, np.ndarray) and cancel.dtype == np.int32 and cancel.shape == (1,)):
        raise InputTypeError(f"cancel is {shown(cancel)}; pass np.zeros(1, dtype=np.int32), which another thread sets to 1.")
    return cancel


def real_array(name: str, value: Any, hint: str = "") -> npt.NDArray[Any]:
    """Return ``value`` as a real array, dtype kept; ``hint`` ends the message about other dtypes."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputTypeError(
            f"{name} cannot be turned into an array: {error} Pass a NumPy array or a nested list of "
            "numbers with rows of equal length."
        ) from None
    if array.dtype.kind not in "fiub":
        allowed = "allowed are real numbers (float64, float32, integers)"
        advice = hint or f"Convert it first, e.g. with np.asarray({name}, dtype=float)."
        raise InputTypeError(f"{name} has dtype {array.dtype}; {allowed}. {advice}")
    if isinstance(value, np.ma.MaskedArray) and np.any(value.mask):
        masked = int(np.sum(value.mask))
        raise InputError(f"{name} has {masked} masked entries; allowed are arrays without. Fill or remove them first.")
    return array


def as_real(name: str, value: Any) -> FloatArray:
    """Return ``value`` as a float64 array of any shape; objects, strings and complex numbers are refused."""
    with np.errstate(over="ignore"):  # a long double beyond float64 becomes inf, which check_finite names
        return np.asarray(real_array(name, value), dtype=np.float64)


def check_finite(name: str, array: FloatArray) -> None:
    """Name the first entry that is NaN or infinite."""
    bad = ~np.isfinite(array)
    if bad.any():
        index = np.unravel_index(int(np.argmax(bad)), array.shape)
        where = f"[{', '.join(str(int(i)) for i in index)}]" if index else ""
        raise InputError(
            f"{name}{where} is {array[index]}; allowed are finite numbers. Replace or remove such values "
            f"({int(bad.sum())} in all)."
        )


def scalar_or_vector(name: str, value: Any) -> FloatArray:
    """Return ``value`` as a finite float64 array of shape () or (P,)."""
    array = as_real(name, value)
    if array.ndim > 1 or array.size == 0:
        raise InputError(f"{name} has shape {array.shape}; allowed are a number and a vector (P,). Flatten it.")
    check_finite(name, array)
    return array + 0.0  # a copy, with -0.0 made 0.0 so that equal values have equal hashes


def as_vector(name: str, value: Any, size: int) -> FloatArray:
    """Return ``value`` as a finite, contiguous float64 vector of the given length."""
    array = as_real(name, value)
    if array.shape != (size,):
        advice = f" Flatten it with {name}.ravel()." if array.size == size else ""
        raise InputError(f"{name} has shape {array.shape}; allowed is ({size},).{advice}")
    check_finite(name, array)
    return np.ascontiguousarray(array)


def as_matrix(name: str, value: Any) -> FloatArray:
    """Return ``value`` as a finite, contiguous, non-empty float64 matrix."""
    array = as_real(name, value)
    if array.ndim == 1:
        raise InputError(
            f"{name} has shape {array.shape}; allowed is (rows, columns). "
            f"Use {name}.reshape(-1, 1) for one column or {name}.reshape(1, -1) for one row."
        )
    if array.ndim != 2:
        advice = f" Use {name}.reshape(len({name}), -1) to flatten each sample." if array.ndim > 2 else ""
        raise InputError(f"{name} has {array.ndim} dimensions; allowed is a matrix (rows, columns).{advice}")
    if array.size == 0:
        raise InputError(f"{name} has shape {array.shape} and is empty; pass at least one row and one column.")
    check_finite(name, array)
    return np.ascontiguousarray(array)


def as_rng(rng: Any = None) -> np.random.Generator:
    """Return a Generator from whatever ``numpy.random.default_rng`` takes; a Generator as it is."""
    allowed = "allowed are None, a non-negative integer, a numpy.random.SeedSequence or a numpy.random.Generator"
    wrong_kind = f"rng is {shown(rng)} ({type(rng).__name__}); {allowed}. Use numpy.random.default_rng(seed)."
    if isinstance(rng, np.random.RandomState | bool | np.bool_ | str | float):
        raise InputTypeError(wrong_kind)
    try:
        return np.random.default_rng(rng)
    except TypeError:
        raise InputTypeError(wrong_kind) from None
    except ValueError:
        raise InputError(f"rng is {shown(rng)}; {allowed}. Pass a seed >= 0.") from None
