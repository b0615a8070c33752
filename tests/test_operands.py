"""What the operators take and refuse, and that they can be copied and sent elsewhere."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, eigsh

import pyhess as ph
from pyhess.threshold.witness import make_witness


def problem(dtype: str = "float64") -> tuple[ph.Objective, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(20263101)
    data = ph.Dataset(rng.standard_normal((7, 2)), rng.standard_normal(7))
    obj = ph.Objective(ph.MLP([2, 3, 1]), data, dtype=dtype)
    return obj, obj.net.init(rng=11)


@pytest.mark.parametrize(
    ("v", "error", "text"),
    [
        (np.ones(14), ph.InputError, r"v has shape \(14,\); allowed are \(13,\) and \(13, k\), vectors as columns"),
        (np.ones((2, 13)), ph.InputError, r"v has shape \(2, 13\); allowed are"),
        (np.ones((13, 1, 1)), ph.InputError, r"v has shape \(13, 1, 1\); allowed are"),
        (np.where(np.arange(13) == 4, np.nan, 1.0), ph.InputError, r"v\[4\] is nan; allowed are finite numbers"),
        (["a"] * 13, ph.InputTypeError, "v has dtype <U1; allowed are real numbers"),
        (np.ones(13) * 1j, ph.InputTypeError, "v has dtype complex128; allowed are real numbers"),
    ],
)
def test_operands_that_are_refused(v: Any, error: type[Exception], text: str) -> None:
    obj, theta = problem()
    for operator in (obj.hessian(theta), obj.gauss_newton(theta)):
        with pytest.raises(error, match=text):
            operator @ v
        with pytest.raises(error, match=text):
            operator.dot(v)


def test_operands_that_are_taken() -> None:
    obj, theta = problem()
    H = obj.hessian(theta)
    dense = H.to_dense()
    rng = np.random.default_rng(20263102)
    block = np.asfortranarray(rng.standard_normal((13, 5)))
    for v in (list(block[:, 0]), block[:, 1], block[:, :1], block, block[:, ::2], np.ones(13, dtype=int), np.ones((13, 0))):
        np.testing.assert_allclose(H @ v, dense @ np.asarray(v), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        (H + 2.0 * obj.gauss_newton(theta)) @ block, (dense + 2.0 * obj.gauss_newton(theta).to_dense()) @ block
    )
    assert isinstance(H @ H, LinearOperator) and isinstance(2.0 * H, LinearOperator)
    np.testing.assert_allclose((H @ H) @ block, dense @ dense @ block, rtol=1e-10, atol=1e-12)
    assert eigsh(H, k=1, which="SA", v0=np.ones(13))[0][0] == pytest.approx(np.linalg.eigvalsh(dense)[0])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_operators_can_be_copied_and_pickled(dtype: str) -> None:
    obj, theta = problem(dtype)
    v = np.random.default_rng(20263103).standard_normal(13)
    for operator in (obj.hessian(theta), obj.gauss_newton(theta)):
        for again in (pickle.loads(pickle.dumps(operator)), copy.deepcopy(operator)):
            assert repr(again) == repr(operator) and np.array_equal(again @ v, operator @ v)
            assert ph.eigsh(again, rng=7).eigenvalues == ph.eigsh(operator, rng=7).eigenvalues
    batch = obj.linearize_batch(np.stack([theta, -theta]))
    again = pickle.loads(pickle.dumps(batch))
    assert np.array_equal(again.values, batch.values) and np.array_equal(again.hvp([v, v]), batch.hvp([v, v]))
    state = obj.linearize(theta, with_gradient=True)
    assert np.array_equal(pickle.loads(pickle.dumps(state)).gradient, state.gradient)


def test_the_first_bad_index_of_many_thetas() -> None:
    obj, theta = problem()
    with pytest.raises(ph.InputError, match=r"thetas\[1, 3\] is inf"):
        ph.eigsh_batch(obj, np.stack([theta, np.where(np.arange(13) == 3, np.inf, theta)]))


def test_a_bound_penalty_knows_the_number_of_parameters() -> None:
    net = ph.MLP([2, 3, 1])
    for penalty in (ph.L2(), ph.L2("weights"), ph.ShiftedL2(0.1), ph.WeightedL2(2.0), ph.GeometricL2()):
        bound = penalty.bind(net)
        assert bound.size == 13 and bound.curvature(0.5).shape == (13,)
        assert bound.bind(net) == bound == pickle.loads(pickle.dumps(bound))
    assert ph.L2().bind(net) == ph.L2() and hash(ph.L2().bind(net)) == hash(ph.L2())


def test_boxes_that_do_not_meet() -> None:
    first = ph.Box(np.zeros(3), np.ones(3))
    second = ph.Box([0.5, 2.0, 0.5], [1.5, 3.0, 1.5])
    with pytest.raises(ph.InputError, match=r"no common interior: in coordinate 1 the largest low is 2.0, the smallest high 1.0"):
        ph.Intersection([first, second])
    with pytest.raises(ph.InputError, match="no common interior: in every coordinate"):
        ph.Intersection([ph.Box(0.0, 1.0), ph.Box(1.0, 3.0)])


def test_a_method_that_does_not_apply_is_refused_before_the_search() -> None:
    obj, _ = problem()
    stages: list[str] = []
    with pytest.raises(ph.InputError, match="method='cells' does not apply"):
        ph.lambda_threshold(obj, ph.Box(-0.3, 0.3), certificate="cells", rng=7, progress=lambda d: stages.append(d["stage"]))
    assert "search" not in stages


def test_strengths_and_paths_that_are_none() -> None:
    obj, theta = problem()
    witness = make_witness(obj, ph.Box(-0.5, 0.5).bind(obj), theta, np.ones(13))
    for lam in ("a", None, [1.0]):
        with pytest.raises(ph.InputTypeError, match=r"lam is .*; pass a finite number"):
            witness.segment(lam)  # type: ignore[arg-type]
    for path in (None, 3):
        with pytest.raises(ph.InputTypeError, match=r"path is a .*; pass a name that ends in \.npz"):
            witness.save(path)  # type: ignore[arg-type]
