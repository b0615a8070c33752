"""Entry by entry enclosures of the residual part R of the Hessian, and of the Hessian H, for checking certificates.

One datum after the other, the chain rule written out with `Range`s that hold many boxes of parameters at once. With s^m the
pre-activations of layer m, Q^m = d²<r, f>/ds^m ds^m for fixed r and J^{lm} = ds^l/ds^m,

    bar^m = W' delta^{m+1},    delta^m = bar^m phi',    Q^m = phi' (W' Q^{m+1} W) phi' + diag(bar^m phi''),
    R[(m, k, p), (l, h, q)] = mean (sum_u Q^l_hu J^lm_uk a_q + delta^l_h phi'_q J^{l-1,m}_qk) a_p,    m <= l,

a the activations entering the layers m and l, the second term for m < l and weights only; the Gauss–Newton part is
mean J^Dm' A J^Dl a_p a_q.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..objective import Objective
from .reference_common import CommonRadius, moved
from .reference_interval import Range, Wide, down, length, up, wide, zeros
from .reference_joint import Last, LastLayer, joint_last
from .reference_output_slopes import OutputSlopes, applies
from .reference_ranges import activation, gradient_norm, logistic_derivative, loss_gradient, softmax
from .reference_shared import Rows

_ONE = Range(wide(1.0))


@dataclass(frozen=True)
class Problem:
    """The objective's numbers as ranges."""

    widths: tuple[int, ...]
    activations: tuple[str, ...]
    betas: tuple[float, ...]
    bias: bool
    loss: str
    x: Wide  # (N, d)
    y: Wide  # (N, K)
    mass: Range  # (N,), summing to one
    scale: tuple[Range, ...]  # κ of the layers
    weight_at: tuple[int, ...]
    bias_at: tuple[int, ...]
    num_params: int

    @staticmethod
    def of(obj: Objective) -> Problem:
        """From the objective's description: layout and scales are derived anew."""
        net, count = obj.net, obj.data.num_samples
        at, weight_at, bias_at = 0, [], []
        for fan_in, fan_out in pairwise(net.widths):
            weight_at.append(at)
            at += fan_in * fan_out
            bias_at.append(at)
            at += fan_out if net.bias else 0
        ntk = net.parametrization == "ntk"
        # That of one input is one, without the rounding of a root.
        scale = tuple(_ONE / Range(wide(fan_in)).root() if ntk and fan_in > 1 else _ONE for fan_in in net.widths[:-1])
        given = Range(np.ones(count) if obj.data.weights is None else wide(obj.data.weights))
        mass = given / given.sum(0)
        return Problem(
            net.widths, net.activations, net.betas, net.bias, obj.loss, wide(obj.data.X), wide(_targets(obj)), mass, scale,
            tuple(weight_at), tuple(bias_at), at,
        )  # fmt: skip

    @property
    def layers(self) -> int:
        """D."""
        return len(self.widths) - 1


