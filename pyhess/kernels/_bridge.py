"""Calling the C ABI from Numba kernels.

A function's address is handed to the kernel as an integer argument and called through one intrinsic per signature. Unlike a
registered symbol or a ctypes pointer this survives ``cache=True``: the address is fresh in every process.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _make_caller(num_arguments: int, returns: Any) -> Any:
    """An intrinsic ``call(address, a1, …, an)`` for a C function of int64 arguments."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result = context.get_value_type(signature.return_type)
        function = ir.FunctionType(result, [ir.IntType(64)] * num_arguments)
        pointer = builder.inttoptr(arguments[0], function.as_pointer())
        return builder.call(pointer, list(arguments[1:]))

    def typing(typingctx: Any, *operands: Any) -> Any:
        return returns(*([types.int64] * (num_arguments + 1))), codegen

    names = ", ".join(f"a{i}" for i in range(num_arguments + 1))
    scope: dict[str, Any] = {"typing": typing}
    # intrinsic() wants a function with exactly the arguments of the call
    exec(f"def call(typingctx, {names}):\n    return typing(typingctx, {names})\n", scope)
    return intrinsic(scope["call"])


call2 = _make_caller(2, types.int32)  # ph_samples, ph_transposes, ph_chunks, ph_sums
call13 = _make_caller(13, types.int32)  # ph_descend
fetch_add = _make_caller(2, types.int64)  # ph_fetch_add
