"""The stages of a search for one fixed S: all starts, fewer, hops from the best, and Lanczos steps at the end."""

from __future__ import annotations

import numpy as np

from .search_run import HOP_EVALS, HOP_FRACTION, IntArray, Run

#: (fraction of the starts that go on, evaluations each may use, relative gain per step below which a start has stalled)
_STAGES = ((1.0, 60, 1e-4), (0.25, 200, 1e-6))
_HOPS = 6
_FINAL_FRACTION, _FINAL_EVALS, _FINAL_TOL = 0.03125, 800, 1e-12
_ROUNDS = 3  # of Lanczos for v and renewed descent
#: Evaluations the stages spend per start, on average.
EVALS_PER_START = (
    sum(fraction * count for fraction, count, _ in _STAGES) + _HOPS * HOP_FRACTION * HOP_EVALS + _FINAL_FRACTION * _FINAL_EVALS
)


def explore(run: Run, rng: np.random.Generator) -> None:
    """All stages, from the starts to the last Lanczos step."""
    count = run.values.size
    for number, (fraction, max_evals, tol) in enumerate(_STAGES, start=1):
        tasks = np.argsort(run.values, kind="stable")[: int(np.ceil(fraction * count))]
        run.descend(tasks, max_evals, tol, f"search {number}/{len(_STAGES)}")
    for number in range(1, _HOPS + 1):
        run.hop(rng, f"hop {number}/{_HOPS}")
    tasks = finalists(run)
    run.descend(tasks, _FINAL_EVALS, _FINAL_TOL, "polish")
    polish(run, tasks, rng)


def finalists(run: Run) -> IntArray:
    """The best distinct starts, few enough for the last stages."""
    return run.distinct(int(np.ceil(_FINAL_FRACTION * run.values.size)) + 1)


def polish(run: Run, tasks: IntArray, rng: np.random.Generator) -> None:
    """Lanczos for the direction and renewed descent in turn, while that helps."""
    for number in range(1, _ROUNDS + 1):
        before = run.values[tasks].copy()
        for start in tasks:
            run.best_direction(int(start), rng)
        run.descend(tasks, _FINAL_EVALS, _FINAL_TOL, f"polish {number}/{_ROUNDS}")
        # Only starts that still move, or that are about to be the answer, are worth another round.
        moving = run.values[tasks] < before - 1e-9 * np.abs(before)
        tasks = tasks[moving]
        if run.interrupted or tasks.size == 0:
            break
