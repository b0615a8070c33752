"""What a certificate takes, predicted from sizes alone."""

from __future__ import annotations

import numpy as np

from ..model import MLP
from .boxes import box_work, boxes_know, cells_know
from .dense import dense_work
from .joint import pieces_of
from .portfolio import _CELL_COST, _DENSE_COST, _DENSE_PARAMS, _MAX_CELLS, _SLABS, _UNIT_CELLS, _UNIT_WORK
from .schedule import _FEWEST, _MOST, _WORK
from .taylor import step_work
from .taylor_kinds import polynomial_kind, polynomial_work, slabs_know, taylor_knows
from .unit_blocks import block_work
from .units import unit_work, units_know

#: Seconds of a multiplication with interval arithmetic around it, by method; measured on one core.
_PER_MOMENT, _PER_DENSE, _PER_UNIT, _PER_BOX = 3e-8, 1.2e-9, 2.7e-9, 4e-8
#: The same of a Taylor polynomial, and of the steps towards its multipliers.
_PER_TAYLOR, _PER_STEP = 1.3e-10, 2.5e-11
#: The same of a unit's blocks, and seconds of the eigenvalues of all of one unit's matrices.
_PER_BLOCK, _BLOCK_CALLS = 1.3e-9, 3.6e-3
#: The same of the parts of a ball, or boxes, with a moment bound.
_PER_CELL = 1.4e-8
#: Seconds of the joint bounds per piece of a unit's s, and per pair of one with a piece of its v.
_PER_PIECE, _PER_PAIR = 6e-7, 5e-9
#: Seconds of a call, whatever the sizes, in NumPy (per layer) and in compiled loops.
_CALL, _LOOP = 1.2e-3, 5e-5


def certificate_seconds(
    net: MLP,
    num_samples: int,
    *,
    ball: bool,
    method: str = "auto",
    time_limit: float | None = None,
    loss: str = "squared_error",
    alike: bool = True,
) -> float:
    """Seconds of `certify` on one core, right within a small factor; of the machine nothing is asked.

    Small balls of networks with more than 40 parameters take ``"auto"`` longer by some ten to sixty seconds, which ``"taylor"``
    counts: the radius is not known here.

    Parameters
    ----------
    net : MLP
    num_samples : int
        N.
    ball : bool
        Whether the region is a ball, which is cut into cells, rather than a box.
    method : str
        As for `certify`.
    time_limit : float, optional
        Seconds of it and of a search before it, all of which branch and bound uses where it applies.
    loss : str
        Name of the loss.
    alike : bool
        Whether all hidden units have the same ranges, as in a region about zero.

    Examples
    --------
    >>> import pyhess as ph
    >>> from pyhess.certify.cost import certificate_seconds
    >>> tiny, wide = ph.MLP([8, 4, 1]), ph.MLP([64, 512, 512, 10])
    >>> 0.1 < certificate_seconds(tiny, 100, ball=False) < 3.0 < certificate_seconds(wide, 1000, ball=False)
    True
    """
    if net.num_layers == 1:
        return _CALL
    size, auto = net.num_params, method == "auto"
    dense = dense_work(net, num_samples)
    roots = {}
    call = _CALL * net.num_layers + (_joint_seconds(net, num_samples) if loss == "squared_error" else 0.0)
    if method in ("auto", "moment"):
        roots["moment"] = call + _PER_MOMENT * num_samples * size
    for name in ("centre", "comparison", "deif"):
        if method == name or (auto and size <= _DENSE_PARAMS and dense <= _DENSE_COST):
            roots[name] = call + _PER_DENSE * dense
    blocks, kinds = 0.0, 1 if alike else net.widths[1]
    if net.num_layers == 2:
        blocks = block_work(net, num_samples, kinds)
        if method == "blocks" or (auto and blocks <= _DENSE_COST):
            roots["blocks"] = call + _BLOCK_CALLS * kinds + _PER_BLOCK * blocks
    seconds = sum(roots.values())
    if ball and roots:
        # Which method cuts the ball is not known before: the dearest of them, half as often as its cost allows.
        name = max(roots, key=lambda name: roots[name])
        work = 600.0 * num_samples * size + (300.0 * blocks if name == "blocks" else 0.0)
        work = 30.0 * dense if name in ("comparison", "deif") else work
        seconds += roots[name] * float(np.clip(0.5 * _CELL_COST / work, 4, 0.5 * _MAX_CELLS))
    taylor = ball and taylor_knows(net, loss, num_samples)
    if taylor and method in ("auto", "taylor", "slabs"):
        # With few parameters it is done once on small balls, on larger ones twice; slabs two at a time. With many, steps count
        # only by name: most balls are given up before. Large systems are solved in single precision.
        few = size <= 40 and polynomial_kind(net, loss, num_samples) != "second"
        times = (1.5 if few else 1.0) + (_SLABS / 2.0 if method == "slabs" else 0.0)
        per_step = 0.0 if not few and method == "auto" else _PER_STEP if size <= 40 else 0.6 * _PER_STEP
        steps = per_step * step_work(net, loss, num_samples)
        seconds += times * (_PER_TAYLOR * polynomial_work(net, loss, num_samples) + steps)
    searches = [*(["units"] if units_know(net) else []), *boxes_know(net, num_samples, ball=ball)]
    slabs = ball and slabs_know(net, loss, num_samples)
    searches += ["slabs"] if slabs and time_limit is not None else []  # else counted above
    searches += ["cells"] if cells_know(net, num_samples, ball=ball) else []
    searches = [name for name in searches if method in ("auto", name)]
    if time_limit is not None:
        return time_limit if searches else min(seconds, time_limit)
    if "units" in searches:
        searches.remove("units")
        work = unit_work(net, num_samples)
        seconds += float(np.clip(_UNIT_WORK / work, *_UNIT_CELLS)) * (_LOOP + _PER_UNIT * work)
    for name in searches:
        work = box_work(net, num_samples)[name]
        if work * _FEWEST <= _WORK:
            seconds += (_PER_CELL if name == "cells" else _PER_BOX) * min(_WORK, _MOST * work)
    return seconds


def _joint_seconds(net: MLP, num_samples: int) -> float:
    """Of the joint bounds of the residual and the last hidden layer, which one output has."""
    if net.widths[-1] != 1:
        return 0.0
    units = net.widths[-2]
    pieces, parts = pieces_of(num_samples, units)
    return num_samples * units * pieces * (_PER_PIECE + parts * _PER_PAIR)
