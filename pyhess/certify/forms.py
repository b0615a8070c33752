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
from .spectral import eigvals_max_bound

FloatArray = npt.NDArray[np.float64]


class FormSum:
    """Accumulates weighted forms over blocks of data; everything added is non-negative, so roundings are relative."""

    def __init__(self, parts: int, features: int, bias: bool) -> None:
        size = features + (1 if bias else 0)
        self._bias = bias
        self._plain = np.zeros((parts, parts))
        self._crude = np.zeros(parts)  # mixed terms with y_i replaced by |x~_i| t_1
        self._moments = [np.zeros((size, size))] * parts
        self._count = 0

    def add(self, forms: FloatArray, x: FloatArray, weights: FloatArray) -> None:
        """Add the forms M (..., n, parts, parts) of the data x (n, d) with weights w (n,), for every cell of a stack (...)."""
        inputs = np.concatenate([x, np.ones((x.shape[0], 1))], axis=1) if self._bias else x
        lengths = np.sqrt((inputs**2).sum(axis=1))
        first = weights[:, None] * forms[..., 0, :]
        self._plain = self._plain + np.einsum("n,...nkl->...kl", weights, forms)
        self._crude = self._crude + (first * lengths[:, None]).sum(axis=-2)
        for part, moment in enumerate(self._moments):
            if first[..., part].any():
                self._moments[part] = moment + np.swapaxes(inputs * first[..., part, None], -1, -2) @ inputs
        self._count += x.shape[0]

    def form(self, scales: FloatArray) -> FloatArray:
        """Entries (..., parts, parts) of the mean form in t; ``scales`` are the parts' factors κ_l from V to its effective block."""
        moments = np.stack(np.broadcast_arrays(*self._moments), axis=-3)
        parts, size = moments.shape[-3:-1]
        finite = np.isfinite(self._plain).all(axis=(-2, -1)) & np.isfinite(moments).all(axis=(-3, -2, -1))
        form = np.where(finite[..., None, None], self._plain, 0.0)
        moments = np.where(finite[..., None, None, None], moments, 0.0)
        # The moment matrices are sums over data of rounded products: |error| <= gamma sum kap |x~||x~|', in norm at most the
        # trace.
        tops = np.maximum(0.0, eigvals_max_bound(moments)) + gamma(self._count + 16) * np.trace(moments, axis1=-2, axis2=-1)
        mixed = np.minimum(np.sqrt(tops[..., 1:] * form[..., 0, 1:]), self._crude[..., 1:])
        form[..., 0, 0] = tops[..., 0]
        form[..., 0, 1:] = form[..., 1:, 0] = mixed
        bound: FloatArray = form * np.outer(scales, scales) * (1.0 + gamma(3 * self._count + 4 * size + 64 * parts + 256))
        return np.where(finite[..., None, None], bound, np.inf)

    def bound(self, scales: FloatArray) -> float:
        """Upper bound of the form over unit t."""
        return float(largest(self.form(scales)))


def largest(form: FloatArray) -> FloatArray:
    """Upper bounds (...) of t'Mt over unit t, for M >= 0 entrywise (..., parts, parts)."""
    return np.maximum(0.0, eigvals_max_bound(form)) * (1.0 + gamma(8))
