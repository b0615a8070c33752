"""The independent check of certificates by units: narrow cells of a ball, with the others' changes relaxed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.optimize import minimize

import pyhess as ph
from pyhess.certify import prove
from pyhess.certify.reference_arithmetic import Doubles, using
from pyhess.certify.reference_definite import Arrow
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_unit_groups import Groups
from pyhess.certify.reference_unit_relaxed import UnitRelaxed
from pyhess.certify.reference_unit_relaxed_cells import CellPoints, Expanded, Rests
from pyhess.certify.reference_unit_relaxed_choice import Mixture, lowest
from pyhess.certify.reference_unit_relaxed_forms import Bounded, Forms, Multipliers, Room
from pyhess.certify.reference_unit_relaxed_others import Numbers, Others, quotients

from .conftest import trained_problem
from .slow_taylor_cases import Array

#: Widths, activation, parametrization, bias, and whether the data have weights.
CASES: list[tuple[list[int], str, str, bool, bool]] = [
    ([2, 3, 1], "tanh", "standard", True, False),
    ([3, 4, 1], "gelu", "ntk", False, True),
    ([1, 3, 1], "sigmoid", "ntk", True, True),
    ([2, 2, 1], "softplus", "standard", False, False),
    ([1, 2, 1], "identity", "standard", True, True),
    ([2, 1, 1], "tanh", "ntk", True, False),
    ([2, 1, 1], "softplus", "standard", False, True),
]


@pytest.fixture(autouse=True)
def _doubles() -> Iterator[None]:
    with np.errstate(all="ignore"):
        yield


def _objective(case: tuple[list[int], str, str, bool, bool], rng: np.random.Generator) -> ph.Objective:
    widths, name, kind, bias, weighted = case
    x = rng.standard_normal((6, widths[0]))
    x[2] = 0.0
    weights = rng.uniform(0.2, 3.0, 6) if weighted else None
    net = ph.MLP(widths, name, bias=bias, parametrization=kind, beta=1.7 if name == "softplus" else 1.0)
    return ph.Objective(net, ph.Dataset(x, rng.standard_normal(6), weights))


class _Cell(NamedTuple):
    """A cell, all that is made of it, and where its parameters are."""

    obj: ph.Objective
    centre: Array
    radius: float
    relaxed: UnitRelaxed
    t: Array
    h: Array
    others: Others
    found: Expanded
    rests: Rests
    forms: Forms
    room: Room
    own: Array
    rest: Array

    def block(self, e: Array, zeta: Array) -> Array:
        """The unit's block of the residual part at t + h e and the others' changes rho zeta."""
        theta = self.centre.copy()
        theta[self.own] = self.t + self.h * e
        theta[self.rest] += self.others.rho * zeta
        return _block(self.obj, theta, self.own)

    def vector(self, e: Array, zeta: Array, p: Array) -> tuple[Array, Array, Array]:
        """The core's, the leaves' of the units, and the bias's parts of z."""
        size, units = self.forms.size, self.others.units
        inner = units * size
        parts = (zeta[:inner, None] * p).reshape(units, size * size)
        last = zeta[inner:, None] * p
        return np.concatenate([p, (e[:, None] * p).ravel()]), parts, last.ravel()


def _block(obj: ph.Objective, theta: Array, own: Array) -> Array:
    part = obj.hessian(theta).to_dense() - obj.gauss_newton(theta).to_dense()
    return np.asarray(part[np.ix_(own, own)])


def _cell(case: tuple[list[int], str, str, bool, bool], rng: np.random.Generator, radius: float, half: float, *,
          away: float = 0.4, unit: int = 0, level: int = 2) -> _Cell:  # fmt: skip
    """A cell at a distance from the centre, both in units of the radius."""
    obj = _objective(case, rng)
    centre = 0.8 * rng.standard_normal(obj.num_params)
    relaxed = UnitRelaxed.of(Problem.of(obj), ph.Ball(centre, radius).bind(obj), unit)
    assert relaxed is not None
    groups = Groups.of(Problem.of(obj))
    own = groups.units[unit]
    rest = np.concatenate([*(places for k, places in enumerate(groups.units) if k != unit), groups.biases])
    direction = rng.standard_normal(len(own))
    t = centre[own] + away * radius * direction / np.linalg.norm(direction)
    h = half * radius * rng.uniform(0.3, 1.0, len(own))
    with using(Doubles()):
        others = relaxed._others(level)
        points = CellPoints(relaxed.numbers, t[None], h[None])
        rho = relaxed._left(t[None], h[None])
        assert rho[0] <= others.rho
        found = points.expanded(others)
        rests = points.rests(others, rho, found.r0)
        forms = Forms(points, others, found)
        room = relaxed._room(t[None], h[None], rho, others)
    return _Cell(obj, centre, radius, relaxed, t, h, others, found, rests, forms, room, own, rest)


