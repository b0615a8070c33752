"""The njit options of the package, in one place.

``serial`` releases the GIL and caches; ``parallel`` adds ``prange``. Neither uses fastmath: results must not depend on how a
sum was reassociated. Functions that call each other must share a file, because Numba's cache does not notice an edited helper
in another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

_COMMON = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": False, "boundscheck": False}


def serial(function: F) -> F:
    """Compile without threads."""
    return numba.njit(**_COMMON)(function)  # type: ignore[no-any-return]


def parallel(function: F) -> F:
    """Compile with ``prange`` loops spread over threads."""
    return numba.njit(parallel=True, **_COMMON)(function)  # type: ignore[no-any-return]


def inlined(function: F) -> F:
    """Compile a helper that its callers take in at the Numba level: needed where a caller is parallel, and less to compile where
    there is but one.
    """
    return numba.njit(inline="always", **_COMMON)(function)  # type: ignore[no-any-return]


__all__ = ["inlined", "parallel", "serial"]
