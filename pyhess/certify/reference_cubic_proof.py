"""The bound by the Hessian's Taylor polynomial over a ball or a slab of it, proved anew from the multipliers of a certificate.

With the polynomial and its rest of `reference_cubic_hessian`, which takes the file's numbers off, for delta = s d + y of
`reference_changes` with |s| <= h, |y| <= rho, z = (v, delta x v / R), K = dd'/|d|², M the matrix T_klm,ab of P² rows (k, a) and
P³ columns (l, m, b), any Lam, S >= 0, antisymmetric A_k, w > 0, 0 < eta <= 1, tau > 0 and 0 < omega <= 1,

    v'(H(theta) - claim)v >= z' [ top - claim,  R U' ;  R U,  R² (tail - tau/2 M^ M^') + (I - K) x Lam + K/|d|² x S ] z,
    top = head - diag(q) - rho²/R² Lam - h²/R² S - chi²/(2 tau),    chi = rho² + h²|d|²/omega²,
    U_k = half_k + A_k,    q_a = (N w)_a / w_a,    N the rest,

as y'y = delta'(I - K)delta, s² = delta'K delta/|d|², sum_k delta_k v'A_k v = 0, and for B = I - (1 - omega)K, M^ = M with B on
l and m, u = delta x v, x = B⁻¹delta x B⁻¹delta x v

    u'Mx^ = u'M^x >= -tau/2 |M^'u|² - |x|²/(2 tau),    |x| <= chi,    x^ = delta x delta x v.

Only B² = I - less dd' and so omega² = 1 - less |d|² have to be known. In a whole ball K = 0 and rho = R, the radius. Polynomials
of the second order have no M, tau and omega: there is neither tau/2 M^ M^' nor chi²/(2 tau).

Nothing is searched for. The whole matrix is rounded to doubles, B, by at most e. If Cholesky of B less sigma on v's part runs to
completion in doubles, that has no eigenvalue below -s = -gamma trace, gamma = (n + 1)u / (1 - 2(n + 1)u) (S. M. Rump, BIT 46
(2006)). As the part of z beyond v is no longer than g v, g the length of the longest delta over R, sigma >= (1 + g²)(s + e) is
enough.
"""

from __future__ import annotations

from time import monotonic

import numpy as np
import numpy.typing as npt

from ..regions import Ball
from .reference_changes import DOUBLE, Changes, grown
from .reference_cubic_hessian import cubic_hessian, cubic_hessian_seconds
from .reference_cubic_matrix import cubic_term, from_lower, whole_matrix
from .reference_hessian import Problem
from .reference_interval import UNIT, Range, Wide, wide
from .slab_multipliers import Slab
from .taylor_multipliers import TaylorMultipliers

FloatArray = npt.NDArray[np.float64]

#: Parameters whose coefficients fit into memory, by the polynomials' order: P⁵ / 6 and P⁴, with a matrix of P² rows.
_MOST_PARAMS = {2: 72, 3: 40}
#: Seconds per product of T with itself, per number of the whole matrix, and per product of its factorisation, for estimates.
_PRODUCT_SECONDS, _NUMBER_SECONDS, _FACTOR_SECONDS = 1e-10, 1.5e-7, 5e-11


def cubic_seconds(problem: Problem, order: int) -> float:
    """Time that `why_not_proved` takes, roughly, with polynomials of an order."""
    size = float(problem.num_params)
    rows, products = size + size**2, size**7 / 4.0 if order == 3 else 0.0
    matrix = _NUMBER_SECONDS * rows**2 + _FACTOR_SECONDS * rows**3 / 3.0
    return cubic_hessian_seconds(problem, order) + _PRODUCT_SECONDS * products + matrix


def too_large(problem: Problem, order: int, seconds: float, deadline: float) -> str | None:
    """Why a check that would take so long is not begun."""
    left, size, most = deadline - monotonic(), problem.num_params, _MOST_PARAMS[order]
    if seconds <= left and size <= most:
        return None
    return (
        f"too large for the independent check: {size} parameters and {len(problem.x)} data would take some {seconds:.0f} s; "
        f"allowed are {left:.0f} s and {most} parameters"
    )


def order_named(order: int) -> str:
    """For people."""
    return {2: "second", 3: "third"}[order]


