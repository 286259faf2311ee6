"""The update rules, one class each, with their history arrays. ``updates`` chooses among them.

    type       Caffe's formula, g the regularised gradient, rate = learning rate * lr_mult
    SGD        h = momentum * h + rate * g;  w -= h
    Nesterov   h' = momentum * h + rate * g;  w -= (1 + momentum) * h' - momentum * h
    AdaGrad    s += g^2;  w -= rate * g / (sqrt(s) + delta)
    RMSProp    s = rms_decay * s + (1 - rms_decay) * g^2;  w -= rate * g / (sqrt(s) + delta)
    AdaDelta   s as RMSProp with momentum;  u = g * sqrt((t + delta) / (s + delta));  t as s, of u;  w -= rate * u
    Adam       m = momentum * m + (1 - momentum) * g;  v = momentum2 * v + (1 - momentum2) * g^2;
               w -= rate * sqrt(1 - momentum2^t) / (1 - momentum^t) * m / (sqrt(v) + delta)
    AdamW      w -= rate * decay * w;  m and v as Adam, of the gradient without decay;
               w -= rate * m / (1 - momentum^t) / (sqrt(v / (1 - momentum2^t)) + delta)

The proximal step uses the metric of the rule: one step size for the whole parameter with SGD and Nesterov, one for each
weight with the others. With SGD and Nesterov the amount that it subtracts is added to the momentum, so that the minimiser
is a fixed point of the update.

Ref: Caffe's solvers; Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2 (AdamW, its
schedule multiplier and alpha both in the rate); Beck and Teboulle 2009 (the prox inside Nesterov's method); Ochs et al.
2014, "iPiano" (with momentum)
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from sslnet.kernels.optim import update as kernels
from sslnet.kernels.optim import update_crossed as crossed
from sslnet.kernels.optim import update_prox as fused
from sslnet.kernels.optim.prox import LEAST
from sslnet.kernels.optim.update_prox import fits
from sslnet.kernels.runtime.jit import spread
from sslnet.solver.parameter_update import Terms, Update
from sslnet.sparsity.group_penalty import Tiling
from sslnet.sparsity.penalty import MAX_SWEEPS, Penalty


class _Momentum(Update):
    """Base class of SGD and Nesterov."""

    NESTEROV: ClassVar[bool]
    MOMENTA = 1

    def _update(self, iteration: int, rate: float, terms: Terms, before_prox: bool = False) -> None:
        self._run(kernels.momentum, *self._flat_arrays(), *self._settings(rate, terms), not before_prox, 0.0)

    def step_and_prox(self, iteration: int, learning_rate: float, scale: float, penalty: Penalty) -> bool:
        rate = self.rate(learning_rate)
        if penalty.crossed is not None and rate > 0:
            self._fused_crossed(penalty, penalty.crossed, rate, self._prepare(scale))
            return True
        tiling = penalty.fused
        if tiling is None:
            return False
        self._fused(penalty.shapes[0], tiling, rate, self._prepare(scale))
        return True

    def _fused(self, shape: tuple[int, int], tiling: Tiling, rate: float, terms: Terms) -> None:
        """Makes the step and the prox of one tiling in one pass over the memory; in two passes if its tiles are tall and
        large."""
        (rows, columns), (height, width) = shape, (tiling.height, tiling.width)
        arrays, settings, threshold = self._flat_arrays(), self._settings(rate, terms), rate * tiling.strength
        if height == width == 1:
            self._run(kernels.momentum, *arrays, *settings, True, threshold)
            return
        bands, band = rows // height, height * columns
        if fits(bands, band):
            spread(fused.bands, bands, band, *arrays, *settings, columns, height, width, threshold)
            return
        squares = np.empty((bands * fused.BLOCKS, columns), self.param.blob.dtype)
        w, _, h = arrays
        spread(fused.blocks, len(squares), band // fused.BLOCKS, *arrays, *settings, columns, height, squares)
        spread(fused.shares, bands, fused.BLOCKS * columns, squares, width, threshold)
        ahead = self.solver.momentum if self.NESTEROV else 0.0
        spread(fused.shrink_blocks, len(squares), band // fused.BLOCKS, w, h, squares, columns, height, ahead)

    def _fused_crossed(self, penalty: Penalty, tilings: tuple[Tiling, Tiling], rate: float, terms: Terms) -> None:
        """Makes the step and the prox of rows and columns: a pass for the step, one for each sweep, and a last one."""
        (rows, columns), (across, down) = penalty.shapes[0], tilings
        arrays, dual = self._flat_arrays(), penalty.crossed_dual()
        w, _, h = arrays
        dtype, blocks, cost = w.dtype, crossed.BLOCKS, rows * columns // crossed.BLOCKS
        spread(crossed.momentum_step, blocks, cost, *arrays, *self._settings(rate, terms), columns, rows)
        size = max(rate, float(LEAST))
        row_shares = np.empty((crossed.MOST_SWEEPS + 1, rows), dtype)
        column_shares = np.empty((crossed.MOST_SWEEPS + 1, columns), dtype)
        squares, changes = np.empty((blocks, columns), dtype), np.empty((blocks, columns), dtype)
        row_changes = np.empty(rows, dtype)
        limits = [size * tiling.strength * penalty.tolerance for tiling in tilings]
        done = 0
        for penalty.sweeps in range(1, MAX_SWEEPS + 1):
            sums = (squares, changes, row_changes, columns)
            spread(
                crossed.sweep, blocks, cost, w, dual, size, size * across.strength, row_shares, column_shares, done, *sums
            )
            threshold = size * down.strength
            spread(crossed.column_shares, 1, blocks * columns, squares, down.width, threshold, column_shares[done])
            done += 1
            if done > 1:
                column_changes = changes.sum(0, dtype=np.float64).reshape(-1, down.width).sum(1)
                moves = (float(row_changes.max()) ** 0.5, float(column_changes.max()) ** 0.5)
                if all(move <= limit for move, limit in zip(moves, limits)):
                    break
            if done > crossed.MOST_SWEEPS and penalty.sweeps < MAX_SWEEPS:
                spread(crossed.store_dual, rows, columns, w, dual, size, row_shares, column_shares, done, columns)
                done = 0
        ahead = self.solver.momentum if self.NESTEROV else 0.0
        spread(crossed.finish, blocks, cost, w, h, dual, size, row_shares, column_shares, done, columns, ahead)

    def _settings(self, rate: float, terms: Terms) -> tuple[Any, ...]:
        return (*terms, rate, self.solver.momentum, self.NESTEROV)

    def step_size(self, learning_rate: float) -> float:
        return self.rate(learning_rate)

    def long_step(self, learning_rate: float) -> float | np.ndarray:
        momentum: float = self.solver.momentum
        return super().long_step(learning_rate) / (1 - momentum)

    @property
    def displacement(self) -> np.ndarray:
        return self.history[0]

    def after_prox(self) -> None:
        if self.NESTEROV:
            w, _, h = self._flat_arrays()
            self._run(kernels.look_ahead, w, h, self.solver.momentum)


class SGD(_Momentum):
    NESTEROV = False


class Nesterov(_Momentum):
    NESTEROV = True


class _Adaptive(Update):
    """Base class of the rules with a step size for each weight. Before a proximal step the kernels overwrite the
    gradient, no longer needed, with the step sizes."""

    def step_size(self, learning_rate: float) -> np.ndarray:
        steps: np.ndarray = self.param.blob.diff
        return steps


class AdaGrad(_Adaptive):
    TAKES_MOMENTUM = False

    def _update(self, iteration: int, rate: float, terms: Terms, before_prox: bool = False) -> None:
        self._run(kernels.adagrad, *self._flat_arrays(), *terms, rate, self.solver.delta, before_prox)


class RMSProp(_Adaptive):
    TAKES_MOMENTUM = False

    def _update(self, iteration: int, rate: float, terms: Terms, before_prox: bool = False) -> None:
        settings = (self.solver.rms_decay, self.solver.delta, before_prox)
        self._run(kernels.rmsprop, *self._flat_arrays(), *terms, rate, *settings)


class AdaDelta(_Adaptive):
    HISTORY = 2

    def _update(self, iteration: int, rate: float, terms: Terms, before_prox: bool = False) -> None:
        settings = (self.solver.momentum, self.solver.delta, before_prox)
        self._run(kernels.adadelta, *self._flat_arrays(), *terms, rate, *settings)


class Adam(_Adaptive):
    HISTORY = 2
    MOMENTA = 1

    def _update(self, iteration: int, rate: float, terms: Terms, before_prox: bool = False) -> None:
        self._adam(iteration, rate, terms, self.solver.delta, (0.0, 0.0), before_prox)

    def _adam(
        self, iteration: int, rate: float, terms: Terms, delta: float, losses: tuple[float, float], before_prox: bool
    ) -> None:
        """Runs Adam's kernel.  losses: coefficients of decoupled weight decay, L2 and L1"""
        beta1, beta2 = self.solver.momentum, self.solver.momentum2
        powers = (beta1 ** (iteration + 1), beta2 ** (iteration + 1))
        self._run(kernels.adam, *self._flat_arrays(), *terms, rate, beta1, beta2, delta, *powers, *losses, before_prox)


class AdamW(Adam):
    DECOUPLED = True

    def _update(self, iteration: int, rate: float, terms: Terms, before_prox: bool = False) -> None:
        # Adam's kernel adds delta before the bias correction of the root; AdamW adds it after.
        delta = self.solver.delta * math.sqrt(1 - self.solver.momentum2 ** (iteration + 1))
        decay = self._terms(1.0, rate * self.decay)
        losses = (decay.l2, decay.l1)
        if self.decay and self.multipliers is not None:
            self._run(kernels.decay, self._flat(self.param.blob.data), *losses, self.multipliers)
            losses = (0.0, 0.0)
        self._adam(iteration, rate, terms, delta, losses, before_prox)
