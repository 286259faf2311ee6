"""What a solver tells while it runs: records, and the ``Monitor`` that they are told to."""

from __future__ import annotations

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
    """Averaged over the last average_loss iterations."""
    rate: float
    outputs: Outputs
    penalty: float
    """The group lasso's part of the objective: sum of strength * norm over all groups."""
    iterations: int
    """Iterations since the last display."""
    seconds: float
    """Time that they took; tests and snapshots included."""
    sparsity: Any = None
    """What the solver's ``measure`` gave, if it has one."""


@dataclass(frozen=True)
class Test:
    """One test of one test net: outputs averaged over test_iter batches."""

    iteration: int
    net: int
    outputs: Outputs
    loss: float | None
    """The mean loss, with test_compute_loss."""
    seconds: float


class Training(Protocol):
    """A solver as a monitor sees it: to look at, not to change."""

    param: Any
    """The pb.SolverParameter."""
    iter: int
    prefix: str
    seed: int
    net: Net
    test_nets: list[Net]
    updates: list[Update]
    penalties: list[PenalizedUpdate]
    """Those on one parameter, then those of coupled groups."""
    ended: list[PenalizedUpdate]
    """Those that have ended (``keep_zeros``)."""


class Monitor:
    """What a solver tells while it runs; every method does nothing until it is overridden."""

    def on_warning(self, note: Diagnostic) -> None:
        """Something that the definitions say may not be meant; or a resumed run cannot be quite the same."""

    def on_start(self, solver: Training) -> None:
        """``solve`` begins, at ``solver.iter``."""

    def on_iteration(self, iteration: int, loss: float) -> None:
        """An iteration is done; the smoothed loss. Called each time, so it must be fast."""

    def on_display(self, record: Display) -> None: ...

    def on_test(self, record: Test) -> None: ...

    def on_snapshot(self, iteration: int, weights: str, state: str) -> None: ...

    def on_debug(self, line: str) -> None:
        """A line of debug_info."""

    def on_finish(self, solver: Training, stopped: bool) -> None:
        """``solve`` ends. stopped: on request, before max_iter."""


def outputs_of(net: Net) -> Outputs:
    """What the last forward pass gave."""
    return [
        (name, float(value), net.loss_weights.get(name, 0.0))
        for name in net.outputs
        for value in net.blobs[name].data.reshape(-1)
    ]
