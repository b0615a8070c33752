"""A store's cells as tables of other libraries."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import FileError, InputError, MissingDependencyError
from ._columns import ANSWER, MEASURED
from .store import Store

#: Columns of a table besides the axes; JSON ones as text.
TABLE = ("key", "kind", *ANSWER, *MEASURED)
#: Largest number of points of a grid that most of the cells may leave empty.
_MOST_POINTS = 2**24
#: The columns of an xarray data set.
_NUMBERS = (
    "lam_lower", "lam_upper", "psi_upper", "psi_lower", "seconds", "predicted_seconds", "num_params", "num_starts", "num_jets",
    "num_matvecs",
)  # fmt: skip


class Exports:
    """What a store can be turned into. Axes come first, a column each, then key, kind, answers and measurements."""

    path: Path

    def rows(self, status: str | None = None) -> list[dict[str, Any]]:
        """The cells, see `Store.rows`."""
        with Store.open(self.path, readonly=True) as store:
            return store.rows(status)

    def table(self) -> dict[str, list[Any]]:
        """All columns as lists; certificates and the like as JSON text, widths of unequal layers as "8-4"."""
        with Store.open(self.path, readonly=True) as store:
            columns = store.columns(("axes", *TABLE), as_text=("certificate", "extra", "timing"))
        axes = columns.pop("axes")
        names = list(dict.fromkeys(name for cell in axes for name in cell))
        return {**{name: [cell.get(name) for cell in axes] for name in names}, **columns}

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`, a row per cell; its ``attrs`` name the axes."""
        pandas = _needed("pandas", "to_pandas")
        table = self.table()
        frame = pandas.DataFrame(table)
        frame.attrs["axes"] = [name for name in table if name not in TABLE]
        return frame

    def to_polars(self) -> Any:
        """A `polars.DataFrame`, a row per cell."""
        return _needed("polars", "to_polars").DataFrame(self.table(), infer_schema_length=None)

    def to_xarray(self, dims: Sequence[str] | None = None, *, kind: str | None = None) -> Any:
        """An `xarray.Dataset` of the numbers over the axes ``dims``, by default all that vary; NaN where there is no cell.

        Of a store with several kinds of work, ``kind`` names the one that is meant.

        Raises
        ------
        InputError
            If ``dims`` are no axes, do not tell the cells apart, or span far more points than there are cells.
        """
        xarray = _needed("xarray", "to_xarray")
        import numpy as np

        table = self.table()
        if kind is not None:
            kept = [i for i, one in enumerate(table["kind"]) if one == kind]
            table = {name: [values[i] for i in kept] for name, values in table.items()}
        axes = {name: values for name, values in table.items() if name not in TABLE}
        values_of = {name: sorted(set(values), key=lambda value: (value is None, value)) for name, values in axes.items()}
        names = [name for name in axes if len(values_of[name]) > 1] if dims is None else list(dims)
        unknown = [name for name in names if name not in axes]
        if unknown:
            raise InputError(f"{unknown[0]!r} is no axis of this sweep; allowed: {', '.join(axes)}.")
        shape = tuple(len(values_of[name]) for name in names)
        points = int(np.prod(shape, dtype=np.float64))
        if points > max(_MOST_POINTS, 64 * len(table["key"])):
            raise InputError(
                f"the axes {', '.join(names)} span {points} points for {len(table['key'])} cells; choose fewer dims."
            )
        places = {name: {value: i for i, value in enumerate(values_of[name])} for name in names}
        index = [[places[name][value] for value in axes[name]] for name in names]
        flat = np.ravel_multi_index(index, shape) if names else np.zeros(len(table["key"]), dtype=np.int64)
        if len(np.unique(flat)) != len(flat):
            free = [name for name in axes if len(values_of[name]) > 1 and name not in names]
            kinds = sorted(set(table["kind"]))
            advice = f"add some of {', '.join(free)}" if free else "they come from several specifications"
            advice += f"; choose a kind: {', '.join(kinds)}" if len(kinds) > 1 else ""
            raise InputError(f"dims {', '.join(names)} do not tell the cells apart; {advice}.")
        variables: dict[str, Any] = {}
        for name in (*_NUMBERS, "status"):
            filled = np.full(points, None if name == "status" else np.nan, dtype=object if name == "status" else np.float64)
            filled[flat] = table[name] if name == "status" else [np.nan if value is None else value for value in table[name]]
            variables[name] = (names, filled.reshape(shape))
        fixed = {name: values[0] for name, values in values_of.items() if len(values) == 1 and name not in names}
        attributes = {name: value for name, value in fixed.items() if value is not None}
        return xarray.Dataset(variables, coords={name: values_of[name] for name in names}, attrs=attributes)

    def to_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Write a Parquet file; an existing one is replaced."""
        arrow, parquet = _needed("pyarrow", "to_parquet"), _needed("pyarrow.parquet", "to_parquet")
        table = arrow.table({name: arrow.array(values) for name, values in self.table().items()})
        with _replacing(path) as temporary:
            parquet.write_table(table, temporary)
        return Path(path)

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a CSV file (RFC 4180, UTF-8, missing values empty, infinity as inf); an existing one is replaced."""
        table = self.table()
        with _replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))
        return Path(path)


class Export(Exports):
    """The exports of a store.

    Parameters
    ----------
    path : path-like
        The store; a run may be writing to it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)


def _needed(module: str, what: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise MissingDependencyError(
            f"{what} needs {package}, which is not installed; pip install 'pyhess[export]' (CSV needs nothing)."
        ) from None


@contextmanager
def _replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file beside the wanted one, which takes its place when it is complete."""
    wanted = Path(path)
    temporary = wanted.with_name(f".{wanted.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(wanted)
    except OSError as error:
        raise FileError(f"{wanted} cannot be written: {error.strerror or error}. Choose another place, or make room.") from error
    finally:
        temporary.unlink(missing_ok=True)
