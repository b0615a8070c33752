"""The Hessian's Taylor polynomial of the second order about a ball's centre, with what it leaves out: small balls, any depth.

With z = (v, delta x v / R) the polynomial is a quadratic form in z. As |delta| <= R, for any Lam >= 0 and any antisymmetric A_k

    v'H(theta)v >= z' [ head - diag(q) - Lam,  R U' ; R U,  I x Lam + R² tail ] z,    U_k = half_k + A_k,

with q_a = (N w)_a / w_a for any w > 0 where |v|'N|v| bounds what is left out. So psi >= s if the matrix less s on v's part is
positive semi-definite. The best Lam and A are looked for by a quasi-Newton method on the smallest eigenvalue of the Schur
complement, smoothed, which is concave in them; what it ends with is proved by a Cholesky factorisation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from ..model import MLP
from ..objective import Objective
from ..regions import Ball
from .intervals import TINY, UNIT, gamma
from .smoothed import least_smoothed
from .spectral import negative_slacks
from .taylor_hessian import Quadratic, taylor_hessian, taylor_work
from .taylor_multipliers import TaylorMultipliers

FloatArray = npt.NDArray[np.float64]

#: Most parameters (the form has P + P² unknowns), and most multiplications for the polynomial.
_MAX_PARAMS, _MAX_WORK = 40, 1e10
#: Smoothing of the smallest eigenvalue, relative to it; and multiplications for all steps of one round, and steps at most.
_SMOOTHING, _STEP_WORK, _STEPS = (0.05, 0.01), 3e10, 50
#: Rounds, in which eta changes; the least weight that is tried at first, relative to the largest, and the range of logarithms.
_ROUNDS, _FLOOR, _LOGARITHMS = 2, 0.3, 20.0
#: Bounds that are so many times worse than a known one do not become better.
_HOPELESS = 2.0
#: Shares of the squares that are given up for what their roots leave out: the first, and all that are tried.
_FIRST_SHARE, _SHARES = 0.2, (1e-9, 1e-7, 1e-5, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0)


def taylor_knows(net: MLP, num_samples: int) -> bool:
    """Whether this bound is for such balls: few parameters, smooth activations."""
    return net.num_params <= _MAX_PARAMS and taylor_work(net, num_samples) <= _MAX_WORK and net.is_smooth


def _steps(size: int) -> int:
    """Steps of the quasi-Newton method with one smoothing."""
    return int(np.clip(_STEP_WORK / _one_step(size), 10, _STEPS))


def _one_step(size: int) -> float:
    """Multiplications, most of them for a Cholesky factorisation of P² rows."""
    return 0.4 * float(size) ** 6 + 8.0 * float(size) ** 5


def step_work(net: MLP) -> float:
    """Multiplications of all steps, roughly."""
    return len(_SMOOTHING) * _ROUNDS * _steps(net.num_params) * _one_step(net.num_params)


@dataclass(frozen=True, eq=False)
class TaylorBound:
    """A lower bound of psi, and what proves it."""

    psi_lower: float
    multipliers: TaylorMultipliers | None = None


@dataclass(frozen=True, eq=False)
class _State:
    """What is chosen: a factor of the part of Lam beyond its floor, A, eta and w."""

    factor: FloatArray
    turned: FloatArray
    share: float
    weights: FloatArray


class _Lifted:
    """The quadratic form in z, for any choice."""

    def __init__(self, residual: Quadratic, gauss: Quadratic, ball: float) -> None:
        self.residual, self.gauss, self.ball = residual, gauss, ball
        self.size = residual.head.shape[0]
        lowest = float(np.linalg.eigvalsh(_square(residual.tail))[0])
        #: What makes the residual's tail positive semi-definite; the squares' is.
        self.floor = ball**2 * max(0.0, -lowest * (1.0 + 1e-9))

    def head(self, share: float, weights: FloatArray) -> FloatArray:
        """``head`` less diag(q)."""
        head = self.polynomial(share)
        head[np.diag_indices(self.size)] -= self.change(share, weights)
        return head

    def polynomial(self, share: float) -> FloatArray:
        """``head`` alone."""
        head = self.residual.head + (1.0 - share) * self.gauss.head
        return 0.5 * (head + head.T)

    def rest(self, share: float) -> FloatArray:
        """Entries of what is left out."""
        return self.residual.rest + (1.0 / share - 1.0) * (1.0 + 4.0 * UNIT) * self.gauss.rest

    def change(self, share: float, weights: FloatArray) -> FloatArray:
        """The diagonal q."""
        applied = ((self.rest(share) @ weights) / weights) * (1.0 + gamma(self.size + 16)) + TINY
        return np.asarray(applied)

    def half(self, share: float) -> FloatArray:
        """``half``, times R."""
        return self.ball * (self.residual.half + (1.0 - share) * self.gauss.half)

    def tail(self, share: float) -> FloatArray:
        """R² times ``tail`` as a matrix (P², P²)."""
        return self.ball**2 * _square(self.residual.tail + (1.0 - share) * self.gauss.tail)

    def rounding(self, share: float) -> FloatArray:
        """Entries of the sizes that `head`, `half` and `tail` were rounded relative to."""
        total: FloatArray = np.zeros((self.size, self.size))
        for part in (self.residual, self.gauss):
            first = np.sqrt((part.half**2).sum(axis=0))
            second = np.sqrt((part.tail**2).sum(axis=(0, 2)))
            total += np.abs(part.head) + self.ball * (first + first.T) + self.ball**2 * second
        total = total + total.T  # as the parts are made symmetric
        return total * (1.0 + gamma(self.size**2 + 32)) + TINY


def _square(tail: FloatArray) -> FloatArray:
    size = tail.shape[0]
    matrix = tail.reshape(size * size, size * size)
    return 0.5 * (matrix + matrix.T)


def taylor_bound(obj: Objective, region: Ball, known: float, cancelled: npt.NDArray[np.int32]) -> TaylorBound | None:
    """Lower bound of psi over the ball; None if cancelled, -inf where it will not come near the bound ``known``."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        found = taylor_hessian(obj.net, region, obj.data, obj.targets, obj.loss, cancelled)
        if found is None:
            return None
        if not all(np.isfinite(x).all() for part in found for x in (part.head, part.half, part.tail, part.rest)):
            return TaylorBound(-np.inf)
        lifted = _Lifted(*found, float(region.radius) * (1.0 + gamma(4)))
        state = _promising(lifted, known)
        if state is None:
            return TaylorBound(-np.inf)
        best = TaylorBound(-np.inf)
        for turn in range(_ROUNDS):
            if turn > 0:
                state = _best_share(lifted, state, cancelled)
            if cancelled[0]:
                break
            state = _maximised(lifted, state, cancelled)
            value, multipliers = _proved(lifted, state)
            if value > best.psi_lower:
                best = TaylorBound(value, multipliers)
            if value < _HOPELESS * known:
                break
        return None if best.psi_lower == -np.inf and cancelled[0] else best


