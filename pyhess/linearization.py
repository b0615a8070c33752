"""The compiled problem and its linearizations: the only Python code that hands memory to the C core."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _core
from ._native import BLAS, CAPI, ISA, STATUS_CANCELLED, address, aligned_zeros, compiling, raise_for_status, run_interruptible
from ._threads import PARALLEL_LOCK, blas_single_thread, num_workers
from .errors import MemoryLimitError
from .kernels import jobs
from .kernels.jobs import JET, JOB, LINEARIZE
from .model import ACTIVATIONS, MLP

FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]

# The order of these names is the order of the codes in types.hpp.
_ACTIVATION_CODES = {name: code for code, name in enumerate(("identity", "tanh", "relu", "softplus", "sigmoid", "gelu"))}
_LOSS_CODES = {name: code for code, name in enumerate(("squared_error", "cross_entropy", "logistic"))}
assert set(_ACTIVATION_CODES) == set(ACTIVATIONS)
assert JOB.itemsize == 8 * _core.job_size

#: Calls predicted to be longer than this many flops (some 10 ms) watch for Ctrl-C; shorter ones are not worth a thread.
_INTERRUPTIBLE_FLOPS = 5e8
#: Calls below this many flops (some 0.1 ms) stay in the calling thread: waking the others costs microseconds on an idle machine
#: and milliseconds on a busy one.
_PARALLEL_FLOPS = 2e6

#: Operations by their flops, in products.
_COSTS = (1.0, 1.0, 1.0, 2.0)

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


#: One thread, or the threads of one theta in three passes, or those of many samples: the functions of the C ABI for a job.
SAMPLES = np.array([CAPI["ph_samples"]], dtype=np.int64)
CHUNKS = np.array([CAPI[name] for name in ("ph_transposes", "ph_chunks", "ph_sums")], dtype=np.int64)


class Curvature(NamedTuple):
    """The curvature jet along v: ``q`` = v'Hv, ``hv`` = Hv (P,), ``grad`` = d(v'Hv)/dtheta (P,)."""

    q: float
    hv: FloatArray
    grad: FloatArray


class _Fields(ctypes.Structure):
    """The record of a job as attributes, which are set ten times as fast as a structured array's."""

    _fields_ = [(name, ctypes.c_int64) for name in JOB.names or ()]


