"""The stages of a search for one fixed S, wave after wave of starts.

A wave explores its starts in float32, goes on with the better ones, changes the best of all waves so far and lets those descend
again, and brings the best few to an end in float64, Lanczos steps included. So there is a finished answer soon, and every wave
may improve it.
"""

from __future__ import annotations

import numpy as np

from .search_run import Effort, IntArray, Run
from .starts import copied
from .steps import Descent, Steps

#: The waves, as shares of the starts that have begun at their ends.
_WAVES = (0.125, 0.25, 0.5, 1.0)
_FIRST = Effort(60, 1e-4, vertex_steps=6, single=True)
#: The better part of a wave goes on.
_SECOND, _SECOND_SHARE = Effort(200, 1e-6, single=True), 0.25
#: In place of starts that were given up, the best distinct points so far are changed at random and descend again.
_HOP, _HOP_SHARE, _HOPS = Effort(200, 1e-6, single=True), 0.125, 10
#: Of networks with more layers than this the best point then has units copied over others, so many points in a row and in all so
#: many times the number of starts, until that has not helped for a part of them: what is best with equally many units of each
#: kind, or with one alone, is better with other numbers of them. Other changes hardly ever help there.
_DEEP_LAYERS, _COPIES, _COPY_SHARE, _PATIENCE, _GAIN = 3, 8, 4.0, 1.5, 1e-5
#: At the end of a wave the best few descend once more, and the best one gets its best direction.
_CLOSE, _CLOSE_COUNT = Effort(200, 1e-8, flips=100, single=True), 4
#: At the end of the search, in float64.
_LAST, _LAST_COUNT = Effort(800, 1e-12, flips=100), 2
_ROUNDS = 3  # of Lanczos for v and renewed descent
#: Starts whose last round gained as much as this go on: deep networks have long curved valleys, a tenth of the value deep.
_VALLEY, _VALLEY_ROUNDS, _VALLEY_GAIN = Effort(6400, 1e-12), 5, 1e-4
#: Evaluations the stages spend per start, on average.
EVALS_PER_START = _FIRST.evals + _SECOND_SHARE * _SECOND.evals + _HOPS * _HOP_SHARE * _HOP.evals


def explore(run: Run, rng: np.random.Generator) -> Steps[None]:
    """All waves, from the first starts to the last Lanczos step."""
    yield from scout(run, rng)
    if run.obj.net.num_layers > _DEEP_LAYERS:
        yield from polish(run, run.distinct(_CLOSE_COUNT), rng)
        yield from copy_units(run, rng)
    yield from polish(run, finalists(run), rng)


def scout(run: Run, rng: np.random.Generator) -> Steps[None]:
    """All waves: the best values are those of float32, next to their minima."""
    count, begin = run.values.size, 0
    for number, share in enumerate(_WAVES, start=1):
        end = max(min(count, 4), int(np.ceil(share * count)))
        if end == begin or run.stopped():
            continue
        wave, name = np.arange(begin, end), f"wave {number}/{len(_WAVES)}"
        yield Descent(run, wave, _FIRST, f"{name}, starts")
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


def copy_units(run: Run, rng: np.random.Generator) -> Steps[None]:
    """Change the best point by copying units, again and again."""
    count = run.values.size
    rounds, patience = (max(1, int(np.ceil(share * count / _COPIES))) for share in (_COPY_SHARE, _PATIENCE))
    best, since = float(run.values.min()), 0
    for number in range(1, rounds + 1):
        if since == patience or run.stopped():
            break
        tried = run.hop(rng, count, min(_COPIES, count - 1), 1, copied)
        yield Descent(run, tried, _HOP, f"copies {number}/{rounds}")
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
