"""Who may use how many threads, and when.

The worker loop of a parallel kernel is the only thing that runs in parallel; BLAS stays at one thread inside it. That is a
matter of correctness, not of speed: the OpenBLAS in SciPy's wheels can return wrong products when several threads call it while
it uses three or more threads of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numba
import threadpoolctl

#: Held while a parallel kernel runs: Numba's portable threading layer must not be entered by two Python threads at once.
PARALLEL_LOCK = threading.Lock()

_blas_lock = threading.Lock()
_blas_users = 0
#: What the libraries were set to before the first user came.
_blas_before: list[int] = []


@lru_cache(maxsize=1)
def _blas_libraries() -> tuple[Any, ...]:
    # Looking for the loaded libraries takes about half a millisecond, setting a limit microseconds: look once.
    import scipy.linalg.cython_blas  # noqa: F401  (loads the library that is to be found)

    libraries = threadpoolctl.ThreadpoolController().lib_controllers
    return tuple(library for library in libraries if library.user_api == "blas" and library.num_threads is not None)


def _set_blas_threads(library: Any, count: int) -> None:
    # From version 3.7 on threadpoolctl lets only the first thread that ever set a limit change it, and ignores all others
    # without a word; here the last user restores what the first one found, from whatever thread.
    getattr(library, "_real_set_num_threads", library.set_num_threads)(count)


@contextmanager
def blas_single_thread() -> Iterator[None]:
    """Keep BLAS at one thread; the limit is the process's own and is lifted when the last user leaves."""
    global _blas_users
    with _blas_lock:
        if _blas_users == 0:
            _blas_before[:] = [library.get_num_threads() for library in _blas_libraries()]
            for library in _blas_libraries():
                _set_blas_threads(library, 1)
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                for library, count in zip(_blas_libraries(), _blas_before, strict=True):
                    _set_blas_threads(library, count)


def num_workers(num_tasks: int, num_threads: int | None = None) -> int:
    """Workers for so many tasks: at most ``num_threads``, by default what ``numba.set_num_threads`` allows."""
    allowed = int(numba.get_num_threads())
    if num_threads is not None:
        allowed = min(num_threads, int(numba.config.NUMBA_NUM_THREADS))
    return max(1, min(allowed, num_tasks))
