"""The executors that the command line can make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ..errors import InputError, MissingDependencyError


@contextmanager
def executor_of(engine: str, workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """What `pyhess.sweep` takes for an engine's name; closed at the end.

    Raises
    ------
    MissingDependencyError
        If its package is not installed.
    InputError
        If MPI has no process to work in.
    """
    if engine == "processes":
        yield workers
    elif engine == "in-process":
        yield 0
    elif engine == "loky":
        executor = _needed("loky").get_reusable_executor(max_workers=workers)
        yield executor
    elif engine == "dask":
        distributed = _needed("distributed")
        if scheduler is not None:
            with distributed.Client(scheduler) as client:
                yield client
            return
        with (
            distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
    elif engine == "mpi":
        futures = _needed("mpi4py.futures")
        if _needed("mpi4py.MPI").COMM_WORLD.Get_size() < 2:
            raise InputError(
                "engine 'mpi' found no other process to work in; start the sweep under MPI with two processes or more: "
                "mpiexec -n 4 python -m mpi4py.futures -m pyhess sweep run …"
            )
        with futures.MPIPoolExecutor(max_workers=workers) as pool:
            yield pool
    else:
        with _needed("executorlib").SingleNodeExecutor(max_workers=workers, block_allocation=True) as pool:
            yield pool


def _needed(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise MissingDependencyError(f"this engine needs {package}, which is not installed; pip install {package}.") from None
