"""The update rules: one small object a parameter, with the arrays that the rule remembers. ``updates`` chooses among them.

What happens to a parameter in an iteration reads as a list (``Update.__call__``): normalise, regularise, update, prox.
The kernels do several of these in one pass over the memory where they can: normalise and regularise hand on what is
left for the kernel of the rule (``Terms``), and the momentum rules take the prox of one kind of groups along.

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

The proximal step is taken in the metric of the rule: a step size for the whole parameter with SGD and Nesterov (and
what it takes off goes into their momentum, so that they rest at the minimiser), one for each weight with the others.
A weight at zero follows the running mean of its gradients (``group_lasso_memory``). That leaves the minimiser where it
is, for there the gradient of a group at zero is no longer than the strength; but a batch's noise alone wakes none.

Ref: Caffe's solvers; Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2 (AdamW, its
schedule multiplier and alpha both in the rate); Beck and Teboulle 2009 (the prox inside Nesterov's method); Ochs et al.
2014, "iPiano" (with momentum); Lee and Wright 2012, "Manifold Identification in Dual Averaging" (a mean of the gradients
finds the zeros of the minimiser where single batches do not)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.kernels.optim import update as kernels
from sslnet.kernels.optim import update_prox as fused
from sslnet.kernels.optim.prox import LEAST
from sslnet.kernels.optim.update_prox import fits
from sslnet.kernels.runtime.jit import spread
from sslnet.prototxt import Definition
from sslnet.solver.update_settings import decay_multipliers, is_l1
from sslnet.sparsity.groups import penalty_of
from sslnet.sparsity.penalties import Penalty, Tiling

CHUNK = 1 << 16
"""Values that are summed up in one go, so that the sum needs no memory of the parameter's size."""


class Terms(NamedTuple):
    """What the kernel of a rule still has to do to the gradient: g = scale * grad + l2 * w + l1 * sign(w).

    mean, memory   running mean of the gradients that weights at zero follow, flat; empty where they follow the batch
    """

    mean: np.ndarray
    memory: float
    scale: float
    l2: float
    l1: float


