"""Compiled enclosures of the loss's derivatives up to the third or fourth order over a small box, for few parameters.

Polynomials of degree <= 3 or 4 with interval coefficients in P unknowns: the coefficient of a monomial encloses the Taylor
coefficient (derivative over factorials) at every point of the box, and arithmetic on truncated polynomials gives those of
composed functions. A table lists which products of two monomials are not truncated, another what a monomial becomes when
multiplied by one unknown.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import numpy.typing as npt

from .._jit import serial
from .scalar_ranges import activation_range, down, mul, square, up

IntArray = npt.NDArray[np.int64]

_HUGE = 1e60


def monomials(size: int, degree: int) -> tuple[IntArray, IntArray, IntArray]:
    """(exponents as ``degree`` sorted unknowns, -1 for none; shift (M, P), -1 for truncated; products (k, 3) with i <= j)."""
    kept = [
        (-1,) * (degree - order) + unknowns
        for order in range(degree + 1)
        for unknowns in combinations_with_replacement(range(size), order)
    ]
    place = {unknowns: at for at, unknowns in enumerate(kept)}

    def times(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        factors = sorted(u for u in (*a, *b) if u >= 0)
        return place.get((-1,) * (degree - len(factors)) + tuple(factors), -1)

    shift = np.array([[times(one, (k,)) for k in range(size)] for one in kept], dtype=np.int64)
    products = [(i, j, times(a, b)) for i, a in enumerate(kept) for j, b in enumerate(kept) if j >= i and times(a, b) >= 0]
    return np.array(kept, dtype=np.int64), shift.reshape(len(kept), size), np.array(products, dtype=np.int64)


@serial
def _times(products: Any, same: Any, a_lo: Any, a_hi: Any, b_lo: Any, b_hi: Any, out_lo: Any, out_hi: Any) -> None:
    """Write a b, truncated; ``same`` if a is b."""
    out_lo[:] = 0.0
    out_hi[:] = 0.0
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
def _ranges(code: Any, beta: Any, orders: Any, low: Any, high: Any, out: Any) -> None:
    """Enclosures of an activation and its derivatives up to so many over [low, high]."""
    for order in range(orders + 1):
        # Number by number: a row assigned at once takes seconds to compile.
        out[order, 0], out[order, 1] = activation_range(code, beta, order, low, high)


@serial
def _powers(products: Any, degree: Any, powers: Any) -> None:
    """Write powers[k] = s^k (2, M) for k from 2 on, from powers[1], whose constant term is zero."""
    for order in range(2, degree + 1):
        one = order // 2
        a, b = powers[one], powers[order - one]
        _times(products, 2 * one == order, a[0], a[1], b[0], b[1], powers[order, 0], powers[order, 1])


@serial
def _compose(products: Any, degree: Any, d: Any, powers: Any, out_lo: Any, out_hi: Any) -> None:
    """Write g(s) from enclosures d (degree + 1, 2) of g and its derivatives over s = powers[1], which loses its constant term."""
    powers[1, :, 0] = 0.0
    _powers(products, degree, powers)
    out_lo[:] = 0.0
    out_hi[:] = 0.0
    out_lo[0], out_hi[0] = d[0, 0], d[0, 1]
    factorial = 1.0
    for order in range(1, degree + 1):
        factorial *= order
        low, high = down(d[order, 0] / factorial), up(d[order, 1] / factorial)
        if order <= 2:  # exact
            low, high = d[order, 0] / factorial, d[order, 1] / factorial
        if d[order, 0] != 0.0 or d[order, 1] != 0.0:
            _add_scaled(low, high, powers[order, 0], powers[order, 1], out_lo, out_hi)


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
    degree: Any,
    shift: Any,
    products: Any,
    out_lo: Any,
    out_hi: Any,
) -> Any:
    """Write the enclosure of the mean loss's Taylor coefficients from degree 1 on to out (M,); False if a number is too big."""
    layers = widths.size - 1
    count = shift.shape[0]
    most = 0
    for width in widths:
        most = max(most, width)
    outputs = widths[layers]
    out_lo[:] = 0.0
    out_hi[:] = 0.0
    a_lo, a_hi, s_lo, s_hi = (np.zeros((most, count)), np.zeros((most, count)), np.zeros((most, count)), np.zeros((most, count)))
    l_lo, l_hi = np.zeros(count), np.zeros(count)
    powers, d = np.zeros((degree + 1, 2, count)), np.zeros((degree + 1, 2))
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
            if m == layers - 1 and loss == 2:
                break
            w_lo, w_hi = mass[i] * (1.0 - 1e-15), mass[i] * (1.0 + 1e-15)
            for k in range(widths[m + 1]):
                low, high = s_lo[k, 0], s_hi[k, 0]
                for e in range(count):
                    powers[1, 0, e], powers[1, 1, e] = s_lo[k, e], s_hi[k, e]
                if m < layers - 1:
                    _ranges(codes[m], betas[m], degree, low, high, d)
                    _compose(products, degree, d, powers, a_lo[k], a_hi[k])
                    continue
                # The loss and its derivatives: r²/2, or those of the logistic function a step higher.
                d[:] = 0.0
                if loss == 0:
                    d[1, 0], d[1, 1] = down(low - y[i, k]), up(high - y[i, k])
                    d[2] = 1.0
                else:
                    # No literal, for which all of it would be compiled anew.
                    _ranges(np.int64(2), 1.0, degree - 1, low, high, d[1:])
                    d[1, 0], d[1, 1] = down(max(d[1, 0], 0.0) - y[i, k]), up(min(d[1, 1], 1.0) - y[i, k])
                _compose(products, degree, d, powers, l_lo, l_hi)
                _add_scaled(w_lo, w_hi, l_lo, l_hi, out_lo, out_hi)
        if loss == 2:
            _softmax(s_lo[:outputs], s_hi[:outputs], p_lo, p_hi)
            _log_sum(products, degree, mass[i], y[i], p_lo, p_hi, s_lo, s_hi, powers, out_lo, out_hi)
    for e in range(1, count):  # noqa: SIM110 - Numba; and NaN counts as too big
        if not (out_lo[e] >= -_HUGE and out_hi[e] <= _HUGE):
            return False
    return True


