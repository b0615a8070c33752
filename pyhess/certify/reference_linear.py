"""The closed forms for two-layer linear networks proved again, that of the squared error here; for checking certificates.

With identity activations f = B z + c, B = sum_j v_j w_j' in effective parameters, and the residual part of the Hessian is block
diagonal with blocks ku kv [0, G'; G, 0], G = B S + c m' - C the loss's gradient in B,

    S = mean z z',    m = mean z,    C = mean y z',

so psi >= -ku kv max |G|_2, a convex function of (B, c).

    box     all units with the same ranges: B lies in the convex hull of (number of units) v w', v, w and c corners, and so it is
            enough that limit² I - G G' is positive definite at every corner.
    ball    |B|_* <= ku kv (R² - g²)/2 for |c| = kv g, and p'Gq for unit vectors is at most
                F = ku kv (R² - g²)/2 |S q| + |C q| + kv g |m.q|.
            For near <= g <= far, R² - g² <= R² + h² - 2 h g for any h, which is linear in g, so its ends count; there
            2 sqrt(x) <= x/t + t makes each term a quadratic form in q, and it is enough that
                (2 limit - sum t) I - a² S²/t_1 - C'C/t_2 - b² m m'/t_3
            is positive definite for some t > 0. Intervals of g on which it is not are cut in two.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from time import monotonic

import numpy as np
import numpy.typing as npt

from .reference_hessian import Problem
from .reference_interval import Range, Wide, wide
from .reference_linear_convex import one_number, prove_convex
from .reference_tests import positive_pivots

FloatArray = npt.NDArray[np.float64]

#: Corners looked at in one go, and at most; intervals of g at most.
_BATCH, _CORNERS, _INTERVALS = 4096, 2**20, 4000
_GOLDEN, _WIDEST, _SEARCH = 0.6180339887498949, 30.0, 60


def prove_linear(
    problem: Problem, region: tuple[Wide, Wide] | tuple[Wide, float], claim: float, deadline: float
) -> tuple[bool, str]:
    """Whether psi >= claim is proved over a box (low, high) or a ball (centre, radius), and what was done."""
    known = problem.loss == "squared_error" or one_number(problem)
    if problem.layers != 2 or problem.activations != ("identity",) or not known:
        return False, "the closed forms known here are those of two-layer linear networks, with two classes at most"
    if claim >= 0.0:
        return False, "the closed form is never positive"
    moments = _Moments(problem)
    limit = Range(wide(-claim)) / (problem.scale[0] * problem.scale[1])
    if isinstance(region[1], float) and np.any(region[0] != 0.0):
        return False, "the closed form is known for balls around zero"
    if problem.loss != "squared_error":
        return prove_convex(problem, region, limit, deadline)
    if isinstance(region[1], float):
        return _ball(problem, moments, region[1], limit.lo, deadline)
    return _box(problem, moments, region[0], region[1], limit, deadline)


class _Moments:
    """S (D, D), m (D,) and C (K, D)."""

    def __init__(self, problem: Problem) -> None:
        z = problem.x
        if problem.bias:
            z = np.concatenate([z, wide(np.ones((len(z), 1)))], axis=1)
        weighted = Range(z) * problem.mass[:, None]
        self.s = (weighted[:, :, None] * Range(z)[:, None, :]).sum(0)
        self.mean = weighted.sum(0)
        self.c = (Range(problem.y)[:, :, None] * weighted[:, None, :]).sum(0)


def _box(problem: Problem, moments: _Moments, low: Wide, high: Wide, limit: Range, deadline: float) -> tuple[bool, str]:
    d, m, outputs = problem.widths
    w_at, v_at = problem.weight_at
    biases = [[problem.bias_at[0] + j] if problem.bias else [] for j in range(m)]
    places = [[*(w_at + d * j + np.arange(d)), *biases[j], *(v_at + m * np.arange(outputs) + j)] for j in range(m)]
    if not all((low[row] == low[places[0]]).all() and (high[row] == high[places[0]]).all() for row in places):
        return False, "the closed form is known for boxes with the same ranges for all hidden units"
    row = places[0] + (list(problem.bias_at[1] + np.arange(outputs)) if problem.bias else [])
    ends = [sorted({float(low[p]), float(high[p])}) for p in row]
    count = int(np.prod([len(e) for e in ends], dtype=float))
    if count > _CORNERS:
        return False, f"too large for the independent check: {count} corners; allowed are {_CORNERS}"
    dim = len(row) - outputs * (2 if problem.bias else 1)
    product = problem.scale[0] * problem.scale[1] * Range(wide(float(m)))
    corners = itertools.product(*ends)
    while batch := list(itertools.islice(corners, _BATCH)):
        if monotonic() > deadline:
            return False, f"time ran out before {count} corners were looked at"
        corner = wide(np.array(batch))
        w, v, c = Range(corner[:, :dim]), Range(corner[:, dim : dim + outputs]), Range(corner[:, dim + outputs :])
        image = (w[:, None, :] * moments.s[None]).sum(-1)
        g = v[:, :, None] * image[:, None, :] * product - moments.c[None]
        if problem.bias:
            g = g + (c * problem.scale[1])[:, :, None] * moments.mean[None, None, :]
        if outputs > g.lo.shape[2]:
            g = Range(np.swapaxes(g.lo, 1, 2), np.swapaxes(g.hi, 1, 2))
        gram = (g[:, :, None, :] * g[:, None, :, :]).sum(-1)
        if not positive_pivots(-gram, -limit.square().lo).all():
            return False, "the gradient of the linear model's loss is longer at a corner of the box"
    return True, f"the gradient of the linear model's loss at {count} corners of the box"


def _ball(problem: Problem, moments: _Moments, radius: float, limit: Wide, deadline: float) -> tuple[bool, str]:
    sides = [moments.s, moments.c]
    squares = [_gram(side) for side in sides]
    if problem.bias:
        squares.append(moments.mean[:, None] * moments.mean[None, :])
    rough = [(0.5 * (square.lo + square.hi)).astype(np.float64) for square in squares]
    both, last = problem.scale[0] * problem.scale[1], problem.scale[1]
    r = Range(wide(radius))

    def holds(g: float, h: float) -> bool:
        first = both * Range(wide(0.5)) * (r.square() + Range(wide(h)).square() - Range(wide(2.0 * h)) * Range(wide(g)))
        factors = [Range(np.maximum(first.hi, wide(0.0))), Range(wide(1.0)), last * Range(wide(g))][: len(squares)]
        sizes = np.array([float(factor.hi) for factor in factors])
        forms = [size**2 * square for size, square in zip(sizes, rough, strict=True)]
        largest, shares = _ascent(forms)
        if largest > float(limit) * (1.0 + 1e-12):
            return False
        return proved(shares, factors, sizes) or proved(_multipliers(forms), factors, sizes)

    def proved(t: FloatArray, factors: list[Range], sizes: FloatArray) -> bool:
        used = [k for k in range(len(squares)) if rough[k].any() and sizes[k] > 0.0]
        zero = [k for k in range(len(squares)) if k not in used and squares[k].size().any() and sizes[k] > 0.0]
        if zero:
            return False
        total, room = -Range(np.zeros(moments.s.lo.shape)), Range(wide(2.0)) * Range(limit)
        for k in used:
            weight = Range(wide(t[k]))
            total = total - squares[k] * (factors[k].square() / weight)
            room = room - weight
        return bool(positive_pivots(total[None], -room.lo)[0])

    work = [(0.0, radius if problem.bias else 0.0)]
    count = 0
    while work:
        near, far = work.pop()
        count += 1
        h = 0.5 * (near + far)
        if holds(near, h) and (far == near or holds(far, h)):
            continue
        if monotonic() > deadline or count > _INTERVALS or not near < h < far:
            return False, f"sharing the radius with the output bias is not proved, after {count} intervals"
        work += [(near, h), (h, far)]
    how = f", {count} intervals of the output bias" if problem.bias else ""
    return True, f"the gradient of the linear model's loss, as a form in the direction of its rows{how}"


def _gram(side: Range) -> Range:
    return (side[:, :, None] * side[:, None, :]).sum(0)


def _ascent(forms: list[FloatArray]) -> tuple[float, FloatArray]:
    """A large value of sum (q'M_k q)^1/2 over |q| = 1, and its terms: the best t, if it is the largest and nothing is lost."""
    best, shares = -np.inf, np.ones(len(forms))
    starts = [np.linalg.eigh(form)[1][:, -1] for form in [*forms, np.sum(forms, axis=0)]]
    for start in starts:
        q, last = start, -np.inf
        for _ in range(500):
            terms = np.sqrt(np.maximum([q @ form @ q for form in forms], 1e-300))
            value = float(terms.sum())
            if value > best:
                best, shares = value, terms
            if value <= last * (1.0 + 1e-16):
                break
            last = value
            # The function is convex in q.
            q = np.sum([form @ q / term for form, term in zip(forms, terms, strict=True)], axis=0)
            q = q / max(float(np.linalg.norm(q)), 1e-300)
    return best, np.maximum(shares, 1e-9 * max(best, 1e-300))


def _multipliers(squares: list[FloatArray]) -> FloatArray:
    """T > 0 that make the largest eigenvalue of sum M_k/t_k, plus sum t, small: the logarithms of t_k/t_1 by golden sections.

    The best scale of all t is known; what is left is convex in the logarithms, and so is its minimum over one of them.
    """
    t = np.ones(len(squares))
    used = [k for k, square in enumerate(squares) if square.any()]
    if not used:
        return t

    def value(logs: list[float]) -> float:
        shares = np.exp([0.0, *logs])
        matrix = sum((squares[k] / share for k, share in zip(used, shares, strict=True)), np.zeros_like(squares[0]))
        return 2.0 * float(np.sqrt(max(float(np.linalg.eigvalsh(matrix)[-1]), 0.0) * shares.sum()))

    logs = _least(value, len(used) - 1)
    shares = np.exp([0.0, *logs])
    matrix = sum((squares[k] / share for k, share in zip(used, shares, strict=True)), np.zeros_like(squares[0]))
    scale = np.sqrt(max(float(np.linalg.eigvalsh(matrix)[-1]), 1e-300) / shares.sum())
    t[used] = scale * shares
    return t


def _least(function: Callable[[list[float]], float], count: int) -> list[float]:
    """A minimiser over [-30, 30]^count of a convex function."""
    if count == 0:
        return []

    def best(x: float) -> tuple[float, list[float]]:
        rest = _least(lambda others: function([x, *others]), count - 1)
        return function([x, *rest]), rest

    low, high = -_WIDEST, _WIDEST
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_a, at_b = best(a), best(b)
    for _ in range(_SEARCH):
        if at_a[0] <= at_b[0]:
            high, b, at_b = b, a, at_a
            a = high - _GOLDEN * (high - low)
            at_a = best(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + _GOLDEN * (high - low)
            at_b = best(b)
    return [a, *at_a[1]]
