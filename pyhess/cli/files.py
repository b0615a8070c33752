"""Data for the commands: a name or a file, which is not trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from .._checks import as_vector
from .._files import read_array, read_arrays
from ..data import Dataset
from ..errors import MissingDependencyError, PyhessError
from .common import DataError


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
        if source.endswith(".npz"):
            return datasets.load_file(source, n=n, standardize=standardize)
        return datasets.load(source, n=n, standardize=standardize, rng=seed if source in datasets.GENERATED else None)
    except MissingDependencyError:
        raise
    except PyhessError as error:
        raise DataError(str(error)) from error
