"""Which way a convolution goes whose weights may hold zeros: asked for, estimated, or measured.

    forward = SparseForward(geometry, way)       pack(weights, bias); run(x, y)
    input_grad = SparseInputGrad(geometry, way)  pack(weights); run(dy, dx)

They take the place of the plans of ``kernels.conv``. Every pack looks at the weights again: a way that was planned for a
pattern goes on until weights outside of it are there, or it has become needlessly large.

    "dense"     all weights
    "kept"      kept rows and columns
    "lowered"   single weights, from a lowered matrix
    "direct"    single weights, from the padded image
    "estimate"  dense or kept, whichever takes fewer estimated cycles: the same one every time
    "measure"   the fastest of all, tried out on the spot; other runs may choose, and round, otherwise. Where results
                are to be the same in every run (threads.deterministic) it is "estimate"
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from sslnet.kernels.conv.choose import costed_tiles
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.pattern import SparsityPattern, find_kept, hardly_zero, keep_all
from sslnet.kernels.conv.plan import plan_forward, plan_input_grad, plan_unstructured
from sslnet.kernels.conv.taps import lower_forward, lower_input_grad
from sslnet.kernels.conv.winograd.choose import allowed, winograd_tiles
from sslnet.kernels.runtime.memory import aligned_empty, aligned_zeros
from sslnet.kernels.runtime.threads import deterministic
from sslnet.kernels.simd.vector import VectorUnit, vector_unit

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


class _Ways:
    """The plan for the zeros there are, made anew when they have changed."""

    CLEARLY: ClassVar[float]
    """Zeros are made use of where that takes no more than this part of the dense cycles, both estimated."""

    def __init__(self, geometry: ConvGeometry, way: str, winograd: bool, unit: VectorUnit | None) -> None:
        assert way in WAYS
        self.geometry = geometry
        self.way = "estimate" if way == "measure" and deterministic() else way
        self.winograd = winograd
        self.unit = unit or vector_unit()
        self.plan: Any = None
        self.kept: SparsityPattern | None = None
        self.count = 0

    @property
    def kernel(self) -> str:
        """Engine and tile, for reports."""
        return "conv" if self.plan is None else str(self.plan.kernel)

    def _renew(self, weights: np.ndarray) -> None:
        """Sees to it that there is a plan that does for these weights."""
        fixed = self.way in ("dense", "lowered", "direct")
        if self.plan is not None and fixed:
            return
        kept = None if fixed else self._pattern(weights)
        count = int(np.count_nonzero(weights)) if self.way == "measure" else 0
        if self.plan is not None and self._still_fits(kept, count):
            return
        self.plan = None  # its memory is given back before the next one asks for more
        self.kept, self.count = kept, count
        self.plan = self._choose(weights)

    def _pattern(self, weights: np.ndarray) -> SparsityPattern:
        if self.way == "estimate" and hardly_zero(weights, FEW_ZEROS):
            return keep_all(self.geometry)
        return find_kept(weights, self.geometry.groups)

    def _still_fits(self, kept: SparsityPattern | None, count: int) -> bool:
        assert self.kept is not None
        assert kept is not None
        same_count = self.count * SHRUNK <= count <= self.count / SHRUNK
        return same_count and self.kept.covers(kept) and kept.weights >= SHRUNK * self.kept.weights

    def _choose(self, weights: np.ndarray) -> Any:
        if self.way == "measure":
            ways = self._candidates()
            plans = [
                self._plan(way, replace(self.geometry, batch=min(self.geometry.batch, TRIAL_BATCH))) for way in ways
            ]
            return self._plan(ways[self._fastest(plans, weights)], self.geometry)
        if self.way != "estimate":
            return self._plan(self.way, self.geometry)
        assert self.kept is not None
        dense = self._plan("dense", self.geometry)
        if self.kept.share > self.CLEARLY:
            return dense
        kept = self._plan("kept", self.geometry)
        return kept if kept.engine.cycles <= self.CLEARLY * self._dense_cycles() else dense

    def _fastest(self, plans: list[Any], weights: np.ndarray) -> int:
        """The place of the plan that takes the least time; they take turns."""
        run = self._trial(plans, weights)
        times = [[_seconds(run, plan) for plan in plans] for _ in range(TRIALS + 1)]
        return int(np.min(times[1:], axis=0).argmin())

    def _candidates(self) -> list[str]:
        assert self.kept is not None
        return ["dense", "kept"] if self.kept.share < 1 else ["dense"]

    def _plan(self, way: str, geometry: ConvGeometry) -> Any:
        raise NotImplementedError

    def _trial(self, plans: list[Any], weights: np.ndarray) -> Any:
        raise NotImplementedError

    def _dense_cycles(self) -> float:
        raise NotImplementedError


class SparseForward(_Ways):
    """y = x * w + b, then ReLU if planned with it, with zeros left out where that is faster."""

    CLEARLY = 0.85

    def __init__(
        self,
        geometry: ConvGeometry,
        way: str,
        *,
        relu: bool = False,
        winograd: bool = True,
        unit: VectorUnit | None = None,
    ) -> None:
        super().__init__(geometry, way, winograd, unit)
        self.relu = relu

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        """Copies weights (filters, channels / groups, kernel_h, kernel_w) and bias (filters,), after a look at their zeros."""
        self._renew(weights)
        self.plan.pack(weights, bias)

    def run(self, x: np.ndarray, y: np.ndarray) -> None:
        """The convolution with the weights last packed.  [overwrites y]"""
        self.plan.run(x, y)

    def run_at(self, x: int, y: int) -> None:
        """``run`` of arrays that begin at these addresses, not checked again."""
        self.plan.run_at(x, y)

    def _candidates(self) -> list[str]:
        g = self.geometry
        sparse = self.count <= (1 - MANY_ZEROS) * g.filters * g.columns
        return super()._candidates() + (["lowered", "direct"] if sparse else [])

    def _plan(self, way: str, geometry: ConvGeometry) -> Any:
        if way == "dense":
            return plan_forward(geometry, relu=self.relu, winograd=self.winograd, unit=self.unit)
        if way == "kept":
            assert self.kept is not None
            return plan_forward(geometry, kept=self.kept, relu=self.relu, unit=self.unit)
        return plan_unstructured(geometry, direct=way == "direct", relu=self.relu, unit=self.unit)

    def _trial(self, plans: list[Any], weights: np.ndarray) -> Any:
        g = plans[0].geometry
        x, y = aligned_zeros(g.input_shape), aligned_empty(g.output_shape)
        for plan in plans:
            plan.pack(weights, None)
        return lambda plan: plan.run(x, y)

    def _dense_cycles(self) -> float:
        g, unit = self.geometry, self.unit
        winograd = winograd_tiles(g, unit, backward=False) if self.winograd and allowed() else ()
        return min(cost for cost, _ in [*costed_tiles(lower_forward(g), unit), *winograd])


class SparseInputGrad(_Ways):
    """dx from dy: dense, or from kept rows and columns alone, whichever way single weights go in the forward pass."""

    CLEARLY = 0.6  # the estimate of what is added back to the pixels is rough

    def __init__(
        self, geometry: ConvGeometry, way: str, *, winograd: bool = True, unit: VectorUnit | None = None
    ) -> None:
        super().__init__(geometry, "estimate" if way in ("lowered", "direct") else way, winograd, unit)

    def pack(self, weights: np.ndarray) -> None:
        """Copies the weights of the forward pass, after a look at their zeros."""
        self._renew(weights)
        self.plan.pack(weights)

    def run(self, dy: np.ndarray, dx: np.ndarray) -> None:
        """The adjoint of the convolution with the weights last packed.  [overwrites dx]"""
        self.plan.run(dy, dx)

    def _plan(self, way: str, geometry: ConvGeometry) -> Any:
        if way == "dense":
            # Packed right before each run.
            return plan_input_grad(geometry, winograd=self.winograd, unit=self.unit, lasting=False)
        assert self.kept is not None
        return plan_input_grad(geometry, kept=self.kept, unit=self.unit)

    def _trial(self, plans: list[Any], weights: np.ndarray) -> Any:
        g = plans[0].geometry
        dy, dx = aligned_zeros(g.output_shape), aligned_empty(g.input_shape)
        for plan in plans:
            plan.pack(weights)
        return lambda plan: plan.run(dy, dx)

    def _dense_cycles(self) -> float:
        g, unit = self.geometry, self.unit
        winograd = winograd_tiles(g, unit, backward=True) if self.winograd and allowed() else ()
        return min(cost for cost, _ in [*costed_tiles(lower_input_grad(g), unit), *winograd])


def _seconds(run: Any, plan: Any) -> float:
    begin = time.perf_counter()
    run(plan)
    return time.perf_counter() - begin
