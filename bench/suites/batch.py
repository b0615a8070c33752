"""Products at many thetas at once, each with a vector of its own."""

from __future__ import annotations

from collections.abc import Iterator

from .. import ours, peers, roofline
from ..cases import BATCHES, Problem, small
from ..experiment import Experiment
from ..records import Row
from ..runner import Plan, carry_out
from .products import TOLERANCE, contender

SUITE = "batch"


def rows(plan: Plan) -> list[Row]:
    """All cases in all dtypes."""
    return carry_out(experiments(plan), plan)


def experiments(plan: Plan) -> Iterator[Experiment]:
    """Ours against jax.vmap, jax.lax.map and torch.func.vmap."""
    for case in BATCHES:
        if plan.only not in case.name:
            continue
        for dtype in plan.dtypes:
            problem = Problem(small(case) if plan.smoke else case, dtype, plan.threads)
            v = problem.vectors
            contenders = [contender(product, "pyhess", v) for product in ours.prepare_batch(problem)]
            found = peers.products(plan.peers, "prepare_batch", problem, plan.failed)
            contenders += [contender(product, "peer", v) for product in found]
            if not plan.smoke:
                contenders.append(roofline.gemm_peak(dtype, plan.threads))
            yield Experiment(
                SUITE, problem.case.name, dtype, "products at S thetas", tuple(contenders), TOLERANCE[dtype],
                problem.case.batch * problem.case.flops, {"num_params": problem.case.num_params, "batch": problem.case.batch},
            )  # fmt: skip
