"""Compiled lower bounds of the smallest eigenvalue of the Hessian over small boxes of few parameters.

By the mean value theorem H(theta) = H(c) + sum_k delta_k D_k with D_k in the enclosure T_k ± E_k of the third derivatives over
the box, so

    eigval_min(H(theta)) >= min over delta of eigval_min(H(c) + sum_k delta_k T_k) - |sum_k h_k E_k|.

The first term is concave in delta, hence attained at a vertex of the box, or of its section with the half-space that touches the
ball near the box. Each vertex is verified by a Cholesky factorisation. The error falls with the square of the width, that of
`curvature`, which is better in smaller boxes, with its cube.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._jit import inlined, serial
from .cell_bounds import scaled_box
from .curvature import curved_bound
from .eigen_kernel import verified
from .scalar_ranges import down, up
from .taylor_kernel import derivatives

_UNIT = 2.0**-53


@serial
def _spread(table: Any, degree: Any, scale: Any, lo: Any, hi: Any, order: Any, middle: Any, radius: Any) -> None:
    """Write derivatives of an order (P^order,), from enclosures of Taylor coefficients, as middles and radii."""
    size = scale.size
    where = np.zeros(4, dtype=np.int64)
    for e in range(1, table.shape[0]):
        if table[e, degree - order] < 0 or (order < degree and table[e, degree - order - 1] >= 0):
            continue
        times, run = 1.0, 0
        for a in range(order):
            where[a] = table[e, degree - order + a]
            run = run + 1 if a and where[a] == where[a - 1] else 1
            times *= scale[where[a]] * run
        mid = 0.5 * (lo[e] + hi[e])
        far = up(up(max(hi[e] - mid, mid - lo[e])) * abs(times)) + 16.0 * _UNIT * abs(times * mid)
        # Every arrangement of the unknowns; equal ones are written several times.
        for a in range(order):
            for b in range(order):
                if b == a:
                    continue
                for c in range(order):
                    if c in (a, b):
                        continue
                    at = (where[a] * size + where[b]) * size + where[c]
                    if order == 4:
                        at = at * size + where[6 - a - b - c]
                    middle[at], radius[at] = times * mid, far
                if order == 2:
                    at = where[a] * size + where[b]
                    middle[at], radius[at] = times * mid, far


@inlined
def _full_bound(problem: Any, cubic: Any, quartic: Any, ball: Any, centre: Any, lo: Any, hi: Any, score: Any) -> Any:
    """Lower bound of eigval_min over the box (and the ball of radius ``ball`` about ``centre``, if positive); inf if
    they do not meet.
    """
    widths, codes, betas, w_at, b_at, scale, x, y, mass, loss = problem
    size = scale.size
    c, h = np.empty(size), np.empty(size)
    for k in range(size):
        c[k] = min(max(0.5 * (lo[k] + hi[k]), lo[k]), hi[k])
        h[k] = up(max(hi[k] - c[k], c[k] - lo[k]))
    # The half-space n'delta <= room that contains the part of the ball; n need not be a unit vector.
    normal, offset, room, length = np.zeros(size), np.zeros(size), np.inf, 0.0
    if ball > 0.0:
        nearest = 0.0
        for k in range(size):
            offset[k] = c[k] - centre[k]
            normal[k] = offset[k]
            length += normal[k] * normal[k]
            nearest += max(0.0, abs(offset[k]) - h[k]) ** 2
        if nearest > ball * ball * (1.0 + 1e-13 * size) + 1e-300:
            return np.inf
        length = math.sqrt(length)
        if length > 0.0:
            inner = 0.0
            for k in range(size):
                normal[k] /= length
                inner += normal[k] * (c[k] - centre[k])
            room = ball - inner + 1e-13 * size * (ball + length) + 1e-300
    # Second and third derivatives at c, third and fourth ones over the box.
    mids, radii = np.empty((4, size**4)), np.empty((4, size**4))
    e_lo, e_hi = np.empty(size), np.empty(size)
    t_lo, t_hi = np.empty(quartic[0].shape[0]), np.empty(quartic[0].shape[0])
    for step in range(4):
        table, shift, products = cubic if step < 2 else quartic
        degree = 3 if step < 2 else 4
        if step % 2 == 0:
            count = table.shape[0]
            for k in range(size):
                e_lo[k], e_hi[k] = (c[k], c[k]) if step == 0 else (lo[k], hi[k])
            scaled_box(scale, e_lo, e_hi, e_lo, e_hi)
            if not derivatives(
                widths,
                codes,
                betas,
                w_at,
                b_at,
                e_lo,
                e_hi,
                x,
                y,
                mass,
                loss,
                degree,
                shift,
                products,
                t_lo[:count],
                t_hi[:count],
            ):
                return -np.inf
        order = 2 + step - step // 2
        _spread(table, degree, scale, t_lo, t_hi, order, mids[step], radii[step])
    base, base_radius = mids[0, : size**2].reshape(size, size), radii[0, : size**2].reshape(size, size)
    slope, slope_radius = mids[1, : size**3].reshape(size, size, size), radii[1, : size**3].reshape(size, size, size)
    model, model_radius = mids[2, : size**3].reshape(size, size, size), radii[2, : size**3].reshape(size, size, size)
    bend, bend_radius = mids[3].reshape(size, size, size, size), radii[3].reshape(size, size, size, size)
    found = _vertex_bound(base, base_radius, model, model_radius, h, normal, room)
    wrong, sizes = np.empty((size, size)), np.empty((size, size))
    for i in range(size):
        score[i] = 0.0
        for j in range(size):
            wrong[i, j], sizes[i, j] = base_radius[i, j], abs(base[i, j])
    for k in range(size):
        for i in range(size):
            for j in range(size):
                score[k] += h[k] * (model_radius[k, i, j] + abs(model[k, i, j]))
                wrong[i, j] += h[k] * slope_radius[k, i, j]
                sizes[i, j] += h[k] * abs(slope[k, i, j])
                for m in range(size):
                    wrong[i, j] += 0.5 * h[k] * h[m] * bend_radius[k, m, i, j]
                    sizes[i, j] += 0.5 * h[k] * h[m] * abs(bend[k, m, i, j])
    if found < np.inf:
        found = curved_bound(base, slope, bend, wrong, sizes, h, offset, ball, found)
    return found


@serial
def _vertex_bound(base: Any, base_radius: Any, model: Any, model_radius: Any, h: Any, normal: Any, room: Any) -> Any:
    """The bound of the second order, from the vertices; inf if the box does not meet the half-space."""
    size = h.size
    total, rows = 0.0, 0.0
    for i in range(size):
        row = 0.0
        for j in range(size):
            error, weight = base_radius[i, j], abs(base[i, j])
            for k in range(size):
                error += h[k] * model_radius[k, i, j]
                weight += h[k] * abs(model[k, i, j])
            entry = error * (1.0 + 1e-12) + 4.0 * (size + 3) * _UNIT * weight
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
            found = verified(matrix, found, work, spare)
            continue
        # Outside: its edges may cross the plane; the crossing is moved outwards a little.
        for k in range(size):
            other = height - 2.0 * normal[k] * delta[k]
            if other <= room:
                kept = delta[k]
                share = (room - other) / (height - other) * (1.0 + 1e-9) + 1e-12
                delta[k] = -kept + 2.0 * kept * min(1.0, share)
                _at(base, model, delta, matrix)
                found = verified(matrix, found, work, spare)
                delta[k] = kept
    return down(found - norm) if found < np.inf else np.inf


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
    problem: Any, cubic: Any, quartic: Any, ball: Any, centre: Any, lows: Any, highs: Any, bounds: Any, splits: Any
) -> None:
    """Lower bounds of eigval_min over the boxes [lows, highs] (B, P), infinite for those that miss the ball.

    Also the parameters (B,) to split next.
    """
    score = np.zeros(lows.shape[1])
    for b in range(lows.shape[0]):
        bounds[b] = _full_bound(problem, cubic, quartic, ball, centre, lows[b], highs[b], score)
        best = 0
        for k in range(score.size):
            if score[k] > score[best]:
                best = k
        if not score[best] > 0.0:
            for k in range(score.size):
                if highs[b, k] - lows[b, k] > highs[b, best] - lows[b, best]:
                    best = k
        splits[b] = best
