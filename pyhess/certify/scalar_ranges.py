"""Compiled interval arithmetic on single numbers, and ranges of an activation and its first four derivatives.

The compiled counterpart of `intervals` and `ranges`, with the same allowances. An operation's result is moved outwards by two
units
of the last place. Numba's cache does not notice edits here in the callers' files: clear it after any.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._jit import serial

_EPS = 2.0**-52
_TINY = 1e-300
_RELATIVE = 2.0**-46
_GELU = 2.0**-40
_NEAR = 1e-6

CODES = {"identity": 0, "tanh": 1, "sigmoid": 2, "softplus": 3, "gelu": 4, "relu": 5}

_SQRT3 = math.sqrt(3.0)
_T2 = math.atanh(1.0 / _SQRT3)
_T3 = math.atanh(math.sqrt(2.0 / 3.0))
_S2 = math.log(2.0 + _SQRT3)
_T4, _T4_OUTER = (math.atanh(math.sqrt(0.5 + sign * math.sqrt(7.0 / 60.0))) for sign in (-1.0, 1.0))
_G3_INNER, _G3_OUTER = math.sqrt((7.0 - math.sqrt(33.0)) / 2.0), math.sqrt((7.0 + math.sqrt(33.0)) / 2.0)


def _gelu_third(s: float) -> float:
    return math.exp(-0.5 * s * s) / math.sqrt(2.0 * math.pi) * s * (s * s - 4.0)


def _gelu_fourth(s: float) -> float:
    return math.exp(-0.5 * s * s) / math.sqrt(2.0 * math.pi) * (7.0 * s * s - s**4 - 4.0)


def _tanh_fourth(s: float) -> float:
    t = math.tanh(s)
    return 8.0 * t * (1.0 - t * t) * (2.0 - 3.0 * t * t)


#: Critical points: (activation, order) -> (position, extreme value); softplus in units of z = beta s.
_TABLE: dict[tuple[int, int], list[tuple[float, float]]] = {
    (1, 1): [(0.0, 1.0)],
    (1, 2): [(-_T2, 4.0 / (3.0 * _SQRT3)), (_T2, -4.0 / (3.0 * _SQRT3))],
    (1, 3): [(0.0, -2.0), (-_T3, 2.0 / 3.0), (_T3, 2.0 / 3.0)],
    (1, 4): [(s, _tanh_fourth(s)) for s in (-_T4_OUTER, -_T4, _T4, _T4_OUTER)],
    (2, 1): [(0.0, 0.25)],
    (2, 2): [(-_S2, 1.0 / (6.0 * _SQRT3)), (_S2, -1.0 / (6.0 * _SQRT3))],
    (2, 3): [(0.0, -0.125), (-2.0 * _T3, 1.0 / 24.0), (2.0 * _T3, 1.0 / 24.0)],
    (2, 4): [(2.0 * s, _tanh_fourth(s) / 32.0) for s in (-_T4_OUTER, -_T4, _T4, _T4_OUTER)],
    (3, 2): [(0.0, 0.25)],
    (3, 3): [(-_S2, 1.0 / (6.0 * _SQRT3)), (_S2, -1.0 / (6.0 * _SQRT3))],
    (3, 4): [(0.0, -0.125), (-2.0 * _T3, 1.0 / 24.0), (2.0 * _T3, 1.0 / 24.0)],
    (4, 0): [(-0.7517915246935645, -0.16997120747990369)],
    (4, 1): [(-math.sqrt(2.0), -0.12890414518515475), (math.sqrt(2.0), 1.1289041451851550)],
    (4, 2): [(-2.0, -0.10798193302637613), (0.0, 0.7978845608028654), (2.0, -0.10798193302637613)],
    (4, 3): [(s, _gelu_third(s)) for s in (-_G3_OUTER, -_G3_INNER, _G3_INNER, _G3_OUTER)],
    (4, 4): [(s, _gelu_fourth(s)) for s in (-3.0, -math.sqrt(2.0), 0.0, math.sqrt(2.0), 3.0)],
}
_POINTS = np.zeros((6, 5, 5, 2))
_COUNTS = np.zeros((6, 5), dtype=np.int64)
for (_code, _order), _entries in _TABLE.items():
    _COUNTS[_code, _order] = len(_entries)
    _POINTS[_code, _order, : len(_entries)] = _entries


@serial
def down(x: Any) -> Any:
    """A number below x, by more than the rounding of the operation that gave x."""
    return x - abs(x) * _EPS - _TINY


@serial
def up(x: Any) -> Any:
    """A number above x."""
    return x + abs(x) * _EPS + _TINY


@serial
def mul(al: Any, ah: Any, bl: Any, bh: Any) -> Any:
    """Product of two intervals."""
    p, q, r, s = al * bl, al * bh, ah * bl, ah * bh
    return down(min(min(p, q), min(r, s))), up(max(max(p, q), max(r, s)))


@serial
def square(al: Any, ah: Any) -> Any:
    """Square of an interval."""
    p, q = al * al, ah * ah
    low = 0.0 if al <= 0.0 <= ah else max(0.0, down(min(p, q)))
    return low, up(max(p, q))


@serial
def _value(code: Any, order: Any, z: Any) -> Any:
    """(value, bound of its error) of a derivative at a point."""
    if code == 1:
        e = math.exp(-2.0 * abs(z))
        t = math.tanh(z)
        slope = 4.0 * e / ((1.0 + e) * (1.0 + e))
        if order == 0:
            return t, abs(t) * _RELATIVE
        if order == 1:
            return slope, slope * _RELATIVE
        if order == 2:
            return -2.0 * t * slope, 2.0 * abs(t) * slope * _RELATIVE
        if order == 3:
            return slope * (6.0 * t * t - 2.0), slope * (6.0 * t * t + 2.0) * _RELATIVE
        return 8.0 * t * slope * (2.0 - 3.0 * t * t), 8.0 * abs(t) * slope * (2.0 + 3.0 * t * t) * _RELATIVE
    if code == 2 or code == 3:
        e = math.exp(-abs(z))
        below = code == 3
        # The rounding of z = beta s moves e^z by |z| units.
        error = _RELATIVE * (1.0 + min(abs(z), 800.0)) if below else _RELATIVE
        rank = order - 1 if below else order
        if rank == -1:
            value = max(z, 0.0) + math.log1p(e)
            return value, abs(value) * error
        if rank == 0:
            value = (1.0 if z >= 0.0 else e) / (1.0 + e)
            return value, value * error
        slope = e / ((1.0 + e) * (1.0 + e))
        if rank == 1:
            return slope, slope * error
        if rank == 2:
            value = -slope * math.tanh(0.5 * z)
            return value, abs(value) * error
        if rank == 3:
            return slope * (1.0 - 6.0 * slope), slope * (1.0 + 6.0 * slope) * error
        tilt = -slope * math.tanh(0.5 * z)
        return tilt * (1.0 - 12.0 * slope), abs(tilt) * (1.0 + 12.0 * slope) * error
    if code == 4:
        c = min(max(z, -40.0), 40.0)
        cdf = 0.5 * math.erfc(-c * 0.7071067811865476)
        pdf = math.exp(-0.5 * c * c) * 0.3989422804014327
        error = _GELU * (1.0 + c * c)
        if order == 0:
            return z * cdf, abs(z) * cdf * error + 1e-290 * (1.0 + abs(z))
        if order == 1:
            return cdf + c * pdf, (cdf + abs(c) * pdf) * error + 1e-290
        if order == 2:
            return pdf * (2.0 - c * c), pdf * (2.0 + c * c) * error + 1e-290
        c2 = c * c
        if order == 3:
            return pdf * c * (c2 - 4.0), pdf * abs(c) * (c2 + 4.0) * error + 1e-290
        return pdf * (7.0 * c2 - c2 * c2 - 4.0), pdf * (7.0 * c2 + c2 * c2 + 4.0) * error + 1e-290
    if order == 0:
        return z, 0.0
    if order == 1:
        return 1.0, 0.0
    return 0.0, 0.0


@serial
def activation_range(code: Any, beta: Any, order: Any, lo: Any, hi: Any) -> Any:
    """Enclosure of phi or a derivative up to the fourth over [lo, hi]; a ReLU's first is in [0, 1], its others are 0."""
    if not (lo <= hi) or lo == -np.inf or hi == np.inf:
        return -np.inf, np.inf
    if code == 5:
        if order == 0:
            return max(lo, 0.0), max(hi, 0.0)
        if order == 1:
            return (1.0 if lo > 0.0 else 0.0), (1.0 if hi >= 0.0 else 0.0)
        return 0.0, 0.0
    if code == 0:
        if order == 0:
            return lo, hi
        return (1.0, 1.0) if order == 1 else (0.0, 0.0)
    zl, zh = (down(beta * lo), up(beta * hi)) if code == 3 else (lo, hi)
    a, ea = _value(code, order, zl)
    b, eb = _value(code, order, zh)
    low, high = min(a - ea, b - eb), max(a + ea, b + eb)
    for i in range(_COUNTS[code, order]):
        place, extreme = _POINTS[code, order, i]
        if zl <= place + _NEAR and zh >= place - _NEAR:
            low = min(low, extreme - abs(extreme) * _RELATIVE)
            high = max(high, extreme + abs(extreme) * _RELATIVE)
    low, high = low - _TINY, high + _TINY
    if code == 3:
        # phi(s) = softplus(beta s) / beta
        factor = 1.0 / beta
        for _ in range(order):
            factor = factor * beta
        low, high = low * factor, high * factor
        low, high = low - abs(low) * _RELATIVE, high + abs(high) * _RELATIVE
    return low, high
