"""The part on v of the form in z = (v, delta x v / R), for any choice of multipliers (see `taylor`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .intervals import TINY, gamma
from .taylor_hessian import Affine
from .taylor_multipliers import TaylorMultipliers
from .taylor_rests import Rests, UnitPlaces, UnitRests, combined

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class State:
    """What is chosen: multipliers factor factor' + floor, A, eta, tau and w; floors alone make the tail positive semi-definite.

    There is one multiplier for a ball and two for a slab, of the part across and that along, in units in which the head takes
    their sum; or one block (D, D) for every group of a network with one hidden layer, with A as a vector (`PairTurns`).
    """

    factors: FloatArray
    floors: FloatArray
    turned: FloatArray
    share: float
    tau: float | None
    weights: FloatArray
    #: The form's ``most``, which the units depend on.
    most: FloatArray

    @property
    def lams(self) -> FloatArray:
        """The multipliers, and a little for the rounding of the floors."""
        lams = self.factors @ self.factors.transpose(0, 2, 1) + self.floors
        lams = 0.5 * (lams + lams.transpose(0, 2, 1))
        for lam in lams:
            lam[np.diag_indices(len(lam))] += 1e-9 * float(np.trace(lam)) / len(lam)
        return lams


@dataclass(frozen=True, eq=False)
class Least:
    """The form's least over the rest u of z, as a form ``schur`` (P, P) in v; there |M' u|² for a v, and u = ``rest`` v."""

    schur: FloatArray
    turning: Callable[[FloatArray], float]
    rest: FloatArray | None = None


class Top:
    """The head and what is taken off it, and what all parts are rounded relative to.

    ``pair`` is the length of delta x delta at most, ``cubic_size`` that of M, of ``cubic_terms`` columns, and ``seconds`` are the
    lengths over k and l of both tails' entries at (k, a), (l, b).
    """

    def __init__(
        self,
        parts: tuple[Affine, Affine],
        units: tuple[UnitRests, UnitRests] | None,
        places: UnitPlaces | None,
        radius: float,
        reach: float,
        seconds: tuple[FloatArray, FloatArray],
    ) -> None:
        self.affine, self.ball, self.reach, self._seconds = parts, radius, reach, seconds
        self.size = parts[0].head.shape[0]
        residual, squares = (None, None) if units is None else units
        self._rests = Rests(parts[0].rest, residual, places), Rests(parts[1].rest, squares, places)
        #: One number for all weights that are the same.
        self.groups = np.arange(self.size) if places is None else places.groups
        self.places = places
        self.pair, self.cubic_size, self.cubic_terms = radius**2, 0.0, 0

    def tau_for(self, largest: float) -> float:
        """What makes both parts of the cubic term equal in size, for a singular value of M."""
        least = 1e-15 * float(np.abs(self.affine[0].head + self.affine[1].head).sum()) / self.ball**3
        return self.pair / self.ball / max(largest, least, 1e-250)

    def head(self, state: State | TaylorMultipliers) -> FloatArray:
        """``head`` less what the rests and tau take."""
        return self.polynomial(state) - self.rests(state.share).matrix(state.weights)

    def polynomial(self, state: State | TaylorMultipliers) -> FloatArray:
        """``head`` less what tau takes."""
        head = self.affine[0].head + (1.0 - state.share) * self.affine[1].head
        head = 0.5 * (head + head.T)
        head[np.diag_indices(self.size)] -= self.cubic(state)
        return head

    def cubic(self, state: State | TaylorMultipliers) -> float:
        """chi² / (2 tau)."""
        return 0.0 if state.tau is None else 0.5 * self.pair**2 / state.tau

    @property
    def squares_rests(self) -> Rests:
        """What the roots of the squares leave out, which 1/eta multiplies."""
        return self._rests[1]

    def rests(self, share: float) -> Rests:
        """What is left out."""
        return combined(*self._rests, share)

    def rounding(self, state: State | TaylorMultipliers) -> FloatArray:
        """Entries of the sizes that `head`, `half` and `tail` were rounded relative to."""
        total: FloatArray = np.zeros((self.size, self.size))
        for part, second in zip(self.affine, self._seconds, strict=True):
            first = np.sqrt((part.half**2).sum(axis=0))
            total += np.abs(part.head) + self.reach * (first + first.T) + self.reach**2 * second
        total = total + total.T  # as the parts are made symmetric
        total[np.diag_indices(self.size)] += self.cubic(state)
        return total * (1.0 + gamma(self.size**2 + 32)) + TINY

    def cubic_rounding(self, state: State | TaylorMultipliers) -> float:
        """What the rounding of tau R² M M'/2 is at most, for a part of z beyond v that is no longer than v."""
        if state.tau is None:
            return 0.0
        return (
            0.5
            * state.tau
            * self.ball**2
            * self.cubic_size**2
            * gamma(self.cubic_terms + 16)
            * (1.0 + gamma(self.cubic_terms + 16))
        )
