"""PRIMME (GD+k, its method for few products) over any product."""

from __future__ import annotations

from typing import Any

import numpy as np
import primme
from scipy.sparse.linalg import LinearOperator

from ..cases import Array

NAME, DISTRIBUTION = "PRIMME", "primme"


def solver(product: Any, start: Array, tolerance: float) -> Any:
    """``run() -> (eigenvalue, vector)`` for |H v - rho v| <= tolerance |H|."""

    def multiply(block: Array) -> Array:
        block = np.asarray(block)
        return product(block.reshape(-1)).reshape(block.shape)

    operator = LinearOperator((start.size, start.size), matvec=multiply, matmat=multiply, dtype=np.float64)

    def run() -> tuple[float, Array]:
        values, vectors = primme.eigsh(
            operator, k=1, which="SA", v0=start[:, None], tol=tolerance, method="PRIMME_DEFAULT_MIN_MATVECS"
        )
        return float(values[0]), vectors[:, 0]

    return run
