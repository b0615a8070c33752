"""``pyhess verify``: check what a file claims."""

from __future__ import annotations

import sys
import textwrap

import click

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
@json_option
@verbose_option
def verify(file: str, as_json: bool, verbose: bool) -> None:
    """Check the claim of a result FILE.npz (`pyhess threshold --save-witness`) from the file alone.

    The point must lie in the region, the direction must have length one, the curvature is computed by a plain reference with
    rounding errors accounted for, and a segment is looked for on which convexity fails.

    Exit codes: 0 everything holds, 6 a part of the claim does not hold, 7 a part could not be checked, 3 unreadable file.
    """
    with exit_codes(verbose):
        from ..threshold import verify_file

        found = verify_file(file)
        if as_json:
            print_json(found.to_dict())
        else:
            click.echo(f"{found.path}: {found.kind.replace('_', ' ')}, written by pyhess {found.pyhess_version}")
            _line("claim", "", found.claim)
            for check in found.checks:
                _line(check.name, check.outcome.value, check.detail)
            click.echo(_VERDICTS[found.verdict])
    sys.exit(_EXIT[found.verdict])


def _line(name: str, outcome: str, detail: str) -> None:
    head = f"  {name:<{_NAME}}{outcome:<{_OUTCOME if outcome else 0}}"
    indent = " " * len(head)
    click.echo(textwrap.fill(detail, _WIDTH, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False))
