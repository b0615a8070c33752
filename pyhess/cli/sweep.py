"""``pyhess sweep``: many thresholds, in one store that survives every crash."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import FAILED_CELLS, exit_codes, json_option, print_json, verbose_option

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINES = ("processes", "in-process", "loky", "dask", "mpi", "executorlib")


@click.group()
def sweep() -> None:
    """Compute a threshold for every combination of widths, depths, radii, data, seeds and so on.

    Exit codes of `run`: 0 every cell is done; 1 some have failed or crashed; 2 a specification or option that does not do; 3
    files that cannot be read or written; 5 a store that is in use, of a newer pyhess, or none; 130, 138, 143 ended by SIGINT,
    SIGUSR1, SIGTERM: what was finished is saved, the same command goes on.
    """


@sweep.command()
@click.argument("path", required=False, type=click.Path(dir_okay=False))
@verbose_option
def init(path: str | None, verbose: bool) -> None:
    """Write a commented specification to PATH, or to stdout."""
    with exit_codes(verbose):
        from ..errors import FileError
        from ..sweep.spec import EXAMPLE

        if path is None:
            click.echo(EXAMPLE, nl=False)
            return
        try:
            with Path(path).open("x", encoding="utf-8") as file:
                file.write(EXAMPLE)
        except FileExistsError:
            raise FileError(f"{path} exists already; it is left as it is. Choose another name.") from None
        except OSError as error:
            raise FileError(f"{path} cannot be written: {error.strerror}.") from error
        click.echo(f"written to {path}; next: pyhess sweep plan {path}", err=True)


def _shard(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, int]:
    index, slash, count = value.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise click.BadParameter(f"{value!r} is no part of a sweep; allowed are I/N with 1 <= I <= N, for example 2/8.")
    return int(index), int(count)


spec_argument = click.argument("spec", type=click.Path(dir_okay=False))
shard_option = click.option("--shard", default="1/1", callback=_shard, metavar="I/N", help="Only part I of N, from 1.")


@sweep.command()
@spec_argument
@click.option("--store", type=click.Path(dir_okay=False), help="Leave out what this store has already.")
@shard_option
@json_option
@verbose_option
def plan(spec: str, store: str | None, shard: tuple[int, int], as_json: bool, verbose: bool) -> None:
    """Say what a specification amounts to: cells, duplicates, predicted hours and memory."""
    with exit_codes(verbose):
        from ..memory import shown_bytes
        from ..sweep import Store
        from ..sweep.plan import make_plan, summary
        from ..sweep.spec import SweepSpec

        planned = make_plan(SweepSpec.load(spec))
        planned = planned if shard == (1, 1) else planned.shard(*shard)
        done: list[str] = []
        if store is not None and Path(store).exists():
            with Store.open(store, readonly=True) as opened:
                done = [key for key, (status, _, _) in opened.states().items() if status == "done"]
        content = summary(planned, done)
        if as_json:
            print_json(content)
            return
        rows = [
            ("sweep", content["name"]),
            ("kind", content["kind"]),
            ("cells", f"{content['cells']} ({content['duplicates']} duplicates left out, {content['done']} done)"),
            ("chains", f"{content['chains']}: cells of a chain wait for each other"),
            ("axes", ", ".join(f"{name} {count}" for name, count in content["axes"].items() if count > 1) or "none varies"),
            ("predicted", f"{content['core_hours']:.3g} core hours"),
            ("longest cell", f"{content['longest_cell_seconds']:.3g} s"),
            ("memory", f"{shown_bytes(content['bytes_per_cell'])} for the largest cell, beside 0.2 GiB for every worker"),
        ]
        for name, text in rows:
            click.echo(f"{name:<14} {text}")


@sweep.command()
@spec_argument
@click.option("--store", type=click.Path(dir_okay=False), help="The store; by default the specification's name with .db.")
@click.option("--engine", type=click.Choice(ENGINES), default="processes", show_default=True, help="What runs the cells.")
@click.option("--workers", type=click.IntRange(min=1), help="How many; by default one per core.")
@click.option("--scheduler", metavar="ADDRESS", help="Of dask: tcp://host:port; by default a cluster on this machine.")
@click.option("--threads-per-cell", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--retries", type=click.IntRange(min=0), default=2, show_default=True, help="For a cell that ended its worker.")
@click.option("--retry-failed", is_flag=True, help="Also do cells again that ended in an error.")
@shard_option
@click.option("--grace", type=float, default=30.0, show_default=True, help="Seconds for running cells after a signal to stop.")
@click.option("--witnesses/--no-witnesses", default=True, show_default=True, help="Keep the points and directions found.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@json_option
@verbose_option
def run(
    spec: str, store: str | None, engine: str, workers: int | None, scheduler: str | None, threads_per_cell: int, retries: int,
    retry_failed: bool, shard: tuple[int, int], grace: float, witnesses: bool, quiet: bool, as_json: bool, verbose: bool,
) -> None:  # fmt: skip
    """Compute the cells that the store lacks; the same command goes on after any interruption."""
    if scheduler is not None and engine != "dask":
        raise click.UsageError("--scheduler belongs to --engine dask.")
    with exit_codes(verbose):
        import pyhess as ph

        from ..sweep.status import status_of
        from .engines import executor_of
        from .sweep_progress import SweepReporter

        path = store if store is not None else _default_store(spec, shard)
        with executor_of(engine, workers, scheduler) as executor, SweepReporter(quiet) as progress:
            done = ph.sweep(
                spec, path, executor, workers=workers, threads_per_cell=threads_per_cell, retries=retries,
                retry_failed=retry_failed, shard=shard, grace=grace, witnesses=witnesses, progress=progress,
            )  # fmt: skip
        content = status_of(path)
        if as_json:
            print_json(content)
        else:
            _print_status(content)
    if done.stopped_by is not None:
        click.echo("pyhess: stopped; what was finished is saved, the same command goes on", err=True)
        sys.exit(128 + done.stopped_by)
    if done.counts["failed"] or done.counts["crashed"]:
        sys.exit(FAILED_CELLS)


def _default_store(spec: str, shard: tuple[int, int]) -> str:
    from ..sweep._filesystem import is_network
    from ..sweep.journal import SUFFIX

    if shard == (1, 1):
        return str(Path(spec).with_suffix(".db"))
    part = Path(spec).with_suffix(f".{shard[0]}-{shard[1]}.db")
    return str(part.with_suffix(SUFFIX) if is_network(part) and not part.exists() else part)


store_argument = click.argument("store", type=click.Path(dir_okay=False))


@sweep.command()
@store_argument
@json_option
@verbose_option
def status(store: str, as_json: bool, verbose: bool) -> None:
    """Say how far a sweep is; works while it runs."""
    with exit_codes(verbose):
        from ..sweep.status import status_of

        content = status_of(store)
        if as_json:
            print_json(content)
        else:
            _print_status(content)


def _print_status(content: dict[str, Any]) -> None:
    for name, text in _status_rows(content):
        click.echo(f"{name:<14} {text}")


def _status_rows(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from .sweep_progress import axes_text, outlook_text

    counts = content["counts"]
    yield "sweep", f"{content['name']} ({content['store']}): {content['state'] or 'not begun'}"
    yield "cells", f"{content['cells']}: " + ", ".join(f"{counts[name]} {name}" for name in counts)
    used = content["core_seconds_used"] / 3600.0
    yield "work", f"{100.0 * content['fraction']:.1f} % by predicted cost, {used:.3g} core hours used"
    if content["time_limited"]:
        yield "time limit", f"ended {content['time_limited']} cells"
    live = content["live"]
    if live is not None:
        yield "running", f"{live['workers']} workers ({live['engine']}), {outlook_text(live)}"
        for one in live["running"]:
            more = f" and {one['cells'] - 1} more" if one["cells"] > 1 else ""
            yield "", f"{one['seconds']:8.1f} s  {axes_text(one['axes'])}{more}"
    if content["slowest"] is not None:
        yield "slowest", f"{content['slowest']['seconds']:.3g} s: {axes_text(content['slowest']['axes'])}"
    for trouble in content["troubles"]:
        cell = f"{axes_text(trouble['axes'])} ({trouble['key'][:12]})"
        yield trouble["status"], f"{cell}: {trouble['error_type']}: {trouble['error']}"
    hidden = counts["failed"] + counts["crashed"] - len(content["troubles"])
    if hidden > 0:
        yield "", f"and {hidden} more without a result"


@sweep.command()
@store_argument
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="Ends in .csv or .parquet.")
@verbose_option
def export(store: str, output: str, verbose: bool) -> None:
    """Write the cells as a table, one row each."""
    suffix = Path(output).suffix
    if suffix not in (".csv", ".parquet"):
        raise click.UsageError(f"{output!r} is no table; allowed are names that end in .csv or .parquet.")
    with exit_codes(verbose):
        from ..sweep.export import Export

        table = Export(store)
        written = table.to_csv(output) if suffix == ".csv" else table.to_parquet(output)
        click.echo(f"written to {written}", err=True)


@sweep.command()
@click.argument("target", type=click.Path(dir_okay=False))
@click.argument("sources", nargs=-1, required=True, type=click.Path(dir_okay=False))
@json_option
@verbose_option
def merge(target: str, sources: tuple[str, ...], as_json: bool, verbose: bool) -> None:
    """Join stores, for example those of all shards, into TARGET."""
    with exit_codes(verbose):
        from ..sweep.merge import merge as join

        merged = join(target, sources)
        if as_json:
            print_json({"added": merged.added, "known": merged.known, "conflicts": list(merged.conflicts)})
        else:
            click.echo(f"{merged.added} cells added to {target}, {merged.known} known already")
        for key in merged.conflicts:
            click.echo(f"pyhess: the stores have different answers of cell {key}; that of {target} stays", err=True)
    if merged.conflicts:
        sys.exit(FAILED_CELLS)


@sweep.command()
@store_argument
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The HTML file.")
@click.option("--figures", type=click.Path(file_okay=False), metavar="DIR", help="Also write the figures, as SVG and PDF.")
@verbose_option
def report(store: str, output: str, figures: str | None, verbose: bool) -> None:
    """Write one HTML file with figures, fits, audit, failures and the whole table; it needs no network."""
    with exit_codes(verbose):
        import pyhess as ph

        written = ph.report(store, output, figures=figures)
        click.echo(f"written to {written}" + ("" if figures is None else f", figures to {figures}"), err=True)
