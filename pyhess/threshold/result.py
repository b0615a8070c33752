"""What a threshold computation returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from .card import psi_in_words, render
from .kinks import KinkWitness
from .status import Status
from .witness import Witness

if TYPE_CHECKING:
    from ..certify import Certificate

#: Version of the layout of `ThresholdResult.to_dict`.
SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class ThresholdResult:
    """A bracket around the convexity threshold ``lam*`` of ``L(theta) + lam |theta|²`` on a region.

    The objective is convex on the region exactly for ``lam >= lam* = max(0, -psi/2)``, with psi the infimum of the smallest
    Hessian eigenvalue over the region. ``str(result)`` is a readable card.

    Attributes
    ----------
    lam_lower, lam_upper : float
        ``lam_lower <= lam* <= lam_upper``. The lower end has a witness, the upper one a certificate; ``lam_upper`` is
        infinite where nothing was certified. Both are infinite for status INFINITE.
    psi_upper, psi_lower : float
        Eigenvalue of the witness and certified lower bound, ``psi_lower <= psi <= psi_upper``; infinite where missing.
    status : Status
        How the computation ended; ``status.advice`` says what to try next.
    scope : str
        ``"global"``, or ``"almost everywhere"`` for ReLU networks with kinks that are not known to be convex: then the psi
        values are those of the almost-everywhere Hessian, which bound lam* from below (necessary) but not from above.
    witness : Witness or None
        The point and direction behind ``lam_lower`` and ``psi_upper``; None if the run was stopped before there was one.
    kink : KinkWitness or None
        A concave ReLU kink in the interior: the proof of an infinite threshold.
    certificate : Certificate or None
        The proof of ``psi_lower``.
    stats : mapping
        Seconds per stage, Hessian-vector products, starts, threads, seed, whether the run was interrupted (by Ctrl-C, or its
        search by the time limit), whether a time limit ended any of the certificate's work.
    problem : mapping
        Network, data, loss, region and penalty in words and numbers, and which symmetry of the network the region shares.
    """

    lam_lower: float
    lam_upper: float
    psi_upper: float
    psi_lower: float
    status: Status
    scope: str
    witness: Witness | None
    kink: KinkWitness | None
    certificate: Certificate | None
    stats: Mapping[str, Any] = field(repr=False)
    problem: Mapping[str, Any] = field(repr=False)

    @property
    def ratio(self) -> float:
        """lam_upper / lam_lower: 1 for an exact result, infinite if one end is missing."""
        if self.lam_upper == self.lam_lower:
            return 1.0
        return self.lam_upper / self.lam_lower if self.lam_lower > 0.0 else math.inf

    def __str__(self) -> str:
        return render(self)

    def to_dict(self) -> dict[str, Any]:
        """Content as plain lists, strings and finite numbers; infinite or missing numbers are None.

        Where a number is None, ``status`` (and ``status_advice``) tells infinity from absence.
        """
        content = json_safe(
            {
                "schema_version": SCHEMA_VERSION,
                "kind": "lambda_threshold",
                "status": self.status.value,
                "status_advice": self.status.advice,
                "scope": self.scope,
                "lam_lower": self.lam_lower,
                "lam_upper": self.lam_upper,
                "psi_meaning": "; ".join(filter(None, psi_in_words(self.scope))),
                "psi_upper": self.psi_upper,
                "psi_lower": self.psi_lower,
                "ratio": self.ratio,
                "witness": None if self.witness is None else self.witness.to_dict(),
                "kink": None if self.kink is None else self.kink.to_dict(),
                "certificate": None if self.certificate is None else self.certificate.to_dict(),
                "stats": self.stats,
                "problem": self.problem,
            }
        )
        assert isinstance(content, dict)
        return content


def json_safe(value: Any) -> Any:
    """Replace arrays by lists, NumPy numbers by Python ones, and NaN or infinities by None, at any depth."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_safe(item) for item in value]
    if isinstance(value, np.ndarray):
        return json_safe(value.tolist())
    if isinstance(value, np.generic):
        return json_safe(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
