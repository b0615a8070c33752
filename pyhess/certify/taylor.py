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
from .intervals import gamma
from .smoothed import least_smoothed
from .taylor_hessian import taylor_hessian, taylor_order, taylor_work
from .taylor_lifted import Lifted, State
from .taylor_multipliers import TaylorMultipliers
from .taylor_proof import proved
from .taylor_room import Room

FloatArray = npt.NDArray[np.float64]

#: Most parameters (the form has P + P² unknowns), and most multiplications for the polynomial.
_MAX_PARAMS, _MAX_WORK = 72, 2e11
#: Steps at most of the first rounds, the last of them for all others, with the smoothing of the smallest eigenvalue, relative to
#: it; and multiplications for all steps of one round. Short rounds, as what changes between them counts for more.
_STEPS, _STEP_WORK = ((15, 0.05), (20, 0.02), (25, 0.01), (30, 0.005)), 3e10
#: Rounds, in which eta, tau and the floor change; the least weight that is tried at first, relative to the largest, and the range
#: of logarithms.
_ROUNDS, _FLOOR, _LOGARITHMS = 10, 0.3, 20.0
#: Part of Lam that may be its floor in the next round.
_CROWDED = 0.97
#: Bounds that are so many times worse than a known one do not become better.
_HOPELESS = 4.0
#: What is left out may not have an eigenvalue so many times larger than a known bound.
_BEYOND = 2.0
#: How close to the smallest eigenvalue others count for the moment of the changes.
_NEAR = 0.02
#: The rounds end after some in a row that improve the bound by less; how many of the first are left out, and after how many they
#: end, without and with a choice to start from.
_WORTHWHILE, _COLD, _WARM = 0.005, (0, 2), (2, 1)
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
    """A lower bound of psi, and what proves it.

    What goes on from it needs ``state``, where the choice ended, and the moment (P, P) of the changes that reach the bound.
    """

    psi_lower: float
    multipliers: TaylorMultipliers | None = None
    state: State | None = None
    moment: FloatArray | None = None


def taylor_bound(obj: Objective, region: Ball, known: float, cancelled: npt.NDArray[np.int32]) -> TaylorBound | None:
    """Lower bound of psi over the ball; None if cancelled, -inf where it will not come near the bound ``known``.

    Where much of the squares is given up for what their roots leave out, the data that most of this is from are tried without.
    """
    room = Room(float(region.radius) * (1.0 + gamma(4)))
    centre = np.array(region.center)
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        all_data = np.ones(obj.data.num_samples)
        found = bound_in(obj, centre, room, room.reach, known, cancelled, all_data, None, _COSTLY_SHARE)
        if found is None or found.lifted is None or found.state is None:
            return None if found is None else TaylorBound(-np.inf)
        return TaylorBound(found.psi_lower, found.multipliers, found.state, _moment(found))


@dataclass(frozen=True, eq=False)
class Found:
    """A bound with what proves it, and where the choice ended; ``lams`` are the multipliers of a ball or of a slab's parts."""

    psi_lower: float
    multipliers: TaylorMultipliers | None = None
    lams: FloatArray | None = None
    lifted: Lifted | None = None
    state: State | None = None


def bound_in(
    obj: Objective,
    centre: FloatArray,
    room: Room,
    radius: float,
    known: float,
    cancelled: npt.NDArray[np.int32],
    kept: FloatArray,
    start: State | None,
    costly: float = np.inf,
) -> Found | None:
    """Lower bound of psi where theta - ``centre`` is in the room; None if cancelled, as `taylor_bound`.

    ``radius`` is what delta is divided by in z; ``start`` a choice that was good for something similar. Of the squares those of
    the ``kept`` data count; where all do and a share from ``costly`` on is given up, outlying data are tried without.
    """

    def bound(kept: FloatArray, start: State | None) -> Found | None:
        return _bound_with(obj, centre, room, radius, known, cancelled, kept, start)

    found = bound(kept, start)
    if found is None or found.lifted is None or found.state is None or found.state.share < costly:
        return found
    left_out = found.lifted.left_out
    fewer = np.where(left_out > _OUTLYING * left_out.mean(), 0.0, 1.0)
    if cancelled[0] or not kept.all() or fewer.all():
        return found
    other = bound(fewer, found.state)
    return other if other is not None and other.psi_lower > found.psi_lower else found


