"""Starts from a narrower network: its search is cheap, and its units duplicated are points of the wide one.

The lowest points of a network tend to have layers of few different units. Those of a network with two units a layer are points
T theta of the wide one (widening.py), with T linear and one entry a row. In the norm |Tv| of the wide network its quotient is
v'Hv / sum_i w_i v_i², w_i = sum of the squares of column i of T: the same search with v = S u, S_i = w_i^(-1/2). Either every
unit stands for equally many of the wide layer, or all but one are lone units and that one stands for all the others: where
activations do not vanish at zero, or a ball's radius has to be shared, one unit unlike the rest finds lower points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ..kernels import descent
from ..model import MLP
from ..objective import Objective
from ..regions import Ball, Box, Region
from .explore import scout
from .first_look import Early
from .search_run import FloatArray, NativeRun
from .starts import sow
from .steps import Steps
from .widening import carried, even_copies, lone_copies

#: Units that every hidden layer of the narrow networks has at most, and whether all but one are lone. Two suffice for odd
#: activations more often than not; where units differ in more than a sign, four find lower points.
_KINDS = ((2, False), (2, True), (4, False), (4, True))
#: The best of so many starts are carried over.
_SHARE = 16
_MOST_CARRIED = 16
#: Starts for each kind, by those of the wide network: the deeper a network, the more rugged is its landscape. By hidden layers,
#: the last for that many and more.
_STARTS = {1: (1.0, 0.5, 0.5, 0.25), 2: (1.5, 1.0, 1.0, 0.5), 3: (3.0, 1.5, 1.5, 1.5)}
#: So many at most are searched together, and then others by themselves: after some dozen hops a population stays with its best
#: few, which are the best of all less than every second time. In deep networks more and smaller ones do better.
_POPULATION = {1: 128, 2: 128, 3: 48}
#: Smallest ratio of the entries of S for which units are duplicated.
_LEAST_SCALE = 1e-6
#: At least; searches that are smaller still do without lone units.
_LEAST_STARTS = 2
#: Of a time limit, for each.
_TIME_SHARE = 0.16
#: For the next search of the same network, its maps and the objectives of narrow networks are kept, if they are as small as this.
_KEPT_PARAMS, _KEPT_BYTES = 2**16, 2**24

T = TypeVar("T")

_narrow_objectives: WeakKeyDictionary[Objective, dict[MLP, Objective]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Widening:
    """The map T from a narrow network's parameters: row j has the entry ``factor[j]`` in column ``source[j]``."""

    net: MLP
    source: npt.NDArray[np.int64]
    factor: FloatArray

    @property
    def size(self) -> int:
        """Columns."""
        return self.net.num_params

    def apply(self, vector: FloatArray) -> FloatArray:
        """T x (P,)."""
        wide: FloatArray = self.factor * vector[self.source]
        return wide

    def weights(self, scale: FloatArray | None) -> FloatArray:
        """The squared length of column i of S^-1 T."""
        squares = self.factor**2 if scale is None else (self.factor / scale) ** 2
        sums: FloatArray = np.bincount(self.source, weights=squares, minlength=self.size).astype(np.float64)
        return sums


def narrowed(net: MLP, most: int, lone: bool = False) -> Widening | None:
    """The map from the network with at most so many units a hidden layer; None if that is the network itself."""
    return (_narrowed_again if net.num_params <= _KEPT_PARAMS else _narrowed)(net, most, lone)


def _narrowed(net: MLP, most: int, lone: bool) -> Widening | None:
    hidden = [min(width, most) for width in net.widths[1:-1]]
    widths = [net.widths[0], *hidden, net.widths[-1]]
    if widths == list(net.widths):
        return None
    small = MLP(
        widths, activation=list(net.activations), beta=list(net.betas), bias=net.bias, parametrization=net.parametrization
    )
    copied = lone_copies if lone else even_copies
    factor = carried(small, net, np.ones(small.num_params), copied)
    source = np.rint(carried(small, net, np.arange(small.num_params, dtype=np.float64), copied) / factor).astype(np.int64)
    return Widening(small, source, factor)


_narrowed_again = lru_cache(maxsize=16)(_narrowed)


