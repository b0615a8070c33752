"""Compiled eigenvalues of small symmetric matrices: by Jacobi rotations, and verified by a Cholesky factorisation (S. M. Rump,
BIT 46 (2006)).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._jit import serial

_UNIT = 2.0**-53


@serial
def _diagonalise(matrix: Any, turn: Any) -> None:
    """Make a matrix diagonal by rotations from both sides, and turn the columns of ``turn`` (n, P) with it."""
    size = matrix.shape[0]
    for _sweep in range(30):
        off, scale = 0.0, 0.0
        for i in range(size):
            scale = max(scale, abs(matrix[i, i]))
            for j in range(i):
                off = max(off, abs(matrix[i, j]))
        if off <= 1e-15 * scale or off == 0.0:
            break
        for p in range(size - 1):
            for q in range(p + 1, size):
                if matrix[p, q] == 0.0:
                    continue
                tau = (matrix[q, q] - matrix[p, p]) / (2.0 * matrix[p, q])
                t = (1.0 if tau >= 0.0 else -1.0) / (abs(tau) + math.sqrt(1.0 + tau * tau))
                c = 1.0 / math.sqrt(1.0 + t * t)
                s = t * c
                for k in range(size):
                    u, v = matrix[k, p], matrix[k, q]
                    matrix[k, p], matrix[k, q] = c * u - s * v, s * u + c * v
                for k in range(size):
                    u, v = matrix[p, k], matrix[q, k]
                    matrix[p, k], matrix[q, k] = c * u - s * v, s * u + c * v
                for k in range(turn.shape[0]):
                    u, v = turn[k, p], turn[k, q]
                    turn[k, p], turn[k, q] = c * u - s * v, s * u + c * v


@serial
def eigenvectors(matrix: Any, values: Any, turn: Any) -> None:
    """Approximate eigenvalues (P,), the smallest first, and eigenvectors as columns."""
    size = matrix.shape[0]
    work = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            work[i, j] = matrix[i, j]
            turn[i, j] = 1.0 if i == j else 0.0
    _diagonalise(work, turn)
    least = 0
    for k in range(size):
        values[k] = work[k, k]
        if values[k] < values[least]:
            least = k
    if least:
        values[0], values[least] = values[least], values[0]
        for k in range(size):
            turn[k, 0], turn[k, least] = turn[k, least], turn[k, 0]


@serial
def _smallest_eigenvalue(matrix: Any) -> Any:
    """Approximate smallest eigenvalue; the matrix is destroyed."""
    _diagonalise(matrix, np.empty((0, 0)))
    smallest = np.inf
    for i in range(matrix.shape[0]):
        smallest = min(smallest, matrix[i, i])
    return smallest


@serial
def _cholesky_slack(matrix: Any, sigma: Any, work: Any) -> Any:
    """If Cholesky of A - sigma I succeeds: how far below sigma an eigenvalue of A can be; inf if it fails."""
    size = matrix.shape[0]
    trace, largest = 0.0, 0.0
    for i in range(size):
        pivot = abs(matrix[i, i] - sigma)
        trace += pivot
        largest = max(largest, pivot)
    for j in range(size):
        for i in range(j, size):
            total = matrix[i, j] - (sigma if i == j else 0.0)
            for k in range(j):
                total -= work[i, k] * work[j, k]
            if i == j:
                if not total > 0.0:
                    return np.inf
                work[i, i] = math.sqrt(total)
            else:
                work[i, j] = total / work[j, j]
    return 4.0 * (size + 4) * _UNIT * trace + 4.0 * _UNIT * (largest + abs(sigma)) + 1e-290


@serial
def verified(matrix: Any, known: Any, work: Any, spare: Any) -> Any:
    """min(known, lower bound of the smallest eigenvalue)."""
    size = matrix.shape[0]
    if np.isfinite(known):
        # Tried with `known` first: most vertices are not the worst one.
        slack = _cholesky_slack(matrix, known, work)
        if slack < np.inf:
            return known - slack
    scale = 1e-290
    for i in range(size):
        total = 0.0
        for j in range(size):
            spare[i, j] = matrix[i, j]
            total += abs(matrix[i, j])
        scale = max(scale, total)
    sigma = _smallest_eigenvalue(spare)
    step = 8.0 * size * _UNIT * scale
    for _ in range(40):
        slack = _cholesky_slack(matrix, sigma - step, work)
        if slack < np.inf:
            return min(known, sigma - step - slack)
        step *= 2.0
    return -2.0 * scale
