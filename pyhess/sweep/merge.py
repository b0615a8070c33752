"""Join stores, for example those of the shards of one sweep."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ._columns import ANSWER, DONE, PENDING
from .journal import SUFFIX
from .store import Store

#: Columns that two stores may have different numbers in without a contradiction: none of a finished cell's answer.
_COMPARED = tuple(name for name in ANSWER if name not in ("error", "error_type"))


@dataclass(frozen=True)
class Merged:
    """What `merge` did: cells that were new to the target, that it had already, and keys of which the answers differ."""

    added: int
    known: int
    conflicts: tuple[str, ...]


def merge(target: str | os.PathLike[str], sources: Sequence[str | os.PathLike[str]]) -> Merged:
    """Copy the cells and runs of stores into another one; doing it again changes nothing.

    A finished cell replaces one that is not; of two finished ones the target's stays, and where their answers differ
    (other than by a time limit) the key is reported.

    Parameters
    ----------
    target : path-like
        Made if it does not exist.
    sources : sequence of path-like
        Read only; a run may be writing to them.

    Raises
    ------
    FileError, StoreError
        If a store cannot be read or written.
    InputError
        If the target is among the sources, or a journal.
    """
    added, known, conflicts = 0, 0, []
    for source in sources:
        if Path(source).resolve() == Path(target).resolve():
            raise InputError(f"{source} is the target too; name other stores to merge into it.")
    if Path(target).suffix == SUFFIX:
        raise InputError(f"{target} is a journal, which only its own run writes; merge into a store whose name ends in .db.")
    with Store.open(target) as into:
        for source in sources:
            with Store.open(source, readonly=True) as store:
                new, old, different = _merge_one(into, store)
            added, known = added + new, known + old
            conflicts += different
    return Merged(added, known, tuple(conflicts))


def _merge_one(into: Store, source: Store) -> tuple[int, int, list[str]]:
    here, there = into.connection, source.connection
    names = [row[1] for row in there.execute("PRAGMA table_info(cells)")]
    mine = {key: (status, limited) for key, status, limited in here.execute("SELECT key, status, time_limited FROM cells")}
    added, known, conflicts = 0, 0, []
    with into.transaction():
        for row in there.execute(f"SELECT {', '.join(names)} FROM cells"):
            cell = dict(zip(names, row, strict=True))
            status, limited = mine.get(cell["key"], (None, None))
            if status is None or _rank(cell["status"]) > _rank(status):
                here.execute(f"INSERT OR REPLACE INTO cells ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", row)
                _copy_arrays(here, there, cell["key"])
                added += 1
                continue
            known += 1
            both_done = status == DONE == cell["status"] and not (limited or cell["time_limited"])
            if both_done and _answer(here, cell["key"]) != tuple(cell[name] for name in _COMPARED):
                conflicts.append(cell["key"])
        for run in there.execute("SELECT * FROM runs").fetchall():
            here.execute(f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * len(run))})", run)
    return added, known, conflicts


def _rank(status: str) -> int:
    return 2 if status == DONE else 0 if status == PENDING else 1


def _copy_arrays(here: sqlite3.Connection, there: sqlite3.Connection, key: str) -> None:
    here.execute("DELETE FROM arrays WHERE key = ?", (key,))
    for row in there.execute("SELECT key, name, dtype, shape, data FROM arrays WHERE key = ?", (key,)):
        here.execute("INSERT INTO arrays (key, name, dtype, shape, data) VALUES (?, ?, ?, ?, ?)", row)


def _answer(connection: sqlite3.Connection, key: str) -> tuple[object, ...]:
    found: tuple[object, ...] = connection.execute(f"SELECT {', '.join(_COMPARED)} FROM cells WHERE key = ?", (key,)).fetchone()
    return found
