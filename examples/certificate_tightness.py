"""How tight the certificates are: lam_upper / lam_lower against the region's radius, the width and the depth, and on real data.

Usage: python examples/certificate_tightness.py [seconds per row] [random | balls | real | deep | trained]

Prints the tables in docs/certificates.md: for each network the lower end that a search proves, and for every method the ratio of
its upper end to it. ``random``: ten standard normal data, two features, one output; tanh, squared error, a box about the origin.
``balls``: the same with one hidden layer and balls. ``real``: diabetes and digits, which need the extra ``[data]``. ``deep``: two
and three hidden layers, wide boxes and balls. ``trained``: balls around trained weights.
"""

from __future__ import annotations

import sys

import numpy as np
from scipy.optimize import minimize

import pyhess as ph

METHODS = ("moment", "centre", "comparison", "deif", "blocks", "units", "boxes", "cells")
RANDOM = [
    *[([2, 4, 1], radius) for radius in (1.0, 0.3, 0.1, 0.03)],
    *[([2, width, 1], 0.3) for width in (2, 8, 16)],
    *[([2, *[3] * depth, 1], 0.1) for depth in (1, 2, 3)],
]
BALLS = [([2, width, 1], radius) for width in (4, 8) for radius in (0.3, 1.0, 2.0, 3.0)]
BALL_METHODS = ("moment", "centre", "deif", "blocks", "taylor", "units")
REAL = [
    *[("diabetes", [10, 8, 1], radius) for radius in (1.0, 0.1)],
    *[("diabetes", [10, 8, 8, 1], radius) for radius in (1.0, 0.1)],
    *[("digits", [64, 16, 10], radius) for radius in (0.5, 0.1, 0.03)],
]


TRAINED = [
    (widths, radius)
    for widths in ([3, 4, 1], [2, 3, 3, 1], [3, 3, 3, 1], [4, 8, 1], [2, 5, 5, 1])
    for radius in (0.001, 0.01, 0.1, 0.5)
]
TRAINED_METHODS = ("moment", "centre", "blocks", "taylor", "slabs", "units", "cells")
DEEP = [([2, *[3] * depth, 1], kind) for kind in ("box", "ball") for depth in (2, 3)]


def trained(widths: list[int]) -> tuple[ph.Objective, np.ndarray]:
    """Forty data of a network of the same kind with noise, and weights after 300 steps of L-BFGS."""
    rng = np.random.default_rng(263)
    net = ph.MLP(widths)
    x = rng.standard_normal((40, widths[0]))
    teacher = 0.8 * rng.standard_normal(net.num_params)
    a = x
    for layer, (weight, bias) in enumerate(net.layer_slices):
        a = a @ teacher[weight].reshape(widths[layer + 1], -1).T + teacher[bias]
        a = np.tanh(a) if layer < net.num_layers - 1 else a
    obj = ph.Objective(net, ph.Dataset(x, a[:, 0] + 0.1 * rng.standard_normal(40)))
    start = 0.5 * rng.standard_normal(net.num_params)
    found = minimize(lambda t: (obj.value(t), obj.gradient(t)), start, jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return obj, found.x


def row(
    name: str,
    obj: ph.Objective,
    radius: float,
    seconds: float,
    *,
    ball: bool = False,
    centre: np.ndarray | float = 0.0,
    methods: tuple[str, ...] = METHODS,
) -> None:
    """Print one line of the table."""
    region = ph.Ball(centre, radius) if ball else ph.Box(-radius, radius)
    lower = ph.lambda_threshold(obj, region, rng=257, certificate=None, time_limit=seconds).lam_lower
    certificate = ph.certify(obj, region, time_limit=seconds, psi_upper=-2.0 * lower)
    bounds = [certificate.table[m].psi_lower if m in certificate.table else -np.inf for m in methods]
    ratios = [f"{-0.5 * bound / lower:.3g}" if bound > -np.inf else "" for bound in bounds]
    best = certificate.lam_upper / lower
    print(f"| {name} | {radius:g} | {lower:.4g} |", " | ".join(ratios), f"| {best:.3g} |", flush=True)


def main() -> None:
    """Print a table as Markdown."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    methods = {"trained": TRAINED_METHODS, "balls": BALL_METHODS}.get("".join(sys.argv[2:]), METHODS)
    print("| network | radius | lam_lower |", " | ".join(methods), "| best |")
    print("|---|---|---|" + "---|" * (len(methods) + 1))
    if sys.argv[2:] == ["real"]:
        for name, widths, radius in REAL:
            obj = ph.Objective(
                ph.MLP(widths), ph.datasets.load(name), loss="cross_entropy" if name == "digits" else "squared_error"
            )
            row(f"{name} {'-'.join(map(str, widths))}", obj, radius, seconds)
        return
    if methods is TRAINED_METHODS:
        for widths, radius in TRAINED:
            obj, theta = trained(widths)
            row("-".join(map(str, widths)), obj, radius, seconds, ball=True, centre=theta, methods=methods)
        return
    rng = np.random.default_rng(251)
    data = ph.Dataset(rng.standard_normal((10, 2)), rng.standard_normal(10))
    if methods is BALL_METHODS:
        for widths, radius in BALLS:
            row("-".join(map(str, widths)), ph.Objective(ph.MLP(widths), data), radius, seconds, ball=True, methods=methods)
        return
    if sys.argv[2:] == ["deep"]:
        for widths, kind in DEEP:
            row(f"{'-'.join(map(str, widths))} {kind}", ph.Objective(ph.MLP(widths), data), 1.0, seconds, ball=kind == "ball")
        return
    for widths, radius in RANDOM:
        row("-".join(map(str, widths)), ph.Objective(ph.MLP(widths), data), radius, seconds)


if __name__ == "__main__":
    main()
