"""The multipliers of a certificate in files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import as_real, exact_keys, shown
from .._problems import finite_number
from ..errors import InputError, InputTypeError
from ..objective import Objective
from .certificate import Multipliers
from .slab_multipliers import Slab, SlabMultipliers
from .taylor_multipliers import TaylorMultipliers
from .unit_cover import AlikeSets, JointSets

FloatArray = npt.NDArray[np.float64]

#: The layout that two of the Taylor multipliers came with. Units that are alike came with the fifth, slabs with the sixth,
#: polynomials of the second order, which have no tau, with the seventh, those by units with the eighth.
_KEPT_SINCE, _UNITS_SINCE = 4, 8


def multipliers_content(multipliers: Multipliers) -> dict[str, Any]:
    """What `read_multipliers` reads."""
    if not isinstance(multipliers, SlabMultipliers):
        return vars(multipliers)
    slabs = [{**vars(slab), "taylor": vars(slab.taylor)} for slab in multipliers.slabs]
    return {"direction": multipliers.direction, "slabs": slabs}


def read_multipliers(content: Any, method: str, obj: Objective, layout: int) -> Multipliers:
    """The multipliers of a method in a file of a layout.

    Raises
    ------
    InputError, InputTypeError
        If they are none for the problem.
    """
    if method == "units":
        return _read_sets(content, obj)
    if method == "slabs":
        return _read_slabs(content, obj, layout)
    if method == "taylor":
        if isinstance(content, dict) and layout < _KEPT_SINCE:
            content = {"lowered": np.zeros(_lowered_shape(obj)), "kept": np.ones(obj.data.num_samples), **content}
        return _read_taylor("multipliers", content, obj, layout)
    raise InputTypeError(f"multipliers is {shown(content)}; allowed is none for the method {method!r}.")


def _arrays(name: str, fields: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FloatArray]:
    arrays = {}
    for key, shape in shapes.items():
        array = as_real(f"{name}.{key}", fields[key])
        if array.shape != shape or not np.isfinite(array).all():
            raise InputError(f"{name}.{key} has the shape {array.shape}; allowed are finite numbers of the shape {shape}.")
        arrays[key] = array
    return arrays


def _lowered_shape(obj: Objective) -> tuple[int, int]:
    return obj.data.num_samples, sum(obj.net.widths[1:-1])


def _read_slabs(content: Any, obj: Objective, layout: int) -> SlabMultipliers:
    size = obj.num_params
    fields = exact_keys("multipliers", content, ("direction", "slabs"))
    direction = _arrays("multipliers", fields, {"direction": (size,)})["direction"]
    given = fields["slabs"]
    if not isinstance(given, list) or not given:
        raise InputTypeError(f"multipliers.slabs is {shown(given)}; allowed is a list of at least one slab.")
    slabs = []
    for place, one in enumerate(given):
        name = f"multipliers.slabs.{place}"
        entries = exact_keys(name, one, ("low", "high", "along", "narrow", "taylor"))
        low, high, narrow = (finite_number(entries, key) for key in ("low", "high", "narrow"))
        if not -1.0 <= low < high <= 1.0:
            raise InputError(f"{name} goes from {low!r} to {high!r}; allowed are -1 <= low < high <= 1.")
        if not 0.0 < narrow <= 1.0:
            raise InputError(f"{name}.narrow is {narrow!r}; allowed are numbers above 0 and at most 1.")
        along = _arrays(name, entries, {"along": (size, size)})["along"]
        slabs.append(Slab(low, high, along, narrow, _read_taylor(f"{name}.taylor", entries["taylor"], obj, layout, whole=False)))
    return SlabMultipliers(direction, tuple(slabs))


def _read_taylor(name: str, content: Any, obj: Objective, layout: int, *, whole: bool = True) -> TaylorMultipliers:
    size, samples = obj.num_params, obj.data.num_samples
    shapes: dict[str, tuple[int, ...]] = {
        "lam": (size, size),
        "turned": (size,) * 3,
        "weights": (size,),
        "lowered": _lowered_shape(obj),
        "kept": (samples,),
    }
    if isinstance(content, dict) and layout < _UNITS_SINCE:
        content = {"by_units": False, **content}
    fields = exact_keys(name, content, (*shapes, "share", "tau", "by_units"))
    arrays = _arrays(name, fields, shapes)
    share, tau = finite_number(fields, "share"), None if fields["tau"] is None else finite_number(fields, "tau")
    if not 0.0 < share <= 1.0:
        raise InputError(f"{name}.share is {share!r}; allowed are numbers above 0 and at most 1.")
    if not (tau is None or tau > 0.0):
        raise InputError(f"{name}.tau is {tau!r}; allowed are positive numbers, and none for polynomials of the second order.")
    if not (arrays["weights"] > 0.0).all():
        raise InputError(f"{name}.weights has {arrays['weights'].min()!r} as its least; allowed are positive numbers.")
    if not (arrays["lowered"] >= 0.0).all():
        raise InputError(f"{name}.lowered has {arrays['lowered'].min()!r} as its least; allowed are numbers from 0 on.")
    if not ((arrays["kept"] >= 0.0) & (arrays["kept"] <= 1.0)).all():
        raise InputError(f"{name}.kept has {shown(arrays['kept'])}; allowed are numbers from 0 to 1.")
    by_units, may_be = fields["by_units"], whole and tau is not None and obj.net.num_layers == 2 and obj.loss == "squared_error"
    if not isinstance(by_units, bool) or (by_units and not may_be):
        raise InputError(
            f"{name}.by_units is {shown(by_units)}; allowed is false, and true for a ball with a tau, one hidden layer and "
            "squared error."
        )
    return TaylorMultipliers(**arrays, share=share, tau=tau, by_units=by_units)


def _read_sets(content: Any, obj: Objective) -> JointSets | AlikeSets:
    names = ("rooms", "floors", "matrices", "scales")
    fields = exact_keys("multipliers", content, names)
    arrays = [as_real(f"multipliers.{name}", fields[name]) for name in names]
    hidden, n = obj.net.widths[1], obj.data.num_samples
    count = len(np.atleast_1d(arrays[0]))
    # One matrix for all hidden units, or one for each.
    alike = arrays[2].ndim == 3
    units = () if alike else (hidden,)
    shapes = [(count,), (count,), (count, *units, n, n), (count, *units)]
    for name, array, shape in zip(names, arrays, shapes, strict=True):
        positive = name == "matrices" or (array > 0.0).all()
        if array.shape != shape or not np.isfinite(array).all() or not positive:
            raise InputError(
                f"multipliers.{name} has the shape {array.shape}; allowed are finite numbers of the shape {shape}, positive ones "
                f"but for the matrices, of which there is one for {'all hidden units' if alike else 'each hidden unit'}."
            )
    return AlikeSets(*arrays) if alike else JointSets(*arrays)