def _targets(obj: Objective) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Targets (N, K): labels as rows of zeros with a one."""
    y, outputs = np.asarray(obj.data.y), obj.net.widths[-1]
    if obj.loss == "cross_entropy" and y.ndim == 1:
        return np.asarray(y[:, None] == np.arange(outputs), dtype=np.float64)
    return y.astype(np.float64).reshape(len(y), outputs)


@dataclass(frozen=True)
class Cells:
    """Parts of a region: every layer's weights W (B, out, in) and biases b (B, out) times κ, plus a change of (W, b) of at most
    rho (B,) in the Frobenius norm.
    """

    w: list[Range]
    b: list[Range]
    rho: list[Wide]
    #: Bounds (B,) of the spectral norms of W and (W, b) for every layer, rho included; () if not known.
    norms: tuple[tuple[Wide, Wide], ...] = ()
    #: Whether the last rho is that of the output weights alone, and the output biases' ranges hold all of theirs.
    apart: bool = False


def box_cells(problem: Problem, low: Wide, high: Wide) -> Cells:
    """Boxes (B, P)."""
    return _cells(problem, low, high, [zeros(len(low))] * problem.layers)


def ball_cells(problem: Problem, centre: Wide, radii: Wide) -> Cells:
    """Parts of a ball where layer l's block is within radii[:, l] of the centre's."""
    points = np.broadcast_to(wide(centre), (len(radii), problem.num_params))
    rho = [up(radii[:, layer] * problem.scale[layer].hi) for layer in range(problem.layers)]
    return _cells(problem, points, points, rho)


def _cells(problem: Problem, low: Wide, high: Wide, rho: list[Wide]) -> Cells:
    w, b = [], []
    for layer, (fan_in, fan_out) in enumerate(pairwise(problem.widths)):
        at, end = problem.weight_at[layer], problem.bias_at[layer]
        kappa = problem.scale[layer]
        weight = Range(low[:, at:end], high[:, at:end]).reshape(len(low), fan_out, fan_in)
        w.append(weight if kappa is _ONE else weight * kappa)
        if problem.bias:
            offset = Range(low[:, end : end + fan_out], high[:, end : end + fan_out])
            b.append(offset if kappa is _ONE else offset * kappa)
        else:
            b.append(Range(np.zeros((len(low), fan_out))))
    return Cells(w, b, rho)


@dataclass(frozen=True)
class Pass:
    """Enclosures along the network, leading axis boxes or data; layer l = 0 … D-1."""

    a: list[Range]  # entering layer l
    s: list[Range]
    slope: list[Range]  # phi', hidden layers
    bar: list[Range]  # dL/da, hidden layers
    curved: list[Range]  # bar phi''
    delta: list[Range]  # dL/ds
    a_norm: list[Wide]  # |(a, 1)| entering layer l
    delta_norm: list[Wide]
    last: Last | None  # the residual and the last hidden layer together, where that is known

    def of(self, data: slice) -> Pass:
        """Those of some data."""
        a, slope, pre, bar, curved, delta = ([x[data] for x in kind] for kind in
                                             (self.a, self.slope, self.s, self.bar, self.curved, self.delta))  # fmt: skip
        a_norm, delta_norm = ([x[data] for x in kind] for kind in (self.a_norm, self.delta_norm))
        return Pass(a, pre, slope, bar, curved, delta, a_norm, delta_norm, None)


def with_one(problem: Problem, norm: Wide) -> Wide:
    """|(a, 1)| from |a|, without biases |a|."""
    return (Range(norm).square() + _ONE).root().hi if problem.bias else norm


#: |phi(0)| and sup |phi'|, so that |phi(s)| <= |phi(0)| + sup |phi'| |s|; softplus in units of 1/beta.
#: Rounded up in the last digit.
_GROWTH = {"sigmoid": (0.5, 0.25), "softplus": (0.69314718055995, 1.0), "gelu": (0.0, 1.128904145185156)}


def passes(problem: Problem, cells: Cells, x: Wide, y: Wide) -> Pass:
    """Forwards and backwards for inputs (n, d) and targets (n, K); n or the number of cells is 1, or every input has its own."""
    last = problem.layers - 1
    slope: list[Range] = []
    a, s = [Range(x)], []
    a_norm = [with_one(problem, length(np.abs(x)))]
    s_norm = a_norm[0]
    hidden_norm, bare_norm = s_norm, s_norm  # |s| of the last hidden layer, |phi(s)|
    one_each, through = len(cells.rho[0]) in (1, len(x)), None
    common = CommonRadius(problem, cells, x) if one_each and any(rho.any() for rho in cells.rho) else None
    for layer in range(last + 1):
        turning = bare_norm if cells.apart and layer == last else a_norm[-1]
        s.append(moved((cells.w[layer] * a[-1][:, None, :]).sum(-1) + cells.b[layer], cells.rho[layer], turning))
        if common is not None:
            s[-1] = common.forwards(layer, s[-1], turning)
        if layer == last and applies(problem):
            through = OutputSlopes(cells, slope)
            s[-1] = s[-1] if common is None else common.outputs(s[-1], through, a_norm, turning)
        s_norm = length(s[-1].size())
        if cells.norms:
            s_norm = np.minimum(s_norm, up(cells.norms[layer][1] * a_norm[-1]))
        if layer < last:
            name, beta = problem.activations[layer], problem.betas[layer]
            a.append(activation(name, beta, 0, s[-1]))
            slope.append(activation(name, beta, 1, s[-1]))
            at_zero, steepest = _GROWTH.get(name, (0.0, 1.0))
            offset = up(up(up(at_zero) / beta) * Range(wide(problem.widths[layer + 1])).root().hi)
            grown = up(up(up(steepest) * s_norm) + offset)
            hidden_norm, bare_norm = s_norm, np.minimum(length(a[-1].size()), grown)
            a_norm.append(with_one(problem, bare_norm))
    delta = [loss_gradient(problem.loss, s[-1], Range(y))]
    residual, delta_norm = delta[0], [gradient_norm(problem.loss, delta[0], s_norm, y)]
    if common is not None:
        common.turn(delta[0], y)
    bar: list[Range] = []
    curved: list[Range] = []
    together: Last | None = None
    for layer in range(last - 1, -1, -1):
        above, rho = cells.w[layer + 1], cells.rho[layer + 1]
        value = moved((above * delta[0][:, :, None]).sum(1), rho, delta_norm[0])
        columns = up(length(np.swapaxes(above.size(), 1, 2)) + rho[:, None])
        bar.insert(0, value.within(up(columns * delta_norm[0][:, None])))
        if common is not None:
            bar[0] = common.backwards(layer, bar[0], slope[layer], delta[0], delta_norm[0])
        if through is not None:
            bar[0] = through.gradient(bar[0], layer, residual)
        bend = activation(problem.activations[layer], problem.betas[layer], 2, s[layer])
        curved.insert(0, bar[0] * bend)
        delta.insert(0, bar[0] * slope[layer])
        norm = length(delta[0].size())
        if cells.norms:
            norm = np.minimum(norm, up(up(cells.norms[layer + 1][0] * delta_norm[0]) * slope[layer].size().max(axis=1)))
        delta_norm.insert(0, norm)
        if layer == last - 1 and cells.norms and problem.loss == "squared_error" and problem.widths[-1] == 1:
            ball = None if common is None or layer == 0 else common.rows(layer, a_norm[layer])
            together = _together(
                problem, cells, y, (s[layer], hidden_norm, bare_norm), slope[layer], curved[0], delta, delta_norm, ball
            )
            curved[0], delta[0], delta_norm[0] = together.curved, together.delta, together.delta_norm
    return Pass(a, s, slope, bar, curved, delta, a_norm, delta_norm, together)


def _together(
    problem: Problem, cells: Cells, y: Wide, s: tuple[Range, Wide, Wide], slope: Range, curved: Range, delta: list[Range],
    delta_norm: list[Wide], ball: Rows | None,
) -> Last:  # fmt: skip
    (pre, pre_norm, entering), name, beta = s, problem.activations[-1], problem.betas[-1]
    below = up(length(cells.w[-2].size()) + cells.rho[-2][:, None])
    constant = cells.b[-1] - Range(y)
    shared = problem.bias and not cells.apart
    layer = LastLayer(name, beta, shared, cells.w[-1][:, 0], constant, cells.rho[-1], entering, below, ball)
    unknown = np.full_like(delta_norm[1], np.inf)
    peak = up(delta_norm[1] * slope.size().max(axis=1))
    return joint_last(layer, pre, pre_norm, delta[1], Last(curved, delta[0], delta_norm[0], peak, unknown, unknown))


def enclosures(problem: Problem, cells: Cells, *, gauss: bool) -> tuple[Range, Range | None]:
    """(R, H) over the cells, (B, P, P); H only if asked for."""
    size, boxes = problem.num_params, len(cells.rho[0])
    residual, whole = _Sum(problem, boxes), _Sum(problem, boxes)
    together = passes(problem, cells, problem.x, problem.y) if boxes == 1 else None
    for i in range(len(problem.x)):
        one = slice(i, i + 1)
        along = passes(problem, cells, problem.x[one], problem.y[one]) if together is None else together.of(one)
        mass = problem.mass[i]
        jacobians = _jacobians(problem, cells, along)
        for m, layer, block in _residual_blocks(problem, cells, along, jacobians, mass):
            residual.add(m, layer, block)
        if gauss:
            # The softmax's Hessian is that of a probability row; targets may sum to a little more or less than one.
            total = Range(problem.y[i]).sum(0) if problem.loss == "cross_entropy" else _ONE
            for m, layer, block in _gauss_blocks(problem, along, jacobians, mass * total):
                whole.add(m, layer, block)
    r = residual.matrix()
    assert r.lo.shape == (boxes, size, size)
    return r, r + whole.matrix() if gauss else None


class _Sum:
    """Collects blocks (B, k, p, h, q), p and q counting the entries of (a, 1), of the upper triangle of layers."""

    def __init__(self, problem: Problem, boxes: int) -> None:
        self._problem = problem
        shape = (boxes, problem.num_params, problem.num_params)
        self._lo, self._hi = zeros(shape), zeros(shape)
        self._places = []
        for layer, (fan_in, fan_out) in enumerate(pairwise(problem.widths)):
            rows = problem.weight_at[layer] + np.arange(fan_in * fan_out).reshape(fan_out, fan_in)
            if problem.bias:
                rows = np.concatenate([rows, problem.bias_at[layer] + np.arange(fan_out)[:, None]], axis=1)
            self._places.append(rows.ravel())

    def add(self, m: int, layer: int, block: Range) -> None:
        rows, columns = self._places[m], self._places[layer]
        where = np.ix_(np.arange(len(self._lo)), rows, columns)
        flat = block.reshape(-1, rows.size, columns.size)
        kappa = self._problem.scale[m] * self._problem.scale[layer]
        flat = flat if kappa.lo == kappa.hi == 1.0 else flat * kappa
        self._lo[where] = down(self._lo[where] + flat.lo)
        self._hi[where] = up(self._hi[where] + flat.hi)

    def matrix(self) -> Range:
        for m in range(self._problem.layers):
            for layer in range(m + 1, self._problem.layers):
                one = np.ix_(np.arange(len(self._lo)), self._places[m], self._places[layer])
                other = np.ix_(np.arange(len(self._lo)), self._places[layer], self._places[m])
                self._lo[other], self._hi[other] = np.swapaxes(self._lo[one], 1, 2), np.swapaxes(self._hi[one], 1, 2)
        return Range(self._lo, self._hi)


def _extended(problem: Problem, a: Range) -> Range:
    """(a, 1), without biases a."""
    if not problem.bias:
        return a
    one = wide(np.ones((*a.lo.shape[:-1], 1)))
    return Range(np.concatenate([a.lo, one], axis=-1), np.concatenate([a.hi, one], axis=-1))


def _weights(cells: Cells, layer: int) -> Range:
    """W with every entry's change allowed for."""
    w, rho = cells.w[layer], cells.rho[layer][:, None, None]
    return w if not rho.any() else Range(down(w.lo - rho), up(w.hi + rho))


