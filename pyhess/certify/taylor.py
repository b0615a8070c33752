"""The Hessian's Taylor polynomial about a ball's centre, with what it leaves out: small balls, any depth.

With z = (v, delta x v / R) the first two orders are a quadratic form in z, and the third is (delta x v)' M (delta x delta x v).
As |delta| <= R, for any Lam >= 0, tau > 0 and any antisymmetric A_k

    v'H(theta)v >= z' [ head - diag(q) - Lam - R⁴/(2 tau),  R U' ; R U,  I x Lam + R² (tail - tau M M'/2) ] z,
    U_k = half_k + A_k,

with q_a = (N w)_a / w_a for any w > 0 where |v|'N|v| bounds what is left out (one hidden layer has other forms, `taylor_rests`);
`taylor_kinds` says where polynomials are of the second order, without M and tau. So psi >= s if the matrix less s on v's part is
positive semi-definite. `taylor_choice` looks for good Lam and A; what it ends with is proved by a Cholesky factorisation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..model import MLP
from ..objective import Objective
from ..regions import Ball
from .intervals import gamma
from .taylor_choice import Form, begun, fitting, maximised, one_step, pair_steps, promising, renewed, steps
from .taylor_hessian import taylor_hessian
from .taylor_kinds import Kind, order_of, polynomial_kind
from .taylor_lifted import Lifted
from .taylor_multipliers import TaylorMultipliers
from .taylor_one_layer import UnitExpansion, unit_hessian
from .taylor_pair_form import PairForm
from .taylor_pair_proof import proved_by_pairs
from .taylor_proof import proved
from .taylor_room import Room
from .taylor_top import State
from .taylor_unit_forms import UnitLayout

FloatArray = npt.NDArray[np.float64]

#: Rounds, in which eta, tau and the floors change, for polynomials of the second and the third order.
_ROUNDS = {2: 4, 3: 10}
#: The same in pairs of units, and where dense matrices come after them: with more parameters than so many.
_PAIR_ROUNDS, _ROUGH_PARAMS = (10, 3), 40
#: Bounds that are so many times worse than a known one do not become better.
_HOPELESS = 4.0
#: What is left out may not have an eigenvalue so many times larger than a known bound.
_BEYOND = 2.0
#: How close to the smallest eigenvalue others count for the moment of the changes.
_NEAR = 0.02
#: The rounds end after some in a row that improve the bound by less; how many of the first are left out, and after how many they
#: end: without a choice to start from, with one (or that of cheap steps, as polynomials of the second order have), and in pairs.
_WORTHWHILE, _COLD, _WARM, _PAIRS = 0.005, (0, 2), (2, 1), (0, 1)
#: Share of the squares from which on data are tried without theirs: those that leave out so many times the mean; and most
#: parameters for that.
_COSTLY_SHARE, _OUTLYING, _OUTLYING_PARAMS = 0.1, 3.0, 40


def step_work(net: MLP, loss: str, num_samples: int) -> float:
    """Multiplications of all steps, roughly."""
    kind = polynomial_kind(net, loss, num_samples)
    order = order_of(kind)
    if kind == "pairs":
        # Small products take some six times as long as large ones.
        return sum(pair_steps(turn)[0] for turn in range(_PAIR_ROUNDS[0] // 2)) * 6.0 * UnitLayout(net).nodes.elimination_work
    return sum(steps(net.num_params, order, turn)[0] for turn in range(_ROUNDS[order])) * one_step(net.num_params)


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
    lifted: Form | None = None
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
    the ``kept`` data count; where all do and a share from ``costly`` on is given up, outlying data are tried without. With
    many parameters that takes long and gained three per cent at most.
    """

    def bound(kept: FloatArray, start: State | None) -> Found | None:
        return _bound_with(obj, centre, room, radius, known, cancelled, kept, start)

    found = bound(kept, start)
    if found is None or found.lifted is None or found.state is None:
        return found
    if found.state.share < costly or found.lifted.size > _OUTLYING_PARAMS:
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
    kind = polynomial_kind(obj.net, obj.loss, obj.data.num_samples, whole=room.direction is None)
    best, lifted = Found(-np.inf), None
    if kind in ("units", "pairs"):
        found = unit_hessian(obj.net, centre, room, obj.data, obj.targets, kept, cancelled)
        if found is not None and _least_head(found) >= known:
            first = kind == "pairs" or (start is None and obj.num_params > _ROUGH_PARAMS)
            if first:
                best = _in_pairs(PairForm(found, room, radius), known, cancelled, kept, _PAIR_ROUNDS[kind == "units"])
                start = best.lifted.dense(best.state) if isinstance(best.lifted, PairForm) and best.state is not None else None
            if kind == "units" and not (first and best.psi_lower < _HOPELESS * known):
                lifted = Lifted(found.dense(), room, radius)
    else:
        lifted = lifted_in(obj, centre, room, radius, kind, cancelled, kept, -_BEYOND * known)
    if lifted is not None and lifted.finite and not cancelled[0]:
        last = _with_matrices(lifted, start, known, cancelled, kept)
        best = last if last.psi_lower >= best.psi_lower else best
    return None if best.psi_lower == -np.inf and cancelled[0] else best


