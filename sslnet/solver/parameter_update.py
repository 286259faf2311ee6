"""What happens to one parameter in an iteration, whatever its rule: normalise, regularise, update.

The kernels do several of these in one pass over the memory where they can: normalise and regularise hand on what is
left for the kernel of the rule (``Terms``). What a penalty adds stands in ``penalized_update``.

A weight under a penalty that is zero follows the running mean of its gradients (``group_lasso_memory``). That leaves
the minimiser where it is, for there the gradient of a group at zero is no longer than the strength; but a batch's noise
alone makes none non-zero.

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
    """Updates one parameter. The rules are subclasses, which are final and stand in ``UPDATES``.

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
        self.keep: np.ndarray | None = None
        """Which weights are trained, one byte each: 0 for those frozen at zero. None: all."""
        self.multipliers = decay_multipliers(param)
        self.l1 = is_l1(param, solver)
        self.decay: float = self.solver.weight_decay * param.decay_mult
        self.mean: np.ndarray | None = None
        """Running mean of the gradients, of a parameter with a penalty that acts by proximal steps."""
        self.history: list[np.ndarray] = [np.zeros(param.blob.shape, param.blob.dtype) for _ in range(self.HISTORY)]

    def forget_frozen(self) -> None:
        """Drops what is remembered of weights that are frozen, for it would move them: momentum, means."""
        if self.keep is None:
            return
        for array in (*self.history, *([] if self.mean is None else [self.mean])):
            self._flat(array)[self.keep == 0] = 0

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
        """The running mean of the gradients after that iteration, made free of its start from zero, and what decay
        adds."""
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

    def __call__(self, iteration: int, learning_rate: float, scale: float, penalty: Penalty | None = None) -> None:
        """One step of a parameter without a proximal step, iterations counted from 0.

        scale    what the summed gradient is multiplied by before all else
        penalty  one that acts by its subgradient
        """
        rate = self.rate(learning_rate)
        if rate != 0:
            self._update(iteration, rate, self._prepare(scale, penalty))

    def step(self, iteration: int, learning_rate: float, scale: float) -> None:
        """The same as far as a proximal step, which is to follow."""
        self._update(iteration, self.rate(learning_rate), self._prepare(scale), before_prox=True)

    def step_and_prox(self, iteration: int, learning_rate: float, scale: float, penalty: Penalty) -> bool:
        """The same and the proximal step in one pass, where rule and penalty have a kernel for it; whether they
        have."""
        return False

    def rate(self, learning_rate: float) -> float:
        """The local rate, learning rate * lr_mult; 0 where it is a denormal of float32, with which the kernels cannot
        work."""
        rate: float = learning_rate * self.param.lr_mult
        return 0.0 if abs(rate) < LEAST else rate

    def _prepare(self, scale: float, penalty: Penalty | None = None) -> Terms:
        """All that comes before the rule's own formula."""
        self._freeze()
        return self._normalise_and_regularise(scale, penalty)

    def _freeze(self) -> None:
        """Frozen weights get no gradient."""
        if self.keep is not None:
            self._run(kernels.mask, self._flat(self.param.blob.diff), self.keep)

    def _normalise_and_regularise(self, scale: float, penalty: Penalty | None) -> Terms:
        """Decay by L2 or L1, and the subgradient of a penalty."""
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
        """Those of the decay of each weight; size 0: all are 1."""
        return self._empty if self.multipliers is None else self.multipliers

    @property
    def _empty(self) -> np.ndarray:
        """What kernels are given in place of an array that there is not."""
        return np.empty(0, self.param.blob.dtype)

    @abstractmethod
    def _update(self, iteration: int, rate: float, terms: Terms, before_prox: bool = False) -> None:
        """The rule's own formula; before_prox: as far as a proximal step that follows.

        [overwrites the blob's data, the history; before a proximal step perhaps the gradient]
        """

    @abstractmethod
    def step_size(self, learning_rate: float) -> float | np.ndarray:
        """That of the ``step`` just made: the metric of the proximal step which follows. One, or one for each value."""

    @property
    def displacement(self) -> np.ndarray | None:
        """What a proximal step adds what it takes off the weights to, for the rule's momentum."""
        return None

    def after_prox(self) -> None:  # noqa: B027 - most rules have nothing left to do
        """What of the rule's formula comes after the proximal step."""

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
