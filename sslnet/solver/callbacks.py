"""Callbacks of a training run: the ``Monitor`` interface, and the records that a solver passes to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sslnet.net.net import Net
    from sslnet.prototxt import Diagnostic
    from sslnet.solver.parameter_update import Update
    from sslnet.solver.penalized_update import PenalizedUpdate

Outputs = list[tuple[str, float, float]]
"""(name, value, loss weight) of each value of each output, in order."""


@dataclass(frozen=True)
class Display:
    """One display of the training."""

    iteration: int
    loss: float
    """The training loss, averaged over the last average_loss iterations."""
    rate: float
    outputs: Outputs
    penalty: float
    """Value of all penalties, as added to the loss; for the group lasso the sum of strength * norm over all groups."""
    iterations: int
    """Iterations since the last display."""
    seconds: float
    """Wall-clock time of these iterations, including tests and snapshots."""
    sparsity: Any = None
    """Return value of the solver's ``measure``; None without one."""


@dataclass(frozen=True)
class Test:
    """Result of testing one test net: outputs averaged over test_iter batches."""

    iteration: int
    net: int
    outputs: Outputs
    loss: float | None
    """The mean loss; None without test_compute_loss."""
    seconds: float


@dataclass(frozen=True)
class Best:
    """The best test of a run so far, of ``snapshot_best``."""

    name: str
    """The test output."""
    value: float
    iteration: int
    weights: str
    """Path of the weights that were tested."""


class Training(Protocol):
    """The attributes of a solver that a monitor may read; it must not change them."""

    param: Any
    """The pb.SolverParameter."""
    iter: int
    prefix: str
    seed: int
    net: Net
    test_nets: list[Net]
    updates: list[Update]
    penalties: list[PenalizedUpdate]
    """Active penalties: first those without coupled groups, then those with them."""
    ended: list[PenalizedUpdate]
    """Penalties that ``keep_zeros`` has ended."""


class Monitor:
    """Callbacks that a solver calls while it runs; every method does nothing unless overridden."""

    def on_warning(self, note: Diagnostic) -> None:
        """Called for a likely mistake in a definition, a skipped batch, a failed snapshot, or an inexact resume."""

    def on_start(self, solver: Training) -> None:
        """Called when ``solve`` begins, at iteration ``solver.iter``."""

    def on_iteration(self, iteration: int, loss: float) -> None:
        """Called after every iteration with the smoothed loss; must be fast."""

    def on_display(self, record: Display) -> None: ...

    def on_test(self, record: Test) -> None: ...

    def on_snapshot(self, iteration: int, weights: str, state: str) -> None: ...

    def on_best(self, record: Best) -> None:
        """Called when a test was better than all before, and its weights were written."""

    def on_debug(self, line: str) -> None:
        """Called with each line of debug_info."""

    def on_finish(self, solver: Training, stopped: bool) -> None:
        """Called when ``solve`` ends. stopped: whether it was stopped on request, before max_iter."""


def outputs_of(net: Net, without: Sequence[str] = ()) -> Outputs:
    """Output values of the last forward pass. without: names of outputs that are left out"""
    return [
        (name, float(value), net.loss_weights.get(name, 0.0))
        for name in net.outputs
        if name not in without
        for value in net.blobs[name].data.reshape(-1)
    ]
