"""The sections of the page that answer the question: summary, brackets along the axes, audit, certificates."""

from __future__ import annotations

import numpy as np

from .audit import BracketAudit, Certificates
from .cells import ORDER, Cells
from .curves import Band, Chart, Curve, Panel
from .fits import LEVEL, PowerFit
from .markup import Html, count_of, details, element, joined, number, table
from .plots import MOST_BANDS, Figure, certificate_figure, chart_figure, ratio_figure

#: Rows of a table in the page; the table to download has all cells.
MOST_ROWS = 400

_OUTCOMES = {
    "bracketed": "both ends found, apart from each other",
    "exact": "both ends agree to six digits or better",
    "infinite": "no finite penalty makes the objective convex on the region",
    "undecided": "a lower end but no certificate",
    "interrupted": "ended early, both ends hold",
    "no outcome": "only one end was asked for",
}


def figure_element(figure: Figure) -> Html:
    """Where the page's script draws a figure; the caption stands without it."""
    return element(
        "figure",
        element("figcaption", figure.title),
        element("div", class_="plot", id=f"figure-{figure.ident}-plot", role="img", aria_label=figure.title),
        element("p", figure.panels[0]["caption"], class_="caption"),
        id=f"figure-{figure.ident}",
    )


def missing_text(counts: dict[str, int], limited: int) -> str:
    """Counts for a caption."""
    total = sum(counts.values())
    lost = [f"{counts[status]:,} {status}" for status in ORDER[1:] if counts[status]]
    text = f"{counts[ORDER[0]]:,} of {count_of(total, 'cell')} have a result"
    text += f"; {', '.join(lost)} are left out" if lost else ""
    return f"{text}; the time limit ended {limited:,}" if limited else text


def summary_section(cells: Cells, audit: BracketAudit) -> Html:
    """Tiles with the main numbers."""
    counts = cells.counts()
    hours = float(np.nansum(cells.number("seconds"))) / 3600.0
    tiles = [("cells", number(cells.size))]
    tiles += [(status, number(counts[status])) for status in ORDER]
    tiles += [
        ("ended by the time limit", number(int(cells.limited.sum()))),
        ("core hours", number(hours, 3)),
        ("median upper / lower", number(float(np.median(audit.ratios)) if audit.ratios.size else None, 3)),
    ]
    made = [element("div", element("b", value), element("span", name), class_="tile") for name, value in tiles]
    return element("div", *made, class_="tiles")


def bracket_section(charts: list[Chart]) -> tuple[Html, list[Figure]]:
    """The bracket along every axis that varies."""
    if not charts:
        return element("p", "No numeric axis varies, so there is no curve to draw.", class_="soft"), []
    parts: list[Html] = []
    figures = []
    for chart in charts:
        figure = chart_figure(chart, f"λ* bracket against {chart.title}", [_caption(chart, panel) for panel in chart.panels])
        figures.append(figure)
        parts.append(element("h3", f"Against {chart.title}", id=f"against-{chart.along}"))
        parts.append(figure_element(figure))
        if chart.log:
            parts.append(_fit_table(chart))
        parts.append(_median_table(chart))
    return joined(parts), figures


def _caption(chart: Chart, panel: Panel) -> str:
    end = "Lower end: the largest λ with a witness against convexity (solid)."
    if any(curve.upper.count.any() for curve in panel.curves):
        end += " Upper end: certified, convex from there on (dashed)."
    banded = len(panel.curves) <= MOST_BANDS
    parts = [
        end,
        f"Medians over the seeds{' with bands from the lower to the upper quartile' if banded else ''}"
        f"{'; dotted: power laws' if banded and chart.log else ''}.",
        f"{missing_text(panel.counts, panel.limited)}.",
    ]  # fmt: skip
    if sum(panel.counts.values()) > panel.counts[ORDER[0]]:
        parts.append("Crosses: points where cells are missing.")
    if panel.limited:
        parts.append("Open diamonds: points with cells that their time limit ended; their brackets hold but may be wide.")
    if panel.infinite_upper:
        parts.append(f"{count_of(panel.infinite_upper, 'upper end')} infinite: counted in the medians, not drawn.")
    if panel.infinite_lower:
        parts.append(f"{count_of(panel.infinite_lower, 'lower end')} infinite: no penalty is enough.")
    if panel.zero_lower:
        parts.append(f"{count_of(panel.zero_lower, 'lower end')} zero: not drawn on logarithmic scales.")
    if chart.follows:
        parts.append(f"{_listed(chart.follows)} changes together with {chart.title}.")
    parts += [f"{note}." for note in panel.thinned]
    if chart.hidden_panels:
        parts.append(
            f"{count_of(chart.hidden_panels, 'more combination')} of the other axes not drawn; see the table to download."
        )
    return " ".join(parts)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _curves(chart: Chart) -> list[tuple[Panel, Curve]]:
    return [(panel, curve) for panel in chart.panels for curve in panel.curves]


def _fit_table(chart: Chart) -> Html:
    rows = []
    for panel, curve in _curves(chart):
        for end, band in (("lower", curve.lower), ("upper", curve.upper)):
            if band.fit is not None:
                rows.append((panel.label or "all", curve.label or "–", end, *fit_texts(band.fit)))
    head = ("cells", "curve", "end", "exponent", f"{100 * LEVEL:.0f} % interval", "R²", "points")
    if not rows:
        return element("p", "No power law: that needs two points with finite, positive medians.", class_="soft")
    return joined(
        [
            element(
                "p",
                f"Exponents b of λ ∝ ({chart.title})ᵇ, by least squares of the logarithms of the medians; the interval is "
                "Student's and holds scatter and misfit alike. With two points there is none.",
                class_="soft",
            ),
            table(head, rows[:MOST_ROWS], numbers=range(3, 7)),
            _cut(len(rows)),
        ]
    )


