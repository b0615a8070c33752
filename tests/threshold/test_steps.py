"""Several searches at once: the bits of each alone, whatever the company."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

import pyhess as ph
from pyhess import InputError
from pyhess.threshold.search import search, search_steps
from pyhess.threshold.steps import conduct_together


def _asked() -> list[tuple[Any, ...]]:
    """Objective, region, penalty and seed: two shapes, boxes and a ball, penalties of every strategy."""
    rng = np.random.default_rng(20265)
    data = ph.Dataset(rng.standard_normal((40, 3)), rng.standard_normal(40))
    narrow, deep = ph.Objective(ph.MLP([3, 4, 1]), data), ph.Objective(ph.MLP([3, 3, 3, 1], activation="softplus"), data)
    return [
        (narrow, ph.Box(-0.5, 0.5), None, 11),
        (narrow, ph.Box(-0.5, 0.5), None, 12),
        (deep, ph.Box(-0.8, 0.8), ph.GeometricL2(), 13),
        (narrow, ph.Ball(radius=1.5), ph.L2(penalize="weights"), 14),
        (narrow, ph.Ball(radius=1.5), ph.ShiftedL2(0.25), 15),
    ]


def _bits(found: Any) -> tuple[Any, ...]:
    return (
        found.psi_upper, found.theta.tobytes(), found.v.tobytes(), found.best_family, found.families, found.num_jets,
        found.num_matvecs, found.interrupted,
    )  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
def test_a_search_has_the_same_bits_in_any_company(threads: int) -> None:
    if threads > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("fewer cores than threads")
    asked = _asked()
    alone = [_bits(search(obj, region, penalty=penalty, rng=seed, starts=3)) for obj, region, penalty, seed in asked]
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        for order in (range(5), (4, 2, 0, 1)):
            found = conduct_together([search_steps(*asked[i], starts=3) for i in order])
            assert [_bits(one) for one in found] == [alone[i] for i in order]
    finally:
        numba.set_num_threads(before)


def test_an_error_and_an_end_stay_with_their_search() -> None:
    (obj, box, _, seed), *_ = _asked()
    cancelled = np.ones(1, dtype=np.int32)
    steps = [
        search_steps(obj, box, None, seed, starts=2), search_steps(obj, box, None, seed, -1.0, 2),
        search_steps(obj, box, None, seed, starts=2, cancel=cancelled),
    ]  # fmt: skip
    good, bad, ended = conduct_together(steps)
    assert _bits(good) == _bits(search(obj, box, rng=seed, starts=2))
    assert isinstance(bad, InputError) and "time_limit" in str(bad)
    assert not isinstance(ended, Exception) and ended.interrupted
