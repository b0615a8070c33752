"""Where and with what a run was made."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

#: Environment variables that change how fast, or in which bits, a machine computes.
_PREFIXES = ("OMP_", "OPENBLAS_", "MKL_", "NUMBA_", "PYHESS_", "SLURM_JOB_ID", "SLURM_ARRAY_")


def provenance() -> dict[str, Any]:
    """Return versions, machine, command and environment, JSON-safe."""
    from .._config import show_config

    return {
        "argv": list(sys.argv),
        "host": platform.node(),
        "pid": os.getpid(),
        "cpu": _cpu(),
        "git": _git(),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_PREFIXES)},
        "config": show_config(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _git() -> dict[str, Any] | None:
    """Commit of the working directory, where a study's own repository often is, and whether it has uncommitted changes."""

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5.0, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    return None if not commit else {"commit": commit, "dirty": bool(ask("status", "--porcelain", "-uno"))}
