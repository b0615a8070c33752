"""The independent check of certificates by Taylor polynomials of the second order, which have no tau."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import pyhess as ph
from pyhess.certify import Certificate, certify, prove
from pyhess.certify.slab_multipliers import Slab, SlabMultipliers
from pyhess.certify.taylor_multipliers import TaylorMultipliers
from pyhess.threshold import verify_file

from .conftest import trained
from .slow_slab_cases import own_slabs, steepest
from .slow_taylor_cases import CASES, Array, Case, problem

pytestmark = pytest.mark.usefixtures("long_doubles")


@pytest.fixture(autouse=True)
def _second_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates of small networks are of the second order too."""
    monkeypatch.setattr("pyhess.certify.taylor.polynomial_kind", lambda *_, **__: "second")


def _trained(radius: float, widths: tuple[int, ...] = (2, 2, 1)) -> Certificate:
    rng = np.random.default_rng(2221)
    x = rng.standard_normal((8, 2))
    obj = ph.Objective(ph.MLP(list(widths)), ph.Dataset(x, np.tanh(x[:, 0] - x[:, 1]) + 0.1 * rng.standard_normal(8)))
    return certify(obj, ph.Ball(trained(obj, rng), radius), "taylor")


def _proof(certificate: Certificate, claim: float, multipliers: Any = None, **options: Any) -> Any:
    multipliers = certificate.table[certificate.method].multipliers if multipliers is None else multipliers
    return prove(certificate.obj, certificate.region, certificate.method, claim, multipliers=multipliers, **options)


def _orders(certificate: Certificate) -> set[int]:
    multipliers = certificate.table[certificate.method].multipliers
    if isinstance(multipliers, SlabMultipliers):
        return {slab.taylor.order for slab in multipliers.slabs}
    assert isinstance(multipliers, TaylorMultipliers)
    return {multipliers.order}


def _lowest(obj: ph.Objective, ball: ph.Ball, rng: np.random.Generator) -> float:
    """The smallest eigenvalue found in the ball, by descent from the lowest of many points."""
    radius = float(ball.radius)

    def value(u: Array) -> float:
        theta = ball.center + radius * u / max(1.0, float(np.linalg.norm(u)) * (1.0 + 1e-12))
        return float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0])

    points = rng.standard_normal((40, obj.num_params))
    best = min((np.zeros(obj.num_params), *points), key=value)
    return min(value(best), float(minimize(value, best, method="Powell", options={"maxfev": 300}).fun))


@pytest.mark.parametrize("case", CASES)
def test_certificates_are_proved_again_and_nothing_above_an_eigenvalue(case: Case) -> None:
    obj = problem(case)
    rng = np.random.default_rng(2237)
    for radius in (1e-9, 0.02, 0.2):
        ball = ph.Ball(0.7 * rng.standard_normal(obj.num_params), radius).bind(obj)
        lowest = _lowest(obj, ball, rng)
        for method in ("taylor", "slabs") if radius > 0.1 else ("taylor",):
            certificate = certify(obj, ball, method)
            assert _orders(certificate) == {2}
            claim = certificate.psi_lower
            found = _proof(certificate, claim - 1e-9 * abs(claim))
            assert found.proved and "of the second order" in found.detail, (case, radius, method, found.detail)
            for above in (1e-7, 0.03):
                assert not _proof(certificate, lowest + above * abs(lowest)).proved
            if radius < 1e-6:
                assert claim > lowest - 1e-6 and not _proof(certificate, claim + 1e-3 * abs(claim)).proved


def test_verified_from_the_file_alone_and_what_is_tampered_with_is_not(tmp_path: Path) -> None:
    certificate = _trained(0.01)
    path = certificate.save(tmp_path / "c.npz")
    with np.load(path) as content:
        described = json.loads(str(content["description"]))
    assert described["multipliers"]["tau"] is None and described["schema_version"] == 8
    again, multipliers = (x.table["taylor"].multipliers for x in (ph.load_certificate(path), certificate))
    assert isinstance(again, TaylorMultipliers) and again.tau is None and again.order == 2
    assert isinstance(multipliers, TaylorMultipliers)
    for name, value in vars(multipliers).items():
        assert np.array_equal(getattr(again, name), value), name
    found = verify_file(path, time_limit=10.0)
    assert found.verdict == "verified" and "Taylor polynomial of the second order" in found.checks[-1].detail, found.checks
    claim = certificate.psi_lower - 1e-9 * abs(certificate.psi_lower)
    changed: list[dict[str, Any]] = [
        {"lam": 1.5 * multipliers.lam},
        {"lam": 0.6 * multipliers.lam},
        {"lam": -multipliers.lam},
        {"share": 0.9},
        {"share": 0.0},
        {"share": 1.5},
        {"share": float("nan")},
        {"weights": -multipliers.weights},
        {"weights": np.geomspace(1e-6, 1e6, len(multipliers.weights))},
        {"lowered": np.zeros_like(multipliers.lowered)},
        {"lowered": 3.0 * multipliers.lowered},
        {"kept": np.zeros_like(multipliers.kept)},
        {"kept": 1.0 + multipliers.kept},
        # Of the third order they are no multipliers for this claim.
        {"tau": 0.0},
        {"tau": float("nan")},
        {"tau": 1e-12},
    ]
    for change in changed:
        assert not _proof(certificate, claim, replace(multipliers, **change)).proved, change.keys()
    assert not _proof(certificate, claim + 0.01 * abs(claim)).proved


