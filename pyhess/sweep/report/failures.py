"""Cells without a result, by what ended them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .cells import REPLICATES, Cells, value_text

#: Values of an axis that are named one by one.
_NAMED = 3


@dataclass(frozen=True)
class Failure:
    """Cells that ended in the same way: status, type, message, how many, where on the axes, and the first of them."""

    status: str
    error_type: str
    message: str
    count: int
    where: str
    first: int


def failures_of(cells: Cells) -> list[Failure]:
    """Group failed and crashed cells by status, error type and message; most frequent first."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for i in np.flatnonzero((cells.status == 1) | (cells.status == 2)):
        what = (cells.columns["status"][i], cells.columns["error_type"][i] or "", cells.columns["error"][i] or "")
        groups.setdefault(what, []).append(int(i))
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[1][0]))
    return [Failure(*what, count=len(members), where=_where(cells, members), first=members[0]) for what, members in ordered]


def _where(cells: Cells, members: list[int]) -> str:
    """What the cells have in common that others have not: axes on which they take up a part of the values only."""
    parts = []
    for name in cells.spec_axes:
        axis = cells.axes[name]
        codes = np.unique(axis.codes[members])
        if not axis.varies or name in REPLICATES or len(codes) == len(axis.values):
            continue
        values = [axis.values[code] for code in codes]
        if len(values) <= _NAMED:
            parts.append(" or ".join(value_text(name, value) for value in values))
        elif axis.numbers is not None:
            parts.append(f"{name} {values[0]:g} to {values[-1]:g}")
        else:
            parts.append(f"{len(values)} of {len(axis.values)} values of {name}")
    return ", ".join(parts) or "everywhere"
