"""How much memory a problem takes, predicted before any of it is allocated."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _core
from ._checks import choice, positive_int
from ._native import ISA
from ._threads import num_workers
from .data import LOSSES
from .errors import InputError, InputTypeError, MemoryLimitError
from .linearization import ACCUMULATOR_BYTES, network_arguments
from .model import MLP

#: Share of the memory this process may use that an objective takes unless told otherwise.
_SHARE = 0.8
#: Sizes are added up in 64 bits by the core; what is larger than this is refused before it gets there.
_MOST_ELEMENTS = 2**58

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def available_bytes() -> float:
    """Bytes this process may use: the machine's memory or its control group's limit; infinity where neither is known."""
    limits = [math.inf]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(float(os.sysconf("SC_PHYS_PAGES")) * float(os.sysconf("SC_PAGE_SIZE")))
    for path in _CGROUP_LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(float(text))
    return min(limits)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one objective and one linearization, and how the products will use them.

    Attributes
    ----------
    num_params, num_samples : int
        P and N.
    data_bytes : int
        The objective's own copy of the data.
    state_bytes : int
        What one linearization keeps. With ``streaming`` the transposed weights alone.
    work_bytes : int
        Working memory of all ``workers``.
    accumulators : int
        Partial results (P,) that the threads fill and that are added in a fixed order; ``accumulator_bytes`` for all of them.
    accumulators_limited : bool
        True if more accumulators, and so more threads, would be used but for their memory: P is too large.
        ``accumulator_limit`` is what all of them may take, 2 GiB, or 0 for a single one where even that does not fit.
    vector_bytes : int
        theta, one vector, its transposed weights and one result.
    streaming : bool
        True if nothing is kept between products but theta: each product linearizes block after block anew. The results are the
        same bits, the time a third to a half more.
    budget_bytes : float
        What was allowed.
    """

    num_params: int
    num_samples: int
    dtype: str
    workers: int
    data_bytes: int
    state_bytes: int
    work_bytes: int
    accumulators: int
    accumulators_limited: bool
    accumulator_limit: int
    accumulator_bytes: int
    vector_bytes: int
    streaming: bool
    budget_bytes: float

    @property
    def total_bytes(self) -> int:
        """Everything together."""
        return self.data_bytes + self.state_bytes + self.work_bytes + self.accumulator_bytes + self.vector_bytes

    def basis_bytes(self, num_vectors: int) -> int:
        """Bytes of a Lanczos basis of so many vectors (P,) in the plan's dtype."""
        return positive_int("num_vectors", num_vectors) * self.num_params * (4 if self.dtype == "float32" else 8)

    def __str__(self) -> str:
        rows = [
            ("data", self.data_bytes, f"{self.num_samples} samples"),
            ("state", self.state_bytes, "streamed block by block" if self.streaming else "kept per linearization"),
            ("work", self.work_bytes, f"{self.workers} workers"),
            (
                "accumulators",
                self.accumulator_bytes,
                f"{self.accumulators}" + (", fewer than the cores could use: P is large" if self.accumulators_limited else ""),
            ),
            ("vectors", self.vector_bytes, f"P = {self.num_params}"),
            ("total", self.total_bytes, f"of {shown_bytes(self.budget_bytes)} allowed"),
        ]
        return "\n".join(f"{name:<13} {shown_bytes(size):>10}  {note}" for name, size, note in rows)


def plan(
    net: MLP, num_samples: int, loss: str = "squared_error", *, dtype: str = "float64", max_memory: float | None = None
) -> MemoryPlan:
    """Predict the memory of an objective and its products; nothing is allocated.

    The state of a linearization is kept where it fits into ``max_memory`` and streamed where it does not; where that is not
    enough, the threads' accumulators are given up too.

    Parameters
    ----------
    net : MLP
        The network.
    num_samples : int
        N.
    loss, dtype : str
        As for :class:`Objective`.
    max_memory : float, optional
        Bytes allowed; by default 80 % of what this process may use.

    Returns
    -------
    MemoryPlan

    Raises
    ------
    MemoryLimitError
        If the problem does not fit even when streamed.
    InputError, InputTypeError
        If an argument is not allowed.

    Examples
    --------
    >>> import pyhess as ph
    >>> small = ph.plan(ph.MLP([64, 16, 10]), 1000, "cross_entropy")
    >>> small.streaming, small.num_params
    (False, 1210)
    >>> wide = ph.MLP([784, 1024, 1024, 10])
    >>> ph.plan(wide, 200_000, "cross_entropy", max_memory=3e9).streaming
    True
    """
    if not isinstance(net, MLP):
        raise InputTypeError(f"net is a {type(net).__name__}; pass a pyhess.MLP.")
    samples = positive_int("num_samples", num_samples)
    choice("loss", loss, LOSSES)
    choice("dtype", dtype, ("float64", "float32"))
    budget = _SHARE * available_bytes() if max_memory is None else as_bytes(max_memory)
    if samples * 8 * sum(net.widths) + 64 * net.num_params > _MOST_ELEMENTS:
        raise MemoryLimitError(f"N = {samples} and P = {net.num_params} need more than 2^61 bytes; use fewer data or units.")
    for streaming, limit in ((False, ACCUMULATOR_BYTES), (True, ACCUMULATOR_BYTES), (False, 0), (True, 0)):
        found = _measure(net, samples, loss, dtype, budget, streaming, limit)
        if found.total_bytes <= budget:
            break
    else:
        raise MemoryLimitError(
            f"this problem needs {shown_bytes(found.total_bytes)} even when its data are streamed, allowed are "
            f"{shown_bytes(budget)}:\n{found}\nUse fewer data, a narrower network, dtype='float32', or a larger max_memory."
        )
    return found


def _measure(net: MLP, samples: int, loss: str, dtype: str, budget: float, streaming: bool, limit: int) -> MemoryPlan:
    single = dtype == "float32"
    item = 4 if single else 8
    sizes: dict[str, Any] = _core.problem_sizes(
        **network_arguments(net, loss), num_samples=samples, single=single, isa=ISA, streaming=streaming, accumulator_bytes=limit
    )
    chunks = int(sizes["num_chunks"])
    workers = num_workers(chunks)
    return MemoryPlan(
        num_params=net.num_params,
        num_samples=samples,
        dtype=dtype,
        workers=workers,
        data_bytes=item * int(sizes["data"]),
        state_bytes=item * int(sizes["state"]),
        work_bytes=item * workers * int(sizes["work"]),
        accumulators=chunks,
        accumulators_limited=bool(sizes["chunks_limited"]),
        accumulator_limit=limit,
        accumulator_bytes=item * net.num_params * chunks if chunks > 1 else 0,
        vector_bytes=item * (3 * net.num_params + int(sizes["transposed"])),
        streaming=streaming,
        budget_bytes=budget,
    )


def as_bytes(max_memory: object) -> float:
    """A positive number of bytes."""
    if isinstance(max_memory, bool) or not isinstance(max_memory, int | float):
        raise InputTypeError(f"max_memory is {max_memory!r}; pass a number of bytes, for example 4e9, or None.")
    if not max_memory > 0:
        raise InputError(f"max_memory is {max_memory!r} bytes; allowed are positive numbers. Pass for example 4e9, or None.")
    return float(max_memory)


def shown_bytes(size: float) -> str:
    """A size in readable units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024.0:
            return f"{size:.4g} {unit}"
        size /= 1024.0
    return f"{size:.4g} TiB"


__all__ = ["MemoryPlan", "available_bytes", "plan"]
