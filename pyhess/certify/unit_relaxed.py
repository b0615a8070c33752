"""Lower bounds of a hidden unit's block over cells by a Lagrangian relaxation, the others anywhere in what is left of the ball.

With z = (p, e x p, delta x p) the polynomial of `unit_expansion` is a quadratic form but for the third order, which is at least
-tau/2 |M'(delta x p)|² - rho⁴ |p|²/(2 tau). For any Lam, Lam_k >= 0 and a cell with the middle q and half widths h,

    p'Lam p (R² - |q + e|² - |delta|²) >= 0,    p'Lam_k p (h_k² - e_k²) >= 0,

so the block has no eigenvalue below v where the form less both, less v |p|², is positive semi-definite. Between x p and p, x one
of the e_k and delta_l, the form has K for any K with K + K' = C, C the matrix along x, as p'K p counts. Delta of one unit meets
only itself, e and p in that matrix, so it is factorised unit by unit, then e, then p, by the C core (relaxed.cpp).

Where only terms of the first order count, the best ones for a mixture Z of directions p, with eigenvalues z_i, are known:

    K_ij = C_ij z_i / (z_i + z_j) in Z's eigenvectors,    L(S) = Z^-1/2 (Z^1/2 S Z^1/2)^1/2 Z^-1/2,
    Lam = L(sum_l K_l Z K_l') / (R² - |q|²)^1/2,    Lam_k = L(K_k Z K_k') / h_k for C_k + 2 q_k Lam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._native import CAPI, RELAXED_JOB_SIZE, address, raise_for_status, relaxed_scratch_size
from .._threads import PARALLEL_LOCK, num_workers
from ..kernels.jobs import share
from .unit_expansion import UnitExpansion
from .unit_others import OtherUnits

FloatArray = npt.NDArray[np.float64]

_FLOATS = ("scale_v", "target")
#: The record RelaxedJob of unit_relaxed.hpp, where the shapes are given.
_JOB = np.dtype(
    [
        (name, np.float64 if name in _FLOATS else np.int64)
        for name in (
            "x", "weights", "linear", "square", "cubic", "num_data", "dim", "num_units", "num_rows", "scale_v", "residual", "phi",
            "alpha", "beta", "outer", "half", "room", "left", "tilt", "ratio", "rounding", "cubic_rounding", "target", "bounds",
            "num_cells", "next", "scratch", "scratch_stride", "cancel",
        )
    ]
)  # fmt: skip
assert _JOB.itemsize == 8 * RELAXED_JOB_SIZE
#: Cells that are worth a thread.
_PER_THREAD = 8
_FUNCTIONS = np.array([CAPI["ph_relaxed_cells"]], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Situation:
    """Where cells (C,) are in the ball.

    Their half widths h (C, D), what they leave, rho (C,), (R² - |q|²)/rho², q_k h_k/rho² and h_k²/rho²; the third is rounded up
    for what the others are rounded by.
    """

    half: FloatArray
    room: FloatArray
    left: FloatArray
    tilt: FloatArray
    ratio: FloatArray


def relaxed_bounds(
    form: UnitExpansion, where: Situation, others: OtherUnits, x: FloatArray, weights: FloatArray, scale_v: float, target: float,
    stop: npt.NDArray[np.int32],
) -> FloatArray:  # fmt: skip
    """Proved bounds (C,), -inf where none was found or ``stop`` was set before; above ``target`` no better one is looked for."""
    count, size = where.half.shape
    bounds = np.full(count, -np.inf)
    threads = num_workers(-(-count // _PER_THREAD))
    scratch = np.zeros((threads, relaxed_scratch_size(len(x), size - 1, len(others.square)) + 8))
    arrays: dict[str, npt.NDArray[Any]] = {
        "x": x, "weights": weights, "linear": others.linear, "square": others.square, "cubic": others.cubic,
        "scratch": scratch, "bounds": bounds, "cancel": stop, **vars(form), **vars(where),
    }  # fmt: skip
    kept = {name: array if name == "cancel" else np.ascontiguousarray(array, dtype=np.float64) for name, array in arrays.items()}
    job = np.zeros(1, dtype=_JOB)
    for name, array in kept.items():
        job[name] = address(array)
    job["num_data"], job["dim"], job["num_units"], job["num_rows"] = len(x), size - 1, len(others.square), len(others.linear)
    job["scale_v"], job["target"], job["num_cells"], job["scratch_stride"] = scale_v, target, count, scratch.shape[1]
    with PARALLEL_LOCK:
        status = int(share(_FUNCTIONS, job, threads))
    raise_for_status(status, "bounds of cells")
    return bounds
