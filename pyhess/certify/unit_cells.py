"""Lower bounds of one hidden unit's block of the residual part over cells of its weights: the compiled loops of `units`.

The block of unit (u, v) in a network with one hidden layer is ``R = sum_i w_i [alpha_i z_i z_i', z_i beta_i'; ., 0]`` with
``alpha_i = phi''(s_i) r_i.v`` and ``beta_i = phi'(s_i) r_i``, s_i = u.z_i. Both are enclosed, datum by datum, by affine forms in
local symbols of absolute value at most one: s, v_k, t_k (what the other units add to output k) and e_k (what is not known of the
residual's entry k). In the global symbols (the cell's coordinates and those of the other units) the block is then

    R = M_0 + sum_k delta_k E_k + sum_ik eps_ik G_ik + (remainders),

and eigval_min is bounded by

    vertices    a concave function of delta is smallest at a vertex: up to `MAX_VERTEX` symbols are enumerated;
    majorants   N >= +-E with z'Nz = |z'Ez| at a guessed eigenvector z, for the other symbols, and of least trace(NZ) for a
                guessed mixture Z of eigenvectors, for the G_ik;
    splits      2 beta y q <= |beta| (tau y² + q²/tau) for the remainders.

Any z, Z and tau give a valid bound. Every affine operation adds its rounding to the remainder, sums are allowed gamma times the
sum of the magnitudes, and the last step is a Cholesky factorisation (S. M. Rump, BIT 46 (2006)).

All helpers share this file: Numba's cache does not notice an edited helper in another one.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from .._jit import parallel
from ..kernels._units import helper

#: Codes of activations and losses.
ACTIVATIONS = {"identity": 0, "tanh": 1, "sigmoid": 2, "softplus": 3, "gelu": 4}
LOSSES = {"squared_error": 0, "logistic": 1, "cross_entropy": 2}
#: Models of the other units: affine generators, or twins of one further unit.
LINEAR, TWINS = 0, 1
#: Symbols whose vertices are enumerated.
MAX_VERTEX = 8

_U = 2.0**-53
#: Absolute error allowed to values of activations and derivatives, in units of their natural size.
_ERR = 2.0**-46
_TINY = 1e-300
_PICKS = 8

_NAN = math.nan
_S3 = math.sqrt(3.0)
_T2, _T3 = math.atanh(1.0 / _S3), math.atanh(math.sqrt(2.0 / 3.0))
_G3 = (math.sqrt((7.0 - math.sqrt(33.0)) / 2.0), math.sqrt((7.0 + math.sqrt(33.0)) / 2.0))


def _gelu3(s: float) -> float:
    return math.exp(-0.5 * s * s) / math.sqrt(2.0 * math.pi) * (s**3 - 4.0 * s)


def _critical_points() -> Any:
    """(5, 4, 4, 2): position and value of up to four critical points of phi, phi', phi'', phi''' of every activation."""
    table = np.full((5, 4, 4, 2), _NAN)

    def put(act: int, order: int, *points: tuple[float, float]) -> None:
        for k, point in enumerate(points):
            table[act, order, k] = point

    bend, third = 4.0 / (3.0 * _S3), 2.0 / 3.0
    put(1, 1, (0.0, 1.0))
    put(1, 2, (-_T2, bend), (_T2, -bend))
    put(1, 3, (0.0, -2.0), (-_T3, third), (_T3, third))
    for act, first in ((2, 1), (3, 2)):  # sigmoid(s) = 1/2 + tanh(s/2)/2; softplus' = sigmoid
        put(act, first, (0.0, 0.25))
        put(act, first + 1, (-2.0 * _T2, bend / 8.0), (2.0 * _T2, -bend / 8.0))
        if first == 1:
            put(act, 3, (0.0, -0.125), (-2.0 * _T3, third / 16.0), (2.0 * _T3, third / 16.0))
    put(4, 0, (-0.7517915246935645, -0.16997120747990369))
    put(4, 1, (-math.sqrt(2.0), -0.12890414518515475), (math.sqrt(2.0), 1.1289041451851550))
    put(4, 2, (-2.0, -0.10798193302637613), (0.0, 0.7978845608028654), (2.0, -0.10798193302637613))
    put(4, 3, *((sign * g, _gelu3(sign * g)) for g in _G3 for sign in (-1.0, 1.0)))
    return table


_CRITICAL = _critical_points()
#: sup of the fourth derivative (softplus: of sigmoid'''), rounded up.
_FOURTH = np.array([0.0, 4.09, 0.128, 0.126, 1.6])


@helper
def _derivatives(act: int, s: float, out: Any) -> float:
    """Phi … phi''' at s (softplus: at beta s, unscaled); returns a bound of the absolute errors, for |phi| <= 1 + |s|."""
    if act == 0:
        out[0], out[1], out[2], out[3] = s, 1.0, 0.0, 0.0
        return 0.0
    if act == 1:
        t = math.tanh(s)
        d = (1.0 - t) * (1.0 + t)
        out[0], out[1], out[2], out[3] = t, d, -2.0 * t * d, -2.0 * d * (1.0 - 3.0 * t * t)
        return _ERR
    if act == 2 or act == 3:
        t = math.tanh(0.5 * s)
        d = 0.25 * (1.0 - t) * (1.0 + t)
        k = act - 2
        out[k], out[k + 1], out[k + 2] = 0.5 * (1.0 + t), d, -t * d
        if act == 2:
            out[3] = -0.5 * d * (1.0 - 3.0 * t * t)
        else:
            out[0] = max(s, 0.0) + math.log1p(math.exp(-abs(s)))
        return _ERR * (1.0 + abs(s)) if act == 3 else _ERR
    if abs(s) > 38.0:  # cdf and density are 0 or 1 far below the allowance
        out[0], out[1], out[2], out[3] = max(s, 0.0), 1.0 if s > 0.0 else 0.0, 0.0, 0.0
        return 4.0 * _ERR * (1.0 + abs(s))
    cdf = 0.5 * math.erfc(-s / math.sqrt(2.0))
    density = math.exp(-0.5 * s * s) / math.sqrt(2.0 * math.pi)
    out[0], out[1] = s * cdf, cdf + s * density
    out[2], out[3] = density * (2.0 - s * s), density * (s * s * s - 4.0 * s)
    return 4.0 * _ERR * (1.0 + abs(s))


@helper
def _bend(s: float) -> float:
    """Sigmoid''."""
    t = math.tanh(0.5 * s)
    return -0.25 * t * (1.0 - t) * (1.0 + t)


@helper
def _order_range(act: int, order: int, low: float, high: float, a: float, b: float, err: float) -> tuple[float, float]:
    """Range of a derivative over [low, high] from its values a, b at the ends."""
    lo, hi = min(a, b), max(a, b)
    for k in range(4):
        place = _CRITICAL[act, order, k, 0]
        if low <= place + 1e-6 and place - 1e-6 <= high:
            lo, hi = min(lo, _CRITICAL[act, order, k, 1]), max(hi, _CRITICAL[act, order, k, 1])
    return lo - err, hi + err


@helper
def _activation_forms(act: int, beta: float, s0: float, half: float, forms: Any, work: Any) -> None:
    """Affine forms of phi, phi' and phi'' over s0 +- half in the symbol (s - s0)/half: rows (middle, slope, remainder)."""
    scale = beta if act == 3 else 1.0
    c, h = s0 * scale, half * scale * (1.0 + 4.0 * _U) + 2.0 * _U * abs(s0 * scale)
    low, high = c - h - 2.0 * _U * (abs(c) + h), c + h + 2.0 * _U * (abs(c) + h)
    at, left, right = work[0], work[1], work[2]
    err = max(_derivatives(act, c, at), max(_derivatives(act, low, left), _derivatives(act, high, right)))
    top = 2 if act == 3 else 3
    lo, hi = work[3], work[4]
    for order in range(top + 1):
        # Errors of z = beta s move the derivatives by no more than err as well: z phi^(k+1)(z) is of size one.
        lo[order], hi[order] = _order_range(act, order, low, high, left[order], right[order], err)
    if act == 3:  # softplus''' = sigmoid''
        at[3], left[3], right[3] = _bend(c), _bend(low), _bend(high)
        lo[3], hi[3] = _order_range(2, 2, low, high, left[3], right[3], err)
    unit = 1.0 / scale
    for order in range(3):
        middle, rad = 0.5 * (lo[order] + hi[order]), 0.5 * (hi[order] - lo[order])
        if order < 2:
            down, up = 0.5 * h * h * min(lo[order + 2], 0.0), 0.5 * h * h * max(hi[order + 2], 0.0)
            shift, rest, slope = 0.5 * (down + up), 0.5 * (up - down), at[order + 1]
        else:
            shift, rest, slope = 0.0, 0.5 * h * h * _FOURTH[act], at[3]
            by_mean = 0.5 * (hi[3] - lo[3]) * h
            if by_mean < rest:
                rest, slope = by_mean, 0.5 * (hi[3] + lo[3])
        if rest < rad:
            forms[order, 0], forms[order, 1] = at[order] + shift, slope * h
        else:
            forms[order, 0], forms[order, 1], rest = middle, 0.0, rad
        size = abs(forms[order, 0]) + abs(forms[order, 1]) + rest
        forms[order, 2] = rest + 3.0 * err * (1.0 + h) + 16.0 * _U * size + _TINY
        for k in range(3):
            forms[order, k] *= unit
        unit *= scale
        if act == 3:
            forms[order, 2] += 8.0 * _U * (abs(forms[order, 0]) + abs(forms[order, 1]) + forms[order, 2])


