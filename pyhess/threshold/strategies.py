"""How to search for the point and direction that ask for the largest strength of a penalty.

For a penalty with fixed weights, v = S u with S = D^(-1/2) turns the question into the plain one. For sum_i lam^i theta_i² the
weights depend on the answer: S is taken at the best strength so far, which a better pair then raises, until it stays. Where
biases are left out, their own curvature is searched first; if none bends downwards, S grows on the biases, and in the end the
best bias part of a direction is solved for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator

from ..errors import NumericalError
from ..linearization import Linearization
from ..operators import Hessian
from ..penalties import Penalty
from ..spectrum import eigsh
from .explore import explore, finalists, polish
from .search_run import Effort, FloatArray, IntArray, Run, scaled
from .steps import Descent, Steps
from .witness import rayleigh_bound

#: Rounds in which the weights follow the strength, those with all stages, and the relative gain at which the rounds end.
_LAM_ROUNDS, _FULL_ROUNDS, _LAM_TOL = 12, 2, 1e-11
#: Trial strengths for one theta.
_MAX_TRIALS = 60
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


def hunt(run: Run, penalty: Penalty, rng: np.random.Generator) -> Steps[Found]:
    """Search with the strategy that suits the penalty."""
    left_out = penalty.leaves_out(run.size)
    if left_out.any():
        return (yield from _biases_left_out(run, penalty, left_out, rng))
    if penalty.depends_on_strength:
        return (yield from _weights_follow(run, penalty, rng))
    run.scale = penalty.scale(1.0, run.size)
    run.look_at_warm()
    yield from explore(run, rng)
    return _best_of(run, penalty)


def _best_of(run: Run, penalty: Penalty) -> Found:
    """The start that asks for the largest strength, among the best ones in rho; the smallest rho where none asks for any."""
    lowest = run.lowest()
    others = [] if run.stopped() else finalists(run).tolist()  # of many parameters each takes seconds
    candidates = [lowest, *others]
    for start in candidates:
        run.settle(start)
    strengths = [penalty.strength(run.quotient(start), run.direction(start)) for start in candidates]
    best = candidates[int(np.argmax(strengths))]
    quotients = np.array([run.quotient(start) for start in range(run.values.size)])
    return Found(run.theta(best), run.direction(best), run.quotient(best), max(strengths), run.names[best], quotients)


def _weights_follow(run: Run, penalty: Penalty, rng: np.random.Generator) -> Steps[Found]:
    yield from explore(run, rng)
    best = _best_of(run, penalty)
    for number in range(_LAM_ROUNDS):
        if run.interrupted or not best.strength > 0.0:
            break
        tasks = finalists(run)
        before = best.strength
        for start in tasks:
            best = _settle_strength(run, penalty, int(start), best, rng)
        if number > _FULL_ROUNDS and best.strength - before <= _LAM_TOL * before:
            break
        run.rescale(penalty.scale(best.strength, run.size))
        if number < _FULL_ROUNDS:
            yield from explore(run, rng)
        else:
            yield Descent(run, tasks, Effort(200, 1e-12), "strength")
            yield from polish(run, tasks, rng)
        if not np.isfinite(run.values).any():
            break
        found = _best_of(run, penalty)
        quotients = np.minimum(found.quotients, best.quotients)
        best = found if found.strength > best.strength else best
        best.quotients = quotients
    return best


def _settle_strength(run: Run, penalty: Penalty, start: int, best: Found, rng: np.random.Generator) -> Found:
    """Find the strength that a start's theta asks for: the root lam of the smallest eigenvalue of H + diag c(lam).

    A direction found at one lam proves little at another, because errors in its coordinates are multiplied by powers of the
    ratio. So the eigenvalue problem is solved anew at every trial of a secant method in log lam.
    """
    theta, size = run.theta(start), run.size
    hessian = Hessian(Linearization(run.engine, theta))
    low, high = np.log(best.strength), np.inf
    value_low, value_high, step, mu, side = np.nan, np.nan, 0.05, float(np.log(best.strength)), 0
    v0: FloatArray | None = None
    for _ in range(_MAX_TRIALS):
        if run.stopped():
            return best
        scale = penalty.scale(float(np.exp(mu)), size)
        assert scale is not None
        reached = np.flatnonzero(scale)
        try:
            pair = eigsh(
                scaled(hessian, scale[reached], reached),
                v0=None if v0 is None or not v0[reached].any() else v0[reached],
                rng=rng,
                tol=1e-10,
                on_failure="return",
            )
        except KeyboardInterrupt:
            run.interrupted = True
            return best
        run.matvecs += int(pair.num_matvecs)
        v0 = np.zeros(size)
        v0[reached] = pair.eigenvectors[:, 0]
        v = scale * v0
        v /= np.abs(v).max()
        v /= np.linalg.norm(v)
        quotient = float(v @ (hessian @ v))
        strength = penalty.strength(quotient, v)
        if strength > best.strength:
            best = Found(theta, v, quotient, strength, run.names[start], best.quotients)
        # The logarithm of -v'Hv over v' diag c(lam) v: it falls as lam grows, and vanishes at the root.
        bend = 2.0 * penalty.bend(v, float(np.exp(mu)))[0]
        value = float(np.log(-quotient / bend)) if quotient < 0.0 < bend < np.inf else -np.inf if quotient >= 0.0 else np.inf
        if value > 0.0:
            low, value_low = mu, value
            value_high *= 0.5 if side == 1 else 1.0
            side = 1
        else:
            high, value_high = mu, value
            value_low *= 0.5 if side == -1 else 1.0
            side = -1
        if np.isinf(high):
            mu, step = mu + step, 2.0 * step
        elif np.isnan(value_low) or high - low <= _LAM_TOL:
            return best  # this theta asks for no more than what is known
        else:
            finite = np.isfinite(value_low) and np.isfinite(value_high)
            mu = low + (high - low) * value_low / (value_low - value_high) if finite else 0.5 * (low + high)
            mu = mu if low < mu < high else 0.5 * (low + high)
    return best


def _biases_left_out(run: Run, penalty: Penalty, left_out: npt.NDArray[np.bool_], rng: np.random.Generator) -> Steps[Found]:
    size = run.size
    first = run.zs.copy()
    run.scale = left_out.astype(np.float64)
    run.zs[:, size:][:, ~left_out] = 0.0
    yield from explore(run, rng)
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
            yield from explore(run, rng)
        else:
            yield Descent(run, tasks, Effort(400, 1e-12), "biases")
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
        v, matvecs = schur_direction(hessian, left_out, rng, run.stopped)
    except KeyboardInterrupt:
        run.interrupted = True
        return best
    except (_TimeIsUpError, NumericalError):  # or C so near to singular that its inverse overflows: what there is stands
        return best
    run.matvecs += matvecs
    largest = float(np.abs(v).max())
    if not 0.0 < largest < np.inf:
        return best
    v = v / largest
    v /= np.linalg.norm(v)
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


def schur_direction(
    hessian: LinearOperator, left_out: npt.NDArray[np.bool_], rng: Any, stopped: Callable[[], bool] = lambda: False
) -> tuple[FloatArray, int]:
    """Return v (P,), the extension of the smallest eigenvector of the Schur complement, and the products used.

    With blocks A, B, C of the Hessian (C that of the coordinates left out) the smallest v'Hv over the left-out part of v is that
    of ``A - B C^-1 B'``. Systems in C are solved by conjugate gradients; where they meet a direction z with z'Cz < 0, v is z.
    """
    out, kept = np.flatnonzero(left_out), np.flatnonzero(~left_out)
    wide = np.zeros(left_out.size)
    used = 0

    def product(where: IntArray, x: FloatArray) -> FloatArray:
        nonlocal used
        if stopped():
            raise _TimeIsUpError
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


class _TimeIsUpError(Exception):
    pass


class _BendsDownError(Exception):
    def __init__(self, direction: FloatArray) -> None:
        super().__init__()
        self.direction = direction
