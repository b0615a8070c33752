"""The bound by Taylor polynomials over slabs of a ball, cut across the one direction along which it is reached.

Where the changes of the form's minimum are nearly all along one direction d, as around trained weights of several hidden layers,
the ball |theta - c| <= R is cut into slabs {c + R t d + y : low <= t <= high, y . d = 0, |y|² <= R² (1 - t² |d|²)}. About a
slab's centre theta = c' + s d + y with |s| <= R (high - low)/2, |y|² <= R² (1 - t² |d|²) for its least |t|, and polynomials in
(s, y) leave out much less. With K = d d'/|d|², B = I - (1 - omega) K on both places of delta x delta in M^, and
chi = rho² + h² |d|²/omega²,

    v'H(theta)v >= z' [ head - diag(q) - (rho²/R²) Lam - (h²/R²) S - chi²/(2 tau),  R U' ;
                        R U,  R² (tail - tau/2 M^ M^') + (I - K) x Lam + (K/|d|²) x S ] z,

as s² = delta'K delta/|d|² and |y|² = delta'(I - K) delta. The worst slab is cut in two; one that is worse than what it was
cut from does not count.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from time import monotonic

import numpy as np
import numpy.typing as npt

from .._threads import num_workers
from ..objective import Objective
from ..regions import Ball
from .intervals import gamma
from .limits import raised_after
from .slab_multipliers import Slab, SlabMultipliers
from .subdivision import Limits, Progress
from .taylor import TaylorBound, bound_in, lifted_in
from .taylor_kinds import Kind
from .taylor_lifted import Lifted
from .taylor_multipliers import TaylorMultipliers
from .taylor_proof import proved
from .taylor_room import Room
from .taylor_top import State

FloatArray = npt.NDArray[np.float64]

#: Slabs that the ball is cut into at first: two are often worse than none.
_FIRST = 4
#: Share of the changes' second moment along the direction, at least.
_MOMENT = 0.5
#: Share of the squares from which on some of the data are tried without theirs.
_COSTLY_SHARE = 0.4
#: Width of the thinnest slabs that are cut, in units of the radius.
_THIN = 2.0**-6
#: The search ends after so many steps in a row that improve the bound by less than this in all.
_PATIENCE, _WORTHWHILE = 4, 0.01
#: What the flag is raised to by an exception; others raise it to one, or for their time limit to two.
_INTERRUPTED = 3
#: |d| is at least one, and at most this.
_LONGEST = 1.0 + 1e-12


@dataclass(eq=False)
class _Part:
    """A slab, what is proved on it as a whole, and what it was cut into."""

    low: float
    high: float
    own: float = -math.inf
    slab: Slab | None = None
    state: State | None = None
    children: list[_Part] = field(default_factory=list)

    @property
    def psi_lower(self) -> float:
        """The better of what is proved on the whole, and of the worst of its children."""
        return max(self.own, min((child.psi_lower for child in self.children), default=-math.inf))

    def worst(self) -> _Part:
        """What has to be cut next for a better bound."""
        return min(self.children, key=lambda child: child.psi_lower).worst() if self.children else self

    def cover(self, bound: float) -> list[_Part]:
        """The fewest slabs that prove a bound, which ``psi_lower`` reaches."""
        if self.own >= bound:
            return [self]
        return [part for child in self.children for part in child.cover(bound)]


class SlabSearch:
    """Cutting a ball whose bound is known, best first; the slabs at hand cover the ball whenever it ends."""

    def __init__(self, obj: Objective, region: Ball, ball: TaylorBound, ball_seconds: float = 0.0) -> None:
        self._obj, self._region = obj, region
        self._known = ball.psi_lower
        self._root = _Part(-1.0, 1.0, ball.psi_lower, state=ball.state)
        given = ball.multipliers
        self._kept = np.ones(obj.data.num_samples) if given is None or given.share < _COSTLY_SHARE else given.kept
        self.cells, self.seconds, self._idle = 0, 0.0, 0
        #: What two slabs took, or the ball.
        self._pair_seconds = ball_seconds
        self.direction = _direction(ball.moment)

    @property
    def psi_lower(self) -> float:
        """What the slabs prove, -inf if the ball as a whole is no worse."""
        return self._root.psi_lower if self._root.psi_lower > self._root.own else -math.inf

    def multipliers(self) -> SlabMultipliers | None:
        """What proves it."""
        if self.direction is None or self.psi_lower == -math.inf:
            return None
        return SlabMultipliers(
            self.direction, tuple(part.slab for part in self._root.cover(self.psi_lower) if part.slab is not None)
        )

    def run(self, limits: Limits, progress: Progress | None = None) -> float:
        """Go on until the bound reaches the goal, time is up, so many slabs were looked at, or little is gained."""
        while self.direction is not None and not limits.expired() and self._idle < _PATIENCE:
            part, before = self._root.worst(), self._root.psi_lower
            cuts = _FIRST if part is self._root else 2
            if before >= limits.goal or self.cells + cuts > limits.max_cells or part.high - part.low < _THIN:
                break
            began = monotonic()
            if began + 0.25 * cuts * self._pair_seconds > limits.deadline:
                break  # it would not be finished
            ends = [part.low + (part.high - part.low) * at / cuts for at in range(cuts)] + [part.high]
            children = [_Part(low, high) for low, high in pairwise(ends)]
            try:
                if self._look_at(children, part, limits):
                    part.children = children
                    self.cells += cuts
            finally:
                self._pair_seconds = 2.0 / cuts * (monotonic() - began)
                self.seconds += monotonic() - began
            self._idle = 0 if self._root.psi_lower > before + _WORTHWHILE * abs(before) else self._idle + 1
            if progress is not None:
                progress({"cells": self.cells, "psi_lower": self._root.psi_lower})
        return self.psi_lower

    def _look_at(self, parts: list[_Part], whole: _Part, limits: Limits) -> bool:
        """Bound new slabs, on several threads; whether there was time for all."""
        stop = limits.stop
        left = None if limits.deadline == math.inf else limits.deadline - monotonic()
        try:
            with raised_after(stop, left), ThreadPoolExecutor(num_workers(len(parts))) as executor:
                try:
                    return all(list(executor.map(lambda part: self._bound(part, whole, stop), parts)))
                except BaseException:
                    stop[0] = stop[0] or _INTERRUPTED  # for the other threads, which are waited for
                    raise
        finally:
            if stop[0] == _INTERRUPTED:
                stop[0] = 0

    def _bound(self, part: _Part, whole: _Part, stop: npt.NDArray[np.int32]) -> bool:
        """Bound one slab, from a choice that was good for what it was cut from; whether there was time.

        Where very much of the squares is given up, those of some data are left out, as for a ball.
        """
        assert self.direction is not None
        centre, room = _room(self._region, self.direction, part.low, part.high)
        kept, radius = self._kept if whole.slab is None else whole.slab.taylor.kept, float(self._region.radius)
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            found = bound_in(self._obj, centre, room, radius, self._known, stop, kept, whole.state, _COSTLY_SHARE)
        if found is None:
            return False
        if found.multipliers is not None and found.lams is not None and isinstance(found.lifted, Lifted):
            part.own, part.state = found.psi_lower, found.state
            part.slab = Slab(part.low, part.high, found.lams[1], found.lifted.narrow, found.multipliers)
        return True


def slabs_again(obj: Objective, region: Ball, given: SlabMultipliers) -> float:
    """What the multipliers prove, computed afresh; -inf if the slabs do not cover the ball."""
    slabs, d = given.slabs, given.direction
    ends = [*(slab.low for slab in slabs), 1.0]
    if not _is_unit(d) or ends[0] != -1.0 or any(slab.high != end for slab, end in zip(slabs, ends[1:], strict=True)):
        return -math.inf
    if not all(slab.low < slab.high and 0.0 < slab.narrow <= 1.0 and _allowed(slab.taylor) for slab in slabs):
        return -math.inf
    never = np.zeros(1, dtype=np.int32)

    def one(slab: Slab) -> float:
        centre, room = _room(region, d, slab.low, slab.high)
        kind: Kind = "second" if slab.taylor.order == 2 else "third"
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            lifted = lifted_in(obj, centre, room, float(region.radius), kind, never, slab.taylor.kept, narrow=slab.narrow)
            return -math.inf if lifted is None else proved(lifted, np.stack([slab.taylor.lam, slab.along]), slab.taylor)

    with ThreadPoolExecutor(num_workers(len(slabs))) as executor:
        return min(executor.map(one, slabs))


def _allowed(given: TaylorMultipliers) -> bool:
    """Whether the numbers have the signs that the bound needs; it takes the antisymmetric parts of the A_k itself."""
    kept = bool((given.kept >= 0.0).all() and (given.kept <= 1.0).all())
    return kept and 0.0 < given.share <= 1.0 and (given.tau is None or given.tau > 0.0) and bool((given.weights > 0.0).all())


def _direction(moment: FloatArray | None) -> FloatArray | None:
    """D, where nearly all changes are along it."""
    if moment is None or not np.isfinite(moment).all():
        return None
    values, vectors = np.linalg.eigh(moment)
    if not values[-1] >= _MOMENT * values.sum() > 0.0:
        return None
    d = vectors[:, -1]
    d = d * ((1.0 + gamma(8 * d.size + 64)) / float(np.sqrt(d @ d)))
    return d if _is_unit(d) else None


def _is_unit(d: FloatArray) -> bool:
    """Whether |d| is at least one, and hardly more."""
    square, rounding = float(d @ d), gamma(d.size + 8)
    return square * (1.0 - rounding) >= 1.0 and square * (1.0 + rounding) <= _LONGEST


def _room(region: Ball, d: FloatArray, low: float, high: float) -> tuple[FloatArray, Room]:
    """The centre of a slab, rounded, and where theta less that is."""
    radius = float(region.radius)
    centre = np.array(region.center) + radius * (0.5 * (low + high)) * d
    rounding = gamma(8) * (float(np.sqrt(centre @ centre)) + 2.0 * radius)
    least = 0.0 if low < 0.0 < high else min(abs(low), abs(high))
    # As |d| >= 1.
    across = radius * math.sqrt((1.0 - least) * (1.0 + least)) * (1.0 + gamma(16)) + rounding
    along = 0.5 * radius * (high - low) * (1.0 + gamma(8)) + rounding
    reach = math.sqrt(along**2 * _LONGEST**2 + across**2) * (1.0 + gamma(16))
    return centre, Room(reach, d, along, across)
