"""From a specification to its cells: keys, parents, predicted time and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from ..data import Dataset, resolve_targets
from ..errors import InputError, PyhessError
from .canonical import canonical_json, key_of
from .problem import load_dataset, make_net, outputs_and_loss

if TYPE_CHECKING:
    from .spec import SweepSpec

#: Version of what is hashed.
_LAYOUT = 1
#: Arithmetic of one core, where nothing was measured yet.
FLOPS_PER_SECOND = 1.5e10
#: Seconds of a cell that no arithmetic explains.
_OVERHEAD = 0.01
#: Names of the axes in a store, in this order. ``hidden`` replaces width and depth where layers differ.
AXES = (
    "data", "n", "data_seed", "activation", "beta", "bias", "parametrization", "loss", "depth", "width", "hidden", "region",
    "radius", "center", "ordered", "penalty", "shift", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One piece of work; ``work`` is what ``key`` is the hash of."""

    key: str
    position: int
    kind: str
    axes: dict[str, Any]
    work: dict[str, Any]
    problem: dict[str, Any]
    parent: str | None
    num_params: int
    predicted_seconds: float
    bytes: float


@dataclass(frozen=True)
class Plan:
    """All cells of a specification, parents before their children."""

    spec: SweepSpec
    cells: list[Cell]
    duplicates: int
    by_key: dict[str, Cell] = field(repr=False)

    def shard(self, index: int, count: int) -> Plan:
        """Return part ``index`` of ``count`` (from 1): whole chains of parents and children, dealt out in turn by cost.

        Raises
        ------
        InputError
            If there is no such part.
        """
        if not 1 <= index <= count:
            raise InputError(f"shard {index}/{count} does not exist; allowed are 1/{count} … {count}/{count}.")
        root: dict[str, str] = {}
        cost: dict[str, float] = {}
        for cell in self.cells:
            root[cell.key] = cell.key if cell.parent is None else root[cell.parent]
            cost[root[cell.key]] = cost.get(root[cell.key], 0.0) + cell.predicted_seconds
        loads = [0.0] * count
        owner = {}
        for key in sorted(cost, key=lambda key: (-cost[key], key)):
            owner[key] = loads.index(min(loads))
            loads[owner[key]] += cost[key]
        mine = [cell for cell in self.cells if owner[root[cell.key]] == index - 1]
        return Plan(self.spec, mine, self.duplicates, {cell.key: cell for cell in mine})


def make_plan(spec: SweepSpec) -> Plan:
    """List the cells; data are loaded, nothing else is computed.

    Raises
    ------
    InputError
        If a combination of axes makes no problem, for example a loss that does not fit the targets.
    """
    maker = _Maker(spec)
    combinations = list(_combinations(spec))
    # Along the warm axis parents come first; the order of the cells in the store stays that of the specification.
    order = range(len(combinations))
    if spec.warm is not None:
        order = sorted(order, key=lambda i: (maker.rank(combinations[i]), i))  # type: ignore[assignment]
    last: dict[str, tuple[Any, Cell]] = {}
    cells: dict[str, Cell] = {}
    duplicates = 0
    for i in order:
        parent, chain, rank = None, "", maker.rank(combinations[i])
        if spec.warm is not None:
            chain = maker.chain(combinations[i])
            rank_before, parent = last.get(chain, (None, None))
            if rank_before == rank:  # the same cell, which would become its own parent
                duplicates += 1
                continue
        cell = maker.cell(combinations[i], i, parent)
        last[chain] = rank, cell
        if cell.key in cells:
            duplicates += 1
        else:
            cells[cell.key] = cell
    return Plan(spec, list(cells.values()), duplicates, cells)


def _combinations(spec: SweepSpec) -> Iterator[dict[str, Any]]:
    from .spec import DEFAULTS

    groups: list[list[dict[str, Any]]] = [[{name: value} for value in values] for name, values in spec.grid.given().items()]
    for zipped in spec.zipped:
        given = zipped.given()
        groups.append([dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)])
    for parts in product(*groups):
        combination = dict(DEFAULTS)
        for part in parts:
            combination |= part
        yield combination


