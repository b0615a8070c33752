"""The quadratic form in z = (v, delta x v / R) of one hidden layer, with all of its matrices in pairs of units (see `taylor`).

Multipliers are those that keep that: Lam without entries between groups, and A_k with entries (a, b) where k, a and b are in two
groups at most, and the node of k and a meets b.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator

from .intervals import gamma
from .taylor_extreme import SURPLUS, extreme
from .taylor_multipliers import TaylorMultipliers
from .taylor_one_layer import UnitExpansion
from .taylor_pairs import Nodes, PairMatrix, PairSides, PairSystem
from .taylor_room import Room
from .taylor_top import Least, State, Top

FloatArray = npt.NDArray[np.float64]


class PairTurns:
    """A_k as a vector: for all k the entries (a, b), a < b, of every group; and those of two groups, with k in that of a."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        one, groups = nodes.one, nodes.groups
        self._low, self._high = np.triu_indices(one, 1)
        self._shapes = (groups, one, groups, self._low.size), (groups, one, one, groups, one)
        self._apart = ~np.eye(groups, dtype=bool)[:, None, None, :, None]
        self.count = sum(int(np.prod(shape)) for shape in self._shapes)

    def sides(self, turned: FloatArray) -> PairSides:
        """With rows (k, a) and columns b."""
        nodes, one = self.nodes, self.nodes.one
        size = int(np.prod(self._shapes[0]))
        within, across = turned[:size].reshape(self._shapes[0]), turned[size:].reshape(self._shapes[1]) * self._apart
        whole = np.zeros((*self._shapes[0][:3], one, one))
        whole[..., self._low, self._high] = within
        whole[..., self._high, self._low] = -within
        for g in range(nodes.groups):
            across[g, :, :, g] += whole[g, :, g]
        high, low = nodes.pairs.T
        leaves = np.zeros((len(high), 2, one, one, 2, one))
        leaves[:, 0, :, :, 1] = whole[high, :, low]
        leaves[:, 1, :, :, 0] = whole[low, :, high]
        leaves[:, 0, :, :, 0] = -across[high, :, :, low].swapaxes(2, 3)
        leaves[:, 1, :, :, 1] = -across[low, :, :, high].swapaxes(2, 3)
        return PairSides(nodes, across.reshape(nodes.groups, nodes.rows, -1), leaves.reshape(len(high), 2 * nodes.rows, -1))

    def slopes(self, by: PairSides) -> FloatArray:
        """The derivative of <sides(turned), by> in ``turned``."""
        nodes, one = self.nodes, self.nodes.one
        across = by.core.reshape(self._shapes[1]).copy()
        leaves = by.leaves.reshape(-1, 2, one, one, 2, one)
        high, low = nodes.pairs.T
        whole = np.zeros((*self._shapes[0][:3], one, one))
        whole[high, :, low] = leaves[:, 0, :, :, 1]
        whole[low, :, high] = leaves[:, 1, :, :, 0]
        for g in range(nodes.groups):
            whole[g, :, g] = across[g, :, :, g]
        across[high, :, :, low] -= leaves[:, 0, :, :, 0].swapaxes(2, 3)
        across[low, :, :, high] -= leaves[:, 1, :, :, 1].swapaxes(2, 3)
        within = whole[..., self._low, self._high] - whole[..., self._high, self._low]
        return np.concatenate([within.ravel(), (across * self._apart).ravel()])


