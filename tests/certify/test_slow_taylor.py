"""The independent check of the bound by the Hessian's Taylor polynomial: nothing false is proved."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import Certificate, certify, prove
from pyhess.certify.reference_changes import Changes
from pyhess.certify.reference_definite import not_negative
from pyhess.certify.reference_interval import wide
from pyhess.certify.taylor_multipliers import TaylorMultipliers
from pyhess.threshold import verify_file

from .conftest import trained
from .slow_slab_cases import own_multipliers
from .slow_taylor_cases import CASES, Array, Case, only, problem

pytestmark = pytest.mark.usefixtures("long_doubles")


def _as(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates of one hidden layer are by units, or with the bounds of any network."""
    if kind != "units":
        monkeypatch.setattr("pyhess.certify.taylor.polynomial_kind", lambda *_, **__: kind)


def _trained(radius: float) -> Certificate:
    rng = np.random.default_rng(2017)
    x = rng.standard_normal((8, 2))
    obj = ph.Objective(ph.MLP([2, 2, 1]), ph.Dataset(x, np.tanh(x[:, 0] - x[:, 1]) + 0.1 * rng.standard_normal(8)))
    return certify(obj, ph.Ball(trained(obj, rng), radius), "taylor")


def _altered(certificate: Certificate, psi_lower: float | None = None, **change: Array) -> Certificate:
    """The claim and what the file brings along changed, in accordance with each other."""
    row = certificate.table["taylor"]
    claim = certificate.psi_lower if psi_lower is None else psi_lower
    row = replace(row, psi_lower=claim, multipliers=replace(row.multipliers, **change))
    return replace(certificate, psi_lower=claim, table={"taylor": row})


def _proof(certificate: Certificate, claim: float | None = None, **options: Any) -> Any:
    claim = certificate.psi_lower if claim is None else claim
    multipliers = certificate.table["taylor"].multipliers
    return prove(certificate.obj, certificate.region, "taylor", claim, multipliers=multipliers, **options)


def test_forms_that_are_not_negative() -> None:
    rng = np.random.default_rng(2053)
    a = rng.standard_normal((6, 4))
    singular = wide(a @ a.T)
    assert not not_negative(singular, 6) and not_negative(singular + 1e-10 * np.eye(6), 6)
    # Only the first two coordinates have to be made up for what the others may lack.
    slack = np.diag([1.0, 1.0, 1e-14, 1e-14])
    assert not_negative(wide(slack), 2) and not not_negative(wide(slack), 2, wide(np.full(4, 0.8)))
    assert not not_negative(wide(np.diag([1.0, 1.0, 1.0, -1e-9])), 2)
    # The others may be longer than these: -0.1 |w|² is made up for by 0.5 |v|² up to |w| = 2.2 |v| at the most.
    uneven, error = wide(np.diag([0.5, 1e-9])), wide([0.0, 0.1])
    assert not_negative(uneven, 1, error, 1.5) and not not_negative(uneven, 1, error, 2.3)
    assert not not_negative(wide(np.full((2, 2), np.nan)), 1)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_what_the_multipliers_give_is_proved_and_no_more(case: Case, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "_whatever_the_network")
    obj = problem(case)
    rng = np.random.default_rng(2063)
    for radius in (1e-9, 0.05):
        ball = ph.Ball(0.7 * rng.standard_normal(obj.num_params), radius).bind(obj)
        share = 0.1 if radius > 1e-6 else 1e-7
        value, slab = own_multipliers(obj, ball.center, Changes.ball(radius), radius, share, order=order)
        multipliers = slab.taylor
        proof = partial(prove, obj, ball, "taylor", multipliers=multipliers)
        assert proof(value - 1e-9 * abs(value)).proved and not proof(value + 1e-7 * abs(value)).proved
        points = (ball.center, *ball.sample(20, rng=rng))
        lowest = min(float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]) for theta in points)
        assert value < lowest and not proof(lowest + 1e-7 * abs(lowest)).proved
        assert radius > 1e-6 or value > lowest - 1e-6
    for tau in (0.0, -1.0, float("nan"), float("inf")):
        assert not proof(value - abs(value), multipliers=replace(multipliers, tau=tau)).proved


