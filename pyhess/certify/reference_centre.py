"""The centre bound, written out once more for checking certificates.

Marked c at the centre, d for bounds of differences to it, g = sup phi', gc = sup phi'_c:

    Q_1 = 0,    T_l = g Q_{l-1} + |dphi'| Pc_{l-1},    Q_l = |W| T_l + |dW| gc Pc_{l-1} + |da| e_l,
    E = sum_{l>=2} (|ddelta| g P_{l-1} + |delta_c| T_l) e_l (symmetrised)
        + sum_{l<D} max (w_c - w)_+ P P' + max |w_c| (P + Pc) Q' (symmetrised),    w = bar phi'',
    psi >= eigval_min(R(c)) - max t'Et,    psi >= eigval_min(H(c)) - max t'(E + 2 |A| Pc_D Q_D' + |dA| Pc_D Pc_D')t.
"""

from __future__ import annotations

import numpy as np

from .reference_hessian import Cells, Pass, Problem, box_cells, enclosures, passes
from .reference_interval import Range, Wide, down, length, up, wide, zeros
from .reference_moment import block_norms, largest_form, product, tangents, with_norms
from .reference_tests import largest_eigenvalue

#: sup |d²l/df²| and its Lipschitz constant in f: 0; sup |sigma''| = 1/(6 sqrt 3); third cumulants <= range³/(6 sqrt 3) and
#: range <= sqrt 2 |u| give sqrt 8/(6 sqrt 3).
_OUTPUT = {"squared_error": (1.0, 0.0), "logistic": (0.25, 0.09622504486494), "cross_entropy": (0.5, 0.27216552697592)}


class CentreBound:
    """Lower bounds of psi over parts (B = 1) of a region from the matrices at one point."""

    def __init__(self, problem: Problem, point: Wide) -> None:
        self._problem = problem
        self._cells = with_norms(problem, box_cells(problem, point[None], point[None]))
        residual, whole = enclosures(problem, self._cells, gauss=True)
        assert whole is not None
        self._residual, self._whole = (-largest_eigenvalue(-matrix[0]) for matrix in (residual, whole))
        self._along = passes(problem, self._cells, problem.x, problem.y)
        self._tangent = tangents(problem, self._cells, self._along)

    def __call__(self, cells: Cells) -> Wide:
        """The better bound over the part."""
        change, gauss = self._forms(cells, passes(self._problem, cells, self._problem.x, self._problem.y))
        by_residual = self._residual - largest_form(self._problem, change)
        by_whole = self._whole - largest_form(self._problem, up(change + gauss))
        return wide(down(np.maximum(down(by_residual), down(by_whole))))

    def _moves(self, cells: Cells) -> list[tuple[Wide, Wide]]:
        """Norms of W - W_c and (W, b) - (W_c, b_c)."""
        pairs = zip(cells.w, cells.b, self._cells.w, self._cells.b, strict=True)
        apart = [(Range(_apart(w, wc)), Range(_apart(b, bc))) for w, b, wc, bc in pairs]
        moved = Cells([w for w, _ in apart], [b for _, b in apart], cells.rho)
        return [block_norms(moved, layer) for layer in range(self._problem.layers)]

    def _changes(self, cells: Cells, along: Pass, mass: Wide) -> tuple[list[Wide], Wide, list[Wide]]:
        """Bounds (N,) of |da| entering each layer, |df|, and |ddelta| of each layer."""
        last = self._problem.layers - 1
        point, moves = self._along, self._moves(cells)
        da = [zeros(len(self._problem.x))]
        ds = da[0]
        for layer in range(last + 1):
            step = up(product(moves[layer][1], along.a_norm[layer]) + product(self._cells.norms[layer][0], da[-1]))
            ds = np.minimum(length(_apart(along.s[layer], point.s[layer])), step)
            if layer < last:
                direct = length(_apart(along.a[layer + 1], point.a[layer + 1]))
                da.append(np.minimum(direct, product(_steepest(along, layer), ds)))
        flat = product(mass, wide(_OUTPUT[self._problem.loss][0]), ds)
        delta = [np.minimum(length(_apart(along.delta[last], point.delta[last])), flat)]
        for layer in range(last - 1, -1, -1):
            moved = product(moves[layer + 1][0], point.delta_norm[layer + 1])
            step = up(product(cells.norms[layer + 1][0], delta[0]) + moved)
            bar = np.minimum(length(_apart(along.bar[layer], point.bar[layer])), step)
            turned = length(product(_apart(along.slope[layer], point.slope[layer]), point.bar[layer].size()))
            direct = length(_apart(along.delta[layer], point.delta[layer]))
            delta.insert(0, np.minimum(direct, up(product(_steepest(along, layer), bar) + turned)))
        return da, ds, delta

    def _forms(self, cells: Cells, along: Pass) -> tuple[Wide, Wide]:
        """E and the Gauss–Newton part's share (N, D, D)."""
        problem, point, fixed = self._problem, self._along, self._tangent
        layers, count = problem.layers, len(problem.x)
        mass = wide(np.ones(count))
        if problem.loss == "cross_entropy":
            mass = Range(problem.y).sum(1).hi
        da, df, ddelta = self._changes(cells, along, mass)
        moves = self._moves(cells)
        tangent = tangents(problem, cells, along)
        shift = [zeros((count, layers))]
        total = zeros((count, layers, layers))
        for layer in range(1, layers):
            bent = _apart(along.slope[layer - 1], point.slope[layer - 1]).max(axis=1)
            steepest = _steepest(along, layer - 1)
            turned = up(product(shift[-1], steepest[:, None]) + product(fixed[layer - 1], bent[:, None]))
            moved = product(fixed[layer - 1], product(moves[layer][0], _steepest(point, layer - 1))[:, None])
            form = up(product(turned, cells.norms[layer][0]) + moved)
            form[:, layer] = up(form[:, layer] + da[layer])
            shift.append(form)
            row = product(tangent[layer - 1], product(ddelta[layer], steepest)[:, None])
            row = up(row + product(turned, point.delta_norm[layer][:, None]))
            total[:, layer, :] = up(total[:, layer, :] + row)
            total[:, :, layer] = up(total[:, :, layer] + row)
        for layer in range(layers - 1):
            now, then = along.curved[layer], point.curved[layer]
            drop = np.maximum(wide(0.0), up(then.hi - now.lo)).max(axis=1)
            sharp = then.size().max(axis=1)
            both = up(tangent[layer] + fixed[layer])
            total = up(total + product(_pair(tangent[layer], tangent[layer]), drop[:, None, None]))
            total = up(total + product(_pair(both, shift[layer]), sharp[:, None, None]))
        largest, lipschitz = (product(mass, wide(constant)) for constant in _OUTPUT[problem.loss])
        bend = np.minimum(largest, product(lipschitz, df))
        gauss = product(_pair(fixed[-1], shift[-1]), 2.0 * largest[:, None, None])
        return total, up(gauss + product(_pair(fixed[-1], fixed[-1]), bend[:, None, None]))


def _apart(one: Range, other: Range) -> Wide:
    """Max |x - y|, rounded up."""
    return np.maximum(up(np.maximum(one.hi - other.lo, other.hi - one.lo)), wide(0.0))


def _steepest(along: Pass, layer: int) -> Wide:
    return wide(along.slope[layer].size().max(axis=1))


def _pair(a: Wide, b: Wide) -> Wide:
    """(a b' + b a') / 2, rounded up."""
    outer = product(a[:, :, None], b[:, None, :])
    return up(0.5 * (outer + np.swapaxes(outer, 1, 2)))
