"""The parts of a claim, checked one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from os import PathLike

from .errors import FileError, InputError, NumericalError


class Outcome(Enum):
    """What became of one part of a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    #: Nothing speaks against it, but it could not be decided anew.
    OPEN = "not re-checked"


@dataclass(frozen=True)
class Check:
    """One part of a claim, what became of it, and what was compared with what."""

    name: str
    outcome: Outcome
    detail: str

    def raise_if_open(self) -> None:
        """Raise InputError where the part could not be checked for want of the region's projection."""
        if self.outcome is Outcome.OPEN:
            raise InputError(f"{self.detail}. Pass the region itself: load_witness(path, region=region).")


def judged(name: str, holds: bool, detail: str) -> Check:
    """Return a check that holds or fails."""
    return Check(name, Outcome.HOLDS if holds else Outcome.FAILS, detail)


def refuse_altered(path: str | PathLike[str], checks: Iterable[Check]) -> None:
    """Raise FileError if a file fails one of the checks that it agrees with itself."""
    for check in checks:
        if check.outcome is Outcome.FAILS:
            raise FileError(f"{path} was altered: {check.detail}.")


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """Return the outcome of a check; one whose numbers overflow fails."""
    try:
        return check()
    except (NumericalError, FloatingPointError) as error:
        return Check(name, Outcome.FAILS, str(error))
