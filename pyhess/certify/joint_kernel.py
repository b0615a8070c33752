"""Compiled hulls over the pieces that `joint` cuts a unit's s and v into."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._jit import serial
from .scalar_ranges import down, mul, up


@serial
def piece_hulls(
    left: Any,
    others: Any,
    v_lo: Any,
    v_hi: Any,
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
    """Write the hulls of r v phi'' and r v phi' (n, m) and sup |r| max phi' (n,).

    Parts of v (parts, m), with ``left`` (parts,) of the radius for the rest; pieces of s (pieces, n, m) with ``others`` the sizes
    it multiplies; r in v phi + ``rest`` ± left others, and in [r_lo, r_hi] (n,). All of moderate size.
    """
    parts, units = v_lo.shape
    pieces, rows = value_lo.shape[0], value_lo.shape[1]
    for i in range(rows):
        peak[i] = 0.0
        for j in range(units):
            c_lo, c_hi, d_lo, d_hi = np.inf, -np.inf, np.inf, -np.inf
            for g in range(pieces):
                steepest = max(abs(slope_lo[g, i, j]), abs(slope_hi[g, i, j]))
                for p in range(parts):
                    low, high = mul(v_lo[p, j], v_hi[p, j], value_lo[g, i, j], value_hi[g, i, j])
                    spread = up(left[p] * others[g, i, j])
                    low = max(down(down(low + rest_lo[i, j]) - spread), r_lo[i])
                    high = min(up(up(high + rest_hi[i, j]) + spread), r_hi[i])
                    if low > high:
                        continue  # no residual belongs to this piece
                    peak[i] = max(peak[i], up(max(abs(low), abs(high)) * steepest))
                    bar_lo, bar_hi = mul(low, high, v_lo[p, j], v_hi[p, j])
                    low, high = mul(bar_lo, bar_hi, bend_lo[g, i, j], bend_hi[g, i, j])
                    c_lo, c_hi = min(c_lo, low), max(c_hi, high)
                    low, high = mul(bar_lo, bar_hi, slope_lo[g, i, j], slope_hi[g, i, j])
                    d_lo, d_hi = min(d_lo, low), max(d_hi, high)
            curved_lo[i, j], curved_hi[i, j] = c_lo, c_hi
            delta_lo[i, j], delta_hi[i, j] = d_lo, d_hi
