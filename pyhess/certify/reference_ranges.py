"""Ranges of activations and of losses' derivatives for checking certificates, from polynomials in tanh or the logistic function.

With t = tanh s:      phi' = 1 - t²,   phi'' = -2t(1 - t²),         phi''' = (1 - t²)(6t² - 2);
with p = logistic s:  phi' = p(1 - p), phi'' = p(1 - p)(1 - 2p),    phi''' = p(1 - p)(1 - 6p(1 - p)),

phi'''' = 8t(1 - t²)(2 - 3t²) and p(1 - p)(1 - 2p)(1 - 12p(1 - p)), phi''''' = (1 - t²)(16 - 120t²(1 - t²)) and
q(1 - 30q(1 - 4q)) for q = p(1 - p), phi = -16t(1 - t²)(17 - 15t²(4 - 3t²)) and q(1 - 2p)(1 - 60q(1 - 6q)), and a softplus's
derivatives are those of p a step higher. The range of a polynomial is spanned by the two ends and the critical points in between.
GELU's derivatives are Phi + s pdf, pdf (2 - s²), pdf s (s² - 4), pdf (7s² - s⁴ - 4), pdf s (s⁴ - 11s² + 18) and
pdf (18 - 51s² + 16s⁴ - s⁶), with critical points in s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from .reference_arithmetic import arithmetic
from .reference_interval import Range, Wide, down, exp, length, logistic, normal, normal_density, softplus, tanh, up, wide

Function = Callable[[Range], Range]

_ONE, _TWO, _THREE, _FOUR, _SIX, _SEVEN, _EIGHT, _ELEVEN, _TWELVE = (Range(wide(float(k))) for k in (1, 2, 3, 4, 6, 7, 8, 11, 12))
_FIFTEEN, _SIXTEEN, _SEVENTEEN, _EIGHTEEN = (Range(wide(float(k))) for k in (15, 16, 17, 18))
_THIRTY, _FIFTY_ONE, _SIXTY, _HUNDRED_TWENTY = (Range(wide(float(k))) for k in (30, 51, 60, 120))
#: Critical points are known to more digits than this.
_NEAR = 1e-15


def activation(name: str, beta: float, order: int, s: Range) -> Range:
    """Phi (order 0) or its derivative of an order up to 6 over s; a ReLU's slope at the kink is anything in [0, 1]."""
    if name == "identity":
        return s if order == 0 else _constant(s, 1.0 if order == 1 else 0.0)
    if name == "relu":
        if order == 0:
            return Range(np.maximum(s.lo, 0.0), np.maximum(s.hi, 0.0))
        slope = Range(np.where(s.lo > 0.0, 1.0, 0.0), np.where(s.hi < 0.0, 0.0, 1.0))
        return slope if order == 1 else _constant(s, 0.0)
    return activations(name, beta, (order,), s)[0]


def activations(name: str, beta: float, orders: Sequence[int], s: Range) -> list[Range]:
    """Several derivatives of a smooth activation at once."""
    if name == "identity":
        return [activation(name, beta, order, s) for order in orders]
    if name == "gelu":
        return [_span(_GELU[order][0], s, _GELU[order][1]) for order in orders]
    if name == "tanh":
        t = tanh(s)
        return [t if order == 0 else _span(_TANH[order][0], t, _TANH[order][1]) for order in orders]
    if name == "sigmoid":
        p = logistic(s)
        return [_logistic_of(p, order) for order in orders]
    sharp = Range(wide(beta))
    z = s * sharp
    p = logistic(z)
    found = []
    for order in orders:
        value = softplus(z) / sharp if order == 0 else _logistic_of(p, order - 1)
        for _ in range(order - 1):
            value = value * sharp
        found.append(value)
    return found


def logistic_derivative(order: int, s: Range) -> Range:
    """The logistic function or its derivative of an order up to 6 over s."""
    return _logistic_of(logistic(s), order)


def _logistic_of(p: Range, order: int) -> Range:
    return p if order == 0 else _span(_LOGISTIC[order][0], p, _LOGISTIC[order][1])


