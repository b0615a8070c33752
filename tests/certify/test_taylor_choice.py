"""Looking for multipliers: values and gradients of what is minimised, and what cheap steps are good for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import pyhess as ph
from pyhess._threads import blas_single_thread
from pyhess.certify.intervals import gamma
from pyhess.certify.taylor import lifted_in, taylor_bound
from pyhess.certify.taylor_choice import _Exactly, _Roughly, begun, maximised, promising
from pyhess.certify.taylor_kinds import Kind, order_of
from pyhess.certify.taylor_lifted import Lifted
from pyhess.certify.taylor_one_layer import unit_hessian
from pyhess.certify.taylor_room import Room
from pyhess.certify.taylor_top import State

from .conftest import trained_problem
from .pair_cases import is_the_gradient

GO_ON = np.zeros(1, dtype=np.int32)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with blas_single_thread():
        yield


def _begin(kind: Kind, *, slab: bool = False, widths: tuple[int, ...] = (1, 2, 1), radius: float = 0.1) -> tuple[Lifted, State]:
    obj, theta = trained_problem(1291, list(widths))
    room = Room(radius)
    if slab:
        d = np.random.default_rng(1297).standard_normal(theta.size)
        room = Room(radius, d / np.linalg.norm(d) * (1.0 + gamma(64)), 0.25 * radius, 0.9 * radius)
    kept = np.ones(obj.data.num_samples)
    if kind == "units":
        found = unit_hessian(obj.net, theta, room, obj.data, obj.targets, kept, GO_ON)
        lifted = None if found is None else Lifted(found.dense(), room, radius)
    else:
        lifted = lifted_in(obj, theta, room, radius, kind, GO_ON, kept)
    assert lifted is not None and lifted.order == order_of(kind)
    state = promising(lifted, -np.inf)
    assert state is not None
    return lifted, state


@pytest.mark.parametrize(
    ("kind", "of", "slab"),
    [
        (_Exactly, "units", False),
        (_Exactly, "third", False),
        (_Exactly, "third", True),
        (_Exactly, "second", False),
        (_Roughly, "second", False),
        (_Roughly, "units", False),
    ],
)
def test_gradients_are_what_differences_say(kind: type[_Roughly], of: Kind, slab: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyhess.certify.taylor_systems._DOUBLES", 2000)
    form = kind(*_begin(of, slab=slab))
    rng = np.random.default_rng(1301)
    z = form.first() + 0.05 * rng.standard_normal(form.first().size)
    smoothing = 0.1 * abs(form.value(z, 1.0)[0])
    is_the_gradient(form.value(z, smoothing)[1], lambda at: form.value(at, smoothing)[0], z, 1303)


def test_cheap_steps_promise_no_more_than_there_is() -> None:
    lifted, state = _begin("second")
    rough, exact = _Roughly(lifted, state), _Exactly(lifted, state)
    rng = np.random.default_rng(1307)
    for _ in range(5):
        z = rough.first() + 0.1 * rng.standard_normal(rough.first().size)
        # Minus the smallest eigenvalue, in single precision for the second.
        assert rough.value(z, 1e-6)[0] >= exact.value(z, 1e-6)[0] - 1e-5 * abs(rough.value(z, 1e-6)[0])


def test_cheap_steps_lead_to_where_expensive_ones_begin_better() -> None:
    lifted, state = _begin("second", widths=(2, 3, 1), radius=0.05)

    def least(at: State) -> float:
        found = lifted.least(at, at.lams)
        assert found is not None
        return float(np.linalg.eigvalsh(found.schur)[0])

    better = begun(lifted, state, GO_ON)
    assert least(state) < 1.5 * least(better) < 0.0
    assert least(maximised(lifted, better, 2, GO_ON)) >= least(better) > 1.5 * least(maximised(lifted, state, 2, GO_ON))


def test_small_eigenvalues_are_not_smoothed_away(monkeypatch: pytest.MonkeyPatch) -> None:
    obj, theta = trained_problem(1193, [2, 3, 1])
    region = ph.Ball(theta, 1e-3).bind(obj)  # psi is -3e-4
    witness = ph.search(obj, region, rng=1319, starts=8).psi_upper
    found = taylor_bound(obj, region, -np.inf, GO_ON)
    assert found is not None and 1.003 * witness < found.psi_lower <= witness < 0.0
    # They are where the smoothing is relative to one.
    monkeypatch.setattr("pyhess.certify.smoothed._NONE", 1.0)
    other = taylor_bound(obj, region, -np.inf, GO_ON)
    assert other is not None and other.psi_lower < 1.01 * witness


@pytest.mark.parametrize("kind", ["second", "units"])
def test_single_precision_is_good_enough_to_choose(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    lifted, state = _begin(kind)
    double = _Exactly(lifted, state)
    z = double.first()
    value, gradient = double.value(z, 0.1)
    monkeypatch.setattr("pyhess.certify.taylor_systems._DOUBLES", 0)
    single = _Exactly(lifted, state)
    assert single.work.dtype == np.float32 and double.work.dtype == np.float64
    other, slope = single.value(z, 0.1)
    assert abs(other - value) < 1e-5 * abs(value) and np.linalg.norm(slope - gradient) < 1e-4 * np.linalg.norm(gradient)
