"""One hidden layer: bounds of the units' blocks of the residual part, datum by datum, derived anew for checking certificates.

For parameters in a part of a region let a_i <= (r_i.v) phi''(s_i) and phi'(s_i) r_i = B_i ± D_i for a unit, entry by entry or in
the Euclidean norm. In a direction (p, q), y_i = ku z_i.p, for any tau_i > 0 and w > 0,

    v'Rv >= mean (a_i - tau_i) y_i² + 2 mean y_i (B_i.kv q) - kv² sum_k n_k q_k²,    n_k = mean D_ik (D_i.w) / (tau_i w_k),

by 2 |y| (D.|q|) <= tau y² + (D.|q|)²/tau and (D.|q|)² <= sum_k D_k (D.w) q_k²/w_k. What is left is a quadratic form, and
it less the claim must have positive pivots. With the cross-entropy the entries of r_i sum to zero: a multiple of (1, …, 1) in q
changes nothing, so q may sum to zero, and B_i may be moved by such a multiple. For a label y, 1 - p_y = x in [least, most] and
the other p_k at most u,

    |phi' r - g (1/K - e_y)|² <= phi'² (x² + x u) - 2 g phi' x + g² (1 - 1/K),

convex in x and in phi', so that the ends of their ranges count. Floating point guesses tau, w and g.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as pairs
from time import monotonic

import numpy as np
import numpy.typing as npt

from .reference_hessian import Cells, Problem, passes
from .reference_interval import Range, Wide, dot, length, middle_and_radius, up, wide, zeros
from .reference_tests import positive_pivots

FloatArray = npt.NDArray[np.float64]

#: Numbers of one pass through the network.
_NUMBERS = 400_000
#: Guesses of tau and w, the smallest |y| in tau relative to its mean, and the least of a guess relative to what it bounds.
_STEPS, _SMALLEST, _LEAST = 40, 0.1, 1e-6
_TINY = 1e-290
#: Share of the claim by which a guess must exceed it to be the last.
_ENOUGH = 1e-10
#: Factors g.
_SHARES = 20


@dataclass(frozen=True)
class _Unit:
    """One unit's a (n,), phi' (n,), the residual r (n, K), and sup |r| max phi' (n,)."""

    low: Wide
    slope: Range
    residual: Range
    peak: Wide