@helper
def _size(x: Any, nl: int) -> float:
    total = x[nl + 1]
    for k in range(nl + 1):
        total += abs(x[k])
    return total


@helper
def _radius(x: Any, nl: int) -> float:
    total = x[nl + 1]
    for k in range(1, nl + 1):
        total += abs(x[k])
    return total


@helper
def _multiply(x: Any, y: Any, out: Any, nl: int) -> None:
    """Product of affine forms: middle, nl coefficients, remainder, then nl shares of the symbols in the remainder."""
    rad_x, rad_y = _radius(x, nl), _radius(y, nl)
    rem_x, rem_y = x[nl + 1], y[nl + 1]
    x0, y0 = x[0], y[0]
    middle, quadratic = x0 * y0, 0.0
    for k in range(1, nl + 1):
        xk, yk = x[k], y[k]
        out[k] = x0 * yk + y0 * xk
        out[nl + 1 + k] = abs(x0) * y[nl + 1 + k] + abs(y0) * x[nl + 1 + k]
        if xk != 0.0 or yk != 0.0:
            square = 0.5 * xk * yk  # xk yk delta² lies between 0 and xk yk
            middle += square
            quadratic += abs(square)
            out[nl + 1 + k] += abs(xk) * rad_y + abs(yk) * rad_x
            for j in range(k + 1, nl + 1):
                quadratic += abs(xk * y[j] + x[j] * yk)
    out[0] = middle
    rest = abs(x0) * rem_y + abs(y0) * rem_x + quadratic + rem_x * rad_y + rad_x * rem_y
    out[nl + 1] = rest * (1.0 + 32.0 * nl * _U) + (16.0 + 4.0 * nl) * _U * (abs(x0) + rad_x) * (abs(y0) + rad_y) + _TINY


@helper
def _add(x: Any, y: Any, out: Any, nl: int) -> None:
    size = _size(x, nl) + _size(y, nl)
    for k in range(2 * nl + 2):
        out[k] = x[k] + y[k]
    out[nl + 1] = out[nl + 1] * (1.0 + 4.0 * _U) + 4.0 * _U * size + _TINY


