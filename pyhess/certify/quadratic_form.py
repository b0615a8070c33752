"""The sums over the data that `quadratic` puts together to a form in a direction's units, and its matrix for multipliers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from .forms import top_eigenvalues
from .intervals import Interval, gamma, norms
from .middles import Middles
from .propagate import Cell, Propagation

FloatArray = npt.NDArray[np.float64]

#: Multipliers are kept within these powers of ten, and shares above the smallest.
_RANGE, _SMALL = 1e6, 1e-9
#: Roundings of an entry at most, in parts of the sum of its terms' sizes: data times parameters are limited.
_ROUNDING = gamma(2**24)
#: More than what underflows, whatever the multipliers.
_UNDERFLOW = 1e-250
#: Steps towards the weights e of the units.
_BALANCING = 3


@dataclass(frozen=True)
class Spread:
    """Of numbers c_ij, what bounds weighted squares of the terms of sdot that are not known, for a stack of cells (B, ...).

    ``own`` (B, m2) multiplies |u_j|²; ``moved`` (B, m1, d, d) is a form in v_k; ``steep`` (B, m1, m1, d, d), weighted with
    e_l/e_k, is one in v_k as well.
    """

    own: FloatArray
    moved: FloatArray
    steep: FloatArray

    def of(self, at: npt.NDArray[np.int64]) -> Spread:
        """Those of some cells."""
        return Spread(self.own[at], self.moved[at], self.steep[at])


@dataclass(frozen=True)
class Form:
    """The mean over the data for a stack of cells (B, ...), in (v_1, …, u_1, b_1, …, w_11, …).

    ``linear`` (B, Q, Q) what has no multipliers; ``curved`` (B, Q, Q) the sum of kap_ij S_ij S_ij' with ``curved_spread``;
    ``pair`` (B, m2, m1) and ``pair_form`` (B, m2, m1, d, d) the radii of delta g; ``last`` (B, K, m2) and ``last_form``
    (B, m2, Q, Q) those of r phi'; ``whole`` (B, K, m2) the sizes of r phi' with ``whole_spread``; ``size`` (B,) bounds the norm
    of what is summed in ``linear``, in absolute values.
    """

    linear: FloatArray
    curved: FloatArray
    curved_spread: Spread
    pair: FloatArray
    pair_form: FloatArray
    last: FloatArray
    last_form: FloatArray
    whole: FloatArray
    whole_spread: Spread
    size: FloatArray

    def of(self, at: npt.NDArray[np.int64]) -> Form:
        """Those of some cells."""
        kept: dict[str, Any] = {x.name: getattr(self, x.name) for x in fields(self)}
        chosen: dict[str, Any] = {name: x.of(at) if isinstance(x, Spread) else x[at] for name, x in kept.items()}
        return Form(**chosen)

    def matrix(self, density: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(M, a bound of its rounding errors) for the multipliers that are best for a density (B, Q, Q)."""
        units, below = self.pair.shape[1:]
        outputs, size = self.last.shape[1], self.linear.shape[-1]
        inputs = self.pair_form.shape[-1]
        first = below * inputs
        bias = (size - first - outputs * units) // units - below
        at = np.arange(size)
        u = at[first : first + units * (below + bias)].reshape(units, -1)[:, :below]
        w = at[size - outputs * units :].reshape(outputs, units)
        v = at[:first].reshape(below, inputs)
        rows, columns = v[:, :, None], v[:, None, :]
        of_v = density[:, rows, columns]
        of_u, of_w = (np.maximum(density[:, x, x], 0.0) for x in (u, w))
        matrix = self.linear.copy()
        on_v, on_u, on_w = np.zeros_like(of_v), np.zeros_like(of_u), np.zeros_like(of_w)

        def spread(of: Spread, weights: tuple[FloatArray, FloatArray, FloatArray], e: FloatArray) -> None:
            nonlocal on_v, on_u
            own, moved, steep = weights
            on_u += (of.own * own)[:, :, None]
            on_v += of.moved * moved[:, None, None, None]
            ratio = e[:, None, :] / e[:, :, None]
            on_v += np.einsum("bklpq,bkl->bkpq", of.steep, ratio) * steep[:, None, None, None]

        # The curved terms of the second layer.
        e, steep = _balanced(self.curved_spread, of_v)
        traces = [_trace(self.curved, density), (self.curved_spread.own * of_u.sum(axis=-1)).sum(axis=-1)]
        traces += [_trace(self.curved_spread.moved, of_v).sum(axis=-1), steep]
        roots = np.sqrt(np.maximum(np.stack(traces), 0.0))
        roots = np.maximum(roots, _SMALL * roots.sum(axis=0) + 1e-280)
        inverse = roots.sum(axis=0) / roots
        matrix += self.curved * inverse[0][:, None, None]
        spread(self.curved_spread, (inverse[1][:, None], inverse[2], inverse[3]), e)
        # The radii of delta g.
        mu = _ratio(self.pair * of_u, _trace(self.pair_form, of_v[:, None]))
        on_u += self.pair / mu
        on_v += (self.pair_form * mu[..., None, None]).sum(axis=1)
        # The radii of r phi'.
        nu = _ratio((self.last * of_w).sum(axis=1), _trace(self.last_form, density[:, None]))
        on_w += self.last / nu[:, None, :]
        matrix += np.einsum("bjpq,bj->bpq", self.last_form, nu)
        # r phi' with what is not known of sdot.
        e, steep = _balanced(self.whole_spread, of_v)
        weight = (self.whole * of_w).sum(axis=1)
        t = _ratio(weight, self.whole_spread.own * of_u.sum(axis=-1))
        total = weight.sum(axis=-1)
        moved, turned = _ratio(total, _trace(self.whole_spread.moved, of_v).sum(axis=-1)), _ratio(total, steep)
        on_w += self.whole * (1.0 / t + (1.0 / moved + 1.0 / turned)[:, None])[:, None, :]
        spread(self.whole_spread, (t, moved, turned), e)
        # All that was added is positive semi-definite, so that its roundings are at most a share of its trace.
        matrix[:, u, u] += on_u
        matrix[:, w, w] += on_w
        matrix[:, rows, columns] += on_v
        trace = np.trace(matrix - self.linear, axis1=-2, axis2=-1)
        return matrix, _ROUNDING * (trace + self.size) + _UNDERFLOW


