"""Result files: an .npz archive that carries its own description, and the same description beside it as readable JSON.

The archive alone is complete. Nothing in a file is trusted before it is checked: no pickles, no array larger than the file that
holds it, no description with unknown entries.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Mapping
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import numpy.typing as npt

from .errors import FileError, InputTypeError

AnyArray = npt.NDArray[Any]

#: Version of the layout; files with a higher one are refused.
SCHEMA_VERSION = 8
#: Largest array that a file may claim, in bytes.
MAX_BYTES = 2**33
#: Lists of more numbers than this are kept as arrays, outside the description.
_SHORT = 8
_FORMAT = "pyhess"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
#: What damaged archives make zipfile, zlib and NumPy raise.
_UNREADABLE = (
    OSError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, ValueError, SyntaxError, EOFError, KeyError,
    RuntimeError, MemoryError,
)  # fmt: skip


def result_path(path: Any) -> Path:
    """Return the path of an archive to be written, or say what is wrong with it.

    Raises
    ------
    FileError
        If its name does not end in .npz, or its folder does not exist or cannot be written.
    InputTypeError
        If it is no path at all.
    """
    try:
        archive = Path(path)
    except TypeError:
        raise InputTypeError(f"path is a {type(path).__name__}; pass a name that ends in .npz.") from None
    if archive.suffix != ".npz":
        raise FileError(
            f"{archive} is no name for a result; allowed are names that end in .npz. The description goes to a file of the same "
            "name that ends in .json."
        )
    if not archive.parent.is_dir():
        raise FileError(f"{archive} cannot be written: there is no folder {archive.parent}. Make it first.")
    if archive.is_dir() or not os.access(archive.parent, os.W_OK):
        raise FileError(f"{archive} cannot be written: it is a folder, or its folder is read-only. Choose another place.")
    return archive


def write_result(path: Any, kind: str, content: Mapping[str, Any]) -> Path:
    """Write a result as ``name.npz`` and ``name.json``, each in one step: readers see the old file or the new one.

    Parameters
    ----------
    path : str or Path
        Ends in .npz. Existing files are replaced.
    kind : str
        What the file holds.
    content : mapping
        Strings, finite numbers, booleans, None, arrays, and lists and mappings of these.

    Returns
    -------
    Path
        The archive.

    Raises
    ------
    FileError
        If the files cannot be written; earlier files of these names are then as they were.
    """
    archive = result_path(path)
    arrays: dict[str, AnyArray] = {}
    head = {"format": _FORMAT, "schema_version": SCHEMA_VERSION, "kind": kind, "pyhess_version": _version()}
    described = {**head, **_without_arrays(content, "", arrays)}
    text = json.dumps(described, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    _write_all({archive: _zipped({"description": np.array(text), **arrays}), archive.with_suffix(".json"): text.encode()})
    return archive


def _zipped(arrays: dict[str, AnyArray]) -> bytes:
    """As `numpy.savez` does it, but those that are zero for the most part are compressed, which takes time elsewhere."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            sparse = array.dtype.kind in "fiu" and 2 * np.count_nonzero(array) < array.size
            entry.compress_type = zipfile.ZIP_DEFLATED if sparse else zipfile.ZIP_STORED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return stream.getvalue()


def read_result(path: Any) -> dict[str, Any]:
    """Return the content of an archive of :func:`write_result`: its description with the arrays put back.

    Raises
    ------
    FileError
        If it is no such archive, damaged, or of a newer layout.
    """
    archive = Path(path)
    if archive.suffix == ".json":
        raise FileError(f"{archive} is the description for people; what it describes is in {archive.with_suffix('.npz')}.")
    arrays = read_arrays(archive)
    text = arrays.pop("description", None)
    if text is None or text.ndim != 0 or text.dtype.kind != "U":
        raise FileError(f"{archive} holds no description, so pyhess did not write it; allowed are files that pyhess saved.")
    try:
        described = json.loads(str(text), parse_constant=_no_constant)
        content = _with_arrays(described, arrays, archive)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{archive} is damaged: its description is no JSON document ({error}).") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise FileError(f"{archive} describes itself as something else than a result of pyhess.")
    version = content.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise FileError(f"{archive} is damaged: its layout version is {version!r}; allowed are integers from 1 on.")
    if version > SCHEMA_VERSION:
        raise FileError(
            f"{archive} was written by pyhess {content.get('pyhess_version')} in layout {version}; this pyhess, {_version()}, "
            f"reads layouts up to {SCHEMA_VERSION}. Use a newer pyhess."
        )
    if arrays:
        raise FileError(f"{archive} is damaged: it holds arrays that its description does not mention ({', '.join(arrays)}).")
    return content


