"""The kinds of work a cell may ask for; a new one is one more `register`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from .._checks import choice, positive_float, positive_int
from ..model import MLP

if TYPE_CHECKING:
    from ..threshold.steps import Steps
    from ..threshold.warm import CheckedPairs
    from .problem import Problem

#: Of pydantic, for the options: unknown names and other types are refused.
_STRICT = {"extra": "forbid", "strict": True}


@dataclass(frozen=True)
class Outcome:
    """What came of a cell: answer columns of the store, arrays, seconds per stage, whether it was ended early, and whether a time
    limit took something from an answer that is otherwise complete.
    """

    answer: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]
    timing: dict[str, float] = field(default_factory=dict)
    stopped_early: bool = False
    time_limited: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of work.

    Attributes
    ----------
    name : str
        ``kind`` in the specification.
    version : int
        Part of every cell's key: raise it when the answers change, so that old ones are not taken for new ones.
    options : type
        A dataclass of the settings and their defaults.
    run : callable
        ``run(problem, options, time_limit, warm) -> Outcome``.
    flops : callable
        ``flops(net, num_samples, options)``: predicted arithmetic of a cell, for the plan.
    warm : bool
        Whether the search may start from the arrays ``theta`` and ``v`` of another cell.
    seconds : callable
        ``seconds(net, num_samples, problem, time_limit, options)``: what a cell takes besides, by its loss, region and center.
    run_together : callable, optional
        ``run_together(problems, options, warms) -> list``: the same for several small cells without a time limit, with the same
        answers; in place of an Outcome the exception, where there was one.
    """

    name: str
    version: int
    options: type[Any]
    run: Callable[[Problem, Any, float | None, CheckedPairs], Outcome]
    flops: Callable[[MLP, int, Any], float]
    warm: bool
    seconds: Callable[[MLP, int, Mapping[str, Any], float | None, Any], float] = lambda *_: 0.0
    run_together: Callable[[Sequence[Problem], Any, Sequence[CheckedPairs]], list[Outcome | Exception]] | None = None


KINDS: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Make a kind of work known."""
    KINDS[kind.name] = kind


@dataclass(frozen=True)
class SearchOptions:
    """``starts`` of `pyhess.search`; by default chosen from the cost of an evaluation."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    starts: int | None = None

    def __post_init__(self) -> None:
        if self.starts is not None:
            positive_int("starts", self.starts)


@dataclass(frozen=True)
class BracketOptions(SearchOptions):
    """``starts`` and ``certificate`` of `pyhess.lambda_threshold`."""

    certificate: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        from ..certify import METHODS

        choice("certificate", self.certificate, ("auto", *METHODS))


