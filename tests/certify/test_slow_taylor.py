"""The independent check of the bound by the Hessian's Taylor polynomial: its polynomials are right, nothing false is proved."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

import pyhess as ph
from pyhess.certify import Certificate, certify, prove
from pyhess.certify.reference_cubic import Poly, spectral, weighted
from pyhess.certify.reference_cubic_hessian import Form, cubic_hessian
from pyhess.certify.reference_cubic_losses import loss_polynomials
from pyhess.certify.reference_cubic_proof import cubic_term, not_negative, whole_matrix
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_ranges import activation, activations
from pyhess.certify.reference_triples import triples
from pyhess.certify.taylor_multipliers import TaylorMultipliers
from pyhess.threshold import verify_file

from .conftest import trained

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

_PARTS = ("head", "half", "tail")

pytestmark = pytest.mark.usefixtures("long_doubles")


def _problem(case: Case) -> ph.Objective:
    widths, names, loss, parametrization, bias = case
    rng = np.random.default_rng(2011)
    y: Array = rng.integers(0, 2, 3) if loss == "logistic" else rng.standard_normal((3, widths[-1]))
    if loss == "cross_entropy":
        y = rng.dirichlet(np.ones(2), 3) if widths[-1] == 2 else np.array([2, 0, 1])
    data = ph.Dataset(rng.standard_normal((3, widths[0])), y, rng.uniform(0.5, 2.0, 3))
    return ph.Objective(ph.MLP(widths, names, beta=1.7, bias=bias, parametrization=parametrization), data, loss=loss)


def _trained(radius: float) -> Certificate:
    rng = np.random.default_rng(2017)
    x = rng.standard_normal((8, 2))
    obj = ph.Objective(ph.MLP([2, 2, 1]), ph.Dataset(x, np.tanh(x[:, 0] - x[:, 1]) + 0.1 * rng.standard_normal(8)))
    return certify(obj, ph.Ball(trained(obj, rng), radius), "taylor")


def _altered(certificate: Certificate, psi_lower: float | None = None, **change: Array) -> Certificate:
    """The claim and what the file brings along changed, in accordance with each other."""
    row = certificate.table["taylor"]
    claim = certificate.psi_lower if psi_lower is None else psi_lower
    row = replace(row, psi_lower=claim, multipliers=replace(row.multipliers, **change))
    return replace(certificate, psi_lower=claim, table={"taylor": row})


def _proof(certificate: Certificate, claim: float | None = None, **options: Any) -> Any:
    claim = certificate.psi_lower if claim is None else claim
    multipliers = certificate.table["taylor"].multipliers
    return prove(certificate.obj, certificate.region, "taylor", claim, multipliers=multipliers, **options)


def _derivatives(obj: ph.Objective, theta: Array, u: Array) -> tuple[Array, ...]:
    """What is squared in the Gauss-Newton part, its first derivative and the second along u, and the squares' weights, by JAX."""
    jax = pytest.importorskip("jax")
    jnp, net = jax.numpy, obj.net
    x, mass = obj.data.X, obj.data.normalized_weights

    def outputs(theta: Any) -> Any:
        a, at = x, 0
        for layer, (fan_in, fan_out) in enumerate(zip(net.widths[:-1], net.widths[1:], strict=True)):
            s = a @ theta[at : at + fan_in * fan_out].reshape(fan_out, fan_in).T
            at += fan_in * fan_out
            if net.bias:
                s, at = s + theta[at : at + fan_out], at + fan_out
            if net.parametrization == "ntk":
                s = s / np.sqrt(fan_in)
            if layer < net.num_layers - 1:
                beta = net.betas[layer]
                a = {
                    "tanh": jnp.tanh,
                    "sigmoid": jax.nn.sigmoid,
                    "softplus": lambda s, beta=beta: jnp.logaddexp(0.0, beta * s) / beta,
                    "gelu": lambda s: jax.nn.gelu(s, approximate=False),
                }[net.activations[layer]](s)
        return s

    def roots(theta: Any) -> Any:
        first = jax.jacfwd(outputs)(theta)
        if obj.loss != "cross_entropy":
            return first
        p = jax.nn.softmax(outputs(theta))[..., None]
        return jnp.sqrt(p) * (first - (p * first).sum(axis=1, keepdims=True))

    def slope(t: Any) -> Any:
        return jax.jvp(lambda t: roots(theta + t * u), (t,), (1.0,))[1]

    def found(t: Any) -> Any:
        f = outputs(theta)
        bend = jax.nn.sigmoid(f) * jax.nn.sigmoid(-f) if obj.loss == "logistic" else jnp.ones_like(f)
        return roots(theta), jax.jacfwd(roots)(theta), jax.jvp(slope, (t,), (1.0,))[1], mass[:, None] * bend

    with jax.enable_x64(True):
        return tuple(np.array(x) for x in jax.jit(found)(0.0))


