"""The Hessian and the Gauss–Newton matrix at one theta as SciPy linear operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator

from ._checks import check_finite, real_array
from .errors import InputError, InputTypeError, MemoryLimitError
from .kernels.jobs import GGN, HVP
from .linearization import Engine, Linearization

FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]

#: Largest dense matrix that ``to_dense`` makes unless told otherwise.
_DENSE_LIMIT_BYTES = 2**31

#: Columns that ``to_dense`` multiplies at a time.
_DENSE_COLUMNS = 256


#: Vectors of a block that are laid out row by row at a time: NumPy's transposition cannot be interrupted, and takes a second for
#: some 400 MB.
_GROUP_BYTES = 2**26


class CurvatureOperator(LinearOperator):  # type: ignore[misc]
    """A symmetric matrix of second derivatives at a fixed theta; the state at theta is computed once.

    Products are taken in the objective's dtype; the operator's dtype says which. ``theta`` (P,) and ``value`` (the loss
    there) are kept.
    """

    def __init__(self, linearization: Linearization) -> None:
        self._lin = linearization
        size = linearization.engine.num_params
        super().__init__(dtype=linearization.engine.dtype, shape=(size, size))

    @property
    def theta(self) -> FloatArray:
        """The parameters (P,) at which the matrix is taken."""
        return self._lin.theta.astype(np.float64)

    @property
    def value(self) -> float:
        """The loss at theta."""
        return self._lin.value

    @property
    def engine(self) -> Engine:
        """The compiled problem behind the operator."""
        return self._lin.engine

    #: The product, HVP or GGN of jobs.py.
    _operation: int

    def _matvec_into(self, v: AnyArray, out: AnyArray) -> None:
        """Write A v to out, for contiguous arrays (P,) of the operator's dtype, without checks: the eigensolvers' entry."""
        self._lin.multiply(self._operation, v, out)

    def dot(self, x: Any) -> Any:
        """A x for x (P,) or (P, k), vectors as columns, or the product with another operator; ``A @ x`` is the same.

        Raises
        ------
        InputError, InputTypeError
            If x has another shape, a number that is not finite, or is not real.
        """
        return super().dot(x if isinstance(x, LinearOperator) or np.isscalar(x) else self._real(x))

    def _real(self, v: Any) -> AnyArray:
        """An operand of the public products; those of other operators and of SciPy's solvers come in by `_matvec`."""
        array = np.asarray(v)
        if array.dtype.kind != "c":  # which has advice of its own
            array = real_array("v", v)
        if array.ndim not in (1, 2) or array.shape[0] != self.shape[0]:
            raise InputError(
                f"v has shape {array.shape}; allowed are ({self.shape[0]},) and ({self.shape[0]}, k), vectors as columns."
            )
        check_finite("v", array)
        return array

    def _matvec(self, v: AnyArray) -> AnyArray:
        out = np.empty(self.shape[0], dtype=self.dtype)
        self._matvec_into(self._cast(np.asarray(v).reshape(-1)), out)
        return out

    def _matmat(self, block: AnyArray) -> AnyArray:
        columns = np.asarray(block)
        size, count = columns.shape
        out = np.empty((count, size), dtype=self.dtype)
        group = max(1, _GROUP_BYTES // (size * out.itemsize))
        for begin in range(0, count, group):
            rows = self._cast(columns[:, begin : begin + group].T)
            self._lin.multiply_block(self._operation, rows, out[begin : begin + group])
        return out.T

    def _cast(self, v: AnyArray) -> AnyArray:
        if np.iscomplexobj(v):
            raise InputTypeError(
                f"v has dtype {v.dtype}; allowed are real numbers. Multiply the real and the imaginary part one by one."
            )
        return self.engine.cast(v)

    def _adjoint(self) -> CurvatureOperator:
        return self

    def _transpose(self) -> CurvatureOperator:
        return self

    def to_dense(self, *, max_bytes: int = _DENSE_LIMIT_BYTES) -> FloatArray:
        """The matrix (P, P), one product per column, symmetrised to the last bit.

        Raises
        ------
        MemoryLimitError
            If the matrix would need more than ``max_bytes``.
        """
        size = self.shape[0]
        if 8 * size * size > max_bytes:
            raise MemoryLimitError(
                f"a dense {size} x {size} matrix needs {8 * size * size / 2**30:.3g} GiB, allowed are "
                f"{max_bytes / 2**30:.3g} GiB; use products or eigsh, or raise max_bytes."
            )
        dense = np.empty((size, size))
        for start in range(0, size, _DENSE_COLUMNS):
            dense[:, start : start + _DENSE_COLUMNS] = self._matmat(
                np.eye(size, min(_DENSE_COLUMNS, size - start), -start, self.dtype)
            )
        symmetric: FloatArray = 0.5 * (dense + dense.T)
        return symmetric

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shape[0]}x{self.shape[1]} {np.dtype(self.dtype).name}, loss {self.value:.6g}>"


class Hessian(CurvatureOperator):
    """H = the second derivative of the loss, d²L/dtheta² (P, P)."""

    _operation = HVP


class GaussNewton(CurvatureOperator):
    """G = mean over data of J'AJ, J = df/dtheta and A = d²l/df²; positive semi-definite."""

    _operation = GGN


def apply_columns(operator: CurvatureOperator, v: AnyArray) -> AnyArray:
    """A v for v (P,) or (P, k) that has been looked at, vectors as columns."""
    product: AnyArray = operator._matvec(v) if v.ndim == 1 else operator._matmat(v)
    return product