class Update(ABC):
    """Updates one parameter. Subclasses are final and stand in ``UPDATES``.

    param    a sslnet.net.net.Param
    solver   the solver's definition
    """

    HISTORY: ClassVar[int] = 1
    """Arrays that the rule remembers, of the parameter's shape each."""
    MOMENTA: ClassVar[int] = 0
    """How many of them, the first ones, move the weights on."""
    TAKES_MOMENTUM: ClassVar[bool] = True
    DECOUPLED: ClassVar[bool] = False
    """Whether weight decay acts on the weights themselves, not through the gradient."""

    def __init__(self, param: Any, solver: Definition) -> None:
        self.param = param
        self.solver = solver.message
        self.subgradient = self.solver.group_lasso_update == pb.SolverParameter.SUBGRADIENT
        self.penalty: Penalty | None = penalty_of(param, solver)
        self.keep: np.ndarray | None = None
        """Which weights are trained, one byte each: 0 for those frozen at zero. None: all."""
        self.multipliers = decay_multipliers(param)
        self.l1 = is_l1(param, solver)
        self.decay: float = self.solver.weight_decay * param.decay_mult
        memory = self.solver.group_lasso_memory
        self.mean: np.ndarray | None = np.zeros(param.blob.shape, param.blob.dtype) if self.prox and memory else None
        """Running mean of the gradients, of a parameter with a penalty."""
        self.history: list[np.ndarray] = [np.zeros(param.blob.shape, param.blob.dtype) for _ in range(self.HISTORY)]
        self.bias: Update | None = None
        """That of the bias which the groups of this parameter take along."""
        self.led = False
        """Whether it is updated together with others: a bias with the weights that take it along, all of a coupled group."""

    @property
    def prox(self) -> Penalty | None:
        """The penalty, where it acts by its proximal step."""
        return None if self.subgradient else self.penalty

    def take_along(self, bias: Update) -> None:
        """The groups of this parameter take along the values of another one, and become zero together."""
        self.bias, bias.led = bias, True
        if self.mean is not None:
            bias.mean = np.zeros(bias.param.blob.shape, bias.param.blob.dtype)

    def forget_frozen(self) -> None:
        """Drops what is remembered of weights that are frozen, for it would move them: momentum, means, duals."""
        if self.keep is None:
            return
        for array in (*self.history, *([] if self.mean is None else [self.mean])):
            self._flat(array)[self.keep == 0] = 0
        if self.penalty is not None:
            self.penalty.set_state([])

    def penalty_value(self) -> float:
        """The penalty's part of the objective now."""
        bias = self.bias.param.blob.data if self.bias else None
        return self.penalty.value(self.param.blob.data, bias) if self.penalty else 0.0

    def decay_value(self) -> float:
        """Weight decay's part of the objective now; 0 where it acts on the weights themselves."""
        if not self.decay or self.DECOUPLED:
            return 0.0
        total = 0.0
        for i in range(0, self.param.blob.count, CHUNK):
            w = self._flat(self.param.blob.data)[i : i + CHUNK]
            terms = np.abs(w) if self.l1 else w * w / 2
            if self.multipliers is not None:
                terms *= self.multipliers[i : i + CHUNK]
            total += float(terms.sum(dtype=np.float64))
        return self.decay * total

    def smooth_gradient(self, batches: int) -> np.ndarray:
        """The gradient of all but the penalty, float64, where diff is the sum over batches; 0 for frozen weights."""
        w = self.param.blob.data.astype(np.float64)
        gradient: np.ndarray = self.param.blob.diff / np.float64(batches)
        if self.decay and not self.DECOUPLED:
            multipliers = 1.0 if self.multipliers is None else self.multipliers.reshape(w.shape)
            gradient += self.decay * multipliers * (np.sign(w) if self.l1 else w)
        return gradient if self.keep is None else gradient * self.keep.reshape(w.shape)

    def mean_gradient(self, iteration: int, scale: float) -> np.ndarray:
        """The running mean of the gradients after that iteration, made free of its start from zero, and what decay adds."""
        assert self.mean is not None
        weight = scale / (1 - self.solver.group_lasso_memory ** (iteration + 1))
        gradient = self.mean * self.mean.dtype.type(weight)
        if self.decay and not self.DECOUPLED:
            w = self.param.blob.data
            multipliers = 1.0 if self.multipliers is None else self.multipliers.reshape(w.shape)
            gradient += self.decay * multipliers * (np.sign(w) if self.l1 else w)
        return gradient

    def long_step(self, learning_rate: float) -> float | np.ndarray:
        """How far the step just made would move the weights in the iterations that their mean remembers."""
        return self.step_size(learning_rate) / (1 - self.solver.group_lasso_memory)

    def rest(self, where: np.ndarray) -> None:
        """Weights not yet zero become it, and what moves them on.  [overwrites the blob's data, the momenta]"""
        w = self.param.blob.data
        where = where & (w != 0)
        for array in (w, *self.history[: self.MOMENTA]):
            array[where] = 0

    def __call__(self, iteration: int, learning_rate: float, scale: float) -> None:
        """One step, iterations counted from 0. scale: what the summed gradient is multiplied by before all else."""
        rate = self.rate(learning_rate)
        if rate == 0 or self.led:
            return
        if self.bias is not None:
            bias_rate = self.bias.rate(learning_rate)
            self.bias._step(iteration, bias_rate, self.bias._prepare(bias_rate, scale))
        self._update_and_prox(iteration, rate, self._prepare(rate, scale))

    def rate(self, learning_rate: float) -> float:
        """The local rate, learning rate * lr_mult; 0 where it is a denormal of float32, with which the kernels cannot work."""
        rate: float = learning_rate * self.param.lr_mult
        return 0.0 if abs(rate) < LEAST else rate

    def _prepare(self, rate: float, scale: float) -> Terms:
        """All that comes before the rule's own formula."""
        self._freeze()
        return self._normalise_and_regularise(scale)

    def _freeze(self) -> None:
        """Frozen weights get no gradient."""
        if self.keep is not None:
            self._run(kernels.mask, self._flat(self.param.blob.diff), self.keep)

    def _normalise_and_regularise(self, scale: float) -> Terms:
        """Decay by L2 or L1, and the group lasso's sub-gradient where that is asked for."""
        terms = self._terms(scale, 0.0 if self.DECOUPLED else self.decay)
        weighed = self.multipliers is not None and not self.DECOUPLED
        by_subgradient = self.penalty is not None and self.subgradient
        if not weighed and not by_subgradient:
            return terms
        blob = self.param.blob
        if self.mean is not None:
            arrays = (blob.data, blob.diff, self.mean)
            self._run(kernels.calm, *map(self._flat, arrays), self.solver.group_lasso_memory)
        self._run(kernels.regularise, self._flat(blob.data), self._flat(blob.diff), *terms[2:], self._multipliers())
        if by_subgradient and self.penalty is not None:
            self.penalty.add_subgradient(blob.data, blob.diff)
        return Terms(self._empty, 0.0, 1.0, 0.0, 0.0)

    def _terms(self, scale: float, decay: float) -> Terms:
        mean = self._empty if self.mean is None else self._flat(self.mean)
        memory = float(self.solver.group_lasso_memory)
        return Terms(mean, memory, float(scale), 0.0 if self.l1 else decay, decay if self.l1 else 0.0)

    def _multipliers(self) -> np.ndarray:
        """Those of the decay of each weight; size 0: all are 1."""
        return self._empty if self.multipliers is None else self.multipliers

    @property
    def _empty(self) -> np.ndarray:
        """What kernels are given in place of an array that there is not."""
        return np.empty(0, self.param.blob.dtype)

    @abstractmethod
    def _update_and_prox(self, iteration: int, rate: float, terms: Terms) -> None:
        """The rule's own formula, and the proximal step in its metric.  [overwrites the blob's data, the history]"""

    @abstractmethod
    def _step(self, iteration: int, rate: float, terms: Terms) -> None:
        """The rule's own formula as far as the proximal step."""

    def step(self, iteration: int, learning_rate: float, scale: float) -> None:
        """All of ``__call__`` but the proximal step, for those who take it over several parameters at once."""
        rate = self.rate(learning_rate)
        self._step(iteration, rate, self._prepare(rate, scale))

    @abstractmethod
    def step_size(self, learning_rate: float) -> float | np.ndarray:
        """That of the ``step`` just made: the metric of the proximal step which follows. One, or one for each value."""

    def after_prox(self, before: np.ndarray) -> None:  # noqa: B027 - adaptive rules have no momentum of the weights
        """To be told when the proximal step has been taken from ``before``, for the rule's momentum."""

    def _run(self, kernel: Callable[..., None], *args: Any) -> None:
        """Runs a kernel over the elements of the parameter."""
        spread(kernel, self.param.blob.count, 1, *args)

    @staticmethod
    def _flat(array: np.ndarray) -> np.ndarray:
        return array.reshape(-1)

    def _flat_arrays(self) -> tuple[np.ndarray, ...]:
        """Weights, gradient and history, flat."""
        blob = self.param.blob
        return tuple(self._flat(array) for array in (blob.data, blob.diff, *self.history))


