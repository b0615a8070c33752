"""The penalty sum_i lam^i theta_i², everything in logarithms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..model import MLP
from .base import EPS, FloatArray, Penalty

_MAX_NEWTON = 200


class GeometricL2(Penalty):
    """P(theta; lam) = sum_{i=1}^{P} lam^i theta_i², i the place in theta counted from one.

    The value depends on the order of the parameters (W1 row by row, b1, W2, …), and exchanging hidden units changes the penalty.
    The objective is convex where H + 2 diag(lam^i) is positive semi-definite, which holds from some lam* on. Along a direction
    v the strength is the root of ``v'Hv + 2 sum_i lam^i v_i² = 0``, which is monotone and convex in log lam; powers of lam are
    never formed, so nothing overflows, whatever P is. lam* lies between 1 and the threshold of :class:`L2`.

    Examples
    --------
    Along the fifth coordinate a curvature of -64 takes 2 lam^5 = 64:

    >>> import numpy as np, pyhess as ph
    >>> penalty = ph.GeometricL2()
    >>> round(penalty.strength(-64.0, np.eye(8)[4]), 9)
    2.0
    >>> penalty.curvature(2.0, 3), round(penalty.value([1.0, 1.0, 1.0], 2.0), 12)
    (array([ 4.,  8., 16.]), 14.0)
    """

    kind = "geometric_l2"
    formula = "sum_i lam^i theta_i²"
    upper_rule = "lam^i >= -psi_lower/2 for every i = 1…P, from the bound of psi alone: loose, because every power must reach it"
    _size: int | None

    def __init__(self) -> None:
        self._set(_size=None)

    @property
    def size(self) -> int | None:
        return self._size

    def _with_net(self, size: int, net: MLP | None) -> GeometricL2:
        return _bound(size)

    def _curvature(self, lam: float, size: int) -> FloatArray:
        with np.errstate(over="ignore", under="ignore"):
            curvature: FloatArray = 2.0 * lam ** np.arange(1.0, size + 1.0)
        return curvature

    def _value(self, theta: FloatArray, lam: float) -> float:
        return self.bend(theta, lam)[0]

    def _gradient(self, theta: FloatArray, lam: float) -> FloatArray:
        if lam == 0.0:
            return np.zeros(theta.size)
        with np.errstate(over="ignore", under="ignore", divide="ignore"):
            size = np.exp(math.log(2.0) + math.log(lam) * _places(theta.size) + np.log(np.abs(theta)))
        gradient: FloatArray = np.copysign(size, theta)
        return gradient

    def _units_vectors(self, size: int) -> tuple[FloatArray, ...]:
        return (_places(size),)

    @property
    def depends_on_strength(self) -> bool:
        return True

    def strength(self, rho: float, v: FloatArray) -> float:
        if rho >= 0.0:
            return 0.0
        there = v != 0.0
        places = _places(v.size)[there]
        logs = 2.0 * np.log(np.abs(v[there]))
        logs -= _log_sum(logs)[0]
        target = math.log(-0.5 * rho)
        # g(mu) = log sum exp(i mu + logs) - target is convex with slopes in [1, P]: Newton's method cannot fail.
        mu = 0.0
        for _ in range(_MAX_NEWTON):
            total, slope = _log_sum(places * mu + logs, places)
            step = (total - target) / slope
            mu -= step
            if abs(step) <= 2.0 * EPS * abs(mu):
                break
        largest = float(np.abs(logs).max())
        for allowance in (2.0**k for k in range(40)):
            error = 8.0 * EPS * (abs(mu) * v.size + largest + abs(target) + 64.0)
            below = mu - allowance * error
            if _log_sum(places * below + logs)[0] - target <= -error:
                return _exp_down(below)
        return 0.0

    def sufficient(self, h: float) -> float:
        if h <= 0.0:
            return 0.0
        if self._size is None:
            return max(0.5 * h, 1.0)
        # lam^i >= h/2 for all i.
        return math.exp(max(math.log(0.5 * h), math.log(0.5 * h) / self._size)) * (1.0 + 1e-12)

    def bend(self, d: FloatArray, lam: float) -> tuple[float, float]:
        there = d != 0.0
        if lam == 0.0 or not there.any():
            return 0.0, 0.0
        mu = math.log(lam)
        logs = 2.0 * np.log(np.abs(d[there]))
        total, _ = _log_sum(_places(d.size)[there] * mu + logs)
        if total > 709.0:
            return math.inf, math.inf
        value = math.exp(total)
        return value, value * 8.0 * EPS * (abs(mu) * d.size + float(np.abs(logs).max()) + 64.0)

    def scale(self, lam: float, size: int) -> FloatArray | None:
        exponents = -0.5 * math.log(lam) * _places(size)
        with np.errstate(under="ignore"):
            scale: FloatArray = np.exp(exponents - exponents.max())
        return scale

    def log_curvature(self, lam: float, size: int) -> FloatArray:
        with np.errstate(divide="ignore"):
            logs: FloatArray = math.log(2.0) + np.log(lam) * _places(size)
        return logs

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def _key(self) -> tuple[Any, ...]:
        return (self._size,)

    def __reduce__(self) -> tuple[Any, ...]:
        return _bound, (self._size,)

    def __repr__(self) -> str:
        return "GeometricL2()"


def _bound(size: int | None) -> GeometricL2:
    penalty = GeometricL2()
    penalty._set(_size=size)
    return penalty


def _places(size: int) -> FloatArray:
    return np.arange(1.0, size + 1.0)


def _log_sum(exponents: FloatArray, places: FloatArray | None = None) -> tuple[float, float]:
    """Return log sum exp of the exponents, and the mean of ``places`` under those weights (1 without places)."""
    top = float(exponents.max())
    with np.errstate(under="ignore"):
        terms = np.exp(exponents - top)
    total = float(terms.sum())
    return top + math.log(total), 1.0 if places is None else float(places @ terms) / total


def _exp_down(mu: float) -> float:
    """exp(mu), not above it; the largest float where it would overflow."""
    return math.exp(min(mu, 709.0)) * (1.0 - 4.0 * EPS)