def softmax(f: Range) -> Range:
    """Exp f_k / sum exp f_j over outputs (…, K), decreasing in every difference f_j - f_k."""
    outputs = f.lo.shape[-1]
    low, high = np.empty_like(f.lo), np.empty_like(f.hi)
    for k in range(outputs):
        total = Range(np.ones(f.lo.shape[:-1]))
        for j in range(outputs):
            if j != k:
                total = total + exp(f[..., j] - f[..., k])
        # The largest numbers may be infinite.
        low[..., k] = np.where(np.isinf(total.hi), 0.0, down(1.0 / total.hi))
        high[..., k] = up(1.0 / total.lo)
    return Range(np.maximum(low, 0.0), np.minimum(high, 1.0))


def loss_gradient(loss: str, f: Range, y: Range) -> Range:
    """dl/df over outputs f (…, K) for targets y."""
    if loss == "squared_error":
        return f - y
    if loss == "logistic":
        return logistic(f) - y
    mass = y.sum(-1)
    return softmax(f) * mass[..., None] - y


def gradient_norm(loss: str, r: Range, s_norm: Wide, y: Wide) -> Wide:
    """|dl/df| from its range r (n, K) and the norm of the outputs."""
    norm = length(r.size())
    if loss == "squared_error":
        return np.minimum(norm, up(s_norm + length(np.abs(y))))
    if loss == "logistic":
        return norm
    # For labels |p - e_y| <= sqrt 2 (1 - p_y), as the other entries sum to 1 - p_y.
    own = (r.size() * y).sum(axis=1)  # one term, exactly
    labels = ((y == 1.0) | (y == 0.0)).all(axis=1) & (y.sum(axis=1) == 1.0)
    return np.where(labels, np.minimum(norm, up(Range(wide(2.0)).root().hi * own)), norm)


def _constant(s: Range, value: float) -> Range:
    # No knowledge of s is none of phi'(s) either, though the constant would hold.
    return Range(np.where(np.isnan(s.lo), np.nan, value), np.where(np.isnan(s.hi), np.nan, value))


def _span(function: Function, x: Range, places: Sequence[float]) -> Range:
    found = function(Range(x.lo)).hull(function(Range(x.hi)))
    for place in places:
        point, value = _at_place(function, place, type(arithmetic()).__name__)
        inside = (x.lo <= point.hi) & (x.hi >= point.lo)
        if inside.any():
            found = found.hull(value, inside)
    return found


@cache
def _at_place(function: Function, place: float, _arithmetic: str) -> tuple[Range, Range]:
    """A critical point and the value there, in the arithmetic in use: as much work as an end of a range, but always the same."""
    point = Range.about(place, _NEAR)
    return point, function(point)


def _tanh_slope(t: Range) -> Range:
    return _ONE - t.square()


def _logistic_slope(p: Range) -> Range:
    return p * (_ONE - p)


