"""The slow check of a branch and bound with the moment bound: that its cells cover the region, and what is proved on each.

A box's cells are boxes of parameters. A ball's are boxes of the output biases' offsets o_k = (b_k - c_k)/R and of the layers'
shares u_l = rho_l²/R² of its radius R, the last one that of the weights alone: every network of the ball has its o in [-1, 1] and
u in [0, 1], with |o|² + sum u <= 1, so cells that fill this box leave none out. In a cell with |o_k| >= n_k and u >= low,

    u_l <= low_l + rest,    o_k² <= n_k² + rest,    rest = 1 - |n|² - sum low,

and there is no network where rest < 0. That cells fill a box is seen from comparisons of the numbers in the file alone.

Several cells that together are a box are tested as one first: what holds on it holds on them. Where the moment bound does not
give the claim, the form of `reference_quadratic` may.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from time import monotonic

import numpy as np
import numpy.typing as npt

from ..model import MLP
from ..regions import Ball, Box
from .reference_cover import Target, cut_at_a_face, is_covered, target_of, without_canonical
from .reference_hessian import Cells, Pass, Problem, ball_cells, box_cells
from .reference_interval import Range, Wide, down, up, wide
from .reference_moment import bounds_and_ranges, with_norms
from .reference_quadratic import quadratic_applies, quadratic_proves
from .subdivision import Cover

FloatArray = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

#: After a test that failed, parts of this share of its cells are tested next.
_FEWER = 0.25
#: Parts tested together at most, and numbers in the pieces of their hidden units.
_TOGETHER, _NUMBERS = 16, 100_000
#: The form in a direction's units is seldom better than the moment bound by more than this factor.
_GAIN = 2.0
#: Share of the time that cells drawn at random get where it does not suffice for all.
_DRAWN = 0.2
_SEED = 30011


@dataclass(frozen=True)
class Found:
    """Whether the claim is proved, what was done, and whether the cells leave out a part of the region."""

    proved: bool
    detail: str
    broken: bool = False


@dataclass(frozen=True)
class _Part:
    """A box [low, high] and the cells that meet it; it is tested if they are at most ``few``."""

    low: FloatArray
    high: FloatArray
    chosen: Indices
    few: float = np.inf


def prove_cells(net: MLP, problem: Problem, region: Box | Ball, claim: float, cover: Cover, deadline: float) -> Found:
    """Prove on every cell that no Hessian has an eigenvalue below the claim.

    Parameters
    ----------
    net : MLP
        The network, for its symmetries.
    problem : Problem
        The objective's numbers.
    region : Box or Ball
        What the cells have to cover.
    claim : float
        The claim.
    cover : Cover
        The cells, with what the certificate says is proved on each.
    deadline : float
        Of `time.monotonic`.

    Returns
    -------
    Found
    """
    size = len(cover.low[0])
    if isinstance(region, Ball):
        outputs = problem.widths[-1] if problem.bias else 0
        low, high = np.r_[-np.ones(outputs), np.zeros(problem.layers)], np.ones(outputs + problem.layers)
        if cover.keys or size != low.size:
            return Found(False, "the cells are not those of a ball")
        target: Target | str = Target(low, high)
    else:
        if size != problem.num_params:
            return Found(False, "the cells are not those of a box")
        target = target_of(net, np.array(region.low), np.array(region.high), cover.keys)
    if isinstance(target, str):
        return Found(False, f"the cells leave networks out that no symmetry brings back: {target}", True)
    if not is_covered(cover.low, cover.high, target):
        return Found(False, "the cells leave out a part of the region", True)
    return _Search(problem, region, claim, cover, target, deadline).run()


class _Search:
    """The parts that are still to be proved, those with the worst cells first."""

    def __init__(self, problem: Problem, region: Box | Ball, claim: float, cover: Cover, target: Target, deadline: float) -> None:
        self._problem, self._region, self._claim, self._cover = problem, region, claim, cover
        self._deadline = deadline
        self._tests = 0
        self._heap: list[tuple[float, int, _Part]] = []
        self._pushed = 0
        rows = len(problem.x) * max(problem.widths) * 48
        self._together = int(np.clip(_NUMBERS // rows, 1, _TOGETHER))
        self._push(_Part(target.low, target.high, np.arange(len(cover.low))))

    def run(self) -> Found:
        """Test parts until all are proved, one cannot be, or time is up."""
        cover = self._cover
        kinds = f"{len(cover.low)} cell{'s' if len(cover.low) != 1 else ''} that together contain "
        kinds += "one network of every orbit of the symmetries" if cover.keys else "the region"
        end = self._deadline - _DRAWN * max(0.0, self._deadline - monotonic())
        while self._heap:
            if monotonic() > end:
                return self._some(kinds)
            some = [heapq.heappop(self._heap)[2] for _ in range(min(self._together, len(self._heap)))]
            failed = self._test(some)
            if failed is not None:
                return failed
        return Found(True, f"all of {kinds}, in {self._tests} test{'s' if self._tests != 1 else ''} of one or several of them")

    def _push(self, part: _Part) -> None:
        chosen = part.chosen[self._meets(part.chosen, part.low, part.high)]
        self._pushed += 1
        worst = float(np.min(self._cover.bound[chosen]))
        heapq.heappush(self._heap, (worst, self._pushed, _Part(part.low, part.high, chosen, part.few)))

    def _meets(self, chosen: Indices, low: FloatArray, high: FloatArray) -> npt.NDArray[np.bool_]:
        """Cells that share more than a face with the box, or hold all of a flat one."""
        starts, ends = self._cover.low[chosen], self._cover.high[chosen]
        inside = ((starts < high) & (ends > low)) | ((starts <= low) & (ends >= high))
        return np.asarray(inside.all(axis=1))

    def _test(self, parts: list[_Part]) -> Found | None:
        """Test parts and keep what is left of them; what to say if one is not proved, and belongs to one cell."""
        wanted: dict[bool, list[tuple[_Part, bool, Cells]]] = {False: [], True: []}
        for part in parts:
            if bool(without_canonical(self._cover.keys, part.low[None], part.high[None])[0]):
                continue
            starts, ends = self._cover.low[part.chosen], self._cover.high[part.chosen]
            single = bool(((starts <= part.low) & (ends >= part.high)).all(axis=1).any())
            if not single and len(part.chosen) > part.few:
                self._cut(part, part.few)
                continue
            cells = self._cells(part.low, part.high)
            if cells is not None:
                wanted[cells.apart].append((part, single, with_norms(self._problem, cells)))
        for chosen in wanted.values():
            self._tests += len(chosen)
            bounds = bounds_and_ranges(self._problem, [cells for _, _, cells in chosen]) if chosen else []
            for (part, single, cells), (bound, along) in zip(chosen, bounds, strict=True):
                likely = single or bool(bound >= _GAIN * self._claim)
                if bound >= self._claim or (likely and self._by_form(cells, along)):
                    continue
                if single or not self._cut(part, _FEWER * len(part.chosen)):
                    return self._failed(part, bound)
        return None

    def _by_form(self, cells: Cells, along: Pass) -> bool:
        """Whether the form in the direction's units proves the claim."""
        return quadratic_applies(self._problem) and quadratic_proves(self._problem, cells, along, self._claim)

    def _cut(self, part: _Part, few: float) -> bool:
        """Cut a part between its cells, and keep both halves; whether that could be done."""
        cut = cut_at_a_face(self._cover.low[part.chosen], self._cover.high[part.chosen], part.low, part.high)
        if cut is None:
            return False
        k, value = cut
        below, above = part.high.copy(), part.low.copy()
        below[k] = above[k] = value
        for low, high in ((part.low, below), (above, part.high)):
            self._push(_Part(low, high, part.chosen, few))
        return True

    def _cells(self, low: FloatArray, high: FloatArray) -> Cells | None:
        if isinstance(self._region, Box):
            return box_cells(self._problem, wide(low)[None], wide(high)[None])
        return _ball_cells(self._problem, self._region, low, high)

    def _failed(self, part: _Part, bound: Wide) -> Found:
        index = int(part.chosen[0])
        return Found(
            False,
            f"cell {index} of {len(self._cover.low)} is not proved: written out anew, its bound is {float(bound)!r}",
        )

    def _some(self, kinds: str) -> Found:
        """Most of the time is over: cells drawn at random of those that are left."""
        total = len(self._cover.low)
        left = np.unique(np.concatenate([part.chosen for _, _, part in self._heap]))
        order = np.random.default_rng(_SEED).permutation(left)
        drawn = 0
        for index in order:
            if monotonic() > self._deadline:
                break
            low, high = self._cover.low[index], self._cover.high[index]
            failed = self._test([_Part(low, high, np.array([index]))])
            if failed is not None:
                return failed
            drawn += 1
        return Found(
            False,
            f"time ran out: of {kinds}, {total - len(left)} were checked, those with the worst bounds first, and {drawn} more "
            "that were drawn at random; nothing speaks against the claim there",
        )


