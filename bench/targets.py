"""What pyhess promises on two cores, and whether a record shows it.

A promise is judged only by rows of its own comparison, measured in turn. Ratios are of the smallest times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .records import Row

Rows = Sequence[Row]


@dataclass(frozen=True)
class Verdict:
    """A promise beside what was measured; ``outcome`` is "met" or "MISSED"."""

    target: str
    case: str
    dtype: str
    wanted: str
    measured: str
    outcome: str


@dataclass(frozen=True)
class Target:
    """``measure(rows of one comparison)`` gives a number or None, which must be at least (or at most) ``bound``."""

    what: str
    applies: Callable[[Row], bool]
    measure: Callable[[Rows], float | None]
    bound: float
    at_least: bool = True

    def judge(self, rows: Rows) -> Verdict | None:
        """The verdict for one comparison; None if it is about something else or cannot be told."""
        if not self.applies(rows[0]):
            return None
        value = self.measure(rows)
        if value is None:
            return None
        met = value >= self.bound if self.at_least else value <= self.bound
        return Verdict(
            self.what, rows[0].case, rows[0].dtype, f"{'>=' if self.at_least else '<='} {self.bound:g}", f"{value:.3g}",
            "met" if met else "MISSED",
        )  # fmt: skip


def verdicts(rows: Iterable[Row]) -> list[Verdict]:
    """Every target that the rows can tell about."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.comparison, []).append(row)
    found = (target.judge(group) for target in TARGETS for group in groups.values())
    return [verdict for verdict in found if verdict is not None]


def _smallest(rows: Rows, wanted: Callable[[Row], bool]) -> float | None:
    return min((row.minimum for row in rows if row.minimum is not None and wanted(row)), default=None)


def _ours(rows: Rows) -> float | None:
    return _smallest(rows, lambda row: row.who == "pyhess")


def _ratio(wanted: Callable[[Row], bool]) -> Callable[[Rows], float | None]:
    """How many times longer than ours the best of the wanted rows takes."""

    def measure(rows: Rows) -> float | None:
        other, mine = _smallest(rows, wanted), _ours(rows)
        return None if other is None or not mine else other / mine

    return measure


def _fraction(key: str) -> Callable[[Rows], float | None]:
    return lambda rows: next((row.metrics.get(key) for row in rows if row.who == "pyhess"), None)


def _most(key: str) -> Callable[[Rows], float | None]:
    return lambda rows: max((row.metrics[key] for row in rows if key in row.metrics), default=None)


def _between(over: str, under: str) -> Callable[[Rows], float | None]:
    """Time of one row of ours by another's."""

    def measure(rows: Rows) -> float | None:
        a, b = (_smallest(rows, lambda row, who=who: row.who == who) for who in (over, under))
        return None if a is None or not b else a / b

    return measure


def _case(suite: str, *starts: str) -> Callable[[Row], bool]:
    return lambda row: row.suite == suite and any(row.case.startswith(start + " ") for start in starts)


def _peer(row: Row) -> bool:
    return row.kind == "peer"


def _cached_peer(row: Row) -> bool:
    return row.kind == "peer" and row.cached


def _named(*parts: str) -> Callable[[Row], bool]:
    return lambda row: row.kind == "peer" and any(part in row.who for part in parts)


def _psi_ratio(rows: Rows) -> float | None:
    """Median times; a peer that did not get there within its time took at least as long as it was given."""
    mine = next((row.median for row in rows if row.who == "pyhess"), None)
    others = [row.median if row.median is not None else float(row.metrics["searched"]) for row in rows if "L-BFGS-B" in row.who]
    return min(others) / mine if others and mine else None


_WIDE, _MIDDLE, _NARROW = "784-1024-1024-10", "64-256-256-10", ("64-64-10", "64-16-10")

TARGETS = (
    Target("of the shape peak", _case("products", _WIDE), _fraction("of_shape_peak"), 0.90),
    Target("of the gemm peak", _case("products", _WIDE), _fraction("of_gemm_peak"), 0.75),
    Target("best peer that keeps its state", _case("products", _WIDE), _ratio(_cached_peer), 1.1),
    Target("curvlinops and jvp-of-grad", _case("products", _WIDE), _ratio(_named("curvlinops", "jvp-of-grad")), 1.8),
    Target("of the shape peak", _case("products", _MIDDLE), _fraction("of_shape_peak"), 0.85),
    Target("best peer", _case("products", _MIDDLE), _ratio(_peer), 1.5),
    Target("best peer", _case("products", *_NARROW), _ratio(_peer), 4.0),
    Target("best batched peer", _case("batch", "8-8-1", "64-16-10"), _ratio(_peer), 4.0),
    Target("best batched peer", _case("batch", "64-64-10"), _ratio(_peer), 6.0),
    Target("best batched peer", _case("batch", "64-128-128-10"), _ratio(_peer), 2.5),
    Target(
        "scipy eigsh over the best peer's product",
        lambda row: row.suite == "eigs" and row.what == "eigval_min", _ratio(_named("scipy eigsh")), 5.0,
    ),
    Target(
        "seconds for 90 Lanczos steps", lambda row: row.suite == "eigs" and row.what == "90 Lanczos steps", _ours, 60.0,
        at_least=False,
    ),
    Target(
        "linearize and product, by gradient", lambda row: row.suite == "products",
        _between("pyhess, from scratch", "pyhess gradient"), 2.5, at_least=False,
    ),
    Target(
        "curvature jet, by product, each with its linearization", lambda row: row.suite == "products",
        _between("pyhess curvature jet", "pyhess, from scratch"), 2.0, at_least=False,
    ),
    Target(
        "time beside cells of 100 ms, by theirs", lambda row: row.suite == "sweeps" and row.case == "pauses",
        _most("overhead"), 0.05, at_least=False,
    ),
    Target(
        "ms for a tiny search, of 10,000 in five minutes", lambda row: row.suite == "sweeps" and row.case == "tiny searches",
        lambda rows: None if (seconds := _ours(rows)) is None else 1e3 * seconds, 30.0, at_least=False,
    ),
    Target("joint L-BFGS-B in JAX or torch, to 99 % of psi", lambda row: row.suite == "threshold", _psi_ratio, 20.0),
)  # fmt: skip