def _bound_with(
    obj: Objective,
    centre: FloatArray,
    room: Room,
    radius: float,
    known: float,
    cancelled: npt.NDArray[np.int32],
    kept: FloatArray,
    start: State | None,
) -> Found | None:
    """The same with the squares of some data."""
    lifted = lifted_in(obj, centre, room, radius, taylor_order(obj.net), cancelled, kept, -_BEYOND * known)
    if cancelled[0]:
        return None
    if lifted is None:
        return Found(-np.inf)
    state = _promising(lifted, known) if start is None else _fitting(lifted, start, cancelled)
    if state is None:
        return Found(-np.inf)
    best, idle = Found(-np.inf), 0
    skipped, patience = _COLD if start is None else _WARM
    for turn in range(_ROUNDS):
        if turn > 0:
            state = _renewed(lifted, state, cancelled)
        if cancelled[0]:
            break
        state = _maximised(lifted, state, turn + skipped, cancelled)
        lams = state.lams / lifted.most[:, None, None]
        multipliers = TaylorMultipliers(lams[0], state.turned, state.share, state.tau, state.weights, lifted.lowered, kept)
        value = proved(lifted, lams, multipliers)
        idle = 0 if value > best.psi_lower + _WORTHWHILE * abs(value) else idle + 1
        if value > best.psi_lower:
            best = Found(value, multipliers, lams)
        if idle == patience or value < _HOPELESS * known:
            break
    if best.psi_lower == -np.inf and cancelled[0]:
        return None
    return replace(best, lifted=lifted, state=state)


def lifted_in(
    obj: Objective,
    centre: FloatArray,
    room: Room,
    radius: float,
    order: int,
    cancelled: npt.NDArray[np.int32],
    kept: FloatArray,
    most: float = np.inf,
    narrow: float | None = None,
) -> Lifted | None:
    """The form in z, from polynomials of an order; None if cancelled, or where numbers overflow or what is left out has an eigenvalue above ``most``."""
    found = taylor_hessian(obj.net, centre, room, obj.data, obj.targets, obj.loss, order, cancelled, most, kept)
    if found is None:
        return None
    parts = [x for part in (found.residual, found.squares) for x in (part.head, part.half, part.tail, part.rest)]
    if cancelled[0] or not all(np.isfinite(x).all() for x in (*parts, *(() if found.cubic is None else (found.cubic,)))):
        return None
    lifted = Lifted(found, room, radius, narrow)
    return lifted if lifted.gram is None or np.isfinite(lifted.gram).all() else None


def _moment(found: Found) -> FloatArray | None:
    """The second moment of delta where the form is least, over eigenvectors of eigenvalues close to the smallest."""
    lifted, state = found.lifted, found.state
    assert lifted is not None and state is not None
    schur = _schur(lifted, state, state.lams)
    if schur is None:
        return None
    values, vectors = np.linalg.eigh(schur)
    weights = np.exp((values[0] - values) / (_NEAR * abs(values[0]) + 1e-300))
    by_delta = _solved(lifted, state, state.lams).reshape((lifted.size,) * 3) @ (vectors * np.sqrt(weights))
    return np.asarray(np.tensordot(by_delta, by_delta, ((1, 2), (1, 2))))


def _weights(vector: FloatArray) -> FloatArray:
    size = np.abs(vector)
    return np.maximum(size, _FLOOR * float(size.max()))


