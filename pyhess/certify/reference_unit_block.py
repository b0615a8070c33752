"""One hidden unit's block of the residual part over cells of its weights, by Taylor's theorem; for checking certificates.

Per datum, with f_k = phi(s) v_k + t_k, t_k what the other units and the bias add, and r = dl/df = G f + c + e, e unknown but
small,

    alpha = phi''(s) v.r,    beta = phi'(s) r,    R = mean_i [ku² alpha z z', ku kv z beta'; ., 0],

both are functions of s, v and L = G t + c, which are linear in the cell's coordinates and in those of the other units:

    alpha - phi'' v.e = phi phi'' v'Gv + phi'' v.L,    beta - phi' e = phi phi' G v + phi' L.

Their first derivatives at the centre make the matrices that the coordinates multiply, their second derivatives over the cell the
remainders. Where the range of the function itself is smaller than its remainder, that range is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .reference_hessian import Problem
from .reference_interval import Range, Wide, dot, length, middle_and_radius, up, wide, zeros
from .reference_ranges import activation, activations
from .reference_slopes import Slopes, slopes

_HALF, _TWO, _THREE = (Range(wide(k)) for k in (0.5, 2.0, 3.0))


@dataclass(frozen=True)
class UnitProblem:
    """A network with one hidden layer: inputs z (n, D), with the constant one, and what multiplies alpha and beta."""

    loss: str
    name: str
    beta: float
    z: Wide
    y: Wide
    outer: Range  # (n, D, D) weight times z z'
    cross: Range  # (n, D) weight times z
    mass: Range  # (n,)
    scale_u: Range
    scale_v: Range

    @staticmethod
    def of(problem: Problem) -> UnitProblem:
        """The problem's numbers."""
        z = problem.x
        if problem.bias:
            z = np.concatenate([z, wide(np.ones((len(z), 1)))], axis=1)
        cross = Range(z) * problem.mass[:, None]
        # z_a z_b and z_b z_a are rounded alike.
        outer = (Range(z)[:, :, None] * Range(z)[:, None, :]) * problem.mass[:, None, None]
        return UnitProblem(
            problem.loss, problem.activations[0], problem.betas[0], z, problem.y, outer, cross, problem.mass, *problem.scale
        )

    @property
    def dim(self) -> int:
        """D."""
        return int(self.z.shape[1])

    @property
    def outputs(self) -> int:
        """K."""
        return int(self.y.shape[1])

    def phi(self, order: int, s: Range) -> Range:
        """The activation's derivative."""
        return activation(self.name, self.beta, order, s)


@dataclass(frozen=True)
class Rest:
    """What the other units and the bias add, over cells: middle + columns . xi ± slack, the xi of a group in a unit ball.

    Shapes (B, n, K), (B, n, K, L), (B, n, K); group -1 stands for symbols of absolute value at most one.
    """

    middle: Range
    columns: Range
    slack: Wide
    groups: npt.NDArray[np.int64]

    def spread(self, columns: Range) -> Wide:
        """Largest |columns . xi| along the last axis."""
        size = columns.size()
        alone = Range(size[..., self.groups < 0]).sum(-1).hi
        total = wide(alone)
        for code in range(int(self.groups.max(initial=-1)) + 1):
            total = up(total + length(size[..., self.groups == code]))
        return total


@dataclass(frozen=True)
class Block:
    """The block over cells: middle + moves . (coordinates, xi) + mean of the data's remainders.

    A datum's remainder is at most curved (z.p)² + 2 sum_k mixed_k |z.p| |q_k| + sum_k |pair_a_k (z.p)² + 2 pair_b_k (z.p) q_k| in
    the direction (p, q). ``shares`` (B, n, 2 + K) says how much of it is due to s, v and t, in no units.
    """

    middle: Range  # (B, S, S), S = D + K
    moves: Range  # (B, S + L, S, S)
    groups: npt.NDArray[np.int64]
    curved: Wide  # (B, n)
    mixed: Wide  # (B, n, K)
    pair_a: Wide  # (B, n, K)
    pair_b: Wide
    shares: npt.NDArray[np.float64]


def stacked(parts: list[Range], axis: int) -> Range:
    """Along a new axis."""
    return Range(np.stack([part.lo for part in parts], axis), np.stack([part.hi for part in parts], axis))


def centred(by: Wide) -> Range:
    """± by."""
    return Range(-by, by)


def one_sided(x: Range) -> Range:
    """X times numbers in [0, 1]."""
    return Range(np.minimum(x.lo, wide(0.0)), np.maximum(x.hi, wide(0.0)))


