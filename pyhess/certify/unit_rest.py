"""What the other units of a one-hidden-layer network can add to the outputs: models for the unit-wise bounds of `units`.

The sum over m != j of ``v_m phi(u_m.z_i) + c`` is enclosed, for one unit (type) j, in one of three ways.

    twins    Squared error on a box, all other units alike: eigval_min is concave in the residual, and given the direction the
             best choice of every other unit solves the same problem, so all of them may be taken equal, with v and c at ends
             of their ranges. What is left is one further unit u'. Nothing is lost.
    affine   middle + sum of generators times symbols +- slack: first-order terms about the centre, and the products dv du' of all
             units together in one matrix kappa E, E = sum_m dv_m du_m'. On a ball the symbols of a group lie in a unit ball and
             are scaled with what the unit at hand leaves of the radius.
    range    an interval for every datum and output.

Everything is in effective parameters: NTK scales are folded in.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from ..regions import Ball, Box
from .intervals import TINY, UNIT, Interval, gamma, matmul, norms, up
from .propagate import box_cell, point_cell
from .ranges import derivative_range
from .unit_cells import LINEAR, TWINS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Combinations of signs of the twins' weights and output biases that are worth their cells.
_MAX_TWIN_ROOTS = 64
#: Generators of the affine model; smaller ones join the slack.
_MAX_GENERATORS = 24
_KAPPAS = np.linspace(0.0, 1.0, 11)
_PIECES = 48
_ODD = ("tanh", "identity")


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
class Roots:
    """Cells to start from, with the models of the other units: arrays as `UnitCells` takes them."""

    cells: FloatArray  # (R, 2, 2 D + K)
    types: IntArray  # (R,) type of the unit each root is about
    rest: dict[str, npt.NDArray[np.generic]]  # the models, by their names in `UNIT_JOB`
    centers: FloatArray  # (R, D + K) of a ball
    inverse: FloatArray  # (D + K,) one over the half-axes of a ball of radius one
    squared_radius: float  # negative for a box
    halved: bool  # v_1 >= 0 only: the rest follows from (u, v) -> (-u, -v)


def describe(obj: Objective, region: Box | Ball) -> Units:
    """The units' ranges (box) or centres (ball)."""
    net = obj.net
    cell = box_cell(net, region) if isinstance(region, Box) else point_cell(net, np.array(region.center))
    hidden, out = cell.blocks
    z = obj.data.X
    u = hidden.weight
    if net.bias:
        z = np.hstack([z, np.ones((len(z), 1))])
        u = Interval(np.hstack([u.lo, hidden.bias.lo[:, None]]), np.hstack([u.hi, hidden.bias.hi[:, None]]))
    v = out.weight.T
    rows = np.hstack([u.lo, u.hi, v.lo, v.hi])
    _, kind = np.unique(rows, axis=0, return_inverse=True)
    types = [np.flatnonzero(kind.ravel() == t) for t in range(int(kind.max()) + 1)]
    room = region.radius if isinstance(region, Ball) else 0.0
    return Units(z, u, Interval(v.lo.copy(), v.hi.copy()), out.bias, room, net.layer_scales[0],
                 net.layer_scales[1], net.bias, types)  # fmt: skip


def find_roots(obj: Objective, units: Units) -> Roots:
    """The starting cells of every type of unit, with the model of the rest that is best for it."""
    m, dim = units.u.lo.shape
    outputs = units.v.lo.shape[1]
    name = obj.net.activations[0]
    cells, kinds, amplitudes, offsets, halved = [], [], [], [], False
    types: list[int] = []
    affine: dict[int, _Affine] = {}
    for t, members in enumerate(units.types):
        j = int(members[0])
        others = np.delete(np.arange(m), j)
        own = _own_cell(units, j)
        if name in _ODD and np.array_equal(own[0], -own[1]):
            own[0, dim] = 0.0
            halved = True
        choices = _twin_choices(obj, units, others)
        if choices is None:
            choices = [(np.zeros(outputs), np.zeros(outputs))]
            affine[len(types)] = _box_affine(obj, units, others) if units.room == 0.0 else _ball_affine(obj, units, others)
            kind, further = LINEAR, np.zeros((2, dim))
        else:
            kind, further = TWINS, np.stack([units.u.lo[others[0]], units.u.hi[others[0]]])
        for amplitude, offset in choices:
            cells.append(np.hstack([own, further]))
            kinds.append(kind)
            amplitudes.append(amplitude)
            offsets.append(offset)
            types.append(t)
    rest = _packed(affine, np.array(kinds), np.array(amplitudes), np.array(offsets), units)
    centers = np.array([np.hstack([units.u.middle[m[0]], units.v.middle[m[0]]]) for m in units.types])[types]
    inverse = np.hstack([np.full(dim, 1.0 / units.scale_u), np.full(outputs, 1.0 / units.scale_v)])
    squared = units.room**2 * (1.0 + 4.0 * UNIT) if units.room > 0.0 else -1.0
    return Roots(np.array(cells), np.array(types), rest, centers, inverse, squared, halved)


