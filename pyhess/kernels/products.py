"""One theta on all cores: the chunks of the data are tasks, their parts are added in a fixed order.

Each function exists in two compilations of the same source, serial and parallel. Every chunk has its own accumulator and the
number of chunks depends on the sizes alone, so the results are the same bits for every number of threads. With a single chunk
there is nothing to spread and nothing to add up.

Arrays shared by all functions: ``work`` (workers, work_size) one row per worker; ``counter`` (1,) int64, zero on entry;
``cancel`` (1,) int32. Return value: the worst status of the C ABI.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._jit import inlined, parallel, serial
from ._bridge import call3, call9, call10, call12, fetch_add

#: Elements that one step of the final sum adds up; a fixed partition keeps the order of additions fixed.
_STRIP = 4096


@inlined
def _sum_parts(parts: Any, out: Any) -> None:
    """Out = parts[0] + parts[1] + …, strip by strip."""
    size = out.size
    for strip in numba.prange((size + _STRIP - 1) // _STRIP):
        begin = strip * _STRIP
        end = min(begin + _STRIP, size)
        # Added up in out, in the products' own type as in _whole_product: a scalar could be kept with more digits.
        for i in range(begin, end):
            out[i] = parts[0, i]
        for chunk in range(1, parts.shape[0]):
            for i in range(begin, end):
                out[i] += parts[chunk, i]


def _linearize(
    capi: Any, problem: int, theta: Any, state: Any, values: Any, grads: Any, gradient: Any, work: Any, counter: Any, cancel: Any
) -> int:
    """Fill the state; ``values`` (chunks,) gets the parts of the loss; ``gradient`` (P,) or (0,) the gradient."""
    chunks = values.size
    with_gradient = gradient.size > 0
    status = np.zeros(work.shape[0], dtype=np.int32)
    status[0] = call3(capi.ph_prepare, problem, theta.ctypes.data, state.ctypes.data)
    for worker in numba.prange(work.shape[0]):
        while True:
            chunk = fetch_add(capi.ph_fetch_add, counter.ctypes.data, 1)
            if chunk >= chunks:
                break
            grad = 0
            if with_gradient:
                grads[chunk, :] = 0.0
                grad = grads[chunk].ctypes.data
            code = call9(
                capi.ph_linearize, problem, theta.ctypes.data, state.ctypes.data, chunk, chunk + 1,
                values[chunk:].ctypes.data, grad, work[worker].ctypes.data, cancel.ctypes.data,
            )  # fmt: skip
            status[worker] = max(status[worker], code)
    if with_gradient:
        _sum_parts(grads, gradient)
    return status.max()


def _multiply(
    capi: Any, function: int, problem: int, theta: Any, state: Any, v: Any, vt: Any, parts: Any, out: Any, work: Any,
    counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """Out = H v or G v, by the address of ph_hvp or ph_ggn; ``parts`` (chunks, P)."""
    chunks = parts.shape[0]
    status = np.zeros(work.shape[0], dtype=np.int32)
    status[0] = call3(capi.ph_transpose, problem, v.ctypes.data, vt.ctypes.data)
    for worker in numba.prange(work.shape[0]):
        while True:
            chunk = fetch_add(capi.ph_fetch_add, counter.ctypes.data, 1)
            if chunk >= chunks:
                break
            parts[chunk, :] = 0.0
            code = call10(
                function, problem, theta.ctypes.data, state.ctypes.data, v.ctypes.data, vt.ctypes.data,
                parts[chunk].ctypes.data, chunk, chunk + 1, work[worker].ctypes.data, cancel.ctypes.data,
            )  # fmt: skip
            status[worker] = max(status[worker], code)
    _sum_parts(parts, out)
    return status.max()


def _jet(
    capi: Any, problem: int, theta: Any, state: Any, v: Any, vt: Any, qs: Any, hv_parts: Any, grad_parts: Any, hv: Any,
    grad: Any, work: Any, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """Qs (chunks,) parts of v'Hv; hv = H v; grad = d(v'Hv)/dtheta."""
    chunks = qs.size
    status = np.zeros(work.shape[0], dtype=np.int32)
    status[0] = call3(capi.ph_transpose, problem, v.ctypes.data, vt.ctypes.data)
    for worker in numba.prange(work.shape[0]):
        while True:
            chunk = fetch_add(capi.ph_fetch_add, counter.ctypes.data, 1)
            if chunk >= chunks:
                break
            hv_parts[chunk, :] = 0.0
            grad_parts[chunk, :] = 0.0
            code = call12(
                capi.ph_jet, problem, theta.ctypes.data, state.ctypes.data, v.ctypes.data, vt.ctypes.data,
                qs[chunk:].ctypes.data, hv_parts[chunk].ctypes.data, grad_parts[chunk].ctypes.data, chunk, chunk + 1,
                work[worker].ctypes.data, cancel.ctypes.data,
            )  # fmt: skip
            status[worker] = max(status[worker], code)
    _sum_parts(hv_parts, hv)
    _sum_parts(grad_parts, grad)
    return status.max()


@serial
def _whole_product(
    capi: Any, function: int, problem: int, num_chunks: int, theta: int, state: int, v: int, vt: int, out: Any, part: Any,
    work: int, cancel: Any,
) -> int:  # fmt: skip
    """Out = H v or G v by one worker; the chunks' parts are added as in ``_multiply``, so the bits are the same."""
    out[:] = 0.0
    call3(capi.ph_transpose, problem, v, vt)
    code = call10(function, problem, theta, state, v, vt, out.ctypes.data, 0, 1, work, cancel.ctypes.data)
    for chunk in range(1, num_chunks):
        if code != 0:
            break
        part[:] = 0.0
        code = call10(function, problem, theta, state, v, vt, part.ctypes.data, chunk, chunk + 1, work, cancel.ctypes.data)
        for i in range(out.size):
            out[i] += part[i]
    return code


