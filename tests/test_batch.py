"""Batches over theta: the same bits as one theta after the other, for any number of threads, in either form."""

from __future__ import annotations

import numba
import numpy as np
import pytest

import pyhess as ph
from pyhess.errors import InputError, NonFiniteError

NETS = [([5, 7, 4, 3], "tanh", "cross_entropy"), ([40, 30, 1], "gelu", "logistic"), ([3, 2], "tanh", "squared_error")]


def problem(widths: list[int], activation: str, loss: str, dtype: str = "float64", samples: int = 700) -> ph.Objective:
    rng = np.random.default_rng(83)
    x = rng.standard_normal((samples, widths[0]))
    y = {
        "cross_entropy": rng.integers(widths[-1], size=samples),
        "logistic": rng.integers(2, size=samples),
        "squared_error": rng.standard_normal((samples, widths[-1])),
    }[loss]
    return ph.Objective(ph.MLP(widths, activation if len(widths) > 2 else "tanh"), ph.Dataset(x, y), loss, dtype)


def vectors(obj: ph.Objective, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(89)
    thetas, vs = rng.standard_normal((2, count, obj.num_params))
    return 0.5 * thetas, vs


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("widths", "activation", "loss"), NETS)
def test_batches_have_the_bits_of_single_calls(widths: list[int], activation: str, loss: str, dtype: str) -> None:
    obj = problem(widths, activation, loss, dtype)
    thetas, vs = vectors(obj)
    lins = obj.linearize_batch(thetas)
    assert np.array_equal(lins.values, [obj.value(theta) for theta in thetas])
    singles = [obj.hvp(theta, v) for theta, v in zip(thetas, vs, strict=True)]
    assert np.array_equal(obj.hvp_batch(thetas, vs), singles)
    assert np.array_equal(lins.hvp(vs), singles)
    assert np.array_equal(lins.ggn_vp(vs), [obj.ggn_vp(theta, v) for theta, v in zip(thetas, vs, strict=True)])
    for jets in (obj.curvature_batch(thetas, vs), lins.curvature(vs)):
        for s, (theta, v) in enumerate(zip(thetas, vs, strict=True)):
            single = obj.curvature(theta, v)
            assert jets.q[s] == single.q  # type: ignore[index]
            assert np.array_equal(jets.hv[s], single.hv)
            assert np.array_equal(jets.grad[s], single.grad)


def test_the_same_bits_for_any_number_of_threads() -> None:
    obj = problem([30, 40, 10], "tanh", "cross_entropy", samples=3000)
    assert obj.engine.num_chunks > 1
    thetas, vs = vectors(obj, 9)
    before = numba.get_num_threads()
    results = []
    for count in range(1, min(4, numba.config.NUMBA_NUM_THREADS) + 1):
        numba.set_num_threads(count)
        try:
            results.append((obj.hvp_batch(thetas, vs), obj.curvature_batch(thetas, vs).grad))
        finally:
            numba.set_num_threads(before)
    for hv, grad in results[1:]:
        assert np.array_equal(hv, results[0][0])
        assert np.array_equal(grad, results[0][1])


def test_a_linearized_batch_keeps_its_own_thetas() -> None:
    obj = problem(*NETS[0])
    thetas, vs = vectors(obj)
    lins = obj.linearize_batch(thetas)
    before = lins.hvp(vs)
    thetas[:] = 0.0
    assert np.array_equal(lins.hvp(vs), before)


def test_bad_batches() -> None:
    obj = problem(*NETS[0])
    thetas, vs = vectors(obj)
    with pytest.raises(InputError, match=r"thetas has shape \(\d+,\); allowed is \(S, \d+\)"):
        obj.curvature_batch(thetas[0], vs)
    with pytest.raises(InputError, match="must be equal"):
        obj.linearize_batch(thetas).curvature(vs[:3])
    thetas[2, 3] = np.nan
    with pytest.raises(InputError, match=r"thetas\[2, 3\] is nan"):
        obj.linearize_batch(thetas)
    flat = problem([3, 2], "tanh", "squared_error")
    with pytest.raises(NonFiniteError, match="the loss"):
        flat.linearize_batch(np.full((2, flat.num_params), 1e200))
