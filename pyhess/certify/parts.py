"""The sizes of a direction's parts that the moment bound's forms are in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..model import MLP
from .intervals import ROOT_TINY, gamma
from .propagate import Propagation

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Parts:
    """Columns of the forms: one for every layer, or one for its weights and one for its biases between the first and last layer.

    ``weight`` and ``bias`` are every layer's columns; they agree where weights and biases have one size t between them. The first
    layer's enter through y_i together, and nothing in the residual part depends on the last biases.
    """

    weight: list[int]
    bias: list[int]

    @staticmethod
    def of(net: MLP, *, apart: bool) -> Parts:
        layers = list(range(net.num_layers))
        if not (apart and net.bias):
            return Parts(layers, layers)
        weight = [max(0, 2 * layer - 1) for layer in layers]
        return Parts(weight, [2 * layer for layer in layers[:-1]] + weight[-1:])

    @property
    def count(self) -> int:
        return self.bias[-1] + 1

    def spread(self, of_layers: FloatArray) -> FloatArray:
        """A number for every column, from one for every layer."""
        values = np.empty(self.count)
        values[self.weight], values[self.bias] = of_layers, of_layers
        return values

    def own(self, bounds: Propagation, layer: int) -> FloatArray:
        """|V (a, 1)| of the layer's own direction, as a form (n, columns)."""
        norm = bounds.entering_norm[layer]
        form = np.zeros((*norm.shape, self.count))
        weight, bias = self.weight[layer], self.bias[layer]
        form[..., weight] = norm
        if weight != bias:
            form[..., weight], form[..., bias] = without_one(norm, bias=True), 1.0
        return form


def without_one(values: FloatArray, *, bias: bool) -> FloatArray:
    """|a| from |(a, 1)|."""
    if not bias:
        return values
    length: FloatArray = np.sqrt(np.maximum(0.0, (values - 1.0) * (values + 1.0))) * (1.0 + gamma(8)) + ROOT_TINY
    return length