def _jacobians(problem: Problem, cells: Cells, along: Pass) -> dict[tuple[int, int], Range]:
    """J^lm (B, units of l, units of m) for m <= l, the output layer included."""
    found = {}
    boxes = len(cells.rho[0])
    for m in range(problem.layers):
        unit = np.broadcast_to(wide(np.eye(problem.widths[m + 1])), (boxes,) + (problem.widths[m + 1],) * 2)
        found[m, m] = Range(unit)
        for layer in range(m + 1, problem.layers):
            step = _weights(cells, layer) * along.slope[layer - 1][:, None, :]
            found[layer, m] = step if layer == m + 1 else (step[:, :, :, None] * found[layer - 1, m][:, None, :, :]).sum(2)
    return found


def _curvatures(problem: Problem, cells: Cells, along: Pass) -> list[Range]:
    """Q^m (B, k, k) of the hidden layers."""
    found: list[Range] = []
    for m in range(problem.layers - 2, -1, -1):
        units = problem.widths[m + 1]
        diagonal = np.arange(units)
        total = Range(np.zeros((len(cells.rho[0]), units, units)))
        if found:
            w, above = _weights(cells, m + 1), found[0]
            for u in range(problem.widths[m + 2]):
                for v in range(problem.widths[m + 2]):
                    pair = w[:, u, :, None] * w[:, v, None, :]
                    if u == v:
                        pair = _exact_diagonal(pair, w[:, u, :].square())
                    total = total + pair * above[:, u : u + 1, v : v + 1]
            g = along.slope[m]
            total = total * _exact_diagonal(g[:, :, None] * g[:, None, :], g.square())
        lo, hi = total.lo.copy(), total.hi.copy()
        own = total[:, diagonal, diagonal] + along.curved[m]
        lo[:, diagonal, diagonal], hi[:, diagonal, diagonal] = own.lo, own.hi
        found.insert(0, Range(lo, hi))
    return found


