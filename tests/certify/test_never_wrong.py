"""No bound of any method is ever above an eigenvalue that some Hessian of the region has."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest

from pyhess.certify import portfolio, schedule

from .draws import bounds_of, draw, lowest_eigenvalue

#: A longer run: PYHESS_NEVER_WRONG_DRAWS=10000, with PYHESS_NEVER_WRONG_SEED to go on elsewhere.
DRAWS = int(os.environ.get("PYHESS_NEVER_WRONG_DRAWS", "40"))
SEED = int(os.environ.get("PYHESS_NEVER_WRONG_SEED", "211"))


@pytest.fixture
def _little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer boxes and cells: worse bounds, as valid, and faster tests."""
    monkeypatch.setattr(schedule, "_WORK", 2e6)
    monkeypatch.setattr(schedule, "_FEWEST", 2)
    monkeypatch.setattr(schedule, "_MOST", 12)
    monkeypatch.setattr(portfolio, "_MAX_CELLS", 6)


@pytest.mark.usefixtures("_little_work")
def test_no_bound_is_above_an_eigenvalue() -> None:
    methods: Counter[str] = Counter()
    for turn in range(DRAWS):
        rng = np.random.default_rng([SEED, turn])
        obj, region = draw(rng)
        region = region.bind(obj)
        bounds = bounds_of(obj, region)
        lowest = lowest_eigenvalue(obj, region, rng)
        for method, bound in bounds.items():
            methods[method] += int(bound > -np.inf)
            assert not bound > lowest, (SEED, turn, obj, region, method, bound, lowest)
        if DRAWS > 1000 and turn % 1000 == 999:
            print(f"{turn + 1} draws, bounds by method: {dict(methods)}", flush=True)
    expected = ("moment", "centre", "comparison", "deif", "blocks", "taylor", "boxes", "cells", "full", "linear")
    assert min(methods[name] for name in expected) > DRAWS // 100


@pytest.mark.usefixtures("_little_work")
@pytest.mark.parametrize("seed", [(20261129, 610)])
def test_cases_that_once_failed(seed: tuple[int, int]) -> None:
    """Ball of radius 1000, linear network: the multipliers of its bound ran out of the range of numbers."""
    rng = np.random.default_rng(list(seed))
    obj, region = draw(rng)
    region = region.bind(obj)
    assert max(bounds_of(obj, region).values()) <= lowest_eigenvalue(obj, region, rng)
