"""What one change of the weights leaves in common to the activations of all data, derived anew for checking certificates.

With a^c the activations at the middle of the cell, C_l the weights there, d_l a bound of the distance of (W^l, b^l) from there,
and G_l one of |phi'| in layer l at a datum, |a^l - a^c| <= G_l (|D (a^{l-1}, 1)| + |C_l| |a^{l-1} - a^c|) for one matrix D of
norm d_l, the difference of the blocks, whatever the datum. So for all kap_i >= 0, with q_i = kap_i G_l,i² and E_l² a bound of
mean kap_i |a^l_i - a^c_i|²,

    E_1(kap) = d_1 (largest eigenvalue of mean q_i z_i z_i')^(1/2),    z_i = (x_i, 1),
    E_l(kap) = d_l (mean q_i + Z_{l-1}(q)²)^(1/2) + |C_l| E_{l-1}(q),    Z_l(kap) = (mean kap_i |a^c_i|²)^(1/2) + E_l(kap),

without the mean of q where there are no biases. In a form whose entries hold |a^l_i|, kap_i |a^l_i|² has a mean of at most Z_l²,
and kap_i |a^l_i| one of (mean kap_i)^(1/2) Z_l; with a factor |V¹ z_i|, (largest eigenvalue of mean kap_i z_i z_i')^(1/2) Z_l.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .reference_interval import Range, Wide, length, middle_and_radius, up, wide, zeros
from .reference_ranges import activation
from .reference_tests import largest_eigenvalue

if TYPE_CHECKING:
    from .reference_hessian import Cells, Pass, Problem

#: Inputs up to which this is looked at.
_INPUTS = 1024
#: Sizes |a_i| are taken for at least this.
_SMALL = 1e-60


@dataclass(frozen=True)
class Middles:
    """Of the hidden layers: activations (N, m) at the middle, distances of (W, b) from there, norms of W there (Frobenius and
    spectral), and G (N,).
    """

    a: list[Range]
    distance: list[Wide]
    size: list[Wide]
    spectral: list[Wide]
    steepest: list[Wide]


def middles(problem: Problem, cells: Cells, along: Pass) -> Middles:
    """Of one part (B = 1)."""
    found = Middles([], [], [], [], [slope.size().max(axis=1) for slope in along.slope])
    a = Range(problem.x)
    for layer in range(problem.layers - 1):
        (w, dw), (b, db) = middle_and_radius(cells.w[layer][0]), middle_and_radius(cells.b[layer][0])
        s = (Range(w)[None] * a[:, None, :]).sum(-1) + Range(b)
        a = activation(problem.activations[layer], problem.betas[layer], 0, s)
        found.a.append(a)
        found.distance.append(up(length(np.concatenate([dw.reshape(-1), db])) + cells.rho[layer][0]))
        found.size.append(length(np.abs(w).reshape(-1)))
        found.spectral.append(spectral_norm(w))
    return found


def extended(problem: Problem) -> Wide:
    """The rows (x, 1), without biases x."""
    if not problem.bias:
        return problem.x
    return wide(np.concatenate([problem.x, np.ones((len(problem.x), 1))], axis=1))


def second_moment(inputs: Wide, weights: Range) -> Wide:
    """The largest eigenvalue of sum_i weight_i z_i z_i' for weights >= 0."""
    point = Range(inputs)
    moment = ((point * weights[:, None])[:, :, None] * point[:, None, :]).sum(0)
    symmetric = Range(np.minimum(moment.lo, moment.lo.T), np.maximum(moment.hi, moment.hi.T))
    return np.maximum(largest_eigenvalue(symmetric), wide(0.0))


def spectral_norm(matrix: Wide) -> Wide:
    """Upper bound of the spectral norm of a matrix of numbers known exactly."""
    if not matrix.any():
        return wide(0.0)
    rows = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    point = Range(rows)
    gram = (point[:, None, :] * point[None, :, :]).sum(-1)
    return wide(np.minimum(Range(largest_eigenvalue(gram)).root().hi, length(matrix.reshape(1, -1))[0]))


def hidden_form(problem: Problem, middle: Middles, layer: int, sizes: Wide, forms: Wide) -> Wide | None:
    """Bounds of the mean form's entries with the weights above hidden layer ``layer``, infinite elsewhere; None if not looked at.

    ``forms`` (N, k, k), these weights in the place ``layer``, hold |a_i| as ``sizes`` (N,).
    """
    if problem.x.shape[1] > _INPUTS:
        return None
    inputs, count = extended(problem), forms.shape[1]
    inverse = Range(wide(1.0)) / Range(np.maximum(sizes, wide(_SMALL)))
    kap = Range(forms[:, layer, :]) * (problem.mass * inverse)[:, None]
    form = zeros((count, count)) + np.inf
    for one in range(count):
        weights = kap[:, one] * inverse if one == layer else kap[:, one]
        z = _root_of_mean(problem, middle, layer, weights, inputs)
        if one == layer:
            bound = z.square().hi
        else:
            other = second_moment(inputs, weights) if one == 0 else weights.sum(0).hi
            bound = (Range(other).root() * z).hi
        kappa = problem.scale[layer] * problem.scale[one if one < problem.layers else one - problem.layers + 1]
        form[one, layer] = form[layer, one] = up(bound * kappa.hi)
    return form


def _root_of_mean(problem: Problem, middle: Middles, layer: int, weights: Range, inputs: Wide) -> Range:
    """Z of the hidden layer, for sum_i weight_i |a_i|²."""
    stills: list[Wide] = []
    totals: list[Wide] = []
    for below in reversed(range(layer)):
        still = Range(np.maximum(length(middle.a[below].size()), wide(_SMALL))).square()
        stills.insert(0, (weights * still).sum(0).hi)
        weights = weights * Range(middle.steepest[below]).square()
        totals.insert(0, weights.sum(0).hi)
    moved = Range(middle.distance[0]) * Range(second_moment(inputs, weights)).root()
    for below in range(layer):
        z = Range(stills[below]).root() + moved
        if below < layer - 1:
            both = z.square() + Range(totals[below + 1]) if problem.bias else z.square()
            moved = Range(middle.distance[below + 1]) * both.root() + Range(middle.spectral[below + 1]) * moved
    return z
