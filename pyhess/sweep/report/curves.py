"""The bracket along an axis: medians over the seeds, one panel for each combination of the other axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .cells import ORDER, REPLICATES, Axis, Cells, FloatArray, IntArray, combine, value_text
from .fits import PowerFit, group_quantiles, power_fit

#: Axes a bracket is drawn against, and whether both scales are logarithmic.
ALONG = {"width": True, "units": True, "radius": True, "n": True, "depth": False, "beta": True, "shift": False}
NAMES = {
    "width": "width", "units": "hidden units", "radius": "radius", "n": "number of samples N", "depth": "depth (hidden layers)",
    "beta": "softplus β", "shift": "shift ε",
}  # fmt: skip
#: What tells the curves of a panel apart: the first of these that varies.
_LINES = ("depth", "width", "activation", "parametrization", "radius", "n")
_LINES_ELSEWHERE = ("width", "units", "depth", "activation", "parametrization", "n", "radius")
#: Most panels of a chart, curves of a panel and points of a curve that are drawn.
MOST_PANELS, MOST_CURVES, MOST_POINTS = 48, 12, 200
_SHARES = (0.5, 0.25, 0.75, 0.0, 1.0)


@dataclass(frozen=True)
class Band:
    """One end of the bracket at the points of a curve.

    Attributes
    ----------
    quantiles : (K, 5) array
        Median, lower and upper quartile, smallest and largest value.
    count : (K,) array
        Number of values.
    fit : PowerFit or None
        Through the medians.
    """

    quantiles: FloatArray
    count: IntArray
    fit: PowerFit | None

    @property
    def median(self) -> FloatArray:
        """Medians (K,)."""
        return self.quantiles[:, 0]

    @property
    def quartiles(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper quartiles (K,)."""
        return self.quantiles[:, 1], self.quantiles[:, 2]

    @property
    def extremes(self) -> tuple[FloatArray, FloatArray]:
        """Smallest and largest values (K,)."""
        return self.quantiles[:, 3], self.quantiles[:, 4]


@dataclass(frozen=True)
class Curve:
    """The bracket against x (K,); ``counts`` (K, 4) by status, ``limited`` (K,) results that a time limit cut short."""

    label: str
    x: FloatArray
    lower: Band
    upper: Band
    counts: IntArray
    limited: IntArray


@dataclass(frozen=True)
class Panel:
    """Curves that share all axes but x and the one that tells them apart."""

    label: str
    curves: list[Curve]
    counts: dict[str, int]
    limited: int
    infinite_lower: int
    infinite_upper: int
    zero_lower: int
    thinned: list[str]


@dataclass(frozen=True)
class Chart:
    """All panels along one axis; ``follows`` names the axes that change together with x."""

    along: str
    line: str | None
    log: bool
    panels: list[Panel]
    hidden_panels: int
    follows: list[str]

    @property
    def title(self) -> str:
        """The quantity on the x axis."""
        return NAMES[self.along]


def make_charts(cells: Cells) -> list[Chart]:
    """A chart for every numeric axis that varies while the others stay."""
    charts = []
    for along in ALONG:
        axis = cells.axes.get(along)
        if axis is not None and axis.varies and axis.numbers is not None:
            chart = _chart(cells, axis)
            if chart is not None:
                charts.append(chart)
    return charts


def _chart(cells: Cells, along: Axis) -> Chart | None:
    varying = [
        axis
        for name, axis in cells.axes.items()
        if axis.varies and name not in (*REPLICATES, along.name) and not _same(name, along)
    ]
    kept, follows = _independent(varying, along, cells.size)
    order = _LINES if along.name == "width" else _LINES_ELSEWHERE
    line = next((cells.axes[name] for name in order if any(axis.name == name for axis in kept)), None)
    panel_axes = [axis for axis in kept if axis is not line]
    panel_of, num_panels = combine([axis.codes for axis in panel_axes], cells.size)
    line_codes = np.zeros(cells.size, dtype=np.int64) if line is None else line.codes
    point_of, num_points = combine([panel_of, line_codes, along.codes], cells.size)
    first = np.zeros(num_points, dtype=np.int64)
    first[point_of[::-1]] = np.arange(cells.size)[::-1]
    points = _Points(cells, point_of, num_points, first, panel_of[first], line_codes[first], along)
    if not points.has_curve():
        return None
    shown = np.arange(num_panels)[:MOST_PANELS]
    labelled = [axis for axis in varying if axis is not line]
    panels = []
    for number in shown:
        members = np.flatnonzero(panel_of == number)
        fixed = [axis for axis in labelled if np.ptp(axis.codes[members]) == 0]
        label = " · ".join(value_text(axis.name, axis.values[axis.codes[members[0]]]) for axis in fixed)
        panels.append(points.panel(int(number), label, line, members))
    return Chart(along.name, None if line is None else line.name, ALONG[along.name], panels, num_panels - len(shown), follows)


