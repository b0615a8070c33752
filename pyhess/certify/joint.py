"""What the residual and the last hidden layer can do at once.

With one output and the squared error the residual is r = sum_j v_j phi(s_j) + c - y, and the recursions need

    r v_j phi'(s_j),   r v_j phi''(s_j),   |r| max_j phi'(s_j),   |r| sqrt(sum_j (v_j phi'(s_j))²),   …

A saturated unit makes r large and phi' small, so the products of separate suprema are too large. Here the range of every unit's
s_j, and that of its v_j, is cut into pieces; on each the other units take part in r with all of their range. In a ball the share
that v_j takes of the last layer's radius is missing from the rest. For the sums over units,

    a^p B <= a0^p B0 exp(p (a/a0 - 1) + B/B0 - 1)      for a = |c - y| + sum_j |v_j phi(s_j)|, B = sum_j d_j(s_j), any a0, B0 > 0,

whose exponent is a sum over units: every unit's part is maximised by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .intervals import TINY, Interval, gamma, matmul, norms, within
from .joint_kernel import piece_hulls
from .ranges import derivative_range, growth
from .shared import Below, shared_bounds

FloatArray = npt.NDArray[np.float64]

#: Pieces of a unit's s and v, numbers in an array over all pieces of s, and the widest layer whose units are told apart.
_PIECES, _PARTS, _NUMBERS, _UNITS = 24, 16, 2e6, 256
#: Pairs of pieces up to which v is cut into all parts, not four.
_WORK = 6e6
_TOUCHES = 6
#: Numbers beyond this are left alone, so that no product of a few overflows.
_LARGEST = 1e60


@dataclass(frozen=True)
class Last:
    """The last hidden layer together with the residual; bounds per datum (n,) and unit (n, m), with leading axes for many cells.

    ``curved`` r v phi'', ``delta`` r v phi', ``delta_norm`` sup |delta|, ``peak`` sup |r| max phi'; with row norms w_j of the
    weights below, ``bent`` sup sum_j (-r v_j phi''_j)_+ w_j² and ``steep`` sup |r| sqrt(sum_j (phi'_j w_j)²), infinite if not
    known. With ``relative`` these rows are multiplied by the slopes below over the largest of them, otherwise not.
    """

    curved: Interval
    delta: Interval
    delta_norm: FloatArray
    peak: FloatArray
    bent: FloatArray
    steep: FloatArray
    relative: bool = False


def pieces_of(rows: int, units: int) -> tuple[int, int]:
    """(pieces of s, pieces of v) for a block of data: none if they would be too many or too few to help."""
    pieces = int(min(_PIECES, _NUMBERS / max(1, rows * units))) // 2 * 2
    if units > _UNITS or pieces < 4:
        return 0, 0
    return pieces, _PARTS if rows * units * pieces * _PARTS <= _WORK else 4


def _cut(x: Interval, number: int) -> list[Interval]:
    """Adjoining pieces that cover the intervals; zero is an end where it lies inside and the number is even."""
    inside = (x.lo < 0.0) & (x.hi > 0.0)
    middle = np.where(inside, 0.0, x.middle)
    half = max(1, number // 2)
    steps = np.arange(half + 1) / half
    ends = [x.lo + (middle - x.lo) * step for step in steps[:-1]] + [middle + (x.hi - middle) * step for step in steps]
    ends[0], ends[-1] = x.lo, x.hi
    # Whatever the rounding of the ends, neighbours share them.
    ends = [np.clip(end, x.lo, x.hi) for end in ends]
    return [Interval(np.minimum(a, b), np.maximum(a, b)) for a, b in pairwise(ends)]


def _stacked(parts: list[Interval]) -> Interval:
    return Interval(np.stack([part.lo for part in parts]), np.stack([part.hi for part in parts]))


def _others(a: Interval) -> Interval:
    """Sum over the other units, (n, m) -> (n, m)."""
    return matmul(a, Interval.point(1.0 - np.eye(a.lo.shape[-1])))


def _product_bound(base: FloatArray, h: FloatArray, d: FloatArray, power: float) -> FloatArray:
    """Supremum of (base + sum_j h_j)^power sum_j d_j over a choice of pieces for every unit.

    All non-negative: base (..., n), h and d (pieces, ..., n, m).
    """
    units = h.shape[-1]
    a0 = np.maximum(base + h.max(axis=0).sum(axis=-1), 1e-140)
    b0 = np.maximum(d.max(axis=0).sum(axis=-1), 1e-140)
    best: FloatArray = a0**power * b0 * (1.0 + gamma(2 * units + 64))
    for _ in range(_TOUCHES):
        share = h * (power / a0)[..., None] + d / b0[..., None]
        chosen = share.argmax(axis=0)[None]
        total, h_there, d_there = (np.take_along_axis(x, chosen, axis=0)[0].sum(axis=-1) for x in (share, h, d))
        exponent = (power * base / a0 + total) * (1.0 + gamma(units + 32))
        found = a0**power * b0 * np.exp(exponent * (1.0 + gamma(8)) - (power + 1.0) + gamma(64)) * (1.0 + gamma(64))
        best = np.fmin(best, found)
        a0 = np.maximum(0.5 * (a0 + base + h_there), 1e-140)
        b0 = np.maximum(0.5 * (b0 + d_there), 1e-140)
    return best + TINY


def steep_and_curved(activation: tuple[str, float], s: Interval, bar: Interval, steep: FloatArray) -> FloatArray | None:
    """Supremum over units and their s of steep phi'(s)² + (-bar phi''(s))_+: ``s``, ``bar`` (..., n, m), ``steep`` >= 0 as well.

    None if the units are too many to be cut into pieces.
    """
    pieces, _ = pieces_of(*s.lo.shape[-2:])
    if pieces == 0:
        return None
    name, beta = activation
    at = _stacked(_cut(s, pieces))
    slope = derivative_range(name, beta, 1, at).magnitude
    sharp = np.maximum(0.0, -(bar * derivative_range(name, beta, 2, at)).lo)
    found: FloatArray = (steep * slope**2 + sharp).max(axis=(0, -1)) * (1.0 + gamma(8)) + TINY
    return found


def joint_last(
    activation: tuple[str, float],
    s: Interval,
    s_norm: FloatArray,
    entering: FloatArray,
    weight: Interval,
    constant: Interval,
    rho: FloatArray,
    bias: bool,
    residual: Interval,
    below: FloatArray,
    plain: Last,
    below_ball: Below | None = None,
) -> Last:
    """Sharper than ``plain``, which holds the separate suprema.

    ``s`` (n, m), its norm and that of phi(s); the last layer's ``weight`` (m,), ``constant`` (n, 1) = c - y, and its
    radius ``rho`` (1,) about both in a ball; ``residual`` (n, 1); ``below`` (m,) row norms of the weights entering the units, and
    ``below_ball`` what is known of them in a ball.
    All may have leading axes for many cells.
    """
    pieces, parts = pieces_of(*s.lo.shape[-2:])
    known = (np.isfinite(s.lo) & np.isfinite(s.hi)).all(axis=-1) & np.isfinite(residual.magnitude)[..., 0]
    if pieces == 0 or not known.any():
        return plain
    name, beta = activation
    at = _stacked(_cut(s.where(known[..., None], Interval.point(np.zeros_like(s.lo))), pieces))
    value, slope, bend = (derivative_range(name, beta, order, at) for order in range(3))
    whole = derivative_range(name, beta, 0, s)
    rest = _others(weight[..., None, :] * whole) + constant
    others = np.zeros_like(at.lo)
    in_ball = bool(rho.any())
    if in_ball:
        part = _ball_parts(rho, parts)
        v = weight + part
        # The share of the radius that v_j's offset leaves to the others and the bias.
        taken = np.minimum(np.abs(part.lo), np.abs(part.hi))
        left = np.sqrt(np.maximum(0.0, (rho - taken) * (rho + taken)) * (1.0 + gamma(8))) * (1.0 + gamma(8))
        others = _with_one(_others_norm(name, beta, whole, at, s_norm), bias)
    else:
        v = _stacked(_cut(weight, parts))
        left = np.zeros((parts, *rho.shape))
    curved, delta, peak, moderate = _hulls(v, left, others, value, slope, bend, rest, residual)
    known = known & moderate
    result_delta = within(delta, plain.delta)
    base = constant.magnitude[..., 0] * (1.0 + gamma(4))
    delta_norm = np.fmin(plain.delta_norm, norms(result_delta.magnitude))
    bent, steep = plain.bent, plain.steep
    relative = in_ball and below_ball is not None
    if in_ball:
        delta_norm = np.fmin(delta_norm, _ball_delta_norm(weight, whole, entering, slope, base, rho, bias))
        if below_ball is not None:
            sups = shared_bounds(below_ball, at, weight, constant, rho, bias, (value, slope, bend), delta_norm)
            delta_norm, bent, steep = (np.fmin(*pair) for pair in zip((delta_norm, bent, steep), sups, strict=True))
    else:
        size, below = weight.magnitude[..., None, :], below[..., None, :]
        h = size * value.magnitude * (1.0 + gamma(4))
        steepness, bends = slope.magnitude, size * bend.magnitude * (1.0 + gamma(4))
        room = 1.0 + gamma(16)
        delta_norm = np.fmin(delta_norm, np.sqrt(_product_bound(base, h, (size * steepness) ** 2 * room, 2.0)) * room)
        bent = np.fmin(bent, _product_bound(base, h, bends * below**2 * room, 1.0))
        steep = np.fmin(steep, np.sqrt(_product_bound(base, h, (steepness * below) ** 2 * room, 2.0)) * room)
    peak_all = np.fmin(plain.peak, peak * (1.0 + gamma(4)) + TINY)
    units = known[..., None]
    sharper = [
        np.where(known, one, other)
        for one, other in zip(
            (delta_norm, peak_all, bent, steep), (plain.delta_norm, plain.peak, plain.bent, plain.steep), strict=True
        )
    ]
    curved, delta = within(curved, plain.curved).where(units, plain.curved), result_delta.where(units, plain.delta)
    return Last(curved, delta, sharper[0], sharper[1], sharper[2], sharper[3], relative)


def _ball_parts(rho: FloatArray, parts: int) -> Interval:
    """Pieces of [-rho, rho] (parts, ..., 1), finer towards its ends, where the rest of the radius changes fast; 0 is an end."""
    ends = np.multiply.outer(np.sin(0.5 * np.pi * (np.arange(parts + 1) / (parts // 2) - 1.0)), rho)
    ends[0], ends[parts // 2], ends[-1] = -rho, 0.0, rho
    ends = np.clip(ends, -rho, rho)
    return Interval(ends[:-1], ends[1:])


def _hulls(
    v: Interval,
    left: FloatArray,
    others: FloatArray,
    value: Interval,
    slope: Interval,
    bend: Interval,
    rest: Interval,
    residual: Interval,
) -> tuple[Interval, Interval, FloatArray, npt.NDArray[np.bool_]]:
    """(curved, delta, peak) over all pieces, and for which data all numbers are small enough for products of a few."""
    lead, (rows, units) = rest.lo.shape[:-2], rest.lo.shape[-2:]
    cells = math.prod(lead)
    moderate = np.ones((*lead, rows), dtype=np.bool_)
    inputs: list[FloatArray] = []

    def take(x: FloatArray, *shape: int) -> None:
        inputs.append(np.ascontiguousarray(x).reshape(shape))

    for x in (v.lo, v.hi):
        x = np.broadcast_to(x, (x.shape[0], *lead, units))
        moderate &= (np.abs(x).max(axis=(0, -1)) <= _LARGEST)[..., None]
        take(x, -1, cells, units)
    take(np.broadcast_to(left[..., 0], (left.shape[0], *lead)), -1, cells)
    for x in (others, value.lo, value.hi, slope.lo, slope.hi, bend.lo, bend.hi):
        moderate &= (np.abs(x) <= _LARGEST).all(axis=(0, -1))
        take(x, -1, cells, rows, units)
    for x in (rest.lo, rest.hi, residual.lo, residual.hi):
        moderate &= (np.abs(x) <= _LARGEST).all(axis=-1)
        take(x, cells, rows, x.shape[-1])
    out = [np.empty((cells, rows, units)) for _ in range(4)]
    peak = np.empty((cells, rows))
    piece_hulls(*(*inputs, *out, peak))
    curved_lo, curved_hi, delta_lo, delta_hi = (x.reshape(rest.lo.shape) for x in out)
    return Interval(curved_lo, curved_hi), Interval(delta_lo, delta_hi), peak.reshape(*lead, rows), moderate


def _with_one(values: FloatArray, bias: bool) -> FloatArray:
    return np.sqrt(values**2 + 1.0) * (1.0 + gamma(8)) if bias else values


def _others_norm(name: str, beta: float, whole: Interval, at: Interval, s_norm: FloatArray) -> FloatArray:
    """Supremum of |phi(s)| of the units but one, over the pieces of that one: (pieces, n, m)."""
    squares = whole.magnitude**2
    units = squares.shape[-1]
    rest = np.maximum(0.0, squares @ (1.0 - np.eye(units))) * (1.0 + gamma(units + 8)) + TINY
    at_zero, steepest = growth(name, beta)
    bound: FloatArray = np.broadcast_to(rest, at.lo.shape)
    if at_zero == 0.0:
        smallest = np.where((at.lo <= 0.0) & (at.hi >= 0.0), 0.0, np.minimum(np.abs(at.lo), np.abs(at.hi)))
        total = s_norm[..., None]
        left = np.maximum(0.0, (total - smallest) * (total + smallest)) * (1.0 + gamma(8)) + gamma(8) * total**2 + TINY
        bound = np.minimum(bound, steepest**2 * left * (1.0 + gamma(8)))
    found: FloatArray = np.sqrt(bound) * (1.0 + gamma(8))
    return found


def _ball_delta_norm(
    weight: Interval, whole: Interval, entering: FloatArray, slope: Interval, base: FloatArray, rho: FloatArray, bias: bool
) -> FloatArray:
    """Supremum of |r| |v phi'(s)| over a ball: v takes the share nu of the radius, the bias what is left."""
    steepest = slope.magnitude.max(axis=0)
    size = weight.magnitude[..., None, :]
    fixed = base + (whole.magnitude * size).sum(axis=-1) * (1.0 + gamma(size.shape[-1] + 8))
    still, top = norms(steepest * size), steepest.max(axis=-1)
    ends = np.multiply.outer(np.arange(2 * _PIECES + 1) / (2 * _PIECES), rho)
    low, high = ends[:-1], ends[1:]
    left = np.sqrt(np.maximum(0.0, (rho - low) * (rho + low))) * (1.0 + gamma(16)) if bias else 0.0
    best: FloatArray = ((fixed + high * entering + left) * (still + top * high)).max(axis=0)
    return best * (1.0 + gamma(32)) + TINY
