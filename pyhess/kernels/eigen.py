"""The loop product / Lanczos step around the C ABI: one operator with all cores, or many thetas side by side.

The same step serves both. In a batch one sample is one task, drawn from the atomic counter, and each worker has one slab of
working memory; a sample's result depends on the sample alone.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._jit import parallel, serial
from ._bridge import call3, call9, fetch_add
from .lanczos import DONE, MULTIPLY_BASIS, MULTIPLY_VECTOR, advance
from .products import _whole_product, multiply
from .ritz import CANCELLED, CHECK, NONFINITE, Run

_advance_serial = advance[False]
_advance_parallel = advance[True]
_multiply_parallel = multiply[True]


@serial
def _solve_serial(
    capi: Any, function: int, problem: int, num_chunks: int, theta: int, state: int, vt: int, part: Any, work: int, cancel: Any,
    run: Any, w: Any,
) -> int:  # fmt: skip
    """Carry one run to its end with one thread; a run in phase CHECK only has its vectors checked. Returns the C status."""
    record = run.state[0]
    if cancel[0] != 0:
        record.status = CANCELLED
        return 0
    if record.phase == CHECK:
        request = MULTIPLY_VECTOR if record.found > 0 else DONE
    else:
        request = _advance_serial(run, w)
    while request != DONE:
        x = run.basis[record.step] if request == MULTIPLY_BASIS else run.vectors[record.check]
        code = _whole_product(capi, function, problem, num_chunks, theta, state, x.ctypes.data, vt, w, part, work, cancel)
        if code != 0 or cancel[0] != 0:
            record.status = CANCELLED
            return code
        request = _advance_serial(run, w)
    return 0


@serial
def _solve_one_serial(
    capi: Any, function: int, problem: int, theta: Any, state: Any, vt: Any, parts: Any, work: Any, counter: Any, cancel: Any,
    run: Any, w: Any,
) -> int:  # fmt: skip
    return _solve_serial(
        capi, function, problem, parts.shape[0], theta.ctypes.data, state.ctypes.data, vt.ctypes.data, parts[0],
        work.ctypes.data, cancel, run, w,
    )  # fmt: skip


@serial
def _solve_one_parallel(
    capi: Any, function: int, problem: int, theta: Any, state: Any, vt: Any, parts: Any, work: Any, counter: Any, cancel: Any,
    run: Any, w: Any,
) -> int:  # fmt: skip
    """As ``_solve_serial`` with every product and every step spread over the cores; the bits are the same."""
    record = run.state[0]
    if cancel[0] != 0:
        record.status = CANCELLED
        return 0
    if record.phase == CHECK:
        request = MULTIPLY_VECTOR if record.found > 0 else DONE
    else:
        request = _advance_parallel(run, w)
    while request != DONE:
        x = run.basis[record.step] if request == MULTIPLY_BASIS else run.vectors[record.check]
        counter[0] = 0
        code = _multiply_parallel(capi, function, problem, theta, state, x, vt, parts, w, work, counter, cancel)
        if code != 0 or cancel[0] != 0:
            record.status = CANCELLED
            return code
        request = _advance_parallel(run, w)
    return 0


@serial
def _batch_worker(
    capi: Any, function: int, problem: int, num_chunks: int, thetas: Any, slab: Any, ws: Any, worker: int, state: int, vt: int,
    part: Any, work: int, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """One worker's share of the samples, drawn from the counter."""
    value = np.zeros(1)
    code = 0
    while code == 0 and cancel[0] == 0:
        sample = fetch_add(capi.ph_fetch_add, counter.ctypes.data, 1)
        if sample >= thetas.shape[0]:
            break
        run = Run(
            slab.state[sample], slab.basis[worker], slab.alpha[worker], slab.beta[worker], slab.known[worker],
            slab.vectors[sample], slab.values[sample], slab.residuals[sample], slab.remainder[worker], slab.partial[worker],
            slab.coefficients[worker], slab.small[worker], slab.last[worker],
        )  # fmt: skip
        theta = thetas[sample].ctypes.data
        value[0] = 0.0
        call3(capi.ph_prepare, problem, theta, state)
        code = call9(capi.ph_linearize, problem, theta, state, 0, num_chunks, value.ctypes.data, 0, work, cancel.ctypes.data)
        if code != 0:
            break
        if not np.isfinite(value[0]):
            run.state[0].status = NONFINITE
            continue
        code = _solve_serial(capi, function, problem, num_chunks, theta, state, vt, part, work, cancel, run, ws[worker])
    return code


def _solve_batch(
    capi: Any, function: int, problem: int, num_chunks: int, thetas: Any, slab: Any, ws: Any, states: Any, vts: Any, parts: Any,
    work: Any, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """Runs at all thetas (S, P). ``slab`` is a Run whose state, vectors, values and residuals have a leading axis S and whose
    other arrays have one row per worker, as ws, states, vts, parts and work do."""
    status = np.zeros(work.shape[0], dtype=np.int32)
    for worker in numba.prange(work.shape[0]):
        status[worker] = _batch_worker(
            capi, function, problem, num_chunks, thetas, slab, ws, worker, states[worker].ctypes.data, vts[worker].ctypes.data,
            parts[worker], work[worker].ctypes.data, counter, cancel,
        )  # fmt: skip
    return status.max()


solve_one = {False: _solve_one_serial, True: _solve_one_parallel}
solve_batch = {False: serial(_solve_batch), True: parallel(_solve_batch)}
