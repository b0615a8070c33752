"""The loss's gradient as a linear function of the outputs and an error, over ranges of outputs; for checking certificates.

r = f - y for the squared error, without an error. The logistic function is replaced by its secant: the error is extreme at the
ends and where the slopes agree. An entry p_k of the softmax is the logistic function of f_k - l, l the logarithm of the sum of
the other outputs' exponentials: it is replaced by that function's secant and l's tangent at the middles, or by its range where
that leaves less. l is convex, and with w the largest difference of two h_j and g = (e^w - 1)/w it is at most

    log(1 + μ g) - μ <= log g - 1 + 1/g,    and at most w²/8 (Hoeffding),

above the tangent, where μ is the mean of the h_j less the least of them, since e^x <= 1 + x g on [0, w].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .reference_interval import Range, Wide, down, exp, logistic, middle_and_radius, softplus, up, wide, zeros
from .reference_ranges import logistic_derivative, softmax

#: Distances from a computed place within which the slopes must agree; beyond the last the gradient's range is taken.
_NEAR = (1e-9, 1e-5)
#: Width above which the excess of the logarithm is not bounded by its square alone.
_WIDE = 0.25
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


def slopes(loss: str, f: Range, y: Wide, slack: Wide) -> Slopes:
    """The linear function for outputs in f (B, n, K), of which ``slack`` (B, n, K) is unknown, and targets y (n, K)."""
    shape = f.lo.shape
    if loss == "squared_error":
        return Slopes(None, Range(np.broadcast_to(-y, shape)), zeros(shape))
    if loss == "logistic":
        slope, (middle, error) = _secant(f, Range(np.broadcast_to(y, shape)))
        return Slopes(slope[..., None], Range(middle), error)
    return _softmax(f, y, slack)


def _secant(f: Range, y: Range) -> tuple[Wide, tuple[Wide, Wide]]:
    """A slope, and the middle and radius of the logistic function less the slope times f and y."""
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
    return slope, middle_and_radius(found - y)


def _softmax(f: Range, y: Wide, slack: Wide) -> Slopes:
    total = Range(y).sum(-1)[:, None]
    over = softmax(f) * total
    centre, plain = middle_and_radius(over)
    matrix, about, error = _logarithm(f, total)
    better = Slopes(matrix, about, error).unknown(slack) < plain
    constant = Range(np.where(better, about.lo, centre), np.where(better, about.hi, centre))
    constant = constant - Range(np.broadcast_to(y, f.lo.shape))
    return Slopes(np.where(better[..., None], matrix, wide(0.0)), constant, np.where(better, error, plain))


def _logarithm(f: Range, total: Range) -> tuple[Wide, Range, Wide]:
    """(G, constant, error), by start + slope (f_k - l) ± off, l = at + sum_j share_j (f_j - middle_j) + excess, for every k."""
    outputs = f.lo.shape[-1]
    middle, half = middle_and_radius(f)
    lines: list[Range] = []
    values: list[Range] = []
    for k in range(outputs):
        others = [j for j in range(outputs) if j != k]
        slope, (start, off) = _secant(f[..., k] - _log_sum(f, others), Range(zeros(f.lo.shape[:-1])))
        at = _log_sum(Range(middle), others)
        excess = Range(zeros(off.shape), _excess(_spread(half, others)))
        values.append((Range.about(start, off) + Range(slope) * (Range(middle[..., k]) - at - excess)) * total[..., 0])
        one = Range(slope) * total[..., 0]
        lines += [one if j == k else -(one * exp(Range(middle[..., j]) - at)) for j in range(outputs)]
    rows = [Range(np.stack([x.lo for x in part], -1), np.stack([x.hi for x in part], -1)) for part in (lines, values)]
    exact = rows[0].reshape(*f.lo.shape, outputs)
    centre, radius = middle_and_radius(rows[1])
    matrix, _ = middle_and_radius(exact)
    # What rounding makes of the slopes.
    turned = ((exact - Range(matrix)) * Range(half)[..., None, :]).size()
    constant = Range(centre) - (Range(matrix) * Range(middle)[..., None, :]).sum(-1)
    return matrix, constant, up(radius + Range(turned).sum(-1).hi)


def _spread(half: Wide, places: list[int]) -> Wide:
    """The largest difference of two outputs' distances from their middles."""
    spread = zeros(half.shape[:-1])
    for k in places:
        for j in places:
            if j < k:
                spread = np.maximum(spread, up(half[..., k] + half[..., j]))
    return spread


def _log_sum(f: Range, places: list[int]) -> Range:
    """Log sum_j exp f_j, which rises in every f_j."""

    def at(x: Wide) -> Range:
        found = Range(x[..., places[0]])
        for j in places[1:]:
            found = found + softplus(Range(x[..., j]) - found)
        return found

    return Range(at(f.lo).lo, at(f.hi).hi)


def _excess(spread: Wide) -> Wide:
    """Of the logarithm above its tangent."""
    plain = up(up(spread * spread) / 8.0)
    wider = np.where(spread > _WIDE, spread, wide(1.0))
    growth = (exp(Range(wider)) - Range(wide(1.0))) / Range(wider)
    # log g <= x + g e^-x - 1 for any x
    with np.errstate(all="ignore"):
        x = Range(wide(np.nan_to_num(np.log(growth.hi.astype(np.float64)), posinf=0.0)))
    found = x + growth * exp(-x) - Range(wide(2.0)) + Range(wide(1.0)) / growth
    return np.where((spread > _WIDE) & (found.hi < plain), found.hi, plain)
