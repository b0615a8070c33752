"""How long a check takes, roughly, and the arithmetics that it is tried in; for checking certificates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from time import monotonic

import numpy as np

from ..objective import Objective
from ..regions import Ball, Region
from .certificate import Multipliers
from .reference_arithmetic import Doubles, using
from .reference_unit_joint import ellipsoid_seconds
from .reference_units import units_seconds
from .subdivision import Cover
from .unit_cover import AlikeSets, JointSets, UnitLeaves

#: Parameters up to which boxes are tested by derivatives.
_TAYLOR_PARAMS = 6
#: Seconds that one datum's part of one entry of one matrix takes.
_ENTRY_SECONDS = 2.5e-6
#: Seconds that derivatives up to the fourth order take per datum and pair of parameters, for every output with the cross-entropy;
#: those of a GELU per datum and unit; and the tests of one box with them, over the fourth power of the number of parameters.
_JET_SECONDS = {"squared_error": 1e-5, "logistic": 1.5e-5, "cross_entropy": 3.5e-5}
_GELU_SECONDS, _CURVED_SECONDS = 5e-4, 3e-6
#: Time that the joint bounds take per datum and unit of the last hidden layer, and parts of a ball, roughly.
_JOINT_SECONDS, _PARTS = 2e-3, 30
#: Time of a moment bound, whatever the sizes.
_MOMENT_SECONDS = 0.05
#: Shares of the time that may be spent on Arb's arithmetic, and that long doubles may need for a branch and bound's cells.
_ARB_SHARE, _LONG_SHARE = 0.4, 0.2


def estimated_seconds(obj: Objective, cells: int) -> float:
    """Time in long doubles, roughly, of whole matrices on so many cells; for few parameters, of derivatives up to the fourth."""
    net, size = obj.net, float(obj.num_params)
    if not has_small_boxes(obj):
        return _ENTRY_SECONDS * obj.data.num_samples * size**2 * cells
    entry = _ENTRY_SECONDS + _JET_SECONDS[obj.loss] * (net.widths[-1] if obj.loss == "cross_entropy" else 1)
    series = _GELU_SECONDS * sum(width for width, name in zip(net.widths[1:-1], net.activations, strict=True) if name == "gelu")
    return (obj.data.num_samples * (entry * size**2 + series) + _CURVED_SECONDS * size**4) * cells


def has_small_boxes(obj: Objective) -> bool:
    """Whether boxes are tested by derivatives."""
    return obj.num_params <= _TAYLOR_PARAMS and obj.net.is_smooth


def check_seconds(obj: Objective, region: Region, method: str, cover: Cover | None, leaves: UnitLeaves | None,
                  multipliers: Multipliers | None) -> float:  # fmt: skip
    """Time that the check takes in long doubles, roughly."""
    if method == "units" and (leaves is not None or isinstance(region, Ball)):
        sets = multipliers if isinstance(multipliers, JointSets | AlikeSets) else None
        seconds = 0.0 if sets is None else ellipsoid_seconds(sets, obj.net.widths[0] + int(obj.net.bias))
        return seconds + units_seconds(obj, leaves)
    if method in ("taylor", "slabs"):
        return np.inf  # which keeps it from Arb's arithmetic: the polynomials' arrays are too large
    if method == "cells":
        joint = _JOINT_SECONDS * obj.data.num_samples * obj.net.widths[-2]
        return (0 if cover is None else len(cover.low)) * (_MOMENT_SECONDS + joint)
    seconds = estimated_seconds(obj, 1 if cover is None else len(cover.low))
    if obj.loss == "squared_error" and obj.net.widths[-1] == 1 and cover is None and method != "exact":
        parts = _PARTS if isinstance(region, Ball) else 1
        seconds += parts * _JOINT_SECONDS * obj.data.num_samples * obj.net.widths[-2]
    return seconds


def arithmetics(method: str, seconds: float, time_limit: float, deadline: float
                ) -> Iterator[tuple[AbstractContextManager[None], float]]:  # fmt: skip
    """Arb's for small work, where it is installed, with a share of the time; then NumPy's, for very many cells doubles first."""
    if find_spec("flint") is not None:
        from .reference_arb import ArbBalls, in_balls

        share = _ARB_SHARE * time_limit
        if ArbBalls.cost * seconds <= share:
            yield in_balls(), min(deadline, monotonic() + share)
    if method in ("units", "full") and seconds > _LONG_SHARE * time_limit:
        yield using(Doubles()), deadline
    yield nullcontext(), deadline
