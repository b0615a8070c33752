"""Time limits of work that looks at a flag."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from ..model import MLP
from .dense import dense_work
from .taylor_kinds import polynomial_kind, polynomial_work
from .taylor_unit_forms import UnitLayout

#: Seconds of bounds with whole matrices at the least: per multiplication of the enclosures, and per P³ of the eigenvalues.
_PER_MULTIPLICATION, _PER_CUBE = 4e-10, 4e-10
#: The same of what comes before the first bound by a Taylor polynomial: per multiplication of the polynomial, of the product of
#: its third-order terms with themselves, and per P⁶ of the steps without these; and per multiplication of some steps in pairs of
#: units.
_PER_TAYLOR, _PER_GRAM, _PER_ROUND, _PER_PAIRS = 6e-11, 1e-11, 2e-10, 15 * 6e-11
#: What a flag is raised to when time is up; others raise it to one.
_EXPIRED = 2


def dense_seconds(net: MLP, num_samples: int) -> float:
    """Seconds that a bound with whole matrices takes at the least."""
    return _PER_MULTIPLICATION * dense_work(net, num_samples) + _PER_CUBE * float(net.num_params) ** 3


def taylor_seconds(net: MLP, loss: str, num_samples: int) -> float:
    """Seconds that the bound by a Taylor polynomial takes at the least before it has one."""
    size, kind = float(net.num_params), polynomial_kind(net, loss, num_samples)
    after = _PER_GRAM * size**7 if kind == "third" else _PER_ROUND * size**6
    if kind in ("units", "pairs"):
        after = min(after, _PER_PAIRS * UnitLayout(net).nodes.elimination_work)
    return _PER_TAYLOR * polynomial_work(net, loss, num_samples) + after


@contextmanager
def raised_after(flag: npt.NDArray[np.int32], seconds: float | None) -> Iterator[npt.NDArray[np.bool_]]:
    """Raise ``flag[0]`` after so many seconds, and lower it again at the end; yields a (1,) array that tells whether it was."""
    late = np.zeros(1, dtype=np.bool_)
    if seconds is None:
        yield late
        return

    def expire() -> None:
        late[0] = True
        flag[0] = flag[0] or _EXPIRED

    timer = threading.Timer(max(0.0, seconds), expire)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        timer.join()
        if flag[0] == _EXPIRED:
            flag[0] = 0
