"""ReLU kinks that bend downwards: proofs that no finite penalty makes the objective convex.

Let unit (layer, unit) have pre-activation zero for a datum at a point theta in the interior of the region, alone
on its kink, and let ``sdot`` be the derivative of that pre-activation along v. Then

    L'(theta; v) + L'(theta; -v) = beta |sdot|,      beta = dL / d(activation of that unit),

summed over the data that share the kink surface. A convex function has a non-negative sum, and a quadratic
penalty adds nothing to it, so a negative one rules out every finite penalty strength.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._checks import positive_float
from .._claims import Check, Outcome, judged
from ..errors import InputError, NumericalError
from ..penalties import Penalty
from ..penalties.base import as_strength
from ..regions import Region
from .checks import check_direction, check_point, surroundings
from .differences import midpoint_gap
from .geometry import centred_pair
from .kink_calculus import (
    IndexArray,
    KinkSet,
    gate_distance,
    jump_along,
    near_kinks,
    only_these,
    shared_surface,
    unit_gradient,
)
from .roundoff import FloatArray
from .segment import Segment, find_segment, gap_of_values

if TYPE_CHECKING:
    from ..objective import Objective

GapFunction = Callable[["Objective", FloatArray, FloatArray], tuple[float, float] | None]

#: Relative agreement asked of finite differences and the jump.
_AGREEMENT = 0.01
#: The first step of the finite differences, as a share of the estimated distance to the next gate.
_FIRST_STEP = 0.3
_SHRINKS = 16


@dataclass(frozen=True, eq=False)
class KinkWitness:
    """A point on a concave kink in the interior of the region: the threshold is infinite.

    Attributes
    ----------
    theta : (P,) array
        The point, in the interior.
    datum : tuple of int
        The data whose pre-activation is zero there and that share this kink surface (duplicates, for instance).
    layer, unit : int
        The hidden layer and its unit, both counted from zero: ``net.unpack(theta)[layer][0][unit]`` are its weights.
    v : (P,) array
        Unit vector across the kink.
    jump : float
        ``L'(theta; v) + L'(theta; -v)``, negative.
    beta : float
        ``jump / |sdot|`` with sdot the derivative of the first datum's pre-activation along v: the slope of L in the
        unit's activation.
    obj, region : Objective and Region, or None
        What the claim is about, where the witness came from a search or a file.

    Notes
    -----
    With softplus of sharpness b in place of ReLU the Hessian at ``theta`` has ``v'Hv / b -> jump²/(4 beta)``, since
    ``phi''(0) = b/4`` and ``|sdot| = |jump/beta|`` (for one datum on the kink). So ``psi`` falls at least in proportion to b, and
    as ``phi'' <= b/4`` everywhere on a bounded region it falls no faster: there is a finite threshold for every b, and none in
    the limit.

    In floating point the pre-activation is zero only to within its rounding error; a shift of the unit's bias (or weights)
    by that much puts all of ``datum`` exactly on the kink and, since every other gate is further from switching than that,
    changes the jump by rounding errors only.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> x = np.array([[1.0, 0.5], [-0.3, 2.0], [0.7, -1.0]])
    >>> data, box = ph.Dataset(x, np.array([1.0, -1.0, 0.5])), ph.Box(-1.0, 1.0)
    >>> relu = ph.Objective(ph.MLP([2, 3, 1], "relu"), data)
    >>> kink = ph.lambda_threshold(relu, box, rng=7, starts=8, certificate=None).kink
    >>> kink.verify(relu, box)
    True

    Softplus in its place, each search started from the one before: psi/b settles.

    >>> warm, psi = (kink.theta, kink.v), []
    >>> for b in (10.0, 100.0, 1000.0):
    ...     smooth = ph.Objective(ph.MLP([2, 3, 1], "softplus", beta=b), data)
    ...     found = ph.search(smooth, box, rng=7, starts=20, warm=warm)
    ...     warm = (found.theta, found.v)
    ...     psi.append(found.psi_upper / b)
    >>> bool(psi[-1] <= kink.jump**2 / (4.0 * kink.beta)) and round(psi[-1] / psi[-2], 2)
    1.0
    """

    theta: FloatArray
    datum: tuple[int, ...]
    layer: int
    unit: int
    v: FloatArray
    jump: float
    beta: float
    obj: Objective | None = field(default=None, repr=False)
    region: Region | None = field(default=None, repr=False)

    def lambda_at_scale(self, h: float) -> float:
        """Penalty strength below which convexity fails on segments of half length h across the kink, |jump|/(2h).

        Parameters
        ----------
        h : float
            A length in parameter space, positive.
        """
        return abs(self.jump) / (2.0 * positive_float("h", h))

    def verify(self, obj: Objective | None = None, region: Region | None = None) -> bool:
        """Check the whole claim anew, from the network's values alone as far as possible.

        The point must lie in the interior, exactly the listed data must be on the kink of the unit, and
        ``(f(theta + hv) + f(theta - hv) - 2 f(theta))/h`` must approach ``jump < 0`` at two small scales h,
        with all points inside the region and rounding errors accounted for.

        Parameters
        ----------
        obj, region : Objective and Region, optional
            By default those the witness came with.

        Returns
        -------
        bool

        Raises
        ------
        InputError
            If there is no objective or region, or the region is a user's `Convex` set read from a file without its projection.
        """
        for check in self._checks(*self._about(obj, region)):
            check.raise_if_open()
            if check.outcome is Outcome.FAILS:
                return False
        return True

    def checks(self, obj: Objective | None = None, region: Region | None = None) -> tuple[Check, ...]:
        """Check the claim as :meth:`verify` does and return what became of every part of it; nothing is raised."""
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows fails
            return tuple(self._checks(*self._about(obj, region)))

    def _about(self, obj: Objective | None, region: Region | None) -> tuple[Objective, Region]:
        about, where = self.obj if obj is None else obj, self.region if region is None else region
        if about is None or where is None:
            raise InputError("this kink does not know what it is about; pass its objective and its region: (obj, region).")
        return about, where.bind(about)

    def _checks(self, obj: Objective, region: Region) -> Iterator[Check]:
        yield check_point(region, self.theta, interior=True)
        yield check_direction(float(np.linalg.norm(self.v)))
        kinks = near_kinks(obj, self.theta)
        data = surface_of(kinks, self.layer, self.unit, self.datum[0])
        place = f"unit {self.unit} of hidden layer {self.layer}, counted from 0"
        alone = data is not None and tuple(int(i) for i in data) == self.datum
        listed = ", ".join(map(str, self.datum[:8])) + (", …" if len(self.datum) > 8 else "")
        yield judged(
            "kink", alone, f"the data {listed} are {'' if alone else 'not '}those on the kink of {place}, the only one there"
        )
        if data is None or not alone:
            return
        jump = jump_along(obj, self.theta, self.v, data, kinks)
        holds = self.jump < 0.0 and abs(jump - self.jump) <= 1e-9 * abs(self.jump)
        yield judged(
            "jump", holds, f"the slopes to both sides add up to {jump!r}; recorded is {self.jump!r}, which must be negative"
        )
        rate = abs(float(unit_gradient(obj, self.theta, self.datum[0], self.layer, self.unit) @ self.v))
        holds = abs(self.beta * rate - self.jump) <= 1e-9 * abs(self.jump)
        yield judged("slope", holds, f"beta |sdot| is {self.beta * rate!r}, which must be the recorded jump")
        near = surroundings(region, self.theta)
        confirmed = self.jump < 0.0 and differences_confirm(obj, near, self.theta, self.v, self.jump, kinks)
        how = "approach" if confirmed else "do not approach"
        yield judged("differences", confirmed, f"second differences of the loss along v, divided by the step, {how} the jump")

    def save(self, path: str | os.PathLike[str], obj: Objective | None = None, region: Region | None = None) -> Path:
        """Write the witness to ``name.npz``, which holds all that :func:`pyhess.load_witness` and ``pyhess verify`` need.

        Parameters
        ----------
        path : str or path-like
            A name that ends in .npz; the description for people goes to the .json beside it.
        obj, region : Objective and Region, optional
            By default those the witness came with.

        Returns
        -------
        Path
            The archive.

        Raises
        ------
        FileError
            If the files cannot be written.
        InputError
            If there is no objective or no region.
        """
        from .files import save_kink

        about, where = self._about(obj, region)
        return save_kink(replace(self, obj=about, region=where), path)

    def segment(self, obj: Objective, region: Region, lam: float, penalty: Penalty | None = None) -> Segment:
        """Return two points of the region between which L plus the penalty (by default `L2`) is not convex, for any lam >= 0.

        Raises
        ------
        InputError, InputTypeError
            If lam is negative, not finite or no number.
        NumericalError
            If lam is so large that the segment becomes too short for floating-point numbers.
        """
        strength = as_strength(lam)
        found = find_segment(obj, region.bind(obj), self.theta, self.v, strength, None if penalty is None else penalty.bind(obj))
        if found is None:
            raise NumericalError(
                f"lam = {strength!r}: segments shorter than {self.lambda_at_scale(1.0) / max(strength, 1e-300):.1e} would be "
                "needed, too short to resolve in floating point; take a smaller lam."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe content."""
        return {
            "theta": self.theta.tolist(),
            "datum": list(self.datum),
            "layer": self.layer,
            "unit": self.unit,
            "v": self.v.tolist(),
            "jump": self.jump,
            "beta": self.beta,
        }


