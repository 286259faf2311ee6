"""TiledGroupLasso: the group lassos of one parameter; value, subgradient and proximal operator by compiled kernels.

A blob is viewed as a matrix of shape[0] rows and the product of its other sizes as columns. A tiling covers the matrix
with equal tiles, each tile a group, and its penalty is strength * (sum of the Euclidean norms of its groups). Penalties of
several tilings add up; the prox is that of their sum, which in general is not one shrinkage after the other.

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
    tilings    distinct tilings of positive strength, at most one of which includes biases
    tolerance  stopping tolerance of the prox of several tilings: largest change of a dual, relative to its strength

    If tilings overlap without being nested, the prox is found by block-coordinate ascent on its dual, one tiling after
    the other. The dual variables are kept as a start for the next call, which then usually needs one or two sweeps; they
    are part of a run's state.

    If the groups of a tiling include biases, these are the second array: one value per group, in the order of the groups
    along the rows of the matrix.
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
        """Dual variables: one array of the matrix's shape per tiling, then one for the biases, if included."""

    @property
    def tilings(self) -> list[Tiling]:
        """The tilings with their current strengths."""
        return [replace(t, strength=float(term.strengths[0])) for t, term in zip(self._tilings, self.terms)]

    @property
    def takes_bias(self) -> bool:
        return any(tiling.bias for tiling in self._tilings)

    @property
    def biases(self) -> int:
        """Number of biases that the groups include."""
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

    def norms_and_values(self, arrays: Arrays) -> list[tuple[np.ndarray, float]]:
        norms = [self._norms(arrays, k) for k in range(len(self.terms))]
        sums = [float(found.sum(dtype=np.float64)) for found in norms]
        return [(found.reshape(-1), t.strength * total) for t, found, total in zip(self.tilings, norms, sums)]

    def add_subgradient(self, arrays: Arrays, gradients: Arrays) -> None:
        w, grad = self._matrix(arrays[0]), self._matrix(gradients[0])
        for tiling, panels in zip(self.tilings, self.panels):
            sizes = (tiling.height, tiling.width, panels.span)
            self._run(kernels.add_subgradient, panels.count, w, grad, *sizes, tiling.strength)

    # -- prox --------------------------------------------------------------------------------------------------------

    @property
    def fused(self) -> Tiling | None:
        return self.tilings[0] if len(self.terms) == 1 and not self.takes_bias else None

    @property
    def crossed(self) -> tuple[Tiling, Tiling] | None:
        if len(self.terms) != 2 or self.takes_bias or self.nested:
            return None
        tilings = sorted(self.tilings, key=lambda tiling: tiling.height)
        sizes = (tilings[0].height, tilings[0].width, tilings[1].height)
        return (tilings[0], tilings[1]) if sizes == (1, self.shape[1], self.shape[0]) else None

    def crossed_dual(self) -> np.ndarray:
        duals = self._ready_duals()
        return duals[max(range(2), key=lambda k: self._tilings[k].height)].reshape(-1)

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
        """The prox with one step size for the matrix and one for the biases: ||b - bias||^2 * step / (2 * bias_step) is
        added to the objective."""
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
        """The prox with a step size >= 0 for each element, as in adaptive updates; bias_steps: one per bias.
        [overwrites x, bias]"""
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
        """Sweeps over the tilings until the dual variables change by no more than the tolerance. Updates x, and sets
        groups that are zero at the optimum exactly to zero."""
        zero = [np.zeros(panels.tiles, np.uint8) for panels in self.panels]
        sizes = [self.biases if tiling.bias else panels.count for tiling, panels in zip(self.tilings, self.panels)]
        changes = [np.zeros(size, np.float64) for size in sizes]
        for self.sweeps in range(1, MAX_SWEEPS + 1):
            for k, (tiling, panels) in enumerate(zip(self.tilings, self.panels)):
                size, dual, strength = (tiling.height, tiling.width), self._duals[k], tiling.strength
                if tiling.bias:
                    arrays, found = (x, dual, bias, self._bias_dual), (zero[k].reshape(-1), changes[k])
                    self._run(bias_kernel, self.biases, *arrays, *size, step, bias_step, strength, *found)
                else:
                    self._run(kernel, panels.count, x, dual, *size, panels.span, step, strength, zero[k], changes[k])
            if max(change.max() for change in changes) <= self.tolerance:
                break
        # w = v - step * (sum of duals) leaves rounding errors where the optimum is exactly zero.
        for tiling, tiles in zip(self.tilings, zero):
            self._run(kernels.set_to_zero, tiles.shape[0], x, tiling.height, tiling.width, tiles)

    # -- state -------------------------------------------------------------------------------------------------------

    def state(self) -> list[np.ndarray]:
        """The dual variables: one array for each tiling, and one for the biases, if included."""
        return self._duals

    def set_state(self, duals: Sequence[np.ndarray]) -> None:
        new = self._zero_duals()
        fit = [dual.size for dual in duals] == [dual.size for dual in new]
        self._duals = [np.array(dual, self._dtype).reshape(z.shape) for dual, z in zip(duals, new)] if fit else []

    def _ready_duals(self) -> list[np.ndarray]:
        """The dual variables of the matrix, created as zeros if there are none."""
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
    """The parts of a tiling's groups: tiles of the matrix and, if the groups include biases, one bias each."""
    return [GroupPart(0, tiling.height, tiling.width), *([GroupPart(1, 1, 1)] if tiling.bias else [])]
