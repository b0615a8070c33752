"""Compiled bounds of sums over the last hidden layer's units; `shared` says what they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._jit import serial

#: What is bounded: |r|² sum (v phi')², |r| sum (-+ v phi'')_+ w², |r|² sum (phi' w)².
TURNED, BENT, STEEP = 0, 1, 2
#: More than a unit's roundings, in parts of its terms' sizes.
_ROUNDING = 1e-14
#: Least scale of a residual and of a sum.
_LEAST = 1e-100
#: Share of what is known that the first sum has to be below about zero for the others to be worth their time.
_GAIN = 0.88
#: Pieces of a row's change; steps of the search for multipliers, for a cell's first datum, and for others from the last one's.
_ROWS, _FIRST, _NEXT, _LATE = 4, 60, 12, 6


@serial
def _line(slope: Any, cost: Any, at: Any, end: Any) -> Any:
    """Bound of slope x - cost (x - at)² over 0 <= x <= end, cost > 0, and about where it is attained.

    A concave function is below its tangent, wherever that is taken.
    """
    x = min(max(at + 0.5 * slope / cost, 0.0), end)
    rise = slope - 2.0 * cost * (x - at)
    return slope * x - cost * (x - at) ** 2 + max(rise * (end - x), -rise * x), x


@serial
def _parabola(slope: Any, lead: Any, start: Any, end: Any) -> Any:
    """Bound of slope x + lead x² over start <= x <= end, and about where it is attained."""
    if lead >= 0.0:
        x = start if (slope + lead * start) * start > (slope + lead * end) * end else end
        return (slope + lead * x) * x, x
    x = min(max(-0.5 * slope / lead, start), end)
    rise = slope + 2.0 * lead * x
    return (slope + lead * x) * x + max(rise * (end - x), rise * (start - x)), x


@serial
def _unit(
    kind: Any, m_r: Any, m_f: Any, m_v: Any, m_w: Any, at: Any, end: Any, row: Any, rho: Any, c: Any, g: Any, least: Any
) -> Any:
    """Largest m_r p r + m_f f - m_v (x - at)² - m_w change², and the unit's parts r, f of residual and sum, x and change there.

    x = |v| <= end; phi(s) sign(v) <= c, the factor's slope or bend at most g; row + change >= w, least <= change <= rho.
    """
    if kind == TURNED:
        value, x = _parabola(2.0 * (m_r * c + m_v * at), m_f * g * g - m_v, 0.0, end)
        return value - m_v * at * at - m_w * least * least, c * x, (x * g) ** 2, x, least
    if kind == STEEP:
        value, x = _line(2.0 * m_r * c, m_v, at, end)
        more, change = _parabola(2.0 * m_f * g * g * row, m_f * g * g - m_w, least, rho)
        return value + more + m_f * (g * row) ** 2, c * x, (g * (row + change)) ** 2, x, change
    # For every change the best x; that is convex in the change, so below its chords.
    best, change, x = -math.inf, least, 0.0
    low, (left, x_left) = least, _line(m_r * c + m_f * g * (row + least) ** 2, m_v, at, end)
    for piece in range(_ROWS):
        high = rho if piece == _ROWS - 1 else least + (rho - least) * (piece + 1) / _ROWS
        right, x_right = _line(m_r * c + m_f * g * (row + high) ** 2, m_v, at, end)
        if high > low:
            found, along = _line((right - left) / (high - low), m_w, -low, high - low)
            found += left
        else:
            found, along = max(left, right) - m_w * low * low, 0.0
        if found > best:
            best, change, x = found, low + along, x_right if 2.0 * along > high - low else x_left
        low, left, x_left = high, right, x_right
    return best, c * x, x * g * (row + change) ** 2, x, change


@serial
def _total(
    kind: Any, z: Any, scale: Any, base: Any, at: Any, end: Any, rows: Any, rho_v: Any, rho_w: Any, bias: Any, c: Any, g: Any,
    least: Any, counts: Any, step: Any,
) -> Any:  # fmt: skip
    """The logarithm of the bound for multipliers exp(z) / scale, rounded up; ``step`` becomes its derivatives in z.

    Choices (units, choices) of every unit's sign of v and piece of s: ``at``, ``c``, ``g`` and ``least`` of `_unit`.
    """
    power = 1.0 if kind == BENT else 2.0
    m_r, m_f, m_v, m_w = (
        math.exp(z[0]) / scale[0],
        math.exp(z[1]) / scale[1],
        math.exp(z[2]) / scale[2],
        math.exp(z[3]) / scale[3],
    )
    # The output bias's change d of the same radius: power m_r d - m_v d².
    own = 0.5 * power * m_r / m_v if bias else 0.0
    total = power * m_r * base + m_v * own * own + m_v * rho_v * rho_v + m_w * rho_w * rho_w
    size = power * m_r * abs(base) + m_v * own * own + m_v * rho_v * rho_v + m_w * rho_w * rho_w
    residual, factor, far, changed = base + own, 0.0, own * own, 0.0
    for j in range(rows.size):
        best, r, f, v, w, most = -math.inf, 0.0, 0.0, 0.0, 0.0, 0.0
        reach = rows[j] + rho_w
        for k in range(counts[j]):
            value, r_k, f_k, x, change = _unit(
                kind, m_r, m_f, m_v, m_w, at[j, k], end[j], rows[j], rho_w, c[j, k], g[j, k], least[j, k]
            )
            if not value <= best:
                best, r, f, v, w = value, r_k, f_k, (x - at[j, k]) ** 2, change * change
            if kind == TURNED:
                sharp = (g[j, k] * end[j]) ** 2
            elif kind == BENT:
                sharp = g[j, k] * end[j] * reach * reach
            else:
                sharp = (g[j, k] * reach) ** 2
            most = max(most, power * m_r * abs(c[j, k]) * end[j] + m_f * sharp)
        total += best
        size += most + 4.0 * (m_v * end[j] * end[j] + m_w * rho_w * rho_w)
        residual, factor, far, changed = residual + r, factor + f, far + v, changed + w
    step[0], step[1] = power * (m_r * residual - 1.0), m_f * factor - 1.0
    step[2], step[3] = m_v * (rho_v * rho_v - far), m_w * (rho_w * rho_w - changed)
    logs = power * math.log(m_r) + math.log(m_f)
    rounding = _ROUNDING * (rows.size * size + power * abs(math.log(m_r)) + abs(math.log(m_f)) + 4.0)
    return total - logs - (power + 1.0) + rounding


@serial
def _choices(
    kind: Any, turn: Any, v: Any, rho_w: Any, value_lo: Any, value_hi: Any, steep: Any, bend_lo: Any, bend_hi: Any, gap: Any,
    at: Any, c: Any, g: Any, least: Any,
) -> Any:  # fmt: skip
    """Write the choices of a unit, for r of the sign ``turn``, that no other choice makes needless; returns their number."""
    count = 0
    for side in range(2):
        flip = 1.0 if side == 0 else -1.0  # the sign of r v
        for piece in range(value_lo.size):
            if gap[piece] > rho_w:
                continue
            high = max(flip * value_lo[piece], flip * value_hi[piece])
            sharp = steep[piece]
            if kind == BENT:
                sharp = max(0.0, max(-flip * bend_lo[piece], -flip * bend_hi[piece]))
            needed = True
            k = 0
            while k < count and needed:
                same = at[k] == flip * turn * v
                if same and c[k] >= high and g[k] >= sharp and least[k] <= gap[piece]:
                    needed = False
                elif same and c[k] <= high and g[k] <= sharp and least[k] >= gap[piece]:
                    count -= 1
                    at[k], c[k], g[k], least[k] = at[count], c[count], g[count], least[count]
                else:
                    k += 1
            if needed:
                at[count], c[count], g[count], least[count] = flip * turn * v, high, sharp, gap[piece]
                count += 1
    return count


@serial
def shared_sups(
    base: Any, v: Any, rows: Any, rho_v: Any, rho_w: Any, bias: Any, value_lo: Any, value_hi: Any, steep: Any, bend_lo: Any,
    bend_hi: Any, gap: Any, known: Any, out: Any,
) -> None:  # fmt: skip
    """Write bounds (3, cells, n) of |r| |v phi'|, sum (-r v phi'')_+ w² and |r| |phi' w|.

    ``base`` (2, cells, n) bounds c - y and y - c, v (cells, m), rows (cells, n, m), radii (cells,), pieces of s
    (cells, n, m, pieces). About zero, where all units are alike, the others are left out (infinite) if
    the first is hardly below what is ``known`` of it (cells, n).
    """
    cells, count, units, pieces = value_lo.shape
    room = np.empty((4, units, 2 * pieces))
    at, c, g, least = room[0], room[1], room[2], room[3]
    counts, end = np.empty(units, dtype=np.int64), np.empty(units)
    scale, step, z, warm, keep = np.empty(4), np.empty(4), np.empty(4), np.empty(4), np.empty(4)
    for b in range(cells):
        # Small changes act in proportion: their multipliers are near their sizes over the squared radii.
        about_v = rho_v[b] * (np.abs(v[b]).max() + rho_v[b])
        scale[3] = rho_w[b] * (1.0 + rho_w[b])
        for kind in range(3):
            if kind == BENT and not v[b].any() and out[TURNED, b].sum() > _GAIN * known[b].sum():
                out[BENT:, b] = math.inf
                break
            warm[0], warm[1], warm[2], warm[3] = 0.2, 0.4, -0.7, -0.7
            late = 0
            for i in range(count):
                worst = -math.inf
                first = 0 if base[0, b, i] >= base[1, b, i] else 1
                for side in (first, 1 - first):
                    turn = 1.0 if side == 0 else -1.0
                    reach, factor = base[side, b, i] + (rho_v[b] if bias else 0.0), 0.0
                    for j in range(units):
                        end[j] = abs(v[b, j]) + rho_v[b]
                        counts[j] = _choices(
                            kind, turn, v[b, j], rho_w[b], value_lo[b, i, j], value_hi[b, i, j], steep[b, i, j],
                            bend_lo[b, i, j], bend_hi[b, i, j], gap[b, i, j], at[j], c[j], g[j], least[j],
                        )  # fmt: skip
                        top, sharp, w = 0.0, 0.0, rows[b, i, j] + rho_w[b]
                        for k in range(counts[j]):
                            top, sharp = max(top, c[j, k]), max(sharp, g[j, k])
                        reach += top * end[j]
                        factor += sharp * end[j] * w * w if kind == BENT else (sharp * (end[j] if kind == TURNED else w)) ** 2
                    if reach < -_ROUNDING * (units + 1) * (reach - 2.0 * min(base[side, b, i], 0.0)):
                        continue  # r has the other sign
                    scale[0] = max(reach, max(1e-9 * abs(base[side, b, i]), _LEAST))
                    scale[1] = max(factor, _LEAST)
                    # Where r needs much of the radius to have its sign at all, the radius counts more.
                    scale[2] = about_v * scale[0] / (scale[0] + max(0.0, -base[side, b, i]))
                    # Number by number here and below: arrays assigned at once take seconds to compile.
                    for k in range(4):
                        z[k] = warm[k]
                    best = math.inf
                    for at_step in range(late, _FIRST if late == 0 else late + _NEXT):
                        found = _total(
                            kind,
                            z,
                            scale,
                            base[side, b, i],
                            at,
                            end,
                            rows[b, i],
                            rho_v[b],
                            rho_w[b],
                            bias,
                            c,
                            g,
                            least,
                            counts,
                            step,
                        )
                        if found < best:
                            best = found
                            for k in range(4):
                                keep[k] = z[k]
                        if best <= worst:
                            break  # the other sign of r has more
                        length = math.sqrt(step[0] * step[0] + step[1] * step[1] + step[2] * step[2] + step[3] * step[3])
                        pace = 0.5 / (1.0 + 0.15 * at_step) / max(1.0, length)
                        for k in range(4):
                            z[k] -= pace * step[k]
                    if best > worst:
                        worst = best
                        for k in range(4):
                            warm[k] = keep[k]
                    late = _LATE
                bound = math.exp(worst) * (1.0 + 1e-13)
                out[kind, b, i] = bound if kind == BENT else math.sqrt(bound) * (1.0 + 1e-13)
