"""One hidden layer: the residual part's block of one unit as a matrix, less what its data may change; any number of inputs.

Without the Gauss–Newton part the Hessian is block diagonal over the hidden units. With the direction's parts p in (u, b) and q
in v, and for every datum a lower bound a_i of (r_i.v) phi''(s_i) and an enclosure B_i ± D_i of phi'(s_i) r_i,

    v'Rv >= mean a_i (x~_i.p)² + 2 mean (x~_i.p) (B_i.q) - 2 mean |x~_i.p| (D_i.|q|),
    2 |x~_i.p| (D_i.|q|) <= tau_i (x~_i.p)² + (D_i.|q|)² / tau_i,        |q|'N|q| <= sum_k (N w)_k / w_k q_k²,

for any tau_i > 0 and w > 0. The B_i may cancel in the mean, and the D_i meet the data's second moments, not their sizes: what
entrywise intervals and the norms of the moment bound lose. tau and w come from the eigenvector of the bound before.

With the cross-entropy the entries of r_i sum to zero, so that q may be taken to sum to zero, and the mean of B_i's entries is
taken off. For a label y the residual is p - e_y with p in the simplex, and B_i =
g (1/K - e_y) has, with z = 1 - p_y and the other p_k <= u,

    |phi' r - B|² <= phi'² (z² + z u) - 2 g phi' z + g² (1 - 1/K),

which is convex in phi' and in z: the four corners of their ranges count. g is chosen for every datum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..data import Dataset
from ..model import MLP
from .intervals import TINY, Interval, gamma, norms
from .moment import data_blocks
from .propagate import Cell, propagate
from .spectral import eigval_min_bound

FloatArray = npt.NDArray[np.float64]

#: Matrices per unit; smallest |x~.p| in tau, relative to its root mean square.
_STEPS, _SMALLEST = 12, 0.1
#: Factors g that are tried.
_SHARES = np.linspace(0.05, 1.0, 20)


class _Data(NamedTuple):
    """What the units' blocks need of every datum, units of one kind once: shapes (n, …)."""

    x: FloatArray
    weights: FloatArray
    curved: FloatArray  # (n, T) lower ends of (r.v) phi''
    slope: Interval  # (n, T)
    residual: Interval  # (n, K)
    peak: FloatArray  # (n,) sup |r| max phi'
    labels: npt.NDArray[np.bool_] | None  # (n, K) for the cross-entropy: the place of a label, all false for soft ones


def blocks_cost(cell: Cell, num_samples: int) -> float:
    """Multiplications of `block_bound`, roughly."""
    return block_work(cell.net, num_samples, len(_kinds(cell)))


def block_work(net: MLP, num_samples: int, kinds: int) -> float:
    """The same of a network whose units are of so many kinds."""
    return float(_STEPS * kinds * num_samples) * float(net.widths[0] + 1 + net.widths[2]) ** 2


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
        labels = (y == 1.0) & ((y != 0.0).sum(axis=1, keepdims=True) == 1) if loss == "cross_entropy" else None
        inputs = np.hstack([x, np.ones((len(x), 1))]) if cell.net.bias else x
        parts.append(
            _Data(
                inputs, w, bounds.curved[0].lo[:, kinds], bounds.slope[0][:, kinds], bounds.delta[-1], bounds.joint.peak, labels
            )
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
        None if parts[0].labels is None else np.concatenate([part.labels for part in parts if part.labels is not None]),
    )


def _unit_bound(data: _Data, unit: int, scales: tuple[float, ...]) -> float:
    x, (n, dim), outputs = data.x, data.x.shape, data.residual.lo.shape[1]
    mixed = data.slope[:, unit][:, None] * data.residual
    limit = data.peak[:, None]
    mixed = Interval(np.maximum(mixed.lo, -limit), np.minimum(mixed.hi, limit))
    size = np.minimum(norms(mixed.magnitude), data.peak)
    low, lengths = data.curved[:, unit], norms(x)
    terms = _Terms(x, data.weights, low, lengths, np.concatenate([np.full(dim, scales[0]), np.full(outputs, scales[1])]))
    # Enclosures B ± D of the entries, or B = 0 and the norm alone.
    middle, radius = mixed.middle, mixed.radius
    best = terms.bound(np.zeros((n, outputs)), size[:, None])
    if data.labels is not None:
        middle = middle - middle.mean(axis=1, keepdims=True)
        radius = radius + gamma(2) * (np.abs(middle) + np.abs(mixed.middle))
        best = max(best, terms.bound(*_about_labels(data.labels, data.slope[:, unit], data.residual, size)))
    return max(best, terms.bound(middle, radius))


