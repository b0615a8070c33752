"""The bound by the Hessian's Taylor polynomial over a ball or a slab of it, proved anew from the multipliers of a certificate.

With the polynomial and its rest of `reference_cubic_hessian` or `reference_one_layer_forms`, which take the file's numbers off,
for delta = s d + y of `reference_changes` with |s| <= h, |y| <= rho, z = (v, delta x v / R), K = dd'/|d|², M the matrix T_klm,ab
of P² rows (k, a) and P³ columns (l, m, b), any Lam, S >= 0, antisymmetric A_k, w > 0, 0 < eta <= 1, tau > 0 and 0 < omega <= 1,

    v'(H(theta) - claim)v >= z' [ top - claim,  R U' ;  R U,  R² (tail - tau/2 M^ M^') + (I - K) x Lam + K/|d|² x S ] z,
    top = head - diag(q) - rho²/R² Lam - h²/R² S - chi²/(2 tau),    chi = rho² + h²|d|²/omega²,
    U_k = half_k + A_k,    q_a = (N w)_a / w_a,    N the rest,

as y'y = delta'(I - K)delta, s² = delta'K delta/|d|², sum_k delta_k v'A_k v = 0, and for B = I - (1 - omega)K, M^ = M with B on
l and m, u = delta x v, x = B⁻¹delta x B⁻¹delta x v

    u'Mx^ = u'M^x >= -tau/2 |M^'u|² - |x|²/(2 tau),    |x| <= chi,    x^ = delta x delta x v.

Multipliers by units are for the bounds of `reference_one_layer_rests`, which are in the head and leave N to roundings.

Only B² = I - less dd' and so omega² = 1 - less |d|² have to be known. In a whole ball K = 0 and rho = R, the radius. Polynomials
of the second order have no M, tau and omega: there is neither tau/2 M^ M^' nor chi²/(2 tau).

Nothing is searched for: the whole matrix, or the part of it that is not zero, is written out anew, and `reference_definite` shows
that the form is not negative. The part of z beyond v is no longer than g v, g the length of the longest delta over R.
"""

from __future__ import annotations

from time import monotonic

import numpy as np

from ..regions import Ball
from .reference_changes import Changes
from .reference_cubic_matrix import from_lower
from .reference_cubic_ways import Question, ways
from .reference_definite import not_negative
from .reference_hessian import Problem
from .reference_interval import Wide, wide
from .slab_multipliers import Slab
from .taylor_multipliers import TaylorMultipliers

#: Why multipliers by units are refused elsewhere.
_NOT_BY_UNITS = (
    "the multipliers are by units, which are for balls, one hidden layer, squared error, the third order and not too many "
    "numbers in a unit"
)


def too_large(problem: Problem, most: int, seconds: float, deadline: float) -> str | None:
    """Why a check that would take so long, or is for so many parameters at most, is not begun."""
    left, size = deadline - monotonic(), problem.num_params
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
    found = ways(problem, False, multipliers)
    why = too_large(problem, found[0].most, found[0].seconds, deadline) if found else _NOT_BY_UNITS
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
    why = "what the multipliers prove, written out anew, is less"
    possible = ways(problem, changes.axis is not None, multipliers)
    if not possible:
        return _NOT_BY_UNITS
    question = Question(problem, centre, changes, radius, claim, slab, deadline)
    for number, way in enumerate(possible):
        # What is begun first has been found to be in time.
        if number and way.seconds > deadline - monotonic():
            break
        found = way.proves(question)
        if isinstance(found, str):
            return why if number else found
        if found:
            return None
    return why
