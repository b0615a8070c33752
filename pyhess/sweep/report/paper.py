"""The figures of a report for papers, as SVG and PDF."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from ...errors import FileError, MissingDependencyError
from ..export import _replacing
from .audit import audit_brackets, audit_certificates
from .cells import Cells
from .curves import Chart, Panel, make_charts
from .plots import ENDS, MOST_BANDS, curve_colours, ratio_bins
from .sections import missing_text
from .timing import timing_of

#: Inches: a column of most journals.
_SIZE = (4.2, 3.1)
#: Letters of a line above a figure.
_LINE = 72
_STYLE = {
    "font.size": 9.0, "axes.labelsize": 9.0, "legend.fontsize": 7.0, "xtick.labelsize": 8.0, "ytick.labelsize": 8.0,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.3,
    "lines.markersize": 4.0, "axes.grid": True, "grid.color": "#e3e3e3", "grid.linewidth": 0.5, "axes.axisbelow": True,
    "pdf.fonttype": 42,
    # The same figure has the same bytes.
    "svg.hashsalt": "pyhess",
}  # fmt: skip
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": "pyhess"},
}


def write_figures(cells: Cells, folder: str | os.PathLike[str]) -> list[Path]:
    """Write every figure of the report, a panel each, as ``NAME.svg`` and ``NAME.pdf``; existing files are replaced.

    Raises
    ------
    FileError
        If the folder cannot be made or written.
    MissingDependencyError
        If matplotlib is not installed.
    """
    target = Path(folder)
    with _matplotlib() as new_figure:
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"the folder {target} cannot be made: {error.strerror}. Choose another place.") from error
        written = []
        for name, figure in _figures(cells, new_figure):
            for suffix, metadata in _METADATA.items():
                path = target / f"{name}.{suffix}"
                with _replacing(path) as temporary:
                    figure.savefig(temporary, format=suffix, metadata=metadata, bbox_inches="tight")
                written.append(path)
    return written


@contextmanager
def _matplotlib() -> Iterator[Any]:
    """What makes a figure: with our style whatever a user's settings are, and without the state of pyplot."""
    try:
        matplotlib = import_module("matplotlib")
        made = import_module("matplotlib.figure").Figure
        canvas = import_module("matplotlib.backends.backend_agg").FigureCanvasAgg
    except ImportError:
        raise MissingDependencyError("figures need matplotlib, which is not installed; pip install 'pyhess[report]'.") from None

    def new_figure() -> tuple[Any, Any]:
        figure = made(figsize=_SIZE)
        canvas(figure)
        return figure, figure.add_subplot()

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield new_figure


def _figures(cells: Cells, new_figure: Any) -> Iterator[tuple[str, Any]]:
    for chart in make_charts(cells):
        for place, panel in enumerate(chart.panels):
            figure, axes = new_figure()
            _bracket(axes, chart, panel)
            number = f"_{place + 1:02d}" if len(chart.panels) > 1 else ""
            yield f"bracket_{chart.along}{number}{_slug(panel.label)}", figure
    audit, timing = audit_brackets(cells), timing_of(cells)
    if audit.ratios.size:
        figure, axes = new_figure()
        certificates = audit_certificates(cells)
        edges, winners = ratio_bins(audit.ratios), certificates.winner[audit.cells]
        codes = sorted(set(winners.tolist()))
        names = ["no certificate named" if code < 0 else certificates.methods[code].method for code in codes]
        axes.hist(
            [audit.ratios[winners == code] for code in codes], bins=edges, stacked=True, label=[_plain(name) for name in names],
            color=curve_colours(len(codes)),
        )  # fmt: skip
        axes.set(xscale="log", xlabel="upper end / lower end", ylabel="cells")
        axes.legend()
        yield "ratio", figure
    if len(timing.cells):
        figure, axes = new_figure()
        free, limited = (timing.drawn[np.equal(timing.limited[timing.drawn], which)] for which in (False, True))
        axes.plot(
            timing.predicted[free], timing.seconds[free], ".", ms=2.5, alpha=0.5, color=curve_colours(1)[0], rasterized=True
        )
        if len(limited):
            axes.plot(
                timing.predicted[limited], timing.seconds[limited], "D", ms=3.0, mfc="none", color="#d1495b",
                label="ended by the time limit", rasterized=True,
            )  # fmt: skip
        ends = np.geomspace(timing.predicted.min(), timing.predicted.max(), 12)
        axes.plot(ends, ends, ":", color="#555555", label="as predicted")
        if timing.fit is not None:
            axes.plot(ends, timing.fit.at(ends), "-", color="#555555", label=f"fit, slope {timing.fit.exponent:.2f}")
        axes.set(xscale="log", yscale="log", xlabel="predicted seconds", ylabel="measured seconds")
        axes.legend()
        yield "timing", figure


def _bracket(axes: Any, chart: Chart, panel: Panel) -> None:
    lines = {"solid": "-", "dash": "--"}
    markers = {"circle": "o", "triangle-up": "^"}
    banded = len(panel.curves) <= MOST_BANDS
    for curve, colour in zip(panel.curves, curve_colours(len(panel.curves)), strict=True):
        for (end, dash, symbol), band in zip(ENDS, (curve.lower, curve.upper), strict=True):
            if not band.count.any():
                continue
            finite = np.where(np.isfinite(band.median), band.median, np.nan)
            name = f"{curve.label}, {end}" if curve.label else end
            name += "" if band.fit is None else f" (slope {band.fit.exponent:.2f})"
            axes.plot(curve.x, finite, lines[dash], marker=markers[symbol], color=colour, label=_plain(name))
            limited = curve.limited > 0
            axes.plot(curve.x[limited], finite[limited], "D", ms=6.5, mfc="none", color=colour)
            if banded:
                low, high = (np.where(np.isfinite(q), q, np.nan) for q in band.quartiles)
                axes.fill_between(curve.x, low, high, color=colour, alpha=0.15, lw=0)
    scale = "log" if chart.log else "linear"
    axes.set(xscale=scale, yscale=scale, xlabel=chart.title, ylabel="penalty strength λ")
    if chart.along == "depth":
        axes.set_xticks(sorted({int(x) for curve in panel.curves for x in curve.x}))
    lines_above = [*wrap(panel.label, _LINE), *wrap(missing_text(panel.counts, panel.limited), _LINE)]
    axes.set_title(_plain("\n".join(lines_above)), fontsize=6.5, color="#555555", loc="left")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def _plain(text: str) -> str:
    """Text that is no mathematics: a dollar in a name must not start a formula."""
    return text.replace("$", r"\$")


def _slug(label: str) -> str:
    """Part of a file name, made of harmless characters."""
    words = re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.")
    return f"_{words[:60].strip('-.')}" if words else ""