def _points(cell: _Cell, rng: np.random.Generator, count: int) -> Iterator[tuple[Array, Array, Array]]:
    """e, also corners, zeta, as long as the ball allows, and unit vectors p."""
    size, more = cell.forms.size, len(cell.rest)
    for k in range(count):
        e = rng.uniform(-1.0, 1.0, size)
        e = np.sign(e) if k % 2 else e
        left = cell.radius**2 - ((cell.t + cell.h * e - cell.centre[cell.own]) ** 2).sum()
        zeta = rng.standard_normal(more) * 10.0 ** rng.uniform(-1.0, 0.0, more)
        if more:
            zeta *= np.sqrt(max(left, 0.0)) / cell.others.rho / np.linalg.norm(zeta)
        p = rng.standard_normal(size)
        if left >= 0.0:
            yield e, zeta, p / np.linalg.norm(p)


def _cubic(cell: _Cell, zeta: Array, p: Array) -> tuple[float, float, float]:
    """The term of the third order, |M'(zeta x p)|² and |zeta x zeta x p|², unit by unit summed."""
    size = cell.forms.size
    low, high = np.triu_indices(size)
    total, turned, square = 0.0, 0.0, 0.0
    for k, rows in enumerate(cell.forms.cubic[0]):
        own = zeta[k * size : (k + 1) * size]
        pairs = own[low] * own[high] * np.where(low == high, 1.0, np.sqrt(2.0))
        y, image = np.outer(pairs, p).ravel(), rows.T @ np.outer(own, p).ravel()
        total, turned, square = total + image @ y, turned + image @ image, square + y @ y
    return total, turned, square


def _kept(cell: _Cell, e: Array, zeta: Array, p: Array) -> float:
    core, parts, last = cell.vector(e, zeta, p)
    forms = cell.forms
    total = core @ forms.core[0] @ core
    for part, leaf, cross in zip(parts, forms.leaf[0], forms.cross[0], strict=True):
        total += part @ leaf @ part + 2.0 * part @ cross @ core
    if forms.bias is not None:
        total += 2.0 * last @ forms.bias[0] @ core
    return float(total + _cubic(cell, zeta, p)[0])


def _left_out(cell: _Cell, p: Array) -> float:
    numbers = cell.relaxed.numbers
    sigma, nu = numbers.x @ p[:-1], p[-1]
    return float((numbers.mass * (cell.rests.a[0] * sigma**2 + 2.0 * cell.rests.b[0] * np.abs(sigma * nu))).sum())


def _derivatives(cell: _Cell, s: Array, orders: int) -> list[Array]:
    """At points, to a few units of the last place."""
    with using(Doubles()):
        return cell.relaxed.numbers.at(s, 0.0 * s, orders).at


@pytest.mark.parametrize("case", CASES)
def test_other_units_are_their_polynomials(case: Any) -> None:
    rng = np.random.default_rng(2539)
    cell = _cell(case, rng, 1.3, 0.1, away=0.1, level=0)
    others, x, most = cell.others, cell.relaxed.numbers.x, np.zeros(2)
    weights = cell.centre[np.delete(Groups.of(Problem.of(cell.obj)).units, 0, axis=0)][:, :-1].reshape(-1, x.shape[1])
    s = weights @ x.T
    f0, f1 = others.series.at[:2]
    bend, slope = others.bend, others.slope
    for share in np.linspace(-1.0, 1.0, 41):
        tau = share * others.rho * np.linalg.norm(x, axis=1)
        at = _derivatives(cell, s + tau, 1)[0]
        off = np.abs(at - (f0 + f1 * tau + bend.level * tau**2 + bend.slope * tau**3))
        assert (off <= bend.eps * tau**2 + 1e-14).all()
        off_slope = np.abs(at - (f0 + slope.level * tau + slope.slope * tau**2))
        assert (off_slope <= slope.eps * np.abs(tau) + 1e-14).all()
        if abs(share) > 0.9 and case[1] != "identity":
            for k, (size, rest) in enumerate(((off, bend.eps * tau**2), (off_slope, slope.eps * np.abs(tau)))):
                most[k] = max(most[k], (size / np.maximum(rest, 1e-10)).max(initial=0.0))
    assert case[1] == "identity" or not others.units or (most >= 0.8).all(), most


