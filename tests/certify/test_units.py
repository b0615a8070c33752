"""The unit-wise bounds against eigenvalues that a descent finds, and what a search by cells must keep to."""

from __future__ import annotations

import itertools
import math
from time import monotonic
from typing import Any

import numba
import numpy as np
import pytest

import pyhess as ph
from pyhess.certify.units import UnitSearch, unit_bound, unit_bound_applies

from .conftest import random_objective, random_region


def lowest_found(obj: ph.Objective, region: Any, rng: np.random.Generator, starts: int = 2) -> float:
    """The smallest eigenvalue that a projected gradient descent from each of a few samples finds."""
    lowest = np.inf
    for theta in region.sample(starts, rng=rng):
        value, v = lowest_pair(obj, theta)
        slope = obj.curvature(theta, v).grad
        step = 1.0 / (float(np.linalg.norm(slope)) + 1e-300)
        for _ in range(30):
            moved = region.project(theta - step * slope)
            below, w = lowest_pair(obj, moved)
            if below < value:
                theta, value, v, step = moved, below, w, 2.0 * step
                slope = obj.curvature(theta, v).grad
            else:
                step *= 0.25
        lowest = min(lowest, value)
    return lowest


def lowest_pair(obj: ph.Objective, theta: np.ndarray) -> tuple[float, np.ndarray]:
    values, vectors = np.linalg.eigh(obj.hessian(theta).to_dense())
    return float(values[0]), vectors[:, 0].copy()


def small(loss: str = "squared_error", width: int = 4, outputs: int = 1, activation: str = "tanh", seed: int = 5) -> ph.Objective:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((10, 2))
    y: Any = rng.standard_normal(10) if loss == "squared_error" else rng.integers(0, max(outputs, 2), 10)
    return ph.Objective(ph.MLP([2, width, outputs], activation), ph.Dataset(x, y), loss=loss)


def test_never_above_what_a_descent_finds() -> None:
    rng = np.random.default_rng(81)
    for _ in range(30):
        obj = random_objective(rng, depth=1)
        region = random_region(rng, obj.num_params).bind(obj)
        found = lowest_found(obj, region, rng)
        bound = unit_bound(obj, region, max_cells=150)
        assert bound is not None
        assert bound.psi_lower <= found + 1e-12 * (1.0 + abs(found)), (obj, region, bound.psi_lower, found)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "gelu", "identity"])
def test_extreme_problems(activation: str) -> None:
    rng = np.random.default_rng(82)
    x = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    y = np.array([1.0, 1.0, -1.0])
    center = 3.0 * rng.standard_normal(13)
    for inputs, targets, region in (
        (x, y, ph.Ball(center, 1e-12)),
        (x, y, ph.Box(-40.0, 40.0)),
        (x, 1e6 * y, ph.Box(-1.0, 1.0)),
        (1e-160 * x, y, ph.Box(-1.0, 1.0)),
        (x[:1], y[:1], ph.Ball(radius=1e3)),
        (1e3 * x, y, ph.Ball(radius=5.0)),
        (x, y, ph.Box.around(1e3 * center, 1e-9)),
    ):
        obj = ph.Objective(ph.MLP([2, 3, 1], activation, beta=20.0), ph.Dataset(inputs, targets))
        bound_region = region.bind(obj)
        bound = unit_bound(obj, bound_region, max_cells=60)
        assert bound is not None
        found = lowest_found(obj, bound_region, rng)
        assert bound.psi_lower <= found + 1e-12 * (1.0 + abs(found)), (activation, region, bound.psi_lower, found)


def test_tight_on_small_boxes() -> None:
    obj = small(width=8)
    for radius, ratio, cells in ((0.3, 1.03, 40_000), (0.1, 1.01, 10_000)):
        region = ph.Box(-radius, radius).bind(obj)
        found = lowest_found(obj, region, np.random.default_rng(84), starts=8)
        bound = unit_bound(obj, region, psi_upper=found, max_cells=cells, deadline=monotonic() + 60.0)
        assert bound is not None
        assert 1.0 - 1e-9 <= bound.psi_lower / found <= ratio


