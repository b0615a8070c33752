"""Which branch and bound method gets the time: the one that promises the best bound in the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from time import monotonic

import numpy as np
import numpy.typing as npt

from .certificate import MethodResult
from .subdivision import Limits, Progress, Subdivision

#: Relative distance to the witness's eigenvalue at which a bound is as good as exact.
_CLOSE = 4e-7
#: Slices a time limit is divided into, and the share of the gap that the rest of the time must promise to close to go on.
_SLICES, _WORTHWHILE = 16, 0.004
#: Share of the time that a slice may take at most, where a shorter one does not suffice for a round of boxes.
_LONGEST = 0.25
#: Multiplications (intervals) without a time limit; a method for which they give fewer cells than this is left out.
_WORK, _FEWEST, _MOST = 2e7, 32, 20000


def goal_of(psi_upper: float | None) -> float:
    """The bound that is as good as exact for a witness's eigenvalue; zero if there is none, or none below zero."""
    return 0.0 if psi_upper is None or psi_upper >= 0.0 else psi_upper - _CLOSE * abs(psi_upper)


class Portfolio:
    """Branch and bound methods that take turns."""

    def __init__(self, makers: Mapping[str, Callable[[], Subdivision]], costs: Mapping[str, float]) -> None:
        self._makers, self._costs = makers, costs
        self._searches: dict[str, Subdivision] = {}

    def table(self) -> dict[str, MethodResult]:
        """The methods' results so far."""
        return {
            name: MethodResult(search.psi_lower, search.seconds, search.cells, search.cover())
            for name, search in self._searches.items()
        }

    def work(
        self,
        stop: npt.NDArray[np.int32],
        time_limit: float | None,
        psi_upper: float | None,
        known: float,
        progress: Progress | None,
    ) -> None:
        """Go on until the bound reaches ``psi_upper``, time is up, or a fixed amount of work is done."""
        goal = goal_of(psi_upper)
        if known >= goal:
            return
        deadline = math.inf if time_limit is None else monotonic() + time_limit
        for name, make in self._makers.items():
            if name not in self._searches and not Limits(stop, deadline=deadline).expired():
                self._searches[name] = make()
        if time_limit is None:
            for name, search in self._searches.items():
                cells = int(min(_WORK / self._costs[name], _MOST))
                if cells >= _FEWEST:
                    search.run(Limits(stop, goal, max_cells=search.cells + cells), _named(progress, name))
                if search.psi_lower >= goal:
                    return
            return
        self._race(stop, deadline, time_limit, goal, known, progress)

    def _race(
        self, stop: npt.NDArray[np.int32], deadline: float, limit: float, goal: float, known: float, progress: Progress | None
    ) -> None:
        piece = limit / _SLICES
        rates: dict[str, float] = {}
        first: dict[str, float] = {}
        while self._searches and not Limits(stop, deadline=deadline).expired():
            left = deadline - monotonic()
            best = max(known, *(search.psi_lower for search in self._searches.values()))
            promise = {name: search.psi_lower + rates.get(name, math.inf) * left for name, search in self._searches.items()}
            name = max(promise, key=lambda name: promise[name])
            gap = (goal - best) if goal < 0.0 else abs(best)
            if promise[name] <= best + _WORTHWHILE * gap:
                return
            search = self._searches[name]
            before, cells, began = search.psi_lower, search.cells, monotonic()
            end = min(deadline, began + piece)
            search.run(Limits(stop, goal, end), _named(progress, name))
            if search.psi_lower >= goal:
                return
            if search.cells == cells and monotonic() >= end and piece < _LONGEST * limit:
                piece *= 2.0  # a round that is not finished is lost
                continue
            # The gain slows down as boxes get smaller: half the rate is what is to be expected. It may rest for a while where
            # many boxes are alike, so the rate since the beginning counts as well.
            latest = (search.psi_lower - before) / max(monotonic() - began, 1e-3)
            since = (search.psi_lower - first.setdefault(name, before)) / max(search.seconds, 1e-3)
            rates[name] = 0.5 * max(latest, since) if search.cells > cells else 0.0
            if math.isnan(rates[name]):
                rates[name] = math.inf


def _named(progress: Progress | None, name: str) -> Progress | None:
    if progress is None:
        return None
    return lambda state: progress({"stage": "certificate", "method": name, **state})
