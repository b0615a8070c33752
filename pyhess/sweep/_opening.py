"""How a store's file is opened: what is no store, or a newer one, is refused and left as it is."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from ..errors import FileError, StoreError
from . import _schema
from ._filesystem import is_network

#: How long a reader or writer waits for another one's transaction.
_WAIT_SECONDS = 30.0


def open_to_write(path: Path) -> sqlite3.Connection:
    """A connection that reads and writes; the file is made, or brought up to date."""
    with _explained(path):
        connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            _check(connection, path, allow_empty=True)
            # A write-ahead log needs memory that all its users share, which a network file system does not give.
            connection.execute(f"PRAGMA journal_mode = {'DELETE' if is_network(path) else 'WAL'}")
            connection.execute("PRAGMA synchronous = FULL")
            fresh = _schema.version_of(connection) == 0
            _schema.bring_up_to_date(connection)
            if fresh:
                about = {"created": f"{time.time():.3f}", "pyhess_version": version()}
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", about.items())
                connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that only reads; a file of an older layout is copied into memory and brought up to date there."""
    if not path.is_file():
        raise FileError(f"there is no store {path}; `pyhess sweep run` makes it.")
    with _explained(path):
        address = path.resolve().as_uri()
        # In a folder that cannot be written SQLite cannot make the shared memory of a write-ahead log; without a log beside it
        # the file alone is complete.
        complete = not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists()
        connection = sqlite3.connect(
            f"{address}?{'immutable=1' if complete else 'mode=ro'}", uri=True, timeout=_WAIT_SECONDS, isolation_level=None
        )
        try:
            _check(connection, path, allow_empty=False)
            if _schema.version_of(connection) < _schema.VERSION:
                copy = sqlite3.connect(":memory:", isolation_level=None)
                connection.backup(copy)
                connection.close()
                _schema.bring_up_to_date(copy)
                connection = copy
        except BaseException:
            connection.close()
            raise
        return connection


def _check(connection: sqlite3.Connection, path: Path, *, allow_empty: bool) -> None:
    """Refuse what is no store and what a newer pyhess made."""
    connection.execute("PRAGMA trusted_schema = OFF")
    # In one transaction, as a run may make the store between two of these.
    connection.execute("BEGIN")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version = _schema.version_of(connection)
    (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    connection.execute("COMMIT")
    if (application, version, tables) == (0, 0, 0):
        if allow_empty:
            return
        raise FileError(f"{path} is empty: a run is just making it, or was ended when it did.")
    if application != _schema.APPLICATION_ID:
        raise StoreError(f"{path} is no store of pyhess but another SQLite file. It is left as it is; choose another name.")
    if version > _schema.VERSION:
        raise StoreError(
            f"{path} has layout {version}, which a newer pyhess made; this one knows layouts up to {_schema.VERSION}. "
            "Upgrade pyhess; the store is left as it is."
        )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "not a database" in text or "malformed" in text:
            raise StoreError(f"{path} is no store of pyhess: {text}. It is left as it is; choose another name.") from error
        raise FileError(f"{path} cannot be opened: {text}.") from error


def version() -> str:
    """The version of this pyhess."""
    try:
        return metadata.version("pyhess")
    except metadata.PackageNotFoundError:
        return "0+unknown"