def _residual_coefficients(obj: ph.Objective, theta: Array, u: Array) -> Array:
    """Taylor coefficients of the residual part along u up to the third order (4, P, P), from its values at Chebyshev's nodes."""
    nodes = 0.1 * np.cos(np.pi * (np.arange(12) + 0.5) / 12)
    values = [(obj.hessian(theta + t * u).to_dense() - obj.gauss_newton(theta + t * u).to_dense()).ravel() for t in nodes]
    found = np.linalg.solve(np.vander(nodes / 0.1, increasing=True), values)[:4] / 0.1 ** np.arange(4)[:, None]
    return found.reshape(4, theta.size, theta.size)


def _forms(obj: ph.Objective, centre: Array, radius: float) -> tuple[Form, Form]:
    found = cubic_hessian(Problem.of(obj), ph.Ball(centre, radius).bind(obj), np.inf)
    assert found is not None
    return found


def _symmetric(x: Array) -> Array:
    return 0.5 * (x + x.T)


def _polynomial(form: Form, delta: Array) -> Array:
    linear = 2.0 * np.tensordot(delta, form.half, (0, 0))
    found = _symmetric(form.head + linear + np.einsum("k,kalb,l->ab", delta, form.tail, delta)).astype(np.float64)
    return found if len(form.third) == 0 else found + _cubic(form, delta)


def _tensor(form: Form) -> Array:
    """T, with all five indices."""
    return form.third[triples(len(form.head)).place]


def _cubic(form: Form, delta: Array) -> Array:
    return np.einsum("k,l,m,klmab->ab", delta, delta, delta, _tensor(form), optimize=True)


@pytest.mark.parametrize("case", [CASES[1], CASES[3], CASES[4], CASES[6]])
def test_polynomials_are_taylors(case: Case) -> None:
    obj = _problem(case)
    rng = np.random.default_rng(2027)
    centre, u = 0.7 * rng.standard_normal(obj.num_params), rng.standard_normal(obj.num_params)
    u /= np.linalg.norm(u)
    r0, r1, r2, r3 = _residual_coefficients(obj, centre, u)
    d0, d1, d2, mass = _derivatives(obj, centre, u)
    # In so small a ball the weights of the logistic loss are those at the centre.
    whole, squares = _forms(obj, centre, 1e-12)
    quadratic = np.einsum("nk,nka,nkb->ab", mass, d0, d2)  # 2 (d0 . v) (u'd2 u / 2 . v)
    cubic = np.einsum("nk,nkac,c,nkb->ab", mass, d1, u, d2)
    pairs = {
        "head": (_symmetric(whole.head), r0),
        "half": (_symmetric(2.0 * np.tensordot(u, whole.half, (0, 0))), r1),
        "tail": (_symmetric(np.einsum("k,kalb,l->ab", u, whole.tail, u)), r2 + _symmetric(quadratic)),
        "cubic": (_cubic(whole, u), r3 + _symmetric(cubic)),
        "squares' head": (squares.head, np.einsum("nk,nka,nkb->ab", mass, d0, d0)),
        "squares' half": (squares.half, np.einsum("nk,nkac,nkb->cab", mass, d1, d0)),
        "squares' tail": (squares.tail, np.einsum("nk,nkac,nkbd->cadb", mass, d1, d1)),
    }
    for name, (given, expected) in pairs.items():
        assert np.abs(given - expected).max() <= 1e-8 * np.abs(expected).max(), name
    assert max(whole.rest.max(), squares.rest.max()) < 1e-16
    assert np.array_equal(whole.third, whole.third.swapaxes(1, 2))


