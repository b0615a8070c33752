"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import sys
import time
from pathlib import Path

from . import environment
from .suites import NAMES

_EPILOG = """
python -m bench                       every suite, some twenty minutes
python -m bench products --short      one suite, few repeats
python -m bench --smoke               check every answer on small networks, time nothing
python -m bench compare A.json B.json what became slower from A to B (exit code 1 if anything did)
python -m bench show A.json           a record as a table
python -m bench peers                 which peers are there, and why others are not
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks; the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    environment.prefer_installed_package()
    commands = {"compare": _compare, "show": _show, "peers": _peers}
    if words and words[0] in commands:
        return commands[words[0]](words[1:])
    return _run(words)


def _run(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "python -m bench", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"any of {', '.join(NAMES)}; all by default")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--short", action="store_const", const="short", dest="mode", help="fewer repeats and smaller ranges")
    mode.add_argument("--smoke", action="store_const", const="smoke", dest="mode", help="check answers on small networks only")
    parser.add_argument("--threads", type=int, default=environment.available_processors(), help="threads of every contender")
    parser.add_argument("--repeats", type=int, help="turns of every contender (default 9, short 7)")
    parser.add_argument("--dtype", action="append", choices=("float64", "float32"), help="default both")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains this")
    parser.add_argument("--peers", metavar="A,B", help="only these peers, by the names that `python -m bench peers` lists")
    parser.add_argument("--out", type=Path, help="file of the record (default in bench/results)")
    parser.add_argument("--plots", action="store_true", help="figures beside the record (needs matplotlib)")
    given = parser.parse_args(words)
    unknown = sorted(set(given.suites) - set(NAMES))
    if unknown:
        parser.error(f"unknown suite {', '.join(unknown)}; allowed: {', '.join(NAMES)}")
    if given.repeats is not None and given.repeats < 1:
        parser.error("--repeats must be at least 1")
    try:
        environment.use_threads(given.threads)
    except ValueError as error:
        parser.error(str(error))

    # Only now: libraries read their thread counts when they are imported.
    from . import peers, records, runner, table, timing

    mode_name = given.mode or "full"
    suites = given.suites or list(NAMES)
    defaults = {"full": timing.Protocol(), "short": timing.Protocol(7, 0.01), "smoke": timing.Protocol(1, 0.0)}[mode_name]
    protocol = timing.Protocol(given.repeats or defaults.repeats, defaults.min_seconds)
    names = peers.MODULES if given.peers is None else tuple(filter(None, given.peers.split(",")))
    strange = sorted(set(names) - set(peers.MODULES))
    if strange:
        parser.error(f"unknown peer {', '.join(strange)}; allowed: {', '.join(peers.MODULES)}")
    dtypes = tuple(given.dtype or ("float64", "float32"))
    plan = runner.Plan(mode_name, given.threads, peers.load(names), protocol, dtypes, given.only)
    for name, reason in plan.peers.missing.items():
        plan.tell(f"peer {name} is missing: {reason}")
    started, began = dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), time.perf_counter()
    path = given.out or records.RESULTS / records.file_name(suites)
    machine, packages = records.machine(), records.packages()

    def keep(rows: list[records.Row]) -> records.Record:
        """Write down everything measured so far: a run that is stopped loses one experiment."""
        absent = {**plan.peers.missing, **{name: f"failed: {reason}" for name, reason in plan.failed.items()}}
        record = records.Record(
            " ".join(words), mode_name, started, time.perf_counter() - began, machine, packages, plan.peers.versions(), absent,
            tuple(rows),
        )  # fmt: skip
        records.save(record, path)
        return record

    plan.keep = keep
    rows: list[records.Row] = []
    for suite in suites:
        plan.rows = list(rows)
        rows += importlib.import_module(f".suites.{suite}", __package__).rows(plan)
    for name, reason in plan.failed.items():
        plan.tell(f"peer {name} failed: {reason}")
    if plan.smoke:
        print(f"All answers agree ({time.perf_counter() - began:.0f} s).")
        return 0
    record = keep(rows)
    print("\n" + table.show(record) + f"\n\nSaved {path}")
    if given.plots:
        _draw(record, path)
    return 0


def _draw(record: object, path: Path) -> None:
    from . import plots

    try:
        for figure in plots.draw(record, path.parent, path.stem):  # type: ignore[arg-type]
            print(f"Saved {figure}")
    except ImportError:
        print("No figures: matplotlib is not installed.")


def _compare(words: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m bench compare", description="What became slower from one record to another.")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.10, help="slower by this fraction is a regression (default 0.1)")
    given = parser.parse_args(words)
    from . import compare

    before, after = (_load(parser, path) for path in (given.before, given.after))
    found = compare.compare(before, after, given.tolerance)
    print(compare.show(found))
    return 1 if found.regressions else 0


def _show(words: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m bench show", description="A record as a table.")
    parser.add_argument("record", type=Path)
    parser.add_argument("--plots", action="store_true", help="figures beside the record (needs matplotlib)")
    given = parser.parse_args(words)
    from . import table

    record = _load(parser, given.record)
    print(table.show(record))
    if given.plots:
        _draw(record, given.record)
    return 0


def _load(parser: argparse.ArgumentParser, path: Path) -> object:
    from . import records

    try:
        return records.load(path)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _peers(words: list[str]) -> int:
    argparse.ArgumentParser("python -m bench peers", description="Which peers are there.").parse_args(words)
    from . import peers

    found = peers.load()
    for name, version in found.versions().items():
        print(f"{name} {version}")
    for name, reason in found.missing.items():
        print(f"{name} is missing: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
