"""The relaxation for narrow cells of one hidden unit's weights in a ball."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import pyhess as ph
from pyhess._threads import blas_single_thread
from pyhess.certify import units
from pyhess.certify.again import fresh_bound
from pyhess.certify.certificate import MethodResult
from pyhess.certify.intervals import Interval
from pyhess.certify.ranges import derivative_range
from pyhess.certify.taylor_triples import triples
from pyhess.certify.unit_expansion import expanded
from pyhess.certify.unit_models import Units
from pyhess.certify.unit_others import OtherUnits
from pyhess.certify.unit_relaxed_cells import RelaxedCells, relaxation_applies
from pyhess.certify.unit_rest import Roots, describe, find_roots
from pyhess.certify.unit_rooms import rooms_left
from pyhess.certify.units import unit_bound

Array = npt.NDArray[np.float64]

ACTIVATIONS = ["tanh", "sigmoid", "softplus", "gelu", "identity"]
STOP = np.zeros(1, dtype=np.int32)


def _problem(seed: int, activation: str, *, inputs: int = 2, units: int = 3, **options: Any) -> ph.Objective:
    rng = np.random.default_rng(seed)
    net = ph.MLP([inputs, units, 1], activation=activation, **options)
    data = ph.Dataset(rng.standard_normal((7, inputs)), rng.standard_normal(7), weights=rng.uniform(0.5, 2.0, 7))
    return ph.Objective(net, data)


class _Case:
    """A ball of a problem, with one of its units by hand."""

    def __init__(self, obj: ph.Objective, centre: Array, radius: float, unit: int = 1) -> None:
        net = obj.net
        self.obj, self.centre, self.radius, self.unit = obj, centre, radius, unit
        (self._first, self._bias), (self._second, self._output) = net.layer_slices
        self._k = net.layer_scales
        region = ph.Ball(centre, radius).bind(obj)
        self.units: Units = describe(obj, region)
        self.roots: Roots = find_roots(obj, self.units)
        self.root = next(k for k, t in enumerate(self.roots.types) if unit in self.units.types[t])
        self.own = self.places(unit)
        self.others = np.setdiff1d(np.arange(obj.num_params), self.own)

    def places(self, unit: int) -> npt.NDArray[np.int64]:
        """Where a unit's parameters are."""
        entering = np.arange(self._first.start, self._first.stop).reshape(self.obj.net.widths[1], -1)[unit]
        bias = [] if self._bias is None else [self._bias.start + unit]
        return np.concatenate([entering, bias, [self._second.start + unit]]).astype(np.int64)

    @property
    def x(self) -> Array:
        data = self.obj.data.X
        return self._k[0] * (data if self._bias is None else np.hstack([data, np.ones((len(data), 1))]))

    def phi(self, order: int, s: Array) -> Array:
        return np.asarray(derivative_range(self.obj.net.activations[0], 1.0, order, Interval.point(s)).middle)

    def outputs(self, theta: Array) -> tuple[Array, Array]:
        """Pre-activations (n, H) and all units' parts of the outputs with the bias (n,)."""
        weights = theta[self._first].reshape(self.obj.net.widths[1], -1)
        weights = weights if self._bias is None else np.hstack([weights, theta[self._bias][:, None]])
        s = self.x @ weights.T
        level = 0.0 if self._output is None else self._k[1] * theta[self._output][0]
        return s, self._k[1] * (self.phi(0, s) * theta[self._second]).sum(axis=1) + level

    def block(self, theta: Array) -> Array:
        """The unit's block of the residual part."""
        s, f = self.outputs(theta)
        r = self.obj.data.normalized_weights * (f - self.obj.targets[:, 0])
        own, v, x = s[:, self.unit], theta[self.own[-1]], self.x
        size = x.shape[1] + 1
        found = np.zeros((size, size))
        found[:-1, :-1] = (x.T * (r * self._k[1] * v * self.phi(2, own))) @ x
        found[:-1, -1] = found[-1, :-1] = x.T @ (r * self._k[1] * self.phi(1, own))
        return found

    def cell(self, q: Array, h: Array) -> Array:
        """A cell (1, 2, …) about centre + q, in effective parameters."""
        size = len(self.own)
        found = np.zeros((1, 2, 2 * size - 1))
        for end, side in enumerate((-1.0, 1.0)):
            found[0, end, :size] = self.roots.centers[self.root] + (q + side * h) / self.roots.inverse
        return found

    def bound(self, cell: Array, target: float = 0.0) -> float:
        relaxed = RelaxedCells(self.obj, self.units, self.roots)
        with blas_single_thread():
            return float(relaxed.bounds(cell, np.array([self.root]), target, STOP)[0])

    def point(self, q: Array, h: Array, e: Array, delta: Array) -> Array | None:
        """Theta for e in [-1, 1] and delta as a share of what is left of the radius; None outside the ball."""
        step = q + h * e
        left = self.radius**2 - step @ step
        if left < 0.0:
            return None
        theta = self.centre.copy()
        theta[self.own] += step
        length = float(np.linalg.norm(delta))
        theta[self.others] += delta * np.sqrt(left) * min(1.0, length) / max(length, 1e-300)
        return theta

    def least(self, q: Array, h: Array, rng: np.random.Generator, steps: int = 120) -> float:
        """The smallest eigenvalue of the block that a random search finds on the cell."""
        best, at = np.inf, (np.zeros(len(q)), np.zeros(len(self.others)))
        for step in range(steps):
            if step < steps // 3:
                e = rng.choice([-1.0, 0.0, 1.0], size=len(q)) if step % 2 else rng.uniform(-1.0, 1.0, len(q))
                delta = rng.standard_normal(len(self.others))
            else:
                e = np.clip(at[0] + 0.3 * rng.standard_normal(len(q)), -1.0, 1.0)
                delta = at[1] + 0.3 * rng.standard_normal(len(self.others))
            theta = self.point(q, h, e, delta)
            value = np.inf if theta is None else float(np.linalg.eigvalsh(self.block(theta))[0])
            if value < best:
                best, at = value, (e, delta)
        return best


