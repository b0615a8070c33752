"""What a ball's radius allows all units of a layer together, derived anew for checking certificates.

With the weights C at the centre, the differences d to the centre and the slopes g <= sup phi' below, by Cauchy and Schwarz

    |ds_j| <= rho |(a, 1)| + min(|C_j| |da|, |(C_jk g_k)_k| |ds below|),    |dbar_k| <= rho |delta| + |C_:k| |ddelta|,

where ranges unit by unit would count the whole radius for each of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .reference_interval import Range, Wide, down, length, up, wide, zeros
from .reference_output_slopes import OutputSlopes, still_norm
from .reference_ranges import activation, loss_gradient
from .reference_shared import Rows

if TYPE_CHECKING:
    from .reference_hessian import Cells, Problem


class CommonRadius:
    """One part (B = 1) of a ball for inputs (n, d), or one for each of them (B = n)."""

    def __init__(self, problem: Problem, cells: Cells, x: Wide) -> None:
        self._problem, self._cells = problem, cells
        self._at: list[Range] = []
        self._a, self._delta = Range(x), Range(x)
        self._slopes: list[Wide] = []
        self._moves: list[Wide] = []
        self._ds, self._da, self._ddelta = zeros(len(x)), zeros(len(x)), zeros(len(x))

    def forwards(self, layer: int, s: Range, entering: Wide) -> Range:
        """The layer's pre-activations, from their ranges so far and sup |(a, 1)|."""
        problem, w = self._problem, self._cells.w[layer]
        at = (w * self._a[:, None, :]).sum(-1) + self._cells.b[layer]
        own = up(self._cells.rho[layer] * entering)
        move = up(length(w.size()) * self._da[:, None])
        if layer > 0:
            move = np.minimum(move, up(length(up(w.size() * self._slopes[-1][:, None, :])) * self._ds[:, None]))
        self._moves.append(move)
        s = _about(s, at, up(own[:, None] + move))
        self._ds = np.minimum(length((s - at).size()), up(own + up(still_norm(self._cells, layer) * self._da)))
        self._at.append(at)
        if layer < problem.layers - 1:
            name, beta = problem.activations[layer], problem.betas[layer]
            self._a = activation(name, beta, 0, at)
            self._slopes.append(activation(name, beta, 1, s).size())
            apart = length((activation(name, beta, 0, s) - self._a).size())
            self._da = np.minimum(apart, up(self._slopes[-1].max(axis=1) * self._ds))
        return s

    def outputs(self, f: Range, through: OutputSlopes, entering: list[Wide], own: Wide) -> Range:
        """The outputs, from their ranges so far; all hidden layers' slopes are known."""
        f = through.outputs(f, self._at[-1], entering, own)
        self._ds = np.minimum(self._ds, length((f - self._at[-1]).size()))
        return f

    def rows(self, layer: int, entering: Wide) -> Rows:
        """What enters a layer's units; ``entering`` bounds |(a, 1)|."""
        slopes = self._slopes[layer - 1]
        relative = Range(slopes) / Range(np.maximum(slopes.max(axis=1), wide(1e-300)))[:, None]
        rows = length((Range(self._cells.w[layer].size()) * relative[:, None, :]).hi)
        rho = np.broadcast_to(self._cells.rho[layer], (len(slopes),))
        return Rows(rows, rho, entering, self._at[layer], np.broadcast_to(self._moves[layer], rows.shape))

    def turn(self, residual: Range, y: Wide) -> None:
        """Begin backwards with the loss's gradient."""
        self._delta = loss_gradient(self._problem.loss, self._at[-1], Range(y))
        self._ddelta = length((residual - self._delta).size())
        if self._problem.loss == "squared_error":
            self._ddelta = np.minimum(self._ddelta, self._ds)

    def backwards(self, layer: int, bar: Range, slope: Range, delta: Range, delta_norm: Wide) -> Range:
        """The layer's dL/da, from their ranges so far and those of the layer above."""
        w = self._cells.w[layer + 1]
        at = (w * self._delta[:, :, None]).sum(1)
        ddelta = np.minimum(self._ddelta, length((delta - self._delta).size()))
        own = up(self._cells.rho[layer + 1] * delta_norm)
        columns = length(np.swapaxes(w.size(), 1, 2))
        bar = _about(bar, at, up(own[:, None] + up(columns * ddelta[:, None])))
        steep = activation(self._problem.activations[layer], self._problem.betas[layer], 1, self._at[layer])
        move = np.minimum(length((bar - at).size()), up(own + up(still_norm(self._cells, layer + 1) * ddelta)))
        turned = length(up((slope - steep).size() * at.size()))
        self._ddelta = up(up(slope.size().max(axis=1) * move) + turned)
        self._delta = at * steep
        return bar


def moved(value: Range, rho: Wide, norm: Wide) -> Range:
    """Sums of W's rows or columns with a vector of that norm, W's change allowed for (Cauchy and Schwarz)."""
    if not rho.any():
        return value
    reach = up(rho * norm)[:, None]
    return Range(down(value.lo - reach), up(value.hi + reach))


def _about(x: Range, centre: Range, reach: Wide) -> Range:
    """The part of x within reach of the centre."""
    return Range(np.maximum(x.lo, down(centre.lo - reach)), np.minimum(x.hi, up(centre.hi + reach)))
