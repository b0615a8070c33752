"""Carry experiments out: check the answers, time, derive the numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .experiment import Contender, Experiment, check
from .peers import Peers
from .records import ForeignShare, Row
from .timing import Protocol, Timing, interleave


@dataclass
class Plan:
    """How a suite is to be run.

    ``mode``: "full"; "short", with fewer repeats; "smoke", on small networks with checks of the answers alone.
    ``failed`` collects peers that were there but could not serve a case, with the reason; ``rows`` what has been measured
    so far, which ``keep`` is given after every experiment.
    """

    mode: str
    threads: int
    peers: Peers
    protocol: Protocol
    dtypes: tuple[str, ...] = ("float64", "float32")
    only: str = ""
    failed: dict[str, str] = field(default_factory=dict)
    say: object = print
    rows: list[Row] = field(default_factory=list)
    keep: Callable[[list[Row]], object] | None = None

    @property
    def smoke(self) -> bool:
        """Whether only answers are checked."""
        return self.mode == "smoke"

    def tell(self, text: str) -> None:
        """A line of progress."""
        if callable(self.say):
            self.say(text)


def carry_out(experiments: Iterable[Experiment], plan: Plan) -> list[Row]:
    """Check every experiment, then time it unless this is a smoke run."""
    rows: list[Row] = []
    for experiment in experiments:
        agreed = check(experiment)
        plan.tell(f"{experiment.case}, {experiment.dtype}, {experiment.what}: {agreed} answers agree")
        if not plan.smoke:
            rows += note(plan, measure(experiment, plan))
    return rows


def note(plan: Plan, rows: list[Row]) -> list[Row]:
    """Add rows to what the plan has measured, and have them kept."""
    plan.rows += rows
    if plan.keep is not None:
        plan.keep(plan.rows)
    return rows


def measure(experiment: Experiment, plan: Plan) -> list[Row]:
    """Time the contenders in turn and derive rates and fractions."""
    share = ForeignShare()
    timings = interleave({contender.who: contender.run for contender in experiment.contenders}, plan.protocol)
    foreign = share.read()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    rates = {
        contender.who: (contender.flops or experiment.flops or 0.0) / timings[contender.who].minimum
        for contender in experiment.contenders
    }
    rows = []
    for contender in experiment.contenders:
        timing = timings[contender.who]
        rows.append(
            Row(
                experiment.suite, experiment.case, experiment.dtype, experiment.what, contender.who, contender.kind,
                contender.cached, plan.threads, timing.minimum, timing.median, timing.spread, len(timing.samples),
                timing.inner, load=load, foreign=foreign, samples=timing.samples,
                metrics=_metrics(experiment, contender, timing, rates),
            )
        )  # fmt: skip
    return rows


def _metrics(experiment: Experiment, contender: Contender, timing: Timing, rates: dict[str, float]) -> dict[str, object]:
    out: dict[str, object] = dict(experiment.notes)
    rate = rates[contender.who]
    if rate:
        out["gflops"] = rate / 1e9
        for ruler in ("gemm peak", "shape peak"):
            if rates.get(ruler) and contender.who != ruler:
                out["of_" + ruler.replace(" ", "_")] = rate / rates[ruler]
    return out
