"""The independent check of matrices in blocks for being positive semi-definite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pyhess.certify.reference_definite import Arrow, Leaf, not_negative
from pyhess.certify.reference_interval import wide

from .slow_taylor_cases import Array

pytestmark = pytest.mark.usefixtures("long_doubles")


def _random_arrow(rng: np.random.Generator, rank: int, shift: float = 0.0) -> tuple[Arrow, Array]:
    """A'A of as many rows and the rank, and a multiple of the identity; v is of two numbers."""
    core, leaves, count = np.zeros((5, 5)), [], 5
    for at in ([0, 3], [1, 3, 4], [2]):
        a = rng.standard_normal((rank, 2 + len(at)))
        product = a.T @ a
        leaves.append(Leaf(product[:2] + shift * np.eye(2, 2 + len(at)), np.array(at), wide(np.zeros(2))))
        core[np.ix_(at, at)] += product[2:, 2:]
        count += 2
    dense = np.zeros((count, count))
    dense[:5, :5] = core = core + shift * np.eye(5)
    for place, leaf in enumerate(leaves):
        rows = np.arange(5 + 2 * place, 7 + 2 * place)
        columns = np.concatenate([rows, leaf.at])
        dense[np.ix_(rows, columns)], dense[np.ix_(columns, rows)] = leaf.rows, leaf.rows.T
    return Arrow(core, leaves, wide(np.zeros(5))), dense


def _copied(arrow: Arrow, **change: Any) -> Arrow:
    return replace(arrow, core=arrow.core.copy(), **change)


def test_arrows_that_are_not_negative() -> None:
    rng = np.random.default_rng(2609)
    found = []
    for _ in range(40):
        arrow, dense = _random_arrow(rng, 4, 1e-3)
        assert np.linalg.eigvalsh(dense)[0] > 0.0 and not_negative(dense, 5) and _copied(arrow).not_negative(5)
        least = np.linalg.eigvalsh(dense)[0]
        # The least of the form for |v| = 1 and any w.
        lower = np.linalg.eigvalsh(dense[:2, :2] - dense[:2, 2:] @ np.linalg.solve(dense[2:, 2:], dense[2:, :2]))[0]
        for part in (0.999, 1.001):
            core = arrow.core.copy()
            core[:2, :2] -= part * lower * np.eye(2)
            found.append(Arrow(core, arrow.leaves, arrow.error).not_negative(2))
            assert found[-1] == (part < 1.0)
        # Errors of the core's or of a leaf's rows.
        error = wide(np.zeros(5))
        for place, size in ((4, 1.0), (4, 1e-9)):
            error[place] = size * lower
            assert _copied(arrow, error=error).not_negative(2) == (size < 1e-6)
        leaf = arrow.leaves[1]
        for size in (1.0, 1e-9):
            leaves = [arrow.leaves[0], replace(leaf, error=wide([0.0, size * lower])), arrow.leaves[2]]
            assert _copied(arrow, leaves=leaves).not_negative(2) == (size < 1e-6)
        assert least <= lower
        # They count more for longer w.
        error[place] = 0.3 * lower
        assert _copied(arrow, error=error).not_negative(2, 1.0) and not _copied(arrow, error=error).not_negative(2, 2.0)
    assert any(found) and not all(found)
    # Roundings have to be made up for, and leaves to be positive definite.
    for _ in range(5):
        assert not _random_arrow(rng, 2)[0].not_negative(2)
    arrow, _ = _random_arrow(rng, 4, 1e-3)
    for leaf in arrow.leaves:
        rows = leaf.rows.copy()
        for number in (-1.0, np.nan, np.inf):
            rows[1, 1] = number
            leaves = [replace(other, rows=rows) if other is leaf else other for other in arrow.leaves]
            assert not _copied(arrow, leaves=leaves).not_negative(2)
    for error in (wide([0.0, np.nan, 0.0, 0.0, 0.0]), wide([np.inf, 0.0, 0.0, 0.0, 0.0])):
        assert not _copied(arrow, error=error).not_negative(2)


def test_roundings_of_the_factorisation_count_with_the_products_in_a_sum() -> None:
    rows, unit = 200, 2.0**-53
    leaf = np.concatenate([np.eye(rows), np.zeros((rows, 1))], axis=1)
    # Nothing is coupled, so that only what is made up for in v is missing there.
    for count, leaves in ((5 + rows, [leaf]), (5 + 2 * rows, [leaf, leaf])):
        trace = 4.0 + rows * len(leaves)
        given = [Leaf(x, np.array([4]), wide(np.zeros(rows))) for x in leaves]
        for part, proved in ((0.99, False), (1.25, True)):
            core = np.diag([2.0 * (count + 1) * unit * trace * part, 1.0, 1.0, 1.0, 1.0])
            assert Arrow(core, given, wide(np.zeros(5))).not_negative(1) == proved, (count, part)
