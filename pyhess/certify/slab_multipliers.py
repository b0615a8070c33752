"""What the bound by Taylor polynomials over slabs of a ball was proved with, as a certificate keeps it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .taylor_multipliers import TaylorMultipliers

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Slab:
    """One slab of a ball of radius R about c, and the numbers that prove a bound there.

    With the cover's direction d, the slab is {c + R t d + y : low <= t <= high, y . d = 0, |y|² <= R² (1 - t² |d|²)}.

    Attributes
    ----------
    low, high : float
        -1 <= low < high <= 1.
    along : (P, P) array
        S, symmetric, for (t - (low + high)/2)² <= ((high - low)/2)².
    narrow : float
        omega, 0 < omega <= 1, which the cubic term's columns along d are multiplied by.
    taylor : TaylorMultipliers
        The others, of the polynomial about the slab's centre c + R (low + high)/2 d; Lam is for |y|.
    """

    low: float
    high: float
    along: FloatArray
    narrow: float
    taylor: TaylorMultipliers


@dataclass(frozen=True, eq=False)
class SlabMultipliers:
    """Slabs that cover a ball.

    Attributes
    ----------
    direction : (P,) array
        d, |d| >= 1 (by very little, so that |t| <= 1 in all of the ball).
    slabs : tuple of Slab
        By their place, each beginning where the one before ends, from -1 to 1.
    """

    direction: FloatArray
    slabs: tuple[Slab, ...]
