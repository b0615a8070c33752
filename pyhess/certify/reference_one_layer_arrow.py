"""The matrix that proves the bound by the Taylor polynomial, unit by unit, without what is zero in it, for checking certificates.

A node (g, h) is all rows (k, a) of u = delta x v / R with k in the group g and a in h. Every term of the polynomials has indices
in at most two groups. Where the terms of `ThirdOrder` are not averaged, M has rows of nodes (g, g) alone in the columns of one
unit, and of two groups in those of these. So, if Lam has no entry between two groups, and A_k none where k, a and b are in three,

    the leaf {(g, h), (h, g)}, g < h,    is coupled with    itself, (g, g), (h, h), and v in g and h

alone. The core is v and the nodes (g, g). That is an `Arrow`, a rearrangement of the whole matrix of `reference_cubic_proof`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise
from time import monotonic

import numpy as np
import numpy.typing as npt

from .reference_block_form import BlockForm
from .reference_changes import Changes, grown
from .reference_cubic_matrix import CubicTerm, both, from_lower, rounded, roundings, top_entries
from .reference_definite import Arrow, Leaf
from .reference_interval import Wide, wide, zeros
from .reference_one_layer_third import Gram, ThirdOrder
from .reference_unit_groups import Groups, Node
from .slab_multipliers import Slab
from .taylor_multipliers import TaylorMultipliers

FloatArray = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


def in_blocks(groups: Groups, multipliers: TaylorMultipliers) -> bool:
    """Whether Lam has no entry between two groups, and A none in three."""
    holder = groups.holder
    between = holder[:, None] != holder
    if from_lower(multipliers.lam)[between].any():
        return False
    for own, matrix in zip(holder, multipliers.turned, strict=True):
        other = holder != own
        if matrix[between & other[:, None] & other].any():
            return False
    return True


def arrow_matrix(
    whole: BlockForm, squares: BlockForm, third: ThirdOrder, changes: Changes, radius: float, claim: float, slab: Slab,
    deadline: float,
) -> Arrow | None:  # fmt: skip
    """The matrix, for changes without an axis; None if the deadline passes."""
    made, groups = _Arrow(whole, squares, third, changes, radius, slab), third.groups
    for unit in range(third.units):
        if monotonic() > deadline:
            return None
        made.add_columns(unit)
    for one, other in combinations(range(len(groups.all)), 2):
        if monotonic() > deadline:
            return None
        made.add_leaf(one, other)
    return made.completed(claim)


class _Arrow:
    def __init__(
        self, whole: BlockForm, squares: BlockForm, third: ThirdOrder, changes: Changes, radius: float, slab: Slab
    ) -> None:
        self._whole, self._squares, self._third, self._changes, self._slab = whole, squares, third, changes, slab
        self._radius, self._groups = radius, third.groups
        size, multipliers = third.size, slab.taylor
        assert multipliers.tau is not None
        self._tau, self._ball = multipliers.tau, wide(radius)
        self._kept, self._lam = 1.0 - wide(multipliers.share), from_lower(multipliers.lam)
        #: The nodes (g, g) after v.
        ends = size + np.cumsum([0, *(len(places) ** 2 for places in self._groups.all)])
        self._own = [np.arange(low, high) for low, high in pairwise(ends)]
        self._core, self._error, self._leaves = np.zeros((ends[-1],) * 2), zeros(int(ends[-1])), list[Leaf]()
        self._gram = Gram(np.zeros((ends[-1] - size,) * 2))

    def add_columns(self, unit: int) -> None:
        """M M' of the columns of one unit, and of it and a bias."""
        for nodes, blocks in self._third.of_one(unit):
            there = np.concatenate([self._own[g] for g, _ in nodes]) - self._third.size
            self._gram.add(there, np.concatenate(blocks))

    def add_leaf(self, g: int, h: int) -> None:
        """The rows of (g, h) and (h, g)."""
        leaf, own = [(g, h), (h, g)], [(g, g), (h, h)]
        ends = dict(zip(leaf + own, np.cumsum([self._groups.count(node) for node in leaf + own]), strict=True))
        count, total = int(ends[h, g]), int(ends[h, h])
        gram = Gram(np.zeros((total, total)))
        if h < self._third.units:
            for nodes, blocks in self._third.of_two(g, h):
                there = [np.arange(ends[node] - len(rows), ends[node]) for node, rows in zip(nodes, blocks, strict=True)]
                gram.add(np.concatenate(there), np.concatenate(blocks))
        core = np.concatenate([self._own[g], self._own[h]])
        self._gram.add_part(core - self._third.size, gram, np.arange(count, total))
        tail, off = self._tail(leaf, leaf + own, gram.term(self._changes, self._tau), slice(0, count))
        v = np.concatenate([self._groups.all[g], self._groups.all[h]])
        half, more = (x[:, v] for x in self._half(leaf))
        core, off = np.concatenate([core, v]), np.concatenate([off, more], axis=1)
        self._error[core] += grown(off[:, count:].sum(axis=0), count)
        self._leaves.append(Leaf(np.concatenate([tail, half], axis=1), core, grown(off.sum(axis=1), off.shape[1])))

    def completed(self, claim: float) -> Arrow:
        """With the core, when all else is there."""
        size, groups = self._third.size, range(len(self._groups.all))
        term, own = self._gram.term(self._changes, self._tau), [(g, g) for g in groups]
        given = self._changes, self._radius, claim, self._slab
        exact, sizes = top_entries(self._whole, self._squares, term.floor, *given)
        self._core[:size, :size], off = rounded(exact, sizes, roundings(size))
        self._error[:size] += grown(off.sum(axis=1), size)
        for node, places in zip(own, self._own, strict=True):
            rows = slice(int(places[0]), int(places[-1]) + 1)
            tail, off = self._tail([node], own, term, slice(rows.start - size, rows.stop - size))
            half, more = self._half([node])
            self._core[rows, size:], self._core[rows, :size], self._core[:size, rows] = tail, half, half.T
            self._error[rows] += grown(off.sum(axis=1) + more.sum(axis=1), len(self._core))
            self._error[:size] += grown(more.sum(axis=0), len(places))
        return Arrow(self._core, self._leaves, grown(self._error, len(self._leaves) + len(own)))

    def _tail(self, nodes: list[Node], others: list[Node], term: CubicTerm, rows: slice) -> tuple[FloatArray, Wide]:
        """R² (tail - tau/2 M M') + 1 x Lam, rows of some nodes and columns of others, and what each entry is off by.

        These rows are those of the term.
        """
        area: Wide = self._ball * self._ball
        sources = self._whole.tail_block, self._squares.tail_block, self._spread
        one, other, spread = (_joined(self._groups, nodes, others, block) for block in sources)
        tail, sizes = both(one, other, self._kept)
        bent, squared = 0.5 * term.tau * area, wide(term.squared[rows])
        exact = area * tail + spread - bent * squared
        sizes = area * sizes + np.abs(spread) + bent * np.abs(squared)
        return rounded(exact, sizes, roundings(self._third.size), bent * term.blur_of(rows))

    def _spread(self, node: Node, other: Node) -> FloatArray | None:
        """1 x Lam."""
        k, a = (self._groups.all[group] for group in node)
        if node != other:
            return None
        found: FloatArray = np.kron(np.eye(len(k)), self._lam[np.ix_(a, a)]).astype(np.float64)
        return found

    def _half(self, nodes: list[Node]) -> tuple[FloatArray, Wide]:
        """R (half_k + A_k), rows of some nodes, and what each entry is off by."""
        sources = self._whole.half_rows, self._squares.half_rows, self._turned
        one, other, turned = (np.concatenate([rows(node) for node in nodes]) for rows in sources)
        half, sizes = both(one, other, self._kept)
        return rounded(self._ball * (half + turned), self._ball * (sizes + np.abs(turned)), roundings(self._third.size))

    def _turned(self, node: Node) -> Wide:
        """A, rows (k, a) of a node and P columns b."""
        (k, a), given = (self._groups.all[group] for group in node), self._slab.taylor.turned
        straight, crossed = wide(given[k[:, None], a]), wide(given[k][:, :, a].swapaxes(1, 2))
        found: Wide = (0.5 * (straight - crossed)).reshape(-1, self._third.size)
        return found


def _joined(
    groups: Groups, nodes: list[Node], others: list[Node], block: Callable[[Node, Node], FloatArray | None]
) -> Wide:  # fmt: skip
    """The matrix of blocks with rows of some nodes and columns of others."""
    down, along = (np.cumsum([0, *(groups.count(node) for node in of)]) for of in (nodes, others))
    found = np.zeros((down[-1], along[-1]))
    for i, node in enumerate(nodes):
        for j, other in enumerate(others):
            numbers = block(node, other)
            if numbers is not None:
                found[down[i] : down[i + 1], along[j] : along[j + 1]] = numbers
    return wide(found)
