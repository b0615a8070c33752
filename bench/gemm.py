"""A list of matrix products run by a compiled loop, through the BLAS pointers that pyhess itself calls.

Each product is one row of a table of thirteen addresses, the arguments of Fortran's xGEMM; the loop adds nothing to them.
As in the package, BLAS has one thread and workers run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pyhess._native import BLAS
from pyhess._threads import PARALLEL_LOCK, blas_single_thread

from .cases import Array

_ARGUMENTS = 13


@intrinsic
def _call_row(typingctx: Any, function: Any, row: Any) -> Any:
    """Call the C function at address ``function`` with the thirteen addresses that lie at address ``row``."""
    word = ir.IntType(64)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.FunctionType(ir.VoidType(), [word] * _ARGUMENTS).as_pointer())
        table = builder.inttoptr(arguments[1], word.as_pointer())
        operands = [builder.load(builder.gep(table, [ir.Constant(word, i)])) for i in range(_ARGUMENTS)]
        builder.call(pointer, operands)
        return arguments[0]

    return types.int64(types.int64, types.int64), codegen


@numba.njit(parallel=True, nogil=True)
def _run(function: int, table: Any, bounds: Any) -> None:
    for worker in numba.prange(bounds.size - 1):
        for row in range(bounds[worker], bounds[worker + 1]):
            _call_row(function, table[row].ctypes.data)


class Products:
    """Matrix products C = A B + beta C, column-major, grouped by worker.

    ``add`` records one; ``runner`` returns a function without arguments that runs them all.
    """

    def __init__(self, dtype: str, workers: int) -> None:
        if not BLAS.dgemm:
            raise RuntimeError("pyhess found no BLAS it knows; there is no peak to measure.")
        self._single = dtype == "float32"
        self._integer = np.int32 if BLAS.int_bytes == 4 else np.int64
        self._rows: list[list[list[int]]] = [[] for _ in range(workers)]
        self._kept: list[Any] = []  # everything whose address is in the table
        self._letters = self._keep(np.frombuffer(b"NT", dtype=np.uint8))
        self._factors = self._keep(np.array([0.0, 1.0], dtype=dtype))

    def add(
        self,
        worker: int,
        transposed: bool,
        shape: Sequence[int],
        a: int,
        lda: int,
        b: int,
        ldb: int,
        beta: float,
        c: int,
        ldc: int,
    ) -> None:
        """C (m, n) = A (m, k) B (k, n) + beta C, or with B given as (n, k); ``a``, ``b`` and ``c`` are addresses."""
        size = self._integer(0).itemsize
        whole = self._keep(np.array([*shape, lda, ldb, ldc], dtype=self._integer)).ctypes.data
        m, n, k, la, lb, lc = (whole + i * size for i in range(6))
        letters, factors = self._letters.ctypes.data, self._factors.ctypes.data
        one, scale = factors + self._factors.itemsize, factors + int(beta) * self._factors.itemsize
        self._rows[worker].append([letters, letters + int(transposed), m, n, k, one, a, la, b, lb, scale, c, lc])

    def runner(self, keep: Sequence[Array] = ()) -> Callable[[], None]:
        """The compiled loop over the products; ``keep`` are the arrays that they use."""
        table = np.array([row for rows in self._rows for row in rows], dtype=np.int64)
        bounds = np.cumsum([0] + [len(rows) for rows in self._rows])
        function = BLAS.sgemm if self._single else BLAS.dgemm
        owned = (self, tuple(keep))

        def run() -> None:
            assert owned
            with blas_single_thread(), PARALLEL_LOCK:
                _run(function, table, bounds)

        return run

    def _keep(self, array: Array) -> Array:
        self._kept.append(array)
        return array
