"""Compiled enclosure of the residual part R of the Hessian over many boxes, and bounds of its smallest eigenvalue.

For layers m <= m' and their units k, k' the block of R between the incoming parameters of the two units is

    mean_i [ Q_kk' a~_p a~_q + delta_k' (d a_q / d s_k) a~_p ],      a~ = (a, 1) entering the layers m and m', second term for m
    < m',

Q the Hessian of <r, f> in the pre-activations: S^m = diag(phi') W' S^{m+1} W diag(phi') + diag(bar phi'') within a layer, and
S^{m'} (ds^{m'}/ds^m) between two. Everything is an interval; the first layer's a are points.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._jit import serial
from .scalar_ranges import activation_range, down, mul, square, up

#: Intermediate numbers beyond this make a cell count as unbounded, so that no product of a few of them overflows.
_HUGE = 1e60


@serial
def _too_big(lo: Any, hi: Any, row: Any, count: Any) -> Any:
    for i in range(count):  # noqa: SIM110 - Numba; and NaN counts as too big
        if not (lo[row, i] >= -_HUGE and hi[row, i] <= _HUGE):
            return True
    return False


@serial
def residual(loss: Any, f_lo: Any, f_hi: Any, y: Any, out_lo: Any, out_hi: Any) -> None:
    """dl/df: loss 0 squared error, 1 logistic, 2 softmax cross-entropy."""
    outputs = y.size
    if loss == 0:
        for k in range(outputs):
            out_lo[k], out_hi[k] = down(f_lo[k] - y[k]), up(f_hi[k] - y[k])
        return
    if loss == 1:
        # No literals, for which it would be compiled anew.
        low, high = activation_range(np.int64(2), 1.0, np.int64(0), f_lo[0], f_hi[0])
        out_lo[0], out_hi[0] = down(max(low, 0.0) - y[0]), up(min(high, 1.0) - y[0])
        return
    mass = 0.0
    for k in range(outputs):
        mass += y[k]
    slack = 2.0**-46 * outputs
    for k in range(outputs):
        low, high = 1.0, 1.0
        for j in range(outputs):
            if j != k:
                worst, best = up(f_hi[j] - f_lo[k]), down(f_lo[j] - f_hi[k])
                low += np.exp(min(worst, 700.0)) * (1.0 + slack * (1.0 + abs(worst)))
                if worst > 700.0:
                    low = np.inf
                high += np.exp(min(best, 700.0)) * (1.0 - slack * (1.0 + min(abs(best), 700.0)))
        p_low, p_high = (1.0 - slack) / low, min(1.0, (1.0 + slack) / max(high, 1.0))
        p_low = max(0.0, p_low)
        out_lo[k] = down(mass * (1.0 - slack) * p_low - y[k])
        out_hi[k] = up(mass * (1.0 + slack) * p_high - y[k])


@serial
def enclose(
    widths: Any,
    codes: Any,
    betas: Any,
    w_at: Any,
    b_at: Any,
    lo: Any,
    hi: Any,
    x: Any,
    y: Any,
    mass: Any,
    loss: Any,
    r_lo: Any,
    r_hi: Any,
) -> Any:
    """Write the enclosure of R over the box [lo, hi] of effective parameters to r_lo, r_hi (P, P), upper triangle;
    False: too big.
    """
    layers = widths.size - 1
    most = 0
    for width in widths:
        most = max(most, width)
    outputs = widths[layers]
    r_lo[:] = 0.0
    r_hi[:] = 0.0
    shape1 = (layers + 1, most)
    a_lo, a_hi, s_lo, s_hi = np.zeros(shape1), np.zeros(shape1), np.zeros(shape1), np.zeros(shape1)
    g_lo, g_hi, c_lo, c_hi = np.zeros(shape1), np.zeros(shape1), np.zeros(shape1), np.zeros(shape1)
    d_lo, d_hi = np.zeros(shape1), np.zeros(shape1)
    q_lo, q_hi = np.zeros((layers, most, most)), np.zeros((layers, most, most))
    j_lo, j_hi = np.zeros((layers, layers, most, most)), np.zeros((layers, layers, most, most))
    bar_lo, bar_hi, spans = np.zeros((1, most)), np.zeros((1, most)), np.zeros((3, 2))
    for i in range(x.shape[0]):
        w_lo, w_hi = mass[i] * (1.0 - 1e-15), mass[i] * (1.0 + 1e-15)
        for p in range(widths[0]):
            a_lo[0, p] = a_hi[0, p] = x[i, p]
        for m in range(layers):
            n_in = widths[m]
            for k in range(widths[m + 1]):
                low, high = 0.0, 0.0
                if b_at[m] >= 0:
                    low, high = lo[b_at[m] + k], hi[b_at[m] + k]
                for p in range(n_in):
                    at = w_at[m] + k * n_in + p
                    tl, th = mul(lo[at], hi[at], a_lo[m, p], a_hi[m, p])
                    low, high = down(low + tl), up(high + th)
                s_lo[m, k], s_hi[m, k] = low, high
            if _too_big(s_lo, s_hi, m, widths[m + 1]):
                return False
            if m == layers - 1:
                break
            for k in range(widths[m + 1]):
                for order in range(3):  # one call: every other one would be compiled again
                    # Number by number: rows assigned at once take long to compile.
                    spans[order, 0], spans[order, 1] = activation_range(codes[m], betas[m], order, s_lo[m, k], s_hi[m, k])
                a_lo[m + 1, k], a_hi[m + 1, k] = spans[0, 0], spans[0, 1]
                g_lo[m, k], g_hi[m, k] = spans[1, 0], spans[1, 1]
                c_lo[m, k], c_hi[m, k] = spans[2, 0], spans[2, 1]
        top = layers - 1
        residual(loss, s_lo[top], s_hi[top], y[i], d_lo[top], d_hi[top])
        if _too_big(d_lo, d_hi, top, outputs):
            return False
        # Backwards: delta, and the Hessian in the pre-activations (that of the output layer is zero).
        for k in range(outputs):
            for h in range(outputs):
                q_lo[top, k, h] = q_hi[top, k, h] = 0.0
        for m in range(layers - 2, -1, -1):
            n, above = widths[m + 1], widths[m + 2]
            base = w_at[m + 1]
            for k in range(n):
                low, high = 0.0, 0.0
                for h in range(above):
                    at = base + h * n + k
                    tl, th = mul(d_lo[m + 1, h], d_hi[m + 1, h], lo[at], hi[at])
                    low, high = down(low + tl), up(high + th)
                bar_lo[0, k], bar_hi[0, k] = low, high
                d_lo[m, k], d_hi[m, k] = mul(low, high, g_lo[m, k], g_hi[m, k])
            if _too_big(bar_lo, bar_hi, 0, n) or _too_big(d_lo, d_hi, m, n):
                return False
            for k in range(n):
                for h in range(k, n):
                    low, high = 0.0, 0.0
                    if m < layers - 2:
                        for u in range(above):
                            uk = base + u * n + k
                            uh = base + u * n + h
                            if k == h:
                                sl, sh = square(lo[uk], hi[uk])
                            else:
                                sl, sh = mul(lo[uk], hi[uk], lo[uh], hi[uh])
                            tl, th = mul(sl, sh, q_lo[m + 1, u, u], q_hi[m + 1, u, u])
                            low, high = down(low + tl), up(high + th)
                            for v in range(above):
                                if v != u and (q_lo[m + 1, u, v] != 0.0 or q_hi[m + 1, u, v] != 0.0):
                                    vh = base + v * n + h
                                    sl, sh = mul(lo[uk], hi[uk], lo[vh], hi[vh])
                                    tl, th = mul(sl, sh, q_lo[m + 1, u, v], q_hi[m + 1, u, v])
                                    low, high = down(low + tl), up(high + th)
                        if k == h:
                            sl, sh = square(g_lo[m, k], g_hi[m, k])
                        else:
                            sl, sh = mul(g_lo[m, k], g_hi[m, k], g_lo[m, h], g_hi[m, h])
                        low, high = mul(low, high, sl, sh)
                    if k == h:
                        tl, th = mul(bar_lo[0, k], bar_hi[0, k], c_lo[m, k], c_hi[m, k])
                        low, high = down(low + tl), up(high + th)
                    q_lo[m, k, h] = q_lo[m, h, k] = low
                    q_hi[m, k, h] = q_hi[m, h, k] = high
                if _too_big(q_lo[m], q_hi[m], k, n):
                    return False
        # Forwards: ds^{m'} / ds^m.
        for m in range(layers - 1):
            n = widths[m + 1]
            for k in range(n):
                for h in range(n):
                    j_lo[m, m, h, k] = j_hi[m, m, h, k] = 1.0 if h == k else 0.0
            for l in range(m + 1, layers - 1):  # noqa: E741
                inner = widths[l]
                for h in range(widths[l + 1]):
                    for k in range(n):
                        low, high = 0.0, 0.0
                        for u in range(inner):
                            if j_lo[l - 1, m, u, k] != 0.0 or j_hi[l - 1, m, u, k] != 0.0:
                                at = w_at[l] + h * inner + u
                                tl, th = mul(lo[at], hi[at], g_lo[l - 1, u], g_hi[l - 1, u])
                                tl, th = mul(tl, th, j_lo[l - 1, m, u, k], j_hi[l - 1, m, u, k])
                                low, high = down(low + tl), up(high + th)
                        j_lo[l, m, h, k], j_hi[l, m, h, k] = low, high
                    if _too_big(j_lo[l, m], j_hi[l, m], h, n):
                        return False
        _add(widths, w_at, b_at, a_lo, a_hi, g_lo, g_hi, d_lo, d_hi, q_lo, q_hi, j_lo, j_hi, w_lo, w_hi, r_lo, r_hi)
    return True


@serial
def _add(
    widths: Any,
    w_at: Any,
    b_at: Any,
    a_lo: Any,
    a_hi: Any,
    g_lo: Any,
    g_hi: Any,
    d_lo: Any,
    d_hi: Any,
    q_lo: Any,
    q_hi: Any,
    j_lo: Any,
    j_hi: Any,
    w_lo: Any,
    w_hi: Any,
    r_lo: Any,
    r_hi: Any,
) -> None:
    """Add one datum's blocks to the upper triangle."""
    layers = widths.size - 1
    for m in range(layers):
        n_in = widths[m]
        end = n_in + 1 if b_at[m] >= 0 else n_in
        for k in range(widths[m + 1]):
            row0 = w_at[m] + k * n_in
            row_bias = b_at[m] + k
            for m2 in range(m, layers):
                if m == layers - 1:
                    continue  # two output parameters: linear
                n_in2 = widths[m2]
                end2 = n_in2 + 1 if b_at[m2] >= 0 else n_in2
                for k2 in range(k if m2 == m else 0, widths[m2 + 1]):
                    low, high = 0.0, 0.0
                    if m2 == m:
                        low, high = q_lo[m, k, k2], q_hi[m, k, k2]
                    elif m2 < layers - 1:
                        for u in range(widths[m2 + 1]):
                            if q_lo[m2, k2, u] != 0.0 or q_hi[m2, k2, u] != 0.0:
                                tl, th = mul(q_lo[m2, k2, u], q_hi[m2, k2, u], j_lo[m2, m, u, k], j_hi[m2, m, u, k])
                                low, high = down(low + tl), up(high + th)
                    q_l, q_h = mul(low, high, w_lo, w_hi)
                    e_l, e_h = mul(d_lo[m2, k2], d_hi[m2, k2], w_lo, w_hi)
                    column0 = w_at[m2] + k2 * n_in2
                    for q in range(end2):
                        column = column0 + q if q < n_in2 else b_at[m2] + k2
                        tl, th = q_l, q_h
                        if m2 > m:
                            if q < n_in2:
                                tl, th = mul(q_l, q_h, a_lo[m2, q], a_hi[m2, q])
                                if m2 > m + 1 or q == k:
                                    zl, zh = mul(g_lo[m2 - 1, q], g_hi[m2 - 1, q], j_lo[m2 - 1, m, q, k], j_hi[m2 - 1, m, q, k])
                                    zl, zh = mul(zl, zh, e_l, e_h)
                                    tl, th = down(tl + zl), up(th + zh)
                            if tl == 0.0 and th == 0.0:
                                continue
                            for p in range(end):
                                row = row0 + p if p < n_in else row_bias
                                ul, uh = tl, th
                                if p < n_in:
                                    ul, uh = mul(tl, th, a_lo[m, p], a_hi[m, p])
                                r_lo[row, column] = down(r_lo[row, column] + ul)
                                r_hi[row, column] = up(r_hi[row, column] + uh)
                            continue
                        for p in range(end):
                            if k2 == k and p > q:
                                break
                            row = row0 + p if p < n_in else row_bias
                            pl, ph = 1.0, 1.0
                            if p < n_in and q < n_in:
                                if p == q:
                                    pl, ph = square(a_lo[m, p], a_hi[m, p])
                                else:
                                    pl, ph = mul(a_lo[m, p], a_hi[m, p], a_lo[m, q], a_hi[m, q])
                            elif p < n_in:
                                pl, ph = a_lo[m, p], a_hi[m, p]
                            elif q < n_in:
                                pl, ph = a_lo[m, q], a_hi[m, q]
                            ul, uh = mul(tl, th, pl, ph)
                            i1, i2 = min(row, column), max(row, column)
                            r_lo[i1, i2] = down(r_lo[i1, i2] + ul)
                            r_hi[i1, i2] = up(r_hi[i1, i2] + uh)
