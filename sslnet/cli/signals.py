"""What Ctrl-C, a hang-up and a request to end do to a run: ask the solver for a snapshot, or to stop with one."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

EFFECTS = ("stop", "snapshot", "none")


@contextlib.contextmanager
def signal_effects(
    request: Callable[[str], None],
    say: Callable[[str], None],
    sigint: str = "stop",
    sighup: str = "snapshot",
    at_once: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """While it lasts SIGINT and SIGHUP have these effects, and SIGTERM, with which batch systems and containers announce
    that they will kill the process, stops; a second SIGINT after a "stop" interrupts at once.

    request   called with "stop" or "snapshot", from the signal handler
    say       called with what is going to happen
    at_once   whether a "stop" can interrupt at once, for nothing would be lost
    """
    stopping = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        effect = effects[number]
        if stopping and number == signal.SIGINT:
            raise KeyboardInterrupt
        if effect == "none":
            return
        if effect == "stop" and at_once():
            raise KeyboardInterrupt
        stopping = stopping or effect == "stop"
        request(effect)
        say("stopping with a snapshot; Ctrl-C again: at once" if effect == "stop" else "a snapshot comes next")

    names = {"SIGINT": sigint, "SIGHUP": sighup, "SIGTERM": "stop"}
    effects = {getattr(signal, name): effect for name, effect in names.items() if hasattr(signal, name)}
    try:
        old = {number: signal.signal(number, handle) for number in effects}
    except ValueError:  # only the main thread can; elsewhere signals keep their meaning
        old = {}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