def _cases() -> list[tuple[int, str, dict[str, Any]]]:
    options: list[dict[str, Any]] = [{}, {"bias": False}, {"parametrization": "ntk"}, {"units": 1}, {"inputs": 4, "bias": False}]
    return [(311 + k, activation, options[k % len(options)]) for k, activation in enumerate(ACTIVATIONS * 2)]


@pytest.mark.parametrize(("seed", "activation", "options"), _cases())
def test_what_the_others_add(seed: int, activation: str, options: dict[str, Any]) -> None:
    """Values of the polynomials are off by no more than they say, and that is of the fourth order."""
    obj = _problem(seed, activation, **options)
    rng = np.random.default_rng(seed)
    case = _Case(obj, rng.standard_normal(obj.num_params), 0.6, unit=0)
    size, rests = len(case.own), []
    entries = triples(size)
    places = np.stack([entries.k, entries.l, entries.m])
    low, high = np.triu_indices(size)
    own = case.centre[case.own[-1]] * case.obj.net.layer_scales[1]
    for room in (0.6, 0.3):
        others = OtherUnits(obj, case.units, 0, room)
        rests.append(others.rest.max())
        for _ in range(20):
            delta = rng.standard_normal(len(case.others))
            delta *= room * rng.random() ** 0.3 / np.linalg.norm(delta)
            theta = case.centre.copy()
            theta[case.others] += delta
            s, f = case.outputs(theta)
            f = f - own * case.phi(0, s[:, 0])
            by_unit = _by_unit(case, delta)
            flat = np.concatenate([by_unit.ravel(), delta[-1:]]) if obj.net.bias else by_unit.ravel()
            first = flat @ others.linear
            second, third = np.zeros_like(first), np.zeros_like(first)
            for m, d in enumerate(by_unit):
                pairs = np.where(low < high, 2.0, 1.0) * d[low] * d[high]
                counts = np.array([{1: 1.0, 2: 3.0, 3: 6.0}[len(set(place))] for place in places.T])
                second += pairs @ others.square[m]
                third += (counts * d[places].prod(axis=0)) @ others.cubic[m]
            length = float(np.linalg.norm(delta))
            for term, power in ((first, 1), (second, 2), (third, 3)):
                assert (np.abs(term) <= others.sizes[power - 1] * length**power * (1.0 + 1e-12)).all()
            missed = np.abs(f - others.value - first - second - third)
            assert (missed <= others.rest * length**2 + others.blur + 1e-13).all()  # the sums here are rounded
    if activation != "identity" and obj.net.widths[1] > 1:
        assert 3.0 < rests[0] / rests[1] < 5.0  # times the square of the change


def _by_unit(case: _Case, delta: Array) -> Array:
    """Changes of the others unit by unit (M, D)."""
    whole = np.zeros(case.obj.num_params)
    whole[case.others] = delta
    others = [m for m in range(case.obj.net.widths[1]) if m != case.unit]
    return np.array([whole[case.places(m)] for m in others]).reshape(-1, len(case.own))


