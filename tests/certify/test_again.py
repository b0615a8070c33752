"""Certificates that hold are never refused: neither by `verify` nor by the independent check."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import certify, prove, reference_plan
from pyhess.certify.units import unit_bound

from .conftest import small_objective


def test_a_search_that_ended_at_a_witness_is_found_again() -> None:
    # Which cells it cuts depends on the witness's value: the number of cells alone does not bring the bound back.
    obj = small_objective(321, 4, [2, 2, 1], "squared_error", "softplus")
    box = ph.Box.around(obj.net.init(rng=11), 0.4).bind(obj)
    reached = certify(obj, box, "units").psi_lower
    for share in (1.002, 1.01):
        certificate = certify(obj, box, "units", psi_upper=share * reached)
        assert certificate.verify()
        forged = replace(certificate, psi_lower=0.5 * certificate.psi_lower)
        with pytest.raises(ph.NumericalError, match="altered"):
            forged.verify()


@pytest.mark.parametrize("method", ["boxes", "cells", "taylor"])
def test_methods_that_know_one_part_of_an_intersection(method: str) -> None:
    obj = small_objective(322, 4, [2, 2, 2, 1], "squared_error", "tanh")
    theta = obj.net.init(rng=13)
    box, ball = ph.Box.around(theta, 0.05), ph.Ball(theta, 0.1)
    limit = None if method == "taylor" else 2.0  # the others take all of it
    certificate = certify(obj, ph.Intersection([ball, box]), method, time_limit=limit)
    assert np.isfinite(certificate.psi_lower) and certificate.method == method and certificate.verify()


def test_a_method_that_knows_no_part_of_an_intersection_is_refused() -> None:
    obj = small_objective(322, 4, [2, 2, 2, 1], "squared_error", "tanh")
    with pytest.raises(ph.InputError, match="'units' does not apply"):
        certify(obj, ph.Intersection([ph.Ball(radius=1.0), ph.Box(-0.5, 0.5)]), "units")


@pytest.mark.usefixtures("long_doubles")
def test_the_scale_of_a_single_hidden_unit_is_one() -> None:
    obj = small_objective(323, 4, [2, 1, 2], "squared_error", "sigmoid", parametrization="ntk")
    box = ph.Box(-0.1, 0.1).bind(obj)
    found = unit_bound(obj, box, max_cells=30)
    assert found is not None
    proof = prove(obj, box, "units", found.psi_lower, leaves=found.cover.leaves(obj, box), time_limit=600.0)
    assert proof.proved, proof.detail


def test_cells_too_small_by_the_rounding_of_doubles_are_looked_at_in_long_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    if np.finfo(np.longdouble).nmant <= 52:
        pytest.skip("long doubles are doubles here")
    monkeypatch.setattr(reference_plan, "_LONG_SHARE", 0.0)
    monkeypatch.setattr(reference_plan, "_ARB_SHARE", 0.0)
    obj = small_objective(324, 4, [2, 2, 2], "cross_entropy", "softplus", parametrization="ntk")
    box = ph.Box.around(obj.net.init(rng=12), 0.01).bind(obj)
    found = unit_bound(obj, box, max_cells=30)
    assert found is not None
    leaves = found.cover.leaves(obj, box)
    proof = prove(obj, box, "units", found.psi_lower, leaves=leaves, time_limit=600.0)
    assert proof.proved and not proof.broken and "64-bit" in proof.detail, proof.detail
    # What is missing in long doubles too refutes.
    proof = prove(obj, box, "units", found.psi_lower, leaves=replace(leaves, cells=0.5 * leaves.cells), time_limit=600.0)
    assert not proof.proved and proof.broken


def test_a_limit_that_ends_the_only_method_is_named() -> None:
    obj = small_objective(331, 40, [2, 3, 3, 1], "squared_error", "tanh")
    certificate = certify(obj, ph.Ball(obj.net.init(rng=17), 0.1), "taylor", time_limit=1e-3)
    assert certificate.method == "none" and "stopped before any bound was finished" in certificate.statement
