"""What the other units of a one-hidden-layer network can add to the outputs: models for the unit-wise bounds of `units`.

The sum over m != j of ``v_m phi(u_m.z_i) + c`` is enclosed, for one unit (type) j, in one of three ways.

    twins    Squared error on a box, all other units alike: eigval_min is concave in the residual, and given the direction the
             best choice of every other unit solves the same problem, so all of them may be taken equal, with v and c at ends
             of their ranges. What is left is one further unit u'. Nothing is lost.
    affine   middle + sum of generators times symbols +- slack: first-order terms about the centre, and the products dv du' of all
             units together in one matrix kappa E, E = sum_m dv_m du_m'. On a ball the symbols of a group lie in a unit ball and
             are scaled with what the unit at hand leaves of the radius.
    range    an interval for every datum and output.

Everything is in effective parameters: NTK scales are folded in.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from ..regions import Ball, Box
from .intervals import UNIT, Interval
from .propagate import box_cell, point_cell
from .unit_ball import ball_affine
from .unit_cells import LINEAR, TWINS
from .unit_models import Affine, Units, box_affine

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Combinations of signs of the twins' weights and output biases that are worth their cells.
_MAX_TWIN_ROOTS = 64
_ODD = ("tanh", "identity")


@dataclass
class Roots:
    """Cells to start from, with the models of the other units: arrays as `UnitCells` takes them."""

    cells: FloatArray  # (R, 2, 2 D + K)
    types: IntArray  # (R,) type of the unit each root is about
    rest: dict[str, npt.NDArray[np.generic]]  # the models, by their names in `UNIT_JOB`
    centers: FloatArray  # (R, D + K) of a ball
    inverse: FloatArray  # (D + K,) one over the half-axes of a ball of radius one
    squared_radius: float  # negative for a box
    halved: bool  # v_1 >= 0 only: the rest follows from (u, v) -> (-u, -v)


def describe(obj: Objective, region: Box | Ball) -> Units:
    """The units' ranges (box) or centres (ball)."""
    net = obj.net
    cell = box_cell(net, region) if isinstance(region, Box) else point_cell(net, np.array(region.center))
    hidden, out = cell.blocks
    z = obj.data.X
    u = hidden.weight
    if net.bias:
        z = np.hstack([z, np.ones((len(z), 1))])
        u = Interval(np.hstack([u.lo, hidden.bias.lo[:, None]]), np.hstack([u.hi, hidden.bias.hi[:, None]]))
    v = out.weight.T
    rows = np.hstack([u.lo, u.hi, v.lo, v.hi])
    _, kind = np.unique(rows, axis=0, return_inverse=True)
    types = [np.flatnonzero(kind.ravel() == t) for t in range(int(kind.max()) + 1)]
    room = region.radius if isinstance(region, Ball) else 0.0
    return Units(z, u, Interval(v.lo.copy(), v.hi.copy()), out.bias, room, net.layer_scales[0],
                 net.layer_scales[1], net.bias, types)  # fmt: skip


def find_roots(obj: Objective, units: Units) -> Roots:
    """The starting cells of every type of unit, with the model of the rest that is best for it."""
    m, dim = units.u.lo.shape
    outputs = units.v.lo.shape[1]
    name = obj.net.activations[0]
    cells, kinds, amplitudes, offsets, halved = [], [], [], [], False
    types: list[int] = []
    affine: dict[int, Affine] = {}
    for t, members in enumerate(units.types):
        j = int(members[0])
        others = np.delete(np.arange(m), j)
        own = _own_cell(units, j)
        if name in _ODD and np.array_equal(own[0], -own[1]):
            own[0, dim] = 0.0
            halved = True
        choices = _twin_choices(obj, units, others)
        if choices is None:
            choices = [(np.zeros(outputs), np.zeros(outputs))]
            affine[len(types)] = box_affine(obj, units, others) if units.room == 0.0 else ball_affine(obj, units, others)
            kind, further = LINEAR, np.zeros((2, dim))
        else:
            kind, further = TWINS, np.stack([units.u.lo[others[0]], units.u.hi[others[0]]])
        for amplitude, offset in choices:
            cells.append(np.hstack([own, further]))
            kinds.append(kind)
            amplitudes.append(amplitude)
            offsets.append(offset)
            types.append(t)
    rest = _packed(affine, np.array(kinds), np.array(amplitudes), np.array(offsets), units)
    centers = np.array([np.hstack([units.u.middle[m[0]], units.v.middle[m[0]]]) for m in units.types])[types]
    inverse = np.hstack([np.full(dim, 1.0 / units.scale_u), np.full(outputs, 1.0 / units.scale_v)])
    squared = units.room**2 * (1.0 + 4.0 * UNIT) if units.room > 0.0 else -1.0
    return Roots(np.array(cells), np.array(types), rest, centers, inverse, squared, halved)


