"""Two points of a region between which a penalised objective bends the wrong way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..penalties import L2, Penalty
from ..regions import Region
from .differences import midpoint_gap
from .geometry import CentredPair, centred_pair
from .reference_jet import FloatType, sample_losses
from .roundoff import FloatArray, weighted_mean

if TYPE_CHECKING:
    from ..objective import Objective

#: Half lengths tried, as fractions of the size of the parameters, from long to short.
STEP_FRACTIONS = tuple(0.5 * 3.0**-k for k in range(26))
#: How many times its rounding error a violation must be.
_CLEAR = 2.0


class _Segment(NamedTuple):
    theta_1: FloatArray
    theta_2: FloatArray
    t: float
    violation: float


class Segment(_Segment):
    """Points theta_1, theta_2 of the region and t with f(t theta_1 + (1-t) theta_2) > t f(theta_1) + (1-t) f(theta_2).

    ``f = L + P(.; lam)`` with the penalty P. Unpacks into ``theta_1 (P,), theta_2 (P,), t, violation``, where
    ``violation`` is the left side minus the right side. It exceeds ``rounding_error``, a bound of its own
    rounding error, so f is not convex. The midpoint (t = 1/2) is an exact floating-point vector.
    """

    rounding_error: float

    @classmethod
    def create(cls, theta_1: FloatArray, theta_2: FloatArray, violation: float, rounding_error: float) -> Segment:
        """Build a midpoint segment; tuples cannot take the extra field in their constructor."""
        segment = cls(theta_1, theta_2, 0.5, violation)
        segment.rounding_error = rounding_error
        return segment


def gap_of_values(obj: Objective, m: FloatArray, d: FloatArray, dtype: FloatType = np.float64) -> tuple[float, float]:
    """Return ``L(m) - (L(m - d) + L(m + d))/2`` from the values of the loss at three points, and a bound of its error."""
    middle = sample_losses(obj, m, dtype)
    first = sample_losses(obj, m - d, dtype)
    second = sample_losses(obj, m + d, dtype)
    gap, error = weighted_mean(middle - (first + second).scale(0.5), obj.data.weights)
    return float(gap), error


def find_segment(
    obj: Objective, region: Region, theta: FloatArray, v: FloatArray, lam: float, penalty: Penalty | None = None
) -> Segment | None:
    """Search for the midpoint segment along v near theta whose violation stands out most from its rounding error.

    Parameters
    ----------
    obj : Objective
        Network, data and loss.
    region : Region
        Bound region; all returned points lie in it.
    theta, v : (P,) array
        Where to look and in which direction.
    lam : float
        Penalty strength.
    penalty : Penalty, optional
        Bound to the network; `L2` by default.

    Returns
    -------
    Segment or None
        None if no step length gives a violation above the rounding error, neither from the values of the loss nor,
        on short segments, from its differences (`pyhess.threshold.differences`).
    """
    charged = L2() if penalty is None else penalty
    scale = max(1.0, float(np.linalg.norm(theta))) / float(np.linalg.norm(v))
    pairs = [centred_pair(region, theta, fraction * scale * v) for fraction in STEP_FRACTIONS]
    best: Segment | None = None
    best_score, undecided = _CLEAR, []
    for pair in pairs:
        if pair is None:
            continue
        segment, score = _judge(pair, *gap_of_values(obj, pair[0], pair[1]), charged.bend(pair[1], lam))
        if score > -1.0:
            undecided.append(pair)
        if score > best_score:
            best, best_score = segment, score
        elif best is not None and score < 0.1 * best_score:
            break
    if best is not None:
        return best
    # The differences of losses drown in rounding: what is left is decided by carrying the differences themselves.
    for pair in undecided:
        accurate = midpoint_gap(obj, pair[0], pair[1])
        if accurate is not None:
            segment, score = _judge(pair, *accurate, charged.bend(pair[1], lam))
            if score > _CLEAR and (best is None or segment.violation > best.violation):
                best = segment
    return best


def _judge(pair: CentredPair, gap: float, error: float, bend: tuple[float, float]) -> tuple[Segment, float]:
    """Return the segment of a pair with its violation, and the ratio of violation and rounding error."""
    _, _, first, second = pair
    # The penalty's value at the middle minus the mean of those at the ends is -bend.
    rounding = error + bend[1] + 2.0 * float(np.finfo(np.float64).eps) * bend[0]
    segment = Segment.create(first, second, gap - bend[0], rounding)
    return segment, segment.violation / segment.rounding_error
