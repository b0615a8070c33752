"""Specifications and plans: keys that mean the same are the same, and mistakes are named."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess import FileError, InputError, InputTypeError
from pyhess.sweep import SweepSpec, make_plan
from pyhess.sweep.canonical import canonical_json, key_of
from pyhess.sweep.plan import summary
from pyhess.sweep.spec import EXAMPLE

from .conftest import chaos_spec, python


def spec(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "compute": {"kind": "search", "starts": 2},
        "grid": {"data": "xor", "width": [2, 4], "radius": 0.5},
    }
    for name, value in changes.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    return content


def test_canonical_text_is_what_it_says() -> None:
    value = {"b": [1, 2.0, -0.0, 0.1], "a": {"ü": None, "t": True}, "n": np.float64(16.0)}
    assert canonical_json(value) == '{"a":{"t":true,"\\u00fc":null},"b":[1,2,0,0.1],"n":16}'
    assert key_of({"x": 16}) == key_of({"x": 16.0}) == hashlib.sha256(b'{"x":16}').hexdigest()
    assert key_of({"x": 0.1}) != key_of({"x": 0.1 + 2**-56})
    assert key_of({"x": True}) != key_of({"x": 1})
    for bad, error in ((float("nan"), InputError), (float("inf"), InputError), (object(), InputTypeError)):
        with pytest.raises(error):
            key_of([bad])


def test_keys_do_not_depend_on_the_way_of_writing() -> None:
    one = make_plan(SweepSpec.from_dict(spec(grid={"radius": 1}))).cells
    other = make_plan(SweepSpec.from_dict(spec(grid={"radius": [1.0], "seed": 20261, "depth": 1, "loss": "logistic"}))).cells
    layers = make_plan(SweepSpec.from_dict({**spec(), "grid": {"data": "xor", "hidden": [[2], [4]], "radius": 1.0}})).cells
    assert [cell.key for cell in one] == [cell.key for cell in other] == [cell.key for cell in layers]


@pytest.mark.parametrize(
    "change",
    [
        {"radius": 0.6}, {"n": 150}, {"seed": 7}, {"activation": "gelu"}, {"depth": 2}, {"loss": "squared_error"},
        {"parametrization": "ntk"}, {"region": "ball"}, {"penalty": "l2-weights"}, {"bias": False}, {"center": "init"},
        {"ordered": True}, {"data_seed": 3},
    ],
)  # fmt: skip
def test_keys_depend_on_what_changes_the_answer(change: dict[str, Any]) -> None:
    before = {cell.key for cell in make_plan(SweepSpec.from_dict(spec())).cells}
    after = {cell.key for cell in make_plan(SweepSpec.from_dict(spec(grid=change))).cells}
    assert not before & after


def test_keys_depend_on_the_work_and_the_content_of_files(tmp_path: Path) -> None:
    keys = set()
    for compute in ({}, {"starts": 3}, {"time_limit": 5.0}, {"kind": "bracket"}):
        keys |= {cell.key for cell in make_plan(SweepSpec.from_dict(spec(compute=compute))).cells}
    rng = np.random.default_rng(17)
    X = rng.standard_normal((12, 2))
    for y in (X[:, 0], X[:, 1]):
        np.savez(tmp_path / "mine.npz", X=X, y=y)
        described = SweepSpec.from_dict(spec(grid={"data": "mine.npz"}), tmp_path)
        keys |= {cell.key for cell in make_plan(described).cells}
    assert len(keys) == 12


def test_data_in_memory_enter_by_their_content(tmp_path: Path) -> None:
    rng = np.random.default_rng(19)
    X, y, weights = rng.standard_normal((12, 2)), rng.standard_normal(12), rng.uniform(0.5, 1.5, 12)
    np.savez(tmp_path / "mine.npz", X=X, y=y, weights=weights)
    mine = ph.Dataset(X, y, weights, name="mine")
    for more in ({}, {"n": 7}):
        described = SweepSpec.from_dict(spec(grid={"data": mine, **more}, standardize=True))
        of_file = SweepSpec.from_dict(spec(grid={"data": "mine.npz", **more}, standardize=True), tmp_path)
        assert [cell.key for cell in make_plan(described).cells] == [cell.key for cell in make_plan(of_file).cells]
    other = ph.Dataset(X, -y, name="mine")
    content = {"compute": {"kind": "search"}, "grid": {"width": 2, "radius": 0.5}, "zipped": [{"data": [mine, other, "xor"]}]}
    described = SweepSpec.from_dict(content)
    names = [f"mine@{data.content_hash[:8]}" for data in (mine, other)]
    plan = make_plan(described)
    assert [cell.axes["data"] for cell in plan.cells] == [*names, "xor"] and len(plan.by_key) == 3
    assert json.loads(json.dumps(described.to_dict()))["zipped"] == [{"data": [*names, "xor"]}]
    with pytest.raises(InputError, match=r"n is 13 but mine has 12 rows; use n <= 12"):
        make_plan(SweepSpec.from_dict(spec(grid={"data": mine, "n": 13})))


def test_the_example_is_a_specification(tmp_path: Path) -> None:
    described = SweepSpec.from_dict(tomllib.loads(EXAMPLE))
    plan = make_plan(described)
    assert len(plan.cells) == 24 and sum(cell.parent is None for cell in plan.cells) == 8
    assert SweepSpec.from_dict(json.loads(json.dumps(described.to_dict()))) == described
    content = summary(plan, [plan.cells[0].key])
    assert content["done"] == 1 and content["core_hours"] > 0.0 and content["bytes_per_cell"] > 1e4


#: Processor seconds of `certify` without a time limit, measured once on one core: data, rows, hidden layers, region.
MEASURED = {
    ("xor", 24, (2,), "box"): 0.94, ("xor", 24, (2,), "ball"): 0.97, ("teacher_student", 64, (2,), "box"): 0.58,
    ("teacher_student", 64, (2,), "ball"): 1.9, ("teacher_student", 64, (8,), "box"): 0.23,
    ("teacher_student", 64, (8,), "ball"): 3.7, ("teacher_student", 128, (4, 4), "box"): 0.1,
    ("teacher_student", 128, (4, 4), "ball"): 3.7, ("teacher_student", 64, (16, 16), "box"): 0.87,
}  # fmt: skip


@pytest.mark.parametrize("case", MEASURED, ids=str)
def test_the_prediction_holds_the_certificate(case: tuple[str, int, tuple[int, ...], str]) -> None:
    data, n, hidden, region = case
    grid = {"data": data, "n": n, "hidden": list(hidden), "region": region, "radius": 0.5}
    seconds = {}
    for kind in ("search", "bracket"):
        content = {"compute": {"kind": kind, "starts": 2}, "grid": grid}
        (cell,) = make_plan(SweepSpec.from_dict(content)).cells
        seconds[kind] = cell.predicted_seconds
    assert MEASURED[case] / 3.0 < seconds["bracket"] - seconds["search"] < MEASURED[case] * 3.0


def test_no_cell_is_predicted_to_take_longer_than_its_time_limit() -> None:
    compute = {"kind": "bracket", "starts": 2, "time_limit": 0.5}
    content = spec(compute=compute, grid={"data": "xor", "n": 30, "width": [2, 4096], "depth": 2})
    assert [cell.predicted_seconds for cell in make_plan(SweepSpec.from_dict(content)).cells] == [0.5, 0.5]
    content["compute"]["time_limit"] = 500.0  # which branch and bound uses up where it applies
    assert make_plan(SweepSpec.from_dict(content)).cells[0].predicted_seconds == 500.0
    content["compute"]["certificate"] = "moment"
    assert make_plan(SweepSpec.from_dict(content)).cells[0].predicted_seconds < 3.0
    content["compute"]["certificate"] = "auto"
    del content["compute"]["time_limit"]
    small, large = (cell.predicted_seconds for cell in make_plan(SweepSpec.from_dict(content)).cells)
    assert 0.5 < small < 3.0 and large > 60.0


def test_zipped_axes_go_together_and_duplicates_are_left_out() -> None:
    content = spec(zipped=[{"region": ["box", "ball", "box"], "penalty": ["l2", "l2", "l2"]}])
    plan = make_plan(SweepSpec.from_dict(content))
    assert plan.duplicates == 2
    assert [(cell.axes["width"], cell.axes["region"]) for cell in plan.cells] == [
        (2, "box"),
        (2, "ball"),
        (4, "box"),
        (4, "ball"),
    ]
    # beta means nothing to tanh
    assert make_plan(SweepSpec.from_dict(spec(grid={"beta": [1.0, 2.0]}))).duplicates == 2


def test_warm_chains_are_in_the_keys() -> None:
    cold = make_plan(SweepSpec.from_dict(spec(grid={"width": [4, 2]})))
    warm = make_plan(SweepSpec.from_dict(spec(grid={"width": [4, 2]}, warm="width")))
    first, second = warm.cells
    assert first.axes["width"] == 2 and second.parent == first.key and first.parent is None
    assert first.key == cold.cells[1].key and second.key != cold.cells[0].key
    assert make_plan(SweepSpec.from_dict(spec(grid={"width": [2, 2, 4, 4]}, warm="width"))).duplicates == 2


def test_shards_are_a_partition_along_chains() -> None:
    plan = make_plan(SweepSpec.from_dict(spec(grid={"width": [2, 4, 8], "seed": list(range(5, 12))}, warm="width")))
    shards = [plan.shard(i, 3) for i in (1, 2, 3)]
    keys = [cell.key for shard in shards for cell in shard.cells]
    assert sorted(keys) == sorted(plan.by_key) and min(len(shard.cells) for shard in shards) >= 6
    assert all(cell.parent is None or cell.parent in shard.by_key for shard in shards for cell in shard.cells)
    with pytest.raises(InputError, match="allowed are 1/3"):
        plan.shard(4, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grid": {"widht": [3]}}, ("grid.widht", "Did you mean 'width'")),
        ({"grid": {"activation": "Tanh"}}, ("grid.activation", "'Tanh'", "Did you mean 'tanh'")),
        ({"compute": {"kind": "serch"}}, ("Did you mean 'search'",)),
        ({"compute": {"startz": 2}}, ("startz", "Did you mean 'starts'")),
        ({"compute": {"starts": 0}}, ("starts is 0", ">= 1")),
        ({"compute": {"starts": 2.5}}, ("starts", "2.5", "integer")),
        ({"compute": {"time_limit": -1}}, ("time_limit is -1", "positive")),
        ({"grid": {"width": ["4"]}}, ("grid.width[0] is '4'", "integer")),
        ({"grid": {"width": [0]}}, ("grid.width[0] is 0", "greater than 0")),
        ({"grid": {"width": []}}, ("grid.width", "empty")),
        ({"grid": {"bias": 1}}, ("grid.bias[0] is 1", "boolean")),
        ({"grid": {"seed": -3}}, ("-3 is no seed",)),
        ({"grid": {"hidden": [[3]]}}, ("either 'width'",)),
        ({"zipped": [{"n": [9, 10], "depth": [1]}]}, ("lengths",)),
        ({"zipped": [{"radius": [0.1]}]}, ("'radius' is given twice",)),
        ({"warm": "widht"}, ("warm is 'widht'", "Did you mean 'width'")),
        ({"warm": "width", "grid": {"center": "init"}}, ("center = 'init'",)),
        ({"warm": "width", "compute": {"kind": "eigvals", "starts": 2}}, ("starts is not known",)),
        ({"wram": "width"}, ("wram", "Did you mean 'warm'")),
    ],
)  # fmt: skip
def test_mistakes_are_named(change: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        SweepSpec.from_dict(spec(**change))
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)


def test_mistakes_that_only_the_data_show() -> None:
    for change, words in (
        ({"data": "xorr"}, "Did you mean 'xor'"),
        ({"data": "iris", "loss": "logistic"}, "cross_entropy"),
        ({"data": "iris", "n": 200}, "n <= 150"),
        ({"data": "iris", "data_seed": 5}, "not generated"),
        ({"data": "missing.npz"}, "missing.npz"),
    ):
        with pytest.raises((InputError, FileError), match=words):
            make_plan(SweepSpec.from_dict(spec(grid=change)))


def test_files_that_are_no_specifications(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    with pytest.raises(FileError, match="cannot be read"):
        SweepSpec.load(path)
    path.write_text("[grid\n")
    with pytest.raises(InputError, match="no TOML file"):
        SweepSpec.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="no TOML file"):
        SweepSpec.load(path)
    path.write_text("name = 'x'\n")
    with pytest.raises(InputError, match=r"s\.toml.*\n.*compute is missing"):
        SweepSpec.load(path)


def test_a_new_kind_is_one_registration() -> None:
    plan = make_plan(SweepSpec.from_dict(chaos_spec(8)))
    assert len(plan.cells) == 8 and plan.cells[0].work["options"]["pause"] == 0.01
    with pytest.raises(InputError, match="pause"):
        SweepSpec.from_dict(chaos_spec(8, pause="slow"))  # type: ignore[arg-type]


def test_pyhess_alone_imports_no_pydantic() -> None:
    code = "import sys, pyhess, pyhess.sweep; from pyhess.cli.app import app; sys.exit(any(n in sys.modules for n in {}))"
    code = code.format("('pydantic', 'numba', 'pandas', 'distributed')")
    assert subprocess.run(python("-c", code), check=False).returncode == 0
