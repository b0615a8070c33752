"""Many parameter vectors of one problem at once: linearizations, products and jets, one sample a task."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import as_real, check_finite
from .errors import InputError, NonFiniteError
from .kernels import products
from .linearization import Curvature, Engine, capi

FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]
CancelFlag = npt.NDArray[np.int32]


def as_rows(name: str, given: npt.ArrayLike, engine: Engine) -> AnyArray:
    """S vectors (S, P) in the engine's dtype."""
    array = as_real(name, given)
    if array.ndim != 2 or array.shape[1] != engine.num_params or array.shape[0] < 1:
        raise InputError(f"{name} has shape {array.shape}; allowed is (S, {engine.num_params}) with S >= 1.")
    check_finite(name, array)
    return engine.cast(array)


def checked(what: str, result: AnyArray, dtype: object) -> FloatArray:
    """The result in float64, refused if it is not finite."""
    out: FloatArray = result.astype(np.float64, copy=False)
    if not np.isfinite(out).all():
        raise NonFiniteError(f"{what} is not finite: the derivatives overflow {dtype}; use smaller parameters or vectors.")
    return out


class Samples:
    """S parameter vectors, for one product each: no state outlives it, so S may be as large as the vectors allow."""

    def __init__(self, engine: Engine, thetas: npt.ArrayLike) -> None:
        self.engine, self.thetas = engine, as_rows("thetas", thetas, engine)
        self._states: AnyArray | None = None

    def _rows_like(self, vs: npt.ArrayLike) -> AnyArray:
        rows = as_rows("vs", vs, self.engine)
        if rows.shape != self.thetas.shape:
            raise InputError(f"thetas has shape {self.thetas.shape} and vs {rows.shape}; they must be equal.")
        return rows

    def _states_for(self, workers: int) -> AnyArray:
        if self._states is not None:
            return self._states
        return self.engine.rows(workers, int(self.engine.problem.state_size))

    def _flops(self) -> float:
        per_sample = (1.5 if self._states is None else 1.0) * self.engine.hvp_flops
        return float(self.thetas.shape[0] * per_sample)

    def multiply(self, function: int, vs: npt.ArrayLike, what: str) -> FloatArray:
        """A(thetas[s]) vs[s], with the product at this address of the C ABI."""
        engine, rows = self.engine, self._rows_like(vs)
        out = engine.zeros(*rows.shape)

        def kernel(parallel: bool, workers: int, cancel: CancelFlag) -> int:
            status: int = products.multiply_batch[parallel](
                capi, function, engine.problem.address, engine.num_chunks, self.thetas, self._states_for(workers),
                self._states is None, rows, out, engine.rows(workers, int(engine.problem.transposed_size)),
                engine.rows_exactly(workers, engine.num_params), engine.work(workers), np.zeros(1, dtype=np.int64), cancel,
            )  # fmt: skip
            return status

        engine.run(kernel, rows.shape[0], self._flops(), "batch of matrix-vector products")
        return checked(what, out, engine.dtype)

    def curvature(self, vs: npt.ArrayLike) -> Curvature:
        """The jets q (S,), hv (S, P) and grad (S, P) for vs (S, P)."""
        engine, rows = self.engine, self._rows_like(vs)
        hvs, grads = engine.zeros(*rows.shape), engine.zeros(*rows.shape)
        qs = np.zeros((rows.shape[0], engine.num_chunks))

        def kernel(parallel: bool, workers: int, cancel: CancelFlag) -> int:
            status: int = products.jet_batch[parallel](
                capi, engine.problem.address, engine.num_chunks, self.thetas, self._states_for(workers), self._states is None,
                rows, qs, hvs, grads, engine.rows(workers, int(engine.problem.transposed_size)),
                engine.zeros(workers, 2, engine.num_params), engine.work(workers), np.zeros(1, dtype=np.int64), cancel,
            )  # fmt: skip
            return status

        engine.run(kernel, rows.shape[0], 2.0 * self._flops(), "batch of curvature jets")
        hv, grad = checked("H v", hvs, engine.dtype), checked("the curvature jet", grads, engine.dtype)
        return Curvature(qs.sum(axis=1), hv, grad)


class LinearizationBatch(Samples):
    """The states at S parameter vectors, for repeated products.

    Attributes
    ----------
    thetas : (S, P) array
        The parameter vectors, in the objective's dtype.
    values : (S,) array
        The losses.
    """

    def __init__(self, engine: Engine, thetas: npt.ArrayLike) -> None:
        super().__init__(engine, thetas)
        rows = self.thetas = self.thetas.copy()
        states = self._states = engine.rows(rows.shape[0], int(engine.problem.state_size))
        parts = np.zeros((rows.shape[0], engine.num_chunks))

        def kernel(parallel: bool, workers: int, cancel: CancelFlag) -> int:
            status: int = products.linearize_batch[parallel](
                capi, engine.problem.address, engine.num_chunks, rows, states, parts, engine.work(workers),
                np.zeros(1, dtype=np.int64), cancel,
            )  # fmt: skip
            return status

        engine.run(kernel, rows.shape[0], rows.shape[0] * engine.hvp_flops, "batch of linearizations")
        self.values: FloatArray = checked("the loss", parts.sum(axis=1), engine.dtype)

    def hvp(self, vs: npt.ArrayLike) -> FloatArray:
        """H(thetas[s]) vs[s] for vs (S, P); returns (S, P)."""
        return self.multiply(capi.ph_hvp, vs, "H v")

    def ggn_vp(self, vs: npt.ArrayLike) -> FloatArray:
        """G(thetas[s]) vs[s], the Gauss–Newton products, for vs (S, P); returns (S, P)."""
        return self.multiply(capi.ph_ggn, vs, "G v")


__all__ = ["LinearizationBatch", "Samples", "checked"]