@pytest.mark.parametrize("case", CASES)
def test_rests_are_of_the_fourth_order(case: Case) -> None:
    obj = _problem(case)
    centre = 0.7 * np.random.default_rng(2027).standard_normal(obj.num_params)
    # The squares' of what the roots leave out are of the sixth, in the third-order terms.
    for form, half, least in zip(_forms(obj, centre, 0.04), _forms(obj, centre, 0.02), (15.5, 62.0), strict=True):
        ratios = (form.rest / half.rest)[half.rest > 1e-2 * half.rest.max()]
        assert ratios.min() >= least and ratios.max() <= 2.0 * least


@pytest.mark.parametrize("case", CASES)
def test_rests_hold_in_the_ball(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = _problem(case)
    rng = np.random.default_rng(2027)
    size, radius = obj.num_params, 0.3
    centre = 0.7 * rng.standard_normal(size)
    whole, squares = _forms(obj, centre, radius)
    monkeypatch.setattr(Form, "add_squares", lambda *_: None)
    residual = _forms(obj, centre, radius)[0]
    share_of_rest = 0.0
    for u in (*rng.standard_normal((10, size)), *np.eye(size), *-np.eye(size)):
        delta = radius * u / np.linalg.norm(u)
        hessian = obj.hessian(centre + delta).to_dense()
        gauss = obj.gauss_newton(centre + delta).to_dense()
        remainder = _polynomial(residual, delta)
        off = np.abs(hessian - gauss - remainder)
        assert (off <= residual.rest + 1e-13).all()
        share_of_rest = max(share_of_rest, float((off / (residual.rest + 1e-13)).max()))
        for eta in (0.02, 0.3, 1.0):
            left = gauss - (_polynomial(whole, delta) - remainder) - (1.0 - eta) * _polynomial(squares, delta)
            for v in (*np.linalg.eigh(left)[1].T, *rng.standard_normal((10, size))):
                assert v @ left @ v >= -np.abs(v) @ squares.rest @ np.abs(v) / eta - 1e-13 * (v @ v)
    # Some entry comes so near to what is allowed that a hundredth of it would be too little.
    assert share_of_rest > 0.01


def _of_one(value: float, first: float, second: float, third: float, rest: float, radius: float = 0.5) -> tuple[Poly, float]:
    """A function of one parameter, and the most that it may be at the end of the ball."""
    numbers = [wide(np.full((1,) * (2 + order), x)) for order, x in enumerate((value, first, second))]
    end = value + first * radius + 0.5 * second * radius**2 + third * radius**3 / 6.0 + rest
    return Poly(*numbers, np.full((1, 1, 1), third), wide(np.full((1, 1), rest)), wide(radius)), end


def _ends(p: Poly) -> Array:
    """The polynomials of one parameter at the end of the ball."""
    r = float(p.ball)
    quadratic = p.value + p.first[..., 0] * r + 0.5 * p.second[..., 0, 0] * r * r
    return (quadratic + p.third[0] * r**3 / 6.0).astype(np.float64)


def _at_the_end(p: Poly) -> float:
    return float(_ends(p).item())


@pytest.mark.parametrize("place", range(5))
def test_rests_of_products_and_sums_are_what_is_left_out(place: int) -> None:
    rng = np.random.default_rng(2081)
    # Of one sign all terms add up, so the bounds are sharp; one kind of term after the other is much the largest.
    x, y = rng.uniform(0.5, 1.0, (2, 5))
    x[place] *= 100.0
    for one, other in ((x, y), (y, x)):
        (p, p_end), (q, q_end) = _of_one(*one), _of_one(*other)
        product, exact = p * q, p_end * q_end
        assert float(product.rest.item()) == pytest.approx(exact - _at_the_end(product), rel=1e-12)
        for left, axes, factor in ((p[:, :, None], 2, 1.0), (p, 1, 2.0)):
            form = Form.zero(1, 1)
            form.add(slice(0, 1), left, q[:, :, None], axes, factor)
            form.close(1, p.ball)
            given = float(_polynomial(form, np.array([float(p.ball)])).item())
            assert float(form.rest.item()) == pytest.approx(factor * exact - given, rel=1e-11)
        m = rng.uniform(0.5, 1.0)
        moved = weighted(wide([[m]]), np.array([[0]]), q)
        assert float(moved.rest.item()) == pytest.approx((m + float(q.ball)) * q_end - _at_the_end(moved), rel=1e-12)
        scaled = q.times(Range(wide(m), wide(m + 1e-3)))
        assert _at_the_end(scaled) + float(scaled.rest.item()) >= (m + 1e-3) * q_end


@pytest.mark.parametrize(
    "form",
    [
        (0.4215, 0.02, 0.0, 0.0, 0.0),
        (0.3, 0.0, 0.0, 0.0, 0.01),
        (0.3, 0.004, 0.0, 0.5, 0.0),
        (0.3, 0.004, 0.0, 0.0, 0.003),
        (0.3, 0.0, 0.05, 0.0, 0.0),
        (0.0, 0.02, 0.1, 0.0, 0.0),
        (0.0, 0.002, 0.0, 0.1, 0.0),
        (0.0, 0.3, 0.0, 0.0, 0.0),
    ],
)
def test_rests_of_compositions_are_what_is_left_out(form: tuple[float, ...]) -> None:
    # At 0.4215 the fourth derivative of tanh is at its largest, at zero the second vanishes.
    p, _ = _of_one(*form)
    found = p.composed(partial(activations, "tanh", 1.0), 0)
    off = [abs(np.tanh(_at_the_end(p) + sign * form[4]) - _at_the_end(found)) for sign in (-1.0, 1.0)]
    # In the last case the fourth derivative, which vanishes at zero, is taken at its largest.
    sharpness = 0.15 if form[1] == 0.3 else 0.9
    assert sharpness * float(found.rest.item()) <= max(off) <= float(found.rest.item())


def _several(rng: np.random.Generator, scale: float) -> Poly:
    """Two functions of three parameters, with no rest."""
    second, cubes = rng.standard_normal((1, 2, 3, 3)), rng.standard_normal((10, 1, 2))
    parts = rng.standard_normal((1, 2)), scale * rng.standard_normal((1, 2, 3)), scale * (second + second.swapaxes(2, 3))
    return Poly(*(wide(x) for x in parts), scale * cubes, wide(np.zeros((1, 2))), wide(0.01))


def _value(p: Poly, delta: Array) -> Array:
    at = triples(len(delta))
    cubes = np.tensordot(at.copies * delta[at.k] * delta[at.l] * delta[at.m], p.third, (0, 0))
    return (p.value + p.first @ delta + 0.5 * p.second @ delta @ delta + cubes / 6.0).astype(np.float64)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "gelu"])
