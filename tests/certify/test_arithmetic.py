"""The arithmetics that certificates are checked in, against numbers of many digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import certify, prove
from pyhess.certify.reference_arithmetic import Doubles, LongDoubles, arithmetic, using
from pyhess.certify.reference_interval import Range, dot, down, exp, logistic, normal, softplus, tanh, up, wide
from pyhess.certify.reference_ranges import activation
from pyhess.certify.units import unit_bound

flint = pytest.importorskip("flint", reason="needs python-flint")


@pytest.fixture
def balls() -> Any:
    from pyhess.certify.reference_arb import in_balls

    with in_balls():
        yield


@pytest.fixture
def doubles() -> Any:
    with using(Doubles()), np.errstate(all="ignore"):
        yield


POINTS = np.concatenate([np.linspace(-8.0, 8.0, 33), [1e-9, -1e-9]])


def truth(name: str, x: float) -> Any:
    """By other formulas than those under test."""
    a = flint.arb(x)
    one = flint.arb(1)
    if name == "exp":
        return a.exp()
    if name == "tanh":
        return 1 - 2 / ((2 * a).exp() + one)
    if name == "logistic":
        return (one + (a / 2).tanh()) / 2
    if name == "softplus":
        return (one + a.exp()).log()
    return (one + (a / flint.arb(2).sqrt()).erf()) / 2


@pytest.mark.parametrize("function", [exp, tanh, logistic, softplus, normal])
@pytest.mark.parametrize("kind", ["long doubles", "doubles", "balls"])
def test_functions_contain_the_truth(function: Any, kind: str, request: pytest.FixtureRequest) -> None:
    if kind != "long doubles":
        request.getfixturevalue(kind)
    found = function(Range(wide(POINTS)))
    bits = flint.ctx.prec
    flint.ctx.prec = 400
    try:
        for place, x in enumerate(POINTS):
            value = truth(function.__name__, float(x))
            # In Arb the ends are exact; NumPy's are compared as two doubles.
            low, high = (exact(end[place]) for end in (found.lo, found.hi))
            assert low <= value <= high, (kind, function.__name__, x)
            assert float(high - low) <= (2e-13 if kind == "doubles" else 4e-15) * (1.0 + abs(float(value))), (
                kind,
                function.__name__,
                x,
            )
    finally:
        flint.ctx.prec = bits


@pytest.mark.usefixtures("doubles")
def test_doubles_are_moved_outwards() -> None:
    rng = np.random.default_rng(331)
    x, y = (rng.standard_normal(4000) * 10.0 ** rng.uniform(-170.0, 150.0, 4000) for _ in range(2))
    for near, true in ((x * y, x.astype(np.longdouble) * y), (x + y, x.astype(np.longdouble) + y)):
        for found in (Range.about(near, 0.0), Range(down(true), up(true))):
            # long doubles round, too, but a thousand times less
            assert found.lo.dtype == np.float64 and (found.lo < true).all() and (true < found.hi).all()
    ends = np.array([0.0, 5e-324, 1.7e308, -np.inf, np.inf])
    assert (up(ends)[:3] > ends[:3]).all() and (down(ends)[:3] < ends[:3]).all()
    assert down(ends)[3] == -np.inf and up(ends)[4] == np.inf
    # Constants are made in long doubles, and are not rounded to the nearest.
    third = np.longdouble(1.0) / 3
    found = Range(wide(np.ones(2))) * _third()
    assert (found.lo < third).all() and (third < found.hi).all() and (found.hi - found.lo < 1e-15).all()
    with pytest.raises(ValueError, match="no double"):
        wide(third)


def _third() -> Range:
    with using(LongDoubles()):
        return Range(wide(1.0)) / Range(wide(3.0))


def exact(end: Any) -> Any:
    if isinstance(end, np.longdouble):
        head = float(end)
        return flint.arb(head) + flint.arb(float(end - np.longdouble(head)))
    return flint.arb(float(end)) if isinstance(end, np.float64) else end.item()


@pytest.mark.usefixtures("balls")
def test_arrays_of_balls_keep_what_is_unknown() -> None:
    unknown = wide([np.nan, 1.0, -2.0])
    assert not (np.minimum(unknown, wide(0.0)) <= 0.0)[0] and np.isnan(np.maximum(unknown, wide(0.0)))[0]
    assert np.isnan(unknown.max()) and not np.isfinite(unknown).all()
    third = wide(1.0) / wide(3.0)
    assert up(third) >= third or not (third >= up(third))
    assert (dot(Range(wide([1.0, 2.0])), Range(wide([3.0, 0.5])), 0).lo <= 4.0).all()
    matrix = wide(np.arange(6.0)).reshape(2, 3)
    matrix[0, 1] = wide(7.0)
    assert float(matrix.sum(axis=0)[1]) == 11.0 and float(matrix.max()) == 7.0 and matrix[:, :0].sum(axis=1).shape == (2,)


@pytest.mark.usefixtures("balls")
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "gelu"])
def test_derivatives_up_to_the_fifth(name: str) -> None:
    places = np.linspace(-2.7, 3.1, 7)
    ends = Range(wide(places - 0.3), wide(places + 0.3))
    for order in range(5):
        # The mean value theorem: differences of one derivative lie in the range of the next.
        below, above = (activation(name, 1.3, order, Range(end)) for end in (ends.lo, ends.hi))
        slope = (above - below) / Range(wide(0.6))
        over = activation(name, 1.3, order + 1, ends)
        assert ((slope.hi >= over.lo) & (slope.lo <= over.hi)).all(), (name, order)


def test_small_certificates_are_checked_in_balls(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(311)
    obj = ph.Objective(ph.MLP([1, 2, 1], "tanh"), ph.Dataset(rng.standard_normal((3, 1)), rng.standard_normal(3)))
    box = ph.Box(-0.4, 0.4)
    claims = {method: certify(obj, box, method).psi_lower for method in ("moment", "comparison", "blocks")}
    for method, claim in claims.items():
        proof = prove(obj, box, method, claim, time_limit=600.0)
        assert proof.proved and "Arb's ball arithmetic with 128 bits" in proof.detail, proof.detail
    for region in (box.bind(obj), ph.Ball(radius=0.5).bind(obj)):
        found = unit_bound(obj, region, max_cells=4)
        assert found is not None
        proof = prove(obj, region, "units", found.psi_lower, leaves=found.cover.leaves(obj, region), time_limit=600.0)
        assert proof.proved and "Arb's ball arithmetic with 128 bits" in proof.detail, proof.detail
    monkeypatch.setattr("pyhess.certify.schedule._WORK", 1.5e5)
    monkeypatch.setattr("pyhess.certify.schedule._FEWEST", 4)
    deep, ball = ph.Objective(ph.MLP([1, 1, 1, 1], "tanh"), obj.data), ph.Ball(radius=0.6)
    cells = certify(deep, ball, "cells")
    proof = prove(deep, ball, "cells", cells.psi_lower, cells.table["cells"].cover, time_limit=600.0)
    assert proof.proved and "Arb's ball arithmetic with 128 bits" in proof.detail, proof.detail
    labels = ph.Objective(ph.MLP([1, 2, 1], "identity"), ph.Dataset(obj.data.X, [0, 1, 1]), loss="logistic")
    proof = prove(labels, ph.Ball(radius=0.5), "exact", certify(labels, ph.Ball(radius=0.5), "exact").psi_lower, time_limit=600.0)
    assert proof.proved and "Arb's ball arithmetic with 128 bits" in proof.detail, proof.detail
    assert "floating-point" in arithmetic().name
    monkeypatch.setattr("pyhess.certify.reference_plan.find_spec", lambda _name: None)
    for method, claim in claims.items():
        proof = prove(obj, box, method, claim)
        assert proof.proved and "bit floating-point numbers" in proof.detail, proof.detail