def form_of(cell: Cell, bounds: Propagation, middle: Middles, x: FloatArray, weights: FloatArray, cells: int) -> Form:
    """The sums over the data x (n, d), for a stack of ``cells`` cells."""
    net, rows = cell.net, x.shape[0]
    inputs = np.concatenate([x, np.ones((rows, 1))], axis=1) if net.bias else x
    below, units, outputs = net.widths[1:]
    mass = weights[:, None]
    # The direction's blocks enter with their layers' factors.
    first, second, third = net.layer_scales
    scaled = first * inputs

    def stacked(z: FloatArray, axes: int) -> FloatArray:
        return np.broadcast_to(z.reshape(-1, *z.shape[z.ndim - axes :]), (cells, *z.shape[z.ndim - axes :]))

    def interval(z: Interval) -> Interval:
        return Interval(stacked(z.lo, 2), stacked(z.hi, 2))

    still, centre = interval(middle.activations[0]), stacked(cell.blocks[1].weight.middle, 2)
    slope, above = interval(bounds.slope[0]), interval(bounds.slope[1])
    delta, residual = interval(bounds.delta[1]), interval(bounds.delta[2])
    steepest = stacked(middle.steepest[0], 1)
    size = below * inputs.shape[1] + units * (below + int(net.bias)) + outputs * units
    at = np.arange(size)
    v = at[: below * inputs.shape[1]].reshape(below, -1)
    u = at[v.size : size - outputs * units].reshape(units, -1)
    w = at[size - outputs * units :].reshape(outputs, units)

    # S (B, n, m2, Q)
    s = np.zeros((cells, rows, units, size))
    through = centre[:, None] * slope.middle[:, :, None, :]
    for j in range(units):
        s[:, :, j, v] = through[:, :, j, :, None] * scaled[None, :, None, :]
        s[:, :, j, u[j, :below]] = second * still.middle
        s[:, :, j, u[j, below:]] = second
    # Mixed terms: delta g (B, n, m2, m1), r phi' (B, n, K, m2).
    pairs = _products(delta, slope)
    lasts = _products(residual, above)
    linear = np.zeros((cells, size, size))
    pair_middle, last_middle = pairs.middle * mass[..., None], lasts.middle * mass[..., None]
    found = second * np.einsum("bijk,ip->bjkp", pair_middle, scaled)
    for j in range(units):
        for k in range(below):
            linear[:, u[j, k], v[k]] -= found[:, j, k]
    linear[:, w] -= third * np.einsum("bioj,bijq->bojq", last_middle, s)
    linear = linear + linear.swapaxes(-1, -2)
    lengths, reach = norms(scaled), norms(s)
    total = 2.0 * second * np.einsum("bijk,i->b", np.abs(pair_middle), lengths)
    total = total + 2.0 * third * np.einsum("bioj,bij->b", np.abs(last_middle), reach)
    # The first layer's curved terms keep their sign.
    bent = -stacked(bounds.curved[0].lo, 2) * mass
    outer = scaled[:, :, None] * scaled[:, None, :]
    linear[:, v[:, :, None], v[:, None, :]] += np.einsum("bik,ipq->bkpq", bent, outer)
    total = total + np.einsum("bik,i->b", np.abs(bent), lengths**2)

    distance = [stacked(middle.distance[layer], 1) for layer in (0, 1)]
    sharp = slope.magnitude

    def spread(c: FloatArray) -> Spread:
        moments = np.einsum("bij,bi,ip,iq->bjpq", c, steepest**2, inputs, inputs, optimize=True)
        blur = (c * (norms(still.radius) ** 2)[:, :, None]).sum(axis=1)
        own = (second * (distance[0] * np.sqrt(top_eigenvalues(moments, rows)) + np.sqrt(blur))) ** 2
        moved = distance[1][:, :, None, None] ** 2 * np.einsum("bi,bik,ipq->bkpq", c.max(axis=2), sharp**2, outer)
        between = np.abs(np.einsum("bjk,bij,bjl->bikl", centre, c, centre))
        radius = slope.radius
        between = between + gamma(units + 8) * np.einsum("bjk,bij,bjl->bikl", np.abs(centre), c, np.abs(centre))
        between = between * radius[..., :, None] * radius[..., None, :]
        return Spread(own, moved, np.einsum("bikl,ipq->bklpq", between, outer))

    kap = np.maximum(0.0, -stacked(bounds.curved[1].lo, 2)) * mass
    pair_radius, last_radius = pairs.radius * mass[..., None], lasts.radius * mass[..., None]
    whole = np.abs(last_middle) + last_radius
    return Form(
        linear,
        np.einsum("bij,bijp,bijq->bpq", kap, s, s, optimize=True),
        spread(kap),
        second**2 * pair_radius.sum(axis=1),
        np.einsum("bijk,ipq->bjkpq", pair_radius, outer),
        third**2 * last_radius.sum(axis=1),
        np.einsum("bij,bijp,bijq->bjpq", last_radius.sum(axis=2), s, s, optimize=True),
        third**2 * whole.sum(axis=1),
        spread(whole.sum(axis=2)),
        total,
    )


