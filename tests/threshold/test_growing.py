"""Starts that grow with the region, in deep networks."""

from __future__ import annotations

import numpy as np
import pytest

import pyhess as ph
from pyhess.kernels import descent
from pyhess.threshold import explore
from pyhess.threshold.search_run import NativeRun
from pyhess.threshold.starts import sow


def growing_run(count: int, kind: int) -> NativeRun:
    rng = np.random.default_rng(103)
    data = ph.Dataset(rng.standard_normal((9, 2)), rng.standard_normal(9))
    obj = ph.Objective(ph.MLP([2, 2, 2, 2, 1]), data)
    size = obj.num_params
    zs, names = sow(obj, count, kind == descent.BALL, rng)
    flag = np.zeros(1, dtype=np.int32)
    return NativeRun(obj, obj.engine, np.full(size, 0.1), np.full(size, 1.5), zs, names, None, None, flag, kind=kind)


@pytest.mark.parametrize("kind", [descent.BOX, descent.BALL])
@pytest.mark.parametrize("ended_after", [0, 1, 5, None])
def test_values_belong_to_their_points_whenever_growing_ends(kind: int, ended_after: int | None) -> None:
    run = growing_run(9, kind)
    whole, size, reached, best = run.half.copy(), run.size, [], np.full(9, np.inf)
    joins = np.array([0.1, 0.3, 1.0] * 3)
    for number, asked in enumerate(explore.grow(run, np.arange(9), joins, explore._GROW, "test")):
        if number == ended_after:
            run.interrupted = True
        asked.run.descend(asked.tasks, asked.effort, asked.stage)
        reached.append(float(asked.run.half[0]))
        best = np.minimum(best, run.values)
    assert np.array_equal(run.half, whole)
    assert len(reached) == (17 if ended_after is None else ended_after + 1)
    assert reached[0] == pytest.approx(0.15)
    for start in np.flatnonzero(np.isfinite(run.values)):
        theta, v = run.theta(int(start)), run.direction(int(start))
        x = (theta - 0.1) / 1.5
        assert (np.linalg.norm(x) if kind == descent.BALL else np.abs(x).max()) <= 1.0 + 1e-12
        assert run.obj.curvature(theta, v).q / float(v @ v) == pytest.approx(run.values[start], rel=1e-6, abs=1e-9)
    if ended_after is not None:
        assert np.array_equal(run.values, best)  # nothing found is lost
    assert size == run.zs.shape[1] // 2


def test_growing_reaches_what_descents_in_the_whole_region_do_not() -> None:
    """Box of half-width 2, four hidden layers: most valleys there are shallow."""
    rng = np.random.default_rng(77)
    X = rng.standard_normal((50, 3))
    data = ph.Dataset(X, np.sin(2.0 * X[:, 0]) + X[:, 1] * X[:, 2])
    obj = ph.Objective(ph.MLP([3, 2, 2, 2, 2, 1]), data)
    size, best = obj.num_params, {}
    for grown in (False, True):
        zs, names = sow(obj, 60, False, np.random.default_rng(107))
        run = NativeRun(
            obj, obj.engine, np.zeros(size), np.full(size, 2.0), zs, names, None, None, np.zeros(1, dtype=np.int32),
            kind=descent.BOX,
        )  # fmt: skip
        joins = np.full(60, 0.1 if grown else 1.0)
        for asked in explore.grow(run, np.arange(60), joins, explore.Effort(60 if grown else 17 * 60, 1e-4), "test"):
            asked.run.descend(asked.tasks, asked.effort, asked.stage)
        best[grown] = float(np.median(np.sort(run.values)[:6]))
    assert best[True] < 2.0 * best[False] < 0.0
