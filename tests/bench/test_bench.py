"""The benchmarks' own arithmetic: timing, agreement of answers, records, verdicts, regressions."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import compare, environment, experiment, records, runner, table, targets, timing

MACHINE = records.machine()
CASE = "784-1024-1024-10 tanh CE N=1024"


def row(who: str, seconds: float | None, kind: str = "pyhess", **given: Any) -> records.Row:
    values: dict[str, Any] = {"cached": True, "suite": "products", "case": CASE, "metrics": {}} | given
    return records.Row(
        values["suite"], values["case"], "float64", "product", who, kind, values["cached"], 2, seconds, seconds, 0.02, 9,
        metrics=values["metrics"],
    )  # fmt: skip


def record(*rows: records.Row) -> records.Record:
    return records.Record("products", "full", "2024-01-01T00:00:00+00:00", 1.0, MACHINE, records.packages(), {}, {}, tuple(rows))


class Clock:
    """Time that passes only in calls."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def call(self, name: str, *seconds: float) -> Any:
        times = iter(seconds)
        last = seconds[-1]

        def run() -> None:
            self.calls.append(name)
            self.now += next(times, last)

        return run


def test_contenders_take_turns_and_first_calls_are_not_timed() -> None:
    clock = Clock()
    calls = {"a": clock.call("a", 0.75, 0.75, 0.25), "b": clock.call("b", 0.125)}
    protocol = timing.Protocol(3, 0.05, lambda: clock.now, lambda seconds: None)
    found = timing.interleave(calls, protocol)
    assert found["a"].samples == (0.25, 0.25, 0.25) and found["b"].minimum == 0.125
    assert found["a"].spread == 0.0
    turns = [name for i, name in enumerate(clock.calls) if i == 0 or clock.calls[i - 1] != name]
    assert turns == ["a", "b"] * 4  # once to warm up, then three turns


def test_very_long_calls_take_few_turns_and_are_not_repeated_untimed() -> None:
    clock = Clock()
    calls = {"a": clock.call("a", 32.0, 16.0), "b": clock.call("b", 2.0)}
    found = timing.interleave(calls, timing.Protocol(7, 0.5, lambda: clock.now, lambda seconds: None))
    assert found["a"].samples == (16.0,) * 3 and found["b"].samples == (2.0,) * 3
    assert clock.calls == ["a", "b"] * 4


def test_disagreement_is_an_error_before_anything_is_timed() -> None:
    def contender(who: str, answer: float) -> experiment.Contender:
        return experiment.Contender(who, "peer", lambda: answer, lambda x: np.array([x, 1.0]))

    agree = experiment.Experiment("s", "c", "float64", "w", (contender("one", 2.0), contender("two", 2.0 + 1e-13)), 1e-10)
    assert experiment.check(agree) == 2
    differ = replace(agree, contenders=(contender("one", 2.0), contender("two", 2.001)))
    with pytest.raises(AssertionError, match="two"):
        experiment.check(differ)


def test_records_survive_the_disk_and_others_are_refused(tmp_path: Path) -> None:
    kept = record(row("pyhess", 0.1, metrics={"gflops": 3.5}), row("peer", None, "peer"))
    path = records.save(kept, tmp_path / "folder" / "a.json")
    assert records.load(path) == kept
    path.write_text('{"format": 999}')
    with pytest.raises(ValueError, match="format"):
        records.load(path)


def test_regressions_are_judged_in_units_of_the_gemm_peak() -> None:
    before = record(row("pyhess", 1.0), row("gemm peak", 0.5, "ruler"))
    slow_machine = record(row("pyhess", 2.0), row("gemm peak", 1.0, "ruler"))
    assert not compare.compare(before, slow_machine).regressions
    slower = record(row("pyhess", 1.5), row("gemm peak", 0.5, "ruler"))
    assert [change.ratio for change in compare.compare(before, slower).regressions] == [1.5]
    assert "SLOWER" in compare.show(compare.compare(before, slower))
    gone = compare.compare(before, record(row("gemm peak", 0.5, "ruler")))
    assert [lost.who for lost in gone.only_before] == ["pyhess"]
    assert "Only in the first record" in compare.show(gone)


def test_targets_are_judged_by_the_best_peer() -> None:
    rows = (
        row("pyhess", 1.0, metrics={"of_shape_peak": 0.95, "of_gemm_peak": 0.7}),
        row("jax.linearize", 1.2, "peer"),
        row("torch retained graph", 1.05, "peer"),
        row("curvlinops", 2.0, "peer", cached=False),
    )
    found = {verdict.target: (verdict.measured, verdict.outcome) for verdict in targets.verdicts(rows)}
    assert found["of the shape peak"] == ("0.95", "met")
    assert found["of the gemm peak"] == ("0.7", "MISSED")
    assert found["best peer that keeps its state"] == ("1.05", "MISSED")
    assert found["curvlinops and jvp-of-grad"] == ("2", "met")
    assert "MISSED" in table.show(record(*rows))


def test_everything_measured_is_kept_at_once() -> None:
    seen: list[int] = []
    plan = runner.Plan("full", 1, None, timing.Protocol())  # type: ignore[arg-type]
    plan.keep = lambda rows: seen.append(len(rows))
    runner.note(plan, [row("pyhess", 1.0)])
    runner.note(plan, [row("a", 1.0), row("b", 1.0)])
    assert seen == [1, 3]


def test_a_source_tree_without_core_goes_to_the_end_of_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not off it: workers of a sweep import their kind of work from there."""
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), "elsewhere"])
    environment.prefer_installed_package()
    assert sys.path == ["elsewhere", str(tmp_path)]
    monkeypatch.setattr(sys, "path", [str(tmp_path), "elsewhere"])
    (tmp_path / "pyhess").mkdir()
    (tmp_path / "pyhess" / "_core.so").touch()
    environment.prefer_installed_package()
    assert sys.path == [str(tmp_path), "elsewhere"]