def test_forms_of_several_parameters(name: str) -> None:
    rng = np.random.default_rng(2087)
    m, places = rng.standard_normal((2, 2)), np.array([[0, 2], [1, 0]])
    for _ in range(5):
        p, q = _several(rng, 1.0), _several(rng, 1.0)
        found = [p * q, p.composed(partial(activations, name, 1.7), 1), weighted(wide(m), places, p), p.sum(1), p - q]
        largest = np.zeros(5)
        for u in rng.standard_normal((20, 3)):
            delta = 0.01 * u / np.linalg.norm(u)
            x, y = _value(p, delta), _value(q, delta)
            slope = activation(name, 1.7, 1, Range(wide(x))).lo
            exact = [x * y, slope, np.einsum("jk,nk->nj", m + delta[places], x), x.sum(axis=1), x - y]
            for at, (form, expected) in enumerate(zip(found, exact, strict=True)):
                off = np.abs((_value(form, delta) - expected).astype(np.float64))
                assert (off <= form.rest + 1e-15).all(), at
                largest[at] = max(largest[at], float((off / (form.rest + 1e-15)).max()))
        assert (largest[:3] > 0.05).all(), largest
        assert all((form.rest < 1e-5).all() for form in found)


@pytest.mark.parametrize(
    "sizes", [(2e-2, 0.0, 0.0, 0.0), (0.0, 1e-2, 0.0, 0.0), (0.0, 0.0, 1e-2, 0.0), (0.0, 0.0, 0.0, 1e-2), (0.3, 0.2, 0.3, 0.1)]
)
def test_rests_of_softmax_are_what_is_left_out(sizes: tuple[float, ...]) -> None:
    rng = np.random.default_rng(2083)
    obj = _problem(CASES[6])
    value, y, t = rng.standard_normal((1, 3)), np.array([[0.0, 1.0, 0.0]]), 0.5
    jacobian = Poly.constant(wide(np.eye(3)[None]), 1, wide(t))  # d_kc = sqrt(p_k) ([k = c] - p_c)
    largest = 0.0
    for signs in rng.choice([-1.0, 1.0], (20, 3)):
        first, second, third, rest = (size * signs[None] for size in sizes)
        numbers = (wide(x) for x in (value, first[..., None], second[..., None, None]))
        f = Poly(*numbers, third[None], wide(np.abs(rest)), wide(t))
        r, d, weights = loss_polynomials(Problem.of(obj), f, jacobian, wide(y))
        assert (weights <= 1.0).all() and (weights > 1.0 - 1e-15).all()
        p = softmax((value + first * t + 0.5 * second * t**2 + third * t**3 / 6.0 + rest)[0])
        off = np.abs(p - y[0] - _ends(r)[0])
        assert (off <= r.rest[0] + 1e-15).all()
        assert (np.abs(np.sqrt(p)[:, None] * (np.eye(3) - p) - _ends(d)[0]) <= d.rest[0] + 1e-15).all()
        largest = max(largest, float((off / r.rest[0]).max()))
    assert largest > 0.05


