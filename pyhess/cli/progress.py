"""Progress on stderr: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from time import monotonic
from typing import Any

from rich.console import Console

_LIVE_SECONDS, _PLAIN_SECONDS = 0.1, 10.0


class Reporter:
    """Turns the progress dictionaries of ``lambda_threshold`` into text; a context manager that cleans up its line."""

    def __init__(self, quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._live = self._console.is_terminal
        self._status = self._console.status("")
        self._next = 0.0
        self._stage = ""
        self._began = monotonic()

    def __enter__(self) -> Reporter:
        if self._live:
            self._status.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._status.stop()

    def __call__(self, state: dict[str, Any]) -> None:
        now = monotonic()
        stage = str(state.get("stage", ""))
        if now < self._next and stage == self._stage:
            return
        self._stage = stage
        self._next = now + (_LIVE_SECONDS if self._live else _PLAIN_SECONDS)
        text = self._text(stage, state, now - self._began)
        if self._live:
            self._status.update(text)
        else:
            self._console.print(text)

    def _text(self, stage: str, state: dict[str, Any], seconds: float) -> str:
        parts = [f"{stage:<12}", f"{seconds:6.1f} s"]
        if "total" in state:
            parts.append(f"{state.get('done', 0)}/{state['total']} starts")
        best = state.get("psi_upper")
        if isinstance(best, float) and best < 0.0:
            parts.append(f"lam* >= {-0.5 * best:.6g}")
        return "  ".join(parts)
