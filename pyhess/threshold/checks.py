"""The parts of a claim, checked one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ..errors import InputError, NumericalError
from ..regions import Ball, Region
from ..regions.convex import DescribedConvex
from .geometry import surely_inside
from .roundoff import FloatArray


class Outcome(Enum):
    """What became of one part of a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    #: Nothing speaks against it, but it could not be decided anew.
    OPEN = "not re-checked"


@dataclass(frozen=True)
class Check:
    """One part of a claim, what became of it, and what was compared with what."""

    name: str
    outcome: Outcome
    detail: str

    def raise_if_open(self) -> None:
        """Raise InputError where the part could not be checked for want of the region's projection."""
        if self.outcome is Outcome.OPEN:
            raise InputError(f"{self.detail}. Pass the region itself: load_witness(path, region=region).")


def judged(name: str, holds: bool, detail: str) -> Check:
    """Return a check that holds or fails."""
    return Check(name, Outcome.HOLDS if holds else Outcome.FAILS, detail)


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """Return the outcome of a check; one whose numbers overflow fails."""
    try:
        return check()
    except (NumericalError, FloatingPointError) as error:
        return Check(name, Outcome.FAILS, str(error))


def check_point(region: Region, theta: FloatArray, *, interior: bool = False) -> Check:
    """Check that theta (P,) lies in the region; of a set whose projection is lost only the enclosure can be asked."""
    what = "the interior of " if interior else ""
    if not isinstance(region, DescribedConvex):
        inside = region.interior_contains(theta) if interior else surely_inside(region, theta)
        return judged("point", inside, f"theta {'lies' if inside else 'does not lie'} in {what}{region!r}")
    if not region.may_contain(theta):
        return Check("point", Outcome.FAILS, f"theta does not even lie in the enclosure {region.enclosure!r} of {region!r}")
    detail = f"membership in {what}the region not re-checked: {region!r} was given by a Python function, which no file can hold"
    if region.enclosure is not None:
        detail += f"; theta lies in its enclosure {region.enclosure!r}"
    return Check("point", Outcome.OPEN, detail)


def check_direction(length: float) -> Check:
    """Check that a direction has length one."""
    return judged("direction", abs(length - 1.0) <= 1e-12, f"v has length {length!r}, which must be 1 to within 1e-12")


def surroundings(region: Region, theta: FloatArray) -> Region:
    """Return the region, or a ball around theta in place of one whose projection is lost: enough for what holds near theta."""
    return Ball(theta, region.extent) if isinstance(region, DescribedConvex) else region
