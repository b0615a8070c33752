"""Matrices of the rows (k, a) of delta x v whose entries have indices in two units at most, in blocks.

Groups are the hidden units, of D parameters each, and the output biases. The rows with k in g and a in h are the node (g, h). A
node (g, h) of two groups meets only itself, (h, g), (g, g) and (h, h); all nodes (g, g) may meet. So with the leaves
{(g, h), (h, g)} eliminated first, a Cholesky factorisation fills nothing in beyond the core of all (g, g): H³ D⁶ products in the
place of H⁶ D⁶. A multiplier without entries between groups keeps that, and so does a right side of which the node (g, h) has only
columns in g and h.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dpotrf, dtrtrs

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Nodes:
    """``groups`` G of D = ``one`` slots each, of which the first ``size`` are parameters; the last group may have unused ones."""

    groups: int
    one: int
    size: int

    @property
    def slots(self) -> int:
        """Parameters with the unused slots."""
        return self.groups * self.one

    @property
    def rows(self) -> int:
        """Rows of a node."""
        return self.one**2

    @property
    def inner(self) -> int:
        """Rows of the core."""
        return self.groups * self.rows

    @property
    def elimination_work(self) -> float:
        """Multiplications of a factorisation and of its solutions for the numbers of v, roughly."""
        leaf, core = 2.0 * self.rows, float(self.inner + self.size)
        return len(self.pairs) * (3.0 * leaf**3 + 2.0 * leaf**2 * self.size + 2e6) + core**3 / 3.0

    @cached_property
    def pairs(self) -> IntArray:
        """The pairs (j, l) of groups (n, 2), l < j; the leaf of one has the rows of the node (j, l) and then those of (l, j)."""
        high, low = np.tril_indices(self.groups, -1)
        return np.stack([high, low], axis=1)

    def pair(self, g: int, h: int) -> tuple[int, slice]:
        """Where the node (g, h) of two groups is: its pair, and its rows in the leaf."""
        high, low, first = max(g, h), min(g, h), int(g < h)
        return high * (high - 1) // 2 + low, slice(first * self.rows, (first + 1) * self.rows)

    @cached_property
    def couplings(self) -> IntArray:
        """Of every pair the core's rows and then v's slots, in the core with v after it, that its leaf meets."""
        found = []
        for pair in self.pairs:
            cores = [g * self.rows + np.arange(self.rows) for g in pair]
            places = [self.inner + g * self.one + np.arange(self.one) for g in pair]
            found.append(np.concatenate([*cores, *places]))
        return np.array(found, dtype=np.int64).reshape(len(self.pairs), 2 * (self.rows + self.one))


@dataclass(eq=False)
class PairMatrix:
    """A symmetric matrix: the ``core`` (G, D², G, D²), ``leaves`` (n, 2 D², 2 D²), ``crossed`` (n, 2 D², 2 D²) onto the core."""

    nodes: Nodes
    core: FloatArray = field(repr=False)
    leaves: FloatArray = field(repr=False)
    crossed: FloatArray = field(repr=False)

    @staticmethod
    def zero(nodes: Nodes) -> PairMatrix:
        """Zeros."""
        groups, rows, count = nodes.groups, nodes.rows, len(nodes.pairs)
        blocks = (np.zeros((count, 2 * rows, 2 * rows)) for _ in range(2))
        return PairMatrix(nodes, np.zeros((groups, rows, groups, rows)), *blocks)

    @property
    def parts(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """All blocks; entries of the last are there twice."""
        return self.core, self.leaves, self.crossed

    def scaled(self, factor: float) -> PairMatrix:
        """A multiple."""
        return PairMatrix(self.nodes, *(factor * part for part in self.parts))

    def add(self, factor: float, other: PairMatrix) -> None:
        """Add a multiple of another."""
        for part, more in zip(self.parts, other.parts, strict=True):
            part += factor * more

    def add_node(self, row: tuple[int, int], column: tuple[int, int], block: FloatArray) -> None:
        """Add a block (D², D²) at two nodes, and transposed, half of it each time; the column's is (g, g) or as the row's."""
        half = 0.5 * block
        if row[0] == row[1]:
            self.core[row[0], :, column[0], :] += half
            self.core[column[0], :, row[0], :] += half.T
            return
        at, own = self.nodes.pair(*row)
        if row == column:
            self.leaves[at, own, own] += half + half.T
        else:
            there = self.nodes.pair(column[0], sum(row) - column[0])[1]
            self.crossed[at, own, there] += half

    def symmetrised(self) -> PairMatrix:
        """With the mean of core and leaves and their transposes, which sums of products are up to rounding."""
        core = 0.5 * (self.core + self.core.transpose(2, 3, 0, 1))
        return PairMatrix(self.nodes, core, 0.5 * (self.leaves + self.leaves.swapaxes(1, 2)), self.crossed)

    def add_spread(self, lams: FloatArray) -> None:
        """Add I x Lam, for the blocks (G, D, D) of Lam."""
        nodes, one = self.nodes, self.nodes.one
        inner = self.core.reshape((nodes.groups, one, one) * 2)
        for g in range(nodes.groups):
            for k in range(one):
                inner[g, k, :, g, k, :] += lams[g]
        leaves = self.leaves.reshape((-1, *(2, one, one) * 2))
        high, low = nodes.pairs.T
        for k in range(one):
            leaves[:, 0, k, :, 0, k, :] += lams[low]
            leaves[:, 1, k, :, 1, k, :] += lams[high]

    @property
    def finite(self) -> bool:
        """Whether no number overflowed."""
        return all(bool(np.isfinite(part).all()) for part in self.parts)

    @property
    def trace(self) -> float:
        """The sum of the diagonal's sizes."""
        core = self.core.reshape((self.nodes.inner,) * 2)
        return float(np.abs(np.diag(core)).sum() + np.abs(np.diagonal(self.leaves, axis1=1, axis2=2)).sum())

    def times(self, x: FloatArray) -> FloatArray:
        """The product with a vector, the core's nodes first and then the leaves."""
        nodes, inner = self.nodes, self.nodes.inner
        core, leaves = x[:inner], x[inner:].reshape(len(nodes.pairs), -1)
        near = core.reshape(nodes.groups, -1)[nodes.pairs].reshape(leaves.shape)
        onto = np.matmul(leaves[:, None], self.crossed).reshape(-1, 2, nodes.rows)
        found = (self.core.reshape(inner, inner) @ core).reshape(nodes.groups, -1)
        np.add.at(found, nodes.pairs, onto)
        beyond = np.matmul(self.leaves, leaves[:, :, None])[..., 0] + np.matmul(self.crossed, near[:, :, None])[..., 0]
        return np.concatenate([found.ravel(), beyond.ravel()])

    def form(self, core: FloatArray, leaves: FloatArray) -> float:
        """The sum of its values at vectors: (G, D², r) at the core's nodes, (n, 2 D², r) at those of the leaves."""
        nodes, inner = self.nodes, self.nodes.inner
        flat = core.reshape(inner, -1)
        near = core[nodes.pairs].reshape(len(nodes.pairs), 2 * nodes.rows, -1)
        found = float(np.vdot(self.core.reshape(inner, inner) @ flat, flat))
        return found + float(np.vdot(np.matmul(self.leaves, leaves) + 2.0 * np.matmul(self.crossed, near), leaves))

    def dense(self, order: IntArray) -> FloatArray:
        """The whole matrix (P², P²), for parameters that are in this order here."""
        nodes, size = self.nodes, self.nodes.size
        found = np.zeros((nodes.slots,) * 4)
        one = nodes.one
        own = [slice(g * one, (g + 1) * one) for g in range(nodes.groups)]
        shape = (one,) * 4
        for g in range(nodes.groups):
            for h in range(nodes.groups):
                found[own[g], own[g], own[h], own[h]] = self.core[g, :, h, :].reshape(shape)
        for at, (j, l) in enumerate(nodes.pairs):  # noqa: E741 - as in the formulas
            leaf = self.leaves[at].reshape(2, *shape[:2], 2, *shape[:2])
            crossed = self.crossed[at].reshape(2, *shape[:2], 2, *shape[:2])
            both = ((own[j], own[l]), (own[l], own[j]))
            for p, (g, h) in enumerate(both):
                for q, (e, f) in enumerate(both):
                    found[g, h, e, f] = leaf[p, :, :, q]
                for q, e in enumerate((own[j], own[l])):
                    found[g, h, e, e] = crossed[p, :, :, q]
                    found[e, e, g, h] = crossed[p, :, :, q].transpose(2, 3, 0, 1)
        back = np.argsort(order)
        found = found[:size, :size, :size, :size]
        return np.ascontiguousarray(found[np.ix_(back, back, back, back)]).reshape(size**2, size**2)


