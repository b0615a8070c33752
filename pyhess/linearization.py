"""The compiled problem and its linearizations: the only Python code that hands memory to the C core."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _core
from ._native import BLAS, CAPI, ISA, STATUS_CANCELLED, aligned_zeros, compiling, raise_for_status, run_interruptible
from ._threads import PARALLEL_LOCK, blas_single_thread, num_workers
from .errors import MemoryLimitError
from .kernels import products
from .model import ACTIVATIONS, MLP

FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]

# The order of these names is the order of the codes in types.hpp.
_ACTIVATION_CODES = {name: code for code, name in enumerate(("identity", "tanh", "relu", "softplus", "sigmoid", "gelu"))}
_LOSS_CODES = {name: code for code, name in enumerate(("squared_error", "cross_entropy", "logistic"))}
assert set(_ACTIVATION_CODES) == set(ACTIVATIONS)

#: Calls predicted to be longer than this many flops (some 10 ms) watch for Ctrl-C; shorter ones are not worth a thread.
_INTERRUPTIBLE_FLOPS = 5e8
#: Calls below this many flops (some 0.1 ms) stay in the calling thread: waking the others costs microseconds on an idle machine
#: and milliseconds on a busy one.
_PARALLEL_FLOPS = 2e6

#: (kernel, dtype, parallel) that have been called.
_compiled: set[tuple[str, np.dtype[Any], bool]] = set()


def network_arguments(net: MLP, loss: str) -> dict[str, Any]:
    """The network and the loss in the core's words."""
    return {
        "widths": list(net.widths),
        "activations": [_ACTIVATION_CODES[name] for name in net.activations],
        "betas": list(net.betas),
        "scales": list(net.layer_scales),
        "bias": net.bias,
        "loss": _LOSS_CODES[loss],
    }


#: All accumulators of one result together; a fixed number, so that sums have one order on every machine.
ACCUMULATOR_BYTES = int(_core.accumulator_bytes)


class CApi(NamedTuple):
    """Addresses of the C ABI in the form kernels take them."""

    ph_prepare: int
    ph_transpose: int
    ph_linearize: int
    ph_hvp: int
    ph_ggn: int
    ph_jet: int
    ph_descend: int
    ph_fetch_add: int


capi = CApi(**CAPI)


class Curvature(NamedTuple):
    """The curvature jet along v: ``q`` = v'Hv, ``hv`` = Hv (P,), ``grad`` = d(v'Hv)/dtheta (P,)."""

    q: float
    hv: FloatArray
    grad: FloatArray


