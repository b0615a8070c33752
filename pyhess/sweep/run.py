"""Run a sweep: `pyhess.sweep`."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._checks import positive_float, positive_int
from ..errors import InputTypeError
from .driver import Driver, Progress
from .engines import make_engine
from .export import Exports
from .plan import make_plan
from .provenance import provenance
from .store import Store

if TYPE_CHECKING:
    from .spec import SweepSpec


@dataclass(frozen=True)
class Sweep(Exports):
    """The results of a sweep, in its store.

    Attributes
    ----------
    path : Path
        The store.
    counts : dict
        How many cells are done, failed, crashed and pending.
    stopped_by : int or None
        The signal that ended the run early; run the same again to go on.
    """

    path: Path
    counts: Mapping[str, int]
    stopped_by: int | None = None


def sweep(
    spec: SweepSpec | Mapping[str, Any] | str | os.PathLike[str],
    store: str | os.PathLike[str],
    executor: Any = None,
    *,
    workers: int | None = None,
    threads_per_cell: int = 1,
    retries: int = 2,
    retry_failed: bool = False,
    shard: tuple[int, int] = (1, 1),
    witnesses: bool = True,
    grace: float = 30.0,
    progress: Progress | None = None,
) -> Sweep:
    """Compute all cells of a specification that a store lacks.

    Every cell is written to the disk when it is finished; after whatever ended a run, the same call goes on where it was.
    Answers do not depend on the executor, the number of workers or the order, but for cells that their time limit ended, which
    are marked.

    Parameters
    ----------
    spec : SweepSpec, mapping or path of a TOML file
        What to compute. In a mapping, ``data`` may be a `Dataset` too; it travels with every batch of cells, so large data are
        better given as a file that the workers can read.
    store : path-like
        The SQLite file; made if it does not exist.
    executor : None, int, concurrent.futures.Executor or distributed.Client
        None: processes of our own, as many as cores; a number: so many of them, 0 for none but this one. An executor of another
        kind is used as it is and stays open.
    workers : int, optional
        How many workers the executor has, where that is not known of it.
    threads_per_cell : int
        Threads of a cell.
    retries : int
        How often a cell that ended its worker is tried again, alone, before it is given up as "crashed".
    retry_failed : bool
        Also do cells again that ended in an error; crashed ones are always done again.
    shard : (index, count)
        Only part ``index`` of ``count``, from 1: for several machines with a store each, see `merge`.
    witnesses : bool
        Keep theta and v of networks of up to 2^20 parameters. Those that other cells start from are kept in any case.
    grace : float
        Seconds that running cells have to come to their ends after SIGINT, SIGTERM or SIGUSR1.
    progress : callable, optional
        Called with a dictionary about once a second.

    Returns
    -------
    Sweep

    Raises
    ------
    InputError, InputTypeError
        If the specification or an argument does not do.
    FileError, StoreError
        If the store cannot be written, is in use, or is another file.
    PyhessError
        If the workers do not start.

    Examples
    --------
    >>> import tempfile, pyhess as ph
    >>> spec = {"compute": {"kind": "search", "starts": 2}, "grid": {"data": "xor", "n": 20, "width": [2, 3], "radius": 0.5}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = ph.sweep(spec, f"{folder}/run.db", executor=0)
    ...     rows = result.rows()
    >>> result.counts["done"], rows[1]["axes"]["width"], rows[1]["lam_lower"] > 0.0
    (2, 3, True)
    """
    from .spec import SweepSpec

    if not isinstance(spec, SweepSpec):
        spec = SweepSpec.load(spec) if isinstance(spec, str | os.PathLike) else SweepSpec.from_dict(spec)
    threads = positive_int("threads_per_cell", threads_per_cell)
    if retries != 0:
        positive_int("retries", retries)
    if progress is not None and not callable(progress):
        raise InputTypeError(f"progress is a {type(progress).__name__}; pass a function that takes a dict, or None.")
    grace = positive_float("grace", grace)
    plan = make_plan(spec)
    if shard != (1, 1):
        plan = plan.shard(*shard)
    with Store.open(store) as opened:
        engine = make_engine(executor, workers, threads)
        run_id, state = uuid.uuid4().hex, "stopped"
        try:
            opened.begin_run(run_id, spec.to_dict(), {**provenance(), "engine": engine.name, "workers": engine.workers})
            driver = Driver(
                plan, opened, engine, retries=retries, threads=threads, run_id=run_id, grace=grace, retry_failed=retry_failed,
                witnesses=witnesses, progress=progress,
            )  # fmt: skip
            driver.run()
            state = "finished" if driver.stopped_by is None else "interrupted"
        finally:
            engine.close()
            opened.end_run(run_id, state)
        return Sweep(opened.path, opened.counts(), driver.stopped_by)
