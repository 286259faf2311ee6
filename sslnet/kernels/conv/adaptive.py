"""A plan whose loop nest follows the zeros of the weights: a fixed one, an estimated one or a measured one.

    forward = AdaptivePlan(ConvProblem(Direction.FORWARD, geometry), way)
    forward.pack(weights, bias)
    forward.run(x, y)

Every pack inspects the weights. A loop nest chosen for a pattern is kept until weights outside the pattern are
non-zero, or until the pattern has become smaller by more than SHRUNK allows.

    "dense"     all weights
    "kept"      kept rows and columns
    "lowered"   single weights, from a lowered matrix; the gradient of the input as "estimate"
    "direct"    single weights, from the padded image; the gradient of the input as "estimate"
    "estimate"  dense or kept, whichever takes fewer estimated cycles; the same choice in every run
    "measure"   the fastest of all, timed on the given weights; another run may choose another one, and so round
                differently. With threads.deterministic it is "estimate"
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from sslnet.kernels.conv.choose import choose
from sslnet.kernels.conv.cost import costs_of
from sslnet.kernels.conv.loop_nest import PackedLoop
from sslnet.kernels.conv.pattern import SparsityPattern, find_kept, hardly_zero, keep_all
from sslnet.kernels.conv.plan import ConvPlan
from sslnet.kernels.conv.problem import ConvProblem
from sslnet.kernels.conv.sparse.unstructured import DirectLoop, LoweredLoop
from sslnet.kernels.runtime.memory import aligned_empty, aligned_zeros
from sslnet.kernels.runtime.threads import deterministic

UNSTRUCTURED = {"lowered": LoweredLoop, "direct": DirectLoop}
WAYS = ("dense", "kept", *UNSTRUCTURED, "estimate", "measure")
SHRUNK = 0.9
"""A new plan is made when the pattern holds less than this fraction of the weights that the plan was made for."""
FEW_ZEROS = 0.2
"""Below this fraction of zero weights, zero rows and columns are too few to be worth a search."""
MANY_ZEROS = 0.6
"""The loop nests for single weights are timed when at least this fraction of the weights is zero."""
TRIALS = 4
TRIAL_BATCH = 4
"""The largest number of images on which the ways are timed."""


class AdaptivePlan(ConvPlan):
    """A plan whose loop nest suits the zeros of the weights; another one is chosen when the zeros have changed.

    problem   the forward pass or the gradient of the input, with all weights
    """

    def __init__(self, problem: ConvProblem, way: str) -> None:
        assert way in WAYS
        super().__init__(problem.geometry, None, backward=problem.backward)
        self.problem = problem
        unstructured = way in UNSTRUCTURED
        self.way = "estimate" if (unstructured and problem.backward) or (way == "measure" and deterministic()) else way
        self.kept: SparsityPattern | None = None
        self.count = 0

    @property
    def kernel(self) -> str:
        return "conv" if self.loop is None else super().kernel

    def pack(self, weights: np.ndarray, bias: np.ndarray | None = None) -> None:
        """Packs weights and bias as every plan does, after the loop nest is chosen by the zeros of the weights."""
        self._look_at(weights)
        super().pack(weights, bias)

    def _look_at(self, weights: np.ndarray) -> None:
        """Chooses a loop nest, unless the current one still suits these weights."""
        fixed = self.way == "dense" or self.way in UNSTRUCTURED
        if self.loop is not None and fixed:
            return
        kept = None if fixed else self._pattern(weights)
        count = int(np.count_nonzero(weights)) if self.way == "measure" else 0
        if self.loop is not None and self._still_fits(kept, count):
            return
        self.loop = None  # frees its memory before the next one allocates
        self.kept, self.count = kept, count
        self.loop = self._loop(self._fastest(weights) if self.way == "measure" else self.way, self.problem)

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

    def _loop(self, way: str, problem: ConvProblem) -> PackedLoop:
        if way in UNSTRUCTURED:
            return UNSTRUCTURED[way](problem.geometry, problem.unit, relu=problem.relu)
        if self.kept is None or way == "dense":
            return choose(problem).loop()
        kept, costs = replace(problem, kept=self.kept), costs_of(problem.unit)
        if way == "kept":
            return choose(kept).loop()
        many = self.kept.share > (costs.kept_input_grad if problem.backward else costs.kept_forward)
        return choose(*([problem] if many else [kept, problem])).loop()

    def _fastest(self, weights: np.ndarray) -> str:
        """The way that takes the least time on a few images; the timed runs of the ways alternate."""
        g = self.problem.geometry
        few = replace(self.problem, geometry=replace(g, batch=min(g.batch, TRIAL_BATCH)))
        loops = {way: self._loop(way, few) for way in self._candidates()}
        plans = [ConvPlan(few.geometry, loop, backward=few.backward) for loop in loops.values()]
        for plan in plans:
            plan.pack(weights)
        source, target = (plans[0].shapes[name] for name in (self.source, self.target))
        arrays = aligned_zeros(source), aligned_empty(target)
        times = [[_seconds(plan, *arrays) for plan in plans] for _ in range(TRIALS + 1)]
        return [*loops][int(np.min(times[1:], axis=0).argmin())]

    def _candidates(self) -> list[str]:
        assert self.kept is not None
        g = self.problem.geometry
        kept = ["kept"] if self.kept.share < 1 else []
        many = not self.problem.backward and self.count <= (1 - MANY_ZEROS) * g.filters * g.columns
        return ["dense", *kept, *(UNSTRUCTURED if many else [])]


def _seconds(plan: ConvPlan, source: np.ndarray, target: np.ndarray) -> float:
    begin = time.perf_counter()
    plan.run(source, target)
    return time.perf_counter() - begin
