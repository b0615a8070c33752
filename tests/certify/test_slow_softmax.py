"""The line that stands for the softmax in the independent checks of units, against points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pyhess.certify.reference_interval import Range, Wide, wide, zeros
from pyhess.certify.reference_slopes import Slopes, slopes

Array = npt.NDArray[np.float64]
WIDTHS = (1e-9, 1e-4, 0.02, 0.3, 1.0, 4.0, 30.0)


def ranges(seed: int, outputs: int, width: float, offset: float) -> tuple[Array, Array, Array]:
    """Middles and half-widths (20, 3, K) of outputs, and targets (3, K)."""
    rng = np.random.default_rng(seed)
    middle = offset * rng.standard_normal((20, 3, outputs))
    half = width * rng.random(middle.shape)
    return middle, half, np.eye(outputs)[rng.integers(0, outputs, 3)] * np.array([[1.0], [0.5], [1.0]])


def distance(found: Slopes, f: Wide, y: Array) -> Wide:
    """Of the residual from its line, for outputs f in long doubles."""
    assert found.matrix is not None
    p = np.exp(f - f.max(axis=-1, keepdims=True))
    residual = p / p.sum(axis=-1, keepdims=True) * y.sum(axis=-1, keepdims=True) - y
    line = np.einsum("bnkj,bnj->bnk", found.matrix, f) + 0.5 * (found.constant.lo + found.constant.hi)
    return np.abs(residual - line)


@pytest.mark.usefixtures("long_doubles")
@pytest.mark.parametrize("outputs", [2, 3, 5])
@pytest.mark.parametrize("offset", [1.0, 15.0])
def test_the_softmax_is_within_the_error_of_its_line(outputs: int, offset: float) -> None:
    rng = np.random.default_rng(331)
    for width in WIDTHS:
        middle, half, y = ranges(337, outputs, width, offset)
        found = slopes("cross_entropy", Range(wide(middle - half), wide(middle + half)), wide(y), zeros(middle.shape))
        rounding = 64.0 * float(np.finfo(np.longdouble).eps) * (1.0 + 4.0 * offset + width)
        for draw in range(100):
            place = rng.uniform(-1.0, 1.0, middle.shape) if draw % 2 else rng.choice([-1.0, 1.0], middle.shape)
            f = wide(middle) + wide(half) * place
            assert (distance(found, f, y) <= found.error + rounding).all()


@pytest.mark.usefixtures("long_doubles")
def test_the_line_leaves_much_less_than_the_range() -> None:
    middle, half, y = ranges(347, 3, 0.3, 1.0)
    f = Range(wide(middle - half), wide(middle + half))
    found = slopes("cross_entropy", f, wide(y), zeros(middle.shape))
    # The secant of the logistic function over an interval of length w leaves at most some w²/80, the logarithm w²/32.
    spread = 2.0 * half.sum(axis=-1, keepdims=True)
    assert (found.error.astype(np.float64) <= spread**2 / 20.0 + 1e-12).all()
    # Where nothing is known of the outputs beyond the same range, the range itself leaves less.
    unknown = slopes("cross_entropy", f, wide(y), wide(half))
    assert unknown.matrix is not None and found.matrix is not None
    assert (found.matrix != 0.0).any(axis=-1).all() and not (unknown.matrix != 0.0).any()
    assert (unknown.unknown(wide(half)) <= found.unknown(wide(half))).all()


@pytest.mark.usefixtures("long_doubles")
def test_no_knowledge_of_an_output_is_none_of_the_residual() -> None:
    middle, half, y = ranges(349, 3, 0.3, 1.0)
    low, high = middle - half, middle + half
    low[0, 0, 1], high[0, 0, 1] = -np.inf, np.inf
    low[0, 1, 1], high[0, 1, 1] = np.nan, np.nan
    with np.errstate(all="ignore"):
        found = slopes("cross_entropy", Range(wide(low), wide(high)), wide(y), zeros(middle.shape))
    assert np.isfinite(found.error[1:].astype(np.float64)).all()
    assert not np.isfinite(found.error[0, 1].astype(np.float64)).any()
    for value in (-700.0, 0.0, 700.0):
        f = wide(middle)
        f[0, 0, 1] = value
        assert (distance(found, f, y)[0, 0] <= found.error[0, 0] + 1e-15).all()
