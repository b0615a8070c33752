"""What all commands share: exit codes, errors, output."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ..errors import FileError, NumericalError, PyhessError, StoreError

FAILED_CELLS, USAGE, BAD_DATA, NUMERICAL, STORE, REFUTED, INCOMPLETE, INTERRUPTED = 1, 2, 3, 4, 5, 6, 7, 130


class DataError(PyhessError):
    """A data set that cannot be read."""


@contextmanager
def exit_codes(verbose: bool) -> Iterator[None]:
    """Print an expected error as one message and leave with its exit code; unexpected ones keep their traceback."""
    try:
        yield
    except PyhessError as error:
        if verbose:
            traceback.print_exc()
        click.echo(f"pyhess: {error}", err=True)
        if isinstance(error, StoreError):
            sys.exit(STORE)
        is_data = isinstance(error, DataError | FileError)
        sys.exit(BAD_DATA if is_data else NUMERICAL if isinstance(error, NumericalError) else USAGE)
    except KeyboardInterrupt:
        click.echo("pyhess: interrupted before there was a result", err=True)
        sys.exit(INTERRUPTED)


def print_json(content: Any) -> None:
    """One document on stdout; NaN and infinities are an error rather than invalid JSON."""
    click.echo(json.dumps(content, indent=2, allow_nan=False))


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Show tracebacks of errors.")
