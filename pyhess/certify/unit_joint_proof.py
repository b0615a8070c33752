"""Proofs that one unit's change of the outputs lies in an ellipsoid that grows with the change of its weights.

For a unit (u0, v0) and changes d = (x, y) of its parameters the outputs change by an entry per datum,

    f(d) = (v0 + kv y) phi(s0 + ku z.x) - v0 phi(s0).

`enlarged` finds for a matrix A a number t for which

    P(d) = |A f(d)|² - t² (|d|² + g) <= 0        for all |d| <= r

is proved by cutting boxes: with the Taylor polynomial q0 + q1[d] + q2[d, d]/2 of A f about a box's middle and a bound e of what
it leaves out, P's constant, linear and quadratic terms are bounded each as a whole, so that they cancel where the ellipsoid
touches the set.

Where v0 = 0, f = y h(x) with h(x) = kv phi(s0 + ku z.x), and with an output bias's change c

    |A (y h + k c 1)| <= t (|d|² + c² + g)        for all |x| <= r, all y and all c

follows from the same for h, with a = k A 1: if

    P(x) = |A h|² + (A h.a)²/lam - 4 t² (|x|² + g) <= 0,    0 < lam <= 4 t² (|x|² + g) - |a|²,

the largest eigenvalue of the Gram matrix of A h and a is at most 4 t² (|x|² + g), so that

    |y A h + c a|² <= (y² + c²) 4 t² (|x|² + g) <= t² (y² + c² + |x|² + g)².
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .intervals import TINY, Interval, gamma, norms
from .ranges import derivative_range

FloatArray = npt.NDArray[np.float64]

#: Boxes that a proof may take with one t, at most and times data, and the smallest t: for f, and for h of fewer parameters.
_EFFORTS = (24_000, 600_000, 1.02), (40_000, 1_000_000, 1.006)
#: How much t grows after so many boxes, in units of its distance from one, and the largest t; rounds, and numbers of one batch.
_GROWTH, _LARGEST, _MAX_ROUNDS, _NUMBERS = 0.5, 1.3, 60, 500_000


class Mapping(Protocol):
    """A function of few parameters, an entry per datum."""

    @property
    def size(self) -> int:
        """Parameters, P."""

    @property
    def num_data(self) -> int:
        """Entries, n."""

    @property
    def pairs(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Those p <= q whose second derivatives may not be zero."""

    def polynomial(self, d: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Coefficients (B, n), (B, P, n), (B, S, n) about d (B, P), and a bound (B, n) of the rest, rounding included."""

    def shares(self, d: FloatArray, half: FloatArray) -> FloatArray:
        """How much of what the polynomial leaves out is due to each side (B, P), roughly."""


class Change:
    """The change f of the outputs by one hidden unit with one output, with enclosures over boxes of d."""

    def __init__(
        self, activation: tuple[str, float], z: FloatArray, u: FloatArray, v: float, scales: tuple[float, float]
    ) -> None:
        self._name, self._beta = activation
        self.z, self._u, self._v = z, u, v
        self._ku, self._kv = scales
        self.num_data, self.size = len(z), z.shape[1] + 1
        first, last = np.triu_indices(z.shape[1])
        places = np.arange(z.shape[1])
        #: Pairs (p, q), p <= q, of parameters whose second derivative is not zero: not that of the last with itself.
        self.pairs = np.concatenate([first, places]), np.concatenate([last, np.full(places.size, places.size)])
        self._rounding = gamma(z.shape[1] + 16)
        self._at = self._phi(0, *self._pre(np.zeros((1, z.shape[1]))))

    def _pre(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Pre-activations (B, n) of changes x (B, D) and their rounding errors."""
        s = (self._u + self._ku * x) @ self.z.T
        size = (np.abs(self._u) + abs(self._ku) * np.abs(x)) @ np.abs(self.z).T
        return s, self._rounding * size + TINY

    def _phi(self, order: int, s: FloatArray, reach: FloatArray) -> Interval:
        return derivative_range(self._name, self._beta, order, Interval(s - reach, s + reach))

    def values(self, d: FloatArray) -> FloatArray:
        """F (B, n), rounded."""
        phi = self._phi(0, *self._pre(d[:, :-1])).middle
        changed: FloatArray = (self._v + self._kv * d[:, -1:]) * phi - self._v * self._at.middle
        return changed

    def polynomial(self, d: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Coefficients (B, n), (B, P, n), (B, S, n) about d (B, P), and a bound (B, n) of the rest, rounding included."""
        dim = self.size - 1
        s, error = self._pre(d[:, :dim])
        turn = np.abs(half[:, :dim]) @ np.abs(self.z).T * (abs(self._ku) * (1.0 + self._rounding))
        a0, a1, a2 = (self._phi(order, s, error) for order in (0, 1, 2))
        reach = turn + 2.0 * error
        bent, third = self._phi(2, s, reach).magnitude, self._phi(3, s, reach).magnitude
        v, step = self._v + self._kv * d[:, -1:], abs(self._kv) * half[:, -1:]
        large = (np.abs(self._v) + abs(self._kv) * np.abs(d[:, -1:]) + step) * (1.0 + self._rounding)
        z, (ku, kv) = self.z, (self._ku, self._kv)
        value = v * a0.middle - self._v * self._at.middle
        linear = np.zeros((len(d), self.size, len(z)))
        first, last = self.pairs
        linear[:, :dim] = (v * a1.middle * ku)[:, None] * z.T
        linear[:, dim] = kv * a0.middle
        inputs = last < dim
        square = np.empty((len(d), first.size, len(z)))
        square[:, inputs] = (v * a2.middle * (ku * ku))[:, None] * (z.T[first[inputs]] * z.T[last[inputs]])
        square[:, ~inputs] = (kv * ku * a1.middle)[:, None] * z.T
        rest = large * third * turn**3 / 6.0 + step * bent * turn**2 / 2.0
        # What the middles leave out, and the rounding of the coefficients: a few operations each.
        rest += large * (a0.radius + a1.radius * turn + 0.5 * a2.radius * turn**2) + abs(self._v) * self._at.radius
        rest += step * (a0.radius + a1.radius * turn)
        size = large * (a0.magnitude + a1.magnitude * turn + a2.magnitude * turn**2)
        rest += self._rounding * (size + abs(self._v) * self._at.magnitude + step * (a0.magnitude + a1.magnitude * turn))
        return value, linear, square, rest * (1.0 + self._rounding) + TINY

    def shares(self, d: FloatArray, half: FloatArray) -> FloatArray:
        """How much of what the polynomial leaves out is due to each side, roughly."""
        turn = abs(self._ku) * half[:, :-1] * np.abs(self.z).mean(axis=0)
        step = abs(self._kv) * half[:, -1:]
        step = step / (np.abs(self._v + self._kv * d[:, -1:]) + step + TINY)
        both: FloatArray = np.concatenate([turn / (turn.sum(axis=1, keepdims=True) + TINY), step / 3.0], axis=1)
        both /= both.sum(axis=1, keepdims=True) + TINY
        return both


class Outputs:
    """H(x) = kv phi(s0 + ku z.x) of one hidden unit."""

    def __init__(self, activation: tuple[str, float], z: FloatArray, u: FloatArray, scales: tuple[float, float]) -> None:
        self._unit = Change(activation, z, u, 0.0, scales)
        self.num_data, self.size = z.shape
        self.pairs = np.triu_indices(self.size)

    def values(self, x: FloatArray) -> FloatArray:
        """H (B, n), rounded."""
        found: FloatArray = self._unit.values(np.hstack([x, np.ones((len(x), 1))]))
        return found

    def polynomial(self, x: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """See `Mapping`: that of f at y = 1, without what changes with y."""
        ones, none = np.ones((len(x), 1)), np.zeros((len(x), 1))
        value, linear, square, rest = self._unit.polynomial(np.hstack([x, ones]), np.hstack([half, none]))
        return value, linear[:, :-1], square[:, : self.pairs[0].size], rest

    def shares(self, x: FloatArray, half: FloatArray) -> FloatArray:
        """See `Mapping`."""
        turn: FloatArray = half * np.abs(self._unit.z).mean(axis=0)
        turn /= turn.sum(axis=1, keepdims=True) + TINY
        return turn


def enlarged(change: Mapping, matrix: FloatArray, room: float, floor: float, cancelled: Callable[[], bool],
             bias: float | None = None) -> float | None:  # fmt: skip
    """A t with |A f(d)|² <= t² (|d|² + floor) for all |d| <= room, as small as some boxes can show; None if none is found. With
    k in ``bias``, what takes y and c along for h in the place of f.
    """
    size = change.size
    boxes = np.zeros((1, size)), np.full((1, size), room * (1.0 + 1e-14))
    batch = max(64, _NUMBERS // (change.num_data * size * size))
    most, work, least = _EFFORTS[bias is not None]
    tested, t = 0, least
    budget = int(np.clip(work / change.num_data, most / 4, most))
    for _ in range(_MAX_ROUNDS):
        middle, half = boxes
        nearest = np.maximum(np.abs(middle) - half * (1.0 + 1e-14), 0.0)
        inside = (nearest**2).sum(axis=1) * (1.0 - 1e-14) <= room * room * (1.0 + 1e-15)
        middle, half = middle[inside], half[inside]
        tested += len(middle)
        if tested > budget:
            tested, t = len(middle), t + _GROWTH * (t - 1.0)
        if cancelled() or t > _LARGEST or len(middle) > most:
            return None
        found = [
            _bounds(change, matrix, middle[begin : begin + batch], half[begin : begin + batch], floor, t, bias)
            for begin in range(0, len(middle), batch)
        ]
        worst, ratio, side = (np.concatenate([part[k] for part in found]) for k in range(3))
        # beyond the ball nothing is claimed
        at = ratio[(middle**2).sum(axis=1) < room * room].max(initial=0.0)
        t = max(t, at * (1.0 + 0.5 * (least - 1.0)))
        open_ = ~(worst <= 0.0)
        if not open_.any():
            return float(t)
        middle, half, side = middle[open_], half[open_], side[open_].astype(np.int64)
        rows = np.arange(len(side))
        # halves overlap by the rounding
        new, shift = half.copy(), 0.5 * half[rows, side]
        new[rows, side] = shift * (1.0 + 1e-14) + 4e-16 * np.abs(middle[rows, side])
        low, high = middle.copy(), middle.copy()
        low[rows, side] -= shift
        high[rows, side] += shift
        boxes = np.concatenate([low, high]), np.concatenate([new, new])
    return None


def _bounds(change: Mapping, matrix: FloatArray, middle: FloatArray, half: FloatArray, floor: float, t: float,
            bias: float | None) -> tuple[FloatArray, FloatArray, FloatArray]:  # fmt: skip
    """Upper bounds of P over boxes, what t would have to be at their middles, and the sides to cut."""
    n, square_t = change.num_data, t * t if bias is None else 4.0 * t * t
    left, right = change.pairs
    value, linear, square, rest = change.polynomial(middle, half)
    alone = left == right
    pairs = half[:, left] * half[:, right] * np.where(alone, 1.0, 2.0)
    blur = gamma(4 * n + 32) * (np.abs(value) + (np.abs(linear) * half[:, :, None]).sum(axis=1))
    blur += gamma(4 * n + 32) * (np.abs(square) * pairs[..., None]).sum(axis=1)
    rest = rest + blur * (1.0 + gamma(64))
    squares = (middle**2).sum(axis=1) + floor
    whole, sizes, scale = matrix, np.abs(matrix), np.ones((len(middle), n))
    image = np.zeros(n)
    if bias:
        image = bias * matrix.sum(axis=1)
        whole, sizes, scale = _with_bias(matrix, image, bias, square_t * _least_squares(middle, half, floor))
    size_a, more = sizes.T, 1.0 + gamma(n + 64)
    e_rounding = norms(blur @ size_a * scale * more)
    e = (norms(rest @ size_a * scale * more) + e_rounding) * more
    q0, q1, q2 = value @ whole.T * scale, linear @ whole.T * scale[:, None], square @ whole.T * scale[:, None]
    l0, l1, l2 = norms(q0), norms(q1), norms(q2)
    slope = 2.0 * (np.einsum("bn,bpn->bp", q0, q1) - square_t * middle)
    bend = q1 @ q1.transpose(0, 2, 1) - square_t * np.eye(change.size)
    turned = np.einsum("bn,bsn->bs", q0, q2)
    bend[:, left, right] += turned
    bend[:, right[~alone], left[~alone]] += turned[:, ~alone]
    along = _most(slope, bend, half)
    first, second = (l1 * half).sum(axis=1), 0.5 * (l2 * pairs).sum(axis=1)
    at = (q0**2).sum(axis=1) - square_t * squares
    bent = second * (2.0 * first + second)
    higher = bent + e * (2.0 * (first + second) + e)
    # what is left out, where A f is not small, in the one direction that counts
    sharp = (np.abs((q0 * scale) @ whole) * rest).sum(axis=1)
    higher += 2.0 * np.minimum(l0 * e, sharp + l0 * (gamma(n + 8) * e + e_rounding))
    magnitude = (l0 + first + second + e) ** 2
    magnitude += square_t * ((np.abs(middle).sum(axis=1) + half.sum(axis=1)) ** 2 + floor)
    worst = at + along.sum(axis=1) + higher + gamma(8 * n + 256) * magnitude
    # The side with the largest share.
    share = along + (higher - bent)[:, None] * change.shares(middle, half)
    kinks = bent[:, None] * l2 * pairs / (2.0 * second[:, None] + TINY)
    for k, (p, q) in enumerate(zip(left, right, strict=True)):
        share[:, p] += 0.5 * kinks[:, k]
        share[:, q] += 0.5 * kinks[:, k]
    # the largest eigenvalue of the Gram matrix at the middles
    first, last, mixed = (q0[:, :n] ** 2).sum(axis=1), float(image @ image), q0[:, :n] @ image
    needed = t * np.sqrt(largest_root(first, last, mixed) / (square_t * squares))
    share = np.where(np.isfinite(share).all(axis=1, keepdims=True), share, half)
    return worst, needed, share.argmax(axis=1).astype(np.float64)


def largest_root(first: FloatArray, last: float, mixed: FloatArray) -> FloatArray:
    """Largest eigenvalues of [first, mixed; mixed, last], roughly."""
    found: FloatArray = 0.5 * (first + last) + np.sqrt(0.25 * (first - last) ** 2 + mixed**2)
    return found


def _least_squares(middle: FloatArray, half: FloatArray, floor: float) -> FloatArray:
    """The least |d|² + floor over boxes, rounded down."""
    more = 1.0 + gamma(middle.shape[1] + 16)
    found: FloatArray = ((np.maximum(np.abs(middle) - half * more, 0.0) ** 2).sum(axis=1) + floor) / more
    return found


def _with_bias(matrix: FloatArray, image: FloatArray, bias: float, least: FloatArray
               ) -> tuple[FloatArray, FloatArray, FloatArray]:  # fmt: skip
    """A with the row a'A, sizes for its rounding, and factors (B, n + 1) of the entries for the least right sides; a rounded."""
    n, size = len(matrix), abs(bias) * np.abs(matrix).sum(axis=1)
    square = float((image**2).sum()) + gamma(4 * n + 16) * float((size**2).sum())
    lam = least * (1.0 - gamma(16)) - square
    factor = np.where(lam > 0.0, (1.0 + gamma(16)) / np.sqrt(np.maximum(lam, TINY)), np.inf)
    scale = np.concatenate([np.ones((len(least), n)), factor[:, None]], axis=1)
    return np.vstack([matrix, image @ matrix]), np.vstack([np.abs(matrix), size @ np.abs(matrix)]), scale


def _most(slope: FloatArray, bend: FloatArray, half: FloatArray) -> FloatArray:
    """Numbers (B, P) with a sum that slope.h + h'bend h does not exceed for |h| <= half: with |2 h_p h_q| <= h_p² half_q/half_p +
    h_q² half_p/half_q it is at most a sum of functions of one h_p each.
    """
    places = np.arange(slope.shape[1])
    size = np.abs(bend)
    size[:, places, places] = 0.0
    curved = bend[:, places, places] + (size * half[:, None, :]).sum(axis=2) / half
    ends = np.abs(slope) * half + curved * half**2
    inside = (curved < 0.0) & (np.abs(slope) < -2.0 * curved * half)
    found: FloatArray = np.where(inside, slope**2 / (-4.0 * np.where(inside, curved, -1.0)), ends)
    return found