def _own_cell(units: Units, j: int) -> FloatArray:
    low, high = np.hstack([units.u.lo[j], units.v.lo[j]]), np.hstack([units.u.hi[j], units.v.hi[j]])
    if units.room > 0.0:
        dim = units.u.lo.shape[1]
        reach = units.room * np.hstack([np.full(dim, units.scale_u), np.full(low.size - dim, units.scale_v)]) * (1.0 + 1e-14)
        low, high = low - reach - 4.0 * UNIT * np.abs(low), high + reach + 4.0 * UNIT * np.abs(high)
    return np.stack([low, high])


def _twin_choices(obj: Objective, units: Units, others: IntArray) -> list[tuple[FloatArray, FloatArray]] | None:
    """((number of others) v, c) for the twins' model, or None where it does not apply."""
    if obj.loss != "squared_error" or units.room > 0.0 or others.size == 0:
        return None
    if not any(np.isin(others, members).all() for members in units.types):
        return None
    outputs = units.v.lo.shape[1]
    first = int(others[0])
    v = [sorted({units.v.lo[first, k], units.v.hi[first, k]}) for k in range(outputs)]
    c = [sorted({units.c.lo[k], units.c.hi[k]}) for k in range(outputs)]
    signs = list(itertools.product(*v))
    if obj.net.activations[0] in _ODD and np.array_equal(units.u.lo[first], -units.u.hi[first]):
        # (u', v) and (-u', -v) are the same unit.
        kept: list[tuple[float, ...]] = []
        for choice in signs:
            if tuple(-x for x in choice) not in kept:
                kept.append(choice)
        signs = kept
    if len(signs) * int(np.prod([len(x) for x in c])) > _MAX_TWIN_ROOTS:
        return None
    return [(others.size * np.array(a), np.array(b)) for a in signs for b in itertools.product(*c)]


@dataclass
class _Affine:
    """Models "affine" and "range" of one unit's rest; slack, ibp: polynomials in the room left (assemble.cpp)."""

    middle: FloatArray  # (n, K)
    generators: FloatArray  # (n, K, L)
    powers: IntArray
    groups: IntArray
    slack: FloatArray  # (3, n, K)
    ibp: FloatArray  # (6, n, K)


def _pre_activations(units: Units, others: IntArray, reach: FloatArray) -> tuple[FloatArray, FloatArray, Interval]:
    """s0 (n, m), its rounding error, and the interval of s; reach (n, m) is how far s may be from the centre."""
    middle = units.u.middle[others]
    s0 = units.z @ middle.T
    error = gamma(units.z.shape[1] + 4) * (np.abs(units.z) @ np.abs(middle).T) + TINY
    reach = reach * (1.0 + gamma(units.z.shape[1] + 8))
    return s0, error, Interval(s0 - reach - 2.0 * error, s0 + reach + 2.0 * error)


def _box_affine(obj: Objective, units: Units, others: IntArray) -> _Affine:
    name, beta = obj.net.activations[0], obj.net.betas[0]
    z, (n, dim) = units.z, units.z.shape
    outputs = units.v.lo.shape[1]
    half_u, half_v = units.u.radius[others], units.v.radius[others]
    v0 = units.v.middle[others]
    reach = np.abs(z) @ half_u.T
    s0, error, s = _pre_activations(units, others, reach)
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
    return _Affine(point.middle + units.c.middle, generators, zero, zero - 1, slack, ibp)


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
    grid = np.linspace(0.0, 1.0, _PIECES + 1)
    step = up((s.hi - s.lo) / _PIECES * (1.0 + 1e-12))
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
    for column in kept[_MAX_GENERATORS:]:
        slack += np.abs(column)
    kept = kept[:_MAX_GENERATORS]
    generators = np.stack(kept, axis=2) if kept else np.zeros((n, outputs, 0))
    return generators, slack * (1.0 + gamma(len(columns) + 8))


