"""The polynomials of the independent check of the Taylor bound are right, and their rests are what is left out."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

import pyhess as ph
from pyhess.certify.reference_changes import Changes, spectral
from pyhess.certify.reference_cubic import Poly, weighted
from pyhess.certify.reference_cubic_hessian import Form
from pyhess.certify.reference_cubic_losses import _fourth, _third, loss_polynomials
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_ranges import activation, activations
from pyhess.certify.reference_triples import tensor_count

from ..jax_networks import jax_outputs
from .slow_taylor_cases import (
    CASES,
    Array,
    Case,
    Operations,
    cubic,
    forms,
    kept_squares,
    nothing_lowered,
    of_order,
    polynomial,
    problem,
    symmetric,
)

pytestmark = pytest.mark.usefixtures("long_doubles")


def _derivatives(obj: ph.Objective, theta: Array, u: Array) -> tuple[Array, ...]:
    """What is squared in the Gauss-Newton part, its first derivative and the second along u, and the squares' weights, by JAX."""
    jax = pytest.importorskip("jax")
    jnp, net = jax.numpy, obj.net
    x, mass = obj.data.X, obj.data.normalized_weights

    def outputs(theta: Any) -> Any:
        return jax_outputs(net, theta, x)

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


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("case", [CASES[1], CASES[3], CASES[4], CASES[6]])
def test_polynomials_are_taylors(case: Case, order: int) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2027)
    centre, u = 0.7 * rng.standard_normal(obj.num_params), rng.standard_normal(obj.num_params)
    u /= np.linalg.norm(u)
    r0, r1, r2, r3 = _residual_coefficients(obj, centre, u)
    d0, d1, d2, mass = _derivatives(obj, centre, u)
    # In so small a ball the weights of the logistic loss are those at the centre.
    whole, squares = forms(obj, centre, 1e-12, order=order)
    assert len(whole.third) == tensor_count(obj.num_params, order)
    quadratic = np.einsum("nk,nka,nkb->ab", mass, d0, d2)  # 2 (d0 . v) (u'd2 u / 2 . v)
    mixed = np.einsum("nk,nkac,c,nkb->ab", mass, d1, u, d2)
    pairs = {
        "head": (symmetric(whole.head), r0),
        "half": (symmetric(2.0 * np.tensordot(u, whole.half, (0, 0))), r1),
        "tail": (symmetric(np.einsum("k,kalb,l->ab", u, whole.tail, u)), r2 + symmetric(quadratic)),
        "squares' head": (squares.head, np.einsum("nk,nka,nkb->ab", mass, d0, d0)),
        "squares' half": (squares.half, np.einsum("nk,nkac,nkb->cab", mass, d1, d0)),
        "squares' tail": (squares.tail, np.einsum("nk,nkac,nkbd->cadb", mass, d1, d1)),
    }
    if order == 3:
        pairs["cubic"] = (cubic(whole, u), r3 + symmetric(mixed))
    for name, (given, expected) in pairs.items():
        assert np.abs(given - expected).max() <= 1e-8 * np.abs(expected).max(), name
    assert max(whole.rest.max(), squares.rest.max()) < 1e-16
    assert np.array_equal(whole.third, whole.third.swapaxes(1, 2))


@pytest.mark.parametrize(("order", "orders"), [(2, (7.8, 15.5)), (3, (15.5, 62.0))])
@pytest.mark.parametrize("case", CASES)
def test_rests_are_of_the_next_order(case: Case, order: int, orders: tuple[float, float]) -> None:
    obj = problem(case)
    centre = 0.7 * np.random.default_rng(2027).standard_normal(obj.num_params)
    # The squares' of what the roots leave out are of the sixth, in the third-order terms; those of the second-order terms, which
    # the polynomials of the second order have there too, of the fourth.
    wider, narrower = (forms(obj, centre, radius, order=order) for radius in (0.04, 0.02))
    for form, half, least in zip(wider, narrower, orders, strict=True):
        ratios = (form.rest / half.rest)[half.rest > 1e-2 * half.rest.max()]
        assert ratios.min() >= least and ratios.max() <= 2.0 * least


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_rests_hold_in_the_ball(case: Case, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2027)
    size, radius = obj.num_params, 0.3
    centre = 0.7 * rng.standard_normal(size)
    whole, squares = forms(obj, centre, radius, order=order)
    monkeypatch.setattr(Form, "add_mixed", lambda *_: None)
    residual = forms(obj, centre, radius, order=order)[0]
    share_of_rest = 0.0
    for u in (*rng.standard_normal((10, size)), *np.eye(size), *-np.eye(size)):
        delta = radius * u / np.linalg.norm(u)
        hessian = obj.hessian(centre + delta).to_dense()
        gauss = obj.gauss_newton(centre + delta).to_dense()
        remainder = polynomial(residual, delta)
        off = np.abs(hessian - gauss - remainder)
        assert (off <= residual.rest + 1e-13).all()
        share_of_rest = max(share_of_rest, float((off / (residual.rest + 1e-13)).max()))
        for eta in (0.02, 0.3, 1.0):
            left = gauss - (polynomial(whole, delta) - remainder) - kept_squares(squares, delta, eta, order)
            for v in (*np.linalg.eigh(left)[1].T, *rng.standard_normal((10, size))):
                assert v @ left @ v >= -np.abs(v) @ squares.rest @ np.abs(v) / eta - 1e-13 * (v @ v)
    # Some entry comes so near to what is allowed that a hundredth of it would be too little.
    assert share_of_rest > 0.01