def read_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, AnyArray]:
    """Return arrays of an .npz file, all of them or those of the given names that it holds; sizes are checked before reading.

    Raises
    ------
    FileError
        If the file cannot be read, or an array is not what its header claims, holds Python objects, or is too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            wanted = members if names is None else [name for name in names if name in members]
            return {
                name: _read_stream(archive.open(members[name]), members[name].file_size, f"{path}: array {name!r}")
                for name in wanted
            }
    except FileError:
        raise
    except _UNREADABLE as error:
        raise FileError(f"{path} cannot be read as an .npz file: {_reason(error)}.") from error


def read_array(path: Path) -> AnyArray:
    """Return the array of a .npy file, checked as :func:`read_arrays` does.

    Raises
    ------
    FileError
        If the file cannot be read, or is not what its header claims.
    """
    try:
        return _read_stream(path.open("rb"), path.stat().st_size, f"{path}")
    except FileError:
        raise
    except _UNREADABLE as error:
        raise FileError(f"{path} cannot be read as an .npy file: {_reason(error)}.") from error


def _read_stream(stream: IO[bytes], size: int, name: str) -> AnyArray:
    """Read an array whose header must fit the ``size`` bytes of the stream, which is closed."""
    with stream:
        if size > MAX_BYTES:
            raise FileError(f"{name} claims {size / 2**30:.1f} GiB; allowed are {MAX_BYTES / 2**30:.0f} GiB.")
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise FileError(f"{name} cannot be read: it is in version {version} of NumPy's format; allowed are 1.0 and 2.0.")
        shape, fortran, dtype = _HEADERS[version](stream)
        if dtype.hasobject:
            raise FileError(f"{name} cannot be read: it holds Python objects; allowed are numbers and strings.")
        wanted = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or wanted > size:
            raise FileError(f"{name} is damaged: an array of shape {shape} does not fit into {size} bytes.")
        data = stream.read()
    if len(data) != wanted:
        raise FileError(f"{name} is damaged: an array of shape {shape} takes {wanted} bytes, but {len(data)} follow its header.")
    if not data:
        return np.empty(shape, dtype)
    array: AnyArray = np.frombuffer(data, dtype, count=math.prod(shape)).reshape(shape, order="F" if fortran else "C")
    return array


def _write_all(contents: Mapping[Path, bytes]) -> None:
    """Write all files beside their places, then move all into place."""
    written: dict[Path, Path] = {}
    target = next(iter(contents))
    try:
        for target, data in contents.items():
            temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
            written[target] = temporary
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        for target, temporary in written.items():
            temporary.replace(target)
    except OSError as error:
        raise FileError(f"{target} cannot be written: {_reason(error)}. Free space or choose another place.") from error
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)


def _without_arrays(value: Any, name: str, arrays: dict[str, AnyArray]) -> Any:
    """Move arrays and long lists of floats into ``arrays``, under names that say where they were."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name, "shape": list(value.shape)}
    if isinstance(value, Mapping):
        return {key: _without_arrays(item, f"{name}.{key}" if name else key, arrays) for key, item in value.items()}
    if isinstance(value, list):
        if len(value) > _SHORT and all(type(item) is float for item in value):
            return _without_arrays(np.array(value), name, arrays)
        return [_without_arrays(item, f"{name}.{place}", arrays) for place, item in enumerate(value)]
    return value


def _with_arrays(value: Any, arrays: dict[str, AnyArray], path: Path) -> Any:
    if isinstance(value, dict) and set(value) == {"array", "shape"}:
        found = arrays.pop(str(value["array"]), None)
        if found is None or list(found.shape) != value["shape"]:
            raise FileError(f"{path} is damaged: its description speaks of an array {value['array']!r} that is not there.")
        return found
    if isinstance(value, dict):
        return {key: _with_arrays(item, arrays, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_arrays(item, arrays, path) for item in value]
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _reason(error: BaseException) -> str:
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error).rstrip(".") or type(error).__name__


def _version() -> str:
    try:
        return metadata.version("pyhess")
    except metadata.PackageNotFoundError:  # run from a source tree
        return "0+unknown"
