"""Batches: runs a solver's nets on their data: the gradients of an iteration, the outputs of a test.

This class does so in one process, with the whole batch at once; ``sslnet.solver.rank_batches`` with several.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import numpy as np

from sslnet.solver.callbacks import Outputs, Test, outputs_of
from sslnet.solver.not_finite import not_finite
from sslnet.solver.run_state import SolverParts
from sslnet.solver.test_outputs import mean_outputs

T = TypeVar("T")


class Trained(SolverParts, Protocol):
    """The attributes of a solver whose nets are run."""

    @property
    def last_snapshot(self) -> str | None: ...


class Batches:
    """Runs the nets of a solver in one process.

    request   what the run was asked for: "snapshot", "stop" or None
    leads     whether this process writes files and reports; of several, one does
    """

    leads = True
    parts = 1
    """Number of parts of the whole batch."""

    def __init__(self, solver: Trained) -> None:
        self.solver = solver
        self.request: str | None = None

    def ask(self, action: str) -> None:
        """Requests an action; may be called from a signal handler."""
        self.request = action

    def gradients(self) -> float:
        """Sums the gradients of iter_size batches into the parameters' diffs; returns the mean loss.

        raises NotFiniteError if it is not finite
        """
        solver, total = self.solver, 0.0
        solver.net.clear_param_diffs()
        for _ in range(solver.param.iter_size):
            solver.data_errors.forward(solver.net)
            if not math.isfinite(solver.net.loss):
                raise not_finite(solver, solver.last_snapshot)
            solver.net.backward()
            total += solver.net.loss
        return float(total / solver.param.iter_size)

    def sum_gradients(self, batches: int) -> None:
        """Sums the gradients of the next batches into the parameters' diffs."""
        net = self.solver.net
        net.clear_param_diffs()
        for _ in range(batches):
            net.forward()
            net.backward()

    def loss(self) -> float:
        """The loss of one more batch, without gradients."""
        self.solver.data_errors.forward(self.solver.net)
        return self.solver.net.loss

    def outputs(self) -> Outputs:
        """The train net's outputs of the last batch."""
        return outputs_of(self.solver.net)

    def test(self, index: int, before: dict[str, bytes]) -> Test | None:
        """Tests one test net: mean outputs over its batches; None if a stop was requested during the test.

        before   the states of the net's layers, which a stop restores
        """
        solver, started = self.solver, time.perf_counter()
        stops = lambda: self.request == "stop"  # noqa: E731 one line
        found = mean_outputs(solver.test_nets[index], solver.param, index, solver.data_errors, before, stops)
        return None if found is None else self._record(index, *found, started)

    def _record(self, index: int, outputs: Outputs, loss: float, started: float) -> Test:
        mean_loss = loss if self.solver.param.test_compute_loss else None
        return Test(self.solver.iter, index, outputs, mean_loss, time.perf_counter() - started)

    # -- several processes: nothing to do in one -----------------------------------------------------------------------

    def agree(self, make: Callable[[], T]) -> T:
        """The value that the leading process makes, on all of them."""
        return make()

    def averaged(self) -> AbstractContextManager[None]:
        """Context in which running statistics are those of the whole batch."""
        return contextlib.nullcontext()

    def settle_statistics(self) -> None:
        """Makes the running statistics those of the whole batch."""

    def check_equal(self) -> None:
        """Raises RunError if the processes' weights differ."""

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that a snapshot needs of the parts of the batch; call it within ``averaged``."""
        return {}

    def set_state(self, arrays: dict[str, np.ndarray]) -> None:
        """Restores what ``state`` returned; empty after new weights."""

    def notes(self) -> list[str]:
        """Sentences about the processes, for the beginning of the log."""
        return []

    def results(self) -> list[str]:
        """Sentences about what was exchanged, for the end of the log."""
        return []

    def settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Further settings (``Net``) of the train net and of the test nets."""
        return {}, {}

    def prepare(self) -> None:
        """Called once, when the nets have been built."""

    def begin(self) -> None:
        """Called once, when the weights are there and the run is about to begin."""

    def close(self) -> None:
        """Gives up what is shared between the processes; all of them call it, and run no more."""
