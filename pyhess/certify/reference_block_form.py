"""Forms of a network with one hidden layer, without what is zero in them, for checking certificates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .reference_interval import Wide, wide, zeros
from .reference_unit_groups import Groups, Node

FloatArray = npt.NDArray[np.float64]


class BlockForm:
    """What `whole_matrix` needs of a form, of which only the head and the rest have all their entries.

    The half is ``bent`` (y, k of all, a, b) with a and b in the unit y, and ``root`` (y, k, a, b of all) with k and a in it; the
    tail is in blocks of two nodes (k, a) and (l, b).
    """

    def __init__(self, groups: Groups) -> None:
        (units, width), size = groups.units.shape, groups.size
        self.groups = groups
        self.head, self.rest = (zeros((size, size)) for _ in range(2))
        self.bent, self.root = zeros((units, size, width, width)), zeros((units, width, width, size))
        self._tail: dict[tuple[Node, Node], FloatArray] = {}

    def add_tail(self, node: Node, other: Node, numbers: FloatArray) -> None:
        """A block (k, a, l, b)."""
        known = self._tail.get((node, other))
        self._tail[node, other] = numbers if known is None else known + numbers

    @property
    def half(self) -> Wide:
        """All entries (k, a, b)."""
        size = self.groups.size
        found = zeros((size,) * 3)
        for bent, root, places in zip(self.bent, self.root, self.groups.units, strict=True):
            found[np.ix_(np.arange(size), places, places)] += bent
            found[np.ix_(places, places, np.arange(size))] += root
        return found

    def half_rows(self, node: Node) -> Wide:
        """The rows (k, a) of a node, a matrix of P columns b."""
        (g, h), groups = node, self.groups.all
        found = zeros((len(groups[g]), len(groups[h]), self.groups.size))
        if h < len(self.bent):
            found[:, :, groups[h]] += self.bent[h, groups[g]]
            if g == h:
                found += self.root[g]
        return found.reshape(-1, self.groups.size)

    def tail_rows(self, k: int) -> Wide:
        """The rows (k, a) of the symmetric part of F_kalb, a matrix of P² columns (l, b)."""
        size, groups, own, at = self.groups.size, self.groups.all, self.groups.holder[k], self.groups.within[k]
        found = np.zeros((size,) * 3)
        for ((one, a), (other, b)), numbers in self._tail.items():
            if one == own:
                found[np.ix_(groups[a], groups[other], groups[b])] += 0.5 * numbers[at]
            if other == own:
                found[np.ix_(groups[b], groups[one], groups[a])] += 0.5 * numbers[:, :, at].transpose(2, 0, 1)
        return wide(found.reshape(size, -1))

    def tail_block(self, node: Node, other: Node) -> FloatArray | None:
        """The rows of a node of the symmetric part, with the columns of another; None if they are zero."""
        straight, crossed = self._tail.get((node, other)), self._tail.get((other, node))
        rows, columns = (self.groups.count(x) for x in (node, other))
        if straight is None and crossed is None:
            return None
        found = np.zeros((rows, columns))
        if straight is not None:
            found += 0.5 * straight.reshape(rows, columns)
        if crossed is not None:
            found += 0.5 * crossed.reshape(columns, rows).T
        return found
