"""The bound by the form in pairs of units, which networks of few parameters do not get by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess._threads import blas_single_thread
from pyhess.certify.taylor import TaylorBound, taylor_bound
from pyhess.certify.taylor_kinds import _MAX_PARAMS
from pyhess.certify.taylor_pair_proof import proved_by_pairs

from .conftest import trained, trained_problem

GO_ON = np.zeros(1, dtype=np.int32)
Array = np.ndarray


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with blas_single_thread():
        yield


def _bound(obj: ph.Objective, theta: Array, radius: float) -> TaylorBound:
    found = taylor_bound(obj, ph.Ball(theta, radius).bind(obj), -np.inf, GO_ON)
    assert found is not None and found.multipliers is not None and found.multipliers.by_units
    return found


def _lowest(obj: ph.Objective, theta: Array, radius: float) -> float:
    """Of the ball's Hessians, as far as a search and descents of v'H v find it."""
    rng = np.random.default_rng(3169)
    lowest = ph.search(obj, ph.Ball(theta, radius), rng=3181, starts=4).psi_upper
    for _ in range(6):
        delta = rng.standard_normal(theta.size)
        for _ in range(5):
            delta *= radius / np.linalg.norm(delta)
            values, vectors = np.linalg.eigh(obj.hessian(theta + delta).to_dense())
            lowest, v, h = min(lowest, float(values[0])), vectors[:, 0], 1e-3 * radius
            moved = [[v @ obj.hessian(theta + delta + s * h * e).to_dense() @ v for s in (1, -1)] for e in np.eye(theta.size)]
            delta = -np.array([after - before for after, before in moved])
    return lowest


@pytest.mark.parametrize(
    ("widths", "options"), [([2, 3, 1], {}), ([1, 3, 2], {"activation": "sigmoid", "bias": False, "parametrization": "ntk"})]
)
def test_the_bound_is_nearly_that_of_dense_multipliers(
    widths: list[int], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3187)
    x = rng.standard_normal((20, widths[0]))
    y = np.tanh(x @ rng.standard_normal((widths[0], widths[-1]))) + 0.1 * rng.standard_normal((20, widths[-1]))
    obj = ph.Objective(ph.MLP(widths, **options), ph.Dataset(x, y))
    theta = trained(obj, rng)
    dense = _bound(obj, theta, 0.05)
    monkeypatch.setitem(_MAX_PARAMS, "units", -1)
    pairs = _bound(obj, theta, 0.05)
    assert pairs.moment is None and dense.moment is not None
    lowest = _lowest(obj, theta, 0.05)
    assert pairs.psi_lower <= lowest < 0.0 and dense.psi_lower <= lowest
    assert 1.25 * dense.psi_lower <= pairs.psi_lower <= 0.8 * dense.psi_lower
    # On the smallest balls it is the eigenvalue at the centre.
    least = float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0])
    scale = float(np.linalg.norm(obj.hessian(theta).to_dense(), 2))
    tiny = _bound(obj, theta, 1e-6)
    assert least - 1e-4 * abs(least) - 1e-5 * scale < tiny.psi_lower <= least + 1e-12 * scale


def test_it_can_be_cancelled_and_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_MAX_PARAMS, "units", -1)
    obj, theta = trained_problem(3203, [2, 2, 1])
    region = ph.Ball(theta, 0.05).bind(obj)
    assert taylor_bound(obj, region, -np.inf, np.ones(1, dtype=np.int32)) is None
    whole = _bound(obj, theta, 0.05).psi_lower
    stop, proofs = np.zeros(1, dtype=np.int32), []

    def once(*args: Any) -> float:
        stop[0] = 1
        proofs.append(proved_by_pairs(*args))
        return proofs[-1]

    monkeypatch.setattr("pyhess.certify.taylor.proved_by_pairs", once)
    found = taylor_bound(obj, region, -np.inf, stop)
    assert found is not None and [found.psi_lower] == proofs and -np.inf < found.psi_lower <= whole
    # Without a proof it has nothing.
    stop[0] = 0

    def failed(*_: Any) -> float:
        stop[0] = 1
        return -np.inf

    monkeypatch.setattr("pyhess.certify.taylor.proved_by_pairs", failed)
    assert taylor_bound(obj, region, -np.inf, stop) is None
    # A ball that is much too large is given up.
    far = taylor_bound(obj, ph.Ball(theta, 2.0).bind(obj), -1e-3, GO_ON)
    assert far is not None and far.psi_lower == -np.inf and far.multipliers is None
