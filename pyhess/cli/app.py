"""The command group."""

from __future__ import annotations

import click

from .data import data
from .doctor import doctor
from .sweep import sweep
from .threshold import threshold
from .verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pyhess")
def app() -> None:
    """How large must an L2 penalty be to make a neural network's training objective convex?

    Exit codes: 0 done, 1 cells of a sweep without a result, 2 wrong usage, 3 unreadable data or files, 4 numerical failure, 5 a
    store that is in use or of a newer version, 6 a claim that does not hold, 7 a claim that could be checked in part only, 130
    interrupted (what was found is printed or saved).
    """


app.add_command(threshold)
app.add_command(verify)
app.add_command(doctor)
app.add_command(data)
app.add_command(sweep)