@pytest.mark.parametrize("order", [5, 6])
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "gelu"])
def test_higher_derivatives(name: str, order: int) -> None:
    rng = np.random.default_rng(2029)
    centre, width = rng.uniform(-5.0, 5.0, 300), 10.0 ** rng.uniform(-4.0, 0.5, 300)
    found = activation(name, 1.7, order, Range(wide(centre - width), wide(centre + width)))
    inside = centre[:, None] + width[:, None] * np.linspace(-1.0, 1.0, 401)
    values = activation(name, 1.7, order, Range(wide(inside)))
    assert (found.lo[:, None] <= values.hi).all() and (found.hi[:, None] >= values.lo).all()
    spread = np.maximum(values.hi.max(axis=1) - values.lo.min(axis=1), 1e-9)
    assert (found.hi - found.lo <= 1.01 * spread).all()
    h = 1e-4
    below, above = (activation(name, 1.7, order - 1, Range(wide(centre + d))).lo for d in (-h, h))
    slopes, exact = (above - below) / (2.0 * h), activation(name, 1.7, order, Range(wide(centre))).lo
    assert np.abs(slopes - exact).max() <= 1e-6 * np.abs(exact).max()


def test_spectral_norms_are_bounded() -> None:
    rng = np.random.default_rng(2039)
    q = rng.standard_normal((40, 9, 9)) * 10.0 ** rng.uniform(-12, 12, (40, 1, 1))
    q[:10] = rng.standard_normal((10, 9, 1)) * rng.standard_normal((10, 1, 9))  # where the bound is sharp
    q[10] = 0.0
    size = np.sqrt((q**2).sum((1, 2)))
    found = spectral(wide(q), wide(size * (1.0 + 1e-15))).astype(float)
    exact = np.linalg.norm(q, 2, axis=(1, 2))
    assert (found >= exact * (1.0 - 1e-14)).all() and (found[11:] < size[11:]).all()
    assert found[:10] == pytest.approx(exact[:10], rel=1e-12)