def _exact(name: str, s: Decimal) -> tuple[Decimal, Decimal]:
    """Phi and phi' in as many digits as there are."""
    if name == "identity":
        return s, Decimal(1)
    if name == "gelu":
        density = (-s * s / 2).exp() * Decimal("0.39894228040143267793994605993438186847585863116493465766592583")
        total, term, k = Decimal(0), s, 1
        while abs(term) > Decimal("1e-60"):
            total, term, k = total + term, term * s * s / (k + 2), k + 2
        share = Decimal("0.5") + density * total
        return s * share, share + s * density
    sharp = Decimal({"tanh": 2.0, "softplus": 1.7, "sigmoid": 1.0}[name])
    power = (-s * sharp).exp()
    share = 1 / (1 + power)
    if name == "softplus":
        return s + (1 + power).ln() / sharp, share
    return (2 * share - 1, 4 * share * (1 - share)) if name == "tanh" else (share, share * (1 - share))


@pytest.mark.parametrize("name", ["tanh", "gelu", "sigmoid", "softplus", "identity"])
@pytest.mark.parametrize("width", [3.0, 1.0, 0.1, 0.01, 1e-5, 1e-12])
@pytest.mark.parametrize("unsure", [0.0, 1e-13, 1e-3, 0.1])
def test_lines_near_the_quotients(name: str, width: float, unsure: float) -> None:
    rng = np.random.default_rng(2609)
    s = np.array([[0.0, 0.3, -0.7, 1.1, 2.3, -3.1, 7.0, -9.0]])
    off, reach = unsure + 1e-15 * np.abs(s), width + 0.0 * s
    net = ph.MLP([1, 1, 1], name, beta=1.7 if name == "softplus" else 1.0)
    numbers = Numbers.of(Problem.of(ph.Objective(net, ph.Dataset(np.ones((1, 1)), np.ones(1)))))
    with using(Doubles()):
        bend, slope = quotients(numbers, s, off, reach, numbers.at(s, off, 4))
    most = np.zeros(2)
    with localcontext() as context:
        context.prec = 70
        for place, at in enumerate(s[0]):
            lines = [[Decimal(float(x[0, place])) for x in (line.level, line.slope, line.eps)] for line in (bend, slope)]
            for k in range(24):
                t = Decimal(width * float(rng.uniform(-1.0, 1.0) if k > 3 else (-1.0, 1.0, 0.001, -0.0003)[k]))
                point = Decimal(float(at)) + Decimal((k % 3 - 1) * float(off[0, place]))
                f, along = _exact(name, point)
                rise = _exact(name, point + t)[0] - f
                for kind, quotient in enumerate(((rise - along * t) / t**2, rise / t)):
                    distance, eps = abs(quotient - lines[kind][0] - lines[kind][1] * t), lines[kind][2] + Decimal("1e-30")
                    assert distance <= eps
                    most[kind] = max(most[kind], float(distance / eps))
    if name != "identity" and width >= 0.1 and unsure <= 1e-13:
        assert (most >= 0.85).all(), most


@pytest.mark.parametrize("name", ["tanh", "gelu", "sigmoid", "softplus"])
def test_lines_are_nearer_than_taylors_and_no_worse_where_these_are_better(name: str) -> None:
    s = np.linspace(-2.5, 2.5, 51)[None]
    net = ph.MLP([1, 1, 1], name)
    numbers = Numbers.of(Problem.of(ph.Objective(net, ph.Dataset(np.ones((1, 1)), np.ones(1)))))
    off = 1e-15 * np.abs(s)
    with using(Doubles()):
        series = numbers.at(s, off, 4)
        for width, share in ((2.0, 0.5), (1.0, 0.8), (0.1, 0.98), (1e-3, 1.0 + 1e-3), (1e-8, 1.05)):
            bend, slope = quotients(numbers, s, off, width + 0.0 * s, series)
            third, fourth = numbers.over(s, width + 0.0 * s, (3, 4))
            for line, x, by, floor in ((bend, fourth, 48.0, 1e-12), (slope, third, 12.0, 1e-12)):
                taylor = ((np.maximum(x.hi, 0.0) - np.minimum(x.lo, 0.0)) * width**2 / by).astype(np.float64)
                assert np.median(line.eps / (taylor + floor)) <= share


def test_lines_know_what_the_numbers_are_off_by() -> None:
    """At the points nearest to zero, where Taylor's are not nearer."""
    s, width = np.linspace(-2.5, 2.5, 21)[None], 3.0
    net = ph.MLP([1, 1, 1], "tanh")
    numbers = Numbers.of(Problem.of(ph.Objective(net, ph.Dataset(np.ones((1, 1)), np.ones(1)))))
    first, reach = width / 16.0, width + 0.0 * s
    with using(Doubles()):
        series = numbers.at(s, 0.0 * s, 4)
        third, fourth = numbers.over(s, reach, (3, 4))
        taylor = [((x.hi - x.lo) * width**2 / by).astype(np.float64) for x, by in ((fourth, 48.0), (third, 12.0))]
        for delta in 10.0 ** np.linspace(-5.0, 0.0, 26):
            for order, least in enumerate(((1.0 / first**2, 1.0 / first), (1.0 / first, 1.0), (0.5, 0.0))):
                off = [e + delta * (k == order) for k, e in enumerate(series.off)]
                for line, share, other in zip(
                    quotients(numbers, s, 0.0 * s, reach, replace(series, off=off)), least, taylor, strict=True
                ):
                    assert (line.eps >= np.minimum(share * delta, other) * (1.0 - 1e-9)).all()


