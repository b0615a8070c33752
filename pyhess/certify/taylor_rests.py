"""Forms in v that bound what the Hessian's polynomials leave out, as sums of squares with weights that may be any.

For entries N and weights w > 0, |v|'N|v| <= sum_a q_a v_a² with q = N w / w, as 2 |v_a||v_b| <= (w_b/w_a) v_a² + (w_a/w_b) v_b².
With one hidden layer a datum's share is a form in few functions x_q of v: sigma_ij = X_i . v for the weights and the bias of unit
j, and the output weights v_kj. Sums of e_qq' |x_q||x_q'| over the data are bounded in the same way,

    sum_qq' e_qq' |x_q||x_q'| <= sum_q (sum_q' e_qq' w_q') / w_q x_q²,

and as sigma_ij² is a square, X_i keeps its signs, where N would take its numbers' absolute values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .intervals import TINY, UNIT, gamma

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class UnitRests:
    """Sums over the data, of the e that belong to functions q (the H sigma_j, and the K H output weights) and q'.

    ``entering`` (Q, H, E, E): for q' = sigma_j, with X_i X_i'; ``leaving`` (Q, K H).
    """

    entering: FloatArray
    leaving: FloatArray

    def plus(self, other: UnitRests, factor: float) -> UnitRests:
        """With a multiple of another."""
        return UnitRests(self.entering + factor * other.entering, self.leaving + factor * other.leaving)


@dataclass(frozen=True, eq=False)
class UnitPlaces:
    """Where the parameters of hidden units are: ``entering`` (H, E) and ``leaving`` (K H,), of ``size`` in all.

    ``lengths`` (E, E) is the mean of X_i X_i'; sums over the data have so many ``roundings``.
    """

    entering: IntArray
    leaving: IntArray
    size: int
    lengths: FloatArray
    roundings: int

    @property
    def groups(self) -> IntArray:
        """Which weight a parameter has: one for each function q, and one for each output bias."""
        found = np.full(self.size, -1, dtype=np.int64)
        units = len(self.entering)
        found[self.entering] = np.arange(units)[:, None]
        found[self.leaving] = units + np.arange(self.leaving.size)
        rest = found < 0
        found[rest] = units + self.leaving.size + np.arange(int(rest.sum()))
        return found

    def sizes(self, v: FloatArray) -> FloatArray:
        """Usual sizes of the functions q, at every parameter, for a v."""
        found = np.abs(v)
        own = v[self.entering]
        found[self.entering] = np.sqrt(np.einsum("ja,ab,jb->j", own, self.lengths, own))[:, None]
        return found

    def of(self, weights: FloatArray) -> FloatArray:
        """The functions' weights (Q,), from those of the parameters (P,)."""
        return np.concatenate([weights[self.entering[:, 0]], weights[self.leaving]])


@dataclass(frozen=True, eq=False)
class Rests:
    """What a form leaves out: entries N (P, P) and, of one hidden layer, sums over the data besides."""

    entries: FloatArray
    units: UnitRests | None = None
    places: UnitPlaces | None = None

    def matrix(self, weights: FloatArray) -> FloatArray:
        """The form's matrix (P, P), up to the rounding of its second part."""
        size = len(weights)
        diagonal = ((self.entries @ weights) / weights) * (1.0 + gamma(size + 16)) + TINY
        found = np.diag(diagonal)
        if self.units is not None and self.places is not None:
            places, ratios = self.places, self.places.of(weights)
            units = len(places.entering)
            inner = np.tensordot(ratios, self.units.entering, 1) / ratios[:units, None, None]
            found[places.entering[:, :, None], places.entering[:, None, :]] += inner
            found[places.leaving, places.leaving] += ratios @ self.units.leaving / ratios[units:]
        return found

    def slopes(self, density: FloatArray, weights: FloatArray) -> FloatArray:
        """The derivatives of <density, matrix> in the logarithms of the weights (P,); those of a group count together."""
        at = np.diag(density)
        shares = self.entries * (weights[None, :] / weights[:, None])
        found = at @ shares - at * shares.sum(axis=1)
        if self.units is not None and self.places is not None:
            places, ratios = self.places, self.places.of(weights)
            inner = density[places.entering[:, :, None], places.entering[:, None, :]]
            pairs = np.concatenate(
                [np.einsum("qjab,jab->qj", self.units.entering, inner), self.units.leaving * at[places.leaving]], axis=1
            )
            pairs *= ratios[:, None] / ratios
            slopes = pairs.sum(axis=1) - pairs.sum(axis=0)
            found[places.entering[:, 0]] += slopes[: len(places.entering)]
            found[places.leaving] += slopes[len(places.entering) :]
        return np.asarray(found)

    def rounding(self, weights: FloatArray) -> float:
        """What `matrix` is off by in its second part at most, for X X' that are summed over data with a few roundings each."""
        if self.places is None:
            return 0.0
        matrix = self.matrix(weights)
        inner = matrix[self.places.entering, self.places.entering]
        largest = max(inner.sum(axis=1).max(), matrix[self.places.leaving, self.places.leaving].max())
        return float(gamma(self.places.roundings) * largest)


def combined(residual: Rests, squares: Rests, share: float) -> Rests:
    """The first, and 1/share times the second."""
    factor = (1.0 / share) * (1.0 + 4.0 * UNIT)
    entries = residual.entries + factor * squares.entries
    if residual.units is None or squares.units is None:
        return Rests(entries)
    return Rests(entries, residual.units.plus(squares.units, factor), residual.places)
