"""The solver: trains a net, tests it and writes snapshots. The steps of one iteration:

    test if due; clear the gradients; forward and backward, iter_size times; smooth the loss; display;
    apply the update (rate, clip, then for each parameter: normalise, regularise, update, prox; settle); snapshot

The solver prints nothing; it reports events to a ``Monitor``.

Ref: Caffe's Solver and SGDSolver
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import BatchError, DataError, UsageError, WeightsError
from sslnet.files import resolve
from sslnet.kernels.optim import update as kernels
from sslnet.kernels.runtime.jit import spread
from sslnet.layers.convolution import Convolution
from sslnet.net.net import Net
from sslnet.net.weights import Copied
from sslnet.prototxt import Definition, Diagnostic
from sslnet.solver import lr_policies
from sslnet.solver.averaged_weights import AveragedWeights
from sslnet.solver.best_snapshot import BestSnapshot
from sslnet.solver.callbacks import Display, Monitor, Test, outputs_of
from sslnet.solver.data_errors import DataErrors
from sslnet.solver.not_finite import not_finite
from sslnet.solver.penalized_update import PenalizedUpdate, penalize, steps_of
from sslnet.solver.run_state import StrengthControl, check_run, nets_of, put_run
from sslnet.solver.snapshot import SolverState, find_weights, read_state, snapshot_prefix
from sslnet.solver.snapshots import Beginning, Snapshots
from sslnet.solver.solver_definition import check, check_aims, make_nets, named_weights, read_definition
from sslnet.solver.test_outputs import mean_outputs
from sslnet.solver.update_settings import clip_factor, freeze, frozen
from sslnet.solver.updates import make_updates
from sslnet.solver.zero_group_test import settle

CUT = 1e-4
"""The SUBGRADIENT update sets weights of smaller magnitude to zero after each iteration, as its authors do."""


class Solver:
    """Trains a net as specified by a SolverParameter.

    source      path of a solver's prototxt, a Definition, or a pb.SolverParameter
    weights     .caffemodel files to start from, in addition to those that the solver names
    snapshot    .solverstate to resume from
    monitor     receives the events of the run
    measure     called with the solver to fill ``Display.sparsity``
    net         net to train instead of the one that the solver names; the test nets are then ``test_nets``
    plain       run the layers' own code only (``Net``);  dtype: numpy.float64 for checks
    lean        nets share memory between their blobs, and with each other (``Net``)
    steering    adjusts the strengths of the penalties during training (``sslnet.compress.control.controller``)
    fallback    folder for snapshots that cannot be written at ``snapshot_prefix``, as on a full disk
    raises      DefinitionError for errors in the solver or a net, WeightsError for files that do not fit

    All random numbers derive from ``.seed``, so that a run can be repeated: random_seed, or drawn from the operating
    system if that is negative; a run resumed from a snapshot written by sslnet uses the seed of that run.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Definition | Any,
        *,
        weights: Sequence[str | os.PathLike[str]] = (),
        snapshot: str | os.PathLike[str] | None = None,
        monitor: Monitor | None = None,
        measure: Callable[[Solver], Any] | None = None,
        net: Net | None = None,
        test_nets: Sequence[Net] = (),
        dtype: Any = np.float32,
        plain: bool = False,
        allow_python: bool = False,
        lean: bool = False,
        steering: StrengthControl | None = None,
        fallback: str | os.PathLike[str] | None = None,
    ) -> None:
        self.definition = read_definition(source)
        self.param = self.definition.message
        self.monitor = monitor or Monitor()
        self.measure = measure
        self.steering = steering
        self.iter, self.current_step, self.smoothed_loss = 0, 0, 0.0
        self.prefix = snapshot_prefix(self.definition)
        self.data_errors = DataErrors(self.param, self._tell_data_error)
        self._beginning: Beginning | None = (
            None  # state at the beginning of the iteration; None once its update is done
        )
        self._updating = False  # whether weights are being changed; an error then leaves no consistent state to save
        self.copied: list[Copied] = []  # the layers copied from each weights file, in order
        self.losses: deque[float] = deque(maxlen=max(1, self.param.average_loss))  # their mean is the smoothed loss
        self._request: str | None = None
        self._shown: tuple[int, float] | None = None
        self._frozen_known = False
        self._subgradient = self.param.group_lasso_update == pb.SolverParameter.SUBGRADIENT
        check(self.definition, prunes=steering is not None)
        self.plateau = lr_policies.PlateauWatch(self.param)
        state = read_state(snapshot) if snapshot is not None else None
        seed = state.seed if state is not None and state.seed is not None else self.param.random_seed
        self.seed = secrets.randbits(63) if seed < 0 else int(seed)
        if net is None:
            settings = {"seed": self.seed, "dtype": dtype, "plain": plain, "allow_python": allow_python, "lean": lean}
            self.net, self.test_nets = make_nets(self.definition, self.monitor.on_warning, settings)
        else:
            self.net, self.test_nets, self.seed = net, list(test_nets), net.seed
        self.updates = make_updates(self.net.learnable, self.definition)
        self.penalties = penalize(self.updates, self.net, self.definition)
        """Active penalties: first those without coupled groups, then those with them."""
        self.ended: list[PenalizedUpdate] = []
        """Penalties that ``keep_zeros`` has ended."""
        self.best = BestSnapshot(self.definition, self.test_nets, steered=steering is not None)
        self.average = AveragedWeights(self.net.learnable, self.param.ema_decay)  # which tests use
        self._snapshots = Snapshots(self, self.monitor, fallback)
        if snapshot is not None and state is not None:
            self._restore(state, snapshot)
        else:
            self.load(*named_weights(self.definition), *weights)
            if self.steering is not None:
                self.steering.start(self)

    def load(self, *weights: str | os.PathLike[str]) -> None:
        """Copies weights into the net by layer name; ``connectivity_mode`` then freezes the zeros of the new weights."""
        for path in weights:
            self.copied.append(self.net.copy_from(resolve(os.fspath(path), self.definition.path, error=WeightsError)))
        self._frozen_known = False
        self.average.restart()

    # -- running -----------------------------------------------------------------------------------------------------

    def solve(self, resume: str | os.PathLike[str] | None = None) -> None:
        """Trains until max_iter, from a .solverstate if given; displays, tests and saves at the end as Caffe does."""
        if resume is not None:
            self.restore(resume)
        check_aims(self.definition, self.net)
        for net in nets_of(self).values():
            net.check_outputs()
        with self._snapshots.own_prefix():
            self._snapshots.begun = self.iter
            self.monitor.on_start(self)
            self._warn_of_idle_penalties()
            try:
                self.step(max(0, self.param.max_iter - self.iter))
            except Exception as error:
                if not self._updating:
                    self._snapshots.write_before(error, self._beginning)
                raise
            stopped = self._request == "stop"
            if self.param.snapshot_after_train or stopped:
                self._snapshots.write_at_the_end()
            if not stopped:
                self._last_words()
        self._request = None
        self.monitor.on_finish(self, stopped)

    def step(self, iterations: int) -> None:
        """Runs the given number of iterations, or fewer if ``request`` asks to stop."""
        end = self.iter + iterations
        self._shown = (self.iter, time.perf_counter())
        while self.iter < end and not self.best.exhausted:
            self._beginning = Beginning(self.net, self.data_errors, statistics=self.param.iter_size > 1)
            if self._is_time(self.param.test_interval) and (self.iter > 0 or self.param.test_initialization):
                self.test()
                if self._request == "stop" or self.best.exhausted:
                    break
            display = self._is_time(self.param.display)
            self.net.on_debug = self.monitor.on_debug if display and self.param.debug_info else None
            loss = self._forward_backward()
            self._smooth(loss)
            self.current_step = self.plateau.drops(self.iter, self.smoothed_loss, self.current_step)
            rate, self.current_step = lr_policies.learning_rate(self.param, self.iter, self.current_step)
            if display:
                self.monitor.on_display(self._display(rate))
            self._updating = True
            self._apply_update(rate)
            self.iter += 1
            self.average.update(self.iter)
            self._updating, self._beginning = False, None
            if self.steering is not None:
                self.steering.after_iteration(self)
            self.monitor.on_iteration(self.iter, self.smoothed_loss)
            if self._is_time(self.param.snapshot) or self._request == "snapshot":
                self._request = None if self._request == "snapshot" else self._request
                self._snapshots.write_on_the_way()
            if self._request == "stop":
                break

    def request(self, action: str) -> None:
        """Requests an action of a running solver, from a signal handler or another thread: "snapshot" after this
        iteration, or "stop", which ends ``solve`` with a snapshot."""
        if action not in ("snapshot", "stop"):
            raise UsageError(f'a solver can be asked for "snapshot" or "stop", not for "{action}"')
        self._request = action

    def test(self, index: int | None = None) -> list[Test]:
        """Tests one test net, or all whose test_iter is not 0; reports to the monitor; ends early if a stop is requested."""
        records = []
        with self.average.in_use():
            for k in range(len(self.test_nets)) if index is None else (index,):
                if not self.param.test_iter[k]:
                    continue
                if (record := self._test(k)) is None:
                    break
                records.append(record)
                self.plateau.tested(k, record.outputs)
                self.monitor.on_test(record)
            if self.best.is_better(records):
                self._snapshots.write_best(self.best)
        return records

    @property
    def is_finished(self) -> bool:
        """Whether the run has reached max_iter, or ended by ``patience``."""
        return self.iter >= self.param.max_iter or self.best.exhausted

    def _forward_backward(self) -> float:
        """Sums the gradients of iter_size batches; returns the mean loss. raises NotFiniteError if it is not finite"""
        self.net.clear_param_diffs()
        total = 0.0
        for _ in range(self.param.iter_size):
            self.data_errors.forward(self.net)
            if not math.isfinite(self.net.loss):
                raise not_finite(self, self.last_snapshot)
            self.net.backward()
            total += self.net.loss
        return float(total / self.param.iter_size)

    def _apply_update(self, rate: float) -> None:
        """Updates the parameters: clip, then for each: normalise, regularise, update, prox; then zero-group test."""
        self._find_frozen()
        scale = clip_factor(self.net.learnable, self.param.clip_gradients) / self.param.iter_size
        for update in steps_of(self.updates, self.penalties):
            update(self.iter, rate, scale)
        if self.param.group_lasso_settle and (self.iter + 1) % self.param.group_lasso_settle == 0:
            settle(self.penalties, self.iter, rate, scale)
        if self._subgradient:
            self._cut()

    def _cut(self) -> None:
        for param in self.net.learnable:
            spread(kernels.cut, param.blob.count, 1, param.blob.data.reshape(-1), CUT)

    def _find_frozen(self) -> None:
        """Determines, once after weights are loaded, the zeros that ``connectivity_mode`` freezes."""
        if not self._frozen_known:
            self._frozen_known = True
            if self._subgradient and any(update.param.layer.param.connectivity_mode for update in self.updates):
                self._cut()
            for update in self.updates:
                update.keep = frozen(update.param)
            self._forget_frozen()

    def scale_penalties(self, factor: float) -> None:
        """Sets the strengths of all penalties to those of the definitions times ``factor``, > 0."""
        for penalized in self.penalties:
            penalized.penalty.scale(factor)

    def _warn_of_idle_penalties(self) -> None:
        """Warns of groups that are not penalised at all, unless ``steering`` adjusts the strengths."""
        for why in (why for each in self.penalties if self.steering is None for why in each.idle()):
            self.monitor.on_warning(Diagnostic("warning", why, path=self.definition.path))

    def keep_zeros(self, penalties: Sequence[PenalizedUpdate] | None = None) -> None:
        """Ends all penalties, or the given ones: their zero weights are frozen at zero, the others are trained without a
        penalty."""
        ended = self.penalties if penalties is None else penalties
        self._find_frozen()
        for update in (update for each in ended for update in each.members):
            nonzero = (update.param.blob.data != 0).reshape(-1).view(np.uint8)
            update.keep = nonzero if update.keep is None else nonzero & update.keep
            update.mean = None
            update.forget_frozen()
        self.ended += ended
        self.penalties = [each for each in self.penalties if each not in ended]
        self._tell_frozen()

    def freeze(self, kept: Mapping[tuple[str, int], np.ndarray]) -> None:
        """Sets weights to zero and trains them no more.  kept: see ``update_settings.freeze``"""
        self._find_frozen()
        freeze(self.updates, kept)
        self._forget_frozen()

    def _forget_frozen(self) -> None:
        """Resets what updates and penalties remember of weights that are frozen from now on."""
        for update in self.updates:
            update.forget_frozen()
        for penalized in self.penalties:
            penalized.forget_frozen()
        self._tell_frozen()

    def _tell_frozen(self) -> None:
        """Lets convolutions skip the gradients of frozen weights, unless clip_gradients needs their norm."""
        for update in self.updates:
            if isinstance(update.param.layer, Convolution) and update.param.index == 0:
                update.param.layer.frozen = update.keep if self.param.clip_gradients < 0 else None

    def memory(self) -> int:
        """Bytes used in training: by the nets, shared memory counted once, and by the history of the updates."""
        nets = [self.net, *self.test_nets]
        shared = sum({id(net.arena): net.arena.size for net in nets}.values())
        kept = sum(array.nbytes for update in self.updates for array in update.history) + self.average.nbytes
        return shared + kept + sum(memory.total - memory.shared for memory in (net.memory() for net in nets))

    # -- reporting ---------------------------------------------------------------------------------------------------

    def penalty(self) -> float:
        """Current value of all penalties, as added to the objective."""
        return sum(each.value() for each in self.penalties)

    def _is_time(self, interval: int) -> bool:
        return interval > 0 and self.iter % interval == 0

    def _smooth(self, loss: float) -> None:
        self.losses.append(loss)
        self.smoothed_loss = sum(self.losses) / len(self.losses)

    def _display(self, rate: float) -> Display:
        now = time.perf_counter()
        before, since = self._shown or (self.iter, now)
        self._shown = (self.iter, now)
        return Display(
            self.iter,
            self.smoothed_loss,
            rate,
            outputs_of(self.net),
            self.penalty(),
            self.iter - before,
            now - since,
            self.measure(self) if self.measure else None,
        )

    def _test(self, index: int) -> Test | None:
        """Tests one test net: mean outputs over its batches; None if a stop was requested during the test."""
        net, started = self.test_nets[index], time.perf_counter()
        before = net.layer_states() if self._beginning is None else self._beginning.add(net)
        stops = lambda: self._request == "stop"  # noqa: E731 one line
        found = mean_outputs(net, self.param, index, self.data_errors, before, stops)
        if found is None:
            return None
        loss = found[1] if self.param.test_compute_loss else None
        return Test(self.iter, index, found[0], loss, time.perf_counter() - started)

    def _last_words(self) -> None:
        """After the last iteration: displays the loss with the final weights and tests the nets, if due."""
        if self._is_time(self.param.display):
            self.data_errors.forward(self.net)
            self._smooth(self.net.loss)
            rate, _ = lr_policies.learning_rate(self.param, self.iter, self.current_step)
            self.monitor.on_display(self._display(rate))
        if self._is_time(self.param.test_interval) and not self.best.exhausted:  # then it has just been tested
            self.test()

    def _tell_data_error(self, error: DataError | BatchError, count: int) -> None:
        left = f"skipped a batch ({count} of at most {self.param.max_data_errors}): {error.message}"
        self.monitor.on_warning(Diagnostic("warning", left, span=error.span, path=error.path, layer=error.layer))

    # -- snapshots ---------------------------------------------------------------------------------------------------

    @property
    def last_snapshot(self) -> str | None:
        """Path of the last .solverstate written or restored."""
        return self._snapshots.last

    def snapshot(self) -> tuple[str, str]:
        """Writes the weights, then the state; returns their paths. If writing at ``snapshot_prefix`` fails, writes to the
        fallback folder, if there is one.

        raises NotFiniteError, and writes nothing, when a weight is not finite; RunError when they cannot be written
        """
        return self._snapshots.write()

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Restores a .solverstate and its weights; a run of sslnet's resumes bit-identically, one of Caffe's does not.

        raises WeightsError if they do not fit; the solver is then unchanged, unless a layer cannot read its own state
        """
        self._restore(read_state(path), path)

    def _restore(self, state: SolverState, path: str | os.PathLike[str]) -> None:
        weights = find_weights(state, path)
        check_run(self, state, path)
        self.copied.append(self.net.copy_from(weights))
        self._snapshots.last, self._snapshots.saved_at = os.fspath(path), state.iteration
        put_run(self, state, path)
        self._frozen_known = any(update.keep is not None for update in self.updates)
        if self.steering is not None:
            self.steering.start(self)
        self._tell_frozen()
        if state.seed is None:
            message = "the snapshot does not say where in the data it was taken: data starts at its first record"
            self.monitor.on_warning(Diagnostic("warning", message, path=os.fspath(path)))
