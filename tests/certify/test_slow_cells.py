"""The independent check of branch and bound with the moment bound: cells that cover, bounds that hold, and nothing altered."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import Certificate, certify, prove, reference_cells, schedule
from pyhess.certify.reference_cells import _ball_cells
from pyhess.certify.reference_hessian import Problem, ball_cells, box_cells, passes
from pyhess.certify.reference_interval import wide
from pyhess.certify.reference_middles import hidden_form, middles
from pyhess.certify.reference_moment import moment_bound, moment_bounds, residual_forms, with_norms
from pyhess.certify.reference_signed import bare, signed_form
from pyhess.threshold import verify_file

from .conftest import form_sizes, random_objective, random_region, small_objective
from .test_cells import (
    _mixed_norms,
    column_of_forms,
    flat_network,
    hidden_means,
    mixed_blocks,
    network_of_one_unit_or_more,
)

#: Seconds that no proof of these tests comes near, on a slow machine either.
AMPLE = 600.0


pytestmark = pytest.mark.usefixtures("long_doubles")
problem = partial(small_objective, 1213, 4)


@pytest.fixture(autouse=True)
def _little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_WORK", 1e6)


CELLS = [
    ([1, 2, 2, 1], "squared_error", "tanh", ph.Box(-0.6, 0.6), {}),
    ([2, 2, 1, 2], "squared_error", "softplus", ph.Ball(0.1, 0.9), {"parametrization": "ntk"}),
    ([1, 2, 2, 1], "squared_error", "sigmoid", ph.Ball(0.2, 1.1), {}),
    ([2, 2, 2, 1], "logistic", "tanh", ph.Ball(0.0, 1.2), {"bias": False}),
    ([1, 2, 2, 2], "cross_entropy", "tanh", ph.Box(-0.5, 0.5), {"parametrization": "ntk"}),
    ([1, 1, 2, 1, 1], "squared_error", "tanh", ph.Ball(0.1, 0.8), {}),
]


@pytest.mark.parametrize(("widths", "loss", "activation", "region", "options"), CELLS)
def test_cells_are_proved_again_and_altered_ones_are_not(
    widths: list[int], loss: str, activation: str, region: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    obj = problem(widths, loss, activation, **options)
    certificate = certify(obj, region, "cells")
    found = verify_file(certificate.save(tmp_path / "c.npz"), time_limit=AMPLE)
    assert found.verdict == "verified", found.checks[-1].detail
    cover = ph.load_certificate(tmp_path / "c.npz").table["cells"].cover
    assert cover is not None and len(cover.low) > 8 and bool(cover.keys) == (activation == "tanh" and isinstance(region, ph.Box))

    def proof(changed: Any) -> Any:
        return prove(obj, region, "cells", certificate.psi_lower, changed, time_limit=AMPLE)

    for index in {int(np.argmin(cover.bound)), len(cover.low) // 2}:
        kept = np.arange(len(cover.low)) != index
        gone = proof(replace(cover, low=cover.low[kept], high=cover.high[kept], bound=cover.bound[kept]))
        high = cover.high.copy()
        high[index, 0] = np.nextafter(high[index, 0], -np.inf)
        for altered in (gone, proof(replace(cover, high=high))):
            assert altered.broken and not altered.proved and "leave out a part of the region" in altered.detail


def raised(certificate: Certificate, factor: float) -> Certificate:
    """The claim, the table and the cells' bounds, all of them raised alike: the file agrees with itself."""
    row = certificate.table["cells"]
    assert row.cover is not None
    cover = replace(row.cover, bound=row.cover.bound * factor)
    claim = certificate.psi_lower * factor
    return replace(certificate, psi_lower=claim, table={"cells": replace(row, psi_lower=claim, cover=cover)})


