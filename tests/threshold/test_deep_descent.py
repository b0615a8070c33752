"""Descents end at minima also where curvatures differ by many powers of ten."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize

import pyhess as ph
from pyhess import datasets


@pytest.mark.parametrize("widths", [[10, 2, 1], [10, 2, 2, 1]], ids=str)
def test_another_method_finds_nothing_lower_from_where_a_search_ends(widths: list[int]) -> None:
    data = datasets.load("diabetes")
    obj = ph.Objective(ph.MLP(widths), ph.Dataset(100.0 * data.X[:100], data.y[:100]))  # incoming weights weigh 1e4 times as much
    found = ph.search(obj, ph.Box(-1.0, 1.0), rng=5, starts=4)
    size = obj.num_params

    def quotient(z: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        jet, v = obj.curvature(z[:size], z[size:]), z[size:]
        rho = jet.q / (v @ v)
        return rho, np.concatenate([jet.grad, 2.0 * (jet.hv - rho * v)]) / (v @ v)

    start = np.concatenate([found.theta, found.v])
    bounds = [(-1.0, 1.0)] * size + [(None, None)] * size
    lower = minimize(quotient, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxcor": 50, "maxfun": 400})
    assert lower.fun > found.psi_upper * (1.0 + 1e-6)
