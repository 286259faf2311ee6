"""Output and signals of commands that run several solvers, one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sslnet.cli.log import RunLog
from sslnet.cli.monitors import LogMonitor, ScreenMonitor
from sslnet.cli.notes import silent_writers
from sslnet.cli.signals import signal_effects

if TYPE_CHECKING:
    from sslnet.cli.compiling import Compiling
    from sslnet.solver.solver import Solver


class _Runs(ScreenMonitor):
    """Shows a progress bar for each run on a terminal."""

    def on_snapshot(self, iteration: int, weights: str, state: str) -> None:
        """Ignores snapshots, which the command uses to continue an interrupted run."""


class _LoggedRuns(LogMonitor):
    def on_snapshot(self, iteration: int, weights: str, state: str) -> None:
        """Ignores snapshots, which the command uses to continue an interrupted run."""

    def close(self) -> None: ...


def solver_monitor(log: RunLog) -> Any:
    """A Monitor with ``close``."""
    return _Runs(log) if log.terminal else _LoggedRuns(log)


def watching(log: RunLog, compiling: Compiling) -> Callable[[Solver], contextlib.AbstractContextManager[None]]:
    """For each solver: Ctrl-C, SIGTERM and a reader of the log who goes stop it where it can go on later. Layers of its
    nets that would write files are told, once."""
    told: set[str] = set()

    @contextlib.contextmanager
    def watch(solver: Solver) -> Iterator[None]:
        for net in (solver.net, *solver.test_nets):
            for text in silent_writers(net.definition):
                if text not in told:
                    told.add(text)
                    log(text)
        with (
            signal_effects(solver.request, log, "stop", "none", compiling.give_up),
            log.stopping(lambda: solver.request("stop")),
        ):
            yield

    return watch
