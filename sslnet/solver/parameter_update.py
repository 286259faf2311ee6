"""The update of one parameter in an iteration, common to all update rules: normalise, regularise, update.

Where possible, a rule's kernel does all of these in one pass over the memory; ``Terms`` holds the normalisation and
regularisation that the kernel still has to apply. Penalties are applied in ``penalized_update``.

A zero weight under a penalty is updated with the running mean of its gradients (``group_lasso_memory``) instead of the
batch's gradient. This does not change the minimiser, where the gradient norm of a zero group is at most its strength, but
the noise of a single batch no longer makes a group non-zero.

Ref: Lee and Wright 2012, "Manifold Identification in Dual Averaging" (a mean of the gradients finds the zeros of the
minimiser where single batches do not)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from sslnet.kernels.optim import update as kernels
from sslnet.kernels.optim.prox import LEAST
from sslnet.kernels.runtime.jit import spread
from sslnet.prototxt import Definition
from sslnet.solver.update_settings import decay_multipliers, is_l1
from sslnet.sparsity.penalty import Penalty

CHUNK = 1 << 16
"""Number of values summed at a time, so that the sum needs no temporary array of the parameter's size."""


class Terms(NamedTuple):
    """The regularised gradient that the kernel of a rule has to form: g = scale * grad + l2 * w + l1 * sign(w).

    mean, memory   running mean of the gradients, flat, used for zero weights, and its decay factor; an empty mean: zero
                   weights use the batch's gradient
    """

    mean: np.ndarray
    memory: float
    scale: float
    l2: float
    l1: float


