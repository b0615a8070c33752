"""Arb's ball arithmetic (python-flint) for checking certificates."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from flint import arb, ctx

from .reference_arithmetic import LongDoubles, Wide, using

_BITS = 128
_ZERO, _ONE = arb(0), arb(1)
_INF, _NAN = arb("inf"), arb("nan")


def _ball(x: Any) -> arb:
    """The number, exactly."""
    if isinstance(x, arb):
        return x
    if isinstance(x, np.longdouble):
        head = float(x)
        return arb(head) + arb(float(x - np.longdouble(head))) if np.isfinite(head) else arb(head)
    return arb(x.item() if isinstance(x, np.generic) else x)


def _pairwise(function: Callable[[arb, arb], Any]) -> Any:
    # Almost all are balls: a call less for each of millions.
    return np.frompyfunc(lambda a, b: function(a if type(a) is arb else _ball(a), b if type(b) is arb else _ball(b)), 2, 1)


def _single(function: Callable[[arb], Any]) -> Any:
    return np.frompyfunc(lambda a: function(a if type(a) is arb else _ball(a)), 1, 1)


#: Balls for NumPy's functions; where an argument is not a number, so is the result.
_BALLS: dict[str, Any] = {
    "add": _pairwise(operator.add),
    "subtract": _pairwise(operator.sub),
    "multiply": _pairwise(operator.mul),
    "divide": _pairwise(operator.truediv),
    "power": np.frompyfunc(lambda a, b: _ball(a) ** int(b), 2, 1),
    "minimum": _pairwise(lambda a, b: a.min(b)),
    "maximum": _pairwise(lambda a, b: a.max(b)),
    "negative": _single(operator.neg),
    "absolute": _single(abs),
    "square": _single(lambda a: a * a),
    "sqrt": _single(lambda a: a.sqrt()),
    "clip": np.frompyfunc(lambda a, low, high: _ball(a).max(_ball(low)).min(_ball(high)), 3, 1),
}
#: Tests; they hold where they hold for every number of the balls.
_TESTS: dict[str, Any] = {
    "less": _pairwise(operator.lt),
    "less_equal": _pairwise(operator.le),
    "greater": _pairwise(operator.gt),
    "greater_equal": _pairwise(operator.ge),
    "equal": _pairwise(operator.eq),
    "not_equal": _pairwise(operator.ne),
    "isfinite": _single(lambda a: a.is_finite()),
    "isinf": _single(lambda a: not a.is_finite() and not a.is_nan()),
    "isnan": _single(lambda a: a.is_nan()),
    "logical_or": np.frompyfunc(lambda a, b: bool(a) or bool(b), 2, 1),
}
_LOWER, _UPPER, _MIDDLE = (_single(lambda a: a.lower()), _single(lambda a: a.upper()), _single(lambda a: a.mid()))


class BallArray(np.ndarray[Any, np.dtype[Any]]):
    """An array of balls: NumPy's functions on it are Arb's."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        name = ufunc.__name__
        if name not in _BALLS and name not in _TESTS:
            return NotImplemented
        plain = [np.asarray(x, dtype=object) if isinstance(x, np.ndarray) else np.asarray(_ball(x), dtype=object) for x in inputs]
        if name == "power":
            plain[1] = np.asarray(inputs[1])
        if method == "reduce":
            return self._reduced(name, plain[0], **options)
        if method != "__call__":
            return NotImplemented
        found = np.asarray((_BALLS.get(name) or _TESTS[name])(*plain), dtype=object)
        if name in _TESTS:
            return found.astype(np.bool_)
        if out is not None:
            out[0][...] = found
            return out[0]
        return found.view(BallArray)

    @staticmethod
    def _reduced(name: str, x: Any, axis: Any = 0, keepdims: bool = False, initial: Any = None, **_: Any) -> Any:
        if name == "logical_or":
            return bool(any(_ball(item) != 0 for item in x.ravel()))
        assert axis is None or isinstance(axis, int)
        rows = np.moveaxis(x, axis, 0) if axis is not None else x.reshape(-1)
        given = _ZERO if name == "add" and not isinstance(initial, float) else initial
        start = [np.full(rows.shape[1:], _ball(given), dtype=object)] if isinstance(given, arb | float) else []
        found = np.asarray(functools.reduce(_BALLS[name], rows, *start), dtype=object)
        if keepdims and axis is not None:
            found = np.expand_dims(found, axis)
        return found.view(BallArray)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        found = super().__array_function__(function, types, arguments, options)
        return _as_balls(found)

    def __getitem__(self, where: Any) -> Any:
        found = super().__getitem__(where)
        return found if isinstance(found, BallArray) else np.asarray(found, dtype=object).view(BallArray)

    def __setitem__(self, where: Any, value: Any) -> None:
        # An array without axes would be put into a single place as it is.
        super().__setitem__(where, value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value)

    def __float__(self) -> float:
        return float(self.item())

    def astype(self, dtype: Any, *arguments: Any, **options: Any) -> Any:
        """Nearby floating-point numbers, in an ordinary array."""
        return np.asarray(self).astype(dtype, *arguments, **options)


