"""The training objective: a network, a data set and a loss."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import as_real, as_vector, check_finite, choice
from .batch import LinearizationBatch, Samples, checked
from .data import LOSSES, Dataset, resolve_targets
from .errors import InputError, InputTypeError, NonFiniteError
from .kernels.jobs import GGN, HVP, JET
from .linearization import Curvature, Engine, Linearization
from .memory import MemoryPlan, plan
from .model import MLP
from .operators import GaussNewton, Hessian, apply_columns

FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]

DTYPES = ("float64", "float32")


class Objective:
    """L(theta) = sum_i w_i l(f(x_i; theta), y_i) / sum_i w_i for a dense network f.

    Parameters
    ----------
    net : MLP
        The network.
    data : Dataset
        Inputs (N, d_in), targets, optional weights w.
    loss : str
        ``"squared_error"`` l = ½|f − y|², ``"cross_entropy"`` l = −Σ_k y_k log softmax(f)_k (labels or probability rows),
        ``"logistic"`` l = log(1 + e^f) − y f with one output and y in {0, 1}.
    dtype : str
        ``"float64"``, or ``"float32"`` for twice the speed and half the memory at seven digits.
    max_memory : float, optional
        Bytes the objective and one linearization may take, by default 80 % of what this process may use. Where the state of a
        linearization does not fit, the data are streamed: the same bits, a third to a half more time. ``plan`` holds the
        prediction.

    Raises
    ------
    InputError, InputTypeError
        If the network, the data and the loss do not fit together.
    MemoryLimitError
        If the problem does not fit into ``max_memory`` even when streamed.

    Notes
    -----
    ReLU counts with phi'(0) = 0 and phi'' = 0: its products are those of the almost-everywhere Hessian.

    Examples
    --------
    >>> import numpy as np, pyhess as ph
    >>> data = ph.Dataset(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([0.5, -0.5, 1.0]))
    >>> obj = ph.Objective(ph.MLP([2, 3, 1]), data)
    >>> theta = np.zeros(obj.num_params)
    >>> obj.value(theta)
    0.25
    >>> bool(abs(obj.hvp(theta, np.ones(13)) @ np.ones(13) - obj.curvature(theta, np.ones(13)).q) < 1e-12)
    True
    """

    def __init__(
        self, net: MLP, data: Dataset, loss: str = "squared_error", dtype: Any = "float64", *, max_memory: float | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(net, MLP):
            raise InputTypeError(f"net is a {type(net).__name__}; pass a pyhess.MLP.")
        if not isinstance(data, Dataset):
            raise InputTypeError(f"data is a {type(data).__name__}; pass a pyhess.Dataset(X, y).")
        self.net = net
        self.data = data
        self.loss = choice("loss", loss, LOSSES)
        is_type = isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, float | np.floating))
        self.dtype = choice("dtype", np.dtype(dtype).name if is_type else dtype, DTYPES)
        if data.num_features != net.widths[0]:
            raise InputError(
                f"the data have {data.num_features} features but the network takes {net.widths[0]} inputs; "
                f"use widths[0] = {data.num_features}."
            )
        self.targets: FloatArray = resolve_targets(data, self.loss, net.widths[-1])
        self._max_memory = max_memory
        self.plan: MemoryPlan = plan(net, data.num_samples, self.loss, dtype=self.dtype, max_memory=max_memory)
        self.engine = Engine(
            net, self.loss, data.X, self.targets, data.normalized_weights, self.dtype,
            streaming=self.plan.streaming, max_bytes=self.plan.budget_bytes,
            accumulator_bytes=self.plan.accumulator_limit,
        )  # fmt: skip

    @property
    def num_params(self) -> int:
        """P, the length of theta."""
        return self.net.num_params

    def __repr__(self) -> str:
        return f"Objective({self.net!r}, {self.data!r}, loss={self.loss!r}, dtype={self.dtype!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Objective, max_memory=self._max_memory), (self.net, self.data, self.loss, self.dtype)

    # The compiled problem holds no Python state, so copies for other threads or processes are simply rebuilt.

    def linearize(self, theta: npt.ArrayLike, *, with_gradient: bool = False) -> Linearization:
        """The state at theta (P,) that all products share."""
        lin = Linearization(self.engine, as_vector("theta", theta, self.num_params), with_gradient=with_gradient)
        if not np.isfinite(lin.value):
            raise NonFiniteError(
                f"the loss at theta is {lin.value}: the network's outputs overflow {self.dtype}. "
                f"The largest |theta_i| is {np.abs(lin.theta).max():.3g}; use smaller parameters or inputs."
            )
        return lin

    def value(self, theta: npt.ArrayLike) -> float:
        """L(theta) for theta (P,)."""
        return self.linearize(theta).value

    def gradient(self, theta: npt.ArrayLike) -> FloatArray:
        """dL/dtheta (P,) for theta (P,)."""
        return self._checked("gradient", self.linearize(theta, with_gradient=True).gradient)

    def hvp(self, theta: npt.ArrayLike, v: npt.ArrayLike) -> FloatArray:
        """H(theta) v for theta (P,) and v (P,) or (P, k), vectors as columns; the result has v's shape."""
        return self._product(HVP, "H v", theta, v)

    def ggn_vp(self, theta: npt.ArrayLike, v: npt.ArrayLike) -> FloatArray:
        """G(theta) v, the Gauss–Newton product, for theta (P,) and v (P,) or (P, k)."""
        return self._product(GGN, "G v", theta, v)

    def curvature(self, theta: npt.ArrayLike, v: npt.ArrayLike) -> Curvature:
        """The form q = v'H(theta)v, Hv and dq/dtheta in one pass, for theta (P,) and v (P,), or v (P, k) column by column.

        For v (P, k) the fields are q (k,), hv (P, k) and grad (P, k).
        """
        columns = self._columns(v)
        if columns.ndim == 1:
            return self._jet(theta, columns)
        lin = self.linearize(theta)
        q, hv, grad = np.empty(columns.shape[1]), np.empty(columns.shape), np.empty(columns.shape)
        for k, column in enumerate(columns.T):
            q[k], hv[:, k], grad[:, k] = lin.jet(self.engine.cast(column))
        return Curvature(q, hv, self._checked("the curvature jet", grad))  # type: ignore[arg-type]

    def hessian(self, theta: npt.ArrayLike) -> Hessian:
        """H(theta) as a SciPy linear operator (P, P); the state at theta is computed once."""
        return Hessian(self.linearize(theta))

    def gauss_newton(self, theta: npt.ArrayLike) -> GaussNewton:
        """G(theta) as a SciPy linear operator (P, P); the state at theta is computed once."""
        return GaussNewton(self.linearize(theta))

    def linearize_batch(self, thetas: npt.ArrayLike) -> LinearizationBatch:
        """The states at thetas (S, P), for repeated products with all of them at once on all cores."""
        return LinearizationBatch(self.engine, thetas)

    def hvp_batch(self, thetas: npt.ArrayLike, vs: npt.ArrayLike) -> FloatArray:
        """H(thetas[s]) vs[s] for thetas and vs (S, P): many networks at once on all cores; returns (S, P)."""
        return Samples(self.engine, thetas).multiply(HVP, vs, "H v")

    def curvature_batch(self, thetas: npt.ArrayLike, vs: npt.ArrayLike) -> Curvature:
        """The curvature jets at thetas[s] along vs[s], both (S, P): q (S,), hv (S, P) and grad (S, P)."""
        return Samples(self.engine, thetas).curvature(vs)

    def _product(self, operation: int, what: str, theta: npt.ArrayLike, v: npt.ArrayLike) -> FloatArray:
        columns = self._columns(v)
        if columns.ndim == 2:
            operator = self.hessian(theta) if operation == HVP else self.gauss_newton(theta)
            return self._checked(what, apply_columns(operator, columns))
        # For a single vector each block of data is linearized just before it is needed: nothing is kept.
        point = self.engine.cast(as_vector("theta", theta, self.num_params))
        out = np.empty(self.num_params, dtype=self.engine.dtype)
        self.engine.carry_out(
            operation, "matrix-vector product", thetas=point[None], vs=self.engine.cast(columns)[None], outs=out[None]
        )
        if not np.isfinite(out).all():
            self.linearize(theta)  # names the cause where the loss itself overflows
        return self._checked(what, out)

    def _jet(self, theta: npt.ArrayLike, v: AnyArray) -> Curvature:
        engine = self.engine
        point = engine.cast(as_vector("theta", theta, self.num_params))
        hv, grad = np.empty((2, self.num_params), dtype=engine.dtype)
        q = np.zeros(engine.num_chunks)
        engine.carry_out(
            JET, "curvature jet", thetas=point[None], vs=engine.cast(v)[None], outs=hv[None], grads=grad[None], values=q[None]
        )
        if not np.isfinite(grad).all():
            self.linearize(theta)  # names the cause where the loss itself overflows
        return Curvature(float(q.sum()), self._checked("H v", hv), self._checked("the curvature jet", grad))

    def _columns(self, v: npt.ArrayLike) -> AnyArray:
        array = as_real("v", v)
        if array.ndim not in (1, 2) or array.shape[0] != self.num_params:
            raise InputError(
                f"v has shape {array.shape}; allowed are ({self.num_params},) and ({self.num_params}, k), vectors as columns."
            )
        check_finite("v", array)
        return array

    def _checked(self, what: str, result: AnyArray) -> FloatArray:
        return checked(what, result, self.dtype)