@dataclass(eq=False)
class PairSides:
    """Right sides (P², P), one for every v_b: at the ``core`` (G, D², P slots), and at the ``leaves`` (n, 2 D², 2 D)."""

    nodes: Nodes
    core: FloatArray = field(repr=False)
    leaves: FloatArray = field(repr=False)

    @staticmethod
    def zero(nodes: Nodes) -> PairSides:
        """Zeros."""
        leaves = np.zeros((len(nodes.pairs), 2 * nodes.rows, 2 * nodes.one))
        return PairSides(nodes, np.zeros((nodes.groups, nodes.rows, nodes.slots)), leaves)

    @staticmethod
    def of(nodes: Nodes, half: FloatArray, order: IntArray) -> PairSides:
        """From half (P, P, P), k, a and b, for parameters that are in this order here; what it has elsewhere is left out."""
        found, one = PairSides.zero(nodes), nodes.one
        padded = np.zeros((nodes.slots,) * 3)
        size = nodes.size
        padded[:size, :size, :size] = half[np.ix_(order, order, order)]
        own = [slice(g * one, (g + 1) * one) for g in range(nodes.groups)]
        for g in range(nodes.groups):
            found.core[g] = padded[own[g], own[g]].reshape(nodes.rows, -1)
        for at, (j, l) in enumerate(nodes.pairs):  # noqa: E741 - as in the formulas
            for row, (g, h) in enumerate(((j, l), (l, j))):
                block = padded[own[g], own[h]]
                found.leaves[at, row * nodes.rows : (row + 1) * nodes.rows] = np.concatenate(
                    [block[:, :, own[j]], block[:, :, own[l]]], axis=2
                ).reshape(nodes.rows, -1)
        return found

    def plus(self, factor: float, other: PairSides) -> PairSides:
        """With a multiple of another."""
        return PairSides(self.nodes, self.core + factor * other.core, self.leaves + factor * other.leaves)

    def square(self) -> FloatArray:
        """Its transpose times itself (P, P)."""
        nodes, core = self.nodes, self.core.reshape(-1, self.nodes.slots)
        found = core.T @ core
        for leaf, places in zip(self.leaves, nodes.couplings, strict=True):
            at = places[2 * nodes.rows :] - nodes.inner
            found[np.ix_(at, at)] += leaf.T @ leaf
        return np.asarray(found[: nodes.size, : nodes.size])

    @property
    def count(self) -> int:
        """Entries that are not zero."""
        return int(np.count_nonzero(self.core) + np.count_nonzero(self.leaves))

    @property
    def length(self) -> float:
        """The square root of the sum of all squares."""
        return float(np.sqrt(self.dot(self)))

    def dot(self, other: PairSides) -> float:
        """The sum of all products of entries."""
        return float(np.vdot(self.core, other.core) + np.vdot(self.leaves, other.leaves))

    def dense(self, order: IntArray) -> FloatArray:
        """As (P, P, P), k, a and b."""
        nodes, one = self.nodes, self.nodes.one
        padded = np.zeros((nodes.slots,) * 3)
        own = [slice(g * one, (g + 1) * one) for g in range(nodes.groups)]
        for g in range(nodes.groups):
            padded[own[g], own[g]] = self.core[g].reshape(one, one, -1)
        for at, (j, l) in enumerate(nodes.pairs):  # noqa: E741 - as in the formulas
            blocks = self.leaves[at].reshape(2, one, one, 2, one)
            for row, (g, h) in enumerate(((j, l), (l, j))):
                for column, b in enumerate((j, l)):
                    padded[own[g], own[h], own[b]] = blocks[row, :, :, column]
        back = np.argsort(order)
        return padded[np.ix_(back, back, back)]