def _exact_diagonal(product: Range, squares: Range) -> Range:
    """The outer product x x' with the squares of x on its diagonal, which keep their sign."""
    lo, hi = product.lo.copy(), product.hi.copy()
    places = np.arange(lo.shape[-1])
    lo[:, places, places], hi[:, places, places] = squares.lo, squares.hi
    return Range(lo, hi)


def _residual_blocks(
    problem: Problem, cells: Cells, along: Pass, jacobians: dict[tuple[int, int], Range], mass: Range
) -> Iterator[tuple[int, int, Range]]:
    curvatures = _curvatures(problem, cells, along)
    last = problem.layers - 1
    for m in range(last):
        left = _extended(problem, along.a[m])
        pairs = _exact_diagonal(left[:, :, None] * left[:, None, :], left.square())
        yield m, m, (curvatures[m] * mass)[:, :, None, :, None] * pairs[:, None, :, None, :]
        for layer in range(m + 1, problem.layers):
            right = _extended(problem, along.a[layer])
            units, fan_in = problem.widths[layer + 1], problem.widths[layer]
            inner = Range(np.zeros((len(cells.rho[0]), problem.widths[m + 1], units, right.lo.shape[1])))  # (B, k, h, q)
            if layer < last:
                bent = (curvatures[layer][:, :, :, None] * jacobians[layer, m][:, None, :, :]).sum(2) * mass  # (B, h, k)
                inner = Range(np.swapaxes(bent.lo, 1, 2), np.swapaxes(bent.hi, 1, 2))[:, :, :, None] * right[:, None, None, :]
            turned = along.slope[layer - 1][:, :, None] * jacobians[layer - 1, m]  # (B, q, k)
            turned = Range(np.swapaxes(turned.lo, 1, 2), np.swapaxes(turned.hi, 1, 2))
            second = turned[:, :, None, :] * (along.delta[layer] * mass)[:, None, :, None]
            both = inner[..., :fan_in] + second
            inner = Range(
                np.concatenate([both.lo, inner.lo[..., fan_in:]], axis=-1),
                np.concatenate([both.hi, inner.hi[..., fan_in:]], axis=-1),
            )
            yield m, layer, inner[:, :, None, :, :] * left[:, None, :, None, None]