@helper
def _residual_forms(loss: int, outputs: int, y: Any, mass: float, forms: Any, first: int, place: int, nl: int, work: Any) -> None:
    """Forms r_k at ``place`` from f_k at ``first``; the remainder becomes the coefficient of e_k."""
    for k in range(outputs):
        f, r = forms[first + k], forms[place + k]
        if loss == 0:
            r[:] = f
            r[0] = f[0] - y[k]
            r[nl + 1] += 4.0 * _U * (abs(f[0]) + abs(y[k])) + _TINY
        elif loss == 1:
            _sigmoid_form(f, r, nl)
            r[0] -= y[k]
            r[nl + 1] += 8.0 * _U
    if loss == 2:
        _softmax_forms(outputs, y, mass, forms, first, place, nl, work)
    for k in range(outputs):
        r = forms[place + k]
        e = 2 + 2 * outputs + k
        r[e] = r[nl + 1]
        r[nl + 1] = 0.0


@helper
def _scaled(f: Any, r: Any, slope: float, nl: int) -> None:
    for k in range(2 * nl + 2):
        r[k] = slope * f[k]
    for k in range(nl + 1, 2 * nl + 2):
        r[k] = abs(r[k])


@helper
def _sigmoid_form(f: Any, r: Any, nl: int) -> None:
    """Sigmoid of a form by its secant: the error's extremes are at the ends and where sigmoid' is the slope."""
    rad = _radius(f, nl) * (1.0 + 64.0 * _U) + 4.0 * _U * abs(f[0])
    low, high = f[0] - rad, f[0] + rad
    p_low, p_high = 0.5 * (1.0 + math.tanh(0.5 * low)), 0.5 * (1.0 + math.tanh(0.5 * high))
    if rad > 1e-3:
        slope = min(0.25, max(0.0, (p_high - p_low) / (high - low)))
    else:
        p = 0.5 * (1.0 + math.tanh(0.5 * f[0]))
        slope = p * (1.0 - p)
    # In terms of x = f - f_0, so that large f do not cost accuracy.
    at_low, at_high = p_low + slope * rad, p_high - slope * rad
    lo, hi = min(at_low, at_high), max(at_low, at_high)
    root = math.sqrt(max(0.0, 0.25 - slope))
    if slope > 0.0:
        p = slope / (0.5 + root)  # the smaller solution of p (1 - p) = slope
        place = math.log(p / (1.0 - p))
        if low - 1e-6 <= place <= high + 1e-6:
            lo = min(lo, p - slope * (place - f[0]))
        if low - 1e-6 <= -place <= high + 1e-6:
            hi = max(hi, 1.0 - p + slope * (place + f[0]))
    _scaled(f, r, slope, nl)
    r[0] = 0.5 * (lo + hi)
    # A critical point that is off by x changes the value by x² only; sqrt near slope 1/4 is good to 1e-8.
    r[nl + 1] += 0.5 * (hi - lo) + 1e-14 * (1.0 + slope * (rad + abs(f[0])))
    for k in range(1, nl + 1):
        r[nl + 1 + k] += 0.1 * abs(f[k]) * rad


@helper
def _softmax_forms(outputs: int, y: Any, mass: float, forms: Any, first: int, place: int, nl: int, work: Any) -> None:
    """Mass softmax(f)_k - y_k: the tangent at the middles where its error is small, an interval otherwise."""
    low, high, p = work[5], work[6], work[7]
    top = -math.inf
    for k in range(outputs):
        f = forms[first + k]
        rad = _radius(f, nl) * (1.0 + 64.0 * _U) + 8.0 * _U * abs(f[0])
        low[k], high[k] = f[0] - rad, f[0] + rad
        top = max(top, f[0])
    total = 0.0
    for k in range(outputs):
        p[k] = math.exp(forms[first + k, 0] - top)
        total += p[k]
    spread = 0.0  # of the deviations from the middle
    for k in range(outputs):
        p[k] /= total
        for j in range(k):
            spread = max(spread, 0.5 * (high[k] - low[k]) + 0.5 * (high[j] - low[j]))
    for k in range(outputs):
        worst, best = 1.0, 1.0
        for j in range(outputs):
            if j != k:
                worst += math.exp(min(700.0, high[j] - low[k]))
                best += math.exp(min(700.0, low[j] - high[k]))
        lo, hi = 1.0 / worst, 1.0 / best
        # |d²p_k[h, h]| = p_k |(h_k - mean)² - variance| <= p_k spread²
        curved = 0.5 * hi * spread * spread
        r = forms[place + k]
        r[:] = 0.0
        linear = 0.0
        for j in range(outputs):
            f = forms[first + j]
            slope = p[k] * ((1.0 if j == k else 0.0) - p[j])
            linear += abs(slope) * f[nl + 1]
        if curved + linear < 0.5 * (hi - lo):
            for j in range(outputs):
                f = forms[first + j]
                slope = mass * p[k] * ((1.0 if j == k else 0.0) - p[j])
                for i in range(1, nl + 1):
                    r[i] += slope * f[i]
                    r[nl + 1 + i] += abs(slope) * f[nl + 1 + i]
            r[0] = mass * p[k] - y[k]
            r[nl + 1] = mass * (curved + linear)
        else:
            r[0] = mass * 0.5 * (lo + hi) - y[k]
            r[nl + 1] = mass * 0.5 * (hi - lo)
        for j in range(outputs):
            for i in range(1, nl + 1):
                r[nl + 1 + i] += 0.5 * mass * hi * abs(forms[first + j, i]) * min(1.0, spread)
        allowance = (64.0 + 8.0 * outputs) * _U * (1.0 + spread + abs(forms[first + k, 0] - top))
        r[nl + 1] += mass * allowance * (1.0 + abs(high[k]) + abs(low[k])) + 8.0 * _U * abs(y[k]) + _TINY


@helper
def _cholesky(a: Any, b: Any, size: int, shift: float) -> bool:
    """Whether the factorisation of A - shift I succeeds (lower triangles; b is overwritten)."""
    for i in range(size):
        for j in range(i):
            x = a[i, j]
            for k in range(j):
                x -= b[i, k] * b[j, k]
            b[i, j] = x / b[j, j]
        x = a[i, i] - shift
        for k in range(i):
            x -= b[i, k] * b[i, k]
        if not x > 0.0:
            return False
        b[i, i] = math.sqrt(x)
    return True


