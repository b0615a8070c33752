"""Bounds from the enclosure of the residual part R over a cell: one interval matrix, two ways to its smallest eigenvalue.

    comparison:  v'Rv >= -|v|'N|v|,  N_ij = max |R_ij| and N_ii = -min R_ii: optimally scaled Gershgorin discs;
    deif:        v'Rv >= v'(C - diag(q))v for every R = C ± rad, with q_i = (rad d)_i / d_i and any d > 0.

With d the Perron vector of rad, q is its spectral radius everywhere, Deif's bound; d near the |eigenvector| of the smallest
eigenvalue makes
the second bound at least as good as the first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data import Dataset
from .dense import dense_enclosures
from .intervals import TINY, UNIT, Interval, gamma
from .propagate import Cell
from .spectral import eigval_min_bound

FloatArray = npt.NDArray[np.float64]

_REWEIGHTINGS = 3


def comparison_matrix(enclosure: Interval) -> FloatArray:
    """-N for an enclosure (P, P) of symmetric matrices."""
    below = -np.maximum(enclosure.magnitude, enclosure.magnitude.T)
    below[np.diag_indices(below.shape[0])] = np.diag(enclosure.lo)
    return below


def comparison_bound(enclosure: Interval) -> float:
    """Lower bound of the smallest eigenvalue of every symmetric matrix in the enclosure, by the comparison matrix."""
    return eigval_min_bound(comparison_matrix(enclosure))


def deif_bound(enclosure: Interval) -> float:
    """The same by the middle less the scaled row sums of the radii, for several scalings."""
    middle = 0.5 * (enclosure.middle + enclosure.middle.T)
    radius = enclosure.radius + np.abs(enclosure.middle - middle)
    radius = np.maximum(radius, radius.T) * (1.0 + gamma(4))
    if not (np.isfinite(middle).all() and np.isfinite(radius).all()):
        return float("-inf")
    size = middle.shape[0]
    diagonal = np.diag_indices(size)
    best = float("-inf")
    guide = comparison_matrix(enclosure)
    for _ in range(_REWEIGHTINGS):
        weights = np.abs(np.linalg.eigh(guide)[1][:, 0])
        weights = np.maximum(weights, 1e-9 * weights.max())
        taken = (radius @ weights) / weights * (1.0 + gamma(size + 8)) + size * TINY
        guide = middle.copy()
        guide[diagonal] -= taken
        guide[diagonal] -= 4.0 * UNIT * (np.abs(middle[diagonal]) + taken)
        best = max(best, eigval_min_bound(guide))
    return best


def residual_enclosure(
    cell: Cell, data: Dataset, targets: FloatArray, loss: str, cancelled: npt.NDArray[np.int32]
) -> Interval | None:
    """R over the cell (P, P), None if cancelled."""
    found = dense_enclosures(cell, data, targets, loss, cancelled, gauss=False)
    return None if found is None or cancelled[0] else found[0]
