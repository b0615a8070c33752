"""Many starts of the joint descent over (theta, v) in parallel: one start is one task of the C core.

No Python runs between tasks, and a start's result depends on nothing but the start.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._jit import parallel, serial
from ._bridge import call13, fetch_add

BOX, BALL = 0, 1

#: One record of descent.hpp: evaluations, the relative gain below which a step counts as a stall, BFGS pairs, Frank-Wolfe steps
#: before the first quasi-Newton step, and coordinates tried at their other end.
LIMITS = np.dtype(
    [("max_evals", np.int64), ("tol", np.float64), ("memory", np.int64), ("vertex_steps", np.int64), ("flips", np.int64)]
)


def _descend(
    function: int, add: int, problem: int, reach: int, mid: Any, half: Any, scale: Any, tasks: Any, limits: Any, zs: Any,
    values: Any, evals: Any, scratch: Any, turned: Any, work: Any, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """Improve the starts ``tasks`` of zs (S, 2P) in place; values and evals (S,). Returns the worst status.

    ``function`` and ``add`` are the addresses of ph_descend and ph_fetch_add. ``scale`` is the diagonal (P,) between u, the
    second half of a row, and the direction v; empty where v = u. ``limits`` has one record per task. Per worker one row of
    scratch, turned and work; the latter two have the problem's type and are given by their addresses (workers,).
    """
    status = np.zeros(work.shape[0], dtype=np.int32)
    scale_address = scale.ctypes.data if scale.size > 0 else 0
    for worker in numba.prange(work.shape[0]):
        while cancel[0] == 0:
            task = fetch_add(add, counter.ctypes.data, 1)
            if task >= tasks.size:
                break
            start = tasks[task]
            code = call13(
                function, problem, reach, mid.ctypes.data, half.ctypes.data, scale_address, limits[task:].ctypes.data,
                zs[start:].ctypes.data, values[start:].ctypes.data, evals[start:].ctypes.data, scratch[worker].ctypes.data,
                turned[worker], work[worker], cancel.ctypes.data,
            )  # fmt: skip
            status[worker] = max(status[worker], code)
    return status.max()


descend = {False: serial(_descend), True: parallel(_descend)}
