"""How the outputs move with the activations of the hidden layers, derived anew for checking certificates.

Write J for df/da of a hidden layer: W of the output layer for the last one, and (J diag g) W below, g = phi' of the layer above.
Where W = C + d with |d| <= rho in the Frobenius norm, J = J0 + dJ with J0 from the C alone. For every output the row dJ has at
most the length m, m = rho of the output layer for the last hidden one, and below

    m <- |C| (max g) m + rho |(J diag g)|,    while its entry k is at most |(C_jk g_j)_j| m + rho |(J diag g)|.

With the layers moved in turn from the first, those above are still where they were, so

    |f - f at the centre| <= rho_D |(a, 1)| + sum over the hidden layers of rho |(a below, 1)| |(J0 diag g)|.

And dL/da = sum over the outputs of dL/df_o times row o of J.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .reference_interval import Range, Wide, down, length, up

if TYPE_CHECKING:
    from .reference_hessian import Cells, Problem

#: Outputs up to which this is looked at.
_OUTPUTS = 4


def applies(problem: Problem) -> bool:
    """Whether a certificate may have been found with it."""
    return problem.layers > 2 and problem.widths[-1] <= _OUTPUTS


def still_norm(cells: Cells, layer: int) -> Wide:
    """|C|: the norms of the cells hold the radius as well."""
    if cells.norms:
        return up(cells.norms[layer][0] - cells.rho[layer])
    return length(cells.w[layer].size().reshape(1, -1))


class OutputSlopes:
    """J for every hidden layer, (data or cells, K, m), from ranges of g (data or cells, m)."""

    def __init__(self, cells: Cells, slopes: list[Range]) -> None:
        self._cells = cells
        still, moved = cells.w[-1], cells.rho[-1][:, None]
        self._rows = [_wider(still, moved[:, :, None])]
        self._turned: list[Wide] = []
        for layer in range(len(slopes) - 1, -1, -1):
            g = slopes[layer]
            turned = still * g[:, None, :]
            self._turned.insert(0, length(turned.size()))
            if layer == 0:
                break
            w, rho = cells.w[layer], cells.rho[layer][:, None]
            still = (turned[:, :, :, None] * w[:, None, :, :]).sum(2)
            steepest = g.size().max(axis=1)[:, None]
            own = up(rho * up(self._turned[0] + up(steepest * moved)))
            columns = length(up(np.swapaxes(w.size(), 1, 2) * g.size()[:, None, :]))
            reach = up(up(columns[:, None, :] * moved[:, :, None]) + own[:, :, None])
            moved = up(up(up(still_norm(cells, layer)[..., None] * steepest) * moved) + own)
            self._rows.insert(0, _wider(still, reach))

    def outputs(self, f: Range, centre: Range, entering: list[Wide], own: Wide) -> Range:
        """The outputs, from their ranges so far and those at the centre, sup |(a, 1)|, and what the last radius multiplies."""
        move = up(self._cells.rho[-1] * own)[:, None]
        for layer, turned in enumerate(self._turned):
            move = up(move + up(up(self._cells.rho[layer] * entering[layer])[:, None] * turned))
        return _both(f, _wider(centre, move))

    def gradient(self, bar: Range, layer: int, residual: Range) -> Range:
        """dL/da of a hidden layer, from its ranges so far and dL/df (data or cells, K)."""
        return _both(bar, (residual[:, :, None] * self._rows[layer]).sum(1))


def _wider(x: Range, by: Wide) -> Range:
    return Range(down(x.lo - by), up(x.hi + by))


def _both(one: Range, other: Range) -> Range:
    return Range(np.maximum(one.lo, other.lo), np.minimum(one.hi, other.hi))
