"""How to search for the point and direction that ask for the largest strength of a penalty.

For a penalty with fixed weights, v = S u with S = D^(-1/2) turns the question into the plain one. For sum_i lam^i theta_i² the
weights depend on the answer: S is taken at the best strength so far, which a better pair then raises, until it stays. Where
biases are left out, their own curvature is searched first; if none bends downwards, S grows on the biases, and in the end the
best bias part of a direction is solved for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator

from ..linearization import Linearization
from ..operators import Hessian
from ..penalties import Penalty
from ..spectrum import eigsh
from .explore import explore, finalists, polish
from .search_run import FloatArray, IntArray, Run
from .witness import rayleigh_bound

#: Rounds in which the weights follow the strength, those with all stages, and the relative gain at which the rounds end.
_LAM_ROUNDS, _FULL_ROUNDS, _LAM_TOL = 16, 2, 1e-11
#: How much further the unpenalised biases may go than the weights, round after round.
_BIAS_REACH = (10.0, 100.0, 1000.0)
_CG_TOL = 1e-13


@dataclass
class Found:
    """The best pair: theta, unit v, v'Hv, the strength it asks for and the start family; and the quotients of all starts."""

    theta: FloatArray
    v: FloatArray
    quotient: float
    strength: float
    family: str
    quotients: FloatArray


def hunt(run: Run, penalty: Penalty, rng: np.random.Generator) -> Found:
    """Search with the strategy that suits the penalty."""
    left_out = penalty.leaves_out(run.size)
    if left_out.any():
        return _biases_left_out(run, penalty, left_out, rng)
    if penalty.depends_on_strength:
        return _weights_follow(run, penalty, rng)
    run.scale = penalty.scale(1.0, run.size)
    explore(run, rng)
    return _best_of(run, penalty)


def _best_of(run: Run, penalty: Penalty, tasks: IntArray | None = None) -> Found:
    """The start that asks for the largest strength, among the best ones in rho; the smallest rho where none asks for any."""
    lowest = int(np.argmin(run.values))
    candidates = [lowest, *(int(start) for start in (finalists(run) if tasks is None else tasks))]
    strengths = [penalty.strength(run.quotient(start), run.direction(start)) for start in candidates]
    best = candidates[int(np.argmax(strengths))]
    quotients = np.array([run.quotient(start) for start in range(run.values.size)])
    return Found(run.theta(best), run.direction(best), run.quotient(best), max(strengths), run.names[best], quotients)


def _weights_follow(run: Run, penalty: Penalty, rng: np.random.Generator) -> Found:
    explore(run, rng)
    best = _best_of(run, penalty)
    for number in range(_LAM_ROUNDS):
        if run.interrupted or not best.strength > 0.0:
            break
        tasks = finalists(run)
        run.rescale(penalty.scale(best.strength, run.size))
        if number < _FULL_ROUNDS:
            explore(run, rng)
        else:
            run.descend(tasks, 200, 1e-12, "strength")
            polish(run, tasks, rng)
        if not np.isfinite(run.values).any():
            break
        found = _best_of(run, penalty)
        gain = found.strength - best.strength
        if gain > 0.0:
            found.quotients = np.minimum(found.quotients, best.quotients)
            best = found
        if number >= _FULL_ROUNDS and gain <= _LAM_TOL * best.strength:
            break
    return best


def _biases_left_out(run: Run, penalty: Penalty, left_out: npt.NDArray[np.bool_], rng: np.random.Generator) -> Found:
    size = run.size
    first = run.zs.copy()
    run.scale = left_out.astype(np.float64)
    run.zs[:, size:][:, ~left_out] = 0.0
    explore(run, rng)
    best = _best_of(run, penalty)
    if run.interrupted or (best.quotient < 0.0 and rayleigh_bound(run.obj, best.theta, best.v)[0] < 0.0):
        return best
    # No bias bends downwards as far as this search sees. The others begin anew; where biases are flattest may be a good place.
    kept = finalists(run)
    others = np.setdiff1d(np.arange(run.values.size), kept)
    run.zs[others] = first[others]
    run.zs[kept, size:] = first[kept, size:]
    run.scale = None
    best.strength = 0.0
    for number, reach in enumerate(_BIAS_REACH):
        tasks = finalists(run)
        run.rescale(np.where(left_out, reach, 1.0))
        if number == 0:
            explore(run, rng)
        else:
            run.descend(tasks, 400, 1e-12, "biases")
        tasks = finalists(run)
        for candidate in [_best_of(run, penalty)] if tasks.size else []:
            candidate.quotients = np.minimum(candidate.quotients, best.quotients)
            best = candidate if candidate.strength > best.strength or number == 0 else best
        for start in tasks:
            if run.interrupted:
                return best
            best = _solve_biases(run, penalty, int(start), left_out, best, rng)
    return best


