"""One hidden layer: the residual part's block of one unit as a matrix, less what its data may change; any number of inputs.

Without the Gauss–Newton part the Hessian is block diagonal over the hidden units. With the direction's parts p in (u, b) and q
in v, and for every datum a lower bound a_i of (r_i.v) phi''(s_i) and an enclosure B_i ± D_i of phi'(s_i) r_i,

    v'Rv >= mean a_i (x~_i.p)² + 2 mean (x~_i.p) (B_i.q) - 2 mean |x~_i.p| (D_i.|q|),
    2 |x~_i.p| (D_i.|q|) <= tau_i (x~_i.p)² + (D_i.|q|)² / tau_i,        |q|'N|q| <= sum_k (N w)_k / w_k q_k²,

for any tau_i > 0 and w > 0. The B_i may cancel in the mean, and the D_i meet the data's second moments, not their sizes: what
entrywise intervals and the norms of the moment bound lose. tau and w come from the eigenvector of the bound before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..data import Dataset
from .intervals import TINY, Interval, gamma, norms
from .moment import data_blocks
from .propagate import Cell, propagate
from .spectral import eigval_min_bound

FloatArray = npt.NDArray[np.float64]

#: Matrices per unit; smallest |x~.p| in tau, relative to its root mean square.
_STEPS, _SMALLEST = 6, 1e-3


class _Data(NamedTuple):
    """What the units' blocks need of every datum, units of one kind once: shapes (n, …)."""

    x: FloatArray
    weights: FloatArray
    curved: FloatArray  # (n, T) lower ends of (r.v) phi''
    slope: Interval  # (n, T)
    residual: Interval  # (n, K)
    peak: FloatArray  # (n,) sup |r| max phi'


def blocks_cost(cell: Cell, num_samples: int) -> float:
    """Multiplications of `block_bound`, roughly."""
    net = cell.net
    return float(_STEPS * len(_kinds(cell)) * num_samples) * float(net.widths[0] + 1 + net.widths[2]) ** 2


def _kinds(cell: Cell) -> npt.NDArray[np.int64]:
    """One unit of every kind: with the same ranges, or the same centre in a ball."""
    hidden, out = cell.blocks
    rows = np.hstack([
        hidden.weight.lo, hidden.weight.hi, hidden.bias.lo[:, None], hidden.bias.hi[:, None], out.weight.lo.T, out.weight.hi.T
    ])  # fmt: skip
    return np.unique(rows, axis=0, return_index=True)[1].astype(np.int64)


def block_bound(cell: Cell, data: Dataset, targets: FloatArray, loss: str, cancelled: npt.NDArray[np.int32]) -> float | None:
    """Lower bound of psi over a cell of a network with one hidden layer; None if cancelled."""
    kinds = _kinds(cell)
    parts = []
    for x, y, w in data_blocks(cell, data, targets):
        if cancelled[0]:
            return None
        bounds = propagate(cell, x, y, loss)
        assert bounds.joint is not None
        inputs = np.hstack([x, np.ones((len(x), 1))]) if cell.net.bias else x
        parts.append(
            _Data(inputs, w, bounds.curved[0].lo[:, kinds], bounds.slope[0][:, kinds], bounds.delta[-1], bounds.joint.peak)
        )
    everything = _joined(parts)
    lowest = 0.0
    for unit in range(kinds.size):
        if cancelled[0]:
            return None
        lowest = min(lowest, _unit_bound(everything, unit, cell.net.layer_scales))
    return lowest


def _joined(parts: list[_Data]) -> _Data:
    def both(intervals: list[Interval]) -> Interval:
        return Interval(np.concatenate([i.lo for i in intervals]), np.concatenate([i.hi for i in intervals]))

    return _Data(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.curved for part in parts]),
        both([part.slope for part in parts]),
        both([part.residual for part in parts]),
        np.concatenate([part.peak for part in parts]),
    )


def _unit_bound(data: _Data, unit: int, scales: tuple[float, ...]) -> float:
    x, (n, dim) = data.x, data.x.shape
    mixed = data.slope[:, unit][:, None] * data.residual
    limit = data.peak[:, None]
    mixed = Interval(np.maximum(mixed.lo, -limit), np.minimum(mixed.hi, limit))
    low, middle, radius = data.curved[:, unit], mixed.middle, mixed.radius
    outputs, w = middle.shape[1], data.weights
    lengths, radii = norms(x), norms(radius)
    off = (x * w[:, None]).T @ middle
    factor = np.concatenate([np.full(dim, scales[0]), np.full(outputs, scales[1])])
    room = gamma(n + dim + outputs + 160)
    off_error = room * float((w * lengths * norms(middle)).sum())
    # The first direction: none is better than another, so sizes only.
    tau, weights = radii / max(float(np.sqrt((w * lengths**2).sum())), TINY), np.ones(outputs)
    best = -np.inf
    for _ in range(_STEPS):
        tau = np.where(radii > 0.0, np.maximum(tau, 1e-6 * radii + TINY), 0.0)
        inverse = np.where(radii > 0.0, w / np.where(tau > 0.0, tau, 1.0), 0.0)
        # sum_k |q_k| D_k: its square is |q|'N|q|, N = mean D D' / tau >= 0
        taken = (radius.T @ (inverse * (radius @ weights))) / weights * (1.0 + room)
        kept = w * (low - tau)
        matrix = np.zeros((dim + outputs, dim + outputs))
        matrix[:dim, :dim] = (x * kept[:, None]).T @ x
        matrix[:dim, dim:], matrix[dim:, :dim] = off, off.T
        matrix[dim:, dim:] = -np.diag(taken)
        error = room * float((w * (np.abs(low) + tau) * lengths**2).sum()) + off_error + (n + 2.0) * TINY
        matrix *= np.outer(factor, factor)
        largest = float(factor.max()) ** 2
        if not (np.isfinite(matrix).all() and np.isfinite(error)):
            break
        found = eigval_min_bound(matrix) - error * largest * (1.0 + gamma(16)) - gamma(16) * float(np.abs(matrix).sum())
        if found <= best + 1e-4 * abs(best):
            best = max(best, found)
            break
        best = found
        direction = factor * np.linalg.eigh(matrix)[1][:, 0]
        along, size = np.abs(x @ direction[:dim]), np.abs(direction[dim:])
        along = np.maximum(along, _SMALLEST * float(np.sqrt((w * along**2).sum())) + TINY)
        weights = np.maximum(size, 1e-6 * float(size.max(initial=0.0)) + TINY)
        tau = np.sqrt(tau * (radius @ weights) / along)
    return best
