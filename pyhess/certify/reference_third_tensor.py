"""Ranges of the loss's third derivatives over a ball for checking certificates: first and second derivatives forwards, pair by
pair of parameters, with the ranges of the loss's derivatives by the activations.

With J_j = ds_j/dtheta and K_j = d²s_j/dtheta² of a layer's units, T_k = phi' J_k and B_k = phi'' J_k J_k' + phi' K_k of those
below,

    J_j = sum_k W_jk T_k + (own weights and bias),    K_j = sum_k (W_jk B_k + e_jk T_k' + T_k e_jk'),
    d³L = mean [ sum_j (c_j J_j J_j J_j + <d_j K_j, J_j>) + sum_jk <delta_j B_k, e_jk> ],

<S, u>_abc = S_ab u_c + S_ac u_b + S_bc u_a; c = bar phi''' and d = bar phi'' for hidden units, l''' and l'' for outputs.
Symmetric matrices are held as their lower triangles row by row, so that those of the first layers come first. The ranges of the
sums of J_a J_b J_c in its three orders are intersected.
"""

from __future__ import annotations

from time import monotonic

import numpy as np

from ..regions import Ball
from .reference_hessian import Cells, Pass, Problem, ball_cells, passes
from .reference_interval import Range, down, matmul, up, wide
from .reference_moment import with_norms
from .reference_ranges import activation, logistic_derivative

_ONE = Range(wide(1.0))
#: Concentric balls: the mean along every way from the centre is that of the balls that its parts lie in.
_SHELLS = 6
#: Numbers in an array at once, and data.
_NUMBERS, _ROWS = 2**17, 128
#: A range for zero: calculating with zeros and the numbers next to them takes twenty times as long on some processors.
_NOTHING = (-1e-300, 3e-300)
#: Seconds per product, and for the ranges of one unit of one datum, for estimates.
_PRODUCT_SECONDS, _UNIT_SECONDS = 1.5e-8, 2e-3


def third_seconds(problem: Problem) -> float:
    """Time that `third_tensor` takes in long doubles, roughly."""
    products = sum(2.0 * units * _triangle(_end(problem, layer)) * _end(problem, layer) for layer, units in _layers(problem))
    units = sum(problem.widths[1:])
    return _SHELLS * len(problem.x) * (_PRODUCT_SECONDS * products + _UNIT_SECONDS * units)


