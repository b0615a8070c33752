"""The Hessian's Taylor polynomial of the third order about a ball's centre, with what it leaves out: small balls, any depth.

With z = (v, delta x v / R) the first two orders are a quadratic form in z, and the third is (delta x v)' M (delta x delta x v).
As |delta| <= R, for any Lam >= 0, tau > 0 and any antisymmetric A_k

    v'H(theta)v >= z' [ head - diag(q) - Lam - R⁴/(2 tau),  R U' ; R U,  I x Lam + R² (tail - tau M M'/2) ] z,
    U_k = half_k + A_k,

with q_a = (N w)_a / w_a for any w > 0 where |v|'N|v| bounds what is left out. So psi >= s if the matrix less s on v's part is
positive semi-definite. The best Lam and A are looked for by a quasi-Newton method on the smallest eigenvalue of the Schur
complement, smoothed, which is concave in them; what it ends with is proved by a Cholesky factorisation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.linalg.lapack import dpotrf, dpotrs

from ..model import MLP
from ..objective import Objective
from ..regions import Ball
from .intervals import UNIT, gamma
from .smoothed import least_smoothed
from .spectral import negative_slacks
from .taylor_hessian import taylor_hessian, taylor_work
from .taylor_lifted import Lifted, State, extreme
from .taylor_multipliers import TaylorMultipliers

FloatArray = npt.NDArray[np.float64]

#: Most parameters (the form has P + P² unknowns), and most multiplications for the polynomial.
_MAX_PARAMS, _MAX_WORK = 40, 2e11
#: Steps at most of the first rounds, the last of them for all others, with the smoothing of the smallest eigenvalue, relative to
#: it; and multiplications for all steps of one round. Short rounds, as what changes between them counts for more.
_STEPS, _STEP_WORK = ((15, 0.05), (20, 0.02), (25, 0.01), (30, 0.005)), 3e10
#: Rounds, in which eta, tau and the floor change; the least weight that is tried at first, relative to the largest, and the range
#: of logarithms.
_ROUNDS, _FLOOR, _LOGARITHMS = 10, 0.3, 20.0
#: The floor is larger than eigenvalues demand, as these are not exact.
_SURPLUS = 1.0002
#: Part of Lam that may be its floor in the next round.
_CROWDED = 0.97
#: Bounds that are so many times worse than a known one do not become better.
_HOPELESS = 4.0
#: What is left out may not have an eigenvalue so many times larger than a known bound.
_BEYOND = 2.0
#: The rounds end after two in a row that improve the bound by less.
_WORTHWHILE = 0.005
#: Share of the squares from which on data are tried without theirs: those that leave out so many times the mean.
_COSTLY_SHARE, _OUTLYING = 0.1, 3.0
#: Shares of the squares that are given up for what their roots leave out: the first, and all that are tried.
_FIRST_SHARE, _SHARES = 0.2, (1e-9, 1e-7, 1e-5, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0)


def taylor_knows(net: MLP, num_samples: int) -> bool:
    """Whether this bound is for such balls: few parameters, smooth activations."""
    return net.num_params <= _MAX_PARAMS and taylor_work(net, num_samples) <= _MAX_WORK and net.is_smooth


def _steps(size: int, turn: int) -> tuple[int, float]:
    """Steps of the quasi-Newton method in a round, and the smoothing."""
    most, smoothing = _STEPS[min(turn, len(_STEPS) - 1)]
    return min(most, max(10, int(_STEP_WORK / _one_step(size)))), smoothing


def _one_step(size: int) -> float:
    """Multiplications, most of them for a Cholesky factorisation of P² rows."""
    return 0.4 * float(size) ** 6 + 8.0 * float(size) ** 5


def step_work(net: MLP) -> float:
    """Multiplications of all steps, roughly."""
    return sum(_steps(net.num_params, turn)[0] for turn in range(_ROUNDS)) * _one_step(net.num_params)


@dataclass(frozen=True, eq=False)
class TaylorBound:
    """A lower bound of psi, and what proves it."""

    psi_lower: float
    multipliers: TaylorMultipliers | None = None


def taylor_bound(obj: Objective, region: Ball, known: float, cancelled: npt.NDArray[np.int32]) -> TaylorBound | None:
    """Lower bound of psi over the ball; None if cancelled, -inf where it will not come near the bound ``known``.

    Where much of the squares is given up for what their roots leave out, the data that most of this is from are tried without.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        all_data = np.ones(obj.data.num_samples)
        found = _bound_with(obj, region, known, cancelled, all_data, None)
        if found is None or found.state is None or cancelled[0] or found.state.share < _COSTLY_SHARE:
            return None if found is None else found.bound
        kept = np.where(found.left_out > _OUTLYING * found.left_out.mean(), 0.0, 1.0)
        other = None if kept.all() else _bound_with(obj, region, known, cancelled, kept, found.state)
        return other.bound if other is not None and other.bound.psi_lower > found.bound.psi_lower else found.bound


