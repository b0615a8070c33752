"""Networks of other libraries as a description and a vector of parameters."""

from __future__ import annotations

from .scikit_learn import from_sklearn
from .torch_modules import from_torch

__all__ = ["from_sklearn", "from_torch"]
