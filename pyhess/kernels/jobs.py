"""Threads for the core's jobs: every thread calls the same C function, which draws tasks until none is left.

The record is that of job.hpp. No result depends on the number of threads or on who drew which task.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._jit import parallel
from ._bridge import call2

#: What a job does; the codes of job.hpp.
LINEARIZE, HVP, GGN, JET = 0, 1, 2, 3

#: Addresses and counts; strides in elements.
JOB = np.dtype(
    [
        (name, np.int64)
        for name in (
            "problem", "operation", "fresh", "count", "theta", "theta_stride", "state", "state_stride", "v", "v_stride", "out",
            "out_stride", "grad", "grad_stride", "value", "value_stride", "vt", "vt_stride", "work", "work_stride", "parts",
            "parts_stride", "next", "cancel",
        )
    ]
)  # fmt: skip


@parallel
def share(functions: Any, job: Any, threads: int) -> int:
    """Carry out a job (1,) by some threads, one function (address) after the other; returns the worst status."""
    status = np.zeros(threads, dtype=np.int32)
    address = job.ctypes.data
    for k in range(functions.size):
        function = functions[k]
        job[0].next = 0
        for thread in numba.prange(threads):
            status[thread] = max(status[thread], call2(function, address, thread))
    # `status.max()` would be another parallel loop to compile.
    worst = 0
    for thread in range(threads):
        worst = max(worst, status[thread])
    return worst
