"""The witness's own second-order jet against automatic differentiation and wider arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.threshold.reference_functions import apply, apply_twice_differentiated
from pyhess.threshold.reference_jet import quadratic_form, sample_losses
from pyhess.threshold.roundoff import Approx, affine, pairwise_sum, weighted_mean

from ..jax_networks import jax_outputs

jax = pytest.importorskip("jax")
jnp = jax.numpy


def jax_loss(obj: ph.Objective) -> Callable[[Any], Any]:
    """The objective written with JAX, from its definition."""
    net = obj.net
    x, y, w = jnp.array(obj.data.X), jnp.array(obj.targets), jnp.array(obj.data.normalized_weights)

    def loss(theta: Any) -> Any:
        s = jax_outputs(net, theta, x)
        if obj.loss == "squared_error":
            return w @ (0.5 * ((s - y) ** 2).sum(axis=1))
        if obj.loss == "logistic":
            return w @ (jnp.logaddexp(0.0, s[:, 0]) - y[:, 0] * s[:, 0])
        return w @ (jax.nn.logsumexp(s, axis=1) - (y * s).sum(axis=1))

    return loss


@pytest.fixture(autouse=True)
def double_precision() -> Any:
    with jax.enable_x64(True):
        yield


NETWORKS = [
    ([3, 2], "tanh", True, "standard"),
    ([3, 2], "tanh", False, "ntk"),
    ([4, 5, 3], "tanh", True, "standard"),
    ([4, 5, 3], "sigmoid", False, "standard"),
    ([4, 5, 3], "relu", True, "ntk"),
    ([4, 3, 5, 2], "gelu", True, "standard"),
    ([4, 3, 5, 2], "softplus", True, "ntk"),
    ([2, 3, 3, 4, 2], "identity", True, "standard"),
    ([2, 3, 3, 4, 2], ["relu", "softplus", "tanh"], False, "standard"),
    ([2, 4, 3, 3, 3, 2], ["gelu", "sigmoid", "relu", "tanh"], True, "standard"),
]


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy", "logistic"])
@pytest.mark.parametrize(("widths", "activation", "bias", "parametrization"), NETWORKS)
def test_quadratic_form_matches_automatic_differentiation(
    problem: Any, widths: list[int], activation: Any, bias: bool, parametrization: str, loss: str
) -> None:
    widths = [*widths[:-1], 1] if loss == "logistic" else widths
    beta = 3.0 if activation == "softplus" else 1.0
    obj = problem(widths, activation, loss, weighted=bias, bias=bias, parametrization=parametrization, beta=beta)
    rng = np.random.default_rng(31)
    theta, v = 1.5 * rng.standard_normal((2, obj.num_params))
    f = jax_loss(obj)
    slope = lambda t: jax.jvp(f, (t,), (jnp.array(v),))[1]  # noqa: E731
    expected = float(jax.jvp(slope, (jnp.array(theta),), (jnp.array(v),))[1])

    form = quadratic_form(obj, theta, v)

    assert form.q == pytest.approx(expected, rel=1e-11, abs=1e-12)
    assert abs(form.q - expected) <= form.q_error + 1e-11 * abs(expected)
    assert 0.0 < form.q_error < 1e-8 * (1.0 + abs(expected))
    value, _ = weighted_mean(sample_losses(obj, theta), obj.data.weights)
    assert value == pytest.approx(float(f(jnp.array(theta))), rel=1e-13)


def test_data_blocks_do_not_change_the_result(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem([4, 6, 3], "tanh", "cross_entropy", samples=50, weighted=True)
    rng = np.random.default_rng(5)
    theta, v = rng.standard_normal((2, obj.num_params))
    whole = quadratic_form(obj, theta, v)
    monkeypatch.setattr("pyhess.threshold.reference_jet.BLOCK_ELEMENTS", 42)
    parts = quadratic_form(obj, theta, v)
    assert abs(whole.q - parts.q) <= whole.q_error + parts.q_error


@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus", "sigmoid", "gelu", "identity"])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy", "logistic"])
def test_error_bounds_of_the_losses_cover_the_difference_to_wider_arithmetic(problem: Any, activation: str, loss: str) -> None:
    if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
        pytest.skip("long double is no wider than double here")
    widths = [5, 8, 8, 1 if loss == "logistic" else 3]
    obj = problem(widths, activation, loss, samples=40, scale=2.0)
    for seed in range(3, 13):
        theta = np.random.default_rng(seed).standard_normal(obj.num_params)
        plain, wide = sample_losses(obj, theta), sample_losses(obj, theta, np.longdouble)
        distance = np.abs(plain.value - wide.value).astype(float)
        assert np.all(distance <= plain.error + wide.error)
        assert distance.max() > 0.0
        assert wide.error.max() < 1e-2 * plain.error.max()


def test_the_bound_is_exceeded_by_an_error_it_does_not_know_of(problem: Any) -> None:
    # Evaluating with parameters rounded to float32 must not fit into the bound: the bound is not simply huge.
    obj = problem([4, 5, 3], "tanh", "squared_error")
    theta = np.random.default_rng(17).standard_normal(obj.num_params)
    exact, rounded = sample_losses(obj, theta), sample_losses(obj, theta.astype(np.float32).astype(float))
    assert np.all(np.abs(exact.value - rounded.value) > 100.0 * (exact.error + rounded.error))


@pytest.mark.parametrize("activation", ["tanh", "softplus", "sigmoid", "gelu"])
def test_derivative_triples_are_consistent_with_wide_differences(activation: str) -> None:
    s = np.linspace(-6.0, 6.0, 97)
    value, first, second = apply_twice_differentiated(activation, 2.0, Approx.exact(s))
    assert second is not None
    h = np.longdouble(1e-4)
    points = [apply(activation, 2.0, Approx.exact(s.astype(np.longdouble) + k * h)).value for k in (-1, 0, 1)]
    np.testing.assert_allclose(value.value, points[1].astype(float), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(first.value, ((points[2] - points[0]) / (2 * h)).astype(float), atol=1e-7)
    np.testing.assert_allclose(second.value, ((points[2] - 2 * points[1] + points[0]) / h**2).astype(float), atol=1e-6)


def test_propagated_errors_cover_shifted_arguments() -> None:
    rng = np.random.default_rng(29)
    s = 3.0 * rng.standard_normal(400)
    shift = rng.uniform(-1.0, 1.0, 400) * 10.0 ** rng.uniform(-12, -1, 400)
    for activation in ("tanh", "relu", "softplus", "sigmoid", "gelu"):
        other = s + shift
        blurred = apply_twice_differentiated(activation, 2.0, Approx(s, np.nextafter(np.abs(other - s), 9.0)))
        moved = apply_twice_differentiated(activation, 2.0, Approx.exact(other))
        for a, b in zip(blurred, moved, strict=True):
            if a is not None and b is not None:
                assert np.all(np.abs(a.value - b.value) <= a.error + b.error), activation


def test_affine_error_covers_integer_arithmetic() -> None:
    rng = np.random.default_rng(37)
    a = rng.standard_normal((6, 40)) * 10.0 ** rng.uniform(-6, 6, (6, 40))
    w = rng.standard_normal((5, 40)) * 10.0 ** rng.uniform(-6, 6, (5, 40))
    exact = np.array([[sum(_ratio(x) * _ratio(y) for x, y in zip(r, q, strict=True)) for q in w] for r in a])
    result = affine([(Approx.exact(a), w)], None, np.float64(1.0))
    gap = np.array(
        [[abs(float(_ratio(v) - e)) for v, e in zip(vs, es, strict=True)] for vs, es in zip(result.value, exact, strict=True)]
    )
    assert np.all(gap <= result.error)
    assert gap.max() > 0.0


def _ratio(x: float) -> Any:
    from fractions import Fraction

    return Fraction(float(x))


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1001])
def test_pairwise_sum_adds_everything_once(size: int) -> None:
    assert pairwise_sum(np.arange(1.0, size + 1.0)) == size * (size + 1) / 2
