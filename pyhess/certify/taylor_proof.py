"""The proof of a bound by the Taylor polynomial, from its multipliers alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .intervals import UNIT, gamma
from .spectral import eigvals_min_bound, negative_slacks
from .taylor_lifted import Lifted
from .taylor_multipliers import TaylorMultipliers
from .taylor_systems import precision, solution
from .taylor_top import State, Top

FloatArray = npt.NDArray[np.float64]


def roundings(form: Top, given: State | TaylorMultipliers, of_lams: float, turned: float) -> float:
    """What the parts' rounding is at most, relative to sums of absolute terms, for sizes of the multipliers and of R A."""
    total, rests = float(form.rounding(given).sum(axis=1).max()) + of_lams, form.rests(given.share)
    total += turned + float(np.abs(rests.matrix(given.weights)).sum(axis=1).max())
    return gamma(16) * total + form.cubic_rounding(given) + rests.rounding(given.weights)


def proved(lifted: Lifted, lams: FloatArray, given: State | TaylorMultipliers) -> float:
    """A claim for which the form is positive semi-definite, near the largest.

    ``lams`` (1 or 2, P, P) are the multipliers of a ball, or of a slab's parts; -inf if one may not be positive definite.
    """
    size = lifted.size
    if not eigvals_min_bound(lams).min() >= 0.0:
        return -np.inf
    turned = 0.5 * lifted.ball * (given.turned - given.turned.transpose(0, 2, 1))
    half = (lifted.half(given.share) + turned).reshape(size * size, size)
    head = lifted.head(given) - np.tensordot(lifted.most, lams, 1)
    whole = np.empty((size + size**2,) * 2)
    whole[:size, :size], whole[size:, :size], whole[:size, size:] = head, half, half.T
    tail = lifted.tail(given)
    lifted.add_spread(lams, tail)
    whole[size:, size:] = tail
    # What is claimed is near the largest claim, which does not have to be known well.
    rest = solution(tail, half) if np.isfinite(tail).all() else None
    del tail
    if rest is None:
        return -np.inf
    schur = head - half.T @ rest
    if not np.isfinite(schur).all():
        return -np.inf
    least = float(np.linalg.eigvalsh(0.5 * (schur + schur.T))[0])
    of_lams = float(np.abs(lams).sum(axis=2).max(axis=1).sum()) * (1.0 + gamma(size + 16))
    rounding = roundings(lifted, given, of_lams, float(np.sqrt((turned**2).sum())))
    projections = 0.0 if len(lams) == 1 else gamma(4 * size + 64) * of_lams
    # |z|² relative to |v|².
    lengths = (1.0 + (lifted.reach / lifted.ball) ** 2) * (1.0 + gamma(8))
    # More rows, more roundings.
    margin = (1e-10 if precision(size**2) is np.float64 else 1e-7) * abs(least)
    places, diagonal = np.arange(size), np.diag(head)
    for _ in range(8):
        claim = least - margin
        whole[places, places] = diagonal - claim
        slacks = negative_slacks(whole[None])
        if slacks is not None:
            slack = (
                float(slacks[0])
                + 2.0 * UNIT * float(np.abs(np.diag(whole)).max())
                + rounding
                + gamma(16) * abs(claim)
                + projections
            )
            return float((claim - lengths * slack) - 4.0 * UNIT * abs(claim))
        margin = 8.0 * margin + 1e-15 * float(np.abs(whole).sum(axis=1).max())
    return -np.inf
