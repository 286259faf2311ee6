"""Decides when and where a solver writes snapshots: during training, at the end, and before an error ends the run."""

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
from sslnet.solver.callbacks import Best
from sslnet.solver.data_errors import DataErrors, Statistics
from sslnet.solver.not_finite import check_finite
from sslnet.solver.run_state import SolverParts, take_run
from sslnet.solver.snapshot import averaged_path, best_path, snapshot_paths, write_state

if TYPE_CHECKING:
    from sslnet.net.net import Net
    from sslnet.solver.best_snapshot import BestSnapshot
    from sslnet.solver.callbacks import Monitor


class Beginning:
    """Saved state at the beginning of an iteration: everything that changes before the weights do, i.e. states of
    layers, running statistics, the number of skipped batches."""

    def __init__(self, net: Net, errors: DataErrors, statistics: bool) -> None:
        self._errors, self._count = errors, errors.count
        self._states = [(net, net.layer_states())]
        self._statistics = Statistics(net) if statistics else None

    def add(self, net: Net) -> dict[str, bytes]:
        """Saves the current state of another net, and returns it."""
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

    fallback  folder for snapshots that cannot be written at ``snapshot_prefix``, or None
    """

    def __init__(self, solver: SolverParts, monitor: Monitor, fallback: str | os.PathLike[str] | None) -> None:
        self.solver, self.monitor = solver, monitor
        self.last: str | None = None
        """Path of the last .solverstate written or restored."""
        self.saved_at: int | None = None
        """Iteration of the last snapshot written or restored."""
        self.begun = 0
        """Iteration at which ``solve`` began; at this iteration there is nothing new to save."""
        self._fallback = None if fallback is None else os.path.join(fallback, os.path.basename(solver.prefix))

    def write(self) -> tuple[str, str]:
        """Writes the weights, then the state; returns their paths. If writing at ``snapshot_prefix`` fails, writes to the
        fallback folder, if there is one.

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
        if solver.average:
            with solver.average.in_use():
                solver.net.save(averaged_path(weights), hdf5=hdf5, follow=False)
        write_state(state, take_run(solver, weights), hdf5=hdf5, follow=False)
        self.last, self.saved_at = state, solver.iter
        self.monitor.on_snapshot(solver.iter, weights, state)
        return weights, state

    def write_best(self, best: BestSnapshot) -> None:
        """Writes the weights that the net has now, which were tested; a failure is only a warning."""
        hdf5 = self.solver.param.snapshot_format == pb.SolverParameter.HDF5
        path = best_path(self.solver.prefix, hdf5)
        try:
            make_folder(self.solver.prefix)
            self.solver.net.save(path, hdf5=hdf5, follow=False)
        except RunError as error:
            message = f"{error.message}: the best weights, of iteration {best.iteration}, are not kept"
            self.monitor.on_warning(Diagnostic("warning", message, path=error.path))
        else:
            self.monitor.on_best(Best(best.name, best.value, best.iteration, path))

    def write_on_the_way(self) -> None:
        """Writes a snapshot during training; a failure is only a warning, as the next snapshot may succeed."""
        try:
            self.write()
        except NotFiniteError:
            raise
        except RunError as error:
            message = f"{error.message}: the run continues without a snapshot of iteration {self.solver.iter}"
            self.monitor.on_warning(Diagnostic("warning", message, path=error.path))

    def write_at_the_end(self) -> None:
        """Writes the final snapshot; on failure, writes it to a temporary folder and raises an error that names it."""
        if self.saved_at == self.solver.iter:
            return
        try:
            self.write()
        except NotFiniteError:
            raise
        except RunError as error:
            fallback = None
            try:
                fallback = tempfile.mkdtemp(prefix="sslnet-")
                weights, _ = self._write(os.path.join(fallback, os.path.basename(self.solver.prefix)))
                saved = f"the weights were saved as {weights}"
            except (SslnetError, OSError) as second:
                saved = f"nor can they be saved in the folder for temporary files: {second}"
                if fallback is not None:
                    shutil.rmtree(fallback, ignore_errors=True)
            error.hint = "; ".join(filter(None, (error.hint, saved)))
            raise error

    def write_before(self, error: Exception, beginning: Beginning | None) -> None:
        """Writes a snapshot of the beginning of the iteration before an error ends the run, unless there is nothing new
        to save or numbers are not finite. Adds its path to the error's hint.

        beginning  saved state of the iteration in which the error occurred; None: between two iterations
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
        """Context manager for a run: creates the snapshot folders and locks the prefixes against other runs."""
        param, prefix = self.solver.param, self.solver.prefix
        writes = param.snapshot or param.snapshot_after_train or param.snapshot_best
        prefixes = [prefix] if writes else []
        if prefixes and self._fallback is not None and os.path.abspath(self._fallback) != os.path.abspath(prefix):
            prefixes.append(self._fallback)
        with contextlib.ExitStack() as stack:
            for each in prefixes:
                make_folder(each)
                for kind in ("_iter_", "_best."):
                    remove_remains(os.path.dirname(each) or ".", f"{os.path.basename(each)}{kind}")
                stack.enter_context(sole_user(f"{each}.lock", f"snapshot_prefix {each}"))
            yield
