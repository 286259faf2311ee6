"""Group lasso on parameter blobs: the value of the penalty, its sub-gradient, its prox. ``groups`` says which groups.

A blob is taken as a matrix, shape[0] rows by all the rest columns. A tiling covers that matrix with equal tiles, every
tile a group, and penalises strength * (sum of the Euclidean norms of its groups). Several tilings on one blob add up;
their prox is that of the sum, not one shrinkage after the other.

Ref: Wen et al. 2016, "Learning Structured Sparsity in Deep Neural Networks", eq. 1 to 3; Jenatton et al. 2011,
"Proximal Methods for Hierarchical Sparse Coding", theorem 1 (nested groups)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sslnet.kernels.optim import prox as kernels
from sslnet.kernels.optim import prox_bias as with_bias
from sslnet.kernels.optim import prox_diagonal as diagonal
from sslnet.kernels.optim.prox import LEAST, Panels
from sslnet.kernels.runtime.jit import spread

TOLERANCE = 1e-3
"""Of the duals, so of the prox in units of step * strength: in a run the next step goes on from where this one ended."""
MAX_SWEEPS = 100


@dataclass(frozen=True)
class Tiling:
    """Groups of height x width that cover a matrix, penalised with strength * (sum of their norms).

    bias   whether each group takes along one more value, its own element of a vector beside the matrix
    """

    height: int
    width: int
    strength: float
    bias: bool = False

    @property
    def name(self) -> str:
        return f"{self.height} x {self.width}"

    def within(self, other: Tiling) -> bool:
        """Whether each of these groups lies inside one of the other's."""
        return other.height % self.height == 0 and other.width % self.width == 0 and not self.bias


