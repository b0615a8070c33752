"""The largest gradient of a linear model with the logistic loss over what a two-layer linear network reaches, from both sides.

F(beta) = mean M softplus(beta.z) - y beta.z is convex, g its gradient, H its Hessian. H g = 0 means g = 0, as g is a combination
of the z, so |g| has its maximum over a convex set on the boundary. The boundary is cut into cells, with

    |g(beta + delta)| <= |g + H delta| + 1/2 mean M sup|p''| (z.delta)² |z|,

whose first term is convex, hence largest at a vertex of the cell, or of its section with a half-space that contains the set.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .intervals import TINY, Interval, down, gamma, norms, up
from .ranges import derivative_range

FloatArray = npt.NDArray[np.float64]

#: Cells, and multiplications for all of them, at most.
_MAX_CELLS, _MAX_WORK = 60_000, 6e8
#: Cells in a round, numbers in an array, and the relative gap at which the two ends count as equal.
_ROUND, _NUMBERS, _TOLERANCE = 512, 2e6, 2e-7
_LARGEST = 1e60


@dataclass(frozen=True)
class Scalar:
    """The linear model: rows z (n, D), weights w, mass M and targets y (n,) with dl/df = M p(f) - y; |u|."""

    z: FloatArray
    w: FloatArray
    mass: FloatArray
    y: FloatArray
    loss: str
    length: float


@dataclass(frozen=True)
class Spindle:
    """What a ball reaches: ``size b + shift c e_0`` with |b| + c²/2 <= R²/2 (``shift`` 0 without biases)."""

    size: float
    shift: float
    radius: float
    dim: int

    def support(self, n: FloatArray) -> FloatArray:
        """Supremum of n.beta for rows n, rounded up: (size (R² - c²)/2 |n| + shift c |n_0|) for the best c."""
        length, first = norms(n), self.shift * np.abs(n[:, -1])
        with np.errstate(divide="ignore", invalid="ignore"):
            free = first / (self.size * length)
            value = 0.5 * self.size * self.radius**2 * length + np.where(first > 0.0, 0.5 * first * free, 0.0)
        found: FloatArray = np.where(free > self.radius * (1.0 + 1e-12), first * self.radius, value)
        return found * (1.0 + gamma(64)) + TINY

    @property
    def ends(self) -> tuple[FloatArray, FloatArray]:
        """A box around the set."""
        high = self.support(np.eye(self.dim))
        return -high, high

    def _share(self, beta: FloatArray) -> FloatArray:
        """For rows beta the c that makes |beta - shift c e_0| + size c²/2 small; approximately."""
        low, high = np.zeros(len(beta)), np.full(len(beta), self.radius)
        for _ in range(60 if self.shift > 0.0 else 0):
            c = 0.5 * (low + high)
            left = np.abs(beta[:, -1]) - self.shift * c
            length = np.sqrt((beta[:, :-1] ** 2).sum(axis=1) + left**2)
            rising = self.size * c * length >= self.shift * left
            low, high = np.where(rising, low, c), np.where(rising, c, high)
        return np.copysign(low, beta[:, -1]) if self.shift > 0.0 else low

    def normals(self, beta: FloatArray) -> FloatArray:
        """Rows of unit length, about normal to the boundary next to beta; any direction is valid."""
        n = beta.copy()
        n[:, -1] -= self.shift * self._share(beta)
        length = np.sqrt((n**2).sum(axis=1))
        return n / np.where(length > 0.0, length, 1.0)[:, None]

    def inside(self, low: FloatArray, high: FloatArray) -> npt.NDArray[np.bool_]:
        """Whether a cell surely lies in the interior: its corner farthest from the origin does."""
        corner = np.maximum(np.abs(low), np.abs(high))
        c = np.abs(self._share(corner))
        rest = corner.copy()
        rest[:, -1] = np.abs(rest[:, -1] - self.shift * c)
        inner: npt.NDArray[np.bool_] = norms(rest) + 0.5 * self.size * c**2 < 0.5 * self.size * self.radius**2 * (1.0 - 1e-9)
        return inner

    def reached(self, beta: FloatArray) -> FloatArray:
        """The boundary's points with the normals of beta; up to a few roundings."""
        n = self.normals(beta)
        c = np.minimum(self.radius, self.shift * np.abs(n[:, -1]) / self.size)
        points = 0.5 * self.size * (self.radius**2 - c**2)[:, None] * n
        points[:, -1] += self.shift * np.copysign(c, n[:, -1])
        return points


