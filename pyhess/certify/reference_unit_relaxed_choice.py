"""What is subtracted from a hidden unit's polynomials: guesses of the best multipliers, in floating point.

For a mixture Z of directions, with K_l and F_k the matrices between the delta_l x p, the e_k x p and p, S = 4 sum_l K_l Z K_l',
and A # B the X with X A X = B,

    Lam = T + Delta,  T = ((R² - |q|²) Z) # S / (2 rho),    Lam_k = Z^-1/2 |Z^1/2 F_k Z^1/2| Z^-1/2,
    t = sqrt(Z_nu,nu / X'Z X),    tau = share² / sqrt(sum_k tr(M M' u_k Z u_k')),

where u_l p is the delta_l x p for which the form is least. Delta is what the form's own curvature does not do already: Lam less
(rho² sum_l u_l Z u_l') # S / (2 rho), as the form is to be least where delta is as long as it may be. Z moves to the lowest
eigenvector of the Schur complement on p. Nothing here is taken for true.

Of K only the symmetric part C/2 is given. In Z's eigenvectors, z_i the eigenvalues, tr(S) is least for

    K_ij = C_ij z_i / (z_i + z_j),    antisymmetric part C_ij/2 (z_i - z_j) / (z_i + z_j):

near one direction v it is K v = v (v'C v)/2 alone that counts, and all l have that in common, so that one Lam does for all of
them. F_k has a Lam_k of its own, with a loss of 2 tr|Z^1/2 F_k Z^1/2|, the sum of the singular values, to which an antisymmetric
part only adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.linalg.blas import dgemm, dtrsm
from scipy.linalg.lapack import dpotrf

from .reference_unit_relaxed_cells import Rests
from .reference_unit_relaxed_forms import Bounded, Forms, Multipliers, Room
from .reference_unit_relaxed_others import FloatArray, IntArray

#: Least R² - |q|² for the formula, over the square of what is left to the others, and over the radius's.
_NEAR, _LEAST = 0.1, 1e-4
#: The least eigenvalue of what is divided by, relative to the largest, and the range of t and tau.
_FLAT, _FAR = 1e-8, 1e12
#: How much more than necessary is added to Lam, in units of its mean, and times that leaves are repaired.
_MORE, _REPAIRS = 0.2, 8


Cells: TypeAlias = IntArray | slice


@dataclass(frozen=True)
class Least:
    """The Schur complement's lowest eigenvalue and its vector, and the u (L, D, D), those of the units first."""

    value: float
    vector: FloatArray
    u: FloatArray


