"""The bound of one hidden layer's units proved again, cell by cell; for checking certificates.

With one hidden layer the residual part of the Hessian is block diagonal over the hidden units, so its smallest eigenvalue is that
of a unit's block, or zero. Units with the same ranges are alike. For one of each kind, and for every model of the other units
that has to be looked at, the file's cells must contain all weights that the unit can have, and on each of them the block must
have no eigenvalue below the claim; cells on which that is not proved at once are cut in two. On a ball the cutting starts with
one cell that contains the ball, and cells lose what sticks out of it; those that no model of the others proves are tried with
all changes together (`reference_unit_relaxed`), where that is likely to help.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic

import numpy as np
import numpy.typing as npt

from ..objective import Objective
from ..regions import Ball, Box
from .reference_arithmetic import arithmetic
from .reference_cover import Target, is_covered
from .reference_hessian import Problem
from .reference_interval import Range, Wide, wide
from .reference_majorants import no_eigenvalue_below
from .reference_unit_alike import AlikeProof
from .reference_unit_ball import BallRest, Model
from .reference_unit_block import Rest, UnitProblem, enclosed
from .reference_unit_joint import JointProof
from .reference_unit_relaxed import UnitRelaxed
from .reference_unit_rest import Units, box_rest, range_rest, twin_rest
from .unit_cover import AlikeSets, JointSets, UnitLeaves

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Numbers that one batch of cells may take.
_NUMBERS, _BATCH = 1_000_000, 2048
#: All models are tried on cells after so many cuts, in between that which did best alone.
_EVERY = 4
#: Relative difference of a file's corners from those computed here.
_SAME = 1e-9
#: Seconds that one number of one datum's part of one cell's matrices takes, roughly, and one of the matrices at the vertices.
_DATUM_SECONDS, _VERTEX_SECONDS = 1e-6, 1e-6
#: Share of the time that ellipsoids may take.
_JOINT_SHARE = 0.5
#: Share of the claim by which a block at a point has to miss it, for its eigenvalue in floating point to count.
_MISSED = 1e-7
#: Cells of a ball that files leave out.
_MANY = 200_000
_NO_LEAVES = "the certificate holds no cells of one unit's weights: an older pyhess wrote it, or there were too many"
#: Seconds after which the rest of the work is estimated.
_LOOK = 3.0


@dataclass(frozen=True)
class Outcome:
    """Whether it is proved; whether the file's cells are not what they have to be; what was done."""

    proved: bool
    broken: bool
    detail: str


@dataclass(frozen=True)
class _Task:
    """Cells (C, 2, …) of one unit, and the models of the others over some of them, the better ones first.

    ``exact`` says that a model leaves nothing open where a cell is a point; ``ball`` is the one that the cells are in, if any,
    and ``relaxed`` proves more of its narrow cells.
    """

    cells: FloatArray
    models: list[Model]
    exact: bool
    ball: BallRest | None = None
    relaxed: UnitRelaxed | None = None


def units_seconds(obj: Objective, leaves: UnitLeaves | None) -> float:
    """Time that the check of so many cells takes in long doubles, roughly; without any it is a ball's with very many."""
    inputs, outputs = obj.net.widths[0] + int(obj.net.bias), obj.net.widths[2]
    count, symbols = (_MANY, inputs + outputs) if leaves is None else (len(leaves.cells), leaves.cells.shape[2])
    per_datum = symbols * _DATUM_SECONDS * obj.data.num_samples
    return count * float((inputs + outputs) ** 2) * (per_datum + (1 << min(symbols, 8)) * _VERTEX_SECONDS)


