"""The cells of a store as columns, read once, for all parts of a report."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._columns import CRASHED, DONE, FAILED, PENDING
from ..export import TABLE
from ..store import Store, _no_collection

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: Axes over whose values medians are taken.
REPLICATES = ("seed", "data_seed")
#: Statuses in the order of counts.
ORDER = (DONE, FAILED, CRASHED, PENDING)
#: Left out of the table in a page: long, and in the store.
_LEFT_OUT = ("traceback",)
COLUMNS = tuple(name for name in TABLE if name not in _LEFT_OUT)


@dataclass(frozen=True)
class Axis:
    """A quantity that tells cells apart: cell i has the value ``values[codes[i]]``; numbers are sorted."""

    name: str
    codes: IntArray
    values: list[Any]

    @property
    def varies(self) -> bool:
        """Whether there is more than one value."""
        return len(self.values) > 1

    @cached_property
    def numbers(self) -> FloatArray | None:
        """The values as floats, or None where one is no number."""
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values):
            return np.array(self.values, dtype=np.float64)
        return None


@dataclass(frozen=True)
class Cells:
    """All that a report says is computed from this.

    Attributes
    ----------
    path : Path
        The store.
    size : int
        Number of cells N.
    columns : dict
        Lists of length N; certificates, timings and the like as JSON text.
    axes : dict
        By name: the axes of the specification, ``kind``, ``settings`` (options and time limit) and, for networks of unequal
        layers, ``units`` (hidden units together).
    runs : list of dict
        See `Store.runs`.
    meta : dict
        See `Store.meta`.
    """

    path: Path
    size: int
    columns: dict[str, list[Any]]
    axes: dict[str, Axis]
    spec_axes: tuple[str, ...]
    runs: list[dict[str, Any]]
    meta: dict[str, str]

    @property
    def name(self) -> str:
        """The name that the last run gave the sweep."""
        return str(self.runs[-1]["spec"].get("name", "sweep")) if self.runs else "sweep"

    def number(self, name: str) -> FloatArray:
        """A column (N,) as floats, NaN where there is none."""
        return np.array(self.columns[name], dtype=np.float64)

    @cached_property
    def status(self) -> IntArray:
        """Place of each cell's status (N,) in `ORDER`."""
        places = {status: i for i, status in enumerate(ORDER)}
        return np.array([places[status] for status in self.columns["status"]], dtype=np.int64)

    @cached_property
    def done(self) -> BoolArray:
        """Which cells (N,) have a result."""
        return np.equal(self.status, ORDER.index(DONE))

    @cached_property
    def limited(self) -> BoolArray:
        """Which results (N,) their time limit cut short."""
        return np.logical_and(self.done, [bool(value) for value in self.columns["time_limited"]])

    @cached_property
    def lower(self) -> FloatArray:
        """lam_lower (N,), NaN where there is none."""
        return np.where(self.done, self.number("lam_lower"), np.nan)

    @cached_property
    def upper(self) -> FloatArray:
        """lam_upper (N,), inf where a certificate was sought in vain, NaN where none was sought."""
        return np.where(self.done, self.number("lam_upper"), np.nan)

    def counts(self) -> dict[str, int]:
        """Number of cells by status."""
        found = np.bincount(self.status, minlength=len(ORDER))
        return {status: int(found[i]) for i, status in enumerate(ORDER)}

    def describe(self, i: int) -> str:
        """The axes of a cell that vary, in words."""
        parts = [name for name in self.spec_axes if self.axes[name].varies] or ["width", "depth"]
        return ", ".join(
            value_text(name, self.axes[name].values[self.axes[name].codes[i]]) for name in parts if name in self.axes
        )

    def table(self) -> dict[str, list[Any]]:
        """Columns of the table to download: axes first."""
        axes = {name: [self.axes[name].values[code] for code in self.axes[name].codes] for name in self.spec_axes}
        return {**axes, **{name: self.columns[name] for name in COLUMNS}}


