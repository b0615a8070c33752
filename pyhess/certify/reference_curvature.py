"""The third-order test of small boxes for checking certificates: the smallest eigenvalue with its curvature.

With delta the change from a box's middle c, U any invertible matrix, u_0, u_1, … its columns and s the claim, no eigenvalue of
H(c + delta) is below s if M = U'(H(c + delta) - s)U is positive semidefinite. Taylor's formula with Lagrange's rest for every
entry has the derivatives T_k of H at c and ranges of the second ones F_kl over the box:

    M_00  = D_00 + g . delta + (1/2) delta'F delta,  D = U'(H(c) - s)U, g_k = u_0'T_k u_0, F_kl = u_0'F_kl u_0;
    M_i0  = C_i . delta + (rest, at most beta_i in size),  C_ik = u_i'T_k u_0;
    M_ij  for i, j >= 1 are at least diag(mu), by the sizes of what is beside the diagonal and of what delta changes.

If all mu_i > 0, M is semidefinite where M_00 - sum_i M_i0²/mu_i >= 0 (Schur's complement), and that is at least

    q(delta) = const + g . delta + (1/2) delta'K delta,  K = F - 2 sum_i C_i C_i'/mu_i,
    const = D_00 - (radii) - sum_i (2 beta_i |C_i| . h + beta_i²)/mu_i.

In a ball about z, q is at least q + lam (|c - z + delta|² - R²) for every lam >= 0. With any e >= 0 that makes
K + 2 lam + diag(e) positive definite, q + lam (…) + (1/2) sum_k e_k (delta_k² - h_k²) is convex and below it in the box, so at
least its tangent at any point, whose least value over the box is known. U, lam, e and the point are guessed in doubles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .reference_interval import Range, Wide, down, matmul, middle_and_radius, up, wide
from .reference_tests import Flags, positive_pivots

_Floats = npt.NDArray[np.float64]

#: Sweeps over the coordinates for the first point and for every next lam, values of lam, and the decades that they are sought in.
_FIRST_SWEEPS, _SWEEPS, _STEPS, _DECADES = 12, 3, 14, 5.0


@dataclass(frozen=True)
class Quadratic:
    """q(delta) = const + gradient . delta + (1/2) delta'curvature delta on the boxes |delta_k| <= h_k (B, P)."""

    const: Range
    gradient: Range
    curvature: Range
    h: Wide

    def __getitem__(self, where: Any) -> Quadratic:
        return Quadratic(self.const[where], self.gradient[where], self.curvature[where], self.h[where])


def curved_boxes(
    derivatives: tuple[Range, Range, Range], c: Wide, h: Wide, claim: float, ball: tuple[Wide, Wide] | None
) -> Flags:
    """Whether it is proved of boxes c ± h (B, P) that no Hessian on them (and in the ball) has an eigenvalue below the claim.

    The derivatives are those of the second and third order at c, and ranges of those of the fourth order over the boxes.
    """
    proved = np.zeros(len(c), dtype=np.bool_)
    finite = [np.isfinite(x.size()).reshape(len(c), -1).all(axis=1) for x in derivatives]
    rows = np.flatnonzero(np.logical_and.reduce(finite))
    if not rows.size:
        return proved
    q, valid = _schur((derivatives[0][rows], derivatives[1][rows], derivatives[2][rows]), h[rows], claim)
    rows, q = rows[valid], q[valid]
    if not rows.size:
        return proved
    # |offset + delta|² - R² = gap + 2 offset . delta + |delta|²; without a ball lam stays zero.
    offset = Range(c[rows]) - Range(np.broadcast_to(c[rows] if ball is None else ball[0], c[rows].shape))
    gap = offset.square().sum(1) - (Range(wide(0.0)) if ball is None else Range(ball[1]).square())
    lam, extra, point, promising = _guessed(q, offset, gap, ball is not None)
    some = np.flatnonzero(promising)
    if some.size:
        proved[rows[some]] = not_negative(q[some], offset[some], gap[some], lam[some], extra[some], point[some])
    return proved


