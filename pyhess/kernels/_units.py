"""Functions compiled on their own and called through their addresses, and arrays made from addresses.

Numba copies the machine-independent code of everything a function calls into its caller and optimises it again, at every
level. Code that is shared by several callers, or lies deep, is therefore compiled once as a unit with a C signature of int64
arguments; callers get its address as they get those of the C ABI.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from ._bridge import _make_caller

F = TypeVar("F", bound=Callable[..., Any])

unit1 = _make_caller(1, types.int64)
unit2 = _make_caller(2, types.int64)
unit3 = _make_caller(3, types.int64)


def _pointer(typingctx: Any, address: Any) -> Any:
    """The void pointer that ``numba.carray`` makes an array of."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), codegen


pointer: Any = intrinsic(_pointer)


_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": False, "boundscheck": False}
_NO_ENTRY: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def helper(function: F) -> F:
    """Compile a function that only units and kernels call: without an entry from Python, and kept in its callers' caches."""
    return numba.njit(**_NO_ENTRY, **_OPTIONS)(function)


@cache
def compiled_unit(function: Callable[..., int], num_arguments: int, spread: bool = False) -> Any:
    """The function (num_arguments int64 -> int64) compiled; ``.address`` for kernels, ``.ctypes`` to call it from Python."""
    signature = types.int64(*([types.int64] * num_arguments))
    return numba.cfunc(signature, cache=True, parallel=spread, **_OPTIONS)(function)


__all__ = ["carray", "compiled_unit", "helper", "pointer", "unit1", "unit2", "unit3"]
