"""Many parameter vectors of one problem at once: linearizations, products and jets, one sample a task."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import as_real, check_finite
from .errors import InputError, NonFiniteError
from .kernels.jobs import GGN, HVP, JET, LINEARIZE
from .linearization import Curvature, Engine

FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]


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

    def multiply(self, operation: int, vs: npt.ArrayLike, what: str) -> FloatArray:
        """A(thetas[s]) vs[s], A the Hessian or the Gauss–Newton matrix (HVP or GGN of jobs.py)."""
        rows = self._rows_like(vs)
        out = np.empty(rows.shape, dtype=self.engine.dtype)
        self.engine.carry_out(
            operation, "batch of matrix-vector products", thetas=self.thetas, states=self._states, vs=rows, outs=out
        )
        return checked(what, out, self.engine.dtype)

    def curvature(self, vs: npt.ArrayLike) -> Curvature:
        """The jets q (S,), hv (S, P) and grad (S, P) for vs (S, P)."""
        engine, rows = self.engine, self._rows_like(vs)
        hvs, grads = np.empty((2, *rows.shape), dtype=engine.dtype)
        qs = np.zeros((rows.shape[0], engine.num_chunks))
        engine.carry_out(
            JET, "batch of curvature jets", thetas=self.thetas, states=self._states, vs=rows, outs=hvs, grads=grads, values=qs
        )
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
        states = self._states = engine.rows(rows.shape[0], engine.problem.state_size)
        values = np.zeros((rows.shape[0], engine.num_chunks))
        engine.carry_out(LINEARIZE, "batch of linearizations", thetas=rows, states=states, values=values)
        self.values: FloatArray = checked("the loss", values.sum(axis=1), engine.dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return LinearizationBatch, (self.engine, self.thetas)

    def hvp(self, vs: npt.ArrayLike) -> FloatArray:
        """H(thetas[s]) vs[s] for vs (S, P); returns (S, P)."""
        return self.multiply(HVP, vs, "H v")

    def ggn_vp(self, vs: npt.ArrayLike) -> FloatArray:
        """G(thetas[s]) vs[s], the Gauss–Newton products, for vs (S, P); returns (S, P)."""
        return self.multiply(GGN, vs, "G v")


__all__ = ["LinearizationBatch", "Samples", "checked"]
