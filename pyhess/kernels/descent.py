"""Many starts of the joint descent over (theta, v) in parallel: one start is one task of the C core.

No Python runs between tasks, and a start's result depends on nothing but the start.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._jit import parallel, serial
from ._bridge import call15, fetch_add

BOX, BALL = 0, 1


def _descend(
    function: int, add: int, problem: int, reach: int, mid: Any, half: Any, scale: Any, tasks: Any, zs: Any, values: Any,
    evals: Any, max_evals: int, tol: float, memory: int, scratch: Any, turned: Any, work: Any, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """Improve the starts ``tasks`` of zs (S, 2P) in place; values and evals (S,). Returns the worst status.

    ``function`` and ``add`` are the addresses of ph_descend and ph_fetch_add.

    ``scale`` is the diagonal (P,) between u, the second half of a row, and the direction v; empty where v = u.

    Per worker one row of scratch, turned and work.
    """
    status = np.zeros(work.shape[0], dtype=np.int32)
    tols = np.full(1, tol)
    scale_address = scale.ctypes.data if scale.size > 0 else 0
    for worker in numba.prange(work.shape[0]):
        while cancel[0] == 0:
            task = fetch_add(add, counter.ctypes.data, 1)
            if task >= tasks.size:
                break
            start = tasks[task]
            code = call15(
                function, problem, reach, mid.ctypes.data, half.ctypes.data, scale_address, max_evals, tols.ctypes.data,
                memory, zs[start:].ctypes.data, values[start:].ctypes.data, evals[start:].ctypes.data,
                scratch[worker].ctypes.data, turned[worker].ctypes.data, work[worker].ctypes.data, cancel.ctypes.data,
            )  # fmt: skip
            status[worker] = max(status[worker], code)
    return status.max()


descend = {False: serial(_descend), True: parallel(_descend)}
