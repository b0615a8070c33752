"""From the description of a cell to its network, data, loss, region and penalty."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data import Dataset
from ..errors import FileError, InputError
from ..model import MLP
from ..penalties import L2, GeometricL2, Penalty, ShiftedL2
from ..regions import Ball, Box, Ordered, Region

if TYPE_CHECKING:
    from ..objective import Objective

REGIONS = ("box", "ball", "box_scaled")
PENALTIES = ("l2", "l2-weights", "shifted", "geometric")
#: Data sets that a worker keeps, and objectives, as far as they are small.
_KEPT, _KEPT_BYTES = 8, 2**24

_datasets: OrderedDict[tuple[Any, ...], Dataset] = OrderedDict()
_objectives: OrderedDict[tuple[Any, ...], Objective] = OrderedDict()


@dataclass(frozen=True)
class Problem:
    """What a kind of work is given."""

    obj: Objective
    region: Region
    penalty: Penalty
    seed: int


def load_dataset(source: Mapping[str, Any]) -> Dataset:
    """The data set of a cell: ``name`` (of `pyhess.datasets`, or a file *.npz), ``n``, ``data_seed``, ``standardize``.

    One that was given in memory travels with the cell as ``dataset``, its rows chosen and scaled already. Of the others a few are
    kept.

    Raises
    ------
    FileError
        If the file is unreadable or unfit.
    InputError
        If the data set is unknown, or has fewer rows.
    """
    if "dataset" in source:
        given: Dataset = source["dataset"]
        return given
    names = ("name", "n", "data_seed", "standardize")
    asked: tuple[Any, ...] = tuple(source.get(name) for name in names)
    key = (*asked, _state(Path(asked[0])) if asked[0].endswith(".npz") else None)
    if key not in _datasets:
        while len(_datasets) >= _KEPT:
            _datasets.popitem(last=False)
        _datasets[key] = _load(*asked)
    return _datasets[key]


def _state(path: Path) -> tuple[int, int] | None:
    """What tells a changed file from the one that was read."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _load(name: str, n: int | None, data_seed: int | None, standardize: bool | None) -> Dataset:
    from .. import datasets

    if not name.endswith(".npz"):
        if data_seed is not None and name not in datasets.GENERATED and name in datasets.available():
            raise InputError(
                f"data_seed is {data_seed} but {name!r} is not generated; allowed with it: {', '.join(datasets.GENERATED)}."
            )
        return datasets.load(name, n=n, standardize=standardize, rng=data_seed)
    return datasets.load_file(name, n=n, standardize=standardize)


def outputs_and_loss(data: Dataset, loss: str) -> tuple[int, str]:
    """Number of outputs and loss; ``"auto"`` is what the targets suggest."""
    if not data.is_labels:
        return int(data.y.shape[1]), "squared_error" if loss == "auto" else loss
    classes = int(data.y.max()) + 1
    if loss == "auto":
        loss = "cross_entropy" if classes > 2 else "logistic"
    return (max(2, classes) if loss == "cross_entropy" else 1), loss


def make_net(described: Mapping[str, Any], data: Dataset) -> MLP:
    """The network for these data."""
    outputs, _ = outputs_and_loss(data, described["loss"])
    return MLP(
        [data.num_features, *described["hidden"], outputs],
        activation=described["activation"],
        beta=described["beta"],
        bias=described["bias"],
        parametrization=described["parametrization"],
    )


def make_region(described: Mapping[str, Any], net: MLP) -> Region:
    """The region: a box or a ball around zero or an initialisation, perhaps with the hidden units in order."""
    radius, kind = described["radius"], described["region"]
    center: Any = net.init(rng=described["seed"]) if described["center"] == "init" else 0.0
    region: Region
    if kind == "ball":
        region = Ball(center, radius)
    elif kind == "box":
        region = Box.around(center, radius) if described["center"] == "init" else Box(-radius, radius)
    else:
        region = Box.scaled(net, radius)
        region = Box.around(center, region.high) if described["center"] == "init" else region
    return Ordered(region, net) if described["ordered"] else region


def make_penalty(described: Mapping[str, Any]) -> Penalty:
    """The penalty."""
    kind = described["penalty"]
    if kind == "shifted":
        return ShiftedL2(described["shift"])
    if kind == "geometric":
        return GeometricL2()
    return L2(penalize="weights" if kind == "l2-weights" else "all")


def make_problem(described: Mapping[str, Any]) -> Problem:
    """Everything; the data must have the content that the plan saw.

    Raises
    ------
    FileError
        If the data are other ones here than where the sweep was planned.
    """
    data = load_dataset(described["data"])
    if data.content_hash != described["data"]["content_hash"]:
        raise FileError(
            f"the data {described['data']['name']!r} differ from those of the plan (SHA-256 {data.content_hash}, planned "
            f"{described['data']['content_hash']}): another version of scikit-learn, or another file on this machine."
        )
    net = make_net(described, data)
    obj = _objective(net, data, outputs_and_loss(data, described["loss"])[1])
    return Problem(obj, make_region(described, net), make_penalty(described), described["seed"])


def _objective(net: MLP, data: Dataset, loss: str) -> Objective:
    from ..objective import Objective

    key = (net, data.content_hash, loss)
    if key in _objectives:
        _objectives.move_to_end(key)
        return _objectives[key]
    made = Objective(net, data, loss=loss)
    if made.plan.total_bytes <= _KEPT_BYTES:
        while len(_objectives) >= _KEPT:
            _objectives.popitem(last=False)
        _objectives[key] = made
    return made
