"""What forms are at most over the changes in a slab, and the matrix of the independent check of the bound there."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify.reference_changes import Changes
from pyhess.certify.reference_cubic import Poly
from pyhess.certify.reference_cubic_hessian import Form
from pyhess.certify.reference_cubic_matrix import cubic_term, whole_matrix
from pyhess.certify.reference_interval import UNIT, Range, wide
from pyhess.certify.reference_slabs import changes_of
from pyhess.certify.reference_triples import triples
from pyhess.certify.slab_multipliers import Slab, SlabMultipliers
from pyhess.certify.taylor_multipliers import TaylorMultipliers

from .slow_slab_cases import corners, narrowed, unit
from .slow_taylor_cases import (
    CASES,
    Array,
    Case,
    Operations,
    cubic,
    forms,
    kept_squares,
    of_order,
    polynomial,
    problem,
    symmetric,
    tensor,
)

pytestmark = pytest.mark.usefixtures("long_doubles")


def _product(*vectors: Array) -> Array:
    """The mean of the outer products in all orders."""
    letters = "klm"[: len(vectors)]
    products = [np.einsum(f"{','.join(letters)}->{letters}", *order) for order in permutations(vectors)]
    return np.mean(products, axis=0)


def _changes(rng: np.random.Generator, size: int, along: float, across: float) -> Changes:
    # Longer than one, so that the powers of |d| count.
    return Changes(wide(along), wide(across), 1.3 * unit(rng.standard_normal(size)))


def _packed(q: Array) -> Array:
    at = triples(len(q))
    return q[at.k, at.l, at.m]


def _sizes(changes: Changes, q1: Array, q2: Array, q3: Array, order: int = 3) -> Array:
    p = of_order(order, np.zeros(1), q1[None], q2[None], _packed(q3)[:, None], np.zeros(1), changes)
    return np.array([p.one.item(), p.two.item(), p.three.item()], dtype=float)


@pytest.mark.parametrize(("along", "across"), [(0.7, 0.2), (0.03, 0.5), (0.4, 0.4)])
def test_sizes_over_a_slab_are_sharp_for_products(along: float, across: float) -> None:
    rng = np.random.default_rng(2099)
    changes = _changes(rng, 4, along, across)
    d = changes.axis
    assert d is not None
    u = rng.standard_normal(4)
    u -= (u @ d) / (d @ d) * d
    u /= np.linalg.norm(u)
    # What d . delta and u . delta are at most, both at one point.
    a, b = along * (d @ d), across
    zeros = np.zeros(4), np.zeros((4, 4)), np.zeros((4, 4, 4))
    x = rng.uniform(0.5, 1.5, 4)
    for q, expected in ((d, a), (u, b), (x[0] * d - x[1] * u, x[0] * a + x[1] * b)):
        assert _sizes(changes, q, *zeros[1:])[0] == pytest.approx(expected, rel=1e-12)
    terms = [(_product(d, d), a * a), (2.0 * _product(d, u), 2.0 * a * b), (_product(u, u), b * b)]
    for q, size in (*terms, tuple(sum(x[j] * term[k] for j, term in enumerate(terms)) for k in range(2))):
        assert _sizes(changes, zeros[0], q, zeros[2])[1] == pytest.approx(0.5 * size, rel=1e-10)
    for j in range(4):
        found = _sizes(changes, *zeros[:2], _product(*[d] * (3 - j), *[u] * j))[2]
        assert found == pytest.approx(a ** (3 - j) * b**j / 6.0, rel=1e-6)
    q = sum(x[j] * _product(*[d] * (3 - j), *[u] * j) for j in range(4))
    size = sum(x[j] * a ** (3 - j) * b**j for j in range(4))
    assert _sizes(changes, *zeros[:2], q)[2] == pytest.approx(size / 6.0, rel=1e-6)


def test_no_form_is_larger_than_its_size() -> None:
    rng = np.random.default_rng(2113)
    for _ in range(40):
        size = int(rng.integers(2, 6))
        changes = _changes(rng, size, *10.0 ** rng.uniform(-2.0, 0.0, 2))
        q1, q2, q3 = rng.standard_normal(size), rng.standard_normal((size, size)), rng.standard_normal((size,) * 3)
        # Some forms that have much along d, or little.
        turn = np.eye(size) + rng.uniform(-1.0, 5.0) * np.outer(changes.axis, changes.axis)
        q1, q2 = turn @ q1, turn @ symmetric(q2) @ turn
        q3 = np.einsum("klm,ka,lb,mc->abc", sum(q3.transpose(x) for x in permutations(range(3))), turn, turn, turn)
        found = _sizes(changes, q1, q2, q3)
        assert _sizes(changes, q1, q2, q3, 2)[:2] == pytest.approx(found[:2], rel=1e-9)
        delta = corners(rng, changes, size, 500)
        ball = _sizes(Changes.ball(float(changes.reach)), q1, q2, q3)
        one, two, three = delta @ q1, delta @ q2, np.einsum("abc,na,nb->nc", q3, delta, delta)
        values = one, 0.5 * (two * delta).sum(axis=1), (three * delta).sum(axis=1) / 6.0
        largest = np.array([np.abs(x).max() for x in values])
        assert (largest <= found * (1.0 + 1e-12)).all() and (found >= 0.0).all()
        assert found[0] <= ball[0] * (1.0 + 1e-9) and (largest >= found * np.array([0.3, 0.1, 0.03])).all()


def _exact(x: Any) -> Fraction:
    mantissa, exponent = np.frexp(np.longdouble(x))
    return Fraction(int(np.ldexp(mantissa, 64))) * Fraction(2) ** (int(exponent) - 64)


def _along(p: Poly, d: Array, factor: Fraction) -> Fraction:
    """The change of the form along d, exactly, times a factor."""
    at, x = triples(len(d)), [Fraction(t) for t in d.tolist()]
    found = sum(t * _exact(c) for t, c in zip(x, p.first[0], strict=True))
    found += sum(x[k] * x[l] * _exact(p.second[0, k, l]) for k, l in np.ndindex(3, 3)) / 2  # noqa: E741 - as in the formulas
    for place, (k, l, m) in enumerate(zip(at.k, at.l, at.m, strict=True)) if p.order == 3 else ():  # noqa: E741
        found += int(at.copies[place]) * x[k] * x[l] * x[m] * Fraction(float(p.third[place, 0])) / 6
    return factor * found


@pytest.mark.parametrize(("order", "term"), [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3)])
def test_rounding_counts_along_the_axis_where_the_form_has_nothing_there(order: int, term: int) -> None:
    rng = np.random.default_rng(2129)
    axis = unit(np.ones(3))
    changes = Changes(wide(1.0), wide(1e-25), axis)
    largest = np.zeros(3)
    for _ in range(20):
        a, b = rng.integers(-100, 100, 2) / 128.0
        w = np.array([a, b, -a - b])
        first, second, third = (_product(*[w] * k) * (k == term) for k in (1, 2, 3))
        p = of_order(order, np.zeros(1), first[None], second[None], _packed(third)[:, None], np.zeros(1), changes)
        factor = np.longdouble(1.0) / np.longdouble(rng.integers(3, 90))
        constant = Poly.constant(wide(np.array([factor])), 3, changes, order)
        found = p.times(Range(wide(factor))), p * constant, p + p * constant
        for place, (form, times) in enumerate(zip(found, (0, 0, 1), strict=True)):
            off = abs(_along(p, axis, _exact(factor) + times) - _along(form, axis, Fraction(1)))
            assert off <= _exact(form.rest[0]), place
            largest[place] = max(largest[place], float(off / _exact(form.rest[0])))
    assert (largest > 1e-3).all(), largest


@pytest.mark.parametrize("order", [2, 3])
def test_forms_that_are_next_to_nothing_along_the_axis(order: int) -> None:
    rng = np.random.default_rng(2207)
    largest = np.zeros(3)
    for _ in range(30):
        axis = unit(rng.standard_normal(3))
        changes = Changes(wide(1.0), wide(1e-25), axis)
        w = rng.standard_normal(3)
        w -= (w @ axis) * axis
        first, second, third = w, np.outer(w, w), _product(w, w, w)
        p = of_order(order, np.zeros(1), first[None], second[None], _packed(third)[:, None], np.zeros(1), changes)
        for place, size in enumerate((p.one, p.two, p.three)[:order]):
            part = [p.value, p.first, p.second, p.third]
            alone = Poly(*(x * (k == place + 1) for k, x in enumerate(part)), p.rest, changes)
            exact = abs(_along(alone, axis, Fraction(1)))
            assert exact <= _exact(size[0]), place
            largest[place] = max(largest[place], float(exact / _exact(size[0])))
    assert (largest > np.array([0.5, 0.5 if order == 3 else 3e-4, 0.003]))[:order].all(), largest


@pytest.mark.parametrize("order", [2, 3])
def test_rounding_of_squares_counts_along_the_axis_too(order: int) -> None:
    rng = np.random.default_rng(2269)
    axis = unit(np.ones(3))
    changes, largest = Changes(wide(1.0), wide(1e-25), axis), 0.0
    for _ in range(10):
        # Three functions whose first order is zero along the axis, exactly.
        first = rng.integers(-99, 99, (1, 1, 3, 1)) / 128.0 * np.array([1.0, 2.0, -3.0])
        nothing = np.zeros((1, 1, 3))
        p = of_order(
            order, rng.standard_normal((1, 1, 3)), first, np.zeros((1, 1, 3, 3, 3)), np.zeros((10, 1, 1, 3)), nothing, changes
        )
        squares = Form.zero(3, 0, order)
        squares.add_outer(p, wide(rng.uniform(0.5, 1.0, (1, 1))))
        squares.close(1, changes.reach)
        for row, column in np.ndindex(3, 3):
            off = abs(sum(_exact(t) for t in squares.tail[:, row, :, column].ravel())) * Fraction(float(axis[0])) ** 2
            rest = _exact(squares.rest[row, column])
            assert off <= rest
            largest = max(largest, float(off / rest))
    assert largest > 1e-4


@pytest.mark.parametrize("order", [2, 3])
def test_rounding_of_sums_counts_along_the_axis_too(order: int) -> None:
    rng = np.random.default_rng(2213)
    axis = unit(np.ones(3))
    changes = Changes(wide(1.0), wide(1e-25), axis)
    at, x = triples(3), Fraction(float(axis[0]))
    largest = np.zeros(2)
    for _ in range(10):
        w = np.array([1.0, 2.0, -3.0]) * rng.integers(1, 4)
        # Three functions, and all that they are made of has a factor w . delta, which is zero along the axis.
        a, b, c = rng.integers(-99, 99, (3, 1, 1, 3)) / 128.0
        numbers = np.zeros((1, 1, 3)), a[..., None] * w, b[..., None, None] * np.outer(w, w)
        cubes = np.moveaxis(c[..., None] * _packed(_product(w, w, w)), -1, 0)
        nothing = np.zeros((1, 1, 3))
        p, q = (of_order(order, x, *numbers[1:], cubes, nothing, changes) for x in (nothing, rng.standard_normal((1, 1, 3))))
        summed, squares = (Form.zero(3, len(p.third), order) for _ in range(2))
        summed.add(slice(3), q, q, 2, 1.0)
        squares.add_mixed(p if order == 3 else q, wide(rng.uniform(0.5, 1.0, (1, 1))))
        if order == 2:
            # What doubles round by is relative to all terms: |q0| |q2| |delta|²/2 for q, and from both sides for q q.
            value, length = np.abs(q.value[0, 0]), np.sqrt((q.second[0, 0] ** 2).sum(axis=(1, 2)))
            mixed = 0.5 * np.outer(value, length) * float(changes.reach) ** 2
            assert (summed.blur >= mixed + mixed.T).all() and (squares.blur >= 2.0 * 0.5 * mixed).all()
        for place, form in enumerate((summed, squares)):
            form.close(1, changes.reach)
            for row, column in np.ndindex(3, 3):
                if order == 3:
                    entries = [Fraction(float(t)) * int(n) for t, n in zip(form.third[:, row, column], at.copies, strict=True)]
                else:
                    entries = [Fraction(float(t)) for t in form.tail[:, row, :, column].ravel()]
                off, rest = abs(sum(entries)) * x**order, _exact(form.rest[row, column])
                assert off <= rest, place
                largest[place] = max(largest[place], float(off / rest))
    assert (largest > 1e-5).all(), largest


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize(("along", "across"), [(0.02, 0.001), (0.001, 0.02), (0.01, 0.01)])
def test_rests_of_forms_hold_in_a_slab(along: float, across: float, order: int) -> None:
    rng = np.random.default_rng(2131)
    largest = np.zeros(5)
    for _ in range(6):
        changes = _changes(rng, 3, along, across)
        made = Operations(rng, changes, "tanh", order)
        for delta in corners(rng, changes, 3, 20):
            made.check(delta)
        largest = np.maximum(largest, made.largest)
    assert (largest[:3] > 0.05).all(), largest


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("case", CASES[1::2])
@pytest.mark.parametrize(("along", "across"), [(0.3, 0.05), (0.05, 0.3)])
def test_rests_of_the_hessian_hold_in_a_slab(case: Case, along: float, across: float, order: int) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2137)
    size = obj.num_params
    centre = 0.7 * rng.standard_normal(size)
    changes = _changes(rng, size, along, across)
    whole, squares = forms(obj, centre, changes, order=order)
    ball = forms(obj, centre, float(changes.reach), order=order)[0]
    assert whole.rest.max() < ((0.1 if order == 3 else 0.3) if along > across else 1.05) * ball.rest.max()
    for delta in corners(rng, changes, size, 12) * rng.choice([0.5, 1.0, 1.0], 12)[:, None]:
        hessian = obj.hessian(centre + delta).to_dense()
        for eta in (0.02, 0.3, 1.0):
            left = hessian - polynomial(whole, delta) - kept_squares(squares, delta, eta, order)
            for v in (*np.linalg.eigh(left)[1].T, *rng.standard_normal((10, size))):
                assert v @ left @ v >= -np.abs(v) @ (whole.rest + squares.rest / eta) @ np.abs(v) - 1e-13 * (v @ v)


def _random_form(rng: np.random.Generator, size: int, *, cubic: bool) -> Form:
    head, half, tail, rest = (wide(rng.standard_normal((size,) * order)) for order in (2, 3, 4, 2))
    count = len(triples(size).k) if cubic else 0
    third = rng.standard_normal((count, size, size))
    nothing = wide(np.zeros((size, size)))
    return Form(head, half, tail, third + third.swapaxes(1, 2), np.abs(rest + rest.T), nothing, nothing)


def _rows(form: Form) -> Array:
    size = len(form.head)
    return tensor(form).transpose(0, 3, 1, 2, 4).reshape(size * size, -1)


def _matrix(whole: Form, squares: Form, changes: Changes, radius: float, claim: float, slab: Slab) -> Array:
    """The check's matrix, with the cubic term's bound compared with the term written out."""
    size, d, tau, term = len(whole.head), changes.axis, slab.taylor.tau, None
    if tau is not None:
        term = cubic_term(whole, changes, slab.narrow, tau, np.inf)
        assert term is not None
        rows = _rows(whole) if d is None else narrowed(_rows(whole), size, d, slab.narrow)
        # Einsum's own errors come in.
        assert (np.abs(term.squared - rows @ rows.T) <= 3.0 * term.blur + 1e-300).all()
        assert term.blur.max() <= 1e-12 * np.abs(_rows(whole) @ _rows(whole).T).max() + 1e-299
    matrix, error = whole_matrix(whole, squares, term, changes, radius, claim, slab)
    assert error.max() < 1e-11 * np.abs(matrix).max() and np.array_equal(matrix, matrix.T)
    assert (error >= 64.0 * UNIT * np.abs(matrix).sum(axis=1)).all()
    return matrix


def _of(delta: Array, v: Array, radius: float) -> Array:
    return np.concatenate([v, np.outer(delta, v).ravel() / radius])


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("axis", [False, True])
@pytest.mark.parametrize("size", [1, 3])
def test_the_matrix_is_below_the_polynomial(size: int, order: int, *, axis: bool) -> None:
    rng = np.random.default_rng(2089)
    for _ in range(12):
        whole, squares = _random_form(rng, size, cubic=order == 3), _random_form(rng, size, cubic=False)
        radius, claim, share = rng.uniform(0.2, 1.5), rng.standard_normal(), rng.uniform(0.1, 1.0)
        changes, narrow = Changes.ball(radius), 1.0
        if axis:
            # For one parameter nothing is across.
            across = 0.0 if size == 1 else radius * rng.uniform(0.1, 1.0)
            changes, narrow = _changes(rng, size, radius * rng.uniform(0.1, 1.0), across), rng.uniform(0.3, 1.0)
        lam, along = rng.standard_normal((2, size, size))
        # For one parameter this divides the cubic term without loss.
        tau = float(changes.reach) / narrow**4 / np.abs(tensor(whole)).max() if order == 3 else None
        taylor = TaylorMultipliers(
            lam @ lam.T, rng.standard_normal((size,) * 3), share, tau, rng.uniform(0.5, 2.0, size), np.zeros((1, 1)), np.ones(1)
        )
        matrix = _matrix(whole, squares, changes, radius, claim, Slab(0.0, 1.0, along @ along.T, narrow, taylor))
        rest = whole.rest + squares.rest / share
        nearest = np.inf
        for delta, v in zip(corners(rng, changes, size, 200), rng.standard_normal((200, size)), strict=True):
            v /= np.linalg.norm(v)
            form = polynomial(whole, delta) + kept_squares(squares, delta, share, order)
            value = v @ form @ v - np.abs(v) @ rest @ np.abs(v) - claim
            z = _of(delta, v, radius)
            below = float(z @ matrix @ z)
            assert below <= value + 1e-12 * max(1.0, abs(value))
            nearest = min(nearest, value - below)
        assert size > 1 or nearest < 1e-12


@pytest.mark.parametrize("tau", [1e20, None])
def test_every_multiplier_counts_with_the_whole_of_its_range(tau: float | None) -> None:
    rng = np.random.default_rng(2141)
    size, radius, claim = 3, 0.7, -0.3
    nothing = [wide(np.zeros((size,) * order)) for order in (2, 3, 4, 2, 2, 2)]
    form = Form(*nothing[:3], np.zeros((10, size, size)), *nothing[3:])
    for _ in range(10):
        changes = _changes(rng, size, *rng.uniform(0.05, 0.7, 2))
        lam, along, weights = *rng.standard_normal((2, size, size)), np.ones(size)
        taylor = TaylorMultipliers(lam @ lam.T, np.zeros((size,) * 3), 0.5, tau, weights, np.zeros((1, 1)), np.ones(1))
        matrix = _matrix(form, form, changes, radius, claim, Slab(0.0, 1.0, along @ along.T, 0.6, taylor))
        for delta, v in zip(corners(rng, changes, size, 20), rng.standard_normal((20, size)), strict=True):
            # On the rim they add nothing, and inside they take something off.
            for t, sign in ((1.0, 0.0), (0.9, -1.0)):
                z = _of(t * delta, v, radius)
                value = float(z @ matrix @ z) + claim * (v @ v)
                assert abs(value) < 1e-13 * np.abs(matrix).max() if sign == 0.0 else value < -1e-3


@pytest.mark.parametrize(("along", "across"), [(1.3, 0.0), (0.6, 1e-9), (0.0, 0.9)])
def test_the_cubic_term_is_divided_without_loss_where_it_has_one_direction(along: float, across: float) -> None:
    rng = np.random.default_rng(2143)
    size, radius = 3, 1.4
    for omega in (0.3, 0.8, 1.0):
        changes = _changes(rng, size, along, across)
        d = changes.axis
        assert d is not None
        g = d / (d @ d) if along else corners(rng, changes, size, 1)[0] / across
        v = np.eye(size)[1]
        third = _packed(-_product(g, g, g))[:, None, None] * np.outer(v, v)
        nothing = [wide(np.zeros((size,) * order)) for order in (2, 3, 4, 2, 2, 2)]
        whole = Form(*nothing[:3], third, *nothing[3:])
        squares = Form(*nothing[:3], np.zeros((0, size, size)), *nothing[3:])
        chi = across**2 + along**2 * (d @ d) / omega**2
        tau = chi / along * (d @ d) / omega**2 if along else chi / across
        taylor = TaylorMultipliers(
            1e-20 * np.eye(size), np.zeros((size,) * 3), 0.5, tau, np.ones(size), np.zeros((1, 1)), np.ones(1)
        )
        matrix = _matrix(whole, squares, changes, radius, 0.0, Slab(0.0, 1.0, 1e-20 * np.eye(size), omega, taylor))
        delta = along * d if along else across * g
        z = _of(delta, v, radius)
        assert float(z @ matrix @ z) == pytest.approx(-((along or across) ** 3), rel=1e-8)
        assert v @ cubic(whole, delta) @ v == pytest.approx(-((along or across) ** 3), rel=1e-12)


def test_slabs_and_their_changes_are_all_of_the_ball() -> None:
    rng = np.random.default_rng(2153)
    for size in (1, 2, 5):
        for _ in range(20):
            radius = 10.0 ** rng.uniform(-12.0, 1.0)
            centre, d = rng.standard_normal(size), unit(rng.standard_normal(size))
            region = ph.Ball(centre, radius).bind(
                ph.Objective(ph.MLP([size, 1], bias=False), ph.Dataset(np.ones((1, size)), [0.0]))
            )
            cuts = np.sort(np.r_[-1.0, rng.uniform(-1.0, 1.0, 4), 1.0])
            cells = []
            for low, high in pairwise(cuts.tolist()):
                slab = Slab(low, high, np.zeros(0), 1.0, None)  # type: ignore[arg-type]
                middle, changes = changes_of(region, SlabMultipliers(d, ()), slab)
                cells.append((middle, changes))
                inner = 0.0 if low < 0.0 < high else min(abs(low), abs(high))
                assert float(changes.along) == pytest.approx(0.5 * radius * (high - low), rel=1e-6)
                expected = radius * np.sqrt(max(0.0, 1.0 - inner**2))
                assert float(changes.across) == pytest.approx(expected, rel=1e-6, abs=1e-6 * radius)
                # With the distance of the middle that is meant, exactly.
                axis, r = [Fraction(x) for x in d.tolist()], Fraction(radius)
                m = r * (Fraction(low) + Fraction(high)) / 2
                off = [Fraction(c) + m * x - _exact(y) for c, x, y in zip(centre.tolist(), axis, middle, strict=True)]
                square = sum(x * x for x in axis)
                on = sum(x * y for x, y in zip(axis, off, strict=True)) / square
                assert _exact(changes.along) >= r * (Fraction(high) - Fraction(low)) / 2 + abs(on)
                beside = sum((y - on * x) ** 2 for x, y in zip(axis, off, strict=True))
                room = _exact(changes.across) - Fraction(float(beside) ** 0.5 * (1.0 - 1e-9))
                assert room >= 0 and room**2 >= r * r * (1 - Fraction(inner) ** 2 * square)
            u = rng.standard_normal((300, size))
            u *= (rng.choice([1.0, 0.999, 0.5], 300) / np.linalg.norm(u, axis=1))[:, None]
            # Every point, of the rim as well, is in the slab of its t; here in long doubles.
            u, exact = wide(u), wide(d)
            t = u @ exact / (exact @ exact)
            for place, (middle, changes) in enumerate(cells):
                inside = (t >= cuts[place]) & (t <= cuts[place + 1])
                delta = wide(centre) + wide(radius) * u[inside] - middle
                s = delta @ exact / (exact @ exact)
                y = delta - s[:, None] * exact
                room = 1e-17 + 1e-17 * radius
                assert (np.abs(s) <= changes.along + room).all()
                assert (np.sqrt((y * y).sum(axis=1)) <= changes.across * (1.0 + 1e-15) + room).all()
