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

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .intervals import TINY, Interval, gamma, matmul, norms, within
from .joint_kernel import piece_hulls
from .ranges import derivative_range, growth

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
    """The last hidden layer together with the residual; bounds per datum (n,) and unit (n, m).

    ``curved`` r v phi'', ``delta`` r v phi', ``delta_norm`` sup |delta|, ``peak`` sup |r| max phi'; with row norms w_j of the
    weights below, ``bent`` sup sum_j |r v_j phi''_j| w_j² and ``steep`` sup |r| sqrt(sum_j (phi'_j w_j)²), infinite if unknown.
    """

    curved: Interval
    delta: Interval
    delta_norm: FloatArray
    peak: FloatArray
    bent: FloatArray
    steep: FloatArray


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
    return matmul(a, Interval.point(1.0 - np.eye(a.lo.shape[1])))


def _product_bound(base: FloatArray, h: FloatArray, d: FloatArray, power: float) -> FloatArray:
    """Supremum of (base + sum_j h_j)^power sum_j d_j over a choice of pieces for every unit.

    All non-negative: base (n,), h and d (pieces, n, m).
    """
    rows, units = h.shape[1:]
    at, unit = np.arange(rows)[:, None], np.arange(units)[None, :]
    a0 = np.maximum(base + h.max(axis=0).sum(axis=1), 1e-140)
    b0 = np.maximum(d.max(axis=0).sum(axis=1), 1e-140)
    best: FloatArray = a0**power * b0 * (1.0 + gamma(2 * units + 64))
    for _ in range(_TOUCHES):
        share = h * (power / a0)[None, :, None] + d / b0[None, :, None]
        chosen = share.argmax(axis=0)
        exponent = (power * base / a0 + np.take_along_axis(share, chosen[None], axis=0)[0].sum(axis=1)) * (
            1.0 + gamma(units + 32)
        )
        found = a0**power * b0 * np.exp(exponent * (1.0 + gamma(8)) - (power + 1.0) + gamma(64)) * (1.0 + gamma(64))
        best = np.fmin(best, found)
        a_next, b_next = base + h[chosen, at, unit].sum(axis=1), d[chosen, at, unit].sum(axis=1)
        a0 = np.maximum(0.5 * (a0 + a_next), 1e-140)
        b0 = np.maximum(0.5 * (b0 + b_next), 1e-140)
    return best + TINY


def steep_and_curved(activation: tuple[str, float], s: Interval, bar: Interval, steep: FloatArray) -> FloatArray | None:
    """Supremum over units and their s of steep phi'(s)² + (-bar phi''(s))_+, for ``s`` and ``bar`` (n, m), ``steep`` (n,) >= 0.

    None if the units are too many to be cut into pieces.
    """
    pieces, _ = pieces_of(*s.lo.shape)
    if pieces == 0:
        return None
    name, beta = activation
    at = _stacked(_cut(s, pieces))
    slope = derivative_range(name, beta, 1, at).magnitude
    sharp = np.maximum(0.0, -(bar * derivative_range(name, beta, 2, at)).lo)
    found: FloatArray = (steep[:, None] * slope**2 + sharp).max(axis=(0, 2)) * (1.0 + gamma(8)) + TINY
    return found


def joint_last(
    activation: tuple[str, float],
    s: Interval,
    s_norm: FloatArray,
    entering: FloatArray,
    weight: Interval,
    constant: Interval,
    rho: float,
    bias: bool,
    residual: Interval,
    below: FloatArray,
    plain: Last,
) -> Last:
    """Sharper than ``plain``, which holds the separate suprema.

    ``s`` (n, m), its norm and that of phi(s); the last layer's ``weight`` (m,), ``constant`` (n, 1) = c - y, and its
    radius ``rho`` about both in a ball; ``residual`` (n, 1); ``below`` (m,) row norms of the weights entering the units.
    """
    rows, units = s.lo.shape
    pieces, parts = pieces_of(rows, units)
    if pieces == 0 or not (np.isfinite(s.lo).all() and np.isfinite(s.hi).all() and np.isfinite(residual.magnitude).all()):
        return plain
    name, beta = activation
    at = _stacked(_cut(s, pieces))
    value, slope, bend = (derivative_range(name, beta, order, at) for order in range(3))
    whole = derivative_range(name, beta, 0, s)
    rest = _others(weight[None, :] * whole) + constant
    others = np.zeros_like(at.lo)
    left = np.zeros(parts)
    if rho > 0.0:
        part = _ball_parts(rho, parts)
        v = weight[None, :] + part
        # The share of the radius that v_j's offset leaves to the others and the bias.
        taken = np.minimum(np.abs(part.lo), np.abs(part.hi))[:, 0]
        left = np.sqrt(np.maximum(0.0, (rho - taken) * (rho + taken)) * (1.0 + gamma(8))) * (1.0 + gamma(8))
        others = _with_one(_others_norm(name, beta, whole, at, s_norm), bias)
    else:
        v = _stacked(_cut(weight, parts))
    found = _hulls(v, left, others, value, slope, bend, rest, residual)
    if found is None:
        return plain
    curved, delta, peak = found
    result_delta = within(delta, plain.delta)
    base = constant.magnitude[:, 0] * (1.0 + gamma(4))
    delta_norm = np.fmin(plain.delta_norm, norms(result_delta.magnitude))
    bent, steep = plain.bent, plain.steep
    if rho > 0.0:
        delta_norm = np.fmin(delta_norm, _ball_delta_norm(weight, whole, entering, slope, base, rho, bias))
    else:
        size = weight.magnitude
        h = size * value.magnitude * (1.0 + gamma(4))
        steepness, bends = slope.magnitude, size * bend.magnitude * (1.0 + gamma(4))
        room = 1.0 + gamma(16)
        delta_norm = np.fmin(delta_norm, np.sqrt(_product_bound(base, h, (size * steepness) ** 2 * room, 2.0)) * room)
        bent = np.fmin(bent, _product_bound(base, h, bends * below**2 * room, 1.0))
        steep = np.fmin(steep, np.sqrt(_product_bound(base, h, (steepness * below) ** 2 * room, 2.0)) * room)
    peak_all = np.fmin(plain.peak, peak * (1.0 + gamma(4)) + TINY)
    return Last(within(curved, plain.curved), result_delta, delta_norm, peak_all, bent, steep)


