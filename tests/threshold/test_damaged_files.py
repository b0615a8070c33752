"""Files that are damaged, foreign or cannot be written: one kind of error, which says what is wrong."""

from __future__ import annotations

import errno
import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess._files import read_result, write_result
from pyhess.errors import FileError, MemoryLimitError
from pyhess.threshold import verify_file
from pyhess.threshold.witness import Witness, make_witness


def a_witness(region: ph.Region) -> Witness:
    """At a point where the loss bends downwards."""
    rng = np.random.default_rng(89)
    obj = ph.Objective(ph.MLP([2, 3, 1]), ph.Dataset(rng.standard_normal((7, 2)), 3.0 + rng.random(7)))
    theta = 0.05 * rng.standard_normal(obj.num_params)
    v = np.linalg.eigh(obj.hessian(theta).to_dense())[1][:, 0]
    witness = make_witness(obj, region.bind(obj), theta, v)
    assert witness.lam_lower > 0.0
    return witness


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Witness, Path]:
    witness = a_witness(ph.Box(-0.7, 0.9))
    return witness, witness.save(tmp_path / "w.npz")


def test_foreign_and_damaged_files_are_named(saved: tuple[Witness, Path], tmp_path: Path) -> None:
    _, path = saved
    whole = path.read_bytes()
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "nothing.npz").write_bytes(b"")
    np.savez(tmp_path / "foreign.npz", X=np.zeros(3))
    np.savez(tmp_path / "objects.npz", description=np.array([object()]))
    np.savez(tmp_path / "prose.npz", description=np.array("once upon a time"))
    np.savez(tmp_path / "deep.npz", description=np.array("[" * 100_000))
    np.savez(tmp_path / "list.npz", description=np.array("[1]"))
    np.savez(tmp_path / "nan.npz", description=np.array('{"format": "pyhess", "eigval": NaN}'))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        head = (
            b"\x93NUMPY\x01\x00v\x00"
            + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117)
            + b"\n"
        )
        archive.writestr("description.npy", head)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "longer.npz", "w") as longer:
        for name in archive.namelist():
            longer.writestr(name, archive.read(name) + (b"tail" if name == "v.npy" else b""))
    with np.load(path) as content:
        arrays = dict(content)
    np.savez(tmp_path / "more.npz", surplus=np.zeros(2), **arrays)
    arrays.pop("v")
    np.savez(tmp_path / "less.npz", **arrays)
    cases = {
        "missing.npz": "No such file",
        "text.npz": "cannot be read",
        "short.npz": "cannot be read",
        "nothing.npz": "cannot be read",
        "foreign.npz": "no description",
        "objects.npz": "Python objects",
        "prose.npz": "no JSON",
        "deep.npz": "no JSON",
        "list.npz": "something else",
        "nan.npz": "NaN is no JSON number",
        "bomb.npz": "does not fit",
        "longer.npz": "follow its header",
        "more.npz": "surplus",
        "less.npz": "'v'",
        "w.json": "description for people",
        ".": "cannot be read",
    }
    for name, text in cases.items():
        for reader in (ph.load_witness, verify_file):
            with pytest.raises(FileError) as error:
                reader(tmp_path / name)
            assert text in str(error.value), (name, str(error.value))


@pytest.mark.parametrize(
    ("entry", "value", "text"),
    [
        ("schema_version", 9, "newer pyhess"),
        ("schema_version", "1", "layout version"),
        ("kind", "recipe", "recipe"),
        ("kind", ["witness"], "witness"),
        ("surplus", 1, "unknown surplus"),
        ("region.kind", "torus", "torus"),
        ("region.radius", 1.0, "unknown radius"),
        ("penalty.kind", "l1", "l1"),
        ("objective.net.widths", [2, 4, 1], "13 coordinates"),
        ("objective.net.activations", ["tan"], "tan"),
        ("objective.loss", "hinge", "hinge"),
        ("objective.dtype", "float16", "float16"),
        ("eigval", "low", "eigval"),
        ("eigval", True, "eigval"),
        ("theta", [0.0, 1.0], "theta"),
        ("region", None, "region"),
    ],
)
def test_wrong_entries_are_named(altered: Any, entry: str, value: Any, text: str, saved: tuple[Witness, Path]) -> None:
    _, path = saved
    with pytest.raises(FileError) as error:
        ph.load_witness(altered(path, **{entry.replace(".", "__"): value, **unused_arrays(path, entry)}))
    assert text in str(error.value)


