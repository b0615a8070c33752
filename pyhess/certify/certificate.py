"""What a certification returns."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import NumericalError
from .slab_multipliers import SlabMultipliers
from .subdivision import Cover
from .taylor_multipliers import TaylorMultipliers
from .unit_cover import AlikeSets, JointSets, UnitLeaves

if TYPE_CHECKING:
    from ..objective import Objective
    from ..regions import Region

#: What the bounds that bring numbers along were proved with.
Multipliers: TypeAlias = TaylorMultipliers | SlabMultipliers | JointSets | AlikeSets


@dataclass(frozen=True)
class MethodResult:
    """One method's bound: ``psi_lower`` is -inf where it was cut short, ``cells`` the parts of the region it looked at.

    ``cover`` holds the boxes of a branch and bound method with their bounds, ``leaves`` the cells of one over a unit's weights;
    ``multipliers`` what the bounds by Taylor polynomials and ellipsoids around a unit's changes were proved with; they are None
    for other methods.
    """

    psi_lower: float
    seconds: float
    cells: int
    cover: Cover | None = field(default=None, repr=False, compare=False)
    leaves: UnitLeaves | None = field(default=None, repr=False, compare=False)
    multipliers: Multipliers | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class Certificate:
    """A proved lower bound of psi = inf over the region of eigval_min(H(theta)).

    Attributes
    ----------
    method : str
        Name of the method with the best bound.
    psi_lower : float
        No Hessian of the loss anywhere on the region has an eigenvalue below this; for ReLU networks no almost-everywhere
        Hessian. -inf if no method finished.
    table : mapping of str to MethodResult
        What every method found, and in which time.
    rounding : str
        How rounding errors are accounted for, and what is assumed of the arithmetic.
    statement : str
        What is proved, in words.
    """

    method: str
    psi_lower: float
    table: Mapping[str, MethodResult]
    rounding: str
    statement: str
    _obj: Objective = field(repr=False)
    _region: Region = field(repr=False)

    @property
    def obj(self) -> Objective:
        """Network, data and loss."""
        return self._obj

    @property
    def region(self) -> Region:
        """Where the bound holds."""
        return self._region

    @property
    def lam_upper(self) -> float:
        """max(0, -psi_lower / 2): from this penalty strength on the objective is convex (ReLU: kinks aside)."""
        return max(0.0, -0.5 * self.psi_lower)

    def verify(self) -> bool:
        """Compute the winning method's bound afresh and compare; for branch and bound, that of every box or slab of its cover, or
        by a search until it reaches what is claimed.

        Raises
        ------
        NumericalError
            If the fresh bound is below the recorded one.
        """
        from .again import fresh_bound

        if self.method == "none":
            return True
        row = self.table.get(self.method)
        assert row is not None
        fresh = fresh_bound(self._obj, self._region, self.method, row, self.psi_lower)
        if not fresh >= self.psi_lower - 1e-9 * abs(self.psi_lower):
            raise NumericalError(
                f"the method {self.method!r} now proves psi >= {fresh!r}, the certificate claims {self.psi_lower!r}; "
                "it belongs to another problem, or was altered."
            )
        return True

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the certificate to ``name.npz``, which holds all that `pyhess.load_certificate` and ``pyhess verify`` need.

        The network, the data, the loss, the region, the table of methods and a search's boxes with their bounds are in the
        archive; ``name.json`` beside it is its description, to be read by people.

        Parameters
        ----------
        path : str or path-like
            A name that ends in .npz.

        Returns
        -------
        Path
            The archive.

        Raises
        ------
        FileError
            If the files cannot be written.
        """
        from .files import save_certificate

        return save_certificate(self, path)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe content."""
        return {
            "method": self.method,
            "psi_lower": _finite(self.psi_lower),
            "lam_upper": _finite(self.lam_upper),
            "rounding": self.rounding,
            "statement": self.statement,
            "table": {
                name: {"psi_lower": _finite(row.psi_lower), "seconds": row.seconds, "cells": row.cells}
                for name, row in self.table.items()
            },
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
