"""The state of one Lanczos run and everything decided on its small projected problem.

The projected matrix is diag(known) ⊕ T: the first ``begin`` basis vectors are Ritz vectors of earlier blocks, already
converged ("locked"), the rest is one Krylov block with the tridiagonal T. A single Krylov block can never see a second copy of
an eigenvalue. So where copies could change the answer (more than one value wanted at the same end) the wanted Ritz vectors are
locked once they have converged, and a block from a fresh random vector orthogonal to them is run until it shows, up to a small
probability, that nothing better is left; every copy it finds is converged and locked in turn.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import Any, NamedTuple

import numpy as np

from .._jit import serial
from .tridiag import arrow_to_tridiagonal, log_polynomial, next_extreme, probable_lower, ritz_decomposition, ritz_vector

# Which end of the spectrum, as in ARPACK.
SA, LA, LM, BE = 0, 1, 2, 3

# Phases of a run: what the next call of ``advance`` has to do.
START, PRODUCT, CHECK = 0, 1, 2

# How a run stands or ended.
RUNNING, CONVERGED, MAX_ITERATIONS, NONFINITE, STAGNATED, NOT_SYMMETRIC, CANCELLED = 0, 1, 2, 3, 4, 5, 6

# What to do with the basis after a step.
NEXT, RESTART, LOCK, EXTRACT = 0, 1, 2, 3

#: Attempts to meet the tolerance by a fresh product after the recurrence has met it.
MAX_RETRIES = 3

STATE = np.dtype(
    [
        ("phase", np.int64),
        ("status", np.int64),
        ("wanted", np.int64),  # k
        ("which", np.int64),
        ("seed", np.int64),
        ("draws", np.int64),  # random vectors drawn so far
        ("warm", np.int64),  # basis[0] holds a start vector
        ("max_matvecs", np.int64),
        ("matvecs", np.int64),
        ("step", np.int64),  # index of the last basis vector
        ("begin", np.int64),  # where the current Krylov block begins
        ("block_restarts", np.int64),  # thick restarts of this block
        ("restarts", np.int64),  # thick restarts in all
        ("fresh", np.int64),  # blocks begun
        ("used", np.int64),  # basis vectors that the result is taken from
        ("found", np.int64),  # Ritz vectors extracted
        ("check", np.int64),  # the one whose product is awaited
        ("retries", np.int64),
        ("scaled", np.int64),  # sigma is settled
        ("sigma", np.float64),  # power of two that brings the operator near 1
        ("scale", np.float64),  # largest |A v| seen on a unit vector, a lower estimate of |A|
        ("tol", np.float64),  # the tolerance to meet
        ("stop", np.float64),  # the one the recurrence is stopped at
        ("noise", np.float64),  # relative rounding level of the products
        ("theta", np.float64),  # k = 1: lowest Ritz value, of -A for LA
        ("norm", np.float64),  # norm of the remainder
        ("log_start", np.float64),  # log(1/delta) of the probabilistic bound
        ("log_copy", np.float64),  # log(1/delta) for missing a copy
        ("probable", np.float64),  # the probabilistic lower bound of the spectrum, or nan
    ],
    align=True,
)


class Run(NamedTuple):
    """Arrays of one run: P the size, m the capacity of the basis, k the pairs wanted, T the products' type."""

    state: Any  # (1,) STATE
    basis: Any  # (m, P) T, rows
    alpha: Any  # (m,) diagonal of the projected matrix
    beta: Any  # (m,) off-diagonal; the last one in use is the norm of the remainder
    known: Any  # (m,) ascending Ritz values of the locked vectors
    vectors: Any  # (k, P) T, the result
    values: Any  # (k,)
    residuals: Any  # (k,)
    remainder: Any  # (P,) float64
    partial: Any  # (blocks, m + 2) sums by blocks of the vectors
    coefficients: Any  # (m + 2,)
    small: Any  # (4, m) scratch
    last: Any  # (m, 1) last components of the Ritz vectors


@serial
def _count_low(values: Any, k: int, which: int) -> int:
    """How many of the k wanted among the ascending ``values`` stand at the low end; the others stand at the high end."""
    n = values.size
    k = min(k, n)
    if which == SA:
        return k
    if which == LA:
        return 0
    if which == BE:
        return k // 2
    low = 0
    for taken in range(k):
        if abs(values[low]) > abs(values[n - 1 - (taken - low)]):
            low += 1
    return low


