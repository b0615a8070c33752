"""The residual part's block of one unit, for any number of inputs: against samples, its limit and the other bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import certify, portfolio
from pyhess.certify.intervals import Interval
from pyhess.certify.propagate import whole_cell
from pyhess.certify.unit_blocks import _about_labels
from pyhess.certify.whole_bounds import WholeBounds
from pyhess.errors import InputError

from .conftest import random_objective, random_region


def classes(widths: list[int], samples: int, activation: str = "tanh") -> ph.Objective:
    """Gaussian inputs whose first ones tell the class."""
    rng = np.random.default_rng(311)
    x = rng.standard_normal((samples, widths[0])) * 0.4
    y = x[:, : widths[-1]].argmax(axis=1)
    return ph.Objective(ph.MLP(widths, activation), ph.Dataset(x, y), loss="cross_entropy")


def test_never_above_what_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portfolio, "_MAX_CELLS", 5)
    rng = np.random.default_rng(312)
    for turn in range(60):
        obj = random_objective(rng, depth=1, relu=turn % 4 == 0)
        region = random_region(rng, obj.num_params).bind(obj)
        bound = certify(obj, region, "blocks").psi_lower
        assert -np.inf < bound <= 0.0
        middle = region.interior_point()
        points = list(region.sample(6, rng=rng))
        points += [region.project(middle + 1e3 * rng.choice([-1.0, 1.0], obj.num_params)) for _ in range(6)]
        for theta in points:
            dense = obj.hessian(theta).to_dense()
            assert bound <= np.linalg.eigvalsh(dense)[0] + 1e-12 * (1.0 + np.abs(dense).sum())


@pytest.mark.parametrize("parametrization", ["standard", "ntk"])
def test_becomes_the_residual_part_at_a_point(parametrization: str) -> None:
    rng = np.random.default_rng(313)
    data = ph.Dataset(rng.standard_normal((9, 3)), rng.integers(0, 3, 9))
    obj = ph.Objective(ph.MLP([3, 4, 3], "gelu", parametrization=parametrization), data, loss="cross_entropy")
    theta = rng.standard_normal(obj.num_params)
    residual = obj.hessian(theta).to_dense() - obj.gauss_newton(theta).to_dense()
    lowest = float(np.linalg.eigvalsh(residual)[0])
    for region in (ph.Box.around(theta, 1e-9), ph.Ball(theta, 1e-9)):
        bound = certify(obj, region, "blocks").psi_lower
        assert lowest - 1e-5 * abs(lowest) <= bound <= lowest + 1e-7 * abs(lowest)


def test_tighter_than_norms_and_entries_where_there_are_many_inputs() -> None:
    obj = classes([30, 6, 4], 200)
    others = ("moment", "centre", "comparison", "deif")
    for region, gain in (
        (ph.Box(-0.03, 0.03), 0.7),
        (ph.Box(-0.1, 0.1), 0.6),
        (ph.Box(-0.4, 0.4), 0.85),
        (ph.Ball(radius=0.3), 0.7),
    ):
        found = certify(obj, region)
        assert "units" not in found.table and found.method == "blocks"
        assert found.psi_lower >= gain * max(found.table[name].psi_lower for name in others)
        assert found.psi_lower <= ph.search(obj, region, rng=7, starts=2).psi_upper


def test_radius_about_a_label_against_random_residuals() -> None:
    """|phi' (p - e_y) - B| over p of the simplex within the bounds, and phi' of both signs."""
    rng = np.random.default_rng(314)
    for _ in range(40):
        outputs = int(rng.integers(2, 6))
        logits = rng.standard_normal((400, outputs)) * float(rng.choice([0.3, 2.0, 8.0]))
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        label = np.eye(outputs, dtype=bool)[:1]
        low, high = np.sort(rng.uniform(-0.2, 1.1, 2))
        r = p - label
        known = math.sqrt(2.0) * max(abs(low), abs(high))
        residual = Interval(r.min(axis=0)[None], r.max(axis=0)[None])
        middle, radius = _about_labels(label, Interval(np.array([low]), np.array([high])), residual, np.full(1, known))
        for slope in (low, high, 0.5 * (low + high)):
            assert (np.linalg.norm(slope * r - middle, axis=1) <= radius[0, 0]).all()
        assert radius[0, 0] <= known
    soft = np.zeros((1, 3), dtype=bool)
    middle, radius = _about_labels(
        soft, Interval(np.zeros(1), np.ones(1)), Interval(-np.ones((1, 3)), np.ones((1, 3))), np.ones(1)
    )
    assert not middle.any() and radius[0, 0] == 1.0


def test_as_good_as_the_moment_bound() -> None:
    """Where the middles say nothing the norms alone are left, and with the best tau they give the moment bound."""
    obj = classes([12, 5, 3], 60)
    for region in (ph.Box(-2.0, 2.0), ph.Box(-0.5, 0.5), ph.Ball(radius=2.0)):
        makers = WholeBounds(obj, region.bind(obj), np.zeros(1, dtype=np.int32)).makers
        blocks, moment = (makers[name]() for name in ("blocks", "moment"))
        assert blocks is not None and moment is not None
        of_blocks, of_norms = (bound(whole_cell(obj.net, region.bind(obj))) for bound in (blocks, moment))
        assert of_blocks is not None and of_norms is not None and of_blocks >= of_norms


def test_needs_one_hidden_layer() -> None:
    obj = classes([3, 4, 3, 3], 10)
    with pytest.raises(InputError, match="one hidden layer"):
        certify(obj, ph.Box(-0.1, 0.1), "blocks")
