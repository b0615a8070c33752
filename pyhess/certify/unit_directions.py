"""What a residual does to a hidden unit's block where that is worst: directions over the data, and others' changes along them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from ..objective import Objective
from .intervals import Interval
from .ranges import derivative_range
from .unit_models import Units

FloatArray = npt.NDArray[np.float64]

#: Directions drawn per unit and room, most of them, and steps of the ascents.
_DIRECTIONS, _MOST, _ASCENT = 128, 768, 15


class Directions:
    """Guesses for one problem with one output."""

    def __init__(self, obj: Objective, units: Units, rng: np.random.Generator) -> None:
        self._obj, self._units, self._rng = obj, units, rng
        self._u, self._v = units.u.middle, units.v.middle[:, 0]
        self._ku, self._kv = units.scale_u, units.scale_v
        self._z, self._count = units.z, len(units.u.lo)
        self._activation = obj.net.activations[0], obj.net.betas[0]

    def _phi(self, s: FloatArray) -> list[FloatArray]:
        name, beta = self._activation
        return [derivative_range(name, beta, order, Interval.point(s)).middle for order in range(3)]

    def at(self, room: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean ww' of what the data's outputs do to the worst blocks; the changes (N, m, D + 1) and (N,) of units and output bias
        that are largest along w.
        """
        z, n, dim = self._z, len(self._z), self._z.shape[1]
        rng, m, total = self._rng, self._count, min(_DIRECTIONS * self._count, _MOST)
        who = np.arange(total) % m
        own = rng.standard_normal((total, dim + 1))
        own *= np.sqrt(max(self._units.room**2 - room**2, 0.0)) / np.linalg.norm(own, axis=1, keepdims=True)
        u, v = self._u[who] + self._ku * own[:, :dim], self._v[who] + self._kv * own[:, dim]
        phi, slope, bend = self._phi(u @ z.T)
        others = np.ones((total, m, 1))
        others[np.arange(total), who] = 0.0
        bias = float(self._units.bias)
        d = rng.standard_normal((total, m, dim + 1)) * others
        c = rng.standard_normal(total) * bias
        mass, targets = self._obj.data.normalized_weights, self._obj.targets[:, 0]

        def scaled(d: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray]:
            size = np.sqrt((d * d).sum(axis=(1, 2)) + c * c) + 1e-300
            return d / size[:, None, None] * room, c / size * room

        d, c = scaled(d, c)
        for _ in range(3):
            values = self._phi((self._u + self._ku * d[..., :dim]) @ z.T)[0]
            added = ((self._v + self._kv * d[..., dim])[..., None] * values * others).sum(axis=1)
            f = v[:, None] * phi + added + self._units.c.middle[0] + (self._kv * c)[:, None]
            r, steep = (f - targets, np.ones_like(f)) if self._obj.loss == "squared_error" else _logistic(f, targets)
            block = np.zeros((total, dim + 1, dim + 1))
            block[:, :dim, :dim] = np.einsum("bn,nd,ne->bde", mass * bend * v[:, None] * r, z, z) * self._ku**2
            block[:, :dim, dim] = block[:, dim, :dim] = (mass * slope * r) @ z * (self._ku * self._kv)
            lowest, vectors = np.linalg.eigh(block)
            p = vectors[:, :, 0]
            along = self._ku * (p[:, :dim] @ z.T)
            w = -mass * steep * (bend * v[:, None] * along**2 + 2.0 * self._kv * slope * along * p[:, dim:])
            w /= np.linalg.norm(w, axis=1, keepdims=True) + 1e-300
            for _ in range(_ASCENT):
                values, slopes, _ = self._phi((self._u + self._ku * d[..., :dim]) @ z.T)
                gain = w[:, None] * (self._v + self._kv * d[..., dim])[..., None] * slopes
                step = np.concatenate([gain @ z * self._ku, self._kv * (w[:, None] * values).sum(axis=2, keepdims=True)], axis=2)
                step, shift = scaled(step * others, self._kv * bias * w.sum(axis=1))
                d, c = scaled(d + step, c + shift)
        chosen = w[np.argsort(lowest[:, 0])[: total // 2]]
        moment: FloatArray = chosen.T @ chosen / len(chosen) + np.zeros((n, n))
        return moment, d, c

    def near(self, units: FloatArray, mixtures: FloatArray) -> FloatArray:
        """Mean ww', of trace one, for eigenvectors of the mixtures Z (B, D + 1, D + 1) at parameters (B, D + 1) of a unit."""
        z, dim = self._z, self._z.shape[1]
        _, slope, bend = self._phi(units[:, :dim] @ z.T)
        shares, vectors = np.linalg.eigh(mixtures)
        along = self._ku * np.einsum("bdk,nd->bkn", vectors[:, :dim], z)
        w = bend[:, None] * units[:, dim, None, None] * along**2
        w += 2.0 * self._kv * slope[:, None] * along * vectors[:, dim, :, None]
        w *= self._obj.data.normalized_weights
        moment: FloatArray = np.einsum("bk,bkn,bkm->nm", np.maximum(shares, 0.0), w, w)
        moment /= np.trace(moment) + 1e-300
        return moment


def _logistic(f: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
    p = expit(f)
    return p - targets, p * (1.0 - p)