@pytest.mark.parametrize("region", [ph.Box(-0.6, 0.6), ph.Ball(0.1, 1.0)])
def test_a_bound_raised_by_a_hundredth_is_refused(region: Any, tmp_path: Path) -> None:
    # Two outputs: without the joint bounds, whose pieces are finer here, both codes find the same.
    certificate = certify(problem([2, 2, 2, 2], "squared_error", "softplus"), region, "cells")
    false = raised(certificate, 0.99)
    row = false.table["cells"]
    proof = prove(false.obj, region, "cells", false.psi_lower, row.cover, time_limit=AMPLE)
    assert not proof.proved and "is not proved: written out anew" in proof.detail
    found = verify_file(false.save(tmp_path / "c.npz"), time_limit=AMPLE)
    assert found.verdict == "refuted" and "now proves" in found.checks[-1].detail


def test_where_time_does_not_suffice_it_says_how_many_cells_were_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    obj = problem([2, 2, 1, 2], "squared_error", "softplus")
    region = ph.Ball(0.1, 0.9).bind(obj)
    certificate = certify(obj, region, "cells")
    cover = certificate.table["cells"].cover
    assert cover is not None
    monkeypatch.setattr(reference_cells, "_TOGETHER", 1)
    clock = iter(np.arange(0.0, 1e6))
    monkeypatch.setattr(reference_cells, "monotonic", lambda: float(next(clock)))
    check = Problem.of(obj)
    found = reference_cells.prove_cells(obj.net, check, region, certificate.psi_lower * (1 + 1e-9), cover, 30.0)
    assert not found.proved and not found.broken
    assert f"of {len(cover.low)} cells" in found.detail and "5 more that were drawn at random" in found.detail


def test_a_part_of_a_ball_holds_the_networks_with_its_offsets_and_shares() -> None:
    rng = np.random.default_rng(1217)
    for turn in range(24):
        bias = turn % 3 > 0
        obj = problem(
            [2, 2, 2, 1 + turn % 2], "squared_error", "tanh", bias=bias, parametrization="ntk" if turn % 2 else "standard"
        )
        net, size, outputs = obj.net, obj.num_params, (1 + turn % 2) * bias
        ball = ph.Ball(rng.standard_normal(size) * 0.5, float(rng.choice([0.1, 1.5]))).bind(obj)
        offset = rng.standard_normal(size)
        offset *= rng.random() ** 0.1 / np.linalg.norm(offset)
        parts = [slice(w.start, w.stop if b is None else b.stop) for w, b in net.layer_slices]
        last = net.layer_slices[-1][1]
        biases = offset[last] if last is not None else np.zeros(0)
        shares = [float(np.sum(offset[part] ** 2)) for part in parts]
        shares[-1] -= float(biases @ biases)
        point = np.concatenate([biases, shares])
        low = np.maximum(point - 0.2 * rng.random(point.size), [-1.0] * outputs + [0.0] * 3)
        high = np.minimum(point + 0.2 * rng.random(point.size), 1.0)
        if turn % 5 == 0:
            low[:outputs], high[:outputs] = -1.0, 1.0
        check = Problem.of(obj)
        cells = _ball_cells(check, ball, low, high)
        assert cells is not None
        lowest = np.linalg.eigvalsh(obj.hessian(ball.center + ball.radius * offset).to_dense())[0]
        assert moment_bound(check, with_norms(check, cells)) <= lowest
        outside = np.maximum(low, 0.9)
        assert _ball_cells(check, ball, outside, np.ones(point.size)) is None


def test_parts_tested_together_have_the_bounds_that_each_has() -> None:
    rng = np.random.default_rng(1229)
    for widths, region in (
        ([2, 3, 2, 1], ph.Box(-0.5, 0.5)),
        ([2, 2, 2, 2], ph.Ball(0.1, 0.8)),
        ([1, 2, 2, 1], ph.Ball(0.1, 0.8)),
    ):
        obj = problem(widths, "squared_error", "tanh", parametrization="ntk")
        check, bound = Problem.of(obj), region.bind(obj)
        parts = []
        for _ in range(4):
            if isinstance(bound, ph.Box):
                middle = rng.uniform(-0.4, 0.4, obj.num_params)
                cells: Any = box_cells(check, wide(middle - 0.1)[None], wide(middle + 0.1)[None])
            else:
                outputs = widths[-1]
                low = np.r_[rng.uniform(-0.4, 0.0, outputs), rng.uniform(0.0, 0.1, 3)]
                cells = _ball_cells(check, bound, low, low + 0.3)
            parts.append(with_norms(check, cells))
        one_by_one = [float(moment_bound(check, part)) for part in parts]
        assert len(set(one_by_one)) == 4
        assert [float(value) for value in moment_bounds(check, parts)] == pytest.approx(one_by_one, rel=1e-15)