def test_forms_that_are_not_negative() -> None:
    rng = np.random.default_rng(2053)
    a = rng.standard_normal((6, 4))
    singular = wide(a @ a.T)
    assert not not_negative(singular, 6) and not_negative(singular + 1e-10 * np.eye(6), 6)
    # Only the first two coordinates have to be made up for what the others may lack.
    slack = np.diag([1.0, 1.0, 1e-14, 1e-14])
    assert not_negative(wide(slack), 2) and not not_negative(wide(slack), 2, wide(np.full((4, 4), 0.2)))
    assert not not_negative(wide(np.diag([1.0, 1.0, 1.0, -1e-9])), 2)
    assert not not_negative(wide(np.full((2, 2), np.nan)), 1)


def _random_form(rng: np.random.Generator, size: int, *, cubic: bool) -> Form:
    head, half, tail, rest = (wide(rng.standard_normal((size,) * order)) for order in (2, 3, 4, 2))
    count = len(triples(size).k) if cubic else 0
    third = rng.standard_normal((count, size, size))
    nothing = wide(np.zeros((size, size)))
    return Form(head, half, tail, third + third.swapaxes(1, 2), np.abs(rest + rest.T), nothing, nothing)


@pytest.mark.parametrize("size", [1, 3])
def test_the_matrix_is_below_the_polynomial(size: int) -> None:
    rng = np.random.default_rng(2089)
    for _ in range(20):
        whole, squares = _random_form(rng, size, cubic=True), _random_form(rng, size, cubic=False)
        ball, claim, share = rng.uniform(0.2, 1.5), rng.standard_normal(), rng.uniform(0.1, 1.0)
        lam = rng.standard_normal((size, size))
        # For one parameter this divides the cubic term without loss.
        tau = ball / np.abs(_tensor(whole)).max()
        turned = rng.standard_normal((size,) * 3)
        multipliers = TaylorMultipliers(lam @ lam.T, turned, share, tau, rng.uniform(0.5, 2.0, size))
        gram = cubic_term(whole.third, size, np.inf)
        assert gram is not None
        rows = _tensor(whole).transpose(0, 3, 1, 2, 4).reshape(size * size, -1)
        assert (np.abs(gram[0] - rows @ rows.T) <= gram[1] * (1.0 + 1e-3)).all() and gram[1].max() < 1e-12 * np.abs(gram[0]).max()
        matrix, error = whole_matrix(whole, squares, gram, wide(ball), claim, multipliers.lam, multipliers)
        assert error.max() < 1e-11 * np.abs(matrix).max() and np.array_equal(matrix, matrix.T)
        rest = whole.rest + squares.rest / share
        nearest = np.inf
        for u, v in rng.standard_normal((200, 2, size)):
            delta, v = ball * u / np.linalg.norm(u), v / np.linalg.norm(v)
            form = _polynomial(whole, delta) + (1.0 - share) * _polynomial(squares, delta)
            value = v @ form @ v - np.abs(v) @ rest @ np.abs(v) - claim
            z = np.concatenate([v, np.outer(delta, v).ravel() / ball])
            below = float(z @ matrix @ z)
            assert below <= value + 1e-12
            nearest = min(nearest, value - below)
        assert size > 1 or nearest < 1e-12


