"""Interleaved, repeated, warm measurements in one process.

A neighbour on the machine, a change of clock rate or a full cache hits every contender alike when they take turns, A B C
A B C …, and shows in the spread. The minimum is what the work costs; the median and the spread say how far to trust it.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: OpenMP threads spin for some milliseconds after their last task; a contender must not pay for its predecessor's.
SETTLE_SECONDS = 0.005

#: Calls this long need no untimed call before every turn, and those of the second kind take few turns.
_LONG_SECONDS, _VERY_LONG_SECONDS = 1.0, 10.0
_FEW_TURNS = 3


@dataclass(frozen=True)
class Protocol:
    """How often and how long: ``repeats`` turns, each long enough to last ``min_seconds``."""

    repeats: int = 9
    min_seconds: float = 0.03
    clock: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Timing:
    """Seconds per call, one sample per turn, each the mean of ``inner`` calls."""

    samples: tuple[float, ...]
    inner: int

    @property
    def minimum(self) -> float:
        """The smallest sample."""
        return min(self.samples)

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """(largest - smallest) / median."""
        return (max(self.samples) - min(self.samples)) / self.median


def interleave(calls: Mapping[str, Callable[[], Any]], protocol: Protocol) -> dict[str, Timing]:
    """Time the calls in turn.

    Every call is made beforehand (compilers and caches), and once, untimed, at the beginning of each of its turns; a call of
    more than a second has no need of that, and where one lasts more than ten there are three turns at most.
    Garbage is collected before a turn and not during it.
    """
    calibrated = {name: _calibrate(call, protocol) for name, call in calls.items()}
    inner = {name: count for name, (count, _) in calibrated.items()}
    longest = max((seconds for _, seconds in calibrated.values()), default=0.0)
    turns = min(protocol.repeats, _FEW_TURNS) if longest >= _VERY_LONG_SECONDS else protocol.repeats
    samples: dict[str, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    try:
        for _ in range(turns):
            for name, call in calls.items():
                gc.collect()
                gc.disable()
                protocol.sleep(SETTLE_SECONDS)
                if calibrated[name][1] < _LONG_SECONDS:
                    call()
                began = protocol.clock()
                for _ in range(inner[name]):
                    call()
                samples[name].append((protocol.clock() - began) / inner[name])
                gc.enable()
    finally:
        if collecting:
            gc.enable()
        else:
            gc.disable()
    return {name: Timing(tuple(samples[name]), inner[name]) for name in calls}


def _calibrate(call: Callable[[], Any], protocol: Protocol) -> tuple[int, float]:
    """Calls per turn, and seconds per call; unless it is long, the call has been made at least twice afterwards."""
    began = protocol.clock()
    call()
    seconds = protocol.clock() - began
    if seconds >= _LONG_SECONDS:
        return 1, seconds
    count = 1
    while True:
        began = protocol.clock()
        for _ in range(count):
            call()
        seconds = protocol.clock() - began
        if seconds >= 0.5 * protocol.min_seconds:
            return max(1, round(count * protocol.min_seconds / seconds)), seconds / count
        count *= 2 if seconds <= 0.0 else max(2, min(100, int(protocol.min_seconds / seconds)))