@serial
def _block_worker(
    capi: Any, function: int, problem: int, num_chunks: int, theta: Any, state: Any, vs: Any, out: Any, vt: int, part: Any,
    work: int, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """One worker's share of the vectors of a block, drawn from the counter."""
    code = 0
    while code == 0:
        k = fetch_add(capi.ph_fetch_add, counter.ctypes.data, 1)
        if k >= vs.shape[0]:
            break
        code = _whole_product(
            capi, function, problem, num_chunks, theta.ctypes.data, state.ctypes.data, vs[k].ctypes.data, vt, out[k], part,
            work, cancel,
        )  # fmt: skip
    return code


def _multiply_block(
    capi: Any, function: int, problem: int, num_chunks: int, theta: Any, state: Any, vs: Any, out: Any, vts: Any, parts: Any,
    work: Any, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """out[k] = H vs[k] or G vs[k] at one theta; one vector is one task, one row of vts, parts and work per worker."""
    status = np.zeros(work.shape[0], dtype=np.int32)
    for worker in numba.prange(work.shape[0]):
        status[worker] = _block_worker(
            capi, function, problem, num_chunks, theta, state, vs, out, vts[worker].ctypes.data, parts[worker],
            work[worker].ctypes.data, counter, cancel,
        )  # fmt: skip
    return status.max()


@serial
def _linearize_sample(
    capi: Any, problem: int, num_chunks: int, theta: int, state: int, values: Any, work: int, cancel: Any
) -> int:
    """Fill the state at one theta; the parts of the loss are added to ``values`` (chunks,)."""
    call3(capi.ph_prepare, problem, theta, state)
    code = 0
    for chunk in range(num_chunks):
        if code != 0:
            break
        code = call9(
            capi.ph_linearize, problem, theta, state, chunk, chunk + 1, values[chunk:].ctypes.data, 0, work, cancel.ctypes.data
        )
    return code


@serial
def _batch_worker(
    capi: Any, function: int, problem: int, num_chunks: int, thetas: Any, states: Any, fresh: bool, worker: Any, vs: Any,
    out: Any, vt: int, part: Any, work: int, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """One worker's share of the samples, drawn from the counter."""
    losses = np.zeros(num_chunks)
    code = 0
    while code == 0:
        sample = fetch_add(capi.ph_fetch_add, counter.ctypes.data, 1)
        if sample >= thetas.shape[0]:
            break
        theta = thetas[sample].ctypes.data
        state = states[worker if fresh else sample].ctypes.data
        if fresh:
            code = _linearize_sample(capi, problem, num_chunks, theta, state, losses, work, cancel)
        if code == 0:
            code = _whole_product(
                capi, function, problem, num_chunks, theta, state, vs[sample].ctypes.data, vt, out[sample], part, work, cancel
            )
    return code


def _multiply_batch(
    capi: Any, function: int, problem: int, num_chunks: int, thetas: Any, states: Any, fresh: bool, vs: Any, out: Any, vts: Any,
    parts: Any, work: Any, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """out[s] = A(thetas[s]) vs[s]; one sample is one task, one row of vts, parts and work per worker.

    ``fresh``: the states, one row per worker, are computed on the way; otherwise there is one row per sample, ready.
    """
    status = np.zeros(work.shape[0], dtype=np.int32)
    for worker in numba.prange(work.shape[0]):
        status[worker] = _batch_worker(
            capi, function, problem, num_chunks, thetas, states, fresh, np.int64(worker), vs, out, vts[worker].ctypes.data,
            parts[worker], work[worker].ctypes.data, counter, cancel,
        )  # fmt: skip
    return status.max()


@serial
def _linearize_worker(
    capi: Any, problem: int, num_chunks: int, thetas: Any, states: Any, values: Any, work: int, counter: Any, cancel: Any
) -> int:
    """One worker's share of the samples, drawn from the counter."""
    code = 0
    while code == 0:
        sample = fetch_add(capi.ph_fetch_add, counter.ctypes.data, 1)
        if sample >= thetas.shape[0]:
            break
        code = _linearize_sample(
            capi, problem, num_chunks, thetas[sample].ctypes.data, states[sample].ctypes.data, values[sample], work, cancel
        )
    return code


def _linearize_batch(
    capi: Any, problem: int, num_chunks: int, thetas: Any, states: Any, values: Any, work: Any, counter: Any, cancel: Any
) -> int:
    """Fill one row of ``states`` per sample; ``values`` (S, chunks) gets the parts of the losses."""
    status = np.zeros(work.shape[0], dtype=np.int32)
    for worker in numba.prange(work.shape[0]):
        status[worker] = _linearize_worker(
            capi, problem, num_chunks, thetas, states, values, work[worker].ctypes.data, counter, cancel
        )
    return status.max()


@serial
def _jet_worker(
    capi: Any, problem: int, num_chunks: int, thetas: Any, states: Any, fresh: bool, worker: Any, vs: Any, qs: Any, hvs: Any,
    grads: Any, vt: int, parts: Any, work: int, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """One worker's share of the samples; each chunk into zeros, then added in order: the bits of ``_jet``."""
    losses = np.zeros(num_chunks)
    code = 0
    while code == 0:
        sample = fetch_add(capi.ph_fetch_add, counter.ctypes.data, 1)
        if sample >= thetas.shape[0]:
            break
        theta, v = thetas[sample].ctypes.data, vs[sample].ctypes.data
        state = states[worker if fresh else sample].ctypes.data
        if fresh:
            code = _linearize_sample(capi, problem, num_chunks, theta, state, losses, work, cancel)
        call3(capi.ph_transpose, problem, v, vt)
        for chunk in range(num_chunks):
            if code != 0:
                break
            parts[:] = 0.0
            code = call12(
                capi.ph_jet, problem, theta, state, v, vt, qs[sample, chunk:].ctypes.data, parts[0].ctypes.data,
                parts[1].ctypes.data, chunk, chunk + 1, work, cancel.ctypes.data,
            )  # fmt: skip
            for i in range(parts.shape[1]):
                hvs[sample, i] += parts[0, i]
                grads[sample, i] += parts[1, i]
    return code


def _jet_batch(
    capi: Any, problem: int, num_chunks: int, thetas: Any, states: Any, fresh: bool, vs: Any, qs: Any, hvs: Any, grads: Any,
    vts: Any, parts: Any, work: Any, counter: Any, cancel: Any,
) -> int:  # fmt: skip
    """The jets of all samples: qs (S, chunks), hvs and grads (S, P), zero on entry; parts (workers, 2, P)."""
    status = np.zeros(work.shape[0], dtype=np.int32)
    for worker in numba.prange(work.shape[0]):
        status[worker] = _jet_worker(
            capi, problem, num_chunks, thetas, states, fresh, np.int64(worker), vs, qs, hvs, grads, vts[worker].ctypes.data,
            parts[worker], work[worker].ctypes.data, counter, cancel,
        )  # fmt: skip
    return status.max()


linearize = {False: serial(_linearize), True: parallel(_linearize)}
multiply = {False: serial(_multiply), True: parallel(_multiply)}
jet = {False: serial(_jet), True: parallel(_jet)}
multiply_block = {False: serial(_multiply_block), True: parallel(_multiply_block)}
multiply_batch = {False: serial(_multiply_batch), True: parallel(_multiply_batch)}
linearize_batch = {False: serial(_linearize_batch), True: parallel(_linearize_batch)}
jet_batch = {False: serial(_jet_batch), True: parallel(_jet_batch)}
