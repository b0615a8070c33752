"""The report of a sweep: one HTML file, and figures for papers."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import FileError
from ..export import _replacing
from ..store import _no_collection
from .cells import load_cells


def report(
    store: str | os.PathLike[str], output: str | os.PathLike[str], *, figures: str | os.PathLike[str] | None = None
) -> Path:
    """Write what a store holds as one HTML file that can be read anywhere, without a network.

    Everything is computed from the store, which a run may still be writing to; the same store gives the same file. Cells
    without a result are listed and counted in every caption, and never part of a median.

    Parameters
    ----------
    store : path-like
        The store of a sweep.
    output : path-like
        The HTML file; an existing one is replaced.
    figures : path-like, optional
        A folder, made if need be, for the figures as SVG and PDF, drawn by matplotlib.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    FileError, StoreError
        If the store cannot be read or a file cannot be written.
    MissingDependencyError
        If Plotly is not installed, or matplotlib and there are to be figures: ``pip install 'pyhess[report]'``.
    """
    wanted = Path(output)
    if wanted.is_dir() or not wanted.parent.is_dir():
        raise FileError(f"{wanted} cannot be written: it is a folder, or its folder does not exist. Choose another place.")
    with _no_collection():
        cells = load_cells(store)
        from .page import page_of

        page = page_of(cells)
        with _replacing(wanted) as temporary:
            # Half a character, which JSON in a store can hold, cannot be written as UTF-8.
            temporary.write_bytes(page.encode("utf-8", "replace"))
        if figures is not None:
            from .paper import write_figures

            write_figures(cells, figures)
    return wanted


__all__ = ["report"]
