"""The bound by the Hessian's Taylor polynomial over a ball, proved anew from the multipliers that a certificate brings along.

With the polynomial and its rest of `reference_cubic_hessian`, which takes the file's numbers off, z = (v, delta x v / R), M the
matrix T_klm,ab of P² rows (k, a) and P³ columns (l, m, b), any Lam >= 0, antisymmetric A_k, w > 0, 0 < eta <= 1 and tau > 0,

    v'(H(theta) - claim)v >= z' [ head - diag(q) - Lam - R⁴/(2 tau) - claim,  R U' ;  R U,  R² (tail - tau/2 M M') + I x Lam ] z,
    U_k = half_k + A_k,    q_a = (N w)_a / w_a,    N the rest,

as |delta| <= R, sum_k delta_k v'A_k v = 0, and for y = delta x v, x = delta x delta x v

    y'Mx >= -tau/2 |M'y|² - |x|² / (2 tau),    |x| <= R².

Nothing is searched for. The whole matrix is rounded to doubles, B, by at most e. If Cholesky of B less sigma on v's part runs to
completion in doubles, that has no eigenvalue below -s = -gamma trace, gamma = (n + 1)u / (1 - 2(n + 1)u) (S. M. Rump, BIT 46
(2006)). As the part of z beyond v is no longer than v, sigma >= 2 (s + e) is enough.
"""

from __future__ import annotations

from time import monotonic

import numpy as np
import numpy.typing as npt

from ..regions import Ball
from .reference_cubic import DOUBLE, grown
from .reference_cubic_hessian import Form, cubic_hessian, cubic_hessian_seconds
from .reference_hessian import Problem
from .reference_interval import UNIT, Range, Wide, up, wide, zeros
from .reference_triples import triples
from .taylor_multipliers import TaylorMultipliers

FloatArray = npt.NDArray[np.float64]

#: Parameters whose P⁵ / 6 coefficients fit into memory.
_MOST_PARAMS = 40
#: Seconds per product of T with itself, and per number of the whole matrix, for estimates.
_PRODUCT_SECONDS, _NUMBER_SECONDS = 1e-10, 1e-6
#: What a product of doubles may lose that is too small for them, times the most there are in a sum.
_LOST = 1e-315


def cubic_seconds(problem: Problem) -> float:
    """Time that `prove_cubic` takes, roughly."""
    size = float(problem.num_params)
    return cubic_hessian_seconds(problem) + _PRODUCT_SECONDS * size**7 / 4.0 + _NUMBER_SECONDS * (size + size**2) ** 2


