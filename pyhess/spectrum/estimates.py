"""What random vectors say of a whole spectrum: the trace, the Frobenius norm and the density of eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import as_rng, positive_float, positive_int, scalar_or_vector
from .._threads import blas_single_thread
from ..errors import MemoryLimitError, NonFiniteError
from ..operators import CurvatureOperator
from .single import _as_product

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Product = Callable[[FloatArray], FloatArray]

#: Probes that are multiplied at a time.
_GROUP = 16
#: Points of the grid that is made where none is given, and its margin in widths of a bump.
_POINTS, _MARGIN = 512, 4.0
#: Lanczos ends where what is left is less than this many rounding errors of the product.
_ROUNDINGS = 32.0
#: Width of a bump by default, in lengths of the spectrum.
_WIDTH = 0.01


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error.

    Attributes
    ----------
    value : float
        The mean over the probes, or what follows from it.
    stderr : float
        Its standard error; 0 where the value is exact but for rounding, NaN for a single probe.
    num_matvecs : int
        Products used.
    """

    value: float
    stderr: float
    num_matvecs: int

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.6g} ± {self.stderr:.2g} ({self.num_matvecs} products)"


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """The density of the eigenvalues of a symmetric matrix (P, P), seen through bumps of a given width.

    Attributes
    ----------
    grid : (G,) array
        Places, ascending if made here.
    density : (G,) array
        Mean over the probes of ``sum_k weights_k N(grid; nodes_k, width²)``; its integral is one.
    stderr : (G,) array
        Standard error of the density over the probes; NaN for a single one.
    nodes, weights : (num_probes, m) array
        For every probe z a Gauss rule: ``z'f(A)z / z'z = sum_k weights_k f(nodes_k)`` for polynomials f of degree 2 m - 1 and
        less, so the mean over the probes estimates ``trace f(A) / P``. Rows that ended early are filled up with weights of zero.
    width : float
        Standard deviation of a bump.
    num_matvecs : int
        Products used.
    """

    grid: FloatArray
    density: FloatArray
    stderr: FloatArray
    nodes: FloatArray
    weights: FloatArray
    width: float
    num_matvecs: int

    def __str__(self) -> str:
        low, high = float(self.nodes.min()), float(self.nodes.max())
        return f"eigenvalues from {low:.6g} to {high:.6g}, {len(self.nodes)} probes, {self.num_matvecs} products"


def trace(A: Any, num_probes: int = 32, *, rng: Any = None) -> Estimate:
    """Estimate trace A as the mean of z'Az over random signs z; exact where there are as many probes as parameters.

    Parameters
    ----------
    A : Hessian, GaussNewton, LinearOperator, sparse matrix or (P, P) array
        A symmetric matrix.
    num_probes : int
        Products. The standard error falls with its root; it is that of ``sqrt(2 sum_{i != j} A_ij² / num_probes)``.
    rng : int or Generator, optional
        Seed of the signs.

    Returns
    -------
    Estimate

    Raises
    ------
    InputError, InputTypeError, NonFiniteError
        Arguments that are not allowed; products with NaN or infinity.

    References
    ----------
    M. F. Hutchinson, "A stochastic estimator of the trace of the influence matrix", Comm. Statist. Simulation 18 (1989).

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> ph.trace(np.diag([1.0, 2.0, 3.0]), rng=5).value
    6.0
    """
    product, size, _ = _block_product(A)
    forms, is_exact = _over_probes(product, size, num_probes, rng, lambda z, az: (z * az).sum(axis=0))
    return Estimate(math.fsum(forms), 0.0, size) if is_exact else Estimate(*_mean(forms), len(forms))


