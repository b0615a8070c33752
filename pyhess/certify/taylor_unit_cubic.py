"""The third-order terms of networks with one hidden layer, unit by unit, and their matrix M with its square M M'.

sum T_klmab delta_k delta_l delta_m v_a v_b has at most two units among the indices of a term: those of v are in unit j, and one,
two or all of delta's in l (or one is an output's bias); or, from products of derivatives of an output, one of delta and one of v
are in j, the other ones in l. M has rows (k, a) and columns (l, m, b), with T averaged over all orders of k, l and m and both of
a and b; but where one of delta alone is in another unit, or an output's bias, it is l or m, half the time each: that is tighter,
and then the columns with unit j alone have rows (l, l). Those with two units have rows with these alone. So M M' is a sum over
pairs of units, a `PairMatrix`.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import numpy.typing as npt

from .taylor_pairs import PairMatrix
from .taylor_unit_forms import UnitLayout

FloatArray = npt.NDArray[np.float64]


class UnitCubic:
    """Sums of products of local tensors, for H units of D parameters each, and output biases after them.

    ``order`` (P,) are the network's parameters in that order.
    """

    def __init__(self, layout: UnitLayout) -> None:
        self.units, self.one, self.biases, self.order = layout.units, layout.one, layout.biases, layout.order
        self.nodes = layout.nodes
        d, h = self.one, self.units
        #: Delta three times, twice and once in another unit than v: at (l, …, j, …), v's indices last.
        self._three = np.zeros((h, d, d, d, h, d, d))
        self._two = np.zeros((h, d, d, h, d, d, d))
        self._once = np.zeros((h * d + self.biases, h, d, d, d, d))
        #: One of delta and one of v in j; the others in l.
        self._crossed = np.zeros((h, d, d, h, d, d, d))
        #: All in one unit.
        self._same = np.zeros((h, d, d, d, d, d))

    def add_forms(self, r1: FloatArray, r2: FloatArray, r3: FloatArray, y0: FloatArray, y1: FloatArray, y2: FloatArray) -> None:
        """The sum over rows of r3 y0 + r2 y1 + r1 y2, for r1 (rows, P), r2 and r3 of the units, and their symmetric forms y."""
        self._three += np.tensordot(r3, y0, (0, 0))
        self._two += np.tensordot(r2, y1, (0, 0))
        self._once += np.tensordot(r1, y2, (0, 0))

    def add_same(self, of_square: FloatArray, square: FloatArray, of_mixed: FloatArray, mixed: FloatArray) -> None:
        """The sum of cubic forms (rows, H, D, D, D) times forms in v (rows, D, D)."""
        self._same += np.tensordot(of_square, square, (0, 0)) + np.tensordot(of_mixed, mixed, (0, 0))

    def add_squares(self, d1: FloatArray, d2: FloatArray) -> None:
        """The sum of 2 (d1 . v) (d2 . v)."""
        self._crossed += np.tensordot(2.0 * d1, d2, (0, 0))

    @property
    def columns(self) -> int:
        """At least as many as M M' sums over."""
        return int(self.order.size) ** 3

    def square(self) -> FloatArray:
        """M M' (P², P²) in the network's order of the parameters."""
        return self.pairs().dense(self.order)

    def pairs(self) -> PairMatrix:
        """M M' in pairs of units."""
        found = PairMatrix.zero(self.nodes)
        for j in range(self.units):
            self._add_alone(j, found)
            for l in range(j):  # noqa: E741 - as in the formulas
                self._add_pair(j, l, found)
        return found.symmetrised()

    def _all_in(self, j: int) -> FloatArray:
        """T within a unit (k, l, m, a, b)."""
        found = self._same[j] + self._three[j, :, :, :, j] + self._two[j, :, :, j].copy()
        own = slice(j * self.one, (j + 1) * self.one)
        found += self._once[own, j]
        found += self._crossed[j, :, :, j].transpose(0, 2, 3, 1, 4)
        mean = sum((found.transpose(*order, 3, 4) for order in permutations(range(3))), np.zeros_like(found)) / 6.0
        mean = 0.5 * (mean + mean.swapaxes(3, 4))
        return np.asarray(mean)

    def _once_in(self, l: int, j: int) -> FloatArray:  # noqa: E741
        """T for delta once in l, where l or m is in l, and all else in j: with l's index first (l, k, m, a, b)."""
        return self._once[l * self.one : (l + 1) * self.one, j] / 2.0

    def _add_alone(self, j: int, found: PairMatrix) -> None:
        """The columns with indices in j alone, and those with an output's bias besides."""
        d = self.one
        # (k, a, l, m, b)
        blocks = [self._crossed[l, :, :, j] / 6.0 for l in range(self.units)]  # noqa: E741
        blocks[j] = self._all_in(j).transpose(0, 3, 1, 2, 4)
        matrix = np.concatenate([_folded(block).reshape(d * d, -1) for block in blocks])
        core = found.core[: self.units, :, : self.units]
        core += (matrix @ matrix.T).reshape(core.shape)
        if self.biases:
            # The bias as one of the columns' indices of delta, in either place.
            beside = (self._once[self.units * d :, j] / 2.0).transpose(1, 3, 0, 2, 4).reshape(d * d, -1)
            found.core[j, :, j] += 2.0 * (beside @ beside.T)

    def _add_pair(self, j: int, l: int, found: PairMatrix) -> None:  # noqa: E741
        """The columns with indices in both of two units."""
        d, pair = self.one, (j, l)
        rows, (at, _) = d * d, found.nodes.pair(j, l)
        columns = []
        for p, q, b in ((0, 0, 1), (1, 1, 0), (0, 1, 0), (0, 1, 1)):
            blocks = np.zeros((2, 2, d, d, d, d, d))  # at k, a, l, m, b of the units k and a
            for k, a in product((0, 1), repeat=2):
                block = self._block(pair, (k, p, q), (a, b))
                if block is not None:
                    blocks[k, a] = block.transpose(0, 3, 1, 2, 4)
            columns.append((_folded(blocks) if p == q else np.sqrt(2.0) * blocks).reshape(4 * rows, -1))
        matrix = np.concatenate(columns, axis=1)
        square = (matrix @ matrix.T).reshape((2, 2, rows) * 2)
        for k, a, p, b in product((0, 1), repeat=4):
            # (j, l) is the first node of a leaf, and (j, j) the first that it meets.
            first, second = slice(k * rows, (k + 1) * rows), slice(p * rows, (p + 1) * rows)
            if k == a and p == b:
                found.core[pair[k], :, pair[p]] += square[k, a, :, p, b]
            elif k != a:
                into = found.leaves if p != b else found.crossed
                into[at, first, second] += square[k, a, :, p, b]

    def _block(self, pair: tuple[int, int], delta: tuple[int, int, int], v: tuple[int, int]) -> FloatArray | None:
        """T (k, l, m, a, b) for indices in these units of a pair, both among them."""
        if v[0] == v[1]:
            j, l = pair[v[0]], pair[1 - v[0]]  # noqa: E741
            away = [at for at in range(3) if delta[at] != v[0]]
            home = [at for at in range(3) if delta[at] == v[0]]
            if len(away) == 3:
                return self._three[l, :, :, :, j]
            if away == [0]:
                return None
            block = self._once_in(l, j) if len(away) == 1 else self._two[l, :, :, j] / 3.0
            return block.transpose(*np.argsort([*away, *home]), 3, 4)
        alone = [at for at in range(3) if delta.count(delta[at]) == 1]
        if not alone:  # all of delta in one unit
            return None
        (once,) = alone
        j, l = pair[delta[once]], pair[1 - delta[once]]  # noqa: E741
        block = self._crossed[j, :, :, l].transpose(0, 2, 3, 1, 4) / 6.0  # one of delta, two, v in j, v in l
        twice = [at for at in range(3) if at != once]
        places = (3, 4) if v[0] == delta[once] else (4, 3)
        return block.transpose(*np.argsort([once, *twice]), *places)


def _folded(x: FloatArray) -> FloatArray:
    """For x (…, l, m, b) symmetric in l and m those with l <= m alone, as long as both together."""
    low, high = np.triu_indices(x.shape[-2])
    return np.asarray(x[..., low, high, :] * np.where(low < high, np.sqrt(2.0), 1.0)[:, None])
