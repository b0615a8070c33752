"""Checking result files: everything that a file claims is computed anew from what is in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._checks import shown
from .._claims import Check, Outcome
from .._files import read_result
from ..certify import stored_certificate
from ..errors import FileError
from .files import READERS, stored_witness
from .slow_check import DEFAULT_TIME_LIMIT, certificate_checks
from .witness import Witness

#: Version of the layout of `Verification.to_dict`.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Verification:
    """What became of a file's claim.

    Attributes
    ----------
    path : str
        The file.
    kind : str
        What it holds: ``"witness"``, ``"kink_witness"`` or ``"certificate"``.
    pyhess_version : str
        Which wrote it.
    claim : str
        What it says, in words.
    checks : tuple of Check
        The parts of the claim, each with its outcome (``HOLDS``, ``FAILS`` or ``OPEN``) and what was compared.
    counterexample : Witness or None
        What refutes a certificate: a point of the region whose Hessian has an eigenvalue below the claim.
    """

    path: str
    kind: str
    pyhess_version: str
    claim: str
    checks: tuple[Check, ...]
    counterexample: Witness | None = None

    @property
    def verdict(self) -> str:
        """``"verified"`` if every part holds, ``"refuted"`` if one fails, else ``"incomplete"``: a part was not re-checked."""
        outcomes = {check.outcome for check in self.checks}
        if Outcome.FAILS in outcomes:
            return "refuted"
        return "incomplete" if Outcome.OPEN in outcomes else "verified"

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe content."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "verification",
            "file": self.path,
            "file_kind": self.kind,
            "pyhess_version": self.pyhess_version,
            "claim": self.claim,
            "verdict": self.verdict,
            "checks": [{"name": c.name, "outcome": c.outcome.value, "detail": c.detail} for c in self.checks],
            "counterexample": None if self.counterexample is None else self.counterexample.to_dict(),
        }


def verify_file(path: str | os.PathLike[str], *, time_limit: float = DEFAULT_TIME_LIMIT) -> Verification:
    """Check the claim of a result file from the file alone.

    Parameters
    ----------
    path : str or path-like
        A file that `Witness.save`, `KinkWitness.save` or `Certificate.save` wrote.
    time_limit : float
        Seconds for the slow check of a certificate; what is not finished by then is reported as not re-checked.

    Returns
    -------
    Verification

    Raises
    ------
    FileError
        If the file cannot be read, is damaged, holds something else, or was written by a newer pyhess.

    Examples
    --------
    >>> import tempfile, pyhess as ph
    >>> from pyhess.threshold import verify_file
    >>> obj = ph.Objective(ph.MLP([1, 1, 1], "identity", bias=False), ph.Dataset([[1.0]], [1.0]))
    >>> witness = ph.lambda_threshold(obj, ph.Ball(radius=1.5), rng=7).witness
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = verify_file(witness.save(f"{folder}/w.npz"))
    >>> found.verdict, [check.name for check in found.checks]
    ('verified', ['data', 'lower end', 'point', 'direction', 'curvature', 'core', 'segment'])
    """
    content = read_result(path)
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in _VERIFIERS:
        raise FileError(f"{path} holds {shown(kind)}; pyhess can verify files of the kinds {', '.join(_VERIFIERS)}.")
    return _VERIFIERS[kind](content, path, time_limit)


def _verify_witness(content: dict[str, Any], path: str | os.PathLike[str], _time_limit: float) -> Verification:
    stored = stored_witness(content, path)
    checks = (*stored.checks, *stored.witness.checks())
    return Verification(os.fspath(path), stored.kind, stored.pyhess_version, stored.claim, checks)


def _verify_certificate(content: dict[str, Any], path: str | os.PathLike[str], time_limit: float) -> Verification:
    stored = stored_certificate(content, path)
    checks, counterexample = certificate_checks(stored.certificate, time_limit)
    everything = (*stored.checks, *checks)
    return Verification(os.fspath(path), "certificate", stored.pyhess_version, stored.claim, everything, counterexample)


#: How a file of each kind is verified.
_VERIFIERS: dict[str, Callable[[dict[str, Any], str | os.PathLike[str], float], Verification]] = {
    **dict.fromkeys(READERS, _verify_witness),
    "certificate": _verify_certificate,
}
