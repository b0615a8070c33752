"""Exponents of the threshold against the width, from the reference sweep's store, as the table of docs/reference-sweep.md.

    python exponents.py reference.db --figure reference-sweep.svg

For every family the lower ends at each width, medians over the seeds, and the slope of their logarithms over the widths from 32
on with Student's 95 % interval. A star marks cells that their time limit ended.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from pyhess.sweep import Store
from pyhess.sweep.report.fits import power_fit

FAMILY = ("data", "activation", "parametrization", "depth")
#: Exponents of the orders of magnitude in docs/reference-sweep.md: by squared error, softplus, NTK and more than one layer.
EXPECTED = {
    "tanh": lambda squared, ntk, deep: (-1.0 if deep else -0.5) if ntk else 0.0,
    "softplus": lambda squared, ntk, deep: -0.5 if ntk else float(deep) + 0.5 * squared,
}


Families = dict[tuple[Any, ...], dict[int, list[dict[str, Any]]]]


def families(path: str, kind: str) -> Families:
    """Finished cells of a kind by family and width."""
    found: Families = defaultdict(lambda: defaultdict(list))
    with Store.open(path, readonly=True) as store:
        for row in store.rows("done"):
            if row["kind"] == kind:
                axes = row["axes"]
                found[tuple(axes[name] for name in FAMILY)][axes["width"]].append(row)
    return found


def draw(path: Path, lower: Families, upper: Families) -> None:
    """Lower ends (lines; open where a time limit ended a cell) and upper ends (dotted) against the width."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "reference-sweep"
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, 3, figsize=(10.0, 6.0), sharex=True, sharey="row", layout="constrained")
    colours = {
        name: f"C{i}" for i, name in enumerate((d, a) for d in ("digits", "teacher_student") for a in ("tanh", "softplus"))
    }
    for (data, activation, parametrization, depth), cells in sorted(lower.items()):
        axes = grid[int(parametrization == "ntk"), depth - 1]
        axes.set_title(f"{parametrization}, {depth} hidden layer{'s' if depth > 1 else ''}", fontsize=9)
        colour, widths = colours[data, activation], sorted(cells)
        ends = [median(row["lam_lower"] for row in cells[width]) for width in widths]
        axes.loglog(widths, ends, color=colour, linewidth=1.0, label=f"{data}, {activation}")
        for width, end in zip(widths, ends, strict=True):
            limited = any(row["time_limited"] for row in cells[width])
            axes.plot(width, end, "o", color=colour, markersize=4.0, markerfacecolor="white" if limited else colour)
        above = upper.get((data, activation, parametrization, depth), {})
        axes.plot(sorted(above), [above[width][0]["lam_upper"] for width in sorted(above)], ":", color=colour, linewidth=1.0)
    for axes in grid[-1]:
        axes.set_xlabel("units per hidden layer")
    for axes in grid[:, 0]:
        axes.set_ylabel("ends of the threshold")
    grid[0, 0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--least", type=int, default=32, help="smallest width of the fit (default 32)")
    parser.add_argument("--figure", type=Path, help="also draw both ends (needs matplotlib); an SVG file")
    given = parser.parse_args()
    table = families(given.store, "search")
    widths = sorted({width for cells in table.values() for width in cells})
    print("| data | activation | parametrisation | layers | " + " | ".join(map(str, widths)) + " | exponent | expected |")
    print("|" + "---|" * (len(widths) + 6))
    for family in sorted(table, key=lambda family: (family[2], family[1], family[0], family[3])):
        data, activation, parametrization, depth = family
        cells = table[family]
        ends = {width: median(row["lam_lower"] for row in cells[width]) for width in widths if width in cells}
        marks = {width: "\\*" if any(row["time_limited"] for row in cells[width]) else "" for width in ends}
        fitted = [width for width in ends if width >= given.least]
        fit = power_fit(fitted, [ends[width] for width in fitted])
        expected = EXPECTED[activation](data == "teacher_student", parametrization == "ntk", depth > 1)
        shown = [f"{ends[width]:.3g}{marks[width]}" if width in ends else "" for width in widths]
        interval = "" if fit is None or fit.points < 3 else f" ± {0.5 * (fit.high - fit.low):.2f}"
        slope = "" if fit is None else f"{fit.exponent:+.2f}{interval}"
        print(f"| {' | '.join(map(str, (*family, *shown)))} | {slope} | {expected:+.1f} |")
    if given.figure is not None:
        draw(given.figure, table, families(given.store, "bracket"))


if __name__ == "__main__":
    main()
