"""What every penalty can do."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import Immutable, as_real, as_vector, shown
from .._region import holds_for_units, net_of, size_of, units_agree
from ..errors import InputError, InputTypeError
from ..model import MLP

FloatArray = npt.NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)


class Penalty(Immutable, ABC):
    """A penalty P(theta; lam), convex in theta, with the diagonal Hessian diag c(lam) that does not depend on theta.

    ``L + P(.; lam)`` is convex on a region exactly where ``H(theta) + diag c(lam)`` is positive semi-definite for all theta in
    it, and c grows with lam, so the strengths that make it convex are all those from a threshold lam* on.

    Penalties are immutable and hashable. One that is not tied to a number of parameters fits networks of any size;
    :meth:`bind` ties it to one.
    """

    kind: str
    #: How the penalty is written behind "L(theta) + ".
    formula: str
    #: What the upper end of a bracket rests on besides a bound of the smallest eigenvalue; empty where that is the whole story.
    upper_rule: str = ""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """P, or None while the penalty fits any number of parameters."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe description, which `pyhess.penalties.penalty_from_dict` reads."""

    @abstractmethod
    def _with_net(self, size: int, net: MLP | None) -> Penalty: ...

    @abstractmethod
    def _curvature(self, lam: float, size: int) -> FloatArray: ...

    @abstractmethod
    def _value(self, theta: FloatArray, lam: float) -> float: ...

    @abstractmethod
    def _gradient(self, theta: FloatArray, lam: float) -> FloatArray: ...

    @abstractmethod
    def _key(self) -> tuple[Any, ...]:
        """What tells two penalties of one kind apart."""

    @abstractmethod
    def _units_vectors(self, size: int) -> tuple[FloatArray, ...]:
        """Vectors (P,): where hidden units agree in all of them, exchanging the units leaves the penalty as it is."""

    def _is_even(self, size: int) -> npt.NDArray[np.bool_]:
        """For each coordinate (P,) whether a change of its sign leaves the penalty as it is."""
        return np.ones(size, dtype=np.bool_)

    # --- what thresholds are made of ------------------------------------------------------------------------------------

    @abstractmethod
    def strength(self, rho: float, v: FloatArray) -> float:
        """Return the lam up to which v stays a direction of negative curvature, rounded down.

        Parameters
        ----------
        rho : float
            An upper bound of v'Hv / v'v.
        v : (P,) array
            The direction, not zero; its length does not matter.

        Returns
        -------
        float
            The root lam of ``rho v'v + v' diag c(lam) v = 0``; 0 where rho >= 0, infinite where rho < 0 and the penalty does
            not reach v.
        """

    @abstractmethod
    def sufficient(self, h: float) -> float:
        """Return a lam from which on ``-h I + diag c(lam)`` is positive semi-definite, rounded up; infinite if there is none.

        Parameters
        ----------
        h : float
            With ``H(theta) >= -h I`` on a region: minus a certified lower bound of the smallest eigenvalues.
        """

    @abstractmethod
    def bend(self, d: FloatArray, lam: float) -> tuple[float, float]:
        """Return ``(P(m - d) + P(m + d))/2 - P(m) = d' diag c(lam) d / 2``, the same for every m, and a bound of its error."""

    @abstractmethod
    def scale(self, lam: float, size: int) -> FloatArray | None:
        """Return S (P,) with ``v' diag c(lam) v`` proportional to u'u for v = S u; None where that is v itself.

        The largest entry is one; entries too small for a number are zero.
        """

    @abstractmethod
    def log_curvature(self, lam: float, size: int) -> FloatArray:
        """Return log c(lam) (P,), -inf where c is zero: finite where c itself would overflow or vanish."""

    @property
    def depends_on_strength(self) -> bool:
        """Whether :meth:`scale` changes with lam."""
        return False

    def leaves_out(self, size: int) -> npt.NDArray[np.bool_]:
        """For each coordinate (P,) whether the penalty does not depend on it."""
        return np.zeros(size, dtype=np.bool_)

    # --- the public face --------------------------------------------------------------------------------------------------

    def bind(self, net: Any) -> Penalty:
        """Return the penalty for networks with P parameters.

        Parameters
        ----------
        net : MLP, Objective or int
            What has P parameters, or P.

        Raises
        ------
        InputError
            If the penalty is given by vectors of another length.
        InputTypeError
            If ``net`` does not tell what the penalty has to know.
        """
        size = size_of(net)
        if self.size is None:
            inner = getattr(net, "net", net)
            return self._with_net(size, inner if isinstance(inner, MLP) else None)
        if self.size != size:
            raise InputError(
                f"the penalty {self!r} has {self.size} coordinates but {size} parameters are asked for; allowed are equal "
                "numbers. Give it by vectors of the network's num_params."
            )
        return self

    def curvature(self, lam: float, net: Any = None) -> FloatArray:
        """Return the diagonal c(lam) (P,) of the Hessian of the penalty.

        Parameters
        ----------
        lam : float
            Strength, finite and >= 0.
        net : MLP, Objective or int, optional
            Needed by a penalty that does not know P.
        """
        if net is None and self.size is None:
            raise InputError(
                f"{self!r} does not know the number of parameters; pass the network, penalty.curvature(lam, net), or bind it "
                "first, penalty.bind(net)."
            )
        bound = self if net is None else self.bind(net)
        size = bound.size if bound.size is not None else size_of(net)
        return bound._curvature(as_strength(lam), size)

    def value(self, theta: npt.ArrayLike, lam: float) -> float:
        """Return P(theta; lam) for theta (P,)."""
        bound, point = self._bound_to(theta)
        return bound._value(point, as_strength(lam))

    def gradient(self, theta: npt.ArrayLike, lam: float) -> FloatArray:
        """Return dP/dtheta (P,) for theta (P,)."""
        bound, point = self._bound_to(theta)
        return bound._gradient(point, as_strength(lam))

    def _bound_to(self, theta: npt.ArrayLike) -> tuple[Penalty, FloatArray]:
        flat = as_real("theta", theta)
        if flat.ndim != 1 or flat.size == 0:
            raise InputError(f"theta has shape {flat.shape}; allowed is (P,), one flat vector per call.")
        return self.bind(flat.size), as_vector("theta", flat, flat.size)

    def is_permutation_symmetric(self, net: Any) -> bool:
        """Tell whether the penalty stays the same when any two hidden units of a layer are exchanged."""
        layers = net_of(net)
        return units_agree(layers, self.bind(net)._units_vectors(layers.num_params))

    def is_sign_symmetric(self, net: Any) -> bool:
        """Tell whether the penalty stays the same when the weights in and out and the bias of a hidden unit change sign."""
        layers = net_of(net)
        return holds_for_units(layers, self.bind(net)._is_even(layers.num_params))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Penalty) and type(self) is type(other) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((type(self), self._key()))


def as_strength(lam: Any) -> float:
    """Return lam as a finite float >= 0."""
    if isinstance(lam, bool | np.bool_ | str | bytes):
        raise InputTypeError(f"lam is {shown(lam)}; pass a number >= 0.")
    try:
        number = float(lam)
    except (TypeError, ValueError, OverflowError):
        raise InputTypeError(f"lam is {shown(lam)} ({type(lam).__name__}); pass a number >= 0.") from None
    if not (math.isfinite(number) and number >= 0.0):
        raise InputError(f"lam is {number!r}; a penalty strength must be finite and >= 0.")
    return number
