"""``pyhess sweep`` on the command line."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyhess.cli.app import app
from pyhess.cli.sweep_progress import progress_text, span_text
from pyhess.sweep import Store

from .conftest import HERE, chaos_spec, python

SMALL = """
[compute]
kind = "search"
starts = 2
[grid]
data = "xor"
n = 20
width = [2, 3]
radius = 0.5
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)])


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "s.toml"
    path.write_text(SMALL)
    return path


def test_from_init_to_export(tmp_path: Path, spec: Path) -> None:
    example = tmp_path / "example.toml"
    assert run("init", example).exit_code == 0
    assert run("init", example).exit_code == 3 and run("init").stdout == example.read_text()
    planned = json.loads(run("plan", example, "--json").stdout)
    assert planned["cells"] == 24 and planned["core_hours"] > 0.0
    text = run("plan", spec)
    assert text.exit_code == 0 and "2 (0 duplicates left out, 0 done)" in text.stdout and "core hours" in text.stdout
    done = run("run", spec, "--engine", "in-process", "-q", "--json")
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert content["counts"]["done"] == 2 and content["state"] == "finished" and content["fraction"] == 1.0
    store = tmp_path / "s.db"
    assert "2 done" in run("plan", spec, "--store", store).stdout
    assert "2 done, 0 failed" in run("status", store).stdout
    assert run("export", store, "-o", tmp_path / "t.csv").exit_code == 0
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 3
    assert run("export", store, "-o", tmp_path / "t.xlsx").exit_code == 2


def test_shards_and_merge(tmp_path: Path, spec: Path) -> None:
    parts = [tmp_path / "a.db", tmp_path / "b.db"]
    for i, part in enumerate(parts):
        assert run("run", spec, "--shard", f"{i + 1}/2", "--store", part, "--engine", "in-process", "-q").exit_code == 0
    assert run("merge", tmp_path / "all.db", *parts).exit_code == 0
    merged = json.loads(run("merge", tmp_path / "all.db", *parts, "--json").stdout)
    assert merged == {"added": 0, "known": 2, "conflicts": []}
    assert json.loads(run("status", tmp_path / "all.db", "--json").stdout)["counts"]["done"] == 2
    assert run("run", spec, "--shard", "3/2").exit_code == 2


def test_exit_codes(tmp_path: Path, spec: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(SMALL.replace("width", "widht"))
    result = run("run", bad)
    assert result.exit_code == 2 and "Did you mean 'width'" in result.output
    assert run("run", tmp_path / "none.toml").exit_code == 3
    assert run("status", tmp_path / "none.db").exit_code == 3
    foreign = tmp_path / "foreign.db"
    foreign.write_text("no store" * 1000)
    assert run("status", foreign).exit_code == 5 and run("run", spec, "--store", foreign).exit_code == 5
    with Store.open(tmp_path / "held.db"):
        held = run("run", spec, "--store", tmp_path / "held.db", "--engine", "in-process")
        assert held.exit_code == 5 and "is being written by process" in held.output
    bad.write_text(SMALL.replace('"xor"', '"iris"').replace("radius = 0.5", 'radius = 1e200\nactivation = "gelu"'))
    failed = run("run", bad, "--engine", "in-process", "-q")
    assert failed.exit_code == 1 and "failed" in failed.stdout, failed.output


def test_status_from_another_process_while_a_run_is_live(tmp_path: Path) -> None:
    content, store = tmp_path / "spec.json", tmp_path / "run.db"
    content.write_text(json.dumps(chaos_spec(200, pause=0.2)))
    process = subprocess.Popen(python(str(HERE / "chaos_run.py"), "2", str(store), str(content)), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120.0
        seen = None
        while time.monotonic() < deadline:
            time.sleep(0.3)
            if store.exists() and (result := run("status", store, "--json")).exit_code == 0:
                seen = json.loads(result.stdout)
                if seen["live"] and seen["counts"]["done"] and seen["live"]["running"]:  # told once a second
                    break
        assert seen is not None and seen["state"] == "running" and seen["live"]["workers"] == 2
        assert 0.0 < seen["fraction"] < 1.0 and seen["live"]["eta_seconds"][1] > 0.0 and seen["live"]["running"]
    finally:
        process.kill()
        process.wait()
    assert json.loads(run("status", store, "--json").stdout)["state"] == "killed"


def test_progress_lines() -> None:
    state = {
        "updated": 100.0, "seconds": 12.0, "counts": {"done": 3, "failed": 1, "crashed": 0, "pending": 6}, "fraction": 0.25,
        "eta_seconds": [3000.0, 9000.0], "stopping": False, "compiling": False,
        "running": [{"axes": {"data": "[red]x", "width": 8}, "cells": 1, "since": 70.0}],
    }  # fmt: skip
    text = progress_text(state)
    assert (
        "25.0 %" in text and "3 done, 1 failed, 6 to do" in text and "0.8-2.5 h" in text and "30 s: data=[red]x width=8" in text
    )
    assert "compiling" in progress_text({**state, "compiling": True})
    assert span_text([1.0, 2.0]) == "1-2 s" and "stopping" in progress_text({**state, "stopping": True})
