"""Ranges of the loss's third derivatives over a ball for checking certificates: first and second derivatives forwards, datum by
datum and pair by pair of parameters, with the loss's derivatives by the activations.

With J_j = ds_j/dtheta and K_j = d²s_j/dtheta² of a layer's units, T_k = phi' J_k and B_k = phi'' J_k J_k' + phi' K_k of those below,

    J_j = sum_k W_jk T_k + (own weights and bias),    K_j = sum_k (W_jk B_k + e_jk T_k' + T_k e_jk'),
    d³L = mean [ sum_j (c_j J_j J_j J_j + <d_j K_j, J_j>) + sum_jk <delta_j B_k, e_jk> ],

<S, u>_abc = S_ab u_c + S_ac u_b + S_bc u_a; c = bar phi''' and d = bar phi'' for hidden units, l''' and l'' for outputs. Symmetric
matrices are held as their lower triangles row by row, so that those of the first layers come first. The ranges of a cube
J_a J_b J_c in its three orders are intersected.
"""

from __future__ import annotations

from time import monotonic

import numpy as np

from ..regions import Ball
from .reference_hessian import Cells, Pass, Problem, ball_cells, passes
from .reference_interval import Range, Wide, dot, down, up, wide, zeros
from .reference_moment import with_norms
from .reference_ranges import activation, logistic_derivative

_ONE = Range(wide(1.0))
#: Concentric balls: the mean along every way from the centre is that of the balls that its parts lie in.
_SHELLS = 6
#: Numbers in an array at once.
_NUMBERS = 2**18
#: Seconds per product, and for the ranges of one unit of one datum, for estimates.
_PRODUCT_SECONDS, _UNIT_SECONDS = 5e-8, 3e-3


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
    rows = max(1, _NUMBERS // (widest**2 * _triangle(problem.num_params)))
    for shell in range(1, _SHELLS + 1):
        radii = np.broadcast_to(up(up(radius * shell) / _SHELLS), (1, problem.layers))
        cells = with_norms(problem, ball_cells(problem, centre, radii))
        along = passes(problem, cells, problem.x, problem.y)
        for begin in range(0, len(problem.x), rows):
            if monotonic() > deadline:
                return None
            some = slice(begin, begin + rows)
            sums.add(cells, along.of(some), problem.mass[some] * share)
    return sums.tensor()


class _Sums:
    """The sums over data of J_a J_b J_c c and of S_ab u_c, both (c, pair ab)."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        shape = (problem.num_params, _triangle(problem.num_params))
        self._cubes, self._mixed = (Range(zeros(shape), zeros(shape)) for _ in range(2))

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
        """c and d (n, m)."""
        problem, s = self._problem, along.s[layer]
        if layer < problem.layers - 1:
            return along.bar[layer] * activation(problem.activations[layer], problem.betas[layer], 3, s), along.curved[layer]
        if problem.loss == "squared_error":
            return None, Range(wide(np.ones(s.lo.shape)))
        assert problem.loss == "logistic"
        return logistic_derivative(2, s), logistic_derivative(1, s)

    def _add_products(self, target: Range, factor: Range, pairs: Range, first: Range) -> None:
        """sum factor S_ab J_c over data and units."""
        count, size = pairs.lo.shape[2], first.lo.shape[2]
        left = (factor[:, :, None] * pairs).reshape(-1, count)
        right = first.reshape(-1, size)
        step = max(1, _NUMBERS // left.lo.size)
        for begin in range(0, size, step):
            some = slice(begin, min(begin + step, size))
            _add_at(target, (some, slice(count)), dot(left[:, None, :], right[:, some, None], 0))

    def _add_weights(self, layer: int, delta: Range, bent: Range) -> None:
        """sum_jk delta_j B_k e_jk over data."""
        fan_in, count = bent.lo.shape[1:]
        for unit in range(delta.lo.shape[1]):
            begin = self._problem.weight_at[layer] + unit * fan_in
            _add_at(self._mixed, (slice(begin, begin + fan_in), slice(count)), dot(delta[:, unit, None, None], bent, 0))

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
        kappa = Range(*(np.concatenate([np.repeat(end, count) for end, count in self._scales(side)]) for side in ("lo", "hi")))
        return total * (kappa[:, None, None] * kappa[None, :, None] * kappa[None, None, :])

    def _scales(self, side: str) -> list[tuple[Wide, int]]:
        problem = self._problem
        return [
            (getattr(problem.scale[layer], side), _end(problem, layer) - problem.weight_at[layer]) for layer, _ in _layers(problem)
        ]


def _layers(problem: Problem) -> list[tuple[int, int]]:
    return list(enumerate(problem.widths[1:]))


def _end(problem: Problem, layer: int) -> int:
    """Parameters of the layer and those before."""
    return problem.bias_at[layer] + (problem.widths[layer + 1] if problem.bias else 0)


def _triangle(size: int) -> int:
    return size * (size + 1) // 2


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
    lo, hi = (zeros((rows, units, _end(problem, layer))) for _ in range(2))
    start = problem.weight_at[layer]
    if tangent is not None:
        through = dot(_weights(cells, layer)[None, :, :, None], tangent[:, None, :, :], 2)
        lo[:, :, :start], hi[:, :, :start] = through.lo, through.hi
    for unit in range(units):
        own = slice(start + unit * fan_in, start + (unit + 1) * fan_in)
        lo[:, unit, own], hi[:, unit, own] = entering.lo, entering.hi
        if problem.bias:
            lo[:, unit, problem.bias_at[layer] + unit] = hi[:, unit, problem.bias_at[layer] + unit] = wide(1.0)
    return Range(lo, hi)


def _second(problem: Problem, cells: Cells, layer: int, tangent: Range, bent: Range) -> Range:
    """K (n, m, pairs); a layer's own weights meet only parameters before, so nothing is there twice."""
    units = problem.widths[layer + 1]
    rows, fan_in, start = tangent.lo.shape
    through = dot(_weights(cells, layer)[None, :, :, None], bent[:, None, :, :], 2)
    lo, hi = (zeros((rows, units, _triangle(_end(problem, layer)))) for _ in range(2))
    lo[:, :, : _triangle(start)], hi[:, :, : _triangle(start)] = through.lo, through.hi
    for unit in range(units):
        for k in range(fan_in):
            begin = _triangle(start + unit * fan_in + k)
            lo[:, unit, begin : begin + start], hi[:, unit, begin : begin + start] = tangent.lo[:, k], tangent.hi[:, k]
    return Range(lo, hi)


def _outer(first: Range) -> Range:
    """J_a J_b (n, m, pairs)."""
    row, column = np.tril_indices(first.lo.shape[2])
    found = first[:, :, row] * first[:, :, column]
    squares, places = first.square(), np.flatnonzero(row == column)
    found.lo[:, :, places], found.hi[:, :, places] = squares.lo, squares.hi
    return found
