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
    if not np.isfinite(a).all():
        return float("inf")
    magnitude = np.abs(a)
    largest = float(magnitude.max(initial=0.0))
    if largest == 0.0:
        return 0.0
    scaled = a / largest  # no overflow in the squares; its rounding is inside the allowance below
    rows, columns = a.shape
    frobenius = float(np.sqrt((scaled**2).sum())) * (1.0 + gamma(a.size + 16))
    by_sums = float(np.sqrt((magnitude / largest).sum(axis=0).max() * (magnitude / largest).sum(axis=1).max()))
    bound = min(frobenius, by_sums * (1.0 + gamma(rows + columns + 16)))
    if min(rows, columns) > 1 and rows * columns * min(rows, columns) <= _GRAM_FLOPS:
        gram = scaled @ scaled.T if rows <= columns else scaled.T @ scaled
        error = gamma(max(rows, columns) + 8) * frobenius**2  # |fl(AA') - AA'| <= gamma |A||A|'
        bound = min(bound, float(np.sqrt(eigval_max_bound(gram) + error)) * (1.0 + gamma(8)))
    return bound * largest * (1.0 + gamma(8)) + TINY


def eigval_max_bound(a: FloatArray) -> float:
    """Upper bound of the largest eigenvalue of a symmetric matrix (its lower triangle counts)."""
    return -eigval_min_bound(-a)


def _approximate_eigval_min(symmetric: FloatArray) -> tuple[float, float]:
    """(an eigenvalue near the smallest, how far off it may be); nothing is proved here, so a few Lanczos steps will do."""
    size = symmetric.shape[0]
    if size > _DENSE:
        start = np.cos(np.arange(size) ** 2.0)  # generic, and the same every time
        try:
            sigma = float(eigsh(symmetric, 1, which="SA", v0=start, tol=_LANCZOS, return_eigenvectors=False)[0])
            return sigma, 2.0 * _LANCZOS * abs(sigma)
        except ArpackError:
            pass
    return float(np.linalg.eigvalsh(symmetric)[0]), 0.0


def eigval_min_bound(a: FloatArray) -> float:
    """Lower bound of the smallest eigenvalue of a symmetric matrix, verified by a Cholesky factorisation.

    If Cholesky of A - sigma I runs to completion in floating-point arithmetic, then every eigenvalue of A is at least
    sigma - gamma_{n+1}/(1 - gamma_{n+1}) trace(A - sigma I) (S. M. Rump, BIT 46 (2006)); sigma is taken just below the
    computed eigenvalue and lowered until the factorisation succeeds. Never larger than what it bounds.
    """
    if not np.isfinite(a).all():
        return float("-inf")
    size = a.shape[0]
    symmetric = np.tril(a) + np.tril(a, -1).T
    scale = float(np.abs(symmetric).sum(axis=1).max()) + TINY
    sigma, doubt = _approximate_eigval_min(symmetric)
    step = max(4.0 * size * UNIT * scale, doubt)
    for _ in range(60):
        trial = sigma - step
        shifted = symmetric.copy()
        shifted[np.diag_indices(size)] -= trial
        slack = negative_slack(shifted)
        if slack is None:
            step *= 2.0
            continue
        # The diagonal of `shifted` was rounded once per entry.
        slack += 2.0 * UNIT * float(np.abs(np.diag(shifted)).max()) + TINY
        return float(trial - slack - 4.0 * UNIT * abs(trial))
    return -scale * (1.0 + gamma(size + 8))  # Gershgorin


def negative_slack(a: FloatArray) -> float | None:
    """How far below zero the eigenvalues of a symmetric matrix may be, by Rump's theorem; None if Cholesky does not succeed."""
    size = a.shape[0]
    try:
        np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        return None
    return float(2.0 * gamma(size + 3) * np.abs(np.diag(a)).sum() * (1.0 + gamma(size + 8))) + TINY