@dataclass(frozen=True, eq=False)
class _Found:
    """A bound, where the choice ended, and how much the squares' roots of every datum leave out."""

    bound: TaylorBound
    state: State | None
    left_out: FloatArray


def _bound_with(
    obj: Objective, region: Ball, known: float, cancelled: npt.NDArray[np.int32], kept: FloatArray, start: State | None
) -> _Found | None:
    """The same with the squares of some data only, from a choice that was good with all."""
    nothing = _Found(TaylorBound(-np.inf), None, np.zeros_like(kept))
    found = taylor_hessian(obj.net, region, obj.data, obj.targets, obj.loss, cancelled, -_BEYOND * known, kept)
    if found is None:
        return None if cancelled[0] else nothing
    parts = [x for part in (found.residual, found.squares) for x in (part.head, part.half, part.tail, part.rest)]
    if not all(np.isfinite(x).all() for x in (*parts, found.cubic)):
        return nothing
    if cancelled[0]:
        return None
    lifted = Lifted(found, float(region.radius) * (1.0 + gamma(4)))
    if not np.isfinite(lifted.gram).all():
        return nothing
    if cancelled[0]:
        return None
    state = _promising(lifted, known) if start is None else _renewed(lifted, start, cancelled)
    if state is None:
        return nothing
    best, idle = TaylorBound(-np.inf), 0
    for turn in range(_ROUNDS):
        if turn > 0:
            state = _renewed(lifted, state, cancelled)
        if cancelled[0]:
            break
        state = _maximised(lifted, state, turn, cancelled)
        value, multipliers = _proved(lifted, state, kept)
        idle = 0 if value > best.psi_lower + _WORTHWHILE * abs(value) else idle + 1
        if value > best.psi_lower:
            best = TaylorBound(value, multipliers)
        if idle == 2 or value < _HOPELESS * known:
            break
    if best.psi_lower == -np.inf and cancelled[0]:
        return None
    return _Found(best, state, found.left_out)


def _weights(vector: FloatArray) -> FloatArray:
    size = np.abs(vector)
    return np.maximum(size, _FLOOR * float(size.max()))


def _promising(lifted: Lifted, known: float) -> State | None:
    """A choice to begin with, if what is left out alone does not take more than ``known``."""
    size = lifted.size
    scale = float(np.linalg.norm(lifted.half(_FIRST_SHARE).reshape(size * size, size), 2))
    state = State(
        np.sqrt(scale + 1e-30) * np.eye(size),
        np.zeros((size, size)),
        np.zeros((size,) * 3),
        _FIRST_SHARE,
        lifted.first_tau(),
        np.ones(size),
    )
    for _ in range(_ROUNDS):
        head = lifted.head(state)
        if not np.isfinite(head).all():
            return None
        values, vectors = np.linalg.eigh(head)
        if values[0] > known:
            tail = lifted.tail(state)
            if not np.isfinite(tail).all():
                return None
            return replace(state, floor=max(0.0, -extreme(tail, "SA") * _SURPLUS) * np.eye(size))
        state = replace(state, weights=_weights(vectors[:, 0]))
    return None


