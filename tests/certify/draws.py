"""Random problems, many of them hostile: for the test that no bound is ever above an eigenvalue."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyhess as ph
from pyhess.certify import Certification
from pyhess.errors import NumericalError
from pyhess.threshold import search

ACTIVATIONS = ("tanh", "sigmoid", "softplus", "gelu", "identity", "relu")
#: A computed eigenvalue is trusted to this much of the Hessian's size.
ROUNDING = 1e-12


def draw(rng: np.random.Generator) -> tuple[ph.Objective, ph.Box | ph.Ball]:
    """A network of depth 1 to 3 with its data, and a box or ball."""
    depth = int(rng.integers(1, 4))
    loss = str(rng.choice(["squared_error", "squared_error", "cross_entropy", "logistic"]))
    outputs = {"squared_error": int(rng.integers(1, 3)), "cross_entropy": int(rng.integers(2, 4)), "logistic": 1}[loss]
    widths = [int(w) for w in rng.integers(1, 4, size=depth)] + [outputs]
    names = [str(name) for name in rng.choice(ACTIVATIONS, size=depth - 1)]
    net = ph.MLP(
        widths,
        names,
        beta=[float(b) for b in rng.choice([0.3, 1.0, 8.0], size=depth - 1)],
        bias=bool(rng.random() < 0.7),
        parametrization=str(rng.choice(["standard", "ntk"])),
    )
    count = int(rng.choice([1, 2, 5, 12]))
    x = rng.standard_normal((count, widths[0])) * 10.0 ** rng.choice([0, 0, 0, -3, 2])
    kind = rng.random()
    if kind < 0.15:
        x[:] = x[0]  # duplicates
    elif kind < 0.3:
        x[:, 0] = rng.choice([0.0, 1.0, -3.0])  # a constant column
    elif kind < 0.4:
        x[:, -1] *= 1e-310  # denormal
    y: Any
    if loss == "squared_error":
        y = rng.standard_normal((count, outputs)) * 10.0 ** rng.choice([0, 0, -2, 2])
    elif loss == "logistic":
        y = rng.integers(0, 2, count)
    elif rng.random() < 0.6:
        y = rng.integers(0, outputs, count)
    else:
        y = rng.dirichlet(np.ones(outputs), count)
    weights = None if rng.random() < 0.7 else rng.uniform(0.1, 5.0, count)
    obj = ph.Objective(net, ph.Dataset(x, y, weights), loss=loss)
    return obj, draw_region(rng, net.num_params)


def draw_region(rng: np.random.Generator, size: int) -> ph.Box | ph.Ball:
    """About the origin or a point, with sizes from 1e-12 to 1e3, and sometimes far out: huge weights, saturated units."""
    radius = float(10.0 ** rng.choice([-12, -6, -2, -1, -0.5, 0, 0.5, 1, 3]))
    centre = rng.standard_normal(size) * rng.choice([0.0, 0.5, 2.0, 30.0, 1e6], p=[0.4, 0.3, 0.2, 0.06, 0.04])
    if rng.random() < 0.5:
        return ph.Ball(centre, radius)
    wide = radius * (1.0 if rng.random() < 0.7 else rng.uniform(0.1, 1.0, size))
    wide = np.maximum(wide, 4.0 * np.spacing(np.abs(centre)))  # a box has an interior
    return ph.Box(centre - wide, centre + wide)


def bounds_of(obj: ph.Objective, region: ph.Box | ph.Ball) -> dict[str, float]:
    """What every method that applies proves."""
    work = Certification(obj, region)
    certificate = work.proceed("auto").certificate() if obj.net.num_layers > 1 else ph.certify(obj, region)
    return {name: row.psi_lower for name, row in certificate.table.items()}


def lowest_eigenvalue(obj: ph.Objective, region: ph.Box | ph.Ball, rng: np.random.Generator) -> float:
    """The smallest eigenvalue at sampled points, corners and ends of rays, and of the joint search; less what rounding may do."""
    size = obj.num_params
    points = [region.interior_point(), *region.sample(4, rng=rng)]
    for _ in range(4):
        direction = rng.choice([-1.0, 1.0], size)
        far = 3.0 * (region.radius if isinstance(region, ph.Ball) else float(np.max(region.high - region.low)))
        points.append(region.project(region.interior_point() + far * direction))
    lowest = np.inf
    for theta in points:
        try:
            dense = obj.hessian(theta).to_dense()
        except NumericalError:
            continue
        scale = float(np.abs(dense).sum(axis=1).max())
        lowest = min(lowest, float(np.linalg.eigvalsh(dense)[0]) + ROUNDING * _noise(obj, theta, scale))
    if obj.net.num_layers > 1:
        try:
            found = search(obj, region, rng=rng, starts=4, time_limit=1.0)
            dense = obj.hessian(found.theta).to_dense()
            scale = float(np.abs(dense).sum(axis=1).max())
            lowest = min(lowest, float(np.linalg.eigvalsh(dense)[0]) + ROUNDING * _noise(obj, found.theta, scale))
        except NumericalError:
            pass
    return lowest


def _noise(obj: ph.Objective, theta: Any, scale: float) -> float:
    """Size of the terms that the Hessian sums up; they may cancel, so the targets and outputs count as well."""
    reach = max(1.0, float(np.abs(theta).max())) ** obj.net.num_layers * max(1.0, float(np.abs(obj.data.X).max())) ** 2
    return scale + 100.0 * reach * max(1.0, float(np.abs(obj.targets).max())) * 1e-2
