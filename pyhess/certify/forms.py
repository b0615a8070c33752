"""From per-datum bounds on a quadratic form in the sizes of a direction's parts to one number.

With t_l the norms of a direction's parts (its layers' blocks, or their weights and biases; sum t_l^2 = 1) the residual form of
every datum i is bounded by t'M_i t with M_i >= 0 entrywise, where the first layer enters through y_i = |V^1 x~_i| <= |x~_i| t_1.
The data average keeps y_i apart as long as possible: mean kap_i y_i^2 <= t_1^2 eigval_max(mean kap_i x~_i x~_i'), and
Cauchy-Schwarz for the mixed terms.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .intervals import gamma
from .spectral import eigval_max_bound

FloatArray = npt.NDArray[np.float64]


class FormSum:
    """Accumulates weighted forms over blocks of data; everything added is non-negative, so roundings are relative."""

    def __init__(self, parts: int, features: int, bias: bool) -> None:
        size = features + (1 if bias else 0)
        self._bias = bias
        self._plain = np.zeros((parts, parts))
        self._crude = np.zeros(parts)  # mixed terms with y_i replaced by |x~_i| t_1
        self._moments = np.zeros((parts, size, size))
        self._count = 0

    def add(self, forms: FloatArray, x: FloatArray, weights: FloatArray) -> None:
        """Add the forms M (n, parts, parts) of the data x (n, d) with weights w (n,)."""
        inputs = np.concatenate([x, np.ones((x.shape[0], 1))], axis=1) if self._bias else x
        lengths = np.sqrt((inputs**2).sum(axis=1))
        first = weights[:, None] * forms[:, 0, :]
        self._plain += np.einsum("n,nkl->kl", weights, forms)
        self._crude += (first * lengths[:, None]).sum(axis=0)
        for part in range(forms.shape[1]):
            if first[:, part].any():
                self._moments[part] += (inputs * first[:, part : part + 1]).T @ inputs
        self._count += x.shape[0]

    def form(self, scales: FloatArray) -> FloatArray:
        """Entries of the mean form in t; ``scales`` are the parts' factors κ_l from V to its effective block."""
        parts, size = self._plain.shape[0], self._moments.shape[1]
        if not (np.isfinite(self._plain).all() and np.isfinite(self._moments).all()):
            return np.full((parts, parts), np.inf)
        form = self._plain.copy()
        # The moment matrices are sums over data of rounded products: |error| <= gamma sum kap |x~||x~|', in norm at most the
        # trace.
        tops = [
            max(0.0, eigval_max_bound(moment)) + gamma(self._count + 16) * float(np.trace(moment)) for moment in self._moments
        ]
        form[0, 0] = tops[0]
        for part in range(1, parts):
            mixed = min(np.sqrt(tops[part] * self._plain[0, part]), self._crude[part])
            form[0, part] = form[part, 0] = mixed
        bound: FloatArray = form * np.outer(scales, scales) * (1.0 + gamma(3 * self._count + 4 * size + 64 * parts + 256))
        return bound

    def bound(self, scales: FloatArray) -> float:
        """Upper bound of the form over unit t."""
        return largest(self.form(scales))


def largest(form: FloatArray) -> float:
    """Upper bound of t'Mt over unit t, for M >= 0 entrywise."""
    if not np.isfinite(form).all():
        return float("inf")
    return max(0.0, eigval_max_bound(form)) * (1.0 + gamma(8))
