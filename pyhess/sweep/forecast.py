"""How long it will still take, by predicted cost rather than by the number of cells: a few cells take most of the time."""

from __future__ import annotations

import math
from bisect import insort

#: Ratios of the latest cells that count.
_KEPT = 400


class Forecast:
    """Learns the ratio of measured to predicted seconds while cells finish."""

    def __init__(self, ratio: float | None = None) -> None:
        self._logs: list[float] = []
        self._order: list[float] = []
        self._prior = 0.0 if ratio is None or not ratio > 0.0 else math.log(ratio)

    def add(self, predicted: float, seconds: float) -> None:
        """A cell that took ``seconds``."""
        if not (predicted > 0.0 and seconds > 0.0):
            return
        value = math.log(seconds / predicted)
        if len(self._order) == _KEPT:
            self._logs.remove(self._order.pop(0))
        self._order.append(value)
        insort(self._logs, value)

    def quantile(self, share: float) -> float:
        """A quantile of the ratio."""
        if not self._logs:
            return math.exp(self._prior)
        return math.exp(self._logs[min(len(self._logs) - 1, int(share * len(self._logs)))])

    @property
    def ratio(self) -> float:
        """Seconds per predicted second, the median."""
        return self.quantile(0.5)

    def eta(self, predicted_left: float, longest_chain: float, workers: int) -> tuple[float, float]:
        """Seconds until the end, from to: all workers busy and nothing but a chain of cells that wait for each other."""

        def at(ratio: float) -> float:
            return ratio * max(predicted_left / workers, longest_chain)

        if not self._logs:
            return at(0.5 * self.ratio), at(2.0 * self.ratio)
        return at(self.quantile(0.25)), at(self.quantile(0.9))