@pytest.mark.parametrize("order", [2, 3])
def test_what_is_rounded_in_the_squares_counts_without_their_share(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[tuple[Array, Array]] = []
    made: list[tuple[Array, Array]] = []
    close, add_outer = Form.close, Form.add_outer

    def closing(form: Form, *given: Any) -> None:
        closed.append((form.coarse.copy(), form.blur.copy()))
        close(form, *given)

    def adding(form: Form, *given: Any) -> None:
        add_outer(form, *given)
        made.append((form.coarse.copy(), form.blur.copy()))

    obj = problem(CASES[0])
    centre = 0.7 * np.random.default_rng(2273).standard_normal(obj.num_params)
    monkeypatch.setattr(Form, "close", closing)
    monkeypatch.setattr(Form, "add_outer", adding)
    forms(obj, centre, 0.3, order=order)
    monkeypatch.setattr(Form, "add_outer", lambda *_: None)
    forms(obj, centre, 0.3, order=order)
    for whole, squares, without, _, rounding in zip(*closed, made[-1], strict=True):
        assert np.abs(whole - without - rounding).max() <= 1e-15 * whole.max() and not squares.any()
    assert made[-1][0].any() and made[-1][1].any() == (order == 2)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("case", CASES[::2])
def test_any_numbers_may_be_taken_off_the_curvature_and_squares_left_out(case: Case, order: int) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2081)
    size, radius, eta = obj.num_params, 0.3, 0.3
    centre = 0.7 * rng.standard_normal(size)
    plain = forms(obj, centre, radius, order=order)[0]
    numbers = 10.0 ** rng.uniform(-6.0, -1.0, nothing_lowered(obj).shape)
    kept = rng.uniform(0.0, 1.0, 3)
    whole, squares = forms(obj, centre, radius, numbers, kept, order)
    assert (whole.head - plain.head).max() > 0.0 or np.trace(whole.head) < np.trace(plain.head)
    for u in rng.standard_normal((20, size)):
        delta = radius * u / np.linalg.norm(u)
        left = obj.hessian(centre + delta).to_dense() - polynomial(whole, delta) - kept_squares(squares, delta, eta, order)
        for v in (*np.linalg.eigh(left)[1].T, *rng.standard_normal((10, size))):
            assert v @ left @ v >= -np.abs(v) @ (whole.rest + squares.rest / eta) @ np.abs(v) - 1e-13 * (v @ v)


@pytest.mark.parametrize("beyond", [0.0, 1e-3])
def test_lowered_polynomials_are_below(beyond: float) -> None:
    p, end = _of_one(0.4, 0.7, -0.6, 0.5, 0.02)
    low = p.lowered(wide(np.full((1, 1), 0.02 - beyond)))
    least = end - 2.0 * 0.02  # the function at the end may be this
    assert abs(_ends(low)[0, 0] - least - beyond) < 1e-15
    assert beyond <= low.rest[0, 0] <= beyond + 1e-18


def _of_one(
    value: float, first: float, second: float, third: float, rest: float, radius: float = 0.5, order: int = 3
) -> tuple[Poly, float]:
    """A function of one parameter, and the most that it may be at the end of the ball; without a third order in the second."""
    numbers = [np.full((1,) * (2 + axes), x) for axes, x in enumerate((value, first, second))]
    end = value + first * radius + 0.5 * second * radius**2 + (order == 3) * third * radius**3 / 6.0 + rest
    return of_order(order, *numbers, np.full((1, 1, 1), third), np.full((1, 1), rest), Changes.ball(radius)), end


def _ends(p: Poly) -> Array:
    """The polynomials of one parameter at the end of the ball."""
    r = float(p.changes.reach)
    quadratic = p.value + p.first[..., 0] * r + 0.5 * p.second[..., 0, 0] * r * r
    return (quadratic + p.third.sum(axis=0) * r**3 / 6.0).astype(np.float64)


