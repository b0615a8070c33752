"""How large must an L2 penalty be to make a neural network's training objective convex?

For a dense network with loss L(theta), a bounded convex set Theta and the penalty lam |theta|² the answer is
lam* = max(0, -psi/2), psi the smallest eigenvalue of the Hessian of L anywhere on Theta. pyhess returns a bracket: a lower end
with a witness and an upper end with a certificate.

>>> import pyhess as ph
>>> data = ph.Dataset([[1.0]], [1.0])
>>> obj = ph.Objective(ph.MLP([1, 1, 1], activation="identity", bias=False), data)
>>> result = ph.lambda_threshold(obj, ph.Ball(radius=1.5), rng=5)
>>> print(f"{result.lam_lower:.4f}")
1.0625
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .data import Dataset
from .errors import (
    FileError,
    InputError,
    InputTypeError,
    MemoryLimitError,
    MissingDependencyError,
    NonFiniteError,
    NotConvergedError,
    NumericalError,
    PyhessError,
    StoreError,
)
from .model import MLP
from .penalties import L2, GeometricL2, Penalty, ShiftedL2, WeightedL2
from .regions import Ball, Box, Convex, Intersection, Ordered, Region

# Only NumPy is needed so far. What follows needs the compiled core, SciPy or Numba, and is imported at first use, so that
# `pyhess --help` answers at once.
if TYPE_CHECKING:
    from . import datasets
    from ._config import show_config
    from .certify import Certificate, GlobalMinimum, certify, certify_minimum, load_certificate
    from .interop import from_sklearn, from_torch
    from .linearization import Curvature
    from .memory import MemoryPlan, plan
    from .objective import Objective
    from .spectrum import (
        BatchEigenResult,
        EigenResult,
        EigenStatus,
        Estimate,
        SpectralDensity,
        eigsh,
        eigsh_batch,
        frobenius_norm,
        spectral_density,
        trace,
    )
    from .sweep import SweepSpec, sweep
    from .sweep.report import report
    from .threshold import (
        KinkWitness,
        RadiusPath,
        SearchResult,
        Status,
        ThresholdResult,
        Witness,
        lambda_threshold,
        load_witness,
        radius_path,
        widen,
    )
    from .threshold.search import search

_LAZY = {
    "Objective": "objective",
    "Curvature": "linearization",
    "MemoryPlan": "memory",
    "plan": "memory",
    "show_config": "_config",
    "eigsh": "spectrum",
    "eigsh_batch": "spectrum",
    "EigenResult": "spectrum",
    "BatchEigenResult": "spectrum",
    "EigenStatus": "spectrum",
    "Estimate": "spectrum",
    "SpectralDensity": "spectrum",
    "frobenius_norm": "spectrum",
    "spectral_density": "spectrum",
    "from_sklearn": "interop",
    "from_torch": "interop",
    "trace": "spectrum",
    "certify": "certify",
    "Certificate": "certify",
    "certify_minimum": "certify",
    "GlobalMinimum": "certify",
    "load_certificate": "certify",
    "lambda_threshold": "threshold",
    "radius_path": "threshold",
    "RadiusPath": "threshold",
    "widen": "threshold",
    "search": "threshold",
    "SearchResult": "threshold",
    "Status": "threshold",
    "ThresholdResult": "threshold",
    "Witness": "threshold",
    "KinkWitness": "threshold",
    "load_witness": "threshold",
    "sweep": "sweep",
    "SweepSpec": "sweep",
    "report": "sweep.report",
}


def __getattr__(name: str) -> Any:
    if name == "datasets":
        return import_module(".datasets", __name__)
    if name in _LAZY:
        value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pyhess' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "L2",
    "MLP",
    "Ball",
    "BatchEigenResult",
    "Box",
    "Certificate",
    "Convex",
    "Curvature",
    "Dataset",
    "EigenResult",
    "EigenStatus",
    "Estimate",
    "FileError",
    "GeometricL2",
    "GlobalMinimum",
    "InputError",
    "InputTypeError",
    "Intersection",
    "KinkWitness",
    "MemoryLimitError",
    "MemoryPlan",
    "MissingDependencyError",
    "NonFiniteError",
    "NotConvergedError",
    "NumericalError",
    "Objective",
    "Ordered",
    "Penalty",
    "PyhessError",
    "RadiusPath",
    "Region",
    "SearchResult",
    "ShiftedL2",
    "SpectralDensity",
    "Status",
    "StoreError",
    "SweepSpec",
    "ThresholdResult",
    "WeightedL2",
    "Witness",
    "certify",
    "certify_minimum",
    "datasets",
    "eigsh",
    "eigsh_batch",
    "frobenius_norm",
    "from_sklearn",
    "from_torch",
    "lambda_threshold",
    "load_certificate",
    "load_witness",
    "plan",
    "radius_path",
    "report",
    "search",
    "show_config",
    "spectral_density",
    "sweep",
    "trace",
    "widen",
]