@pytest.mark.parametrize("case", CASES)
def test_sizes_of_the_unit_and_what_is_left_out(case: Any) -> None:
    rng = np.random.default_rng(2543)
    cell = _cell(case, rng, 0.9, 0.7, away=0.3, level=0)
    numbers, size = cell.relaxed.numbers, cell.forms.size
    with using(Doubles()):
        points = CellPoints(numbers, cell.t[None], cell.h[None])
        sizes = [[x[0] for x in orders] for orders in points._sizes(points.series.sizes)]
    low, high = np.triu_indices(size)
    found = cell.found
    constants = (found.a[0][0], found.b[0][0] * np.ones(len(numbers.x)), found.r0[0] - cell.others.constant)
    firsts = (found.a[1][0], found.b[1][0], found.g[0][0])
    seconds = (found.a[2][0], found.b[2][0], found.g[1][0])
    most = np.zeros((3, 4))
    corners = np.array(np.meshgrid(*[[-1.0, 0.7, 1.0]] * size)).reshape(size, -1).T
    for e in corners:
        w, v = np.split(cell.t + cell.h * e, [size - 1])
        f0, f1, f2 = _derivatives(cell, numbers.x @ w, 3)
        exact = (numbers.k2 * v * f2, numbers.k2 * f1, numbers.k2 * v * f0)
        pairs = e[low] * e[high] * np.where(low == high, 1.0, 2.0)
        for k in range(3):
            one, two = firsts[k] @ e, seconds[k] @ pairs
            parts = [constants[k], one, two, exact[k] - constants[k] - one - two]
            for order, part in enumerate(parts):
                assert (np.abs(part) <= sizes[k][order] * (1.0 + 1e-12) + 1e-14).all()
                some = sizes[k][order] > 1e-6
                most[k, order] = max(most[k, order], (np.abs(part) / np.maximum(sizes[k][order], 1e-6))[some].max(initial=0.0))
    if case[1] != "identity":
        assert (most[:, 1:3] >= 0.99).all() and (most[:, 3] >= 0.25).all(), most
    # From the formulas.
    rho, fine = cell.relaxed._left(cell.t[None], cell.h[None])[0], cell.others.fine
    _, g1, g2, g3 = sizes[2]
    o1, o2, o3, o4 = rho * fine.first, rho**2 * fine.second, rho**3 * fine.third, rho**2 * cell.others.rest
    for (c0, c1, c2, c3), rest in ((sizes[0], cell.rests.a[0]), (sizes[1], cell.rests.b[0])):
        expected = np.abs(found.r0[0]) * c3 + g1 * (c2 + c3) + g2 * (c1 + c2 + c3) + g3 * (c0 + c1 + c2 + c3) + o1 * (c2 + c3)
        expected += (o2 + o3) * (c1 + c2 + c3) + o4 * (c0 + c1 + c2 + c3)
        assert (expected * (1.0 - 1e-15) <= rest).all() and np.allclose(expected, rest, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_sizes_of_the_others(case: Any) -> None:
    rng = np.random.default_rng(2549)
    cell = _cell(case, rng, 0.9, 0.1, away=0.1, level=0)
    numbers, fine, groups = cell.relaxed.numbers, cell.others.fine, Groups.of(Problem.of(cell.obj))
    own = [k for k in range(len(groups.units)) if k]
    for i, x in enumerate(numbers.x):
        long, first, second, third, rest = float(np.linalg.norm(x)), float(numbers.bias), 0.0, 0.0, 0.0
        for place, k in enumerate(own):
            v = abs(cell.centre[groups.units[k][-1]])
            f0, f1 = (abs(f[place, i]) for f in cell.others.series.at[:2])
            bend, cube, eps2 = (abs(f[place, i]) for f in vars(cell.others.bend).values())
            slope, square, eps1 = (abs(f[place, i]) for f in vars(cell.others.slope).values())
            first += (v * f1 * long) ** 2 + f0**2
            for a, b, kind in ((v * bend * long**2, slope * long / 2.0, 0), (v * eps2 * long**2, eps1 * long / 2.0, 1)):
                largest = float(np.linalg.eigvalsh(np.array([[a, b], [b, 0.0]]))[-1])
                second, rest = (max(second, largest), rest) if kind == 0 else (second, max(rest, largest))
            third = max(third, v * cube * long**3 + square * long**2 * 2.0 / (3.0 * np.sqrt(3.0)))
        expected = numbers.k2 * np.array([np.sqrt(first), second, third, rest])
        given = np.array([fine.first[i], fine.second[i], fine.third[i], cell.others.rest[i]])
        assert (given >= expected * (1.0 - 1e-14)).all() and np.allclose(given, expected, rtol=1e-10, atol=1e-12)


def test_numbers_that_are_off_count_with_it() -> None:
    cell = _cell(CASES[0], np.random.default_rng(2551), 0.3, 0.1, level=0)
    numbers, s = cell.relaxed.numbers, np.linspace(-3.0, 3.0, 40)[None]
    with using(Doubles()):
        for off in (0.1, 1e-9):
            series = numbers.at(s, off + 0.0 * s, 4)
            for k in range(4):
                for end in (-1.0, 0.3, 1.0):
                    exact = numbers.at(s + end * off, 0.0 * s, 4).at[k]
                    assert (np.abs(exact - series.at[k]) <= series.off[k] + 1e-14).all()
                assert (series.sizes[k] >= np.abs(series.at[k]) + series.off[k]).all()
                assert (0.25 * numbers.eta * series.padded(numbers.eta)[k] >= series.off[k] * (1.0 - 1e-12)).all()
        # A product of many numbers, known no better than this, is rounded by less than eta of the sizes.
        w = np.array([[0.3, -0.7, 1.1]])
        value, blur = numbers.preactivations(w)
        assert (np.abs(value - (w @ numbers.x.T)) <= blur).all() and (blur >= 30.0 * 2.0**-53 * np.abs(value)).all()
    sizes = (numbers.mass * (np.abs(cell.found.r0[0] * cell.found.b[0][0]) * numbers.size)).sum()
    assert 1e-13 * sizes <= cell.rests.blur[0] <= 1e-6 * sizes


@pytest.mark.parametrize("case", [CASES[1], CASES[2]])
def test_cells_contain_the_effective_weights(case: Any) -> None:
    """Also where these are rounded: NTK scales and cells of a few units of the last place."""
    rng = np.random.default_rng(2557)
    relaxed = _cell(case, rng, 0.3, 0.1, level=0).relaxed
    scales = [np.longdouble(1.0) / np.sqrt(np.longdouble(n)) for n in case[0][:2]]
    exact = np.array([*[scales[0]] * (relaxed.size - 1), scales[1]])
    low = rng.standard_normal((200, relaxed.size))
    for width in (0.1, 1e-13, 4e-16):
        high = low + width
        t, h = relaxed._parameters(np.stack([low, high], axis=1))
        for end in (low, high):
            assert (np.abs(end.astype(np.longdouble) / exact - t) <= h).all()
        assert (h <= width * 2.0 + 1e-12).all()


def test_multipliers_are_definite() -> None:
    a = np.zeros((1, 3, 3))
    a[0] = np.outer([1.0, 1e-3, 7.0], [3.0, 1.0, 2.0])
    found = Multipliers.of(a, a[:, None], np.ones(1), np.exp(a[:, None]))
    turn = found.turns[0, 0]
    assert np.array_equal(turn, -turn.T) and np.allclose(2.0 * turn, np.exp(a[0]) - np.exp(a[0]).T, rtol=1e-10)
    for lam in (found.ball[0], found.sides[0, 0]):
        assert np.array_equal(lam, lam.T)
        assert np.linalg.eigvalsh(lam - 0.5e-13 * (a * a).sum() * np.eye(3))[0] >= -1e-13
        assert np.linalg.eigvalsh(lam)[0] >= 0.3e-13 * (a * a).sum()
        assert np.allclose(lam, a[0] @ a[0].T, rtol=1e-10)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("radius", "half", "away"), [(0.3, 0.1, 0.4), (1.5, 0.3, 0.6), (0.02, 0.05, 0.1)])
