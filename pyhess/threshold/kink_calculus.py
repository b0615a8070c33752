"""Derivatives of a ReLU network at and across its kinks, in plain NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from . import reference_functions as functions
from .reference_jet import data_blocks, layer_factors, split
from .roundoff import Approx, FloatArray, affine

if TYPE_CHECKING:
    from ..objective import Objective

IndexArray = npt.NDArray[np.int64]
Layers = list[tuple[FloatArray, FloatArray | None]]

#: A pre-activation is taken to be zero if it is within this many times its rounding error bound.
ZERO_TOLERANCE = 2.0
#: Two input rows of a unit count as parallel if they are so to this relative accuracy.
PARALLEL_TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class Trace:
    """Pre-activations s and inputs a of every layer for some rows of the data; ``a[0]`` holds the data."""

    s: list[FloatArray]
    a: list[FloatArray]


def relu_layers(obj: Objective) -> list[int]:
    """Zero-based indices of the hidden layers with kinks."""
    return [layer for layer, name in enumerate(obj.net.activations) if name == "relu"]


def trace(obj: Objective, theta: FloatArray, rows: IndexArray, depth: int | None = None) -> Trace:
    """Evaluate the network on some rows, up to and including layer ``depth`` (default: the output)."""
    a = [obj.data.X[rows]]
    s: list[FloatArray] = []
    last = obj.net.num_layers - 1 if depth is None else depth
    for layer, ((w, b), factor) in enumerate(zip(split(obj.net, theta), layer_factors(obj.net, np.float64), strict=True)):
        s.append(factor * (a[-1] @ w.T + (0.0 if b is None else b)))
        if layer == last:
            break
        a.append(_phi(obj, layer, s[-1]))
    return Trace(s, a)


def output_sensitivities(obj: Objective, theta: FloatArray, rows: IndexArray, point: Trace) -> list[FloatArray]:
    """Return dl_i/ds for every layer: one array (rows, width) per layer, loss of each datum unweighted."""
    layers, factors = split(obj.net, theta), layer_factors(obj.net, np.float64)
    delta = loss_gradient(obj, point.s[-1], rows)
    deltas = [delta]
    for layer in range(obj.net.num_layers - 2, -1, -1):
        delta = factors[layer + 1] * (delta @ layers[layer + 1][0]) * _slope(obj, layer, point.s[layer])
        deltas.append(delta)
    return deltas[::-1]


def loss_gradient(obj: Objective, output: FloatArray, rows: IndexArray) -> FloatArray:
    """Gradient of each datum's loss with respect to the network output."""
    if obj.loss == "squared_error":
        return output - obj.targets[rows]
    approx = Approx.exact(output)
    p = functions.sigmoid(approx) if obj.loss == "logistic" else functions.softmax(approx)
    return np.asarray(p.value - obj.targets[rows], dtype=np.float64)


def unit_gradient(obj: Objective, theta: FloatArray, datum: int, layer: int, unit: int) -> FloatArray:
    """Gradient (P,) of one pre-activation of one datum with respect to theta."""
    layers, factors = split(obj.net, theta), layer_factors(obj.net, np.float64)
    point = trace(obj, theta, np.array([datum]), layer)
    gradient = np.zeros(obj.num_params)
    delta = np.zeros(obj.net.widths[layer + 1])
    delta[unit] = 1.0
    for index in range(layer, -1, -1):
        if index < layer:
            delta = delta * _slope(obj, index, point.s[index])[0]
        weights, bias = obj.net.layer_slices[index]
        gradient[weights] = (factors[index] * np.outer(delta, point.a[index][0])).ravel()
        if bias is not None:
            gradient[bias] = factors[index] * delta
        delta = factors[index] * (delta @ layers[index][0])
    return gradient


def row_gradient(obj: Objective, point: Trace, row: int, layer: int, unit: int) -> FloatArray:
    """Gradient (P,) of one pre-activation with respect to the unit's own weights and bias only."""
    factor = layer_factors(obj.net, np.float64)[layer]
    gradient = np.zeros(obj.num_params)
    fan_in = obj.net.widths[layer]
    weights, bias = obj.net.layer_slices[layer]
    start = weights.start + unit * fan_in
    gradient[start : start + fan_in] = factor * point.a[layer][row]
    if bias is not None:
        gradient[bias.start + unit] = factor
    return gradient


@dataclass(frozen=True, eq=False)
class KinkSet:
    """Pairs (datum, unit) of one layer whose pre-activation is zero to rounding."""

    layer: int
    data: IndexArray
    units: IndexArray
    inputs: FloatArray
    """The unit's input row of each pair, with a 1 appended where the layer has biases."""

    @property
    def fed(self) -> npt.NDArray[np.bool_]:
        """Pairs whose unit receives anything at all; the others stay at zero whatever its weights are."""
        return np.asarray(self.inputs.any(axis=1))


def near_kinks(obj: Objective, theta: FloatArray) -> list[KinkSet]:
    """Find all pairs on a kink, over the whole data set; one entry per ReLU layer.

    In floating point a pre-activation is zero only to rounding: a pair counts if its computed value is within
    `ZERO_TOLERANCE` times the bound of its rounding error.
    """
    layers = split(obj.net, theta)
    factors = layer_factors(obj.net, np.float64)
    found: dict[int, list[tuple[IndexArray, IndexArray, FloatArray]]] = {i: [] for i in relu_layers(obj)}
    for rows in data_blocks(obj):
        a = Approx.exact(obj.data.X[rows])
        for layer, activation in enumerate(obj.net.activations):
            w, b = layers[layer]
            s = affine([(a, w)], b, factors[layer])
            if activation == "relu":
                data, units = np.nonzero(s.magnitude <= ZERO_TOLERANCE * s.error)
                inputs = np.asarray(a.value[data], dtype=np.float64)
                if b is not None:
                    inputs = np.hstack([inputs, np.ones((len(data), 1))])
                found[layer].append((data + rows.start, units, inputs))
            a = functions.apply(activation, obj.net.betas[layer], s)
    return [KinkSet(layer, *(np.concatenate(columns) for columns in zip(*parts, strict=True))) for layer, parts in found.items()]