def _quotients(name: str, beta: float, s0: FloatArray, error: FloatArray, reach: FloatArray) -> Interval:
    """Range of (phi(s) - phi(s0)) / (s - s0) over |s - s0| <= reach."""
    lo, hi = np.full(s0.shape, np.inf), np.full(s0.shape, -np.inf)
    at = derivative_range(name, beta, 0, Interval(s0 - error, s0 + error))
    fractions = np.linspace(0.0, 1.0, _PIECES + 1)
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


def _ball_affine(obj: Objective, units: Units, others: IntArray) -> _Affine:
    name, beta = obj.net.activations[0], obj.net.betas[0]
    z, (n, dim) = units.z, units.z.shape
    outputs = units.v.lo.shape[1]
    ku, kv = units.scale_u * (1.0 + gamma(8)), units.scale_v * (1.0 + gamma(8))
    size_z = norms(z)
    reach = np.repeat((size_z * ku * units.room)[:, None], len(others), axis=1)
    s0, error, s = _pre_activations(units, others, reach)
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
        columns, rest = _reduced(jacobian.reshape(n * outputs, -1))
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
    return _Affine(point.middle, generators, powers, powers - 1, slack, ibp)


def _about_origin(units: Units, kappa: float, quotient: Interval, size_z: FloatArray, products: FloatArray, middle: FloatArray,
                  slack: FloatArray, ibp: FloatArray) -> _Affine:  # fmt: skip
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
    return _Affine(middle, generators, powers, np.zeros_like(powers), slack, ibp)


def _reduced(jacobian: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Few columns C and a slack with J delta in {C eta : |eta| <= |delta|} +- slack |delta|."""
    left, values, right = np.linalg.svd(jacobian, full_matrices=False)
    count = min(_MAX_GENERATORS // 2, int((values > 1e-13 * values[0]).sum())) if values[0] > 0.0 else 0
    columns = left[:, :count] * values[:count]
    missing = jacobian - columns @ right[:count]
    rounding = gamma(count + 8) * (np.abs(columns) @ np.abs(right[:count]) + np.abs(jacobian))
    # V' V = I up to the error of the decomposition, which is measured.
    defect = float(np.abs(right[:count] @ right[:count].T - np.eye(count)).sum()) + count**2 * gamma(jacobian.shape[1] + 8)
    return columns * (1.0 + defect), norms(np.abs(missing) + rounding)


def _packed(affine: dict[int, _Affine], kinds: IntArray, amplitudes: FloatArray, offsets: FloatArray, units: Units
            ) -> dict[str, npt.NDArray[np.generic]]:  # fmt: skip
    """The models of all roots in common arrays."""
    n, outputs, roots = units.z.shape[0], units.v.lo.shape[1], kinds.size
    widest = max((model.powers.size for model in affine.values()), default=0)
    rows = roots if affine else 1
    size = n if affine else 1
    middle = np.zeros((rows, size, outputs))
    slack, ibp = np.zeros((3, rows, size, outputs)), np.zeros((6, rows, size, outputs))
    # On a ball the powers may differ between the roots: linear columns come first, so pad each part to its widest.
    linear = max((int((model.powers == 1).sum()) for model in affine.values()), default=0)
    squares = max((int((model.powers == 2).sum()) for model in affine.values()), default=0)
    plain = units.room == 0.0
    count = widest if plain else linear + squares
    generators = np.zeros((rows, size, outputs, count))
    powers = np.zeros(count, dtype=np.int64) if plain else np.array([1] * linear + [2] * squares, dtype=np.int64)
    groups = np.full(count, -1, dtype=np.int64) if plain else powers - 1
    if not plain and len(affine) == 1:
        (only,) = affine.values()
        groups = only.groups
    for root, model in affine.items():
        middle[root], slack[:, root], ibp[:, root] = model.middle, model.slack, model.ibp
        if plain:
            generators[root, :, :, : model.powers.size] = model.generators
        else:
            first = model.powers == 1
            generators[root, :, :, : int(first.sum())] = model.generators[:, :, first]
            generators[root, :, :, linear : linear + int((~first).sum())] = model.generators[:, :, ~first]
    return {
        "kinds": kinds,
        "amplitude": amplitudes,
        "offset": offsets,
        "middle": middle,
        "generators": generators,
        "slack": slack,
        "ranges": ibp,
        "powers": powers,
        "groups": groups,
    }