class Eliminated:
    """The matrix without its leaves: Cholesky factors of these, and the core with v after it, less what they make of it."""

    def __init__(self, matrix: PairMatrix, sides: PairSides, top: FloatArray | None = None) -> None:
        """``top`` (P slots, P slots) is the form in v itself, zeros without; ``failed`` where a leaf is not positive definite."""
        nodes = matrix.nodes
        self.nodes = nodes
        inner, rows = nodes.inner, 2 * nodes.rows
        self.whole = np.zeros((inner + nodes.slots,) * 2)
        self.whole[:inner, :inner] = matrix.core.reshape(inner, inner)
        self.whole[:inner, inner:] = sides.core.reshape(inner, -1)
        self.whole[inner:, :inner] = self.whole[:inner, inner:].T
        if top is not None:
            self.whole[inner:, inner:] = top
        self.roots: list[FloatArray] = []
        self.solved: list[FloatArray] = []
        self.failed = False
        right = np.empty((rows, nodes.couplings.shape[1]), order="F")
        for at, places in enumerate(nodes.couplings):
            root, info = dpotrf(matrix.leaves[at].T, lower=1, clean=0)
            if info:
                self.failed = True
                return
            right[:, :rows], right[:, rows:] = matrix.crossed[at], sides.leaves[at]
            solved = dtrtrs(root, right, lower=1)[0]
            self.whole[np.ix_(places, places)] -= solved.T @ solved
            self.roots.append(root)
            self.solved.append(solved)


