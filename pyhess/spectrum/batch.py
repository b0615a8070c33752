"""Extreme eigenpairs at many thetas at once."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import as_real, as_rng, check_finite, choice
from .._native import CAPI, address
from .._threads import num_workers
from ..errors import InputError, InputTypeError
from ..kernels.eigen import solve_batch
from ..kernels.jobs import GGN, HVP
from ..linearization import Engine
from ..objective import Objective
from ._setup import AnyArray, Request, Runs, draw_seed, for_check, make_runs
from .result import BatchEigenResult, collect, report_failure

_PRODUCTS = {"hessian": HVP, "gauss_newton": GGN}


def eigsh_batch(
    obj: Objective,
    thetas: npt.ArrayLike,
    k: int = 1,
    which: str = "SA",
    *,
    operator: str = "hessian",
    tol: float = 1e-6,
    rng: Any = None,
    max_matvecs: int | None = None,
    p: float = 1e-3,
    max_bytes: int = 2**31,
    on_failure: str = "raise",
) -> BatchEigenResult:
    """Extreme eigenpairs of the Hessians at S thetas; the samples are spread over the cores.

    Sample s has the result, to the last bit, of ``eigsh(obj.hessian(thetas[s]), ..., rng=streams[s])`` with
    ``streams = numpy.random.default_rng(rng).spawn(S)``, for every number of threads (unless ``max_bytes`` makes the bases of
    several threads smaller).

    Parameters
    ----------
    obj : Objective
        The training objective.
    thetas : (S, P) array
        Parameters of the networks.
    operator : str
        ``"hessian"`` or ``"gauss_newton"``.
    max_bytes : int
        Memory allowed for the bases of all threads together.
    k, which, tol, rng, max_matvecs, p, on_failure
        As in :func:`eigsh`, for each sample.

    Returns
    -------
    BatchEigenResult
        The fields of EigenResult with a leading axis S.

    Raises
    ------
    NotConvergedError, NonFiniteError, InputError, MemoryLimitError, KeyboardInterrupt
        As in :func:`eigsh`; with ``on_failure="return"`` the status of each sample says how it ended instead.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> data = ph.Dataset(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([0.5, -0.5, 1.0]))
    >>> obj = ph.Objective(ph.MLP([2, 3, 1]), data)
    >>> result = ph.eigsh_batch(obj, ph.Box(-0.5, 0.5).sample(4, obj, rng=5), rng=6)
    >>> result.eigenvalues.shape, bool(result.converged.all())
    ((4, 1), True)
    """
    if not isinstance(obj, Objective):
        raise InputTypeError(f"obj is a {type(obj).__name__}; pass a pyhess.Objective (for one matrix use eigsh).")
    points = _as_thetas(thetas, obj.num_params)
    operation = _PRODUCTS[choice("operator", operator, _PRODUCTS)]
    request = Request.check(obj.num_params, k, which, tol, max_matvecs, p, max_bytes, on_failure)
    generator = as_rng(rng)
    samples = points.shape[0]
    seeds = np.array([draw_seed(stream) for stream in generator.spawn(samples)])

    engine = obj.engine
    single = engine.dtype == np.float32
    workers = num_workers(samples)
    runs = make_runs(request, seeds, workers, engine.dtype, float(np.finfo(engine.dtype).eps), 2 if single else 1)
    _solve(engine, operation, engine.cast(points), runs)
    if single:
        runs = for_check(runs, workers)
        # The matrix is that of the parameters as float32 holds them.
        _solve(engine.in_float64(), operation, engine.cast(points).astype(np.float64), runs)
    result = collect(runs, request.which)
    report_failure(result, request.on_failure, request.tol)
    return result


def _as_thetas(thetas: npt.ArrayLike, size: int) -> AnyArray:
    array = as_real("thetas", thetas)
    if array.ndim != 2 or array.shape[1] != size or array.shape[0] < 1:
        advice = " Use thetas[None] for one sample." if array.shape == (size,) else ""
        raise InputError(f"thetas has shape {array.shape}; allowed is (S, {size}) with S >= 1.{advice}")
    check_finite("thetas", array)
    return np.ascontiguousarray(array)


def _solve(engine: Engine, operation: int, thetas: AnyArray, runs: Runs) -> None:
    """Carry all runs to their ends inside one kernel."""
    workers, counter = runs.basis.shape[0], np.zeros(1, dtype=np.int64)
    states = engine.rows(workers, engine.problem.state_size)
    with ExitStack() as stack:
        buffers = [stack.enter_context(engine.buffers()) for _ in range(workers)]

        def kernel(spread: bool, _: int, cancel: npt.NDArray[np.int32]) -> int:
            for mine, state, out in zip(buffers, states, runs.product, strict=True):
                mine.fill(
                    operation,
                    1,
                    1,
                    False,
                    thetas=thetas[:1],
                    states=state[None],
                    vs=None,
                    outs=out[None],
                    grads=None,
                    values=None,
                )
                mine.fields.cancel = address(cancel)
            status: int = solve_batch[spread](
                CAPI["ph_samples"], CAPI["ph_fetch_add"], step.address, np.stack([mine.job for mine in buffers]), thetas,
                engine.num_chunks, runs.run, runs.state, runs.basis, runs.vectors, runs.values, runs.residuals, counter, cancel,
            )  # fmt: skip
            return status

        step = runs.compile(spread=False)
        engine.run(kernel, workers, np.inf, "batch of eigenvalues")
