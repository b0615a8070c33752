"""What the polynomials of one hidden layer leave out, shared between the units, for checking certificates made by units.

A unit j has a part s of the radius, |delta_j| <= s R, and all other parameters c, s² + c² <= 1. With W1 to W3 the unit's sizes in
the residual and O1 to O3 those of all others, of which the second and third order are their largest,

    |r_x| <= c^x O_x + s^x W_x,    |U_y| <= s^y U_y    for U = Q_kj = (V + b) phi'' or G_j = phi',

and r U leaves out r1 U3 + r2 (U2 + U3) + r3 (U1 + U2 + U3) beyond the third order, at most the largest of 32 steps of s², and
what the rests make of it. With e that for G, times the mass, and positive sizes alpha_j of σ_j = X . v_w and gamma_kj of
nu_kj = v_V,

    2 e |σ nu| <= e (gamma/alpha σ² + alpha/gamma nu²).

With s_j of all units, sum_j s_j² <= 1, and B and C the sizes of the third order and the rest of what multiplies x = σ_j or nu_kj
in the output's derivative, that leaves out sum s_j³ B_x |x| + C_x |x|. Its square is, as sum_j s_j⁶ <= 1 and s_j³ <= 1, at most

    sum_xy e_xy |x||y|,    e_xy = [x and y of one unit] B_x B_y + B_x C_y + C_x B_y + C_x C_y,
    sum_xy e_xy |x||y| <= sum_y (sum_x e_xy z_x) / z_y y²

with the same sizes z. It counts 1/eta of the datum's part. So all are multiples of squares σ², that is of X X', and nu².
"""

from __future__ import annotations

import numpy as np

from .reference_changes import SHORTEST, grown
from .reference_hessian import Problem
from .reference_interval import UNIT, Wide, wide, zeros
from .reference_one_layer import OneLayer, Sizes, summed

#: Steps of the unit's part s² of the radius' square.
_STEPS = 32


def beyond(off: Wide, less: Wide) -> Wide:
    """At least what there is of ``off`` beyond the numbers taken off."""
    return np.where(off <= less, wide(0.0), grown(np.maximum(off - less, wide(0.0)) + UNIT * off))


def others(layer: OneLayer, own: Sizes) -> Sizes:
    """Of the residuals' changes by all parameters but one unit's (n, K, H), from those of every unit; without a rest."""
    units = own.off.shape[-1]
    apart = ~np.eye(units, dtype=bool)
    free = layer.radius * layer.kappa if len(layer.biases) else 0.0 * layer.radius
    first = np.where(apart, (own.of[1] ** 2)[..., None, :], wide(0.0)).sum(axis=-1)
    two, three = (np.where(apart, size[..., None, :], wide(0.0)).max(axis=-1) for size in own.of[2:])
    return Sizes((0.0 * two, grown(np.sqrt(first + free * free) + SHORTEST, units), two, three), 0.0 * two)


def shared_left_out(whole: Sizes, own: Sizes, other: Sizes, factor: Sizes) -> Wide:
    """What the product of the residual and a unit's factor leaves out beyond the third order (n, K, H)."""
    _, u1, u2, u3 = factor.of
    most = 0.0 * own.off
    for step in range(_STEPS):
        s, c = np.sqrt(wide(step + 1) / _STEPS), np.sqrt(wide(_STEPS - step) / _STEPS)
        r1, r2, r3 = (c**x * other.of[x] + s**x * own.of[x] for x in (1, 2, 3))
        v1, v2, v3 = s * u1, s**2 * u2, s**3 * u3
        most = np.maximum(most, r1 * v3 + r2 * (v2 + v3) + r3 * (v1 + v2 + v3))
    return grown(most + whole.off * factor.all + sum(whole.of[1:], whole.of[0]) * factor.off)


class UnitRests:
    """The multiples of squares, summed over the data: ``inputs`` (H, d', d') of X X', their ``sizes``, and ``ends`` (K, H)."""

    def __init__(self, problem: Problem, share: float, weights: Wide) -> None:
        inputs, units, outputs = problem.widths
        width = inputs + int(problem.bias)
        self._share, self._weights = wide(share), weights
        self._inputs, self._sizes = (zeros((units, width, width)) for _ in range(2))
        self._ends = zeros((outputs, units))

    def add(self, layer: OneLayer, lowered: Wide) -> None:
        """Some data."""
        alpha, gamma = self._of_each(layer)
        curved, mixed = self._products(layer)
        of_sigma, of_nu = self._squares(layer, alpha, gamma)
        of_sigma = of_sigma + mixed * (gamma / alpha)
        of_nu = of_nu + mixed * (alpha / gamma)
        c = grown(beyond(curved, lowered) + of_sigma.sum(axis=1), len(gamma))
        self._ends += grown(of_nu.sum(axis=0), len(layer.x))
        for unit, numbers in enumerate(c.T[:, :, None]):
            self._inputs[unit] += summed(numbers * layer.x, layer.x)
            self._sizes[unit] += summed(numbers * np.abs(layer.x), np.abs(layer.x))

    def _of_each(self, layer: OneLayer) -> tuple[Wide, Wide]:
        """Alpha (H,) and gamma (K, H)."""
        return self._weights[layer.places[:, 0]], self._weights[layer.places[:, layer.x.shape[1] :]].T

    def _products(self, layer: OneLayer) -> tuple[Wide, Wide]:
        """What r Q leaves out, of all outputs (n, H), and what r G does (n, K, H), with the masses."""
        own = layer.value.moving(layer.weights, layer.radius, layer.length)
        other, mass = others(layer, own), layer.mass[:, None, None]
        bend = layer.bend.moving(layer.weights, layer.radius, layer.length)
        slope = layer.slope.fixed(layer.rho)[:, None]
        curved, mixed = (mass * shared_left_out(layer.sizes[..., None], own, other, factor) for factor in (bend, slope))
        return grown(curved.sum(axis=1), len(layer.weights)), grown(mixed)

    def _squares(self, layer: OneLayer, alpha: Wide, gamma: Wide) -> tuple[Wide, Wide]:
        """The multiples of the σ² and nu² that the square of an output's derivative leaves out (n, K, H)."""
        slope = layer.slope.moving(layer.weights, layer.radius, layer.length)
        value = layer.value.fixed(layer.rho)[:, None]
        sizes = ((slope.of[3], slope.off, alpha), (value.of[3], value.off, gamma))
        own = sum((third * z for third, _, z in sizes), 0.0 * slope.off)
        rests = sum((rest * z for _, rest, z in sizes), 0.0 * slope.off).sum(axis=-1, keepdims=True)
        thirds, part = own.sum(axis=-1, keepdims=True), layer.kept[:, None, None] / self._share
        of_sigma, of_nu = (
            grown(part * (third * (own + rests) + rest * (thirds + rests)) / z, 4 * len(alpha)) for third, rest, z in sizes
        )
        return of_sigma, of_nu

    def put(self, layer: OneLayer, head: Wide, sizes: Wide) -> None:
        """Take them off the head, and add what they are rounded relative to."""
        width = layer.x.shape[1]
        for unit, places in enumerate(layer.places):
            square = np.ix_(places[:width], places[:width])
            head[square] -= self._inputs[unit]
            sizes[square] += self._sizes[unit]
            ends = places[width:]
            head[ends, ends] -= self._ends[:, unit]
            sizes[ends, ends] += self._ends[:, unit]
