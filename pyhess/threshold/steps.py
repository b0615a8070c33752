"""Searches as sequences of descents that somebody else carries out: one search alone, or several in common native calls.

Of a search alone and one among others the answers are the same bits: a start's result depends on the start alone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .._threads import num_workers
from .jobs import Job, Part
from .search_run import Effort, IntArray, NativeRun, Run

T = TypeVar("T")

#: Searches with more parameters are carried out one by one: nothing is gained there.
_MOST_PARAMS = 2**14


@dataclass(frozen=True, eq=False)
class Descent:
    """The starts ``tasks`` of a run are to be improved."""

    run: Run
    tasks: IntArray
    effort: Effort
    stage: str


#: Something that asks for descents one after the other and returns its answer.
Steps = Generator[Descent, None, T]


def conduct(steps: Steps[T]) -> T:
    """Carry out all descents that are asked for."""
    try:
        asked = next(steps)
        while True:
            try:
                asked.run.descend(asked.tasks, asked.effort, asked.stage)
            except KeyboardInterrupt as stop:
                asked = steps.throw(stop)
            else:
                asked = next(steps)
    except StopIteration as end:
        answer: T = end.value
        return answer


def conduct_together(searches: Iterable[Steps[T]]) -> list[T | Exception]:
    """The same for several at once; in place of an answer what was raised, where something was."""
    running = dict(enumerate(searches))
    found: dict[int, T | Exception] = {}
    while running:
        asked = []
        for number, steps in list(running.items()):
            try:
                asked.append(next(steps))
            except StopIteration as end:
                found[number] = end.value
            except Exception as error:
                found[number] = error
            if number in found:
                del running[number]
        _carry_out(asked)
    return [found[number] for number in sorted(found)]


def _carry_out(asked: Sequence[Descent]) -> None:
    """In one call for each type of numbers; what is large or has a time limit by itself."""
    parts: dict[Any, list[tuple[NativeRun, Part]]] = {}
    for one in asked:
        run = one.run
        if not isinstance(run, NativeRun) or run.size > _MOST_PARAMS or run.deadline is not None:
            run.descend(one.tasks, one.effort, one.stage)
        elif not run.interrupted and one.tasks.size > 0:
            part = run.part(one.tasks, one.effort)
            parts.setdefault(part.engine.dtype, []).append((run, part))
    for group in parts.values():
        cancel = np.zeros(1, dtype=np.int32)
        job = Job([part for _, part in group], num_workers(sum(part.records.size for _, part in group)))
        try:
            job.carry_out(cancel)
        except KeyboardInterrupt:
            cancel[0] = 1
        for run, _ in group:
            run.interrupted = bool(cancel[0] or run.cancel[0])
