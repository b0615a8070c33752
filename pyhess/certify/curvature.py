"""Compiled lower bound of the smallest eigenvalue over a small box that keeps its curvature: the error falls with the cube of the
width.

With H(c + delta) = H + sum_k delta_k T_k + (1/2) sum_kl delta_k delta_l F_kl, the columns u_0, u_1, … of U orthonormal up to eta,
and A = U'H(c + delta)U, whose entry 0 0 is a(delta), the others of the first column b_i(delta) = C_i . delta + (rest, at most
beta_i in size) and the other entries at least diag(mu_i) in the order of matrices: for any sigma with mu_i > sigma

    A >= s = min(sigma, min over delta of a(delta) - sum_i (b_i(delta))² / (mu_i - sigma)),

as the Schur complement of A - s is not negative. What is minimised is, but for terms of the third order, a quadratic function

    q(delta) = const + g . delta + (1/2) delta'K delta,    K = u_0'F u_0 - 2 sum_i C_i C_i' / (mu_i - sigma),

over the box, and over the ball by weak duality: lam (|c - centre + delta|² - R²) is added for some lam >= 0. With K's smallest
eigenvalue at least kappa, a convex function below it is q + (1/2) max(-kappa, 0) sum_k (delta_k² - h_k²), and that is at least its
tangent at any point, whose smallest value over the box is known.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._jit import serial
from .eigen_kernel import eigenvectors, verified

_UNIT = 2.0**-53
#: Bisections for sigma, steps for lam, and sweeps over the coordinates of delta.
_BISECTIONS, _DUALS, _SWEEPS = 6, 16, 10


@serial
def curved_bound(
    base: Any,
    slope: Any,
    bend: Any,
    wrong: Any,
    size_of: Any,
    h: Any,
    offset: Any,
    ball: Any,
    known: Any,
) -> Any:
    """A bound, or ``known`` if that is better.

    Parameters
    ----------
    base, slope, bend
        Middles of H (P, P), T (P, P, P) and F (P, P, P, P).
    wrong : (P, P)
        How far entries of H(c + delta) can be from those with the middles, over the box.
    size_of : (P, P)
        Sizes of the terms of these entries, for what rounding adds.
    h : (P,)
        The box is |delta| <= h.
    offset, ball
        c less the centre of the ball, and its radius; none if that is not positive.
    known
        A bound.
    """
    size = h.size
    gamma = 64.0 * (size + 4.0) ** 2 * _UNIT
    turn = np.empty((size, size))
    values = np.empty(size)
    eigenvectors(base, values, turn)
    # How far U is from orthonormal, by rows.
    eta = 0.0
    for i in range(size):
        row = 0.0
        for j in range(size):
            total = 0.0
            for k in range(size):
                total += turn[k, i] * turn[k, j]
            row += abs(total - (1.0 if i == j else 0.0))
        eta = max(eta, row)
    eta = 2.0 * eta + gamma
    if not eta < 1e-6:
        return known
    # Entries of A: that of the centre, and how far those over the box are from it; but for the first column those keep no signs.
    far = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            total = wrong[i, j] + gamma * size_of[i, j]
            for k in range(size):
                for m in range(size):
                    total += 0.5 * h[k] * h[m] * abs(bend[k, m, i, j])
            far[i, j] = total
    turned_far, wrong_first = np.zeros((size, size)), 0.0
    for i in range(size):
        for j in range(size):
            total = 0.0
            for k in range(size):
                for m in range(size):
                    total += abs(turn[k, i]) * far[k, m] * abs(turn[m, j])
            turned_far[i, j] = total
    for k in range(size):
        for m in range(size):
            wrong_first += abs(turn[k, 0]) * (wrong[k, m] + gamma * size_of[k, m]) * abs(turn[m, 0])
    moved, spare = np.empty((size, size)), np.empty((size, size))
    _turned(base, turn, spare, moved)
    first = moved[0, 0]
    g, c = np.empty(size), np.zeros((size, size))  # c[i] = C_i
    mu, beta, distance = np.zeros(size), np.zeros(size), np.zeros((size, size))
    for i in range(1, size):
        mu[i] = moved[i, i]
        beta[i] = abs(moved[i, 0]) + turned_far[i, 0]
        for j in range(1, size):
            distance[i, j] = turned_far[i, j] + (abs(moved[i, j]) if i != j else 0.0)
    for k in range(size):
        _turned(slope[k], turn, spare, moved)
        g[k] = moved[0, 0]
        for i in range(1, size):
            c[i, k] = moved[i, 0]
            for j in range(1, size):
                distance[i, j] += h[k] * abs(moved[i, j])
    for i in range(1, size):
        total = 0.0
        for j in range(1, size):
            total += distance[i, j]
        mu[i] -= total * (1.0 + gamma) + gamma * abs(mu[i])
    curved = np.zeros((size, size))
    for k in range(size):
        for m in range(k, size):
            total = 0.0
            for i in range(size):
                for j in range(size):
                    total += turn[i, 0] * bend[k, m, i, j] * turn[j, 0]
            curved[k, m] = curved[m, k] = total
    least = first
    height = 0.0
    if ball > 0.0:
        for k in range(size):
            height += offset[k] * offset[k]
        away = math.sqrt(height) - ball
        if away > 0.0:
            steep = 0.0
            for k in range(size):
                steep += g[k] * g[k]
            least += away * math.sqrt(steep)
    low, high = known, least
    for i in range(1, size):
        high = min(high, mu[i] - 1e-9 * abs(mu[i]))
    best, lam = known, 0.0
    matrix, delta = np.empty((size, size)), np.zeros(size)
    work = np.empty((size, size))
    for step in range(_BISECTIONS):
        sigma = high if step == 0 else 0.5 * (low + high)
        if not sigma > best:
            break
        const, rough = first - wrong_first, abs(first)
        for k in range(size):
            for m in range(size):
                matrix[k, m] = curved[k, m]
        for i in range(1, size):
            gap = mu[i] - sigma
            reach = 0.0
            for k in range(size):
                reach += abs(c[i, k]) * h[k]
                for m in range(size):
                    matrix[k, m] -= 2.0 * c[i, k] * c[i, m] / gap
            const -= (2.0 * reach + beta[i]) * beta[i] / gap * (1.0 + gamma)
            rough += 4.0 * (reach + beta[i]) ** 2 / gap
        for k in range(size):
            rough += abs(g[k]) * h[k]
            for m in range(size):
                rough += 0.5 * abs(curved[k, m]) * h[k] * h[m]
        value, lam = _lowest(const, g, matrix, h, offset, ball, lam, delta, work, spare)
        found = min(value - 8.0 * gamma * rough, sigma)
        best = max(best, found - 2.0 * eta * abs(found))
        if value >= sigma:
            low = sigma
        else:
            high = sigma
    return best


@serial
def _turned(matrix: Any, turn: Any, spare: Any, out: Any) -> None:
    """U'A U."""
    size = matrix.shape[0]
    for i in range(size):
        for j in range(size):
            total = 0.0
            for k in range(size):
                total += matrix[i, k] * turn[k, j]
            spare[i, j] = total
    for i in range(size):
        for j in range(size):
            total = 0.0
            for k in range(size):
                total += turn[k, i] * spare[k, j]
            out[i, j] = total