def _renewed(lifted: Lifted, state: State, cancelled: npt.NDArray[np.int32]) -> State:
    """The same Lam and A with the best eta of those that may be, a better tau, and a floor of Lam's shape."""
    lam = state.lam

    def tried(place: int) -> tuple[float, FloatArray | None]:
        schur = _schur(lifted, replace(state, share=_SHARES[place]), lam)
        return (-np.inf, None) if schur is None else (float(np.linalg.eigvalsh(schur)[0]), schur)

    # The bound is concave in eta; where the tail is not positive definite a smaller one may help.
    place = _SHARES.index(state.share)
    best, schur = tried(place)
    for step in (-1, 1):
        while 0 <= place + step < len(_SHARES):
            if cancelled[0]:
                return state
            value, other = tried(place + step)
            if best > -np.inf and value <= best:
                break
            best, schur, place = value, other, place + step
    state = replace(state, share=_SHARES[place])
    if schur is None:
        return state
    moved = _solved(lifted, state, lam) @ np.linalg.eigh(schur)[1][:, 0]
    turning = float(moved @ lifted.gram @ moved)
    # The least multiple of Lam that will do, and what Lam has beyond.
    values_lam, vectors_lam = np.linalg.eigh(lam)
    values_lam = np.maximum(values_lam, 1e-9 * values_lam[-1])
    inverse = (vectors_lam / np.sqrt(values_lam)) @ vectors_lam.T
    shaped, root = (vectors_lam * values_lam) @ vectors_lam.T, (vectors_lam * np.sqrt(values_lam)) @ vectors_lam.T
    ideal = lifted.ball / np.sqrt(turning) if turning > 0.0 else state.tau
    for power in (1.0, 0.5, 0.25, 0.0):
        trial = replace(state, tau=state.tau * (ideal / state.tau) ** power)
        tail = lifted.tail(trial).reshape((lifted.size,) * 4)
        scaled = np.einsum("kalb,ac,bd->kcld", tail, inverse, inverse, optimize=True).reshape(lifted.size**2, -1)
        part = max(0.0, -extreme(0.5 * (scaled + scaled.T), "SA") * _SURPLUS)
        if part < _CROWDED:
            break
    return replace(trial, floor=part * shaped, factor=np.sqrt(max(1e-3, 1.0 - part)) * root)


def _solved(lifted: Lifted, state: State, lam: FloatArray) -> FloatArray:
    """What the rest of z is to v where the form is least."""
    size = lifted.size
    tail = lifted.tail(state) + np.kron(np.eye(size), lam)
    half = (lifted.half(state.share) + lifted.ball * state.turned).reshape(size * size, size)
    return np.asarray(cho_solve(cho_factor(tail, lower=True), half))


def _schur(lifted: Lifted, state: State, lam: FloatArray) -> FloatArray | None:
    size = lifted.size
    try:
        solved = _solved(lifted, state, lam)
    except (np.linalg.LinAlgError, ValueError):  # not positive definite, or not finite
        return None
    half = (lifted.half(state.share) + lifted.ball * state.turned).reshape(size * size, size)
    schur = lifted.head(state) - lam - half.T @ solved
    return 0.5 * (schur + schur.T) if np.isfinite(schur).all() else None


