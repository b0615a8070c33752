"""Progress of a sweep on stderr: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from time import monotonic
from typing import Any

from .progress import Line

_PLAIN_SECONDS = 30.0
#: Axes that tell cells apart where all of them would be too many.
_SHOWN = ("data", "activation", "parametrization", "depth", "width", "hidden", "region", "radius", "seed")


class SweepReporter(Line):
    """Turns the dictionaries of the driver into text."""

    def __init__(self, quiet: bool) -> None:
        super().__init__(quiet)
        self._next = 0.0

    def __call__(self, state: dict[str, Any]) -> None:
        now = monotonic()
        if self._live or now >= self._next:
            self._next = now + _PLAIN_SECONDS
            self.show(progress_text(state))


def progress_text(state: dict[str, Any]) -> str:
    """One line: share of the work, counts, time left, the longest running cell."""
    counts, running = state["counts"], state["running"]
    parts = [
        f"{state['seconds']:8.1f} s",
        f"{100.0 * state['fraction']:5.1f} %",
        f"{counts['done']} done, {counts['failed'] + counts['crashed']} failed, {counts['pending']} to do",
        outlook_text(state),
    ]
    if running:
        oldest = min(running, key=lambda one: one["since"])
        parts.append(f"longest running {max(0.0, state['updated'] - oldest['since']):.0f} s: {axes_text(oldest['axes'])}")
    return "  ".join(parts)


def outlook_text(state: dict[str, Any]) -> str:
    """What is to come: the end of the run, and when."""
    if state["stopping"]:
        return "stopping"
    return "loading and compiling" if state["compiling"] else f"ETA {span_text(state['eta_seconds'])}"


def span_text(span: list[float]) -> str:
    """From … to, in seconds, minutes or hours."""
    low, high = span
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if high >= 2.0 * size:
            return f"{low / size:.1f}-{high / size:.1f} {unit}"
    return f"{low:.0f}-{high:.0f} s"


def axes_text(axes: dict[str, Any]) -> str:
    """A cell in words."""
    return " ".join(f"{name}={axes[name]}" for name in _SHOWN if axes.get(name) is not None)
