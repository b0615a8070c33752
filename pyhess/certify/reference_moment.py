"""The moment bound, written out once more for checking certificates.

With t_l the Frobenius norms of a direction's weights, c_l those of its biases, both together for the first and the last layer,
y = |V^1 (x, 1)| and P_l the coefficients of |sdot^l| <= P_l . (y, t_2, …, t_D, c_2, …, c_{D-1}),

    P_1 = e_1,    P_l = |W^l| sup phi' P_{l-1} + sup |a| e_l + e_{c_l},
    M = sum_{l>=2} |delta^l| sup phi' (e_l P_{l-1}' + P_{l-1} e_l') + sum_{l<D} max_j (-bar_j phi''_j)_+ P_l P_l',

v'Rv >= -mean_i t'M_i t. In the mean, M_11 y² counts with the largest eigenvalue of mean M_11 (x,1)(x,1)', and M_1l y t_l with the
root of (mean M_1l) times that of mean M_1l (x,1)(x,1)', or with mean M_1l |(x,1)|; the entries of later weights have another
bound in `reference_middles`. For one output the mixed
terms, the first sum, have a second bound in `reference_signed`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .reference_hessian import Cells, Pass, Problem, passes
from .reference_interval import Range, Wide, length, up, wide, zeros
from .reference_joint import Last, steep_and_curved
from .reference_middles import extended, hidden_form, middles, second_moment, spectral_norm
from .reference_signed import bare, signed_form
from .reference_tests import largest_eigenvalue


def moment_bound(problem: Problem, cells: Cells) -> Wide:
    """Lower bound of psi over one part (B = 1) of a region, with its norms."""
    return moment_bounds(problem, [cells])[0]


def moment_bounds(problem: Problem, parts: Sequence[Cells]) -> list[Wide]:
    """The same of several parts, all with biases apart or none: together they take fewer calls of NumPy."""
    return [bound for bound, _ in bounds_and_ranges(problem, parts)]


def bounds_and_ranges(problem: Problem, parts: Sequence[Cells]) -> list[tuple[Wide, Pass]]:
    """The same, and the enclosures that they are made from."""
    rows = len(problem.x)
    cells = parts[0] if len(parts) == 1 else _repeated(parts, rows)
    x, y = (np.tile(z, (len(parts), 1)) for z in (problem.x, problem.y))
    along = passes(problem, cells, x, y)
    mixed, curved = residual_forms(problem, cells, along)
    found = []
    for index, part in enumerate(parts):
        own = slice(index * rows, (index + 1) * rows)
        there = along.of(own)
        means = [mean_form(problem, forms[own]) for forms in (mixed, curved)]
        if problem.layers > 2:
            middle = middles(problem, part, there)
            for layer in range(1, problem.layers - 1):
                sizes = bare(problem, there.a_norm[layer])
                sharper = [hidden_form(problem, middle, layer, sizes, forms[own]) for forms in (mixed, curved)]
                means = [_smaller(form, other) for form, other in zip(means, sharper, strict=True)]
            means[0] = _smaller(means[0], signed_form(problem, part, there, middle))
        found.append((-_largest(up(means[0] + means[1])), there))
    return found


def _repeated(parts: Sequence[Cells], times: int) -> Cells:
    """Every part (B = 1) once for every datum, one part after the other."""

    def all_of(kind: Callable[[Cells], list[Wide]]) -> list[Wide]:
        return [np.repeat(np.concatenate(layer), times, axis=0) for layer in zip(*map(kind, parts), strict=True)]

    def ranges(kind: Callable[[Cells], list[Range]]) -> list[Range]:
        ends = (all_of(lambda part: [x.lo for x in kind(part)]), all_of(lambda part: [x.hi for x in kind(part)]))
        return [Range(lo, hi) for lo, hi in zip(*ends, strict=True)]

    weights = all_of(lambda part: [np.reshape(norm, 1) for norm, _ in part.norms])
    affine = all_of(lambda part: [np.reshape(norm, 1) for _, norm in part.norms])
    w, b, rho = ranges(lambda part: part.w), ranges(lambda part: part.b), all_of(lambda part: part.rho)
    return Cells(w, b, rho, tuple(zip(weights, affine, strict=True)), parts[0].apart)


def with_norms(problem: Problem, cells: Cells) -> Cells:
    """The cells (B = 1) with the norms of their blocks."""
    return replace(cells, norms=tuple(block_norms(cells, layer) for layer in range(problem.layers)))


def product(*factors: Wide) -> Wide:
    """Product of numbers >= 0, rounded up."""
    total = factors[0]
    for factor in factors[1:]:
        total = up(total * factor)
    return total


def block_norms(cells: Cells, layer: int) -> tuple[Wide, Wide]:
    """(|W|, |(W, b)|)."""
    w, b = cells.w[layer][0], cells.b[layer][0]
    joint = Range(np.concatenate([w.lo, b.lo[:, None]], axis=1), np.concatenate([w.hi, b.hi[:, None]], axis=1))
    found = []
    for block in (w, joint):
        middle = 0.5 * (block.lo + block.hi)
        radius = np.maximum(up(block.hi - middle), up(middle - block.lo))
        best = np.minimum(spectral_norm(block.size()), up(spectral_norm(middle) + spectral_norm(radius)))
        found.append(up(best + cells.rho[layer][0]))
    if cells.apart and layer == len(cells.w) - 1:
        # |(W, b)|² <= |W|² + |b|²
        found[1] = np.minimum(found[1], length(np.stack([found[0], length(b.size())])))
    return found[0], found[1]


def tangents(problem: Problem, cells: Cells, along: Pass, *, apart: bool = False) -> list[Wide]:
    """P_l, rounded up: (N, D) for weights and biases together, with sup |(a, 1)| e_l; (N, 2 D - 2) for biases apart."""
    forms = [zeros((len(along.a_norm[0]), _sizes(problem, apart)))]
    forms[0][:, 0] = 1.0
    for layer in range(1, problem.layers):
        steepest = along.slope[layer - 1].size().max(axis=1)
        form = product(forms[-1], product(cells.norms[layer][0], steepest)[:, None])
        forms.append(up(form + _own(problem, along, layer, apart=apart)))
    return forms


def _sizes(problem: Problem, apart: bool) -> int:
    return problem.layers + (max(0, problem.layers - 2) if apart and problem.bias else 0)


def _own(problem: Problem, along: Pass, layer: int, *, apart: bool) -> Wide:
    """The coefficients of |V (a, 1)|, V a layer's own direction."""
    form = zeros((len(along.a_norm[0]), _sizes(problem, apart)))
    form[:, layer] = along.a_norm[layer]
    if apart and problem.bias and layer < problem.layers - 1:
        form[:, layer], form[:, problem.layers + layer - 1] = bare(problem, along.a_norm[layer]), 1.0
    return form


