"""``pyhess verify``: check what a file claims."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import click

from .._files import read_arrays
from ..errors import FileError
from .common import INCOMPLETE, REFUTED, exit_codes, json_option, print_json, verbose_option

_EXIT = {"verified": 0, "refuted": REFUTED, "incomplete": INCOMPLETE}
_VERDICTS = {
    "verified": "verified: everything the file claims was computed anew and holds",
    "refuted": "refuted: the claim does not hold as it stands in the file",
    "incomplete": "incomplete: nothing speaks against the claim, but a part of it was not re-checked",
}
_WIDTH, _NAME, _OUTCOME = 120, 13, 16


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--time-limit", type=click.FloatRange(min=0.0, min_open=True), default=60.0, show_default=True,
    help="Seconds for the slow check of a certificate.",
)  # fmt: skip
@json_option
@verbose_option
def verify(file: str, time_limit: float, as_json: bool, verbose: bool) -> None:
    """Check the claim of a result FILE.npz (`pyhess threshold --save-witness` or `--save-certificate`) from the file alone.

    Of a witness, the point must lie in the region, the direction must have length one, the curvature is computed by a plain
    reference with rounding errors accounted for, and a segment is looked for on which convexity fails. Of a certificate, the
    bound is proved again by code that shares nothing with the code that found it, and attacked by sampling and a search. For
    FILE.json, the description that lies beside an archive, the archive is checked.

    Exit codes: 0 everything holds, 6 a part of the claim does not hold, 7 a part could not be checked, 3 unreadable file.
    """
    with exit_codes(verbose):
        from ..threshold import verify_file

        found = verify_file(_archive(file), time_limit=time_limit)
        if as_json:
            print_json(found.to_dict())
        else:
            click.echo(f"{found.path}: {found.kind.replace('_', ' ')}, written by pyhess {found.pyhess_version}")
            _line("claim", "", found.claim)
            for check in found.checks:
                _line(check.name, check.outcome.value, check.detail)
            click.echo(_VERDICTS[found.verdict])
    sys.exit(_EXIT[found.verdict])


def _archive(file: str) -> Path:
    """The archive of a description for people, where it lies beside it and holds the same text."""
    path = Path(file)
    archive = path.with_suffix(".npz")
    if path.suffix != ".json" or not archive.is_file():
        return path
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path} cannot be read: {error}.") from error
    stored = read_arrays(archive, ("description",)).get("description")
    if stored is None or str(stored) != text:
        raise FileError(f"{path} is not the description that {archive} holds: one of them was altered. Pass the archive.")
    return archive


def _line(name: str, outcome: str, detail: str) -> None:
    head = f"  {name:<{_NAME}}{outcome:<{_OUTCOME if outcome else 0}}"
    indent = " " * len(head)
    click.echo(textwrap.fill(detail, _WIDTH, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False))