class Update(ABC):
    """Updates one parameter. Each update rule is a subclass, listed in ``UPDATES``.

    param    a sslnet.net.net.Param
    solver   the solver's definition
    """

    HISTORY: ClassVar[int] = 1
    """Number of history arrays of the rule, each of the parameter's shape."""
    MOMENTA: ClassVar[int] = 0
    """Number of history arrays, from the first, that are momenta: they move weights even where the gradient is zero."""
    TAKES_MOMENTUM: ClassVar[bool] = True
    DECOUPLED: ClassVar[bool] = False
    """Whether weight decay is applied to the weights directly instead of through the gradient."""

    def __init__(self, param: Any, solver: Definition) -> None:
        self.param = param
        self.solver = solver.message
        self.keep: np.ndarray | None = None
        """Mask of trained weights, one byte each: 0 for weights frozen at zero. None: all are trained."""
        self.multipliers = decay_multipliers(param)
        self.l1 = is_l1(param, solver)
        self.decay: float = self.solver.weight_decay * param.decay_mult
        self.mean: np.ndarray | None = None
        """Running mean of the gradients of a parameter under a penalty with proximal steps; else None."""
        self.history: list[np.ndarray] = [np.zeros(param.blob.shape, param.blob.dtype) for _ in range(self.HISTORY)]

    def forget_frozen(self) -> None:
        """Zeroes the history and the mean gradient of frozen weights; momentum would move them otherwise."""
        if self.keep is None:
            return
        for array in (*self.history, *([] if self.mean is None else [self.mean])):
            self._flat(array)[self.keep == 0] = 0

    def decay_value(self) -> float:
        """Current weight decay term of the objective; 0 for decoupled decay."""
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
        """Gradient of the objective without the penalty, float64; diff holds the sum over batches. 0 for frozen weights."""
        w = self.param.blob.data.astype(np.float64)
        gradient: np.ndarray = self.param.blob.diff / np.float64(batches)
        if self.decay and not self.DECOUPLED:
            multipliers = 1.0 if self.multipliers is None else self.multipliers.reshape(w.shape)
            gradient += self.decay * multipliers * (np.sign(w) if self.l1 else w)
        return gradient if self.keep is None else gradient * self.keep.reshape(w.shape)

    def mean_gradient(self, iteration: int, scale: float) -> np.ndarray:
        """Running mean of the gradients after this iteration, corrected for its start at zero, plus the gradient of
        weight decay."""
        assert self.mean is not None
        weight = scale / (1 - self.solver.group_lasso_memory ** (iteration + 1))
        gradient: np.ndarray = self.mean * self.mean.dtype.type(weight)
        if self.decay and not self.DECOUPLED:
            w = self.param.blob.data
            multipliers = 1.0 if self.multipliers is None else self.multipliers.reshape(w.shape)
            gradient += self.decay * multipliers * (np.sign(w) if self.l1 else w)
        return gradient

    def long_step(self, learning_rate: float) -> float | np.ndarray:
        """Size of the last step, multiplied by the memory length of the mean gradient, 1 / (1 - memory)."""
        memory: float = self.solver.group_lasso_memory
        return self.step_size(learning_rate) / (1 - memory)

    def rest(self, where: np.ndarray) -> None:
        """Sets the weights in ``where`` and their momenta to zero.  [overwrites the blob's data, the momenta]"""
        w = self.param.blob.data
        where = where & (w != 0)
        for array in (w, *self.history[: self.MOMENTA]):
            array[where] = 0

    def __call__(self, iteration: int, learning_rate: float, scale: float, penalty: Penalty | None = None) -> None:
        """Makes one step without a proximal step; iterations count from 0.

        scale    factor applied first to the summed gradient
        penalty  a penalty that acts by its subgradient
        """
        rate = self.rate(learning_rate)
        if rate != 0:
            self._update(iteration, rate, self._prepare(scale, penalty))

    def step(self, iteration: int, learning_rate: float, scale: float) -> None:
        """Makes the part of a step that precedes the proximal step; the caller then applies the proximal step."""
        self._update(iteration, self.rate(learning_rate), self._prepare(scale), before_prox=True)

    def step_and_prox(self, iteration: int, learning_rate: float, scale: float, penalty: Penalty) -> bool:
        """Makes a step and its proximal step in one pass. Returns False, and does nothing, if there is no kernel for this
        rule and penalty."""
        return False

    def rate(self, learning_rate: float) -> float:
        """The local rate, learning rate * lr_mult; 0 if it is a float32 denormal, which the kernels do not support."""
        rate: float = learning_rate * self.param.lr_mult
        return 0.0 if abs(rate) < LEAST else rate

    def _prepare(self, scale: float, penalty: Penalty | None = None) -> Terms:
        """Applies the freeze mask, normalises and regularises; returns the terms left for the rule's kernel."""
        self._freeze()
        return self._normalise_and_regularise(scale, penalty)

    def _freeze(self) -> None:
        """Zeroes the gradient of frozen weights."""
        if self.keep is not None:
            self._run(kernels.mask, self._flat(self.param.blob.diff), self.keep)

    def _normalise_and_regularise(self, scale: float, penalty: Penalty | None) -> Terms:
        """Applies weight decay, L2 or L1, and the subgradient of a penalty, or defers decay to the rule's kernel."""
        terms = self._terms(scale, 0.0 if self.DECOUPLED else self.decay)
        weighed = self.multipliers is not None and not self.DECOUPLED
        if not weighed and penalty is None:
            return terms
        blob = self.param.blob
        if self.mean is not None:
            arrays = (blob.data, blob.diff, self.mean)
            self._run(kernels.calm, *map(self._flat, arrays), self.solver.group_lasso_memory)
        self._run(kernels.regularise, self._flat(blob.data), self._flat(blob.diff), *terms[2:], self._multipliers())
        if penalty is not None:
            penalty.add_subgradient([blob.data], [blob.diff])
        return Terms(self._empty, 0.0, 1.0, 0.0, 0.0)

    def _terms(self, scale: float, decay: float) -> Terms:
        mean = self._empty if self.mean is None else self._flat(self.mean)
        memory = float(self.solver.group_lasso_memory)
        return Terms(mean, memory, float(scale), 0.0 if self.l1 else decay, decay if self.l1 else 0.0)

    def _multipliers(self) -> np.ndarray:
        """Weight decay multipliers, one per weight; size 0: all are 1."""
        return self._empty if self.multipliers is None else self.multipliers

    @property
    def _empty(self) -> np.ndarray:
        """Array of size 0, passed to kernels in place of an absent array."""
        return np.empty(0, self.param.blob.dtype)

    @abstractmethod
    def _update(self, iteration: int, rate: float, terms: Terms, before_prox: bool = False) -> None:
        """Applies the rule's formula; before_prox: only the part that precedes the proximal step.

        [overwrites the blob's data, the history; before a proximal step perhaps the gradient]
        """

    @abstractmethod
    def step_size(self, learning_rate: float) -> float | np.ndarray:
        """Step size of the last ``step``, used as the metric of the proximal step: a scalar, or one per weight."""

    @property
    def displacement(self) -> np.ndarray | None:
        """Array to which the proximal step adds the amount that it subtracts from the weights; None without momentum."""
        return None

    def after_prox(self) -> None:  # noqa: B027 - most rules have nothing left to do
        """Applies the part of the rule's formula that follows the proximal step."""

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
