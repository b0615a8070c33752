"""How a ball's radius is shared out among the layers.

A point of the ball has layer blocks at distances rho_l from the centre's with sum rho_l² <= R². Bounds are increasing in every
rho_l, so the simplex of shares u_l = rho_l²/R² is cut into boxes, each bounded at its upper corner; the box with the worst bound
is cut again, best first. Every state of the cutting is a cover, so its worst bound is valid at any time.

The output biases move all residuals alike, and weigh more than other parameters. `ball_subdivision` cuts their intervals as well.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from ..regions import Ball
from .intervals import Interval, gamma
from .propagate import BallCells, Cell
from .subdivision import Subdivision

FloatArray = npt.NDArray[np.float64]

#: Relative improvement of the worst bound below which further cuts, as many as made so far, are not worth their time.
_WORTHWHILE = 0.002


def _corner(low: FloatArray, high: FloatArray) -> FloatArray | None:
    """The largest shares in the box [low, high] of the simplex, or None if they do not meet."""
    rest = 1.0 - low.sum()
    if rest < -1e-12:
        return None
    # Rounding up: the shares cover the ball if their sum may exceed one a little.
    corner: FloatArray = np.minimum(high, low + max(rest, 0.0)) * (1.0 + 1e-12) + 1e-15
    return corner


def worst_over_ball(
    bound: Callable[[FloatArray], float | None], layers: int, radius: float, max_cells: int
) -> tuple[float, int] | None:
    """(smallest lower bound over a cover of the ball, cells evaluated); None if ``bound`` was cancelled before the first result.

    ``bound(radii)`` is a lower bound of psi where layer l's block is within radii[l] of the centre; None means cancelled, which
    ends the cutting with the cover at hand.
    """

    def evaluate(low: FloatArray, high: FloatArray) -> tuple[bool, float]:
        corner = _corner(low, high)
        if corner is None:
            return False, np.inf
        value = bound(radius * np.sqrt(corner) * (1.0 + gamma(8)))
        return value is None, np.inf if value is None else value

    low, high = np.zeros(layers), np.ones(layers)
    cancelled, value = evaluate(low, high)
    if cancelled:
        return None
    heap = [(value, 0, low, high)]
    count = 1
    checkpoint, reference = 8, value
    while count < max_cells and heap[0][0] < 0.0 and np.isfinite(heap[0][0]):
        worst, _, low, high = heap[0]
        # The simplex ends at 1 - (the other shares), so boxes are cut along their longest side inside it.
        side = int(np.argmax(np.minimum(high, low + 1.0 - low.sum()) - low))
        middle = 0.5 * (low[side] + min(high[side], low[side] + 1.0 - float(low.sum())))
        parts = []
        for part_low, part_high in ((low[side], middle), (middle, high[side])):
            new_low, new_high = low.copy(), high.copy()
            new_low[side], new_high[side] = part_low, part_high
            cancelled, value = evaluate(new_low, new_high)
            if cancelled:
                return heap[0][0], count
            count += 1
            # A part cannot be worse than the whole, whatever rounding says.
            parts.append((max(value, worst), count, new_low, new_high))
        heapq.heappop(heap)
        for entry in parts:
            if np.isfinite(entry[0]):
                heapq.heappush(heap, entry)
        if count >= checkpoint:
            if heap[0][0] <= reference * (1.0 - _WORTHWHILE):
                break
            checkpoint, reference = 2 * count, heap[0][0]
    return heap[0][0], count


#: Most output biases that are cut.
MAX_BIASES = 4


def ball_subdivision(bounds_of: Callable[[Cell], FloatArray], obj: Objective, region: Ball, batch: int) -> Subdivision:
    """Branch and bound over the output biases' offsets (in units of R) and the layers' shares of the radius.

    ``bounds_of`` bounds a stack of at most ``batch`` cells. The last layer's share is that of its weights alone. Where the biases
    are not cut yet, weights and biases share a radius.
    """
    net, radius = obj.net, float(region.radius)
    slot = net.layer_slices[-1][1]
    middle = region.center[slot] if slot is not None else np.zeros(0)
    outputs, layers = middle.size, net.num_layers
    allowance = 1.0 + 1e-12
    make = BallCells(net, region)

    def evaluate(lows: FloatArray, highs: FloatArray, bounds: FloatArray, splits: npt.NDArray[np.int64]) -> None:
        start, end = lows[:, :outputs], highs[:, :outputs]
        least = lows[:, outputs:]
        nearest = np.maximum(0.0, np.maximum(start, -end))
        rest = 1.0 - (nearest**2).sum(axis=1, keepdims=True) - least.sum(axis=1, keepdims=True)
        shares = np.minimum(highs[:, outputs:], least + np.maximum(rest, 0.0)) * allowance + 1e-15
        # The simplex ends where the shares are used up.
        splits[:] = np.argmax(np.concatenate([0.5 * (end - start), np.sqrt(shares) - np.sqrt(least)], axis=1), axis=1)
        whole = (start == -1.0).all(axis=1) & (end == 1.0).all(axis=1)
        shares[whole, -1] = (1.0 - least[whole, :-1].sum(axis=1)) * allowance + 1e-15
        radii = radius * np.sqrt(np.maximum(shares, 0.0)) * (1.0 + gamma(8))
        # An offset has what the shares and the other offsets leave.
        most = np.sqrt(np.maximum(0.0, rest + nearest**2)) * allowance + 1e-15
        slack = 1e-12 * (radius + np.abs(middle)) + 1e-300
        lowest = middle + radius * np.minimum(np.maximum(start, -most), np.minimum(end, most)) - slack
        highest = middle + radius * np.maximum(np.maximum(start, -most), np.minimum(end, most)) + slack
        inside = rest[:, 0] >= -1e-12
        bounds[:] = np.inf
        for kind in (whole, ~whole):
            chosen = np.flatnonzero(inside & kind)
            for begin in range(0, chosen.size, batch):
                some = chosen[begin : begin + batch]
                biases = None if kind is whole else Interval(lowest[some], highest[some])
                bounds[some] = bounds_of(make(radii[some], biases))

    low = np.concatenate([np.full(outputs, -1.0), np.zeros(layers)])
    return Subdivision(evaluate, low, np.ones(outputs + layers), piece=batch)
