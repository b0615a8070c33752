"""The independent check of one unit's cells in balls: the rest is enclosed, no weights are lost, what is raised is refuted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special

import pyhess as ph
from pyhess.certify import Certificate, certify, prove
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_unit_ball import BallRest, longest_axis
from pyhess.certify.reference_unit_block import Rest, UnitProblem
from pyhess.certify.units import unit_bound
from pyhess.threshold import verify_file

from .conftest import small_objective

Array = Any


pytestmark = pytest.mark.usefixtures("long_doubles")
problem = partial(small_objective, 383, 4)


def by_units(obj: ph.Objective, ball: ph.Ball, cells: int) -> Certificate:
    ball = ball.bind(obj)
    found = unit_bound(obj, ball, max_cells=cells)
    assert found is not None
    certificate = certify(obj, ball, "moment")
    leaves = found.cover.leaves(obj, ball)
    row = replace(certificate.table["moment"], psi_lower=found.psi_lower, cells=found.cells, leaves=leaves)
    return replace(certificate, method="units", psi_lower=found.psi_lower, table={"units": row})


BALLS = [
    ([1, 3, 1], "squared_error", "tanh", ph.Ball(radius=0.6), {}),
    ([1, 2, 1], "squared_error", "sigmoid", ph.Ball(0.4, 0.4), {"bias": False}),
    ([2, 2, 1], "squared_error", "softplus", ph.Ball(radius=0.4), {"parametrization": "ntk"}),
    ([1, 2, 1], "logistic", "sigmoid", ph.Ball(0.1, 0.7), {}),
    ([1, 2, 3], "cross_entropy", "tanh", ph.Ball(radius=0.5), {}),
    ([1, 1, 1], "squared_error", "tanh", ph.Ball(radius=1.0), {}),
]


@pytest.mark.usefixtures("few_cells")
@pytest.mark.parametrize(("widths", "loss", "activation", "ball", "options"), BALLS)
def test_balls_are_proved_again(
    widths: list[int], loss: str, activation: str, ball: ph.Ball, options: dict[str, Any], tmp_path: Path
) -> None:
    certificate = by_units(problem(widths, loss, activation, **options), ball, 60)
    found = verify_file(certificate.save(tmp_path / "c.npz"), time_limit=600.0)
    assert found.verdict == "verified" and "cells of one unit's weights tested" in found.checks[-1].detail, found.checks
    # With all bounds in the file raised as well, a point has to show it.
    row = certificate.table["units"]
    assert row.leaves is not None
    claim = 0.05 * certificate.psi_lower
    row = replace(row, psi_lower=claim, leaves=replace(row.leaves, bound=np.maximum(row.leaves.bound, claim)))
    false = replace(certificate, psi_lower=claim, table={"units": row})
    refuted = verify_file(false.save(tmp_path / "false.npz"), time_limit=5.0)
    assert refuted.verdict == "refuted" and "v'Hv <=" in refuted.checks[-1].detail
    # Raised in the claim alone.
    false = replace(certificate, psi_lower=0.99 * certificate.psi_lower)
    assert verify_file(false.save(tmp_path / "false.npz"), time_limit=600.0).verdict == "refuted"


@pytest.mark.parametrize(("loss", "outputs"), [("squared_error", 2), ("logistic", 1), ("cross_entropy", 3)])
def test_nothing_beyond_the_blocks_is_proved(loss: str, outputs: int) -> None:
    rng = np.random.default_rng(389)
    obj = problem([2, 3, outputs], loss, "tanh")
    for centre, radius in ((0.0, 0.5), (0.6 * rng.standard_normal(obj.num_params), 0.02)):
        ball = ph.Ball(centre, radius).bind(obj)
        parts = [obj.hessian(theta).to_dense() - obj.gauss_newton(theta).to_dense() for theta in ball.sample(60, rng=rng)]
        lowest = min(float(np.linalg.eigvalsh(part)[0]) for part in parts)
        assert not prove(obj, ball, "units", lowest + 1e-6 * abs(lowest), time_limit=0.5).proved


def effective(obj: ph.Objective, theta: Array, unit: int) -> Array:
    """(u, v) with the scales."""
    (w, b), (a, _) = obj.net.unpack(theta)
    hidden, last = obj.net.layer_scales
    u = w[unit] if b is None else np.r_[w[unit], b[unit]]
    return np.r_[hidden * u, last * a[:, unit]]


PHI: dict[str, Any] = {
    "tanh": np.tanh,
    "softplus": lambda s: np.logaddexp(0.0, s),
    "gelu": lambda s: s * scipy.special.ndtr(s),
}


def added(obj: ph.Objective, theta: Array, unit: int) -> Array:
    """What all units but one and the output bias add to the outputs."""
    units = np.array([effective(obj, theta, k) for k in range(obj.net.widths[1]) if k != unit])
    z = np.hstack([obj.data.X, np.ones((len(obj.data.X), 1))]) if obj.net.bias else obj.data.X
    dim = z.shape[1]
    c = obj.net.unpack(theta)[1][1]
    total: Array = PHI[obj.net.activations[0]](z @ units[:, :dim].T) @ units[:, dim:]
    return total if c is None else total + obj.net.layer_scales[1] * c


@pytest.mark.parametrize("at_zero", [True, False])
@pytest.mark.parametrize(
    ("activation", "options"), [("tanh", {}), ("softplus", {"parametrization": "ntk"}), ("gelu", {"bias": False})]
)
def test_the_rest_holds_what_the_others_add(at_zero: bool, activation: str, options: dict[str, Any]) -> None:
    """Support functions of the model against networks on the sphere: random ones, then some that ascend in a direction."""
    rng = np.random.default_rng(397)
    obj = problem([1, 3, 2], "squared_error", activation, **options)
    for radius in (0.1, 2.0):
        centre = np.zeros(obj.num_params) if at_zero else rng.standard_normal(obj.num_params)
        full = Problem.of(obj)
        rest = BallRest(full, UnitProblem.of(full), ph.Ball(centre, radius).bind(obj), 1)
        for _ in range(6):
            direction = rng.standard_normal((4, 2)) * rng.choice([0.0, 1.0], (4, 2))
            step = rng.standard_normal(obj.num_params)
            for _ in range(4):
                theta = centre + radius * (1.0 - 1e-12) * step / max(float(np.linalg.norm(step)), 1e-9)
                own = effective(obj, theta, 1)
                cells, _ = rest.within(np.stack([own - 1e-9, own + 1e-9])[None])
                assert len(cells) == 1 and (cells[0, 0] <= own).all() and (own <= cells[0, 1]).all()
                found = added(obj, theta, 1)
                for model in (rest.affine(cells), rest.ranges(cells)):
                    assert_holds(model, found, direction)
                moved = [(direction * added(obj, theta + 1e-6 * unit, 1)).sum() for unit in np.eye(theta.size)]
                step = np.array(moved) - (direction * found).sum()


def assert_holds(model: Rest, found: Array, direction: Array) -> None:
    apart = found - model.middle.lo[0].astype(float)
    columns, slack = model.columns.hi[0].astype(float), model.slack[0].astype(float)
    along = np.einsum("nk,nkl->l", direction, columns)
    reach = np.abs(along[model.groups < 0]).sum() + (np.abs(direction) * slack).sum()
    reach += sum(np.linalg.norm(along[model.groups == code]) for code in (0, 1))
    assert (direction * apart).sum() <= reach + 1e-12 * (1.0 + reach)


def test_weights_are_not_lost_by_cutting() -> None:
    rng = np.random.default_rng(401)
    obj = problem([2, 2, 1], "squared_error", "softplus", parametrization="ntk")
    ball = ph.Ball(rng.standard_normal(obj.num_params), 0.7).bind(obj)
    full = Problem.of(obj)
    rest = BallRest(full, UnitProblem.of(full), ball, 0)
    cells = rest.root
    for side in (0, 3, 1, 2, 0, 3):
        below, above = cells.copy(), cells.copy()
        below[:, 1, side] = above[:, 0, side] = 0.5 * (cells[:, 0, side] + cells[:, 1, side])
        cells, _ = rest.within(np.concatenate([below, above]))
    steps = rng.standard_normal((400, obj.num_params)) * rng.choice([0.0, 1.0], (400, obj.num_params))
    for step in steps:
        theta = ball.center + ball.radius * (1.0 - 1e-13) * step / max(float(np.linalg.norm(step)), 1e-9)
        own = effective(obj, theta, 0)
        assert ((cells[:, 0] <= own) & (own <= cells[:, 1])).all(axis=1).any()


def test_the_ellipsoid_around_products_and_the_output_bias() -> None:
    rng = np.random.default_rng(409)
    for g, k, rho in 10.0 ** rng.uniform(-1.0, 1.0, (60, 3)):
        axis = float(longest_axis(*(Range(wide(x)) for x in (g, k, rho))))
        t, share = np.linspace(0.0, rho, 2001)[:, None], np.linspace(0.0, 1.0, 101)
        wanted = (g * (rho**2 - t**2) / 2.0 + k * t * share).max(axis=0)
        ellipsoid = np.sqrt((g * rho**2 / 2.0) ** 2 * (1.0 - share**2) + axis**2 * share**2)
        assert (wanted <= ellipsoid * (1.0 + 1e-12)).all()
        # Along the constant it is no longer than needed.
        assert wanted[-1] >= 0.999 * axis