@dataclass(frozen=True)
class Sides:
    """What a box reaches: a box."""

    low: FloatArray
    high: FloatArray

    @property
    def ends(self) -> tuple[FloatArray, FloatArray]:
        """The box itself."""
        return self.low, self.high

    def normals(self, beta: FloatArray) -> FloatArray:
        """No half-space is needed."""
        return np.zeros_like(beta)

    def support(self, n: FloatArray) -> FloatArray:
        """Supremum of n.beta for n = 0."""
        return np.zeros(len(n))

    def inside(self, low: FloatArray, high: FloatArray) -> npt.NDArray[np.bool_]:
        """Whether a cell lies in the interior."""
        inner: npt.NDArray[np.bool_] = np.all((low > self.low) & (high < self.high), axis=1)
        return inner

    def reached(self, beta: FloatArray) -> FloatArray:
        """Points of the set itself."""
        return np.clip(beta, self.low, self.high)


def largest_gradient(
    model: Scalar, reach: Spindle | Sides, cancelled: npt.NDArray[np.int32] | None = None
) -> tuple[float, float] | None:
    """(lower, upper) end of the maximum of |g|; None if the two do not meet within the work allowed, or until it is cancelled."""
    return _Maximum(model, reach).solve(np.zeros(1, dtype=np.int32) if cancelled is None else cancelled)