def _own_multipliers(obj: ph.Objective, region: ph.Ball, share: float) -> tuple[float, TaylorMultipliers]:
    """Multipliers that are found without any care, and what they prove, by dense matrices."""
    size, ball = obj.num_params, float(region.radius)
    whole, squares = _forms(obj, region.center, ball)
    rows = _tensor(whole).transpose(0, 3, 1, 2, 4).reshape(size * size, -1)
    tau = ball / np.linalg.norm(rows, 2)
    head, half, tail = (
        (a + (1.0 - share) * b).astype(np.float64) for a, b in ((getattr(x, name) for x in (whole, squares)) for name in _PARTS)
    )
    flat = ball**2 * (_symmetric(tail.reshape(size * size, -1)) - 0.5 * tau * rows @ rows.T)
    into = ball * half.reshape(size * size, size)
    values, vectors = np.linalg.eigh(flat)
    top = _symmetric(head) - np.diag((whole.rest + squares.rest / share).sum(axis=1).astype(np.float64))
    found = []
    for extra in np.geomspace(0.1, 10.0, 9) * np.linalg.norm(into, 2):
        lam = max(0.0, -values[0]) + extra
        turned = vectors.T @ into
        schur = top - (lam + ball**4 / (2.0 * tau)) * np.eye(size) - turned.T @ (turned / (values + lam)[:, None])
        found.append((float(np.linalg.eigvalsh(schur)[0]), lam))
    value, lam = max(found)
    return value, TaylorMultipliers(lam * np.eye(size), np.zeros((size,) * 3), share, tau, np.ones(size))


@pytest.mark.parametrize("case", CASES)
def test_what_the_multipliers_give_is_proved_and_no_more(case: Case) -> None:
    obj = _problem(case)
    rng = np.random.default_rng(2063)
    for radius in (1e-9, 0.05):
        ball = ph.Ball(0.7 * rng.standard_normal(obj.num_params), radius).bind(obj)
        value, multipliers = _own_multipliers(obj, ball, 0.1 if radius > 1e-6 else 1e-7)
        proof = partial(prove, obj, ball, "taylor", multipliers=multipliers)
        assert proof(value - 1e-9 * abs(value)).proved and not proof(value + 1e-7 * abs(value)).proved
        points = (ball.center, *ball.sample(20, rng=rng))
        lowest = min(float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]) for theta in points)
        assert value < lowest and not proof(lowest + 1e-7 * abs(lowest)).proved
        assert radius > 1e-6 or value > lowest - 1e-6
        for tau in (0.0, -1.0, float("nan"), float("inf")):
            changed = replace(multipliers, tau=tau)
            assert not prove(obj, ball, "taylor", value - abs(value), multipliers=changed).proved


@pytest.mark.parametrize("case", CASES)
def test_certificates_are_proved_again_and_nothing_above_an_eigenvalue(case: Case) -> None:
    obj = _problem(case)
    rng = np.random.default_rng(2063)
    for radius in (1e-9, 0.05):
        ball = ph.Ball(0.7 * rng.standard_normal(obj.num_params), radius).bind(obj)
        certificate = certify(obj, ball, "taylor")
        assert _proof(certificate).proved, (case, radius)
        points = (ball.center, *ball.sample(20, rng=rng))
        lowest = min(float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]) for theta in points)
        assert not _proof(certificate, lowest + 1e-7 * abs(lowest)).proved
        if radius < 1e-6:
            assert not _proof(certificate, certificate.psi_lower + 1e-3 * abs(certificate.psi_lower)).proved


