"""Third-order polynomials of networks with one hidden layer and squared error, unit by unit: what `taylor_hessian` makes for any.

The residual r_ik, the factors Q = κ₂ (V + b) phi'' and G = κ₂ phi' of

    sum_ik m_i [ (J_ik . v)² + r_ik sum_j (Q_ikj sigma² + 2 G_ij sigma nu) ],    sigma = X_i . v_w,  nu = v_Vkj,

and J are the polynomials of `taylor_unit_forms`, or sums of such over the units. So every term has at most two units among its
indices, and takes a small product of matrices (`taylor_unit_cubic`). Dense polynomials of the third order take P⁵ multiplications
for every datum and unit. As in `taylor_hessian` curved = m r Q less its rest takes the place of curved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data import Dataset
from ..model import MLP
from .intervals import TINY, gamma
from .taylor_hessian import Affine, Expansion, Quadratic
from .taylor_rests import UnitPlaces, UnitRests
from .taylor_room import Room
from .taylor_unit_cubic import UnitCubic
from .taylor_unit_forms import UnitForms, UnitLayout
from .taylor_unit_tails import UnitTails

FloatArray = npt.NDArray[np.float64]

#: Most numbers in a local tensor of a block of data, and in the coefficients of two units.
_BLOCK_NUMBERS, _PAIR_NUMBERS = 2**24, 2**23
_ROOM = 1.0 + gamma(64)


@dataclass(frozen=True, eq=False)
class UnitExpansion:
    """What `Expansion` has, with the second and the third order unit by unit."""

    residual: Affine
    squares: Affine
    tails: UnitTails
    cubic: UnitCubic
    layout: UnitLayout
    lowered: FloatArray
    left_out: FloatArray
    units: tuple[UnitRests, UnitRests]
    places: UnitPlaces

    def dense(self) -> Expansion:
        """With the second order as arrays of P⁴ numbers."""
        size, order = self.layout.size, self.layout.order
        residual, squares = (
            Quadratic(part.head, part.half, part.rest, tail.dense(order).reshape((size,) * 4))
            for part, tail in zip((self.residual, self.squares), self.tails.matrices(), strict=True)
        )
        return Expansion(residual, squares, self.cubic, self.lowered, self.left_out, self.units, self.places)


def has_unit_polynomials(net: MLP, loss: str) -> bool:
    """Whether these are for such a network and loss: one hidden layer, squared error, few inputs and outputs."""
    return net.num_layers == 2 and loss == "squared_error" and 32 * unit_size(net) ** 5 <= _PAIR_NUMBERS


def unit_size(net: MLP) -> int:
    """Parameters of one hidden unit."""
    return net.widths[0] + int(net.layer_slices[0][1] is not None) + net.widths[2]


def pair_numbers(net: MLP) -> float:
    """Numbers of the tensors of pairs of units."""
    return 4.0 * float(net.widths[1]) ** 2 * float(unit_size(net)) ** 5


def unit_polynomial_work(net: MLP, num_samples: int) -> float:
    """Multiplications of `unit_hessian`, roughly."""
    size, one, units = float(net.num_params), float(unit_size(net)), float(net.widths[1])
    rows = float(num_samples * net.widths[2])
    return rows * (size * units * one**4 + 3.0 * units**2 * one**5) + 24.0 * units**2 * one**7 + 0.5 * units**3 * one**7


def unit_hessian(
    net: MLP,
    centre: FloatArray,
    room: Room,
    data: Dataset,
    targets: FloatArray,
    kept: FloatArray,
    cancelled: npt.NDArray[np.int32],
) -> UnitExpansion | None:
    """The Taylor polynomial for changes in a ball, as `taylor_hessian`; None if cancelled."""
    layout = UnitLayout(net)
    sums = _Sums(layout, room.reach, data.num_samples * net.widths[2])
    rows = max(1, _BLOCK_NUMBERS // (net.widths[1] * layout.one**4 * net.widths[2]))
    lowered, left_out = [], []
    for begin in range(0, data.num_samples, rows):
        if cancelled[0]:
            return None
        part = slice(begin, begin + rows)
        local = UnitForms(net, layout, centre, room.reach, data.X[part], targets[part])
        taken, gone = sums.add(
            local, np.repeat(data.normalized_weights[part], layout.outputs), np.repeat(kept[part], layout.outputs)
        )
        lowered.append(taken.reshape(-1, layout.outputs, layout.units).sum(axis=1) * (1.0 + gamma(layout.outputs + 4)))
        left_out.append(gone.reshape(-1, layout.outputs).sum(axis=1))
    return sums.expansion(np.concatenate(lowered), np.concatenate(left_out))


class _Sums:
    """Sums over blocks of data."""

    def __init__(self, layout: UnitLayout, radius: float, rows: int) -> None:
        size = layout.size
        self.layout, self.radius = layout, radius
        self.residual, self.squares = Affine.without(size), Affine.without(size)
        functions = layout.units * (1 + layout.outputs)
        #: What is left out, of the residual part and of the squares.
        self.units = tuple(
            UnitRests(
                np.zeros((functions, layout.units, layout.entering, layout.entering)),
                np.zeros((functions, layout.units * layout.outputs)),
            )
            for _ in range(2)
        )
        self.lengths = np.zeros((layout.entering, layout.entering))
        self.cubic, self.tails = UnitCubic(layout), UnitTails(layout)
        #: Every number is a sum of so many terms with some sixty roundings each, and of a few such sums.
        self.rounding = gamma(rows + 1024)
        self.rows = rows

    def add(self, local: UnitForms, mass: FloatArray, kept: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Add a block of data; what was taken off m r Q (rows, H), and squared lengths of what J leaves out (rows,)."""
        layout = self.layout
        rows, units, one, size = len(mass), layout.units, layout.one, layout.size
        x, e, outer, f, g, h = local.x, local.e, local.outer, local.f, local.g, local.h
        r = mass * local.residual
        of_residual = local.forms(f.of)
        first = np.zeros((rows, size))
        first[:, : units * one] = of_residual[0].reshape(rows, -1)
        if layout.biases:
            first[:, units * one :] = outer * e[:, layout.entering :]
        r1, r2, r3 = mass[:, None] * first, mass[:, None, None, None] * of_residual[1], of_residual[2]
        r3 *= mass[:, None, None, None, None]
        q1, q2, q3 = local.forms(h.of)
        q0 = outer * local.v * h.of[0]
        s0, s1, s2, s3 = (outer * c for c in g.of)
        # Forms in v (…, a, b) with the change's indices before: where the order of the factors matters, and symmetric.
        square = np.einsum("ra,rb->rab", x, x)
        entering = layout.entering
        self.lengths += np.tensordot(mass, square[:, :entering, :entering], 1) / layout.outputs
        ordered = 2.0 * np.einsum("ra,rb->rab", e, x)
        both = 0.5 * (ordered + ordered.swapaxes(1, 2))

        def in_v(of_square: FloatArray, of_mixed: FloatArray, mixed: FloatArray) -> FloatArray:
            flat = of_square.reshape(rows, units, -1, 1) * square.reshape(rows, 1, 1, -1)
            flat += of_mixed.reshape(rows, units, -1, 1) * mixed.reshape(rows, 1, 1, -1)
            return np.asarray(flat.reshape(*of_square.shape, one, one))

        slopes = [s0, local.along(s1, x), local.along(s2, x, x)]
        z0, z1 = in_v(q0, slopes[0], ordered), in_v(q1, slopes[1], ordered)
        self._add_value(r, z0, z1, in_v(q2, slopes[2], ordered), r1, r2)
        y0, y1, y2 = (in_v(q, slope, both) for q, slope in zip((q0, q1, q2), slopes, strict=True))
        self.cubic.add_forms(r1, r2, r3, y0, y1, y2)
        self.cubic.add_same(
            r[:, None, None, None, None] * q3, square, r[:, None, None, None, None] * local.along(s3, x, x, x), both
        )
        # Squares.
        d = local.forms(g.of)
        values = [outer * p for p in f.of]
        d0 = np.zeros((rows, size))
        d0[:, : units * one] = (local.along(outer * local.v * g.of[0], x) + local.along(values[0], e)).reshape(rows, -1)
        if layout.biases:
            d0[:, units * one :] = outer * e[:, layout.entering :]
        d1 = np.einsum("rjk,ra->rjka", d[0], x) + local.along(values[1], x, e)
        d2 = np.einsum("rjkl,rb->rjklb", d[1], x) + local.along(values[2], x, x, e)
        weight = mass * kept
        self._add_squares(weight, d0, d1, d2)
        return self._add_rests(local, mass, weight)

    def _add_value(self, r: FloatArray, z0: FloatArray, z1: FloatArray, z2: FloatArray, r1: FloatArray, r2: FloatArray) -> None:
        """The residual part up to the second order: r (z0 + z1 + z2) with r = r0 + r1 + r2."""
        layout = self.layout
        everything, heads = layout.order, np.tensordot(r, z0, (0, 0))
        for j in range(layout.units):
            own = layout.unit(j)
            self.residual.head[np.ix_(own, own)] += heads[j]
            self.residual.half[np.ix_(everything, own, own)] += 0.5 * np.tensordot(r1, z0[:, j], (0, 0))
            self.residual.half[np.ix_(own, own, own)] += 0.5 * np.tensordot(r, z1[:, j], (0, 0))
            self.tails.slopes[:, j] += np.tensordot(r1, z1[:, j], (0, 0))
            self.tails.own[j] += np.tensordot(r, z2[:, j], (0, 0))
        self.tails.apart += np.tensordot(r2, z0, (0, 0))

    def _add_squares(self, weight: FloatArray, d0: FloatArray, d1: FloatArray, d2: FloatArray) -> None:
        layout, squares = self.layout, self.squares
        everything, heavy = layout.order, weight[:, None] * d0
        squares.head[np.ix_(everything, everything)] += heavy.T @ d0
        into = np.tensordot(d1, heavy, (0, 0))  # (j, k, a, b)
        heavy_first = weight[:, None, None, None] * d1
        for j in range(layout.units):
            own = layout.unit(j)
            squares.half[np.ix_(own, own, everything)] += into[j]
        self.tails.roots += np.tensordot(2.0 * heavy, d2, (0, 0))
        self.tails.squares += np.tensordot(heavy_first, d1, (0, 0))
        self.cubic.add_squares(heavy_first, d2)

    def _add_rests(self, local: UnitForms, mass: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        layout, residual = self.layout, self.residual
        rows, entering = len(mass), layout.entering
        r, rough_r = local.r, local.r.whole.rough
        x, outputs, units = local.x[:, :entering], layout.outputs, layout.units
        size, places = np.abs(x), np.arange(rows)
        heavy = mass[:, None] * (1.0 + gamma(64))
        taken = heavy * r.times(local.q) * _ROOM
        mixed = heavy * r.times(local.slope) * _ROOM
        rounded = self.rounding * heavy * rough_r * local.q.rough * _ROOM + self.rounding * taken + TINY
        crossed = self.rounding * heavy * rough_r * local.slope.rough * _ROOM + TINY
        rough = np.zeros((rows, layout.size))
        rough[:, layout.order[units * layout.one :]] = local.outer
        squared = np.einsum("ra,rb->rab", x, x)
        weight = (weight * (1.0 + gamma(64)))[:, None]
        for j in range(units):
            own = layout.unit(j)
            at, block = own[:entering], np.ix_(own[:entering], own[:entering])
            residual.head[block] -= np.tensordot(taken[:, j], squared, 1)
            residual.rest[block] += (size * rounded[:, j, None]).T @ size
            rough[:, at] = local.d.rough[:, j, None] * size
            rough[places, own[entering + places % outputs]] = local.value_rough[:, j]
            into = self.units[0].entering[:, j]
            for k in range(outputs):
                some, column = slice(k, None, outputs), own[entering + k]
                residual.rest[at, column] += crossed[some, j] @ size[some]
                residual.rest[column, at] += crossed[some, j] @ size[some]
                into[units + k * units + j] += np.tensordot(mixed[some, j], squared[some], 1)
                self.units[0].leaving[j, k * units + j] += mixed[some, j].sum()
        for k in range(outputs):
            self._add_pairs(local, slice(k, None, outputs), k, weight, squared)
        rough *= np.sqrt(mass)[:, None] * _ROOM
        residual.rest += self.rounding * (rough.T @ rough)
        slope, value = (p + q for p, q in zip(local.bent, local.gone, strict=True))
        whole = (slope**2 * (x**2).sum(axis=1)[:, None] + value**2).sum(axis=1)
        return taken, weight[:, 0] * whole

    def _add_pairs(self, local: UnitForms, some: slice, k: int, weight: FloatArray, squared: FloatArray) -> None:
        """The squares of what the derivative of an output leaves out: e = sum_q (s_j³ b_q + g_q) |x_q|.

        As the s_j³ of all units add up to one at most, (sum s_j³ b_q |x_q|)² is no more than the sum of the units' own squares.
        """
        units, out = self.layout.units, self.units[1]
        bent, gone = (np.concatenate([x[some] for x in both], axis=1) for both in (local.bent, local.gone))
        of_unit = np.tile(np.arange(units), 2)
        functions = np.concatenate([np.arange(units), units + k * units + np.arange(units)])
        heavy, ones = weight[some] * _ROOM, squared[some]
        for at, (q, j) in enumerate(zip(functions, of_unit, strict=True)):
            pairs = heavy * (bent * gone[:, at, None] + gone * (bent[:, at, None] + gone[:, at, None]))
            mine = of_unit == j
            pairs[:, mine] += heavy * bent[:, mine] * bent[:, at, None]
            if at < units:
                out.entering[functions, j] += np.tensordot(pairs, ones, (0, 0))
            else:
                out.leaving[functions, q - units] += pairs.sum(axis=0)

    def expansion(self, lowered: FloatArray, left_out: FloatArray) -> UnitExpansion:
        """All sums."""
        layout, size = self.layout, self.layout.size
        lost = TINY * self.rows * size**3 * (1.0 + self.radius) ** 3
        for part in (self.residual, self.squares):
            part.rest = part.rest * (1.0 + gamma(self.rows + 256)) + lost
        units = [layout.unit(j) for j in range(layout.units)]
        entering = np.stack([own[: layout.entering] for own in units])
        leaving = np.stack([own[layout.entering :] for own in units]).T.ravel()
        places = UnitPlaces(entering, leaving, size, self.lengths, self.rows + 1024)
        one, other = (UnitRests(x.entering * _ROOM, x.leaving * _ROOM) for x in self.units)
        return UnitExpansion(
            self.residual, self.squares, self.tails, self.cubic, layout, lowered, left_out, (one, other), places
        )  # fmt: skip
