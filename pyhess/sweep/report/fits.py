"""Medians and quartiles of groups, and power laws through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .cells import FloatArray, IntArray

#: Of the confidence intervals.
LEVEL = 0.95


def group_quantiles(values: FloatArray, groups: IntArray, count: int, shares: Sequence[float]) -> FloatArray:
    """Quantiles of every group, linear between order statistics as in `numpy.quantile`; infinite values count as largest.

    Parameters
    ----------
    values : (N,) array
        NaN values are left out.
    groups : (N,) integer array
        The group of each value, from 0 to ``count - 1``.
    count : int
        Number of groups G.
    shares : sequence of Q floats

    Returns
    -------
    (G, Q) array
        NaN for a group without values.

    Examples
    --------
    >>> import numpy as np
    >>> from pyhess.sweep.report.fits import group_quantiles
    >>> group_quantiles(np.array([3.0, 1.0, np.inf]), np.array([0, 0, 2]), 3, [0.5])
    array([[ 2.],
           [nan],
           [inf]])
    """
    kept = ~np.isnan(values)
    values, groups = values[kept], groups[kept]
    order = np.lexsort((values, groups))
    values, groups = values[order], groups[order]
    sizes = np.bincount(groups, minlength=count)
    begins = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    out = np.full((count, len(shares)), np.nan)
    some = sizes > 0
    for i, share in enumerate(shares):
        place = share * (sizes[some] - 1)
        low = np.floor(place).astype(np.int64)
        part = place - low
        first = values[begins[some] + low]
        second = values[begins[some] + np.minimum(low + 1, sizes[some] - 1)]
        with np.errstate(invalid="ignore"):
            between = first + part * (second - first)
        out[some, i] = np.where(part == 0.0, first, np.where(np.isinf(second), second, between))
    return out


@dataclass(frozen=True)
class PowerFit:
    """y = prefactor · x^exponent by least squares of logarithms, with the interval of the exponent (NaN for two points)."""

    exponent: float
    low: float
    high: float
    prefactor: float
    r_squared: float
    points: int

    def at(self, x: npt.ArrayLike) -> FloatArray:
        """The fitted values."""
        return self.prefactor * np.asarray(x, dtype=np.float64) ** self.exponent


def power_fit(x: npt.ArrayLike, y: npt.ArrayLike) -> PowerFit | None:
    """Fit log y = log c + b log x through the points that are positive and finite; None where fewer than two x remain.

    The interval of b is Student's, ``b ± t_(n-2) · s / sqrt(sum (log x - mean)²)`` with ``s² = sum residual² / (n-2)``: it holds
    the scatter of the points and the misfit of the law alike.

    Examples
    --------
    >>> from pyhess.sweep.report.fits import power_fit
    >>> round(power_fit([1.0, 2.0, 4.0], [3.0, 6.0, 12.0]).exponent, 12)
    1.0
    """
    from scipy.special import stdtrit

    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    kept = (x > 0.0) & (y > 0.0) & np.isfinite(x) & np.isfinite(y)
    if not kept.any() or np.ptp(x[kept]) == 0.0:
        return None
    u, w = np.log(x[kept]), np.log(y[kept])
    n, spread = len(u), float(np.sum((u - u.mean()) ** 2))
    slope = float(np.sum((u - u.mean()) * (w - w.mean()))) / spread
    residual = w - w.mean() - slope * (u - u.mean())
    total = float(np.sum((w - w.mean()) ** 2))
    wide = np.nan if n < 3 else float(stdtrit(n - 2, 0.5 + 0.5 * LEVEL) * np.sqrt(np.sum(residual**2) / (n - 2) / spread))
    return PowerFit(
        exponent=slope,
        low=slope - wide,
        high=slope + wide,
        prefactor=float(np.exp(w.mean() - slope * u.mean())),
        r_squared=1.0 if total == 0.0 else 1.0 - float(np.sum(residual**2)) / total,
        points=n,
    )
