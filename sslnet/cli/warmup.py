"""Says that kernels are being compiled when they are: the first run on a machine waits for that, later ones do not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

NOTICE = "compiling kernels, once: later runs start faster"


@contextlib.contextmanager
def compile_notice(say: Callable[[str], None], each: Callable[[int, str], None] | None = None) -> Iterator[None]:
    """While it lasts, ``say(NOTICE)`` when the first kernel is compiled, not when all come from the cache.

    each   called with the number of kernels compiled so far and the name of the one that begins
    """
    from numba.core import event

    class Listener(event.Listener):
        count = 0

        def on_start(self, event: event.Event) -> None:
            if not self.count:
                say(NOTICE)
            self.count += 1
            if each is not None:
                each(self.count, event.data["dispatcher"].py_func.__name__)

        def on_end(self, event: event.Event) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        yield
