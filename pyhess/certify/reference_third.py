"""The bound by third derivatives over a ball, proved anew from the multipliers that a certificate brings along.

With D_k in T_k, the mean over concentric balls of ranges of the third derivatives, and any U_k, Lam > 0, w > 0, x > 0,

    H(theta) >= H(c) - diag(q) - R² Lam - sum_k U_k'Lam^-1 U_k,
    q = R² x/2 + (sum_k N_k diag(1/x) N_k w) / (2 w),    N_k >= |D_k - U_k - U_k'|,

by 2 (delta_k v)'(U_k v) >= -delta_k² v'Lam v - (U_k v)'Lam^-1 (U_k v). Nothing is searched for. A matrix A is positive definite
if for some W, |W A W' - I| < 1, and then A^-1 <= W'W / (1 - |W A W' - I|); floating point guesses W and x.
"""

from __future__ import annotations

from time import monotonic

import numpy as np
import numpy.typing as npt

from ..regions import Ball
from .reference_hessian import Problem, box_cells, enclosures
from .reference_interval import Range, Wide, down, length, matmul, up, wide, zeros
from .reference_third_tensor import third_seconds, third_tensor
from .third_multipliers import ThirdMultipliers

FloatArray = npt.NDArray[np.float64]


def prove_third(
    problem: Problem, region: Ball, claim: float, multipliers: ThirdMultipliers | None, deadline: float
) -> tuple[bool, str]:
    """Whether no Hessian of the ball has an eigenvalue below the claim, and how that was found."""
    if multipliers is None:
        return False, "the file does not bring the multipliers along"
    size = problem.num_params
    needed, left = third_seconds(problem), deadline - monotonic()
    if needed > left:
        return False, (
            f"too large for the independent check: {size} parameters and {len(problem.x)} data would take some {needed:.0f} s; "
            f"allowed are {left:.0f} s"
        )
    lam, halves, weights = (wide(x) for x in (multipliers.lam, multipliers.halves, multipliers.weights))
    if not (weights > 0.0).all():
        return False, "the multipliers' weights are not positive"
    square = Range(wide(region.radius)).square().hi
    # Either order of the indices, so that what is taken is symmetric.
    lam_range = Range(lam) * Range(wide(0.5)) + Range(lam.T) * Range(wide(0.5))
    white = whitened(lam_range)
    if white is None:
        return False, "the multiplier Lambda is not positive definite"
    tensor = third_tensor(problem, region, deadline)
    if tensor is None:
        return False, "time ran out before the third derivatives were enclosed"
    radius = _distance(tensor, Range(halves) + Range(np.swapaxes(halves, 1, 2)))
    if not np.isfinite(radius).all():
        return False, "the third derivatives are not bounded"
    turn, grown = white
    taken = Range(grown) * _sum_of_squares(turn, halves) + Range(square) * lam_range
    point = wide(region.center)[None]
    _, whole = enclosures(problem, box_cells(problem, point, point), gauss=True)
    assert whole is not None
    total = whole[0] - taken
    lo, hi = total.lo.copy(), total.hi.copy()
    places = np.arange(size)
    off = up(_diagonal(radius, weights, square) + wide(claim))
    lo[places, places], hi[places, places] = down(lo[places, places] - off), up(hi[places, places] - off)
    if monotonic() > deadline:
        return False, "time ran out"
    if whitened(Range(np.minimum(lo, lo.T), np.maximum(hi, hi.T))) is None:
        return False, "what the multipliers prove, written out anew, is less"
    return True, "the Hessian at the centre and third derivatives over concentric balls, with the multipliers of the file"


def whitened(matrix: Range) -> tuple[Wide, Wide] | None:
    """(W, t) with A^-1 <= t W'W for every symmetric A (P, P) in the range, all positive definite; None if that is not shown."""
    middle = (0.5 * (matrix.lo + matrix.hi)).astype(np.float64)
    if not np.isfinite(middle).all():
        return None
    try:
        turn = wide(np.linalg.inv(np.linalg.cholesky(0.5 * (middle + middle.T))))
    except np.linalg.LinAlgError:
        return None
    if not np.isfinite(turn).all():
        return None
    unit = matmul(matmul(Range(turn), matrix), Range(turn.T))
    error = length((unit - Range(wide(np.eye(len(middle))))).size().reshape(1, -1))[0]
    if not error < 1.0:
        return None
    return turn, up(1.0 / down(1.0 - error))


def _sum_of_squares(turn: Wide, halves: Wide) -> Range:
    """The sum over k of (W U_k)'(W U_k)."""
    size = len(turn)
    total = Range(zeros((size, size)))
    for half in halves:
        moved = matmul(Range(turn), Range(half))
        total = total + matmul(Range(moved.lo.T, moved.hi.T), moved)
    return total


def _distance(tensor: Range, middle: Range) -> Wide:
    """N (P, P, P), symmetric in the last two."""
    apart = np.maximum(up(tensor.hi - middle.lo), up(middle.hi - tensor.lo))
    return wide(np.maximum(apart, np.swapaxes(apart, 1, 2)))


def _diagonal(radius: Wide, weights: Wide, square: Wide) -> Wide:
    """The diagonal q (P,), rounded up."""
    n, w = Range(radius), Range(weights)
    applied = (n * w[None, None, :]).sum(2).hi  # (k, b)
    plain = np.sqrt((applied.astype(np.float64) ** 2).sum(axis=0)) / (float(np.sqrt(float(square))) * weights.astype(np.float64))
    x = Range(wide(np.maximum(plain, 1e-12 * plain.max() + 1e-150)))
    again = (n * (Range(applied) / x[None, :])[:, None, :]).sum(2).sum(0)
    return ((Range(square) * x + again / w) * Range(wide(0.5))).hi
