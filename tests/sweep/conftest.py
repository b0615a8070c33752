"""What the tests of sweeps share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pyhess import FileError, StoreError
from pyhess.sweep import ANSWER, Store

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _chaos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the chaos kind importable here and in all workers."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH")))))
    import chaos_kind  # noqa: F401


def chaos_spec(cells: int = 24, *, pause: float = 0.01, seeds: list[int] | None = None, **more: Any) -> dict[str, Any]:
    """A sweep of small cells: four widths, a seed for every four cells."""
    return {
        "compute": {"kind": "chaos", "pause": pause, **more.pop("compute", {})},
        "grid": {
            "data": "xor", "n": 16, "radius": 0.5, "width": [1, 2, 3, 4], "seed": seeds or list(range(11, 11 + cells // 4)),
            **more.pop("grid", {}),
        },
        **more,
    }  # fmt: skip


def answers(path: Path) -> dict[str, tuple[Any, ...]]:
    """The answer columns by key."""
    with Store.open(path, readonly=True) as store:
        return {row["key"]: tuple(row[name] for name in ANSWER) for row in store.rows()}


def finished(path: Path) -> dict[str, float]:
    """When each finished cell was finished, by key; nothing where there is no store yet."""
    try:
        with Store.open(path, readonly=True) as store:
            return {row["key"]: row["finished"] for row in store.rows("done")}
    except StoreError:
        raise
    except FileError:  # not there yet, or just being made
        return {}


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]
