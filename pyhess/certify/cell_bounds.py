"""Compiled lower bounds of the smallest eigenvalue of the Hessian over boxes of parameters, from the residual part.

With N >= |R| off the diagonal and N_ii >= -R_ii, every R of the enclosure satisfies v'Rv >= -|v|'N|v|, and for any d > 0 the
largest eigenvalue of N is at most max_i (N d)_i / d_i (Collatz and Wielandt). A good d is found by Noda's iteration (inverse
iteration with the shift taken from the quotients), which converges quadratically; only the last quotients count.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._jit import inlined, serial
from .residual_kernel import enclose
from .scalar_ranges import down, up

_UNIT = 2.0**-53


@serial
def scaled_box(scale: Any, lo: Any, hi: Any, out_lo: Any, out_hi: Any) -> None:
    """Effective parameters: the box times the layers' factors; κ itself was rounded."""
    for k in range(scale.size):
        if scale[k] == 1.0:
            out_lo[k], out_hi[k] = lo[k], hi[k]
        else:
            out_lo[k], out_hi[k] = down(down(scale[k] * lo[k])), up(up(scale[k] * hi[k]))


@serial
def largest_eigenvalue(n: Any, d: Any, steps: Any) -> Any:
    """Upper bound of the largest eigenvalue of symmetric n with non-negative entries off the diagonal; d > 0 is
    improved in place.
    """
    size = n.shape[0]
    factor, y = np.empty((size, size)), np.empty(size)
    best = np.inf
    keep = np.ones(size)
    for step in range(steps + 1):
        top, bottom = -np.inf, np.inf
        for i in range(size):
            total, weight = 0.0, 0.0
            for j in range(size):
                total += n[i, j] * d[j]
                weight += abs(n[i, j]) * d[j]
            # size products and sums, one division.
            quotient = total / d[i]
            allowance = (size + 4) * 2.0 * _UNIT * (weight / d[i]) + 1e-290
            top, bottom = max(top, quotient + allowance), min(bottom, quotient)
        if not np.isfinite(top):
            break
        if top < best:
            best = top
            for i in range(size):
                keep[i] = d[i]
        if step == steps or top - bottom <= 1e-5 * abs(top):
            break
        shift = top + 1e-9 * abs(top) + 1e-290
        good = True
        for j in range(size):
            for i in range(j, size):
                total = (shift if i == j else 0.0) - n[i, j]
                for k in range(j):
                    total -= factor[i, k] * factor[j, k]
                if i == j:
                    if not total > 0.0:
                        good = False
                        break
                    factor[i, i] = math.sqrt(total)
                else:
                    factor[i, j] = total / factor[j, j]
            if not good:
                break
        if not good:
            break
        for i in range(size):
            total = d[i]
            for k in range(i):
                total -= factor[i, k] * y[k]
            y[i] = total / factor[i, i]
        for i in range(size - 1, -1, -1):
            total = y[i]
            for k in range(i + 1, size):
                total -= factor[k, i] * y[k]
            y[i] = total / factor[i, i]
        longest, total = 0.0, 0.0
        for i in range(size):
            longest = max(longest, y[i])
            total += y[i]
        if not (longest > 0.0 and np.isfinite(total)):
            break
        for i in range(size):
            d[i] = max(y[i] / longest, 1e-13)
    for i in range(size):
        d[i] = keep[i]
    return best


@inlined
def _residual_bound(problem: Any, lo: Any, hi: Any, r_lo: Any, r_hi: Any, n: Any, d: Any) -> Any:
    widths, codes, betas, w_at, b_at, scale, x, y, mass, loss = problem
    size = scale.size
    e_lo, e_hi = np.empty(size), np.empty(size)
    scaled_box(scale, lo, hi, e_lo, e_hi)
    if not enclose(widths, codes, betas, w_at, b_at, e_lo, e_hi, x, y, mass, loss, r_lo, r_hi):
        return -np.inf
    for i in range(size):
        for j in range(i, size):
            factor = scale[i] * scale[j] * (1.0 + 8.0 * _UNIT)
            if i == j:
                low = -r_lo[i, i]
                n[i, i] = low * factor if low >= 0.0 else low * scale[i] * scale[j] * (1.0 - 8.0 * _UNIT)
            else:
                n[i, j] = n[j, i] = max(abs(r_lo[i, j]), abs(r_hi[i, j])) * factor
    d[:] = 1.0
    return -largest_eigenvalue(n, d, 12)


@serial
def residual_bounds(problem: Any, lows: Any, highs: Any, bounds: Any) -> None:
    """Lower bounds of eigval_min over the boxes [lows, highs] (B, P), written to ``bounds`` (B,)."""
    size = lows.shape[1]
    r_lo, r_hi, n = np.empty((size, size)), np.empty((size, size)), np.empty((size, size))
    d = np.ones(size)
    for b in range(lows.shape[0]):
        bounds[b] = _residual_bound(problem, lows[b], highs[b], r_lo, r_hi, n, d)
