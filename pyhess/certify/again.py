"""A certificate's bound, computed once more."""

from __future__ import annotations

import math

import numpy as np

from ..objective import Objective
from ..regions import Ball, Box, Region, as_region
from .boxes import cell_subdivision, recheck
from .certificate import MethodResult
from .certification import fresh_certificate
from .slab_multipliers import SlabMultipliers
from .slabs import slabs_again
from .subdivision import Limits
from .units import unit_bound

#: Cells of one unit's weights that may be looked at, for what there were: only cells below the claim are cut, but relaxed bounds
#: are tried on others than before.
_TIMES, _MORE = 4, 1000


def fresh_bound(obj: Objective, region: Region, method: str, row: MethodResult) -> float:
    """The bound of a method, computed again: over the boxes or slabs of a cover if there is one, with as many cells as before.

    A bound over a unit's weights is as before without ellipsoids where there was no time for them.
    """
    cells, cover, multipliers = row.cells, row.cover, row.multipliers
    region = as_region(region).bind(obj)
    parts = (region,) if isinstance(region, Box | Ball) else region.enclosures()
    if method == "units":
        found = (
            unit_bound(
                obj, part, psi_upper=row.psi_lower, rtol=0.0, max_cells=_TIMES * cells + _MORE, ellipsoids=multipliers is not None
            )
            for part in parts
            if isinstance(part, Box | Ball)
        )
        return max((one.psi_lower for one in found if one is not None), default=-math.inf)
    if isinstance(multipliers, SlabMultipliers):
        return max((slabs_again(obj, part, multipliers) for part in parts if isinstance(part, Ball)), default=-math.inf)
    if method == "cells" and cover is None:
        # An older file. The worst leaves are cut in a fixed order, so as many cells give the same bound.
        searches = (cell_subdivision(obj, part) for part in parts if isinstance(part, Ball))
        limits = Limits(np.zeros(1, dtype=np.int32), max_cells=cells)
        return max((search.run(limits) for search in searches), default=-math.inf)
    if cover is None:
        return fresh_certificate(obj, region, method).psi_lower
    return max((recheck(obj, part, method, cover) for part in parts if isinstance(part, Box | Ball)), default=-math.inf)
