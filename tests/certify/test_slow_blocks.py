"""The independent check of the units' blocks with the worst of every datum: what holds is proved again, what is raised is not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import certify, prove
from pyhess.certify.reference_blocks import UnitBlocks
from pyhess.certify.reference_hessian import Problem, ball_cells, box_cells
from pyhess.certify.reference_interval import wide
from pyhess.certify.reference_moment import with_norms
from pyhess.threshold import verify_file

from .conftest import small_objective

#: Seconds that no proof of these tests comes near, on a slow machine either.
AMPLE = 600.0


pytestmark = pytest.mark.usefixtures("long_doubles")
problem = partial(small_objective, 337, 5)


@pytest.fixture(autouse=True)
def _little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyhess.certify.portfolio._MAX_CELLS", 6)


BLOCKS = [
    ([2, 3, 1], "squared_error", "tanh", ph.Box(-0.5, 0.5), {}),
    ([3, 2, 2], "squared_error", "gelu", ph.Box(-0.3, 0.6), {"parametrization": "ntk"}),
    ([2, 3, 1], "logistic", "sigmoid", ph.Ball(0.1, 0.7), {"bias": False}),
    ([3, 4, 3], "cross_entropy", "softplus", ph.Ball(0.05, 0.4), {}),
    ([2, 2, 1], "squared_error", "relu", ph.Box(-0.4, 0.4), {}),
    ([20, 12, 3], "cross_entropy", "tanh", ph.Box(-0.05, 0.05), {}),
]


@pytest.mark.parametrize(("widths", "loss", "activation", "region", "options"), BLOCKS)
def test_blocks_are_proved_again(
    widths: list[int], loss: str, activation: str, region: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    certificate = certify(problem(widths, loss, activation, **options), region, "blocks")
    found = verify_file(certificate.save(tmp_path / "c.npz"), time_limit=AMPLE)
    assert found.verdict == "verified", found.checks[-1].detail
    # More than what better multipliers and finer pieces of the residual gain here.
    claim = 0.5 * certificate.psi_lower
    false = replace(certificate, psi_lower=claim, table={"blocks": replace(certificate.table["blocks"], psi_lower=claim)})
    refuted = verify_file(false.save(tmp_path / "false.npz"), time_limit=2.0)
    assert refuted.verdict == "refuted"
    assert "v'Hv <=" in refuted.checks[-1].detail or "now proves" in refuted.checks[-1].detail


@pytest.mark.parametrize(("loss", "outputs"), [("squared_error", 1), ("squared_error", 2), ("logistic", 1), ("cross_entropy", 3)])
def test_nothing_beyond_a_block_is_proved(loss: str, outputs: int) -> None:
    rng = np.random.default_rng(347)
    obj = problem([2, 3, outputs], loss, "tanh", parametrization="ntk")
    check, forms = Problem.of(obj), UnitBlocks(Problem.of(obj), np.inf)
    for half in (1e-9, 0.02, 0.3):
        centre = rng.standard_normal(obj.num_params)
        box, ball = ph.Box.around(centre, half).bind(obj), ph.Ball(centre, half).bind(obj)
        cells = [
            (box, box_cells(check, wide(box.low)[None], wide(box.high)[None])),
            (ball, ball_cells(check, wide(centre), wide(np.full((1, 2), half)))),
        ]
        for region, cell in cells:
            thetas = list(region.sample(60, rng=rng))
            parts = [obj.hessian(theta).to_dense() - obj.gauss_newton(theta).to_dense() for theta in thetas]
            lowest = min(float(np.linalg.eigvalsh(part)[0]) for part in parts)
            cell = with_norms(check, cell)
            assert not forms.hold(cell, lowest + 1e-6 * abs(lowest))
            # At a point nothing is lost.
            assert half > 1e-6 or forms.hold(cell, lowest - 1e-6 * abs(lowest))


def test_two_hidden_layers_have_no_blocks() -> None:
    obj = problem([1, 2, 2, 1], "squared_error", "tanh")
    assert "one hidden layer only" in prove(obj, ph.Box(-0.1, 0.1), "blocks", -100.0).detail
