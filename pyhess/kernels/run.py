"""The memory of a Lanczos run: what is kept per result (STATE) and per worker (RUN)."""

from __future__ import annotations

import numpy as np

# Which end of the spectrum, as in ARPACK.
SA, LA, LM, BE = 0, 1, 2, 3

# Phases of a run: what the next step has to do.
START, PRODUCT, CHECK = 0, 1, 2

# How a run stands or ended.
RUNNING, CONVERGED, MAX_ITERATIONS, NONFINITE, STAGNATED, NOT_SYMMETRIC, CANCELLED = 0, 1, 2, 3, 4, 5, 6

# What to do with the basis after a step.
NEXT, RESTART, LOCK, EXTRACT = 0, 1, 2, 3

# What a step asks for.
DONE, MULTIPLY_BASIS, MULTIPLY_VECTOR = 0, 1, 2

# What may be done to a block of the vectors; see blocks.py.
LOAD, DOTS, SUBTRACT, RANDOM, MIX, STORE, TURN, GATHER, CHECK_SUMS, RESIDUAL, LARGEST = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10

#: Attempts to meet the tolerance by a fresh product after the recurrence has met it.
MAX_RETRIES = 3

#: Elements per block of a vector; even, because normal deviates come in pairs.
BLOCK = 4096

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

_ADDRESSES = (
    "state",  # (1,) STATE
    "basis",  # (m, P) T, rows
    "vectors",  # (k, P) T, the result
    "product",  # (P,) T, what the operator made of the vector asked for last
    "values",  # (k,)
    "residuals",  # (k,)
    "alpha",  # (m,) diagonal of the projected matrix
    "beta",  # (m,) off-diagonal; the last one in use is the norm of the remainder
    "known",  # (m,) ascending Ritz values of the locked vectors
    "remainder",  # (P,) float64
    "partial",  # (blocks, width) sums by blocks of the vectors
    "sums",  # (width,) their totals, and the coefficients of SUBTRACT
    "small",  # (4, width) scratch
    "weights",  # (m, turned) coefficients of TURN and GATHER
    "block_op",  # code for some blocks, see blocks.py
    "all_blocks",  # code that does so for all blocks, on one core or on all
    "project",  # code for the small projected problem, see ritz.py
)
_SIZES = (
    "size",  # P
    "capacity",  # m
    "blocks",
    "width",  # m + 2
    "turned",  # columns of weights
    "op",  # what to do to the blocks
    "first",  # first basis vector that takes part
    "rows",  # how many do
    "columns",  # sums or new vectors made
)

#: One record per worker; P the size, m the capacity of the basis, k the pairs wanted, T the products' type.
RUN = np.dtype([(name, np.int64) for name in (*_ADDRESSES, *_SIZES)] + [("factor", np.float64)])
