"""What runs in a worker: a batch of cells, one after the other. It never raises: every cell returns a plain dictionary."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from multiprocessing import connection, parent_process
from time import monotonic, process_time
from typing import Any

import numpy as np

from ..errors import PyhessError

#: Longest text of an error that is kept.
_MOST_TEXT = 20_000
#: Part of a time limit that must have passed for it to be what ended a cell early.
_LIMIT_SHARE = 0.5
#: Most cells that are carried out together.
_TOGETHER = 16

#: Of a problem: what decides which code a cell runs, beside its kind.
COMPILED_FOR = ("activation", "region", "penalty", "ordered", "loss")
#: Seed of the tiny problems that are run to compile; the cells' own may be what goes wrong with them.
_TINY_SEED = 20261

_warmed: set[tuple[Any, ...]] = set()


def start_worker() -> None:
    """Set up a process of the default pool: deaf to the signals that the driver handles, and gone when the driver is."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()


def _leave_with(sentinel: int) -> None:
    # A worker holds both ends of the pool's pipe, so the death of the driver would not wake it up.
    connection.wait([sentinel])
    os._exit(1)


def hello() -> dict[str, str]:
    """Which pyhess a worker has, to be asked before anything is entrusted to it."""
    from ._opening import version

    return {"pyhess": version(), "host": socket.gethostname()}


def prepare(tasks: Sequence[Mapping[str, Any]], threads: int) -> list[dict[str, Any]]:
    """Load and compile what these cells need, before any of them; no results."""
    with _limited(threads), suppress(Exception, KeyboardInterrupt):  # the cells themselves say what is wrong with them
        for task in tasks:
            _compile(task)
    return []


def run_batch(tasks: Sequence[Mapping[str, Any]], threads: int, budget: float) -> list[dict[str, Any]]:
    """Work through cells for about ``budget`` seconds; at least the first is done, those not reached are not in the answer.

    Parameters
    ----------
    tasks : sequence of mappings
        ``key``, ``kind``, ``module``, ``options``, ``problem``, ``time_limit``, ``start``,
        ``parent`` (None, or the ``problem`` and the arrays of the cell to start from), ``keep`` (whether to return theta and v).
    threads : int
        For Numba and BLAS.
    budget : float
        Seconds.

    Returns
    -------
    list of dict
        Per cell ``key``, ``result`` (columns of the store; status "done", "failed" or "interrupted") and ``arrays``.
    """
    began = monotonic()
    results = []
    with _limited(threads):
        for group in _groups(tasks):
            results += run_cells(group, threads)
            if monotonic() - began > budget:
                break
    return results


