"""The units of a one-hidden-layer network over a region, and the affine model of the others on a box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from .intervals import TINY, UNIT, Interval, gamma, matmul, up
from .ranges import derivative_range

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Generators of the affine model; smaller ones join the slack.
MAX_GENERATORS = 24
#: Slopes tried for a unit, and pieces of its range.
_KAPPAS = np.linspace(0.0, 1.0, 11)
PIECES = 48


@dataclass(frozen=True)
class Units:
    """The hidden units over a region: rows u (m, D), v (m, K), output biases c (K,), and which units are alike."""

    z: FloatArray  # (n, D), the ones included
    u: Interval
    v: Interval
    c: Interval
    room: float  # radius of a ball, 0 for a box
    scale_u: float
    scale_v: float
    bias: bool
    types: list[IntArray]  # indices of the units of each type


@dataclass
class Affine:
    """Models "affine" and "range" of one unit's rest; slack, ibp: polynomials in the room left (assemble.cpp)."""

    middle: FloatArray  # (n, K)
    generators: FloatArray  # (n, K, L)
    powers: IntArray
    groups: IntArray
    slack: FloatArray  # (3, n, K)
    ibp: FloatArray  # (6, n, K)


def pre_activations(units: Units, others: IntArray, reach: FloatArray) -> tuple[FloatArray, FloatArray, Interval]:
    """s0 (n, m), its rounding error, and the interval of s; reach (n, m) is how far s may be from the centre."""
    middle = units.u.middle[others]
    s0 = units.z @ middle.T
    error = gamma(units.z.shape[1] + 4) * (np.abs(units.z) @ np.abs(middle).T) + TINY
    reach = reach * (1.0 + gamma(units.z.shape[1] + 8))
    return s0, error, Interval(s0 - reach - 2.0 * error, s0 + reach + 2.0 * error)


def box_affine(obj: Objective, units: Units, others: IntArray) -> Affine:
    name, beta = obj.net.activations[0], obj.net.betas[0]
    z, (n, dim) = units.z, units.z.shape
    outputs = units.v.lo.shape[1]
    half_u, half_v = units.u.radius[others], units.v.radius[others]
    v0 = units.v.middle[others]
    reach = np.abs(z) @ half_u.T
    s0, error, s = pre_activations(units, others, reach)
    near = Interval(s0 - error, s0 + error)
    at = derivative_range(name, beta, 0, near)
    slope = derivative_range(name, beta, 1, near)
    bend = derivative_range(name, beta, 2, s)
    g = slope.middle
    width = s.radius
    # |phi(s) - phi(s0) - g (s - s0)| and the same with kappa for g
    own_error = up(0.5 * bend.magnitude * width**2) + slope.radius * width + up(at.radius)
    kappa, product_error = _common_slope(name, beta, s0, error, s, at, g, own_error, width)
    size = np.abs(at.middle) @ np.abs(v0) + units.c.magnitude
    middle = matmul(at, Interval.point(v0)) + units.c
    slack = np.zeros((3, n, outputs))
    slack[0] = (own_error @ np.abs(v0) + product_error @ half_v) * (1.0 + gamma(len(others) + 16)) + gamma(
        len(others) + 16
    ) * size
    columns: list[FloatArray] = []
    for k in range(outputs):
        for d in range(dim):
            column = np.zeros((n, outputs))
            column[:, k] = z[:, d] * float((kappa * half_v[:, k] * half_u[:, d]).sum())
            columns.append(column)
        column = np.zeros((n, outputs))
        column[:, k] = units.c.radius[k]
        columns.append(column)
    for m in range(len(others)):
        columns += [(g[:, m] * z[:, d])[:, None] * v0[m] * half_u[m, d] for d in range(dim)]
        for k in range(outputs):
            column = np.zeros((n, outputs))
            column[:, k] = at.middle[:, m] * half_v[m, k]
            columns.append(column)
    generators, rest = _merged(columns, n, outputs)
    # Rounding of the generators' entries: a few operations each, and the sum over the units.
    slack[0] += rest + gamma(len(others) + 16) * np.abs(generators).sum(axis=2)
    value = derivative_range(name, beta, 0, s)
    plain = matmul(value, Interval(units.v.lo[others], units.v.hi[others])) + units.c
    products = _sum_of_products(value, Interval(units.v.lo[others], units.v.hi[others])) + units.c
    plain = Interval(np.maximum(plain.lo, products.lo), np.minimum(plain.hi, products.hi))
    ibp = np.zeros((6, n, outputs))
    ibp[0], ibp[1] = plain.middle, plain.radius
    ibp[4] = plain.radius
    # The constant c is a generator already; the middle's own radius contains c's, which is taken out again.
    point = matmul(at, Interval.point(v0))
    slack[0] += up(point.radius) + UNIT * 4.0 * np.abs(middle.middle)
    zero = np.zeros(generators.shape[2], dtype=np.int64)
    return Affine(point.middle + units.c.middle, generators, zero, zero - 1, slack, ibp)


