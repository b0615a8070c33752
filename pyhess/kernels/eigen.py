"""The loop product / Lanczos step around the C ABI: one operator with all cores, or many thetas side by side.

The same step serves both. In a batch one sample is one task, drawn from the atomic counter, and each worker has one slab of
working memory; a sample's result depends on the sample alone.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._jit import parallel, serial
from ._bridge import call2, fetch_add
from ._units import unit1
from .jobs import LINEARIZE, share
from .run import CANCELLED, CHECK, DONE, MULTIPLY_BASIS, MULTIPLY_VECTOR, NONFINITE


@serial
def _first_request(step: int, state: Any, run: Any) -> int:
    """What to multiply first; a run in phase CHECK only has its vectors checked."""
    if state[0].phase == CHECK:
        return MULTIPLY_VECTOR if state[0].found > 0 else DONE
    return int(unit1(step, run.ctypes.data))


@serial
def _solve_serial(samples: int, step: int, job: Any, cancel: Any, run: Any, state: Any, basis: Any, vectors: Any) -> int:
    """Carry one run to its end with one thread. Returns the status of the C ABI.

    ``samples`` is the address of ph_samples, ``job`` (1,) a product whose vector is still to be named.
    """
    code = 0
    request = DONE if cancel[0] != 0 else _first_request(step, state, run)
    while request != DONE:
        x = basis[state[0].step] if request == MULTIPLY_BASIS else vectors[state[0].check]
        job[0].v = x.ctypes.data
        job[0].next = 0
        code = call2(samples, job.ctypes.data, 0)
        if code != 0 or cancel[0] != 0:
            break
        request = unit1(step, run.ctypes.data)
    if request != DONE or cancel[0] != 0:
        state[0].status = CANCELLED
    return code


@serial
def _solve_one_serial(
    functions: Any, step: int, job: Any, threads: int, cancel: Any, run: Any, state: Any, basis: Any, vectors: Any
) -> int:
    code: int = _solve_serial(functions[0], step, job, cancel, run, state, basis, vectors)
    return code


@serial
def _solve_one_parallel(
    functions: Any, step: int, job: Any, threads: int, cancel: Any, run: Any, state: Any, basis: Any, vectors: Any
) -> int:
    """As ``_solve_serial`` with every product spread over the cores; the bits are the same."""
    code = 0
    request = DONE if cancel[0] != 0 else _first_request(step, state, run)
    while request != DONE:
        x = basis[state[0].step] if request == MULTIPLY_BASIS else vectors[state[0].check]
        job[0].v = x.ctypes.data
        code = share(functions, job, threads)
        if code != 0 or cancel[0] != 0:
            break
        request = unit1(step, run.ctypes.data)
    if request != DONE or cancel[0] != 0:
        state[0].status = CANCELLED
    return code


@serial
def _batch_worker(
    samples: int, add: int, step: int, job: Any, thetas: Any, chunks: int, run: Any, states: Any, basis: Any, vectors: Any,
    values: Any, residuals: Any, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """One worker's share of the samples, drawn from the counter."""
    loss = np.zeros(chunks)
    operation = job[0].operation
    job[0].value = loss.ctypes.data
    code = 0
    while code == 0 and cancel[0] == 0:
        sample = fetch_add(add, counter.ctypes.data, 1)
        if sample >= thetas.shape[0]:
            break
        run[0].state = states[sample].ctypes.data
        run[0].vectors = vectors[sample].ctypes.data
        run[0].values = values[sample].ctypes.data
        run[0].residuals = residuals[sample].ctypes.data
        job[0].theta = thetas[sample].ctypes.data
        job[0].operation = LINEARIZE
        job[0].next = 0
        code = call2(samples, job.ctypes.data, 0)
        if code != 0:
            break
        if not np.isfinite(loss.sum()):
            states[sample, 0].status = NONFINITE
            continue
        job[0].operation = operation
        code = _solve_serial(samples, step, job, cancel, run, states[sample], basis, vectors[sample])
    return code


def _solve_batch(
    samples: int, add: int, step: int, jobs: Any, thetas: Any, chunks: int, runs: Any, states: Any, basis: Any, vectors: Any,
    values: Any, residuals: Any, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """Runs at all thetas (S, P).

    states (S, 1), vectors (S, k, P), values and residuals (S, k) belong to the samples; jobs and runs (workers, 1) and basis
    (workers, m, P) have one row per worker. ``add`` is the address of ph_fetch_add.
    """
    status = np.zeros(jobs.shape[0], dtype=np.int32)
    for worker in numba.prange(jobs.shape[0]):
        status[worker] = _batch_worker(
            samples, add, step, jobs[worker], thetas, chunks, runs[worker], states, basis[worker], vectors, values, residuals,
            counter, cancel,
        )  # fmt: skip
    return int(status.max())


solve_one = {False: _solve_one_serial, True: _solve_one_parallel}
solve_batch = {False: serial(_solve_batch), True: parallel(_solve_batch)}
