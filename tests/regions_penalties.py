"""A network with regions and penalties of every kind for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import pyhess as ph

NET = ph.MLP([2, 3, 1], "tanh")
P = NET.num_params
THIRDS = np.arange(1.0, P + 1.0) / 3.0


def not_negative(theta: np.ndarray) -> np.ndarray:
    """Onto the points of the unit ball with a first coordinate of at least -1/10."""
    return ph.Ball(radius=1.0).project(np.concatenate([np.maximum(theta[:1], -0.1), theta[1:]]))


def cap() -> ph.Convex:
    centre = np.zeros(P)
    centre[0] = 0.3
    return ph.Convex(not_negative, centre, 1.0, enclosure=ph.Ball(radius=1.0))


REGIONS: dict[str, Callable[[], ph.Region]] = {
    "box": lambda: ph.Box(-0.7, 0.9),
    "box of vectors": lambda: ph.Box(-THIRDS, 0.1 * THIRDS),
    "scaled box": lambda: ph.Box.scaled(NET, 1.3),
    "ball": lambda: ph.Ball(0.1, 1.7),
    "ball around a point": lambda: ph.Ball(np.sin(THIRDS), 0.7),
    "ordered": lambda: ph.Ordered(ph.Box(-0.7, 0.7), NET),
    "ordered ball": lambda: ph.Ordered(ph.Ball(radius=1.1), NET),
    "intersection": lambda: ph.Intersection([ph.Box(-0.6, 0.6), ph.Ball(radius=1.4), ph.Ordered(ph.Ball(radius=2.0), NET)]),
}
PENALTIES: dict[str, Callable[[], ph.Penalty]] = {
    "l2": ph.L2,
    "weights": lambda: ph.L2(penalize="weights"),
    "shifted": lambda: ph.ShiftedL2(np.cos(THIRDS)),
    "shifted by a number": lambda: ph.ShiftedL2(0.1),
    "weighted": lambda: ph.WeightedL2(THIRDS),
    "geometric": ph.GeometricL2,
}