class _Momentum(Update):
    """What SGD and Nesterov share."""

    NESTEROV: ClassVar[bool]
    MOMENTA = 1

    def _update_and_prox(self, iteration: int, rate: float, terms: Terms) -> None:
        prox = self.prox
        if prox is None:
            self._run(kernels.momentum, *self._flat_arrays(), *self._settings(rate, terms), True, 0.0)
        elif len(prox.tilings) == 1 and self.bias is None:
            self._fused(prox.shape, prox.tilings[0], rate, terms)
        else:
            self._step(iteration, rate, terms)
            w, h, bias = self.param.blob.data, self.history[0], self.bias
            if bias is not None:
                before = bias.param.blob.data.copy()
                prox.prox(w, rate, h, bias.param.blob.data, rate * bias.param.lr_mult / self.param.lr_mult)
                bias.after_prox(before)
            else:
                prox.prox(w, rate, h)
            self._look_ahead()

    def _fused(self, shape: tuple[int, int], tiling: Tiling, rate: float, terms: Terms) -> None:
        """The step and the prox of one tiling, in one pass over the memory; in two where its tiles are tall and large."""
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

    def _step(self, iteration: int, rate: float, terms: Terms) -> None:
        self._run(kernels.momentum, *self._flat_arrays(), *self._settings(rate, terms), False, 0.0)

    def _settings(self, rate: float, terms: Terms) -> tuple[Any, ...]:
        return (*terms, rate, self.solver.momentum, self.NESTEROV)

    def step_size(self, learning_rate: float) -> float:
        return self.rate(learning_rate)

    def long_step(self, learning_rate: float) -> float | np.ndarray:
        return super().long_step(learning_rate) / (1 - self.solver.momentum)

    def after_prox(self, before: np.ndarray) -> None:
        self.history[0] += before - self.param.blob.data
        self._look_ahead()

    def _look_ahead(self) -> None:
        if self.NESTEROV:
            w, _, h = self._flat_arrays()
            self._run(kernels.look_ahead, w, h, self.solver.momentum)


