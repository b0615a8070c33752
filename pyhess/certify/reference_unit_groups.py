"""The groups of a one-hidden-layer network's parameters, for checking certificates.

A group is a unit's weights, bias and output weights; the outputs' biases, if there are any, are the last one. A node (g, h) is
all rows (k, a) with k in g and a in h.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .reference_hessian import Problem

Places = npt.NDArray[np.int64]
#: The groups of k and a.
Node: TypeAlias = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Groups:
    """The places of all groups among the parameters: of the units (H, D), and of the outputs' biases (K,) or (0,)."""

    units: Places
    biases: Places

    @staticmethod
    def of(problem: Problem) -> Groups:
        """Of a network with one hidden layer."""
        inputs, units, outputs = problem.widths
        unit = np.arange(units)[:, None]
        parts = [problem.weight_at[0] + inputs * unit + np.arange(inputs)]
        if problem.bias:
            parts.append(problem.bias_at[0] + unit)
        parts.append(problem.weight_at[1] + units * np.arange(outputs) + unit)
        return Groups(np.concatenate(parts, axis=1), problem.bias_at[1] + np.arange(outputs if problem.bias else 0))

    @cached_property
    def all(self) -> list[Places]:
        """The places of each."""
        return [*self.units, *([self.biases] if len(self.biases) else [])]

    @property
    def size(self) -> int:
        """Parameters."""
        return self.units.size + len(self.biases)

    @cached_property
    def holder(self) -> Places:
        """Every parameter's group."""
        found = np.zeros(self.size, dtype=np.int64)
        for group, places in enumerate(self.all):
            found[places] = group
        return found

    @cached_property
    def within(self) -> Places:
        """Every parameter's place in its group."""
        found = np.zeros(self.size, dtype=np.int64)
        for places in self.all:
            found[places] = np.arange(len(places))
        return found

    def count(self, node: Node) -> int:
        """Rows of a node."""
        return len(self.all[node[0]]) * len(self.all[node[1]])

    def rows(self, node: Node) -> Places:
        """The places of a node's rows among all P²."""
        k, a = (self.all[group] for group in node)
        found: Places = (k[:, None] * self.size + a).ravel()
        return found