_THIRD = 0.57735026918962576451  # 1/sqrt 3
_FOURTH = (0.39803891044618997257, 0.91736853310546611541)
_FIFTH = (0.63911483860062703209, 0.96169930665142303218)
_SIXTH = (0.30269360559913155051, 0.78165050763017089749, 0.98186849031891879143)
_TANH: dict[int, tuple[Function, tuple[float, ...]]] = {
    1: (_tanh_slope, (0.0,)),
    2: (lambda t: -(_TWO * t * _tanh_slope(t)), (-_THIRD, _THIRD)),
    3: (lambda t: _tanh_slope(t) * (_SIX * t.square() - _TWO), (0.0, -0.81649658092772603273, 0.81649658092772603273)),
    # 15 t⁴ - 15 t² + 2 = 0.
    4: (
        lambda t: _EIGHT * t * _tanh_slope(t) * (_TWO - _THREE * t.square()),
        tuple(sign * root for sign in (-1.0, 1.0) for root in _FOURTH),
    ),
    # 45 t⁴ - 60 t² + 17 = 0.
    5: (
        lambda t: _tanh_slope(t) * (_SIXTEEN - _HUNDRED_TWENTY * t.square() * _tanh_slope(t)),
        (0.0, *(sign * root for sign in (-1.0, 1.0) for root in _FIFTH)),
    ),
    # 315 t⁶ - 525 t⁴ + 231 t² - 17 = 0.
    6: (
        lambda t: -(_SIXTEEN * t * _tanh_slope(t) * (_SEVENTEEN - _FIFTEEN * t.square() * (_FOUR - _THREE * t.square()))),
        tuple(sign * root for sign in (-1.0, 1.0) for root in _SIXTH),
    ),
}
_LOGISTIC: dict[int, tuple[Function, tuple[float, ...]]] = {
    1: (_logistic_slope, (0.5,)),
    2: (lambda p: _logistic_slope(p) * (_ONE - _TWO * p), (0.5 - 0.5 * _THIRD, 0.5 + 0.5 * _THIRD)),
    3: (
        lambda p: _logistic_slope(p) * (_ONE - _SIX * _logistic_slope(p)),
        (0.5, 0.5 - 0.40824829046386301637, 0.5 + 0.40824829046386301637),
    ),
    4: (
        lambda p: _logistic_slope(p) * (_ONE - _TWO * p) * (_ONE - _TWELVE * _logistic_slope(p)),
        tuple(0.5 + 0.5 * sign * root for sign in (-1.0, 1.0) for root in _FOURTH),
    ),
    5: (
        lambda p: _logistic_slope(p) * (_ONE - _THIRTY * _logistic_slope(p) * (_ONE - _FOUR * _logistic_slope(p))),
        (0.5, *(0.5 + 0.5 * sign * root for sign in (-1.0, 1.0) for root in _FIFTH)),
    ),
    6: (
        lambda p: (
            _logistic_slope(p) * (_ONE - _TWO * p) * (_ONE - _SIXTY * _logistic_slope(p) * (_ONE - _SIX * _logistic_slope(p)))
        ),
        tuple(0.5 + 0.5 * sign * root for sign in (-1.0, 1.0) for root in _SIXTH),
    ),
}
_ROOT2 = 1.41421356237309504880
_GELU_FIFTH = (0.63441647503971773843, 1.94588780455708413804, 3.43671884044566414447)
_GELU_SIXTH = (1.17877341580507930880, 2.41897187424671261888, 3.84175328538866117983)
_GELU: dict[int, tuple[Function, tuple[float, ...]]] = {
    0: (lambda s: s * normal(s), (-0.75179152469356445746,)),
    1: (lambda s: normal(s) + s * normal_density(s), (-_ROOT2, _ROOT2)),
    2: (lambda s: normal_density(s) * (_TWO - s.square()), (-2.0, 0.0, 2.0)),
    # s⁴ - 7 s² + 4 = 0.
    3: (
        lambda s: normal_density(s) * s * (s.square() - _FOUR),
        tuple(sign * root for sign in (-1.0, 1.0) for root in (0.79228699139326127774, 2.52433779896213857132)),
    ),
    4: (
        lambda s: normal_density(s) * (_SEVEN * s.square() - s.square().square() - _FOUR),
        (0.0, -_ROOT2, _ROOT2, -3.0, 3.0),
    ),
    # s⁶ - 16 s⁴ + 51 s² - 18 = 0.
    5: (
        lambda s: normal_density(s) * s * (s.square().square() - _ELEVEN * s.square() + _EIGHTEEN),
        tuple(sign * root for sign in (-1.0, 1.0) for root in _GELU_FIFTH),
    ),
    # s⁶ - 22 s⁴ + 115 s² - 120 = 0, or s = 0.
    6: (
        lambda s: normal_density(s) * (_EIGHTEEN - _FIFTY_ONE * s.square() + s.square().square() * (_SIXTEEN - s.square())),
        (0.0, *(sign * root for sign in (-1.0, 1.0) for root in _GELU_SIXTH)),
    ),
}