def prove_cubic(
    problem: Problem, region: Ball, claim: float, multipliers: TaylorMultipliers | None, deadline: float
) -> tuple[bool, str]:
    """Whether no Hessian of the ball has an eigenvalue below the claim, and how that was found."""
    if multipliers is None:
        return False, "the file does not bring the multipliers along"
    order = multipliers.order
    why = too_large(problem, order, cubic_seconds(problem, order), deadline)
    if why is None:
        whole = Slab(-1.0, 1.0, np.zeros((0, 0)), 1.0, multipliers)
        radius = float(region.radius)
        why = why_not_proved(problem, wide(region.center), Changes.ball(radius), radius, claim, whole, deadline)
    what = f"the Hessian's Taylor polynomial of the {order_named(order)} order at the centre"
    return why is None, why or f"{what} and its rest, with the multipliers of the file"


def why_not_proved(
    problem: Problem, centre: Wide, changes: Changes, radius: float, claim: float, slab: Slab, deadline: float
) -> str | None:
    """Why it is not proved that no Hessian at centre + changes has an eigenvalue below the claim; None if it is.

    Of the slab ``along`` counts where the changes have an axis, ``narrow`` in the third order there; the multipliers are for the
    given radius R.
    """
    size, multipliers, order = problem.num_params, slab.taylor, slab.taylor.order
    if not (multipliers.weights > 0.0).all():
        return "the multipliers' weights are not positive"
    if not 0.0 < multipliers.share <= 1.0:
        return f"the multipliers' share {multipliers.share!r} is not in (0, 1]"
    if multipliers.tau is not None and not multipliers.tau > 0.0:
        return f"the multipliers' tau {multipliers.tau!r} is not positive"
    if order == 3 and not 0.0 < slab.narrow <= 1.0:
        return f"the multipliers' omega {slab.narrow!r} is not in (0, 1]"
    for name, matrix in (("Lambda", multipliers.lam), *(() if changes.axis is None else (("S", slab.along),))):
        if not not_negative(wide(from_lower(matrix)), size):
            return f"the multiplier {name} is not shown to be positive semi-definite"
    kept = multipliers.kept
    if not ((kept >= 0.0) & (kept <= 1.0)).all():
        return "the multipliers keep parts of the squares that are not between none and all"
    found = cubic_hessian(problem, centre, changes, wide(multipliers.lowered), wide(kept), order, deadline)
    if found is None:
        return "time ran out before the Taylor polynomial was enclosed"
    term = None
    if multipliers.tau is not None:
        term = cubic_term(found[0], changes, slab.narrow, multipliers.tau, deadline)
        if term is None:
            return "time ran out before the cubic term was bounded"
    matrix, error = whole_matrix(*found, term, changes, radius, claim, slab)
    if not not_negative(matrix, size, error, (Range(changes.reach) / Range(wide(radius))).hi):
        return "what the multipliers prove, written out anew, is less"
    return None


def not_negative(matrix: Wide | FloatArray, size: int, error: Wide | None = None, longest: float | Wide = 1.0) -> bool:
    """Whether z'Mz >= 0 for all z = (v, w) with v of the given size and |w| <= ``longest`` |v|, for symmetric M.

    That is shown for all whose distance from the given one has no more than ``error`` (rows,) as the sums of its rows' sizes.
    """
    rounded = matrix.astype(np.float64)
    off = np.zeros(len(matrix), dtype=np.longdouble)
    if matrix.dtype != rounded.dtype:
        off += grown((np.abs(matrix - rounded) * (1.0 + 4.0 * UNIT)).sum(axis=1), len(rounded))
    off = off if error is None else off + error
    if not np.isfinite(rounded).all() or not np.isfinite(off.astype(np.float64)).all():
        return False
    count = len(rounded)
    norm = float(grown(off.max()))
    diagonal = np.abs(np.diag(rounded))
    unit = float(DOUBLE)
    below = (count + 4) * unit / (1.0 - 2.0 * (count + 4) * unit) * float(diagonal.sum()) * (1.0 + 4.0 * count * unit)
    # Subtracting sigma rounds the diagonal, and sigma may add to the trace in absolute value.
    sigma = 1.125 * (1.0 + float(longest) ** 2) * (below + norm + 2.0 * unit * float(diagonal.max())) + 1e-290
    places = np.arange(size)
    rounded[places, places] -= sigma
    try:
        np.linalg.cholesky(rounded)
    except np.linalg.LinAlgError:
        return False
    return True
