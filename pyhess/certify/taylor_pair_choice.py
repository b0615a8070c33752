"""Looking for good multipliers of the form in z in pairs of units, for `taylor_choice`: a step has H³ D⁶ multiplications."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from .taylor_pair_form import PairForm
from .taylor_pairs import PairSides, PairSystem
from .taylor_top import State
from .taylor_variables import FAR, Scalars, weights_of

FloatArray = npt.NDArray[np.float64]

#: Eigenvectors of less weight, relative to the largest, do not count: those of eigenvalues near zero, which are many.
_LIGHT = 1e-4


class ByPairs:
    """Minus the smoothed smallest eigenvalue for multipliers, A, log w, the logit of eta and log tau, with its gradient."""

    def __init__(self, form: PairForm, start: State) -> None:
        self.form, self.start, self.nodes = form, start, form.nodes
        #: A parameter of every group of weights.
        self.ones = np.unique(form.groups, return_index=True)[1]
        self.unit = float(np.sqrt((start.factors**2).sum() / form.size))
        self.least = 1e-9 * self.unit**2
        self.scale = np.sqrt(2.0) * self.unit**2 / form.ball  # as of two independent halves
        self.scalars = Scalars(form.size, start)
        area = form.ball**2
        inner = self.nodes.inner
        #: What eta and tau take from the tail; of the squares that is in the core alone.
        self.given_up = area * form.tails[1].core.reshape(inner, inner)
        self.gram, self.fixed = form.gram.scaled(0.5 * area), form.tails[0].scaled(area)
        self.fixed.add(area, form.tails[1])
        #: Where the form has no least value: line searches need numbers.
        self.beyond = -np.inf

    def first(self) -> FloatArray:
        """Where the start is."""
        start = self.start
        turned, logarithms = start.turned / self.scale, np.log(start.weights[self.ones])
        return np.concatenate([(start.factors / self.unit).ravel(), turned, logarithms, self.scalars.first()])

    def split(self, z: FloatArray) -> State:
        """The choice."""
        shape = self.start.factors.shape
        ends = np.cumsum([self.start.factors.size, self.start.turned.size, len(self.ones)])
        factors, turned, logarithms, rest = np.split(z, ends)
        share, tau = self.scalars.split(rest)
        weights = weights_of(logarithms)[self.form.groups]
        factors = self.unit * factors.reshape(shape)
        return replace(self.start, factors=factors, turned=self.scale * turned, weights=weights, share=share, tau=tau)

    def value(self, z: FloatArray, smoothing: float) -> tuple[float, FloatArray]:
        """The value and its gradient."""
        form, nodes = self.form, self.nodes
        state = self.split(z)
        lams = state.factors @ state.factors.transpose(0, 2, 1) + state.floors
        tail = self.fixed.scaled(1.0)
        tail.core.reshape(self.given_up.shape)[:] -= state.share * self.given_up
        assert state.tau is not None
        tail.add(-state.tau, self.gram)
        tail.add_spread(lams + self.least * np.eye(nodes.one))
        system = PairSystem(tail, form.sides(state))
        if system.failed:
            return self.beyond, np.zeros_like(z)
        total = form.in_groups(form.head(state)) - form.together(lams) + system.schur
        try:
            values, vectors = eigh(0.5 * (total + total.T))
        except (np.linalg.LinAlgError, ValueError):  # no convergence, or not finite
            return self.beyond, np.zeros_like(z)
        weight = np.exp((values[0] - values) / smoothing)
        whole = weight.sum()
        heavy = weight > _LIGHT
        roots = np.zeros((nodes.slots, int(heavy.sum())))
        roots[: nodes.size] = vectors[:, heavy] * np.sqrt(weight[heavy] / whole)
        found = float(smoothing * np.log(whole) - values[0])
        self.beyond = max(self.beyond, FAR * abs(found))
        return found, self._gradient(state, system, roots)

    def _gradient(self, state: State, system: PairSystem, roots: FloatArray) -> FloatArray:
        """Minus the derivative of the eigenvalues' mean, whose density is roots roots'."""
        form, size = self.form, self.nodes.size
        core, leaves = system.rest(roots)
        moved = self._moved(core, leaves, roots)
        density = np.empty((size, size))
        density[np.ix_(form.permutation, form.permutation)] = roots[:size] @ roots[:size].T
        into_lams = self._into_lams(core, leaves, roots)
        return np.concatenate([
            (self.unit * ((into_lams + into_lams.transpose(0, 2, 1)) @ state.factors)).ravel(),
            2.0 * form.ball * self.scale * form.turns.slopes(moved),
            np.bincount(form.groups, weights=form.rests(state.share).slopes(density, state.weights)),
            self.scalars.slopes(*self._slopes(state, density, moved, core, leaves), state.share),
        ])  # fmt: skip

    def _moved(self, core: FloatArray, leaves: FloatArray, roots: FloatArray) -> PairSides:
        """The rest of z times the density."""
        nodes = self.nodes
        near = roots.reshape(nodes.groups, nodes.one, -1)[nodes.pairs].reshape(len(nodes.pairs), 2 * nodes.one, -1)
        return PairSides(nodes, core @ roots.T, leaves @ near.swapaxes(1, 2))

    def _into_lams(self, core: FloatArray, leaves: FloatArray, roots: FloatArray) -> FloatArray:
        """Minus the derivatives of the eigenvalue in the blocks of Lam (G, D, D)."""
        nodes, one = self.nodes, self.nodes.one
        own = roots.reshape(nodes.groups, one, -1)
        found = own @ own.swapaxes(1, 2)
        inner = core.reshape(nodes.groups, one, one, -1).swapaxes(1, 2).reshape(nodes.groups, one, -1)
        found -= inner @ inner.swapaxes(1, 2)
        outer = leaves.reshape(-1, 2, one, one, leaves.shape[2]).swapaxes(2, 3).reshape(len(leaves), 2, one, -1)
        np.subtract.at(found, nodes.pairs[:, ::-1], outer @ outer.swapaxes(2, 3))
        return np.asarray(found)

    def _slopes(
        self, state: State, density: FloatArray, moved: PairSides, core: FloatArray, leaves: FloatArray
    ) -> tuple[float, float]:
        """The derivatives in eta and, relative to it, tau."""
        form = self.form
        head = float((density * (form.affine[1].head - form.squares_rests.matrix(state.weights) / state.share**2)).sum())
        half, flat = form.ball * form.halves[1].dot(moved), core.reshape(len(self.given_up), -1)
        assert state.tau is not None
        of_tau = -form.cubic(state) + state.tau * self.gram.form(core, leaves)
        return head - 2.0 * half + float(np.vdot(self.given_up @ flat, flat)), of_tau
