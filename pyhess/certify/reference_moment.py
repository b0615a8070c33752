"""The moment bound, written out once more for checking certificates.

With t_l the Frobenius norms of a direction's blocks, y = |V^1 (x, 1)| and P_l the coefficients of |sdot^l| <= P_l . (y, t_2, …),

    P_1 = e_1,    P_l = |W^l| sup phi' P_{l-1} + sup |(a, 1)| e_l,
    M = sum_{l>=2} |delta^l| sup phi' (e_l P_{l-1}' + P_{l-1} e_l') + sum_{l<D} max_j (-bar_j phi''_j)_+ P_l P_l',

v'Rv >= -mean_i t'M_i t. In the mean, M_11 y² counts with the largest eigenvalue of mean M_11 (x,1)(x,1)', and M_1l y t_l with the
root of (mean M_1l) times that of mean M_1l (x,1)(x,1)', or with mean M_1l |(x,1)|.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .reference_hessian import Cells, Pass, Problem, passes
from .reference_interval import Range, Wide, length, up, wide
from .reference_tests import largest_eigenvalue


def moment_bound(problem: Problem, cells: Cells) -> Wide:
    """Lower bound of psi over one part (B = 1) of a region."""
    return -largest_form(problem, residual_forms(problem, cells, passes(problem, cells, problem.x, problem.y)))


def with_norms(problem: Problem, cells: Cells) -> Cells:
    """The cells (B = 1) with the norms of their blocks."""
    return replace(cells, norms=tuple(block_norms(cells, layer) for layer in range(problem.layers)))


def product(*factors: Wide) -> Wide:
    """Product of numbers >= 0, rounded up."""
    total = factors[0]
    for factor in factors[1:]:
        total = up(total * factor)
    return total


def _spectral(size: Wide) -> Wide:
    """Upper bound of the spectral norm of a matrix of numbers known exactly."""
    if not size.any():
        return wide(0.0)
    rows = size if size.shape[0] <= size.shape[1] else size.T
    point = Range(rows)
    gram = (point[:, None, :] * point[None, :, :]).sum(-1)
    return wide(np.minimum(Range(largest_eigenvalue(gram)).root().hi, length(size.reshape(1, -1))[0]))


def block_norms(cells: Cells, layer: int) -> tuple[Wide, Wide]:
    """(|W|, |(W, b)|)."""
    w, b = cells.w[layer][0], cells.b[layer][0]
    joint = Range(np.concatenate([w.lo, b.lo[:, None]], axis=1), np.concatenate([w.hi, b.hi[:, None]], axis=1))
    found = []
    for block in (w, joint):
        middle = 0.5 * (block.lo + block.hi)
        radius = np.maximum(up(block.hi - middle), up(middle - block.lo))
        best = np.minimum(_spectral(block.size()), up(_spectral(middle) + _spectral(radius)))
        found.append(up(best + cells.rho[layer][0]))
    return found[0], found[1]


def tangents(problem: Problem, cells: Cells, along: Pass) -> list[Wide]:
    """P_l (N, D), rounded up."""
    forms = [np.zeros((len(along.a_norm[0]), problem.layers), dtype=np.longdouble)]
    forms[0][:, 0] = 1.0
    for layer in range(1, problem.layers):
        steepest = along.slope[layer - 1].size().max(axis=1)
        form = product(forms[-1], product(cells.norms[layer][0], steepest)[:, None])
        form[:, layer] = up(form[:, layer] + along.a_norm[layer])
        forms.append(form)
    return forms


def residual_forms(problem: Problem, cells: Cells, along: Pass) -> Wide:
    """M (N, D, D), rounded up."""
    layers = problem.layers
    tangent = tangents(problem, cells, along)
    total = np.zeros((len(tangent[0]), layers, layers), dtype=np.longdouble)
    for layer in range(1, layers):
        steepest = along.slope[layer - 1].size().max(axis=1)
        mixed = product(tangent[layer - 1], product(along.delta_norm[layer], steepest)[:, None])
        total[:, layer, :] = up(total[:, layer, :] + mixed)
        total[:, :, layer] = up(total[:, :, layer] + mixed)
    for layer in range(layers - 1):
        sharpest = np.maximum(wide(0.0), -along.curved[layer].lo).max(axis=1)
        outer = product(tangent[layer][:, :, None], tangent[layer][:, None, :], sharpest[:, None, None])
        total = up(total + outer)
    return total


def largest_form(problem: Problem, forms: Wide) -> Wide:
    """Upper bound of the mean of t'M_i t over unit t."""
    layers = problem.layers
    inputs = problem.x if not problem.bias else np.concatenate([problem.x, np.ones((len(problem.x), 1))], axis=1)
    reach = length(np.abs(wide(inputs)))
    weighted = Range(forms) * problem.mass[:, None, None]
    plain = weighted.sum(0)
    form = plain.hi.copy()
    for layer in range(layers):
        point = Range(wide(inputs))
        moment = ((point * weighted[:, 0, layer][:, None])[:, :, None] * point[:, None, :]).sum(0)
        symmetric = Range(np.minimum(moment.lo, moment.lo.T), np.maximum(moment.hi, moment.hi.T))
        top = np.maximum(largest_eigenvalue(symmetric), wide(0.0))
        crude = up((weighted[:, 0, layer] * Range(reach)).sum(0).hi)
        if layer == 0:
            form[0, 0] = top
        else:
            form[0, layer] = form[layer, 0] = np.minimum(Range(product(top, plain.hi[0, layer])).root().hi, crude)
    for one in range(layers):
        for other in range(layers):
            form[one, other] = product(form[one, other], (problem.scale[one] * problem.scale[other]).hi)
    return np.maximum(largest_eigenvalue(Range(np.maximum(form, form.T))), wide(0.0))