def _schur(derivatives: tuple[Range, Range, Range], h: Wide, claim: float) -> tuple[Quadratic, Flags]:
    """Q, and for which boxes M's other rows are known to be positive definite."""
    size, width = h.shape[1], Range(h)
    plain = (0.5 * (derivatives[0].lo + derivatives[0].hi)).astype(np.float64)
    u = Range(wide(np.linalg.eigh(0.5 * (plain + np.swapaxes(plain, 1, 2)))[1]))
    gram = matmul(_transposed(u), u)
    # If every row of U'U - I sums to less than one, U is invertible.
    valid = ((gram - Range(wide(np.eye(size)))).size().sum(axis=2) < 0.5).all(axis=1)
    d = _turned(derivatives[0], u) - Range(wide(claim)) * gram
    # F_kl = F_lk: those with k < l count twice.
    row, column = np.triu_indices(size)
    slope, bend = _turned(derivatives[1], u), _turned(derivatives[2][:, row, column], u)
    pairs = width[:, row] * width[:, column] * Range(wide(np.where(row == column, 0.5, 1.0)))
    second = (Range(bend.size()) * pairs[..., None, None]).sum(1)
    change = ((Range(slope.size()) * width[:, :, None, None]).sum(1) + second).hi
    beside = up(d.size() + change)
    places = np.arange(size)
    beside[:, places, places] = change[:, places, places]
    mu = Range((Range(d.lo[:, places, places]) - Range(beside[:, :, 1:]).sum(2)).lo[:, 1:])
    valid &= (mu.lo > 0.0).all(axis=1)

    g, g_radius = middle_and_radius(slope[:, :, 0, 0])
    f, f_radius = middle_and_radius(bend[:, :, 0, 0])
    c, c_radius = middle_and_radius(slope[:, :, 1:, 0])
    beta = Range(d.size()[:, 1:, 0]) + (Range(c_radius) * width[:, :, None]).sum(1) + second[:, 1:, 0]
    reach = (Range(np.abs(c)) * width[:, :, None]).sum(1)
    taken = ((beta * (reach + reach) + beta.square()) / mu).sum(1)
    taken = taken + (Range(g_radius) * width).sum(1) + (Range(f_radius) * pairs).sum(1)
    squares = Range(c)[:, row] * Range(c)[:, column] / mu[:, None]
    const = down(d.lo[:, 0, 0] - taken.hi)
    curvature = (Range(f) - (squares + squares).sum(2))[:, _places(size)]
    q = Quadratic(Range(const), Range(g), curvature, h)
    return q, np.asarray(valid & np.isfinite(const))


def _transposed(x: Range) -> Range:
    return Range(np.swapaxes(x.lo, -1, -2), np.swapaxes(x.hi, -1, -2))


def _places(size: int) -> npt.NDArray[np.intp]:
    """Where the entries of a symmetric matrix are in the list of those with k <= l."""
    places = np.zeros((size, size), dtype=np.intp)
    row, column = np.triu_indices(size)
    places[row, column] = places[column, row] = np.arange(len(row))
    return places


def _turned(x: Range, u: Range) -> Range:
    """U'XU for X (B, …, P, P)."""
    more = (slice(None),) + (None,) * (x.lo.ndim - 3)
    return matmul(_transposed(u)[more], matmul(x, u[more]))


def _guessed(q: Quadratic, offset: Range, gap: Range, in_ball: bool) -> tuple[Wide, Wide, Wide, Flags]:
    """Lam (B,), e (B, P), the point (B, P) and whether the bound with them seems not to be negative."""
    const, g, h = (x.astype(np.float64) for x in (q.const.lo, q.gradient.lo, q.h))
    k, to_centre, beyond = (0.5 * (x.lo + x.hi).astype(np.float64) for x in (q.curvature, offset, gap))
    weights = _weights(k, h)
    best = np.full(len(h), -np.inf)
    lam, extra, point = np.zeros(len(h)), np.zeros_like(h), np.zeros_like(h)
    low, high = np.full(len(h), -_DECADES), np.full(len(h), _DECADES)
    spread = np.linalg.norm(to_centre, axis=1) + np.linalg.norm(h, axis=1) + 1e-300
    unit = (np.linalg.norm(g, axis=1) + np.linalg.norm(k, axis=(1, 2)) * np.linalg.norm(h, axis=1)) / spread + 1e-300
    rows, delta, power = np.arange(len(h)), np.zeros_like(h), np.zeros(len(h))
    for step in range(_STEPS + 1 if in_ball else 1):
        some = unit[rows] * 10.0**power if step else np.zeros(len(rows))
        e, slower = _convexity(k[rows], some, weights[rows])
        slope = g[rows] + 2.0 * some[:, None] * to_centre[rows]
        matrix = k[rows] + _diagonal(2.0 * some[:, None] + e)
        delta = _lowest(slope, matrix, h[rows], delta, _SWEEPS if step else _FIRST_SWEEPS)
        r = slope + np.einsum("bij,bj->bi", matrix, delta)
        value = const[rows] + some * beyond[rows] + 0.5 * ((slope + r) * delta).sum(1)
        value += (r * -delta - np.abs(r) * h[rows]).sum(1) - 0.5 * (e * h[rows] ** 2).sum(1)
        better = value > best[rows]
        chosen = rows[better]
        best[chosen], lam[chosen], extra[chosen], point[chosen] = value[better], some[better], e[better], delta[better]
        # The bound is concave in lam, with this derivative.
        rises = beyond[rows] + 2.0 * (to_centre[rows] * delta).sum(1) + (delta**2).sum(1)
        rises += 0.5 * (slower * (h[rows] ** 2 - delta**2)).sum(1)
        if step:
            low[rows], high[rows] = np.where(rises > 0.0, power, low[rows]), np.where(rises > 0.0, high[rows], power)
        going = (best[rows] < 0.0) & ((rises > 0.0) | (step > 0))
        rows, delta = rows[going], delta[going]
        if not rows.size:
            break
        power = 0.5 * (low[rows] + high[rows])
    return wide(lam), wide(extra), wide(point), best >= 0.0


