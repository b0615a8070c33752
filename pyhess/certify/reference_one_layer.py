"""Networks with one hidden layer and squared error, unit by unit, as cubic polynomials with a rest, for checking certificates.

With X = κ1 (x, 1), t = X . delta_w for the weights and biases w of a unit, b = delta_V for its weight V in an output, σ = X . v_w
and nu = v_V, c an output's bias, and phi, phi' and phi'' of the next layer's κ times those of the unit at s + t,

    r = sum_j (V + b) phi + κ (c + delta_c) - y,    (df . v) = sum_j [(V + b) phi' σ + phi nu] + κ v_c,
    v'R v = sum_j r [(V + b) phi'' σ² + 2 phi' σ nu].

For |delta| <= R and rho = R |X| there are phi = F0 + F1 t + F2 t² + F3 t³ ± off and so on, and a unit's

    (V + b) phi = V F0 + (V F1 t + F0 b) + (V F2 t² + F1 b t) + (V F3 t³ + F2 b t²) ± [(|V| + R) off + 3 sqrt3/16 R rho³ |F3|],

as |b| |t|³ <= 3 sqrt3/16 R rho³. These orders are no larger than

    R sqrt((V F1 |X|)² + F0²),    R²/2 (|V F2| |X|² + sqrt((V F2 |X|²)² + (F1 |X|)²)),    |V F3| rho³ + 2/(3 sqrt3) |F2| R rho²,

as |b| t² <= 2/(3 sqrt3) R rho². Of changes that several units share, R_j each, the squares sum to no more than R². So the first
order of a sum over units is as long as all of its coefficients, and the second and third are no more than the largest unit's, as
are the 3 sqrt3/16 R_j rho_j³ |F3|; the b off are together at most R times the length of off.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .reference_changes import SHORTEST, Changes, Numbers, euclidean, grown
from .reference_hessian import Problem
from .reference_interval import UNIT, Range, Wide, down, middle_and_radius, up, wide
from .reference_nodes import expanded
from .reference_ranges import activations
from .reference_unit_groups import Groups

#: No less than 3 sqrt3 / 16 and 2 / (3 sqrt3).
_CUBE, _SQUARE = np.longdouble("0.32475952641916449255"), np.longdouble("0.38490017945975050968")


@dataclass(frozen=True, eq=False)
class Sizes:
    """Bounds of a polynomial's orders, ``of[0]`` to ``of[3]``, and its rest, arrays of one shape."""

    of: tuple[Wide, Wide, Wide, Wide]
    off: Wide

    def __getitem__(self, where: Any) -> Sizes:
        p0, p1, p2, p3 = self.of
        return Sizes((p0[where], p1[where], p2[where], p3[where]), self.off[where])

    @property
    def all(self) -> Wide:
        """Of the function."""
        return grown(sum(self.of[1:], self.of[0]) + self.off)

    def left_out(self, other: Sizes) -> Wide:
        """What the product leaves out beyond the third order."""
        (p0, p1, p2, p3), (_, q1, q2, q3) = self.of, other.of
        rest = self.off * other.all + (p0 + p1 + p2 + p3) * other.off
        return grown(rest + p1 * q3 + p2 * (q2 + q3) + p3 * (q1 + q2 + q3))

    def highest(self, other: Sizes) -> Wide:
        """Of the product's terms of the second and third order."""
        p, q = self.of, other.of
        return grown(sum((p[k] * q[order - k] for order in (2, 3) for k in range(order + 1)), 0.0 * p[0]))