class Mixture:
    """The mixtures Z of some cells and what was found on the way."""

    def __init__(self, forms: Forms, room: Room) -> None:
        size, self._forms, self._room = forms.size, forms, room
        v = np.linalg.eigh(forms.core[:, :size, :size])[1][:, :, 0]
        self.z = 0.5 * v[:, :, None] * v[:, None, :] + 0.5 / size * np.eye(size)
        self._delta = np.zeros_like(self.z)
        self._steps = np.zeros(len(self.z))
        self._repaired = np.zeros(len(self.z), dtype=np.int64)
        self._slopes = forms.slopes()
        self._turns = np.zeros_like(self._slopes)
        self._sum = self._linear(slice(None))
        unit = -self._solved(self._ball())
        self._tau = self._cubic(unit)

    def taken(self, rests: Rests) -> FloatArray:
        """The matrices (B, D, D) that bound the rests."""
        numbers, inputs = self._forms.numbers, self._forms.size - 1
        x, mass = numbers.x, numbers.mass
        along = ((x @ self.z[:, :inputs, :inputs]) * x).sum(axis=2)
        t = np.clip(np.sqrt(self.z[:, -1, -1, None] / np.maximum(along, 1e-30)), 1.0 / _FAR, _FAR)
        found = np.zeros_like(self.z)
        weight = mass * (rests.a + t * rests.b)
        found[:, :inputs, :inputs] = np.swapaxes(weight[..., None] * x, 1, 2) @ x
        found[:, inputs, inputs] = (mass * (rests.b / t)).sum(axis=1)
        return np.asarray(found)

    def multipliers(self) -> Multipliers:
        """Lam, Lam_k and tau."""
        forms, room, size = self._forms, self._room, self._forms.size
        ball = _root(self._ball())
        half, inverse = _powers(self.z)
        tilted = forms.linear.reshape(-1, size, size, size).transpose(0, 2, 1, 3)
        tilted = tilted + (room.q * room.h)[:, :, None, None] * (ball @ np.swapaxes(ball, 1, 2))[:, None]
        values, vectors = np.linalg.eigh(half[:, None] @ tilted @ half[:, None])
        sides = inverse[:, None] @ vectors * np.sqrt(np.abs(values))[:, :, None, :]
        return Multipliers.of(ball, sides, self._tau, self._turns)

    def learn(self, cells: IntArray, found: list[Least], balls: FloatArray) -> None:
        """From where the form is least with these Lam."""
        u = np.stack([least.u for least in found])
        moved = (u @ self.z[cells, None] @ np.swapaxes(u, 2, 3)).sum(axis=1) * self._room.rho**2
        self._delta[cells] = balls[cells] - _between(moved, self._sum[cells]) / (2.0 * self._room.rho)
        self._tau[cells] = self._cubic(u, cells)
        vectors = np.stack([least.vector for least in found])
        self._steps[cells] += 1.0
        step = (1.0 + self._steps[cells])[:, None, None]
        self.z[cells] += (vectors[:, :, None] * vectors[:, None, :] - self.z[cells]) / step
        self._sum[cells] = self._linear(cells)

    def repair(self, cell: int) -> None:
        """Lam larger and tau smaller until all leaves seem definite."""
        forms, size, square = self._forms, self._forms.size, self._room.rho**2
        ball = _root(self._ball()[cell : cell + 1])[0]
        before = ball @ ball.T
        margin = _MORE * 2.0 ** self._repaired[cell]
        self._repaired[cell] += 1
        ball = before + (margin * np.trace(before) / size + 1e-200) * np.eye(size)
        for leaf in forms.leaf[cell]:
            for k in range(_REPAIRS):
                least = margin * square * np.trace(ball) / size
                matrix = leaf + _repeated(square * ball - least * np.eye(size))
                if not dpotrf(matrix, clean=False)[1]:
                    break
                values, vectors = np.linalg.eigh(matrix)
                parts = (vectors * np.sqrt(np.maximum(-values, 0.0))).T.reshape(-1, size)
                ball += (1.0 + 0.5 * k) / square * (parts.T @ parts)
        self._delta[cell] += ball - before
        for leaf, gram in zip(forms.leaf[cell], forms.third[0][cell], strict=True):
            own = leaf + _repeated(square * ball)
            while self._tau[cell] > 1.0 / _FAR and dpotrf(own - self._tau[cell] * gram, clean=False)[1]:
                self._tau[cell] *= 0.5

    def _ball(self) -> FloatArray:
        room = self._room
        square = np.maximum(np.maximum(room.square, _NEAR * (room.share * room.rho) ** 2), _LEAST)
        return np.asarray(_between(square[:, None, None] * self.z, self._sum) / (2.0 * room.rho) + self._delta)

    def _linear(self, cells: Cells) -> FloatArray:
        """S, with the best K for Z."""
        self._turns[cells] = _turned(self._slopes[cells], self.z[cells])
        k = self._slopes[cells] + self._turns[cells]
        found: FloatArray = 4.0 * (k @ self.z[cells, None] @ np.swapaxes(k, 2, 3)).sum(axis=1)
        return found

    def _solved(self, ball: FloatArray) -> FloatArray:
        size = self._forms.size
        rigid = ball + (1e-9 * np.trace(ball, axis1=1, axis2=2) + 1e-200)[:, None, None] * np.eye(size)
        return np.linalg.solve(self._room.rho**2 * rigid[:, None], self._slopes + self._turns)

    def _cubic(self, u: FloatArray, cells: Cells = slice(None)) -> FloatArray:
        forms, size = self._forms, self._forms.size
        gram, z = forms.third[0][cells], self.z[cells]
        units = gram.shape[1]
        flat = u[:, : units * size].reshape(len(u), units, size * size, size)
        strength = ((gram @ flat) * (flat @ z[:, None])).sum(axis=(1, 2, 3))
        return np.asarray(np.clip(self._room.share[cells] ** 2 / np.sqrt(np.maximum(strength, 1e-30)), 1.0 / _FAR, _FAR))