def _at_the_end(p: Poly) -> float:
    return float(_ends(p).item())


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("place", range(5))
def test_rests_of_products_and_sums_are_what_is_left_out(place: int, order: int) -> None:
    rng = np.random.default_rng(2081)
    # Of one sign all terms add up, so the bounds are sharp; one kind of term after the other is much the largest.
    x, y = rng.uniform(0.5, 1.0, (2, 5))
    x[place] *= 100.0
    for one, other in ((x, y), (y, x)):
        (p, p_end), (q, q_end) = (_of_one(*numbers, order=order) for numbers in (one, other))
        product, exact = p * q, p_end * q_end
        assert float(product.rest.item()) == pytest.approx(exact - _at_the_end(product), rel=1e-12)
        for left, axes, factor in ((p[:, :, None], 2, 1.0), (p, 1, 2.0)):
            form = Form.zero(1, len(p.third), order)
            form.add(slice(0, 1), left, q[:, :, None], axes, factor)
            form.close(1, p.changes.reach)
            given = float(polynomial(form, np.array([float(p.changes.reach)])).item())
            assert float(form.rest.item()) == pytest.approx(factor * exact - given, rel=1e-11)
        m = rng.uniform(0.5, 1.0)
        moved = weighted(wide([[m]]), np.array([[0]]), q)
        assert float(moved.rest.item()) == pytest.approx((m + float(q.changes.reach)) * q_end - _at_the_end(moved), rel=1e-12)
        scaled = q.times(Range(wide(m), wide(m + 1e-3)))
        assert _at_the_end(scaled) + float(scaled.rest.item()) >= (m + 1e-3) * q_end


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("sizes", [(0.03, 0.0, 0.0), (0.0, 0.0, 0.02), (0.02, 0.03, 0.0), (0.03, 0.02, 0.01)])
def test_squares_are_bounded_by_no_more_than_is_left_out(sizes: tuple[float, ...], order: int) -> None:
    """Of the second order, the third and the rest; the others are such that any of these could be left out at a cost."""
    rng = np.random.default_rng(2251)
    radius, nearest, mass = 0.5, np.inf, 0.7
    second, third, rest = sizes[0] / (0.5 * radius**2), sizes[1] / (radius**3 / 6.0), sizes[2]
    for eta, sign in ((0.05, 1.0), (0.05, -1.0), (0.5, -1.0), (1.0, 1.0)):
        for _ in range(200):
            value, first = rng.uniform(-3.0, 3.0, 2) * rng.choice([0.0, 1.0], 2) * max(sizes) / eta / np.array([1.0, radius])
            p, end = _of_one(value, first, sign * second, sign * third, rest, order=order)
            p = p[:, :, None]
            squares, whole = (Form.zero(1, count, order) for count in (0, len(p.third)))
            squares.add_outer(p, wide([[mass]]))
            whole.add_mixed(p, wide([[mass]]))
            for form in (squares, whole):
                form.close(1, p.changes.reach)
            delta = np.array([radius])
            given = float((polynomial(whole, delta) + kept_squares(squares, delta, eta, order)).item())
            room = float((whole.rest + squares.rest / eta).item())
            for exact in (end, end - 2.0 * rest):
                assert mass * exact**2 >= given - room - 1e-15
                nearest = min(nearest, (mass * exact**2 - given) / room)
    # What is added for them is needed, but for the squares that are not counted.
    assert nearest < -0.5 or (order == 3 and sizes[1:] == (0.0, 0.0))


