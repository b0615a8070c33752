"""The second-order test of small boxes for checking certificates: derivatives up to the third by the chain rule for tensors.

H(theta) = H(c) + sum_k delta_k D_k with D_k in the enclosure of the third derivatives over the box. The smallest eigenvalue of
H(c) + sum_k delta_k mid D_k is concave in delta, so it is tested at the corners of the box, or of the part of the box on the near
side of a plane that has the whole ball on this side; the radii count with their norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .reference_hessian import Problem
from .reference_interval import Range, Wide, down, up, wide, zeros
from .reference_ranges import activation, logistic_derivative, loss_gradient, softmax
from .reference_tests import Flags, positive_pivots


@dataclass
class _Jet:
    """A function of theta over boxes: its value (B,) and derivatives (B, P), (B, P, P), (B, P, P, P)."""

    value: Range
    first: Range
    second: Range
    third: Range

    def __add__(self, other: _Jet) -> _Jet:
        return _Jet(self.value + other.value, self.first + other.first, self.second + other.second, self.third + other.third)

    def scaled(self, factor: Range) -> _Jet:
        """Times numbers (B,) that do not depend on theta."""
        return _Jet(
            self.value * factor,
            self.first * factor[..., None],
            self.second * factor[..., None, None],
            self.third * factor[..., None, None, None],
        )

    def times_parameter(self, k: int, parameter: Range) -> _Jet:
        """Times theta_k, known to lie in ``parameter`` (B,)."""
        out = self.scaled(parameter)
        value, first, second = self.value, self.first, self.second
        _add_at(out.first, (slice(None), k), value)
        _add_at(out.second, (slice(None), k), first)
        _add_at(out.second, (slice(None), slice(None), k), first)
        _add_at(out.third, (slice(None), k), second)
        _add_at(out.third, (slice(None), slice(None), k), second)
        _add_at(out.third, (slice(None), slice(None), slice(None), k), second)
        return out

    def composed(self, g0: Range, g1: Range, g2: Range, g3: Range) -> _Jet:
        """G of this, from g and its derivatives over the value."""
        u, h = self.first, self.second
        pairs = u[:, :, None] * u[:, None, :]
        places = np.arange(u.lo.shape[1])
        squares = u.square()
        pairs.lo[:, places, places], pairs.hi[:, places, places] = squares.lo, squares.hi
        mixed = h[:, :, :, None] * u[:, None, None, :] + h[:, :, None, :] * u[:, None, :, None] + h[:, None] * u[:, :, None, None]
        cubes = pairs[:, :, :, None] * u[:, None, None, :]
        return _Jet(
            g0,
            u * g1[:, None],
            pairs * g2[:, None, None] + h * g1[:, None, None],
            cubes * g3[:, None, None, None] + mixed * g2[:, None, None, None] + self.third * g1[:, None, None, None],
        )


def _add_at(array: Range, where: Any, more: Range) -> None:
    array.lo[where] = down(array.lo[where] + more.lo)
    array.hi[where] = up(array.hi[where] + more.hi)


def _constant(value: Wide, boxes: int, size: int) -> _Jet:
    return _Jet(
        Range(np.broadcast_to(wide(value), boxes).copy()),
        *(Range(zeros((boxes,) + (size,) * order)) for order in (1, 2, 3)),
    )


def derivatives(problem: Problem, low: Wide, high: Wide) -> tuple[Range, Range]:
    """Second (B, P, P) and third (B, P, P, P) derivatives of the loss over boxes (B, P)."""
    boxes, size = low.shape
    theta = Range(wide(low), wide(high))
    total = _constant(wide(0.0), boxes, size)
    for i in range(len(problem.x)):
        a = [_constant(value, boxes, size) for value in problem.x[i]]
        for layer, (fan_in, fan_out) in enumerate(pairwise(problem.widths)):
            s = []
            for unit in range(fan_out):
                jet = _constant(wide(0.0), boxes, size)
                if problem.bias:
                    at = problem.bias_at[layer] + unit
                    jet = _constant(wide(1.0), boxes, size).times_parameter(at, theta[:, at])
                for p in range(fan_in):
                    at = problem.weight_at[layer] + unit * fan_in + p
                    jet = jet + a[p].times_parameter(at, theta[:, at])
                kappa = problem.scale[layer]
                s.append(jet if kappa.lo == kappa.hi == 1.0 else jet.scaled(kappa))
            if layer < problem.layers - 1:
                name, beta = problem.activations[layer], problem.betas[layer]
                a = [jet.composed(*(activation(name, beta, order, jet.value) for order in range(4))) for jet in s]
        total = total + _loss(problem, s, problem.y[i]).scaled(problem.mass[i])
    return total.second, total.third


def _loss(problem: Problem, f: list[_Jet], y: Wide) -> _Jet:
    boxes, size = f[0].first.lo.shape
    one = Range(np.ones(boxes))
    none = Range(np.zeros(boxes))
    if problem.loss == "squared_error":
        total = _constant(wide(0.0), boxes, size)
        for jet, target in zip(f, y, strict=True):
            r = jet.value - Range(target)
            total = total + jet.composed(r.square(), r, one, none)
        return total
    if problem.loss == "logistic":
        value = f[0].value
        slope = loss_gradient("logistic", value[:, None], Range(y))[:, 0]
        return f[0].composed(none, slope, logistic_derivative(1, value), logistic_derivative(2, value))
    return _cross_entropy(f, y)


def _cross_entropy(f: list[_Jet], y: Wide) -> _Jet:
    """Log sum exp f - y'f: the derivatives of log sum exp are cumulants of those of f under p = softmax(f)."""
    boxes, size = f[0].first.lo.shape
    outputs = Range(np.stack([jet.value.lo for jet in f], axis=1), np.stack([jet.value.hi for jet in f], axis=1))
    p = softmax(outputs)
    mass = Range(y).sum(0)
    gradient = p * mass - Range(y)
    total = _constant(wide(0.0), boxes, size)
    mean = _constant(wide(0.0), boxes, size)
    for k, jet in enumerate(f):
        linear = jet.scaled(gradient[:, k])
        total = total + linear
        mean = mean + jet.scaled(p[:, k])
    none = Range(np.zeros(boxes))
    for k, jet in enumerate(f):
        weight = p[:, k] * mass
        u, h = jet.first - mean.first, jet.second - mean.second
        centred = _Jet(none, u, h, Range(np.zeros_like(jet.third.lo)))
        # Of exp about the mean: second moments of first derivatives, their third moments, and the mixed second moments.
        total = total + centred.composed(none, none, weight, weight)
    return total


def small_boxes(problem: Problem, low: Wide, high: Wide, claim: float, ball: tuple[Wide, Wide] | None) -> Flags:
    """For boxes (B, P): whether it is proved that no Hessian on the box (and in the ball) has an eigenvalue below the claim."""
    size = problem.num_params
    c = np.clip(0.5 * (low + high), low, high)
    h = np.maximum(up(high - c), up(c - low))
    base, _ = derivatives(problem, c, c)
    _, third = derivatives(problem, low, high)
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
