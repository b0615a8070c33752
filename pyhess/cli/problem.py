"""Region and penalty from the options of a command."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from ..errors import PyhessError
from .common import DataError
from .files import load_vector

if TYPE_CHECKING:
    from ..model import MLP
    from ..penalties import Penalty
    from ..regions import Region

PENALTIES = ("l2", "l2-weights", "shifted", "weighted", "geometric")


def check_region_options(box: float | None, ball: float | None, box_scaled: float | None) -> None:
    """Refuse none and more than one region, before anything is read."""
    if sum(size is not None for size in (box, ball, box_scaled)) != 1:
        raise click.UsageError("give exactly one region: --box R, --ball R or --box-scaled C.")
    for option, size in (("--box", box), ("--ball", ball), ("--box-scaled", box_scaled)):
        if size is not None and not 0.0 < size < math.inf:
            raise click.UsageError(f"{option} is {size}; allowed are finite numbers > 0.")


def check_penalty_options(penalty: str, shift: float | None, weights: str | None) -> None:
    """Refuse penalties without what they need, and what belongs to another penalty."""
    for needed_by, option, given in (("shifted", "--shift EPS", shift), ("weighted", "--penalty-weights FILE", weights)):
        if penalty == needed_by and given is None:
            raise click.UsageError(f"--penalty {penalty} needs {option}.")
        if penalty != needed_by and given is not None:
            raise click.UsageError(f"{option} belongs to --penalty {needed_by}; it has no meaning for --penalty {penalty}.")


def make_region(
    net: MLP, box: float | None, ball: float | None, box_scaled: float | None, around: str | None, ordered: bool
) -> Region:
    """Return the one region that the options ask for, around the point in a file if there is one."""
    from ..regions import Ball, Box, Ordered

    center = None if around is None else load_vector(around, net.num_params, "theta", "--around")
    region: Region
    if ball is not None:
        region = Ball(0.0 if center is None else center, ball)
    elif box_scaled is not None:
        region = Box.scaled(net, box_scaled)
        region = region if center is None else Box.around(center, region.high)
    else:
        assert box is not None
        region = Box(-box, box) if center is None else Box.around(center, box)
    return Ordered(region, net) if ordered else region


def make_penalty(net: MLP, penalty: str, shift: float | None, weights: str | None) -> Penalty:
    """Return the penalty that the options ask for."""
    from ..penalties import L2, GeometricL2, ShiftedL2, WeightedL2

    if penalty == "weighted":
        assert weights is not None
        values = load_vector(weights, net.num_params, "w", "--penalty-weights")
        try:
            return WeightedL2(values)
        except PyhessError as error:
            raise DataError(f"{weights}: {error}") from error
    if penalty == "shifted":
        assert shift is not None
        return ShiftedL2(shift)
    choices: dict[str, Any] = {"l2": L2, "l2-weights": lambda: L2(penalize="weights"), "geometric": GeometricL2}
    made: Penalty = choices[penalty]()
    return made


def check_destination(path: str | None) -> None:
    """Refuse a file that could not be written, before the work is done.

    Raises
    ------
    FileError
        If the name or the folder does not do.
    """
    from .._files import result_path

    if path is not None:
        result_path(path)


def save_proof(result: Any, path: str) -> None:
    """Write what proves the lower end: the concave kink, where there is one, otherwise the witness."""
    proof = result.witness if result.kink is None else result.kink
    if proof is None:
        click.echo(f"pyhess: nothing was written to {path}: the run was stopped before there was a witness", err=True)
        return
    written = proof.save(path)
    what = "witness" if result.kink is None else "kink"
    click.echo(f"{what} written to {written}, its description to {written.with_suffix('.json')}", err=True)


def save_upper(result: Any, path: str) -> None:
    """Write what proves the upper end."""
    if result.certificate is None or result.certificate.method == "none":
        click.echo(f"pyhess: nothing was written to {path}: there is no certificate", err=True)
        return
    written = result.certificate.save(path)
    click.echo(f"certificate written to {written}, its description to {written.with_suffix('.json')}", err=True)
