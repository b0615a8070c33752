"""The block of one hidden unit as a polynomial over cells of its weights, and what it leaves out, for checking certificates.

With one output and the squared error, sigma = X . p_w, nu the direction's last entry, and the cell's points t + h e, |e_k| <= 1,

    R[p] = sum m r (a sigma² + 2 b sigma nu),    r = g + o,    a = k2 V phi'',  b = k2 phi',  g = k2 V phi,

o the others', the targets taken off. With a0, a1 and a2 the orders of a in e, |a3| the size of what is left, and so on, are kept

    r0 G0 + (r0 G1 + g1 G0 + o1 G0) + (r0 G2 + g1 G1 + g2 G0 + o1 G1 + o2 G0) + o3 G0,    G_k = a_k sigma² + 2 b_k sigma nu.

What is left out, at most da sigma² + 2 db |sigma nu|, is no more than (da + t db) sigma² + db nu²/t for any t > 0. What the
numbers kept are off by, and what their sums are rounded by, is no more than eta of the sums of all sizes, and those are at most

    m r^ (a^ |X|² + 2 b^ |X|) |p|²

with the sums of the orders' sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .reference_unit_relaxed_others import FloatArray, Numbers, Others, Sizes


@dataclass(frozen=True)
class Rests:
    """Of cells (B,), datum by datum (n,): da and db, and what roundings make of |p|² (B,)."""

    a: FloatArray
    b: FloatArray
    blur: FloatArray


@dataclass(frozen=True)
class Expanded:
    """The polynomials' coefficients for cells, all that the matrices need (B, n, …)."""

    r0: FloatArray
    a: tuple[FloatArray, FloatArray, FloatArray]
    b: tuple[FloatArray, FloatArray, FloatArray]
    g: tuple[FloatArray, FloatArray]


class CellPoints:
    """Cells t ± h (B, D) in parameters, with the derivatives that all polynomials of them are made of."""

    def __init__(self, numbers: Numbers, t: FloatArray, h: FloatArray) -> None:
        self.numbers, self.v, self.h = numbers, t[:, -1:], h
        s, off = numbers.preactivations(t[:, :-1])
        self.reach = (h[:, :-1] @ np.abs(numbers.x).T) * (1.0 + numbers.eta)
        self.series = numbers.at(s, off, 5)
        found = numbers.over(s, self.reach + off, (2, 3, 4, 5))
        self.most = [f.size().astype(np.float64) for f in found]

    def expanded(self, others: Others) -> Expanded:
        """The coefficients in e; the second orders of pairs k <= l, halved off the diagonal."""
        numbers, k2, v = self.numbers, self.numbers.k2, self.v
        f0, f1, f2, f3, f4 = self.series.at
        steps = self.h[:, None, :-1] * numbers.x[None]
        last = self.h[:, None, -1:]
        size = self.h.shape[1]
        low, high = np.triu_indices(size)
        along = np.concatenate([steps, np.zeros_like(steps[..., :1])], axis=2)
        end = np.where(np.arange(size) == size - 1, last, 0.0)
        flat = along[..., low] * along[..., high]
        mixed = 0.5 * (along[..., low] * end[..., high] + end[..., low] * along[..., high])

        def first(moving: FloatArray, fixed: FloatArray) -> FloatArray:
            return np.asarray(k2 * ((v * moving)[..., None] * along + fixed[..., None] * end))

        def second(bent: FloatArray, slope: FloatArray) -> FloatArray:
            return np.asarray(k2 * ((v * bent)[..., None] * (0.5 * flat) + slope[..., None] * mixed))

        return Expanded(
            k2 * v * f0 + others.constant,
            (k2 * v * f2, first(f3, f2), second(f4, f3)),
            (k2 * f1, k2 * f2[..., None] * along, k2 * f3[..., None] * (0.5 * flat)),
            (first(f1, f0), second(f2, f1)),
        )

    def rests(self, others: Others, rho: FloatArray, r0: FloatArray) -> Rests:
        """What the polynomials leave out for changes of the others no longer than rho (B,)."""
        numbers, eta, room = self.numbers, self.numbers.eta, rho[:, None]
        a, b, g = self._sizes(self.series.sizes)
        wide_a, wide_b, wide_g = self._sizes(self.series.padded(eta))
        padded = others.padded
        r0 = np.abs(r0) + eta * (wide_g[0] + padded.constant)
        o1, o23 = room * others.fine.first, room**2 * others.fine.second + room**3 * others.fine.third
        o4 = room**2 * others.rest
        lost = [
            (1.0 + eta) * (r0 * c[3] + (g[1] + o1) * (c[2] + c[3]) + (g[2] + o23) * (c[1] + c[2] + c[3]) + (g[3] + o4) * sum(c))
            for c in (a, b)
        ]
        residual = padded.constant + sum(wide_g[:3]) + _moved(padded, room)
        sizes = residual * (sum(wide_a[:3]) * numbers.size**2 + 2.0 * sum(wide_b[:3]) * numbers.size)
        return Rests(lost[0], lost[1], 2.0 * eta * (numbers.mass * sizes).sum(axis=1))

    def _sizes(self, f: list[FloatArray]) -> tuple[list[FloatArray], list[FloatArray], list[FloatArray]]:
        """Of the orders of a, b and g, and of what they leave, from those of the derivatives."""
        k2, v, s, w = self.numbers.k2, np.abs(self.v), self.reach, self.h[:, -1:]
        top2, top3, top4, top5 = self.most
        square, cube = s * s / 2.0, s * s * s / 6.0
        a = [v * f[2], v * f[3] * s + w * f[2], v * f[4] * square + w * f[3] * s, v * top5 * cube + w * top4 * square]
        b = [f[1], f[2] * s, f[3] * square, top4 * cube]
        g = [v * f[0], v * f[1] * s + w * f[0], v * f[2] * square + w * f[1] * s, v * top3 * cube + w * top2 * square]
        return [k2 * x for x in a], [k2 * x for x in b], [k2 * x for x in g]


def _moved(sizes: Sizes, room: FloatArray) -> FloatArray:
    found: FloatArray = room * sizes.first + room**2 * sizes.second + room**3 * sizes.third
    return found