@dataclass(frozen=True, eq=False)
class Series:
    """Derivatives of the units as F0 + F1 t + F2 t² + F3 t³ ± off: ``c`` (4, n, H), exact, and ``off`` (n, H)."""

    c: Wide
    off: Wide

    def fixed(self, rho: Wide) -> Sizes:
        """Of the series (n, H)."""
        size, at = grown(np.abs(self.c)), rho[:, None]
        return Sizes((size[0], grown(size[1] * at), grown(size[2] * at**2), grown(size[3] * at**3)), self.off)

    def moving(self, weights: Wide, radius: Wide, length: Wide) -> Sizes:
        """Of (V + b) times the series (n, K, H), for V (K, H)."""
        c0, c1, c2, c3 = np.abs(self.c)[:, :, None]
        v, x, r = np.abs(weights), length[:, None, None], radius
        rho, bent = r * x, v * c2 * x * x
        one = r * (np.sqrt((v * c1 * x) ** 2 + c0 * c0) + SHORTEST)
        two = 0.5 * r * r * (bent + np.sqrt(bent * bent + (c1 * x) ** 2) + SHORTEST)
        three = v * c3 * rho**3 + _SQUARE * c2 * r * rho**2
        off = (v + r) * self.off[:, None] + _CUBE * r * rho**3 * c3
        return Sizes((grown(v * c0), grown(one), grown(two), grown(three)), grown(off))


@dataclass(frozen=True, eq=False)
class OneLayer:
    """Some data, with what the polynomials are at the centre, the numbers as they stand and the rests for them."""

    #: The unit's parameters (H, D), weights, bias and those in the outputs, and the outputs' biases (K,) or (0,).
    places: npt.NDArray[np.int64]
    biases: npt.NDArray[np.int64]
    num_params: int
    #: κ X (n, d'), its lengths, V (K, H), and κ of the outputs.
    x: Wide
    length: Wide
    weights: Wide
    kappa: Wide
    radius: Wide
    #: κ phi, κ phi' and κ phi''.
    value: Series
    slope: Series
    bend: Series
    #: The residuals (n, K), and their polynomials' sizes.
    residual: Wide
    sizes: Sizes
    #: The data's shares of the mean, and at most those times the parts of their squares.
    mass: Wide
    kept: Wide
    #: Relative errors of all products of X, κ and the mass.
    unsure: Wide

    @staticmethod
    def of(problem: Problem, centre: Wide, changes: Changes, some: slice, kept: Wide) -> OneLayer:
        """For some data, of whose squares these parts (n,) count."""
        inputs, units, _ = problem.widths
        groups = Groups.of(problem)
        places, biases = groups.units, groups.biases
        data, radius = problem.x[some], changes.reach
        if problem.bias:
            data = np.concatenate([data, wide(np.ones((len(data), 1)))], axis=1)
        (k1, blur), (k2, blur2) = (middle_and_radius(kappa) for kappa in problem.scale)
        x = k1 * data
        length = euclidean(x) + SHORTEST
        own = centre[places[:, : data.shape[1]]]
        s = x @ own.T
        # What s is off by, t included, for all |delta| <= R.
        near = grown(UNIT * (inputs + 8) + 2.0 * blur / k1)
        blurred = grown(near * (np.abs(x) @ np.abs(own.T) + (radius * length)[:, None]), inputs)
        move = grown(radius * length[:, None] + blurred)
        phi = partial(activations, problem.activations[0], problem.betas[0])
        far = Range.about(s, move)
        value, slope, bend = (_scaled(*expanded(phi, order, s, move, far, 3), move, blurred, k2, blur2) for order in range(3))
        weights, ends, y = centre[places[:, data.shape[1] :]].T, centre[biases], problem.y[some]
        terms, sums = value.c[0] @ weights.T, np.abs(value.c[0]) @ np.abs(weights.T)
        residual, sums = terms - y, sums + np.abs(y)
        blurred = blur2 * radius
        if problem.bias:
            residual, sums, blurred = residual + k2 * ends, sums + np.abs(k2 * ends), blurred + blur2 * np.abs(ends)
        sizes = _residual_sizes(value, weights, radius, length, k2 if problem.bias else 0.0 * k2)
        sizes = Sizes((grown(np.abs(residual)), *sizes.of[1:]), grown(sizes.off + UNIT * (units + 8) * sums + blurred))
        mass, off = middle_and_radius(problem.mass[some])
        part = np.maximum(down(kept * np.maximum(problem.mass.lo[some], wide(0.0))), wide(0.0))
        apart = np.where(mass > 0.0, off / np.where(mass > 0.0, mass, 1.0), 0.0).max()
        unsure = grown(8.0 * (blur / k1 + blur2 / k2 + apart))
        return OneLayer(
            places, biases, problem.num_params, x, length, weights, k2, radius, value, slope, bend, residual, sizes, mass, part,
            unsure,
        )  # fmt: skip

    @property
    def rho(self) -> Wide:
        """Largest |t| (n,)."""
        return grown(self.radius * self.length)

    def rows(self, dtype: Any) -> Rows:
        """One for every datum and output, in doubles or long doubles."""
        return Rows(self, dtype)


