"""Starts that a caller brings along: points with or without a direction, from other searches, radii or widths."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import as_vector, shown
from ..errors import InputError, InputTypeError
from ..penalties import Penalty
from ..regions import Box, Region

FloatArray = npt.NDArray[np.float64]
#: A point theta (P,) and a direction v (P,), or None: that of a few Lanczos steps.
WarmPair = tuple[npt.ArrayLike, npt.ArrayLike | None]
Warm = WarmPair | Sequence[WarmPair]
CheckedPairs = list[tuple[FloatArray, FloatArray | None]]

_ALLOWED = "pass one pair (theta, v) or a list of such pairs, v None for the direction of a few Lanczos steps"


def as_warm(warm: Any, size: int) -> CheckedPairs:
    """Return the pairs as float64 vectors; None makes an empty list.

    Raises
    ------
    InputError, InputTypeError
        If there are no pairs in it, a vector has the wrong length or is not finite, or a direction is zero.
    """
    if warm is None:
        return []
    if not isinstance(warm, tuple | list):
        raise InputTypeError(f"warm is {shown(warm)} ({type(warm).__name__}); {_ALLOWED}.")
    single = len(warm) == 2 and _is_vector(warm[0])
    return [_as_pair("warm" if single else f"warm[{i}]", pair, size) for i, pair in enumerate([warm] if single else warm)]


def _is_vector(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, tuple | list) and len(value) > 0 and isinstance(value[0], Real)


def _as_pair(name: str, pair: Any, size: int) -> tuple[FloatArray, FloatArray | None]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputTypeError(f"{name} is {shown(pair)}; {_ALLOWED}.")
    theta = as_vector(f"{name}: theta", pair[0], size)
    if pair[1] is None:
        return theta, None
    v = as_vector(f"{name}: v", pair[1], size)
    if not v.any():
        raise InputError(
            f"{name}: v is the zero vector; a direction needs at least one entry that is not zero. Pass None instead."
        )
    return theta, v


def warm_rows(
    pairs: CheckedPairs, region: Region, mid: FloatArray, half: FloatArray, penalty: Penalty, rng: np.random.Generator
) -> FloatArray:
    """Return the starts (x, u) of the pairs, one per row: theta = mid + half x projected into the region, v = S u."""
    size = mid.size
    rows = np.empty((len(pairs), 2 * size))
    left_out = penalty.leaves_out(size)
    # Where S changes during the search, it begins with the identity.
    scale = None if left_out.any() or penalty.depends_on_strength else penalty.scale(1.0, size)
    for row, (theta, v) in zip(rows, pairs, strict=True):
        x = (region.project(theta) - mid) / half
        row[:size] = np.clip(x, -1.0, 1.0) if isinstance(region, Box) else x
        noise = rng.standard_normal(size)
        u = noise if v is None else v / np.abs(v).max()
        if v is not None and scale is not None:
            with np.errstate(over="ignore", under="ignore"):
                u = np.divide(u, scale, out=np.zeros(size), where=scale > 0.0)  # where S is zero, no u reaches
            largest = np.abs(u).max()
            u = u / largest if 0.0 < largest < np.inf else noise
        if left_out.any() and not u[left_out].any():  # such a search begins within the biases
            u[left_out] = 1e-8 * noise[left_out]
        row[size:] = u / np.linalg.norm(u)
    return rows
