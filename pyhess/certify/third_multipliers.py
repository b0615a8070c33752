"""What the bound by third derivatives was proved with, as a certificate keeps it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ThirdMultipliers:
    """Numbers that prove a bound whatever they are, and a good one if they are good.

    Attributes
    ----------
    lam : (P, P) array
        Lam, symmetric and positive definite.
    halves : (P, P, P) array
        U_k. U_k + U_k' is what is taken for the third derivatives; what they differ from it goes to the diagonal q.
    weights : (P,) array
        w > 0, which q is made for.
    """

    lam: FloatArray
    halves: FloatArray
    weights: FloatArray