@helper
def _smallest(a: Any, b: Any, q: Any, z: Any, size: int) -> float:
    """Smallest eigenvalue and its vector z of a symmetric matrix (lower triangle) by Jacobi's method; approximate."""
    for i in range(size):
        for j in range(i + 1):
            b[i, j] = a[i, j]
            b[j, i] = a[i, j]
            q[i, j] = q[j, i] = 0.0
        q[i, i] = 1.0
    for _ in range(12):
        off, diagonal = 0.0, 0.0
        for i in range(size):
            diagonal += b[i, i] * b[i, i]
            for j in range(i):
                off += b[i, j] * b[i, j]
        if off <= 1e-26 * diagonal:
            break
        for i in range(size):
            for j in range(i):
                if b[i, j] == 0.0:
                    continue
                theta = 0.5 * (b[i, i] - b[j, j]) / b[i, j]
                t = (1.0 if theta >= 0.0 else -1.0) / (abs(theta) + math.sqrt(1.0 + theta * theta))
                c = 1.0 / math.sqrt(1.0 + t * t)
                s = t * c
                for k in range(size):
                    x, y = b[k, j], b[k, i]
                    b[k, j], b[k, i] = c * x - s * y, s * x + c * y
                for k in range(size):
                    x, y = b[j, k], b[i, k]
                    b[j, k], b[i, k] = c * x - s * y, s * x + c * y
                    x, y = q[k, j], q[k, i]
                    q[k, j], q[k, i] = c * x - s * y, s * x + c * y
    best = 0
    for i in range(size):
        if b[i, i] < b[best, best]:
            best = i
    for k in range(size):
        z[k] = q[k, best]
    return b[best, best]


@helper
def _accumulate(e: Any, a: float, b: Any, weight: float, z: Any, dim: int, outputs: int) -> None:
    """E += [weight a z z', weight z b'; ., 0], lower triangle."""
    for i in range(dim):
        x = weight * a * z[i]
        if x != 0.0:
            for j in range(i + 1):
                e[i, j] += x * z[j]
    for k in range(outputs):
        x = weight * b[k]
        if x != 0.0:
            for j in range(dim):
                e[dim + k, j] += x * z[j]


@helper
def _frobenius(e: Any, size: int) -> float:
    total = 0.0
    for i in range(size):
        for j in range(i):
            total += 2.0 * e[i, j] * e[i, j]
        total += e[i, i] * e[i, i]
    return math.sqrt(total)


@helper
def _times(e: Any, z: Any, out: Any, size: int) -> float:
    """Out = E z; returns z'Ez."""
    form = 0.0
    for i in range(size):
        x = 0.0
        for j in range(size):
            x += (e[i, j] if j <= i else e[j, i]) * z[j]
        out[i] = x
        form += x * z[i]
    return form


@helper
def _tangent(n: Any, e: Any, z: Any, f: Any, size: int, norm: float) -> float:
    """N += a matrix >= +-E, with z'Nz = |z'Ez| where that is not small; returns its size for the rounding.

    With e = z'Ez, f the part of Ez orthogonal to z and P = I - zz': sign(e) E + 2 ff'/|e| + 2 |PEP| P is one.
    """
    form = _times(e, z, f, size)
    for i in range(size):
        f[i] -= form * z[i]
    bend = 0.0
    for i in range(size):
        bend += f[i] * f[i]
    inner = math.sqrt(max(0.0, norm * norm - form * form - 2.0 * bend)) + 1e-7 * norm
    if abs(form) > 0.02 * norm and 2.0 * bend / abs(form) + 2.0 * inner < 4.0 * norm:
        sign = 1.0 if form >= 0.0 else -1.0
        for i in range(size):
            n[i, i] += 2.0 * inner
            for j in range(i + 1):
                n[i, j] += sign * e[i, j] + 2.0 * f[i] * f[j] / abs(form) - 2.0 * inner * z[i] * z[j]
        return 16.0 * norm
    for i in range(size):
        n[i, i] += norm
    return norm


@helper
def _tangent_ball(n: Any, e: Any, group: Any, code: int, z: Any, work: Any, size: int) -> float:
    """N += a matrix >= sum_l eta_l E_l for all |eta| <= 1, the E_l those of a group; returns its size for the rounding.

    With g_l = z'E_l z, eta = g/|g| and f_l the part of E_l z orthogonal to z: E_eta + 2 sum f_l f_l'/|g| + 2 F P, F >= the
    norms of all P E_eta P.
    """
    square, inner, norm = 0.0, 0.0, 0.0
    count = group.size
    for gen in range(count):
        if group[gen] == code:
            form = _times(e[gen], z, work[gen], size)
            whole = _frobenius(e[gen], size)
            bend = 0.0
            for i in range(size):
                work[gen, i] -= form * z[i]
                bend += work[gen, i] * work[gen, i]
            work[gen, size] = form
            square += form * form
            inner += max(0.0, whole * whole - form * form - 2.0 * bend) + 1e-14 * whole * whole
            norm += whole * whole
    length, inner, norm = math.sqrt(square), math.sqrt(inner), math.sqrt(norm) * (1.0 + 1e-12)
    bend = 0.0
    for gen in range(count):
        if group[gen] == code:
            for i in range(size):
                bend += work[gen, i] * work[gen, i]
    if length > 0.02 * norm and 2.0 * bend / length + 2.0 * inner < 4.0 * norm:
        for gen in range(count):
            if group[gen] == code:
                eta = work[gen, size] / length
                for i in range(size):
                    for j in range(i + 1):
                        n[i, j] += eta * e[gen, i, j] + 2.0 * work[gen, i] * work[gen, j] / length
        for i in range(size):
            n[i, i] += 2.0 * inner
            for j in range(i + 1):
                n[i, j] -= 2.0 * inner * z[i] * z[j]
        return (16.0 + count) * norm
    for i in range(size):
        n[i, i] += norm
    return norm


