"""Predicted times of the units' blocks against measured ones."""

from __future__ import annotations

import pytest

import pyhess as ph
from pyhess.certify.cost import certificate_seconds

#: Seconds of ``certify(..., "blocks")`` without a time limit, measured once on one core: widths, data, whether the region is a
#: ball, and whether all units are alike in it (a centre at zero).
MEASURED = {
    ((4, 8, 2), 50, False, False): 0.025, ((4, 8, 2), 50, True, True): 0.67, ((4, 8, 2), 50, True, False): 4.5,
    ((16, 16, 4), 100, False, False): 0.059, ((16, 16, 4), 100, True, True): 0.46, ((16, 16, 4), 100, True, False): 1.0,
    ((64, 16, 10), 200, False, True): 0.023, ((64, 16, 10), 200, False, False): 0.33, ((64, 16, 10), 200, True, True): 0.27,
    ((30, 24, 1), 100, False, False): 0.18, ((30, 24, 1), 100, True, False): 1.8,
}  # fmt: skip


@pytest.mark.parametrize("case", MEASURED, ids=str)
def test_predicted_times_of_blocks_are_right_within_a_small_factor(case: tuple[tuple[int, ...], int, bool, bool]) -> None:
    widths, count, ball, alike = case
    found = certificate_seconds(ph.MLP(list(widths)), count, ball=ball, method="blocks", alike=alike)
    assert MEASURED[case] / 3.0 < found < 3.0 * MEASURED[case]


#: The same of ``"cells"``.
CELLS = {((2, 2, 2, 1), 24, False): 0.33, ((2, 3, 2, 2), 10, True): 0.16, ((1, 2, 2, 2, 1), 12, True): 0.26}


@pytest.mark.parametrize("case", CELLS, ids=str)
def test_predicted_times_of_cells_are_right_within_a_small_factor(case: tuple[tuple[int, ...], int, bool]) -> None:
    widths, count, ball = case
    net = ph.MLP(list(widths))
    assert CELLS[case] / 3.0 < certificate_seconds(net, count, ball=ball, method="cells") < 3.0 * CELLS[case]
    assert certificate_seconds(net, count, ball=ball, time_limit=50.0) == 50.0  # which they use up


#: The same of ``"taylor"``, in a small ball.
TAYLOR = {
    ((2, 3, 3, 1), 20): 2.0,
    ((3, 3, 3, 1), 40): 2.8,
    ((4, 4, 3, 1), 30): 22.0,
    ((4, 8, 1), 40): 20.0,
    # In pairs of units.
    ((4, 16, 1), 40): 13.5,
    ((2, 64, 1), 40): 43.0,
    ((10, 8, 1), 442): 42.0,
    # With polynomials of the second order.
    ((2, 4, 4, 1), 200): 6.5,
}


@pytest.mark.parametrize("case", TAYLOR, ids=str)
def test_predicted_times_of_taylor_are_right_within_a_small_factor(case: tuple[tuple[int, ...], int]) -> None:
    widths, count = case
    assert TAYLOR[case] / 3.0 < certificate_seconds(ph.MLP(list(widths)), count, ball=True, method="taylor") < 3.0 * TAYLOR[case]


def test_what_needs_more_takes_longer() -> None:
    net = ph.MLP([10, 8, 1])
    plain = certificate_seconds(net, 200, ball=False, method="blocks", loss="logistic")
    assert plain < certificate_seconds(net, 200, ball=False, method="blocks")  # the joint bounds
    assert plain < certificate_seconds(net, 200, ball=False, method="blocks", loss="logistic", alike=False)
    assert certificate_seconds(ph.MLP([10, 8, 8, 1]), 200, ball=False, method="blocks") == 0.0  # does not apply
