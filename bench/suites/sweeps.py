"""What a sweep costs beside its cells, and how many searches of tiny networks it gets through.

Cells that wait for a tenth of a second show what the driver, the store and the workers add to their own seconds; cells of a tiny
network show what it is like to have many of them. Both from the first cell to the last; the start of the workers has a number of
its own.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import pyhess as ph
from pyhess.sweep import Kind, Outcome, register
from pyhess.sweep.plan import FLOPS_PER_SECOND

from ..cases import Array
from ..experiment import Contender, Experiment, check
from ..records import ForeignShare, Row
from ..runner import Plan, note

SUITE = "sweeps"
_PAUSE = 0.1


@dataclass(frozen=True)
class PauseOptions:
    """How long a cell waits."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}
    seconds: float = _PAUSE


def _pause(problem: Any, options: PauseOptions, _time_limit: float | None, _warm: Any) -> Outcome:
    """The loss at an initialisation, after a while."""
    theta = problem.obj.net.init(rng=problem.seed)
    time.sleep(options.seconds)
    return Outcome({"lam_lower": problem.obj.value(theta)}, {"theta": theta})


register(Kind("pause", 1, PauseOptions, _pause, lambda net, samples, options: FLOPS_PER_SECOND * options.seconds, warm=False))


@dataclass(frozen=True)
class Task:
    """A sweep over seeds and, if there are more than one, radii, and the answer of a cell without a sweep."""

    name: str
    what: str
    compute: dict[str, Any]
    cells: int

    @property
    def spec(self) -> dict[str, Any]:
        """The specification."""
        seeds = list(range(11, 11 + self.cells))
        return {"compute": self.compute, "grid": {"data": "teacher_student", "n": 128, "width": 8, "radius": 0.5, "seed": seeds}}

    def direct(self) -> Array:
        """Answers of the first cells, straight from the library."""
        obj = ph.Objective(ph.MLP([8, 8, 1]), ph.datasets.load("teacher_student", n=128))
        found = []
        for seed in range(11, 11 + min(self.cells, 4)):
            if self.compute["kind"] == "pause":
                found.append(obj.value(obj.net.init(rng=seed)))
            else:
                found.append(ph.search(obj, ph.Box(-0.5, 0.5), rng=seed, starts=self.compute["starts"]).lam_lower)
        return np.array(found)


def _tasks(plan: Plan) -> Iterator[Task]:
    few, some = {"full": (300, 1000), "short": (120, 200), "smoke": (4, 4)}[plan.mode]
    pause = 0.001 if plan.smoke else _PAUSE
    yield Task("pauses", f"cells of {1000.0 * pause:g} ms", {"kind": "pause", "seconds": pause}, few)
    yield Task("tiny searches", "8-8-1 tanh SE N=128, 2 starts", {"kind": "search", "starts": 2}, some)


@dataclass(frozen=True)
class Swept:
    """One run: seconds from the first cell to the last, until the first began, of all cells together, and their answers."""

    span: float
    start: float
    worked: float
    answers: Array


def sweep(task: Task, workers: int) -> Swept:
    """Carry a task out with so many processes, none for this one, into a new store."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        rows = ph.sweep(task.spec, Path(folder) / "run.db", workers).rows()
    for row in rows:
        if row["status"] != "done":
            raise RuntimeError(f"{task.name}: a cell {row['status']}: {row['error']}\n{row['traceback'] or ''}")
    first = min(row["finished"] for row in rows)
    last = max(row["finished"] for row in rows)
    # The rows of a batch are written together, and the first batch was at its cells before that.
    batch = sum(row["seconds"] for row in rows if row["finished"] < first + 1e-3) / max(1, workers)
    rows.sort(key=lambda row: row["axes"]["seed"])
    return Swept(
        last - first + batch, first - batch - began, sum(row["seconds"] for row in rows),
        np.array([row["lam_lower"] for row in rows]),
    )  # fmt: skip


def rows(plan: Plan) -> list[Row]:
    """Both tasks, in this process and with a process per thread."""
    found: list[Row] = []
    for task in _tasks(plan):
        if plan.only not in task.name:
            continue
        kinds = {"pyhess, in-process": 0, "pyhess": max(2, plan.threads)}
        contenders = tuple(
            Contender(who, "pyhess", partial(sweep, task, workers), lambda swept: swept.answers[:4])
            for who, workers in kinds.items()
        )
        direct = Contender("without a sweep", "ruler", task.direct, lambda answer: answer)
        agreed = check(Experiment(SUITE, task.name, "float64", task.what, (direct, *contenders), 1e-9))
        plan.tell(f"{task.name}: {agreed} answers agree")
        if plan.smoke:
            continue
        for who, workers in kinds.items():
            share = ForeignShare()
            runs = [sweep(task, workers) for _ in range(min(3, plan.protocol.repeats))]
            found += note(plan, [_row(task, who, max(1, workers), runs, plan, share.read())])
    return found


def _row(task: Task, who: str, workers: int, runs: list[Swept], plan: Plan, foreign: float) -> Row:
    spans = tuple(run.span / task.cells for run in runs)
    best = min(runs, key=lambda run: run.span)
    metrics = {
        "cells": task.cells,
        "workers": workers,
        "overhead": best.span * workers / best.worked - 1.0,
        "start": min(run.start for run in runs),
    }
    median = statistics.median(spans)
    return Row(
        SUITE, task.name, "float64", task.what, who, "pyhess", False, plan.threads, min(spans), median,
        (max(spans) - min(spans)) / median, len(spans), load=os.getloadavg()[0], foreign=foreign, samples=spans, metrics=metrics,
    )  # fmt: skip