def prove_cubic(
    problem: Problem, region: Ball, claim: float, multipliers: TaylorMultipliers | None, deadline: float
) -> tuple[bool, str]:
    """Whether no Hessian of the ball has an eigenvalue below the claim, and how that was found."""
    if multipliers is None:
        return False, "the file does not bring the multipliers along"
    size = problem.num_params
    needed, left = cubic_seconds(problem), deadline - monotonic()
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
    if not multipliers.tau > 0.0:
        return False, f"the multipliers' tau {multipliers.tau!r} is not positive"
    if not not_negative(wide(lam), size):
        return False, "the multiplier Lambda is not shown to be positive semi-definite"
    found = cubic_hessian(problem, region, wide(multipliers.lowered), deadline)
    if found is None:
        return False, "time ran out before the Taylor polynomial was enclosed"
    gram = cubic_term(found[0].third, size, deadline)
    if gram is None:
        return False, "time ran out before the cubic term was bounded"
    matrix, error = whole_matrix(*found, gram, wide(region.radius), claim, lam, multipliers)
    if not not_negative(matrix, size, error):
        return False, "what the multipliers prove, written out anew, is less"
    return (
        True,
        "the Hessian's Taylor polynomial of the third order at the centre and its rest, with the multipliers of the file",
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
    unit = float(DOUBLE)
    below = (count + 4) * unit / (1.0 - 2.0 * (count + 4) * unit) * float(diagonal.sum()) * (1.0 + 4.0 * count * unit)
    # Subtracting sigma rounds the diagonal, and sigma may add to the trace in absolute value.
    sigma = 2.25 * (below + norm + 2.0 * unit * float(diagonal.max())) + 1e-290
    places = np.arange(size)
    rounded[places, places] -= sigma
    try:
        np.linalg.cholesky(rounded)
    except np.linalg.LinAlgError:
        return False
    return True


def cubic_term(third: FloatArray, size: int, deadline: float) -> tuple[Wide, Wide] | None:
    """M M' (P², P²), and bounds of its entries' errors; None if the deadline passes."""
    at, total = triples(size), np.zeros((size * size,) * 2)
    for l in range(size):  # noqa: E741 - as in the formulas
        if monotonic() > deadline:
            return None
        # The columns with l and m exchanged are the same.
        m = np.arange(l, size)
        part = third[at.place[:, l, m]] * np.where(m > l, np.sqrt(2.0), 1.0)[:, None, None]  # (k, m, a, b)
        rows = np.ascontiguousarray(part.transpose(0, 2, 1, 3)).reshape(size * size, -1)
        total += rows @ rows.T
    # Every entry is at most the product of its rows' lengths, and so are the sums of absolute values.
    rounding = float(DOUBLE) * (size * size + size + 64)
    lengths = np.sqrt(np.diag(total).astype(np.longdouble) * (1.0 + 2.0 * rounding) + _LOST)
    return total.astype(np.longdouble), grown(rounding * lengths[:, None] * lengths) + _LOST


def whole_matrix(
    whole: Form, squares: Form, gram: tuple[Wide, Wide], ball: Wide, claim: float, lam: FloatArray, multipliers: TaylorMultipliers
) -> tuple[Wide, Wide]:
    """The matrix (P + P², P + P²), and bounds of its entries' errors."""
    size = len(lam)
    share, tau, weights = wide(multipliers.share), wide(multipliers.tau), wide(multipliers.weights)
    turned = 0.5 * (wide(multipliers.turned) - wide(np.swapaxes(multipliers.turned, 1, 2)))
    kept = 1.0 - share
    rest = Range(grown(whole.rest + squares.rest / share))
    q = ((rest * Range(weights[None, :])).sum(1) / Range(weights)).hi
    area = ball * ball
    q = up(q + grown(area * area / (2.0 * tau)))
    bent = 0.5 * tau * area

    def assembled(sign: float, parts: list[tuple[Wide, Wide]], turned: Wide, corner: Wide, squared: Wide) -> Wide:
        head, half, tail = (one + kept * other for one, other in parts)
        flat = tail.reshape(size * size, -1)
        into = (ball * (half + turned)).reshape(size * size, size)
        found = zeros((size + size * size,) * 2)
        found[:size, :size] = 0.5 * (head + head.T) - sign * corner
        found[size:, :size], found[:size, size:] = into, into.T
        found[size:, size:] = 0.5 * area * (flat + flat.T) + np.kron(np.eye(size), lam if sign > 0.0 else np.abs(lam))
        found[size:, size:] -= sign * bent * squared
        return found

    parts = [(whole.head, squares.head), (whole.half, squares.half), (whole.tail, squares.tail)]
    places = np.arange(size)
    corner, sizes = wide(lam).copy(), wide(np.abs(lam)).copy()
    corner[places, places] += q + wide(claim)
    sizes[places, places] += q + abs(wide(claim))
    matrix = assembled(1.0, parts, turned, corner, gram[0])
    error = 32.0 * UNIT * assembled(-1.0, [(np.abs(x), np.abs(y)) for x, y in parts], np.abs(turned), sizes, np.abs(gram[0]))
    error[size:, size:] += bent * gram[1]
    return matrix, grown(error)
