"""A plan that follows the zeros of the weights: asked for in one way, estimated, or measured.

    forward = AdaptivePlan(ConvProblem(Direction.FORWARD, geometry), way)
    forward.pack(weights, bias); forward.run(x, y)

It takes the place of a ConvPlan. Every pack looks at the weights again: what was planned for a pattern goes on until weights
outside of it are there, or it has become needlessly large.

    "dense"     all weights
    "kept"      kept rows and columns
    "lowered"   single weights, from a lowered matrix; the gradient of the input as "estimate"
    "direct"    single weights, from the padded image; the gradient of the input as "estimate"
    "estimate"  dense or kept, whichever takes fewer estimated cycles: the same one every time
    "measure"   the fastest of all, tried out on the spot; other runs may choose, and round, otherwise. Where results
                are to be the same in every run (threads.deterministic) it is "estimate"
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from sslnet.kernels.conv.cost import costs_of
from sslnet.kernels.conv.pattern import SparsityPattern, find_kept, hardly_zero, keep_all
from sslnet.kernels.conv.plan import ConvPlan, plan_convolution, plan_unstructured
from sslnet.kernels.conv.problem import ConvProblem
from sslnet.kernels.runtime.memory import aligned_empty, aligned_zeros
from sslnet.kernels.runtime.threads import deterministic

WAYS = ("dense", "kept", "lowered", "direct", "estimate", "measure")
SHRUNK = 0.9
"""A plan is made anew when no more than this part of what it takes is left."""
FEW_ZEROS = 0.2
"""With fewer zeros than this part of the weights there are too few zero rows and columns to make use of."""
MANY_ZEROS = 0.6
"""Single weights are tried when at least this part of them is zero."""
TRIALS = 4
TRIAL_BATCH = 4
"""Images that the ways are tried on, at most."""


class AdaptivePlan:
    """The plan for the zeros there are, made anew when they have changed.

    problem   the forward pass or the gradient of the input, with all weights
    """

    def __init__(self, problem: ConvProblem, way: str) -> None:
        assert way in WAYS
        self.problem = problem
        unstructured = way in ("lowered", "direct")
        self.way = "estimate" if (unstructured and problem.backward) or (way == "measure" and deterministic()) else way
        self.plan: ConvPlan | None = None
        self.kept: SparsityPattern | None = None
        self.count = 0

    @property
    def kernel(self) -> str:
        """The loop nest and its tile, for reports."""
        return "conv" if self.plan is None else self.plan.kernel

    def pack(self, weights: np.ndarray, bias: np.ndarray | None = None) -> None:
        """Packs weights and bias as ConvPlan does, after a look at their zeros."""
        plan = self.plan = self._renewed(weights)
        plan.pack(weights, bias)

    def run(self, source: np.ndarray, target: np.ndarray) -> None:
        """The pass with the weights last packed.  [overwrites the target]"""
        assert self.plan is not None
        self.plan.run(source, target)

    def run_at(self, source: int, target: int) -> None:
        """``run`` of arrays that begin at these addresses, not checked again."""
        assert self.plan is not None
        self.plan.run_at(source, target)

    def _renewed(self, weights: np.ndarray) -> ConvPlan:
        """The plan there is if it does for these weights, or a new one."""
        fixed = self.way in ("dense", "lowered", "direct")
        if self.plan is not None and fixed:
            return self.plan
        kept = None if fixed else self._pattern(weights)
        count = int(np.count_nonzero(weights)) if self.way == "measure" else 0
        if self.plan is not None and self._still_fits(kept, count):
            return self.plan
        self.plan = None  # its memory is given back before the next one asks for more
        self.kept, self.count = kept, count
        return self._fastest(weights) if self.way == "measure" else self._plan(self.way, self.problem)

    def _pattern(self, weights: np.ndarray) -> SparsityPattern:
        g = self.problem.geometry
        if self.way == "estimate" and hardly_zero(weights, FEW_ZEROS):
            return keep_all(g)
        return find_kept(weights, g.groups)

    def _still_fits(self, kept: SparsityPattern | None, count: int) -> bool:
        assert self.kept is not None
        assert kept is not None
        same_count = self.count * SHRUNK <= count <= self.count / SHRUNK
        return same_count and self.kept.covers(kept) and kept.weights >= SHRUNK * self.kept.weights

    def _plan(self, way: str, problem: ConvProblem) -> ConvPlan:
        if way == "dense":
            return plan_convolution(problem)
        if way == "kept":
            return plan_convolution(replace(problem, kept=self.kept))
        if way == "estimate":
            assert self.kept is not None
            costs = costs_of(problem.unit)
            most = costs.kept_input_grad if problem.backward else costs.kept_forward
            if self.kept.share > most:
                return plan_convolution(problem)
            return plan_convolution(replace(problem, kept=self.kept), problem)
        return plan_unstructured(problem.geometry, direct=way == "direct", relu=problem.relu, unit=problem.unit)

    def _fastest(self, weights: np.ndarray) -> ConvPlan:
        """The plan that takes the least time on a few images; the ways take turns."""
        g = self.problem.geometry
        few = replace(self.problem, geometry=replace(g, batch=min(g.batch, TRIAL_BATCH)))
        ways = self._candidates()
        plans = [self._plan(way, few) for way in ways]
        for plan in plans:
            plan.pack(weights)
        source, target = (plans[0].shapes[name] for name in (plans[0].source, plans[0].target))
        arrays = aligned_zeros(source), aligned_empty(target)
        times = [[_seconds(plan, *arrays) for plan in plans] for _ in range(TRIALS + 1)]
        return self._plan(ways[int(np.min(times[1:], axis=0).argmin())], self.problem)

    def _candidates(self) -> list[str]:
        assert self.kept is not None
        g = self.problem.geometry
        kept = ["kept"] if self.kept.share < 1 else []
        many = not self.problem.backward and self.count <= (1 - MANY_ZEROS) * g.filters * g.columns
        return ["dense", *kept, *(["lowered", "direct"] if many else [])]


def _seconds(plan: ConvPlan, source: np.ndarray, target: np.ndarray) -> float:
    begin = time.perf_counter()
    plan.run(source, target)
    return time.perf_counter() - begin
