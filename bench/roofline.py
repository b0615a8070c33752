"""What the machine could do, measured in the same run: matrix products, the product's own shapes, memory.

``gemm peak``  the best rate of large square matrix products;
``shape peak`` the matrix products of one Hessian-vector product and nothing else, in the fastest block size;
``stream``     reading a tall matrix twice, as one pass of Gram-Schmidt does.

All use the function pointers, the thread counts and the BLAS setting (one thread each, workers side by side) of the package.
A product above the gemm peak means that the flops or the clock are wrong; one above the shape peak, that it does not go
through BLAS.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numba
import numpy as np

from pyhess._native import aligned_zeros

from .cases import Array, Problem
from .experiment import Contender
from .gemm import Products

_PEAK_SIZES = (1024, 2048)
_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048)
_STREAM_BYTES = 2**28


def gemm_peak(dtype: str, threads: int, sizes: tuple[int, ...] = _PEAK_SIZES) -> Contender:
    """The faster of the sizes; the workers share the columns of one product."""
    found = [_square(dtype, threads, n) for n in sizes]
    run, flops = max(found, key=lambda pair: pair[1] / _quick(pair[0]))
    return Contender("gemm peak", "ruler", run, flops=flops)


def _square(dtype: str, threads: int, n: int) -> tuple[Callable[[], None], float]:
    rng = np.random.default_rng(7)
    a, b, c = (_random(rng, n * n, dtype) for _ in range(3))
    products, item = Products(dtype, threads), a.itemsize
    for worker in range(threads):
        first, last = n * worker // threads, n * (worker + 1) // threads
        shift = first * n * item
        products.add(
            worker, False, (n, last - first, n), a.ctypes.data, n, b.ctypes.data + shift, n, 0.0, c.ctypes.data + shift, n
        )
    return products.runner((a, b, c)), 2.0 * n**3


def shape_peak(problem: Problem) -> Contender:
    """The product's own matrix products in the fastest of several block sizes."""
    most = max(4, -(-problem.case.samples // problem.threads))
    runs = [_shapes(problem, rows) for rows in sorted({min(rows, most) for rows in _BLOCKS})]
    return Contender("shape peak", "ruler", min(runs, key=_quick))


def padded(size: int) -> int:
    """A leading dimension that is neither misaligned nor a power of two."""
    if size < 64:
        return size
    rounded = -(-size // 16) * 16
    return rounded + 16 if rounded % 128 == 0 else rounded


def _shapes(problem: Problem, rows: int) -> Callable[[], None]:
    """Two products for the first layer and six for every other, for each block of ``rows`` data."""
    widths, samples, workers, dtype = problem.case.widths, problem.case.samples, problem.threads, problem.dtype
    rng = np.random.default_rng(11)
    ld = [padded(width) for width in widths]
    sizes = problem.case.weight_sizes
    weights = [_random(rng, size, dtype) for size in sizes]
    turned = [_random(rng, fan_in * lead, dtype) for fan_in, lead in zip(widths[:-1], ld[1:], strict=True)]
    values = [_random(rng, samples * lead, dtype) for lead in ld]  # activations, or what is kept of the backward pass
    tangents = [[_random(rng, rows * lead, dtype) for lead in ld] for _ in range(workers)]
    results = [[_random(rng, size, dtype) for size in sizes] for _ in range(workers)]
    products = Products(dtype, workers)
    item = weights[0].itemsize
    for block, start in enumerate(range(0, samples, rows)):
        worker, count = block % workers, min(rows, samples - start)
        state = [array.ctypes.data + start * lead * item for array, lead in zip(values, ld, strict=True)]
        moving = [array.ctypes.data for array in tangents[worker]]
        for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
            w, wt, out = weights[i].ctypes.data, turned[i].ctypes.data, results[worker][i].ctypes.data
            forward, outer, back = (fan_out, count, fan_in), (fan_in, fan_out, count), (fan_in, count, fan_out)
            products.add(worker, False, forward, wt, ld[i + 1], state[i], ld[i], 0.0, moving[i + 1], ld[i + 1])
            products.add(worker, True, outer, state[i], ld[i], moving[i + 1], ld[i + 1], 1.0, out, fan_in)
            if i == 0:
                continue
            products.add(worker, False, forward, wt, ld[i + 1], moving[i], ld[i], 1.0, moving[i + 1], ld[i + 1])
            products.add(worker, True, outer, moving[i], ld[i], state[i + 1], ld[i + 1], 1.0, out, fan_in)
            products.add(worker, False, back, w, fan_in, moving[i + 1], ld[i + 1], 0.0, moving[i], ld[i])
            products.add(worker, False, back, w, fan_in, state[i + 1], ld[i + 1], 1.0, moving[i], ld[i])
    return products.runner((*weights, *turned, *values, *(array for arrays in tangents + results for array in arrays)))


def stream(dtype: str) -> tuple[Contender, float]:
    """(contender, bytes read) of c = V w, w -= V'c for V too large for the caches."""
    columns = 8
    rows = _STREAM_BYTES // columns // np.dtype(dtype).itemsize
    V = np.full((columns, rows), 1e-9, dtype=dtype)
    w = np.ones(rows, dtype=dtype)
    return Contender("stream", "ruler", lambda: _gram_schmidt(V, w)), 2.0 * V.nbytes


@numba.njit(parallel=True, fastmath=True)
def _gram_schmidt(V: Any, w: Any) -> None:
    columns, rows = V.shape
    strips = numba.get_num_threads()
    parts = np.zeros((strips, columns), dtype=V.dtype)
    for strip in numba.prange(strips):
        begin, end = rows * strip // strips, rows * (strip + 1) // strips
        for k in range(columns):
            total = V.dtype.type(0)
            for i in range(begin, end):
                total += V[k, i] * w[i]
            parts[strip, k] = total
    c = parts.sum(axis=0)
    for strip in numba.prange(strips):
        begin, end = rows * strip // strips, rows * (strip + 1) // strips
        for k in range(columns):
            for i in range(begin, end):
                w[i] -= V[k, i] * c[k]


def _random(rng: np.random.Generator, size: int, dtype: str) -> Array:
    array = aligned_zeros(size, dtype)
    array[:] = rng.uniform(-0.1, 0.1, size)
    return array


def _quick(run: Callable[[], Any], seconds: float = 0.2) -> float:
    """A rough time, to choose by."""
    run()
    best, spent = float("inf"), 0.0
    while spent < seconds:
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
        spent += time.perf_counter() - began
    return best
