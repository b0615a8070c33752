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
_blas_limit: Any = None


@lru_cache(maxsize=1)
def _controller() -> threadpoolctl.ThreadpoolController:
    # Looking for the loaded libraries takes about half a millisecond, setting a limit ten microseconds: look once.
    import scipy.linalg.cython_blas  # noqa: F401  (loads the library that is to be found)

    return threadpoolctl.ThreadpoolController()


@contextmanager
def blas_single_thread() -> Iterator[None]:
    """Keep BLAS at one thread; the limit is the process's own and is lifted when the last user leaves."""
    global _blas_users, _blas_limit
    with _blas_lock:
        if _blas_users == 0:
            _blas_limit = _controller().limit(limits=1, user_api="blas")
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                _blas_limit.restore_original_limits()
                _blas_limit = None


def num_workers(num_tasks: int, num_threads: int | None = None) -> int:
    """Workers for so many tasks: at most ``num_threads``, by default what ``numba.set_num_threads`` allows."""
    allowed = int(numba.get_num_threads())
    if num_threads is not None:
        allowed = min(num_threads, int(numba.config.NUMBA_NUM_THREADS))
    return max(1, min(allowed, num_tasks))
