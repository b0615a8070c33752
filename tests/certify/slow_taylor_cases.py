"""Problems for the independent check of the Taylor bound, and its polynomials written out."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify.reference_changes import Changes
from pyhess.certify.reference_cubic import Poly, weighted
from pyhess.certify.reference_cubic_hessian import Form, cubic_hessian
from pyhess.certify.reference_cubic_ways import Way, ways
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_ranges import activation, activations
from pyhess.certify.reference_triples import triples

Array = Any
Case = tuple[list[int], list[str], str, str, bool]

CASES: list[Case] = [
    ([2, 2, 1], ["tanh"], "squared_error", "standard", True),
    ([1, 2, 2], ["sigmoid"], "squared_error", "ntk", True),
    ([2, 2, 1], ["softplus"], "logistic", "standard", True),
    ([1, 2, 2, 1], ["gelu", "softplus"], "squared_error", "ntk", True),
    ([2, 1, 2, 1], ["sigmoid", "tanh"], "logistic", "ntk", False),
    ([2, 3, 2], ["gelu"], "squared_error", "standard", False),
    ([2, 1, 3], ["tanh"], "cross_entropy", "standard", True),
    ([1, 2, 1, 2], ["gelu", "sigmoid"], "cross_entropy", "ntk", False),
]


def problem(case: Case) -> ph.Objective:
    widths, names, loss, parametrization, bias = case
    rng = np.random.default_rng(2011)
    y: Array = rng.integers(0, 2, 3) if loss == "logistic" else rng.standard_normal((3, widths[-1]))
    if loss == "cross_entropy":
        y = rng.dirichlet(np.ones(2), 3) if widths[-1] == 2 else np.array([2, 0, 1])
    data = ph.Dataset(rng.standard_normal((3, widths[0])), y, rng.uniform(0.5, 2.0, 3))
    return ph.Objective(ph.MLP(widths, names, beta=1.7, bias=bias, parametrization=parametrization), data, loss=loss)


def only(monkeypatch: pytest.MonkeyPatch, name: str, **chosen: bool) -> None:
    """The polynomials are made in that way alone."""

    def fits(way: Way) -> bool:
        return _name(way.proves) == name and chosen.items() <= getattr(way.proves, "keywords", {}).items()

    monkeypatch.setattr(
        "pyhess.certify.reference_cubic_proof.ways",
        lambda *given: [way for way in ways(*given) if fits(way)],
    )


def _name(function: Any) -> str:
    return str(getattr(function, "func", function).__name__)


def nothing_lowered(obj: ph.Objective) -> Array:
    return np.zeros((obj.data.num_samples, sum(obj.net.widths[1:-1])))


def forms(
    obj: ph.Objective,
    centre: Array,
    radius: float | Changes,
    lowered: Array | None = None,
    kept: Array | None = None,
    order: int = 3,
) -> tuple[Form, Form]:
    numbers = wide(nothing_lowered(obj) if lowered is None else lowered)
    parts = wide(np.ones(obj.data.num_samples) if kept is None else kept)
    changes = radius if isinstance(radius, Changes) else Changes.ball(radius)
    found = cubic_hessian(Problem.of(obj), wide(centre), changes, numbers, parts, order, np.inf)
    assert found is not None
    return found


def symmetric(x: Array) -> Array:
    return 0.5 * (x + x.T)


def tensor(form: Form) -> Array:
    """T, with all five indices."""
    return form.third[triples(len(form.head)).place]


def cubic(form: Form, delta: Array) -> Array:
    return np.einsum("k,l,m,klmab->ab", delta, delta, delta, tensor(form), optimize=True)


def polynomial(form: Form, delta: Array) -> Array:
    linear = 2.0 * np.tensordot(delta, form.half, (0, 0))
    found = symmetric(form.head + linear + np.einsum("k,kalb,l->ab", delta, form.tail, delta)).astype(np.float64)
    return found if len(form.third) == 0 else found + cubic(form, delta)


def kept_squares(squares: Form, delta: Array, eta: float, order: int) -> Array:
    """What counts of the squares: 1 - eta, but 1 - 2 eta of the tail in the second order."""
    found = (1.0 - eta) * polynomial(squares, delta)
    if order == 2:
        found -= eta * symmetric(np.einsum("k,kalb,l->ab", delta, squares.tail, delta)).astype(np.float64)
    return found


def of_order(order: int, value: Array, first: Array, second: Array, third: Array, rest: Array, changes: Changes) -> Poly:
    """Polynomials in the numbers that those of an order are of; the second order has no third."""
    numbers = (wide(x) for x in (value, first))
    kind = np.float64 if order == 2 else np.longdouble
    return Poly(*numbers, np.asarray(second, dtype=kind), third if order == 3 else third[:0], wide(rest), changes)


class Operations:
    """What is made of two pairs of random forms in three parameters, and how much of its rests is needed."""

    def __init__(self, rng: np.random.Generator, changes: Changes, name: str, order: int = 3) -> None:
        self._name, self._m, self._places = name, rng.standard_normal((2, 2)), np.array([[0, 2], [1, 0]])
        self._p, self._q = (_several(rng, changes, order) for _ in range(2))
        p, q = self._p, self._q
        composed = p.composed(partial(activations, name, 1.7), 1)
        self.found = [p * q, composed, weighted(wide(self._m), self._places, p), p.sum(1), p - q]
        self.largest = np.zeros(5)

    def check(self, delta: Array) -> None:
        """No form is off by more than its rest."""
        x, y = _value(self._p, delta), _value(self._q, delta)
        slope = activation(self._name, 1.7, 1, Range(wide(x))).lo
        moved = np.einsum("jk,nk->nj", self._m + delta[self._places], x)
        for at, (form, expected) in enumerate(zip(self.found, [x * y, slope, moved, x.sum(axis=1), x - y], strict=True)):
            off = np.abs((_value(form, delta) - expected).astype(np.float64))
            assert (off <= form.rest + 1e-15).all(), at
            self.largest[at] = max(self.largest[at], float((off / (form.rest + 1e-15)).max()))


def _several(rng: np.random.Generator, changes: Changes, order: int) -> Poly:
    """Two functions of three parameters, with no rest."""
    second, cubes = rng.standard_normal((1, 2, 3, 3)), rng.standard_normal((10, 1, 2))
    parts = rng.standard_normal((1, 2)), rng.standard_normal((1, 2, 3)), second + second.swapaxes(2, 3)
    return of_order(order, *parts, cubes, np.zeros((1, 2)), changes)


def _value(p: Poly, delta: Array) -> Array:
    found = p.value + p.first @ delta + 0.5 * p.second @ delta @ delta
    if p.order == 3:
        at = triples(len(delta))
        found += np.tensordot(at.copies * delta[at.k] * delta[at.l] * delta[at.m], p.third, (0, 0)) / 6.0
    return found.astype(np.float64)
