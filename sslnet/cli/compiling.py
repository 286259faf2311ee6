"""Reports the compilation of kernels and its progress: only the first run on a machine waits for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sslnet.solver.callbacks import Monitor

if TYPE_CHECKING:
    from sslnet.net.net import Net
    from sslnet.solver.callbacks import Training

NOTICE = "compiling kernels, once: later runs start faster"
SECONDS = 5.0
"""Seconds between two lines of progress, where no display can be updated in place."""


class Compiling(Monitor):
    """Reports what Numba compiles: as a context, or as a monitor up to the first iteration.

    say    takes lines
    show   takes a text that replaces the last one, "" for none, where that can be shown; without it there are lines

    How far it is, "12/31", counts steps: the layers of the first iteration, forward and backward, and those of the test
    nets that run before. A kernel is compiled when the first step comes that needs it, so where all steps have run all
    kernels are there. What comes from Numba's cache is not told.
    """

    def __init__(self, say: Callable[[str], None], show: Callable[[str], None] | None = None) -> None:
        self.say, self.show = say, show
        self.done, self.total = 0, 0
        self.layer = ""
        self.began: float | None = None
        """When the first kernel was compiled; None as long as all come from the cache."""
        self._told = 0.0
        self._watching: contextlib.AbstractContextManager[None] | None = None
        self._nets: list[Net] = []
        self._given_up = False
        self._over = False

    # -- what Numba does ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Compiling:
        from numba.core import event

        class Listener(event.Listener):
            def on_start(listener, event: event.Event) -> None:
                self._on_pass()

            def on_end(listener, event: event.Event) -> None:
                pass

        # Passes of the compiler, not whole functions: compiled C functions have no event of their own.
        self._watching = event.install_listener("numba:run_pass", Listener())
        self._watching.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.finish()
        if self._watching is not None:
            self._watching.__exit__(None, None, None)
            self._watching = None

    def _on_pass(self) -> None:
        if self._given_up:  # the interrupt was lost somewhere in the compiler
            raise KeyboardInterrupt
        if self.began is None:
            self.began = time.monotonic()
            self._tell()

    # -- how far it is -----------------------------------------------------------------------------------------------

    def on_start(self, solver: Training) -> None:
        param, at = solver.param, solver.iter
        tested = param.test_interval > 0 and at % param.test_interval == 0 and (at > 0 or param.test_initialization)
        self.follow(solver.net, solver.test_nets if tested else ())

    def on_iteration(self, iteration: int, loss: float) -> None:
        if self._nets:
            self.finish()

    def follow(self, train: Net, tests: Iterable[Net] = ()) -> None:
        """Counts the steps of one forward and backward pass of a net, and of one forward pass of others."""
        if self._over:  # a run before this one has told of its own kernels
            self.began, self._over = None, False
        self._nets, self.done = [*tests, train], 0
        steps = {(net, i, True) for net in self._nets for i in range(len(net.layers))}
        steps |= {(train, i, False) for i, needed in enumerate(train.layer_need_backward) if needed}
        self.total = len(steps)
        for net in self._nets:
            net.on_step = lambda i, forward, net=net: self._on_step(steps, net, i, forward)

    def _on_step(self, left: set[Any], net: Net, i: int, forward: bool) -> None:
        if self._given_up:
            raise KeyboardInterrupt
        self.layer = net.layer_names[i]
        if (net, i, forward) in left:
            left.remove((net, i, forward))
            self.done += 1
            if self.began is not None:
                self._tell()

    def _tell(self) -> None:
        text = f"compiling kernels, once: {self.done}/{self.total} ({self.layer})" if self.done else NOTICE
        now = time.monotonic()
        if self.show is not None and self.done:
            self.show(text)
        elif now >= self._told + SECONDS:
            self._told = now
            self.say(text)

    def finish(self) -> None:
        """Ends the report: the first iteration is done, or will not take place."""
        for net in self._nets:
            net.on_step = None
        if self._nets and self.began is not None:
            if self.show is not None:
                self.show("")
            if self.done == self.total:
                self.say(f"kernels compiled in {time.monotonic() - self.began:.0f} s")
        self._over |= bool(self._nets)
        self._nets = []

    # -- Ctrl-C ------------------------------------------------------------------------------------------------------

    def give_up(self) -> bool:
        """Whether a request to stop can be followed at once: kernels are compiled, and nothing has been learned yet that
        a snapshot would have to keep. If so, whatever is compiled next is interrupted, too."""
        self._given_up = bool(self._nets) and self.began is not None
        return self._given_up