def _ball_cells(problem: Problem, ball: Ball, low: FloatArray, high: FloatArray) -> Cells | None:
    """The networks whose offsets and shares are in the box; None if there are none."""
    outputs = problem.widths[-1] if problem.bias else 0
    start, end = wide(low[:outputs]), wide(high[:outputs])
    least, most = wide(low[outputs:]), wide(high[outputs:])
    nearest = np.maximum(wide(0.0), np.maximum(start, -end))
    near = Range(nearest).square()
    taken = (near.sum(0) if outputs else Range(wide(0.0))) + Range(least).sum(0)
    rest = up(1.0 - taken.lo)
    if rest < 0.0:
        return None
    shares = np.minimum(most, up(least + rest))
    whole = outputs > 0 and bool((low[:outputs] == -1.0).all() and (high[:outputs] == 1.0).all())
    if whole:
        # Output weights and biases together have what the other layers leave.
        shares[-1] = up(1.0 - Range(least[:-1]).sum(0).lo)
    radius, centre = Range(wide(ball.radius)), wide(ball.center)
    cells = ball_cells(problem, centre, (radius * Range(shares).root()).hi[None])
    if whole or not outputs:
        return cells
    reach = Range((near + Range(rest)).root().hi)
    offset = Range(np.maximum(start, -reach.hi), np.minimum(end, reach.hi))
    place = slice(problem.bias_at[-1], problem.bias_at[-1] + outputs)
    biases = (Range(centre[place]) + offset * radius) * problem.scale[-1]
    return Cells(cells.w, [*cells.b[:-1], Range(down(biases.lo)[None], up(biases.hi)[None])], cells.rho, apart=True)
