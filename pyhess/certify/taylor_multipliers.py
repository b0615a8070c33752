"""What the bound by the Taylor polynomial was proved with, as a certificate keeps it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TaylorMultipliers:
    """Numbers that prove a bound whatever they are, and a good one if they are good.

    Attributes
    ----------
    lam : (P, P) array
        Lam, symmetric.
    turned : (P, P, P) array
        A_k, antisymmetric.
    share : float
        eta, the part of the squares that pays for what their roots leave out, 0 < eta <= 1.
    tau : float, optional
        What divides the cubic term between delta x v and delta x delta x v, > 0; none with polynomials of the second order.
    weights : (P,) array
        w > 0, which q is made for.
    lowered : (n, H) array
        What is taken off dL/da phi'' of every datum and hidden unit, with the data's weights.
    kept : (n,) array
        The parts of the data's squares that count, from 0 to 1.
    by_units : bool
        Whether the polynomials are those of one hidden layer's units, of the third order. What they leave out is then bounded
        with the weights of the output weights v_kj, and with that of every unit's first number for its sigma_ij.
    """

    lam: FloatArray
    turned: FloatArray
    share: float
    tau: float | None
    weights: FloatArray
    lowered: FloatArray
    kept: FloatArray
    by_units: bool = False

    @property
    def order(self) -> int:
        """The order of the polynomials."""
        return 2 if self.tau is None else 3