@serial
def _decompose(run: Any, end: int, d: Any, z: Any) -> bool:
    """Ritz values of basis[:end] into d, in basis order; z gets the rotations of the current block."""
    begin = run.state[0].begin
    size = end - begin
    d[:begin] = run.known[:begin]
    d[begin:end] = run.alpha[begin:end]
    if size == 0:
        return True
    e = run.small[1, :size]
    e[: size - 1] = run.beta[begin : end - 1]
    return ritz_decomposition(d[begin:end], e, z)


@serial
def _settled(run: Any, n: int, bound: float, residual: float) -> bool:
    """Has this block shown that no eigenvalue beyond ``bound`` is left outside the locked vectors?"""
    state = run.state[0]
    if residual <= state.stop * state.scale:
        return True
    if state.block_restarts > 0:
        return False
    value, _ = log_polynomial(run.alpha, run.beta, state.begin, n, bound)
    return value >= state.log_copy


@serial
def _test_extreme(run: Any, n: int) -> tuple[int, int]:
    """One value at one end: O(n)."""
    state = run.state[0]
    sign = 1.0 if state.which == SA else -1.0
    residual = run.beta[n - 1]
    tol = state.stop * state.scale
    state.theta, last = next_extreme(run.alpha, run.beta, n, sign, state.theta)
    if residual * last > 10.0 * tol:
        return NEXT, n
    # The slope that ``last`` comes from loses digits as the value converges; the vector itself does not.
    ritz_vector(run.alpha, run.beta, n, sign, state.theta, run.small[0], run.small[1], run.small[2])
    return (EXTRACT if residual * abs(run.small[2, n - 1]) <= tol else NEXT), n


@serial
def _test_general(run: Any, n: int) -> tuple[int, int]:
    """Any number of values at either end: O(n^2). Returns what to do and how many basis vectors the result is taken from."""
    state = run.state[0]
    begin, k, which = state.begin, state.wanted, state.which
    residual = run.beta[n - 1]
    tol = state.stop * state.scale
    d = run.small[0, :n]
    z = run.last[: n - begin]
    z[:, 0] = 0.0
    z[n - begin - 1, 0] = 1.0
    if not _decompose(run, n, d, z):
        return NEXT, n
    if begin >= k:
        known = run.known[:begin]
        low = _count_low(known, k, which)
        below = known[low - 1] if low > 0 else -inf
        above = known[begin - (k - low)] if low < k else inf
        if which == LM:
            above = min(above, -below)
            below = -above
        lowest, highest = begin, begin
        for i in range(begin, n):
            if d[i] < d[lowest]:
                lowest = i
            if d[i] > d[highest]:
                highest = i
        if d[lowest] >= below - tol and d[highest] <= above + tol:
            done = True
            if below > -inf:
                done = _settled(run, n, below - tol, residual * abs(z[lowest - begin, 0]))
            if above < inf and done:
                done = _settled(run, n, above + tol, residual * abs(z[highest - begin, 0]))
            return (EXTRACT if done else NEXT), begin
    order = np.argsort(d)
    low = _count_low(d[order], k, which)
    done = n >= k
    for rank in range(n):
        i = order[rank]
        if i >= begin and (rank < low or rank >= n - (k - low)):
            done = done and residual * abs(z[i - begin, 0]) <= tol
    if not done:
        return NEXT, n
    return (LOCK if k > 1 and not (which == BE and k == 2) else EXTRACT), n


@serial
def _bound_below(run: Any, n: int) -> float:
    """The probabilistic lower bound of the spectrum from an unrestarted block."""
    state = run.state[0]
    if state.wanted == 1 and state.which == SA:
        lowest = state.theta
    else:
        d = run.small[0, :n]
        _decompose(run, n, d, run.last[:n])
        lowest = d.min()
    if run.beta[n - 1] == 0.0:
        width = 0.0
    else:
        width = lowest - probable_lower(run.alpha, run.beta, n, lowest, state.scale, state.log_start)
    # The products are those of a matrix that differs from A by their rounding errors.
    return lowest - width - (8.0 + 0.25 * sqrt(run.remainder.size)) * state.noise * state.scale