def frobenius_norm(A: Any, num_probes: int = 32, *, rng: Any = None) -> Estimate:
    """Estimate |A|_F, the root of the sum of the squared eigenvalues, from the mean of |Az|² over random signs z.

    Parameters
    ----------
    A : Hessian, GaussNewton, LinearOperator, sparse matrix or (P, P) array
        A symmetric matrix.
    num_probes : int
        Products; with as many as parameters the norm is exact.
    rng : int or Generator, optional
        Seed of the signs.

    Returns
    -------
    Estimate
        The square of the value is unbiased; the value itself is smaller by some ``stderr² / (2 value)`` on average.

    Raises
    ------
    InputError, InputTypeError, NonFiniteError
        Arguments that are not allowed; products with NaN or infinity.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> ph.frobenius_norm(np.diag([3.0, 4.0]), rng=5).value
    5.0
    """
    product, size, _ = _block_product(A)
    squares, is_exact = _over_probes(product, size, num_probes, rng, lambda _, az: (az * az).sum(axis=0))
    if is_exact:
        return Estimate(math.sqrt(math.fsum(squares)), 0.0, size)
    mean, error = _mean(squares)
    root = math.sqrt(mean)
    return Estimate(root, 0.5 * error / root if root > 0.0 else error, len(squares))


def spectral_density(
    A: Any,
    num_steps: int = 80,
    num_probes: int = 10,
    *,
    rng: Any = None,
    grid: npt.ArrayLike | None = None,
    width: float | None = None,
    max_bytes: int = 2**31,
) -> SpectralDensity:
    """Estimate the density of the eigenvalues by stochastic Lanczos quadrature.

    Parameters
    ----------
    A : Hessian, GaussNewton, LinearOperator, sparse matrix or (P, P) array
        A symmetric matrix.
    num_steps : int
        Lanczos steps m for each probe, at most P: products and nodes.
    num_probes : int
        Random vectors, uniform on the sphere.
    rng : int or Generator, optional
        Seed of the vectors.
    grid : (G,) array, optional
        Where the density is wanted; by default 512 places that hold the spectrum.
    width : float, optional
        Standard deviation of the bumps, by default a hundredth of the spectrum's length.
    max_bytes : int
        Memory allowed for the Lanczos vectors of the probes that run at a time, 8 m P bytes each.

    Returns
    -------
    SpectralDensity

    Raises
    ------
    InputError, InputTypeError, NonFiniteError
        Arguments that are not allowed; products with NaN or infinity.
    MemoryLimitError
        If the vectors of one probe do not fit in ``max_bytes``.

    Notes
    -----
    Lanczos with full reorthogonalisation, so that no eigenvalue is counted twice. Eigenvalues at the ends of the spectrum that
    weigh little may be missed: `eigsh` finds them.

    References
    ----------
    L. Lin, Y. Saad, C. Yang, "Approximating spectral densities of large matrices", SIAM Review 58 (2016).
    G. H. Golub, G. Meurant, "Matrices, Moments and Quadrature with Applications", Princeton (2010).

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> found = ph.spectral_density(np.diag([-1.0, 2.0, 2.0, 5.0]), rng=5)
    >>> found.nodes[0].round(9).tolist(), bool(abs(found.weights.sum() - 10.0) < 1e-12)
    ([-1.0, 2.0, 5.0], True)
    """
    product, size, noise = _block_product(A)
    steps, probes = min(positive_int("num_steps", num_steps), size), positive_int("num_probes", num_probes)
    bump = None if width is None else positive_float("width", width)
    places = None if grid is None else np.atleast_1d(scalar_or_vector("grid", grid))
    group = min(_GROUP, positive_int("max_bytes", max_bytes) // (8 * steps * size))
    if group < 1:
        raise MemoryLimitError(
            f"{steps} Lanczos vectors of length {size} need {8 * steps * size / 2**30:.3g} GiB, allowed are "
            f"{max_bytes / 2**30:.3g} GiB; use fewer steps, or raise max_bytes."
        )
    generator = as_rng(rng)
    nodes, weights, lengths = np.zeros((probes, steps)), np.zeros((probes, steps)), np.zeros(probes, dtype=np.int64)
    for begin in range(0, probes, group):
        some = slice(begin, min(begin + group, probes))
        starts = generator.standard_normal((some.stop - begin, size))
        nodes[some], weights[some], lengths[some] = _rules(product, starts, steps, _ROUNDINGS * noise)
    nodes, weights = nodes[:, : lengths.max()], weights[:, : lengths.max()]
    low, high = float(nodes.min()), float(nodes.max())
    if bump is None:
        bump = _WIDTH * ((high - low) or abs(high) or 1.0)
    if places is None:
        places = np.linspace(low - _MARGIN * bump, high + _MARGIN * bump, _POINTS)
    height = 1.0 / (bump * math.sqrt(2.0 * math.pi))
    values = np.stack(
        [height * np.exp(-0.5 * ((places[:, None] - at) / bump) ** 2) @ weight for at, weight in zip(nodes, weights, strict=True)]
    )
    error = values.std(axis=0, ddof=1) / math.sqrt(probes) if probes > 1 else np.full(len(places), np.nan)
    return SpectralDensity(places, values.mean(axis=0), error, nodes, weights, bump, int(lengths.sum()))


def _block_product(A: Any) -> tuple[Product, int, float]:
    """The product with columns (P, k), P, and the relative rounding level of the products."""
    if isinstance(A, CurvatureOperator):
        multiply: Product = A._matmat
        size, noise = int(A.shape[0]), float(np.finfo(A.dtype).eps)
    else:
        one, size, noise = _as_product(A)

        def multiply(columns: FloatArray) -> FloatArray:
            return np.stack([np.asarray(one(column.copy())).reshape(-1) for column in columns.T], axis=1)

    def checked(columns: FloatArray) -> FloatArray:
        found = multiply(columns).astype(np.float64, copy=False)
        if not np.isfinite(found).all():
            raise NonFiniteError("a product with A contains NaN or infinity; check the operator, or the size of the parameters.")
        return found

    return checked, size, noise


def _over_probes(
    product: Product, size: int, num_probes: Any, rng: Any, form: Callable[[FloatArray, FloatArray], FloatArray]
) -> tuple[FloatArray, bool]:
    """``form(z, Az)`` for random signs z, or for all unit vectors where these are not more; whether it is the latter."""
    probes, generator = positive_int("num_probes", num_probes), as_rng(rng)
    is_exact = probes >= size
    count = size if is_exact else probes
    found = np.empty(count)
    for begin in range(0, count, _GROUP):
        many = min(_GROUP, count - begin)
        z = np.eye(size, many, -begin) if is_exact else generator.choice([-1.0, 1.0], (many, size)).T
        found[begin : begin + many] = form(z, product(np.ascontiguousarray(z)))
    return found, is_exact


def _mean(values: FloatArray) -> tuple[float, float]:
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), error


