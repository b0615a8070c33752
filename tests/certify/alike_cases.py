"""Networks whose hidden units are all alike, and ellipsoids around what a unit adds, from samples."""

from __future__ import annotations

from collections.abc import Callable
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
#: Widths, options, whether the centre is zero, and the room.
CASES: dict[str, tuple[list[int], dict[str, Any], bool, float]] = {
    "tanh": ([1, 4, 1], {}, True, 0.9),
    "sigmoid": ([1, 3, 1], {"parametrization": "ntk"}, False, 1.4),
    "softplus": ([1, 6, 1], {}, False, 0.7),
    "gelu": ([1, 3, 1], {"bias": False}, False, 1.0),
}


def alike(activation: str) -> tuple[ph.Objective, Any]:
    """A network on five data, and a ball about weights that are the same for all hidden units."""
    widths, options, at_zero, radius = CASES[activation]
    obj = small_objective(523, 5, widths, "squared_error", activation, **options)
    rng, centre = np.random.default_rng(541), np.zeros(obj.num_params)
    if not at_zero:
        for layer in obj.net.unpack(centre):
            layer[0][...] = 0.6 * rng.standard_normal()
            if layer[1] is not None:
                layer[1][...] = 0.6 * rng.standard_normal()
    return obj, ph.Ball(centre, radius).bind(obj)


def added(obj: ph.Objective, centre: Array, steps: Array) -> Array:
    """F (B, n) for steps (B, D + 1 + 1) of a unit's parameters and, where there are biases, its part of the output bias's."""
    (w, b), (a, _) = obj.net.unpack(centre)
    hidden, last = obj.net.layer_scales
    x = obj.data.X if b is None else np.hstack([obj.data.X, np.ones((len(obj.data.X), 1))])
    u, phi, size = w[0] if b is None else np.r_[w[0], b[0]], PHI[obj.net.activations[0]], x.shape[1]
    after = (a[0, 0] + steps[:, size : size + 1]) * phi(hidden * ((u + steps[:, :size]) @ x.T))
    own = last * (after - a[0, 0] * phi(hidden * (x @ u)))
    return own if b is None else own + last / np.sqrt(len(w) - 1) * steps[:, -1:]


def in_ball(rng: np.random.Generator, count: int, size: int, radius: float) -> Array:
    steps = rng.standard_normal((count, size))
    return steps * (radius * rng.random((count, 1)) ** 0.2 / np.linalg.norm(steps, axis=1, keepdims=True))


def climbed(reach: Callable[[Array], Array], steps: Array, room: float, rng: np.random.Generator) -> Array:
    """Steps that reach farther, by a random walk uphill in the ball."""
    best = reach(steps)
    for k in range(80):
        moved = steps + rng.standard_normal(steps.shape) * (0.3 * room * 0.5 ** (k / 10.0))
        moved *= np.minimum(1.0, room / np.linalg.norm(moved, axis=1, keepdims=True))
        value = reach(moved)
        steps, best = np.where((value > best)[:, None], moved, steps), np.maximum(value, best)
    return steps


def fit(obj: ph.Objective, ball: Any, room: float, floor: float) -> Array:
    """A matrix for which samples need t = 1, nearly: samples made white."""
    rng = np.random.default_rng(547)
    size = obj.net.widths[0] + 1 + 2 * int(obj.net.bias)
    steps, matrix = in_ball(rng, 3000, size, room), np.eye(obj.data.num_samples)

    def reach(steps: Array) -> Array:
        return np.linalg.norm(added(obj, ball.center, steps) @ matrix.T, axis=1) / ((steps**2).sum(axis=1) + floor)

    for _ in range(4):
        x = added(obj, ball.center, steps) / ((steps**2).sum(axis=1, keepdims=True) + floor)
        axes, turn = np.linalg.eigh(x.T @ x)
        matrix = (turn / np.sqrt(np.maximum(axes, 1e-3 * axes[-1]))).T
        farthest = steps[np.argsort(-reach(steps))[:300]]
        steps = np.concatenate([steps, climbed(reach, farthest, room, rng)])
    return matrix / reach(steps).max()


@cache
def fitted(activation: str) -> tuple[ph.Objective, Any, AlikeSets]:
    """Sets for two rooms that hold for a t of 1.03."""
    obj, ball = alike(activation)
    rooms, floors = np.array([1.0, 0.5]) * ball.radius, np.array([0.01, 0.02]) * ball.radius**2
    matrices = [fit(obj, ball, room, floor) for room, floor in zip(rooms, floors, strict=True)]
    return obj, ball, AlikeSets(rooms, floors, np.stack(matrices), np.ones(2))


def proof_of(obj: ph.Objective, ball: Any, sets: AlikeSets) -> AlikeProof:
    full, centre = Problem.of(obj), wide(ball.center)
    return AlikeProof(UnitProblem.of(full), full, Units.of(full, centre, centre), sets, monotonic() + 60.0)
