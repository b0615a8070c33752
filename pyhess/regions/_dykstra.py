"""Nearest points of intersections: Dykstra's alternating projections, and one equation for a box and a ball."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .._region import FloatArray

Projection = Callable[[FloatArray], FloatArray]

_MAX_ROUNDS = 20_000
_BISECTIONS = 200


def dykstra(parts: Sequence[Projection], theta: FloatArray, tol: float) -> FloatArray:
    """Return the point of the intersection of convex sets nearest to theta (P,), given the projections onto the sets.

    Stops when no correction changes by more than ``tol`` in a round (Boyle & Dykstra 1986): unlike plain alternating projections,
    which end anywhere in the intersection, the corrections carried along lead to the nearest point.
    """
    x = theta
    corrections = [np.zeros(theta.size) for _ in parts]
    for _ in range(_MAX_ROUNDS):
        moved = 0.0
        for k, project in enumerate(parts):
            y = x + corrections[k]
            x = project(y)
            moved = max(moved, float(np.abs(y - x - corrections[k]).max()))
            corrections[k] = y - x
        if moved <= tol:
            break
    return x


def nearest_in_box_and_ball(
    theta: FloatArray, low: FloatArray, high: FloatArray, center: FloatArray, radius: float
) -> FloatArray:
    """Return the point of a box and a ball at once nearest to theta (P,).

    It is ``clip((theta + mu center)/(1 + mu))`` with the smallest mu >= 0 that brings it into the ball: the distance to the
    centre falls with mu, so bisection in ``t = mu/(1 + mu)`` finds it.
    """

    def at(t: float) -> FloatArray:
        point: FloatArray = np.clip(theta + t * (center - theta), low, high)
        return point

    inside, outside = 1.0, 0.0
    if np.linalg.norm(at(outside) - center) <= radius:
        return at(outside)
    for _ in range(_BISECTIONS):
        t = 0.5 * (inside + outside)
        if t in (inside, outside):
            break
        inside, outside = (t, outside) if np.linalg.norm(at(t) - center) <= radius else (inside, t)
    return at(inside)


def isotonic(x: FloatArray) -> FloatArray:
    """Return the non-decreasing vector nearest to x: pool adjacent violators."""
    means: list[float] = []
    counts: list[int] = []
    for value in x:
        mean, count = float(value), 1
        while means and means[-1] > mean:
            before, size = means.pop(), counts.pop()
            mean, count = (mean * count + before * size) / (count + size), count + size
        means.append(mean)
        counts.append(count)
    return np.repeat(means, counts)
