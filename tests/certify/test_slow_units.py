"""The independent checks of units, closed forms and joint bounds: what holds is proved again, what is altered is refuted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import Certificate, certify, prove
from pyhess.certify.unit_cover import UnitLeaves
from pyhess.certify.units import unit_bound
from pyhess.threshold import verify_file

from .conftest import small_objective

pytestmark = pytest.mark.usefixtures("long_doubles")
problem = partial(small_objective, 307, 4)


def by_units(obj: ph.Objective, region: ph.Box, cells: int = 20) -> Certificate:
    """A certificate from few cells of one unit's weights."""
    region = region.bind(obj)
    found = unit_bound(obj, region, max_cells=cells)
    assert found is not None
    certificate = certify(obj, region, "moment")
    row = replace(
        certificate.table["moment"], psi_lower=found.psi_lower, cells=found.cells, leaves=found.cover.leaves(obj, region)
    )
    return replace(certificate, method="units", psi_lower=found.psi_lower, table={"units": row})


def altered(certificate: Certificate, **change: Any) -> Certificate:
    row = certificate.table[certificate.method]
    assert row.leaves is not None
    psi_lower = change.pop("psi_lower", row.psi_lower)
    row = replace(row, psi_lower=psi_lower, leaves=replace(row.leaves, **change))
    return replace(certificate, psi_lower=psi_lower, table={certificate.method: row})


def outcome(certificate: Certificate, path: Path, time_limit: float = 600.0) -> tuple[str, str]:
    found = verify_file(certificate.save(path / "c.npz"), time_limit=time_limit)
    return found.verdict, " ".join(f"{check.name} {check.detail}" for check in found.checks)


UNITS = [
    ([1, 3, 1], "squared_error", "tanh", ph.Box(-0.6, 0.6), {}),
    ([1, 2, 2], "squared_error", "gelu", ph.Box(-0.3, 0.5), {"bias": False}),
    ([2, 2, 1], "squared_error", "softplus", ph.Box(-0.4, 0.4), {"parametrization": "ntk"}),
    ([1, 2, 1], "logistic", "sigmoid", ph.Box(-0.7, 0.7), {}),
    ([1, 2, 3], "cross_entropy", "tanh", ph.Box(-0.5, 0.5), {}),
]


@pytest.mark.parametrize(("widths", "loss", "activation", "box", "options"), UNITS)
def test_cells_of_one_unit_are_proved_again(
    widths: list[int], loss: str, activation: str, box: ph.Box, options: dict[str, Any], tmp_path: Path
) -> None:
    obj = problem(widths, loss, activation, **options)
    verdict, detail = outcome(by_units(obj, box), tmp_path)
    assert verdict == "verified" and "cells of one unit's weights tested" in detail, detail


def test_units_that_differ() -> None:
    obj = problem([1, 3, 1])
    box = ph.Box.around(np.linspace(-0.9, 1.1, obj.num_params), 0.2)
    certificate = by_units(obj, box)
    leaves = certificate.table["units"].leaves
    assert leaves is not None and len(set(leaves.unit)) == 3
    assert prove(obj, box, "units", certificate.psi_lower, leaves=leaves, time_limit=600.0).proved
    # The cells of one unit say nothing about another.
    proof = prove(obj, box, "units", certificate.psi_lower, leaves=replace(leaves, unit=np.array([0, 0, 1])))
    assert not proof.proved and proof.broken


def test_false_cells_and_claims_are_refuted(tmp_path: Path) -> None:
    certificate = by_units(problem([1, 3, 1]), ph.Box(-0.6, 0.6))
    leaves = certificate.table["units"].leaves
    assert isinstance(leaves, UnitLeaves)
    kept = np.arange(len(leaves.cells)) != 7
    missing = altered(certificate, cells=leaves.cells[kept], bound=leaves.bound[kept], root=leaves.root[kept])
    shifted = leaves.cells.copy()
    shifted[5, :, 0] += 1e-3
    for false in (missing, altered(certificate, cells=shifted)):
        verdict, detail = outcome(false, tmp_path)
        assert verdict == "refuted" and "do not contain all weights" in detail, detail
    # Raised in the claim alone.
    assert outcome(altered(certificate, psi_lower=0.99 * certificate.psi_lower), tmp_path)[0] == "refuted"


