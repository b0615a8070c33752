"""Derivatives of the losses as polynomials with a rest, for checking certificates.

Cross-entropy: with p = softmax(f), t = sum y, J = df/dtheta, dl/df = t p - y, v'J'l''Jv = t sum_k p_k ((J_k - sum p J) . v)².
Along f + tau h, with the mean m, the variance s and the third central moment of h under p, g = p_k^c has

    g' = c g (h_k - m),   g'' = g (c² (h_k - m)² - c s),   |g'''| <= g (c³ W_k³ + 3c² W_k W²/4 + c W³ / (6 sqrt 3))

for |h_i - h_j| <= W, |h_k - h_j| <= W_k: |h_k - m| <= W_k, s <= W²/4, and the third moment is at most W³ / (6 sqrt 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .reference_hessian import Problem
from .reference_interval import UNIT, Range, Wide, middle_and_radius, wide
from .reference_quadratic import Poly, grown
from .reference_ranges import logistic_derivative, softmax

#: More than 1 / (6 sqrt 3).
_MOMENT = 0.09622505


def loss_polynomials(problem: Problem, outputs: Poly, jacobian: Poly, y: Wide) -> tuple[Poly, Poly, Wide]:
    """(r, d, a): r = dl/df (n, K), and v'J'l''Jv is at least the sum of a_k (d_k . v)² for d (n, K, P) and a >= 0 (n, K)."""
    if problem.loss == "squared_error":
        return outputs.minus(y), jacobian, wide(np.ones(y.shape))
    if problem.loss == "logistic":
        bend = logistic_derivative(1, outputs.range).lo
        return outputs.composed(_logistic, 0).minus(y), jacobian, np.maximum(bend, wide(0.0))
    total = Range(y).sum(1)[:, None]
    probability, root = _powers(outputs)
    mean = (probability[:, :, None] * jacobian).sum(1)
    return probability.times(total).minus(y), root[:, :, None] * (jacobian - mean[:, None]), np.broadcast_to(total.lo, y.shape)


def _logistic(orders: Sequence[int], s: Range) -> list[Range]:
    return [logistic_derivative(order, s) for order in orders]


def _powers(f: Poly) -> tuple[Poly, Poly]:
    """Softmax p (n, K) of the outputs, and its square root."""
    at, over = softmax(Range(f.value)), softmax(f.range)
    p, blur = middle_and_radius(at)
    # The change from f's value, which therefore does not have to be exact.
    h = Poly(np.zeros_like(f.value), f.first, f.second, f.rest, f.ball)
    centred = h - h.times(at).sum(1)[:, None]
    one, beyond, move = centred.one, centred.left_out, centred.change
    squares = centred.first[..., :, None] * centred.first[..., None, :]
    variance = (p[..., None, None] * squares).sum(axis=1)[:, None]
    crossed = grown(beyond * (2.0 * one + beyond))  # what is left of the squares of h_k - m
    apart = (h[:, :, None] - h[:, None, :]).change * (1.0 - np.eye(f.value.shape[1]))
    own = apart.max(axis=2)
    spread = own.max(axis=1)[:, None]

    def mean(x: Wide) -> Wide:
        return grown((at.hi * x).sum(axis=1)[:, None], x.shape[1])

    found = []
    for c, value, highest in ((1.0, at, over.hi), (0.5, at.root(), over.root().hi)):
        g, error = middle_and_radius(value)
        cc = c * c
        second = g[..., None, None] * (c * centred.second + cc * squares - c * variance)
        rest = c * g * centred.rest + 0.5 * g * (cc * crossed + c * mean(crossed))
        third = c * cc * own * own * own + spread * spread * (0.75 * cc * own + _MOMENT * c * spread)
        rest = rest + highest * third / 6.0
        # The values at the centre are not known exactly, and all was rounded.
        rest = rest + error * (1.0 + move + move * move + mean(move * move))
        rest = rest + 0.5 * g * grown((blur * one * one).sum(axis=1)[:, None], p.shape[1])
        coarse = 1.0 + centred.coarse + centred.coarse * centred.coarse + mean(centred.coarse * centred.coarse)
        rest = rest + UNIT * (2 * p.shape[1] + 64) * g * coarse
        found.append(Poly(g, (c * g)[..., None] * centred.first, second, grown(rest, p.shape[1]), f.ball))
    return found[0], found[1]
