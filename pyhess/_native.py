"""The checked way into the compiled core: which BLAS, which instruction set, which addresses.

Everything that could make a native call wrong is settled here, once, at import: the version of the C ABI, the integer width
of SciPy's BLAS, and that its matrix product gives the right answer.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from .errors import InputError, NumericalError

ABI_VERSION = 7
ISA_LEVELS = ("base", "v3", "v4")

#: Pause before a Ctrl-C that was swallowed is tried again.
_REPEAT_SECONDS = 0.1

STATUS_OK = 0
STATUS_CANCELLED = 2

if _core.abi_version != ABI_VERSION:
    raise ImportError(
        f"pyhess._core speaks C ABI version {_core.abi_version}, this package needs {ABI_VERSION}: "
        "the compiled part is from another installation. Reinstall pyhess."
    )

CAPI: dict[str, int] = dict(_core.capi())
#: Where an array's first element lies.
address = _core.address
#: Doubles of scratch that ph_descend needs: (num_params, memory) -> int.
descent_scratch_size = _core.descent_scratch_size
#: Doubles of scratch that ph_unit_cells needs per thread: (num_data, dim, outputs, num_generators) -> int.
unit_scratch_size = _core.unit_scratch_size
#: Eight-byte fields of its record, and the cells that one of its tasks takes.
UNIT_JOB_SIZE, CELLS_PER_TASK = int(_core.unit_job_size), int(_core.cells_per_task)

#: The same of ph_relaxed_cells: (num_data, dim, num_units) -> int, and its record's fields.
relaxed_scratch_size = _core.relaxed_scratch_size
RELAXED_JOB_SIZE = int(_core.relaxed_job_size)


@dataclass(frozen=True)
class Blas:
    """Addresses of the BLAS matrix products and the width of their integers; address 0 means the portable kernels."""

    dgemm: int
    sgemm: int
    int_bytes: int
    source: str


def _find_blas() -> Blas:
    """SciPy's BLAS through the function capsules it publishes for Cython, if its interface is one we know and it works."""
    from scipy.linalg import cython_blas

    found: dict[str, int] = {}
    int_bytes = 0
    for name in ("dgemm", "sgemm"):
        address, signature = _core.capsule_pointer(cython_blas.__pyx_capi__[name])
        # The capsule is named after the C signature; the integers stand in the third place.
        arguments = signature.replace(" ", "").partition("(")[2].split(",")
        third = arguments[2] if len(arguments) == 13 else ""
        width = {"int*": 4, "int32_t*": 4, "npy_int32*": 4, "int64_t*": 8, "npy_int64*": 8, "longlong*": 8}.get(third, 0)
        if not width or not _core.gemm_agrees(address, width, name == "sgemm"):
            warnings.warn(
                f"SciPy's {name} has an interface pyhess does not know ({signature!r}); using the portable kernels, "
                "which are correct but slow. Please report this with your SciPy version.",
                RuntimeWarning,
                stacklevel=2,
            )
            return Blas(0, 0, 4, "portable kernels")
        found[name] = address
        int_bytes = width
    return Blas(found["dgemm"], found["sgemm"], int_bytes, "scipy.linalg.cython_blas")


def _choose_isa() -> str:
    """The best level of this processor, or the one PYHESS_ISA names."""
    wanted = os.environ.get("PYHESS_ISA", "").strip().lower()
    if not wanted:
        return str(_core.best_isa())
    if wanted not in ISA_LEVELS:
        raise InputError(f"PYHESS_ISA={wanted!r} is not known; allowed: {', '.join(ISA_LEVELS)}, or unset to choose the best.")
    if not _core.isa_available(wanted):
        raise InputError(
            f"PYHESS_ISA={wanted!r} cannot run on this processor; available: "
            f"{', '.join(level for level in ISA_LEVELS if _core.isa_available(level))}."
        )
    return wanted


BLAS = _find_blas()
ISA = _choose_isa()


def aligned_zeros(size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A zeroed vector whose first element lies on a 64-byte boundary, as the core's workspaces need."""
    item = np.dtype(dtype).itemsize
    raw = np.zeros(size * item + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * item].view(dtype)


def raise_for_status(status: int, what: str) -> None:
    """Turn a status of the C ABI into an exception (cancellation is the caller's business)."""
    if status not in (STATUS_OK, STATUS_CANCELLED):
        raise NumericalError(
            f"{what}: the compiled core refused the call (status {status}); this is a bug in pyhess, please report it."
        )


@contextmanager
def compiling() -> Iterator[None]:
    """Have Ctrl-C end a compilation that runs in this thread.

    The compiler calls back into Python now and then, from where an exception does not get out: it is printed and gone. So the
    signal is repeated until its exception arrives, and raised at the end if it never did. Whoever has a signal handler of their
    own keeps it; threads other than the first get no signals.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    pending: list[threading.Timer] = []
    left = False

    def raise_and_repeat(signum: int, frame: Any) -> None:
        if left:
            return
        timer = threading.Timer(_REPEAT_SECONDS, _thread.interrupt_main)
        timer.daemon = True
        timer.start()
        pending.append(timer)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, raise_and_repeat)
    arrived = False
    try:
        try:
            yield
        finally:
            left = True
    except KeyboardInterrupt:
        arrived = True
        raise
    finally:
        left = True  # should the signal have come just before the line above
        for timer in pending:
            timer.cancel()
            timer.join()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if pending and not arrived:
            raise KeyboardInterrupt


def run_interruptible(
    fn: Callable[[], object],
    cancel: npt.NDArray[np.int32],
    *,
    deadline: float | None = None,
    on_tick: Callable[[], object] | None = None,
) -> str:
    """Run a native call so that Ctrl-C, a deadline and a progress display work while it runs.

    ``fn`` (which must release the GIL for its long parts and watch ``cancel``) runs in a helper thread; the calling thread
    waits in short steps. Ctrl-C and the deadline set ``cancel[0] = 1`` and then wait for ``fn`` to come back, so that
    whatever it has written to its arrays is complete.

    Parameters
    ----------
    fn : callable
        The call. An exception it raises is raised here.
    cancel : (1,) int32 array
        The flag that ``fn`` watches.
    deadline : float, optional
        Time on :func:`time.monotonic` after which ``fn`` is cancelled.
    on_tick : callable, optional
        Called from the waiting thread about ten times a second.

    Returns
    -------
    str
        ``"done"`` or ``"deadline"``.

    Raises
    ------
    KeyboardInterrupt
        After ``fn`` has returned.
    """
    failure: list[BaseException] = []
    # Not Thread.join: interrupted by a signal, CPython 3.11's marks a running thread as ended.
    done = threading.Event()

    def body() -> None:
        try:
            fn()
        except BaseException as error:
            failure.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=body, name="pyhess-native", daemon=True)
    outcome = "done"
    started = False
    try:
        thread.start()
        started = True
        step = 0.001
        while not done.wait(step):
            step = min(2.0 * step, 0.05)
            if deadline is not None and not cancel[0] and monotonic() >= deadline:
                cancel[0] = 1
                outcome = "deadline"
            if on_tick is not None:
                on_tick()
    except BaseException as error:
        cancel[0] = 1
        cannot_start = isinstance(error, RuntimeError) and not started
        while not (done.is_set() or cannot_start):
            try:
                done.wait()
            except KeyboardInterrupt:  # a second Ctrl-C must not leave native code writing to freed arrays
                continue
        raise
    if failure:
        raise failure[0]
    return outcome
