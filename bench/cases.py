"""Networks, data and the sizes that are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Seeds of data, parameters and vectors.
_SEED = 20267


@dataclass(frozen=True)
class Case:
    """A dense network, a loss and a number of data; ``batch`` counts parameter vectors."""

    widths: tuple[int, ...]
    samples: int
    activation: str = "tanh"
    loss: str = "cross_entropy"
    batch: int = 1

    @property
    def name(self) -> str:
        """Unique and readable: widths, activation, loss, N, S."""
        loss = {"cross_entropy": "CE", "squared_error": "MSE"}[self.loss]
        many = f" S={self.batch}" if self.batch > 1 else ""
        return f"{'-'.join(map(str, self.widths))} {self.activation} {loss} N={self.samples}{many}"

    @property
    def num_params(self) -> int:
        """P."""
        return sum(self.weight_sizes) + sum(self.widths[1:])

    @property
    def weight_sizes(self) -> tuple[int, ...]:
        """Weights per layer, without biases."""
        return tuple(a * b for a, b in pairwise(self.widths))

    @property
    def flops(self) -> float:
        """Of one product: 4 N P_1 + 12 N (P - P_1) over the weights; the inputs have no tangent."""
        return self._flops(4.0, 12.0)

    @property
    def gradient_flops(self) -> float:
        """Of one gradient: forward, back to the first layer, and the outer products."""
        return self._flops(4.0, 6.0)

    @property
    def jet_flops(self) -> float:
        """Of one linearization and curvature jet: 4 products of matrices for the first layer, 15 for every other."""
        return self._flops(8.0, 30.0)

    @property
    def scratch_flops(self) -> float:
        """Of one linearization and product: 3 products of matrices for the first layer, 8 for every other."""
        return self._flops(6.0, 16.0)

    def _flops(self, first: float, other: float) -> float:
        return float(self.samples) * (first * self.weight_sizes[0] + other * sum(self.weight_sizes[1:]))


@dataclass(frozen=True)
class Problem:
    """What every contender is given: the network, the data, the parameters and the number of threads.

    ``X`` (N, d_in); ``y`` (N,) int labels or (N, K) targets; ``thetas`` and ``vectors`` (S, P), layer by layer, weights
    (out, in) before biases; all floating-point arrays in ``dtype``. Losses are means over the data; squared error is half
    the squared distance.
    """

    case: Case
    dtype: str
    threads: int
    seed: int = _SEED

    @cached_property
    def X(self) -> Array:
        """Inputs (N, d_in)."""
        return self._rng(1).standard_normal((self.case.samples, self.case.widths[0])).astype(self.dtype)

    @cached_property
    def y(self) -> Array:
        """Labels (N,), or targets (N, K)."""
        rng, outputs = self._rng(2), self.case.widths[-1]
        if self.case.loss == "cross_entropy":
            return rng.integers(outputs, size=self.case.samples)
        return rng.standard_normal((self.case.samples, outputs)).astype(self.dtype)

    @cached_property
    def thetas(self) -> Array:
        """Parameters (S, P): weights N(0, 1/fan-in), biases small."""
        out = np.empty((self.case.batch, self.case.num_params))
        for row, rng in zip(out, self._rng(3).spawn(self.case.batch), strict=True):
            for weight, bias in split(row, self.case.widths):
                weight[:] = rng.standard_normal(weight.shape) / np.sqrt(weight.shape[1])
                bias[:] = 0.1 * rng.standard_normal(bias.shape)
        return out.astype(self.dtype)

    @cached_property
    def vectors(self) -> Array:
        """Vectors (S, P) of length one."""
        out = self._rng(4).standard_normal((self.case.batch, self.case.num_params))
        return (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(self.dtype)

    @property
    def theta(self) -> Array:
        """The first parameter vector (P,)."""
        return self.thetas[0]

    @property
    def vector(self) -> Array:
        """The first vector (P,)."""
        return self.vectors[0]

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream])


def split(flat: Array, widths: tuple[int, ...]) -> Iterator[tuple[Array, Array]]:
    """Views (weight (out, in), bias (out,)) of ``flat`` (..., P), layer by layer."""
    at = 0
    for fan_in, fan_out in pairwise(widths):
        weight = flat[..., at : at + fan_in * fan_out].reshape(*flat.shape[:-1], fan_out, fan_in)
        at += fan_in * fan_out
        yield weight, flat[..., at : at + fan_out]
        at += fan_out


def small(case: Case) -> Case:
    """A cousin of the case that multiplies in microseconds: for checks of the answers alone."""
    widths = tuple(min(width, cap) for width, cap in zip(case.widths, (6, 5, 4, 3)[-len(case.widths) :], strict=False))
    return replace(case, widths=widths, samples=17, batch=min(case.batch, 3))


_WIDE = (784, 1024, 1024, 10)

PRODUCTS = (
    Case(_WIDE, 1024),
    Case(_WIDE, 1024, "relu", "squared_error"),
    Case((64, 256, 256, 10), 1024),
    Case((64, 64, 10), 1024),
    Case((64, 16, 10), 512),
)

BATCHES = (
    Case((8, 8, 1), 128, "tanh", "squared_error", batch=64),
    Case((64, 16, 10), 512, batch=64),
    Case((64, 64, 10), 1024, batch=64),
    Case((64, 128, 128, 10), 1024, batch=64),
)

#: The published comparison: 90 Lanczos steps on a network with 1,863,690 parameters took 556 CPU-seconds.
LANCZOS = Case(_WIDE, 5888, "relu")
