"""Penalties P(theta) whose strength lam is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from ._checks import shown
from .errors import InputTypeError


@dataclass(frozen=True)
class L2:
    """P(theta) = |theta|², all weights and biases; its Hessian is 2 I, so lam adds 2 lam to every eigenvalue.

    Examples
    --------
    >>> import pyhess as ph
    >>> ph.L2()
    L2()
    """


def as_penalty(penalty: object) -> L2:
    """Return ``penalty`` if it is one that pyhess knows.

    Raises
    ------
    InputTypeError
        If it is anything else, the class ``L2`` without its brackets included.
    """
    if not isinstance(penalty, L2):
        raise InputTypeError(f"penalty is {shown(penalty)}; allowed is the penalty |theta|²: pass pyhess.L2().")
    return penalty
