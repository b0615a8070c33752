"""A store full of made-up cells, for whoever reads stores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from pyhess.sweep import Store

AXES = ("data", "n", "activation", "loss", "parametrization", "depth", "width", "region", "radius", "penalty", "seed")


def synthetic_store(path: Path, cells: int = 100_000, *, seed: int = 20263, name: str = "teacher_student") -> Path:
    """Write a finished sweep: lam* ~ width^0.5 on boxes and width^0 on balls, with noise over the seeds.

    One cell in a hundred has failed, one in two hundred crashed its worker, one in a hundred is pending, and one in fifty was
    cut short by its time limit. Of the two kinds "search" has no upper end.
    """
    rng = np.random.default_rng(seed)
    planned: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    widths, depths = [2**k for k in range(1, 12)], [1, 2, 3]
    per_group = len(widths) * len(depths)
    for i in range(cells):
        width, depth = widths[i % len(widths)], depths[i // len(widths) % len(depths)]
        group = i // per_group
        box, softplus, ntk, kind = group % 2 == 0, group // 2 % 2, group // 4 % 2, ("bracket", "search")[group // 8 % 2]
        axes = {
            "data": name, "n": 128, "activation": ("tanh", "softplus")[softplus], "loss": "squared_error",
            "parametrization": ("standard", "ntk")[ntk], "depth": depth, "width": width, "region": "box" if box else "ball",
            "radius": 0.5 if box else 2.0, "penalty": "l2", "seed": group // 16,
        }  # fmt: skip
        seconds = 0.01 * width**0.8 * depth * float(rng.lognormal(0.0, 0.3))
        planned.append(
            {
                "key": f"{i:064x}", "position": i, "kind": kind, "axes": axes, "work": {"kind": kind, **axes}, "parent": None,
                "predicted_seconds": 0.012 * width**0.8 * depth, "predicted_bytes": 1e6 + 8e3 * width * depth,
            }
        )  # fmt: skip
        lower = float((width ** (0.5 if box else 0.0)) * depth * (1.0 + 0.4 * ntk) * rng.lognormal(0.0, 0.1))
        common = {
            "attempts": 1, "threads": 1, "host": f"node-{i % 4}", "finished": 1.7e9 + i, "run_id": "r0", "seconds": seconds,
            "cpu_seconds": 0.95 * seconds, "peak_bytes": 2e8, "num_params": width * (9 + (depth - 1) * (width + 1)) + width + 1,
            "num_samples": 128,
        }  # fmt: skip
        if i % 100 == 31:
            result = {
                **common, "status": "failed", "error_type": "NonFiniteError", "error": "the Hessian overflowed",
                "traceback": "Traceback (most recent call last): …",
            }  # fmt: skip
        elif i % 200 == 77:
            result = {
                **common,
                "status": "crashed",
                "error_type": "WorkerDied",
                "error": "its worker died 3 times",
                "attempts": 3,
            }
        elif i % 100 == 59:
            result = {}
        else:
            upper = lower * float(1.0 + rng.exponential(0.5)) if kind == "bracket" else None
            result = {
                **common, "status": "done", "lam_lower": lower, "lam_upper": upper, "psi_upper": -2.0 * lower,
                "psi_lower": None if upper is None else -2.0 * upper, "outcome": "bracketed" if upper else None,
                "scope": "global", "method": "moment" if upper else None, "best_family": "vertex", "start": "cold",
                "certificate": None if upper is None else [
                    {"method": "moment", "psi_lower": -2.0 * upper, "cells": 1},
                    {"method": "centre", "psi_lower": -2.4 * upper, "cells": 1},
                ],
                "timing": {
                    "certificate": 0.1 * seconds, "search": 0.9 * seconds,
                    **({} if upper is None else {"certificate moment": 0.02 * seconds, "certificate centre": 0.08 * seconds}),
                },
                "extra": {}, "time_limited": i % 50 == 7, "num_starts": 8, "num_jets": 3000, "num_matvecs": 90,
            }  # fmt: skip
        results.append(result)
    with Store.open(path) as store:
        store.begin_run("r0", {"name": "synthetic"}, {"pyhess": "0.1.0", "host": "node-0", "argv": ["pyhess", "sweep", "run"]})
        store.set_plan(planned)
        with store.transaction():
            for cell, result in zip(planned, results, strict=True):
                if result:
                    store.put(
                        cell["key"], result, {"theta": rng.standard_normal(5)} if int(cell["position"]) % 1000 == 0 else None
                    )
            store.set_live("r0", {"updated": time.time(), "running": []})
        store.end_run("r0", "finished")
    return path
