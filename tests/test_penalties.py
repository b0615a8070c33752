"""Penalties: values, gradients, curvatures, the strengths they derive from a direction, and what they refuse."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyhess as ph
from pyhess.errors import InputError, InputTypeError
from pyhess.penalties import Penalty

NET = ph.MLP([2, 3, 2])  # P = 17
BIASES = [6, 7, 8, 15, 16]


def penalties() -> list[Penalty]:
    rng = np.random.default_rng(3)
    return [
        ph.L2(),
        ph.L2(penalize="weights").bind(NET),
        ph.ShiftedL2(rng.standard_normal(17)),
        ph.WeightedL2(rng.uniform(0.1, 3.0, 17)),
        ph.GeometricL2(),
    ]


@pytest.mark.parametrize("penalty", penalties(), ids=repr)
@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0, 1.7])
def test_gradient_and_curvature_are_derivatives_of_the_value(penalty: Penalty, lam: float) -> None:
    rng = np.random.default_rng(5)
    theta, h = rng.standard_normal(17), 0.1  # exact for quadratics, whatever h
    gradient, curvature = penalty.gradient(theta, lam), penalty.curvature(lam, NET)
    for i in range(17):
        e = h * np.eye(17)[i]
        ahead, here, behind = (penalty.value(theta + s * e, lam) for s in (1.0, 0.0, -1.0))
        scale = 1.0 + curvature[i]
        assert (ahead - behind) / (2 * h) == pytest.approx(gradient[i], rel=1e-5, abs=1e-5 * scale)
        assert (ahead - 2 * here + behind) / h**2 == pytest.approx(curvature[i], rel=1e-3, abs=1e-3 * scale)


@pytest.mark.parametrize("penalty", penalties(), ids=repr)
def test_bend_is_half_the_second_difference(penalty: Penalty) -> None:
    rng = np.random.default_rng(7)
    m, d = rng.standard_normal((2, 17))
    bound = penalty.bind(NET)
    for lam in (0.0, 0.4, 1.3):
        direct = 0.5 * (penalty.value(m - d, lam) + penalty.value(m + d, lam)) - penalty.value(m, lam)
        value, error = bound.bend(d, lam)
        assert value == pytest.approx(direct, rel=1e-10, abs=1e-12)
        assert 0.0 <= error <= 1e-11 * value + 1e-300


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 4), st.integers(2, 10**6), st.floats(-6.0, 3.0))
def test_strength_is_the_root(which: int, seed: int, exponent: float) -> None:
    """At that strength the quotient and the penalty's curvature cancel; rounding leaves it on the lower side."""
    penalty = penalties()[which].bind(NET)
    rng = np.random.default_rng(seed)
    v, rho = rng.standard_normal(17) * 10.0 ** rng.uniform(-2, 2, 17), -(10.0**exponent)
    lam = penalty.strength(rho, v)
    total = rho * math.fsum(v * v) + math.fsum(penalty.curvature(lam, NET) * v * v)
    assert 0.0 < lam < math.inf
    assert abs(total) <= 1e-9 * abs(rho) * float(v @ v)
    assert total <= 1e-15 * abs(rho) * float(v @ v)
    assert penalty.strength(rho, 1e-3 * v) == pytest.approx(lam, rel=1e-11)
    assert penalty.strength(0.0, v) == penalty.strength(2.0, v) == 0.0


def test_strength_written_out() -> None:
    assert ph.L2().strength(-3.0, np.ones(4)) == 1.5
    assert ph.ShiftedL2(2.0).strength(-3.0, np.ones(4)) == 1.5
    assert ph.WeightedL2([1.0, 3.0]).strength(-3.0, np.array([1.0, 1.0])) == pytest.approx(0.75, rel=1e-14)
    # H = -h e_k e_k': (h/2)^(1/k).
    for k, h in ((1, 0.5), (3, 10.0), (7, 1e-3)):
        assert ph.GeometricL2().strength(-h, np.eye(9)[k - 1]) == pytest.approx((h / 2) ** (1 / k), rel=1e-13)
    # 2 (lam + lam²)/2 = 6 at lam = 2
    assert ph.GeometricL2().strength(-6.0, np.ones(2)) == pytest.approx(2.0, rel=1e-13)