def _in_pairs(form: PairForm, known: float, cancelled: npt.NDArray[np.int32], kept: FloatArray, count: int) -> Found:
    """The best bound of some rounds with the form in pairs of units."""
    state = promising(form, known) if form.finite else None
    return Found(-np.inf) if state is None else _rounds(form, state, known, cancelled, kept, count, _PAIRS)


def _with_matrices(
    lifted: Lifted, start: State | None, known: float, cancelled: npt.NDArray[np.int32], kept: FloatArray
) -> Found:  # fmt: skip
    """The best bound with dense matrices, perhaps from a choice that was good for something similar."""
    state = promising(lifted, known) if start is None else fitting(lifted, start, cancelled)
    if state is None:
        return Found(-np.inf)
    if start is None and lifted.order == 2:
        state = begun(lifted, state, cancelled)
    beginning = _COLD if start is None and lifted.order == 3 else _WARM
    return _rounds(lifted, state, known, cancelled, kept, _ROUNDS[lifted.order], beginning)


def _rounds(
    form: Form,
    state: State,
    known: float,
    cancelled: npt.NDArray[np.int32],
    kept: FloatArray,
    count: int,
    beginning: tuple[int, int],
) -> Found:
    """The best bound of some rounds; how many of the first are left out, and after how many in vain they end."""
    best, idle, (skipped, patience) = Found(-np.inf), 0, beginning
    for turn in range(count):
        if turn > 0:
            # Steps have moved eta, but may be only a little in the first round.
            state = renewed(form, state, cancelled, far=turn == 1)
        if cancelled[0]:
            break
        state = maximised(form, state, turn + skipped, cancelled)
        lams = state.lams / form.most[:, None, None]
        value = proved_by_pairs(form, state, lams) if isinstance(form, PairForm) else proved(form, lams, state)
        idle = 0 if value > best.psi_lower + _WORTHWHILE * abs(value) else idle + 1
        if value > best.psi_lower:
            best = Found(value, form.multipliers(state, lams, kept), lams)
        if idle == patience or value < _HOPELESS * known:
            break
    return replace(best, lifted=form, state=state)


def lifted_in(
    obj: Objective,
    centre: FloatArray,
    room: Room,
    radius: float,
    kind: Kind,
    cancelled: npt.NDArray[np.int32],
    kept: FloatArray,
    most: float = np.inf,
    narrow: float | None = None,
) -> Lifted | None:
    """The form in z, from polynomials of a kind with dense derivatives.

    None if cancelled, or where numbers overflow or what is left out has an eigenvalue above ``most``.
    """
    found = taylor_hessian(obj.net, centre, room, obj.data, obj.targets, obj.loss, order_of(kind), cancelled, most, kept)
    if found is None:
        return None
    lifted = Lifted(found, room, radius, narrow)
    return None if cancelled[0] or not lifted.finite else lifted


def _least_head(found: UnitExpansion) -> float:
    """No bound will be better: the smallest eigenvalue at the centre, with what is taken off the squares' factors."""
    head = found.residual.head + found.squares.head
    return float(np.linalg.eigvalsh(0.5 * (head + head.T))[0]) if np.isfinite(head).all() else -np.inf


def _moment(found: Found) -> FloatArray | None:
    """The second moment of delta where the form is least, over eigenvectors of eigenvalues close to the smallest."""
    lifted, state = found.lifted, found.state
    assert lifted is not None and state is not None
    least = lifted.least(state, state.lams)
    if least is None or least.rest is None:
        return None
    values, vectors = np.linalg.eigh(least.schur)
    weights = np.exp((values[0] - values) / (_NEAR * abs(values[0]) + 1e-300))
    by_delta = least.rest.reshape((lifted.size,) * 3) @ (vectors * np.sqrt(weights))
    return np.asarray(np.tensordot(by_delta, by_delta, ((1, 2), (1, 2))))