class UnitBlocks:
    """Tests parts (B = 1) of a region, with the norms of their blocks."""

    def __init__(self, problem: Problem, deadline: float) -> None:
        self._problem, self._deadline = problem, deadline
        z = problem.x
        if problem.bias:
            z = np.concatenate([z, wide(np.ones((len(z), 1)))], axis=1)
        self._z, self._inputs = z, z.astype(np.float64)
        self._mass = (0.5 * (problem.mass.lo + problem.mass.hi)).astype(np.float64)
        scales = [float(scale.hi) for scale in problem.scale]
        self._factor = np.r_[np.full(z.shape[1], scales[0]), np.full(problem.widths[2], scales[1])]

    def hold(self, cells: Cells, claim: float) -> bool:
        """Whether no unit's block has an eigenvalue below the claim."""
        if claim > 0.0:
            return False
        kinds = _kinds(cells)
        return all(monotonic() < self._deadline and self._unit_holds(unit, claim) for unit in self._units(cells, kinds))

    def _units(self, cells: Cells, kinds: list[int]) -> Iterator[_Unit]:
        problem = self._problem
        rows = max(1, _NUMBERS // (problem.widths[1] * (problem.widths[0] + problem.widths[2])))
        low, slope, residual, peak = [], [], [], []
        for begin in range(0, len(problem.x), rows):
            part = slice(begin, begin + rows)
            along = passes(problem, cells, problem.x[part], problem.y[part])
            low.append(along.curved[0].lo[:, kinds])
            slope.append(along.slope[0][:, kinds])
            residual.append(along.delta[-1])
            apart = up(along.delta_norm[-1] * along.slope[0].size().max(axis=1))
            peak.append(apart if along.last is None else along.last.peak)
        r, top = _joined(residual), np.concatenate(peak)
        for place in range(len(kinds)):
            yield _Unit(np.concatenate([x[:, place] for x in low]), _joined([x[:, place] for x in slope]), r, top)

    def _unit_holds(self, unit: _Unit, claim: float) -> bool:
        if not (np.isfinite(unit.low).all() and np.isfinite(unit.peak).all()):
            return False
        return any(self._holds(unit.low, centre, radius, claim) for centre, radius in self._enclosures(unit))

    def _enclosures(self, unit: _Unit) -> Iterator[tuple[Range, Wide]]:
        """B (n, K) and D, (n, K) or, in the Euclidean norm, (n, 1)."""
        mixed = (unit.slope[:, None] * unit.residual).within(unit.peak[:, None])
        size = np.minimum(length(mixed.size()), unit.peak)
        middle, radius = middle_and_radius(mixed)
        centre = Range(middle)
        if self._problem.loss == "cross_entropy":
            moved = wide((middle - middle.mean(axis=1, keepdims=True)).astype(np.float64))
            # By the same number for all entries.
            apart = mixed - Range(middle[:, :1]) + Range(moved[:, :1]) - Range(moved)
            centre, radius = Range(moved), apart.size()
        yield centre, radius
        if self._problem.loss == "cross_entropy":
            yield self._about_labels(unit, size)
        yield Range(zeros(mixed.lo.shape)), size[:, None]

    def _about_labels(self, unit: _Unit, size: Wide) -> tuple[Range, Wide]:
        y, outputs = self._problem.y, self._problem.widths[2]
        labels = ((y == 1.0) | (y == 0.0)).all(axis=1) & (y.sum(axis=1) == 1.0)
        own = y == 1.0
        one, zero = wide(1.0), wide(0.0)
        least, most = (np.clip(-np.where(own, end, zero).sum(axis=1), zero, one) for end in (unit.residual.hi, unit.residual.lo))
        others = np.minimum(np.where(own, zero, unit.residual.hi).max(axis=1), most)
        best, chosen = size.copy(), np.zeros(len(size))
        share = Range(one) / Range(wide(float(outputs)))
        for g in np.linspace(1.0 / _SHARES, 1.0, _SHARES):
            factor = Range(wide(g))
            fixed = factor.square() * (Range(one) - share)
            square = zeros(len(size))
            for end, x in pairs((unit.slope.lo, unit.slope.hi), (least, most)):
                steep, miss = Range(end), Range(x)
                value = steep.square() * (miss.square() + miss * Range(others)) - Range(wide(2.0 * g)) * steep * miss + fixed
                square = np.maximum(square, value.hi)
            found = np.where(labels, Range(square).root().hi, wide(np.inf))
            chosen = np.where(found < best, g, chosen)
            best = np.minimum(best, found)
        return Range(wide(chosen))[:, None] * (share - Range(np.where(own, one, zero))), best[:, None]

    def _holds(self, low: Wide, centre: Range, radius: Wide, claim: float) -> bool:
        if not np.isfinite(radius).all():
            return False
        value, tau, weights = self._guess(low, centre, radius, claim)
        return bool(value >= claim) and self._proved(low, centre, radius, tau, weights, claim)

    def _proved(self, low: Wide, centre: Range, radius: Wide, tau: FloatArray, weights: FloatArray, claim: float) -> bool:
        problem, z = self._problem, Range(self._z)
        dim, outputs = z.lo.shape[1], problem.widths[2]
        each, w, d = Range(wide(tau)), Range(wide(weights)), Range(radius)
        scale_u, scale_v = problem.scale
        lo, hi = zeros((dim + outputs,) * 2), zeros((dim + outputs,) * 2)
        top = (Range(low) - each) * problem.mass
        for a in range(dim):
            row = dot(((top * z[:, a])[:, None]), z[:, : a + 1], 0) * scale_u.square()
            side = dot((problem.mass * z[:, a])[:, None], centre, 0) * (scale_u * scale_v)
            lo[a, : a + 1], hi[a, : a + 1] = row.lo, row.hi
            lo[: a + 1, a], hi[: a + 1, a] = row.lo, row.hi
            lo[a, dim:], hi[a, dim:] = side.lo, side.hi
            lo[dim:, a], hi[dim:, a] = side.lo, side.hi
        spread = problem.mass * (d * w[None, :]).sum(1) / each
        taken = (d * spread[:, None]).sum(0) / w * scale_v.square()
        places = np.arange(dim, dim + outputs)
        # The taken of the Euclidean norm counts for every entry.
        lo[places, places], hi[places, places] = -taken.hi, -taken.lo
        return bool(positive_pivots(Range(lo[None], hi[None]), claim)[0])

    def _guess(self, low: Wide, centre: Range, radius: Wide, claim: float) -> tuple[float, FloatArray, FloatArray]:
        """Smallest eigenvalue of the form, in floating point, for the best tau and w."""
        x, mass, factor = self._inputs, self._mass, self._factor
        a, b, d = (y.astype(np.float64) for y in (low, 0.5 * (centre.lo + centre.hi), radius))
        (n, dim), outputs = x.shape, b.shape[1]
        places = np.arange(dim, dim + outputs)
        lengths, radii = np.sqrt((x * x).sum(axis=1)), np.sqrt((d * d).sum(axis=1))
        off = (x * mass[:, None]).T @ b
        best, share = -np.inf, 1.0
        kept = tau, weights = radii / max(float(np.sqrt((mass * lengths**2).sum())), _TINY) + _TINY, np.ones(d.shape[1])
        for step in range(_STEPS):
            tau = np.maximum(tau, _LEAST * radii + _TINY)
            matrix = np.zeros((dim + outputs,) * 2)
            matrix[:dim, :dim] = (x * (mass * (a - tau))[:, None]).T @ x
            matrix[:dim, dim:], matrix[dim:, :dim] = off, off.T
            matrix[places, places] = -(d.T @ (mass / tau * (d @ weights))) / weights
            matrix *= np.outer(factor, factor)
            if not np.isfinite(matrix).all():
                break
            values, vectors = np.linalg.eigh(matrix)
            if values[0] > best:
                best, kept, share = float(values[0]), (tau, weights), min(1.0, 2.0 * share)
                direction = factor * vectors[:, 0]
            else:
                share *= 0.25
            if best - claim > _ENOUGH * abs(claim):
                break
            along, size = np.abs(x @ direction[:dim]), np.abs(direction[dim:])
            if d.shape[1] < outputs:
                size = np.sqrt((size**2).sum(keepdims=True))
            size = np.maximum(size, _LEAST * float(size.max(initial=0.0)) + _TINY)
            mean = float(np.sqrt((mass * radii * along**2).sum() / max(float((mass * radii).sum()), _TINY))) + _TINY
            # At first one for all data: a single direction says little about the others.
            along = np.maximum(along, _SMALLEST * mean) if step >= 2 else np.full(n, mean)
            tau = kept[0] * (np.maximum(d @ size / along, _TINY) / kept[0]) ** share
            weights = kept[1] * (size / kept[1]) ** share
        return best, *kept


def _joined(parts: list[Range]) -> Range:
    return Range(np.concatenate([part.lo for part in parts]), np.concatenate([part.hi for part in parts]))


def _kinds(cells: Cells) -> list[int]:
    """One unit of every kind: with the same ranges, or the same centre in a ball."""
    (hidden, offset), (out, _) = ((cells.w[layer][0], cells.b[layer][0]) for layer in (0, 1))
    ends = np.concatenate([hidden.lo, hidden.hi, offset.lo[:, None], offset.hi[:, None], out.lo.T, out.hi.T], axis=1)
    kinds: list[int] = []
    for unit in range(len(ends)):
        if not any((ends[unit] == ends[kind]).all() for kind in kinds):
            kinds.append(unit)
    return kinds
