"""Certificates: lower bounds of psi that hold for every theta of a region.

The module can be called: ``pyhess.certify`` is this package as soon as anything has imported it, and the function of that name
until then; both do the same.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from .certificate import Certificate, MethodResult
from .certification import METHODS, Certification, certify
from .files import load_certificate, stored_certificate
from .kinks import relu_kink_status
from .minimum import GlobalMinimum, certify_minimum
from .reference import Proof, prove
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
    "GlobalMinimum",
    "MethodResult",
    "Proof",
    "StrengthBound",
    "certify",
    "certify_minimum",
    "load_certificate",
    "prove",
    "relu_kink_status",
    "stored_certificate",
    "strength_bound",
]
