"""The Hessian at a ball's centre and the third derivatives over the ball: small balls, any depth, the whole Hessian kept.

For delta = theta - c, |delta| <= R, v'H(theta)v = v'H(c)v + sum_k delta_k v'D_k v with D_k in M_k ± N_k, an enclosure of the
third derivatives over the ball. For any symmetric Lam > 0 and any antisymmetric A_k, with U_k = M_k/2 + A_k,

    sum_k delta_k v'M_k v = 2 sum_k (delta_k v)'U_k v >= -R² v'Lam v - sum_k v'U_k'Lam^-1 U_k v,

and for any x, w > 0

    sum_k |delta_k| |v|'N_k|v| <= v'diag(q)v,    q = R² x/2 + (sum_k N_k diag(1/x) N_k w) / (2 w).

So psi >= eigval_min(H(c) - diag(q) - R² Lam - sum_k U_k'Lam^-1 U_k), which is concave in (Lam, A): it is maximised by a
quasi-Newton method with the smallest eigenvalue smoothed. Whatever that ends with proves a bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..model import MLP
from ..objective import Objective
from ..regions import Ball
from .dense import dense_enclosures
from .intervals import ROOT_TINY, TINY, UNIT, Interval, gamma, matmul, norms
from .propagate import BallCells, point_cell
from .smoothed import least_smoothed
from .spectral import eigval_min_bound, norm_bound
from .third_derivatives import third_derivatives, third_work
from .third_multipliers import ThirdMultipliers

FloatArray = npt.NDArray[np.float64]

#: Most parameters, and most multiplications for the third derivatives over one ball.
_MAX_PARAMS, _MAX_WORK = 72, 6e9
#: Concentric balls: H(theta) - H(c) is the mean of the third derivatives on the way, most of which is inside the ball.
_SHELLS = 4
#: Smoothing of the smallest eigenvalue, relative to it, and multiplications and steps for each.
_SMOOTHING, _STEP_WORK, _STEPS = (0.1, 0.03, 0.01), 1.5e9, 400
#: Rounds in which the weights w follow the eigenvector, and its smallest entries counted, relative to the largest.
_ROUNDS, _FLOOR = 3, 0.3


def third_knows(net: MLP, num_samples: int, loss: str) -> bool:
    """Whether this bound is for such balls: few parameters, activations and a loss with third derivatives."""
    small = net.num_params <= _MAX_PARAMS and enclosure_work(net, num_samples) <= _MAX_WORK
    return small and loss != "cross_entropy" and net.is_smooth


def enclosure_work(net: MLP, num_samples: int) -> float:
    """Multiplications with intervals, roughly; there are about as many without."""
    return _SHELLS * third_work(net, num_samples)


@dataclass
class _Form:
    """H(c), M (P, P, P) and N as above, less what is already taken off the diagonal."""

    hessian: FloatArray
    middle: FloatArray
    radius: FloatArray
    ball: float


@dataclass
class _Multipliers:
    """A factor C of Lam = C C', and U."""

    factor: FloatArray
    halves: FloatArray


@dataclass(frozen=True)
class ThirdBound:
    """A lower bound of psi, and what proves it."""

    psi_lower: float
    multipliers: ThirdMultipliers | None = None


def third_bound(obj: Objective, region: Ball, known: float, cancelled: npt.NDArray[np.int32]) -> ThirdBound | None:
    """Lower bound of psi over the ball; None if cancelled, -inf where it will not come near the bound ``known``."""
    form = _form(obj, region, cancelled)
    if form is None:
        return None
    if not (np.isfinite(form.hessian).all() and np.isfinite(form.middle).all() and np.isfinite(form.radius).all()):
        return ThirdBound(-np.inf)
    size = form.hessian.shape[0]
    weights = _promising(form, known)
    if weights is None:
        return ThirdBound(-np.inf)
    best, multipliers = ThirdBound(-np.inf), _start(form)
    for _ in range(_ROUNDS):
        if cancelled[0]:
            break
        base = form.hessian.copy()
        change = _change(form, weights)
        base[np.diag_indices(size)] -= change
        if not np.isfinite(base).all():
            return best
        multipliers = _maximised(base, form, multipliers, cancelled)
        value, vector, lam = _proved(form, multipliers, change)
        if value > best.psi_lower:
            best = ThirdBound(value, ThirdMultipliers(lam, multipliers.halves, weights))
        weights = _weights(vector)
    return None if best.psi_lower == -np.inf and cancelled[0] else best


