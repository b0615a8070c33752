"""The command line: readable and machine-readable output, exit codes, errors that say what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pyhess.cli.app import app

SMALL = ["--widths", "4,3,3", "--box", "0.3", "--starts", "4", "--seed", "7", "-q"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_threshold_prints_a_card() -> None:
    result = run("threshold", "--data", "iris", *SMALL)
    assert result.exit_code == 0, result.output
    words = (
        "4-3-3 tanh",
        "iris: 150 samples",
        "cross_entropy",
        "lam*",
        "BRACKETED",
        "meaning",
        "witness",
        "certificate",
        "seed 7",
    )
    assert not [word for word in words if word not in result.stdout]


def test_json_is_one_document_with_the_bracket() -> None:
    result = run("threshold", "--data", "iris", *SMALL, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["kind"] == "lambda_threshold" and content["status"] == "bracketed"
    assert 0.0 < content["lam_lower"] <= content["lam_upper"]
    assert content["stats"]["seed"] == 7
    again = json.loads(run("threshold", "--data", "iris", *SMALL, "--json").stdout)
    assert again["lam_lower"] == content["lam_lower"] and again["lam_upper"] == content["lam_upper"]


def test_every_option_reaches_the_library(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    path = npz(tmp_path / "mine.npz", X=rng.standard_normal((30, 2)), y=rng.integers(0, 2, 30), weights=rng.random(30))
    result = run(
        "threshold", "--data", path, "--widths", "2,3,2,1", "--activation", "softplus,gelu", "--beta", "2", "--no-bias",
        "--parametrization", "ntk", "--ball", "1.5", "--n", "20", "--standardize", "--certificate", "moment", "--starts", "4",
        "--time-limit", "60", "--threads", "1", "-q", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    problem = json.loads(result.stdout)["problem"]
    assert problem["net"]["activations"] == ["softplus", "gelu"] and problem["net"]["betas"][0] == 2.0
    assert problem["net"]["bias"] is False and problem["net"]["parametrization"] == "ntk"
    assert problem["data"]["num_samples"] == 20 and problem["data"]["weighted"] and problem["data"]["name"] == "mine"
    assert problem["loss"] == "logistic"  # labels 0/1 and one output
    assert problem["region"]["kind"] == "ball" and problem["region"]["radius"] == 1.5


def test_progress_goes_to_stderr() -> None:
    arguments = [a for a in SMALL if a != "-q"]
    result = run("threshold", "--data", "iris", *arguments, "--json")
    assert "search" in result.stderr
    json.loads(result.stdout)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--data", "iris", "--widths", "4,3,3"], 2, "exactly one region"),
        (["--data", "iris", "--widths", "4,3,3", "--box", "1", "--ball", "1"], 2, "exactly one region"),
        (["--data", "iris", "--widths", "4,x,3", "--box", "1"], 2, "integers"),
        (["--data", "iris", "--widths", "4,0,3", "--box", "1"], 2, "widths"),
        (["--data", "iris", "--widths", "4,3,3", "--box", "-1"], 2, "--box is -1.0; allowed are finite numbers > 0"),
        (["--data", "iris", "--widths", "4,3,3", "--ball", "nan"], 2, "--ball is nan; allowed are finite numbers > 0"),
        (["--data", "iris", "--widths", "4,3,3", "--ball", "-1"], 2, "--ball is -1.0"),
        (["--data", "iris", "--widths", "4,3,3", "--box", "1", "--activation", "tan"], 2, "tanh"),
        (["--data", "irises", "--widths", "4,3,3", "--box", "1"], 3, "iris"),
        (["--data", "iris", "--widths", "5,3,3", "--box", "1"], 3, "features"),
        (["--data", "missing.npz", "--widths", "4,3,3", "--box", "1"], 3, "missing.npz"),
    ],
)
def test_bad_usage(arguments: list[str], code: int, text: str) -> None:
    result = run("threshold", *arguments)
    assert result.exit_code == code, result.output
    assert text in result.stderr


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    cases = {
        str(tmp_path / "text.npz"): "cannot be read",
        npz(tmp_path / "empty.npz", X=np.zeros((0, 4)), y=np.zeros(0)): "empty",
        npz(tmp_path / "nan.npz", X=np.full((3, 4), np.nan), y=np.zeros(3)): "nan",
        npz(tmp_path / "no_y.npz", X=np.zeros((3, 4))): "'y'",
        npz(tmp_path / "pickle.npz", X=np.array([[object()]]), y=np.zeros(1)): "cannot be read",
    }
    for path, text in cases.items():
        result = run("threshold", "--data", path, "--widths", "4,3,1", "--box", "1")
        assert result.exit_code == 3, (path, result.output)
        assert text in result.stderr, (path, result.stderr)


def test_doctor() -> None:
    text = run("doctor")
    assert text.exit_code == 0 and "instruction set" in text.stdout and "BLAS" in text.stdout and "threads" in text.stdout
    content = json.loads(run("doctor", "--json").stdout)
    assert content["isa"] in content["isa_available"] and content["packages"]["numpy"]


def test_data() -> None:
    assert "digits" in run("data", "list").stdout
    names = {row["name"] for row in json.loads(run("data", "list", "--json").stdout)}
    assert {"iris", "digits", "diabetes"} <= names
    shown = run("data", "show", "digits")
    assert shown.exit_code == 0 and "1797" in shown.stdout
    assert run("data", "show", "nothing").exit_code == 2


def test_help_is_quick_and_complete() -> None:
    for command in ("threshold", "doctor", "data"):
        assert command in run("--help").stdout
        assert run(command, "--help").exit_code == 0


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
def test_ctrl_c_prints_what_was_found() -> None:
    arguments = ["threshold", "--data", "digits", "--widths", "64,64,32,10", "--box", "0.5", "--certificate", "none", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from pyhess.cli import main; main()", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:  # the first progress lines of the search
        if line.startswith("search") and "starts" in line:
            break
    else:
        process.kill()
        raise AssertionError("the search told nothing about its starts")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert json.loads(stdout)["status"] == "interrupted"
