"""Training data: inputs, targets, weights."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import Immutable, as_matrix, as_real, as_vector, check_finite, choice, frozen, real_array, shown
from .errors import InputError, InputTypeError

FloatArray = npt.NDArray[np.float64]

LOSSES = ("squared_error", "cross_entropy", "logistic")

#: How far the entries of a probability row may be from summing to one.
_ROW_SUM_TOLERANCE = 1e-9

_CLASS_NAMES = "Turn class names into integers with np.unique(y, return_inverse=True)[1]."


class Dataset(Immutable):
    """Inputs X (N, d), targets y, and optional weights w; a loss over them is sum_i w_i l_i / sum_i w_i.

    Parameters
    ----------
    X : array_like (N, d)
        Inputs, finite.
    y : array_like (N,) or (N, K)
        Integers of shape (N,) are class labels; anything else is a real target, (N,) meaning (N, 1).
    weights : array_like (N,), optional
        Non-negative, not all zero.
    name : str, optional
        Shown in reports.

    Attributes
    ----------
    X : (N, d) float64, read-only
    y : (N,) int64 for labels, (N, K) float64 otherwise, read-only
    weights : (N,) float64 or None, read-only
    is_labels : bool

    Raises
    ------
    InputError
        If data are missing, shapes disagree, a value is NaN or infinite, or weights are negative or all zero.
    InputTypeError
        If an array holds anything but real numbers.

    Notes
    -----
    The arrays are copied. Two data sets are equal if X, y and the weights are, whatever their names.

    Examples
    --------
    >>> import pyhess as ph
    >>> ph.Dataset([[0.0, 1.0], [2.0, 3.0]], [0, 1])
    Dataset(N=2, d=2, labels)
    """

    X: FloatArray
    y: npt.NDArray[Any]
    weights: FloatArray | None
    is_labels: bool
    name: str | None

    def __init__(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        *,
        name: str | None = None,
    ) -> None:
        inputs = as_matrix("X", X)
        if name is not None and not isinstance(name, str):
            raise InputTypeError(f"name is {shown(name)}; pass a string or None.")
        targets = _targets(y, inputs.shape[0])
        self._set(
            X=frozen(inputs),
            y=frozen(targets),
            weights=None if weights is None else frozen(_weights(weights, inputs.shape[0])),
            is_labels=targets.ndim == 1,
            name=name,
        )

    @property
    def num_samples(self) -> int:
        """N, the number of data."""
        return int(self.X.shape[0])

    @property
    def num_features(self) -> int:
        """d, the number of inputs of each datum."""
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


def _targets(y: npt.ArrayLike, samples: int) -> npt.NDArray[Any]:
    """Return labels (N,) as int64, anything else (N,) or (N, K) as float64 (N, K)."""
    given = real_array("y", y, _CLASS_NAMES)
    if given.ndim not in (1, 2) or given.shape[0] != samples or given.size == 0:
        raise InputError(
            f"y has shape {given.shape} but X has {samples} rows; allowed are ({samples},) and ({samples}, "
            "K) with K >= 1. Pass one target per row of X."
        )
    if given.ndim == 1 and given.dtype.kind in "iub":
        largest = np.iinfo(np.int64).max
        if given.dtype.kind == "u" and (given > largest).any():
            first = int(np.argmax(given > largest))
            raise InputError(f"y[{first}] is {given[first]}; allowed are labels up to {largest}. Renumber the classes.")
        return given.astype(np.int64)
    real = as_real("y", given)
    check_finite("y", real)
    return real.reshape(samples, -1)


def _weights(weights: npt.ArrayLike, samples: int) -> FloatArray:
    w = as_vector("weights", weights, samples)
    if (w < 0.0).any():
        first = int(np.argmax(w < 0.0))
        raise InputError(f"weights[{first}] is {w[first]}; allowed are weights >= 0. Use 0 to leave a datum out.")
    if not w.any():
        raise InputError(f"all {samples} weights are zero; allowed are weights >= 0 of which at least one is > 0.")
    return w


def resolve_targets(dataset: Dataset, loss: str, num_outputs: int) -> FloatArray:
    """Return the targets in the form in which the loss takes them, t (N, K) with K the number of outputs.

    Parameters
    ----------
    dataset : Dataset
        Its targets y.
    loss : str
        ``"squared_error"``: y real, (N, K); labels or (N, 1) if K = 1. ``"cross_entropy"``, K >= 2: labels in
        0 … K − 1, returned one-hot, or probability rows (N, K). ``"logistic"``, K = 1: y in {0, 1}.
    num_outputs : int
        K.

    Returns
    -------
    targets : (N, K) float64, C-contiguous

    Raises
    ------
    InputError
        If the targets do not fit the loss or the number of outputs.
    """
    choice("loss", loss, LOSSES)
    if loss == "cross_entropy":
        return _class_probabilities(dataset, num_outputs)
    if loss == "logistic":
        return _binary(dataset, num_outputs)
    width = _num_targets(dataset)
    if width != num_outputs:
        advice = f"Use a network with {width} {_plural(width, 'output')}."
        if dataset.is_labels:
            advice = f"Turn the labels into one-hot rows (N, {num_outputs}), or use loss='cross_entropy'."
        raise InputError(
            f"y has {width} {_plural(width, 'target')} per datum but the network has {num_outputs} "
            f"{_plural(num_outputs, 'output')}; allowed for squared_error are equal numbers. {advice}"
        )
    return np.ascontiguousarray(dataset.y.reshape(-1, width), dtype=np.float64)


def _num_targets(dataset: Dataset) -> int:
    return 1 if dataset.is_labels else int(dataset.y.shape[1])


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _class_probabilities(dataset: Dataset, num_outputs: int) -> FloatArray:
    y = dataset.y
    if num_outputs < 2:
        raise InputError(
            f"the network has {num_outputs} output; allowed for cross_entropy are 2 or more. Use loss='logistic' for one output."
        )
    if dataset.is_labels:
        outside = (y < 0) | (y >= num_outputs)
        if outside.any():
            first = int(np.argmax(outside))
            raise InputError(
                f"y[{first}] is {int(y[first])}; allowed for {num_outputs} outputs are labels 0 … "
                f"{num_outputs - 1}. The labels run from {int(y.min())} to {int(y.max())}: renumber the "
                "classes from 0, or use a network with one output per class."
            )
        one_hot = np.zeros((dataset.num_samples, num_outputs))
        one_hot[np.arange(dataset.num_samples), y] = 1.0
        return one_hot
    width = _num_targets(dataset)
    if width != num_outputs:
        raise InputError(
            f"y has {width} {_plural(width, 'column')} but the network {num_outputs} outputs; allowed for "
            f"cross_entropy are integer labels (N,) or probability rows (N, {num_outputs}). Integers stored "
            "as floats or in one column become labels with y.ravel().astype(int)."
        )
    bad = (y < 0.0).any(axis=1) | (np.abs(y.sum(axis=1) - 1.0) > _ROW_SUM_TOLERANCE)
    if bad.any():
        first = int(np.argmax(bad))
        raise InputError(
            f"row {first} of y has smallest entry {y[first].min():.6g} and sum {y[first].sum():.12g}; "
            "allowed for cross_entropy are rows of probabilities (entries >= 0, sum 1 within 1e-9) or "
            "integer labels (N,). Divide each row by its sum."
        )
    return np.ascontiguousarray(y, dtype=np.float64)


def _binary(dataset: Dataset, num_outputs: int) -> FloatArray:
    width = _num_targets(dataset)
    if num_outputs != 1 or width != 1:
        raise InputError(
            f"the network has {num_outputs} {_plural(num_outputs, 'output')} and y {width} "
            f"{_plural(width, 'column')}; allowed for logistic is one of each. Use loss='cross_entropy' for "
            "two or more outputs."
        )
    column = np.ascontiguousarray(dataset.y.reshape(-1, 1), dtype=np.float64)
    outside = ~np.isin(column, (0.0, 1.0))
    if outside.any():
        first = int(np.argmax(outside))
        raise InputError(
            f"y[{first}] is {column[first, 0]:g}; allowed for logistic are 0 and 1. Map -1/+1 with (y + 1) "
            "// 2; use loss='cross_entropy' for more classes."
        )
    return column