def _weights(vector: FloatArray) -> FloatArray:
    size = np.abs(vector)
    return np.maximum(size, _FLOOR * float(size.max()))


def _promising(form: _Form, known: float) -> FloatArray | None:
    """Weights for which the diagonal alone does not take more than ``known``, or None if none were found."""
    size = form.hessian.shape[0]
    weights: FloatArray = np.ones(size)
    for _ in range(_ROUNDS):
        base = form.hessian.copy()
        base[np.diag_indices(size)] -= _change(form, weights)
        if not np.isfinite(base).all():
            return None
        values, vectors = np.linalg.eigh(base)
        if values[0] > known:
            return weights
        weights = _weights(vectors[:, 0])
    return None


def _form(obj: Objective, region: Ball, cancelled: npt.NDArray[np.int32]) -> _Form | None:
    net, data, targets, loss = obj.net, obj.data, obj.targets, obj.loss
    matrices = dense_enclosures(point_cell(net, np.array(region.center)), data, targets, loss, cancelled)
    if matrices is None:
        return None
    residual, gauss = matrices
    hessian = residual + gauss
    make = BallCells(net, region)
    total: Interval | None = None
    for shell in range(_SHELLS):
        cell = make(np.full(net.num_layers, region.radius * (shell + 1) / _SHELLS * (1.0 + gamma(4))))
        found = third_derivatives(cell, data, targets, loss, cancelled)
        if found is None:
            return None
        part = found.scaled(1.0 / _SHELLS)
        total = part if total is None else total + part
    assert total is not None
    middle = total.middle
    symmetric = (middle + middle.transpose(1, 2, 0) + middle.transpose(2, 0, 1)) / 3.0
    symmetric = 0.5 * (symmetric + symmetric.transpose(0, 2, 1))
    # What holds for one order of the indices holds for all.
    radius = total.distance(Interval.point(symmetric))
    for order in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        radius = np.maximum(radius, radius.transpose(order))
    centre = 0.5 * (hessian.middle + hessian.middle.T)
    off = hessian.radius + np.abs(hessian.middle - centre)
    centre[np.diag_indices(net.num_params)] -= norm_bound(off) * (1.0 + gamma(net.num_params + 8)) + TINY
    centre[np.diag_indices(net.num_params)] -= 4.0 * UNIT * np.abs(np.diag(centre))
    return _Form(centre, symmetric, radius, float(region.radius) * (1.0 + gamma(4)))


def _change(form: _Form, weights: FloatArray) -> FloatArray:
    """The diagonal q for the weights w, with the best x for them."""
    size, radius = weights.size, form.ball
    applied = (form.radius @ weights) * (1.0 + gamma(size + 8)) + TINY
    x = np.sqrt((applied**2).sum(axis=0)) / (radius * weights)
    x = np.maximum(x, 1e-12 * float(x.max()) + ROOT_TINY)
    again = np.einsum("kab,kb->a", form.radius, applied / x)
    q: FloatArray = (0.5 * radius**2 * x + 0.5 * again / weights) * (1.0 + gamma(size**2 + size + 32)) + TINY
    return q


def _start(form: _Form) -> _Multipliers:
    size = form.hessian.shape[0]
    scale = float(np.linalg.norm(form.middle.reshape(size * size, size), 2)) / form.ball
    return _Multipliers(np.sqrt(0.5 * scale + 1e-30) * np.eye(size), 0.5 * form.middle)


