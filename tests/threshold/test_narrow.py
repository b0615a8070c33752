"""Starts from networks of few units: the map, the region it needs, and that quotients are those of the wide network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.threshold.narrow import narrow_region, narrowed, search_narrow
from pyhess.threshold.steps import conduct


@pytest.fixture(params=["standard", "ntk"])
def obj(request: pytest.FixtureRequest, problem: Any) -> ph.Objective:
    """A network with layers that are no multiples of each other."""
    base = problem([3, 7, 5, 2], "tanh", "cross_entropy")
    return ph.Objective(ph.MLP([3, 7, 5, 2], parametrization=request.param), base.data, loss="cross_entropy")


REGIONS = [
    ph.Box(-0.6, 0.6),
    ph.Box(-0.3, 0.8),
    ph.Ball(0.0, 1.4),
]


@pytest.mark.parametrize("region", REGIONS, ids=repr)
@pytest.mark.parametrize("weighted", [False, True])
def test_pairs_lie_in_the_region_and_have_their_quotients(obj: ph.Objective, region: ph.Region, weighted: bool) -> None:
    bound = region.bind(obj)
    scale = 1.0 / np.sqrt(np.random.default_rng(4).uniform(0.3, 3.0, obj.num_params)) if weighted else None
    flag = np.zeros(1, dtype=np.int32)
    found = conduct(search_narrow(obj, bound, scale, 16, np.random.default_rng(5), None, None, flag))
    assert [one.pairs[0][0].size for one in found] == [obj.num_params] * 4
    for one in found:
        assert not one.interrupted
        for (theta, v), value in zip(one.pairs, one.values, strict=True):
            assert np.abs(bound.project(theta) - theta).max() < 1e-12
            assert v is not None
            u = v if scale is None else v / scale
            assert obj.curvature(theta, v).q / (u @ u) == pytest.approx(value, rel=1e-4)
    assert min(one.values.min() for one in found) < -0.05


@pytest.mark.parametrize("lone", [False, True])
def test_every_point_of_the_narrow_region_is_one_of_the_wide(obj: ph.Objective, lone: bool) -> None:
    rng = np.random.default_rng(6)
    widening = narrowed(obj.net, 2, lone)
    assert widening is not None
    low = rng.uniform(-1.0, -0.1, obj.num_params)
    box = ph.Box(low, low + 1.5).bind(obj)
    for region in (box, ph.Ball(0.0, 0.9).bind(obj)):
        placed = narrow_region(widening, region)
        assert placed is not None
        kind, mid, half = placed
        for _ in range(20):
            x = rng.choice([-1.0, 1.0], mid.size)
            x = x if kind == 0 else x / np.linalg.norm(x)
            theta = widening.apply(mid + half * x)
            assert np.abs(region.project(theta) - theta).max() < 1e-12
        if kind == 0:  # and no more: some copy is at its end
            theta = widening.apply(mid + half)
            touches = np.isclose(theta, region.high, rtol=1e-12)
            assert np.bincount(widening.source, weights=touches, minlength=mid.size).all()


def test_no_narrow_network_where_there_is_none(problem: Any) -> None:
    obj = problem([3, 2, 2, 1], "tanh", "squared_error")
    assert narrowed(obj.net, 2) is None
    wide = problem([3, 6, 1], "tanh", "squared_error")
    widening = narrowed(wide.net, 2)
    assert widening is not None
    rng = np.random.default_rng(7)
    apart = ph.Ball(rng.standard_normal(wide.num_params), 0.5).bind(wide)
    assert narrow_region(widening, apart) is None
    corners = np.where(rng.random(wide.num_params) < 0.5, 0.2, -0.9)
    assert narrow_region(widening, ph.Box(corners, corners + 0.1).bind(wide)) is None
    # Searches do without, and with weights that are too different for alike units as well.
    for region, penalty in (
        (ph.Box(corners, corners + 0.1), ph.L2()),
        (ph.Box(-1.0, 1.0), ph.WeightedL2(10.0 ** rng.uniform(-8.0, 8.0, wide.num_params))),
    ):
        found = ph.search(wide, region, penalty=penalty, rng=8, starts=6)
        assert "narrow" not in found.families
        assert found.num_starts == 6


def test_rugged_landscapes_have_one_answer() -> None:
    rng = np.random.default_rng(9)
    X = rng.standard_normal((60, 3))
    data = ph.Dataset(X, np.sin(X @ np.array([1.0, -2.0, 0.5])))
    obj = ph.Objective(ph.MLP([3, 5, 5, 5, 5, 1]), data)
    found = ph.search(obj, ph.Box(-1.0, 1.0), rng=11, starts=8)
    assert found.best_family == "narrow"
    again = ph.search(obj, ph.Box(-1.0, 1.0), rng=12, starts=8)
    assert again.psi_upper == pytest.approx(found.psi_upper, rel=5e-3)
