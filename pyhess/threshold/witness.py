"""The lower end of the bracket: a point of the region and a direction of negative curvature."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._checks import as_vector, finite_float
from .._claims import Check, Outcome, guarded, judged
from ..errors import InputError, NumericalError
from ..penalties import L2, Penalty
from ..regions import Region
from ..regions.convex import DescribedConvex
from .checks import check_direction, check_point
from .geometry import settle
from .reference_jet import quadratic_form
from .roundoff import FloatArray
from .segment import Segment, find_segment

if TYPE_CHECKING:
    from ..objective import Objective

_EPS = float(np.finfo(np.float64).eps)
#: Offsets along v that take a point off a ReLU kink it happens to lie on.
_NUDGES = (1e-10, 1e-8, 1e-6, 1e-4)
#: The share of lam_lower at which a segment is asked for.
SEGMENT_SHARE = 0.99


@dataclass(frozen=True, eq=False)
class Witness:
    """A parameter vector and a direction that prove ``lam* >= lam_lower``.

    Attributes
    ----------
    theta : (P,) array
        A point of the region.
    v : (P,) array
        A unit vector.
    eigval : float
        Upper bound of ``v'H(theta)v / v'v`` in exact arithmetic, and so of the smallest eigenvalue:
        the value computed by the plain NumPy reference plus ``allowance``.
    allowance : float
        The bound of the rounding error that was added.
    lam_lower : float
        The root lam of ``eigval + v' diag c(lam) v = 0`` with the penalty's curvature c, rounded down; for L2 max(0, -eigval/2).
        Below this penalty strength the objective is not convex on the region. Infinite where the loss bends downwards along
        coordinates that the penalty leaves out.

    Notes
    -----
    For ReLU networks H is the almost-everywhere Hessian; theta lies off every kink to within rounding.
    """

    theta: FloatArray
    v: FloatArray
    eigval: float
    allowance: float
    obj: Objective = field(repr=False)
    region: Region = field(repr=False)
    penalty: Penalty = field(default_factory=L2)

    @property
    def lam_lower(self) -> float:
        """The proved lower bound of the threshold."""
        return self.penalty.strength(self.eigval, self.v)

    def segment(self, lam: float) -> Segment:
        """Return two points of the region between which ``f = L + P(.; lam)``, P the penalty, is not convex.

        Parameters
        ----------
        lam : float
            Penalty strength, ``0 <= lam < lam_lower``.

        Returns
        -------
        Segment
            ``(theta_1, theta_2, t, violation)`` with
            ``violation = f(t theta_1 + (1-t) theta_2) - t f(theta_1) - (1-t) f(theta_2)``, larger than its rounding error.

        Raises
        ------
        InputError, InputTypeError
            If lam is negative, at least ``lam_lower``, not finite or no number.
        NumericalError
            If lam is so close below ``lam_lower`` that the violation drowns in rounding.
        """
        strength = finite_float("lam", lam)
        if not 0.0 <= strength < self.lam_lower:
            raise InputError(
                f"lam = {strength!r}, but this witness breaks convexity for 0 <= lam < lam_lower = "
                f"{self.lam_lower!r} only; at larger lam it proves nothing. Choose lam in that range."
            )
        found = find_segment(self.obj, self.region, self.theta, self.v, strength, self.penalty)
        if found is None and math.isinf(self.lam_lower):
            raise NumericalError(
                f"lam = {strength!r}: no segment along v in the region breaks convexity by more than its rounding error. The "
                "witness itself holds (see check()), its negative curvature is too small to show in values of the loss."
            )
        if found is None:
            raise NumericalError(
                f"lam = {strength!r} is too close to lam_lower = {self.lam_lower!r} (relative distance "
                f"{(self.lam_lower - strength) / self.lam_lower:.1e}): the violation is smaller than its rounding "
                "error for every step length. The witness itself holds (see check()); take a slightly smaller lam."
            )
        return found

    def check(self) -> bool:
        """Re-evaluate the witness and return True, or raise NumericalError naming what does not hold.

        The point must lie in the region, the direction must have length one, the quadratic form recomputed by the
        reference must not exceed ``eigval``, and the compiled core must agree with it (float64 objectives).

        Raises
        ------
        NumericalError
            If one of these does not hold.
        InputError
            If the region is a user's `Convex` set that was read from a file without its projection.
        """
        for check in self._checks():
            if check.outcome is Outcome.FAILS:
                raise NumericalError(f"the witness does not hold ({check.name}): {check.detail}.")
            check.raise_if_open()
        return True

    def checks(self) -> tuple[Check, ...]:
        """Re-evaluate the witness and return what became of every part of its claim; nothing is raised.

        To what :meth:`check` looks at, this adds a segment at 99 % of ``lam_lower``.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows fails
            return (*self._checks(), self._check_segment())

    def _checks(self) -> Iterator[Check]:
        yield check_point(self.region, self.theta)
        yield check_direction(math.sqrt(math.fsum(self.v * self.v)))
        yield guarded("curvature", self._check_curvature)
        if self.obj.dtype == "float64":
            yield guarded("core", self._check_core)

    def _check_curvature(self) -> Check:
        eigval, allowance = rayleigh_bound(self.obj, self.theta, self.v)
        holds = eigval <= self.eigval + 2.0 * allowance
        return judged(
            "curvature",
            holds,
            f"the reference finds v'Hv/v'v at most {eigval!r}, rounding allowance {allowance:.1e} included, and not "
            f"more than {self.eigval!r} as recorded"
            if holds
            else f"the reference finds v'Hv/v'v at most {eigval!r}, not {self.eigval!r} as recorded",
        )

    def _check_core(self) -> Check:
        eigval, allowance = rayleigh_bound(self.obj, self.theta, self.v)
        core = float(self.obj.curvature(self.theta, self.v).q)
        holds = abs(core - (eigval - allowance)) <= 1e3 * allowance + 1e-9 * abs(core)
        return judged("core", holds, f"the compiled core finds v'Hv = {core!r}, the reference {eigval - allowance!r}")

    def _check_segment(self) -> Check:
        limit = self.lam_lower
        if isinstance(self.region, DescribedConvex):
            return Check("segment", Outcome.OPEN, "no segment looked for: its ends could not be told to lie in the region")
        if limit == 0.0:
            return judged("segment", True, "none is claimed: lam_lower is 0")
        # Any strength is below an infinite one; this is the one that |theta|² would need.
        lam = -0.5 * self.eigval if math.isinf(limit) else SEGMENT_SHARE * limit
        try:
            found = self.segment(lam)
        except NumericalError as error:
            return Check("segment", Outcome.OPEN, str(error).rstrip("."))
        return judged(
            "segment",
            found.violation > found.rounding_error,
            f"at lam = {lam!r} convexity fails between two points of the region by {found.violation:.3e}, rounding error "
            f"{found.rounding_error:.1e}",
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the witness to ``name.npz``, which holds all that :func:`pyhess.load_witness` and ``pyhess verify`` need.

        The network, the data, the loss, the region, the penalty and the claim are in the archive; ``name.json`` beside it is
        its description, to be read by people. Both files are replaced in one step each.

        Parameters
        ----------
        path : str or path-like
            A name that ends in .npz.

        Returns
        -------
        Path
            The archive.

        Raises
        ------
        FileError
            If the files cannot be written.

        Notes
        -----
        A user's `Convex` region is a Python function, which is not stored: its centre, size and enclosure are, and
        ``pyhess verify`` says that membership was not re-checked.
        """
        from .files import save_witness

        return save_witness(self, path)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe content; the objective and the region are described by the result that owns the witness."""
        return {
            "theta": self.theta.tolist(),
            "v": self.v.tolist(),
            "eigval": self.eigval,
            "allowance": self.allowance,
            "lam_lower": self.lam_lower,
        }


def make_witness(
    obj: Objective, region: Region, theta: npt.ArrayLike, v: npt.ArrayLike, penalty: Penalty | None = None
) -> Witness:
    """Turn a point and a direction into a witness: project, normalise, evaluate with a rounding allowance.

    Parameters
    ----------
    obj : Objective
        Network, data and loss.
    region : Region
        Bound to the network (`Region.bind`).
    theta : (P,) array
        Projected into the region if it lies outside.
    v : (P,) array
        Direction, not zero; its length does not matter.
    penalty : Penalty, optional
        The penalty whose strength is asked for, bound to the network; `L2` by default.

    Returns
    -------
    Witness

    Raises
    ------
    InputError
        If a shape is wrong, an entry is not finite, or v is zero.
    """
    point = settle(region, as_vector("theta", theta, obj.num_params))
    direction = np.array(as_vector("v", v, obj.num_params), dtype=np.float64)
    largest = float(np.max(np.abs(direction)))
    if largest == 0.0:
        raise InputError("v is the zero vector; a direction needs at least one entry that is not zero.")
    direction /= largest
    direction /= np.linalg.norm(direction)
    eigval, allowance = rayleigh_bound(obj, point, direction)
    if "relu" in obj.net.activations and allowance > 1e-6 * max(abs(eigval - allowance), _EPS):
        # On a kink the gate is unknown and the allowance covers both sides; next to it there is one Hessian.
        for offset in (sign * size for size in _NUDGES for sign in (1.0, -1.0)):
            moved = settle(region, point + offset * direction)
            bound, moved_allowance = rayleigh_bound(obj, moved, direction)
            if bound < eigval:
                point, eigval, allowance = moved, bound, moved_allowance
    point.setflags(write=False)
    direction.setflags(write=False)
    return Witness(point, direction, eigval, allowance, obj, region, L2() if penalty is None else penalty)


def rayleigh_bound(obj: Objective, theta: FloatArray, v: FloatArray) -> tuple[float, float]:
    """Return a rigorous upper bound of v'Hv/v'v and the allowance in it."""
    form = quadratic_form(obj, theta, v)
    squared = math.fsum(v * v)
    quotient = form.q / squared
    allowance = form.q_error / squared * (1.0 + 8.0 * _EPS) + 8.0 * _EPS * abs(quotient)
    return quotient + allowance, allowance
