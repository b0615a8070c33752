"""The objective as users meet it: small cases by hand, weights, targets, dtypes, copies, errors."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

import pyhess as ph


def problem(loss: str = "squared_error", *, dtype: str = "float64", n: int = 12, outputs: int = 3) -> ph.Objective:
    rng = np.random.default_rng(101)
    outputs = 1 if loss == "logistic" else outputs
    y: Any = {
        "squared_error": rng.standard_normal((n, outputs)),
        "cross_entropy": rng.integers(0, outputs, n),
        "logistic": rng.integers(0, 2, n),
    }[loss]
    net = ph.MLP([3, 4, 5, outputs], ["tanh", "softplus"])
    return ph.Objective(net, ph.Dataset(rng.standard_normal((n, 3)), y), loss, dtype)


def point(obj: ph.Objective, seed: int = 103) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(obj.num_params), rng.standard_normal(obj.num_params)


# ---- by hand -----------------------------------------------------------------------------------------------------------


def test_a_product_of_two_weights() -> None:
    """1/2 (u w x - y)² for f = u w x: every derivative fits on a line."""
    x, y, w, u = 1.5, 0.4, 0.7, -1.2
    obj = ph.Objective(ph.MLP([1, 1, 1], "identity", bias=False), ph.Dataset([[x]], [y]))
    theta, r = np.array([w, u]), u * w * x - y
    assert obj.value(theta) == pytest.approx(0.5 * r * r, rel=1e-15)
    assert obj.gradient(theta) == pytest.approx([r * u * x, r * w * x], rel=1e-15)
    hessian = np.array([[u * u * x * x, u * w * x * x + r * x], [u * w * x * x + r * x, w * w * x * x]])
    assert obj.hessian(theta).to_dense() == pytest.approx(hessian, rel=1e-15)
    gauss_newton = x * x * np.array([[u * u, u * w], [u * w, w * w]])
    assert obj.gauss_newton(theta).to_dense() == pytest.approx(gauss_newton, rel=1e-15)
    a, b = 0.3, 0.8
    jet = obj.curvature(theta, np.array([a, b]))
    assert jet.q == pytest.approx(np.array([a, b]) @ hessian @ np.array([a, b]), rel=1e-14)
    # q = x²(a²u² + 4ab uw + b²w²) - 2ab xy
    assert jet.grad == pytest.approx(
        [x * x * (4 * a * b * u + 2 * b * b * w), x * x * (2 * a * a * u + 4 * a * b * w)], rel=1e-14
    )


def test_a_uniform_softmax() -> None:
    """At theta = 0 all classes have probability 1/K: L = log K, and A = diag(p) - p p'."""
    obj = ph.Objective(ph.MLP([2, 4]), ph.Dataset([[1.0, 2.0]], [3]), "cross_entropy")
    theta = np.zeros(12)
    assert obj.value(theta) == pytest.approx(math.log(4.0), rel=1e-15)
    g, a = np.full(4, 0.25) - np.eye(4)[3], np.eye(4) / 4 - np.full((4, 4), 1 / 16)
    x = np.array([1.0, 2.0])
    assert obj.gradient(theta) == pytest.approx(np.concatenate([np.outer(g, x).ravel(), g]), rel=1e-15)
    dense = obj.hessian(theta).to_dense()
    assert dense[:8, :8] == pytest.approx(np.kron(a, np.outer(x, x)), rel=1e-14)
    assert dense[8:, 8:] == pytest.approx(a, rel=1e-14)


def test_relu_counts_as_flat_at_its_kink() -> None:
    obj = ph.Objective(ph.MLP([1, 1, 1], "relu", bias=False), ph.Dataset([[1.0]], [1.0]))
    assert obj.gradient(np.array([0.0, 2.0])).tolist() == [0.0, 0.0]
    assert obj.hessian(np.array([0.0, 2.0])).to_dense().tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert obj.gradient(np.array([1e-30, 2.0])) == pytest.approx([-2.0, -1e-30])


# ---- data, targets, weights --------------------------------------------------------------------------------------------


def products(obj: ph.Objective, theta: Any, v: Any) -> list[Any]:
    jet = obj.curvature(theta, v)
    return [obj.value(theta), obj.gradient(theta), obj.hvp(theta, v), obj.ggn_vp(theta, v), jet.q, jet.hv, jet.grad]


def same(one: list[Any], two: list[Any], tolerance: float = 1e-13) -> bool:
    pairs = zip(one, two, strict=True)
    return all(np.linalg.norm(np.asarray(a) - b) <= tolerance * np.linalg.norm(b) for a, b in pairs)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy", "logistic"])