def prove_units(problem: Problem, region: Box | Ball, claim: float, leaves: UnitLeaves | None, deadline: float,
                sets: JointSets | AlikeSets | None = None) -> Outcome:  # fmt: skip
    """Prove that no block has an eigenvalue below the claim for parameters in the region."""
    if claim > 0.0:
        return Outcome(False, False, "the residual part always has an eigenvalue of at most zero")
    unit_problem = UnitProblem.of(problem)
    if isinstance(region, Ball):
        joint = None if sets is None else _joint(problem, unit_problem, region, sets, deadline)
        tasks = _ball_tasks(problem, unit_problem, region, joint)
        if joint is not None and joint.broken:
            return Outcome(False, True, "an ellipsoid does not contain what a hidden unit can add to the outputs")
        return _Work(unit_problem, claim, deadline).run(tasks)
    if leaves is None:
        return Outcome(False, False, _NO_LEAVES)
    units = Units.of(problem, wide(region.low), wide(region.high))
    tasks = []
    for unit in sorted(set(units.kinds)):
        found = _tasks(unit_problem, units, unit, leaves)
        if isinstance(found, str):
            return Outcome(False, True, found)
        tasks += found
    return _Work(unit_problem, claim, deadline).run(tasks)


def _joint(problem: Problem, one: UnitProblem, region: Ball, sets: JointSets | AlikeSets, deadline: float
           ) -> JointProof | AlikeProof | None:  # fmt: skip
    """None if they are about other problems."""
    centre, now = wide(region.center), monotonic()
    units = Units.of(problem, centre, centre)
    end, shape, size = now + _JOINT_SHARE * (deadline - now), sets.matrices.shape[1:], len(one.z)
    if one.outputs != 1:
        return None
    if isinstance(sets, AlikeSets):
        weights = region.center[problem.weight_at[1] :][: len(units.kinds)]
        alike = len(units.kinds) > 1 and not any(units.kinds) and not weights.any()
        return AlikeProof(one, problem, units, sets, end) if alike and shape == (size, size) else None
    known = shape == (len(units.kinds), size, size)
    return JointProof(one, problem, (units.u[0], units.v[0]), sets, end) if known else None


def _ball_tasks(problem: Problem, one: UnitProblem, region: Ball, joint: JointProof | AlikeProof | None) -> list[_Task]:
    """Cells of a ball are cut here: those of the search are shrunk to what the ball contains."""
    centre = wide(region.center)
    tasks = []
    for unit in sorted(set(Units.of(problem, centre, centre).kinds)):
        rest = BallRest(problem, one, region, unit, joint)
        tasks.append(_Task(rest.root, rest.models, exact=False, ball=rest, relaxed=UnitRelaxed.of(problem, region, unit)))
    return tasks


def _tasks(problem: UnitProblem, units: Units, unit: int, leaves: UnitLeaves) -> list[_Task] | str:
    size = problem.dim + problem.outputs
    own = units.own(unit)
    mine = np.array([units.kinds[j] == unit for j in leaves.unit]) if leaves.unit.size else np.zeros(0, dtype=np.bool_)
    if (mine & ~leaves.twins).any():
        cells = leaves.cells[(mine & ~leaves.twins)[leaves.root]][:, :, :size]
        if not _contains(cells, *own):
            return f"the cells do not contain all weights of hidden unit {unit + 1}"
        rests = [box_rest(problem, units, unit), range_rest(problem, units, unit)]
        return [_Task(cells, [Model(partial(_repeated, rest)) for rest in rests], exact=False)]
    choices = units.twin_choices(unit) if problem.loss == "squared_error" else None
    if choices is None:
        return f"the file has no cells for hidden unit {unit + 1}"
    first = units.others(unit)[0]
    low, high = np.concatenate([own[0], units.u[0].lo[first]]), np.concatenate([own[1], units.u[1].hi[first]])
    tasks = []
    for amplitude, offset in choices:
        roots = leaves.twins & _near(leaves.amplitude, amplitude) & _near(leaves.offset, offset)
        cells = leaves.cells[roots[leaves.root]]
        if not _contains(cells, low, high):
            return f"the cells do not contain all weights of hidden unit {unit + 1} and of another, for every corner of its v"
        tasks.append(_Task(cells, [Model(_twins(problem, amplitude, offset))], exact=True))
    return tasks


def _near(given: FloatArray, x: Range) -> npt.NDArray[np.bool_]:
    middle = (0.5 * (x.lo + x.hi)).astype(np.float64)
    return np.asarray((np.abs(given - middle) <= _SAME * (1.0 + np.abs(middle))).all(axis=1))


