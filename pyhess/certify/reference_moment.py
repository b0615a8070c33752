"""The moment bound, written out once more for checking certificates.

With t_l the Frobenius norms of a direction's blocks, y = |V^1 (x, 1)| and P_l the coefficients of |sdot^l| <= P_l . (y, t_2, …),

    P_1 = e_1,    P_l = |W^l| sup phi' P_{l-1} + sup |(a, 1)| e_l,
    M = sum_{l>=2} |delta^l| sup phi' (e_l P_{l-1}' + P_{l-1} e_l') + sum_{l<D} max_j (-bar_j phi''_j)_+ P_l P_l',

v'Rv >= -mean_i t'M_i t. In the mean, M_11 y² counts with the largest eigenvalue of mean M_11 (x,1)(x,1)', and M_1l y t_l with the
root of (mean M_1l) times that of mean M_1l (x,1)(x,1)', or with mean M_1l |(x,1)|.
"""

from __future__ import annotations

import numpy as np

from .reference_hessian import Cells, Pass, Problem, passes, with_one
from .reference_interval import Range, Wide, length, up, wide
from .reference_tests import largest_eigenvalue

_ONE = Range(wide(1.0))
#: |phi(0)| and sup |phi'|.
_GROWTH = {"sigmoid": (0.5, 0.25), "softplus": (0.69314718055994531, 1.0), "gelu": (0.0, 1.12890414518515530)}


def moment_bound(problem: Problem, cells: Cells) -> Wide:
    """Lower bound of psi over one part (B = 1) of a region."""
    along = passes(problem, cells, problem.x, problem.y)
    norms = [_block_norms(cells, layer) for layer in range(problem.layers)]
    a_norm, delta_norm = _norms(problem, cells, along, norms)
    forms = _forms(problem, along, norms, a_norm, delta_norm)
    return _mean(problem, forms)


def _product(*factors: Wide) -> Wide:
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
    return np.minimum(Range(largest_eigenvalue(gram)).root().hi, length(size.reshape(1, -1))[0])


def _block_norms(cells: Cells, layer: int) -> tuple[Wide, Wide]:
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


def _norms(
    problem: Problem, cells: Cells, along: Pass, norms: list[tuple[Wide, Wide]]
) -> tuple[list[Wide], list[Wide]]:
    """Sup |(a, 1)| (N,) entering each layer and sup |delta| of each layer, from the entries or from the blocks' norms."""
    last = problem.layers - 1
    a_norm = [with_one(problem, length(along.a[0].size()))]
    s_norm = a_norm[0]
    for layer in range(last + 1):
        s_norm = np.minimum(length(along.s[layer].size()), _product(norms[layer][1], a_norm[-1]))
        if layer == last:
            break
        at_zero, steepest = _GROWTH.get(problem.activations[layer], (0.0, 1.0))
        offset = up(Range(wide(problem.widths[layer + 1])).root().hi * up(up(at_zero) / problem.betas[layer]))
        grown = up(_product(wide(steepest), s_norm) + offset)
        a_norm.append(with_one(problem, np.minimum(length(along.a[layer + 1].size()), grown)))
    r_norm = length(along.delta[last].size())
    if problem.loss == "squared_error":
        r_norm = np.minimum(r_norm, up(s_norm + length(np.abs(problem.y))))
    if problem.loss == "cross_entropy":
        r_norm = np.minimum(r_norm, _label_residual(problem, along))
    delta_norm = [r_norm]
    for layer in range(last - 1, -1, -1):
        steepest = along.slope[layer].size().max(axis=1)
        by_norm = _product(norms[layer + 1][0], delta_norm[0], steepest)
        delta_norm.insert(0, np.minimum(length(along.delta[layer].size()), by_norm))
    return a_norm, delta_norm


def _label_residual(problem: Problem, along: Pass) -> Wide:
    """For labels |p - e_y| <= sqrt 2 (1 - p_y), as the other entries sum to 1 - p_y."""
    own = (along.delta[-1].size() * problem.y).sum(axis=1)  # 1 - p_y, exactly one term
    labels = ((problem.y == 1.0) | (problem.y == 0.0)).all(axis=1) & (problem.y.sum(axis=1) == 1.0)
    return np.where(labels, _product(Range(wide(2.0)).root().hi, own), wide(np.inf))


def _forms(
    problem: Problem, along: Pass, norms: list[tuple[Wide, Wide]], a_norm: list[Wide], delta_norm: list[Wide]
) -> Wide:
    """M (N, D, D), rounded up."""
    count, layers = len(problem.x), problem.layers
    tangent = [np.zeros((count, layers), dtype=np.longdouble)]
    tangent[0][:, 0] = 1.0
    total = np.zeros((count, layers, layers), dtype=np.longdouble)
    for layer in range(1, layers):
        steepest = along.slope[layer - 1].size().max(axis=1)
        form = _product(tangent[-1], _product(norms[layer][0], steepest)[:, None])
        mixed = _product(tangent[-1], _product(delta_norm[layer], steepest)[:, None])
        form[:, layer] = up(form[:, layer] + a_norm[layer])
        total[:, layer, :] = up(total[:, layer, :] + mixed)
        total[:, :, layer] = up(total[:, :, layer] + mixed)
        tangent.append(form)
    for layer in range(layers - 1):
        sharpest = np.maximum(wide(0.0), -along.curved[layer].lo).max(axis=1)
        outer = _product(tangent[layer][:, :, None], tangent[layer][:, None, :], sharpest[:, None, None])
        total = up(total + outer)
    return total


def _mean(problem: Problem, forms: Wide) -> Wide:
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
            form[0, layer] = form[layer, 0] = np.minimum(Range(_product(top, plain.hi[0, layer])).root().hi, crude)
    for one in range(layers):
        for other in range(layers):
            form[one, other] = _product(form[one, other], (problem.scale[one] * problem.scale[other]).hi)
    return -np.maximum(largest_eigenvalue(Range(form)), wide(0.0))
