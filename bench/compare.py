"""Two records side by side: what became slower?

Two runs on one machine differ by what else it was doing, so a time is first divided by that of the gemm peak measured in
turn with it, where there is one. Only our own rows are judged.
"""

from __future__ import annotations

from dataclasses import dataclass

from .records import Record, Row
from .table import aligned, seconds

#: Slower by more than this is a regression, unless the two runs' own spread is larger.
TOLERANCE = 0.10


@dataclass(frozen=True)
class Change:
    """One row in both records; ``ratio`` is after / before in units of the gemm peak, or of seconds without one."""

    row: Row
    before: float
    after: float
    ratio: float
    scaled: bool
    allowed: float

    @property
    def verdict(self) -> str:
        """Slower, faster, or the same within what is allowed."""
        if self.ratio > 1.0 + self.allowed:
            return "SLOWER"
        return "faster" if self.ratio < 1.0 / (1.0 + self.allowed) else "same"


@dataclass(frozen=True)
class Comparison:
    """``changes`` of our rows in both records, and our rows that only one of them has."""

    changes: tuple[Change, ...]
    only_before: tuple[Row, ...]
    only_after: tuple[Row, ...]

    @property
    def regressions(self) -> tuple[Change, ...]:
        """What became slower by more than is allowed, or is no longer reached."""
        return tuple(change for change in self.changes if change.verdict == "SLOWER")


def compare(before: Record, after: Record, tolerance: float = TOLERANCE) -> Comparison:
    """Match our rows by suite, case, dtype, task, name and threads."""
    old = {row.key: row for row in before.rows if row.kind == "pyhess"}
    new = {row.key: row for row in after.rows if row.kind == "pyhess"}
    rulers = {"before": _rulers(before), "after": _rulers(after)}
    changes = []
    for key, row in new.items():
        if key not in old:
            continue
        first, second = _time(old[key]), _time(row)
        peaks = rulers["before"].get(row.comparison), rulers["after"].get(row.comparison)
        scaled = bool(peaks[0] and peaks[1])
        ratio = second / first if first else float("inf")
        if peaks[0] and peaks[1]:
            ratio *= peaks[0] / peaks[1]
        # The minimum is steadier than the spread suggests: half of the smaller spread, at most, is put down to noise.
        noise = min(0.5 * min(old[key].spread, row.spread), 0.5)
        changes.append(Change(row, first, second, ratio, scaled, max(tolerance, noise)))
    return Comparison(
        tuple(changes),
        tuple(row for key, row in old.items() if key not in new),
        tuple(row for key, row in new.items() if key not in old),
    )


def show(found: Comparison) -> str:
    """A table, the worst change first, and what could not be compared."""
    lines = [
        [
            f"{change.row.suite}: {change.row.case}, {change.row.dtype}, {change.row.what}, {change.row.who}",
            seconds(change.before), seconds(change.after), f"{change.ratio:.2f}" + (" of peak" if change.scaled else ""),
            f"{change.allowed:.0%}", change.verdict,
        ]
        for change in sorted(found.changes, key=lambda change: -change.ratio)
    ]  # fmt: skip
    parts = [aligned(["", "before", "after", "ratio", "allowed", ""], lines)] if lines else ["The records have no row in common."]
    for name, rows in (("first", found.only_before), ("second", found.only_after)):
        if rows:
            listed = "\n".join(f"  {row.suite}: {row.case}, {row.dtype}, {row.what}, {row.who}" for row in rows)
            parts.append(f"Only in the {name} record\n{listed}")
    count = len(found.regressions)
    parts.append(f"{count} of {len(found.changes)} rows slower." if count else f"None of {len(found.changes)} rows slower.")
    return "\n\n".join(parts)


def _time(row: Row) -> float:
    """The smallest time; infinite where the task was not finished."""
    return float("inf") if row.minimum is None else row.minimum


def _rulers(record: Record) -> dict[tuple[str, ...], float]:
    return {row.comparison: row.minimum for row in record.rows if row.who == "gemm peak" and row.minimum}
