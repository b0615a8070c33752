"""Penalties lam times a fixed sum of squares."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import check_finite, choice, frozen, scalar_or_vector
from ..errors import InputError, InputTypeError
from ..model import MLP
from .base import EPS, FloatArray, Penalty


class _Quadratic(Penalty):
    """lam sum_i w_i (theta_i - eps_i)²; its Hessian is 2 lam diag w."""

    @abstractmethod
    def _weights(self, size: int) -> FloatArray:
        """Return w (P,), all >= 0."""

    def _offset(self, theta: FloatArray) -> FloatArray:
        return theta

    def _curvature(self, lam: float, size: int) -> FloatArray:
        return 2.0 * lam * self._weights(size)

    def _value(self, theta: FloatArray, lam: float) -> float:
        return lam * float(self._weights(theta.size) @ self._offset(theta) ** 2)

    def _gradient(self, theta: FloatArray, lam: float) -> FloatArray:
        return 2.0 * lam * self._weights(theta.size) * self._offset(theta)

    def _units_vectors(self, size: int) -> tuple[FloatArray, ...]:
        return (self._weights(size),)

    def strength(self, rho: float, v: FloatArray) -> float:
        if rho >= 0.0:
            return 0.0
        u = v / float(np.abs(v).max())
        share = math.fsum(self._weights(v.size) * u * u)
        if share == 0.0:
            # Squares may have vanished in underflow; only exact zeros make the penalty blind to v.
            return math.inf if not np.any(u[self._weights(v.size) > 0.0]) else 0.0
        return -0.5 * rho * (math.fsum(u * u) / share) * (1.0 - 16.0 * EPS)

    def sufficient(self, h: float) -> float:
        return 0.0 if h <= 0.0 else 0.5 * h

    def bend(self, d: FloatArray, lam: float) -> tuple[float, float]:
        value = lam * math.fsum(self._weights(d.size) * d * d)
        return value, 8.0 * EPS * value

    def scale(self, lam: float, size: int) -> FloatArray | None:
        return None

    def log_curvature(self, lam: float, size: int) -> FloatArray:
        with np.errstate(divide="ignore"):
            logs: FloatArray = np.log(2.0 * lam) + np.log(self._weights(size))
        return logs


class _Plain(_Quadratic):
    """All weights are one."""

    def _weights(self, size: int) -> FloatArray:
        return np.ones(size)

    def strength(self, rho: float, v: FloatArray) -> float:
        return max(0.0, -0.5 * rho)


class L2(_Quadratic):
    """P(theta; lam) = lam |theta|², or lam times the sum over the weights alone.

    With ``penalize="all"`` the Hessian is 2 lam I: lam adds 2 lam to every eigenvalue and ``lam* = max(0, -psi/2)``. With
    ``penalize="weights"`` biases are left out: sum over the weights of theta_i². Let A, B and C be the blocks of H that belong
    to weights and weights, weights and biases, biases and biases. Where ``C(theta)`` has a negative eigenvalue anywhere on the
    region no lam is large enough, ``lam* = inf``; where C is positive definite on it,
    ``lam* = sup over theta of max(0, -eigval_min(A - B C^-1 B')/2)``.

    Parameters
    ----------
    penalize : str
        ``"all"`` or ``"weights"``. The latter has to know the layers: :meth:`bind` it to a network before other methods.

    Raises
    ------
    InputError, InputTypeError
        If ``penalize`` is anything else.

    Examples
    --------
    >>> import pyhess as ph
    >>> ph.L2()
    L2()
    >>> ph.L2(penalize="weights").curvature(0.5, ph.MLP([1, 2, 1]))  # W1, b1, W2, b2
    array([1., 1., 0., 0., 1., 1., 0.])
    """

    kind = "l2"
    penalize: str
    _size: int | None
    _mask: FloatArray | None

    def __init__(self, penalize: str = "all") -> None:
        self._set(penalize=choice("penalize", penalize, ("all", "weights")), _size=None, _mask=None)

    @property
    def formula(self) -> str:  # type: ignore[override]
        return "lam |theta|²" if self.penalize == "all" else "lam |weights|² (biases unpenalised)"

    @property
    def upper_rule(self) -> str:  # type: ignore[override]
        if self.penalize == "all" or (self._mask is not None and bool(self._mask.all())):
            return ""
        return "a bound of psi below zero says nothing here: the biases that the penalty leaves out could carry the eigenvalue"

    @property
    def size(self) -> int | None:
        return self._size

    def _with_net(self, size: int, net: MLP | None) -> L2:
        if self.penalize == "all":
            return _l2("all", size, None)
        if net is None:
            raise InputTypeError(
                f"{self!r} was given the number of parameters {size} alone; allowed are an MLP and an Objective, which know "
                "which of them are biases. Bind it first: penalty.bind(net)."
            )
        mask = np.ones(size)
        for _, bias in net.layer_slices:
            if bias is not None:
                mask[bias] = 0.0
        return _l2("weights", size, frozen(mask))

    def _weights(self, size: int) -> FloatArray:
        if self.penalize == "all":
            return np.ones(size)
        if self._mask is None:
            raise InputError(f"{self!r} does not know which parameters are biases; bind it first: penalty.bind(net).")
        return self._mask

    def strength(self, rho: float, v: FloatArray) -> float:
        return max(0.0, -0.5 * rho) if self.penalize == "all" else super().strength(rho, v)

    def sufficient(self, h: float) -> float:
        if h > 0.0 and self._mask is not None and not self._mask.all():
            return math.inf
        return super().sufficient(h)

    def leaves_out(self, size: int) -> npt.NDArray[np.bool_]:
        return np.zeros(size, dtype=np.bool_) if self._mask is None else np.equal(self._mask, 0.0)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "penalize": self.penalize}

    def _key(self) -> tuple[Any, ...]:
        return self.penalize, None if self._mask is None else self._mask.tobytes()

    def __reduce__(self) -> tuple[Any, ...]:
        return _l2, (self.penalize, self._size, self._mask)

    def __repr__(self) -> str:
        return "L2()" if self.penalize == "all" else "L2(penalize='weights')"


def _l2(penalize: str, size: int | None, mask: FloatArray | None) -> L2:
    penalty = L2(penalize)
    penalty._set(_size=size, _mask=mask)
    return penalty


class ShiftedL2(_Plain):
    """P(theta; lam) = lam |theta - eps|².

    Its Hessian is 2 lam I whatever eps is, so the threshold is that of :class:`L2`. The minimiser is another one: the convexified
    problem picks a point near eps.

    Parameters
    ----------
    eps : float or (P,) array_like
        The point the penalty pulls to, finite; a number stands for that number in every coordinate.

    Raises
    ------
    InputError, InputTypeError
        If eps is not finite, not real, or neither a number nor a vector.

    Examples
    --------
    >>> import pyhess as ph
    >>> penalty = ph.ShiftedL2([1.0, -1.0])
    >>> penalty.value([2.0, -1.0], 0.5), penalty.gradient([2.0, -1.0], 0.5), penalty.curvature(0.5)
    (0.5, array([1., 0.]), array([1., 1.]))
    """

    kind = "shifted_l2"
    formula = "lam |theta - eps|²"
    eps: FloatArray

    def __init__(self, eps: npt.ArrayLike) -> None:
        self._set(eps=frozen(scalar_or_vector("eps", eps)))

    @property
    def size(self) -> int | None:
        return None if self.eps.ndim == 0 else int(self.eps.size)

    def _with_net(self, size: int, net: MLP | None) -> ShiftedL2:
        return ShiftedL2(np.full(size, float(self.eps)))

    def _offset(self, theta: FloatArray) -> FloatArray:
        offset: FloatArray = theta - self.eps
        return offset

    def _units_vectors(self, size: int) -> tuple[FloatArray, ...]:
        return (np.broadcast_to(self.eps, (size,)),)

    def _is_even(self, size: int) -> npt.NDArray[np.bool_]:
        return np.equal(np.broadcast_to(self.eps, (size,)), 0.0)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "eps": self.eps.tolist()}

    def _key(self) -> tuple[Any, ...]:
        return self.eps.shape, self.eps.tobytes()

    def __reduce__(self) -> tuple[Any, ...]:
        return ShiftedL2, (self.eps,)

    def __repr__(self) -> str:
        return f"ShiftedL2({_spread(self.eps)})"


class WeightedL2(_Quadratic):
    """P(theta; lam) = lam sum_i w_i theta_i², all w_i > 0.

    With D = diag w the objective is convex where H + 2 lam D is positive semi-definite, so ``lam* = max(0, -psi/2)`` with
    ``psi = inf over theta of eigval_min(D^(-1/2) H(theta) D^(-1/2))``.

    Parameters
    ----------
    w : float or (P,) array_like
        Weights, finite and > 0; a number stands for that number in every coordinate.

    Raises
    ------
    InputError, InputTypeError
        If a weight is not positive or not finite, w is not real, or neither a number nor a vector.

    Examples
    --------
    The Hessian of (v w - 1)²/2 at v = w = 0 is [[0, -1], [-1, 0]]; with weights (1, 4) it takes lam = 1/4 there.

    >>> import numpy as np, pyhess as ph
    >>> penalty = ph.WeightedL2([1.0, 4.0])
    >>> h = np.array([[0.0, -1.0], [-1.0, 0.0]]) + np.diag(penalty.curvature(0.25))
    >>> bool(abs(np.linalg.eigvalsh(h)[0]) < 1e-15)
    True
    >>> round(penalty.strength(-0.8, np.array([2.0, 1.0])), 12)
    0.25
    """

    kind = "weighted_l2"
    formula = "lam sum_i w_i theta_i²"
    upper_rule = "the bound of psi divided by the smallest weight, lam* <= -psi_lower/(2 min w): loose where weights differ much"
    w: FloatArray

    def __init__(self, w: npt.ArrayLike) -> None:
        weights = scalar_or_vector("w", w)
        if not (weights > 0.0).all():
            place = int(np.argmax(weights <= 0.0))
            where = "" if weights.ndim == 0 else f"[{place}]"
            raise InputError(
                f"w{where} is {float(weights.flat[place])!r}; allowed are weights > 0. To leave biases out use "
                "L2(penalize='weights')."
            )
        with np.errstate(over="ignore", under="ignore"):
            inverse = 1.0 / weights
        check_finite("1/w", inverse)
        self._set(w=frozen(weights))

    @property
    def size(self) -> int | None:
        return None if self.w.ndim == 0 else int(self.w.size)

    def _with_net(self, size: int, net: MLP | None) -> WeightedL2:
        return WeightedL2(np.full(size, float(self.w)))

    def _weights(self, size: int) -> FloatArray:
        return np.broadcast_to(self.w, (size,))

    def sufficient(self, h: float) -> float:
        return 0.0 if h <= 0.0 else 0.5 * h / float(self.w.min()) * (1.0 + 4.0 * EPS)

    def scale(self, lam: float, size: int) -> FloatArray | None:
        weights = self._weights(size)
        return np.array(np.sqrt(weights.min() / weights))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "w": self.w.tolist()}

    def _key(self) -> tuple[Any, ...]:
        return self.w.shape, self.w.tobytes()

    def __reduce__(self) -> tuple[Any, ...]:
        return WeightedL2, (self.w,)

    def __repr__(self) -> str:
        return f"WeightedL2({_spread(self.w)})"


def _spread(array: FloatArray) -> str:
    """The number all entries share, or their range."""
    if (array == array.flat[0]).all():
        of_size = "" if array.ndim == 0 else f", P={array.size}"
        return f"{float(array.flat[0])!r}{of_size}"
    return f"{float(array.min()):g} to {float(array.max()):g}, P={array.size}"
