"""The joint search: exact values, reproducibility, interruption, and that it beats sampling."""

from __future__ import annotations

import threading
from time import perf_counter, sleep

import numba
import numpy as np
import numpy.typing as npt
import pytest

import pyhess as ph
from pyhess.threshold import starts as families


def small_problem(dtype: str = "float64") -> tuple[ph.Objective, ph.Box]:
    rng = np.random.default_rng(31)
    data = ph.Dataset(rng.standard_normal((40, 3)), rng.standard_normal(40))
    return ph.Objective(ph.MLP([3, 4, 3, 1]), data, dtype=dtype), ph.Box(-1.0, 1.0)


def dense_minimum(obj: ph.Objective, theta: np.ndarray) -> float:
    return float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0])


def test_the_value_is_the_smallest_eigenvalue_at_theta() -> None:
    obj, box = small_problem()
    found = ph.search(obj, box, rng=11)
    assert box.contains(found.theta)
    assert abs(np.linalg.norm(found.v) - 1.0) < 1e-12
    assert found.psi_upper == pytest.approx(dense_minimum(obj, found.theta), rel=1e-8)
    assert found.psi_upper == pytest.approx(obj.curvature(found.theta, found.v).q, rel=1e-10)


def test_far_below_random_sampling() -> None:
    obj, box = small_problem()
    found = ph.search(obj, box, rng=11)
    sampled = min(dense_minimum(obj, theta) for theta in box.sample(500, obj, rng=12))
    assert found.psi_upper < 1.5 * sampled < 0.0


@pytest.mark.parametrize("region", [ph.Box(-0.7, 0.4), ph.Ball(center=0.1, radius=1.3)])
def test_first_order_conditions_hold_at_the_optimum(region: ph.Region) -> None:
    """No feasible small step in theta lowers v'Hv: the projected gradient step leads nowhere."""
    obj, _ = small_problem()
    bound = region.bind(obj)
    found = ph.search(obj, region, rng=13)
    jet = obj.curvature(found.theta, found.v)
    step = 1e-3 / np.abs(jet.grad).max()
    moved = bound.project(found.theta - step * jet.grad) - found.theta
    assert -(jet.grad @ moved) <= 1e-5 * abs(found.psi_upper)


def test_same_seed_same_bits_for_any_number_of_threads() -> None:
    obj, box = small_problem()
    results = []
    allowed = numba.get_num_threads()
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            results.append(ph.search(obj, box, rng=19, starts=12))
    finally:
        numba.set_num_threads(allowed)
    first, second = results
    assert first.psi_upper == second.psi_upper
    assert np.array_equal(first.theta, second.theta)
    assert np.array_equal(first.v, second.v)
    assert first.num_jets == second.num_jets


def test_float32_objective_is_searched_in_float64() -> None:
    single, box = small_problem("float32")
    double, _ = small_problem()
    assert ph.search(single, box, rng=23, starts=8).psi_upper == ph.search(double, box, rng=23, starts=8).psi_upper


def test_off_centre_box_is_respected() -> None:
    obj, _ = small_problem()
    theta0 = obj.net.init(rng=8)
    box = ph.Box.around(theta0, np.linspace(0.01, 0.2, obj.num_params))
    found = ph.search(obj, box, rng=29, starts=8)
    assert box.contains(found.theta)
    assert found.psi_upper <= dense_minimum(obj, theta0) + 1e-12


def test_time_limit_returns_the_best_so_far() -> None:
    rng = np.random.default_rng(37)
    data = ph.Dataset(rng.standard_normal((4000, 40)), rng.integers(0, 5, 4000))
    obj = ph.Objective(ph.MLP([40, 60, 60, 5]), data, loss="cross_entropy")
    found = ph.search(obj, ph.Box(-0.5, 0.5), rng=41, time_limit=1.0)
    assert found.interrupted
    assert found.psi_upper < 0.0
    assert found.psi_upper == pytest.approx(obj.curvature(found.theta, found.v).q, rel=1e-9)


def test_cancel_flag_ends_the_search() -> None:
    rng = np.random.default_rng(43)
    data = ph.Dataset(rng.standard_normal((4000, 40)), rng.standard_normal(4000))
    obj = ph.Objective(ph.MLP([40, 60, 60, 1]), data)
    cancel = np.zeros(1, dtype=np.int32)

    def stop() -> None:
        sleep(0.5)
        cancel[0] = 1

    thread = threading.Thread(target=stop)
    thread.start()
    began = perf_counter()
    found = ph.search(obj, ph.Box(-0.5, 0.5), rng=47, cancel=cancel)
    thread.join()
    assert found.interrupted
    assert perf_counter() - began < 30.0  # the whole search takes minutes


