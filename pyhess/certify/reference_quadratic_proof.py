"""The bound by the Hessian's Taylor polynomial over a ball, proved anew from the multipliers that a certificate brings along.

With the polynomial and its rest of `reference_quadratic_hessian`, z = (v, delta x v / R), any Lam >= 0, antisymmetric A_k, w > 0
and 0 < eta <= 1, as sum_k delta_k v'A_k v = 0 and |delta| <= R,

    v'(H(theta) - claim)v >= z' [ head - diag(q) - Lam - claim,  R U' ; R U,  R² tail + I x Lam ] z,
    U_k = half_k + A_k,    q_a = (N w)_a / w_a,    N the rest.

Nothing is searched for. The matrix M is rounded to doubles, B, by |M - B| <= e. If Cholesky of B less tau on v's part runs to
completion in doubles, that has no eigenvalue below -s = -gamma trace, gamma = (n + 1)u / (1 - 2(n + 1)u) (S. M. Rump, BIT 46
(2006)). As the part of z beyond v is no longer than v, tau >= 2 (s + e) is enough.
"""

from __future__ import annotations

from time import monotonic

import numpy as np
import numpy.typing as npt

from ..regions import Ball
from .reference_hessian import Problem
from .reference_interval import UNIT, Range, Wide, up, wide, zeros
from .reference_quadratic import grown
from .reference_quadratic_hessian import Form, quadratic_hessian, quadratic_products
from .taylor_multipliers import TaylorMultipliers

FloatArray = npt.NDArray[np.float64]

#: Parameters whose P⁴ coefficients fit into memory.
_MOST_PARAMS = 48
#: Seconds per multiplication, per unit of a datum, and per number of the whole matrix, for estimates.
_PRODUCT_SECONDS, _UNIT_SECONDS, _NUMBER_SECONDS = 6e-9, 8e-4, 1e-6
#: Unit roundoff of double.
_DOUBLE = 2.0**-53


def quadratic_seconds(problem: Problem) -> float:
    """Time that `prove_quadratic` takes, roughly."""
    units = len(problem.x) * sum(problem.widths[1:])
    numbers = float(problem.num_params + problem.num_params**2) ** 2
    return _PRODUCT_SECONDS * quadratic_products(problem) + _UNIT_SECONDS * units + _NUMBER_SECONDS * numbers


def prove_quadratic(
    problem: Problem, region: Ball, claim: float, multipliers: TaylorMultipliers | None, deadline: float
) -> tuple[bool, str]:
    """Whether no Hessian of the ball has an eigenvalue below the claim, and how that was found."""
    if multipliers is None:
        return False, "the file does not bring the multipliers along"
    size = problem.num_params
    needed, left = quadratic_seconds(problem), deadline - monotonic()
    if needed > left or size > _MOST_PARAMS:
        return False, (
            f"too large for the independent check: {size} parameters and {len(problem.x)} data would take some {needed:.0f} s; "
            f"allowed are {left:.0f} s and {_MOST_PARAMS} parameters"
        )
    lower = np.tril(multipliers.lam)
    lam = lower + np.tril(lower, -1).T
    if not (multipliers.weights > 0.0).all():
        return False, "the multipliers' weights are not positive"
    if not 0.0 < multipliers.share <= 1.0:
        return False, f"the multipliers' share {multipliers.share!r} is not in (0, 1]"
    if not not_negative(wide(lam), size):
        return False, "the multiplier Lambda is not shown to be positive semi-definite"
    found = quadratic_hessian(problem, region, deadline)
    if found is None:
        return False, "time ran out before the Taylor polynomial was enclosed"
    matrix, error = _matrix(*found, wide(region.radius), claim, lam, multipliers)
    if monotonic() > deadline:
        return False, "time ran out"
    if not not_negative(matrix, size, error):
        return False, "what the multipliers prove, written out anew, is less"
    return (
        True,
        "the Hessian's Taylor polynomial of the second order at the centre and its rest, with the multipliers of the file",
    )


def not_negative(matrix: Wide, size: int, error: Wide | None = None) -> bool:
    """Whether z'Mz >= 0 for all z = (v, w) with v of the given size and |w| <= |v|, for symmetric M.

    That is shown for all that are, entry by entry, within ``error`` of the given one.
    """
    rounded = matrix.astype(np.float64)
    off = np.abs(matrix - rounded) * (1.0 + 4.0 * UNIT)
    off = off if error is None else off + error
    if not np.isfinite(rounded).all() or not np.isfinite(off.astype(np.float64)).all():
        return False
    count = len(rounded)
    norm = float(grown(off.sum(axis=1).max(), count))
    diagonal = np.abs(np.diag(rounded))
    below = (count + 4) * _DOUBLE / (1.0 - 2.0 * (count + 4) * _DOUBLE) * float(diagonal.sum()) * (1.0 + 4.0 * count * _DOUBLE)
    # Subtracting tau rounds the diagonal, and tau may add to the trace in absolute value.
    tau = 2.25 * (below + norm + 2.0 * _DOUBLE * float(diagonal.max())) + 1e-290
    places = np.arange(size)
    rounded[places, places] -= tau
    try:
        np.linalg.cholesky(rounded)
    except np.linalg.LinAlgError:
        return False
    return True


def _matrix(
    whole: Form, squares: Form, ball: Wide, claim: float, lam: FloatArray, multipliers: TaylorMultipliers
) -> tuple[Wide, Wide]:
    """M (P + P², P + P²), and bounds of its entries' errors."""
    size = len(lam)
    share, weights = wide(multipliers.share), wide(multipliers.weights)
    turned = 0.5 * (wide(multipliers.turned) - wide(np.swapaxes(multipliers.turned, 1, 2)))
    kept = 1.0 - share
    extra = up(up(1.0 - share) / share)
    rest = Range(grown(whole.rest + extra * squares.rest))
    q = ((rest * Range(weights[None, :])).sum(1) / Range(weights)).hi

    def assembled(sign: float, parts: list[tuple[Wide, Wide]], turned: Wide, corner: Wide) -> Wide:
        head, half, tail = (one + kept * other for one, other in parts)
        flat = tail.reshape(size * size, -1)
        into = (ball * (half + turned)).reshape(size * size, size)
        found = zeros((size + size * size,) * 2)
        found[:size, :size] = 0.5 * (head + head.T) - sign * corner
        found[size:, :size], found[:size, size:] = into, into.T
        found[size:, size:] = 0.5 * ball * ball * (flat + flat.T) + np.kron(np.eye(size), lam if sign > 0.0 else np.abs(lam))
        return found

    parts = [(whole.head, squares.head), (whole.half, squares.half), (whole.tail, squares.tail)]
    places = np.arange(size)
    corner, sizes = wide(lam).copy(), wide(np.abs(lam)).copy()
    corner[places, places] += q + wide(claim)
    sizes[places, places] += q + abs(wide(claim))
    matrix = assembled(1.0, parts, turned, corner)
    coarse = assembled(-1.0, [(np.abs(x), np.abs(y)) for x, y in parts], np.abs(turned), sizes)
    return matrix, 32.0 * UNIT * coarse
