"""Sums over the last hidden layer's units, whose weights share one radius, and whose residual is one number.

TODO
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .intervals import Interval, gamma, norms
from .shared_kernel import shared_sups

FloatArray = npt.NDArray[np.float64]

#: Radii are taken for at least this share of what they are about.
_THIN = 1e-4


@dataclass(frozen=True)
class Below:
    """The layer below the units: row norms (..., m) of its weights at the centre, its radius (..., 1), sup |(a, 1)| (..., n) of what
    enters it; s of the units at the centre and how far the layers below can move it (..., n, m).
    """

    rows: FloatArray
    rho: FloatArray
    entering: FloatArray
    at: Interval
    move: FloatArray


def shared_bounds(
    below: Below,
    s: Interval,
    weight: Interval,
    constant: Interval,
    rho: FloatArray,
    bias: bool,
    pieces: tuple[Interval, Interval, Interval],
) -> list[FloatArray]:
    """Bounds (..., n) of |r| |v phi'|, sum_j (-r v_j phi''_j)_+ w_j² and |r| (sum_j (phi'_j w_j)²)^(1/2), w the rows' norms.

    ``s`` (pieces, ..., n, m) and ``pieces`` phi, phi' and phi'' there; otherwise as for `joint_last`.
    """
    value, slope, bend = pieces
    lead, (rows, units) = s.lo.shape[1:-2], s.lo.shape[-2:]
    cells = int(np.prod(lead))
    room = 1.0 + gamma(16)

    def spread(x: FloatArray, *own: int) -> FloatArray:
        return np.array(np.broadcast_to(x, (*lead, *own)), order="C").reshape(cells, *own)

    # How far (W_j, b_j) must be from the centre for s_j to be in a piece.
    gap = np.maximum(0.0, np.maximum(s.lo - below.at.hi, below.at.lo - s.hi)) / room - below.move * room
    least = np.maximum(0.0, gap) / (np.maximum(below.entering, 1e-300)[..., None] * room)
    v = spread(weight.middle, units)
    rho_v = (spread(rho, 1)[:, 0] + norms(spread(weight.radius, units))) * room
    rho_v = np.maximum(rho_v, _THIN * np.abs(v).max(axis=1)) + 1e-30
    norms_below = spread(below.rows, units)
    rho_w = np.maximum(spread(below.rho, 1)[:, 0] * room, _THIN * norms_below.max(axis=1)) + 1e-30
    base = np.stack([spread(constant.hi[..., 0], rows), spread(-constant.lo[..., 0], rows)])

    def pieced(x: FloatArray) -> FloatArray:
        return np.ascontiguousarray(np.moveaxis(x, 0, -1)).reshape(cells, rows, units, -1)

    out = np.empty((3, cells, rows))
    of_pieces = (pieced(x) for x in (value.lo, value.hi, slope.magnitude, bend.lo, bend.hi, least))
    shared_sups(base, v, norms_below, rho_v, rho_w, bias, *of_pieces, out)
    return [x.reshape(*lead, rows) for x in out]
