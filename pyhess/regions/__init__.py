"""Convex sets of parameters."""

from __future__ import annotations

from .._checks import shown
from .._region import Region
from ..errors import InputTypeError
from .convex import Convex
from .intersection import Intersection
from .ordered import Ordered
from .reading import region_from_dict
from .simple import Ball, Box

__all__ = ["Ball", "Box", "Convex", "Intersection", "Ordered", "Region", "as_region", "region_from_dict"]


def as_region(region: object) -> Region:
    """Return ``region`` if it is a convex set that pyhess knows.

    Raises
    ------
    InputTypeError
        If it is anything else, such as a list of regions.
    """
    if not isinstance(region, Region):
        raise InputTypeError(
            f"region is {shown(region)} ({type(region).__name__}); allowed is one convex set, "
            "pyhess.Box(low, high), pyhess.Ball(center, radius), Ordered, Intersection or Convex. A union of sets is not "
            "convex: treat its parts one by one."
        )
    return region
