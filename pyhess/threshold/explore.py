"""The stages of a search for one fixed S, wave after wave of starts.

A wave explores its starts in float32, goes on with the better ones, changes the best of all waves so far and lets those descend
again, and brings the best few to an end in float64, Lanczos steps included. So there is a finished answer soon, and every wave
may improve it.
"""

from __future__ import annotations

import numpy as np

from .search_run import Effort, FloatArray, IntArray, NativeRun, Run
from .starts import FAMILIES
from .steps import Descent, Steps

#: The waves, as shares of the starts that have begun at their ends.
_WAVES = (0.125, 0.25, 0.5, 1.0)
_FIRST = Effort(60, 1e-4, vertex_steps=6, single=True)
#: The better part of a wave goes on.
_SECOND, _SECOND_SHARE = Effort(200, 1e-6, single=True), 0.25
#: With more layers than this starts grow with the region: they descend in the region shrunk about its middle, and then, moved out
#: with it, in larger ones. In small regions the network is nearly linear and has few valleys, which lead on to the deepest ones.
#: Starts join in turn at these factors.
DEEP_LAYERS = 3
_GROW, _JOINS, _GROWTHS = Effort(60, 1e-4, single=True), (0.1, 0.2, 0.4), 17
#: In place of starts that were given up, the best distinct points so far are changed at random and descend again.
_HOP, _HOP_SHARE, _HOPS = Effort(200, 1e-6, single=True), 0.125, 10
#: Of these networks the best points of all are changed so many at a time, until some rounds in a row gained nothing. The changed
#: ones grow again from one of these factors: in the whole region they would fall back into the valley they came from.
_CHANGED, _AGAIN, _PATIENCE, _MOST_ROUNDS, _GAIN = 32, (0.3, 0.45, 0.6, 0.8, 1.0), 6, 20, 1e-4
#: At the end of a wave the best few descend once more, and the best one gets its best direction.
_CLOSE, _CLOSE_COUNT = Effort(200, 1e-8, flips=100, single=True), 4
#: At the end of the search, in float64.
_LAST, _LAST_COUNT = Effort(800, 1e-12, flips=100), 2
_ROUNDS = 3  # of Lanczos for v and renewed descent
#: Starts whose last round gained as much as this go on: deep networks have long curved valleys, a tenth of the value deep.
_VALLEY, _VALLEY_ROUNDS, _VALLEY_GAIN = Effort(6400, 1e-12), 5, 1e-4


def evals_per_start(num_layers: int) -> float:
    """Evaluations that the stages spend per start, on average; those that grow seldom use all they may."""
    first = 0.5 * _GROWTHS * _GROW.evals if num_layers > DEEP_LAYERS else _FIRST.evals
    return first + _SECOND_SHARE * _SECOND.evals + _HOPS * _HOP_SHARE * _HOP.evals


def explore(run: Run, rng: np.random.Generator) -> Steps[None]:
    """All waves, from the first starts to the last Lanczos step."""
    yield from scout(run, rng)
    if run.obj.net.num_layers > DEEP_LAYERS:
        yield from polish(run, run.distinct(_CLOSE_COUNT), rng)
        yield from change_best(run, rng)
    yield from polish(run, finalists(run), rng)


def scout(run: Run, rng: np.random.Generator) -> Steps[None]:
    """All waves: the best values are those of float32, next to their minima."""
    count, begin = run.values.size, 0
    for number, share in enumerate(_WAVES, start=1):
        end = max(min(count, 4), int(np.ceil(share * count)))
        if end == begin or run.stopped():
            continue
        wave, name = np.arange(begin, end), f"wave {number}/{len(_WAVES)}"
        yield from begin_with(run, wave, name)
        better = wave[np.argsort(run.values[wave], kind="stable")[: int(np.ceil(_SECOND_SHARE * wave.size))]]
        yield Descent(run, better, _SECOND, f"{name}, better ones")
        for hop in range(1, _HOPS + 1):
            changed = run.hop(rng, end, int(np.ceil(_HOP_SHARE * wave.size)))
            yield Descent(run, changed, _HOP, f"{name}, hop {hop}/{_HOPS}")
        best = run.distinct(_CLOSE_COUNT)
        yield Descent(run, best, _CLOSE, f"{name}, best ones")
        for start in best[:1]:
            run.best_direction(int(start), rng)
        begin = end


