"""One text for one meaning: the canonical JSON behind a cell's key."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError, InputTypeError

#: Floats below this that are whole numbers are written as integers, so that 16.0 is 16.
_WHOLE = 2.0**53


def canonical(value: Any) -> Any:
    """The same value made of dicts with sorted string keys, lists, strings, booleans, None, ints, and floats that are no ints.

    Raises
    ------
    InputError
        If a number is not finite.
    InputTypeError
        If something is neither a number, a string, a boolean, None, nor a list or mapping of these.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{value!r} cannot be part of a cell's key; allowed are finite numbers.")
        return int(value) if value.is_integer() and abs(value) < _WHOLE else value
    if isinstance(value, Mapping):
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    raise InputTypeError(f"{value!r} ({type(value).__name__}) cannot be part of a cell's key; allowed are plain JSON values.")


def canonical_json(value: Any) -> str:
    """Canonical JSON text: sorted keys, no spaces, ASCII, floats in the shortest form that reads back as the same float."""
    return json.dumps(canonical(value), sort_keys=True, allow_nan=False, separators=(",", ":"), ensure_ascii=True)


def key_of(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON.

    Examples
    --------
    >>> from pyhess.sweep.canonical import key_of
    >>> key_of({"width": 16, "radius": 0.5}) == key_of({"radius": 0.50, "width": 16.0})
    True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
