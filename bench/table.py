"""Records as text."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from .records import Record, Row
from .targets import verdicts

#: Above this share of other processes, or this spread, a row is marked as noisy.
NOISY_SHARE = 0.1


def show(record: Record) -> str:
    """The whole record: where it was made, every comparison, the targets, and what was missing."""
    parts = [_heading(record)]
    for _, rows in groupby(record.rows, key=lambda row: row.comparison):
        parts.append(comparison(list(rows)))
    judged = verdicts(record.rows)
    if judged:
        lines = [
            [verdict.target, verdict.case, verdict.dtype, verdict.wanted, verdict.measured, verdict.outcome] for verdict in judged
        ]
        parts.append("Targets\n" + aligned(["target", "case", "dtype", "wanted", "measured", ""], lines))
    parts.append(_absent(record))
    return "\n\n".join(part for part in parts if part)


def comparison(rows: list[Row]) -> str:
    """One comparison, the fastest first; ``ratio`` is a contender's smallest time by that of our first row."""
    first = rows[0]
    ours = next((row.minimum for row in rows if row.kind == "pyhess" and row.minimum), None)
    noisy = f"  [noisy: other processes had {first.foreign:.0%} of the processors]" if first.foreign > NOISY_SHARE else ""
    title = f"{first.suite}: {first.case}, {first.dtype}, {first.what}, {first.threads} threads{noisy}"
    columns = ["", "kind", "min", "median", "spread", "ratio"]
    keys = [key for key in _METRICS if any(key in row.metrics for row in rows)]
    lines = []
    for row in sorted(rows, key=lambda row: (row.median is None, row.minimum if row.minimum is not None else 1e300)):
        kind = row.kind + (", state kept" if row.cached else "")
        ratio = f"{row.minimum / ours:.2f}" if ours and row.minimum else ""
        lines.append(
            [row.who, kind, seconds(row.minimum), seconds(row.median), f"{row.spread:.0%}", ratio]
            + [_METRICS[key].format(row.metrics[key]) if row.metrics.get(key) is not None else "" for key in keys]
        )
    return title + "\n" + aligned(columns + [key.replace("_", " ") for key in keys], lines)


_METRICS = {
    "gflops": "{:.1f}",
    "of_shape_peak": "{:.0%}",
    "of_gemm_peak": "{:.0%}",
    "matvecs": "{}",
    "exponent": "{:.2f}",
    "exponent_error": "± {:.2f}",
    "arithmetic": "{:.0f}",
    "reached": "{}",
    "best": "{:.5g}",
    "of_best_known": "{:.1%}",
    "overhead": "{:.1%}",
    "start": "{:.1f} s",
}


def seconds(value: float | None) -> str:
    """A time with a sensible unit."""
    if value is None:
        return "not reached"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * factor >= 1.0:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def aligned(columns: list[str], lines: Iterable[list[str]]) -> str:
    """Columns as wide as their content; the first one to the left, the others to the right."""
    table = [columns, *lines]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    )


def _heading(record: Record) -> str:
    about = record.machine
    versions = ", ".join(f"{name} {version}" for name, version in record.packages.items() if version)
    blas = ", ".join(f"{item['internal_api']} {item['version']} ({item['architecture']})" for item in about["blas"]["libraries"])
    return "\n".join(
        [
            f"python -m bench {record.command}",
            f"{record.started}, {record.mode}, {record.seconds:.0f} s, commit {about['commit']}, {about['package']}",
            f"{about['processor']}, {about['processors']} processors, ISA {about['isa']}, {about['compiler']}, BLAS {blas}",
            f"{about['platform']}, Python {about['python']}, {versions}",
        ]
    )


def _absent(record: Record) -> str:
    lines = [f"{name}: {reason}" for name, reason in record.missing.items()]
    return "Missing peers (not compared)\n" + "\n".join(f"  {line}" for line in lines) if lines else "No peer is missing."
