"""The independent check of the bound by third derivatives: ranges hold what they must, and nothing false is proved."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import Certificate, certify, prove
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import Range, matmul, wide
from pyhess.certify.reference_jets import derivatives
from pyhess.certify.reference_third import whitened
from pyhess.certify.reference_third_tensor import third_tensor
from pyhess.threshold import verify_file

from .conftest import trained

Array = Any

CASES = [
    ([2, 3, 1], ["tanh"], "squared_error", "standard"),
    ([1, 2, 1, 2], ["gelu", "softplus"], "squared_error", "ntk"),
    ([2, 1, 2, 1], ["sigmoid", "tanh"], "logistic", "ntk"),
]


pytestmark = pytest.mark.usefixtures("long_doubles")


def _problem(widths: list[int], names: list[str], loss: str, parametrization: str) -> ph.Objective:
    rng = np.random.default_rng(1091)
    y = rng.integers(0, 2, 3) if loss == "logistic" else rng.standard_normal((3, widths[-1]))
    data = ph.Dataset(rng.standard_normal((3, widths[0])), y, rng.uniform(0.5, 2.0, 3))
    return ph.Objective(ph.MLP(widths, names, beta=1.7, bias=widths[0] == 2, parametrization=parametrization), data, loss=loss)


def _trained(radius: float) -> Certificate:
    rng = np.random.default_rng(1093)
    x = rng.standard_normal((8, 2))
    obj = ph.Objective(ph.MLP([2, 2, 1]), ph.Dataset(x, np.tanh(x[:, 0] - x[:, 1]) + 0.1 * rng.standard_normal(8)))
    return certify(obj, ph.Ball(trained(obj, rng), radius), "third")


def _altered(certificate: Certificate, psi_lower: float | None = None, **change: Array) -> Certificate:
    """The claim and what the file brings along changed, in accordance with each other."""
    row = certificate.table["third"]
    assert row.multipliers is not None
    claim = certificate.psi_lower if psi_lower is None else psi_lower
    row = replace(row, psi_lower=claim, multipliers=replace(row.multipliers, **change))
    return replace(certificate, psi_lower=claim, table={"third": row})


def _proved(certificate: Certificate, claim: float | None = None) -> bool:
    claim = certificate.psi_lower if claim is None else claim
    multipliers = certificate.table["third"].multipliers
    return prove(certificate.obj, certificate.region, "third", claim, multipliers=multipliers).proved


@pytest.mark.parametrize("case", CASES)
def test_means_of_third_derivatives_lie_in_their_ranges(case: tuple[list[int], list[str], str, str]) -> None:
    obj = _problem(*case)
    rng = np.random.default_rng(1097)
    centre, radius, step = 0.7 * rng.standard_normal(obj.num_params), 0.3, 1e-5
    problem = Problem.of(obj)
    # At a point the chain rule for tensors gives the same numbers.
    found = third_tensor(problem, ph.Ball(centre, 1e-14).bind(obj), np.inf)
    assert found is not None
    exact = derivatives(problem, wide(centre)[None], wide(centre)[None], (3,))[0][0]
    assert (found.lo <= exact.hi).all() and (found.hi >= exact.lo).all()
    assert np.max(found.hi - found.lo) < 1e-11 * np.max(exact.size())
    found = third_tensor(problem, ph.Ball(centre, radius).bind(obj), np.inf)
    assert found is not None
    nodes, weights = np.polynomial.legendre.leggauss(5)
    for _ in range(4):
        direction = rng.standard_normal(obj.num_params)
        delta = radius * direction / np.linalg.norm(direction)
        mean = np.zeros(found.lo.shape)
        for node, weight in zip(nodes, weights, strict=True):
            theta = centre + 0.5 * (1.0 + node) * delta
            steps = step * np.eye(obj.num_params)
            both = [obj.hessian(theta + e).to_dense() - obj.hessian(theta - e).to_dense() for e in steps]
            mean += 0.5 * weight * np.array(both) / (2.0 * step)
        room = 1e-6 * np.abs(mean).max()
        assert (mean >= found.lo - room).all() and (mean <= found.hi + room).all()


@pytest.mark.parametrize("case", CASES)
def test_certificates_are_proved_again_and_nothing_above_an_eigenvalue(case: tuple[list[int], list[str], str, str]) -> None:
    obj = _problem(*case)
    rng = np.random.default_rng(1103)
    for radius in (1e-6, 0.2):
        ball = ph.Ball(0.7 * rng.standard_normal(obj.num_params), radius).bind(obj)
        certificate = certify(obj, ball, "third")
        assert _proved(certificate), (case, radius)
        points = (ball.center, *ball.sample(20, rng=rng))
        lowest = min(float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]) for theta in points)
        assert not _proved(certificate, lowest + 1e-7 * abs(lowest))


def test_verified_from_the_file_alone_and_what_is_tampered_with_is_not(tmp_path: Path) -> None:
    certificate = _trained(1e-3)
    path = certificate.save(tmp_path / "c.npz")
    found = verify_file(path)
    assert found.verdict == "verified" and "third derivatives over concentric balls" in found.checks[-1].detail, found.checks
    # One per cent more is too much: the fast code does not find it either.
    false = _altered(certificate, 0.99 * certificate.psi_lower)
    assert verify_file(false.save(tmp_path / "false.npz")).verdict == "refuted"
    # On smaller balls nothing is left but the first order, which both take alike.
    small = _trained(1e-4)
    assert _proved(small) and not _proved(small, 0.999 * small.psi_lower)
    # Other multipliers prove less, so the claim, which holds, stays open.
    multipliers = certificate.table["third"].multipliers
    assert multipliers is not None
    false = _altered(certificate, lam=1.5 * multipliers.lam)
    open_one = verify_file(false.save(tmp_path / "false.npz"))
    assert open_one.verdict == "incomplete" and "written out anew, is less" in open_one.checks[-1].detail, open_one.checks
    rng = np.random.default_rng(1109)
    noise = rng.standard_normal(multipliers.halves.shape)
    for change in (
        {"lam": 0.7 * multipliers.lam},
        {"lam": -multipliers.lam},
        {"lam": np.zeros_like(multipliers.lam)},
        {"halves": np.swapaxes(multipliers.halves, 1, 2)},
        {"halves": np.zeros_like(multipliers.halves)},
        {"halves": multipliers.halves + 0.1 * np.abs(multipliers.halves).max() * noise},
        {"weights": np.geomspace(1e-3, 1e3, len(multipliers.weights))},
        {"weights": -multipliers.weights},
    ):
        assert not _proved(_altered(certificate, **change)), change.keys()


def test_files_without_or_with_wrong_multipliers(tmp_path: Path) -> None:
    certificate = _trained(1e-3)
    path = certificate.save(tmp_path / "c.npz")
    with np.load(path) as content:
        arrays = dict(content)
    described = json.loads(str(arrays["description"]))

    def rewritten(described: dict[str, Any], arrays: dict[str, Array]) -> Path:
        np.savez(tmp_path / "other.npz", **{**arrays, "description": np.array(json.dumps(described))})
        return tmp_path / "other.npz"

    # As the layout before wrote it.
    older = {key: value for key, value in described.items() if key != "multipliers"} | {"schema_version": 2}
    found = verify_file(rewritten(older, {key: x for key, x in arrays.items() if not key.startswith("multipliers")}))
    assert found.verdict == "incomplete" and "does not bring the multipliers along" in found.checks[-1].detail
    lam = arrays["multipliers.lam"].copy()
    lam[0, 0] = np.nan
    with pytest.raises(ph.errors.FileError, match="lam has the shape"):
        verify_file(rewritten(described, {**arrays, "multipliers.lam": lam}))


def test_no_time_and_other_problems_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = _trained(1e-3)
    row = certificate.table["third"]
    short = prove(certificate.obj, certificate.region, "third", row.psi_lower, multipliers=row.multipliers, time_limit=1e-3)
    assert not short.proved and "too large for the independent check: 9 parameters and 8 data" in short.detail
    box = certificate.region.box_around()  # type: ignore[attr-defined]
    assert not prove(certificate.obj, box, "third", row.psi_lower, multipliers=row.multipliers).proved
    pytest.importorskip("flint")
    monkeypatch.undo()
    obj = _problem([1, 2, 1], ["tanh"], "logistic", "standard")
    certificate = certify(obj, ph.Ball(0.3, 0.01), "third")
    proof = prove(obj, certificate.region, "third", certificate.psi_lower, multipliers=certificate.table["third"].multipliers)
    assert proof.proved and "Arb's ball arithmetic" in proof.detail


def test_products_of_ranges_hold_exact_products() -> None:
    rng = np.random.default_rng(1117)
    a, b = rng.standard_normal((2, 3, 5)), rng.standard_normal((5, 4))
    da, db = 10.0 ** rng.uniform(-18, 0, a.shape), 10.0 ** rng.uniform(-18, 0, b.shape)
    a[0, 0], da[0, 0] = 0.0, 0.0
    found = matmul(Range(wide(a - da), wide(a + da)), Range(wide(b - db), wide(b + db)))
    for _ in range(10):
        x, y = (np.where(rng.random(c.shape) < 0.5, c - d, c + d) for c, d in ((a, da), (b, db)))
        for s, i, j in np.ndindex(2, 3, 4):
            exact = sum(Fraction(float(x[s, i, k])) * Fraction(float(y[k, j])) for k in range(5))
            low, high = found.lo[s, i, j], found.hi[s, i, j]
            assert Fraction(*low.as_integer_ratio()) <= exact <= Fraction(*high.as_integer_ratio())


def test_positive_definite_is_what_is_positive_definite() -> None:
    rng = np.random.default_rng(1123)
    turn = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    values = np.geomspace(1e-8, 1.0, 12)
    matrix = (turn * values) @ turn.T
    matrix = 0.5 * (matrix + matrix.T)
    found = whitened(Range(wide(matrix)))
    assert found is not None
    above = float(found[1]) * (found[0].T @ found[0]).astype(float) - np.linalg.inv(matrix)
    assert np.linalg.eigvalsh(above)[0] >= -1e-7 * np.linalg.norm(above + np.linalg.inv(matrix), 2) and float(found[1]) < 1.001
    assert whitened(Range(wide(matrix - 1.1e-8 * np.eye(12)))) is None
    assert whitened(Range(wide(matrix - 1e-8), wide(matrix + 1e-8))) is None
    assert whitened(Range(wide(np.full((2, 2), np.nan)))) is None