@helper
def _pair_majorant(a: float, b: float, y2: float, yq: float, q2: float) -> tuple[float, float, float]:
    """The N (n11, n12, n22) >= +-G, G = [a, b; b, 0], with the smallest trace of NZ for a Z = [y2, yq; yq, q2] > 0.

    N = Z^-1/2 |Z^1/2 G Z^1/2| Z^-1/2 = (G Z G + b² adj Z) / sqrt(tr(GZ)² + 4 b² det Z).
    """
    if b == 0.0:
        return abs(a), 0.0, 0.0
    g1, g2 = a * y2 + b * yq, a * yq + b * q2  # first row of G Z
    n11, n12, n22 = g1 * a + g2 * b + b * b * q2, g1 * b - b * b * yq, 2.0 * b * b * y2
    trace = a * y2 + 2.0 * b * yq
    root = math.sqrt(trace * trace + 4.0 * b * b * (y2 * q2 - yq * yq))
    return n11 / root, n12 / root, n22 / root


@helper
def _ball_scale(lo: Any, hi: Any, root: int, sizes: Any, ball: Any) -> float:
    """Shrink the unit's cell to the ball; returns what is left of the radius for the rest, negative if the cell is empty."""
    own = sizes[0] + sizes[1]
    centers, inverse, squared = ball
    total = 0.0
    for d in range(own):
        gap = max(0.0, max(lo[d] - centers[root, d], centers[root, d] - hi[d])) * inverse[d]
        total += gap * gap * (1.0 - 32.0 * _U)
    left = squared[0] - total * (1.0 - 4.0 * own * _U)
    if left < 0.0:
        return -1.0
    for d in range(own):
        gap = max(0.0, max(lo[d] - centers[root, d], centers[root, d] - hi[d])) * inverse[d]
        reach = math.sqrt(left + gap * gap * (1.0 + 16.0 * _U)) / inverse[d] * (1.0 + 32.0 * _U)
        reach += 8.0 * _U * abs(centers[root, d]) + _TINY
        lo[d] = max(lo[d], centers[root, d] - reach)
        hi[d] = min(hi[d], centers[root, d] + reach)
        if lo[d] > hi[d]:
            return -1.0
    return math.sqrt(left) * (1.0 + 8.0 * _U)


@helper
def _others(i: int, variant: int, root: int, lo: Any, hi: Any, room: float, problem: Any, rest: Any, scratch: Any) -> None:
    """Forms t_k of what the other units add to the outputs of datum i, and the generators' values in ``columns``."""
    z, _, _, _, _, _, sizes, reals = problem
    kinds, amplitude, offset, middle, generators, slack, powers, _, ibp = rest
    forms, activation, work, columns = scratch[0], scratch[1], scratch[2], scratch[3]
    dim, outputs, act = sizes[0], sizes[1], sizes[2]
    nl = 1 + 3 * outputs
    first = 6 + outputs
    if kinds[root] == TWINS:
        s, half, error = 0.0, 0.0, 0.0
        for d in range(dim):
            low, high = lo[dim + outputs + d], hi[dim + outputs + d]
            c = 0.5 * (low + high)
            h = max(high - c, c - low) * (1.0 + 4.0 * _U)
            s += c * z[i, d]
            half += h * abs(z[i, d])
            error += abs(c * z[i, d])
        error = (dim + 8) * _U * (error + half) + _TINY
        half = half * (1.0 + 4.0 * dim * _U) + error
        _activation_forms(act, reals[0], s, half, activation, work)
        for k in range(outputs):
            t = forms[first + k]
            t[:] = 0.0
            v = amplitude[root, k]
            t[0] = v * activation[0, 0] + offset[root, k]
            spread = v * activation[0, 1]
            t[2 + outputs + k] = abs(spread)
            slackness = abs(v) * activation[0, 2] + abs(spread) * (error / half)
            t[nl + 1] = slackness * (1.0 + 8.0 * _U) + 8.0 * _U * (abs(v * activation[0, 0]) + abs(offset[root, k]) + abs(spread))
            t[nl + 1 + 2 + outputs + k] = t[nl + 1] + 1e-3 * abs(spread)
            for d in range(dim):
                low, high = lo[dim + outputs + d], hi[dim + outputs + d]
                h = 0.5 * (high - low)
                columns[k, d] = spread * (h * z[i, d] / half)
        return
    count = generators.shape[3]
    for k in range(outputs):
        t = forms[first + k]
        t[:] = 0.0
        if variant == 0:
            t[0] = middle[root, i, k]
            spread = 0.0
            for gen in range(count):
                x = generators[root, i, k, gen]
                if powers[gen] > 0:
                    x *= room if powers[gen] == 1 else room * room
                columns[k, gen] = x
                spread += abs(x)
            t[2 + outputs + k] = spread * (1.0 + 4.0 * count * _U)
            own = slack[0, root, i, k] + room * (slack[1, root, i, k] + room * slack[2, root, i, k])
            t[nl + 1] = own * (1.0 + 8.0 * _U) + 8.0 * _U * (spread + abs(t[0]))
        else:
            t[0] = ibp[0, root, i, k]
            # Four bounds of the distance from the middle, as polynomials of what is left of the radius.
            plain = ibp[1, root, i, k] + room * (ibp[2, root, i, k] + room * ibp[3, root, i, k])
            other = ibp[4, root, i, k] + room * ibp[5, root, i, k]
            t[nl + 1] = min(plain, other) * (1.0 + 8.0 * _U) + 4.0 * _U * abs(t[0])


@helper
def _symbols(variant: int, root: int, kinds: Any, powers: Any, sizes: Any) -> int:
    own = sizes[0] + sizes[1]
    if kinds[root] == TWINS:
        return own + sizes[0]
    return own + (powers.size if variant == 0 else 0)