def _contains(cells: FloatArray, low: Wide, high: Wide) -> bool:
    if not len(cells):
        return False
    # Outwards to doubles: the cells' ends are doubles.
    ends = [np.nextafter(end.astype(np.float64), side) for end, side in ((low, -np.inf), (high, np.inf))]
    exact = [
        np.where(end == end.astype(np.float64), end.astype(np.float64), out) for end, out in zip((low, high), ends, strict=True)
    ]
    return is_covered(cells[:, 0], cells[:, 1], Target(exact[0], exact[1]))


def _repeated(rest: Rest, cells: FloatArray) -> Rest:
    def over(x: Wide) -> Wide:
        return wide(np.broadcast_to(x, (len(cells), *x.shape[1:])))

    middle, columns = (Range(over(x.lo), over(x.hi)) for x in (rest.middle, rest.columns))
    return Rest(middle, columns, over(rest.slack), rest.groups)


def _twins(problem: UnitProblem, amplitude: Range, offset: Range) -> Callable[[FloatArray], Rest]:
    size = problem.dim + problem.outputs

    def model(cells: FloatArray) -> Rest:
        further = wide(cells[:, :, size:])
        return twin_rest(problem, further[:, 0], further[:, 1], amplitude[None], offset[None])

    return model


class _Work:
    """Proves cell after cell."""

    def __init__(self, problem: UnitProblem, claim: float, deadline: float) -> None:
        self._problem, self._claim, self._deadline = problem, claim, deadline
        self._began = monotonic()
        self._tested, self._cut = 0, 0

    def run(self, tasks: list[_Task]) -> Outcome:
        total = sum(len(task.cells) for task in tasks)
        left = total
        for task in tasks:
            batch = self._batch(task)
            # Cells, the model that did best on the cell they were cut from, and how often they were cut.
            work = [
                (task.cells[begin : begin + batch], np.zeros(len(task.cells[begin : begin + batch]), dtype=np.int64), 0)
                for begin in range(0, len(task.cells), batch)
            ]
            while work:
                reason = self._out_of_time(left, total)
                if reason is not None:
                    return Outcome(False, False, reason)
                cells, model, depth = work.pop()
                left -= min(len(cells), left)
                if task.ball is not None:
                    cells, inside = task.ball.within(cells)
                    model = model[inside]
                if not len(cells):
                    continue
                proved, scores, model = self._test(task, cells, model, every=depth % _EVERY == 0)
                self._tested += len(cells)
                if proved.all():
                    continue
                if task.exact and self._missed(task, cells[~proved]):
                    return Outcome(False, True, "a unit's block has an eigenvalue below the claim")
                halves = _halves(cells[~proved], scores[~proved])
                if halves is None:
                    return Outcome(False, False, f"a cell too small to be cut is not proved, after {self._tested} cells")
                self._cut += int((~proved).sum())
                left += len(halves)
                models = np.tile(model[~proved], 2)
                work += [
                    (halves[begin : begin + batch], models[begin : begin + batch], depth + 1)
                    for begin in range(0, len(halves), batch)
                ]
        cut = f", {self._cut} of them cut" if self._cut else ""
        return Outcome(
            True, False, f"{self._tested} cells of one unit's weights tested{cut}; they contain all that a unit can be"
        )

    def _batch(self, task: _Task) -> int:
        size = self._problem.dim + self._problem.outputs
        # On a ball next to all symbols of the others are in one, too.
        alone = 8 if task.ball is None else min(size + 1, 8)
        return max(1, min(_BATCH, _NUMBERS // ((len(self._problem.z) + (1 << alone)) * size * size)))

    def _out_of_time(self, left: int, total: int) -> str | None:
        now = monotonic()
        if now > self._deadline:
            return f"time ran out after {self._tested} of some {self._tested + left} cells of one unit's weights"
        needed = (now - self._began) / max(self._tested, 1) * left
        if now - self._began > _LOOK and now + needed > self._deadline and self._tested >= 64:
            n, size = len(self._problem.z), self._problem.dim + self._problem.outputs
            total = max(total, self._tested + left)
            return (
                f"too large for the independent check: {total} cells, {n} data and {size} weights of a unit would take some "
                f"{now - self._began + needed:.0f} s; allowed are {self._deadline - self._began:.0f} s"
            )
        return None

    def _test(self, task: _Task, cells: FloatArray, model: IntArray, *, every: bool
              ) -> tuple[npt.NDArray[np.bool_], FloatArray, IntArray]:  # fmt: skip
        """Which cells are proved, how much each coordinate makes of the remainders, and the model that did best on each.

        Tried is the given model; every other one, too, where asked for. Models that do not serve a cell are left out.
        """
        proved = np.zeros(len(cells), dtype=np.bool_)
        best, likely = model.copy(), np.full(len(cells), np.nan)
        scores = np.zeros((len(cells), cells.shape[2]))
        size = self._problem.dim + self._problem.outputs
        for number, other in enumerate(task.models):
            rest = np.flatnonzero(~proved & (every | (model == number)))
            if other.serves is not None:
                rest = rest[other.serves(cells[rest])]
            if not rest.size:
                continue
            ends = wide(cells[rest][:, :, :size])
            block = enclosed(self._problem, ends[:, 0], ends[:, 1], other.rest(cells[rest]))
            found = no_eigenvalue_below(self._problem, block, self._claim)
            proved[rest] = found.proved
            better = np.flatnonzero(~(found.value <= likely[rest]))
            chosen = rest[better]
            scores[chosen] = self._scores(cells[chosen], found.shares[better])
            if task.ball is not None:
                scores[chosen] += task.ball.gained(cells[chosen]) * found.rest[better, None]
            likely[chosen], best[chosen] = found.value[better], number
        if task.relaxed is not None:
            rest = np.flatnonzero(~proved & task.relaxed.promising(cells))
            proved[rest] = task.relaxed.test(cells[rest], self._claim)
        return proved, scores, best

    def _missed(self, task: _Task, cells: FloatArray) -> bool:
        """Whether a block at the middle of a cell has an eigenvalue clearly below the claim."""
        if arithmetic().cost > 1.0:
            return False  # it is looked for in floating point
        size = self._problem.dim + self._problem.outputs
        points = np.repeat(0.5 * (cells[:, :1] + cells[:, 1:]), 2, axis=1)
        ends = wide(points[:, :, :size])
        block = enclosed(self._problem, ends[:, 0], ends[:, 1], task.models[0].rest(points)).middle
        matrices = (0.5 * (block.lo + block.hi)).astype(np.float64)
        return bool((np.linalg.eigvalsh(np.nan_to_num(matrices))[:, 0] < self._claim - _MISSED * abs(self._claim)).any())

    def _scores(self, cells: FloatArray, shares: FloatArray) -> FloatArray:
        """How much of the remainders each coordinate makes."""
        dim, size = self._problem.dim, self._problem.dim + self._problem.outputs
        half = 0.5 * (cells[:, 1] - cells[:, 0])
        reach = np.abs(self._problem.z.astype(np.float64))
        scores = np.zeros(half.shape)
        shares = np.nan_to_num(shares, nan=1e300, posinf=1e300)
        for begin, share in ((0, shares[:, :, 0]), (size, shares[:, :, -1])):
            if begin < half.shape[1]:
                part = half[:, None, begin : begin + dim] * reach[None]
                whole = np.maximum(part.sum(axis=2, keepdims=True), 1e-300)
                scores[:, begin : begin + dim] = (part / whole * share[:, :, None]).sum(axis=1)
        scores[:, dim:size] = shares[:, :, 1:-1].sum(axis=1)
        return scores


def _halves(cells: FloatArray, scores: FloatArray) -> FloatArray | None:
    """Every cell cut in two; None if one cannot be."""
    middle = 0.5 * (cells[:, 0] + cells[:, 1])
    possible = (cells[:, 0] < middle) & (middle < cells[:, 1])
    if not possible.any(axis=1).all():
        return None
    side = np.where(possible, np.nan_to_num(scores, nan=0.0), -1.0).argmax(axis=1)
    rows = np.arange(len(cells))
    below, above = cells.copy(), cells.copy()
    below[rows, 1, side] = above[rows, 0, side] = middle[rows, side]
    return np.concatenate([below, above])
