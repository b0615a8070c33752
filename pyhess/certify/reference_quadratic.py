"""Two hidden layers: the residual part as a quadratic form in a direction's units, derived anew for checking certificates.

Let a direction have the rows v_k (bias included) in the first layer, the rows u_j and biases c_j in the second and the output
weights o_oj; z_ik = v_k . (x_i, 1) and sdot_ij = u_j . a_i + c_j + sum_k W_jk g_ik z_ik, g = phi'(s) of the first layer. By (1),

    -v'Rv = mean_i [ - sum_k bar_ik phi''_ik z_ik² - 2 sum_jk delta_ij g_ik u_jk z_ik - 2 sum_oj r_io phi'_ij o_oj sdot_ij
                     - sum_j (bar phi'')_ij sdot_ij² ].

Let C be W at the middle of the part, m ± n the range of g and S_ij = u_j . a^c_i + c_j + sum_k C_jk m_ik z_ik. The rest of sdot
is D1 + D2 + D3 with, for whatever weights w_ij >= 0,

    mean w D1² <= sum_j |u_j|² d_1² eigval_max(mean w_ij G_i² (x, 1)(x, 1)'),    |a - a^c| <= G |change of (W, b) times (x, 1)|,
    mean w D2² <= d_2² mean sum_k (max_j w_ij) sup g_ik² z_ik²,                  |W - C| <= d_2 in the Frobenius norm,
    mean w D3² <= mean sum_kl e_l/e_k |sum_j C_jk w_ij C_jl| n_ik n_il z_ik²     for any e > 0.

(S + D1 + D2 + D3)² <= S²/p_0 + D1²/p_1 + D2²/p_2 + D3²/p_3 where the p add up to one at most, and twice a product is at most
a²/t + t b². Floating point looks for p, t and e; that the form these give is less than -claim |v|² is shown by positive pivots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .reference_hessian import Cells, Pass, Problem
from .reference_interval import Range, Wide, matmul, middle_and_radius, up, wide, zeros
from .reference_middles import extended, middles, second_moment
from .reference_tests import positive_pivots

Floats = npt.NDArray[np.float64]

#: Most parameters.
_PARAMS = 64
#: Steps towards good numbers, those before which e is chosen anew, and steps towards e.
_STEPS, _ANEW, _BALANCING = 80, (0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 28, 40, 55), 8
#: How far from the top a step's vectors may be, times the number of steps, in parts of the top: two searches.
_NEAR = (0.4, 0.1)
_ONE = Range(wide(1.0))


def quadratic_applies(problem: Problem) -> bool:
    """Whether a certificate may have been found with this form."""
    return problem.layers == 3 and problem.num_params <= _PARAMS


def quadratic_proves(problem: Problem, cells: Cells, along: Pass, claim: float) -> bool:
    """Whether the form shows of one part (B = 1), enclosed in ``along``, that no Hessian has an eigenvalue below the claim."""
    pieces = _Pieces(problem, cells, along)
    if not all(np.isfinite(x.size()).all() for x in pieces.all()):
        return False
    numbers = _guess(pieces)
    matrix = pieces.matrix(numbers)
    return bool(positive_pivots((-matrix)[None], claim)[0])


@dataclass(frozen=True)
class _Numbers:
    """p (4,), e for the curved terms and for the others (m1,), t of every pair."""

    p: Floats
    e: tuple[Floats, Floats]
    t: Floats


class _Pieces:
    """Matrices (Q, Q) in (v, u, c, o): ``fixed``, ``curved`` (S², D1², D2²), ``pairs`` (a², b²); and the D3² of both kinds."""

    def __init__(self, problem: Problem, cells: Cells, along: Pass) -> None:
        below, units, outputs = problem.widths[1:]
        plain = extended(problem)
        first, second, third = problem.scale
        inputs, self._fan_in = Range(plain) * first, plain.shape[1]
        self._below = below
        row = below + int(problem.bias)
        self._size = below * self._fan_in + units * row + outputs * units
        start = below * self._fan_in
        u = [start + j * row + np.arange(below) for j in range(units)]
        o = [[start + units * row + k * units + j for k in range(outputs)] for j in range(units)]
        v = [slice(k * self._fan_in, (k + 1) * self._fan_in) for k in range(below)]
        middle = middles(problem, cells, along)
        weight = Range(middle_and_radius(cells.w[1][0])[0])
        m, n = middle_and_radius(along.slope[0])
        mass = problem.mass[:, None]

        def block(weights: Range) -> Range:
            """Of sum_i w_i z_i²."""
            return matmul(_turned(inputs * weights[:, None]), inputs)

        s = []
        for j in range(units):
            one = Range(*(zeros((len(plain), self._size)) for _ in range(2)))
            for k in range(below):
                _put(one, (slice(None), v[k]), inputs * (weight[j, k] * Range(m[:, k]))[:, None])
            _put(one, (slice(None), u[j]), middle.a[0] * second)
            if problem.bias:
                _put(one, (slice(None), u[j][-1] + 1), Range(second.lo + zeros(len(plain)), second.hi + zeros(len(plain))))
            s.append(one)
        self.fixed = self._blank()
        self.pairs: list[tuple[Range, Range]] = []
        for k in range(below):
            _add(self.fixed, (v[k], v[k]), block(-Range(along.curved[0].lo)[:, k] * problem.mass))
        for j in range(units):
            for k in range(below):
                middle_jk, radius = middle_and_radius((along.delta[1][:, j] * along.slope[0][:, k]) * problem.mass)
                _add_both(self.fixed, u[j][k], v[k], -(inputs * Range(middle_jk)[:, None]).sum(0) * second)
                a, b = self._blank(), self._blank()
                _put(a, (u[j][k], u[j][k]), Range(radius).sum(0) * second.square())
                _put(b, (v[k], v[k]), block(Range(radius)))
                self.pairs.append((a, b))
        size = zeros((len(plain), units))
        for j in range(units):
            squares, total = self._blank(), zeros(len(plain))
            for k in range(outputs):
                middle_kj, radius = middle_and_radius((along.delta[2][:, k] * along.slope[1][:, j]) * problem.mass)
                line = -(s[j] * Range(middle_kj)[:, None]).sum(0) * third
                _add_both(self.fixed, o[j][k], slice(None), line)
                _put(squares, (o[j][k], o[j][k]), Range(radius).sum(0) * third.square())
                total = up(total + radius)
                size[:, j] = up(size[:, j] + up(np.abs(middle_kj) + radius))
            self.pairs.append((squares, matmul(_turned(s[j] * Range(total)[:, None]), s[j])))
        # |r phi'| times what is not known of sdot: with D1 unit by unit, with D2 and with D3 for all units.
        known = np.maximum(wide(0.0), -along.curved[1].lo)
        weights = Range(known) * mass
        all_outputs = self._blank()
        for j in range(units):
            own = self._blank()
            for k in range(outputs):
                there = (along.delta[2][:, k] * along.slope[1][:, j] * problem.mass).size()
                for target in (own, all_outputs):
                    _put(target, (o[j][k], o[j][k]), Range(there).sum(0) * third.square())
            self.pairs.append((own, self._first(problem, u, second, middle, Range(size), [j])))
        self.pairs.append((all_outputs, self._second(v, middle, along, Range(size), block)))
        self._outputs = all_outputs
        self.curved = [
            sum((matmul(_turned(s[j] * weights[:, j][:, None]), s[j]) for j in range(1, units)),
                matmul(_turned(s[0] * weights[:, 0][:, None]), s[0])),
            self._first(problem, u, second, middle, weights, range(units)),
            self._second(v, middle, along, weights, block),
        ]  # fmt: skip
        self._third = [self._steep(weight, n, c, block) for c in (weights, Range(size))]

    def all(self) -> list[Range]:
        """Everything there is."""
        return [self.fixed, *self.curved, *(x for pair in self.pairs for x in pair), *self._third]

    def _blank(self) -> Range:
        return Range(zeros((self._size, self._size)), zeros((self._size, self._size)))

    def _first(self, problem: Problem, u: Any, second: Range, middle: Any, c: Range, chosen: Any) -> Range:
        out = self._blank()
        steep = Range(middle.steepest[0]).square()
        for j in chosen:
            top = Range(second_moment(extended(problem), c[:, j] * steep)) * Range(middle.distance[0]).square()
            for at in u[j]:
                _put(out, (at, at), top * second.square())
        return out

    def _second(self, v: Any, middle: Any, along: Pass, c: Range, block: Any) -> Range:
        out, largest = self._blank(), Range(c.hi.max(axis=1))
        for k in range(self._below):
            found = block(largest * Range(along.slope[0].size()[:, k]).square())
            _put(out, (v[k], v[k]), found * Range(middle.distance[1]).square())
        return out

    def _steep(self, weight: Range, n: Wide, c: Range, block: Any) -> Range:
        """Of D3² without e (m1, m1, d, d)."""
        count = self._below
        out = Range(*(zeros((count, count, self._fan_in, self._fan_in)) for _ in range(2)))
        for k in range(count):
            for other in range(count):
                between = (c * (weight[:, k] * weight[:, other])[None]).sum(1).size()
                _put(out, (k, other), block(Range(between) * Range(n[:, k]) * Range(n[:, other])))
        return out

    def _with(self, which: int, e: Floats) -> Range:
        """D3² with e."""
        out = self._blank()
        for k in range(self._below):
            place = slice(k * self._fan_in, (k + 1) * self._fan_in)
            for other in range(self._below):
                ratio = Range(wide(e[other])) / Range(wide(e[k]))
                _add(out, (place, place), self._third[which][k, other] * ratio)
        return out

    def matrix(self, numbers: _Numbers) -> Range:
        """The form for these p, e and t."""
        p = [Range(wide(x)) for x in numbers.p]
        total = (p[0] + p[1]) + (p[2] + p[3])
        pieces = [*self.curved, self._with(0, numbers.e[0])]
        matrix = self.fixed
        for share, piece in zip(p, pieces, strict=True):
            matrix = matrix + piece * (total / share)
        pairs = [*self.pairs, (self._outputs, self._with(1, numbers.e[1]))]
        for t, (a, b) in zip(numbers.t, pairs, strict=True):
            matrix = matrix + a * (_ONE / Range(wide(t))) + b * Range(wide(t))
        lo, hi = np.minimum(matrix.lo, matrix.lo.T), np.maximum(matrix.hi, matrix.hi.T)
        return Range(lo, hi)

    def in_floats(self, e: tuple[Floats, Floats]) -> tuple[Floats, list[Floats], list[tuple[Floats, Floats]]]:
        """(fixed, curved, pairs) with these e."""
        curved = [_float(x) for x in (*self.curved, self._with(0, e[0]))]
        pairs = [(_float(a), _float(b)) for a, b in (*self.pairs, (self._outputs, self._with(1, e[1])))]
        return _float(self.fixed), curved, pairs

    def weights(self, density: Floats) -> tuple[Floats, Floats]:
        """Good e for a density."""
        found = []
        for which in range(2):
            share = np.array([[self._of_v(_float(self._third[which][k, i]), density, k) for i in range(self._below)]
                              for k in range(self._below)])  # fmt: skip
            share = np.maximum(share, 1e-12 * share.max() + 1e-120)
            e = np.sqrt(np.diag(share))
            for _ in range(_BALANCING):
                e = np.sqrt((share @ e) / (share.T @ (1.0 / e)))
            found.append(np.maximum(e / e.max(), 1e-6))
        return found[0], found[1]

    def _of_v(self, form: Floats, density: Floats, k: int) -> float:
        place = slice(k * self._fan_in, (k + 1) * self._fan_in)
        return float((form * density[place, place]).sum())


def _guess(pieces: _Pieces) -> _Numbers:
    """The best numbers of the densities that steps of Frank and Wolfe lead to."""
    return min((_search(pieces, near) for near in _NEAR), key=lambda found: found[0])[1]


def _search(pieces: _Pieces, near: float) -> tuple[float, _Numbers]:
    """(largest eigenvalue, numbers)."""
    size = len(pieces.fixed.lo)
    density, best, found = np.eye(size) / size, np.inf, None
    for step in range(_STEPS):
        if step in _ANEW:
            e = pieces.weights(density)
            fixed, curved, pairs = pieces.in_floats(e)
            stack = np.array(curved)
            ones, others = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
        roots = np.sqrt(np.maximum((stack * density).sum(axis=(1, 2)), 0.0)) + 1e-140
        p = np.maximum(roots / roots.sum(), 1e-9)
        a, b = (np.maximum((x * density).sum(axis=(1, 2)), 1e-280) for x in (ones, others))
        t = np.clip(np.sqrt(a / b), 1e-6, 1e6)
        form = fixed + np.tensordot(p.sum() / p, stack, 1) + np.tensordot(1.0 / t, ones, 1) + np.tensordot(t, others, 1)
        eigvals, vectors = np.linalg.eigh(form)
        if found is None or eigvals[-1] < best:
            best, found = float(eigvals[-1]), _Numbers(p, e, t)
        # Vectors near the top together lead there faster than one by one.
        share = 2.0 / (step + 3.0)
        weights = np.exp((eigvals - eigvals[-1]) * (step + 4.0) / (near * abs(eigvals[-1]) + 1e-200))
        density = (1.0 - share) * density + share * (vectors * (weights / weights.sum())) @ vectors.T
    assert found is not None
    return best, found


def _float(x: Range) -> Floats:
    middle = np.asarray(x.hi, dtype=np.float64)
    return 0.5 * (middle + middle.T)


def _turned(x: Range) -> Range:
    return Range(x.lo.T, x.hi.T)


def _put(x: Range, where: Any, value: Range) -> None:
    x.lo[where], x.hi[where] = value.lo, value.hi


def _add(x: Range, where: Any, value: Range) -> None:
    _put(x, where, x[where] + value)


def _add_both(x: Range, row: int, columns: slice, line: Range) -> None:
    """Add a row and the same column."""
    _add(x, (row, columns), line)
    _add(x, (columns, row), line)