class _Maker:
    """Makes cells; data sets and networks are looked at once."""

    def __init__(self, spec: SweepSpec) -> None:
        self.spec = spec
        self.options = spec.options
        self.made_options = spec.kind.options(**self.options)
        self.varied = {name for group in (spec.grid, *spec.zipped) for name in group.given()}
        self._sources: dict[tuple[Any, ...], tuple[dict[str, Any], Dataset]] = {}
        self._checked: dict[tuple[Any, ...], tuple[int, str]] = {}
        self._costs: dict[str, tuple[int, float, float]] = {}

    def rank(self, axes: dict[str, Any]) -> tuple[Any, ...]:
        """Where a combination stands along the warm axis."""
        if self.spec.warm == "radius":
            return (axes["radius"],)
        return tuple(_hidden(axes))

    def chain(self, axes: dict[str, Any]) -> str:
        """What the combinations of one chain have in common."""
        left_out = ("radius",) if self.spec.warm == "radius" else ("width", "hidden")
        common = {name: value for name, value in axes.items() if name not in left_out}
        return canonical_json({**common, "layers": len(_hidden(axes))})

    def cell(self, axes: dict[str, Any], position: int, parent: Cell | None) -> Cell:
        source, data = self._source(axes)
        outputs, loss = self._outputs(axes, data)
        problem = {
            "data": source, "hidden": _hidden(axes), "loss": loss,
            "beta": axes["beta"] if axes["activation"] == "softplus" else 1.0,
            "shift": axes["shift"] if axes["penalty"] == "shifted" else 0.0,
            **{
                name: axes[name]
                for name in ("activation", "bias", "parametrization", "region", "radius", "center", "ordered", "penalty", "seed")
            },
        }  # fmt: skip
        if parent is not None and self.spec.warm == "width":
            narrow = parent.problem["hidden"]
            if any(wide < small for wide, small in zip(problem["hidden"], narrow, strict=True)):
                parent = None  # neither of the two is the wider one
        work = {
            "layout": _LAYOUT, "kind": self.spec.kind.name, "version": self.spec.kind.version, "options": self.options,
            "time_limit": self.spec.time_limit, "parent": None if parent is None else parent.key,
            **problem, "data": source["content_hash"], "outputs": outputs,
        }  # fmt: skip
        size, seconds, memory = self._cost(problem, data)
        shown = {**axes, "loss": loss, "n": data.num_samples, "hidden": "-".join(map(str, _hidden(axes)))}
        if "hidden" not in self.varied:
            del shown["hidden"]
        else:
            shown["depth"] = len(problem["hidden"])
        for name, needed in (("beta", "activation"), ("shift", "penalty"), ("data_seed", "data")):
            if name not in self.varied and not (name == "shift" and axes[needed] == "shifted"):
                shown.pop(name, None)
        return Cell(
            key=key_of(work),
            position=position,
            kind=self.spec.kind.name,
            axes={name: shown[name] for name in AXES if name in shown},
            work=work,
            problem=problem,
            parent=None if parent is None else parent.key,
            num_params=size,
            predicted_seconds=seconds,
            bytes=memory,
        )

    def _source(self, axes: dict[str, Any]) -> tuple[dict[str, Any], Dataset]:
        key = (axes["data"], axes["n"], axes["data_seed"])
        if key not in self._sources:
            source = self.spec.source(axes)
            data = load_dataset(source)
            self._sources[key] = ({**source, "content_hash": data.content_hash}, data)
        return self._sources[key]

    def _outputs(self, axes: dict[str, Any], data: Dataset) -> tuple[int, str]:
        key = (data.content_hash, axes["loss"])
        if key not in self._checked:
            outputs, loss = outputs_and_loss(data, axes["loss"])
            try:
                resolve_targets(data, loss, outputs)
            except PyhessError as error:
                raise InputError(f"data = {axes['data']!r} with loss = {axes['loss']!r}: {error}") from error
            self._checked[key] = (outputs, loss)
        return self._checked[key]

    def _cost(self, problem: dict[str, Any], data: Dataset) -> tuple[int, float, float]:
        """Number of parameters, seconds from sizes alone, which runs correct by what they measure, and bytes."""
        from ..memory import plan

        what = ("hidden", "activation", "beta", "bias", "parametrization", "loss", "region", "center")
        key = canonical_json([data.content_hash, *(problem[name] for name in what)])
        if key not in self._costs:
            net = make_net(problem, data)
            memory = plan(net, data.num_samples, problem["loss"])
            # Beside the products: the pairs of the quasi-Newton steps and a Lanczos basis, some forty vectors.
            size = float(memory.total_bytes + 40 * 8 * net.num_params)
            kind, sizes = self.spec.kind, (net, data.num_samples)
            seconds = _OVERHEAD + kind.flops(*sizes, self.made_options) / FLOPS_PER_SECOND
            seconds += kind.seconds(*sizes, problem, self.spec.time_limit, self.made_options)
            if self.spec.time_limit is not None:
                seconds = min(seconds, self.spec.time_limit)
            self._costs[key] = (net.num_params, seconds, size)
        return self._costs[key]


def _hidden(axes: dict[str, Any]) -> list[int]:
    return list(axes["hidden"]) if "hidden" in axes else [axes["width"]] * axes["depth"]


def summary(plan: Plan, done: Sequence[str] = ()) -> dict[str, Any]:
    """What a plan amounts to, JSON-safe: cells, duplicates, predicted hours of one core, memory of the largest cell."""
    finished = set(done)
    left = [cell for cell in plan.cells if cell.key not in finished]
    seconds = [cell.predicted_seconds for cell in left]
    chains = sum(cell.parent is None for cell in plan.cells)
    largest = max(left, key=lambda cell: cell.predicted_seconds, default=None)
    return {
        "name": plan.spec.name,
        "kind": plan.spec.kind.name,
        "cells": len(plan.cells),
        "duplicates": plan.duplicates,
        "done": len(plan.cells) - len(left),
        "chains": chains,
        "core_hours": sum(seconds) / 3600.0,
        "longest_cell_seconds": max(seconds, default=0.0),
        "longest_cell": None if largest is None else largest.axes,
        "bytes_per_cell": max((cell.bytes for cell in left), default=0.0),
        "axes": {
            name: len({str(cell.axes.get(name)) for cell in plan.cells})
            for name in AXES
            if any(name in c.axes for c in plan.cells)
        },
    }