@helper
def _assemble(variant: int, root: int, lo: Any, hi: Any, room: float, problem: Any, rest: Any, scratch: Any) -> float:
    """M_0, the E_k and the per-datum coefficients over a cell; returns the sum of all magnitudes."""
    z, norms, weights, y, mass, _, sizes, reals = problem
    forms, activation, work, columns, m0, e, _, _, _, _, rem_a, rem_b, free_a, free_b, share_a, share_b = scratch[:16]
    dim, outputs, act, loss = sizes[0], sizes[1], sizes[2], sizes[3]
    nl = 1 + 3 * outputs
    at_v, at_t, at_f, at_r, at_b = 6, 6 + outputs, 6 + 2 * outputs, 6 + 3 * outputs, 6 + 4 * outputs
    kappa, cross = reals[1] * reals[1], reals[1] * reals[2]
    count = _symbols(variant, root, rest[0], rest[6], sizes)
    m0[:] = 0.0
    e[:count] = 0.0
    magnitude = 0.0
    coefficients = work[7]
    for k in range(outputs):
        v = forms[at_v + k]
        v[:] = 0.0
        low, high = lo[dim + k], hi[dim + k]
        v[0] = 0.5 * (low + high)
        v[2 + k] = max(high - v[0], v[0] - low) * (1.0 + 4.0 * _U)
    for i in range(z.shape[0]):
        if weights[i] == 0.0:
            rem_a[i] = 0.0
            rem_b[i] = 0.0
            free_a[i] = 0.0
            free_b[i] = 0.0
            share_a[i] = 0.0
            share_b[i] = 0.0
            continue
        s, half, error = 0.0, 0.0, 0.0
        for d in range(dim):
            c = 0.5 * (lo[d] + hi[d])
            h = max(hi[d] - c, c - lo[d]) * (1.0 + 4.0 * _U)
            s += c * z[i, d]
            half += h * abs(z[i, d])
            error += abs(c * z[i, d])
        error = (dim + 8) * _U * (error + half) + _TINY
        half = half * (1.0 + 4.0 * dim * _U) + error
        _others(i, variant, root, lo, hi, room, problem, rest, scratch)
        _activation_forms(act, reals[0], s, half, activation, work)
        for order in range(3):
            f = forms[order]
            f[:] = 0.0
            f[0], f[1], f[nl + 1] = activation[order, 0], activation[order, 1], activation[order, 2]
            f[nl + 2] = activation[order, 2]
        for k in range(outputs):
            _multiply(forms[at_v + k], forms[0], forms[3], nl)
            _add(forms[3], forms[at_t + k], forms[at_f + k], nl)
        _residual_forms(loss, outputs, y[i], mass[i], forms, at_f, at_r, nl, work)
        forms[4, :] = 0.0
        for k in range(outputs):
            _multiply(forms[at_r + k], forms[at_v + k], forms[3], nl)
            if k == 0:
                forms[4, :] = forms[3, :]
            else:
                _add(forms[3], forms[4], forms[4], nl)
            _multiply(forms[at_r + k], forms[1], forms[at_b + k], nl)
        _multiply(forms[4], forms[2], forms[5], nl)
        a, w = forms[5], weights[i]
        wa, wb = w * kappa, w * cross
        magnitude += wa * _size(a, nl) * norms[i] * norms[i]
        rem_a[i] = wa * (a[nl + 1] + abs(a[1]) * (error / half))
        for k in range(outputs):
            b = forms[at_b + k]
            magnitude += 2.0 * wb * _size(b, nl) * norms[i]
            rem_b[i, k] = wb * (b[nl + 1] + abs(b[1]) * (error / half))
            free_a[i, k] = wa * a[2 + 2 * outputs + k]
            for j in range(outputs):
                if j != k:  # remainders of other outputs' e do not enter beta_k
                    rem_b[i, k] += wb * abs(b[2 + 2 * outputs + j])
            free_b[i, k] = wb * b[2 + 2 * outputs + k]
            for j in range(nl):
                share_b[i, k, j] = wb * b[nl + 2 + j]
            coefficients[k] = cross * b[0]
        for j in range(nl):
            share_a[i, j] = wa * a[nl + 2 + j]
        _accumulate(m0, kappa * a[0], coefficients, w, z[i], dim, outputs)
        for d in range(dim):
            h = 0.5 * (hi[d] - lo[d]) * z[i, d] / half
            if h != 0.0:
                for k in range(outputs):
                    coefficients[k] = cross * forms[at_b + k, 1]
                _accumulate(e[d], kappa * a[1], coefficients, w * h, z[i], dim, outputs)
        for j in range(outputs):
            for k in range(outputs):
                coefficients[k] = cross * forms[at_b + k, 2 + j]
            _accumulate(e[dim + j], kappa * a[2 + j], coefficients, w, z[i], dim, outputs)
        for gen in range(count - dim - outputs):
            x = 0.0
            coefficients[:outputs] = 0.0
            for j in range(outputs):
                spread = forms[at_t + j, 2 + outputs + j]
                if spread > 0.0:
                    h = columns[j, gen] / spread
                    x += h * a[2 + outputs + j]
                    for k in range(outputs):
                        coefficients[k] += cross * h * forms[at_b + k, 2 + outputs + j]
            _accumulate(e[dim + outputs + gen], kappa * x, coefficients, w, z[i], dim, outputs)
    return magnitude


