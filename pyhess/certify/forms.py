"""From per-datum bounds on a quadratic form in the sizes of a direction's parts to one number.

With t_l the norms of a direction's parts (its layers' blocks, or their weights and biases; sum t_l^2 = 1) the residual form of
every datum i is bounded by t'M_i t with M_i >= 0 entrywise, where the first layer enters through y_i = |V^1 x~_i| <= |x~_i| t_1.
The data average keeps y_i apart as long as possible: mean kap_i y_i^2 <= t_1^2 eigval_max(mean kap_i x~_i x~_i'), and
Cauchy-Schwarz for the mixed terms. `HiddenSum` does the same for later layers, which enter through |V^{l+1} a^l_i|.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .intervals import gamma, norms
from .middles import Middles
from .spectral import eigvals_max_bound

FloatArray = npt.NDArray[np.float64]


#: Sizes |a_i| that are taken for at least this, so that their squares can be divided by.
_SMALL = 1e-60


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
        """Entries (..., parts, parts) of the mean form in t; ``scales`` are the parts' factors κ_l to their effective blocks."""
        moments = np.stack(np.broadcast_arrays(*self._moments), axis=-3)
        parts, size = moments.shape[-3:-1]
        finite = np.isfinite(self._plain).all(axis=(-2, -1)) & np.isfinite(moments).all(axis=(-3, -2, -1))
        form = np.where(finite[..., None, None], self._plain, 0.0)
        moments = np.where(finite[..., None, None, None], moments, 0.0)
        tops = top_eigenvalues(moments, self._count)
        mixed = np.minimum(np.sqrt(tops[..., 1:] * form[..., 0, 1:]), self._crude[..., 1:])
        form[..., 0, 0] = tops[..., 0]
        form[..., 0, 1:] = form[..., 1:, 0] = mixed
        bound: FloatArray = form * np.outer(scales, scales) * (1.0 + gamma(3 * self._count + 4 * size + 64 * parts + 256))
        return np.where(finite[..., None, None], bound, np.inf)

    def bound(self, scales: FloatArray) -> float:
        """Upper bound of the form over unit t."""
        return float(largest(self.form(scales)))


class HiddenSum:
    """The entries of one column, that of the weights of a layer above the first, once more, by what the data have in common.

    Where a form has kap_i z_i, z_i = |V^{l+1} a^l_i|, the middles and moments of `middles` bound Z(kap)² >= sum_i kap_i z_i² for
    |V^{l+1}| = 1: entries kap_i z_i² by Z(kap)², kap_i z_i by (sum kap_i)^(1/2) Z(kap), kap_i y_i z_i by Y(kap) Z(kap).
    """

    def __init__(self, layer: int, column: int, parts: int, features: int, bias: bool) -> None:
        size = features + (1 if bias else 0)
        self._layer, self._column, self._bias = layer, column, bias
        self._plain = np.zeros(parts)
        self._still = [np.zeros(parts)] * layer  # sums with |a^c_i|² of the layers 1 … l
        self._ones = [np.zeros(parts)] * layer
        self._moments = [np.zeros((size, size))] * (parts + 1)  # the last is that of y
        self._distance: list[FloatArray] = []
        self._size: list[FloatArray] = []
        self._count = 0

    def add(self, forms: FloatArray, sizes: FloatArray, middle: Middles, x: FloatArray, weights: FloatArray) -> None:
        """Add the forms M (..., n, parts, parts), which hold |a_i| as ``sizes`` (..., n), of the data x (n, d)."""
        inputs = np.concatenate([x, np.ones((x.shape[0], 1))], axis=1) if self._bias else x
        inverse = 1.0 / np.maximum(sizes, _SMALL)
        kap = weights[:, None] * forms[..., self._column, :] * inverse[..., None]
        kap[..., self._column] *= inverse
        self._plain = self._plain + kap.sum(axis=-2)
        moved = kap
        for below in reversed(range(self._layer)):
            still = np.maximum(norms(middle.activations[below].magnitude), _SMALL)[..., None] ** 2
            self._still[below] = self._still[below] + (moved * still).sum(axis=-2)
            moved = moved * middle.steepest[below][..., None] ** 2
            self._ones[below] = self._ones[below] + moved.sum(axis=-2)
        moved = np.concatenate([moved, kap[..., :1]], axis=-1)
        for part, moment in enumerate(self._moments):
            self._moments[part] = moment + np.swapaxes(inputs * moved[..., part, None], -1, -2) @ inputs
        self._distance, self._size = middle.distance, middle.spectral
        self._count += x.shape[0]

    def form(self, scales: FloatArray) -> FloatArray:
        """Bounds (..., parts, parts) of the mean form's entries, infinite where there are none."""
        moments = np.stack(np.broadcast_arrays(*self._moments), axis=-3)
        column, parts, size = self._column, self._plain.shape[-1], moments.shape[-1]
        known = np.isfinite(moments).all(axis=(-3, -2, -1))
        tops = top_eigenvalues(np.where(known[..., None, None, None], moments, 0.0), self._count)
        moved = self._distance[0] * np.sqrt(tops[..., :-1])
        for below in range(self._layer - 1):
            z = np.sqrt(self._still[below]) + moved
            both = z**2 + self._ones[below + 1] if self._bias else z**2
            moved = self._distance[below + 1] * np.sqrt(both) + self._size[below + 1] * moved
        z = np.sqrt(self._still[-1]) + moved
        row = np.sqrt(self._plain) * z
        row[..., 0] = np.sqrt(tops[..., -1]) * z[..., 0]
        row[..., column] = z[..., column] ** 2
        form = np.full((*row.shape, parts), np.inf)
        form[..., column, :] = form[..., :, column] = row
        rounding = gamma((3 + self._layer) * self._count + 4 * size + 64 * parts + 64 * self._layer + 256)
        bound: FloatArray = form * np.outer(scales, scales) * (1.0 + rounding)
        return np.where(known[..., None, None] & ~np.isnan(bound), bound, np.inf)


def top_eigenvalues(moments: FloatArray, count: int) -> FloatArray:
    """Bounds of the largest eigenvalues of sums of ``count`` rounded products.

    |error| <= gamma sum kap |x~||x~|', in norm at most the trace.
    """
    tops: FloatArray = np.maximum(0.0, eigvals_max_bound(moments)) + gamma(count + 16) * np.trace(moments, axis1=-2, axis2=-1)
    return tops


def largest(form: FloatArray) -> FloatArray:
    """Upper bounds (...) of t'Mt over unit t, for M >= 0 entrywise (..., parts, parts)."""
    return np.maximum(0.0, eigvals_max_bound(form)) * (1.0 + gamma(8))
