"""kill -9 at random moments: no finished cell is lost or computed again, and the end is that of an undisturbed run.

A few rounds by default; PYHESS_KILL_ROUNDS=50 for many.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

import pyhess as ph

from .conftest import HERE, answers, chaos_spec, finished, python

#: By default one of each kind for our own pool, and one for dask, whose clusters take long to start.
ROUNDS = {engine: int(os.environ.get("PYHESS_KILL_ROUNDS", few)) for engine, few in (("2", 3), ("dask", 1))}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descendants are found in /proc")


def _descendants(root: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
    found, level = [], {root}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found += sorted(level)
    return found


def _workers(root: int) -> list[int]:
    workers = []
    for pid in _descendants(root):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in command:
            workers.append(pid)
    return workers


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("engine", ["2", "dask"])
def test_kills_at_random_moments(tmp_path: Path, engine: str) -> None:
    if engine == "dask":
        pytest.importorskip("distributed", reason="distributed is not installed")
    rng = random.Random(20264 + (engine == "dask"))
    content = chaos_spec(64, pause=0.05, warm="width", seeds=[*range(11, 27)])
    spec, path, calm = tmp_path / "spec.json", tmp_path / "run.db", tmp_path / "calm.db"
    spec.write_text(json.dumps(content))
    with ThreadPoolExecutor(8) as executor:  # most of a cell is a pause
        ph.sweep(content, calm, executor)
    expected = answers(calm)
    known: dict[str, float] = {}
    for number in range(ROUNDS[engine]):
        what = ("worker", "driver", "everything")[number % 3]
        if len(known) == len(expected):  # all done: begin anew
            for file in tmp_path.glob("run.db*"):
                file.unlink()
            known = {}
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                python(str(HERE / "chaos_run.py"), engine, str(path), str(spec)), start_new_session=True, stdout=log, stderr=log
            )
        try:
            deadline, before = time.monotonic() + 120.0, len(known)
            while len(finished(path)) <= before and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(rng.uniform(0.0, 0.6))
            workers = _workers(process.pid)
            if what == "worker" and workers:
                _kill(rng.choice(workers))
                assert process.wait(120) == 0, (tmp_path / "log").read_text()
            elif what == "driver":
                _kill(process.pid)
                process.wait()
                if engine != "dask":  # the workers of our own pool leave with their driver
                    deadline = time.monotonic() + 20.0
                    while any(map(_alive, workers)) and time.monotonic() < deadline:
                        time.sleep(0.05)
                    assert not any(map(_alive, workers))
        finally:
            for pid in (*_descendants(process.pid), process.pid):
                _kill(pid)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        now = finished(path)
        assert all(now.get(key) == when for key, when in known.items()), f"round {number}, {what}: a finished cell was lost"
        known = now
    last = subprocess.run(python(str(HERE / "chaos_run.py"), engine, str(path), str(spec)), capture_output=True, check=False)
    assert last.returncode == 0, last.stderr.decode()
    final = finished(path)
    assert all(final[key] == when for key, when in known.items())
    assert answers(path) == expected
