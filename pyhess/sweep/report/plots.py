"""Figures for Plotly, as plain dictionaries of its JSON layout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .audit import BracketAudit, Certificates
from .cells import ORDER, BoolArray, Cells, FloatArray
from .curves import Band, Chart, Curve, Panel
from .markup import count_of, number, plot_text
from .timing import Timing

#: Colours that differ for most kinds of colour vision, on light and on dark ground.
COLOURS = (
    "#3b82c4", "#e07b39", "#2f9e77", "#c2549b", "#b8960c", "#7a6fd0", "#d1495b", "#4aa3a2", "#8a8f98", "#94733d", "#5f9e3f",
    "#a05fb8",
)  # fmt: skip
#: From the smallest to the largest where there are many curves.
_SEQUENCE = ("#4a5fa8", "#1f9e89", "#b99a1e", "#d1495b")
#: Curves with bands and fits; with more, one would see nothing for all the areas.
MOST_BANDS = 4
ENDS = (("lower", "solid", "circle"), ("upper", "dash", "triangle-up"))
#: Bins of the ratios per factor of ten.
_BINS = 12
_METHODS = 10


@dataclass(frozen=True)
class Figure:
    """A figure with a choice of panels; ``scales`` tells which axes, of "x" and "y", may be switched to logarithms and back."""

    ident: str
    title: str
    panels: list[dict[str, Any]]
    scales: str


def chart_figure(chart: Chart, title: str, captions: list[str]) -> Figure:
    """The bracket along an axis."""
    panels = [
        {"label": panel.label, "caption": caption, "data": _traces(panel), "layout": _bracket_layout(chart)}
        for panel, caption in zip(chart.panels, captions, strict=True)
    ]
    return Figure(f"bracket-{chart.along}", title, panels, "xy")


def _bracket_layout(chart: Chart) -> dict[str, Any]:
    scale = "log" if chart.log else "linear"
    layout = _layout(chart.title, "penalty strength λ", scale, scale)
    if chart.along == "depth":
        layout["xaxis"]["dtick"] = 1
    return layout


def _traces(panel: Panel) -> list[dict[str, Any]]:
    traces: list[dict[str, Any]] = []
    colours = curve_colours(len(panel.curves))
    for curve, colour in zip(panel.curves, colours, strict=True):
        for (end, dash, symbol), band in zip(ENDS, (curve.lower, curve.upper), strict=True):
            if band.count.any():
                traces += _end(curve, band, end, colour, dash, symbol, len(panel.curves) <= MOST_BANDS)
    missing = [(curve, int(i)) for curve in panel.curves for i in np.flatnonzero(curve.counts[:, 1:].sum(axis=1))]
    if missing:
        traces.append(_missing(panel, missing))
    return traces


def curve_colours(count: int) -> list[str]:
    """Distinct colours for a few curves, a sequence for many."""
    if count <= MOST_BANDS:
        return list(COLOURS[:count])
    stops = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in _SEQUENCE], dtype=np.float64)
    places = np.linspace(0.0, len(stops) - 1.0, count)
    channels = [np.interp(places, np.arange(len(stops)), stops[:, i]).round().astype(int) for i in range(3)]
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in zip(*channels, strict=True)]


def _end(curve: Curve, band: Band, end: str, colour: str, dash: str, symbol: str, banded: bool) -> list[dict[str, Any]]:
    group = f"{curve.label} {end}"
    name = f"{curve.label}, {end}" if curve.label else end
    if band.fit is not None:
        name += f" (slope {band.fit.exponent:.2f})"
    common = {"legendgroup": plot_text(group), "type": "scatter"}
    low, high = band.quartiles
    runs = _runs(np.isfinite(low) & np.isfinite(high)) if banded else []
    traces: list[dict[str, Any]] = [
        {
            **common, "x": _list(np.concatenate((curve.x[run], curve.x[run][::-1]))),
            "y": _list(np.concatenate((low[run], high[run][::-1]))), "mode": "lines", "fill": "toself",
            "line": {"width": 0, "color": colour}, "fillcolor": _faint(colour), "hoverinfo": "skip", "showlegend": False,
        }
        for run in runs
    ]  # fmt: skip
    if band.fit is not None and banded:
        ends = np.geomspace(curve.x[curve.x > 0].min(), curve.x.max(), 12)
        traces.append(
            {
                **common, "x": _list(ends), "y": _list(band.fit.at(ends)), "mode": "lines", "opacity": 0.55,
                "line": {"width": 1, "color": colour, "dash": "dot"}, "hoverinfo": "skip", "showlegend": False,
            }
        )  # fmt: skip
    traces.append(
        {
            **common, "name": plot_text(name), "x": _list(curve.x), "y": _list(band.median), "mode": "lines+markers",
            "line": {"width": 2, "color": colour, "dash": dash},
            "marker": {
                "size": 8, "color": colour,
                "symbol": ["diamond-open" if limited else symbol for limited in curve.limited],
                "line": {"width": 1.5, "color": colour},
            },
            "text": [plot_text(text).replace("\n", "<br>") for text in _hover(curve, band, end)],
            "hovertemplate": "%{text}<extra></extra>",
        }
    )  # fmt: skip
    return traces


def _hover(curve: Curve, band: Band, end: str) -> Iterable[str]:
    (low, high), (least, most) = band.quartiles, band.extremes
    for i, x in enumerate(curve.x):
        lines = [
            f"{curve.label}, at {number(float(x))}" if curve.label else f"at {number(float(x))}",
            f"λ {end}: {number(float(band.median[i]))}",
            f"quartiles {number(float(low[i]))} to {number(float(high[i]))}",
            f"all {number(float(least[i]))} to {number(float(most[i]))}",
            f"{int(band.count[i])} of {count_of(int(curve.counts[i].sum()), 'cell')}"
            + "".join(f", {int(curve.counts[i, j])} {ORDER[j]}" for j in (1, 2, 3) if curve.counts[i, j]),
        ]
        if curve.limited[i]:
            lines.append(f"time limit ended {int(curve.limited[i])}")
        yield "\n".join(lines)


def _missing(panel: Panel, missing: list[tuple[Curve, int]]) -> dict[str, Any]:
    """Crosses where cells lack a result: on the curve, or at the bottom where no cell has one."""
    finite = [
        float(value)
        for curve in panel.curves
        for value in (*curve.lower.median, *curve.upper.median)
        if np.isfinite(value) and value > 0.0
    ]
    bottom = min(finite, default=1.0)
    y, text = [], []
    for curve, i in missing:
        value = float(curve.lower.median[i])
        y.append(value if np.isfinite(value) else bottom)
        counts = ", ".join(f"{int(curve.counts[i, j])} {ORDER[j]}" for j in (1, 2, 3) if curve.counts[i, j])
        place = f"{curve.label}, at {number(float(curve.x[i]))}" if curve.label else f"at {number(float(curve.x[i]))}"
        text.append(f"{plot_text(place)}<br>of {count_of(int(curve.counts[i].sum()), 'cell')}: {counts}")
    return {
        "type": "scatter", "name": "some cells missing", "mode": "markers", "x": [float(curve.x[i]) for curve, i in missing],
        "y": y, "text": text, "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": "x-thin", "size": 11, "line": {"width": 1.5, "color": "#9a9a9a"}},
    }  # fmt: skip


def ratio_bins(ratios: FloatArray) -> FloatArray:
    """Edges of the bins of upper over lower end, equal in logarithms and beginning at 1 or below."""
    low = np.floor(np.log10(ratios.min()) * _BINS)
    high = max(np.floor(np.log10(ratios.max()) * _BINS) + 1.0, low + 1.0)
    return np.asarray(10.0 ** (np.arange(low, high + 1.0) / _BINS), dtype=np.float64)


def ratio_figure(audit: BracketAudit, certificates: Certificates, title: str, caption: str) -> Figure:
    """Histogram of upper over lower end, by the certificate that gave the upper end."""
    edges = ratio_bins(audit.ratios)
    centres = np.sqrt(edges[1:] * edges[:-1])
    data = []
    winners = certificates.winner[audit.cells]
    for place, code in enumerate(sorted(set(winners.tolist()))):
        name = "no certificate named" if code < 0 else certificates.methods[code].method
        heights = np.histogram(audit.ratios[winners == code], edges)[0]
        data.append(
            {
                "type": "bar", "name": plot_text(name), "x": _list(centres), "y": heights.tolist(),
                "width": _list(np.diff(edges)),
                "marker": {"color": COLOURS[place % len(COLOURS)]},
                "text": [
                    plot_text(f"{name}: {count_of(int(height), 'cell')} from {number(a, 3)} to {number(b, 3)}")
                    for height, a, b in zip(heights, edges[:-1].tolist(), edges[1:].tolist(), strict=True)
                ],
                "textposition": "none", "hovertemplate": "%{text}<extra></extra>",
            }
        )  # fmt: skip
    layout = _layout("upper end / lower end", "cells", "log", "linear")
    return Figure(
        "ratio", title, [{"label": "", "caption": caption, "data": data, "layout": {**layout, "barmode": "stack"}}], "y"
    )


def certificate_figure(cells: Cells, certificates: Certificates, along: str, name: str, title: str, caption: str) -> Figure:
    """Share of the cells in which each method gave the upper end, along an axis."""
    axis = cells.axes[along]
    counted = certificates.winner >= 0
    total = np.bincount(axis.codes[counted], minlength=len(axis.values))
    labels = [plot_text(f"{value:g}" if isinstance(value, float) else value) for value in axis.values]
    data = []
    for place, use in enumerate(certificates.methods[:_METHODS]):
        if not use.wins:
            continue
        wins = np.bincount(axis.codes[certificates.winner == place], minlength=len(axis.values))
        share = np.divide(100.0 * wins, total, out=np.full(len(total), np.nan), where=total > 0)
        data.append(
            {
                "type": "bar", "name": plot_text(use.method), "x": labels, "y": _list(share),
                "marker": {"color": COLOURS[place % len(COLOURS)]}, "textposition": "none",
                "text": [plot_text(f"{use.method}: {w} of {count_of(int(t), 'cell')}") for w, t in zip(wins, total, strict=True)],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )  # fmt: skip
    layout = _layout(name, "cells, %", "category", "linear")
    return Figure(
        "winners", title, [{"label": "", "caption": caption, "data": data, "layout": {**layout, "barmode": "stack"}}], ""
    )


def timing_figure(cells: Cells, timing: Timing, title: str, caption: str) -> Figure:
    """Predicted against measured seconds."""
    data: list[dict[str, Any]] = []
    drawn, kinds = timing.drawn, cells.axes["kind"]
    codes = kinds.codes[timing.cells[drawn]]
    groups = [
        (kinds.values[code], drawn[np.equal(codes, code) & ~timing.limited[drawn]], "circle")
        for code in sorted(set(codes.tolist()))
    ]
    groups.append(("ended by the time limit", drawn[timing.limited[drawn]], "diamond-open"))
    for place, (name, members, symbol) in enumerate(groups):
        if not len(members):
            continue
        colour = COLOURS[place % len(COLOURS)]
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": plot_text(name), "x": _list(timing.predicted[members]),
                "y": _list(timing.seconds[members]),
                "marker": {"size": 6, "opacity": 0.6, "color": colour, "symbol": symbol, "line": {"width": 1, "color": colour}},
                "text": [plot_text(cells.describe(int(i))) for i in timing.cells[members]],
                "hovertemplate": "%{text}<br>predicted %{x:.3g} s, took %{y:.3g} s<extra></extra>",
            }
        )  # fmt: skip
    ends = np.geomspace(timing.predicted.min(), timing.predicted.max(), 12)
    lines = [("as predicted", ends, "dot")]
    if timing.fit is not None:
        lines.append((f"fit, slope {timing.fit.exponent:.2f}", timing.fit.at(ends), "solid"))
    data += [
        {
            "type": "scatter", "mode": "lines", "name": name, "x": _list(ends), "y": _list(y), "hoverinfo": "skip",
            "line": {"color": "#8a8f98", "width": 2, "dash": dash},
        }
        for name, y, dash in lines
    ]  # fmt: skip
    layout = _layout("predicted seconds", "measured seconds", "log", "log")
    return Figure("timing", title, [{"label": "", "caption": caption, "data": data, "layout": layout}], "xy")


def _layout(x: str, y: str, x_scale: str, y_scale: str) -> dict[str, Any]:
    def axis(title: str, scale: str) -> dict[str, Any]:
        made: dict[str, Any] = {"title": {"text": plot_text(title)}, "type": scale, "automargin": True, "zeroline": False}
        return {**made, "exponentformat": "power"} if scale == "log" else made

    return {
        "xaxis": axis(x, x_scale), "yaxis": axis(y, y_scale), "hovermode": "closest",
        "margin": {"l": 60, "r": 20, "t": 20, "b": 50}, "legend": {"tracegroupgap": 2}, "showlegend": True,
    }  # fmt: skip


def _runs(kept: BoolArray) -> list[slice]:
    """Stretches of consecutive points; a single one makes no area."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], kept, [False])).astype(np.int8)))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 1]


def _list(values: FloatArray) -> list[float | None]:
    """For JSON: None where a value is not finite, which Plotly takes for a gap; six digits are more than a screen shows."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
