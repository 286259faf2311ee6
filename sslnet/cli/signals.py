"""Effects of signals. In a training run, SIGINT, SIGHUP and SIGTERM ask the solver for a snapshot, or to stop after one
(``signal_effects``). Any other command ends with an exception, so that no temporary file remains (``Ended``)."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

AGAIN = 0.01
"""Seconds after which a signal is sent again if it arrived where it could not end the command."""
EFFECTS = ("stop", "snapshot", "none")


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP as an exception: the command ends as after Ctrl-C."""


@contextlib.contextmanager
def ended_by_signals() -> Iterator[list[int]]:
    """While it lasts SIGTERM and SIGHUP raise Ended in the main thread, and Ctrl-C KeyboardInterrupt, where nobody has
    decided otherwise (as nohup has). While the command ends for one, further SIGTERM and SIGHUP are ignored.

    Gives a list of the signals that have come.
    """
    received: list[int] = []
    again: list[threading.Timer] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received and number != signal.SIGINT:
            return  # the command is ending already: its temporary files are being removed
        if _swallows(frame):
            again.append(threading.Timer(AGAIN, os.kill, (os.getpid(), number)))
            again[-1].start()
            return
        received.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else Ended(signal.Signals(number).name)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    undecided = (signal.SIG_DFL, signal.default_int_handler)
    try:
        with _handlers({number: handle for number in numbers if signal.getsignal(number) in undecided}):
            yield received
    finally:
        for timer in again:
            timer.cancel()


def _swallows(frame: FrameType | None) -> bool:
    """Whether an exception raised here would be lost: Python only prints exceptions of finalizers."""
    while frame is not None:
        if frame.f_code.co_filename == weakref.__file__ or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def signal_effects(
    request: Callable[[str], None],
    say: Callable[[str], None],
    sigint: str = "stop",
    sighup: str = "snapshot",
    at_once: Callable[[], bool] = lambda: False,
    patience: float = 0.0,
) -> Iterator[None]:
    """While it lasts SIGINT and SIGHUP have these effects, and SIGTERM, with which batch systems and containers announce
    that they will kill the process, stops; a second SIGINT after a "stop" interrupts at once.

    request   called with "stop" or "snapshot", from the signal handler
    say       called with what is going to happen
    at_once   whether a "stop" can interrupt at once, for nothing would be lost
    patience  seconds in which a second SIGINT counts as the first one: a launcher and the terminal may both send it
    """
    stopping, since = False, -math.inf

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stopping, since
        effect = effects[number]
        if stopping and number == signal.SIGINT:
            if time.monotonic() - since < patience:
                return
            raise KeyboardInterrupt
        if effect == "none":
            return
        if effect == "stop" and at_once():
            raise KeyboardInterrupt
        if effect == "stop" and not stopping:
            stopping, since = True, time.monotonic()
        request(effect)
        say(
            "stopping with a snapshot; press Ctrl-C again to stop at once"
            if effect == "stop"
            else "writing a snapshot after this iteration"
        )

    names = {"SIGINT": sigint, "SIGHUP": sighup, "SIGTERM": "stop"}
    effects = {getattr(signal, name): effect for name, effect in names.items() if hasattr(signal, name)}
    with _handlers(dict.fromkeys(effects, handle)):
        yield


@contextlib.contextmanager
def _handlers(handlers: Mapping[int, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    """Installs handlers while the block runs, in the main thread: only it can; elsewhere signals keep their meaning."""
    old = {}
    try:
        if threading.current_thread() is threading.main_thread():
            old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