def _rules(product: Product, starts: FloatArray, steps: int, least: float) -> tuple[FloatArray, FloatArray, IntArray]:
    """Nodes and weights (k, steps) of Gauss rules for starts (k, P), and their lengths (k,): Lanczos for all side by side.

    A row ends where what is left is below ``least`` of the matrix: nothing but rounding errors of an invariant subspace.
    """
    count, size = starts.shape
    basis = np.zeros((count, steps, size))
    basis[:, 0] = starts / np.linalg.norm(starts, axis=1, keepdims=True)
    diagonal, beside = np.zeros((count, steps)), np.zeros((count, steps))
    length, running = np.zeros(count, dtype=np.int64), list(range(count))
    for step in range(steps):
        if not running:
            break
        vectors = product(np.ascontiguousarray(basis[running, step].T))
        going = []
        with blas_single_thread():
            for row, given in zip(running, vectors.T, strict=True):
                known = basis[row, : step + 1]
                diagonal[row, step] = known[step] @ given
                w = given - known.T @ (known @ given)
                w -= known.T @ (known @ w)
                norm, length[row] = float(np.linalg.norm(w)), step + 1
                largest = float(np.abs(diagonal[row, : step + 1]).max() + beside[row, : step + 1].max())
                if step + 1 < steps and norm > least * largest:
                    beside[row, step], basis[row, step + 1] = norm, w / norm
                    going.append(row)
        running = going
    nodes, weights = np.zeros((count, steps)), np.zeros((count, steps))
    for row, m in enumerate(length):
        values, vectors = np.linalg.eigh(np.diag(diagonal[row, :m]) + np.diag(beside[row, : m - 1], -1))
        nodes[row, :m], weights[row, :m], nodes[row, m:] = values, vectors[0] ** 2, values[-1]
    return nodes, weights, length
