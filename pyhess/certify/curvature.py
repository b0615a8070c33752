"""Compiled lower bound of the smallest eigenvalue over a small box that keeps its curvature: the error falls with the cube of the
width.

With H(c + delta) = H + sum_k delta_k T_k + (1/2) sum_kl delta_k delta_l F_kl, T at c and F over the box, U = (u_0, u_1, …) nearly
orthogonal and A = U'H(c + delta)U: let a(delta) be its entry 0 0, b_i(delta) = C_i . delta + (at most beta_i in size) the others
of its first column, and let the rest of it be at least diag(mu_i). For any sigma below all mu_i, as the Schur complement of A - s
is not negative,

    A >= s = min(sigma, min over delta of a(delta) - sum_i b_i(delta)² / (mu_i - sigma)).

What is minimised is, but for terms of the third order, a quadratic function

    q(delta) = const + g . delta + (1/2) delta'K delta,    K = u_0'F u_0 - 2 sum_i C_i C_i' / (mu_i - sigma),

over the box, and over the ball by weak duality: lam (|c - centre + delta|² - R²) is added for some lam >= 0, so 2 lam I to K.
With K's smallest eigenvalue at least kappa, q + (1/2) max(-kappa, 0) sum_k (delta_k² - h_k²) is convex and below q, so it is at
least its tangent at any point, whose smallest value over the box is known.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._jit import serial
from .eigen_kernel import eigenvectors, verified

_UNIT = 2.0**-53
#: Numbers sigma, numbers lam for one of them, and sweeps over the coordinates of delta.
_SIGMAS, _LAMS, _SWEEPS = 6, 16, 10
#: Rounding errors lost among numbers that are too small.
_TINY = 1e-290


@serial
def curved_bound(base: Any, slope: Any, bend: Any, wrong: Any, sizes: Any, h: Any, offset: Any, ball: Any, known: Any) -> Any:
    """A lower bound for |delta| <= h, or ``known`` if that is better.

    Parameters
    ----------
    base, slope, bend
        Middles of H (P, P), T (P, P, P) and F (P, P, P, P).
    wrong : (P, P)
        How far entries of H(c + delta) can be from those with the middles.
    sizes : (P, P)
        Sums of the sizes of the terms of these entries, which rounding errors are relative to.
    h : (P,)
        Half of the widths of the box.
    offset : (P,)
        c less the centre of the ball.
    ball
        The ball's radius; zero if there is none.
    known
        A bound.
    """
    size = h.size
    gamma = _gamma(size)
    values, turn = np.empty(size), np.empty((size, size))
    eigenvectors(base, values, turn)
    skew = _skew(turn) + gamma
    if not skew < 1e-6:
        return known
    g, c, curved = np.empty(size), np.empty((size, size)), np.empty((size, size))
    beta, mu = np.empty(size), np.empty(size)
    first, blur = _turned_model(base, slope, bend, wrong, sizes, h, turn, g, c, curved, beta, mu)
    rough = abs(first)
    for k in range(size):
        rough += abs(g[k]) * h[k]
        for m in range(size):
            rough += abs(curved[k, m]) * h[k] * h[m]
    low, high = known, first
    if ball > 0.0:
        # Inside the ball the eigenvalue may be higher than at c, if that is outside.
        away, steep = 0.0, 0.0
        for k in range(size):
            away += offset[k] * offset[k]
            steep += g[k] * g[k]
        high += max(0.0, math.sqrt(away) - ball) * math.sqrt(steep)
    for i in range(1, size):
        high = min(high, mu[i] - 1e-9 * abs(mu[i]))
    best, lam = known, 0.0
    matrix, delta = np.empty((size, size)), np.zeros(size)
    for step in range(_SIGMAS):
        sigma = high if step == 0 else 0.5 * (low + high)
        if not sigma > best:
            break
        const, terms = first - blur, rough
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
            const -= (2.0 * reach + beta[i]) * beta[i] / gap
            terms += 4.0 * (reach + beta[i]) ** 2 / gap
        value, lam = _lowest(const, g, matrix, h, offset, ball, lam, delta)
        value -= gamma * terms
        if not abs(value) < np.inf:
            break
        found = min(value, sigma)
        best = max(best, found - 2.0 * skew * abs(found) - _TINY)
        if value >= sigma:
            low = sigma
        else:
            high = sigma
    return best


@serial
def _gamma(size: Any) -> Any:
    """Relative error of sums of products of up to five numbers over up to four indices, with much to spare."""
    return 512.0 * (size + 4.0) ** 2 * _UNIT


@serial
def _skew(turn: Any) -> Any:
    """Bound of |U'U - I|, but for rounding."""
    size = turn.shape[0]
    worst = 0.0
    for i in range(size):
        row = 0.0
        for j in range(size):
            total = -1.0 if i == j else 0.0
            for k in range(size):
                total += turn[k, i] * turn[k, j]
            row += abs(total)
        worst = max(worst, row)
    return 2.0 * worst


