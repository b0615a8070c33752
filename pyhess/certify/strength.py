"""Upper ends for penalties with unequal weights: a matrix below all Hessians of a region, not just a number.

If ``v'H(theta)v >= v'Mv`` for all theta of the region and all v, the objective is convex from the smallest lam on that makes
``M + diag c(lam)`` positive semi-definite. Three such matrices are tried:

    the residual part's enclosure [R] over a box, as a comparison matrix: ``v'Rv >= -|v|'N|v|`` with N_ij = max |R_ij| and
    N_ii = -min R_ii, so that M = -N may be used with |v| for v;
    R(c) - e I and H(c) - e' I at the centre c, e and e' the centre bound's changes (see `centre`).

That c(lam) may be astronomically large or small does no harm: rows and columns are scaled by powers of two first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from ..penalties import Penalty
from ..regions import Ball, Box, Region
from .centre import Centre, centre_bounds
from .dense import dense_cost, dense_enclosures
from .intervals import TINY, UNIT, Interval, gamma
from .matrices import comparison_matrix
from .propagate import box_cell, point_cell, whole_cell
from .spectral import eigval_min_bound, norm_bound

FloatArray = npt.NDArray[np.float64]

#: Larger problems make do with the bound of psi alone.
_MAX_PARAMS, _MAX_COST = 1500, 2e10
#: lam is looked for up to here, and to this relative accuracy.
_MAX_LAM, _ACCURACY = 2.0**60, 1e-8
_LOWEST_EXPONENT = -120.0
#: Powers of two that rows are scaled by, and the logarithm of the largest diagonal entry kept.
_MAX_SHIFT, _LARGEST = 500, 1.0


@dataclass(frozen=True)
class StrengthBound:
    """A proved upper bound of the threshold of a penalty, infinite where there is none, and what proves it."""

    lam_upper: float
    statement: str


def strength_bound(
    obj: Objective, region: Region, penalty: Penalty, psi_lower: float, *, cancel: npt.NDArray[np.int32] | None = None
) -> StrengthBound:
    """Prove an upper bound of lam*, from a bound of psi and, for small networks, from matrices below all Hessians.

    Parameters
    ----------
    obj : Objective
        Network, data and loss.
    region : Region
        Bound to the network.
    penalty : Penalty
        Bound to the network.
    psi_lower : float
        A certified lower bound of psi, or -inf.
    cancel : (1,) int32 array, optional
        Set ``cancel[0] = 1`` from another thread to end early.
    """
    stop = np.zeros(1, dtype=np.int32) if cancel is None else cancel
    best = StrengthBound(penalty.sufficient(-psi_lower), penalty.upper_rule)
    if obj.net.num_layers == 1 or not penalty.upper_rule or obj.num_params > _MAX_PARAMS:
        return best
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for name, matrix in _minorants(obj, region, stop):
            lam = _smallest_strength(matrix, penalty, best.lam_upper, stop)
            if lam < best.lam_upper:
                best = StrengthBound(lam, f"the smallest lam that makes M + diag c(lam) positive semi-definite, M {name}")
    return best


def _minorants(obj: Objective, region: Region, stop: npt.NDArray[np.int32]) -> Iterator[tuple[str, FloatArray]]:
    for part in region.enclosures():
        if isinstance(part, Box):
            box, centre = part, 0.5 * part.low + 0.5 * part.high
        else:
            assert isinstance(part, Ball)
            centre = np.array(part.center)
            box = part.box_around()
        cell = box_cell(obj.net, box)
        if dense_cost(cell, obj.data.num_samples) > _MAX_COST or stop[0]:
            return
        over = dense_enclosures(cell, obj.data, obj.targets, obj.loss, stop)
        if over is None:
            return
        yield "minus the comparison matrix of the residual part over the region", comparison_matrix(over[0])
        point = point_cell(obj.net, centre)
        matrices = dense_enclosures(point, obj.data, obj.targets, obj.loss, stop)
        if matrices is None:
            return
        residual, gauss = matrices
        changes = centre_bounds(whole_cell(obj.net, part), Centre(point, 0.0, 0.0), obj.data, obj.targets, obj.loss, stop)
        if changes is None:
            return
        yield "the residual part at the centre less the bound of its change", _shifted(residual, -changes[0])
        yield "the Hessian at the centre less the bound of its change", _shifted(residual + gauss, -changes[1])


def _shifted(matrix: Interval, change: float) -> FloatArray:
    """A matrix below every symmetric one in the enclosure that has changed by no more than ``change`` in norm."""
    middle = 0.5 * (matrix.middle + matrix.middle.T)
    radius = matrix.radius + np.abs(matrix.middle - middle)
    below: FloatArray = middle.copy()
    diagonal = np.diag_indices(below.shape[0])
    below[diagonal] -= (norm_bound(radius) + change) * (1.0 + gamma(below.shape[0] + 8)) + TINY
    below[diagonal] -= 4.0 * UNIT * np.abs(below[diagonal])
    return below


def _smallest_strength(matrix: FloatArray, penalty: Penalty, known: float, stop: npt.NDArray[np.int32]) -> float:
    """A proved lam with ``matrix + diag c(lam)`` positive semi-definite, near the smallest; inf if not below ``known``."""
    if not np.isfinite(matrix).all():
        return math.inf
    if _is_enough(matrix, penalty, 0.0, proved=True):
        return 0.0
    high = min(known, _MAX_LAM)
    if not _is_enough(matrix, penalty, high, proved=False):
        return math.inf
    low_mu, high_mu = _LOWEST_EXPONENT, math.log(high)
    while high_mu - low_mu > _ACCURACY and not stop[0]:
        mu = 0.5 * (low_mu + high_mu)
        low_mu, high_mu = (low_mu, mu) if _is_enough(matrix, penalty, math.exp(mu), proved=False) else (mu, high_mu)
    for excess in (_ACCURACY * 4.0**k for k in range(12)):
        lam = math.exp(high_mu) * (1.0 + excess)
        if stop[0] or lam >= known:
            return math.inf
        if _is_enough(matrix, penalty, lam, proved=True):
            return lam
    return math.inf


def _is_enough(matrix: FloatArray, penalty: Penalty, lam: float, *, proved: bool) -> bool:
    """Whether ``matrix + diag c(lam)`` is positive semi-definite: rigorously, or as far as a Cholesky factorisation tells."""
    size = matrix.shape[0]
    with np.errstate(divide="ignore"):
        logs = penalty.log_curvature(lam, size) / math.log(2.0)
    shifts = np.clip(np.rint(0.5 * np.where(np.isfinite(logs), logs, 0.0)), 0.0, _MAX_SHIFT)
    factor = np.exp2(-shifts)  # exact
    scaled = factor[:, None] * matrix * factor
    exponents = np.minimum(logs - 2.0 * shifts, _LARGEST)
    # The exponents' rounding, and that of the sum below, stay under this share.
    added = np.exp2(exponents) * (1.0 - 16.0 * UNIT * (np.where(np.isfinite(logs), np.abs(logs), 0.0) + 2.0 * shifts + 8.0))
    diagonal = np.diag_indices(size)
    scaled[diagonal] += added
    if not proved:
        try:
            np.linalg.cholesky(scaled)
        except np.linalg.LinAlgError:
            return False
        return True
    scaled[diagonal] -= 4.0 * UNIT * np.abs(scaled[diagonal]) + size * TINY
    return eigval_min_bound(scaled) >= 0.0
