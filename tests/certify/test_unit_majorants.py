"""Majorants of what other hidden units make of a block, against the points of their ellipsoid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess.certify import units
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import Range, wide
from pyhess.certify.reference_majorants import _ball_majorant, no_eigenvalue_below
from pyhess.certify.reference_unit_block import Rest, UnitProblem, enclosed

from .conftest import small_objective

Array = Any


@pytest.mark.parametrize("data", [4, 1])
@pytest.mark.usefixtures("doubles")
def test_symbols_of_a_ball_are_majorised(data: int) -> None:
    """Blocks over points and cells with what the others add in an ellipsoid, against its points; one datum reaches its rest."""
    rng = np.random.default_rng(463)
    obj = small_objective(419, data, [1, 3, 1])
    ball = ph.Ball(rng.standard_normal(obj.num_params), 0.9).bind(obj)
    search = units.UnitSearch(obj, ball, np.zeros(1, dtype=np.int32))
    count, n, symbols = 40, obj.data.num_samples, 3
    generators = rng.standard_normal((count, n, symbols)) * 10.0 ** rng.uniform(-1.0, 1.0, (count, 1, 1))
    ranges = np.zeros((6, count, n, 1))
    ranges[[1, 4]] = np.linalg.norm(generators, axis=2, keepdims=True) * (1.0 + 1e-12)
    rest = search.roots.rest
    task = search.new_task(
        {name: np.repeat(rest[name][:1], count, axis=0) for name in ("kinds", "amplitude", "offset")}
        | {"middle": np.zeros((count, n, 1)), "generators": generators[:, :, None], "slack": np.zeros((3, count, n, 1))}
        | {"ranges": ranges, "powers": np.zeros(symbols, dtype=np.int64), "groups": np.zeros(symbols, dtype=np.int64)}
        | {"centers": np.repeat(search.roots.centers[:1], count, axis=0)}
    )
    size, half = search.roots.centers.shape[1], np.where(np.arange(count) < 20, 0.0, 0.1)
    points = search.roots.centers[0] + rng.uniform(-0.25, 0.25, (count, size))
    cells = np.zeros((count, 2, search.leaves.cells.shape[2]))
    cells[:, :, :size] = points[:, None] + half[:, None, None] * np.array([-1.0, 1.0])[:, None]
    bounds = task.bound(cells, np.arange(count), np.full(count, -np.inf), np.zeros(1, dtype=np.int32)).bounds
    gaps, one, proved = [], UnitProblem.of(Problem.of(obj)), np.zeros((count, 2), dtype=np.bool_)
    for place in range(count):
        lowest = np.inf
        for _ in range(20):
            own = points[place] + half[place] * rng.choice([-1.0, 1.0], size)
            before, pairs = block_of(obj, search.units.z, own)
            xi = rng.standard_normal(symbols)
            for _ in range(15):
                t = generators[place] @ (xi / np.linalg.norm(xi))
                values, vectors = np.linalg.eigh(np.einsum("n,nij->ij", before + t, pairs))
                lowest = min(lowest, values[0])
                xi = -generators[place].T @ np.einsum("nij,i,j->n", pairs, vectors[:, 0], vectors[:, 0])
        gaps.append((lowest - bounds[place]) / abs(lowest))
        assert bounds[place] <= lowest + 1e-12 * abs(lowest)
        low, high = (wide(cells[place : place + 1, side, :size]) for side in (0, 1))
        others = Rest(
            Range(wide(np.zeros((1, n, 1)))), Range(wide(generators[place][None, :, None])), wide(np.zeros((1, n, 1))),
            np.zeros(symbols, dtype=np.int64),
        )  # fmt: skip
        block = enclosed(one, low, high, others)
        for k, factor in enumerate((0.999, 1.1)):
            proved[place, k] = no_eigenvalue_below(one, block, factor * float(lowest)).proved[0]
    assert not proved[:, 0].any() and proved[:20, 1].mean() > 0.9
    assert np.median(gaps[:20]) < 0.02 and np.median(gaps[20:]) < 0.2


def block_of(obj: ph.Objective, z: Array, own: Array) -> tuple[Array, Array]:
    """The residuals without the others (n,), and what multiplies them in the block of a unit (u, v)."""
    u, v = own[:-1], own[-1]
    phi = np.tanh(z @ u)
    rows, last = np.concatenate([z, np.zeros((len(z), 1))], axis=1), np.eye(own.size)[-1]
    slope = 1.0 - phi**2
    pairs = (-2.0 * phi * slope * v)[:, None, None] * rows[:, :, None] * rows[:, None]
    pairs += slope[:, None, None] * (rows[:, :, None] * last + last[:, None] * rows[:, None])
    return phi * v - obj.targets[:, 0], pairs * obj.data.normalized_weights[:, None, None]


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.usefixtures("doubles")
def test_the_majorant_of_the_check_is_one(size: int) -> None:
    """For the most adverse points of the ball, whatever the mixture it was made for."""
    rng = np.random.default_rng(467)
    moves = rng.standard_normal((60, 3, size, size)) * 10.0 ** rng.uniform(-3.0, 2.0, (60, 1, 1, 1))
    moves += np.swapaxes(moves, 2, 3)
    root = rng.standard_normal((60, size, size)) * 10.0 ** rng.uniform(-2.0, 0.0, (60, 1, size))
    weight = root @ np.swapaxes(root, 1, 2)
    found = _ball_majorant(Range(wide(moves)), moves, weight)
    for n, e, z in zip(found.lo, moves, weight, strict=True):
        scale = np.abs(n).max()
        for _ in range(6):
            xi = rng.standard_normal(3)
            for _ in range(30):
                left, vectors = np.linalg.eigh(n - np.einsum("l,lij->ij", xi / np.linalg.norm(xi), e))
                assert left[0] >= -1e-12 * scale
                xi = np.einsum("lij,i,j->l", e, vectors[:, 0], vectors[:, 0])
        # least in the mixture: at most sum_i nu_i, the roots of the eigenvalues of sum (L'E L)²
        turned = np.linalg.cholesky(z).T @ e @ np.linalg.cholesky(z)
        assert np.trace(n @ z) <= 1.01 * np.sqrt(np.linalg.eigvalsh((turned @ turned).sum(axis=0))).sum() + 1e-6 * scale
