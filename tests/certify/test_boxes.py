"""Branch and bound over the parameters: exact values, validity, covers, and what a time limit or a cancel flag leaves."""

from __future__ import annotations

import pickle
import threading
from time import monotonic
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import certify, portfolio, schedule
from pyhess.certify.boxes import box_subdivision, full_subdivision, symmetry_keys
from pyhess.certify.subdivision import Limits, Subdivision, covers
from pyhess.errors import InputError

from .conftest import random_objective, random_region

GO = np.zeros(1, dtype=np.int32)


def chain(y: float) -> ph.Objective:
    """1/2 (v tanh(w) - y)²."""
    return ph.Objective(ph.MLP([1, 1, 1], bias=False), ph.Dataset([[1.0]], [y]))


# Values by an independent branch and bound with polynomial arithmetic, good to 1e-6 relative or better.
CHAINS = [
    (ph.Box(-1.0, 1.0), 1.0, -1.7574765358),
    (ph.Box(-2.0, 2.0), 1.0, -3.3628356771),
    (ph.Ball(0.0, 1.0), 1.0, -1.554385237),
    (ph.Ball(0.0, 2.0), 1.0, -3.0296227667),
    (ph.Box(-2.0, 2.0), 0.0, -1.9031347009),
]


@pytest.mark.parametrize(("region", "y", "psi"), CHAINS)
def test_two_parameters_are_exact(region: Any, y: float, psi: float) -> None:
    result = ph.lambda_threshold(chain(y), region, rng=7)
    assert result.status == "exact" and result.ratio <= 1.000001
    assert result.psi_lower <= psi + 2e-9 and result.psi_upper >= psi - 2e-9
    assert result.certificate is not None and result.certificate.method == "full" and result.certificate.verify()


@pytest.mark.parametrize(
    ("widths", "bias", "act", "loss"),
    [
        ([2, 1, 1], False, "gelu", "squared_error"),
        ([1, 1, 1, 1], False, "sigmoid", "squared_error"),
        ([1, 1, 1], False, "tanh", "logistic"),
    ],
)
@pytest.mark.parametrize("kind", ["box", "ball"])
def test_three_parameters_are_exact(widths: list[int], bias: bool, act: str, loss: str, kind: str) -> None:
    rng = np.random.default_rng(72)
    x = rng.standard_normal((5, widths[0]))
    y: Any = rng.standard_normal(5) if loss == "squared_error" else rng.integers(0, 2, 5)
    obj = ph.Objective(ph.MLP(widths, act, bias=bias), ph.Dataset(x, y), loss=loss)
    region = ph.Box(-1.0, 1.0) if kind == "box" else ph.Ball(0.0, 1.0)
    result = ph.lambda_threshold(obj, region, rng=7)
    assert result.status == "exact" and result.ratio <= 1.000001


