"""Extreme eigenpairs of Hessians and other symmetric operators, and estimates of their whole spectrum."""

from __future__ import annotations

from .batch import eigsh_batch
from .estimates import Estimate, SpectralDensity, frobenius_norm, spectral_density, trace
from .result import BatchEigenResult, EigenResult, EigenStatus
from .single import eigsh

__all__ = [
    "BatchEigenResult",
    "EigenResult",
    "EigenStatus",
    "Estimate",
    "SpectralDensity",
    "eigsh",
    "eigsh_batch",
    "frobenius_norm",
    "spectral_density",
    "trace",
]
