"""What the residual and the last hidden layer can do at once, derived anew for checking certificates.

One output and the squared error: r = v_j phi(s_j) + (the other units and the bias) - y. The ranges of s_j and of v_j are cut into
pieces; on each, r is enclosed with the others free, and r v_j phi', r v_j phi'' and |r| phi' with it. In a ball, v_j's offset
leaves the others and the bias the rest of the last layer's radius. Over all units at once, for any a0, b0 > 0, as log x <= x - 1,

    a^p b <= a0^p b0 exp(p (a/a0 - 1) + b/b0 - 1),    a = |c - y| + sum_j |v_j phi(s_j)|, b = sum_j d_j(s_j),

whose exponent's largest value is a sum of the units' largest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np

from .reference_interval import Range, Wide, down, exp, length, up, wide, zeros
from .reference_ranges import activation
from .reference_shared import Rows, shared_bounds

#: Pieces of s and of v (multiples of what the certificates use, so that nothing is lost), and points that a0, b0 are moved to.
_PIECES, _PARTS, _TOUCHES = 48, 32, 12
#: Numbers in the pieces of a layer up to which they are looked at.
_NUMBERS = 4_000_000
#: Numbers in the pieces of v and s that are looked at together.
_AT_ONCE = 100_000
_LEAST = 1e-140
#: |phi(0)| = 0 and sup |phi'|.
_STEEPEST = {"tanh": 1.0, "identity": 1.0, "relu": 1.0, "gelu": 1.128904145185156}


@dataclass(frozen=True)
class Last:
    """The last hidden layer, (n, m) per unit and (n,): r v phi'', r v phi', sup |delta|, sup |r| max phi', and for the row norms
    w_j of the weights below sup sum (-r v_j phi''_j)_+ w_j² and sup |r| sqrt(sum (phi'_j w_j)²), infinite where not known;
    with ``relative`` the weights are those times the slopes below over the largest of these.
    """

    curved: Range
    delta: Range
    delta_norm: Wide
    peak: Wide
    bent: Wide
    steep: Wide
    relative: bool = False


@dataclass(frozen=True)
class LastLayer:
    """Weights v (B, m), c - y (n, 1), the radius rho (B,) around v, and around c as well with ``bias``, sup |phi(s)| (n,) without
    the one, and the layer below.
    """

    name: str
    beta: float
    bias: bool
    v: Range
    constant: Range
    rho: Wide
    entering: Wide
    below: Wide  # (B, m)
    ball: Rows | None = None


def joint_last(layer: LastLayer, s: Range, s_norm: Wide, residual: Range, plain: Last) -> Last:
    """Sharper than ``plain``, the products of separate suprema; s (n, m) in norm at most s_norm (n,), residual (n, 1)."""
    n, m = s.lo.shape
    if n * m * _PIECES > _NUMBERS or not (np.isfinite(s.size()).all() and np.isfinite(residual.size()).all()):
        return plain
    at = pieces(s, _PIECES)
    value, slope, bend = (activation(layer.name, layer.beta, order, at) for order in range(3))
    whole = activation(layer.name, layer.beta, 0, s)
    rest = _others(layer.v * whole) + layer.constant
    if layer.rho.any():
        parts, left = _ball_parts(layer)
        reach = _with_one(layer, _others_norm(layer, whole, at, s_norm))
    else:
        parts, left = (
            pieces(Range(np.broadcast_to(layer.v.lo, s.lo.shape), np.broadcast_to(layer.v.hi, s.lo.shape)), _PARTS),
            None,
        )
        reach = zeros(at.lo.shape)
    found = []
    together = max(1, _AT_ONCE // value.lo.size)  # few calls for small problems, little memory for large ones
    for begin in range(0, _PARTS, together):
        some = slice(begin, begin + together)
        v = parts[some][:, None]
        r = v * value + rest
        if left is not None:
            spread = up(left[some][:, None] * reach)
            r = Range(down(r.lo - spread), up(r.hi + spread))
        r = Range(np.maximum(r.lo, residual.lo), np.minimum(r.hi, residual.hi))
        there = ~(r.lo > r.hi)
        bar = r * v
        found.append([_hull(x, there) for x in (bar * bend, bar * slope, Range((Range(r.size()) * Range(slope.size())).hi))])
    curved, delta, peak = (reduce(Range.hull, [x[k] for x in found]) for k in range(3))
    delta = _within(delta, plain.delta)
    norm = np.minimum(plain.delta_norm, length(delta.size()))
    bent, steep = plain.bent, plain.steep
    base = layer.constant.size()[:, 0]
    relative = left is not None and layer.ball is not None
    if left is not None:
        norm = np.minimum(norm, _ball_delta_norm(layer, whole, slope, base))
        if layer.ball is not None:
            sups = shared_bounds(layer.ball, at, layer.v, layer.constant, layer.rho, layer.bias, (value, slope, bend))
            norm, bent, steep = (np.where(y < x, y, x) for x, y in zip((norm, bent, steep), sups, strict=True))
    else:
        size = Range(layer.v.size())
        h = (size * Range(value.size())).hi
        flat, sharp = Range(slope.size()), Range(bend.size())
        below = Range(layer.below)
        square = _largest(base, h, (size * flat).square().hi, 2)
        norm = np.minimum(norm, Range(square).root().hi)
        bent = np.minimum(bent, _largest(base, h, (size * sharp * below.square()).hi, 1))
        steep = np.minimum(steep, Range(_largest(base, h, (flat * below).square().hi, 2)).root().hi)
    top = np.maximum(peak.hi.max(axis=1), wide(0.0))
    return Last(_within(curved, plain.curved), delta, norm, np.minimum(plain.peak, top), bent, steep, relative)


def steep_and_curved(name: str, beta: float, s: Range, bar: Range, steep: Wide) -> Wide:
    """Supremum over units and their s of steep phi'² + (-bar phi'')_+ for s and bar (n, m), steep (n, m) >= 0."""
    at = pieces(s, _PIECES)
    slope, bend = (activation(name, beta, order, at) for order in (1, 2))
    sharp = np.maximum(wide(0.0), -(bar[None] * bend).lo)
    return wide(up((Range(steep[None]) * slope.square()).hi + sharp).max(axis=2).max(axis=0))


def pieces(x: Range, number: int) -> Range:
    """Adjoining pieces (number, …) that cover the ranges; zero is an end where it lies inside."""
    inside = (x.lo < 0.0) & (x.hi > 0.0)
    middle = np.where(inside, wide(0.0), np.clip(0.5 * (x.lo + x.hi), x.lo, x.hi))
    half = number // 2
    ends = [x.lo + (middle - x.lo) * (step / half) for step in range(half)]
    ends += [middle + (x.hi - middle) * (step / half) for step in range(half)] + [x.hi]
    ends[0] = x.lo
    ends = [np.clip(end, x.lo, x.hi) for end in ends]
    pairs = list(pairwise(ends))
    return Range(np.stack([np.minimum(a, b) for a, b in pairs]), np.stack([np.maximum(a, b) for a, b in pairs]))


def _hull(x: Range, there: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Range:
    """Over the pieces of v and s where a residual belongs to them."""
    inf = wide(np.inf)
    lo, hi = np.where(there, x.lo, inf), np.where(there, x.hi, -inf)
    return Range(lo.min(axis=0).min(axis=0), hi.max(axis=0).max(axis=0))


def _within(x: Range, known: Range) -> Range:
    lo, hi = np.maximum(known.lo, x.lo), np.minimum(known.hi, x.hi)
    fits = lo <= hi
    return Range(np.where(fits, lo, known.lo), np.where(fits, hi, known.hi))


def _others(a: Range) -> Range:
    """Sum over the other units, (n, m) -> (n, m)."""
    m = a.lo.shape[1]
    mask = wide(1.0 - np.eye(m))
    return Range(a.lo[:, None, :] * mask, a.hi[:, None, :] * mask).sum(2)


def _with_one(layer: LastLayer, norm: Wide) -> Wide:
    return (Range(norm).square() + Range(wide(1.0))).root().hi if layer.bias else norm


def _ball_parts(layer: LastLayer) -> tuple[Range, Wide]:
    """Pieces (parts, B, m) of v + [-rho, rho], finer towards its ends, and what of the radius each leaves (parts, B, 1)."""
    turns = np.sin(0.5 * np.pi * (np.arange(_PARTS + 1) / (_PARTS // 2) - 1.0))
    turns[0], turns[_PARTS // 2], turns[-1] = -1.0, 0.0, 1.0
    rho = layer.rho[:, None]
    parts, left = [], []
    for low, high in pairwise(turns):
        part = Range(down(rho * low) if low else zeros(rho.shape), up(rho * high) if high else zeros(rho.shape))
        parts.append(layer.v + part)
        taken = np.maximum(down(rho * min(abs(low), abs(high))), wide(0.0))
        taken = np.minimum(taken, rho)
        left.append(((Range(rho) - Range(taken)) * (Range(rho) + Range(taken))).root().hi)
    return Range(np.stack([part.lo for part in parts]), np.stack([part.hi for part in parts])), np.stack(left)


def _others_norm(layer: LastLayer, whole: Range, at: Range, s_norm: Wide) -> Wide:
    """Supremum of |phi(s)| of the units but one over the pieces of that one, (pieces, n, m)."""
    bound = np.broadcast_to(_others(Range(whole.square().hi)).hi, at.lo.shape)
    steepest = _STEEPEST.get(layer.name)
    if steepest is not None:
        spans = (at.lo <= 0.0) & (at.hi >= 0.0)
        least = np.where(spans, wide(0.0), np.minimum(np.abs(at.lo), np.abs(at.hi)))
        total = Range(s_norm[None, :, None])
        left = (total - Range(least)) * (total + Range(least))
        bound = np.minimum(bound, up(up(up(steepest) ** 2) * np.maximum(left.hi, wide(0.0))))
    return Range(bound).root().hi


def _largest(base: Wide, h: Wide, d: Wide, power: int) -> Wide:
    """Supremum of (base + sum_j h_j)^power sum_j d_j over the units' pieces: base (n,), h and d (pieces, n, m), all >= 0."""
    least = wide(_LEAST)
    a0 = np.maximum(up(base + Range(h.max(axis=0)).sum(1).hi), least)
    b0 = np.maximum(Range(d.max(axis=0)).sum(1).hi, least)
    rows, units = np.arange(h.shape[1])[:, None], np.arange(h.shape[2])[None, :]

    def value(a: Wide, b: Wide) -> Range:
        return Range(a) * Range(b) if power == 1 else Range(a).square() * Range(b)

    best = value(a0, b0).hi
    for _ in range(_TOUCHES):
        share = Range(h) * Range(wide(power)) / Range(a0[None, :, None]) + Range(d) / Range(b0[None, :, None])
        chosen = share.hi.argmax(axis=0)
        total = Range(base) * Range(wide(power)) / Range(a0) + Range(share.hi.max(axis=0)).sum(1)
        found = value(a0, b0) * exp(total - Range(wide(power + 1.0)))
        best = np.where(found.hi < best, found.hi, best)
        a_next = base + h[chosen, rows, units].sum(axis=1)
        b_next = d[chosen, rows, units].sum(axis=1)
        a0, b0 = np.maximum(0.5 * (a0 + a_next), least), np.maximum(0.5 * (b0 + b_next), least)
    return wide(best)


def _ball_delta_norm(layer: LastLayer, whole: Range, slope: Range, base: Wide) -> Wide:
    """Supremum of |r| |v phi'|: v's offset takes nu of the radius, the bias what is left."""
    steepest = slope.size().max(axis=0)
    size = Range(layer.v.size())
    fixed = up(base + (Range(whole.size()) * size).sum(1).hi)
    still, top = length((Range(steepest) * size).hi), steepest.max(axis=1)
    ends = wide(np.arange(2 * _PIECES + 1) / (2 * _PIECES))[:, None]
    low, high = down(layer.rho * ends[:-1]), up(layer.rho * ends[1:])
    low = np.clip(low, wide(0.0), layer.rho)
    left = Range(zeros(low.shape))
    if layer.bias:
        left = ((Range(layer.rho) - Range(low)) * (Range(layer.rho) + Range(low))).root()
    r = Range(fixed) + Range(high) * Range(layer.entering) + Range(left.hi)
    return wide((r * (Range(still) + Range(top) * Range(high))).hi.max(axis=0))