def begin_with(run: Run, wave: IntArray, name: str) -> Steps[None]:
    """The first descents of a wave's starts."""
    if run.obj.net.num_layers > DEEP_LAYERS and isinstance(run, NativeRun):
        fresh = np.array([run.names[start] in FAMILIES and not np.isfinite(run.values[start]) for start in wave])
        yield from grow(run, wave[fresh], np.array(_JOINS)[wave[fresh] % len(_JOINS)], _GROW, name)
        wave = wave[~fresh]
    yield Descent(run, wave, _FIRST, f"{name}, starts")


def grow(run: Run, tasks: IntArray, joins: FloatArray, last: Effort, name: str) -> Steps[None]:
    """Descend in regions that grow up to the whole one, each start from its factor ``joins`` on.

    Where the search ends meanwhile, the better of what was and is stays.
    """
    size, whole, previous = run.size, run.half, np.ones(run.values.size)
    if not isinstance(run, NativeRun):
        joins = np.ones(tasks.size)  # other regions do not shrink
    for factor in np.geomspace(_JOINS[0], 1.0, _GROWTHS):
        joined = tasks[joins <= factor * (1.0 + 1e-9)]
        zs, values, finished = run.zs[joined], run.values[joined], False
        run.zs[joined, :size] /= previous[joined, None]
        run.values[joined], run.half = np.inf, factor * whole
        try:
            yield Descent(run, joined, _GROW if factor < 1.0 else last, f"{name}, growing")
            finished = not run.stopped()
        finally:
            run.zs[joined, :size] *= factor
            run.half = whole
            if not finished:
                better = values <= run.values[joined]
                run.zs[joined[better]], run.values[joined[better]] = zs[better], values[better]
        if not finished:
            return
        previous[joined] = factor


def change_best(run: Run, rng: np.random.Generator) -> Steps[None]:
    """Change the best points at random and let them grow again, while that helps."""
    best, since = float(run.values.min()), 0
    for number in range(1, _MOST_ROUNDS + 1):
        if since == _PATIENCE or run.stopped():
            break
        tried = run.hop(rng, run.values.size, min(_CHANGED, run.values.size - 1))
        yield from grow(run, tried, rng.choice(_AGAIN, tried.size), _HOP, f"changes {number}")
        now = float(run.values.min())
        since = 0 if now < best - _GAIN * abs(best) else since + 1
        best = min(best, now)


def finalists(run: Run) -> IntArray:
    """The best distinct starts, few enough for the last stages."""
    return run.distinct(_LAST_COUNT)


def polish(run: Run, tasks: IntArray, rng: np.random.Generator) -> Steps[None]:
    """Descent to the end, then Lanczos for the direction and renewed descent in turn, while that helps."""
    yield Descent(run, tasks, _LAST, "last")
    for number in range(1, _ROUNDS + _VALLEY_ROUNDS + 1):
        before = run.values[tasks].copy()
        for start in tasks:
            run.best_direction(int(start), rng)
        # Only starts that still move, or that are about to be the answer, are worth another round.
        tasks = tasks[run.values[tasks] < before - 1e-9 * np.abs(before)]
        if run.interrupted or tasks.size == 0:
            break
        before = run.values[tasks].copy()
        yield Descent(run, tasks, _LAST if number <= _ROUNDS else _VALLEY, f"last {number}")
        if number >= _ROUNDS:
            tasks = tasks[run.values[tasks] < before - _VALLEY_GAIN * np.abs(before)]
