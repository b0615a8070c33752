"""Derivatives of the losses as polynomials with a rest, for checking certificates.

Cross-entropy: with p = softmax(f), t = sum y, J = df/dtheta, dl/df = t p - y, v'J'l''Jv = t sum_k p_k ((J_k - sum p J) . v)².
Along f + tau h, with u = h_k - m and the mean m, the variance s and the third central moment k3 of h under p, g = p_k^c has, as
u' = -s, s' = k3 and k3' = k4 = mu4 - 3s²,

    g' = c g u,    g'' = g (c²u² - c s),    g''' = g (c³u³ - 3c²us - c k3),
    g'''' = g (c⁴u⁴ - 6c³u²s - 4c²u k3 + 3c²s² - c k4).

At the centre u, s and k3 are polynomials in delta. For |h_i - h_j| <= W and |h_k - h_j| <= V: |u| <= V, s <= W²/4, |k3| <= W³ /
(6 sqrt 3), and -2s² <= k4 <= W²s - 3s², which is at least -W⁴/8 and at most W⁴/12. Polynomials of the second order leave out
g''' at the centre; for large changes that and the fourth-order term are more than g''' = g (c²u (cu² - 3s) - c k3) is on all of
the way, where cu² and 3s are both not negative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .reference_changes import grown
from .reference_cubic import Poly
from .reference_hessian import Problem
from .reference_interval import Range, Wide, wide
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
    # The change from f's value, which therefore does not have to be exact.
    h = Poly(np.zeros_like(f.value), f.first, f.second, f.third, f.rest, f.changes)

    def mean(q: Poly) -> Poly:
        return q.times(at).sum(1)[:, None]

    def part(numerator: float, denominator: float, q: Poly) -> Poly:
        return q.times(Range(wide(numerator)) / Range(wide(denominator)))

    u = h - mean(h)
    square = u * u
    cube = square * u
    s, k3 = mean(square), mean(cube)
    crossed = u * s
    apart = (h[:, :, None] - h[:, None, :]).change * (1.0 - np.eye(f.value.shape[1]))
    own = apart.max(axis=2)
    spread = own.max(axis=1)[:, None]
    one = Poly.constant(wide(np.ones(f.value.shape)), f.size, f.changes, f.order)
    found = []
    for c, value, highest in ((1.0, at, over.hi), (0.5, at.root(), over.root().hi)):
        g = one + part(c, 1.0, u) + part(c * c, 2.0, square) - part(c, 2.0, s)
        third = part(c**3, 6.0, cube) - part(c * c, 2.0, crossed) - part(c, 6.0, k3)
        full, fourth = (g + third).times(value), _fourth(c, own, spread)
        rest = grown(full.rest + grown(highest * fourth / 24.0))
        if f.order == 2:
            rest = np.minimum(rest, grown(g.times(value).rest + grown(highest * _third(c, own, spread) / 6.0)))
        found.append(Poly(full.value, full.first, full.second, full.third, rest, f.changes))
    return found[0], found[1]


def _third(c: float, own: Wide, spread: Wide) -> Wide:
    """|g''' / g| is no more than this for |h_k - h_j| <= own, |h_i - h_j| <= spread."""
    found: Wide = c * c * own * np.maximum(c * own**2, 0.75 * spread**2) + c * _MOMENT * spread**3
    return found


def _fourth(c: float, own: Wide, spread: Wide) -> Wide:
    """|g'''' / g| is no more than this."""
    above = c**4 * own**4 + 0.1875 * c * c * spread**4 + 0.125 * c * spread**4
    below = 1.5 * c**3 * own**2 * spread**2 + c * spread**4 / 12.0
    found: Wide = np.maximum(above, below) + 4.0 * _MOMENT * c * c * own * spread**3
    return found
