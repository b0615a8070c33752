"""Nearest points of intersections: Dykstra's alternating projections, and one equation for a box and a ball."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .._region import FloatArray

Projection = Callable[[FloatArray], FloatArray]

_MAX_ROUNDS = 20_000
_MAX_STEPS = 200


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


def pulled_inside(near: FloatArray, inside: FloatArray, slack: Callable[[FloatArray], float]) -> FloatArray:
    """Return ``near``, which rounding may have left outside, moved towards an interior point until its slack is not negative."""
    point, pull = near, 2.0**-52
    while slack(point) < 0.0:
        point = near + min(pull, 1.0) * (inside - near)
        pull *= 2.0
    return point


def nearest_in_box_and_ball(
    theta: FloatArray, low: FloatArray, high: FloatArray, center: FloatArray, radius: float
) -> FloatArray:
    """Return the point of a box and a ball at once nearest to theta (P,).

    It is ``clip((theta + mu center)/(1 + mu))`` with the smallest mu >= 0 that brings it into the ball: the distance to the
    centre falls with mu, so ``t = mu/(1 + mu)`` is the root of one equation.
    """
    way = center - theta

    def at(t: float) -> tuple[FloatArray, float]:
        point: FloatArray = np.clip(theta + t * way, low, high)
        return point, float(np.linalg.norm(point - center)) - radius

    point, excess = at(0.0)
    if excess <= 0.0:
        return point
    outside, inside = 0.0, 1.0
    point, room = at(1.0)
    side = 0
    for _ in range(_MAX_STEPS):  # the Illinois variant of the secant rule, which keeps the root between its ends
        if not (room < 0.0 and inside - outside > 1e-15 * inside):
            break
        t = min(max(outside + (inside - outside) * excess / (excess - room), outside), inside)
        if t in (outside, inside):
            t = 0.5 * (outside + inside)
        trial, gap = at(t)
        if gap > 0.0:
            outside, excess = t, gap
            room *= 0.5 if side == 1 else 1.0
            side = 1
        else:
            inside, room, point = t, gap, trial
            excess *= 0.5 if side == -1 else 1.0
            side = -1
        if abs(gap) <= 1e-15 * radius and gap <= 0.0:
            break
    return point


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
