"""Branch and bound over boxes of parameters: best first, anytime, on threads.

The leaves of the subdivision always cover the region (up to the network's symmetries, if those were used), so that the worst leaf's bound is
a bound of psi whenever the work is stopped. A fixed number of the worst leaves is split in every round, whatever the number of threads.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

import numpy as np
import numpy.typing as npt

from .._threads import num_workers

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Writes the bounds (B,) of boxes (B, P) and the parameters (B,) to split next; -1 leaves the choice to `_Gains`.
Evaluate = Callable[[FloatArray, FloatArray, FloatArray, IntArray], None]
Progress = Callable[[dict[str, object]], object]

#: Leaves split in a round, and boxes handed to a thread at a time.
_ROUND, _PIECE = 16, 4
#: Numbers that the leaves may take up: 400 MB.
_MAX_NUMBERS = 5 * 10**7


@dataclass(frozen=True, eq=False)
class Cover:
    """Boxes that together cover the region, and what is proved on each.

    Attributes
    ----------
    low, high : (M, P)
        Ends of the boxes.
    bound : (M,)
        No Hessian on the box has an eigenvalue below this; infinite for boxes that do not meet the region, or that hold only networks
        equal to those in another box up to the order and signs of hidden units.
    keys : tuple of tuples of int
        For every layer whose units were taken in one order and with one sign: the parameters, one per unit, that are >= 0 and fall from
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
        share = (high - low) / self._width
        with np.errstate(invalid="ignore"):
            # Widest first among those not tried yet; a floor keeps every parameter in play.
            finite = self._gain[np.isfinite(self._gain)]
            floor = 0.02 * float(finite.max()) if finite.size else 0.0
            worth = np.where(np.isfinite(self._gain), np.maximum(self._gain, floor), 1e300) * share
        return int(np.argmax(worth))

    def learn(self, parameter: int, share: float, gain: float) -> None:
        rate = max(gain, 0.0) / share if share > 0.0 else 0.0
        old = self._gain[parameter]
        self._gain[parameter] = rate if math.isinf(old) else 0.8 * old + 0.2 * rate


class Subdivision:
    """The state of one branch and bound; `run` may be called again with other limits to go on."""

    def __init__(self, evaluate: Evaluate, low: FloatArray, high: FloatArray, keys: tuple[tuple[int, ...], ...] = ()) -> None:
        self._evaluate, self._keys = evaluate, keys
        self._low, self._high = [low], [high]
        bounds, splits = np.empty(1), np.empty(1, dtype=np.int64)
        evaluate(low[None], high[None], bounds, splits)
        self._bound, self._split = [_number(bounds[0])], [int(splits[0])]
        self._heap = [(self._bound[0], 0)]
        self._gone: set[int] = set()
        self._gains = _Gains(high - low)
        self.cells = 1
        self.seconds = 0.0

    @property
    def psi_lower(self) -> float:
        """The worst leaf's bound."""
        return self._heap[0][0] if self._heap else math.inf

    def cover(self) -> Cover:
        """The leaves."""
        kept = np.array([leaf for leaf in range(len(self._low)) if leaf not in self._gone])
        return Cover(*(np.array(column)[kept] for column in (self._low, self._high, self._bound)), self._keys)

    def run(self, limits: Limits, progress: Progress | None = None) -> float:
        """Split the worst leaves until a limit is reached; returns the bound."""
        began = monotonic()
        room = _MAX_NUMBERS // (2 * self._low[0].size)
        with _pool() as spread:
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
        parents, lows, highs = [], [], []
        while self._heap and len(parents) < _ROUND and self._heap[0][0] < limits.goal:
            bound, leaf = heapq.heappop(self._heap)
            low, high = self._low[leaf], self._high[leaf]
            k = self._split[leaf] if self._split[leaf] >= 0 else self._gains.choose(low, high)
            middle = 0.5 * low[k] + 0.5 * high[k]
            parents.append((bound, leaf, k))
            if not low[k] < middle < high[k]:
                break
            first, second = high.copy(), low.copy()
            first[k] = second[k] = middle
            lows += [low, second]
            highs += [first, high]
        complete = len(lows) == 2 * len(parents)
        bounds, splits = np.empty(len(lows)), np.empty(len(lows), dtype=np.int64)
        done = complete and spread(self._evaluate, np.array(lows), np.array(highs), bounds, splits, limits)
        if not done:
            for bound, leaf, _ in parents:
                heapq.heappush(self._heap, (bound, leaf))
            return False
        for at, (bound, leaf, k) in enumerate(parents):
            pair = [self._leaf(lows[i], highs[i], bound, bounds[i], int(splits[i])) for i in (2 * at, 2 * at + 1)]
            self._gone.add(leaf)
            if self._split[leaf] < 0:
                share = (self._high[leaf][k] - self._low[leaf][k]) / self._gains._width[k]
                self._gains.learn(k, float(share), min(pair) - bound + 0.1 * (min(max(pair), 0.0) - bound))
        self.cells += len(lows)
        return True

    def _leaf(self, low: FloatArray, high: FloatArray, parent: float, bound: float, split: int) -> float:
        """Enter a new leaf; a part cannot be worse than the whole."""
        value = math.inf if _is_copy(self._keys, low, high) else max(parent, _number(bound))
        self._low.append(low)
        self._high.append(high)
        self._bound.append(value)
        self._split.append(split)
        if value < math.inf:
            heapq.heappush(self._heap, (value, len(self._low) - 1))
        return value


def _number(bound: float) -> float:
    return -math.inf if math.isnan(bound) else float(bound)


def _is_copy(keys: tuple[tuple[int, ...], ...], low: FloatArray, high: FloatArray) -> bool:
    """Whether the keys rise somewhere all over the box: sorted, and with their signs made positive, its networks lie in another."""
    return any(high[first] < low[second] for layer in keys for first, second in zip(layer, layer[1:], strict=False))


@contextmanager
def _pool() -> Iterator[Callable[..., bool]]:
    """A function that evaluates boxes on all threads; False if the limits expired first."""
    with ThreadPoolExecutor(max_workers=num_workers(_ROUND)) as executor:

        def spread(
            evaluate: Evaluate, lows: FloatArray, highs: FloatArray, bounds: FloatArray, splits: IntArray, limits: Limits
        ) -> bool:
            def work(begin: int) -> bool:
                if limits.expired():
                    return False
                part = slice(begin, begin + _PIECE)
                evaluate(lows[part], highs[part], bounds[part], splits[part])
                return True

            return all(list(executor.map(work, range(0, len(lows), _PIECE))))

        yield spread
