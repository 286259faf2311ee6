"""When and where a solver writes its snapshots: on the way, at the end, before an error ends the run."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sslnet import sslnet_pb2 as pb
from sslnet.errors import NotFiniteError, RunError, SslnetError
from sslnet.files import make_folder, remove_remains, sole_user
from sslnet.prototxt import Diagnostic
from sslnet.solver.data_errors import DataErrors, Statistics
from sslnet.solver.not_finite import check_finite
from sslnet.solver.run_state import SolverParts, take_run
from sslnet.solver.snapshot import snapshot_paths, write_state

if TYPE_CHECKING:
    from sslnet.net.net import Net
    from sslnet.solver.callbacks import Monitor


class Beginning:
    """What an iteration may change before it changes weights: states of layers, running statistics, batches left
    out."""

    def __init__(self, net: Net, errors: DataErrors, statistics: bool) -> None:
        self._errors, self._count = errors, errors.count
        self._states = [(net, net.layer_states())]
        self._statistics = Statistics(net) if statistics else None

    def add(self, net: Net) -> dict[str, bytes]:
        """Remembers the state of another net, as it is now, and returns it."""
        self._states.append((net, net.layer_states()))
        return self._states[-1][1]

    def restore(self) -> None:
        for net, states in self._states:
            net.set_layer_states(states)
        self._errors.count = self._count
        if self._statistics is not None:
            self._statistics.restore()


class Snapshots:
    """Writes the snapshots of a run.

    fallback  a folder for those that cannot be written where ``snapshot_prefix`` says; None: there is none
    """

    def __init__(self, solver: SolverParts, monitor: Monitor, fallback: str | os.PathLike[str] | None) -> None:
        self.solver, self.monitor = solver, monitor
        self.last: str | None = None
        """The last .solverstate written or restored."""
        self.saved_at: int | None = None
        """Its iteration."""
        self.begun = 0
        """The iteration at which ``solve`` began: there is nothing new to save before the next one."""
        self._fallback = None if fallback is None else os.path.join(fallback, os.path.basename(solver.prefix))

    def write(self) -> tuple[str, str]:
        """Writes the weights, then the state; returns their paths. In the fallback folder, if there is one, where they
        cannot be written at their own place.

        raises NotFiniteError, and writes nothing, when a weight is not finite; RunError when they cannot be written
        """
        check_finite(self.solver, self.last)
        try:
            return self._write(self.solver.prefix)
        except RunError as error:
            if self._fallback is None:
                raise
            self.monitor.on_warning(
                Diagnostic("warning", f"{error.message}: the snapshot is written to {self._fallback}")
            )
            return self._write(self._fallback)

    def _write(self, prefix: str) -> tuple[str, str]:
        solver = self.solver
        hdf5 = solver.param.snapshot_format == pb.SolverParameter.HDF5
        weights, state = snapshot_paths(prefix, solver.iter, hdf5)
        make_folder(prefix)
        solver.net.save(weights, write_diff=solver.param.snapshot_diff, hdf5=hdf5, follow=False)
        write_state(state, take_run(solver, weights), hdf5=hdf5, follow=False)
        self.last, self.saved_at = state, solver.iter
        self.monitor.on_snapshot(solver.iter, weights, state)
        return weights, state

    def write_on_the_way(self) -> None:
        """A snapshot; where it cannot be written the run goes on, for the disk may have room again at the next one."""
        try:
            self.write()
        except NotFiniteError:
            raise
        except RunError as error:
            message = f"{error.message}: the run continues without a snapshot of iteration {self.solver.iter}"
            self.monitor.on_warning(Diagnostic("warning", message, path=error.path))

    def write_at_the_end(self) -> None:
        """The last snapshot; where it cannot be written, it goes to a temporary folder, which the error names."""
        if self.saved_at == self.solver.iter:
            return
        try:
            self.write()
        except NotFiniteError:
            raise
        except RunError as error:
            rescue = None
            try:
                rescue = tempfile.mkdtemp(prefix="sslnet-")
                weights, _ = self._write(os.path.join(rescue, os.path.basename(self.solver.prefix)))
                saved = f"the weights were saved as {weights}"
            except (SslnetError, OSError) as second:
                saved = f"nor can they be saved in the folder for temporary files: {second}"
                if rescue is not None:
                    shutil.rmtree(rescue, ignore_errors=True)
            error.hint = "; ".join(filter(None, (error.hint, saved)))
            raise error

    def write_before(self, error: Exception, beginning: Beginning | None) -> None:
        """Before an error ends the run: a snapshot of where the iteration began, if nothing speaks against it. Puts
        into the error where it is.

        beginning  of the iteration in which the error came; None: between two of them
        """
        solver = self.solver
        wanted = solver.param.snapshot or solver.param.snapshot_after_train
        if not wanted or solver.iter == self.begun or isinstance(error, NotFiniteError):
            return
        try:
            if self.saved_at != solver.iter:
                if beginning is not None:
                    beginning.restore()
                self.write()
        except (SslnetError, OSError, MemoryError):
            return
        if isinstance(error, SslnetError):
            saved = f"iteration {solver.iter} was saved as {self.last}"
            error.hint = "; ".join(filter(None, (error.hint, saved)))

    @contextlib.contextmanager
    def own_prefix(self) -> Iterator[None]:
        """Snapshots must have a place before hours are spent, and no other run must write its own between them."""
        param, prefix = self.solver.param, self.solver.prefix
        prefixes = [prefix] if param.snapshot or param.snapshot_after_train else []
        if prefixes and self._fallback is not None and os.path.abspath(self._fallback) != os.path.abspath(prefix):
            prefixes.append(self._fallback)
        with contextlib.ExitStack() as stack:
            for each in prefixes:
                make_folder(each)
                remove_remains(os.path.dirname(each) or ".", f"{os.path.basename(each)}_iter_")
                stack.enter_context(sole_user(f"{each}.lock", f"snapshot_prefix {each}"))
            yield