def _diagonal(entries: _Floats) -> _Floats:
    return entries[:, :, None] * np.eye(entries.shape[1])


def _weights(k: _Floats, h: _Floats) -> _Floats:
    """Of the entries of e: all alike, or as 1/h², whichever takes less where lam is zero."""
    inverse = 1.0 / np.maximum(h, 1e-3 * h.max(axis=1, keepdims=True) + 1e-150) ** 2
    inverse /= inverse.min(axis=1, keepdims=True)
    zero = np.zeros(len(h))
    lost = [(_convexity(k, zero, w)[0] * h**2).sum(1) for w in (np.ones_like(h), inverse)]
    return np.where((lost[0] <= lost[1])[:, None], 1.0, inverse)


def _convexity(k: _Floats, lam: _Floats, weights: _Floats) -> tuple[_Floats, _Floats]:
    """E (B, P), a multiple of the weights, that makes K + 2 lam + diag(e) positive definite, and how fast it falls with lam."""
    roots = np.sqrt(weights)
    scaled = (k + _diagonal(np.broadcast_to(2.0 * lam[:, None], weights.shape))) / roots[:, :, None] / roots[:, None, :]
    values, vectors = np.linalg.eigh(scaled)
    needed = 1e-13 * np.abs(values).max(axis=1) + 1e-290 - values[:, 0]
    falls = np.where(needed > 0.0, 2.0 * (vectors[:, :, 0] ** 2 / weights).sum(1), 0.0)
    return np.maximum(needed, 0.0)[:, None] * weights, falls[:, None] * weights


def _lowest(g: _Floats, matrix: _Floats, h: _Floats, delta: _Floats, sweeps: int) -> _Floats:
    """Near the lowest point of g . delta + (1/2) delta'A delta in the box: one coordinate after the other."""
    delta = np.clip(delta, -h, h)
    for _ in range(sweeps):
        for k in range(h.shape[1]):
            own = matrix[:, k, k]
            pull = g[:, k] + (matrix[:, k] * delta).sum(1) - own * delta[:, k]
            delta[:, k] = np.clip(-pull / np.maximum(own, 1e-290), -h[:, k], h[:, k])
    return delta


def not_negative(q: Quadratic, offset: Range, gap: Range, lam: Wide, extra: Wide, point: Wide) -> Flags:
    """Whether it is proved that q is not negative on the boxes (and in the ball)."""
    size, h, delta = q.h.shape[1], Range(q.h), Range(point)
    strength = Range(lam)
    gradient = q.gradient + offset * (strength + strength)[:, None]
    places = np.arange(size)
    on_diagonal = Range(extra) + (strength + strength)[:, None]
    matrix = Range(q.curvature.lo.copy(), q.curvature.hi.copy())
    matrix.lo[:, places, places] = down(matrix.lo[:, places, places] + on_diagonal.lo)
    matrix.hi[:, places, places] = up(matrix.hi[:, places, places] + on_diagonal.hi)
    r = gradient + (matrix * delta[:, None]).sum(2)
    value = q.const + strength * gap + ((gradient + r) * delta * Range(wide(0.5))).sum(1)
    value = value - (Range(extra) * h.square() * Range(wide(0.5))).sum(1)
    # r . (delta' - delta) over the box.
    least = np.minimum((r * (h - delta)).lo, (-r * (h + delta)).lo)
    meant = (lam >= 0.0) & (extra >= 0.0).all(axis=1)
    return np.asarray(meant & ((value + Range(least).sum(1)).lo >= 0.0) & positive_pivots(matrix, wide(0.0)))
