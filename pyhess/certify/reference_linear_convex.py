"""Two-layer linear networks whose loss depends on one number, logistic loss or two classes; for checking certificates.

With identity activations the output f, or f_1 - f_2, is beta.z, beta = ku kv W'v + kv c e_0, where v and c stand for v_1 - v_2
and c_1 - c_2 with two classes. A unit's block of the residual part is ku kv [0, u g'; g u', 0], u = 1 or (1, -1), with
g = mean (M p(beta.z) - y) z, so psi >= -ku kv |u| max |g|. Where |g| is largest in the interior of a set, H g = 0 for the Hessian
H of the linear model's loss, and so g = 0: only boundaries count.

    box     beta lies in the box that interval arithmetic gives: its faces, where all inputs are the same the ends of beta.z;
    ball    |W'v| <= |u| (R² - c²)/2 and c at most |u| times the bias, around zero: beta is in
                C = {ku kv |u| b + kv |u| c e_0 : |b| + c²/2 <= R²/2},
            which is convex and symmetric in every coordinate. Its support function sigma is known.

On a cell around beta, for any n (zero, or normal to the boundary and as long as |g| rises along it),

    |g(beta + d)| <= max over the cell's vertices of (|g + H d| - n.d) + sigma(n) - n.beta + 1/2 mean M sup|p''| (z.d)² |z|,

as n.(beta + d) <= sigma(n) in C. Cells on which that is not small enough are cut.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from time import monotonic

import numpy as np
import numpy.typing as npt

from .reference_hessian import Problem
from .reference_interval import Range, Wide, dot, length, up, wide
from .reference_ranges import logistic_derivative

FloatArray = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

#: Cells in all, numbers of one batch of them, and weights of the linear model at most.
_CELLS, _NUMBERS, _MOST = 200_000, 300_000, 8
_HALF = Range(wide(0.5))


@dataclass(frozen=True)
class Reach:
    """C of a ball: coefficients ku kv |u| and kv |u| (zero without biases), and R."""

    size: Range
    shift: Range
    radius: Range

    def support(self, n: Range) -> Wide:
        """Sigma (B,) for rows n (B, D): the largest a (R² - c²) + b c for 0 <= c <= R."""
        a, b = _HALF * self.size * n.square().sum(-1).root(), self.shift * Range(n[..., -1].size())
        free = a.lo > 0.0
        inside = a * self.radius.square() + _HALF * _HALF * b.square() / Range(
            np.where(free, a.lo, 1.0), np.where(free, a.hi, 1.0)
        )
        steep = b.lo >= (Range(wide(2.0)) * a * self.radius).hi
        flat = np.where(self.shift.hi == 0.0, (a * self.radius.square()).hi, np.inf)
        return wide(np.where(steep, (b * self.radius).hi, np.where(free, inside.hi, flat)))

    def offsets(self, beta: FloatArray) -> FloatArray:
        """For rows beta >= 0 a c that makes |beta - shift c e_0| + size c²/2 small."""
        size, shift, radius = (float(x.hi) for x in (self.size, self.shift, self.radius))
        low, high = np.zeros(len(beta)), np.full(len(beta), radius)
        for _ in range(60):
            c = 0.5 * (low + high)
            left = beta[:, -1] - shift * c
            falling = size * c * np.sqrt((beta[:, :-1] ** 2).sum(axis=1) + left**2) < shift * left
            low, high = np.where(falling, c, low), np.where(falling, high, c)
        return low if shift > 0.0 else np.zeros(len(beta))

    def interior(self, low: FloatArray, high: FloatArray) -> Flags:
        """Whether a cell is surely in the interior: its corner farthest from zero is, and so is all that is smaller."""
        corner = np.maximum(np.abs(low), np.abs(high))
        c = Range(wide(self.offsets(corner)))
        place = Range(wide(corner))
        last = place[:, -1] - self.shift * c
        norm = (place[:, :-1].square().sum(1) + last.square()).root()
        return np.asarray((norm + _HALF * self.size * c.square()).hi < (_HALF * self.size * self.radius.square()).lo)

    def normals(self, beta: FloatArray) -> FloatArray:
        """Rows about normal to the boundary next to beta."""
        n = np.abs(beta)
        n[:, -1] -= float(self.shift.hi) * self.offsets(np.abs(beta))
        n = np.copysign(1.0, beta) * n
        return np.asarray(n / np.maximum(np.sqrt((n**2).sum(axis=1)), 1e-300)[:, None])


@dataclass(frozen=True)
class _Model:
    """The linear model's loss: z (n, D), weights times M and times y, and z z'."""

    z: Wide
    risen: Range
    wanted: Range
    outer: Range
    norms: Wide

    @staticmethod
    def of(problem: Problem, z: Wide) -> _Model:
        total = Range(problem.y).sum(1) if problem.widths[2] == 2 else Range(wide(np.ones(len(z))))
        return _Model(
            z, problem.mass * total, problem.mass * Range(problem.y[:, 0]), Range(z)[:, :, None] * Range(z)[:, None, :],
            length(np.abs(z)),
        )  # fmt: skip


def one_number(problem: Problem) -> bool:
    """Whether the loss depends on one number."""
    return problem.loss == "logistic" or (problem.loss == "cross_entropy" and problem.widths[2] == 2)


def prove_convex(
    problem: Problem, region: tuple[Wide, Wide] | tuple[Wide, float], limit: Range, deadline: float
) -> tuple[bool, str]:
    """Whether |u| |g| is nowhere above the limit, over a box (low, high) or a ball around zero (centre, radius)."""
    z = problem.x
    if problem.bias:
        z = np.concatenate([z, wide(np.ones((len(z), 1)))], axis=1)
    size = Range(wide(2.0)).root() if problem.widths[2] == 2 else Range(wide(1.0))
    limit = limit / size
    row = z[0] if bool((z == z[0]).all()) else None
    reach: Reach | None = None
    if isinstance(region[1], float):
        shift = problem.scale[1] * size if problem.bias else Range(wide(0.0))
        reach = Reach(problem.scale[0] * problem.scale[1] * size, shift, Range(wide(region[1])))
        top = reach.support(Range(wide(np.eye(z.shape[1]) if row is None else row[None])))
        ends = Range(-top, top)
    else:
        ends = _box_ends(problem, region[0], region[1], row)
    if row is not None:
        # beta.z is one number, and g is |z| times the gradient in it.
        limit = limit / Range(row).square().sum(0).root()
        z = wide(np.ones((len(z), 1)))
    low = np.nextafter(ends.lo.astype(np.float64), -np.inf)
    high = np.nextafter(ends.hi.astype(np.float64), np.inf)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and bool(limit.lo > 0.0)):
        return False, "the numbers of the closed form are too large or too small"
    if low.size > _MOST:
        return False, f"too large for the independent check: {low.size} weights of the linear model; allowed are {_MOST}"
    search = _Search(_Model.of(problem, z), None if low.size == 1 else reach, limit.lo, deadline)
    return search.run(low, high)


def _box_ends(problem: Problem, low: Wide, high: Wide, row: Wide | None) -> Range:
    """What beta, or beta.z for the one z that all data have, can be."""
    d, m, outputs = problem.widths
    w_at, v_at = problem.weight_at
    b_at, c_at = problem.bias_at
    places = w_at + np.arange(m * d).reshape(m, d)
    if problem.bias:
        places = np.concatenate([places, b_at + np.arange(m)[:, None]], axis=1)
    incoming = Range(low[places], high[places])
    if row is not None:
        incoming = (incoming * Range(row)[None]).sum(1)[:, None]
    rows = v_at + np.arange(m * outputs).reshape(outputs, m)
    v = [Range(low[p], high[p]) for p in rows]
    outgoing = v[0] if outputs == 1 else v[0] - v[1]
    beta = (incoming * outgoing[:, None]).sum(0) * problem.scale[0] * problem.scale[1]
    if not problem.bias:
        return beta
    c = [Range(low[c_at + k], high[c_at + k]) for k in range(outputs)]
    offset = (c[0] if outputs == 1 else c[0] - c[1]) * problem.scale[1]
    last = beta[-1] + offset
    return Range(np.append(beta.lo[:-1], last.lo), np.append(beta.hi[:-1], last.hi))


class _Search:
    """Cuts the boundary until |g| is proved to be small enough on all cells."""

    def __init__(self, model: _Model, reach: Reach | None, limit: Wide, deadline: float) -> None:
        self._model, self._reach, self._limit, self._deadline = model, reach, limit, deadline
        dim = model.z.shape[1]
        self._signs = wide(np.array(list(itertools.product((-1.0, 1.0), repeat=dim))))
        z, weights = model.z.astype(np.float64), model.risen.hi.astype(np.float64)
        self._spread = np.sqrt((weights[:, None] * z**2).sum(axis=0)) + 1e-300

    def run(self, low: FloatArray, high: FloatArray) -> tuple[bool, str]:
        count, batch = 0, max(1, _NUMBERS // (len(self._model.z) * low.size**2 + (low.size << low.size)))
        cells = np.stack([low, high])[None] if self._reach is not None else _faces(low, high)
        work = [cells]
        while work:
            if monotonic() > self._deadline or count > _CELLS:
                return False, f"not proved in time, after {count} cells of the linear model's weights"
            cells = work.pop()
            cells, more = cells[:batch], cells[batch:]
            if len(more):
                work.append(more)
            if self._reach is not None:
                cells = cells[~self._reach.interior(cells[:, 0], cells[:, 1])]
            if not len(cells):
                continue
            count += len(cells)
            proved, missed = self._test(cells)
            if missed:
                return False, "the gradient of the linear model's loss is longer at a point of the set it is looked at on"
            if not proved.all():
                halves = self._halves(cells[~proved])
                if halves is None:
                    return False, f"a cell of the linear model's weights is too small to be cut, after {count}"
                work.append(halves)
        return True, f"the gradient of the linear model's loss on {count} cells of the boundary of what its weights can be"

    def _test(self, cells: FloatArray) -> tuple[Flags, bool]:
        """Which cells are proved, and whether a point of the set has a longer gradient."""
        model, limit = self._model, self._limit
        middle = np.clip(0.5 * cells[:, 0] + 0.5 * cells[:, 1], cells[:, 0], cells[:, 1])
        half = np.maximum(up(wide(cells[:, 1]) - wide(middle)), up(wide(middle) - wide(cells[:, 0])))
        centre, z = Range(wide(middle)), Range(model.z)
        s = dot(centre[:, None, :], z[None], 2)
        ds = dot(Range(half)[:, None, :], Range(np.abs(model.z))[None], 2).hi
        over = s + Range(-ds, ds)
        chance, slope = logistic_derivative(0, s), logistic_derivative(1, s)
        plain = dot((model.risen[None] * logistic_derivative(0, over) - model.wanted[None])[:, :, None], z[None], 1)
        proved = length(plain.size()) <= limit
        g = dot((model.risen[None] * chance - model.wanted[None])[:, :, None], z[None], 1)
        hessian = dot((model.risen[None] * slope)[:, :, None, None], model.outer[None], 1)
        bend = logistic_derivative(2, over).size()
        rest = dot(model.risen[None] * Range(bend) * Range(ds).square(), (_HALF * Range(model.norms))[None], 1).hi
        steps = Range(self._signs)[None] * Range(half)[:, None, :]
        moved = g[:, None, :] + dot(hessian[:, None], steps[:, :, None, :], 3)
        sizes = length(moved.size())
        proved |= up(sizes.max(axis=1) + rest) <= limit
        rough, turn = (0.5 * (g.lo + g.hi)).astype(np.float64), (0.5 * (hessian.lo + hessian.hi)).astype(np.float64)
        norm = np.sqrt((rough**2).sum(axis=1))
        missed = norm > float(limit) * (1.0 + 1e-12)
        if self._reach is None:
            return np.asarray(proved), bool(missed.any())
        normal = self._reach.normals(middle)
        rising = np.einsum("bi,bij,bj->b", rough, turn, normal) / np.maximum(norm, 1e-300)
        n = Range(wide(normal * np.maximum(rising, 0.0)[:, None]))
        room = Range(self._reach.support(n)) - (n * centre).sum(1)
        left = Range(sizes) - (n[:, None, :] * steps).sum(2)
        proved |= up(up(left.hi.max(axis=1) + room.hi) + rest) <= limit
        # Cells beyond the set prove nothing, and need not.
        n = Range(wide(normal))
        nearest = (n * centre).sum(1) - (Range(n.size()) * Range(half)).sum(1)
        proved |= nearest.lo > self._reach.support(n)
        inside = self._reach.interior(middle, middle)
        return np.asarray(proved), bool((missed & inside).any())

    def _halves(self, cells: FloatArray) -> FloatArray | None:
        rows = np.arange(len(cells))
        side = ((cells[:, 1] - cells[:, 0]) * self._spread).argmax(axis=1)
        middle = 0.5 * cells[rows, 0, side] + 0.5 * cells[rows, 1, side]
        if not ((cells[rows, 0, side] < middle) & (middle < cells[rows, 1, side])).all():
            return None
        below, above = cells.copy(), cells.copy()
        below[rows, 1, side] = above[rows, 0, side] = middle
        return np.concatenate([below, above])


def _faces(low: FloatArray, high: FloatArray) -> FloatArray:
    faces = []
    for k, end in itertools.product(range(low.size), (low, high)):
        face = np.stack([low, high])
        face[:, k] = end[k]
        faces.append(face)
    return np.array(faces)