@pytest.mark.parametrize("region", [ph.Box(-0.1, 0.1), ph.Intersection([ph.Box(-0.1, 0.1), ph.Ball(0.0, 9.0)])], ids=repr)
def test_time_can_end_while_starts_are_made(region: ph.Region) -> None:
    rng = np.random.default_rng(67)
    data = ph.Dataset(rng.standard_normal((2, 300)), np.array([1.0, -1.0]))
    obj = ph.Objective(ph.MLP([300, 400, 400, 1]), data)
    found = ph.search(obj, region, rng=71, starts=1000, time_limit=0.5)  # the starts alone take longer
    assert found.interrupted
    assert 0 < found.num_starts < 1000
    assert found.psi_upper == pytest.approx(obj.curvature(found.theta, found.v).q, rel=1e-9)


@pytest.mark.parametrize("before", [0, 3])
def test_ctrl_c_while_starts_are_made_leaves_those_made(before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    obj, _ = small_problem()
    calls = 0

    def pressed(net: ph.MLP, obj: ph.Objective, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        nonlocal calls
        calls += 1
        if calls == before + 1:
            raise KeyboardInterrupt
        return families.vertex(net, obj, rng)

    for name in families.FAMILIES:
        monkeypatch.setitem(families.FAMILIES, name, pressed)
    zs, names = families.sow(obj, 40, False, np.random.default_rng(73))
    assert zs.shape == (max(before, 1), 2 * obj.num_params)
    assert len(names) == zs.shape[0]
    assert (np.abs(zs[:, : obj.num_params]) == 1.0).all()
    calls = 0
    found = ph.search(obj, ph.Box(-0.5, 0.5), rng=79, starts=40)
    assert found.interrupted
    assert np.isfinite(found.psi_upper)


def test_progress_is_reported() -> None:
    obj, box = small_problem()
    seen: list[dict[str, object]] = []
    ph.search(obj, box, rng=53, progress=seen.append)
    assert seen
    assert {"stage", "done", "total", "psi_upper", "seconds"} <= set(seen[0])


def test_every_family_gives_points_of_the_cube() -> None:
    obj, _ = small_problem()
    rng = np.random.default_rng(59)
    for name, family in families.FAMILIES.items():
        for _ in range(20):
            point = family(obj.net, obj, rng)
            assert point.shape == (obj.num_params,), name
            assert np.abs(point).max() <= 1.0, name


def test_descent_gradient_matches_finite_differences() -> None:
    """rho(theta, v) decreases along the kernel's own direction exactly as its gradient says (one tiny step)."""
    obj, _ = small_problem()
    rng = np.random.default_rng(61)
    theta, v = rng.standard_normal(obj.num_params), rng.standard_normal(obj.num_params)
    jet = obj.curvature(theta, v)
    direction = rng.standard_normal(obj.num_params)
    h = 1e-5
    slope = (obj.curvature(theta + h * direction, v).q - obj.curvature(theta - h * direction, v).q) / (2 * h)
    assert slope == pytest.approx(jet.grad @ direction, rel=1e-7)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [({"time_limit": 0.0}, "time_limit"), ({"time_limit": float("nan")}, "time_limit"), ({"starts": 0}, "starts")],
)
def test_bad_input(keywords: dict[str, float], message: str) -> None:
    obj, box = small_problem()
    with pytest.raises(ph.InputError, match=message):
        ph.search(obj, box, **keywords)


def test_region_must_be_convex() -> None:
    obj, _ = small_problem()
    with pytest.raises(ph.InputTypeError, match="convex"):
        ph.search(obj, [ph.Box(-1, 0), ph.Box(0, 1)])


@pytest.mark.parametrize("seed", range(20, 26))
def test_one_parameter(seed: int) -> None:
    obj = ph.Objective(ph.MLP([1, 1], bias=False), ph.Dataset([[2.0], [1.0]], [1.0, 0.0]), loss="squared_error")
    assert ph.search(obj, ph.Box(-1.0, 1.0), rng=seed, starts=2).psi_upper == pytest.approx(2.5, rel=1e-12)


def test_copied_units_have_the_weights_of_another_or_their_negatives() -> None:
    obj, _ = small_problem()
    rng = np.random.default_rng(83)
    x = rng.uniform(-1.0, 1.0, obj.num_params)
    for _ in range(30):
        y = families.copied(obj.net, x, rng)
        before, after = obj.net.unpack(x), obj.net.unpack(y)
        changed = [layer for layer in range(2) if not np.array_equal(before[layer][1], after[layer][1])]
        assert len(changed) <= 1  # none where a unit is copied onto itself
        for layer in changed:
            units_before, units = (np.vstack([p[layer][0].T, p[layer][1], p[layer + 1][0]]).T for p in (before, after))
            source = [i for i, unit in enumerate(units) if np.array_equal(np.abs(unit), np.abs(units_before[i]))]
            moved = [i for i in range(len(units)) if not np.array_equal(units[i], units_before[i])]
            assert all(any(np.array_equal(np.abs(units[i]), np.abs(units_before[j])) for j in source) for i in moved)
