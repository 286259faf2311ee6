"""Training within a stage of a pipeline: resumes at the last snapshot; keeps one snapshot."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Callable, Sequence

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.control.controller import StrengthController
from sslnet.compress.pipeline.schedule import check_started
from sslnet.solver.callbacks import Monitor
from sslnet.solver.snapshot import averaged_path
from sslnet.solver.solver import Solver

Watch = Callable[[Solver], contextlib.AbstractContextManager[object]]
"""Makes the context manager in which a solver runs, for example one that stops it on signals."""


class Stopped(Exception):
    """Raised when a run has stopped on request."""


def train_stage(
    param: pb.SolverParameter,
    prefix: str,
    weights: Sequence[str],
    *,
    monitor: Monitor,
    watch: Watch,
    tell: Callable[[str], None],
    steering: StrengthController | None = None,
) -> None:
    """Trains a net from the given weights or from the last snapshot; writes PREFIX.caffemodel.

    param    the solver, which includes the net; written to PREFIX_solver.prototxt
    raises   Stopped when the solver was asked to stop
    """
    param.snapshot_prefix, written = prefix, f"{prefix}_solver.prototxt"
    prototxt.save(param, written)
    last = max(glob.glob(glob.escape(f"{prefix}_iter_") + "*.solverstate"), key=_iteration, default=None)
    if last is not None:
        tell(f"continuing from {last}")
    solver = Solver(
        written,
        weights=[] if last else weights,
        snapshot=last,
        monitor=OneSnapshot(monitor, last),
        lean=True,
        steering=steering,
    )
    if last is None:
        check_started(solver, weights)
    with watch(solver):
        solver.solve()
    if solver.iter < param.max_iter:
        raise Stopped
    save_trained(solver, f"{prefix}.caffemodel")


def save_trained(solver: Solver, path: str) -> None:
    """Writes the result of a training: its averaged weights with ema_decay, else its weights."""
    with solver.average.in_use():
        solver.net.save(path)


def remove_snapshots(prefix: str) -> None:
    """Removes the snapshots of a completed stage, and temporary files of interrupted runs."""
    start = glob.escape(f"{prefix}_iter_")
    for path in (*glob.glob(f"{start}*.solverstate"), *glob.glob(f"{start}*.caffemodel")):
        remove(path)


def remove(path: str) -> None:
    """Removes a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


class OneSnapshot(Monitor):
    """Forwards events to another monitor, and removes each snapshot when the next one is written."""

    PASSED_ON = ("on_warning", "on_start", "on_iteration", "on_display", "on_test", "on_best", "on_debug", "on_finish")

    def __init__(self, monitor: Monitor, last: str | None) -> None:
        self.monitor, self.last = monitor, last
        for name in self.PASSED_ON:
            setattr(self, name, getattr(monitor, name))

    def on_snapshot(self, iteration: int, weights: str, state: str) -> None:
        if self.last is not None and self.last != state:
            remove(self.last)
            weights_before = self.last.replace(".solverstate", ".caffemodel")
            remove(weights_before)
            remove(averaged_path(weights_before))
        self.last = state
        self.monitor.on_snapshot(iteration, weights, state)


def _iteration(path: str) -> int:
    found = re.search(r"_iter_(\d+)\.solverstate$", path)
    return int(found[1]) if found else -1