@helper
def _majorise(variant: int, root: int, count: int, vertex: Any, z: Any, weight: Any, problem: Any, rest: Any, scratch: Any
              ) -> float:  # fmt: skip
    """N of everything but the middle and the vertex symbols, small in trace(N weight); returns the sum of its magnitudes."""
    data, norms = problem[0], problem[1]
    dim, outputs = problem[6][0], problem[6][1]
    size = dim + outputs
    e, n, f, work = scratch[5], scratch[6], scratch[16], scratch[17]
    rem_a, rem_b, free_a, free_b = scratch[10], scratch[11], scratch[12], scratch[13]
    groups = rest[7]
    n[:] = 0.0
    magnitude = 0.0
    for i in range(data.shape[0]):
        y2 = 0.0
        for d in range(dim):
            x = 0.5 * weight[d, d] * data[i, d]
            for j in range(d):
                x += weight[d, j] * data[i, j]
            y2 += 2.0 * x * data[i, d]
        y2 = max(y2, 1e-6 * norms[i] * norms[i]) + 1e-200
        a = rem_a[i]
        for k in range(outputs):
            q2 = weight[dim + k, dim + k] + 1e-8
            down = 0.0
            if rem_b[i, k] > 0.0:
                tau = math.sqrt(q2 / y2)
                a += tau * rem_b[i, k]
                down = rem_b[i, k] / tau
            if free_a[i, k] != 0.0 or free_b[i, k] != 0.0:
                yq = 0.0
                for d in range(dim):
                    yq += weight[dim + k, d] * data[i, d]
                limit = (1.0 - 1e-6) * math.sqrt(y2 * q2)
                n11, n12, n22 = _pair_majorant(free_a[i, k], free_b[i, k], y2, min(limit, max(-limit, yq)), q2)
                a += n11
                down += n22
                for d in range(dim):
                    n[dim + k, d] += n12 * data[i, d]
                magnitude += 2.0 * abs(n12) * norms[i] + abs(n11) * norms[i] * norms[i]
            n[dim + k, dim + k] += down
            magnitude += down
        magnitude += abs(a) * norms[i] * norms[i]
        for d in range(dim):
            x = a * data[i, d]
            for j in range(d + 1):
                n[d, j] += x * data[i, j]
    own = size + (dim if rest[0][root] == TWINS else 0)
    for k in range(count):
        code = -1 if k < own else groups[k - own]
        if not vertex[k] and code < 0:
            norm = _frobenius(e[k], size) * (1.0 + 1e-12)
            if norm > 0.0:
                magnitude += _tangent(n, e[k], z, f, size, norm)
    if count > own:
        last = -1
        for gen in range(count - own):
            if groups[gen] > last:
                last = groups[gen]
        for code in range(last + 1):
            magnitude += _tangent_ball(n, e[own:count], groups, code, z, work, size)
    return magnitude


@helper
def _choose_vertices(count: int, own: int, size: int, groups: Any, e: Any, vertex: Any, sizes_of: Any) -> int:
    """Mark the symbols with the largest matrices, at most `MAX_VERTEX` of them."""
    for k in range(count):
        vertex[k] = False
        sizes_of[k] = _frobenius(e[k], size) if k < own or groups[k - own] < 0 else 0.0
    chosen = 0
    while chosen < MAX_VERTEX:
        best = -1
        for k in range(count):
            if not vertex[k] and sizes_of[k] > 0.0 and (best < 0 or sizes_of[k] > sizes_of[best]):
                best = k
        if best < 0:
            break
        vertex[best] = True
        chosen += 1
    return chosen


@helper
def _vertex_bound(count: int, start: float, slack: float, problem: Any, vertex: Any, scratch: Any) -> float:
    """A proved lower bound of the eigenvalues of M_0 - N + sum of +-E_k over all signs; `z` becomes the worst one's vector."""
    size = problem[6][0] + problem[6][1]
    m0, e, n, a, b, q, z = scratch[4], scratch[5], scratch[6], scratch[7], scratch[8], scratch[9], scratch[18]
    index = scratch[19]
    chosen = 0
    for k in range(count):
        if vertex[k]:
            index[chosen] = k
            chosen += 1
    for i in range(size):
        for j in range(i + 1):
            x = m0[i, j] - n[i, j]
            for c in range(chosen):
                x -= e[index[c], i, j]
            a[i, j] = x
    value = start
    for step in range(2**chosen):
        if step > 0:  # Gray code: one sign changes
            bit, sign = 0, 1.0
            while (step >> bit) & 1 == 0:
                bit += 1
            if ((step ^ (step >> 1)) >> bit) & 1 == 0:
                sign = -1.0
            k = index[bit]
            for i in range(size):
                for j in range(i + 1):
                    a[i, j] += 2.0 * sign * e[k, i, j]
        drop = 1e-14 * (abs(value) + slack)
        if not _cholesky(a, b, size, value):
            found = _smallest(a, b, q, z, size)
            value = min(value, found)
            for _ in range(200):
                trial = value - drop
                if _cholesky(a, b, size, trial):
                    value = trial
                    break
                drop *= 2.0
                if not drop < math.inf:
                    return -math.inf
    return value


@helper
def _bound(variant: int, root: int, lo: Any, hi: Any, room: float, problem: Any, rest: Any, scratch: Any) -> float:
    """Lower bound of the unit's block over a cell in one model of the other units; `z` is left at the last direction."""
    sizes = problem[6]
    dim, outputs = sizes[0], sizes[1]
    size = dim + outputs
    m0, e, n, a, b, q = scratch[4], scratch[5], scratch[6], scratch[7], scratch[8], scratch[9]
    f, z, best_z, vertex, sizes_of = scratch[16], scratch[18], scratch[20], scratch[21], scratch[22]
    weight, best_weight = scratch[24], scratch[25]
    magnitude = _assemble(variant, root, lo, hi, room, problem, rest, scratch)
    if not magnitude < 1e300:
        return -math.inf
    count = _symbols(variant, root, rest[0], rest[6], sizes)
    own = size + (dim if rest[0][root] == TWINS else 0)
    _choose_vertices(count, own, size, rest[7], e, vertex, sizes_of)
    _smallest(m0, b, q, z, size)
    for i in range(size):
        for j in range(i + 1):
            weight[i, j] = 0.5 * z[i] * z[j]
        weight[i, i] += 0.25 / dim if i < dim else 0.25 / outputs
    best, extra = -math.inf, 0.0
    for step in range(_PICKS):
        extra = _majorise(variant, root, count, vertex, z, weight, problem, rest, scratch)
        if not extra < 1e300:
            return -math.inf
        for i in range(size):
            for j in range(i + 1):
                a[i, j] = m0[i, j] - n[i, j]
        for k in range(count):
            if vertex[k]:
                sign = 1.0 if _times(e[k], z, f, size) >= 0.0 else -1.0
                for i in range(size):
                    for j in range(i + 1):
                        a[i, j] -= sign * e[k, i, j]
        f[:] = z
        value = _smallest(a, b, q, z, size)
        gain = value - best
        if value > best:
            best = value
            best_weight[:] = weight
            best_z[:] = f
        if step > 1 and gain < 1e-4 * abs(best):
            break
        # The best majorants are those for a mixture of the eigenvectors they lead to.
        share = 1.0 / (step + 2.0)
        for i in range(size):
            for j in range(i + 1):
                weight[i, j] += share * (z[i] * z[j] - weight[i, j])
    extra = _majorise(variant, root, count, vertex, best_z, best_weight, problem, rest, scratch)
    total = magnitude + extra
    value = _vertex_bound(count, min(best, 0.0) - 1e-13 * total, total, problem, vertex, scratch)
    slack = (8.0 * problem[0].shape[0] + 16384.0 + 8.0 * count + 64.0 * size * size) * _U * total
    slack += 16.0 * (size + 4) * size * _U * (total + abs(value)) + 1e-290
    return value - slack