def _gauss_blocks(
    problem: Problem, along: Pass, jacobians: dict[tuple[int, int], Range], mass: Range
) -> Iterator[tuple[int, int, Range]]:
    last = problem.layers - 1
    f = along.s[-1]
    chance = softmax(f) if problem.loss == "cross_entropy" else None
    for m in range(problem.layers):
        for layer in range(m, problem.layers):
            one, other = jacobians[last, m], jacobians[last, layer]  # (B, K, k), (B, K, h)
            if chance is not None:
                mean_one = (chance[:, :, None] * one).sum(1)
                mean_other = (chance[:, :, None] * other).sum(1)
                one, other = one - mean_one[:, None, :], other - mean_other[:, None, :]
            product = one[:, :, :, None] * other[:, :, None, :]
            if m == layer:
                squares = one.square()
                places = np.arange(squares.lo.shape[-1])
                product.lo[:, :, places, places], product.hi[:, :, places, places] = squares.lo, squares.hi
            if chance is not None:
                product = product * chance[:, :, None, None]
            elif problem.loss == "logistic":
                product = product * logistic_derivative(1, f)[:, :, None, None]
            gram = product.sum(1) * mass
            left, right = _extended(problem, along.a[m]), _extended(problem, along.a[layer])
            pairs = left[:, :, None] * right[:, None, :]
            if m == layer:
                pairs = _exact_diagonal(pairs, left.square())
            yield m, layer, gram[:, :, None, :, None] * pairs[:, None, :, None, :]
