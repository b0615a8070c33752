"""The driver: hands out cells, writes every result to the store before it lets go of it, and survives its workers.

A cell counts as finished when its row is on the disk. What is in flight when anything dies is done again; what is finished
never is.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from ..errors import PyhessError
from ._columns import CRASHED, DONE, FAILED, PENDING
from .engines import Engine
from .forecast import Forecast
from .plan import Cell, Plan
from .store import Store
from .worker import COMPILED_FOR, prepare, run_batch
from .workqueue import WorkQueue

#: A batch of small cells should take about so long, and is cut off at twice that: little is lost with it.
_BATCH_SECONDS = 0.5
#: Batches per worker that are handed out, so that none waits for the driver.
_WINDOW = 2
#: Largest number of parameters of a witness that is kept without need.
_KEEP_PARAMS = 2**20
#: How often the store is told what is going on, and how long the driver waits for news at most.
_LIVE_SECONDS, _TICK_SECONDS = 1.0, 0.2
#: Starts of a cell's search, as the store has them.
COLD, WARM, ORPHAN = "cold", "warm", "cold, parent failed"

Progress = Callable[[dict[str, Any]], object]


@dataclass(eq=False)
class _Flight:
    """A batch on its way; one without cells loads and compiles what they need."""

    cells: list[Cell]
    suspected: bool
    since: float = field(default_factory=time.time)


class Driver:
    """One run of a plan on an engine into a store."""

    def __init__(
        self, plan: Plan, store: Store, engine: Engine, *, retries: int, threads: int, run_id: str, grace: float,
        retry_failed: bool, witnesses: bool, progress: Progress | None,
    ) -> None:  # fmt: skip
        self.plan, self.store, self.engine = plan, store, engine
        self.retries, self.threads, self.run_id, self.grace = retries, threads, run_id, grace
        self.witnesses, self.progress = witnesses, progress
        self.stopped_by: int | None = None
        todo = self._todo(retry_failed)
        self.queue = WorkQueue(todo)
        used = store.seconds().get(DONE, {"predicted": 0.0, "used": 0.0})
        self.forecast = Forecast(used["used"] / used["predicted"] if used["predicted"] > 0.0 else None)
        self._attempts = {key: tries for key, (_, tries, _) in store.states().items()}
        self._tried: dict[str, int] = {}
        self._flights: dict[Future[Any], _Flight] = {}
        self._events: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._careful = self._compiling = False
        self._began = monotonic()
        self._next_live = 0.0
        self._predicted_total = sum(cell.predicted_seconds for cell in plan.cells)
        self._counts = store.counts()

    def _todo(self, retry_failed: bool) -> list[Cell]:
        """Which cells lack a result, or have one that the new result of their parent replaces; the store is told."""
        states = self.store.states()
        again = {PENDING, CRASHED} | ({FAILED} if retry_failed else set())
        todo: dict[str, Cell] = {}
        for cell in self.plan.cells:
            status, _, start = states.get(cell.key, (PENDING, 0, None))
            parent = None if cell.parent is None else states.get(cell.parent, (PENDING, 0, None))[0]
            if status in again or cell.parent in todo or (start == ORPHAN and parent == DONE):
                todo[cell.key] = cell
        self.store.set_plan(
            (
                {
                    "key": cell.key, "position": cell.position, "kind": cell.kind, "axes": cell.axes, "work": cell.work,
                    "parent": cell.parent, "predicted_seconds": cell.predicted_seconds, "predicted_bytes": cell.bytes,
                }
                for cell in self.plan.cells
            ),
            again=(key for key in todo if key in states and states[key][0] != PENDING),
        )  # fmt: skip
        return list(todo.values())

    # --- the loop -----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until everything has a result or a signal asks to stop.

        Raises
        ------
        FileError
            If the store cannot be written any more.
        PyhessError
            If the engine is beyond repair.
        """
        with self._signals():
            self._prepare()
            while self.queue.unfinished and self.stopped_by is None:
                self._refill()
                self._collect(_TICK_SECONDS)
                self._tell()
            if self._flights:
                self._drain()
            self._tell(force=True)

    def _prepare(self) -> None:
        """Have every worker compile before it is given cells, so that it can be told what takes a minute the first time."""
        wanted: dict[tuple[Any, ...], Cell] = {}
        for cell in self.queue:
            wanted.setdefault(tuple(cell.problem[name] for name in COMPILED_FOR), cell)
        tasks = [self._described(cell) for cell in wanted.values()]
        self._compiling = bool(tasks)
        self._tell(force=True)
        for _ in range(self.engine.workers if tasks else 0):
            self._submit([], False, prepare, tasks, self.threads)

    def _refill(self) -> None:
        """Keep the engine supplied; after a shared pool broke, one suspect at a time and nothing else."""
        while self.stopped_by is None:
            if self.queue.suspects and not (self._careful and self._flights):
                cells, suspected = self.queue.take_suspects(), True
            elif self._careful and (self.queue.suspects or any(flight.suspected for flight in self._flights.values())):
                return
            elif len(self._flights) < _WINDOW * self.engine.workers:
                self._careful = False
                cells, suspected = self.queue.take(_BATCH_SECONDS, self.forecast.ratio, self.engine.workers), False
            else:
                return
            if not cells:
                return
            tasks = [self._task(cell) for cell in cells]
            self._submit(cells, suspected, run_batch, tasks, self.threads, 2.0 * _BATCH_SECONDS)

    def _submit(self, cells: list[Cell], suspected: bool, function: Callable[..., Any], *arguments: Any) -> None:
        flight = _Flight(cells, suspected)
        try:
            future = self.engine.submit(function, *arguments)
        except PyhessError:
            raise
        except Exception:  # whatever the engine of a caller says when it is broken or shut down
            for cell in cells:
                self.queue.put(cell)
            self.engine.repair()
            return
        self._flights[future] = flight
        future.add_done_callback(self._events.put)

    def _task(self, cell: Cell) -> dict[str, Any]:
        parent, start = None, COLD
        if cell.parent is not None:
            row = self.store.row(cell.parent)
            arrays = self.store.arrays(cell.parent) if row is not None and row["status"] == DONE else {}
            start = WARM if "theta" in arrays else ORPHAN
            if start == WARM:
                parent = {"problem": self.plan.by_key[cell.parent].problem, "theta": arrays["theta"], "v": arrays["v"]}
        keep = self.queue.has_children(cell) or (self.witnesses and cell.num_params <= _KEEP_PARAMS)
        return {
            **self._described(cell), "key": cell.key, "time_limit": self.plan.spec.time_limit, "start": start, "parent": parent,
            "keep": keep,
        }  # fmt: skip

    def _described(self, cell: Cell) -> dict[str, Any]:
        """What a cell computes."""
        kind = self.plan.spec.kind
        return {"kind": cell.kind, "module": kind.run.__module__, "options": cell.work["options"], "problem": cell.problem}

    def _collect(self, timeout: float) -> None:
        """Wait for news, and write all there is in one transaction."""
        done: list[Future[Any]] = []
        with suppress(queue.Empty):
            done.append(self._events.get(timeout=timeout))
            while True:
                done.append(self._events.get_nowait())
        if not done:
            return
        finished: list[tuple[Cell, dict[str, Any]]] = []
        failures: list[tuple[Future[Any], BaseException]] = []
        left: list[Cell] = []
        with self.store.transaction():
            for future in done:
                try:
                    answers = future.result(timeout=0)
                except (Exception, CancelledError) as failure:
                    failures.append((future, failure))
                    continue
                by_key = {answer["key"]: answer for answer in answers}
                for cell in self._flights[future].cells:
                    answer = by_key.get(cell.key)
                    if answer is None:
                        left.append(cell)
                    elif answer["result"]["status"] == "interrupted":
                        self._again(cell, left, finished)
                    else:
                        self._write(cell, answer["result"], answer["arrays"])
                        finished.append((cell, answer["result"]))
            for future, error in failures:
                self._failed(future, error, left, finished)
        # Everything is on the disk: now it counts, and the engine may forget it.
        for future in done:
            self.engine.settle(future)
            self._flights.pop(future, None)
        self._compiling = self._compiling and any(not flight.cells for flight in self._flights.values())
        for cell in left:
            self.queue.put(cell)
        for cell, result in finished:
            self._counts[result["status"]] += 1
            self._counts[PENDING] -= 1
            self.queue.finish(cell)
            if result["status"] == DONE:
                self.forecast.add(cell.predicted_seconds, result["seconds"])
        if failures and self.stopped_by is None:
            if not self.engine.isolates:
                self._careful = True
            self.engine.repair()

    def _write(self, cell: Cell, result: dict[str, Any], arrays: dict[str, Any]) -> None:
        tries = self._attempts.get(cell.key, 0) + self._tried.get(cell.key, 0) + 1
        self.store.put(cell.key, {**result, "attempts": tries, "finished": time.time(), "run_id": self.run_id}, arrays)

    def _failed(
        self, future: Future[Any], error: BaseException, left: list[Cell], finished: list[tuple[Cell, dict[str, Any]]]
    ) -> None:
        """A batch came to no end: find out which of its cells ends its worker."""
        flight = self._flights[future]
        if isinstance(error, CancelledError) or not self.engine.blamed(future) or not flight.cells:
            left.extend(flight.cells)
        elif len(flight.cells) > 1 or (not flight.suspected and not self.engine.isolates):
            self.queue.put_suspects(flight.cells)
        else:
            (cell,) = flight.cells
            self._tried[cell.key] = self._tried.get(cell.key, 0) + 1
            if self._tried[cell.key] <= self.retries:
                self.queue.put_suspects([cell])
                return
            self._give_up(
                cell,
                f"its worker ended {self._tried[cell.key]} times while it worked on this cell alone ({type(error).__name__}: "
                f"{error}). Perhaps it needs more memory than there is; see predicted_bytes.",
                finished,
            )

    def _again(self, cell: Cell, left: list[Cell], finished: list[tuple[Cell, dict[str, Any]]]) -> None:
        """A worker was interrupted within a cell, by something else than us."""
        self._tried[cell.key] = self._tried.get(cell.key, 0) + 1
        if self._tried[cell.key] <= self.retries or self.stopped_by is not None:
            left.append(cell)
        else:
            self._give_up(cell, f"its worker was interrupted {self._tried[cell.key]} times within this cell.", finished)

    def _give_up(self, cell: Cell, message: str, finished: list[tuple[Cell, dict[str, Any]]]) -> None:
        result = {"status": CRASHED, "error_type": "WorkerDied", "error": message}
        self._tried[cell.key] -= 1  # the last one is added by _write
        self._write(cell, result, {})
        finished.append((cell, result))

    # --- stopping -----------------------------------------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT, SIGTERM or SIGUSR1 asks to drain; a second SIGINT or SIGTERM ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, _frame: object) -> None:
            if self.stopped_by is not None and number != signal.SIGUSR1:
                raise KeyboardInterrupt
            self.stopped_by = self.stopped_by or number

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _drain(self) -> None:
        """Take back what has not begun, and wait a while for the rest."""
        for future in list(self._flights):
            future.cancel()
        deadline = monotonic() + self.grace
        with suppress(KeyboardInterrupt):
            while any(flight.cells for flight in self._flights.values()) and monotonic() < deadline:
                self._collect(_TICK_SECONDS)
                self._tell()

    # --- telling ------------------------------------------------------------------------------------------------------------

    def _tell(self, *, force: bool = False) -> None:
        now = monotonic()
        if not force and now < self._next_live:
            return
        self._next_live = now + _LIVE_SECONDS
        state = self.state()
        with self.store.transaction():
            self.store.set_live(self.run_id, state)
        if self.progress is not None:
            self.progress(state)

    def state(self) -> dict[str, Any]:
        """What is going on, JSON-safe."""
        left = self.queue.predicted_left
        low, high = self.forecast.eta(left, self.queue.longest_chain(), self.engine.workers)
        flights = sorted(self._flights.values(), key=lambda flight: flight.since)
        return {
            "updated": time.time(),
            "seconds": monotonic() - self._began,
            "engine": self.engine.name,
            "workers": self.engine.workers,
            "counts": dict(self._counts),
            "fraction": 1.0 - left / self._predicted_total if self._predicted_total > 0.0 else 1.0,
            "eta_seconds": [low, high],
            "running": [
                {"axes": flight.cells[0].axes, "cells": len(flight.cells), "since": flight.since}
                for flight in flights[: self.engine.workers]
                if flight.cells
            ],
            "compiling": self._compiling,
            "stopping": self.stopped_by is not None,
        }
