"""Training data: inputs, targets, weights."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import as_matrix, as_real, as_vector, check_finite, choice
from .errors import InputError, InputTypeError

FloatArray = npt.NDArray[np.float64]

LOSSES = ("squared_error", "cross_entropy", "logistic")

#: How far the entries of a probability row may be from summing to one.
_ROW_SUM_TOLERANCE = 1e-9


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    out = np.array(array, order="C", copy=True)
    out.flags.writeable = False
    return out


class Dataset:
    """Inputs X (N, d), targets y, and optional weights; immutable.

    Parameters
    ----------
    X : array_like (N, d)
        Inputs, finite.
    y : array_like (N,) or (N, K)
        Integers of shape (N,) are class labels; anything else is a real target, (N,) meaning (N, 1).
    weights : array_like (N,), optional
        Non-negative weights w of the data; losses are sum w_i l_i / sum w_i.
    name : str, optional
        Shown in reports.

    Examples
    --------
    >>> import pyhess as ph
    >>> ph.Dataset([[0.0, 1.0], [2.0, 3.0]], [0, 1])
    Dataset(N=2, d=2, labels)
    """

    def __init__(self, X: npt.ArrayLike, y: npt.ArrayLike, weights: npt.ArrayLike | None = None, *, name: str | None = None) -> None:
        self.X: FloatArray = _frozen(as_matrix("X", X))
        samples = self.X.shape[0]
        given = np.asarray(y) if not isinstance(y, np.ndarray) else y
        self.is_labels = given.dtype.kind in "iub" and given.ndim == 1
        target = as_real("y", given)
        if target.ndim not in (1, 2) or target.shape[0] != samples or target.size == 0:
            raise InputError(f"y has shape {target.shape} but X has {samples} rows; allowed are ({samples},) and ({samples}, K) with K >= 1.")
        check_finite("y", target)
        self.y: npt.NDArray[Any] = _frozen(given.astype(np.int64) if self.is_labels else target.reshape(samples, -1))
        self.weights: FloatArray | None = None
        if weights is not None:
            w = as_vector("weights", weights, samples)
            if (w < 0.0).any():
                first = int(np.argmax(w < 0.0))
                raise InputError(f"weights[{first}] is {w[first]}; weights must be >= 0.")
            if w.sum() <= 0.0:
                raise InputError("all weights are zero; at least one datum must count.")
            self.weights = _frozen(w)
        if name is not None and not isinstance(name, str):
            raise InputTypeError(f"name is {name!r}; pass a string or None.")
        self.name = name

    @property
    def num_samples(self) -> int:
        """N."""
        return int(self.X.shape[0])

    @property
    def num_features(self) -> int:
        """d."""
        return int(self.X.shape[1])

    @property
    def normalized_weights(self) -> FloatArray:
        """w_i / sum w (N,); 1/N without weights."""
        if self.weights is None:
            return np.full(self.num_samples, 1.0 / self.num_samples)
        # The sum cannot overflow once the largest weight is one.
        scaled = self.weights / self.weights.max()
        normalized: FloatArray = scaled / scaled.sum()
        return normalized

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) of the types, shapes and bytes of X, y and the weights."""
        digest = hashlib.sha256()
        for array in (self.X, self.y, self.weights):
            if array is None:
                digest.update(b"none")
                continue
            little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{little.dtype.str}{little.shape}".encode())
            digest.update(little.tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dataset) and self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.X, self.y, self.weights, self.name)

    def __repr__(self) -> str:
        kind = "labels" if self.is_labels else f"K={self.y.shape[1]}"
        weighted = "" if self.weights is None else ", weighted"
        named = "" if self.name is None else f"{self.name!r}, "
        return f"Dataset({named}N={self.num_samples}, d={self.num_features}, {kind}{weighted})"


def _rebuild(X: Any, y: Any, weights: Any, name: str | None) -> Dataset:
    return Dataset(X, y, weights, name=name)


def resolve_targets(data: Dataset, loss: str, num_outputs: int) -> FloatArray:
    """Targets (N, K) in the form the loss works with: one-hot rows for labels of ``"cross_entropy"``.

    Raises
    ------
    InputError
        If the targets do not fit the loss or the number of outputs.
    """
    choice("loss", loss, LOSSES)
    samples, y = data.num_samples, data.y
    width = 1 if data.is_labels else int(y.shape[1])
    if loss == "cross_entropy":
        if num_outputs < 2:
            raise InputError(f"cross_entropy needs at least 2 outputs, the network has {num_outputs}; use loss='logistic' for one output.")
        if data.is_labels:
            low, high = int(y.min()), int(y.max())
            if low < 0 or high >= num_outputs:
                bad = int(np.argmax((y < 0) | (y >= num_outputs)))
                raise InputError(
                    f"y[{bad}] is {int(y[bad])}; labels must lie in 0 … {num_outputs - 1} for {num_outputs} outputs. "
                    f"Use a network with {max(high + 1, 2)} outputs, or renumber the classes."
                )
            one_hot = np.zeros((samples, num_outputs))
            one_hot[np.arange(samples), y] = 1.0
            return one_hot
        if width != num_outputs:
            raise InputError(f"y has {width} columns but the network {num_outputs} outputs; pass integer labels or one probability per output.")
        if (y < 0.0).any() or (np.abs(y.sum(axis=1) - 1.0) > _ROW_SUM_TOLERANCE).any():
            bad = int(np.argmax((y < 0.0).any(axis=1) | (np.abs(y.sum(axis=1) - 1.0) > _ROW_SUM_TOLERANCE)))
            raise InputError(f"row {bad} of y is not a probability distribution (entries >= 0 with sum 1); pass integer labels or probabilities.")
        return np.ascontiguousarray(y, dtype=np.float64)
    if loss == "logistic":
        if num_outputs != 1 or width != 1:
            raise InputError(
                f"logistic needs one output and one target, got {num_outputs} outputs and {width} targets; use loss='cross_entropy' for more classes."
            )
        flat = np.asarray(y, dtype=np.float64).reshape(samples)
        if not np.isin(flat, (0.0, 1.0)).all():
            bad = int(np.argmax(~np.isin(flat, (0.0, 1.0))))
            raise InputError(f"y[{bad}] is {flat[bad]:g}; logistic takes targets 0 and 1. Use cross_entropy for more classes.")
        return np.ascontiguousarray(flat.reshape(samples, 1))
    if width != num_outputs:
        extra = " Integer labels need one-hot rows, or loss='cross_entropy'." if data.is_labels else ""
        raise InputError(f"y has {width} target(s) per datum but the network {num_outputs} output(s); they must agree.{extra}")
    return np.ascontiguousarray(np.asarray(y, dtype=np.float64).reshape(samples, width))
