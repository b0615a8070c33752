"""The changes of the parameters that polynomials hold for, and what forms in them are at most, for checking certificates.

    delta = s d + y,    |s| <= along,    |y| <= across,    y . d = 0,

or all |delta| <= across, where there is no d. As multiples of d count for nothing in products with y, any a, w and W give

    |q1 . delta| <= along |q1 . d| + across |q1 - a d|,
    |delta'q2 delta| <= along² |d'q2 d| + 2 along across |q2 d - a d| + across² |q2 - d w' - w d'|,
    |q3[delta, delta, delta]| <= along³ |q3[d, d, d]| + 3 along² across |q3[d, d, .] - a d|
                                 + 3 along across² |q3[d, ., .] - d w' - w d'| + across³ |q3 - sum d_k W_lm|,

the last sum over k, l and m in turn; the a, w and W taken here leave nothing along d but what is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from .reference_interval import TINY, UNIT, Range, Wide, up, wide
from .reference_triples import FloatArray, Triples, crossed, lengths, steps, triples

#: Doubles or long doubles, as they stand.
Numbers: TypeAlias = npt.NDArray[np.floating[Any]]
#: Unit roundoff of double.
DOUBLE = np.longdouble(2.0**-53)
#: Sizes of the third order count as no smaller than the first of these, vectors and tensors as no shorter than the second, so
#: that what is lost where numbers, or their squares, are too small for doubles is among what they are rounded by.
LEAST, SHORTEST = np.longdouble("1e-290"), np.longdouble("1e-155")


def grown(x: Wide, count: int = 0) -> Wide:
    """At least what a number was rounded from that is made of numbers >= 0 by sums of ``count`` terms and some more steps."""
    return up(x * (1.0 + UNIT * (count + 64)) + TINY)


def euclidean(x: Wide) -> Wide:
    """Norms along the last axis, rounded up."""
    return grown(np.sqrt((x * x).sum(axis=-1)), x.shape[-1])


def frobenius(q: Numbers) -> Wide:
    """Norms of matrices (…, P, P), rounded up."""
    flat = q.reshape(*q.shape[:-2], -1)
    return _length_of_doubles(flat.astype(np.float64, copy=False)) if flat.dtype == np.float64 else euclidean(wide(flat))


def _length_of_doubles(x: FloatArray) -> Wide:
    """Norms along the last axis, rounded up, of numbers whose squares may be too small for doubles."""
    found = wide(np.sqrt(np.einsum("...k,...k->...", x, x))) * (1.0 + DOUBLE * (x.shape[-1] + 64)) + SHORTEST
    return np.where(x.any(axis=-1), found, wide(0.0))


def tensor_norm(q: FloatArray, at: Triples) -> Wide:
    """Euclidean lengths of tensors (C, …), rounded up."""
    return wide(lengths(q, at)) * (1.0 + DOUBLE * (2 * len(q) + 64)) + SHORTEST


def spectral(q: Numbers, norms: Wide) -> Wide:
    """Spectral norms of matrices (…, P, P) with the given Frobenius norms, rounded up: |Q|⁴ <= |Q'Q Q'Q|_F, in doubles."""
    found, some = norms.copy(), norms > 0.0
    if not some.any():
        return found
    size = q.shape[-1]
    norm = norms[some]
    unit = q[some] / norm.astype(q.dtype)[:, None, None]
    unit = unit.astype(np.float64, copy=False)
    gram = np.swapaxes(unit, 1, 2) @ unit
    # All norms are at most one: rounding Q changes Q'Q by 4 DOUBLE, the product by P DOUBLE, and both the square twice.
    fourth = frobenius(gram @ gram) + DOUBLE * (3 * size + 16)
    found[some] = np.minimum(norm, grown(norm * np.sqrt(np.sqrt(fourth))))
    return found


@dataclass(frozen=True, eq=False)
class Changes:
    """Those with |s| <= ``along`` and |y| <= ``across`` for d = ``axis``, or |delta| <= ``across`` without one."""

    along: Wide
    across: Wide
    axis: FloatArray | None

    @staticmethod
    def ball(radius: float) -> Changes:
        """All that are no longer than this."""
        return Changes(wide(0.0), wide(radius), None)

    @cached_property
    def square(self) -> Range:
        """|d|²."""
        assert self.axis is not None
        return Range(self.axis).square().sum(0)

    @cached_property
    def reach(self) -> Wide:
        """No change is longer."""
        return self.across if self.axis is None else up(np.sqrt(self.stretched(Range(wide(1.0)))))

    def stretched(self, square: Range) -> Wide:
        """Largest |s d / omega + y|² for a given omega², or |delta|²."""
        across = Range(self.across).square()
        if self.axis is None:
            return across.hi
        return (Range(self.along).square() * self.square / square + across).hi

    def first(self, q: Wide, norm: Wide) -> Wide:
        """Largest |q . delta| for q (…, P) of the given norms."""
        if self.axis is None:
            return grown(self.across * norm)
        on, off = self._split(q)
        # Rounding q . d, and what is taken off q.
        blur = UNIT * (q.shape[-1] + 16) * norm * (self.along * self.square.hi + self.across)
        return grown(self.along * np.abs(on) + self.across * euclidean(off) + blur)

    def second(self, q: Numbers, norm: Wide) -> Wide:
        """Largest |delta'q delta| / 2 for symmetric q (…, P, P) of the given Frobenius norms."""
        if self.axis is None:
            return grown(0.5 * self.across * self.across * spectral(q, norm))
        # No number stays none.
        found, some = norm.copy(), norm > 0.0
        if some.any():
            found[some] = self._bent(q[some], norm[some])
        return found

    def _bent(self, q: Numbers, norm: Wide) -> Wide:
        """`second` for matrices (B, P, P) where there is an axis, in the numbers that they are of."""
        assert self.axis is not None
        d, along, across, unit = self.axis.astype(q.dtype), self.along, self.across, wide(np.finfo(q.dtype).eps)
        on = wide(q @ d)
        both, mixed = self._split(on)
        w = ((on - (0.5 * both / self.square.lo)[..., None] * self.axis) / self.square.lo).astype(q.dtype)
        outer = d[:, None] * w[..., None, :]
        flat = q - outer
        flat -= np.swapaxes(outer, -1, -2)
        total = along * along * np.abs(both) + 2.0 * along * across * euclidean(mixed)
        total = total + across * across * spectral(flat, frobenius(flat))
        blur = unit * (2 * q.shape[-1] + 64) * norm * (along * self.square.hi + across) ** 2
        return grown(0.5 * (total + blur))

    def third(self, q: FloatArray, norm: Wide) -> Wide:
        """Largest |q[delta, delta, delta]| / 6 for symmetric q (C, …) of the given norms."""
        along, across = self.along, self.across
        if self.axis is None:
            return grown(across * across * across * norm / 6.0)
        size, shape, share = len(self.axis), q.shape[1:], float(1.0 / self.square.lo)
        at, q, d = triples(size), q.reshape(len(q), -1), self.axis[:, None]
        low, high = at.pairs
        # q[d, ., .] for every pair, its product with d, and with d again.
        on = np.asarray(self._contraction @ q)
        full = np.empty((size, size, q.shape[1]))
        full[low, high] = full[high, low] = on
        one = np.einsum("k,klx->lx", self.axis, full)
        both = self.axis @ one
        w = share * (one - (0.5 * share * both) * d)
        full -= d[:, None] * w + w[:, None] * d
        apart = np.sqrt((full * full).sum(axis=(0, 1)))
        mixed = np.sqrt(((one - share * both * d) ** 2).sum(axis=0))
        # What is left for W has the projected matrix to the full, and the parts of w but a third of them, as they come thrice.
        v = (0.5 * share) * (one - (share * both / 3.0) * d)
        rest = share * (on - (self.axis[low, None] * v[high] + self.axis[high, None] * v[low]))
        full[low, high] = full[high, low] = rest
        left = np.zeros(q.shape[1])
        for part in steps(len(q), q.shape[1]):
            off = q[part] - crossed(d, full, at, part)
            left += at.copies[part] @ (off * off)
        sizes = (np.abs(both), 3.0 * mixed, 3.0 * apart, np.sqrt(left))
        powers = (along**3, along * along * across, along * across * across, across**3)
        total = sum(power * wide(x.reshape(shape)) for power, x in zip(powers, sizes, strict=True))
        # Sums of squares, of P³ and fewer numbers; then all that has gone into these.
        blur = DOUBLE * (3 * size + 256) * norm + SHORTEST
        total = total * (1.0 + DOUBLE * (2 * len(q) + 64)) + blur * (along * self.square.hi + across) ** 3
        return grown(total / 6.0)

    def _split(self, q: Wide) -> tuple[Wide, Wide]:
        """Q . d, and q less a d."""
        d = wide(self.axis)
        on: Wide = q @ d
        return on, q - (on / self.square.lo)[..., None] * d

    @cached_property
    def _contraction(self) -> csr_array:
        """The matrix that makes q[d, ., .] of q."""
        assert self.axis is not None
        at = triples(len(self.axis))
        pairs = np.broadcast_to(np.arange(at.extended.shape[1]), at.extended.shape)
        numbers = np.broadcast_to(self.axis[:, None], at.extended.shape)
        return csr_array((numbers.ravel(), (pairs.ravel(), at.extended.ravel())), shape=(at.extended.shape[1], len(at.k)))