def test_polynomials_are_the_block_but_for_their_rests(case: Any, radius: float, half: float, away: float) -> None:
    rng = np.random.default_rng(2467)
    for unit in range(min(2, case[0][1])):
        cell = _cell(case, rng, radius, half, away=away, unit=unit, level=0)
        for e, zeta, p in _points(cell, rng, 60):
            exact, kept, rest = p @ cell.block(e, zeta) @ p, _kept(cell, e, zeta, p), _left_out(cell, p)
            assert abs(exact - kept) <= rest * (1.0 + 1e-9) + cell.rests.blur[0] + 1e-13
            assert cell.rests.blur[0] <= 1e-8


CURVED = [case for case in CASES if case[1] != "identity"]


@pytest.mark.parametrize("case", CURVED)
def test_rests_are_of_the_third_order(case: Any) -> None:
    found = []
    for k in range(4):
        cell = _cell(case, np.random.default_rng(2473), 0.1 * 0.5**k, 0.3, away=0.3, level=0)
        found.append(float((cell.rests.a + cell.rests.b).sum()))
    ratios = np.array(found[1:]) / np.array(found[:-1])
    assert (np.abs(ratios[1:] - 0.125) <= 0.02).all(), ratios


@pytest.mark.parametrize("case", CURVED)
def test_rests_are_nearly_reached(case: Any) -> None:
    """Where all terms are large."""
    rng = np.random.default_rng(2477)
    cell = _cell(case, rng, 0.4, 0.6, away=0.1, level=0)
    most = 0.0
    for e, zeta, p in _points(cell, rng, 400):
        most = max(most, abs(p @ cell.block(e, zeta) @ p - _kept(cell, e, zeta, p)) / _left_out(cell, p))
    assert 0.01 <= most <= 1.0, most


