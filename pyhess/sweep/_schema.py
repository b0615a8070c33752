"""Layout of a store: an SQLite file, built up step by step, so that an old one is brought up to date by the steps it lacks."""

from __future__ import annotations

import sqlite3

#: ``PRAGMA application_id`` of every store: "pyhs".
APPLICATION_ID = 0x70796873

_FIRST = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    started REAL NOT NULL,
    ended REAL,
    state TEXT NOT NULL,
    spec TEXT NOT NULL,
    provenance TEXT NOT NULL,
    live TEXT
);
CREATE TABLE cells (
    key TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    kind TEXT NOT NULL,
    axes TEXT NOT NULL,
    work TEXT NOT NULL,
    parent TEXT,
    status TEXT NOT NULL,
    lam_lower REAL, lam_upper REAL, psi_upper REAL, psi_lower REAL,
    outcome TEXT, scope TEXT, method TEXT, certificate TEXT, best_family TEXT, extra TEXT,
    start TEXT, time_limited INTEGER,
    num_params INTEGER, num_samples INTEGER, num_starts INTEGER, num_jets INTEGER, num_matvecs INTEGER,
    error_type TEXT, error TEXT, traceback TEXT,
    seconds REAL, cpu_seconds REAL, predicted_seconds REAL, predicted_bytes REAL, peak_bytes REAL,
    attempts INTEGER NOT NULL DEFAULT 0, threads INTEGER, host TEXT, finished REAL, run_id TEXT, timing TEXT
);
CREATE TABLE arrays (
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    dtype TEXT NOT NULL,
    shape TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (key, name)
);
"""
#: `status` counts the cells of each status, and names the slowest, many times a minute while a large sweep runs.
_SECOND = "CREATE INDEX cells_by_status ON cells (status, seconds);"

STEPS = (_FIRST, _SECOND)
VERSION = len(STEPS)


def version_of(connection: sqlite3.Connection) -> int:
    """The layout's version; 0 for an empty file."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Apply the steps that the file lacks, all of them or none."""
    begin = version_of(connection)
    if begin == VERSION:
        return
    script = "".join(STEPS[begin:])
    connection.executescript(
        f"BEGIN IMMEDIATE;{script}PRAGMA application_id = {APPLICATION_ID};PRAGMA user_version = {VERSION};COMMIT;"
    )