@pytest.fixture
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer boxes and cells: worse bounds, as valid, and faster tests."""
    monkeypatch.setattr(schedule, "_WORK", 1e5)
    monkeypatch.setattr(portfolio, "_MAX_CELLS", 9)


def lowest(obj: ph.Objective, region: Any, rng: np.random.Generator, samples: int = 12) -> float:
    points = list(region.sample(samples, rng=rng))
    center = region.center if isinstance(region, ph.Ball) else 0.5 * (region.low + region.high)
    points += [region.project(center + 1e3 * (p - center)) for p in points]
    return min(float(np.linalg.eigvalsh(obj.hessian(p).to_dense())[0]) for p in points)


@pytest.mark.usefixtures("little_work")
def test_never_above_a_sampled_eigenvalue() -> None:
    rng = np.random.default_rng(73)
    for turn in range(14):
        obj = random_objective(rng, relu=turn % 5 == 0)
        region = random_region(rng, obj.num_params).bind(obj)
        found = lowest(obj, region, rng)
        bounds = {name: row.psi_lower for name, row in certify(obj, region).table.items()}
        if isinstance(region, ph.Box):
            bounds["few boxes"] = box_subdivision(obj, region).run(Limits(GO, max_cells=60))
        for name, bound in bounds.items():
            assert bound <= found + 1e-11 * (1.0 + abs(found)), (obj, region, name, bound, found)


def test_never_above_on_the_smallest_networks() -> None:
    rng = np.random.default_rng(74)
    count = 0
    while count < 25:
        obj = random_objective(rng)
        if obj.num_params > 6:
            continue
        count += 1
        region = random_region(rng, obj.num_params).bind(obj)
        bound = full_subdivision(obj, region).run(Limits(GO, max_cells=120))
        found = lowest(obj, region, rng, 60)
        assert bound <= found + 1e-11 * (1.0 + abs(found)), (obj, region, bound, found)


def test_one_cell_of_every_orbit() -> None:
    rng = np.random.default_rng(75)
    data = ph.Dataset(rng.standard_normal((6, 2)), rng.standard_normal(6))
    obj = ph.Objective(ph.MLP([2, 3, 2, 1]), data)
    region = ph.Box(-0.7, 0.7).bind(obj)
    search = box_subdivision(obj, region)
    assert len(search.keys) == 2
    bound = search.run(Limits(GO, max_cells=400))
    plain = Subdivision(search._evaluate, np.array(region.low), np.array(region.high))
    assert plain.run(Limits(GO, max_cells=400)) <= bound
    cover = search.cover()
    assert covers(cover, search.low, search.high)
    for theta in region.sample(200, rng=rng):
        # Some flip and order of the units puts theta into a box that counts.
        moved = _canonical(obj.net, theta, search.keys)
        inside = ((cover.low <= moved) & (moved <= cover.high)).all(axis=1)
        assert (cover.bound[inside] < np.inf).any()
        exact = np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]
        assert np.linalg.eigvalsh(obj.hessian(moved).to_dense())[0] == pytest.approx(exact, abs=1e-10)
        assert cover.bound[inside].min() <= exact + 1e-10


def _canonical(net: ph.MLP, theta: Any, keys: Any) -> Any:
    theta = np.array(theta)
    # From the top: putting a layer in order moves the keys of the layer below.
    for layer, key in reversed(list(enumerate(keys))):
        units = net.widths[layer + 1]
        (weight, bias), (above, _) = net.layer_slices[layer], net.layer_slices[layer + 1]
        assert bias is not None
        signs = np.where(theta[list(key)] < 0.0, -1.0, 1.0)
        order = np.argsort(-np.abs(theta[list(key)]))
        theta[weight] = (theta[weight].reshape(units, -1) * signs[:, None])[order].reshape(-1)
        theta[bias] = (theta[bias] * signs)[order]
        theta[above] = (theta[above].reshape(-1, units) * signs)[:, order].reshape(-1)
    return theta


def test_symmetry_needs_equal_ranges() -> None:
    net = ph.MLP([1, 2, 1])
    low = -np.ones(7)
    assert symmetry_keys(net, low, -low) == ((4, 5),)
    low[0] = -0.5
    assert symmetry_keys(net, low, np.ones(7)) == ()
    assert symmetry_keys(ph.MLP([1, 2, 1], "sigmoid"), -np.ones(7), np.ones(7)) == ()


def test_covers_know_gaps() -> None:
    obj = chain(1.0)
    search = full_subdivision(obj, ph.Ball(0.0, 1.0).bind(obj))
    search.run(Limits(GO, max_cells=100))
    cover = search.cover()
    assert covers(cover, search.low, search.high)
    for drop in (0, 7):
        keep = np.arange(cover.bound.size) != drop
        part = type(cover)(cover.low[keep], cover.high[keep], cover.bound[keep])
        assert not covers(part, search.low, search.high)
    assert cover.bound.min() == search.psi_lower


def test_boxes_that_cannot_be_halved_any_more_cover_as_well() -> None:
    def narrow(lows: Any, highs: Any, bounds: Any, splits: Any) -> None:
        """Worst where both parameters are one, so that boxes there shrink to neighbouring numbers."""
        bounds[:], splits[:] = -highs.sum(axis=1), -1

    search = Subdivision(narrow, np.zeros(2), np.ones(2))
    search.run(Limits(GO, max_cells=10**4))
    cover = search.cover()
    assert search.cells < 10**4 and (np.nextafter(cover.low, 2.0) >= cover.high).all(axis=1).any()
    assert covers(cover, search.low, search.high)
    keep = np.arange(cover.bound.size) != int(cover.bound.argmin())
    assert not covers(type(cover)(cover.low[keep], cover.high[keep], cover.bound[keep]), search.low, search.high)


@pytest.fixture
def deep() -> ph.Objective:
    rng = np.random.default_rng(76)
    return ph.Objective(ph.MLP([2, 3, 3, 1]), ph.Dataset(rng.standard_normal((10, 2)), rng.standard_normal(10)))


def test_the_same_result_for_every_number_of_threads(deep: ph.Objective) -> None:
    import numba

    region = ph.Box(-0.3, 0.3)
    before = numba.get_num_threads()
    values = []
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            values.append(certify(deep, region, "boxes").psi_lower)
    finally:
        numba.set_num_threads(before)
    assert values[0] == values[1]


def test_time_improves_the_bound_and_is_kept(deep: ph.Objective) -> None:
    region = ph.Box(-0.2, 0.2)
    seen: dict[object, list[float]] = {}
    began = monotonic()
    c = certify(
        deep, region, time_limit=1.5, progress=lambda state: seen.setdefault(state["method"], []).append(state["psi_lower"])
    )
    assert monotonic() - began < 20.0
    assert seen and seen.get("boxes", []) == sorted(seen.get("boxes", []))
    assert c.table["boxes"].psi_lower >= c.table["comparison"].psi_lower - 1e-9
    assert c.table["boxes"].cover is not None and c.verify()
    assert pickle.loads(pickle.dumps(c)).psi_lower == c.psi_lower


def test_cancelling_branch_and_bound_keeps_its_bound(deep: ph.Objective) -> None:
    flag = np.zeros(1, dtype=np.int32)
    timer = threading.Timer(0.5, lambda: flag.__setitem__(0, 1))
    timer.start()
    began = monotonic()
    c = certify(deep, ph.Box(-0.5, 0.5), time_limit=300.0, cancel=flag)
    timer.join()
    assert monotonic() - began < 60.0 and np.isfinite(c.psi_lower)


def test_an_interrupt_loses_no_leaf(deep: ph.Objective) -> None:
    search = box_subdivision(deep, ph.Box(-0.5, 0.5).bind(deep))
    search.run(Limits(GO, max_cells=50))
    before, whole = search.psi_lower, search._evaluate

    def broken(*arguments: Any) -> None:
        raise KeyboardInterrupt

    search._evaluate = broken
    with pytest.raises(KeyboardInterrupt):
        search.run(Limits(GO, max_cells=200))
    assert search.psi_lower == before and covers(search.cover(), search.low, search.high)
    search._evaluate = whole
    assert search.run(Limits(GO, max_cells=200)) >= before


def test_a_known_eigenvalue_ends_the_work() -> None:
    obj = chain(1.0)
    region = ph.Box(-1.0, 1.0)
    loose = certify(obj, region, "full", psi_upper=-3.0)
    assert loose.psi_lower >= -3.0 * (1 + 1e-6) and loose.table["full"].cells < 200
    tight = certify(obj, region, "full", psi_upper=-1.7574765358)
    assert tight.psi_lower == pytest.approx(-1.7574765358, rel=1e-6)


def test_methods_that_do_not_apply(deep: ph.Objective) -> None:
    with pytest.raises(InputError, match="at most 6 parameters"):
        certify(deep, ph.Box(-1.0, 1.0), "full")
    with pytest.raises(InputError, match="needs a box"):
        certify(deep, ph.Ball(0.0, 1.0), "boxes")
    with pytest.raises(InputError, match="psi_upper"):
        certify(deep, ph.Box(-1.0, 1.0), psi_upper=float("nan"))
