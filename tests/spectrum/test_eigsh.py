"""eigsh and eigsh_batch against dense eigenvalues, prescribed spectra, SciPy, and honesty about what has not converged."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import numba
import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator
from scipy.sparse.linalg import eigsh as scipy_eigsh

import pyhess as ph
from pyhess import EigenStatus, eigsh, eigsh_batch
from pyhess.errors import InputError, InputTypeError, NonFiniteError, NotConvergedError


def with_spectrum(values: Any, seed: int) -> Any:
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    values = np.asarray(values, dtype=np.float64)
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((values.size, values.size)))
    a = (q * values) @ q.T
    return 0.5 * (a + a.T)


def wanted(values: Any, k: int, which: str) -> Any:
    values = np.sort(values)
    if which == "SA":
        return values[:k]
    if which == "LA":
        return values[-k:]
    if which == "LM":
        return np.sort(values[np.argsort(-np.abs(values), kind="stable")[:k]])
    return np.sort(np.concatenate([values[: k // 2], values[len(values) - (k - k // 2) :]]))


def assert_pairs(a: Any, r: ph.EigenResult, expected: Any, tol: float = 1e-6) -> None:
    scale = np.linalg.norm(a, 2) + 1e-300
    assert r.converged and r.status is EigenStatus.CONVERGED
    assert np.allclose(r.eigenvalues, expected, rtol=0, atol=3 * tol * scale)
    v = r.eigenvectors
    assert np.allclose(v.T @ v, np.eye(v.shape[1]), atol=1e-7)
    residuals = np.linalg.norm(a @ v - v * r.eigenvalues, axis=0)
    assert (residuals <= tol * scale * (1 + 1e-6) + 1e-14 * scale).all()
    assert np.allclose(residuals, r.residual_norms, rtol=1e-4, atol=1e-13 * scale)


@pytest.mark.parametrize("which", ["SA", "LA", "LM", "BE"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_dense_matrices(which: str, k: int) -> None:
    rng = np.random.default_rng(31)
    for size in (6, 40, 150):
        values = rng.standard_normal(size)
        a = with_spectrum(values, size)
        assert_pairs(a, eigsh(a, k=k, which=which, rng=8), wanted(values, k, which))


@pytest.mark.parametrize(
    "values",
    [
        [-2.0, -2.0, -2.0, 1.0, 3.0, 3.0],
        np.concatenate([np.full(4, -1.0), np.linspace(0, 1, 50)]),
        np.concatenate([-1.0 + 1e-9 * np.arange(3), np.linspace(0, 1, 40)]),
        [5.0] * 7,
        [0.0] * 5,
        np.concatenate([[-1e-3], np.zeros(60), [1.0]]),
        np.linspace(-1, 1, 30) * 1e-150,
        np.linspace(-1, 1, 30) * 1e150,
    ],
    ids=["copies", "four copies", "cluster", "identity", "zero", "rank two", "tiny", "huge"],
)
@pytest.mark.parametrize("k", [1, 3])
def test_difficult_spectra(values: Any, k: int) -> None:
    values = np.asarray(values)
    size = np.abs(values).max()
    a = with_spectrum(values / size, 5) * size if size else np.zeros((values.size, values.size))
    r = eigsh(a, k=k, rng=9)
    assert r.converged
    assert np.allclose(r.eigenvalues, np.sort(values)[:k], rtol=0, atol=3e-6 * size)


def test_all_pairs_and_the_smallest_sizes() -> None:
    a = with_spectrum([3.0, -1.0, 2.0], 4)
    assert np.allclose(eigsh(a, k=3, rng=5).eigenvalues, [-1.0, 2.0, 3.0])
    one = eigsh(np.array([[-4.0]]), rng=5)
    assert one.eigenvalues[0] == -4.0 and one.converged


def test_fewer_products_than_scipy() -> None:
    values = np.concatenate([[-1.3, -1.2], np.random.default_rng(6).uniform(-1, 4, 400)])
    a, counts = with_spectrum(values, 7), [0]

    def product(v: Any) -> Any:
        counts[0] += 1
        return a @ v

    operator = LinearOperator(a.shape, matvec=product, dtype=np.float64)
    reference = scipy_eigsh(operator, k=1, which="SA", tol=1e-6)[0][0]
    theirs, counts[0] = counts[0], 0
    r = eigsh(operator, rng=8)
    assert r.eigenvalues[0] == pytest.approx(reference, rel=1e-9)
    assert counts[0] == r.num_matvecs < theirs


def test_a_restarted_basis_finds_the_same() -> None:
    values = np.concatenate([[-1.01, -1.0], np.linspace(-0.99, 3, 598)])
    a = with_spectrum(values, 8)
    full, small = eigsh(a, rng=8, tol=1e-8), eigsh(a, rng=8, tol=1e-8, max_bytes=30 * 600 * 8)
    assert full.converged and small.converged
    assert small.num_matvecs > full.num_matvecs
    assert small.eigenvalues[0] == pytest.approx(full.eigenvalues[0], abs=1e-10)
    assert np.isnan(small.probable_lower)


# --- honesty ---------------------------------------------------------------------------------------------------------


def test_what_has_not_converged_is_not_returned_as_converged() -> None:
    a = with_spectrum(np.linspace(-1, 1, 500), 9)
    with pytest.raises(NotConvergedError, match="max_matvecs") as caught:
        eigsh(a, max_matvecs=12, rng=8)
    for r in (caught.value.result, eigsh(a, max_matvecs=12, rng=8, on_failure="return")):
        assert not r.converged and r.status is EigenStatus.MAX_MATVECS and r.status.advice
        assert r.eigenvalues[0] >= -1.0 - 1e-12  # a Ritz value is an upper bound all the same
        true = np.linalg.norm(a @ r.eigenvectors[:, 0] - r.eigenvalues[0] * r.eigenvectors[:, 0])
        assert r.residual_norms[0] == pytest.approx(true, rel=1e-6)
        assert r.num_matvecs <= 14
    with pytest.warns(RuntimeWarning, match="max_matvecs"):
        eigsh(a, max_matvecs=12, rng=8, on_failure="warn")


def test_products_that_are_not_symmetric_or_finite() -> None:
    rng = np.random.default_rng(33)
    with pytest.raises(InputError, match="symmetric"):
        eigsh(rng.standard_normal((60, 60)), rng=8)
    operator = LinearOperator((20, 20), matvec=lambda v: np.full(20, np.nan), dtype=np.float64)
    with pytest.raises(NonFiniteError):
        eigsh(operator, rng=8)


def test_the_probable_bound_fails_as_rarely_as_it_says() -> None:
    values = np.concatenate([[-1.0, -0.98], np.linspace(-0.9, 2, 198)])
    a = with_spectrum(values, 10)
    failures, widths = 0, []
    for seed in range(100, 300):
        r = eigsh(a, rng=seed, p=0.1, tol=1e-2, on_failure="return")
        assert r.probable_lower <= r.eigenvalues[0]
        failures += r.probable_lower > -1.0
        widths.append(r.eigenvalues[0] - r.probable_lower)
    assert failures <= 36  # 20 expected at the most; four standard deviations
    assert np.median(widths) < 0.5  # and it says something: the spectrum is three wide
    assert np.isnan(eigsh(a, rng=8, v0=np.ones(200)).probable_lower)


def test_a_start_vector_does_not_hide_other_eigenvectors() -> None:
    a = with_spectrum(np.linspace(-1, 1, 50), 11)
    _, vectors = np.linalg.eigh(a)
    r = eigsh(a, v0=vectors[:, 20], rng=8)
    assert r.eigenvalues[0] == pytest.approx(-1.0, abs=1e-9)
    fast = eigsh(a, v0=vectors[:, 0], rng=8)
    assert fast.num_matvecs < r.num_matvecs


# --- our operators, batches ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def obj() -> ph.Objective:
    rng = np.random.default_rng(34)
    return ph.Objective(ph.MLP([5, 7, 3]), ph.Dataset(rng.standard_normal((60, 5)), rng.integers(0, 3, 60)), loss="cross_entropy")


@pytest.mark.parametrize("which", ["SA", "LA", "LM", "BE"])
@pytest.mark.parametrize("k", [1, 3])
def test_hessians(obj: ph.Objective, which: str, k: int) -> None:
    H = obj.hessian(np.random.default_rng(35).standard_normal(obj.num_params))
    dense = H.to_dense()
    assert_pairs(dense, eigsh(H, k=k, which=which, rng=8), wanted(np.linalg.eigvalsh(dense), k, which))


def test_gauss_newton(obj: ph.Objective) -> None:
    G = obj.gauss_newton(np.random.default_rng(36).standard_normal(obj.num_params))
    assert eigsh(G, rng=8).eigenvalues[0] == pytest.approx(0.0, abs=1e-6)
    assert eigsh(G, which="LA", rng=8).eigenvalues[0] == pytest.approx(np.linalg.eigvalsh(G.to_dense())[-1], rel=1e-6)


def test_single_precision_values_are_double_precision_quotients(obj: ph.Objective) -> None:
    single = ph.Objective(obj.net, obj.data, obj.loss, dtype="float32")
    theta = obj.net.init(rng=37).astype(np.float32).astype(np.float64)
    smallest = np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]
    r = eigsh(single.hessian(theta), rng=8, tol=1e-5)
    v = r.eigenvectors[:, 0].astype(np.float64)
    reference = ph.Objective(obj.net, ph.Dataset(obj.data.X.astype(np.float32).astype(np.float64), obj.data.y), obj.loss).hvp(
        theta, v
    )
    assert r.eigenvalues[0] == pytest.approx(v @ reference / (v @ v), rel=1e-6)
    assert r.eigenvalues[0] >= smallest - 1e-6 * abs(smallest)


def test_batches_equal_single_runs_for_any_number_of_threads(obj: ph.Objective) -> None:
    thetas = ph.Box(-1.0, 1.0).bind(obj).sample(7, rng=38)
    results = []
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            results.append(eigsh_batch(obj, thetas, k=2, rng=8))
        finally:
            numba.set_num_threads(before)
    one, two = results
    assert np.array_equal(one.eigenvalues, two.eigenvalues) and np.array_equal(one.eigenvectors, two.eigenvectors)
    assert one.eigenvalues.shape == (7, 2) and one.eigenvectors.shape == (7, obj.num_params, 2)
    for theta, values, status in zip(thetas, one.eigenvalues, one.status, strict=True):
        assert status is EigenStatus.CONVERGED
        assert np.allclose(values, np.linalg.eigvalsh(obj.hessian(theta).to_dense())[:2], atol=1e-6)


def test_every_sample_has_its_own_status(obj: ph.Objective) -> None:
    thetas = ph.Box(-1.0, 1.0).bind(obj).sample(3, rng=39)
    with pytest.raises(NotConvergedError):
        eigsh_batch(obj, thetas, max_matvecs=4, rng=8)
    b = eigsh_batch(obj, thetas, max_matvecs=4, rng=8, on_failure="return")
    assert set(b.status) == {EigenStatus.MAX_MATVECS}
    smallest = [np.linalg.eigvalsh(obj.hessian(t).to_dense())[0] for t in thetas]
    assert (b.eigenvalues[:, 0] >= np.array(smallest) - 1e-12).all()


def test_the_same_seed_gives_the_same_bits(obj: ph.Objective) -> None:
    H = obj.hessian(obj.net.init(rng=40))
    one, two = eigsh(H, k=2, rng=8), eigsh(H, k=2, rng=8)
    assert np.array_equal(one.eigenvalues, two.eigenvalues) and np.array_equal(one.eigenvectors, two.eigenvectors)


# --- arguments, interruption -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"k": 0}, InputError, "k"),
        ({"k": 9}, InputError, "k"),
        ({"k": 1.5}, InputTypeError, "k"),
        ({"which": "SM"}, InputError, "SA"),
        ({"tol": -1.0}, InputError, "tol"),
        ({"max_matvecs": 0}, InputError, "max_matvecs"),
        ({"p": 2.0}, InputError, "p"),
        ({"v0": np.zeros(8)}, InputError, "v0"),
        ({"v0": np.ones(3)}, InputError, "v0"),
        ({"rng": "x"}, InputTypeError, "rng"),
        ({"on_failure": "ignore"}, InputError, "on_failure"),
        ({"A": np.ones((3, 4))}, InputError, "square"),
        ({"A": "matrix"}, InputTypeError, "A"),
    ],
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments: dict[str, Any] = {"A": np.eye(8), "rng": 8, **change}
    with pytest.raises(error, match=text):
        eigsh(arguments.pop("A"), **arguments)


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
def test_ctrl_c_ends_a_long_run() -> None:
    from time import monotonic

    rng = np.random.default_rng(41)
    obj = ph.Objective(ph.MLP([200, 400, 1]), ph.Dataset(rng.standard_normal((3000, 200)), rng.standard_normal(3000)))
    H = obj.hessian(obj.net.init(rng=77))
    eigsh(H, rng=8, tol=0.5, on_failure="return")  # compile first
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.4, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        eigsh(H, k=20, which="BE", rng=8, tol=1e-14, on_failure="return")
    assert monotonic() - sent[0] < 1.0