class Penalty:
    """The sum of the group norms of several tilings of one matrix, and its proximal operator.

    shape      (rows, columns)
    tilings    of which no two are equal and at most one takes biases, all of positive strength
    tolerance  of the prox of several tilings: the largest change of a dual in a sweep, by the strength

    Where tilings overlap without being nested, the prox is found by block-coordinate ascent of its dual, one tiling
    after the other. The duals are kept for the next call, which mostly needs but a sweep or two; they are part of a
    run's state.

    Where the groups of a tiling take along their biases, these come as ``bias``: one value a group, in the order of the
    groups along the rows of the matrix.
    """

    def __init__(
        self, shape: tuple[int, int], tilings: Sequence[Tiling], dtype: Any = np.float32, tolerance: float = TOLERANCE
    ) -> None:
        self.shape = shape
        self.tilings = sorted(tilings, key=lambda tiling: (tiling.height * tiling.width, tiling.bias))
        self.tolerance = tolerance
        self.nested = all(a.within(b) for a, b in zip(self.tilings, self.tilings[1:]))
        self.panels = [Panels.cut(*shape, tiling.height, tiling.width) for tiling in self.tilings]
        self.sweeps = 0
        """Sweeps over the duals that the last prox took; 0 when it needed none."""
        self._dtype = np.dtype(dtype)
        self._empty = np.empty((0, 0), self._dtype)
        self._strengths: list[float] = []
        self._duals: list[np.ndarray] = []
        """One of the matrix's size for each tiling, then that of the biases."""

    @property
    def takes_bias(self) -> bool:
        return any(tiling.bias for tiling in self.tilings)

    @property
    def biases(self) -> int:
        """How many values the groups take along."""
        return sum(math.prod(panels.tiles) for t, panels in zip(self.tilings, self.panels) if t.bias)

    def scale(self, factor: float) -> None:
        """Multiplies the strengths that it was made with by ``factor``, > 0."""
        self._strengths = self._strengths or [tiling.strength for tiling in self.tilings]
        self.tilings = [replace(t, strength=s * factor) for t, s in zip(self.tilings, self._strengths)]

    # -- value -------------------------------------------------------------------------------------------------------

    def norms(self, w: np.ndarray, index: int, bias: np.ndarray | None = None) -> np.ndarray:
        """Euclidean norm of each group of a tiling: (groups down, groups along)."""
        tiling, panels = self.tilings[index], self.panels[index]
        out = np.empty(panels.tiles, self._dtype)
        self._run(kernels.norms, panels.count, self._matrix(w), tiling.height, tiling.width, panels.span, out)
        return np.hypot(out, bias.reshape(panels.tiles)) if tiling.bias and bias is not None else out

    def value(self, w: np.ndarray, bias: np.ndarray | None = None) -> float:
        """The penalty: sum over the tilings of strength * sum of norms."""
        norms = (self.norms(w, k, bias).sum(dtype=np.float64) for k in range(len(self.tilings)))
        return sum(tiling.strength * float(norm) for tiling, norm in zip(self.tilings, norms))

    def add_subgradient(self, w: np.ndarray, grad: np.ndarray) -> None:
        """grad += strength * w / norm of its group for each tiling; groups of zeros add nothing.  [accumulates into grad]"""
        w, grad = self._matrix(w), self._matrix(grad)
        for tiling, panels in zip(self.tilings, self.panels):
            sizes = (tiling.height, tiling.width, panels.span)
            self._run(kernels.add_subgradient, panels.count, w, grad, *sizes, tiling.strength)

    # -- prox --------------------------------------------------------------------------------------------------------

    def prox(
        self,
        x: np.ndarray,
        step: float,
        moved: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        bias_step: float = 0.0,
    ) -> None:
        """x becomes the z that minimises ||z - x||^2 / 2 + step * penalty(z).  [overwrites x, bias; accumulates into moved]

        step   > 0; one below LEAST is taken as LEAST, which changes no weight by more than rounding does
        moved  of x's shape: what is taken off x is added to it
        bias   with a step of its own: ||b - bias||^2 * step / (2 * bias_step) is added to the objective
        """
        x, step, bias_step = self._matrix(x), max(step, float(LEAST)), max(bias_step, float(LEAST))
        moved = self._empty if moved is None else self._matrix(moved)
        if self.nested:
            for tiling, panels in zip(self.tilings, self.panels):
                size = (tiling.height, tiling.width)
                if tiling.bias:
                    thresholds = (step * tiling.strength, bias_step * tiling.strength)
                    self._run(with_bias.prox, self.biases, x, moved, bias, *size, *thresholds)
                else:
                    self._run(kernels.prox, panels.count, x, moved, *size, panels.span, step * tiling.strength)
            return
        if moved.size:
            moved += x
        for dual in self._ready_duals():
            self._run(kernels.subtract_dual, x.size, x.reshape(-1), dual.reshape(-1), step)
        if bias is not None:
            bias -= bias_step * self._bias_dual
        self._ascend(x, kernels.ascend, step, with_bias.ascend, bias, bias_step)
        if moved.size:
            moved -= x

    def prox_diagonal(
        self,
        x: np.ndarray,
        steps: np.ndarray,
        bias: np.ndarray | None = None,
        bias_steps: np.ndarray | None = None,
    ) -> None:
        """x becomes the z that minimises sum of (z - x)^2 / (2 * steps) + penalty(z).  [overwrites x, bias]

        steps  of x's shape, >= 0: one for each element, as the adaptive updates have; bias_steps: of each bias
        """
        x, steps = self._matrix(x), self._matrix(steps)
        if len(self.tilings) == 1:
            (tiling,), (panels,) = self.tilings, self.panels
            size = (tiling.height, tiling.width)
            if tiling.bias:
                arrays = (x, steps, bias, bias_steps)
                self._run(with_bias.prox_diagonal, self.biases, *arrays, *size, tiling.strength)
            else:
                self._run(diagonal.prox_diagonal, panels.count, x, steps, *size, panels.span, tiling.strength)
            return
        for dual in self._ready_duals():
            self._run(diagonal.subtract_dual_diagonal, x.size, x.reshape(-1), dual.reshape(-1), steps.reshape(-1))
        if bias is not None:
            bias -= bias_steps * self._bias_dual
        self._ascend(x, diagonal.ascend_diagonal, steps, with_bias.ascend_diagonal, bias, bias_steps)

    def _ascend(
        self,
        x: np.ndarray,
        kernel: Callable[..., None],
        step: float | np.ndarray,
        bias_kernel: Callable[..., None],
        bias: np.ndarray | None,
        bias_step: float | np.ndarray | None,
    ) -> None:
        """Sweeps over the tilings until no dual changes any more; x follows, and what is zero at the optimum is set to it."""
        dead = [np.zeros(panels.tiles, np.uint8) for panels in self.panels]
        sizes = [self.biases if tiling.bias else panels.count for tiling, panels in zip(self.tilings, self.panels)]
        changes = [np.zeros(size, np.float64) for size in sizes]
        for self.sweeps in range(1, MAX_SWEEPS + 1):
            for k, (tiling, panels) in enumerate(zip(self.tilings, self.panels)):
                size, dual, strength = (tiling.height, tiling.width), self._duals[k], tiling.strength
                if tiling.bias:
                    arrays, found = (x, dual, bias, self._bias_dual), (dead[k].reshape(-1), changes[k])
                    self._run(bias_kernel, self.biases, *arrays, *size, step, bias_step, strength, *found)
                else:
                    self._run(kernel, panels.count, x, dual, *size, panels.span, step, strength, dead[k], changes[k])
            if max(change.max() for change in changes) <= self.tolerance:
                break
        # w = v - step * (sum of duals) leaves rounding errors where the optimum is exactly zero.
        for tiling, tiles in zip(self.tilings, dead):
            self._run(kernels.zero_dead, tiles.shape[0], x, tiling.height, tiling.width, tiles)

    # -- state -------------------------------------------------------------------------------------------------------

    def state(self) -> list[np.ndarray]:
        """The duals, one array a tiling and one of the biases; none while none are needed."""
        return self._duals

    def set_state(self, duals: Sequence[np.ndarray]) -> None:
        """Takes over duals of the right sizes; without them the next prox starts from zeros."""
        new = self._zero_duals()
        fit = [dual.size for dual in duals] == [dual.size for dual in new]
        self._duals = [np.array(dual, self._dtype).reshape(z.shape) for dual, z in zip(duals, new)] if fit else []

    def _ready_duals(self) -> list[np.ndarray]:
        """The duals of the matrix."""
        self._duals = self._duals or self._zero_duals()
        return self._duals[: len(self.tilings)]

    @property
    def _bias_dual(self) -> np.ndarray:
        return self._duals[-1]

    def _zero_duals(self) -> list[np.ndarray]:
        shapes: list[tuple[int, ...]] = [self.shape] * len(self.tilings)
        return [np.zeros(shape, self._dtype) for shape in shapes + [(self.biases,)] * self.takes_bias]

    def _matrix(self, array: np.ndarray) -> np.ndarray:
        return array.reshape(self.shape)

    def _run(self, kernel: Callable[..., None], n: int, *args: Any) -> None:
        spread(kernel, n, -(-math.prod(self.shape) // max(1, n)), *args)
