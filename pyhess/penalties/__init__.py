"""Penalties whose strength lam is asked for: sums of squares with a diagonal Hessian."""

from __future__ import annotations

from .._checks import shown
from ..errors import InputTypeError
from .base import Penalty
from .geometric import GeometricL2
from .quadratic import L2, ShiftedL2, WeightedL2
from .reading import penalty_from_dict

__all__ = ["L2", "GeometricL2", "Penalty", "ShiftedL2", "WeightedL2", "as_penalty", "penalty_from_dict"]


def as_penalty(penalty: object) -> Penalty:
    """Return ``penalty`` if it is one that pyhess knows.

    Raises
    ------
    InputTypeError
        If it is anything else, the class ``L2`` without its brackets included.
    """
    if not isinstance(penalty, Penalty):
        raise InputTypeError(
            f"penalty is {shown(penalty)}; allowed are pyhess.L2(), ShiftedL2(eps), WeightedL2(w) and GeometricL2(). "
            "For the plain |theta|² pass pyhess.L2()."
        )
    return penalty
