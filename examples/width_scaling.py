"""How the convexity threshold scales with the width of one hidden layer.

Four families on the digits data (softmax cross-entropy, tanh): standard and NTK parametrisation, on a centred box and on a ball.
The ball of the NTK family lies around a random initialisation, where the Hessian's norm of a wide network is known to fall like
1/sqrt(m) (Liu, Zhu & Belkin 2020). Every width is searched with the witness of half the width, its units duplicated, among its
starts, so that the lower ends are comparable. Exponents are least-squares slopes of log lam_lower over log m, with Student's
95 % intervals.

    python examples/width_scaling.py                        all widths, writes width_scaling.json beside the table
    python examples/width_scaling.py --most 64 --rows 200   a minute's worth
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

import pyhess as ph


@dataclass(frozen=True)
class Family:
    """A parametrisation and a region for every network of it."""

    name: str
    parametrization: str
    region: Callable[[ph.MLP, int], ph.Box | ph.Ball]
    centred: bool = True


FAMILIES = (
    Family("standard, box 0.5", "standard", lambda net, seed: ph.Box(-0.5, 0.5)),
    Family("standard, ball 3", "standard", lambda net, seed: ph.Ball(radius=3.0)),
    Family("NTK, box 1", "ntk", lambda net, seed: ph.Box(-1.0, 1.0)),
    Family("NTK, ball 3 around an initialisation", "ntk", lambda net, seed: ph.Ball(net.init(rng=seed), 3.0), centred=False),
)


def lower_ends(
    family: Family, data: ph.Dataset, widths: list[int], starts: int | None, seconds: float, seed: int
) -> Iterator[tuple[int, float]]:
    """(width, lam_lower), one width after the other."""
    before: tuple[ph.MLP, np.ndarray, np.ndarray] | None = None
    for width in widths:
        net = ph.MLP([data.num_features, width, 10], parametrization=family.parametrization)
        obj = ph.Objective(net, data, loss="cross_entropy")
        warm = None
        # Around a random centre there is no point that is the narrower network's with its units duplicated.
        if before is not None and family.centred:
            warm = ph.widen(before[0], net, before[1], before[2])
        few = None if starts is None else max(2, starts // max(1, width // 64))
        found = ph.search(obj, family.region(net, seed), rng=seed, starts=few, warm=warm, time_limit=seconds)
        before = net, found.theta, found.v
        print(f"{family.name}, width {width}: {found.lam_lower:.6g} in {found.seconds:.0f} s", file=sys.stderr, flush=True)
        yield width, found.lam_lower


def slope(widths: list[int], values: list[float]) -> tuple[float, float]:
    """The exponent and half the width of its 95 % interval."""
    x, y = np.log(widths), np.log(values)
    x = x - x.mean()
    exponent = float(x @ y / (x @ x))
    residual = y - y.mean() - exponent * x
    if len(x) < 3:
        return exponent, math.inf
    error = math.sqrt(float(residual @ residual) / (len(x) - 2) / float(x @ x))
    return exponent, float(student.ppf(0.975, len(x) - 2)) * error


def draw(record: dict[str, Any], path: Path) -> None:
    """Thresholds against widths, with a line of the slope -1/2."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "width-scaling"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.0, 4.2), layout="constrained")
    widths = np.array(record["widths"], dtype=float)
    for marker, (name, found) in zip("osD^", record["families"].items(), strict=False):
        values = np.median(np.array(found["lam_lower"]), axis=0)
        axes.loglog(
            widths, values, marker=marker, markersize=4.5, label=f"{name}: {found['exponent']:+.2f} ± {found['interval']:.2f}"
        )
    last = np.median(np.array(found["lam_lower"]), axis=0)[-1]
    guide = widths[len(widths) // 2 :]
    axes.loglog(guide, 0.5 * last * (guide / guide[-1]) ** -0.5, "k--", linewidth=0.8, label="slope -1/2")
    axes.set(xlabel="hidden units m", ylabel="lower end of the threshold")
    axes.grid(True, which="major", linewidth=0.3)
    axes.legend(fontsize=8, title="exponent for the larger widths", title_fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix in (".svg", ".pdf") else None)


def main() -> None:
    """Measure, print the table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=4096, help="largest width (default 4096)")
    parser.add_argument("--rows", type=int, default=500, help="rows of the data set (default 500)")
    parser.add_argument("--starts", type=int, default=32, help="starts up to width 64; wider networks get fewer (default 32)")
    parser.add_argument("--seconds", type=float, default=120.0, help="time limit of one search, for the widest (default 120)")
    parser.add_argument("--seeds", type=int, default=3, help="random streams, the median of which counts (default 3)")
    parser.add_argument("--figure", type=Path, help="also draw it (needs matplotlib); SVG, PDF or PNG by the name's ending")
    parser.add_argument("--out", type=Path, default=Path("width_scaling.json"))
    given = parser.parse_args()
    widths = [2**k for k in range(1, 13) if 2**k <= given.most]
    raw = ph.datasets.load("digits", n=given.rows)
    data = ph.Dataset((raw.X - raw.X.mean(axis=0)) / 16.0, raw.y)
    record = {"widths": widths, "rows": given.rows, "families": {}}
    print("family".ljust(38) + "".join(f"{width:>9}" for width in widths) + "   exponent (upper half)")
    for family in FAMILIES:
        table = np.array(
            [
                [value for _, value in lower_ends(family, data, widths, given.starts, given.seconds, 20 + seed)]
                for seed in range(given.seeds)
            ]
        )
        values = np.median(table, axis=0).tolist()
        upper = slice(len(widths) // 2, None)
        exponent, interval = slope(widths[upper], values[upper])
        record["families"][family.name] = {"lam_lower": table.tolist(), "exponent": exponent, "interval": interval}
        print(
            family.name.ljust(38) + "".join(f"{value:9.4g}" for value in values) + f"   {exponent:+.3f} ± {interval:.3f}",
            flush=True,
        )
        given.out.write_text(json.dumps(record, indent=1) + "\n")
    if given.figure is not None:
        draw(record, given.figure)


if __name__ == "__main__":
    main()