class Buffers:
    """Working memory of one job at a time, and the job's record; everything grows to what was needed so far."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows: dict[str, AnyArray] = {}
        self.job = np.zeros(1, dtype=JOB)
        self.fields: Any = _Fields.from_buffer(self.job.data)
        self.address = address(self.job)
        self.fields.problem = engine.problem.address

    def _need(self, name: str, count: int, size: int) -> tuple[int, int]:
        """Address and stride of ``count`` rows of ``size`` elements."""
        rows = self._rows.get(name)
        if rows is None or rows.shape[0] < count:
            rows = self._rows[name] = self._engine.rows(count, size)
        return address(rows), rows.shape[1]

    def fill(
        self, operation: int, count: int, threads: int, by_chunks: bool, *, thetas: AnyArray, states: AnyArray | None,
        vs: AnyArray | None, outs: AnyArray | None, grads: AnyArray | None, values: AnyArray | None,
    ) -> None:  # fmt: skip
        """Make the record complete but for the cancel flag; without states the products are fresh."""
        engine, fields = self._engine, self.fields
        chunks, turned = engine.num_chunks, engine.transposed_size
        fields.operation, fields.count, fields.fresh = operation, count, states is None
        fields.theta, fields.theta_stride = _place(thetas)
        fields.state, fields.state_stride = self._need("state", threads, turned) if states is None else _place(states)
        fields.v, fields.v_stride = _place(vs)
        fields.out, fields.out_stride = _place(outs)
        fields.grad, fields.grad_stride = _place(grads)
        fields.value, fields.value_stride = _place(values)
        fields.vt, fields.vt_stride = self._need("vt", 1 if by_chunks else threads, turned)
        fields.work, fields.work_stride = self._need("work", threads, engine.work_size)
        if chunks > 1 or by_chunks:
            results = (outs is not None) + (grads is not None)
            rows = chunks * results if by_chunks else 2 * threads
            fields.parts, fields.parts_stride = self._need("parts", rows, engine.num_params)


def _place(rows: AnyArray | None) -> tuple[int, int]:
    """Address and stride of rows that are contiguous each; a single one serves all samples."""
    if rows is None:
        return 0, 0
    return address(rows), rows.strides[0] // rows.itemsize if rows.shape[0] > 1 else 0


class Engine:
    """A network, loss and data set compiled for one dtype.

    Memory: the data once (in the dtype), and per linearization the state, ``state_size`` elements: two numbers for every
    hidden unit and datum and two for every output and datum, plus a padded copy of the weights. With
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
        self.num_params = self.problem.num_params
        self.num_chunks = self.problem.num_chunks
        self.transposed_size, self.work_size = self.problem.transposed_size, self.problem.work_size
        sizes = [a * b for a, b in zip(net.widths[:-1], net.widths[1:], strict=True)]
        #: flops of one Hessian-vector product, 4 N P_1 + 12 N (P - P_1) over the weights
        self.hvp_flops = float(x.shape[0]) * (4.0 * sizes[0] + 12.0 * sum(sizes[1:]))
        self._uses_no_blas = bool(self.problem.lanes)
        self._pool: list[Buffers] = []
        self._pool_lock = threading.Lock()
        self._arguments = (net, loss, x, targets, weights)
        self._sibling: Engine | None = None

    # The compiled problem holds memory of its own, and states lie on boundaries of 64 bytes: copies are made anew.

    def __reduce__(self) -> tuple[Any, ...]:
        remade = partial(
            Engine,
            streaming=bool(self.problem.streaming),
            max_bytes=self._max_bytes,
            accumulator_bytes=self._accumulator_bytes,
        )
        return remade, (*self._arguments, self.dtype.name)

    def in_float64(self) -> Engine:
        """The same problem in float64, compiled at the first call; this one if it is."""
        return self._in("float64")

    def in_float32(self) -> Engine:
        """The same problem in float32, compiled at the first call; this one if it is."""
        return self._in("float32")

    def _in(self, dtype: str) -> Engine:
        if self.dtype == dtype:
            return self
        with self._pool_lock:
            if self._sibling is None:
                self._sibling = Engine(
                    *self._arguments,
                    dtype,
                    streaming=bool(self.problem.streaming),
                    max_bytes=self._max_bytes,
                    accumulator_bytes=self._accumulator_bytes,
                )
            return self._sibling

    @contextmanager
    def buffers(self) -> Iterator[Buffers]:
        """Working memory for one job, reused by the next; threads that multiply at the same time get their own."""
        with self._pool_lock:
            mine = self._pool.pop() if self._pool else None
        if mine is None:
            mine = Buffers(self)
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

    def cast(self, vector: AnyArray) -> AnyArray:
        """The vector in the engine's dtype, contiguous."""
        with np.errstate(over="ignore"):  # numbers beyond float32 become inf, and the product is refused as not finite
            return np.ascontiguousarray(vector, dtype=self.dtype)

    def carry_out(
        self, operation: int, what: str, *, thetas: AnyArray, states: AnyArray | None = None, vs: AnyArray | None = None,
        outs: AnyArray | None = None, grads: AnyArray | None = None, values: AnyArray | None = None,
    ) -> None:  # fmt: skip
        """One job: an operation of jobs.py at thetas (S or 1, P) along vs (S or 1, P).

        Without ``states`` (S or 1, state_size) the products linearize on the way. Results: ``outs`` and ``grads`` (S, P),
        ``values`` (S, chunks). A single sample is spread over the cores by chunks of the data, many are by samples; the bits are
        the same.
        """
        count = max(thetas.shape[0], 1 if vs is None else vs.shape[0])
        flops = count * self.hvp_flops * _COSTS[operation] * (1.5 if states is None else 1.0)
        by_chunks = count == 1

        def kernel(parallel: bool, threads: int, cancel: npt.NDArray[np.int32]) -> int:
            with self.buffers() as buffers:
                buffers.fill(
                    operation, count, threads, by_chunks and parallel, thetas=thetas, states=states, vs=vs, outs=outs,
                    grads=grads, values=values,
                )  # fmt: skip
                buffers.fields.cancel, buffers.fields.next = address(cancel), 0
                if parallel:
                    return int(jobs.share(CHUNKS if by_chunks else SAMPLES, buffers.job, threads))
                return int(_core.run_samples(buffers.address))

        self.run(kernel, self.num_chunks if by_chunks else count, flops, what)

    def run(self, kernel: Callable[[bool, int, npt.NDArray[np.int32]], int], tasks: int, flops: float, what: str) -> None:
        """Call ``kernel(parallel, workers, cancel)`` with BLAS at one thread; long calls can be interrupted.

        ``flops`` is infinite where the length cannot be predicted. The number of workers never changes the result. A kernel is
        first called with ``cancel`` set, at which it must return soon and leave no trace: that compiles it in the calling
        thread, where Ctrl-C reaches the compiler. ``what`` names the kernel.
        """
        workers = num_workers(tasks) if flops > _PARALLEL_FLOPS else 1
        status = [0]

        def call(cancel: npt.NDArray[np.int32]) -> None:
            with nullcontext() if self._uses_no_blas else blas_single_thread():
                if workers > 1:
                    with PARALLEL_LOCK:
                        status[0] = kernel(True, workers, cancel)
                else:
                    status[0] = kernel(False, 1, cancel)

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
        self.state = engine.zeros(engine.problem.state_size)
        self.gradient = engine.zeros(engine.num_params if with_gradient else 0)
        values = np.zeros(engine.num_chunks)
        engine.carry_out(
            LINEARIZE, "linearize", thetas=self.theta[None], states=self.state[None],
            grads=self.gradient[None] if with_gradient else None, values=values[None],
        )  # fmt: skip
        self.value = float(values.sum())

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Linearization, with_gradient=bool(self.gradient.size)), (self.engine, self.theta)

    def multiply(self, operation: int, v: AnyArray, out: AnyArray) -> None:
        """Write A v to ``out``, contiguous (P,) arrays of the engine's dtype; ``operation`` is HVP or GGN."""
        self.engine.carry_out(
            operation, "matrix-vector product", thetas=self.theta[None], states=self.state[None], vs=v[None], outs=out[None]
        )

    def multiply_block(self, operation: int, vs: AnyArray, out: AnyArray) -> None:
        """out[k] = A vs[k] for contiguous rows (k, P).

        Many vectors are spread over the cores one by one; a few, of a large problem, are multiplied in turn with all cores
        on each. The bits are those of single products either way.
        """
        engine, count = self.engine, vs.shape[0]
        if count < 2 * num_workers(count) and engine.num_chunks > 1:
            for v, row in zip(vs, out, strict=True):
                self.multiply(operation, v, row)
            return
        engine.carry_out(
            operation, "block of matrix-vector products", thetas=self.theta[None], states=self.state[None], vs=vs, outs=out
        )

    def jet(self, v: AnyArray) -> Curvature:
        """The curvature jet along the contiguous vector v (P,)."""
        engine = self.engine
        hv, grad = np.empty((2, engine.num_params), dtype=engine.dtype)
        qs = np.zeros(engine.num_chunks)
        engine.carry_out(
            JET, "curvature jet", thetas=self.theta[None], states=self.state[None], vs=v[None], outs=hv[None], grads=grad[None],
            values=qs[None],
        )  # fmt: skip
        return Curvature(float(qs.sum()), hv.astype(np.float64), grad.astype(np.float64))