def _multipliers(cell: _Cell, rng: np.random.Generator) -> Multipliers:
    size, more = cell.forms.size, len(cell.rest)
    turns = rng.standard_normal((1, more, size, size))
    return Multipliers.of(
        rng.standard_normal((1, size, size)), 0.3 * rng.standard_normal((1,) + (size,) * 3), np.array([0.7]), turns
    )


def _value(arrow: Arrow, core: Array, parts: list[Array]) -> float:
    total = core @ arrow.core @ core
    for part, leaf in zip(parts, arrow.leaves, strict=True):
        count = len(leaf.rows)
        total += part @ leaf.rows[:, :count] @ part + 2.0 * part @ leaf.rows[:, count:] @ core[leaf.at]
    return float(total)


@pytest.mark.parametrize("case", CASES)
def test_the_matrix_is_below_the_block(case: Any) -> None:
    rng = np.random.default_rng(2503)
    for radius, half, away in ((0.7, 0.1, 0.5), (0.3, 0.2, 1.05), (1e-3, 0.1, 0.2)):
        cell = _cell(case, rng, radius, half, away=away, level=0)
        multipliers, size = _multipliers(cell, rng), cell.forms.size
        root = rng.standard_normal((size, size))
        taken, claim = (root @ root.T)[None], -1.3
        bounded = Bounded(cell.forms, cell.room, multipliers, taken, cell.rests.blur)
        arrow = bounded.arrow(0, claim)
        lam, sides, tau, unit = multipliers.ball[0], multipliers.sides[0], 0.7, 2.0 ** np.round(np.log2(radius))
        some = False
        for e, zeta, p in _points(cell, rng, 60):
            core, parts, last = cell.vector(e, zeta, p)
            found = _value(arrow, core, [*parts, *([last] if cell.forms.bias is not None else [])])
            for part, leaf in zip(parts, arrow.leaves, strict=False):
                assert np.allclose(leaf.rows[:, : len(part)], leaf.rows[:, : len(part)].T, rtol=0.0, atol=1e-12)
            q = cell.t + cell.h * e - cell.centre[cell.own]
            rho = cell.others.rho
            slack = p @ lam @ p * (radius**2 - q @ q - rho**2 * (zeta @ zeta)) / unit**2
            slack += sum(p @ side @ p * (1.0 - x * x) for side, x in zip(sides, e, strict=True))
            third, turned, square = _cubic(cell, zeta, p)
            most = (cell.relaxed._left(cell.t[None], cell.h[None])[0] / rho) ** 4
            cubic = 0.5 * tau * turned + most / (2.0 * tau)
            assert square <= most * (1.0 + 1e-9) and third >= -cubic and slack >= -1e-12
            expected = _kept(cell, e, zeta, p) - third - cubic - slack - p @ taken[0] @ p - claim
            assert expected - 1.1 * bounded.blur[0] - 1e-11 <= found <= expected
            some = True
        assert some


@pytest.mark.parametrize("case", CASES)
def test_turns_change_the_matrix_but_not_the_form(case: Any) -> None:
    rng = np.random.default_rng(2617)
    cell = _cell(case, rng, 0.7, 0.1, away=0.5, level=0)
    multipliers, taken = _multipliers(cell, rng), np.zeros((1, cell.forms.size, cell.forms.size))
    plain = replace(multipliers, turns=0.0 * multipliers.turns)
    found = [Bounded(cell.forms, cell.room, some, taken, cell.rests.blur) for some in (multipliers, plain)]
    arrows = [bounded.arrow(0, 0.3) for bounded in found]
    # Adding them is rounded.
    rounded = 2.0**-50 * float(np.abs(multipliers.turns).sum())
    assert found[0].blur[0] - found[1].blur[0] >= rounded and found[0].blur[0] <= 1e-6
    size, width = cell.forms.size, cell.forms.size * (1 + cell.forms.size)
    for e, zeta, p in _points(cell, rng, 20):
        core, parts, last = cell.vector(e, zeta, p)
        one, other = (_value(arrow, core, [*parts, *([last] if cell.forms.bias is not None else [])]) for arrow in arrows)
        assert abs(one - other) <= 1e-9 + 1e-12 * float(np.abs(zeta).max(initial=0.0))
    rows = [np.concatenate([leaf.rows[:, -width:] for leaf in arrow.leaves] or [np.zeros((0, width))]) for arrow in arrows]
    change = (rows[0] - rows[1]).reshape(-1, size, width)
    assert np.allclose(change[..., :size], multipliers.turns[0], rtol=0.0, atol=1e-12) and not change[..., size:].any()


