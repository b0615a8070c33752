"""Sums over the last hidden layer's units, in a ball: the units share their layer's radius, and all of them make the residual.

With one output and the squared error, r = c - y + sum_j v_j phi(s_j), and the recursions need bounds of

    |r|^p sum_j F_j,    F_j = (v_j phi'_j)², (-r/|r| v_j phi''_j)_+ w_j² or (phi'_j w_j)²,    p = 2, 1 or 2,

w_j the norm of W_j, the weights that enter unit j. The units' v_j share a radius rho_v, and their (W_j, b_j) a radius rho_w:
with d_j the change of v_j and e_j that of (W_j, b_j), sum d_j² <= rho_v² and sum e_j² <= rho_w². A unit whose weights change
little has a w_j near that at the centre, and an s_j that is known well. As log x <= x - 1, for any m_r, m_f, m_v, m_w > 0

    log(|r|^p F) <= m_r p |r| + m_f F - p - 1 - log(m_r^p m_f)
                 <= m_r p |c - y| + m_v rho_v² + m_w rho_w² - p - 1 - log(m_r^p m_f)
                    + sum_j max (m_r p sign(r) v_j phi(s_j) + m_f F_j - m_v d_j² - m_w e_j²),

and every unit's largest value is found by itself: over pieces of s_j, on which e_j is at least the distance of s_j from what the
layers below can do by themselves, over |sup (a, 1)|. Where the output bias shares rho_v, its own change adds p² m_r²/(4 m_v). All
multipliers prove a bound; a subgradient method looks for good ones, as the logarithm is convex in them.
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
#: What is left to a check of a certificate, which looks for multipliers of its own.
_ROOM = 0.006


@dataclass(frozen=True)
class Below:
    """What enters the units: row norms (..., n, m) of the weights at the centre, times the slopes below over the largest of them;
    the layer's radius (..., 1) and sup |(a, 1)| (..., n); s at the centre, and how far the layers below can move it (..., n, m).
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
    known: FloatArray,
) -> list[FloatArray]:
    """Bounds (..., n) of |r| |v phi'|, sum_j (-r v_j phi''_j)_+ w_j² and |r| (sum_j (phi'_j w_j)²)^(1/2).

    ``s`` (pieces, ..., n, m) and ``pieces`` phi, phi' and phi'' there; ``known`` of the first; otherwise as for `joint_last`.
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
    norms_below = spread(below.rows, rows, units)
    rho_w = np.maximum(spread(below.rho, 1)[:, 0] * room, _THIN * norms_below.max(axis=(1, 2))) + 1e-30
    base = np.stack([spread(constant.hi[..., 0], rows), spread(-constant.lo[..., 0], rows)])

    def pieced(x: FloatArray) -> FloatArray:
        return np.ascontiguousarray(np.moveaxis(x, 0, -1)).reshape(cells, rows, units, -1)

    out = np.empty((3, cells, rows))
    of_pieces = (pieced(x) for x in (value.lo, value.hi, slope.magnitude, bend.lo, bend.hi, least))
    shared_sups(base, v, norms_below, rho_v, rho_w, bias, *of_pieces, spread(known, rows), out)  # type: ignore[call-arg]
    return [x.reshape(*lead, rows) * (1.0 + _ROOM) for x in out]
