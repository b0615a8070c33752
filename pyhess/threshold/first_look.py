"""A first look at the network itself: a few starts, before narrower networks are searched and all starts are made.

Where one hidden layer is all there is, the best of four starts is often within a percent of the best of all; whoever watches
the progress, or has set a short time limit, has it after some ten milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels import descent
from ..objective import Objective
from .search_run import Effort, FloatArray, NativeRun
from .starts import sow
from .steps import Descent, Steps

#: Starts, those that go on, and what the two stages may do.
_COUNT, _BETTER = 4, 2
#: Starts until the first value is told.
_AT_ONCE = 2
_FIRST, _SECOND = Effort(60, 1e-4, vertex_steps=6, single=True), Effort(200, 1e-6, single=True)
#: Searches with fewer starts than this do without.
_LEAST_STARTS = 16


@dataclass(frozen=True)
class Early:
    """What was found before the search of all starts: pairs (theta, v) of the network, their families and quotients."""

    pairs: list[tuple[FloatArray, FloatArray | None]]
    names: list[str]
    values: FloatArray
    num_jets: int
    num_matvecs: int
    interrupted: bool  # by Ctrl-C or the caller's flag; not by the end of its share of the time


def first_look(
    obj: Objective, placed: tuple[int, FloatArray, FloatArray], scale: FloatArray | None, count: int, rng: np.random.Generator,
    deadline: float | None, progress: Callable[[dict[str, Any]], object] | None, cancel: npt.NDArray[np.int32],
) -> Steps[list[Early]]:  # fmt: skip
    """Explore a few starts; ``placed`` is (kind, mid, half), ``scale`` the diagonal of S, ``count`` the starts of the search."""
    if count < _LEAST_STARTS:
        return []
    kind, mid, half = placed
    zs, names = sow(obj, _COUNT, kind == descent.BALL, rng)
    run = NativeRun(obj, obj.engine.in_float64(), mid, half, zs, names, deadline, progress, cancel, kind=kind)
    run.scale, run.interrupted = scale, zs.shape[0] < _COUNT
    try:
        run.compile(_COUNT)
        for begin in range(0, _COUNT, _AT_ONCE):
            yield Descent(run, np.arange(begin, begin + _AT_ONCE), _FIRST, "first look")
        better = run.distinct(_BETTER)
        yield Descent(run, better, _SECOND, "first look, better ones")
    except KeyboardInterrupt:
        run.interrupted = True
    best = run.distinct(_BETTER)
    run.report("first look", _COUNT, _COUNT)
    pairs: list[tuple[FloatArray, FloatArray | None]] = [(run.theta(int(i)), run.direction(int(i))) for i in best]
    names = [names[int(i)] for i in best]
    return [Early(pairs, names, run.values[best], int(run.evals.sum()), run.matvecs, run.interrupted)]