def test_weights_count_repetitions(loss: str) -> None:
    obj = problem(loss)
    theta, v = point(obj)
    times = np.array([1, 3, 2, 1, 1, 2, 4, 1, 1, 1, 2, 1])
    weighted = ph.Objective(obj.net, ph.Dataset(obj.data.X, obj.data.y, times), loss)
    repeated = ph.Dataset(np.repeat(obj.data.X, times, axis=0), np.repeat(obj.data.y, times, axis=0))
    assert same(products(weighted, theta, v), products(ph.Objective(obj.net, repeated, loss), theta, v))
    scaled = ph.Objective(obj.net, ph.Dataset(obj.data.X, obj.data.y, 1e200 * times), loss)
    assert same(products(scaled, theta, v), products(weighted, theta, v))


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy", "logistic"])
def test_weight_zero_leaves_a_datum_out(loss: str) -> None:
    obj = problem(loss)
    theta, v = point(obj)
    keep = np.arange(12) % 3 > 0
    weighted = ph.Objective(obj.net, ph.Dataset(obj.data.X, obj.data.y, keep.astype(float)), loss)
    fewer = ph.Objective(obj.net, ph.Dataset(obj.data.X[keep], obj.data.y[keep]), loss)
    assert same(products(weighted, theta, v), products(fewer, theta, v))


def test_labels_are_one_hot_rows() -> None:
    obj = problem("cross_entropy")
    theta, v = point(obj)
    rows = ph.Objective(obj.net, ph.Dataset(obj.data.X, np.eye(3)[obj.data.y]), "cross_entropy")
    for got, want in zip(products(rows, theta, v), products(obj, theta, v), strict=True):
        assert np.array_equal(got, want)


def test_two_classes_are_logistic_in_their_difference() -> None:
    rng = np.random.default_rng(107)
    x, y = rng.standard_normal((20, 3)), rng.integers(0, 2, 20)
    two = ph.Objective(ph.MLP([3, 4, 2], "gelu"), ph.Dataset(x, y), "cross_entropy")
    one = ph.Objective(ph.MLP([3, 4, 1], "gelu"), ph.Dataset(x, y), "logistic")
    theta, v = point(two)

    def difference(flat: Any) -> Any:
        (w1, b1), (w2, b2) = two.net.unpack(flat)
        return one.net.pack([(w1, b1), (w2[1:] - w2[:1], b2[1:] - b2[:1])])

    assert two.value(theta) == pytest.approx(one.value(difference(theta)), rel=1e-14)
    big, small = two.curvature(theta, v), one.curvature(difference(theta), difference(v))
    assert big.q == pytest.approx(small.q, rel=1e-13)
    (w1, b1), _ = two.net.unpack(big.grad)
    (w1_small, b1_small), _ = one.net.unpack(small.grad)
    assert w1 == pytest.approx(w1_small, rel=1e-11, abs=1e-13)
    assert b1 == pytest.approx(b1_small, rel=1e-11, abs=1e-13)


def test_targets_enter_as_stated() -> None:
    """(N,) and (N, 1) are the same; labels are numbers for squared errors."""
    x = np.random.default_rng(109).standard_normal((6, 2))
    net = ph.MLP([2, 3, 1])
    theta = net.init(rng=110)
    y = np.array([0, 1, 1, 0, 2, 1])
    values = {
        ph.Objective(net, ph.Dataset(x, targets)).value(theta) for targets in (y, y.astype(float), y[:, None].astype(float))
    }
    assert len(values) == 1


# ---- dtypes, copies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy", "logistic"])
def test_float32_is_near_and_is_named(loss: str) -> None:
    double, single = problem(loss), problem(loss, dtype="float32")
    theta, v = point(double)
    assert same(products(single, theta, v), products(double, theta, v), 2e-5)
    assert not same(products(single, theta, v), products(double, theta, v), 1e-12)
    assert single.hessian(theta).dtype == np.float32
    assert all(part.dtype == np.float64 for part in (single.gradient(theta), single.hvp(theta, v), single.curvature(theta, v).hv))
    assert ph.Objective(single.net, single.data, loss, np.float32).dtype == "float32"


def test_inputs_may_be_lists_views_and_integers() -> None:
    obj = problem()
    theta, v = point(obj)
    spread = np.zeros((obj.num_params, 2))
    spread[:, 0] = v
    assert np.array_equal(obj.hvp(list(theta), spread[:, 0]), obj.hvp(theta, v))
    assert np.array_equal(obj.hvp(theta, np.ones(obj.num_params, dtype=np.int8)), obj.hvp(theta, np.ones(obj.num_params)))
    assert np.array_equal(obj.value(theta.astype(np.longdouble)), obj.value(theta))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_pickles_and_copies_give_the_same_bits(dtype: str) -> None:
    obj = problem("cross_entropy", dtype=dtype)
    theta, v = point(obj)
    for other in (pickle.loads(pickle.dumps(obj)), copy.copy(obj), copy.deepcopy(obj)):
        assert other.net == obj.net
        assert other.data == obj.data
        assert repr(other) == repr(obj)
        for got, want in zip(products(other, theta, v), products(obj, theta, v), strict=True):
            assert np.array_equal(got, want)
    assert pickle.loads(pickle.dumps(obj.net)) == obj.net
    assert pickle.loads(pickle.dumps(obj.data)) == obj.data


