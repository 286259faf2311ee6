"""Runs a kernel over a range: on all threads, or on the calling one where waking the others would take longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sslnet.kernels.denormals import flush_denormals, restore_denormals
from sslnet.kernels.threads import parallel

SMALL = 1 << 15


def run(kernel: Callable[..., object], n: int, size: int, *args: Any) -> None:
    """Calls kernel(i0, i1, thread, *args) over range(n). size: elements it goes over; up to SMALL it is not split."""
    if size > SMALL:
        parallel(kernel, n, *args)
        return
    setting = flush_denormals()
    try:
        kernel(0, n, 0, *args)
    finally:
        restore_denormals(setting)
