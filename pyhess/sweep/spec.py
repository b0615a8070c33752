"""The specification of a sweep: a TOML file, or the same as Python values."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from ..data import Dataset
from ..datasets import part
from ..errors import FileError, InputError, MissingDependencyError
from .kinds import KINDS
from .problem import PENALTIES, REGIONS

try:
    from pydantic import (
        BaseModel,
        ConfigDict,
        Field,
        PositiveFloat,
        PositiveInt,
        PrivateAttr,
        TypeAdapter,
        ValidationError,
        field_validator,
        model_validator,
    )  # fmt: skip
except ImportError:
    raise MissingDependencyError("sweeps need pydantic, which is not installed; pip install 'pyhess[sweep]'.") from None

Activation = Literal["tanh", "relu", "softplus", "sigmoid", "gelu", "identity"]
Seed = Field(ge=0, lt=2**63)

#: Values of the axes that a specification does not name.
DEFAULTS: dict[str, Any] = {
    "n": None, "data_seed": None, "activation": "tanh", "beta": 1.0, "bias": True, "parametrization": "standard", "loss": "auto",
    "depth": 1, "region": "box", "center": "zero", "ordered": False, "penalty": "l2", "shift": 0.0, "seed": 20261,
}  # fmt: skip


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Axes(_Strict):
    """Values of the axes, one or a list of each. ``width`` and ``depth`` make equal hidden layers, ``hidden`` any others."""

    data: list[str] | None = None
    n: list[PositiveInt] | None = None
    data_seed: list[int] | None = None
    hidden: list[list[PositiveInt]] | None = None
    width: list[PositiveInt] | None = None
    depth: list[PositiveInt] | None = None
    activation: list[Activation] | None = None
    beta: list[PositiveFloat] | None = None
    bias: list[bool] | None = None
    parametrization: list[Literal["standard", "ntk"]] | None = None
    loss: list[Literal["auto", "squared_error", "cross_entropy", "logistic"]] | None = None
    region: list[Literal["box", "ball", "box_scaled"]] | None = None
    radius: list[PositiveFloat] | None = None
    center: list[Literal["zero", "init"]] | None = None
    ordered: list[bool] | None = None
    penalty: list[Literal["l2", "l2-weights", "shifted", "geometric"]] | None = None
    shift: list[float] | None = None
    seed: list[int] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {name: _listed(name, value) for name, value in given.items()}

    @field_validator("*")
    @classmethod
    def _some(cls, values: Any) -> Any:
        if values is not None and len(values) == 0:
            raise ValueError("the list is empty; give at least one value or leave the axis out")
        return values

    @field_validator("seed", "data_seed")
    @classmethod
    def _seeds(cls, values: list[int] | None) -> list[int] | None:
        for value in values or ():
            if not 0 <= value < 2**63:
                raise ValueError(f"{value} is no seed; allowed are integers from 0 to 2^63 - 1")
        return values

    @field_validator("hidden")
    @classmethod
    def _layers(cls, values: list[list[int]] | None) -> list[list[int]] | None:
        if any(len(layers) == 0 for layers in values or ()):
            raise ValueError("a network without hidden layers is convex already; give at least one width")
        return values

    def given(self) -> dict[str, list[Any]]:
        """The axes that were named."""
        return {name: values for name in type(self).model_fields if (values := getattr(self, name)) is not None}


def _listed(name: str, value: Any) -> Any:
    """One value as a list of one; ``{first = 5, count = 3}`` as 5, 6, 7."""
    if name in ("seed", "data_seed") and isinstance(value, Mapping):
        if set(value) != {"first", "count"} or not all(type(number) is int for number in value.values()):
            raise ValueError(f"{name} is {dict(value)!r}; allowed are integers, lists of them, and {{first = 5, count = 3}}")
        return list(range(value["first"], value["first"] + max(0, value["count"])))
    if name == "hidden":
        single = isinstance(value, list) and bool(value) and not any(isinstance(item, list) for item in value)
        return [value] if single else value
    return value if isinstance(value, list) else [value]


class SweepSpec(_Strict):
    """What to compute on which grid.

    Attributes
    ----------
    name : str
        Shown in reports.
    compute : dict
        ``kind`` ("search", "bracket", "eigvals") and its options; ``time_limit`` seconds per cell.
    grid : Axes
        Axes that are combined with each other in all ways, the last one fastest.
    zipped : list of Axes
        Groups of axes whose values go together, first with first, second with second.
    warm : "width", "radius" or None
        The axis along which the search of a cell also starts from the witness of its neighbour.
    standardize : bool or None
        Scale the data, see `pyhess.datasets.load`.

    Examples
    --------
    >>> from pyhess.sweep import SweepSpec
    >>> spec = SweepSpec.from_dict({"grid": {"data": "xor", "width": [2, 4], "radius": 0.5}, "compute": {"kind": "search"}})
    >>> spec.grid.width
    [2, 4]
    """

    name: str = "sweep"
    compute: dict[str, Any]
    grid: Axes
    zipped: list[Axes] = []
    warm: Literal["width", "radius"] | None = None
    standardize: bool | None = None
    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _datasets: dict[str, Dataset] = PrivateAttr(default_factory=dict)

    @field_validator("compute")
    @classmethod
    def _known_work(cls, given: dict[str, Any]) -> dict[str, Any]:
        kind = given.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}.{_hint(kind, KINDS)}")
        limit = given.get("time_limit")
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not 0.0 < limit < 1e12):
            raise ValueError(f"time_limit is {limit!r}; allowed are positive seconds")
        options = {name: value for name, value in given.items() if name not in ("kind", "time_limit")}
        try:
            _made(kind, options)
        except ValidationError as error:
            raise ValueError("; ".join(_lines(error, (*_fields(kind), "kind", "time_limit")))) from None
        return given

    @model_validator(mode="after")
    def _axes_fit(self) -> SweepSpec:
        seen: set[str] = set()
        for group in (self.grid, *self.zipped):
            twice = seen & set(group.given())
            if twice:
                raise ValueError(f"the axis {min(twice)!r} is given twice; name each axis once, in [grid] or in one [[zipped]]")
            seen |= set(group.given())
        for number, group in enumerate(self.zipped):
            lengths = {name: len(values) for name, values in group.given().items()}
            if len(set(lengths.values())) != 1:
                raise ValueError(f"zipped[{number}] has axes of lengths {lengths}; allowed are lists of one length")
        for needed in ("data", "radius"):
            if needed not in seen:
                raise ValueError(f"no {needed!r} is given; it is needed in [grid] or in one [[zipped]]")
        if ("hidden" in seen) == ("width" in seen) or ("hidden" in seen and "depth" in seen):
            raise ValueError("give either 'width' (with 'depth', 1 by default) or 'hidden', the widths of the hidden layers")
        if self.warm is not None and not self.kind.warm:
            raise ValueError(f"warm = {self.warm!r} but cells of kind {self.kind.name!r} start from nothing; leave warm out")
        centers = [value for group in (self.grid, *self.zipped) for value in group.center or ()]
        if self.warm == "width" and "init" in centers:
            raise ValueError(
                "warm = 'width' but center = 'init': around a random centre no point is the narrower network's with its units "
                "duplicated; leave warm out or take center = 'zero'"
            )
        return self

    @property
    def kind(self) -> Any:
        """The kind of work."""
        return KINDS[self.compute["kind"]]

    @property
    def options(self) -> dict[str, Any]:
        """All options of the work, with their defaults."""
        given = {name: value for name, value in self.compute.items() if name not in ("kind", "time_limit")}
        made = _made(self.compute["kind"], given)
        return {name: getattr(made, name) for name in _fields(self.compute["kind"])}

    @property
    def time_limit(self) -> float | None:
        """Seconds per cell."""
        limit = self.compute.get("time_limit")
        return None if limit is None else float(limit)

    @classmethod
    def from_dict(cls, content: Any, folder: str | os.PathLike[str] | None = None) -> SweepSpec:
        """Check a specification.

        Parameters
        ----------
        content : mapping
            As in the TOML file. ``data`` may hold `Dataset` objects too; in tables they are called name@the begin of their hash.
        folder : path-like, optional
            Where data files with relative names are; the working directory by default.

        Raises
        ------
        InputError
            With one line for everything that is wrong, and what may have been meant.
        """
        datasets: dict[str, Dataset] = {}
        try:
            spec = cls.model_validate(_with_names(content, datasets))
        except ValidationError as error:
            lines = "".join(f"\n  {line}" for line in _lines(error, tuple(cls.model_fields)))
            raise InputError(f"the specification does not do:{lines}") from None
        if folder is not None:
            spec._folder = Path(folder)
        spec._datasets = datasets
        return spec

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SweepSpec:
        """Read a TOML file.

        Raises
        ------
        FileError
            If it cannot be read.
        InputError
            If it is no TOML or no specification.
        """
        file = Path(path)
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise FileError(f"{file} cannot be read: {error.strerror}. `pyhess sweep init` writes an example.") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{file} is no TOML file: {error}.") from error
        except tomllib.TOMLDecodeError as error:
            raise InputError(
                f"{file} is no TOML file: {error}. Strings need quotes; `pyhess sweep init` writes an example."
            ) from error
        try:
            return cls.from_dict(content, file.parent)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The specification as plain values, for the store and for `from_dict`."""
        content: dict[str, Any] = {"name": self.name, "compute": dict(self.compute), "grid": self.grid.given()}
        if self.zipped:
            content["zipped"] = [group.given() for group in self.zipped]
        content |= {name: value for name in ("warm", "standardize") if (value := getattr(self, name)) is not None}
        return content

    def source(self, axes: Mapping[str, Any]) -> dict[str, Any]:
        """Where the data of a combination of axes come from, for `load_dataset`."""
        name = axes["data"]
        asked = {"n": axes["n"], "data_seed": axes["data_seed"], "standardize": self.standardize}
        if name in self._datasets:
            return {"name": name, **asked, "dataset": part(self._datasets[name], n=axes["n"], standardize=self.standardize)}
        return {"name": str((self._folder / name).resolve()) if name.endswith(".npz") else name, **asked}


