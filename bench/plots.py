"""Records as figures; needs matplotlib."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from .records import Record, Row

_COLOURS = {"pyhess": "tab:blue", "peer": "tab:grey", "ruler": "tab:orange"}


def draw(record: Record, folder: Path, stem: str) -> list[Path]:
    """One figure per suite of the record, as PNG files.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    paths = []
    for suite, rows in groupby(record.rows, key=lambda row: row.suite):
        figure = _DRAW.get(suite, _bars)(list(rows))
        paths.append(folder / f"{stem}-{suite}.png")
        figure.savefig(paths[-1], dpi=110, bbox_inches="tight")
    return paths


def _axes(count: int, width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    columns = min(count, 3)
    lines = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * lines), layout="constrained")
    return figure, figure.subplots(lines, columns, squeeze=False).ravel()


def _groups(rows: list[Row]) -> list[list[Row]]:
    return [list(group) for _, group in groupby(rows, key=lambda row: row.comparison)]


def _bars(rows: list[Row]) -> Any:
    """Times of each comparison, in units of our own."""
    groups = _groups(rows)
    figure, axes = _axes(len(groups), 6.0, 0.25 * max(map(len, groups)) + 1.5)
    for axis, group in zip(axes, groups, strict=False):
        timed = sorted((row for row in group if row.minimum), key=lambda row: -(row.minimum or 0.0))
        unit = next((row.minimum for row in group if row.kind == "pyhess" and row.minimum), 1.0) or 1.0
        lengths = [(row.minimum or 0.0) / unit for row in timed]
        axis.barh([row.who for row in timed], lengths, color=[_COLOURS[row.kind] for row in timed])
        axis.axvline(1.0, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_title(f"{group[0].case}\n{group[0].dtype}, {group[0].what}", fontsize=9)
        axis.set_xlabel("time / time of pyhess")
        axis.tick_params(labelsize=7)
    _hide(axes[len(groups) :])
    return figure


def _lines(rows: list[Row]) -> Any:
    """Cost against each axis, with the fitted exponents."""
    names = list(dict.fromkeys(str(row.metrics["axis"]) for row in rows))
    figure, axes = _axes(len(names), 4.5, 3.5)
    for axis, name in zip(axes, names, strict=False):
        mine = [row for row in rows if row.metrics["axis"] == name]
        if name == "threads":
            axis.bar([row.who.removeprefix("pyhess, ") for row in mine], [row.minimum or 0.0 for row in mine], color="tab:blue")
        else:
            for who in dict.fromkeys(row.who for row in mine):
                points = [row for row in mine if row.who == who]
                label = f"{who}: {points[0].metrics['exponent']:.2f} ± {points[0].metrics['exponent_error']:.2f}"
                axis.plot([row.metrics["at"] for row in points], [row.minimum for row in points], "o-", label=label)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.legend(fontsize=7)
        axis.set_xlabel(name)
        axis.set_ylabel("seconds")
    _hide(axes[len(names) :])
    return figure


def _histories(rows: list[Row]) -> Any:
    """Best value found so far, as a fraction of the best known, against time."""
    groups = _groups(rows)
    figure, axes = _axes(len(groups), 4.5, 3.5)
    for axis, group in zip(axes, groups, strict=False):
        for row in group:
            history = row.metrics["history"]
            times = [seconds for seconds, _ in history] + [row.metrics["searched"]]
            values = [value / row.metrics["best_known"] for _, value in history]
            axis.step(times, values + values[-1:] if values else [0.0], where="post", label=row.who)
        axis.axhline(0.99, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_title(group[0].case, fontsize=9)
        axis.set_xlabel("seconds")
        axis.set_ylabel("psi / best-known psi")
        axis.legend(fontsize=7)
    _hide(axes[len(groups) :])
    return figure


def _hide(axes: Any) -> None:
    for axis in axes:
        axis.set_visible(False)


_DRAW = {"scaling": _lines, "threshold": _histories}
