"""Data for the commands: a name or a file, which is not trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._checks import as_vector
from .._files import read_array, read_arrays
from ..data import Dataset
from ..errors import FileError, MissingDependencyError, PyhessError
from .common import DataError


def _read_arrays(path: Path) -> dict[str, Any]:
    """The arrays X, y and weights of an .npz file."""
    try:
        arrays = read_arrays(path, ("X", "y", "weights"))
    except FileError as error:
        raise DataError(f"{error} Write it with numpy.savez(path, X=X, y=y).") from error
    for name in ("X", "y"):
        if name not in arrays:
            raise DataError(
                f"{path} has no array {name!r}; it must hold X (N, d) and y (N,) or (N, K), and may hold weights (N,)."
            )
    return arrays


def load_vector(source: str, size: int, name: str, option: str) -> npt.NDArray[np.float64]:
    """One vector (P,) from a .npy file, or from an .npz file that holds it alone or under the given name.

    Raises
    ------
    DataError
        If the file is unreadable, or the vector has another length or entries that are not finite.
    """
    path = Path(source)
    arrays = {name: read_array(path)} if path.suffix == ".npy" else read_arrays(path)
    if len(arrays) != 1 and name not in arrays:
        raise DataError(
            f"{source} has the arrays {', '.join(arrays) or '(none)'}; allowed for {option} is one array, or one called {name!r}."
        )
    vector = arrays[name] if name in arrays else next(iter(arrays.values()))
    try:
        return as_vector(f"{option} {source}", vector, size)
    except PyhessError as error:
        raise DataError(str(error)) from error


def load_data(source: str, n: int | None, standardize: bool | None, seed: int | None) -> Dataset:
    """A data set by name, or from a file whose name ends in .npz.

    Raises
    ------
    DataError
        If it is unknown, unreadable or unfit.
    """
    from .. import datasets

    try:
        if not source.endswith(".npz"):
            return datasets.load(source, n=n, standardize=standardize, rng=seed if source in datasets.GENERATED else None)
        arrays = _read_arrays(Path(source))
        rows = slice(None if n is None else n)
        if n is not None and n > len(arrays["X"]):
            raise DataError(f"--n {n} but {source} has {len(arrays['X'])} rows.")
        X, y, weights = arrays["X"], arrays["y"], arrays.get("weights")
        if standardize:
            X = np.asarray(X, dtype=np.float64)
            spread = X.std(axis=0)
            X = (X - X.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
        return Dataset(X[rows], y[rows], None if weights is None else weights[rows], name=Path(source).stem)
    except MissingDependencyError:
        raise
    except DataError:
        raise
    except PyhessError as error:
        raise DataError(str(error)) from error
