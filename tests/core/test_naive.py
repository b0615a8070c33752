"""The tuned products against the plain loops that stay in the core as their oracle, for every instruction set and BLAS choice."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pyhess import _core, _native
from pyhess.kernels import jobs

ACTIVATIONS = range(6)
LOSSES = ((0, 2), (1, 3), (2, 1))
WIDTHS = ([3], [5, 4], [7, 70, 9], [3, 8, 8, 8, 8])
AVAILABLE = [level for level in _native.ISA_LEVELS if _core.isa_available(level)]


def tuned_products(problem: _core.Problem, single: bool, theta: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
    """All products of the core at theta along v, chunk after chunk in one thread."""
    dtype = np.float32 if single else np.float64
    size, chunks = problem.num_params, problem.num_chunks
    theta, v = theta.astype(dtype), v.astype(dtype)
    state, vt, work = (_native.aligned_zeros(n, dtype) for n in (problem.state_size, problem.transposed_size, problem.work_size))
    parts, cancel = np.full((2, size), np.nan, dtype=dtype), np.zeros(1, dtype=np.int32)
    values, qs = np.zeros(chunks), np.zeros(chunks)
    out = {name: np.full(size, np.nan, dtype=dtype) for name in ("gradient", "hvp", "ggn", "jet_hvp", "q_gradient")}
    job = np.zeros(1, dtype=jobs.JOB)
    job["problem"], job["count"], job["parts_stride"] = problem.address, 1, size
    shared = {"theta": theta, "state": state, "v": v, "vt": vt, "work": work, "parts": parts, "cancel": cancel}
    for operation, results in (
        (jobs.LINEARIZE, {"grad": out["gradient"], "value": values}),
        (jobs.HVP, {"out": out["hvp"]}),
        (jobs.GGN, {"out": out["ggn"]}),
        (jobs.JET, {"out": out["jet_hvp"], "grad": out["q_gradient"], "value": qs}),
    ):
        for name in ("out", "grad", "value"):
            job[name] = 0
        for name, array in {**shared, **results}.items():
            job[name] = _native.address(array)
        job["operation"], job["next"] = operation, 0
        assert _core.run_samples(_native.address(job)) == 0
    return {**out, "value": np.array(values.sum()), "q": np.array(qs.sum())}


def check(
    rng: np.random.Generator, widths: list[int], activation: int, loss: int, n: int, *, isa: str, single: bool, lanes: bool
) -> None:
    """One random problem: every product of the core, in the layout asked for, against the plain loops."""
    depth, outputs = len(widths) - 1, widths[-1]
    tolerance = 2e-5 if single else 2e-12
    x = rng.standard_normal((n, widths[0])).astype(np.float32).astype(np.float64)
    if loss == 0:
        target = rng.standard_normal((n, outputs))
    elif loss == 1:
        target = rng.dirichlet(np.ones(outputs), n)
    else:
        target = rng.integers(0, 2, (n, 1)).astype(float)
    weight = rng.random(n) + 0.1
    blas = rng.integers(2) * (_native.BLAS.sgemm if single else _native.BLAS.dgemm)
    problem = _core.Problem(
        widths=widths,
        activations=[activation] * (depth - 1),
        betas=[1.7] * (depth - 1),
        scales=[1.0 if rng.random() < 0.5 else 1.0 / np.sqrt(w) for w in widths[:-1]],
        bias=bool(rng.integers(2)),
        loss=loss,
        x=x,
        target=target,
        weight=weight / weight.sum(),
        single=single,
        blas=int(blas),
        blas_int_bytes=_native.BLAS.int_bytes,
        isa=isa,
        lane_width=max(widths) if lanes else 0,
    )
    assert problem.lanes == lanes
    # theta, v and x are numbers that float32 holds exactly, so that both sides see the same problem.
    theta = (0.3 * rng.standard_normal(problem.num_params)).astype(np.float32).astype(np.float64)
    v = rng.standard_normal(problem.num_params).astype(np.float32).astype(np.float64)
    want = problem.naive_products(theta, v)
    want["jet_hvp"] = want["hvp"]
    got = tuned_products(problem, single, theta, v)
    # q is a sum of terms of either sign: its scale is |v| |Hv|, not its value.
    # Its gradient is one factor |v| further: with few data (1 - 2p) and the like may nearly vanish in it.
    along = np.linalg.norm(v) * np.linalg.norm(want["hvp"])
    scales = {"q": along, "q_gradient": np.linalg.norm(want["q_gradient"]) + 0.1 * along}
    for name, value in got.items():
        scale = scales.get(name, np.linalg.norm(want[name]))
        error = np.linalg.norm(value.astype(np.float64) - want[name])
        assert error <= tolerance * scale, (name, widths, activation, loss, n)


@pytest.mark.parametrize("lanes", [False, True], ids=["rows", "lanes"])
@pytest.mark.parametrize("single", [False, True], ids=["float64", "float32"])
@pytest.mark.parametrize("isa", AVAILABLE)
def test_tuned_equals_naive(isa: str, single: bool, lanes: bool) -> None:
    rng = np.random.default_rng(71)
    for activation, (loss, outputs), hidden, n in product(ACTIVATIONS, LOSSES, WIDTHS, (1, 37, 700)):
        check(rng, [*hidden, outputs], activation, loss, n, isa=isa, single=single, lanes=lanes)


@pytest.mark.parametrize("single", [False, True], ids=["float64", "float32"])
@pytest.mark.parametrize("isa", AVAILABLE)
def test_every_tile_and_remainder_of_lanes(isa: str, single: bool) -> None:
    """Every number of rows and columns up to three tiles, and every number of 64-byte lines of lanes up to seventeen."""
    rng = np.random.default_rng(72)
    line = 16 if single else 8
    for size in range(1, 20):
        lines = 1 + size % 17
        n = line * lines - int(rng.integers(line))
        loss = size % 2
        outputs = 1 + loss + size % 7  # a softmax wants two
        check(rng, [20 - size, size, outputs], 1, loss, n, isa=isa, single=single, lanes=True)


def test_blas_self_test_tells_right_from_wrong() -> None:
    assert not _core.gemm_agrees(_native.BLAS.sgemm, _native.BLAS.int_bytes, False), "single precision taken for double"
    assert _core.gemm_agrees(_native.BLAS.dgemm, _native.BLAS.int_bytes, False)
    assert _core.gemm_agrees(_native.BLAS.sgemm, _native.BLAS.int_bytes, True)
    assert _core.gemm_agrees(0, 4, False), "the portable kernels must agree with themselves"


def test_problem_refuses_shapes_that_do_not_belong_together() -> None:
    keywords = {
        "widths": [2, 1], "activations": [], "betas": [], "scales": [1.0], "bias": True, "loss": 0, "x": np.ones((3, 2)),
        "target": np.ones((3, 1)), "weight": np.full(3, 1 / 3), "single": False, "blas": 0, "blas_int_bytes": 4, "isa": "base",
    }  # fmt: skip
    assert _core.Problem(**keywords).num_params == 3
    for name, bad in (("x", np.ones((3, 5))), ("target", np.ones((2, 1))), ("weight", np.ones(4)), ("loss", 7), ("scales", [])):
        with pytest.raises(ValueError, match=r"match|loss|belong"):
            _core.Problem(**{**keywords, name: bad})
    with pytest.raises(ValueError, match="cannot run"):
        _core.Problem(**{**keywords, "isa": "v9"})
    with pytest.raises(TypeError):
        _core.Problem(**{**keywords, "x": np.ones((3, 2), dtype=np.float32)})