def test_a_claim_above_the_blocks_is_refuted(tmp_path: Path) -> None:
    obj, box = problem([1, 3, 1]), ph.Box(-0.6, 0.6)
    # A bound that is nearly exact, raised by a hundredth: cutting cells cannot prove it.
    claim = 0.99 * by_units(obj, box, cells=20_000).psi_lower
    certificate = by_units(obj, box, cells=200)
    leaves = certificate.table["units"].leaves
    assert leaves is not None
    false = altered(certificate, psi_lower=claim, bound=np.maximum(leaves.bound, claim))
    verdict, detail = outcome(false, tmp_path)
    assert verdict == "refuted" and "v'Hv <=" in detail, detail
    # Without a point to show, a block whose eigenvalue is below the claim is enough.
    proof = prove(obj, box, "units", 0.5 * claim, leaves=leaves, time_limit=600.0)
    assert proof.broken and "a unit's block has an eigenvalue below the claim" in proof.detail


def test_files_without_cells_are_left_open(tmp_path: Path) -> None:
    certificate = by_units(problem([1, 3, 1]), ph.Box(-0.6, 0.6))
    row = replace(certificate.table["units"], leaves=None)
    verdict, detail = outcome(replace(certificate, table={"units": row}), tmp_path)
    assert verdict == "incomplete" and "an older pyhess wrote it" in detail


def test_what_takes_too_long_says_so(tmp_path: Path) -> None:
    certificate = by_units(problem([1, 3, 1]), ph.Box(-0.6, 0.6))
    verdict, detail = outcome(certificate, tmp_path, time_limit=1e-3)
    assert verdict == "incomplete" and "time ran out after 0 of some" in detail, detail


EXACT = [
    ([2, 3, 1], ph.Box(-0.5, 0.7), {}),
    ([2, 2, 2], ph.Box(-0.5, 0.5), {"parametrization": "ntk"}),
    ([2, 2, 2], ph.Ball(0.0, 1.3), {"bias": False}),
    ([1, 2, 1], ph.Ball(0.0, 1.3), {}),
]


@pytest.mark.parametrize(("widths", "region", "options"), EXACT)
def test_closed_forms_are_proved_again(widths: list[int], region: Any, options: dict[str, Any]) -> None:
    obj = problem(widths, activation="identity", **options)
    certificate = certify(obj, region, "exact")
    assert prove(obj, region, "exact", certificate.psi_lower, time_limit=600.0).proved
    # The value is exact: nothing above it can be proved.
    assert not prove(obj, region, "exact", certificate.psi_lower * (1.0 - 1e-5), time_limit=2.0).proved


@pytest.mark.parametrize("region", [ph.Box(-0.5, 0.5), ph.Ball(0.1, 0.5)])
@pytest.mark.parametrize("widths", [[2, 2, 1], [1, 2, 2, 1]])
def test_joint_bounds_are_proved_again(widths: list[int], region: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyhess.certify.portfolio._MAX_CELLS", 2)
    obj = problem(widths)
    for method in ("moment", "comparison"):
        certificate = certify(obj, region, method)
        assert prove(obj, region, method, certificate.psi_lower, time_limit=600.0).proved, method


@pytest.mark.parametrize(("loss", "outputs"), [("squared_error", 2), ("logistic", 1), ("cross_entropy", 3)])
def test_a_cell_is_not_proved_beyond_its_blocks(loss: str, outputs: int) -> None:
    rng = np.random.default_rng(313)
    obj = problem([2, 3, outputs], loss)
    for half in (0.02, 0.3):
        box = ph.Box.around(rng.standard_normal(obj.num_params), half).bind(obj)
        # One cell for every kind of unit: its root.
        found = unit_bound(obj, box, max_cells=1)
        assert found is not None
        leaves = found.cover.leaves(obj, box)
        thetas = np.concatenate([box.sample(40, rng=rng), np.where(rng.random((40, obj.num_params)) < 0.5, box.low, box.high)])
        parts = [obj.hessian(theta).to_dense() - obj.gauss_newton(theta).to_dense() for theta in thetas]
        lowest = min(float(np.linalg.eigvalsh(part)[0]) for part in parts)
        assert prove(obj, box, "units", found.psi_lower, leaves=leaves, time_limit=600.0).proved
        assert not prove(obj, box, "units", lowest + 1e-6 * abs(lowest), leaves=leaves, time_limit=0.3).proved
