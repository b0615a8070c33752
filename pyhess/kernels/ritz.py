"""The small projected problem of a Lanczos run, and everything decided on it.

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

from .._jit import inlined
from ._units import carray, helper, pointer
from .run import (
    BE,
    CONVERGED,
    EXTRACT,
    LA,
    LM,
    LOCK,
    MAX_ITERATIONS,
    MAX_RETRIES,
    NEXT,
    RESTART,
    RUN,
    SA,
    STAGNATED,
    STATE,
)  # fmt: skip
from .tridiag import arrow_to_tridiagonal, log_polynomial, next_extreme, probable_lower, ritz_decomposition, ritz_vector

# Tasks of the unit besides taking an action: what to do after a step, and whether checked pairs will do.
DECIDE, JUDGE = 100, 101


class Small(NamedTuple):
    """The small arrays of a run, see run.py."""

    state: Any
    alpha: Any
    beta: Any
    known: Any
    values: Any
    residuals: Any
    small: Any
    weights: Any


@helper
def _sort(values: Any, order: Any, ranked: Any) -> None:
    """Ranked = the values in ascending order, order = their indices; insertion sort."""
    for i in range(values.size):
        value = values[i]
        j = i
        while j > 0 and ranked[j - 1] > value:
            ranked[j] = ranked[j - 1]
            order[j] = order[j - 1]
            j -= 1
        ranked[j] = value
        order[j] = i


@helper
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
        left, right = values[low], values[n - 1 - (taken - low)]
        if abs(left) > abs(right) or (taken == n - 1 and left < 0.0):  # the last one of all stands at the end of its sign
            low += 1
    return low


@helper
def _decompose(run: Any, end: int, d: Any, z: Any) -> bool:
    """Ritz values of basis[:end] into d, in basis order; z gets the rotations of the current block."""
    begin = run.state[0].begin
    size = end - begin
    for i in range(end):
        d[i] = run.known[i] if i < begin else run.alpha[i]
    if size == 0:
        return True
    e = run.small[1, :size]
    for i in range(size - 1):
        e[i] = run.beta[begin + i]
    return bool(ritz_decomposition(d[begin:end], e, z))


@inlined
def _settled(run: Any, n: int, bound: float, residual: float) -> bool:
    """Has this block shown that no eigenvalue beyond ``bound`` is left outside the locked vectors?"""
    state = run.state[0]
    settled: bool = residual <= state.stop * state.scale
    if not settled and state.block_restarts == 0:
        value, _ = log_polynomial(run.alpha, run.beta, state.begin, n, bound)
        settled = value >= state.log_copy
    return settled


@inlined
def _test_extreme(run: Any, n: int) -> int:
    """One value at one end: O(n)."""
    state = run.state[0]
    sign = 1.0 if state.which == SA else -1.0
    residual = run.beta[n - 1]
    tol = state.stop * state.scale
    state.theta, last = next_extreme(run.alpha, run.beta, n, sign, state.theta)
    action = NEXT
    if residual * last <= 10.0 * tol:
        # The slope that ``last`` comes from loses digits as the value converges; the vector itself does not.
        ritz_vector(run.alpha, run.beta, n, sign, state.theta, run.small[0], run.small[1], run.small[2])
        if residual * abs(run.small[2, n - 1]) <= tol:
            action = EXTRACT
    state.used = n
    return action


@inlined
def _test_general(run: Any, n: int) -> int:
    """Any number of values at either end: O(n^2)."""
    state = run.state[0]
    begin, k, which = state.begin, state.wanted, state.which
    residual = run.beta[n - 1]
    tol = state.stop * state.scale
    state.used = n
    d = run.small[0, :n]
    z = np.zeros((n - begin, 1))  # last components of the Ritz vectors
    z[n - begin - 1, 0] = 1.0
    if not _decompose(run, n, d, z):
        return NEXT
    if begin >= k:
        low = _count_low(run.known[:begin], k, which)
        below = run.known[low - 1] if low > 0 else -inf
        above = run.known[begin - (k - low)] if low < k else inf
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
            for end in range(2):
                if end == 0 and below > -inf:
                    x, i = below - tol, lowest
                elif end == 1 and above < inf:
                    x, i = above + tol, highest
                else:
                    continue
                done = done and _settled(run, n, x, residual * abs(z[i - begin, 0]))
            if not done:
                return NEXT
            state.used = begin
            return EXTRACT
    order, ranked = np.empty(n, np.int64), np.empty(n)
    _sort(d, order, ranked)
    low = _count_low(ranked, k, which)
    done = n >= k
    for rank in range(n):
        i = order[rank]
        if i >= begin and (rank < low or rank >= n - (k - low)):
            done = done and residual * abs(z[i - begin, 0]) <= tol
    if not done:
        return NEXT
    return LOCK if k > 1 and not (which == BE and k == 2) else EXTRACT


@inlined
def _bound_below(run: Any, n: int, size: int) -> float:
    """The probabilistic lower bound of the spectrum from an unrestarted block."""
    state = run.state[0]
    if state.wanted == 1 and state.which == SA:
        lowest = state.theta
    else:
        d = run.small[0, :n]
        _decompose(run, n, d, np.zeros((n, 1)))
        lowest = d[0]
        for i in range(1, n):
            lowest = min(lowest, d[i])
    width = 0.0
    if run.beta[n - 1] != 0.0:
        width = lowest - probable_lower(run.alpha, run.beta, state.begin, n, lowest, state.scale, state.log_start)
    # The products are those of a matrix that differs from A by their rounding errors.
    bound: float = lowest - width - (8.0 + 0.25 * sqrt(size)) * state.noise * state.scale
    return bound


@inlined
def _follow(run: Any, capacity: int) -> int:
    """How to go on after a step that is not the last."""
    state = run.state[0]
    if run.beta[state.step] == 0.0:
        return LOCK
    return RESTART if state.step + 1 == capacity else NEXT


@inlined
def _decide(run: Any, capacity: int, size: int) -> int:
    """What to do after a step: go on, restart, lock, or take the result."""
    state = run.state[0]
    n = state.step + 1
    extreme = state.wanted == 1 and state.which <= LA
    action = _test_extreme(run, n) if extreme else _test_general(run, n)
    if n == size:
        action = EXTRACT
        state.used = n
    elif action < EXTRACT and state.matvecs >= state.max_matvecs:
        action = EXTRACT
        state.status = MAX_ITERATIONS
    if action == NEXT:
        action = _follow(run, capacity)
    if action >= LOCK and state.begin == 0 and state.restarts == 0 and state.warm == 0:
        state.probable = _bound_below(run, n, size)
    return action


@inlined
def _judge(run: Any, capacity: int, size: int) -> int:
    """All pairs have been checked by fresh products: settle the status, or say how to go on with the run instead."""
    state = run.state[0]
    good = state.found == state.wanted
    for i in range(state.found):
        good = good and run.residuals[i] * state.sigma <= state.tol * state.scale
    if state.status == MAX_ITERATIONS:
        # With several pairs the search for copies was cut short, however small the residuals are.
        if good and state.wanted == 1:
            state.status = CONVERGED
        return EXTRACT
    if good:
        state.status = CONVERGED
        return EXTRACT
    more = state.matvecs < state.max_matvecs and state.step + 1 < size and run.beta[state.step] != 0.0
    if state.wanted > 1 or state.retries == MAX_RETRIES or not more:
        state.status = STAGNATED
        return EXTRACT
    state.retries += 1
    state.stop *= 0.25
    return _follow(run, capacity)


@inlined
def _rotation(run: Any, record: Any, action: int) -> None:
    """Weights (rows, columns) of the new vectors in the basis, for RESTART (from ``begin`` on), LOCK and EXTRACT.

    Updates the projected matrix to the new basis; ``step`` becomes the index of its last vector.
    """
    state, w = run.state[0], run.weights
    begin, k, n = state.begin, state.wanted, state.step + 1
    end = state.used if action == EXTRACT else n
    size = end - begin
    record.first, record.rows = 0, end
    if action == EXTRACT and k == 1 and state.which <= LA:
        sign = 1.0 if state.which == SA else -1.0
        ritz_vector(run.alpha, run.beta, n, sign, state.theta, run.small[0], run.small[1], run.small[2])
        for i in range(n):
            w[i, 0] = run.small[2, i]
        run.values[0] = sign * state.theta
        state.found = 1
        record.columns = 1
        return
    d = run.small[0, :end]
    z = np.zeros((size, size))
    for i in range(size):
        z[i, i] = 1.0
    _decompose(run, end, d, z)
    order, ranked = np.empty(end, np.int64), np.empty(end)
    if action == RESTART:
        # A third of the block is kept, room for one new vector and its successor is left.
        keep = min(max(k + 3, size // 3), size - 2)
        _sort(d[begin:], order, ranked)
        # Copies are looked for at both ends.
        both = state.which == LM and begin >= k
        low = _count_low(ranked[:size], keep, BE if both else state.which)
        theta, arm = np.empty(keep), np.empty(keep)
        for t in range(keep):
            rank = t if t < low else size - keep + t
            order[t] = order[rank]
            theta[t] = ranked[rank]
            arm[t] = run.beta[n - 1] * z[order[t], size - 1]
        turn = arrow_to_tridiagonal(theta, arm, run.alpha[begin:], run.beta[begin:])
        for i in range(size):
            for s in range(keep):
                w[i, s] = 0.0
            for t in range(keep):
                c = z[order[t], i]
                for s in range(keep):
                    w[i, s] += c * turn[t, s]
        state.step = begin + keep - 1
        state.restarts += 1
        state.block_restarts += 1
        record.first, record.rows, record.columns = begin, size, keep
        return
    count = min(k, end)
    if action == LOCK and run.beta[n - 1] == 0.0 and record.capacity == record.size:
        count = end  # there is room for everything, and an invariant subspace need not be searched again
    _sort(d, order, ranked)
    low = _count_low(ranked, count, state.which)
    for t in range(count):
        rank = t if t < low else end - count + t
        i = order[rank]
        for s in range(end):
            w[s, t] = 0.0
            if i >= begin and s >= begin:
                w[s, t] = z[i - begin, s - begin]
        if i < begin:
            w[i, t] = 1.0
        if action == LOCK:
            run.known[t] = ranked[rank]
            run.alpha[t] = ranked[rank]
            run.beta[t] = 0.0
        else:
            run.values[t] = ranked[rank]
    if action == LOCK:
        state.begin = count
        state.step = count - 1
        state.block_restarts = 0
    else:
        state.found = count
    record.columns = count


def project(address: int, task: int) -> int:
    """The unit: DECIDE and JUDGE return an action; an action as the task makes the weights for it."""
    record = carray(pointer(address), 1, RUN)[0]
    state = carray(pointer(record.state), 1, STATE)
    m, k = record.capacity, state[0].wanted
    run = Small(
        state,
        carray(pointer(record.alpha), m, np.float64),
        carray(pointer(record.beta), m, np.float64),
        carray(pointer(record.known), m, np.float64),
        carray(pointer(record.values), k, np.float64),
        carray(pointer(record.residuals), k, np.float64),
        carray(pointer(record.small), (4, record.width), np.float64),
        carray(pointer(record.weights), (m, record.turned), np.float64),
    )
    if task == DECIDE:
        return _decide(run, m, record.size)
    if task == JUDGE:
        return _judge(run, m, record.size)
    _rotation(run, record, task)
    return task