@serial
def _lowest(const: Any, g: Any, matrix: Any, h: Any, offset: Any, ball: Any, lam: Any, delta: Any, work: Any, spare: Any) -> Any:
    """(lower bound of the quadratic function over box and ball, lam); any lam will do, a good one to begin with helps."""
    kappa = verified(matrix, np.inf, work, spare)
    best, rise = _dual(const, g, matrix, kappa, h, offset, ball, 0.0, delta)
    if not (ball > 0.0 and rise > 0.0):
        return best, 0.0
    best_lam = 0.0
    # The bound is concave in lam, and rises or falls there by `rise`: the root is between low and high (Illinois method).
    low, low_rise, high, high_rise, last = 0.0, rise, np.inf, 0.0, 0
    steep = 0.0
    for k in range(h.size):
        steep += abs(g[k])
    lam = lam if lam > 0.0 else 0.25 * steep / ball
    for _ in range(_DUALS):
        value, rise = _dual(const, g, matrix, kappa, h, offset, ball, lam, delta)
        if value > best:
            best, best_lam = value, lam
        if rise > 0.0:
            high_rise *= 0.5 if last == 1 else 1.0
            low, low_rise, last = lam, rise, 1
        else:
            low_rise *= 0.5 if last == -1 else 1.0
            high, high_rise, last = lam, rise, -1
        if abs(rise) * min(high - low, lam) <= 1e-9 * abs(best):
            break
        if high == np.inf:
            lam *= 4.0
        else:
            share = low_rise / (low_rise - high_rise)
            lam = low + min(max(share, 0.02), 0.98) * (high - low)
    return best, best_lam


@serial
def _dual(const: Any, g: Any, matrix: Any, kappa: Any, h: Any, offset: Any, ball: Any, lam: Any, delta: Any) -> Any:
    """(the convex function's lower bound for one lam, about how fast it rises with lam); delta is left near its minimiser."""
    size = h.size
    extra = max(0.0, -(kappa + 2.0 * lam)) * (1.0 + 1e-12)
    total, rough = const, abs(const)
    if ball > 0.0:
        height = 0.0
        for k in range(size):
            height += offset[k] * offset[k]
        total += lam * (height - ball * ball)
        rough += lam * (height + ball * ball)
    for _ in range(_SWEEPS):
        worst = 0.0
        for k in range(size):
            diagonal = matrix[k, k] + 2.0 * lam + extra
            r = g[k] + 2.0 * lam * offset[k]
            for m in range(size):
                if m != k:
                    r += matrix[k, m] * delta[m]
            before = delta[k]
            if diagonal > 0.0:
                delta[k] = min(max(-r / diagonal, -h[k]), h[k])
            else:
                delta[k] = -h[k] if r > 0.0 else h[k]
            worst = max(worst, abs(delta[k] - before) - 1e-7 * h[k])
        if worst <= 0.0:
            break
    rise = -ball * ball
    for k in range(size):
        linear = g[k] + 2.0 * lam * offset[k]
        r = linear + (2.0 * lam + extra) * delta[k]
        for m in range(size):
            r += matrix[k, m] * delta[m]
            rough += abs(matrix[k, m]) * h[k] * h[m] * 2.0
        # phi(delta^) = linear . delta^ + delta^'(K + …)delta^ / 2 = (linear + r) . delta^ / 2
        total += 0.5 * (linear + r) * delta[k] - 0.5 * extra * h[k] * h[k]
        total += min(r * (h[k] - delta[k]), -r * (h[k] + delta[k]))
        rough += (2.0 * abs(g[k]) + 4.0 * lam * abs(offset[k])) * h[k] + (4.0 * lam + 2.0 * extra) * h[k] * h[k]
        rise += (offset[k] + delta[k]) ** 2 + (h[k] * h[k] - delta[k] * delta[k] if extra > 0.0 else 0.0)
    return total - 64.0 * (size + 4.0) ** 2 * _UNIT * rough, rise