def _weights(vector: FloatArray) -> FloatArray:
    size = np.abs(vector)
    return np.maximum(size, _FLOOR * float(size.max()))


def _promising(lifted: _Lifted, known: float) -> _State | None:
    """A choice to begin with, if what is left out alone does not take more than ``known``."""
    size = lifted.size
    weights: FloatArray = np.ones(size)
    for _ in range(_ROUNDS):
        head = lifted.head(_FIRST_SHARE, weights)
        if not np.isfinite(head).all():
            return None
        values, vectors = np.linalg.eigh(head)
        if values[0] > known:
            scale = float(np.linalg.norm(lifted.half(_FIRST_SHARE).reshape(size * size, size), 2))
            return _State(np.sqrt(scale + 1e-30) * np.eye(size), np.zeros((size,) * 3), _FIRST_SHARE, weights)
        weights = _weights(vectors[:, 0])
    return None


def _best_share(lifted: _Lifted, state: _State, cancelled: npt.NDArray[np.int32]) -> _State:
    """The same choice with the best eta, of those tried until it was cancelled."""
    lam = _lam(lifted, state)
    values = {}
    for share in _SHARES:
        if cancelled[0]:
            return state
        schur = _schur(lifted, replace(state, share=share), lam)
        values[share] = -np.inf if schur is None else float(np.linalg.eigvalsh(schur)[0])
    return replace(state, share=max(values, key=lambda share: values[share]))


def _lam(lifted: _Lifted, state: _State) -> FloatArray:
    lam = state.factor @ state.factor.T
    lam = 0.5 * (lam + lam.T)
    lam[np.diag_indices(lifted.size)] += lifted.floor + 1e-9 * float(np.trace(lam)) / lifted.size
    return lam


def _schur(lifted: _Lifted, state: _State, lam: FloatArray) -> FloatArray | None:
    size = lifted.size
    tail = lifted.tail(state.share) + np.kron(np.eye(size), lam)
    half = (lifted.half(state.share) + lifted.ball * state.turned).reshape(size * size, size)
    try:
        solved = cho_solve(cho_factor(tail, lower=True), half)
    except (np.linalg.LinAlgError, ValueError):  # not positive definite, or not finite
        return None
    schur = lifted.head(state.share, state.weights) - lam - half.T @ solved
    return 0.5 * (schur + schur.T) if np.isfinite(schur).all() else None


