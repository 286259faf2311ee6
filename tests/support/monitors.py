"""Monitors for tests: what a solver tells, and what ends it."""

from __future__ import annotations

from sslnet.solver.callbacks import Monitor


class Kill(Exception):
    """Stands for the end of a process."""


class Killer(Monitor):
    """Raises Kill after so many iterations of all solvers."""

    def __init__(self, after: int) -> None:
        self.left = after

    def on_iteration(self, iteration: int, loss: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise Kill
