"""The update rules: one small object a parameter, with the arrays that the rule remembers.

What happens to a parameter in an iteration reads as a list (``Update.__call__``): normalise, regularise, update, prox.
The kernels do several of these in one pass over the memory where they can: normalise and regularise hand on what is
left for the kernel of the rule (``Terms``), and the momentum rules take the prox along.

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
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, suggestion
from sslnet.files import resolve
from sslnet.groups import conv_groups, matrix_shape, penalty_of
from sslnet.kernels import update as kernels
from sslnet.kernels.jit import spread
from sslnet.penalties import Penalty
from sslnet.prototxt import Definition
from sslnet.weights import blob_array, read_message


class Terms(NamedTuple):
    """What the kernel of a rule still has to do to the gradient: g = scale * grad + l2 * w + l1 * sign(w)."""

    scale: float
    l2: float
    l1: float


class Update(ABC):
    """Updates one parameter. Subclasses are final and stand in ``UPDATES``.

    param    a sslnet.net.Param
    solver   the solver's definition
    """

    HISTORY: ClassVar[int] = 1
    """Arrays that the rule remembers, of the parameter's shape each."""
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
        self.multipliers = _decay_multipliers(param)
        self.l1 = _is_l1(param, solver)
        self.decay: float = self.solver.weight_decay * param.decay_mult
        memory = self.solver.group_lasso_memory
        self.mean: np.ndarray | None = np.zeros(param.blob.shape, param.blob.dtype) if self.prox and memory else None
        """Running mean of the gradients, of a parameter with a penalty."""
        self.history: list[np.ndarray] = [np.zeros(param.blob.shape, param.blob.dtype) for _ in range(self.HISTORY)]
        self.bias: Update | None = None
        """That of the bias which the groups of this parameter take along."""
        self.led = False
        """Whether this is such a bias: then it is updated with the weights that take it along."""

    @property
    def prox(self) -> Penalty | None:
        """The penalty, where it acts by its proximal step."""
        return None if self.subgradient else self.penalty

    def take_along(self, bias: Update) -> None:
        """The groups of this parameter take along the values of another one, and become zero together."""
        self.bias, bias.led = bias, True
        if self.mean is not None:
            bias.mean = np.zeros(bias.param.blob.shape, bias.param.blob.dtype)

    def penalty_value(self) -> float:
        """The penalty's part of the objective now."""
        bias = self.bias.param.blob.data if self.bias else None
        return self.penalty.value(self.param.blob.data, bias) if self.penalty else 0.0

    def smooth_gradient(self, batches: int) -> np.ndarray:
        """The gradient of all but the penalty, float64, where diff is the sum over batches; 0 for frozen weights."""
        w = self.param.blob.data.astype(np.float64)
        gradient: np.ndarray = self.param.blob.diff / np.float64(batches)
        if self.decay and not self.DECOUPLED:
            multipliers = 1.0 if self.multipliers is None else self.multipliers.reshape(w.shape)
            gradient += self.decay * multipliers * (np.sign(w) if self.l1 else w)
        return gradient if self.keep is None else gradient * self.keep.reshape(w.shape)

    def __call__(self, iteration: int, learning_rate: float, scale: float) -> None:
        """One step, iterations counted from 0. scale: what the summed gradient is multiplied by before all else."""
        rate = learning_rate * self.param.lr_mult
        if rate == 0 or self.led:
            return
        if self.bias is not None:
            bias_rate = learning_rate * self.bias.param.lr_mult
            self.bias._step(iteration, bias_rate, self.bias._prepare(bias_rate, scale))
        self._update_and_prox(iteration, rate, self._prepare(rate, scale))

    def _prepare(self, rate: float, scale: float) -> Terms:
        """All that comes before the rule's own formula."""
        self._freeze()
        self._calm()
        if self.DECOUPLED:
            self._decay(rate)
        return self._normalise_and_regularise(scale)

    def _freeze(self) -> None:
        """Frozen weights get no gradient."""
        if self.keep is not None:
            self._run(kernels.mask, self._flat(self.param.blob.diff), self.keep)

    def _calm(self) -> None:
        """Weights at zero get the running mean of their gradients in place of the batch's."""
        if self.mean is not None:
            arrays = (self.param.blob.data, self.param.blob.diff, self.mean)
            self._run(kernels.calm, *map(self._flat, arrays), self.solver.group_lasso_memory)

    def _decay(self, rate: float) -> None:
        """w -= rate * multipliers * (l2 * w + l1 * sign(w))."""
        if self.decay:
            _, l2, l1 = self._terms(1.0, rate * self.decay)
            self._run(kernels.decay, self._flat(self.param.blob.data), l2, l1, self._multipliers())

    def _normalise_and_regularise(self, scale: float) -> Terms:
        """Decay by L2 or L1, and the group lasso's sub-gradient where that is asked for."""
        terms = self._terms(scale, 0.0 if self.DECOUPLED else self.decay)
        weighed = self.multipliers is not None and not self.DECOUPLED
        by_subgradient = self.penalty is not None and self.subgradient
        if not weighed and not by_subgradient:
            return terms
        blob = self.param.blob
        self._run(kernels.regularise, self._flat(blob.data), self._flat(blob.diff), *terms, self._multipliers())
        if by_subgradient and self.penalty is not None:
            self.penalty.add_subgradient(blob.data, blob.diff)
        return Terms(1.0, 0.0, 0.0)

    def _terms(self, scale: float, decay: float) -> Terms:
        return Terms(float(scale), 0.0 if self.l1 else decay, decay if self.l1 else 0.0)

    def _multipliers(self) -> np.ndarray:
        """Those of the decay of each weight; size 0: all are 1."""
        return np.empty(0, self.param.blob.dtype) if self.multipliers is None else self.multipliers

    @abstractmethod
    def _update_and_prox(self, iteration: int, rate: float, terms: Terms) -> None:
        """The rule's own formula, and the proximal step in its metric.  [overwrites the blob's data, the history]"""

    @abstractmethod
    def _step(self, iteration: int, rate: float, terms: Terms) -> None:
        """The rule's own formula as far as the proximal step."""

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

    def _update_and_prox(self, iteration: int, rate: float, terms: Terms) -> None:
        mu = self.solver.momentum
        prox = self.prox
        if prox is None:
            self._run(kernels.momentum, *self._flat_arrays(), *terms, rate, mu, self.NESTEROV, True)
        elif len(prox.tilings) == 1 and self.bias is None:
            tiling, panels = prox.tilings[0], prox.panels[0]
            arrays = (
                array.reshape(prox.shape) for array in (self.param.blob.data, self.param.blob.diff, *self.history)
            )
            sizes = (tiling.height, tiling.width, panels.span)
            settings = (*terms, rate, mu, self.NESTEROV, *sizes, rate * tiling.strength)
            spread(kernels.momentum_prox, panels.count, -(-self.param.blob.count // panels.count), *arrays, *settings)
        else:
            self._step(iteration, rate, terms)
            w, h, bias = self.param.blob.data, self.history[0], self.bias
            if isinstance(bias, _Momentum):
                before = bias.param.blob.data.copy()
                prox.prox(w, rate, h, bias.param.blob.data, rate * bias.param.lr_mult / self.param.lr_mult)
                bias.history[0] += before - bias.param.blob.data
                bias._look_ahead()
            else:
                prox.prox(w, rate, h)
            self._look_ahead()

    def _step(self, iteration: int, rate: float, terms: Terms) -> None:
        settings = (*terms, rate, self.solver.momentum, self.NESTEROV, False)
        self._run(kernels.momentum, *self._flat_arrays(), *settings)

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

    def _update(self, iteration: int, rate: float, terms: Terms, keep_steps: bool) -> None:
        beta1, beta2 = self.solver.momentum, self.solver.momentum2
        settings = (beta1, beta2, self.solver.delta, beta1 ** (iteration + 1), beta2 ** (iteration + 1), keep_steps)
        self._run(kernels.adam, *self._flat_arrays(), *terms, rate, *settings)


class AdamW(_Adaptive):
    HISTORY = 2
    DECOUPLED = True

    def _update(self, iteration: int, rate: float, terms: Terms, keep_steps: bool) -> None:
        beta1, beta2 = self.solver.momentum, self.solver.momentum2
        power1, power2 = beta1 ** (iteration + 1), beta2 ** (iteration + 1)
        # Adam's kernel adds delta before it corrects the root; here it belongs to the corrected one.
        delta = self.solver.delta * math.sqrt(1 - power2)
        self._run(kernels.adam, *self._flat_arrays(), *terms, rate, beta1, beta2, delta, power1, power2, keep_steps)


UPDATES: dict[str, type[Update]] = {
    "SGD": SGD,
    "Nesterov": Nesterov,
    "AdaGrad": AdaGrad,
    "RMSProp": RMSProp,
    "AdaDelta": AdaDelta,
    "Adam": Adam,
    "AdamW": AdamW,
}

OLD_TYPES = {
    pb.SolverParameter.SGD: "SGD",
    pb.SolverParameter.NESTEROV: "Nesterov",
    pb.SolverParameter.ADAGRAD: "AdaGrad",
    pb.SolverParameter.RMSPROP: "RMSProp",
    pb.SolverParameter.ADADELTA: "AdaDelta",
    pb.SolverParameter.ADAM: "Adam",
}
"""The enum ``solver_type`` of 2015 and before, as today's ``type``."""


def update_type(solver: Definition) -> str:
    """The update rule that a solver names, by ``type`` or by the old ``solver_type``.

    raises DefinitionError for an unknown rule, and for a momentum or share that the rule cannot work with
    """
    param = solver.message
    old = param.HasField("solver_type") and not param.HasField("type")
    name = OLD_TYPES[param.solver_type] if old else param.type
    if name not in UPDATES:
        hint = suggestion(name, UPDATES) or f"one of {', '.join(UPDATES)}"
        raise _error(solver, f'unknown solver type "{name}"', "type", hint)
    if param.momentum and not UPDATES[name].TAKES_MOMENTUM:
        raise _error(solver, f"{name} has no momentum, and momentum is {param.momentum:g}", "momentum", "remove it")
    for share in ("momentum", "momentum2", "rms_decay", "group_lasso_memory"):
        value = getattr(param, share)
        if not 0 <= value < 1:
            raise _error(solver, f"{share} must be at least 0 and below 1, not {value:g}", share)
    return name


def make_updates(params: Sequence[Any], solver: Definition) -> list[Update]:
    """An update for each learnable parameter, in their order, also for those that are not trained (lr_mult 0).

    raises DefinitionError for a bias that its filters cannot take along
    """
    cls = UPDATES[update_type(solver)]
    updates: list[Update] = [cls(param, solver) for param in params]
    for update in updates:
        if update.penalty is not None and update.penalty.takes_bias and update.param.lr_mult:
            update.take_along(_bias_of(update.param, updates))
    return updates


def _bias_of(param: Any, updates: Sequence[Update]) -> Update:
    """The update of the bias of a layer, of which param is the weights."""
    found = [update for update in updates if update.param.layer is param.layer and update.param.index == 1]
    if not found:
        raise _bias_error(param, "is shared with another layer")
    (bias,) = found
    if not bias.param.lr_mult:
        raise _bias_error(param, "is not trained, its lr_mult is 0")
    if bias.penalty is not None:
        raise _bias_error(param, "has a group lasso of its own")
    return bias


def _bias_error(param: Any, why: str) -> DefinitionError:
    message = f"the groups of {param.name} cannot take along the bias: it {why}"
    return DefinitionError(message, span=param.span("group_lasso"), layer=param.layer.name)


# -- connectivity: zeros that stay ---------------------------------------------------------------------------------------


def frozen(param: Any) -> np.ndarray | None:
    """Which weights ``connectivity_mode`` lets train, given their values now: one byte each, 0 for those kept at zero.

    DISCONNECTED_ELTWISE keeps each zero; DISCONNECTED_GRPWISE each row and each column that is zero throughout, for
    every conv group. Only the layer's first blob, its weights; None where all are trained.
    """
    mode = param.layer.param.connectivity_mode
    if mode == pb.CONNECTED or param.index != 0:
        return None
    alive = param.blob.data != 0
    if mode == pb.DISCONNECTED_GRPWISE:
        rows, columns = matrix_shape(alive.shape)
        groups = conv_groups(param)
        banks = alive.reshape(groups, rows // groups, columns)
        alive = banks.any(axis=2, keepdims=True) & banks.any(axis=1, keepdims=True)
    return np.ascontiguousarray(alive.reshape(-1)).view(np.uint8)


# -- from the definitions ------------------------------------------------------------------------------------------------


def _is_l1(param: Any, solver: Definition) -> bool:
    """Whether weight decay is L1 on this parameter: its own regularization_type, else the solver's."""
    own = param.spec.regularization_type
    kind = own or solver.message.regularization_type
    if kind in ("L1", "L2"):
        return kind == "L1"
    message, hint = f'unknown regularization_type "{kind}"', suggestion(kind, ("L1", "L2")) or "L1 or L2"
    if own:
        span = param.span("regularization_type", value=True)
        raise DefinitionError(message, span=span, layer=param.layer.name, hint=hint)
    raise _error(solver, message, "regularization_type", hint)


def _decay_multipliers(param: Any) -> np.ndarray | None:
    """The multipliers of ``decay_proto``, one a weight, flat; None when there is no such file."""
    name = param.spec.decay_proto
    if not name:
        return None
    span, layer = param.span("decay_proto", value=True), param.layer.name
    source = param.layer.definition.source
    path = resolve(name, source.path if source else None, error=DefinitionError, span=span, layer=layer)
    array = blob_array(read_message(path, pb.BlobProto()), path=str(path), layer=layer)
    if array.size != param.blob.count:
        message = f"{array.size} decay multipliers for {param.name}, which has {param.blob.count} weights"
        raise DefinitionError(message, span=span, layer=layer)
    return array.reshape(-1).astype(param.blob.dtype)


def _error(solver: Definition, message: str, field: str, hint: str = "") -> DefinitionError:
    return DefinitionError(message, span=solver.span(field, value=True), path=solver.path, hint=hint)