def test_biases_left_out() -> None:
    penalty = ph.L2(penalize="weights").bind(NET)
    v = np.zeros(17)
    v[BIASES] = 1.0
    assert penalty.strength(-1e-9, v) == math.inf
    assert penalty.strength(1e-9, v) == 0.0
    v[0] = 1e-3
    assert penalty.strength(-1.0, v) == pytest.approx(0.5 * (5 + 1e-6) / 1e-6, rel=1e-12)
    v[0] = 1e-200  # its square is zero in floating point, but the penalty does see it
    assert penalty.strength(-1.0, v) == 0.0
    assert penalty.leaves_out(17).nonzero()[0].tolist() == BIASES
    assert penalty.sufficient(1.0) == math.inf and penalty.sufficient(0.0) == 0.0
    assert ph.L2(penalize="weights").bind(ph.MLP([2, 3, 1], bias=False)).sufficient(3.0) == 1.5


@pytest.mark.parametrize("h", [1e-6, 0.3, 2.0, 57.0])
@pytest.mark.parametrize("penalty", [p for p in penalties() if p != ph.L2(penalize="weights").bind(NET)], ids=repr)
def test_sufficient_strengths_are_enough_and_not_more(penalty: Penalty, h: float) -> None:
    bound = penalty.bind(NET)
    lam = bound.sufficient(h)
    assert (bound.curvature(lam, NET) >= h).all()
    assert (bound.curvature(lam * (1.0 - 1e-9), NET) < h).any()
    assert bound.sufficient(0.0) == bound.sufficient(-1.0) == 0.0
    assert bound.sufficient(math.inf) == math.inf


def test_geometric_weights_never_overflow() -> None:
    """P = 800 and lam = 3: 3^800 is beyond the range of numbers, its logarithm is not."""
    size, penalty = 800, ph.GeometricL2().bind(800)
    rng = np.random.default_rng(11)
    i = np.arange(1, size + 1)
    # A direction with equal shares of all powers: sum 2 lam^i v_i² = 2 P lam^P with v_i² = lam^(P - i).
    v = np.exp(-0.5 * math.log(3.0) * i)
    logs = -math.log(3.0) * i
    norm = float(np.logaddexp.reduce(logs))
    rho = -math.exp(math.log(2.0 * size) - norm)
    with np.errstate(all="raise", under="ignore"):
        assert penalty.strength(rho, v) == pytest.approx(3.0, rel=1e-11)
        assert penalty.strength(-6.0, np.eye(size)[0]) == pytest.approx(3.0, rel=1e-11)
        assert penalty.strength(-6.0, np.eye(size)[-1]) == pytest.approx(3.0 ** (1 / size), rel=1e-12)
        assert penalty.strength(-1e300, rng.standard_normal(size)) < 3.0
        assert penalty.bend(v, 3.0)[0] == pytest.approx(size, rel=1e-11)
        scale = penalty.scale(3.0, size)
        assert scale is not None and np.isfinite(scale).all() and scale.max() == 1.0
        flat = penalty.scale(1e-3, size)
        assert flat is not None and np.isfinite(flat).all() and flat.max() == 1.0 and flat[-1] == 1.0
    assert penalty.sufficient(1e30) == pytest.approx(5e29, rel=1e-9)
    assert penalty.sufficient(1e-30) == pytest.approx((5e-31) ** (1 / size), rel=1e-9)


def test_scales_turn_the_penalty_into_a_plain_one() -> None:
    rng = np.random.default_rng(13)
    u = rng.standard_normal((4, 17))
    for penalty in (ph.WeightedL2(rng.uniform(0.1, 3.0, 17)), ph.GeometricL2().bind(17)):
        for lam in (0.4, 1.0, 2.5):
            scale = penalty.scale(lam, 17)
            assert scale is not None
            ratio = (penalty.curvature(lam) * (scale * u) ** 2).sum(axis=1) / (u**2).sum(axis=1)
            np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)
    assert ph.L2().scale(0.4, 17) is None and ph.ShiftedL2(1.0).scale(0.4, 17) is None


def test_symmetry() -> None:
    shift = np.zeros(17)
    shift[15:] = 3.0  # the output biases belong to no hidden unit
    for penalty, permutation, sign in (
        (ph.L2(), True, True),
        (ph.L2(penalize="weights"), True, True),
        (ph.ShiftedL2(0.0), True, True),
        (ph.ShiftedL2(0.5), True, False),
        (ph.ShiftedL2(shift), True, True),
        (ph.ShiftedL2(np.arange(17.0)), False, False),
        (ph.WeightedL2(2.0), True, True),
        (ph.WeightedL2(np.arange(1.0, 18.0)), False, True),
        (ph.GeometricL2(), False, True),
    ):
        assert penalty.is_permutation_symmetric(NET) is permutation, penalty
        assert penalty.is_sign_symmetric(NET) is sign, penalty