@serial
def _log_sum(
    products: Any,
    degree: Any,
    mass: Any,
    y: Any,
    p_lo: Any,
    p_hi: Any,
    s_lo: Any,
    s_hi: Any,
    powers: Any,
    out_lo: Any,
    out_hi: Any,
) -> None:
    """Add mass (total log sum exp f - y'f): log sum exp f = mu + (variance) / 2 + (third cumulant) / 6 + (fourth) / 24 + … of
    the outputs' changes under p = softmax(f); the fourth is the central moment less three squares of the variance.
    """
    outputs, count = p_lo.size, out_lo.size
    total = 0.0
    mean, variance = np.zeros((2, count)), np.zeros((2, count))
    for k in range(outputs):
        total += y[k]
        s_lo[k, 0] = s_hi[k, 0] = 0.0
        _add_scaled(p_lo[k], p_hi[k], s_lo[k], s_hi[k], mean[0], mean[1])
    w_lo, w_hi = mass * (1.0 - 1e-15), mass * (1.0 + 1e-15)
    t_lo, t_hi = mul(total * (1.0 - 1e-15 * outputs), total * (1.0 + 1e-15 * outputs), w_lo, w_hi)
    for k in range(outputs):
        r_lo, r_hi = mul(p_lo[k], p_hi[k], t_lo, t_hi)
        y_lo, y_hi = mul(y[k], y[k], w_lo, w_hi)
        # First order: (total p_k - y_k) delta_k.
        _add_scaled(down(r_lo - y_hi), up(r_hi - y_lo), s_lo[k], s_hi[k], out_lo, out_hi)
        powers[1, :, 0] = 0.0
        for e in range(1, count):
            powers[1, 0, e] = powers[1, 1, e] = 0.0
            if mean[0, e] != 0.0 or mean[1, e] != 0.0:  # else no output has this coefficient
                powers[1, 0, e], powers[1, 1, e] = down(s_lo[k, e] - mean[1, e]), up(s_hi[k, e] - mean[0, e])
        _powers(products, degree, powers)
        _add_scaled(p_lo[k], p_hi[k], powers[2, 0], powers[2, 1], variance[0], variance[1])
        factorial = 1.0
        for order in range(2, degree + 1):
            factorial *= order
            _add_scaled(down(r_lo / factorial), up(r_hi / factorial), powers[order, 0], powers[order, 1], out_lo, out_hi)
    if degree == 4:
        _times(products, True, variance[0], variance[1], variance[0], variance[1], powers[4, 0], powers[4, 1])
        _add_scaled(-0.125 * t_hi, -0.125 * t_lo, powers[4, 0], powers[4, 1], out_lo, out_hi)