def test_signed_terms_are_above_the_mixed_terms_anywhere_in_the_cell() -> None:
    rng = np.random.default_rng(1223)
    for turn in range(8):
        data = ph.Dataset(rng.standard_normal((5, 2)), rng.standard_normal(5))
        obj = ph.Objective(ph.MLP([2, 3, 2, 1], ["tanh", "gelu"], bias=turn % 4 != 0), data)
        check, middle = Problem.of(obj), rng.standard_normal(obj.num_params) * 0.7
        radius = 0.4 if turn % 3 else 0.004  # where it is small, the bounds are nearly reached
        if turn % 2:
            region: ph.Ball | ph.Box = ph.Ball(middle, radius).bind(obj)
            cell = ball_cells(check, wide(middle), wide(np.full((1, 3), radius)))
        else:
            region = ph.Box(middle - radius / 2, middle + radius / 2).bind(obj)
            cell = box_cells(check, wide(region.low)[None], wide(region.high)[None])
        cell = with_norms(check, cell)
        along = passes(check, cell, check.x, check.y)
        bound = signed_form(check, cell, along, middles(check, cell, along))
        assert bound is not None
        places = [0, 1, 3, 2] if obj.net.bias else [0, 1, 2]  # the second layer's biases come last here
        for theta in region.sample(6, rng=rng):
            assert (_mixed_norms(obj, theta) <= bound.astype(float)[np.ix_(places, places)] + 1e-12).all()


def test_signed_terms_of_deep_networks_are_above_the_residual_part_where_nothing_is_curved() -> None:
    rng = np.random.default_rng(1237)
    for turn in range(6):
        obj = flat_network(rng, turn)
        net, check, middle = obj.net, Problem.of(obj), rng.standard_normal(obj.num_params) * 0.7
        radius = 0.3 if turn % 3 else 1e-4
        ball, box = ph.Ball(middle, radius).bind(obj), ph.Box(middle - radius / 4, middle + radius / 4).bind(obj)
        for region, cell in (
            (ball, ball_cells(check, wide(middle), wide(np.full((1, 4), radius)))),
            (box, box_cells(check, wide(box.low)[None], wide(box.high)[None])),
        ):
            cell = with_norms(check, cell)
            along = passes(check, cell, check.x, check.y)
            bound = signed_form(check, cell, along, middles(check, cell, along))
            assert bound is not None
            places = [0, 1, 4, 2, 5, 3] if net.bias else [0, 1, 2, 3]
            scales = np.repeat(net.layer_scales, [1, 2, 2, 1]) if net.bias else np.array(net.layer_scales)
            found = bound.astype(float)[np.ix_(places, places)]
            for theta in region.sample(4, rng=rng):
                assert (mixed_blocks(obj, theta) * np.outer(scales, scales) <= found + 1e-9).all()


@pytest.mark.parametrize("layer", [1, 2])
def test_hidden_forms_are_above_their_means_anywhere_in_the_cell(layer: int) -> None:
    rng = np.random.default_rng(1249)
    for turn in range(6):
        obj, radius = network_of_one_unit_or_more(rng, turn, turn % 4 < 2)
        net, check, middle = obj.net, Problem.of(obj), rng.standard_normal(obj.num_params) * 0.7
        kap = rng.random(7)
        ball, box = ph.Ball(middle, radius).bind(obj), ph.Box(middle - radius / 2, middle + radius / 2).bind(obj)
        for region, cell in (
            (ball, ball_cells(check, wide(middle), wide(np.full((1, 4), radius)))),
            (box, box_cells(check, wide(box.low)[None], wide(box.high)[None])),
        ):
            cell = with_norms(check, cell)
            along = passes(check, cell, check.x, check.y)
            sizes = bare(check, along.a_norm[layer])
            forms = wide(column_of_forms(kap, sizes.astype(float) * (1.0 + 1e-15), 4, layer))
            found = hidden_form(check, middles(check, cell, along), layer, sizes, forms)
            assert found is not None
            scales = np.array(net.layer_scales) * net.layer_scales[layer]
            bound = found.astype(float)[layer] / scales
            for theta in region.sample(5, rng=rng):
                exact = hidden_means(obj, theta, layer, obj.data.normalized_weights * kap, rng)
                assert (exact <= bound[[0, layer, 3]] * (1.0 + 1e-12)).all()
                if turn < 3:
                    assert exact[1] >= 0.99 * bound[layer]