def shared_surface(kinks: KinkSet, unit: int, datum: int) -> IndexArray | None:
    """Return the data that lie on the kink of one unit together with ``datum``, or None if it is no clean kink.

    They must have parallel input rows, so that one shift of the unit's weights puts all of them on the kink
    exactly; any other coincidence of two kinks is rejected.
    """
    members = (kinks.units == unit) & kinks.fed
    data: IndexArray = kinks.data[members]
    inputs = kinks.inputs[members]
    if datum not in data:
        return None
    reference = inputs[list(data).index(datum)]
    along = inputs @ reference / (reference @ reference)
    off = np.linalg.norm(inputs - np.outer(along, reference), axis=1)
    if np.any(off > PARALLEL_TOLERANCE * np.linalg.norm(inputs, axis=1)):
        return None
    return data


def only_these(kink_sets: list[KinkSet], layer: int, unit: int, data: IndexArray) -> bool:
    """Whether no other unit or datum is on a kink, apart from zeros that the given kink itself causes further on."""
    for kinks in kink_sets:
        own = np.isin(kinks.data, data)
        if kinks.layer == layer:
            own &= kinks.units == unit
        if np.any(kinks.fed & ~own) or (kinks.layer > layer and np.any(kinks.fed & own)):
            return False
    return True


def one_sided_slopes(obj: Objective, theta: FloatArray, v: FloatArray, data: IndexArray, kink_sets: list[KinkSet]) -> FloatArray:
    """Return lim (l_i(theta + h v) - l_i(theta))/h for h -> 0+ and every listed datum.

    On a kink the derivative of relu(s) along v is max(ds, 0); the chain rule holds for these one-sided derivatives.
    """
    layers, directions = split(obj.net, theta), split(obj.net, v)
    factors = layer_factors(obj.net, np.float64)
    point = trace(obj, theta, data)
    zeros = {kinks.layer: kinks for kinks in kink_sets}
    moved: FloatArray = np.zeros_like(point.a[0])
    for layer in range(obj.net.num_layers):
        (w, _), (dw, db) = layers[layer], directions[layer]
        moved = factors[layer] * (moved @ w.T + point.a[layer] @ dw.T + (0.0 if db is None else db))
        if layer in zeros:
            on_kink = np.zeros(moved.shape, dtype=bool)
            for row, datum in enumerate(data):
                on_kink[row, zeros[layer].units[zeros[layer].data == datum]] = True
            moved = np.where(on_kink, np.maximum(moved, 0.0), moved * (point.s[layer] > 0))
        elif layer < obj.net.num_layers - 1:
            moved = moved * _slope(obj, layer, point.s[layer])
    slopes: FloatArray = (loss_gradient(obj, point.s[-1], data) * moved).sum(axis=1)
    return slopes


def jump_along(obj: Objective, theta: FloatArray, v: FloatArray, data: IndexArray, kink_sets: list[KinkSet]) -> float:
    """Return L'(theta; v) + L'(theta; -v), to which only the data on a kink contribute."""
    both = one_sided_slopes(obj, theta, v, data, kink_sets) + one_sided_slopes(obj, theta, -v, data, kink_sets)
    return float(obj.data.normalized_weights[data] @ both)


def gate_distance(obj: Objective, theta: FloatArray, v: FloatArray, kink_sets: list[KinkSet]) -> float:
    """First-order estimate of how far theta can move along +-v before another gate switches."""
    layers, directions = split(obj.net, theta), split(obj.net, v)
    factors = layer_factors(obj.net, np.float64)
    zeros = {kinks.layer: kinks for kinks in kink_sets}
    nearest = np.inf
    for rows in data_blocks(obj):
        a: FloatArray = obj.data.X[rows]
        moved: FloatArray = np.zeros_like(a)
        for layer in range(obj.net.num_layers - 1):
            (w, b), (dw, db) = layers[layer], directions[layer]
            s = factors[layer] * (a @ w.T + (0.0 if b is None else b))
            moved = factors[layer] * (moved @ w.T + a @ dw.T + (0.0 if db is None else db))
            if layer in zeros:
                ratio = np.divide(np.abs(s), np.abs(moved), out=np.full(s.shape, np.inf), where=moved != 0.0)
                here = (zeros[layer].data >= rows.start) & (zeros[layer].data < rows.stop)
                ratio[zeros[layer].data[here] - rows.start, zeros[layer].units[here]] = np.inf
                nearest = min(nearest, float(ratio.min()))
            a, moved = _phi(obj, layer, s), moved * _slope(obj, layer, s)
    return nearest


def _phi(obj: Objective, layer: int, s: FloatArray) -> FloatArray:
    value = functions.apply(obj.net.activations[layer], obj.net.betas[layer], Approx.exact(s)).value
    return np.asarray(value, dtype=np.float64)


def _slope(obj: Objective, layer: int, s: FloatArray) -> FloatArray:
    slope = functions.apply_twice_differentiated(obj.net.activations[layer], obj.net.betas[layer], Approx.exact(s))[1]
    return np.asarray(slope.value, dtype=np.float64)
