"""Everything a Lanczos run does to its long vectors, block by block of 4096 elements.

A block's sums go to its own row of ``partial`` and are added in block order afterwards, so the bits do not depend on who works
on which block. Vectors have the products' type; all sums, the remainder and the coefficients are float64.
"""

from __future__ import annotations

from math import cos, log, pi, sin, sqrt
from typing import Any

import numba
import numpy as np

from .._jit import inlined
from ._units import carray, compiled_unit, helper, pointer, unit3
from .run import (
    BLOCK,
    CHECK_SUMS,
    DOTS,
    GATHER,
    LARGEST,
    LOAD,
    MIX,
    RANDOM,
    RESIDUAL,
    RUN,
    STATE,
    STORE,
    SUBTRACT,
    TURN,
)  # fmt: skip

_STRIP = 256

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S11, _S27, _S30, _S31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)
_ONE = np.uint64(1)


@helper
def _random_bits(key: Any) -> Any:
    """The splitmix64 output function."""
    x = key
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)


@helper
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


@helper
def _dot(x: Any, y: Any, buffer: Any) -> float:
    """The product of x and y in float64, pairwise; the compiler can use vector registers without reordering a sum."""
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


@inlined
def _subtract(basis: Any, first: int, rows: int, c: Any, r: Any, begin: int, end: int) -> None:
    """Take sum_i c_i v_{first + i} from r, four vectors at a time."""
    y = r[begin:end]
    i = 0
    while i + 4 <= rows:
        j = first + i
        x0, x1, x2, x3 = basis[j, begin:end], basis[j + 1, begin:end], basis[j + 2, begin:end], basis[j + 3, begin:end]
        c0, c1, c2, c3 = c[i], c[i + 1], c[i + 2], c[i + 3]
        for t in range(end - begin):
            y[t] -= (c0 * x0[t] + c1 * x1[t]) + (c2 * x2[t] + c3 * x3[t])
        i += 4
    while i < rows:
        x0, c0 = basis[first + i, begin:end], c[i]
        for t in range(end - begin):
            y[t] -= c0 * x0[t]
        i += 1


@inlined
def _rotate(basis: Any, first: int, rows: int, columns: int, weights: Any, out: Any, to: int, begin: int, end: int) -> None:
    """out[to + t] = sum_i weights[i, t] basis[first + i]; ``out`` may be the basis itself."""
    new = np.empty((columns, _STRIP))
    for strip in range(begin, end, _STRIP):
        size = min(_STRIP, end - strip)
        for t in range(columns):
            y = new[t, :size]
            for q in range(size):
                y[q] = 0.0
            for i in range(rows):
                c = weights[i, t]
                if c != 0.0:
                    x = basis[first + i, strip : strip + size]
                    for q in range(size):
                        y[q] += c * x[q]
        for t in range(columns):
            y, z = new[t, :size], out[to + t, strip : strip + size]
            for q in range(size):
                z[q] = y[q]


def _make_block_op(dtype: Any) -> Any:
    """The unit that does the operation ``run.op`` to some blocks of vectors of this type."""

    def block_op(address: int, first_block: int, last_block: int) -> int:
        run = carray(pointer(address), 1, RUN)[0]
        state = carray(pointer(run.state), 1, STATE)[0]
        basis = carray(pointer(run.basis), (run.capacity, run.size), dtype)
        vectors = carray(pointer(run.vectors), (state.wanted, run.size), dtype)
        w = carray(pointer(run.product), run.size, dtype)
        size, op, rows = run.size, run.op, run.rows
        r = carray(pointer(run.remainder), size, np.float64)
        partial = carray(pointer(run.partial), (run.blocks, run.width), np.float64)
        sums = carray(pointer(run.sums), run.width, np.float64)
        weights = carray(pointer(run.weights), (run.capacity, run.turned), np.float64)
        a, b, buffer = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK // 4)
        for block in range(first_block, last_block):
            begin = block * BLOCK
            end = min(begin + BLOCK, size)
            out = partial[block]
            y = r[begin:end]
            norm = False
            if op == DOTS:  # out_i = v_i'r
                for i in range(rows):
                    out[i] = _dot(basis[i, begin:end], y, buffer)
            elif op == SUBTRACT:
                _subtract(basis, run.first, rows, sums, r, begin, end)
                norm = True
            elif op == LOAD:  # r = sigma w; out = v'r, r'r
                x = w[begin:end]
                for t in range(end - begin):
                    y[t] = state.sigma * x[t]
                out[0] = _dot(basis[state.step, begin:end], y, buffer)
                out[1] = _dot(y, y, buffer)
            elif op == STORE:  # a new basis vector
                x = basis[state.step, begin:end]
                for t in range(end - begin):
                    x[t] = run.factor * y[t]
            elif op == RANDOM:
                fill_normal(state.seed, state.draws, r, begin, end)
                norm = True
            elif op == MIX:  # the start vector and a little of the random one
                x = basis[0, begin:end]
                for t in range(end - begin):
                    y[t] = x[t] + run.factor * y[t]
                norm = True
            elif op == LARGEST:
                x = w[begin:end]
                largest = 0.0
                for t in range(end - begin):
                    largest = max(largest, abs(float(x[t])))
                out[0] = largest
            elif op == TURN:
                _rotate(basis, run.first, rows, run.columns, weights, basis, run.first, begin, end)
            elif op == GATHER:
                _rotate(basis, 0, rows, run.columns, weights, vectors, 0, begin, end)
            else:  # multiplied in float64 whatever the type of x and w
                x, z = vectors[state.check, begin:end], w[begin:end]
                for t in range(end - begin):
                    b[t] = x[t]
                if op == CHECK_SUMS:  # out = sigma x'w, x'x
                    for t in range(end - begin):
                        a[t] = state.sigma * z[t]
                    out[0] = _dot(a[: end - begin], b[: end - begin], buffer)
                    out[1] = _dot(b[: end - begin], b[: end - begin], buffer)
                elif op == RESIDUAL:  # out = |sigma w - factor x|^2
                    for t in range(end - begin):
                        a[t] = state.sigma * z[t] - run.factor * b[t]
                    out[0] = _dot(a[: end - begin], a[: end - begin], buffer)
            if norm:
                out[0] = _dot(y, y, buffer)
        return 0

    return block_op


_BLOCK_OPS = {dtype: _make_block_op(dtype) for dtype in (np.dtype(np.float64), np.dtype(np.float32))}


def _spread(address: int, first_block: int, last_block: int) -> int:
    """The same with the blocks spread over the cores."""
    block_op = carray(pointer(address), 1, RUN)[0].block_op
    for block in numba.prange(first_block, last_block):
        unit3(block_op, address, block, block + 1)
    return 0


def block_units(dtype: Any, spread: bool) -> tuple[int, int]:
    """Addresses of the code for a range of blocks: called directly, and as the step calls it for all blocks."""
    one = compiled_unit(_BLOCK_OPS[np.dtype(dtype)], 3).address
    return one, compiled_unit(_spread, 3, True).address if spread else one
