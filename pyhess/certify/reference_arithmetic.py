"""The arithmetic that certificates are checked in: the one place that knows how numbers are rounded.

    long doubles   NumPy's, 80 bits where the machine has them: every result is moved outwards by one unit of the last place
    doubles        the same with 53 bits, some eight times as fast: for work that long doubles have no time for
    Arb            the ends of the ranges are Arb's numbers of 128 bits, a result's ends those of the ball that Arb returns for it

What is written with `wide`, `zeros`, `up` and `down`, NumPy's functions and `Range`s runs in each. Arb's arrays are NumPy
arrays of objects; they take their functions from Arb, and numbers of other kinds exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Wide: TypeAlias = npt.NDArray[np.longdouble]


class LongDoubles:
    """NumPy's long doubles; exp and the like are summed from their series (`reference_interval`)."""

    #: For people.
    name = f"intervals of {np.finfo(np.longdouble).nmant + 1}-bit floating-point numbers"
    #: Time of an operation, in units of this class's.
    cost = 1.0
    #: Bound of the relative rounding error of one operation, with room to spare.
    unit = float(np.finfo(np.longdouble).eps)

    def array(self, x: Any) -> Wide:
        """The numbers, exactly."""
        return np.asarray(x, dtype=np.longdouble)

    def ends(self, lo: Wide, hi: Wide) -> tuple[Wide, Wide]:
        """Of a range that may have been made in long doubles, in this arithmetic."""
        return lo, hi

    def up(self, x: Any) -> Wide:
        """At least what x was rounded from."""
        return np.nextafter(self.array(x), np.longdouble(np.inf))

    def down(self, x: Any) -> Wide:
        """At most what x was rounded from."""
        return np.nextafter(self.array(x), np.longdouble(-np.inf))

    def point(self, x: Wide) -> Wide:
        """Numbers near x, known exactly."""
        return x

    def matmul(self, a: Wide, b: Wide) -> Wide:
        """Products of (stacks of) matrices (n, k) and (k, m), in whatever order NumPy adds."""
        return np.asarray(a @ b)

    def function(self, name: str) -> Callable[[Wide], Wide] | None:
        """An elementary function of its own, to be rounded by `up` and `down`; None if it has none."""
        del name
        return None


class Doubles(LongDoubles):
    """NumPy's doubles."""

    name = "intervals of 53-bit floating-point numbers"
    cost = 0.15
    unit = 2.0**-52

    def array(self, x: Any) -> Wide:
        found = np.asarray(x)
        if found.dtype.type is np.longdouble:
            rounded = found.astype(np.float64)
            if not ((rounded == found) | np.isnan(rounded)).all():
                raise ValueError("A number that is no double stands for itself.")
            found = rounded
        return found.astype(np.float64, copy=False)

    def ends(self, lo: Wide, hi: Wide) -> tuple[Wide, Wide]:
        if lo.dtype == np.float64 == hi.dtype:
            return lo, hi
        low, high = lo.astype(np.float64), hi.astype(np.float64)
        return np.where(low <= lo, low, self.down(lo)), np.where(high >= hi, high, self.up(hi))

    # What is added is at least the unit of the last place of x, and if x is a rounded long double, of that.
    def up(self, x: Any) -> Wide:
        near = np.asarray(x, dtype=np.float64)
        return near + (np.abs(near) * (1.01 * self.unit) + _LEAST)  # type: ignore[return-value]

    def down(self, x: Any) -> Wide:
        near = np.asarray(x, dtype=np.float64)
        return near - (np.abs(near) * (1.01 * self.unit) + _LEAST)  # type: ignore[return-value]


#: The least positive double.
_LEAST = 5e-324

_current: ContextVar[LongDoubles | None] = ContextVar("arithmetic", default=None)
_default = LongDoubles()


def arithmetic() -> LongDoubles:
    """The arithmetic in use."""
    return _current.get() or _default


@contextmanager
def using(chosen: LongDoubles) -> Iterator[None]:
    """Compute in another arithmetic."""
    token = _current.set(chosen)
    try:
        yield
    finally:
        _current.reset(token)
