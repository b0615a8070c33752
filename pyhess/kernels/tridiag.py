"""Small dense problems of the Lanczos method: symmetric tridiagonal matrices with diagonal ``alpha`` and off-diagonal ``beta``.

``beta[i]`` couples i and i + 1 and may have either sign. All functions expect entries whose squares neither overflow nor
vanish; the Lanczos step scales its operator so that this holds. They allocate only where said and never raise.
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Any

import numpy as np

from .._jit import serial

_EPS = 2.0**-52
_MAX_SWEEPS = 60


@serial
def ritz_decomposition(d: Any, e: Any, z: Any) -> bool:
    """Eigenvalues of the matrix (d, e) into d, unsorted; every rotation is applied to the rows of z as well.

    Implicit QL. With z = I the rows of z become the eigenvectors; with z a single column e_last, their last components, in
    O(n^2) instead of O(n^3). ``e`` (n,) is destroyed; its last entry is not used. False: no convergence (not a number).
    """
    n = d.size
    columns = z.shape[1]
    norm = 0.0
    for i in range(n):
        norm = max(norm, abs(d[i]))
        if i < n - 1:
            norm = max(norm, abs(e[i]))
    e[n - 1] = 0.0
    for low in range(n):
        for sweep in range(_MAX_SWEEPS + 1):
            high = low
            while high < n - 1:
                # Couplings below a tenth of the rounding error of the whole matrix are noise wherever they stand.
                if abs(e[high]) <= _EPS * max(abs(d[high]) + abs(d[high + 1]), 0.1 * norm):
                    break
                high += 1
            if high == low:
                break
            if sweep == _MAX_SWEEPS:
                return False
            g = (d[low + 1] - d[low]) / (2.0 * e[low])
            r = sqrt(g * g + 1.0)
            g = d[high] - d[low] + e[low] / (g + r if g >= 0.0 else g - r)
            s, c, p = 1.0, 1.0, 0.0
            i = high - 1
            while i >= low:
                f = s * e[i]
                b = c * e[i]
                r = sqrt(f * f + g * g)
                e[i + 1] = r
                if r == 0.0:
                    d[i + 1] -= p
                    e[high] = 0.0
                    break
                s = f / r
                c = g / r
                g = d[i + 1] - p
                r = (d[i] - g) * s + 2.0 * c * b
                p = s * r
                d[i + 1] = g + p
                g = c * r - b
                upper, lower = z[i], z[i + 1]
                for q in range(columns):
                    f = lower[q]
                    lower[q] = s * upper[q] + c * f
                    upper[q] = c * upper[q] - s * f
                i -= 1
            if i < low:
                d[low] -= p
                e[low] = g
                e[high] = 0.0
    return True


@serial
def next_extreme(alpha: Any, beta: Any, n: int, sign: float, old: float) -> tuple[float, float]:
    """Lowest eigenvalue of sign * T_n, given the lowest of sign * T_{n-1}, and |s_n|, its eigenvector's last component.

    The last pivot of T_n - x as a function of x is alpha_n - x - psi(x), psi a sum of poles of which the first, ``old``, is
    known. psi is replaced by one pole there and a constant, matched in value and slope; the root of that model approaches the
    eigenvalue monotonically from below and quadratically, so the pivots stay positive. The slope at the root is -1/s_n^2;
    where rounding hides it, 0 is returned in place of |s_n|.
    """
    a = sign * alpha[n - 1]
    if n == 1:
        return a, 1.0
    b = beta[n - 2]
    half = 0.5 * (old - a)
    x = 0.5 * (old + a) - sqrt(half * half + b * b)
    slope = 1.0
    for _ in range(50):
        pivot = sign * alpha[0] - x
        slope = 1.0
        for i in range(1, n):
            if pivot <= 0.0:
                break
            t = beta[i - 1] / pivot
            slope = 1.0 + t * t * slope
            pivot = sign * alpha[i] - x - beta[i - 1] * t
        gap = old - x
        if gap <= 0.0 or not pivot > 0.0:  # at the root up to rounding, the slope is not known
            return x, 0.0
        strength = (slope - 1.0) * gap * gap
        shift = x + pivot + (slope - 1.0) * gap - old
        root = sqrt(shift * shift + 4.0 * strength)
        new = old - (2.0 * strength / (shift + root) if shift > 0.0 else 0.5 * (root - shift))
        if not new - x > 2.0 * _EPS * max(abs(x), abs(new)):
            break
        x = new
    return x, 1.0 / sqrt(slope)


@serial
def ritz_vector(alpha: Any, beta: Any, n: int, sign: float, x: float, forward: Any, backward: Any, z: Any) -> None:
    """Unit eigenvector z (n,) of sign * T_n for the eigenvalue x, every component to high accuracy.

    Pivots from the top and from the bottom meet at the index where the rest is smallest; from there the components follow by
    products without a subtraction. ``forward`` and ``backward`` (n,) are scratch.
    """
    norm = 0.0
    for i in range(n):
        norm = max(norm, abs(alpha[i]))
        if i < n - 1:
            norm = max(norm, abs(beta[i]))
    tiny = _EPS * _EPS * norm
    for i in range(n):
        pivot = sign * alpha[i] - x
        if i > 0:
            pivot -= beta[i - 1] / forward[i - 1] * beta[i - 1]
        forward[i] = pivot if abs(pivot) > tiny else tiny
    for i in range(n - 1, -1, -1):
        pivot = sign * alpha[i] - x
        if i < n - 1:
            pivot -= beta[i] / backward[i + 1] * beta[i]
        backward[i] = pivot if abs(pivot) > tiny else tiny
    twist = 0
    best = np.inf
    for i in range(n):
        rest = abs(forward[i] + backward[i] - (sign * alpha[i] - x))
        if rest < best:
            best = rest
            twist = i
    z[twist] = 1.0
    total = 1.0
    for i in range(twist - 1, -1, -1):
        z[i] = -sign * beta[i] / forward[i] * z[i + 1]
        total += z[i] * z[i]
    for i in range(twist + 1, n):
        z[i] = -sign * beta[i - 1] / backward[i] * z[i - 1]
        total += z[i] * z[i]
    scale = 1.0 / sqrt(total)
    for i in range(n):
        z[i] *= scale


@serial
def arrow_to_tridiagonal(theta: Any, arm: Any, alpha: Any, beta: Any) -> Any:
    """Orthogonal Q (l, l) with Q' diag(theta) Q tridiagonal and arm' Q = (0, …, 0, beta[l - 1]); the matrix goes to alpha, beta.

    After a thick restart the kept Ritz vectors couple to the next vector by ``arm`` (l,). In the basis turned by Q the
    projected matrix is tridiagonal again, so nothing else has to know about the restart. Householder from the last row up;
    allocates O(l^2).
    """
    size = theta.size
    a = np.zeros((size + 1, size + 1))
    q = np.zeros((size, size))
    u = np.zeros(size)
    p = np.zeros(size)
    for i in range(size):
        a[i, i] = theta[i]
        a[size, i] = arm[i]
        a[i, size] = arm[i]
        q[i, i] = 1.0
    for i in range(size, 1, -1):
        rest = 0.0
        for t in range(i - 1):
            rest += a[i, t] * a[i, t]
        if rest == 0.0:
            continue
        corner = a[i, i - 1]
        length = sqrt(rest + corner * corner)
        corner_new = -length if corner > 0.0 else length
        for t in range(i):
            u[t] = a[i, t]
        u[i - 1] = corner - corner_new
        factor = 2.0 / (rest + u[i - 1] * u[i - 1])
        along = 0.0
        for s in range(i):
            total = 0.0
            for t in range(i):
                total += a[s, t] * u[t]
            p[s] = factor * total
            along += p[s] * u[s]
        for s in range(i):
            p[s] -= 0.5 * factor * along * u[s]
        for s in range(i):
            for t in range(i):
                a[s, t] -= u[s] * p[t] + p[s] * u[t]
        for s in range(size):
            total = 0.0
            for t in range(i):
                total += q[s, t] * u[t]
            for t in range(i):
                q[s, t] -= factor * total * u[t]
        for t in range(i - 1):
            a[i, t] = 0.0
            a[t, i] = 0.0
        a[i, i - 1] = corner_new
        a[i - 1, i] = corner_new
    for i in range(size):
        alpha[i] = a[i, i]
        beta[i] = a[i + 1, i]
    return q


@serial
def log_polynomial(alpha: Any, beta: Any, begin: int, end: int, x: float) -> tuple[float, float]:
    """Log |p(x)| and d log|p|/dx of the Lanczos polynomial p with p(T) e_begin = e_end, for x outside T[begin:end]'s spectrum.

    p is the product of pivots over off-diagonals (the last of them ``beta[end - 1]``). Inside the spectrum: (-inf, 0).
    """
    product = 1.0
    logs = 0.0
    slope = 0.0
    pivot = alpha[begin] - x
    derivative = -1.0
    side = 1.0 if pivot > 0.0 else -1.0
    for i in range(begin, end):
        if i > begin:
            t = beta[i - 1] / pivot
            derivative = -1.0 + t * t * derivative
            pivot = alpha[i] - x - beta[i - 1] * t
        if not side * pivot > 0.0:
            return -np.inf, 0.0
        if beta[i] == 0.0:
            return np.inf, 0.0
        slope += derivative / pivot
        product *= abs(pivot / beta[i])
        if product > 1e100 or product < 1e-100:
            logs += log(product)
            product = 1.0
    return logs + log(product), slope


@serial
def probable_lower(alpha: Any, beta: Any, begin: int, end: int, lowest: float, start: float, log_inverse: float) -> float:
    """The point left of ``lowest``, the lowest eigenvalue of T[begin:end], where log |p| reaches ``log_inverse`` = log(1/delta).

    If the start vector has a component of at least delta along an eigenvector, |p| is at most 1/delta at its eigenvalue: no
    eigenvalue lies further left. Newton's method in log(lowest - x), in which log |p| is convex and increasing; ``start`` is
    a first guess of lowest - x.
    """
    if beta[end - 1] == 0.0 or not start > 0.0:
        return lowest
    t = log(start)
    for _ in range(100):
        width = exp(t)
        value, slope = log_polynomial(alpha, beta, begin, end, lowest - width)
        if value == -np.inf:  # ``lowest`` carries rounding errors
            t += 1.0
            continue
        step = (value - log_inverse) / (-slope * width)
        t -= step
        if abs(step) < 1e-3:
            break
    # One part in a thousand wider than the root found above.
    return lowest - exp(t + 2e-3)