@pytest.mark.parametrize("kind", ["units", "third"])
@pytest.mark.parametrize("case", CASES)
def test_certificates_are_proved_again_and_nothing_above_an_eigenvalue(
    case: Case, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as(kind, monkeypatch)
    obj = problem(case)
    rng = np.random.default_rng(2063)
    for radius in (1e-9, 0.05):
        ball = ph.Ball(0.7 * rng.standard_normal(obj.num_params), radius).bind(obj)
        certificate = certify(obj, ball, "taylor")
        assert _proof(certificate).proved, (case, radius)
        points = (ball.center, *ball.sample(20, rng=rng))
        lowest = min(float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]) for theta in points)
        assert not _proof(certificate, lowest + 1e-7 * abs(lowest)).proved
        if radius < 1e-6:
            assert not _proof(certificate, certificate.psi_lower + 1e-3 * abs(certificate.psi_lower)).proved


@pytest.mark.parametrize("kind", ["units", "third"])
def test_verified_from_the_file_alone_and_what_is_tampered_with_is_not(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as(kind, monkeypatch)
    certificate = _trained(0.01)
    path = certificate.save(tmp_path / "c.npz")
    again = ph.load_certificate(path).table["taylor"].multipliers
    multipliers = certificate.table["taylor"].multipliers
    assert again is not None and multipliers is not None and multipliers.by_units == (kind == "units")
    for name, value in vars(multipliers).items():
        assert np.array_equal(getattr(again, name), value), name
    found = verify_file(path, time_limit=10.0)
    assert found.verdict == "verified" and "Taylor polynomial of the third order" in found.checks[-1].detail, found.checks
    assert not _proof(certificate, 0.995 * certificate.psi_lower).proved
    rng = np.random.default_rng(2069)
    noise = rng.standard_normal(multipliers.turned.shape)
    scale = np.abs(multipliers.lam).max() / 0.01
    by_units = ({"by_units": False},)
    by_others = ({"lowered": np.zeros_like(multipliers.lowered)}, {"lowered": -multipliers.lowered})
    for change in (
        *(by_units if kind == "units" else by_others),
        {"lam": 1.5 * multipliers.lam},
        {"lam": 0.6 * multipliers.lam},
        {"lam": -multipliers.lam},
        {"lam": np.zeros_like(multipliers.lam)},
        {"lam": multipliers.lam - 1.01 * np.linalg.eigvalsh(multipliers.lam)[0] * np.eye(len(multipliers.lam))},
        {"turned": scale * (noise - noise.transpose(0, 2, 1))},
        {"share": 0.9},
        {"share": 0.0},
        {"share": 1.5},
        {"share": float("nan")},
        {"tau": 0.0},
        {"tau": -multipliers.tau},
        {"tau": float("nan")},
        {"tau": 30.0 * multipliers.tau},
        {"tau": multipliers.tau / 30.0},
        {"weights": np.geomspace(1e-6, 1e6, len(multipliers.weights))},
        {"weights": -multipliers.weights},
        {"lowered": 3.0 * multipliers.lowered},
        {"lowered": np.full_like(multipliers.lowered, np.nan)},
        {"kept": np.zeros_like(multipliers.kept)},
        {"kept": 1.0 + multipliers.kept},
        {"kept": -multipliers.kept},
        {"kept": np.full_like(multipliers.kept, np.nan)},
    ):
        assert not _proof(_altered(certificate, **change)).proved, change.keys()  # type: ignore[arg-type]
    if kind == "units":
        # What the numbers do not cover is taken off in the same place.
        assert _proof(_altered(certificate, lowered=np.zeros_like(multipliers.lowered)), 1.0001 * certificate.psi_lower).proved
    # Symmetric parts of A would change the form, so only the antisymmetric one counts.
    symmetric = scale * (noise + noise.transpose(0, 2, 1))
    assert _proof(_altered(certificate, turned=multipliers.turned + symmetric)).proved


def test_files_without_or_with_wrong_multipliers(tmp_path: Path) -> None:
    certificate = _trained(0.01)
    path = certificate.save(tmp_path / "c.npz")
    with np.load(path) as content:
        arrays = dict(content)
    described = json.loads(str(arrays["description"]))

    def rewritten(change: dict[str, Any], **others: Array) -> Path:
        content = {**described, "multipliers": {**described["multipliers"], **change}}
        np.savez(tmp_path / "other.npz", **{**arrays, **others, "description": np.array(json.dumps(content))})
        return tmp_path / "other.npz"

    bare = replace(certificate.table["taylor"], multipliers=None)
    found = verify_file(replace(certificate, table={"taylor": bare}).save(tmp_path / "bare.npz"), time_limit=5.0)
    assert found.verdict == "incomplete" and "does not bring the multipliers along" in found.checks[-1].detail
    for share, error in ((0.0, "share is 0.0"), (1.5, "above 0 and at most 1"), ("half", "allowed is a number")):
        with pytest.raises(ph.errors.FileError, match=error):
            ph.load_certificate(rewritten({"share": share}))
    for tau, error in ((0.0, "tau is 0.0"), (-1.0, "allowed are positive numbers"), ("half", "allowed is a number")):
        with pytest.raises(ph.errors.FileError, match=error):
            ph.load_certificate(rewritten({"tau": tau}))
    with pytest.raises(ph.errors.FileError, match="unknown halves"):
        ph.load_certificate(rewritten({"halves": [1.0]}))
    wrong = arrays["multipliers.turned"].copy()
    wrong[0, 0, 0] = np.inf
    with pytest.raises(ph.errors.FileError, match="turned has the shape"):
        ph.load_certificate(rewritten({}, **{"multipliers.turned": wrong}))
    with pytest.raises(ph.errors.FileError, match="allowed are positive numbers"):
        ph.load_certificate(rewritten({}, **{"multipliers.weights": -arrays["multipliers.weights"]}))
    with pytest.raises(ph.errors.FileError, match="allowed are numbers from 0 on"):
        ph.load_certificate(rewritten({}, **{"multipliers.lowered": -arrays["multipliers.lowered"]}))
    for kept in (np.full(8, 1.5), np.full(8, -0.5)):
        with pytest.raises(ph.errors.FileError, match="allowed are numbers from 0 to 1"):
            ph.load_certificate(rewritten({}, **{"multipliers.kept": kept}))
    with pytest.raises(ph.errors.FileError, match=r"lowered has the shape \(1, 2\)"):
        ph.load_certificate(
            rewritten({"lowered": {"array": "multipliers.lowered", "shape": [1, 2]}}, **{"multipliers.lowered": np.zeros((1, 2))})
        )


def test_files_of_the_layout_before_take_nothing_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _as("third", monkeypatch)
    certificate = _trained(0.01)
    nothing = np.zeros_like(certificate.table["taylor"].multipliers.lowered)  # type: ignore[union-attr]
    claim = 1.02 * certificate.psi_lower
    path = _altered(certificate, claim, lowered=nothing).save(tmp_path / "c.npz")
    with np.load(path) as content:
        arrays = dict(content)
    described = json.loads(str(arrays["description"])) | {"schema_version": 3}
    del (
        arrays["multipliers.lowered"],
        arrays["multipliers.kept"],
        described["multipliers"]["lowered"],
        described["multipliers"]["kept"],
        described["multipliers"]["by_units"],
    )
    np.savez(path, **{**arrays, "description": np.array(json.dumps(described))})
    again = ph.load_certificate(path).table["taylor"].multipliers
    assert isinstance(again, TaylorMultipliers) and np.array_equal(again.lowered, nothing) and (again.kept == 1.0).all()
    assert verify_file(path, time_limit=10.0).verdict == "verified"
    np.savez(path, **{**arrays, "description": np.array(json.dumps(described | {"schema_version": 4}))})
    with pytest.raises(ph.errors.FileError, match="lowered"):
        ph.load_certificate(path)


def test_no_time_and_other_problems_are_said() -> None:
    certificate = _trained(0.01)
    short = _proof(certificate, time_limit=1e-3)
    assert not short.proved and "too large for the independent check: 9 parameters and 8 data" in short.detail
    box = certificate.region.box_around()  # type: ignore[attr-defined]
    multipliers = certificate.table["taylor"].multipliers
    other = prove(certificate.obj, box, "taylor", certificate.psi_lower, multipliers=multipliers)
    assert not other.proved and "is for balls" in other.detail
    # A radius so large that nothing is bounded.
    ball = ph.Ball(np.full(9, 1e300), 1e300)
    assert not prove(certificate.obj, ball, "taylor", certificate.psi_lower, multipliers=multipliers).proved
