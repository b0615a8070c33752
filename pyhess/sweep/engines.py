"""Where cells run: one seam, ``submit(function, *arguments) -> Future``, over what is there and what a caller brings."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from typing import Any

from .._checks import positive_int, shown
from ..errors import InputError, InputTypeError, PyhessError
from ._opening import version
from .worker import hello, start_worker

#: How long the first answer of a worker may take: it imports NumPy and Numba, perhaps over a network.
_HELLO_SECONDS = 300.0


class Engine:
    """Base: a name, a number of workers, and how they take work.

    ``isolates`` tells that the death of a worker fails only what was entrusted to it, so that it can be blamed.
    """

    name = "engine"
    isolates = True

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Hand over a call."""
        raise NotImplementedError

    def blamed(self, future: Future[Any]) -> bool:
        """Whether a call that failed may be what ended its worker; asked once for each that failed."""
        return True

    def settle(self, future: Future[Any]) -> None:
        """Forget a call that came to its end."""

    def repair(self) -> None:
        """After a failure: make sure that calls can be handed over again.

        Raises
        ------
        PyhessError
            If they cannot.
        """

    def close(self) -> None:
        """End the workers that are ours, at once."""


class InProcess(Engine):
    """Everything in this process, one batch after the other."""

    name = "in-process"

    def __init__(self) -> None:
        super().__init__(1)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        return future


class Processes(Engine):
    """Worker processes of our own, each a pool of one: when one dies, it is known what it was doing.

    They are spawned, never forked: a forked child of a process that has run a parallel kernel hangs or aborts at its first one.
    """

    name = "processes"

    def __init__(self, workers: int) -> None:
        super().__init__(positive_int("workers", workers))
        self._context = multiprocessing.get_context("spawn")
        self._pools: list[ProcessPoolExecutor | None] = [None] * workers
        self._calls: list[list[Future[Any]]] = [[] for _ in range(workers)]
        self._place: dict[int, int] = {}
        self._verdicts: dict[int, bool] = {}
        self._answered = False

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        place = min(range(self.workers), key=lambda i: len(self._calls[i]))
        pool = self._pools[place] or self._fresh(place)
        try:
            future = pool.submit(function, *arguments)
        except BrokenExecutor:  # died, and nobody has heard of it yet
            self._retire(place)
            future = self._fresh(place).submit(function, *arguments)
        self._calls[place].append(future)
        self._place[id(future)] = place
        return future

    def _fresh(self, place: int) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(1, mp_context=self._context, initializer=start_worker)
        if not self._answered:
            try:
                pool.submit(hello).result(_HELLO_SECONDS)
            except (BrokenExecutor, TimeoutError) as error:
                raise PyhessError(
                    "the worker processes do not start. A script that runs a sweep needs the line `if __name__ == '__main__':` "
                    "before it, because every worker imports the script; otherwise memory may be short. executor=0 works without "
                    f"workers ({error})."
                ) from error
            self._answered = True
        self._pools[place] = pool
        return pool

    def blamed(self, future: Future[Any]) -> bool:
        if id(future) not in self._verdicts:
            self._retire(self._place[id(future)])
        return self._verdicts[id(future)]

    def _retire(self, place: int) -> None:
        """A worker died: a pool of one works in the order in which it was given, so it was at the first call without a result."""
        calls, self._calls[place] = self._calls[place], []
        at = next((call for call in calls if not _has_result(call)), None)
        self._verdicts |= {id(call): call is at for call in calls}
        pool, self._pools[place] = self._pools[place], None
        if pool is not None:
            pool.shutdown(wait=False)

    def settle(self, future: Future[Any]) -> None:
        self._verdicts.pop(id(future), None)
        place = self._place.pop(id(future), None)
        if place is not None and future in self._calls[place]:
            self._calls[place].remove(future)

    def close(self) -> None:
        for pool in self._pools:
            if pool is None:
                continue
            # They hold nothing that is not in the store or to be done again, and may be in the middle of a long cell.
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=True, cancel_futures=True)


