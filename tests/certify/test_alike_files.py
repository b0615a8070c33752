"""Files that hold ellipsoids for hidden units that are all alike, and cells of a unit that are tested with them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import Certificate, certify, load_certificate
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_unit_alike import AlikeProof
from pyhess.certify.reference_unit_block import UnitProblem
from pyhess.certify.reference_units import _joint, prove_units
from pyhess.certify.unit_cover import AlikeSets, JointSets
from pyhess.certify.units import unit_bound
from pyhess.errors import FileError
from pyhess.threshold import verify_file

from .alike_cases import fitted

Array = Any


@pytest.mark.usefixtures("doubles")
def test_cells_are_tested_with_the_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were sets a tenth as large true, fewer cells would do; they are not, and that is said."""
    obj, ball, sets = fitted("sigmoid")
    problem, small = Problem.of(obj), replace(sets, scales=0.1 * sets.scales)
    bound = unit_bound(obj, ball, max_cells=5000, ellipsoids=False)
    assert bound is not None
    claim = 1.05 * bound.psi_lower

    def counted(sets: AlikeSets | None) -> int:
        found = prove_units(problem, ball, claim, None, monotonic() + 60.0, sets)
        assert found.proved, found.detail
        return int(found.detail.split()[0])

    refused = prove_units(problem, ball, claim, None, monotonic() + 60.0, small)
    assert refused.broken and "ellipsoid" in refused.detail
    plain = counted(None)
    monkeypatch.setattr("pyhess.certify.reference_unit_alike.holds", lambda *_: True)
    assert counted(small) < 0.7 * plain
    # Not about such problems: a unit that is not like the others, output weights at the centre, matrices for other data.
    unlike, with_weights = ball.center.copy(), ball.center.copy()
    unlike[0] += 1e-3
    obj.net.unpack(with_weights)[1][0][...] = 1e-3
    other, heavier = (ph.Ball(theta, ball.radius).bind(obj) for theta in (unlike, with_weights))
    fewer = replace(small, matrices=small.matrices[:, 1:, 1:])
    for region, given, known in ((ball, small, True), (other, small, False), (heavier, small, False), (ball, fewer, False)):
        proof = _joint(problem, UnitProblem.of(problem), region, given, monotonic() + 60.0)
        assert isinstance(proof, AlikeProof) if known else proof is None


@cache
def plain(activation: str) -> Certificate:
    """The moment bound."""
    obj, ball, _ = fitted(activation)
    return certify(obj, ball, "moment")


def certificate_with(sets: AlikeSets | JointSets) -> Certificate:
    """The moment bound's number as a claim of the cells of one unit's weights."""
    certificate = plain("tanh")
    row = replace(certificate.table["moment"], multipliers=sets)
    return replace(certificate, method="units", table={"units": row})


@pytest.mark.usefixtures("long_doubles")
def test_files_with_such_sets_are_proved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyhess.certify.reference_plan._LONG_SHARE", 0.0)
    _, _, sets = fitted("tanh")
    sets = replace(sets, scales=1.03 * sets.scales).those(np.array([False, True]))
    path = certificate_with(sets).save(tmp_path / "c.npz")
    again = load_certificate(path).table["units"].multipliers
    assert isinstance(again, AlikeSets)
    for name, value in vars(sets).items():
        assert np.array_equal(getattr(again, name), value)
    checked = verify_file(path, time_limit=30.0)
    assert checked.verdict == "verified" and "53-bit" in checked.checks[-1].detail, checked.checks
    false = certificate_with(replace(sets, scales=0.9 * sets.scales))
    refused = verify_file(false.save(tmp_path / "false.npz"), time_limit=20.0)
    assert refused.verdict == "refuted" and "ellipsoid" in refused.checks[-1].detail
    for wrong in (
        replace(sets, scales=-sets.scales), replace(sets, floors=sets.floors[:0]), replace(sets, matrices=sets.matrices[:, 1:]),
        replace(sets, matrices=np.nan * sets.matrices), replace(sets, scales=np.ones((2, 4))),
    ):  # fmt: skip
        with pytest.raises(FileError, match=r"positive ones but for the matrices, of which there is one for all hidden units"):
            load_certificate(certificate_with(wrong).save(tmp_path / "wrong.npz"))


def test_files_of_the_layout_before_have_a_matrix_for_every_unit(tmp_path: Path) -> None:
    _, _, sets = fitted("tanh")
    joint = JointSets(sets.rooms, sets.floors, np.repeat(sets.matrices[:, None], 4, axis=1), np.ones((2, 4)))
    path = certificate_with(joint).save(tmp_path / "c.npz")
    with np.load(path) as content:
        arrays = dict(content)
    described = json.loads(str(arrays["description"])) | {"schema_version": 4}
    np.savez(path, **{**arrays, "description": np.array(json.dumps(described))})
    again = load_certificate(path).table["units"].multipliers
    assert isinstance(again, JointSets) and np.array_equal(again.matrices, joint.matrices)
    wrong = replace(joint, matrices=joint.matrices[:, 1:])
    with pytest.raises(FileError, match="one for each hidden unit"):
        load_certificate(certificate_with(wrong).save(tmp_path / "wrong.npz"))
