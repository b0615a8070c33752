"""Interval propagation through the network, forwards and backwards, over a box or one cell of a ball.

Everything is in effective parameters κ_l W^l, κ_l b^l (the NTK scales are folded into the region), and for a block of data at a
time. A cell of a ball bounds the Frobenius distance of each layer's block (W^l, b^l) from the centre by rho_l.

Many cells may be one stack: then everything has leading axes for the cells, (...) below; what they share need not have them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import InputTypeError
from ..model import MLP
from ..regions import Ball, Box, Region
from .intervals import ROOT_TINY, TINY, Interval, down, gamma, matmul, norms, sharp_matmul, up, within
from .joint import Last, joint_last
from .output_slopes import OutputSlopes, output_slopes_know
from .ranges import derivative_range, growth
from .shared import Below
from .spectral import norm_bound, norm_bounds

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """A layer's weights and biases over the region: entrywise bounds, and the Frobenius radius of a ball's cell (0 for a box)."""

    weight: Interval  # (..., out, in)
    bias: Interval  # (..., out), zeros without biases
    rho: FloatArray  # (..., 1), as all numbers that belong to a cell
    rho_bias: bool  # whether the radius covers b as well as W
    spectral: FloatArray  # sup of the spectral norm of W
    affine: FloatArray  # sup of the spectral norm of (W, b)
    columns: FloatArray  # (..., in) sup of the Euclidean norms of the columns of W
    still: FloatArray  # sup of the spectral norm of W without the ball's radius


@dataclass(frozen=True)
class Cell:
    """A region, or a part of one, ready for propagation; or a stack of them."""

    net: MLP
    blocks: tuple[Block, ...]
    point: bool = False  # a single point, up to the rounding of the scales


def parameter_scales(net: MLP) -> FloatArray:
    """The scale κ of the layer of each parameter (P,)."""
    scales = np.empty(net.num_params)
    for (weight, bias), scale in zip(net.layer_slices, net.layer_scales, strict=True):
        scales[weight.start : weight.stop if bias is None else bias.stop] = scale
    return scales


def _layer_interval(net: MLP, layer: int, low: FloatArray, high: FloatArray) -> tuple[Interval, Interval]:
    scale = net.layer_scales[layer]
    weight, bias = net.layer_slices[layer]
    shape = (net.widths[layer + 1], net.widths[layer])
    exact = scale == 1.0

    def take(where: slice) -> Interval:
        part = Interval(low[..., where], high[..., where])
        # Two ulp: the product is rounded, and so was κ itself.
        return part if exact else Interval(down(down(scale * part.lo)), up(up(scale * part.hi)))

    w = take(weight)
    b = Interval.point(np.zeros((*low.shape[:-1], shape[0]))) if bias is None else take(bias)
    return w.reshape(*low.shape[:-1], *shape), b


def box_cell(net: MLP, region: Box) -> Cell:
    """The whole box as one cell."""
    return box_cells(net, region.low, region.high)


def box_cells(net: MLP, low: FloatArray, high: FloatArray) -> Cell:
    """The boxes [low, high] of parameters (..., P) as a stack of cells."""
    parts = (_layer_interval(net, layer, low, high) for layer in range(net.num_layers))
    return Cell(net, tuple(_interval_block(*part) for part in parts))


def point_cell(net: MLP, theta: FloatArray) -> Cell:
    """A single point as a cell; its intervals are as wide as the rounding of the scales."""
    blocks = (_interval_block(*_layer_interval(net, layer, theta, theta)) for layer in range(net.num_layers))
    return Cell(net, tuple(blocks), point=True)


def _interval_block(w: Interval, b: Interval) -> Block:
    spectral, affine = _interval_norm(w), _interval_norm(Interval(joined(w.lo, b.lo), joined(w.hi, b.hi)))
    return Block(w, b, np.zeros_like(spectral), True, spectral, affine, column_norms(w.magnitude), spectral)


def _interval_norm(w: Interval) -> FloatArray:
    apart = (norm_bounds(w.middle) + norm_bounds(w.radius)) * (1.0 + gamma(4))
    return np.minimum(norm_bounds(w.magnitude), apart)[..., None]


class BallCells:
    """Makes cells of a ball; what belongs to the centre is computed once."""

    def __init__(self, net: MLP, region: Ball) -> None:
        self._net = net
        self._parts = [_layer_interval(net, layer, region.center, region.center) for layer in range(net.num_layers)]
        self._still = [_still(w) for w, _ in self._parts]
        self._affine = [norm_bound(joined(w.middle, b.middle)) + norm_bound(joined(w.radius, b.radius)) for w, b in self._parts]
        self._columns = [column_norms(w.magnitude) for w, _ in self._parts]

    def __call__(self, radii: FloatArray, last_bias: Interval | None = None) -> Cell:
        """{theta : every layer's block lies within radii[l] of the centre}; the output bias in ``last_bias`` (K,) if given.

        Then the last radius is that of the output weights alone. Radii (B, D) and biases (B, K) make a stack of cells.
        """
        net, room = self._net, 1.0 + gamma(8)
        blocks = []
        for layer, (w, b) in enumerate(self._parts):
            scale = net.layer_scales[layer]
            rho = radii[..., layer : layer + 1] * scale * room
            spectral, affine = (self._still[layer] + rho) * room, (self._affine[layer] + rho) * room
            apart = last_bias is not None and layer == net.num_layers - 1
            if apart:
                assert last_bias is not None
                b = last_bias if scale == 1.0 else Interval(down(down(scale * last_bias.lo)), up(up(scale * last_bias.hi)))
                affine = np.sqrt(spectral**2 + norms(b.magnitude)[..., None] ** 2) * room + ROOT_TINY
            columns = (self._columns[layer] + rho) * (1.0 + gamma(4))
            blocks.append(Block(w, b, rho, not apart, spectral, affine, columns, np.array([self._still[layer]])))
        return Cell(net, tuple(blocks))


def _still(w: Interval) -> float:
    return (norm_bound(w.middle) + norm_bound(w.radius)) * (1.0 + gamma(4))


def whole_cell(net: MLP, region: Region) -> Cell:
    """The region as one cell.

    Raises
    ------
    InputTypeError
        If certificates do not know this kind of region.
    """
    if isinstance(region, Box):
        return box_cell(net, region)
    if isinstance(region, Ball):
        return BallCells(net, region)(np.full(net.num_layers, float(region.radius)))
    raise InputTypeError(f"certificates know Box and Ball, not {type(region).__name__}; enclose the region in one of them.")


def joined(w: FloatArray, b: FloatArray) -> FloatArray:
    """(W, b) as one matrix."""
    return np.concatenate([w, b[..., None]], axis=-1)


def column_norms(w: FloatArray) -> FloatArray:
    """Euclidean norms of the columns, rounded up."""
    return norms(np.swapaxes(w, -1, -2))


@dataclass(frozen=True)
class Propagation:
    """Enclosures for a block of n data, layer l = 0 … D-1; hidden layers only where noted.

    ``entering[l]`` activations entering layer l (n, in); ``entering_norm[l]`` sup |(a, 1)| (n,), the 1 only with biases;
    ``s[l]`` pre-activations; ``slope[l]`` phi', ``bar[l]`` dL/da, ``curved[l]`` bar phi'' (hidden, (n, out)); ``delta[l]`` dL/ds
    (n, out) and ``delta_norm[l]`` sup |delta| (n,). The loss's cotangents are per datum, without its weight. For a stack of cells
    these are (..., n, out) and (..., n).
    """

    entering: list[Interval]
    entering_norm: list[FloatArray]
    s: list[Interval]
    slope: list[Interval]
    bar: list[Interval]
    curved: list[Interval]
    delta: list[Interval]
    delta_norm: list[FloatArray]
    joint: Last | None


def _affine(block: Block, a: Interval, a_norm: FloatArray) -> Interval:
    s = sharp_matmul(a, block.weight.T) + block.bias[..., None, :]
    return s.widened(up(block.rho * a_norm)[..., None]) if block.rho.any() else s


def _with_one(values: FloatArray, bias: bool) -> FloatArray:
    return np.sqrt(values**2 + 1.0) * (1.0 + gamma(8)) if bias else values


def propagate(cell: Cell, x: FloatArray, targets: FloatArray, loss: str) -> Propagation:
    """Forward and backward intervals for the data x (n, d)."""
    net = cell.net
    last = net.num_layers - 1
    a = Interval.point(x)
    a_norm = norms(x)
    pre: list[Interval] = []
    entering, entering_norm, pre_norm = [a], [_with_one(a_norm, net.bias)], []
    ball = _BallMoves(cell, x) if any(block.rho.any() for block in cell.blocks) else None
    for layer, block in enumerate(cell.blocks):
        moved_norm = entering_norm[-1] if block.rho_bias else a_norm
        s = _affine(block, a, moved_norm)
        if ball is not None:
            s = ball.forwards(layer, s, moved_norm)
        if layer == last:
            slope = [derivative_range(net.activations[low], net.betas[low], 1, pre[low]) for low in range(last)]
            through = OutputSlopes(cell.blocks, slope) if output_slopes_know(net) and not cell.point else None
            if ball is not None and through is not None:
                s = ball.outputs(s, through, entering_norm, moved_norm)
        # |s| <= |(W, b)| |(a, 1)|: in a ball this beats the entries' intervals for wide layers.
        s_norm = np.minimum(norms(s.magnitude), block.affine * entering_norm[-1] * (1.0 + gamma(4)))
        pre.append(s)
        pre_norm.append(s_norm)
        if layer == last:
            break
        name = net.activations[layer]
        a = derivative_range(name, net.betas[layer], 0, s)
        at_zero, steepest = growth(name, net.betas[layer])
        a_norm = (steepest * s_norm + at_zero * np.sqrt(net.widths[layer + 1])) * (1.0 + gamma(16))
        a_norm = np.minimum(norms(a.magnitude), a_norm)
        entering.append(a)
        entering_norm.append(_with_one(a_norm, net.bias))
    residual, residual_norm = residual_range(loss, pre[-1], targets)
    if loss == "squared_error":
        residual_norm = np.minimum(residual_norm, (pre_norm[-1] + norms(targets)) * (1.0 + gamma(4)))

    delta, delta_norm = [residual], [residual_norm]
    if ball is not None:
        ball.turn(loss, targets, residual)
    bar: list[Interval] = []
    curved: list[Interval] = []
    joint: Last | None = None
    for layer in range(last - 1, -1, -1):
        above = cell.blocks[layer + 1]
        cotangent = sharp_matmul(delta[0], above.weight)
        if above.rho.any():
            cotangent = cotangent.widened(up(above.rho * delta_norm[0])[..., None])
        # |bar_j| <= |W_:j| |delta|
        limit = up(above.columns[..., None, :] * delta_norm[0][..., None] * (1.0 + gamma(4)))
        cotangent = Interval(np.maximum(cotangent.lo, -limit), np.minimum(cotangent.hi, limit))
        if ball is not None:
            cotangent = ball.backwards(layer, cotangent, slope[layer], delta[0], delta_norm[0])
        if through is not None:
            cotangent = within(through.gradient(layer, residual), cotangent)
        bar.insert(0, cotangent)
        bent = cotangent * derivative_range(net.activations[layer], net.betas[layer], 2, pre[layer])
        turned = cotangent * slope[layer]
        # Entrywise intervals, or operator norms: whichever is smaller.
        steepest = slope[layer].magnitude.max(axis=-1)
        turned_norm = np.minimum(norms(turned.magnitude), above.spectral * delta_norm[0] * steepest * (1.0 + gamma(8)))
        if layer == last - 1:
            unknown = np.full_like(steepest, np.inf)
            joint = Last(bent, turned, turned_norm, residual_norm * steepest * (1.0 + gamma(4)), unknown, unknown)
            if loss == "squared_error" and net.widths[-1] == 1 and not cell.point:
                shared = None if ball is None or layer == 0 else ball.below(layer, entering_norm[layer])
                joint = _joint(cell, pre[layer], (pre_norm[layer], a_norm), residual, targets, joint, shared)
            bent, turned, turned_norm = joint.curved, joint.delta, joint.delta_norm
        curved.insert(0, bent)
        delta.insert(0, turned)
        delta_norm.insert(0, turned_norm)
    return Propagation(entering, entering_norm, pre, slope, bar, curved, delta, delta_norm, joint)


class _BallMoves:
    """What a ball's radius allows all units of a layer together, by the inequality of Cauchy and Schwarz.

    With the differences d to the centre, s_j moves by at most rho |(a, 1)| + |C_j g| |ds| (C the weights at the centre, g the
    slopes below), and bar_k by rho |delta| + |C_:k| |ddelta|; intervals of the units would count the whole radius for each.
    """

    def __init__(self, cell: Cell, x: FloatArray) -> None:
        self._net, self._blocks = cell.net, cell.blocks
        self._at: list[Interval] = []  # s at the centre
        self._moves: list[FloatArray] = []  # of s, by the layers below
        self._slopes: list[FloatArray] = []  # sup |phi'| of the hidden layers
        self._a = Interval.point(x)
        self._ds = np.zeros(x.shape[0])
        self._da = np.zeros(x.shape[0])
        self._delta = self._a
        self._ddelta = np.zeros(x.shape[0])

    def forwards(self, layer: int, s: Interval, moved_norm: FloatArray) -> Interval:
        """The pre-activations of the layer, from their enclosure so far."""
        net, block = self._net, self._blocks[layer]
        at = _affine_point(block, self._a)
        size = block.weight.magnitude
        room = 1.0 + gamma(32)
        own = block.rho * moved_norm
        move = norms(size)[..., None, :] * self._da[..., None]
        if layer > 0:
            below = np.sqrt(self._slopes[-1] ** 2 @ np.swapaxes(size**2, -1, -2)) * (1.0 + gamma(size.shape[-1] + 16)) + ROOT_TINY
            move = np.minimum(move, below * self._ds[..., None])
        s = within(at.widened((own[..., None] + move) * room), s)
        self._moves.append(move)
        self._ds = np.minimum(norms(s.distance(at)), (own + block.still * self._da) * room)
        self._at.append(at)
        if layer < net.num_layers - 1:
            name, beta = net.activations[layer], net.betas[layer]
            self._a, a = derivative_range(name, beta, 0, at), derivative_range(name, beta, 0, s)
            self._slopes.append(derivative_range(name, beta, 1, s).magnitude)
            self._da = np.minimum(norms(a.distance(self._a)), self._slopes[-1].max(axis=-1) * self._ds * room)
        return s

    def outputs(self, f: Interval, through: OutputSlopes, entering: list[FloatArray], own: FloatArray) -> Interval:
        """The outputs, with the layers moved one after the other."""
        f = within(through.outputs(self._at[-1], entering, own), f)
        self._ds = np.minimum(self._ds, norms(f.distance(self._at[-1])))
        return f

    def below(self, layer: int, entering: FloatArray) -> Below:
        """What the radii of the layer and of those below do to its pre-activations; ``entering`` bounds |(a, 1)|."""
        block, slopes = self._blocks[layer], self._slopes[layer - 1]
        relative = slopes / np.maximum(slopes.max(axis=-1, keepdims=True), TINY) * (1.0 + gamma(4))
        size = block.weight.magnitude
        rows = np.sqrt(relative**2 @ np.swapaxes(size**2, -1, -2)) * (1.0 + gamma(size.shape[-1] + 16)) + ROOT_TINY
        return Below(rows, block.rho, entering, self._at[layer], self._moves[layer])

    def turn(self, loss: str, targets: FloatArray, residual: Interval) -> None:
        """Begin with the residual."""
        self._delta = residual_range(loss, self._at[-1], targets)[0]
        self._ddelta = norms(residual.distance(self._delta))
        if loss == "squared_error":
            self._ddelta = np.minimum(self._ddelta, self._ds * (1.0 + gamma(4)))

    def backwards(self, layer: int, bar: Interval, slope: Interval, delta: Interval, delta_norm: FloatArray) -> Interval:
        """The cotangents of the layer's activations, from their enclosure so far."""
        net, above = self._net, self._blocks[layer + 1]
        room = 1.0 + gamma(32)
        at = matmul(self._delta, above.weight)
        columns = column_norms(above.weight.magnitude)
        ddelta = np.minimum(self._ddelta, norms(delta.distance(self._delta)))
        own = above.rho * delta_norm
        bar = within(at.widened((own[..., None] + columns[..., None, :] * ddelta[..., None]) * room), bar)
        steep = derivative_range(net.activations[layer], net.betas[layer], 1, self._at[layer])
        move = np.minimum(norms(bar.distance(at)), (own + above.still * ddelta) * room)
        turned = norms(slope.distance(steep) * at.magnitude)
        self._ddelta = (slope.magnitude.max(axis=-1) * move + turned) * room
        self._delta = at * steep
        return bar


def _affine_point(block: Block, a: Interval) -> Interval:
    return matmul(a, block.weight.T) + block.bias[..., None, :]


def _joint(
    cell: Cell,
    s: Interval,
    sizes: tuple[FloatArray, FloatArray],
    residual: Interval,
    targets: FloatArray,
    plain: Last,
    shared: Below | None,
) -> Last:
    net, block, below = cell.net, cell.blocks[-1], cell.blocks[-2]
    rows = (norms(below.weight.magnitude) + below.rho) * (1.0 + gamma(4))
    constant = block.bias[..., None, :] - Interval.point(targets)
    activation = (net.activations[-1], net.betas[-1])
    bias = net.bias and block.rho_bias
    return joint_last(activation, s, *sizes, block.weight[..., 0, :], constant, block.rho, bias, residual, rows, plain, shared)


def residual_range(loss: str, f: Interval, y: FloatArray) -> tuple[Interval, FloatArray]:
    """dl/df over the outputs f (n, K), and a bound of its Euclidean norm (n,)."""
    if loss == "squared_error":
        r = f - Interval.point(y)
        return r, norms(r.magnitude)
    if loss == "logistic":
        p = derivative_range("sigmoid", 1.0, 0, f)
        r = Interval(np.maximum(p.lo, 0.0), np.minimum(p.hi, 1.0)) - Interval.point(y)
        return r, norms(r.magnitude)
    soft = softmax_range(f)
    mass = y.sum(axis=1, keepdims=True)
    slack = gamma(y.shape[1] + 4)
    r = soft * Interval(mass * (1.0 - slack), mass * (1.0 + slack)) - Interval.point(y)
    size = norms(r.magnitude)
    # For a label the residual is p - e_y with |p - e_y| <= sqrt(2) (1 - p_y).
    labels = (y == 1.0).any(axis=1) & ((y != 0.0).sum(axis=1) == 1)
    own = soft.lo[..., np.arange(y.shape[0]), y.argmax(axis=1)]
    return r, np.where(labels, np.minimum(size, np.sqrt(2.0) * (1.0 - own) * (1.0 + gamma(16)) + 4e-16), size)


def softmax_range(f: Interval) -> Interval:
    """Enclosure of softmax(f) for outputs f (..., n, K)."""
    lower, upper = np.empty_like(f.lo), np.empty_like(f.hi)
    outputs = f.lo.shape[-1]
    slack = gamma(8 * outputs + 64)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for k in range(outputs):
            others = np.arange(outputs) != k
            # p_k = 1 / (1 + sum exp(f_j - f_k)) is monotone in every difference. Their rounding moves exp by |difference| u.
            worst, best = f.hi[..., others] - f.lo[..., k : k + 1], f.lo[..., others] - f.hi[..., k : k + 1]
            wide = 1.0 + 8.0 * slack
            upper_sum = (np.exp(worst + np.abs(worst) * slack) * wide).sum(axis=-1)
            lower_sum = (np.exp(best - np.abs(best) * slack) / wide).sum(axis=-1)
            lower[..., k] = 1.0 / (1.0 + upper_sum) / wide
            upper[..., k] = np.minimum(1.0, 1.0 / (1.0 + lower_sum) * wide)
    return Interval(np.maximum(0.0, lower), upper)
