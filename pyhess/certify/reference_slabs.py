"""The bound by Taylor polynomials over slabs of a ball, proved anew from the multipliers that a certificate brings along.

With |d| >= 1 every theta of the ball |theta - c| <= R is c + R t d + y with y . d = 0, |t| <= 1 and |y|² <= R² (1 - t²|d|²).
About c' near the middle c + R m d of the slab low <= t <= high it is c' + s d + y', and with e the distance of c' from the middle

    |s| <= R (high - low)/2 + e,    |y'| <= R sqrt(1 - tmin²|d|²) + e,    tmin the least |t| of the slab,

so `reference_cubic_proof` proves it there. Slabs from -1 to 1, each beginning where the one before ends, are all of the ball.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np

from ..regions import Ball
from .reference_changes import Changes
from .reference_cubic_proof import order_named, too_large, why_not_proved
from .reference_cubic_ways import MOST_PARAMS, cubic_seconds
from .reference_hessian import Problem
from .reference_interval import Range, Wide, length, middle_and_radius, wide
from .slab_multipliers import Slab, SlabMultipliers

#: A direction is longer than one by no more than this.
_LONGER = Fraction(1, 10**12)
#: Time of a slab, in that of the ball.
_SLAB_COST = 1.3


def prove_slabs(
    problem: Problem, region: Ball, claim: float, multipliers: SlabMultipliers | None, deadline: float
) -> tuple[bool, str, bool]:
    """Whether no Hessian of the ball has an eigenvalue below the claim, how that was found, and whether slabs are missing."""
    if multipliers is None:
        return False, "the file does not bring the multipliers along", False
    gap = _left_out(problem.num_params, multipliers)
    if gap is not None:
        return False, gap, True
    slabs = multipliers.slabs
    orders = [slab.taylor.order for slab in slabs]
    seconds = _SLAB_COST * sum(cubic_seconds(problem, order) for order in orders)
    why = too_large(problem, MOST_PARAMS[max(orders)], seconds, deadline)
    if why is not None:
        return False, f"{why}, for {len(slabs)} slabs", False
    for number, slab in enumerate(slabs, 1):
        centre, changes = changes_of(region, multipliers, slab)
        why = why_not_proved(problem, centre, changes, float(region.radius), claim, slab, deadline)
        if why is not None:
            return False, f"slab {number} of {len(slabs)}, {slab.low!r} <= t <= {slab.high!r}: {why}", False
    named = " and ".join(order_named(order) for order in sorted(set(orders)))
    what = f"the Hessian's Taylor polynomials of the {named} order at the centres of"
    return True, f"{what} {len(slabs)} slabs of the ball and their rests, with the multipliers of the file", False


def _left_out(size: int, multipliers: SlabMultipliers) -> str | None:
    """Why the slabs may not be all of the ball."""
    direction, slabs = multipliers.direction, multipliers.slabs
    if direction.shape != (size,) or not np.isfinite(direction).all():
        return f"the slabs' direction has the shape {direction.shape}; needed are {size} finite numbers"
    square = sum(Fraction(x) ** 2 for x in direction.tolist())
    if not 1 <= square <= (1 + _LONGER) ** 2:
        return f"the slabs' direction has the length {float(square) ** 0.5!r}, which is not from 1 to 1 + {float(_LONGER)!r}"
    if not slabs or slabs[0].low != -1.0 or slabs[-1].high != 1.0:
        return "the slabs do not go from -1 to 1"
    if not all(slab.low < slab.high for slab in slabs):
        return "a slab ends before it begins"
    for one, other in pairwise(slabs):
        if one.high != other.low:
            return f"a slab ends at {one.high!r}, and the next begins at {other.low!r}"
    return None


def changes_of(region: Ball, multipliers: SlabMultipliers, slab: Slab) -> tuple[Wide, Changes]:
    """A slab's centre, and the changes from there that contain it."""
    d, radius = Range(multipliers.direction), Range(region.radius)
    low, high, half = Range(slab.low), Range(slab.high), Range(wide(0.5))
    centre, off = middle_and_radius(Range(region.center) + radius * half * (low + high) * d)
    away = Range(length(off))
    along = radius * half * (high - low) + away
    least = Range(wide(max(0.0, slab.low, -slab.high)))
    across = radius * (Range(wide(1.0)) - least.square() * d.square().sum(0)).root() + away
    return centre, Changes(along.hi, across.hi, multipliers.direction)
