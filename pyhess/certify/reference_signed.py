"""Mixed terms whose residuals have opposite signs, derived anew for checking certificates: one output, squared error.

The mixed terms of a direction V are twice the sum over p of sum_i w_i delta^p_i . V^p adot^{p-1}_i. Written out, each of them is
a sum over paths of units: of r_i, of the output weights, of slopes phi'(s^m) in every layer from the last hidden one down to
layer l, of weights W^m between them, but in layer p those of V, and at the end of V^l a^{l-1} or of V's biases c^l, l < p. With
kap_i the product of r_i and the slopes along a path,

    V^p with V^l    <= A_l |V^p| |V^l| product of |W^m|_F over m > l but p,    A_l the largest |mean kap_i a^{l-1}_i|,
    V^p with c^l    <= B_l |V^p| |c^l| product of |W^m|_F over m > l but p,    B_l the largest |mean kap_i|,

over the paths, with (x, 1) for a^0. A mean of kap_i z_i, kap_i within d_i of m_i, is at most |mean m_i z_i| in norm, where terms
may cancel, plus mean d_i |z_i| or (mean d_i²)^(1/2) times the norm of the z_i as a matrix. As all a^l_i - a^c_i, a^c at the
middle of the cell, come from one change D of (W^l, b^l) and from changes below, kap_i (a^l_i - a^c_i) is a sum over paths one
unit longer, and

    |mean kap_i (a^l_i - a^c_i)| <= E_{l+1} = |D|_F (A_l² + B_l²)^(1/2) + |W^l|_F E_l,    E_1 = 0, W^l at the middle, B_1 = 0.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from .reference_interval import Range, Wide, length, middle_and_radius, up, wide, zeros
from .reference_middles import Middles, extended, second_moment

if TYPE_CHECKING:
    from .reference_hessian import Cells, Pass, Problem

#: Data times paths times inputs up to which this is looked at.
_NUMBERS = 4_000_000


def signed_form(problem: Problem, cells: Cells, along: Pass, middle: Middles) -> Wide | None:
    """Bounds of the mixed terms between two of the moment bound's sizes over one part (B = 1); None if not known.

    The sizes are those of the layers' weights, and then of the biases between the first and the last layer, where there are any.
    """
    layers = problem.layers
    if layers < 3 or problem.widths[-1] != 1 or problem.loss != "squared_error" or not cells.norms:
        return None
    if len(problem.x) * prod(problem.widths[1:-1]) * (problem.widths[0] + 1) > _NUMBERS:
        return None
    activations, biases = _largest(problem, along, middle)
    sizes = [up(length(w.size().reshape(-1)) + rho[0]) for w, rho in zip(cells.w, cells.rho, strict=True)]
    count = layers + (layers - 2) * problem.bias
    form = zeros((count, count)) + np.inf
    for upper in range(1, layers):
        for lower in range(upper):
            factor = (problem.scale[upper] * problem.scale[lower]).hi
            for layer in range(lower + 1, layers):
                factor = factor if layer == upper else up(factor * sizes[layer])
            form[upper, lower] = form[lower, upper] = up(factor * activations[lower])
            if problem.bias and lower > 0:
                place = layers + lower - 1
                form[upper, place] = form[place, upper] = up(factor * biases[lower])
    return form


def _largest(problem: Problem, along: Pass, middle: Middles) -> tuple[list[Wide], list[Wide]]:
    """A and B of the layers below the last."""
    inputs, ones = extended(problem), Range(wide(np.ones((len(problem.x), 1))))
    paths = [along.delta[-1]]
    for slope in reversed(along.slope):
        paths.insert(0, (paths[0][:, :, None] * slope[:, None, :]).reshape(len(inputs), -1))
    norm = Range(second_moment(inputs, problem.mass)).root().hi
    activations, biases = [_means(problem, paths[0], Range(inputs), norm).max()], [wide(0.0)]
    moved = wide(0.0)
    for layer in range(1, problem.layers - 1):
        both = (Range(activations[-1]).square() + Range(biases[-1]).square()).root().hi
        moved = up(up(middle.distance[layer - 1] * both) + up(middle.size[layer - 1] * moved))
        own = _means(problem, paths[layer], along.a[layer], None, bare(problem, along.a_norm[layer]))
        other = up(_means(problem, paths[layer], middle.a[layer - 1], None) + moved)
        activations.append(np.where(other < own, other, own).max())
        biases.append(_means(problem, paths[layer], ones, None).max() if problem.bias else wide(0.0))
    return activations, biases


def bare(problem: Problem, norm: Wide) -> Wide:
    """|a| from |(a, 1)|."""
    return norm if not problem.bias else (Range(norm).square() - Range(wide(1.0))).root().hi


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
