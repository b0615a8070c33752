"""Extreme eigenpairs of one symmetric matrix."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from .._checks import as_matrix, as_rng, as_vector, check_finite, real_array, shown
from .._native import address
from .._threads import PARALLEL_LOCK, num_workers
from ..errors import InputError, InputTypeError
from ..kernels.eigen import solve_one
from ..kernels.run import BLOCK, DONE, MULTIPLY_BASIS
from ..linearization import CHUNKS, SAMPLES, Linearization
from ..operators import CurvatureOperator
from ._setup import AnyArray, Request, Runs, draw_seed, for_check, make_runs
from .result import EigenResult, collect, report_failure

#: Steps of fewer flops than this are over sooner than several threads have been woken.
_PARALLEL_FLOPS = 5e6
#: Basis vectors that a typical step is orthogonalised against.
_TYPICAL_BASIS = 30


def eigsh(
    A: Any,
    k: int = 1,
    which: str = "SA",
    *,
    tol: float = 1e-6,
    v0: npt.ArrayLike | None = None,
    rng: Any = None,
    max_matvecs: int | None = None,
    p: float = 1e-3,
    max_bytes: int = 2**31,
    on_failure: str = "raise",
) -> EigenResult:
    """Extreme eigenpairs A v = rho v of a symmetric matrix known by its products.

    Parameters
    ----------
    A : Hessian, GaussNewton, LinearOperator, sparse matrix or (P, P) array
        The matrix. The package's own operators run without Python between the products, on all cores where that pays.
    k : int
        Pairs wanted, 1 <= k <= P. Multiple eigenvalues are found with their multiplicity: for k > 1 the search goes on from
        new random vectors until nothing better is left (up to a probability of 1e-8).
    which : str
        ``"SA"`` the smallest, ``"LA"`` the largest, ``"LM"`` the largest in magnitude, ``"BE"`` k // 2 from the low end and
        the rest from the high end.
    tol : float
        Allowed residual |Av - rho v| of every pair, relative to the estimate ``norm_estimate`` of |A|.
    v0 : (P,) array, optional
        Start vector. A tenth of a random vector is mixed in, so that a start that is itself an eigenvector does not hide the
        others. Voids ``probable_lower``.
    rng : int or Generator, optional
        Seed of the random vectors.
    max_matvecs : int, optional
        Products allowed, default 5000 + 100 k.
    p : float
        Probability that ``probable_lower`` is not a lower bound of the spectrum.
    max_bytes : int
        Memory allowed for the basis. If the vectors do not fit, the basis is restarted in place with a third of them.
    on_failure : str
        What to do with a result that has not converged: ``"raise"`` NotConvergedError (which carries it as ``result``),
        ``"warn"`` and return it, or ``"return"`` it. Its ``status`` says the same in each case.

    Returns
    -------
    EigenResult
        Eigenvalues are float64 Rayleigh quotients and residuals come from a fresh float64 product, for float32 operators of
        this package too.

    Raises
    ------
    NotConvergedError, NonFiniteError, InputError
        Not converged; products with NaN or infinity; arguments that are not allowed, or a matrix that is not symmetric.
    MemoryLimitError
        If the smallest workable basis does not fit in ``max_bytes``.
    KeyboardInterrupt
        Within a second of Ctrl-C.

    Notes
    -----
    Lanczos with full reorthogonalisation and a test at every step. One pair costs as many products as the first Krylov space
    that holds it has dimensions, and one more. float32 operators are multiplied in float32, with float64 sums.

    References
    ----------
    J. L. M. van Dorsselaer, M. E. Hochstenbach, H. A. van der Vorst, "Computing probabilistic bounds for extreme eigenvalues
    of symmetric matrices with the Lanczos method", SIAM J. Matrix Anal. Appl. 22 (2000).

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> result = ph.eigsh(np.diag([3.0, -1.0, 2.0, -1.0]), k=2, rng=5)
    >>> result.eigenvalues.round(6).tolist(), str(result.status)
    ([-1.0, -1.0], 'converged')
    """
    native = isinstance(A, CurvatureOperator)
    multiply, size, noise = (None, A.shape[0], 0.0) if native else _as_product(A)
    request = Request.check(size, k, which, tol, max_matvecs, p, max_bytes, on_failure)
    start = None if v0 is None else _as_start(v0, size)
    seed = draw_seed(as_rng(rng))
    runs = _run_native(A, request, seed, start) if multiply is None else _run_operator(multiply, request, seed, start, noise)
    result = collect(runs, request.which)[0]
    report_failure(result, request.on_failure, request.tol)
    return result


def _as_start(v0: npt.ArrayLike, size: int) -> AnyArray:
    """The start vector at length one."""
    vector = as_vector("v0", v0, size)
    largest = float(np.abs(vector).max())
    if largest == 0.0:
        raise InputError("v0 is zero; allowed is any other vector. Leave v0 out for a random start.")
    vector = vector / largest
    unit: AnyArray = vector / np.linalg.norm(vector)
    return unit


def _make_one(request: Request, seed: int, start: AnyArray | None, dtype: npt.DTypeLike, noise: float, checks: int) -> Runs:
    runs = make_runs(request, np.array([seed]), 1, dtype, noise, checks)
    if start is not None:
        runs.basis[0, 0] = start
        runs.state["warm"] = 1
    return runs


def _run_native(A: CurvatureOperator, request: Request, seed: int, start: AnyArray | None) -> Runs:
    """A run for an operator of this package; one in float32 is checked in float64."""
    engine = A.engine
    single = engine.dtype == np.float32
    noise = float(np.finfo(engine.dtype).eps)
    runs = _make_one(request, seed, start, engine.dtype, noise, 2 if single else 1)
    _solve(A._lin, A._operation, runs)
    if not single:
        return runs
    checked = for_check(runs, 1)
    _solve(Linearization(engine.in_float64(), A._lin.theta), A._operation, checked)
    return checked


def _solve(lin: Linearization, operation: int, runs: Runs) -> None:
    """Carry the only run to its end inside one kernel, on all cores if a step is long enough."""
    engine, size, w = lin.engine, lin.engine.num_params, runs.product[0]
    tasks, flops = 1, np.inf
    if engine.hvp_flops + 8.0 * _TYPICAL_BASIS * size > _PARALLEL_FLOPS:
        tasks = max(engine.num_chunks, -(-size // BLOCK))
    elif runs.basis.shape[1] == size and runs.vectors.shape[1] == 1:
        # A basis of the whole space: nearly always over after as many products.
        flops = 2.0 * size * (engine.hvp_flops + 4.0 * size * size)
    step = runs.compile(spread=num_workers(tasks) > 1)
    with engine.buffers() as buffers:

        def kernel(spread: bool, workers: int, cancel: npt.NDArray[np.int32]) -> int:
            threads = min(workers, engine.num_chunks)
            buffers.fill(
                operation, 1, threads, spread, thetas=lin.theta[None], states=lin.state[None], vs=None, outs=w[None], grads=None,
                values=None,
            )  # fmt: skip
            buffers.fields.cancel = address(cancel)
            status: int = solve_one[spread](
                CHUNKS if spread else SAMPLES, step.address, buffers.job, threads, cancel, runs.run[0], runs.state[0],
                runs.basis[0], runs.vectors[0],
            )  # fmt: skip
            return status

        engine.run(kernel, tasks, flops, "eigenvalues")


def _run_operator(
    multiply: Callable[[AnyArray], AnyArray], request: Request, seed: int, start: AnyArray | None, noise: float
) -> Runs:
    """A run for any other operator: Python calls its product and the compiled step in turn."""
    runs = _make_one(request, seed, start, np.float64, noise, 1)
    record = runs.state[0, 0]
    spread = 8.0 * _TYPICAL_BASIS * request.size > _PARALLEL_FLOPS and num_workers(2) > 1
    step = runs.compile(spread).ctypes
    address = runs.run.ctypes.data
    lock: AbstractContextManager[Any] = PARALLEL_LOCK if spread else nullcontext()
    with lock:
        wanted = step(address)
    while wanted != DONE:
        x = runs.basis[0, record["step"]] if wanted == MULTIPLY_BASIS else runs.vectors[0, record["check"]]
        runs.product[0] = multiply(x.copy())
        with lock:
            wanted = step(address)
    return runs


def _as_product(A: Any) -> tuple[Callable[[AnyArray], AnyArray], int, float]:
    """The product with any symmetric matrix, its size and the relative rounding level of its products."""
    if issparse(A) or (isinstance(A, LinearOperator) or (hasattr(A, "matvec") and hasattr(A, "shape"))):
        operator = aslinearoperator(A)
    else:
        return _dense_product(A)
    _check_square(operator.shape)
    if np.dtype(operator.dtype).kind not in "fiub":
        raise InputTypeError(f"A has dtype {operator.dtype}; allowed are real matrices.")
    if issparse(A):
        matrix = A.tocsr()
        check_finite("A.data", np.asarray(matrix.data, dtype=np.float64))
        difference = abs(matrix - matrix.T).tocoo()
        if difference.nnz:
            worst = int(np.argmax(difference.data))
            row, column, gap = int(difference.row[worst]), int(difference.col[worst]), float(difference.data[worst])
            _check_symmetric(row, column, gap, float(abs(matrix).max()), matrix.dtype)

    def multiply(x: AnyArray) -> AnyArray:
        product = np.asarray(operator.matvec(x))
        if product.dtype.kind not in "fiub":
            raise InputTypeError(f"A's product has dtype {product.dtype}; allowed are real numbers.")
        return product

    return multiply, int(operator.shape[0]), _eps(operator.dtype)


def _dense_product(A: Any) -> tuple[Callable[[AnyArray], AnyArray], int, float]:
    if not isinstance(A, np.ndarray | list | tuple):
        raise InputTypeError(
            f"A is {shown(A)} ({type(A).__name__}); pass obj.hessian(theta), obj.gauss_newton(theta), a SciPy LinearOperator, "
            "a sparse matrix or a square array."
        )
    given = real_array("A", A)
    matrix = as_matrix("A", given)
    _check_square(matrix.shape)
    difference = np.abs(matrix - matrix.T)
    row, column = np.unravel_index(int(np.argmax(difference)), difference.shape)
    _check_symmetric(int(row), int(column), float(difference[row, column]), float(np.abs(matrix).max()), given.dtype)

    def multiply(x: AnyArray) -> AnyArray:
        product: AnyArray = matrix @ x
        return product

    return multiply, matrix.shape[0], _eps(np.float64)


def _check_square(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        raise InputError(f"A has shape {tuple(shape)}; allowed are square matrices (P, P) with P >= 1.")


def _check_symmetric(row: int, column: int, gap: float, largest: float, dtype: npt.DTypeLike) -> None:
    if gap > np.sqrt(_eps(dtype)) * largest:
        raise InputError(
            f"A is not symmetric: A[{row}, {column}] and A[{column}, {row}] differ by {gap:.3g}. Pass (A + A.T) / 2 if its "
            "eigenvalues are wanted."
        )


def _eps(dtype: npt.DTypeLike) -> float:
    kind = np.dtype(dtype)
    return max(float(np.finfo(kind if kind.kind == "f" else np.float64).eps), float(np.finfo(np.float64).eps))