def narrow_region(widening: Widening, region: Region) -> tuple[int, FloatArray, FloatArray] | None:
    """(kind, mid, half) of the theta with T theta in a box or a ball, theta = mid + half x; None where there are none."""
    source, factor, size = widening.source, widening.factor, widening.size
    if isinstance(region, Box):
        low, high = np.full(size, -np.inf), np.full(size, np.inf)
        np.maximum.at(low, source, region.low / factor)
        np.minimum.at(high, source, region.high / factor)
        return None if (low > high).any() else (descent.BOX, 0.5 * (low + high), 0.5 * (high - low))
    assert isinstance(region, Ball)
    weights = widening.weights(None)
    mid = np.bincount(source, weights=factor * region.center, minlength=size) / weights
    if not np.allclose(widening.apply(mid), region.center, rtol=1e-12, atol=1e-12 * float(region.radius)):
        return None
    return descent.BALL, mid, float(region.radius) / np.sqrt(weights)


def search_narrow(
    obj: Objective, region: Region, scale: FloatArray | None, count: int, rng: np.random.Generator, time_limit: float | None,
    progress: Callable[[dict[str, Any]], object] | None, cancel: npt.NDArray[np.int32],
) -> Steps[list[Early]]:  # fmt: skip
    """Search networks of few units a layer, if there are any that are narrower than this and fit the region.

    ``scale`` is the diagonal of S in the wide network, ``count`` the number of its starts. ``cancel`` is left as it is.
    """
    found: list[Early] = []
    if scale is not None and not scale.min() > _LEAST_SCALE * scale.max():
        return found  # coordinates count too differently for units to be alike
    shares = _of_depth(_STARTS, obj.net)
    for (most, lone), share in zip(_KINDS, shares, strict=True):
        if lone and share * count < _LEAST_STARTS:
            continue
        widening = narrowed(obj.net, most, lone)
        placed = None if widening is None else narrow_region(widening, region)
        if widening is None or placed is None or any(one.interrupted for one in found):
            continue
        limit = None if time_limit is None else _TIME_SHARE * time_limit
        starts = max(_LEAST_STARTS, round(share * count))
        found.append((yield from _search_one(obj, widening, placed, scale, starts, rng.spawn(1)[0], limit, progress, cancel)))
    return found


def _of_depth(table: dict[int, T], net: MLP) -> T:
    """The entry for that many hidden layers, the last one for more."""
    return table[min(max(1, net.num_layers - 1), max(table))]


def _objective(net: MLP, obj: Objective) -> Objective:
    """That of a narrow network on the same data."""
    known = _narrow_objectives.get(obj, {})
    if net in known:
        return known[net]
    made = Objective(net, obj.data, obj.loss)
    if obj.plan.total_bytes <= _KEPT_BYTES:
        _narrow_objectives.setdefault(obj, {})[net] = made
    return made


def _search_one(
    obj: Objective, widening: Widening, placed: tuple[int, FloatArray, FloatArray], scale: FloatArray | None, count: int,
    rng: np.random.Generator, limit: float | None, progress: Callable[[dict[str, Any]], object] | None,
    cancel: npt.NDArray[np.int32],
) -> Steps[Early]:  # fmt: skip
    kind, mid, half = placed
    small = _objective(widening.net, obj)
    flag = np.zeros(1, dtype=np.int32)  # of its own: at the end of its share of the time it is set

    def tell(counters: dict[str, Any]) -> None:
        flag[0] |= cancel[0]
        if progress is not None:
            progress({**counters, "stage": counters["stage"].replace("search", "search narrow", 1)})

    deadline = None if limit is None else monotonic() + limit
    runs: list[NativeRun] = []
    most_together = _of_depth(_POPULATION, small.net)
    populations = max(1, round(count / most_together))
    while len(runs) < populations and not any(run.interrupted for run in runs):
        size = min(count, most_together)
        zs, names = sow(small, size, kind == descent.BALL, rng)
        run = NativeRun(small, small.engine, mid, half, zs, names, deadline, tell, flag, kind=kind)
        run.scale, run.interrupted = 1.0 / np.sqrt(widening.weights(scale)), zs.shape[0] < size
        runs.append(run)
        try:
            run.compile(zs.shape[0])
            yield from scout(run, rng)
        except KeyboardInterrupt:
            run.interrupted = True
    in_time = deadline is None or monotonic() < deadline
    most = min(max(4, count // _SHARE), _MOST_CARRIED)
    ends = [(float(run.values[i]), run, int(i)) for run in runs for i in run.distinct(most)]
    best = sorted(ends, key=lambda end: end[0])[:most]
    pairs: list[tuple[FloatArray, FloatArray | None]] = [
        (widening.apply(run.theta(i)), widening.apply(run.direction(i))) for _, run, i in best
    ]
    return Early(
        pairs, ["narrow"] * len(best), np.array([value for value, _, _ in best]), sum(int(run.evals.sum()) for run in runs),
        sum(run.matvecs for run in runs), any(run.interrupted for run in runs) and in_time,
    )  # fmt: skip