def _with_names(content: Any, datasets: dict[str, Dataset]) -> Any:
    """The content with names in place of data sets, which are put into ``datasets``."""

    def named(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [named(one) for one in value]
        if not isinstance(value, Dataset):
            return value
        name = f"{value.name or 'data'}@{value.content_hash[:8]}"
        datasets[name] = value
        return name

    def group(axes: Any) -> Any:
        return {**axes, "data": named(axes["data"])} if isinstance(axes, Mapping) and "data" in axes else axes

    if not isinstance(content, Mapping):
        return content
    zipped = content.get("zipped")
    replaced = {"grid": group(content["grid"])} if "grid" in content else {}
    return {**content, **replaced, **({"zipped": [group(one) for one in zipped]} if isinstance(zipped, list) else {})}


@lru_cache(maxsize=32)
def _options_of(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[kind].options)


def _made(kind: str, options: dict[str, Any]) -> Any:
    # As JSON: strict about the types of the fields, but not about that of the whole, which is a dictionary here.
    return _options_of(kind).validate_json(json.dumps(options, default=str))


def _fields(kind: str) -> tuple[str, ...]:
    return tuple(one.name for one in fields(KINDS[kind].options))


def _hint(given: Any, allowed: Any) -> str:
    if not isinstance(given, str):
        return ""
    close = difflib.get_close_matches(given.lower(), list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _lines(error: ValidationError, top: tuple[str, ...]) -> list[str]:
    """One line per mistake: where, what was given, what is allowed, what may have been meant."""
    lines = []
    for found in error.errors():
        place = ".".join(f"{part}" for part in found["loc"] if not isinstance(part, int)) or "specification"
        indices = "".join(f"[{part}]" for part in found["loc"] if isinstance(part, int))
        given, message = found["input"], found["msg"].removeprefix("Value error, ")
        if found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            allowed = tuple(Axes.model_fields) if found["loc"][0] in ("grid", "zipped") else top
            name = str(found["loc"][-1])
            lines.append(f"{place} is not known; allowed here: {', '.join(allowed)}.{_hint(name, allowed)}")
        elif found["type"] == "literal_error":
            allowed = _literals(found["loc"])
            lines.append(f"{place}{indices} is {given!r}; allowed: {', '.join(allowed)}.{_hint(given, allowed)}")
        elif found["type"] == "value_error":
            lines.append(f"{place}: {message}" if found["loc"] else message)
        elif found["type"] == "missing":
            lines.append(f"{place} is missing.")
        else:
            lines.append(f"{place}{indices} is {given!r}: {message[0].lower()}{message[1:]}.")
    return lines


_LITERALS: dict[str, tuple[str, ...]] = {
    "activation": get_args(Activation), "parametrization": ("standard", "ntk"),
    "loss": ("auto", "squared_error", "cross_entropy", "logistic"), "region": REGIONS, "center": ("zero", "init"),
    "penalty": PENALTIES, "warm": ("width", "radius"),
}  # fmt: skip


def _literals(place: tuple[Any, ...]) -> tuple[str, ...]:
    return _LITERALS[next(part for part in reversed(place) if isinstance(part, str))]


EXAMPLE = """\
# A sweep: what to compute on which grid.   pyhess sweep plan FILE    what it will take
#                                           pyhess sweep run FILE     do it, or go on with it
name = "threshold over widths"

# The axis along which a search also starts from what its neighbour found: "width" (units duplicated) or "radius".
warm = "width"

# Scale the data as `pyhess data show NAME` says; bundled sets are scaled unless this is false.
# standardize = true

[compute]
kind = "bracket"          # "search": lower end alone; "bracket": both ends; "eigvals": extreme eigenvalues at samples
starts = 8                # of the search; left out, they are chosen from the cost of an evaluation
certificate = "auto"      # "bracket" only
# samples = 64            # "eigvals" only
time_limit = 600.0        # seconds per cell; a cell that reached it is marked

# All combinations of these. An axis is one value or a list.
[grid]
data = "teacher_student"  # a name of `pyhess data list`, or a file with arrays X, y: "mine.npz"
n = 128                   # rows
width = [2, 4, 8]         # or: hidden = [[8, 4], [16, 8]]
depth = [1, 2]            # hidden layers
activation = "tanh"       # "tanh", "relu", "softplus" (with beta), "sigmoid", "gelu", "identity"
parametrization = "standard"  # or "ntk"
bias = true
loss = "auto"             # "squared_error", "cross_entropy", "logistic"
center = "zero"           # of the region; "init": a random initialisation
ordered = false           # true: hidden units in the order of their biases
penalty = "l2"            # "l2-weights", "shifted" (with shift), "geometric"
seed = { first = 5, count = 2 }  # or a list

# These go together, first with first, second with second. There may be several such groups.
[[zipped]]
region = ["box", "ball"]  # and "box_scaled": |theta| <= radius/sqrt(fan-in) in every layer
radius = [0.5, 2.0]
"""
