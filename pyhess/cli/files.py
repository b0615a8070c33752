"""Data for the commands: a name or an .npz file, which is not trusted."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Dataset
from ..errors import MissingDependencyError, PyhessError
from .common import DataError

#: Largest uncompressed array that a file may claim; a header is believed only up to here.
MAX_BYTES = 2**33


def _read_arrays(path: Path) -> dict[str, Any]:
    """The arrays X, y and weights of an .npz file, sizes checked before anything is unpacked."""
    wanted = ("X", "y", "weights")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): archive.getinfo(name) for name in archive.namelist()}
        missing = [name for name in ("X", "y") if name not in members]
        if missing:
            raise DataError(
                f"{path} has no array {missing[0]!r}; it must hold X (N, d) and y (N,) or (N, K), and may hold weights (N,)."
            )
        for name in wanted:
            if name in members and members[name].file_size > MAX_BYTES:
                claimed, allowed = (size / 2**30 for size in (members[name].file_size, MAX_BYTES))
                raise DataError(f"{path}: array {name!r} claims {claimed:.1f} GiB; allowed are {allowed:.0f} GiB.")
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in wanted if name in content}
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as an .npz file: {error}. Write it with numpy.savez(path, X=X, y=y).") from error


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
