"""Certificates in files: read back exactly, proved again by independent code, and refuted where they claim too much."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import pyhess as ph
from pyhess.certify import Certificate, certify, prove, schedule
from pyhess.cli.app import app
from pyhess.errors import FileError
from pyhess.threshold import verify_file

#: Seconds that no proof of these tests comes near, on a slow machine either.
AMPLE = 600.0


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def problem(widths: list[int], loss: str = "squared_error", activation: str = "tanh", count: int = 5) -> ph.Objective:
    rng = np.random.default_rng(223)
    x = rng.standard_normal((count, widths[0]))
    y: Any = rng.standard_normal(count) if loss == "squared_error" else rng.integers(0, max(2, widths[-1]), count)
    return ph.Objective(ph.MLP(widths, activation), ph.Dataset(x, y), loss=loss)


pytestmark = pytest.mark.usefixtures("long_doubles")


@pytest.fixture
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_WORK", 1e5)
    monkeypatch.setattr("pyhess.certify.portfolio._MAX_CELLS", 6)


def same(one: Certificate, other: Certificate) -> bool:
    plain = [
        ({n: (r.psi_lower, r.seconds, r.cells) for n, r in c.table.items()}, c.method, c.psi_lower, c.statement, c.rounding)
        for c in (one, other)
    ]
    return plain[0] == plain[1] and one.region == other.region and one.obj.data.content_hash == other.obj.data.content_hash


CASES = [
    ([2, 3, 1], "squared_error", "tanh", ph.Box(-0.5, 0.5), ("moment", "centre", "comparison", "deif", "boxes")),
    ([1, 2, 1], "logistic", "gelu", ph.Ball(0.1, 0.2), ("moment", "centre", "comparison")),
    ([1, 2, 2], "cross_entropy", "softplus", ph.Box(-0.2, 0.7), ("moment", "centre", "comparison", "deif", "boxes")),
    ([1, 1, 1], "squared_error", "sigmoid", ph.Ball(0.0, 1.0), ("full",)),
    ([2, 2, 1], "squared_error", "relu", ph.Box(-0.4, 0.4), ("moment", "comparison")),
    ([2, 1], "logistic", "tanh", ph.Box(-3.0, 3.0), ("auto",)),
]


@pytest.mark.usefixtures("little_work")
@pytest.mark.parametrize(("widths", "loss", "activation", "region", "methods"), CASES)
def test_every_method_is_proved_again(
    widths: list[int], loss: str, activation: str, region: Any, methods: tuple[str, ...], tmp_path: Path
) -> None:
    obj = problem(widths, loss, activation)
    for method in methods:
        certificate = certify(obj, region, method)
        path = certificate.save(tmp_path / f"{method}.npz")
        assert same(ph.load_certificate(path), certificate)
        cover = ph.load_certificate(path).table[certificate.method].cover
        proof = prove(obj, region, certificate.method, certificate.psi_lower, cover, time_limit=AMPLE)
        assert proof.proved, (method, certificate.psi_lower, proof.detail)
        # A claim beyond the truth cannot be proved.
        lowest = min(float(np.linalg.eigvalsh(obj.hessian(theta).to_dense())[0]) for theta in region.sample(30, obj, rng=227))
        too_much = lowest + 1e-3 * abs(lowest)
        assert not prove(obj, region, certificate.method, too_much, time_limit=0.2).proved


@pytest.mark.usefixtures("little_work")
def test_everything_is_checked_from_the_file(tmp_path: Path) -> None:
    certificate = certify(problem([1, 2, 1]), ph.Box(-0.4, 0.4), "boxes")
    path = certificate.save(tmp_path / "c.npz")
    for name in ("c.npz", "c.json"):
        result = run("verify", str(tmp_path / name), "--json", "--time-limit", str(AMPLE))
        assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["file_kind"] == "certificate" and found["counterexample"] is None
    assert [check["name"] for check in found["checks"]] == ["data", "table", "boxes", "attack", "proof"]
    assert repr(certificate.psi_lower) in found["claim"]
    described = json.loads(path.with_suffix(".json").read_text())
    assert described["psi_lower"] == certificate.psi_lower and described["kind"] == "certificate"


def test_too_bold_a_claim_is_refuted_by_a_point(tmp_path: Path) -> None:
    certificate = certify(problem([1, 2, 1]), ph.Box(-0.4, 0.4), "comparison")
    bold = replace(certificate, psi_lower=-1e-3, table={"comparison": replace(certificate.table["comparison"], psi_lower=-1e-3)})
    path = bold.save(tmp_path / "bold.npz")
    result = run("verify", str(path), "--json")
    assert result.exit_code == 6, result.output
    found = json.loads(result.stdout)["counterexample"]
    theta, v = np.array(found["theta"]), np.array(found["v"])
    assert ph.Box(-0.4, 0.4).contains(theta)
    assert v @ certificate.obj.hvp(theta, v) < -1e-3


def test_an_altered_bound_is_refuted_by_recomputing(tmp_path: Path) -> None:
    certificate = certify(problem([2, 3, 1]), ph.Box(-0.5, 0.5), "moment")
    # More than what the finer pieces of the slow check gain.
    claim = 0.9 * certificate.psi_lower
    altered = replace(certificate, psi_lower=claim, table={"moment": replace(certificate.table["moment"], psi_lower=claim)})
    path = altered.save(tmp_path / "m.npz")
    # The check has no time to prove by other means what happens to be true.
    found = verify_file(path, time_limit=1e-3)
    assert found.verdict == "refuted" and "now proves" in found.checks[-1].detail


def test_gaps_and_false_symmetry_are_not_accepted() -> None:
    certificate = certify(problem([1, 2, 1]), ph.Box(-0.4, 0.4), "boxes")
    cover = certificate.table["boxes"].cover
    assert cover is not None and cover.keys
    obj, region = certificate.obj, ph.Box(-0.4, 0.4)
    keep = np.arange(len(cover.low)) != int(np.argmin(cover.bound))
    gap = replace(cover, low=cover.low[keep], high=cover.high[keep], bound=cover.bound[keep])
    assert "do not contain the region" in prove(obj, region, "boxes", certificate.psi_lower, gap).detail
    uneven = ph.Box(np.r_[-0.3, np.full(6, -0.4)], np.full(7, 0.4))
    assert "not the same for all units" in prove(obj, uneven, "boxes", certificate.psi_lower, cover).detail
    other = ph.Objective(ph.MLP([1, 2, 1], "sigmoid"), obj.data)
    assert "not odd" in prove(other, region, "boxes", certificate.psi_lower, cover).detail


def test_large_problems_are_left_open(tmp_path: Path) -> None:
    obj = problem([20, 12, 1], count=8)
    found = verify_file(certify(obj, ph.Box(-0.01, 0.01), "comparison").save(tmp_path / "large.npz"), time_limit=5.0)
    assert found.verdict == "incomplete"
    assert "too large for the independent check: 265 parameters" in found.checks[-1].detail
    assert "recomputed with the fast code" in found.checks[-1].detail
    # The slow check knows the norm recursion alone, which is what `moment` is for this loss.
    obj = problem([20, 12, 1], "logistic", count=8)
    path = certify(obj, ph.Box(-0.01, 0.01), "moment").save(tmp_path / "m.npz")
    assert verify_file(path, time_limit=AMPLE).verdict == "verified"
    unknown = certify(problem([2, 2, 1]), ph.Box(-0.1, 0.1), "moment")
    assert not prove(unknown.obj, unknown.region, "oracle", unknown.psi_lower).proved


def test_regions_of_users_are_taken_at_their_word(tmp_path: Path) -> None:
    obj = problem([1, 2, 1])
    ball = ph.Ball(radius=0.3)
    theirs = ph.Convex(lambda theta: ball.project(theta), np.zeros(obj.num_params), 0.3, enclosure=ball)
    path = certify(obj, theirs, "moment").save(tmp_path / "theirs.npz")
    result = run("verify", str(path))
    assert result.exit_code == 7, result.output
    assert "no file can hold its projection" in " ".join(result.stdout.split())


@pytest.mark.usefixtures("few_cells")
@pytest.mark.parametrize(
    ("entry", "value", "text"),
    [
        ("psi_lower", "low", "psi_lower"),
        ("method", 3, "method"),
        ("table", [], "table"),
        ("surplus", 1, "unknown surplus"),
        ("kind", "recipe", "recipe"),
        ("region", {"kind": "torus"}, "torus"),
        ("psi_lower", -5.0, "was altered"),
    ],
)
def test_damaged_files_are_named(entry: str, value: Any, text: str, tmp_path: Path) -> None:
    path = certify(problem([1, 2, 1]), ph.Ball(0.0, 0.4), "moment").save(tmp_path / "c.npz")
    with np.load(path) as content:
        arrays = dict(content)
    described = json.loads(str(arrays.pop("description")))
    described[entry] = value
    np.savez(tmp_path / "damaged.npz", description=np.array(json.dumps(described)), **arrays)
    with pytest.raises(FileError, match=text):
        ph.load_certificate(tmp_path / "damaged.npz")


@pytest.mark.usefixtures("few_cells")
def test_a_method_of_older_versions_is_no_method_of_the_claim_but_may_be_in_the_table(tmp_path: Path) -> None:
    certificate = certify(problem([1, 2, 1]), ph.Ball(0.0, 0.4), "moment")
    row = certificate.table["moment"]
    best = replace(certificate, method="third", table={"third": row}).save(tmp_path / "best.npz")
    for read in (ph.load_certificate, verify_file):
        with pytest.raises(FileError, match=r"method is 'third', .* allowed are moment, .* make such a certificate anew"):
            read(best)
    # Beside the method of the claim it is a bound that was found, and nothing is proved from it.
    other = replace(certificate, table={"third": replace(row, psi_lower=2.0 * row.psi_lower), "moment": row})
    path = other.save(tmp_path / "other.npz")
    assert same(ph.load_certificate(path), other) and ph.load_certificate(path).verify()
    assert verify_file(path, time_limit=AMPLE).verdict == "verified"


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    obj = problem([1, 2, 1])
    certificate = certify(obj, ph.Box(-0.4, 0.4), "moment").save(tmp_path / "c.npz")
    with pytest.raises(FileError, match="certificate"):
        ph.load_witness(certificate)
    path = certificate.with_suffix(".json")
    path.write_text(path.read_text().replace("moment", "monent"))
    result = run("verify", str(path))
    assert result.exit_code == 3 and "was altered" in result.stderr


def test_threshold_writes_what_verify_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(229)
    np.savez(tmp_path / "data.npz", X=rng.standard_normal((5, 1)), y=rng.standard_normal(5))
    path = tmp_path / "upper.npz"
    result = run(
        "threshold", "--data", str(tmp_path / "data.npz"), "--widths", "1,2,1", "--box", "0.3", "--starts", "2", "--seed", "7",
        "-q", "--certificate", "comparison", "--save-certificate", str(path),
    )  # fmt: skip
    assert result.exit_code == 0 and "certificate written to" in result.stderr, result.output
    assert run("verify", str(path), "--time-limit", str(AMPLE)).exit_code == 0


def test_a_certificate_that_claims_nothing_is_not_verified(tmp_path: Path) -> None:
    obj = ph.Objective(ph.MLP([2, 3, 1]), ph.Dataset(np.eye(2), np.ones(2)))
    stopped = certify(obj, ph.Box(-0.5, 0.5), cancel=np.ones(1, dtype=np.int32))
    assert stopped.psi_lower == -np.inf
    found = verify_file(stopped.save(tmp_path / "c.npz"))
    assert found.verdict == "incomplete" and "nothing to prove" in found.checks[-1].detail
