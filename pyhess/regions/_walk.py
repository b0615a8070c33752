"""Points of a convex set by a random walk, where there is no direct way to draw them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .._region import FloatArray

#: Steps between a start at the interior point and the point returned, per coordinate and at least.
_STEPS_PER_COORDINATE, _MIN_STEPS = 4, 64


def walk(
    start: FloatArray,
    chord: Callable[[FloatArray, FloatArray], tuple[float, float]],
    project: Callable[[FloatArray], FloatArray],
    count: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Draw points (S, P) by hit-and-run, each from a walk of its own: independent, and uniform in the limit of long walks.

    Every step moves to a uniform point of the chord through the current one in a random direction (Smith 1984).
    """
    points = np.empty((count, start.size))
    for row in points:
        theta = start
        for _ in range(max(_MIN_STEPS, _STEPS_PER_COORDINATE * start.size)):
            direction = rng.standard_normal(start.size)
            first, last = chord(theta, direction)
            # The ends themselves are left out: rounding must not carry the walk outside.
            theta = theta + (first + (last - first) * rng.uniform(1e-9, 1.0 - 1e-9)) * direction
        row[:] = project(theta)
    return points
