"""The group lassos of one parameter, compiled: their value, their subgradient, their proximal operator.

A blob is taken as a matrix, shape[0] rows by all the rest columns. A tiling covers that matrix with equal tiles, every
tile a group, and penalises strength * (sum of the Euclidean norms of its groups). Several tilings on one blob add up;
their prox is that of the sum, not one shrinkage after the other.

Ref: Wen et al. 2016, "Learning Structured Sparsity in Deep Neural Networks", eq. 1 to 3; Jenatton et al. 2011,
"Proximal Methods for Hierarchical Sparse Coding", theorem 1 (nested groups)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sslnet.kernels.optim import prox as kernels
from sslnet.kernels.optim import prox_bias as with_bias
from sslnet.kernels.optim import prox_diagonal as diagonal
from sslnet.kernels.optim.prox import LEAST, Panels
from sslnet.kernels.runtime.jit import spread
from sslnet.sparsity.group_lasso import GroupLasso
from sslnet.sparsity.group_penalty import GroupPart, GroupPenalty, Steps, Tiling
from sslnet.sparsity.penalty import EXACT, MAX_SWEEPS, TOLERANCE, Arrays, Penalty


class TiledGroupLasso(Penalty):
    """The sum of the group norms of several tilings of one matrix, and its proximal operator.

    shape      (rows, columns)
    tilings    of which no two are equal and at most one includes biases, all of positive strength
    tolerance  of the prox of several tilings: the largest change of a dual in a sweep, by the strength

    Where tilings overlap without being nested, the prox is found by block-coordinate ascent of its dual, one tiling
    after the other. The duals are kept for the next call, which mostly needs but a sweep or two; they are part of a
    run's state.

    Where the groups of a tiling include their biases, these are the second array: one value a group, in the order of
    the groups along the rows of the matrix.
    """

    terms: list[GroupPenalty]

    def __init__(
        self, shape: tuple[int, int], tilings: Sequence[Tiling], dtype: Any = np.float32, tolerance: float = TOLERANCE
    ) -> None:
        self.shape = shape
        self.tolerance = tolerance
        self._tilings = sorted(tilings, key=lambda tiling: (tiling.height * tiling.width, tiling.bias))
        self.nested = all(a.within(b) for a, b in zip(self._tilings, self._tilings[1:]))
        self.panels = [Panels.cut(*shape, tiling.height, tiling.width) for tiling in self._tilings]
        self.shapes = [shape, *([(self.biases, 1)] if self.takes_bias else [])]
        self.terms = [
            GroupLasso(
                tiling.name, tile_parts(tiling), np.broadcast_to(np.float64(tiling.strength), math.prod(p.tiles))
            )
            for tiling, p in zip(self._tilings, self.panels)
        ]
        self._dtype = np.dtype(dtype)
        self._empty = np.empty((0, 0), self._dtype)
        self._duals: list[np.ndarray] = []
        """One of the matrix's size for each tiling, then that of the biases."""

    @property
    def tilings(self) -> list[Tiling]:
        """With the strengths as they are now."""
        return [replace(t, strength=float(term.strengths[0])) for t, term in zip(self._tilings, self.terms)]

    @property
    def takes_bias(self) -> bool:
        return any(tiling.bias for tiling in self._tilings)

    @property
    def biases(self) -> int:
        """How many values the groups include beside the matrix."""
        return sum(math.prod(panels.tiles) for t, panels in zip(self._tilings, self.panels) if t.bias)

    def exact(self) -> TiledGroupLasso:
        return TiledGroupLasso(self.shape, self.tilings, np.float64, EXACT)

    # -- value -------------------------------------------------------------------------------------------------------

    def norms_of(self, arrays: Arrays, index: int) -> np.ndarray:
        return self._norms(arrays, index).reshape(-1)

    def _norms(self, arrays: Arrays, index: int) -> np.ndarray:
        """Euclidean norm of each group of a tiling: (groups down, groups along)."""
        tiling, panels = self._tilings[index], self.panels[index]
        out = np.empty(panels.tiles, self._dtype)
        w = self._matrix(arrays[0])
        self._run(kernels.norms, panels.count, w, tiling.height, tiling.width, panels.span, out)
        return np.hypot(out, arrays[1].reshape(panels.tiles)) if tiling.bias and len(arrays) > 1 else out

    def values(self, arrays: Arrays) -> list[float]:
        norms = (self._norms(arrays, k).sum(dtype=np.float64) for k in range(len(self.terms)))
        return [tiling.strength * float(norm) for tiling, norm in zip(self.tilings, norms)]

    def add_subgradient(self, arrays: Arrays, gradients: Arrays) -> None:
        w, grad = self._matrix(arrays[0]), self._matrix(gradients[0])
        for tiling, panels in zip(self.tilings, self.panels):
            sizes = (tiling.height, tiling.width, panels.span)
            self._run(kernels.add_subgradient, panels.count, w, grad, *sizes, tiling.strength)

    # -- prox --------------------------------------------------------------------------------------------------------

    @property
    def fused(self) -> Tiling | None:
        return self.tilings[0] if len(self.terms) == 1 and not self.takes_bias else None

    def prox(self, arrays: Arrays, steps: Steps, moved: Sequence[np.ndarray | None] | None = None) -> None:
        x, *bias = arrays
        gains = moved[0] if moved is not None else None
        old = bias[0].copy() if moved is not None and bias else None
        if isinstance(steps[0], float):
            self._prox(x, steps[0], gains, bias[0].reshape(-1) if bias else None, float(steps[-1]))
        else:
            before = None if gains is None else x.copy()
            self._prox_diagonal(x, steps[0], *(a.reshape(-1) for b in bias for a in (b, np.asarray(steps[1]))))
            if gains is not None and before is not None:
                gains += before - x
        if moved is not None and old is not None and moved[1] is not None:
            moved[1][...] += old - bias[0]

    def _prox(
        self, x: np.ndarray, step: float, moved: np.ndarray | None, bias: np.ndarray | None, bias_step: float
    ) -> None:
        """One step for the matrix, one for the biases: ||b - bias||^2 * step / (2 * bias_step) is added to the
        objective."""
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

    def _prox_diagonal(
        self,
        x: np.ndarray,
        steps: np.ndarray,
        bias: np.ndarray | None = None,
        bias_steps: np.ndarray | None = None,
    ) -> None:
        """A step >= 0 for each element, as the adaptive updates have; bias_steps: of each bias.  [overwrites x,
        bias]"""
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
        """Sweeps over the tilings until no dual changes any more; x follows, and what is zero at the optimum is set to
        it."""
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
        """One array for each tiling, and one of the biases."""
        return self._duals

    def set_state(self, duals: Sequence[np.ndarray]) -> None:
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


def tile_parts(tiling: Tiling) -> list[GroupPart]:
    """What the groups of a tiling hold: tiles of the matrix, and a value each of the biases if they include them."""
    return [GroupPart(0, tiling.height, tiling.width), *([GroupPart(1, 1, 1)] if tiling.bias else [])]