@pytest.mark.parametrize("penalty", [*penalties(), ph.L2(penalize="weights"), ph.ShiftedL2(0.5), ph.WeightedL2(2.0)], ids=repr)
def test_penalties_are_values(penalty: Penalty) -> None:
    for other in (pickle.loads(pickle.dumps(penalty)), copy.copy(penalty), copy.deepcopy(penalty)):
        assert other == penalty and hash(other) == hash(penalty) and repr(other) == repr(penalty)
    content = json.loads(json.dumps(penalty.to_dict(), allow_nan=False))
    assert content["kind"] == penalty.kind
    with pytest.raises(AttributeError, match="immutable"):
        penalty.kind = "x"
    assert penalty != "x"
    assert sum(penalty == other for other in [*penalties(), ph.WeightedL2(1.0)]) <= 1


def test_reprs_and_dictionaries() -> None:
    assert repr(ph.L2()) == "L2()" and repr(ph.L2("weights")) == "L2(penalize='weights')"
    assert repr(ph.WeightedL2([1.0, 4.0])) == "WeightedL2(1 to 4, P=2)"
    assert repr(ph.ShiftedL2(0.5)) == "ShiftedL2(0.5)" and repr(ph.ShiftedL2([0.5, 0.5])) == "ShiftedL2(0.5, P=2)"
    assert ph.WeightedL2([1.0, 4.0]).to_dict() == {"kind": "weighted_l2", "w": [1.0, 4.0]}
    assert ph.L2("weights").to_dict() == {"kind": "l2", "penalize": "weights"}


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: ph.L2("biases"), InputError, "penalize='biases' is not known; allowed: all, weights"),
        (lambda: ph.L2(penalize=3), InputTypeError, "penalize is 3"),
        (lambda: ph.WeightedL2(0.0), InputError, "w is 0.0; allowed are weights > 0.*penalize='weights'"),
        (lambda: ph.WeightedL2([1.0, -2.0]), InputError, r"w\[1\] is -2.0; allowed are weights > 0"),
        (lambda: ph.WeightedL2([1.0, math.nan]), InputError, r"w\[1\] is nan"),
        (lambda: ph.WeightedL2([1.0, 1e-310]), InputError, r"1/w\[1\] is inf"),
        (lambda: ph.WeightedL2(np.ones((2, 2))), InputError, r"w has shape \(2, 2\)"),
        (lambda: ph.WeightedL2("x"), InputTypeError, "w has dtype"),
        (lambda: ph.ShiftedL2(math.inf), InputError, "eps is inf"),
        (lambda: ph.ShiftedL2([1j]), InputTypeError, "eps has dtype complex128"),
        (lambda: ph.WeightedL2([1.0, 2.0]).bind(NET), InputError, "has 2 coordinates but 17 parameters"),
        (lambda: ph.ShiftedL2([1.0, 2.0]).value(np.zeros(3), 1.0), InputError, "2 coordinates but 3"),
        (lambda: ph.L2("weights").bind(17), InputTypeError, "which know which of them are biases"),
        (lambda: ph.L2("weights").value(np.zeros(17), 1.0), InputTypeError, "Bind it first"),
        (lambda: ph.L2("weights").strength(-1.0, np.ones(17)), InputError, "bind it first"),
        (lambda: ph.L2().curvature(1.0), InputError, "does not know the number of parameters"),
        (lambda: ph.L2().curvature(-1.0, 3), InputError, "lam is -1.0; a penalty strength must be finite and >= 0"),
        (lambda: ph.L2().value(np.zeros(3), math.inf), InputError, "lam is inf"),
        (lambda: ph.L2().value(np.zeros(3), "x"), InputTypeError, "lam is 'x'"),
        (lambda: ph.L2().value(np.zeros((3, 1)), 1.0), InputError, r"theta has shape \(3, 1\)"),
        (lambda: ph.L2().gradient([1.0, math.nan], 1.0), InputError, r"theta\[1\] is nan"),
        (lambda: ph.L2().bind("x"), InputTypeError, "net is 'x'"),
    ],
)
def test_bad_input(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()
