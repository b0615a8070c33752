"""The second-order terms of networks with one hidden layer, unit by unit, and their matrices in pairs of units.

A term delta_k v_a delta_l v_b has the indices b and l of one unit j, and k and a in j or one of them in another unit or an output
bias; or k and l in one unit and a and b in another; or, of the squares, k and a in one and l and b in another.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .taylor_pairs import PairMatrix
from .taylor_unit_forms import UnitLayout

FloatArray = npt.NDArray[np.float64]


class UnitTails:
    """Sums over the rows, for H units of D parameters and output biases after them."""

    def __init__(self, layout: UnitLayout) -> None:
        h, d = layout.units, layout.one
        self.nodes, self._order = layout.nodes, layout.order
        #: r1 z1 and r0 z2: at (k, j, l, a, b) and (j, k, l, a, b).
        self.slopes, self.own = np.zeros((layout.size, h, d, d, d)), np.zeros((h, d, d, d, d))
        #: r2 z0, k and l in m, a and b in j: at (m, k, l, j, a, b).
        self.apart = np.zeros((h, d, d, h, d, d))
        #: 2 d0 d2 at (a, j, k, l, b), and d1 d1 of the squares at (j, k, a, m, l, b).
        self.roots, self.squares = np.zeros((layout.size, h, d, d, d)), np.zeros((h, d, d, h, d, d))

    def matrices(self) -> tuple[PairMatrix, PairMatrix]:
        """Of the residual part and of the squares."""
        nodes, found, squares = self.nodes, PairMatrix.zero(self.nodes), PairMatrix.zero(self.nodes)
        units, d = len(self.own), nodes.one
        flat = (d * d, d * d)
        for j in range(units):
            here = (j, j)
            found.add_node(here, here, self.own[j].transpose(0, 2, 1, 3).reshape(flat))
            for g in range(nodes.groups):
                # (k, l, a, b) of k in g, and (a, k, l, b) of a in g.
                slopes, roots = (_slots(x[g * d : (g + 1) * d, j], d) for x in (self.slopes, self.roots))
                found.add_node((g, j), here, slopes.transpose(0, 2, 1, 3).reshape(flat))
                found.add_node((j, g), here, roots.transpose(1, 0, 2, 3).reshape(flat))
            for m in range(units):
                found.add_node((m, j), (m, j), self.apart[m, :, :, j].transpose(0, 2, 1, 3).reshape(flat))
                squares.add_node(here, (m, m), self.squares[j, :, :, m].reshape(flat))
        return found, squares

    def sizes(self) -> tuple[FloatArray, FloatArray]:
        """Entries at a and b of the lengths of both matrices' parts over k and l (P, P), in the network's order, or more."""
        units, d = len(self.own), self.nodes.one
        found, squares = (np.zeros((self.nodes.size,) * 2) for _ in range(2))
        for j in range(units):
            own = slice(j * d, (j + 1) * d)
            found[own, own] += np.sqrt((self.own[j] ** 2).sum(axis=(0, 1))) + np.sqrt((self.slopes[:, j] ** 2).sum(axis=(0, 1)))
            found[own, own] += np.sqrt((self.apart[:, :, :, j] ** 2).sum(axis=(0, 1, 2)))
            found[:, own] += np.sqrt((self.roots[:, j] ** 2).sum(axis=(1, 2)))
            for m in range(units):
                squares[own, m * d : (m + 1) * d] += np.sqrt((self.squares[j, :, :, m] ** 2).sum(axis=(0, 2)))
        back = np.ix_(np.argsort(self._order), np.argsort(self._order))
        return found[back], squares[back]


def _slots(x: FloatArray, one: int) -> FloatArray:
    """With zeros for the slots that a group does not use."""
    found = np.zeros((one, *x.shape[1:]))
    found[: len(x)] = x
    return found
