"""Exact values of psi for networks with one hidden layer of linear units: the squared error (others: `linear_convex`).

With identity activations f = B z + c, B = sum_j v_j w_j' (z the inputs, with a constant one where there are biases), and every
hidden unit's block of the residual part is [0, G'; G, 0] with G = B S + c m' - C the gradient of the loss in B:

    S = mean z z',  m = mean z,  C = mean y z'.

So psi >= -max |G|_2. Where two hidden units are equal the Gauss–Newton part vanishes on their antisymmetric directions, and
psi <= -|G|_2 there. |G|_2 is convex in (B, c), so its maximum is at an extreme point, and those are reached with equal units:

    ball    (centred at 0, width >= 2)  B = (R² - |c|²)/2 p q' with unit vectors p, q:
            psi = -max over |q| = 1, 0 <= g <= R of (R² - g²)/2 |S q| + |C q| (+ g |m.q| with output biases)
            (one output: |C q| + g |m.q| is |(C - c m').q| for a sign of c, which is the same);
    box     (equal ranges for all units, width m >= 2)  B = m v w' with v, w, c corners of their ranges.

NTK scales multiply v, w, c and G.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from ..regions import Ball, Box, Region
from .intervals import TINY, UNIT, Interval, gamma, matmul
from .linear_convex import exact_scalar
from .spectral import eigval_max_bound, norm_bound

FloatArray = npt.NDArray[np.float64]

#: Corners of a box that are tried at most, as a power of two.
_MAX_CORNERS = 16
#: Intervals of |c|, directions tried, and steps of the multipliers' search.
_MAX_CUTS, _STARTS, _STEPS = 64, 16, 30
#: Relative gap at which the two ends count as equal.
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class ExactValue:
    """Proved ends ``psi_lower <= psi <= psi_upper``, equal up to rounding or a small gap, and the formula they come from."""

    psi_lower: float
    psi_upper: float
    formula: str


@dataclass(frozen=True)
class _Moments:
    """S, m, C and bounds of their errors in the spectral norm."""

    s: FloatArray
    mean: FloatArray
    c: FloatArray
    errors: tuple[float, float, float]


def exact_linear(obj: Objective, region: Region, cancelled: npt.NDArray[np.int32] | None = None) -> ExactValue | None:
    """The exact psi of a two-layer linear network; None where no formula is known, or if it was cancelled.

    Parameters
    ----------
    obj : Objective
        One hidden layer with the identity as activation, in general of two or more units.
    region : Region
        A ball around the origin, or a box with the same ranges for all hidden units.
    cancelled : (1,) int32 array, optional
        Raised to end early.
    """
    net = obj.net
    if net.num_layers != 2 or net.activations != ("identity",):
        return None
    region = region.bind(obj)
    if not isinstance(region, Ball | Box):
        return None
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if obj.loss != "squared_error" or net.widths[1] < 2:
            ends = exact_scalar(obj, region, cancelled)
            found = None if ends is None else ExactValue(*ends)
        elif isinstance(region, Box):
            found = _box(obj, region)
        else:
            found = None if region.center.any() else _ball(obj, region.radius)
    if found is None or not (math.isfinite(found.psi_lower) and math.isfinite(found.psi_upper)):
        return None
    return found


def _moments(obj: Objective) -> _Moments:
    z = obj.data.X
    if obj.net.bias:
        z = np.hstack([z, np.ones((len(z), 1))])
    w = obj.data.normalized_weights[:, None]
    weighted = Interval(w * z - 8.0 * UNIT * np.abs(w * z) - TINY, w * z + 8.0 * UNIT * np.abs(w * z) + TINY)
    ones = np.ones((len(z), 1))
    s = matmul(weighted.T, Interval.point(z))
    mean = matmul(weighted.T, Interval.point(ones))
    c = matmul(Interval.point(np.array(obj.targets)).T, weighted)
    middle = 0.5 * (s.middle + s.middle.T)
    radius = s.radius + np.abs(s.middle - middle)
    return _Moments(middle, mean.middle[:, 0], c.middle, (norm_bound(radius), norm_bound(mean.radius), norm_bound(c.radius)))


def _box(obj: Objective, region: Box) -> ExactValue | None:
    net = obj.net
    (weight, bias), (out, out_bias) = net.layer_slices
    units = net.widths[1]
    low, high = (
        np.hstack([
            end[weight].reshape(units, -1),
            *([] if bias is None else [end[bias][:, None]]),
            end[out].reshape(-1, units).T,
        ])
        for end in (region.low, region.high)
    )  # fmt: skip
    if not ((low == low[0]).all() and (high == high[0]).all()):
        return None
    dim = low.shape[1] - net.widths[2]
    ends = [sorted({a, b}) for a, b in zip(low[0], high[0], strict=True)]
    offsets = (
        [] if out_bias is None else [sorted({a, b}) for a, b in zip(region.low[out_bias], region.high[out_bias], strict=True)]
    )
    if len(ends) + len(offsets) > _MAX_CORNERS:
        return None
    moments = _moments(obj)
    hidden, last = net.layer_scales
    best = -math.inf
    # All w at once: G = m k1 k2 v (S w)' + k2 c mean' - C.
    corners = np.array(list(itertools.product(*ends[:dim])))
    images = corners @ moments.s
    for v in itertools.product(*ends[dim:]):
        for c in itertools.product(*offsets) if offsets else [(0.0,) * net.widths[2]]:
            base = last * np.outer(c, moments.mean) - moments.c
            stack = (units * hidden * last) * np.array(v)[None, :, None] * images[:, None, :] + base
            norms = np.linalg.norm(stack, axis=(1, 2)) if 1 in stack.shape[1:] else np.linalg.norm(stack, 2, axis=(1, 2))
            best = max(best, float(norms.max()))
    # Every norm above is good to this: |G|_F bounds the entries, and the moments have errors of their own.
    w, v, c = (np.abs(np.array([a, b])).max(axis=0) for a, b in (
        (low[0, :dim], high[0, :dim]), (low[0, dim:], high[0, dim:]),
        ((region.low[out_bias], region.high[out_bias]) if out_bias is not None else (np.zeros(1), np.zeros(1)))))  # fmt: skip
    product = units * hidden * last * float(np.linalg.norm(v) * np.linalg.norm(w))
    size = product * float(np.linalg.norm(moments.s)) + last * float(np.linalg.norm(c) * np.linalg.norm(moments.mean))
    size += float(np.linalg.norm(moments.c))
    error = product * moments.errors[0] + last * float(np.linalg.norm(c)) * moments.errors[1] + moments.errors[2]
    error = (error + (64.0 + 16.0 * sum(moments.c.shape)) * UNIT * size) * (1.0 + gamma(64)) + TINY
    scale = hidden * last
    top_value, bottom = scale * (best + error) * (1.0 + gamma(8)), scale * max(0.0, best - error) * (1.0 - gamma(8))
    return ExactValue(-top_value, -bottom, "psi = -max over corners of the box of |mean r z'|, all hidden units equal")


def _ball(obj: Objective, radius: float) -> ExactValue | None:
    moments = _moments(obj)
    hidden, last = obj.net.layer_scales
    scale = hidden * last
    search = _BallMaximum(moments, radius, scale, last, biased=obj.net.bias)
    lower, upper = search.solve()
    formula = "psi = -max over |q| = 1 of R²/2 |S q| + |C q|, S = mean z z', C = mean y z'"
    if obj.net.bias:
        formula = "psi = -max over |q| = 1, g <= R of (R² - g²)/2 |S q| + |C q| + g |m.q|, m = mean z"
    return ExactValue(-upper * scale * (1.0 + gamma(8)), -lower * scale * (1.0 - gamma(8)), formula)


class _BallMaximum:
    """The largest ``scale (R² - g²)/2 |Sq| + |Cq| + last g |m.q|`` over |q| = 1 and 0 <= g <= R, from both sides.

    From above: 2 sqrt(x) <= x/t + t for each of the terms turns it into the largest eigenvalue of a matrix; the best t leave no
    gap for two terms, since concave functions of two quadratic forms on a sphere have none. g is cut into intervals.
    """

    def __init__(self, moments: _Moments, radius: float, scale: float, last: float, *, biased: bool) -> None:
        self.moments, self.radius, self.scale, self.last, self.biased = moments, radius, scale, last, biased
        self.squares = (moments.s @ moments.s, moments.c.T @ moments.c, np.outer(moments.mean, moments.mean))
        size = sum(float(np.linalg.norm(a)) ** 2 for a in (moments.s, moments.c, moments.mean))
        self.room = gamma(sum(moments.c.shape) + 16)
        self.size = size

    def value(self, q: FloatArray, g: float) -> float:
        """The function at q, g; approximately."""
        s, m, c = self.moments.s, self.moments.mean, self.moments.c
        first = 0.5 * self.scale * (self.radius**2 - g * g) * float(np.linalg.norm(s @ q))
        return first + float(np.linalg.norm(c @ q)) + self.last * g * abs(float(m @ q))

    def ascend(self, q: FloatArray) -> tuple[float, FloatArray, float]:
        """A local maximum from q: the function is convex in q, so q moves to the direction of its gradient."""
        s, m, c = self.moments.s, self.moments.mean, self.moments.c
        g, best = 0.0, -math.inf
        for _ in range(500):
            sq, cq, mq = s @ q, c @ q, float(m @ q)
            ns, nc = float(np.linalg.norm(sq)), float(np.linalg.norm(cq))
            if self.biased:
                g = min(self.radius, self.last * abs(mq) / (self.scale * ns)) if ns > 0.0 else self.radius
            now = self.value(q, g)
            if now <= best * (1.0 + 1e-15):
                break
            best = now
            slope = 0.5 * self.scale * (self.radius**2 - g * g) * (s @ sq) / max(ns, TINY) + (c.T @ cq) / max(nc, TINY)
            slope = slope + self.last * g * math.copysign(1.0, mq) * m
            length = float(np.linalg.norm(slope))
            if not length > 0.0:
                break
            q = slope / length
        return best, q, g

    def above(self, first: float, third: float, logs: FloatArray) -> tuple[float, FloatArray]:
        """A proved upper bound of ``first |Sq| + |Cq| + third |m.q|`` over |q| = 1, and the logarithms of the t that gave it."""
        factors = np.array([first, 1.0, third]) * (1.0 + gamma(8))
        terms = 3 if self.biased else 2
        use = [k for k in range(terms) if factors[k] > 0.0 and self.squares[k].any()]
        errors = (self.moments.errors[0], self.moments.errors[2], self.moments.errors[1])
        blur = sum(factors[k] * errors[k] for k in range(terms))
        if not use:
            return blur * (1.0 + gamma(8)), logs

        def matrix(t: FloatArray) -> FloatArray:
            return sum((0.5 * factors[k] ** 2 / t[k] * self.squares[k] for k in use), np.zeros_like(self.squares[0]))

        def rough(logs: FloatArray) -> tuple[float, FloatArray]:
            t = np.exp(logs)
            summed = matrix(t)
            if not np.isfinite(summed).all():
                return math.inf, np.zeros(3)
            values, vectors = np.linalg.eigh(summed)
            q = vectors[:, -1]
            forms = np.array([max(float(q @ self.squares[k] @ q), 0.0) if k in use else 0.0 for k in range(3)])
            slope = np.array([0.5 * t[k] - 0.5 * factors[k] ** 2 * forms[k] / t[k] if k in use else 0.0 for k in range(3)])
            return float(values[-1]) + 0.5 * sum(t[k] for k in use), slope

        logs = _minimised(rough, logs)
        t = np.exp(logs)
        if not np.isfinite(matrix(t)).all():
            return math.inf, logs
        bound = eigval_max_bound(matrix(t))
        bound += self.room * sum(factors[k] ** 2 / t[k] * float(np.trace(self.squares[k])) for k in use)
        bound += 0.5 * sum(t[k] for k in use)
        return (bound + blur) * (1.0 + gamma(32)), logs

    def solve(self) -> tuple[float, float]:
        """(lower, upper) end of the maximum."""
        dim = self.moments.s.shape[0]
        rng = np.random.default_rng(20262)
        starts = [np.eye(dim)[k] for k in range(min(dim, _STARTS))] + list(rng.standard_normal((_STARTS, dim)))
        starts += list(np.linalg.eigh(self.squares[0])[1].T[-2:]) + list(np.linalg.svd(self.moments.c)[2][:2])
        best, q, g = max((self.ascend(start / np.linalg.norm(start)) for start in starts), key=lambda found: found[0])
        blur = self.scale * self.radius**2 * self.moments.errors[0] + self.moments.errors[2]
        blur += self.last * self.radius * self.moments.errors[1]
        size = self.scale * self.radius**2 * float(np.linalg.norm(self.moments.s)) + float(np.linalg.norm(self.moments.c))
        size += self.last * self.radius * float(np.linalg.norm(self.moments.mean))
        # |q| = 1 up to a few roundings, and so are the products.
        lower = best - blur * (1.0 + gamma(16)) - (4.0 * self.room + 64.0 * UNIT) * size
        forms = [float(q @ square @ q) for square in self.squares]
        factors = [0.5 * self.scale * (self.radius**2 - g * g), 1.0, self.last * g]
        logs = np.log([max(f * math.sqrt(max(x, 0.0)), 1e-8 * max(best, TINY)) for f, x in zip(factors, forms, strict=True)])
        if not self.biased:
            return max(lower, 0.0), self.above(0.5 * self.scale * self.radius**2, 0.0, logs)[0]
        return max(lower, 0.0), self._over_intervals(best, logs)

    def _between(self, near: float, far: float, logs: FloatArray) -> tuple[float, FloatArray]:
        """A proved upper bound for near <= g <= far.

        With (R² - g²)/2 <= (R² + h²)/2 - h g, h in the middle, everything is linear in g, so that the ends count.
        """
        h, bound = 0.5 * (near + far), -math.inf
        for g in (near, far):
            first = self.scale * (0.5 * (self.radius**2 + h * h) * (1.0 + gamma(8)) - h * g * (1.0 - gamma(8)))
            part, logs = self.above(max(first, 0.0), self.last * g, logs)
            bound = max(bound, part)
        return bound, logs

    def _over_intervals(self, best: float, logs: FloatArray) -> float:
        first, logs = self._between(0.0, self.radius, logs)
        cells = [(first, 0.0, self.radius, logs)]
        for _ in range(_MAX_CUTS):
            cells.sort(key=lambda cell: cell[0])
            bound, near, far, logs = cells[-1]
            if bound <= best * (1.0 + _TOLERANCE):
                break
            cells.pop()
            middle = 0.5 * (near + far)
            for a, b in ((near, middle), (middle, far)):
                part, found = self._between(a, b, logs)
                cells.append((min(part, bound), a, b, found))
        return max(cell[0] for cell in cells)


def _minimised(function, logs: FloatArray) -> FloatArray:  # type: ignore[no-untyped-def]
    """A minimiser of a smooth convex function of the logarithms by BFGS."""
    from scipy.optimize import minimize

    found = minimize(function, logs, jac=True, method="BFGS", options={"maxiter": _STEPS, "gtol": 1e-12})
    return found.x if function(found.x)[0] <= function(logs)[0] else logs