def test_verified_from_the_file_alone_and_what_is_tampered_with_is_not(tmp_path: Path) -> None:
    certificate = _trained(0.01)
    path = certificate.save(tmp_path / "c.npz")
    again = ph.load_certificate(path).table["taylor"].multipliers
    multipliers = certificate.table["taylor"].multipliers
    assert again is not None and multipliers is not None
    for name, value in vars(multipliers).items():
        assert np.array_equal(getattr(again, name), value), name
    found = verify_file(path, time_limit=10.0)
    assert found.verdict == "verified" and "Taylor polynomial of the third order" in found.checks[-1].detail, found.checks
    assert not _proof(certificate, 0.995 * certificate.psi_lower).proved
    rng = np.random.default_rng(2069)
    noise = rng.standard_normal(multipliers.turned.shape)
    scale = np.abs(multipliers.lam).max() / 0.01
    for change in (
        {"lam": 1.5 * multipliers.lam},
        {"lam": 0.6 * multipliers.lam},
        {"lam": -multipliers.lam},
        {"lam": np.zeros_like(multipliers.lam)},
        {"lam": multipliers.lam - 1.01 * np.linalg.eigvalsh(multipliers.lam)[0] * np.eye(len(multipliers.lam))},
        {"turned": scale * (noise - noise.transpose(0, 2, 1))},
        {"share": 0.9},
        {"share": 0.0},
        {"share": 1.5},
        {"share": float("nan")},
        {"tau": 0.0},
        {"tau": -multipliers.tau},
        {"tau": float("nan")},
        {"tau": 30.0 * multipliers.tau},
        {"tau": multipliers.tau / 30.0},
        {"weights": np.geomspace(1e-6, 1e6, len(multipliers.weights))},
        {"weights": -multipliers.weights},
    ):
        assert not _proof(_altered(certificate, **change)).proved, change.keys()  # type: ignore[arg-type]
    # Symmetric parts of A would change the form, so only the antisymmetric one counts.
    symmetric = scale * (noise + noise.transpose(0, 2, 1))
    assert _proof(_altered(certificate, turned=multipliers.turned + symmetric)).proved


def test_files_without_or_with_wrong_multipliers(tmp_path: Path) -> None:
    certificate = _trained(0.01)
    path = certificate.save(tmp_path / "c.npz")
    with np.load(path) as content:
        arrays = dict(content)
    described = json.loads(str(arrays["description"]))

    def rewritten(change: dict[str, Any], **others: Array) -> Path:
        content = {**described, "multipliers": {**described["multipliers"], **change}}
        np.savez(tmp_path / "other.npz", **{**arrays, **others, "description": np.array(json.dumps(content))})
        return tmp_path / "other.npz"

    bare = replace(certificate.table["taylor"], multipliers=None)
    found = verify_file(replace(certificate, table={"taylor": bare}).save(tmp_path / "bare.npz"), time_limit=5.0)
    assert found.verdict == "incomplete" and "does not bring the multipliers along" in found.checks[-1].detail
    for share, error in ((0.0, "share is 0.0"), (1.5, "above 0 and at most 1"), ("half", "allowed is a number")):
        with pytest.raises(ph.errors.FileError, match=error):
            ph.load_certificate(rewritten({"share": share}))
    with pytest.raises(ph.errors.FileError, match="unknown halves"):
        ph.load_certificate(rewritten({"halves": [1.0]}))
    wrong = arrays["multipliers.turned"].copy()
    wrong[0, 0, 0] = np.inf
    with pytest.raises(ph.errors.FileError, match="turned has the shape"):
        ph.load_certificate(rewritten({}, **{"multipliers.turned": wrong}))
    with pytest.raises(ph.errors.FileError, match="allowed are positive numbers"):
        ph.load_certificate(rewritten({}, **{"multipliers.weights": -arrays["multipliers.weights"]}))


def test_no_time_and_other_problems_are_said() -> None:
    certificate = _trained(0.01)
    short = _proof(certificate, time_limit=1e-3)
    assert not short.proved and "too large for the independent check: 9 parameters and 8 data" in short.detail
    box = certificate.region.box_around()  # type: ignore[attr-defined]
    multipliers = certificate.table["taylor"].multipliers
    other = prove(certificate.obj, box, "taylor", certificate.psi_lower, multipliers=multipliers)
    assert not other.proved and "is for balls" in other.detail
    # A radius so large that nothing is bounded.
    ball = ph.Ball(np.full(9, 1e300), 1e300)
    assert not prove(certificate.obj, ball, "taylor", certificate.psi_lower, multipliers=multipliers).proved
