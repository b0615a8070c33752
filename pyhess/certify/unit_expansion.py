"""The block of one hidden unit over cells of its weights, expanded about their middles.

With t the middle of a cell, theta = t + e, delta the changes of all other parameters, r = g + o the residual, g the unit's own
part, and G = [alpha X X', beta X; ., 0] the block's matrix for a datum, the parts of order k marked,

    R = mean of r0 G0 + (r0 G1 + g1 G0 + o1 G0) + (r0 G2 + g1 G1 + g2 G0 + o1 G1 + o2 G0) + o3 G0 + rests.

Here are the numbers that these are made of, datum by datum, and what the rests are at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .higher_ranges import derivative_bound, derivative_points
from .intervals import TINY, UNIT, Interval, gamma, norms
from .ranges import derivative_range
from .unit_models import Units
from .unit_others import OtherUnits

FloatArray = npt.NDArray[np.float64]

_ROOM = 1.0 + gamma(64)


@dataclass(frozen=True, eq=False)
class UnitExpansion:
    """Of cells (C,) and data (n,).

    ``residual`` (C, n) and ``phi`` (5, C, n), the activation and its derivatives, are at the middles, ``outer`` (C,) are their
    output weights.
    For a direction (p, q) the rests are at most ``alpha`` (C, n) (X.p)² + 2 ``beta`` |X.p q|; the polynomial's values are off
    by ``rounding`` (C,) relative to |p|² + q², and sums of squares of the third order's numbers by ``cubic_rounding`` (C,).
    """

    residual: FloatArray
    phi: FloatArray
    outer: FloatArray
    alpha: FloatArray
    beta: FloatArray
    rounding: FloatArray
    cubic_rounding: FloatArray


def expanded(
    activation: tuple[str, float], units: Units, data: tuple[FloatArray, FloatArray], cells: FloatArray, others: OtherUnits,
    room: FloatArray,
) -> UnitExpansion:  # fmt: skip
    """For cells (C, 2, D) with effective ends that leave so much (C,) to the others, and the data's weights and targets (n,)."""
    (name, beta), (weights, targets), z, kv = activation, data, units.z, units.scale_v
    dim, x = z.shape[1], units.scale_u * z
    middle, half = 0.5 * (cells[:, 0] + cells[:, 1]), 0.5 * (cells[:, 1] - cells[:, 0]) * (1.0 + 4.0 * UNIT)
    s = middle[:, :dim] @ z.T
    off = gamma(dim + 8) * ((np.abs(middle[:, :dim]) + half[:, :dim]) @ np.abs(z).T) + TINY
    reach = (half[:, :dim] @ np.abs(z).T) * _ROOM + 2.0 * off
    near, around = Interval(s - off, s + off), Interval(s - reach - off, s + reach + off)
    phi = [derivative_range(name, beta, order, near) for order in range(4)]
    fourth, error = derivative_points(name, beta, 4, s)
    sups = [derivative_range(name, beta, order, around).magnitude for order in (2, 3)]
    sups += [derivative_bound(name, beta, order, around) for order in (4, 5)]
    f = [p.middle for p in phi] + [fourth]
    fuzz = [p.radius for p in phi] + [error + off * sups[3]]
    v, dv = middle[:, dim, None], half[:, dim, None]
    size_v, ones, zeros = np.abs(v), np.full_like(v, kv), np.zeros_like(v)
    rho = room[:, None]
    r0 = v * f[0] + (others.value - targets)
    # Absolute terms by order, and what is left out; of alpha, beta and the own part of the residual.
    alpha = _terms(size_v, dv, reach, np.abs(f[2]), np.abs(f[3]), np.abs(f[4]), sups[2], sups[3])
    own = _terms(size_v, dv, reach, np.abs(f[0]), np.abs(f[1]), np.abs(f[2]), sups[0], sups[1])
    bent = _terms(ones, zeros, reach, np.abs(f[1]), np.abs(f[2]), np.abs(f[3]), sups[1], sups[2])
    o1, o2, o3 = (size * rho ** (k + 1) for k, size in enumerate(others.sizes))
    o4 = others.rest * rho**2
    r_off = sum(_terms(size_v, dv, reach, fuzz[0], fuzz[1], fuzz[2], 0.0, 0.0)[:3]) + others.blur
    r_off += gamma(16) * (size_v * np.abs(f[0]) + np.abs(others.value) + np.abs(targets))
    of_r = np.abs(r0) + own[1] + own[2] + o1 + o2 + o3

    def left_out(g: list[FloatArray], g_off: FloatArray) -> FloatArray:
        g0, g1, g2, g3 = g
        upper, whole = g1 + g2 + g3, g0 + g1 + g2 + g3
        found = np.abs(r0) * g3 + own[1] * (g2 + g3) + own[2] * upper + own[3] * whole
        found += o1 * (g2 + g3) + (o2 + o3) * upper + o4 * whole
        found += (of_r + own[3] + o4) * g_off + r_off * (whole + g_off)
        return np.asarray(found * (1.0 + gamma(128)) + TINY)

    of_alpha = left_out(alpha, np.sum(_terms(size_v, dv, reach, fuzz[2], fuzz[3], fuzz[4], 0.0, 0.0)[:3], axis=0))
    of_beta = left_out(bent, np.sum(_terms(ones, zeros, reach, fuzz[1], fuzz[2], fuzz[3], 0.0, 0.0)[:3], axis=0))
    length = norms(x) * _ROOM
    sizes = (alpha[0] + alpha[1] + alpha[2]) * length**2 + 2.0 * (bent[0] + bent[1] + bent[2]) * length
    rounding = gamma(len(z) + 512) * ((of_r * sizes) @ weights) * _ROOM + TINY
    # Entries' lengths are no more than twice the largest values.
    cubes = (2.0 * o3 * (alpha[0] * length**2 + 2.0 * bent[0] * length)) @ weights
    return UnitExpansion(
        r0, np.stack(f), middle[:, dim], of_alpha, of_beta, rounding, gamma(2 * len(z) + 1024) * cubes**2
    )  # fmt: skip


def _terms(
    v: FloatArray, dv: FloatArray, reach: FloatArray, f0: FloatArray, f1: FloatArray, f2: FloatArray,
    sup2: FloatArray | float, sup3: FloatArray | float,
) -> list[FloatArray]:  # fmt: skip
    """Sizes of the terms of (v + dv) f(s + ds), |ds| <= reach, by their orders 0, 1 and 2, and of all others."""
    rest = v * sup3 * reach**3 / 6.0 + dv * sup2 * reach**2 / 2.0
    terms = [v * f0, v * f1 * reach + dv * f0, 0.5 * v * f2 * reach**2 + dv * f1 * reach, rest]
    return [np.asarray(x * _ROOM) for x in terms]
