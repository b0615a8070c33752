"""What all other units of a network with one hidden layer and one output add to the outputs, as polynomials in their changes.

With X_i = ku z_i, tau = X_i . x and y the changes of a unit's weights and output weight, its output changes by

    (V + kv y) phi(s + tau) - V phi(s) = (V phi1 tau + kv phi0 y) + (V A2 tau² + kv B1 y tau) + (V A3 tau³ + kv B2 y tau²) + …,

phi and its derivative at s, for any A and B. What is left out is at most eps tau² and eps' |y tau| with the largest distances of

    (phi(s + tau) - phi0 - phi1 tau) / tau²  from  A2 + A3 tau,        (phi(s + tau) - phi0) / tau  from  B1 + B2 tau,

which are nearly straight: their second derivatives are at most sup |phi4|/12 and sup |phi3|/3, so they are close to their chords
between neighbours on a grid. As the squares of all units' parts of the change add up to rho² at most, sums over units of terms of
second or higher order are no larger than one unit's.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from .higher_ranges import derivative_bound
from .intervals import ROOT_TINY, TINY, UNIT, Interval, gamma, matmul, norms
from .ranges import derivative_range
from .taylor_triples import triples
from .unit_models import Units, pre_activations

FloatArray = npt.NDArray[np.float64]

_ROOM = 1.0 + gamma(64)
#: Points of a grid on a side, and one near width/sqrt(2).
_GRID, _NODE = 14, 10
#: Largest |y| tau² on the unit disc.
_SQUARED = 2.0 / (3.0 * math.sqrt(3.0)) * (1.0 + 1e-15)


class OtherUnits:
    """The polynomials of all units but j, for changes no longer than ``room``.

    ``linear`` (L, n), ``square`` (M, T, n) and ``cubic`` (M, T', n) are the coefficients of the changes (x, y) unit by unit and
    then of the output bias, of their products two by two, p <= q, and three by three, as tensors' entries. Absolute values of the
    terms are no more than ``sizes`` (3, n) times the first three powers of the change's length; what is left out is no more than
    ``rest`` (n,) times its square, and ``blur`` (n,) for the rounding of all.
    """

    def __init__(self, obj: Objective, units: Units, j: int, room: float) -> None:
        name, beta = obj.net.activations[0], obj.net.betas[0]
        others = np.delete(np.arange(len(units.u.lo)), j)
        kv, x = units.scale_v, units.scale_u * units.z
        (n, dim), count = x.shape, others.size
        length = norms(x) * _ROOM
        width = np.repeat((room * length)[:, None] * _ROOM, count, axis=1)
        s, error, around = pre_activations(units, others, width)
        near = Interval(s - error, s + error)
        phi = [derivative_range(name, beta, order, near) for order in range(4)]
        f0, f1, f2, f3 = (p.middle for p in phi)
        width = width + 2.0 * error
        fourth, third = derivative_bound(name, beta, 4, around), derivative_range(name, beta, 3, around).magnitude
        curve, slope = _Quotients(name, beta, s, width, (phi[0], phi[1]), (f2, f3)).straight(fourth, third)
        (a, a3, a_rest), (b, b2, b_rest) = curve, slope
        v0 = units.v.middle[others, 0]
        v, long = np.abs(v0), length[:, None]
        point = matmul(phi[0], Interval(units.v.lo[others], units.v.hi[others])) + units.c
        self.value = point.middle[:, 0]
        first, last = np.triu_indices(dim + 1)
        at = triples(dim + 1)
        low, middle, high = at.k, at.l, at.m
        self.linear = np.zeros((count * (dim + 1) + int(units.bias), n))
        if units.bias:
            self.linear[-1] = kv
        self.square, self.cubic = np.zeros((count, first.size, n)), np.zeros((count, low.size, n))
        xs = np.concatenate([x, np.ones((n, 1))], axis=1).T
        entering = (xs[first] * xs[last]), xs[low] * xs[middle] * xs[high]
        inner, mixed = last < dim, (first < dim) & (last == dim)
        inner3, mixed3 = high < dim, (middle < dim) & (high == dim)
        for m in range(count):
            own = self.linear[m * (dim + 1) : (m + 1) * (dim + 1)]
            own[:dim], own[dim] = x.T * (v0[m] * f1[:, m]), kv * f0[:, m]
            self.square[m, inner] = entering[0][inner] * (v0[m] * a[:, m])
            self.square[m, mixed] = entering[0][mixed] * (0.5 * kv * b[:, m])
            self.cubic[m, inner3] = entering[1][inner3] * (v0[m] * a3[:, m])
            self.cubic[m, mixed3] = entering[1][mixed3] * (kv * b2[:, m] / 3.0)
        self.sizes, self.rest, self.blur = np.zeros((3, n)), np.zeros(n), point.radius[:, 0] + TINY
        bias = float(units.bias) * kv
        terms = (v * np.abs(f1) * long) ** 2 + (kv * f0) ** 2
        self.sizes[0] = np.sqrt(terms.sum(axis=1) + bias**2) * (1.0 + gamma(count + 64)) + ROOT_TINY
        if count:
            self.sizes[1] = _root(v * np.abs(a) * long**2, 0.5 * kv * np.abs(b) * long)
            cubes = v * np.abs(a3) * long**3 + _SQUARED * kv * np.abs(b2) * long**2
            self.sizes[2] = cubes.max(axis=1) * _ROOM
            self.rest = _root(v * a_rest * long**2, 0.5 * kv * b_rest * long)
        off = [p.radius + 4.0 * 2.0**-53 * p.magnitude for p in phi]
        reach = v + kv * room
        blurred = (reach * (off[1] + width * (off[2] + width * off[3]))) * (room * long) + kv * room * off[0]
        self.blur = (self.blur + blurred.sum(axis=1) * (1.0 + gamma(count + 64))) * _ROOM


class _Quotients:
    """Difference quotients of phi of both orders on a grid of |tau| <= width."""

    def __init__(
        self,
        name: str,
        beta: float,
        s: FloatArray,
        width: FloatArray,
        at: tuple[Interval, Interval],
        bent: tuple[FloatArray, ...],
    ) -> None:
        self.width, (second, third) = width, bent
        steps = np.arange(-_GRID, _GRID + 1) / _GRID
        self.tau = tau = width[..., None] * steps
        away, centre = np.abs(tau) > 0.0, _GRID
        divisor = np.where(away, tau, 1.0)
        value = derivative_range(name, beta, 0, Interval.point(s[..., None] + tau))
        rise = value.middle - at[0].middle[..., None]
        off = value.radius + at[0].radius[..., None] + UNIT * (np.abs(value.middle) + np.abs(at[0].middle[..., None]))
        off = off + 4.0 * UNIT * (np.abs(s) + width)[..., None] * (at[1].magnitude + width * np.abs(second) + 1.0)[..., None]
        slope, along = rise / divisor, at[1].middle[..., None]
        slope[..., centre] = at[1].middle
        curve = (slope - along) / divisor
        curve[..., centre] = 0.5 * second
        self.quotients = curve, slope
        off = np.where(away, off / np.abs(divisor), at[1].radius[..., None]) + 4.0 * UNIT * np.abs(slope)
        curve_off = (off + at[1].radius[..., None] + UNIT * np.abs(along)) / np.abs(divisor) + 4.0 * UNIT * np.abs(curve)
        curve_off[..., centre] = 1e-12 * np.abs(second)
        self.off = curve_off, off
        #: The derivatives of both at zero.
        self.derivatives = third / 6.0, 0.5 * second

    def straight(self, fourth: FloatArray, third: FloatArray) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
        """(c, d, e) with |quotient - c - d tau| <= e, for bounds of the fourth and third derivatives."""
        found = []
        bends = fourth / 12.0, third / 3.0
        for quotient, off, derivative, bend in zip(self.quotients, self.off, self.derivatives, bends, strict=True):
            # Through two nodes, where the quotients are known well; else along the derivative.
            near, far = _GRID - _NODE, _GRID + _NODE
            node = self.tau[..., far]
            chord = (quotient[..., far] - quotient[..., near]) / np.where(node > 0.0, 2.0 * node, 1.0)
            steep = np.where((off[..., far] + off[..., near] < 0.05 * bend * self.width**2) & (node > 0.0), chord, derivative)
            apart = quotient - steep[..., None] * self.tau
            high, low = (apart + off).max(axis=-1), (apart - off).min(axis=-1)
            level = 0.5 * (high + low)
            error = np.maximum(high - level, level - low) + bend * (self.width / _GRID) ** 2 / 8.0
            error = error + gamma(16) * (np.abs(quotient).max(axis=-1) + np.abs(steep) * self.width)
            # By Taylor's theorem, where the grid is too fine for differences.
            start = quotient[..., _GRID]
            taylor = 0.5 * bend * self.width**2 + 1e-12 * (np.abs(start) + np.abs(derivative) * self.width)
            fine = taylor < error
            found.append(
                (
                    np.where(fine, start, level), np.where(fine, derivative, steep), np.where(fine, taylor, error) * _ROOM + TINY
                )
            )  # fmt: skip
        return found


def _root(a: FloatArray, b: FloatArray) -> FloatArray:
    """The largest over units of the largest eigenvalues of [a, b; b, 0]."""
    found: FloatArray = ((0.5 * a + np.sqrt(0.25 * a * a + b * b)) * _ROOM + ROOT_TINY).max(axis=1)
    return found