@dataclass(frozen=True)
class EigvalsOptions:
    """``samples`` of the region, and the relative tolerance ``tol`` of their eigenvalues."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    samples: int = 64
    tol: float = 1e-6

    def __post_init__(self) -> None:
        positive_int("samples", self.samples)
        positive_float("tol", self.tol)


def _hvp_flops(sizes: Sequence[int], samples: int) -> float:
    return float(samples) * (4.0 * sizes[0] + 12.0 * sum(sizes[1:]))


def _eval_flops(widths: Sequence[int], samples: int) -> float:
    """Of one evaluation of the search."""
    sizes = [a * b for a, b in pairwise(widths)]
    return 2.6 * _hvp_flops(sizes, samples) + 100.0 * samples * sum(widths) + 200.0 * (sum(sizes) + sum(widths[1:])) + 2e5


def _search_flops(net: MLP, samples: int, options: SearchOptions) -> float:
    """As the search itself counts, see its choice of the number of starts."""
    from ..threshold.explore import DEEP_LAYERS

    per_eval = _eval_flops(net.widths, samples)
    evals = 250.0 * options.starts if options.starts is not None else min(max(3e11 / per_eval, 2000.0), 4e4)
    if net.num_layers <= DEEP_LAYERS:
        return per_eval * (evals + 600.0)
    # Twice as many, most of which are not used up; rounds of changes; and more for networks of two to four units a layer.
    narrow = [net.widths[0], *(min(3, width) for width in net.widths[1:-1]), net.widths[-1]]
    return per_eval * (evals + 6e3) + _eval_flops(narrow, samples) * 4.0 * evals


def _certificate_seconds(
    net: MLP, samples: int, problem: Mapping[str, Any], time_limit: float | None, options: BracketOptions
) -> float:
    from ..certify.cost import certificate_seconds

    ball, alike = problem["region"] == "ball", problem["center"] != "init"
    return certificate_seconds(
        net, samples, ball=ball, method=options.certificate, time_limit=time_limit, loss=problem["loss"], alike=alike
    )


def _eigvals_flops(net: MLP, samples: int, options: EigvalsOptions) -> float:
    sizes = [a * b for a, b in pairwise(net.widths)]
    return options.samples * 80.0 * (_hvp_flops(sizes, samples) + 40.0 * net.num_params + 1e4)


def _witness_answer(witness: Any) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    if witness is None:
        return {}, {}
    return {"psi_upper": witness.eigval, "lam_lower": witness.lam_lower}, {"theta": witness.theta, "v": witness.v}


def _search(problem: Problem, options: SearchOptions, time_limit: float | None, warm: CheckedPairs) -> Outcome:
    """The lower end alone: psi_upper and lam_lower with their witness."""
    from ..threshold.steps import conduct

    return conduct(_search_steps(problem, options, time_limit, warm))


def _searches(problems: Sequence[Problem], options: SearchOptions, warms: Sequence[CheckedPairs]) -> list[Outcome | Exception]:
    """The descents of all searches in common native calls."""
    from ..threshold.steps import conduct_together

    steps = [_search_steps(problem, options, None, warm) for problem, warm in zip(problems, warms, strict=True)]
    share = 1.0 / len(steps)  # each is under way all the time
    return [
        one if isinstance(one, Exception) else replace(one, timing={name: share * time for name, time in one.timing.items()})
        for one in conduct_together(steps)
    ]


def _search_steps(problem: Problem, options: SearchOptions, time_limit: float | None, warm: CheckedPairs) -> Steps[Outcome]:
    from ..threshold.search import search_steps
    from ..threshold.witness import make_witness

    obj, region, penalty = problem.obj, problem.region.bind(problem.obj), problem.penalty.bind(problem.obj)
    found = yield from search_steps(obj, region, penalty, problem.seed, time_limit, options.starts, warm or None)
    answer, arrays = _witness_answer(make_witness(obj, region, found.theta, found.v, penalty))
    answer |= {
        "best_family": found.best_family,
        "num_starts": found.num_starts,
        "num_jets": found.num_jets,
        "num_matvecs": found.num_matvecs,
    }
    return Outcome(answer, arrays, {"search": found.seconds}, found.interrupted)


def _bracket(problem: Problem, options: BracketOptions, time_limit: float | None, warm: CheckedPairs) -> Outcome:
    """Both ends."""
    from ..threshold import lambda_threshold

    result = lambda_threshold(
        problem.obj,
        problem.region,
        problem.penalty,
        rng=problem.seed,
        time_limit=time_limit,
        certificate=options.certificate,
        starts=options.starts,
        warm=warm or None,
    )
    answer, arrays = _witness_answer(result.witness)
    stats, timing = result.stats, {name: float(seconds) for name, seconds in result.stats["seconds"].items()}
    certificate = None
    if result.certificate is not None:
        table = result.certificate.to_dict()["table"]
        certificate = [{"method": name, "psi_lower": row["psi_lower"], "cells": row["cells"]} for name, row in table.items()]
        timing |= {f"certificate {name}": float(row["seconds"]) for name, row in table.items()}
    answer |= {
        "lam_lower": result.lam_lower,
        "lam_upper": result.lam_upper,
        "psi_upper": result.psi_upper,
        "psi_lower": result.psi_lower,
        "outcome": result.status.value,
        "scope": result.scope,
        "method": None if result.certificate is None else result.certificate.method,
        "certificate": certificate,
        "best_family": stats.get("best_family"),
        "num_starts": stats["num_starts"],
        "num_jets": stats["num_jets"],
        "num_matvecs": stats["num_matvecs"],
        "extra": {"kink": result.kink is not None, "upper_end": stats["upper_end"], "relu_kinks": stats["relu_kinks"]},
    }
    return Outcome(answer, arrays, timing, bool(stats["interrupted"]), bool(stats["time_limited"]))


#: Samples between two looks at the clock.
_CHUNK = 16


def _eigvals(problem: Problem, options: EigvalsOptions, time_limit: float | None, _warm: CheckedPairs) -> Outcome:
    """Extreme eigenvalues at samples of the region: arrays eigval_min and eigval_max (S,)."""
    from ..spectrum import eigsh_batch

    began = monotonic()
    obj, region = problem.obj, problem.region.bind(problem.obj)
    thetas = region.sample(options.samples, obj, rng=problem.seed)
    lowest, highest, matvecs, best = [], [], 0, (math.inf, 0, np.zeros(obj.num_params))
    for begin in range(0, options.samples, _CHUNK):
        if begin and time_limit is not None and monotonic() - began > time_limit:
            break
        chunk = thetas[begin : begin + _CHUNK]
        low, high = (
            eigsh_batch(obj, chunk, which=which, tol=options.tol, rng=[problem.seed, begin, side])
            for side, which in enumerate(("SA", "LA"))
        )
        lowest.append(low.eigenvalues[:, 0])
        highest.append(high.eigenvalues[:, 0])
        matvecs += int(low.num_matvecs.sum() + high.num_matvecs.sum())
        i = int(np.argmin(lowest[-1]))
        if lowest[-1][i] < best[0]:
            best = (float(lowest[-1][i]), begin + i, low.eigenvectors[i, :, 0])
    eigval_min, eigval_max = np.concatenate(lowest), np.concatenate(highest)
    psi, place, v = best
    extra = {
        "samples": int(eigval_min.size),
        **{
            f"{name}_{what}": float(getattr(np, what)(values))
            for name, values in (("eigval_min", eigval_min), ("eigval_max", eigval_max))
            for what in ("min", "mean", "max")
        },
    }
    answer = {
        "psi_upper": psi,
        "lam_lower": problem.penalty.bind(obj).strength(psi, v),
        "num_matvecs": matvecs,
        "extra": extra,
    }
    arrays = {"eigval_min": eigval_min, "eigval_max": eigval_max, "theta": thetas[place], "v": v}
    return Outcome(answer, arrays, {"eigvals": monotonic() - began}, eigval_min.size < options.samples)


register(Kind("search", 3, SearchOptions, _search, _search_flops, warm=True, run_together=_searches))
register(Kind("bracket", 14, BracketOptions, _bracket, _search_flops, warm=True, seconds=_certificate_seconds))
register(Kind("eigvals", 1, EigvalsOptions, _eigvals, _eigvals_flops, warm=False))
