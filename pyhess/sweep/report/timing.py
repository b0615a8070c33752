"""How well the plan's prediction of the time was, and the cells that a time limit cut short."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .cells import BoolArray, Cells, FloatArray, IntArray
from .fits import PowerFit, power_fit

#: Points of the scatter that are drawn.
MOST_POINTS = 3000
#: Of these, so many of the largest deviations either way.
_EXTREMES = 50


@dataclass(frozen=True)
class Timing:
    """Predicted against measured seconds of finished cells.

    Attributes
    ----------
    cells : (M,) array
        Finished cells with both times.
    predicted, seconds : (M,) arrays
    limited : (M,) array of bool
        Those that a time limit cut short: drawn, but not part of the fit and the ratios.
    fit : PowerFit or None
        seconds = prefactor · predicted^exponent.
    ratios : (3,) array
        Quantiles 0.1, 0.5 and 0.9 of seconds / predicted.
    within_two : float
        Share of cells within a factor of two of the median ratio.
    drawn : (D,) array
        Places in ``cells`` that are drawn.
    """

    cells: IntArray
    predicted: FloatArray
    seconds: FloatArray
    limited: BoolArray
    fit: PowerFit | None
    ratios: FloatArray
    within_two: float
    drawn: IntArray


def timing_of(cells: Cells) -> Timing:
    """Compare."""
    predicted, seconds = cells.number("predicted_seconds"), cells.number("seconds")
    places = np.flatnonzero(cells.done & (predicted > 0.0) & (seconds > 0.0))
    predicted, seconds, limited = predicted[places], seconds[places], cells.limited[places]
    free = ~limited
    ratio = seconds[free] / predicted[free]
    quantiles = np.quantile(ratio, [0.1, 0.5, 0.9]) if ratio.size else np.full(3, np.nan)
    near = np.abs(np.log(ratio / quantiles[1])) <= np.log(2.0)
    return Timing(
        cells=places,
        predicted=predicted,
        seconds=seconds,
        limited=limited,
        fit=power_fit(predicted[free], seconds[free]),
        ratios=quantiles,
        within_two=float(near.mean()) if near.size else np.nan,
        drawn=_drawn(predicted, seconds),
    )


def _drawn(predicted: FloatArray, seconds: FloatArray) -> IntArray:
    """All, or the largest deviations and the rest evenly by predicted time."""
    count = len(predicted)
    if count <= MOST_POINTS:
        return np.arange(count)
    by_ratio = np.argsort(seconds / predicted, kind="stable")
    by_time = np.lexsort((seconds, predicted))
    even = by_time[np.linspace(0, count - 1, MOST_POINTS - 2 * _EXTREMES).round().astype(np.int64)]
    return np.unique(np.concatenate((by_ratio[:_EXTREMES], by_ratio[-_EXTREMES:], even)))
