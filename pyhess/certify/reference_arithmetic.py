"""The arithmetic that certificates are checked in: the one place that knows how numbers are rounded.

    long doubles   NumPy's, 80 bits where the machine has them: every result is moved outwards by one unit of the last place
    Arb            the ends of the ranges are Arb's numbers of 128 bits, a result's ends those of the ball that Arb returns for it

What is written with `wide`, `zeros`, `up` and `down`, NumPy's functions and `Range`s runs in either. Arb's arrays are NumPy
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

    def array(self, x: Any) -> Wide:
        """The numbers, exactly."""
        return np.asarray(x, dtype=np.longdouble)

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
