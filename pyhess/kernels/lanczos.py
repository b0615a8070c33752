"""One Lanczos iteration, written as a reverse-communication step.

    request = advance(run, w)            # the first call makes the start vector
    while request != DONE:
        w[:] = A @ (run.basis[step] if request == MULTIPLY_BASIS else run.vectors[check])
        request = advance(run, w)

``A v_j = beta_{j-1} v_{j-1} + alpha_j v_j + beta_j v_{j+1}`` with full reorthogonalisation. Everything between two products
happens in ``advance``: the three-term recurrence, Gram–Schmidt against the whole basis, the stopping test, random restart after
a breakdown, thick restart of a full basis, locking, and at the end the residuals of the result from fresh products.

The source is compiled twice: serial, for one run per worker, and with its loops over fixed blocks of the vectors spread over
threads, for one large run. Block sums are added in block order, so both give the same bits. Basis and products have the
products' type; all sums, the remainder and the coefficients are float64.
"""

from __future__ import annotations

from math import cos, log, pi, sin, sqrt
from typing import Any

import numba
import numpy as np

from .._jit import parallel, serial
from .ritz import CHECK, EXTRACT, LOCK, NEXT, NONFINITE, NOT_SYMMETRIC, PRODUCT, START, decide, follow, judge, rotation

DONE, MULTIPLY_BASIS, MULTIPLY_VECTOR = 0, 1, 2

#: Elements per block of a vector; even, because normal deviates come in pairs.
BLOCK = 4096
_STRIP = 256

#: Gram–Schmidt is repeated while it takes away more than this part of the norm: what is left then has rounding errors as large.
_DROP = 0.7
_MAX_SWEEPS = 6

#: A remainder below so many rounding errors of the products is zero: the basis spans an invariant subspace.
BREAKDOWN = 8.0

#: Weight of the random direction mixed into a given start vector of length one.
_MIX = 0.1

#: Overlaps of A v_j with older vectors above this part of |A|, on top of the tolerance, mean that A is not symmetric.
_ASYMMETRY = 0.01

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S11, _S27, _S30, _S31, _S40 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(40)
_ONE = np.uint64(1)


@serial
def _random_bits(key: Any) -> Any:
    """The splitmix64 output function."""
    x = key
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)


@serial
def fill_normal(seed: int, draw: int, out: Any, begin: int, end: int) -> None:
    """Standard normal deviates number begin … end of the stream (seed, draw), by Box and Muller; ``begin`` is even.

    Counter-based: an element depends on its index alone, not on which thread makes it.
    """
    stream = _random_bits(_random_bits(np.uint64(seed)) + _GOLDEN * np.uint64(draw + 1))
    for i in range(begin, end, 2):
        key = stream + _GOLDEN * np.uint64(i + 1)
        first = _random_bits(key)
        second = _random_bits(key + _GOLDEN)
        radius = sqrt(-2.0 * log(float((first >> _S11) + _ONE) * 2.0**-53))
        angle = 2.0 * pi * float(second >> _S11) * 2.0**-53
        out[i] = radius * cos(angle)
        if i + 1 < end:
            out[i + 1] = radius * sin(angle)


@serial
def _dot(x: Any, y: Any, buffer: Any) -> float:
    """x'y in float64, pairwise; written so that the compiler can use vector registers without reordering a sum."""
    size = x.size
    h = size // 4
    x0, x1, x2, x3 = x[:h], x[h : 2 * h], x[2 * h : 3 * h], x[3 * h : 4 * h]
    y0, y1, y2, y3 = y[:h], y[h : 2 * h], y[2 * h : 3 * h], y[3 * h : 4 * h]
    for i in range(h):
        buffer[i] = (x0[i] * y0[i] + x1[i] * y1[i]) + (x2[i] * y2[i] + x3[i] * y3[i])
    total = 0.0
    for i in range(4 * h, size):
        total += x[i] * y[i]
    n = h
    while n > 8:
        half = n // 2
        if n & 1:
            total += buffer[n - 1]
        low, high = buffer[:half], buffer[half : 2 * half]
        for i in range(half):
            low[i] += high[i]
        n = half
    for i in range(n):
        total += buffer[i]
    return total