def residual_forms(problem: Problem, cells: Cells, along: Pass) -> tuple[Wide, Wide]:
    """The two sums of M, rounded up: of the mixed terms and of the curved ones."""
    layers = problem.layers
    tangent = tangents(problem, cells, along, apart=True)
    pairs, total = (zeros((*tangent[0].shape, tangent[0].shape[1])) for _ in range(2))
    for layer in range(1, layers):
        steepest = along.slope[layer - 1].size().max(axis=1)
        mixed = product(tangent[layer - 1], product(along.delta_norm[layer], steepest)[:, None])
        if layer == layers - 1 and along.last is not None:
            mixed = _last_mixed(problem, cells, along, along.last, tangent)
        pairs[:, layer, :] = up(pairs[:, layer, :] + mixed)
        pairs[:, :, layer] = up(pairs[:, :, layer] + mixed)
    for layer in range(layers - 1):
        sharpest = np.maximum(wide(0.0), -along.curved[layer].lo).max(axis=1)
        outer = product(tangent[layer][:, :, None], tangent[layer][:, None, :], sharpest[:, None, None])
        if layer == layers - 2 and layer > 0 and along.last is not None:
            outer = _last_curved(problem, cells, along, along.last, tangent)
        total = up(total + outer)
    if layers > 2:
        _first_together(problem, along, total)
    return pairs, total


def _own_and_below(problem: Problem, along: Pass, tangent: list[Wide], layer: int) -> tuple[Wide, Wide]:
    """|V (a, 1)| and the form of |adot| entering the layer: |sdot| is at most the first plus |W| times the second."""
    below = product(along.slope[layer - 1].size().max(axis=1)[:, None], tangent[layer - 1])
    return _own(problem, along, layer, apart=True), below