@pytest.mark.parametrize(
    "form",
    [
        # Where the third derivative of tanh is at its largest, is not zero, and the first or the second are the largest.
        (0.0, 0.2, 0.0, 0.0),
        (0.3, 0.02, 0.0, 0.0),
        (0.3, 0.0, 0.0, 0.01),
        (0.6585, 0.05, 0.05, 0.0),
        (0.6585, 0.05, 0.0, 0.01),
        (0.6585, 0.0, 0.4, 0.0),
    ],
)
def test_rests_of_quadratic_compositions_are_what_is_left_out(form: tuple[float, ...]) -> None:
    p, _ = _of_one(*form[:3], 0.0, form[3], order=2)
    found = p.composed(partial(activations, "tanh", 1.0), 0)
    off = [abs(np.tanh(_at_the_end(p) + sign * form[3]) - _at_the_end(found)) for sign in (-1.0, 1.0)]
    assert 0.9 * float(found.rest.item()) <= max(off) <= float(found.rest.item())


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


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "gelu"])
def test_forms_of_several_parameters(name: str, order: int) -> None:
    rng = np.random.default_rng(2087)
    for _ in range(5):
        made = Operations(rng, Changes.ball(0.01), name, order)
        for u in rng.standard_normal((20, 3)):
            made.check(0.01 * u / np.linalg.norm(u))
        assert (made.largest[:3] > 0.05).all(), made.largest
        assert all((form.rest < (1e-5 if order == 3 else 1e-3)).all() for form in made.found)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize(
    "sizes", [(2e-2, 0.0, 0.0, 0.0), (0.0, 1e-2, 0.0, 0.0), (0.0, 0.0, 1e-2, 0.0), (0.0, 0.0, 0.0, 1e-2), (0.3, 0.2, 0.3, 0.1)]
)
def test_rests_of_softmax_are_what_is_left_out(sizes: tuple[float, ...], order: int) -> None:
    rng = np.random.default_rng(2083)
    obj = problem(CASES[6])
    value, y, t = rng.standard_normal((1, 3)), np.array([[0.0, 1.0, 0.0]]), 0.5
    jacobian = Poly.constant(wide(np.eye(3)[None]), 1, Changes.ball(t), order)  # d_kc = sqrt(p_k) ([k = c] - p_c)
    largest = 0.0
    for signs in rng.choice([-1.0, 1.0], (20, 3)):
        first, second, third, rest = (size * signs[None] for size in sizes)
        third *= order == 3
        f = of_order(order, value, first[..., None], second[..., None, None], third[None], np.abs(rest), Changes.ball(t))
        r, d, weights = loss_polynomials(Problem.of(obj), f, jacobian, wide(y))
        assert (weights <= 1.0).all() and (weights > 1.0 - 1e-15).all()
        p = softmax((value + first * t + 0.5 * second * t**2 + third * t**3 / 6.0 + rest)[0])
        off = np.abs(p - y[0] - _ends(r)[0])
        assert (off <= r.rest[0] + 1e-15).all()
        assert (np.abs(np.sqrt(p)[:, None] * (np.eye(3) - p) - _ends(d)[0]) <= d.rest[0] + 1e-15).all()
        largest = max(largest, float((off / r.rest[0]).max()))
    assert largest > 0.05


@pytest.mark.parametrize("width", [0.2, 1.0, 3.0])
def test_rests_of_quadratic_softmax_hold_for_large_changes(width: float) -> None:
    rng = np.random.default_rng(2281)
    obj = problem(CASES[6])
    y, t = np.array([[0.0, 1.0, 0.0]]), 0.5
    jacobian = Poly.constant(wide(np.eye(3)[None]), 1, Changes.ball(t), 2)
    largest = 0.0
    for _ in range(200):
        # Some outputs are next to nothing at the centre, and not at the end.
        value, first = 2.0 * rng.standard_normal((1, 3)), rng.choice([-1.0, 0.0, 1.0], (1, 3)) * width / t
        f = of_order(2, value, first[..., None], np.zeros((1, 3, 1, 1)), np.zeros((0, 1, 3)), np.zeros((1, 3)), Changes.ball(t))
        r, d, _ = loss_polynomials(Problem.of(obj), f, jacobian, wide(y))
        p = softmax((value + first * t)[0])
        off = np.abs(p - y[0] - _ends(r)[0])
        assert (off <= r.rest[0] + 1e-15).all()
        assert (np.abs(np.sqrt(p)[:, None] * (np.eye(3) - p) - _ends(d)[0]) <= d.rest[0] + 1e-15).all()
        largest = max(largest, float((off / (r.rest[0] + 1e-15)).max()))
    assert largest > 0.1


@pytest.mark.parametrize("c", [0.5, 1.0])
def test_derivatives_of_softmax_along_a_line_are_bounded(c: float) -> None:
    rng = np.random.default_rng(2287)
    largest = np.zeros(2)
    for alpha in (0.1, 0.5, 3.0):
        p, h = rng.dirichlet(np.full(3, alpha), 4000), rng.choice([0.0, 0.5, 1.0], (4000, 3))
        u = h - (p * h).sum(axis=1, keepdims=True)
        s, k3, mu4 = ((p * u**k).sum(axis=1, keepdims=True) for k in (2, 3, 4))
        third = c**3 * u**3 - 3.0 * c * c * u * s - c * k3
        fourth = c**4 * u**4 - 6.0 * c**3 * u * u * s - 4.0 * c * c * u * k3 + 3.0 * c * c * s * s - c * (mu4 - 3.0 * s * s)
        own = np.abs(h[:, :, None] - h[:, None, :]).max(axis=2)
        spread = own.max(axis=1, keepdims=True)
        for place, (exact, bound) in enumerate(((third, _third), (fourth, _fourth))):
            most = bound(c, wide(own), wide(spread)).astype(float)
            assert (np.abs(exact) <= most + 1e-15).all()
            largest[place] = max(largest[place], float((np.abs(exact) / (most + 1e-15)).max()))
    assert (largest > 0.4).all(), largest


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
