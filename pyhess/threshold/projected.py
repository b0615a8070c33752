"""The joint descent over regions that are known by their projection alone: a Python loop over native curvature jets."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

import numpy as np

from .._threads import blas_single_thread
from ..linearization import Linearization
from ..regions import Region
from .search_run import Effort, FloatArray, IntArray, Run

#: A step must lower the largest of so many last values …
_HISTORY = 5
#: … by this share of what the slope promises.
_ARMIJO = 1e-4
_MAX_BACKTRACKS = 25
#: Evaluations in a row without a gain of the tolerance, after which a start has stalled.
_STALLS = 12
_MIN_STEP, _MAX_STEP = 1e-10, 1e10
_REPORT_SECONDS = 0.1


@dataclass
class ProjectedRun(Run):
    """A search by spectral projected gradients (Birgin, Martínez & Raydan 2000), one start after the other.

    ``half`` holds one number in all entries, so that the nearest point in x is the nearest point in theta.
    """

    region: Region | None = None

    def compile(self, num_tasks: int) -> None:
        """Nothing is compiled here."""

    def descend(self, tasks: IntArray, effort: Effort, stage: str) -> None:
        if self.interrupted:
            return
        told = monotonic()
        try:
            with blas_single_thread():
                for done, start in enumerate(tasks):
                    if monotonic() - told > _REPORT_SECONDS:
                        told = monotonic()
                        self.report(stage, done, int(tasks.size))
                    self._descend_one(int(start), effort.evals, effort.tol)
                    if self.stopped():
                        self.interrupted = True
                        return
        except KeyboardInterrupt:
            self.interrupted = True

    def _projected(self, z: FloatArray) -> FloatArray:
        assert self.region is not None
        moved = z.copy()
        moved[: self.size] = (self.region.project(self.mid + self.half * z[: self.size]) - self.mid) / self.half
        return moved

    def _evaluate(self, start: int, z: FloatArray) -> tuple[float, FloatArray]:
        """The value rho at z and its gradient (2P,)."""
        self.evals[start] += 1
        u = z[self.size :]
        squared = float(u @ u)
        jet = Linearization(self.engine, self.mid + self.half * z[: self.size]).jet(u if self.scale is None else self.scale * u)
        rho = jet.q / squared
        hv = jet.hv if self.scale is None else self.scale * jet.hv
        gradient = np.concatenate([self.half * jet.grad, 2.0 * (hv - rho * u)]) / squared
        return rho, gradient

    def _descend_one(self, start: int, max_evals: int, tol: float) -> None:
        budget = int(self.evals[start]) + max_evals
        z = self._projected(self.zs[start])
        z[self.size :] /= np.linalg.norm(z[self.size :])
        rho, g = self._evaluate(start, z)
        if not np.isfinite(rho):
            return
        self.zs[start], self.values[start] = z, rho
        step = min(1.0, 0.1 / max(float(np.abs(g).max()), 1e-300))
        recent, stalls = [rho], 0
        while self.evals[start] < budget and stalls < _STALLS and not self.stopped():
            d = self._projected(z - step * g) - z
            slope = float(g @ d)
            if not slope < 0.0:
                break
            share, reference = 1.0, max(recent)
            for _ in range(_MAX_BACKTRACKS):
                z_new = z + share * d
                rho_new, g_new = self._evaluate(start, z_new)
                if rho_new <= reference + _ARMIJO * share * slope or self.evals[start] >= budget:
                    break
                excess = rho_new - rho - share * slope
                fit = -0.5 * share * slope / excess if np.isfinite(excess) and excess > 0.0 else 0.5
                share *= min(0.5, max(0.1, fit))
            if not rho_new <= reference + _ARMIJO * share * slope:
                break
            s, y = z_new - z, g_new - g
            curvature = float(s @ y)
            step = float(np.clip(float(s @ s) / curvature, _MIN_STEP, _MAX_STEP)) if curvature > 0.0 else 2.0 * step
            length = float(np.linalg.norm(z_new[self.size :]))
            if not 0.5 <= length <= 2.0:  # rho does not depend on |u|
                z_new[self.size :] /= length
                g_new[self.size :] *= length
            z, rho, g = z_new, rho_new, g_new
            recent = [*recent[1 - _HISTORY :], rho]
            stalls = stalls + 1 if rho > self.values[start] - tol * abs(rho) else 0
            if rho < self.values[start]:
                self.zs[start], self.values[start] = z, rho
