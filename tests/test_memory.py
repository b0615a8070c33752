"""Memory: predicted before it is allocated, refused where it does not fit, streamed where only the state does not."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest

import pyhess as ph
from pyhess import memory
from pyhess.errors import InputError, InputTypeError, MemoryLimitError

ACTIVATIONS = ["tanh", "relu", "softplus", "sigmoid", "gelu", "identity"]
LOSSES = ["squared_error", "cross_entropy", "logistic"]


def problem(
    widths: list[int], activation: str, loss: str, dtype: str = "float64", max_memory: float | None = None, samples: int = 3001
) -> ph.Objective:
    rng = np.random.default_rng(97)
    x = rng.standard_normal((samples, widths[0]))
    y = rng.integers(widths[-1], size=samples) if loss == "cross_entropy" else rng.integers(2, size=samples) * 1.0
    if loss == "squared_error":
        y = rng.standard_normal((samples, widths[-1]))
    return ph.Objective(ph.MLP(widths, activation), ph.Dataset(x, y), loss, dtype, max_memory=max_memory)


def budgets(obj: ph.Objective) -> float:
    """Too small for the state, large enough for everything else."""
    return obj.plan.total_bytes - obj.plan.state_bytes / 4


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[6, 5], [300]])
def test_streaming_has_the_bits_of_keeping(hidden: list[int], activation: str, loss: str, dtype: str) -> None:
    widths = [4, *hidden, 1 if loss == "logistic" else 3]
    kept = problem(widths, activation, loss, dtype)
    streamed = problem(widths, activation, loss, dtype, budgets(kept))
    assert not kept.plan.streaming and streamed.plan.streaming
    assert streamed.engine.problem.state_size < 0.2 * kept.engine.problem.state_size
    rng = np.random.default_rng(101)
    theta, v = 0.3 * rng.standard_normal((2, kept.num_params))
    assert streamed.value(theta) == kept.value(theta)
    assert np.array_equal(streamed.gradient(theta), kept.gradient(theta))
    lin, vector = kept.linearize(theta), kept.engine.cast(v)
    for obj in (streamed, kept):  # products at a theta of their own linearize on the way
        assert np.array_equal(obj.hvp(theta, v), np.asarray(kept.hessian(theta) @ v, dtype=np.float64))
        assert np.array_equal(obj.ggn_vp(theta, v), np.asarray(kept.gauss_newton(theta) @ v, dtype=np.float64))
        ours, theirs = obj.curvature(theta, v), lin.jet(vector)
        assert ours.q == theirs.q
        assert np.array_equal(ours.hv, theirs.hv) and np.array_equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("widths", [[8, 8, 1], [64, 16, 10], [20, 300, 300, 10]])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_state_is_at_most_twice_the_activations(widths: list[int], activation: str) -> None:
    for samples in (1000, 1025, 5003):
        plan = ph.plan(ph.MLP(widths, activation), samples, "cross_entropy" if widths[-1] > 1 else "logistic")
        weights = sum(8 * a * (b + 48) for a, b in pairwise(widths))
        # Blocks fill whole cache lines, and rows of wide layers too.
        assert plan.state_bytes <= 2.2 * 8 * samples * sum(widths[1:]) + weights


def test_everything_above_the_products_streams_too() -> None:
    kept = problem([4, 6, 3], "tanh", "cross_entropy")
    streamed = problem([4, 6, 3], "tanh", "cross_entropy", max_memory=budgets(kept))
    theta = kept.net.init(rng=5)
    mine, theirs = ph.eigsh(streamed.hessian(theta), rng=7), ph.eigsh(kept.hessian(theta), rng=7)
    assert np.array_equal(mine.eigenvalues, theirs.eigenvalues)
    thetas = np.stack([theta, 0.5 * theta, -theta])
    assert np.array_equal(streamed.hvp_batch(thetas, thetas), kept.hvp_batch(thetas, thetas))
    assert np.array_equal(ph.eigsh_batch(streamed, thetas, rng=7).eigenvalues, ph.eigsh_batch(kept, thetas, rng=7).eigenvalues)
    box = ph.Box(-0.3, 0.3)
    assert ph.search(streamed, box, rng=7, starts=8).psi_upper == ph.search(kept, box, rng=7, starts=8).psi_upper
    assert pickle.loads(pickle.dumps(streamed)).plan == streamed.plan


def test_the_plan_is_what_is_allocated() -> None:
    for dtype, item in (("float64", 8), ("float32", 4)):
        obj = problem([20, 50, 50, 10], "gelu", "cross_entropy", dtype)
        assert obj.plan == ph.plan(obj.net, 3001, "cross_entropy", dtype=dtype)
        assert obj.plan.state_bytes == item * obj.engine.problem.state_size
        assert obj.linearize(obj.net.init(rng=3)).state.nbytes == obj.plan.state_bytes
        assert obj.plan.accumulators == obj.engine.num_chunks > 1
        assert obj.plan.accumulator_bytes == item * obj.num_params * obj.engine.num_chunks
        assert obj.plan.basis_bytes(7) == 7 * item * obj.num_params
        assert "samples" in str(obj.plan)


def test_state_is_at_most_twice_the_activations() -> None:
    net = ph.MLP([784, 1024, 1024, 10], "tanh")
    found = ph.plan(net, 4096, "squared_error", max_memory=1e12)
    transposed = 8 * sum(a * b for a, b in ((784, 1024), (1024, 1024), (1024, 10)))
    assert found.state_bytes <= 2 * 8 * 4096 * (1024 + 1024 + 10) * 1.02 + 1.02 * transposed


def test_too_large_is_refused_before_anything_is_allocated() -> None:
    wide = ph.MLP([100_000, 200_000, 10])  # 20e9 parameters, 160 GB
    with pytest.raises(MemoryLimitError, match=r"even when its data are streamed[\s\S]*vectors[\s\S]*float32"):
        ph.plan(wide, 100, max_memory=8e9)
    with pytest.raises(MemoryLimitError, match=r"2\^61 bytes"):
        ph.plan(ph.MLP([10**9, 10**9, 1]), 100, max_memory=1e300)
    with pytest.raises(MemoryLimitError, match="allowed are"):
        problem([4, 6, 3], "tanh", "cross_entropy", max_memory=1e4)
    tight = problem([4, 6, 3], "tanh", "cross_entropy")
    tight = problem([4, 6, 3], "tanh", "cross_entropy", max_memory=tight.plan.total_bytes)
    with pytest.raises(MemoryLimitError, match="needed at once"):
        tight.linearize_batch(np.zeros((10_000, tight.num_params)))


def test_many_parameters_limit_the_accumulators_and_the_plan_says_so() -> None:
    large = ph.MLP([3000, 30_000, 10])  # 9e7 parameters
    found = ph.plan(large, 5000, max_memory=1e12)
    assert found.accumulators_limited and found.accumulators == 2
    assert found.accumulator_bytes <= 2**31
    assert "fewer than the cores could use" in str(found)
    tight = ph.plan(large, 5000, max_memory=found.total_bytes - found.state_bytes)
    assert tight.accumulators == 1 and tight.accumulator_limit == 0
    assert not ph.plan(ph.MLP([64, 64, 10]), 5000).accumulators_limited


def test_bad_input() -> None:
    net = ph.MLP([2, 3, 1])
    with pytest.raises(InputTypeError, match="max_memory is '4GB'; pass a number of bytes"):
        ph.plan(net, 10, max_memory="4GB")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="positive"):
        ph.plan(net, 10, max_memory=-1.0)
    with pytest.raises(InputError, match="num_samples"):
        ph.plan(net, 0)
    with pytest.raises(InputError, match="loss"):
        ph.plan(net, 10, "hinge")


def test_limits_of_the_process_are_found() -> None:
    assert memory.available_bytes() > 2**27
    assert memory.shown_bytes(3 * 2**30) == "3 GiB"
    assert memory.shown_bytes(5e15).endswith("TiB")
