"""The methods on one box or ball: first the bounds of the whole, then branch and bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from time import monotonic, perf_counter

import numpy as np
import numpy.typing as npt

from ..model import MLP
from ..objective import Objective
from ..regions import Ball, Box
from .allocation import worst_over_ball
from .boxes import (
    box_subdivision,
    boxes_apply,
    cell_costs,
    cell_subdivision,
    cells_apply,
    full_applies,
    full_subdivision,
)
from .certificate import Certificate, MethodResult
from .dense import dense_cost
from .limits import dense_seconds, raised_after, taylor_seconds
from .linear_networks import exact_linear
from .propagate import BallCells, whole_cell
from .schedule import Portfolio, goal_of
from .slabs import SlabSearch
from .subdivision import Limits, Progress
from .taylor import TaylorBound, taylor_bound
from .taylor_kinds import slabs_know, taylor_knows
from .texts import ROUNDING, WHAT, does_not_apply
from .unit_blocks import blocks_cost
from .units import UnitSearch, unit_bound_applies, unit_work
from .whole_bounds import Bound, WholeBounds

_DENSE, _SEARCHES = ("centre", "comparison", "deif"), ("slabs", "units", "boxes", "cells", "full")

#: ``auto`` computes the bounds that need whole matrices up to this many parameters and multiplications …
_DENSE_PARAMS, _DENSE_COST = 2000, 6e10
#: … and asked for by name they are computed up to this many parameters: several dense matrices.
DENSE_PARAMS_MAX = 8000
#: Cells that ``units`` looks at without a time limit, by the multiplications for one of them.
_UNIT_WORK, _UNIT_CELLS = 1e8, (256, 6000)
#: Its share of a limit, and that of the others where ``full`` is among them, which reaches any accuracy.
_UNIT_SHARE, _FULL_SHARE = 0.8, 0.9
#: Without and with ``units``: the share of ``slabs`` where others may be better, and how many times the witness's eigenvalue the
#: ball's bound may be. The slabs without a time limit.
_SLAB_SHARE, _SLAB_REACH, _SLABS = (0.8, 0.5), (50.0, 4.0), 8
#: Radii whose squares and third powers are numbers.
_RADII = 1e-100, 1e150
#: Cutting a ball into cells brings no bound closer to zero than by about this factor.
_CELLS_GAIN = 3.0
#: Multiplications that cutting a ball into cells may use (the joint bounds take most of them), and the number of cells.
_CELL_COST, _MAX_CELLS = 4e10, 200


class Run:
    """One certification on a box or ball: the methods' results so far."""

    def __init__(self, obj: Objective, region: Box | Ball, stop: npt.NDArray[np.int32], progress: Progress | None) -> None:
        self.obj = obj
        self.region = region
        self.stop = stop
        self.progress = progress
        self.whole = whole_cell(obj.net, region)
        self._has_powers = isinstance(region, Box) or _RADII[0] <= region.radius <= _RADII[1]
        self.table: dict[str, MethodResult] = {}
        #: Whether a time limit ended some of the work.
        self.out_of_time = False
        self.formula = ""
        self._portfolio: Portfolio | None = None
        self._taylor: TaylorBound | None = None
        self._slab_search: SlabSearch | None = None

    def roots(self, method: str, seconds: float | None) -> None:
        """Every method on the region as one cell; the best of them goes on to cut a ball into more."""
        deadline = math.inf if seconds is None else monotonic() + seconds
        with raised_after(self.stop, seconds) as late:
            self._roots(method, deadline)
        self.out_of_time |= bool(late[0])

    def _roots(self, method: str, deadline: float) -> None:
        if method in ("auto", "exact") and self._exact(asked=method == "exact"):
            return
        bounds: dict[str, Bound] = {}
        first = "taylor" if method == "slabs" else method
        needs = {
            "blocks": self.obj.net.num_layers == 2, "taylor": self._taylor_knows(), "slabs": self._taylor_knows(slabs_know)
        }  # fmt: skip
        # Branch and bound comes later; whether it applies is known now.
        if not needs.get(method, True) or (method in _SEARCHES and method not in self.searches()):
            raise does_not_apply(method)
        names = [first] if method != "auto" else self._auto()
        makers = WholeBounds(self.obj, self.region, self.stop).makers
        for name in (name for name in names if name in makers):
            if name in _DENSE and method == "auto" and not self._in_time(self._dense_seconds, deadline):
                continue
            self._record(name, lambda name=name: self._whole(name, makers[name], bounds))  # type: ignore[misc]
        if "taylor" in names and (method != "auto" or self._in_time(self._taylor_seconds, deadline)):
            self._record_taylor()
        if isinstance(self.region, Ball) and bounds:
            best = max(bounds, key=lambda name: self.table[name].psi_lower)
            taylor = self.table["taylor"].psi_lower if "taylor" in self.table else -math.inf
            if not taylor > self.table[best].psi_lower / _CELLS_GAIN:
                self._record(best, lambda: self._over_cells(best, bounds[best]))

    def _in_time(self, seconds: float, deadline: float) -> bool:
        """Whether what takes so long at the least may be finished; else it would hold up everything."""
        late = monotonic() + seconds > deadline
        self.out_of_time |= late
        return not late

    def _auto(self) -> list[str]:
        """The bounds of the whole region that are cheap enough."""
        blocks = self.obj.net.num_layers == 2 and blocks_cost(self.whole, self.obj.data.num_samples) <= _DENSE_COST
        dense, taylor = _DENSE if self._dense_is_cheap() else (), ["taylor"] if self._taylor_knows() else []
        return ["moment", *(["blocks"] if blocks else []), *dense, *taylor]

    def searches(self) -> list[str]:
        """The branch and bound methods that apply."""
        if "exact" in self.table:
            return []
        names = ["slabs"] if self._taylor_knows(slabs_know) else []
        names += ["units"] if self._has_powers and unit_bound_applies(self.obj, self.region) else []
        names += ["full"] if full_applies(self.obj) else []
        names += ["cells"] if cells_apply(self.obj, self.region) else []
        return [*names, "boxes"] if isinstance(self.region, Box) and boxes_apply(self.obj) else names

    def refine(self, method: str, time_limit: float | None, psi_upper: float | None) -> None:
        """Branch and bound by the method, or by all that apply."""
        applying = self.searches()
        if method != "auto" and method in _SEARCHES and method not in applying:
            raise does_not_apply(method)
        chosen = [name for name in applying if method in ("auto", name)]
        if not chosen or self.stop[0]:
            return
        began, boxes = monotonic(), [name for name in chosen if name not in ("slabs", "units")]

        def left(share: float) -> float | None:
            return None if time_limit is None else max(0.0, share * time_limit - (monotonic() - began))

        share = 1.0 if method == "slabs" else 0.0 if time_limit is None else self._slab_share(chosen, psi_upper)
        if "slabs" in chosen and share > 0.0:
            self._slabs(left(share), psi_upper)
            if share < 1.0 and "units" not in chosen and "slabs" in self.table and self.table["slabs"].psi_lower >= self._best():
                self._slabs(left(1.0), psi_upper)  # cells do not come near it
            if self._best() >= goal_of(psi_upper):
                return
        if "full" in boxes:
            # It may reach the witness's value, and then nothing is left for the others.
            self._over_boxes(boxes, left(_FULL_SHARE if "units" in chosen else 1.0), psi_upper)
            if "units" in chosen and self._best() < goal_of(psi_upper):
                self._units(left(1.0), psi_upper)
            return
        if "units" in chosen:
            self._units(left(_UNIT_SHARE if boxes else 1.0), psi_upper)
        if boxes:
            self._over_boxes(boxes, left(1.0), psi_upper)

    def _best(self) -> float:
        return max((row.psi_lower for row in self.table.values()), default=-math.inf)

    def _slab_share(self, others: list[str], psi_upper: float | None) -> float:
        """The share of time for cutting the ball: where its bound as a whole is not far off, as far as is known."""
        if "taylor" not in self.table or "full" in others:
            return 0.0
        known, reach, best = self.table["taylor"].psi_lower, _SLAB_REACH["units" in others], self._best()
        if known < (best if psi_upper is None else reach * min(psi_upper, 0.0)):
            return 0.0
        return _SLAB_SHARE["units" in others]

    def _slabs(self, time_limit: float | None, psi_upper: float | None) -> None:
        """Branch and bound over slabs of a ball; their number, and so the answer, is fixed where no time limit is."""
        if self.stop[0] or time_limit == 0.0 or self._taylor is None:
            return
        assert isinstance(self.region, Ball)
        if self._slab_search is None:
            self._slab_search = SlabSearch(self.obj, self.region, self._taylor, self.table["taylor"].seconds)
        search, began = self._slab_search, monotonic()
        limits = Limits(
            self.stop,
            goal_of(psi_upper),
            math.inf if time_limit is None else began + time_limit,
            max_cells=10**9 if time_limit is not None else search.cells + _SLABS,
        )
        try:
            search.run(limits, self._told("slabs"))
        finally:  # Ctrl-C keeps what is proved
            if search.cells:
                self.table["slabs"] = MethodResult(
                    search.psi_lower, search.seconds, search.cells, multipliers=search.multipliers()
                )
        self.out_of_time |= time_limit is not None and monotonic() - began >= time_limit

    def _over_boxes(self, names: list[str], time_limit: float | None, psi_upper: float | None) -> None:
        """Branch and bound over boxes or a ball's shares by several methods."""
        if self.stop[0] or time_limit == 0.0:
            return
        known = self._best()
        if time_limit is not None and self._moment_seconds > time_limit and known > -math.inf:
            self.out_of_time = True  # one cell would take longer
            return
        if self._portfolio is None:
            makers = {
                "full": lambda: full_subdivision(self.obj, self.region),
                "boxes": lambda: box_subdivision(self.obj, self.region),  # type: ignore[arg-type]
                "cells": lambda: cell_subdivision(self.obj, self.region),
            }
            self._portfolio = Portfolio({name: makers[name] for name in names}, cell_costs(self.obj))
        began = monotonic()
        try:
            self._portfolio.work(self.stop, time_limit, psi_upper, known, self.progress)
        finally:  # Ctrl-C keeps what is proved
            self.table.update(self._portfolio.table())
            self.out_of_time |= time_limit is not None and monotonic() - began >= time_limit

    def _exact(self, *, asked: bool) -> bool:
        """Look for a closed form; whether there is one."""
        began = perf_counter()
        value = exact_linear(self.obj, self.region, self.stop) if self._has_powers else None
        if value is not None:
            self.formula = value.formula
            self.table["exact"] = MethodResult(value.psi_lower, perf_counter() - began, 1)
        elif asked:
            raise does_not_apply("exact")
        return value is not None

    def _units(self, time_limit: float | None, psi_upper: float | None) -> None:
        """Branch and bound over one unit; the number of cells, and so the answer, is fixed where no time limit is."""
        if self.stop[0] or time_limit == 0.0:
            return
        began = monotonic()
        per_cell = unit_work(self.obj.net, self.obj.data.num_samples)
        most = 10**9 if time_limit is not None else int(np.clip(_UNIT_WORK / per_cell, *_UNIT_CELLS))
        deadline = math.inf if time_limit is None else began + time_limit
        search = UnitSearch(self.obj, self.region, self.stop)
        try:
            search.run(psi_upper, deadline, most, self._told("units"))
        finally:  # Ctrl-C keeps what is proved
            found = search.result()
            leaves = found.cover.leaves(self.obj, self.region)
            self.table["units"] = MethodResult(
                found.psi_lower, found.seconds, found.cells, leaves=leaves, multipliers=found.cover.joint
            )
        self.out_of_time |= time_limit is not None and monotonic() - began >= time_limit

    def _told(self, method: str) -> Progress:
        """What tells of a method's progress."""

        def tell(state: dict[str, object]) -> None:
            if self.progress is not None:
                self.progress({"stage": "certificate", "method": method, **state})

        return tell

    def _record(self, name: str, method: Callable[[], tuple[float, int] | None]) -> None:
        if self.stop[0]:
            return
        began = perf_counter()
        found = method()
        value, cells = (-math.inf, 0) if found is None else found
        row = MethodResult(-math.inf if math.isnan(value) else float(value), perf_counter() - began, cells)
        before = self.table.get(name)
        if before is not None:
            row = MethodResult(max(row.psi_lower, before.psi_lower), row.seconds + before.seconds, max(row.cells, before.cells))
        self.table[name] = row

    def _whole(self, name: str, make: Callable[[], Bound | None], bounds: dict[str, Bound]) -> tuple[float, int] | None:
        bound = make()
        value = None if bound is None else bound(self.whole)
        if bound is None or value is None:
            return None
        bounds[name] = bound
        return value, 1

    def _over_cells(self, name: str, bound: Bound) -> tuple[float, int] | None:
        net, region = self.obj.net, self.region
        assert isinstance(region, Ball)
        samples = self.obj.data.num_samples
        cost = 600.0 * samples * net.num_params + (300.0 * blocks_cost(self.whole, samples) if name == "blocks" else 0.0)
        if name in ("comparison", "deif"):
            cost = 30.0 * dense_cost(self.whole, samples)
        max_cells = int(np.clip(_CELL_COST / cost, 4, _MAX_CELLS))
        make = BallCells(net, region)
        return worst_over_ball(lambda radii: bound(make(radii)), net.num_layers, region.radius, max_cells)

    def _taylor_knows(self, knows: Callable[[MLP, str, int], bool] = taylor_knows) -> bool:
        """Whether the Taylor polynomial's bound, or that over slabs, is for this problem."""
        obj = self.obj
        return isinstance(self.region, Ball) and self._has_powers and knows(obj.net, obj.loss, obj.data.num_samples)

    def _record_taylor(self) -> None:
        """The Taylor polynomial's bound, with the multipliers that prove it."""
        region, known = self.region, self._best()
        before = self.table.get("taylor")
        multipliers = None if before is None else before.multipliers

        def found() -> tuple[float, int] | None:
            nonlocal multipliers
            assert isinstance(region, Ball)
            new = taylor_bound(self.obj, region, known, self.stop)
            if new is None:
                return None
            self._taylor = new
            if before is None or new.psi_lower > before.psi_lower:
                multipliers = new.multipliers
            return new.psi_lower, 1

        self._record("taylor", found)
        if "taylor" in self.table:
            self.table["taylor"] = replace(self.table["taylor"], multipliers=multipliers)

    @property
    def _moment_seconds(self) -> float:
        """Seconds that the moment bound took for the whole region."""
        return self.table["moment"].seconds if "moment" in self.table else 0.0

    @property
    def _dense_seconds(self) -> float:
        return dense_seconds(self.obj.net, self.obj.data.num_samples)

    @property
    def _taylor_seconds(self) -> float:
        return taylor_seconds(self.obj.net, self.obj.loss, self.obj.data.num_samples)

    def _dense_is_cheap(self) -> bool:
        cost = dense_cost(self.whole, self.obj.data.num_samples)
        return self.obj.num_params <= _DENSE_PARAMS and cost <= _DENSE_COST

    def certificate(self) -> Certificate:
        finished = {name: row for name, row in self.table.items() if row.psi_lower > -math.inf}
        if not finished:
            statement = (
                "the bounds overflow on this region"
                if self.table and not self.stop[0] and not self.out_of_time
                else "stopped before any bound was finished"
            )
            return Certificate("none", -math.inf, self.table, ROUNDING, statement, self.obj, self.region)
        method = max(finished, key=lambda name: finished[name].psi_lower)
        row = finished[method]
        almost = "almost-everywhere " if "relu" in self.obj.net.activations else ""
        cells = f", worst of {row.cells} cells" if row.cells > 1 else ""
        what = f"{WHAT[method]}: {self.formula}" if method == "exact" else WHAT[method]
        how = f"{what}{cells}; rounded outwards"
        statement = f"no {almost}Hessian on the region has an eigenvalue below {row.psi_lower:.7g} ({how})"
        return Certificate(method, row.psi_lower, self.table, ROUNDING, statement, self.obj, self.region)
