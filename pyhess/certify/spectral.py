"""Rigorous bounds on norms and eigenvalues of matrices of floating-point numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import ArpackError, eigsh

from .intervals import TINY, UNIT, gamma

FloatArray = npt.NDArray[np.float64]

#: Gram matrices of more flops than this are left out of `norm_bound`: they would hold up Ctrl-C.
_GRAM_FLOPS = 4e9
#: Matrices larger than this get their approximate eigenvalue from Lanczos steps, to this relative accuracy.
_DENSE, _LANCZOS = 256, 1e-8


def norm_bound(a: FloatArray) -> float:
    """Upper bound of the spectral norm of A."""
    return float(norm_bounds(a))


def norm_bounds(a: FloatArray) -> FloatArray:
    """Upper bounds (...) of the spectral norms of a stack of matrices (..., r, c); infinite where one is not finite."""
    rows, columns = a.shape[-2:]
    magnitude = np.abs(a)
    largest = magnitude.max(axis=(-2, -1), initial=0.0)
    known = np.isfinite(largest)
    divisor = np.where(known & (largest > 0.0), largest, 1.0)[..., None, None]
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = a / divisor  # no overflow in the squares; its rounding is inside the allowance below
        shares = magnitude / divisor
        frobenius = np.sqrt((scaled**2).sum(axis=(-2, -1))) * (1.0 + gamma(rows * columns + 16))
        by_sums = np.sqrt(shares.sum(axis=-2).max(axis=-1, initial=0.0) * shares.sum(axis=-1).max(axis=-1, initial=0.0))
        bound = np.minimum(frobenius, by_sums * (1.0 + gamma(rows + columns + 16)))
        if min(rows, columns) > 1 and rows * columns * min(rows, columns) <= _GRAM_FLOPS:
            other = np.swapaxes(scaled, -1, -2)
            gram = scaled @ other if rows <= columns else other @ scaled
            error = gamma(max(rows, columns) + 8) * frobenius**2  # |fl(AA') - AA'| <= gamma |A||A|'
            bound = np.minimum(bound, np.sqrt(eigvals_max_bound(gram) + error) * (1.0 + gamma(8)))
        found = bound * largest * (1.0 + gamma(8)) + TINY
    return np.where(known, np.where(largest > 0.0, found, 0.0), np.inf)


def eigval_max_bound(a: FloatArray) -> float:
    """Upper bound of the largest eigenvalue of a symmetric matrix (its lower triangle counts)."""
    return -eigval_min_bound(-a)


def eigvals_max_bound(a: FloatArray) -> FloatArray:
    """The same for a stack of matrices."""
    return -eigvals_min_bound(-a)


def _approximate_eigvals_min(symmetric: FloatArray) -> tuple[FloatArray, float]:
    """(eigenvalues near the smallest, how far off they may be); nothing is proved here, so a few Lanczos steps will do."""
    count, size = symmetric.shape[:2]
    if size > _DENSE and count == 1:
        start = np.cos(np.arange(size) ** 2.0)  # generic, and the same every time
        try:
            sigma = float(eigsh(symmetric[0], 1, which="SA", v0=start, tol=_LANCZOS, return_eigenvectors=False)[0])
            return np.full(1, sigma), 2.0 * _LANCZOS * abs(sigma)
        except ArpackError:
            pass
    return np.asarray(np.linalg.eigvalsh(symmetric)[:, 0], dtype=np.float64), 0.0


def eigval_min_bound(a: FloatArray) -> float:
    """Lower bound of the smallest eigenvalue of a symmetric matrix, as in `eigvals_min_bound`."""
    return float(eigvals_min_bound(a))


def eigvals_min_bound(a: FloatArray) -> FloatArray:
    """Lower bounds (...) of the smallest eigenvalues of symmetric matrices (..., k, k), verified by Cholesky factorisations.

    If Cholesky of A - sigma I runs to completion in floating-point arithmetic, then every eigenvalue of A is at least
    sigma - gamma_{n+1}/(1 - gamma_{n+1}) trace(A - sigma I) (S. M. Rump, BIT 46 (2006)); sigma is taken just below the
    computed eigenvalue and lowered until the factorisation succeeds. Never larger than what it bounds; -inf where a matrix is not
    finite.
    """
    size = a.shape[-1]
    stack = a.reshape(-1, size, size)
    finite = np.isfinite(stack).all(axis=(1, 2))
    found = np.full(len(stack), -np.inf)
    if size > _DENSE:
        for at in np.flatnonzero(finite):
            found[at] = _verified(stack[at : at + 1])[0]
    elif finite.any():
        found[finite] = _verified(stack if finite.all() else stack[finite])
    return found.reshape(a.shape[:-2])


def _verified(a: FloatArray) -> FloatArray:
    """The bounds for finite matrices (m, k, k)."""
    size = a.shape[-1]
    symmetric = np.tril(a) + np.swapaxes(np.tril(a, -1), 1, 2)
    scale = np.abs(symmetric).sum(axis=2).max(axis=1) + TINY
    sigma, doubt = _approximate_eigvals_min(symmetric)
    step = np.maximum(4.0 * size * UNIT * scale, doubt)
    diagonal = np.arange(size)
    for _ in range(60):
        trial = sigma - step
        shifted = symmetric.copy()
        shifted[:, diagonal, diagonal] -= trial[:, None]
        slack = negative_slacks(shifted)
        if slack is None:
            if len(a) > 1:  # one of them: what is found for the others does not depend on it
                half = len(a) // 2
                return np.concatenate([_verified(a[:half]), _verified(a[half:])])
            step = step * 2.0
            continue
        # The diagonal of `shifted` was rounded once per entry.
        slack = slack + 2.0 * UNIT * np.abs(shifted[:, diagonal, diagonal]).max(axis=1) + TINY
        bound: FloatArray = trial - slack - 4.0 * UNIT * np.abs(trial)
        return bound
    by_rows: FloatArray = -scale * (1.0 + gamma(size + 8))  # Gershgorin
    return by_rows


def negative_slacks(a: FloatArray) -> FloatArray | None:
    """How far below zero eigenvalues of symmetric matrices (m, k, k) may be, by Rump's theorem; None if a Cholesky fails."""
    size = a.shape[-1]
    try:
        np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        return None
    trace = np.abs(np.diagonal(a, axis1=1, axis2=2)).sum(axis=1)
    slack: FloatArray = 2.0 * gamma(size + 3) * trace * (1.0 + gamma(size + 8)) + TINY
    return slack
