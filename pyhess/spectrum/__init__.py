"""Extreme eigenpairs of Hessians and other symmetric operators."""

from __future__ import annotations

from .batch import eigsh_batch
from .result import BatchEigenResult, EigenResult, EigenStatus
from .single import eigsh

__all__ = ["BatchEigenResult", "EigenResult", "EigenStatus", "eigsh", "eigsh_batch"]
