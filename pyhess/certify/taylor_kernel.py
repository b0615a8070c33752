"""Compiled enclosures of the loss's derivatives up to the third order over a small box, for few parameters.

Polynomials of degree <= 3 with interval coefficients in P unknowns: the coefficient of a monomial encloses the Taylor coefficient
(derivative over factorials) at every point of the box, and arithmetic on truncated polynomials gives those of composed functions.
A table lists which products of two monomials have degree <= 3, another what a monomial becomes when multiplied by one unknown.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._jit import serial
from .scalar_ranges import activation_range, down, mul, square, up

_HUGE = 1e60


def monomials(size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(exponents as sorted triples of unknowns, -1 for none; shift (M, P), -1 beyond degree 3; products (k, 3) with i <= j)."""
    triples = [(-1, -1, -1)]
    triples += [(-1, -1, i) for i in range(size)]
    triples += [(-1, i, j) for i in range(size) for j in range(i, size)]
    triples += [(i, j, k) for i in range(size) for j in range(i, size) for k in range(j, size)]
    place = {triple: at for at, triple in enumerate(triples)}

    def times(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        factors = sorted(u for u in (*a, *b) if u >= 0)
        if len(factors) > 3:
            return -1
        first, second, third = [-1] * (3 - len(factors)) + factors
        return place[first, second, third]

    shift = np.array([[times(t, (k,)) for k in range(size)] for t in triples], dtype=np.int64)
    products = [(i, j, times(a, b)) for i, a in enumerate(triples) for j, b in enumerate(triples) if j >= i and times(a, b) >= 0]
    return np.array(triples, dtype=np.int64), shift.reshape(len(triples), size), np.array(products, dtype=np.int64)


@serial
def _times(products: Any, a_lo: Any, a_hi: Any, b_lo: Any, b_hi: Any, out_lo: Any, out_hi: Any) -> None:
    """Write a b, truncated; a and b may be the same array."""
    out_lo[:] = 0.0
    out_hi[:] = 0.0
    same = a_lo is b_lo
    for e in range(products.shape[0]):
        i, j, k = products[e, 0], products[e, 1], products[e, 2]
        # Zeros are left out: most coefficients are, and calculating with the numbers next to zero is slow.
        one = (a_lo[i] != 0.0 or a_hi[i] != 0.0) and (b_lo[j] != 0.0 or b_hi[j] != 0.0)
        if i == j:
            if not one:
                continue
            if same:
                tl, th = square(a_lo[i], a_hi[i])
            else:
                tl, th = mul(a_lo[i], a_hi[i], b_lo[i], b_hi[i])
        else:
            tl, th = 0.0, 0.0
            if one:
                tl, th = mul(a_lo[i], a_hi[i], b_lo[j], b_hi[j])
            if (a_lo[j] != 0.0 or a_hi[j] != 0.0) and (b_lo[i] != 0.0 or b_hi[i] != 0.0):
                ul, uh = mul(a_lo[j], a_hi[j], b_lo[i], b_hi[i])
                tl, th = down(tl + ul), up(th + uh)
        if tl != 0.0 or th != 0.0:
            out_lo[k], out_hi[k] = down(out_lo[k] + tl), up(out_hi[k] + th)


@serial
def _add_scaled(c_lo: Any, c_hi: Any, a_lo: Any, a_hi: Any, out_lo: Any, out_hi: Any) -> None:
    """Out += c a for an interval c."""
    for i in range(a_lo.size):
        if a_lo[i] != 0.0 or a_hi[i] != 0.0:
            tl, th = mul(c_lo, c_hi, a_lo[i], a_hi[i])
            out_lo[i], out_hi[i] = down(out_lo[i] + tl), up(out_hi[i] + th)


@serial
def _compose(
    products: Any,
    d0: Any,
    d1: Any,
    d2: Any,
    d3: Any,
    s_lo: Any,
    s_hi: Any,
    out_lo: Any,
    out_hi: Any,
    square_lo: Any,
    square_hi: Any,
    cube_lo: Any,
    cube_hi: Any,
) -> None:
    """Write g(s) from the enclosures d0 … d3 of g and its derivatives over s; s loses its constant term."""
    s_lo[0] = s_hi[0] = 0.0
    _times(products, s_lo, s_hi, s_lo, s_hi, square_lo, square_hi)
    _times(products, square_lo, square_hi, s_lo, s_hi, cube_lo, cube_hi)
    out_lo[:] = 0.0
    out_hi[:] = 0.0
    out_lo[0], out_hi[0] = d0
    _add_scaled(d1[0], d1[1], s_lo, s_hi, out_lo, out_hi)
    _add_scaled(0.5 * d2[0], 0.5 * d2[1], square_lo, square_hi, out_lo, out_hi)
    _add_scaled(down(d3[0] / 6.0), up(d3[1] / 6.0), cube_lo, cube_hi, out_lo, out_hi)


@serial
def _softmax(f_lo: Any, f_hi: Any, p_lo: Any, p_hi: Any) -> None:
    """Enclosure of softmax of the constant terms."""
    outputs = f_lo.shape[0]
    slack = 2.0**-46 * outputs
    for k in range(outputs):
        low, high = 1.0, 1.0
        for j in range(outputs):
            if j != k:
                worst, best = up(f_hi[j, 0] - f_lo[k, 0]), down(f_lo[j, 0] - f_hi[k, 0])
                low += np.inf if worst > 700.0 else np.exp(worst) * (1.0 + slack * (1.0 + abs(worst)))
                best = min(max(best, -700.0), 700.0)
                high += np.exp(best) * (1.0 - slack * (1.0 + abs(best))) if best > -700.0 else 0.0
        p_lo[k], p_hi[k] = max(0.0, (1.0 - slack) / low), min(1.0, (1.0 + slack) / max(high, 1.0))


@serial
def derivatives(
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
    shift: Any,
    products: Any,
    out_lo: Any,
    out_hi: Any,
) -> Any:
    """Write the enclosure of the mean loss's Taylor coefficients of degree 1 to 3 to out (M,); False if a number is too big."""
    layers = widths.size - 1
    count = shift.shape[0]
    most = 0
    for width in widths:
        most = max(most, width)
    outputs = widths[layers]
    out_lo[:] = 0.0
    out_hi[:] = 0.0
    a_lo, a_hi, s_lo, s_hi = (np.zeros((most, count)), np.zeros((most, count)), np.zeros((most, count)), np.zeros((most, count)))
    t1_lo, t1_hi, t2_lo, t2_hi = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count)
    m_lo, m_hi, l_lo, l_hi = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count)
    e_lo, e_hi = np.zeros(count), np.zeros(count)
    p_lo, p_hi = np.zeros(outputs), np.zeros(outputs)
    for i in range(x.shape[0]):
        a_lo[:] = 0.0
        a_hi[:] = 0.0
        for p in range(widths[0]):
            a_lo[p, 0] = a_hi[p, 0] = x[i, p]
        for m in range(layers):
            n_in = widths[m]
            for k in range(widths[m + 1]):
                s_lo[k] = 0.0
                s_hi[k] = 0.0
                if b_at[m] >= 0:
                    at = b_at[m] + k
                    s_lo[k, 0], s_hi[k, 0] = lo[at], hi[at]
                    s_lo[k, 1 + at] = s_hi[k, 1 + at] = 1.0
                for p in range(n_in):
                    at = w_at[m] + k * n_in + p
                    _add_scaled(lo[at], hi[at], a_lo[p], a_hi[p], s_lo[k], s_hi[k])
                    for e in range(count):
                        to = shift[e, at]
                        if to >= 0 and (a_lo[p, e] != 0.0 or a_hi[p, e] != 0.0):
                            s_lo[k, to], s_hi[k, to] = down(s_lo[k, to] + a_lo[p, e]), up(s_hi[k, to] + a_hi[p, e])
                for e in range(count):
                    if not (s_lo[k, e] >= -_HUGE and s_hi[k, e] <= _HUGE):
                        return False
            if m == layers - 1:
                break
            for k in range(widths[m + 1]):
                low, high = s_lo[k, 0], s_hi[k, 0]
                d0 = activation_range(codes[m], betas[m], 0, low, high)
                d1 = activation_range(codes[m], betas[m], 1, low, high)
                d2 = activation_range(codes[m], betas[m], 2, low, high)
                d3 = activation_range(codes[m], betas[m], 3, low, high)
                _compose(products, d0, d1, d2, d3, s_lo[k], s_hi[k], a_lo[k], a_hi[k], t1_lo, t1_hi, t2_lo, t2_hi)
        w_lo, w_hi = mass[i] * (1.0 - 1e-15), mass[i] * (1.0 + 1e-15)
        if loss == 0:
            for k in range(outputs):
                s_lo[k, 0], s_hi[k, 0] = down(s_lo[k, 0] - y[i, k]), up(s_hi[k, 0] - y[i, k])
                _times(products, s_lo[k], s_hi[k], s_lo[k], s_hi[k], t1_lo, t1_hi)
                _add_scaled(0.5 * w_lo, 0.5 * w_hi, t1_lo, t1_hi, out_lo, out_hi)
        elif loss == 1:
            low, high = s_lo[0, 0], s_hi[0, 0]
            r_lo, r_hi = activation_range(2, 1.0, 0, low, high)
            d0 = (0.0, 0.0)
            d1 = (down(max(r_lo, 0.0) - y[i, 0]), up(min(r_hi, 1.0) - y[i, 0]))
            d2 = activation_range(2, 1.0, 1, low, high)
            d3 = activation_range(2, 1.0, 2, low, high)
            _compose(products, d0, d1, d2, d3, s_lo[0], s_hi[0], l_lo, l_hi, t1_lo, t1_hi, t2_lo, t2_hi)
            _add_scaled(w_lo, w_hi, l_lo, l_hi, out_lo, out_hi)
        else:
            # log sum exp = mu + (variance) / 2 + (third cumulant) / 6 + … of the outputs' changes under p = softmax(f).
            _softmax(s_lo[:outputs], s_hi[:outputs], p_lo, p_hi)
            total = 0.0
            m_lo[:] = 0.0
            m_hi[:] = 0.0
            for k in range(outputs):
                total += y[i, k]
                s_lo[k, 0] = s_hi[k, 0] = 0.0
                _add_scaled(p_lo[k], p_hi[k], s_lo[k], s_hi[k], m_lo, m_hi)
            t_lo, t_hi = total * (1.0 - 1e-15 * outputs), total * (1.0 + 1e-15 * outputs)
            t_lo, t_hi = mul(t_lo, t_hi, w_lo, w_hi)
            for k in range(outputs):
                # First order: (total p_k - y_k) delta_k.
                r_lo, r_hi = mul(p_lo[k], p_hi[k], t_lo, t_hi)
                y_lo, y_hi = mul(y[i, k], y[i, k], w_lo, w_hi)
                _add_scaled(down(r_lo - y_hi), up(r_hi - y_lo), s_lo[k], s_hi[k], out_lo, out_hi)
                for e in range(count):
                    e_lo[e], e_hi[e] = down(s_lo[k, e] - m_hi[e]), up(s_hi[k, e] - m_lo[e])
                _times(products, e_lo, e_hi, e_lo, e_hi, t1_lo, t1_hi)
                _times(products, t1_lo, t1_hi, e_lo, e_hi, t2_lo, t2_hi)
                _add_scaled(0.5 * r_lo, 0.5 * r_hi, t1_lo, t1_hi, out_lo, out_hi)
                _add_scaled(down(r_lo / 6.0), up(r_hi / 6.0), t2_lo, t2_hi, out_lo, out_hi)
    for e in range(1, count):  # noqa: SIM110 - Numba; and NaN counts as too big
        if not (out_lo[e] >= -_HUGE and out_hi[e] <= _HUGE):
            return False
    return True