def _elongated() -> tuple[ph.Objective, ph.Ball]:
    """Where the Hessian changes along one direction above all."""
    rng = np.random.default_rng(2111)
    x = rng.standard_normal((5, 1))
    obj = ph.Objective(ph.MLP([1, 2, 1]), ph.Dataset(x, np.tanh(2.0 * x[:, 0]) + 0.1 * rng.standard_normal(5)))
    return obj, ph.Ball(trained(obj, rng), 0.2).bind(obj)


def test_slabs_have_no_omega_and_may_be_of_either_order() -> None:
    obj, ball = _elongated()
    direction, cuts = steepest(obj, ball.center), np.array([-1.0, -0.6, 0.1, 0.7, 1.0])
    with np.errstate(all="ignore"):
        (values, second), (others, third) = (own_slabs(obj, ball, direction, cuts, 0.1, order=order) for order in (2, 3))

    def proof(claim: float, *slabs: Slab) -> Any:
        return prove(obj, ball, "slabs", claim, multipliers=SlabMultipliers(direction, slabs))

    claim = float(values.min())
    claim -= 1e-9 * abs(claim)
    for narrow in (1.0, 0.1, 0.0, -2.0, float("nan")):
        found = proof(claim, *(replace(slab, narrow=narrow) for slab in second.slabs))
        assert found.proved and "polynomials of the second order at the centres of 4 slabs" in found.detail
    assert not proof(claim + 1e-6 * abs(claim), *second.slabs).proved
    least = float(min(values[0], *others[1:]))
    mixed = proof(least - 1e-9 * abs(least), second.slabs[0], *third.slabs[1:])
    assert mixed.proved and "of the second and third order" in mixed.detail
    # Where it is the worst, a slab is not proved with less of S.
    worst = int(values.argmin())
    slabs = list(second.slabs)
    slabs[worst] = replace(slabs[worst], along=0.1 * slabs[worst].along)
    assert not proof(claim, *slabs).proved


@pytest.mark.parametrize(("widths", "tau", "most"), [((2, 6, 7, 1), None, 72), ((2, 5, 5, 1), 1.0, 40)])
def test_networks_that_are_too_large_are_said_to_be(widths: tuple[int, ...], tau: float | None, most: int) -> None:
    rng = np.random.default_rng(2239)
    obj = ph.Objective(ph.MLP(list(widths)), ph.Dataset(rng.standard_normal((3, 2)), rng.standard_normal(3)))
    size = obj.num_params
    assert size > most
    taylor = TaylorMultipliers(np.eye(size), np.zeros((size,) * 3), 0.5, tau, np.ones(size), np.zeros((3, 1)), np.ones(3))
    slab = Slab(-1.0, 1.0, np.eye(size), 1.0, taylor)
    ball = ph.Ball(np.zeros(size), 0.1)
    for method, multipliers in (("taylor", taylor), ("slabs", SlabMultipliers(np.eye(size)[0], (slab,)))):
        found = prove(obj, ball, method, -1e9, multipliers=multipliers, time_limit=1e6)
        assert not found.proved and f"too large for the independent check: {size} parameters" in found.detail
        assert f"and {most} parameters" in found.detail


def test_a_network_beyond_the_third_order_is_proved_from_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(2243)
    obj = ph.Objective(ph.MLP([2, 4, 5, 1]), ph.Dataset(rng.standard_normal((4, 2)), rng.standard_normal(4)))
    size = obj.num_params
    ball = ph.Ball(0.5 * rng.standard_normal(size), 1e-3).bind(obj)
    certificate = certify(obj, ball, "taylor")
    assert size == 43 and _orders(certificate) == {2}
    found = verify_file(certificate.save(tmp_path / "c.npz"), time_limit=30.0)
    assert found.verdict == "verified", found.checks
    assert not _proof(certificate, _lowest(obj, ball, rng) + 1e-3).proved


def test_no_time_and_numbers_that_are_too_large_are_said() -> None:
    certificate = _trained(0.01)
    short = _proof(certificate, certificate.psi_lower, time_limit=1e-3)
    assert not short.proved and "too large for the independent check: 9 parameters and 8 data" in short.detail
    taylor = certificate.table["taylor"].multipliers
    assert isinstance(taylor, TaylorMultipliers)
    slabs = SlabMultipliers(np.eye(9)[0], (Slab(-1.0, 1.0, np.eye(9), 1.0, taylor),))
    for centre, radius in ((1e300, 1e300), (1e200, 1e-3), (1e150, 1.0)):
        ball = ph.Ball(np.full(9, centre), radius)
        with np.errstate(all="ignore"):
            for method, multipliers in (("taylor", taylor), ("slabs", slabs)):
                assert not prove(certificate.obj, ball, method, -1e9, multipliers=multipliers).proved
