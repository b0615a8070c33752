"""Many starts of the joint descent over (theta, v) in parallel: one start is one task of the C core.

No Python runs between tasks, and a start's result depends on nothing but the start: tasks may belong to several searches.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._jit import parallel, serial
from ._bridge import call13, fetch_add

BOX, BALL = 0, 1

#: One start. First the record of descent.hpp: evaluations, the relative gain below which a step counts as a stall, BFGS pairs,
#: Frank-Wolfe steps before the first quasi-Newton step, and coordinates tried at their other end. Then the kind of region and
#: addresses: of the problem; of mid, half and scale (P,), the diagonal between u, the second half of z, and the direction v, or 0
#: where v = u; of z (2P,), its value and its number of evaluations, which are improved in place.
TASK = np.dtype(
    [("max_evals", np.int64), ("tol", np.float64)]
    + [
        (name, np.int64)
        for name in ("memory", "vertex_steps", "flips", "reach", "problem", "mid", "half", "scale", "z", "value", "evals")
    ]
)


def _descend(function: int, add: int, tasks: Any, scratch: Any, turned: Any, work: Any, counter: Any, cancel: Any) -> int:
    """Improve the starts of ``tasks`` (T,). Returns the worst status.

    ``function`` and ``add`` are the addresses of ph_descend and ph_fetch_add. Per worker one row of scratch, turned and work; the
    latter two have the problems' type and are given by their addresses (workers,).
    """
    status = np.zeros(work.shape[0], dtype=np.int32)
    for worker in numba.prange(work.shape[0]):
        while cancel[0] == 0:
            number = fetch_add(add, counter.ctypes.data, 1)
            if number >= tasks.size:
                break
            task = tasks[number]
            code = call13(
                function, task.problem, task.reach, task.mid, task.half, task.scale, tasks[number:].ctypes.data, task.z,
                task.value, task.evals, scratch[worker].ctypes.data, turned[worker], work[worker], cancel.ctypes.data,
            )  # fmt: skip
            status[worker] = max(status[worker], code)
    # `status.max()` would be another parallel loop to compile.
    worst = 0
    for worker in range(status.size):
        worst = max(worst, status[worker])
    return worst


descend = {False: serial(_descend), True: parallel(_descend)}
