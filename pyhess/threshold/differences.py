"""Midpoint gaps of the loss on short segments, computed without subtracting nearly equal numbers.

On the segment m - d, m, m + d every quantity x of the network is carried as its value at the middle, an even part e and an odd
part o, so that the values at the ends are ``x + e ± o``. Linear layers map these parts exactly,

    s = k (W a + b),   s_o = k (W a_o + D (a + a_e) + db),   s_e = k (W a_e + D a_o),

and activations map them through integrals of phi' and phi'' over the short way between the points,

    phi_o = o/2 ∫_{-1}^{1} phi'(c + t o) dt,                                              c = s + e,
    phi_e = e ∫_0^1 phi'(s + t e) dt + o²/2 ∫_{-1}^{1} (1 - |t|) phi''(c + t o) dt,

by Gauss-Legendre quadrature. The even part of the loss is the midpoint gap with its sign changed. Its relative error does not
depend on the length of the segment, whereas the difference of three losses loses all digits on short ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .._threads import blas_single_thread
from . import reference_functions as functions
from .reference_jet import data_blocks, layer_factors, split
from .roundoff import Approx, FloatArray, affine, join, weighted_mean

if TYPE_CHECKING:
    from ..objective import Objective

BoolArray = npt.NDArray[np.bool_]

#: Nodes and weights on [0, 1]. For the parts allowed below, eight nodes leave a relative error under 1e-18.
_NODES, _WEIGHTS = (0.5 * (np.polynomial.legendre.leggauss(8)[0] + 1.0), 0.5 * np.polynomial.legendre.leggauss(8)[1])
_QUADRATURE_ERROR = 1e-17
#: Largest even or odd part (times beta for softplus) for which this is used; longer segments need no such care.
LARGEST_PART = 0.25


@dataclass(frozen=True, eq=False)
class Parts:
    """Value at the middle, even part and odd part."""

    middle: Approx
    even: Approx
    odd: Approx

    @property
    def size(self) -> float:
        """Largest even or odd part."""
        return max(float(self.even.magnitude.max()), float(self.odd.magnitude.max()))


def midpoint_gap(obj: Objective, m: FloatArray, d: FloatArray) -> tuple[float, float] | None:
    """Return ``L(m) - (L(m - d) + L(m + d))/2`` and a bound of its error, or None if the segment is too long for this."""
    gaps = []
    with blas_single_thread():
        for rows in data_blocks(obj):
            parts = _network(obj, m, d, obj.data.X[rows])
            if parts is None or parts.size > LARGEST_PART:
                return None
            gaps.append(-_loss_even(obj.loss, parts, obj.targets[rows]))
    gap, error = weighted_mean(join(gaps), obj.data.weights)
    return float(gap), error


def _network(obj: Objective, m: FloatArray, d: FloatArray, x: FloatArray) -> Parts | None:
    none = Approx.exact(np.zeros_like(x))
    a = Parts(Approx.exact(x), none, none)
    for layer, ((w, b), (dw, db), factor) in enumerate(
        zip(split(obj.net, m), split(obj.net, d), layer_factors(obj.net, np.float64), strict=True)
    ):
        s = Parts(
            affine([(a.middle, w)], b, factor),
            affine([(a.even, w), (a.odd, dw)], None, factor),
            affine([(a.odd, w), (a.middle, dw), (a.even, dw)], db, factor),
        )
        if layer == obj.net.num_layers - 1:
            return s
        activation, beta = obj.net.activations[layer], obj.net.betas[layer]
        if activation == "relu":
            a = _relu(s)
        elif activation == "identity":
            a = s
        elif beta * s.size > LARGEST_PART:
            return None
        else:
            a = _smooth(activation, beta, s)
    raise AssertionError("the last layer returns")


def _smooth(activation: str, beta: float, s: Parts) -> Parts:
    """Parts of phi(s) by quadrature."""
    centre = s.middle + s.even
    along_even = along_odd = bend = Approx.exact(np.zeros_like(s.middle.value))
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        _, first, _ = _derivatives(activation, beta, s.middle + s.even.scale(node))
        along_even = along_even + first.scale(weight)
        for offset in (s.odd.scale(node), s.odd.scale(-node)):
            _, first, second = _derivatives(activation, beta, centre + offset)
            along_odd = along_odd + first.scale(0.5 * weight)
            bend = bend + second.scale(0.5 * weight * (1.0 - node))
    value = functions.apply(activation, beta, s.middle)
    along_even, along_odd, bend = (_widen(x, 1.0 + beta) for x in (along_even, along_odd, bend))
    return Parts(value, s.even * along_even + s.odd * s.odd * bend, s.odd * along_odd)


def _derivatives(activation: str, beta: float, s: Approx) -> tuple[Approx, Approx, Approx]:
    value, first, second = functions.apply_twice_differentiated(activation, beta, s)
    assert second is not None, "smooth activations have a second derivative"
    return value, first, second


def _widen(x: Approx, scale: float) -> Approx:
    return Approx(x.value, x.error + _QUADRATURE_ERROR * scale)


def _relu(s: Parts) -> Parts:
    """Parts of relu(s): the parts themselves where all three points are on one side, direct differences elsewhere."""
    centre = s.middle + s.even
    points = (s.middle, centre + s.odd, centre - s.odd)
    on = np.logical_and.reduce([p.value > p.error for p in points])
    off = np.logical_and.reduce([p.value < -p.error for p in points])
    middle, second, first = (functions.apply("relu", 1.0, p) for p in points)
    even = (second + first).scale(0.5) - middle
    odd = (second - first).scale(0.5)
    return Parts(middle, _select(on, off, s.even, even), _select(on, off, s.odd, odd))


def _select(on: BoolArray, off: BoolArray, linear: Approx, direct: Approx) -> Approx:
    value = np.where(on, linear.value, np.where(off, 0.0, direct.value))
    return Approx(value, np.where(on, linear.error, np.where(off, 0.0, direct.error)))


def _loss_even(loss: str, f: Parts, targets: FloatArray) -> Approx:
    """Even part of the loss of every datum: the mean of its values at the two ends minus the value at the middle."""
    e, o = f.even, f.odd
    if loss == "squared_error":
        residual = f.middle.shift(-targets)
        return (residual * e).row_sums() + (e * e + o * o).row_sums().scale(0.5)
    p = functions.sigmoid(f.middle) if loss == "logistic" else functions.softmax(f.middle)
    # The loss at f + y exceeds the one at f by log(1 + sum p (exp(y) - 1)) minus a linear term.
    grown, shrunk = functions.expm1(e + o), functions.expm1(e - o)
    half = functions.sinh(o.scale(0.5))
    both = (functions.expm1(e) * functions.cosh(o)).scale(2.0) + (half * half).scale(4.0)
    total = (p * both).row_sums() + (p * grown).row_sums() * (p * shrunk).row_sums()
    return functions.log1p(total).scale(0.5) - (e * Approx.exact(targets)).row_sums()