class SGD(_Momentum):
    NESTEROV = False


class Nesterov(_Momentum):
    NESTEROV = True


class _Adaptive(Update):
    """What the rules share that have a step size for each weight."""

    def _update_and_prox(self, iteration: int, rate: float, terms: Terms) -> None:
        prox = self.prox
        self._update(iteration, rate, terms, keep_steps=prox is not None)
        if prox is not None:
            # The kernel left the step sizes in the gradient's place, which is not needed any more.
            blobs = [update.param.blob for update in (self, self.bias) if update is not None]
            prox.prox_diagonal(*(array for blob in blobs for array in (blob.data, blob.diff)))

    def _step(self, iteration: int, rate: float, terms: Terms) -> None:
        self._update(iteration, rate, terms, keep_steps=True)

    def step_size(self, learning_rate: float) -> np.ndarray:
        return self.param.blob.diff  # where the kernel left them

    @abstractmethod
    def _update(self, iteration: int, rate: float, terms: Terms, keep_steps: bool) -> None:
        """The rule's formula. keep_steps: leave each weight's step size in its gradient's place."""


class AdaGrad(_Adaptive):
    TAKES_MOMENTUM = False

    def _update(self, iteration: int, rate: float, terms: Terms, keep_steps: bool) -> None:
        self._run(kernels.adagrad, *self._flat_arrays(), *terms, rate, self.solver.delta, keep_steps)


class RMSProp(_Adaptive):
    TAKES_MOMENTUM = False

    def _update(self, iteration: int, rate: float, terms: Terms, keep_steps: bool) -> None:
        settings = (self.solver.rms_decay, self.solver.delta, keep_steps)
        self._run(kernels.rmsprop, *self._flat_arrays(), *terms, rate, *settings)


class AdaDelta(_Adaptive):
    HISTORY = 2

    def _update(self, iteration: int, rate: float, terms: Terms, keep_steps: bool) -> None:
        settings = (self.solver.momentum, self.solver.delta, keep_steps)
        self._run(kernels.adadelta, *self._flat_arrays(), *terms, rate, *settings)


class Adam(_Adaptive):
    HISTORY = 2
    MOMENTA = 1

    def _update(self, iteration: int, rate: float, terms: Terms, keep_steps: bool) -> None:
        self._adam(iteration, rate, terms, self.solver.delta, (0.0, 0.0), keep_steps)

    def _adam(
        self, iteration: int, rate: float, terms: Terms, delta: float, losses: tuple[float, float], keep_steps: bool
    ) -> None:
        """losses: what decay takes off the weights themselves, by L2 and L1."""
        beta1, beta2 = self.solver.momentum, self.solver.momentum2
        powers = (beta1 ** (iteration + 1), beta2 ** (iteration + 1))
        self._run(kernels.adam, *self._flat_arrays(), *terms, rate, beta1, beta2, delta, *powers, *losses, keep_steps)


class AdamW(Adam):
    DECOUPLED = True

    def _update(self, iteration: int, rate: float, terms: Terms, keep_steps: bool) -> None:
        # Adam's kernel adds delta before it corrects the root; here it belongs to the corrected one.
        delta = self.solver.delta * math.sqrt(1 - self.solver.momentum2 ** (iteration + 1))
        decay = self._terms(1.0, rate * self.decay)
        losses = (decay.l2, decay.l1)
        if self.decay and self.multipliers is not None:
            self._run(kernels.decay, self._flat(self.param.blob.data), *losses, self.multipliers)
            losses = (0.0, 0.0)
        self._adam(iteration, rate, terms, delta, losses, keep_steps)