def test_turns_are_the_best_for_the_mixture() -> None:
    rng = np.random.default_rng(2621)
    for case in CASES:
        cell = _cell(case, rng, 0.4, 0.2, level=0)
        mixture, slopes = Mixture(cell.forms, cell.room), cell.forms.slopes()[0]
        z, size = mixture.z[0], cell.forms.size
        root = rng.standard_normal((size, size))
        mixture.z[0] = z = z + root @ root.T / size
        total = mixture._linear(slice(None))[0]
        turns = mixture.multipliers().turns[0]
        k = slopes + turns
        assert np.allclose(4.0 * np.einsum("lij,jk,lmk->im", k, z, k), total, rtol=1e-9, atol=1e-12)
        assert np.allclose(k + k.swapaxes(1, 2), 2.0 * slopes, rtol=0.0, atol=1e-12)
        for scale in (1e-3, 0.3):
            other = scale * rng.standard_normal(k.shape)
            other = k + (other - other.swapaxes(1, 2)) * np.abs(k).max(initial=0.0)
            assert np.trace(4.0 * np.einsum("lij,jk,lmk->im", other, z, other)) >= np.trace(total) * (1.0 - 1e-12)


@pytest.mark.parametrize("case", CURVED[:-1])
@pytest.mark.parametrize("away", [0.0, 0.7])
def test_on_tiny_balls_the_first_order_is_the_slopes_length(case: Any, away: float) -> None:
    """With cells much narrower still."""
    rng = np.random.default_rng(2633)
    cell = _cell(case, rng, 1e-4, 1e-4, away=away, level=0)
    theta = cell.centre.copy()
    theta[cell.own] = cell.t

    def value(at: Array) -> float:
        return float(np.linalg.eigvalsh(_block(cell.obj, at, cell.own))[0])

    steps = 1e-5 * np.eye(len(theta))[cell.rest]
    slope = np.array([value(theta + step) - value(theta - step) for step in steps]) / 2e-5
    most = float(np.linalg.norm(slope)) * np.sqrt(cell.radius**2 - ((cell.t - cell.centre[cell.own]) ** 2).sum())
    mixture, found = Mixture(cell.forms, cell.room), []
    for _ in range(3):
        multipliers = mixture.multipliers()
        least = lowest(Bounded(cell.forms, cell.room, multipliers, mixture.taken(cell.rests), cell.rests.blur), cell.forms, 0)
        assert least is not None
        found.append((value(theta) - least.value) / most)
        mixture.learn(np.array([0]), [least], multipliers.ball)
    assert found[0] <= 1.03 and found[1] <= 1.01 and 0.99 <= found[2] <= 1.005, found


def test_matrices_bound_the_rests() -> None:
    rng = np.random.default_rng(2521)
    for case in CASES:
        cell = _cell(case, rng, 0.4, 0.2, level=0)
        mixture = Mixture(cell.forms, cell.room)
        taken = mixture.taken(cell.rests)[0]
        for p in rng.standard_normal((50, cell.forms.size)):
            assert _left_out(cell, p) <= p @ taken @ p * (1.0 + 1e-12)


def _least(cell_obj: ph.Objective, centre: Array, radius: float, own: Array, low: Array, high: Array,
           rng: np.random.Generator) -> float:  # fmt: skip
    """The block's least eigenvalue over a cell and a ball that is found by local minimisation."""
    best, half, middle = np.inf, 0.5 * (high - low), 0.5 * (low + high)

    def place(x: Array) -> Array:
        delta = radius * x / max(1.0, float(np.linalg.norm(x)))
        theta = centre + delta
        theta[own] = np.clip(theta[own], low, high)
        over = float(np.linalg.norm(np.delete(theta - centre, own)))
        room = radius**2 - float(((theta[own] - centre[own]) ** 2).sum())
        if room < over**2:
            others = np.setdiff1d(np.arange(len(centre)), own)
            theta[others] = centre[others] + (theta[others] - centre[others]) * np.sqrt(max(room, 0.0)) / over
        return np.asarray(theta) if room >= 0.0 else centre * np.nan

    def value(x: Array) -> float:
        theta = place(x)
        return float(np.linalg.eigvalsh(_block(cell_obj, theta, own))[0]) if np.isfinite(theta).all() else 1e3

    for _ in range(4):
        start = rng.standard_normal(len(centre))
        start *= rng.uniform(0.6, 1.5) / np.linalg.norm(start)
        start[own] = (middle + half * rng.uniform(-1.0, 1.0, len(own)) - centre[own]) / radius
        best = min(best, minimize(value, start, method="Nelder-Mead", options={"maxfev": 200}).fun, value(start))
    return best