def test_the_caller_keeps_his_arrays() -> None:
    obj = problem()
    theta, v = point(obj)
    hessian = obj.hessian(theta)
    before = hessian @ v
    kept = theta.copy()
    theta[:] = 7.0
    assert np.array_equal(hessian @ v, before)
    assert np.array_equal(hessian.theta, kept)
    before[:] = 0.0
    assert (hessian @ v).any()


# ---- errors ------------------------------------------------------------------------------------------------------------

P = 3 * 4 + 4 + 4 * 5 + 5 + 5 * 3 + 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda o, t, v: o.value(t[:-1]), ph.InputError, rf"theta has shape \({P - 1},\); allowed is \({P},\)"),
        (lambda o, t, v: o.gradient(np.full(P, np.nan)), ph.InputError, r"theta\[0\] is nan"),
        (lambda o, t, v: o.hvp(t, v[:-1]), ph.InputError, rf"v has shape .*allowed are \({P},\) and \({P}, k\)"),
        (lambda o, t, v: o.hvp(t, np.stack([v, v])), ph.InputError, "vectors as columns"),
        (lambda o, t, v: o.hvp(t, np.stack([v, v * np.inf], axis=1)), ph.InputError, r"v\[0, 1\] is -?inf"),
        (lambda o, t, v: o.ggn_vp(t, 1j * v), ph.InputTypeError, "complex128"),
        (lambda o, t, v: o.ggn_vp(t, "direction"), ph.InputTypeError, "real numbers"),
        (lambda o, t, v: o.curvature(t, 2.0), ph.InputError, r"v has shape \(\)"),
        (lambda o, t, v: o.hvp_batch(t, v), ph.InputError, rf"thetas has shape \({P},\); allowed is \(S, {P}\)"),
        (lambda o, t, v: o.hvp_batch([t], [v, v]), ph.InputError, "they must be equal"),
        (lambda o, t, v: o.hvp_batch([t, t * np.nan], [v, v]), ph.InputError, r"thetas\[1, 0\] is nan"),
        (lambda o, t, v: o.hvp_batch(np.zeros((0, P)), np.zeros((0, P))), ph.InputError, "S >= 1"),
        (lambda o, t, v: o.hessian(t) @ np.ones(P + 1), ph.InputError, r"v has shape .*, vectors as columns"),
        (lambda o, t, v: o.hessian(t) @ (1j * v), ph.InputTypeError, "real numbers"),
        (lambda o, t, v: o.hessian(t).to_dense(max_bytes=1000), ph.MemoryLimitError, "max_bytes"),
        (lambda o, t, v: ph.Objective(o.net, o.data, "mse"), ph.InputError, "allowed: squared_error, cross_entropy, logistic"),
        (lambda o, t, v: ph.Objective(o.net, o.data, dtype="float16"), ph.InputError, "allowed: float64, float32"),
        (lambda o, t, v: ph.Objective(o.net, o.data, dtype=16), ph.InputTypeError, "float64, float32"),
        (lambda o, t, v: ph.Objective(ph.MLP([4, 3]), o.data), ph.InputError, r"use widths\[0\] = 3"),
        (lambda o, t, v: ph.Objective([3, 3], o.data), ph.InputTypeError, "pyhess.MLP"),
        (lambda o, t, v: ph.Objective(o.net, o.data.X), ph.InputTypeError, "pyhess.Dataset"),
    ],
)
def test_bad_input(call: Any, error: type[Exception], message: str) -> None:
    obj = problem()
    theta, v = point(obj)
    with pytest.raises(error, match=message):
        call(obj, theta, v)


def test_overflow_is_an_error_not_a_number() -> None:
    obj, single = problem(), problem(dtype="float32")
    theta, v = point(obj)
    for call in (obj.value, obj.gradient, obj.hessian, lambda t: obj.curvature(t, v), lambda t: obj.hvp_batch([t], [v])):
        with pytest.raises(ph.NonFiniteError, match="overflow float64"):
            call(1e160 * theta)
    for call in (lambda u: obj.curvature(theta, u), lambda u: single.hvp(theta, u), lambda u: single.ggn_vp(theta, u)):
        with pytest.raises(ph.NonFiniteError, match="overflow"):
            call(1e160 * v)
    with pytest.raises(ph.NonFiniteError, match="overflow float32"):
        single.value(1e39 * theta)
    assert obj.value(theta) == problem().value(theta), "an overflow leaves no trace"


def test_memory_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyhess import linearization

    def refuse(size: int, dtype: Any) -> Any:
        raise MemoryError

    obj = problem()
    monkeypatch.setattr(linearization, "aligned_zeros", refuse)
    with pytest.raises(ph.MemoryLimitError, match="float32"):
        obj.value(point(obj)[0])


def test_an_empty_block_has_an_empty_product() -> None:
    obj = problem()
    theta, _ = point(obj)
    empty = np.zeros((obj.num_params, 0))
    jet = obj.curvature(theta, empty)
    for product in (obj.hvp(theta, empty), obj.ggn_vp(theta, empty), obj.hessian(theta) @ empty, jet.hv, jet.grad):
        assert product.shape == empty.shape
