"""A store as a journal: one file that only grows, a line of JSON per transaction, for shards on network file systems.

There SQLite depends on locks and on writes in place, of which little can be assumed. A journal has one writer and needs neither:
a line is appended, flushed to the disk, and counts when it is there. Only the last line can be torn, by the end of its writer,
and is then as if it had never been. To be read, the lines are played back into a temporary SQLite database, so that a journal
can do what any other store can.
"""

from __future__ import annotations

import base64
import json
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import FileError, StoreError
from . import _schema
from ._lock import WriterLock
from ._opening import version
from .store import AnyArray, Store, decoded_array, encoded_value, raw_array

#: A store of this suffix is a journal.
SUFFIX = ".jsonl"
_HEAD = b'{"pyhess":"journal",'
#: Columns that may be infinite, which JSON has no number for.
_INFINITE = ("lam_lower", "lam_upper", "psi_upper", "psi_lower")


class Journal(Store):
    """A journal that is written; `Store.open` makes it."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: WriterLock | None, descriptor: int) -> None:
        super().__init__(path, connection, lock)
        self._descriptor = descriptor
        self._steps: list[list[Any]] = []

    def close(self) -> None:
        """Close the file; what was written stays."""
        os.close(self._descriptor)
        super().close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is written to the disk at its end, as one line, or nothing."""
        try:
            with super().transaction():
                yield
                if self._steps:
                    append(self._descriptor, self.path, self._steps)
        finally:
            self._steps = []

    def set_plan(self, cells: Iterable[Mapping[str, Any]], again: Iterable[str] = ()) -> None:
        """See `Store.set_plan`."""
        listed, keys = [dict(cell) for cell in cells], list(again)
        with self._noted("set_plan", listed, keys):
            super().set_plan(listed, keys)

    def put(self, key: str, result: Mapping[str, Any], arrays: Mapping[str, AnyArray] | None = None) -> None:
        """See `Store.put`."""
        super().put(key, result, arrays)
        values = {name: encoded_value(name, value) for name, value in result.items()}
        values |= {
            name: str(values[name]) for name in _INFINITE if isinstance(values.get(name), float) and math.isinf(values[name])
        }
        raw = {name: raw_array(name, array) for name, array in (arrays or {}).items()}
        self._steps.append(
            ["put", key, values, {name: [*about, base64.b64encode(data).decode()] for name, (*about, data) in raw.items()}]
        )

    def begin_run(self, run_id: str, spec: Mapping[str, Any], provenance: Mapping[str, Any], at: float | None = None) -> None:
        """See `Store.begin_run`."""
        at = time.time() if at is None else at
        with self._noted("begin_run", run_id, dict(spec), dict(provenance), at):
            super().begin_run(run_id, spec, provenance, at)

    def end_run(self, run_id: str, state: str, at: float | None = None) -> None:
        """See `Store.end_run`."""
        at = time.time() if at is None else at
        with self._noted("end_run", run_id, state, at):
            super().end_run(run_id, state, at)

    @contextmanager
    def _noted(self, *step: Any) -> Iterator[None]:
        """Write a step with the transaction that is opened inside; forget it if that is never reached."""
        self._steps.append(list(step))
        try:
            yield
        finally:
            self._steps = []


def append(descriptor: int, path: Path, content: Any) -> None:
    """Write one line to the disk, or nothing.

    Raises
    ------
    FileError
        If the disk is full or fails.
    """
    line = json.dumps(content, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    size = os.fstat(descriptor).st_size
    try:
        left = memoryview(line)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    except OSError as error:
        os.ftruncate(descriptor, size)
        raise FileError(
            f"{path} could not be written: {error.strerror}. What was finished before is safe in it; make room or repair the "
            "disk, and run the same command again."
        ) from error


def open_journal_to_read(path: Path) -> Store:
    """A store that only reads.

    Raises
    ------
    FileError, StoreError
        If there is none, or it is something else, newer, or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}. `pyhess sweep run` makes it.") from error
    connection, _, begun = _played_back(path, content)
    if not begun:
        raise FileError(f"{path} is empty: a run is just making it, or was ended when it did.")
    return Store(path, connection, None)


def open_journal_to_write(path: Path, lock: WriterLock | None) -> Journal:
    """A journal to go on with, without its torn end; made if there is none.

    Raises
    ------
    FileError, StoreError
        If it cannot be written, or is something else, newer, or damaged.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror}.") from error
    try:
        connection, size, begun = _played_back(path, path.read_bytes())
        os.ftruncate(descriptor, size)
        if not begun:
            about = {"pyhess": "journal", "layout": _schema.VERSION, "created": f"{time.time():.3f}", "pyhess_version": version()}
            append(descriptor, path, about)
            _note(connection, about)
    except BaseException:
        os.close(descriptor)
        raise
    return Journal(path, connection, lock, descriptor)


def _played_back(path: Path, content: bytes) -> tuple[sqlite3.Connection, int, bool]:
    """A temporary database of a journal's content, the size of what is not torn, and whether there was anything."""
    connection = sqlite3.connect("", isolation_level=None)
    connection.execute("PRAGMA journal_mode = MEMORY")
    connection.execute("PRAGMA synchronous = OFF")
    _schema.bring_up_to_date(connection)
    if not content.startswith(_HEAD) and not _HEAD.startswith(content):
        raise StoreError(f"{path} is no store of pyhess. It is left as it is; choose another name.")
    lines = content.split(b"\n")
    torn = lines.pop()
    into, number = Store(path, connection, None), 0
    for number, line in enumerate(lines, start=1):
        try:
            if number == 1:
                _check_head(path, json.loads(line), connection)
            else:
                _play(into, json.loads(line))
        except StoreError:
            raise
        except (ValueError, TypeError, KeyError, sqlite3.Error) as error:
            if number < len(lines) or torn or number == 1:
                raise StoreError(f"line {number} of {path} is damaged ({error}). Take the file from a backup.") from error
            torn, number = line + b"\n", number - 1  # it has its end but not its middle: never acknowledged
    return connection, len(content) - len(torn), number > 0


def _check_head(path: Path, head: Mapping[str, Any], connection: sqlite3.Connection) -> None:
    if head["layout"] > _schema.VERSION:
        raise StoreError(
            f"{path} has layout {head['layout']}, which a newer pyhess made; this one knows layouts up to {_schema.VERSION}. "
            "Upgrade pyhess; the store is left as it is."
        )
    _note(connection, head)


def _note(connection: sqlite3.Connection, head: Mapping[str, Any]) -> None:
    rows = [(name, str(head[name])) for name in ("created", "pyhess_version")]
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)


def _play(into: Store, steps: list[list[Any]]) -> None:
    for name, *arguments in steps:
        if name == "put":
            key, values, raw = arguments
            values |= {column: float(values[column]) for column in _INFINITE if isinstance(values.get(column), str)}
            arrays = {name: decoded_array(dtype, shape, base64.b64decode(data)) for name, (dtype, shape, data) in raw.items()}
            into.put(key, values, arrays)
        elif name in ("set_plan", "begin_run", "end_run"):
            getattr(into, name)(*arguments)
        else:
            raise ValueError(f"unknown step {name!r}")
