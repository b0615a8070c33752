"""Extreme eigenvalues that only choices depend on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigvalsh
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

FloatArray = npt.NDArray[np.float64]

#: What the eigenvalues are off by, and what a bound that is made with one is larger by.
_TOLERANCE, SURPLUS = 1e-4, 1.0002


def extreme(matrix: FloatArray | LinearOperator, which: str) -> float:
    """The smallest ("SA") or largest ("LA") eigenvalue, within a ten-thousandth."""
    count = matrix.shape[0]
    start = np.random.default_rng(7).standard_normal(count)
    try:
        return float(eigsh(matrix, k=1, which=which, v0=start, tol=_TOLERANCE, return_eigenvectors=False)[0])
    except ArpackError:
        dense = matrix if isinstance(matrix, np.ndarray) else matrix @ np.eye(count)
        return float(eigvalsh(dense)[0 if which == "SA" else -1])
