"""Threads, before anything else is imported: most libraries read them once, when they are loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Read by OpenMP, MKL, OpenBLAS and Numba when they are loaded. JAX has no such variable; it counts the processors that
#: the process may use.
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def available_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(count: int) -> None:
    """Give every library ``count`` threads: environment variables, and the process pinned to as many processors."""
    if "numpy" in sys.modules:
        raise RuntimeError("threads must be chosen before numpy is imported")
    if not 1 <= count <= available_processors():
        raise ValueError(f"{count} threads asked for; this process may use 1 to {available_processors()}.")
    for name in _VARIABLES:
        os.environ[name] = str(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def prefer_installed_package() -> None:
    """Measure the installed package unless the source tree holds a compiled core.

    ``python -m bench`` puts the current folder first on the path, and with it a ``pyhess`` that cannot be imported. It goes to
    the end: workers of a sweep get this path and import a kind of work from ``bench``.
    """
    if not any((ROOT / "pyhess").glob("_core*.so")) and not any((ROOT / "pyhess").glob("_core*.pyd")):
        sys.path[:] = [*(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT), str(ROOT)]
