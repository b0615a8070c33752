"""The bounds of a region's cells by the methods that need no cutting, under their names."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from ..regions import Ball, Box
from .centre import centre_bounds, centre_of
from .intervals import Interval
from .matrices import comparison_bound, deif_bound, residual_enclosure
from .moment import moment_bound
from .propagate import Cell, point_cell
from .unit_blocks import block_bound

#: A lower bound of psi over a cell, or None if it was cancelled.
Bound = Callable[[Cell], float | None]


class WholeBounds:
    """For one region; ``makers`` prepare what all cells share, and are None if cancelled."""

    def __init__(self, obj: Objective, region: Box | Ball, stop: npt.NDArray[np.int32]) -> None:
        self._obj, self._region, self._stop = obj, region, stop
        self._enclosed: tuple[Cell, Interval] | None = None  # for both bounds that need it
        self.makers: dict[str, Callable[[], Bound | None]] = {
            "moment": lambda: self._moment,
            "centre": self._centre,
            "comparison": lambda: lambda cell: self._by_enclosure(cell, comparison_bound),
            "deif": lambda: lambda cell: self._by_enclosure(cell, deif_bound),
            "blocks": lambda: self._blocks,
        }

    def _moment(self, cell: Cell) -> float | None:
        obj = self._obj
        return moment_bound(cell, obj.data, obj.targets, obj.loss, self._stop)

    def _centre(self) -> Bound | None:
        obj, region = self._obj, self._region
        middle = region.center if isinstance(region, Ball) else 0.5 * region.low + 0.5 * region.high
        centre = centre_of(point_cell(obj.net, middle), obj.data, obj.targets, obj.loss, self._stop)
        if centre is None:
            return None

        def bound(cell: Cell) -> float | None:
            found = centre_bounds(cell, centre, obj.data, obj.targets, obj.loss, self._stop)
            return None if found is None else max(found)

        return bound

    def _blocks(self, cell: Cell) -> float | None:
        obj = self._obj
        return block_bound(cell, obj.data, obj.targets, obj.loss, self._stop)

    def _by_enclosure(self, cell: Cell, bound: Callable[[Interval], float]) -> float | None:
        obj = self._obj
        if self._enclosed is None or self._enclosed[0] is not cell:
            found = residual_enclosure(cell, obj.data, obj.targets, obj.loss, self._stop)
            self._enclosed = None if found is None else (cell, found)
        return None if self._enclosed is None else bound(self._enclosed[1])
