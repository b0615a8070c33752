"""Certificates of fifty thousand data: the same as of the few they repeat, in bounded memory and time."""

from __future__ import annotations

import tracemalloc
from time import monotonic

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import joint, portfolio

COUNT = 50_000


def repeated(outputs: int, loss: str, widths: list[int], activation: str) -> tuple[ph.Objective, ph.Objective]:
    """The objective of ten data, and of each of them five thousand times: equal functions of theta."""
    rng = np.random.default_rng(321)
    x = rng.standard_normal((10, widths[0]))
    y = rng.standard_normal((10, outputs)) if loss == "squared_error" else rng.integers(0, max(2, outputs), 10)
    net = ph.MLP([*widths, outputs], activation)
    few, many = ph.Dataset(x, y), ph.Dataset(np.tile(x, (COUNT // 10, 1)), np.concatenate([y] * (COUNT // 10)))
    return ph.Objective(net, few, loss=loss), ph.Objective(net, many, loss=loss)


@pytest.mark.parametrize(
    ("outputs", "loss", "widths", "activation"),
    [
        (1, "squared_error", [2, 3], "tanh"),
        (3, "cross_entropy", [2, 2], "softplus"),
        (1, "logistic", [2, 2, 2], "gelu"),
        (2, "squared_error", [2, 2], "identity"),
    ],
)
def test_repeating_the_data_changes_nothing(
    outputs: int, loss: str, widths: list[int], activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint, "_UNITS", 0)  # the pieces there depend on the number of data
    monkeypatch.setattr(portfolio, "_MAX_CELLS", 2)
    few, many = repeated(outputs, loss, widths, activation)
    for region in (ph.Box(-0.2, 0.3), ph.Ball(radius=0.5)):
        methods = ["moment", "centre"] + (["blocks"] if len(widths) == 2 else [])
        for method in methods:
            one, other = (ph.certify(obj, region, method).psi_lower for obj in (few, many))
            assert other == pytest.approx(one, rel=1e-3, abs=1e-9)
        exact = [ph.certify(obj, region, "exact").psi_lower for obj in (few, many) if activation == "identity"]
        assert not exact or exact[1] == pytest.approx(exact[0], rel=1e-6)


def test_a_time_limit_and_the_memory_hold() -> None:
    _, obj = repeated(1, "squared_error", [2, 3], "tanh")
    region = ph.Box(-0.5, 0.5).bind(obj)
    tracemalloc.start()
    try:
        began = monotonic()
        found = ph.certify(obj, region, time_limit=1.0)
        seconds, (_, peak) = monotonic() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.isfinite(found.psi_lower) and "units" in found.table
    assert peak < 800e6 and seconds < 30.0
    for theta in region.sample(5, rng=3):
        assert found.psi_lower <= np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]
