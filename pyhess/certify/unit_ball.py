"""The affine model of the other units on a ball: first-order terms share the radius, and products its square."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from .intervals import UNIT, Interval, gamma, matmul, norms, up
from .ranges import derivative_range
from .unit_models import MAX_GENERATORS, PIECES, Affine, Units, pre_activations

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def _quotients(name: str, beta: float, s0: FloatArray, error: FloatArray, reach: FloatArray) -> Interval:
    """Range of (phi(s) - phi(s0)) / (s - s0) over |s - s0| <= reach."""
    lo, hi = np.full(s0.shape, np.inf), np.full(s0.shape, -np.inf)
    at = derivative_range(name, beta, 0, Interval(s0 - error, s0 + error))
    fractions = np.linspace(0.0, 1.0, PIECES + 1)
    slope_lo, slope_hi = lo.copy(), hi.copy()
    for sign in (-1.0, 1.0):
        slope_lo[:], slope_hi[:] = np.inf, -np.inf
        for a, b in itertools.pairwise(fractions):
            near, far = a * reach * (1.0 - 1e-14), b * reach * (1.0 + 1e-14)
            ends = Interval(s0 - far - error, s0 - near + error) if sign < 0 else Interval(s0 + near - error, s0 + far + error)
            slope = derivative_range(name, beta, 1, ends)
            slope_lo, slope_hi = np.minimum(slope_lo, slope.lo), np.maximum(slope_hi, slope.hi)
            low, high = slope_lo.copy(), slope_hi.copy()  # the quotient is a mean of slopes
            if a > 0.0:
                value = derivative_range(name, beta, 0, ends)
                rise = Interval(sign * (value.lo if sign > 0 else value.hi), sign * (value.hi if sign > 0 else value.lo))
                base = Interval(sign * (at.lo if sign > 0 else at.hi), sign * (at.hi if sign > 0 else at.lo))
                gain = rise - base
                with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                    low_quotient = np.minimum(gain.lo / near, gain.lo / far) - 4.0 * UNIT * np.abs(gain.lo / near)
                    high_quotient = np.maximum(gain.hi / near, gain.hi / far) + 4.0 * UNIT * np.abs(gain.hi / near)
                low = np.where(low_quotient > low, low_quotient, low)
                high = np.where(high_quotient < high, high_quotient, high)
            lo, hi = np.minimum(lo, low), np.maximum(hi, high)
    return Interval(lo, hi)


def _two_by_two(a: FloatArray, b: FloatArray) -> FloatArray:
    """Largest eigenvalue of [a, b; b, 0] for a >= 0, rounded up."""
    return up((0.5 * a + np.sqrt(0.25 * a * a + b * b)) * (1.0 + gamma(16)))


def ball_affine(obj: Objective, units: Units, others: IntArray) -> Affine:
    name, beta = obj.net.activations[0], obj.net.betas[0]
    z, (n, dim) = units.z, units.z.shape
    outputs = units.v.lo.shape[1]
    ku, kv = units.scale_u * (1.0 + gamma(8)), units.scale_v * (1.0 + gamma(8))
    size_z = norms(z)
    reach = np.repeat((size_z * ku * units.room)[:, None], len(others), axis=1)
    s0, error, s = pre_activations(units, others, reach)
    v0 = units.v.middle[others]
    near = Interval(s0 - error, s0 + error)
    at, slope = derivative_range(name, beta, 0, near), derivative_range(name, beta, 1, near)
    bend = derivative_range(name, beta, 2, s).magnitude
    point = matmul(at, Interval(units.v.lo[others], units.v.hi[others])) + units.c
    slack, ibp = np.zeros((3, n, outputs)), np.zeros((6, n, outputs))
    slack[0] = point.radius
    # First order: J (n K, P), |delta| <= room.
    jacobian = np.zeros((n, outputs, len(others) * (dim + outputs) + (outputs if units.bias else 0)))
    for m in range(len(others)):
        begin = m * (dim + outputs)
        for d in range(dim):
            jacobian[:, :, begin + d] = units.scale_u * (slope.middle[:, m] * z[:, d])[:, None] * v0[m]
        for k in range(outputs):
            jacobian[:, k, begin + dim + k] = units.scale_v * at.middle[:, m]
    if units.bias:
        for k in range(outputs):
            jacobian[:, k, -outputs + k] = units.scale_v
    rows = norms(jacobian.reshape(n * outputs, -1)).reshape(n, outputs) if jacobian.shape[2] else np.zeros((n, outputs))
    if jacobian.shape[2]:
        columns, rest = reduced(jacobian.reshape(n * outputs, -1))
        columns, rest = columns.reshape(n, outputs, -1), rest.reshape(n, outputs)
    else:
        columns, rest = np.zeros((n, outputs, 0)), np.zeros((n, outputs))
    # What the middles of phi and phi' leave out: |v0 dphi' du.z| and |dphi dv|, first order.
    blur = kv * norms(at.radius) if len(others) else np.zeros(n)
    for k in range(outputs):
        turn = norms(slope.radius * np.abs(v0[:, k])) * size_z * ku if len(others) else np.zeros(n)
        slack[1, :, k] = (rest[:, k] + blur + turn + 16.0 * UNIT * rows[:, k]) * (1.0 + gamma(16))
    quotient = _quotients(name, beta, s0, error, reach) if len(others) else Interval(np.zeros((n, 1)), np.zeros((n, 1)))
    kappa = 0.5 * (float(quotient.lo.min()) + float(quotient.hi.max()))
    dev = up(np.maximum(np.abs(quotient.lo - kappa), np.abs(quotient.hi - kappa)))
    total = np.zeros((n, outputs))
    if len(others):
        for k in range(outputs):
            a = up(0.5 * bend * np.abs(v0[:, k]) * (ku * size_z[:, None]) ** 2 * (1.0 + gamma(8)))
            factor = 0.5 * ku * kv * size_z[:, None] * (1.0 + gamma(8))
            slack[2, :, k] = _two_by_two(a, dev * factor).max(axis=1)
            total[:, k] = _two_by_two(a, quotient.magnitude * factor).max(axis=1)
    products = np.zeros((n, outputs, outputs * dim))
    if len(others):
        for k in range(outputs):
            products[:, k, k * dim : (k + 1) * dim] = 0.5 * abs(kappa) * units.scale_u * units.scale_v * z
    slack[2] += 16.0 * UNIT * np.abs(products).sum(axis=2)
    ibp[0], ibp[1], ibp[2], ibp[3] = point.middle, point.radius, up(rows * (1.0 + gamma(16))) + slack[1], total
    values = derivative_range(name, beta, 0, s)
    change = np.maximum(values.hi - at.lo, at.hi - values.lo)
    ibp[4] = up((change @ np.abs(v0)) * (1.0 + gamma(len(others) + 8))) + point.radius
    largest = norms(np.hstack([values.magnitude, np.full((n, 1), 1.0 if units.bias else 0.0)]))
    ibp[5] = (largest * kv * (1.0 + gamma(8)))[:, None]
    if len(others) and units.bias and not (v0.any() or units.u.middle[others].any() or at.middle.any()):
        return _about_origin(units, kappa, quotient, size_z, products, point.middle, slack, ibp)
    generators = np.concatenate([columns, products], axis=2)
    powers = np.concatenate([np.full(columns.shape[2], 1), np.full(products.shape[2], 2)]).astype(np.int64)
    return Affine(point.middle, generators, powers, powers - 1, slack, ibp)


def _about_origin(units: Units, kappa: float, quotient: Interval, size_z: FloatArray, products: FloatArray, middle: FloatArray,
                  slack: FloatArray, ibp: FloatArray) -> Affine:  # fmt: skip
    """A centre at zero with phi(0) = 0: the output biases c share the radius with the products E, |c|² + 2 |E| <= room².

    The set of all (g E_x, g E_0 + k c), k the output's scale and g = kappa times both scales, has the support function
    (g room² + k² cos²/g)/2 where k cos <= g room, else k room cos, cos the share of the constant; the ellipsoid with half-axes
    g room²/2 for the inputs and a for the constant is larger, with a = k room for g room <= k and (g room² + k²/g)/2 above.
    a / room increases with the room, so its largest value serves.
    """
    outputs, dim = middle.shape[1], units.z.shape[1]
    g = abs(kappa) * units.scale_u * units.scale_v
    k, room = units.scale_v, units.room
    slope = k if g * room <= k else 0.5 * (g * room + k * k / (g * room))
    slope *= 1.0 + gamma(32)
    generators = np.zeros((*middle.shape, outputs * dim))
    powers = np.full(outputs * dim, 2, dtype=np.int64)
    for o in range(outputs):
        # Columns of power one come first: the constants.
        generators[:, o, o] = slope
        powers[o] = 1
        inputs = slice(outputs + o * (dim - 1), outputs + (o + 1) * (dim - 1))
        generators[:, o, inputs] = products[:, o, o * dim : (o + 1) * dim - 1]
    # The range: (g_i room² |z_i| + k²/(g_i |z_i|))/2 for the largest quotient g_i, where that beats the sum of the two.
    largest = up(quotient.magnitude.max(axis=1)) * units.scale_u * units.scale_v * (1.0 + gamma(8))
    with np.errstate(divide="ignore"):
        constant = 0.5 * k * k / (largest * size_z) * (1.0 + gamma(16))
    square = 0.5 * largest * size_z * (1.0 + gamma(16))
    for o in range(outputs):
        better = constant < room * ibp[2, :, o]
        ibp[1, better, o] += constant[better] + 1e-14 * room
        ibp[2, better, o] = 0.0
        ibp[3, better, o] = np.maximum(ibp[3, better, o], square[better])
    return Affine(middle, generators, powers, np.zeros_like(powers), slack, ibp)


def reduced(jacobian: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Few columns C and a slack with J delta in {C eta : |eta| <= |delta|} +- slack |delta|."""
    left, values, right = np.linalg.svd(jacobian, full_matrices=False)
    count = min(MAX_GENERATORS // 2, int((values > 1e-13 * values[0]).sum())) if values[0] > 0.0 else 0
    columns = left[:, :count] * values[:count]
    missing = jacobian - columns @ right[:count]
    rounding = gamma(count + 8) * (np.abs(columns) @ np.abs(right[:count]) + np.abs(jacobian))
    # V' V = I up to the error of the decomposition, which is measured.
    defect = float(np.abs(right[:count] @ right[:count].T - np.eye(count)).sum()) + count**2 * gamma(jacobian.shape[1] + 8)
    return columns * (1.0 + defect), norms(np.abs(missing) + rounding)
