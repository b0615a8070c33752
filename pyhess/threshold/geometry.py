"""Points of a convex region, placed so that rounding cannot push them out of it."""

from __future__ import annotations

import math

import numpy as np

from ..errors import NumericalError
from ..regions import Ball, Box, Intersection, Ordered, Region
from .roundoff import FloatArray

#: The midpoint m, the half difference d, and the ends m - d and m + d of a segment.
CentredPair = tuple[FloatArray, FloatArray, FloatArray, FloatArray]
#: Relative room left to the boundary of a ball, where the distance itself is rounded.
_BALL_MARGIN = 8.0 * float(np.finfo(np.float64).eps)
#: How far, relative to the distance from the centre, a point may be pulled in to undo rounding.
_PULLS = (0.0, 1e-15, 1e-14, 1e-12, 1e-9)


def surely_inside(region: Region, theta: FloatArray) -> bool:
    """Whether theta lies in the region in exact arithmetic, boundary included.

    The comparisons of a box and of an order are exact already, and a user's projection is taken at its word. The distance to a
    ball's centre is rounded, so a margin is kept.
    """
    if isinstance(region, Ball):
        squared = math.fsum((theta - region.center) ** 2)
        return squared * (1.0 + _BALL_MARGIN) <= region.radius**2 * (1.0 - _BALL_MARGIN)
    if isinstance(region, Intersection):
        return all(surely_inside(part, theta) for part in region.parts)
    if isinstance(region, Ordered):
        return region.contains(theta) and surely_inside(region.region, theta)
    return region.contains(theta)


def settle(region: Region, theta: FloatArray) -> FloatArray:
    """Return the nearest point that is surely inside: the projection, pulled in by rounding errors only."""
    point = np.array(region.project(theta), dtype=np.float64)
    centre = region.interior_point()
    for pull in _PULLS:
        candidate = point + pull * (centre - point)
        if surely_inside(region, candidate):
            return candidate
    raise NumericalError(
        f"the projection onto {region!r} does not lie inside it, not even after moving 1e-9 of the way "
        "to its centre; the region's project and contains methods disagree."
    )


def centred_pair(region: Region, theta: FloatArray, step: FloatArray) -> CentredPair | None:
    """Fit the segment ``m - d, m, m + d`` with d close to ``step`` into the region, m as close to theta as it gets.

    All three points are exact floating-point numbers, so that m is the exact midpoint of the two ends.

    Returns
    -------
    tuple of (P,) arrays (m, d, m - d, m + d), or None if the step is too long for the region.
    """
    middle = _room_for(region, theta, step)
    if middle is None:
        return None
    # Everything becomes a multiple of one unit per coordinate, small enough for sums to be exact.
    unit = _grid_unit(middle, step)
    d = np.rint(step / unit) * unit
    centre = region.interior_point()
    for pull in _PULLS if d.any() else ():
        m = np.rint((middle + pull * (centre - middle)) / unit) * unit
        if surely_inside(region, m - d) and surely_inside(region, m + d):
            return m, d, m - d, m + d
    return None


def _grid_unit(middle: FloatArray, step: FloatArray) -> FloatArray:
    size = np.maximum(np.abs(middle) + 2.0 * np.abs(step), 1e-280)
    unit: FloatArray = np.ldexp(1.0, np.frexp(size)[1] - 52)
    return unit


def _room_for(region: Region, theta: FloatArray, step: FloatArray) -> FloatArray | None:
    """Return a point near theta (the nearest one, for a box) from which moves of +-step stay inside, or None."""
    if isinstance(region, Box):
        slack = np.abs(step) + 2.0 * _grid_unit(theta, step)
        low, high = region.low + slack, region.high - slack
        return None if np.any(low > high) else np.clip(theta, low, high)

    def fits(middle: FloatArray) -> bool:
        return surely_inside(region, middle - step) and surely_inside(region, middle + step)

    centre = region.interior_point()
    if fits(theta):
        return theta
    if not fits(centre):
        return None
    inside, outside = 0.0, 1.0
    for _ in range(60):
        share = 0.5 * (inside + outside)
        inside, outside = (share, outside) if fits(centre + share * (theta - centre)) else (inside, share)
    return centre + inside * (theta - centre)
