"""The solver: trains a net, tests it, saves what it has learned. One iteration reads as a list:

    test if it is time; clear the gradients; forward and backward, iter_size times; smooth the loss; display;
    apply the update (rate, clip, then for each parameter: normalise, regularise, update, prox; settle); snapshot

It prints nothing: what happens is told to a ``Monitor`` as records.

Ref: Caffe's Solver and SGDSolver
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import (
    BatchError,
    DataError,
    ErrorList,
    NotFiniteError,
    RunError,
    SslnetError,
    UsageError,
    WeightsError,
)
from sslnet.files import make_folder, remove_remains, resolve, sole_user
from sslnet.kernels.optim import update as kernels
from sslnet.kernels.runtime.jit import spread
from sslnet.layers.convolution import Convolution
from sslnet.net.net import Net
from sslnet.net.weights import Copied
from sslnet.prototxt import Definition, Diagnostic, lint_solver
from sslnet.solver import lr_policies
from sslnet.solver.callbacks import Display, Monitor, Test, outputs_of
from sslnet.solver.coupled_groups import CoupledUpdate, couple, put_duals, take_duals
from sslnet.solver.data_errors import DataErrors, Statistics
from sslnet.solver.snapshot import (
    SolverState,
    check_history,
    find_weights,
    put_state,
    read_state,
    snapshot_paths,
    snapshot_prefix,
    take_state,
    write_state,
)
from sslnet.solver.solver_definition import check, check_aims, find_nets, named_weights, net_state, read_definition
from sslnet.solver.update_rules import Update
from sslnet.solver.update_settings import frozen
from sslnet.solver.updates import make_updates
from sslnet.solver.zero_group_test import settle


class StrengthControl(Protocol):
    """What turns a solver's strengths while it trains; its state is part of a run's."""

    def start(self, solver: Any) -> None: ...

    def after_iteration(self, solver: Any) -> None: ...

    def state(self) -> dict[str, np.ndarray]: ...

    def set_state(self, state: dict[str, np.ndarray]) -> None: ...


CUT = 1e-4
"""Below this magnitude the SUBGRADIENT update sets every weight to zero after each iteration, as its authors do."""


class Solver:
    """Trains a net as a SolverParameter says.

    source      path of a solver's prototxt, a Definition, or a pb.SolverParameter
    weights     .caffemodel files to start from, beside those the solver itself names
    snapshot    .solverstate to go on from
    monitor     is told what happens
    measure     called with the solver for ``Display.sparsity``
    net         a net to train instead of the one the solver names; then ``test_nets`` are taken as given, too
    plain       run the layers' own code only (``Net``);  dtype: numpy.float64 for checks
    lean        nets that share memory between their blobs, and with each other (``Net``)
    steering    turns the strengths of the penalties while it trains (``sslnet.compress.control.controller``)
    fallback    a folder for snapshots that cannot be written where ``snapshot_prefix`` says, as on a full disk
    raises      DefinitionError for what the solver or a net says wrong, WeightsError for files that do not fit

    Every random number comes from ``.seed``: random_seed, else drawn from the operating system, so that a run can be
    repeated; a run resumed from a snapshot of ours takes the seed of that run.
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
        self.iter = 0
        self.current_step = 0
        self.smoothed_loss = 0.0
        self.prefix = snapshot_prefix(self.definition)
        self.last_snapshot: str | None = None
        """The last .solverstate written or restored."""
        self._saved_at: int | None = None
        self._fallback = None if fallback is None else os.path.join(fallback, os.path.basename(self.prefix))
        self.data_errors = DataErrors(self.param, self._tell_data_error)
        """Runs the forward passes; counts the batches that were left out."""
        self._start: dict[str, dict[str, bytes]] = {}
        """States of the nets' layers where the iteration began, as far as they may have changed since."""
        self._start_statistics: Statistics | None = None
        self._start_errors = 0
        """The running statistics, and the number of batches left out, at that time."""
        self._begun = 0
        """The iteration at which ``solve`` began: there is nothing new to save before the next one."""
        self._updating = False
        """Whether weights are being changed: an error then leaves nothing that is worth a snapshot."""
        self.copied: list[Copied] = []
        """What each of the weights files brought, in their order."""
        self._losses: deque[float] = deque(maxlen=max(1, self.param.average_loss))
        self._request: str | None = None
        self._shown: tuple[int, float] | None = None
        self._frozen_known = False

        check(self.definition)
        state = read_state(snapshot) if snapshot is not None else None
        seed = state.seed if state is not None and state.seed is not None else self.param.random_seed
        self.seed = secrets.randbits(63) if seed < 0 else int(seed)
        if net is None:
            train, tests = find_nets(self.definition)
            self._lint(train)
            settings = {"seed": self.seed, "dtype": dtype, "plain": plain, "allow_python": allow_python, "lean": lean}
            self.net, self.test_nets = self._build_nets(train, tests, settings)
        else:
            self.net, self.test_nets, self.seed = net, list(test_nets), net.seed
        self.updates = make_updates(self.net.learnable, self.definition)
        self.coupled = couple(self.net, self.updates, self.definition)
        """The updates of parameters that share groups with others."""
        self.ended: list[CoupledUpdate] = []
        """Those whose penalty has ended (``keep_zeros``)."""
        if snapshot is not None and state is not None:
            self._restore(state, snapshot)
        else:
            self.load(*named_weights(self.definition), *weights)
            if self.steering is not None:
                self.steering.start(self)

    # -- construction ------------------------------------------------------------------------------------------------

    def _build_nets(
        self, train: Definition, tests: list[Definition], settings: dict[str, Any]
    ) -> tuple[Net, list[Net]]:
        """The train net, and the test nets that share its parameters."""
        net = Net(train, **net_state(train, pb.TRAIN, self.param.train_state), **settings)
        states = list(self.param.test_state) or [pb.NetState()] * len(tests)
        return net, [Net(test, **net_state(test, pb.TEST, s), share=net, **settings) for test, s in zip(tests, states)]

    def _lint(self, train: Definition) -> None:
        """Stops at what cannot be meant; passes on what may not be."""
        notes = lint_solver(self.definition, train)
        errors: list[SslnetError] = [note.error for note in notes if note.level == "error"]
        if errors:
            raise errors[0] if len(errors) == 1 else ErrorList(errors)
        for note in notes:
            self.monitor.on_warning(note)

    def load(self, *weights: str | os.PathLike[str]) -> None:
        """Copies weights into the net by layer name. Zeros that ``connectivity_mode`` keeps are found anew."""
        for path in weights:
            self.copied.append(self.net.copy_from(resolve(os.fspath(path), self.definition.path, error=WeightsError)))
        self._frozen_known = False

    # -- running -----------------------------------------------------------------------------------------------------

    def solve(self, resume: str | os.PathLike[str] | None = None) -> None:
        """Trains to max_iter, from a .solverstate if one is given; tests and snapshots at the end as Caffe does."""
        if resume is not None:
            self.restore(resume)
        check_aims(self.definition, self.net)
        for net in self._nets().values():
            net.check_outputs()
        with self._own_prefix():
            self._begun = self.iter
            self.monitor.on_start(self)
            try:
                self.step(max(0, self.param.max_iter - self.iter))
            except Exception as error:
                self._save_before(error)
                raise
            stopped = self._request == "stop"
            if (self.param.snapshot_after_train or stopped) and self._saved_at != self.iter:
                self._save_at_the_end()
            if not stopped:
                self._last_words()
        self._request = None
        self.monitor.on_finish(self, stopped)

    def step(self, iterations: int) -> None:
        """Runs so many iterations, or fewer when ``request`` asks to stop."""
        end = self.iter + iterations
        self._shown = (self.iter, time.perf_counter())
        while self.iter < end:
            self._start = {"train": self.net.layer_states()}
            self._start_errors = self.data_errors.count
            self._start_statistics = Statistics(self.net) if self.param.iter_size > 1 else None
            if self._is_time(self.param.test_interval) and (self.iter > 0 or self.param.test_initialization):
                self.test()
                if self._request == "stop":
                    break
            display = self._is_time(self.param.display)
            self._debug(display)
            loss = self._forward_backward()
            self._smooth(loss)
            rate, self.current_step = lr_policies.learning_rate(self.param, self.iter, self.current_step)
            if display:
                self.monitor.on_display(self._display(rate))
            self._updating = True
            self._apply_update(rate)
            self.iter += 1
            self._updating, self._start, self._start_statistics = False, {}, None
            if self.steering is not None:
                self.steering.after_iteration(self)
            self.monitor.on_iteration(self.iter, self.smoothed_loss)
            if self._is_time(self.param.snapshot) or self._request == "snapshot":
                self._request = None if self._request == "snapshot" else self._request
                self._save_on_the_way()
            if self._request == "stop":
                break

    def request(self, action: str) -> None:
        """Asks a running solver, from a signal handler or another thread: "snapshot" as soon as the iteration is done, or
        "stop", which ends ``solve`` with a snapshot."""
        if action not in ("snapshot", "stop"):
            raise UsageError(f'a solver can be asked for "snapshot" or "stop", not for "{action}"')
        self._request = action

    def test(self, index: int | None = None) -> list[Test]:
        """Tests one net or all of them, and tells the monitor; ends early when a stop is requested."""
        records = []
        for k in range(len(self.test_nets)) if index is None else (index,):
            record = self._test(k)
            if record is None:
                break
            records.append(record)
            self.monitor.on_test(record)
        return records

    def _forward_backward(self) -> float:
        """Gradients of iter_size batches, summed; returns the mean loss, which must be finite."""
        self.net.clear_param_diffs()
        total = 0.0
        for _ in range(self.param.iter_size):
            self.data_errors.forward(self.net)
            if not math.isfinite(self.net.loss):
                raise self._not_finite()
            self.net.backward()
            total += self.net.loss
        return total / self.param.iter_size

    def _apply_update(self, rate: float) -> None:
        """Rate, clip, then for each parameter: normalise, regularise, update, prox."""
        self._find_frozen()
        scale = self._clip() / self.param.iter_size
        for update in self.updates:
            update(self.iter, rate, scale)
        for coupled in self.coupled:
            coupled(self.iter, rate, scale)
        if self.param.group_lasso_settle and (self.iter + 1) % self.param.group_lasso_settle == 0:
            settle(self.updates, self.coupled, self.iter, rate, scale)
        if self._subgradient:
            self._cut()

    def _clip(self) -> float:
        """What all gradients are multiplied by so that their common L2 norm is at most clip_gradients."""
        if self.param.clip_gradients < 0:
            return 1.0
        norm = math.sqrt(sum(_square_sum(param.blob.diff) for param in self.net.learnable if param.blob.has_diff))
        return self.param.clip_gradients / norm if norm > self.param.clip_gradients else 1.0

    @property
    def _subgradient(self) -> bool:
        return self.param.group_lasso_update == pb.SolverParameter.SUBGRADIENT

    def _cut(self) -> None:
        for param in self.net.learnable:
            spread(kernels.cut, param.blob.count, 1, param.blob.data.reshape(-1), CUT)

    def _find_frozen(self) -> None:
        """Once after weights have been loaded: which zeros ``connectivity_mode`` keeps."""
        if self._frozen_known:
            return
        self._frozen_known = True
        if self._subgradient and any(update.param.layer.param.connectivity_mode for update in self.updates):
            self._cut()
        for update in self.updates:
            update.keep = frozen(update.param)
            update.forget_frozen()
        self._tell_frozen()

    def scale_penalties(self, factor: float) -> None:
        """Multiplies the strengths of all group lassos, as the definitions have them, by ``factor``, > 0."""
        for update in self.updates:
            if update.penalty is not None:
                update.penalty.scale(factor)
        for coupled in self.coupled:
            coupled.penalty.scale(factor)

    def keep_zeros(self, updates: Sequence[Update] | None = None) -> None:
        """Ends the group lassos, or those of some updates that are not coupled, their biases among them: weights under one
        that are zero now stay zero, the others are trained on without it."""
        penalised = list(updates or ())
        if updates is None:
            penalised += [update for update in self.updates if update.penalty is not None]
            penalised += [update.bias for update in penalised if update.bias is not None]
            penalised += [update for coupled in self.coupled for update in coupled.members]
            self.ended, self.coupled = self.coupled or self.ended, []
        self._find_frozen()
        for update in penalised:
            alive = (update.param.blob.data != 0).reshape(-1).view(np.uint8)
            update.keep = alive if update.keep is None else alive & update.keep
            update.forget_frozen()
            update.penalty, update.bias, update.mean, update.led = None, None, None, False
        self._tell_frozen()

    def _tell_frozen(self) -> None:
        """Convolutions may leave out the gradient of what is not trained, unless its norm counts."""
        for update in self.updates:
            if isinstance(update.param.layer, Convolution) and update.param.index == 0:
                update.param.layer.frozen = update.keep if self.param.clip_gradients < 0 else None

    def memory(self) -> int:
        """Bytes that training takes: what its nets do, memory that they share once, and what the updates keep."""
        nets = [self.net, *self.test_nets]
        shared = sum({id(net.arena): net.arena.size for net in nets}.values())
        kept = sum(array.nbytes for update in self.updates for array in update.history)
        return shared + kept + sum(memory.total - memory.shared for memory in (net.memory() for net in nets))

    # -- telling -----------------------------------------------------------------------------------------------------

    def penalty(self) -> float:
        """The group lasso's part of the objective now."""
        own = sum(update.penalty_value() for update in self.updates)
        return own + sum(coupled.penalty_value() for coupled in self.coupled)

    def _is_time(self, interval: int) -> bool:
        return interval > 0 and self.iter % interval == 0

    def _smooth(self, loss: float) -> None:
        self._losses.append(loss)
        self.smoothed_loss = sum(self._losses) / len(self._losses)

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

    def _debug(self, display: bool) -> None:
        self.net.on_debug = self.monitor.on_debug if display and self.param.debug_info else None

    def _test(self, index: int) -> Test | None:
        """The mean outputs of a test net; None when a stop was requested on the way."""
        net, batches = self.test_nets[index], self.param.test_iter[index]
        started, loss = time.perf_counter(), 0.0
        before = self._start[f"test{index}"] = net.layer_states()
        errors = self.data_errors.count
        sums: list[float] = []
        for _ in range(batches):
            if self._request == "stop":
                net.set_layer_states(before)  # so that the resumed run repeats this test, not half of it
                self.data_errors.count = errors
                return None
            self.data_errors.forward(net)
            loss += net.loss
            values = [value for _, value, _ in outputs_of(net)]
            sums = [a + b for a, b in zip(sums, values)] if sums else values
        means = [(name, total / batches, weight) for (name, _, weight), total in zip(outputs_of(net), sums)]
        mean_loss = loss / batches if self.param.test_compute_loss else None
        return Test(self.iter, index, means, mean_loss, time.perf_counter() - started)

    def _last_words(self) -> None:
        """After the last iteration: the loss with the final weights if a display is due, and a test."""
        if self._is_time(self.param.display):
            self.data_errors.forward(self.net)
            self._smooth(self.net.loss)
            rate, _ = lr_policies.learning_rate(self.param, self.iter, self.current_step)
            self.monitor.on_display(self._display(rate))
        if self._is_time(self.param.test_interval):
            self.test()

    def _check_finite(self) -> None:
        for param in self.net.learnable:
            if not np.isfinite(param.blob.data).all():
                message = f"iteration {self.iter}: parameter {param.name} is not finite, no snapshot is written"
                raise NotFiniteError(message, path=self.definition.path, layer=param.layer.name, hint=self._advice())

    def _not_finite(self) -> NotFiniteError:
        """The error of a loss that is not finite, with the first blob that is not."""
        where, layer = _first_not_finite(self.net)
        message = f"iteration {self.iter}: the loss is {self.net.loss:g}; {where}"
        return NotFiniteError(message, path=self.definition.path, layer=layer, hint=self._advice())

    def _tell_data_error(self, error: DataError | BatchError, count: int) -> None:
        left = f"skipped a batch ({count} of at most {self.param.max_data_errors}): {error.message}"
        self.monitor.on_warning(Diagnostic("warning", left, span=error.span, path=error.path, layer=error.layer))

    def _advice(self) -> str:
        rate, _ = lr_policies.learning_rate(self.param, self.iter, self.current_step)
        saved = f"the last snapshot is {self.last_snapshot}" if self.last_snapshot else "there is no snapshot"
        return f"a lower base_lr (the rate is {rate:g}) or clip_gradients may help; {saved}"

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> tuple[str, str]:
        """Writes the weights, then the state; returns their paths. In the fallback folder, if there is one, where they
        cannot be written at their own place.

        raises NotFiniteError, and writes nothing, when a weight is not finite; RunError when they cannot be written
        """
        self._check_finite()
        try:
            return self._write_snapshot(self.prefix)
        except RunError as error:
            if self._fallback is None:
                raise
            self.monitor.on_warning(
                Diagnostic("warning", f"{error.message}: the snapshot is written to {self._fallback}")
            )
            return self._write_snapshot(self._fallback)

    def _write_snapshot(self, prefix: str) -> tuple[str, str]:
        hdf5 = self.param.snapshot_format == pb.SolverParameter.HDF5
        weights, state = snapshot_paths(prefix, self.iter, hdf5)
        make_folder(prefix)
        self.net.save(weights, write_diff=self.param.snapshot_diff, hdf5=hdf5, follow=False)
        write_state(state, self._state(weights), hdf5=hdf5, follow=False)
        self.last_snapshot, self._saved_at = state, self.iter
        self.monitor.on_snapshot(self.iter, weights, state)
        return weights, state

    def _save_on_the_way(self) -> None:
        """A snapshot; where it cannot be written the run goes on, for the disk may have room again at the next one."""
        try:
            self.snapshot()
        except NotFiniteError:
            raise
        except RunError as error:
            message = f"{error.message}: the run continues without a snapshot of iteration {self.iter}"
            self.monitor.on_warning(Diagnostic("warning", message, path=error.path))

    def _save_at_the_end(self) -> None:
        """The last snapshot; where it cannot be written, it goes to a temporary folder, which the error names."""
        try:
            self.snapshot()
        except NotFiniteError:
            raise
        except RunError as error:
            rescue = None
            try:
                rescue = tempfile.mkdtemp(prefix="sslnet-")
                weights, _ = self._write_snapshot(os.path.join(rescue, os.path.basename(self.prefix)))
                saved = f"the weights were saved as {weights}"
            except (SslnetError, OSError) as second:
                saved = f"nor can they be saved in the folder for temporary files: {second}"
                if rescue is not None:
                    shutil.rmtree(rescue, ignore_errors=True)
            error.hint = "; ".join(filter(None, (error.hint, saved)))
            raise error

    def _save_before(self, error: Exception) -> None:
        """Before an error ends the run: a snapshot of where the iteration began, if nothing speaks against it. Puts
        into the error where it is."""
        wanted = self.param.snapshot or self.param.snapshot_after_train
        if self._updating or not wanted or self.iter == self._begun or isinstance(error, NotFiniteError):
            return
        try:
            if self._saved_at != self.iter:
                nets = self._nets()
                for name, states in self._start.items():
                    nets[name].set_layer_states(states)
                if self._start:
                    self.data_errors.count = self._start_errors
                if self._start_statistics is not None:
                    self._start_statistics.restore()
                self.snapshot()
        except (SslnetError, OSError, MemoryError):
            return
        if isinstance(error, SslnetError):
            saved = f"iteration {self.iter} was saved as {self.last_snapshot}"
            error.hint = "; ".join(filter(None, (error.hint, saved)))

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Goes on from a .solverstate, ours or Caffe's, and the weights that belong to it; ours bit by bit.

        raises WeightsError when something does not fit; the solver is then as it was, unless a layer cannot read its own state
        """
        self._restore(read_state(path), path)

    def _restore(self, state: SolverState, path: str | os.PathLike[str]) -> None:
        weights = find_weights(state, path)
        check_history(state, self.updates, path)
        left_out = _count(state.arrays.get("data_errors"), path)
        copied = self.net.copy_from(weights)
        if state.seed is not None and state.seed != self.seed:
            self.seed = state.seed
            for net in self._nets().values():
                net.reseed(self.seed)
        self.copied.append(copied)
        self.iter, self.current_step = state.iteration, state.current_step
        self.last_snapshot, self._saved_at = os.fspath(path), self.iter
        put_state(state, self.updates, self._nets(), path)
        put_duals(self.coupled, state.arrays)
        if self.steering is not None:
            start = "steering/"
            self.steering.set_state({k.removeprefix(start): a for k, a in state.arrays.items() if k.startswith(start)})
        self._losses.clear()
        self._losses.extend(state.arrays.get("losses", np.empty(0)).tolist())
        self.data_errors.count = left_out
        self._frozen_known = any(update.keep is not None for update in self.updates)
        if self.steering is not None:
            self.steering.start(self)
        self._tell_frozen()
        if state.seed is None:
            message = "the snapshot does not say where in the data it was taken: data starts at its first record"
            self.monitor.on_warning(Diagnostic("warning", message, path=os.fspath(path)))

    def _state(self, weights: str) -> SolverState:
        state = take_state(self.updates, self._nets())
        state.arrays |= take_duals(self.coupled)
        if self.steering is not None:
            state.arrays |= {f"steering/{name}": array for name, array in self.steering.state().items()}
        state.iteration, state.current_step = self.iter, self.current_step
        state.learned_net, state.seed = weights, self.seed
        state.arrays["losses"] = np.array(self._losses, np.float64)
        if self.data_errors.count:
            state.arrays["data_errors"] = np.array([self.data_errors.count], np.float64)
        return state

    def _nets(self) -> dict[str, Net]:
        return {"train": self.net, **{f"test{k}": net for k, net in enumerate(self.test_nets)}}

    @contextlib.contextmanager
    def _own_prefix(self) -> Iterator[None]:
        """Snapshots must have a place before hours are spent, and no other run must write its own between them."""
        prefixes = [self.prefix] if self.param.snapshot or self.param.snapshot_after_train else []
        if prefixes and self._fallback is not None and os.path.abspath(self._fallback) != os.path.abspath(self.prefix):
            prefixes.append(self._fallback)
        with contextlib.ExitStack() as stack:
            for prefix in prefixes:
                make_folder(prefix)
                remove_remains(os.path.dirname(prefix) or ".", f"{os.path.basename(prefix)}_iter_")
                stack.enter_context(sole_user(f"{prefix}.lock", f"snapshot_prefix {prefix}"))
            yield


def _count(array: np.ndarray | None, path: str | os.PathLike[str]) -> int:
    """The whole number that an array of a state holds. raises WeightsError for another one"""
    if array is None:
        return 0
    value = float(array.reshape(-1)[0]) if array.size == 1 else -1.0
    if not (0 <= value < 2**53) or value != int(value):
        raise WeightsError("the number of skipped batches is damaged", path=os.fspath(path))
    return int(value)


def _square_sum(array: np.ndarray) -> float:
    blocks = np.empty(-(-array.size // kernels.SUM_BLOCK))
    spread(kernels.square_sums, blocks.size, kernels.SUM_BLOCK, array.reshape(-1), blocks)
    return float(blocks.sum())


def _first_not_finite(net: Net) -> tuple[str, str | None]:
    """Where a net first is not finite: a parameter, else the first blob in the order of the layers."""
    for param in net.learnable:
        if not np.isfinite(param.blob.data).all():
            return f"parameter {param.name} is not finite already", param.layer.name
    for layer, names, tops in zip(net.layer_names, net.top_names, net.tops):
        for name, top in zip(names, tops):
            if top.holds("data") and not np.isfinite(top.data).all():
                return f'blob "{name}" is the first that is not finite', layer
    return "all blobs are finite", None
