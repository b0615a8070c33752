"""The sections of the page that are a record: times, cells without a result, provenance, the table."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np

from .._lock import is_locked
from .cells import Cells
from .failures import failures_of
from .markup import Html, count_of, details, element, joined, number, table
from .plots import Figure, timing_figure
from .sections import MOST_ROWS, figure_element, fit_texts, missing_text
from .timing import Timing

#: Longest error message in the page.
_MOST_TEXT = 500
#: Cells in the page's own table.
_SAMPLE = 100
_SAMPLE_COLUMNS = ("status", "lam_lower", "lam_upper", "outcome", "method", "seconds", "key")


def timing_section(cells: Cells, timing: Timing) -> tuple[Html, list[Figure]]:
    """The plan's prediction against what was measured."""
    if not len(timing.cells):
        return element("p", "No finished cell has a measured time.", class_="soft"), []
    seconds = timing.seconds
    rows: list[tuple[object, ...]] = [
        ("finished cells", number(len(seconds))),
        ("predicted together, core hours", number(float(timing.predicted.sum()) / 3600.0, 4)),
        ("measured together, core hours", number(float(seconds.sum()) / 3600.0, 4)),
        ("median cell, seconds", number(float(np.median(seconds)), 4)),
        ("longest cell, seconds", f"{number(float(seconds.max()), 4)} ({cells.describe(int(timing.cells[seconds.argmax()]))})"),
        ("measured / predicted: 10 %, median, 90 %", ", ".join(number(float(value), 3) for value in timing.ratios)),
        ("within a factor of 2 of the median ratio", f"{number(100.0 * timing.within_two, 3)} %"),
    ]
    if timing.fit is not None:
        exponent, interval, r_squared, _ = fit_texts(timing.fit)
        fitted = f"{number(timing.fit.prefactor)} · predicted^{exponent} (exponent {interval}), R² {r_squared}"
        rows.append(("fit: measured seconds", fitted))
    limited = int(timing.limited.sum())
    caption = (
        f"Measured against predicted seconds of {count_of(len(seconds), 'finished cell')}. "
        f"{missing_text(cells.counts(), int(cells.limited.sum()))}."
    )
    if limited:
        caption += " Those ended by the time limit (open diamonds) are left out of the fit and the ratios."
    if len(timing.drawn) < len(seconds):
        caption += (
            f" {len(timing.drawn):,} of {len(seconds):,} points are drawn: the largest deviations, the others evenly by time."
        )
    figure = timing_figure(cells, timing, "Predicted and measured time", caption)
    return joined([table(("time", "value"), rows), figure_element(figure)]), [figure]


def failure_section(cells: Cells) -> Html:
    """What has no result, and why."""
    counts = cells.counts()
    parts = []
    failures = failures_of(cells)
    if failures:
        rows = [
            (
                one.status, number(one.count), one.error_type, _shortened(one.message), one.where,
                joined([cells.describe(one.first), " ", element("code", cells.columns["key"][one.first][:12])]),
            )
            for one in failures[:MOST_ROWS]
        ]  # fmt: skip
        text = (
            f"{count_of(counts['failed'], 'cell')} failed, {counts['crashed']:,} crashed; no figure above counts them as results."
        )
        parts.append(element("p", text, class_="bad"))
        parts.append(table(("status", "cells", "error", "message", "where", "first of them"), rows, numbers=[1]))
        if len(failures) > MOST_ROWS:
            parts.append(element("p", f"The first {MOST_ROWS} of {len(failures):,} kinds of failure.", class_="soft"))
    else:
        parts.append(element("p", "No cell failed and none crashed.", class_="good"))
    if counts["pending"]:
        parts.append(element("p", f"{count_of(counts['pending'], 'cell')} not done yet."))
    limited = np.flatnonzero(cells.limited)
    if len(limited):
        text = f"The time limit ended {count_of(len(limited), 'cell')}. What they hold is true, but more time may narrow it."
        cut = f" (the first {MOST_ROWS})" if len(limited) > MOST_ROWS else ""
        listed = [
            (cells.describe(int(i)), number(float(cells.lower[i])), number(float(cells.upper[i])), cells.columns["key"][i][:12])
            for i in limited[:MOST_ROWS]
        ]
        parts.append(element("p", text))
        parts.append(details(f"These cells{cut}", table(("cell", "lam_lower", "lam_upper", "key"), listed, numbers=[1, 2])))
    return joined(parts)


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}… ({len(text):,} characters, all in the store)"


