"""Many thresholds: a grid of problems, worked off by any executor into one store that survives every crash.

The module can be called: ``pyhess.sweep`` is this package as soon as anything has imported it, and the function of that name
until then; both do the same.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ._columns import ANSWER, COLUMNS, MEASURED, QUESTION
from .store import Store

if TYPE_CHECKING:
    from .export import Export
    from .kinds import KINDS, Kind, Outcome, register
    from .merge import merge
    from .plan import make_plan
    from .run import Sweep, sweep
    from .spec import SweepSpec

# Reading a store needs neither pydantic nor Numba.
_LAZY = {
    "Export": "export", "KINDS": "kinds", "Kind": "kinds", "Outcome": "kinds", "register": "kinds", "merge": "merge",
    "make_plan": "plan", "Sweep": "run", "sweep": "run", "SweepSpec": "spec",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
        # Importing a module of that name has put the module there.
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pyhess.sweep' has no attribute {name!r}")


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Sweep:
        from .run import sweep

        return sweep(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
sys.modules[__name__].__doc__ = __doc__

__all__ = [
    "ANSWER", "COLUMNS", "KINDS", "MEASURED", "QUESTION", "Export", "Kind", "Outcome", "Store", "Sweep", "SweepSpec", "make_plan",
    "merge", "register", "sweep",
]  # fmt: skip
