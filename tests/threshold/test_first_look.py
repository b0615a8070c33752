"""The few starts that a search begins with, and what whoever watches sees of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import pyhess as ph


@pytest.fixture(scope="module")
def obj() -> ph.Objective:
    rng = np.random.default_rng(8)
    X = rng.standard_normal((60, 5))
    return ph.Objective(ph.MLP([5, 6, 1]), ph.Dataset(X, np.sin(X[:, 0]) - X[:, 1]), loss="squared_error")


def watched(obj: ph.Objective, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    seen: list[dict[str, Any]] = []
    return ph.search(obj, ph.Box(-1.0, 1.0), rng=9, progress=seen.append, **options), seen


def test_the_first_stage_looks_at_the_network_itself_and_the_best_never_rises(obj: ph.Objective) -> None:
    found, seen = watched(obj)
    first = [state for state in seen if state["stage"].startswith("search first look")]
    assert first and seen[: len(first)] == first
    assert math.isfinite(first[-1]["psi_upper"]) and first[-1]["psi_upper"] < 0.8 * found.psi_upper
    for key, sign in (("psi_upper", -1.0), ("seconds", 1.0)):
        values = [sign * state[key] for state in seen]
        assert values == sorted(values), key
    assert seen[-1]["psi_upper"] == pytest.approx(found.psi_upper, rel=1e-6)


def test_a_search_of_few_starts_does_without(obj: ph.Objective) -> None:
    _, seen = watched(obj, starts=4)
    assert not any("first look" in state["stage"] for state in seen)


def test_a_search_stopped_in_its_first_stage_answers_with_what_that_found(obj: ph.Objective) -> None:
    cancel = np.zeros(1, dtype=np.int32)
    values: list[float] = []

    def stop(state: dict[str, Any]) -> None:
        values.append(state["psi_upper"])
        cancel[0] = math.isfinite(state["psi_upper"])

    found = ph.search(obj, ph.Box(-1.0, 1.0), rng=9, progress=stop, cancel=cancel)
    assert found.interrupted and found.psi_upper <= min(values) * (1.0 - 1e-6)
    v = found.v
    assert found.psi_upper == pytest.approx(v @ obj.hvp(found.theta, v), rel=1e-9)
