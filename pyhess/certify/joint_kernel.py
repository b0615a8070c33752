"""Compiled hulls over the pieces that `joint` cuts a unit's s and v into."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._jit import serial
from .scalar_ranges import down, mul, up


@serial
def piece_hulls(
    v_lo: Any,
    v_hi: Any,
    left: Any,
    others: Any,
    value_lo: Any,
    value_hi: Any,
    slope_lo: Any,
    slope_hi: Any,
    bend_lo: Any,
    bend_hi: Any,
    rest_lo: Any,
    rest_hi: Any,
    r_lo: Any,
    r_hi: Any,
    curved_lo: Any,
    curved_hi: Any,
    delta_lo: Any,
    delta_hi: Any,
    peak: Any,
) -> None:
    """Write the hulls of r v phi'' and r v phi' (cells, n, m) and sup |r| max phi' (cells, n).

    Parts of v (parts, cells, m), with ``left`` (parts, cells) of the radius for the rest; pieces of s (pieces, cells, n, m) with
    ``others`` the sizes it multiplies; r in v phi + ``rest`` ± left others, and in [r_lo, r_hi] (cells, n, 1). All of moderate
    size, or nothing holds.
    """
    parts, cells, units = v_lo.shape
    pieces, rows = value_lo.shape[0], value_lo.shape[2]
    # For one cell, piece and part: all data and units in one loop without branches, so that it runs on vectors.
    count = rows * units
    part_lo, part_hi = np.empty((parts, count)), np.empty((parts, count))
    r_min, r_max = np.empty(count), np.empty(count)
    bar_lo, bar_hi, size, largest = np.empty(count), np.empty(count), np.empty(count), np.empty(count)
    for b in range(cells):
        for e in range(count):
            i, j = e // units, e % units
            r_min[e], r_max[e] = r_lo[b, i, 0], r_hi[b, i, 0]
            for p in range(parts):
                part_lo[p, e], part_hi[p, e] = v_lo[p, b, j], v_hi[p, b, j]
        base_lo, base_hi = rest_lo[b].reshape(count), rest_hi[b].reshape(count)
        c_lo, c_hi = curved_lo[b].reshape(count), curved_hi[b].reshape(count)
        d_lo, d_hi = delta_lo[b].reshape(count), delta_hi[b].reshape(count)
        c_lo[:] = np.inf
        c_hi[:] = -np.inf
        d_lo[:] = np.inf
        d_hi[:] = -np.inf
        largest[:] = 0.0
        for g in range(pieces):
            reach, phi_lo, phi_hi = others[g, b].reshape(count), value_lo[g, b].reshape(count), value_hi[g, b].reshape(count)
            bar_lo[:] = np.inf
            bar_hi[:] = -np.inf
            size[:] = 0.0
            for p in range(parts):
                own_lo, own_hi, share = part_lo[p], part_hi[p], left[p, b]
                for e in range(count):
                    low, high = mul(own_lo[e], own_hi[e], phi_lo[e], phi_hi[e])
                    spread = up(share * reach[e])
                    low = max(down(down(low + base_lo[e]) - spread), r_min[e])
                    high = min(up(up(high + base_hi[e]) + spread), r_max[e])
                    first, last = mul(low, high, own_lo[e], own_hi[e])
                    there = low <= high  # otherwise no residual belongs to this piece
                    size[e] = max(size[e], max(-low, high)) if there else size[e]
                    bar_lo[e] = min(bar_lo[e], first) if there else bar_lo[e]
                    bar_hi[e] = max(bar_hi[e], last) if there else bar_hi[e]
            for e in range(count):
                if bar_lo[e] > bar_hi[e]:
                    continue
                i, j = e // units, e % units
                slope_min, slope_max = slope_lo[g, b, i, j], slope_hi[g, b, i, j]
                largest[e] = max(largest[e], up(size[e] * max(-slope_min, slope_max)))
                low, high = mul(bar_lo[e], bar_hi[e], bend_lo[g, b, i, j], bend_hi[g, b, i, j])
                c_lo[e], c_hi[e] = min(c_lo[e], low), max(c_hi[e], high)
                low, high = mul(bar_lo[e], bar_hi[e], slope_min, slope_max)
                d_lo[e], d_hi[e] = min(d_lo[e], low), max(d_hi[e], high)
        for i in range(rows):
            peak[b, i] = largest[i * units : (i + 1) * units].max()