def _scaled(found: list[tuple[Wide, Wide]], off: Wide, move: Wide, blurred: Wide, kappa: Wide, blur: Wide) -> Series:
    """The polynomial of `expanded` times κ in powers of t, when s + t is known up to ``blurred``."""
    c = np.stack([kappa * f / over for (f, _), over in zip(found, (1.0, 1.0, 2.0, 6.0), strict=True)])
    power = (np.ones_like(move), move, move**2, move**3)
    sizes = [np.abs(f) * x for f, x in zip(c, power, strict=True)]
    errors = [e * x / over for (_, e), x, over in zip(found, power, (1.0, 1.0, 2.0, 6.0), strict=True)]
    turned = blurred * (np.abs(c[1]) + 2.0 * np.abs(c[2]) * move + 3.0 * np.abs(c[3]) * power[2])
    total = up(kappa + blur) * (off + sum(errors)) + turned + (4.0 * UNIT + 2.0 * blur / kappa) * sum(sizes)
    return Series(c, grown(total))


def _residual_sizes(value: Series, weights: Wide, radius: Wide, length: Wide, kappa: Wide) -> Sizes:
    """Of the residuals' changes (n, K)."""
    alone = value.moving(weights, radius, length)
    c0, c1, _, c3 = np.abs(value.c)[:, :, None]
    v, rho = np.abs(weights), radius * length[:, None]
    first = ((v * c1 * length[:, None, None]) ** 2 + c0 * c0).sum(axis=2)
    one = radius * (np.sqrt(first + kappa * kappa) + SHORTEST)
    off = (
        (v * value.off[:, None]).sum(axis=2)
        + radius * (euclidean(value.off) + SHORTEST)[:, None]
        + _CUBE * radius * rho**3 * c3.max(axis=2)
    )
    units = weights.shape[1]
    return Sizes((0.0 * one, grown(one, units), alone.of[2].max(axis=2), alone.of[3].max(axis=2)), grown(off, units))


