"""Ellipsoids around what the other hidden units add to one output on a ball, fitted to the directions that a block needs.

With |A_m f_m(d)|² <= t_m² (|d|² + g/M) for the changes f_m of the outputs by each of M units (`unit_joint_proof`), with
C_m = t_m A_m^-1 and |c| the output bias's change, all of them with sum of squares rho², in any direction w

    w.(sum_m f_m + k c 1) <= sum_m |C_m'w| sqrt(|d_m|² + g/M) + |k w.1| |c| <= |(C_1, …, C_M, k 1)'w| sqrt(rho² + g),

so one ellipsoid holds all. The A_m are found by floating point: sampled f_m/|d| for changes that are large in the directions
which the residual gives the smallest eigenvalue of a block, in the ellipsoid of least mean square extent along these.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from .unit_cover import JointSets
from .unit_directions import Directions
from .unit_joint_proof import Change, enlarged
from .unit_models import Units

FloatArray = npt.NDArray[np.float64]

#: Ranges of the room: squares of their ends, as shares of the ball's, and the share of an end's square that is added, g.
_ENDS, FLOOR = (1.0, 0.7, 0.45, 0.25, 0.1), 0.01
#: Where the first ones cannot be proved, the others hardly ever can.
_TRIED = 2
#: Largest problems that it is tried for: inputs with the constant one, data, units.
_MAX_DIM, _MAX_DATA, _MAX_UNITS = 4, 48, 12
#: Changes drawn per unit, steps of the fit, and the axes' least ratio.
_SAMPLES, _FIT, _THIN = 3000, 60, 0.05
#: Sets are proved a little beyond their rooms, for cells that leave so much by rounding.
BEYOND = 1.0 + 4e-9
#: Condition numbers beyond which a fit is of no use.
SINGULAR = 1e8
#: Fits after ascents, how many changes ascend, and their steps.
_REFITS, _CLIMBERS, _CLIMBS = 2, 200, 12


def joint_applies(obj: Objective, units: Units) -> bool:
    """Whether ellipsoids are worth their time: one output, a ball, few inputs, data and units."""
    m, dim = units.u.lo.shape
    few = dim <= _MAX_DIM and len(units.z) <= _MAX_DATA and 2 <= m <= _MAX_UNITS
    return units.room > 0.0 and units.v.lo.shape[1] == 1 and few and obj.loss in ("squared_error", "logistic")


def find_joint(obj: Objective, units: Units, cancelled: Callable[[], bool]) -> JointSets:
    """The sets that could be found and proved, from the largest room on, until ``cancelled`` says to end."""
    fit = _Fit(obj, units)
    rooms: list[float] = []
    floors, matrices, scales = [], [], []
    for tried, share in enumerate(_ENDS):
        room = units.room * float(np.sqrt(share))
        if cancelled() or (tried >= _TRIED and not rooms):
            break
        found = fit.at(room, cancelled)
        if found is not None:
            rooms.append(room)
            floors.append(FLOOR * room * room / fit.count)
            matrices.append(found[0])
            scales.append(found[1])
    shape = len(rooms), fit.count, len(units.z), len(units.z)
    return JointSets(np.array(rooms), np.array(floors), np.array(matrices).reshape(shape), np.array(scales).reshape(shape[:2]))


class _Fit:
    """Guesses for one problem."""

    def __init__(self, obj: Objective, units: Units) -> None:
        self.count = len(units.u.lo)
        self._rng = np.random.default_rng(479)
        self._directions = Directions(obj, units, self._rng)
        # alike in u and v
        rows = np.hstack([units.u.middle, units.v.middle])
        _, first, self._kind = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        self._changes = [change_of(obj, units, int(m)) for m in first]

    def at(self, room: float, cancelled: Callable[[], bool]) -> tuple[FloatArray, FloatArray] | None:
        """A and t for every unit, or None."""
        try:
            moment, reached, _ = self._directions.at(room)
        except np.linalg.LinAlgError:
            return None
        floor = FLOOR * room * room / self.count
        matrices, scales = [], []
        for kind, change in enumerate(self._changes):
            d, own = drawn(self._rng, room, change.size), reached[:, self._kind.ravel() == kind].reshape(-1, change.size)
            d = np.concatenate([d, own])
            try:
                matrix = _fitted(change.values(d), (d * d).sum(axis=1), floor, moment)
                for _ in range(_REFITS):
                    if cancelled():
                        return None
                    d = np.concatenate([d, _climbed(change, d, matrix, room, floor)])
                    matrix = _fitted(change.values(d), (d * d).sum(axis=1), floor, moment)
            except np.linalg.LinAlgError:  # numbers out of range, or nothing that the unit adds
                return None
            growth = enlarged(change, matrix, room * BEYOND, floor, cancelled)
            if growth is None:
                return None
            matrices.append(matrix)
            scales.append(growth)
        kinds = self._kind.ravel()
        return np.stack(matrices)[kinds], np.array(scales)[kinds]


def change_of(obj: Objective, units: Units, m: int) -> Change:
    """That of hidden unit m, with one output."""
    u, v = units.u.middle[m], float(units.v.middle[m, 0])
    return Change((obj.net.activations[0], obj.net.betas[0]), units.z, u, v, (units.scale_u, units.scale_v))


def drawn(rng: np.random.Generator, room: float, size: int) -> FloatArray:
    """Changes (N, size), more of them long."""
    d = rng.standard_normal((_SAMPLES, size))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    d *= room * rng.random((_SAMPLES, 1)) ** 0.2
    return d


def _climbed(change: Change, d: FloatArray, matrix: FloatArray, room: float, floor: float) -> FloatArray:
    """Changes near those that reach farthest, which reach farther."""

    def reach(d: FloatArray) -> FloatArray:
        return np.asarray(((change.values(d) @ matrix.T) ** 2).sum(axis=1) / ((d * d).sum(axis=1) + 0.5 * floor))

    d = d[np.argsort(-reach(d), kind="stable")[:_CLIMBERS]]
    value, step = reach(d), np.full((len(d), 1), 0.1)
    for _ in range(_CLIMBS):
        f, slope, _, _ = change.polynomial(d, np.zeros(d.shape))
        ascent = np.einsum("bn,bpn->bp", (f @ matrix.T) @ matrix, slope) - value[:, None] * d
        ascent /= np.linalg.norm(ascent, axis=1, keepdims=True) + 1e-300
        moved = d + step * np.linalg.norm(d, axis=1, keepdims=True) * ascent
        moved *= np.minimum(1.0, room / (np.linalg.norm(moved, axis=1, keepdims=True) + 1e-300))
        higher = reach(moved)
        better = higher > value
        d, value = np.where(better[:, None], moved, d), np.where(better, higher, value)
        step = np.where(better[:, None], step * 1.3, step * 0.4)
    return d


def _fitted(values: FloatArray, squares: FloatArray, floor: float, moment: FloatArray) -> FloatArray:
    """A with |A f|² <= |d|² + floor/2 for the samples, tr(W (A'A)^-1) small: (A'A)^-1 = W^-1/2 (W^1/2 M W^1/2)^1/2 W^-1/2, and M
    mixes the samples that touch.
    """
    x = values / np.sqrt(squares + 0.5 * floor)[:, None]
    size = np.linalg.norm(x, axis=1)
    if not (np.isfinite(size).all() and np.isfinite(moment).all() and size.any() and moment.any()):
        raise np.linalg.LinAlgError
    x = x[np.argsort(-size, kind="stable")[: _SAMPLES // 2]]
    weights, turn = np.linalg.eigh(moment)
    weights = np.maximum(weights, 1e-3 * weights[-1])
    root, inverse = (turn * np.sqrt(weights)) @ turn.T, (turn / np.sqrt(weights)) @ turn.T
    y = x @ root
    share = np.full(len(x), 1.0 / len(x))
    matrix: FloatArray = np.eye(x.shape[1])
    for _ in range(_FIT):
        axes, vectors = np.linalg.eigh((y * share[:, None]).T @ y)
        shape = inverse @ ((vectors * np.sqrt(np.maximum(axes, 1e-14 * axes[-1]))) @ vectors.T) @ inverse
        axes, vectors = np.linalg.eigh(shape)
        matrix = (vectors / np.sqrt(np.maximum(axes, _THIN**2 * axes[-1]))).T
        distance = ((x @ matrix.T) ** 2).sum(axis=1)
        share *= np.sqrt(distance / distance.max())
        share /= share.sum()
    reach = np.linalg.norm((values / np.sqrt(squares + 0.5 * floor)[:, None]) @ matrix.T, axis=1).max()
    matrix /= float(reach)
    if not (np.isfinite(matrix).all() and np.linalg.cond(matrix) < SINGULAR):
        raise np.linalg.LinAlgError
    return matrix
