"""Checks of points and directions."""

from __future__ import annotations

from .._claims import Check, Outcome, judged
from ..regions import Ball, Region
from ..regions.convex import DescribedConvex
from .geometry import surely_inside
from .roundoff import FloatArray


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
