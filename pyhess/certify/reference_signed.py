"""Mixed terms whose residuals have opposite signs, derived anew for checking certificates: two hidden layers, one output.

With z_jk = mean_i kap_i (x_i, 1), kap_i = r_i phi'(s²_ij) phi'(s¹_ik), v and W² the weights of the third and second layer, the
mixed terms of a direction V are twice

    first with second   sum_jk v_j V²_jk (V¹_k·z_jk)                      <= |v| max |z| |V¹| |V²|,
    first with third    sum_jk V³_j W²_jk (V¹_k·z_jk)                     <= |W²|_F max |z| |V¹| |V³|,
    second with third   sum_j V³_j V²_j·mean_i r_i phi'(s²_ij) a_i        <= max |mean r phi' a| |V²| |V³|,
    biases with third   sum_j V³_j c²_j mean_i r_i phi'(s²_ij)            <= max |mean r phi'| |c²| |V³|,

with V² and c² the weights and the biases of V in the second layer. A mean of kap_i z_i, kap_i within d_i of m_i, is at most
|mean m_i z_i| in norm, where terms may cancel, plus mean d_i |z_i| or (mean d_i²)^(1/2) times the norm of the z_i as a
matrix. One matrix moves all activations away from those at the middle (`reference_first`), so |mean r_i phi'(s²_ij) a_i| is at most
what it is for those, plus the matrix's norm times max |z|.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .reference_first import extended, first_layer, second_moment
from .reference_interval import Range, Wide, length, middle_and_radius, up, wide, zeros

if TYPE_CHECKING:
    from .reference_hessian import Cells, Pass, Problem

#: Data times pairs of units times inputs up to which this is looked at.
_NUMBERS = 4_000_000


def signed_form(problem: Problem, cells: Cells, along: Pass) -> Wide | None:
    """Bounds of the mixed terms between two of the moment bound's sizes over one part (B = 1); None if not known.

    The sizes are those of the three layers, the second without its biases, and of these, where there are any.
    """
    if problem.layers != 3 or problem.widths[-1] != 1 or problem.loss != "squared_error" or not cells.norms:
        return None
    rows, inputs = len(problem.x), extended(problem)
    if rows * problem.widths[1] * problem.widths[2] * inputs.shape[1] > _NUMBERS:
        return None
    second = along.delta[2] * along.slope[1]  # r phi'(s²)
    pairs = (second[:, :, None] * along.slope[0][:, None, :]).reshape(rows, -1)
    z = _means(problem, pairs, Range(wide(inputs)), _norm(problem, inputs)).max()
    between = _means(problem, second, along.a[1], None, bare(problem, along.a_norm[1]))
    first = first_layer(problem, cells, along)
    moved = up(_means(problem, second, first.middle, None) + up(first.distance * z))
    between = np.where(moved < between, moved, between)
    inner = up(length(cells.w[1].size().reshape(1, -1))[0] + cells.rho[1][0])
    known = [(0, 1, up(cells.norms[2][0] * z)), (0, 2, up(inner * z)), (1, 2, between.max())]
    if problem.bias:
        known.append((3, 2, _means(problem, second, Range(wide(np.ones((rows, 1)))), None).max()))
    scale = [*problem.scale, problem.scale[1]]
    form = zeros((3 + problem.bias, 3 + problem.bias))
    for one, other, value in known:
        form[one, other] = form[other, one] = up(value * (scale[one] * scale[other]).hi)
    return form


def bare(problem: Problem, norm: Wide) -> Wide:
    """|a| from |(a, 1)|."""
    return norm if not problem.bias else (Range(norm).square() - Range(wide(1.0))).root().hi


def _norm(problem: Problem, inputs: Wide) -> Wide:
    """The spectral norm of the rows sqrt(w_i) z_i, from their second moments."""
    return Range(second_moment(inputs, problem.mass)).root().hi


def _means(problem: Problem, factor: Range, z: Range, norm: Wide | None, most: Wide | None = None) -> Wide:
    """Bounds (q,) of |mean_i kap_i z_i| for kap (N, q), z (N, p), the norm of the z as a matrix, and of each if it is known."""
    middle, radius = middle_and_radius(factor)
    at, apart = middle_and_radius(z)
    mass = problem.mass[:, None]
    known = ((Range(middle) * mass)[:, :, None] * Range(at)[:, None, :]).sum(0).size()
    sizes, spread = Range(length(np.abs(at))), length(apart)
    if most is not None:
        spread = np.minimum(spread, up(sizes.hi + most))
    blur = (Range(radius) * mass * sizes[:, None]).sum(0).hi
    if norm is not None:
        together = ((Range(radius).square() * mass).sum(0).root() * Range(norm)).hi
        blur = np.where(together < blur, together, blur)
    moved = (Range(factor.size()) * mass * Range(spread)[:, None]).sum(0).hi
    return up(up(length(known) + blur) + moved)