def value_text(name: str, value: Any) -> str:
    """A value of an axis in words: "tanh", but "width 8"."""
    if value is None:
        return f"no {name}"
    if isinstance(value, bool):
        return f"{name} {'on' if value else 'off'}"
    if name in ("data", "activation", "parametrization", "region", "kind", "settings"):
        return str(value)
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def load_cells(path: str | os.PathLike[str]) -> Cells:
    """Read a store; a run may be writing to it.

    Raises
    ------
    FileError, StoreError
        If there is no store, or it is none.
    """
    with _no_collection(), Store.open(path, readonly=True) as store:
        return _read(store, Path(path))


def _read(store: Store, path: Path) -> Cells:
    names = ("axes", *COLUMNS)
    query = f"SELECT {', '.join(names)}, json_extract(work, '$.options'), json_extract(work, '$.time_limit') FROM cells"
    # One statement, so that all is of one moment also while a run writes.
    found = store.connection.execute(f"{query} ORDER BY position, key").fetchall()
    table = list(zip(*found, strict=True)) if found else [()] * (len(names) + 2)
    columns: dict[str, list[Any]] = {name: list(table[i]) for i, name in enumerate(names)}
    columns["time_limited"] = [None if value is None else bool(value) for value in columns["time_limited"]]
    decoded = decoded_all(columns.pop("axes"))
    spec_axes = tuple(dict.fromkeys(chain.from_iterable(decoded)))
    axes = {name: _axis(name, [cell.get(name) for cell in decoded]) for name in spec_axes}
    axes["kind"] = _axis("kind", columns["kind"])
    settings = list(zip(table[-2], table[-1], strict=True))
    texts = {one: _settings_text(*one) for one in set(settings)}
    axes["settings"] = _axis("settings", [texts[one] for one in settings])
    if "hidden" in axes and axes["hidden"].varies:
        hidden = axes["hidden"]
        sums = [_units(value) for value in hidden.values]
        axes["units"] = _axis("units", [sums[code] for code in hidden.codes])
    return Cells(path, len(found), columns, axes, spec_axes, store.runs(), store.meta)


def decoded_all(texts: Iterable[str]) -> list[Any]:
    """Decode JSON texts, all at once: a call for each would take thrice the time."""
    values: list[Any] = json.loads(f"[{','.join(texts)}]")
    return values


def _axis(name: str, given: Sequence[Any]) -> Axis:
    try:
        found = dict.fromkeys(given)
    except TypeError:  # a list, which cannot be looked up
        return _axis(name, [json.dumps(value) if isinstance(value, list | dict) else value for value in given])
    # Numbers by size, names in the order of the specification.
    values = sorted(found, key=_sort_key) if not any(isinstance(value, str) for value in found) else list(found)
    rank = {value: i for i, value in enumerate(values)}
    return Axis(name, np.fromiter(map(rank.__getitem__, given), dtype=np.int64, count=len(given)), values)


def _sort_key(value: Any) -> tuple[bool, float]:
    return value is not None, 0.0 if value is None else float(value)


def _settings_text(options: str | None, time_limit: float | None) -> str:
    parts = [f"{name} {value}" for name, value in (json.loads(options) if options else {}).items() if value is not None]
    return ", ".join([*parts, *([] if time_limit is None else [f"limit {time_limit:g} s"])]) or "defaults"


def _units(hidden: Any) -> int | None:
    parts = str(hidden).split("-")
    return sum(map(int, parts)) if all(part.isdecimal() for part in parts) else None


def combine(codes: Iterable[IntArray], size: int) -> tuple[IntArray, int]:
    """Number the combinations of several codes (N,): the number of each cell's, and how many there are; in sorted order."""
    combined, count = np.zeros(size, dtype=np.int64), min(1, size)
    for code in codes:
        combined = combined * (int(code.max(initial=0)) + 1) + code
        found, combined = np.unique(combined, return_inverse=True)
        count = len(found)
    return combined.reshape(size), count