def _last_mixed(problem: Problem, cells: Cells, along: Pass, last: Last, tangent: list[Wide]) -> Wide:
    """|r| |phi' sdot| in the last hidden layer; of W adot's part the root of sum_j (phi'_j |W_j|)² |adot|²."""
    layer = len(tangent) - 2
    if layer == 0:
        return product(last.peak[:, None], tangent[0])
    own, below = _own_and_below(problem, along, tangent, layer)
    through = np.minimum(product(last.peak, cells.norms[layer][0]), last.steep)
    return up(product(last.peak[:, None], own) + product(through[:, None], below))


def _last_curved(problem: Problem, cells: Cells, along: Pass, last: Last, tangent: list[Wide]) -> Wide:
    """sum_j kap_j (V_j . (a, 1) + W_j . adot)² with kap_j = (-r v_j phi''_j)_+; Cauchy and Schwarz for the mixed part."""
    layer = len(tangent) - 2
    sharpest = np.maximum(wide(0.0), -along.curved[layer].lo).max(axis=1)
    own, below = _own_and_below(problem, along, tangent, layer)
    norm = cells.norms[layer][0]
    through = np.minimum(product(sharpest, norm, norm), last.bent)
    between = Range(product(sharpest, through)).root().hi[:, None, None]
    mixed = product(own[:, :, None], below[:, None, :], between)
    form = product(own[:, :, None], own[:, None, :], sharpest[:, None, None])
    form = up(form + up(mixed + np.swapaxes(mixed, 1, 2)))
    return up(form + product(below[:, :, None], below[:, None, :], through[:, None, None]))


def _first_together(problem: Problem, along: Pass, total: Wide) -> None:
    """Lower the first layer's entry with itself: sup_k (-bar_k phi''_k)_+ plus a multiple of sup phi'², not both in one unit."""
    own = np.maximum(wide(0.0), -along.curved[0].lo).max(axis=1)
    steepest = along.slope[0].size().max(axis=1)
    rest = np.maximum(wide(0.0), up(total[:, 0, 0] - own))
    # The last hidden layer's part may have the slopes over their largest in it already.
    relative = problem.layers == 3 and along.last is not None and along.last.relative
    slopes = along.slope[0].size() if relative else np.broadcast_to(steepest[:, None], along.slope[0].lo.shape)
    large = slopes.min(axis=1) > 1e-100
    coefficient = (Range(rest)[:, None] / Range(np.where(slopes > 1e-100, slopes, wide(1.0))).square()).hi
    found = steep_and_curved(problem.activations[0], problem.betas[0], along.s[0], along.bar[0], coefficient)
    total[:, 0, 0] = np.where(large & (found < total[:, 0, 0]), found, total[:, 0, 0])


def largest_form(problem: Problem, forms: Wide) -> Wide:
    """Upper bound of the mean of t'M_i t over unit t."""
    return _largest(mean_form(problem, forms))


def _largest(form: Wide) -> Wide:
    return np.maximum(largest_eigenvalue(Range(np.maximum(form, form.T))), wide(0.0))


def _smaller(form: Wide, known: Wide | None) -> Wide:
    return form if known is None else wide(np.where(known < form, known, form))


def mean_form(problem: Problem, forms: Wide) -> Wide:
    """The mean of t'M_i t is at most t'form t for t >= 0."""
    sizes = forms.shape[1]
    scale = [problem.scale[layer] for layer in [*range(problem.layers), *range(1, problem.layers - 1)][:sizes]]
    inputs = extended(problem)
    reach = length(np.abs(wide(inputs)))
    weighted = Range(forms) * problem.mass[:, None, None]
    plain = weighted.sum(0)
    form = plain.hi.copy()
    for one in range(sizes):
        top = second_moment(inputs, weighted[:, 0, one])
        crude = up((weighted[:, 0, one] * Range(reach)).sum(0).hi)
        if one == 0:
            form[0, 0] = top
        else:
            form[0, one] = form[one, 0] = np.minimum(Range(product(top, plain.hi[0, one])).root().hi, crude)
    for one in range(sizes):
        for other in range(sizes):
            form[one, other] = product(form[one, other], (scale[one] * scale[other]).hi)
    return form
