"""Stores for reports, and reading a page as a browser would."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from pyhess.sweep import Store

AXES = {"data": "xor", "n": 16, "activation": "tanh", "depth": 1, "width": 4, "region": "box", "radius": 0.5, "seed": 11}
DONE = {
    "status": "done", "lam_lower": 1.5, "lam_upper": 3.0, "psi_upper": -3.0, "psi_lower": -6.0, "outcome": "bracketed",
    "method": "moment", "time_limited": False, "seconds": 0.2, "attempts": 1, "host": "a", "run_id": "r",
    "certificate": [{"method": "moment", "psi_lower": -6.0, "cells": 1}], "timing": {"search": 0.1, "certificate moment": 0.05},
}  # fmt: skip


def make_store(
    path: Path, cells: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], *, kind: str = "bracket", name: str = "made",
    provenance: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """A store with these cells: what differs from `AXES`, and from `DONE`; a result of None is pending."""
    planned, results = [], []
    for i, (axes, result) in enumerate(cells):
        shown = {**AXES, **axes}
        shown = {key: value for key, value in shown.items() if value is not ...}
        planned.append(
            {
                "key": f"{i:064x}", "position": i, "kind": kind, "axes": shown, "work": {**shown, "options": options or {}},
                "parent": None, "predicted_seconds": 0.1, "predicted_bytes": 1e6,
            }
        )  # fmt: skip
        results.append(None if result is None else {**DONE, **result})
    with Store.open(path) as store:
        store.begin_run("r", {"name": name}, {"host": "a", "argv": ["pyhess"], **(provenance or {})})
        store.set_plan(planned)
        with store.transaction():
            for cell, result in zip(planned, results, strict=True):
                if result is not None:
                    store.put(cell["key"], result)
        store.end_run("r", "finished")
    return path


def failed(error: str = "it broke", error_type: str = "NumericalError", status: str = "failed") -> dict[str, Any]:
    """A result of a cell that has none."""
    empty = ("lam_lower", "lam_upper", "psi_upper", "psi_lower", "outcome", "method", "certificate", "timing", "time_limited")
    return {**dict.fromkeys(empty), "status": status, "error_type": error_type, "error": error}


@dataclass
class Page(HTMLParser):
    """A parsed page: its text, tags, tables as lists of rows, and what its script elements hold."""

    source: str
    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    text: str = ""
    tables: list[list[list[str]]] = field(default_factory=list)
    scripts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._script: str | None = None
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag in ("script", "style"):
            self._script = dict(attrs).get("id") or f"{tag} {len(self.scripts)}"
            self.scripts[self._script] = ""
        self._cell = tag in ("td", "th") or (getattr(self, "_cell", False) and tag not in ("tr", "table"))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._script = None
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] += data
            return
        self.text += data
        if getattr(self, "_cell", False):
            self.tables[-1][-1][-1] += data

    @property
    def figures(self) -> dict[str, list[dict[str, Any]]]:
        """The panels of each figure."""
        return {one["ident"]: one["panels"] for one in json.loads(self.scripts["report-data"])["figures"]}

    @property
    def csv(self) -> list[dict[str, str]]:
        """The table to download."""
        text = gzip.decompress(base64.b64decode(self.scripts["report-table"])).decode()
        return list(csv.DictReader(io.StringIO(text, newline="")))

    def table(self, *head: str) -> list[list[str]]:
        """The rows of the first table whose head begins so."""
        return next(rows[1:] for rows in self.tables if rows[0][: len(head)] == list(head))