class _Datum:
    """The ranges that the formulas share: activations at the centre and over the cell, v, G v, L, and how far each may move."""

    def __init__(self, problem: UnitProblem, low: Wide, high: Wide, rest: Rest) -> None:
        dim = problem.dim
        centre_u, self.half_u = middle_and_radius(Range(low[:, :dim], high[:, :dim]))
        centre_v, self.half_v = middle_and_radius(Range(low[:, dim:], high[:, dim:]))
        s0 = dot(Range(centre_u)[:, None, :], Range(problem.z)[None], 2)
        self.ds = dot(Range(self.half_u)[:, None, :], Range(np.abs(problem.z))[None], 2).hi
        s = s0 + centred(self.ds)
        self.at = activations(problem.name, problem.beta, range(4), s0)
        self.over = activations(problem.name, problem.beta, range(5), s)
        self.v0 = Range(centre_v)[:, None, :]
        self.v = Range(low[:, dim:], high[:, dim:])[:, None, :]
        t_half = up(rest.spread(rest.columns) + rest.slack)
        outputs = self.over[0][:, :, None] * self.v + rest.middle + centred(t_half)
        self.slopes: Slopes = slopes(problem.loss, outputs, problem.y, rest.slack)
        self.columns = self.slopes.times(rest.columns)
        self.dl = rest.spread(self.columns)
        self.l0 = self.slopes.times(rest.middle) + self.slopes.constant
        self.l = self.l0 + centred(self.dl)
        self.gv0, self.gv = self.slopes.times(self.v0), self.slopes.times(self.v)
        self.unknown = self.slopes.unknown(rest.slack)


@dataclass(frozen=True)
class _Function:
    """A function of s, v and L per datum (and output): value and slopes at the centre, remainder."""

    value: Range
    by_s: Range
    by_v: Range  # (…, K)
    by_l: Range  # (…, K) or one for the same output
    rest: Wide
    shares: tuple[Wide, list[Wide], Wide]

    @staticmethod
    def of(
        value: Range, by_s: Range, by_v: Range, by_l: Range, second: Range, whole: Range,
        shares: tuple[Wide, list[Wide], Wide], scale: Range,
    ) -> _Function:  # fmt: skip
        """Of the value plus slopes plus what the second derivatives make; or the whole range, where that is less."""
        shift, rest = middle_and_radius(second)
        middle, plain = middle_and_radius(whole)
        taylor = rest < plain
        value = Range(np.where(taylor, (value + Range(shift)).lo, middle), np.where(taylor, (value + Range(shift)).hi, middle))
        factor = Range(np.where(taylor, wide(1.0), wide(0.0)))
        s, v, last = (x * (factor if x.lo.ndim == factor.lo.ndim else factor[..., None]) * scale for x in (by_s, by_v, by_l))
        bound = (Range(np.where(taylor, rest, plain)) * scale).hi
        return _Function(value * scale, s, v, last, bound, shares)


def _alpha(d: _Datum, scale: Range) -> _Function:
    a0, a1, a2, a3 = d.at
    o0, o1, o2, o3, o4 = d.over
    outputs = d.v.lo.shape[-1]
    q0, q = (d.v0 * d.gv0).sum(-1), d.slopes.form(d.v)
    turn0, turn = (d.slopes.symmetric(v) for v in (d.v0, d.v))  # (G + G') v
    along0, along = (d.v0 * d.l0).sum(-1), (d.v * d.l).sum(-1)
    by_v = (a0 * a2)[:, :, None] * turn0 + a2[:, :, None] * d.l0
    ds = Range(d.ds)
    second = one_sided(_HALF * ds.square() * ((o2.square() + _TWO * o1 * o3 + o0 * o4) * q + o4 * along))
    by_s_share, by_v_share, by_l_share = second.size(), [], zeros(d.ds.shape)
    for k in range(outputs):
        dv, dl = Range(d.half_v[:, None, k]), Range(d.dl[:, :, k])
        own = one_sided(o0 * o2 * d.slopes.entry(k, k) * dv.square())
        sv = (((o1 * o2 + o0 * o3) * turn[:, :, k] + o3 * d.l[:, :, k]) * ds * dv).size()
        sl = (o3 * d.v[:, :, k] * ds * dl).size()
        vl = (o2 * dv * dl).size()
        by_v_share.append(up(own.size() + sv + vl))
        by_s_share, by_l_share = up(by_s_share + sv + sl), up(by_l_share + sl + vl)
        cross = up(up(sv + sl) + vl)
        for j in range(k):
            pair = d.slopes.entry(k, j) + d.slopes.entry(j, k)
            cross = up(cross + (o0 * o2 * pair * dv * Range(d.half_v[:, None, j])).size())
        second = second + own + centred(cross)
    return _Function.of(
        a0 * a2 * q0 + a2 * along0, (a1 * a2 + a0 * a3) * q0 + a3 * along0, by_v, a2[:, :, None] * d.v0,
        second, o2 * (o0 * q + along), (by_s_share, by_v_share, by_l_share), scale,
    )  # fmt: skip