def unused_arrays(path: Path, entry: str) -> dict[str, Any]:
    """Arrays of the file that the entry replaces must go as well; their reference is kept where nothing asks for it."""
    described = json.loads(path.with_suffix(".json").read_text())
    kept = described.get(entry) if entry in ("theta", "region") else None
    return {} if kept is None else {"text__replaced": kept}


def test_random_damage_never_leads_to_another_kind_of_error(saved: tuple[Witness, Path], tmp_path: Path) -> None:
    witness, path = saved
    whole, rng, target = path.read_bytes(), np.random.default_rng(83), tmp_path / "damaged.npz"
    survived = 0
    for _ in range(300):
        bad = bytearray(whole)
        for place in rng.integers(0, len(bad), rng.integers(1, 4)):
            bad[place] ^= 1 << int(rng.integers(0, 8))
        if rng.random() < 0.3:
            bad = bad[: rng.integers(0, len(bad))]
        target.write_bytes(bad)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy and zipfile warn of odd headers
                again = ph.load_witness(target)
        except FileError:
            continue
        survived += 1
        assert again.theta.tobytes() == witness.theta.tobytes() and again.v.tobytes() == witness.v.tobytes()
    assert survived < 150  # bytes between the members and in the names' time stamps mean nothing


def test_odd_values_never_lead_to_another_kind_of_error(altered: Any, saved: tuple[Witness, Path], tmp_path: Path) -> None:
    _, path = saved
    described = json.loads(path.with_suffix(".json").read_text())

    def leaves(value: Any, name: str) -> list[str]:
        if isinstance(value, dict) and set(value) != {"array", "shape"}:
            return [leaf for key, item in value.items() for leaf in leaves(item, f"{name}__{key}" if name else key)]
        return [name]

    odd = (None, True, -1, 0, 10**30, 1e308, "", "tanh", [], [None], [[1.0]], {}, {"kind": "box"})
    count = 0
    for leaf in leaves(described, ""):
        if leaf.startswith("text"):
            continue
        for value in odd:
            try:
                ph.load_witness(altered(path, tmp_path / "odd.npz", **{leaf: value}))
            except (FileError, MemoryLimitError):
                count += 1
    assert count > 100


# --- writing ----------------------------------------------------------------------------------------------------------------


def test_places_that_do_not_do_are_named(saved: tuple[Witness, Path], tmp_path: Path) -> None:
    witness, _ = saved
    (tmp_path / "folder.npz").mkdir()
    for name, text in {"no/w.npz": "no folder", "w.txt": "end in .npz", "w": "end in .npz", "folder.npz": "is a folder"}.items():
        with pytest.raises(FileError, match=text):
            witness.save(tmp_path / name)


def test_arrays_that_are_mostly_zero_take_little_room(tmp_path: Path) -> None:
    sparse, full = np.zeros((300, 300)), np.random.default_rng(2477).standard_normal((30, 30))
    sparse[7::50, 3] = np.pi
    path = write_result(tmp_path / "r.npz", "certificate", {"sparse": sparse, "full": full})
    assert full.nbytes < path.stat().st_size < full.nbytes + 10_000 < sparse.nbytes
    found = read_result(path)
    assert np.array_equal(found["sparse"], sparse) and np.array_equal(found["full"], full)


def test_a_full_disk_leaves_the_old_files(saved: tuple[Witness, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    witness, path = saved
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert set(before) == {"w.npz", "w.json"}
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    other = a_witness(ph.Ball(radius=0.7))
    monkeypatch.setattr("pyhess._files.os.fsync", full)
    with pytest.raises(FileError, match="No space left"):
        other.save(path)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    monkeypatch.undo()
    other.save(path)
    assert ph.load_witness(path).region == other.region
    assert {file.name for file in path.parent.iterdir()} == set(before)
    assert verify_file(path).verdict == "verified" and witness.region != other.region