@pytest.mark.parametrize(("seed", "activation", "options"), _cases())
def test_never_above_the_block(seed: int, activation: str, options: dict[str, Any]) -> None:
    """No bound is above an eigenvalue that the block has on the cell."""
    obj = _problem(seed, activation, **options)
    rng = np.random.default_rng(seed + 1)
    for radius in (1e-9, 0.05, 0.5, 2.0):
        case = _Case(obj, rng.standard_normal(obj.num_params), radius, unit=0)
        for width in (1e-3, 0.03, 0.1):
            q = rng.standard_normal(len(case.own))
            q *= radius * rng.random() / np.linalg.norm(q)
            h = width * radius * rng.uniform(0.2, 1.0, len(q))
            found = case.bound(case.cell(q, h))
            least = case.least(q, h, rng)
            assert np.isfinite(found) and found <= least + 1e-14 * abs(least)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_close_on_small_balls(activation: str) -> None:
    """As the ball shrinks the bound becomes the block's smallest eigenvalue at the centre, with an error of the first order."""
    obj = _problem(331, activation)
    rng = np.random.default_rng(331)
    centre = rng.standard_normal(obj.num_params)
    misses = []
    for radius in (1e-3, 1e-4):
        case = _Case(obj, centre, radius)
        none = np.zeros(len(case.own))
        exact = float(np.linalg.eigvalsh(case.block(centre))[0])
        misses.append(exact - case.bound(case.cell(none, none + 0.1 * radius)))
    assert 0.0 < misses[0] < 0.01 * abs(exact)
    assert misses[1] < 0.11 * misses[0]


def test_exact_to_the_first_order() -> None:
    """What the block loses on a small ball is what its eigenvalue's slopes make of it, the best direction of all changes."""
    obj = _problem(337, "tanh", units=4)
    centre = np.random.default_rng(337).standard_normal(obj.num_params)
    radius = 1e-5
    case = _Case(obj, centre, radius)
    none = np.zeros(len(case.own))
    values, vectors = np.linalg.eigh(case.block(centre))
    steps = 1e-5 * np.eye(obj.num_params)
    slope = np.array([vectors[:, 0] @ (case.block(centre + e) - case.block(centre - e)) @ vectors[:, 0] / 2e-5 for e in steps])
    found = case.bound(case.cell(none, none + 1e-3 * radius))
    assert values[0] - found == pytest.approx(np.linalg.norm(slope[case.others]) * radius, rel=0.02)


def test_much_better_than_intervals() -> None:
    """Around trained weights, where the other units' changes cancel over the data."""
    obj, centre = _trained()
    case = _Case(obj, centre, 0.4)
    none = np.zeros(len(case.own))
    cell = case.cell(none, none + 0.01)
    plain = unit_bound(obj, ph.Ball(centre, 0.4).bind(obj), max_cells=1)
    assert plain is not None
    room = rooms_left(cell, case.roots.centers[[case.root]], case.roots.inverse, case.roots.squared_radius)
    assert room[0] == pytest.approx(0.4, rel=1e-9)
    least = case.least(none, none + 0.01, np.random.default_rng(347), steps=600)
    assert 1.0 < case.bound(cell) / least < 2.0 < plain.psi_lower / least


def _trained() -> tuple[ph.Objective, Array]:
    rng = np.random.default_rng(349)
    teacher, X = ph.MLP([2, 4, 1]), rng.standard_normal((20, 2))
    y = np.sin(2.0 * X[:, 0]) + 0.1 * rng.standard_normal(20)
    obj = ph.Objective(teacher, ph.Dataset(X, y))
    theta = 0.5 * rng.standard_normal(obj.num_params)
    for _ in range(3000):
        theta = theta - 0.3 * obj.gradient(theta)
    return obj, theta


def test_rests_fall_with_the_third_power_of_the_cell() -> None:
    """Without other units what the polynomials leave out is of the third order in the cell's width."""
    obj = _problem(353, "tanh", units=1, bias=False)
    case = _Case(obj, np.random.default_rng(353).standard_normal(obj.num_params), 0.5, unit=0)
    others = OtherUnits(obj, case.units, 0, 0.5)
    data = np.asarray(obj.data.normalized_weights), obj.targets[:, 0]
    none, sizes = np.zeros(len(case.own)), []
    for width in (0.02, 0.01):
        cell = case.cell(none, none + width)[:, :, : len(none)]
        form = expanded(("tanh", 1.0), case.units, data, cell, others, np.array([0.5]))
        sizes.append((form.alpha.max(), form.beta.max()))
    for wide, narrow in zip(*sizes, strict=True):
        assert 7.0 < wide / narrow < 9.0


