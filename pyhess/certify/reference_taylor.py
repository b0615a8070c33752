"""The tests of small boxes by derivatives, for checking certificates with few parameters.

H(theta) = H(c) + sum_k delta_k D_k with D_k in the enclosure of the third derivatives over the box. The smallest eigenvalue of
H(c) + sum_k delta_k mid D_k is concave in delta, so it is tested at the corners of the box, or of the part of the box on the near
side of a plane that has the whole ball on this side; the radii count with their norm. What is left out is of the second order in
the widths; for the boxes that this is too much for there is a test of the third order (`reference_curvature`).
"""

from __future__ import annotations

import numpy as np

from .reference_curvature import curved_boxes
from .reference_hessian import Problem
from .reference_interval import Range, Wide, down, up, wide
from .reference_jets import derivatives
from .reference_tests import Flags, positive_pivots


def small_boxes(problem: Problem, low: Wide, high: Wide, claim: float, ball: tuple[Wide, Wide] | None) -> Flags:
    """For boxes (B, P): whether it is proved that no Hessian on the box (and in the ball) has an eigenvalue below the claim."""
    c = np.clip(0.5 * (low + high), low, high)
    h = np.maximum(up(high - c), up(c - low))
    base, slope = derivatives(problem, c, c, (2, 3))
    third, fourth = derivatives(problem, low, high, (3, 4))
    proved = curved_boxes((base, slope, fourth), c, h, claim, ball)
    rest = np.flatnonzero(~proved)
    if rest.size:
        proved[rest] = _by_corners(base[rest], third[rest], c[rest], h[rest], claim, ball)
    return proved


def _by_corners(base: Range, third: Range, c: Wide, h: Wide, claim: float, ball: tuple[Wide, Wide] | None) -> Flags:
    size = c.shape[1]
    usable = np.isfinite(base.size()).all(axis=(1, 2)) & np.isfinite(third.size()).all(axis=(1, 2, 3))
    middle = 0.5 * (third.lo + third.hi)
    radius = np.maximum(up(third.hi - middle), up(middle - third.lo))
    # Symmetric in all three indices up to rounding; the form's norm is at most the Frobenius norm and the largest row sum.
    error = Range(np.zeros_like(base.lo))
    for k in range(size):
        error = error + Range(radius[:, k]) * Range(h[:, k, None, None])
    worst = np.maximum(error.hi, np.swapaxes(error.hi, 1, 2))
    frobenius = Range(worst.reshape(len(worst), -1)).square().sum(1).root().hi
    norm = np.minimum(frobenius, Range(worst).sum(2).hi.max(axis=1))
    room, normal = _half_space(c, ball)
    proved = np.asarray(usable & np.isfinite(norm))
    shifted = up(wide(claim) + norm)
    for delta, meant in _corners(c, h, normal, room):
        chosen = np.flatnonzero(meant & proved)
        if not chosen.size:
            continue
        model = base[chosen]
        for k in range(size):
            slope = Range(middle[chosen, k])
            model = model + slope * Range(delta[chosen, k, None, None])
        proved[chosen] &= positive_pivots(_symmetric(model), shifted[chosen])
    return proved


def _symmetric(matrix: Range) -> Range:
    return Range(np.minimum(matrix.lo, np.swapaxes(matrix.lo, 1, 2)), np.maximum(matrix.hi, np.swapaxes(matrix.hi, 1, 2)))


def _half_space(c: Wide, ball: tuple[Wide, Wide] | None) -> tuple[Wide, Wide]:
    """(room, normal): the ball's points c + delta satisfy normal . delta <= room, infinite without a ball."""
    if ball is None:
        return wide(np.full(len(c), np.inf)), np.zeros_like(c)
    centre, radius = ball
    offset = Range(c) - Range(np.broadcast_to(centre, c.shape))
    normal = 0.5 * (offset.lo + offset.hi)
    # normal . (c + delta - centre) <= |normal| R for every point of the ball.
    reach = Range(normal).square().sum(1).root() * Range(radius)
    return up((reach - (Range(normal) * offset).sum(1)).hi), normal


def _corners(c: Wide, h: Wide, normal: Wide, room: Wide) -> list[tuple[Wide, Flags]]:
    """Points delta (B, P) whose hull contains the part of the boxes c ± h in the half-space, and for which boxes they count."""
    size = c.shape[1]
    found = []
    for corner in range(2**size):
        signs = wide([1.0 if corner >> k & 1 else -1.0 for k in range(size)])
        delta = signs * h
        height = (Range(normal) * Range(delta)).sum(1)
        inside = height.lo <= room
        found.append((delta, inside))
        if inside.all():
            continue
        for k in range(size):
            # From this corner, outside, to the neighbour along k: the crossing, moved outwards by enclosing it.
            step = up(2.0 * np.abs(normal[:, k]) * h[:, k])
            crosses = ~inside & (down(height.lo - step) <= room) & (normal[:, k] * signs[k] > 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                back = down(down(height.lo - room) / up(np.abs(normal[:, k])))
            point = delta.copy()
            moved = h[:, k] - np.clip(np.where(np.isfinite(back), back, 0.0), 0.0, 2.0 * h[:, k])
            point[:, k] = signs[k] * np.minimum(up(up(moved)), h[:, k])
            found.append((point, crosses))
    return found
