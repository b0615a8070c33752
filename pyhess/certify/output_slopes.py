"""How the outputs move with the hidden layers: enclosures of df/da over a box or a cell of a ball.

With J^l = df/da^l, J^{D-1} = W^D and J^{l-1} = (J^l diag phi'(s^l)) W^l. In a ball W^l = C^l + d with |d| <= rho_l, and J is what
the C alone make, J0, plus a change whose rows have norms of at most dJ,

    dJ^{l-1} <= |C^l| max phi' dJ^l + rho_l |J^l diag phi'|,    |dJ^{l-1}_k| <= |(C^l_jk phi'_j)_j| dJ^l + rho_l |J^l diag phi'|.

They serve twice. Moved one layer after the other, from the first to the last, the outputs change by at most

    |f - f^c| <= rho_D |(a^{D-1}, 1)| + sum_{l<D} rho_l |(a^{l-1}, 1)| |J0^l diag phi'(s^l)|,

as all layers above the one that moves are still at the centre. And dL/da^l = sum_o r_o J^l_o, so that what is not known of r
counts with J^l, whose terms may cancel, and not with the norms of its factors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..model import MLP
from .intervals import ROOT_TINY, TINY, Interval, gamma, matmul, norms

if TYPE_CHECKING:
    from .propagate import Block

FloatArray = npt.NDArray[np.float64]

#: Outputs up to which this is looked at: it costs as much as that many passes backwards.
_OUTPUTS = 4


def output_slopes_know(net: MLP) -> bool:
    """Whether there is something to gain: two or more hidden layers, few outputs."""
    return net.num_layers > 2 and net.widths[-1] <= _OUTPUTS


class OutputSlopes:
    """J of every hidden layer (..., n, K, m), for the layers' blocks and the slopes phi' (..., n, m)."""

    def __init__(self, blocks: tuple[Block, ...], slopes: list[Interval]) -> None:
        room = 1.0 + gamma(32)
        self._blocks = blocks
        rho = blocks[-1].rho[..., None, None]
        still = blocks[-1].weight[..., None, :, :]
        moved = np.broadcast_to(rho[..., 0], (*slopes[0].lo.shape[:-1], still.lo.shape[-2]))
        self._whole = [still.widened(rho)]
        self._turned: list[FloatArray] = []
        for layer in range(len(slopes) - 1, -1, -1):
            slope, block = slopes[layer][..., None, :], blocks[layer]
            turned = still * slope
            self._turned.insert(0, norms(turned.magnitude))
            if layer == 0:
                break
            steepest = slope.magnitude.max(axis=-1)
            lead, fan_in = turned.lo.shape[:-1], block.weight.lo.shape[-1]
            still = matmul(turned.reshape(*lead[:-2], -1, turned.lo.shape[-1]), block.weight).reshape(*lead, fan_in)
            rho, size = block.rho[..., None], block.still[..., None]
            own = rho * (self._turned[0] + steepest * moved)
            squares = slopes[layer].magnitude ** 2 @ block.weight.magnitude**2
            columns = np.sqrt(squares)[..., None, :] * (1.0 + gamma(turned.lo.shape[-1] + 16)) + ROOT_TINY
            reach = (columns * moved[..., None] + own[..., None]) * room
            moved = (size * steepest * moved + own) * room
            self._whole.insert(0, still.widened(reach))

    def outputs(self, at: Interval, entering: list[FloatArray], own: FloatArray) -> Interval:
        """The outputs of a ball's cell, from those at the centre, sup |(a, 1)| (..., n), and what multiplies the last radius."""
        move = (self._blocks[-1].rho * own)[..., None]
        for block, norm, turned in zip(self._blocks, entering, self._turned, strict=False):
            move = move + (block.rho * norm)[..., None] * turned
        return at.widened(move * (1.0 + gamma(32)))

    def gradient(self, layer: int, residual: Interval) -> Interval:
        """dL/da of a hidden layer, from dL/df (..., n, K)."""
        products = residual[..., None] * self._whole[layer]
        lo, hi = (end.sum(axis=-2) for end in (products.lo, products.hi))
        outputs = products.lo.shape[-2]
        return Interval(lo, hi).widened(gamma(outputs + 2) * products.magnitude.sum(axis=-2) + TINY)