def _promising(lifted: Lifted, known: float) -> State | None:
    """A choice to begin with, if what is left out alone does not take more than ``known``."""
    size = lifted.size
    half = np.tensordot(lifted.stretch, lifted.half(_FIRST_SHARE), 1)
    scale = float(np.linalg.norm(half.reshape(size * size, size), 2))
    identities = np.stack([np.eye(size)] * len(lifted.most))
    state = State(
        np.sqrt(scale + 1e-30) * identities,
        np.zeros_like(identities),
        np.zeros((size,) * 3),
        _FIRST_SHARE,
        lifted.first_tau(),
        np.ones(size),
        lifted.most,
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
            return replace(state, floors=lifted.least_multiple(tail, identities) * identities)
        state = replace(state, weights=_weights(vectors[:, 0]))
    return None


def _fitting(lifted: Lifted, start: State, cancelled: npt.NDArray[np.int32]) -> State | None:
    """A choice for something similar, a larger slab or the ball, with multipliers in between and large enough here."""
    lams = np.sqrt(lifted.most / start.most)[:, None, None] * start.lams
    part = lifted.least_multiple(lifted.tail(start), lams)
    if part == np.inf:
        return None
    grown = replace(start, factors=np.zeros_like(lams), floors=max(1.0, part / _CROWDED) * lams, most=lifted.most)
    return _renewed(lifted, grown, cancelled)


def _renewed(lifted: Lifted, state: State, cancelled: npt.NDArray[np.int32]) -> State:
    """The same multipliers with the best eta of those that may be, a better tau, and floors of their shapes."""
    lams = state.lams

    def tried(place: int) -> tuple[float, FloatArray | None]:
        schur = _schur(lifted, replace(state, share=_SHARES[place]), lams)
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
    taus = _taus(lifted, state, _solved(lifted, state, lams) @ np.linalg.eigh(schur)[1][:, 0])
    # The least multiple of the multipliers that will do, and what they have beyond.
    values, vectors = np.linalg.eigh(lams)
    values = np.maximum(values, 1e-9 * values[:, -1:])[:, None]
    shaped, roots = ((vectors * x) @ vectors.transpose(0, 2, 1) for x in (values, np.sqrt(values)))
    for tau in taus:
        trial = replace(state, tau=tau)
        part = lifted.least_multiple(lifted.tail(trial), shaped)
        if part < _CROWDED:
            break
    return replace(trial, floors=part * shaped, factors=np.sqrt(max(1e-3, 1.0 - part)) * roots)


def _taus(lifted: Lifted, state: State, moved: FloatArray) -> list[float | None]:
    """The best tau for changes, and ones between the present and that; nothing to choose without a cubic term."""
    now = state.tau
    if lifted.gram is None or now is None:
        return [None]
    turning = float(moved @ lifted.gram @ moved)
    ideal = lifted.pair / lifted.ball / np.sqrt(turning) if turning > 0.0 else now
    return [now * (ideal / now) ** power for power in (1.0, 0.5, 0.25, 0.0)]


def _solved(lifted: Lifted, state: State, lams: FloatArray) -> FloatArray:
    """What the rest of z is to v where the form is least."""
    size = lifted.size
    tail = lifted.tail(state) + lifted.spread(lams)
    half = (lifted.half(state.share) + lifted.ball * state.turned).reshape(size * size, size)
    return np.asarray(cho_solve(cho_factor(tail, lower=True), half))


def _schur(lifted: Lifted, state: State, lams: FloatArray) -> FloatArray | None:
    size = lifted.size
    try:
        solved = _solved(lifted, state, lams)
    except (np.linalg.LinAlgError, ValueError):  # not positive definite, or not finite
        return None
    half = (lifted.half(state.share) + lifted.ball * state.turned).reshape(size * size, size)
    schur = lifted.head(state) - lams.sum(axis=0) - half.T @ solved
    return 0.5 * (schur + schur.T) if np.isfinite(schur).all() else None


def _maximised(lifted: Lifted, start: State, turn: int, cancelled: npt.NDArray[np.int32]) -> State:
    """A choice near the best, or as far as that got until it was cancelled."""
    size, ball, count = lifted.size, lifted.ball, len(lifted.most)
    rest, half = lifted.rest(start.share), lifted.half(start.share)
    base = lifted.polynomial(start) - start.floors.sum(axis=0)
    fixed = lifted.tail(start) + lifted.spread(start.floors)
    unit = float(np.sqrt((start.factors**2).mean() * size))
    least = 1e-9 * unit**2
    fixed[np.diag_indices(size * size)] += least
    parts = lifted.parts / lifted.most[:, None, None]
    steps, smoothing = _steps(size, turn)
    places, (low, high) = np.arange(size), np.triu_indices(size, 1)
    scale = np.sqrt(2.0) * unit**2 / ball  # as of two independent halves
    work = np.empty_like(fixed)

    def split(z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        factors, above, logarithms = np.split(z, [count * size**2, -size])
        turned = np.zeros((size, size, size))
        turned[:, low, high] = scale * (lifted.shrink @ above.reshape(size, -1))
        weights = np.exp(np.clip(logarithms - logarithms.max(), -_LOGARITHMS, 0.0))
        return unit * factors.reshape(count, size, size), turned - turned.transpose(0, 2, 1), weights

    def value(z: FloatArray, smoothing: float) -> tuple[float, FloatArray]:
        factors, turned, weights = split(z)
        lams = factors @ factors.transpose(0, 2, 1)
        shares = rest * (weights[None, :] / weights[:, None])
        change = shares.sum(axis=1)
        np.copyto(work, fixed)
        tail = work.reshape((size,) * 4)
        if count == 1:
            tail[places, :, places, :] += lams[0]
        else:
            tail += np.tensordot(parts, lams, (0, 0)).transpose(0, 2, 1, 3)
        halves = (half + ball * turned).reshape(size * size, size)
        root, failed = dpotrf(work.T, lower=1, clean=0, overwrite_a=1)
        if failed:
            return np.inf, np.zeros_like(z)
        solved = dpotrs(root, halves, lower=1)[0]
        total = base - np.diag(change) - lams.sum(axis=0) - halves.T @ solved
        try:
            values, vectors = eigh(0.5 * (total + total.T))
        except (np.linalg.LinAlgError, ValueError):  # no convergence, or not finite
            return np.inf, np.zeros_like(z)
        weight = np.exp((values[0] - values) / smoothing)
        density = (vectors * (weight / weight.sum())) @ vectors.T
        by_delta = solved.reshape(size, size, size)
        moved = by_delta @ density
        into_lams = [density - np.tensordot(np.tensordot(part, moved, 1), by_delta, ((0, 2), (0, 2))) for part in parts]
        at = np.diag(density)
        gradient = np.concatenate([
            *(unit * ((one + one.T) @ factor).ravel() for one, factor in zip(into_lams, factors, strict=True)),
            2.0 * ball * scale * (lifted.shrink @ (moved[:, low, high] - moved[:, high, low])).ravel(),
            at @ shares - at * change,
        ])  # fmt: skip
        return float(smoothing * np.log(weight.sum()) - values[0]), gradient

    above = lifted.stretch @ start.turned[:, low, high] / scale
    start_z = np.concatenate([(start.factors / unit).ravel(), above.ravel(), np.log(start.weights)])
    z = least_smoothed(value, start_z, (smoothing,), steps, cancelled)
    factors, turned, weights = split(z)
    return replace(start, factors=factors, turned=turned, weights=weights)