def test_forms_are_above_the_residual_part_in_every_direction() -> None:
    rng = np.random.default_rng(1231)
    for _ in range(25):
        obj = random_objective(rng)
        net, check = obj.net, Problem.of(obj)
        region = random_region(rng, net.num_params).bind(obj)
        if isinstance(region, ph.Ball):
            cells = ball_cells(check, wide(region.center), wide(np.full((1, net.num_layers), region.radius)))
        else:
            cells = box_cells(check, wide(region.low)[None], wide(region.high)[None])
        cells = with_norms(check, cells)
        mixed, curved = residual_forms(check, cells, passes(check, cells, check.x, check.y))
        forms = (mixed + curved).astype(float)
        places = [0]  # biases between the first and the last layer come last here
        for layer in range(1, net.num_layers - 1):
            places += [layer, net.num_layers + layer - 1] if net.bias else [layer]
        places.append(net.num_layers - 1)
        single = ph.Objective(net, ph.Dataset(obj.data.X[:1], obj.data.y[:1]), loss=obj.loss)
        for theta in region.sample(3, rng=rng):
            residual = single.hessian(theta).to_dense() - single.gauss_newton(theta).to_dense()
            blocks = [np.arange(net.num_params), *(np.arange(bias.start, bias.stop) for _, bias in net.layer_slices if bias)]
            for block in blocks:
                v = np.zeros(net.num_params)
                v[block] = np.linalg.eigh(residual[np.ix_(block, block)])[1][:, 0]
                t = form_sizes(net, v, obj.data.X[0])
                bound = float(t @ forms[0][np.ix_(places, places)] @ t)
                assert float(v @ residual @ v) >= -bound - 1e-9 * (1.0 + np.abs(residual).max())


@pytest.mark.parametrize("region", [ph.Box(-0.3, 0.3), ph.Ball(0.0, 0.5)])
def test_moment_certificates_rest_on_signed_terms_and_are_proved_again(region: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyhess.certify.portfolio._MAX_CELLS", 4)
    # Residuals of opposite signs at inputs that are nearly the same.
    data = ph.Dataset(np.array([[0.5, 1.0], [0.6, 0.9], [0.4, 1.1], [0.5, 0.9]]), np.array([2.0, -2.0, 2.0, -2.0]))
    obj = ph.Objective(ph.MLP([2, 2, 2, 1], "tanh"), data)
    certificate = certify(obj, region, "moment")
    assert prove(obj, region, "moment", certificate.psi_lower, time_limit=AMPLE).proved
    bound = region.bind(obj)
    check = Problem.of(obj)
    box = bound if isinstance(bound, ph.Box) else bound.box_around()
    whole = with_norms(check, box_cells(check, wide(box.low)[None], wide(box.high)[None]))
    with_signs = moment_bound(check, whole)
    monkeypatch.setattr("pyhess.certify.reference_moment.signed_form", lambda *_: None)
    assert moment_bound(check, whole) < 1.1 * with_signs < 0.0


def test_files_without_cells_and_foreign_cells_prove_nothing() -> None:
    obj = problem([2, 2, 1, 2], "squared_error", "softplus")
    ball, box = (certify(obj, region, "cells") for region in (ph.Ball(radius=0.6), ph.Box(-0.2, 0.3)))
    assert "does not bring the cells along" in prove(obj, ball.region, "cells", ball.psi_lower).detail
    assert "not those of a ball" in prove(obj, ball.region, "cells", ball.psi_lower, box.table["cells"].cover).detail
    assert "not those of a box" in prove(obj, box.region, "cells", box.psi_lower, ball.table["cells"].cover).detail
    assert ball.verify() and box.verify()