@serial
def _norm2(r: Any, begin: int, end: int) -> float:
    return _dot(r[begin:end], r[begin:end], np.empty((end - begin) // 4 + 1))


@serial
def _dots(basis: Any, rows: int, r: Any, begin: int, end: int, out: Any) -> None:
    """out[i] = part of v_i'r in this block."""
    buffer = np.empty((end - begin) // 4 + 1)
    y = r[begin:end]
    for i in range(rows):
        out[i] = _dot(basis[i, begin:end], y, buffer)


@serial
def _subtract(basis: Any, rows: int, c: Any, r: Any, begin: int, end: int) -> None:
    """r -= sum_i c_i v_i in this block, four vectors at a time."""
    y = r[begin:end]
    i = 0
    while i + 4 <= rows:
        x0, x1, x2, x3 = basis[i, begin:end], basis[i + 1, begin:end], basis[i + 2, begin:end], basis[i + 3, begin:end]
        c0, c1, c2, c3 = c[i], c[i + 1], c[i + 2], c[i + 3]
        for t in range(end - begin):
            y[t] -= (c0 * x0[t] + c1 * x1[t]) + (c2 * x2[t] + c3 * x3[t])
        i += 4
    while i < rows:
        x0, c0 = basis[i, begin:end], c[i]
        for t in range(end - begin):
            y[t] -= c0 * x0[t]
        i += 1


@serial
def _load(w: Any, sigma: float, r: Any, begin: int, end: int) -> None:
    x, y = w[begin:end], r[begin:end]
    for t in range(end - begin):
        y[t] = sigma * x[t]


@serial
def _store(r: Any, factor: float, out: Any, begin: int, end: int) -> None:
    x, y = r[begin:end], out[begin:end]
    for t in range(end - begin):
        y[t] = factor * x[t]


@serial
def _mix_start(r: Any, weight: float, start: Any, begin: int, end: int) -> None:
    x, y = start[begin:end], r[begin:end]
    for t in range(end - begin):
        y[t] = x[t] + weight * y[t]


@serial
def _check_sums(w: Any, sigma: float, x: Any, begin: int, end: int, out: Any) -> None:
    """out[:2] = parts of sigma x'w and x'x in this block, multiplied in float64 whatever the type of x and w."""
    a, b = np.empty(end - begin), np.empty(end - begin)
    u, v = w[begin:end], x[begin:end]
    for t in range(end - begin):
        a[t] = sigma * u[t]
        b[t] = v[t]
    buffer = np.empty((end - begin) // 4 + 1)
    out[0] = _dot(b, a, buffer)
    out[1] = _dot(b, b, buffer)


@serial
def _residual2(w: Any, sigma: float, rho: float, x: Any, begin: int, end: int) -> float:
    """Part of |sigma w - rho x|^2 in this block."""
    d = np.empty(end - begin)
    a, b = w[begin:end], x[begin:end]
    for t in range(end - begin):
        d[t] = sigma * a[t] - rho * b[t]
    return _dot(d, d, np.empty((end - begin) // 4 + 1))


@serial
def _rotate(basis: Any, first: int, coefficients: Any, out: Any, to: int, begin: int, end: int) -> None:
    """out[to + t] = sum_i coefficients[i, t] basis[first + i] in this block; ``out`` may be the basis itself."""
    rows, columns = coefficients.shape
    new = np.empty((columns, _STRIP))
    for strip in range(begin, end, _STRIP):
        size = min(_STRIP, end - strip)
        new[:] = 0.0
        for t in range(columns):
            y = new[t, :size]
            for i in range(rows):
                c = coefficients[i, t]
                if c != 0.0:
                    x = basis[first + i, strip : strip + size]
                    for q in range(size):
                        y[q] += c * x[q]
        for t in range(columns):
            x, y = new[t, :size], out[to + t, strip : strip + size]
            for q in range(size):
                y[q] = x[q]


@serial
def _add_blocks(partial: Any, columns: int, out: Any) -> None:
    """out = the sums of the blocks, added in block order."""
    for i in range(columns):
        total = 0.0
        for block in range(partial.shape[0]):
            total += partial[block, i]
        out[i] = total


@serial
def _power_of_two(w: Any) -> float:
    """The factor that brings the product's largest entry near 1 where squares could overflow or vanish; 0 if w = 0."""
    largest = 0.0
    for i in range(w.size):
        largest = max(largest, abs(float(w[i])))
    if largest == 0.0 or not np.isfinite(largest):
        return 0.0
    if 1e-90 < largest < 1e90:
        return 1.0
    return float(2.0 ** min(1000.0, max(-1000.0, -np.floor(np.log2(largest)))))


def _advance(run: Any, w: Any) -> int:
    """One step; ``w`` (P,) holds the product asked for last. Returns what to multiply next."""
    state = run.state[0]
    basis, vectors, r, partial, sums = run.basis, run.vectors, run.remainder, run.partial, run.coefficients
    size = r.size
    blocks = partial.shape[0]
    last = partial.shape[1] - 1  # column of partial that holds squared norms
    fresh = state.phase == START
    action = NEXT

    if state.phase == CHECK:
        x = vectors[state.check]
        sigma = state.sigma
        for block in numba.prange(blocks):
            _check_sums(w, sigma, x, block * BLOCK, min((block + 1) * BLOCK, size), partial[block])
        _add_blocks(partial, 2, sums)
        square = sums[1]
        rho = sums[0] / square
        for block in numba.prange(blocks):
            partial[block, 0] = _residual2(w, sigma, rho, x, block * BLOCK, min((block + 1) * BLOCK, size))
        _add_blocks(partial, 1, sums)
        run.values[state.check] = rho / sigma
        run.residuals[state.check] = sqrt(sums[0] / square) / sigma
        state.matvecs += 1
        state.check += 1
        if state.check < state.found:
            return MULTIPLY_VECTOR
        if not judge(run):
            return DONE
        state.phase = PRODUCT
        action = follow(run)
    else:
        if not fresh:
            state.matvecs += 1
            if state.scaled == 0:
                factor = _power_of_two(w)
                if factor != 0.0:
                    state.sigma = factor
                    state.scaled = 1
            j = state.step
            sigma = state.sigma
            v = basis[j]
            for block in numba.prange(blocks):
                begin, end = block * BLOCK, min((block + 1) * BLOCK, size)
                _load(w, sigma, r, begin, end)
                buffer = np.empty((end - begin) // 4 + 1)
                partial[block, 0] = _dot(v[begin:end], r[begin:end], buffer)
                partial[block, 1] = _dot(r[begin:end], r[begin:end], buffer)
            _add_blocks(partial, 2, sums)
            if not np.isfinite(sums[1]):
                state.status = NONFINITE
                return DONE
            state.scale = max(state.scale, sqrt(sums[1]))
            # The known part of the product goes first, so that Gram-Schmidt has little left to take away.
            run.alpha[j] = sums[0]
            local = min(2, j - state.begin + 1)
            run.small[0, 1] = sums[0]
            if local == 2:
                run.small[0, 0] = run.beta[j - 1]
            near, c = basis[j + 1 - local : j + 1], run.small[0, 2 - local : 2]
            for block in numba.prange(blocks):
                begin, end = block * BLOCK, min((block + 1) * BLOCK, size)
                _subtract(near, local, c, r, begin, end)
                partial[block, 0] = _norm2(r, begin, end)
            _add_blocks(partial, 1, sums)
            state.norm = sqrt(sums[0])
        while True:
            rows = state.step + 1
            if fresh:
                state.draws += 1
                state.fresh += 1
                seed, draw = state.seed, state.draws
                for block in numba.prange(blocks):
                    begin, end = block * BLOCK, min((block + 1) * BLOCK, size)
                    fill_normal(seed, draw, r, begin, end)
                    partial[block, 0] = _norm2(r, begin, end)
                _add_blocks(partial, 1, sums)
                state.norm = sqrt(sums[0])
                if state.phase == START and state.warm != 0:
                    weight = _MIX / state.norm
                    start = basis[0]
                    for block in numba.prange(blocks):
                        begin, end = block * BLOCK, min((block + 1) * BLOCK, size)
                        _mix_start(r, weight, start, begin, end)
                        partial[block, 0] = _norm2(r, begin, end)
                    _add_blocks(partial, 1, sums)
                    state.norm = sqrt(sums[0])
            for sweep in range(_MAX_SWEEPS):
                for block in numba.prange(blocks):
                    _dots(basis, rows, r, block * BLOCK, min((block + 1) * BLOCK, size), partial[block])
                _add_blocks(partial, rows, sums)
                for block in numba.prange(blocks):
                    begin, end = block * BLOCK, min((block + 1) * BLOCK, size)
                    _subtract(basis, rows, sums, r, begin, end)
                    partial[block, last] = _norm2(r, begin, end)
                before = state.norm
                total = 0.0
                for block in range(blocks):
                    total += partial[block, last]
                state.norm = sqrt(total)
                if not fresh:
                    run.alpha[rows - 1] += sums[rows - 1]
                    if sweep == 0:
                        worst = 0.0
                        for i in range(rows):
                            worst = max(worst, abs(sums[i]))
                        if worst > (_ASYMMETRY + 4.0 * state.tol) * state.scale:
                            state.status = NOT_SYMMETRIC
                            return DONE
                    if state.norm <= BREAKDOWN * state.noise * state.scale:
                        break
                if state.norm > _DROP * before:
                    break
            if fresh:
                if state.norm > 0.0:
                    state.phase = PRODUCT
                    break
                continue  # the random vector lay in the span of the basis: draw another
            small = state.norm <= BREAKDOWN * state.noise * state.scale or rows == size
            run.beta[rows - 1] = 0.0 if small else state.norm
            action = decide(run)
            if action != LOCK:
                break
            coefficients = rotation(run, LOCK)
            for block in numba.prange(blocks):
                _rotate(basis, 0, coefficients, basis, 0, block * BLOCK, min((block + 1) * BLOCK, size))
            fresh = True

    if action == EXTRACT:
        coefficients = rotation(run, EXTRACT)
        for block in numba.prange(blocks):
            _rotate(basis, 0, coefficients, vectors, 0, block * BLOCK, min((block + 1) * BLOCK, size))
        state.phase = CHECK
        state.check = 0
        return MULTIPLY_VECTOR
    if action != NEXT and not fresh:
        offset = state.begin
        coefficients = rotation(run, action)
        for block in numba.prange(blocks):
            _rotate(basis, offset, coefficients, basis, offset, block * BLOCK, min((block + 1) * BLOCK, size))
    state.step += 1
    target = basis[state.step]
    factor = 1.0 / state.norm
    for block in numba.prange(blocks):
        _store(r, factor, target, block * BLOCK, min((block + 1) * BLOCK, size))
    return MULTIPLY_BASIS


advance = {False: serial(_advance), True: parallel(_advance)}
