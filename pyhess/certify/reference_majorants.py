"""Whether one hidden unit's block has no eigenvalue below a number, over cells of its weights; for checking certificates.

With M_0 + sum_m xi_m E_m + (remainders) the block, N >= the remainders and the E_m of a few symbols at most, it is enough that

    M_0 - N + sum of ±E_m over the other symbols, at most `_VERTICES` of them,

are above the number for all signs, as the smallest eigenvalue is concave. In a direction (p, q), y = z.p, for any weights,

    2 |y q| <= tau y² + q²/tau,
    |a y² + 2 b y q| <= n11 y² + 2 n12 y q + n22 q²          where (n11 ∓ a) n22 >= (n12 ∓ b)², n11 > |a|,
    |sum_l xi_l p'E_l p| <= sum_i (nu_i (y_i.p)² + sum_l (x_i'E_l p)²/nu_i)/2 + |I - sum_i y_i x_i'| F |p|²

for |xi| <= 1, any x_i, y_i and nu_i > 0, F² >= sum |E_l|²: p'E_l p is sum_i (p.y_i) (x_i'E_l p) up to the last term.
Floating point only guesses z, tau and so on; what they prove is computed in ranges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .reference_interval import Range, dot, down, up, wide, zeros
from .reference_tests import Flags, positive_pivots
from .reference_unit_block import Block, UnitProblem

FloatArray = npt.NDArray[np.float64]

_VERTICES, _STEPS = 8, 8
#: Bounds farther below the claim, in units of it and after one step, will not reach it.
_FAR = 2.0
#: What keeps a mixture of directions from degenerating, and the nu from zero.
_LITTLE = 1e-9, 1e-6


@dataclass(frozen=True)
class _Guess:
    """Floating-point numbers of the blocks, and what the majorants are made for."""

    middle: FloatArray  # (B, S, S)
    moves: FloatArray  # (B, L, S, S)
    signs: npt.NDArray[np.int64]  # (B, V) symbols whose signs are all tried
    others: npt.NDArray[np.int64]  # (B, L') the other symbols that are alone
    groups: list[npt.NDArray[np.int64]]  # symbols of the balls
    data: tuple[FloatArray, FloatArray, FloatArray, FloatArray]  # the block's remainders

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> _Guess:
        data = self.data[0][rows], self.data[1][rows], self.data[2][rows], self.data[3][rows]
        return _Guess(self.middle[rows], self.moves[rows], self.signs[rows], self.others[rows], self.groups, data)


@dataclass(frozen=True)
class Found:
    """For cells (B,): whether it is proved, and about what can be.

    ``shares`` (B, n, 2 + K) is what s, v_k and t take in the remainders, datum by datum; ``rest`` all that the others take.
    """

    proved: Flags
    value: FloatArray
    shares: FloatArray
    rest: FloatArray


def no_eigenvalue_below(problem: UnitProblem, block: Block, claim: float) -> Found:
    """Whether the block has no eigenvalue below the claim."""
    count = len(block.middle.lo)
    usable: Flags = np.ones(count, dtype=np.bool_)
    for x in (block.middle.size(), block.moves.size(), block.curved, block.mixed, block.pair_a, block.pair_b):
        usable &= np.asarray(np.isfinite(x).reshape(count, -1).all(axis=1))
    guess = _guess(block, usable)
    weight, value = _direction(problem, guess, claim)
    value = np.where(usable, value, -np.inf)
    proved = np.zeros(count, dtype=np.bool_)
    chosen = np.flatnonzero(value >= claim)
    if chosen.size:
        proved[chosen] = _proof(problem, block, guess, chosen, weight[chosen], claim)
    dim, inputs = problem.dim, problem.z.astype(np.float64)
    y2 = np.maximum(np.einsum("nd,bde,ne->bn", inputs, weight[:, :dim, :dim], inputs), 0.0)
    q2 = np.trace(weight[:, dim:, dim:], axis1=1, axis2=2)[:, None]
    mass = problem.mass.hi.astype(np.float64)
    _, _, a, b = guess.data
    yq = np.einsum("nd,bdk->bnk", inputs, weight[:, :dim, dim:])
    rest = (np.abs(a * y2[:, :, None] + 2.0 * b * yq).sum(axis=2) * mass).sum(axis=1)
    rest += np.linalg.norm(np.einsum("blij,bij->bl", guess.moves[:, block.groups >= 0], weight), axis=1)
    return Found(proved, value, block.shares * ((y2 + np.sqrt(y2 * q2)) * mass)[:, :, None], rest)


def _guess(block: Block, usable: Flags) -> _Guess:
    middle = np.where(usable[:, None, None], 0.5 * (block.middle.lo + block.middle.hi), 0.0).astype(np.float64)
    moves = np.where(usable[:, None, None, None], 0.5 * (block.moves.lo + block.moves.hi), 0.0).astype(np.float64)
    alone = np.flatnonzero(block.groups < 0)
    order = alone[np.argsort(-np.linalg.norm(moves[:, alone], axis=(2, 3)), axis=1, kind="stable")]
    balls = [np.flatnonzero(block.groups == code) for code in range(int(block.groups.max(initial=-1)) + 1)]
    data = [x.astype(np.float64) for x in (block.curved, block.mixed, block.pair_a, block.pair_b)]
    return _Guess(middle, moves, order[:, :_VERTICES], order[:, _VERTICES:], balls, (data[0], data[1], data[2], data[3]))


def _direction(problem: UnitProblem, guess: _Guess, claim: float) -> tuple[FloatArray, FloatArray]:
    """A mixture Z (B, S, S) of directions that the majorants serve, and what they seem to prove (B,)."""
    dim, size, count = problem.dim, guess.middle.shape[1], len(guess.middle)
    z = np.linalg.eigh(guess.middle)[1][:, :, 0]
    share = np.r_[np.full(dim, 0.25 / dim), np.full(size - dim, 0.25 / (size - dim))]
    weight = 0.5 * z[:, :, None] * z[:, None, :] + np.diag(share)
    best, best_weight = np.full(count, -np.inf), weight.copy()
    open_ = np.arange(count)
    for step in range(_STEPS):
        own = guess[open_]
        turned = own.moves[np.arange(len(open_))[:, None], own.signs]
        reduced = own.middle - _float_majorant(problem, own, weight)
        signs = np.sign(np.einsum("bi,bvij,bj->bv", z, turned, z))
        reduced = reduced - (np.where(signs >= 0.0, 1.0, -1.0)[:, :, None, None] * turned).sum(axis=1)
        values, vectors = np.linalg.eigh(np.nan_to_num(reduced, nan=0.0, posinf=0.0, neginf=0.0))
        better = values[:, 0] > best[open_]
        best[open_[better]], best_weight[open_[better]] = values[better, 0], weight[better]
        z = vectors[:, :, 0]
        weight = weight + (z[:, :, None] * z[:, None, :] - weight) / (step + 2.0)
        hopeless = claim - (_FAR / (step + 1.0)) * abs(claim)
        left = (best[open_] < claim) & (best[open_] > hopeless)
        open_, z, weight = open_[left], z[left], weight[left]
        if not open_.size:
            break
    return best_weight, best


def _moments(problem: UnitProblem, weight: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """y² (B, n), y q_k and q_k² (B, n, K) in the mixture, kept from degenerating."""
    dim = problem.dim
    z = problem.z.astype(np.float64)
    norm = (z * z).sum(axis=1)
    y2 = np.maximum(np.einsum("nd,bde,ne->bn", z, weight[:, :dim, :dim], z), 1e-6 * norm) + 1e-200
    q2 = np.diagonal(weight[:, dim:, dim:], axis1=1, axis2=2)[:, None, :] + 1e-8
    limit = (1.0 - 1e-6) * np.sqrt(y2[:, :, None] * q2)
    yq = np.clip(np.einsum("nd,bdk->bnk", z, weight[:, :dim, dim:]), -limit, limit)
    return y2, yq, np.broadcast_to(q2, yq.shape)


def _pairs(
    a: FloatArray, b: FloatArray, y2: FloatArray, yq: FloatArray, q2: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """n11, n12, n22 of least n11 y² + 2 n12 y q + n22 q² in the mixture: Z^-1/2 |Z^1/2 G Z^1/2| Z^-1/2 for G = [a, b; b, 0]."""
    det = y2 * q2 - yq * yq
    root = np.sqrt((a * y2 + 2.0 * b * yq) ** 2 + 4.0 * b * b * det)
    root = np.where(root > 0.0, root, 1.0)
    # G Z G + det(G) det(Z) Z^-1 with its sign turned.
    n11 = (a * a * y2 + 2.0 * a * b * yq + 2.0 * b * b * q2) / root
    n12 = (a * b * y2) / root
    n22 = 2.0 * b * b * y2 / root
    straight = b == 0.0
    return np.where(straight, np.abs(a), n11), np.where(straight, 0.0, n12), np.where(straight, 0.0, n22)


def _float_majorant(problem: UnitProblem, guess: _Guess, weight: FloatArray) -> FloatArray:
    dim, size = problem.dim, weight.shape[1]
    y2, yq, q2 = _moments(problem, weight)
    curved, mixed, pair_a, pair_b = guess.data
    tau = np.sqrt(q2 / y2[:, :, None])
    n11, n12, n22 = _pairs(pair_a, pair_b, y2[:, :, None], yq, q2)
    outer, cross, mass = (0.5 * (x.lo + x.hi) for x in (problem.outer, problem.cross, problem.mass))
    total = np.zeros((len(weight), size, size))
    total[:, :dim, :dim] = np.einsum("bn,nde->bde", curved + (tau * mixed + n11).sum(axis=2), outer.astype(np.float64))
    side = np.einsum("bnk,nd->bdk", n12, cross.astype(np.float64))
    total[:, :dim, dim:], total[:, dim:, :dim] = side, np.swapaxes(side, 1, 2)
    places = np.arange(dim, size)
    total[:, places, places] += np.einsum("bnk,n->bk", mixed / tau + n22, mass.astype(np.float64))
    for symbols in _balls(guess):
        moves = guess.moves[np.arange(len(weight))[:, None], symbols]
        _, y, nu, image = _split(moves, weight)
        total += 0.5 * np.einsum("bs,bsi,bsj->bij", nu, y, y)
        total += 0.5 * np.einsum("bs,bsli,bslj->bij", 1.0 / nu, image, image)
    return total


def _balls(guess: _Guess) -> list[npt.NDArray[np.int64]]:
    """The symbols (B, L) of every ball; one that is alone is a ball of its own."""
    boxes = len(guess.middle)
    singles = [guess.others[:, k : k + 1] for k in range(guess.others.shape[1])]
    return [*singles, *(np.broadcast_to(members, (boxes, members.size)) for members in guess.groups if members.size)]


def _split(moves: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """X, y (B, S, S), row by row, nu (B, S) and x'E (B, S, L, S) for moves E (B, L, S, S), the least in the mixture Z = LL'.

    They are L w and L'^-1 w for the eigenvectors w of sum (L'E L)², and the roots of the eigenvalues.
    """
    size = weight.shape[1]
    largest = np.abs(moves).max(axis=(1, 2, 3), initial=1e-150)
    scaled = moves / largest[:, None, None, None]
    trace = np.trace(weight, axis1=1, axis2=2)[:, None, None]
    root = np.linalg.cholesky(0.5 * (weight + np.swapaxes(weight, 1, 2)) + _LITTLE[0] * trace * np.eye(size))
    turned = np.swapaxes(root, 1, 2)[:, None] @ scaled @ root[:, None]
    values, w = np.linalg.eigh((turned @ np.swapaxes(turned, 2, 3)).sum(axis=1))
    x = np.swapaxes(root @ w, 1, 2)
    y = np.swapaxes(np.linalg.solve(np.swapaxes(root, 1, 2), w), 1, 2)
    nu = np.sqrt(np.maximum(values, 0.0))
    nu = np.maximum(nu, _LITTLE[1] * nu[:, -1:] + 1e-12) * largest[:, None]
    return x, y, nu, np.einsum("bsi,blij->bslj", x, moves)


def _proof(problem: UnitProblem, block: Block, guess: _Guess, chosen: npt.NDArray[np.int64], weight: FloatArray,
           claim: float) -> Flags:  # fmt: skip
    majorant = _data_majorant(problem, block, chosen, weight)
    part = guess[chosen]
    for symbols in _balls(part):
        majorant = majorant + _ball_majorant(
            block.moves[chosen[:, None], symbols], part.moves[np.arange(len(weight))[:, None], symbols], weight
        )
    base = (block.middle[chosen] - majorant)[:, None]
    turned = block.moves[chosen[:, None], part.signs][:, :, None]
    # Symbols that no cell needs are no vertices.
    used = turned.size().reshape(*part.signs.shape, -1).max(axis=2).max(axis=0) > 0.0
    for k in np.flatnonzero(used):
        below, above = base - turned[:, k], base + turned[:, k]
        base = Range(np.concatenate([below.lo, above.lo], 1), np.concatenate([below.hi, above.hi], 1))
    size = base.lo.shape[-1]
    return np.asarray(positive_pivots(base.reshape(-1, size, size), claim).reshape(len(weight), -1).all(axis=1))


def _data_majorant(problem: UnitProblem, block: Block, chosen: npt.NDArray[np.int64], weight: FloatArray) -> Range:
    dim, size = problem.dim, weight.shape[1]
    y2, yq, q2 = _moments(problem, weight)
    mixed, a, b = block.mixed[chosen], block.pair_a[chosen], block.pair_b[chosen]
    tau = wide(np.sqrt(q2 / y2[:, :, None]))
    n11, n12, _ = (wide(x) for x in _pairs(a.astype(np.float64), b.astype(np.float64), y2[:, :, None], yq, q2))
    straight = b == 0.0
    n11 = np.where(straight, np.abs(a), np.maximum(n11, up(np.abs(a) * (1.0 + 1e-9))))
    n12 = np.where(straight, wide(0.0), n12)
    n22 = zeros(n11.shape)
    for sign in (-1.0, 1.0):
        gap = Range(np.where(straight, wide(1.0), down(n11 - sign * a)))
        n22 = np.maximum(n22, ((Range(n12) - Range(sign * b)).square() / gap).hi)
    n22 = np.where(straight, wide(0.0), n22)
    shrunk = (Range(mixed) / Range(tau)).hi
    square = up(block.curved[chosen] + (Range(tau) * Range(mixed) + Range(n11)).sum(2).hi)
    lo, hi = zeros((len(chosen), size, size)), zeros((len(chosen), size, size))
    top = dot(Range(square)[:, :, None, None], problem.outer[None], 1)
    lo[:, :dim, :dim], hi[:, :dim, :dim] = top.lo, top.hi
    for k in range(size - dim):
        side = dot(Range(n12[:, :, k])[:, :, None], problem.cross[None], 1)
        lo[:, :dim, dim + k] = lo[:, dim + k, :dim] = side.lo
        hi[:, :dim, dim + k] = hi[:, dim + k, :dim] = side.hi
        own = ((Range(shrunk[:, :, k]) + Range(n22[:, :, k])) * problem.mass[None]).sum(1)
        lo[:, dim + k, dim + k], hi[:, dim + k, dim + k] = own.lo, own.hi
    return Range(lo, hi)


def _ball_majorant(moves: Range, rough: FloatArray, weight: FloatArray) -> Range:
    """Of sum_l xi_l E_l with |xi| <= 1, for E (B, L, S, S)."""
    size = weight.shape[1]
    unit = Range(wide(np.eye(size)))
    guessed = _split(rough, weight)
    x, y, nu = (Range(wide(guessed[k])) for k in range(3))
    nu = nu[:, :, None, None]
    form = (nu * y[:, :, :, None] * y[:, :, None, :]).sum(1)
    for member in range(moves.lo.shape[1]):
        image = dot(x[:, :, :, None], moves[:, None, member], 2)
        form = form + (image[:, :, :, None] * image[:, :, None, :] / nu).sum(1)
    left = unit - dot(y[:, :, :, None], x[:, :, None, :], 1)
    missing, norm = (Range(e.size().reshape(len(weight), -1)).square().sum(1).root() for e in (left, moves))
    return form * Range(wide(0.5)) + Range((missing * norm).hi)[:, None, None] * unit
