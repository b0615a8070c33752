"""What stands between the package and a wrong number: the checks of the ABI, the BLAS and the instruction set."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess import _core, _native
from pyhess._native import compiling

PRODUCTS = """
import numpy as np, pyhess as ph
rng = np.random.default_rng(307)
data = ph.Dataset(rng.standard_normal((400, 9)), rng.integers(0, 3, 400))
obj = ph.Objective(ph.MLP([9, 40, 30, 3], ["gelu", "softplus"]), data, "cross_entropy")
theta, v = obj.net.init(rng), rng.standard_normal(obj.num_params)
jet = obj.curvature(theta, v)
vectors = [obj.gradient(theta), obj.hvp(theta, v), obj.ggn_vp(theta, v), jet.hv, jet.grad]
numbers = np.concatenate([[obj.value(theta), jet.q], *vectors])
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def products_of_this_process() -> Any:
    scope: dict[str, Any] = {}
    exec(PRODUCTS, scope)
    return scope["numbers"]


def agrees(output: str) -> bool:
    """Does the last line of a subprocess hold the products of this process?"""
    got, want = np.array(output.splitlines()[-1].split(), dtype=float), products_of_this_process()
    return bool(np.linalg.norm(got - want) <= 1e-13 * np.linalg.norm(want))


SHOW = "print(*(repr(float(number)) for number in numbers))"


# ---- ABI ---------------------------------------------------------------------------------------------------------------


def test_another_abi_version_is_refused() -> None:
    result = run("from pyhess import _core; _core.abi_version = 99; import pyhess; pyhess.Objective")
    assert result.returncode != 0
    assert "speaks C ABI version 99" in result.stderr
    assert "Reinstall pyhess" in result.stderr


# ---- BLAS --------------------------------------------------------------------------------------------------------------

#: The interface as published today, and in the forms it may take one day.
KNOWN = "void (char *, char *, int *, int *, int *, d *, d *, int *, d *, int *, d *, d *, int *)"


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "void (char *, char *, int *)",
        KNOWN.replace("int *", "short *"),
        KNOWN.replace("int *", "__pyx_t_blas_int *"),
        KNOWN.replace(", int *)", ", int *, size_t, size_t)"),
    ],
)
def test_an_unknown_interface_falls_back_to_the_portable_kernels(monkeypatch: pytest.MonkeyPatch, signature: str) -> None:
    monkeypatch.setattr(_core, "capsule_pointer", lambda capsule: (_native.BLAS.dgemm, signature))
    with pytest.warns(RuntimeWarning, match="portable kernels"):
        blas = _native._find_blas()
    assert (blas.dgemm, blas.sgemm, blas.source) == (0, 0, "portable kernels")


@pytest.mark.parametrize("integers", ["int *", "int32_t *", "npy_int32 *", "int64_t *", "npy_int64 *", "long long *"])
def test_known_interfaces(monkeypatch: pytest.MonkeyPatch, integers: str) -> None:
    asked: list[int] = []

    def agree(address: int, width: int, single: bool) -> bool:
        asked.append(width)
        return True

    monkeypatch.setattr(_core, "capsule_pointer", lambda capsule: (12, KNOWN.replace("int *", integers)))
    monkeypatch.setattr(_core, "gemm_agrees", agree)
    blas = _native._find_blas()
    width = 8 if "64" in integers or "long" in integers else 4
    assert (blas.dgemm, blas.sgemm, blas.int_bytes, asked) == (12, 12, width, [width, width])


def test_a_wrong_product_falls_back_to_the_portable_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    original = _core.capsule_pointer

    def swapped(capsule: Any) -> tuple[int, str]:
        address, signature = original(capsule)
        return (_native.BLAS.sgemm if address == _native.BLAS.dgemm else _native.BLAS.dgemm), signature

    assert _native.BLAS.dgemm, "these tests want SciPy's BLAS"
    monkeypatch.setattr(_core, "capsule_pointer", swapped)
    with pytest.warns(RuntimeWarning, match="does not know"):
        assert _native._find_blas().dgemm == 0