@serial
def decide(run: Any) -> int:
    """What to do after a step: go on, restart, lock, or take the result."""
    state = run.state[0]
    n = state.step + 1
    size = run.remainder.size
    action = NEXT
    if state.wanted == 1 and state.which <= LA:
        action, used = _test_extreme(run, n)
    else:
        action, used = _test_general(run, n)
    if n == size:
        action, used = EXTRACT, n
    elif action == NEXT and state.matvecs >= state.max_matvecs:
        action = EXTRACT
        state.status = MAX_ITERATIONS
    state.used = used
    if action == NEXT:
        action = follow(run)
    if (action == EXTRACT or action == LOCK) and state.begin == 0 and state.restarts == 0 and state.warm == 0:
        state.probable = _bound_below(run, n)
    return action


@serial
def follow(run: Any) -> int:
    """How to go on after a step that is not the last."""
    state = run.state[0]
    if run.beta[state.step] == 0.0:
        return LOCK
    return RESTART if state.step + 1 == run.basis.shape[0] else NEXT


@serial
def judge(run: Any) -> bool:
    """All pairs have been checked by fresh products: settle the status. True: go on with the run instead."""
    state = run.state[0]
    good = state.found == state.wanted
    for i in range(state.found):
        good = good and run.residuals[i] * state.sigma <= state.tol * state.scale
    if state.status == MAX_ITERATIONS:
        # With several pairs the search for copies was cut short, however small the residuals are.
        if good and state.wanted == 1:
            state.status = CONVERGED
        return False
    if good:
        state.status = CONVERGED
        return False
    more = state.matvecs < state.max_matvecs and state.step + 1 < run.remainder.size and run.beta[state.step] != 0.0
    if state.wanted > 1 or state.retries == MAX_RETRIES or not more:
        state.status = STAGNATED
        return False
    state.retries += 1
    state.stop *= 0.25
    return True


@serial
def rotation(run: Any, action: int) -> Any:
    """Coefficients W (rows, columns) of the new vectors in the basis, for RESTART (from ``begin`` on), LOCK and EXTRACT.

    Updates the projected matrix to the new basis; ``step`` becomes the index of its last vector.
    """
    state = run.state[0]
    begin, k, n = state.begin, state.wanted, state.step + 1
    end = state.used if action == EXTRACT else n
    size = end - begin
    if action == EXTRACT and k == 1 and state.which <= LA:
        w = np.empty((n, 1))
        sign = 1.0 if state.which == SA else -1.0
        ritz_vector(run.alpha, run.beta, n, sign, state.theta, run.small[0], run.small[1], run.small[2])
        w[:, 0] = run.small[2, :n]
        run.values[0] = sign * state.theta
        state.found = 1
        return w
    d = np.empty(end)
    z = np.eye(size)
    _decompose(run, end, d, z)
    if action == RESTART:
        # A third of the block is kept, room for one new vector and its successor is left.
        keep = min(max(k + 3, size // 3), size - 2)
        theta = d[begin:]
        order = np.argsort(theta)
        low = _count_low(theta[order], keep, state.which)
        kept = np.concatenate((order[:low], order[size - (keep - low) :]))
        arm = run.beta[n - 1] * z[kept, size - 1]
        turn = arrow_to_tridiagonal(theta[kept], arm, run.alpha[begin:], run.beta[begin:])
        w = np.zeros((size, keep))
        for i in range(size):
            for t in range(keep):
                c = z[kept[t], i]
                for s in range(keep):
                    w[i, s] += c * turn[t, s]
        state.step = begin + keep - 1
        state.restarts += 1
        state.block_restarts += 1
        return w
    count = min(k, end)
    if action == LOCK and run.beta[n - 1] == 0.0 and run.basis.shape[0] == run.remainder.size:
        count = end  # there is room for everything, and an invariant subspace need not be searched again
    order = np.argsort(d)
    low = _count_low(d[order], count, state.which)
    w = np.zeros((end, count))
    for t in range(count):
        i = order[t if t < low else end - count + t]
        if i < begin:
            w[i, t] = 1.0
        else:
            w[begin:, t] = z[i - begin]
        if action == LOCK:
            run.small[3, t] = d[i]
        else:
            run.values[t] = d[i]
    if action == LOCK:
        run.known[:count] = run.small[3, :count]
        run.alpha[:count] = run.small[3, :count]
        run.beta[:count] = 0.0
        state.begin = count
        state.step = count - 1
        state.block_restarts = 0
    else:
        state.found = count
    return w
