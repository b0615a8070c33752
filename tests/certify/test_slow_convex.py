"""The independent check of the closed form for the logistic loss and two classes: values proved again, and nothing above them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import certify, prove
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_linear_convex import Reach, prove_convex
from pyhess.threshold import verify_file

pytestmark = pytest.mark.usefixtures("long_doubles")


def problem(widths: list[int], loss: str, count: int, **options: Any) -> ph.Objective:
    rng = np.random.default_rng(359)
    x = rng.standard_normal((count, widths[0]))
    soft = loss == "cross_entropy" and count % 2 == 0
    y: Any = rng.dirichlet(np.ones(2), count) if soft else rng.integers(0, 2, count)
    return ph.Objective(ph.MLP(widths, "identity", **options), ph.Dataset(x, y, rng.random(count) + 0.1), loss=loss)


def box(obj: ph.Objective) -> ph.Box:
    """The same ranges for all units, symmetric ones for what enters them."""
    d, m, outputs = obj.net.widths
    ends = []
    for sign, v, c in ((-1.0, -0.7, -0.3), (1.0, 0.4, 0.5)):
        hidden = (np.tile(np.linspace(0.5, 0.9, d) * sign, (m, 1)), np.full(m, 0.6 * sign) if obj.net.bias else None)
        last = (np.tile(np.linspace(v, v + 0.2, outputs)[:, None], m), np.full(outputs, c) if obj.net.bias else None)
        ends.append(obj.net.pack([hidden, last]))
    return ph.Box(*ends)


EXACT = [
    ([2, 3, 1], "logistic", 4, None, {}),
    ([2, 2, 2], "cross_entropy", 4, None, {"parametrization": "ntk"}),
    ([2, 2, 1], "logistic", 4, ph.Ball(radius=1.7), {"parametrization": "ntk"}),
    ([2, 2, 2], "cross_entropy", 5, ph.Ball(radius=1.1), {"bias": False}),
    ([1, 1, 1], "logistic", 3, ph.Ball(radius=1.5), {"bias": False}),
    ([6, 2, 1], "logistic", 1, ph.Ball(radius=0.8), {}),
    ([6, 2, 2], "cross_entropy", 1, None, {}),
]


@pytest.mark.parametrize(("widths", "loss", "count", "region", "options"), EXACT)
def test_values_are_proved_again(
    widths: list[int], loss: str, count: int, region: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    obj = problem(widths, loss, count, **options)
    certificate = certify(obj, region or box(obj), "exact")
    found = verify_file(certificate.save(tmp_path / "c.npz"), time_limit=600.0)
    assert found.verdict == "verified" and "the linear model's loss" in found.checks[-1].detail, found.checks[-1].detail
    # The value is exact: nothing above it can be proved, and the fast formula gives it again.
    claim = certificate.psi_lower * (1.0 - 1e-5)
    assert not prove(obj, certificate.region, "exact", claim, time_limit=2.0).proved
    false = replace(certificate, psi_lower=claim, table={"exact": replace(certificate.table["exact"], psi_lower=claim)})
    assert verify_file(false.save(tmp_path / "false.npz"), time_limit=2.0).verdict == "refuted"


def test_boxes_of_unlike_units_hold_their_hessians() -> None:
    """No closed form is known there, but what is proved has to be true."""
    rng = np.random.default_rng(367)
    for bias in (False, True):
        obj = problem([2, 3, 2], "cross_entropy", 5, bias=bias)
        centre = rng.standard_normal(obj.num_params)
        region = ph.Box(centre - 0.2, centre + 0.3)
        thetas = region.bind(obj).sample(200, rng=rng)
        parts = [obj.hessian(theta).to_dense() - obj.gauss_newton(theta).to_dense() for theta in thetas]
        lowest = min(float(np.linalg.eigvalsh(part)[0]) for part in parts)
        assert not prove(obj, region, "exact", 0.999 * lowest, time_limit=2.0).proved
        assert prove(obj, region, "exact", 4.0 * lowest, time_limit=60.0).proved


def test_support_of_what_a_ball_reaches() -> None:
    rng = np.random.default_rng(373)
    for size, shift, radius in ((1.0, 1.0, 0.3), (0.7, 1.2, 2.0), (1.4, 0.0, 1.0)):
        reach = Reach(Range(wide(size)), Range(wide(shift)), Range(wide(radius)))
        c = np.linspace(-radius, radius, 4001)
        for n in rng.standard_normal((20, 3)):
            values = size * (radius**2 - c**2) / 2.0 * np.linalg.norm(n) + shift * c * n[-1]
            assert float(reach.support(Range(wide(n[None])))[0]) == pytest.approx(values.max(), rel=1e-6)
            assert reach.support(Range(wide(n[None])))[0] >= values.max() * (1.0 - 1e-15)
            # The point of the boundary with this normal, moved inwards and outwards.
            best = c[values.argmax()]
            point = size * (radius**2 - best**2) / 2.0 * n / np.linalg.norm(n) + shift * best * np.eye(3)[2]
            inner, outer = (factor * point[None] for factor in (1.0 - 1e-4, 1.0 + 1e-4))
            assert reach.interior(inner, inner)[0] and not reach.interior(outer, outer)[0]


def test_too_many_weights_are_left_alone() -> None:
    obj = problem([9, 2, 1], "logistic", 4)
    found, detail = prove_convex(Problem.of(obj), (wide(0.0), 1.0), Range(wide(10.0)), np.inf)
    assert not found and "too large for the independent check: 10 weights of the linear model" in detail
