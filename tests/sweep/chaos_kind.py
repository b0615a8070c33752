"""A kind of work for tests of the driver: real numbers in a few milliseconds, and accidents on request.

The seed of a cell is what happens to it: 666 ends its worker whenever it is tried, 777 raises an error that cannot be pickled,
888 ends its worker the first time (a file in ``folder`` remembers); all others wait a moment and return the loss and the
gradient's norm. With ``folder`` the first tiny problem that is run to compile ends its worker, too.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pyhess.sweep import Kind, Outcome, register


class UnpicklableError(RuntimeError):
    def __init__(self, *, needed: int) -> None:
        super().__init__(f"needed {needed}")
        self.hook = lambda: None


@dataclass(frozen=True)
class ChaosOptions:
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}
    pause: float = 0.02
    folder: str = ""


def _run(problem: Any, options: ChaosOptions, _time_limit: float | None, warm: list[Any]) -> Outcome:
    if problem.seed == 666:
        os.kill(os.getpid(), signal.SIGKILL)
    if problem.seed == 777:
        raise UnpicklableError(needed=3)
    if problem.seed == 888 or (options.folder and problem.obj.data.num_samples == 2):
        mark = Path(options.folder) / f"died with {problem.obj.data.num_samples}"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(options.pause)
    theta = problem.obj.net.init(rng=problem.seed)
    gradient = problem.obj.gradient(theta)
    carried = sum(float(np.abs(pair[0]).sum()) for pair in warm)
    answer = {"psi_upper": -float(np.linalg.norm(gradient)), "lam_lower": problem.obj.value(theta), "extra": {"carried": carried}}
    return Outcome(answer, {"theta": theta, "v": gradient})


register(Kind("chaos", 1, ChaosOptions, _run, lambda net, samples, options: 1.5e10 * options.pause, warm=True))