class _Buffers:
    """Working memory of one product at a time: transposed weights of v, one accumulator per chunk, one workspace per worker."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.vt = engine.zeros(int(engine.problem.transposed_size))
        self._work = engine.zeros(0, 0)
        self._parts: list[AnyArray] = []

    def work(self, workers: int) -> AnyArray:
        if self._work.shape[0] < workers:
            self._work = self._engine.rows(workers, int(self._engine.problem.work_size))
        return self._work[:workers]

    def parts(self, out: AnyArray, which: int = 0) -> AnyArray:
        """Accumulators (chunks, P) for ``out`` (P,); a single chunk writes straight into the result."""
        chunks = self._engine.num_chunks
        if chunks == 1:
            return out.reshape(1, -1)
        while len(self._parts) <= which:
            self._parts.append(self._engine.zeros(chunks, out.size))
        return self._parts[which]


class Engine:
    """A network, loss and data set compiled for one dtype.

    Memory: the data once (in the dtype), and per linearization the state, ``state_size`` elements: two numbers for every
    hidden unit and datum (six for GELU) and two for every output and datum, plus a padded copy of the weights. With
    ``streaming`` the state is that copy alone, and every product linearizes block after block again. A single array of more
    than ``max_bytes`` is refused.
    """

    def __init__(
        self, net: MLP, loss: str, x: FloatArray, targets: FloatArray, weights: FloatArray, dtype: str, *,
        streaming: bool = False, max_bytes: float = math.inf, accumulator_bytes: int = ACCUMULATOR_BYTES,
    ) -> None:  # fmt: skip
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        single = self.dtype == np.float32
        self.problem = _core.Problem(
            **network_arguments(net, loss),
            x=np.ascontiguousarray(x, dtype=np.float64),
            target=np.ascontiguousarray(targets, dtype=np.float64),
            weight=np.ascontiguousarray(weights, dtype=np.float64),
            single=single,
            blas=BLAS.sgemm if single else BLAS.dgemm,
            blas_int_bytes=BLAS.int_bytes,
            isa=ISA,
            streaming=streaming,
            accumulator_bytes=accumulator_bytes,
        )
        self._max_bytes, self._accumulator_bytes = max_bytes, accumulator_bytes
        self.num_params = int(self.problem.num_params)
        self.num_chunks = int(self.problem.num_chunks)
        sizes = [a * b for a, b in zip(net.widths[:-1], net.widths[1:], strict=True)]
        #: flops of one Hessian-vector product, 4 N P_1 + 12 N (P - P_1) over the weights
        self.hvp_flops = float(x.shape[0]) * (4.0 * sizes[0] + 12.0 * sum(sizes[1:]))
        self._pool: list[_Buffers] = []
        self._pool_lock = threading.Lock()
        self._arguments = (net, loss, x, targets, weights)
        self._in_float64: Engine | None = None

    def in_float64(self) -> Engine:
        """The same problem in float64, compiled at the first call; this one if it is."""
        if self.dtype == np.float64:
            return self
        with self._pool_lock:
            if self._in_float64 is None:
                self._in_float64 = Engine(
                    *self._arguments,
                    "float64",
                    streaming=bool(self.problem.streaming),
                    max_bytes=self._max_bytes,
                    accumulator_bytes=self._accumulator_bytes,
                )
            return self._in_float64

    @contextmanager
    def buffers(self) -> Iterator[_Buffers]:
        """Working memory for one product, reused by the next; threads that multiply at the same time get their own."""
        with self._pool_lock:
            mine = self._pool.pop() if self._pool else None
        if mine is None:
            mine = _Buffers(self)
        try:
            yield mine
        finally:
            with self._pool_lock:
                self._pool.append(mine)

    def zeros(self, *shape: int) -> AnyArray:
        """A zeroed array of the engine's dtype whose rows start on 64-byte boundaries where the last axis is padded."""
        size = math.prod(shape)
        gib = size * self.dtype.itemsize / 2**30
        if size * self.dtype.itemsize > self._max_bytes:
            raise MemoryLimitError(
                f"{gib:.3g} GiB of working memory are needed at once, allowed are {self._max_bytes / 2**30:.3g} GiB (max_memory "
                "of the objective); use fewer threads, fewer data or a narrower network, or a smaller max_memory, with which the "
                "objective streams its data and needs less."
            )
        try:
            return aligned_zeros(size, self.dtype).reshape(shape)
        except MemoryError as error:
            raise MemoryLimitError(
                f"{gib:.1f} GiB of working memory cannot be had; use fewer data or a narrower network, or dtype='float32'."
            ) from error

    def rows(self, count: int, size: int) -> AnyArray:
        """``count`` rows of ``size`` elements, each on a 64-byte boundary (rows are padded)."""
        return self.zeros(count, -(-size // 16) * 16)

    def rows_exactly(self, count: int, size: int) -> AnyArray:
        """As ``rows``, seen without the padding."""
        return self.rows(count, size)[:, :size]

    def work(self, workers: int) -> AnyArray:
        """One workspace row per worker."""
        return self.rows(workers, int(self.problem.work_size))

    def cast(self, vector: AnyArray) -> AnyArray:
        """The vector in the engine's dtype, contiguous."""
        with np.errstate(over="ignore"):  # numbers beyond float32 become inf, and the product is refused as not finite
            return np.ascontiguousarray(vector, dtype=self.dtype)

    def run(self, kernel: Callable[[bool, int, npt.NDArray[np.int32]], int], tasks: int, flops: float, what: str) -> None:
        """Call ``kernel(parallel, workers, cancel)`` with BLAS at one thread; long calls can be interrupted.

        ``flops`` is infinite where the length cannot be predicted. The number of workers never changes the result. A kernel is
        first called with ``cancel`` set, at which it must return soon and leave no trace: that compiles it in the calling
        thread, where Ctrl-C reaches the compiler. ``what`` names the kernel.
        """
        workers = num_workers(tasks) if flops > _PARALLEL_FLOPS else 1
        status = [0]

        def call(cancel: npt.NDArray[np.int32]) -> None:
            with blas_single_thread():
                if workers > 1:
                    with PARALLEL_LOCK:
                        status[0] = int(kernel(True, workers, cancel))
                else:
                    status[0] = int(kernel(False, 1, cancel))

        version = (what, self.dtype, workers > 1)
        if version not in _compiled:
            with compiling():
                call(np.ones(1, dtype=np.int32))
            _compiled.add(version)
        cancel = np.zeros(1, dtype=np.int32)
        if flops > _INTERRUPTIBLE_FLOPS:
            run_interruptible(lambda: call(cancel), cancel)
        else:
            call(cancel)
        assert status[0] != STATUS_CANCELLED, "only an exception that has already been raised cancels a product"
        raise_for_status(status[0], what)


class Linearization:
    """The state at one theta: everything the products need that does not depend on the vector.

    Immutable after construction; products borrow their workspace from the engine, so several threads may use one
    linearization.
    """

    def __init__(self, engine: Engine, theta: AnyArray, *, with_gradient: bool = False) -> None:
        self.engine = engine
        self.theta = engine.cast(theta).copy()
        self.state = engine.zeros(int(engine.problem.state_size))
        self.gradient = engine.zeros(engine.num_params if with_gradient else 0)
        values = np.zeros(engine.num_chunks)
        with engine.buffers() as buffers:
            grads = buffers.parts(self.gradient) if with_gradient else engine.zeros(1, 0)

            def kernel(parallel: bool, workers: int, cancel: npt.NDArray[np.int32]) -> int:
                status: int = products.linearize[parallel](
                    capi, engine.problem.address, self.theta, self.state, values, grads, self.gradient, buffers.work(workers),
                    np.zeros(1, dtype=np.int64), cancel,
                )  # fmt: skip
                return status

            engine.run(kernel, engine.num_chunks, engine.hvp_flops, "linearize")
        self.value = float(values.sum())

    def multiply(self, function: int, v: AnyArray, out: AnyArray) -> None:
        """Write A v to ``out``, contiguous (P,) arrays of the engine's dtype; ``function`` is the address of ph_hvp or ph_ggn."""
        engine = self.engine
        with engine.buffers() as buffers:

            def kernel(parallel: bool, workers: int, cancel: npt.NDArray[np.int32]) -> int:
                status: int = products.multiply[parallel](
                    capi, function, engine.problem.address, self.theta, self.state, v, buffers.vt, buffers.parts(out), out,
                    buffers.work(workers), np.zeros(1, dtype=np.int64), cancel,
                )  # fmt: skip
                return status

            engine.run(kernel, engine.num_chunks, engine.hvp_flops, "matrix-vector product")

    def multiply_block(self, function: int, vs: AnyArray, out: AnyArray) -> None:
        """out[k] = A vs[k] for contiguous rows (k, P).

        Many vectors are spread over the cores one by one; a few, of a large problem, are multiplied in turn with all cores
        on each. The bits are those of single products either way.
        """
        engine, count = self.engine, vs.shape[0]
        if count < 2 * num_workers(count) and engine.num_chunks > 1:
            for v, row in zip(vs, out, strict=True):
                self.multiply(function, v, row)
            return

        def kernel(parallel: bool, workers: int, cancel: npt.NDArray[np.int32]) -> int:
            status: int = products.multiply_block[parallel](
                capi, function, engine.problem.address, engine.num_chunks, self.theta, self.state, vs, out,
                engine.rows(workers, int(engine.problem.transposed_size)), engine.rows_exactly(workers, engine.num_params),
                engine.work(workers), np.zeros(1, dtype=np.int64), cancel,
            )  # fmt: skip
            return status

        engine.run(kernel, count, count * engine.hvp_flops, "block of matrix-vector products")

    def jet(self, v: AnyArray) -> Curvature:
        """The curvature jet along the contiguous vector v (P,)."""
        engine = self.engine
        hv, grad = engine.zeros(engine.num_params), engine.zeros(engine.num_params)
        qs = np.zeros(engine.num_chunks)
        with engine.buffers() as buffers:

            def kernel(parallel: bool, workers: int, cancel: npt.NDArray[np.int32]) -> int:
                status: int = products.jet[parallel](
                    capi, engine.problem.address, self.theta, self.state, v, buffers.vt, qs, buffers.parts(hv, 0),
                    buffers.parts(grad, 1), hv, grad, buffers.work(workers), np.zeros(1, dtype=np.int64), cancel,
                )  # fmt: skip
                return status

            engine.run(kernel, engine.num_chunks, 2.0 * engine.hvp_flops, "curvature jet")
        return Curvature(float(qs.sum()), hv.astype(np.float64), grad.astype(np.float64))
