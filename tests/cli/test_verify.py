"""Proofs in files: written by ``pyhess threshold``, checked by ``pyhess verify``, with exit codes that tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import pyhess as ph
from pyhess.cli.app import app
from pyhess.threshold.witness import make_witness

SMALL = ["threshold", "--data", "iris", "--widths", "4,3,3", "--starts", "2", "--seed", "7", "--certificate", "none", "-q"]
P = 27


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def bracket(*arguments: str) -> dict[str, Any]:
    result = run(*SMALL, *arguments, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert isinstance(content, dict)
    return content


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("proof") / "w.npz"
    return path, bracket("--box", "0.5", "--save-witness", str(path))


def altered(path: Path, target: Path, **arrays: Any) -> str:
    with np.load(path) as content:
        np.savez(target, **{**content, **arrays})
    return str(target)


# --- verify -----------------------------------------------------------------------------------------------------------------


def test_what_threshold_writes_is_verified(written: tuple[Path, dict[str, Any]]) -> None:
    path, content = written
    assert path.with_suffix(".json").exists()
    result = run("verify", str(path))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for name in ("data", "lower end", "point", "direction", "curvature", "core", "segment"):
        assert sum(line.startswith(f"  {name} ") and "holds" in line for line in lines) == 1, name
    assert lines[-1].startswith("verified") and repr(content["lam_lower"]) in result.stdout
    found = json.loads(run("verify", str(path), "--json").stdout)
    assert found["kind"] == "verification" and found["verdict"] == "verified" and found["file_kind"] == "witness"
    assert {check["outcome"] for check in found["checks"]} == {"holds"}
    again = ph.load_witness(path)
    assert isinstance(again, ph.Witness) and again.theta.tolist() == content["witness"]["theta"]


def test_a_file_whose_point_was_moved_is_refuted(written: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, content = written
    outside = altered(path, tmp_path / "moved.npz", theta=np.array(content["witness"]["theta"]) + 1.0)
    result = run("verify", outside)
    assert result.exit_code == 6, result.output
    assert result.stdout.splitlines()[-1].startswith("refuted") and "does not lie in Box" in result.stdout
    as_json = run("verify", outside, "--json")
    assert as_json.exit_code == 6 and json.loads(as_json.stdout)["verdict"] == "refuted"


def test_what_cannot_be_checked_has_a_status_of_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(31)
    obj = ph.Objective(ph.MLP([2, 2, 1]), ph.Dataset(rng.standard_normal((5, 2)), rng.standard_normal(5)))
    ball = ph.Ball(radius=2.0)
    region = ph.Convex(lambda theta: ball.project(theta), np.zeros(obj.num_params), 2.0, enclosure=ball)
    witness = make_witness(obj, region.bind(obj), np.zeros(obj.num_params), np.ones(obj.num_params))
    result = run("verify", str(witness.save(tmp_path / "theirs.npz")))
    assert result.exit_code == 7, result.output
    assert "membership in the region not re-checked" in " ".join(result.stdout.split())
    assert result.stdout.splitlines()[-1].startswith("incomplete")


def test_unreadable_files_have_a_status_of_their_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "foreign.npz", X=np.zeros(3))
    for name in ("foreign.npz", "missing.npz"):
        result = run("verify", str(tmp_path / name))
        assert result.exit_code == 3 and name in result.stderr, result.output


def test_a_kink_is_the_proof_of_an_infinite_threshold(tmp_path: Path) -> None:
    path = tmp_path / "k.npz"
    rng = np.random.default_rng(37)
    np.savez(tmp_path / "data.npz", X=rng.standard_normal((6, 2)), y=rng.standard_normal(6))
    result = run(
        "threshold", "--data", str(tmp_path / "data.npz"), "--widths", "2,3,1", "--activation", "relu", "--box", "1",
        "--starts", "2", "--seed", "7", "-q", "--certificate", "none", "--save-witness", str(path),
    )  # fmt: skip
    assert result.exit_code == 0 and "INFINITE" in result.stdout, result.output
    assert "kink written to" in result.stderr
    found = json.loads(run("verify", str(path), "--json").stdout)
    assert found["file_kind"] == "kink_witness" and found["verdict"] == "verified"


def test_the_destination_is_looked_at_before_the_work(tmp_path: Path) -> None:
    for name, text in {"no/w.npz": "no folder", "w.txt": ".npz"}.items():
        result = run(*SMALL, "--box", "0.5", "--save-witness", str(tmp_path / name))
        assert result.exit_code == 3 and text in result.stderr and not result.stdout, result.output


def test_a_full_disk_does_not_cost_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyhess._files.os.fsync", full)
    result = run(*SMALL, "--box", "0.5", "--json", "--save-witness", str(tmp_path / "w.npz"))
    assert result.exit_code == 3 and "No space left" in result.stderr
    assert json.loads(result.stdout)["lam_lower"] > 0.0
    assert not list(tmp_path.iterdir())


# --- regions and penalties --------------------------------------------------------------------------------------------------


def test_regions(tmp_path: Path) -> None:
    net = ph.MLP([4, 3, 3])
    center = np.linspace(-0.3, 0.3, P)
    np.save(tmp_path / "c.npy", center)
    np.savez(tmp_path / "c.npz", theta=center, other=np.zeros(2))
    scaled = ph.Box.scaled(net, 0.4)
    cases: list[tuple[list[str], ph.Region]] = [
        (["--box-scaled", "0.4"], scaled),
        (["--box", "0.2", "--around", str(tmp_path / "c.npy")], ph.Box.around(center, 0.2)),
        (["--ball", "0.6", "--around", str(tmp_path / "c.npz")], ph.Ball(center, 0.6)),
        (["--box-scaled", "0.4", "--around", str(tmp_path / "c.npz")], ph.Box.around(center, scaled.high)),
        (["--ball", "0.6", "--ordered"], ph.Ordered(ph.Ball(radius=0.6), net)),
    ]
    for options, region in cases:
        assert bracket(*options)["problem"]["region"] == region.bind(net).to_dict(), options


def test_penalties(tmp_path: Path) -> None:
    w = np.linspace(0.5, 2.0, P)
    np.save(tmp_path / "w.npy", w)
    cases: list[tuple[list[str], ph.Penalty]] = [
        (["--penalty", "l2-weights"], ph.L2(penalize="weights")),
        (["--penalty", "shifted", "--shift", "0.25"], ph.ShiftedL2(np.full(P, 0.25))),
        (["--penalty", "weighted", "--penalty-weights", str(tmp_path / "w.npy")], ph.WeightedL2(w)),
        (["--penalty", "geometric"], ph.GeometricL2()),
    ]
    for options, penalty in cases:
        assert bracket("--box", "0.2", *options)["problem"]["penalty_parameters"] == penalty.to_dict(), options


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--box", "1", "--box-scaled", "1"], 2, "exactly one region"),
        (["--box-scaled", "-1"], 2, "--box-scaled is -1.0"),
        (["--box", "1", "--penalty", "l1"], 2, "l2-weights"),
        (["--box", "1", "--penalty", "shifted"], 2, "--shift"),
        (["--box", "1", "--shift", "0.1"], 2, "--penalty shifted"),
        (["--box", "1", "--penalty", "weighted"], 2, "--penalty-weights"),
        (["--box", "1", "--penalty-weights", "w.npy"], 2, "--penalty weighted"),
        (["--box", "1", "--ordered", "--no-bias"], 2, "biases"),
        (["--box", "1", "--around", "missing.npy"], 3, "missing.npy"),
        (["--box", "1", "--around", "SHORT"], 3, "(27,)"),
        (["--box", "1", "--around", "MANY"], 3, "theta"),
        (["--box", "1", "--around", "OBJECTS"], 3, "Python objects"),
        (["--box", "1", "--penalty", "weighted", "--penalty-weights", "NEGATIVE"], 3, "> 0"),
        (["--box", "1", "--penalty", "weighted", "--penalty-weights", "NAN"], 3, "nan"),
    ],
)
def test_bad_options(options: list[str], code: int, text: str, tmp_path: Path) -> None:
    np.save(tmp_path / "SHORT.npy", np.zeros(3))
    np.savez(tmp_path / "MANY.npz", a=np.zeros(P), b=np.zeros(P))
    np.save(tmp_path / "OBJECTS.npy", np.array([None] * P))
    np.save(tmp_path / "NEGATIVE.npy", np.linspace(-1.0, 1.0, P))
    np.save(tmp_path / "NAN.npy", np.full(P, np.nan))
    files = {file.stem: str(file) for file in tmp_path.iterdir()}
    result = run(*SMALL, *(files.get(option, option) for option in options))
    assert result.exit_code == code, result.output
    assert text in result.stderr, result.stderr


# --- progress ---------------------------------------------------------------------------------------------------------------


def test_progress_shows_the_best_the_starts_and_when_the_stage_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pyhess.cli import progress

    now = 100.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    reporter = progress.Reporter(quiet=False, time_limit=90.0)
    lines = []
    for seconds, done, best in ((5.0, 0, np.inf), (25.0, 10, -4.0), (45.0, 30, -8.0), (85.0, 32, -8.0)):
        now = 100.0 + seconds
        reporter({"stage": "search 1/2", "done": done, "total": 40, "psi_upper": best})
        lines.append(capsys.readouterr().err.strip())
    assert "0/40 starts" in lines[0] and "stage ETA 85 s" in lines[0] and "lam*" not in lines[0]  # what the limit leaves
    assert "stage ETA 60 s" in lines[1] and "lam* >= 2" in lines[1]  # ten starts in twenty seconds, thirty to go
    assert "stage ETA 13 s" in lines[2] and "lam* >= 4" in lines[2]
    assert "stage ETA 5 s" in lines[3]
    other = progress.Reporter(quiet=False, in_lam=False)
    other({"stage": "search 1/2", "done": 0, "total": 40, "psi_upper": -3.0})
    text = capsys.readouterr().err
    assert "stage ETA unknown" in text and "best curvature -3" in text and "lam*" not in text