def _maximised(lifted: Lifted, start: State, turn: int, cancelled: npt.NDArray[np.int32]) -> State:
    """A choice near the best, or as far as that got until it was cancelled."""
    size, ball = lifted.size, lifted.ball
    rest, half = lifted.rest(start.share), lifted.half(start.share)
    base = lifted.polynomial(start) - start.floor
    fixed = lifted.tail(start) + np.kron(np.eye(size), start.floor)
    unit = float(np.sqrt((start.factor**2).mean() * size))
    least = 1e-9 * unit**2
    fixed[np.diag_indices(size * size)] += least
    steps, smoothing = _steps(size, turn)
    places, (low, high) = np.arange(size), np.triu_indices(size, 1)
    scale = np.sqrt(2.0) * unit**2 / ball  # as of two independent halves
    work = np.empty_like(fixed)

    def split(z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        factor, above, logarithms = np.split(z, [size * size, -size])
        turned = np.zeros((size, size, size))
        turned[:, low, high] = scale * above.reshape(size, -1)
        weights = np.exp(np.clip(logarithms - logarithms.max(), -_LOGARITHMS, 0.0))
        return unit * factor.reshape(size, size), turned - turned.transpose(0, 2, 1), weights

    def value(z: FloatArray, smoothing: float) -> tuple[float, FloatArray]:
        factor, turned, weights = split(z)
        lam = factor @ factor.T
        shares = rest * (weights[None, :] / weights[:, None])
        change = shares.sum(axis=1)
        np.copyto(work, fixed)
        work.reshape((size,) * 4)[places, :, places, :] += lam
        halves = (half + ball * turned).reshape(size * size, size)
        root, failed = dpotrf(work.T, lower=1, clean=0, overwrite_a=1)
        if failed:
            return np.inf, np.zeros_like(z)
        solved = dpotrs(root, halves, lower=1)[0]
        total = base - np.diag(change) - lam - halves.T @ solved
        try:
            values, vectors = eigh(0.5 * (total + total.T))
        except (np.linalg.LinAlgError, ValueError):  # no convergence, or not finite
            return np.inf, np.zeros_like(z)
        weight = np.exp((values[0] - values) / smoothing)
        density = (vectors * (weight / weight.sum())) @ vectors.T
        by_delta = solved.reshape(size, size, size)
        moved = by_delta @ density
        into_lam = density - np.tensordot(moved, by_delta, ((0, 2), (0, 2)))
        at = np.diag(density)
        gradient = np.concatenate([
            unit * ((into_lam + into_lam.T) @ factor).ravel(),
            2.0 * ball * scale * (moved[:, low, high] - moved[:, high, low]).ravel(),
            at @ shares - at * change,
        ])  # fmt: skip
        return float(smoothing * np.log(weight.sum()) - values[0]), gradient

    start_z = np.concatenate([(start.factor / unit).ravel(), (start.turned[:, low, high] / scale).ravel(), np.log(start.weights)])
    z = least_smoothed(value, start_z, (smoothing,), steps, cancelled)
    factor, turned, weights = split(z)
    return replace(start, factor=factor, turned=turned, weights=weights)


def _proved(lifted: Lifted, state: State, kept: FloatArray) -> tuple[float, TaylorMultipliers]:
    """What the choice proves, with it."""
    size = lifted.size
    lam = state.lam
    turned = state.turned - state.turned.transpose(0, 2, 1)
    turned *= 0.5
    multipliers = TaylorMultipliers(lam, turned, state.share, state.tau, state.weights, lifted.lowered, kept)
    schur = _schur(lifted, state, lam)
    if schur is None:
        return -np.inf, multipliers
    values = np.linalg.eigvalsh(schur)
    half = (lifted.half(state.share) + lifted.ball * turned).reshape(size * size, size)
    head = lifted.head(state) - lam
    whole = np.block([[head, half.T], [half, lifted.tail(state) + np.kron(np.eye(size), lam)]])
    # The parts were rounded, relative to sums of absolute terms.
    rounding = float(lifted.rounding(state).sum(axis=1).max()) + float(np.abs(lam).sum(axis=1).max())
    rounding += lifted.ball * float(np.sqrt((turned**2).sum())) + float(lifted.change(state).max())
    margin = 1e-10 * abs(float(values[0]))
    for _ in range(8):
        claim = float(values[0]) - margin
        shifted = whole.copy()
        places = np.arange(size)
        shifted[places, places] -= claim
        slacks = negative_slacks(shifted[None])
        if slacks is not None:
            # The part of z beyond v is no longer than v.
            slack = (
                float(slacks[0])
                + lifted.cubic_rounding(state)
                + 2.0 * UNIT * float(np.abs(np.diag(shifted)).max())
                + gamma(16) * (rounding + abs(claim))
            )
            return float((claim - 2.0 * slack) - 4.0 * UNIT * abs(claim)), multipliers
        margin = 8.0 * margin + 1e-15 * float(np.abs(whole).sum(axis=1).max())
    return -np.inf, multipliers
