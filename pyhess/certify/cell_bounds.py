"""Compiled lower bounds of the smallest eigenvalue of the Hessian over small boxes of parameters.

``residual_bounds``: with N >= |R| off the diagonal and N_ii >= -R_ii, every R of the enclosure satisfies v'Rv >= -|v|'N|v|, and
for any
d > 0 the largest eigenvalue of N is at most max_i (N d)_i / d_i (Collatz and Wielandt). A good d is found by Noda's iteration
(inverse iteration with the shift taken from the quotients), which converges quadratically; only the last quotients count.

``full_bounds``, for few parameters: by the mean value theorem H(theta) = H(c) + sum_k delta_k D_k with D_k in the enclosure T_k
± E_k of the
third derivatives over the box, so

    eigval_min(H(theta)) >= min over delta of eigval_min(H(c) + sum_k delta_k T_k) - |sum_k h_k E_k|.

The first term is concave in delta, hence attained at a vertex of the box, or of its section with the half-space that touches
the ball
near the box. Each vertex is verified by a Cholesky factorisation (S. M. Rump, BIT 46 (2006)). The error falls with the square
of the width.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._jit import serial
from .residual_kernel import enclose
from .scalar_ranges import down, up
from .taylor_kernel import derivatives

_UNIT = 2.0**-53


@serial
def _scaled_box(scale: Any, lo: Any, hi: Any, out_lo: Any, out_hi: Any) -> None:
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
    keep = d.copy()
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
            keep[:] = d
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
        longest = y.max()
        if not (longest > 0.0 and np.isfinite(longest)):
            break
        for i in range(size):
            d[i] = max(y[i] / longest, 1e-13)
    d[:] = keep
    return best


@serial
def _residual_bound(problem: Any, lo: Any, hi: Any, r_lo: Any, r_hi: Any, n: Any, d: Any) -> Any:
    widths, codes, betas, w_at, b_at, scale, x, y, mass, loss = problem
    size = scale.size
    e_lo, e_hi = np.empty(size), np.empty(size)
    _scaled_box(scale, lo, hi, e_lo, e_hi)
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


@serial
def _smallest_eigenvalue(matrix: Any) -> Any:
    """Approximate smallest eigenvalue by Jacobi rotations; the matrix is destroyed."""
    size = matrix.shape[0]
    for _sweep in range(30):
        off, scale = 0.0, 0.0
        for i in range(size):
            scale = max(scale, abs(matrix[i, i]))
            for j in range(i):
                off = max(off, abs(matrix[i, j]))
        if off <= 1e-15 * scale or off == 0.0:
            break
        for p in range(size - 1):
            for q in range(p + 1, size):
                if matrix[p, q] == 0.0:
                    continue
                tau = (matrix[q, q] - matrix[p, p]) / (2.0 * matrix[p, q])
                t = (1.0 if tau >= 0.0 else -1.0) / (abs(tau) + math.sqrt(1.0 + tau * tau))
                c = 1.0 / math.sqrt(1.0 + t * t)
                s = t * c
                for k in range(size):
                    u, v = matrix[k, p], matrix[k, q]
                    matrix[k, p], matrix[k, q] = c * u - s * v, s * u + c * v
                for k in range(size):
                    u, v = matrix[p, k], matrix[q, k]
                    matrix[p, k], matrix[q, k] = c * u - s * v, s * u + c * v
    smallest = np.inf
    for i in range(size):
        smallest = min(smallest, matrix[i, i])
    return smallest


@serial
def _cholesky_slack(matrix: Any, sigma: Any, work: Any) -> Any:
    """If Cholesky of A - sigma I succeeds: how far below sigma an eigenvalue of A can be; inf if it fails."""
    size = matrix.shape[0]
    trace, largest = 0.0, 0.0
    for i in range(size):
        pivot = abs(matrix[i, i] - sigma)
        trace += pivot
        largest = max(largest, pivot)
    for j in range(size):
        for i in range(j, size):
            total = matrix[i, j] - (sigma if i == j else 0.0)
            for k in range(j):
                total -= work[i, k] * work[j, k]
            if i == j:
                if not total > 0.0:
                    return np.inf
                work[i, i] = math.sqrt(total)
            else:
                work[i, j] = total / work[j, j]
    return 4.0 * (size + 4) * _UNIT * trace + 4.0 * _UNIT * (largest + abs(sigma)) + 1e-290


@serial
def _verified(matrix: Any, known: Any, work: Any, spare: Any) -> Any:
    """min(known, lower bound of the smallest eigenvalue)."""
    size = matrix.shape[0]
    if np.isfinite(known):
        # Tried with `known` first: most vertices are not the worst one.
        slack = _cholesky_slack(matrix, known, work)
        if slack < np.inf:
            return known - slack
    spare[:] = matrix
    scale = 1e-290
    for i in range(size):
        total = 0.0
        for j in range(size):
            total += abs(matrix[i, j])
        scale = max(scale, total)
    sigma = _smallest_eigenvalue(spare)
    step = 8.0 * size * _UNIT * scale
    for _ in range(40):
        slack = _cholesky_slack(matrix, sigma - step, work)
        if slack < np.inf:
            return min(known, sigma - step - slack)
        step *= 2.0
    return -2.0 * scale


@serial
def _full_bound(
    problem: Any, triples: Any, shift: Any, products: Any, ball: Any, centre: Any, lo: Any, hi: Any, score: Any
) -> Any:
    """Lower bound of eigval_min over the box (and the ball of radius ``ball`` about ``centre``, if positive); inf if
    they do not meet.
    """
    widths, codes, betas, w_at, b_at, scale, x, y, mass, loss = problem
    size, count = scale.size, triples.shape[0]
    c, h = np.empty(size), np.empty(size)
    e_lo, e_hi = np.empty(size), np.empty(size)
    for k in range(size):
        c[k] = min(max(0.5 * (lo[k] + hi[k]), lo[k]), hi[k])
        h[k] = up(max(hi[k] - c[k], c[k] - lo[k]))
    # The half-space n'delta <= room that contains the part of the ball; n need not be a unit vector.
    normal, room, length = np.zeros(size), np.inf, 0.0
    if ball > 0.0:
        for k in range(size):
            normal[k] = c[k] - centre[k]
            length += normal[k] * normal[k]
        length = math.sqrt(length)
        if length > 0.0:
            inner = 0.0
            for k in range(size):
                normal[k] /= length
                inner += normal[k] * (c[k] - centre[k])
            room = ball - inner + 1e-13 * size * (ball + length) + 1e-300
    p_lo, p_hi, t_lo, t_hi = np.empty(count), np.empty(count), np.empty(count), np.empty(count)
    _scaled_box(scale, c, c, e_lo, e_hi)
    if not derivatives(widths, codes, betas, w_at, b_at, e_lo, e_hi, x, y, mass, loss, shift, products, p_lo, p_hi):
        return -np.inf
    _scaled_box(scale, lo, hi, e_lo, e_hi)
    if not derivatives(widths, codes, betas, w_at, b_at, e_lo, e_hi, x, y, mass, loss, shift, products, t_lo, t_hi):
        return -np.inf
    base, model, error, weight = (
        np.zeros((size, size)),
        np.zeros((size, size, size)),
        np.zeros((size, size)),
        np.zeros((size, size)),
    )
    score[:] = 0.0
    for e in range(1, count):
        i, j, k = triples[e]
        if j < 0:
            continue
        if i < 0:
            times = (2.0 if j == k else 1.0) * scale[j] * scale[k]
            middle = 0.5 * (p_lo[e] + p_hi[e])
            radius = up(up(max(p_hi[e] - middle, middle - p_lo[e])) * abs(times)) + 16.0 * _UNIT * abs(times * middle)
            base[j, k] = base[k, j] = times * middle
            error[j, k] += radius
            weight[j, k] += abs(base[j, k])
            if j != k:
                error[k, j] += radius
                weight[k, j] += abs(base[j, k])
            continue
        times = scale[i] * scale[j] * scale[k] * (6.0 if i == k else (2.0 if i == j or j == k else 1.0))
        middle = 0.5 * (t_lo[e] + t_hi[e])
        radius = up(up(max(t_hi[e] - middle, middle - t_lo[e])) * abs(times)) + 16.0 * _UNIT * abs(times * middle)
        middle *= times
        # Every distinct arrangement (direction, row, column) of the three unknowns.
        for r in range(6):
            if r == 0:
                a, b, g = i, j, k
            elif r == 1:
                a, b, g = i, k, j
            elif r == 2:
                a, b, g = j, i, k
            elif r == 3:
                a, b, g = j, k, i
            elif r == 4:
                a, b, g = k, i, j
            else:
                a, b, g = k, j, i
            if not _first_arrangement(i, j, k, r):
                continue
            model[a, b, g] = middle
            error[b, g] += h[a] * radius
            weight[b, g] += h[a] * abs(middle)
            score[a] += h[a] * radius + 1e-3 * h[a] * abs(middle)
    total, rows = 0.0, 0.0
    for i in range(size):
        row = 0.0
        for j in range(size):
            entry = error[i, j] * (1.0 + 1e-12) + 4.0 * (size + 3) * _UNIT * weight[i, j]
            row += entry
            total += entry * entry
        rows = max(rows, row)
    norm = min(rows, math.sqrt(total)) * (1.0 + 1e-12) + 1e-290
    if not np.isfinite(norm):
        return -np.inf
    matrix, work, spare = np.empty((size, size)), np.empty((size, size)), np.empty((size, size))
    delta = np.empty(size)
    found = np.inf
    for corner in range(1 << size):
        height = 0.0
        for k in range(size):
            delta[k] = h[k] if corner >> k & 1 else -h[k]
            height += normal[k] * delta[k]
        if height <= room:
            _at(base, model, delta, matrix)
            found = _verified(matrix, found, work, spare)
            continue
        # Outside: its edges may cross the plane; the crossing is moved outwards a little.
        for k in range(size):
            other = height - 2.0 * normal[k] * delta[k]
            if other <= room:
                kept = delta[k]
                share = (room - other) / (height - other) * (1.0 + 1e-9) + 1e-12
                delta[k] = -kept + 2.0 * kept * min(1.0, share)
                _at(base, model, delta, matrix)
                found = _verified(matrix, found, work, spare)
                delta[k] = kept
    return down(found - norm) if found < np.inf else np.inf


@serial
def _first_arrangement(i: Any, j: Any, k: Any, r: Any) -> Any:
    """Whether arrangement r of the sorted triple is the first of those that are equal to it."""
    if i == j and j == k:
        return r == 0
    if i == j:
        return r == 0 or r == 1 or r == 4
    if j == k:
        return r == 0 or r == 2 or r == 3
    return True


@serial
def _at(base: Any, model: Any, delta: Any, out: Any) -> None:
    size = delta.size
    for i in range(size):
        for j in range(size):
            total = base[i, j]
            for k in range(size):
                total += delta[k] * model[k, i, j]
            out[i, j] = total


@serial
def full_bounds(
    problem: Any, triples: Any, shift: Any, products: Any, ball: Any, centre: Any, lows: Any, highs: Any, bounds: Any, splits: Any
) -> None:
    """Bounds over boxes as in `residual_bounds` and the parameters (B,) to split next; inf for boxes that miss the ball."""
    size = lows.shape[1]
    r_lo, r_hi, n = np.empty((size, size)), np.empty((size, size)), np.empty((size, size))
    d, score = np.ones(size), np.empty(size)
    for b in range(lows.shape[0]):
        value = _full_bound(problem, triples, shift, products, ball, centre, lows[b], highs[b], score)
        if value < np.inf:
            value = max(value, _residual_bound(problem, lows[b], highs[b], r_lo, r_hi, n, d))
        bounds[b] = value
        best = 0
        for k in range(size):
            if score[k] > score[best]:
                best = k
        if not score[best] > 0.0:
            for k in range(size):
                if highs[b, k] - lows[b, k] > highs[b, best] - lows[b, best]:
                    best = k
        splits[b] = best