def _beta(d: _Datum, k: int, scale: Range) -> _Function:
    a0, a1, a2, _ = d.at
    o0, o1, o2, o3, _ = d.over
    outputs = d.v.lo.shape[-1]
    gv0, gv, l0, whole = d.gv0[:, :, k], d.gv[:, :, k], d.l0[:, :, k], d.l[:, :, k]
    ds, dl = Range(d.ds), Range(d.dl[:, :, k])
    steep = o1.square() + o0 * o2
    second = one_sided(_HALF * ds.square() * ((_THREE * o1 * o2 + o0 * o3) * gv + o3 * whole))
    sl = (o2 * ds * dl).size()
    by_s_share, by_v_share, cross = up(second.size() + sl), [], sl
    for j in range(outputs):
        sv = (steep * d.slopes.entry(k, j) * ds * Range(d.half_v[:, None, j])).size()
        by_v_share.append(sv)
        by_s_share, cross = up(by_s_share + sv), up(cross + sv)
    by_v = stacked([a0 * a1 * d.slopes.entry(k, j) for j in range(outputs)], -1)
    return _Function.of(
        a0 * a1 * gv0 + a1 * l0, (a1.square() + a0 * a2) * gv0 + a2 * l0, by_v, a1,
        second + centred(cross), o1 * (o0 * gv + whole), (by_s_share, by_v_share, sl), scale,
    )  # fmt: skip


def enclosed(problem: UnitProblem, low: Wide, high: Wide, rest: Rest) -> Block:
    """The block of the unit over the cells [low, high] (B, D + K) of its effective weights (u, v)."""
    dim, outputs = problem.dim, problem.outputs
    square, mixed = problem.scale_u.square(), problem.scale_u * problem.scale_v
    d = _Datum(problem, low, high, rest)
    alpha, betas = _alpha(d, square), [_beta(d, k, mixed) for k in range(outputs)]

    def assembled(a: Range, b: list[Range]) -> Range:
        """[mean a z z', mean z b'; ., 0] for a (B, n), b K times (B, n)."""
        count = a.lo.shape[0]
        lo, hi = zeros((count, dim + outputs, dim + outputs)), zeros((count, dim + outputs, dim + outputs))
        top = dot(problem.outer[None], a[:, :, None, None], 1)
        lo[:, :dim, :dim], hi[:, :dim, :dim] = top.lo, top.hi
        for k in range(outputs):
            side = dot(problem.cross[None], b[k][:, :, None], 1)
            lo[:, :dim, dim + k] = lo[:, dim + k, :dim] = side.lo
            hi[:, :dim, dim + k] = hi[:, dim + k, :dim] = side.hi
        return Range(lo, hi)

    moves = []
    for place in range(dim):
        step = Range(d.half_u[:, None, place]) * Range(problem.z[None, :, place])
        moves.append(assembled(alpha.by_s * step, [beta.by_s * step for beta in betas]))
    for j in range(outputs):
        half = Range(d.half_v[:, None, j])
        moves.append(assembled(alpha.by_v[:, :, j] * half, [beta.by_v[:, :, j] * half for beta in betas]))
    for column in range(rest.groups.size):
        own = d.columns[:, :, :, column]
        moves.append(assembled((alpha.by_l * own).sum(-1), [beta.by_l * own[:, :, k] for k, beta in enumerate(betas)]))
    curved, mixed_rest, pair_a, pair_b = alpha.rest, [], [], []
    for k, beta in enumerate(betas):
        size = Range(d.unknown[:, :, k])
        a, more_a = middle_and_radius(square * size * d.over[2] * d.v[:, :, k])
        b, more_b = middle_and_radius(mixed * size * d.over[1])
        pair_a.append(a)
        pair_b.append(b)
        curved = up(curved + more_a)
        mixed_rest.append(up(beta.rest + more_b))
    groups = np.concatenate([np.full(dim + outputs, -1), rest.groups])
    return Block(
        assembled(alpha.value, [beta.value for beta in betas]), stacked(moves, 1), groups, curved, np.stack(mixed_rest, -1),
        np.stack(pair_a, -1), np.stack(pair_b, -1), _shares(alpha, betas),
    )  # fmt: skip


def _shares(alpha: _Function, betas: list[_Function]) -> npt.NDArray[np.float64]:
    parts = []
    for function in (alpha, *betas):
        s, v, rest = function.shares
        parts.append(np.stack([s, *v, rest], axis=-1).astype(np.float64))
    return np.asarray(sum(parts))
