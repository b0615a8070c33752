"""Networks whose hidden units are all alike, without output weights at the centre, and ellipsoids around what a unit and its part
of the output bias add, from points of a disc.
"""

from __future__ import annotations

from functools import cache
from time import monotonic
from typing import Any

import numpy as np
import scipy.special

import pyhess as ph
from pyhess.certify.reference_hessian import Problem
from pyhess.certify.reference_interval import wide
from pyhess.certify.reference_unit_alike import AlikeProof
from pyhess.certify.reference_unit_block import UnitProblem
from pyhess.certify.reference_unit_rest import Units
from pyhess.certify.unit_cover import AlikeSets

from .conftest import small_objective

Array = Any

PHI: dict[str, Any] = {
    "tanh": np.tanh,
    "sigmoid": scipy.special.expit,
    "softplus": lambda s: np.logaddexp(0.0, s),
    "gelu": lambda s: s * scipy.special.ndtr(s),
}
#: Widths, options, whether the centre is zero, and the radius; a unit has two parameters next to its output weight.
CASES: dict[str, tuple[list[int], dict[str, Any], bool, float]] = {
    "tanh": ([1, 4, 1], {}, True, 0.9),
    "sigmoid": ([1, 3, 1], {"parametrization": "ntk"}, False, 1.4),
    "softplus": ([1, 6, 1], {}, False, 0.7),
    "gelu": ([2, 2, 1], {"bias": False}, False, 1.0),
}


def alike(activation: str) -> tuple[ph.Objective, Any]:
    """A network on five data, and a ball about weights that are the same for all hidden units."""
    widths, options, at_zero, radius = CASES[activation]
    obj = small_objective(523, 5, widths, "squared_error", activation, **options)
    centre = np.zeros(obj.num_params)
    if not at_zero:
        rng, (weight, bias) = np.random.default_rng(541), obj.net.unpack(centre)[0]
        weight[...] = 0.6 * rng.standard_normal(widths[0])
        if bias is not None:
            bias[...] = 0.6 * rng.standard_normal()
    return obj, ph.Ball(centre, radius).bind(obj)


def inputs(obj: ph.Objective) -> Array:
    x = obj.data.X
    return np.hstack([x, np.ones((len(x), 1))]) if obj.net.bias else x


def outputs(obj: ph.Objective, centre: Array, steps: Array) -> Array:
    """What a unit with output weight one adds (B, n), for steps (B, D) of its other parameters."""
    (w, b), _ = obj.net.unpack(centre)
    hidden, last = obj.net.layer_scales
    u = w[0] if b is None else np.append(w[0], b[0])
    return last * PHI[obj.net.activations[0]](hidden * ((u + steps) @ inputs(obj).T))


def reach(obj: ph.Objective, h: Array, matrix: Array, squares: Array) -> Array:
    """The largest |A (y h + c part 1)| / (squares + y² + c²) over all y and c (B,): sqrt(lambda / squares) / 2 with the largest
    eigenvalue lambda of the Gram matrix of A h and part A 1.
    """
    count = obj.net.widths[1] - 1
    part = obj.net.layer_scales[1] / np.sqrt(count) if obj.net.bias else 0.0
    columns = np.stack([h @ matrix.T, np.broadcast_to(part * matrix.sum(axis=1), h.shape)], axis=-1)
    return np.sqrt(np.linalg.eigvalsh(np.swapaxes(columns, -1, -2) @ columns)[..., -1] / squares) / 2.0


def in_disc(rng: np.random.Generator, count: int, radius: float) -> Array:
    steps = rng.standard_normal((count, 2))
    return steps * (radius * rng.random((count, 1)) ** 0.5 / np.linalg.norm(steps, axis=1, keepdims=True))


def disc(radius: float) -> Array:
    """A grid of polar coordinates."""
    r, angle = (x.ravel() for x in np.meshgrid(np.linspace(0.0, radius, 60), np.linspace(0.0, 2.0 * np.pi, 181)))
    return np.column_stack([r * np.cos(angle), r * np.sin(angle)])


def fit(obj: ph.Objective, ball: Any, room: float, floor: float) -> Array:
    """A matrix for which t = 1 is needed, nearly: samples made white."""
    steps = disc(room)
    h, squares = outputs(obj, ball.center, steps), (steps**2).sum(axis=1) + floor
    x = (
        np.concatenate([h, np.ones((len(h), h.shape[1])) * obj.net.layer_scales[1] * obj.net.bias])
        / np.sqrt(np.r_[squares, squares])[:, None]
    )
    axes, turn = np.linalg.eigh(x.T @ x)
    matrix = (turn / np.sqrt(np.maximum(axes, 1e-3 * axes[-1]))).T
    return matrix / reach(obj, h, matrix, squares).max()


@cache
def fitted(activation: str) -> tuple[ph.Objective, Any, AlikeSets]:
    """Sets for two rooms that hold for a t of 1.03."""
    obj, ball = alike(activation)
    rooms = np.array([1.0, 0.5]) * ball.radius
    floors = np.array([0.5, 0.2]) * rooms**2 / (obj.net.widths[1] - 1)
    matrices = [fit(obj, ball, room, floor) for room, floor in zip(rooms, floors, strict=True)]
    return obj, ball, AlikeSets(rooms, floors, np.stack(matrices), np.ones(2))


def proof_of(obj: ph.Objective, ball: Any, sets: AlikeSets) -> AlikeProof:
    full, centre = Problem.of(obj), wide(ball.center)
    return AlikeProof(UnitProblem.of(full), full, Units.of(full, centre, centre), sets, monotonic() + 60.0)


def without_own(obj: ph.Objective, step: Array) -> Array:
    """The step with the parameters of unit 1 left alone."""
    layers = [tuple(None if x is None else x.copy() for x in layer) for layer in obj.net.unpack(step)]
    (w, b), (a, c) = layers
    w[1], a[:, 1] = 0.0, 0.0
    if b is not None:
        b[1] = 0.0
    return np.concatenate([x.ravel() for x in (w, b, a, c) if x is not None])


def others(obj: ph.Objective, theta: Array) -> Array:
    """What all units but unit 1 and the output bias add."""
    (w, b), (a, c) = obj.net.unpack(theta)
    hidden, last = obj.net.layer_scales
    kept = np.arange(len(w)) != 1
    s = hidden * (obj.data.X @ w[kept].T + (0.0 if b is None else b[kept]))
    return last * (PHI[obj.net.activations[0]](s) @ a[0, kept] + (0.0 if c is None else c[0]))


def slopes(obj: ph.Objective, theta: Array, w: Array) -> Array:
    """Those of w.others, roughly."""
    return np.array([w @ others(obj, theta + h) - w @ others(obj, theta - h) for h in 1e-6 * np.eye(theta.size)])