def _maximised(base: FloatArray, form: _Form, start: _Multipliers, cancelled: npt.NDArray[np.int32]) -> _Multipliers:
    """Multipliers near the best, or as far as that got until it was cancelled."""
    size = base.shape[0]
    square = form.ball**2
    floor = 1e-9 * float((start.factor**2).sum()) / size
    steps = int(np.clip(_STEP_WORK / (8.0 * float(size) ** 4), 10, _STEPS))
    unit = float(np.sqrt((start.factor**2).mean() * size))

    def split(z: FloatArray) -> _Multipliers:
        turned = z[size * size :].reshape(size, size, size)
        return _Multipliers(unit * z[: size * size].reshape(size, size), turned - turned.transpose(0, 2, 1) + 0.5 * form.middle)

    def value(z: FloatArray, smoothing: float) -> tuple[float, FloatArray]:
        at = split(z)
        lam = at.factor @ at.factor.T
        lam[np.diag_indices(size)] += floor
        try:
            inverse = np.linalg.inv(lam)
            solved = inverse @ at.halves
            total = base - square * lam - at.halves.reshape(-1, size).T @ solved.reshape(-1, size)
            values, vectors = np.linalg.eigh(0.5 * (total + total.T))
        except np.linalg.LinAlgError:
            return np.inf, np.zeros_like(z)
        share = np.exp((values[0] - values) / smoothing)
        density = (vectors * (share / share.sum())) @ vectors.T
        moved = solved @ density
        into_lam = square * density - (moved.transpose(1, 0, 2).reshape(size, -1)) @ (
            solved.transpose(1, 0, 2).reshape(size, -1).T
        )
        gradient = np.concatenate([
            2.0 * unit * (0.5 * (into_lam + into_lam.T) @ at.factor).ravel(),
            2.0 * (moved - moved.transpose(0, 2, 1)).ravel(),
        ])  # fmt: skip
        return float(smoothing * np.log(share.sum()) - values[0]), gradient

    turned = 0.5 * (start.halves - 0.5 * form.middle)
    z = least_smoothed(value, np.concatenate([(start.factor / unit).ravel(), turned.ravel()]), _SMOOTHING, steps, cancelled)
    return split(z)


def _proved(form: _Form, multipliers: _Multipliers, change: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """What the multipliers prove, the eigenvector of the smallest eigenvalue, and Lam."""
    size = form.hessian.shape[0]
    nothing = -np.inf, np.ones(size), np.eye(size)
    lam = multipliers.factor @ multipliers.factor.T
    lam = 0.5 * (lam + lam.T)
    lam[np.diag_indices(size)] += 1e-9 * float(np.trace(lam)) / size
    try:
        inverse = np.linalg.inv(lam)
    except np.linalg.LinAlgError:
        return nothing
    inverse = 0.5 * (inverse + inverse.T)
    if not (np.isfinite(inverse).all() and np.isfinite(multipliers.halves).all()):
        return nothing
    # 2 a'b <= s a'Lam a + b'G b / s for G as computed if [Lam, -1; -1, G] >= 0, which is made so by what is missing. Both are
    # scaled to the same size by a power of two.
    scale = np.exp2(np.rint(0.5 * np.log2(np.trace(inverse) / np.trace(lam))))
    even, other = scale * lam, inverse / scale
    both = np.block([[even, -np.eye(size)], [-np.eye(size), other]])
    missing = max(0.0, -eigval_min_bound(both)) * (1.0 + gamma(8))
    for matrix in (even, other):
        matrix[np.diag_indices(size)] = (np.diag(matrix) + missing) * (1.0 + 4.0 * UNIT)
    # (U_k + U_k') may differ from M_k by rounding, which the radii take.
    halves = multipliers.halves
    turned = halves.transpose(0, 2, 1)
    rounding = np.abs(halves + turned - form.middle) + 4.0 * UNIT * (np.abs(halves) + np.abs(turned) + np.abs(form.middle))
    points = Interval.point(halves.reshape(size, size, size))
    solved = matmul(Interval.point(other), points)
    product = matmul(Interval(points.lo.reshape(-1, size).T, points.hi.reshape(-1, size).T), solved.reshape(-1, size))
    taken = product.scaled(scale) + Interval.point(even).scaled(form.ball**2 * (1.0 + gamma(4)) / scale)
    total = Interval.point(form.hessian) - taken
    middle = 0.5 * (total.middle + total.middle.T)
    off = total.radius + np.abs(total.middle - middle)
    diagonal = np.diag_indices(size)
    extra = form.ball * _frobenius(rounding) * (1.0 + gamma(32))
    middle[diagonal] -= (change + norm_bound(off) + extra) * (1.0 + gamma(size + 16)) + TINY
    middle[diagonal] -= 4.0 * UNIT * np.abs(middle[diagonal])
    if not np.isfinite(middle).all():
        return nothing
    return eigval_min_bound(middle), np.linalg.eigh(middle)[1][:, 0], even / scale


def _frobenius(tensor: FloatArray) -> float:
    """Frobenius norm, rounded up."""
    return float(norms(tensor.reshape(1, -1))[0])