def test_better_than_the_bounds_of_the_whole_region() -> None:
    for obj, region in (
        (small("cross_entropy", outputs=3), ph.Box(-1.0, 1.0)),
        (small("logistic"), ph.Box(-1.0, 1.0)),
        (small(width=8), ph.Ball(0.7 * np.random.default_rng(9).standard_normal(33), 0.3)),
    ):
        bound = unit_bound(obj, region.bind(obj), max_cells=4000)
        assert bound is not None
        others = [ph.certify(obj, region, method).psi_lower for method in ("moment", "centre", "comparison", "deif")]
        assert bound.psi_lower > max(others)


def test_the_same_for_every_number_of_threads() -> None:
    obj, before = small(), numba.get_num_threads()
    results = []
    try:
        for threads in (1, min(2, before)):
            numba.set_num_threads(threads)
            found = unit_bound(obj, ph.Ball(radius=0.7).bind(obj), max_cells=600)
            assert found is not None
            results.append((found.psi_lower, found.cells, found.cover.cells.tobytes(), found.cover.bounds.tobytes()))
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


def test_bounds_only_improve_and_the_end_can_be_asked_for() -> None:
    obj = small()
    region = ph.Box(-0.5, 0.5).bind(obj)
    seen: list[dict[str, float]] = []
    full = unit_bound(obj, region, psi_upper=-1e-9, max_cells=3000, progress=seen.append)
    assert full is not None and not full.finished
    bounds = [report["psi_lower"] for report in seen]
    assert len(bounds) > 3 and all(a <= b for a, b in itertools.pairwise(bounds))
    assert bounds[-1] == full.psi_lower == full.cover.bounds.min()

    stop = np.zeros(1, dtype=np.int32)

    def cancel(report: dict[str, float]) -> None:
        stop[0] = report["cells"] > 200

    short = unit_bound(obj, region, psi_upper=-1e-9, max_cells=100_000, stop=stop, progress=cancel)
    assert short is not None and short.cells < 3000 and short.psi_lower <= full.psi_lower
    late = unit_bound(obj, region, deadline=monotonic() - 1.0)
    assert late is not None and late.cells <= 16
    stop[0] = 1
    at_once = unit_bound(obj, region, stop=stop)
    assert at_once is not None and at_once.psi_lower == -np.inf


def test_the_cells_cover_every_unit() -> None:
    obj = small()
    region = ph.Box(-0.5, 0.5).bind(obj)
    found = unit_bound(obj, region, max_cells=500)
    assert found is not None
    cover, rng = found.cover, np.random.default_rng(83)
    for root in range(len(cover.starts.types)):
        low, high = cover.starts.cells[root]
        for point in rng.uniform(low, high, (50, len(low))):
            inside = (cover.cells[:, 0] <= point) & (point <= cover.cells[:, 1])
            assert (inside.all(axis=1) & (cover.roots == root)).any()


def test_where_it_does_not_apply() -> None:
    data = ph.Dataset([[0.5], [1.0]], [1.0, -1.0])
    for net in (ph.MLP([1, 1]), ph.MLP([1, 2, 2, 1]), ph.MLP([1, 2, 1], "relu")):
        obj = ph.Objective(net, data)
        assert not unit_bound_applies(obj, ph.Box(-1.0, 1.0).bind(obj))
        assert unit_bound(obj, ph.Box(-1.0, 1.0).bind(obj)) is None


def test_an_interrupt_keeps_the_cells_cut_so_far() -> None:
    """Wherever it comes; one within a round leaves the cover as it was before."""
    obj = small()
    region = ph.Box(-0.5, 0.5).bind(obj)
    search = UnitSearch(obj, region, np.zeros(1, dtype=np.int32))
    search.run(None, math.inf, 500, None)
    before, bound = search.result(), search.task.bound

    class Broken:
        def bound(self, *arguments: Any) -> Any:
            raise KeyboardInterrupt

    search.task = Broken()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        search.run(None, math.inf, 2000, None)
    after = search.result()
    assert after.psi_lower == before.psi_lower and (after.cover.bounds == before.cover.bounds).all()
    search.task.bound = bound  # type: ignore[method-assign]
    search.run(None, math.inf, 2000, None)
    assert search.result().psi_lower > before.psi_lower