def test_products_without_blas() -> None:
    broken = "from pyhess import _core; _core.capsule_pointer = lambda capsule: (8, 'void (char *)')\n"
    result = run(broken + PRODUCTS + SHOW)
    assert result.returncode == 0, result.stderr
    assert "portable kernels" in result.stderr
    assert agrees(result.stdout)


# ---- instruction sets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [level for level in _native.ISA_LEVELS if _core.isa_available(level)])
def test_every_instruction_set_gives_the_same_products(level: str) -> None:
    result = run(PRODUCTS + "print(ph.show_config()['isa'])\n" + SHOW, PYHESS_ISA=f" {level.upper()} ")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == level
    assert agrees(result.stdout)


def test_unknown_instruction_set() -> None:
    result = run("import pyhess; pyhess.Objective", PYHESS_ISA="avx2")
    assert result.returncode != 0
    assert "PYHESS_ISA='avx2' is not known; allowed: base, v3, v4" in result.stderr


def test_an_instruction_set_this_processor_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYHESS_ISA", "v4")
    monkeypatch.setattr(_core, "isa_available", lambda level: level != "v4")
    with pytest.raises(ph.InputError, match="cannot run on this processor; available: base, v3"):
        _native._choose_isa()


def test_the_best_instruction_set_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYHESS_ISA", "")
    assert _native._choose_isa() == _core.best_isa()


# ---- threads -----------------------------------------------------------------------------------------------------------

CONCURRENT = """
import threading
import numpy as np, pyhess as ph, threadpoolctl
from time import monotonic

rng = np.random.default_rng(311)
objectives = [
    ph.Objective(ph.MLP(widths), ph.Dataset(rng.standard_normal((n, widths[0])), rng.standard_normal((n, widths[-1]))))
    for widths, n in (([60, 120, 100, 5], 300), ([30, 90, 2], 2500))
]
cases = []
for obj in objectives:
    theta, block = obj.net.init(rng), rng.standard_normal((obj.num_params, 3))
    cases.append((obj, theta, block, obj.hvp(theta, block), obj.curvature(theta, block[:, 0]).grad, obj.gradient(theta)))
print(max(info["num_threads"] for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"))
wrong, rounds = [], [0] * 8
deadline = monotonic() + 3.0

def caller(number):
    while rounds[number] < 2 or (monotonic() < deadline and rounds[number] < 200):
        obj, theta, block, hv, jet, gradient = cases[(number + rounds[number]) % len(cases)]
        got = obj.hvp(theta, block), obj.curvature(theta, block[:, 0]).grad, obj.gradient(theta)
        wrong.extend(name for name, one, two in zip("hjg", got, (hv, jet, gradient)) if not np.array_equal(one, two))
        rounds[number] += 1

threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sum(rounds), len(wrong))
print(max(info["num_threads"] for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"))
"""


def test_many_callers_and_a_threaded_blas() -> None:
    """The OpenBLAS in SciPy's wheels errs when several threads call it while it has three or more threads of its own."""
    result = run(CONCURRENT, OPENBLAS_NUM_THREADS="8", OMP_NUM_THREADS="8")
    assert result.returncode == 0, result.stderr
    before, counts, after = result.stdout.splitlines()
    rounds, wrong = map(int, counts.split())
    assert rounds >= 16
    assert wrong == 0
    assert after == before, "the limit is lifted when the last caller leaves"


class Swallows:
    """An object whose finaliser gets a Ctrl-C, from where the exception cannot get out."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_ctrl_c_comes_again_while_compiling() -> None:
    began = monotonic()
    with pytest.raises(KeyboardInterrupt), compiling():
        Swallows()
        while monotonic() - began < 30.0:
            sleep(0.01)
    assert monotonic() - began < 1.0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_ctrl_c_is_raised_at_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), compiling():
        Swallows()
    sleep(0.3)  # and never again
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_compiling_is_raised_once() -> None:
    with pytest.raises(KeyboardInterrupt), compiling():
        signal.raise_signal(signal.SIGINT)
    sleep(0.3)


def test_signal_handlers_of_others_stay_theirs() -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
    try:
        with compiling():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == [signal.SIGINT]
