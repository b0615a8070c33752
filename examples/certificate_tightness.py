"""How tight the certificates are: lam_upper / lam_lower against the region's radius, the width and the depth.

Usage: python examples/certificate_tightness.py [seconds per row] [deep]

Prints the tables in docs/certificates.md: for each network the lower end that a search proves, and for every method the ratio of
its upper end to it. Ten standard normal data, two features, one output; tanh, squared error, a box or a ball about the origin.
"""

from __future__ import annotations

import sys

import numpy as np

import pyhess as ph

METHODS = ("moment", "centre", "comparison", "deif", "boxes")
ROWS = [
    *[([2, 4, 1], "box", radius) for radius in (1.0, 0.3, 0.1, 0.03)],
    *[([2, width, 1], "box", 0.3) for width in (2, 8, 16)],
    *[([2, *[3] * depth, 1], "box", 0.1) for depth in (1, 2, 3)],
]
DEEP_METHODS = (*METHODS, "cells")
DEEP_ROWS = [([2, *[3] * depth, 1], kind, 1.0) for kind in ("box", "ball") for depth in (2, 3)]


def main() -> None:
    """Print a table as Markdown."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    methods, rows = (DEEP_METHODS, DEEP_ROWS) if "deep" in sys.argv[2:] else (METHODS, ROWS)
    rng = np.random.default_rng(251)
    data = ph.Dataset(rng.standard_normal((10, 2)), rng.standard_normal(10))
    print("| network | region | lam_lower |", " | ".join(methods), "|")
    print("|---|---|---|" + "---|" * len(methods))
    for widths, kind, radius in rows:
        obj = ph.Objective(ph.MLP(widths), data)
        region: ph.Box | ph.Ball = ph.Box(-radius, radius) if kind == "box" else ph.Ball(radius=radius)
        lower = ph.lambda_threshold(obj, region, rng=257, certificate=None, time_limit=seconds).lam_lower
        table = ph.certify(obj, region, time_limit=seconds, psi_upper=-2.0 * lower).table
        ratios = [-0.5 * table[name].psi_lower / lower if name in table else float("nan") for name in methods]
        print(
            f"| {'-'.join(map(str, widths))} | {kind} {radius:g} | {lower:.4g} |",
            " | ".join(f"{r:.3g}" for r in ratios),
            "|",
            flush=True,
        )


if __name__ == "__main__":
    main()
