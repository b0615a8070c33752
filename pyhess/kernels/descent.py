"""Joint descent of the Rayleigh quotient rho(theta, v) = v'H(theta)v / v'v over a box or a ball, many starts in parallel.

One start is one task. A point is z = (x, v) with theta = mid + half * x: for a box x lies in [-1, 1]^P, for a ball in the unit
ball. Each step is a projected limited-memory BFGS step with an Armijo search along the projection arc; every evaluation is one
linearization and one curvature jet of the C core, which give rho and its gradient in theta and v together. No Python runs
between tasks, and a start's result depends on nothing but the start.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._jit import parallel, serial
from ._bridge import call3, call9, call12, fetch_add

BOX, BALL = 0, 1

#: Rows of a worker's vector scratch besides the 2 * memory rows of the BFGS pairs.
SCRATCH_ROWS = 5

_ARMIJO = 1e-4
_MAX_BACKTRACKS = 25
_STALLS = 3


@serial
def _evaluate(
    capi: Any, problem: int, num_chunks: int, z: Any, mid: Any, half: Any, g: Any, theta: Any, hv: Any, grad: Any, state: int,
    vt: int, work: int, scalars: Any, cancel: Any,
) -> float:  # fmt: skip
    """Rho at z and its gradient g; NaN where the evaluation was cancelled or overflowed."""
    size = theta.size
    norm2 = 0.0
    for i in range(size):
        theta[i] = mid[i] + half[i] * z[i]
        hv[i] = 0.0
        grad[i] = 0.0
        norm2 += z[size + i] * z[size + i]
    scalars[0] = 0.0
    scalars[1] = 0.0
    v = z[size:]
    call3(capi.ph_prepare, problem, theta.ctypes.data, state)
    call3(capi.ph_transpose, problem, v.ctypes.data, vt)
    code = call9(
        capi.ph_linearize, problem, theta.ctypes.data, state, 0, num_chunks, scalars.ctypes.data, 0, work, cancel.ctypes.data
    )
    if code == 0:
        code = call12(
            capi.ph_jet, problem, theta.ctypes.data, state, v.ctypes.data, vt, scalars[1:].ctypes.data, hv.ctypes.data,
            grad.ctypes.data, 0, num_chunks, work, cancel.ctypes.data,
        )  # fmt: skip
    if code != 0 or norm2 == 0.0:
        return np.nan
    rho = scalars[1] / norm2
    for i in range(size):
        g[i] = half[i] * grad[i] / norm2
        g[size + i] = 2.0 * (hv[i] - rho * z[size + i]) / norm2
    return rho


@serial
def _reduce(kind: int, z: Any, g: Any, r: Any) -> float:
    """R = the part of the gradient along which z may move; returns its squared norm."""
    n = z.size
    size = n // 2
    total = 0.0
    outward = 0.0
    if kind == BALL:
        norm2 = 0.0
        for i in range(size):
            norm2 += z[i] * z[i]
            outward -= g[i] * z[i]
        if norm2 < 1.0 - 1e-12:
            outward = 0.0
        outward = max(outward, 0.0)
    for i in range(n):
        value = g[i]
        if i < size:
            if kind == BOX:
                if (z[i] <= -1.0 and value > 0.0) or (z[i] >= 1.0 and value < 0.0):
                    value = 0.0
            else:
                value += outward * z[i]
        r[i] = value
        total += value * value
    return total


@serial
def _project(kind: int, z: Any) -> None:
    size = z.size // 2
    if kind == BOX:
        for i in range(size):
            z[i] = min(1.0, max(-1.0, z[i]))
        return
    norm2 = 0.0
    for i in range(size):
        norm2 += z[i] * z[i]
    if norm2 > 1.0:
        factor = 1.0 / np.sqrt(norm2)
        for i in range(size):
            z[i] *= factor


@serial
def _dot(a: Any, b: Any) -> float:
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@serial
def _direction(kind: int, z: Any, r: Any, s: Any, y: Any, rho: Any, alpha: Any, first: int, count: int, d: Any) -> None:
    """D = -B r by the two-loop recursion over ``count`` pairs; components held by the box stay at zero."""
    memory = s.shape[0]
    d[:] = r
    for k in range(count - 1, -1, -1):
        j = (first + k) % memory
        alpha[j] = rho[j] * _dot(s[j], d)
        for i in range(d.size):
            d[i] -= alpha[j] * y[j, i]
    if count > 0:
        j = (first + count - 1) % memory
        scale = 1.0 / (rho[j] * _dot(y[j], y[j]))
        for i in range(d.size):
            d[i] *= scale
    for k in range(count):
        j = (first + k) % memory
        step = alpha[j] - rho[j] * _dot(y[j], d)
        for i in range(d.size):
            d[i] += step * s[j, i]
    for i in range(d.size):
        d[i] = -d[i]
        if kind == BOX and i < d.size // 2 and r[i] == 0.0 and abs(z[i]) >= 1.0:
            d[i] = 0.0


@serial
def _descend_one(
    capi: Any, problem: int, num_chunks: int, kind: int, mid: Any, half: Any, z: Any, value: Any, evals: Any, max_evals: int,
    tol: float, scratch: Any, pairs: Any, theta: Any, hv: Any, grad: Any, state: int, vt: int, work: int, cancel: Any,
) -> None:  # fmt: skip
    """Improve one start in place: z (2P,), value (1,) = rho(z), evals (1,) += evaluations."""
    n = z.size
    memory = pairs.shape[1]
    g, r, d, z_new, g_new = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    s, y = pairs[0], pairs[1]
    inverse_sy = np.zeros(memory)
    alpha = np.zeros(memory)
    scalars = np.zeros(2)
    first, count, stalls = 0, 0, 0
    budget = evals[0] + max_evals

    _project(kind, z)
    rho = _evaluate(capi, problem, num_chunks, z, mid, half, g, theta, hv, grad, state, vt, work, scalars, cancel)
    evals[0] += 1
    if np.isnan(rho):
        return
    value[0] = rho
    slope2 = _reduce(kind, z, g, r)
    while evals[0] < budget and cancel[0] == 0 and slope2 > 0.0:
        _direction(kind, z, r, s, y, inverse_sy, alpha, first, count, d)
        descent = _dot(g, d)
        if not descent < 0.0:
            count = 0
            _direction(kind, z, r, s, y, inverse_sy, alpha, first, count, d)
            descent = _dot(g, d)
        # Without curvature pairs the first trial moves by a tenth of the region's half-width at most.
        step = 1.0
        if count == 0:
            longest = 0.0
            for i in range(n):
                longest = max(longest, abs(d[i]))
            step = min(1.0, 0.1 / longest)
        accepted = False
        rho_new = rho
        for _ in range(_MAX_BACKTRACKS):
            for i in range(n):
                z_new[i] = z[i] + step * d[i]
            _project(kind, z_new)
            predicted = 0.0
            for i in range(n):
                predicted += g[i] * (z_new[i] - z[i])
            rho_new = _evaluate(
                capi, problem, num_chunks, z_new, mid, half, g_new, theta, hv, grad, state, vt, work, scalars, cancel
            )
            evals[0] += 1
            if rho_new <= rho + _ARMIJO * predicted and rho_new < rho:
                accepted = True
                break
            if cancel[0] != 0 or evals[0] >= budget:
                break
            # Minimum of the parabola through both values and the slope, within [0.1, 0.5] of the step.
            shrink = 0.5
            if rho_new > rho + predicted and predicted < 0.0:
                shrink = min(0.5, max(0.1, -0.5 * predicted / (rho_new - rho - predicted)))
            step *= shrink
        if not accepted:
            if count == 0:
                break
            count = 0
            continue
        # The pair (s, y): along a ball's boundary the tangential gradients differ, elsewhere the gradients do.
        slot = (first + count) % memory
        if count == memory:
            slot = first
            first = (first + 1) % memory
        sy = 0.0
        yy = 0.0
        slope2 = _reduce(kind, z_new, g_new, d)
        for i in range(n):
            s[slot, i] = z_new[i] - z[i]
            y[slot, i] = d[i] - r[i] if kind == BALL else g_new[i] - g[i]
            sy += s[slot, i] * y[slot, i]
            yy += y[slot, i] * y[slot, i]
        if sy > 1e-10 * yy:
            inverse_sy[slot] = 1.0 / sy
            count = min(count + 1, memory)
        elif count == memory:
            count -= 1
        gain = rho - rho_new
        rho = rho_new
        z[:] = z_new
        g[:] = g_new
        r[:] = d
        value[0] = rho
        stalls = stalls + 1 if gain <= tol * abs(rho) else 0
        if stalls >= _STALLS:
            break
        norm2 = 0.0
        for i in range(n // 2, n):
            norm2 += z[i] * z[i]
        if norm2 > 4.0 or norm2 < 0.25:
            # rho does not depend on |v|; the pairs do, so they are dropped when v is brought back to length one.
            factor = 1.0 / np.sqrt(norm2)
            for i in range(n // 2, n):
                z[i] *= factor
                g[i] /= factor
            slope2 = _reduce(kind, z, g, r)
            count = 0


@serial
def _descend_worker(
    capi: Any, problem: int, num_chunks: int, kind: int, mid: Any, half: Any, tasks: Any, zs: Any, values: Any, evals: Any,
    max_evals: int, tol: float, scratch: Any, pairs: Any, vectors: Any, state: int, vt: int, work: int, counter: Any, cancel: Any,
) -> None:  # fmt: skip
    """One worker's share of the tasks, drawn from the counter."""
    while cancel[0] == 0:
        task = fetch_add(capi.ph_fetch_add, counter.ctypes.data, 1)
        if task >= tasks.size:
            break
        start = tasks[task]
        _descend_one(
            capi, problem, num_chunks, kind, mid, half, zs[start], values[start : start + 1], evals[start : start + 1],
            max_evals, tol, scratch, pairs, vectors[0], vectors[1], vectors[2], state, vt, work, cancel,
        )  # fmt: skip


def _descend(
    capi: Any, problem: int, num_chunks: int, kind: int, mid: Any, half: Any, tasks: Any, zs: Any, values: Any, evals: Any,
    max_evals: int, tol: float, scratch: Any, pairs: Any, vectors: Any, states: Any, vts: Any, work: Any, counter: Any,
    cancel: Any,
) -> None:  # fmt: skip
    """Improve the starts ``tasks`` of zs (S, 2P) in place; values and evals (S,).

    Per worker: scratch (workers, SCRATCH_ROWS, 2P), pairs (workers, 2, memory, 2P), vectors (workers, 3, P), one row of states,
    vts and work.
    """
    for worker in numba.prange(work.shape[0]):
        _descend_worker(
            capi, problem, num_chunks, kind, mid, half, tasks, zs, values, evals, max_evals, tol, scratch[worker],
            pairs[worker], vectors[worker], states[worker].ctypes.data, vts[worker].ctypes.data, work[worker].ctypes.data,
            counter, cancel,
        )  # fmt: skip


descend = {False: serial(_descend), True: parallel(_descend)}