def surface_of(kinks: list[KinkSet], layer: int, unit: int, datum: int) -> IndexArray | None:
    """Return the data (n,) on the kink of the given unit if that is the only kink at the point, else None."""
    here = next((k for k in kinks if k.layer == layer), None)
    if here is None:
        return None
    data = shared_surface(here, unit, datum)
    return data if data is not None and only_these(kinks, layer, unit, data) else None


def differences_confirm(
    obj: Objective, region: Region, theta: FloatArray, v: FloatArray, jump: float, kinks: list[KinkSet]
) -> bool:
    """Whether second differences of L along v, divided by the step, extrapolate to the jump at two scales.

    ``D(h) = (L(theta + hv) + L(theta - hv) - 2 L(theta))/h = jump + c h + O(h²)``, so ``2 D(h/2) - D(h)`` removes the
    curvature c of the smooth part. The values of L are tried first; where rounding hides the jump, the differences are
    carried through the network instead (`pyhess.threshold.differences`).
    """
    reach = gate_distance(obj, theta, v, kinks)
    start = min(_FIRST_STEP * reach, 0.01 * max(1.0, float(np.linalg.norm(theta))))
    for gap in (gap_of_values, midpoint_gap):
        agreeing = 0
        for step in (start * 4.0**-k for k in range(_SHRINKS)):
            wide = _difference_quotient(obj, region, theta, step * v, gap)
            narrow = _difference_quotient(obj, region, theta, 0.5 * step * v, gap)
            if wide is None or narrow is None:
                continue
            limit = 2.0 * narrow[0] - wide[0]
            rounding = 2.0 * narrow[1] + wide[1]
            if rounding > _AGREEMENT * abs(jump):
                break
            close = abs(limit - jump) <= _AGREEMENT * abs(jump)
            agreeing = agreeing + 1 if close and narrow[0] < 0.0 else 0
            if agreeing == 2:
                return True
    return False


def _difference_quotient(
    obj: Objective, region: Region, theta: FloatArray, step: FloatArray, gap: GapFunction
) -> tuple[float, float] | None:
    """Return D(h) and its rounding error, or None where the segment does not fit around theta."""
    pair = centred_pair(region, theta, step)
    if pair is None or float(np.max(np.abs(pair[0] - theta))) > 1e-3 * float(np.max(np.abs(step))):
        return None
    measured = gap(obj, pair[0], pair[1])
    if measured is None:
        return None
    length = math.sqrt(math.fsum(pair[1] ** 2))
    return -2.0 * measured[0] / length, 2.0 * measured[1] / length
