"""Large systems whose solutions only choose, in single precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dpotrf, dpotrs, spotrf, spotrs

FloatArray = npt.NDArray[np.float64]
#: In single or double precision.
AnyFloats = npt.NDArray[Any]

#: Rows of systems up to which they are solved in double precision.
_DOUBLES = 1600


def precision(rows: int) -> type[np.float32] | type[np.float64]:
    """Numbers that a system of so many rows is solved in."""
    return np.float32 if rows > _DOUBLES else np.float64


def solution(matrix: AnyFloats, right: FloatArray) -> FloatArray | None:
    """The solution for a symmetric matrix, which may be lost; None if that is not positive definite."""
    kind = precision(len(matrix))
    factorise, solve = (spotrf, spotrs) if kind is np.float32 else (dpotrf, dpotrs)
    root, failed = factorise(np.asarray(matrix, dtype=kind).T, lower=1, clean=0, overwrite_a=1)
    return None if failed else np.asarray(solve(root, right.astype(kind), lower=1)[0], dtype=np.float64)