def _about_labels(
    labels: npt.NDArray[np.bool_], slope: Interval, residual: Interval, size: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(B (n, K), the radius (n, 1) of phi' r about it): B = g (1/K - e_y), or zero with the given size for soft labels."""
    outputs = labels.shape[1]
    least, most = (np.clip(-np.where(labels, end, 0.0).sum(axis=1), 0.0, 1.0) for end in (residual.hi, residual.lo))
    others = np.minimum(np.where(labels, 0.0, residual.hi).max(axis=1), most)
    best, chosen = size.copy(), np.zeros(len(size))
    for g in _SHARES:
        fixed = g * g * (1.0 - 1.0 / outputs)
        square = np.zeros(len(size))
        for steep in (slope.lo, slope.hi):
            for z in (least, most):
                gain, cross = steep**2 * (z**2 + z * others), 2.0 * g * steep * z
                square = np.maximum(square, gain - cross + fixed + gamma(32) * (gain + np.abs(cross) + fixed))
        found = np.where(labels.any(axis=1), np.sqrt(square) * (1.0 + gamma(8)) + gamma(16), np.inf)
        best, chosen = np.minimum(best, found), np.where(found < best, g, chosen)
    return chosen[:, None] * (1.0 / outputs - labels), best[:, None]


class _Terms(NamedTuple):
    """One unit's data; ``factor`` (D + K,) are the NTK scales."""

    x: FloatArray
    weights: FloatArray
    low: FloatArray
    lengths: FloatArray
    factor: FloatArray

    def bound(self, middle: FloatArray, radius: FloatArray) -> float:
        """Lower bound of the block's eigenvalues from B (n, K) and D (n, K), or the Euclidean radius (n, 1) of B ± D."""
        x, w, low, lengths, factor = self
        (n, dim), outputs = x.shape, middle.shape[1]
        room = gamma(n + dim + outputs + 160)
        radii = norms(radius)
        off = (x * w[:, None]).T @ middle
        off_error = room * float((w * lengths * norms(middle)).sum())
        # The first direction: none is better than another, so sizes only.
        tau, weights = radii / max(float(np.sqrt((w * lengths**2).sum())), TINY), np.ones(radius.shape[1])
        best, kept, share = -np.inf, (tau, weights), 1.0
        for step in range(_STEPS):
            tau = np.maximum(tau, 1e-6 * radii + TINY)
            # sum_k |q_k| D_k: its square is |q|'N|q|, N = mean D D' / tau >= 0
            taken = (radius.T @ (w / tau * (radius @ weights))) / weights * (1.0 + room)
            matrix = np.zeros((dim + outputs, dim + outputs))
            matrix[:dim, :dim] = (x * (w * (low - tau))[:, None]).T @ x
            matrix[:dim, dim:], matrix[dim:, :dim] = off, off.T
            matrix[range(dim, dim + outputs), range(dim, dim + outputs)] = -taken
            matrix *= np.outer(factor, factor)
            error = room * float((w * (np.abs(low) + tau) * lengths**2).sum()) + off_error + (n + 2.0) * TINY
            error = error * float(factor.max()) ** 2 + gamma(16) * float(np.abs(matrix).sum())
            if not (np.isfinite(matrix).all() and np.isfinite(error)):
                break
            found = eigval_min_bound(matrix) - error * (1.0 + gamma(16))
            if found > best:
                best, kept, share = found, (tau, weights), min(1.0, 2.0 * share)
                direction = factor * np.linalg.eigh(matrix)[1][:, 0]
            else:
                share *= 0.25
            along, size = np.abs(x @ direction[:dim]), np.abs(direction[dim:])
            if radius.shape[1] < outputs:
                size = np.sqrt((size**2).sum(keepdims=True))
            wanted = np.maximum(size, 1e-6 * float(size.max(initial=0.0)) + TINY)
            # At first the same for all data.
            mean = float(np.sqrt((w * radii * along**2).sum() / max(float((w * radii).sum()), TINY)))
            along = np.maximum(along, _SMALLEST * mean + TINY) if step >= 2 else np.full(n, mean + TINY)
            target = (radius @ wanted) / along
            tau = kept[0] * (np.maximum(target, TINY) / kept[0]) ** share
            weights = kept[1] * (wanted / kept[1]) ** share
        return best
