"""Other programs beside a measurement, as on a machine that is shared."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Context manager in which ``count`` other processes compute, each in one thread."""
    # They end with this process even where it is killed: their input ends then.
    code = "import sys, threading\nthreading.Thread(target=lambda: [sys.stdin.read(), __import__('os')._exit(0)]).start()\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
