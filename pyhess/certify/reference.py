"""The slow check of a certificate: its bound is proved again by code that shares nothing with the code that found it.

Every part of the region (a box, or a share of a ball's radius among the layers) is tested with whichever of these proofs works,
and cut in two where none does:

    the residual part of the Hessian, or the whole Hessian, entry by entry, as a comparison matrix or as a middle and radii;
    derivatives up to the fourth, where there are few parameters;
    the recursion in the layers' norms, and over the cells of a branch and bound with it;
    the blocks of single hidden units, with the worst of every datum;
    the blocks of single hidden units, over cells of one unit's weights, for boxes those that the certificate brings along;
    the Hessian's Taylor polynomial about a ball's centre, or its slabs' centres, and its rest, with the multipliers that the
    certificate brings along;
    the closed forms for two-layer linear networks.

So what is checked is the number, not the way it was found. A search's cover is where the cutting starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np

from ..objective import Objective
from ..regions import Ball, Box, Region
from .certificate import Multipliers
from .reference_arithmetic import Doubles, arithmetic
from .reference_blocks import UnitBlocks
from .reference_cells import prove_cells
from .reference_centre import CentreBound
from .reference_cover import is_covered, target_of, without_canonical
from .reference_cubic_proof import prove_cubic
from .reference_hessian import Cells, Problem, ball_cells, box_cells, enclosures
from .reference_interval import Range, Wide, down, up, wide, zeros
from .reference_linear import prove_linear
from .reference_moment import moment_bound, with_norms
from .reference_plan import arithmetics, check_seconds, estimated_seconds, has_small_boxes
from .reference_slabs import prove_slabs
from .reference_taylor import small_boxes
from .reference_tests import Flags, not_below
from .reference_units import prove_units
from .slab_multipliers import SlabMultipliers
from .subdivision import Cover
from .taylor_multipliers import TaylorMultipliers
from .unit_cover import AlikeSets, JointSets, UnitLeaves

#: What is proved may be this much less than what is claimed, relative to it.
SLACK = 1e-9
#: Methods with a proof here.
METHODS = (
    "linear", "exact", "moment", "centre", "comparison", "deif", "blocks", "taylor", "slabs", "units", "boxes", "cells", "full",
)  # fmt: skip
#: Parameters up to which whole matrices are written out.
_DENSE_PARAMS = 200
#: Boxes in a batch, numbers that their matrices may take, and seconds, roughly.
_BATCH, _BATCH_NUMBERS, _BATCH_SECONDS = 1024, 200_000, 2.0
#: The norm recursion's seconds per datum and weight, for estimates.
_WEIGHT_SECONDS = 2e-6


@dataclass(frozen=True)
class Proof:
    """What became of a slow check.

    Attributes
    ----------
    proved : bool
        Whether no Hessian of the region has an eigenvalue below ``value``.
    value : float
        The claim less ``SLACK`` of it.
    detail : str
        What was done, or why it was not.
    broken : bool
        Whether what the certificate brings along cannot prove anything: cells or
        slabs that leave out a part of the region.
    """

    proved: bool
    value: float
    detail: str
    broken: bool = False


def prove(
    obj: Objective,
    region: Region,
    method: str,
    psi_lower: float,
    cover: Cover | None = None,
    leaves: UnitLeaves | None = None,
    multipliers: Multipliers | None = None,
    *,
    time_limit: float = 60.0,
) -> Proof:
    """Prove again, from the problem alone, that no Hessian of the loss on the region has an eigenvalue below ``psi_lower``.

    Parameters
    ----------
    obj : Objective
        Network, data and loss.
    region : Region
        The region; one that is neither box nor ball is taken to lie in its ``enclosures()``.
    method : str
        What found the bound.
    psi_lower : float
        The claim.
    cover : Cover, optional
        The boxes of a branch and bound.
    leaves : UnitLeaves, optional
        The cells of one over a unit's weights.
    multipliers : TaylorMultipliers, SlabMultipliers, JointSets or AlikeSets, optional
        What the bounds by Taylor polynomials or that over a unit's weights were proved with.
    time_limit : float
        Seconds.

    Returns
    -------
    Proof
    """
    value = psi_lower - SLACK * abs(psi_lower)
    bound = region.bind(obj)
    if obj.net.num_layers == 1 and psi_lower <= 0.0:
        return Proof(True, value, "the network has no hidden layer, so the loss is convex in theta, and psi_lower <= 0")
    if not np.isfinite(psi_lower):
        return Proof(psi_lower < 0.0, value, "nothing is claimed" if psi_lower < 0.0 else "an infinite bound cannot hold")
    if method not in METHODS:
        return Proof(False, value, f"there is no independent check of the method {method!r}")
    parts = [part for part in ((bound,) if isinstance(bound, Box | Ball) else bound.enclosures()) if isinstance(part, Box | Ball)]
    deadline = monotonic() + time_limit
    detail, broken = "no box or ball that contains the region is known", False
    with np.errstate(all="ignore"):
        for part in parts:
            needed = check_seconds(obj, part, method, cover, leaves, multipliers)
            for context, end in arithmetics(method, needed, time_limit, deadline):
                with context:
                    check = _Check(obj, part, value, end)
                    proved, detail = check.run(method, cover, leaves, multipliers)
                    how, coarse = arithmetic().name, isinstance(arithmetic(), Doubles)
                if proved:
                    note = "" if part is bound else f", on {part!r}, which contains the region"
                    return Proof(True, value, f"psi >= {value!r} was proved independently, in {how}{note}: {detail}")
                detail = f"{detail} (in {how})"
                if coarse and check.broken:
                    continue  # cells may be too small by the rounding of doubles alone
                broken |= check.broken and part is bound
                if check.broken or coarse:
                    break
    return Proof(False, value, detail, broken)


class _Check:
    """One box or ball."""

    def __init__(self, obj: Objective, region: Box | Ball, claim: float, deadline: float) -> None:
        self._obj, self._region, self._claim, self._deadline = obj, region, claim, deadline
        self._problem = Problem.of(obj)
        self._count = 0
        self.broken = False

    def run(
        self, method: str, cover: Cover | None, leaves: UnitLeaves | None, multipliers: Multipliers | None
    ) -> tuple[bool, str]:
        obj, region = self._obj, self._region
        if method == "exact":
            ends = (wide(region.low), wide(region.high)) if isinstance(region, Box) else (wide(region.center), region.radius)
            return prove_linear(self._problem, ends, self._claim, self._deadline)
        if method == "units":
            return self._units(leaves, multipliers)
        if method == "blocks":
            return self._blocks()
        if method in ("taylor", "slabs"):
            return self._expanded(method, multipliers)
        if method == "cells":
            return self._cells(cover)
        dense = obj.num_params <= _DENSE_PARAMS
        cells = 1 if cover is None else len(cover.low)
        needed = arithmetic().cost * estimated_seconds(obj, cells) if dense and method != "moment" else 0.0
        weights = _WEIGHT_SECONDS * obj.data.num_samples * obj.num_params
        left = self._deadline - monotonic()
        if (not dense and method != "moment") or needed + weights > left:
            seconds = max(needed, arithmetic().cost * estimated_seconds(obj, cells)) + weights
            return False, (
                f"too large for the independent check: {obj.num_params} parameters, {obj.data.num_samples} data and {cells} "
                f"cells would take some {seconds:.0f} s; allowed are {left:.0f} s and {_DENSE_PARAMS} parameters (any number "
                "for the moment bound)"
            )
        if isinstance(region, Ball):
            if has_small_boxes(obj):
                box = region.box_around()
                return self._boxes(box, cover)
            return self._shares(method)
        if cover is not None:
            return self._boxes(region, cover)
        whole = with_norms(self._problem, box_cells(self._problem, wide(region.low)[None], wide(region.high)[None]))
        if method == "moment":
            value = moment_bound(self._problem, whole)
            if value >= self._claim:
                return True, f"the recursion in the layers' norms gives {float(value)!r}"
            if not dense:
                return False, f"the recursion in the layers' norms, written out anew, gives {float(value)!r} only"
        elif method == "centre":
            middle = 0.5 * region.low + 0.5 * region.high
            value = CentreBound(self._problem, wide(middle))(whole)
            if value >= self._claim:
                return True, f"the matrix at the centre less its largest change gives {float(value)!r}"
        elif self._dense(whole, gauss=False):
            return True, "the residual part's enclosure over the whole box"
        return self._boxes(region, None)

    def _blocks(self) -> tuple[bool, str]:
        region = self._region
        if self._problem.layers != 2:
            return False, "the blocks of single hidden units prove something for one hidden layer only"
        if isinstance(region, Ball):
            return self._shares("blocks")
        whole = with_norms(self._problem, box_cells(self._problem, wide(region.low)[None], wide(region.high)[None]))
        if UnitBlocks(self._problem, self._deadline).hold(whole, self._claim):
            return True, "the blocks of the hidden units, with the worst of every datum"
        if monotonic() > self._deadline:
            return False, "time ran out before the blocks of all hidden units were looked at"
        return False, "the blocks of the hidden units, written out anew, do not give as much"

    def _cells(self, cover: Cover | None) -> tuple[bool, str]:
        if cover is None:
            return False, "the file does not bring the cells along"
        found = prove_cells(self._obj.net, self._problem, self._region, self._claim, cover, self._deadline)
        self.broken = found.broken
        return found.proved, found.detail

    def _units(self, leaves: UnitLeaves | None, multipliers: Multipliers | None) -> tuple[bool, str]:
        if self._problem.layers != 2 or self._problem.activations[0] == "relu":
            return False, "the cells of one unit's weights prove something for one smooth hidden layer only"
        sets = multipliers if isinstance(multipliers, JointSets | AlikeSets) else None
        found = prove_units(self._problem, self._region, self._claim, leaves, self._deadline, sets)
        self.broken = found.broken
        return found.proved, found.detail

    def _expanded(self, method: str, multipliers: Multipliers | None) -> tuple[bool, str]:
        region, problem, claim = self._region, self._problem, self._claim
        if not isinstance(region, Ball) or not self._obj.net.is_smooth:
            return False, f"the bound {method!r} is for balls and smooth activations"
        if method == "slabs":
            slabs = multipliers if isinstance(multipliers, SlabMultipliers) else None
            proved, detail, self.broken = prove_slabs(problem, region, claim, slabs, self._deadline)
            return proved, detail
        taylor = multipliers if isinstance(multipliers, TaylorMultipliers) else None
        return prove_cubic(problem, region, claim, taylor, self._deadline)

    def _boxes(self, box: Box, cover: Cover | None) -> tuple[bool, str]:
        """Prove it on the boxes of a cover, or on the whole box, cutting where needed."""
        low, high = np.array(box.low)[None], np.array(box.high)[None]
        what = ""
        if cover is not None:
            target = target_of(self._obj.net, low[0], high[0], cover.keys)
            if isinstance(target, str):
                return False, f"the cover leaves networks out that no symmetry brings back: {target}"
            if not is_covered(cover.low, cover.high, target):
                return False, "the cover's boxes do not contain the region"
            kept = ~without_canonical(cover.keys, cover.low, cover.high)
            low, high = cover.low[kept], cover.high[kept]
            what = f"; they contain {'one network of every orbit of the symmetries' if cover.keys else 'the region'}"
        in_time = int(_BATCH_SECONDS / (arithmetic().cost * estimated_seconds(self._obj, 1)))
        batch = max(1, min(_BATCH, _BATCH_NUMBERS // self._obj.num_params**2, in_time))
        while len(low):
            if monotonic() > self._deadline:
                return False, f"time ran out after {self._count} boxes"
            (low, some_low), (high, some_high) = np.split(low, [-batch]), np.split(high, [-batch])
            if self._region is not box:
                meets = self._meets_ball(some_low, some_high)
                some_low, some_high = some_low[meets], some_high[meets]
            if not len(some_low):
                continue
            proved = self._test_boxes(wide(some_low), wide(some_high))
            self._count += len(proved)
            if not proved.all():
                halves = _halved(some_low[~proved], some_high[~proved])
                if halves is None:
                    return False, f"a box too small to be cut is not proved, after {self._count} boxes"
                low, high = np.concatenate([low, halves[0]]), np.concatenate([high, halves[1]])
        return True, f"{self._count} {'boxes' if self._count != 1 else 'box'} tested{what}"

    def _test_boxes(self, low: Wide, high: Wide) -> Flags:
        problem, claim = self._problem, self._claim
        proved = np.zeros(len(low), dtype=np.bool_)
        if has_small_boxes(self._obj):
            ball = None
            if isinstance(self._region, Ball):
                ball = (wide(self._region.center), wide(self._region.radius))
            proved = small_boxes(problem, low, high, claim, ball)
        for gauss in (False, True):
            rest = np.flatnonzero(~proved)
            if rest.size:
                residual, whole = enclosures(problem, box_cells(problem, low[rest], high[rest]), gauss=gauss)
                proved[rest] = not_below(residual if whole is None else whole, claim)
        return proved

    def _meets_ball(self, low: Any, high: Any) -> Flags:
        assert isinstance(self._region, Ball)
        centre, radius = wide(self._region.center), wide(self._region.radius)
        nearest = Range(np.maximum(np.maximum(down(wide(low) - centre), down(centre - wide(high))), wide(0.0)))
        return np.asarray(nearest.square().sum(1).lo <= up(radius * radius))

    def _shares(self, method: str) -> tuple[bool, str]:
        """Cut a ball by the shares rho_l²/R² of its radius that the layers take."""
        assert isinstance(self._region, Ball)
        layers = self._problem.layers
        work = [(zeros(layers), wide(np.ones(layers)))]
        centre, radius = wide(self._region.center), wide(self._region.radius)
        tests: list[Callable[[Cells], bool]] = []
        if method == "moment":
            tests = [lambda cells: bool(moment_bound(self._problem, cells) >= self._claim)]
        elif method == "centre":
            bound = CentreBound(self._problem, centre)
            tests = [lambda cells: bool(bound(cells) >= self._claim)]
        elif method == "blocks":
            blocks = UnitBlocks(self._problem, self._deadline)
            tests = [lambda cells: blocks.hold(cells, self._claim)]
        else:
            tests = [lambda cells: self._dense(cells, gauss=False), lambda cells: self._dense(cells, gauss=True)]
        while work:
            if monotonic() > self._deadline:
                return False, f"time ran out after {self._count} parts of the ball"
            low, high = work.pop()
            rest = up(1.0 - low.sum() * (1.0 - layers * arithmetic().unit))
            if rest < 0.0:
                continue
            corner = np.minimum(high, up(low + rest))
            radii = up(radius * up(np.sqrt(corner)))
            cells = with_norms(self._problem, ball_cells(self._problem, centre, radii[None]))
            self._count += 1
            if any(test(cells) for test in tests):
                continue
            side = int(np.argmax(corner - low))
            middle = 0.5 * (low[side] + corner[side])
            if not low[side] < middle < corner[side] or corner[side] - low[side] < 1e-6:
                return False, f"a part of the ball too small to be cut is not proved, after {self._count}"
            for ends in ((low[side], middle), (middle, high[side])):
                new_low, new_high = low.copy(), high.copy()
                new_low[side], new_high[side] = ends
                work.append((new_low, new_high))
        parts = f"{self._count} part{'s' if self._count > 1 else ''} of the ball"
        return True, f"{parts} tested, by how its radius is shared among the layers"

    def _dense(self, cells: Cells, *, gauss: bool) -> bool:
        residual, whole = enclosures(self._problem, cells, gauss=gauss)
        return bool(not_below(residual if whole is None else whole, self._claim)[0])


def _halved(low: Any, high: Any) -> tuple[Any, Any] | None:
    """Every box cut in two across its widest side; None if one cannot be."""
    k = np.argmax(high - low, axis=1)
    rows = np.arange(len(low))
    middle = 0.5 * low[rows, k] + 0.5 * high[rows, k]
    if not ((low[rows, k] < middle) & (middle < high[rows, k])).all():
        return None
    below, above = high.copy(), low.copy()
    below[rows, k] = above[rows, k] = middle
    return np.concatenate([low, above]), np.concatenate([below, high])
