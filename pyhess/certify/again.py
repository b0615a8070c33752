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

#: Cells that a search may take again, in those it took: when ellipsoids come into it depends on time.
_MORE_CELLS = 4


def fresh_bound(obj: Objective, region: Region, method: str, row: MethodResult, claim: float) -> float:
    """The bound of a method, computed again: over the boxes or slabs of a cover if there is one.

    A bound over a unit's weights is searched for until it reaches the claim, as before without ellipsoids where there was no time
    for them. With the number of cells alone it would be another one, because those that are cut depend on what was asked for.
    """
    cells, cover, multipliers = row.cells, row.cover, row.multipliers
    region = as_region(region).bind(obj)
    parts = (region,) if isinstance(region, Box | Ball) else region.enclosures()
    if method == "units":
        found = (
            unit_bound(obj, part, psi_upper=claim, rtol=0.0, max_cells=_MORE_CELLS * cells, ellipsoids=multipliers is not None)
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
