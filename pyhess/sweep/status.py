"""What a store says about its sweep, from any process and while a run is live."""

from __future__ import annotations

import os
import time
from typing import Any

from ._columns import CRASHED, DONE, FAILED, PENDING
from ._lock import is_locked
from .store import Store

#: Version of the layout of `status_of`.
SCHEMA_VERSION = 1
#: Cells without a result that are listed.
_LISTED = 20


def status_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Counts, progress by predicted cost, the slowest cell, troubles, and what the run that is live does now; JSON-safe.

    Raises
    ------
    FileError, StoreError
        If there is no store, or it is none.
    """
    with Store.open(path, readonly=True) as store:
        counts, seconds, slowest, runs = store.counts(), store.seconds(), store.slowest(), store.runs()
        troubles = [
            {name: row[name] for name in ("key", "axes", "status", "attempts", "error_type", "error")}
            for status in (CRASHED, FAILED)
            for row in store.rows(status, limit=_LISTED)
        ]
        limited = store.time_limited()
    predicted = {name: seconds.get(name, {}).get("predicted", 0.0) for name in (DONE, FAILED, CRASHED, PENDING)}
    total = sum(predicted.values())
    run = runs[-1] if runs else None
    live = run is not None and run["state"] == "running" and is_locked(path)
    state = None if run is None else "running" if live else "killed" if run["state"] == "running" else run["state"]
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "sweep_status",
        "store": str(path),
        "name": None if run is None else run["spec"].get("name"),
        "state": state,
        "cells": sum(counts.values()),
        "counts": counts,
        "time_limited": limited,
        "fraction": (total - predicted[PENDING]) / total if total > 0.0 else 1.0,
        "core_seconds_used": sum(part["used"] for part in seconds.values()),
        "core_seconds_predicted_left": predicted[PENDING],
        "slowest": None if slowest is None else {name: slowest[name] for name in ("key", "axes", "seconds")},
        "troubles": troubles,
        "runs": len(runs),
        "live": None,
    }
    if live and run is not None and run["live"] is not None:
        now, told = time.time(), run["live"]
        running = [{**one, "seconds": now - one["since"]} for one in told["running"]]
        content["live"] = {
            **{name: told[name] for name in ("engine", "workers", "eta_seconds", "stopping", "seconds")},
            "compiling": told.get("compiling", False),
            "updated_seconds_ago": now - told["updated"],
            "running": running,
        }
    return content
