"""Exact values of psi for two-layer linear networks whose loss depends on one number: logistic, or two classes.

With identity activations everything depends on the data's z (the inputs, with a constant one where there are biases) and on one
vector beta: the output is f = beta.z, and with two classes f_1 - f_2 = beta.z. With F(beta) = mean l(beta.z) the convex loss of
the linear model, every hidden unit's block of the residual part is [0, u g'; g u', 0] for g = grad F(beta), |u| = 1 for one
output and u = (1, -1) for two. So psi >= -|u| max |g| over the set C that beta reaches. Every beta of C is reached with equal
units, where the Gauss–Newton part vanishes on antisymmetric directions, and psi equals it:

    ball    (centred at 0)  beta = |u| (b + k c e_0) with |b| + c²/2 <= R²/2, e_0 the constant's place;
    box     (equal ranges for all units, those of the incoming weights symmetric about 0)  a box.

In one direction, that is for a single input without biases or for data with the same inputs, g is monotone (the gradient of a
convex function) and the ends of an interval count, even for a single unit with a single input. Otherwise the maximum is found
by cutting the boundary of C into cells (`linear_maximum`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from ..regions import Ball, Box
from .intervals import TINY, UNIT, Interval, down, gamma, matmul, norms, up
from .linear_maximum import Scalar, Sides, Spindle, largest_gradient
from .ranges import derivative_range

FloatArray = npt.NDArray[np.float64]

#: Unknowns up to which the boundary is cut into cells.
_MAX_DIM = 4


def scalar_model(obj: Objective) -> Scalar | None:
    """The model in one number; None if the loss needs more than one."""
    outputs, targets = obj.net.widths[2], np.array(obj.targets)
    if outputs != 1 and not (outputs == 2 and obj.loss == "cross_entropy"):
        return None
    z = obj.data.X
    if obj.net.bias:
        z = np.hstack([z, np.ones((len(z), 1))])
    mass = targets.sum(axis=1) if outputs == 2 else np.ones(len(z))
    length = 1.0 if outputs == 1 else math.sqrt(2.0)
    return Scalar(np.array(z, dtype=np.float64), obj.data.normalized_weights, mass, targets[:, 0], obj.loss, length)


def exact_scalar(
    obj: Objective, region: Ball | Box, cancelled: npt.NDArray[np.int32] | None = None
) -> tuple[float, float, str] | None:
    """(psi_lower, psi_upper, formula); None where no formula is known, or its maximum is not found in reasonable time.

    ``obj`` has one hidden layer with the identity as activation; ``region`` is bound to it.
    """
    model = scalar_model(obj)
    if model is None or (isinstance(region, Ball) and region.center.any()):
        return None
    hidden, last = obj.net.layer_scales
    line = _line(obj, model, region)
    if line is not None:
        ends, a, size = line
        found = _at_ends(model, ends, a)
        lower, upper = float(size.lo) * found[0], float(size.hi) * found[1]
        formula = "psi = -max over the two ends of |grad F|, F(t) = mean l(t a) the linear model's loss"
    else:
        if obj.net.widths[1] < 2 or model.z.shape[1] > _MAX_DIM or model.loss == "squared_error":
            return None
        reach = _spindle(obj, model, region) if isinstance(region, Ball) else _sides(obj, region)
        both = None if reach is None else largest_gradient(model, reach, cancelled)
        if both is None:
            return None
        lower, upper = both
        formula = "psi = -max over beta of |grad F(beta)|, F(beta) = mean l(beta.z) the linear model's loss, beta = W'v"
        if isinstance(region, Ball):
            formula += ", |beta| <= R²/2" if not obj.net.bias else ", |W'v| <= (R² - c²)/2, c the output bias added"
    if model.length != 1.0:
        formula += "; times sqrt 2, for f_1 - f_2"
    scale = hidden * last * model.length
    return -upper * scale * (1.0 + gamma(16)), -lower * scale * (1.0 - gamma(16)), formula


def _line(obj: Objective, model: Scalar, region: Ball | Box) -> tuple[tuple[Interval, Interval], FloatArray, Interval] | None:
    """(the two ends of t, a, |z|) where f = t a_i and the gradient is |z| mean l'(t a) a; None if beta has more directions."""
    z, net = model.z, obj.net
    hidden, last = net.layer_scales
    single = z.shape[1] == 1
    if not single and not (z == z[0]).all():
        return None
    a, row = (z[:, 0], np.ones(1)) if single else (np.ones(len(z)), z[0])
    length = norms(row[None])[0]
    size = Interval(np.array(length * (1.0 - gamma(2 * row.size + 40))), np.array(length))
    if isinstance(region, Ball):
        if net.widths[1] < 2 and not single:
            return None
        support = _spindle(obj, model, region).support(row[None])[0]
        end = Interval(np.array(support * (1.0 - gamma(80))), np.array(support))
        return (Interval(-end.hi, -end.lo), end), a, size
    ranges = _equal_ranges(obj, region)
    if ranges is None:
        return None
    incoming, outgoing, offset = ranges
    if net.widths[1] < 2 and not (len(incoming.lo) == 1 and _one_range(incoming, outgoing) and model.length == 1.0):
        return None
    inner = [row * incoming.lo, row * incoming.hi]
    room = gamma(row.size + 8) * np.maximum(*np.abs(inner)).sum() + TINY
    s_lo, s_hi = float(np.minimum(*inner).sum()), float(np.maximum(*inner).sum())
    products = [v * s for v in (float(outgoing.lo), float(outgoing.hi)) for s in (s_lo, s_hi)]
    factor = net.widths[1] * hidden * last
    room = factor * room * float(outgoing.magnitude) * 2.0
    ends = []
    for product, c in ((min(products), float(offset.lo)), (max(products), float(offset.hi))):
        value = factor * product + last * c
        blur = room + 32.0 * UNIT * (factor * abs(product) + last * abs(c)) + TINY
        ends.append(Interval(np.array(value - blur), np.array(value + blur)))
    return (ends[0], ends[1]), a, size


