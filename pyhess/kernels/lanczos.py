"""One Lanczos iteration, written as a reverse-communication step.

    request = step(run)            # the first call makes the start vector
    while request != DONE:
        product[:] = A @ (basis[state.step] if request == MULTIPLY_BASIS else vectors[state.check])
        request = step(run)

``A v_j = beta_{j-1} v_{j-1} + alpha_j v_j + beta_j v_{j+1}`` with full reorthogonalisation. Everything between two products
happens in the step: the three-term recurrence, Gram–Schmidt against the whole basis, the stopping test, random restart after a
breakdown, thick restart of a full basis, locking, and at the end the residuals of the result from fresh products.

The step itself only decides; long vectors are worked on in blocks.py, on one core or on all with the same bits, the small
projected problem in ritz.py.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from ._units import carray, compiled_unit, helper, pointer, unit2, unit3
from .blocks import block_units
from .ritz import DECIDE, JUDGE, project
from .run import (
    CHECK,
    CHECK_SUMS,
    DONE,
    DOTS,
    EXTRACT,
    GATHER,
    LARGEST,
    LOAD,
    LOCK,
    MIX,
    MULTIPLY_BASIS,
    MULTIPLY_VECTOR,
    NEXT,
    NONFINITE,
    NOT_SYMMETRIC,
    PRODUCT,
    RANDOM,
    RESIDUAL,
    RUN,
    START,
    STATE,
    STORE,
    SUBTRACT,
    TURN,
)  # fmt: skip

#: Gram–Schmidt is repeated while it takes away more than this part of the norm: what is left then has rounding errors as large.
_DROP = 0.7
_MAX_SWEEPS = 6

#: A remainder below so many rounding errors of the products is zero: the basis spans an invariant subspace.
BREAKDOWN = 8.0

#: Weight of the random direction mixed into a given start vector of length one.
_MIX = 0.1

#: Overlaps of A v_j with older vectors above this part of |A|, on top of the tolerance, mean that A is not symmetric.
_ASYMMETRY = 0.01


@helper
def _each(run: Any, address: int, partial: Any, sums: Any) -> float:
    """Do ``run.op`` to all blocks and add up ``run.columns`` sums, in block order. Returns the first."""
    unit3(run.all_blocks, address, 0, run.blocks)
    for i in range(run.columns):
        total = 0.0
        for block in range(partial.shape[0]):
            total += partial[block, i]
        sums[i] = total
    return float(sums[0])


@helper
def _power_of_two(largest: float) -> float:
    """The factor that brings a product with norm ``largest`` near 1 where squares could overflow or vanish."""
    if largest == 0.0 or not np.isfinite(largest) or 1e-90 < largest < 1e90:
        return 1.0
    return float(2.0 ** min(1000.0, max(-1000.0, -np.floor(np.log2(largest)))))


def step(address: int) -> int:
    """The unit: one step of the run at this address. Returns what to multiply next."""
    run = carray(pointer(address), 1, RUN)[0]
    state = carray(pointer(run.state), 1, STATE)[0]
    partial = carray(pointer(run.partial), (run.blocks, run.width), np.float64)
    sums = carray(pointer(run.sums), run.width, np.float64)
    alpha = carray(pointer(run.alpha), run.capacity, np.float64)
    beta = carray(pointer(run.beta), run.capacity, np.float64)
    fresh = state.phase == START
    action = NEXT

    if state.phase == CHECK:
        values = carray(pointer(run.values), state.wanted, np.float64)
        residuals = carray(pointer(run.residuals), state.wanted, np.float64)
        run.op, run.columns = CHECK_SUMS, 2
        _each(run, address, partial, sums)
        square = sums[1]
        run.factor = sums[0] / square
        values[state.check] = run.factor / state.sigma
        run.op, run.columns = RESIDUAL, 1
        residuals[state.check] = sqrt(_each(run, address, partial, sums) / square) / state.sigma
        state.matvecs += 1
        state.check += 1
        if state.check < state.found:
            return MULTIPLY_VECTOR
        action = unit2(run.project, address, JUDGE)
        if action == EXTRACT:
            return DONE
        state.phase = PRODUCT
    else:
        if not fresh:
            state.matvecs += 1
            if state.scaled == 0:
                run.op, run.columns = LARGEST, 1
                largest = _each(run, address, partial, sums)
                state.sigma = _power_of_two(largest)
                state.scaled = 1 if largest > 0.0 else 0
            j = state.step
            run.op, run.columns = LOAD, 2
            _each(run, address, partial, sums)
            if not np.isfinite(sums[1]):
                state.status = NONFINITE
                return DONE
            state.scale = max(state.scale, sqrt(sums[1]))
            # The known part of the product goes first, so that Gram-Schmidt has little left to take away.
            alpha[j] = sums[0]
            run.op, run.columns = SUBTRACT, 1
            run.first, run.rows = j, 1
            if j > state.begin:
                run.first, run.rows = j - 1, 2
                sums[1] = sums[0]
                sums[0] = beta[j - 1]
            state.norm = sqrt(_each(run, address, partial, sums))
        while True:
            rows = state.step + 1
            if fresh:
                state.draws += 1
                run.op, run.columns = RANDOM, 1
                state.norm = sqrt(_each(run, address, partial, sums))
                if state.phase == START and state.warm != 0:
                    run.op, run.factor = MIX, _MIX / state.norm
                    state.norm = sqrt(_each(run, address, partial, sums))
            run.first, run.rows = 0, rows
            for sweep in range(_MAX_SWEEPS):
                run.op, run.columns = DOTS, rows
                _each(run, address, partial, sums)
                if not fresh:
                    alpha[rows - 1] += sums[rows - 1]
                    if sweep == 0:
                        worst = 0.0
                        for i in range(rows):
                            worst = max(worst, abs(sums[i]))
                        if worst > (_ASYMMETRY + 4.0 * state.tol) * state.scale:
                            state.status = NOT_SYMMETRIC
                            return DONE
                before = state.norm
                run.op, run.columns = SUBTRACT, 1
                state.norm = sqrt(_each(run, address, partial, sums))
                if state.norm > _DROP * before or (not fresh and state.norm <= BREAKDOWN * state.noise * state.scale):
                    break
            if fresh:
                if state.norm > 0.0:
                    state.phase = PRODUCT
                    break
                continue  # the random vector lay in the span of the basis: draw another
            small = state.norm <= BREAKDOWN * state.noise * state.scale or rows == run.size
            beta[rows - 1] = 0.0 if small else state.norm
            action = unit2(run.project, address, DECIDE)
            if action != LOCK:
                break
            unit2(run.project, address, LOCK)
            run.op = TURN
            unit3(run.all_blocks, address, 0, run.blocks)
            fresh = True

    if action == EXTRACT:
        unit2(run.project, address, EXTRACT)
        run.op = GATHER
        unit3(run.all_blocks, address, 0, run.blocks)
        state.phase = CHECK
        state.check = 0
        return MULTIPLY_VECTOR
    if action != NEXT and not fresh:
        unit2(run.project, address, action)
        run.op = TURN
        unit3(run.all_blocks, address, 0, run.blocks)
    state.step += 1
    run.op, run.factor = STORE, 1.0 / state.norm
    unit3(run.all_blocks, address, 0, run.blocks)
    return MULTIPLY_BASIS


def attach(records: Any, dtype: Any, spread: bool) -> Any:
    """Fill in the addresses of the code that RUN records need, and return the step's own unit."""
    records["block_op"], records["all_blocks"] = block_units(dtype, spread)
    records["project"] = compiled_unit(project, 2).address
    return compiled_unit(step, 1)
