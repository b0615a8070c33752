"""Compiled bounds of products over the last hidden layer that share one radius; see `shared`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._jit import serial

#: More than the relative roundings of a unit's term, of its parts' sizes.
_ROUNDING = 1e-14
#: Least scale of a residual and of a factor.
_LEAST = 1e-100
#: Pieces of a row's share, between what its s takes and all.
_ROWS = 4
#: Steps of the multipliers' search for the first datum of a cell, and for the others from there.
_FIRST, _NEXT = 40, 12


@serial
def _best_of_line(slope: Any, cost: Any, at: Any, end: Any) -> Any:
    """(value, x): bound of slope x - cost (x - at)² over 0 <= x <= end, cost > 0, and where it is about attained."""
    x = min(max(at + 0.5 * slope / cost, 0.0), end)
    rise = slope - 2.0 * cost * (x - at)
    return slope * x - cost * (x - at) ** 2 + max(rise * (end - x), -rise * x), x


@serial
def _unit(kind: Any, ia: Any, ib: Any, lam: Any, mu: Any, v0: Any, end: Any, row: Any, rho: Any, c: Any, g: Any, least: Any) -> Any:
    """(value, share of r, of the factor, v's and the row's squared distances) of one unit on one piece of its s.

    v = x >= 0 up to its sign, at most ``end`` and about ``v0``; ``c`` bounds phi(s) with that sign and ``g`` the factor's
    derivative; the row's change takes at least ``least`` and at most ``rho`` of the radius.
    """
    if kind == 0:
        # The factor is (x g)²: a parabola in x.
        lead = ib * g * g - lam
        slope = 2.0 * (ia * c + lam * v0)
        shift = lam * v0 * v0 + mu * least * least
        if lead >= 0.0:
            x = end if slope * end + lead * end * end > 0.0 else 0.0
            value = slope * x + lead * x * x
        else:
            x = min(max(-0.5 * slope / lead, 0.0), end)
            rise = slope + 2.0 * lead * x
            value = slope * x + lead * x * x + max(rise * (end - x), -rise * x)
        return value - shift, c * x, (x * g) ** 2, (x - v0) ** 2, least * least
    if kind == 1:
        # The factor is x g w² for a row of norm w: for every w the best x, convex in w, below its chords.
        best, where, x_there = -math.inf, least, 0.0
        low = least
        left, x_left = _best_of_line(ia * c + ib * g * (row + low) ** 2, lam, v0, end)
        for piece in range(_ROWS):
            high = rho if piece == _ROWS - 1 else least + (rho - least) * (piece + 1) / _ROWS
            right, x_right = _best_of_line(ia * c + ib * g * (row + high) ** 2, lam, v0, end)
            if high > low:
                steep = (right - left) / (high - low)
                found, at = _best_of_line(steep, mu, -low, high - low)
                found += left
            else:
                found, at = right - mu * low * low, 0.0
            if found > best:
                best, where = found, low + at
                x_there = x_right if 2.0 * at > high - low else x_left
            low, left, x_left = high, right, x_right
        return best, c * x_there, x_there * g * (row + where) ** 2, (x_there - v0) ** 2, where * where
    # The factor is (g w)², without v.
    value, x = _best_of_line(2.0 * ia * c, lam, v0, end)
    lead = ib * g * g - mu
    slope = 2.0 * ib * g * g * row
    if lead >= 0.0:
        beta = rho
        extra = slope * beta + lead * beta * beta
    else:
        beta = min(max(-0.5 * slope / lead, least), rho)
        rise = slope + 2.0 * lead * beta
        extra = slope * beta + lead * beta * beta + max(rise * (rho - beta), rise * (least - beta))
    return value + extra + ib * g * g * row * row, c * x, (g * (row + beta)) ** 2, (x - v0) ** 2, beta * beta


@serial
def _total(kind: Any, z: Any, scale: Any, base: Any, v: Any, rows: Any, radii: Any, shared: Any, c: Any, g: Any, least: Any, step: Any) -> Any:
    """(log of the bound, with roundings), and its derivatives in ``z``, the logarithms of the multipliers' ``scale``, in ``step``.

    Both signs of v and all pieces of s are tried for every unit: c, g (2, pieces, m), least (pieces, m).
    """
    power = 1.0 if kind == 1 else 2.0
    ia, ib, lam, mu = math.exp(z[0]) / scale[0], math.exp(z[1]) / scale[1], math.exp(z[2]) / scale[2], math.exp(z[3]) / scale[3]
    rho_v, rho_w = radii
    total = power * base * ia + lam * rho_v * rho_v + mu * rho_w * rho_w
    size = power * abs(base) * ia + lam * rho_v * rho_v + mu * rho_w * rho_w
    residual, factor, far, wide = base, 0.0, 0.0, 0.0
    if shared:
        # The output bias's own change d of the same radius: power d ia - lam d².
        total += 0.25 * (power * ia) ** 2 / lam
        size += 0.25 * (power * ia) ** 2 / lam
        residual += 0.5 * power * ia / lam
        far += (0.5 * power * ia / lam) ** 2
    for j in range(v.size):
        end = abs(v[j]) + rho_v
        best, r_j, f_j, v_j, w_j, most = -math.inf, 0.0, 0.0, 0.0, 0.0, 0.0
        for sign in range(2):
            at = v[j] if sign == 0 else -v[j]
            for piece in range(c.shape[1]):
                if least[piece, j] > rho_w:
                    continue
                value, r_one, f_one, v_one, w_one = _unit(
                    kind, ia, ib, lam, mu, at, end, rows[j], rho_w, c[sign, piece, j], g[sign, piece, j], least[piece, j]
                )
                if not value <= best:
                    best, r_j, f_j, v_j, w_j = value, r_one, f_one, v_one, w_one
                sharp = g[sign, piece, j] if kind == 1 else g[sign, piece, j] ** 2
                most = max(most, abs(c[sign, piece, j]) * ia * power * end + ib * sharp * max(1.0, end) ** 2 * max(1.0, rows[j] + rho_w) ** 2)
        total += best
        size += most + 4.0 * lam * end * end + 4.0 * mu * rho_w * rho_w
        residual, factor, far, wide = residual + r_j, factor + f_j, far + v_j, wide + w_j
    step[0] = power * (ia * residual - 1.0)
    step[1] = ib * factor - 1.0
    step[2] = lam * (rho_v * rho_v - far)
    step[3] = mu * (rho_w * rho_w - wide)
    found = total - power * math.log(ia) - math.log(ib) - power - 1.0
    return found + _ROUNDING * (size * v.size + abs(math.log(ia)) + abs(math.log(ib)) + 4.0)


@serial
def shared_sups(
    base: Any, v: Any, rows: Any, rho_v: Any, rho_w: Any, shared: Any, value_lo: Any, value_hi: Any, slope: Any, bend_lo: Any,
    bend_hi: Any, least: Any, out: Any,
) -> None:  # fmt: skip
    """Write bounds (3, cells, n) of |r| |v phi'|, sum (-r v phi'')_+ w² and |r| |phi' w|.

    ``base`` (2, cells, n) bounds c - y and y - c; v, rows (cells, m), radii (cells,); pieces of s (pieces, cells, n, m).
    """
    pieces, cells, count, units = value_lo.shape
    c, g = np.empty((2, pieces, units)), np.empty((2, pieces, units))
    scale, step, z, warm, best_z = np.empty(4), np.empty(4), np.empty(4), np.empty(4), np.empty(4)
    for b in range(cells):
        radii = (rho_v[b], rho_w[b])
        for kind in range(3):
            warm[0], warm[1], warm[2], warm[3] = 0.2, 0.4, -0.7, -0.7
            for i in range(count):
                worst = -math.inf
                for side in range(2):
                    turn = 1.0 if side == 0 else -1.0  # the sign of r
                    reach, factor = base[side, b, i] + (rho_v[b] if shared else 0.0), 0.0
                    for j in range(units):
                        end = abs(v[b, j]) + rho_v[b]
                        top_c, top_f = 0.0, 0.0
                        for piece in range(pieces):
                            for sign in range(2):
                                flip = 1.0 if sign == 0 else -1.0  # the sign of r v
                                low, high = flip * value_lo[piece, b, i, j], flip * value_hi[piece, b, i, j]
                                c[sign, piece, j] = max(low, high)
                                if kind == 1:
                                    g[sign, piece, j] = max(0.0, max(-flip * bend_lo[piece, b, i, j], -flip * bend_hi[piece, b, i, j]))
                                else:
                                    g[sign, piece, j] = slope[piece, b, i, j]
                                top_c = max(top_c, end * c[sign, piece, j])
                                one = g[sign, piece, j]
                                w = rows[b, j] + rho_w[b]
                                top_f = max(top_f, end * one * w * w if kind == 1 else (one * one * (end * end if kind == 0 else w * w)))
                        reach += top_c
                        factor += top_f
                    scale[0], scale[1] = max(reach, 1e-9 * abs(base[side, b, i]), _LEAST), max(factor, _LEAST)
                    scale[2], scale[3] = rho_v[b] ** 2, rho_w[b] ** 2
                    for k in range(4):
                        z[k] = warm[k]
                    best = math.inf
                    steps = _FIRST if i == 0 and side == 0 else _NEXT
                    for at in range(steps):
                        found = _total(
                            kind, z, scale, base[side, b, i], turn * v[b], rows[b], radii, shared, c, g, least[:, b, i], step
                        )
                        if found < best:
                            best = found
                            best_z[:] = z
                        length = math.sqrt((step**2).sum())
                        size = 0.5 / (1.0 + 0.15 * (at if steps == _FIRST else at + 10)) / max(1.0, length)
                        for k in range(4):
                            z[k] = z[k] - size * step[k]
                    warm[:] = best_z
                    worst = max(worst, best)
                bound = math.exp(worst) * (1.0 + 1e-13)
                out[kind, b, i] = bound if kind == 1 else math.sqrt(bound)
