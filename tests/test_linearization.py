"""Products as linear operators: the same bits for every number of threads and vectors, SciPy's protocol, interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any

import numba
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg

import pyhess as ph
from pyhess import operators

THREADS = sorted({1, min(2, numba.config.NUMBA_NUM_THREADS), numba.config.NUMBA_NUM_THREADS})


def problem(widths: list[int], loss: str, n: int, dtype: str = "float64", activation: Any = "tanh") -> ph.Objective:
    rng = np.random.default_rng([211, n, *widths])
    y = rng.integers(0, 2, n) if loss != "squared_error" else rng.standard_normal((n, widths[-1]))
    return ph.Objective(ph.MLP(widths, activation), ph.Dataset(rng.standard_normal((n, widths[0])), y), loss, dtype)


#: One chunk of data, and several (with a last block that is not full).
SIZES: dict[str, Callable[[str], ph.Objective]] = {
    "one-chunk": lambda dtype: problem([5, 8, 3], "squared_error", 61, dtype, "gelu"),
    "many-chunks": lambda dtype: problem([20, 64, 64, 2], "cross_entropy", 2003, dtype),
    "deep": lambda dtype: problem([10, 70, 30, 50, 40, 1], "logistic", 1501, dtype, ["tanh", "relu", "softplus", "sigmoid"]),
}


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["float64", "float32"])
def obj(size: str, request: pytest.FixtureRequest) -> ph.Objective:
    return SIZES[size](request.param)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


def vectors(obj: ph.Objective, count: int, seed: int = 223) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return obj.net.init(rng) + 0.1 * rng.standard_normal(obj.num_params), rng.standard_normal((obj.num_params, count))


def everything(obj: ph.Objective, theta: Any, block: Any) -> list[Any]:
    jet = obj.curvature(theta, block[:, 0])
    thetas = theta + 0.01 * block.T
    return [
        obj.value(theta),
        obj.gradient(theta),
        obj.hvp(theta, block[:, 0]),
        obj.ggn_vp(theta, block[:, 0]),
        obj.hvp(theta, block),
        obj.ggn_vp(theta, block),
        jet.q,
        jet.hv,
        jet.grad,
        obj.hvp_batch(thetas, block.T),
    ]


def test_sizes_are_what_they_are_for(size: str) -> None:
    chunks = SIZES[size]("float64").engine.num_chunks
    assert (chunks == 1) == (size == "one-chunk")


def test_every_number_of_threads_gives_the_same_bits(obj: ph.Objective, threads: Callable[[int], None]) -> None:
    theta, block = vectors(obj, 5)
    results = []
    for count in THREADS:
        threads(count)
        results += [everything(obj, theta, block), everything(obj, theta, block)]
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert np.array_equal(one, two)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("num_threads", THREADS)
def test_blocks_are_single_products(obj: ph.Objective, count: int, num_threads: int, threads: Callable[[int], None]) -> None:
    threads(num_threads)
    theta, block = vectors(obj, count)
    jets = obj.curvature(theta, block)
    for product in (obj.hvp, obj.ggn_vp):
        got = product(theta, np.asfortranarray(block) if count % 2 else block)
        for k in range(count):
            assert np.array_equal(got[:, k], product(theta, block[:, k]))
    for k in range(count):
        jet = obj.curvature(theta, block[:, k])
        assert (jets.q[k], jets.hv[:, k].tolist(), jets.grad[:, k].tolist()) == (jet.q, jet.hv.tolist(), jet.grad.tolist())


@pytest.mark.parametrize("group_bytes", [1, 20_000])
def test_blocks_are_laid_out_in_groups(obj: ph.Objective, monkeypatch: pytest.MonkeyPatch, group_bytes: int) -> None:
    theta, block = vectors(obj, 7)
    whole = obj.hvp(theta, block)
    monkeypatch.setattr(operators, "_GROUP_BYTES", group_bytes)
    assert np.array_equal(obj.hvp(theta, block), whole)
    assert obj.hvp(theta, block[:, :0]).shape == (obj.num_params, 0)


@pytest.mark.parametrize("num_threads", THREADS)
def test_a_batch_is_single_products(obj: ph.Objective, num_threads: int, threads: Callable[[int], None]) -> None:
    threads(num_threads)
    theta, block = vectors(obj, 5)
    thetas = theta + 0.05 * np.random.default_rng(227).standard_normal((5, obj.num_params))
    batch = obj.hvp_batch(thetas, block.T)
    for s in range(5):
        assert np.array_equal(batch[s], obj.hvp(thetas[s], block[:, s]))


def test_the_jet_repeats_the_product(obj: ph.Objective) -> None:
    theta, block = vectors(obj, 1)
    v = block[:, 0]
    jet, hv = obj.curvature(theta, v), obj.hvp(theta, v)
    tolerance = 1e-13 if obj.dtype == "float64" else 1e-5
    assert np.linalg.norm(jet.hv - hv) <= tolerance * np.linalg.norm(hv)
    assert abs(jet.q - v @ hv) <= tolerance * np.linalg.norm(v) * np.linalg.norm(hv)


def test_python_threads_may_share_an_objective(obj: ph.Objective) -> None:
    theta, block = vectors(obj, 6)
    hessian = obj.hessian(theta)
    want = [hessian @ block[:, k] for k in range(6)]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(5):
            fresh = obj.hvp(theta, block[:, k])
            if not (np.array_equal(hessian @ block[:, k], want[k]) and np.array_equal(fresh, want[k].astype(np.float64))):
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


# ---- SciPy's protocol --------------------------------------------------------------------------------------------------


def test_linear_operator(obj: ph.Objective) -> None:
    theta, block = vectors(obj, 3)
    v = block[:, 0]
    for operator, product in ((obj.hessian(theta), obj.hvp), (obj.gauss_newton(theta), obj.ggn_vp)):
        assert isinstance(operator, scipy.sparse.linalg.LinearOperator)
        assert operator.shape == (obj.num_params, obj.num_params)
        assert operator.dtype == obj.dtype
        assert operator.T is operator
        assert operator.H is operator
        assert operator.value == obj.value(theta)
        assert np.allclose(operator.theta, theta, rtol=1e-6)
        single = product(theta, v)
        for got in (operator @ v, operator.matvec(v), operator.rmatvec(v), operator(v), operator @ list(v), operator.dot(v)):
            assert got.shape == v.shape
            assert np.array_equal(got, single)
        assert np.array_equal(operator @ v[:, None], single[:, None])
        for got in (operator @ block, operator.matmat(block), operator.rmatmat(block)):
            assert np.array_equal(got, product(theta, block))
        shifted = operator + 2.0 * scipy.sparse.linalg.aslinearoperator(np.eye(obj.num_params))
        assert np.allclose(shifted @ v, single + 2.0 * v, rtol=1e-5)
        assert type(operator).__name__ in repr(operator)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_dense_matrices(dtype: str) -> None:
    obj = problem([6, 20, 10, 2], "cross_entropy", 50, dtype)  # more columns than are multiplied at a time
    assert obj.num_params > 256
    theta, block = vectors(obj, 2)
    for operator in (obj.hessian(theta), obj.gauss_newton(theta)):
        dense = operator.to_dense()
        assert dense.dtype == np.float64
        assert np.array_equal(dense, dense.T)
        tolerance = 1e-13 if dtype == "float64" else 1e-5
        assert np.linalg.norm(dense @ block - operator @ block) <= tolerance * np.linalg.norm(dense @ block)
        assert np.linalg.norm(dense - operator @ np.eye(obj.num_params)) <= tolerance * np.linalg.norm(dense)


def test_scipy_solvers_take_it() -> None:
    obj = problem([4, 6, 2], "squared_error", 30)
    theta, block = vectors(obj, 1)
    hessian, gauss_newton = obj.hessian(theta), obj.gauss_newton(theta)
    dense = hessian.to_dense()
    want = np.linalg.eigvalsh(dense)
    start = np.random.default_rng(229).standard_normal(obj.num_params)
    eigvals = scipy.sparse.linalg.eigsh(hessian, k=3, which="SA", v0=start, return_eigenvectors=False)
    assert np.sort(eigvals) == pytest.approx(want[:3], rel=1e-9)
    damped = gauss_newton + 0.1 * scipy.sparse.linalg.aslinearoperator(np.eye(obj.num_params))
    solution, status = scipy.sparse.linalg.cg(damped, block[:, 0], rtol=1e-12, maxiter=500)
    assert status == 0
    exact = scipy.linalg.solve(gauss_newton.to_dense() + 0.1 * np.eye(obj.num_params), block[:, 0], assume_a="pos")
    assert solution == pytest.approx(exact, rel=1e-8, abs=1e-8)


# ---- interrupts --------------------------------------------------------------------------------------------------------

LONG = """
import numpy as np, pyhess as ph
rng = np.random.default_rng(233)
obj = ph.Objective(ph.MLP([200, 200, 200, 1]), ph.Dataset(rng.standard_normal((8000, 200)), rng.standard_normal(8000)))
theta, block = obj.net.init(rng), rng.standard_normal((obj.num_params, 100))
small = ph.Objective(obj.net, ph.Dataset(obj.data.X[:50], obj.data.y[:50]))
small.hvp(theta, block[:, :4]), small.curvature(theta, block[:, 0]), small.hvp_batch([theta] * 4, block[:, :4].T)  # compile
obj.curvature(theta, block[:, 0])
before = obj.hvp(theta, block[:, 0])
calls = {
    "block": lambda: obj.hvp(theta, block),
    "batch": lambda: obj.hvp_batch(np.tile(theta, (100, 1)), block.T),
    "jet": lambda: obj.curvature(theta, block),
    "matvec": lambda: [obj.hvp(theta, column) for column in block.T],
}
print("ready", flush=True)
try:
    calls[CALL]()
except KeyboardInterrupt:
    print("stopped", flush=True)
    assert np.array_equal(obj.hvp(theta, block[:, 0]), before)
    print("usable", flush=True)
else:
    print("finished", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("call", ["block", "batch", "jet", "matvec"])
def test_ctrl_c_stops_a_long_product(call: str) -> None:
    code = LONG.replace("CALL", repr(call))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ.copy()) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"
            sleep(0.5)
            sent = monotonic()
            child.send_signal(signal.SIGINT)
            assert child.stdout.readline() == "stopped\n"
            assert monotonic() - sent < 1.0
            assert child.stdout.readline() == "usable\n"
            assert child.wait(timeout=60) == 0
        finally:
            child.kill()
