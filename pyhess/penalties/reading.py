"""Penalties from the descriptions that ``Penalty.to_dict`` gives."""

from __future__ import annotations

from typing import Any

from .._checks import described_kind, exact_keys
from .base import Penalty
from .geometric import GeometricL2
from .quadratic import L2, ShiftedL2, WeightedL2

#: The class of a kind and the names of its arguments.
_KINDS: dict[str, tuple[type[Penalty], tuple[str, ...]]] = {
    "l2": (L2, ("penalize",)),
    "shifted_l2": (ShiftedL2, ("eps",)),
    "weighted_l2": (WeightedL2, ("w",)),
    "geometric_l2": (GeometricL2, ()),
}


def penalty_from_dict(content: Any) -> Penalty:
    """Return the penalty that a dictionary of ``Penalty.to_dict`` describes, bit for bit, not bound to a network.

    Parameters
    ----------
    content : dict
        With the keys of its kind and no others. Vectors may be lists or arrays.

    Raises
    ------
    InputError, InputTypeError
        If the kind is unknown, keys are missing or unknown, or a value does not fit.

    Examples
    --------
    >>> import pyhess as ph
    >>> from pyhess.penalties import penalty_from_dict
    >>> penalty_from_dict(ph.ShiftedL2([0.5, -0.5]).to_dict()) == ph.ShiftedL2([0.5, -0.5])
    True
    """
    kind = described_kind("penalty", "Penalty.to_dict", content, _KINDS)
    penalty, names = _KINDS[kind]
    exact_keys(f"the penalty of kind {kind!r}", content, ("kind", *names))
    return penalty(**{name: content[name] for name in names})