def fit_texts(fit: PowerFit) -> tuple[str, str, str, str]:
    """Exponent, interval, R² and number of points."""
    interval = "–" if np.isnan(fit.low) else f"{fit.low:.3f} to {fit.high:.3f}"
    return f"{fit.exponent:.3f}", interval, f"{fit.r_squared:.4f}", number(fit.points)


def _median_table(chart: Chart) -> Html:
    def quartiles(band: Band, i: int) -> str:
        low, high = band.quartiles
        return f"{number(float(low[i]))} to {number(float(high[i]))}" if band.count[i] else "–"

    rows = [
        (
            panel.label or "all", curve.label or "–", number(float(x)),
            number(float(curve.lower.median[i])), quartiles(curve.lower, i),
            number(float(curve.upper.median[i])), quartiles(curve.upper, i),
            number(int(curve.counts[i, 0])), number(int(curve.counts[i, 1:].sum())), number(int(curve.limited[i])),
        )
        for panel, curve in _curves(chart)
        for i, x in enumerate(curve.x)
    ]  # fmt: skip
    head = (
        "cells", "curve", chart.along, "lower, median", "lower, quartiles", "upper, median", "upper, quartiles", "done",
        "missing", "time limit",
    )  # fmt: skip
    return details(
        f"The medians as a table ({count_of(len(rows), 'point')})",
        table(head, rows[:MOST_ROWS], numbers=range(2, 10)),
        _cut(len(rows)),
    )


def _cut(count: int) -> Html:
    return element("p", f"The first {MOST_ROWS} of {count:,} rows.", class_="soft") if count > MOST_ROWS else Html("")


def audit_section(cells: Cells, audit: BracketAudit, certificates: Certificates) -> tuple[Html, list[Figure]]:
    """Are the ends the right way round, and how far apart are they?"""
    parts = []
    if audit.num_violations:
        first = "; ".join(f"{cells.columns['key'][i][:12]} ({cells.describe(i)})" for i in audit.violations)
        text = f"{count_of(audit.num_violations, 'bracket')} of {audit.pairs:,} with lam_lower > lam_upper: {first}"
        parts.append(element("p", text, ". This is a defect of pyhess; please report it.", class_="bad"))
    elif audit.pairs:
        parts.append(element("p", f"lam_lower ≤ lam_upper in all {count_of(audit.pairs, 'cell')} with both ends.", class_="good"))
    else:
        parts.append(element("p", "No cell has both ends, so there is nothing to compare.", class_="soft"))
    rows = [(name, number(count), _OUTCOMES.get(name, "")) for name, count in audit.outcomes.items()]
    if rows:
        parts.append(table(("outcome", "cells", "meaning"), rows, numbers=[1]))
    if not audit.ratios.size:
        return joined(parts), []
    shares = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
    values = [number(float(value)) for value in np.quantile(audit.ratios, shares)]
    parts.append(element("p", f"Upper over lower end in the {count_of(audit.ratios.size, 'cell')} where there is a ratio:"))
    parts.append(table(("smallest", "25 %", "median", "75 %", "95 %", "largest"), [values], numbers=range(6)))
    caption = (
        f"Cells by the ratio of the ends, 1 being an exact threshold; colours: the certificate that gave the upper end. "
        f"{count_of(audit.ratios.size, 'cell')} of {audit.pairs:,} with both ends; left out: {audit.infinite:,} with an infinite "
        f"upper end, {audit.zero:,} with a lower end of zero. {missing_text(cells.counts(), int(cells.limited.sum()))}."
    )
    figure = ratio_figure(audit, certificates, "How far apart the ends are", caption)
    return joined([*parts, figure_element(figure)]), [figure]


def certificate_section(cells: Cells, certificates: Certificates, charts: list[Chart]) -> tuple[Html, list[Figure]]:
    """Which certificate gave the upper end, how often and in what time."""
    if not certificates.methods:
        return element("p", "No cell has a certificate.", class_="soft"), []
    rows = []
    total = sum(use.wins for use in certificates.methods)
    for use in certificates.methods:
        loose = use.looseness[~np.isnan(use.looseness)]
        rows.append(
            (
                use.method, number(use.tried), number(use.wins), number(100.0 * use.wins / total if total else None, 3),
                number(float(np.median(loose)) if loose.size else None),
                number(float(np.median(use.seconds)) if use.seconds.size else None, 3),
                number(float(use.seconds.max()) if use.seconds.size else None, 3),
                number(float(use.seconds.sum()) / 3600.0 if use.seconds.size else None, 3),
            )
        )  # fmt: skip
    head = ("method", "tried", "won", "won, %", "median bound / best", "median s", "longest s", "hours")
    parts = [
        element(
            "p",
            "A method wins a cell when its bound gave the upper end. Bound / best compares its psi_lower with the best one of "
            "the cell: 1 is as good, 2 twice as loose.",
        ),
        table(head, rows, numbers=range(1, 8)),
    ]
    if not charts or not total:
        return joined(parts), []
    caption = (
        f"Share of the cells in which each method gave the upper end: {count_of(total, 'cell')} with a certificate. "
        f"{missing_text(cells.counts(), int(cells.limited.sum()))}."
    )
    along = charts[0]
    figure = certificate_figure(cells, certificates, along.along, along.title, f"Winning certificate by {along.title}", caption)
    return joined([*parts, figure_element(figure)]), [figure]
