"""The loss's gradient as a linear function of the outputs and an error, over ranges of outputs; for checking certificates.

r = f - y for the squared error, without an error. The logistic function is replaced by its secant: the error is extreme at the
ends and where the slopes agree. The softmax is replaced by its tangent at the middles, |d²p_k[h, h]| <= p_k max |h_i - h_j|², or
by its range, where that is smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .reference_interval import Range, Wide, down, logistic, middle_and_radius, up, wide, zeros
from .reference_ranges import logistic_derivative, softmax

#: Distances from a computed place within which the slopes must agree; beyond the last the gradient's range is taken.
_NEAR = (1e-9, 1e-5)
#: Bound of the logistic function's second derivative.
_BEND = 0.0963


@dataclass(frozen=True)
class Slopes:
    """R_k = sum_j G_kj f_j + constant_k + e_k with |e_k| <= error_k + what is unknown of f; G None for the identity."""

    matrix: Wide | None  # (B, n, K, K)
    constant: Range  # (B, n, K)
    error: Wide  # (B, n, K)

    def entry(self, k: int, j: int) -> Range:
        """G_kj."""
        if self.matrix is None:
            return Range(wide(1.0 if k == j else 0.0))
        return Range(self.matrix[:, :, k, j])

    def times(self, x: Range) -> Range:
        """G x for x (B, n, K, …)."""
        if self.matrix is None:
            return x
        matrix = self.matrix.reshape(self.matrix.shape + (1,) * (x.lo.ndim - 3))
        parts = [(Range(matrix[:, :, k]) * x).sum(2) for k in range(self.matrix.shape[2])]
        return Range(np.stack([part.lo for part in parts], 2), np.stack([part.hi for part in parts], 2))

    def symmetric(self, v: Range) -> Range:
        """(G + G') v."""
        if self.matrix is None:
            return v + v
        turned = Slopes(np.swapaxes(self.matrix, 2, 3), self.constant, self.error)
        return self.times(v) + turned.times(v)

    def form(self, v: Range) -> Range:
        """The form v'Gv."""
        if self.matrix is None:
            return v.square().sum(-1)
        total = Range(zeros(self.matrix.shape[:2]))
        for k in range(self.matrix.shape[2]):
            for j in range(self.matrix.shape[2]):
                pair = v[:, :, k].square() if k == j else v[:, :, k] * v[:, :, j]
                total = total + self.entry(k, j) * pair
        return total

    def unknown(self, slack: Wide) -> Wide:
        """Bounds of |e_k| where f_j is known up to slack_j."""
        if self.matrix is None:
            return up(self.error + slack)
        return up(self.error + (Range(np.abs(self.matrix)) * Range(slack)[:, :, None, :]).sum(-1).hi)


def slopes(loss: str, f: Range, y: Wide) -> Slopes:
    """The linear function for outputs in f (B, n, K) and targets y (n, K)."""
    shape = f.lo.shape
    if loss == "squared_error":
        return Slopes(None, Range(np.broadcast_to(-y, shape)), zeros(shape))
    if loss == "logistic":
        return _secant(f, y)
    return _tangent(f, y)


def _secant(f: Range, y: Wide) -> Slopes:
    ends = logistic(Range(f.lo)), logistic(Range(f.hi))
    with np.errstate(all="ignore"):
        slope = (ends[1].lo - ends[0].hi) / up(f.hi - f.lo)
    slope = np.where(slope > 0.0, np.minimum(slope, wide(0.25)), wide(0.0))
    found = (ends[0] - Range(slope) * Range(f.lo)).hull(ends[1] - Range(slope) * Range(f.hi))
    plain = ends[0].hull(ends[1])
    # Where the logistic function's slope is that of the secant, on both sides of zero.
    p = slope.astype(np.float64)
    with np.errstate(all="ignore"):
        place = np.log(0.5 + np.sqrt(np.maximum(0.25 - p, 0.0))) - np.log(p / (0.5 + np.sqrt(np.maximum(0.25 - p, 0.0))))
    inside = np.where(np.isfinite(place), place, 1e6)
    known = np.asarray(slope == 0.0)
    for near in _NEAR:
        low, high = down(wide(inside) - near), up(wide(inside) + near)
        steep, flat = logistic_derivative(1, Range(np.maximum(low, wide(0.0)))), logistic_derivative(1, Range(high))
        agree = ~known & ((steep.lo >= slope) | (low <= 0.0)) & (flat.hi <= slope)
        known = known | agree
        # The derivative of the difference vanishes within 2 near of the place.
        reach = wide(4.0 * _BEND * near * near)
        for sign in (-1.0, 1.0):
            at = Range(wide(sign * inside))
            value = logistic(at) - Range(slope) * at
            value = Range(down(value.lo - reach), up(value.hi + reach))
            there = agree & (f.lo <= sign * inside + 2.0 * near) & (f.hi >= sign * inside - 2.0 * near)
            found = found.hull(value, there)
    slope = np.where(known, slope, wide(0.0))
    found = Range(np.where(known, found.lo, plain.lo), np.where(known, found.hi, plain.hi))
    found = found - Range(np.broadcast_to(y, f.lo.shape))
    middle, error = middle_and_radius(found)
    return Slopes(slope[..., None], Range(middle), error)


def _tangent(f: Range, y: Wide) -> Slopes:
    outputs = f.lo.shape[-1]
    total = Range(y).sum(-1)[:, None]
    middle, half = middle_and_radius(f)
    spread = zeros(f.lo.shape[:-1])
    for k in range(outputs):
        for j in range(k):
            spread = np.maximum(spread, up(half[..., k] + half[..., j]))
    over = softmax(f) * total
    curved = (Range(wide(0.5)) * Range(over.hi) * Range(spread[..., None]).square()).hi
    at = softmax(Range(middle))
    p, _ = middle_and_radius(at)
    unit = wide(np.eye(outputs))
    slope = total.hi[..., None] * p[..., :, None] * (unit - p[..., None, :])
    exact = at[..., :, None] * (Range(unit) - at[..., None, :]) * total[..., None]
    # G is off the derivative by rounding.
    turned = ((exact - Range(slope)) * Range(half)[..., None, :]).size()
    error = up(curved + Range(turned).sum(-1).hi)
    centre, plain = middle_and_radius(over)
    linear = error < plain
    at_middle = at * total - (Range(slope) * Range(middle)[..., None, :]).sum(-1)
    target = Range(np.broadcast_to(y, f.lo.shape))
    constant = Range(np.where(linear, at_middle.lo, centre), np.where(linear, at_middle.hi, centre)) - target
    matrix = np.where(linear[..., None], slope, wide(0.0))
    return Slopes(matrix, constant, np.where(linear, error, plain))
