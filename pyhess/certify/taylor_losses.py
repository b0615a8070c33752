"""Derivatives of the losses as forms: the gradient in the outputs, and the Gauss-Newton part as a sum of squares.

For the cross-entropy with p = softmax(f) and t the sum of the targets, the gradient is t p - y, and

    v'Gv = t sum_k (sqrt(p_k) (J_k - sum_l p_l J_l) . v)².

g = p_k^c, c = 1 or 1/2, along a change of f by h has with u = h_k - m, m, s and k3 the mean, the variance and the third central
moment of h under p, and k4 the fourth less 3 s²,

    g' = c g u,    g'' = g (c² u² - c s),    g''' = g (c³ u³ - 3 c² u s - c k3),
    g'''' = g (c⁴ u⁴ - 6 c³ u² s - 4 c² u k3 + 3 c² s² - c k4),

|u| <= W_k, s <= W²/4, |k3| <= W³/(6 sqrt 3), -W⁴/8 <= k4 <= W⁴/4, as the fourth moment is between s² and W² s; W is the largest
difference of two of the h, W_k that of h_k and another.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .intervals import TINY, Interval, gamma
from .propagate import softmax_range
from .ranges import derivative_range
from .taylor_forms import Forms

FloatArray = npt.NDArray[np.float64]

_THIRD_MOMENT = 0.0963  # more than 1/(6 sqrt 3)


def loss_forms(loss: str, outputs: Forms, jacobian: Forms, y: FloatArray) -> tuple[Forms, Forms, FloatArray]:
    """(r, d, a): the gradient r (n, K), and v'Gv at least sum_k a_k (d_k . v)² for d (n, K, P) and a >= 0 (n, K).

    ``jacobian`` (n, K, P) is that of the outputs (n, K). a is known up to four roundings.
    """
    if loss == "squared_error":
        return outputs.minus(y), jacobian, np.ones_like(y)
    if loss == "logistic":
        gradient = outputs.composed("sigmoid", 1.0, 0).minus(y)
        return gradient, jacobian, np.maximum(0.0, derivative_range("sigmoid", 1.0, 1, outputs.range).lo)
    classes = y.shape[1]
    probability, root = _powers(outputs)
    total = np.broadcast_to(y.sum(axis=1, keepdims=True), y.shape)
    # The sum of the targets took as many roundings as there are classes.
    gradient = probability.scaled(total).widened(gamma(classes) * total * probability.magnitude).minus(y)
    mean = (probability[:, :, None] * jacobian).sum(1)
    return gradient, root[:, :, None] * (jacobian - mean[:, None]), total * (1.0 - gamma(classes + 2))


def _powers(f: Forms) -> tuple[Forms, Forms]:
    """Softmax p (n, K) of the outputs, and its square root."""
    at, over = softmax_range(Interval.point(f.value)), softmax_range(f.range)
    p = at.middle
    # The change from f's value, which therefore does not have to be exact.
    h = Forms((np.zeros_like(f.value), *f.coefficients[1:]), f.rest, f.room)
    u = h - _mean(h, p)
    square = u * u
    cube = square * u
    variance, skewed = _mean(square, p), _mean(cube, p)
    crossed = u * variance
    between = f[:, :, None] - f[:, None, :]
    apart = between.change.max(axis=2)
    spread = apart.max(axis=1, keepdims=True)
    everything = f.change.sum(axis=1, keepdims=True) * (1.0 + gamma(p.shape[1] + 16))
    found = []
    for c, g, highest in ((1.0, at, over.hi), (0.5, _root(at), _root(over).hi)):
        second = _times(square, c**2) - _times(variance, c)
        third = _times(cube, c**3) - _times(crossed, 3.0 * c**2) - _times(skewed, c)
        relative = _times(u, c) + _times(second, 0.5) + _times(third, 1.0 / 6.0)
        fourth = c**4 * apart**4 + 1.5 * c**3 * apart**2 * spread**2 + 4.0 * _THIRD_MOMENT * c**2 * apart * spread**3
        fourth = highest * (fourth + (0.1875 * c**2 + 0.25 * c) * spread**4) / 24.0
        # The values of p, in every coefficient, are not exact.
        g0, error = g.middle, g.radius
        inexact = error + g0 * (at.radius.sum(axis=1, keepdims=True) + gamma(p.shape[1] + 64))
        change = relative.scaled(g0)
        whole = Forms((g0, *change.coefficients[1:]), change.rest, f.room)
        found.append(whole.widened((fourth + inexact * (1.0 + 4.0 * everything) ** 3) * (1.0 + gamma(64)) + TINY))
    return found[0], found[1]


def _mean(h: Forms, p: FloatArray) -> Forms:
    """The mean of h (n, K) under p, for every output."""
    return h.scaled(p).sum(1)[:, None][:, np.zeros(p.shape[1], dtype=np.int64)]


def _times(h: Forms, number: float) -> Forms:
    return h.scaled(np.full(h.value.shape, number))


def _root(p: Interval) -> Interval:
    """Square roots, rounded outwards."""
    return Interval(np.sqrt(np.maximum(p.lo, 0.0)) * (1.0 - gamma(4)), np.sqrt(p.hi) * (1.0 + gamma(4)))