def _own_cell(units: Units, j: int) -> FloatArray:
    low, high = np.hstack([units.u.lo[j], units.v.lo[j]]), np.hstack([units.u.hi[j], units.v.hi[j]])
    if units.room > 0.0:
        dim = units.u.lo.shape[1]
        reach = units.room * np.hstack([np.full(dim, units.scale_u), np.full(low.size - dim, units.scale_v)]) * (1.0 + 1e-14)
        low, high = low - reach - 4.0 * UNIT * np.abs(low), high + reach + 4.0 * UNIT * np.abs(high)
    return np.stack([low, high])


def _twin_choices(obj: Objective, units: Units, others: IntArray) -> list[tuple[FloatArray, FloatArray]] | None:
    """((number of others) v, c) for the twins' model, or None where it does not apply."""
    if obj.loss != "squared_error" or units.room > 0.0 or others.size == 0:
        return None
    if not any(np.isin(others, members).all() for members in units.types):
        return None
    outputs = units.v.lo.shape[1]
    first = int(others[0])
    v = [sorted({units.v.lo[first, k], units.v.hi[first, k]}) for k in range(outputs)]
    c = [sorted({units.c.lo[k], units.c.hi[k]}) for k in range(outputs)]
    signs = list(itertools.product(*v))
    if obj.net.activations[0] in _ODD and np.array_equal(units.u.lo[first], -units.u.hi[first]):
        # (u', v) and (-u', -v) are the same unit.
        kept: list[tuple[float, ...]] = []
        for choice in signs:
            if tuple(-x for x in choice) not in kept:
                kept.append(choice)
        signs = kept
    if len(signs) * int(np.prod([len(x) for x in c])) > _MAX_TWIN_ROOTS:
        return None
    return [(others.size * np.array(a), np.array(b)) for a in signs for b in itertools.product(*c)]


def _packed(affine: dict[int, Affine], kinds: IntArray, amplitudes: FloatArray, offsets: FloatArray, units: Units
            ) -> dict[str, npt.NDArray[np.generic]]:  # fmt: skip
    """The models of all roots in common arrays."""
    n, outputs, roots = units.z.shape[0], units.v.lo.shape[1], kinds.size
    widest = max((model.powers.size for model in affine.values()), default=0)
    rows = roots if affine else 1
    size = n if affine else 1
    middle = np.zeros((rows, size, outputs))
    slack, ibp = np.zeros((3, rows, size, outputs)), np.zeros((6, rows, size, outputs))
    # On a ball the powers may differ between the roots: linear columns come first, so pad each part to its widest.
    linear = max((int((model.powers == 1).sum()) for model in affine.values()), default=0)
    squares = max((int((model.powers == 2).sum()) for model in affine.values()), default=0)
    plain = units.room == 0.0
    count = widest if plain else linear + squares
    generators = np.zeros((rows, size, outputs, count))
    powers = np.zeros(count, dtype=np.int64) if plain else np.array([1] * linear + [2] * squares, dtype=np.int64)
    groups = np.full(count, -1, dtype=np.int64) if plain else powers - 1
    if not plain and len(affine) == 1:
        (only,) = affine.values()
        groups = only.groups
    for root, model in affine.items():
        middle[root], slack[:, root], ibp[:, root] = model.middle, model.slack, model.ibp
        if plain:
            generators[root, :, :, : model.powers.size] = model.generators
        else:
            first = model.powers == 1
            generators[root, :, :, : int(first.sum())] = model.generators[:, :, first]
            generators[root, :, :, linear : linear + int((~first).sum())] = model.generators[:, :, ~first]
    return {
        "kinds": kinds,
        "amplitude": amplitudes,
        "offset": offsets,
        "middle": middle,
        "generators": generators,
        "slack": slack,
        "ranges": ibp,
        "powers": powers,
        "groups": groups,
    }
