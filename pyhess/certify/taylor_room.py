"""Where the change of the parameters may be: in a ball, or in a slab across one direction; and the largest terms there.

In a slab delta = s d + y with |s| <= along, |y| <= across and y . d = 0. So for any numbers a, vectors w and symmetric W

    |q_1 . delta| <= along |q_1 . d| + across |q_1 - a d|,
    |delta' q_2 delta| <= along² |d' q_2 d| + 2 along across |q_2 d - a d| + across² |q_2 - d w' - w d'|,
    |q_3[delta, delta, delta]| <= along³ |q_3[d, d, d]| + 3 along² across |q_3[d, d, .] - a d|
                                  + 3 along across² |q_3[d, ., .] - d w' - w d'| + across³ |q_3 - d W - d W - d W|,

the last with d at each of the three places, matrices by their spectral norm or |.|_F.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._jit import serial
from .intervals import ROOT_TINY, gamma
from .taylor_triples import triples

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Room:
    """Changes no longer than ``reach``; with a direction d (P,), |d| close to one, also s d + y as above, which is no longer."""

    reach: float
    direction: FloatArray | None = None
    along: float = 0.0
    across: float = 0.0

    def first(self, q: FloatArray, lengths: FloatArray) -> FloatArray:
        """Bounds of |q . delta| for q (…, P) of these lengths."""
        d = self.direction
        if d is None:
            return self.reach * lengths
        on = q @ d
        return self._rounded(self.along * np.abs(on) + self.across * length(_off(q, on, d), 1), self.reach * lengths)

    def second(self, q: FloatArray, lengths: FloatArray) -> FloatArray:
        """The same of |delta' q delta| for symmetric q (…, P, P)."""
        d = self.direction
        if d is None:
            return self.reach**2 * spectral(q, lengths)
        row = q @ d
        on = row @ d
        off = _off(row, 0.5 * on, d)  # w
        left = q - off[..., :, None] * d - d[:, None] * off[..., None, :]
        crossed = 2.0 * self.along * self.across * length(_off(row, on, d), 1)
        found: FloatArray = self.along**2 * np.abs(on) + crossed + self.across**2 * spectral(left, length(left, 2))
        return self._rounded(found, self.reach**2 * lengths)

    def third(self, q: FloatArray, lengths: FloatArray) -> FloatArray:
        """The same of |q[delta, delta, delta]| for q (…, C), its entries k <= l <= m."""
        d = self.direction
        if d is None:
            return self.reach**3 * lengths
        if not q.any():
            return np.zeros(q.shape[:-1])
        at = triples(d.size)
        flat = np.ascontiguousarray(q).reshape(-1, len(at))
        squares = np.empty((len(flat), 4))
        _parts(flat, d, at.k, at.l, at.m, at.roots**2, squares)
        h, rho = self.along, self.across
        factors = np.array([h**3, 3.0 * h * h * rho, 3.0 * h * rho * rho, rho**3])
        found = ((np.sqrt(squares) * (1.0 + gamma(len(at) + 64)) + ROOT_TINY) @ factors).reshape(q.shape[:-1])
        return self._rounded(found, self.reach**3 * lengths)

    def _rounded(self, found: FloatArray, whole: FloatArray) -> FloatArray:
        """With what products with d and differences were rounded by, relative to ``whole``: at most 3 (3 P + 48) units of it."""
        assert self.direction is not None
        rounded: FloatArray = (found + gamma(16 * self.direction.size + 256) * whole) * (1.0 + gamma(32))
        return rounded


def _off(q: FloatArray, on: FloatArray, d: FloatArray) -> FloatArray:
    """Vectors q (…, P) less multiples ``on`` of d."""
    found: FloatArray = q - on[..., None] * d
    return found


@serial
def _parts(q: Any, d: Any, k: Any, l: Any, m: Any, counts: Any, out: Any) -> None:  # noqa: E741
    """Squared lengths of q[d, d, d], q[d, d, .], q[d, ., .] and q, each but for multiples of d, for q (n, C)."""
    size = d.size
    once, twice, off = np.empty((size, size)), np.empty(size), np.empty((size, size))
    for n in range(q.shape[0]):
        out[n] = 0.0
        if not q[n].any():  # as many are
            continue
        once[:] = 0.0
        for c in range(k.size):
            a, b, e, x = k[c], l[c], m[c], q[n, c]
            once[b, e] += d[a] * x
            if b != a:
                once[a, e] += d[b] * x
            if e != b:
                once[a, b] += d[e] * x
        thrice = 0.0
        for a in range(size):
            for b in range(a):
                once[a, b] = once[b, a]
        for a in range(size):
            twice[a] = 0.0
            for b in range(size):
                twice[a] += once[a, b] * d[b]
            thrice += twice[a] * d[a]
        of_one, of_two, of_three = 0.0, 0.0, 0.0
        for a in range(size):
            of_one += (twice[a] - thrice * d[a]) ** 2
            for b in range(size):
                crossed = d[a] * twice[b] + d[b] * twice[a]
                of_two += (once[a, b] - crossed + thrice * d[a] * d[b]) ** 2
                off[a, b] = once[a, b] - 0.5 * crossed + thrice * d[a] * d[b] / 3.0
        for c in range(k.size):
            a, b, e = k[c], l[c], m[c]
            left = q[n, c] - d[a] * off[b, e] - d[b] * off[a, e] - d[e] * off[a, b]
            of_three += counts[c] * left * left
        out[n, 0], out[n, 1], out[n, 2], out[n, 3] = thrice * thrice, of_one, of_two, of_three


def length(x: FloatArray, axes: int) -> FloatArray:
    """Euclidean lengths over the last axes, rounded up."""
    count = math.prod(x.shape[x.ndim - axes :])
    flat = x.reshape(*x.shape[: x.ndim - axes], count)
    found: FloatArray = np.sqrt(np.einsum("...k,...k->...", flat, flat)) * (1.0 + gamma(count + 16)) + count * ROOT_TINY
    return found


def spectral(q: FloatArray, lengths: FloatArray) -> FloatArray:
    """Spectral norms of matrices (…, P, P) of such lengths, rounded up: |Q|⁴ = |(Q'Q)²| is at most the Frobenius norm of that."""
    size = q.shape[-1]
    usual = (lengths > 2.0 * size**2 * ROOT_TINY) & np.isfinite(lengths)  # many are zero
    scale, found = lengths[usual], lengths.copy()
    unit = q[usual] / scale[:, None, None]  # of length at most one, so all products are at most one
    gram = np.matmul(unit.swapaxes(-1, -2), unit)
    fourth = length(np.matmul(gram, gram), 2) + gamma(4 * size + 32)
    found[usual] = np.minimum(scale, scale * np.sqrt(np.sqrt(fourth)) * (1.0 + gamma(16)))
    return found
