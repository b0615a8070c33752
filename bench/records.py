"""Rows, and the JSON files that keep them."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from .environment import ROOT

FORMAT = 1
RESULTS = Path(__file__).resolve().parent / "results"

_PACKAGES = ("numpy", "scipy", "numba", "torch", "jax", "jaxlib", "curvlinops-for-pytorch", "pyhessian", "hessian-eigenthings",
             "matfree", "primme")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One contender in one comparison.

    ``minimum``, ``median`` (None: not reached within the time allowed) and the ``samples`` behind them are in ``unit``;
    ``spread`` is (largest - smallest) / median. ``foreign`` is the share of the processors' time that other processes took
    while it was measured, ``load`` the load average. ``metrics`` are derived numbers, such as gflops or of_gemm_peak.
    """

    suite: str
    case: str
    dtype: str
    what: str
    who: str
    kind: str
    cached: bool
    threads: int
    minimum: float | None
    median: float | None
    spread: float
    repeats: int
    inner: int = 1
    unit: str = "s"
    load: float = 0.0
    foreign: float = 0.0
    samples: tuple[float, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two rows of two records comparable."""
        return self.suite, self.case, self.dtype, self.what, self.who, str(self.threads)

    @property
    def comparison(self) -> tuple[str, ...]:
        """The rows that were measured together share this."""
        return self.suite, self.case, self.dtype, self.what, str(self.threads)


@dataclass(frozen=True)
class Record:
    """One run: where and how it was made, which peers were there, and its rows."""

    command: str
    mode: str
    started: str
    seconds: float
    machine: dict[str, Any]
    packages: dict[str, str | None]
    peers: dict[str, str]
    missing: dict[str, str]
    rows: tuple[Row, ...]
    format: int = FORMAT


def save(record: Record, path: Path) -> Path:
    """Write a record as JSON; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(record), indent=1, allow_nan=False) + "\n")
    return path


def load(path: str | os.PathLike[str]) -> Record:
    """Read a record.

    Raises
    ------
    ValueError
        If the file is not a record, or one of another format.
    """
    try:
        content = json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a benchmark record: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise ValueError(f"{path} has record format {found!r}; this program reads format {FORMAT}.")
    names = {item.name for item in fields(Row)}
    rows = tuple(
        Row(**{name: tuple(value) if name == "samples" else value for name, value in row.items() if name in names})
        for row in content.pop("rows")
    )
    return Record(**content, rows=rows)


def file_name(suites: list[str]) -> str:
    """Date, commit and suites: sorts by time, and says what is inside."""
    moment = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
    return f"{moment}-{(commit() or 'unknown')[:10].replace('+', 'm')}-{'-'.join(suites)}.json"


def commit() -> str | None:
    """The commit of the source tree, with a + if tracked files of the package have been changed; None outside git."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=9", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "pyhess", "core_cpp"], cwd=ROOT, check=False)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.returncode else "")


def machine() -> dict[str, Any]:
    """Processor, instruction set, BLAS, compiler, threading layer, commit and which copy of the package was measured."""
    import pyhess as ph

    config = ph.show_config()
    return {
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "isa": config["isa"],
        "compiler": config["compiler"],
        "blas": config["blas"],
        "threading_layer": config["threading_layer"],
        "commit": commit(),
        "package": "source tree" if Path(ph.__file__).resolve().is_relative_to(ROOT / "pyhess") else "installed",
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def packages() -> dict[str, str | None]:
    """Versions of everything that takes part; None where absent."""
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    about = {name.strip(): value.strip() for name, value in facts.items()}
    return (
        f"{about.get('model name', platform.machine())} (family {about.get('cpu family', '?')}, model {about.get('model', '?')})"
    )


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


class ForeignShare:
    """Share of the processors' time that other processes take between construction and ``read``; 0 where unknown."""

    def __init__(self) -> None:
        self._before = self._times()

    def read(self) -> float:
        """The share so far."""
        after = self._times()
        if after is None or self._before is None or after[1] <= self._before[1]:
            return 0.0
        busy, total, own = (now - then for now, then in zip(after, self._before, strict=True))
        return max(0.0, min(1.0, (busy - own) / total))

    @staticmethod
    def _times() -> tuple[float, float, float] | None:
        try:
            ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        tick = os.sysconf("SC_CLK_TCK")
        own = os.times()
        idle = ticks[3] + ticks[4]
        return (sum(ticks) - idle) / tick, sum(ticks) / tick, own.user + own.system
