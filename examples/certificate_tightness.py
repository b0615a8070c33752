"""How tight the certificates are: lam_upper / lam_lower against the region's radius, the width and the depth, and on real data.

Usage: python examples/certificate_tightness.py [seconds per row] [random | real | deep]

Prints the tables in docs/certificates.md: for each network the lower end that a search proves, and for every method the ratio of
its upper end to it. ``random``: ten standard normal data, two features, one output; tanh, squared error, a box about the origin.
``real``: diabetes and digits, which need the extra ``[data]``. ``deep``: two and three hidden layers, wide boxes and balls.
"""

from __future__ import annotations

import sys

import numpy as np

import pyhess as ph

METHODS = ("moment", "centre", "comparison", "deif", "blocks", "units", "boxes")
RANDOM = [
    *[([2, 4, 1], radius) for radius in (1.0, 0.3, 0.1, 0.03)],
    *[([2, width, 1], 0.3) for width in (2, 8, 16)],
    *[([2, *[3] * depth, 1], 0.1) for depth in (1, 2, 3)],
]
REAL = [
    *[("diabetes", [10, 8, 1], radius) for radius in (1.0, 0.1)],
    *[("diabetes", [10, 8, 8, 1], radius) for radius in (1.0, 0.1)],
    *[("digits", [64, 16, 10], radius) for radius in (0.5, 0.1, 0.03)],
]


DEEP = [([2, *[3] * depth, 1], kind) for kind in ("box", "ball") for depth in (2, 3)]


def row(name: str, obj: ph.Objective, radius: float, seconds: float, *, ball: bool = False) -> None:
    """Print one line of the table."""
    region = ph.Ball(radius=radius) if ball else ph.Box(-radius, radius)
    lower = ph.lambda_threshold(obj, region, rng=257, certificate=None, time_limit=seconds).lam_lower
    certificate = ph.certify(obj, region, time_limit=seconds, psi_upper=-2.0 * lower)
    ratios = [f"{-0.5 * certificate.table[m].psi_lower / lower:.3g}" if m in certificate.table else "" for m in METHODS]
    best = certificate.lam_upper / lower
    print(f"| {name} | {radius:g} | {lower:.4g} |", " | ".join(ratios), f"| {best:.3g} |", flush=True)


def main() -> None:
    """Print a table as Markdown."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    print("| network | box | lam_lower |", " | ".join(METHODS), "| best |")
    print("|---|---|---|" + "---|" * (len(METHODS) + 1))
    if sys.argv[2:] == ["real"]:
        for name, widths, radius in REAL:
            obj = ph.Objective(
                ph.MLP(widths), ph.datasets.load(name), loss="cross_entropy" if name == "digits" else "squared_error"
            )
            row(f"{name} {'-'.join(map(str, widths))}", obj, radius, seconds)
        return
    rng = np.random.default_rng(251)
    data = ph.Dataset(rng.standard_normal((10, 2)), rng.standard_normal(10))
    if sys.argv[2:] == ["deep"]:
        for widths, kind in DEEP:
            row(f"{'-'.join(map(str, widths))} {kind}", ph.Objective(ph.MLP(widths), data), 1.0, seconds, ball=kind == "ball")
        return
    for widths, radius in RANDOM:
        row("-".join(map(str, widths)), ph.Objective(ph.MLP(widths), data), radius, seconds)


if __name__ == "__main__":
    main()
