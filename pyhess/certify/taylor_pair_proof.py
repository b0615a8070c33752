"""The proof of a bound by the form in pairs of units: a Cholesky factorisation with the leaves first, then the core, then v."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dpotrf

from .intervals import TINY, UNIT, gamma
from .spectral import eigvals_min_bound
from .taylor_pair_form import PairForm
from .taylor_pairs import Eliminated, PairSystem
from .taylor_proof import roundings
from .taylor_top import State

FloatArray = npt.NDArray[np.float64]


def proved_by_pairs(form: PairForm, state: State, lams: FloatArray) -> float:
    """A claim for which the form is positive semi-definite, near the largest, as `proved`, for blocks (G, D, D) of Lam."""
    nodes, size = form.nodes, form.size
    if not eigvals_min_bound(lams).min() >= 0.0:
        return -np.inf
    top = form.in_groups(form.head(state)) - form.together(lams)
    tail, sides = form.tail(state), form.sides(state)
    tail.add_spread(lams)
    system = PairSystem(tail, sides)
    if system.failed or not np.isfinite(top + system.schur).all():
        return -np.inf
    least = float(np.linalg.eigvalsh(top + system.schur)[0])
    # Unused slots have any positive number on their diagonal.
    whole = np.diag(np.full(nodes.slots, abs(least) + TINY))
    diagonal = np.diag(top).copy()
    of_lams = float(np.abs(lams).sum(axis=2).max()) * (1.0 + gamma(nodes.one + 16))
    rounding = roundings(form, state, of_lams, form.turns.sides(form.ball * state.turned).length)
    rows = nodes.slots + nodes.slots**2
    lengths = (1.0 + (form.reach / form.ball) ** 2) * (1.0 + gamma(8))
    margin, places = 1e-10 * abs(least), np.arange(size)
    for _ in range(8):
        claim = least - margin
        whole[:size, :size] = top
        whole[places, places] = diagonal - claim
        eliminated = Eliminated(tail, sides, whole)
        if not eliminated.failed and dpotrf(eliminated.whole.T, lower=1, clean=0)[1] == 0:
            # As `negative_slacks`: the factor is one of the whole matrix, in this order of the rows.
            trace = float(np.abs(np.diag(whole)).sum()) + tail.trace
            slack = 2.0 * gamma(rows + 3) * trace * (1.0 + gamma(rows + 8)) + TINY
            slack += 2.0 * UNIT * float(np.abs(np.diag(whole)).max()) + rounding + gamma(16) * abs(claim)
            return float((claim - lengths * slack) - 4.0 * UNIT * abs(claim))
        margin = 8.0 * margin + 1e-15 * (tail.trace + float(np.abs(whole).sum(axis=1).max()))
    return -np.inf