def third_tensor(problem: Problem, region: Ball, deadline: float) -> Range | None:
    """Means (P, P, P) over a way from the centre of d³L, for every way in the ball; None if the deadline passes."""
    sums = _Sums(problem)
    centre, radius = wide(region.center), wide(region.radius)
    share = _ONE / Range(wide(float(_SHELLS)))
    widest = max(problem.widths)
    rows = min(_ROWS, max(1, _NUMBERS // (widest * _triangle(problem.num_params))))
    for shell in range(1, _SHELLS + 1):
        radii = np.broadcast_to(up(up(radius * shell) / _SHELLS), (1, problem.layers))
        cells = with_norms(problem, ball_cells(problem, centre, radii))
        for begin in range(0, len(problem.x), rows):
            if monotonic() > deadline:
                return None
            some = slice(begin, begin + rows)
            sums.add(cells, passes(problem, cells, problem.x[some], problem.y[some]), problem.mass[some] * share)
    return sums.tensor()


class _Sums:
    """The sums over data of J_a J_b J_c c and of S_ab u_c, both (c, pair ab)."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        shape = (problem.num_params, _triangle(problem.num_params))
        self._cubes, self._mixed = (_nothing(shape) for _ in range(2))

    def add(self, cells: Cells, along: Pass, mass: Range) -> None:
        """Some data: the ranges along the network, and their weights (n,)."""
        problem = self._problem
        tangent = bent = None  # T (n, m, P), B (n, m, pairs)
        for layer, _units in _layers(problem):
            first = _first(problem, cells, along, layer, tangent)
            second = None
            if tangent is not None and bent is not None:
                second = _second(problem, cells, layer, tangent, bent)
                self._add_weights(layer, along.delta[layer] * mass[:, None], bent)
            outer = _outer(first)
            cubic, mixed = self._factors(along, layer)
            if cubic is not None:
                self._add_products(self._cubes, cubic * mass[:, None], outer, first)
            if second is not None:
                self._add_products(self._mixed, mixed * mass[:, None], second, first)
            if layer < problem.layers - 1:
                slope = along.slope[layer][:, :, None]
                tangent = slope * first
                bend = activation(problem.activations[layer], problem.betas[layer], 2, along.s[layer])
                bent = bend[:, :, None] * outer
                bent = bent if second is None else bent + slope * second

    def _factors(self, along: Pass, layer: int) -> tuple[Range | None, Range]:
        """The factors c and d (n, m)."""
        problem, s = self._problem, along.s[layer]
        if layer < problem.layers - 1:
            return along.bar[layer] * activation(problem.activations[layer], problem.betas[layer], 3, s), along.curved[layer]
        if problem.loss == "squared_error":
            return None, Range(wide(np.ones(s.lo.shape)))
        assert problem.loss == "logistic"
        return logistic_derivative(2, s), logistic_derivative(1, s)

    def _add_products(self, target: Range, factor: Range, pairs: Range, first: Range) -> None:
        """Add factor S_ab J_c, summed over data and units."""
        count, size = pairs.lo.shape[2], first.lo.shape[2]
        left = (factor[:, :, None] * pairs).reshape(-1, count)
        right = first.reshape(-1, size)
        _add_at(target, (slice(size), slice(count)), matmul(Range(right.lo.T, right.hi.T), left))

    def _add_weights(self, layer: int, delta: Range, bent: Range) -> None:
        """Add delta_j B_k e_jk, summed over data and weights."""
        rows, _, count = bent.lo.shape
        sums = matmul(Range(delta.lo.T, delta.hi.T), bent.reshape(rows, -1)).reshape(-1, count)
        begin = self._problem.weight_at[layer]
        _add_at(self._mixed, (slice(begin, begin + len(sums.lo)), slice(count)), sums)

    def tensor(self) -> Range:
        """The sum of both, in every order of the indices."""
        problem = self._problem
        size = problem.num_params
        row, column = np.maximum.outer(np.arange(size), np.arange(size)), np.minimum.outer(np.arange(size), np.arange(size))
        pair = row * (row + 1) // 2 + column
        cubes, mixed = self._cubes[:, pair], self._mixed[:, pair]
        orders = ((0, 1, 2), (1, 0, 2), (1, 2, 0))
        lows, highs = ([end.transpose(order) for order in orders] for end in (cubes.lo, cubes.hi))
        total = Range(np.maximum(np.maximum(lows[0], lows[1]), lows[2]), np.minimum(np.minimum(highs[0], highs[1]), highs[2]))
        for order in orders:
            total = total + Range(mixed.lo.transpose(order), mixed.hi.transpose(order))
        counts = [_end(problem, layer) - problem.weight_at[layer] for layer, _ in _layers(problem)]
        lo, hi = (
            np.concatenate([np.repeat(*pair) for pair in zip(ends, counts, strict=True)])
            for ends in ([scale.lo for scale in problem.scale], [scale.hi for scale in problem.scale])
        )
        kappa = Range(lo, hi)
        return total * (kappa[:, None, None] * kappa[None, :, None] * kappa[None, None, :])


def _layers(problem: Problem) -> list[tuple[int, int]]:
    return list(enumerate(problem.widths[1:]))


def _end(problem: Problem, layer: int) -> int:
    """Parameters of the layer and those before."""
    return problem.bias_at[layer] + (problem.widths[layer + 1] if problem.bias else 0)


def _triangle(size: int) -> int:
    return size * (size + 1) // 2


def _nothing(shape: tuple[int, ...]) -> Range:
    return Range(*(wide(np.full(shape, end)) for end in _NOTHING))


def _add_at(array: Range, where: tuple[slice, ...], more: Range) -> None:
    array.lo[where] = down(array.lo[where] + more.lo)
    array.hi[where] = up(array.hi[where] + more.hi)


def _weights(cells: Cells, layer: int) -> Range:
    """W (out, in), every entry's change allowed for."""
    w, rho = cells.w[layer][0], cells.rho[layer]
    return Range(down(w.lo - rho), up(w.hi + rho))


def _first(problem: Problem, cells: Cells, along: Pass, layer: int, tangent: Range | None) -> Range:
    """J (n, m, P) with respect to the layer's parameters and those before."""
    units, entering = problem.widths[layer + 1], along.a[layer]
    rows, fan_in = entering.lo.shape
    found = _nothing((rows, units, _end(problem, layer)))
    lo, hi = found.lo, found.hi
    start = problem.weight_at[layer]
    if tangent is not None:
        through = matmul(_weights(cells, layer), tangent)
        lo[:, :, :start], hi[:, :, :start] = through.lo, through.hi
    for unit in range(units):
        own = slice(start + unit * fan_in, start + (unit + 1) * fan_in)
        lo[:, unit, own], hi[:, unit, own] = entering.lo, entering.hi
        if problem.bias:
            lo[:, unit, problem.bias_at[layer] + unit] = hi[:, unit, problem.bias_at[layer] + unit] = wide(1.0)
    return found


def _second(problem: Problem, cells: Cells, layer: int, tangent: Range, bent: Range) -> Range:
    """K (n, m, pairs); a layer's own weights meet only parameters before, so nothing is there twice."""
    units = problem.widths[layer + 1]
    rows, fan_in, start = tangent.lo.shape
    through = matmul(_weights(cells, layer), bent)
    found = _nothing((rows, units, _triangle(_end(problem, layer))))
    lo, hi = found.lo, found.hi
    lo[:, :, : _triangle(start)], hi[:, :, : _triangle(start)] = through.lo, through.hi
    for unit in range(units):
        for k in range(fan_in):
            begin = _triangle(start + unit * fan_in + k)
            lo[:, unit, begin : begin + start], hi[:, unit, begin : begin + start] = tangent.lo[:, k], tangent.hi[:, k]
    return found


def _outer(first: Range) -> Range:
    """J_a J_b (n, m, pairs)."""
    row, column = np.tril_indices(first.lo.shape[2])
    found = first[:, :, row] * first[:, :, column]
    squares, places = first.square(), np.flatnonzero(row == column)
    found.lo[:, :, places], found.hi[:, :, places] = squares.lo, squares.hi
    return found
