"""One comparison: contenders that must give the same answer, and then are timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .cases import Array


class AnswersDifferError(AssertionError):
    """Two contenders disagree, so their times must not be compared."""


@dataclass(frozen=True)
class Contender:
    """Something to be timed.

    Attributes
    ----------
    who : str
        Its name in tables.
    kind : str
        "pyhess", "peer", or "ruler": what the machine could do, without an answer of its own.
    run : callable
        The work; nothing else is timed.
    answer : callable, optional
        Makes an array out of what ``run`` returns, to be compared with the others.
    cached : bool
        Whether the state at theta is kept between calls, so that ``run`` is a product alone.
    flops : float, optional
        If other than the experiment's.
    """

    who: str
    kind: str
    run: Callable[[], Any]
    answer: Callable[[Any], Array] | None = None
    cached: bool = False
    flops: float | None = None


@dataclass(frozen=True)
class Experiment:
    """Contenders for one task; the first one with an answer is what the others are compared with.

    ``tolerance`` bounds |a - b| / |b|. ``notes`` go into the record.
    """

    suite: str
    case: str
    dtype: str
    what: str
    contenders: tuple[Contender, ...]
    tolerance: float
    flops: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)


def check(experiment: Experiment) -> int:
    """Compare all answers; the number of contenders that agreed.

    Raises
    ------
    AnswersDifferError
        Naming the two that differ, and by how much.
    """
    reference: tuple[str, Array] | None = None
    agreed = 0
    for contender in experiment.contenders:
        if contender.answer is None:
            continue
        answer = np.asarray(contender.answer(contender.run()), dtype=np.float64)
        if not np.isfinite(answer).all():
            raise AnswersDifferError(f"{experiment.case}, {experiment.dtype}: {contender.who}'s answer is not finite")
        if reference is None:
            reference = contender.who, answer
        elif answer.shape != reference[1].shape:
            raise AnswersDifferError(
                f"{experiment.case}, {experiment.dtype}: {contender.who}'s answer has shape {answer.shape}, "
                f"{reference[0]}'s {reference[1].shape}"
            )
        else:
            error = float(np.linalg.norm(answer - reference[1]) / np.linalg.norm(reference[1]))
            if not error <= experiment.tolerance:
                raise AnswersDifferError(
                    f"{experiment.case}, {experiment.dtype}, {experiment.what}: {contender.who} and {reference[0]} differ by "
                    f"{error:.2g}, allowed is {experiment.tolerance:.2g}"
                )
        agreed += 1
    return agreed