@serial
def _turned_model(
    base: Any,
    slope: Any,
    bend: Any,
    wrong: Any,
    sizes: Any,
    h: Any,
    turn: Any,
    g: Any,
    c: Any,
    curved: Any,
    beta: Any,
    mu: Any,
) -> Any:
    """Write g, C, u_0'F u_0, beta and mu; returns a(0) and what a(delta) may differ from the quadratic function by."""
    size = h.size
    gamma = _gamma(size)
    # Of entries of A: what is not of the first order, and sizes of what no middle tells.
    far, near = np.empty((size, size)), np.empty((size, size))
    for i in range(size):
        for j in range(size):
            near[i, j] = (wrong[i, j] + gamma * sizes[i, j]) * (1.0 + gamma)
            total = near[i, j]
            for k in range(size):
                for m in range(size):
                    total += 0.5 * h[k] * h[m] * abs(bend[k, m, i, j])
            far[i, j] = total * (1.0 + gamma)
    moved, distance = np.empty((size, size)), np.empty((size, size))
    blur = 0.0
    for i in range(size):
        for j in range(size):
            total = 0.0
            for k in range(size):
                for m in range(size):
                    total += abs(turn[k, i]) * far[k, m] * abs(turn[m, j])
            distance[i, j] = total
            blur += abs(turn[i, 0]) * near[i, j] * abs(turn[j, 0])
            total = 0.0
            for k in range(size):
                for m in range(size):
                    total += turn[k, 0] * bend[i, j, k, m] * turn[m, 0]
            curved[i, j] = total
    _turned(base, turn, moved)
    first = moved[0, 0]
    for i in range(1, size):
        mu[i] = moved[i, i]
        beta[i] = (abs(moved[i, 0]) + distance[i, 0]) * (1.0 + gamma)
        for j in range(1, size):
            distance[i, j] += abs(moved[i, j]) if i != j else 0.0
    for k in range(size):
        _turned(slope[k], turn, moved)
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
    return first, blur * (1.0 + gamma)


@serial
def _turned(matrix: Any, turn: Any, out: Any) -> None:
    """Write U'A U for symmetric A."""
    size = matrix.shape[0]
    for i in range(size):
        for j in range(i, size):
            total = 0.0
            for k in range(size):
                row = 0.0
                for m in range(size):
                    row += matrix[k, m] * turn[m, j]
                total += turn[k, i] * row
            out[i, j] = out[j, i] = total


@serial
def _lowest(const: Any, g: Any, matrix: Any, h: Any, offset: Any, ball: Any, lam: Any, delta: Any) -> Any:
    """(lower bound of the quadratic function over box and ball, lam); begins with the given lam and delta, which may be any."""
    size = h.size
    work, spare = np.empty((size, size)), np.empty((size, size))
    kappa = verified(matrix, np.inf, work, spare)
    # The bound is concave in lam: the best one is between a low one where it rises and a high one where it falls, and found by
    # the Illinois method.
    best, best_lam, trial = -np.inf, 0.0, 0.0
    low, low_rise, high, high_rise, last = 0.0, 0.0, np.inf, 0.0, 0
    steep = 0.0
    for k in range(size):
        steep += abs(g[k])
    for step in range(_LAMS):
        value, rise = _tangent(const, g, matrix, kappa, h, offset, ball, trial, delta)
        if value > best:
            best, best_lam = value, trial
        if step == 0:
            if not (ball > 0.0 and rise > 0.0):
                break
            low_rise = rise
            trial = lam if lam > 0.0 else 0.25 * steep / ball
            continue
        if rise > 0.0:
            high_rise *= 0.5 if last == 1 else 1.0
            low, low_rise, last = trial, rise, 1
        else:
            low_rise *= 0.5 if last == -1 else 1.0
            high, high_rise, last = trial, rise, -1
        if abs(rise) * min(high - low, trial) <= 1e-9 * abs(best):
            break
        if high == np.inf:
            trial *= 4.0
        else:
            share = low_rise / (low_rise - high_rise)
            trial = low + min(max(share, 0.02), 0.98) * (high - low)
    return best, best_lam


@serial
def _tangent(const: Any, g: Any, matrix: Any, kappa: Any, h: Any, offset: Any, ball: Any, lam: Any, delta: Any) -> Any:
    """(the bound for one lam, about how fast it rises with lam); delta is moved to about the convex function's minimiser."""
    size = h.size
    extra = max(0.0, -(kappa + 2.0 * lam)) * (1.0 + 1e-12)
    for _ in range(_SWEEPS):
        going = False
        for k in range(size):
            r = g[k] + 2.0 * lam * offset[k]
            for m in range(size):
                if m != k:
                    r += matrix[k, m] * delta[m]
            diagonal = matrix[k, k] + 2.0 * lam + extra
            move = -r / diagonal if diagonal > 0.0 else (-h[k] if r > 0.0 else h[k])
            move = min(max(move, -h[k]), h[k])
            going |= abs(move - delta[k]) > 1e-7 * h[k]
            delta[k] = move
        if not going:
            break
    total, terms, rise = const, abs(const), 0.0
    if ball > 0.0:
        for k in range(size):
            rise += offset[k] * offset[k]
        terms += lam * (rise + ball * ball)
        rise -= ball * ball
        total += lam * rise
    for k in range(size):
        linear = g[k] + 2.0 * lam * offset[k]
        r = linear + (2.0 * lam + extra) * delta[k]
        for m in range(size):
            r += matrix[k, m] * delta[m]
            terms += abs(matrix[k, m]) * h[k] * h[m] * 3.0
        terms += (3.0 * abs(g[k]) + 6.0 * lam * abs(offset[k])) * h[k] + (6.0 * lam + 3.0 * extra) * h[k] * h[k]
        # At delta the function is (linear + r) . delta / 2 more than at zero.
        total += 0.5 * (linear + r) * delta[k] - 0.5 * extra * h[k] * h[k]
        total += min(r * (h[k] - delta[k]), -r * (h[k] + delta[k]))
        rise += 2.0 * offset[k] * delta[k] + (h[k] * h[k] if extra > 0.0 else delta[k] * delta[k])
    return total - _gamma(size) * terms, rise