class _Maximum:
    """The largest |g| over the boundary of a set, from both sides."""

    def __init__(self, model: Scalar, reach: Spindle | Sides) -> None:
        self.model, self.reach = model, reach
        z, n = model.z, len(model.z)
        self.weighted = model.w * model.mass
        lengths = norms(z)
        low, high = reach.ends
        self.farthest = float(norms(np.maximum(np.abs(low), np.abs(high))[None])[0])
        self.signs = np.array(list(itertools.product((-1.0, 1.0), repeat=z.shape[1])))
        # Errors: of z.beta, of p there, of the sums of g (and of the rounded weights and masses), and of H.
        self.blur = gamma(z.shape[1] + 8) * lengths * self.farthest + TINY
        p_error = 0.25 * self.blur + 2.0**-45
        self.size = float((model.w * (model.mass + np.abs(model.y)) * lengths).sum()) * (1.0 + gamma(n + 80))
        self.bend = 0.25 * float((self.weighted * lengths**2).sum()) * (1.0 + gamma(n + 80))
        self.g_error = float((self.weighted * lengths * p_error).sum()) * (1.0 + gamma(n + 80)) + gamma(n + 96) * self.size
        self.h_error = float((self.weighted * lengths**2 * p_error).sum()) * (1.0 + gamma(n + 80)) + gamma(n + 96) * self.bend
        self.cells = 0

    def solve(self, cancelled: npt.NDArray[np.int32]) -> tuple[float, float] | None:
        if not max(self.farthest, self.size, self.bend) <= _LARGEST:
            return None
        n, dim = self.model.z.shape
        most = min(_MAX_CELLS, int(_MAX_WORK / (n * (dim * dim + 64.0))))
        low, high = (end[None] for end in self.reach.ends)

        def enough(best: float) -> float:
            return best * (1.0 + _TOLERANCE) + 8.0 * self.g_error

        bounds, tops = self._above(low, high)
        best = max(0.0, self._attained(tops))
        while len(bounds):
            keep = bounds > enough(best)
            low, high, bounds = low[keep], high[keep], bounds[keep]
            if not len(bounds):
                break
            if self.cells >= most or cancelled[0]:
                return None
            order = np.argsort(-bounds, kind="stable")
            chosen, rest = order[:_ROUND], order[_ROUND:]
            first, second = self._halves(low[chosen], high[chosen])
            found, tops = self._above(first, second)
            kept = found > -math.inf
            best = max(best, self._attained(tops[kept][np.argsort(-found[kept])[:8]]))
            low, high = np.concatenate([low[rest], first[kept]]), np.concatenate([high[rest], second[kept]])
            bounds = np.concatenate([bounds[rest], found[kept]])
        return best, enough(best) * (1.0 + gamma(8))

    def _halves(self, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
        rows = np.arange(len(low))
        widths = (high - low) * np.sqrt((self.weighted[:, None] * self.model.z**2).sum(axis=0) + TINY)
        sides = widths.argmax(axis=1)
        middle = 0.5 * (low[rows, sides] + high[rows, sides])
        first_high, second_low = high.copy(), low.copy()
        first_high[rows, sides] = second_low[rows, sides] = middle
        return np.concatenate([low, second_low]), np.concatenate([first_high, high])

    def _attained(self, beta: FloatArray) -> float:
        """A lower bound of the maximum: |g| at points of the set near beta, less all errors."""
        if not len(beta):
            return 0.0
        points = self.reach.reached(beta)
        g = self._gradient(points @ self.model.z.T)
        # The points are in the set up to roundings, by which g moves no more than this.
        moved = gamma(128) * self.bend * self.farthest
        return float(np.sqrt((g**2).sum(axis=1)).max()) * (1.0 - gamma(64)) - self.g_error * (1.0 + gamma(8)) - moved

    def _gradient(self, s: FloatArray) -> FloatArray:
        model = self.model
        p = derivative_range("sigmoid", 1.0, 0, Interval.point(s)).middle
        gradient: FloatArray = (model.w * (model.mass * p - model.y)) @ model.z
        return gradient

    def _above(self, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(upper bounds of |g| over the cells, points where the linear model is largest); -inf for cells that do not count."""
        bounds, tops = np.full(len(low), -math.inf), 0.5 * (low + high)
        places = np.flatnonzero(~self.reach.inside(low, high))
        step = max(1, int(_NUMBERS / (len(self.model.z) + 4 ** self.model.z.shape[1])))
        for begin in range(0, len(places), step):
            part = places[begin : begin + step]
            bounds[part], tops[part] = self._above_part(low[part], high[part])
        self.cells += len(places)
        return bounds, tops

    def _above_part(self, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
        z, dim = self.model.z, low.shape[1]
        centre = np.clip(0.5 * low + 0.5 * high, low, high)
        half = up(np.maximum(high - centre, centre - low))
        length = norms(half)
        s = centre @ z.T
        reach = (half @ np.abs(z).T) * (1.0 + gamma(dim + 8)) + self.blur
        over = Interval(down(s - reach), up(s + reach))
        # With p in an interval: |mean (M p - y) z| from the middle and the radius.
        p = derivative_range("sigmoid", 1.0, 0, over)
        sizes = self.weighted * norms(z)
        middle = (self.model.w * (self.model.mass * p.middle - self.model.y)) @ z
        rounding = gamma(2 * len(z) + 4 * dim + 128) * (self.size + self.bend * length) + self.g_error
        plain = norms(middle) + (p.radius @ sizes) * (1.0 + gamma(len(z) + 8)) + rounding
        # The linear model.
        at = derivative_range("sigmoid", 1.0, 0, Interval.point(s)).middle
        g = (self.model.w * (self.model.mass * at - self.model.y)) @ z
        hessian = np.einsum("cn,nk,nl->ckl", self.weighted * at * (1.0 - at), z, z, optimize=True)
        third = derivative_range("sigmoid", 1.0, 2, over).magnitude
        rest = 0.5 * ((third * reach**2) @ sizes) * (1.0 + gamma(len(z) + 32))
        deltas, there = self._vertices(centre, half)
        values = np.linalg.norm(g[:, None] + deltas @ hessian, axis=2)
        values[~there] = -math.inf
        best = values.argmax(axis=1)
        rows = np.arange(len(centre))
        largest = values[rows, best]
        bound = np.minimum(plain, largest * (1.0 + gamma(64)) + rest + rounding + self.h_error * length)
        bound = np.where(there.any(axis=1), bound * (1.0 + gamma(8)) + TINY, -math.inf)
        return bound, centre + deltas[rows, best]

    def _vertices(self, centre: FloatArray, half: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """(deltas (C, V, D), which of them count): vertices of the cells, cut by half-spaces that contain the set."""
        corners = self.signs * half[:, None]
        normal = self.reach.normals(centre)
        if not normal.any():
            return corners, np.ones(corners.shape[:2], dtype=bool)
        size = np.abs(centre) + half
        slack = 1e-13 * (np.abs(normal) * size).sum(axis=1)
        room = self.reach.support(normal) - (normal * centre).sum(axis=1) + slack
        height = (corners * normal[:, None]).sum(axis=2)
        inside = height <= room[:, None]
        deltas, there = [corners], [inside]
        for k in range(centre.shape[1]):
            # From an outer corner along the k-th edge to the plane, and a little further.
            other = height - 2.0 * normal[:, k : k + 1] * corners[:, :, k]
            crossing = ~inside & (other <= room[:, None])
            with np.errstate(divide="ignore", invalid="ignore"):
                share = (room[:, None] - other) / (height - other) * (1.0 + 1e-9) + 1e-12
            moved = corners.copy()
            moved[:, :, k] = corners[:, :, k] * np.where(crossing, -1.0 + 2.0 * np.minimum(1.0, share), 1.0)
            deltas.append(moved)
            there.append(crossing)
        return np.concatenate(deltas, axis=1), np.concatenate(there, axis=1)
