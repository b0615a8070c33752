"""Certificates against what they must never exceed: sampled and searched eigenvalues."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import Certificate, certify, joint, relu_kink_status
from pyhess.certify.allocation import worst_over_ball
from pyhess.certify.dense import dense_enclosures
from pyhess.certify.moment import Parts, residual_forms
from pyhess.certify.propagate import box_cell, point_cell, propagate
from pyhess.errors import InputError, InputTypeError, MemoryLimitError

from .conftest import form_sizes, random_objective, random_region

GO = np.zeros(1, dtype=np.int32)


def smallest(obj: ph.Objective, theta: Any) -> float:
    return float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0])


def lowest_nearby(obj: ph.Objective, region: Any, rng: np.random.Generator, samples: int) -> float:
    """The smallest eigenvalue over samples, corners and a projected descent from the best of them."""
    points = list(region.sample(samples, rng=rng))
    center = region.center if isinstance(region, ph.Ball) else 0.5 * (region.low + region.high)
    points += [region.project(center + 1e3 * (p - center)) for p in points[: samples // 2]]
    values = [smallest(obj, p) for p in points]
    theta, best = points[int(np.argmin(values))], min(values)
    step = 0.3 * float(np.abs(theta - center).max() + 1e-12)
    for _ in range(12):
        _, vectors = np.linalg.eigh(obj.hessian(theta).to_dense())
        slope = obj.curvature(theta, vectors[:, 0]).grad
        trial = region.project(theta - step * slope / (np.abs(slope).max() + 1e-300))
        value = smallest(obj, trial)
        theta, best, step = (trial, value, step) if value < best else (theta, best, 0.5 * step)
    return best


def assert_valid(obj: ph.Objective, region: Any, rng: np.random.Generator, samples: int = 10) -> dict[str, float]:
    found = lowest_nearby(obj, region, rng, samples)
    ratios = {}
    for method in ("moment", "centre"):
        bound = certify(obj, region, method).psi_lower
        assert bound <= found + 1e-12 * (1.0 + abs(found)), (obj, region, method, bound, found)
        ratios[method] = bound / found if found < 0 else np.nan
    return ratios


@pytest.mark.usefixtures("few_cells")
def test_never_above_what_a_search_finds() -> None:
    rng = np.random.default_rng(61)
    for _ in range(70):
        obj = random_objective(rng)
        assert_valid(obj, random_region(rng, obj.num_params).bind(obj), rng)


@pytest.mark.usefixtures("few_cells")
def test_never_above_almost_everywhere_hessians_of_relu_networks() -> None:
    rng = np.random.default_rng(62)
    for _ in range(40):
        obj = random_objective(rng, relu=True)
        assert_valid(obj, random_region(rng, obj.num_params).bind(obj), rng)


@pytest.mark.usefixtures("few_cells")
def test_extreme_problems() -> None:
    rng = np.random.default_rng(63)
    x = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    for act in ("tanh", "sigmoid", "softplus", "gelu"):
        for y, spread, region in (
            (np.array([1.0, 1.0, -1.0]), 1.0, ph.Ball(radius=1e-12)),
            (np.array([1.0, 1.0, -1.0]), 1.0, ph.Box(-40.0, 40.0)),
            (np.array([1e6, 1e6, -1e6]), 1.0, ph.Box(-1.0, 1.0)),
            (np.zeros(3), 1e-160, ph.Box(-1.0, 1.0)),
            (np.array([1.0, 2.0, 3.0]), 1e3, ph.Ball(radius=5.0)),
        ):
            obj = ph.Objective(ph.MLP([2, 3, 1], act, beta=20.0), ph.Dataset(spread * x, y))
            assert_valid(obj, region.bind(obj), rng, 6)


def test_bounds_overflow_honestly() -> None:
    obj = ph.Objective(ph.MLP([1, 2, 1], "identity"), ph.Dataset([[1e200]], [1.0]))
    c = certify(obj, ph.Box(-1e150, 1e150))
    assert c.psi_lower == -np.inf and c.method == "none" and "overflow" in c.statement
    json.dumps(c.to_dict(), allow_nan=False)


@pytest.mark.usefixtures("few_cells")
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy", "logistic"])
def test_the_centre_bound_becomes_exact_on_small_regions(loss: str) -> None:
    rng = np.random.default_rng(64)
    widths = [3, 4, 3, 1 if loss == "logistic" else 2]
    y = rng.standard_normal((8, 2)) if loss == "squared_error" else rng.integers(0, 2, 8)
    obj = ph.Objective(ph.MLP(widths), ph.Dataset(rng.standard_normal((8, 3)), y), loss=loss)
    theta = rng.standard_normal(obj.num_params)
    exact = smallest(obj, theta)
    gaps = []
    for radius in (1e-2, 1e-3, 1e-4, 1e-7):
        for region in (ph.Box.around(theta, radius / np.sqrt(obj.num_params)), ph.Ball(theta, radius)):
            c = certify(obj, region, "centre")
            assert c.psi_lower <= exact
            gaps.append(exact - c.psi_lower)
    # Linear in the radius once it is small.
    assert gaps[4] < 0.2 * gaps[2] and gaps[5] < 0.2 * gaps[3]
    assert gaps[6] < 0.002 * gaps[4] and gaps[7] < 0.002 * gaps[5]


def test_the_moment_bound_of_one_hidden_layer_against_its_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    # One datum and unit, box: M = [[sup k v r, sup g r], [sup g r, 0]] in (|V1 x|, t2).
    from math import sqrt, tanh

    radius, x, y = 0.4, 1.3, 0.9
    obj = ph.Objective(ph.MLP([1, 1, 1], bias=False), ph.Dataset([[x]], [y]))
    s = radius * x
    r = radius * tanh(s) + y
    k = 2.0 * tanh(s) * (1.0 - tanh(s) ** 2)
    box = ph.Box(-radius, radius)

    def smallest_of(a: float, b: float) -> float:
        return -(a / 2 + sqrt(a * a / 4 + b * b))

    # k v r is largest in a corner; g = 1 - tanh² falls where r grows.
    grid = np.tanh(np.linspace(0.0, s, 10**5))
    together = smallest_of(k * radius * r * x * x, float(((radius * grid + y) * (1.0 - grid**2)).max()) * x)
    assert 1.03 * together <= certify(obj, box, "moment").psi_lower <= together
    monkeypatch.setattr(joint, "_UNITS", 0)  # every supremum by itself
    expected = smallest_of(k * radius * r * x * x, r * x)
    assert certify(obj, box, "moment").psi_lower == pytest.approx(expected, rel=1e-12)


def test_residual_forms_bound_the_form_datum_by_datum() -> None:
    rng = np.random.default_rng(65)
    for _ in range(30):
        obj = random_objective(rng)
        net = obj.net
        low = rng.standard_normal(obj.num_params)
        cell = box_cell(net, ph.Box(low, low + 10.0 ** rng.uniform(-3, 0)))
        data, targets = obj.data, obj.targets
        forms = sum(residual_forms(cell, propagate(cell, data.X, targets, obj.loss), Parts.of(net, apart=True)))
        for i in range(data.num_samples):
            row = ph.Objective(net, ph.Dataset(data.X[i : i + 1], data.y[i : i + 1]), loss=obj.loss)
            theta = low + rng.random(low.size) * (10.0**-3)
            theta = np.clip(theta, low, low + 1e-3)
            v = rng.standard_normal(low.size)
            form = v @ (row.hvp(theta, v) - row.ggn_vp(theta, v))
            t = form_sizes(net, v, data.X[i])
            assert form >= -(t @ forms[i] @ t) - 1e-9


def test_dense_enclosures_contain_the_compiled_products() -> None:
    rng = np.random.default_rng(66)
    for relu in (False, True):
        for _ in range(25):
            obj = random_objective(rng, relu=relu)
            theta = rng.standard_normal(obj.num_params)
            H, G = obj.hessian(theta).to_dense(), obj.gauss_newton(theta).to_dense()
            found = dense_enclosures(point_cell(obj.net, theta), obj.data, obj.targets, obj.loss, GO)
            assert found is not None
            for enclosure, exact in zip(found, (H - G, G), strict=True):
                size = np.abs(H).max() + np.abs(G).max()
                assert (enclosure.lo <= exact + 1e-12 * size).all() and (enclosure.hi >= exact - 1e-12 * size).all()
                assert (enclosure.hi - enclosure.lo).max() <= 1e-8 * size + 1e-140
            wide = dense_enclosures(box_cell(obj.net, ph.Box.around(theta, 0.05)), obj.data, obj.targets, obj.loss, GO)
            assert wide is not None
            near = theta + rng.uniform(-0.05, 0.05, theta.size)
            residual = obj.hessian(near).to_dense() - obj.gauss_newton(near).to_dense()
            assert (wide[0].lo <= residual + 1e-12).all() and (wide[0].hi >= residual - 1e-12).all()


# --- balls -----------------------------------------------------------------------------------------------------------


def test_cells_cover_the_ball_and_converge() -> None:
    # bound(rho) = -rho_1 rho_2 ... has its worst value -(R²/D)^(D/2) at equal shares.
    for layers, radius in ((2, 1.5), (3, 0.7)):
        exact = -((radius**2 / layers) ** (layers / 2))

        def product(radii: Any) -> float:
            return -float(np.prod(radii))

        values = []
        for cells in (1, 8, 64, 400):
            found = worst_over_ball(product, layers, radius, cells)
            assert found is not None and found[0] <= exact
            values.append(found[0])
        assert values == sorted(values)
        assert values[-1] >= exact * 1.2


def test_cells_hold_every_point_of_the_ball() -> None:
    # A bound that is finite only where the cell contains one given point: the worst value must always find it.
    rng = np.random.default_rng(67)
    for _ in range(50):
        point = rng.dirichlet(np.ones(3)) ** 0.5

        def contains(radii: Any, point: Any = point) -> float:
            return -1.0 if (radii >= point).all() else -0.5

        found = worst_over_ball(contains, 3, 1.0, 60)
        assert found is not None and found[0] == -1.0


def test_a_cut_short_ball_keeps_the_cover_at_hand() -> None:
    calls: list[int] = []

    def bound(radii: Any) -> float | None:
        calls.append(1)
        return None if len(calls) > 5 else -float(np.prod(radii))

    found = worst_over_ball(bound, 2, 1.0, 100)
    assert found is not None and -1.0 - 1e-9 <= found[0] <= -0.5


# --- ReLU kinks ------------------------------------------------------------------------------------------------------


def test_relu_kink_verdicts() -> None:
    data = ph.Dataset(np.array([[1.0], [-1.0], [0.5]]), np.full(3, -5.0))
    net = ph.MLP([1, 2, 1], "relu")
    low = np.array([-1.0, -1.0, -1.0, -1.0, 0.1, 0.1, -0.5])
    assert relu_kink_status(net, data, "squared_error", ph.Box(low, np.ones(7)))[0] == "convex_kinks"
    assert relu_kink_status(net, data, "squared_error", ph.Box(-np.ones(7), np.ones(7)))[0] == "possible"
    theta = np.array([1.0, 1.0, 5.0, 5.0, 1.0, 1.0, 0.0])
    assert relu_kink_status(net, data, "squared_error", ph.Box.around(theta, 0.1))[0] == "kink_free"
    assert relu_kink_status(net, data, "squared_error", ph.Ball(theta, 0.1))[0] == "kink_free"
    smooth = ph.MLP([1, 2, 1])
    assert relu_kink_status(smooth, data, "squared_error", ph.Box(-np.ones(7), np.ones(7))) == ("no_relu", 0)


def test_data_of_weight_zero_have_no_kinks() -> None:
    theta = np.array([1.0, 1.0, 5.0, 5.0, 1.0, 1.0, 0.0])
    data = ph.Dataset(np.array([[1.0], [-5.0]]), np.zeros(2), np.array([1.0, 0.0]))
    net = ph.MLP([1, 2, 1], "relu")
    assert relu_kink_status(net, data, "squared_error", ph.Box.around(theta, 0.1))[0] == "kink_free"
    alone = ph.Dataset(data.X, np.zeros(2))
    assert relu_kink_status(net, alone, "squared_error", ph.Box.around(theta, 0.1))[0] == "possible"


# --- the public function ---------------------------------------------------------------------------------------------


@pytest.fixture
def small() -> ph.Objective:
    rng = np.random.default_rng(68)
    return ph.Objective(ph.MLP([3, 4, 1]), ph.Dataset(rng.standard_normal((9, 3)), rng.standard_normal(9)))


def test_auto_takes_the_best_method(small: ph.Objective) -> None:
    for region in (ph.Box(-0.5, 0.5), ph.Ball(radius=0.01)):
        c = certify(small, region)
        expected = {"moment", "centre", "comparison", "deif", "blocks", "units"}
        expected |= {"boxes"} if isinstance(region, ph.Box) else {"taylor"}
        assert set(c.table) == expected
        assert c.psi_lower == max(row.psi_lower for row in c.table.values()) == c.table[c.method].psi_lower
        assert c.lam_upper == -c.psi_lower / 2
        assert certify(small, region, c.method).psi_lower == c.psi_lower
        for method in ("moment", "centre"):
            assert certify(small, region, method).psi_lower >= c.table[method].psi_lower
        assert c.verify()
        content = json.loads(json.dumps(c.to_dict(), allow_nan=False))
        assert content["method"] == c.method and content["psi_lower"] == c.psi_lower


def test_a_forged_certificate_is_refused(small: ph.Objective) -> None:
    c = certify(small, ph.Box(-0.5, 0.5))
    forged = Certificate(c.method, 0.9 * c.psi_lower, c.table, c.rounding, c.statement, small, ph.Box(-0.5, 0.5))
    with pytest.raises(ph.NumericalError, match="altered"):
        forged.verify()


def test_package_and_function_share_a_name(small: ph.Objective) -> None:
    assert ph.certify(small, ph.Box(-0.1, 0.1)).psi_lower == certify(small, ph.Box(-0.1, 0.1)).psi_lower


def test_linear_models_need_no_bound() -> None:
    obj = ph.Objective(ph.MLP([2, 1]), ph.Dataset(np.eye(2), np.ones(2)))
    c = certify(obj, ph.Ball(radius=3.0))
    assert c.psi_lower == 0.0 and c.lam_upper == 0.0 and c.method == "linear" and c.verify()


def test_cancelling_keeps_what_is_proved() -> None:
    rng = np.random.default_rng(69)
    data = ph.Dataset(rng.standard_normal((400, 30)), rng.integers(0, 3, 400))
    obj = ph.Objective(ph.MLP([30, 40, 30, 3]), data, loss="cross_entropy")
    flag = np.ones(1, dtype=np.int32)
    c = certify(obj, ph.Ball(radius=1.0), cancel=flag)
    assert c.psi_lower == -np.inf and c.method == "none" and "stopped" in c.statement
    flag[0] = 0
    timer = threading.Timer(0.5, lambda: flag.__setitem__(0, 1))
    timer.start()
    c = certify(obj, ph.Ball(radius=1.0), cancel=flag)
    timer.join()
    whole = certify(obj, ph.Ball(radius=1.0), "moment")
    assert c.psi_lower <= whole.psi_lower * (1 - 1e-9)


@pytest.mark.parametrize("activation", ["tanh", "identity"])
@pytest.mark.parametrize("radius", [1e-160, 1e160])
def test_radii_whose_powers_are_no_numbers(small: ph.Objective, activation: str, radius: float) -> None:
    obj = ph.Objective(ph.MLP([3, 2, 1], activation), small.data)
    found = certify(obj, ph.Ball(radius=radius))
    assert {"moment", "blocks"} <= set(found.table) and not {"taylor", "units", "exact"} & set(found.table)
    lowest = np.linalg.eigvalsh(obj.hessian(np.zeros(obj.num_params)).to_dense())[0]
    assert found.psi_lower <= lowest + 1e-14
    assert found.psi_lower >= 1.0001 * lowest if radius < 1.0 else found.psi_lower < -1e100


def test_memory_is_not_promised(small: ph.Objective) -> None:
    obj = ph.Objective(ph.MLP([3, 3000, 1]), small.data)
    with pytest.raises(MemoryLimitError, match="moment"):
        certify(obj, ph.Box(-1, 1), "centre")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"obj": 3}, InputTypeError, "Objective"),
        ({"region": [-1, 1]}, InputTypeError, "Box"),
        ({"region": ph.Box(np.zeros(3), np.ones(3))}, InputError, "parameters"),
        ({"method": "momentum"}, InputError, "Did you mean 'moment'"),
        ({"method": "third"}, InputError, "method='third' is not known; allowed: auto, moment, .* taylor"),
        ({"method": None}, InputTypeError, "method"),
        ({"psi_upper": "low"}, InputTypeError, "psi_upper is 'low'"),
        ({"psi_upper": np.zeros(3)}, InputTypeError, "psi_upper"),
        ({"psi_upper": np.nan}, InputError, "psi_upper is nan"),
        ({"psi_upper": 10**400}, InputError, "psi_upper is inf"),
        ({"progress": 3}, InputTypeError, "progress is 3"),
        ({"cancel": [0]}, InputTypeError, "cancel"),
        ({"cancel": np.zeros(1)}, InputTypeError, "cancel"),
    ],
)
def test_bad_arguments(small: ph.Objective, change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments: dict[str, Any] = {"obj": small, "region": ph.Box(-1, 1), "method": "auto", **change}
    with pytest.raises(error, match=text):
        certify(**arguments)


def test_ctrl_c_returns_what_is_proved() -> None:
    rng = np.random.default_rng(20263001)
    obj = ph.Objective(ph.MLP([2, 3, 1]), ph.Dataset(rng.standard_normal((6, 2)), rng.standard_normal(6)))
    told: list[dict[str, object]] = []

    def stopping(state: dict[str, object]) -> None:
        told.append(state)
        if len(told) == 4:
            raise KeyboardInterrupt

    c = certify(obj, ph.Box(-0.5, 0.5), progress=stopping)
    assert len(told) == 4 and "interrupted" in c.statement
    assert {"moment", "blocks", "units"} <= c.table.keys()
    assert c.table["units"].psi_lower == told[-1]["psi_lower"] <= c.psi_lower == c.table[c.method].psi_lower
    assert c.verify()
    assert "interrupted" not in certify(obj, ph.Box(-0.5, 0.5)).statement


def test_ctrl_c_before_the_first_bound_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopping(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pyhess.certify.whole_bounds.moment_bound", stopping)
    with pytest.raises(KeyboardInterrupt):
        certify(ph.Objective(ph.MLP([2, 3, 1]), ph.Dataset(np.eye(2), np.ones(2))), ph.Box(-0.5, 0.5))