def _groups(tasks: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Which cells are carried out together: some of one shape on the same data, where their kind can, without a time limit."""
    groups: dict[str, list[list[Mapping[str, Any]]]] = {}
    for task in tasks:
        same = [task["kind"], task["options"], task["problem"]["data"], task["problem"]["hidden"]]
        mine = groups.setdefault(str(same) if _joins(task) else task["key"], [])
        if not mine or len(mine[-1]) == _TOGETHER:
            mine.append([])
        mine[-1].append(task)
    return [group for mine in groups.values() for group in mine]


def _joins(task: Mapping[str, Any]) -> bool:
    try:
        return task["time_limit"] is None and _kind(task).run_together is not None
    except Exception:  # said by the cell itself
        return False


@contextmanager
def _limited(threads: int) -> Iterator[None]:
    """Threads for Numba and BLAS."""
    import numba
    import threadpoolctl

    # Per thread, so at every call: some engines call from threads of their own.
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    with threadpoolctl.threadpool_limits(threads):
        yield


def run_cells(tasks: Sequence[Mapping[str, Any]], threads: int) -> list[dict[str, Any]]:
    """One cell, or several of a group together, whatever happens in them."""
    found: dict[str, Any] = {}
    ready = []
    for task in tasks:
        try:
            ready.append((task, *_prepared(task)))
        except (Exception, KeyboardInterrupt) as error:
            found[task["key"]] = error
    began, began_cpu = monotonic(), process_time()
    try:
        outcomes = _outcomes(ready)
    except (Exception, KeyboardInterrupt) as error:
        outcomes = [error] * len(ready)
    share = 1.0 / max(1, len(ready))
    measured = {
        "threads": threads, "host": _host(), "seconds": share * (monotonic() - began),
        "cpu_seconds": share * (process_time() - began_cpu), "peak_bytes": _peak_bytes(),
    }  # fmt: skip
    sizes = {}
    for (task, problem, _), outcome in zip(ready, outcomes, strict=True):
        found[task["key"]] = outcome
        sizes[task["key"]] = {"num_params": problem.obj.num_params, "num_samples": problem.obj.data.num_samples}
    return [
        _answer(task, found[task["key"]], {**measured, "start": task["start"], **sizes.get(task["key"], {})}) for task in tasks
    ]


def _outcomes(ready: Sequence[tuple[Mapping[str, Any], Any, Any]]) -> list[Any]:
    """What comes of cells that are prepared: outcomes and exceptions."""
    if not ready:
        return []
    task = ready[0][0]
    kind, options = _kind(task), _kind(task).options(**task["options"])
    if len(ready) == 1:
        return [kind.run(ready[0][1], options, task["time_limit"], ready[0][2])]
    outcomes: list[Any] = kind.run_together([problem for _, problem, _ in ready], options, [warm for _, _, warm in ready])
    return outcomes


def _answer(task: Mapping[str, Any], outcome: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """Columns and arrays of a cell from its outcome, or from the exception in its place."""
    result: dict[str, Any] = {"status": "interrupted"}
    arrays: dict[str, Any] = {}
    if isinstance(outcome, Exception):
        result = {
            **measured,
            "status": "failed",
            "error_type": type(outcome).__name__,
            "error": str(outcome)[:_MOST_TEXT],
            "traceback": "".join(traceback.format_exception(outcome))[-_MOST_TEXT:],
        }
    elif not isinstance(outcome, KeyboardInterrupt):
        limit = task["time_limit"]
        # Ended early by what is no time limit: a signal to this worker, and no answer.
        if not outcome.stopped_early or (limit is not None and measured["seconds"] >= _LIMIT_SHARE * limit):
            result = {
                **measured, "status": "done", **outcome.answer, "timing": outcome.timing,
                "time_limited": outcome.stopped_early or outcome.time_limited,
            }  # fmt: skip
            arrays = {name: array for name, array in outcome.arrays.items() if task["keep"] or name not in ("theta", "v")}
    return {"key": task["key"], "result": _plain(result), "arrays": arrays}


def _kind(task: Mapping[str, Any]) -> Any:
    from .kinds import KINDS

    import_module(task["module"])  # where the kind is registered, which is not always in pyhess
    return KINDS[task["kind"]]


def _prepared(task: Mapping[str, Any]) -> tuple[Any, list[tuple[Any, Any]]]:
    """The problem and the pairs to start from, with everything compiled that the cell will call."""
    from .problem import load_dataset, make_net, make_problem

    described = task["problem"]
    problem = make_problem(described)
    _compile(task)
    parent = task["parent"]
    if parent is None:
        return problem, []
    theta, v = parent["theta"], parent["v"]
    net, before = problem.obj.net, make_net(parent["problem"], load_dataset(parent["problem"]["data"]))
    pairs = [(theta, v)]
    if before != net:
        from ..threshold.widening import carried, padded

        # Duplicated units, or new ones at zero: which is better depends on the region and the parametrisation.
        pairs = [(move(before, net, theta), move(before, net, v)) for move in (carried, padded)]
    radius, old_radius = described["radius"], parent["problem"]["radius"]
    if radius != old_radius:
        # As in radius_path: the point itself, and moved away from the centre as the region grew.
        center = net.init(rng=described["seed"]) if described["center"] == "init" else np.zeros(net.num_params)
        pairs += [(center + (radius / old_radius) * (theta - center), v) for theta, v in pairs]
    return problem, pairs


def _compile(task: Mapping[str, Any]) -> None:
    """Run a tiny problem of the same kind once per process, so that no time limit pays for a compiler."""
    from .problem import Problem, make_penalty, make_region

    described = task["problem"]
    what = (task["kind"], *(described[name] for name in COMPILED_FOR))
    if what in _warmed:
        return
    _warmed.add(what)
    from ..data import Dataset
    from ..model import MLP
    from ..objective import Objective
    from .problem import load_dataset, outputs_and_loss

    data = load_dataset(described["data"])
    outputs, loss = outputs_and_loss(data, described["loss"])
    few = slice(0, 2)
    tiny = Dataset(data.X[few], data.y[few])
    net = MLP([data.num_features, 2, outputs], activation=described["activation"], bias=described["bias"])
    cheap = {"starts": 2, "samples": 2, "certificate": "moment"}
    options = {name: value for name, value in cheap.items() if name in task["options"]}
    kind = _kind(task)
    problem = Problem(Objective(net, tiny, loss=loss), make_region(described, net), make_penalty(described), _TINY_SEED)
    with suppress(PyhessError):  # what is wrong with the tiny problem is none of the cell's business
        kind.run(problem, kind.options(**{**task["options"], **options}), None, [])


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in result.items()}


@lru_cache(maxsize=1)
def _host() -> str:
    return socket.gethostname()


def _peak_bytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) if sys.platform == "darwin" else 1024.0 * peak
