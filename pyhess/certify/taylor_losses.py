"""Derivatives of the losses as forms: the gradient in the outputs, and the Gauss-Newton part as a sum of squares.

For the cross-entropy with p = softmax(f) and t the sum of the targets, the gradient is t p - y, and

    v'Gv = t sum_k (sqrt(p_k) (J_k - sum_l p_l J_l) . v)².

g = p_k^c, c = 1 or 1/2, along a change of f by h has with the mean m, the variance s and the third central moment of h under p

    g' = c g (h_k - m),    g'' = g (c² (h_k - m)² - c s),    |g'''| <= g (c³ W_k³ + 3 c² W_k W²/4 + c W³/(6 sqrt 3)),

W the largest difference of two of the h, W_k of h_k and another: |h_k - m| <= W_k, s <= W²/4, and the third moment is at most
W³/(6 sqrt 3).
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
    h = Forms(np.zeros_like(f.value), f.first, f.second, f.rest, f.ball)
    centred = h - h.scaled(p).sum(1)[:, None]
    linear, beyond = centred.linear, (centred.curved + centred.rest) * (1.0 + gamma(8))
    outer = centred.first[..., :, None] * centred.first[..., None, :]
    variance = np.einsum("nl,nlab->nab", p, outer)
    crossed = 2.0 * linear * beyond + beyond**2
    between = f[:, :, None] - f[:, None, :]
    apart = (between.linear + between.curved + between.rest).max(axis=2) * (1.0 + gamma(8))
    spread = apart.max(axis=1, keepdims=True)
    everything = (f.linear + f.curved + f.rest).sum(axis=1, keepdims=True) * (1.0 + gamma(p.shape[1] + 16))
    found = []
    for c, g, highest in ((1.0, at, over.hi), (0.5, _root(at), _root(over).hi)):
        g0, error = g.middle, g.radius
        first = (c * g0)[..., None] * centred.first
        second = g0[..., None, None] * (c * centred.second + c**2 * outer - c * variance[:, None])
        rest = c * g0 * centred.rest + 0.5 * g0 * (c**2 * crossed + c * (p * crossed).sum(axis=1, keepdims=True))
        rest = rest + highest * (c**3 * apart**3 + 0.75 * c**2 * apart * spread**2 + _THIRD_MOMENT * c * spread**3) / 6.0
        # The values of p, in every coefficient, are not exact, and all was rounded.
        inexact = error + g0 * (at.radius.sum(axis=1, keepdims=True) + gamma(2 * p.shape[1] + 64))
        rest = rest + inexact * (1.0 + 4.0 * everything) ** 2
        found.append(Forms(g0, first, second, rest * (1.0 + gamma(p.shape[1] + 64)) + TINY, f.ball))
    return found[0], found[1]


def _root(p: Interval) -> Interval:
    """Square roots, rounded outwards."""
    return Interval(np.sqrt(np.maximum(p.lo, 0.0)) * (1.0 - gamma(4)), np.sqrt(p.hi) * (1.0 + gamma(4)))
