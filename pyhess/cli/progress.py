"""Progress on stderr: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from time import monotonic
from typing import Any, Self

from rich.console import Console
from rich.text import Text

_LIVE_SECONDS, _PLAIN_SECONDS = 0.1, 10.0


class Line:
    """The line, as a context manager that cleans it up."""

    def __init__(self, quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, soft_wrap=True)
        self._live = self._console.is_terminal
        self._status = self._console.status("")

    def __enter__(self) -> Self:
        if self._live:
            self._status.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._status.stop()

    def show(self, text: str) -> None:
        """Put the text in place of the last one, or below it."""
        if self._live:
            self._status.update(Text(text))
        else:
            self._console.print(text)


class Reporter(Line):
    """Turns the progress dictionaries of ``lambda_threshold`` into text.

    ``in_lam`` tells that the best value so far is an eigenvalue of the Hessian itself, so that minus half of it bounds lam*.
    """

    def __init__(self, quiet: bool, time_limit: float | None = None, *, in_lam: bool = True) -> None:
        super().__init__(quiet)
        self._next = 0.0
        self._stage = ""
        self._stage_began = self._began = monotonic()
        self._time_limit, self._in_lam = time_limit, in_lam

    def __call__(self, state: dict[str, Any]) -> None:
        now = monotonic()
        stage = str(state.get("stage", ""))
        # A line for each wave of the search, not for each of its steps.
        same = stage.split(",")[0] == self._stage.split(",")[0]
        if stage != self._stage:
            self._stage, self._stage_began = stage, now
        if now < self._next and same:
            return
        self._next = now + (_LIVE_SECONDS if self._live else _PLAIN_SECONDS)
        self.show(self._text(stage, state, now))

    def _text(self, stage: str, state: dict[str, Any], now: float) -> str:
        parts = [f"{stage:<12}", f"{now - self._began:6.1f} s"]
        if "total" in state:
            parts.append(f"{state.get('done', 0)}/{state['total']} starts")
            parts.append(f"stage ETA {self._left(state, now)}")
        best = state.get("psi_upper")
        if isinstance(best, float) and best < 0.0:
            parts.append(f"lam* >= {-0.5 * best:.6g}" if self._in_lam else f"best curvature {best:.6g}")
        return "  ".join(parts)

    def _left(self, state: dict[str, Any], now: float) -> str:
        """How long the stage will take from here on, by its starts so far and by the time limit."""
        done, total = int(state.get("done", 0)), int(state["total"])
        estimates = [(now - self._stage_began) * (total - done) / done] if done > 0 else []
        if self._time_limit is not None:
            estimates.append(max(0.0, self._time_limit - (now - self._began)))
        return f"{min(estimates):.0f} s" if estimates else "unknown"
