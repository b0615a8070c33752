"""A certificate's bound, computed once more."""

from __future__ import annotations

import math

import numpy as np

from ..objective import Objective
from ..regions import Ball, Box, Region, as_region
from .boxes import cell_subdivision, recheck
from .certification import fresh_certificate
from .subdivision import Cover, Limits
from .units import unit_bound


def fresh_bound(obj: Objective, region: Region, method: str, cells: int, cover: Cover | None, *, ellipsoids: bool) -> float:
    """The bound of a method, computed again: over the boxes of a cover if there is one, with as many cells as before.

    A bound over a unit's weights is as before without ellipsoids where there was no time for them.
    """
    region = as_region(region).bind(obj)
    parts = (region,) if isinstance(region, Box | Ball) else region.enclosures()
    if method == "units":
        found = (unit_bound(obj, part, max_cells=cells, ellipsoids=ellipsoids) for part in parts if isinstance(part, Box | Ball))
        return max((one.psi_lower for one in found if one is not None), default=-math.inf)
    if method == "cells" and cover is None:
        # An older file. The worst leaves are cut in a fixed order, so as many cells give the same bound.
        searches = (cell_subdivision(obj, part) for part in parts if isinstance(part, Ball))
        limits = Limits(np.zeros(1, dtype=np.int32), max_cells=cells)
        return max((search.run(limits) for search in searches), default=-math.inf)
    if cover is None:
        return fresh_certificate(obj, region, method).psi_lower
    return max((recheck(obj, part, method, cover) for part in parts if isinstance(part, Box | Ball)), default=-math.inf)
