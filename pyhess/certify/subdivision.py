"""Branch and bound over boxes of parameters: best first, anytime, on threads.

The leaves of the subdivision always cover the region (up to the network's symmetries, if those were used), so that the worst
leaf's bound is
a bound of psi whenever the work is stopped. How many of the worst leaves are split in a round does not depend on the number of
threads.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic

import numpy as np
import numpy.typing as npt

from .._threads import num_workers

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Writes the bounds (B,) of boxes (B, P) and the parameters (B,) to split next; -1 leaves the choice to `_Gains`.
Evaluate = Callable[[FloatArray, FloatArray, FloatArray, IntArray], None]
Progress = Callable[[dict[str, object]], object]

#: Boxes handed to a thread at a time at least, leaves split in a round per box of these, and their share of the boxes so far
#: where stacks are faster.
_PIECE, _ROUND, _SHARE = 4, 4, 0.125
#: Numbers that the leaves may take up: 400 MB.
_MAX_NUMBERS = 5 * 10**7


@dataclass(frozen=True, eq=False)
class Cover:
    """Boxes that together cover the region, and what is proved on each.

    They are boxes of parameters, or for ``cells`` of a ball of the output biases' offsets (in units of the radius R) and the
    layers' shares rho_l²/R² of it, the last one's that of the weights alone.

    Attributes
    ----------
    low, high : (M, P)
        Ends of the boxes.
    bound : (M,)
        No Hessian on the box has an eigenvalue below this; infinite for boxes that do not meet the region, or that hold only
        networks
        equal to those in another box up to the order and signs of hidden units.
    keys : tuple of tuples of int
        For every layer whose units were taken in one order and with one sign: the parameters, one per unit, that are >= 0 and
        fall from
        unit to unit. Empty without symmetry.
    """

    low: FloatArray
    high: FloatArray
    bound: FloatArray
    keys: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Limits:
    """When to stop: at a bound, a deadline of `time.monotonic`, a number of boxes, or when ``stop[0]`` is set."""

    stop: npt.NDArray[np.int32]
    goal: float = math.inf
    deadline: float = math.inf
    max_cells: int = 10**9

    def expired(self) -> bool:
        """Whether to stop at once."""
        return bool(self.stop[0]) or monotonic() >= self.deadline


class _Gains:
    """How much the bound gained from splitting each parameter, per share of its width."""

    def __init__(self, width: FloatArray) -> None:
        self._width = width
        self._gain = np.full(width.size, math.inf)

    def choose(self, low: FloatArray, high: FloatArray) -> int:
        """The parameter whose halving promises most."""
        share = (high - low) / self._width
        with np.errstate(invalid="ignore"):
            # Widest first among those not tried yet; a floor keeps every parameter in play.
            finite = self._gain[np.isfinite(self._gain)]
            floor = 0.02 * float(finite.max()) if finite.size else 0.0
            worth = np.where(np.isfinite(self._gain), np.maximum(self._gain, floor), 1e300) * share
        return int(np.argmax(worth))

    def learn(self, parameter: int, low: FloatArray, high: FloatArray, gain: float) -> None:
        """What splitting a box at ``parameter`` gained."""
        rate = max(gain, 0.0) * float(self._width[parameter] / (high[parameter] - low[parameter]))
        if math.isfinite(rate):
            old = self._gain[parameter]
            self._gain[parameter] = rate if math.isinf(old) else 0.8 * old + 0.2 * rate


class Subdivision:
    """The state of one branch and bound; `run` may be called again with other limits to go on."""

    def __init__(
        self,
        evaluate: Evaluate,
        low: FloatArray,
        high: FloatArray,
        keys: tuple[tuple[int, ...], ...] = (),
        piece: int = 1,
    ) -> None:
        self._evaluate, self.keys = evaluate, keys
        self._piece = max(_PIECE, piece)
        self.low, self.high = low, high
        self._low, self._high = [low], [high]
        bounds, splits = np.empty(1), np.empty(1, dtype=np.int64)
        evaluate(low[None], high[None], bounds, splits)
        self._bound, self._split = [_number(bounds[0])], [int(splits[0])]
        self._heap = [(self._bound[0], 0)]
        self._open: list[tuple[float, int]] = []  # taken off the heap for a round that is not finished
        self._gone: set[int] = set()
        self._gains = _Gains(high - low)
        self.cells = 1
        self.seconds = 0.0

    @property
    def psi_lower(self) -> float:
        """The worst leaf's bound."""
        return min(self._heap[0][0] if self._heap else math.inf, min((bound for bound, _ in self._open), default=math.inf))

    def evaluated(self, lows: FloatArray, highs: FloatArray) -> FloatArray:
        """Bounds of boxes (B, P), infinite for those outside the region or equal to others by symmetry."""
        bounds, splits = np.empty(len(lows)), np.empty(len(lows), dtype=np.int64)
        self._evaluate(lows, highs, bounds, splits)
        copies = [_is_copy(self.keys, low, high) for low, high in zip(lows, highs, strict=True)]
        return np.where(copies, math.inf, np.where(np.isnan(bounds), -math.inf, bounds))

    def cover(self) -> Cover:
        """The leaves."""
        kept = np.array([leaf for leaf in range(len(self._low)) if leaf not in self._gone])
        low, high, bound = (np.array(column)[kept] for column in (self._low, self._high, self._bound))
        return Cover(low, high, bound, self.keys)

    def run(self, limits: Limits, progress: Progress | None = None) -> float:
        """Split the worst leaves until a limit is reached; returns the bound."""
        began = monotonic()
        room = _MAX_NUMBERS // (2 * self._low[0].size)
        with _pool(self._piece) as spread:
            while self._heap and not limits.expired() and self.psi_lower < limits.goal:
                if self.cells >= limits.max_cells or len(self._low) >= room:
                    break
                if not self._round(spread, limits):
                    break
                if progress is not None:
                    progress({"cells": self.cells, "psi_lower": self.psi_lower})
        self.seconds += monotonic() - began
        return self.psi_lower

    def _round(self, spread: Callable[..., bool], limits: Limits) -> bool:
        self._requeue()
        cuts: list[int] = []
        lows: list[FloatArray] = []
        highs: list[FloatArray] = []
        most = min(_ROUND * self._piece, max(_ROUND * _PIECE, int(_SHARE * self.cells)), (limits.max_cells - self.cells + 1) // 2)
        while self._heap and len(cuts) < most and self._heap[0][0] < limits.goal:
            leaf = self._heap[0][1]
            low, high = self._low[leaf], self._high[leaf]
            k = self._split[leaf] if self._split[leaf] >= 0 else self._gains.choose(low, high)
            middle = 0.5 * low[k] + 0.5 * high[k]
            if not low[k] < middle < high[k]:
                break
            # Noted before it leaves the heap: Ctrl-C may come at any time, and no leaf may be lost.
            self._open.append(self._heap[0])
            heapq.heappop(self._heap)
            first, second = high.copy(), low.copy()
            first[k] = second[k] = middle
            cuts.append(k)
            lows += [low, second]
            highs += [first, high]
        bounds, splits = np.empty(len(lows)), np.empty(len(lows), dtype=np.int64)
        if not cuts or not spread(self._evaluate, np.array(lows), np.array(highs), bounds, splits, limits):
            self._requeue()
            return False
        for at, ((bound, leaf), k) in enumerate(zip(self._open, cuts, strict=True)):
            pair = [self._leaf(lows[i], highs[i], bounds[i], int(splits[i])) for i in (2 * at, 2 * at + 1)]
            self._gone.add(leaf)
            if self._split[leaf] < 0:
                self._gains.learn(k, self._low[leaf], self._high[leaf], min(pair) - bound + 0.1 * (min(max(pair), 0.0) - bound))
        self._open = []
        self.cells += len(lows)
        return True

    def _requeue(self) -> None:
        """Put back the leaves of a round that did not end."""
        for entry in self._open:
            if entry[1] not in self._gone:
                heapq.heappush(self._heap, entry)
        self._open = []

    def _leaf(self, low: FloatArray, high: FloatArray, bound: float, split: int) -> float:
        """Enter a new leaf."""
        value = math.inf if _is_copy(self.keys, low, high) else _number(bound)
        self._low.append(low)
        self._high.append(high)
        self._bound.append(value)
        self._split.append(split)
        if value < math.inf:
            heapq.heappush(self._heap, (value, len(self._low) - 1))
        return value


def covers(cover: Cover, low: FloatArray, high: FloatArray) -> bool:
    """Whether the boxes of the cover are what halving the box [low, high] again and again leads to, none missing."""
    work = [(np.arange(cover.bound.size), low, high)]
    while work:
        part, start, end = work.pop()
        if part.size == 0:
            return False
        if part.size == 1:
            if not ((cover.low[part[0]] <= start).all() and (cover.high[part[0]] >= end).all()):
                return False
            continue
        middle = 0.5 * start + 0.5 * end
        below, above = cover.high[part] <= middle, cover.low[part] >= middle
        # Parameters with no number between their ends cannot be halved, and lie on one side of the middle for all boxes.
        whole = np.flatnonzero((below | above).all(axis=0) & (start < middle) & (middle < end))
        if whole.size == 0:
            return False
        k = int(whole[0])
        for side, change in ((below[:, k], end), (above[:, k], start)):
            new_start, new_end = start.copy(), end.copy()
            (new_end if change is end else new_start)[k] = middle[k]
            work.append((part[side], new_start, new_end))
    return True


def _number(bound: float) -> float:
    return -math.inf if math.isnan(bound) else float(bound)


def _is_copy(keys: tuple[tuple[int, ...], ...], low: FloatArray, high: FloatArray) -> bool:
    """Whether the keys rise somewhere all over the box: sorted, and with their signs made positive, its networks lie in
    another.
    """
    return any(high[first] < low[second] for layer in keys for first, second in pairwise(layer))


@contextmanager
def _pool(piece: int) -> Iterator[Callable[..., bool]]:
    """A function that evaluates boxes on all threads; False if the limits expired first."""
    with ThreadPoolExecutor(max_workers=num_workers(2 * _ROUND)) as executor:

        def spread(
            evaluate: Evaluate, lows: FloatArray, highs: FloatArray, bounds: FloatArray, splits: IntArray, limits: Limits
        ) -> bool:
            size = max(_PIECE, min(piece, -(-len(lows) // _ROUND)))

            def work(begin: int) -> bool:
                if limits.expired():
                    return False
                part = slice(begin, begin + size)
                evaluate(lows[part], highs[part], bounds[part], splits[part])
                return True

            return all(list(executor.map(work, range(0, len(lows), size))))

        yield spread