def _one_range(incoming: Interval, outgoing: Interval) -> bool:
    """Whether a single unit's two weights have the same range, symmetric about zero."""
    return float(incoming.lo[0]) == -float(incoming.hi[0]) == float(outgoing.lo) == -float(outgoing.hi)


def _equal_ranges(obj: Objective, region: Box) -> tuple[Interval, Interval, Interval] | None:
    """Ranges, the same for all units, of the incoming weights (D,), of v (or v_1 - v_2) and of the output bias (or c_1 - c_2)."""
    net = obj.net
    (weight, bias), (out, out_bias) = net.layer_slices
    units, outputs = net.widths[1:]
    sides = [
        np.hstack([
            end[weight].reshape(units, -1),
            *([] if bias is None else [end[bias][:, None]]),
            end[out].reshape(outputs, units).T,
        ])
        for end in (region.low, region.high)
    ]  # fmt: skip
    if not all((side == side[0]).all() for side in sides):
        return None
    low, high = sides[0][0], sides[1][0]
    none = np.zeros(outputs)
    c_low, c_high = (none, none) if out_bias is None else (region.low[out_bias], region.high[out_bias])
    return Interval(low[:-outputs], high[:-outputs]), _difference(low[-outputs:], high[-outputs:]), _difference(c_low, c_high)


def _difference(low: FloatArray, high: FloatArray) -> Interval:
    if low.size == 1:
        return Interval(low[0], high[0])
    return Interval(down(low[0] - high[1]), up(high[0] - low[1]))


def _at_ends(model: Scalar, ends: tuple[Interval, Interval], a: FloatArray) -> tuple[float, float]:
    """Enclosure of the larger of |mean l'(t a) a| at the two ends."""
    column, weights = Interval.point(a), Interval(model.w * (1.0 - gamma(64)), model.w * (1.0 + gamma(64)))
    found = []
    for t in ends:
        f = column * Interval(np.broadcast_to(t.lo, a.shape), np.broadcast_to(t.hi, a.shape))
        if model.loss != "squared_error":
            p = derivative_range("sigmoid", 1.0, 0, f)
            f = p * Interval(model.mass * (1.0 - gamma(8)), model.mass * (1.0 + gamma(8)))
        r = (f - Interval.point(model.y)) * column * weights
        total = matmul(Interval.point(np.ones((1, a.size))), r.reshape(-1, 1))
        largest = float(total.magnitude[0, 0])
        found.append((max(0.0, float(max(total.lo[0, 0], -total.hi[0, 0]))), largest))
    return max(lower for lower, _ in found), max(upper for _, upper in found)


def _spindle(obj: Objective, model: Scalar, region: Ball) -> Spindle:
    hidden, last = obj.net.layer_scales
    shift = last * model.length if obj.net.bias else 0.0
    return Spindle(hidden * last * model.length, shift, region.radius, model.z.shape[1])


def _sides(obj: Objective, region: Box) -> Sides | None:
    """None where the set is not convex, or the ranges of the units are not equal."""
    ranges = _equal_ranges(obj, region)
    if ranges is None or not (ranges[0].lo == -ranges[0].hi).all():
        return None
    incoming, outgoing, offset = ranges
    hidden, last = obj.net.layer_scales
    high = obj.net.widths[1] * hidden * last * float(outgoing.magnitude) * incoming.hi
    low = -high
    high[-1], low[-1] = high[-1] + last * float(offset.hi), low[-1] + last * float(offset.lo)
    room = gamma(16) * (np.maximum(high, -low) + last * float(offset.magnitude)) + TINY
    return Sides(low - room, high + room)
