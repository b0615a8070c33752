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

Only B² = I - less dd' and so omega² = 1 - less |d|² have to be known. In a whole ball K = 0 and rho = R, the radius.

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
from .reference_cubic_hessian import Form, cubic_hessian, cubic_hessian_seconds
from .reference_hessian import Problem
from .reference_interval import UNIT, Range, Wide, up, wide, zeros
from .reference_triples import triples
from .slab_multipliers import Slab
from .taylor_multipliers import TaylorMultipliers

FloatArray = npt.NDArray[np.float64]

#: Parameters whose P⁵ / 6 coefficients fit into memory.
_MOST_PARAMS = 40
#: Seconds per product of T with itself, and per number of the whole matrix, for estimates.
_PRODUCT_SECONDS, _NUMBER_SECONDS = 1e-10, 1e-6
#: What a product of doubles may lose that is too small for them, times the most there are in a sum.
_LOST = 1e-315


def cubic_seconds(problem: Problem) -> float:
    """Time that `proved_there` takes, roughly."""
    size = float(problem.num_params)
    return cubic_hessian_seconds(problem) + _PRODUCT_SECONDS * size**7 / 4.0 + _NUMBER_SECONDS * (size + size**2) ** 2


def too_large(problem: Problem, seconds: float, deadline: float) -> str | None:
    """Why a check that would take so long is not begun."""
    left, size = deadline - monotonic(), problem.num_params
    if seconds <= left and size <= _MOST_PARAMS:
        return None
    return (
        f"too large for the independent check: {size} parameters and {len(problem.x)} data would take some {seconds:.0f} s; "
        f"allowed are {left:.0f} s and {_MOST_PARAMS} parameters"
    )


def prove_cubic(
    problem: Problem, region: Ball, claim: float, multipliers: TaylorMultipliers | None, deadline: float
) -> tuple[bool, str]:
    """Whether no Hessian of the ball has an eigenvalue below the claim, and how that was found."""
    if multipliers is None:
        return False, "the file does not bring the multipliers along"
    why = too_large(problem, cubic_seconds(problem), deadline)
    if why is None:
        whole = Slab(-1.0, 1.0, np.zeros((0, 0)), 1.0, multipliers)
        radius = float(region.radius)
        why = why_not_proved(problem, wide(region.center), Changes.ball(radius), radius, claim, whole, deadline)
    how = "the Hessian's Taylor polynomial of the third order at the centre and its rest, with the multipliers of the file"
    return why is None, why or how


def why_not_proved(
    problem: Problem, centre: Wide, changes: Changes, radius: float, claim: float, slab: Slab, deadline: float
) -> str | None:
    """Why it is not proved that no Hessian at centre + changes has an eigenvalue below the claim; None if it is.

    Of the slab ``narrow`` and ``along`` count where the changes have an axis; the multipliers are for the given radius R.
    """
    size, multipliers = problem.num_params, slab.taylor
    if not (multipliers.weights > 0.0).all():
        return "the multipliers' weights are not positive"
    if not 0.0 < multipliers.share <= 1.0:
        return f"the multipliers' share {multipliers.share!r} is not in (0, 1]"
    if not multipliers.tau > 0.0:
        return f"the multipliers' tau {multipliers.tau!r} is not positive"
    if not 0.0 < slab.narrow <= 1.0:
        return f"the multipliers' omega {slab.narrow!r} is not in (0, 1]"
    for name, matrix in (("Lambda", multipliers.lam), *(() if changes.axis is None else (("S", slab.along),))):
        if not not_negative(wide(_symmetric(matrix)), size):
            return f"the multiplier {name} is not shown to be positive semi-definite"
    kept = multipliers.kept
    if not ((kept >= 0.0) & (kept <= 1.0)).all():
        return "the multipliers keep parts of the squares that are not between none and all"
    found = cubic_hessian(problem, centre, changes, wide(multipliers.lowered), wide(kept), deadline)
    if found is None:
        return "time ran out before the Taylor polynomial was enclosed"
    less = wide(0.0) if changes.axis is None else (1.0 - wide(slab.narrow) ** 2) / changes.square.hi
    gram = cubic_term(found[0].third, size, changes.axis, less, deadline)
    if gram is None:
        return "time ran out before the cubic term was bounded"
    matrix, error = whole_matrix(*found, gram, changes, radius, claim, less, slab)
    if not not_negative(matrix, size, error, (Range(changes.reach) / Range(wide(radius))).hi):
        return "what the multipliers prove, written out anew, is less"
    return None


def _symmetric(matrix: FloatArray) -> FloatArray:
    """From the lower triangle."""
    lower = np.tril(matrix)
    return lower + np.tril(lower, -1).T