@pytest.mark.parametrize("case", CASES)
def test_no_claim_above_the_least_eigenvalue_is_proved(case: Any) -> None:
    rng = np.random.default_rng(2531)
    proved = 0
    for radius, half, away in ((0.3, 0.02, 0.3), (0.8, 0.05, 0.5), (0.05, 0.09, 0.9)):
        obj = _objective(case, rng)
        centre = 0.8 * rng.standard_normal(obj.num_params)
        relaxed = UnitRelaxed.of(Problem.of(obj), ph.Ball(centre, radius).bind(obj), 0)
        assert relaxed is not None
        own = Groups.of(Problem.of(obj)).units[0]
        direction = rng.standard_normal(len(own))
        t = centre[own] + away * radius * direction / np.linalg.norm(direction)
        low, high = t - half * radius, t + half * radius
        cells = (np.stack([low, high]) * relaxed._scale)[None]
        assert relaxed.promising(cells).all()
        least = _least(obj, centre, radius, own, low, high, rng)
        assert np.isfinite(least)
        scale = abs(least) + 1e-3
        for above in (1e-6, 1e-3, 0.03, 0.3, 3.0):
            assert not relaxed.test(cells, least + above * scale).any()
        accepted = [below for below in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0) if relaxed.test(cells, least - below * scale).all()]
        proved += bool(accepted) and accepted[0] <= 1.0
    assert proved >= 2


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("size", "radius", "reached"),
    [(1.0, 1e-12, True), (1.0, 1e-5, True), (30.0, 0.1, False), (1e6, 1.0, False), (0.0, 0.3, False)],
)
def test_hostile_balls(case: Any, size: float, radius: float, reached: bool) -> None:
    """Tiny ones about centres of size one, saturated units, huge weights, and the origin."""
    rng = np.random.default_rng(2591)
    obj = _objective(case, rng)
    centre = size * rng.standard_normal(obj.num_params)
    own = Groups.of(Problem.of(obj)).units[0]
    relaxed = UnitRelaxed.of(Problem.of(obj), ph.Ball(centre, radius).bind(obj), 0)
    assert relaxed is not None
    for away in (0.0, 0.5, 0.99, 1.02):
        direction = rng.standard_normal(len(own))
        t = centre[own] + away * radius * direction / np.linalg.norm(direction)
        cells = (np.stack([t - 0.05 * radius, t + 0.05 * radius]) * relaxed._scale)[None]
        theta = centre.copy()
        theta[own] = t if away < 0.99 else centre[own] + (t - centre[own]) * (0.98 / away)
        value = float(np.linalg.eigvalsh(_block(obj, theta, own))[0])
        scale = abs(value) + 1e-3
        assert not relaxed.test(cells, value + 1e-6 * scale).any()
        if reached:
            assert relaxed.test(cells, value - (1e-6 + 100.0 * radius) * scale).all()


def test_arb_problems_are_taken() -> None:
    flint = pytest.importorskip("flint")
    from pyhess.certify.reference_arb import in_balls

    assert flint
    obj = _objective(CASES[1], np.random.default_rng(2593))
    region = ph.Ball(np.full(obj.num_params, 0.3), 0.2).bind(obj)
    plain = UnitRelaxed.of(Problem.of(obj), region, 0)
    with in_balls():
        found = UnitRelaxed.of(Problem.of(obj), region, 0)
    assert found is not None and plain is not None
    assert np.allclose(found.numbers.x, plain.numbers.x, rtol=1e-15) and found.numbers.eta <= plain.numbers.eta * (1.0 + 1e-9)


def _tested(detail: str) -> int:
    return int(detail.split("cells of one unit's weights tested")[0].split()[-1])


def test_claims_are_proved_in_fewer_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    obj, centre = trained_problem(2579, [1, 3, 1])
    region, least = ph.Ball(centre, 0.4), -1.1755
    claim = 1.2 * least
    proof = prove(obj, region, "units", claim, time_limit=600.0)
    assert proof.proved, proof.detail
    assert not prove(obj, region, "units", 0.999 * least, time_limit=3.0).proved
    monkeypatch.setattr(UnitRelaxed, "of", staticmethod(lambda *_: None))
    plain = prove(obj, region, "units", claim, time_limit=600.0)
    assert plain.proved and _tested(plain.detail) > 3 * _tested(proof.detail)
