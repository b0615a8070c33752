"""Whether matrices with rounded entries are positive semi-definite, for checking certificates.

If Cholesky of B less sigma on v's part runs to completion in doubles, that has no eigenvalue below -s = -gamma trace,
gamma = (n + 1)u / (1 - 2(n + 1)u) (S. M. Rump, BIT 46 (2006)), n the most products in any of its sums. With entries off by E,
|E| <= e as the largest sum of a row's sizes, and the part of z = (v, w) beyond v no longer than g v, sigma >= (1 + g²)(s + e) is
enough.

Rows in leaves, each of which is coupled with itself and the core alone, come first there, leaf by leaf: what is zero stays so,

    L L' = leaf,    W = L⁻¹ cross,    core - sum W'W,

and a sum has no more products than a leaf has rows, or the core and all leaves that are coupled with a row of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dtrsm
from scipy.linalg.lapack import dpotrf

from .reference_changes import DOUBLE, grown
from .reference_interval import UNIT, Wide

FloatArray = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


def not_negative(matrix: Wide | FloatArray, size: int, error: Wide | None = None, longest: float | Wide = 1.0) -> bool:
    """Whether z'Mz >= 0 for all z = (v, w) with v of the given size and |w| <= ``longest`` |v|, for symmetric M.

    That is shown for all whose distance from the given one has no more than ``error`` (rows,) as the sums of its rows' sizes.
    """
    rounded = matrix.astype(np.float64)
    off = np.zeros(len(matrix), dtype=np.longdouble)
    if matrix.dtype != rounded.dtype:
        off += grown((np.abs(matrix - rounded) * (1.0 + 4.0 * UNIT)).sum(axis=1), len(rounded))
    return Arrow(rounded, [], off if error is None else off + error).not_negative(size, longest)


@dataclass(frozen=True, eq=False)
class Leaf:
    """Some rows of an `Arrow` with the columns of the same and of places ``at`` in the core, and bounds of the rows' errors."""

    rows: FloatArray
    at: Places
    error: Wide

    def above(self) -> FloatArray | None:
        """W, or None if the leaf is not found positive definite."""
        count = len(self.rows)
        # The transposes have the columns that LAPACK wants.
        lower, info = dpotrf(self.rows[:, :count].T, lower=True, clean=False)
        return dtrsm(1.0, lower, self.rows[:, count:], lower=True) if info == 0 else None


@dataclass(frozen=True, eq=False)
class Arrow:
    """A symmetric matrix, and bounds of the sums of what the core's rows, the leaves' columns included, are off by."""

    core: FloatArray
    leaves: list[Leaf]
    error: Wide

    def not_negative(self, size: int, longest: float | Wide = 1.0) -> bool:
        """`not_negative`, of which v is the core's first part; the core is used up."""
        sigma = self._sigma(float(longest))
        if not np.isfinite(sigma):
            return False
        places = np.arange(size)
        self.core[places, places] -= sigma
        for leaf in self.leaves:
            above = leaf.above()
            if above is None:
                return False
            self.core[np.ix_(leaf.at, leaf.at)] -= above.T @ above
        # In place, as there may be no room for another matrix.
        return int(dpotrf(self.core.T, overwrite_a=True, clean=False)[1]) == 0

    def _sigma(self, longest: float) -> float:
        """What is to be subtracted from v's part; not finite if some number is not."""
        count = np.full(len(self.core), len(self.core))
        for leaf in self.leaves:
            count[leaf.at] += len(leaf.rows)
        diagonal = np.abs(np.concatenate([np.diag(self.core), *(np.diag(leaf.rows) for leaf in self.leaves)]))
        entries = [self.core, *(leaf.rows for leaf in self.leaves)]
        if not all(np.isfinite(x).all() for x in entries):
            return float(np.inf)
        norm = float(grown(np.concatenate([self.error, *(leaf.error for leaf in self.leaves)]).max()))
        most, unit = int(count.max()) + 4, float(DOUBLE)
        gamma = most * unit / (1.0 - 2.0 * most * unit)
        below = gamma * float(diagonal.sum()) * (1.0 + 4.0 * (len(diagonal) + 4) * unit)
        # Subtracting sigma rounds the diagonal, and sigma may add to the trace in absolute value.
        return 1.125 * (1.0 + longest**2) * (below + norm + 2.0 * unit * float(diagonal.max())) + 1e-290