def test_search_is_better_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search's bound with as many cells, which is found again, and no eigenvalue is below it."""
    obj, centre = _trained()
    region = ph.Ball(centre, 0.3).bind(obj)
    found = unit_bound(obj, region, max_cells=9000, ellipsoids=False)
    assert found is not None
    row = MethodResult(found.psi_lower, found.seconds, found.cells)
    assert fresh_bound(obj, region, "units", row, found.psi_lower) >= found.psi_lower
    assert found.psi_lower <= ph.search(obj, region, rng=359).psi_upper
    monkeypatch.setattr(units, "relaxation_applies", lambda *_: False)
    without = unit_bound(obj, region, max_cells=9000, ellipsoids=False)
    assert without is not None and without.psi_lower < 1.02 * found.psi_lower


def test_tried_where_it_pays() -> None:
    """Cells of a width are tried until it is known whether most gain."""
    obj, centre = _trained()
    case = _Case(obj, centre, 0.4)
    relaxed = RelaxedCells(obj, case.units, case.roots)
    none = np.zeros(len(case.own))
    cells = np.repeat(case.cell(none, none + 0.02), 50, axis=0)
    wide = np.repeat(case.cell(none, none + 0.2), 5, axis=0)
    assert not relaxed.worth(wide).any() and not relaxed.pays
    assert relaxed.worth(cells).sum() == 32
    relaxed.learn(cells[:32], np.arange(32) < 15)
    assert relaxed.worth(cells).sum() == 3 and not relaxed.pays  # one in twenty, in case that changes
    assert relaxed.worth(np.repeat(case.cell(none, none + 0.01), 3, axis=0)).all()
    relaxed.learn(cells[:8], np.ones(8, dtype=bool))
    assert relaxed.worth(cells).all() and relaxed.pays
    for _ in range(12):
        relaxed.learn(cells, np.zeros(50, dtype=bool))
    assert relaxed.worth(cells).sum() == 3
    for _ in range(12):  # what is long ago counts less
        relaxed.learn(cells, np.ones(50, dtype=bool))
    assert relaxed.worth(cells).all()


def test_what_it_is_for() -> None:
    """One output, squared error, a ball."""
    obj = _problem(367, "tanh")
    ball, box = (region.bind(obj) for region in (ph.Ball(radius=1.0), ph.Box(-1.0, 1.0)))
    assert relaxation_applies(obj, describe(obj, ball)) and not relaxation_applies(obj, describe(obj, box))
    many = ph.Objective(obj.net, ph.Dataset(np.ones((40_000, 2)), np.ones(40_000)))
    assert not relaxation_applies(many, describe(many, ph.Ball(radius=1.0).bind(many)))
    two = ph.Objective(ph.MLP([2, 3, 2]), ph.Dataset(obj.data.X, np.zeros((7, 2))))
    assert not relaxation_applies(two, describe(two, ph.Ball(radius=1.0).bind(two)))
    logistic = ph.Objective(obj.net, ph.Dataset(obj.data.X, (obj.targets[:, 0] > 0.0).astype(int)), loss="logistic")
    assert not relaxation_applies(logistic, describe(logistic, ph.Ball(radius=1.0).bind(logistic)))


@pytest.mark.parametrize("radius", [1e-100, 1e-12, 1e6, 1e150])
def test_any_radius(radius: float) -> None:
    """A bound or none, without a warning; with nothing left to the others, too."""
    obj = _problem(379, "tanh")
    case = _Case(obj, np.random.default_rng(379).standard_normal(obj.num_params), radius)
    q = np.zeros(len(case.own))
    for share in (0.0, 1.0 + 1e-12):
        q[0] = share * radius
        found = case.bound(case.cell(q, np.zeros(len(q)) + 1e-3 * radius))
        assert found <= float(np.linalg.eigvalsh(case.block(case.centre))[0]) + 1e-12 or radius > 1.0


def test_ends_early() -> None:
    """A flag that is set leaves no bounds."""
    obj = _problem(373, "tanh")
    case = _Case(obj, np.zeros(obj.num_params), 1.0)
    none = np.zeros(len(case.own))
    relaxed = RelaxedCells(obj, case.units, case.roots)
    stop = np.ones(1, dtype=np.int32)
    assert relaxed.bounds(case.cell(none, none + 0.1), np.array([case.root]), 0.0, stop)[0] == -np.inf
