"""What one change of the weights leaves in common to the activations of all data, derived anew for checking certificates.

With a^c the first layer's activations at the middle of the cell, d a bound of the distance of (W¹, b¹) from there, G_i that of
|phi'| at the datum i, and z_i = (x_i, 1), |a_i - a^c_i| <= G_i |D z_i| for one matrix D, the difference of the blocks. So for all
kap_i >= 0

    (mean kap_i |a_i|²)^(1/2) <= Z = (mean kap_i |a^c_i|²)^(1/2) + d (largest eigenvalue of mean kap_i G_i² z_i z_i')^(1/2).

In a form whose entries hold |a_i|, kap_i |a_i|² has a mean of at most Z², and kap_i |a_i| one of (mean kap_i)^(1/2) Z; where
|V¹ z_i| comes in as well, (largest eigenvalue of mean kap_i z_i z_i')^(1/2) Z.
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


@dataclass(frozen=True)
class Middles:
    """Of the hidden layers: activations (N, m) at the middle, distances of (W, b) from there, and |W| there (Frobenius norms);
    G (N,) of the first.
    """

    a: list[Range]
    distance: list[Wide]
    size: list[Wide]
    steepest: Wide


def middles(problem: Problem, cells: Cells, along: Pass) -> Middles:
    """Of one part (B = 1)."""
    found = Middles([], [], [], along.slope[0].size().max(axis=1))
    a = Range(problem.x)
    for layer in range(problem.layers - 1):
        (w, dw), (b, db) = middle_and_radius(cells.w[layer][0]), middle_and_radius(cells.b[layer][0])
        s = (Range(w)[None] * a[:, None, :]).sum(-1) + Range(b)
        a = activation(problem.activations[layer], problem.betas[layer], 0, s)
        found.a.append(a)
        found.distance.append(up(length(np.concatenate([dw.reshape(-1), db])) + cells.rho[layer][0]))
        found.size.append(length(np.abs(w).reshape(-1)))
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


def second_form(problem: Problem, middle: Middles, sizes: Wide, forms: Wide) -> Wide | None:
    """Bounds of the mean form's entries with the second layer's weights, infinite elsewhere; None if not looked at.

    ``forms`` (N, k, k), the second layer's weights in place 1, hold |a_i| as ``sizes`` (N,).
    """
    if problem.x.shape[1] > _INPUTS:
        return None
    inputs = extended(problem)
    inverse = Range(wide(1.0)) / Range(sizes)
    kap = Range(forms[:, 1, :]) * (problem.mass * inverse)[:, None]
    own = kap[:, 1] * inverse
    still = Range(length(middle.a[0].size())).square()
    moved = (Range(middle.distance[0]) * Range(middle.steepest)).square()
    count = forms.shape[1]
    form = zeros((count, count)) + np.inf
    for one in range(count):
        weights = own if one == 1 else kap[:, one]
        reach = Range((weights * still).sum(0).hi).root() + Range(second_moment(inputs, weights * moved)).root()
        if one == 1:
            bound = reach.square().hi
        else:
            other = second_moment(inputs, weights) if one == 0 else weights.sum(0).hi
            bound = (Range(other).root() * reach).hi
        kappa = problem.scale[1] * problem.scale[one if one < problem.layers else one - problem.layers + 1]
        form[one, 1] = form[1, one] = up(bound * kappa.hi)
    return form
