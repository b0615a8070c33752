"""Trace, Frobenius norm and density of eigenvalues against dense matrices."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import pyhess as ph

Array = np.ndarray[Any, Any]


def problem(dtype: str = "float64") -> tuple[ph.Objective, Array]:
    rng = np.random.default_rng(20263201)
    data = ph.Dataset(rng.standard_normal((30, 3)), rng.standard_normal(30))
    obj = ph.Objective(ph.MLP([3, 6, 1]), data, dtype=dtype)
    return obj, obj.net.init(rng=11)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_exact_with_as_many_probes_as_parameters(dtype: str) -> None:
    obj, theta = problem(dtype)
    tolerance = 1e-12 if dtype == "float64" else 1e-4
    for A in (obj.hessian(theta), obj.gauss_newton(theta)):
        dense = A.to_dense()
        found, norm = ph.trace(A, 100, rng=7), ph.frobenius_norm(A, A.shape[0], rng=7)
        assert found.value == pytest.approx(np.trace(dense), rel=tolerance) == float(found)
        assert norm.value == pytest.approx(np.linalg.norm(dense), rel=tolerance)
        assert found.stderr == norm.stderr == 0.0 and found.num_matvecs == norm.num_matvecs == A.shape[0]


def test_standard_errors_tell_the_truth() -> None:
    obj, theta = problem()
    H = obj.hessian(theta)
    dense = H.to_dense()
    truth, norm = np.trace(dense), np.linalg.norm(dense)
    traces = [ph.trace(H, 12, rng=seed) for seed in range(100, 300)]
    norms = [ph.frobenius_norm(H, 12, rng=seed) for seed in range(100, 300)]
    for found, value, bias in ((traces, truth, 0.0), (norms, norm, 0.05 * norm)):
        values, errors = np.array([one.value for one in found]), np.array([one.stderr for one in found])
        assert abs(values.mean() - value) < 4.0 * values.std() / np.sqrt(200) + bias
        assert 0.8 < np.sqrt((errors**2).mean()) / values.std() < 1.25
    off_diagonal = 2.0 * (np.sum(dense**2) - np.sum(np.diag(dense) ** 2)) / 12
    assert np.std([one.value for one in traces]) == pytest.approx(np.sqrt(off_diagonal), rel=0.2)


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array, aslinearoperator])
def test_gauss_rules_have_the_moments_of_the_probes(make: Any) -> None:
    rng = np.random.default_rng(20263202)
    dense = rng.standard_normal((25, 25))
    dense = dense + dense.T
    found = ph.spectral_density(make(dense), num_steps=6, num_probes=3, rng=7)
    assert found.nodes.shape == found.weights.shape == (3, 6) and found.num_matvecs == 18
    starts = np.random.default_rng(7).standard_normal((3, 25))
    for nodes, weights, z in zip(found.nodes, found.weights, starts, strict=True):
        for power in range(12):
            moment = z @ np.linalg.matrix_power(dense, power) @ z / (z @ z)
            scale = np.abs(np.linalg.eigvalsh(dense)).max() ** power
            assert abs(np.sum(weights * nodes**power) - moment) < 1e-12 * scale


def test_the_density_is_that_of_the_smoothed_spectrum() -> None:
    obj, theta = problem()
    H = obj.hessian(theta)
    values = np.linalg.eigvalsh(H.to_dense())
    found = ph.spectral_density(H, num_steps=80, num_probes=400, rng=7, width=0.3)
    assert found.nodes.min() >= values[0] - 1e-9 and found.nodes.max() <= values[-1] + 1e-9
    assert np.trapezoid(found.density, found.grid) == pytest.approx(1.0, abs=1e-3)
    exact = np.exp(-0.5 * ((found.grid[:, None] - values) / 0.3) ** 2).mean(axis=1) / (0.3 * np.sqrt(2.0 * np.pi))
    wrong = np.abs(found.density - exact) > 4.5 * found.stderr + 1e-9
    assert not wrong.any()
    at = ph.spectral_density(H, num_probes=3, rng=7, grid=[0.0, 1.0], width=0.3)
    assert at.density.shape == (2,) and pickle.loads(pickle.dumps(at)).width == 0.3 and "3 probes" in str(at)
    again = ph.spectral_density(H, num_probes=3, rng=7, grid=[0.0, 1.0], width=0.3)
    assert np.array_equal(at.nodes, again.nodes) and np.array_equal(at.density, again.density)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_invariant_subspaces_end_early(dtype: str) -> None:
    found = ph.spectral_density(np.eye(9), num_probes=2, rng=7)
    assert found.nodes.shape == (2, 1) and found.nodes == pytest.approx(1.0) and found.weights == pytest.approx(1.0)
    zero = ph.spectral_density(np.zeros((4, 4)), num_probes=1, rng=7)
    assert np.isfinite(zero.density).all() and np.isnan(zero.stderr).all() and zero.num_matvecs == 1
    assert ph.trace(np.zeros((40, 40)), rng=7).value == ph.frobenius_norm(np.zeros((40, 40)), rng=7).value == 0.0
    obj, theta = problem(dtype)  # its Gauss–Newton matrix has rank 30 at most, and eigenvalues next to zero
    G = obj.gauss_newton(theta)
    found = ph.spectral_density(G, num_probes=2, rng=7)
    assert found.weights.sum(axis=1) == pytest.approx(1.0) and found.nodes.min() > -1e-5 * found.nodes.max()


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"A": np.ones((2, 3))}, ph.InputError, "square"),
        ({"A": np.array([[0.0, 1.0], [0.0, 0.0]])}, ph.InputError, "not symmetric"),
        ({"A": 3}, ph.InputTypeError, "pass obj.hessian"),
        ({"num_probes": 0}, ph.InputError, "num_probes is 0"),
        ({"num_steps": 2.5}, ph.InputTypeError, "num_steps is 2.5"),
        ({"width": 0.0}, ph.InputError, "width is 0.0"),
        ({"grid": [np.nan]}, ph.InputError, "grid"),
        ({"max_bytes": 8}, ph.MemoryLimitError, "use fewer steps, or raise max_bytes"),
        ({"rng": "x"}, ph.InputTypeError, "rng is 'x'"),
        ({"A": LinearOperator((2, 2), matvec=lambda v: v * np.nan, dtype=float)}, ph.NonFiniteError, "NaN or infinity"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ph.spectral_density(**{"A": np.eye(3), "rng": 7, **change})
