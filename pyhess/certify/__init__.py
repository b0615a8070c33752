"""Certificates: lower bounds of psi that hold for every theta of a region.

The module can be called: ``pyhess.certify`` is this package as soon as anything has imported it, and the function of that name
until then; both do the same.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from .certificate import Certificate, MethodResult
from .kinks import relu_kink_status
from .portfolio import METHODS, Certification, certify
from .strength import StrengthBound, strength_bound
from .subdivision import Cover


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Certificate:
        return certify(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
sys.modules[__name__].__doc__ = __doc__

__all__ = [
    "METHODS",
    "Certificate",
    "Certification",
    "Cover",
    "MethodResult",
    "StrengthBound",
    "certify",
    "relu_kink_status",
    "strength_bound",
]
