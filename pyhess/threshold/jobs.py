"""Calls of the native descent: the starts of one search, or of several, on all cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._native import CAPI, address, descent_scratch_size, raise_for_status, run_interruptible
from .._threads import PARALLEL_LOCK, blas_single_thread
from ..kernels import descent
from ..linearization import Engine

_NONE = np.zeros(0, dtype=np.dtype((np.void, descent.TASK.itemsize)))
#: BFGS pairs of one descent: fewer where they would take more memory than this, whatever the number of workers.
_PAIRS, _PAIR_BYTES = (3, 30), 2**28
#: Calls predicted to take fewer flops than this (some 10 ms) stay in the calling thread: Ctrl-C and the deadline can wait.
_INTERRUPTIBLE_FLOPS = 1e9


@dataclass(frozen=True)
class Part:
    """The starts of one search (records of `descent.TASK`), of P = ``size`` parameters, and the flops predicted for them."""

    engine: Engine
    size: int
    records: npt.NDArray[np.void]
    flops: float


class Job:
    """One call: its tasks, and working memory for so many workers. The engines of its parts have one type of numbers."""

    def __init__(self, parts: Sequence[Part], workers: int) -> None:
        self.workers = workers
        self.counter = np.zeros(1, dtype=np.int64)
        self._flops = sum(part.flops for part in parts) / workers
        scratch = 0
        for part in parts:
            memory = int(np.clip(_PAIR_BYTES // (4 * part.size * 8), *_PAIRS))
            part.records["memory"] = memory
            scratch = max(scratch, descent_scratch_size(part.size, memory))
        # As bytes: NumPy looks at every field of records that it joins.
        self._records = np.concatenate([_NONE, *(part.records.view(_NONE.dtype) for part in parts)]).view(descent.TASK)
        self._scratch = np.zeros((workers, scratch))
        self._turned = self._rows(parts, lambda engine: 2 * engine.transposed_size)
        self._work = self._rows(parts, lambda engine: engine.work_size)

    def _rows(self, parts: Sequence[Part], need: Callable[[Engine], int]) -> npt.NDArray[Any]:
        """Memory for every worker, enough for any of the engines."""
        if not parts:
            return np.zeros((self.workers, 1))
        engine = max((part.engine for part in parts), key=need)
        return engine.rows(self.workers, need(engine))

    def run(self, cancel: npt.NDArray[np.int32]) -> None:
        """Call the core, in this thread."""
        turned, work = (np.array([address(row) for row in rows], dtype=np.int64) for rows in (self._turned, self._work))
        status = descent.descend[self.workers > 1](
            CAPI["ph_descend"], CAPI["ph_fetch_add"], self._records, self._scratch, turned, work, self.counter, cancel
        )
        raise_for_status(status, "search")

    def carry_out(
        self, cancel: npt.NDArray[np.int32], deadline: float | None = None, on_tick: Callable[[], object] = lambda: None
    ) -> None:
        """Call the core, watching for Ctrl-C and the deadline if that lasts."""

        def call() -> None:
            with blas_single_thread(), PARALLEL_LOCK:
                self.run(cancel)

        if self._flops > _INTERRUPTIBLE_FLOPS:
            run_interruptible(call, cancel, deadline=deadline, on_tick=on_tick)
        else:
            call()
            on_tick()
