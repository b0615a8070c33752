"""Looking for good multipliers of the form in z = (v, delta x v / R) that `taylor` proves bounds with.

The best Lam and A are looked for by a quasi-Newton method on the smallest eigenvalue of the form's Schur complement, smoothed,
which is concave in them, and in eta and tau, in rounds between which the floors change. Nothing here has to be exact: what this
ends with is proved by `taylor_proof`. So large systems are solved in single precision.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.linalg.blas import daxpy, saxpy

from .smoothed import least_smoothed
from .taylor_lifted import Lifted
from .taylor_pair_choice import ByPairs
from .taylor_pair_form import PairForm
from .taylor_systems import AnyFloats, precision, solution
from .taylor_top import Least, State
from .taylor_variables import FAR, Scalars, weights_of

FloatArray = npt.NDArray[np.float64]
#: The form with dense matrices, or in pairs of units.
Form: TypeAlias = Lifted | PairForm

#: Steps at most of the first rounds, the last of them for all others, with the smoothing of the smallest eigenvalue, relative to
#: it; and multiplications for all steps of one round, but for the fewest steps of polynomials of the second and the third order.
#: Short rounds, as what changes between them counts for more.
_STEPS, _STEP_WORK, _FEWEST = ((15, 0.5), (20, 0.1), (25, 0.03), (30, 0.005)), 1.5e11, {2: 20, 3: 10}
#: The same in pairs of units, where steps take less time the fewer eigenvalues are near the smallest.
_PAIR_STEPS = ((20, 0.1), (20, 0.05), (25, 0.02), (30, 0.005))
#: Steps and smoothings of cheap steps that go before where the others are expensive.
_ROUGH_STEPS, _ROUGH_SMOOTHINGS = 150, (0.5, 0.05)
#: Rounds towards weights to begin with; the least weight that is tried, relative to the largest.
_FIRST_ROUNDS, _FLOOR = 10, 0.3
#: Part of Lam that may be its floor in the next round.
_CROWDED = 0.97
#: Parts of tau that are tried where the floors take nearly all of Lam.
_SMALLER = (1.0, 0.8, 0.6, 0.4)
#: Shares of the squares that are given up for what their roots leave out: the first, and all that are tried.
_FIRST_SHARE, _SHARES = 0.2, (1e-9, 1e-7, 1e-5, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0)


def pair_steps(turn: int) -> tuple[int, float]:
    """Steps of the quasi-Newton method in a round, and the smoothing, in pairs of units."""
    return _PAIR_STEPS[min(turn, len(_PAIR_STEPS) - 1)]


def steps(size: int, order: int, turn: int) -> tuple[int, float]:
    """Steps of the quasi-Newton method in a round, and the smoothing."""
    most, smoothing = _STEPS[min(turn, len(_STEPS) - 1)]
    return min(most, max(_FEWEST[order], int(_STEP_WORK / one_step(size)))), smoothing


def one_step(size: int) -> float:
    """Multiplications, most of them for a Cholesky factorisation of P² rows."""
    return 0.4 * float(size) ** 6 + 8.0 * float(size) ** 5


def _weights(lifted: Form, vector: FloatArray) -> FloatArray:
    size = np.abs(vector) if lifted.places is None else lifted.places.sizes(vector)
    return np.maximum(size, _FLOOR * float(size.max()))


def promising(lifted: Form, known: float) -> State | None:
    """A choice to begin with, if what is left out alone does not take more than ``known``."""
    identities = lifted.identities
    state = State(
        np.sqrt(lifted.half_size(_FIRST_SHARE) + 1e-30) * identities,
        np.zeros_like(identities),
        lifted.unturned,
        _FIRST_SHARE,
        lifted.first_tau(),
        np.ones(lifted.size),
        lifted.most,
    )
    for _ in range(_FIRST_ROUNDS):
        head = lifted.head(state)
        if not np.isfinite(head).all():
            return None
        values, vectors = np.linalg.eigh(head)
        if values[0] > known:
            part = lifted.least_multiple(state, identities)
            return replace(state, floors=part * identities) if part < np.inf else None
        state = replace(state, weights=_weights(lifted, vectors[:, 0]))
    return None


def fitting(lifted: Form, start: State, cancelled: npt.NDArray[np.int32]) -> State | None:
    """A choice for something similar, a larger slab or the ball, with multipliers in between and large enough here."""
    lams = np.sqrt(lifted.most / start.most)[:, None, None] * start.lams
    part = lifted.least_multiple(start, lams)
    if part == np.inf:
        return None
    grown = replace(start, factors=np.zeros_like(lams), floors=max(1.0, part / _CROWDED) * lams, most=lifted.most)
    return renewed(lifted, grown, cancelled)


def renewed(lifted: Form, state: State, cancelled: npt.NDArray[np.int32], *, far: bool = True) -> State:
    """The same multipliers with a better tau, floors of their shapes and, if it may be ``far`` off, the best eta of some."""
    lams = state.lams

    def tried(share: float) -> tuple[float, Least | None]:
        found = lifted.least(replace(state, share=share), lams)
        return (-np.inf, None) if found is None else (float(np.linalg.eigvalsh(found.schur)[0]), found)

    # The bound is concave in eta; where the tail is not positive definite a smaller one may help.
    place = int(np.argmin(np.abs(np.log(np.array(_SHARES) / state.share))))
    best, least = now = tried(state.share)
    for step in (-1, 1) if far else ():
        while 0 <= place + step < len(_SHARES):
            if cancelled[0]:
                return state
            value, other = tried(_SHARES[place + step])
            if best > -np.inf and value <= best:
                break
            best, least, place = value, other, place + step
    if least is not now[1]:
        state = replace(state, share=_SHARES[place])
    if least is None:
        return state
    taus = _taus(lifted, state.tau, least, far=far)
    # The least multiple of the multipliers that will do, and what they have beyond.
    values, vectors = np.linalg.eigh(lams)
    values = np.maximum(values, 1e-9 * values[:, -1:])[:, None]
    shaped, roots = ((vectors * x) @ vectors.transpose(0, 2, 1) for x in (values, np.sqrt(values)))
    for tau in taus:
        trial = replace(state, tau=tau)
        part = lifted.least_multiple(trial, shaped)
        if part < _CROWDED:
            break
    return replace(trial, floors=part * shaped, factors=np.sqrt(max(1e-3, 1.0 - part)) * roots)


def _taus(lifted: Form, now: float | None, least: Least, *, far: bool) -> list[float | None]:
    """The best tau, and ones between the present and that, or smaller ones; nothing to choose without a cubic term."""
    if now is None:
        return [None]
    if not far:
        return [part * now for part in _SMALLER]
    turning = least.turning(np.linalg.eigh(least.schur)[1][:, 0])
    ideal = lifted.pair / lifted.ball / np.sqrt(turning) if turning > 0.0 else now
    return [now * (ideal / now) ** power for power in (1.0, 0.5, 0.25, 0.0)]


def begun(lifted: Lifted, state: State, cancelled: npt.NDArray[np.int32]) -> State:
    """A better choice by cheap steps, from one for a ball."""
    for smoothing in _ROUGH_SMOOTHINGS:
        state = _ascended(_Roughly(lifted, state), _ROUGH_STEPS, smoothing, cancelled)
    return renewed(lifted, state, cancelled)


def maximised(lifted: Form, start: State, turn: int, cancelled: npt.NDArray[np.int32]) -> State:
    """A choice near the best, or as far as that got until it was cancelled."""
    if isinstance(lifted, PairForm):
        return _ascended(ByPairs(lifted, start), *pair_steps(turn), cancelled)
    return _ascended(_Exactly(lifted, start), *steps(lifted.size, lifted.order, turn), cancelled)


def _ascended(form: _Roughly | ByPairs, most: int, smoothing: float, cancelled: npt.NDArray[np.int32]) -> State:
    return form.split(least_smoothed(form.value, form.first(), (smoothing,), most, cancelled))


class _Roughly:
    """Minus the smoothed smallest eigenvalue for multipliers, A and log w, as if the tail with its floors were zero.

    It is positive semi-definite, so the value is no better than the form's. For a ball. A step has P⁴ multiplications.
    """

    def __init__(self, lifted: Lifted, start: State) -> None:
        self.lifted, self.start = lifted, start
        self.size, self.count = lifted.size, len(lifted.most)
        #: A parameter of every group of weights.
        self.ones = np.unique(lifted.groups, return_index=True)[1]
        self.unit = float(np.sqrt((start.factors**2).mean() * self.size))
        self.least = 1e-9 * self.unit**2
        self.parts = lifted.parts / lifted.most[:, None, None]
        self.low, self.high = np.triu_indices(self.size, 1)
        self.scale = np.sqrt(2.0) * self.unit**2 / lifted.ball  # as of two independent halves
        #: Where the form has no least value: line searches need numbers.
        self.beyond = -np.inf

    def first(self) -> FloatArray:
        """Where the start is."""
        above = self.lifted.stretch @ self.start.turned[:, self.low, self.high] / self.scale
        return np.concatenate([(self.start.factors / self.unit).ravel(), above.ravel(), np.log(self.start.weights[self.ones])])

    def split(self, z: FloatArray) -> State:
        """The choice."""
        size, groups = self.size, len(self.ones)
        factors, above, logarithms, _ = np.split(z, np.cumsum([self.count * size**2, size * self.low.size, groups]))
        turned = np.zeros((size, size, size))
        turned[:, self.low, self.high] = self.scale * (self.lifted.shrink @ above.reshape(size, -1))
        weights = weights_of(logarithms)[self.lifted.groups]
        factors = self.unit * factors.reshape(self.count, size, size)
        return replace(self.start, factors=factors, turned=turned - turned.transpose(0, 2, 1), weights=weights)

    def solution(self, state: State, lams: FloatArray, halves: FloatArray) -> FloatArray | None:
        """What the rest of z is to v, for the multipliers without their floors."""
        inverse = solution(lams[0] + self.least * np.eye(self.size), np.eye(self.size))
        return None if inverse is None else np.matmul(inverse, halves.reshape((self.size,) * 3)).reshape(halves.shape)

    def slopes(self, state: State, density: FloatArray, rest: FloatArray, moved: FloatArray) -> FloatArray:
        """Minus the derivatives of the eigenvalue in the numbers of z besides, with ``moved`` the rest times the density."""
        return np.empty(0)

    def value(self, z: FloatArray, smoothing: float) -> tuple[float, FloatArray]:
        """The value and its gradient."""
        lifted, size, low, high = self.lifted, self.size, self.low, self.high
        state = self.split(z)
        factors, weights, rests = state.factors, state.weights, lifted.rests(state.share)
        lams = factors @ factors.transpose(0, 2, 1)
        halves = (lifted.half(state.share) + lifted.ball * state.turned).reshape(size * size, size)
        rest = self.solution(state, lams, halves)
        if rest is None:
            return self.beyond, np.zeros_like(z)
        total = lifted.polynomial(state) - rests.matrix(weights) - (lams + state.floors).sum(axis=0) - halves.T @ rest
        try:
            values, vectors = eigh(0.5 * (total + total.T))
        except (np.linalg.LinAlgError, ValueError):  # no convergence, or not finite
            return self.beyond, np.zeros_like(z)
        weight = np.exp((values[0] - values) / smoothing)
        density = (vectors * (weight / weight.sum())) @ vectors.T
        by_delta = rest.reshape(size, size, size)
        moved = by_delta @ density
        into_lams = [density - np.tensordot(np.tensordot(part, moved, 1), by_delta, ((0, 2), (0, 2))) for part in self.parts]
        gradient = np.concatenate([
            *(self.unit * ((one + one.T) @ factor).ravel() for one, factor in zip(into_lams, factors, strict=True)),
            2.0 * lifted.ball * self.scale * (lifted.shrink @ (moved[:, low, high] - moved[:, high, low])).ravel(),
            np.bincount(lifted.groups, weights=rests.slopes(density, weights)),
            self.slopes(state, density, rest, moved.reshape(rest.shape)),
        ])  # fmt: skip
        found = float(smoothing * np.log(weight.sum()) - values[0])
        self.beyond = max(self.beyond, FAR * abs(found))
        return found, gradient


class _Exactly(_Roughly):
    """The same with the tail, in a ball or a slab, and for log tau and the logit of eta besides; a step has P⁶ multiplications.

    The bound is concave in all these, so they are looked for together.
    """

    def __init__(self, lifted: Lifted, start: State) -> None:
        super().__init__(lifted, start)
        kind = precision(self.size**2)
        area = lifted.ball**2
        self.fixed: AnyFloats = (area * lifted.residual.tail).astype(kind)
        #: What eta and tau take from it.
        self.given_up: AnyFloats = (area * lifted.tail_share * lifted.squares.tail).astype(kind)
        self.gram: AnyFloats | None = None if lifted.gram is None else (0.5 * area * lifted.gram).astype(kind)
        self.work = np.empty_like(self.fixed)
        #: Numbers of z besides those of cheap steps.
        self.scalars = Scalars(self.size, start)

    def first(self) -> FloatArray:
        """Where the start is."""
        return np.concatenate([super().first(), self.scalars.first()])

    def split(self, z: FloatArray) -> State:
        """The choice."""
        share, tau = self.scalars.split(z[z.size - self.scalars.count :])
        return replace(super().split(z), share=share, tau=tau)

    def solution(self, state: State, lams: FloatArray, halves: FloatArray) -> FloatArray | None:
        """What the rest of z is to v."""
        np.copyto(self.work, self.fixed)
        self._add(1.0 / self.lifted.tail_share - state.share, self.given_up)
        if self.gram is not None and state.tau is not None:
            self._add(-state.tau, self.gram)
        lams = lams + state.floors + self.least * np.eye(self.size)
        tail, places = self.work.reshape((self.size,) * 4), np.arange(self.size)
        if self.count == 1:
            tail[places, :, places, :] += lams[0].astype(self.work.dtype)
        else:
            tail += np.tensordot(self.parts, lams, (0, 0)).transpose(0, 2, 1, 3)
        return solution(self.work, halves)

    def _add(self, factor: float, matrix: AnyFloats) -> None:
        add = saxpy if self.work.dtype == np.float32 else daxpy
        add(matrix.ravel(), self.work.ravel(), a=factor)

    def slopes(self, state: State, density: FloatArray, rest: FloatArray, moved: FloatArray) -> FloatArray:
        """The derivatives in the logit of eta, and in log tau."""
        lifted, share = self.lifted, state.share
        narrow, onto = rest.astype(self.work.dtype), moved.astype(self.work.dtype)
        head = float((density * (lifted.squares.head - lifted.squares_rests.matrix(state.weights) / share**2)).sum())
        half = lifted.ball * float((lifted.squares.half.reshape(moved.shape) * moved).sum())
        tail = float(np.vdot(self.given_up @ narrow, onto))
        of_tau = 0.0
        if self.gram is not None and state.tau is not None:
            of_tau = -lifted.cubic(state) + state.tau * float(np.vdot(self.gram @ narrow, onto))
        return self.scalars.slopes(head - 2.0 * half + tail, of_tau, share)
