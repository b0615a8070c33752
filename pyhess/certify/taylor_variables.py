"""The numbers among what is chosen besides matrices, as variables of the quasi-Newton steps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .taylor_top import State

FloatArray = npt.NDArray[np.float64]

#: Values of a choice that is not one, relative to the largest of others.
FAR = 10.0
#: No share is nearer to one while it is looked for.
_LARGEST_SHARE = 0.999
#: The range of the weights' logarithms.
_LOGARITHMS = 20.0


def weights_of(logarithms: FloatArray) -> FloatArray:
    """Weights, the largest of them one."""
    return np.asarray(np.exp(np.clip(logarithms - logarithms.max(), -_LOGARITHMS, 0.0)))


class Scalars:
    """The logit of eta, and log tau where there is one, times a pace: for steps as long as in the multipliers."""

    def __init__(self, size: int, start: State) -> None:
        self._start, self._pace = start, 0.5 * float(np.sqrt(size))

    @property
    def count(self) -> int:
        """How many."""
        return 1 if self._start.tau is None else 2

    def first(self) -> FloatArray:
        """Where the start is."""
        share = min(self._start.share, _LARGEST_SHARE)
        numbers = [np.log(share / (1.0 - share)), *([] if self._start.tau is None else [np.log(self._start.tau)])]
        return self._pace * np.array(numbers)

    def split(self, z: FloatArray) -> tuple[float, float | None]:
        """Eta and tau."""
        logit, *logarithm = np.clip(z / self._pace, -300.0, 300.0)
        tau = float(np.exp(logarithm[0])) if logarithm else None
        return float(1.0 / (1.0 + np.exp(-logit))), tau

    def slopes(self, of_share: float, of_log_tau: float, share: float) -> FloatArray:
        """The derivatives in the variables, from those in eta and log tau."""
        return np.array([of_share * share * (1.0 - share), of_log_tau][: self.count]) / self._pace
