"""What this installation consists of: the facts to put beside a number, or into a bug report."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import numba
import threadpoolctl

from . import _core
from ._native import BLAS, ISA, ISA_LEVELS

_PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "threadpoolctl", "scikit-learn", "click", "rich")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def show_config() -> dict[str, Any]:
    """Versions, instruction set, BLAS, compiler and threads of this installation.

    Returns
    -------
    dict
        JSON-safe; keys version, python, platform, packages (None where absent), isa, isa_available, compiler, blas (source,
        integer width in bytes, libraries found in the process with their versions and threads), threads (Numba's), and
        threading_layer (None until a parallel kernel has run).

    Examples
    --------
    >>> import pyhess as ph
    >>> ph.show_config()["blas"]["int_bytes"] in (4, 8)
    True
    """
    libraries = [
        {key: info.get(key) for key in ("internal_api", "version", "architecture", "num_threads", "threading_layer")}
        for info in threadpoolctl.threadpool_info()
        if info.get("user_api") == "blas"
    ]
    try:
        layer: str | None = numba.threading_layer()
    except ValueError:  # Numba decides at the first parallel kernel
        layer = None
    return {
        "version": _version("pyhess") or "0+unknown",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "isa": ISA,
        "isa_available": [level for level in ISA_LEVELS if _core.isa_available(level)],
        "compiler": _core.compiler,
        "blas": {"source": BLAS.source, "int_bytes": BLAS.int_bytes, "libraries": libraries},
        "threads": int(numba.get_num_threads()),
        "threading_layer": layer,
    }