def not_negative(matrix: Wide, size: int, error: Wide | None = None, longest: float | Wide = 1.0) -> bool:
    """Whether z'Mz >= 0 for all z = (v, w) with v of the given size and |w| <= ``longest`` |v|, for symmetric M.

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
    sigma = 1.125 * (1.0 + float(longest) ** 2) * (below + norm + 2.0 * unit * float(diagonal.max())) + 1e-290
    places = np.arange(size)
    rounded[places, places] -= sigma
    try:
        np.linalg.cholesky(rounded)
    except np.linalg.LinAlgError:
        return False
    return True


def cubic_term(third: FloatArray, size: int, axis: FloatArray | None, less: Wide, deadline: float) -> tuple[Wide, Wide] | None:
    """M^ M^' (P², P²), and bounds of its entries' errors; None if the deadline passes.

    With t_kl = sum_m T_klm d_m, as (P², P²) of rows (k, a), and t_k = sum_l t_kl d_l, as (P², P), that is
    M M' - 2 less t t' + less² t_k t_k', 0 <= less |d|² <= 1.
    """
    at, total = triples(size), np.zeros((size * size,) * 2)
    once = np.zeros((size, size, size, size))  # (k, a, l, b)
    for l in range(size):  # noqa: E741 - as in the formulas
        if monotonic() > deadline:
            return None
        # The columns with l and m exchanged are the same.
        m = np.arange(l, size)
        part = third[at.place[:, l, m]] * np.where(m > l, np.sqrt(2.0), 1.0)[:, None, None]  # (k, m, a, b)
        rows = np.ascontiguousarray(part.transpose(0, 2, 1, 3)).reshape(size * size, -1)
        total += rows @ rows.T
        if axis is not None:
            once[:, :, l] = np.einsum("m,kmab->kab", axis, third[at.place[:, l]])
    # Every entry is at most the product of its rows' lengths, and so are the sums of absolute values. Those of t and t_k are no
    # longer but for |d|, and count at most twice and once.
    rounding = float(DOUBLE) * (size * size + size + 64)
    lengths = np.sqrt(np.diag(total).astype(np.longdouble) * (1.0 + 2.0 * rounding) + _LOST)
    found = total.astype(np.longdouble)
    if axis is not None:
        twice = np.einsum("l,kalb->kab", axis, once).reshape(size * size, size)
        flat = once.reshape(size * size, -1)
        found = found - 2.0 * less * wide(flat @ flat.T) + less * less * wide(twice @ twice.T)
        rounding *= 4.0
    return found, grown(rounding * lengths[:, None] * lengths) + _LOST


def whole_matrix(
    whole: Form, squares: Form, gram: tuple[Wide, Wide], changes: Changes, radius: float, claim: float, less: Wide, slab: Slab
) -> tuple[Wide, Wide]:
    """The matrix (P + P², P + P²), and bounds of its entries' errors."""
    multipliers, size, ball = slab.taylor, len(whole.head), wide(radius)
    share, tau, weights = wide(multipliers.share), wide(multipliers.tau), wide(multipliers.weights)
    turned = 0.5 * (wide(multipliers.turned) - wide(np.swapaxes(multipliers.turned, 1, 2)))
    kept = 1.0 - share
    rest = Range(grown(whole.rest + squares.rest / share))
    q = ((rest * Range(weights[None, :])).sum(1) / Range(weights)).hi
    omega = Range(wide(1.0)) if changes.axis is None else Range(wide(1.0)) - Range(less) * changes.square
    chi = changes.stretched(omega)
    q = up(q + grown(chi * chi / (2.0 * tau)))
    area = ball * ball
    bent = 0.5 * tau * area
    lam, along = _symmetric(multipliers.lam), _symmetric(slab.along)

    def assembled(sign: float, parts: list[tuple[Wide, Wide]], turned: Wide, bounds: tuple[Wide, Wide], diagonal: Wide,
                  squared: Wide) -> Wide:  # fmt: skip
        head, half, tail = (one + kept * other for one, other in parts)
        flat = tail.reshape(size * size, -1)
        into = (ball * (half + turned)).reshape(size * size, size)
        found = zeros((size + size * size,) * 2)
        found[:size, :size] = 0.5 * (head + head.T) - sign * (bounds[1] + np.diag(diagonal))
        found[size:, :size], found[:size, size:] = into, into.T
        found[size:, size:] = 0.5 * area * (flat + flat.T) + bounds[0]
        found[size:, size:] -= sign * bent * squared
        return found

    parts = [(whole.head, squares.head), (whole.half, squares.half), (whole.tail, squares.tail)]
    known = _bounds(changes, area, lam, along, 1.0)
    matrix = assembled(1.0, parts, turned, known, q + wide(claim), gram[0])
    parts, sizes = [(np.abs(x), np.abs(y)) for x, y in parts], _bounds(changes, area, np.abs(lam), np.abs(along), -1.0)
    # |d|², which is known to 2 P + 16 roundings, divides twice.
    error = (8 * size + 64) * UNIT * assembled(-1.0, parts, np.abs(turned), sizes, q + abs(wide(claim)), np.abs(gram[0]))
    error[size:, size:] += bent * gram[1]
    return matrix, grown(error)


def _bounds(changes: Changes, area: Wide, lam: FloatArray, along: FloatArray, sign: float) -> tuple[Wide, Wide]:
    """What Lam and S stand before in the squares of delta x v / R, and less these in those of v; all added up for sign -1."""
    eye = wide(np.eye(len(lam)))
    inner, outer = np.kron(eye, wide(lam)), grown(changes.across**2 / area) * lam
    if changes.axis is None:
        return inner, outer
    d, square = wide(changes.axis), changes.square.hi
    onto = d[:, None] * d / square
    onto = onto if sign > 0.0 else np.abs(onto)
    inner = np.kron(eye - sign * onto, wide(lam)) + np.kron(onto / square, wide(along))
    return inner, outer + grown(changes.along**2 / area) * along
