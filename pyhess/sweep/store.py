"""The store of a sweep: one SQLite file with a row per cell, written by one driver, readable by anyone meanwhile."""

from __future__ import annotations

import gc
import json
import math
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import FileError, InputError, StoreError
from ._columns import COLUMNS, DONE, JSON, PENDING, STATUSES
from ._lock import WriterLock
from ._opening import open_to_read, open_to_write

AnyArray = npt.NDArray[Any]

#: Kinds of array elements that raw bytes hold.
_ARRAY_KINDS = "biufc"
#: Result columns that a worker may fill.
RESULT_COLUMNS = tuple(
    name for name in COLUMNS if name not in ("key", "kind", "axes", "parent", "predicted_seconds", "predicted_bytes")
)

#: Columns that are something else in the file than in Python.
_DECODED = JSON | {"time_limited"}


class Store:
    """Results of a sweep in one file.

    A store is opened with `Store.open`. One process at a time writes; any number read, also while it is written. On a local
    file system SQLite's write-ahead log is used, on a network file system its rollback journal; both flush every transaction to
    the disk. A name that ends in .jsonl makes a file of lines that only grows, see `pyhess.sweep.journal`.

    Examples
    --------
    >>> import tempfile
    >>> from pyhess.sweep import Store
    >>> with tempfile.TemporaryDirectory() as folder, Store.open(f"{folder}/run.db") as store:
    ...     store.counts()
    {'done': 0, 'failed': 0, 'crashed': 0, 'pending': 0}
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: WriterLock | None) -> None:
        self.path = path
        #: For what has no method here; written within `transaction` only.
        self.connection = connection
        self._lock = lock

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, readonly: bool = False) -> Store:
        """Open a store; one that does not exist is made unless it is to be read only.

        Parameters
        ----------
        path : str or path-like
            The file.
        readonly : bool
            Read only: works beside a running driver and in folders that cannot be written.

        Raises
        ------
        StoreError
            If another process writes to it, a newer pyhess made it, or it is no store.
        FileError
            If it cannot be read or made.
        """
        from . import journal

        file = Path(path)
        lines = file.suffix == journal.SUFFIX
        if readonly:
            return journal.open_journal_to_read(file) if lines else cls(file, open_to_read(file), None)
        if not file.parent.is_dir():
            raise FileError(f"{file} cannot be written: there is no folder {file.parent}. Make it first.")
        if file.is_dir() or not os.access(file.parent, os.W_OK) or (file.exists() and not os.access(file, os.W_OK)):
            raise FileError(f"{file} cannot be written: it is a folder, or it or its folder is read-only. Choose another place.")
        lock = WriterLock.acquire(file, needed=not lines)
        try:
            return journal.open_journal_to_write(file, lock) if lines else cls(file, open_to_write(file), lock)
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def close(self) -> None:
        """Close the file; what was written stays."""
        self.connection.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- reading ------------------------------------------------------------------------------------------------------------

    def rows(self, status: str | None = None, *, limit: int | None = None) -> list[dict[str, Any]]:
        """All cells in the order of the specification, each a dictionary of the columns in ``pyhess.sweep.COLUMNS``.

        ``axes``, ``certificate``, ``extra`` and ``timing`` are decoded, ``time_limited`` is a bool; what is missing is None.

        Parameters
        ----------
        status : str, optional
            Only cells of this status: "done", "failed", "crashed" or "pending".
        limit : int, optional
            Only so many, the first.
        """
        where, values = self._where(status)
        query = f"SELECT {', '.join(COLUMNS)} FROM cells {where} ORDER BY position, key"
        query += "" if limit is None else f" LIMIT {int(limit)}"
        with _no_collection():
            return [_row(found) for found in self.connection.execute(query, values)]

    def columns(
        self, names: Sequence[str] = COLUMNS, status: str | None = None, *, as_text: Collection[str] = ()
    ) -> dict[str, list[Any]]:
        """The same as lists, one per column; JSON columns are decoded, but for those wanted as text."""
        unknown = [name for name in names if name not in COLUMNS]
        if unknown:
            raise InputError(f"there is no column {unknown[0]!r}; allowed: {', '.join(COLUMNS)}.")
        where, values = self._where(status)
        query = f"SELECT {', '.join(names)} FROM cells {where} ORDER BY position, key"
        with _no_collection():
            table = self.connection.execute(query, values).fetchall()
            return {
                name: [_value(name, row[i]) for row in table]
                if name in _DECODED and name not in as_text
                else [row[i] for row in table]
                for i, name in enumerate(names)
            }

    @staticmethod
    def _where(status: str | None) -> tuple[str, tuple[str, ...]]:
        if status is None:
            return "", ()
        if status not in STATUSES:
            raise InputError(f"status is {status!r}; allowed: {', '.join(STATUSES)}.")
        return "WHERE status = ?", (status,)

    def counts(self) -> dict[str, int]:
        """How many cells there are of each status."""
        found = dict(self.connection.execute("SELECT status, COUNT(*) FROM cells GROUP BY status"))
        return {status: int(found.get(status, 0)) for status in STATUSES}

    def states(self) -> dict[str, tuple[str, int, str | None]]:
        """(status, attempts, start) by key."""
        found = self.connection.execute("SELECT key, status, attempts, start FROM cells")
        return {key: (status, tries, start) for key, status, tries, start in found}

    def row(self, key: str) -> dict[str, Any] | None:
        """One cell, or None."""
        found = self.connection.execute(f"SELECT {', '.join(COLUMNS)} FROM cells WHERE key = ?", (key,)).fetchone()
        return None if found is None else _row(found)

    def work(self, key: str) -> dict[str, Any] | None:
        """What a cell's key is the hash of: everything that its answer depends on."""
        found = self.connection.execute("SELECT work FROM cells WHERE key = ?", (key,)).fetchone()
        return None if found is None else json.loads(found[0])

    def slowest(self) -> dict[str, Any] | None:
        """The finished cell that took longest."""
        found = self.connection.execute(
            "SELECT key FROM cells WHERE status = ? ORDER BY seconds DESC LIMIT 1", (DONE,)
        ).fetchone()
        return None if found is None else self.row(found[0])

    def time_limited(self) -> int:
        """How many finished cells their time limit ended."""
        (count,) = self.connection.execute("SELECT COUNT(*) FROM cells WHERE time_limited = 1").fetchone()
        return int(count)

    def seconds(self) -> dict[str, dict[str, float]]:
        """Per status: predicted and used seconds of all its cells together."""
        query = "SELECT status, TOTAL(predicted_seconds), TOTAL(seconds) FROM cells GROUP BY status"
        return {status: {"predicted": predicted, "used": used} for status, predicted, used in self.connection.execute(query)}

    def arrays(self, key: str) -> dict[str, AnyArray]:
        """The arrays of a cell by name, for example theta (P,) and v (P,) of a witness; read-only."""
        query = "SELECT name, dtype, shape, data FROM arrays WHERE key = ? ORDER BY name"
        return {name: decoded_array(*stored) for name, *stored in self.connection.execute(query, (key,))}

    def runs(self) -> list[dict[str, Any]]:
        """The runs that wrote here, oldest first: run_id, started, ended, state, spec, provenance, live."""
        names = ("run_id", "started", "ended", "state", "spec", "provenance", "live")
        runs = []
        for values in self.connection.execute(f"SELECT {', '.join(names)} FROM runs ORDER BY started"):
            run = dict(zip(names, values, strict=True))
            for name in ("spec", "provenance", "live"):
                run[name] = None if run[name] is None else json.loads(run[name])
            runs.append(run)
        return runs

    @property
    def meta(self) -> dict[str, str]:
        """When and by which pyhess the file was made."""
        return dict(self.connection.execute("SELECT name, value FROM meta"))

    # --- writing ------------------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is written to the disk at its end, or nothing.

        Raises
        ------
        FileError
            If the disk is full or fails; what was written before is kept.
        """
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise FileError(
                    f"{self.path} could not be written: {error}. What was finished before is safe in it; make room or repair the "
                    "disk, and run the same command again."
                ) from error
            raise

    def set_plan(self, cells: Iterable[Mapping[str, Any]], again: Iterable[str] = ()) -> None:
        """Make these cells the ones that are pending, besides those that have a result.

        Each has key, position, kind, axes, work, parent, predicted_seconds and predicted_bytes. Pending cells of an earlier
        plan are forgotten, and so are the results of those to be done ``again``.
        """
        names = ("key", "position", "kind", "axes", "work", "parent", "predicted_seconds", "predicted_bytes")
        rows = [tuple(encoded_value(name, cell[name]) for name in names) for cell in cells]
        with self.transaction():
            self.connection.execute("DELETE FROM cells WHERE status = ?", (PENDING,))
            self.connection.executemany(
                f"INSERT INTO cells ({', '.join(names)}, status) VALUES ({'?, ' * len(names)}'{PENDING}') "
                "ON CONFLICT (key) DO UPDATE SET position = excluded.position, axes = excluded.axes",
                rows,
            )
            if again:
                cleared = ", ".join(f"{name} = NULL" for name in RESULT_COLUMNS if name not in ("status", "attempts"))
                self.connection.executemany(
                    f"UPDATE cells SET status = '{PENDING}', {cleared} WHERE key = ?", [(key,) for key in again]
                )

    def put(self, key: str, result: Mapping[str, Any], arrays: Mapping[str, AnyArray] | None = None) -> None:
        """Write what came of a cell; within `transaction`."""
        names = list(result)
        unknown = [name for name in names if name not in RESULT_COLUMNS]
        if unknown:
            raise InputError(f"a result has no column {unknown[0]!r}; allowed: {', '.join(RESULT_COLUMNS)}.")
        values = [encoded_value(name, result[name]) for name in names]
        assignments = ", ".join(f"{name} = ?" for name in names)
        self.connection.execute(f"UPDATE cells SET {assignments} WHERE key = ?", (*values, key))
        self.connection.execute("DELETE FROM arrays WHERE key = ?", (key,))
        for name, array in (arrays or {}).items():
            self.connection.execute("INSERT INTO arrays VALUES (?, ?, ?, ?, ?)", (key, name, *raw_array(name, array)))

    def begin_run(self, run_id: str, spec: Mapping[str, Any], provenance: Mapping[str, Any], at: float | None = None) -> None:
        """Note a run that begins now, or began ``at`` a time."""
        with self.transaction():
            self.connection.execute(
                "UPDATE runs SET state = 'killed' WHERE state = 'running'"
            )  # the lock is ours: whoever left no end is gone
            self.connection.execute(
                "INSERT INTO runs VALUES (?, ?, NULL, 'running', ?, ?, NULL)",
                (run_id, time.time() if at is None else at, _dumps(spec), _dumps(provenance)),
            )

    def set_live(self, run_id: str, live: Mapping[str, Any]) -> None:
        """Note what a run is doing; within `transaction`."""
        self.connection.execute("UPDATE runs SET live = ? WHERE run_id = ?", (_dumps(live), run_id))

    def end_run(self, run_id: str, state: str, at: float | None = None) -> None:
        """Note how a run ended: "finished", "interrupted" or "stopped"."""
        ended = time.time() if at is None else at
        with self.transaction():
            self.connection.execute("UPDATE runs SET state = ?, ended = ? WHERE run_id = ?", (state, ended, run_id))


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection while many objects are made that are all kept: it would look through them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _row(values: Sequence[Any]) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in zip(COLUMNS, values, strict=True)}


def _value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in JSON:
        return json.loads(value)
    return bool(value) if name == "time_limited" else value


def _dumps(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def encoded_value(name: str, value: Any) -> Any:
    """A value as SQLite takes it."""
    if value is None:
        return None
    if name in JSON:
        return value if isinstance(value, str) else _dumps(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str):  # a file name in a message may be no text at all, which SQLite refuses
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value


def raw_array(name: str, array: AnyArray) -> tuple[str, str, bytes]:
    """Type, shape as JSON, and little-endian bytes."""
    if array.dtype.kind not in _ARRAY_KINDS:
        raise InputError(f"the array {name!r} has dtype {array.dtype}; allowed are numbers and booleans.")
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.dtype.str, _dumps(list(array.shape)), little.tobytes()


def decoded_array(dtype: str, shape: str, data: bytes) -> AnyArray:
    """The array of `raw_array`, read-only."""
    kind, sizes = np.dtype(dtype), json.loads(shape)
    if kind.kind not in _ARRAY_KINDS:
        raise StoreError(f"an array has dtype {dtype!r}; allowed are numbers and booleans. The store was altered.")
    if not all(isinstance(size, int) and size >= 0 for size in sizes) or math.prod(sizes) * kind.itemsize != len(data):
        raise StoreError(f"an array of shape {sizes} and dtype {dtype} has {len(data)} bytes. The store was altered.")
    return np.frombuffer(data, dtype=kind).reshape(sizes)
