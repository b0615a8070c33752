"""Many thresholds: a grid of problems, worked off by any executor into one store that survives every crash."""

from __future__ import annotations

from ._columns import ANSWER, COLUMNS, MEASURED, QUESTION
from .store import Store

__all__ = ["ANSWER", "COLUMNS", "MEASURED", "QUESTION", "Store"]