class Given(Engine):
    """An executor of the caller's. It is not closed; one that broke is made anew where it is known how."""

    def __init__(self, executor: Any, workers: int | None) -> None:
        self._executor = executor
        self.name = _name_of(executor)
        if self.name == "dask":
            self._executor = executor.get_executor(pure=False)
        super().__init__(_workers_of(executor, workers))
        self.isolates = self.name in ("dask", "executorlib")
        self._replaced = False
        self.repair()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = self._executor.submit(function, *arguments)
        return future

    def repair(self) -> None:
        error = self._trouble()
        if error is not None and isinstance(error, BrokenExecutor):
            self._replace()
            error = self._trouble()
        if error is not None:
            raise PyhessError(
                f"the executor {shown(self._executor)} does not work: {type(error).__name__}: {error}. What was finished is safe "
                "in the store; run again with a new executor."
            ) from error

    def _trouble(self) -> Exception | None:
        try:
            answer = self._executor.submit(hello).result(_HELLO_SECONDS)
        except Exception as error:
            return error
        if answer["pyhess"] != version():
            return InputError(
                f"the workers on {answer['host']} have pyhess {answer['pyhess']}, this process has {version()}; install the same."
            )
        return None

    def _replace(self) -> None:
        if self.name == "loky":
            import loky

            self._executor = loky.get_reusable_executor(max_workers=self.workers)
        elif isinstance(self._executor, ProcessPoolExecutor):
            self._executor = ProcessPoolExecutor(
                self.workers, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker
            )
            self._replaced = True

    def close(self) -> None:
        if self._replaced:
            self._executor.shutdown(wait=True, cancel_futures=True)


def _has_result(call: Future[Any]) -> bool:
    return call.done() and not call.cancelled() and call.exception() is None


def _name_of(executor: Any) -> str:
    module = type(executor).__module__.partition(".")[0]
    if module == "distributed":
        return "dask"
    return {"concurrent": "executor", "mpi4py": "mpi"}.get(module, module)


def _workers_of(executor: Any, workers: int | None) -> int:
    if workers is not None:
        return positive_int("workers", workers)
    if _name_of(executor) == "dask":
        return max(1, sum(map(int, executor.nthreads().values())))
    for name in ("num_workers", "_max_workers"):
        number = getattr(executor, name, None)
        if isinstance(number, int) and number >= 1:
            return number
    raise InputError(f"it is not known how many workers {shown(executor)} has; pass workers=.")


def make_engine(executor: Any, workers: int | None, threads: int) -> Engine:
    """The engine for what a caller passed: None, a number of processes (0: none but this one), an executor or a dask client.

    Raises
    ------
    InputError, InputTypeError
        If it is none of these, or a pool that forks.
    """
    if executor is None:
        return Processes(max(1, _cores() // threads) if workers is None else workers)
    if isinstance(executor, bool):
        raise InputTypeError(f"executor is {executor!r}; pass None, a number of processes, an executor or a dask client.")
    if isinstance(executor, int):
        if executor < 0:
            raise InputError(f"executor is {executor}; allowed are numbers of processes >= 0.")
        return Processes(executor) if executor else InProcess()
    if not isinstance(executor, Executor) and not callable(getattr(executor, "get_executor", None)):
        raise InputTypeError(
            f"executor is {shown(executor)} ({type(executor).__name__}); pass None, a number of processes, a "
            "concurrent.futures.Executor or a distributed.Client."
        )
    if isinstance(executor, ProcessPoolExecutor):
        context = getattr(executor, "_mp_context", None)
        if context is not None and context.get_start_method() == "fork":
            raise InputError(
                "the ProcessPoolExecutor forks its workers, which hang at their first parallel kernel; make it with "
                "mp_context=multiprocessing.get_context('spawn')."
            )
    return Given(executor, workers)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