def _same(name: str, along: Axis) -> bool:
    """Whether an axis is x in other words."""
    return name == "units" or (along.name == "units" and name == "hidden")


def _independent(varying: list[Axis], along: Axis, size: int) -> tuple[list[Axis], list[str]]:
    """Leave out axes that the others determine, and numeric ones that go with x; names of the latter."""
    kept, follows = list(varying), []
    for axis in varying[::-1]:
        others = [one.codes for one in kept if one is not axis]
        if combine(others, size)[1] == combine([*others, axis.codes], size)[1]:
            kept = [one for one in kept if one is not axis]
        elif axis.numbers is not None:
            with_x = [*others, along.codes]
            if combine(with_x, size)[1] == combine([*with_x, axis.codes], size)[1]:
                kept = [one for one in kept if one is not axis]
                follows.append(axis.name)
    return kept, follows


class _Points:
    """The points of a chart: cells that share panel, curve and x."""

    def __init__(
        self, cells: Cells, point_of: IntArray, count: int, first: IntArray, panel: IntArray, line: IntArray, along: Axis
    ) -> None:
        self.cells, self.panel_of, self.line_of = cells, panel, line
        numbers = along.numbers
        assert numbers is not None
        self.log = ALONG[along.name]
        self.x = numbers[along.codes[first]]
        self.counts = np.bincount(point_of * len(ORDER) + cells.status, minlength=count * len(ORDER)).reshape(count, len(ORDER))
        self.limited = np.bincount(point_of, weights=cells.limited, minlength=count).astype(np.int64)
        self.quantiles = [group_quantiles(values, point_of, count, _SHARES) for values in (cells.lower, cells.upper)]
        self.used = [
            np.bincount(point_of, weights=~np.isnan(values), minlength=count).astype(np.int64)
            for values in (cells.lower, cells.upper)
        ]

    def has_curve(self) -> bool:
        """Whether some curve has more than one point."""
        _, sizes = np.unique(np.stack([self.panel_of, self.line_of]), axis=1, return_counts=True)
        return bool((sizes > 1).any())

    def panel(self, number: int, label: str, line: Axis | None, members: IntArray) -> Panel:
        """Make one panel; ``members`` are its cells."""
        cells, thinned = self.cells, []
        mine = np.flatnonzero(self.panel_of == number)
        lines = np.unique(self.line_of[mine])
        if len(lines) > MOST_CURVES:
            thinned.append(f"{MOST_CURVES} of {len(lines)} curves are drawn, evenly chosen")
            lines = lines[_even(len(lines), MOST_CURVES)]
        curves = []
        for code in lines:
            points = mine[self.line_of[mine] == code]
            name = "" if line is None else value_text(line.name, line.values[code])
            bands = [self._band(end, points) for end in (0, 1)]
            if len(points) > MOST_POINTS:
                places = _even(len(points), MOST_POINTS)
                thinned.append(f"{MOST_POINTS} of {len(points)} points of {name or 'the curve'} are drawn, evenly chosen")
                points, bands = points[places], [_some(band, places) for band in bands]
            curves.append(Curve(name, self.x[points], bands[0], bands[1], self.counts[points], self.limited[points]))
        found = np.bincount(cells.status[members], minlength=len(ORDER))
        return Panel(
            label=label,
            curves=curves,
            counts={status: int(found[i]) for i, status in enumerate(ORDER)},
            limited=int(cells.limited[members].sum()),
            infinite_lower=int(np.isposinf(cells.lower[members]).sum()),
            infinite_upper=int(np.isposinf(cells.upper[members]).sum()),
            zero_lower=int((cells.lower[members] <= 0.0).sum()),
            thinned=thinned,
        )

    def _band(self, end: int, points: IntArray) -> Band:
        found = self.quantiles[end][points]
        fit = power_fit(self.x[points], found[:, 0]) if self.log else None
        return Band(found, self.used[end][points], fit)


def _even(count: int, most: int) -> IntArray:
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def _some(band: Band, places: IntArray) -> Band:
    return Band(band.quantiles[places], band.count[places], band.fit)
