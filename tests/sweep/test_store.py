"""The store: what it keeps, what it refuses, and what it is turned into."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

import pyhess as ph
from pyhess import FileError, InputError, MissingDependencyError, StoreError
from pyhess.sweep import ANSWER, Export, Store, merge
from pyhess.sweep import _filesystem as filesystem
from pyhess.sweep import _schema as schema

from .conftest import HERE, answers, chaos_spec, python
from .synthetic import synthetic_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_store(tmp_path_factory.mktemp("store") / "run.db", 1000)


def test_rows_and_columns_agree(made: Path) -> None:
    with Store.open(made, readonly=True) as store:
        rows, columns = store.rows(), store.columns(("lam_lower", "axes", "time_limited"))
        assert len(rows) == 1000 and store.counts() == {"done": 975, "failed": 10, "crashed": 5, "pending": 10}
        assert [row["lam_lower"] for row in rows] == columns["lam_lower"]
        assert [row["axes"] for row in rows] == columns["axes"] and rows[7]["time_limited"] is True
        assert [row["key"] for row in rows] == [f"{i:064x}" for i in range(1000)]
        assert store.row(f"{31:064x}") == rows[31] and rows[31]["status"] == "failed"
        assert [row["key"] for row in store.rows("crashed", limit=2)] == [f"{77:064x}", f"{277:064x}"]
        with pytest.raises(InputError, match="allowed: done"):
            store.rows("finished")
        with pytest.raises(InputError, match="no column 'lamlower'"):
            store.columns(("lamlower",))


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(23)
    arrays = {
        "f8": rng.standard_normal((3, 4)), "f4": rng.standard_normal(5).astype(np.float32), "empty": np.zeros((0, 2)),
        "big": rng.standard_normal(6).astype(">f8"), "strided": rng.standard_normal((4, 4))[::2, ::3],
        "flags": np.array([True, False]),
        "special": np.array([np.inf, -np.inf, np.nan, -0.0]), "scalar": np.array(2.5), "i8": np.array([2**62, -3]),
    }  # fmt: skip
    cell = dict.fromkeys(("parent", "predicted_seconds", "predicted_bytes")) | {
        "key": "k", "position": 0, "kind": "search", "axes": {}, "work": {},
    }  # fmt: skip
    with Store.open(tmp_path / "a.db") as store:
        store.set_plan([cell])
        with store.transaction():
            store.put("k", {"status": "done", "lam_upper": math.inf, "lam_lower": math.nan}, arrays)
        with pytest.raises(InputError, match="dtype object"), store.transaction():
            store.put("k", {"status": "failed"}, {"x": np.array([object()])})
    with Store.open(tmp_path / "a.db", readonly=True) as store:
        again = store.arrays("k")
        row = store.row("k")
    assert row is not None and row["status"] == "done" and row["lam_upper"] == math.inf and row["lam_lower"] is None
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        assert again[name].shape == array.shape and again[name].dtype == array.dtype.newbyteorder("<")
        assert again[name].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()


def test_foreign_newer_and_altered_files_are_refused_and_left_alone(tmp_path: Path, made: Path) -> None:
    text, foreign, newer, altered = (tmp_path / name for name in ("text.db", "foreign.db", "newer.db", "altered.db"))
    text.write_bytes(b"no database at all, but long enough to be taken for a page of one" * 20)
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    shutil.copy(made, newer)
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    for path, words in ((text, "not a database"), (foreign, "another SQLite file"), (newer, "newer pyhess")):
        before = path.read_bytes()
        for readonly in (True, False):
            with pytest.raises(StoreError, match=words):
                Store.open(path, readonly=readonly)
        assert path.read_bytes() == before
    shutil.copy(made, altered)
    with closing(sqlite3.connect(altered)) as connection:
        connection.execute("UPDATE arrays SET shape = '[999999999]'")
        connection.commit()
    with Store.open(altered, readonly=True) as store, pytest.raises(StoreError, match="altered"):
        store.arrays("0" * 64)
    with pytest.raises(FileError, match="no store"):
        Store.open(tmp_path / "none.db", readonly=True)
    with pytest.raises(FileError, match="no folder"):
        Store.open(tmp_path / "none" / "run.db")


def test_a_store_that_is_just_being_made_is_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, plain = tmp_path / "run.db", schema.version_of
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        calls = []

        def version_of(connection: sqlite3.Connection) -> int:
            calls.append(connection)
            if len(calls) == 1:
                schema.bring_up_to_date(writer)  # between two looks of a reader
            return plain(connection)

        monkeypatch.setattr(schema, "version_of", version_of)
        with pytest.raises(FileError, match="is empty: a run is just making it"):
            Store.open(path, readonly=True)
        assert len(calls) > 1
        with Store.open(path, readonly=True) as store:
            assert store.counts()["failed"] == 0


def test_an_old_layout_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"{schema.STEPS[0]} PRAGMA application_id = {schema.APPLICATION_ID}; PRAGMA user_version = 1;"
            "INSERT INTO cells (key, position, kind, axes, work, status) VALUES ('k', 0, 'search', '{}', '{}', 'pending');"
        )
    with Store.open(path, readonly=True) as store:  # in memory; the file is not touched
        assert store.counts()["pending"] == 1 and schema.version_of(store.connection) == schema.VERSION
    with closing(sqlite3.connect(path)) as connection:
        assert schema.version_of(connection) == 1
    with Store.open(path) as store:
        assert store.counts()["pending"] == 1
    with closing(sqlite3.connect(path)) as connection:
        assert schema.version_of(connection) == schema.VERSION


def test_one_writer_many_readers(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with Store.open(path):
        code = (
            f"import sys; from pyhess.sweep import Store\ntry: Store.open({str(path)!r})\nexcept Exception as e: sys.exit(str(e))"
        )
        second = subprocess.run(python("-c", code), capture_output=True, text=True, check=False)
        assert second.returncode == 1 and f"process {os.getpid()} on" in second.stderr and "--shard" in second.stderr
        with Store.open(path, readonly=True) as reader:
            assert reader.counts()["done"] == 0
    Store.open(path).close()


def test_the_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    code = (
        f"import os, signal; from pyhess.sweep import Store; s = Store.open({str(path)!r}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run(python("-c", code), check=False).returncode == -9
    Store.open(path).close()


@pytest.mark.parametrize(
    ("kind", "network"),
    [("nfs4", True), ("lustre", True), ("fuse.sshfs", True), ("ext4", False), ("tmpfs", False), ("overlay", False)],
)
def test_file_systems_are_told_apart(tmp_path: Path, kind: str, network: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "my data"
    place.mkdir()
    mounted = os.path.realpath(place).replace(" ", "\\040")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 8:1 / / rw - ext4 /dev/x rw\n30 22 0:5 / {mounted} rw shared:1 - {kind} server:/x rw\nbroken\n")
    assert filesystem.kind_of(place / "run.db", mounts) == kind
    assert filesystem.kind_of(tmp_path / "run.db", mounts) == "ext4"
    monkeypatch.setattr("pyhess.sweep._filesystem.kind_of", lambda path: kind)
    with Store.open(place / "run.db") as store:
        (mode,) = store.connection.execute("PRAGMA journal_mode").fetchone()
        (synchronous,) = store.connection.execute("PRAGMA synchronous").fetchone()
    assert mode == ("delete" if network else "wal") and synchronous == 2


#: Cells of which each takes 20 kB of disk, a few to a batch.
LARGE = chaos_spec(60, pause=0.06, grid={"width": [300, 301, 302, 303]})


@contextmanager
def _mounted(place: Path, options: str) -> Iterator[None]:
    place.mkdir(exist_ok=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a file system needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    spec = LARGE
    with _mounted(disk, "size=900k"):
        with pytest.raises(FileError, match="make room"):
            ph.sweep(spec, disk / "run.db", 0)
        before = answers(disk / "run.db")
        done = [key for key, answer in before.items() if answer[0] == "done"]
        assert 0 < len(done) < 60
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert ph.sweep(spec, disk / "run.db", 0).counts["done"] == 60
        after = answers(disk / "run.db")
        assert all(after[key] == before[key] for key in done)


def test_a_limit_on_file_sizes_loses_nothing(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(LARGE))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        f"sys.path.insert(0, {str(HERE)!r}); import chaos_run\n"
        f"sys.argv = ['x', '0', {str(tmp_path / 'run.db')!r}, {str(spec)!r}]; chaos_run.main()"
    )
    ended = subprocess.run(python("-c", code), capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "FileError" in ended.stderr and "safe" in ended.stderr, ended.stderr
    before = answers(tmp_path / "run.db")
    done = [key for key, answer in before.items() if answer[0] == "done"]
    assert 0 < len(done) < 60
    again = subprocess.run(python(str(HERE / "chaos_run.py"), "0", str(tmp_path / "run.db"), str(spec)), check=False)
    after = answers(tmp_path / "run.db")
    assert again.returncode == 0 and len(after) == 60 and all(after[key] == before[key] for key in done)


def test_a_read_only_folder(tmp_path: Path, made: Path) -> None:
    place = tmp_path / "place"
    with _mounted(place, "size=4m"):
        shutil.copy(made, place / "run.db")
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        with Store.open(place / "run.db", readonly=True) as store:
            assert store.counts()["done"] == 975
        for name in ("run.db", "new.db"):
            with pytest.raises(FileError, match="read-only"):
                Store.open(place / name)


def test_merging_is_idempotent_and_reports_contradictions(tmp_path: Path, made: Path) -> None:
    halves = []
    for i in range(2):
        half = tmp_path / f"{i}.db"
        shutil.copy(made, half)
        with closing(sqlite3.connect(half)) as connection:
            connection.execute("DELETE FROM cells WHERE position % 2 = ?", (i,))
            connection.commit()
        halves.append(half)
    target = tmp_path / "all.db"
    first = merge(target, halves)
    assert (first.added, first.known, first.conflicts) == (1000, 0, ())
    assert answers(target) == answers(made)
    with Store.open(target, readonly=True) as one, Store.open(made, readonly=True) as other:
        assert one.rows() == other.rows() and one.runs() == other.runs()
        assert one.arrays("0" * 64)["theta"].tobytes() == other.arrays("0" * 64)["theta"].tobytes()
    second = merge(target, [*halves, made])
    assert (second.added, second.known, second.conflicts) == (0, 2000, ())
    with closing(sqlite3.connect(halves[0])) as connection:
        connection.execute("UPDATE cells SET lam_lower = 7.5 WHERE position IN (1, 7)")  # 7 was ended by its time limit
        connection.commit()
    assert merge(target, halves).conflicts == (f"{1:064x}",)
    assert answers(target) == answers(made)
    with pytest.raises(InputError, match="target too"):
        merge(target, [target])


def test_exports_round_trip(tmp_path: Path, made: Path) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    export = Export(made)
    frame, rows = export.to_pandas(), export.rows()
    assert len(frame) == 1000 and frame.attrs["axes"][0] == "data" and list(frame.columns[:3]) == ["data", "n", "activation"]
    numbers = [math.nan if row["lam_upper"] is None else row["lam_upper"] for row in rows]
    for other in (
        frame, export.to_polars().to_pandas(), pandas.read_csv(export.to_csv(tmp_path / "t.csv")),
        pandas.read_parquet(export.to_parquet(tmp_path / "t.parquet")), polars.read_parquet(tmp_path / "t.parquet").to_pandas(),
    ):  # fmt: skip
        assert list(other.columns) == list(frame.columns)
        np.testing.assert_array_equal(other["lam_upper"].to_numpy(dtype=np.float64), numbers)
        assert list(other["width"]) == [row["axes"]["width"] for row in rows]
        assert [json.loads(text) if isinstance(text, str) else None for text in other["certificate"]] == [
            r["certificate"] for r in rows
        ]
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(FileError, match="cannot be written"):
        export.to_csv(tmp_path / "none" / "t.csv")


def test_xarray_has_the_axes_that_vary(made: Path) -> None:
    pytest.importorskip("xarray")
    export = Export(made)
    data, rows = export.to_xarray(kind="bracket"), [row for row in export.rows() if row["kind"] == "bracket"]
    assert data.attrs["data"] == "teacher_student" and "width" in data.dims and "n" not in data.dims
    for row in (rows[0], rows[100], rows[-1]):
        point = data.sel({name: row["axes"][name] for name in data.dims})
        np.testing.assert_equal(float(point.lam_lower), math.nan if row["lam_lower"] is None else row["lam_lower"])
        assert point.status == row["status"]
    for arguments in ({}, {"dims": ("width", "depth")}):
        with pytest.raises(InputError, match=r"do not tell.*choose a kind: bracket, search"):
            export.to_xarray(**arguments)
    with pytest.raises(InputError, match="no axis"):
        export.to_xarray(dims=("widht",))


def test_a_missing_package_is_named_with_its_extra(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("pyhess.sweep.export.import_module", refuse)
    for name in ("to_pandas", "to_polars", "to_xarray"):
        with pytest.raises(MissingDependencyError, match=r"pyhess\[export\]"):
            getattr(Export(made), name)()


@pytest.mark.skipif("PYHESS_LONG_TESTS" not in os.environ, reason="half a minute; set PYHESS_LONG_TESTS=1")
def test_a_hundred_thousand_rows_are_read_in_seconds(tmp_path: Path) -> None:
    path = synthetic_store(tmp_path / "run.db", 100_000)
    from pyhess.sweep.status import status_of

    began = time.process_time()
    assert status_of(path)["cells"] == 100_000
    assert time.process_time() - began < 10.0
    began = time.process_time()
    Export(path).to_csv(tmp_path / "t.csv")
    assert time.process_time() - began < 10.0


def test_answer_columns_hold_nothing_measured() -> None:
    assert not {"seconds", "host", "attempts", "finished", "timing", "threads"} & set(ANSWER)
