"""Minimising a function that is smoothed less and less, until it is cancelled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

FloatArray = npt.NDArray[np.float64]


#: A smoothing that changes nothing.
_NONE = 1e-100


class _CancelledError(Exception):
    """Raised inside the quasi-Newton method."""


def least_smoothed(
    value: Callable[[FloatArray, float], tuple[float, FloatArray]],
    start: FloatArray,
    smoothings: tuple[float, ...],
    steps: int,
    cancelled: npt.NDArray[np.int32],
) -> FloatArray:
    """Where L-BFGS ends on value(z, smoothing), from the end for the smoothing before; or where it was when cancelled.

    The smoothings are relative to the function's size where each begins, without any smoothing.
    """
    z = start

    def step(now: FloatArray) -> None:
        nonlocal z
        z = now.copy()
        if cancelled[0]:
            raise _CancelledError

    options = {"maxiter": steps, "maxfun": steps, "ftol": 1e-7}
    for relative in smoothings:
        size = abs(value(z, _NONE)[0])
        if not np.isfinite(size) or size == 0.0:
            break
        try:
            found = minimize(value, z, (relative * size,), jac=True, method="L-BFGS-B", callback=step, options=options)
        except _CancelledError:
            break
        if np.isfinite(found.x).all():
            z = found.x
    return z