def _maximised(lifted: _Lifted, start: _State, cancelled: npt.NDArray[np.int32]) -> _State:
    """A choice near the best, or as far as that got until it was cancelled."""
    size, ball = lifted.size, lifted.ball
    rest, half, fixed = lifted.rest(start.share), lifted.half(start.share), lifted.tail(start.share)
    base = lifted.polynomial(start.share) - lifted.floor * np.eye(size)
    fixed[np.diag_indices(size * size)] += lifted.floor
    unit = float(np.sqrt((start.factor**2).mean() * size))
    least = 1e-9 * unit**2
    fixed[np.diag_indices(size * size)] += least
    steps = _steps(size)

    def split(z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        factor, turned, logarithms = np.split(z, [size * size, size * size + size**3])
        turned = turned.reshape(size, size, size)
        weights = np.exp(np.clip(logarithms - logarithms.max(), -_LOGARITHMS, 0.0))
        return unit * factor.reshape(size, size), unit**2 / ball * (turned - turned.transpose(0, 2, 1)), weights

    def value(z: FloatArray, smoothing: float) -> tuple[float, FloatArray]:
        factor, turned, weights = split(z)
        lam = factor @ factor.T
        shares = rest * (weights[None, :] / weights[:, None])
        change = shares.sum(axis=1)
        tail = fixed.reshape((size,) * 4).copy()
        places = np.arange(size)
        tail[places, :, places, :] += lam
        halves = (half + ball * turned).reshape(size * size, size)
        try:
            solved = cho_solve(cho_factor(tail.reshape(size * size, -1), lower=True, overwrite_a=True), halves)
            total = base - np.diag(change) - lam - halves.T @ solved
            values, vectors = np.linalg.eigh(0.5 * (total + total.T))
        except (np.linalg.LinAlgError, ValueError):
            return np.inf, np.zeros_like(z)
        weight = np.exp((values[0] - values) / smoothing)
        density = (vectors * (weight / weight.sum())) @ vectors.T
        by_delta = solved.reshape(size, size, size)
        moved = by_delta @ density
        into_lam = density - np.tensordot(moved, by_delta, ((0, 2), (0, 2)))
        at = np.diag(density)
        gradient = np.concatenate([
            unit * ((into_lam + into_lam.T) @ factor).ravel(),
            2.0 * unit**2 * (moved - moved.transpose(0, 2, 1)).ravel(),
            at @ shares - at * change,
        ])  # fmt: skip
        return float(smoothing * np.log(weight.sum()) - values[0]), gradient

    start_z = np.concatenate(
        [(start.factor / unit).ravel(), (0.5 * ball / unit**2 * start.turned).ravel(), np.log(start.weights)]
    )
    z = least_smoothed(value, start_z, _SMOOTHING, steps, cancelled)
    factor, turned, weights = split(z)
    return replace(start, factor=factor, turned=turned, weights=weights)


def _proved(lifted: _Lifted, state: _State) -> tuple[float, TaylorMultipliers]:
    """What the choice proves, with it."""
    size = lifted.size
    lam = _lam(lifted, state)
    turned = state.turned - state.turned.transpose(0, 2, 1)
    turned *= 0.5
    multipliers = TaylorMultipliers(lam, turned, state.share, state.weights)
    schur = _schur(lifted, state, lam)
    if schur is None:
        return -np.inf, multipliers
    values = np.linalg.eigvalsh(schur)
    half = (lifted.half(state.share) + lifted.ball * turned).reshape(size * size, size)
    head = lifted.head(state.share, state.weights) - lam
    whole = np.block([[head, half.T], [half, lifted.tail(state.share) + np.kron(np.eye(size), lam)]])
    # The parts were rounded, relative to sums of absolute terms.
    rounding = float(lifted.rounding(state.share).sum(axis=1).max()) + float(np.abs(lam).sum(axis=1).max())
    rounding += lifted.ball * float(np.sqrt((turned**2).sum())) + float(lifted.change(state.share, state.weights).max())
    margin = 1e-10 * abs(float(values[0]))
    for _ in range(8):
        claim = float(values[0]) - margin
        shifted = whole.copy()
        places = np.arange(size)
        shifted[places, places] -= claim
        slacks = negative_slacks(shifted[None])
        if slacks is not None:
            # The part of z beyond v is no longer than v.
            slack = float(slacks[0]) + 2.0 * UNIT * float(np.abs(np.diag(shifted)).max()) + gamma(16) * (rounding + abs(claim))
            return float((claim - 2.0 * slack) - 4.0 * UNIT * abs(claim)), multipliers
        margin = 8.0 * margin + 1e-15 * float(np.abs(whole).sum(axis=1).max())
    return -np.inf, multipliers