def _products(one: Interval, other: Interval) -> Interval:
    """All products (B, n, k, l) of numbers (B, n, k) and (B, n, l)."""
    return one[..., :, None] * other[..., None, :]


def _trace(forms: FloatArray, density: FloatArray) -> FloatArray:
    """The products <form, density> of matrices."""
    total: FloatArray = np.einsum("...pq,...pq->...", forms, np.broadcast_to(density, forms.shape))
    return np.maximum(total, 0.0)


def _ratio(one: FloatArray, other: FloatArray) -> FloatArray:
    """The best t for one/t + t other."""
    found: FloatArray = np.sqrt(np.maximum(one, 1e-280) / np.maximum(other, 1e-280))
    return np.clip(found, 1.0 / _RANGE, _RANGE)


def _balanced(of: Spread, density: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weights e (B, m1) that make sum_kl e_l/e_k <steep_kl, density_k> small, and that sum."""
    share = _trace(of.steep, density[:, :, None])
    share = share + 1e-12 * share.sum(axis=(1, 2), keepdims=True) + 1e-120
    e = np.sqrt(np.einsum("bkk->bk", share))
    for _ in range(_BALANCING):
        high, low = np.einsum("bkl,bl->bk", share, e), np.einsum("blk,bl->bk", share, 1.0 / e)
        e = np.sqrt(high / low)
    e = np.clip(e / e.max(axis=1, keepdims=True), 1.0 / _RANGE, 1.0)
    return e, np.einsum("bkl,bk,bl->b", share, 1.0 / e, e)
