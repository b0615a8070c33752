"""scipy.sparse.linalg.eigsh (ARPACK) over any product."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from ..cases import Array

NAME, DISTRIBUTION = "scipy eigsh", "scipy"


def solver(product: Any, start: Array, tolerance: float, basis: int | None = None) -> Any:
    """``run() -> (eigenvalue, vector)`` for |H v - rho v| <= tolerance |rho|; ``basis`` is ARPACK's ncv."""
    operator = LinearOperator((start.size, start.size), matvec=product, dtype=np.float64)
    ncv = None if basis is None else min(basis, start.size)

    def run() -> tuple[float, Array]:
        values, vectors = eigsh(operator, k=1, which="SA", v0=start, tol=tolerance, ncv=ncv)
        return float(values[0]), vectors[:, 0]

    return run