def _turned(symmetric: FloatArray, z: FloatArray) -> FloatArray:
    """What makes the best K (B, L, D, D) of C/2, antisymmetric."""
    values, vectors = np.linalg.eigh(z)
    values, vectors = np.maximum(values, _FLAT * values[:, -1:] + 1e-200), vectors[:, None]
    over, under = values[:, :, None] - values[:, None, :], values[:, :, None] + values[:, None, :]
    turned = np.swapaxes(vectors, 2, 3)
    found: FloatArray = vectors @ (turned @ symmetric @ vectors * (over / under)[:, None]) @ turned
    return found


def _powers(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Roots of positive definite matrices and of their inverses."""
    values, vectors = np.linalg.eigh(0.5 * (x + np.swapaxes(x, -1, -2)))
    root = np.sqrt(np.maximum(values, _FLAT * values[..., -1:] + 1e-200))[..., None, :]
    turned = np.swapaxes(vectors, -1, -2)
    return vectors * root @ turned, vectors / root @ turned


def _between(a: FloatArray, b: FloatArray) -> FloatArray:
    """X with X A X = B for positive definite A and B."""
    half, inverse = _powers(a)
    middle = _root(half @ b @ half)
    values, vectors = np.linalg.eigh(middle @ np.swapaxes(middle, 1, 2))
    root = (vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]) @ np.swapaxes(vectors, 1, 2)
    found = inverse @ root @ inverse
    return np.asarray(0.5 * (found + np.swapaxes(found, 1, 2)))


def _repeated(x: FloatArray) -> FloatArray:
    """X for every delta_l."""
    size, places = len(x), np.arange(len(x))
    found = np.zeros((size,) * 4)
    found[places, :, places] = x
    return found.reshape(size * size, -1)


def _root(x: FloatArray) -> FloatArray:
    """A with A A' = X, as far as it goes."""
    values, vectors = np.linalg.eigh(0.5 * (x + np.swapaxes(x, -1, -2)))
    found: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
    return found


def lowest(bounded: Bounded, forms: Forms, cell: int) -> Least | None:
    """Where the form is least; None if it has no least."""
    size = forms.size
    core = bounded.core[cell].copy(order="F")
    parts = [(bounded.leaf[cell, k], bounded.cross[cell, k]) for k in range(bounded.cross.shape[1])]
    if bounded.bias is not None:
        parts.append((bounded.last[cell], bounded.bias[cell]))
    roots = []
    for own, cross in parts:
        root, info = dpotrf(own.T, lower=True, clean=False)
        if info:
            return None
        above = dtrsm(1.0, root, cross, lower=True)
        core = dgemm(-1.0, above, above, 1.0, core, trans_a=True, overwrite_c=True)
        roots.append((root, above))
    root, info = dpotrf(core[size:, size:], lower=True, clean=False)
    if info:
        return None
    above = dtrsm(1.0, root, core[size:, :size], lower=True)
    values, vectors = np.linalg.eigh(core[:size, :size] - above.T @ above)
    along = np.concatenate([np.eye(size), -dtrsm(1.0, root, above, lower=True, trans_a=True)])
    u = [-dtrsm(1.0, root, over @ along, lower=True, trans_a=True).reshape(-1, size, size) for root, over in roots]
    return Least(float(values[0]), vectors[:, 0], np.concatenate(u) if u else np.zeros((0, size, size)))