def _sum_of_products(a: Interval, b: Interval) -> Interval:
    """Sum over m of a_im b_mk, each product by its ends."""
    lo, hi = np.zeros((a.lo.shape[0], b.lo.shape[1])), np.zeros((a.lo.shape[0], b.lo.shape[1]))
    size = np.zeros_like(lo)
    for m in range(a.lo.shape[1]):
        product = a[:, m : m + 1] * b[m : m + 1]
        lo, hi = lo + product.lo, hi + product.hi
        size += product.magnitude
    error = gamma(a.lo.shape[1] + 4) * size
    return Interval(lo - error, hi + error)


def _common_slope(name: str, beta: float, s0: FloatArray, blur: FloatArray, s: Interval, at: Interval, g: FloatArray,
                  own_error: FloatArray, width: FloatArray) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Per unit a slope kappa, and bounds (n, m) of |phi(s) - phi(s0) - kappa (s - s0)|."""
    slopes = derivative_range(name, beta, 1, s)
    lowest, highest = slopes.lo.min(axis=0), slopes.hi.max(axis=0)
    candidates = [lowest + t * (highest - lowest) for t in _KAPPAS] + [g.mean(axis=0)]
    if s.lo.shape[1] == 0:
        return np.zeros(0), np.zeros(s.lo.shape)
    bend = derivative_range(name, beta, 2, s).magnitude
    best_kappa, best = candidates[0].copy(), np.full(s.lo.shape, np.inf)
    grid = np.linspace(0.0, 1.0, PIECES + 1)
    step = up((s.hi - s.lo) / PIECES * (1.0 + 1e-12))
    places = [s.lo + t * (s.hi - s.lo) for t in grid]
    values = [derivative_range(name, beta, 0, Interval.point(p)) for p in places]
    for kappa in candidates:
        error = np.zeros(s.lo.shape)
        for place, value in zip(places, values, strict=True):
            line = at.middle + kappa * (place - s0)
            room = gamma(8) * (np.abs(value.middle) + np.abs(at.middle) + np.abs(kappa) * (np.abs(place) + np.abs(s0)))
            error = np.maximum(error, np.abs(value.middle - line) + value.radius + room)
        error = error + up(0.125 * bend * step**2) + at.radius + np.abs(kappa) * (1e-12 * step + blur)
        by_slope = up(own_error + np.abs(kappa - g) * width * (1.0 + gamma(4)))
        error = np.minimum(error, by_slope)
        better = error.sum(axis=0) < best.sum(axis=0)
        best_kappa[better] = kappa[better]
        best[:, better] = error[:, better]
    return best_kappa, best


def _merged(columns: list[FloatArray], n: int, outputs: int) -> tuple[FloatArray, FloatArray]:
    """Generators (n, K, L), parallel ones added up and small ones moved to the slack (n, K)."""
    kept: list[FloatArray] = []
    slack = np.zeros((n, outputs))
    for column in sorted(columns, key=lambda c: -float(np.abs(c).max())):
        largest = float(np.abs(column).max())
        if largest == 0.0:
            continue
        where = np.unravel_index(int(np.abs(column).argmax()), column.shape)
        for i, other in enumerate(kept):
            if other[where] == 0.0:
                continue
            factor = column[where] / other[where]
            if np.abs(column - factor * other).max() <= 1e-14 * largest:
                kept[i] = other * (1.0 + abs(factor))
                slack += np.abs(column - factor * other) + 4.0 * UNIT * np.abs(column)
                break
        else:
            kept.append(column)
    kept.sort(key=lambda c: -float(np.linalg.norm(c)))
    for column in kept[MAX_GENERATORS:]:
        slack += np.abs(column)
    kept = kept[:MAX_GENERATORS]
    generators = np.stack(kept, axis=2) if kept else np.zeros((n, outputs, 0))
    return generators, slack * (1.0 + gamma(len(columns) + 8))