class Rows:
    """The local tensors of the units, for every datum and output (S,), in the unit's own D parameters, b's in that output.

    Tensors in delta come first, symmetric ones; numbers are taken as they stand.
    """

    def __init__(self, layer: OneLayer, dtype: Any) -> None:
        self._layer, self._dtype = layer, dtype
        n, inputs = layer.x.shape
        outputs, self.units = layer.weights.shape
        self.count, self.width = n * outputs, layer.places.shape[1]
        self._output = np.tile(np.arange(outputs), n)
        self._datum = np.repeat(np.arange(n), outputs)
        x, e = (np.zeros((self.count, self.width), dtype) for _ in range(2))
        x[:, :inputs] = layer.x[self._datum]
        e[np.arange(self.count), inputs + self._output] = 1.0
        self._x, self._e = (np.ones(self.count, dtype), x, _times(x, x)), e
        both = _times(x, e)
        self._both = both + both.swapaxes(1, 2)
        triple = _times(self._x[2], e)
        self._triple = triple + triple.transpose(0, 1, 3, 2) + triple.transpose(0, 3, 1, 2)
        self._into = _times(e, x)
        self.residual = layer.residual.reshape(-1).astype(dtype)
        self.mass, self.kept = (m[self._datum].astype(dtype) for m in (layer.mass, layer.kept))

    def residual_slope(self) -> Numbers:
        """The derivatives of the residuals (S, P)."""
        return self._all([self._moving(self._layer.value, unit, 1) for unit in range(self.units)])

    def root(self) -> Numbers:
        """Those of the outputs, which are the same but enter as d (S, P)."""
        return self._all([self.slope(unit, 0) for unit in range(self.units)])

    def _all(self, own: list[Numbers]) -> Numbers:
        layer = self._layer
        found = np.zeros((self.count, layer.num_params), self._dtype)
        for places, part in zip(layer.places, own, strict=True):
            found[:, places] = part
        if len(layer.biases):
            found[np.arange(self.count), layer.biases[self._output]] = layer.kappa.astype(self._dtype)
        return found

    def residual_part(self, unit: int, order: int) -> Numbers:
        """The unit's part of the residuals, of an order in delta (S, D, …)."""
        return self._moving(self._layer.value, unit, order)

    def slope(self, unit: int, order: int) -> Numbers:
        """The unit's part of df . v: (S, D, …, D), v last."""
        moving = _times(self._moving(self._layer.slope, unit, order), self._x[1])
        moving += _times(self._fixed(self._layer.value, unit, order), self._e)
        return moving

    def bend(self, unit: int, order: int) -> list[tuple[Numbers, Numbers]]:
        """The unit's (V + b) phi'' σ² + 2 phi' nu σ: products of (S, D, …) and (S, D, D), of v alone, nu before σ."""
        layer = self._layer
        return [
            (self._moving(layer.bend, unit, order), self._x[2]),
            (self._fixed(layer.slope, unit, order), 2.0 * self._into),
        ]

    def full_bend(self, unit: int, order: int) -> Numbers:
        """The same multiplied out (S, D, …, D, D)."""
        (p, q), (r, s) = self.bend(unit, order)
        found = _times(p, q)
        found += _times(r, s)
        return found

    def _numbers(self, series: Series, unit: int, order: int, more: int) -> Numbers:
        found: Numbers = series.c[order, self._datum, unit].astype(self._dtype)
        return found.reshape(-1, *(1,) * more)

    def _fixed(self, series: Series, unit: int, order: int) -> Numbers:
        if order == 3:
            return _times(self._numbers(series, unit, order, 2) * self._x[2], self._x[1])
        found: Numbers = self._numbers(series, unit, order, order) * self._x[order]
        return found

    def _moving(self, series: Series, unit: int, order: int) -> Numbers:
        weights = self._layer.weights[self._output, unit].astype(self._dtype)
        found: Numbers = weights.reshape(-1, *(1,) * order) * self._fixed(series, unit, order)
        if order == 0:
            return found
        below = (self._e, 0.5 * self._both, self._triple / 3.0)[order - 1]
        found += self._numbers(series, unit, order - 1, order) * below
        return found


def _times(p: Numbers, q: Numbers) -> Numbers:
    """All products of the numbers of p and q (S, …), for each of S."""
    found: Numbers = p.reshape(*p.shape, *(1,) * (q.ndim - 1)) * q.reshape(len(q), *(1,) * (p.ndim - 1), *q.shape[1:])
    return found


def summed(p: Numbers, q: Numbers) -> Numbers:
    """The sums over the first axes of the products of all others."""
    left = np.ascontiguousarray(p.reshape(len(p), -1).T)
    right = np.ascontiguousarray(q.reshape(len(q), -1).T)  # sums run along contiguous numbers
    found: Numbers = (left @ right.T).reshape(*p.shape[1:], *q.shape[1:])
    return found