def provenance_section(cells: Cells) -> Html:
    """Who made this, where, with what."""
    if not cells.runs:
        return element("p", "No run has written to this store.", class_="soft")
    by_run = Counter(cells.columns["run_id"])
    live = is_locked(cells.path)
    rows = []
    for place, run in enumerate(cells.runs):
        made = run["provenance"]
        state = run["state"]
        if state == "running" and not (live and place == len(cells.runs) - 1):
            state = "killed"
        git = made.get("git") or {}
        commit = f"{str(git.get('commit', ''))[:10]}{' with changes' if git.get('dirty') else ''}" if git else "–"
        rows.append(
            (
                _moment(run["started"]), _moment(run["ended"]), state, number(by_run[run["run_id"]]), made.get("host", "–"),
                made.get("cpu", "–"), f"{made.get('engine', '–')}, {made.get('workers', '–')}", commit,
                element("code", " ".join(map(str, made.get("argv", [])))),
            )
        )  # fmt: skip
    head = ("begun", "ended", "state", "cells", "host", "processor", "engine, workers", "git", "command")
    last = cells.runs[-1]
    hosts = Counter(host for host in cells.columns["host"] if host is not None)
    return joined(
        [
            table(head, rows[-MOST_ROWS:], numbers=[3]),
            element(
                "p", "Cells by machine: ", ", ".join(f"{host} {count:,}" for host, count in sorted(hosts.items())) or "none", "."
            ),
            details("Specification of the last run", element("pre", _pretty(last["spec"]))),
            details("Versions, machine and environment of the last run", element("pre", _pretty(last["provenance"]))),
        ]
    )


def _moment(seconds: float | None) -> str:
    return "–" if seconds is None else datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _pretty(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)


def table_section(cells: Cells, content: dict[str, list[Any]]) -> Html:
    """The first cells, and the button that the page's script makes work."""
    axes = [name for name in cells.spec_axes if cells.axes[name].varies]
    names = [*axes, *_SAMPLE_COLUMNS]

    def shown(name: str, value: Any) -> str:
        if isinstance(value, float):
            return number(value)
        return "–" if value is None else str(value)[:12] if name == "key" else str(value)

    rows = [[shown(name, content[name][i]) for name in names] for i in range(min(_SAMPLE, cells.size))]
    numeric = [
        i for i, name in enumerate(names) if name in ("lam_lower", "lam_upper", "seconds", "width", "depth", "radius", "n")
    ]
    return joined(
        [
            element(
                "p",
                f"{count_of(cells.size, 'cell')} with {count_of(len(content), 'column')}: axes, answers, certificates, times and "
                "errors. The file is inside this page.",
            ),
            Html('<p><button type="button" id="download" hidden>Download all cells as CSV</button></p>'),
            Html("<noscript><p>The download and the figures need JavaScript; "),
            Html("<code>pyhess sweep export STORE -o cells.csv</code> writes the same table.</p></noscript>"),
            details(f"The first {count_of(len(rows), 'cell')}", table(names, rows, numbers=numeric)) if rows else Html(""),
        ]
    )


def packed_csv(content: dict[str, list[Any]]) -> Html:
    """The table as CSV, gzip, base64: safe within a script element, a tenth of the size, and the same bytes every time."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(content)
    writer.writerows(zip(*content.values(), strict=True))
    packed = gzip.compress(stream.getvalue().encode("utf-8", "replace"), compresslevel=2, mtime=0)
    return Html(base64.b64encode(packed).decode("ascii"))
