"""BLAS is held at one thread while the core runs, whichever thread asks."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest
import threadpoolctl

import pyhess as ph
from pyhess._threads import blas_single_thread


def blas_threads() -> list[int]:
    return [info["num_threads"] for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def two_blas_threads() -> None:
    assert ph.Objective  # the library is loaded
    if not blas_threads():
        pytest.skip("no BLAS library that can be controlled")


def in_a_thread(function: object) -> None:
    thread = threading.Thread(target=function)  # type: ignore[arg-type]
    thread.start()
    thread.join()


def test_any_thread_sets_and_lifts_the_limit() -> None:
    before = blas_threads()
    seen: list[list[int]] = []

    def limited() -> None:
        with blas_single_thread():
            seen.append(blas_threads())
        seen.append(blas_threads())

    limited()
    in_a_thread(limited)
    limited()
    assert seen == [[1] * len(before), before] * 3


def test_the_last_user_lifts_it() -> None:
    before = blas_threads()
    with ExitStack() as outer:
        outer.enter_context(blas_single_thread())
        with blas_single_thread():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before
