"""Time limits of certificates: what does not fit is left out or ends, and is told."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import Certification, portfolio, schedule, subdivision
from pyhess.certify.dense import dense_enclosures
from pyhess.certify.limits import raised_after
from pyhess.certify.propagate import box_cell
from pyhess.certify.schedule import Portfolio
from pyhess.certify.subdivision import Subdivision


def problem(widths: list[int], count: int = 6) -> ph.Objective:
    rng = np.random.default_rng(1229)
    data = ph.Dataset(rng.standard_normal((count, widths[0])), rng.standard_normal((count, widths[-1])))
    return ph.Objective(ph.MLP(widths, "tanh"), data)


def test_whole_matrices_that_do_not_fit_into_the_time_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    obj, box = problem([3, 3, 2]), ph.Box(-0.3, 0.3)
    fits = Certification(obj, box.bind(obj)).roots("auto", 1000.0)
    assert {"centre", "comparison", "deif"} < set(fits.certificate().table) and not fits.out_of_time
    monkeypatch.setattr(portfolio, "dense_seconds", lambda *_: 1001.0)
    late = Certification(obj, box.bind(obj)).roots("auto", 1000.0)
    assert set(late.certificate().table) == {"moment", "blocks"} and late.out_of_time
    assert "centre" in Certification(obj, box.bind(obj)).roots("auto").certificate().table


def test_bounds_of_small_balls_that_do_not_fit_into_the_time_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    obj, ball = problem([2, 2, 1]), ph.Ball(radius=0.01)
    fits = Certification(obj, ball.bind(obj)).roots("auto", 1000.0)
    assert fits.certificate().table["taylor"].psi_lower > -np.inf and not fits.out_of_time
    monkeypatch.setattr(portfolio, "taylor_seconds", lambda *_: 1001.0)
    late = Certification(obj, ball.bind(obj)).roots("auto", 1000.0)
    assert "taylor" not in late.certificate().table and late.out_of_time
    for again in (Certification(obj, ball.bind(obj)).roots("auto"), Certification(obj, ball.bind(obj)).roots("taylor", 1000.0)):
        assert "taylor" in again.certificate().table and not again.out_of_time


def test_a_method_that_reaches_any_accuracy_has_most_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    monkeypatch.setattr(portfolio.Run, "_units", lambda _self, share, _goal: shares.append(share))
    for widths in ([1, 1, 1], [2, 3, 1]):
        obj = problem(widths)
        Certification(obj, ph.Ball(radius=0.5).bind(obj)).refine("auto", 1.0, psi_upper=-1e-300)
    assert shares == pytest.approx([0.1, 1.0], abs=0.05)


def test_where_the_bracket_is_closed_nothing_more_is_done() -> None:
    obj, ball = problem([1, 1, 1]), ph.Ball(radius=0.5)
    found = ph.certify(obj, ball, psi_upper=ph.search(obj, ball, rng=7).psi_upper, time_limit=60.0)
    assert found.method == "full" and "units" not in found.table


def test_a_matrix_bound_asked_for_by_name_ends_with_its_time() -> None:
    obj = problem([20, 24, 3], 30)
    certificate = ph.certify(obj, ph.Box(-0.1, 0.1), "centre", time_limit=1e-6)
    assert certificate.psi_lower == -np.inf and certificate.method == "none"
    assert ph.certify(obj, ph.Box(-0.1, 0.1), "centre", time_limit=600.0).method == "centre"


def test_matrices_look_at_the_flag_between_their_steps() -> None:
    class Raised:
        """A flag that is raised after some looks at it."""

        def __init__(self, looks: int) -> None:
            self.left = looks

        def __getitem__(self, _: int) -> int:
            self.left -= 1
            return int(self.left < 0)

    obj = problem([3, 3, 2, 2])
    cell = box_cell(obj.net, ph.Box(-0.2, 0.2).bind(obj))
    # One block of data: a look before it, and one at each of three layers.
    for looks in range(5):
        found = dense_enclosures(cell, obj.data, obj.targets, obj.loss, Raised(looks))  # type: ignore[arg-type]
        assert (found is None) == (looks < 4)


def test_a_flag_is_lowered_again_unless_others_raised_it() -> None:
    flag = np.zeros(1, dtype=np.int32)
    for seconds, by_others in ((1e-6, 0), (1e-6, 1), (600.0, 1), (600.0, 0), (None, 0)):
        flag[0] = 0
        with raised_after(flag, seconds) as late:
            if by_others:
                flag[0] = by_others
            while seconds == 1e-6 and not late[0]:
                pass
        assert (flag[0], bool(late[0])) == (by_others, seconds == 1e-6)


def test_a_search_whose_rounds_are_longer_than_a_slice_of_the_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = count()

    def slow(lows: np.ndarray, highs: np.ndarray, bounds: np.ndarray, splits: np.ndarray) -> None:
        bounds[:], splits[:] = -(highs - lows).max(axis=1), -1
        for _ in range(len(lows)):
            next(seconds)  # every box takes a second, and every look at the clock

    for module in (schedule, subdivision):
        monkeypatch.setattr(module, "monotonic", lambda: float(next(seconds)))
    search = Portfolio({"cells": lambda: Subdivision(slow, np.zeros(3), np.ones(3))}, {"cells": 1.0})
    search.work(np.zeros(1, dtype=np.int32), 400.0, None, -np.inf, None)  # slices of 25 s; a full round takes more than 32
    assert search.table()["cells"].cells > 150
