"""Certificates of fifty thousand data: the same as of the few they repeat, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import joint

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
    ("outputs", "loss", "widths", "activation", "methods"),
    [
        (1, "squared_error", [2, 3], "tanh", ["moment", "blocks"]),
        (3, "cross_entropy", [2, 2], "softplus", ["moment", "blocks"]),
        (1, "logistic", [2, 2, 2], "gelu", ["centre"]),
        (2, "squared_error", [2, 2], "identity", ["exact"]),
    ],
)
def test_repeating_the_data_changes_nothing(
    outputs: int, loss: str, widths: list[int], activation: str, methods: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint, "_UNITS", 0)  # the pieces there depend on the number of data
    few, many = repeated(outputs, loss, widths, activation)
    for method in methods:
        region = ph.Ball(radius=0.5) if method == "exact" else ph.Box(-0.2, 0.3)
        one, other = (ph.certify(obj, region, method).psi_lower for obj in (few, many))
        assert one < 0.0 and other == pytest.approx(one, rel=1e-3 if method == "blocks" else 1e-8)


def test_memory_stays_small() -> None:
    _, obj = repeated(1, "squared_error", [2, 3], "tanh")
    region = ph.Box(-0.5, 0.5).bind(obj)
    tracemalloc.start()
    try:
        found = [ph.certify(obj, region, "moment"), ph.certify(obj, region, "units", time_limit=0.5)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300e6
    for theta in region.sample(5, rng=3):
        lowest = np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]
        assert all(-np.inf < certificate.psi_lower <= lowest for certificate in found)
