"""Third derivatives over a cell, and the bound that rests on them."""

from __future__ import annotations

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import certify, third
from pyhess.certify.boxes import full_subdivision
from pyhess.certify.propagate import BallCells, point_cell
from pyhess.certify.subdivision import Limits
from pyhess.certify.third import third_bound
from pyhess.certify.third_derivatives import third_derivatives

from .conftest import trained_problem

GO_ON = np.zeros(1, dtype=np.int32)
CASES = [
    ([2, 3, 1], ["tanh"], "squared_error", "standard"),
    ([2, 2, 2, 2], ["gelu", "softplus"], "squared_error", "ntk"),
    ([2, 2, 2, 1], ["sigmoid", "tanh"], "logistic", "ntk"),
    ([1, 2, 1, 1], ["tanh", "identity"], "logistic", "standard"),
]


def _problem(widths: list[int], names: list[str], loss: str, parametrization: str) -> ph.Objective:
    rng = np.random.default_rng(1013)
    y = rng.integers(0, 2, 5) if loss == "logistic" else rng.standard_normal((5, widths[-1]))
    data = ph.Dataset(rng.standard_normal((5, widths[0])), y, rng.uniform(0.5, 2.0, 5))
    net = ph.MLP(widths, names, beta=1.7, bias=widths[0] == 2, parametrization=parametrization)
    return ph.Objective(net, data, loss=loss)


def _bound(obj: ph.Objective, region: ph.Ball) -> float:
    found = third_bound(obj, region, -np.inf, GO_ON)
    assert found is not None
    return found.psi_lower


def _differences(obj: ph.Objective, theta: np.ndarray) -> np.ndarray:
    """d³L by central differences of Hessians of the C core, which shares nothing with the enclosures."""
    step = 1e-5
    steps = step * np.eye(obj.num_params)
    return np.array([obj.hessian(theta + e).to_dense() - obj.hessian(theta - e).to_dense() for e in steps]) / (2.0 * step)


@pytest.mark.parametrize("case", CASES)
def test_third_derivatives_are_enclosed_over_a_ball_and_sharp_at_a_point(case: tuple[list[int], list[str], str, str]) -> None:
    obj = _problem(*case)
    rng = np.random.default_rng(1019)
    centre, radius = 0.7 * rng.standard_normal(obj.num_params), 0.3
    exact = _differences(obj, centre)
    size = float(np.abs(exact).max())
    at = third_derivatives(point_cell(obj.net, centre), obj.data, obj.targets, obj.loss, GO_ON)
    assert at is not None
    np.testing.assert_allclose(at.middle, exact, atol=1e-7 * size)
    assert at.radius.max() < 1e-9 * size
    cell = BallCells(obj.net, ph.Ball(centre, radius).bind(obj))(np.full(obj.net.num_layers, radius))
    found = third_derivatives(cell, obj.data, obj.targets, obj.loss, GO_ON)
    assert found is not None
    for _ in range(20):
        direction = rng.standard_normal(obj.num_params)
        values = _differences(obj, centre + radius * direction / np.linalg.norm(direction))
        assert (values >= found.lo - 1e-7 * size).all() and (values <= found.hi + 1e-7 * size).all()


@pytest.mark.parametrize("case", CASES)
def test_the_bound_is_below_every_hessian_of_the_ball(case: tuple[list[int], list[str], str, str]) -> None:
    obj = _problem(*case)
    rng = np.random.default_rng(1021)
    for radius in (1e-9, 1e-3, 0.1):
        region = ph.Ball(0.7 * rng.standard_normal(obj.num_params), radius).bind(obj)
        bound = _bound(obj, region)
        lowest = ph.search(obj, region, rng=1031, starts=4).psi_upper
        for _ in range(20):
            direction = rng.standard_normal(obj.num_params)
            theta = region.center + radius * direction / np.linalg.norm(direction)
            lowest = min(lowest, float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]))
        scale = np.linalg.norm(obj.hessian(region.center).to_dense(), 2)
        assert bound <= lowest + 1e-12 * scale
        if radius < 1e-2:  # the radii of the third derivatives hardly count yet
            assert bound >= lowest - 0.02 * abs(lowest) - radius * 0.1 * scale


def test_what_branch_and_bound_proves_exactly_is_nearly_reached_on_small_balls() -> None:
    rng = np.random.default_rng(1033)
    obj = ph.Objective(ph.MLP([1, 2, 1], bias=False), ph.Dataset(rng.standard_normal((6, 1)), rng.standard_normal(6)))
    for turn in range(2):
        region = ph.Ball(rng.standard_normal(4), 0.005).bind(obj)
        exact = full_subdivision(obj, region).run(Limits(GO_ON, max_cells=400))
        bound = _bound(obj, region)
        witness = ph.search(obj, region, rng=1039, starts=8).psi_upper
        assert bound <= witness and bound >= exact - 0.01 * abs(exact), (turn, bound, exact, witness)


def test_around_trained_weights_it_is_the_best_bound() -> None:
    for seed, widths in ((1049, [2, 2, 1]), (1051, [1, 2, 2, 1])):
        obj, theta = trained_problem(seed, widths)
        region = ph.Ball(theta, 3e-4)
        witness = ph.search(obj, region, rng=1061, starts=8).psi_upper
        certificate = certify(obj, region, "third")
        other = certify(obj, region, "units" if len(widths) == 3 else "deif").psi_lower
        assert witness < 0.0
        assert 1.1 * witness < certificate.psi_lower <= witness
        assert other < 3.0 * certificate.psi_lower


def test_wide_balls_are_given_up_early_and_the_rest_can_be_cancelled() -> None:
    obj, theta = trained_problem(1063, [2, 3, 1])
    region = ph.Ball(theta, 1.0).bind(obj)
    found = third_bound(obj, region, -1.0, GO_ON)
    assert found is not None and found.psi_lower == -np.inf and found.multipliers is None
    assert third_bound(obj, region, -np.inf, np.ones(1, dtype=np.int32)) is None


def test_it_says_where_it_does_not_apply() -> None:
    obj, theta = trained_problem(1069, [2, 2, 1])
    with pytest.raises(ph.InputError, match="it needs a ball"):
        certify(obj, ph.Box(-1.0, 1.0), "third")
    rough = ph.Objective(ph.MLP([2, 2, 1], "relu"), obj.data)
    with pytest.raises(ph.InputError, match="smooth activations"):
        certify(rough, ph.Ball(theta, 0.1), "third")
    assert "third" not in certify(rough, ph.Ball(theta, 0.1)).table
    assert not third.third_knows(ph.MLP([2, 2, 3]), 10, "cross_entropy")
