"""Journals: what shards write on network file systems, and what is left of one whose writer was ended."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import pyhess as ph
from pyhess import FileError, InputError, StoreError
from pyhess.sweep import Store, _schema, merge
from pyhess.sweep.journal import Journal

from .conftest import HERE, answers, chaos_spec, finished, python

SPEC = chaos_spec(24, pause=0.001, warm="width")


def _cell(key: str) -> dict[str, object]:
    empty = dict.fromkeys(("parent", "predicted_seconds", "predicted_bytes"))
    return {**empty, "key": key, "position": int(key), "kind": "search", "axes": {"width": 2}, "work": {"x": 0.1}}


def _journal(path: Path, keys: str = "123") -> dict[str, tuple[object, ...]]:
    """A journal with a finished cell per transaction."""
    with Store.open(path) as store:
        assert isinstance(store, Journal)
        store.set_plan(_cell(key) for key in keys)
        for key in keys:
            with store.transaction():
                store.put(key, {"status": "done", "lam_lower": float(key) / 3.0, "lam_upper": math.inf, "extra": {"é": 1}})
    return answers(path)


def test_shards_in_journals_merge_into_what_one_store_has(tmp_path: Path) -> None:
    assert ph.sweep(SPEC, tmp_path / "one.db", 0).counts["done"] == 24
    parts = [tmp_path / f"part.{i}-2.jsonl" for i in (1, 2)]
    for i, part in enumerate(parts, start=1):
        assert ph.sweep(SPEC, part, 0, shard=(i, 2)).counts == {"done": 12, "failed": 0, "crashed": 0, "pending": 0}
    target = tmp_path / "all.db"
    assert merge(target, parts).added == 24
    assert answers(target) == answers(tmp_path / "one.db")
    with Store.open(target, readonly=True) as store:
        before = store.rows(), store.runs(), {row["key"]: store.arrays(row["key"])["theta"].tobytes() for row in store.rows()}
    again = merge(target, [*parts, *parts])
    assert (again.added, again.known, again.conflicts) == (0, 48, ())
    with Store.open(target, readonly=True) as store:
        after = store.rows(), store.runs(), {row["key"]: store.arrays(row["key"])["theta"].tobytes() for row in store.rows()}
    assert after == before and len(before[1]) == 2
    with pytest.raises(InputError, match=r"journal.*\.db"):
        merge(parts[0], [parts[1]])


def test_a_journal_says_what_a_store_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(29)
    arrays = {
        "f4": rng.standard_normal((2, 3)).astype(np.float32),
        "special": np.array([np.inf, np.nan, -0.0]),
        "none": np.zeros((0, 2)),
    }
    for name in ("a.db", "a.jsonl"):
        with Store.open(tmp_path / name) as store:
            store.begin_run("r", {"name": "x"}, {"host": "h"}, 5.0)
            store.set_plan([_cell("1"), _cell("2"), _cell("3")])
            with store.transaction():
                store.put("1", {"status": "done", "lam_upper": math.inf, "lam_lower": math.nan, "time_limited": True}, arrays)
                store.put("2", {"status": "failed", "error": "bad name \udcff"})
            with pytest.raises(InputError, match="dtype object"), store.transaction():
                store.put("2", {"status": "done"})
                store.put("3", {"status": "done"}, {"x": np.array([object()])})
            store.set_plan([_cell("2"), _cell("4")], again=["2"])
            store.end_run("r", "finished", 7.0)
    with Store.open(tmp_path / "a.db", readonly=True) as one, Store.open(tmp_path / "a.jsonl", readonly=True) as other:
        assert one.rows() == other.rows() and one.runs() == other.runs() and one.counts() == other.counts()
        assert other.counts() == {"done": 1, "failed": 0, "crashed": 0, "pending": 2}
        for name, array in arrays.items():
            assert other.arrays("1")[name].tobytes() == array.tobytes() and other.arrays("1")[name].shape == array.shape
    for line in (tmp_path / "a.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_torn_line_is_as_if_it_had_never_been(tmp_path: Path) -> None:
    path, torn = tmp_path / "run.jsonl", tmp_path / "torn.jsonl"
    whole = _journal(path)
    content = path.read_bytes()
    begin = content.rstrip(b"\n").rindex(b"\n") + 1  # of the last line, which holds cell 3
    ends = [content[: begin + size] for size in (1, 40, len(content) - begin - 1)]
    for damaged in (*ends, content[:-9] + b"\0\0\0\0\0\0\0\0\n"):
        torn.write_bytes(damaged)
        assert answers(torn)["3"][0] == "pending" and {key: answers(torn)[key] for key in "12"} == {
            key: whole[key] for key in "12"
        }
        assert torn.read_bytes() == damaged  # who reads leaves it alone
        with Store.open(torn) as store, store.transaction():
            store.put("3", {"status": "done", "lam_lower": 1.0, "lam_upper": math.inf, "extra": {"é": 1}})
        assert answers(torn) == whole
        assert torn.read_bytes().startswith(content[:begin])


def test_damage_elsewhere_and_foreign_or_newer_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    _journal(path)
    lines = path.read_bytes().split(b"\n")
    middle = b"\n".join([*lines[:2], lines[2][:-5], *lines[3:]])
    newer = path.read_bytes().replace(b'"layout":%d' % _schema.VERSION, b'"layout":%d' % (_schema.VERSION + 1))
    for content, words in (
        (middle, "line 3 of .* damaged"),
        (newer, "newer pyhess"),
        (b'{"a": 1}\n', "no store"),
        (b"x", "no store"),
    ):
        path.write_bytes(content)
        for readonly in (True, False):
            with pytest.raises(StoreError, match=words):
                Store.open(path, readonly=readonly)
        assert path.read_bytes() == content
    path.write_bytes(b'{"pyhess"')  # ended when it was made
    with pytest.raises(FileError, match="empty"):
        Store.open(path, readonly=True)
    assert _journal(path)["1"][0] == "done"
    with pytest.raises(FileError, match="cannot be read"):
        Store.open(tmp_path / "none.jsonl", readonly=True)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.jsonl"
    real = os.write

    def full(descriptor: int, content: bytes) -> int:
        real(descriptor, bytes(content)[:7])
        raise OSError(28, "No space left on device")

    with Store.open(path) as store:
        store.set_plan([_cell("1"), _cell("2")])
        with store.transaction():
            store.put("1", {"status": "done"})
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(FileError, match="make room"), store.transaction():
            store.put("2", {"status": "done"})
        monkeypatch.undo()
        assert path.read_bytes() == before and store.counts() == {"done": 1, "failed": 0, "crashed": 0, "pending": 1}
        with store.transaction():
            store.put("2", {"status": "failed"})
    assert {key: answer[0] for key, answer in answers(path).items()} == {"1": "done", "2": "failed"}


def test_a_killed_run_goes_on_and_computes_nothing_twice(tmp_path: Path) -> None:
    spec, path = tmp_path / "spec.json", tmp_path / "run.jsonl"
    spec.write_text(json.dumps(chaos_spec(40, pause=0.04)))
    code = (
        f"import os, signal, sys; sys.path.insert(0, {str(HERE)!r}); import chaos_run\n"
        "from pyhess.sweep import journal; real = journal.append\n"
        "def append(descriptor, path, content):\n"
        "    real(descriptor, path, content)\n"
        "    if sum(step[0] == 'put' for step in content if isinstance(step, list)):\n"
        "        os.write(descriptor, b'[[\"put\"'); os.kill(os.getpid(), signal.SIGKILL)\n"
        f"journal.append = append\nsys.argv = ['x', '0', {str(path)!r}, {str(spec)!r}]; chaos_run.main()"
    )
    assert subprocess.run(python("-c", code), check=False).returncode == -9
    before = finished(path)
    assert 0 < len(before) < 40
    assert ph.sweep(chaos_spec(40, pause=0.04), path, 0).counts["done"] == 40
    after = finished(path)
    assert {key: after[key] for key in before} == before
    with Store.open(path, readonly=True) as store:
        assert [run["state"] for run in store.runs()] == ["killed", "finished"]


def test_the_shards_of_a_command_are_journals_on_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyhess.cli.sweep import _default_store

    spec = str(tmp_path / "sweep.toml")
    assert _default_store(spec, (2, 8)) == str(tmp_path / "sweep.2-8.db")
    monkeypatch.setattr("pyhess.sweep._filesystem.kind_of", lambda path: "nfs4")
    assert _default_store(spec, (2, 8)) == str(tmp_path / "sweep.2-8.jsonl")
    assert _default_store(spec, (1, 1)) == str(tmp_path / "sweep.db")  # with a rollback journal
    (tmp_path / "sweep.2-8.db").touch()
    assert _default_store(spec, (2, 8)) == str(tmp_path / "sweep.2-8.db")  # it was begun there
