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
from ._units import unit1
from .products import _whole_product, multiply
from .run import CANCELLED, CHECK, DONE, MULTIPLY_BASIS, MULTIPLY_VECTOR, NONFINITE

_multiply_parallel = multiply[True]


@serial
def _first_request(step: int, state: Any, run: Any) -> int:
    """What to multiply first; a run in phase CHECK only has its vectors checked."""
    if state[0].phase == CHECK:
        return MULTIPLY_VECTOR if state[0].found > 0 else DONE
    return int(unit1(step, run.ctypes.data))


@serial
def _solve_serial(
    capi: Any, step: int, function: int, problem: int, num_chunks: int, theta: int, linearized: int, vt: int, part: Any,
    work: int, cancel: Any, run: Any, state: Any, basis: Any, vectors: Any, w: Any,
) -> int:  # fmt: skip
    """Carry one run to its end with one thread. Returns the status of the C ABI."""
    code = 0
    request = DONE if cancel[0] != 0 else _first_request(step, state, run)
    while request != DONE:
        x = basis[state[0].step] if request == MULTIPLY_BASIS else vectors[state[0].check]
        code = _whole_product(capi, function, problem, num_chunks, theta, linearized, x.ctypes.data, vt, w, part, work, cancel)
        if code != 0 or cancel[0] != 0:
            break
        request = unit1(step, run.ctypes.data)
    if request != DONE or cancel[0] != 0:
        state[0].status = CANCELLED
    return code


@serial
def _solve_one_serial(
    capi: Any, step: int, function: int, problem: int, theta: Any, linearized: Any, vt: Any, parts: Any, work: Any, counter: Any,
    cancel: Any, run: Any, state: Any, basis: Any, vectors: Any, w: Any,
) -> int:  # fmt: skip
    code: int = _solve_serial(
        capi, step, function, problem, parts.shape[0], theta.ctypes.data, linearized.ctypes.data, vt.ctypes.data, parts[0],
        work.ctypes.data, cancel, run, state, basis, vectors, w,
    )  # fmt: skip
    return code


@serial
def _solve_one_parallel(
    capi: Any, step: int, function: int, problem: int, theta: Any, linearized: Any, vt: Any, parts: Any, work: Any, counter: Any,
    cancel: Any, run: Any, state: Any, basis: Any, vectors: Any, w: Any,
) -> int:  # fmt: skip
    """As ``_solve_serial`` with every product spread over the cores; the bits are the same."""
    code = 0
    request = DONE if cancel[0] != 0 else _first_request(step, state, run)
    while request != DONE:
        x = basis[state[0].step] if request == MULTIPLY_BASIS else vectors[state[0].check]
        counter[0] = 0
        code = _multiply_parallel(capi, function, problem, theta, linearized, x, vt, parts, w, work, counter, cancel)
        if code != 0 or cancel[0] != 0:
            break
        request = unit1(step, run.ctypes.data)
    if request != DONE or cancel[0] != 0:
        state[0].status = CANCELLED
    return code


@serial
def _batch_worker(
    capi: Any, step: int, function: int, problem: int, num_chunks: int, thetas: Any, run: Any, states: Any, basis: Any,
    vectors: Any, values: Any, residuals: Any, w: Any, linearized: int, vt: int, part: Any, work: int, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """One worker's share of the samples, drawn from the counter."""
    loss = np.zeros(1)
    code = 0
    while code == 0 and cancel[0] == 0:
        sample = fetch_add(capi.ph_fetch_add, counter.ctypes.data, 1)
        if sample >= thetas.shape[0]:
            break
        run[0].state = states[sample].ctypes.data
        run[0].vectors = vectors[sample].ctypes.data
        run[0].values = values[sample].ctypes.data
        run[0].residuals = residuals[sample].ctypes.data
        theta = thetas[sample].ctypes.data
        loss[0] = 0.0
        call3(capi.ph_prepare, problem, theta, linearized)
        code = call9(capi.ph_linearize, problem, theta, linearized, 0, num_chunks, loss.ctypes.data, 0, work, cancel.ctypes.data)
        if code != 0:
            break
        if not np.isfinite(loss[0]):
            states[sample, 0].status = NONFINITE
            continue
        code = _solve_serial(
            capi, step, function, problem, num_chunks, theta, linearized, vt, part, work, cancel, run, states[sample], basis,
            vectors[sample], w,
        )  # fmt: skip
    return code


def _solve_batch(
    capi: Any, step: int, function: int, problem: int, num_chunks: int, thetas: Any, runs: Any, states: Any, basis: Any,
    vectors: Any, values: Any, residuals: Any, ws: Any, linearized: Any, vts: Any, parts: Any, work: Any, counter: Any,
    cancel: Any,
) -> int:  # fmt: skip
    """Runs at all thetas (S, P).

    states (S, 1), vectors (S, k, P), values and residuals (S, k) belong to the samples; runs (workers, 1), basis
    (workers, m, P), ws, linearized, vts, parts and work have one row per worker.
    """
    status = np.zeros(work.shape[0], dtype=np.int32)
    for worker in numba.prange(work.shape[0]):
        status[worker] = _batch_worker(
            capi, step, function, problem, num_chunks, thetas, runs[worker], states, basis[worker], vectors, values, residuals,
            ws[worker], linearized[worker].ctypes.data, vts[worker].ctypes.data, parts[worker], work[worker].ctypes.data,
            counter, cancel,
        )  # fmt: skip
    return int(status.max())


solve_one = {False: _solve_one_serial, True: _solve_one_parallel}
solve_batch = {False: serial(_solve_batch), True: parallel(_solve_batch)}