def _ball_parts(rho: float, parts: int) -> Interval:
    """Pieces of [-rho, rho] (parts, 1), finer towards its ends, where the rest of the radius changes fast; 0 is an end."""
    ends = rho * np.sin(0.5 * np.pi * (np.arange(parts + 1) / (parts // 2) - 1.0))
    ends[0], ends[parts // 2], ends[-1] = -rho, 0.0, rho
    ends = np.clip(ends, -rho, rho)[:, None]
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
) -> tuple[Interval, Interval, FloatArray] | None:
    """(curved, delta, peak) over all pieces; None if a number is too large for products of a few."""
    inputs = [left, others]
    for x in (v, value, slope, bend, rest, residual[:, 0]):
        inputs += [np.ascontiguousarray(x.lo), np.ascontiguousarray(x.hi)]
    if not all(float(np.abs(x).max(initial=0.0)) <= _LARGEST for x in inputs):
        return None
    out = [np.empty_like(rest.lo) for _ in range(4)]
    peak = np.empty(rest.lo.shape[0])
    piece_hulls(*(*inputs, *out, peak))
    return Interval(out[0], out[1]), Interval(out[2], out[3]), peak


def _with_one(values: FloatArray, bias: bool) -> FloatArray:
    return np.sqrt(values**2 + 1.0) * (1.0 + gamma(8)) if bias else values


def _others_norm(name: str, beta: float, whole: Interval, at: Interval, s_norm: FloatArray) -> FloatArray:
    """Supremum of |phi(s)| of the units but one, over the pieces of that one: (pieces, n, m)."""
    squares = whole.magnitude**2
    rest = np.maximum(0.0, squares @ (1.0 - np.eye(squares.shape[1]))) * (1.0 + gamma(squares.shape[1] + 8)) + TINY
    at_zero, steepest = growth(name, beta)
    bound: FloatArray = np.broadcast_to(rest, at.lo.shape)
    if at_zero == 0.0:
        smallest = np.where((at.lo <= 0.0) & (at.hi >= 0.0), 0.0, np.minimum(np.abs(at.lo), np.abs(at.hi)))
        total = s_norm[None, :, None]
        left = np.maximum(0.0, (total - smallest) * (total + smallest)) * (1.0 + gamma(8)) + gamma(8) * total**2 + TINY
        bound = np.minimum(bound, steepest**2 * left * (1.0 + gamma(8)))
    found: FloatArray = np.sqrt(bound) * (1.0 + gamma(8))
    return found


def _ball_delta_norm(
    weight: Interval, whole: Interval, entering: FloatArray, slope: Interval, base: FloatArray, rho: float, bias: bool
) -> FloatArray:
    """Supremum of |r| |v phi'(s)| over a ball: v takes the share nu of the radius, the bias what is left."""
    steepest = slope.magnitude.max(axis=0)
    size = weight.magnitude
    fixed = base + (whole.magnitude @ size) * (1.0 + gamma(size.size + 8))
    still, top = norms(steepest * size), steepest.max(axis=1)
    ends = rho * (np.arange(2 * _PIECES + 1) / (2 * _PIECES))
    best = np.zeros_like(base)
    for low, high in pairwise(ends):
        left = np.sqrt(max(0.0, (rho - low) * (rho + low))) * (1.0 + gamma(16)) if bias else 0.0
        best = np.maximum(best, (fixed + high * entering + left) * (still + top * high))
    return best * (1.0 + gamma(32)) + TINY