class PairForm(Top):
    """The quadratic form in z, for any choice of such multipliers.

    Numbers of v are in the network's order in what `Top` has, and in that of the groups elsewhere.
    """

    order = 3

    def __init__(self, found: UnitExpansion, room: Room, radius: float) -> None:
        assert room.direction is None
        super().__init__(
            (found.residual, found.squares), found.units, found.places, radius, room.reach, found.tails.sizes()
        )  # fmt: skip
        self.lowered, self.left_out = found.lowered, found.left_out
        self.nodes, self.permutation = found.layout.nodes, found.layout.order
        self.tails, self.gram = found.tails.matrices(), found.cubic.pairs()
        self.halves = tuple(PairSides.of(self.nodes, part.half, self.permutation) for part in self.affine)
        assert all(sides.count == np.count_nonzero(part.half) for sides, part in zip(self.halves, self.affine, strict=True))
        self.turns = PairTurns(self.nodes)
        self.cubic_terms = found.cubic.columns
        self.cubic_size = float(np.sqrt(self.gram.trace)) * (1.0 + gamma(self.cubic_terms))
        self.most = np.ones(self.nodes.groups)

    @property
    def finite(self) -> bool:
        """Whether no number overflowed."""
        parts = [x for part in self.affine for x in (part.head, part.half, part.rest)]
        return all(np.isfinite(x).all() for x in parts) and all(x.finite for x in (*self.tails, self.gram))

    @property
    def identities(self) -> FloatArray:
        """Multipliers (G, D, D) to begin with; slots that are not used have ones, too."""
        return np.stack([np.eye(self.nodes.one)] * self.nodes.groups)

    @property
    def unturned(self) -> FloatArray:
        """A_k = 0."""
        return np.zeros(self.turns.count)

    def in_groups(self, matrix: FloatArray) -> FloatArray:
        """A matrix (P, P) in the order of the groups."""
        return np.asarray(matrix[np.ix_(self.permutation, self.permutation)])

    def sides(self, state: State) -> PairSides:
        """R U."""
        turned = self.turns.sides(self.ball * state.turned)
        return turned.plus(self.ball, self.halves[0]).plus(self.ball * (1.0 - state.share), self.halves[1])

    def tail(self, state: State) -> PairMatrix:
        """R² times the tail less tau M M'/2."""
        area = self.ball**2
        found = self.tails[0].scaled(area)
        found.add(area * (1.0 - state.share), self.tails[1])
        assert state.tau is not None
        found.add(-0.5 * area * state.tau, self.gram)
        return found

    def half_size(self, share: float) -> float:
        """The spectral norm of R (half + …), as (P², P)."""
        sides = self.halves[0].plus(1.0 - share, self.halves[1])
        return self.ball * float(np.sqrt(max(0.0, float(np.linalg.eigvalsh(sides.square())[-1]))))

    def first_tau(self) -> float:
        """What makes both parts of the cubic term equal in size, for the largest singular value of M."""
        largest = float(np.sqrt(max(0.0, extreme(self._operator(self.gram), "LA"))))
        return self.tau_for(largest)

    def least_multiple(self, state: State, lams: FloatArray) -> float:
        """The least part of multipliers, positive definite ones, for a positive semi-definite tail; infinite if none is."""
        tail = self.tail(state)
        if not (np.isfinite(lams).all() and tail.finite):
            return np.inf
        values, vectors = np.linalg.eigh(lams)
        roots = (vectors / np.sqrt(values)[:, None]) @ vectors.transpose(0, 2, 1)
        return max(0.0, -extreme(self._operator(tail, roots), "SA") * SURPLUS)

    def least(self, state: State, lams: FloatArray) -> Least | None:
        """The form's least over the rest of z, in the order of the groups; None where there is none."""
        tail = self.tail(state)
        tail.add_spread(lams)
        system = PairSystem(tail, self.sides(state))
        if system.failed:
            return None
        schur = self.in_groups(self.head(state)) - self.together(lams) + system.schur

        def turning(v: FloatArray) -> float:
            padded = np.concatenate([v, np.zeros(self.nodes.slots - self.nodes.size)])
            return self.gram.form(*system.rest(padded[:, None]))

        return Least(schur, turning) if np.isfinite(schur).all() else None

    def together(self, lams: FloatArray) -> FloatArray:
        """Lam (P, P)."""
        nodes, one = self.nodes, self.nodes.one
        found = np.zeros((nodes.slots,) * 2)
        for g in range(nodes.groups):
            found[g * one : (g + 1) * one, g * one : (g + 1) * one] = lams[g]
        return found[: nodes.size, : nodes.size]

    def _in_network(self, lams: FloatArray) -> FloatArray:
        """The same in the network's order."""
        back = np.argsort(self.permutation)
        return np.asarray(self.together(lams)[np.ix_(back, back)])

    def dense(self, state: State) -> State:
        """The same choice for `Lifted`."""
        factors, floors = (self._in_network(blocks)[None] for blocks in (state.factors, state.floors))
        turned = self.turns.sides(state.turned).dense(self.permutation)
        return replace(state, factors=factors, floors=floors, turned=turned, most=np.ones(1))

    def multipliers(self, state: State, lams: FloatArray, kept: FloatArray) -> TaylorMultipliers:
        """As a certificate keeps them."""
        turned = self.turns.sides(state.turned).dense(self.permutation)
        return TaylorMultipliers(
            self._in_network(lams), turned, state.share, state.tau, state.weights, self.lowered, kept, by_units=True
        )

    def _operator(self, matrix: PairMatrix, roots: FloatArray | None = None) -> LinearOperator:
        """The matrix, scaled on both sides by I x roots."""
        count = self.nodes.slots**2

        def product(x: FloatArray) -> FloatArray:
            scaled = x.ravel() if roots is None else self._scaled(x.ravel(), roots)
            found = matrix.times(scaled)
            return found if roots is None else self._scaled(found, roots)

        return LinearOperator((count, count), matvec=product, dtype=np.float64)

    def _scaled(self, x: FloatArray, roots: FloatArray) -> FloatArray:
        """(I x roots) x, for nodes one after the other, those of the core first."""
        nodes, one = self.nodes, self.nodes.one
        inner = nodes.inner
        core = np.matmul(x[:inner].reshape(-1, one, one), roots)
        of_second = roots[nodes.pairs[:, ::-1].ravel()]
        return np.concatenate([core.ravel(), np.matmul(x[inner:].reshape(-1, one, one), of_second).ravel()])