class PairSystem:
    """The least of z'[0, h'; h, W] z over the part of z beyond v, for W and h in pairs; ``failed`` where there is none.

    ``schur`` (P, P) is that form in v.
    """

    def __init__(self, matrix: PairMatrix, sides: PairSides) -> None:
        nodes = matrix.nodes
        self.nodes, self._eliminated = nodes, Eliminated(matrix, sides)
        self.failed, inner = self._eliminated.failed, nodes.inner
        if self.failed:
            return
        whole = self._eliminated.whole
        root, info = dpotrf(whole[:inner, :inner].T, lower=1, clean=0)
        self.failed = bool(info)
        if self.failed:
            return
        self._root, self._solved = root, dtrtrs(root, whole[:inner, inner:], lower=1)[0]
        schur = whole[inner:, inner:] - self._solved.T @ self._solved
        self.schur = 0.5 * (schur + schur.T)[: nodes.size, : nodes.size]

    def rest(self, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Minus where the least is for v (P slots, r): at the nodes of the core (G, D², r) and of the leaves (n, 2 D², r)."""
        nodes = self.nodes
        core = dtrtrs(self._root, self._solved @ v, lower=1, trans=1)[0]
        both = np.concatenate([-core, v])
        leaves = np.empty((len(nodes.pairs), 2 * nodes.rows, v.shape[1]))
        for at, places in enumerate(nodes.couplings):
            right = self._eliminated.solved[at] @ both[places]
            leaves[at] = dtrtrs(self._eliminated.roots[at], right, lower=1, trans=1)[0]
        return np.ascontiguousarray(core).reshape(nodes.groups, nodes.rows, -1), leaves