def _solve_biases(
    run: Run, penalty: Penalty, start: int, left_out: npt.NDArray[np.bool_], best: Found, rng: np.random.Generator
) -> Found:
    """The direction at a start's theta that asks for the largest strength: the smallest eigenvector of A - B C^-1 B'."""
    theta = run.theta(start)
    try:
        hessian = Hessian(Linearization(run.engine, theta))
        v, matvecs = schur_direction(hessian, left_out, rng)
    except KeyboardInterrupt:
        run.interrupted = True
        return best
    run.matvecs += matvecs
    v = v / np.linalg.norm(v)
    quotient = float(v @ (hessian @ v))
    strength = penalty.strength(quotient, v)
    if np.isinf(strength) and not rayleigh_bound(run.obj, theta, v)[0] < 0.0:
        return best
    if strength > penalty.strength(run.quotient(start), run.direction(start)):
        assert run.scale is not None
        run.zs[start, run.size :] = v / run.scale
    if strength > best.strength:
        return Found(theta, v, quotient, strength, run.names[start], best.quotients)
    return best


def schur_direction(hessian: LinearOperator, left_out: npt.NDArray[np.bool_], rng: Any) -> tuple[FloatArray, int]:
    """Return v (P,), the extension of the smallest eigenvector of the Schur complement, and the products used.

    With blocks A, B, C of the Hessian (C that of the coordinates left out) the smallest v'Hv over the left-out part of v is that
    of ``A - B C^-1 B'``. Systems in C are solved by conjugate gradients; where they meet a direction z with z'Cz < 0, v is z.
    """
    out, kept = np.flatnonzero(left_out), np.flatnonzero(~left_out)
    wide = np.zeros(left_out.size)
    used = 0

    def product(where: IntArray, x: FloatArray) -> FloatArray:
        nonlocal used
        used += 1
        wide[:] = 0.0
        wide[where] = x
        full: FloatArray = hessian @ wide
        return full

    def solve(right: FloatArray) -> FloatArray:
        """C^-1 right, or of its part in the range of C."""
        x, r = np.zeros(out.size), right.copy()
        p, squared = r.copy(), float(r @ r)
        goal, largest = _CG_TOL**2 * squared, 0.0
        for _ in range(4 * out.size + 20):
            if squared <= goal:
                break
            cp = product(out, p)[out]
            bend, length = float(p @ cp), float(p @ p)
            largest = max(largest, abs(bend) / length)
            if bend <= 1e-12 * largest * length:
                if bend < -1e-12 * largest * length:
                    raise _BendsDownError(p)
                break  # a flat direction: nothing more can be gained
            step = squared / bend
            x, r = x + step * p, r - step * cp
            before, squared = squared, float(r @ r)
            p = r + (squared / before) * p
        return x

    def multiply(x: FloatArray) -> FloatArray:
        whole = product(kept, x.reshape(-1))
        reduced: FloatArray = (whole - product(out, solve(whole[out])))[kept]
        return reduced

    v = np.zeros(left_out.size)
    try:
        operator = LinearOperator((kept.size, kept.size), matvec=multiply, rmatvec=multiply, dtype=np.float64)
        v[kept] = eigsh(operator, rng=rng, tol=1e-9, on_failure="return").eigenvectors[:, 0]
        v[out] = -solve(product(kept, v[kept])[out])
    except _BendsDownError as found:
        v[:] = 0.0
        v[out] = found.direction
    return v, used


class _BendsDownError(Exception):
    def __init__(self, direction: FloatArray) -> None:
        super().__init__()
        self.direction = direction
