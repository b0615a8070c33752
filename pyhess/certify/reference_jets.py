"""Derivatives of the loss up to the fourth over boxes of parameters, for checking certificates with few parameters.

At every point of a box the loss has a Taylor polynomial in the change of the parameters. Polynomials whose coefficients are
ranges over the box are added, multiplied and put into Taylor series, and cut off at the order asked for: what comes out holds the
coefficients at every point. Monomials that never occur take no time.

log sum_k exp f_k has, with p = softmax(f) at the point, m = sum_k p_k (f_k - value) and c_k = f_k - value - m, for which
sum_k p_k c_k = 0, the polynomial m + log(1 + w) without its value, with w = sum_k p_k (c_k²/2 + c_k³/6 + c_k⁴/24 + …), and
log(1 + w) = w - w²/2 up to the fifth order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations
from math import factorial, prod
from typing import Any, TypeAlias

import numpy as np

from .reference_hessian import Problem
from .reference_interval import Range, Wide, wide, zeros
from .reference_ranges import activations, logistic_derivative, loss_gradient, softmax

#: Coefficients (B,), or (1,) if they are the same for all boxes, of products of parameters, whose numbers are listed in order.
_Terms: TypeAlias = dict[tuple[int, ...], Range]


@dataclass(frozen=True)
class _Jet:
    """A function of the parameters: its value (B,) or (1,), and the terms of its Taylor polynomial from the first order on."""

    value: Range
    terms: _Terms


def derivatives(problem: Problem, low: Wide, high: Wide, orders: Sequence[int]) -> list[Range]:
    """Derivatives of the loss of orders from 1 to 4, each (B, P, …, P), over boxes (B, P), for smooth activations."""
    theta, order = Range(wide(low), wide(high)), max(orders)
    total: _Terms = {}
    for i in range(len(problem.x)):
        jets = [_Jet(Range(wide(problem.x[i, p : p + 1])), {}) for p in range(problem.widths[0])]
        for layer, fan_out in enumerate(problem.widths[1:]):
            if layer:
                jets = [_activated(problem, layer - 1, jet, order) for jet in jets]
            jets = [_preactivation(problem, theta, jets, layer, unit, order) for unit in range(fan_out)]
        total = _sum(total, _times(_loss(problem, jets, problem.y[i], order), problem.mass[i : i + 1]))
    return [_tensor(total, low.shape, order) for order in orders]


def _sum(a: _Terms, b: _Terms) -> _Terms:
    found = dict(a)
    for key, term in b.items():
        found[key] = found[key] + term if key in found else term
    return found


def _times(a: _Terms, factor: Range) -> _Terms:
    return {key: term * factor for key, term in a.items()}


def _product(a: _Terms, b: _Terms, order: int) -> _Terms:
    found: _Terms = {}
    for left, x in a.items():
        for right, y in b.items():
            if len(left) + len(right) <= order:
                found = _added(found, left + right, x * y)
    return found


def _square(a: _Terms, order: int) -> _Terms:
    found: _Terms = {}
    items = list(a.items())
    for i, (left, x) in enumerate(items):
        for right, y in items[i:]:
            if len(left) + len(right) <= order:
                term = x * y
                found = _added(found, left + right, x.square() if left == right else Range(2.0 * term.lo, 2.0 * term.hi))
    return found


def _added(found: _Terms, key: tuple[int, ...], term: Range) -> _Terms:
    key = tuple(sorted(key))
    found[key] = found[key] + term if key in found else term
    return found


def _composed(g: Sequence[Range], a: _Terms, order: int) -> _Terms:
    """G of a function, without its value, from g', g'', … over its values."""
    second = _square(a, order)
    powers = [a, second, _product(second, a, order), _square(second, order)][: len(g)]
    found: _Terms = {}
    for k, (derivative, power) in enumerate(zip(g, powers, strict=True), 1):
        found = _sum(found, _times(power, derivative / Range(wide(float(factorial(k))))))
    return found


def _preactivation(problem: Problem, theta: Range, jets: list[_Jet], layer: int, unit: int, order: int) -> _Jet:
    """Kappa (w . a + b)."""
    value, one = Range(zeros(1)), Range(wide(np.ones(1)))
    terms: _Terms = {}
    for p, jet in enumerate(jets):
        at = problem.weight_at[layer] + unit * len(jets) + p
        value = value + jet.value * theta[:, at]
        terms = _sum(terms, _times(jet.terms, theta[:, at]))
        slopes = {tuple(sorted((*key, at))): term for key, term in jet.terms.items() if len(key) < order}
        terms = _sum(terms, {(at,): jet.value, **slopes})
    if problem.bias:
        at = problem.bias_at[layer] + unit
        value, terms = value + theta[:, at], _sum(terms, {(at,): one})
    kappa = problem.scale[layer]
    return _Jet(value, terms) if kappa.lo == kappa.hi == 1.0 else _Jet(value * kappa, _times(terms, kappa))


def _activated(problem: Problem, layer: int, jet: _Jet, order: int) -> _Jet:
    name = problem.activations[layer]
    if name == "identity":
        return jet
    value, *slopes = activations(name, problem.betas[layer], range(order + 1), jet.value)
    return _Jet(value, _composed(slopes, jet.terms, order))


def _loss(problem: Problem, f: list[_Jet], y: Wide, order: int) -> _Terms:
    if problem.loss == "squared_error":
        found: _Terms = {}
        for k, jet in enumerate(f):
            found = _sum(found, _times(jet.terms, jet.value - Range(y[k : k + 1])))
            found = _sum(found, _times(_square(jet.terms, order), Range(wide(0.5))))
        return found
    if problem.loss == "logistic":
        value = f[0].value
        slope = loss_gradient("logistic", value[:, None], Range(y))[:, 0]
        return _composed([slope, *(logistic_derivative(k, value) for k in range(1, order))], f[0].terms, order)
    return _cross_entropy(f, y, order)


def _cross_entropy(f: list[_Jet], y: Wide, order: int) -> _Terms:
    boxes = max(len(jet.value.lo) for jet in f)
    values = [np.broadcast_arrays(jet.value.lo, jet.value.hi, np.empty(boxes))[:2] for jet in f]
    p = softmax(Range(np.stack([lo for lo, _ in values], axis=1), np.stack([hi for _, hi in values], axis=1)))
    mass = Range(y).sum(0)
    gradient = p * mass - Range(y)
    mean: _Terms = {}
    found: _Terms = {}
    for k, jet in enumerate(f):
        mean = _sum(mean, _times(jet.terms, p[:, k]))
        found = _sum(found, _times(jet.terms, gradient[:, k]))
    w: _Terms = {}
    for k, jet in enumerate(f):
        centred = _sum(jet.terms, {key: -term for key, term in mean.items()})
        none, weight = Range(zeros(1)), p[:, k]
        w = _sum(w, _composed([none, *[weight] * (order - 1)], centred, order))
    return _sum(found, _times(_sum(w, _times(_square(w, order), Range(wide(-0.5)))), mass))


def _tensor(terms: _Terms, shape: tuple[int, ...], order: int) -> Range:
    boxes, size = shape
    lo, hi = (zeros((boxes,) + (size,) * order) for _ in range(2))
    for key in combinations_with_replacement(range(size), order):
        if key in terms:
            times = prod(factorial(key.count(k)) for k in set(key))
            value = terms[key] * Range(wide(float(times)))
            for places in set(permutations(key)):
                where: Any = (slice(None), *places)
                lo[where], hi[where] = value.lo, value.hi
    return Range(lo, hi)
