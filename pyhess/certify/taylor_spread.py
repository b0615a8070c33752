"""The third derivatives of products of a linear and a quadratic term, added to an array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._jit import serial

FloatArray = npt.NDArray[np.float64]


@serial
def _add(first: Any, at_first: Any, second: Any, at_second: Any, total: Any) -> None:
    size = total.shape[1]
    for e in range(total.shape[0]):
        p, q, out = first[at_first[e]], second[at_second[e]], total[e]
        for k in range(size):
            for j in range(size):
                pk, pj, qkj = p[k], p[j], q[k, j]
                for m in range(size):
                    out[k, j, m] += pk * q[j, m] + pj * q[k, m] + qkj * p[m]


def add_spread(first: FloatArray, second: FloatArray, total: FloatArray) -> None:
    """Add the third derivatives of (first . delta) (delta' second delta / 2), for arrays (…, P), (…, P, P) and (…, P, P, P).

    The axes before are broadcast; ``total`` is contiguous and has them all.
    """
    if not (first.any() and second.any()):
        return
    size, shape = total.shape[-1], total.shape[:-3]

    def places(x: FloatArray, axes: int) -> npt.NDArray[np.int64]:
        given = x.shape[: x.ndim - axes]
        return np.broadcast_to(np.arange(int(np.prod(given))).reshape(given), shape).ravel()

    _add(
        np.ascontiguousarray(first).reshape(-1, size),
        places(first, 1),
        np.ascontiguousarray(second).reshape(-1, size, size),
        places(second, 2),
        total.reshape(-1, size, size, size),
    )