def _as_balls(found: Any) -> Any:
    if isinstance(found, tuple | list):
        return type(found)(_as_balls(x) for x in found)
    return found.view(BallArray) if isinstance(found, np.ndarray) and found.dtype == object else found


class ArbBalls(LongDoubles):
    """Arb's numbers of 128 bits."""

    name = f"Arb's ball arithmetic with {_BITS} bits"
    cost = 40.0

    def array(self, x: Any) -> Wide:
        if isinstance(x, BallArray):
            return x
        if isinstance(x, arb):
            return np.asarray(x, dtype=object).view(BallArray)
        plain = np.asarray(x)
        if plain.dtype.kind in "US":
            plain = np.frompyfunc(lambda text: arb(str(text)), 1, 1)(plain)
        else:
            plain = np.frompyfunc(_ball, 1, 1)(plain)
        return np.asarray(plain, dtype=object).view(BallArray)

    def up(self, x: Any) -> Wide:
        return self._end(_UPPER, x, super().up)

    def down(self, x: Any) -> Wide:
        return self._end(_LOWER, x, super().down)

    def _end(self, end: Any, x: Any, otherwise: Callable[[Any], Wide]) -> Wide:
        if isinstance(x, BallArray | arb):
            return np.asarray(end(np.asarray(x, dtype=object)), dtype=object).view(BallArray)
        if isinstance(x, np.ndarray) and x.dtype == object:
            return self._end(end, x.view(BallArray), otherwise)
        return self.array(np.nextafter(np.asarray(x, dtype=np.longdouble), np.longdouble(np.inf if end is _UPPER else -np.inf)))

    def point(self, x: Wide) -> Wide:
        return np.asarray(_MIDDLE(np.asarray(x, dtype=object)), dtype=object).view(BallArray)

    def matmul(self, a: Wide, b: Wide) -> Wide:
        terms = (a[..., :, k, None] * b[..., k, None, :] for k in range(a.shape[-1]))
        return self.array(functools.reduce(operator.add, terms))

    def function(self, name: str) -> Callable[[Wide], Wide] | None:
        found = _FUNCTIONS[name]
        return lambda x: np.asarray(found(np.asarray(x, dtype=object)), dtype=object).view(BallArray)


def _exp(x: arb) -> arb:
    return x.exp() if x.is_finite() else (_INF if x > 0 else _ZERO if x < 0 else _NAN)


def _bounded(function: Callable[[arb], arb], low: arb) -> Callable[[arb], arb]:
    """The function, from low at minus infinity to one."""
    return lambda x: function(x) if x.is_finite() else (_ONE if x > 0 else low if x < 0 else _NAN)


_FUNCTIONS: dict[str, Any] = {
    "exp": _single(_exp),
    "tanh": _single(_bounded(lambda x: x.tanh(), arb(-1))),
    "logistic": _single(_bounded(lambda x: 1 / (1 + (-x).exp()), _ZERO)),
    "softplus": _single(
        lambda x: (x if x > 0 else _ZERO) + (-abs(x)).exp().log1p() if x.is_finite() else _INF if x > 0 else _NAN
    ),
    "normal": _single(_bounded(lambda x: (-x / arb(2).sqrt()).erfc() / 2, _ZERO)),
}


@contextmanager
def in_balls() -> Iterator[None]:
    """Compute in Arb's arithmetic."""
    before = ctx.prec
    ctx.prec = _BITS
    try:
        with using(ArbBalls()):
            yield
    finally:
        ctx.prec = before
