"""What an eigenvalue computation returns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from ..errors import InputError, NonFiniteError, NotConvergedError, PyhessError
from ..kernels import run as codes
from ._setup import Runs

FloatArray = npt.NDArray[np.float64]


class EigenStatus(StrEnum):
    """How an eigenvalue computation ended; ``status.advice`` says what it means and what to try next.

    Members compare equal to their lower-case names.

    Examples
    --------
    >>> from pyhess import EigenStatus
    >>> EigenStatus.CONVERGED == "converged"
    True
    """

    CONVERGED = "converged"
    MAX_MATVECS = "max_matvecs"
    STAGNATED = "stagnated"
    NOT_SYMMETRIC = "not_symmetric"
    NOT_FINITE = "not_finite"

    @property
    def advice(self) -> str:
        """One or two sentences: the meaning of this status and the next step."""
        return _ADVICE[self]


_ADVICE = {
    EigenStatus.CONVERGED: "Every residual, from a fresh product, meets the tolerance. Nothing to do.",
    EigenStatus.MAX_MATVECS: (
        "The allowed number of products was used up before all pairs were found to the tolerance. Raise max_matvecs, or tol; "
        "if the basis was restarted, a larger max_bytes saves products."
    ),
    EigenStatus.STAGNATED: (
        "Rounding errors of the products keep the residuals above the tolerance. Raise tol, or use float64 products."
    ),
    EigenStatus.NOT_SYMMETRIC: (
        "The products are not those of a symmetric matrix, so there need be no real eigenvalues. "
        "Check the operator (u'(Av) must equal v'(Au)), or pass (A + A.T) / 2."
    ),
    EigenStatus.NOT_FINITE: "A product contained NaN or infinity. Check the operator, or the size of the parameters.",
}

_CODES = {
    codes.CONVERGED: EigenStatus.CONVERGED,
    codes.MAX_ITERATIONS: EigenStatus.MAX_MATVECS,
    codes.STAGNATED: EigenStatus.STAGNATED,
    codes.NOT_SYMMETRIC: EigenStatus.NOT_SYMMETRIC,
    codes.NONFINITE: EigenStatus.NOT_FINITE,
}


@dataclass(frozen=True, eq=False)
class EigenResult:
    """Eigenpairs at the wanted end of a symmetric matrix A (P, P).

    Attributes
    ----------
    eigenvalues : (k,) array
        Ascending Rayleigh quotients v'Av of the vectors, in float64. The first is never below eigval_min(A), nor the last
        above eigval_max(A), but for rounding. NaN where nothing was found.
    eigenvectors : (P, k) array
        Columns of length one.
    residual_norms : (k,) array
        |Av - rho v| from a fresh float64 product: A has an eigenvalue within that distance of rho.
    num_matvecs : int
        Products used, those of the final check included.
    status : EigenStatus
        How the computation ended.
    norm_estimate : float
        The estimate (from below) of |A| that the tolerance refers to.
    probable_lower : float
        eigval_min(A) is at least this with probability 1 - p or more over the random start; nan if that cannot be said (a
        start vector was given, the basis had to be restarted, or the low end was not looked at).
    """

    eigenvalues: FloatArray
    eigenvectors: FloatArray
    residual_norms: FloatArray
    num_matvecs: int
    status: EigenStatus
    norm_estimate: float
    probable_lower: float

    @property
    def converged(self) -> bool:
        """Whether every residual norm is at most tol times ``norm_estimate`` and the search for copies was completed."""
        return self.status is EigenStatus.CONVERGED

    def __str__(self) -> str:
        values = ", ".join(f"{value:.8g}" for value in self.eigenvalues)
        worst = float(np.max(self.residual_norms))
        return f"eigenvalues {values} ({self.status}, {self.num_matvecs} products, largest residual {worst:.2g})"


@dataclass(frozen=True, eq=False)
class BatchEigenResult:
    """As :class:`EigenResult` for S matrices; every field has a leading axis S, ``result[s]`` is that of sample s.

    Attributes
    ----------
    eigenvalues : (S, k) array
    eigenvectors : (S, P, k) array
    residual_norms : (S, k) array
    num_matvecs : (S,) int array
    status : tuple of S EigenStatus
    norm_estimate : (S,) array
    probable_lower : (S,) array
        Each holds with probability 1 - p; for all S together to hold, ask for p / S.
    """

    eigenvalues: FloatArray
    eigenvectors: FloatArray
    residual_norms: FloatArray
    num_matvecs: npt.NDArray[np.int64]
    status: tuple[EigenStatus, ...]
    norm_estimate: FloatArray
    probable_lower: FloatArray

    @property
    def converged(self) -> npt.NDArray[np.bool_]:
        """(S,) whether each sample has converged."""
        return np.array([status is EigenStatus.CONVERGED for status in self.status])

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, sample: int) -> EigenResult:
        return EigenResult(
            self.eigenvalues[sample],
            self.eigenvectors[sample],
            self.residual_norms[sample],
            int(self.num_matvecs[sample]),
            self.status[sample],
            float(self.norm_estimate[sample]),
            float(self.probable_lower[sample]),
        )

    def __str__(self) -> str:
        done = int(self.converged.sum())
        low, high = float(np.nanmin(self.eigenvalues)), float(np.nanmax(self.eigenvalues))
        return (
            f"{len(self)} samples, {done} converged, eigenvalues {low:.8g} to {high:.8g}, {int(self.num_matvecs.sum())} products"
        )


def collect(run: Runs, which: int) -> BatchEigenResult:
    """The result from the arrays of the finished runs, all with a leading axis S; eigenvalues are put in order."""
    records = run.state[:, 0]
    samples, k, size = run.vectors.shape
    found = np.arange(k) < records["found"][:, None]
    values = np.where(found, run.values, np.nan)
    residuals = np.where(found, run.residuals, np.inf)
    order = np.argsort(values, axis=1, kind="stable")
    vectors = np.empty((samples, size, k))
    for sample in range(samples):
        vectors[sample] = run.vectors[sample, order[sample]].T
        length = np.sqrt(np.sum(vectors[sample] ** 2, axis=0))
        vectors[sample] /= np.where(length > 0.0, length, 1.0)
    with np.errstate(over="ignore"):
        lower = records["probable"] / records["sigma"]
        norm = records["scale"] / records["sigma"]
    if which not in (codes.SA, codes.BE):
        lower = np.full(samples, np.nan)
    return BatchEigenResult(
        np.take_along_axis(values, order, axis=1),
        vectors,
        np.take_along_axis(residuals, order, axis=1),
        records["matvecs"].copy(),
        tuple(_CODES[int(code)] for code in records["status"]),
        norm,
        lower,
    )


def report_failure(result: EigenResult | BatchEigenResult, on_failure: str, tol: float) -> None:
    """Raise or warn, as asked, if not everything has converged."""
    statuses = result.status if isinstance(result, BatchEigenResult) else (result.status,)
    bad = [sample for sample, status in enumerate(statuses) if status is not EigenStatus.CONVERGED]
    if not bad or on_failure == "return":
        return
    status = statuses[bad[0]]
    one = result[bad[0]] if isinstance(result, BatchEigenResult) else result
    where = f"{len(bad)} of {len(statuses)} samples, the first of them number {bad[0]}: " if len(statuses) > 1 else ""
    reached = float(np.max(one.residual_norms))
    message = (
        f"{where}the eigenvalue computation ended as {status.name} after {one.num_matvecs} products "
        f"(largest residual {reached:.2g}, allowed {tol:.2g} x {one.norm_estimate:.4g}). {status.advice}"
    )
    if on_failure == "warn":
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        return
    raise failure(status, message, result)


def failure(status: EigenStatus, message: str, result: EigenResult | BatchEigenResult) -> PyhessError:
    """The error that fits the status."""
    if status is EigenStatus.NOT_SYMMETRIC:
        return InputError(message)
    if status is EigenStatus.NOT_FINITE:
        return NonFiniteError(message)
    return NotConvergedError(message, result)