@helper
def _split(root: int, lo: Any, hi: Any, problem: Any, rest: Any, scratch: Any) -> int:
    """The coordinate whose symbol has the largest share in the remainders at the direction z."""
    data = problem[0]
    dim, outputs = problem[6][0], problem[6][1]
    share_a, share_b, weight, scores = scratch[14], scratch[15], scratch[25], scratch[23]
    scores[:] = 0.0
    twins = rest[0][root] == TWINS
    for i in range(data.shape[0]):
        y2, own, other = 0.0, 0.0, 0.0
        for d in range(dim):
            x = 0.5 * weight[d, d] * data[i, d]
            for j in range(d):
                x += weight[d, j] * data[i, j]
            y2 += 2.0 * x * data[i, d]
            own += 0.5 * (hi[d] - lo[d]) * abs(data[i, d])
            if twins:
                other += 0.5 * (hi[dim + outputs + d] - lo[dim + outputs + d]) * abs(data[i, d])
        for j in range(1 + 2 * outputs):
            x = share_a[i, j] * y2
            for k in range(outputs):
                x += 2.0 * share_b[i, k, j] * math.sqrt(max(0.0, y2 * weight[dim + k, dim + k]))
            if j == 0:
                for d in range(dim):
                    scores[d] += x * 0.5 * (hi[d] - lo[d]) * abs(data[i, d]) / (own + _TINY)
            elif j <= outputs:
                scores[dim + j - 1] += x
            elif twins:
                for d in range(dim):
                    place = dim + outputs + d
                    scores[place] += x * 0.5 * (hi[place] - lo[place]) * abs(data[i, d]) / (other + _TINY)
    best = -1
    for d in range(dim + outputs + (dim if twins else 0)):
        middle = 0.5 * (lo[d] + hi[d])
        if lo[d] < middle < hi[d] and (best < 0 or scores[d] > scores[best]):
            best = d
    return best


@helper
def _work_on(begin: int, end: int, cells: Any, roots: Any, parents: Any, bounds: Any, splits: Any, models: Any,
             directions: Any, problem: Any, rest: Any, ball: Any) -> None:  # fmt: skip
    """Bound the cells begin … end - 1."""
    sizes = problem[6]
    dim, outputs = sizes[0], sizes[1]
    size, nl, n = dim + outputs, 1 + 3 * outputs, problem[0].shape[0]
    generators = max(dim, rest[6].size)
    most = size + generators + dim
    scratch = (
        np.zeros((6 + 5 * outputs, 2 * nl + 2)), np.zeros((3, 3)), np.zeros((8, max(8, outputs))),
        np.zeros((outputs, generators)),
        np.zeros((size, size)), np.zeros((most, size, size)), np.zeros((size, size)), np.zeros((size, size)),
        np.zeros((size, size)), np.zeros((size, size)), np.zeros(n), np.zeros((n, outputs)), np.zeros((n, outputs)),
        np.zeros((n, outputs)), np.zeros((n, nl)), np.zeros((n, outputs, nl)), np.zeros(size), np.zeros((generators, size + 1)),
        np.zeros(size), np.zeros(MAX_VERTEX, dtype=np.int64), np.zeros(size), np.zeros(most, dtype=np.bool_), np.zeros(most),
        np.zeros(most), np.zeros((size, size)), np.zeros((size, size)),
    )  # fmt: skip
    for c in range(begin, end):
        lo, hi, root = cells[c, 0], cells[c, 1], roots[c]
        room = 0.0
        if ball[2][0] >= 0.0:
            room = _ball_scale(lo, hi, root, sizes, ball)
            if room < 0.0:
                bounds[c], splits[c], models[c] = math.inf, -1, -1
                continue
        value = _bound(0, root, lo, hi, room, problem, rest, scratch)
        splits[c] = _split(root, lo, hi, problem, rest, scratch)
        directions[c], models[c] = scratch[25], 0
        if rest[0][root] == LINEAR:
            other = _bound(1, root, lo, hi, room, problem, rest, scratch)
            if other > value or not value > -math.inf:
                value = other
                splits[c] = _split(root, lo, hi, problem, rest, scratch)
                directions[c], models[c] = scratch[25], 1
        if math.isnan(value):
            value = -math.inf
        bounds[c] = max(parents[c], value)


@parallel
def bound_cells(cells: Any, roots: Any, parents: Any, bounds: Any, splits: Any, models: Any, directions: Any, problem: Any,
                rest: Any, ball: Any, blocks: int, stop: Any) -> None:  # fmt: skip
    """Bounds and coordinates to split for cells (C, 2, dims); a ball's cells are shrunk in place. Cells left out when ``stop``
    is set keep what ``bounds`` holds. ``models`` and ``directions`` say how each bound was found.
    """
    count = roots.size
    for block in numba.prange(blocks):
        if stop[0] == 0:
            _work_on(block * count // blocks, (block + 1) * count // blocks, cells, roots, parents, bounds, splits, models,
                     directions, problem, rest, ball)  # fmt: skip
